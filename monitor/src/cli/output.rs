//! Standard output: formats, colour, and a reader that may leave.

use std::{
    env,
    io::{self, BufWriter, IsTerminal as _, Write},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::exit::{REFUSED, Refused};

/// How records are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Columns for people.
    #[default]
    Table,
    /// More columns.
    Wide,
    /// One JSON array.
    Json,
    /// One JSON object per line.
    Jsonl,
}

/// How a state is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum StatusFormat {
    /// For people.
    #[default]
    Table,
    /// The same: there are no more columns.
    Wide,
    /// JSON, indented.
    Json,
    /// JSON without line breaks within an object.
    Jsonl,
}

/// Whoever read the output has left; not an error.
#[derive(Debug, thiserror::Error)]
#[error("the output was closed")]
pub(super) struct Closed;

/// Standard output, buffered.
pub(super) struct Output<W: Write = io::StdoutLock<'static>> {
    writer: BufWriter<W>,
    /// Whether to use colour.
    pub(super) color: bool,
}

/// Colours for words whose meaning they underline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Color {
    Green,
    Yellow,
    Red,
    Dim,
    Bold,
}

// === impl Output ===

impl Output {
    /// Standard output; colour only on a terminal that is not told otherwise.
    pub(super) fn stdout() -> Self {
        let stdout = io::stdout().lock();
        let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
        let color = stdout.is_terminal() && !is_set("NO_COLOR") && !is_dumb;
        Self {
            writer: BufWriter::new(stdout),
            color,
        }
    }
}

impl<W: Write> Output<W> {
    /// Anything else, without colour.
    #[cfg(test)]
    pub(super) fn to(writer: W) -> Self {
        Self {
            writer: BufWriter::new(writer),
            color: false,
        }
    }

    /// Prints bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        closed(self.writer.write_all(bytes))
    }

    /// Shows what was printed.
    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        closed(self.writer.flush())
    }
}

impl<W: Write> Drop for Output<W> {
    fn drop(&mut self) {
        // A reader that left was noticed before, or does not matter any more.
        let _ = self.writer.flush();
    }
}

fn closed(result: io::Result<()>) -> anyhow::Result<()> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Closed.into(),
        _ => Refused::Output(error).into(),
    })
}

/// Ends the program where standard output has taken nothing for so long. Whoever read it may be gone without a word:
/// `kubectl exec` without a terminal leaves a command in the container, with its output in a pipe that stays open.
pub(super) fn end_unless_read(within: Duration) {
    if !takes(&io::stdout(), within) {
        complain(&format!(
            "nobody has read what is printed for {} s",
            within.as_secs()
        ));
        // What is buffered has nowhere to go.
        std::process::exit(REFUSED.into());
    }
}

/// Whether a file can be written to, or tells of an error, within a time.
fn takes(file: &impl AsFd, within: Duration) -> bool {
    let start = Instant::now();
    loop {
        let left = within.saturating_sub(start.elapsed());
        let left = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(file, PollFlags::OUT)], left.as_ref()) {
            Ok(0) => return false,
            // A signal; what it means is others' matter.
            Err(Errno::INTR) => {}
            Ok(_) | Err(_) => return true,
        }
    }
}

/// Prints a line about ourselves to standard error, which may be closed.
pub(super) fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "nodewatch: {message}");
}

// === impl Color ===

impl Color {
    /// Switches a terminal to this colour; [`RESET`] switches back.
    pub(super) const fn code(self) -> &'static str {
        match self {
            Self::Green => "\u{1b}[32m",
            Self::Yellow => "\u{1b}[33m",
            Self::Red => "\u{1b}[31m",
            Self::Dim => "\u{1b}[2m",
            Self::Bold => "\u{1b}[1m",
        }
    }
}

/// Switches a terminal back to its own colours.
pub(super) const RESET: &str = "\u{1b}[0m";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_that_nobody_reads_takes_nothing() {
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let soon = Duration::from_millis(20);
        assert!(takes(&writer, soon));
        while takes(&writer, soon) {
            writer.write_all(&[0; 4096]).expect("written");
        }
        // Who has closed it is told of by the write.
        drop(reader);
        assert!(takes(&writer, soon));
    }

    struct Gone;

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_left_is_told_apart() {
        let mut output = Output {
            writer: BufWriter::new(Gone),
            color: false,
        };
        output.write(b"x").expect("buffered");
        assert!(output.flush().expect_err("closed").is::<Closed>());
    }
}
