//! Work that blocks, in a world without threads.

use std::fmt::Debug;
use std::time::Duration;

/// Decides how long work that blocks takes in a world without threads. The work waits for so long, and is then done at once.
pub trait Turns: Debug + Send + Sync {
    /// The time that a piece of work of this name takes.
    fn duration(&self, name: &str) -> Duration;
}
