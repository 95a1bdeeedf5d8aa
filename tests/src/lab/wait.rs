//! Waiting for something with a deadline, never with a bare sleep.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const STEP: Duration = Duration::from_millis(10);

/// Waits until `condition` gives a value; the error says what was waited for.
pub fn until<T>(
    what: &str,
    within: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return Ok(value);
        }
        if start.elapsed() >= within {
            bail!("waited {:.1} s for {what}, in vain", within.as_secs_f64());
        }
        std::thread::sleep(STEP);
    }
}

/// Waits until `read` has given the same value for `calm`; returns that value.
pub fn until_stable<T: PartialEq>(
    what: &str,
    calm: Duration,
    within: Duration,
    mut read: impl FnMut() -> Result<T>,
) -> Result<T> {
    let start = Instant::now();
    let mut last = read()?;
    let mut since = Instant::now();
    loop {
        std::thread::sleep(STEP * 2);
        let now = read()?;
        if now != last {
            last = now;
            since = Instant::now();
        } else if since.elapsed() >= calm {
            return Ok(last);
        }
        if start.elapsed() >= within {
            bail!(
                "{what} did not come to rest within {:.1} s",
                within.as_secs_f64()
            );
        }
    }
}
