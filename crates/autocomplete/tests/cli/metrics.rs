//! The reference of metrics has to keep up with the programs: with what a whole cluster serves, and with what the sources register.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use runtime::Runtime;

use crate::documents::document;
use crate::support::Up;

/// How long the metrics may take to appear.
const PATIENCE: Duration = Duration::from_secs(60);

/// The crates that register metrics.
const CRATES: [&str; 4] = ["telemetry", "coordinator", "shard-server", "watchdog"];

/// What the reference and a scrape both say of a metric.
#[derive(Debug, PartialEq, Eq)]
struct Metric<'a> {
    kind: &'a str,
    /// A gauge that is a total since the start.
    is_cumulative: bool,
    labels: BTreeSet<&'a str>,
}

/// The metrics of the reference, and which of them may be absent although all is well.
fn documented(reference: &str) -> (BTreeMap<&str, Metric<'_>>, BTreeSet<&str>) {
    let (mut found, mut absent) = (BTreeMap::new(), BTreeSet::new());
    for row in reference.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, _unit, meaning] = cells[..] else {
            panic!("not a row of a metric: {row}");
        };
        let name = name.trim_matches('`');
        let metric = Metric {
            kind: kind.strip_suffix(", cumulative").unwrap_or(kind),
            is_cumulative: kind.ends_with(", cumulative"),
            labels: labels.split('`').skip(1).step_by(2).collect(),
        };
        assert!(found.insert(name, metric).is_none(), "twice: {name}");
        if meaning.contains("absent before the first") {
            absent.insert(name);
        }
    }
    (found, absent)
}

/// The names of the labels in a line such as `name{node="a",le="1"} 5`.
fn labels(sample: &str) -> Vec<&str> {
    let Some((_, rest)) = sample.split_once('{') else {
        return Vec::new();
    };
    let (pairs, _) = rest.rsplit_once('}').unwrap();
    let pairs = pairs.split("\",");
    pairs
        .filter_map(|pair| Some(pair.split_once("=\"")?.0))
        .collect()
}

/// The metrics of a scrape.
fn scraped(page: &str) -> BTreeMap<&str, Metric<'_>> {
    let families = page.split("# HELP ").skip(1).map(|family| {
        let mut lines = family.lines();
        let (name, help) = lines.next().unwrap().split_once(' ').unwrap();
        let (_, kind) = lines.next().unwrap().rsplit_once(' ').unwrap();
        let metric = Metric {
            kind,
            is_cumulative: kind == "gauge" && help.contains("since the start"),
            labels: lines
                .flat_map(labels)
                .filter(|label| *label != "le")
                .collect(),
        };
        (name, metric)
    });
    families.collect()
}

/// The sources below a folder, but for tests.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.file_stem().is_some_and(|name| name == "tests") {
            continue;
        }
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
}

/// The literal that a text begins with, and what follows it.
fn literal(text: &str) -> Option<(&str, &str)> {
    text.trim_start().strip_prefix('"')?.split_once('"')
}

/// The metrics that a source registers, with their types. A name is put together of the part that was named last before it, or of a part
/// beside it; outside of parts it is whole.
fn registered(source: &str) -> BTreeMap<String, &'static str> {
    let lines = source.lines();
    let code: Vec<&str> = lines
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect();
    let code = code.join("\n");
    let is_in_word = |at: char| at.is_ascii_alphanumeric() || at == '_';
    let is_name = |text: &&str| text.chars().all(|at| is_in_word(at) && !at.is_uppercase());
    let mut part = None;
    let mut found = BTreeMap::new();
    for (at, _) in code.match_indices('(') {
        let Some((first, rest)) = literal(&code[at + 1..]) else {
            continue;
        };
        let called = code[..at].rsplit(|at| !is_in_word(at)).next().unwrap();
        let kind = match called {
            "part" => {
                part = Some(first);
                continue;
            }
            "counter" | "counters" => "counter",
            "gauge" | "gauges" => "gauge",
            "histogram" | "histograms" | "latency" => "histogram",
            _ => continue,
        };
        let second = rest.strip_prefix(',').and_then(literal);
        let second = second.map(|(text, _)| text).filter(is_name);
        let name = match (second, part) {
            (Some(second), _) => format!("autocomplete_{first}_{second}"),
            (None, Some(part)) => format!("autocomplete_{part}_{first}"),
            (None, None) => first.to_owned(),
        };
        found.insert(name, kind);
    }
    found
}

#[test]
fn the_reference_of_metrics_is_what_a_cluster_serves() {
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(dir.path(), &[]);
    up.answer(&["record", "ant"]);
    up.answer(&["top", "a"]);
    let reference = document("metrics.md");
    let (documented, absent) = documented(&reference);
    let runtime = Runtime::real();
    let until = runtime.now() + PATIENCE;
    loop {
        let page = up.metrics();
        let scraped = scraped(&page);
        for (name, metric) in &scraped {
            assert_eq!(documented.get(name), Some(metric), "{name}");
        }
        // The watchdog's series are there once it has looked at the shards.
        let is_missing = |name: &&&str| !scraped.contains_key(*name) && !absent.contains(*name);
        let missing: Vec<&&str> = documented.keys().filter(is_missing).collect();
        if missing.is_empty() {
            return;
        }
        assert!(runtime.now() < until, "no such metrics: {missing:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn the_reference_has_every_metric_of_the_sources_and_no_other() {
    let mut paths = Vec::new();
    for name in CRATES {
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        sources(&crates.join(name).join("src"), &mut paths);
    }
    let mut in_sources: BTreeMap<String, &str> = BTreeMap::new();
    for path in paths {
        in_sources.extend(registered(&std::fs::read_to_string(path).unwrap()));
    }
    let reference = document("metrics.md");
    let (documented, _) = documented(&reference);
    let kinds = documented.iter();
    let listed: BTreeMap<String, &str> = kinds
        .map(|(name, metric)| ((*name).to_owned(), metric.kind))
        .collect();
    assert_eq!(listed, in_sources);
}
