//! Wall-clock times.

mod clock;

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use clock::ClockMap;

/// Nanoseconds since the Unix epoch, UTC; reads and prints as RFC 3339 with nanoseconds.
///
/// Covers the years 1677 to 2262; arithmetic saturates at these ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(i64);

/// A text that is no RFC 3339 time.
#[derive(Debug, thiserror::Error)]
#[error("`{text}` is not an RFC 3339 time such as 2026-11-24T10:00:00Z")]
pub struct TimestampError {
    /// What was read.
    text: String,
}

// === impl Timestamp ===

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const UNIX_EPOCH: Self = Self(0);

    /// The time so many nanoseconds after the Unix epoch.
    pub const fn from_nanoseconds(nanoseconds: i64) -> Self {
        Self(nanoseconds)
    }

    /// The time so many seconds after the Unix epoch.
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000_000_000))
    }

    /// Nanoseconds since the Unix epoch.
    pub const fn nanoseconds(self) -> i64 {
        self.0
    }

    /// This much later.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(saturating_nanoseconds(duration)))
    }

    /// This much earlier.
    #[must_use]
    pub fn saturating_sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(saturating_nanoseconds(duration)))
    }

    /// How long after `earlier` this is; zero if it is not after it.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        let nanoseconds = i128::from(self.0) - i128::from(earlier.0);
        u64::try_from(nanoseconds).map_or(Duration::ZERO, Duration::from_nanos)
    }
}

fn saturating_nanoseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = jiff::Timestamp::from_nanosecond(i128::from(self.0))
            .expect("64 bits of nanoseconds are within jiff's range");
        write!(formatter, "{time:.9}")
    }
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<jiff::Timestamp>()
            .ok()
            .and_then(|time| i64::try_from(time.as_nanosecond()).ok())
            .map(Self)
            .ok_or_else(|| TimestampError {
                text: text.to_owned(),
            })
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_reads_nanoseconds() {
        let check = |nanoseconds: i64, text: &str| {
            assert_eq!(Timestamp(nanoseconds).to_string(), text);
            assert_eq!(text.parse::<Timestamp>().unwrap(), Timestamp(nanoseconds));
        };
        check(0, "1970-01-01T00:00:00.000000000Z");
        check(1_795_514_400_000_000_001, "2026-11-24T10:00:00.000000001Z");
        check(-1, "1969-12-31T23:59:59.999999999Z");
        check(i64::MAX, "2262-04-11T23:47:16.854775807Z");
    }

    #[test]
    fn reads_other_offsets() {
        let time: Timestamp = "2026-11-24T11:00:00+01:00".parse().unwrap();
        assert_eq!(time.to_string(), "2026-11-24T10:00:00.000000000Z");
    }

    #[test]
    fn refuses_what_is_no_time() {
        for text in [
            "",
            "yesterday",
            "2026-11-24",
            "2026-11-24T10:00:00",
            "9000-01-01T00:00:00Z",
        ] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }

    #[test]
    fn arithmetic_saturates() {
        let late = Timestamp(i64::MAX);
        assert_eq!(late.saturating_add(Duration::MAX), late);
        assert_eq!(Timestamp(5).saturating_since(Timestamp(7)), Duration::ZERO);
        assert_eq!(
            Timestamp(7).saturating_since(Timestamp(5)),
            Duration::from_nanos(2)
        );
    }

    #[test]
    fn round_trips_through_json() {
        let time = Timestamp::from_seconds(1_795_514_400);
        let json = serde_json::to_string(&time).unwrap();
        assert_eq!(json, "\"2026-11-24T10:00:00.000000000Z\"");
        assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), time);
    }
}
