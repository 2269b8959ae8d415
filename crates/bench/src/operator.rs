//! Whoever runs a cluster: with the command `coordinator`, against its public address, and nothing else.
//!
//! What always holds: each command is a process of its own, which ends before its answer is used, at the latest after [`PATIENCE`].
//!
//! On failure: the error says which command it was, and what that wrote to standard error.

use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use runtime::Runtime;
use serde::Deserialize;

use crate::ours::Programs;
use crate::process::Process;

/// How long a command may take: a replica of millions of terms moves, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(600);

/// Whoever runs a cluster.
#[derive(Debug, Clone)]
pub(crate) struct Operator {
    runtime: Runtime,
    programs: Programs,
    address: String,
}

/// What is done to a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// It takes a snapshot, and the coordinator fetches that.
    Pull { shard: u64 },
    /// A replica goes from one server to another, which is sent what it is to have.
    Replace { shard: u64, from: u64, to: u64 },
}

impl Deed {
    /// The command, in words.
    fn words(self) -> Vec<String> {
        match self {
            Self::Pull { shard } => vec!["snapshot".into(), "pull".into(), shard.to_string()],
            Self::Replace { shard, from, to } => vec![
                "replace".into(),
                shard.to_string(),
                from.to_string(),
                "--with".into(),
                to.to_string(),
            ],
        }
    }
}

impl Operator {
    pub(crate) fn new(runtime: &Runtime, programs: Programs, address: &str) -> Self {
        Self {
            runtime: runtime.clone(),
            programs,
            address: address.to_owned(),
        }
    }

    /// Where the replicas are.
    pub(crate) async fn map(&self) -> Result<Map, anyhow::Error> {
        let said = self.run(&["map".to_owned(), "--json".to_owned()]).await?;
        serde_json::from_str(&said).context("reading the map")
    }

    /// Does it, and waits until it is done.
    pub(crate) async fn carry_out(&self, deed: Deed) -> Result<(), anyhow::Error> {
        self.run(&deed.words()).await.map(drop)
    }

    async fn run(&self, words: &[String]) -> Result<String, anyhow::Error> {
        let mut command = self.programs.coordinator();
        command
            .args(["--coordinators", &self.address])
            .args(words)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let process = Process::start(&mut command)?;
        let said = process.said(&self.runtime, PATIENCE).await;
        said.with_context(|| format!("coordinator {}", words.join(" ")))
    }
}

/// Where the replicas are, as `coordinator map --json` tells it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Map {
    shards: Vec<Shard>,
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, Deserialize)]
struct Shard {
    shard_id: u64,
    replicas: Vec<Replica>,
}

#[derive(Debug, Clone, Deserialize)]
struct Replica {
    node_id: u64,
}

#[derive(Debug, Clone, Deserialize)]
struct Node {
    node_id: u64,
    lost: bool,
}

impl Map {
    /// A snapshot of each shard.
    pub(crate) fn pulls(&self) -> Vec<Deed> {
        let shards = self.shards.iter();
        let pull = |at: &Shard| Deed::Pull { shard: at.shard_id };
        shards.map(pull).collect()
    }

    /// A replica of each shard goes to a server that has none of it, and comes back. Which one it is changes from turn to turn. Nothing
    /// where every server has a replica of every shard.
    pub(crate) fn moves(&self, turn: usize) -> Vec<Deed> {
        let mut deeds = Vec::new();
        for (place, at) in self.shards.iter().enumerate() {
            let holds = |node: u64| at.replicas.iter().any(|replica| replica.node_id == node);
            let mut nodes = self.nodes.iter();
            let free = nodes.find(|node| !node.lost && !holds(node.node_id));
            let place = turn.wrapping_add(place).checked_rem(at.replicas.len());
            let leaving = place.and_then(|place| at.replicas.get(place));
            if let (Some(leaving), Some(free)) = (leaving, free) {
                let (shard, from, to) = (at.shard_id, leaving.node_id, free.node_id);
                deeds.push(Deed::Replace { shard, from, to });
                deeds.push(Deed::Replace {
                    shard,
                    from: to,
                    to: from,
                });
            }
        }
        deeds
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the command writes it, with all that nobody reads here.
    fn map(nodes: &[u64]) -> Map {
        let nodes: Vec<_> = nodes
            .iter()
            .map(|id| {
                serde_json::json!({
                    "node_id": id, "name": format!("shard-{id}"), "address": "a:1", "region": "", "lost": *id == 9,
                })
            })
            .collect();
        let replicas = [1, 2, 3].map(|id| serde_json::json!({"node_id": id, "voter": true}));
        let shard = |id: u64| serde_json::json!({"shard_id": id, "incarnation": 1, "replicas": replicas, "lineage": []});
        let map = serde_json::json!({
            "epoch": 7,
            "template": [{"start": "", "shard_id": 1}, {"start": "m", "shard_id": 2}],
            "shards": [shard(1), shard(2)],
            "nodes": nodes,
            "namespaces": [],
        });
        serde_json::from_value(map).unwrap()
    }

    #[test]
    fn a_replica_of_each_shard_goes_to_the_free_server_and_back() {
        let replace = |shard, from, to| Deed::Replace { shard, from, to };
        let map = map(&[1, 2, 9, 3, 4]);
        let moves = [
            replace(1, 1, 4),
            replace(1, 4, 1),
            replace(2, 2, 4),
            replace(2, 4, 2),
        ];
        assert_eq!(map.moves(0), moves);
        assert_eq!(map.moves(2)[0], replace(1, 3, 4));
        assert_eq!(map.moves(2)[2], replace(2, 1, 4));
    }

    #[test]
    fn nothing_moves_where_no_server_is_free() {
        assert_eq!(map(&[1, 2, 3, 9]).moves(0), []);
    }

    #[test]
    fn every_shard_is_pulled_by_the_command_of_the_coordinator() {
        let pulls = map(&[1, 2, 3]).pulls();
        assert_eq!(pulls, [Deed::Pull { shard: 1 }, Deed::Pull { shard: 2 }]);
        assert_eq!(pulls[1].words(), ["snapshot", "pull", "2"]);
        let replace = Deed::Replace {
            shard: 3,
            from: 1,
            to: 4,
        };
        assert_eq!(replace.words(), ["replace", "3", "1", "--with", "4"]);
    }
}
