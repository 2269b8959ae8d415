//! The metadata itself and the rules by which commands change it. Pure: no clock, no randomness, no files.

use std::collections::BTreeMap;
use std::sync::Arc;

use cluster::{
    Ancestor, ClusterId, Epoch, Generation, Incarnation, Layout, Namespace, NamespaceId, Node,
    NodeId, Replica, Shard, ShardId, ShardMap, limits,
};
use repeat_table::{RepeatTable, RequestId, Verdict};
use term::NamespaceName;

use super::command::{Command, NewLife, Registration, Seed, ShardProgress};
use super::coordinators::Coordinators;
use super::members::Members;
use super::recoveries::{Recoveries, TurnEnd, TurnRequest};
use super::response::{Refusal, Response};

/// Identities that are ever issued; lost ones count, for they are never issued again.
pub const NODES_MAX: usize = 16_384;
/// Bytes of the table that makes repeated ClearNamespace calls take effect once.
pub(crate) const REPEAT_TABLE_BYTES: u64 = 1024 * 1024;
/// The version of the rules below. A cluster keeps the one it began with until it is raised.
pub(crate) const CLUSTER_VERSION: u32 = 1;

/// Why an identity is lost, where it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Loss {
    /// It is not, or nobody wrote down why.
    #[default]
    Unknown,
    /// Its name came back with another data directory.
    OtherDirectory,
    /// Its data were damaged, or given up, and set aside.
    SetAside,
}

impl Loss {
    const ALL: [Self; 3] = [Self::Unknown, Self::OtherDirectory, Self::SetAside];

    /// Its number in a snapshot.
    pub(super) const fn number(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::OtherDirectory => 1,
            Self::SetAside => 2,
        }
    }

    pub(super) fn numbered(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|loss| loss.number() == number)
    }

    /// For people, behind the name of a node.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Unknown => "has lost its data",
            Self::OtherDirectory => "has lost its data: its name came back with another directory",
            Self::SetAside => "has lost its data: they were damaged or given up, and set aside",
        }
    }
}

/// A node, with what only the metadata knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeRecord {
    /// What the map shows.
    pub node: Node,
    /// The instance the identity was issued to.
    pub instance: [u8; 16],
    /// Its replicas are to go elsewhere, and none is to come.
    pub draining: bool,
    /// Why it is lost.
    pub loss: Loss,
}

/// A shard, with what only the metadata knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardRecord {
    /// What the map shows.
    pub shard: Shard,
    /// The group of the present life exists: nobody may begin it from nothing.
    pub begun: bool,
    /// What the present life begins from.
    pub seed: Option<Seed>,
    /// The highest index of the present life known to be applied.
    pub last_known_index: u64,
    /// How often the shard was begun anew.
    pub recoveries: u64,
    /// What is known of its members besides the map.
    pub members: Members,
}

/// A namespace, with what only the metadata knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceRecord {
    /// What the map shows.
    pub namespace: Namespace,
    /// The Unicode release its terms were normalised with.
    pub unicode_version: String,
}

/// Everything the cluster agrees on.
#[derive(Debug, Clone)]
pub struct State {
    /// `None` until the cluster has begun.
    pub cluster: Option<ClusterId>,
    /// Which rules hold.
    pub cluster_version: u32,
    /// The version of the map.
    pub epoch: Epoch,
    /// Replicas that a shard is placed with.
    pub replicas: u32,
    /// The split of namespaces that have none of their own.
    pub template: Option<Arc<Layout>>,
    /// Every identity ever issued. Ids are 1, 2, 3, ... in the order of issue.
    pub nodes: BTreeMap<NodeId, NodeRecord>,
    /// The shards of the template.
    pub shards: BTreeMap<ShardId, ShardRecord>,
    /// The namespaces. Ids are 1, 2, 3, ... in the order of creation.
    pub namespaces: BTreeMap<NamespaceName, NamespaceRecord>,
    /// Whose turn it is, or was, to recover a shard.
    pub recoveries: Recoveries,
    /// Which coordinators there are.
    pub coordinators: Coordinators,
    /// Which ClearNamespace calls were applied.
    pub repeats: RepeatTable,
}

impl Default for State {
    fn default() -> Self {
        Self {
            cluster: None,
            cluster_version: CLUSTER_VERSION,
            epoch: Epoch(0),
            replicas: 0,
            template: None,
            nodes: BTreeMap::new(),
            shards: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            recoveries: Recoveries::default(),
            coordinators: Coordinators::default(),
            repeats: RepeatTable::new(REPEAT_TABLE_BYTES),
        }
    }
}

impl State {
    /// Applies one command. `stamp_ms` is the leader's time in the log. Refusals change nothing.
    pub fn apply(&mut self, stamp_ms: i64, command: Command) -> Response {
        let result = match command {
            Command::Init {
                cluster,
                template,
                replicas,
            } => self.init(cluster, template, replicas),
            other if self.cluster.is_none() => {
                drop(other);
                Err(Refusal::NotInitialised)
            }
            Command::RegisterNode(node) => self.register(node),
            Command::UpdateAddress { node, address } => self.update_address(node, address),
            Command::PlaceShards(placements) => self.place(stamp_ms, placements),
            Command::ShardBegun { shard, incarnation } => self.begun(shard, incarnation),
            Command::MarkNodeLost { node } => self.lose(node),
            Command::CreateNamespace {
                name,
                normaliser_version,
                unicode_version,
            } => self.create_namespace(&name, normaliser_version, unicode_version),
            Command::RaiseGeneration { name, request } => self.clear(stamp_ms, &name, request),
            Command::NewIncarnation(life) => self.new_life(stamp_ms, life),
            Command::NoteProgress(shards) => Ok(self.note_progress(&shards)),
            Command::ChangeReplicas(wanted) => self.change_replicas(stamp_ms, wanted),
            Command::SettleMembers(settled) => self.settle_members(settled),
            Command::SetDraining { node, draining } => self.set_draining(node, draining),
            Command::AdmitCoordinator(asked) => {
                self.coordinators.admit(asked).map(|()| Response::Done)
            }
            Command::BeginRecovery(asked) => self.begin_recovery(stamp_ms, asked),
            Command::EndRecovery(ended) => self.end_recovery(stamp_ms, &ended),
        };
        result.unwrap_or_else(Response::Refused)
    }

    /// The map as it is published. `None` until the cluster has begun.
    #[must_use]
    pub fn map(&self) -> Option<ShardMap> {
        let template = Arc::clone(self.template.as_ref()?);
        let shards = self.shards.iter();
        let nodes = self.nodes.iter();
        let namespaces = self.namespaces.iter();
        Some(ShardMap {
            epoch: self.epoch,
            template,
            shards: shards.map(|(id, at)| (*id, at.shard.clone())).collect(),
            nodes: nodes.map(|(id, at)| (*id, at.node.clone())).collect(),
            namespaces: namespaces
                .map(|(name, at)| (name.clone(), at.namespace.clone()))
                .collect(),
        })
    }

    pub(super) fn changed(&mut self) {
        self.epoch = Epoch(self.epoch.0 + 1);
    }

    fn init(
        &mut self,
        cluster: ClusterId,
        template: Layout,
        replicas: u32,
    ) -> Result<Response, Refusal> {
        if let Some(cluster) = self.cluster {
            return Err(Refusal::Initialised { cluster });
        }
        for (_, id) in template.starts() {
            let shard = Shard {
                id: *id,
                incarnation: Incarnation::FIRST,
                replicas: Vec::new(),
                lineage: Vec::new(),
            };
            let record = ShardRecord {
                shard,
                begun: false,
                seed: None,
                last_known_index: 0,
                recoveries: 0,
                members: Members::default(),
            };
            self.shards.insert(*id, record);
        }
        self.cluster = Some(cluster);
        self.replicas = replicas.max(1);
        self.template = Some(Arc::new(template));
        self.changed();
        Ok(Response::Done)
    }

    /// Whether the data of an identity are gone for good, so that it comes back nowhere.
    #[must_use]
    pub fn is_lost(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_none_or(|record| record.node.lost)
    }

    /// Replicas that a node holds, as far as the map tells.
    #[must_use]
    pub fn replicas_on(&self, node: NodeId) -> usize {
        let shards = self.shards.values();
        let replicas = shards.flat_map(|record| &record.shard.replicas);
        replicas.filter(|replica| replica.node == node).count()
    }

    fn register(&mut self, registration: Registration) -> Result<Response, Refusal> {
        let cluster = self.cluster.ok_or(Refusal::NotInitialised)?;
        let known = self
            .nodes
            .values()
            .find(|record| record.instance == registration.instance);
        if let Some(record) = known {
            let id = record.node.id;
            if record.node.lost {
                return Err(Refusal::NodeLost { node: id });
            }
            self.update_address(id, registration.address)?;
            return Ok(Response::Node { id, cluster });
        }
        if self.nodes.len() >= NODES_MAX {
            return Err(Refusal::TooManyNodes);
        }
        for record in self.nodes.values_mut() {
            if record.node.name == registration.name && !record.node.lost {
                record.loss = Loss::OtherDirectory;
            }
            // Another instance by this name stands on an empty disk now: the old one is gone.
            record.node.lost |= record.node.name == registration.name;
        }
        let id = NodeId(self.nodes.keys().next_back().map_or(0, |last| last.0) + 1);
        let node = Node {
            id,
            name: registration.name,
            address: registration.address,
            region: registration.region,
            lost: false,
        };
        let record = NodeRecord {
            node,
            instance: registration.instance,
            draining: false,
            loss: Loss::default(),
        };
        self.nodes.insert(id, record);
        self.changed();
        Ok(Response::Node { id, cluster })
    }

    pub(super) fn usable_node(&mut self, node: NodeId) -> Result<&mut NodeRecord, Refusal> {
        let record = self
            .nodes
            .get_mut(&node)
            .ok_or(Refusal::UnknownNode { node })?;
        if record.node.lost {
            return Err(Refusal::NodeLost { node });
        }
        Ok(record)
    }

    fn update_address(&mut self, node: NodeId, address: String) -> Result<Response, Refusal> {
        let record = self.usable_node(node)?;
        if record.node.address != address {
            record.node.address = address;
            self.changed();
        }
        Ok(Response::Done)
    }

    fn place(
        &mut self,
        stamp_ms: i64,
        placements: Vec<(ShardId, Vec<NodeId>)>,
    ) -> Result<Response, Refusal> {
        for (shard, nodes) in &placements {
            if !self.shards.contains_key(shard) {
                return Err(Refusal::UnknownShard { shard: *shard });
            }
            for node in nodes {
                self.usable_node(*node)?;
            }
        }
        let mut changed = false;
        for (shard, nodes) in placements {
            if let Some(record) = self.shards.get_mut(&shard)
                && record.shard.replicas.is_empty()
                && !nodes.is_empty()
            {
                let replicas = nodes.into_iter().map(|node| Replica { node, voter: true });
                record.shard.replicas = replicas.collect();
                record.members.begin_anew(stamp_ms);
                changed = true;
            }
        }
        if changed {
            self.changed();
        }
        Ok(Response::Done)
    }

    fn shard(&mut self, shard: ShardId) -> Result<&mut ShardRecord, Refusal> {
        self.shards
            .get_mut(&shard)
            .ok_or(Refusal::UnknownShard { shard })
    }

    fn begun(&mut self, shard: ShardId, incarnation: Incarnation) -> Result<Response, Refusal> {
        let record = self.shard(shard)?;
        if record.shard.incarnation != incarnation {
            let current = record.shard.incarnation;
            return Err(Refusal::StaleIncarnation { current });
        }
        record.begun = true;
        Ok(Response::Done)
    }

    fn lose(&mut self, node: NodeId) -> Result<Response, Refusal> {
        let record = self
            .nodes
            .get_mut(&node)
            .ok_or(Refusal::UnknownNode { node })?;
        if !record.node.lost {
            record.node.lost = true;
            record.loss = Loss::SetAside;
            self.changed();
        }
        Ok(Response::Done)
    }

    fn create_namespace(
        &mut self,
        name: &str,
        normaliser_version: u32,
        unicode_version: String,
    ) -> Result<Response, Refusal> {
        let name = NamespaceName::new(name).map_err(|_| Refusal::BadNamespace)?;
        if self.namespaces.contains_key(&name) {
            return Ok(Response::Namespace);
        }
        if self.namespaces.len() >= limits::NAMESPACES_MAX {
            return Err(Refusal::TooManyNamespaces);
        }
        // Namespaces are never removed, so that their number is also the highest id.
        let id = NamespaceId(u32::try_from(self.namespaces.len()).unwrap_or(u32::MAX - 1) + 1);
        let namespace = Namespace {
            id,
            name: name.clone(),
            generation: Generation::FIRST,
            normaliser_version,
            layout: None,
        };
        let record = NamespaceRecord {
            namespace,
            unicode_version,
        };
        self.namespaces.insert(name, record);
        self.changed();
        Ok(Response::Namespace)
    }

    fn clear(
        &mut self,
        stamp_ms: i64,
        name: &str,
        request: Option<(RequestId, u64)>,
    ) -> Result<Response, Refusal> {
        let name = NamespaceName::new(name).map_err(|_| Refusal::BadNamespace)?;
        let mut repeated = false;
        if let Some((id, fingerprint)) = &request {
            let ahead = i64::try_from(limits::ISSUED_AHEAD_MAX.as_millis()).unwrap_or(i64::MAX);
            if id.issued_at_ms > stamp_ms.saturating_add(ahead) {
                return Err(Refusal::IssuedAhead);
            }
            match self.repeats.check(id, *fingerprint) {
                Verdict::New => {}
                Verdict::Repeat { .. } => repeated = true,
                Verdict::OtherPayload => return Err(Refusal::RequestIdReused),
                Verdict::Expired { .. } => return Err(Refusal::SessionExpired),
            }
        }
        let generation = match self.namespaces.get_mut(&name) {
            None => Generation(0),
            Some(record) if repeated => record.namespace.generation,
            Some(record) => {
                let next = Generation(record.namespace.generation.0 + 1);
                record.namespace.generation = next;
                self.changed();
                next
            }
        };
        if let Some((id, fingerprint)) = request
            && !repeated
        {
            // `check` has just allowed it, and there is no item number to be too high.
            let remembered = self.repeats.remember(&id, fingerprint, [], 0);
            debug_assert!(remembered.is_ok(), "{remembered:?}");
        }
        Ok(Response::Generation { generation })
    }

    fn new_life(&mut self, stamp_ms: i64, life: NewLife) -> Result<Response, Refusal> {
        self.usable_node(life.node)?;
        let record = self.shard(life.shard)?;
        let ended = record.shard.incarnation;
        if ended != life.from {
            return Err(Refusal::StaleIncarnation { current: ended });
        }
        let lineage = lineage_after(&record.shard, life.seed.as_ref())?;
        let incarnation = Incarnation(ended.0 + 1);
        let last_known_index = record.last_known_index;
        record.shard.lineage = lineage;
        record.shard.incarnation = incarnation;
        record.shard.replicas = vec![Replica {
            node: life.node,
            voter: true,
        }];
        record.members.begin_anew(stamp_ms);
        record.begun = false;
        record.last_known_index = life.seed.as_ref().map_or(0, |seed| seed.index);
        record.seed = life.seed;
        record.recoveries += 1;
        self.changed();
        Ok(Response::Incarnation {
            incarnation,
            last_known_index,
        })
    }

    fn begin_recovery(&mut self, stamp_ms: i64, asked: TurnRequest) -> Result<Response, Refusal> {
        self.shard(asked.shard)?;
        let answer = self.recoveries.begin(stamp_ms, self.shards.len(), asked);
        Ok(Response::Turn(answer))
    }

    fn end_recovery(&mut self, stamp_ms: i64, ended: &TurnEnd) -> Result<Response, Refusal> {
        self.shard(ended.shard)?;
        if self.recoveries.end(stamp_ms, ended) {
            Ok(Response::Done)
        } else {
            Err(Refusal::NotYourTurn)
        }
    }

    fn note_progress(&mut self, shards: &[ShardProgress]) -> Response {
        for at in shards {
            if let Some(record) = self.shards.get_mut(&at.shard)
                && record.shard.incarnation == at.incarnation
            {
                record.last_known_index = record.last_known_index.max(at.index);
            }
        }
        Response::Done
    }
}

/// The lives before the one that is about to begin from `seed`, with how much of each it contains.
///
/// What the seed contains of its own life, it contains up to its index; of the lives before that it contains what its own life
/// did; of later lives nothing.
fn lineage_after(shard: &Shard, seed: Option<&Seed>) -> Result<Vec<Ancestor>, Refusal> {
    let ended = Ancestor {
        shard: shard.id,
        incarnation: shard.incarnation,
        last_index: u64::MAX,
    };
    let mut lineage = shard.lineage.clone();
    lineage.push(ended);
    let Some(seed) = seed else {
        lineage.iter_mut().for_each(|life| life.last_index = 0);
        return Ok(lineage);
    };
    if !lineage
        .iter()
        .any(|life| life.incarnation == seed.incarnation)
    {
        return Err(Refusal::ForeignSeed);
    }
    for life in &mut lineage {
        if life.incarnation > seed.incarnation {
            life.last_index = 0;
        } else if life.incarnation == seed.incarnation {
            life.last_index = life.last_index.min(seed.index);
        }
    }
    Ok(lineage)
}
