use cluster::limits;
use term::{NamespaceName, RAW_BYTES_MAX, TERM_BYTES_MAX};
use tonic::Code;

use super::*;
use crate::{ApiError, Consistency, Outcome, Reason, v1};

fn record(term: &str, count: u64, namespace: &str) -> Result<Record, ApiError> {
    Record::try_from(v1::RecordRequest {
        term: term.into(),
        count,
        namespace: namespace.into(),
        request_id: None,
    })
}

fn refused<T: std::fmt::Debug>(result: Result<T, ApiError>, reason: Reason) -> ApiError {
    let error = result.unwrap_err();
    assert_eq!(error.reason(), reason, "{error}");
    error
}

#[test]
fn a_record_is_normalised_and_keeps_its_display_form() {
    let sound = record("  New  York ", 0, "").unwrap();
    assert_eq!(sound.namespace, NamespaceName::default());
    assert_eq!(sound.item.term.as_str(), "new york");
    assert_eq!(sound.item.display.as_deref(), Some("New York"));
    assert_eq!(sound.item.count, 1);
    assert_eq!(sound.request_id, None);
    assert_eq!(record("plain", 1, "").unwrap().item.display, None);
}

#[test]
fn bad_terms_are_refused_and_nothing_is_applied() {
    let long = "x".repeat(TERM_BYTES_MAX + 1);
    let raw = " ".repeat(RAW_BYTES_MAX + 1);
    for (term, text) in [
        ("", "term: must not be empty"),
        (" \t\u{0} ", "term: must not be empty"),
        (
            long.as_str(),
            "term: has 257 bytes after normalising, more than the limit of 256",
        ),
        (raw.as_str(), "more than the limit of 4096"),
    ] {
        let error = refused(record(term, 1, ""), Reason::BadTerm);
        assert_eq!(error.code(), Code::InvalidArgument);
        assert_eq!(error.outcome(), Some(Outcome::NotApplied));
        assert_eq!(error.field_name(), Some("term"));
        assert!(error.message().contains(text), "{error}");
    }
    assert!(record(&"x".repeat(TERM_BYTES_MAX), 1, "").is_ok());
}

#[test]
fn counts_have_a_limit_that_is_named() {
    for good in [0, 1, limits::RECORD_COUNT_MAX] {
        assert_eq!(record("a", good, "").unwrap().item.count, good.max(1));
    }
    for bad in [limits::RECORD_COUNT_MAX + 1, u64::MAX] {
        let error = refused(record("a", bad, ""), Reason::BadCount);
        assert!(error.message().ends_with("1000000000000"), "{error}");
    }
}

#[test]
fn bad_namespaces_are_refused_everywhere() {
    let bad = || "Bad Name".to_owned();
    let errors = [
        refused(record("a", 1, &bad()), Reason::BadNamespace),
        refused(
            RecordBatch::try_from(v1::RecordBatchRequest {
                namespace: bad(),
                ..Default::default()
            }),
            Reason::BadNamespace,
        ),
        refused(
            Delete::try_from(v1::DeleteRequest {
                term: "a".into(),
                namespace: bad(),
                ..Default::default()
            }),
            Reason::BadNamespace,
        ),
        refused(
            ClearNamespace::try_from(v1::ClearNamespaceRequest {
                namespace: bad(),
                ..Default::default()
            }),
            Reason::BadNamespace,
        ),
        refused(
            GetTopK::try_from(v1::GetTopKRequest {
                namespace: bad(),
                ..Default::default()
            }),
            Reason::BadNamespace,
        ),
        refused(
            GetCount::try_from(v1::GetCountRequest {
                term: "a".into(),
                namespace: bad(),
                ..Default::default()
            }),
            Reason::BadNamespace,
        ),
        refused(
            ListTerms::try_from(v1::ListTermsRequest {
                namespace: bad(),
                ..Default::default()
            }),
            Reason::BadNamespace,
        ),
    ];
    for error in errors {
        assert_eq!(error.field_name(), Some("namespace"));
    }
}

fn batch(items: Vec<v1::RecordItem>) -> Result<RecordBatch, ApiError> {
    RecordBatch::try_from(v1::RecordBatchRequest {
        items,
        ..Default::default()
    })
}

fn item(term: &str, count: u64) -> v1::RecordItem {
    v1::RecordItem {
        term: term.into(),
        count,
    }
}

#[test]
fn a_batch_is_refused_as_a_whole_and_names_the_item() {
    let error = refused(
        batch(vec![item("a", 1), item("b", 1), item(" ", 1)]),
        Reason::BadTerm,
    );
    assert_eq!(error.field_name(), Some("items[2].term"));
    assert!(error.message().starts_with("items[2].term: "), "{error}");
    assert_eq!(error.outcome(), Some(Outcome::NotApplied));
    let error = refused(batch(vec![item("a", u64::MAX)]), Reason::BadCount);
    assert_eq!(error.field_name(), Some("items[0].count"));
}

#[test]
fn a_batch_has_at_most_a_thousand_items_in_their_order() {
    let full: Vec<_> = (0..limits::BATCH_ITEMS_MAX)
        .map(|i| item(&format!("t{i}"), 0))
        .collect();
    let sound = batch(full.clone()).unwrap();
    assert_eq!(sound.items.len(), limits::BATCH_ITEMS_MAX);
    assert_eq!(sound.items[999].term.as_str(), "t999");
    let error = refused(
        batch([full, vec![item("x", 1)]].concat()),
        Reason::BatchTooLarge,
    );
    assert!(error.message().contains("limit of 1000"), "{error}");
    assert!(error.message().contains("items[1000]"), "{error}");
    assert_eq!(batch(vec![]).unwrap().items, []);
}

#[test]
fn request_ids_are_checked_in_every_write() {
    let bad = Some(v1::RequestId::default());
    let errors = [
        refused(
            Record::try_from(v1::RecordRequest {
                term: "a".into(),
                request_id: bad.clone(),
                ..Default::default()
            }),
            Reason::BadRequestId,
        ),
        refused(
            RecordBatch::try_from(v1::RecordBatchRequest {
                request_id: bad.clone(),
                ..Default::default()
            }),
            Reason::BadRequestId,
        ),
        refused(
            Delete::try_from(v1::DeleteRequest {
                term: "a".into(),
                request_id: bad.clone(),
                ..Default::default()
            }),
            Reason::BadRequestId,
        ),
        refused(
            ClearNamespace::try_from(v1::ClearNamespaceRequest {
                request_id: bad,
                ..Default::default()
            }),
            Reason::BadRequestId,
        ),
    ];
    for error in errors {
        assert_eq!(error.outcome(), Some(Outcome::NotApplied));
    }
}

#[test]
fn k_is_defaulted_and_cut() {
    let k_served = |k| {
        GetTopK::try_from(v1::GetTopKRequest {
            k,
            ..Default::default()
        })
        .unwrap()
        .k
    };
    let served = [0, 1, 10, 999, 1000, 1001, u32::MAX].map(k_served);
    assert_eq!(served, [10, 1, 10, 999, 1000, 1000, 1000]);
}

#[test]
fn a_prefix_keeps_its_space_and_has_a_limit() {
    let ask = |prefix: &str| {
        GetTopK::try_from(v1::GetTopKRequest {
            prefix: prefix.into(),
            consistency: v1::Consistency::Stale.into(),
            ..Default::default()
        })
    };
    let sound = ask(" New  ").unwrap();
    assert_eq!(sound.prefix.as_str(), "new ");
    assert_eq!(sound.consistency, Consistency::Stale);
    assert!(sound.token.is_empty() && !sound.require_complete);
    let error = refused(ask(&"p".repeat(257)), Reason::BadPrefix);
    assert_eq!(error.outcome(), None, "a read has no outcome");
    assert!(error.message().contains("limit of 256"), "{error}");
}

#[test]
fn an_unknown_level_of_consistency_is_refused() {
    let top = GetTopK::try_from(v1::GetTopKRequest {
        consistency: 9,
        ..Default::default()
    });
    refused(top, Reason::BadArgument);
    let count = GetCount::try_from(v1::GetCountRequest {
        term: "a".into(),
        consistency: -1,
        ..Default::default()
    });
    refused(count, Reason::BadArgument);
}

#[test]
fn pages_have_a_size_and_a_token_that_comes_back() {
    let ask = |page_size, page_token: &str| {
        ListTerms::try_from(v1::ListTermsRequest {
            page_size,
            page_token: page_token.into(),
            ..Default::default()
        })
    };
    assert_eq!(ask(0, "").unwrap().page_size, limits::PAGE_TERMS_DEFAULT);
    assert_eq!(ask(10_000, "").unwrap().page_size, 10_000);
    let refusal = refused(ask(10_001, ""), Reason::BadArgument);
    assert_eq!(refusal.field_name(), Some("page_size"));
    assert!(refusal.message().ends_with("10000"), "{refusal}");

    let token = PageToken {
        after: term::Term::new("straße 1").unwrap(),
    };
    assert_eq!(ask(0, &token.encode()).unwrap().page_token, Some(token));
    assert_eq!(ask(0, "").unwrap().page_token, None);
    for forged in ["1:", "2:a", "a", "1:UPPER", "1: a"] {
        refused(ask(0, forged), Reason::BadToken);
    }
}

#[test]
fn what_should_be_normalised_is_checked_not_changed() {
    assert_eq!(
        normalised_term("writes[0].delete.term", "new york")
            .unwrap()
            .as_str(),
        "new york"
    );
    for raw in ["New York", "a ", "", "ﬁ"] {
        let error = refused(normalised_term("term", raw), Reason::BadTerm);
        assert_eq!(error.field_name(), Some("term"));
    }
    assert_eq!(
        normalised_prefix("prefix", "new ").unwrap().as_str(),
        "new "
    );
    refused(normalised_prefix("prefix", "new  "), Reason::BadPrefix);
}
