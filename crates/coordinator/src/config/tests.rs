#![expect(clippy::disallowed_methods, reason = "a test writes the file it reads")]

use super::*;
use cluster::ShardId;

#[test]
fn without_settings_everything_has_its_default() {
    let config = Settings::default().check().unwrap();
    assert_eq!(config.grpc_addr.to_string(), "127.0.0.1:50051");
    assert_eq!(config.cluster.template.starts().len(), 3);
    assert_eq!(config.cluster.expect_nodes, 3);
    assert_eq!(config.snapshots_kept, 2);
    assert_eq!(config.limits.hedge_percent, 5);
}

#[test]
fn as_many_servers_are_waited_for_as_replicas_need() {
    let config = Settings {
        replicas: Some(5),
        ..Settings::default()
    };
    let cluster = config.check().unwrap().cluster;
    assert_eq!((cluster.replicas, cluster.expect_nodes), (5, 5));
}

#[test]
fn an_even_number_of_replicas_is_accepted_and_known_to_be_no_better() {
    let even = (1..=7).map(|replicas| {
        let settings = Settings {
            replicas: Some(replicas),
            ..Settings::default()
        };
        settings.check().unwrap().cluster.has_a_replica_in_vain()
    });
    let even: Vec<bool> = even.collect();
    assert_eq!(even, [false, true, false, true, false, true, false]);
}

#[test]
fn every_problem_is_named_at_once() {
    let problems = Settings {
        grpc_addr: Some("nowhere".into()),
        shards: Some(0),
        replicas: Some(9),
        silent_after: Some("5 parsecs".into()),
        snapshots_kept: Some(99),
        hedge_percent: Some(101),
        allowed_origins: Some(vec!["example.org".into(), "https://a/b".into()]),
        ..Settings::default()
    }
    .check()
    .unwrap_err();
    let options: Vec<&str> = problems.0.iter().map(|at| at.option).collect();
    for option in [
        "grpc-addr",
        "shards",
        "replicas",
        "silent-after",
        "snapshots-kept",
        "hedge-percent",
        "allowed-origins",
    ] {
        assert!(options.contains(&option), "{option} in {options:?}");
    }
    assert_eq!(
        options
            .iter()
            .filter(|at| **at == "allowed-origins")
            .count(),
        2
    );
}

#[test]
fn split_points_are_terms_in_order_and_say_how_many_shards() {
    let points = |list: &[&str]| Settings {
        split_points: Some(list.iter().map(|at| (*at).to_owned()).collect()),
        ..Settings::default()
    };
    let config = points(&["F", "s"]).check().unwrap();
    assert_eq!(
        config.cluster.template.starts(),
        [
            (String::new(), ShardId(1)),
            ("f".into(), ShardId(2)),
            ("s".into(), ShardId(3))
        ]
    );
    assert_eq!(config.cluster.expect_nodes, 3);
    assert!(points(&["s", "f"]).check().is_err());
    assert!(points(&[" "]).check().is_err());
    let both = Settings {
        shards: Some(5),
        ..points(&["f", "s"])
    };
    assert!(both.check().is_err());
}

#[test]
fn the_command_line_wins_over_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("coordinator.toml");
    std::fs::write(&path, "shards = 5\nhttp_addr = \"127.0.0.1:9\"\n").unwrap();
    let settings = Settings {
        config: Some(path.clone()),
        shards: Some(2),
        ..Settings::default()
    };
    let config = settings.clone().load().unwrap();
    assert_eq!(config.cluster.template.starts().len(), 2);
    assert_eq!(config.http_addr.port(), 9);

    std::fs::write(&path, "shard = 5\n").unwrap();
    let problems = settings.load().unwrap_err();
    assert_eq!(problems.0[0].option, "config");
    assert!(problems.0[0].text.contains("shard"), "{problems}");
}

#[test]
fn coordinators_are_one_or_three_and_this_one_is_among_them() {
    let group = |id: u64, peers: &[&str]| {
        Settings {
            id: Some(id),
            peers: Some(peers.iter().map(|at| (*at).to_owned()).collect()),
            ..Settings::default()
        }
        .check()
        .map(|config| config.group)
    };
    assert_eq!(
        Settings::default().check().unwrap().group,
        CoordinatorsConfig::default()
    );
    let three = group(2, &["1=a:1", "2=b:1", "3=[::1]:1"]).unwrap();
    assert_eq!(three.ids(), [NodeId(1), NodeId(2), NodeId(3)]);
    assert_eq!(three.address().as_deref(), Some("b:1"));
    assert!(!three.others().contains_key(&NodeId(2)));
    assert!(group(1, &["1=a:1"]).is_ok());
    for (id, bad) in [
        (4, &["1=a:1", "2=b:1", "3=c:1"][..]),
        (1, &["1=a:1", "2=b:1"]),
        (1, &["1=a:1", "1=b:1", "3=c:1"]),
        (1, &["1=a:1", "2=a:1", "3=c:1"]),
        (1, &["a:1", "2=b:1", "3=c:1"]),
        (1, &["1=a", "2=b:1", "3=c:1"]),
        (1, &["1=a:0", "2=b:1", "3=c:1"]),
        (0, &["0=a:1", "2=b:1", "3=c:1"]),
    ] {
        let problems = group(id, bad).unwrap_err();
        assert!(
            problems
                .0
                .iter()
                .any(|at| matches!(at.option, "peers" | "id")),
            "{problems}"
        );
    }
}
