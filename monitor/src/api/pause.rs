//! Clients that follow and take no data for a while.

use std::{
    io,
    sync::{Mutex, MutexGuard, Weak},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

/// How long a client that follows may take no data, once its place is needed.
pub(super) const PAUSE: Duration = Duration::from_secs(30);

/// Since when a client that follows takes no data, such as one whose user reads on in a pager.
/// That is fine for as long as nobody else needs its place.
#[derive(Debug, Default)]
pub(super) struct Pause {
    since: Mutex<Option<Instant>>,
    leave: Notify,
}

// === impl Pause ===

impl Pause {
    /// Tells the client that has taken no data for longest to leave, if that is long enough.
    pub(super) fn end_longest(pauses: &[Weak<Self>], enough: Duration) -> bool {
        let pauses = pauses.iter().filter_map(Weak::upgrade);
        let longest = pauses
            .filter_map(|pause| {
                let since = *pause.since();
                Some((since?, pause))
            })
            .min_by_key(|(since, _)| *since);
        match longest {
            Some((since, pause)) if since.elapsed() >= enough => {
                // Once only: the next one that needs a place tells another.
                *pause.since() = None;
                pause.leave.notify_one();
                tracing::info!(
                    seconds = since.elapsed().as_secs(),
                    "an API client that takes no data gives its place to another"
                );
                true
            }
            _ => false,
        }
    }

    /// Waits until the client has taken what is written, or has to leave.
    pub(super) async fn during(
        &self,
        write: impl Future<Output = io::Result<()>>,
    ) -> io::Result<()> {
        *self.since() = Some(Instant::now());
        let written = tokio::select! {
            biased;
            written = write => written,
            () = self.leave.notified() => Err(io::ErrorKind::TimedOut.into()),
        };
        *self.since() = None;
        written
    }

    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.since
            .lock()
            .expect("no code panics while it holds this")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn whoever_takes_no_data_for_longest_leaves() {
        let pauses: Vec<Arc<Pause>> = (0..3).map(|_| Arc::default()).collect();
        let weak: Vec<_> = pauses.iter().map(Arc::downgrade).collect();
        assert!(
            !Pause::end_longest(&weak, Duration::ZERO),
            "all take what comes"
        );
        let long = Instant::now().checked_sub(PAUSE).expect("later than that");
        let stuck = |index: usize| {
            let pause = Arc::clone(&pauses[index]);
            tokio::spawn(async move { pause.during(std::future::pending()).await })
        };
        let clients = [stuck(1), stuck(2)];
        tokio::task::yield_now().await;
        assert!(!Pause::end_longest(&weak, PAUSE), "not for long enough");
        *pauses[2].since() = Some(long);
        assert!(Pause::end_longest(&weak, PAUSE));
        let [first, second] = clients;
        let error = second
            .await
            .expect("no panic")
            .expect_err("it has to leave");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(!first.is_finished(), "the other may stay");
        assert!(!Pause::end_longest(&weak, PAUSE), "nobody else");
        first.abort();
    }
}
