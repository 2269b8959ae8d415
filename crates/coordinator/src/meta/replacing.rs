//! A coordinator whose disk was lost comes back with an empty directory: how it gets the place of the old one.
//!
//! The new directory asks whoever leads ([`Meta::admit`]), and the intent is written into the metadata before the group hears of it.
//! From then on every coordinator notes who the others are ([`Meta::note_coordinators`]), so that the newcomer finds itself named
//! and joins, and the one that leads brings the members of the group to what the metadata say ([`Meta::settle_members`]), be it
//! another one by then.
//!
//! What always holds: a directory whose coordinator is still heard keeps its place; the newcomer has an identity that never voted, and
//! gets a vote once it has caught up.
//!
//! On failure: the next look goes on from the metadata.

use std::collections::BTreeMap;
use std::time::Duration;

use api::{ApiError, Reason};
use cluster::NodeId;
use replication::{ChangeError, Member, Peer};

use super::Meta;
use super::proposing::unready;
use crate::Error;
use crate::actions::{About, Action, PLANNED};
use crate::arrival::Myself;
use crate::identity::{Instance, Membership};
use crate::metadata::{Admission, Command, number_of};

/// How long one look waits for a newcomer to catch up; the next one goes on.
const CATCH_UP_PATIENCE: Duration = Duration::from_millis(400);

impl Meta {
    /// Gives a new directory the place of a coordinator that is not heard any more. Only the one that leads does.
    pub(super) async fn admit(
        &self,
        myself: &Myself,
        number: NodeId,
        instance: Instance,
    ) -> Result<(), ApiError> {
        self.group.lease_check().map_err(|error| unready(&error))?;
        let begun = myself.identity().membership.unwrap_or_default();
        let present = self.read(|state| {
            let members = &state.coordinators.members;
            if members.is_empty() {
                &begun.members
            } else {
                members
            }
            .clone()
        });
        if present.values().any(|known| *known == instance) {
            return Ok(());
        }
        let holder = present.keys().find(|id| number_of(**id) == number);
        let is_heard =
            |holder: &NodeId| *holder == self.id || self.group.successors().contains(holder);
        if holder.is_some_and(is_heard) {
            let message = format!("coordinator {number} is at work with another data directory");
            return Err(ApiError::new(Reason::NotNeeded, message));
        }
        let command = Command::AdmitCoordinator(Admission {
            number,
            instance,
            begun: begun.members,
        });
        let admitted = self.propose(&command).await;
        self.actions.count(
            Action::AdmitCoordinator,
            "lost_directory",
            About::default(),
            &admitted,
        );
        admitted?;
        tracing::warn!(%number, "a coordinator lost its data directory, and a new one gets its place");
        Ok(())
    }

    /// Refuses a coordinator whose place was given to another directory while it was away.
    pub(super) fn check_place(&self, from: NodeId) -> Result<(), ApiError> {
        let has_place = self.read(|state| {
            let members = &state.coordinators.members;
            members.is_empty() || members.contains_key(&from)
        });
        if has_place {
            return Ok(());
        }
        let number = number_of(from);
        let message = format!("another data directory has the place of coordinator {number}");
        Err(ApiError::new(Reason::NodeLost, message))
    }

    /// Notes on the disk who the coordinators are now.
    ///
    /// # Errors
    /// When this one is not among them any more, or the disk fails.
    pub(super) async fn note_coordinators(&self, myself: &Myself) -> Result<(), Error> {
        let members = self.read(|state| state.coordinators.members.clone());
        let identity = myself.identity();
        let noted = identity.membership.as_ref();
        if members.is_empty() || noted.is_some_and(|of| of.members == members) {
            return Ok(());
        }
        let cluster = self.cluster;
        let membership = Membership { cluster, members };
        // One that catches up reads of the past, too: what it was told when it was taken in is newer.
        if noted.is_some_and(|of| of.is_later_than(&membership)) {
            return Ok(());
        }
        if membership.of(&identity.instance).is_none() {
            return Err(myself.replaced_in(cluster));
        }
        let noted = self
            .arrival
            .note_members(myself, &self.data_dir, membership);
        noted.await
    }

    /// Brings the members of the group one step closer to what the metadata say. Only the one that leads does.
    pub(super) async fn settle_members(&self) {
        let wanted = self.read(|state| state.coordinators.members.clone());
        if wanted.is_empty() || !self.leads() {
            return;
        }
        let status = self.group.status();
        let step = match next_step(&wanted, &status.members, status.joint) {
            Some(Step::Remove(id)) => self.group.remove(id).await.map(|()| id),
            Some(Step::TakeIn(id)) => self.take_in(id).await.map(|()| id),
            Some(Step::Finish(id)) => self.group.promote(id).await.map(|()| id),
            None => return,
        };
        self.actions
            .count(Action::ChangeCoordinators, PLANNED, About::default(), &step);
        match step {
            Ok(member) => tracing::info!(%member, "the coordinators have changed"),
            Err(error) => tracing::info!(%error, "the coordinators wait to be changed"),
        }
    }

    async fn take_in(&self, id: NodeId) -> Result<(), ChangeError> {
        let address = self.arrival.address(id).cloned().unwrap_or_default();
        let peer = Peer { node: id, address };
        self.group.add_learner(peer, CATCH_UP_PATIENCE).await?;
        self.group.promote(id).await
    }
}

/// One step towards the members that the metadata want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Remove(NodeId),
    TakeIn(NodeId),
    /// The last change is half done, for the leader that began it has lost the lead in between. Giving a vote to a member that has one
    /// completes it.
    Finish(NodeId),
}

fn next_step(
    wanted: &BTreeMap<NodeId, Instance>,
    present: &[Member],
    is_joint: bool,
) -> Option<Step> {
    if let Some(gone) = present.iter().find(|at| !wanted.contains_key(&at.node)) {
        return Some(Step::Remove(gone.node));
    }
    let votes = |id: &NodeId| present.iter().any(|at| at.node == *id && at.voter);
    if let Some(id) = wanted.keys().find(|id| !votes(id)) {
        return Some(Step::TakeIn(*id));
    }
    let any = wanted.keys().next().filter(|_| is_joint)?;
    Some(Step::Finish(*any))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_is_half_done_is_finished_when_all_the_others_are() {
        let wanted: BTreeMap<NodeId, Instance> =
            [1, 2, 3].map(|id| (NodeId(id), Instance::default())).into();
        let member = |id: u64, voter: bool| Member {
            node: NodeId(id),
            address: String::new(),
            voter,
        };
        let of = |members: [(u64, bool); 3], is_joint: bool| {
            let present = members.map(|(id, voter)| member(id, voter));
            next_step(&wanted, &present, is_joint)
        };
        let all = [(1, true), (2, true), (3, true)];
        assert_eq!(of(all, false), None);
        assert_eq!(of(all, true), Some(Step::Finish(NodeId(1))));
        for is_joint in [false, true] {
            let learns = [(1, true), (2, true), (3, false)];
            assert_eq!(of(learns, is_joint), Some(Step::TakeIn(NodeId(3))));
            let stays = [(1, true), (2, true), (9, true)];
            assert_eq!(of(stays, is_joint), Some(Step::Remove(NodeId(9))));
        }
    }
}
