//! The shard map: one version of who owns what and where it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use term::NamespaceName;

use crate::{
    Epoch, Generation, Incarnation, KeyRange, Layout, NamespaceId, NodeId, Position, ShardId,
};

/// A node as the map knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its identity.
    pub id: NodeId,
    /// The name it registered with; stable over restarts and lost disks.
    pub name: String,
    /// Where it is reached: `host:port`.
    pub address: String,
    /// The region it stands in; empty where regions are not used.
    pub region: String,
    /// Its disk is gone; the identity never comes back.
    pub lost: bool,
}

/// A place that a replica of a shard has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replica {
    /// The node that holds it.
    pub node: NodeId,
    /// Whether it votes, or only learns.
    pub voter: bool,
}

/// An earlier life of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ancestor {
    /// The shard.
    pub shard: ShardId,
    /// Its life.
    pub incarnation: Incarnation,
    /// Everything up to this index is contained in the descendant; what lay above was lost.
    pub last_index: u64,
}

/// A shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shard {
    /// Its id.
    pub id: ShardId,
    /// Its present life.
    pub incarnation: Incarnation,
    /// Its replicas; empty while it is not placed.
    pub replicas: Vec<Replica>,
    /// The lives before this one.
    pub lineage: Vec<Ancestor>,
}

/// A namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Its id.
    pub id: NamespaceId,
    /// Its name.
    pub name: NamespaceName,
    /// Terms of lower generations are gone.
    pub generation: Generation,
    /// The normalisation its terms were made with, see [`term::NORMALISER_VERSION`].
    pub normaliser_version: u32,
    /// Its own split, where it does not follow the template.
    pub layout: Option<Arc<Layout>>,
}

/// One version of the map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardMap {
    /// Its version.
    pub epoch: Epoch,
    /// The split of every namespace that has none of its own.
    pub template: Arc<Layout>,
    /// The shards.
    pub shards: BTreeMap<ShardId, Shard>,
    /// The nodes, lost ones included.
    pub nodes: BTreeMap<NodeId, Node>,
    /// The namespaces by name.
    pub namespaces: BTreeMap<NamespaceName, Namespace>,
}

impl ShardMap {
    /// The split of a namespace; the template for one that the map does not know yet.
    #[must_use]
    pub fn layout(&self, namespace: &NamespaceName) -> &Layout {
        self.namespaces
            .get(namespace)
            .and_then(|found| found.layout.as_deref())
            .unwrap_or(&self.template)
    }

    /// The shard that owns a term of a namespace.
    #[must_use]
    pub fn owner(&self, namespace: &NamespaceName, term: &str) -> ShardId {
        self.layout(namespace).owner(term)
    }

    /// The shards that own terms below a prefix, in order, each with the part that it owns.
    #[must_use]
    pub fn cover(&self, namespace: &NamespaceName, prefix: &str) -> Vec<(KeyRange, ShardId)> {
        self.layout(namespace).cover(prefix)
    }

    /// The first term of a shard in the template, which is its `shard_key` in metrics. "" where it has none.
    #[must_use]
    pub fn shard_key(&self, shard: ShardId) -> &str {
        self.template
            .starts()
            .iter()
            .find(|(_, owner)| *owner == shard)
            .map_or("", |(start, _)| start.as_str())
    }

    /// The namespace of an id.
    #[must_use]
    pub fn namespace(&self, id: NamespaceId) -> Option<&Namespace> {
        self.namespaces.values().find(|found| found.id == id)
    }

    /// What a position of a shard means in the shard's present life: itself, or for a position of an earlier life `None`
    /// inside `Some` when everything it names is contained. `None` when the life is unknown, or what it names was lost.
    #[must_use]
    pub fn translate(&self, position: Position) -> Option<Option<Position>> {
        let shard = self.shards.get(&position.shard)?;
        if shard.incarnation == position.incarnation {
            return Some(Some(position));
        }
        shard
            .lineage
            .iter()
            .find(|ancestor| {
                ancestor.shard == position.shard && ancestor.incarnation == position.incarnation
            })
            .filter(|ancestor| position.index <= ancestor.last_index)
            .map(|_| None)
    }
}

#[cfg(test)]
mod tests;
