//! What became of a connection.

use monitor_common::{
    abi::flag::{ACCEPTS, ACK, FIN, OPENS, RST, UNREACHABLE},
    classify::App,
};

use super::{FlowKey, Mark, Tracked};
use crate::event::{Outcome, Protocol};

/// ICMP echo request (RFC 792).
const ECHO_REQUEST: u16 = 8;
/// ICMPv6 echo request (RFC 4443).
const ECHO_REQUEST6: u16 = 128;

/// The outcome so far; `forward` is the direction of the end that opened the connection (A), the
/// other end is B. The first row that holds decides.
///
/// | TCP | outcome |
/// |---|---|
/// | no SYN from either end | midstream |
/// | B sent SYN-ACK, A sent ACK, FIN from both | established: an RST after both ends have closed ends nothing |
/// | B sent SYN-ACK, A sent ACK, then RST from either | reset |
/// | B sent SYN-ACK, A sent ACK | established |
/// | B sent SYN-ACK, RST from either | reset |
/// | B sent RST | refused |
/// | ICMP destination unreachable answered A | refused |
/// | A and B sent ACK (the SYN-ACK was not counted) | established, or reset after RST from A |
/// | anything else: B silent, or A never completed the handshake | unanswered |
///
/// | other protocols | outcome |
/// |---|---|
/// | ICMP and ICMPv6 messages that are no echo: they answer none of their own type | one-way |
/// | packets both ways | established |
/// | to multicast or broadcast | one-way |
/// | ICMP destination unreachable answered A | refused |
/// | A sent echo requests or DNS queries | unanswered |
/// | anything else | one-way |
///
/// Every outcome but unanswered and one-way is decided for good, except that an established
/// connection may still be reset, and that a late answer makes a refused one established.
pub(super) fn of(key: &FlowKey, flow: &Tracked, forward: usize) -> Outcome {
    let (a, b) = (flow.flags[forward], flow.flags[forward ^ 1]);
    if key.protocol() == Protocol::TCP {
        return tcp(a, b);
    }
    let sent = flow.packets[forward] > 0;
    let answered = flow.packets[forward ^ 1] > 0;
    let kind = key.remote_port() >> 8;
    let (is_message, asks) = match key.protocol() {
        Protocol::ICMP => (kind != ECHO_REQUEST, kind == ECHO_REQUEST),
        Protocol::ICMPV6 => (kind != ECHO_REQUEST6, kind == ECHO_REQUEST6),
        _ => (false, flow.app() == App::Dns),
    };
    match (sent, answered) {
        // Neighbours that solicit each other, say: neither is the other's answer.
        _ if is_message => Outcome::OneWay,
        (true, true) => Outcome::Established,
        _ if flow.has(Mark::Multicast) => Outcome::OneWay,
        _ if a & UNREACHABLE != 0 => Outcome::Refused,
        (true, false) if asks => Outcome::Unanswered,
        _ => Outcome::OneWay,
    }
}

fn tcp(a: u16, b: u16) -> Outcome {
    // Whose socket is gone answers what comes late, a FIN that is acknowledged twice for one, with RST.
    let closed = a & b & FIN != 0;
    let reset = (a | b) & RST != 0 && !closed;
    let ended_well = if reset {
        Outcome::Reset
    } else {
        Outcome::Established
    };
    if (a | b) & OPENS == 0 {
        Outcome::Midstream
    } else if b & ACCEPTS != 0 && a & ACK != 0 {
        ended_well
    } else if b & ACCEPTS != 0 && reset {
        Outcome::Reset
    } else if b & RST != 0 || a & UNREACHABLE != 0 {
        Outcome::Refused
    } else if a & b & ACK != 0 {
        ended_well
    } else {
        Outcome::Unanswered
    }
}

#[cfg(test)]
mod tests {
    use monitor_common::abi::flag::{DATA, FIRST, PSH, SYN};

    use super::*;
    use crate::fixture::{key4, tracked, value};

    /// From the local end, which opened; flags and packets of both directions.
    fn outcome(
        protocol: Protocol,
        remote_port: u16,
        flags: [u16; 2],
        packets: [u64; 2],
        app: App,
        is_multicast: bool,
    ) -> Outcome {
        let key = key4(1, protocol, 40_000, remote_port);
        let mut value = value(packets);
        value.flags = flags;
        value.app = app as u8;
        let mut flow = tracked(&value);
        flow.set(Mark::Multicast, is_multicast);
        flow.outcome(&key)
    }

    #[test]
    fn tcp_outcomes() {
        const A_SYN: u16 = OPENS | SYN | FIRST;
        const B_SYN: u16 = ACCEPTS | SYN | ACK;
        let check = |a: u16, b: u16, expected: Outcome| {
            let packets = [u64::from(a != 0), u64::from(b != 0)];
            let outcome = outcome(Protocol::TCP, 443, [a, b], packets, App::Unknown, false);
            assert_eq!(outcome, expected, "{a:#x} {b:#x}");
        };
        check(A_SYN | ACK, B_SYN, Outcome::Established);
        check(
            A_SYN | ACK | FIN | PSH | DATA,
            B_SYN | FIN | PSH | DATA,
            Outcome::Established,
        );
        check(A_SYN | ACK | RST, B_SYN, Outcome::Reset);
        check(A_SYN | ACK, B_SYN | RST, Outcome::Reset);
        check(A_SYN | ACK | FIN, B_SYN | RST, Outcome::Reset);
        check(A_SYN | ACK | RST, B_SYN | FIN, Outcome::Reset);
        check(A_SYN | ACK | FIN | RST, B_SYN | FIN, Outcome::Established);
        check(A_SYN, B_SYN | RST, Outcome::Reset);
        check(A_SYN | RST, B_SYN, Outcome::Reset);
        check(A_SYN, B_SYN, Outcome::Unanswered);
        check(A_SYN, RST | ACK, Outcome::Refused);
        check(A_SYN | UNREACHABLE, 0, Outcome::Refused);
        check(A_SYN | ACK | UNREACHABLE, B_SYN, Outcome::Established);
        check(A_SYN, 0, Outcome::Unanswered);
        check(A_SYN | RST, 0, Outcome::Unanswered);
        // A challenge ACK (RFC 5961 section 4) is no answer to the SYN.
        check(A_SYN, ACK, Outcome::Unanswered);
        // The SYN-ACK was not counted, the rest was.
        check(A_SYN | ACK | DATA, ACK | DATA, Outcome::Established);
        check(A_SYN | ACK | RST, ACK, Outcome::Reset);
        // Both open at once (RFC 9293 section 3.5).
        check(A_SYN | ACCEPTS | ACK, OPENS | B_SYN, Outcome::Established);
        check(ACK | PSH | DATA, ACK | DATA, Outcome::Midstream);
        check(ACK | FIN, RST, Outcome::Midstream);
        check(ACK, B_SYN, Outcome::Midstream);
    }

    #[test]
    fn other_outcomes() {
        let check = |protocol, port, packets, app, unreachable: bool, expected: Outcome| {
            let flags = [FIRST | if unreachable { UNREACHABLE } else { 0 }, 0];
            let outcome = outcome(protocol, port, flags, packets, app, false);
            assert_eq!(outcome, expected, "{protocol} {port} {packets:?} {app:?}");
        };
        let (udp, icmp, icmp6) = (Protocol::UDP, Protocol::ICMP, Protocol::ICMPV6);
        check(
            udp,
            4_789,
            [3, 2],
            App::Unknown,
            false,
            Outcome::Established,
        );
        check(udp, 4_789, [3, 2], App::Unknown, true, Outcome::Established);
        check(udp, 4_789, [3, 0], App::Unknown, true, Outcome::Refused);
        check(udp, 4_789, [3, 0], App::Unknown, false, Outcome::OneWay);
        check(udp, 53, [1, 0], App::Dns, false, Outcome::Unanswered);
        check(udp, 53, [0, 1], App::Dns, false, Outcome::OneWay);
        check(
            icmp,
            0x0800,
            [1, 0],
            App::Unknown,
            false,
            Outcome::Unanswered,
        );
        check(
            icmp,
            0x0800,
            [1, 1],
            App::Unknown,
            false,
            Outcome::Established,
        );
        check(icmp, 0x0301, [1, 0], App::Unknown, false, Outcome::OneWay);
        check(
            icmp6,
            0x8000,
            [1, 0],
            App::Unknown,
            false,
            Outcome::Unanswered,
        );
        for packets in [[1, 0], [1, 1]] {
            check(icmp6, 0x8700, packets, App::Unknown, false, Outcome::OneWay);
            check(icmp, 0x0301, packets, App::Unknown, false, Outcome::OneWay);
        }
        check(icmp, 0x0800, [1, 0], App::Unknown, true, Outcome::Refused);
        check(
            Protocol(47),
            0,
            [1, 0],
            App::Unknown,
            false,
            Outcome::OneWay,
        );
        check(
            Protocol::SCTP,
            2_905,
            [1, 1],
            App::Unknown,
            false,
            Outcome::Established,
        );
    }

    #[test]
    fn multicast_needs_no_answer() {
        let one_way = outcome(Protocol::UDP, 5_353, [FIRST, 0], [4, 0], App::Dns, true);
        assert_eq!(one_way, Outcome::OneWay);
    }
}
