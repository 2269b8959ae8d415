//! The whole metadata as bytes.
//!
//! | bytes | field |
//! |---|---|
//! | 4 | magic `ACMD` |
//! | 2 | version, 4, little endian; 1 to 3 are still read |
//! | 2 | zero |
//! | 8 | length of the body, little endian |
//! | 4 | CRC32 of the body, little endian |
//! | 4 | CRC32 of the 20 bytes before |
//! | ... | the body |
//!
//! The body holds the fields of [`State`] in the order in which [`encode`] writes them, and ends with the repeat table in
//! its own format. The same state always gives the same bytes.
//!
//! Version 1 has no `draining` at the end of a node, no members at the end of a shard, and no recoveries before the repeat table; version 2 has no coordinators there;
//! version 3 does not say why a node is lost, who has come by a change, and which changes are over.

use std::io::{self, Read};
use std::sync::Arc;

use cluster::{
    Ancestor, ClusterId, Epoch, Generation, Incarnation, Namespace, NamespaceId, Node, NodeId,
    Shard, ShardId,
};
use repeat_table::RepeatTable;
use replication::RestoreError;
use term::NamespaceName;

use super::codec::{CodecError, Reader, Writer};
use super::command::{read_seed, write_seed};
use super::coordinators::{self, Coordinators};
use super::members::{self, Members};
use super::recoveries::{self, Recoveries};
use super::state::{CLUSTER_VERSION, Loss, NamespaceRecord, NodeRecord, ShardRecord, State};

const MAGIC: [u8; 4] = *b"ACMD";
const VERSION: u16 = 4;
/// Older versions, of which clusters may have one on their disks.
const FIRST_VERSION: u16 = 1;
const SECOND_VERSION: u16 = 2;
const THIRD_VERSION: u16 = 3;
const HEADER_BYTES: usize = 24;
/// Far above what the limits of the metadata allow; a longer body is no metadata.
const BODY_BYTES_MAX: u64 = 256 * 1024 * 1024;

pub(crate) fn encode(state: &State) -> Vec<u8> {
    let mut out = Writer::default();
    out.bool(state.cluster.is_some());
    out.fixed(&state.cluster.unwrap_or_default().0);
    out.u32(state.cluster_version);
    out.u64(state.epoch.0);
    out.u32(state.replicas);
    out.option(state.template.as_ref(), |out, template| {
        out.layout(template)
    });
    out.len(state.nodes.len());
    state
        .nodes
        .values()
        .for_each(|node| write_node(&mut out, node));
    out.len(state.shards.len());
    state
        .shards
        .values()
        .for_each(|shard| write_shard(&mut out, shard));
    out.len(state.namespaces.len());
    state
        .namespaces
        .values()
        .for_each(|namespace| write_namespace(&mut out, namespace));
    recoveries::write(&mut out, &state.recoveries);
    coordinators::write(&mut out, &state.coordinators);
    state.repeats.encode(&mut out.0);
    let body = out.0;

    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0, 0]);
    bytes.extend_from_slice(&(body.len() as u64).to_le_bytes());
    bytes.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    let header_crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&header_crc.to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

pub(crate) fn decode(input: &mut dyn Read) -> Result<State, RestoreError> {
    let mut header = [0; HEADER_BYTES];
    input.read_exact(&mut header)?;
    let mut reader = Reader(&header);
    let (version, body_bytes, body_crc) = read_header(&mut reader, &header).map_err(malformed)?;
    let mut body = Vec::new();
    input.take(body_bytes).read_to_end(&mut body)?;
    if body.len() as u64 != body_bytes {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    if crc32fast::hash(&body) != body_crc {
        return Err(malformed(CodecError::Value {
            field: "body",
            problem: "does not match its checksum".into(),
        }));
    }
    let mut reader = Reader(&body);
    let mut state = read_state(&mut reader, version).map_err(malformed)?;
    state.repeats = RepeatTable::decode(reader.0).map_err(|error| RestoreError::Malformed {
        problem: error.to_string(),
    })?;
    Ok(state)
}

fn malformed(error: CodecError) -> RestoreError {
    RestoreError::Malformed {
        problem: error.to_string(),
    }
}

fn read_header(
    reader: &mut Reader<'_>,
    header: &[u8; HEADER_BYTES],
) -> Result<(u16, u64, u32), CodecError> {
    let wrong = |field, problem: String| CodecError::Value { field, problem };
    let magic: [u8; 4] = reader.fixed("magic")?;
    if magic != MAGIC {
        return Err(wrong("magic", format!("{magic:02x?} is not {MAGIC:02x?}")));
    }
    let version = u16::from_le_bytes(reader.fixed("version")?);
    if !(FIRST_VERSION..=VERSION).contains(&version) {
        let problem = format!("{version} is not known, only {FIRST_VERSION} to {VERSION} are");
        return Err(wrong("version", problem));
    }
    if reader.fixed::<2>("reserved")? != [0, 0] {
        return Err(wrong("reserved", "is not zero".into()));
    }
    let body_bytes = reader.u64("body length")?;
    let body_crc = reader.u32("body checksum")?;
    let header_crc = reader.u32("header checksum")?;
    let (checked, _) = header.split_at(HEADER_BYTES - 4);
    if crc32fast::hash(checked) != header_crc {
        return Err(wrong("header", "does not match its checksum".into()));
    }
    if body_bytes > BODY_BYTES_MAX {
        let problem = format!("{body_bytes} is above {BODY_BYTES_MAX}");
        return Err(wrong("body length", problem));
    }
    Ok((version, body_bytes, body_crc))
}

fn read_state(from: &mut Reader<'_>, version: u16) -> Result<State, CodecError> {
    let begun = from.bool("begun")?;
    let cluster = ClusterId(from.fixed("cluster id")?);
    let cluster_version = from.u32("cluster version")?;
    if cluster_version > CLUSTER_VERSION {
        return Err(CodecError::Value {
            field: "cluster version",
            problem: format!("{cluster_version} is newer than {CLUSTER_VERSION}"),
        });
    }
    let epoch = Epoch(from.u64("epoch")?);
    let replicas = from.u32("replicas")?;
    let template = from.option("template", |from| from.layout("template"))?;
    let nodes = from.list("nodes", |from| read_node(from, version))?;
    let shards = from.list("shards", |from| read_shard(from, version))?;
    let namespaces = from.list("namespaces", read_namespace)?;
    let recoveries = if version > FIRST_VERSION {
        recoveries::read(from)?
    } else {
        Recoveries::default()
    };
    let coordinators = if version > SECOND_VERSION {
        coordinators::read(from)?
    } else {
        Coordinators::default()
    };
    Ok(State {
        cluster: begun.then_some(cluster),
        cluster_version,
        epoch,
        replicas,
        template: template.map(Arc::new),
        nodes: nodes.into_iter().map(|at| (at.node.id, at)).collect(),
        shards: shards.into_iter().map(|at| (at.shard.id, at)).collect(),
        namespaces: namespaces
            .into_iter()
            .map(|at| (at.namespace.name.clone(), at))
            .collect(),
        recoveries,
        coordinators,
        ..State::default()
    })
}

fn write_node(out: &mut Writer, record: &NodeRecord) {
    out.u64(record.node.id.0);
    out.text(&record.node.name);
    out.text(&record.node.address);
    out.text(&record.node.region);
    out.bool(record.node.lost);
    out.fixed(&record.instance);
    out.bool(record.draining);
    out.u8(record.loss.number());
}

fn read_node(from: &mut Reader<'_>, version: u16) -> Result<NodeRecord, CodecError> {
    let node = Node {
        id: NodeId(from.u64("node id")?),
        name: from.text("node name")?,
        address: from.text("node address")?,
        region: from.text("node region")?,
        lost: from.bool("node lost")?,
    };
    Ok(NodeRecord {
        node,
        instance: from.fixed("node instance")?,
        draining: version > FIRST_VERSION && from.bool("node draining")?,
        loss: if version > THIRD_VERSION {
            read_loss(from)?
        } else {
            Loss::Unknown
        },
    })
}

fn read_loss(from: &mut Reader<'_>) -> Result<Loss, CodecError> {
    let field = "why a node is lost";
    let number = from.u8(field)?;
    Loss::numbered(number).ok_or_else(|| CodecError::Value {
        field,
        problem: format!("{number} is not known"),
    })
}

fn write_shard(out: &mut Writer, record: &ShardRecord) {
    out.u64(record.shard.id.0);
    out.u64(record.shard.incarnation.0);
    members::write_replicas(out, &record.shard.replicas);
    out.len(record.shard.lineage.len());
    for life in &record.shard.lineage {
        out.u64(life.shard.0);
        out.u64(life.incarnation.0);
        out.u64(life.last_index);
    }
    out.bool(record.begun);
    write_seed(out, record.seed.as_ref());
    out.u64(record.last_known_index);
    out.u64(record.recoveries);
    members::write(out, &record.members);
}

fn read_shard(from: &mut Reader<'_>, version: u16) -> Result<ShardRecord, CodecError> {
    let shard = Shard {
        id: ShardId(from.u64("shard id")?),
        incarnation: Incarnation(from.u64("incarnation")?),
        replicas: members::read_replicas(from)?,
        lineage: from.list("lineage", |from| {
            Ok(Ancestor {
                shard: ShardId(from.u64("ancestor shard")?),
                incarnation: Incarnation(from.u64("ancestor incarnation")?),
                last_index: from.u64("ancestor index")?,
            })
        })?,
    };
    Ok(ShardRecord {
        shard,
        begun: from.bool("begun")?,
        seed: read_seed(from)?,
        last_known_index: from.u64("last known index")?,
        recoveries: from.u64("recoveries")?,
        members: if version > FIRST_VERSION {
            members::read(from, version > THIRD_VERSION)?
        } else {
            Members::default()
        },
    })
}

fn write_namespace(out: &mut Writer, record: &NamespaceRecord) {
    out.u32(record.namespace.id.0);
    out.text(record.namespace.name.as_str());
    out.u64(record.namespace.generation.0);
    out.u32(record.namespace.normaliser_version);
    out.option(record.namespace.layout.as_ref(), |out, layout| {
        out.layout(layout)
    });
    out.text(&record.unicode_version);
}

fn read_namespace(from: &mut Reader<'_>) -> Result<NamespaceRecord, CodecError> {
    let id = NamespaceId(from.u32("namespace id")?);
    let name = from.text("namespace name")?;
    let name = NamespaceName::new(&name).map_err(|error| CodecError::Value {
        field: "namespace name",
        problem: error.to_string(),
    })?;
    let namespace = Namespace {
        id,
        name,
        generation: Generation(from.u64("generation")?),
        normaliser_version: from.u32("normaliser version")?,
        layout: from
            .option("namespace layout", |from| from.layout("namespace layout"))?
            .map(Arc::new),
    };
    Ok(NamespaceRecord {
        namespace,
        unicode_version: from.text("unicode version")?,
    })
}
