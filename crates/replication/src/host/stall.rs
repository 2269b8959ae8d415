//! Noticing that the log's disk does not answer.
//!
//! A disk that hangs fails nothing: the thread that writes the log waits in the kernel, for seconds or for ever. The log counts its
//! group commits ([`wal::Wal::round`]); one that does not end while time goes by is a stall. How long it lasts can be asked
//! ([`super::Host::stalled`]), so that leads go elsewhere; beyond [`crate::HostOptions::stall_max`] it counts as a disk that has
//! failed, and the process ends as after a failed sync: what is on the disk is unknown until a start reads it.
//!
//! Only time in which this process ran counts. One that was paused, or a machine that was, finds an old round when it goes on, and
//! must not take its own sleep for the disk's.

use std::sync::Weak;
use std::sync::atomic::Ordering;
use std::time::Duration;

use runtime::{CancellationToken, Instant};

use super::Inner;

const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What one look may add at most: longer ago than this the process did not run.
const STEP_MAX: Duration = Duration::from_millis(300);

/// Looks at the log until the host ends, or until the disk has not answered for too long.
pub(super) async fn run(host: Weak<Inner>, ended: CancellationToken) {
    let Some(runtime) = host.upgrade().map(|host| host.runtime.clone()) else {
        return;
    };
    let mut watch = Watch::begin(runtime.now());
    loop {
        tokio::select! {
            () = ended.cancelled() => return,
            () = runtime.sleep(LOOK_EVERY) => {}
        }
        let Some(host) = host.upgrade() else {
            return;
        };
        let stalled = watch.look(host.wal.round(), runtime.now());
        let millis = u64::try_from(stalled.as_millis()).unwrap_or(u64::MAX);
        host.stalled_ms.store(millis, Ordering::Relaxed);
        let limit = host.options.stall_max;
        if limit.is_some_and(|limit| stalled >= limit) {
            let reason = format!("the disk has not answered a write of the log for {stalled:?}");
            host.fault.report(&reason);
            return;
        }
    }
}

/// The round that was seen last, and for how long.
#[derive(Debug)]
struct Watch {
    round: u64,
    at: Instant,
    stalled: Duration,
}

impl Watch {
    fn begin(now: Instant) -> Self {
        Self {
            round: 0,
            at: now,
            stalled: Duration::ZERO,
        }
    }

    /// For how long the present round has been at the disk; zero between rounds.
    fn look(&mut self, round: u64, now: Instant) -> Duration {
        let step = now.saturating_since(self.at).min(STEP_MAX);
        let is_writing = !round.is_multiple_of(2);
        self.stalled = if is_writing && round == self.round {
            self.stalled + step
        } else {
            Duration::ZERO
        };
        (self.round, self.at) = (round, now);
        self.stalled
    }
}

#[cfg(test)]
mod tests {
    use runtime::Runtime;

    use super::*;

    #[test]
    fn a_round_that_does_not_end_is_a_stall() {
        let begun = Runtime::real().now();
        let at = |looks: u32| begun + LOOK_EVERY * looks;
        let mut watch = Watch::begin(begun);
        assert_eq!(watch.look(1, at(1)), Duration::ZERO, "it was just seen");
        assert_eq!(watch.look(1, at(2)), LOOK_EVERY);
        assert_eq!(watch.look(1, at(3)), LOOK_EVERY * 2);
        assert_eq!(watch.look(3, at(4)), Duration::ZERO, "another one");
        assert_eq!(watch.look(4, at(5)), Duration::ZERO);
        assert_eq!(watch.look(4, at(6)), Duration::ZERO, "nothing is written");
    }

    #[test]
    fn the_sleep_of_the_process_is_not_the_disks() {
        let begun = Runtime::real().now();
        let mut watch = Watch::begin(begun);
        watch.look(1, begun);
        let later = begun + Duration::from_secs(3_600);
        assert_eq!(watch.look(1, later), STEP_MAX);
    }
}
