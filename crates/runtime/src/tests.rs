use super::*;

#[test]
fn the_same_seed_draws_the_same_numbers() {
    let world = |seed| {
        Runtime::with(Adapters {
            clock: Arc::new(TokioClock::new()),
            random: Arc::new(SeededRandom::new(seed)),
            network: Arc::new(TcpNetwork),
        })
    };
    let (one, same, other) = (world(1), world(1), world(2));
    let first: Vec<u64> = (0..8).map(|_| one.random_u64()).collect();
    let again: Vec<u64> = (0..8).map(|_| same.random_u64()).collect();
    assert_eq!(first, again);
    assert_ne!(first[0], other.random_u64());
}

#[tokio::test(start_paused = true)]
async fn work_at_a_pace_takes_as_long_as_its_bytes_may() {
    let runtime = Runtime::real();
    let begun = runtime.now();
    let pace = Pace::new(&runtime, 1 << 20);
    for _ in 0..4 {
        pace.keep(1 << 18).await;
    }
    let took = runtime.now().saturating_since(begun);
    assert_eq!(took, Duration::from_secs(1));
    Pace::new(&runtime, 0).keep(1).await;
    let took = runtime.now().saturating_since(begun);
    assert_eq!(took, Duration::from_secs(2));
}

#[tokio::test(start_paused = true)]
async fn paused_time_moves_the_clock_and_the_timers_together() {
    let runtime = Runtime::real();
    let start = runtime.now();
    runtime.sleep(Duration::from_secs(3600)).await;
    assert_eq!(
        runtime.now().saturating_since(start),
        Duration::from_secs(3600)
    );
    let elapsed = runtime
        .timeout(Duration::from_secs(5), std::future::pending::<()>())
        .await;
    assert_eq!(
        elapsed,
        Err(Elapsed {
            limit: Duration::from_secs(5)
        })
    );
}

#[tokio::test(start_paused = true)]
async fn a_clock_of_a_test_stops_and_is_set_and_its_timers_go_on() {
    let clock = Arc::new(TestClock::default());
    let runtime = Runtime::with(Adapters {
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        random: Arc::new(OsRandom),
        network: Arc::new(TcpNetwork),
    });
    let (second, hour_ms) = (Duration::from_secs(1), 3_600_000);
    clock.stop();
    let (stopped_at, wall_ms) = (runtime.now(), runtime.wall_ms());
    runtime.sleep(second).await;
    assert_eq!((runtime.now(), runtime.wall_ms()), (stopped_at, wall_ms));
    clock.set_wall_ms(7);
    assert_eq!((runtime.now(), runtime.wall_ms()), (stopped_at, 7));
    clock.go_on();
    assert_eq!(runtime.now(), stopped_at + second);
    let before_ms = runtime.wall_ms();
    assert!(before_ms >= wall_ms - hour_ms / 2, "{before_ms}");
    clock.move_wall(hour_ms);
    assert!(runtime.wall_ms() - before_ms > hour_ms / 2);
    clock.move_wall(-2 * hour_ms);
    assert!(runtime.wall_ms() - before_ms < -hour_ms / 2);
    assert_eq!(runtime.now(), stopped_at + second);
}

#[test]
fn the_clock_needs_no_executor_and_does_not_stand_still_with_the_time_of_another() {
    let runtime = Runtime::real();
    let start = runtime.now();
    let mut paused = tokio::runtime::Builder::new_current_thread();
    let _paused = paused.enable_time().start_paused(true).build().unwrap();
    let mut looks = std::iter::repeat_with(|| runtime.now()).take(1 << 20);
    assert!(looks.any(|now| now > start));
}

#[tokio::test]
async fn a_panicking_task_is_reported_with_its_text() {
    let runtime = Runtime::real();
    let failed = runtime
        .spawn("doomed", async { panic!("the reason") })
        .await
        .map(|(): ()| ());
    assert_eq!(
        failed,
        Err(TaskFailed {
            name: "doomed",
            reason: "panicked: the reason".to_owned()
        })
    );
}

#[tokio::test]
async fn a_listener_on_port_zero_accepts_what_connects() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let network = TcpNetwork;
    let mut listener = network.bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr();
    assert_ne!(address.port(), 0);
    let (client, server) = tokio::join!(network.connect(address.to_string()), listener.accept());
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    client.write_all(b"hello").await.unwrap();
    let mut buffer = [0; 5];
    server.read_exact(&mut buffer).await.unwrap();
    assert_eq!(&buffer, b"hello");
    assert_eq!(client.peer(), Some(address));
}

#[derive(Debug)]
struct Second;

impl Turns for Second {
    fn duration(&self, _: &str) -> Duration {
        Duration::from_secs(1)
    }
}

#[tokio::test(start_paused = true)]
async fn without_threads_blocking_work_takes_its_time_and_stays_on_the_thread() {
    let runtime = Runtime::real().without_threads(Arc::new(Second));
    let (here, start) = (std::thread::current().id(), runtime.now());
    let work = runtime.spawn_blocking("work", || std::thread::current().id());
    assert_eq!(work.await.unwrap(), here);
    let took = runtime.now().saturating_since(start);
    assert_eq!(took, Duration::from_secs(1));
    assert!(!runtime.has_threads());
    let refused = runtime.spawn_thread("thread", || {}).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
}

#[tokio::test]
async fn work_in_the_background_yields_and_its_panics_are_told() {
    let runtime = Runtime::real();
    let niceness = || rustix::process::getpriority_process(None).unwrap();
    let here = niceness();
    let there = runtime.spawn_background("work", niceness).await.unwrap();
    assert!(there > here || here == 19, "{there} is no less than {here}");
    let told = runtime.spawn_background("work", || panic!("on purpose"));
    let failed = told.await.unwrap_err();
    assert_eq!(failed.reason, "panicked: on purpose");
}

#[tokio::test]
async fn what_is_spawned_apart_stays_on_its_thread() {
    let runtime = Runtime::real().with_connection_threads().unwrap();
    let inner = runtime.clone();
    let outer = async move {
        let here = || std::thread::current().id();
        let mine = here();
        let stays = inner.spawn("inner", async move { here() == mine }).await;
        inner.sleep(Duration::from_millis(1)).await;
        (mine, stays.unwrap())
    };
    let (thread, stays) = runtime.spawn_apart("outer", outer).await.unwrap();
    assert!(stays);
    assert_ne!(thread, std::thread::current().id());
    let alone = Runtime::real().spawn_apart("alone", async { std::thread::current().id() });
    assert_eq!(alone.await.unwrap(), std::thread::current().id());
}

#[tokio::test]
async fn an_accepted_connection_belongs_to_the_thread_that_uses_it() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let runtime = Runtime::real().with_connection_threads().unwrap();
    let mut listener = runtime.bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = listener.local_addr().to_string();
    let (client, server) = tokio::join!(TcpNetwork.connect(address), listener.accept());
    let (mut client, mut server) = (client.unwrap(), server.unwrap());
    let echo = runtime.spawn_apart("echo", async move {
        let mut buffer = [0; 5];
        server.read_exact(&mut buffer).await.unwrap();
        server.write_all(&buffer).await.unwrap();
        server.shutdown().await.unwrap();
    });
    client.write_all(b"hello").await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"hello");
    echo.await.unwrap();
}

/// Waits for what is to come from another task.
async fn soon<F: Future>(future: F) -> F::Output {
    let patience = Duration::from_secs(20);
    Runtime::real().timeout(patience, future).await.unwrap()
}

#[tokio::test]
async fn the_end_of_a_guarded_task_is_told_when_nothing_of_it_is_left() {
    for (panics, expected) in [
        (false, Ok(())),
        (
            true,
            Err(TaskFailed {
                name: "guarded",
                reason: "panicked: on purpose".to_owned(),
            }),
        ),
    ] {
        let held = Arc::new(());
        let (holds, left) = (Arc::clone(&held), Arc::downgrade(&held));
        drop(held);
        let (tell, told) = tokio::sync::oneshot::channel();
        let future = async move {
            let _held = holds;
            tokio::task::yield_now().await;
            assert!(!panics, "on purpose");
        };
        let ended = move |end| async move { tell.send((end, left.strong_count())).unwrap() };
        let task = Runtime::real().spawn_guarded("guarded", future, ended);
        assert_eq!(soon(told).await.unwrap(), (expected, 0));
        soon(task).await.unwrap();
    }
}

#[tokio::test]
async fn a_vital_task_is_missed_unless_the_stop_was_asked_for() {
    let faults = TaskFaults::default();
    let runtime = Runtime::real().with_task_faults(faults.clone());
    let ended = "ended before its time";
    for (name, once, reason) in [
        ("struck", false, Some("panicked: struck")),
        ("short", false, Some(ended)),
        ("struck", true, Some("panicked: struck")),
        ("short", true, None),
    ] {
        let stop = CancellationToken::new();
        let vital = Vital::new(&runtime, stop.clone());
        let (going, until) = (stop.clone(), name == "struck");
        let future = async move {
            if until {
                going.cancelled().await;
            }
        };
        let task = if once {
            vital.spawn_once(name, future)
        } else {
            vital.spawn(name, future)
        };
        assert_eq!(faults.strike("struck"), until, "{name}");
        assert!(!faults.strike("another"));
        soon(task).await.unwrap();
        assert_eq!(faults.running(), [""; 0]);
        let missed = runtime.timeout(Duration::ZERO, vital.failed()).await.ok();
        let expected = reason.map(|reason| TaskFailed {
            name,
            reason: reason.to_owned(),
        });
        assert_eq!(missed, expected, "{name} {once}");
        // The first counts, and none after the stop.
        stop.cancel();
        soon(vital.spawn("late", async {})).await.unwrap();
        let still = runtime.timeout(Duration::ZERO, vital.failed()).await.ok();
        assert_eq!(still, expected, "{name} {once}");
    }
}
