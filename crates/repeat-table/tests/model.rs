//! Long random runs against a model that is as plain as can be: maps that forget nothing, and the rules spelled out.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use repeat_table::{ClientId, RememberError, RepeatTable, RequestId, Verdict};

/// What the table counts for an entry, a large set of items and a client; part of the format.
const ENTRY: u64 = 160;
const LARGE: u64 = 160;
const CLIENT: u64 = 112;

#[derive(Debug, Clone, Default, PartialEq)]
struct Known {
    fingerprint: u64,
    issued_at_ms: i64,
    items: BTreeSet<u32>,
    outcome: u8,
}

#[derive(Debug, Clone)]
struct Model {
    cap: u64,
    mark: Option<i64>,
    entries: BTreeMap<(u8, u64), Known>,
    /// By client: acked below, newest time of issue.
    clients: BTreeMap<u8, (u64, i64)>,
    /// Everything that was ever remembered, with its time of issue.
    ever: BTreeMap<(u8, u64), i64>,
}

impl Model {
    fn new(cap: u64) -> Self {
        Self {
            cap,
            mark: None,
            entries: BTreeMap::new(),
            clients: BTreeMap::new(),
            ever: BTreeMap::new(),
        }
    }

    fn bytes(&self) -> u64 {
        let entry = |known: &Known| {
            ENTRY
                + if known.items.last() >= Some(&64) {
                    LARGE
                } else {
                    0
                }
        };
        self.entries.values().map(entry).sum::<u64>() + CLIENT * self.clients.len() as u64
    }

    fn is_expired(&self, client: u8, id: &RequestId) -> bool {
        id.acked_below > id.sequence
            || self
                .clients
                .get(&client)
                .is_some_and(|&(acked, _)| id.sequence < acked)
            || Some(id.issued_at_ms) <= self.mark
                && !self.entries.contains_key(&(client, id.sequence))
    }

    fn remember(
        &mut self,
        client: u8,
        id: &RequestId,
        fingerprint: u64,
        items: &[u32],
        outcome: u8,
    ) {
        let fresh = Known {
            fingerprint,
            issued_at_ms: id.issued_at_ms,
            items: BTreeSet::new(),
            outcome,
        };
        let known = self.entries.entry((client, id.sequence)).or_insert(fresh);
        known.items.extend(items);
        let issued_at_ms = known.issued_at_ms;
        self.ever
            .entry((client, id.sequence))
            .or_insert(issued_at_ms);
        let record = self.clients.entry(client).or_insert((0, issued_at_ms));
        *record = (record.0.max(id.acked_below), record.1.max(issued_at_ms));
        let acked = record.0;
        self.entries
            .retain(|&(c, sequence), _| c != client || sequence >= acked);
        self.shrink();
    }

    fn idle(&self, client: u8) -> bool {
        !self.entries.keys().any(|&(c, _)| c == client)
    }

    fn shrink(&mut self) {
        loop {
            let entry = self
                .entries
                .iter()
                .map(|(&(client, sequence), known)| (known.issued_at_ms, client, Some(sequence)));
            let idle = self
                .clients
                .iter()
                .filter(|&(&client, _)| self.idle(client))
                .map(|(&client, &(_, newest))| (newest, client, None));
            let Some((time, client, sequence)) = entry.chain(idle).min() else {
                return;
            };
            let covered = sequence.is_none() && Some(time) <= self.mark;
            if self.bytes() <= self.cap && !covered {
                return;
            }
            self.mark = self.mark.max(Some(time));
            match sequence {
                Some(sequence) => drop(self.entries.remove(&(client, sequence))),
                None => drop(self.clients.remove(&client)),
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    /// A request or a retry, and how far behind itself it settles.
    Write {
        client: u8,
        sequence: u64,
        behind: u64,
        fingerprint: u64,
        items: Vec<u32>,
        outcome: u8,
    },
    /// Encode, decode, go on with the result.
    Restart,
    /// Look everything up that was ever remembered.
    LookBack,
}

fn steps(length: usize) -> impl Strategy<Value = Vec<Step>> {
    let item = prop_oneof![4 => 0_u32..4, 1 => 0_u32..1000];
    let write = (
        0_u8..4,
        0_u64..40,
        0_u64..60,
        0_u64..8,
        prop::collection::vec(item, 0..5),
        0_u8..3,
    )
        .prop_map(|(client, sequence, behind, payload, items, outcome)| {
            // Now and then another payload under the same id.
            let fingerprint = u64::from(payload == 0);
            Step::Write {
                client,
                sequence,
                behind,
                fingerprint,
                items,
                outcome,
            }
        });
    prop::collection::vec(
        prop_oneof![60 => write, 2 => Just(Step::Restart), 1 => Just(Step::LookBack)],
        1..length,
    )
}

/// The ids of a client march on while the run goes, so that retries, gaps and late arrivals all happen.
fn request(at: usize, client: u8, sequence: u64, behind: u64) -> RequestId {
    let sequence = sequence + at as u64 / 4;
    // The same in every retry, as a client promises; clocks differ, and one of them jumps about.
    let jump = if client == 3 {
        (sequence * 7919 % 400) as i64 - 200
    } else {
        0
    };
    let issued_at_ms = sequence as i64 * 10 + i64::from(client) * 30 + jump;
    // Most settle little, some nothing, few themselves, which is malformed.
    let acked_below = if behind == 0 {
        sequence + 1
    } else {
        sequence.saturating_sub(behind)
    };
    RequestId {
        client: ClientId([client; 16]),
        sequence,
        issued_at_ms,
        acked_below,
    }
}

fn encoded(table: &RepeatTable) -> Vec<u8> {
    let mut bytes = Vec::new();
    table.encode(&mut bytes);
    bytes
}

/// Does one step on the table and on the model and compares everything that can be seen.
#[expect(clippy::expect_used, reason = "part of a test")]
fn step(table: &mut RepeatTable, model: &mut Model, at: usize, step: Step) {
    match step {
        Step::Restart => {
            let bytes = encoded(table);
            *table = RepeatTable::decode(&bytes).expect("what was encoded");
            assert_eq!(encoded(table), bytes);
        }
        Step::LookBack => look_back(table, model),
        Step::Write {
            client,
            sequence,
            behind,
            fingerprint,
            items,
            outcome,
        } => {
            let id = request(at, client, sequence, behind);
            write(table, model, client, &id, fingerprint, &items, outcome);
        }
    }
    assert_eq!(table.bytes(), model.bytes());
    assert!(table.bytes() <= table.cap_bytes());
    assert_eq!(
        (table.len(), table.clients(), table.mark_ms()),
        (model.entries.len(), model.clients.len(), model.mark)
    );
}

fn write(
    table: &mut RepeatTable,
    model: &mut Model,
    client: u8,
    id: &RequestId,
    fingerprint: u64,
    items: &[u32],
    outcome: u8,
) {
    let known = model.entries.get(&(client, id.sequence));
    let verdict = table.check(id, fingerprint);
    let result = table.remember(id, fingerprint, items.iter().copied(), outcome);
    if model.is_expired(client, id) {
        assert_eq!(
            verdict,
            Verdict::Expired {
                mark_ms: model.mark
            }
        );
        assert_eq!(result, Err(RememberError::Expired));
        return;
    }
    match known {
        Some(known) if known.fingerprint != fingerprint => {
            assert_eq!(verdict, Verdict::OtherPayload);
            assert_eq!(result, Err(RememberError::OtherPayload));
            return;
        }
        Some(known) => match verdict {
            Verdict::Repeat { items, outcome } => {
                assert!(items.iter().eq(known.items.iter().copied()));
                assert_eq!(outcome, known.outcome);
            }
            Verdict::New | Verdict::OtherPayload | Verdict::Expired { .. } => {
                panic!("{id:?} is known, not {verdict:?}")
            }
        },
        None => {
            assert_eq!(verdict, Verdict::New);
            assert!(
                !model.ever.contains_key(&(client, id.sequence)),
                "{id:?} would take effect twice"
            );
        }
    }
    assert_eq!(result, Ok(()));
    model.remember(client, id, fingerprint, items, outcome);
}

/// Remembered or refused: nothing that ever took effect is new again, with whatever it says about itself otherwise.
fn look_back(table: &RepeatTable, model: &Model) {
    for (&(client, sequence), &issued_at_ms) in &model.ever {
        let id = RequestId {
            client: ClientId([client; 16]),
            sequence,
            issued_at_ms,
            acked_below: 0,
        };
        assert_ne!(table.check(&id, 5), Verdict::New, "{id:?}");
    }
}

fn run(cap: u64, steps: Vec<Step>) -> (RepeatTable, Model) {
    let mut table = RepeatTable::new(cap);
    let mut model = Model::new(cap);
    for (at, one) in steps.into_iter().enumerate() {
        step(&mut table, &mut model, at, one);
    }
    look_back(&table, &model);
    (table, model)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn agrees_with_the_model(entries in 0_u64..40, steps in steps(600)) {
        run(entries * ENTRY, steps);
    }

    #[test]
    fn a_replica_that_began_with_a_snapshot_stays_equal(entries in 1_u64..40, steps in steps(400), from in 0_usize..400) {
        let mut old = RepeatTable::new(entries * ENTRY);
        let mut model = Model::new(entries * ENTRY);
        let mut new = None;
        for (at, one) in steps.into_iter().enumerate() {
            if at == from {
                new = Some(RepeatTable::decode(&encoded(&old)).unwrap());
            }
            if let Some(new) = &mut new {
                step(new, &mut model.clone(), at, one.clone());
            }
            step(&mut old, &mut model, at, one);
        }
        if let Some(new) = new {
            prop_assert_eq!(encoded(&new), encoded(&old));
        }
    }

    #[test]
    fn a_union_knows_what_either_knew_whichever_comes_first(
        caps in (1_u64..40, 1_u64..40),
        left in steps(300),
        right in steps(300),
    ) {
        let (left, left_model) = run(caps.0 * ENTRY, left);
        let (right, right_model) = run(caps.1 * ENTRY, right);
        let (mut one, mut other) = (left.clone(), right.clone());
        one.set_cap_bytes(1 << 30);
        other.set_cap_bytes(1 << 30);
        one.union(&right);
        other.union(&left);
        prop_assert_eq!(encoded(&one), encoded(&other));
        look_back(&one, &left_model);
        look_back(&one, &right_model);
        one.set_cap_bytes(caps.0 * ENTRY);
        prop_assert!(one.bytes() <= one.cap_bytes());
        look_back(&one, &left_model);
        look_back(&one, &right_model);
        for (&(client, sequence), known) in left_model.entries.iter().chain(&right_model.entries) {
            let id = RequestId { client: ClientId([client; 16]), sequence, issued_at_ms: known.issued_at_ms, acked_below: 0 };
            match other.check(&id, known.fingerprint) {
                Verdict::Repeat { items, .. } => prop_assert!(known.items.iter().all(|&item| items.contains(item))),
                Verdict::OtherPayload | Verdict::Expired { .. } => {}
                Verdict::New => panic!("{id:?} is forgotten"),
            }
        }
    }

    #[test]
    fn a_view_is_the_table_at_its_moment(entries in 1_u64..40, steps in steps(400), from in 0_usize..400) {
        let mut table = RepeatTable::new(entries * ENTRY);
        let mut model = Model::new(entries * ENTRY);
        let mut kept = None;
        for (at, one) in steps.into_iter().enumerate() {
            if at == from {
                kept = Some((table.view(), encoded(&table)));
            }
            step(&mut table, &mut model, at, one);
        }
        if let Some((view, expected)) = kept {
            let mut bytes = Vec::new();
            view.encode(&mut bytes);
            prop_assert_eq!(bytes, expected);
        }
    }

    #[test]
    fn decoding_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let with_header = [b"ACRT\x01\0\x01\0".as_slice(), &bytes].concat();
        if let Ok(table) = RepeatTable::decode(&with_header) {
            prop_assert_eq!(encoded(&table), with_header);
        }
    }
}
