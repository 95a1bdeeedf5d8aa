//! Addresses that several pods have at a time, for people.

use std::{net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use super::{Cluster, KnownPod};

/// Addresses that are told of one by one.
const FIRST: usize = 16;

/// Addresses that several pods have which have not ended, and which do not use their node's network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedAddresses {
    /// How many there are.
    pub count: u64,
    /// The first of them.
    pub first: Vec<SharedAddress>,
}

/// An address that several pods have.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedAddress {
    /// The address.
    pub ip: IpAddr,
    /// The pod that its flows are taken for, `namespace/name`: the one that began last.
    pub pod: String,
    /// The other pods.
    pub others: Vec<String>,
}

impl Cluster {
    /// Addresses that several pods have which have not ended.
    pub fn shared_addresses(&self) -> SharedAddresses {
        let name = |pod: &Arc<KnownPod>| format!("{}/{}", pod.pod.namespace, pod.pod.name);
        let shared = self.addresses.shared();
        let first = shared.iter().take(FIRST).map(|ip| SharedAddress {
            ip: *ip,
            pod: self.addresses.current(*ip).map(name).unwrap_or_default(),
            others: self.addresses.others(*ip).map(name).collect(),
        });
        SharedAddresses {
            count: self.shared_count(),
            first: first.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cluster::{Change, Phase, Pod},
        time::Timestamp,
    };

    const ADDRESS: &str = "10.244.1.7";

    fn pod(name: &str, start: i64) -> Pod {
        Pod {
            uid: Some(format!("uid-{name}").into()),
            ips: vec![ADDRESS.parse().unwrap()],
            start: (start > 0).then(|| Timestamp::from_seconds(start)),
            ..Pod::new("shop", name)
        }
    }

    fn apply(cluster: &mut Cluster, change: impl Into<Change>) {
        cluster.apply(change.into(), Timestamp::from_seconds(1_000));
    }

    fn shared(cluster: &Cluster) -> Vec<(String, Vec<String>)> {
        let shared = cluster.shared_addresses();
        assert_eq!(shared.count, shared.first.len() as u64);
        let ends = shared.first.into_iter();
        ends.map(|address| (address.pod, address.others)).collect()
    }

    #[test]
    fn of_several_pods_the_one_that_began_last_has_the_address() {
        let mut cluster = Cluster::new();
        apply(&mut cluster, pod("late", 200));
        assert_eq!(shared(&cluster), []);
        apply(&mut cluster, pod("early", 100));
        let both = ("shop/late".to_owned(), vec!["shop/early".to_owned()]);
        assert_eq!(shared(&cluster), std::slice::from_ref(&both));
        let holder = |cluster: &Cluster, seconds| {
            let end = cluster.end_at(ADDRESS.parse().unwrap(), Timestamp::from_seconds(seconds));
            end.pod.map(|pod| pod.pod.name.to_string())
        };
        assert_eq!(holder(&cluster, 150).as_deref(), Some("early"));
        assert_eq!(holder(&cluster, 250).as_deref(), Some("late"));
        // A pod that changes is the same, and one of the node's network, or one that ended, has no
        // address.
        let mut labelled = pod("early", 100);
        labelled.node = Some("one".into());
        apply(&mut cluster, labelled);
        assert_eq!(shared(&cluster), std::slice::from_ref(&both));
        let host = Pod {
            host_network: true,
            ..pod("host", 300)
        };
        apply(&mut cluster, host);
        assert_eq!(shared(&cluster), [both]);
        let ended = Pod {
            phase: Phase::Ended,
            ..pod("early", 100)
        };
        apply(&mut cluster, ended);
        assert_eq!(shared(&cluster), []);
        // Of those that began at once, or do not say, it is the one that was told of last.
        apply(&mut cluster, pod("next", 200));
        let next = ("shop/next".to_owned(), vec!["shop/late".to_owned()]);
        assert_eq!(shared(&cluster), [next]);
        apply(&mut cluster, Change::PodGone("shop".into(), "next".into()));
        assert_eq!(shared(&cluster), []);
    }

    #[test]
    fn however_many_have_an_address_the_last_of_them_has_it() {
        let mut cluster = Cluster::new();
        apply(&mut cluster, pod("last", 900));
        for number in 0..40 {
            apply(&mut cluster, pod(&format!("pod-{number}"), 100 + number));
        }
        let shared = shared(&cluster);
        assert_eq!(shared[0].0, "shop/last");
        assert!(shared[0].1.len() < 40, "kept is a bounded number of them");
    }
}
