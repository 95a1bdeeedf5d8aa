//! Time that runs faster: what Prometheus reads, with every duration divided by one number.
//!
//! The alerts that are shipped look back a quarter of an hour. Nobody waits as long for a demonstration, and other
//! rules would show nothing of these: so they stay as they are, and only their durations become shorter.

use anyhow::{Context, Result, ensure};

/// Units of durations in Prometheus' words, the longest first, in milliseconds.
const UNITS: [(&str, u64); 7] = [
    ("ms", 1),
    ("y", 365 * 86_400_000),
    ("w", 7 * 86_400_000),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
];

/// The text of a configuration or of rules with all durations divided by `factor`; nothing else is changed. An
/// error names a duration that is no whole number of milliseconds then.
pub fn hurry(text: &str, factor: u64) -> Result<String> {
    let mut hurried = String::with_capacity(text.len());
    for (word, is_word) in words(text) {
        if is_word && word.split(':').all(|part| milliseconds(part).is_some()) {
            let parts = word.split(':').map(|part| divided(part, factor));
            hurried.push_str(&parts.collect::<Result<Vec<_>>>()?.join(":"));
        } else {
            hurried.push_str(word);
        }
    }
    Ok(hurried)
}

/// Splits a text into words and what is between them. A name with a duration in it, as those of recording rules
/// have, is one word.
fn words(text: &str) -> impl Iterator<Item = (&str, bool)> {
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '_' | ':' | '.' | '-');
    let mut rest = text;
    std::iter::from_fn(move || {
        let is_word = is_part(rest.chars().next()?);
        let end = rest.find(|c| is_part(c) != is_word).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        rest = after;
        // A key of YAML ends with what a name may have within it.
        match word.strip_suffix(':') {
            Some(key) if is_word && !key.is_empty() => {
                rest = &text[text.len() - rest.len() - 1..];
                Some((key, true))
            }
            _ => Some((word, is_word)),
        }
    })
}

fn divided(duration: &str, factor: u64) -> Result<String> {
    let whole = milliseconds(duration).context("no duration")?;
    ensure!(
        factor > 0 && whole.is_multiple_of(factor),
        "{duration} cannot be divided by {factor}"
    );
    let short = whole / factor;
    Ok(if short.is_multiple_of(1_000) {
        format!("{}s", short / 1_000)
    } else {
        format!("{short}ms")
    })
}

/// How long a duration is; none for what is no duration.
fn milliseconds(word: &str) -> Option<u64> {
    let mut sum = 0_u64;
    let mut rest = word;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let (number, after) = rest.split_at(digits);
        let number: u64 = number.parse().ok()?;
        let of_unit = |(unit, size): &(&str, u64)| Some((after.strip_prefix(unit)?, *size));
        let (after, size) = UNITS.iter().find_map(of_unit)?;
        sum = sum.checked_add(number.checked_mul(size)?)?;
        rest = after;
    }
    (!word.is_empty()).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deploy::{files, read};

    #[test]
    fn durations_are_told_from_names() {
        for (word, expected) in [
            ("30s", Some(30_000)),
            ("1h30m", Some(5_400_000)),
            ("500ms", Some(500)),
            ("1d", Some(86_400_000)),
            ("15", None),
            ("", None),
            ("m", None),
            ("increase15m", None),
            ("15minutes", None),
            ("99999999999999999y", None),
        ] {
            assert_eq!(milliseconds(word), expected, "{word}");
        }
    }

    #[test]
    fn only_durations_are_changed() {
        let rule = "- record: a:b:increase15m\n  expr: rate(x{y=\"5m-z\"}[5m]) > 15 offset 15m\n  \
                    for: 1h30m # of 15 minutes\n  interval: 30s\n";
        let expected = "- record: a:b:increase15m\n  expr: rate(x{y=\"5m-z\"}[10s]) > 15 offset 30s\n  \
                        for: 180s # of 15 minutes\n  interval: 1s\n";
        assert_eq!(hurry(rule, 30).expect("it can be divided"), expected);
        assert_eq!(hurry("[1h:30s]", 60).expect("a subquery"), "[60s:500ms]");
        let error = hurry("for: 1s", 3).expect_err("a third of a second");
        assert!(error.to_string().contains("1s"), "{error}");
        assert!(hurry("for: 1s", 0).is_err());
    }

    #[test]
    fn what_is_shipped_keeps_all_but_its_durations() {
        let mut texts = files("deploy/prometheus", ".rules.yml").expect("rules");
        texts.push("deploy/prometheus/prometheus.yml".to_owned());
        let mut changed = 0;
        for file in texts {
            let text = read(&file).expect("a file");
            let quick = hurry(&text, 30).expect("it can be divided");
            let (before, after): (Vec<_>, Vec<_>) =
                (words(&text).collect(), words(&quick).collect());
            assert_eq!(before.len(), after.len(), "{file}");
            for ((before, _), (after, _)) in before.into_iter().zip(after) {
                match milliseconds(before) {
                    Some(whole) => assert_eq!(milliseconds(after), Some(whole / 30), "{before}"),
                    None => assert_eq!(before, after, "{file}"),
                }
                changed += u32::from(before != after);
            }
        }
        // Every `for`, `offset`, range and interval.
        assert!(changed > 25, "{changed}");
    }
}
