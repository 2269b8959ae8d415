//! The hot paths of a replica's state, each as a program of its own whose instructions can be counted: `cargo xtask instructions`.
//!
//! Without an argument the names of the paths are printed. With one, the path is prepared, and gone through so often as is printed; only
//! what `measured` calls is to be counted. Everything follows from the number of a term, so that two runs do the same.
#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a bench prints, and stops at the first surprise"
)]

use std::hint::black_box;

use cluster::{Generation, NamespaceId};
use repeat_table::{ClientId, RequestId};
use replication::{Applied, StateMachine as _};
use shard_server::state::{DictionaryState, Identity, Item, Operation, Scope, Write, command};
use trie_core::Options;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Terms that are there before anything is counted.
const TERMS: u64 = 20_000;
/// Items of an entry that holds several.
const ENTRY_ITEMS: u64 = 100;
/// How often a path is gone through.
const OPERATIONS: u64 = 1_000;
const STAMP_MS: i64 = 1_790_000_000_000;
const SCOPE: Scope = Scope {
    namespace: NamespaceId(1),
    generation: Generation(1),
};

/// A path: what is counted is what the prepared closure does.
struct Path {
    name: &'static str,
    prepare: fn(Replica) -> Box<dyn FnOnce()>,
}

const PATHS: &[Path] = &[
    Path {
        name: "complete-one-letter",
        prepare: |replica| complete(replica, 10, |term, _| term.get(..1)),
    },
    Path {
        name: "complete-as-typed",
        prepare: |replica| complete(replica, 10, typed),
    },
    Path {
        name: "complete-a-hundred",
        prepare: |replica| complete(replica, 100, typed),
    },
    Path {
        name: "count",
        prepare: |replica| {
            let terms: Vec<String> = (0..OPERATIONS).map(term).collect();
            Box::new(move || {
                for term in &terms {
                    black_box(replica.state.get(SCOPE, term)).expect("the generation is known");
                }
            })
        },
    },
    Path {
        name: "apply-known-terms",
        prepare: |replica| apply(replica, entries(0)),
    },
    Path {
        name: "apply-new-terms",
        prepare: |replica| apply(replica, entries(TERMS)),
    },
    Path {
        name: "apply-single-records",
        prepare: |replica| apply(replica, single_records()),
    },
    Path {
        name: "apply-repeats",
        prepare: |mut replica| {
            for write in single_records() {
                replica.apply(&[write]);
            }
            apply(replica, single_records())
        },
    },
    Path {
        name: "encode-entries",
        prepare: |_| {
            let entries = entries(0);
            Box::new(move || {
                for write in &entries {
                    black_box(command::encode_writes([write]));
                }
            })
        },
    },
];

fn main() {
    let wanted = std::env::args().nth(1).filter(|name| name != "--bench");
    let Some(wanted) = wanted else {
        PATHS.iter().for_each(|path| println!("{}", path.name));
        return;
    };
    let path = PATHS.iter().find(|path| path.name == wanted);
    let path = path.expect("a name that is printed without arguments");
    let work = (path.prepare)(Replica::filled());
    measured(work);
    println!("{OPERATIONS}");
}

/// What is counted.
#[inline(never)]
fn measured(work: Box<dyn FnOnce()>) {
    work();
}

/// A state and how far its log has come.
struct Replica {
    state: DictionaryState,
    index: u64,
}

impl Replica {
    fn filled() -> Self {
        let mut replica = Self {
            state: DictionaryState::new(Options::default()),
            index: 0,
        };
        for first in (0..TERMS).step_by(1_000) {
            replica.apply(&[record(None, first..first + 1_000)]);
        }
        replica
    }

    fn apply(&mut self, writes: &[Write]) {
        let bytes = command::encode_writes(writes);
        self.apply_encoded(&bytes);
    }

    fn apply_encoded(&mut self, bytes: &[u8]) {
        self.index += 1;
        let at = Applied {
            index: self.index,
            term: 1,
        };
        let applied = self.state.apply(at, STAMP_MS, command::KIND_WRITES, bytes);
        black_box(applied.expect("the command is sound"));
    }
}

/// A term by its number: some letters that spread, and its number, so that no two are equal.
fn term(number: u64) -> String {
    // Multiplying by the golden ratio's part of 2^64 spreads neighbours (Knuth, volume 3, 6.4).
    let mut spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut text = String::new();
    for _ in 0..6 {
        text.push(char::from(
            b'a' + u8::try_from(spread >> 59).unwrap_or(0) % 26,
        ));
        spread <<= 5;
    }
    text + " " + &number.to_string()
}

/// As much of a term as somebody may have typed.
fn typed(term: &str, number: u64) -> Option<&str> {
    let length = 1 + usize::try_from(number % 8).unwrap_or(0);
    term.get(..length)
}

fn record(identity: Option<Identity>, numbers: std::ops::Range<u64>) -> Write {
    let items = numbers.zip(0..).map(|(number, place)| Item {
        number: place,
        term: term(number),
        count: 1 + number % 7,
        display: None,
    });
    Write {
        namespace: SCOPE.namespace,
        generation: SCOPE.generation,
        identity,
        operation: Operation::Record(items.collect()),
    }
}

/// Entries of many items, `OPERATIONS` items in all.
fn entries(first: u64) -> Vec<Write> {
    let starts = (first..first + OPERATIONS).step_by(ENTRY_ITEMS as usize);
    starts
        .map(|start| record(None, start..start + ENTRY_ITEMS))
        .collect()
}

/// Records of one term each, with ids.
fn single_records() -> Vec<Write> {
    let identity = |sequence| Identity {
        id: RequestId {
            client: ClientId([7; 16]),
            sequence,
            issued_at_ms: STAMP_MS,
            acked_below: 0,
        },
        fingerprint: sequence,
    };
    let numbers = 0..OPERATIONS;
    numbers
        .map(|number| record(Some(identity(number + 1)), number..number + 1))
        .collect()
}

fn apply(mut replica: Replica, writes: Vec<Write>) -> Box<dyn FnOnce()> {
    let encoded: Vec<_> = writes
        .iter()
        .map(|write| command::encode_writes([write]))
        .collect();
    Box::new(move || {
        for bytes in &encoded {
            replica.apply_encoded(bytes);
        }
    })
}

fn complete(
    replica: Replica,
    k: usize,
    prefix: fn(&str, u64) -> Option<&str>,
) -> Box<dyn FnOnce()> {
    let prefixes: Vec<String> = (0..OPERATIONS)
        .filter_map(|number| prefix(&term(number), number).map(str::to_owned))
        .collect();
    Box::new(move || {
        for prefix in &prefixes {
            let found = replica.state.top_k(SCOPE, prefix, k, None);
            black_box(found.expect("the generation is known"));
        }
    })
}
