//! Streams Records, batches and deletions at a cluster from several lanes, and reads all the while.
//!
//! Four kinds of terms are written, each by lanes of its own: the queries of the stream; some whose increments are different powers of four,
//! so that a count says of each increment whether it is there ([`Bounds`](crate::history::Bounds)); such ones again, of which each batch adds
//! to one in every shard; and some that are deleted, each of which a single lane records and deletes in turn. All are read while they are
//! written, at every level, of the coordinators and of each shard server by itself, whoever leads: one that does not know yet that it was
//! replaced shows there.
//!
//! What always holds: batches of one term overlap, writes of a term that is deleted never do; once such a write has no answer, nobody writes
//! the term any more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use api::Outcome;
use api::v1::{RecordBatchRequest, RecordItem, RequestId};
use client::{Client, ClientError, ClientOptions};
use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};
use runtime::{Runtime, Task};

use crate::deployment::Deployment;
use crate::history::{Level, Question};
use crate::journal::{COORDINATORS, Journal, Shards};

/// How long one Record may be retried before it is left open. Longer than any recovery of a run takes.
const RECORD_DEADLINE: Duration = Duration::from_secs(90);

/// Retries are bounded by the deadline, not by their number.
const RETRIES: u32 = 10_000;

/// A client whose writes are retried through a recovery.
///
/// # Errors
/// When an address is not one.
pub fn patient_client(runtime: &Runtime, coordinators: &[String]) -> anyhow::Result<Client> {
    let options = ClientOptions {
        endpoints: coordinators.to_vec(),
        deadline: RECORD_DEADLINE,
        retries: RETRIES,
        ..ClientOptions::default()
    };
    Ok(Client::connect(runtime.clone(), options)?)
}

/// A client that asks once, so that an answer is that of the server which was asked, and of that time.
///
/// # Errors
/// When an address is not one, or the patience is longer than a call may take.
pub(crate) fn hasty_client(
    runtime: &Runtime,
    endpoints: &[String],
    patience: Duration,
) -> anyhow::Result<Client> {
    let options = ClientOptions {
        endpoints: endpoints.to_vec(),
        attempt_timeout: patience,
        retries: 0,
        ..ClientOptions::default()
    };
    Ok(Client::connect(runtime.clone(), options)?)
}

/// Records of a run at most, however long its faults take.
const RECORDS_MAX: usize = 2_000_000;
/// Records of single powers of four at most, batches, terms that are deleted, and reads of one lane.
const DIGITS_MAX: usize = 500_000;
const BATCHES_MAX: usize = 50_000;
const LIVES_MAX: usize = 50_000;
const READS_MAX: usize = 100_000;

/// Lanes that record powers of four, those that do it in batches, and those that record and delete.
const DIGIT_LANES: usize = 4;
const BATCH_LANES: usize = 2;
const LIFE_LANES: usize = 2;
/// Increments of such a term: four to the power of nineteen is more than a Record may add, with some room.
const PLACES: usize = 19;
/// Where such terms begin, those that are recorded at the same time: every shard has some.
const LETTERS: [&str; 8] = ["a", "c", "e", "h", "m", "p", "s", "w"];
/// Every so many batches one is sent once more after it was answered.
const REPEATED_EVERY: usize = 3;
/// How often a term that is deleted is recorded anew and deleted again.
const LIVES: usize = 3;

/// How long one read may take, and what lanes pause after a read, a batch and a write of a term that is deleted: the machine is for the cluster.
const READ_PATIENCE: Duration = Duration::from_secs(2);
const READ_PAUSE: Duration = Duration::from_millis(10);
const BATCH_PAUSE: Duration = Duration::from_millis(20);
const LIFE_PAUSE: Duration = Duration::from_millis(10);

/// What all lanes share.
#[derive(Debug, Default)]
struct Stream {
    queries: Vec<String>,
    next: AtomicUsize,
    digits: AtomicUsize,
    batches: AtomicUsize,
    lives: AtomicUsize,
    settled: AtomicUsize,
    enough: AtomicBool,
}

impl Stream {
    /// Whether a Record of this number is one too many.
    fn is_over(&self, number: usize) -> bool {
        let is_wanted = number < self.queries.len() || !self.enough.load(Ordering::Relaxed);
        !is_wanted || number >= RECORDS_MAX
    }

    fn has_ended(&self) -> bool {
        self.is_over(self.next.load(Ordering::Relaxed))
    }

    fn query(&self, number: usize) -> Option<&String> {
        self.queries.get(number.checked_rem(self.queries.len())?)
    }

    /// A term that was recorded lately.
    fn hot_term(&self, draw: u64) -> String {
        let lately = |newest: &AtomicUsize, of: usize| {
            let back = usize::try_from(draw % of as u64).unwrap_or(0);
            newest.load(Ordering::Relaxed).saturating_sub(back)
        };
        match (draw >> 20) % 4 {
            0 => digit(lately(&self.digits, LETTERS.len() * PLACES)).0,
            1 => {
                let letter = usize::try_from((draw >> 32) % LETTERS.len() as u64).unwrap_or(0);
                batch_term(letter, lately(&self.batches, PLACES) / PLACES)
            }
            2 => life_term(lately(&self.lives, 2 * LIFE_LANES)),
            _ => {
                let query = self.query(lately(&self.next, 64).saturating_sub(1));
                query.cloned().unwrap_or_default()
            }
        }
    }
}

/// Lanes that are sending and asking.
#[derive(Debug)]
pub struct Workload {
    stream: Arc<Stream>,
    journal: Journal,
    lanes: Vec<Task<()>>,
}

impl Workload {
    /// Starts `lanes` lanes that share the queries: each takes the next one when its Record is settled. After the last one they
    /// begin again, until [`Workload::finish`], so that no fault meets an idle cluster. Half of the Records add 1, the
    /// others a little more, so that a lost one and a doubled one cannot cancel out. Others record powers of four, send batches, delete
    /// and read. The seed chooses what is read.
    ///
    /// # Errors
    /// When an address of the deployment is not one, or no coordinator says where the shards begin.
    pub async fn start(
        runtime: &Runtime,
        deployment: &dyn Deployment,
        client: &Client,
        queries: Vec<String>,
        lanes: usize,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let shards = Shards::of(&client.status().await?);
        let stream = Arc::new(Stream {
            queries,
            ..Stream::default()
        });
        let journal = Journal::begin(runtime);
        let lane = Lane {
            runtime: runtime.clone(),
            stream: Arc::clone(&stream),
            journal: journal.clone(),
            client: client.clone(),
        };
        let mut tasks = Vec::new();
        for _ in 0..lanes {
            tasks.push(runtime.spawn("chaos lane", lane.clone().queries()));
        }
        for _ in 0..DIGIT_LANES {
            tasks.push(runtime.spawn("chaos digits", lane.clone().digits()));
        }
        for _ in 0..BATCH_LANES {
            let batches = lane.clone().batches(shards.clone());
            tasks.push(runtime.spawn("chaos batches", batches));
        }
        for _ in 0..LIFE_LANES {
            tasks.push(runtime.spawn("chaos lives", lane.clone().lives()));
        }
        let coordinators = (COORDINATORS.to_owned(), deployment.addresses().to_vec());
        let servers = deployment.shard_servers().iter();
        let servers = servers.zip(deployment.shard_addresses());
        let servers = servers.map(|(name, address)| (name.clone(), vec![address.clone()]));
        for (number, (via, endpoints)) in (0..).zip(std::iter::once(coordinators).chain(servers)) {
            let reader = Reader {
                runtime: runtime.clone(),
                reader: hasty_client(runtime, &endpoints, READ_PATIENCE)?,
                writer: client.clone(),
                via,
                dice: SplitMix64::seed_from_u64(seed.wrapping_add(number)),
            };
            let lane = reader.run(Arc::clone(&stream), journal.clone());
            tasks.push(runtime.spawn("chaos reads", lane));
        }
        Ok(Self {
            stream,
            journal,
            lanes: tasks,
        })
    }

    /// Where everything is noted.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// How many Records of queries have ended.
    #[must_use]
    pub fn settled(&self) -> usize {
        self.stream.settled.load(Ordering::Relaxed)
    }

    /// That Records still go on, so that a fault strikes a cluster which has something to do.
    ///
    /// # Errors
    /// When as many were sent as a run may send.
    pub fn ensure_flowing(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            !self.stream.has_ended(),
            "the stream has ended after {RECORDS_MAX} Records, the most of one run: a fault would strike an idle cluster"
        );
        Ok(())
    }

    /// Lets every query be sent at least once, and waits for the lanes. The journal has their history.
    ///
    /// # Errors
    /// When a lane panicked.
    pub async fn finish(self) -> anyhow::Result<()> {
        self.stream.enough.store(true, Ordering::Relaxed);
        for lane in self.lanes {
            lane.await?;
        }
        Ok(())
    }
}

/// A lane that writes.
#[derive(Debug, Clone)]
struct Lane {
    runtime: Runtime,
    stream: Arc<Stream>,
    journal: Journal,
    client: Client,
}

impl Lane {
    async fn queries(self) {
        loop {
            let number = self.stream.next.fetch_add(1, Ordering::Relaxed);
            if self.stream.is_over(number) {
                return;
            }
            let Some(term) = self.stream.query(number) else {
                return;
            };
            // What became of it is in the history.
            let _ = self.record(term, increment(number)).await;
            self.stream.settled.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn digits(self) {
        while !self.stream.has_ended() {
            let number = self.stream.digits.fetch_add(1, Ordering::Relaxed);
            if number >= DIGITS_MAX {
                return;
            }
            let (term, add) = digit(number);
            let _ = self.record(&term, add).await;
        }
    }

    /// Sends batches, some of them once more under the same id: what they add is there, and the digits tell if it is there twice.
    async fn batches(self, shards: Shards) {
        let client_id = self.runtime.random_id();
        for sequence in 1_u64.. {
            let number = self.stream.batches.fetch_add(1, Ordering::Relaxed);
            if self.stream.has_ended() || number >= BATCHES_MAX {
                return;
            }
            let request = RecordBatchRequest {
                items: batch(number),
                request_id: Some(RequestId {
                    client_id: client_id.to_vec().into(),
                    sequence,
                    issued_at_ms: self.runtime.wall_ms(),
                    acked_below: sequence,
                }),
                ..RecordBatchRequest::default()
            };
            let again = request.clone();
            let sent = self
                .journal
                .record_batch(&self.client, COORDINATORS, request, &shards);
            // What was refused must not be sent again: it could take effect then.
            let is_done = sent.await.is_ok_and(|are_acknowledged| are_acknowledged);
            if is_done && number.is_multiple_of(REPEATED_EVERY) {
                let _ = self.client.record_batch(again).await;
            }
            self.runtime.sleep(BATCH_PAUSE).await;
        }
    }

    async fn lives(self) {
        while !self.stream.has_ended() {
            let number = self.stream.lives.fetch_add(1, Ordering::Relaxed);
            if number >= LIVES_MAX {
                return;
            }
            self.live(number).await;
        }
    }

    /// Records and deletes the term of this number, one write after another.
    async fn live(&self, number: usize) {
        let term = life_term(number);
        for add in life(number) {
            let answer = match add {
                Some(add) => self.record(&term, add).await,
                None => self.journal.delete(&self.client, COORDINATORS, &term).await,
            };
            // One that may yet take effect, at any time, would blur all that follows it.
            if answer.is_err_and(|error| error.outcome() == Outcome::Unknown) {
                return;
            }
            self.runtime.sleep(LIFE_PAUSE).await;
        }
    }

    async fn record(&self, term: &str, add: u64) -> Result<(), ClientError> {
        self.journal
            .record(&self.client, COORDINATORS, term, add)
            .await
    }
}

/// A lane that reads.
struct Reader {
    runtime: Runtime,
    reader: Client,
    /// Whose token some of the reads bring.
    writer: Client,
    via: String,
    dice: SplitMix64,
}

impl Reader {
    async fn run(mut self, stream: Arc<Stream>, journal: Journal) {
        for _ in 0..READS_MAX {
            if stream.has_ended() {
                return;
            }
            let draw = self.dice.next_u64();
            let (level, is_own) = match draw % 4 {
                0 => (Level::Leader, false),
                1 => (Level::Linearizable, false),
                2 => (Level::Stale, false),
                _ => (Level::Stale, true),
            };
            let token = self.writer.session_token().filter(|_| is_own);
            let question = question(stream.hot_term(self.dice.next_u64()), draw >> 8);
            let _ = journal
                .read(&self.reader, &self.via, question, level, token)
                .await;
            self.runtime.sleep(READ_PAUSE).await;
        }
    }
}

/// Three of four ask for the count of a term, the others for a list that it may be on.
fn question(term: String, draw: u64) -> Question {
    if !draw.is_multiple_of(4) {
        return Question::Count { term };
    }
    let length = usize::try_from((draw >> 8) % 6).unwrap_or(0);
    let k = match (draw >> 16) % 3 {
        0 => 1,
        1 => 10,
        _ => 25,
    };
    Question::TopK {
        // A blank at the end of a prefix stays, one at its beginning does not; terms have none there.
        prefix: term.chars().take(length).collect(),
        k,
    }
}

fn increment(number: usize) -> u64 {
    if number.is_multiple_of(2) {
        1
    } else {
        2 + (number % 97) as u64
    }
}

/// The Record of this number among those of powers of four: several terms are filled at a time, then come the next ones.
fn digit(number: usize) -> (String, u64) {
    let at_a_time = LETTERS.len() * PLACES;
    let (group, within) = (number / at_a_time, number % at_a_time);
    let letter = LETTERS.get(within % LETTERS.len()).copied();
    let place = within / LETTERS.len();
    let letter = letter.unwrap_or_default();
    (format!("{letter}~{group}"), power_of_four(place))
}

/// The batch of this number: to one term of every shard, and to several of some, it adds the same power of four.
fn batch(number: usize) -> Vec<RecordItem> {
    let (group, place) = (number / PLACES, number % PLACES);
    let item = |letter| RecordItem {
        term: batch_term(letter, group),
        count: power_of_four(place),
    };
    (0..LETTERS.len()).map(item).collect()
}

fn batch_term(letter: usize, group: usize) -> String {
    let letter = LETTERS.get(letter).copied().unwrap_or_default();
    format!("{letter}={group}")
}

/// A term that is deleted, by its number.
fn life_term(number: usize) -> String {
    let letter = LETTERS.get(number % LETTERS.len()).copied();
    format!("{}+{number}", letter.unwrap_or_default())
}

/// What is done to the term of this number, in this order: what is added, `None` being a deletion. No power of four is added twice, so that no
/// two counts of the term are the same. Some terms are deleted before they are there, and some are there in the end.
fn life(number: usize) -> Vec<Option<u64>> {
    let mut places = 0..PLACES;
    let mut writes = Vec::new();
    if number.is_multiple_of(5) {
        writes.push(None);
    }
    for life in 0..LIVES {
        let adds = 1 + (number + life) % 3;
        writes.extend(places.by_ref().take(adds).map(power_of_four).map(Some));
        writes.push(None);
    }
    if number.is_multiple_of(2) {
        writes.extend(places.take(2).map(power_of_four).map(Some));
    }
    writes
}

pub(crate) fn power_of_four(place: usize) -> u64 {
    1 << (2 * place)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_term_of_digits_gets_each_power_once() {
        let mut terms: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for number in 0..3 * LETTERS.len() * PLACES {
            let (term, add) = digit(number);
            assert_eq!(term::Term::new(&term).unwrap().as_str(), term);
            terms.entry(term).or_default().push(add);
        }
        assert_eq!(terms.len(), 3 * LETTERS.len());
        let powers: Vec<u64> = (0..PLACES).map(power_of_four).collect();
        assert!(terms.values().all(|adds| *adds == powers));
        assert!(powers.iter().all(|power| *power <= 1_000_000_000_000));
    }

    #[test]
    fn the_batches_of_a_group_add_each_power_once_to_a_term_of_each_letter() {
        let mut terms: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for number in 0..2 * PLACES {
            let items = batch(number);
            let letters: Vec<String> = items.iter().map(|at| at.term[..1].to_owned()).collect();
            assert_eq!(letters, LETTERS);
            for RecordItem { term, count } in items {
                assert_eq!(term::Term::new(&term).unwrap().as_str(), term);
                terms.entry(term).or_default().push(count);
            }
        }
        assert_eq!(terms.len(), 2 * LETTERS.len());
        let powers: Vec<u64> = (0..PLACES).map(power_of_four).collect();
        assert!(terms.values().all(|adds| *adds == powers));
    }

    #[test]
    fn a_term_that_is_deleted_never_has_the_same_count_twice() {
        for number in 0..30_usize {
            let term = life_term(number);
            assert_eq!(term::Term::new(&term).unwrap().as_str(), term);
            let writes = life(number);
            let mut adds: Vec<u64> = writes.iter().copied().flatten().collect();
            let (added, sorted) = (adds.len(), adds.is_sorted());
            adds.dedup();
            assert!(sorted && adds.len() == added, "{writes:?}");
            let deletions = writes.iter().filter(|add| add.is_none()).count();
            let before_it_is_there = usize::from(number.is_multiple_of(5));
            assert_eq!(deletions, LIVES + before_it_is_there);
            let is_left = writes.last().unwrap().is_some();
            assert_eq!(is_left, number.is_multiple_of(2), "{writes:?}");
        }
    }

    #[test]
    fn a_stream_that_has_ended_is_told_of() {
        let stream = Stream {
            queries: vec!["one".to_owned()],
            next: AtomicUsize::new(RECORDS_MAX - 1),
            ..Stream::default()
        };
        let workload = Workload {
            stream: Arc::new(stream),
            journal: Journal::begin(&Runtime::real()),
            lanes: Vec::new(),
        };
        workload.ensure_flowing().unwrap();
        workload.stream.next.fetch_add(1, Ordering::Relaxed);
        assert!(workload.ensure_flowing().is_err());
    }

    #[test]
    fn what_is_read_was_recorded_lately() {
        let stream = Stream {
            queries: ["one", "two"].map(str::to_owned).to_vec(),
            next: AtomicUsize::new(2),
            batches: AtomicUsize::new(PLACES),
            lives: AtomicUsize::new(9),
            ..Stream::default()
        };
        // A draw of the kind that goes back so far, whatever its upper bits do to the rest of the division.
        let hot = |kind: u64, back: u64| {
            let of = [LETTERS.len() * PLACES, PLACES, 2 * LIFE_LANES, 64][kind as usize] as u64;
            let mut draws = (0..1_000).map(|upper| (upper << 22) + (kind << 20) + back);
            let draw = draws.find(|draw| draw % of == back);
            stream.hot_term(draw.unwrap())
        };
        assert_eq!(hot(0, 0), "a~0");
        assert_eq!([hot(1, 0), hot(1, 1)], ["a=1", "a=0"]);
        assert_eq!([hot(2, 0), hot(2, 3)], ["c+9", "s+6"]);
        assert_eq!([hot(3, 0), hot(3, 1)], ["two", "one"]);
        assert!(!stream.is_over(5));
        stream.enough.store(true, Ordering::Relaxed);
        assert!(stream.is_over(2) && !stream.is_over(1));
    }
}
