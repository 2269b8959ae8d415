//! The shard map and its parts.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::Arc;

use cluster::{
    Ancestor, Epoch, Generation, Incarnation, Layout, MapError, Namespace, NamespaceId, Node,
    NodeId, Replica, Shard, ShardId, ShardMap,
};
use term::NamespaceName;

use crate::admin::v1 as wire;

fn malformed(field: &'static str, problem: impl Display) -> MapError {
    MapError::Malformed {
        field,
        problem: problem.to_string(),
    }
}

/// Keys what is unique by its key; a second one of the same key is refused.
fn unique<K: Ord, V>(
    field: &'static str,
    pairs: impl Iterator<Item = Result<(K, V), MapError>>,
) -> Result<BTreeMap<K, V>, MapError> {
    let mut map = BTreeMap::new();
    for pair in pairs {
        let (key, value) = pair?;
        if map.insert(key, value).is_some() {
            return Err(malformed(field, "the same id or name twice"));
        }
    }
    Ok(map)
}

impl From<&Layout> for wire::Layout {
    fn from(layout: &Layout) -> Self {
        let ranges = layout
            .starts()
            .iter()
            .map(|(start, shard)| wire::LayoutRange {
                start: start.clone(),
                shard_id: shard.0,
            });
        Self {
            ranges: ranges.collect(),
        }
    }
}

impl TryFrom<wire::Layout> for Layout {
    type Error = MapError;

    fn try_from(layout: wire::Layout) -> Result<Self, MapError> {
        let ranges = layout
            .ranges
            .into_iter()
            .map(|range| (range.start, ShardId(range.shard_id)));
        Self::new(ranges.collect())
    }
}

impl From<&Replica> for wire::ReplicaDescriptor {
    fn from(replica: &Replica) -> Self {
        Self {
            node_id: replica.node.0,
            voter: replica.voter,
        }
    }
}

impl From<&wire::ReplicaDescriptor> for Replica {
    fn from(replica: &wire::ReplicaDescriptor) -> Self {
        Self {
            node: NodeId(replica.node_id),
            voter: replica.voter,
        }
    }
}

impl From<&Ancestor> for wire::Ancestor {
    fn from(ancestor: &Ancestor) -> Self {
        Self {
            shard_id: ancestor.shard.0,
            incarnation: ancestor.incarnation.0,
            last_index: ancestor.last_index,
        }
    }
}

impl From<&wire::Ancestor> for Ancestor {
    fn from(ancestor: &wire::Ancestor) -> Self {
        Self {
            shard: ShardId(ancestor.shard_id),
            incarnation: Incarnation(ancestor.incarnation),
            last_index: ancestor.last_index,
        }
    }
}

impl From<&Shard> for wire::ShardDescriptor {
    fn from(shard: &Shard) -> Self {
        Self {
            shard_id: shard.id.0,
            incarnation: shard.incarnation.0,
            replicas: shard.replicas.iter().map(Into::into).collect(),
            lineage: shard.lineage.iter().map(Into::into).collect(),
        }
    }
}

impl From<wire::ShardDescriptor> for Shard {
    fn from(shard: wire::ShardDescriptor) -> Self {
        Self {
            id: ShardId(shard.shard_id),
            incarnation: Incarnation(shard.incarnation),
            replicas: shard.replicas.iter().map(Into::into).collect(),
            lineage: shard.lineage.iter().map(Into::into).collect(),
        }
    }
}

impl From<&Node> for wire::NodeDescriptor {
    fn from(node: &Node) -> Self {
        Self {
            node_id: node.id.0,
            name: node.name.clone(),
            address: node.address.clone(),
            region: node.region.clone(),
            lost: node.lost,
        }
    }
}

impl From<wire::NodeDescriptor> for Node {
    fn from(node: wire::NodeDescriptor) -> Self {
        Self {
            id: NodeId(node.node_id),
            name: node.name,
            address: node.address,
            region: node.region,
            lost: node.lost,
        }
    }
}

impl From<&Namespace> for wire::NamespaceDescriptor {
    fn from(namespace: &Namespace) -> Self {
        Self {
            namespace_id: namespace.id.0,
            name: namespace.name.as_str().to_owned(),
            generation: namespace.generation.0,
            normaliser_version: namespace.normaliser_version,
            layout: namespace.layout.as_deref().map(Into::into),
        }
    }
}

impl TryFrom<wire::NamespaceDescriptor> for Namespace {
    type Error = MapError;

    fn try_from(namespace: wire::NamespaceDescriptor) -> Result<Self, MapError> {
        if namespace.name.is_empty() {
            // The empty name means the default namespace in a request; in a map it means a broken map.
            return Err(malformed("namespaces.name", "is empty"));
        }
        let name = NamespaceName::new(&namespace.name)
            .map_err(|error| malformed("namespaces.name", error))?;
        let layout = namespace
            .layout
            .map(|layout| Layout::try_from(layout).map(Arc::new))
            .transpose()?;
        Ok(Self {
            id: NamespaceId(namespace.namespace_id),
            name,
            generation: Generation(namespace.generation),
            normaliser_version: namespace.normaliser_version,
            layout,
        })
    }
}

impl From<&ShardMap> for wire::ShardMap {
    fn from(map: &ShardMap) -> Self {
        Self {
            epoch: map.epoch.0,
            template: Some(map.template.as_ref().into()),
            shards: map.shards.values().map(Into::into).collect(),
            nodes: map.nodes.values().map(Into::into).collect(),
            namespaces: map.namespaces.values().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::ShardMap> for ShardMap {
    type Error = MapError;

    fn try_from(map: wire::ShardMap) -> Result<Self, MapError> {
        let template = map
            .template
            .ok_or_else(|| malformed("template", "is missing"))?;
        let shards = map
            .shards
            .into_iter()
            .map(|shard| Ok((ShardId(shard.shard_id), shard.into())));
        let nodes = map
            .nodes
            .into_iter()
            .map(|node| Ok((NodeId(node.node_id), node.into())));
        let namespaces = map.namespaces.into_iter().map(|namespace| {
            Namespace::try_from(namespace).map(|namespace| (namespace.name.clone(), namespace))
        });
        Ok(Self {
            epoch: Epoch(map.epoch),
            template: Arc::new(template.try_into()?),
            shards: unique("shards", shards)?,
            nodes: unique("nodes", nodes)?,
            namespaces: unique("namespaces", namespaces)?,
        })
    }
}
