//! A cluster's life: first start with the sample, use, stop, restart.

use crate::support::{Up, output, stderr};

#[test]
fn a_new_user_starts_records_stops_and_finds_everything_again() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("data");
    let mut up = Up::start(&dir, &["--sample"]);
    assert!(up.banner.contains("is ready: 3 shards"), "{}", up.banner);
    assert!(up.banner.contains(&format!("top -i --addr {}", up.addr)));
    let line = up.line();
    assert!(line.contains("98,436 names of places (GeoNames"), "{line}");

    let top = up.answer(&["top", "new", "-k", "2"]);
    let lines: Vec<_> = top
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        lines,
        ["4,004,367 New Taipei City", "641,608 New South Memphis"]
    );
    // What is recorded rises at once, across shards and under any spelling.
    up.answer(&["record", "NEW  Search", "--count", "4004368"]);
    assert!(
        up.answer(&["top", "New s", "-k", "1"])
            .contains("NEW Search")
    );
    assert!(up.answer(&["top", "-k", "5"]).contains("Shanghai"));
    assert!(
        up.answer(&["delete", "new taipei city"])
            .contains("removed")
    );
    let json: serde_json::Value =
        serde_json::from_str(&up.answer(&["top", "new ", "-k", "2", "--json"])).unwrap();
    assert_eq!(json["suggestions"][0]["term"], "new search");
    assert_eq!(json["suggestions"][1]["term"], "new south memphis");
    assert_eq!(json["partial"], false);

    assert!(up.terminate().success());

    let up = Up::start(&dir, &["--sample"]);
    // Loaded once: what was deleted does not come back, and nothing is doubled.
    assert!(
        up.answer(&["count", "new taipei city"])
            .trim_start()
            .starts_with("0 ")
    );
    assert!(up.answer(&["count", "new search"]).contains("4,004,368"));
    assert!(up.answer(&["count", "SHANGHAI"]).contains("24,874,500"));
    assert!(
        up.answer(&["wal", "verify", dir.to_str().unwrap()])
            .contains("clean")
    );
    assert!(
        up.answer(&["wal", "dump", dir.to_str().unwrap()])
            .contains("entry    group")
    );
}

#[test]
fn a_cluster_of_three_replicas_comes_back_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(dir.path(), &["--shards", "2", "--replicas", "3"]);
    assert!(
        up.banner.contains("2 shards of 3 replicas"),
        "{}",
        up.banner
    );
    for term in ["ant", "zoo"] {
        up.answer(&["record", term, "--count", "7"]);
    }
    assert!(up.terminate().success());
    for node in ["node-1", "node-2", "node-3"] {
        assert!(dir.path().join(node).is_dir(), "{node}");
    }
    let mut up = Up::start(dir.path(), &[]);
    assert!(
        up.banner.contains("2 shards of 3 replicas"),
        "{}",
        up.banner
    );
    up.answer(&["record", "zoo", "--count", "1"]);
    up.kill();
    let up = up.again();
    for (term, count) in [("ant", "7 "), ("zoo", "8 ")] {
        let counted = up.answer(&["count", term]);
        assert!(counted.trim_start().starts_with(count), "{counted}");
    }
    assert!(up.terminate().success());
}

#[test]
fn a_data_directory_keeps_its_shards_and_its_user() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(dir.path(), &["--shards", "2"]);
    let data_dir = dir.path().to_str().unwrap();
    let start = |shards: &str| {
        output(&[
            "up",
            "--data-dir",
            data_dir,
            "--shards",
            shards,
            "--grpc-addr",
            "127.0.0.1:0",
            "--http-addr",
            "127.0.0.1:0",
        ])
    };
    let second = start("2");
    assert_eq!(second.status.code(), Some(1));
    assert!(stderr(&second).contains("used by another process"));
    assert!(up.terminate().success());
    let other = start("4");
    assert_eq!(other.status.code(), Some(64));
    assert!(
        stderr(&other).contains("was begun with 2 shards"),
        "{}",
        stderr(&other)
    );
}

#[test]
fn an_address_in_use_is_named_with_the_option_to_change_it() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    let output = output(&[
        "up",
        "--data-dir",
        dir.path().to_str().unwrap(),
        "--grpc-addr",
        &addr,
    ]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("--grpc-addr"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_bench_is_bounded_and_reports_for_people_and_programs() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(dir.path(), &["--shards", "1"]);
    let empty = up.ask(&["bench", "top-k"]);
    assert_eq!(empty.status.code(), Some(1));
    assert!(
        stderr(&empty).contains("load some first"),
        "{}",
        stderr(&empty)
    );
    let quick = ["--time", "500ms", "--warm-up", "0s", "--in-flight", "8"];
    for (workload, more) in [
        ("record", vec!["--generated", "500"]),
        ("record", vec!["--batch", "20", "--stream"]),
        ("top-k", vec!["--generated", "500", "--stream"]),
        ("mixed", vec!["--record-percent", "50"]),
    ] {
        let arguments = [&["bench", workload, "--json"], &quick[..], &more[..]].concat();
        let json: serde_json::Value = serde_json::from_str(&up.answer(&arguments)).unwrap();
        assert_eq!(json["errors"], serde_json::json!({}), "{json}");
        let requests = |kind: &str| json[kind]["requests"].as_u64().unwrap();
        assert_eq!(requests("record") > 0, workload != "top-k", "{json}");
        assert_eq!(requests("top_k") > 0, workload != "record", "{json}");
    }
    let text = up.answer(&[&["bench", "record"], &quick[..]].concat());
    assert!(text.contains("p99.9"), "{text}");
    // Benches keep out of the dictionary that people use.
    assert_eq!(up.answer(&["top"]), "");
}
