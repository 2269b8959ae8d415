//! What the other coordinators say: whether they answer, what they did, and what watchdogs told them.
//!
//! Each is asked once, all at the same time, and none is waited for longer than [`PATIENCE`]; one that does not answer is told as such and
//! keeps nothing from being told of the rest.

use std::time::Duration;

use api::admin::v1::cluster_admin_service_client::ClusterAdminServiceClient;
use api::admin::v1::{ActionReport, CoordinatorStatus, GetStatusRequest, GetStatusResponse};
use api::{ApiError, Reason};
use futures::future::join_all;
use rpc::Deadline;

use super::watchdogs::once_each;
use crate::arrival::Arrival;
use crate::status::ANSWER_BYTES_MAX;

/// How long another coordinator may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// Adds to a status what the other coordinators say.
pub(super) async fn ask(arrival: &Arrival, status: &mut GetStatusResponse) {
    let asked = status.coordinators.iter_mut().filter(|at| !at.answers);
    let said = join_all(asked.map(|other| hear(arrival, other))).await;
    status.actions.extend(said.into_iter().flatten());
    status.actions.sort_by_key(|action| action.last_ms);
    once_each(&mut status.actions);
}

/// What one of them and its watchdogs did; notes whether it answered.
async fn hear(arrival: &Arrival, other: &mut CoordinatorStatus) -> Vec<ActionReport> {
    match actions_of(arrival, other).await {
        Ok(actions) => {
            other.reached = true;
            actions
        }
        Err(error) => {
            other.reason = error.to_string();
            Vec::new()
        }
    }
}

async fn actions_of(
    arrival: &Arrival,
    other: &CoordinatorStatus,
) -> Result<Vec<ActionReport>, ApiError> {
    let runtime = &arrival.runtime;
    let deadline = Deadline::after(runtime, PATIENCE);
    let request = deadline.request(runtime, GetStatusRequest::default())?;
    let peer = ClusterAdminServiceClient::new(arrival.pool.get(&other.address)?);
    let mut peer = peer.max_decoding_message_size(ANSWER_BYTES_MAX);
    let answer = Box::pin(peer.get_status(request));
    let answer = deadline.call(runtime, answer).await?.into_inner();
    let answering = answer.coordinators.iter().find(|at| at.answers);
    let answering = answering.map(|at| at.coordinator_id);
    if answering != Some(other.coordinator_id) {
        let problem = format!("{} is another coordinator", other.address);
        return Err(ApiError::new(Reason::NotFound, problem));
    }
    let mut actions = answer.actions;
    // Of the shard servers it knows what everybody knows.
    actions
        .retain(|action| answering == Some(action.coordinator_id) || !action.watchdog.is_empty());
    Ok(actions)
}
