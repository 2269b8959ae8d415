//! Under which ids the batches of a load are sent, and how far they are settled.

use std::collections::BTreeSet;

use api::v1::RequestId;
use runtime::Runtime;
use vfs::RealDisk;

use super::name::LoadName;
use super::state::LoadState;

/// A batch is given up in the shards' tables only this far behind the front, so that a repetition without the state file finds what it
/// sends again. Ten million lines, or some 3 MiB in each shard's table of 64.
const ACKED_LAG_BATCHES: u64 = 10_000;

#[derive(Debug)]
pub(crate) struct Delivery {
    client_id: [u8; 16],
    /// The hash of the file when the load began.
    file: Option<blake3::Hash>,
    state: Option<LoadState>,
    /// Sent and not answered, or answered with an error.
    open: BTreeSet<u64>,
    /// The first batch that was never handed out.
    next: u64,
    /// All below were answered; on disk where there is a state file.
    done_below: u64,
    /// The same when the load began.
    done_before: u64,
}

impl Delivery {
    /// A load that can be repeated.
    pub(super) fn repeatable(file: blake3::Hash, name: &LoadName, state: LoadState) -> Self {
        Self {
            client_id: name.client_id(state.again()),
            file: Some(file),
            done_before: state.done_below(),
            done_below: state.done_below(),
            next: state.done_below(),
            state: Some(state),
            open: BTreeSet::new(),
        }
    }

    /// A load that has no name.
    pub(super) fn once(runtime: &Runtime) -> Self {
        Self {
            client_id: runtime.random_id(),
            file: None,
            state: None,
            open: BTreeSet::new(),
            next: 0,
            done_below: 0,
            done_before: 0,
        }
    }

    /// Whether an earlier run has settled this batch.
    pub(super) fn is_done(&self, batch: u64) -> bool {
        batch < self.done_before
    }

    /// The id of a batch that is about to be sent. Fixes its time on disk first, where that was not done.
    pub(super) fn request_id(
        &mut self,
        runtime: &Runtime,
        batch: u64,
    ) -> Result<RequestId, anyhow::Error> {
        self.open.insert(batch);
        self.next = self.next.max(batch + 1);
        let issued_at_ms = match &mut self.state {
            None => {
                self.done_below = self.settled_below();
                runtime.wall_ms()
            }
            Some(state) => match state.issued_at_ms(batch) {
                Some(issued_at_ms) => issued_at_ms,
                None => {
                    let now_ms = runtime.wall_ms();
                    let settled = self.open.first().copied().unwrap_or(self.next);
                    state.reserve(&RealDisk::new(), batch, now_ms, settled)?;
                    self.done_below = state.done_below();
                    now_ms
                }
            },
        };
        Ok(RequestId {
            client_id: self.client_id.to_vec().into(),
            sequence: batch,
            issued_at_ms,
            acked_below: self.done_below.saturating_sub(ACKED_LAG_BATCHES),
        })
    }

    /// A batch was answered.
    pub(super) fn settle(&mut self, batch: u64) {
        self.open.remove(&batch);
    }

    /// The load ends here, complete or not.
    pub(super) fn finish(&mut self) -> Result<(), anyhow::Error> {
        let settled = self.settled_below();
        match &mut self.state {
            Some(state) => state.done(&RealDisk::new(), settled),
            None => Ok(()),
        }
    }

    /// Whether the file is still what it was when the load began, by the hash of what was read.
    pub(super) fn is_same_file(&self, read: blake3::Hash) -> bool {
        self.file.is_none_or(|file| file == read)
    }

    fn settled_below(&self) -> u64 {
        self.open.first().copied().unwrap_or(self.next)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use term::NamespaceName;

    use super::super::args::Format;
    use super::*;

    /// A load of a made-up file, begun or taken up in a directory.
    pub(in super::super) fn begin(dir: &tempfile::TempDir) -> Delivery {
        let file = blake3::hash(b"a file");
        let name = LoadName::new(b"cluster", file, &NamespaceName::default(), 1.into());
        let path = dir.path().join("load.json");
        let terms = Path::new("terms.tsv");
        let state = LoadState::open(&RealDisk::new(), &path, terms, Format::Auto);
        Delivery::repeatable(file, &name, state.unwrap())
    }

    #[test]
    fn a_repetition_sends_what_was_not_settled_under_the_same_ids() {
        let runtime = Runtime::real();
        let dir = tempfile::tempdir().unwrap();
        let mut first = begin(&dir);
        let sent: Vec<_> = (0..4)
            .map(|batch| first.request_id(&runtime, batch).unwrap())
            .collect();
        first.settle(0);
        first.settle(2);
        first.finish().unwrap();
        drop(first);

        let mut second = begin(&dir);
        let done: Vec<_> = (0..5).filter(|batch| second.is_done(*batch)).collect();
        assert_eq!(done, [0]);
        for batch in 1..4 {
            let id = second.request_id(&runtime, batch).unwrap();
            assert_eq!(id, sent[usize::try_from(batch).unwrap()]);
            second.settle(batch);
        }
        assert!(second.is_same_file(blake3::hash(b"a file")));
        assert!(!second.is_same_file(blake3::hash(b"another")));
    }

    #[test]
    fn batches_are_given_up_only_far_behind_the_front() {
        let runtime = Runtime::real();
        let dir = tempfile::tempdir().unwrap();
        let mut delivery = begin(&dir);
        let mut given_up = Vec::new();
        for batch in 0..ACKED_LAG_BATCHES + 3_000 {
            let id = delivery.request_id(&runtime, batch).unwrap();
            assert!(id.acked_below + ACKED_LAG_BATCHES <= id.sequence || id.acked_below == 0);
            if batch != 11_500 {
                delivery.settle(batch);
            }
            given_up.push(id.acked_below);
        }
        assert_eq!(given_up.last(), Some(&1_500), "held back by the open batch");
    }

    #[test]
    fn a_load_without_a_name_keeps_no_state() {
        let runtime = Runtime::real();
        let mut delivery = Delivery::once(&runtime);
        let first = delivery.request_id(&runtime, 0).unwrap();
        let second = delivery.request_id(&runtime, 1).unwrap();
        assert_eq!(first.client_id, second.client_id);
        assert_ne!(
            first.client_id,
            Delivery::once(&runtime)
                .request_id(&runtime, 0)
                .unwrap()
                .client_id
        );
        delivery.finish().unwrap();
    }
}
