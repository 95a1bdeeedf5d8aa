//! Services, and whose an address is.
//!
//! Several services may have one address: load balancers of one address that differ in protocol or
//! port, and whatever their authors
//! wrote as external addresses. The port tells which of them is meant.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use super::Service;
use crate::event::Protocol;

/// Namespace and name.
type Key = (Arc<str>, Arc<str>);

/// An address, or a port of it.
type Place = (IpAddr, Option<(Protocol, u16)>);

/// All services.
#[derive(Debug, Default)]
pub(super) struct Services {
    services: HashMap<Key, Arc<Service>>,
    /// Who has an address, and who has a port of it: in order.
    owners: HashMap<Place, Vec<Key>>,
}

// === impl Services ===

impl Services {
    /// A service is new or different; whether it is.
    pub(super) fn set(&mut self, service: Service) -> bool {
        let key = (Arc::clone(&service.namespace), Arc::clone(&service.name));
        if self
            .services
            .get(&key)
            .is_some_and(|known| **known == service)
        {
            return false;
        }
        self.remove(&key);
        for place in places(&service) {
            match self.owners.get_mut(&place) {
                Some(owners) => {
                    if let Err(index) = owners.binary_search(&key) {
                        owners.insert(index, key.clone());
                    }
                }
                None => {
                    // Hardly any has a second one.
                    self.owners.insert(place, vec![key.clone()]);
                }
            }
        }
        self.services.insert(key, Arc::new(service));
        true
    }

    /// A service is gone; others keep the addresses that they shared with it.
    pub(super) fn remove(&mut self, key: &Key) {
        let Some(service) = self.services.remove(key) else {
            return;
        };
        for place in places(&service) {
            let Some(owners) = self.owners.get_mut(&place) else {
                continue;
            };
            if let Ok(index) = owners.binary_search(key) {
                owners.remove(index);
            }
            if owners.is_empty() {
                self.owners.remove(&place);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    /// The service with an address: of several the one that has this port, else the first by
    /// namespace and name.
    pub(super) fn of(&self, ip: IpAddr, port: Option<(Protocol, u16)>) -> Option<&Arc<Service>> {
        let all = self.owners.get(&(ip, None))?;
        let fitting = match &all[..] {
            [_, _, ..] if port.is_some() => self.owners.get(&(ip, port)),
            _ => None,
        };
        self.services.get(fitting.unwrap_or(all).first()?)
    }
}

/// The addresses of a service, and the ports of each.
fn places(service: &Service) -> impl Iterator<Item = Place> {
    service.ips.iter().flat_map(|ip| {
        let ports = service.ports.iter();
        let ports = ports.map(|port| (*ip, Some((port.protocol, port.port))));
        std::iter::once((*ip, None)).chain(ports)
    })
}

#[cfg(test)]
mod tests;
