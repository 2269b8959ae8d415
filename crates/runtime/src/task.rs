//! Tasks and threads.

use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// A task panicked, or the runtime ended before it did.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("task {name} failed: {reason}")]
pub struct TaskFailed {
    /// The name given at the start.
    pub name: &'static str,
    /// What is known of the panic, or that the task was cancelled.
    pub reason: String,
}

impl TaskFailed {
    /// For a task that must not have ended at all.
    #[must_use]
    pub fn before_its_time(name: &'static str, end: Result<(), Self>) -> Self {
        end.err().unwrap_or_else(|| Self {
            name,
            reason: "ended before its time".to_owned(),
        })
    }
}

/// A running task; await it for its result. Dropping it leaves the task running.
#[derive(Debug)]
pub struct Task<T> {
    name: &'static str,
    handle: JoinHandle<T>,
}

impl<T: Send + 'static> Task<T> {
    #[expect(clippy::disallowed_methods, reason = "this is the adapter")]
    pub(crate) fn spawn<F>(name: &'static str, future: F) -> Self
    where
        F: Future<Output = T> + Send + 'static,
    {
        Self {
            name,
            handle: tokio::spawn(future),
        }
    }

    pub(crate) fn spawn_on<F>(executor: &Handle, name: &'static str, future: F) -> Self
    where
        F: Future<Output = T> + Send + 'static,
    {
        Self {
            name,
            handle: executor.spawn(future),
        }
    }

    /// On a thread of its own, for a priority that was lowered cannot be raised again without privileges.
    pub(crate) fn spawn_background<F>(name: &'static str, work: F) -> Self
    where
        F: FnOnce() -> T + Send + 'static,
    {
        let (done, result) = tokio::sync::oneshot::channel();
        let started = spawn_thread(name, move || {
            yield_to_others();
            // Whoever has dropped the task does not want to know.
            let _ = done.send(catch_unwind(AssertUnwindSafe(work)));
        });
        Self::spawn(name, async move {
            let failure = match (started, result.await) {
                (Ok(()), Ok(Ok(value))) => return value,
                (Ok(()), Ok(Err(panic))) => panic,
                (Ok(()), Err(_)) => Box::new("the thread has gone"),
                (Err(error), _) => Box::new(format!("no thread: {error}")),
            };
            resume_unwind(failure)
        })
    }

    #[expect(clippy::disallowed_methods, reason = "this is the adapter")]
    pub(crate) fn spawn_blocking<F>(name: &'static str, work: F) -> Self
    where
        F: FnOnce() -> T + Send + 'static,
    {
        Self {
            name,
            handle: tokio::task::spawn_blocking(work),
        }
    }
}

impl<T> Task<T> {
    /// Stops the task at its next await. A closure that blocks is not stopped once it runs.
    pub fn abort(&self) {
        self.handle.abort();
    }

    /// Whether the task has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.handle.is_finished()
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, TaskFailed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let name = self.name;
        Pin::new(&mut self.handle).poll(context).map_err(|error| {
            let reason = if error.is_panic() {
                panic_text(error.into_panic().as_ref())
            } else {
                "cancelled".to_owned()
            };
            TaskFailed { name, reason }
        })
    }
}

pub(crate) fn panic_text(payload: &(dyn std::any::Any + Send)) -> String {
    if let Some(text) = payload.downcast_ref::<&str>() {
        format!("panicked: {text}")
    } else if let Some(text) = payload.downcast_ref::<String>() {
        format!("panicked: {text}")
    } else {
        "panicked".to_owned()
    }
}

/// Lets the present thread have a tenth of the processor that others have, where they want it.
fn yield_to_others() {
    // On Linux a priority is a thread's, whatever its call is named. Where it cannot be lowered, nothing but speed is lost.
    #[cfg(target_os = "linux")]
    let _ = rustix::process::nice(10);
}

pub(crate) fn spawn_thread<F>(name: &str, work: F) -> io::Result<()>
where
    F: FnOnce() + Send + 'static,
{
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map(drop)
}
