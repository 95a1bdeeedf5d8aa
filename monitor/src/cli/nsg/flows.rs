//! Flows to judge, one JSON object a line: as `nsg eval` documents them, or flow records of
//! nodewatch itself.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Read},
    net::IpAddr,
};

use anyhow::Context as _;
use monitor_core::{
    event::{Outcome, Protocol},
    nsg::{Direction, Tuple},
};
use serde_json::{Map, Value};

/// The longest line.
const MOST_LINE: u64 = 1 << 20;

/// Lines of a file or of standard input.
pub(super) struct Flows {
    name: String,
    reader: BufReader<Box<dyn Read>>,
    line: Vec<u8>,
    number: u64,
}

/// A flow to judge.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Flow {
    /// What the reader calls it.
    pub(super) id: Option<Value>,
    /// The opening packet.
    pub(super) tuple: Tuple,
    /// What became of it, where the line says so.
    pub(super) outcome: Option<Outcome>,
    /// Whether its direction is a guess.
    pub(super) is_guess: bool,
}

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FlowError {
    #[error("is longer than {MOST_LINE} bytes")]
    Long,
    #[error("not readable as JSON: {0}")]
    Json(String),
    #[error("must be a JSON object with direction, protocol, source and destination")]
    Object,
    #[error("field `{0}`: is missing")]
    Missing(&'static str),
    #[error("field `{field}`: `{value}` is not {expected}")]
    Value {
        field: &'static str,
        value: String,
        expected: &'static str,
    },
    #[error("field `destination`: is of another address family than `source`")]
    Families,
}

// === impl Flows ===

impl Flows {
    /// Opens a file; `-` is standard input.
    pub(super) fn open(file: &str) -> anyhow::Result<Self> {
        let input: Box<dyn Read> = if file == "-" {
            Box::new(io::stdin())
        } else {
            Box::new(File::open(file).with_context(|| file.to_owned())?)
        };
        Ok(Self {
            name: file.to_owned(),
            reader: BufReader::with_capacity(1 << 16, input),
            line: Vec::new(),
            number: 0,
        })
    }

    /// Whether the next line may have to be waited for.
    pub(super) fn may_wait(&self) -> bool {
        !self.reader.buffer().contains(&b'\n')
    }

    /// The next flow; empty lines are none.
    pub(super) fn next(&mut self) -> anyhow::Result<Option<Flow>> {
        loop {
            self.line.clear();
            self.number += 1;
            let mut limited = (&mut self.reader).take(MOST_LINE + 1);
            let length = limited
                .read_until(b'\n', &mut self.line)
                .with_context(|| self.name.clone())?;
            if length == 0 {
                return Ok(None);
            }
            let result = if length as u64 > MOST_LINE {
                Err(FlowError::Long)
            } else if self.line.trim_ascii().is_empty() {
                continue;
            } else {
                read(&self.line)
            };
            return result
                .map(Some)
                .with_context(|| format!("{}:{}", self.name, self.number));
        }
    }
}

/// Reads a line.
fn read(line: &[u8]) -> Result<Flow, FlowError> {
    let value: Value = serde_json::from_slice(line).map_err(|error| {
        let message = error.to_string();
        let message = message.split(" at line ").next().unwrap_or_default();
        FlowError::Json(format!("{message}, column {}", error.column()))
    })?;
    let Value::Object(mut members) = value else {
        return Err(FlowError::Object);
    };
    let id = members.remove("id");
    let tuple = if members.get("source").is_some_and(Value::is_object) {
        record(&members)?
    } else {
        plain(&members)?
    };
    if tuple.source.is_ipv4() != tuple.destination.is_ipv4() {
        return Err(FlowError::Families);
    }
    let outcome = match members.get("outcome") {
        None | Some(Value::Null) => None,
        Some(_) => Some(text(&members, "outcome", "an outcome such as established")?),
    };
    let is_guess = members
        .get("initiator")
        .is_some_and(|initiator| initiator == "unknown");
    Ok(Flow {
        id,
        tuple,
        outcome,
        is_guess,
    })
}

/// A flow as `nsg eval` documents it.
fn plain(members: &Map<String, Value>) -> Result<Tuple, FlowError> {
    let protocol = protocol(members)?;
    let tuple = Tuple {
        direction: text(members, "direction", "Inbound or Outbound")?,
        protocol,
        source: address(members, "source")?,
        source_port: port(members, "source_port")?,
        destination: address(members, "destination")?,
        destination_port: port(members, "destination_port")?,
    }
    .normalised();
    let is_reply = match members.get("reply") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(is_reply)) => *is_reply,
        Some(other) => return Err(wrong("reply", other, "true or false")),
    };
    let tuple = if is_reply { tuple.answered() } else { tuple };
    let needs_port = matches!(protocol, Protocol::TCP | Protocol::UDP);
    if needs_port && tuple.destination_port.is_none() {
        let missing = if is_reply {
            "source_port"
        } else {
            "destination_port"
        };
        return Err(FlowError::Missing(missing));
    }
    Ok(tuple)
}

/// A flow record of nodewatch.
fn record(members: &Map<String, Value>) -> Result<Tuple, FlowError> {
    let end = |field: &'static str| {
        let end = members.get(field).and_then(Value::as_object);
        let end = end.ok_or(FlowError::Missing(field))?;
        Ok((address(end, "ip")?, port(end, "port")?))
    };
    let (source, source_port) = end("source")?;
    let (destination, destination_port) = end("destination")?;
    let direction = match members.get("local") {
        None | Some(Value::Null) => return Err(FlowError::Missing("local")),
        Some(Value::String(local)) if local == "source" => Direction::Outbound,
        Some(Value::String(local)) if local == "destination" => Direction::Inbound,
        Some(other) => return Err(wrong("local", other, "source or destination")),
    };
    let tuple = Tuple {
        direction,
        protocol: protocol(members)?,
        source,
        source_port,
        destination,
        destination_port,
    };
    Ok(tuple.normalised())
}

fn wrong(field: &'static str, value: &Value, expected: &'static str) -> FlowError {
    let value = match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let short: String = value.chars().take(80).collect();
    FlowError::Value {
        field,
        value: super::super::table::escape(&short).into_owned(),
        expected,
    }
}

fn text<T: std::str::FromStr>(
    members: &Map<String, Value>,
    field: &'static str,
    expected: &'static str,
) -> Result<T, FlowError> {
    let value = match members.get(field) {
        None | Some(Value::Null) => return Err(FlowError::Missing(field)),
        Some(value) => value,
    };
    let parsed = value.as_str().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| wrong(field, value, expected))
}

fn address(members: &Map<String, Value>, field: &'static str) -> Result<IpAddr, FlowError> {
    text(members, field, "an IP address")
}

fn protocol(members: &Map<String, Value>) -> Result<Protocol, FlowError> {
    let expected = "Tcp, Udp, Icmp, Icmpv6, Esp, Ah or an IP protocol number";
    if let Some(value @ Value::Number(number)) = members.get("protocol") {
        let number = number.as_u64().and_then(|number| u8::try_from(number).ok());
        return number
            .map(Protocol)
            .ok_or_else(|| wrong("protocol", value, expected));
    }
    text(members, "protocol", expected)
}

fn port(members: &Map<String, Value>, field: &'static str) -> Result<Option<u16>, FlowError> {
    match members.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let port = value.as_u64().and_then(|port| u16::try_from(port).ok());
            port.map(Some)
                .ok_or_else(|| wrong(field, value, "a port from 0 to 65535"))
        }
    }
}
