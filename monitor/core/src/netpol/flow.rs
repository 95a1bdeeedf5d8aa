//! The question that policies answer.

use std::net::IpAddr;

use crate::{cluster::End, event::Protocol};

/// A connection, in the direction of the end that opened it. Its answers are never asked about:
/// they belong to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The end that opened it.
    pub source: End,
    /// The other end, after translation of a Service's address.
    pub destination: End,
    /// IP protocol.
    pub protocol: Protocol,
    /// Port of the destination; 0 for protocols without ports.
    pub port: u16,
    /// The end that is no pod is the node that the pod runs on, by an address that the cluster's
    /// objects do not tell of: a bridge's or a tunnel's.
    pub is_own_node: bool,
    /// The source used the address of a Service.
    pub via_service: bool,
}

/// What identifies a [`Flow`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    source: (u64, Option<IpAddr>),
    destination: (u64, Option<IpAddr>),
    protocol: Protocol,
    port: u16,
    flags: [bool; 2],
}

// === impl Flow ===

impl Flow {
    /// A connection without anything special about it.
    pub fn new(source: End, destination: End, protocol: Protocol, port: u16) -> Self {
        Self {
            source,
            destination,
            protocol,
            port,
            is_own_node: false,
            via_service: false,
        }
    }

    /// Whether one pod is both ends, directly.
    pub(super) fn is_to_itself(&self) -> bool {
        let is_loopback = self.destination.ip.is_some_and(|ip| ip.is_loopback());
        is_loopback || self.is_one_pod() && !self.via_service
    }

    /// Whether one pod is both ends.
    pub(super) fn is_one_pod(&self) -> bool {
        match (&self.source.pod, &self.destination.pod) {
            // One that stands in for a workload is several pods.
            (Some(source), Some(destination)) => {
                !source.pod.is_stand_in()
                    && (source.id == destination.id
                        || (&source.pod.namespace, &source.pod.name, &source.pod.uid)
                            == (
                                &destination.pod.namespace,
                                &destination.pod.name,
                                &destination.pod.uid,
                            ))
            }
            _ => false,
        }
    }

    pub(super) fn key(&self) -> Key {
        let end = |end: &End| (end.pod.as_ref().map_or(0, |pod| pod.id.0), end.ip);
        Key {
            source: end(&self.source),
            destination: end(&self.destination),
            protocol: self.protocol,
            port: self.port,
            flags: [self.is_own_node, self.via_service],
        }
    }
}
