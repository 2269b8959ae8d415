//! Tasks that must not end unnoticed.
//!
//! A task that panics ends alone: whoever needs what it did goes on without. A guarded one ([`Runtime::spawn_guarded`]) tells somebody
//! who can act; [`Vital`] is for those without which the process is of no use.
//!
//! What always holds: whatever a guarded task held is dropped before its end is told, so that those who waited for it have been told
//! too. An executor that ends drops its tasks, and that is told to nobody.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::task::panic_text;
use crate::{Runtime, Task, TaskFailed};

impl Runtime {
    /// As [`Runtime::spawn`], and does `ended` when the task is over, by a panic or otherwise. The task that is returned is over after
    /// that.
    pub fn spawn_guarded<F, E, A>(&self, name: &'static str, future: F, ended: E) -> Task<()>
    where
        F: Future<Output = ()> + Send + 'static,
        E: FnOnce(Result<(), TaskFailed>) -> A + Send + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        let faults = self.faults.as_ref().map(|faults| faults.admit(name));
        let future = async move {
            match faults {
                None => future.await,
                Some(place) => tokio::select! {
                    biased;
                    () = place.struck.notified() => std::panic::resume_unwind(Box::new("struck")),
                    () = future => {}
                },
            }
        };
        let future = Box::pin(future);
        self.spawn(name, async move {
            let end = AssertUnwindSafe(future).catch_unwind().await;
            let end = end.map_err(|panic| TaskFailed {
                name,
                reason: panic_text(panic.as_ref()),
            });
            ended(end).await;
        })
    }

    /// The same world in which guarded tasks can be made to panic, for tests of what holds then.
    #[must_use]
    pub fn with_task_faults(self, faults: TaskFaults) -> Self {
        Self {
            faults: Some(faults),
            ..self
        }
    }
}

/// The tasks that a process cannot do without. Clones share them.
#[derive(Debug, Clone)]
pub struct Vital {
    runtime: Runtime,
    stop: CancellationToken,
    failed: Arc<watch::Sender<Option<TaskFailed>>>,
}

impl Vital {
    /// For tasks that run until `stop` is cancelled.
    #[must_use]
    pub fn new(runtime: &Runtime, stop: CancellationToken) -> Self {
        Self {
            runtime: runtime.clone(),
            stop,
            failed: Arc::new(watch::Sender::new(None)),
        }
    }

    /// Runs a task that may end once the stop is asked for, and not before.
    pub fn spawn<F>(&self, name: &'static str, future: F) -> Task<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let vital = self.clone();
        self.runtime.spawn_guarded(name, future, move |end| {
            vital.note(TaskFailed::before_its_time(name, end));
            std::future::ready(())
        })
    }

    /// Runs a task that may come to its end at any time, and must come to it.
    pub fn spawn_once<F>(&self, name: &'static str, future: F) -> Task<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let vital = self.clone();
        self.runtime.spawn_guarded(name, future, move |end| {
            end.unwrap_or_else(|failed| vital.note(failed));
            std::future::ready(())
        })
    }

    /// What the tasks stop by.
    #[must_use]
    pub fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    fn note(&self, failed: TaskFailed) {
        if self.stop.is_cancelled() {
            return;
        }
        self.failed.send_if_modified(|present| {
            let first = present.is_none();
            if first {
                *present = Some(failed);
            }
            first
        });
    }

    /// Waits until a task is missing, and says which was the first. The process must then end: its supervisor starts it again.
    pub async fn failed(&self) -> TaskFailed {
        let mut failed = self.failed.subscribe();
        loop {
            // The sender lives as long as this value.
            if let Ok(found) = failed.wait_for(Option::is_some).await
                && let Some(failed) = found.clone()
            {
                return failed;
            }
        }
    }
}

/// Makes guarded tasks panic. Clones share the tasks they know.
#[derive(Debug, Clone, Default)]
pub struct TaskFaults {
    running: Arc<Mutex<Vec<Running>>>,
}

#[derive(Debug)]
struct Running {
    name: &'static str,
    struck: Arc<Notify>,
}

impl TaskFaults {
    /// Names of the guarded tasks that run, in order, each as often as it runs.
    #[must_use]
    pub fn running(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.running.lock().iter().map(|at| at.name).collect();
        names.sort_unstable();
        names
    }

    /// Makes the tasks of a name that run now panic, and says whether there were any.
    #[must_use]
    pub fn strike(&self, name: &str) -> bool {
        let running = self.running.lock();
        let mut struck = running.iter().filter(|at| at.name == name).peekable();
        let any = struck.peek().is_some();
        struck.for_each(|at| at.struck.notify_one());
        any
    }

    fn admit(&self, name: &'static str) -> Place {
        let struck = Arc::new(Notify::new());
        self.running.lock().push(Running {
            name,
            struck: Arc::clone(&struck),
        });
        Place {
            faults: self.clone(),
            struck,
        }
    }
}

/// A task's place among those that can be struck, until it is over.
struct Place {
    faults: TaskFaults,
    struck: Arc<Notify>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut running = self.faults.running.lock();
        running.retain(|at| !Arc::ptr_eq(&at.struck, &self.struck));
    }
}
