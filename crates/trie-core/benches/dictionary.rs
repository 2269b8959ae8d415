//! `record` and `top_k` at one and at ten million terms, hot and uniform.
//!
//! `TRIE_TERMS` names a file of `term<TAB>count` lines; without it terms are generated, and the larger
//! size is left out unless `TRIE_BENCH_LARGE` is set.
#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    reason = "a bench reads files and the clock, and stops at the first surprise"
)]

mod support;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use support::{Samples, Source, scatter, typed};
use trie_core::{Dictionary, Options};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn sizes() -> Vec<u64> {
    let large =
        std::env::var_os("TRIE_TERMS").is_some() || std::env::var_os("TRIE_BENCH_LARGE").is_some();
    if large {
        vec![1_000_000, 10_000_000]
    } else {
        vec![1_000_000]
    }
}

fn benches(criterion: &mut Criterion) {
    for size in sizes() {
        let source = Source::new(std::env::var("TRIE_TERMS").ok(), size);
        let mut dict = Dictionary::new(Options::default());
        let mut total = 0;
        source.for_each(size, |term, count| {
            total += count;
            dict.record(term, count, None).expect("counts that fit");
        });
        let samples = Samples::draw(&source, size, total, 100_000);
        for (name, terms) in [("hot", &samples.hot), ("uniform", &samples.uniform)] {
            let mut i = 0;
            let mut group = criterion.benchmark_group("top_k_10");
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter(|| {
                    i += 1;
                    let term = &terms[i % terms.len()];
                    black_box(dict.top_k(typed(term, scatter(i as u64) as usize), 10))
                });
            });
            group.finish();
            let mut group = criterion.benchmark_group("record");
            group.bench_function(BenchmarkId::new(name, size), |bencher| {
                bencher.iter(|| {
                    i += 1;
                    dict.record(black_box(&terms[i % terms.len()]), 1, None)
                });
            });
            group.finish();
        }
    }
}

criterion_group!(all, benches);
criterion_main!(all);
