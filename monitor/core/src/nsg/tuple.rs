//! What is judged: the packet that opens a connection.

use std::net::IpAddr;

use super::model::Direction;
use crate::{
    entity::normalise,
    event::{FlowRecord, Initiator, LocalEnd, Protocol},
};

/// The packet that opens a connection, as the network card's rules see it: after translation on
/// the way in, before it on the way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Which way it goes.
    pub direction: Direction,
    /// Its protocol.
    pub protocol: Protocol,
    /// Where it comes from.
    pub source: IpAddr,
    /// From which port; `None` where there is none or nobody knows.
    pub source_port: Option<u16>,
    /// Where it goes.
    pub destination: IpAddr,
    /// To which port; `None` where there is none or nobody knows.
    pub destination_port: Option<u16>,
}

// === impl Tuple ===

impl Tuple {
    /// The packet that opened a connection as it was seen at the network card; `None` where nobody
    /// knows who opened it.
    pub fn of(record: &FlowRecord) -> Option<Self> {
        let direction = match (record.initiator, record.local) {
            (Initiator::Unknown, _) => return None,
            (Initiator::Source, LocalEnd::Source) => Direction::Outbound,
            (Initiator::Source, LocalEnd::Destination) => Direction::Inbound,
        };
        let tuple = Self {
            direction,
            protocol: record.protocol,
            source: record.source.ip,
            source_port: record.source.port,
            destination: record.destination.ip,
            destination_port: record.destination.port,
        };
        Some(tuple.normalised())
    }

    /// The same with IPv4-mapped addresses as the IPv4 addresses that they are, and without
    /// ports where the protocol has none.
    #[must_use]
    pub fn normalised(self) -> Self {
        let has_ports = self.protocol.has_ports();
        Self {
            source: normalise(self.source),
            destination: normalise(self.destination),
            source_port: self.source_port.filter(|_| has_ports),
            destination_port: self.destination_port.filter(|_| has_ports),
            ..self
        }
    }

    /// The opening packet of the connection that this one answers in: rules are stateful, an
    /// answer needs none of its own.
    #[must_use]
    pub fn answered(self) -> Self {
        Self {
            direction: self.direction.flipped(),
            protocol: self.protocol,
            source: self.destination,
            source_port: self.destination_port,
            destination: self.source,
            destination_port: self.source_port,
        }
    }
}
