//! Shards in the coordinator's own process.

use api::Reason;
use api::v1::{
    Consistency, GetCountRequest, GetCountResponse, GetTopKRequest, GetTopKResponse, Position,
    RecordRequest, SessionToken,
};
use tonic::{Request, Status};

use super::harness::{Cluster, listed, reason};
use super::writes::settled;

async fn count(cluster: &Cluster, term: &str) -> u64 {
    let request = GetCountRequest {
        term: term.into(),
        ..GetCountRequest::default()
    };
    let answer = cluster.client().get_count(request).await.unwrap();
    answer.into_inner().count
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neighbours_are_asked_without_a_socket_for_as_long_as_they_serve() {
    let mut cluster = Cluster::near().await;
    let is_near = |cluster: &Cluster, place| {
        let address = cluster.server_address(place);
        cluster.neighbours.get(&address).is_some()
    };
    assert!((0..3).all(|place| is_near(&cluster, place)));
    for (term, times) in [("ant", 3), ("gold", 2), ("zoo", 1)] {
        assert_eq!(cluster.record(term, times).await, times);
    }
    let all = [("ant", 3), ("gold", 2), ("zoo", 1)];
    assert_eq!(listed(&cluster.top("", 10).await), all);
    assert_eq!(count(&cluster, "gold").await, 2);

    // The owner of one of them goes, and its door with it: the answer says that a part is missing.
    let owner = cluster.leader_of(2).await;
    cluster.stop_server(owner).await;
    assert!(!is_near(&cluster, owner));
    let partial = cluster.top("", 10).await;
    assert_eq!(listed(&partial), [("ant", 3), ("zoo", 1)]);
    assert_eq!(partial.completeness.unwrap().missing.len(), 1);

    // It comes back where it was, as a new process would.
    cluster.start_server(owner).await;
    let request = RecordRequest {
        term: "gold".into(),
        count: 5,
        ..RecordRequest::default()
    };
    let send = async || cluster.client().record(request.clone()).await;
    assert_eq!(settled(&cluster, send).await.count, 7);
    assert!(is_near(&cluster, owner));
    assert_eq!(listed(&cluster.top("g", 10).await), [("gold", 7)]);
}

/// A question as part of a trace, which the shard's server must see as a call.
fn followed<T>(question: T) -> Request<T> {
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let mut followed = Request::new(question);
    let header = followed.metadata_mut();
    header.insert(rpc::trace::TRACE_HEADER, trace.parse().unwrap());
    followed
}

/// The same question twice: as it is, and as part of a trace. What the replicas had applied by then is left out.
async fn both_ways(
    cluster: &Cluster,
    question: &GetTopKRequest,
) -> [Result<GetTopKResponse, Status>; 2] {
    let mut client = cluster.client();
    let at_once = client.get_top_k(question.clone()).await;
    let in_rounds = client.get_top_k(followed(question.clone())).await;
    [at_once, in_rounds].map(|answer| {
        let mut answer = answer?.into_inner();
        for position in &mut answer.token.as_mut().unwrap().positions {
            position.index = 0;
        }
        Ok(answer)
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_neighbour_answers_at_once_is_what_a_call_would() {
    let cluster = Cluster::near().await;
    let question = |prefix: &str, consistency: Consistency| GetTopKRequest {
        prefix: prefix.into(),
        consistency: consistency.into(),
        ..GetTopKRequest::default()
    };
    let levels = [
        Consistency::Leader,
        Consistency::Linearizable,
        Consistency::Stale,
    ];
    let prefixes = ["", "a", "an", "g", "z", "zoo", "nothing"];
    for round in 1..=3 {
        for (term, times) in [("ant", 3), ("and", 3), ("gold", 2), ("zoo", 1)] {
            assert_eq!(cluster.record(term, times).await, times * round);
        }
        for (prefix, level) in prefixes
            .iter()
            .flat_map(|at| levels.map(|level| (*at, level)))
        {
            let [at_once, in_rounds] = both_ways(&cluster, &question(prefix, level)).await;
            assert_eq!(at_once.unwrap(), in_rounds.unwrap(), "{prefix:?} {level:?}");
        }
    }
    let answer = cluster.top("", 10).await;
    let expected = [("and", 9), ("ant", 9), ("gold", 6), ("zoo", 3)];
    assert_eq!(listed(&answer), expected);

    // What a token names is waited for, and refused where nobody can have it.
    let known = answer.token.unwrap();
    let strange = Position {
        incarnation: known.positions[0].incarnation + 1,
        ..known.positions[0]
    };
    let with = |token: SessionToken| GetTopKRequest {
        token: Some(token),
        ..question("", Consistency::Leader)
    };
    let [at_once, in_rounds] = both_ways(&cluster, &with(known)).await;
    assert_eq!(at_once.unwrap(), in_rounds.unwrap());
    let strange = SessionToken {
        positions: vec![strange],
    };
    for refused in both_ways(&cluster, &with(strange)).await {
        assert_eq!(reason(&refused.unwrap_err()), Reason::UnknownIncarnation);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_neighbour_counts_at_once_is_what_a_call_would() {
    let cluster = Cluster::near().await;
    for (term, times) in [("Ant", 3), ("gold", 2)] {
        assert_eq!(cluster.record(term, times).await, times);
    }
    let mut client = cluster.client();
    let levels = [
        Consistency::Leader,
        Consistency::Linearizable,
        Consistency::Stale,
    ];
    for (term, count, display) in [("ant", 3, "Ant"), ("gold", 2, ""), ("zoo", 0, "")] {
        for level in levels {
            let question = GetCountRequest {
                term: term.into(),
                consistency: level.into(),
                ..GetCountRequest::default()
            };
            let at_once = client.get_count(question.clone()).await.unwrap();
            let in_rounds = client.get_count(followed(question)).await.unwrap();
            let expected = GetCountResponse {
                count,
                display: display.into(),
            };
            assert_eq!(at_once.into_inner(), expected, "{term} {level:?}");
            assert_eq!(in_rounds.into_inner(), expected, "{term} {level:?}");
        }
    }

    // What a token names is waited for, and refused where nobody can have it.
    let with = |token: SessionToken| GetCountRequest {
        term: "ant".into(),
        token: Some(token),
        ..GetCountRequest::default()
    };
    let mut token = cluster.top("ant", 1).await.token.unwrap();
    let known = with(token.clone());
    for question in [Request::new(known.clone()), followed(known)] {
        let answer = client.get_count(question).await.unwrap();
        assert_eq!(answer.into_inner().count, 3);
    }
    token.positions[0].incarnation += 1;
    let strange = with(token);
    for question in [Request::new(strange.clone()), followed(strange)] {
        let refused = client.get_count(question).await.unwrap_err();
        assert_eq!(reason(&refused), Reason::UnknownIncarnation);
    }
}
