//! The commands of the binary, against a running cluster.

use std::process::{Command, Output};

use api::v1::RecordRequest;
use serde_json::Value;

use super::harness::{Cluster, run_child};

/// Runs a command against a cluster: its exit code, and what it wrote to standard output and standard error.
pub(super) async fn run(cluster: &Cluster, arguments: &[&str]) -> (Option<i32>, String, String) {
    run_through(cluster, &cluster.grpc.to_string(), arguments).await
}

/// As [`run`], by way of these coordinators, comma separated.
pub(super) async fn run_through(
    cluster: &Cluster,
    coordinators: &str,
    arguments: &[&str],
) -> (Option<i32>, String, String) {
    let arguments: Vec<String> = ["--coordinator", coordinators]
        .iter()
        .chain(arguments)
        .map(ToString::to_string)
        .collect();
    let task = cluster.runtime.spawn_blocking("cli", move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        coordinator(&arguments)
    });
    let output = task.await.unwrap();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

fn coordinator(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_coordinator"));
    run_child(command.env_clear().args(arguments))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn help_is_a_success_and_nonsense_is_refused_with_all_its_problems() {
    let help = coordinator(&["--help"]);
    assert!(help.status.success());
    for command in [
        "serve",
        "status",
        "map",
        "recover",
        "drain",
        "promote",
        "replace",
        "transfer-leader",
        "snapshot",
        "healthcheck",
    ] {
        assert!(text(&help.stdout).contains(command), "{command}");
    }
    let refused = coordinator(&[
        "serve",
        "--shards",
        "0",
        "--grpc-addr",
        "here",
        "--replicas",
        "9",
    ]);
    assert_eq!(refused.status.code(), Some(64));
    for option in ["--shards", "--grpc-addr", "--replicas"] {
        assert!(
            text(&refused.stderr).contains(option),
            "{}",
            text(&refused.stderr)
        );
    }
    assert_eq!(
        coordinator(&["serve", "--sharts", "3"]).status.code(),
        Some(64)
    );
    let nobody = coordinator(&["healthcheck", "--addr", "127.0.0.1:1"]);
    assert_eq!(nobody.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operators_see_the_cluster_and_its_map() {
    let cluster = Cluster::start().await;
    let record = RecordRequest {
        term: "kiwi".into(),
        namespace: "fruit".into(),
        ..RecordRequest::default()
    };
    cluster.client().record(record).await.unwrap();
    let run = async |arguments: &[&str]| run(&cluster, arguments).await;
    let (code, table, _) = run(&["status"]).await;
    assert_eq!(code, Some(0));
    assert_eq!(table.matches(" serving ").count(), 3, "{table}");
    let (_, json, _) = run(&["status", "--json"]).await;
    let status: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(status["nodes"].as_array().unwrap().len(), 3);
    let (_, table, _) = run(&["map"]).await;
    assert!(
        table.contains("shard-2 at ") && table.contains("fruit"),
        "{table}"
    );
    let (_, json, _) = run(&["map", "--json"]).await;
    let map: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(map["template"][1]["start"], "g");

    let (code, pulled, _) = run(&["snapshot", "pull", "2"]).await;
    assert_eq!(code, Some(0));
    let (_, listed, _) = run(&["snapshot", "list"]).await;
    assert_eq!(pulled, listed);
    let (code, said, _) = run(&["recover", "2"]).await;
    assert_eq!((code, said.trim()), (Some(0), "the shard serves"));
    let (code, told, refused) = run(&["recover", "2", "--accept-loss"]).await;
    assert_eq!(code, Some(64), "nobody is there to type: {refused}");
    assert!(told.contains("It serves, and is left alone"), "{told}");
    let (code, _, refused) = run(&["recover", "2", "--accept-empty"]).await;
    assert_eq!(code, Some(64), "{refused}");
    let (code, _, refused) = run(&["recover", "99"]).await;
    assert_eq!(code, Some(1));
    assert!(refused.contains("UNKNOWN_SHARD"), "{refused}");
    assert!(json_roles(&status).iter().all(|role| role == "leader"));
    let (code, _, refused) = run(&["transfer-leader", "2"]).await;
    assert_eq!(code, Some(1), "there is only one replica: {refused}");
    let leader = status["shards"][1]["replicas"][0]["node_id"].clone();
    let name = status["nodes"].as_array().unwrap().iter();
    let name = name.filter(|node| node["node_id"] == leader);
    let name = name.map(|node| node["name"].as_str().unwrap()).next();
    let (code, said, _) = run(&["transfer-leader", "2", "--to", name.unwrap()]).await;
    assert_eq!(code, Some(0));
    assert_eq!(said.trim(), format!("node {leader} leads shard 2"));
    let (code, _, refused) = run(&["transfer-leader", "2", "--to", "nobody"]).await;
    assert_eq!(code, Some(1));
    assert!(refused.contains("nobody"), "{refused}");
    let (_, table, _) = run(&["status"]).await;
    assert!(
        table.contains("move_lead") && table.contains("asked"),
        "{table}"
    );
    let (_, json, _) = run(&["status", "--json"]).await;
    let status: Value = serde_json::from_str(&json).unwrap();
    let actions = status["actions"].as_array().unwrap().iter();
    let moved = actions.filter(|action| action["kind"] == "move_lead" && action["error"] == "");
    let moved: Vec<_> = moved.map(|at| (&at["shard_id"], &at["node_id"])).collect();
    assert_eq!(moved, [(&Value::from(2), &leader)]);
    assert_eq!(status["coordinators"][0]["reached"], true);
}

fn json_roles(status: &Value) -> Vec<String> {
    let shards = status["shards"].as_array().unwrap().iter();
    let replicas = shards.flat_map(|shard| shard["replicas"].as_array().unwrap());
    replicas
        .map(|replica| replica["role"].as_str().unwrap().to_owned())
        .collect()
}
