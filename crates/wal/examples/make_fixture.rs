//! Writes the log that is kept under `tests/fixtures/<version>`. Run it once for each released format version, with the
//! program of that version, and never again: `cargo run -p wal --example make_fixture -- DIRECTORY`.

use std::{error::Error, path::Path, sync::Arc};

use bytes::Bytes;
use vfs::{RealDisk, Vfs};
use wal::{Entry, GroupId, Identity, LogId, Record, Vote, Wal, WalOptions, Writer, inspect};

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args().nth(1).ok_or("a directory is wanted")?;
    let dir = Path::new(&dir);
    let vfs: Arc<dyn Vfs> = Arc::new(RealDisk::new());
    let identity = Identity {
        cluster_id: *b"fixture cluster.",
        node_id: 42,
    };
    let options = WalOptions {
        segment_bytes: 8 << 10,
        ..WalOptions::small()
    };
    let open = || {
        Wal::open(
            Arc::clone(&vfs),
            dir,
            identity,
            options.clone(),
            Writer::Inline,
        )
    };
    let (wal, _) = open()?;
    fill(&wal, 0..200)?;
    wal.shutdown()?;
    drop(wal);
    inspect::train(vfs.as_ref(), dir, 1 << 10)?;
    let (wal, _) = open()?;
    fill(&wal, 200..300)?;
    let (one, two, three) = (GroupId(1), GroupId(2), GroupId(3));
    wal.append_sync(one, vec![Record::Truncate { from_index: 290 }])?;
    wal.append_sync(one, vec![entry(9, 290, b"another leader's".as_slice())])?;
    let purge = |term, index, chain| Record::Purge {
        upto: id(term, index),
        chain,
    };
    wal.append_sync(one, vec![purge(1, 49, None)])?;
    wal.append_sync(two, vec![entry(1, 0, b"to be covered".as_slice())])?;
    wal.append_sync(two, vec![purge(5, 1000, Some(0x1234_5678))])?;
    wal.append_sync(two, vec![entry(5, 1001, vec![b'z'; 5000])])?;
    wal.append_sync(
        three,
        vec![entry(1, 0, b"removed".as_slice()), Record::Remove],
    )?;
    let vote = Vote {
        term: 9,
        node: 3,
        committed: true,
    };
    wal.append_sync(one, vec![Record::Vote(vote)])?;
    wal.append_sync(one, vec![Record::Committed(id(1, 280))])?;
    wal.shutdown()?;
    Ok(())
}

fn id(term: u64, index: u64) -> LogId {
    LogId {
        term,
        node: 2,
        index,
    }
}

fn entry(term: u64, index: u64, payload: impl Into<Bytes>) -> Record {
    Record::Entry(Entry {
        id: id(term, index),
        kind: 1,
        payload: payload.into(),
    })
}

fn fill(wal: &Wal, indexes: std::ops::Range<u64>) -> Result<(), Box<dyn Error>> {
    let indexes: Vec<u64> = indexes.collect();
    for ten in indexes.chunks(10) {
        let batch = ten.iter().map(|index| {
            let city = index * 7919 % 997;
            entry(
                1,
                *index,
                format!("fixture term=city-{city} count={index}").into_bytes(),
            )
        });
        wal.append_sync(GroupId(1), batch.collect())?;
    }
    Ok(())
}
