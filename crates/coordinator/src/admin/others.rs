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
    let asked = status.coordinators.iter().filter(|at| !at.answers);
    let said = join_all(asked.map(|other| hear(arrival, other))).await;
    add(status, said);
}

/// What was heard of one of them: what it and its watchdogs did, or why nothing was.
type Said = Result<Vec<ActionReport>, ApiError>;

/// Adds what was heard of those that were to be asked, in their order.
pub(crate) fn add(status: &mut GetStatusResponse, said: Vec<Said>) {
    let asked = status.coordinators.iter_mut().filter(|at| !at.answers);
    for (other, said) in asked.zip(said) {
        match said {
            Ok(actions) => {
                other.reached = true;
                status.actions.extend(actions);
            }
            Err(error) => other.reason = error.to_string(),
        }
    }
    status.actions.sort_by_key(|action| action.last_ms);
    once_each(&mut status.actions);
}

async fn hear(arrival: &Arrival, other: &CoordinatorStatus) -> Said {
    let runtime = &arrival.runtime;
    let deadline = Deadline::after(runtime, PATIENCE);
    let request = deadline.request(runtime, GetStatusRequest::default())?;
    let peer = ClusterAdminServiceClient::new(arrival.pool.get(&other.address)?);
    let mut peer = peer.max_decoding_message_size(ANSWER_BYTES_MAX);
    let answer = Box::pin(peer.get_status(request));
    let answer = deadline.call(runtime, answer).await?.into_inner();
    actions_of(other, answer)
}

/// What one of them and its watchdogs did, as its answer tells it.
pub(crate) fn actions_of(other: &CoordinatorStatus, answer: GetStatusResponse) -> Said {
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
