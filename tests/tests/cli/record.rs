//! What a flow record has to look like.

use std::net::IpAddr;

use serde_json::Value;

pub(crate) fn has_port(record: &Value, port: u16) -> bool {
    ["source", "destination"]
        .iter()
        .any(|end| record[end]["port"] == port)
}

pub(crate) fn has_address(record: &Value, holds: impl Fn(&str) -> bool) -> bool {
    let mut ends = ["source", "destination"].iter();
    ends.any(|end| record[end]["ip"].as_str().is_some_and(&holds))
}

/// What every flow record has.
pub(crate) fn check_record(record: &Value) {
    assert_eq!(record["type"], "flow", "{record:#}");
    assert_eq!(record["version"], 1, "{record:#}");
    for time in ["time", "start", "end"] {
        let text = record[time].as_str().unwrap_or_default();
        let good = text.len() == "2026-01-01T00:00:00.000000000Z".len() && text.ends_with('Z');
        assert!(good, "{time} is no time in nanoseconds: {record:#}");
    }
    for (field, words) in [
        ("point", ["uplink", "workload"].as_slice()),
        ("local", &["source", "destination"]),
        ("initiator", &["source", "unknown"]),
        (
            "outcome",
            &[
                "established",
                "refused",
                "unanswered",
                "reset",
                "one-way",
                "midstream",
            ],
        ),
    ] {
        let word = record[field].as_str().unwrap_or_default();
        assert!(words.contains(&word), "{field} is {word:?}: {record:#}");
    }
    for end in ["source", "destination"] {
        assert!(
            record[end]["ip"]
                .as_str()
                .is_some_and(|ip| ip.parse::<IpAddr>().is_ok()),
            "{record:#}"
        );
        let kind = record[end]["kind"].as_str().unwrap_or_default();
        let kinds = ["pod", "node", "service", "range", "internet", "unknown"];
        assert!(kinds.contains(&kind), "{end} is a {kind:?}: {record:#}");
    }
    for side in ["forward", "reverse"] {
        for unit in ["packets", "bytes"] {
            assert!(record[side][unit].is_u64(), "{side} {unit}: {record:#}");
        }
    }
    no_empty_strings(record, record);
}

/// Unknown values are absent, never empty strings.
fn no_empty_strings(value: &Value, record: &Value) {
    match value {
        Value::String(text) => assert!(!text.is_empty(), "an empty string in {record:#}"),
        Value::Object(fields) => fields
            .values()
            .for_each(|value| no_empty_strings(value, record)),
        Value::Array(items) => items
            .iter()
            .for_each(|value| no_empty_strings(value, record)),
        _ => {}
    }
}
