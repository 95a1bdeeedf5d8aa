//! Rows by their labels, in places that are used again.

use std::{collections::HashMap, hash::Hash};

/// Rows of one kind.
#[derive(Clone, Debug)]
pub(super) struct Table<L, C> {
    index: HashMap<L, u32>,
    places: Vec<Option<(L, C)>>,
    free: Vec<u32>,
    /// The row for label sets beyond the cap.
    pub(super) other: C,
    /// How many flows or connections were counted there.
    pub(super) folded: u64,
}

// === impl Table ===

impl<L: Copy + Eq + Hash, C: Copy + Default> Table<L, C> {
    pub(super) fn new() -> Self {
        Self {
            index: HashMap::new(),
            places: Vec::new(),
            free: Vec::new(),
            other: C::default(),
            folded: 0,
        }
    }

    /// All rows but the one for what is beyond the cap.
    pub(super) fn rows(&self) -> Vec<(L, C)> {
        let mut rows = Vec::with_capacity(self.index.len());
        rows.extend(self.places.iter().flatten());
        rows
    }

    /// The place of a row.
    pub(super) fn find(&self, labels: &L) -> Option<u32> {
        self.index.get(labels).copied()
    }

    /// Labels of the row at a place.
    pub(super) fn labels(&self, place: u32) -> Option<&L> {
        let row = self.places.get(place as usize)?.as_ref()?;
        Some(&row.0)
    }

    /// Adds a row; its place.
    pub(super) fn insert(&mut self, labels: L) -> u32 {
        let row = Some((labels, C::default()));
        let place = match self.free.pop() {
            Some(place) => {
                self.places[place as usize] = row;
                place
            }
            None => {
                self.places.push(row);
                u32::try_from(self.places.len() - 1).expect("the series cap bounds the rows")
            }
        };
        self.index.insert(labels, place);
        place
    }

    /// The counter at a place, or the one for what is beyond the cap.
    pub(super) fn count_mut(&mut self, place: u32) -> &mut C {
        match self.places.get_mut(place as usize) {
            Some(Some((_, count))) => count,
            _ => &mut self.other,
        }
    }

    /// Removes the rows that are not to be kept; how many.
    pub(super) fn retain(&mut self, mut is_kept: impl FnMut(u32, &L) -> bool) -> usize {
        let mut removed = 0;
        for (place, row) in (0..).zip(&mut self.places) {
            if let Some((labels, _)) = row
                && !is_kept(place, labels)
            {
                self.index.remove(labels);
                *row = None;
                self.free.push(place);
                removed += 1;
            }
        }
        removed
    }

    /// Gives every row other labels, each its own.
    pub(super) fn relabel(&mut self, mut with: impl FnMut(&L) -> L) {
        self.index.clear();
        for (place, row) in (0..).zip(&mut self.places) {
            if let Some((labels, _)) = row {
                *labels = with(labels);
                self.index.insert(*labels, place);
            }
        }
    }
}
