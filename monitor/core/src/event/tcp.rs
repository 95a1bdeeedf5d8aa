//! TCP flags as letters.

use std::{borrow::Cow, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::UnknownName;

/// All TCP header flags that a direction sent, as in the header (RFC 9293 section 3.1).
///
/// Reads and prints as letters, tcpdump's where it has them: `SAPF` for a full connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TcpFlags(pub u8);

/// Letters and bits, in the order in which they print.
const LETTERS: [(char, u8); 8] = [
    ('S', 0x02),
    ('A', 0x10),
    ('P', 0x08),
    ('F', 0x01),
    ('R', 0x04),
    ('U', 0x20),
    ('E', 0x40),
    ('C', 0x80),
];

// === impl TcpFlags ===

impl fmt::Display for TcpFlags {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;

        LETTERS
            .iter()
            .filter(|(_, bit)| self.0 & bit != 0)
            .try_for_each(|(letter, _)| formatter.write_char(*letter))
    }
}

impl FromStr for TcpFlags {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.chars().try_fold(Self::default(), |flags, letter| {
            LETTERS
                .iter()
                .find(|(known, _)| *known == letter)
                .map(|(_, bit)| Self(flags.0 | bit))
                .ok_or_else(|| UnknownName::new("TCP flags", text, "letters of SAPFRUEC"))
        })
    }
}

impl Serialize for TcpFlags {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TcpFlags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'_, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_combinations_read_back() {
        for bits in 0..=u8::MAX {
            let flags = TcpFlags(bits);
            assert_eq!(flags.to_string().parse::<TcpFlags>().unwrap(), flags);
        }
    }

    #[test]
    fn full_connection_prints_in_order() {
        assert_eq!(TcpFlags(0x1b).to_string(), "SAPF");
        assert_eq!(TcpFlags(0xff).to_string(), "SAPFRUEC");
        assert!("SX".parse::<TcpFlags>().is_err());
    }
}
