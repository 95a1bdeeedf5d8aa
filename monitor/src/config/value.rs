//! Values of flags and of the file: each is read from one text and checked there.

use std::{fmt, net::SocketAddr, ops::RangeInclusive, str::FromStr, time::Duration};

use monitor_core::entity::{NamedRange, RangeError};
use serde::{Deserialize, Deserializer, de};

/// The longest name of an interface (`IFNAMSIZ` without its end).
const INTERFACE_NAME: usize = 15;
/// Capacities that a flow map may have: beyond, it would take gigabytes.
pub(super) const FLOWS: RangeInclusive<i64> = 1..=(1 << 24);
/// How often the kernel's maps may be read.
const POLL_INTERVALS: RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_mins(1);

/// A text that is not the value it was read as.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{value}` is not {expected}")]
pub struct ValueError {
    /// What was read.
    value: String,
    /// What was expected.
    expected: &'static str,
}

/// How to attach to an interface's hooks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Attach {
    /// TCX where the kernel has it, else clsact.
    #[default]
    Auto,
    /// Only TCX.
    Tcx,
    /// Only clsact.
    Clsact,
}

/// Level of the kernel program's own log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KernelLog {
    /// No log; the verifier removes it.
    #[default]
    Off = 0,
    /// Errors.
    Error = 1,
    /// And warnings.
    Warn = 2,
    /// And what is of interest.
    Info = 3,
    /// And what helps to find faults.
    Debug = 4,
    /// And every packet.
    Trace = 5,
}

/// How the daemon logs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// What series tell apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Labels {
    /// Pods.
    #[default]
    Pod,
    /// Workloads: the label `pod` is empty.
    Workload,
}

/// Where to serve HTTP; `None` for nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen(pub Option<SocketAddr>);

/// Whether to watch a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kubernetes {
    /// In a pod with a service account, unless manifests are given.
    #[default]
    Auto,
    /// In a pod with a service account that cluster, else the one that `kubectl` talks to.
    On,
    /// No cluster.
    Off,
}

/// A duration that is not zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Period(pub Duration);

/// Time between two readings of the kernel's maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PollInterval(pub Duration);

/// A name that an interface may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceName(String);

/// A glob for names of interfaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

/// A name for a range of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range(pub NamedRange);

// === impl ValueError ===

impl ValueError {
    fn new(value: &str, expected: &'static str) -> Self {
        Self {
            value: value.to_owned(),
            expected,
        }
    }
}

// === impl of words ===

macro_rules! words {
    ($type:ident, $expected:literal, $($variant:ident = $name:literal),+) => {
        impl $type {
            /// Name in flags and in the file.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }
        }

        impl FromStr for $type {
            type Err = ValueError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                match text {
                    $($name => Ok(Self::$variant),)+
                    _ => Err(ValueError::new(text, $expected)),
                }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.pad(self.name())
            }
        }
    };
}

words!(
    Attach,
    "auto, tcx or clsact",
    Auto = "auto",
    Tcx = "tcx",
    Clsact = "clsact"
);
words!(
    KernelLog,
    "off, error, warn, info, debug or trace",
    Off = "off",
    Error = "error",
    Warn = "warn",
    Info = "info",
    Debug = "debug",
    Trace = "trace"
);
words!(
    Kubernetes,
    "auto, on or off",
    Auto = "auto",
    On = "on",
    Off = "off"
);
words!(
    Labels,
    "pod or workload",
    Pod = "pod",
    Workload = "workload"
);
words!(LogFormat, "text or json", Text = "text", Json = "json");

// === impl KernelLog ===

impl KernelLog {
    /// As the kernel program's global wants it: 0 off, 1 error to 5 trace.
    pub const fn level(self) -> u8 {
        self as u8
    }
}

// === impl Listen ===

impl FromStr for Listen {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "none" | "off" => Ok(Self(None)),
            _ => text
                .parse()
                .map(|address| Self(Some(address)))
                .map_err(|_| {
                    ValueError::new(
                        text,
                        "an address and port such as 127.0.0.1:9469, or `none`",
                    )
                }),
        }
    }
}

// === impl Period ===

impl FromStr for Period {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match parse_duration(text) {
            Ok(duration) if !duration.is_zero() => Ok(Self(duration)),
            _ => Err(ValueError::new(
                text,
                "a duration such as 500ms, 30s, 5m or 4h",
            )),
        }
    }
}

// === impl PollInterval ===

impl FromStr for PollInterval {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match parse_duration(text) {
            Ok(duration) if POLL_INTERVALS.contains(&duration) => Ok(Self(duration)),
            _ => Err(ValueError::new(text, "a duration between 50ms and 1m")),
        }
    }
}

/// Reads a duration as kubectl and Prometheus write it: `500ms`, `30s`, `1h30m`, `2d`.
pub fn parse_duration(text: &str) -> Result<Duration, ValueError> {
    let refuse = || ValueError::new(text, "a duration such as 500ms, 30s, 5m or 4h");
    let mut rest = text;
    let mut sum = Duration::ZERO;
    while !rest.is_empty() || text.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .ok_or_else(refuse)?;
        let number: u64 = rest[..digits].parse().map_err(|_| refuse())?;
        rest = &rest[digits..];
        let letters = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let milliseconds = match &rest[..letters] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(refuse()),
        };
        rest = &rest[letters..];
        let part = number.checked_mul(milliseconds).ok_or_else(refuse)?;
        sum = sum
            .checked_add(Duration::from_millis(part))
            .ok_or_else(refuse)?;
    }
    Ok(sum)
}

// === impl InterfaceName ===

impl FromStr for InterfaceName {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_allowed = |c: char| !c.is_whitespace() && !c.is_control() && c != '/' && c != ':';
        if (1..=INTERFACE_NAME).contains(&text.len()) && text.chars().all(is_allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ValueError::new(text, "a name that an interface may have"))
        }
    }
}

impl From<InterfaceName> for String {
    fn from(InterfaceName(name): InterfaceName) -> Self {
        name
    }
}

// === impl Pattern ===

impl FromStr for Pattern {
    type Err = ValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match globset::Glob::new(text) {
            Ok(_) if !text.is_empty() => Ok(Self(text.to_owned())),
            _ => Err(ValueError::new(text, "a name pattern such as veth*")),
        }
    }
}

impl From<Pattern> for String {
    fn from(Pattern(pattern): Pattern) -> Self {
        pattern
    }
}

// === impl Range ===

impl FromStr for Range {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

// === impl of Deserialize ===

macro_rules! deserialize_from_text {
    ($($type:ident),+) => {
        $(
            impl<'de> Deserialize<'de> for $type {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    let text = String::deserialize(deserializer)?;
                    text.parse().map_err(de::Error::custom)
                }
            }
        )+
    };
}

deserialize_from_text!(
    Attach,
    KernelLog,
    Kubernetes,
    Labels,
    LogFormat,
    Listen,
    Period,
    PollInterval,
    InterfaceName,
    Pattern,
    Range
);

/// Reads the capacity of a flow map.
pub(super) fn flows<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let flows = i64::deserialize(deserializer)?;
    match u32::try_from(flows) {
        Ok(capacity) if FLOWS.contains(&flows) => Ok(Some(capacity)),
        _ => Err(de::Error::custom(format_args!(
            "{flows} is not in {}..={}",
            FLOWS.start(),
            FLOWS.end()
        ))),
    }
}
