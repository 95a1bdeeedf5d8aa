//! Looks up how one connection is translated on this node, by ctnetlink (`IPCTNL_MSG_CT_GET` of
//! linux/netfilter/nfnetlink_conntrack.h).
//!
//! Connection tracking finds a connection by the tuple of either direction, before anything in it
//! is translated: an exact question is answered from its hash table, nothing is listed. A socket
//! asks about the network namespace that it was made in. Entries outlive connections: TCP's by ten
//! seconds after a reset and two minutes after a close, UDP's by thirty seconds.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use monitor_core::engine::{Pair, Translation};
use monitor_core::event::Protocol;
use netlink_packet_core::{
    NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload, NlasIterator,
    Parseable as _,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterProtoFamily,
    conntrack::{ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Tuple},
};
use netlink_sys::{Socket, protocols::NETLINK_NETFILTER};

/// Type of a netlink message that says how it went, as in linux/netlink.h.
const NLMSG_ERROR: u16 = 2;
/// Type of a message that describes a connection: `NFNL_SUBSYS_CTNETLINK` and
/// `IPCTNL_MSG_CT_NEW`.
const CONNECTION: u16 = 1 << 8;
/// Bytes of `struct nlmsghdr` and of `struct nfgenmsg`.
const HEADER_BYTES: usize = 16;
const FAMILY_BYTES: usize = 4;
/// A description takes some hundred bytes.
const ANSWER_BYTES: usize = 8192;
/// Messages that are read at most until the answer has to be there.
const MOST_MESSAGES: usize = 16;
/// Attributes of one message or tuple that are looked at.
const MOST_ATTRIBUTES: usize = 64;
/// What is there once connection tracking is: the socket is not to make the kernel load it.
const SETTINGS: &str = "/proc/sys/net/netfilter/nf_conntrack_max";

/// How many connections are tracked in the reader's network namespace
/// (Documentation/networking/nf_conntrack-sysctl.rst).
const COUNT: &str = "/proc/sys/net/netfilter/nf_conntrack_count";

/// Connection tracking cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum ConntrackError {
    /// The kernel has none, or has not loaded it.
    #[error("this node does not track connections (no {SETTINGS})")]
    Absent,
    /// No netlink socket.
    #[error("cannot open a netfilter socket: {0}")]
    Socket(#[source] io::Error),
    /// The question cannot be asked or the answer cannot be read.
    #[error("cannot {what} by ctnetlink: {source}")]
    Exchange {
        /// What was tried.
        what: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The kernel refuses.
    #[error(
        "the kernel refuses to look up a connection (CAP_NET_ADMIN, nf_conntrack_netlink): {0}"
    )]
    Refused(#[source] io::Error),
    /// The answer makes no sense.
    #[error("the kernel's answer about a connection cannot be understood")]
    Malformed,
}

/// A ctnetlink socket of the network namespace that it was made in.
pub struct Conntrack {
    socket: Socket,
    sequence: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Connection(Translation),
    /// A negative error number, or zero.
    Error(i32),
}

// === impl Conntrack ===

impl Conntrack {
    /// For the namespace of the calling thread; an error if connection tracking cannot be asked.
    pub fn new() -> Result<Self, ConntrackError> {
        if !Path::new(SETTINGS).exists() {
            return Err(ConntrackError::Absent);
        }
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(ConntrackError::Socket)?;
        socket.bind_auto().map_err(ConntrackError::Socket)?;
        let mut conntrack = Self {
            socket,
            sequence: 0,
        };
        // Whether it answers at all: a connection that cannot be.
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        conntrack.find(Protocol::TCP, nowhere, nowhere)?;
        Ok(conntrack)
    }

    /// Whether no connection at all is tracked: nobody's rules ask for it. False where that cannot
    /// be told.
    pub fn is_idle(&self) -> bool {
        std::fs::read(COUNT).is_ok_and(|count| count.trim_ascii() == b"0")
    }

    /// How a connection is translated, by the source and destination of packets of either direction
    /// as they are before anything in them is translated; `None` if there is no such connection.
    pub fn find(
        &mut self,
        protocol: Protocol,
        source: SocketAddr,
        destination: SocketAddr,
    ) -> Result<Option<Translation>, ConntrackError> {
        let ends = (source.ip().to_canonical(), destination.ip().to_canonical());
        let family = match ends {
            (IpAddr::V4(_), IpAddr::V4(_)) => NetfilterProtoFamily::IPv4,
            (IpAddr::V6(_), IpAddr::V6(_)) => NetfilterProtoFamily::IPv6,
            _ => return Ok(None),
        };
        let tuple = vec![
            Tuple::Ip(vec![
                IPTuple::SourceAddress(ends.0),
                IPTuple::DestinationAddress(ends.1),
            ]),
            Tuple::Proto(vec![
                ProtoTuple::Protocol(protocol.0.into()),
                ProtoTuple::SourcePort(source.port()),
                ProtoTuple::DestinationPort(destination.port()),
            ]),
        ];
        let sequence = self.send(family, tuple)?;
        match self.receive(sequence)? {
            Answer::Connection(translation) => Ok(Some(translation)),
            Answer::Error(code) if code == -libc::ENOENT => Ok(None),
            Answer::Error(code) => {
                Err(ConntrackError::Refused(io::Error::from_raw_os_error(-code)))
            }
        }
    }

    fn send(
        &mut self,
        family: NetfilterProtoFamily,
        tuple: Vec<Tuple>,
    ) -> Result<u32, ConntrackError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST;
        header.sequence_number = self.sequence;
        let request = NetfilterMessage::new(
            NetfilterHeader::new(family, 0, 0),
            ConntrackMessage::Get(vec![ConntrackAttribute::CtaTupleOrig(tuple)]),
        );
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let kernel = netlink_sys::SocketAddr::new(0, 0);
        let sent = self.socket.send_to(&bytes, &kernel, 0);
        sent.map_err(|source| ConntrackError::Exchange {
            what: "ask for a connection",
            source,
        })?;
        Ok(self.sequence)
    }

    fn receive(&self, sequence: u32) -> Result<Answer, ConntrackError> {
        for _ in 0..MOST_MESSAGES {
            let mut bytes: Vec<u8> = Vec::with_capacity(ANSWER_BYTES);
            // The kernel has answered before the sending call returned.
            let received = self.socket.recv_from(&mut bytes, libc::MSG_DONTWAIT);
            let (_, from) = received.map_err(|source| ConntrackError::Exchange {
                what: "read an answer",
                source,
            })?;
            if from.port_number() != 0 {
                continue;
            }
            if let Some(answer) = read(&bytes, sequence)? {
                return Ok(answer);
            }
        }
        Err(ConntrackError::Malformed)
    }
}

/// The answer in a datagram; `None` if it belongs to an earlier question.
fn read(bytes: &[u8], sequence: u32) -> Result<Option<Answer>, ConntrackError> {
    let message = NetlinkBuffer::new_checked(bytes).map_err(|_| ConntrackError::Malformed)?;
    if message.sequence_number() != sequence {
        return Ok(None);
    }
    // The header may claim less than itself.
    let length = usize::try_from(message.length()).map_err(|_| ConntrackError::Malformed)?;
    let payload = bytes
        .get(HEADER_BYTES..length)
        .ok_or(ConntrackError::Malformed)?;
    match message.message_type() {
        NLMSG_ERROR => {
            let code = payload.first_chunk().ok_or(ConntrackError::Malformed)?;
            Ok(Some(Answer::Error(i32::from_ne_bytes(*code))))
        }
        CONNECTION => {
            let attributes = payload
                .get(FAMILY_BYTES..)
                .ok_or(ConntrackError::Malformed)?;
            connection(attributes)
                .map(|translation| Some(Answer::Connection(translation)))
                .ok_or(ConntrackError::Malformed)
        }
        _ => Err(ConntrackError::Malformed),
    }
}

fn connection(attributes: &[u8]) -> Option<Translation> {
    let (mut original, mut reply) = (None, None);
    for attribute in NlasIterator::new(attributes).take(MOST_ATTRIBUTES) {
        match ConntrackAttribute::parse(&attribute.ok()?).ok()? {
            ConntrackAttribute::CtaTupleOrig(tuple) => original = Some(pair(&tuple)?),
            ConntrackAttribute::CtaTupleReply(tuple) => reply = Some(pair(&tuple)?),
            _ => {}
        }
    }
    let reply = reply?;
    Some(Translation {
        original: original?,
        reached: Pair {
            source: reply.destination,
            destination: reply.source,
        },
    })
}

fn pair(tuple: &[Tuple]) -> Option<Pair> {
    let (mut ips, mut ports) = ((None, None), (None, None));
    for part in tuple {
        match part {
            Tuple::Ip(addresses) => {
                for address in addresses {
                    match address {
                        IPTuple::SourceAddress(ip) => ips.0 = Some(ip.to_canonical()),
                        IPTuple::DestinationAddress(ip) => ips.1 = Some(ip.to_canonical()),
                        _ => {}
                    }
                }
            }
            Tuple::Proto(numbers) => {
                for number in numbers {
                    match number {
                        ProtoTuple::SourcePort(port) => ports.0 = Some(*port),
                        ProtoTuple::DestinationPort(port) => ports.1 = Some(*port),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(Pair {
        source: SocketAddr::new(ips.0?, ports.0?),
        destination: SocketAddr::new(ips.1?, ports.1?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An attribute, padded.
    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    const NESTED: u16 = 1 << 15;

    fn tuple(kind: u16, source: &str, destination: &str) -> Vec<u8> {
        let ends = [source, destination].map(|end| end.parse::<SocketAddr>().unwrap());
        let address = |index: u16, ip: IpAddr| match ip {
            IpAddr::V4(ip) => attribute(index, &ip.octets()),
            IpAddr::V6(ip) => attribute(index + 2, &ip.octets()),
        };
        let ips = [address(1, ends[0].ip()), address(2, ends[1].ip())].concat();
        let protocol = [
            attribute(1, &[6]),
            attribute(2, &ends[0].port().to_be_bytes()),
            attribute(3, &ends[1].port().to_be_bytes()),
        ]
        .concat();
        let parts = [
            attribute(NESTED | 1, &ips),
            attribute(NESTED | 2, &protocol),
        ];
        attribute(NESTED | kind, &parts.concat())
    }

    fn message(kind: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER_BYTES + payload.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes
    }

    fn described(reply: &[u8]) -> Vec<u8> {
        let status = attribute(3, &0x0e_u32.to_be_bytes());
        let original = tuple(1, "10.244.0.2:40000", "10.96.0.10:80");
        [&[2, 0, 0, 0][..], &original, reply, &status].concat()
    }

    #[test]
    fn answers_are_read() {
        let reply = tuple(2, "10.244.0.3:8080", "10.244.0.2:40000");
        let bytes = message(CONNECTION, 7, &described(&reply));
        let Ok(Some(Answer::Connection(found))) = read(&bytes, 7) else {
            panic!("{:?}", read(&bytes, 7));
        };
        let end = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert_eq!(found.original.destination, end("10.96.0.10:80"));
        assert_eq!(found.reached.source, end("10.244.0.2:40000"));
        assert_eq!(found.reached.destination, end("10.244.0.3:8080"));
        assert_eq!(read(&bytes, 8).unwrap(), None);
        let refused = message(NLMSG_ERROR, 7, &(-libc::EPERM).to_ne_bytes());
        let code = Answer::Error(-libc::EPERM);
        assert_eq!(read(&refused, 7).unwrap(), Some(code));
        let reply = tuple(2, "[fd00::3]:8080", "[fd00::2]:40000");
        let bytes = message(CONNECTION, 7, &described(&reply));
        assert!(matches!(read(&bytes, 7), Ok(Some(Answer::Connection(_)))));
    }

    #[test]
    fn nonsense_is_refused() {
        let reply = tuple(2, "10.244.0.3:8080", "10.244.0.2:40000");
        let whole = message(CONNECTION, 7, &described(&reply));
        for length in 0..whole.len() {
            assert!(read(&whole[..length], 7).is_err(), "{length}");
        }
        let mut short = whole.clone();
        for claimed in [0_u32, 15, 16, 19, 40, 10_000, u32::MAX] {
            short[..4].copy_from_slice(&claimed.to_ne_bytes());
            assert!(read(&short, 7).is_err(), "{claimed}");
        }
        // Without one of both tuples, an address or a port; of a kind that was not asked for.
        assert!(read(&message(CONNECTION, 7, &described(&[])), 7).is_err());
        let bare = attribute(NESTED | 2, &attribute(NESTED | 1, &[]));
        assert!(read(&message(CONNECTION, 7, &described(&bare)), 7).is_err());
        assert!(read(&message(77, 7, &[0; 100]), 7).is_err());
        // Any byte changed: an answer or an error, never a panic.
        for index in HEADER_BYTES..whole.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[index] = value;
                let _ = read(&bytes, 7);
            }
        }
    }

    #[test]
    fn a_connection_that_is_not_there_is_none() {
        let Ok(mut conntrack) = Conntrack::new() else {
            // Without connection tracking there is nothing to ask; the lab's tests need it.
            return;
        };
        for (source, destination) in [
            ("192.0.2.1:1", "192.0.2.2:2"),
            ("[2001:db8::1]:1", "[2001:db8::2]:2"),
            ("192.0.2.1:1", "[2001:db8::2]:2"),
        ] {
            let [source, destination] = [source, destination].map(|end| end.parse().unwrap());
            for protocol in [Protocol::TCP, Protocol::UDP, Protocol::SCTP] {
                let found = conntrack.find(protocol, source, destination);
                assert!(matches!(found, Ok(None)), "{found:?}");
            }
        }
    }
}
