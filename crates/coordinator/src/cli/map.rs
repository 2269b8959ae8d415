//! `coordinator map`

use std::io::Write as _;

use api::admin::v1::{GetMapRequest, ShardMap};
use api::{ApiError, Reason};
use serde_json::{Value, json};

use super::Done;
use super::connection::Connect;
use super::table::Table;

/// The options of `map`.
#[derive(Debug, clap::Args)]
pub(super) struct Map {
    /// Print JSON instead of tables
    #[arg(long)]
    json: bool,
}

impl Map {
    pub(super) async fn run(self, connect: &impl Connect) -> Done {
        let mut connection = connect.connect()?;
        let answer = connection
            .read(GetMapRequest {}, |mut admin, request| async move {
                admin.get_map(request).await
            })
            .await?;
        let none = || ApiError::new(Reason::NotFound, "the coordinator sent no map");
        let map = answer.map.ok_or_else(none)?;
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{:#}", as_json(&map))?;
            return Ok(());
        }
        writeln!(out, "epoch {}", map.epoch)?;
        for table in tables_of(&map) {
            writeln!(out, "{table}")?;
        }
        Ok(())
    }
}

/// Who has what, and the namespaces, if there are any.
pub(crate) fn tables_of(map: &ShardMap) -> Vec<Table> {
    let mut table = Table::new(&["from", "to", "shard", "life", "nodes"]);
    let ranges = map
        .template
        .as_ref()
        .map_or(&[][..], |layout| &layout.ranges);
    for (place, range) in ranges.iter().enumerate() {
        let end = ranges
            .get(place + 1)
            .map_or_else(|| "the end".to_owned(), |next| format!("{:?}", next.start));
        let shard = map.shards.iter().find(|at| at.shard_id == range.shard_id);
        let nodes = shard.map(|shard| names(map, shard)).unwrap_or_default();
        table.add_row(vec![
            format!("{:?}", range.start),
            end,
            range.shard_id.to_string(),
            shard.map_or(0, |shard| shard.incarnation).to_string(),
            nodes.join(", "),
        ]);
    }
    table.right(&[2, 3]);
    let mut tables = vec![table];
    if !map.namespaces.is_empty() {
        let mut table = Table::new(&["namespace", "id", "generation", "normaliser"]);
        for namespace in &map.namespaces {
            table.add_row(vec![
                namespace.name.clone(),
                namespace.namespace_id.to_string(),
                namespace.generation.to_string(),
                namespace.normaliser_version.to_string(),
            ]);
        }
        table.right(&[1, 2, 3]);
        tables.push(table);
    }
    tables
}

fn names(map: &ShardMap, shard: &api::admin::v1::ShardDescriptor) -> Vec<String> {
    let nodes = shard.replicas.iter().map(|replica| {
        let node = map.nodes.iter().find(|at| at.node_id == replica.node_id);
        node.map_or_else(
            || format!("node {}", replica.node_id),
            |node| {
                let lost = if node.lost { " (lost)" } else { "" };
                format!("{} at {}{lost}", node.name, node.address)
            },
        )
    });
    nodes.collect()
}

pub(crate) fn as_json(map: &ShardMap) -> Value {
    let ranges = map.template.iter().flat_map(|layout| &layout.ranges);
    json!({
        "epoch": map.epoch,
        "template": ranges
            .map(|range| json!({"start": range.start, "shard_id": range.shard_id}))
            .collect::<Vec<_>>(),
        "shards": map.shards.iter().map(|shard| json!({
            "shard_id": shard.shard_id,
            "incarnation": shard.incarnation,
            "replicas": shard.replicas.iter()
                .map(|at| json!({"node_id": at.node_id, "voter": at.voter}))
                .collect::<Vec<_>>(),
            "lineage": shard.lineage.iter()
                .map(|at| json!({"shard_id": at.shard_id, "incarnation": at.incarnation, "last_index": at.last_index}))
                .collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "nodes": map.nodes.iter().map(|node| json!({
            "node_id": node.node_id,
            "name": node.name,
            "address": node.address,
            "region": node.region,
            "lost": node.lost,
        })).collect::<Vec<_>>(),
        "namespaces": map.namespaces.iter().map(|namespace| json!({
            "namespace_id": namespace.namespace_id,
            "name": namespace.name,
            "generation": namespace.generation,
            "normaliser_version": namespace.normaliser_version,
        })).collect::<Vec<_>>(),
    })
}
