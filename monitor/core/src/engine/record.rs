//! Connections as records.

use std::sync::Arc;

use monitor_common::abi::flag;

use super::{
    nsg::Declared,
    policy, public,
    translate::{Kept, Translations},
};
use crate::{
    account::Interface,
    entity::{Names, Sight},
    event::{
        FindingKind, FlowRecord, IcmpRecord, Initiator, LocalEnd, NsgRecord, Protocol, Retransmits,
        State, TcpFlags, TcpRecord, Traffic, VERSION,
    },
    flow::{FlowKey, Tracked},
    judge::nsg_finding,
    time::Timestamp,
};

/// Nanoseconds in a microsecond.
const MICROSECOND: u32 = 1_000;

/// What a record is made with.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) names: &'a Names,
    pub(super) nsg: &'a Declared,
    pub(super) translations: &'a Translations,
    /// What was known of a closed connection's translation.
    pub(super) kept: Option<&'a Kept>,
}

/// The record of a connection, made at `time`.
pub(super) fn of(
    context: &Context<'_>,
    key: &FlowKey,
    flow: &Tracked,
    interface: &Interface,
    state: State,
    time: Timestamp,
) -> FlowRecord {
    let Context { names, nsg, .. } = context;
    let protocol = key.protocol();
    let orientation = flow.orientation(key);
    let (forward, reverse) = (orientation.forward(), orientation.forward() ^ 1);
    let endpoint = |ip, port| {
        let sight = Sight {
            ip,
            port: Some((protocol, port)),
            point: interface.point,
            at: flow.start,
        };
        let entity = names.resolve_socket(&sight, flow.cgroup_id);
        entity.endpoint(ip, protocol.has_ports().then_some(port))
    };
    let local = endpoint(key.local(), key.local_port());
    let remote = endpoint(key.remote(), key.remote_port());
    let (source, destination, local) = if orientation.source_is_local {
        (local, remote, LocalEnd::Source)
    } else {
        (remote, local, LocalEnd::Destination)
    };
    let traffic = |direction: usize| Traffic {
        packets: flow.packets[direction],
        bytes: flow.bytes[direction],
    };
    let is_tcp = protocol == Protocol::TCP;
    let outcome = flow.outcome(key);
    let judged = flow.policy.as_deref();
    let expected = nsg.expect(names, key, flow, interface);
    let finding = found(names, nsg, key, flow, interface, state, expected.as_ref());
    FlowRecord {
        version: VERSION,
        time,
        start: flow.start,
        end: flow.end(),
        state,
        cut: false,
        point: interface.point,
        interface: Arc::clone(&interface.name),
        protocol,
        source,
        destination,
        local,
        initiator: if orientation.is_known {
            Initiator::Source
        } else {
            Initiator::Unknown
        },
        app: flow.app().name().into(),
        forward: traffic(forward),
        reverse: traffic(reverse),
        tcp: is_tcp.then(|| TcpRecord {
            forward_flags: tcp_flags(flow.flags[forward]),
            reverse_flags: tcp_flags(flow.flags[reverse]),
            handshake_rtt_us: (flow.handshake_rtt_ns != 0)
                .then(|| flow.handshake_rtt_ns.div_ceil(MICROSECOND).into()),
        }),
        icmp: protocol.is_icmp().then(|| icmp(key)),
        retransmits: is_tcp.then(|| Retransmits {
            forward: flow.retransmits[forward],
            reverse: flow.retransmits[reverse],
        }),
        outcome,
        cgroup_id: (flow.cgroup_id != 0).then_some(flow.cgroup_id),
        translated: context.translated(key, flow, interface, state == State::Closed),
        policy: judged.map(|judged| Arc::clone(&judged.verdict)),
        proposed: judged.and_then(|judged| judged.proposed.clone()),
        nsg: expected,
        finding: finding.map(|finding| finding.name().into()),
    }
}

/// Where a connection and the declarations disagree.
pub(super) fn finding(
    names: &Names,
    nsg: &Declared,
    key: &FlowKey,
    flow: &Tracked,
    interface: &Interface,
    state: State,
) -> Option<FindingKind> {
    let expected = nsg.expect(names, key, flow, interface);
    found(names, nsg, key, flow, interface, state, expected.as_ref())
}

fn found(
    names: &Names,
    nsg: &Declared,
    key: &FlowKey,
    flow: &Tracked,
    interface: &Interface,
    state: State,
    expected: Option<&NsgRecord>,
) -> Option<FindingKind> {
    let outcome = flow.outcome(key);
    let is_final = state == State::Closed;
    // Policies are judged at workloads and groups at uplinks. Where one interface has both, a
    // replay, the policy is nearer to the pods.
    policy::finding(flow, outcome, is_final).or_else(|| {
        let expected = expected?;
        expected
            .direction
            .and_then(|way| nsg_finding(expected.access, way, outcome, is_final))
            .or_else(|| public::finding(names, nsg, key, flow, interface, outcome))
    })
}

fn tcp_flags(flags: u16) -> Option<TcpFlags> {
    let flags = (flags & flag::TCP_MASK) as u8;
    (flags != 0).then_some(TcpFlags(flags))
}

fn icmp(key: &FlowKey) -> IcmpRecord {
    let [kind, code] = key.remote_port().to_be_bytes();
    let is_echo = match key.protocol() {
        Protocol::ICMP => kind == monitor_common::parse::icmp_type::ECHO_REQUEST,
        _ => kind == monitor_common::parse::icmp_type::V6_ECHO_REQUEST,
    };
    IcmpRecord {
        kind,
        code,
        id: is_echo.then(|| key.local_port()),
    }
}
