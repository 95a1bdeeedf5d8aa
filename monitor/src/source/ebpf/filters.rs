//! What sits on the clsact hooks of an interface, by rtnetlink.

use futures_util::{Stream, StreamExt as _};
use monitor_common::abi::Hook;
use netlink_packet_route::tc::{TcAttribute, TcFilterBpfOption, TcMessage, TcOption};
use rtnetlink::Handle;

/// A filter on a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filter {
    /// Priority: lower numbers run first.
    pub(super) priority: u16,
    /// Handle within the priority.
    pub(super) handle: u32,
    /// Name of the BPF program, where it is one.
    pub(super) name: Option<String>,
    /// Kernel id of the BPF program, where it is one.
    pub(super) program_id: Option<u32>,
}

/// What the qdisc at the place of clsact is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Qdisc {
    /// There is none.
    Absent,
    /// clsact: both hooks.
    Clsact,
    /// `ingress`, which has no egress hook and keeps clsact from being added.
    Ingress,
}

/// The filters of a hook; none where there is no clsact.
pub(super) async fn filters(
    handle: &Handle,
    ifindex: u32,
    hook: Hook,
) -> Result<Vec<Filter>, rtnetlink::Error> {
    let request = handle.traffic_filter(ifindex.cast_signed()).get();
    let request = match hook {
        Hook::Ingress => request.ingress(),
        Hook::Egress => request.egress(),
    };
    let messages = match collect(request.execute()).await {
        // The kernel answers so where the parent does not exist.
        Err(rtnetlink::Error::NetlinkError(error))
            if [libc::EINVAL, libc::ENOENT].contains(&-error.raw_code()) =>
        {
            Vec::new()
        }
        result => result?,
    };
    Ok(messages.iter().filter_map(read_filter).collect())
}

/// Which qdisc sits at the place of clsact.
pub(super) async fn qdisc(handle: &Handle, ifindex: u32) -> Result<Qdisc, rtnetlink::Error> {
    let request = handle.qdisc().get().index(ifindex.cast_signed());
    for message in collect(request.execute()).await? {
        if message.header.index != ifindex.cast_signed() {
            continue;
        }
        for attribute in &message.attributes {
            match attribute {
                TcAttribute::Kind(kind) if kind == "clsact" => return Ok(Qdisc::Clsact),
                TcAttribute::Kind(kind) if kind == "ingress" => return Ok(Qdisc::Ingress),
                _ => {}
            }
        }
    }
    Ok(Qdisc::Absent)
}

async fn collect(
    stream: impl Stream<Item = Result<TcMessage, rtnetlink::Error>>,
) -> Result<Vec<TcMessage>, rtnetlink::Error> {
    let mut stream = std::pin::pin!(stream);
    let mut messages = Vec::new();
    while let Some(message) = stream.next().await {
        messages.push(message?);
    }
    Ok(messages)
}

fn read_filter(message: &TcMessage) -> Option<Filter> {
    let handle = u32::from(message.header.handle);
    let mut filter = Filter {
        priority: (message.header.info >> 16) as u16,
        handle,
        name: None,
        program_id: None,
    };
    let mut kind = "";
    for attribute in &message.attributes {
        match attribute {
            TcAttribute::Kind(name) => kind = name,
            TcAttribute::Options(options) => {
                for option in options {
                    match option {
                        TcOption::Bpf(TcFilterBpfOption::ProgName(name)) => {
                            filter.name = Some(name.clone());
                        }
                        TcOption::Bpf(TcFilterBpfOption::ProgId(id)) => {
                            filter.program_id = Some(*id);
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    // The kernel lists a priority once without a handle before its filters.
    (handle != 0 || kind != "bpf").then_some(filter)
}
