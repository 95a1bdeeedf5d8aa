//! Looks up one TCP socket by its two ends, by `NETLINK_SOCK_DIAG`.
//!
//! The kernel answers an exact question from its hash table: nothing is listed. A socket asks about
//! the network namespace that it was made in, whichever thread uses it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    Parseable as _,
};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP, SOCK_DIAG_BY_FAMILY, TCP_LISTEN},
    inet::{ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags},
};
use netlink_sys::{Socket, protocols::NETLINK_SOCK_DIAG};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Types of netlink messages, as in linux/netlink.h.
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `INET_DIAG_NOCOOKIE`: the ends alone say which socket is meant.
const NO_COOKIE: [u8; 8] = [0xff; 8];
/// An answer to an exact question takes some hundred bytes.
const ANSWER_BYTES: usize = 8192;
/// A part of a list of sockets has at most that many bytes (`NLMSG_GOODSIZE`, or what is read with).
const DUMP_BYTES: usize = 65_536;
/// Bytes of a netlink message before its payload.
const HEADER_BYTES: usize = 16;
/// Messages that are read at most until the answer has to be there.
const MOST_MESSAGES: usize = 16;

/// Asking the kernel for a socket failed.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// No netlink socket.
    #[error("cannot open a sock_diag socket: {0}")]
    Socket(#[source] io::Error),
    /// The question cannot be asked or the answer cannot be read.
    #[error("cannot {what} by sock_diag: {source}")]
    Exchange {
        /// What was tried.
        what: &'static str,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// The kernel refuses.
    #[error("the kernel refuses to look up a socket: {0}")]
    Refused(#[source] io::Error),
    /// The answer makes no sense.
    #[error("the kernel's answer about a socket cannot be understood")]
    Malformed,
}

/// What the kernel says about a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Zero as long as no process has accepted the connection, and once none has it open.
    pub(super) inode: u32,
    pub(super) uid: u32,
    pub(super) listener: bool,
}

/// An established connection, and the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) inode: u32,
    pub(super) uid: u32,
}

/// A sock_diag socket of one network namespace.
pub(super) struct Asker {
    socket: Socket,
    sequence: u32,
}

// === impl Asker ===

impl Asker {
    /// For the namespace of the calling thread.
    pub(super) fn new() -> Result<Self, QueryError> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG).map_err(QueryError::Socket)?;
        socket.bind_auto().map_err(QueryError::Socket)?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// For another namespace. A thread made for it enters there and ends; the calling thread never
    /// leaves its own.
    pub(super) fn in_namespace(namespace: BorrowedFd<'_>) -> Result<Self, EnterError> {
        let namespace = namespace.try_clone_to_owned().map_err(EnterError::Enter)?;
        let enter = move |namespace: OwnedFd| {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .map_err(|error| EnterError::Enter(error.into()))?;
            Self::new().map_err(EnterError::Query)
        };
        std::thread::Builder::new()
            .name("netns".to_owned())
            .spawn(move || enter(namespace))
            .map_err(EnterError::Thread)?
            .join()
            .expect("opening a socket does not panic")
    }

    /// Whether the kernel can be asked about TCP sockets at all: where `tcp_diag` is absent, exact
    /// questions are answered as if there were no such socket.
    pub(super) fn check(&mut self) -> Result<(), QueryError> {
        let mut id = SocketId::new_v4();
        id.cookie = NO_COOKIE;
        // A dump of sockets in no state: the kernel looks for its module and is done.
        let flags = NLM_F_REQUEST | NLM_F_DUMP;
        let sequence = self.send(AF_INET, id, flags, StateFlags::empty())?;
        match self.receive(sequence)? {
            Answer::Error(0) | Answer::Socket(_) => Ok(()),
            Answer::Error(code) => Err(QueryError::Refused(io::Error::from_raw_os_error(-code))),
        }
    }

    /// The socket with these ends, or else a listener that would take such a connection.
    pub(super) fn ask(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
    ) -> Result<Option<Found>, QueryError> {
        // IPv6 sockets that carry IPv4 are hashed as IPv4, so one question finds both.
        let (family, id) = match (local.ip().to_canonical(), remote.ip().to_canonical()) {
            ends @ (IpAddr::V4(_), IpAddr::V4(_)) => (AF_INET, ends),
            ends @ (IpAddr::V6(_), IpAddr::V6(_)) => (AF_INET6, ends),
            _ => return Ok(None),
        };
        let id = SocketId {
            source_port: local.port(),
            destination_port: remote.port(),
            source_address: id.0,
            destination_address: id.1,
            // Sockets of link-local connections are bound to their interface.
            interface_id: scope(local).max(scope(remote)),
            cookie: NO_COOKIE,
        };
        let sequence = self.send(family, id, NLM_F_REQUEST, StateFlags::all())?;
        match self.receive(sequence)? {
            Answer::Socket(found) => Ok(Some(found)),
            Answer::Error(code) if code == -libc::ENOENT => Ok(None),
            Answer::Error(code) => Err(QueryError::Refused(io::Error::from_raw_os_error(-code))),
        }
    }

    /// Connections that are established and held by a process, of both IP versions, at most `most`.
    /// The asker is of no use thereafter: there may be answers left.
    pub(super) fn established(mut self, most: usize) -> Result<Vec<Held>, QueryError> {
        let mut all = Vec::new();
        for (family, mut id) in [
            (AF_INET, SocketId::new_v4()),
            (AF_INET6, SocketId::new_v6()),
        ] {
            id.cookie = NO_COOKIE;
            let flags = NLM_F_REQUEST | NLM_F_DUMP;
            let sequence = self.send(family, id, flags, StateFlags::ESTABLISHED)?;
            let mut is_done = false;
            while !is_done {
                let mut bytes: Vec<u8> = Vec::with_capacity(DUMP_BYTES);
                // The kernel writes each part as the one before is read.
                let received = self.socket.recv_from(&mut bytes, libc::MSG_DONTWAIT);
                received.map_err(|source| QueryError::Exchange {
                    what: "read a list of sockets",
                    source,
                })?;
                is_done = read_list(&bytes, sequence, &mut all)?;
                if all.len() >= most {
                    all.truncate(most);
                    return Ok(all);
                }
            }
        }
        Ok(all)
    }

    fn send(
        &mut self,
        family: u8,
        socket_id: SocketId,
        flags: u16,
        states: StateFlags,
    ) -> Result<u32, QueryError> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let request = SockDiagMessage::InetRequest(InetRequest {
            family,
            protocol: IPPROTO_TCP,
            extensions: ExtensionFlags::empty(),
            states,
            socket_id,
        });
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        let kernel = netlink_sys::SocketAddr::new(0, 0);
        let sent = self.socket.send_to(&bytes, &kernel, 0);
        sent.map_err(|source| QueryError::Exchange {
            what: "ask for a socket",
            source,
        })?;
        Ok(self.sequence)
    }

    fn receive(&self, sequence: u32) -> Result<Answer, QueryError> {
        for _ in 0..MOST_MESSAGES {
            let mut bytes: Vec<u8> = Vec::with_capacity(ANSWER_BYTES);
            // The kernel has answered before the sending call returned: there is nothing to wait
            // for, and an answer that is missing must not hold up the thread.
            let received = self.socket.recv_from(&mut bytes, libc::MSG_DONTWAIT);
            let (_, from) = received.map_err(|source| QueryError::Exchange {
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
        Err(QueryError::Malformed)
    }
}

/// Another namespace cannot be asked.
#[derive(Debug)]
pub(super) enum EnterError {
    Thread(io::Error),
    Enter(io::Error),
    Query(QueryError),
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Socket(Found),
    /// A negative error number, or zero.
    Error(i32),
}

/// The answer in a datagram; `None` if it belongs to an earlier question.
fn read(bytes: &[u8], sequence: u32) -> Result<Option<Answer>, QueryError> {
    let message = NetlinkBuffer::new_checked(bytes).map_err(|_| QueryError::Malformed)?;
    if message.sequence_number() != sequence {
        return Ok(None);
    }
    // The header may claim less than itself.
    let length = usize::try_from(message.length()).map_err(|_| QueryError::Malformed)?;
    let payload = bytes.get(16..length).ok_or(QueryError::Malformed)?;
    match message.message_type() {
        NLMSG_ERROR | NLMSG_DONE => {
            let code = payload.first_chunk().ok_or(QueryError::Malformed)?;
            Ok(Some(Answer::Error(i32::from_ne_bytes(*code))))
        }
        SOCK_DIAG_BY_FAMILY => {
            let header = InetResponseHeader::parse(payload).map_err(|_| QueryError::Malformed)?;
            Ok(Some(Answer::Socket(Found {
                inode: header.inode,
                uid: header.uid,
                listener: header.state == TCP_LISTEN,
            })))
        }
        _ => Err(QueryError::Malformed),
    }
}

/// Adds the sockets of one part of a list; true after the last.
fn read_list(bytes: &[u8], sequence: u32, into: &mut Vec<Held>) -> Result<bool, QueryError> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let message = NetlinkBuffer::new_checked(rest).map_err(|_| QueryError::Malformed)?;
        let length = usize::try_from(message.length()).map_err(|_| QueryError::Malformed)?;
        let payload = rest
            .get(HEADER_BYTES..length)
            .ok_or(QueryError::Malformed)?;
        if message.sequence_number() == sequence {
            match message.message_type() {
                NLMSG_DONE => return Ok(true),
                NLMSG_ERROR => {
                    let code = payload.first_chunk().ok_or(QueryError::Malformed)?;
                    let code = i32::from_ne_bytes(*code);
                    return Err(QueryError::Refused(io::Error::from_raw_os_error(-code)));
                }
                SOCK_DIAG_BY_FAMILY => {
                    let header =
                        InetResponseHeader::parse(payload).map_err(|_| QueryError::Malformed)?;
                    let id = header.socket_id;
                    let end = |ip: IpAddr, port| SocketAddr::new(ip.to_canonical(), port);
                    if header.inode != 0 {
                        into.push(Held {
                            local: end(id.source_address, id.source_port),
                            remote: end(id.destination_address, id.destination_port),
                            inode: header.inode,
                            uid: header.uid,
                        });
                    }
                }
                _ => return Err(QueryError::Malformed),
            }
        }
        // Messages begin at multiples of four bytes.
        let next = length.next_multiple_of(4).min(rest.len());
        rest = rest.get(next..).unwrap_or_default();
    }
    Ok(false)
}

fn scope(address: SocketAddr) -> u32 {
    match address {
        SocketAddr::V4(_) => 0,
        SocketAddr::V6(address) => address.scope_id(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
    use std::os::linux::fs::MetadataExt as _;

    use super::*;

    fn message(kind: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(16 + payload.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 2]);
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(payload);
        bytes
    }

    /// `struct inet_diag_msg`.
    fn response(family: u8, state: u8, uid: u32, inode: u32) -> Vec<u8> {
        let mut bytes = vec![family, state, 0, 0];
        bytes.extend([0; 48]);
        bytes.extend([0; 12]);
        bytes.extend(uid.to_ne_bytes());
        bytes.extend(inode.to_ne_bytes());
        bytes
    }

    #[test]
    fn answers_are_read() {
        let socket = message(SOCK_DIAG_BY_FAMILY, 7, &response(AF_INET, 1, 1000, 77));
        let found = Found {
            inode: 77,
            uid: 1000,
            listener: false,
        };
        assert_eq!(read(&socket, 7).unwrap(), Some(Answer::Socket(found)));
        assert_eq!(read(&socket, 8).unwrap(), None);
        let listener = message(SOCK_DIAG_BY_FAMILY, 7, &response(AF_INET6, 10, 0, 78));
        assert!(matches!(
            read(&listener, 7),
            Ok(Some(Answer::Socket(Found { listener: true, .. })))
        ));
        let refused = message(NLMSG_ERROR, 7, &(-libc::ENOENT).to_ne_bytes());
        assert_eq!(
            read(&refused, 7).unwrap(),
            Some(Answer::Error(-libc::ENOENT))
        );
    }

    #[test]
    fn nonsense_is_refused() {
        let whole = message(SOCK_DIAG_BY_FAMILY, 7, &response(AF_INET, 1, 1000, 77));
        for length in 0..whole.len() {
            assert!(read(&whole[..length], 7).is_err(), "{length}");
        }
        let mut short = whole.clone();
        let mut all = Vec::new();
        for length in 1..whole.len() {
            assert!(
                read_list(&whole[..length], 7, &mut all).is_err(),
                "{length}"
            );
        }
        for claimed in [0_u32, 15, 16, 40, 10_000, u32::MAX] {
            short[..4].copy_from_slice(&claimed.to_ne_bytes());
            assert!(read(&short, 7).is_err(), "{claimed}");
        }
        assert!(read(&message(SOCK_DIAG_BY_FAMILY, 7, &response(99, 1, 0, 1)), 7).is_err());
        assert!(read(&message(77, 7, &[0; 100]), 7).is_err());
    }

    #[test]
    fn lists_are_read() {
        let two = [
            message(SOCK_DIAG_BY_FAMILY, 7, &response(AF_INET, 1, 1000, 77)),
            // Nobody holds it; an answer to another question.
            message(SOCK_DIAG_BY_FAMILY, 7, &response(AF_INET, 1, 1000, 0)),
            message(SOCK_DIAG_BY_FAMILY, 6, &response(AF_INET, 1, 1000, 78)),
            message(SOCK_DIAG_BY_FAMILY, 7, &response(AF_INET6, 1, 5, 79)),
        ]
        .concat();
        let mut all = Vec::new();
        assert!(!read_list(&two, 7, &mut all).unwrap());
        let inodes: Vec<_> = all.iter().map(|held| (held.inode, held.uid)).collect();
        assert_eq!(inodes, [(77, 1000), (79, 5)]);
        assert!(read_list(&message(NLMSG_DONE, 7, &[0; 4]), 7, &mut all).unwrap());
        let refused = message(NLMSG_ERROR, 7, &(-libc::EPERM).to_ne_bytes());
        assert!(read_list(&refused, 7, &mut all).is_err());
        assert!(read_list(&message(77, 7, &[0; 100]), 7, &mut all).is_err());
    }

    #[test]
    fn the_kernel_lists_own_sockets() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = listener.local_addr().unwrap();
        let client = TcpStream::connect(to).unwrap();
        let (_server, _) = listener.accept().unwrap();
        let ends = (client.local_addr().unwrap(), to);
        let all = Asker::new().unwrap().established(100_000).unwrap();
        let has = |local, remote| {
            let mut all = all.iter();
            all.any(|held| (held.local, held.remote) == (local, remote) && held.inode != 0)
        };
        assert!(has(ends.0, ends.1) && has(ends.1, ends.0), "{all:?}");
        let one = Asker::new().unwrap().established(1).unwrap();
        assert_eq!(one.len(), 1);
    }

    #[test]
    fn the_kernel_finds_own_sockets() {
        let mut asker = Asker::new().expect("a socket");
        asker.check().expect("tcp_diag");
        let own = |stream: &TcpStream| {
            let link = std::fs::metadata(format!(
                "/proc/self/fd/{}",
                std::os::fd::AsRawFd::as_raw_fd(stream)
            ));
            u32::try_from(link.unwrap().st_ino()).unwrap()
        };
        let addresses: [IpAddr; 3] = [
            Ipv4Addr::LOCALHOST.into(),
            Ipv6Addr::LOCALHOST.into(),
            // A socket for both versions, reached by IPv4.
            Ipv6Addr::UNSPECIFIED.into(),
        ];
        for address in addresses {
            let Ok(listener) = TcpListener::bind((address, 0)) else {
                continue;
            };
            let port = listener.local_addr().unwrap().port();
            let to = if address.is_unspecified() {
                Ipv4Addr::LOCALHOST.into()
            } else {
                address
            };
            let client = TcpStream::connect((to, port)).unwrap();
            let (local, remote) = (client.local_addr().unwrap(), SocketAddr::new(to, port));
            let found = asker.ask(local, remote).unwrap().expect("the client");
            assert_eq!((found.inode, found.listener), (own(&client), false));
            let found = asker.ask(remote, local).unwrap().expect("the server");
            assert_eq!(found.inode, 0, "nobody has accepted it");
            let (server, _) = listener.accept().unwrap();
            let found = asker.ask(remote, local).unwrap().expect("the server");
            assert_eq!((found.inode, found.listener), (own(&server), false));
            let elsewhere = SocketAddr::new(to, 1);
            let found = asker.ask(remote, elsewhere).unwrap().expect("the listener");
            assert!(found.listener);
            assert_eq!(asker.ask(elsewhere, remote).unwrap(), None);
        }
    }
}
