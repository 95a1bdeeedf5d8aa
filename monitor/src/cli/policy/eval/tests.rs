//! Lines in, lines out.

use std::io::{self, Write};

use monitor_core::netpol::Options;

use super::*;
use crate::kube::manifests::Manifests;

const MANIFESTS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: x, namespace: a}
status: {podIP: 10.1.0.1}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow-web, namespace: a}
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress: [{ports: [{port: 443}]}]
";

/// What is written, and how often it was shown so far.
#[derive(Default)]
struct Shown {
    text: Vec<u8>,
    flushes: usize,
}

impl Write for &mut Shown {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.flushes += 1;
        Ok(())
    }
}

/// One line at a time.
struct Lines<'a>(std::vec::IntoIter<&'a [u8]>);

impl Read for Lines<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let line = self.0.next().unwrap_or_default();
        buffer[..line.len()].copy_from_slice(line);
        Ok(line.len())
    }
}

fn declared() -> Declared {
    let (cluster, policies) = Manifests::parse("m", MANIFESTS).build(Options::default());
    Declared {
        cluster,
        policies,
        proposed: None,
        is_partial: false,
    }
}

fn judged(input: &str) -> (String, Result<(), String>) {
    let mut shown = Shown::default();
    let mut output = Output::to(&mut shown);
    let result = judge_lines("flows", input.as_bytes(), &mut declared(), &mut output);
    drop(output);
    let text = String::from_utf8(shown.text).unwrap();
    (text, result.map_err(|error| format!("{error:#}")))
}

#[test]
fn each_line_gets_a_line() {
    let input = r#"{"id":7,"src":{"ns":"a","pod":"x"},"dst":{"ip":"1.2.3.4"},"protocol":"TCP","port":443}

{"id":{"any":"thing"},"src":{"ns":"a","pod":"x"},"dst":{"ip":"1.2.3.4"},"protocol":"udp","port":443}
{"src":{"ip":"1.2.3.4"},"dst":{"ip":"10.1.0.1"},"port":1,"more":[]}
{"id":"icmp","src":{"ip":"10.1.0.1"},"dst":{"ip":"1.2.3.4"},"protocol":1}"#;
    let (text, result) = judged(input);
    assert_eq!(result, Ok(()));
    let expected = [
        r#"{"id":7,"allowed":true,"egress":{"allowed":true,"by":["NetworkPolicy a/allow-web"],"basis":"network-policy"},"ingress":{"allowed":true,"by":[],"basis":"no-pod"}}"#,
        r#"{"id":{"any":"thing"},"allowed":false,"egress":{"allowed":false,"by":["NetworkPolicy a/allow-web"],"basis":"network-policy"},"ingress":{"allowed":true,"by":[],"basis":"no-pod"}}"#,
        r#"{"allowed":true,"egress":{"allowed":true,"by":[],"basis":"no-pod"},"ingress":{"allowed":true,"by":[],"basis":"default"}}"#,
        r#"{"id":"icmp","egress":{"by":["NetworkPolicy a/allow-web"],"basis":"undecided","reason":"NetworkPolicy does not define what it means for ICMP"},"ingress":{"allowed":true,"by":[],"basis":"no-pod"},"reason":"NetworkPolicy does not define what it means for ICMP"}"#,
        "",
    ];
    assert_eq!(text.split('\n').collect::<Vec<_>>(), expected);
}

#[test]
fn a_bad_line_is_named_with_its_field_after_the_answers_so_far() {
    let good = r#"{"id":1,"src":{"ns":"a","pod":"x"},"dst":{"ip":"1.2.3.4"},"port":443}"#;
    for (bad, message) in [
        ("nonsense", "is no JSON object"),
        ("[]", "is no JSON object"),
        (r#"{"dst":{"ip":"1.2.3.4"},"port":1}"#, "field src: missing"),
        (
            r#"{"src":"a/x","dst":{"ip":"1.2.3.4"},"port":1}"#,
            "field src: expected an object",
        ),
        (
            r#"{"src":{},"dst":{"ip":"1.2.3.4"},"port":1}"#,
            "field src: expected ns and pod, or ip",
        ),
        (
            r#"{"src":{"ns":"a"},"dst":{"ip":"1.2.3.4"},"port":1}"#,
            "field src.pod: missing",
        ),
        (
            r#"{"src":{"pod":"x"},"dst":{"ip":"1.2.3.4"},"port":1}"#,
            "field src.ns: missing",
        ),
        (
            r#"{"src":{"ns":"a","pod":"y"},"dst":{"ip":"1.2.3.4"},"port":1}"#,
            "field src.pod: pod a/y is not in the manifests",
        ),
        (
            r#"{"src":{"ns":"a","pod":"x"},"dst":{"ip":"1.2.3"},"port":1}"#,
            "field dst.ip: `1.2.3` is no address",
        ),
        (
            r#"{"src":{"ns":"a","pod":"x"},"dst":{"ip":7},"port":1}"#,
            "field dst.ip: expected a string",
        ),
        (
            r#"{"src":{"ns":"a","pod":"x"},"dst":{"ip":"1.2.3.4"}}"#,
            "field port: missing",
        ),
        (
            r#"{"src":{"ns":"a","pod":"x"},"dst":{"ip":"1.2.3.4"},"port":0}"#,
            "field port: expected a number from 1 to 65535",
        ),
        (
            r#"{"src":{"ns":"a","pod":"x"},"dst":{"ip":"1.2.3.4"},"port":"80"}"#,
            "field port: expected a number",
        ),
        (
            r#"{"src":{"ns":"a","pod":"x"},"dst":{"ip":"1.2.3.4"},"port":1,"protocol":"TCPP"}"#,
            "field protocol: ",
        ),
        (
            r#"{"src":{"ns":"a","pod":"x"},"dst":{"ip":"1.2.3.4"},"port":1,"protocol":256}"#,
            "field protocol: ",
        ),
    ] {
        let (text, result) = judged(&format!("{good}\n\n{bad}\n{good}\n"));
        let error = result.expect_err(bad);
        assert!(error.starts_with("flows: line 3: "), "{error}");
        assert!(error.contains(message), "{bad}: {error}");
        assert_eq!(text.lines().count(), 1, "{bad}");
    }
    let long = format!("{{\"id\":\"{}\"", "x".repeat(MAX_LINE));
    let (_, result) = judged(&long);
    assert!(result.expect_err("long").contains("line 1: is longer than"));
}

#[test]
fn who_waits_for_an_answer_gets_it() {
    let line = b"{\"src\":{\"ip\":\"1.2.3.4\"},\"dst\":{\"ip\":\"10.1.0.1\"},\"port\":1}\n";
    let input = Lines(vec![&line[..]; 3].into_iter());
    let mut shown = Shown::default();
    let mut output = Output::to(&mut shown);
    judge_lines("flows", input, &mut declared(), &mut output).unwrap();
    drop(output);
    // After each line, and at the end.
    assert!(shown.flushes >= 4, "{}", shown.flushes);
}
