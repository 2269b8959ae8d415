//! Appends per second on a real disk, with a number of callers that each wait for their append to be durable:
//! `cargo run --release -p wal --example append_throughput -- DIRECTORY [SECONDS]`.
#![expect(
    clippy::disallowed_types,
    reason = "a measurement on the real machine wants its clock"
)]

use std::{
    error::Error,
    io::Write,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::Builder,
    time::{Duration, Instant},
};

use bytes::Bytes;
use vfs::{RealDisk, Vfs};
use wal::{Entry, GroupId, Identity, LogId, Record, Wal, WalOptions, Writer};

const PAYLOAD_BYTES: usize = 100;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let dir = args.next().ok_or("a directory is wanted")?;
    let seconds: u64 = args.next().map_or(Ok(2), |text| text.parse())?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "callers  appends/s  syncs/s  appends/sync  mean wait")?;
    for callers in [1_u64, 4, 16, 64, 256] {
        let dir = Path::new(&dir).join(format!("callers-{callers}"));
        measure(&dir, callers, Duration::from_secs(seconds), &mut out)?;
    }
    Ok(())
}

fn measure(
    dir: &Path,
    callers: u64,
    time: Duration,
    out: &mut impl Write,
) -> Result<(), Box<dyn Error>> {
    let spawn = Box::new(|name: &str, work: Box<dyn FnOnce() + Send>| {
        Builder::new().name(name.to_owned()).spawn(work).map(|_| ())
    });
    let identity = Identity {
        cluster_id: [0; 16],
        node_id: 1,
    };
    let vfs: Arc<dyn Vfs> = Arc::new(RealDisk::new());
    let options = WalOptions::default();
    let (wal, _) = Wal::open(
        Arc::clone(&vfs),
        dir,
        identity,
        options,
        Writer::Thread(spawn),
    )?;
    let stop = Arc::new(AtomicBool::new(false));
    let begin = Instant::now();
    let mut threads = Vec::new();
    for group in 0..callers {
        let (wal, stop) = (wal.clone(), Arc::clone(&stop));
        threads.push(Builder::new().spawn(move || append_until(&wal, group, &stop))?);
    }
    while begin.elapsed() < time {
        wal.flush()?;
    }
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().map_err(|_| "a caller panicked")??;
    }
    let elapsed = begin.elapsed().as_secs_f64();
    let stats = wal.stats();
    wal.shutdown()?;
    let (appends, syncs) = (stats.appends as f64, stats.fsyncs as f64);
    writeln!(
        out,
        "{callers:7}  {:9.0}  {:7.0}  {:12.1}  {:6.2} ms",
        appends / elapsed,
        syncs / elapsed,
        appends / syncs,
        elapsed * callers as f64 * 1000.0 / appends
    )?;
    vfs.remove_dir_all(dir)?;
    Ok(())
}

fn append_until(wal: &Wal, group: u64, stop: &AtomicBool) -> Result<(), wal::AppendError> {
    let payload = Bytes::from(vec![b'p'; PAYLOAD_BYTES]);
    let mut index = 0;
    while !stop.load(Ordering::Relaxed) {
        let id = LogId {
            term: 1,
            node: 1,
            index,
        };
        let entry = Entry {
            id,
            kind: 0,
            payload: payload.clone(),
        };
        wal.append_sync(GroupId(group), vec![Record::Entry(entry)])?;
        index += 1;
    }
    Ok(())
}
