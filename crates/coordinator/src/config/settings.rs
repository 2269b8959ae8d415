//! The options of `serve` as they are written on a command line, in the environment or in a file, and how they are checked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use cluster::{Layout, NodeId, ShardId, limits};
use settings::Problems;
use term::Term;

use super::{ClusterConfig, Config, CoordinatorsConfig, LimitsConfig, SHARDS_DEFAULT};

/// The longest silence of a shard server that may be configured.
const HOUR: Duration = Duration::from_hours(1);
/// Ids of coordinators are small numbers that people give.
const COORDINATOR_ID_MAX: u64 = 1_000;

settings::settings! {
    /// The options of `serve`.
    pub struct Settings for Config, "AUTOCOMPLETE_COORDINATOR_";

    /// Address for gRPC [default: 127.0.0.1:50051]
    grpc_addr: String, "GRPC_ADDR", "ADDR:PORT";
    /// Address for the page, the JSON interface and /metrics [default: 127.0.0.1:8080]
    http_addr: String, "HTTP_ADDR", "ADDR:PORT";
    /// Directory of the cluster's metadata and of the snapshots held for recovery [default: coordinator-data]
    data_dir: PathBuf, "DATA_DIR", "DIR";
    /// Which of the cluster's coordinators this is, 1 to 1000 [default: 1]
    id: u64, "ID", "N";
    /// All three coordinators of the cluster, this one included: ID=HOST:PORT, comma separated [default: this one alone]
    #[arg(value_delimiter = ',')]
    peers: Vec<String>, "PEERS", "ID=HOST:PORT,...";
    /// Shards of a new cluster, 1 to 1024 [default: 3]
    shards: usize, "SHARDS", "N";
    /// First terms of the second, third, ... shard of a new cluster, comma separated [default: an even split of English]
    #[arg(value_delimiter = ',')]
    split_points: Vec<String>, "SPLIT_POINTS", "TERM,...";
    /// Replicas of each shard of a new cluster, 1 to 7; an even number stands the loss of no more than one fewer does [default: 1]
    replicas: usize, "REPLICAS", "N";
    /// Shard servers that must have registered before shards are placed [default: as many as shards]
    expect_nodes: usize, "EXPECT_NODES", "N";
    /// Web origins, besides the page's own, that may record from a browser, comma separated [default: none]
    #[arg(value_delimiter = ',')]
    allowed_origins: Vec<String>, "ALLOWED_ORIGINS", "ORIGIN,...";
    /// A shard server that has not reported for this long counts as not alive, 1s to 1h [default: 3s]
    silent_after: String, "SILENT_AFTER", "DURATION";
    /// A shard server that was gone for this long is replaced where there is a spare, up to 30d; 0s = never [default: 10m]
    replace_after: String, "REPLACE_AFTER", "DURATION";
    /// Leads that lie unevenly are spread when none has moved for this long, up to 30d; 0s = never [default: 1m]
    balance_after: String, "BALANCE_AFTER", "DURATION";
    /// Region of all voters; every other region that has shard servers gets a learner of each shard, for STALE reads [default: voters anywhere]
    home_region: String, "HOME_REGION", "NAME";
    /// Snapshots held of each shard, 1 to 16 [default: 2]
    snapshots_kept: usize, "SNAPSHOTS_KEPT", "N";
    /// Calls worked on at once, 1 to 65536; more are refused [default: 4096]
    calls_max: usize, "CALLS_MAX", "N";
    /// Requests of one stream worked on at once, 1 to 1024 [default: 32]
    stream_window: usize, "STREAM_WINDOW", "N";
    /// STALE reads of a hundred that are sent to a second replica when the first is slow, 0 to 100; 0 = never [default: 5]
    hedge_percent: u32, "HEDGE_PERCENT", "N";
    /// How a line of the log looks: text or json [default: text]
    log_format: String, "LOG_FORMAT", "FORMAT";
    /// Levels of the log by module, such as info,coordinator=debug [default: info,openraft=error]
    log_filter: String, "LOG_FILTER", "FILTER";
}

impl Settings {
    fn examine(self, at: &mut Problems) -> Config {
        let default = Config::default();
        let grpc_addr = at.address("grpc-addr", self.grpc_addr.as_deref());
        let http_addr = at.address("http-addr", self.http_addr.as_deref());
        Config {
            grpc_addr: grpc_addr.unwrap_or(default.grpc_addr),
            http_addr: http_addr.unwrap_or(default.http_addr),
            group: self.group(at),
            cluster: self.cluster(at),
            limits: self.limits(at),
            logging: at.logging(self.log_format.as_deref(), self.log_filter.as_deref()),
            silent_after: at.duration(
                "silent-after",
                self.silent_after.as_deref(),
                Duration::from_secs(1)..=HOUR,
                default.silent_after,
            ),
            replace_after: or_never(
                at,
                "replace-after",
                self.replace_after.as_deref(),
                default.replace_after,
            ),
            balance_after: or_never(
                at,
                "balance-after",
                self.balance_after.as_deref(),
                default.balance_after,
            ),
            home_region: Some(at.name(
                "home-region",
                self.home_region.as_deref().filter(|name| !name.is_empty()),
            ))
            .filter(|region| !region.is_empty()),
            snapshots_kept: at.number(
                "snapshots-kept",
                self.snapshots_kept,
                1..=16,
                default.snapshots_kept,
            ),
            allowed_origins: origins(at, self.allowed_origins.unwrap_or_default()),
            data_dir: self.data_dir.unwrap_or(default.data_dir),
        }
    }

    fn group(&self, at: &mut Problems) -> CoordinatorsConfig {
        let id = NodeId(at.number("id", self.id, 1..=COORDINATOR_ID_MAX, 1));
        let list = self.peers.as_deref().unwrap_or_default();
        let mut peers = BTreeMap::new();
        for entry in list {
            if let Some((peer, address)) = at.keep("peers", peer(entry))
                && peers.insert(peer, address).is_some()
            {
                at.add("peers", format!("coordinator {peer} is named twice"));
            }
        }
        let addresses: BTreeSet<&String> = peers.values().collect();
        if addresses.len() < peers.len() {
            at.add("peers", "two coordinators have the same address".to_owned());
        }
        if !matches!(list.len(), 0 | 1 | 3) {
            let text = format!("{} coordinators; a cluster has one or three", list.len());
            at.add("peers", text);
        }
        if !list.is_empty() && !peers.contains_key(&id) {
            at.add(
                "peers",
                format!("this coordinator, {id}, is not among them"),
            );
        }
        CoordinatorsConfig { id, peers }
    }

    fn cluster(&self, at: &mut Problems) -> ClusterConfig {
        let points = self
            .split_points
            .as_deref()
            .filter(|points| !points.is_empty());
        let by_points = points.map(|points| points.len() + 1);
        let shards = at.number(
            "shards",
            self.shards.or(by_points),
            1..=limits::SHARDS_MAX,
            SHARDS_DEFAULT,
        );
        if let Some(by_points) = by_points
            && by_points != shards
        {
            let text = format!(
                "{} points make {by_points} shards, not {shards}",
                by_points - 1
            );
            at.add("split-points", text);
        }
        let template = match points {
            Some(points) => split(at, points),
            None => at.keep("shards", Layout::for_english(shards)),
        };
        let replicas = at.number("replicas", self.replicas, 1..=7, 1);
        let expect_nodes = at.number(
            "expect-nodes",
            self.expect_nodes,
            replicas..=limits::SHARDS_MAX * 7,
            shards.max(replicas),
        );
        ClusterConfig {
            template: template.unwrap_or_else(|| ClusterConfig::default().template),
            replicas,
            expect_nodes,
        }
    }

    fn limits(&self, at: &mut Problems) -> LimitsConfig {
        let default = LimitsConfig::default();
        LimitsConfig {
            calls_max: at.number("calls-max", self.calls_max, 1..=65_536, default.calls_max),
            stream_window: at.number(
                "stream-window",
                self.stream_window,
                1..=1_024,
                default.stream_window,
            ),
            hedge_percent: at.number(
                "hedge-percent",
                self.hedge_percent,
                0..=100,
                default.hedge_percent,
            ),
            ..default
        }
    }
}

/// Nothing is never.
fn or_never(
    at: &mut Problems,
    name: &'static str,
    given: Option<&str>,
    default: Option<Duration>,
) -> Option<Duration> {
    let longest = Duration::from_hours(30 * 24);
    let default = default.unwrap_or_default();
    let after = at.duration(name, given, Duration::ZERO..=longest, default);
    (!after.is_zero()).then_some(after)
}

/// A coordinator of the list: `1=host:port`.
fn peer(entry: &str) -> Result<(NodeId, String), String> {
    let parsed = entry.split_once('=').and_then(|(id, address)| {
        let id = id.trim().parse().ok();
        let id = id.filter(|id| (1..=COORDINATOR_ID_MAX).contains(id))?;
        let (host, port) = address.trim().rsplit_once(':')?;
        let port: u16 = port.parse().ok()?;
        (!host.is_empty() && port > 0).then(|| (NodeId(id), address.trim().to_owned()))
    });
    parsed.ok_or_else(|| format!("{entry:?} is not an id and an address like 1=host:50051"))
}

fn split(at: &mut Problems, points: &[String]) -> Option<Layout> {
    let mut ranges = vec![(String::new(), ShardId(1))];
    for (point, shard) in points.iter().zip(2..) {
        let term = Term::new(point).map_err(|error| format!("{point:?} {error}"));
        let term = at.keep("split-points", term)?;
        ranges.push((term.as_str().to_owned(), ShardId(shard)));
    }
    at.keep("split-points", Layout::new(ranges))
}

/// An origin as browsers send it: scheme, host, and port where it is not the scheme's own.
fn origins(at: &mut Problems, list: Vec<String>) -> Vec<String> {
    for origin in &list {
        let host = origin
            .strip_prefix("http://")
            .or_else(|| origin.strip_prefix("https://"));
        let is_bare =
            |host: &str| !host.is_empty() && !host.contains(['/', '?', '#', '@', ' ', '*']);
        if !host.is_some_and(is_bare) {
            let text = format!("{origin:?} is not an origin like https://example.org");
            at.add("allowed-origins", text);
        }
    }
    list
}
