//! Who brings a process back.
//!
//! The watchdog never starts servers of its own accord. It asks a [`Restarter`]: nobody in particular ([`External`]: a container's restart
//! policy or a service manager acts by itself), a command ([`Command`]), a Docker Engine ([`Container`]), or, inside the all-in-one, the
//! supervisor that started the node and implements the trait.
//!
//! What always holds: a node is restarted at most once in the time of one attempt, however many shards on it are dead
//! ([`Restarts`]); names that nodes gave themselves never reach a shell.
//!
//! On failure: the attempt goes on and waits all the same; the process may come back by other means.

mod command;
pub(crate) mod container;

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use cluster::NodeId;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use runtime::{Instant, Runtime};

pub use command::{Command, CommandTemplate, TemplateError};
pub use container::{Container, NODE_LABEL};

use crate::actions::{Actions, For};
use crate::fleet::NodeTarget;

/// What a restarter did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Restart {
    /// Nothing: somebody else brings the process back.
    LeftToOthers,
    /// The process was started again, or is about to be.
    Begun,
}

/// A restarter could not do its work.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RestartError {
    /// The command could not be started or watched.
    #[error("the restart command could not be run")]
    NotRun(#[source] std::io::Error),
    /// The command ended badly.
    #[error("the restart command ended with {status}")]
    Failed {
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// It took too long, and was given up.
    #[error("no result within {limit:?}")]
    TooSlow {
        /// The time it had.
        limit: Duration,
    },
    /// The supervisor says why.
    #[error("the supervisor could not restart it: {0}")]
    Supervisor(String),
}

/// Brings the process of a node back. It must also end one that is there and hangs.
pub trait Restarter: Debug + Send + Sync {
    /// Restarts a node's process. The future may be dropped when it takes too long.
    fn restart<'a>(&'a self, node: &'a NodeTarget) -> BoxFuture<'a, Result<Restart, RestartError>>;
}

/// Leaves it to a container's restart policy or a service manager.
#[derive(Debug, Clone, Copy)]
pub struct External;

impl Restarter for External {
    fn restart<'a>(
        &'a self,
        _node: &'a NodeTarget,
    ) -> BoxFuture<'a, Result<Restart, RestartError>> {
        Box::pin(std::future::ready(Ok(Restart::LeftToOthers)))
    }
}

/// Keeps restarts of one node apart.
#[derive(Debug)]
pub(crate) struct Restarts {
    runtime: Runtime,
    restarter: Arc<dyn Restarter>,
    /// Both the least time between two restarts of a node, and the most that one may take.
    spacing: Duration,
    last: Mutex<HashMap<NodeId, Instant>>,
    actions: Actions,
}

impl Restarts {
    /// What is done is noted in `actions`.
    pub(crate) fn new(
        runtime: Runtime,
        restarter: Arc<dyn Restarter>,
        spacing: Duration,
        actions: Actions,
    ) -> Self {
        Self {
            runtime,
            restarter,
            spacing,
            last: Mutex::default(),
            actions,
        }
    }

    /// Restarts a node, unless that was done a short while ago; says which.
    pub(crate) async fn restart(
        &self,
        node: &NodeTarget,
        why: For,
    ) -> Result<Option<Restart>, RestartError> {
        let now = self.runtime.now();
        {
            let mut last = self.last.lock();
            last.retain(|_, at| now.saturating_since(*at) < self.spacing);
            if last.contains_key(&node.id) {
                return Ok(None);
            }
            last.insert(node.id, now);
        }
        let restart = self.restarter.restart(node);
        let result = self.runtime.timeout(self.spacing, restart).await;
        let result = result.unwrap_or(Err(RestartError::TooSlow {
            limit: self.spacing,
        }));
        self.actions.note_restart(node.id, why, &result);
        result.map(Some)
    }
}

#[cfg(test)]
mod tests;
