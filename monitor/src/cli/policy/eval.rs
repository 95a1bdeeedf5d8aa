//! `nodewatch policy eval`: flows from a file, one verdict for each.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    net::IpAddr,
    path::PathBuf,
    process::ExitCode,
    str::FromStr as _,
    sync::Arc,
};

use anyhow::{Context as _, bail};
use monitor_core::{
    event::Protocol,
    netpol::{Flow, Verdict},
};
use serde::Serialize;
use serde_json::{Map, Value};

use super::{Declared, Source};
use crate::{
    cli::output::Output,
    explain::ends::{Side, Wanted, flow as flow_between},
};

/// Longest line in bytes.
const MAX_LINE: usize = 1 << 20;

/// Flags of `policy eval`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    source: Source,
    /// Flows, one JSON object per line:
    /// {"id":1,"src":{"ns":"a","pod":"x"},"dst":{"ip":"192.0.2.1"},"protocol":"TCP","port":443};
    /// `-` for standard input
    #[arg(long, value_name = "FILE")]
    flows: PathBuf,
}

/// A line of the output.
#[derive(Debug, Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a Value>,
    #[serde(flatten)]
    verdict: &'a Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a Arc<str>>,
    /// With the policies that are proposed.
    #[serde(skip_serializing_if = "Option::is_none")]
    proposed: Option<&'a Verdict>,
}

/// What is wrong with a line.
#[derive(Debug, thiserror::Error)]
enum LineError {
    #[error("is no JSON object: {0}")]
    Json(serde_json::Error),
    #[error("field {field}: {message}")]
    Field {
        field: &'static str,
        message: String,
    },
    #[error("is longer than {MAX_LINE} bytes")]
    TooLong,
}

/// Judges flows.
pub(super) fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Args { source, flows } = args;
    let name = flows.display().to_string();
    let is_stdin = name == "-";
    if is_stdin && source.uses_stdin() {
        bail!("--manifests and --flows cannot both be standard input");
    }
    let input: Box<dyn Read> = if is_stdin {
        Box::new(crate::stdin::take().with_context(|| name.clone())?)
    } else {
        let file = File::open(&flows).with_context(|| name.clone())?;
        if file.metadata().with_context(|| name.clone())?.is_dir() {
            bail!("{name}: is a directory");
        }
        Box::new(file)
    };
    let mut declared = source.read()?;
    let name = if is_stdin { "standard input" } else { &name };
    judge_lines(name, input, &mut declared, &mut Output::stdout())?;
    Ok(declared.status())
}

fn judge_lines<W: io::Write>(
    name: &str,
    input: impl Read,
    declared: &mut Declared,
    output: &mut Output<W>,
) -> anyhow::Result<()> {
    let mut input = BufReader::with_capacity(1 << 16, input);
    let (mut line, mut printed) = (Vec::new(), Vec::new());
    for number in 1_u64.. {
        line.clear();
        let limit = u64::try_from(MAX_LINE).unwrap_or(u64::MAX) + 1;
        let read = (&mut input).take(limit).read_until(b'\n', &mut line);
        if read.with_context(|| name.to_owned())? == 0 {
            break;
        }
        if !line.trim_ascii().is_empty() {
            let judged = judge_line(&line, declared, &mut printed);
            if let Err(error) = judged {
                output.flush()?;
                bail!("{name}: line {number}: {error}");
            }
            output.write(&printed)?;
        }
        // Whoever waits for an answer before the next question gets it.
        if input.buffer().is_empty() {
            output.flush()?;
        }
    }
    output.flush()
}

fn judge_line(
    line: &[u8],
    declared: &mut Declared,
    printed: &mut Vec<u8>,
) -> Result<(), LineError> {
    if line.len() > MAX_LINE {
        return Err(LineError::TooLong);
    }
    let question: Map<String, Value> = serde_json::from_slice(line).map_err(LineError::Json)?;
    let flow = flow(&question, declared)?;
    let Declared {
        cluster,
        policies,
        proposed,
        ..
    } = declared;
    let verdict = policies.judge(cluster, &flow);
    let proposed = proposed
        .as_mut()
        .map(|proposed| proposed.judge(cluster, &flow));
    printed.clear();
    let answer = Line {
        id: question.get("id"),
        verdict: &verdict,
        reason: verdict.reason(),
        proposed: proposed.as_deref(),
    };
    serde_json::to_writer(&mut *printed, &answer).map_err(LineError::Json)?;
    printed.push(b'\n');
    Ok(())
}

fn wrong(field: &'static str, message: impl Into<String>) -> LineError {
    let message = message.into();
    LineError::Field { field, message }
}

fn flow(question: &Map<String, Value>, declared: &Declared) -> Result<Flow, LineError> {
    let source = end(question, "src", ["src.ns", "src.pod", "src.ip"])?;
    let destination = end(question, "dst", ["dst.ns", "dst.pod", "dst.ip"])?;
    let protocol = match question.get("protocol") {
        None | Some(Value::Null) => Protocol::TCP,
        Some(Value::String(text)) => text
            .parse()
            .map_err(|error| wrong("protocol", format!("{error}")))?,
        Some(Value::Number(number)) => number
            .as_u64()
            .and_then(|number| u8::try_from(number).ok())
            .map(Protocol)
            .ok_or_else(|| wrong("protocol", "expected TCP, UDP, SCTP or 0 to 255"))?,
        Some(_) => return Err(wrong("protocol", "expected TCP, UDP, SCTP or 0 to 255")),
    };
    let port = match question.get("port") {
        _ if !protocol.has_ports() => 0,
        None | Some(Value::Null) => return Err(wrong("port", "missing")),
        Some(value) => value
            .as_u64()
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port > 0)
            .ok_or_else(|| wrong("port", "expected a number from 1 to 65535"))?,
    };
    flow_between(&declared.cluster, &source, &destination, protocol, port).map_err(
        |(side, error)| {
            let field = match side {
                Side::Source => "src.pod",
                Side::Destination => "dst.pod",
            };
            wrong(field, error.to_string())
        },
    )
}

/// An end; `fields` are the names of its fields in messages.
fn end(
    question: &Map<String, Value>,
    name: &'static str,
    fields: [&'static str; 3],
) -> Result<Wanted, LineError> {
    let Some(end) = question.get(name).filter(|end| !end.is_null()) else {
        return Err(wrong(name, "missing"));
    };
    let Value::Object(end) = end else {
        return Err(wrong(
            name,
            "expected an object with ns and pod, or with ip",
        ));
    };
    let text = |key: &str, field| match end.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.as_str())),
        Some(_) => Err(wrong(field, "expected a string")),
    };
    let [namespace_field, pod_field, ip_field] = fields;
    let (namespace, pod) = (text("ns", namespace_field)?, text("pod", pod_field)?);
    let ip = match text("ip", ip_field)? {
        None => None,
        Some(text) => Some(IpAddr::from_str(text).map_err(|_| {
            let text: String = text.chars().take(80).flat_map(char::escape_debug).collect();
            wrong(ip_field, format!("`{text}` is no address"))
        })?),
    };
    let pod = match (namespace, pod) {
        (Some(namespace), Some(pod)) => Some((namespace.to_owned(), pod.to_owned())),
        (Some(_), None) => return Err(wrong(pod_field, "missing")),
        (None, Some(_)) => return Err(wrong(namespace_field, "missing")),
        (None, None) if ip.is_none() => {
            return Err(wrong(name, "expected ns and pod, or ip"));
        }
        (None, None) => None,
    };
    Ok(Wanted {
        pod,
        ip,
        node: None,
    })
}

#[cfg(test)]
mod tests;
