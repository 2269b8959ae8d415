//! What a node does for its log besides writing it.
//!
//! A log whose files were removed under it goes on in files that no directory names: it acknowledges what a restart will not find.
//! So it is looked after, and a log that is not in its place counts as a disk that has failed.

use std::sync::{Arc, Weak};
use std::time::Duration;

use runtime::CancellationToken;

use super::Inner;
use super::release::Idle;

const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Looks between two looks at the disk's free space.
const LOOKS_A_REFRESH: u32 = 8;

/// Moves the durable mark when the log is idle, notices that its files were removed, opens the log again when a full disk has room, and makes groups that hold back old segments take a snapshot.
pub(super) async fn run(host: Weak<Inner>, ended: CancellationToken) {
    let mut written = 0;
    let mut looks: u32 = 0;
    let mut at_rest = Idle::default();
    loop {
        let Some(runtime) = host.upgrade().map(|host| host.runtime.clone()) else {
            return;
        };
        tokio::select! {
            () = ended.cancelled() => return,
            () = runtime.sleep(LOOK_EVERY) => {}
        }
        let Some(host) = host.upgrade() else {
            return;
        };
        let stats = host.wal.stats();
        let idle = stats.bytes_written == written && stats.queued_appends == 0;
        written = stats.bytes_written;
        if host.wal.is_poisoned() {
            host.fault.report("the log has failed");
            return;
        }
        looks = looks.wrapping_add(1);
        let refresh = looks.is_multiple_of(LOOKS_A_REFRESH);
        let wal = host.wal.clone();
        let kept = runtime.spawn_blocking("log-upkeep", move || {
            if idle {
                wal.note_idle();
            }
            // A refusal shows in the log's statistics; the next look may find room.
            let full = refresh && wal.refresh().is_err();
            tracing::trace!(full, "looked after the log");
            wal.displaced()
        });
        match kept.await {
            Ok(None) => {}
            Ok(Some(path)) => {
                let reason = format!("{} was removed under the running node", path.display());
                host.fault.report(&reason);
                return;
            }
            Err(error) => tracing::error!(%error, "the log's upkeep failed"),
        }
        if stats.log_bytes > host.options.log_bytes_max {
            host.release_oldest(&mut at_rest);
        }
    }
}

impl Inner {
    fn release_oldest(self: &Arc<Self>, idle: &mut Idle) {
        let mut at_rest = Vec::new();
        for (group, _) in self.wal.groups_holding(self.wal.oldest_segment()) {
            let running = self.registry.running(group);
            match running.filter(|running| !running.has_ended()) {
                Some(running) => running.want_snapshot(),
                None => at_rest.push(group),
            }
        }
        idle.release(self, &at_rest);
    }
}
