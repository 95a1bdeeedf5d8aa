//! SSH connections that were there before they were watched: no packet says what they are, the
//! processes that hold them do.

use std::net::SocketAddr;

use monitor_common::abi::{RX, TX, flag};

use super::{Connection, Id, Owner};
use crate::{
    engine::books::Books,
    event::Protocol,
    flow::{FlowKey, Table, Tracked},
};

/// Such connections that are remembered until a packet of them passes.
const EXISTING: usize = 4_096;

/// A connection that a program that speaks SSH holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Existing {
    /// The end on this node.
    pub local: SocketAddr,
    /// The other end.
    pub remote: SocketAddr,
    /// Whether the end on this node is the server.
    pub is_server: bool,
    /// Who holds it.
    pub owner: Owner,
}

impl Books {
    /// Takes in the connections that there are; of those whose flow is known it is told at once.
    pub(in crate::engine) fn ssh_existed(&mut self, existing: Vec<Existing>, table: &Table) {
        for one in existing.into_iter().take(EXISTING) {
            let (local, remote) = (one.local, one.remote);
            let ends = [local.min(remote), local.max(remote)];
            self.ssh.existing.insert(ends, one);
        }
        let is_one = |key: &FlowKey| self.ssh.existing.contains_key(&id(key, 0).ends());
        let seen: Vec<(FlowKey, Tracked)> = table
            .iter()
            .filter(|(key, _)| is_one(key))
            .map(|(key, flow)| (*key, flow.clone()))
            .collect();
        for (key, flow) in seen {
            self.ssh_flow(&key, &flow);
        }
    }

    /// A flow is seen for the first time.
    pub(in crate::engine) fn ssh_flow(&mut self, key: &FlowKey, flow: &Tracked) {
        if self.ssh.existing.is_empty() || key.protocol() != Protocol::TCP {
            return;
        }
        let id = id(key, flow.generation);
        let Some(existing) = self.ssh.existing.remove(&id.ends()) else {
            return;
        };
        // A later connection between the same ports.
        if (flow.flags[TX] | flow.flags[RX]) & (flag::OPENS | flag::ACCEPTS) != 0 {
            return;
        }
        let entered = self.ssh.enter(id, flow.first_seen_ns, || {
            Connection::new([0; 2], key, flow.first_seen_ns, flow.start)
        });
        // One whose packets have told already.
        let Some(connection) = entered.filter(|connection| !connection.is_marked) else {
            return;
        };
        let is_local = existing.local == SocketAddr::new(key.local(), key.local_port());
        connection.local_is_client = is_local != existing.is_server;
        connection.is_marked = true;
        connection.owner.existed(existing.is_server, existing.owner);
        self.ssh.weigh(id);
        self.ssh_tell(id, Some(flow));
        self.ssh_progress(id, Some(flow));
    }
}

const fn id(key: &FlowKey, generation: u32) -> Id {
    Id {
        key: *key,
        generation,
    }
}
