//! The registry: who is there, and what each should do.

use std::sync::Arc;

use api::admin::v1::ReplicaAudit;
use api::registry::v1::registry_service_server::RegistryService;
use api::registry::v1::{
    AgreedAudit, Assignment, ClearNamespaceRequest, ClearNamespaceResponse, RegisterRequest,
    RegisterResponse, ResolveNamespaceRequest, ResolveNamespaceResponse, SyncRequest, SyncResponse,
};
use api::validate::ClearNamespace;
use api::{ApiError, Reason, RequestId};
use cluster::{ClusterId, Incarnation, Node, NodeId, Shard, ShardId, limits};
use rpc::Deadline;
use runtime::Runtime;
use term::NamespaceName;
use tonic::{Request, Response, Status};

use crate::actions::{About, Action, Actions, check_actions};
use crate::liveness::{Liveness, Report};
use crate::meta::{Meta, unexpected};
use crate::metadata::{self, Command, Registration, ShardRecord, State};
use crate::placement::audit;
use crate::routing::Router;
use crate::snapshots::Held;

/// Bytes of a node's name, its address and its region.
const NAME_BYTES_MAX: usize = 255;
/// Hashes of its state that a replica reports, and the bytes of one.
const AUDITS_MAX: usize = 4;
const AUDIT_HASH_BYTES: usize = 32;

/// `RegistryService`.
#[derive(Debug)]
pub(crate) struct Registry {
    pub(crate) runtime: Runtime,
    pub(crate) meta: Arc<Meta>,
    pub(crate) liveness: Arc<Liveness>,
    pub(crate) router: Arc<Router>,
    pub(crate) actions: Actions,
}

#[tonic::async_trait]
impl RegistryService for Registry {
    async fn register(
        &self,
        request: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        Ok(Response::new(
            self.register_node(request.into_inner()).await?,
        ))
    }

    async fn sync(&self, request: Request<SyncRequest>) -> Result<Response<SyncResponse>, Status> {
        Ok(Response::new(self.sync_node(request.into_inner()).await?))
    }

    async fn resolve_namespace(
        &self,
        request: Request<ResolveNamespaceRequest>,
    ) -> Result<Response<ResolveNamespaceResponse>, Status> {
        Ok(Response::new(self.resolve(request.into_inner()).await?))
    }

    async fn clear_namespace(
        &self,
        request: Request<ClearNamespaceRequest>,
    ) -> Result<Response<ClearNamespaceResponse>, Status> {
        let deadline = Deadline::of(&request, &self.runtime);
        let clear = clear_of(request.into_inner()).map_err(ApiError::for_write)?;
        let cleared = self.router.clear(clear, deadline.at()).await;
        let cleared = cleared.map_err(ApiError::for_write)?;
        Ok(Response::new(ClearNamespaceResponse {
            generation: cleared.generation,
        }))
    }
}

impl Registry {
    async fn register_node(&self, request: RegisterRequest) -> Result<RegisterResponse, ApiError> {
        let registration = registration(request)?;
        let knows = |state: &State| {
            let mut nodes = state.nodes.values();
            nodes.any(|record| record.instance == registration.instance)
        };
        // Who has the name may have registered with another coordinator just now.
        if !self.meta.read(knows) {
            self.meta.catch_up().await?;
        }
        let (rival, reason) = self.meta.read(|state| {
            let is_known = knows(state);
            let rival = rival(state, &registration);
            let reason = match rival {
                _ if is_known => "again",
                Some(_) => "lost_directory",
                None => "new",
            };
            (rival, reason)
        });
        let admitted = self.admit(registration, rival).await;
        let node = admitted
            .as_ref()
            .ok()
            .map(|admitted| NodeId(admitted.node_id));
        let about = About::default().with_node(node.or(rival));
        self.actions
            .count(Action::AdmitNode, reason, about, &admitted);
        admitted
    }

    async fn admit(
        &self,
        registration: Registration,
        rival: Option<NodeId>,
    ) -> Result<RegisterResponse, ApiError> {
        // A name that is in use by a node that is alive: the new one must wait until it is sure that the old one has gone. One coordinator
        // decides, so that no node loses its identity to whichever hears least.
        let has_gone = |node: NodeId| self.meta.leads() && self.liveness.is_gone(node);
        if let Some(rival) = rival.filter(|rival| !has_gone(*rival)) {
            let message = format!("node {rival} has this name and may be alive");
            return Err(ApiError::new(Reason::Starting, message));
        }
        let is_drained = self.meta.read(|state| is_drained(state, &registration));
        let name = registration.name.clone();
        let command = Command::RegisterNode(registration);
        let response = self.meta.propose(&command).await?;
        let metadata::Response::Node { id, cluster } = response else {
            return Err(unexpected(&response));
        };
        tracing::info!(node = %id, name, "a shard server has registered");
        // Before it is answered: it reports only then, and is given nothing before that. Should this fail, it asks again.
        if is_drained {
            self.go_on_draining(id).await?;
        }
        Ok(RegisterResponse {
            node_id: id.0,
            cluster_id: cluster.0.to_vec().into(),
        })
    }

    /// Not by the rules of the metadata, by which another identity begins without the mark: coordinators of before apply these, too.
    async fn go_on_draining(&self, node: NodeId) -> Result<(), ApiError> {
        let draining = true;
        let command = Command::SetDraining { node, draining };
        let told = self.meta.propose(&command).await;
        let about = About::node(node);
        self.actions
            .count(Action::Drain, "taken_over", about, &told);
        told.map(drop)
    }

    async fn sync_node(&self, request: SyncRequest) -> Result<SyncResponse, ApiError> {
        let node = NodeId(request.node_id);
        let address = self.address_of(&request).await?;
        check_report(&request)?;
        let mut changes = self.begun(&request);
        if address != request.address {
            check_text("address", &request.address)?;
            let address = request.address.clone();
            changes.push(Command::UpdateAddress { node, address });
        }
        let known_epoch = request.known_epoch;
        self.note(node, request);
        self.tell(changes).await;
        let (assignments, epoch) = self
            .meta
            .read(|state| (assignments(state, node), state.epoch));
        let map = self
            .meta
            .map()
            .filter(|map| map.epoch.0 != known_epoch)
            .map(|map| map.as_ref().into());
        Ok(SyncResponse {
            assignments,
            map,
            epoch: epoch.0,
            audits: self.refuted(node),
        })
    }

    /// The address of a node that may report, as the map has it.
    async fn address_of(&self, request: &SyncRequest) -> Result<String, ApiError> {
        let known = || {
            let node = NodeId(request.node_id);
            self.meta.read(|state| {
                let record = state.nodes.get(&node);
                (state.cluster, record.map(|record| record.node.clone()))
            })
        };
        if let Some(address) = check_node(request, known())? {
            return Ok(address);
        }
        let unknown = |reason| {
            let message = format!("the identity {} is not known", request.node_id);
            ApiError::new(reason, message)
        };
        if !self.meta.leads() {
            return Err(unknown(Reason::Starting));
        }
        // Only a leader that a majority confirms has certainly applied every identity that was ever issued: where its clock is slow, another
        // one may have issued this one.
        self.meta.catch_up().await?;
        let address = check_node(request, known())?;
        address.ok_or_else(|| unknown(Reason::NodeLost))
    }

    /// What a majority has, for each replica of a node that has something else. Only the leader surely knows who votes.
    fn refuted(&self, node: NodeId) -> Vec<AgreedAudit> {
        if !self.meta.leads() {
            return Vec::new();
        }
        let shards: Vec<Shard> = self.meta.read(|state| {
            let shards = state.shards.values().map(|record| &record.shard);
            let here = shards.filter(|shard| shard.replicas.iter().any(|at| at.node == node));
            here.cloned().collect()
        });
        let refuted = shards.iter().filter_map(|shard| {
            let verdict = audit::judge(&self.liveness.voices(shard))?;
            let agreed = verdict.agreed?;
            verdict.differing.contains(&node).then(|| AgreedAudit {
                shard_id: shard.id.0,
                incarnation: shard.incarnation.0,
                audit: Some(ReplicaAudit {
                    index: agreed.index,
                    version: agreed.version,
                    hash: agreed.hash.into(),
                }),
            })
        });
        refuted.collect()
    }

    /// What a node's report says of groups that the metadata do not know to exist: one that exists must never be begun again.
    fn begun(&self, request: &SyncRequest) -> Vec<Command> {
        self.meta.read(|state| {
            let reported = |record: &&ShardRecord| {
                !record.begun
                    && request.replicas.iter().any(|at| {
                        at.shard_id == record.shard.id.0
                            && at.incarnation == record.shard.incarnation.0
                            && at.serving
                    })
            };
            let begun = state.shards.values().filter(reported);
            begun
                .map(|record| Command::ShardBegun {
                    shard: record.shard.id,
                    incarnation: record.shard.incarnation,
                })
                .collect()
        })
    }

    /// Brings what a node reports into the metadata. Without a majority that has to wait: the node reports again, and is heard all
    /// the same.
    async fn tell(&self, changes: Vec<Command>) {
        if !self.meta.is_available() {
            return;
        }
        for change in changes {
            if let Err(error) = self.meta.propose(&change).await {
                tracing::info!(%error, ?change, "a report did not reach the metadata, waiting for the next");
                return;
            }
        }
    }

    /// Takes in what a node reports.
    fn note(&self, node: NodeId, request: SyncRequest) {
        for replica in &request.replicas {
            if replica.leader_node_id > 0 {
                let leader = NodeId(replica.leader_node_id);
                let shard = ShardId(replica.shard_id);
                let life = Incarnation(replica.incarnation);
                let from = (life, replica.raft_term);
                self.router.learn_leader(shard, leader, from);
            }
        }
        self.liveness.hear(node, report_of(request));
    }

    async fn resolve(
        &self,
        request: ResolveNamespaceRequest,
    ) -> Result<ResolveNamespaceResponse, ApiError> {
        let name = namespace(&request.name)?;
        let find = || {
            let map = self.meta.map()?;
            let found = map.namespaces.get(&name).map(Into::into);
            Some((found, map.epoch.0))
        };
        let mut found = find();
        if found.as_ref().is_none_or(|(found, _)| found.is_none()) {
            if request.create {
                self.router.create_namespace(&name).await?;
            } else {
                self.meta.catch_up().await?;
            }
            found = find();
        }
        let (namespace, epoch) = found
            .ok_or_else(|| ApiError::new(Reason::Starting, "the metadata is not readable yet"))?;
        Ok(ResolveNamespaceResponse { namespace, epoch })
    }
}

/// What is kept of a node's report.
pub(crate) fn report_of(request: SyncRequest) -> Report {
    Report {
        replicas: request.replicas,
        process_memory_bytes: request.process_memory_bytes,
        disk_free_bytes: request.disk_free_bytes,
        disk_full: request.disk_full,
        disk_stalled: request.disk_stalled,
        data_loss: request.data_loss,
        reason: request.reason,
        actions: request.actions,
    }
}

/// The replicas that a node should host.
fn assignments(state: &State, node: NodeId) -> Vec<Assignment> {
    let hosts = |record: &&ShardRecord| record.shard.replicas.iter().any(|at| at.node == node);
    state
        .shards
        .values()
        .filter(hosts)
        .map(|record| {
            let shard = &record.shard;
            let bootstrap = !record.begun && founder(shard) == Some(node);
            let peers = shard
                .replicas
                .iter()
                .filter_map(|at| state.nodes.get(&at.node));
            Assignment {
                shard_id: shard.id.0,
                incarnation: shard.incarnation.0,
                replicas: shard.replicas.iter().map(Into::into).collect(),
                peers: peers.map(|record| (&record.node).into()).collect(),
                bootstrap,
                seed: record
                    .seed
                    .as_ref()
                    .filter(|_| bootstrap)
                    .map(|seed| (&Held::of_seed(shard.id, seed)).into()),
            }
        })
        .collect()
}

/// The voter that founds the group of a shard, and leads it first. It is another for each shard, so that the leads are spread; all
/// coordinators name the same one.
pub(crate) fn founder(shard: &Shard) -> Option<NodeId> {
    let voters = shard.replicas.iter().filter(|at| at.voter);
    let mut voters: Vec<NodeId> = voters.map(|at| at.node).collect();
    voters.sort_unstable();
    let count = u64::try_from(voters.len())
        .ok()
        .filter(|count| *count > 0)?;
    let turn = shard.id.0.wrapping_sub(1) % count;
    voters.get(usize::try_from(turn).ok()?).copied()
}

/// The identity that a registration would take the place of.
fn rival(state: &State, registration: &Registration) -> Option<NodeId> {
    let mut nodes = state.nodes.values();
    if nodes.any(|record| record.instance == registration.instance) {
        return None;
    }
    state
        .nodes
        .values()
        .find(|record| record.node.name == registration.name && !record.node.lost)
        .map(|record| record.node.id)
}

/// Whether the server of a name was to hold nothing by the identity that it had before: a person said that of the server, which has only lost
/// its data.
fn is_drained(state: &State, registration: &Registration) -> bool {
    let mut records = state.nodes.values();
    let before = records.rfind(|record| {
        record.node.name == registration.name && record.instance != registration.instance
    });
    before.is_some_and(|record| record.draining)
}

/// Whether a node may report; its address as the map has it, where it is in the map.
fn check_node(
    request: &SyncRequest,
    (cluster, node): (Option<ClusterId>, Option<Node>),
) -> Result<Option<String>, ApiError> {
    let cluster = cluster
        .ok_or_else(|| ApiError::new(Reason::Starting, "the metadata is not readable yet"))?;
    if request.cluster_id.as_ref() != cluster.0 {
        let message = "this node belongs to another cluster";
        return Err(ApiError::new(Reason::WrongCluster, message));
    }
    match node {
        Some(node) if !node.lost => Ok(Some(node.address)),
        Some(node) => {
            let message = format!("the identity {} was given up", node.id);
            Err(ApiError::new(Reason::NodeLost, message))
        }
        None => Ok(None),
    }
}

/// Whether a report is one that a node can make: it hosts each shard once. What is kept of it and looked through is bounded by that.
pub(crate) fn check_report(request: &SyncRequest) -> Result<(), ApiError> {
    let count = request.replicas.len();
    if count > limits::SHARDS_MAX {
        let problem = format!("{count} of them, at most {} are", limits::SHARDS_MAX);
        return Err(ApiError::field(Reason::BadArgument, "replicas", problem));
    }
    for (place, replica) in request.replicas.iter().enumerate() {
        let audits = &replica.audits;
        let is_hash = |audit: &ReplicaAudit| audit.hash.len() == AUDIT_HASH_BYTES;
        if audits.len() > AUDITS_MAX || !audits.iter().all(is_hash) {
            let field = format!("replicas[{place}].audits");
            let problem = format!("must be at most {AUDITS_MAX}, of {AUDIT_HASH_BYTES} bytes each");
            return Err(ApiError::field(Reason::BadArgument, field, problem));
        }
    }
    check_actions("actions", &request.actions)
}

pub(crate) fn registration(request: RegisterRequest) -> Result<Registration, ApiError> {
    check_text("node_name", &request.node_name)?;
    check_text("address", &request.address)?;
    if !request.region.is_empty() {
        check_text("region", &request.region)?;
    }
    let instance = request.instance_id.as_ref().try_into().map_err(|_| {
        let problem = format!("has {} bytes, must have 16", request.instance_id.len());
        ApiError::field(Reason::BadArgument, "instance_id", problem)
    })?;
    Ok(Registration {
        name: request.node_name,
        address: request.address,
        region: request.region,
        instance,
    })
}

fn check_text(field: &'static str, text: &str) -> Result<(), ApiError> {
    let problem = if text.is_empty() {
        "must not be empty"
    } else if text.len() > NAME_BYTES_MAX {
        "has more than 255 bytes"
    } else if text.chars().any(char::is_control) {
        "has control characters"
    } else {
        return Ok(());
    };
    Err(ApiError::field(Reason::BadArgument, field, problem))
}

pub(crate) fn clear_of(request: ClearNamespaceRequest) -> Result<ClearNamespace, ApiError> {
    let request_id = if request.client_id.is_empty() {
        None
    } else {
        Some(RequestId::from_parts(
            &request.client_id,
            request.sequence,
            request.issued_at_ms,
            request.acked_below,
        )?)
    };
    Ok(ClearNamespace {
        namespace: namespace(&request.name)?,
        request_id,
    })
}

pub(crate) fn namespace(name: &str) -> Result<NamespaceName, ApiError> {
    NamespaceName::new(name).map_err(|error| ApiError::field(Reason::BadNamespace, "name", error))
}

#[cfg(test)]
mod tests {
    use api::admin::v1::{ActionReport, ReplicaStatus};
    use cluster::{Incarnation, Layout, Replica};

    use super::*;

    /// What a report is refused for; nothing where it is taken.
    fn refused_field(request: &SyncRequest) -> Option<String> {
        let refused = check_report(request).err()?;
        refused.field_name().map(str::to_owned)
    }

    #[test]
    fn a_report_of_more_than_a_node_can_host_is_refused() {
        let report = |replicas: usize, audits: usize, hash: usize| {
            let audit = ReplicaAudit {
                hash: vec![7; hash].into(),
                ..ReplicaAudit::default()
            };
            let replica = ReplicaStatus {
                audits: vec![audit; audits],
                ..ReplicaStatus::default()
            };
            let request = SyncRequest {
                replicas: vec![replica; replicas],
                ..SyncRequest::default()
            };
            refused_field(&request)
        };
        assert_eq!(
            report(limits::SHARDS_MAX, AUDITS_MAX, AUDIT_HASH_BYTES),
            None
        );
        let many = report(limits::SHARDS_MAX + 1, 0, 0);
        assert_eq!(many.as_deref(), Some("replicas"));
        for (audits, bytes) in [(AUDITS_MAX + 1, AUDIT_HASH_BYTES), (1, 31), (1, 33)] {
            let field = report(1, audits, bytes);
            assert_eq!(field.as_deref(), Some("replicas[0].audits"));
        }
        let actions = |count: usize, bytes: usize| {
            let action = ActionReport {
                error: "x".repeat(bytes),
                ..ActionReport::default()
            };
            let request = SyncRequest {
                actions: vec![action; count],
                ..SyncRequest::default()
            };
            refused_field(&request)
        };
        let (count, bytes) = (limits::ACTIONS_TOLD_MAX, limits::ACTION_TEXT_BYTES_MAX);
        assert_eq!(actions(count, bytes), None);
        for (count, bytes) in [(count + 1, 0), (1, bytes + 1)] {
            assert_eq!(actions(count, bytes).as_deref(), Some("actions"));
        }
    }

    #[test]
    fn the_founders_of_shards_are_spread_over_their_voters() {
        let replica = |node, voter| Replica {
            node: NodeId(node),
            voter,
        };
        let shard = |id| Shard {
            id: ShardId(id),
            incarnation: Incarnation::FIRST,
            // In whatever order the placement names them.
            replicas: vec![
                replica(4, true),
                replica(9, true),
                replica(1, false),
                replica(2, true),
            ],
            lineage: Vec::new(),
        };
        let founders: Vec<_> = (1..=4).map(|id| founder(&shard(id))).collect();
        let expected = [2, 4, 9, 2].map(|id| Some(NodeId(id)));
        assert_eq!(founders, expected);
        let unplaced = Shard {
            replicas: Vec::new(),
            ..shard(1)
        };
        assert_eq!(founder(&unplaced), None);
    }

    #[test]
    fn a_server_goes_on_being_drained_under_the_identity_that_follows_the_last_one() {
        let mut state = State::default();
        let init = Command::Init {
            cluster: ClusterId([7; 16]),
            template: Layout::for_english(1).unwrap(),
            replicas: 1,
        };
        state.apply(0, init);
        let server = |name: &str, instance: u8| Registration {
            name: name.to_owned(),
            address: format!("{name}:1"),
            region: String::new(),
            instance: [instance; 16],
        };
        let register = |state: &mut State, name: &str, instance: u8| {
            state.apply(0, Command::RegisterNode(server(name, instance)));
        };
        let mark = |state: &mut State, node: u64, draining: bool| {
            let node = NodeId(node);
            state.apply(0, Command::SetDraining { node, draining });
        };
        register(&mut state, "one", 1);
        register(&mut state, "two", 2);
        assert!(!is_drained(&state, &server("one", 3)));
        mark(&mut state, 1, true);
        assert!(is_drained(&state, &server("one", 3)));
        assert!(!is_drained(&state, &server("two", 4)));
        assert!(!is_drained(&state, &server("three", 5)));
        // Also where its data were set aside before it comes back, and where it asks again because it was not answered.
        state.apply(0, Command::MarkNodeLost { node: NodeId(1) });
        assert!(is_drained(&state, &server("one", 3)));
        register(&mut state, "one", 3);
        assert!(is_drained(&state, &server("one", 3)));
        // What was said last of the server counts.
        assert!(!is_drained(&state, &server("one", 6)));
        mark(&mut state, 3, true);
        assert!(is_drained(&state, &server("one", 6)));
    }
}
