//! Long work on frozen states: a piece at a time, away from the async workers, with pauses.

use std::time::Duration;

use super::Node;

/// Terms looked at in one go, some milliseconds, and the pause after them.
pub(super) const STEP_TERMS: usize = 8192;
const STEP_PAUSE: Duration = Duration::from_millis(10);

impl Node {
    /// Does one piece of work and pauses. `None` when the node is closing, or the work panicked.
    pub(super) async fn piece<S: Send + 'static, T: Send + 'static>(
        &self,
        name: &'static str,
        mut state: S,
        work: impl FnOnce(&mut S) -> T + Send + 'static,
    ) -> Option<(S, T)> {
        let step = move || {
            let done = work(&mut state);
            (state, done)
        };
        let stepped = self.runtime.spawn_blocking(name, step).await.ok()?;
        tokio::select! {
            () = self.closing.cancelled() => None,
            () = self.runtime.sleep(STEP_PAUSE) => Some(stepped),
        }
    }
}
