//! Connections from cumulative kernel counters.
//!
//! The kernel keeps one entry per connection and interface, with counters that only grow. Here
//! their last values are kept, so that each reading becomes a delta, and each connection gets an
//! initiator, an outcome and an end.

mod expiry;
mod outcome;
mod recall;
mod segment;
mod side;
mod table;
mod tracked;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use monitor_common::abi::{FlowKey4, FlowKey6, split_scope};
use serde::{Deserialize, Serialize};

use crate::event::Protocol;

pub use expiry::Timeouts;
pub use segment::SegmentEvent;

pub(crate) use expiry::{Expiry, is_over};
pub use recall::Blinded;
pub(crate) use recall::Recall;
pub(crate) use side::Orientation;
pub(crate) use table::{Effects, Table};
pub(crate) use tracked::{Delta, Judged, Mark, Tracked};

/// Key of a flow entry of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FlowKey {
    /// Key in the IPv4 map.
    V4(FlowKey4),
    /// Key in the IPv6 map.
    V6(FlowKey6),
}

/// Address family: each has a kernel map of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    Ipv4 = 0,
    /// IPv6.
    Ipv6 = 1,
}

/// Something in the kernel's readings that should not be; each is survived and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Anomaly {
    /// A counter went backwards within a connection. Counted as a new connection, or, in final
    /// counts, ignored.
    CounterBackwards = 0,
    /// An entry was taken over and the event with the old connection's final counts did not come:
    /// it was closed with the counts last seen.
    EndMissing = 1,
    /// An entry vanished without its final counts: closed with the counts last seen.
    EntryVanished = 2,
    /// A flow or an account came from an interface that was never announced.
    InterfaceUnknown = 3,
}

// === impl FlowKey ===

impl FlowKey {
    /// Address family.
    pub const fn family(&self) -> Family {
        match self {
            Self::V4(_) => Family::Ipv4,
            Self::V6(_) => Family::Ipv6,
        }
    }

    /// Address of the local end.
    pub fn local(&self) -> IpAddr {
        match self {
            Self::V4(key) => Ipv4Addr::from_bits(key.local).into(),
            Self::V6(key) => ipv6(key.local).into(),
        }
    }

    /// Address of the remote end.
    pub fn remote(&self) -> IpAddr {
        match self {
            Self::V4(key) => Ipv4Addr::from_bits(key.remote).into(),
            Self::V6(key) => ipv6(key.remote).into(),
        }
    }

    /// Port of the local end; zero for protocols without ports, the identifier for ICMP echo.
    pub const fn local_port(&self) -> u16 {
        match self {
            Self::V4(key) => key.local_port,
            Self::V6(key) => key.local_port,
        }
    }

    /// Port of the remote end; zero for protocols without ports, type and code for ICMP.
    pub const fn remote_port(&self) -> u16 {
        match self {
            Self::V4(key) => key.remote_port,
            Self::V6(key) => key.remote_port,
        }
    }

    /// IP protocol.
    pub const fn protocol(&self) -> Protocol {
        Protocol(split_scope(self.scope()).1)
    }

    /// Identity of the interface ([`monitor_common::abi::Interface::id`]).
    pub const fn interface_id(&self) -> u32 {
        split_scope(self.scope()).0
    }

    const fn scope(&self) -> u32 {
        match self {
            Self::V4(key) => key.scope,
            Self::V6(key) => key.scope,
        }
    }
}

impl From<FlowKey4> for FlowKey {
    fn from(key: FlowKey4) -> Self {
        Self::V4(key)
    }
}

impl From<FlowKey6> for FlowKey {
    fn from(key: FlowKey6) -> Self {
        Self::V6(key)
    }
}

/// The address whose bytes on the wire were read as these words.
fn ipv6(words: [u64; 2]) -> Ipv6Addr {
    let mut bytes = [0; 16];
    for (chunk, word) in bytes.chunks_exact_mut(8).zip(words) {
        chunk.copy_from_slice(&word.to_ne_bytes());
    }
    bytes.into()
}

// === impl Family ===

impl Family {
    /// Both families, in the order of their index.
    pub const ALL: [Self; 2] = [Self::Ipv4, Self::Ipv6];

    /// Name in metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ipv4 => "ipv4",
            Self::Ipv6 => "ipv6",
        }
    }
}

// === impl Anomaly ===

impl Anomaly {
    /// Every anomaly, in the order of its index.
    pub const ALL: [Self; 4] = [
        Self::CounterBackwards,
        Self::EndMissing,
        Self::EntryVanished,
        Self::InterfaceUnknown,
    ];

    /// Name in metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CounterBackwards => "counter_backwards",
            Self::EndMissing => "end_missing",
            Self::EntryVanished => "entry_vanished",
            Self::InterfaceUnknown => "interface_unknown",
        }
    }
}

#[cfg(test)]
mod tests {
    use monitor_common::abi::scope;

    use super::*;

    #[test]
    fn keys_read_as_addresses() {
        let address: Ipv6Addr = "2001:db8::1:2".parse().unwrap();
        let mut words = [0; 2];
        for (word, bytes) in words.iter_mut().zip(address.octets().chunks_exact(8)) {
            *word = u64::from_ne_bytes(bytes.try_into().unwrap());
        }
        let key = FlowKey::from(FlowKey6 {
            local: words,
            remote: [0; 2],
            local_port: 1,
            remote_port: 2,
            scope: scope(0xff_ffff, 6),
        });
        assert_eq!(key.local(), IpAddr::V6(address));
        assert_eq!(key.protocol(), Protocol::TCP);
        assert_eq!(key.interface_id(), 0xff_ffff);

        let key = FlowKey::from(FlowKey4 {
            local: 0x0af4_0107,
            ..FlowKey4::default()
        });
        assert_eq!(key.local().to_string(), "10.244.1.7");
    }
}
