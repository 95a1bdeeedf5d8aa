//! Rust text taken apart: code without comments and literals, comments without code.
//!
//! Both keep every line break, so line numbers and columns stay those of the file.

/// The two halves of a Rust file, of equal length in characters.
#[derive(Debug)]
pub(crate) struct Masked {
    /// Comments and the insides of literals are blank.
    pub(crate) code: String,
    /// Everything but comments is blank.
    pub(crate) comments: String,
}

/// What the scanner is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Code,
    LineComment,
    /// How many comments are open.
    BlockComment(usize),
    /// Ends at an unescaped quote of this kind.
    Literal(char),
    /// Ends at a quote and this many hashes.
    RawString(usize),
}

// === impl Masked ===

impl Masked {
    /// Takes a file apart.
    pub(crate) fn new(text: &str) -> Self {
        let chars: Vec<char> = text.chars().collect();
        let mut masked = Self {
            code: String::new(),
            comments: String::new(),
        };
        let mut place = Place::Code;
        let mut at = 0;
        while at < chars.len() {
            let (length, is_comment, next) = advance(place, &chars, at);
            for &each in &chars[at..(at + length).min(chars.len())] {
                let blank = if each == '\n' { '\n' } else { ' ' };
                let in_code = place == Place::Code && !is_comment;
                masked.code.push(if in_code { each } else { blank });
                masked.comments.push(if is_comment { each } else { blank });
            }
            place = next;
            at += length;
        }
        masked
    }
}

/// How many characters belong together here, whether they are comment, and what follows.
fn advance(place: Place, chars: &[char], at: usize) -> (usize, bool, Place) {
    let rest = &chars[at..];
    let starts = |text: &str| {
        text.chars()
            .enumerate()
            .all(|(i, c)| rest.get(i) == Some(&c))
    };
    match place {
        Place::Code if starts("//") => (2, true, Place::LineComment),
        Place::Code if starts("/*") => (2, true, Place::BlockComment(1)),
        Place::Code => literal(chars, at),
        Place::LineComment if rest[0] == '\n' => (1, false, Place::Code),
        Place::BlockComment(open) if starts("/*") => (2, true, Place::BlockComment(open + 1)),
        Place::BlockComment(1) if starts("*/") => (2, true, Place::Code),
        Place::BlockComment(open) if starts("*/") => (2, true, Place::BlockComment(open - 1)),
        Place::LineComment | Place::BlockComment(_) => (1, true, place),
        Place::Literal(_) if rest[0] == '\\' => (2, false, place),
        Place::Literal(quote) if rest[0] == quote => (1, false, Place::Code),
        Place::Literal(_) => (1, false, place),
        Place::RawString(hashes) => {
            let ends =
                rest[0] == '"' && rest[1..].iter().take_while(|c| **c == '#').count() >= hashes;
            if ends {
                (1 + hashes, false, Place::Code)
            } else {
                (1, false, place)
            }
        }
    }
}

/// One character of code, or the start of a literal.
fn literal(chars: &[char], at: usize) -> (usize, bool, Place) {
    let rest = &chars[at..];
    let after_word = at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match rest[0] {
        '"' => (1, false, Place::Literal('"')),
        'r' if !after_word || chars[at - 1] == 'b' => {
            let hashes = rest[1..].iter().take_while(|c| **c == '#').count();
            if rest.get(1 + hashes) == Some(&'"') {
                (2 + hashes, false, Place::RawString(hashes))
            } else {
                (1, false, Place::Code)
            }
        }
        // a character literal, not a lifetime
        '\'' if rest.get(1) == Some(&'\\') || rest.get(2) == Some(&'\'') => {
            (1, false, Place::Literal('\''))
        }
        _ => (1, false, Place::Code),
    }
}

/// Whether a line has this identifier as a whole word.
pub(crate) fn has_word(line: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(part) && !after.is_some_and(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn literals_and_comments_are_not_code() {
        let text = "let a = \"unsafe \\\" x\"; // unsafe y\nlet b = r#\"unsafe \" z\"#; /* un /* s */ f */ fn c<'a>() { '\"' }";
        let masked = Masked::new(text);
        assert_eq!(masked.code.chars().count(), text.chars().count());
        assert!(!masked.code.contains("unsafe"), "{}", masked.code);
        assert!(masked.code.contains("fn c<'a>()"), "{}", masked.code);
        assert!(masked.comments.contains("// unsafe y") && !masked.comments.contains("let"));
        assert_eq!(masked.code.lines().count(), 2);
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("unsafe { x }", "unsafe"));
        assert!(!has_word("#![forbid(unsafe_code)]", "unsafe"));
    }
}
