//! What rules take in memory, beside the tables that they are compiled to.

use std::{collections::HashSet, sync::Arc};

use ipnet::IpNet;

use super::{
    address::{Address, Ports},
    matching::Resolved,
    model::Rule,
    names::Term,
};

/// Bytes so far. What several rules share, as the prefixes of a service tag, counts once.
#[derive(Debug, Default)]
pub(super) struct Memory {
    bytes: usize,
    shared: HashSet<*const IpNet>,
}

// === impl Memory ===

impl Memory {
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn add(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// A rule as it was read.
    pub(super) fn rule(&mut self, rule: &Rule) {
        self.add(size_of_val(rule) + rule.name.len());
        for ports in [&rule.source_ports, &rule.destination_ports] {
            self.ports(ports);
        }
        for address in rule.source.iter().chain(&rule.destination) {
            self.address(address);
        }
    }

    /// A rule with what its names stand for.
    pub(super) fn resolved(&mut self, resolved: &Resolved) {
        self.rule(&resolved.rule);
        self.add(size_of_val(resolved) - size_of_val(&resolved.rule));
        self.terms(&resolved.source);
        self.terms(&resolved.destination);
    }

    pub(super) fn terms(&mut self, terms: &[Term]) {
        self.add(size_of_val(terms));
        for term in terms {
            match term {
                Term::Nets(nets) | Term::Internet(Some(nets)) => self.nets(nets),
                Term::Any
                | Term::Net(_)
                | Term::Zero
                | Term::Undeclared
                | Term::Internet(None)
                | Term::Unknown(_) => {}
            }
        }
    }

    pub(super) fn ports(&mut self, ports: &Ports) {
        self.add(size_of_val(ports.ranges()));
    }

    fn address(&mut self, address: &Address) {
        self.add(size_of_val(address));
        match address {
            Address::Any | Address::Prefix(_) => {}
            Address::Group(name) => self.add(name.len()),
            Address::Tag { name, expanded } => {
                self.add(name.len());
                if let Some(nets) = expanded {
                    self.nets(nets);
                }
            }
        }
    }

    pub(super) fn nets(&mut self, nets: &Arc<[IpNet]>) {
        if self.shared.insert(nets.as_ptr()) {
            self.add(size_of_val(&**nets));
        }
    }
}
