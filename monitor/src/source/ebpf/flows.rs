//! The flows of one address family: their places, and how they are given back.

use std::{io, thread, time::Duration};

use aya::{
    Pod,
    maps::{HashMap, MapData as Map, MapError, Stack},
};
use monitor_common::abi::{FlowValue, PlaceKey};

use super::{data::MapData, kernel::Abi, places::Places};

/// For how long the kernel program may go on with a place after it can no longer be found: a run
/// takes a microsecond and is not preempted.
const GRACE: Duration = Duration::from_millis(2);

/// Flows of one address family.
pub(super) struct Flows<K>
where
    Abi<K>: Pod,
{
    places: Places<K>,
    /// Spare places by key.
    hash: HashMap<Map, Abi<K>, u32>,
    /// Spare places that are free.
    spare: Stack<Map, u32>,
}

// === impl Flows ===

impl<K: PlaceKey + MapData> Flows<K>
where
    Abi<K>: Pod,
{
    /// Takes over the maps, of so many near and spare places.
    pub(super) fn new(
        [places, asides]: [Map; 2],
        hash: HashMap<Map, Abi<K>, u32>,
        mut spare: Stack<Map, u32>,
        (near, count): (u32, u32),
    ) -> io::Result<Self> {
        let places = Places::new(places, asides, near, count)?;
        // The first ones on top: what is used is close together.
        for place in (near..near + count).rev() {
            spare.push(place, 0).map_err(io::Error::other)?;
        }
        Ok(Self {
            places,
            hash,
            spare,
        })
    }

    /// Tells the flows that had a packet since a moment, in ticks, or all.
    pub(super) fn read(
        &mut self,
        since: Option<u32>,
        tell: impl FnMut(K, FlowValue),
    ) -> io::Result<()> {
        self.places.read(since, tell)
    }

    /// Removes flows and tells their last values; `None` for those that are not there.
    pub(super) fn take(&mut self, keys: &[K]) -> Result<Vec<Option<FlowValue>>, MapError> {
        let mut found = Vec::with_capacity(keys.len());
        for key in keys {
            let place = match self.places.find(key) {
                Some(near) => Some((near, false)),
                None => self.take_spare(key)?.map(|spare| (spare, true)),
            };
            if let Some((place, _)) = place {
                self.places.reach(place + 1)?;
                self.places.leave(place);
            }
            found.push(place);
        }
        if found.iter().any(Option::is_some) {
            thread::sleep(GRACE);
        }
        let mut values = Vec::with_capacity(keys.len());
        for place in found {
            values.push(match place {
                Some((place, is_spare)) => {
                    let value = self.places.free(place);
                    if is_spare {
                        self.spare.push(place, 0)?;
                    }
                    Some(value)
                }
                None => None,
            });
        }
        Ok(values)
    }

    /// The spare place of a flow, to which nothing leads any longer.
    fn take_spare(&mut self, key: &K) -> Result<Option<u32>, MapError> {
        match self.hash.get(&Abi(*key), 0) {
            Ok(place) => {
                self.hash.remove(&Abi(*key))?;
                Ok(Some(place))
            }
            Err(MapError::KeyNotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
