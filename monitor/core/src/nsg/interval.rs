//! Sets of numbers as disjoint intervals: addresses, ports and protocols alike.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;

/// Disjoint, not adjacent, in order; both ends belong to an interval. Copies share them: a service
/// tag has thousands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct IntervalSet(Arc<[(u128, u128)]>);

/// One address family. Numbers of addresses are their bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Family {
    V4,
    V6,
}

// === impl Family ===

impl Family {
    pub(super) const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of an address.
    pub(super) const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// The number of its last address.
    pub(super) const fn max(self) -> u128 {
        match self {
            Self::V4 => u32::MAX as u128,
            Self::V6 => u128::MAX,
        }
    }

    /// All its addresses.
    pub(super) fn all(self) -> IntervalSet {
        IntervalSet::one(0, self.max())
    }

    /// Those of these ranges that are of this family.
    pub(super) fn ranges<'a>(self, nets: impl IntoIterator<Item = &'a IpNet>) -> IntervalSet {
        let nets = nets.into_iter();
        nets.filter(|net| Self::of(net.addr()) == self)
            .map(|net| (number(net.network()), number(net.broadcast())))
            .collect()
    }
}

/// The bits of an address.
pub(super) fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => u128::from(ip.to_bits()),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

// === impl IntervalSet ===

impl FromIterator<(u128, u128)> for IntervalSet {
    fn from_iter<I: IntoIterator<Item = (u128, u128)>>(intervals: I) -> Self {
        let mut intervals: Vec<_> = intervals.into_iter().collect();
        intervals.sort_unstable();
        let mut merged: Vec<(u128, u128)> = Vec::new();
        for (from, to) in intervals {
            match merged.last_mut() {
                Some((_, last)) if from <= last.saturating_add(1) => *last = to.max(*last),
                _ => merged.push((from, to)),
            }
        }
        Self(merged.into())
    }
}

impl IntervalSet {
    /// One interval.
    pub(super) fn one(from: u128, to: u128) -> Self {
        Self([(from, to)].into())
    }

    pub(super) fn intervals(&self) -> &[(u128, u128)] {
        &self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(test)]
    fn contains(&self, number: u128) -> bool {
        let after = self.0.partition_point(|(from, _)| *from <= number);
        after > 0 && self.0[after - 1].1 >= number
    }

    pub(super) fn union(&self, other: &Self) -> Self {
        self.0.iter().chain(&*other.0).copied().collect()
    }

    pub(super) fn intersection(&self, other: &Self) -> Self {
        let mut common = Vec::new();
        let (mut mine, mut theirs) = (self.0.iter().peekable(), other.0.iter().peekable());
        while let (Some(&&(from, to)), Some(&&(other_from, other_to))) =
            (mine.peek(), theirs.peek())
        {
            let (low, high) = (from.max(other_from), to.min(other_to));
            if low <= high {
                common.push((low, high));
            }
            if to <= other_to {
                mine.next();
            } else {
                theirs.next();
            }
        }
        Self(common.into())
    }

    pub(super) fn difference(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        let mut others = other.0.iter().peekable();
        'mine: for &(from, to) in &*self.0 {
            let mut from = from;
            while let Some(&&(other_from, other_to)) = others.peek() {
                if other_to < from {
                    others.next();
                    continue;
                }
                if other_from > to {
                    break;
                }
                if other_from > from {
                    left.push((from, other_from - 1));
                }
                if other_to >= to {
                    continue 'mine;
                }
                from = other_to + 1;
                others.next();
            }
            left.push((from, to));
        }
        Self(left.into())
    }

    /// Whether two sets have a number in common: the smaller one's bounds are looked for in the
    /// larger one.
    pub(super) fn meets(&self, other: &Self) -> bool {
        let (small, large) = if self.0.len() <= other.0.len() {
            (self, other)
        } else {
            (other, self)
        };
        small.0.iter().any(|(from, to)| {
            let after = large.0.partition_point(|(other, _)| other <= to);
            after > 0 && large.0[after - 1].1 >= *from
        })
    }

    /// How many numbers, at most `u128::MAX`.
    pub(super) fn count(&self) -> u128 {
        self.0.iter().fold(0, |sum: u128, (from, to)| {
            sum.saturating_add((to - from).saturating_add(1))
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn members(set: &IntervalSet) -> Vec<u128> {
        (0..64).filter(|n| set.contains(*n)).collect()
    }

    fn is_canonical(set: &IntervalSet) -> bool {
        set.0.iter().all(|(from, to)| from <= to)
            && set.0.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0)
    }

    proptest! {
        #[test]
        fn operations_agree_with_members(
            one in prop::collection::vec((0_u128..64, 0_u128..8), 0..6),
            other in prop::collection::vec((0_u128..64, 0_u128..8), 0..6),
        ) {
            let set = |list: &[(u128, u128)]| {
                list.iter().map(|(from, len)| (*from, (from + len).min(63))).collect()
            };
            let (one, other): (IntervalSet, IntervalSet) = (set(&one), set(&other));
            let (is_one, is_other) = (members(&one), members(&other));
            let both = |n: &u128| is_one.contains(n) && is_other.contains(n);
            let either = |n: &u128| is_one.contains(n) || is_other.contains(n);
            let only = |n: &u128| is_one.contains(n) && !is_other.contains(n);
            prop_assert_eq!(members(&one.union(&other)), (0..64).filter(either).collect::<Vec<_>>());
            prop_assert_eq!(members(&one.intersection(&other)), (0..64).filter(both).collect::<Vec<_>>());
            prop_assert_eq!(members(&one.difference(&other)), (0..64).filter(only).collect::<Vec<_>>());
            prop_assert_eq!(one.meets(&other), (0..64).any(|n| both(&n)));
            prop_assert_eq!(one.count(), is_one.len() as u128);
            prop_assert!(is_canonical(&one) && is_canonical(&one.union(&other)));
        }
    }

    #[test]
    fn the_ends_of_the_space_are_kept() {
        let all = Family::V6.all();
        let none = all.difference(&all);
        assert!(none.is_empty());
        let top = IntervalSet::one(u128::MAX, u128::MAX);
        assert_eq!(all.difference(&top), IntervalSet::one(0, u128::MAX - 1));
        assert_eq!(top.union(&all), all);
        assert_eq!(all.count(), u128::MAX);
    }
}
