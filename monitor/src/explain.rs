//! Which rules and policies decide a flow: from files, or in the daemon from what it holds.

pub(crate) mod ends;
mod groups;
pub(crate) mod place;

use std::{borrow::Cow, collections::HashSet, net::IpAddr, sync::Arc};

use monitor_core::{
    cluster::{Cluster, End},
    event::Protocol,
    netpol::{self, Flow, Policies, Verdict},
    nsg::{Chain, Direction},
};
use serde::{Deserialize, Serialize};

use ends::{Wanted, flow};
use groups::Located;
use place::Place;

pub use groups::NsgExplanation;

/// Version of the record schema.
const VERSION: u32 = monitor_core::event::VERSION;

/// A flow that somebody asks about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// The end that opens it: an address, `NAMESPACE/POD`, `NAMESPACE/KIND/WORKLOAD` or `node/NAME`.
    pub source: String,
    /// The end that it leads to.
    pub destination: String,
    /// Its protocol.
    pub protocol: Protocol,
    /// Port that it leads to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Port that it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// Which way, seen from the network card; found out by what the ends are if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
}

/// Which rules and policies decide it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// `explain`.
    pub r#type: Cow<'static, str>,
    /// Of the record schema.
    pub version: u32,
    /// Its protocol.
    pub protocol: Protocol,
    /// The end that opens it.
    pub source: Named,
    /// The end that it leads to.
    pub destination: Named,
    /// What network security groups say; absent where there are none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nsg: Option<NsgExplanation>,
    /// What network policies say; absent where nothing is known of a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyExplanation>,
    /// What one should know besides.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// An end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// As it was asked for, where that is not its address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its address, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<IpAddr>,
    /// Its port.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// What network policies say about a flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PolicyExplanation {
    /// The verdict.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// How it came about, egress first.
    pub steps: Vec<netpol::Step>,
}

/// Why a flow cannot be explained.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    /// Not an end.
    #[error("`{0}` is not an address, NAMESPACE/POD, NAMESPACE/KIND/WORKLOAD or node/NAME")]
    Place(String),
    /// Nobody knows the pod.
    #[error("{0}")]
    Pod(String),
    /// Nobody knows the node.
    #[error("node `{0}` is not among the nodes that are known")]
    Node(String),
    /// The node is known, and says no address.
    #[error("node `{0}` has no address")]
    NoAddress(String),
    /// Names, and nothing to look them up in.
    #[error("`{0}` is a name: give --manifests, or ask a daemon that has them")]
    Name(String),
    /// The ends cannot reach each other.
    #[error("SRC and DST are of different address families")]
    Families,
}

/// What is known of the cluster.
#[derive(Debug)]
pub struct World<'a> {
    /// Its objects.
    pub cluster: &'a Cluster,
    /// Its network policies.
    pub policies: &'a mut Policies,
    /// The node that the groups are of, where they are of one.
    pub node: Option<Arc<str>>,
    /// Addresses of that node: known also where the cluster's objects are not.
    pub own: &'a HashSet<IpAddr>,
}

/// Explains a flow by rules and by what is known of the cluster.
pub fn explained(
    asked: &Asked,
    chain: Option<&Chain>,
    world: Option<World<'_>>,
) -> Result<Explanation, ExplainError> {
    let port = asked.port.unwrap_or(0);
    let flow = match &world {
        Some(world) => {
            let wanted = |text| wanted(text, world.cluster);
            let (from, to) = (wanted(&asked.source)?, wanted(&asked.destination)?);
            flow_between(world.cluster, &from, &to, asked.protocol, port)?
        }
        None => {
            let (from, to) = (outside(&asked.source)?, outside(&asked.destination)?);
            let flow = Flow::new(from, to, asked.protocol, port);
            of_one_family(&flow)?;
            flow
        }
    };
    let (source, destination) = (&flow.source, &flow.destination);
    let mut notes = Vec::new();
    let nsg = chain.and_then(|chain| match (source.ip, destination.ip) {
        (Some(from), Some(to)) => {
            if source.pod.is_some() || destination.pod.is_some() {
                notes.push(
                    "where the network translates the addresses of pods, as overlay networks do \
                     for what leaves them, groups see the node's: explain that address"
                        .to_owned(),
                );
            }
            let place = |text: &str, end: &End, ip, port| match &world {
                Some(world) => Located::of(world, text, end, ip, (asked.protocol, port)),
                None => Located::at(ip),
            };
            let ends = [
                place(&asked.source, source, from, asked.source_port),
                place(&asked.destination, destination, to, asked.port),
            ];
            Some(NsgExplanation::new(chain, asked, ends))
        }
        _ => {
            notes.push("an end has no address, so groups cannot judge it".to_owned());
            None
        }
    });
    let policy = world.and_then(
        |World {
             cluster, policies, ..
         }| {
            if policies.is_empty() && source.pod.is_none() && destination.pod.is_none() {
                return None;
            }
            if asked.protocol.has_ports() && asked.port.is_none() {
                notes.push("policies are not asked without --port".to_owned());
                return None;
            }
            let netpol::Explanation { verdict, steps } = policies.explain(cluster, &flow);
            Some(PolicyExplanation { verdict, steps })
        },
    );
    Ok(Explanation {
        r#type: "explain".into(),
        version: VERSION,
        protocol: asked.protocol,
        source: Named::new(&asked.source, source, asked.source_port),
        destination: Named::new(&asked.destination, destination, asked.port),
        nsg,
        policy,
        notes,
    })
}

/// An end by address only.
fn outside(text: &str) -> Result<End, ExplainError> {
    match text.parse()? {
        Place::Ip(ip) => Ok(End::outside(ip)),
        Place::Pod { .. } | Place::Node(_) => Err(ExplainError::Name(quoted(text))),
    }
}

/// An end by address or name.
fn wanted(text: &str, cluster: &Cluster) -> Result<Wanted, ExplainError> {
    text.parse::<Place>()?.wanted(cluster)
}

/// A connection between two ends in a cluster.
pub(crate) fn flow_between(
    cluster: &Cluster,
    source: &Wanted,
    destination: &Wanted,
    protocol: Protocol,
    port: u16,
) -> Result<Flow, ExplainError> {
    let flow = flow(cluster, source, destination, protocol, port)
        .map_err(|(_, error)| ExplainError::Pod(error.to_string()))?;
    of_one_family(&flow)?;
    Ok(flow)
}

fn of_one_family(flow: &Flow) -> Result<(), ExplainError> {
    match (flow.source.ip, flow.destination.ip) {
        (Some(from), Some(to)) if from.is_ipv4() != to.is_ipv4() => Err(ExplainError::Families),
        _ => Ok(()),
    }
}

/// A text of the user as it may stand in a message.
fn quoted(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

// === impl Asked ===

impl Asked {
    /// Whether an end is a name that must be looked up.
    pub fn has_names(&self) -> bool {
        [&self.source, &self.destination]
            .iter()
            .any(|text| text.parse::<IpAddr>().is_err())
    }
}

// === impl Explanation ===

impl Explanation {
    /// Explains it also by these groups, in place of others.
    pub fn judge_by(&mut self, asked: &Asked, chain: &Chain) {
        self.nsg = match (self.source.ip, self.destination.ip) {
            (Some(from), Some(to)) => {
                // What has a name is a node or a pod.
                let place = |end: &Named, ip| match end.name {
                    Some(_) => Located::member(ip),
                    None => Located::at(ip),
                };
                let ends = [place(&self.source, from), place(&self.destination, to)];
                Some(NsgExplanation::new(chain, asked, ends))
            }
            _ => None,
        };
    }
}

// === impl Named ===

impl Named {
    fn new(text: &str, end: &End, port: Option<u16>) -> Self {
        let pod = end.pod.as_ref().map(|known| {
            let pod = Arc::clone(known);
            format!("{}/{}", pod.pod.namespace, pod.pod.name)
        });
        let asked = (text.parse::<IpAddr>().is_err()).then(|| quoted(text));
        Self {
            name: asked.or(pod),
            ip: end.ip,
            port,
        }
    }
}
