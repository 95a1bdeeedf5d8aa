//! What is behind a service: its pods by its selector, else the endpoints that others declare.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use super::{
    Cluster, End, Endpoint, EndpointSlice, KnownPod, Phase, Service, ServicePort, TargetPort,
};
use crate::event::Protocol;

/// Namespace and name.
type Key = (Arc<str>, Arc<str>);

/// Endpoint slices, by the services that they are of.
#[derive(Debug, Default)]
pub(super) struct Slices {
    by_service: HashMap<Key, BTreeMap<Arc<str>, EndpointSlice>>,
    /// The service of each slice, by namespace and name.
    services: HashMap<Key, Arc<str>>,
}

// === impl Slices ===

impl Slices {
    pub(super) fn set(&mut self, slice: EndpointSlice) {
        self.remove(&slice.namespace, &slice.name);
        let Some(service) = &slice.service else {
            return;
        };
        let (namespace, name) = (Arc::clone(&slice.namespace), Arc::clone(&slice.name));
        let of = (Arc::clone(&namespace), Arc::clone(service));
        self.services
            .insert((namespace, Arc::clone(&name)), Arc::clone(service));
        self.by_service.entry(of).or_default().insert(name, slice);
    }

    pub(super) fn remove(&mut self, namespace: &Arc<str>, name: &Arc<str>) {
        let key = (Arc::clone(namespace), Arc::clone(name));
        let Some(service) = self.services.remove(&key) else {
            return;
        };
        let of = (key.0, service);
        if let Some(slices) = self.by_service.get_mut(&of) {
            slices.remove(name);
            if slices.is_empty() {
                self.by_service.remove(&of);
            }
        }
    }

    /// Addresses and ports behind a port of a service; those that are ending only where there are
    /// no others, as kube-proxy has it.
    fn behind(&self, service: &Service, port: &ServicePort) -> Vec<(IpAddr, u16)> {
        let of = (Arc::clone(&service.namespace), Arc::clone(&service.name));
        let slices = self.by_service.get(&of);
        let all: Vec<(Endpoint, u16)> = slices
            .into_iter()
            .flat_map(BTreeMap::values)
            .flat_map(|slice| {
                let number = slice
                    .ports
                    .iter()
                    .find(|known| known.name == port.name && known.protocol == port.protocol)
                    .map(|known| known.port);
                let endpoints = slice.endpoints.iter();
                endpoints.filter_map(move |endpoint| Some((*endpoint, number?)))
            })
            .collect();
        let has_ready = all.iter().any(|(endpoint, _)| !endpoint.is_terminating);
        all.into_iter()
            .filter(|(endpoint, _)| !(has_ready && endpoint.is_terminating))
            .map(|(endpoint, number)| (endpoint.ip, number))
            .collect()
    }
}

impl Cluster {
    /// The ends behind a port of a service's address, each with its own port, or why they are not
    /// known.
    pub(crate) fn backends(
        &self,
        service: &Service,
        protocol: Protocol,
        ip: Option<IpAddr>,
        port: u16,
    ) -> Result<Vec<(End, u16)>, &'static str> {
        let port = service
            .ports
            .iter()
            .find(|known| known.protocol == protocol && known.port == port)
            .ok_or("it has no such port")?;
        let pods = self.selected_by(service, port);
        if !pods.is_empty() {
            return Ok(pods
                .into_iter()
                .map(|(pod, port)| (self.end_of_pod(pod, ip), port))
                .collect());
        }
        let is_of_family = |other: &IpAddr| ip.is_none_or(|ip| ip.is_ipv4() == other.is_ipv4());
        let ends: Vec<_> = self
            .slices
            .behind(service, port)
            .into_iter()
            .filter(|(ip, _)| is_of_family(ip))
            .map(|(ip, port)| (self.end_of_ip(ip), port))
            .collect();
        match (ends.is_empty(), &service.selector) {
            (false, _) => Ok(ends),
            (true, Some(_)) => Err("no pod is behind it"),
            (true, None) => Err("it has no selector, and its endpoints are not known"),
        }
    }

    /// Pods that a service selects, and their ports.
    fn selected_by(&self, service: &Service, port: &ServicePort) -> Vec<(&Arc<KnownPod>, u16)> {
        let Some(selector) = &service.selector else {
            return Vec::new();
        };
        self.pods_of(&service.namespace)
            .filter(|pod| {
                pod.pod.phase == Phase::Active
                    && selector
                        .iter()
                        .all(|(key, value)| pod.pod.labels.get(key) == Some(value))
            })
            .filter_map(|pod| {
                let target = match &port.target {
                    TargetPort::Number(number) => Some(*number),
                    // Of ports of one name, the first container's.
                    TargetPort::Name(name) => pod
                        .pod
                        .ports
                        .iter()
                        .find(|known| known.name == *name && known.protocol == port.protocol)
                        .map(|known| known.port),
                };
                target.map(|target| (pod, target))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
