//! Rows of bits, each kept once.

use std::collections::HashMap;

/// Rows by class. A row is the words of "may match", then those of "certainly matches".
#[derive(Debug)]
pub(super) struct Rows {
    words: Vec<u64>,
    /// Words of a row.
    width: usize,
}

/// Makes rows: bits are set and unset, then the row as it stands becomes a class.
#[derive(Debug)]
pub(super) struct Builder {
    classes: HashMap<Box<[u64]>, u32>,
    words: Vec<u64>,
    row: Vec<u64>,
    /// Words that rows may take.
    most: usize,
}

/// Rows would take more than they may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::nsg) struct TooLarge;

// === impl Rows ===

impl Rows {
    /// The row of a class.
    pub(super) fn get(&self, class: u32) -> &[u64] {
        let start = class as usize * self.width;
        &self.words[start..start + self.width]
    }

    /// Bytes that they take.
    pub(super) fn size_bytes(&self) -> usize {
        self.words.len() * 8
    }
}

// === impl Builder ===

impl Builder {
    /// Rows for so many rules, no bit set, of so many bytes together.
    pub(super) fn new(rules: usize, most_bytes: usize) -> Self {
        Self {
            classes: HashMap::new(),
            words: Vec::new(),
            row: vec![0; rules.div_ceil(64) * 2],
            most: most_bytes / size_of::<u64>(),
        }
    }

    /// Unsets every bit.
    pub(super) fn clear(&mut self) {
        self.row.fill(0);
    }

    /// Says that a rule may match, and whether it certainly does.
    pub(super) fn set(&mut self, rule: usize, is_certain: bool) {
        let half = self.row.len() / 2;
        self.row[rule / 64] |= 1 << (rule % 64);
        if is_certain {
            self.row[half + rule / 64] |= 1 << (rule % 64);
        }
    }

    /// Says that a rule does not match.
    pub(super) fn unset(&mut self, rule: usize) {
        let half = self.row.len() / 2;
        self.row[rule / 64] &= !(1 << (rule % 64));
        self.row[half + rule / 64] &= !(1 << (rule % 64));
    }

    /// Changes whether a rule may match, or whether it certainly does.
    pub(super) fn flip(&mut self, rule: usize, certainly: bool) {
        let half = if certainly { self.row.len() / 2 } else { 0 };
        self.row[half + rule / 64] ^= 1 << (rule % 64);
    }

    /// The class of the row as it stands.
    pub(super) fn class(&mut self) -> Result<u32, TooLarge> {
        if let Some(class) = self.classes.get(&*self.row) {
            return Ok(*class);
        }
        if self.words.len() + self.row.len() > self.most {
            return Err(TooLarge);
        }
        let class = u32::try_from(self.classes.len()).map_err(|_| TooLarge)?;
        self.classes.insert(self.row.as_slice().into(), class);
        self.words.extend_from_slice(&self.row);
        Ok(class)
    }

    /// The rows.
    pub(super) fn finish(self) -> Rows {
        let Self { mut words, row, .. } = self;
        words.shrink_to_fit();
        Rows {
            words,
            width: row.len(),
        }
    }
}
