//! The shard map as this node uses it: who owns what, looked up fast.

use std::collections::HashMap;
use std::sync::Arc;

use cluster::{Epoch, Generation, KeyRange, Namespace, NamespaceId, NodeId, ShardId, ShardMap};
use term::NamespaceName;

/// One version of the map with what is derived from it. A node without a map has [`View::default`].
#[derive(Debug, Default)]
pub(crate) struct View {
    map: Option<Arc<ShardMap>>,
    by_id: HashMap<NamespaceId, NamespaceName>,
    /// The ranges of every shard in the template.
    template: HashMap<ShardId, Vec<KeyRange>>,
}

impl View {
    pub(crate) fn new(map: Arc<ShardMap>) -> Self {
        let names = map.namespaces.values();
        let by_id = names.map(|found| (found.id, found.name.clone())).collect();
        let mut template: HashMap<ShardId, Vec<KeyRange>> = HashMap::new();
        for (range, shard) in map.template.iter() {
            template.entry(shard).or_default().push(range);
        }
        Self {
            by_id,
            template,
            map: Some(map),
        }
    }

    pub(crate) fn map(&self) -> Option<&Arc<ShardMap>> {
        self.map.as_ref()
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.map.as_ref().map_or(Epoch(0), |map| map.epoch)
    }

    pub(crate) fn namespace(&self, id: NamespaceId) -> Option<&Namespace> {
        self.map.as_ref()?.namespaces.get(self.by_id.get(&id)?)
    }

    /// The generation of each namespace.
    pub(crate) fn generations(&self) -> impl Iterator<Item = (NamespaceId, Generation)> + '_ {
        let namespaces = self.map.iter().flat_map(|map| map.namespaces.values());
        namespaces.map(|found| (found.id, found.generation))
    }

    /// Whether a shard owns a term of a namespace. A namespace that the map does not know yet follows the template.
    pub(crate) fn owns(&self, shard: ShardId, namespace: NamespaceId, term: &str) -> bool {
        let own = self
            .namespace(namespace)
            .and_then(|found| found.layout.as_deref());
        match own {
            Some(layout) => layout.owner(term) == shard,
            None => self
                .template
                .get(&shard)
                .is_some_and(|ranges| ranges.iter().any(|range| range.contains(term))),
        }
    }

    /// Whether one of the ranges that a shard owns in a namespace holds all of another.
    pub(crate) fn owns_all(
        &self,
        shard: ShardId,
        namespace: NamespaceId,
        wanted: &KeyRange,
    ) -> bool {
        let Some(map) = &self.map else {
            return false;
        };
        let own = self
            .namespace(namespace)
            .and_then(|found| found.layout.as_deref());
        own.unwrap_or(&map.template).owner_of_all(wanted) == Some(shard)
    }

    /// The parts of a prefix's range that a shard owns in a namespace, in order.
    pub(crate) fn parts(
        &self,
        shard: ShardId,
        namespace: NamespaceId,
        prefix: &str,
    ) -> Vec<KeyRange> {
        let wanted = KeyRange::of_prefix(prefix);
        let own = self
            .namespace(namespace)
            .and_then(|found| found.layout.as_deref());
        let intersect = |range: &KeyRange| range.intersection(&wanted);
        match own {
            Some(layout) => layout
                .ranges_of(shard)
                .iter()
                .filter_map(intersect)
                .collect(),
            None => self
                .template
                .get(&shard)
                .into_iter()
                .flatten()
                .filter_map(intersect)
                .collect(),
        }
    }

    /// A shard's first term in the template, its label in metrics.
    pub(crate) fn shard_key(&self, shard: ShardId) -> &str {
        self.map.as_ref().map_or("", |map| map.shard_key(shard))
    }

    /// Where a node is reached.
    pub(crate) fn address(&self, node: NodeId) -> Option<&str> {
        let map = self.map.as_ref()?;
        map.nodes.get(&node).map(|found| found.address.as_str())
    }

    /// The node to ask for a shard: its first voter.
    pub(crate) fn owner_node(&self, shard: ShardId) -> Option<NodeId> {
        let shard = self.map.as_ref()?.shards.get(&shard)?;
        let voter = shard.replicas.iter().find(|replica| replica.voter);
        voter.map(|replica| replica.node)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use cluster::{Incarnation, Layout, Node, Replica, Shard};

    use super::*;

    /// Two shards that meet at "m", on nodes 1 and 2; namespace 1 is the default, namespace 2 ("split") meets at "c".
    fn map() -> Arc<ShardMap> {
        let layout = |at: &str| {
            let ranges = vec![(String::new(), ShardId(1)), (at.to_owned(), ShardId(2))];
            Arc::new(Layout::new(ranges).unwrap())
        };
        let node = |id: u64| Node {
            id: NodeId(id),
            name: format!("node-{id}"),
            address: format!("node-{id}:50061"),
            region: String::new(),
            lost: false,
        };
        let shard = |id: u64| Shard {
            id: ShardId(id),
            incarnation: Incarnation::FIRST,
            replicas: vec![Replica {
                node: NodeId(id),
                voter: true,
            }],
            lineage: Vec::new(),
        };
        let namespace = |id: u32, name: &str, layout: Option<Arc<Layout>>| Namespace {
            id: NamespaceId(id),
            name: NamespaceName::new(name).unwrap(),
            generation: Generation(u64::from(id)),
            normaliser_version: 1,
            layout,
        };
        let namespaces = [
            namespace(1, "", None),
            namespace(2, "split", Some(layout("c"))),
        ];
        Arc::new(ShardMap {
            epoch: Epoch(5),
            template: layout("m"),
            shards: BTreeMap::from([(ShardId(1), shard(1)), (ShardId(2), shard(2))]),
            nodes: BTreeMap::from([(NodeId(1), node(1)), (NodeId(2), node(2))]),
            namespaces: namespaces
                .into_iter()
                .map(|found| (found.name.clone(), found))
                .collect(),
        })
    }

    #[test]
    fn ownership_follows_the_namespace_or_the_template() {
        let view = View::new(map());
        let (one, two, unknown) = (NamespaceId(1), NamespaceId(2), NamespaceId(77));
        for namespace in [one, unknown] {
            assert!(view.owns(ShardId(1), namespace, "d"));
            assert!(!view.owns(ShardId(2), namespace, "d"));
        }
        assert!(view.owns(ShardId(2), two, "d"));
        assert!(!view.owns(ShardId(3), one, "d"));
        assert!(!View::default().owns(ShardId(1), one, "d"));
    }

    #[test]
    fn parts_are_what_a_shard_owns_of_a_prefix() {
        let view = View::new(map());
        let range = |start: &str, end: Option<&str>| {
            KeyRange::new(start.to_owned(), end.map(str::to_owned)).unwrap()
        };
        let one = NamespaceId(1);
        assert_eq!(view.parts(ShardId(1), one, ""), [range("", Some("m"))]);
        assert_eq!(view.parts(ShardId(2), one, ""), [range("m", None)]);
        assert_eq!(view.parts(ShardId(1), one, "a"), [range("a", Some("b"))]);
        assert_eq!(view.parts(ShardId(2), one, "a"), []);
        let two = NamespaceId(2);
        assert_eq!(view.parts(ShardId(2), two, "d"), [range("d", Some("e"))]);
        for (shard, namespace, prefix) in
            [(1, one, "a"), (2, one, "m"), (1, two, "b"), (2, two, "c")]
        {
            let wanted = KeyRange::of_prefix(prefix);
            assert_eq!(
                view.parts(ShardId(shard), namespace, prefix),
                std::slice::from_ref(&wanted)
            );
            assert!(view.owns_all(ShardId(shard), namespace, &wanted));
            assert!(!view.owns_all(ShardId(3 - shard), namespace, &wanted));
            assert!(!View::default().owns_all(ShardId(shard), namespace, &wanted));
        }
        let shared = KeyRange::full();
        assert!(!(1..=2).any(|shard| view.owns_all(ShardId(shard), one, &shared)));
        assert_eq!(view.shard_key(ShardId(2)), "m");
        assert_eq!(view.owner_node(ShardId(2)), Some(NodeId(2)));
        assert_eq!(view.address(NodeId(2)), Some("node-2:50061"));
    }
}
