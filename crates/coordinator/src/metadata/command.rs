//! The commands of the metadata group, and how they stand in its log.
//!
//! The kind is in the log's envelope; what follows here are the fields in the order in which they are declared, in the encoding
//! of [`super::codec`]. A kind or a field is never given another meaning: a change is a new kind.

use cluster::{ClusterId, Incarnation, Layout, NodeId, ShardId};
use repeat_table::{ClientId, RequestId};

use super::codec::{CodecError, Reader, Writer};
use super::coordinators::{self, Admission};
use super::members::{self, NewReplicas, Settled};
use super::recoveries::{self, TurnEnd, TurnRequest};

/// The snapshot that a new incarnation begins from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seed {
    /// The life of the shard in which it was taken.
    pub incarnation: Incarnation,
    /// The Raft term of the last entry it contains.
    pub raft_term: u64,
    /// The index of the last entry it contains.
    pub index: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// BLAKE3 of the file.
    pub hash: [u8; 32],
    /// When it was taken, milliseconds since the Unix epoch.
    pub taken_at_ms: i64,
}

/// Who a node says it is when it registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// Stable over restarts and lost disks.
    pub name: String,
    /// `host:port`.
    pub address: String,
    /// Empty where regions are not used.
    pub region: String,
    /// Drawn for an empty data directory.
    pub instance: [u8; 16],
}

/// A request to begin a shard anew, after its data was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewLife {
    /// The shard.
    pub shard: ShardId,
    /// The life that ends; refused when it ended already.
    pub from: Incarnation,
    /// Where the new life begins.
    pub node: NodeId,
    /// What it begins from; nothing means empty.
    pub seed: Option<Seed>,
}

/// How far a shard is known to have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardProgress {
    /// The shard.
    pub shard: ShardId,
    /// Its life.
    pub incarnation: Incarnation,
    /// The highest index that a replica reported as applied.
    pub index: u64,
}

/// A change of the metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Begins the cluster. Refused when it has begun.
    Init {
        /// Its id.
        cluster: ClusterId,
        /// The split of namespaces that have none of their own.
        template: Layout,
        /// Replicas that each shard is placed with.
        replicas: u32,
    },
    /// Issues an identity, or finds the one issued to this instance before.
    RegisterNode(Registration),
    /// A node is reached elsewhere now.
    UpdateAddress {
        /// The node.
        node: NodeId,
        /// `host:port`.
        address: String,
    },
    /// Gives shards their nodes. Shards that have theirs already are left alone.
    PlaceShards(Vec<(ShardId, Vec<NodeId>)>),
    /// A shard's group exists: no node may begin it from nothing any more.
    ShardBegun {
        /// The shard.
        shard: ShardId,
        /// Its life.
        incarnation: Incarnation,
    },
    /// The disk of a node is gone.
    MarkNodeLost {
        /// The node.
        node: NodeId,
    },
    /// Creates a namespace, or finds it.
    CreateNamespace {
        /// Its name, checked.
        name: String,
        /// See [`term::NORMALISER_VERSION`].
        normaliser_version: u32,
        /// See [`term::UNICODE_VERSION`].
        unicode_version: String,
    },
    /// Clears a namespace.
    RaiseGeneration {
        /// Its name, checked.
        name: String,
        /// For retries.
        request: Option<(RequestId, u64)>,
    },
    /// Begins a shard anew.
    NewIncarnation(NewLife),
    /// Remembers how far shards have come, for the report of what a lost disk took along.
    NoteProgress(Vec<ShardProgress>),
    /// Changes who holds a shard, by one step.
    ChangeReplicas(NewReplicas),
    /// A node's replicas are to go elsewhere, or may stay after all.
    SetDraining {
        /// The node.
        node: NodeId,
        /// Whether they are to go.
        draining: bool,
    },
    /// Gives a new data directory the place of a coordinator's lost one. Changes nothing where it has it already.
    AdmitCoordinator(Admission),
    /// All who left a shard may come again.
    SettleMembers(Settled),
    /// Asks for the turn at a shard's recovery.
    BeginRecovery(TurnRequest),
    /// Gives the turn back.
    EndRecovery(TurnEnd),
}

impl Command {
    /// What is encoded under which number.
    #[must_use]
    pub const fn kind(&self) -> u16 {
        match self {
            Self::Init { .. } => 1,
            Self::RegisterNode(_) => 2,
            Self::UpdateAddress { .. } => 3,
            Self::PlaceShards(_) => 4,
            Self::ShardBegun { .. } => 5,
            Self::MarkNodeLost { .. } => 6,
            Self::CreateNamespace { .. } => 7,
            Self::RaiseGeneration { .. } => 8,
            Self::NewIncarnation(_) => 9,
            Self::NoteProgress(_) => 10,
            Self::ChangeReplicas(_) => 11,
            Self::SetDraining { .. } => 12,
            Self::AdmitCoordinator(_) => 13,
            Self::SettleMembers(_) => 14,
            Self::BeginRecovery(_) => 30,
            Self::EndRecovery(_) => 31,
        }
    }

    /// Whether making the change twice is making it once, with the same answer: then it may be proposed again by whoever
    /// does not know what became of it.
    #[must_use]
    pub const fn is_idempotent(&self) -> bool {
        match self {
            Self::RegisterNode(_)
            | Self::UpdateAddress { .. }
            | Self::PlaceShards(_)
            | Self::ShardBegun { .. }
            | Self::MarkNodeLost { .. }
            | Self::CreateNamespace { .. }
            | Self::RaiseGeneration {
                request: Some(_), ..
            }
            | Self::NoteProgress(_)
            | Self::ChangeReplicas(_)
            | Self::SetDraining { .. }
            | Self::AdmitCoordinator(_)
            | Self::SettleMembers(_)
            | Self::BeginRecovery(_)
            | Self::EndRecovery(_) => true,
            Self::Init { .. }
            | Self::RaiseGeneration { request: None, .. }
            | Self::NewIncarnation(_) => false,
        }
    }

    /// The fields.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        match self {
            Self::Init {
                cluster,
                template,
                replicas,
            } => {
                out.fixed(&cluster.0);
                out.layout(template);
                out.u32(*replicas);
            }
            Self::RegisterNode(node) => {
                out.text(&node.name);
                out.text(&node.address);
                out.text(&node.region);
                out.fixed(&node.instance);
            }
            Self::UpdateAddress { node, address } => {
                out.u64(node.0);
                out.text(address);
            }
            Self::PlaceShards(placements) => write_placements(&mut out, placements),
            Self::ShardBegun { shard, incarnation } => {
                out.u64(shard.0);
                out.u64(incarnation.0);
            }
            Self::MarkNodeLost { node } => out.u64(node.0),
            Self::CreateNamespace {
                name,
                normaliser_version,
                unicode_version,
            } => {
                out.text(name);
                out.u32(*normaliser_version);
                out.text(unicode_version);
            }
            Self::RaiseGeneration { name, request } => {
                out.text(name);
                write_request(&mut out, request.as_ref());
            }
            Self::NewIncarnation(life) => {
                out.u64(life.shard.0);
                out.u64(life.from.0);
                out.u64(life.node.0);
                write_seed(&mut out, life.seed.as_ref());
            }
            Self::NoteProgress(shards) => {
                out.len(shards.len());
                for at in shards {
                    out.u64(at.shard.0);
                    out.u64(at.incarnation.0);
                    out.u64(at.index);
                }
            }
            Self::ChangeReplicas(wanted) => members::write_step(&mut out, wanted),
            Self::SetDraining { node, draining } => {
                out.u64(node.0);
                out.bool(*draining);
            }
            Self::AdmitCoordinator(asked) => coordinators::write_admission(&mut out, asked),
            Self::SettleMembers(settled) => members::write_settled(&mut out, settled),
            Self::BeginRecovery(asked) => recoveries::write_request(&mut out, asked),
            Self::EndRecovery(end) => recoveries::write_end(&mut out, end),
        }
        out.0
    }

    /// The command of a kind and its fields; `None` for a kind that nobody here knows.
    pub(crate) fn decode(kind: u16, bytes: &[u8]) -> Result<Option<Self>, CodecError> {
        let mut from = Reader(bytes);
        let command = match kind {
            1 => Self::Init {
                cluster: ClusterId(from.fixed("cluster id")?),
                template: from.layout("template")?,
                replicas: from.u32("replicas")?,
            },
            2 => Self::RegisterNode(Registration {
                name: from.text("name")?,
                address: from.text("address")?,
                region: from.text("region")?,
                instance: from.fixed("instance")?,
            }),
            3 => Self::UpdateAddress {
                node: NodeId(from.u64("node")?),
                address: from.text("address")?,
            },
            4 => Self::PlaceShards(read_placements(&mut from)?),
            5 => Self::ShardBegun {
                shard: ShardId(from.u64("shard")?),
                incarnation: Incarnation(from.u64("incarnation")?),
            },
            6 => Self::MarkNodeLost {
                node: NodeId(from.u64("node")?),
            },
            7 => Self::CreateNamespace {
                name: from.text("name")?,
                normaliser_version: from.u32("normaliser version")?,
                unicode_version: from.text("unicode version")?,
            },
            8 => Self::RaiseGeneration {
                name: from.text("name")?,
                request: read_request(&mut from)?,
            },
            9 => Self::NewIncarnation(NewLife {
                shard: ShardId(from.u64("shard")?),
                from: Incarnation(from.u64("incarnation")?),
                node: NodeId(from.u64("node")?),
                seed: read_seed(&mut from)?,
            }),
            10 => Self::NoteProgress(from.list("progress", |from| {
                Ok(ShardProgress {
                    shard: ShardId(from.u64("shard")?),
                    incarnation: Incarnation(from.u64("incarnation")?),
                    index: from.u64("index")?,
                })
            })?),
            11 => Self::ChangeReplicas(members::read_step(&mut from)?),
            12 => Self::SetDraining {
                node: NodeId(from.u64("node")?),
                draining: from.bool("draining")?,
            },
            13 => Self::AdmitCoordinator(coordinators::read_admission(&mut from)?),
            14 => Self::SettleMembers(members::read_settled(&mut from)?),
            30 => Self::BeginRecovery(recoveries::read_request(&mut from)?),
            31 => Self::EndRecovery(recoveries::read_end(&mut from)?),
            _ => return Ok(None),
        };
        from.end()?;
        Ok(Some(command))
    }
}

fn write_placements(out: &mut Writer, placements: &[(ShardId, Vec<NodeId>)]) {
    out.len(placements.len());
    for (shard, nodes) in placements {
        out.u64(shard.0);
        out.len(nodes.len());
        nodes.iter().for_each(|node| out.u64(node.0));
    }
}

fn read_placements(from: &mut Reader<'_>) -> Result<Vec<(ShardId, Vec<NodeId>)>, CodecError> {
    from.list("placements", |from| {
        let shard = ShardId(from.u64("shard")?);
        let nodes = from.list("nodes", |from| Ok(NodeId(from.u64("node")?)))?;
        Ok((shard, nodes))
    })
}

fn write_request(out: &mut Writer, request: Option<&(RequestId, u64)>) {
    out.option(request, |out, (id, fingerprint)| {
        out.fixed(&id.client.0);
        out.u64(id.sequence);
        out.i64(id.issued_at_ms);
        out.u64(id.acked_below);
        out.u64(*fingerprint);
    });
}

fn read_request(from: &mut Reader<'_>) -> Result<Option<(RequestId, u64)>, CodecError> {
    from.option("request id", |from| {
        let id = RequestId {
            client: ClientId(from.fixed("client id")?),
            sequence: from.u64("sequence")?,
            issued_at_ms: from.i64("issued at")?,
            acked_below: from.u64("acked below")?,
        };
        Ok((id, from.u64("fingerprint")?))
    })
}

pub(crate) fn write_seed(out: &mut Writer, seed: Option<&Seed>) {
    out.option(seed, |out, seed| {
        out.u64(seed.incarnation.0);
        out.u64(seed.raft_term);
        out.u64(seed.index);
        out.u64(seed.bytes);
        out.fixed(&seed.hash);
        out.i64(seed.taken_at_ms);
    });
}

pub(crate) fn read_seed(from: &mut Reader<'_>) -> Result<Option<Seed>, CodecError> {
    from.option("seed", |from| {
        Ok(Seed {
            incarnation: Incarnation(from.u64("seed incarnation")?),
            raft_term: from.u64("seed term")?,
            index: from.u64("seed index")?,
            bytes: from.u64("seed bytes")?,
            hash: from.fixed("seed hash")?,
            taken_at_ms: from.i64("seed time")?,
        })
    })
}
