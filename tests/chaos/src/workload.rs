//! Streams Records at a cluster from several lanes, and reads all the while.
//!
//! Two kinds of terms are recorded: the queries of the stream, and some whose increments are different powers of four, so that a count says
//! of each increment whether it is there ([`Bounds`](crate::history::Bounds)). Both are read while they are written, at every level, of the
//! coordinators and of each shard server by itself, whoever leads: one that does not know yet that it was replaced shows there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use client::{Client, ClientOptions};
use rand_xoshiro::SplitMix64;
use rand_xoshiro::rand_core::{Rng as _, SeedableRng as _};
use runtime::{Runtime, Task};

use crate::deployment::Deployment;
use crate::history::{Level, Question};
use crate::journal::{COORDINATORS, Journal};

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
/// Records of single powers of four at most, and reads of one lane.
const DIGITS_MAX: usize = 500_000;
const READS_MAX: usize = 100_000;

/// Lanes that record powers of four.
const DIGIT_LANES: usize = 4;
/// Increments of such a term: four to the power of nineteen is more than a Record may add, with some room.
const PLACES: usize = 19;
/// Where such terms begin, those that are recorded at the same time: every shard has some.
const LETTERS: [&str; 8] = ["a", "c", "e", "h", "m", "p", "s", "w"];

/// How long one read may take, and what a lane pauses after it: the machine is for the cluster.
const READ_PATIENCE: Duration = Duration::from_secs(2);
const READ_PAUSE: Duration = Duration::from_millis(10);

/// What all lanes share.
#[derive(Debug)]
struct Stream {
    queries: Vec<String>,
    next: AtomicUsize,
    digits: AtomicUsize,
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
        let back = |of: u64| usize::try_from(draw % of).unwrap_or(0);
        if draw & (1 << 20) == 0 {
            let newest = self.digits.load(Ordering::Relaxed);
            let places = (LETTERS.len() * PLACES) as u64;
            return digit(newest.saturating_sub(back(places))).0;
        }
        let newest = self.next.load(Ordering::Relaxed);
        let query = self.query(newest.saturating_sub(1 + back(64)));
        query.cloned().unwrap_or_default()
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
    /// others a little more, so that a lost one and a doubled one cannot cancel out. Others record powers of four and read.
    /// The seed chooses what is read.
    ///
    /// # Errors
    /// When an address of the deployment is not one.
    pub fn start(
        runtime: &Runtime,
        deployment: &dyn Deployment,
        client: &Client,
        queries: Vec<String>,
        lanes: usize,
        seed: u64,
    ) -> anyhow::Result<Self> {
        let stream = Arc::new(Stream {
            queries,
            next: AtomicUsize::new(0),
            digits: AtomicUsize::new(0),
            settled: AtomicUsize::new(0),
            enough: AtomicBool::new(false),
        });
        let journal = Journal::begin(runtime);
        let mut tasks = Vec::new();
        for _ in 0..lanes {
            let lane = stream_lane(Arc::clone(&stream), journal.clone(), client.clone());
            tasks.push(runtime.spawn("chaos lane", lane));
        }
        for _ in 0..DIGIT_LANES {
            let lane = digit_lane(Arc::clone(&stream), journal.clone(), client.clone());
            tasks.push(runtime.spawn("chaos digits", lane));
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

async fn stream_lane(stream: Arc<Stream>, journal: Journal, client: Client) {
    loop {
        let number = stream.next.fetch_add(1, Ordering::Relaxed);
        if stream.is_over(number) {
            return;
        }
        let Some(term) = stream.query(number) else {
            return;
        };
        // What became of it is in the history.
        let _ = journal
            .record(&client, COORDINATORS, term, increment(number))
            .await;
        stream.settled.fetch_add(1, Ordering::Relaxed);
    }
}

async fn digit_lane(stream: Arc<Stream>, journal: Journal, client: Client) {
    while !stream.has_ended() {
        let number = stream.digits.fetch_add(1, Ordering::Relaxed);
        if number >= DIGITS_MAX {
            return;
        }
        let (term, add) = digit(number);
        let _ = journal.record(&client, COORDINATORS, &term, add).await;
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
    fn a_stream_that_has_ended_is_told_of() {
        let stream = Stream {
            queries: vec!["one".to_owned()],
            next: AtomicUsize::new(RECORDS_MAX - 1),
            digits: AtomicUsize::new(0),
            settled: AtomicUsize::new(0),
            enough: AtomicBool::new(false),
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
            digits: AtomicUsize::new(0),
            settled: AtomicUsize::new(0),
            enough: AtomicBool::new(false),
        };
        assert_eq!(stream.hot_term(0), "a~0");
        assert_eq!(stream.hot_term(1 << 20), "two");
        assert_eq!(stream.hot_term((1 << 20) + 1), "one");
        assert!(!stream.is_over(5));
        stream.enough.store(true, Ordering::Relaxed);
        assert!(stream.is_over(2) && !stream.is_over(1));
    }
}
