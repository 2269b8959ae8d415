//! STALE reads that are sent to a second replica because the first says nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use api::shard::v1::{
    CountRequest, CountResponse, TopKRequest, TopKResponse, WriteRequest, WriteResponse,
};
use api::v1::{
    Consistency, GetCountRequest, GetTopKRequest, Position, RecordRequest, SessionToken,
};
use api::{ApiError, Reason};
use coordinator::LimitsConfig;
use futures::future::join_all;
use parking_lot::Mutex;
use runtime::CancellationToken;
use tonic::Request;

use super::harness::{Cluster, PATIENCE, Shape, listed};
use super::scripted::{Actor, applied, found, refused, stage_of};
use super::web::get;

/// A read as it came to a node.
#[derive(Debug, Clone, PartialEq)]
enum Asked {
    TopK(TopKRequest),
    Count(CountRequest),
}

/// What was asked of whom, in order.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<(usize, Asked)>>>);

impl Heard {
    /// Notes a read, and says how many like it came before.
    fn note(&self, node: usize, asked: Asked) -> usize {
        let mut heard = self.0.lock();
        let before = heard.iter().filter(|(_, at)| is_same(at, &asked)).count();
        heard.push((node, asked));
        before
    }

    fn nodes(&self) -> Vec<usize> {
        self.0.lock().iter().map(|(node, _)| *node).collect()
    }
}

/// Whether both are the same but for the way they took.
fn is_same(one: &Asked, other: &Asked) -> bool {
    let bare = |asked: &Asked| match asked.clone() {
        Asked::TopK(ask) => Asked::TopK(TopKRequest {
            correlation: 0,
            route: None,
            ..ask
        }),
        Asked::Count(ask) => Asked::Count(CountRequest { route: None, ..ask }),
    };
    bare(one) == bare(other)
}

/// How often some were sent, won and withheld.
async fn counted(cluster: &Cluster) -> [u64; 3] {
    let metrics = get(cluster, "/metrics").await.body;
    ["sent", "won", "withheld"].map(|what| {
        let name = format!("autocomplete_coordinator_hedges_{what}_total ");
        let found = metrics.lines().find_map(|line| line.strip_prefix(&name));
        let number = found.unwrap_or_else(|| panic!("no {name} in {metrics}"));
        number.trim().parse().unwrap()
    })
}

/// Three replicas of each shard. `answer` says what a node, by its place, says to a read that came so many times before.
async fn play(
    percent: u32,
    answer: impl Fn(usize, usize) -> Option<Result<(), ApiError>> + Clone + Send + Sync + 'static,
) -> (Cluster, Heard, CancellationToken) {
    let heard = Heard::default();
    let actors = [0, 1, 2].map(|node| {
        let (notes, says) = (heard.clone(), answer.clone());
        let top_k = move |ask: &TopKRequest| {
            let before = notes.note(node, Asked::TopK(ask.clone()));
            Some(match says(node, before)? {
                Ok(()) => found(ask, vec![(ask.prefix.as_str(), 1)]),
                Err(error) => TopKResponse {
                    error: refused(error),
                    ..TopKResponse::default()
                },
            })
        };
        let (notes, says) = (heard.clone(), answer.clone());
        let count = move |ask: &CountRequest| {
            let before = notes.note(node, Asked::Count(ask.clone()));
            says(node, before).map(|_| CountResponse {
                count: 5,
                ..CountResponse::default()
            })
        };
        Actor {
            top_k: Arc::new(top_k),
            count: Arc::new(count),
            write: Arc::new(|request: &WriteRequest| WriteResponse {
                position: request.route.as_ref().map(|route| Position {
                    shard_id: route.shard_id,
                    incarnation: route.incarnation,
                    index: 7,
                }),
                ..applied(request)
            }),
        }
    });
    let shape = Shape {
        replicas: 3,
        limits: LimitsConfig {
            hedge_percent: percent,
            ..LimitsConfig::default()
        },
        ..Shape::default()
    };
    let (cluster, stop) = stage_of(actors, shape).await;
    (cluster, heard, stop)
}

/// Writes, so that the namespace exists, and gives the token of that.
async fn written(cluster: &Cluster) -> Option<SessionToken> {
    let record = RecordRequest {
        term: "ant".into(),
        ..RecordRequest::default()
    };
    let written = cluster.client().record(record).await;
    written.unwrap().into_inner().token
}

fn patient<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_secs(10));
    request
}

fn top_k(prefix: &str, consistency: Consistency) -> Request<GetTopKRequest> {
    patient(GetTopKRequest {
        prefix: prefix.into(),
        consistency: consistency.into(),
        ..GetTopKRequest::default()
    })
}

async fn stale(cluster: &Cluster, prefix: &str) {
    let ask = top_k(prefix, Consistency::Stale);
    let answer = cluster.client().get_top_k(ask).await.unwrap().into_inner();
    assert_eq!(listed(&answer), [(prefix, 1)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_replica_answers_while_the_first_says_nothing() {
    let (cluster, heard, stop) = play(5, |_, before| (before > 0).then_some(Ok(()))).await;
    let token = written(&cluster).await;
    let mut ask = top_k("a", Consistency::Stale);
    ask.get_mut().token = token.clone();
    let answer = cluster.client().get_top_k(ask).await.unwrap().into_inner();
    assert_eq!(listed(&answer), [("a", 1)]);
    let count = patient(GetCountRequest {
        term: "ant".into(),
        consistency: Consistency::Stale.into(),
        token,
        ..GetCountRequest::default()
    });
    let answer = cluster.client().get_count(count).await.unwrap();
    assert_eq!(answer.into_inner().count, 5);
    assert_eq!(counted(&cluster).await, [2, 2, 0]);

    // The same demands, of another node.
    let asked = heard.0.lock().clone();
    assert_eq!(asked.len(), 4);
    for pair in asked.chunks(2) {
        let [(first, one), (second, other)] = pair else {
            panic!("{pair:?}");
        };
        assert_ne!(first, second);
        assert!(is_same(one, other), "{one:?}, {other:?}");
        let min_index = match one {
            Asked::TopK(ask) => ask.min_index,
            Asked::Count(ask) => ask.min_index,
        };
        assert_eq!(min_index, 7);
    }
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_only_a_leader_answers_has_one_place_to_ask() {
    let (cluster, heard, stop) = play(100, |_, before| (before > 0).then_some(Ok(()))).await;
    written(&cluster).await;
    for level in [Consistency::Leader, Consistency::Linearizable] {
        let prefix = if level == Consistency::Leader {
            "a"
        } else {
            "b"
        };
        let ask = top_k(prefix, level);
        let answer = cluster.client().get_top_k(ask).await.unwrap().into_inner();
        assert_eq!(listed(&answer), [(prefix, 1)]);
    }
    assert_eq!(heard.nodes().len(), 4, "as many as without hedges");
    assert_eq!(counted(&cluster).await, [0, 0, 0]);
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_budget_another_is_asked_only_when_the_try_is_over() {
    let (cluster, heard, stop) = play(0, |_, before| (before > 0).then_some(Ok(()))).await;
    written(&cluster).await;
    stale(&cluster, "a").await;
    let nodes = heard.nodes();
    assert!(nodes.len() == 2 && nodes[0] != nodes[1], "{nodes:?}");
    assert_eq!(counted(&cluster).await, [0, 0, 0]);
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_everything_is_slow_few_are_asked_twice() {
    let (cluster, _, stop) = play(5, |_, before| (before > 0).then_some(Ok(()))).await;
    written(&cluster).await;
    let prefixes: Vec<String> = ('a'..='l').map(|last| format!("a{last}")).collect();
    join_all(prefixes.iter().map(|prefix| stale(&cluster, prefix))).await;
    let [sent, won, withheld] = counted(&cluster).await;
    assert!((1..=10).contains(&sent) && won <= sent, "{sent}, {won}");
    assert!(withheld > 0);
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_error_of_the_first_is_tried_again_elsewhere() {
    let answer = |_: usize, before: usize| {
        Some(match before {
            0 => Err(ApiError::new(Reason::Starting, "not yet")),
            _ => Ok(()),
        })
    };
    let (cluster, heard, stop) = play(5, answer).await;
    written(&cluster).await;
    stale(&cluster, "a").await;
    let nodes = heard.nodes();
    assert!(nodes.len() == 2 && nodes[0] != nodes[1], "{nodes:?}");
    stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_both_fail_the_third_is_asked() {
    let answer = |_: usize, before: usize| match before {
        0 => None,
        1 => Some(Err(ApiError::new(Reason::Starting, "not yet"))),
        _ => Some(Ok(())),
    };
    let (cluster, heard, stop) = play(5, answer).await;
    written(&cluster).await;
    stale(&cluster, "a").await;
    let nodes = heard.nodes();
    let others: BTreeSet<usize> = nodes.iter().copied().collect();
    assert!(nodes.len() == 3 && others.len() == 3, "{nodes:?}");
    assert_eq!(counted(&cluster).await, [1, 0, 0]);
    stop.cancel();
}

/// Each replica would have its turn, one read in three: no three reads in a row do without one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_is_always_overtaken_is_left_alone_for_a_while() {
    const SILENT: usize = 1;
    let (cluster, heard, stop) = play(100, |node, _| (node != SILENT).then_some(Ok(()))).await;
    written(&cluster).await;
    let is_left_alone = async {
        loop {
            let before = heard.nodes().len();
            for _ in 0..3 {
                stale(&cluster, "a").await;
            }
            let nodes = heard.nodes().split_off(before);
            if !nodes.contains(&SILENT) {
                return;
            }
            cluster.runtime.sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = cluster.runtime.timeout(PATIENCE, is_left_alone).await;
    waited.expect("the silent one is asked for ever");
    let [_, won, withheld] = counted(&cluster).await;
    assert!(won > 0);
    assert_eq!(withheld, 0);
    stop.cancel();
}
