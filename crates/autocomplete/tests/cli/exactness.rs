//! Every prefix is completed exactly, before and after a crash.
//!
//! Real text is recorded in order over one stream; then every prefix of a thousand of its terms is compared with a naive count, the process is
//! killed, and all is compared again.

use std::collections::BTreeMap;
use std::path::Path;

use api::v1;
use client::Client;

use crate::support::Up;

const K: usize = 10;

/// The counts, by a map and nothing else.
struct Naive(BTreeMap<String, u64>);

impl Naive {
    fn top(&self, prefix: &str) -> Vec<(String, u64)> {
        let mut found: Vec<_> = self
            .0
            .range(prefix.to_owned()..)
            .take_while(|(term, _)| term.starts_with(prefix))
            .map(|(term, count)| (term.clone(), *count))
            .collect();
        found.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        found.truncate(K);
        found
    }
}

async fn record_all(client: &Client, terms: &[(String, u64)]) {
    let stream = client.record_stream(16).unwrap();
    let mut pending = Vec::new();
    for part in terms.chunks(100) {
        let item = |(term, count): &(String, u64)| v1::RecordItem {
            term: term.clone(),
            count: *count,
        };
        let request = v1::RecordBatchRequest {
            items: part.iter().map(item).collect(),
            ..Default::default()
        };
        pending.push(stream.send(request).await.unwrap());
    }
    for answer in pending {
        let response = answer.await.unwrap();
        assert!(response.results.iter().all(|result| result.code == 0));
    }
    stream.close().await.unwrap();
}

async fn compare(client: &Client, naive: &Naive, terms: &[(String, u64)]) {
    let mut session = client.top_k_stream();
    let step = (terms.len() / 1_000).max(1);
    let mut compared = 0;
    for (term, _) in terms.iter().step_by(step).take(1_000) {
        let term = term::Term::new(term).unwrap();
        let ends = term
            .as_str()
            .char_indices()
            .map(|(start, found)| start + found.len_utf8());
        for end in std::iter::once(0).chain(ends) {
            let prefix = &term.as_str()[..end];
            let request = v1::GetTopKRequest {
                prefix: prefix.to_owned(),
                k: u32::try_from(K).unwrap(),
                require_complete: true,
                ..Default::default()
            };
            let response = session.ask(request).await.unwrap();
            let found: Vec<_> = response
                .suggestions
                .into_iter()
                .map(|suggestion| (suggestion.term, suggestion.count))
                .collect();
            assert_eq!(found, naive.top(prefix), "{prefix:?}");
            compared += 1;
        }
    }
    assert!(compared > terms.len().min(1_000), "{compared} prefixes");
}

async fn is_exact(terms: Vec<(String, u64)>) {
    let mut counts = BTreeMap::new();
    for (term, count) in &terms {
        let key = term::Term::new(term).unwrap().into_string();
        *counts.entry(key).or_default() += count;
    }
    let naive = Naive(counts);
    let dir = tempfile::tempdir().unwrap();
    let up = Up::start(dir.path(), &[]);
    let client = up.client();
    record_all(&client, &terms).await;
    compare(&client, &naive, &terms).await;
    let up = up.again();
    let client = up.client();
    compare(&client, &naive, &terms).await;
    let mut pages = client.list_terms(v1::ListTermsRequest::default());
    let mut listed = BTreeMap::new();
    while let Some(page) = pages.next().await.unwrap() {
        listed.extend(page.into_iter().map(|found| (found.term, found.count)));
    }
    assert!(
        listed == naive.0,
        "the listing differs from what was recorded"
    );
}

fn text_of(path: &Path) -> Option<String> {
    let packed = std::fs::read(path).ok()?;
    Some(String::from_utf8(zstd::decode_all(&*packed).unwrap()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_places_are_completed_exactly() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../data/places.tsv.zst");
    let text = text_of(&path).unwrap();
    // A part of them: the other test has a whole log of queries.
    let terms = text.lines().step_by(5).map(|line| {
        let (name, count) = line.split_once('\t').unwrap();
        (name.to_owned(), count.parse().unwrap())
    });
    is_exact(terms.collect()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn real_queries_are_completed_exactly() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/data/dev/trec-tb05.stream.txt.zst");
    let Some(text) = text_of(&path) else {
        eprintln!(
            "left out: the log of queries {} is not here",
            path.display()
        );
        return;
    };
    let terms: Vec<_> = text.lines().map(|line| (line.to_owned(), 1)).collect();
    assert_eq!(terms.len(), 34_723);
    is_exact(terms).await;
}
