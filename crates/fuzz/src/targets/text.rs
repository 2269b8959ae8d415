//! Text that people and their programs give us: terms, files, answers.

use std::collections::BTreeMap;

use api::v1::Suggestion;
use coordinator::gather::merge;
use http::Uri;
use term::{NamespaceName, Prefix, Surface, Term, display_form};
use watchdog::restart::CommandTemplate;

use super::{sure, tagged};
use crate::{Target, mend};

pub(super) fn targets() -> Vec<Target> {
    vec![
        Target {
            name: "terms",
            run: terms,
            mend: mend::nothing,
            seeds: term_seeds,
            quick: 30_000,
        },
        Target {
            name: "docker-answers",
            run: docker,
            mend: mend::nothing,
            seeds: || {
                vec![
                    tagged(
                        0,
                        br#"[{"Id":"4f9a0c","Names":["/shard-1"],"State":"running"}]"#,
                    ),
                    tagged(0, br#"[{"Id":"a"},{"Id":"b"}]"#),
                    tagged(0, b"[]"),
                    tagged(0, br#"[{"Id":"../../images/prune?all=1&x="}]"#),
                    tagged(1, br#"{"message":"no such container"}"#),
                ]
            },
            quick: 18_000,
        },
        Target {
            name: "settings",
            run: settings,
            mend: mend::nothing,
            seeds: setting_seeds,
            quick: 9_000,
        },
        Target {
            name: "restart-command",
            run: |input| {
                let _ = CommandTemplate::parse(&String::from_utf8_lossy(input));
            },
            mend: mend::nothing,
            seeds: || {
                vec![b"systemctl restart 'shard server'@{node} \"{node_id}\" {address}".to_vec()]
            },
            quick: 18_000,
        },
        Target {
            name: "load-lines",
            run: load_lines,
            mend: mend::nothing,
            seeds: || {
                vec![
                    "\u{feff}new york\t3\tNew York\r\nzürich\t1\n\nplain\n"
                        .as_bytes()
                        .to_vec(),
                    b"two words\nthree more words\n".to_vec(),
                ]
            },
            quick: 18_000,
        },
        Target {
            name: "merge",
            run: merged,
            mend: mend::nothing,
            seeds: || vec![b"\x05\x00ab\x03\x01b\x02\x00abc\x02\x02ca\x09\x01bb\x02".to_vec()],
            quick: 18_000,
        },
    ]
}

/// Normalising what is normal changes nothing, and what is shown is a spelling of the same term.
fn terms(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(term) = Term::new(&text) {
        assert!(term.as_str().len() <= term::TERM_BYTES_MAX);
        assert_eq!(sure(Term::new(term.as_str())), term);
        assert_eq!(sure(Prefix::new(term.as_str())).as_str(), term.as_str());
    }
    if let Ok(prefix) = Prefix::new(&text) {
        assert_eq!(sure(Prefix::new(prefix.as_str())), prefix);
    }
    if let Ok(surface) = Surface::parse(&text) {
        assert_eq!(sure(Surface::from_string(text.to_string())), surface);
        assert_eq!(surface.term(), &sure(Term::new(&text)));
        if let Some(display) = surface.display() {
            assert!(display.len() <= term::DISPLAY_BYTES_MAX);
            assert_eq!(display_form(display), display);
            assert_eq!(sure(Surface::parse(display)), surface);
        }
    }
    if let Ok(name) = NamespaceName::new(&text) {
        assert_eq!(sure(NamespaceName::new(name.as_str())), name);
    }
}

fn term_seeds() -> Vec<Vec<u8>> {
    let texts = [
        "  New \t York ",
        "Straße İstanbul ǅ ﬁ",
        "o\u{308}l \u{1100}\u{1161}\u{11a8} \u{0344}",
        "\u{200d}👩\u{200d}🔬\u{fe0f} \u{0}\u{7f}\u{85}",
        "a\u{345}\u{301} \u{3a3}\u{3c2}",
        "shop-2.eu_west",
    ];
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Whatever an engine lists, what it is asked to restart is one container.
fn docker(input: &[u8]) {
    let Some((kind, body)) = input.split_first() else {
        return;
    };
    if *kind > 0 {
        let told = watchdog::fuzzing::refused(body).to_string();
        assert!(told.contains("500"));
        return;
    }
    let Ok(path) = watchdog::fuzzing::restart_path(body) else {
        return;
    };
    let Ok(uri) = Uri::try_from(path.as_str()) else {
        assert!(path.len() >= usize::from(u16::MAX), "it is not too long");
        return;
    };
    let places: Vec<&str> = uri.path().split('/').collect();
    let is_one = matches!(places.as_slice(), ["", "containers", _, "restart"]);
    assert!(is_one && uri.query() == Some("t=3"), "{path}");
}

/// A file is taken, or refused with at least one problem.
fn settings(input: &[u8]) {
    let Some((server, text)) = input.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(text);
    let problems = match server {
        0 => toml::from_str::<shard_server::Settings>(&text).map(|found| found.check().err()),
        1 => toml::from_str::<coordinator::Settings>(&text).map(|found| found.check().err()),
        _ => toml::from_str::<watchdog::Settings>(&text).map(|found| found.check().err()),
    };
    if let Ok(Some(problems)) = problems {
        assert!(!problems.0.is_empty());
        assert!(!problems.to_string().is_empty());
    }
}

fn setting_seeds() -> Vec<Vec<u8>> {
    let shard = br#"
grpc_addr = "127.0.0.1:0"
node_name = "shard-1"
coordinators = ["coordinator-1:50051", "[::1]:50051"]
snapshot_interval = "10m"
log_segment_bytes = 4096
queue_calls_max = 10
log_format = "json"
log_filter = "info,wal=debug"
"#;
    let coordinator = br#"
grpc_addr = "127.0.0.1:0"
advertise_addr = "localhost:50051"
data_dir = "data"
shards = 5
replicas = 3
"#;
    let watchdog = br#"
coordinators = ["127.0.0.1:50051"]
poll_interval = "1s"
probe_timeout = "200ms"
restart_command = "systemctl restart {node}"
"#;
    vec![
        tagged(0, shard),
        tagged(1, coordinator),
        tagged(2, watchdog),
    ]
}

/// What a line gives is a sound item, and the same when it is written as a line again.
fn load_lines(input: &[u8]) {
    let mut before = 0;
    for (number, item) in autocomplete::fuzzing::load_lines(input) {
        assert!(number > before, "lines are counted up");
        before = number;
        let Ok((text, count)) = item else {
            continue;
        };
        let term = sure(Surface::parse(&text));
        // Not the first, which may begin with a mark of the encoding.
        let line = format!("\n{}\t{count}", term.term());
        let again = autocomplete::fuzzing::load_lines(line.as_bytes());
        let expected = (term.term().to_string(), count);
        assert_eq!(again, [(2, Ok(expected))]);
    }
}

/// Shards' lists merged are what one shard would have answered.
fn merged(input: &[u8]) {
    let Some(([k, shards], rest)) = input.split_first_chunk::<2>() else {
        return;
    };
    let (k, shards) = (usize::from(*k), usize::from(*shards % 9) + 1);
    let mut counts = BTreeMap::new();
    for piece in rest.chunks(4) {
        let (letters, count) = piece.split_at(piece.len().min(3));
        let term: String = letters
            .iter()
            .map(|byte| char::from(b'a' + byte % 4))
            .collect();
        let count = count.first().copied().unwrap_or(1);
        counts.insert(term, u64::from(count) + 1);
    }
    let mut lists = vec![Vec::new(); shards];
    for (at, (term, count)) in counts.iter().enumerate() {
        let owner = at * shards / counts.len();
        lists[owner].push(suggestion(term, *count));
    }
    for list in &mut lists {
        sort(list);
        list.truncate(k);
    }
    let mut naive: Vec<Suggestion> = counts
        .iter()
        .map(|(term, count)| suggestion(term, *count))
        .collect();
    sort(&mut naive);
    naive.truncate(k);
    assert_eq!(merge(lists, k), naive);
}

fn suggestion(term: &str, count: u64) -> Suggestion {
    Suggestion {
        term: term.to_owned(),
        count,
        display: String::new(),
    }
}

fn sort(list: &mut [Suggestion]) {
    list.sort_by(|one, two| two.count.cmp(&one.count).then(one.term.cmp(&two.term)));
}
