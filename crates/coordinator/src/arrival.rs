//! How a coordinator with a new data directory comes to its cluster.
//!
//! All coordinators of a cluster are configured with the same list. The one of the lowest id founds the cluster once all the
//! others have answered that they are as new as it is: it draws the cluster's id and notes everybody's instance. The
//! others ask around until somebody belongs to a cluster, and join when the cluster was begun with their very directory.
//!
//! One whose directory is empty although the cluster knows its number by another one has lost its disk. It asks for the place of
//! the old directory, gets it once the coordinator that leads does not hear that one any more, and joins under an identity that
//! nobody ever had ([`crate::metadata::Coordinators`]).
//!
//! What always holds: a cluster is founded once, because every member must have said that it knows of none; an empty directory
//! never votes under the identity of a lost one, because what was in that was promised to others: votes and entries of the log.
//!
//! On failure: nobody is given up. Until everybody has answered, the coordinator waits, and says for whom.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::ApiError;
use api::meta::v1::metadata_service_client::MetadataServiceClient;
use api::meta::v1::{AdmitRequest, Coordinator, GreetRequest, GreetResponse};
use cluster::{ClusterId, NodeId};
use futures::future::join_all;
use parking_lot::RwLock;
use rpc::Deadline;
use rpc::channel::Pool;
use runtime::Runtime;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use vfs::Vfs;

use crate::Error;
use crate::identity::{self, Identity, Instance, MEMBERS_MAX, Membership};
use crate::metadata::number_of;

/// Time between two rounds of greetings, and what one answer may take.
const PAUSE: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(1);
/// How often it is said for whom the start waits, in rounds.
const SAID_EVERY: u64 = 25;

pub(crate) type Client = MetadataServiceClient<Channel>;

/// Who this coordinator is, for everybody who asks.
#[derive(Debug)]
pub(crate) struct Myself {
    identity: RwLock<Identity>,
    /// The configured coordinators, this one among them.
    configured: Vec<NodeId>,
}

impl Myself {
    pub(crate) fn new(identity: Identity, configured: Vec<NodeId>) -> Self {
        Self {
            identity: RwLock::new(identity),
            configured,
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.identity.read().id
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity.read().clone()
    }

    /// The error to end with when the cluster has given the place of this directory to another one.
    pub(crate) fn replaced_in(&self, cluster: ClusterId) -> Error {
        let id = self.id();
        Error::DirectoryReplaced { id, cluster }
    }

    /// The answer to a greeting.
    pub(crate) fn greet(&self) -> GreetResponse {
        let identity = self.identity();
        let (cluster_id, members) = match identity.membership {
            Some(of) => (of.cluster.0.to_vec().into(), members_out(&of.members)),
            None => Default::default(),
        };
        GreetResponse {
            coordinator_id: identity.id.0,
            instance_id: identity.instance.to_vec().into(),
            cluster_id,
            members,
            configured_ids: self.configured.iter().map(|id| id.0).collect(),
        }
    }
}

/// What the others are reached with.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) runtime: Runtime,
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) pool: Pool,
    /// Every other coordinator by its number, and where it is.
    pub(crate) others: BTreeMap<NodeId, String>,
}

/// What another coordinator said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Greeting {
    instance: Instance,
    membership: Option<Membership>,
}

/// What follows from a round of greetings.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    Wait {
        missing: Vec<NodeId>,
    },
    Begin(BTreeMap<NodeId, Instance>),
    Join(Membership),
    /// The cluster knows another directory of this coordinator.
    Ask(ClusterId),
    /// The cluster has no coordinator of this number.
    Refused(Membership),
}

impl Arrival {
    /// Returns once the coordinator belongs to a cluster, with that on the disk.
    ///
    /// # Errors
    /// When the configuration names others than the cluster was begun with; when the disk fails.
    pub(crate) async fn establish(&self, myself: &Myself, dir: &Path) -> Result<Membership, Error> {
        let membership = match myself.identity().membership {
            Some(known) => known,
            None => self.find(myself, dir).await?,
        };
        let begun: Vec<NodeId> = membership.numbers().into_iter().collect();
        if myself.configured != begun {
            let configured = myself.configured.clone();
            return Err(Error::OtherMembers { configured, begun });
        }
        Ok(membership)
    }

    /// Where a coordinator is, by its identity, as far as the configuration says.
    pub(crate) fn address(&self, member: NodeId) -> Option<&String> {
        self.others.get(&number_of(member))
    }

    /// Notes who the coordinators are now.
    pub(crate) async fn note_members(
        &self,
        myself: &Myself,
        dir: &Path,
        membership: Membership,
    ) -> Result<(), Error> {
        let identity = Identity {
            membership: Some(membership),
            ..myself.identity()
        };
        self.store(myself, dir, identity).await
    }

    /// The cluster, if another coordinator says that this one's place was given to another directory since.
    pub(crate) async fn replaced(&self, myself: &Myself) -> Option<ClusterId> {
        let identity = myself.identity();
        let mine = identity.membership?;
        let greetings = self.greet_all(identity.id, &myself.configured).await;
        let theirs = greetings.into_values().filter_map(|at| at.membership);
        let mut later = theirs.filter(|of| of.is_later_than(&mine));
        later
            .any(|of| of.of(&identity.instance).is_none())
            .then_some(mine.cluster)
    }

    /// Notes that the metadata's log has begun here, so that its absence is noticed from now on.
    pub(crate) async fn note_begun(&self, myself: &Myself, dir: &Path) -> Result<(), Error> {
        let identity = Identity {
            begun: true,
            ..myself.identity()
        };
        self.store(myself, dir, identity).await
    }

    async fn find(&self, myself: &Myself, dir: &Path) -> Result<Membership, Error> {
        let identity = myself.identity();
        let mut round = 0_u64;
        let membership = loop {
            let greetings = self.greet_all(identity.id, &myself.configured).await;
            match conclude(&identity, &self.others, &greetings) {
                Next::Begin(members) => {
                    let cluster = ClusterId(self.runtime.random_id());
                    break Membership { cluster, members };
                }
                Next::Join(membership) => break membership,
                Next::Refused(membership) => {
                    return Err(Error::OtherMembers {
                        configured: myself.configured.clone(),
                        begun: membership.numbers().into_iter().collect(),
                    });
                }
                Next::Ask(cluster) => {
                    let answers = self.ask_all(&identity, cluster).await;
                    if round.is_multiple_of(SAID_EVERY) {
                        tracing::warn!(
                            %cluster,
                            ?answers,
                            "the cluster knows this coordinator by another data directory: asking to be taken in as a new one"
                        );
                    }
                }
                Next::Wait { missing } => {
                    if round.is_multiple_of(SAID_EVERY) {
                        tracing::info!(
                            ?missing,
                            "the data directory is new: waiting for the other coordinators"
                        );
                    }
                }
            }
            round += 1;
            self.runtime.sleep(PAUSE).await;
        };
        let identity = Identity {
            membership: Some(membership.clone()),
            ..identity
        };
        self.store(myself, dir, identity).await?;
        tracing::info!(id = %myself.id(), cluster = %membership.cluster, "this coordinator belongs to a cluster now");
        Ok(membership)
    }

    async fn store(&self, myself: &Myself, dir: &Path, identity: Identity) -> Result<(), Error> {
        let (vfs, dir, kept) = (Arc::clone(&self.vfs), dir.to_owned(), identity.clone());
        let write = move || identity::store(vfs.as_ref(), &dir, &kept);
        self.runtime
            .spawn_blocking("coordinator-id", write)
            .await??;
        *myself.identity.write() = identity;
        Ok(())
    }

    /// Asks the others for the place of a directory that can take part in nothing any more, until the one that leads gives it to a new
    /// instance. Returns who gave it.
    pub(crate) async fn until_admitted(&self, identity: &Identity, cluster: ClusterId) -> NodeId {
        let mut round = 0_u64;
        loop {
            let answers = self.ask_all(identity, cluster).await;
            if let Some(by) = answers.iter().find(|(_, said)| said.is_ok()) {
                return by.0;
            }
            if round.is_multiple_of(SAID_EVERY) {
                tracing::warn!(%cluster, ?answers, "no coordinator gives this one a new place yet");
            }
            round += 1;
            self.runtime.sleep(PAUSE).await;
        }
    }

    /// Asks the others for the place of the directory that was lost; the one that leads gives it.
    async fn ask_all(
        &self,
        identity: &Identity,
        cluster: ClusterId,
    ) -> Vec<(NodeId, Result<(), String>)> {
        let calls = self.others.iter().map(|(other, address)| async move {
            let message = AdmitRequest {
                cluster_id: cluster.0.to_vec().into(),
                coordinator_id: identity.id.0,
                instance_id: identity.instance.to_vec().into(),
            };
            let admit = |mut peer: Client, request| async move { peer.admit(request).await };
            let answer = self.call(address, PATIENCE, message, admit).await;
            (*other, answer.map(drop).map_err(|error| error.to_string()))
        });
        join_all(calls).await
    }

    async fn greet_all(&self, id: NodeId, configured: &[NodeId]) -> BTreeMap<NodeId, Greeting> {
        let calls = self.others.iter().map(|(other, address)| async move {
            let message = GreetRequest {
                coordinator_id: id.0,
            };
            let greet = |mut peer: Client, request| async move { peer.greet(request).await };
            match self.call(address, PATIENCE, message, greet).await {
                Ok(answer) => match understand(*other, configured, &answer) {
                    Ok(greeting) => Some((*other, greeting)),
                    Err(problem) => {
                        tracing::warn!(%other, address, problem, "a coordinator does not fit the configuration");
                        None
                    }
                },
                Err(error) => {
                    tracing::debug!(%other, address, %error, "a coordinator does not answer");
                    None
                }
            }
        });
        join_all(calls).await.into_iter().flatten().collect()
    }

    /// Calls a method of another coordinator.
    pub(crate) async fn call<M, A, F>(
        &self,
        address: &str,
        patience: Duration,
        message: M,
        method: impl FnOnce(Client, Request<M>) -> F,
    ) -> Result<A, ApiError>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let deadline = Deadline::after(&self.runtime, patience);
        let request = deadline.request(&self.runtime, message)?;
        let peer = Client::new(self.pool.get(address)?);
        let answer = Box::pin(method(peer, request));
        let answer = deadline.call(&self.runtime, answer).await?;
        Ok(answer.into_inner())
    }
}

fn sorted(ids: impl Iterator<Item = NodeId>) -> Vec<NodeId> {
    let mut ids: Vec<NodeId> = ids.collect();
    ids.sort_unstable();
    ids
}

pub(crate) fn conclude(
    myself: &Identity,
    others: &BTreeMap<NodeId, String>,
    greetings: &BTreeMap<NodeId, Greeting>,
) -> Next {
    let known = greetings.values().filter_map(|at| at.membership.as_ref());
    // One that was away knows an older one.
    if let Some(membership) = known.max_by_key(|of| of.newest()) {
        return if membership.of(&myself.instance).is_some() {
            Next::Join(membership.clone())
        } else if membership.numbers().contains(&myself.id) {
            Next::Ask(membership.cluster)
        } else {
            Next::Refused(membership.clone())
        };
    }
    let missing: Vec<NodeId> = others
        .keys()
        .filter(|other| !greetings.contains_key(other))
        .copied()
        .collect();
    let founder = others.keys().all(|other| myself.id < *other);
    if !missing.is_empty() || !founder {
        return Next::Wait { missing };
    }
    let instances = greetings.iter().map(|(id, at)| (*id, at.instance));
    Next::Begin(instances.chain([(myself.id, myself.instance)]).collect())
}

pub(crate) fn understand(
    expected: NodeId,
    configured: &[NodeId],
    answer: &GreetResponse,
) -> Result<Greeting, String> {
    if answer.coordinator_id != expected.0 {
        return Err(format!("it is coordinator {}", answer.coordinator_id));
    }
    let theirs = sorted(answer.configured_ids.iter().map(|id| NodeId(*id)));
    if theirs != configured {
        return Err(format!(
            "it is configured for other coordinators: {theirs:?}"
        ));
    }
    let instance = bytes_of(&answer.instance_id)?;
    let count = answer.members.len();
    if count > MEMBERS_MAX {
        // They could be written down, but not be read again.
        return Err(format!(
            "it knows {count} members, at most {MEMBERS_MAX} are"
        ));
    }
    let membership = if answer.cluster_id.is_empty() {
        None
    } else {
        let member = |at: &Coordinator| Ok((NodeId(at.coordinator_id), bytes_of(&at.instance_id)?));
        let members = answer.members.iter().map(member);
        Some(Membership {
            cluster: ClusterId(bytes_of(&answer.cluster_id)?),
            members: members.collect::<Result<_, String>>()?,
        })
    };
    Ok(Greeting {
        instance,
        membership,
    })
}

pub(crate) fn bytes_of(id: &[u8]) -> Result<[u8; 16], String> {
    let fixed = id.try_into();
    fixed.map_err(|_| format!("an id of {} bytes, not 16", id.len()))
}

fn members_out(members: &BTreeMap<NodeId, Instance>) -> Vec<Coordinator> {
    let members = members.iter().map(|(id, instance)| Coordinator {
        coordinator_id: id.0,
        instance_id: instance.to_vec().into(),
    });
    members.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh(id: u64) -> Identity {
        Identity {
            id: NodeId(id),
            instance: [id as u8; 16],
            membership: None,
            begun: false,
        }
    }

    fn others(ids: &[u64]) -> BTreeMap<NodeId, String> {
        ids.iter().map(|id| (NodeId(*id), String::new())).collect()
    }

    fn greeting(id: u64, membership: Option<&Membership>) -> (NodeId, Greeting) {
        let greeting = Greeting {
            instance: [id as u8; 16],
            membership: membership.cloned(),
        };
        (NodeId(id), greeting)
    }

    fn membership() -> Membership {
        Membership {
            cluster: ClusterId([9; 16]),
            members: (1..=3).map(|id| (NodeId(id), [id as u8; 16])).collect(),
        }
    }

    #[test]
    fn the_lowest_founds_when_everybody_is_new() {
        let all = [greeting(2, None), greeting(3, None)].into();
        let Next::Begin(members) = conclude(&fresh(1), &others(&[2, 3]), &all) else {
            panic!("nothing was begun");
        };
        assert_eq!(members, membership().members);
        let alone = conclude(&fresh(7), &BTreeMap::new(), &BTreeMap::new());
        assert_eq!(alone, Next::Begin([(NodeId(7), [7; 16])].into()));
    }

    #[test]
    fn nobody_founds_before_everybody_has_answered_and_others_never() {
        let some = [greeting(2, None)].into();
        let missing = vec![NodeId(3)];
        assert_eq!(
            conclude(&fresh(1), &others(&[2, 3]), &some),
            Next::Wait { missing }
        );
        let all = [greeting(1, None), greeting(3, None)].into();
        let missing = Vec::new();
        assert_eq!(
            conclude(&fresh(2), &others(&[1, 3]), &all),
            Next::Wait { missing }
        );
    }

    #[test]
    fn one_member_that_is_there_is_enough_to_join_or_to_ask() {
        let one = [greeting(1, Some(&membership()))].into();
        assert_eq!(
            conclude(&fresh(2), &others(&[1, 3]), &one),
            Next::Join(membership())
        );
        let emptied = Identity {
            instance: [77; 16],
            ..fresh(2)
        };
        assert_eq!(
            conclude(&emptied, &others(&[1, 3]), &one),
            Next::Ask(ClusterId([9; 16]))
        );
        let stranger = fresh(4);
        assert_eq!(
            conclude(&stranger, &others(&[1, 3]), &one),
            Next::Refused(membership())
        );
        // The founder that has lost its disk does not found again.
        let emptied = Identity {
            instance: [77; 16],
            ..fresh(1)
        };
        let two = [greeting(2, None), greeting(3, Some(&membership()))].into();
        assert_eq!(
            conclude(&emptied, &others(&[2, 3]), &two),
            Next::Ask(ClusterId([9; 16]))
        );
        // Once it was taken in, who knows of it counts, and not who was away.
        let mut later = membership();
        later.members.remove(&NodeId(1));
        later.members.insert(NodeId((1 << 32) | 1), [77; 16]);
        let both = [greeting(2, Some(&later)), greeting(3, Some(&membership()))].into();
        assert_eq!(
            conclude(&emptied, &others(&[2, 3]), &both),
            Next::Join(later)
        );
    }

    #[test]
    fn an_answer_of_somebody_else_is_not_taken() {
        let answer = Myself::new(fresh(2), vec![NodeId(1), NodeId(2)]).greet();
        let configured = [NodeId(1), NodeId(2)];
        assert!(understand(NodeId(2), &configured, &answer).is_ok());
        assert!(understand(NodeId(1), &configured, &answer).is_err());
        let more = [NodeId(1), NodeId(2), NodeId(3)];
        assert!(understand(NodeId(2), &more, &answer).is_err());
        let member = Identity {
            membership: Some(membership()),
            ..fresh(2)
        };
        let answer = Myself::new(member, more.to_vec()).greet();
        let greeting = understand(NodeId(2), &more, &answer).unwrap();
        assert_eq!(greeting.membership, Some(membership()));
    }

    #[test]
    fn more_members_than_the_file_takes_are_not_believed() {
        let configured = [NodeId(1), NodeId(2)];
        let answer = |members: u64| {
            let members = (1..=members).map(|id| (NodeId(id), [1; 16])).collect();
            let cluster = ClusterId([9; 16]);
            let member = Identity {
                membership: Some(Membership { cluster, members }),
                ..fresh(2)
            };
            Myself::new(member, configured.to_vec()).greet()
        };
        let understood = |members| understand(NodeId(2), &configured, &answer(members));
        assert!(understood(MEMBERS_MAX as u64).is_ok());
        assert!(understood(MEMBERS_MAX as u64 + 1).is_err());
    }
}
