//! The line of a place in a JSON text, looked for only when there is something to say about it.

use super::node::Place;

/// The line of a place, from 1; of the nearest place around it that is found.
pub(super) fn locate(text: &str, places: &[Place]) -> Option<usize> {
    let mut scanner = Scanner {
        bytes: text.as_bytes(),
        at: 0,
    };
    scanner.blanks();
    let mut found = scanner.at;
    for place in places {
        let is_there = match place {
            Place::Key(key) => scanner.enter_key(key),
            Place::Index(index) => scanner.enter_index(*index),
        };
        if is_there.is_none() {
            break;
        }
        found = scanner.at;
    }
    let before = text.as_bytes().get(..found)?;
    Some(before.split(|byte| *byte == b'\n').count())
}

/// A place in a text that is known to be JSON.
struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

// === impl Scanner ===

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn blanks(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        self.blanks();
        if self.peek() == Some(byte) {
            self.at += 1;
            Some(())
        } else {
            None
        }
    }

    /// Goes to the value of a key of the object that begins here.
    fn enter_key(&mut self, key: &str) -> Option<()> {
        self.take(b'{')?;
        loop {
            self.blanks();
            let start = self.at;
            self.skip_text()?;
            let name = std::str::from_utf8(self.bytes.get(start..self.at)?).ok()?;
            let is_found = serde_json::from_str::<String>(name).is_ok_and(|name| name == key);
            self.take(b':')?;
            self.blanks();
            if is_found {
                return Some(());
            }
            self.skip_value()?;
            self.take(b',')?;
        }
    }

    /// Goes to an item of the array that begins here.
    fn enter_index(&mut self, index: usize) -> Option<()> {
        self.take(b'[')?;
        for _ in 0..index {
            self.blanks();
            self.skip_value()?;
            self.take(b',')?;
        }
        self.blanks();
        Some(())
    }

    fn skip_text(&mut self) -> Option<()> {
        self.take(b'"')?;
        loop {
            match self.peek()? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        Some(())
    }

    fn skip_value(&mut self) -> Option<()> {
        let mut depth = 0_usize;
        loop {
            self.blanks();
            match self.peek()? {
                b'"' => self.skip_text()?,
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                b',' | b':' if depth > 0 => {
                    self.at += 1;
                    continue;
                }
                _ => {
                    let is_scalar =
                        |byte: u8| !b",]}".contains(&byte) && !byte.is_ascii_whitespace();
                    while self.peek().is_some_and(is_scalar) {
                        self.at += 1;
                    }
                }
            }
            if depth == 0 {
                return Some(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_have_their_line() {
        let text =
            "{\n \"a\": [1, {\"x\\\"}\": \"]\"},\n  {\"b\": null,\n \"c\": \"v\"}],\n\"d\": 1\n}";
        let key = |key: &str| Place::Key(key.to_owned());
        assert_eq!(locate(text, &[]), Some(1));
        assert_eq!(locate(text, &[key("a")]), Some(2));
        assert_eq!(
            locate(text, &[key("a"), Place::Index(1), key("x\"}")]),
            Some(2)
        );
        assert_eq!(
            locate(text, &[key("a"), Place::Index(2), key("c")]),
            Some(4)
        );
        assert_eq!(locate(text, &[key("d")]), Some(5));
        // What is not there has the line of what would hold it.
        assert_eq!(
            locate(text, &[key("a"), Place::Index(2), key("z")]),
            Some(3)
        );
    }
}
