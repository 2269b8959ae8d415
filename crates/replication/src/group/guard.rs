//! The tasks of a replica die with it, and it with them.
//!
//! A task that panics ends alone, and the rest would go on half-dead: leading without reads, or without ever taking a snapshot. So all
//! that runs for a replica as long as it lives is started by [`Group::guard`]; what openraft starts and this crate only lends it has a
//! [`crate::status::Tripwire`]. A replica that stopped so is started again from the disk by whoever holds it.

use std::future::Future;
use std::sync::Arc;

use runtime::{Task, TaskFailed};

use super::{Group, Inner};
use crate::StateMachine;
use crate::status::StopCause;

impl<S: StateMachine> Group<S> {
    /// Runs a task that this replica cannot do without. Should it panic, or end while the replica lives, the replica stops, with
    /// [`StopCause::Internal`] and a reason that names the task. It has to end by itself once the replica has stopped.
    pub fn guard<F>(&self, name: &'static str, task: F) -> Task<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.inner.guard(name, task)
    }
}

impl<S: StateMachine> Inner<S> {
    pub(super) fn guard<F>(self: &Arc<Self>, name: &'static str, task: F) -> Task<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let inner = Arc::clone(self);
        self.runtime()
            .spawn_guarded(name, task, move |end| async move {
                if inner.is_ended() {
                    return;
                }
                let failed = TaskFailed::before_its_time(name, end);
                tracing::error!(group = %inner.shared.group, %failed, "a replica stops");
                let reason = failed.to_string();
                inner.halt_for(StopCause::Internal, &reason).await;
            })
    }
}
