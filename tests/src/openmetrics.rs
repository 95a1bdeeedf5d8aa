//! A strict reader of the OpenMetrics text format: what it accepts, any scraper accepts.

pub mod promtool;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};

/// A whole exposition.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Types by family name.
    pub types: BTreeMap<String, String>,
    /// Every sample in order.
    pub samples: Vec<Sample>,
}

/// One line with a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The name, suffix included.
    pub name: String,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

/// Name endings that a sample of a type may add to its family's name.
const SUFFIXES: [(&str, &[&str]); 8] = [
    ("counter", &["_total", "_created"]),
    ("gauge", &[""]),
    ("histogram", &["_bucket", "_count", "_sum", "_created"]),
    ("gaugehistogram", &["_bucket", "_gcount", "_gsum"]),
    ("summary", &["", "_count", "_sum", "_created"]),
    ("info", &["_info"]),
    ("stateset", &[""]),
    ("unknown", &[""]),
];

// === impl Metrics ===

impl Metrics {
    /// Reads an exposition; the error names the line.
    pub fn parse(text: &str) -> Result<Self> {
        let body = text
            .strip_suffix("# EOF\n")
            .or_else(|| text.strip_suffix("# EOF"));
        let body = body.context("the text does not end with # EOF")?;
        ensure!(
            body.is_empty() || body.ends_with('\n'),
            "# EOF is not on a line of its own"
        );
        let mut reader = Reader::default();
        for (index, line) in body.lines().enumerate() {
            reader
                .line(line)
                .with_context(|| format!("line {}: {line}", index + 1))?;
        }
        Ok(reader.metrics)
    }

    /// The samples of a name whose labels include these.
    pub fn select<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&str, &str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.samples
            .iter()
            .filter(move |sample| sample.name == name && sample.has(labels))
    }

    /// The sum over [`Metrics::select`]; zero if there is none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.select(name, labels).map(|sample| sample.value).sum()
    }

    /// Like [`Metrics::sum`], for counters: a whole number.
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let sum = self.sum(name, labels);
        assert!(
            sum >= 0.0 && sum.fract() == 0.0,
            "{name}{labels:?} is no count: {sum}"
        );
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number, not negative, and far below 2^53"
        )]
        let count = sum as u64;
        count
    }

    /// Whether there is a sample of that name.
    pub fn has(&self, name: &str) -> bool {
        self.samples.iter().any(|sample| sample.name == name)
    }

    /// The values that a label takes in the samples of a name.
    pub fn label_values(&self, name: &str, label: &str) -> BTreeSet<String> {
        let samples = self.samples.iter().filter(|sample| sample.name == name);
        samples
            .filter_map(|sample| sample.labels.get(label).cloned())
            .collect()
    }
}

// === impl Sample ===

impl Sample {
    /// Whether the labels include these.
    pub fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels
            .iter()
            .all(|(name, value)| self.labels.get(*name).is_some_and(|own| own == value))
    }
}

impl std::fmt::Display for Sample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let labels: Vec<_> = self
            .labels
            .iter()
            .map(|(name, value)| format!("{name}={value:?}"))
            .collect();
        write!(f, "{}{{{}}} {}", self.name, labels.join(","), self.value)
    }
}

// === impl Reader ===

#[derive(Default)]
struct Reader {
    metrics: Metrics,
    family: Option<(String, String)>,
    finished: BTreeSet<String>,
    described: BTreeSet<(String, String)>,
    seen: BTreeSet<(String, Vec<(String, String)>)>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<()> {
        if let Some(comment) = line.strip_prefix('#') {
            return self.comment(comment.strip_prefix(' ').context("no blank after #")?);
        }
        let sample = sample(line)?;
        let (family, kind) = self.family.as_ref().context("a sample before any # TYPE")?;
        let suffixes = SUFFIXES
            .iter()
            .find(|(name, _)| name == kind)
            .map(|(_, s)| *s);
        let suffix = sample.name.strip_prefix(family.as_str());
        ensure!(
            suffix.is_some_and(|suffix| suffixes.unwrap_or_default().contains(&suffix)),
            "{} is no sample name of the {kind} {family}",
            sample.name
        );
        ensure!(
            kind != "counter" || sample.value >= 0.0,
            "a counter below zero or not a number"
        );
        let key: Vec<_> = sample.labels.clone().into_iter().collect();
        ensure!(
            self.seen.insert((sample.name.clone(), key)),
            "the same series twice"
        );
        self.metrics.samples.push(sample);
        Ok(())
    }

    fn comment(&mut self, comment: &str) -> Result<()> {
        let (keyword, rest) = comment.split_once(' ').context("not TYPE, HELP or UNIT")?;
        let (name, value) = rest.split_once(' ').unwrap_or((rest, ""));
        ensure!(is_name(name, true), "{name:?} is no metric name");
        ensure!(
            self.described.insert((keyword.to_owned(), name.to_owned())),
            "{keyword} of {name} twice"
        );
        let current = self
            .family
            .as_ref()
            .is_some_and(|(family, _)| family == name);
        if !current {
            ensure!(
                !self.finished.contains(name),
                "{name} continues after another family"
            );
            self.finished.insert(name.to_owned());
            self.family = Some((name.to_owned(), "unknown".to_owned()));
        }
        let samples_came = self
            .metrics
            .samples
            .last()
            .is_some_and(|sample| current && sample.name.starts_with(name));
        ensure!(!samples_came, "{keyword} of {name} after its samples");
        match keyword {
            "TYPE" => {
                ensure!(
                    SUFFIXES.iter().any(|(kind, _)| *kind == value),
                    "unknown type {value:?}"
                );
                self.family = Some((name.to_owned(), value.to_owned()));
                self.metrics.types.insert(name.to_owned(), value.to_owned());
            }
            "HELP" => drop(unescape(value)?),
            "UNIT" => ensure!(
                value.is_empty() || name.ends_with(&format!("_{value}")),
                "{name} does not end with its unit {value}"
            ),
            _ => bail!("not TYPE, HELP or UNIT: {keyword}"),
        }
        Ok(())
    }
}

fn sample(line: &str) -> Result<Sample> {
    let end = line.find(['{', ' ']).context("no value")?;
    let (name, mut rest) = line.split_at(end);
    ensure!(is_name(name, true), "{name:?} is no metric name");
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = read_labels(inside, &mut labels)?;
    }
    let rest = rest
        .strip_prefix(' ')
        .context("no blank before the value")?;
    let mut words = rest.split(' ');
    let value = number(words.next().unwrap_or_default())?;
    if let Some(timestamp) = words.next() {
        number(timestamp).context("in the timestamp")?;
    }
    ensure!(words.next().is_none(), "something follows the value");
    Ok(Sample {
        name: name.to_owned(),
        labels,
        value,
    })
}

/// Reads `name="value",…}` and returns what follows.
fn read_labels<'a>(mut text: &'a str, labels: &mut BTreeMap<String, String>) -> Result<&'a str> {
    if let Some(rest) = text.strip_prefix('}') {
        return Ok(rest);
    }
    loop {
        let (name, rest) = text
            .split_once("=\"")
            .context("a label without a quoted value")?;
        ensure!(is_name(name, false), "{name:?} is no label name");
        let mut escaped = false;
        let end = rest.char_indices().find_map(|(index, character)| {
            let closing = character == '"' && !escaped;
            escaped = character == '\\' && !escaped;
            closing.then_some(index)
        });
        let end = end.with_context(|| format!("the value of {name} is not closed"))?;
        let value = unescape(&rest[..end])?;
        ensure!(
            labels.insert(name.to_owned(), value).is_none(),
            "label {name} twice"
        );
        let rest = &rest[end + 1..];
        match rest.strip_prefix(',') {
            Some(next) => text = next,
            None => return rest.strip_prefix('}').context("no closing brace"),
        }
    }
}

fn unescape(text: &str) -> Result<String> {
    let mut out = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            out.push(character);
            continue;
        }
        out.push(match characters.next() {
            Some('n') => '\n',
            Some(other @ ('\\' | '"')) => other,
            other => bail!(
                "no such escape: \\{}",
                other.map_or(String::new(), String::from)
            ),
        });
    }
    Ok(out)
}

fn number(text: &str) -> Result<f64> {
    let plain = text
        .bytes()
        .all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'+' | b'-' | b'e' | b'E'));
    ensure!(
        !text.is_empty() && (plain || matches!(text, "NaN" | "+Inf" | "-Inf")),
        "{text:?} is no number"
    );
    text.parse()
        .with_context(|| format!("{text:?} is no number"))
}

fn is_name(text: &str, metric: bool) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || metric && byte == b':';
    text.bytes()
        .next()
        .is_some_and(|byte| !byte.is_ascii_digit())
        && text.bytes().all(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "# HELP a_bytes What \\\\ it is.\n# TYPE a_bytes counter\n# UNIT a_bytes bytes\n\
        a_bytes_total{x=\"1\",y=\"q\\\"\\\\,}\\n\"} 17\na_bytes_total{x=\"2\"} 3.5e2 123.4\n\
        # TYPE g gauge\ng{} -1\n# EOF\n";

    #[test]
    fn reads_what_is_right() {
        let metrics = Metrics::parse(GOOD).expect("it is right");
        assert_eq!(metrics.types["a_bytes"], "counter");
        assert_eq!(metrics.samples[0].labels["y"], "q\"\\,}\n");
        assert_eq!(metrics.count("a_bytes_total", &[]), 367);
        assert_eq!(metrics.count("a_bytes_total", &[("x", "2")]), 350);
        assert_eq!(metrics.count("a_bytes_total", &[("x", "3")]), 0);
        assert!((metrics.sum("g", &[]) + 1.0).abs() < f64::EPSILON);
        assert_eq!(metrics.label_values("a_bytes_total", "x").len(), 2);
    }

    #[test]
    fn refuses_what_is_wrong() {
        for (what, body) in [
            ("no type", "a_total 1\n"),
            ("counter without _total", "# TYPE a counter\na 1\n"),
            ("family of another name", "# TYPE a counter\nb_total 1\n"),
            (
                "same series twice",
                "# TYPE a gauge\na{x=\"1\"} 1\na{x=\"1\"} 2\n",
            ),
            (
                "interleaved",
                "# TYPE a gauge\na 1\n# TYPE b gauge\nb 1\n# HELP a x\n",
            ),
            (
                "metadata after samples",
                "# TYPE a gauge\na 1\n# HELP a x\n",
            ),
            ("type twice", "# TYPE a gauge\n# TYPE a gauge\na 1\n"),
            ("raw quote", "# TYPE a gauge\na{x=\"\"\"} 1\n"),
            ("bad escape", "# TYPE a gauge\na{x=\"\\t\"} 1\n"),
            ("label twice", "# TYPE a gauge\na{x=\"1\",x=\"2\"} 1\n"),
            ("label name", "# TYPE a gauge\na{1x=\"1\"} 1\n"),
            ("not closed", "# TYPE a gauge\na{x=\"1} 1\n"),
            ("no value", "# TYPE a gauge\na\n"),
            ("word as value", "# TYPE a gauge\na one\n"),
            ("rust's infinity", "# TYPE a gauge\na inf\n"),
            ("negative counter", "# TYPE a counter\na_total -1\n"),
            ("unit", "# TYPE a counter\n# UNIT a bytes\na_total 1\n"),
            ("type", "# TYPE a number\na 1\n"),
            ("empty line", "# TYPE a gauge\n\na 1\n"),
        ] {
            let text = format!("{body}# EOF\n");
            assert!(Metrics::parse(&text).is_err(), "accepted: {what}");
        }
        assert!(
            Metrics::parse("# TYPE a gauge\na 1\n").is_err(),
            "accepted: no EOF"
        );
        assert!(
            Metrics::parse(&format!("{GOOD}x 1\n")).is_err(),
            "accepted: text after EOF"
        );
    }
}
