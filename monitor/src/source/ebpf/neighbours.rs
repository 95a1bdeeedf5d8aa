//! What others have put on the hooks of an interface.

use std::fmt;

use aya::programs::SchedClassifier;
use futures_util::TryStreamExt as _;
use monitor_common::abi::{Hook, names};
use netlink_packet_route::link::{LinkAttribute, LinkXdp};

use super::{
    attach::{attach_type, hook_name},
    filters,
};
use crate::source::links::Watcher;

/// What others have on an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbours {
    /// Their programs, in the order of the hooks.
    pub programs: Vec<Neighbour>,
    /// Whether the kernel has TCX, which runs before all of clsact.
    pub has_tcx: bool,
}

/// A program of somebody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// XDP: runs before every other hook; what it drops or redirects is not seen behind it.
    Xdp {
        /// Kernel id.
        id: u32,
    },
    /// A TCX program.
    Tcx {
        /// `ingress` or `egress`.
        hook: &'static str,
        /// Its name, where it has one.
        name: String,
        /// Kernel id.
        id: u32,
    },
    /// TCX programs that this process may not look at.
    Hidden {
        /// `ingress` or `egress`.
        hook: &'static str,
    },
    /// A clsact filter.
    Clsact {
        /// `ingress` or `egress`.
        hook: &'static str,
        /// Its priority: lower ones run first.
        priority: u16,
        /// Name of its BPF program, where it is one.
        name: Option<String>,
    },
}

/// The programs of others on an interface. What cannot be asked is left out.
pub async fn neighbours(watcher: &Watcher, ifindex: u32, interface: &str) -> Neighbours {
    let mut found = Neighbours::default();
    let mut links = watcher.handle().link().get().match_index(ifindex).execute();
    while let Ok(Some(link)) = links.try_next().await {
        for attribute in link.attributes {
            let LinkAttribute::Xdp(xdp) = attribute else {
                continue;
            };
            found
                .programs
                .extend(xdp.iter().filter_map(|xdp| match xdp {
                    LinkXdp::ProgId(id) if *id != 0 => Some(Neighbour::Xdp { id: *id }),
                    _ => None,
                }));
        }
    }
    let is_ours = |name: Option<&str>| {
        name.is_some_and(|name| [names::INGRESS_PROGRAM, names::EGRESS_PROGRAM].contains(&name))
    };
    for hook in [Hook::Ingress, Hook::Egress] {
        let (how, hook_name) = (attach_type(hook), hook_name(hook));
        match SchedClassifier::query_tcx(interface, how) {
            Ok((_, programs)) => {
                found.has_tcx = true;
                for program in programs {
                    let name = program.name_as_str().unwrap_or_default();
                    if !is_ours(Some(name)) {
                        found.programs.push(Neighbour::Tcx {
                            hook: hook_name,
                            name: name.to_owned(),
                            id: program.id(),
                        });
                    }
                }
            }
            // There is something, or the query itself would have said that there is no TCX.
            Err(error) if super::error::is_permission(&error) => {
                found.programs.push(Neighbour::Hidden { hook: hook_name });
            }
            Err(_) => {}
        }
        let filters = filters::filters(watcher.handle(), ifindex, hook).await;
        for filter in filters.unwrap_or_default() {
            if !is_ours(filter.name.as_deref()) {
                found.programs.push(Neighbour::Clsact {
                    hook: hook_name,
                    priority: filter.priority,
                    name: filter.name,
                });
            }
        }
    }
    found
}

// === impl Neighbours ===

impl Neighbours {
    /// Whether nothing can be attached in front of one of them.
    pub fn is_full(&self) -> bool {
        let is_first = |neighbour: &Neighbour| matches!(neighbour, Neighbour::Clsact { priority, .. } if *priority <= 1);
        !self.has_tcx && self.programs.iter().any(is_first)
    }
}

// === impl Neighbour ===

impl fmt::Display for Neighbour {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Xdp { id } => write!(formatter, "xdp (program {id})"),
            Self::Tcx { hook, name, id } => {
                write!(formatter, "tcx {hook} {name} (program {id})")
            }
            Self::Hidden { hook } => {
                write!(formatter, "tcx {hook} (not told without CAP_SYS_ADMIN)")
            }
            Self::Clsact {
                hook,
                priority,
                name,
            } => {
                let name = name.as_deref().unwrap_or("no BPF");
                write!(formatter, "clsact {hook} pref {priority} {name}")
            }
        }
    }
}
