use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use rpc::{Health, Server, ServerConfig};
use runtime::{Adapters, Clock, OsRandom, Sleep, TcpNetwork};

use super::*;
use crate::coordinators::tests::Stub;
use crate::fleet::{fleet_of, node};
use crate::restart::{Restart, RestartError, Restarter};

/// Restarts nothing, and notes whom it was asked for.
#[derive(Debug, Default)]
struct Noting(Mutex<Vec<u64>>);

impl Noting {
    fn restarted(&self) -> Vec<u64> {
        self.0.lock().clone()
    }
}

impl Restarter for Noting {
    fn restart<'a>(&'a self, node: &'a NodeTarget) -> BoxFuture<'a, Result<Restart, RestartError>> {
        self.0.lock().push(node.id.0);
        Box::pin(std::future::ready(Ok(Restart::LeftToOthers)))
    }
}

const SHARD: ShardId = ShardId(1);

/// The turn at an attempt, just granted.
fn granted(recovery: &Recovery) -> Turn {
    let now = recovery.tools.runtime.now();
    Turn::granted(recovery, turn::request(recovery), 1, now)
}

/// An attempt, without any coordinator, at a shard on these nodes.
fn recovery(
    restarter: &Arc<Noting>,
    nodes: Vec<NodeTarget>,
    dead: &watch::Sender<Vec<NodeTarget>>,
    shutdown: &CancellationToken,
) -> Recovery {
    let runtime = Runtime::real();
    let hour = Duration::from_secs(3600);
    let fleet = fleet_of(SHARD, nodes);
    let restarter = Arc::clone(restarter) as Arc<dyn Restarter>;
    let metrics = telemetry::Metrics::new(&runtime).unwrap();
    let actions = Actions::of_a_test(&runtime);
    let tools = Tools {
        name: "watchdog-1".to_owned(),
        coordinators: Coordinators::new(runtime.clone(), &[], hour).unwrap(),
        prober: Prober::new(runtime.clone(), hour),
        restarts: Restarts::new(runtime.clone(), restarter, hour, actions.clone()),
        actions,
        attempt_timeout: hour,
        poll_interval: Duration::from_millis(20),
        runtime,
    };
    Recovery {
        tools: Arc::new(tools),
        shard: SHARD,
        key: "key".into(),
        reason: String::new(),
        known_attempt: 0,
        concurrent_percent: 10,
        metrics: Metrics::new(&metrics).unwrap(),
        dead: dead.subscribe(),
        stalled: Vec::new(),
        fleet: watch::Sender::new(Arc::new(fleet)).subscribe(),
        moving: Arc::default(),
        shutdown: shutdown.clone(),
    }
}

#[tokio::test(start_paused = true)]
async fn what_dies_while_an_attempt_is_open_is_restarted_by_it_and_nothing_else() {
    let restarter = Arc::new(Noting::default());
    let dead = watch::Sender::new(vec![node(1)]);
    let shutdown = CancellationToken::new();
    let nodes = (1..=3).map(node).collect();
    let recovery = recovery(&restarter, nodes, &dead, &shutdown);
    let runtime = recovery.tools.runtime.clone();
    let looks = recovery.tools.poll_interval * 10;
    let script = async {
        // All three are silent in every look; of the two others it takes more to be dead.
        runtime.sleep(looks).await;
        assert_eq!(restarter.restarted(), [1]);
        dead.send_replace(vec![node(1), node(2)]);
        runtime.sleep(looks).await;
        assert_eq!(restarter.restarted(), [1, 2], "each once");
        shutdown.cancel();
    };
    let (finished, ()) = tokio::join!(recovery.act(granted(&recovery)), script);
    assert_eq!(finished.outcome, Outcome::GivenUp);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_has_come_back_before_the_turn_was_taken_is_left_alone() {
    let restarter = Arc::new(Noting::default());
    let shutdown = CancellationToken::new();
    let runtime = Runtime::real();
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = runtime.bind(anywhere).await.unwrap();
    let back = NodeTarget {
        address: listener.local_addr().to_string(),
        ..node(1)
    };
    let server = Server::new(&runtime, ServerConfig::internal()).with_health(&Health::new());
    runtime.spawn("server", server.serve(listener, CancellationToken::new()));
    let dead = watch::Sender::new(vec![back.clone(), node(2)]);
    let recovery = recovery(&restarter, vec![back, node(2)], &dead, &shutdown);
    let script = async {
        while restarter.restarted().is_empty() {
            runtime.sleep(Duration::from_millis(5)).await;
        }
        shutdown.cancel();
    };
    let both = async { tokio::join!(recovery.act(granted(&recovery)), script) };
    let (finished, ()) = runtime
        .timeout(Duration::from_secs(30), Box::pin(both))
        .await
        .unwrap();
    assert_eq!(finished.outcome, Outcome::GivenUp);
    assert_eq!(restarter.restarted(), [2]);
}

#[tokio::test(start_paused = true)]
async fn without_a_coordinator_there_is_no_turn_and_nothing_is_done() {
    let restarter = Arc::new(Noting::default());
    let dead = watch::Sender::new(vec![node(1)]);
    let shutdown = CancellationToken::new();
    let finished = recovery(&restarter, vec![node(1)], &dead, &shutdown).run();
    let finished = finished.await;
    assert_eq!(finished.outcome, Outcome::NobodyGrants);
    assert_eq!(finished.turn, None);
    assert_eq!(restarter.restarted(), Vec::<u64>::new());
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_nobody_prolongs_is_over_with_its_lease() {
    let restarter = Arc::new(Noting::default());
    let dead = watch::Sender::new(Vec::new());
    let shutdown = CancellationToken::new();
    let recovery = recovery(&restarter, vec![node(1)], &dead, &shutdown);
    let runtime = &recovery.tools.runtime;
    let mut turn = granted(&recovery);
    for _ in 0..14 {
        runtime.sleep(Duration::from_secs(1)).await;
        assert_eq!(turn.keep(false).await, Standing::Ours);
    }
    runtime.sleep(Duration::from_secs(1)).await;
    assert_eq!(turn.keep(false).await, Standing::Over);
    // What was begun with it is ended.
    let mut turn = granted(&recovery);
    let restart = runtime.sleep(Duration::from_secs(40));
    let done = turn.keep_during(restart, &AtomicBool::new(false)).await;
    assert_eq!(done, Some(()));
    assert_eq!(turn.keep(false).await, Standing::Over);
}

/// A clock that goes on when it is told to.
#[derive(Debug, Default)]
struct HandClock(watch::Sender<Duration>);

impl HandClock {
    fn go_on(&self, seconds: u64) {
        let more = Duration::from_secs(seconds);
        self.0.send_modify(|now| *now += more);
    }
}

impl Clock for HandClock {
    fn now(&self) -> Instant {
        Instant::from_origin(*self.0.borrow())
    }

    fn wall_ms(&self) -> i64 {
        0
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        let until = self.now() + duration;
        let mut now = self.0.subscribe();
        Box::pin(async move {
            let is_over = |now: &Duration| Instant::from_origin(*now) >= until;
            drop(now.wait_for(is_over).await);
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_turn_lasts_from_when_it_was_asked_for_however_late_the_answer_is() {
    let clock = Arc::new(HandClock::default());
    let runtime = Runtime::with(Adapters {
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        random: Arc::new(OsRandom),
        network: Arc::new(TcpNetwork),
    });
    // Seconds that an answer takes.
    let takes = Arc::new(AtomicU64::new(2));
    let (slow, pause) = (Arc::clone(&clock), Arc::clone(&takes));
    let answers = move || slow.go_on(pause.load(Ordering::SeqCst));
    let address = Stub::granting(&Runtime::real(), answers).await;
    let restarter = Arc::new(Noting::default());
    let dead = watch::Sender::new(Vec::new());
    let shutdown = CancellationToken::new();
    let mut recovery = recovery(&restarter, vec![node(1)], &dead, &shutdown);
    let tools = Arc::get_mut(&mut recovery.tools).unwrap();
    let hour = Duration::from_hours(1);
    tools.coordinators = Coordinators::new(runtime.clone(), &[address], hour).unwrap();
    tools.runtime = runtime;

    // Asked for at 0, granted at 2. Whether it is over is answered at once, should anybody be asked.
    let mut turn = Turn::take(&recovery).await.unwrap();
    takes.store(0, Ordering::SeqCst);
    clock.go_on(13);
    assert_eq!(turn.keep(false).await, Standing::Over, "15 after the first");
    // Asked for at 15, granted at 17, prolonged at 21 and answered at 23.
    takes.store(2, Ordering::SeqCst);
    let mut turn = Turn::take(&recovery).await.unwrap();
    clock.go_on(4);
    assert_eq!(turn.keep(false).await, Standing::Ours);
    takes.store(0, Ordering::SeqCst);
    clock.go_on(13);
    assert_eq!(turn.keep(false).await, Standing::Over, "36 after the first");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_begun_once_the_lease_of_the_turn_is_over() {
    let restarter = Arc::new(Noting::default());
    let dead = watch::Sender::new(vec![node(1)]);
    let shutdown = CancellationToken::new();
    let recovery = recovery(&restarter, vec![node(1)], &dead, &shutdown);
    let turn = granted(&recovery);
    recovery.tools.runtime.sleep(Duration::from_secs(15)).await;
    let finished = recovery.act(turn).await;
    assert_eq!(finished.outcome, Outcome::GivenUp);
    assert_eq!(restarter.restarted(), Vec::<u64>::new());
}

#[test]
fn a_reason_of_long_names_is_cut_to_what_is_taken() {
    let long = "\u{e9}".repeat(200);
    let cut = turn::fitting(&long);
    assert_eq!(cut.len(), cluster::limits::TURN_TEXT_BYTES_MAX - 1);
    assert!(long.starts_with(&cut));
    assert_eq!(turn::fitting("short"), "short");
}

#[test]
fn the_end_is_put_off_only_by_what_moves() {
    let at = |seconds| Instant::from_origin(Duration::from_secs(seconds));
    let mut deadline = Deadline::new(at(0), Duration::from_secs(30));
    assert!(!deadline.moved(at(10), 500), "the first is only noted");
    assert_eq!(deadline.at, at(30));
    assert!(!deadline.moved(at(20), 500));
    assert_eq!(deadline.at, at(30));
    assert!(
        deadline.moved(at(25), 3),
        "a restarted process begins lower"
    );
    assert_eq!(deadline.at, at(55));
    assert!(!deadline.moved(at(40), 3));
    assert_eq!(deadline.at, at(55));
}
