//! Which pod held an address, and when.
//!
//! Addresses pass from pod to pod. A flow belongs to the pod that held the address when the flow
//! began, so that what ended is kept for a while.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use super::{KnownPod, Phase};
use crate::time::Timestamp;

/// A pod stays the holder of its address this long after its end, unless another took it.
const GRACE: Duration = Duration::from_secs(30);
/// Holders of one address that are kept.
const MAX_HOLDERS: usize = 8;
/// Ended holders that are kept, over all addresses.
const MAX_ENDED: usize = 65_536;

/// Holders of addresses.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    by_ip: HashMap<IpAddr, Vec<Holder>>,
    /// Addresses with an ended holder, in the order of their ends as they were learned.
    ended: VecDeque<(IpAddr, u64)>,
    /// Addresses that several pods hold.
    shared: BTreeSet<IpAddr>,
}

/// A pod that holds an address, or held it.
#[derive(Clone, Debug)]
struct Holder {
    pod: Arc<KnownPod>,
    /// Pod of the first version that held it; a pod that changes goes on holding it.
    tenure: u64,
    /// When the pod began, else when it was learned of.
    from: Timestamp,
    /// `None`: still holds it.
    until: Option<Timestamp>,
    /// Whether it held it until then, and not until some time before that was not seen.
    is_end_seen: bool,
}

// === impl Addresses ===

impl Addresses {
    /// A pod holds its addresses from now on, or since it began. `before` is the version of the
    /// same pod that this one replaces.
    pub(super) fn hold(&mut self, pod: &Arc<KnownPod>, before: Option<&KnownPod>, now: Timestamp) {
        let is_holder = |pod: &KnownPod| !pod.pod.host_network;
        if let Some(before) = before.filter(|before| is_holder(before)) {
            for ip in &before.pod.ips {
                if !is_holder(pod) || !pod.pod.ips.contains(ip) {
                    self.end(*ip, before.id.0, pod.pod.end.unwrap_or(now), true);
                }
            }
        }
        if !is_holder(pod) {
            return;
        }
        for ip in &pod.pod.ips {
            self.hold_one(*ip, pod, before, now);
            self.note_shared(*ip);
        }
    }

    fn hold_one(
        &mut self,
        ip: IpAddr,
        pod: &Arc<KnownPod>,
        before: Option<&KnownPod>,
        now: Timestamp,
    ) {
        let until = match pod.pod.phase {
            Phase::Active => None,
            Phase::Ended => Some(pod.pod.end.unwrap_or(now)),
        };
        let holders = self.by_ip.entry(ip).or_default();
        let known = before.and_then(|before| {
            holders
                .iter_mut()
                .find(|holder| holder.pod.id == before.id && holder.until.is_none())
        });
        if let Some(holder) = known {
            holder.pod = Arc::clone(pod);
            holder.until = until;
            if until.is_some() {
                self.ended.push_back((ip, holder.tenure));
            }
            return;
        }
        // A pod that was over when it was first seen, and does not say when it ended, tells nothing.
        if until.is_some() && pod.pod.end.is_none() {
            if holders.is_empty() {
                self.by_ip.remove(&ip);
            }
            return;
        }
        let tenure = pod.id.0;
        holders.push(Holder {
            pod: Arc::clone(pod),
            tenure,
            from: pod.pod.start.unwrap_or(now),
            until,
            is_end_seen: true,
        });
        if holders.len() > MAX_HOLDERS {
            // Of those that all hold it, the one that began last has it: not that one.
            let order = |(_, holder): &(usize, &Holder)| {
                (holder.until.is_none(), holder.from, holder.tenure)
            };
            let oldest = holders.iter().enumerate().min_by_key(order);
            let oldest = oldest.map_or(0, |(index, _)| index);
            holders.remove(oldest);
        }
        if until.is_some() {
            self.ended.push_back((ip, tenure));
        }
        self.trim();
    }

    /// A pod is gone: now, or since some time that was not seen.
    pub(super) fn release(&mut self, pod: &KnownPod, now: Timestamp, is_seen: bool) {
        if pod.pod.host_network {
            return;
        }
        for ip in &pod.pod.ips {
            let is_seen = is_seen || pod.pod.end.is_some();
            self.end(*ip, pod.id.0, pod.pod.end.unwrap_or(now), is_seen);
        }
    }

    fn end(&mut self, ip: IpAddr, id: u64, at: Timestamp, is_seen: bool) {
        let holder = self.by_ip.get_mut(&ip).and_then(|holders| {
            holders
                .iter_mut()
                .find(|holder| holder.pod.id.0 == id && holder.until.is_none())
        });
        if let Some(holder) = holder {
            holder.until = Some(at);
            holder.is_end_seen = is_seen;
            self.ended.push_back((ip, holder.tenure));
            self.trim();
            self.note_shared(ip);
        }
    }

    /// Notes whether several pods hold an address.
    fn note_shared(&mut self, ip: IpAddr) {
        if self.holders(ip).nth(1).is_some() {
            self.shared.insert(ip);
        } else {
            self.shared.remove(&ip);
        }
    }

    /// Pods that hold an address now.
    fn holders(&self, ip: IpAddr) -> impl Iterator<Item = &Holder> {
        let holders = self.by_ip.get(&ip).into_iter().flatten();
        holders.filter(|holder| holder.until.is_none())
    }

    /// Addresses that several pods hold now.
    pub(super) fn shared(&self) -> &BTreeSet<IpAddr> {
        &self.shared
    }

    /// Pods that hold an address now and do not have it, see [`Addresses::current`].
    pub(super) fn others(&self, ip: IpAddr) -> impl Iterator<Item = &Arc<KnownPod>> {
        let current = self.current(ip).map(|pod| pod.id);
        self.holders(ip)
            .map(|holder| &holder.pod)
            .filter(move |pod| Some(pod.id) != current)
    }

    /// Forgets the holders that ended first.
    fn trim(&mut self) {
        while self.ended.len() > MAX_ENDED {
            let Some((ip, tenure)) = self.ended.pop_front() else {
                return;
            };
            if let Some(holders) = self.by_ip.get_mut(&ip) {
                holders.retain(|holder| holder.tenure != tenure || holder.until.is_none());
                if holders.is_empty() {
                    self.by_ip.remove(&ip);
                }
            }
        }
    }

    /// The pod that holds an address now. Where several claim it, the one that began last.
    pub(super) fn current(&self, ip: IpAddr) -> Option<&Arc<KnownPod>> {
        self.holders(ip)
            .max_by_key(|holder| (holder.from, holder.tenure))
            .map(|holder| &holder.pod)
    }

    /// The pod that held an address at a time.
    pub(super) fn at(&self, ip: IpAddr, at: Timestamp) -> Option<&Arc<KnownPod>> {
        let holders = self.by_ip.get(&ip)?;
        let began = |holder: &&Holder| holder.from <= at;
        let order = |holder: &&Holder| (holder.from, holder.tenure);
        let holding = holders
            .iter()
            .filter(began)
            .filter(|holder| holder.until.is_none_or(|until| at < until));
        // Of two that overlap, the earlier one holds the address until its end: the later one was
        // taken on by its kubelet before it had an address. If that end was not seen, it was before.
        let ended_later = holding
            .clone()
            .filter(|holder| holder.until.is_some() && holder.is_end_seen)
            .min_by_key(order);
        ended_later
            .or_else(|| holding.max_by_key(order))
            .or_else(|| {
                holders
                    .iter()
                    .filter(began)
                    .filter(|holder| {
                        holder
                            .until
                            .is_some_and(|until| at < until.saturating_add(GRACE))
                    })
                    .max_by_key(|holder| (holder.until, holder.tenure))
            })
            .map(|holder| &holder.pod)
    }

    /// Whether a pod held an address at a time: not only shortly before.
    pub(super) fn is_held(&self, ip: IpAddr, at: Timestamp) -> bool {
        let mut holders = self.by_ip.get(&ip).into_iter().flatten();
        holders.any(|holder| holder.from <= at && holder.until.is_none_or(|until| at < until))
    }

    /// Addresses that are held or were.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_ip.len()
    }
}
