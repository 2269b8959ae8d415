//! What the clients do: records, batches, streams, deletions, clears, repeats of them and reads, each judged as it is answered.

mod reads;
mod wipes;
mod writes;

use std::sync::Arc;
use std::time::Duration;

use api::Outcome;
use api::v1::RequestId;
use api::v1::autocomplete_service_client::AutocompleteServiceClient;
use client::{Client, ClientError, ClientOptions};
use parking_lot::Mutex;
use rpc::channel::{PoolConfig, connect};
use runtime::{CancellationToken, Runtime};
use tonic::transport::Channel;

use crate::cast;
use crate::dice::Dice;
use crate::mutant::Mutant;
use crate::net::HostId;
use crate::oracle::{Ended, Key, Oracle, Shown, Ticket};
use crate::trace;
use writes::Late;

/// The judge, shared by all clients.
pub(crate) type Judge = Arc<Mutex<Oracle>>;

/// First letters of terms, so that each of the two shards has some.
const LETTERS: [char; 4] = ['b', 'e', 'p', 'w'];
/// How long a client waits that reads from one shard server, which may have nothing to say.
const READER_PATIENCE: Duration = Duration::from_millis(400);
/// Terms that are written to at a time.
const OPEN_TERMS: u64 = 12;
/// Of those, how many are deleted now and then. The others are never, so that nothing excuses what they lack.
const DELETED_TERMS: u64 = 3;
/// The namespaces: the default one, and one that is cleared now and then.
pub(crate) const NAMESPACES: [&str; 2] = ["", CLEARED];
const CLEARED: &str = "cleared";

/// One client: does one thing after the other until it is told to stop.
pub(crate) struct Worker {
    runtime: Runtime,
    client: Client,
    judge: Judge,
    dice: Dice,
    /// Draws how many completions it asks for.
    sizes: Dice,
    own_id: [u8; 16],
    own_sequence: u64,
    late_id: [u8; 16],
    late_sequence: u64,
    /// Batches that are sent again much later, oldest first.
    late: Vec<Late>,
    /// Sends records without a request id, once each. None where the network delivers requests again, which such a one does not survive.
    pub(crate) bare: Option<AutocompleteServiceClient<Channel>>,
    /// What the answers have shown that its token was made of. Every read brings it.
    shown: Shown,
    /// The shard server that it reads from, where that is one alone.
    server: Option<HostId>,
    /// What it does.
    diet: Diet,
    /// A bug that the client has.
    pub(crate) mutant: Option<Mutant>,
}

/// What the clients of a seed do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Diet {
    /// Increments of few terms and reads of them: whatever is lost, doubled or late shows soon.
    Plain,
    /// All that there is.
    Mixed,
    /// Reads of one shard server, whoever leads: one that still thinks it does shows soon.
    Reads,
}

/// The options of every client.
pub(crate) fn options(coordinators: &[String], direct: bool) -> ClientOptions {
    ClientOptions {
        endpoints: coordinators.to_vec(),
        connections: 1,
        deadline: Duration::from_secs(4),
        attempt_timeout: Duration::from_secs(1),
        direct,
        ..ClientOptions::default()
    }
}

impl Worker {
    /// One that goes to the coordinators, or to whom they name.
    pub(crate) fn new(
        runtime: &Runtime,
        coordinators: &[String],
        judge: &Judge,
        diet: Diet,
        mut dice: Dice,
    ) -> Result<Self, ClientError> {
        let options = options(coordinators, dice.percent(30));
        Self::with(runtime, options, judge, diet, dice)
    }

    /// One that reads from a shard server and nowhere else, and does not wait for it.
    pub(crate) fn reader(
        runtime: &Runtime,
        server: HostId,
        judge: &Judge,
        dice: Dice,
    ) -> Result<Self, ClientError> {
        let options = ClientOptions {
            deadline: READER_PATIENCE,
            ..options(&[cast::shard_address(server)], false)
        };
        let reader = Self::with(runtime, options, judge, Diet::Reads, dice)?;
        Ok(Self {
            server: Some(server),
            ..reader
        })
    }

    fn with(
        runtime: &Runtime,
        options: ClientOptions,
        judge: &Judge,
        diet: Diet,
        dice: Dice,
    ) -> Result<Self, ClientError> {
        let client = Client::connect(runtime.clone(), options)?;
        Ok(Self {
            own_id: runtime.random_id(),
            late_id: runtime.random_id(),
            runtime: runtime.clone(),
            client,
            judge: Arc::clone(judge),
            // From a copy, so that nothing else that is drawn depends on it.
            sizes: dice.clone().fork(),
            dice,
            own_sequence: 0,
            late_sequence: 0,
            late: Vec::new(),
            bare: None,
            shown: Shown::default(),
            server: None,
            diet,
            mutant: None,
        })
    }

    /// Has it make calls without a request id, too, to one coordinator.
    pub(crate) fn call_bare(&mut self, coordinators: &[String]) {
        let chosen = self.dice.index(coordinators.len());
        let channel = coordinators
            .get(chosen)
            .and_then(|address| connect(&self.runtime, address, &PoolConfig::default()).ok());
        self.bare = channel.map(AutocompleteServiceClient::new);
    }

    pub(crate) async fn run(mut self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let pause = self.dice.millis(2..60);
            self.runtime.sleep(pause).await;
            let choice = self.dice.below(0..1_000);
            match self.diet {
                Diet::Plain => self.plain(choice).await,
                Diet::Mixed => self.mixed(choice).await,
                Diet::Reads if choice < 500 => self.count().await,
                Diet::Reads => self.top().await,
            }
        }
        self.settle_late();
    }

    async fn mixed(&mut self, choice: u64) {
        match choice {
            0..400 => self.record().await,
            400..520 => self.batch().await,
            520..610 => self.repeat().await,
            610..650 => self.late().await,
            650..680 => self.stream().await,
            680..730 => self.delete().await,
            730..735 => self.clear().await,
            735..930 => self.count().await,
            930..990 => self.top().await,
            _ => self.list().await,
        }
    }

    async fn plain(&mut self, choice: u64) {
        match choice {
            0..450 => self.record().await,
            450..600 => self.batch().await,
            600..700 => self.repeat().await,
            700..930 => self.count().await,
            _ => self.top().await,
        }
    }

    /// The name of a term, without its generation.
    fn name(&mut self, terms: u64) -> String {
        let letter = self.dice.pick(&LETTERS).unwrap_or('a');
        format!("{letter}{}", self.dice.below(0..terms))
    }

    fn namespace(&mut self) -> &'static str {
        match self.diet {
            Diet::Plain | Diet::Reads => "",
            Diet::Mixed => self.dice.pick(&NAMESPACES).unwrap_or_default(),
        }
    }

    /// A namespace and the name of a term in it.
    fn place(&mut self) -> (&'static str, String) {
        if self.diet == Diet::Mixed && self.dice.percent(15) {
            (CLEARED, self.name(DELETED_TERMS))
        } else {
            ("", self.name(OPEN_TERMS))
        }
    }

    /// The term of a name that has room for another increment.
    fn open(&self, namespace: &'static str, name: &str) -> Key {
        let judge = self.judge.lock();
        let key = |generation: u64| Key {
            namespace,
            term: format!("{name}-{generation}"),
        };
        let mut generation = 0;
        while judge.is_full(&key(generation)) {
            generation += 1;
        }
        key(generation)
    }

    fn issue_in(&mut self, namespace: &'static str, name: &str) -> Ticket {
        loop {
            let key = self.open(namespace, name);
            if let Some(ticket) = self.judge.lock().issue(&key, trace::now()) {
                return ticket;
            }
        }
    }

    fn issue(&mut self) -> Ticket {
        let (namespace, name) = self.place();
        self.issue_in(namespace, &name)
    }

    /// An id of this client's own, for requests that are sent more than once.
    fn own_request_id(&mut self) -> RequestId {
        self.own_sequence += 1;
        RequestId {
            client_id: self.own_id.to_vec().into(),
            sequence: self.own_sequence,
            issued_at_ms: self.runtime.wall_ms(),
            acked_below: self.own_sequence,
        }
    }

    /// The id of the same request when it is sent again.
    fn again(&mut self, id: &mut Option<RequestId>) {
        if self.mutant == Some(Mutant::FreshIdOnRetry)
            && let Some(id) = id
        {
            self.own_sequence += 1;
            id.sequence = self.own_sequence;
        }
    }

    /// Remembers what the answer to a write has shown, whose token the client took in.
    fn note_acked(&mut self, ticket: &Ticket, ended: Ended) {
        match ended {
            Ended::Acked(count) | Ended::Repeated(count) => self.shown.add(&ticket.key, count),
            Ended::Refused | Ended::Unknown | Ended::Claimed => {}
        }
    }

    fn outcome(&self, error: &ClientError) -> Outcome {
        match (error.outcome(), self.mutant) {
            (Outcome::Unknown, Some(Mutant::UnknownIsRefused)) => Outcome::NotApplied,
            (outcome, _) => outcome,
        }
    }

    fn failed(&self, error: &ClientError) -> Ended {
        match (self.outcome(error), self.mutant) {
            (Outcome::Unknown, Some(Mutant::UnknownIsAcked)) => Ended::Claimed,
            (Outcome::NotApplied, _) => Ended::Refused,
            (Outcome::Unknown, _) => Ended::Unknown,
        }
    }

    fn note_error(&self, error: Option<&ClientError>) {
        if let Some(error) = error {
            let mut judge = self.judge.lock();
            judge.failed(trace::now(), &error.to_string(), error.reason());
        }
    }
}
