//! Who opened a connection.

use std::cmp::Ordering;

use monitor_common::abi::{RX, TX, flag};

use super::{FlowKey, Mark, Tracked};
use crate::event::Protocol;

/// Ports from here on are ephemeral everywhere (Linux gives out 32768 and up by default).
const EPHEMERAL: u16 = 32_768;
/// Ports below are given to services only.
pub(super) const WELL_KNOWN: u16 = 1_024;

/// Which end is the source, and whether that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Orientation {
    /// Whether the local end is the source.
    pub(crate) source_is_local: bool,
    /// Whether the source is known to have opened the connection; else it is a guess.
    pub(crate) is_known: bool,
}

// === impl Orientation ===

impl Orientation {
    /// TCP: the sender of the SYN is known; without one the source is a guess.
    ///
    /// Other protocols: the sender of the first packet, unless that packet may not be the first
    /// ([`Mark::Unsettled`]).
    ///
    /// The guess: the receiver of a SYN-ACK; the sender of the first packet, where it is not TCP and
    /// the ports are of the same kind; the end with the higher port, if the lower port is not
    /// ephemeral; the sender of the first packet; the end that did not send all packets; the
    /// local end.
    pub(crate) fn of(key: &FlowKey, flow: &Tracked) -> Self {
        let protocol = key.protocol();
        let known = match protocol {
            Protocol::TCP => match only(flow.flags, flag::OPENS) {
                Some(sender) => Some(sender),
                None if flow.flags[TX] & flag::OPENS != 0 => {
                    Some(only(flow.flags, flag::FIRST).unwrap_or(TX))
                }
                None => None,
            },
            _ if flow.has(Mark::Unsettled) => None,
            _ => only(flow.flags, flag::FIRST),
        };
        let source = known.unwrap_or_else(|| guess(key, flow));
        Self {
            source_is_local: source == TX,
            is_known: known.is_some(),
        }
    }

    /// Index of the direction from source to destination.
    pub(crate) fn forward(self) -> usize {
        if self.source_is_local { TX } else { RX }
    }

    /// Port of the responder, for protocols that have ports.
    pub(crate) fn service_port(self, key: &FlowKey) -> Option<u16> {
        let port = if self.source_is_local {
            key.remote_port()
        } else {
            key.local_port()
        };
        key.protocol().has_ports().then_some(port)
    }
}

/// The one direction that has a flag.
pub(super) fn only(flags: [u16; 2], wanted: u16) -> Option<usize> {
    match (flags[TX] & wanted != 0, flags[RX] & wanted != 0) {
        (true, false) => Some(TX),
        (false, true) => Some(RX),
        _ => None,
    }
}

/// What a packet says of its sender by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sender {
    /// It asks: it opens a flow.
    Client,
    /// It may be either.
    Either,
    /// It goes from a port that is a service's to one that is a client's, as answers do.
    Server,
    /// It answers a packet of another flow, or of one that was not seen.
    Responder,
}

// === impl Sender ===

impl Sender {
    /// Of a packet in this direction.
    pub(super) fn of(key: &FlowKey, direction: usize) -> Self {
        let protocol = key.protocol();
        if protocol.is_icmp() {
            return Self::of_icmp(protocol, key.remote_port() >> 8);
        }
        if !protocol.has_ports() {
            return Self::Either;
        }
        let (source, destination) = if direction == TX {
            (key.local_port(), key.remote_port())
        } else {
            (key.remote_port(), key.local_port())
        };
        let class = |port| usize::from(port >= WELL_KNOWN) + usize::from(port >= EPHEMERAL);
        match class(source).cmp(&class(destination)) {
            Ordering::Greater => Self::Client,
            Ordering::Equal => Self::Either,
            Ordering::Less => Self::Server,
        }
    }

    /// Of a message of this type. Errors quote a packet of another flow, replies answer a request
    /// (RFC 792, RFC 950, RFC 4443 section 2.1). An echo reply has its request's key, and is never
    /// the first packet.
    fn of_icmp(protocol: Protocol, kind: u16) -> Self {
        let answers = match protocol {
            Protocol::ICMP => matches!(kind, 3 | 4 | 5 | 11 | 12 | 14 | 16 | 18),
            _ => kind < 128,
        };
        if answers {
            Self::Responder
        } else {
            Self::Client
        }
    }
}

/// What the first packet of a flow says of its sender; without one, what is least certain.
pub(super) fn first_sender(key: &FlowKey, flow: &Tracked) -> Sender {
    let first = flow.first();
    first.map_or(Sender::Server, |direction| Sender::of(key, direction))
}

fn guess(key: &FlowKey, flow: &Tracked) -> usize {
    let accepted_by = || only(flow.flags, flag::ACCEPTS).map(|sender| sender ^ 1);
    let by_port = || {
        let (local, remote) = (key.local_port(), key.remote_port());
        if !key.protocol().has_ports() || local == remote || local.min(remote) >= EPHEMERAL {
            None
        } else if local > remote {
            Some(TX)
        } else {
            Some(RX)
        }
    };
    let silent = || match (flow.packets[TX], flow.packets[RX]) {
        (0, packets) if packets > 0 => Some(TX),
        (packets, 0) if packets > 0 => Some(RX),
        _ => None,
    };
    // Of ports of the same kind, as of an unsettled flow of UDP, the numbers tell less.
    let by_order = || {
        let is_told = key.protocol() != Protocol::TCP && Sender::of(key, TX) == Sender::Either;
        only(flow.flags, flag::FIRST).filter(|_| is_told)
    };
    accepted_by()
        .or_else(by_order)
        .or_else(by_port)
        .or_else(|| only(flow.flags, flag::FIRST))
        .or_else(silent)
        .unwrap_or(TX)
}

#[cfg(test)]
mod tests {
    use monitor_common::abi::flag::{ACCEPTS, FIRST, OPENS};

    use super::*;
    use crate::fixture::{key4, tracked, value};

    const ICMP: Protocol = Protocol::ICMP;
    const TCP: Protocol = Protocol::TCP;
    const UDP: Protocol = Protocol::UDP;

    #[test]
    fn initiator_is_known_or_guessed() {
        let check = |protocol: Protocol, ports: [u16; 2], flags: [u16; 2], expected: &str| {
            let key = key4(1, protocol, ports[0], ports[1]);
            let mut value = value([1, 1]);
            value.flags = flags;
            let orientation = tracked(&value).orientation(&key);
            let end = if orientation.source_is_local {
                "local"
            } else {
                "remote"
            };
            let certainty = if orientation.is_known {
                "known"
            } else {
                "guess"
            };
            assert_eq!(
                format!("{end} {certainty}"),
                expected,
                "{protocol} {ports:?} {flags:?}"
            );
        };
        // TCP: the SYN tells, whatever the ports.
        check(TCP, [40_000, 443], [OPENS | FIRST, ACCEPTS], "local known");
        check(TCP, [22, 50_000], [OPENS, FIRST], "local known");
        check(TCP, [22, 50_000], [ACCEPTS, OPENS | FIRST], "remote known");
        check(TCP, [22, 50_000], [OPENS, OPENS | FIRST], "remote known");
        // Without a SYN: the SYN-ACK, then the ports, then the first packet.
        check(TCP, [50_000, 22], [ACCEPTS, 0], "remote guess");
        check(TCP, [50_000, 22], [FIRST, 0], "local guess");
        check(TCP, [22, 50_000], [FIRST, 0], "remote guess");
        check(TCP, [9_000, 8_080], [0, FIRST], "local guess");
        check(TCP, [40_000, 50_000], [FIRST, 0], "local guess");
        check(TCP, [40_000, 50_000], [0, FIRST], "remote guess");
        check(TCP, [40_000, 40_000], [0, 0], "local guess");
        // Others: the first packet, where it is the first.
        check(UDP, [40_000, 53], [FIRST, 0], "local known");
        check(UDP, [53, 40_000], [FIRST, 0], "local known");
        check(UDP, [53, 40_000], [0, FIRST], "remote known");
        check(UDP, [40_000, 53], [0, 0], "local guess");
        check(ICMP, [7, 0x800], [0, FIRST], "remote known");
        check(Protocol(47), [0, 0], [FIRST, 0], "local known");
    }

    #[test]
    fn first_packets_of_an_unsettled_interface_tell_little() {
        let mut value = value([1, 1]);
        value.flags = [FIRST, 0];
        let mut flow = tracked(&value);
        flow.set(Mark::Unsettled, true);
        let orientation = flow.orientation(&key4(1, UDP, 8_472, 50_000));
        assert_eq!(
            orientation,
            Orientation {
                source_is_local: false,
                is_known: false
            }
        );
        value.flags = [OPENS, FIRST];
        let mut flow = tracked(&value);
        flow.set(Mark::Unsettled, true);
        assert!(flow.orientation(&key4(1, TCP, 8_472, 50_000)).is_known);
    }

    #[test]
    fn an_answer_to_an_unseen_echo_request_was_asked_for() {
        let flow = tracked(&value([0, 3]));
        let orientation = flow.orientation(&key4(1, ICMP, 7, 0x800));
        assert_eq!(
            orientation,
            Orientation {
                source_is_local: true,
                is_known: false
            }
        );
    }

    #[test]
    fn the_service_port_is_the_responders() {
        let key = key4(1, TCP, 40_000, 443);
        let port = |source_is_local| {
            Orientation {
                source_is_local,
                is_known: true,
            }
            .service_port(&key)
        };
        assert_eq!((port(true), port(false)), (Some(443), Some(40_000)));
        let orientation = Orientation {
            source_is_local: true,
            is_known: true,
        };
        assert_eq!(orientation.service_port(&key4(1, ICMP, 7, 0x800)), None);
    }
}
