//! Threads for connections.
//!
//! The tasks of a connection wake each other all the time. An executor of many threads hands them around meanwhile and wakes a sleeping
//! thread for nearly every request; on a thread that runs them alone, none of that happens. What it gives stands in
//! docs/performance-history.md. The price: a task that computes for long holds up the other connections of its thread.

use std::io;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::task;

/// One executor for each of several threads. They end when this is dropped, and with them the tasks that they have.
#[derive(Debug)]
pub(crate) struct Crew {
    first: Handle,
    others: Vec<Handle>,
    next: AtomicUsize,
    _stop: DropGuard,
}

impl Crew {
    /// A thread for each processor.
    pub(crate) fn for_processors() -> io::Result<Arc<Self>> {
        let count = std::thread::available_parallelism().map_or(1, NonZero::get);
        let stop = CancellationToken::new();
        let others = (1..count).map(|_| member(stop.clone()));
        Ok(Arc::new(Self {
            first: member(stop.clone())?,
            others: others.collect::<io::Result<_>>()?,
            next: AtomicUsize::new(0),
            _stop: stop.drop_guard(),
        }))
    }

    /// The thread whose turn it is.
    pub(crate) fn member(&self) -> &Handle {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        let place = turn % (1 + self.others.len());
        let other = place
            .checked_sub(1)
            .and_then(|place| self.others.get(place));
        other.unwrap_or(&self.first)
    }
}

fn member(stop: CancellationToken) -> io::Result<Handle> {
    let executor = Builder::new_current_thread().enable_all().build()?;
    let handle = executor.handle().clone();
    task::spawn_thread("connections", move || {
        executor.block_on(stop.cancelled());
        // A blocking task that hangs on a failed disk must not keep the thread.
        executor.shutdown_background();
    })?;
    Ok(handle)
}
