//! SSH connections as records.

use super::{super::books::Books, Id, connection::PORT};
use crate::{
    engine::translate::endpoint,
    event::{EntityKind, LocalEnd, Point, SshRecord, State, Target, Traffic, VERSION},
    flow::Tracked,
    judge::Expectations,
    ssh::{Hint, Side},
};

impl Books {
    /// The record of a connection now; `None` if its interface is not known.
    pub(super) fn ssh_record(
        &self,
        id: Id,
        tracked: Option<&Tracked>,
        state: State,
    ) -> Option<SshRecord> {
        let connection = self.ssh.live.get(&id)?;
        let interface = self.ledger.interface(id.key.interface_id())?;
        let start = tracked.map_or(connection.first, |flow| flow.start);
        let end = tracked.map_or(connection.last, |flow| flow.end().max(connection.last));
        let is_client = connection.local_is_client;
        let (ends, translated) = self.ssh_ends(id, is_client, tracked, interface.point, start);
        let [mut source, mut destination] = [ends.source, ends.destination]
            .map(|end| endpoint(&self.names, end, interface.point, start));
        let local = if is_client {
            LocalEnd::Source
        } else {
            LocalEnd::Destination
        };
        let process = connection.owner.process.clone().map(Box::new);
        match connection.owner.end {
            Some(LocalEnd::Source) => source.process = process,
            Some(LocalEnd::Destination) => destination.process = process,
            None => {}
        }
        let target = self.ssh_target(interface.point, local, destination.kind);
        let expected = self.ssh.expectations.judge(target, source.ip);
        let range = expected
            .as_ref()
            .and_then(|expected| expected.range.clone());
        let session = &connection.session;
        let authentication = connection.outcome(state == State::Closed);
        let traffic = |is_forward: bool| {
            let direction = usize::from(is_forward != connection.local_is_client);
            tracked.map(|flow| Traffic {
                packets: flow.packets[direction],
                bytes: flow.bytes[direction],
            })
        };
        Some(SshRecord {
            version: VERSION,
            time: self.now,
            start,
            end,
            state,
            point: interface.point,
            interface: std::sync::Arc::clone(&interface.name),
            class: session.class(),
            standard_port: destination.port == Some(PORT),
            source,
            destination,
            translated,
            local,
            target,
            client_banner: session.banner(Side::Client).map(Into::into),
            server_banner: session.banner(Side::Server).map(Into::into),
            hassh: session.hassh(Side::Client).map(Into::into),
            hassh_server: session.hassh(Side::Server).map(Into::into),
            expected: expected.map(|expected| expected.range.is_some()),
            range: range.map(|(name, _)| name),
            authentication: authentication.outcome,
            attempts: authentication.attempts,
            basis: authentication.basis,
            duration_ms: duration_ms(start, end),
            forward: traffic(true),
            reverse: traffic(false),
            user: connection.owner.user.clone(),
            process: connection.owner.process.clone(),
            hints: {
                let midstream = connection.is_midstream.then_some(Hint::Midstream);
                session.hints().chain(midstream).collect()
            },
            finding: connection.finding,
        })
    }

    /// What a connection leads to. Where nothing says which addresses are local, all are.
    pub(super) fn ssh_target(&self, point: Point, local: LocalEnd, kind: EntityKind) -> Target {
        match (kind, local, point) {
            (EntityKind::Node, ..) => Target::Node,
            (EntityKind::Pod, ..) | (_, LocalEnd::Destination, Point::Workload) => Target::Pod,
            _ if self.ssh.is_all_local => Target::Node,
            // An uplink of a node hands on what is for its pods.
            (_, LocalEnd::Destination, Point::Uplink) if self.names.knows_node() => Target::Pod,
            (_, LocalEnd::Destination, Point::Uplink) => Target::Node,
            (_, LocalEnd::Source, _) => Target::External,
        }
    }

    /// What declares the expectation for a target, for people.
    pub(super) fn ssh_declaration(&self, target: Target) -> String {
        let ranges = match target {
            Target::Pod => &self.ssh.expectations.pod,
            Target::Node | Target::External => &self.ssh.expectations.node,
        };
        let ranges: Vec<_> = ranges
            .iter()
            .map(|range| format!("{}={}", range.name, range.net))
            .collect();
        format!("{} {}", Expectations::declared_by(target), ranges.join(" "))
    }
}

fn duration_ms(start: crate::time::Timestamp, end: crate::time::Timestamp) -> u64 {
    let elapsed = end.nanoseconds().saturating_sub(start.nanoseconds());
    u64::try_from(elapsed / 1_000_000).unwrap_or(0)
}
