use vfs::{RealDisk, durable};

use super::*;

fn minimal() -> Settings {
    Settings {
        node_name: Some("node-1".into()),
        coordinators: Some(vec!["127.0.0.1:50051".into()]),
        ..Settings::default()
    }
}

#[test]
fn a_name_and_a_coordinator_are_enough() {
    let config = minimal().check().unwrap();
    assert_eq!(config.grpc_addr, Config::default().grpc_addr);
    assert_eq!(config.node_name, "node-1");
    assert_eq!(config.queue, QueueConfig::default());
    assert_eq!(config.snapshots, SnapshotConfig::default());
}

#[test]
fn all_problems_are_named_at_once() {
    let settings = Settings {
        grpc_addr: Some("nowhere".into()),
        http_addr: Some("8080".into()),
        advertise_addr: Some("http://host:1".into()),
        coordinators: Some(vec!["coordinator".into()]),
        cached_k: Some(0),
        snapshot_interval: Some("0s".into()),
        log_segment_bytes: Some(1),
        queue_bytes_max: Some(10),
        ..Settings::default()
    };
    let problems = settings.check().unwrap_err();
    let mut options: Vec<_> = problems.0.iter().map(|problem| problem.option).collect();
    options.sort_unstable();
    assert_eq!(
        options,
        [
            "advertise-addr",
            "cached-k",
            "coordinators",
            "grpc-addr",
            "http-addr",
            "log-segment-bytes",
            "node-name",
            "queue-bytes-max",
            "snapshot-interval",
        ]
    );
    assert!(
        problems
            .to_string()
            .contains("--cached-k: 0 is not 1 to 1000")
    );
}

#[test]
fn an_address_that_nobody_reaches_must_be_advertised() {
    let mut settings = Settings {
        grpc_addr: Some("0.0.0.0:50061".into()),
        ..minimal()
    };
    let problems = settings.clone().check().unwrap_err();
    assert_eq!(problems.0.len(), 1);
    assert_eq!(problems.0[0].option, "advertise-addr");
    settings.advertise_addr = Some("shard-1:50061".into());
    assert!(settings.check().is_ok());
}

#[test]
fn the_command_line_wins_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("shard.toml");
    let text = b"node_name = \"from-file\"\ncoordinators = [\"a:1\", \"b:2\"]\ncached_k = 7\nsnapshot_interval = \"90s\"\nregion = \"north\"\n";
    durable::replace(&RealDisk, &path, text).unwrap();
    let settings = Settings {
        config: Some(path.clone()),
        node_name: Some("from-flag".into()),
        ..Settings::default()
    };
    let config = settings.clone().load().unwrap();
    assert_eq!(config.node_name, "from-flag");
    assert_eq!(config.coordinators, ["a:1", "b:2"]);
    assert_eq!(config.snapshots.interval, Duration::from_secs(90));
    assert_eq!(
        (config.state.cached_k, config.region.as_str()),
        (7, "north")
    );

    durable::replace(&RealDisk, &path, b"cached_q = 7\n").unwrap();
    let problems = settings.load().unwrap_err();
    assert!(problems.to_string().contains("cached_q"), "{problems}");
}
