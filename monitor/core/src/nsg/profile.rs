//! What a platform needs from the rules: a file that people can read and change.
//!
//! The one for AKS is built in ([`AKS`]). `nsg lint` says which rules take away what is needed;
//! flows that are of a need say so.

use std::{collections::HashSet, sync::Arc};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::{
    address::{Address, Ports, VIRTUAL_NETWORK},
    lint::{Check, Unchecked},
    memory::Memory,
    model::Direction,
    names::{self, Names, Term},
    tuple::Tuple,
};
use crate::event::Protocol;

/// What AKS needs, as its file says it.
pub const AKS: &str = include_str!("profile/aks.toml");

/// Characters of a parser's message: it may list all names of fields.
const MOST_MESSAGE: usize = 300;
/// Needs that a file may state.
const MOST_NEEDS: usize = 1_000;

/// What stands for the addresses of pods.
pub(super) const PODS: &str = "pods";

/// What a platform needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its name.
    pub name: String,
    /// What is needed.
    pub needs: Vec<Need>,
}

/// A profile as it is written.
#[derive(Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a profile: a table with `name` and `need`"
)]
struct File {
    name: String,
    /// The profile that this one changes: `aks`.
    #[serde(default)]
    extends: Option<Spanned<String>>,
    /// What is needed.
    #[serde(default, rename = "need")]
    needs: Vec<Spanned<Need>>,
}

/// Packets that must be allowed.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a need: a table that begins with [[need]]"
)]
pub struct Need {
    /// Its name.
    pub name: Arc<str>,
    /// Whether it is taken out of the profile that this one extends.
    #[serde(default)]
    omit: bool,
    /// Under which name lint reports it.
    #[serde(default)]
    pub check: Option<Check>,
    /// Which way, seen from the network card.
    #[serde(default)]
    pub direction: Option<Direction>,
    /// Protocols.
    #[serde(default)]
    pub protocols: Vec<Protocol>,
    /// Where packets come from.
    #[serde(default)]
    from: Vec<String>,
    /// Where they go.
    #[serde(default)]
    to: Vec<String>,
    /// To which ports.
    #[serde(default)]
    ports: Vec<String>,
    /// How much of it.
    #[serde(default)]
    pub extent: Extent,
    /// What it is for.
    #[serde(default)]
    pub why: String,
    /// Which document says so.
    #[serde(default)]
    pub source: String,
}

/// How much of a need must be allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Extent {
    /// All.
    #[default]
    All,
    /// Some: which is not known.
    Some,
}

/// Why a profile cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// It is not what it should be.
    #[error("line {line}: {message}")]
    Content {
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// It extends a profile that there is none of.
    #[error("line {line}: extends `{name}`: there is only aks")]
    Extends {
        /// Line, from 1.
        line: usize,
        /// The profile that there is none of.
        name: String,
    },
    /// A field of a need.
    #[error("line {line}: need `{need}`: field `{field}`: {problem}")]
    Need {
        /// Line at which the need begins, from 1.
        line: usize,
        /// The need.
        need: String,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

/// An end of a need.
#[derive(Clone, Debug, PartialEq, Eq)]
enum End {
    Nodes,
    Pods,
    Named(Address),
}

/// What a profile needs where names stand for these addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    pub(super) resolved: Vec<Resolved>,
    /// Needs that cannot be checked.
    pub unchecked: Vec<Unchecked>,
}

/// A need and what its names stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) need: Arc<Need>,
    pub(super) direction: Direction,
    pub(super) ports: Ports,
    pub(super) from: Vec<Term>,
    pub(super) to: Vec<Term>,
    /// The tag that rules must name to be about it: of a platform service.
    pub(super) service: Option<String>,
    /// Whether every local address is meant.
    is_local: bool,
}

// === impl Profile ===

impl Profile {
    /// What AKS needs.
    pub fn aks() -> Self {
        Self::parse(AKS).expect("the built-in profile is valid, which a test checks")
    }

    /// Reads a file.
    pub fn parse(text: &str) -> Result<Self, ProfileError> {
        let line_at = |at: usize| {
            let before = text.bytes().take(at.min(text.len()));
            1 + before.filter(|byte| *byte == b'\n').count()
        };
        let file: File = toml::from_str(text).map_err(|error| {
            let line = line_at(error.span().map_or(0, |span| span.start));
            let message = super::address::quotable_to(error.message(), MOST_MESSAGE);
            ProfileError::Content { line, message }
        })?;
        let base = match &file.extends {
            None => None,
            Some(name) if name.get_ref() == "aks" => Some(Self::aks()),
            Some(other) => {
                return Err(ProfileError::Extends {
                    line: line_at(other.span().start),
                    name: super::address::quotable(other.get_ref()),
                });
            }
        };
        if file.needs.len() > MOST_NEEDS {
            let message = format!("more than {MOST_NEEDS} needs");
            return Err(ProfileError::Content { line: 1, message });
        }
        let mut needs = base.map_or_else(Vec::new, |base| base.needs);
        let mut given: HashSet<Arc<str>> = HashSet::new();
        for spanned in file.needs {
            let line = line_at(spanned.span().start);
            let need = spanned.into_inner();
            need.check(line)?;
            if !given.insert(Arc::clone(&need.name)) {
                let problem = "is that of another need".to_owned();
                return Err(need.wrong(line, "name", problem));
            }
            match needs.iter().position(|old| old.name == need.name) {
                Some(at) => needs[at] = need,
                // A slip in the name would leave the need where it is.
                None if need.omit => {
                    let problem = "there is no need of this name to omit".to_owned();
                    return Err(need.wrong(line, "omit", problem));
                }
                None => needs.push(need),
            }
        }
        needs.retain(|need| !need.omit);
        let name = file.name;
        Ok(Self { name, needs })
    }

    /// The needs that every network with nodes and load balancers has.
    pub(super) fn basic() -> Self {
        let mut profile = Self::aks();
        profile.needs.retain(|need| need.check.is_some());
        profile
    }

    /// What is needed where names stand for these addresses, in this virtual network.
    pub fn resolve(&self, names: &Names, network: Option<&[IpNet]>, pods: &[IpNet]) -> Needs {
        let mut needs = Needs::default();
        let network = network.map(Arc::<[IpNet]>::from);
        for need in &self.needs {
            match need.resolve(names, network.as_ref(), pods) {
                Ok((resolved, missing)) => {
                    needs.resolved.push(resolved);
                    needs
                        .unchecked
                        .extend(missing.map(|name| need.unchecked(name)));
                }
                Err(missing) => needs.unchecked.push(need.unchecked(missing)),
            }
        }
        needs
    }
}

// === impl Need ===

impl Need {
    fn wrong(&self, line: usize, field: &'static str, problem: String) -> ProfileError {
        ProfileError::Need {
            line,
            need: super::address::quotable(&self.name),
            field,
            problem,
        }
    }

    /// Under which name lint reports it.
    pub(super) fn reported_as(&self) -> Check {
        self.check.unwrap_or(Check::NeedBlocked)
    }

    /// It where nobody knows what this name stands for.
    fn unchecked(&self, missing: String) -> Unchecked {
        Unchecked {
            check: self.reported_as(),
            need: Some(Arc::clone(&self.name)),
            missing,
        }
    }

    /// Whether an end is the pods.
    fn is_of_pods(&self) -> bool {
        self.from.iter().chain(&self.to).any(|end| end == PODS)
    }

    /// Whether all fields are as they should be.
    fn check(&self, line: usize) -> Result<(), ProfileError> {
        let wrong = |field, problem| self.wrong(line, field, problem);
        if self.omit {
            return Ok(());
        }
        if self.direction.is_none() {
            return Err(wrong("direction", "is missing".to_owned()));
        }
        for (field, is_empty) in [
            ("protocols", self.protocols.is_empty()),
            ("from", self.from.is_empty()),
            ("to", self.to.is_empty()),
            ("ports", self.ports.is_empty()),
            ("why", self.why.is_empty()),
        ] {
            if is_empty {
                return Err(wrong(field, "is missing or empty".to_owned()));
            }
        }
        ends(&self.from).map_err(|problem| wrong("from", problem))?;
        ends(&self.to).map_err(|problem| wrong("to", problem))?;
        self.ports().map_err(|problem| wrong("ports", problem))?;
        Ok(())
    }

    fn ports(&self) -> Result<Ports, String> {
        let mut ranges = Vec::new();
        for text in &self.ports {
            let range = Ports::parse(text);
            ranges.push(range.map_err(|error| error.to_string())?);
        }
        Ok(Ports::merged(ranges))
    }

    /// What its names stand for, and one that nobody has defined where that leaves a part of it
    /// out; else, where it leaves nothing, that name.
    fn resolve(
        &self,
        names: &Names,
        network: Option<&Arc<[IpNet]>>,
        pods: &[IpNet],
    ) -> Result<(Resolved, Option<String>), String> {
        let local = |end: &End| *end == End::Nodes || *end == End::Pods;
        // The fields were checked when the file was read.
        let ends = |texts| ends(texts).unwrap_or_default();
        let (from, to) = (ends(&self.from), ends(&self.to));
        let direction = self.direction.unwrap_or(Direction::Outbound);
        let is_local = match direction {
            Direction::Inbound => to.iter().any(local),
            Direction::Outbound => from.iter().any(local),
        };
        let service = to.iter().find_map(|end| match end {
            End::Named(Address::Tag { name, .. }) => {
                let is_platform = name.to_ascii_lowercase().starts_with("azureplatform");
                is_platform.then(|| name.to_string())
            }
            _ => None,
        });
        let (from, from_missing) = terms(&from, names, network, pods)?;
        let (to, to_missing) = terms(&to, names, network, pods)?;
        let resolved = Resolved {
            need: Arc::new(self.clone()),
            direction,
            ports: self.ports().unwrap_or_else(|_| Ports::any()),
            from,
            to,
            service,
            is_local,
        };
        let missing = from_missing
            .or(to_missing)
            .filter(|_| self.extent == Extent::All);
        Ok((resolved, missing))
    }
}

/// Ends as they are written, or what is wrong with one.
fn ends(texts: &[String]) -> Result<Vec<End>, String> {
    let end = |text: &String| {
        Ok(match &**text {
            "nodes" => End::Nodes,
            PODS => End::Pods,
            other => End::Named(Address::parse(other).map_err(|error| error.to_string())?),
        })
    };
    texts.iter().map(end).collect()
}

/// What ends stand for, and a name among them that nobody has defined; else that name, if there is
/// nothing besides.
fn terms(
    ends: &[End],
    names: &Names,
    network: Option<&Arc<[IpNet]>>,
    pods: &[IpNet],
) -> Result<(Vec<Term>, Option<String>), String> {
    let (mut terms, mut unknown) = (Vec::new(), None);
    for end in ends {
        match end {
            End::Nodes => match network {
                Some(network) => {
                    let host = IpNet::from(std::net::IpAddr::from(names::HOST));
                    let nets = network.iter().filter(|net| **net != host).copied();
                    terms.push(Term::Nets(nets.collect()));
                }
                // Default rules allow it to itself, so nothing can be said of a part either.
                None => return Err(VIRTUAL_NETWORK.to_owned()),
            },
            End::Pods => terms.push(Term::Nets(pods.into())),
            End::Named(address) => match names.term(address, network) {
                Term::Unknown(_) | Term::Undeclared => unknown = Some(address.to_string()),
                term => terms.push(term),
            },
        }
    }
    let is_nothing = |term: &Term| matches!(term, Term::Nets(nets) if nets.is_empty());
    match unknown {
        Some(name) if terms.iter().all(is_nothing) => Err(name),
        unknown => Ok((terms, unknown)),
    }
}

// === impl Needs ===

impl Needs {
    /// Counts what they take. What they are for is bounded by the file.
    pub(super) fn count(&self, memory: &mut Memory) {
        for need in &self.resolved {
            memory.add(size_of_val(need));
            memory.ports(&need.ports);
            memory.terms(&need.from);
            memory.terms(&need.to);
        }
    }

    /// The same where these, too, are addresses of pods.
    #[must_use]
    pub(super) fn with_pods(mut self, pods: &[IpNet]) -> Self {
        if !pods.is_empty() {
            for Resolved { need, from, to, .. } in &mut self.resolved {
                for (ends, terms) in [(&need.from, from), (&need.to, to)] {
                    if ends.iter().any(|end| end == PODS) {
                        terms.push(Term::Nets(pods.into()));
                    }
                }
            }
        }
        self
    }

    /// Needs of pods, of which only those of the virtual network are looked at.
    pub(super) fn without_pods(&self) -> impl Iterator<Item = Unchecked> {
        let needs = self.resolved.iter().map(|resolved| &resolved.need);
        needs
            .filter(|need| need.is_of_pods())
            .map(|need| need.unchecked(PODS.to_owned()))
    }

    /// Whether nothing is needed, as far as is known.
    pub fn is_empty(&self) -> bool {
        self.resolved.is_empty() && self.unchecked.is_empty()
    }

    /// The need that a packet is of, at the network card of a node.
    pub fn of(&self, tuple: &Tuple) -> Option<&Arc<Need>> {
        let is_of = |resolved: &&Resolved| {
            let is_end = |terms: &[Term], ip, is_local: bool| {
                let holds = |term: &Term| term.matches(ip) == super::FieldMatch::Yes;
                (resolved.is_local && is_local) || terms.iter().any(holds)
            };
            let is_inbound = resolved.direction == Direction::Inbound;
            resolved.direction == tuple.direction
                && resolved.need.protocols.contains(&tuple.protocol)
                && (resolved.ports.is_any()
                    || tuple
                        .destination_port
                        .is_some_and(|port| resolved.ports.contains(port)))
                && is_end(&resolved.from, tuple.source, !is_inbound)
                && is_end(&resolved.to, tuple.destination, is_inbound)
        };
        self.resolved
            .iter()
            .find(is_of)
            .map(|resolved| &resolved.need)
    }
}

#[cfg(test)]
mod tests;
