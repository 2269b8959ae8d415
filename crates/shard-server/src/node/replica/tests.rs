use std::sync::mpsc;
use std::time::Duration;

use cluster::{ClusterId, Generation, NamespaceId, NodeId};
use replication::{
    Applied, ELECTION_LIMIT, GroupConfig, GroupId, Host, HostDeps, HostOptions, Identity, Member,
    Peer, Replay, Start, Timing, shard_group,
};
use runtime::{Adapters, CancellationToken, Clock, OsRandom, Task, TcpNetwork, TestClock};
use tokio::sync::oneshot;
use vfs::SimDisk;

use super::*;
use crate::metrics::NodeMetrics;
use crate::state::{Item, Operation, Scope};

const PATIENCE: Duration = Duration::from_secs(20);

/// A leader of term 3 that is its group's only voter.
fn leader(applied: Option<Applied>) -> GroupStatus {
    let node = NodeId(1);
    GroupStatus {
        group: GroupId(2),
        node,
        role: Role::Leader,
        term: 3,
        leader: None,
        members: vec![Member {
            node,
            address: "here:1".into(),
            voter: true,
        }],
        joint: false,
        last_log: Some(7),
        committed: Some(7),
        applied,
        snapshot: None,
        purged: None,
        replay: Replay::default(),
        quorum_ack_age: None,
        leader_silence: None,
        matched: Vec::new(),
        stopped: None,
    }
}

#[test]
fn a_leader_serves_once_it_has_applied_an_entry_of_its_term() {
    let at = |index, term| Some(Applied { index, term });
    assert!(!Replica::is_serving(&leader(None)));
    assert!(!Replica::is_serving(&leader(at(6, 2))));
    assert!(Replica::is_serving(&leader(at(7, 3))));
}

/// A newcomer that is sent a long snapshot is on its way, and what it has by then is nothing that it could answer with.
#[test]
fn who_has_been_sent_nothing_yet_answers_no_reads() {
    let newcomer = |applied| GroupStatus {
        role: Role::Learner,
        leader: Some(Peer {
            node: NodeId(2),
            address: "there:1".into(),
        }),
        leader_silence: Some(Duration::ZERO),
        ..leader(applied)
    };
    let at = |index, term| Some(Applied { index, term });
    assert!(Replica::is_serving(&newcomer(None)));
    assert!(!Replica::answers_reads(&newcomer(None)));
    assert!(Replica::answers_reads(&newcomer(at(7, 3))));
    // A shard that was just founded holds no terms, and is whole.
    assert!(Replica::answers_reads(&leader(at(1, 3))));
}

/// A replica that leads and is alone.
async fn alone(runtime: &Runtime) -> (Host, Arc<Replica>) {
    let members = vec![Member::voter(NodeId(1), "here:1")];
    let (host, replica) = one_of(runtime, members).await;
    let group = replica.group();
    let mut status = group.watch_status();
    let serves = status.wait_for(|status| status.role == Role::Leader);
    drop(runtime.timeout(PATIENCE, serves).await.unwrap().unwrap());
    group.read_index(PATIENCE).await.unwrap();
    (host, replica)
}

/// The first of these members.
async fn one_of(runtime: &Runtime, members: Vec<Member>) -> (Host, Arc<Replica>) {
    let host = host_of(runtime, members[0].node).await;
    let replica = begin(runtime, &host, Start::Bootstrap { members }).await;
    (host, replica)
}

/// A node with a disk of its own.
async fn host_of(runtime: &Runtime, node: NodeId) -> Host {
    let deps = HostDeps {
        runtime: runtime.clone(),
        vfs: Arc::new(SimDisk::new()),
        dir: "/data".into(),
        identity: Identity {
            cluster: ClusterId([7; 16]),
            node,
        },
        options: HostOptions {
            wal: wal::WalOptions::small(),
            ..HostOptions::default()
        },
    };
    Host::open(deps).await.unwrap().0
}

async fn begin(runtime: &Runtime, host: &Host, start: Start) -> Arc<Replica> {
    let (shard, incarnation) = (ShardId(2), Incarnation(1));
    let config = GroupConfig {
        // A starved machine keeps no shorter ones.
        timing: Timing::of(ELECTION_LIMIT),
        ..GroupConfig::new(shard_group(shard, incarnation), start)
    };
    let machine = Arc::new(DictionaryState::new(trie_core::Options::default()));
    let group = host.start_group(config, machine).await.unwrap();
    let metrics = telemetry::Metrics::new(runtime).unwrap();
    let metrics = NodeMetrics::new(runtime, &metrics, "node")
        .unwrap()
        .shard("2");
    let queue = QueueConfig::default();
    Arc::new(Replica::new(
        runtime,
        shard,
        incarnation,
        group,
        queue,
        metrics,
    ))
}

fn fresh(runtime: &Runtime, consistency: Consistency) -> Freshness {
    Freshness {
        consistency,
        min_index: 0,
        deadline: Deadline::after(runtime, PATIENCE),
    }
}

const SCOPE: Scope = Scope {
    namespace: NamespaceId(1),
    generation: Generation(1),
};

/// Looks up a term that is not there.
fn look_up(state: &DictionaryState) -> Result<Reading<bool>, StaleGeneration> {
    let found = state.get(SCOPE, "ant")?;
    Ok(Reading {
        value: found.value.is_some(),
        index: found.index,
    })
}

type SlowRead = (
    oneshot::Receiver<()>,
    mpsc::Sender<()>,
    Task<Result<Seen<bool>, ApiError>>,
);

/// A look-up that tells when it has seen what it will answer, and does so once it is told to.
fn slow_read(runtime: &Runtime, replica: &Arc<Replica>, consistency: Consistency) -> SlowRead {
    let (begun, begins) = oneshot::channel();
    let (ended, ends) = mpsc::channel();
    let (replica, at) = (Arc::clone(replica), fresh(runtime, consistency));
    let read = runtime.spawn("slow-read", async move {
        let slow = move |state: &DictionaryState| {
            let seen = look_up(state);
            begun.send(()).unwrap();
            ends.recv_timeout(PATIENCE).unwrap();
            seen
        };
        replica.read(at, slow).await
    });
    (begins, ended, read)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_up_during_which_the_replica_stopped_is_not_answered() {
    let runtime = Runtime::real();
    let (host, replica) = alone(&runtime).await;
    let seen = replica.read(fresh(&runtime, Consistency::Leader), look_up);
    assert!(!seen.await.unwrap().value);
    let (begins, ended, slow) = slow_read(&runtime, &replica, Consistency::Leader);
    begins.await.unwrap();
    replica.group().shutdown().await;
    ended.send(()).unwrap();
    let refused = slow.await.unwrap().unwrap_err();
    assert_eq!(refused.reason(), Reason::Stopped);
    host.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_whose_state_is_wrong_answers_nobody() {
    let runtime = Runtime::real();
    let (host, replica) = alone(&runtime).await;
    let levels = [
        Consistency::Stale,
        Consistency::Leader,
        Consistency::Linearizable,
    ];
    for level in levels {
        let seen = replica.read(fresh(&runtime, level), look_up).await;
        assert!(seen.is_ok(), "{level:?}");
    }
    replica.group().condemn("it differs from the others").await;
    for level in levels {
        let seen = replica.read(fresh(&runtime, level), look_up).await;
        assert_eq!(seen.unwrap_err().reason(), Reason::DataLoss, "{level:?}");
    }
    host.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_to_wait_for_nothing_is_answered_at_once_and_nothing_else_is() {
    let runtime = Runtime::real();
    let (host, replica) = alone(&runtime).await;
    let at_once = |scope, fresh| replica.read_at_once(scope, fresh, look_up);
    let mut answered = 0;
    for level in [Consistency::Leader, Consistency::Stale] {
        let seen = at_once(SCOPE, fresh(&runtime, level)).unwrap();
        let called = replica.read(fresh(&runtime, level), look_up).await.unwrap();
        assert_eq!(seen, called);
        answered += 2;
    }
    assert!(at_once(SCOPE, fresh(&runtime, Consistency::Linearizable)).is_none());
    let ahead = Freshness {
        min_index: replica.applied() + 1,
        ..fresh(&runtime, Consistency::Leader)
    };
    assert!(at_once(SCOPE, ahead).is_none());
    // A clear that this replica has not heard of has to be written before a strict read may be answered.
    let cleared = Scope {
        generation: Generation(2),
        ..SCOPE
    };
    assert!(at_once(cleared, fresh(&runtime, Consistency::Leader)).is_none());
    assert!(at_once(cleared, fresh(&runtime, Consistency::Stale)).is_some());
    answered += 1;
    assert_eq!(replica.reads(), answered);
    replica.group().shutdown().await;
    for level in [Consistency::Leader, Consistency::Stale] {
        assert!(at_once(SCOPE, fresh(&runtime, level)).is_none());
    }
    host.shutdown().await.unwrap();
}

/// By the time that it has a lease it may have applied what was not there when it was looked up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_lease_nothing_is_looked_up_at_once() {
    let runtime = Runtime::real();
    let members = [1, 2, 3].map(|node| Member::voter(NodeId(node), "here:1"));
    let (host, replica) = one_of(&runtime, members.into()).await;
    let looked_up = |_: &DictionaryState| -> Result<Reading<bool>, StaleGeneration> {
        panic!("it does not lead")
    };
    let fresh = fresh(&runtime, Consistency::Leader);
    assert!(replica.read_at_once(SCOPE, fresh, looked_up).is_none());
    host.shutdown().await.unwrap();
}

/// Of a batch that is half applied a reader may see what a replica lacks that has applied all before it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_names_the_entry_that_was_being_applied_when_it_was_looked_up() {
    let runtime = Runtime::real();
    let (host, replica) = alone(&runtime).await;
    let index = replica.applied() + 1;
    let half_applied = |_: &DictionaryState| -> Result<Reading<bool>, StaleGeneration> {
        Ok(Reading { value: true, index })
    };
    let at = fresh(&runtime, Consistency::Leader);
    let called = replica.read(at, half_applied).await.unwrap();
    let at_once = replica.read_at_once(SCOPE, at, half_applied).unwrap();
    let expected = replica.position(index);
    assert_eq!([called.position, at_once.position], [expected; 2]);
    host.shutdown().await.unwrap();
}

/// What it would answer with is no state that the group was ever in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_waits_to_be_taken_into_a_group_answers_nobody() {
    let runtime = Runtime::real();
    let host = host_of(&runtime, NodeId(1)).await;
    let replica = begin(&runtime, &host, Start::Join).await;
    let at = fresh(&runtime, Consistency::Stale);
    assert!(replica.read_at_once(SCOPE, at, look_up).is_none());
    let refused = replica.read(at, look_up).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::Starting);
    host.shutdown().await.unwrap();
}

/// A node that others reach, with a clock of its own.
struct Place {
    clock: Arc<TestClock>,
    runtime: Runtime,
    host: Host,
    address: String,
}

impl Place {
    async fn open(node: u64) -> Self {
        let clock = Arc::new(TestClock::default());
        let runtime = Runtime::with(Adapters {
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            random: Arc::new(OsRandom),
            network: Arc::new(TcpNetwork),
        });
        let host = host_of(&runtime, NodeId(node)).await;
        let listener = runtime.bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().to_string();
        let server = rpc::Server::new(&runtime, rpc::ServerConfig::internal())
            .with_service(host.raft_service());
        let serve = server.serve(listener, CancellationToken::new());
        drop(runtime.spawn("test-raft", serve));
        Self {
            clock,
            runtime,
            host,
            address,
        }
    }

    fn node(&self) -> NodeId {
        self.host.identity().node
    }

    fn member(&self) -> Member {
        Member::voter(self.node(), &self.address)
    }

    async fn begin(self, start: Start) -> Site {
        let replica = begin(&self.runtime, &self.host, start).await;
        Site {
            place: self,
            replica,
        }
    }
}

/// A replica where others reach it.
struct Site {
    place: Place,
    replica: Arc<Replica>,
}

impl Site {
    fn has_lease(&self) -> bool {
        self.replica.group().lease_check().is_ok()
    }

    fn stamp_ms(&self) -> i64 {
        self.replica.group().stamp_ms()
    }

    async fn read(&self, consistency: Consistency) -> Result<Seen<bool>, ApiError> {
        let at = fresh(&self.place.runtime, consistency);
        self.replica.read(at, look_up).await
    }

    fn slow_read(&self, consistency: Consistency) -> SlowRead {
        slow_read(&self.place.runtime, &self.replica, consistency)
    }

    async fn applies(&self, index: u64) {
        let waited = self.replica.group().wait_applied(index, PATIENCE).await;
        waited.unwrap();
    }
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    Runtime::real().timeout(PATIENCE, future).await.unwrap()
}

/// Looks every few milliseconds.
async fn until(condition: impl Fn() -> bool) {
    let runtime = Runtime::real();
    in_time(async {
        while !condition() {
            runtime.sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}

/// Whoever of some leads with a lease, once one does.
async fn leader_of<'a>(among: &[&'a Site]) -> &'a Site {
    let find = || among.iter().copied().find(|site| site.has_lease());
    let runtime = Runtime::real();
    in_time(async {
        loop {
            match find() {
                Some(leader) => return leader,
                None => runtime.sleep(Duration::from_millis(5)).await,
            }
        }
    })
    .await
}

/// Counts a term by whoever of some leads. Gives the index of its entry.
async fn write(among: &[&Site], term: &str) -> u64 {
    let write = || Write {
        namespace: SCOPE.namespace,
        generation: SCOPE.generation,
        identity: None,
        operation: Operation::Record(vec![Item {
            number: 0,
            term: term.to_owned(),
            count: 1,
            display: None,
        }]),
    };
    in_time(async {
        loop {
            let leader = leader_of(among).await;
            let deadline = Deadline::after(&leader.place.runtime, PATIENCE);
            if let Ok(answer) = leader.replica.write(vec![write()], deadline).await {
                return answer.index;
            }
        }
    })
    .await
}

/// One that leads for good, for nobody else votes, and one that follows it.
async fn a_leader_and_its_follower() -> [Site; 2] {
    let place = Place::open(1).await;
    let members = vec![place.member()];
    let leader = place.begin(Start::Bootstrap { members }).await;
    let follower = Place::open(2).await.begin(Start::Join).await;
    let peer = Peer {
        node: follower.place.node(),
        address: follower.place.address.clone(),
    };
    let leads = leader_of(&[&leader]).await.replica.group();
    leads.add_learner(peer, PATIENCE).await.unwrap();
    [leader, follower]
}

/// Three that vote. All of them have applied something.
async fn three_voters() -> [Site; 3] {
    let places = [
        Place::open(1).await,
        Place::open(2).await,
        Place::open(3).await,
    ];
    let members = places.iter().map(Place::member).collect();
    let [one, two, three] = places;
    // The founder comes last, so that it finds the others when it asks for their votes.
    let (two, three) = (two.begin(Start::Join).await, three.begin(Start::Join).await);
    let one = one.begin(Start::Bootstrap { members }).await;
    let sites = [one, two, three];
    let index = write(&sites.each_ref(), "bee").await;
    for site in &sites {
        site.applies(index).await;
    }
    sites
}

/// Has one and the others not hear each other from now on. Gives the others.
fn cut_off<'a>(one: &Site, sites: &'a [Site]) -> Vec<&'a Site> {
    let is_other = |site: &&Site| site.place.node() != one.place.node();
    let others: Vec<&Site> = sites.iter().filter(is_other).collect();
    let nodes = others.iter().map(|other| other.place.node());
    one.place.host.know_lost(nodes);
    for other in &others {
        other.place.host.know_lost([one.place.node()]);
    }
    others
}

/// Everybody hears everybody again, and all clocks go on.
fn mend(sites: &[Site]) {
    for site in sites {
        site.place.host.know_lost([]);
        site.place.clock.go_on();
    }
}

async fn end(sites: impl IntoIterator<Item = Site>) {
    for site in sites {
        site.place.host.shutdown().await.unwrap();
    }
}

/// A leader whose clock has stopped while it had its lease, which by that clock never ends, and the others, cut off from it.
async fn left_behind(sites: &[Site]) -> (&Site, Vec<&Site>) {
    let all: Vec<&Site> = sites.iter().collect();
    in_time(async {
        loop {
            let leader = leader_of(&all).await;
            leader.place.clock.stop();
            let others = cut_off(leader, sites);
            if leader.has_lease() {
                return (leader, others);
            }
            // It had ended just before.
            mend(sites);
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_clock_stands_still_answers_nothing_linearizable_after_others_lead() {
    let sites = three_voters().await;
    let (behind, others) = left_behind(&sites).await;
    write(&others, "ant").await;
    assert!(behind.has_lease(), "{:?}", behind.replica.group().status());
    let by_the_lease = behind.read(Consistency::Leader).await.unwrap();
    assert!(!by_the_lease.value, "it hears of what the others do");
    let refused = behind.read(Consistency::Linearizable).await.unwrap_err();
    assert_eq!(refused.reason(), Reason::NoQuorum, "{refused}");
    mend(&sites);
    end(sites).await;
}

/// What it saw may be the past by the time that it would be answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_look_up_during_which_the_lease_ended_is_not_answered() {
    let sites = three_voters().await;
    let all = sites.each_ref();
    let (leader, ended, slow) = in_time(async {
        loop {
            let leader = leader_of(&all).await;
            let (begins, ended, slow) = leader.slow_read(Consistency::Leader);
            // Where the lease had ended already, nothing was looked up.
            if begins.await.is_ok() {
                return (leader, ended, slow);
            }
        }
    })
    .await;
    cut_off(leader, &sites);
    until(|| !leader.has_lease()).await;
    ended.send(()).unwrap();
    let refused = slow.await.unwrap().unwrap_err();
    let is_told = matches!(refused.reason(), Reason::NoQuorum | Reason::NotLeader);
    assert!(is_told, "{refused}");
    end(sites).await;
}

/// Neither that it has heard of its majority nor what it applies is a new status.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_a_leader_answers_again_is_told_while_it_leads_as_before() {
    let sites = three_voters().await;
    let all = sites.each_ref();
    in_time(async {
        loop {
            let leader = leader_of(&all).await;
            let group = leader.replica.group();
            let lead = || {
                let status = group.status();
                (status.role, status.term)
            };
            let before = lead();
            // As if nobody had answered for so long, until somebody answers what is sent from now on.
            leader.place.clock.leap(SILENCE_MAX);
            let (told, mut tells) = tokio::sync::mpsc::channel(16);
            let tell = move |answers: bool| told.try_send(answers).unwrap();
            let heard = async {
                match tells.recv().await {
                    Some(false) => tells.recv().await,
                    Some(true) | None => None,
                }
            };
            let answers = tokio::select! {
                stopped = Replica::follow(&leader.place.runtime, group, tell) => panic!("{stopped:?}"),
                answers = heard => answers,
            };
            // Another lead is a new status.
            if answers.is_some() && lead() == before {
                assert_eq!(answers, Some(true));
                return;
            }
        }
    })
    .await;
    end(sites).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn that_a_majority_is_gone_is_told_while_the_leader_leads_as_before() {
    let sites = three_voters().await;
    let leader = leader_of(&sites.each_ref()).await;
    let (told, mut tells) = tokio::sync::mpsc::unbounded_channel();
    let tell = move |answers: bool| told.send(answers).unwrap();
    let loses_its_majority = async {
        while tells.recv().await != Some(true) {}
        for other in sites.iter().filter(|site| !std::ptr::eq(*site, leader)) {
            other.replica.group().shutdown().await;
        }
        leader.place.clock.leap(SILENCE_MAX);
        while tells.recv().await != Some(false) {}
    };
    in_time(async {
        tokio::select! {
            stopped = Replica::follow(&leader.place.runtime, leader.replica.group(), tell) => panic!("{stopped:?}"),
            () = loses_its_majority => {}
        }
    })
    .await;
    end(sites).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_is_as_old_as_the_newest_entry_that_it_has_applied() {
    let [leader, follower] = a_leader_and_its_follower().await;
    follower.applies(write(&[&leader], "ant").await).await;
    let stamp_ms = follower.stamp_ms();
    for (passed_ms, age_ms) in [(5_000, 5_000), (1, 1), (0, 0), (-1, 0)] {
        follower.place.clock.set_wall_ms(stamp_ms + passed_ms);
        let seen = follower.read(Consistency::Stale).await.unwrap();
        assert_eq!((seen.value, seen.age_ms), (true, age_ms));
    }
    // Who leads has all that there is.
    leader.place.clock.set_wall_ms(stamp_ms + 5_000);
    let seen = leader.read(Consistency::Stale).await.unwrap();
    assert_eq!((seen.value, seen.age_ms), (true, 0));
    end([leader, follower]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_is_as_old_as_what_was_looked_up_whatever_is_applied_meanwhile() {
    let [leader, follower] = a_leader_and_its_follower().await;
    follower.applies(write(&[&leader], "bee").await).await;
    let stamp_ms = follower.stamp_ms();
    follower.place.clock.set_wall_ms(stamp_ms + 5_000);
    let (begins, ended, slow) = follower.slow_read(Consistency::Stale);
    begins.await.unwrap();
    in_time(async {
        while follower.stamp_ms() == stamp_ms {
            follower.applies(write(&[&leader], "ant").await).await;
        }
    })
    .await;
    ended.send(()).unwrap();
    let seen = slow.await.unwrap().unwrap();
    assert_eq!((seen.value, seen.age_ms), (false, 5_000));
    end([leader, follower]).await;
}
