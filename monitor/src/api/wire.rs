//! Lines of JSON that are safe to show on a terminal.

use std::io;

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, Serializer};

/// Escapes control characters that JSON leaves as they are: DEL and U+0080 to U+009F.
#[derive(Debug, Default)]
struct TerminalSafe(CompactFormatter);

// === impl TerminalSafe ===

impl Formatter for TerminalSafe {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((at, control)) = rest.char_indices().find(|(_, c)| c.is_control()) {
            let (before, after) = rest.split_at(at);
            self.0.write_string_fragment(writer, before)?;
            write!(writer, "\\u{:04x}", u32::from(control))?;
            rest = &after[control.len_utf8()..];
        }
        self.0.write_string_fragment(writer, rest)
    }
}

/// Writes a value as one line of JSON, all control characters escaped.
pub fn write_line<T: Serialize + ?Sized>(writer: &mut impl io::Write, value: &T) -> io::Result<()> {
    let mut serializer = Serializer::with_formatter(&mut *writer, TerminalSafe::default());
    value.serialize(&mut serializer)?;
    writer.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped_and_read_back() {
        let text = "a\u{1b}[31m\u{9b}2J\u{7f}\n\"é\u{85}";
        let mut line = Vec::new();
        write_line(&mut line, text).expect("memory");
        let line = String::from_utf8(line).expect("UTF-8");
        assert_eq!(line, "\"a\\u001b[31m\\u009b2J\\u007f\\n\\\"é\\u0085\"\n");
        assert_eq!(serde_json::from_str::<String>(&line).expect("JSON"), text);
    }
}
