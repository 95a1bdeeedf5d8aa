//! The event log: findings and SSH connections as JSON lines, on standard output or in a file that is
//! rotated.
//!
//! A finding of one kind may come a thousand times a second. Of each kind the first [`FIRST`] of a minute
//! are written; the rest is counted, and told at the minute's end.

mod rotated;

use std::{
    collections::BTreeMap,
    io,
    io::Write as _,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use monitor_core::{
    event::{FindingKind, Record, VERSION},
    time::Timestamp,
};
use serde::Serialize;
use tokio::sync::broadcast::{
    Receiver,
    error::{RecvError, TryRecvError},
};

use crate::runtime::EngineHandle;

use rotated::Rotated;

/// Findings of one kind that are written in a minute.
const FIRST: u32 = 20;
/// The window of that limit.
const WINDOW: Duration = Duration::from_mins(1);
/// Records that are written at a time.
const BATCH: usize = 256;
/// How often the limits are looked at.
const TICK: Duration = Duration::from_secs(1);

/// The event log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("--event-log: cannot open {}: {source}", path.display())]
pub struct OpenError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Writes records.
#[derive(Debug)]
pub struct EventLog {
    output: Output,
    limits: BTreeMap<&'static str, Limit>,
    /// Records that could not be written since that was last taken.
    failed: u64,
    /// Those since the last warning.
    untold: u64,
}

#[derive(Debug)]
enum Output {
    Standard,
    File(Rotated),
}

/// Findings of one kind in the current minute.
#[derive(Debug)]
struct Limit {
    kind: FindingKind,
    start: Timestamp,
    written: u32,
    suppressed: u64,
}

/// Tells of findings that were not written.
#[derive(Debug, Serialize)]
struct Suppressed {
    r#type: &'static str,
    version: u32,
    time: Timestamp,
    finding: FindingKind,
    since: Timestamp,
    count: u64,
}

/// Writes what the engine tells until `ended` is done and all of it is written.
pub async fn serve(
    mut log: EventLog,
    handle: EngineHandle,
    mut records: Receiver<Arc<Record>>,
    ended: impl Future<Output = ()>,
) {
    let mut ended = pin!(ended);
    let mut is_last = false;
    loop {
        let mut batch = Vec::new();
        tokio::select! {
            biased;
            received = records.recv() => match received {
                Ok(record) => batch.push(record),
                Err(RecvError::Lagged(lost)) => handle.lost_by_follower(lost),
                Err(RecvError::Closed) => is_last = true,
            },
            () = &mut ended, if !is_last => is_last = true,
            () = tokio::time::sleep(TICK) => {}
        }
        while batch.len() < BATCH {
            match records.try_recv() {
                Ok(record) => batch.push(record),
                Err(TryRecvError::Lagged(lost)) => handle.lost_by_follower(lost),
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        let is_done = is_last && batch.len() < BATCH;
        let written = tokio::task::spawn_blocking(move || {
            for record in &batch {
                log.write(record);
            }
            if is_done {
                log.finish(now());
            } else {
                log.tick(now());
            }
            log
        });
        match written.await {
            Ok(mut back) => {
                handle.lost_by_log(back.take_failed());
                if is_done {
                    return;
                }
                log = back;
            }
            // A panic aborts; what is left is that the runtime stops.
            Err(_) => return,
        }
    }
}

// === impl EventLog ===

impl EventLog {
    /// Opens a file to append to, rotated at `most` bytes; `-` is standard output.
    pub fn open(path: &Path, most: u64) -> Result<Self, OpenError> {
        let output = if path == Path::new("-") {
            Output::Standard
        } else {
            let opened = Rotated::open(path, most);
            Output::File(opened.map_err(|source| OpenError {
                path: path.to_owned(),
                source,
            })?)
        };
        Ok(Self {
            output,
            limits: BTreeMap::new(),
            failed: 0,
            untold: 0,
        })
    }

    /// Writes a finding or an SSH connection; other records are not for this log.
    fn write(&mut self, record: &Record) {
        match record {
            Record::Ssh(_) => self.line(record),
            Record::Finding(finding) => {
                if self.may_write(finding.finding, finding.time) {
                    self.line(record);
                }
            }
            Record::Flow(_) | Record::Summary(_) => {}
        }
    }

    /// Ends minutes that are over.
    fn tick(&mut self, now: Timestamp) {
        self.close(now, |limit| now.saturating_since(limit.start) >= WINDOW);
    }

    /// Ends every minute.
    fn finish(&mut self, now: Timestamp) {
        self.close(now, |_| true);
    }

    fn close(&mut self, now: Timestamp, is_over: impl Fn(&Limit) -> bool) {
        let (over, open) = std::mem::take(&mut self.limits)
            .into_iter()
            .partition(|(_, limit)| is_over(limit));
        self.limits = open;
        let over: BTreeMap<_, Limit> = over;
        for limit in over.into_values().filter(|limit| limit.suppressed > 0) {
            self.line(&Suppressed {
                r#type: "suppressed",
                version: VERSION,
                time: now,
                finding: limit.kind,
                since: limit.start,
                count: limit.suppressed,
            });
        }
        if self.untold > 0 {
            tracing::warn!(records = self.untold, "cannot write the event log");
            self.untold = 0;
        }
    }

    /// Records that could not be written since the last call.
    fn take_failed(&mut self) -> u64 {
        std::mem::take(&mut self.failed)
    }

    fn may_write(&mut self, kind: FindingKind, time: Timestamp) -> bool {
        let limit = self.limits.entry(kind.name()).or_insert(Limit {
            kind,
            start: time,
            written: 0,
            suppressed: 0,
        });
        if limit.written < FIRST {
            limit.written += 1;
            return true;
        }
        limit.suppressed += 1;
        false
    }

    fn line(&mut self, record: &impl Serialize) {
        let written = serde_json::to_vec(record)
            .map_err(io::Error::from)
            .and_then(|mut line| {
                line.push(b'\n');
                match &mut self.output {
                    Output::Standard => io::stdout().lock().write_all(&line),
                    Output::File(file) => file.write(&line),
                }
            });
        if written.is_err() {
            self.failed += 1;
            self.untold += 1;
        }
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Timestamp::from_nanoseconds(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn finding(kind: &str, second: i64) -> Record {
        let time = Timestamp::from_seconds(second);
        let text = serde_json::json!({
            "type": "finding", "version": 1, "time": time, "finding": kind, "severity": "high",
            "reason": "a test", "declared_by": "a test", "basis": [], "source": "203.0.113.9"
        });
        serde_json::from_value(text).expect("a record")
    }

    fn lines(path: &Path) -> Vec<serde_json::Value> {
        let text = fs::read_to_string(path).expect("a file");
        text.lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    }

    #[test]
    fn the_first_of_a_kind_are_written_and_the_rest_is_counted() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.jsonl");
        let mut log = EventLog::open(&path, 1 << 20).expect("a log");
        for _ in 0..50 {
            log.write(&finding("ssh-unexpected", 100));
        }
        log.write(&finding("ssh-scan", 100));
        assert_eq!(lines(&path).len(), 21);
        log.tick(Timestamp::from_seconds(159));
        assert_eq!(lines(&path).len(), 21, "the minute is not over");
        log.tick(Timestamp::from_seconds(160));
        let all = lines(&path);
        assert_eq!(all.len(), 22, "nothing of ssh-scan was left out");
        assert_eq!(all[21]["type"], "suppressed");
        assert_eq!(all[21]["finding"], "ssh-unexpected");
        assert_eq!(all[21]["count"], 30);
        assert_eq!(all[21]["since"], all[0]["time"]);
        log.write(&finding("ssh-unexpected", 161));
        assert_eq!(lines(&path).len(), 23, "the next minute has begun");
        log.finish(Timestamp::from_seconds(162));
        assert_eq!(lines(&path).len(), 23);
    }

    #[test]
    fn files_are_rotated_and_the_oldest_goes() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.jsonl");
        let mut log = EventLog::open(&path, 500).expect("a log");
        for second in 0..30 {
            // Each in a minute of its own.
            log.write(&finding("ssh-scan", second * 60));
            log.tick(Timestamp::from_seconds(second * 60 + 60));
        }
        let mut names: Vec<String> = fs::read_dir(folder.path())
            .expect("a folder")
            .map(|entry| {
                entry
                    .expect("a file")
                    .file_name()
                    .into_string()
                    .expect("a name")
            })
            .collect();
        names.sort();
        assert_eq!(
            names,
            [
                "events.jsonl",
                "events.jsonl.1",
                "events.jsonl.2",
                "events.jsonl.3",
                "events.jsonl.4"
            ]
        );
        let mut times = Vec::new();
        for name in names.iter().rev() {
            let file = folder.path().join(name);
            assert!(fs::metadata(&file).expect("a file").len() <= 500);
            times.extend(lines(&file).iter().map(|line| line["time"].to_string()));
        }
        assert!(times.is_sorted() && times.len() > 5, "{times:?}");
        let last = serde_json::json!(Timestamp::from_seconds(29 * 60)).to_string();
        assert_eq!(times.last(), Some(&last));
        // A log that is opened again goes on where it was.
        drop(log);
        let before = lines(&path).len();
        let mut log = EventLog::open(&path, 1 << 20).expect("a log");
        log.write(&finding("ssh-scan", 2000));
        assert_eq!(lines(&path).len(), before + 1);
    }

    #[test]
    fn a_file_that_was_taken_away_is_made_anew_and_old_ones_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.jsonl");
        let old = |number: u32| folder.path().join(format!("events.jsonl.{number}"));
        for number in 1..=4 {
            fs::write(old(number), number.to_string()).expect("written");
        }
        let mut log = EventLog::open(&path, 300).expect("a log");
        log.write(&finding("ssh-scan", 1));
        fs::remove_file(&path).expect("there");
        for second in 2..5 {
            fs::remove_file(&path).ok();
            log.write(&finding("ssh-scan", second));
        }
        assert_eq!(log.take_failed(), 0);
        assert_eq!(lines(&path).len(), 1);
        for number in 1..=4 {
            let text = fs::read_to_string(old(number)).expect("there");
            assert_eq!(text, number.to_string());
        }
    }

    /// Runs in a process of its own, in which no file can have more than a block: 512 or 1024 bytes.
    #[test]
    fn half_a_line_is_taken_back() {
        const PATH: &str = "NODEWATCH_TEST_LIMITED";
        if let Some(path) = std::env::var_os(PATH) {
            let mut log = EventLog::open(Path::new(&path), 1 << 20).expect("a log");
            for second in 0..10 {
                log.write(&finding("ssh-scan", second));
            }
            assert!(log.take_failed() >= 3);
            return;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.jsonl");
        let (_, module) = module_path!().split_once("::").expect("a module");
        let output = std::process::Command::new("sh")
            .args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\""])
            .arg(std::env::current_exe().expect("this program"))
            .args(["--exact", &format!("{module}::half_a_line_is_taken_back")])
            .env(PATH, &path)
            .output()
            .expect("a shell");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{output:?}"
        );
        let before = lines(&path).len();
        assert!((1..10).contains(&before), "{before}");
        let mut log = EventLog::open(&path, 1 << 20).expect("a log");
        log.write(&finding("ssh-scan", 20));
        assert_eq!(lines(&path).len(), before + 1);
    }

    #[test]
    fn every_kind_has_a_limit_of_its_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("events.jsonl");
        let mut log = EventLog::open(&path, 1 << 20).expect("a log");
        let kinds = ["ssh-unexpected", "nsg-drift", "policy-violation"];
        for (kind, count) in kinds.iter().zip([25, 100, 20]) {
            for _ in 0..count {
                log.write(&finding(kind, 100));
            }
        }
        assert_eq!(lines(&path).len(), 60);
        log.tick(Timestamp::from_seconds(160));
        let told: BTreeMap<String, u64> = lines(&path)
            .iter()
            .filter(|line| line["type"] == "suppressed")
            .map(|line| {
                let kind = line["finding"].as_str().expect("a kind").to_owned();
                (kind, line["count"].as_u64().expect("a number"))
            })
            .collect();
        // What was written and what is told of is all there was; a kind of which nothing was left out is not told of.
        let expected = [
            ("ssh-unexpected".to_owned(), 5),
            ("nsg-drift".to_owned(), 80),
        ];
        assert_eq!(told, expected.into());
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let mut log = EventLog::open(Path::new("/dev/full"), 1 << 20).expect("a log");
        for second in 0..3 {
            log.write(&finding("ssh-scan", second));
        }
        assert_eq!(log.take_failed(), 3);
        assert_eq!(log.take_failed(), 0);
    }

    #[test]
    fn a_place_that_cannot_be_written_to_is_named() {
        let error = EventLog::open(Path::new("/nowhere/events.jsonl"), 1).expect_err("no folder");
        let text = error.to_string();
        assert!(
            text.contains("--event-log") && text.contains("/nowhere/events.jsonl"),
            "{text}"
        );
    }
}
