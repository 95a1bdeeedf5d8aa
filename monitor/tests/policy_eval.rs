//! `nodewatch policy eval` against an evaluator that shares nothing with it: no code and no types.
//!
//! Random manifests go to the program as text, random flows as lines; what it prints is compared
//! with what [`policy_eval::simple`] makes of the same JSON, by the numbered rules of
//! `docs/networkpolicy.md`, read field by field from the objects for each question anew.
//!
//! A million verdicts: `cargo xtask figures policy`.

mod policy_eval {
    mod ports;
    pub(crate) mod random;
    pub(crate) mod simple;
}

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    process::{Command, Stdio},
};

use policy_eval::{random::Random, simple};
use serde_json::Value;

/// Verdicts to compare.
const VERDICTS: u64 = if cfg!(debug_assertions) {
    40_000
} else {
    1_200_000
};
/// Questions about one cluster.
const QUESTIONS: usize = 2_000;
/// Where the random numbers begin.
const SEED: u64 = 20_261_128;

/// How many of what was compared, by a word for it.
type Tally = BTreeMap<String, u64>;

/// What the program prints for these flows.
fn judged(directory: &std::path::Path, manifests: &str, flows: &str, blocks: bool) -> Vec<Value> {
    let [objects, lines] = ["m.yaml", "flows.jsonl"].map(|name| directory.join(name));
    fs::write(&objects, manifests).expect("a file");
    fs::write(&lines, flows).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodewatch"));
    command
        .args(["policy", "eval", "--manifests"])
        .arg(&objects)
        .arg("--flows")
        .arg(&lines)
        .arg(format!("--ip-block-matches-pods={blocks}"))
        .stdin(Stdio::null());
    let output = command.output().expect("the program runs");
    let complaints = String::from_utf8_lossy(&output.stderr);
    // Rules that match nothing are told of; nothing is left out.
    assert!(output.status.success(), "{complaints}\n{manifests}");
    let text = String::from_utf8(output.stdout).expect("a text");
    let parse = |line| serde_json::from_str(line).expect("JSON");
    text.lines().map(parse).collect()
}

fn names(part: &Value) -> Vec<&str> {
    let list = part["by"].as_array().expect("a list");
    let mut names: Vec<_> = list.iter().filter_map(Value::as_str).collect();
    names.sort_unstable();
    names
}

/// Compares one direction, and says what it was about.
fn compare(part: &Value, expected: &simple::Part, context: &dyn Fn() -> String) -> &'static str {
    let allowed = part["allowed"].as_bool();
    assert_eq!(allowed, expected.allowed, "{}", context());
    let told = names(part);
    match allowed {
        // One of the policies that allow, or each: network plugins differ in some of them.
        Some(true) if expected.is_by_namespaced => {
            let all = told
                .iter()
                .all(|name| expected.by.iter().any(|by| by == name));
            assert!(all && !told.is_empty(), "{told:?} {}", context());
        }
        Some(_) => assert_eq!(told, expected.by, "{}", context()),
        None => assert!(part["reason"].is_string(), "{}", context()),
    }
    expected.basis
}

#[test]
fn random_verdicts_are_those_of_a_simple_evaluator() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut tally = Tally::new();
    let (mut verdicts, mut seed) = (0, SEED);
    while verdicts < VERDICTS {
        seed += 1;
        let mut random = Random(seed);
        let objects = random.objects();
        let blocks = !random.once_in(3);
        let flows: Vec<Value> = (0..QUESTIONS).map(|_| random.flow(&objects)).collect();
        let mut text = String::new();
        for object in &objects {
            let _ = writeln!(text, "---\n{object}");
        }
        let lines: Vec<String> = flows.iter().map(|flow| format!("{flow}\n")).collect();
        let told = judged(directory.path(), &text, &lines.concat(), blocks);
        assert_eq!(told.len(), flows.len(), "seed {seed}");
        let world = simple::World::new(&objects, blocks);
        for (flow, told) in flows.iter().zip(&told) {
            assert_eq!(told["id"], flow["id"]);
            let expected = world.judge(flow);
            let context = || format!("seed {seed}: {flow}\n{told:#}\n{expected:#?}\n{text}");
            for (direction, expected) in [("egress", &expected[0]), ("ingress", &expected[1])] {
                let basis = compare(&told[direction], expected, &context);
                *tally.entry(basis.to_owned()).or_default() += 1;
                if expected.basis == told[direction]["basis"] {
                    continue;
                }
                panic!("{}", context());
            }
            let parts = [expected[0].allowed, expected[1].allowed];
            let allowed = match parts {
                [Some(false), _] | [_, Some(false)] => Some(false),
                [Some(true), Some(true)] => Some(true),
                _ => None,
            };
            assert_eq!(told["allowed"].as_bool(), allowed, "{}", context());
            let word = match allowed {
                Some(true) => "allowed",
                Some(false) => "denied",
                None => "untold",
            };
            *tally.entry(word.to_owned()).or_default() += 1;
            for (word, is_so) in simple::traits(flow, &expected) {
                *tally.entry(word.to_owned()).or_default() += u64::from(is_so);
            }
            verdicts += 1;
        }
        for word in random.features(&objects) {
            *tally.entry(format!("clusters with {word}")).or_default() += 1;
        }
    }
    println!(
        "{verdicts} verdicts, {} clusters, 0 differences: {tally:#?}",
        seed - SEED
    );
    // The comparison means nothing if it is about nothing.
    for basis in [
        "admin",
        "network-policy",
        "baseline",
        "default",
        "own-node",
        "itself",
        "no-pod",
    ] {
        let count = tally.get(basis).copied().unwrap_or(0);
        assert!(count > VERDICTS / 200, "{basis}: {count}");
    }
    for word in ["allowed", "denied", "IPv6", "SCTP", "UDP"] {
        let count = tally.get(word).copied().unwrap_or(0);
        assert!(count > VERDICTS / 20, "{word}: {count}");
    }
    for word in policy_eval::random::FEATURES {
        let key = format!("clusters with {word}");
        let count = tally.get(&key).copied().unwrap_or(0);
        let clusters = seed - SEED;
        assert!(count * 20 >= clusters, "{key}: {count} of {clusters}");
    }
}
