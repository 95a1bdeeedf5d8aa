//! SSH connections whose addresses are translated on this node: told of by who opened them and who
//! answers, whichever interface shows them.

use std::net::SocketAddr;

use super::{super::books::Books, Id};
use crate::{
    engine::translate::{Pair, endpoint},
    event::{Point, Translated, TranslatedEnds},
    flow::{FlowKey, Tracked},
    time::Timestamp,
};

impl Books {
    /// A connection said that it is SSH: asks how it is translated, if that matters.
    pub(super) fn ssh_ask_translation(&mut self, id: Id, tracked: Option<&Tracked>) {
        let Some(connection) = self.ssh.live.get(&id) else {
            return;
        };
        let (is_client, first) = (connection.local_is_client, connection.first);
        self.ask_translation(&id.key, id.generation, is_client, tracked, first);
    }

    /// It is known how a connection is translated, or that this will not be known.
    pub(in crate::engine) fn ssh_translated(
        &mut self,
        key: &FlowKey,
        generation: u32,
        tracked: Option<&Tracked>,
    ) {
        let id = Id {
            key: *key,
            generation,
        };
        if !self.ssh.live.contains_key(&id) {
            return;
        }
        if let Some(translation) = self.translations.get(key, generation).cloned() {
            let is_uplink = self
                .ledger
                .interface(key.interface_id())
                .is_some_and(|interface| interface.point == Point::Uplink);
            self.ssh.tie(id, &translation.ends());
            // What an uplink shows as the node's is that of a pod, in whose namespace the socket is.
            let is_here = |end: SocketAddr| self.names.is_node(end.ip());
            let ends = if self.ssh.is_client(id) {
                Pair {
                    source: translation.original.source,
                    destination: translation.original.destination,
                }
            } else {
                Pair {
                    source: translation.reached.destination,
                    destination: translation.reached.source,
                }
            };
            if is_uplink && !is_here(ends.source) {
                self.owner_elsewhere(id, [ends.source, ends.destination]);
            }
        }
        self.ssh_progress(id, tracked);
    }

    /// Both ends of a connection by who opened it, and what the record says of a translation.
    pub(super) fn ssh_ends(
        &self,
        id: Id,
        is_client: bool,
        tracked: Option<&Tracked>,
        point: Point,
        start: Timestamp,
    ) -> (Pair, Option<Translated>) {
        let shown = Pair::of(&id.key, is_client);
        let Some(translation) = self.translations.get(&id.key, id.generation) else {
            let is_unknown =
                self.is_translation_unknown(&id.key, id.generation, is_client, tracked, start);
            return (shown, is_unknown.then_some(Translated::UNKNOWN));
        };
        let (ends, between) = (translation.ends(), translation.between());
        let end = |shown: SocketAddr, other: SocketAddr| {
            (shown != other).then(|| endpoint(&self.names, other, point, start))
        };
        let translated = TranslatedEnds {
            source: end(ends.source, between.source),
            destination: end(ends.destination, between.destination),
        };
        (ends, Some(Translated::Ends(Box::new(translated))))
    }
}
