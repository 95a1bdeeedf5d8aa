//! Label values as small numbers, so that label sets are compared and copied quickly.

use std::{collections::HashMap, sync::Arc};

/// A label value in [`Symbols`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Symbol(u32);

/// Label values, each kept once.
#[derive(Clone, Debug, Default)]
pub(super) struct Symbols {
    by_text: HashMap<Arc<str>, Symbol>,
    texts: Vec<Arc<str>>,
}

// === impl Symbol ===

impl Symbol {
    /// Its place in [`Symbols::texts`].
    pub(super) fn number(self) -> usize {
        self.0 as usize
    }

    /// The text of a symbol in a copy of [`Symbols::texts`].
    pub(super) fn text(self, texts: &[Arc<str>]) -> &str {
        texts.get(self.0 as usize).map_or("", |text| text)
    }
}

// === impl Symbols ===

impl Symbols {
    /// The symbol of a text that has one.
    pub(super) fn find(&self, text: &str) -> Option<Symbol> {
        self.by_text.get(text).copied()
    }

    /// The symbol of a text.
    pub(super) fn intern(&mut self, text: &Arc<str>) -> Symbol {
        if let Some(symbol) = self.find(text) {
            return symbol;
        }
        let number = u32::try_from(self.texts.len()).expect("the series cap bounds the symbols");
        self.texts.push(Arc::clone(text));
        self.by_text.insert(Arc::clone(text), Symbol(number));
        Symbol(number)
    }

    /// All texts, by number.
    pub(super) fn texts(&self) -> &[Arc<str>] {
        &self.texts
    }
}
