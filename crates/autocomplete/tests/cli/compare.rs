//! The bench against peers, in its smallest form: it starts, loads, asks and reports. No figure is looked at.

use std::path::PathBuf;
use std::time::Duration;

use bench::{Args, Kind, Work};
use runtime::Runtime;

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_measures_everybody_who_is_there() {
    let arguments = Args {
        shards: 3,
        terms: 300,
        file: None,
        sorted_set_terms: 100,
        connections: vec![1, 2],
        rounds: 1,
        time: Duration::from_millis(250),
        k: 10,
        seed: 1,
        autocomplete: Some(PathBuf::from(env!("CARGO_BIN_EXE_autocomplete"))),
        baseline: None,
        replicated: true,
        redisearch: Args::redisearch_of_debian(),
        lucene: Args::lucene_of_debian(),
        no_peers: false,
        no_records: false,
        end_in_order: false,
        out: None,
    };
    let report = bench::compare(&Runtime::real(), arguments).await.unwrap();
    for absent in &report.absent {
        println!("left out: {absent}");
    }
    assert_eq!(report.loaded.len() + report.absent.len(), Kind::ALL.len());
    let is_there = |kind| report.loaded.iter().any(|at| at.server == kind);
    assert!(is_there(Kind::Ours));
    // Its programs are built with the whole workspace only.
    let whole = std::env::var_os("REQUIRE_ALL").is_some();
    assert!(is_there(Kind::Replicated) || !whole, "{:?}", report.absent);
    for at in &report.loaded {
        let is_of_it = |work| move |row: &&bench::Row| row.server == at.server && row.work == work;
        let is_ours = matches!(at.server, Kind::Ours | Kind::Baseline | Kind::Replicated);
        for (work, does_it) in [
            (Work::Read, true),
            (Work::ReadBatch, true),
            (Work::ReadStream, is_ours),
            (Work::Record, at.server != Kind::Lucene),
            (Work::RecordBatch, at.server != Kind::Lucene),
            (Work::RecordStream, is_ours),
        ] {
            let rows = report.rows.iter().filter(is_of_it(work)).count();
            assert_eq!(rows, if does_it { 2 } else { 0 }, "{at:?}");
        }
    }
    assert!(report.rows.iter().all(|row| row.errors == 0));
    let text = report.markdown();
    assert!(text.contains("| read | 2 | autocomplete |"), "{text}");
}
