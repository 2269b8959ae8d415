//! Who may depend on whom. Arrows never point up.

use std::collections::BTreeSet;

use anyhow::Context as _;

use crate::tree::Tree;

/// A package, and the packages of the workspace it may depend on.
struct Room {
    name: &'static str,
    may_use: &'static [&'static str],
}

const fn room(name: &'static str, may_use: &'static [&'static str]) -> Room {
    Room { name, may_use }
}

/// The house, from the ground up. A package that is not listed is refused, so that a new one gets a place.
const HOUSE: &[Room] = &[
    // pure: no clock, no randomness, no files, no sockets, no async
    room("term", &[]),
    room("repeat-table", &[]),
    room("trie-core", &[]),
    room("cluster", &["term"]),
    // the seam to the outside world
    room("runtime", &[]),
    // sync io
    room("vfs", &[]),
    room("wal", &["vfs"]),
    // wire
    room("api", &["cluster", "term"]),
    // edge
    room("rpc", &["api", "cluster", "runtime"]),
    room("telemetry", &["runtime"]),
    room("settings", &["telemetry", "vfs"]),
    // raft
    room(
        "replication",
        &["api", "cluster", "rpc", "runtime", "vfs", "wal"],
    ),
    // servers
    room(
        "shard-server",
        &[
            "api",
            "cluster",
            "repeat-table",
            "replication",
            "rpc",
            "runtime",
            "settings",
            "telemetry",
            "term",
            "trie-core",
            "vfs",
            "wal",
        ],
    ),
    room(
        "coordinator",
        &[
            "api",
            "cluster",
            "repeat-table",
            "replication",
            "rpc",
            "runtime",
            "settings",
            "telemetry",
            "term",
            "trie-core",
            "vfs",
            "wal",
        ],
    ),
    room(
        "watchdog",
        &["api", "cluster", "rpc", "runtime", "settings", "telemetry"],
    ),
    // users
    room("client", &["api", "cluster", "rpc", "runtime", "term"]),
    room("workload", &["api", "client", "runtime"]),
    room(
        "autocomplete",
        &[
            "api",
            "client",
            "cluster",
            "coordinator",
            "replication",
            "rpc",
            "runtime",
            "settings",
            "shard-server",
            "telemetry",
            "term",
            "vfs",
            "wal",
            "watchdog",
            "workload",
        ],
    ),
    // tests
    room("bench", &["client", "runtime", "workload"]),
    room(
        "chaos",
        &["api", "client", "cluster", "rpc", "runtime", "term"],
    ),
    room(
        "sim",
        &[
            "api",
            "client",
            "cluster",
            "coordinator",
            "replication",
            "rpc",
            "runtime",
            "shard-server",
            "telemetry",
            "term",
            "vfs",
            "wal",
            "watchdog",
        ],
    ),
    room(
        "fuzz",
        &[
            "api",
            "autocomplete",
            "client",
            "cluster",
            "coordinator",
            "repeat-table",
            "replication",
            "rpc",
            "runtime",
            "shard-server",
            "term",
            "trie-core",
            "vfs",
            "wal",
            "watchdog",
        ],
    ),
    room("xtask", &[]),
];

/// Libraries that only some may name: a change of library then touches one place.
const RESERVED: &[(&str, &[&str])] = &[
    ("openraft", &["replication"]),
    ("icu_normalizer", &["term"]),
    ("icu_casemap", &["term"]),
    ("prost-types", &["api", "rpc"]),
    ("axum", &["telemetry", "coordinator"]),
    (
        "prometheus",
        &["telemetry", "shard-server", "coordinator", "watchdog"],
    ),
    (
        "tokio",
        &[
            "runtime",
            "rpc",
            "telemetry",
            "replication",
            "shard-server",
            "coordinator",
            "watchdog",
            "client",
            "autocomplete",
            "bench",
            "chaos",
            "sim",
        ],
    ),
    ("redis", &["bench"]),
    ("plotters", &["bench"]),
    (
        "rustix",
        &[
            "runtime",
            "vfs",
            "telemetry",
            "chaos",
            "fuzz",
            "bench",
            "sim",
        ],
    ),
    ("rand", &["runtime"]),
];

/// Complaints about dependencies that point up, and about libraries in rooms where they do not belong.
pub(crate) fn directions(tree: &Tree) -> anyhow::Result<Vec<String>> {
    let members: BTreeSet<&str> = HOUSE.iter().map(|room| room.name).collect();
    let mut complaints = Vec::new();
    for path in tree.manifests()? {
        let manifest: toml::Table = tree
            .read(&path)?
            .parse()
            .with_context(|| format!("parsing {}", path.display()))?;
        let name = manifest
            .get("package")
            .and_then(|package| package.get("name"))
            .and_then(toml::Value::as_str)
            .with_context(|| format!("{} names no package", path.display()))?;
        let Some(room) = HOUSE.iter().find(|room| room.name == name) else {
            complaints.push(format!("{name}: has no place in the house"));
            continue;
        };
        for dependency in dependencies(&manifest) {
            if members.contains(dependency) && !room.may_use.contains(&dependency) {
                complaints.push(format!("{name}: must not depend on {dependency}"));
            }
            let reserved = RESERVED.iter().find(|(library, _)| *library == dependency);
            if reserved.is_some_and(|(_, rooms)| !rooms.contains(&name)) {
                complaints.push(format!("{name}: must not name the library {dependency}"));
            }
        }
    }
    Ok(complaints)
}

/// What a package needs to be built. Tests may reach further.
fn dependencies(manifest: &toml::Table) -> impl Iterator<Item = &str> {
    ["dependencies", "build-dependencies"]
        .into_iter()
        .filter_map(|table| manifest.get(table).and_then(toml::Value::as_table))
        .flat_map(|table| table.keys().map(String::as_str))
}
