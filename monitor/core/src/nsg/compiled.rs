//! Rules compiled so that a verdict's cost hardly depends on their number.
//!
//! Each field divides its values into classes: values of a class are matched by the same rules.
//! A class has two rows of bits, one bit for each rule in order of priority: rules that may match,
//! and rules that certainly match. A packet's class is looked up for each of its five fields, the
//! rows are combined with "and", and the first bit that is left is the rule that decides, for
//! certain or perhaps.
//!
//! Ports are a table of 65,536 classes, protocols one of 256; addresses are found by binary search
//! among the bounds of all prefixes, for IPv4 within those that share the upper 16 bits.

mod addresses;
mod rows;

use std::{collections::HashMap, net::IpAddr};

use super::{
    address::{Address, Ports},
    matching::{FieldMatch, Resolved, protocol_matches},
    tuple::Tuple,
};
use crate::event::Protocol;

use addresses::Addresses;
use rows::{Builder, Rows, TooLarge};

/// The rules of one direction.
#[derive(Debug)]
pub(super) struct Compiled {
    /// Words of a row of bits.
    words: usize,
    protocols: Table,
    source: Addresses,
    source_ports: PortTable,
    destination: Addresses,
    destination_ports: PortTable,
}

/// The first rule that may match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// Its place among the rules of its direction.
    pub(super) index: usize,
    /// Whether it matches for certain.
    pub(super) is_certain: bool,
}

/// Classes of small numbers.
#[derive(Debug)]
struct Table {
    classes: Vec<u32>,
    rows: Rows,
}

/// Classes of ports.
#[derive(Debug)]
struct PortTable {
    /// Class of each port; empty where no rule limits ports.
    classes: Vec<u32>,
    /// Of a packet that has no ports.
    none: u32,
    /// Of a port that nobody knows.
    unknown: u32,
    rows: Rows,
}

/// The rules that have the same set of values in a field.
type Groups<'a, K> = HashMap<&'a K, Vec<usize>>;

// === impl Compiled ===

impl Compiled {
    /// Compiles the rules of one direction, in order of priority; each field's rows may take so
    /// many bytes.
    pub(super) fn new(rules: &[&Resolved], most_bytes: usize) -> Result<Self, TooLarge> {
        let ends = |end: fn(&Resolved) -> (&Vec<Address>, &[super::names::Term])| {
            let mut groups: Groups<'_, Vec<Address>> = HashMap::new();
            for (index, resolved) in rules.iter().enumerate() {
                groups.entry(end(resolved).0).or_default().push(index);
            }
            let sets = groups.into_values().map(|members| {
                let terms = end(rules[members[0]]).1;
                (terms, members)
            });
            Addresses::new(&sets.collect::<Vec<_>>(), rules.len(), most_bytes)
        };
        let ports = |of| PortTable::new(rules, of, most_bytes);
        Ok(Self {
            words: rules.len().div_ceil(64),
            protocols: Table::protocols(rules, most_bytes)?,
            source: ends(|resolved| (&resolved.rule.source, &resolved.source))?,
            source_ports: ports(|resolved| &resolved.rule.source_ports)?,
            destination: ends(|resolved| (&resolved.rule.destination, &resolved.destination))?,
            destination_ports: ports(|resolved| &resolved.rule.destination_ports)?,
        })
    }

    /// The first rule that may match.
    pub(super) fn find(&self, tuple: &Tuple) -> Option<Found> {
        let at = self.rows(tuple);
        (0..self.words).find_map(|word| {
            let possible = at(word);
            (possible != 0).then(|| self.found(word, possible.trailing_zeros(), &at))
        })
    }

    /// The rules that may match, first asked first.
    pub(super) fn all(&self, tuple: &Tuple) -> impl Iterator<Item = Found> {
        let at = self.rows(tuple);
        let (mut next, mut left) = (0, 0);
        std::iter::from_fn(move || {
            while left == 0 {
                if next == self.words {
                    return None;
                }
                left = at(next);
                next += 1;
            }
            let bit = left.trailing_zeros();
            left &= left - 1;
            Some(self.found(next - 1, bit, &at))
        })
    }

    /// The words of the rows that a packet's fields have in common.
    fn rows(&self, tuple: &Tuple) -> impl Fn(usize) -> u64 {
        let has_ports = tuple.protocol.has_ports();
        let protocol = self.protocols.row(tuple.protocol.0);
        let source = self.source.row(tuple.source);
        let source_port = self.source_ports.row(tuple.source_port, has_ports);
        let destination = self.destination.row(tuple.destination);
        let port = self
            .destination_ports
            .row(tuple.destination_port, has_ports);
        move |word| {
            protocol[word] & source[word] & source_port[word] & destination[word] & port[word]
        }
    }

    /// The rule of a bit among those that may match.
    fn found(&self, word: usize, bit: u32, at: impl Fn(usize) -> u64) -> Found {
        Found {
            index: word * 64 + bit as usize,
            is_certain: (at(self.words + word) >> bit) & 1 == 1,
        }
    }

    /// Bytes that this takes.
    pub(super) fn size_bytes(&self) -> usize {
        let tables = self.protocols.classes.len()
            + self.source_ports.classes.len()
            + self.destination_ports.classes.len();
        tables * 4
            + self.protocols.rows.size_bytes()
            + self.source_ports.rows.size_bytes()
            + self.destination_ports.rows.size_bytes()
            + self.source.size_bytes()
            + self.destination.size_bytes()
    }
}

// === impl Table ===

impl Table {
    fn protocols(rules: &[&Resolved], most_bytes: usize) -> Result<Self, TooLarge> {
        let mut builder = Builder::new(rules.len(), most_bytes);
        let classes = (0..=u8::MAX).map(|number| {
            builder.clear();
            for (index, resolved) in rules.iter().enumerate() {
                match protocol_matches(resolved.rule.protocol, Protocol(number)) {
                    FieldMatch::Yes => builder.set(index, true),
                    FieldMatch::Unknown(_) => builder.set(index, false),
                    FieldMatch::No => {}
                }
            }
            builder.class()
        });
        let classes = classes.collect::<Result<_, _>>()?;
        Ok(Self {
            classes,
            rows: builder.finish(),
        })
    }

    fn row(&self, number: u8) -> &[u64] {
        self.rows.get(self.classes[usize::from(number)])
    }
}

// === impl PortTable ===

impl PortTable {
    fn new(
        rules: &[&Resolved],
        ports: fn(&Resolved) -> &Ports,
        most_bytes: usize,
    ) -> Result<Self, TooLarge> {
        let mut builder = Builder::new(rules.len(), most_bytes);
        // A packet without ports, and one whose port nobody knows.
        for (index, resolved) in rules.iter().enumerate() {
            if ports(resolved).is_any() {
                builder.set(index, true);
            }
        }
        let none = builder.class()?;
        for index in 0..rules.len() {
            builder.set(index, false);
        }
        let unknown = builder.class()?;
        let all_any = rules.iter().all(|resolved| ports(resolved).is_any());
        if all_any {
            return Ok(Self {
                classes: Vec::new(),
                none,
                unknown: none,
                rows: builder.finish(),
            });
        }
        let mut starts: Vec<Vec<usize>> = vec![Vec::new(); 1 << 16];
        let mut ends = starts.clone();
        for (index, resolved) in rules.iter().enumerate() {
            for range in ports(resolved).ranges() {
                starts[usize::from(*range.start())].push(index);
                ends[usize::from(*range.end())].push(index);
            }
        }
        builder.clear();
        let mut classes = Vec::with_capacity(1 << 16);
        let mut class = 0;
        let mut is_changed = true;
        for (start, end) in starts.iter().zip(&ends) {
            for index in start {
                builder.set(*index, true);
            }
            if is_changed || !start.is_empty() {
                class = builder.class()?;
            }
            classes.push(class);
            for index in end {
                builder.unset(*index);
            }
            is_changed = !end.is_empty();
        }
        Ok(Self {
            classes,
            none,
            unknown,
            rows: builder.finish(),
        })
    }

    fn row(&self, port: Option<u16>, has_ports: bool) -> &[u64] {
        let class = match port {
            _ if !has_ports => self.none,
            None => self.unknown,
            Some(_) if self.classes.is_empty() => self.none,
            Some(port) => self.classes[usize::from(port)],
        };
        self.rows.get(class)
    }
}

// === impl Addresses ===

impl Addresses {
    fn row(&self, ip: IpAddr) -> &[u64] {
        match ip {
            IpAddr::V4(ip) => self.row4(ip.to_bits()),
            IpAddr::V6(ip) => self.row6(ip.to_bits()),
        }
    }
}
