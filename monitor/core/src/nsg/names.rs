//! What tags and application security groups stand for.
//!
//! Sources: Azure virtual network documentation, "Service tags" and "Application security groups".

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::{
    address::{Address, INTERNET, VIRTUAL_NETWORK, is_tag},
    matching::Why,
    model::Nsg,
    read::ServiceTag,
};
use crate::entity::parse_net;

mod space;

pub(super) use space::Space;

/// The host of a virtual machine: platform services and load balancer probes come from here.
pub(super) const HOST: Ipv4Addr = Ipv4Addr::new(168, 63, 129, 16);
/// The source of load balancer probes in IPv6 (Azure Load Balancer health probes).
pub(super) const HOST_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0x1234, 0x5678, 0x9abc);
/// The instance metadata service.
pub(super) const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// Hosts that activate Windows (Azure virtual machines, "Windows activation problems").
pub(super) const LICENSING: [Ipv4Addr; 3] = [
    Ipv4Addr::new(20, 118, 99, 224),
    Ipv4Addr::new(40, 83, 235, 53),
    Ipv4Addr::new(23, 102, 135, 246),
];

/// What the names in rules stand for.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// Of service tag files, by lower-case name.
    tags: HashMap<String, Arc<[IpNet]>>,
    /// Of the user, by lower-case name; they win.
    own: HashMap<String, Vec<IpNet>>,
    /// Members of application security groups, by lower-case name.
    groups: HashMap<String, Vec<IpNet>>,
    /// Ranges that the user adds to the virtual network.
    network: Vec<IpNet>,
}

/// Why a name cannot be defined.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamesError {
    /// No `=`.
    #[error("`{0}` is not NAME=CIDR,CIDR,…")]
    Shape(String),
    /// Not a name.
    #[error("`{0}` is not a name: use letters, digits, `.`, `_` and `-`, in a tag a letter first")]
    Name(String),
    /// Not an address.
    #[error("`{0}` is not an address or address range such as 10.0.0.0/24")]
    Net(String),
}

/// What one address of a rule stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Term {
    /// Every address of both families.
    Any,
    /// These.
    Nets(Arc<[IpNet]>),
    /// One.
    Net(IpNet),
    /// Literally `0.0.0.0/0`.
    Zero,
    /// The virtual network, and nobody has said what it is.
    Undeclared,
    /// Public addresses outside this virtual network; `None` where it is not declared.
    Internet(Option<Arc<[IpNet]>>),
    /// Nobody knows.
    Unknown(Why),
}

// === impl Names ===

impl Names {
    /// Adds the tags of a service tag file; a later file's tags replace those of an earlier one.
    pub fn add_service_tags(&mut self, tags: impl IntoIterator<Item = ServiceTag>) {
        for ServiceTag { name, prefixes } in tags {
            self.tags.insert(name.to_ascii_lowercase(), prefixes);
        }
    }

    /// How many tags and prefixes of service tag files are known.
    pub fn service_tags(&self) -> (usize, usize) {
        let prefixes = self.tags.values().map(|nets| nets.len()).sum();
        (self.tags.len(), prefixes)
    }

    /// Reads `NAME=CIDR,CIDR,…` and defines or overrides a tag; said twice, both hold. A name
    /// without addresses stands for none.
    pub fn define_tag(&mut self, text: &str) -> Result<(), NamesError> {
        let (name, nets) = definition(text, is_tag)?;
        self.own.entry(name).or_default().extend(nets);
        Ok(())
    }

    /// Reads `NAME=IP,IP,…` and adds members to an application security group.
    pub fn define_group(&mut self, text: &str) -> Result<(), NamesError> {
        let (name, nets) = definition(text, is_group)?;
        self.groups.entry(name).or_default().extend(nets);
        Ok(())
    }

    /// Adds ranges to the virtual network.
    pub fn add_network(&mut self, nets: impl IntoIterator<Item = IpNet>) {
        self.network.extend(nets);
    }

    /// The virtual network as a group's rules see it; `None` where nobody has said what it is.
    pub(super) fn network(&self, nsg: Option<&Nsg>) -> Option<Arc<[IpNet]>> {
        if let Some(own) = self.own.get(&VIRTUAL_NETWORK.to_ascii_lowercase()) {
            return Some(own.iter().chain(&self.network).copied().collect());
        }
        let expanded = nsg.and_then(expanded_network);
        if let Some(expanded) = expanded {
            return Some(expanded.iter().chain(&self.network).copied().collect());
        }
        if self.network.is_empty() {
            return None;
        }
        let host = IpNet::from(IpAddr::from(HOST));
        Some(
            std::iter::once(host)
                .chain(self.network.iter().copied())
                .collect(),
        )
    }

    /// What an address of a rule stands for in a group whose virtual network is this.
    pub(super) fn term(&self, address: &Address, network: Option<&Arc<[IpNet]>>) -> Term {
        match address {
            Address::Any => Term::Any,
            Address::Prefix(IpNet::V4(net)) if net.prefix_len() == 0 => Term::Zero,
            Address::Prefix(net) => Term::Net(*net),
            Address::Group(name) => match self.groups.get(&name.to_ascii_lowercase()) {
                Some(members) => Term::Nets(members.as_slice().into()),
                None => Term::Unknown(Why::Group(Arc::clone(name))),
            },
            Address::Tag { name, expanded } => self.tag(name, expanded.as_ref(), network),
        }
    }

    fn tag(
        &self,
        name: &Arc<str>,
        expanded: Option<&Arc<[IpNet]>>,
        network: Option<&Arc<[IpNet]>>,
    ) -> Term {
        let lower = name.to_ascii_lowercase();
        if lower == VIRTUAL_NETWORK.to_ascii_lowercase() {
            let is_own = self.own.contains_key(&lower);
            let nets = match expanded {
                Some(expanded) if !is_own => {
                    Some(expanded.iter().chain(&self.network).copied().collect())
                }
                _ => network.map(Arc::clone),
            };
            return nets.map_or(Term::Undeclared, Term::Nets);
        }
        if let Some(own) = self.own.get(&lower) {
            return Term::Nets(own.as_slice().into());
        }
        if let Some(expanded) = expanded {
            return Term::Nets(Arc::clone(expanded));
        }
        if lower == INTERNET.to_ascii_lowercase() {
            return Term::Internet(network.map(Arc::clone));
        }
        if let Some(nets) = self.tags.get(&lower) {
            return Term::Nets(Arc::clone(nets));
        }
        let hosts: &[Ipv4Addr] = match &*lower {
            "azureloadbalancer" => {
                let probes = [IpAddr::from(HOST), IpAddr::from(HOST_V6)];
                return Term::Nets(probes.map(IpNet::from).into());
            }
            "azureplatformdns" => &[HOST],
            "azureplatformimds" => &[METADATA],
            "azureplatformlkm" => &LICENSING,
            _ => return Term::Unknown(Why::Tag(Arc::clone(name))),
        };
        Term::Nets(
            hosts
                .iter()
                .map(|host| IpNet::from(IpAddr::from(*host)))
                .collect(),
        )
    }
}

/// What an effective document expanded the virtual network to.
fn expanded_network(nsg: &Nsg) -> Option<&Arc<[IpNet]>> {
    let mut ends = nsg
        .rules
        .iter()
        .flat_map(|rule| rule.source.iter().chain(&rule.destination));
    ends.find_map(|address| match address {
        Address::Tag {
            name,
            expanded: Some(nets),
        } if name.eq_ignore_ascii_case(VIRTUAL_NETWORK) => Some(nets),
        _ => None,
    })
}

/// Whether a text can be the name of an application security group.
fn is_group(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric()) && is_tag(&format!("g{text}"))
}

fn definition(text: &str, is_name: fn(&str) -> bool) -> Result<(String, Vec<IpNet>), NamesError> {
    let quoted = |text: &str| super::address::quotable(text);
    let (name, list) = text
        .split_once('=')
        .ok_or_else(|| NamesError::Shape(quoted(text)))?;
    if !is_name(name) {
        return Err(NamesError::Name(quoted(name)));
    }
    let parts = list
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty());
    let nets = parts
        .map(|part| parse_net(part).ok_or_else(|| NamesError::Net(quoted(part))))
        .collect::<Result<_, _>>()?;
    Ok((name.to_ascii_lowercase(), nets))
}

/// Ranges of literals, for [`Space`].
const fn v4(a: u8, b: u8, prefix: u8) -> IpNet {
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), prefix))
}

const fn v6(first: u16, prefix: u8) -> IpNet {
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, 0),
        prefix,
    ))
}
