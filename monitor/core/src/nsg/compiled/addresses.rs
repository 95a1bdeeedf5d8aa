//! Classes of addresses.

use super::rows::{Builder, Rows, TooLarge};
use crate::nsg::{
    interval::Family,
    names::{Space, Term},
};

/// Bits of an IPv4 address that lead to a part of the bounds.
const UPPER_BITS: u32 = 16;

/// Classes of the addresses of both families.
#[derive(Debug)]
pub(super) struct Addresses {
    v4: Bounds<u32>,
    /// For each value of the upper bits, how many bounds are below; one more for the end.
    upper: Vec<u32>,
    v6: Bounds<u128>,
    rows: Rows,
}

/// Where classes begin; the first begins at 0.
#[derive(Debug)]
struct Bounds<T> {
    starts: Vec<T>,
    classes: Vec<u32>,
}

/// The rules that have the same terms, and where their addresses begin and end.
type Side<'a> = (&'a [Term], Vec<usize>);

/// A place where a side begins or ends to match, perhaps or for certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Turn {
    at: u128,
    side: u32,
    certainly: bool,
}

// === impl Addresses ===

impl Addresses {
    /// Classes for rules, of which these have these terms.
    pub(super) fn new(
        sides: &[Side<'_>],
        rules: usize,
        most_bytes: usize,
    ) -> Result<Self, TooLarge> {
        let mut builder = Builder::new(rules, most_bytes);
        let v4 = sweep(sides, Family::V4, &mut builder)?;
        let v6 = sweep(sides, Family::V6, &mut builder)?;
        let v4 = Bounds {
            // Bounds of IPv4 are below 2^32.
            starts: v4
                .0
                .into_iter()
                .filter_map(|at| u32::try_from(at).ok())
                .collect(),
            classes: v4.1,
        };
        let below = |upper: u32| {
            let first = u64::from(upper) << (32 - UPPER_BITS);
            let count = v4.starts.partition_point(|start| u64::from(*start) < first);
            u32::try_from(count).unwrap_or(u32::MAX)
        };
        Ok(Self {
            upper: (0..=1 << UPPER_BITS).map(below).collect(),
            v4,
            v6: Bounds {
                starts: v6.0,
                classes: v6.1,
            },
            rows: builder.finish(),
        })
    }

    /// The row of an IPv4 address.
    pub(super) fn row4(&self, ip: u32) -> &[u64] {
        let upper = (ip >> (32 - UPPER_BITS)) as usize;
        let (from, to) = (self.upper[upper] as usize, self.upper[upper + 1] as usize);
        let within = self.v4.starts[from..to].partition_point(|start| *start <= ip);
        // The first class begins at 0, so one begins at or before any address.
        self.rows.get(self.v4.classes[from + within - 1])
    }

    /// The row of an IPv6 address.
    pub(super) fn row6(&self, ip: u128) -> &[u64] {
        let after = self.v6.starts.partition_point(|start| *start <= ip);
        self.rows.get(self.v6.classes[after - 1])
    }

    /// Bytes that they take.
    pub(super) fn size_bytes(&self) -> usize {
        self.v4.starts.len() * 8
            + self.upper.len() * 4
            + self.v6.starts.len() * 20
            + self.rows.size_bytes()
    }
}

/// Where classes begin, and which.
fn sweep(
    sides: &[Side<'_>],
    family: Family,
    builder: &mut Builder,
) -> Result<(Vec<u128>, Vec<u32>), TooLarge> {
    let mut turns = Vec::new();
    for (side, (terms, _)) in (0_u32..).zip(sides) {
        let space = Space::of(terms, family);
        for (set, certainly) in [(&space.maybe, false), (&space.yes, true)] {
            for &(from, to) in set.intervals() {
                let turn = |at| Turn {
                    at,
                    side,
                    certainly,
                };
                turns.push(turn(from));
                if to < family.max() {
                    turns.push(turn(to + 1));
                }
            }
        }
    }
    turns.sort_unstable();
    builder.clear();
    let (mut starts, mut classes) = (Vec::new(), Vec::new());
    let mut turns = turns.into_iter().peekable();
    let mut at = 0;
    loop {
        while let Some(turn) = turns.next_if(|turn| turn.at == at) {
            for rule in &sides[turn.side as usize].1 {
                builder.flip(*rule, turn.certainly);
            }
        }
        let class = builder.class()?;
        if classes.last() != Some(&class) {
            starts.push(at);
            classes.push(class);
        }
        match turns.peek() {
            Some(turn) => at = turn.at,
            None => break,
        }
    }
    starts.shrink_to_fit();
    classes.shrink_to_fit();
    Ok((starts, classes))
}
