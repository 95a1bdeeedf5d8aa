//! When a process started, by the clock of the kernel program.

use rustix::{
    param::clock_ticks_per_second,
    time::{ClockId, Timespec, clock_gettime},
};

/// `CLOCK_MONOTONIC` in nanoseconds when a process started, from the field `starttime` of
/// `/proc/PID/stat` (proc(5)): ticks since the boot, in which the time of a suspension counts.
pub(super) fn started_ns(start_time_ticks: u64) -> u64 {
    let suspended =
        ns(clock_gettime(ClockId::Boottime)).saturating_sub(ns(clock_gettime(ClockId::Monotonic)));
    let ticks_per_second = clock_ticks_per_second().max(1);
    let since_boot = u128::from(start_time_ticks) * 1_000_000_000 / u128::from(ticks_per_second);
    u64::try_from(since_boot)
        .unwrap_or(u64::MAX)
        .saturating_sub(suspended)
}

fn ns(time: Timespec) -> u64 {
    let whole = u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000;
    whole + u64::try_from(time.tv_nsec).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::process::ProcessDir;

    #[test]
    fn a_process_that_was_just_started_is_as_old_as_that() {
        let before = ns(clock_gettime(ClockId::Monotonic));
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("sleep");
        let after = ns(clock_gettime(ClockId::Monotonic));
        let proc = std::fs::File::open("/proc").expect("/proc").into();
        let directory = ProcessDir::open(&proc, child.id()).expect("the child's");
        let ticks = directory.start_time_ticks();
        child.kill().expect("a child");
        child.wait().expect("a child");
        let started = started_ns(ticks.expect("a start"));
        // The field counts hundredths of a second, rounded down.
        let tick = 20_000_000;
        assert!((before.saturating_sub(tick)..=after + tick).contains(&started));
    }
}
