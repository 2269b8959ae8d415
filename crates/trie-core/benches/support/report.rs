//! Loads terms into a dictionary and prints what that took: memory by the growth of the process, and times.

use std::io::Write;
use std::time::Instant;

use trie_core::{Dictionary, Options, snapshot};

use crate::support::{Samples, Source, scatter, typed};

const SAMPLES: u64 = 200_000;

pub(crate) fn run(allocator: &str) {
    let file = std::env::args().skip(1).find(|arg| !arg.starts_with('-'));
    let source = Source::new(file.or_else(|| std::env::var("TRIE_TERMS").ok()), 1_000_000);
    let mut options = Options::default();
    if let Some(bytes) = std::env::var("TRIE_BUCKET_BYTES")
        .ok()
        .and_then(|value| value.parse().ok())
    {
        options.bucket_bytes = bytes;
    }
    let mut out = std::io::stdout().lock();
    let before = resident_bytes();
    let mut dict = Dictionary::new(options);
    let (mut text, mut total) = (0, 0);
    let start = Instant::now();
    source.for_each(u64::MAX, |term, count| {
        text += term.len() as u64;
        total += count;
        dict.record(term, count, None).expect("counts that fit");
    });
    let load = start.elapsed();
    let grown = resident_bytes() - before;
    let memory = dict.memory();
    let of_text = |bytes: u64| bytes as f64 / memory.text_bytes as f64;
    let mut line = |text: String| writeln!(out, "{text}").expect("standard output");
    line(format!(
        "allocator        {allocator}, bucket_bytes {}, cached_k {}",
        options.bucket_bytes, options.cached_k
    ));
    line(format!(
        "terms            {} ({} bytes of text, {text} recorded)",
        dict.len(),
        memory.text_bytes
    ));
    line(format!(
        "resident growth  {grown} bytes, {:.3} a byte of text",
        of_text(grown)
    ));
    line(format!(
        "counted          {:.3} a byte of text: buckets {:.3}, nodes {:.3}, cached lists {:.3}",
        of_text(memory.total()),
        of_text(memory.bucket_bytes),
        of_text(memory.node_bytes),
        of_text(memory.cached_list_bytes),
    ));
    line(format!(
        "load by record   {:.2?}, {:.0} terms a second",
        load,
        dict.len() as f64 / load.as_secs_f64()
    ));

    let samples = Samples::draw(&source, dict.len(), total, SAMPLES);
    for text in times(&mut dict, &samples) {
        line(text);
    }
    line(snapshots(&dict, options));
    let times = measure(&samples.uniform, |_, term| {
        dict.delete(term);
    });
    line(format!("delete uniform    {times}"));
}

/// Times of reads and records.
fn times(dict: &mut Dictionary, samples: &Samples) -> Vec<String> {
    let mut out = Vec::new();
    let kinds = [("hot", &samples.hot), ("uniform", &samples.uniform)];
    for (name, terms) in kinds {
        let times = measure(terms, |i, term| {
            let prefix = typed(term, scatter(i) as usize);
            drop(std::hint::black_box(dict.top_k(prefix, 10)));
        });
        out.push(format!("top_k(10) {name:<8}{times}"));
    }
    for (name, terms) in kinds {
        let times = measure(terms, |_, term| {
            dict.record(term, 1, None).expect("counts that fit");
        });
        out.push(format!("record {name:<11}{times}"));
    }
    let times = measure(&samples.uniform[..2_000], |i, term| {
        let prefix = &term[..term.len().min(i as usize % 3)];
        drop(std::hint::black_box(dict.top_k(prefix, 1_000)));
    });
    out.push(format!("top_k(1000) short {times}"));
    out
}

/// Writes and reads a snapshot.
fn snapshots(dict: &Dictionary, options: Options) -> String {
    let mut bytes = Vec::new();
    let start = Instant::now();
    let summary = snapshot::encode(dict.clone(), &mut bytes).expect("memory to write to");
    let encode = start.elapsed();
    let start = Instant::now();
    let loaded = snapshot::decode(bytes.as_slice(), options).expect("what was just written");
    let decode = start.elapsed();
    let memory = loaded.memory();
    format!(
        "snapshot         {} bytes, {:.2} a term; written in {encode:.2?}, loaded in {decode:.2?} ({:.0} terms a second); counted after load {:.3} a byte of text",
        summary.stored_bytes,
        summary.stored_bytes as f64 / summary.terms as f64,
        summary.terms as f64 / decode.as_secs_f64(),
        memory.total() as f64 / memory.text_bytes as f64,
    )
}

/// Times of single calls.
fn measure(terms: &[Vec<u8>], mut call: impl FnMut(u64, &[u8])) -> String {
    let mut nanos: Vec<u64> = terms
        .iter()
        .zip(0..)
        .map(|(term, i)| {
            let start = Instant::now();
            call(i, term);
            start.elapsed().as_nanos() as u64
        })
        .collect();
    nanos.sort_unstable();
    let at = |share: f64| nanos[((nanos.len() - 1) as f64 * share) as usize] as f64 / 1_000.0;
    format!(
        " p50 {:.2} us, p99 {:.2} us, p99.9 {:.2} us",
        at(0.5),
        at(0.99),
        at(0.999)
    )
}

/// Bytes of physical memory of this process.
fn resident_bytes() -> u64 {
    const PAGE_BYTES: u64 = 4_096;
    let statm = std::fs::read_to_string("/proc/self/statm").expect("a system with /proc");
    let pages: u64 = statm
        .split(' ')
        .nth(1)
        .and_then(|field| field.parse().ok())
        .expect("the second field of statm");
    pages * PAGE_BYTES
}
