//! What the metadata group needs to be looked after: the first command of the cluster, the note that the log has begun, and the
//! question whether a majority is at work.

use std::time::Duration;

use api::meta::v1::ConfirmRequest;
use api::{ApiError, Reason};
use replication::METADATA_GROUP;

use super::Meta;
use super::proposing::{PATIENCE, PAUSE, concluded, unready};
use crate::Error;
use crate::arrival::{Client, Myself};
use crate::config::Config;
use crate::metadata::Command;

/// How long a group of one may take to elect itself before its start fails.
const LEAD_PATIENCE: Duration = Duration::from_secs(30);
const LEAD_POLL: Duration = Duration::from_millis(5);
/// How often it is looked whether a majority is at work, and while none is.
const LOOK: Duration = Duration::from_millis(500);
const LOOK_FAST: Duration = Duration::from_millis(50);
const CONFIRM_PATIENCE: Duration = Duration::from_secs(1);
/// Looks without a majority after which the others are asked whether this coordinator was replaced.
const LOOKS_A_QUESTION: u32 = 40;

impl Meta {
    /// Begins the cluster of a single coordinator, unless it has begun: nobody else has to be waited for.
    pub(crate) async fn begin_alone(&self, config: &Config, myself: &Myself) -> Result<(), Error> {
        if !self.arrival.others.is_empty() {
            return Ok(());
        }
        let begun = async {
            loop {
                if let Err(replication::ReadError::Stopped { reason }) = self.group.lease_check() {
                    return Err(Error::MetadataStopped { reason });
                }
                if self.leads() {
                    return self.look_after(config, myself).await;
                }
                self.runtime.sleep(LEAD_POLL).await;
            }
        };
        let waited = self.runtime.timeout(LEAD_PATIENCE, begun).await;
        waited.unwrap_or_else(|_| {
            Err(Error::MetadataStopped {
                reason: "no leader was elected".into(),
            })
        })
    }

    /// Looks after the group for as long as it goes well.
    pub(crate) async fn keep(&self, config: &Config, myself: &Myself) -> Error {
        let mut unavailable: u32 = 0;
        loop {
            if let Err(error) = self.look_after(config, myself).await {
                return error;
            }
            let is_available = self.is_available();
            unavailable = if is_available {
                0
            } else {
                unavailable.wrapping_add(1)
            };
            // Whoever was replaced while it was away hears of it from the others, for the group does not know it any more.
            if unavailable.is_multiple_of(LOOKS_A_QUESTION)
                && !is_available
                && let Some(cluster) = self.arrival.replaced(myself).await
            {
                return myself.replaced_in(cluster);
            }
            let pause = if is_available { LOOK } else { LOOK_FAST };
            self.runtime.sleep(pause).await;
        }
    }

    async fn look_after(&self, config: &Config, myself: &Myself) -> Result<(), Error> {
        if !myself.identity().begun && self.host.exists(METADATA_GROUP)? {
            self.arrival.note_begun(myself, &self.data_dir).await?;
        }
        match self.read(|state| state.cluster) {
            Some(found) if found != self.cluster => {
                return Err(Error::ForeignMetadata {
                    expected: self.cluster,
                    found,
                });
            }
            None if self.leads() => self.init(config).await?,
            Some(_) | None => {}
        }
        self.note_coordinators(myself).await?;
        self.settle_members().await;
        match self.confirm(CONFIRM_PATIENCE).await {
            Ok(_) => *self.confirmed.lock() = Some(self.runtime.now()),
            Err(error) if error.reason() == Reason::NodeLost => {
                return Err(myself.replaced_in(self.cluster));
            }
            Err(error) => tracing::debug!(%error, "no leader of the metadata is confirmed"),
        }
        Ok(())
    }

    async fn init(&self, config: &Config) -> Result<(), Error> {
        let init = Command::Init {
            cluster: self.cluster,
            template: config.cluster.template.clone(),
            replicas: u32::try_from(config.cluster.replicas).unwrap_or(u32::MAX),
        };
        match self.propose(&init).await {
            Ok(_) => {
                tracing::info!(cluster = %self.cluster, "a new cluster has begun");
                Ok(())
            }
            // Another coordinator was faster, or will be: of several only one is the first in the log.
            Err(error) if !self.arrival.others.is_empty() => {
                tracing::info!(%error, "the cluster was not begun from here");
                Ok(())
            }
            Err(error) => Err(Error::Init {
                reason: error.to_string(),
            }),
        }
    }

    /// Waits until everything is applied here that was changed before the call, through whichever coordinator.
    pub(crate) async fn catch_up(&self) -> Result<(), ApiError> {
        let until = self.runtime.now() + PATIENCE;
        loop {
            let left = until.saturating_since(self.runtime.now());
            let error = match self.confirm(left.min(CONFIRM_PATIENCE)).await {
                Ok(index) => {
                    let applied = self.group.wait_applied(index, PATIENCE).await;
                    return applied.map(drop).map_err(|error| unready(&error));
                }
                Err(error) => error,
            };
            if self.runtime.now() + PAUSE >= until {
                return Err(concluded(error, false));
            }
            self.runtime.sleep(PAUSE).await;
        }
    }

    /// Has a majority say that the leader that is known here leads, and asks it up to where it has applied.
    async fn confirm(&self, patience: Duration) -> Result<u64, ApiError> {
        let Some((leader, address)) = self.leader() else {
            return self.confirm_here(patience).await;
        };
        let message = ConfirmRequest {
            cluster_id: self.cluster.0.to_vec().into(),
            to_coordinator_id: leader.0,
            from_coordinator_id: self.id.0,
        };
        let confirm = |mut peer: Client, request| async move { peer.confirm(request).await };
        let answer = self
            .arrival
            .call(&address, patience, message, confirm)
            .await?;
        Ok(answer.applied_index)
    }

    /// Has a majority say that this coordinator leads, and says up to where it has applied then. Not by its lease: one whose clock is slow keeps
    /// that while others lead, and what they have changed since would be denied by it.
    pub(super) async fn confirm_here(&self, patience: Duration) -> Result<u64, ApiError> {
        let confirmed = self.group.read_index(patience).await;
        confirmed
            .map(|at| at.applied.index)
            .map_err(|error| unready(&error))
    }
}
