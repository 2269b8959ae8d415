use std::time::Duration;

use cluster::{Generation, NamespaceId};
use parking_lot::Mutex;
use replication::{Applied, Outcome, StateMachine};
use tokio::sync::Notify;

use super::*;
use crate::state::{Item, ItemOutcome, Operation};

/// A log that applies entries when it is told to.
#[derive(Debug, Default)]
struct HeldLog {
    state: Mutex<Option<Arc<DictionaryState>>>,
    entries: Mutex<Vec<usize>>,
    open: Notify,
    is_open: std::sync::atomic::AtomicBool,
    refuse: Mutex<Option<ProposeError>>,
}

#[async_trait]
impl Log for Arc<HeldLog> {
    async fn submit(&self, command: Bytes, done: Done<Response>) {
        if let Some(error) = self.refuse.lock().clone() {
            return done(Err(error));
        }
        let state =
            Arc::clone(self.state.lock().get_or_insert_with(|| {
                Arc::new(DictionaryState::new(trie_core::Options::default()))
            }));
        let index = {
            let mut entries = self.entries.lock();
            entries.push(command.len());
            entries.len() as u64
        };
        let log = Arc::clone(self);
        let entry = async move {
            while !log.is_open.load(Ordering::Acquire) {
                log.open.notified().await;
            }
            let at = Applied { index, term: 1 };
            let response = state.apply(at, 0, command::KIND_WRITES, &command).unwrap();
            done(Ok(Committed {
                index,
                term: 1,
                response,
            }));
        };
        drop(Runtime::real().spawn("entry", entry));
    }
}

impl HeldLog {
    fn open(&self) {
        self.is_open.store(true, Ordering::Release);
        self.open.notify_waiters();
    }
}

fn write(term: &str) -> Vec<Write> {
    vec![Write {
        namespace: NamespaceId(1),
        generation: Generation(1),
        identity: None,
        operation: Operation::Record(vec![Item {
            number: 0,
            term: term.to_owned(),
            count: 1,
            display: None,
        }]),
    }]
}

fn config() -> QueueConfig {
    QueueConfig {
        entries_in_flight: 2,
        ..QueueConfig::default()
    }
}

fn start(runtime: &Runtime, log: Arc<HeldLog>, config: QueueConfig) -> WriteQueue {
    let (queue, drain) = WriteQueue::new(runtime, log, config);
    drop(runtime.spawn("write-queue", drain));
    queue
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

fn count(answer: &Answer) -> u64 {
    match &answer.outcomes[..] {
        [WriteOutcome::Recorded(items)] => match items[..] {
            [ItemOutcome::Applied { count }] => count,
            _ => panic!("{answer:?}"),
        },
        _ => panic!("{answer:?}"),
    }
}

#[tokio::test]
async fn what_waits_together_becomes_one_entry() {
    let log = Arc::new(HeldLog::default());
    let queue = start(&Runtime::real(), Arc::clone(&log), config());
    // Two entries take the places on the way; everything behind them waits together.
    let mut tickets = vec![queue.put(write("a"), None).unwrap()];
    until(|| log.entries.lock().len() == 1).await;
    tickets.push(queue.put(write("a"), None).unwrap());
    until(|| log.entries.lock().len() == 2).await;
    for _ in 0..100 {
        tickets.push(queue.put(write("a"), None).unwrap());
    }
    assert_eq!(queue.calls(), 100);
    assert!(queue.bytes() > 0);
    log.open();
    for (ticket, n) in tickets.into_iter().zip(1..) {
        let answer = ticket.await.unwrap().unwrap();
        assert_eq!(count(&answer), n);
        assert_eq!(answer.index, if n <= 2 { n } else { 3 });
    }
    assert_eq!(log.entries.lock().len(), 3);
    assert_eq!((queue.calls(), queue.bytes()), (0, 0));
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let log = Arc::new(HeldLog::default());
    let config = QueueConfig {
        calls_max: 3,
        entries_in_flight: 1,
        bytes_max: 1000,
        ..QueueConfig::default()
    };
    let queue = start(&Runtime::real(), Arc::clone(&log), config);
    let first = queue.put(write("a"), None).unwrap();
    until(|| log.entries.lock().len() == 1).await;
    let large = "x".repeat(950);
    assert_eq!(
        queue.put(write(&large), None).unwrap_err(),
        Refused::Bytes { limit: 1000 }
    );
    let waiting: Vec<_> = (0..3)
        .map(|_| queue.put(write("a"), None).unwrap())
        .collect();
    assert_eq!(
        queue.put(write("a"), None).unwrap_err(),
        Refused::Calls { limit: 3 }
    );
    log.open();
    for ticket in std::iter::once(first).chain(waiting) {
        ticket.await.unwrap().unwrap();
    }
    assert_eq!(queue.bytes(), 0);
    queue.put(write("a"), None).unwrap().await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_expired_in_the_queue_is_never_proposed() {
    let log = Arc::new(HeldLog::default());
    let runtime = Runtime::real();
    let config = QueueConfig {
        entries_in_flight: 1,
        ..QueueConfig::default()
    };
    let queue = start(&runtime, Arc::clone(&log), config);
    let first = queue.put(write("a"), None).unwrap();
    until(|| log.entries.lock().len() == 1).await;
    let soon = runtime.now() + Duration::from_millis(5);
    let late = runtime.now() + Duration::from_secs(60);
    let expired = queue.put(write("a"), Some(soon)).unwrap();
    let in_time = queue.put(write("a"), Some(late)).unwrap();
    runtime.sleep(Duration::from_millis(10)).await;
    log.open();
    first.await.unwrap().unwrap();
    assert_eq!(expired.await.unwrap(), Err(WriteError::Expired));
    assert_eq!(count(&in_time.await.unwrap().unwrap()), 2);
}

#[tokio::test]
async fn a_call_that_goes_away_takes_nothing_back() {
    let log = Arc::new(HeldLog::default());
    let queue = start(&Runtime::real(), Arc::clone(&log), config());
    drop(queue.put(write("a"), None).unwrap());
    until(|| log.entries.lock().len() == 1).await;
    log.open();
    let answer = queue.put(write("a"), None).unwrap().await.unwrap();
    assert_eq!(count(&answer.unwrap()), 2);
}

#[tokio::test]
async fn entries_stay_within_their_limits_and_keep_the_order() {
    let log = Arc::new(HeldLog::default());
    let config = QueueConfig {
        entry_items_max: 10,
        entry_bytes_max: 2000,
        entries_in_flight: 1,
        ..QueueConfig::default()
    };
    let queue = start(&Runtime::real(), Arc::clone(&log), config);
    let mut tickets = vec![queue.put(write("a"), None).unwrap()];
    until(|| log.entries.lock().len() == 1).await;
    for n in 0..40 {
        // Some calls fill an entry on their own.
        let term = if n % 7 == 0 {
            "a".repeat(1900)
        } else {
            "a".to_owned()
        };
        tickets.push(queue.put(write(&term), None).unwrap());
    }
    log.open();
    let mut last = 0;
    for ticket in tickets {
        let index = ticket.await.unwrap().unwrap().index;
        assert!(index >= last);
        last = index;
    }
    assert!(log.entries.lock().iter().all(|bytes| *bytes <= 2000));
    assert!(last >= 9, "{last} entries");
}

#[tokio::test]
async fn refusals_of_the_log_reach_everybody() {
    let log = Arc::new(HeldLog::default());
    let refusal = ProposeError::Stopped {
        reason: "test".to_owned(),
        outcome: Outcome::NotApplied,
    };
    *log.refuse.lock() = Some(refusal.clone());
    let queue = start(&Runtime::real(), Arc::clone(&log), config());
    let tickets: Vec<_> = (0..20)
        .map(|_| queue.put(write("a"), None).unwrap())
        .collect();
    for ticket in tickets {
        assert_eq!(ticket.await.unwrap(), Err(WriteError::Log(refusal.clone())));
    }
}

#[tokio::test]
async fn whoever_waits_is_answered_when_the_task_behind_the_queue_dies() {
    let runtime = Runtime::real();
    let log = Arc::new(HeldLog::default());
    let (queue, drain) = WriteQueue::new(&runtime, Arc::clone(&log), config());
    let task = runtime.spawn("write-queue", drain);
    let mut tickets = Vec::new();
    for waiting in 1..=3 {
        tickets.push(queue.put(write("a"), None).unwrap());
        // Two are on their way, and the third waits for a place.
        until(|| log.entries.lock().len() == waiting.min(2)).await;
    }
    task.abort();
    let lost = tickets.pop().unwrap();
    let patience = Duration::from_secs(20);
    assert!(runtime.timeout(patience, lost).await.unwrap().is_err());
    assert_eq!(queue.put(write("a"), None).unwrap_err(), Refused::Closed);
    // What was handed over has its answer all the same.
    log.open();
    for ticket in tickets {
        assert!(runtime.timeout(patience, ticket).await.unwrap().is_ok());
    }
}

#[tokio::test]
async fn a_call_of_several_writes_is_answered_for_each_and_gets_nobody_elses_answer() {
    let log = Arc::new(HeldLog::default());
    let config = QueueConfig {
        entries_in_flight: 1,
        ..config()
    };
    let queue = start(&Runtime::real(), Arc::clone(&log), config);
    let first = queue.put(write("z"), None).unwrap();
    until(|| log.entries.lock().len() == 1).await;
    let two = queue.put([write("a"), write("b")].concat(), None).unwrap();
    let one = queue.put(write("a"), None).unwrap();
    log.open();
    first.await.unwrap().unwrap();
    let two = two.await.unwrap().unwrap();
    assert_eq!(two.outcomes.len(), 2);
    let one = one.await.unwrap().unwrap();
    assert_eq!((count(&one), one.index), (2, two.index));
}
