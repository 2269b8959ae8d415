//! What the other coordinators say: whether they answer, what they did, what watchdogs told them, what they hear of the shard servers,
//! and what they hold.
//!
//! Each is asked once, all at the same time, and none is waited for longer than [`PATIENCE`]; one that does not answer is told as such and
//! keeps nothing from being told of the rest.

use std::time::Duration;

use api::admin::v1::cluster_admin_service_client::ClusterAdminServiceClient;
use api::admin::v1::{
    ActionReport, CoordinatorStatus, GetStatusRequest, GetStatusResponse, ListSnapshotsRequest,
    SnapshotInfo,
};
use api::{ApiError, Reason};
use futures::future::join_all;
use rpc::Deadline;
use tonic::transport::Channel;

use super::watchdogs::once_each;
use crate::arrival::Arrival;
use crate::meta::Meta;
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

/// The cluster as the other coordinators see it, each by what it hears itself; of those that answer.
pub(crate) async fn views(meta: &Meta) -> Vec<GetStatusResponse> {
    let mut others = meta.coordinators();
    others.retain(|at| !at.answers);
    let asked = others.iter().map(|other| view_of(meta.arrival(), other));
    let said = join_all(asked).await;
    let mut views = Vec::new();
    for (other, said) in others.iter().zip(said) {
        match said.and_then(|view| check_is(other, &view).map(|()| view)) {
            Ok(view) => views.push(view),
            Err(error) => {
                let coordinator = other.coordinator_id;
                tracing::warn!(coordinator, %error, "what another coordinator hears is not known");
            }
        }
    }
    views
}

async fn hear(arrival: &Arrival, other: &CoordinatorStatus) -> Said {
    actions_of(other, view_of(arrival, other).await?)
}

async fn view_of(
    arrival: &Arrival,
    other: &CoordinatorStatus,
) -> Result<GetStatusResponse, ApiError> {
    let runtime = &arrival.runtime;
    let deadline = Deadline::after(runtime, PATIENCE);
    let request = deadline.request(runtime, GetStatusRequest::default())?;
    let mut peer = peer(arrival, other)?;
    let answer = Box::pin(peer.get_status(request));
    Ok(deadline.call(runtime, answer).await?.into_inner())
}

/// The snapshots that each of the other coordinators holds, by its number, or why it does not say so.
pub(crate) async fn held(meta: &Meta) -> Vec<(u64, Result<Vec<SnapshotInfo>, ApiError>)> {
    let mut others = meta.coordinators();
    others.retain(|at| !at.answers);
    let asked = others.iter().map(|other| held_by(meta.arrival(), other));
    let said = join_all(asked).await;
    let numbers = others.iter().map(|other| other.coordinator_id);
    numbers.zip(said).collect()
}

async fn held_by(
    arrival: &Arrival,
    other: &CoordinatorStatus,
) -> Result<Vec<SnapshotInfo>, ApiError> {
    let runtime = &arrival.runtime;
    let deadline = Deadline::after(runtime, PATIENCE);
    let request = deadline.request(runtime, ListSnapshotsRequest {})?;
    let mut peer = peer(arrival, other)?;
    let answer = Box::pin(peer.list_snapshots(request));
    Ok(deadline.call(runtime, answer).await?.into_inner().snapshots)
}

fn peer(
    arrival: &Arrival,
    other: &CoordinatorStatus,
) -> Result<ClusterAdminServiceClient<Channel>, ApiError> {
    let peer = ClusterAdminServiceClient::new(arrival.pool.get(&other.address)?);
    Ok(peer.max_decoding_message_size(ANSWER_BYTES_MAX))
}

/// What one of them and its watchdogs did, as its answer tells it.
pub(crate) fn actions_of(other: &CoordinatorStatus, answer: GetStatusResponse) -> Said {
    check_is(other, &answer)?;
    let mut actions = answer.actions;
    // Of the shard servers it knows what everybody knows.
    actions.retain(|action| {
        action.coordinator_id == other.coordinator_id || !action.watchdog.is_empty()
    });
    Ok(actions)
}

fn check_is(other: &CoordinatorStatus, answer: &GetStatusResponse) -> Result<(), ApiError> {
    let answering = answer.coordinators.iter().find(|at| at.answers);
    if answering.map(|at| at.coordinator_id) == Some(other.coordinator_id) {
        return Ok(());
    }
    let problem = format!("{} is another coordinator", other.address);
    Err(ApiError::new(Reason::NotFound, problem))
}
