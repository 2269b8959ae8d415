//! Random writes, retries, clears and restarts against maps.
//!
//! Invariant `exactly_once`: whatever is sent again, in whatever company, every item takes effect once.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;

/// Counts and display forms.
type Terms = BTreeMap<String, (u64, Option<String>)>;

#[derive(Debug, Default)]
struct Model {
    spaces: BTreeMap<u32, (u64, Terms)>,
    seen: HashMap<(u8, u64), (u64, BTreeSet<u32>, bool)>,
}

impl Model {
    fn apply(&mut self, write: &Write) -> WriteOutcome {
        let key = write
            .identity
            .map(|identity| (identity.id.client.0[0], identity.id.sequence));
        let fingerprint = write.identity.map_or(0, |identity| identity.fingerprint);
        let before = key.and_then(|key| self.seen.get(&key).cloned());
        if before
            .as_ref()
            .is_some_and(|(known, _, _)| *known != fingerprint)
        {
            return WriteOutcome::Refused(Refusal::OtherPayload);
        }
        let numbers: Vec<u32> = match &write.operation {
            Operation::Record(items) => items.iter().map(|item| item.number).collect(),
            Operation::Delete { term: _ } => vec![0],
        };
        let done = before
            .as_ref()
            .map(|(_, done, _)| done.clone())
            .unwrap_or_default();
        if !numbers.iter().all(|number| done.contains(number)) {
            let space = self
                .spaces
                .entry(write.namespace.0)
                .or_insert_with(|| (write.generation.0, BTreeMap::new()));
            if write.generation.0 > space.0 {
                *space = (write.generation.0, BTreeMap::new());
            }
            if write.generation.0 < space.0 {
                return WriteOutcome::Refused(Refusal::StaleGeneration {
                    known: Generation(space.0),
                });
            }
        }
        let (outcome, done, existed) = self.operate(write, before.is_some(), done);
        if let Some(key) = key {
            let existed = before.map_or(existed, |(_, _, existed)| existed);
            self.seen.insert(key, (fingerprint, done, existed));
        }
        outcome
    }

    fn operate(
        &mut self,
        write: &Write,
        is_known: bool,
        mut done: BTreeSet<u32>,
    ) -> (WriteOutcome, BTreeSet<u32>, bool) {
        let mut nothing = BTreeMap::new();
        let terms = self
            .spaces
            .get_mut(&write.namespace.0)
            .map_or(&mut nothing, |space| &mut space.1);
        match &write.operation {
            Operation::Delete { term: _ } if is_known => {
                let key = write.identity.unwrap().id;
                let existed = self.seen[&(key.client.0[0], key.sequence)].2;
                let outcome = WriteOutcome::Deleted {
                    existed,
                    repeated: true,
                };
                (outcome, done, existed)
            }
            Operation::Delete { term } => {
                let existed = terms.remove(term).is_some();
                done.insert(0);
                let outcome = WriteOutcome::Deleted {
                    existed,
                    repeated: false,
                };
                (outcome, done, existed)
            }
            Operation::Record(items) => {
                let mut outcomes = Vec::new();
                for item in items {
                    let count = terms.get(&item.term).map_or(0, |value| value.0);
                    if done.contains(&item.number) {
                        outcomes.push(ItemOutcome::Repeated { count });
                    } else if let Some(sum) = count.checked_add(item.count) {
                        let display = item.display.clone();
                        terms.entry(item.term.clone()).or_insert((0, display)).0 = sum;
                        done.insert(item.number);
                        outcomes.push(ItemOutcome::Applied { count: sum });
                    } else {
                        outcomes.push(ItemOutcome::Overflow { count });
                    }
                }
                (WriteOutcome::Recorded(outcomes), done, false)
            }
        }
    }

    fn top_k(&self, namespace: u32, prefix: &str, k: usize) -> Vec<(String, u64, Option<String>)> {
        let mut all: Vec<_> = self
            .spaces
            .get(&namespace)
            .into_iter()
            .flat_map(|space| &space.1)
            .filter(|(term, _)| term.starts_with(prefix))
            .map(|(term, (count, display))| (term.clone(), *count, display.clone()))
            .collect();
        all.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        all.truncate(k);
        all
    }
}

/// The one payload of an id, so that sending the id again is a retry. Ids are few, so retries are many.
fn payload(client: u8, sequence: u64) -> Operation {
    let seed = u64::from(client) * 31 + sequence * 7;
    if seed.is_multiple_of(5) {
        let term = format!("t{}", seed % 6);
        return Operation::Delete { term };
    }
    let item = |number: u32| Item {
        number: number * 3,
        term: format!("t{}", (seed + u64::from(number)) % 6),
        count: if seed.is_multiple_of(11) {
            u64::MAX / 2
        } else {
            seed % 9 + 1
        },
        display: (seed % 3 == 1).then(|| format!("T{}", (seed + u64::from(number)) % 6)),
    };
    Operation::Record((0..seed as u32 % 4 + 1).map(item).collect())
}

fn write() -> impl Strategy<Value = Write> {
    let identified = (0_u8..3, 0_u64..12, 0_u32..20).prop_map(|(client, sequence, odd)| {
        // One in twenty breaks its word and sends another payload.
        (
            Some(identity(client, sequence, u64::from(odd == 0))),
            payload(client, sequence),
        )
    });
    let anonymous = (0_u8..3, 0_u64..40).prop_map(|(a, b)| (None, payload(a, b)));
    let content = prop_oneof![3 => identified, 1 => anonymous];
    let generation = prop_oneof![8 => Just(1_u64), 1 => 1_u64..4];
    // A namespace belongs to the payload: the whole call has one.
    (content, generation).prop_map(|((identity, operation), generation)| Write {
        namespace: NamespaceId(match &identity {
            Some(identity) => 1 + (identity.id.sequence % 2) as u32,
            None => 1,
        }),
        generation: Generation(generation),
        identity,
        operation,
    })
}

#[derive(Debug, Clone)]
enum Step {
    Command(Vec<Write>),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => proptest::collection::vec(write(), 1..5).prop_map(Step::Command),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..30)
}

proptest! {
    #[test]
    fn every_answer_is_the_models(steps in steps()) {
        let mut model = Model::default();
        let mut subject = Subject::new();
        let mut straight = Subject::new();
        for step in &steps {
            match step {
                Step::Command(writes) => {
                    let expected: Vec<_> = writes.iter().map(|write| model.apply(write)).collect();
                    prop_assert_eq!(&subject.writes(writes), &expected);
                    prop_assert_eq!(&straight.writes(writes), &expected);
                }
                Step::Restart => {
                    let bytes = subject.encoded();
                    subject.state = DictionaryState::new(Options { cached_k: 3, ..Options::default() });
                    subject.state.restore(AT, &mut bytes.as_slice()).unwrap();
                }
            }
            for namespace in 1..3 {
                let generation = model.spaces.get(&namespace).map_or(1, |space| space.0);
                let scope = Scope { namespace: NamespaceId(namespace), generation: Generation(generation) };
                for (prefix, k) in [("", 2), ("t", 10), ("t1", 1)] {
                    let found = subject.state.top_k(scope, prefix, k, None).unwrap();
                    let found: Vec<_> = found.value.into_iter().map(|entry| {
                        let text = |bytes| String::from_utf8(bytes).unwrap();
                        (text(entry.term), entry.count, entry.display.map(text))
                    }).collect();
                    prop_assert_eq!(found, model.top_k(namespace, prefix, k));
                }
            }
        }
        prop_assert_eq!(subject.state.view().hash(), straight.state.view().hash());
    }

    /// A batch is cut between two shards at a border that may have moved before the retry; what was applied where it was is not known to
    /// the other shard, so a range takes its repeat table along. Here the border stays, and answers are lost at random.
    #[test]
    fn a_batch_over_two_shards_counts_once_whatever_answers_are_lost(
        batches in proptest::collection::vec(
            (proptest::collection::vec((0_u32..8, 1_u64..100), 1..12), proptest::collection::vec(any::<bool>(), 0..6)),
            1..12,
        ),
    ) {
        let mut shards = [Subject::new(), Subject::new()];
        let mut expected: BTreeMap<String, u64> = BTreeMap::new();
        for (sequence, (items, lost)) in batches.iter().enumerate() {
            let items: Vec<Item> = items.iter().enumerate()
                .map(|(number, (term, count))| item(number as u32, &format!("t{term}"), *count))
                .collect();
            for item in &items {
                *expected.entry(item.term.clone()).or_default() += item.count;
            }
            let identity = identity(7, sequence as u64, 99);
            let mut lost = lost.iter().copied().chain(std::iter::repeat(false));
            for (shard, subject) in shards.iter_mut().enumerate() {
                let part: Vec<Item> = items.iter().filter(|item| usize::from(item.term.as_str() >= "t4") == shard).cloned().collect();
                if part.is_empty() {
                    continue;
                }
                let mut repeated = false;
                loop {
                    let outcome = subject.write(record(Some(identity), part.clone()));
                    let WriteOutcome::Recorded(outcomes) = outcome else { panic!("{outcome:?}") };
                    let is_repeat = |outcome: &ItemOutcome| matches!(outcome, ItemOutcome::Repeated { .. });
                    prop_assert!(outcomes.iter().all(|outcome| is_repeat(outcome) == repeated));
                    repeated = true;
                    if lost.next() == Some(false) {
                        break;
                    }
                }
            }
        }
        for (term, count) in &expected {
            let found: u64 = shards.iter().map(|shard| shard.count(1, term)).sum();
            prop_assert_eq!(found, *count, "{}", term);
        }
    }
}
