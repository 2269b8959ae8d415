//! A watchdog against scripted processes and a scripted coordinator, over real gRPC.

#![expect(
    clippy::unwrap_used,
    reason = "parts of tests outside of test functions"
)]

mod support;

use std::time::Duration;

use api::admin::v1::cluster_admin_service_server::ClusterAdminService as _;
use api::admin::v1::{
    BeginRecoveryRequest, EndRecoveryRequest, RecoveryAction, ShardState, TurnState, TurnVerdict,
};
use support::{Cluster, until};
use tonic::Request;
use watchdog::Config;

/// Quick, but patient enough for a machine that does much else.
fn config() -> Config {
    let mut config = Config {
        poll_interval: Duration::from_millis(20),
        probe_timeout: Duration::from_secs(2),
        attempt_timeout: Duration::from_secs(3),
        ..Config::default()
    };
    config.detector.stall_after = Duration::from_millis(500);
    config.policy.backoff_min = Duration::from_millis(20);
    config.policy.backoff_max = Duration::from_millis(100);
    config
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_died_is_restarted_and_the_recovery_is_counted() {
    let cluster = Cluster::start(3, config()).await;
    assert_eq!((cluster.attempts(2), cluster.recovered(2)), (0.0, 0));
    cluster.kill(2).await;
    until(&cluster.runtime, "shard 2 is recovered", || {
        cluster.recovered(2) == 1
    })
    .await;
    cluster.until_up(2, true).await;
    assert_eq!(*cluster.supervisor.restarted.lock(), ["node-2"]);
    assert_eq!(
        (
            cluster.attempts(1),
            cluster.attempts(2),
            cluster.attempts(3)
        ),
        (0.0, 1.0, 0.0)
    );
    let requests = cluster.coordinator.script.lock().recoveries.clone();
    assert!(
        requests
            .iter()
            .all(|request| request.shard_id == 2 && !request.accept_loss)
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_watchdogs_one_recovers_a_shard() {
    let mut cluster = Cluster::start(3, config()).await;
    let others = telemetry::Metrics::new(&cluster.runtime).unwrap();
    cluster.start_watchdog(others.clone());
    let seen = || {
        let text = others.encode().unwrap();
        text.contains(&format!(
            "autocomplete_watchdog_shard_up{{shard_key=\"{}\"}} 1",
            support::key(2)
        ))
    };
    until(&cluster.runtime, "the second sees the shard", seen).await;
    cluster.kill(2).await;
    until(&cluster.runtime, "the turn is over", || {
        !cluster.coordinator.script.lock().ended.is_empty()
    })
    .await;
    cluster.until_up(2, true).await;
    until(&cluster.runtime, "the second sees it too", seen).await;
    cluster.polls(20).await;
    let (granted, ended) = {
        let script = cluster.coordinator.script.lock();
        (script.granted.clone(), script.ended.clone())
    };
    let turns: Vec<u64> = ended.iter().map(|end| end.attempt).collect();
    assert_eq!(turns, [1], "one recovery for one failure: {ended:?}");
    assert!(granted.iter().all(|(shard, _)| *shard == 2));
    let recovered = api::admin::v1::TurnState::Recovered;
    assert!(ended.iter().all(|end| end.outcome() == recovered));
    assert_eq!(*cluster.supervisor.restarted.lock(), ["node-2"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replay_is_left_alone_while_it_moves_and_restarted_when_it_does_not() {
    let cluster = Cluster::start(3, config()).await;
    cluster.process(1).lock().await.set_serving(false);
    cluster.tell(1, |told| {
        told.state = ShardState::Recovering;
        told.moves = true;
    });
    cluster.until_up(1, false).await;
    let began = cluster.runtime.now();
    let long = config().detector.stall_after * 4;
    while cluster.runtime.now().saturating_since(began) < long {
        cluster.polls(2).await;
        assert_eq!(cluster.attempts(1), 0.0, "it moves");
    }
    cluster.tell(1, |told| told.moves = false);
    cluster.until_attempts(1, 1).await;
    until(&cluster.runtime, "shard 1 is recovered", || {
        cluster.recovered(1) == 1
    })
    .await;
    assert_eq!(*cluster.supervisor.restarted.lock(), ["node-1"]);
    cluster.stop().await;
}

/// What the coordinator tells of the shard stands still meanwhile, as where another replica waits for a majority.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_opening_of_a_log_is_left_alone_while_it_moves_and_restarted_when_it_does_not() {
    let cluster = Cluster::start(3, config()).await;
    cluster.process(1).lock().await.open_log();
    cluster.tell(1, |told| told.state = ShardState::Recovering);
    cluster.until_up(1, false).await;
    let began = cluster.runtime.now();
    let long = config().detector.stall_after * 4;
    while cluster.runtime.now().saturating_since(began) < long {
        cluster.polls(2).await;
        assert_eq!(cluster.attempts(1), 0.0, "it moves");
    }
    cluster.process(1).lock().await.hang();
    cluster.until_attempts(1, 1).await;
    until(&cluster.runtime, "shard 1 is recovered", || {
        cluster.recovered(1) == 1
    })
    .await;
    assert_eq!(*cluster.supervisor.restarted.lock(), ["node-1"]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shard_that_still_answers_reads_is_not_restarted() {
    let cluster = Cluster::start(3, config()).await;
    cluster.process(1).lock().await.serve_reads_only();
    cluster.until_up(1, false).await;
    let began = cluster.runtime.now();
    while cluster.runtime.now().saturating_since(began) < config().detector.stall_after * 3 {
        cluster.polls(2).await;
        assert_eq!(cluster.attempts(1), 0.0);
    }
    cluster.process(1).lock().await.set_serving(true);
    cluster.until_up(1, true).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_data_is_never_given_up_but_reported_again_and_again() {
    let cluster = Cluster::start(3, config()).await;
    cluster.process(3).lock().await.set_serving(false);
    cluster.tell(3, |told| {
        told.state = ShardState::DataLoss;
        told.action = RecoveryAction::NeedsAcceptLoss;
    });
    cluster.until_attempts(3, 3).await;
    let alert = || cluster.value("autocomplete_watchdog_shard_alert_state", 3);
    until(&cluster.runtime, "an alert is raised", || {
        alert() == Some(1.0)
    })
    .await;
    assert_eq!(
        *cluster.supervisor.restarted.lock(),
        Vec::<String>::new(),
        "a restart does not bring data back"
    );
    let failures = || cluster.value("autocomplete_watchdog_recovery_failures_total", 3);
    until(&cluster.runtime, "the failures are counted", || {
        failures() >= Some(3.0)
    })
    .await;
    assert!(
        cluster
            .coordinator
            .script
            .lock()
            .recoveries
            .iter()
            .all(|request| !request.accept_loss)
    );
    // A person decides, and the shard serves again.
    cluster.process(3).lock().await.set_serving(true);
    cluster.tell(3, |told| told.state = ShardState::Serving);
    cluster.until_up(3, true).await;
    cluster.stop().await;
}

/// Shard 1 ends, comes back from every restart without ever serving or moving, and an attempt at it is open.
async fn make_hopeless(cluster: &Cluster) {
    cluster.process(1).lock().await.serves_after_start = false;
    cluster.tell(1, |told| told.state = ShardState::Recovering);
    cluster.kill(1).await;
    cluster.until_attempts(1, 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hopeless_shard_holds_up_no_other() {
    let mut config = config();
    config.attempt_timeout = Duration::from_secs(2);
    let cluster = Cluster::start(5, config).await;
    make_hopeless(&cluster).await;
    cluster.kill(2).await;
    until(&cluster.runtime, "shard 2 is recovered", || {
        cluster.recovered(2) == 1
    })
    .await;
    assert_eq!(cluster.recovered(1), 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_coordinator_nothing_is_done_but_to_tell() {
    let mut cluster = Cluster::start(3, config()).await;
    cluster.add_spare(4).await;
    cluster.kill_coordinator().await;
    for process in [1, 4] {
        cluster.kill(process).await;
    }
    let withheld = || cluster.value("autocomplete_watchdog_recovery_failures_total", 1);
    until(&cluster.runtime, "it says that it may not", || {
        withheld() >= Some(3.0)
    })
    .await;
    cluster.until_node_up(4, Some(false)).await;
    // Now most of them: nobody confirms it.
    cluster.kill(2).await;
    until(&cluster.runtime, "it freezes", || cluster.frozen()).await;
    assert_eq!((cluster.attempts(1), cluster.attempts(2)), (0.0, 0.0));
    assert_eq!(*cluster.supervisor.restarted.lock(), Vec::<String>::new());
    // The coordinator is back, and sees them serving: the fault may be ours.
    cluster.restart_coordinator().await;
    cluster.polls(10).await;
    assert!(cluster.frozen());
    assert_eq!(*cluster.supervisor.restarted.lock(), Vec::<String>::new());
    // It notices what we do: go on.
    for shard in 1..=2 {
        cluster.tell(shard, |told| told.state = ShardState::Unreachable);
    }
    for shard in 1..=2 {
        cluster.until_up(shard, true).await;
    }
    assert!(cluster.attempts(1) + cluster.attempts(2) >= 2.0);
    cluster.until_node_up(4, Some(true)).await;
    let told = cluster.coordinator.script.lock().told.clone();
    let actions = told.actions.iter();
    let mut withheld = actions.filter(|at| at.kind == "withhold_recovery");
    let withheld = withheld.next().unwrap();
    assert_eq!(withheld.reason, "no_turn");
    assert!(withheld.times >= 3, "{withheld:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_without_replicas_that_died_is_restarted() {
    let cluster = Cluster::start(3, config()).await;
    cluster.add_spare(4).await;
    assert_eq!(cluster.of_node("restarts_total", 4), Some(0.0));
    cluster.kill(4).await;
    until(&cluster.runtime, "it is restarted", || {
        cluster.of_node("restarts_total", 4) == Some(1.0)
    })
    .await;
    cluster.until_node_up(4, Some(true)).await;
    assert_eq!(*cluster.supervisor.restarted.lock(), ["node-4"]);
    assert!((1..=3).all(|shard| cluster.attempts(shard) == 0.0));
    // The coordinator is told with the next poll.
    cluster.polls(2).await;
    let told = cluster.coordinator.script.lock().told.clone();
    assert!(told.name.starts_with("watchdog-"), "{told:?}");
    // On a busy machine it may have frozen for a moment, too.
    let actions = told.actions.iter().filter(|at| at.kind == "restart");
    let actions = actions.map(|at| (at.kind.as_str(), at.reason.as_str(), at.node_id));
    let actions: Vec<_> = actions.collect();
    assert_eq!(actions, [("restart", "silent_without_replicas", 4)]);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_replicas_were_drained_away_may_end() {
    let mut config = config();
    config.detector.startup_grace = Duration::from_millis(100);
    let cluster = Cluster::start(3, config).await;
    cluster.add_spare(4).await;
    cluster.coordinator.script.lock().draining.insert(4);
    cluster.until_node_up(4, None).await;
    cluster.kill(4).await;
    cluster.polls(20).await;
    assert_eq!(*cluster.supervisor.restarted.lock(), Vec::<String>::new());
    // It is to hold replicas again after all.
    cluster.coordinator.script.lock().draining.clear();
    cluster.until_node_up(4, Some(true)).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_without_replicas_that_does_not_come_back_is_reported() {
    let mut config = config();
    config.attempt_timeout = Duration::from_millis(100);
    let cluster = Cluster::start(3, config).await;
    cluster.add_spare(4).await;
    let process = cluster.supervisor.forget(4);
    process.lock().await.kill().await;
    until(&cluster.runtime, "an alert is raised", || {
        cluster.of_node("alert_state", 4) == Some(1.0)
    })
    .await;
    process.lock().await.restart().await;
    cluster.until_node_up(4, Some(true)).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_watchdogs_bring_one_process_without_replicas_back() {
    let mut cluster = Cluster::start(3, config()).await;
    let others = telemetry::Metrics::new(&cluster.runtime).unwrap();
    cluster.add_spare(4).await;
    cluster.start_watchdog(others.clone());
    let seen = "autocomplete_watchdog_node_up{node=\"node-4\"} 1";
    until(&cluster.runtime, "the second sees the node", || {
        others.encode().unwrap().contains(seen)
    })
    .await;
    cluster.kill(4).await;
    until(&cluster.runtime, "it is restarted", || {
        !cluster.supervisor.restarted.lock().is_empty()
    })
    .await;
    cluster.until_node_up(4, Some(true)).await;
    cluster.polls(20).await;
    cluster.until_node_up(4, Some(true)).await;
    let restarted = cluster.supervisor.restarted.lock().clone();
    assert!(
        restarted.len() <= 2 && restarted.iter().all(|name| name == "node-4"),
        "each once at most: {restarted:?}"
    );
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn most_nodes_are_not_restarted_while_nobody_confirms_that_they_are_down() {
    let mut config = config();
    // So that neither is dead before the other is silent.
    config.detector.misses = 50;
    let cluster = Cluster::start(1, config).await;
    for spare in 2..=3 {
        cluster.add_spare(spare).await;
    }
    tokio::join!(cluster.kill(2), cluster.kill(3));
    until(&cluster.runtime, "it freezes", || cluster.frozen()).await;
    cluster.polls(60).await;
    assert!(cluster.frozen());
    assert_eq!(*cluster.supervisor.restarted.lock(), Vec::<String>::new());
    cluster.coordinator.script.lock().unheard.extend(2..=3);
    for spare in 2..=3 {
        cluster.until_node_up(spare, Some(true)).await;
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_does_not_wait_for_open_attempts() {
    let mut config = config();
    config.attempt_timeout = Duration::from_secs(3600);
    let cluster = Cluster::start(3, config).await;
    cluster.process(1).lock().await.serves_after_start = false;
    cluster.kill(1).await;
    cluster.until_attempts(1, 1).await;
    let runtime = cluster.runtime.clone();
    let stopped = runtime
        .timeout(Duration::from_secs(10), cluster.stop())
        .await;
    assert!(stopped.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_without_a_quorum_confirms_nothing() {
    let mut config = config();
    // Neither is dead before the other is silent.
    config.detector.misses = 50;
    let cluster = Cluster::start(3, config).await;
    cluster.coordinator.script.lock().no_quorum = true;
    for shard in 1..=2 {
        cluster.tell(shard, |told| told.state = ShardState::Unreachable);
    }
    tokio::join!(cluster.kill(1), cluster.kill(2));
    until(&cluster.runtime, "it freezes", || cluster.frozen()).await;
    cluster.polls(60).await;
    assert!(cluster.frozen());
    assert_eq!(*cluster.supervisor.restarted.lock(), Vec::<String>::new());
    cluster.coordinator.script.lock().no_quorum = false;
    for shard in 1..=2 {
        cluster.until_up(shard, true).await;
    }
    cluster.stop().await;
}

/// Another watchdog takes the turn at the first shard.
async fn take_turn(cluster: &Cluster, known_attempt: u64) {
    let request = BeginRecoveryRequest {
        shard_id: 1,
        watchdog: "other".into(),
        known_attempt,
        ..BeginRecoveryRequest::default()
    };
    let request = Request::new(request);
    let answer = cluster.coordinator.begin_recovery(request).await.unwrap();
    assert_eq!(answer.into_inner().verdict(), TurnVerdict::Granted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_watchdog_recovers_is_left_to_it() {
    let cluster = Cluster::start(3, config()).await;
    take_turn(&cluster, 0).await;
    cluster.kill(1).await;
    until(&cluster.runtime, "it asks for the turn", || {
        cluster.coordinator.script.lock().refused >= 2
    })
    .await;
    assert_eq!(*cluster.supervisor.restarted.lock(), Vec::<String>::new());
    assert_eq!(cluster.recovered(1), 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_whose_turn_went_to_another_ends() {
    let mut config = config();
    config.attempt_timeout = Duration::from_hours(1);
    let cluster = Cluster::start(3, config).await;
    make_hopeless(&cluster).await;
    let over = EndRecoveryRequest {
        shard_id: 1,
        ..EndRecoveryRequest::default()
    };
    let coordinator = &cluster.coordinator;
    coordinator.end_recovery(Request::new(over)).await.unwrap();
    take_turn(&cluster, 1).await;
    until(&cluster.runtime, "it gives up", || {
        // It gets on, so that the turn is asked about.
        cluster.tell(1, |told| told.replayed += 1);
        let script = cluster.coordinator.script.lock();
        let mut ended = script.ended.iter();
        ended.any(|end| end.attempt == 1 && end.outcome() == TurnState::GivenUp)
    })
    .await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_is_kept_while_a_process_takes_long_to_restart() {
    let mut config = config();
    config.attempt_timeout = Duration::from_mins(1);
    let cluster = Cluster::start(3, config).await;
    let process = cluster.process(1);
    // Whoever restarts it waits.
    let mut held = process.lock().await;
    held.kill().await;
    until(&cluster.runtime, "the turn is prolonged", || {
        let script = cluster.coordinator.script.lock();
        let granted = script.granted.iter().filter(|(shard, _)| *shard == 1);
        granted.count() >= 2
    })
    .await;
    assert_eq!(*cluster.supervisor.restarted.lock(), Vec::<String>::new());
    drop(held);
    until(&cluster.runtime, "the shard is recovered", || {
        cluster.recovered(1) == 1
    })
    .await;
    assert_eq!(cluster.attempts(1), 1.0);
    cluster.stop().await;
}
