//! Kubernetes network policies: which connections they allow, and which of them decide.
//!
//! - [`NetworkPolicy`], [`TierPolicy`]: policies as declared, checked and with defaults filled in.
//! - [`Policies`]: the policies in force; [`Policies::judge`] gives a [`Verdict`] on a [`Flow`],
//!   [`Policies::explain`] also how it came about.
//!
//! A connection is judged in the direction of the end that opened it, once for the egress of its
//! source and once for the ingress of its destination. What the policies' definition leaves open is
//! not guessed: the verdict is absent, with a reason.
//!
//! Sources: the API types `networking.k8s.io/v1` and the Kubernetes documentation of network
//! policies; `policy.networking.k8s.io` v1alpha1, v1alpha2 and v1beta1 of the Network Policy API.
//! `docs/networkpolicy.md` lists what is decided how, and the test of each.

mod evaluate;
mod flow;
mod model;
mod policies;
mod selector;
mod trace;
mod verdict;

pub use flow::Flow;
pub use model::{
    Action, Direction, IpBlock, NetworkPolicy, Peer, PodSet, PolicyPort, PortMatch, Rule, Tier,
    TierKind, TierPeer, TierPolicy, TierPort, TierRule,
};
pub(crate) use policies::behind_service;
pub use policies::{Explanation, Options, Policies, PolicyChange};
pub use selector::{Operator, Requirement, Selector};
pub use trace::{Stage, Step};
pub use verdict::{Basis, Part, Verdict};
