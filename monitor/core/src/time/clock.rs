//! From the kernel's clocks to each other and to wall-clock time.

use super::Timestamp;

/// How far a tick stamp may be ahead of the sample it is compared with, in ticks.
///
/// A stamp of 32 bits that is ahead of the sample was either taken after it (the map was read
/// later than the clock) or lies almost 2^32 ticks in the past. Up to this many ticks ahead, more
/// than four hours at 1000 Hz, it is taken for the former.
const AHEAD_TICKS: u32 = 1 << 24;

/// One sample of all clocks: what relates tick stamps, monotonic times and wall-clock times.
///
/// Sampled by the source about when it reads the flow maps
/// ([`monitor_common::abi::ClockSample`]). A replay takes all of it from the capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockMap {
    /// Wall-clock time minus `CLOCK_MONOTONIC`, in nanoseconds.
    pub wall_minus_monotonic_ns: i64,
    /// Coarse clock now, in ticks, not wrapped.
    pub ticks_now: u64,
    /// `CLOCK_MONOTONIC` now, in nanoseconds.
    pub monotonic_now_ns: u64,
    /// Length of a tick in nanoseconds (4,000,000 at 250 Hz).
    pub ns_per_tick: u64,
}

// === impl ClockMap ===

impl ClockMap {
    /// Wall-clock time of a monotonic time in nanoseconds.
    pub fn wall(&self, monotonic_ns: u64) -> Timestamp {
        let wall = i128::from(monotonic_ns) + i128::from(self.wall_minus_monotonic_ns);
        Timestamp::from_nanoseconds(i64::try_from(wall).unwrap_or(if wall < 0 {
            i64::MIN
        } else {
            i64::MAX
        }))
    }

    /// Monotonic time in nanoseconds of a wrapped tick stamp, correct to a tick for stamps that
    /// are less than 2^32 - 2^24 ticks old (49 days at 1000 Hz) or a little ahead of the sample.
    pub fn monotonic_ns(&self, ticks: u32) -> u64 {
        let now = wrapped(self.ticks_now);
        let ahead = ticks.wrapping_sub(now);
        if ahead < AHEAD_TICKS {
            let ahead_ns = u64::from(ahead).saturating_mul(self.ns_per_tick);
            self.monotonic_now_ns.saturating_add(ahead_ns)
        } else {
            let age_ns = u64::from(now.wrapping_sub(ticks)).saturating_mul(self.ns_per_tick);
            self.monotonic_now_ns.saturating_sub(age_ns)
        }
    }
}

/// The low 32 bits, as the kernel keeps them.
#[expect(
    clippy::cast_possible_truncation,
    reason = "wrapping is what a tick stamp does"
)]
const fn wrapped(ticks: u64) -> u32 {
    ticks as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const WALL_NS: i64 = 1_000_000_000;

    fn clock(ticks_now: u64, monotonic_now_ns: u64) -> ClockMap {
        ClockMap {
            wall_minus_monotonic_ns: WALL_NS,
            ticks_now,
            monotonic_now_ns,
            ns_per_tick: 4 * MS,
        }
    }

    #[test]
    fn tick_stamps_become_monotonic_times() {
        let check = |now: u64, stamp: u32, expected_ms: u64| {
            let clock = clock(now, 1_000_000 * MS);
            assert_eq!(clock.monotonic_ns(stamp), expected_ms * MS, "{now} {stamp}");
        };
        check(1_000, 1_000, 1_000_000);
        check(1_000, 990, 999_960);
        // Read after the sample.
        check(1_000, 1_003, 1_000_012);
        // The stamp was taken before the wrap, the sample after it.
        check((1 << 32) + 5, u32::MAX, 999_976);
        // The other way round: ahead of the sample and across the wrap.
        check((1 << 32) - 1, 2, 1_000_012);
        // High bits of the sample do not matter.
        check((7 << 32) + 1_000, 990, 999_960);
    }

    #[test]
    fn old_stamps_stay_in_the_past() {
        let clock = ClockMap {
            ns_per_tick: 1,
            ..clock(10, 1 << 40)
        };
        let age = u64::from(u32::MAX - AHEAD_TICKS);
        let stamp = 10_u32.wrapping_sub(wrapped(age));
        assert_eq!(clock.monotonic_ns(stamp), (1 << 40) - age);
    }

    #[test]
    fn nothing_is_before_boot() {
        assert_eq!(clock(1_000, 8 * MS).monotonic_ns(900), 0);
    }

    #[test]
    fn wall_time_is_offset_and_saturates() {
        assert_eq!(
            clock(0, 0).wall(5),
            Timestamp::from_nanoseconds(WALL_NS + 5)
        );
        assert_eq!(
            clock(0, 0).wall(u64::MAX),
            Timestamp::from_nanoseconds(i64::MAX)
        );
        let before = ClockMap {
            wall_minus_monotonic_ns: i64::MIN,
            ..clock(0, 0)
        };
        assert_eq!(before.wall(0), Timestamp::from_nanoseconds(i64::MIN));
    }
}
