//! Rules about Rust code: where `unsafe` may be, what the core and the daemon may not call.

use crate::tidy::Finding;
use crate::tidy::masked::{Masked, has_word};

/// Where `unsafe` may be: files that begin so.
const UNSAFE_PLACES: [&str; 8] = [
    "monitor-ebpf/src/",
    "monitor-ebpf/common/src/abi",
    "monitor-ebpf/common/src/packet",
    "monitor/src/runtime/memory.rs",
    "monitor/src/source/ebpf.rs",
    "monitor/src/source/ebpf/",
    "monitor/tests/",
    "tests/",
];
/// How far above a block its reason may stand.
const REASON_WITHIN: usize = 8;

/// What the core never uses: it gets inputs and the time as arguments.
const NOT_IN_CORE: [&str; 17] = [
    "tokio::",
    "aya::",
    "kube::",
    "k8s_openapi::",
    "libc::",
    "std::fs",
    "std::env",
    "std::process",
    "std::thread",
    "std::os",
    "std::io::stdin",
    "std::io::stdout",
    "TcpStream",
    "TcpListener",
    "UdpSocket",
    "SystemTime::now",
    "Instant::now",
];
/// Modules of std that the core must not name inside braces either.
const NOT_FROM_STD: [&str; 5] = ["fs", "env", "process", "thread", "os"];

/// Rules about the code of a file.
pub(crate) fn check(path: &str, text: &str) -> Vec<Finding> {
    let masked = Masked::new(text);
    let mut findings = unsafe_places(path, &masked);
    findings.extend(unsafe_reasons(path, &masked));
    if path.starts_with("monitor/core/src/") {
        findings.extend(pure_core(path, &masked));
    }
    if path.starts_with("monitor/src/") && !path.starts_with("monitor/src/source/ebpf") {
        findings.extend(blocking(path, &masked));
    }
    findings
}

fn unsafe_places(path: &str, masked: &Masked) -> Vec<Finding> {
    if UNSAFE_PLACES.iter().any(|place| path.starts_with(place)) {
        return Vec::new();
    }
    lines(&masked.code, |line| has_word(line, "unsafe"))
        .map(|line| {
            Finding::new(
                path,
                line,
                "unsafe is not allowed here (see ARCHITECTURE.md)",
            )
        })
        .collect()
}

/// Every unsafe block and implementation says why it is sound. Clippy checks this too, but cannot be run
/// for the kernel program everywhere.
fn unsafe_reasons(path: &str, masked: &Masked) -> Vec<Finding> {
    let comments: Vec<&str> = masked.comments.lines().collect();
    let code: Vec<&str> = masked.code.lines().collect();
    let has_reason = |index: usize| {
        let above = (index.saturating_sub(REASON_WITHIN)..index).rev();
        let block =
            above.take_while(|&at| !code[at].trim().is_empty() || !comments[at].trim().is_empty());
        std::iter::once(index)
            .chain(block)
            .any(|at| comments[at].contains("SAFETY:"))
    };
    lines(&masked.code, |line| {
        has_word(line, "unsafe") && (line.contains("unsafe {") || line.contains("unsafe impl"))
    })
    .filter(|line| !has_reason(line - 1))
    .map(|line| Finding::new(path, line, "unsafe without a // SAFETY: comment"))
    .collect()
}

fn pure_core(path: &str, masked: &Masked) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in NOT_IN_CORE {
        let (first, last) = (name.trim_end_matches("::"), name.ends_with("::"));
        findings.extend(
            lines(&masked.code, |line| {
                has_word(line, first) && (!last || line.contains(name))
            })
            .map(|line| Finding::new(path, line, format!("monitor-core must not use {first}"))),
        );
    }
    for (start, _) in masked.code.match_indices("std::{") {
        let line = masked.code[..start].lines().count().max(1);
        for name in braced(&masked.code[start + "std::{".len()..]) {
            if NOT_FROM_STD.contains(&name) {
                let message = format!("monitor-core must not use std::{name}");
                findings.push(Finding::new(path, line, message));
            }
        }
    }
    findings
}

/// First names of a brace list of imports, up to its closing brace.
fn braced(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let mut start = 0;
    let mut names = Vec::new();
    for (at, character) in text.char_indices() {
        let ends_name = depth == 0 && matches!(character, ',' | '}');
        if ends_name {
            names.push(
                text[start..at]
                    .split("::")
                    .next()
                    .unwrap_or_default()
                    .trim(),
            );
            start = at + 1;
        }
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            _ => {}
        }
    }
    names
}

/// The daemon's tasks must not block a thread of the runtime. The loader runs before there is one.
fn blocking(path: &str, masked: &Masked) -> Vec<Finding> {
    lines(&masked.code, |line| line.contains("thread::sleep"))
        .map(|line| {
            Finding::new(
                path,
                line,
                "blocks a thread of the runtime: use tokio::time::sleep",
            )
        })
        .collect()
}

fn lines(text: &str, wanted: impl Fn(&str) -> bool) -> impl Iterator<Item = usize> {
    text.lines()
        .enumerate()
        .filter(move |(_, line)| wanted(line))
        .map(|(index, _)| index + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(path: &str, text: &str) -> Vec<String> {
        check(path, text)
            .into_iter()
            .map(|finding| finding.message)
            .collect()
    }

    #[test]
    fn unsafe_only_where_it_belongs() {
        let block = "// SAFETY: checked above\nlet a = unsafe { b() };";
        assert_eq!(messages("monitor/src/cli.rs", block).len(), 1);
        assert_eq!(messages("monitor/core/src/flow.rs", block).len(), 1);
        assert_eq!(messages("monitor-ebpf/common/src/parse.rs", block).len(), 1);
        assert_eq!(messages("monitor/build.rs", block).len(), 1);
        for place in [
            "monitor-ebpf/src/main.rs",
            "monitor/src/source/ebpf/batch.rs",
            "tests/src/lib.rs",
        ] {
            assert_eq!(messages(place, block), [""; 0], "{place}");
        }
        assert_eq!(
            messages("monitor/core/src/lib.rs", "#![forbid(unsafe_code)]"),
            [""; 0]
        );
    }

    #[test]
    fn unsafe_needs_a_reason() {
        let path = "monitor-ebpf/src/main.rs";
        assert_eq!(messages(path, "let a = unsafe { b() };").len(), 1);
        assert_eq!(
            messages(path, "// SAFETY: far away\n\nunsafe impl Send for A {}").len(),
            1
        );
        let reason = "// SAFETY: the pointer\n// is valid\nlet a =\n    unsafe { b() };";
        assert_eq!(messages(path, reason), [""; 0]);
        assert_eq!(
            messages(path, "/// # Safety\n/// x\nunsafe fn a() {}"),
            [""; 0]
        );
    }

    #[test]
    fn the_core_does_no_input_and_output() {
        let path = "monitor/core/src/engine.rs";
        let broken = [
            "use std::fs;",
            "use std::{collections::HashMap, fs::{self, File}};",
            "use std::{\n    env,\n    fmt,\n};",
            "let now = std::time::Instant::now();",
            "let now = SystemTime::now();",
            "tokio::spawn(x);",
            "use std::net::TcpStream;",
            "use aya::maps::HashMap;",
        ];
        for text in broken {
            assert!(!messages(path, text).is_empty(), "{text}");
            assert_eq!(messages("monitor/src/x.rs", text), [""; 0], "{text}");
        }
        let fine = "use std::{fmt, net::IpAddr, time::Duration};\n// std::fs is not used here\n";
        assert_eq!(messages(path, fine), [""; 0]);
    }

    #[test]
    fn the_daemon_does_not_block() {
        assert_eq!(
            messages("monitor/src/runtime.rs", "std::thread::sleep(second);").len(),
            1
        );
        assert_eq!(
            messages("tests/src/lab.rs", "std::thread::sleep(second);"),
            [""; 0]
        );
    }
}
