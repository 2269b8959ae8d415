//! Reads of single counts, of completions and of whole namespaces.

use api::v1::{Completeness, Consistency, GetCountRequest, GetTopKRequest, ListTermsRequest};

use super::{Diet, LETTERS, Worker};
use crate::mutant::Mutant;
use crate::oracle::{Asked, Key, Top};
use crate::trace;

/// More than there are terms.
const ALL: u32 = 1_000;
/// How many completions are asked for: all, or about as many as a node of the trie keeps ready, so that there is a last one which
/// others stand behind.
const SIZES: [u32; 10] = [ALL, ALL, ALL, ALL, ALL, 10, 10, 11, 9, 1];

impl Worker {
    fn level(&mut self) -> Consistency {
        if self.diet == Diet::Reads && self.dice.percent(80) {
            return Consistency::Leader;
        }
        let levels = [
            Consistency::Leader,
            Consistency::Linearizable,
            Consistency::Stale,
        ];
        self.dice.pick(&levels).unwrap_or(Consistency::Leader)
    }

    fn asked(&self, level: Consistency) -> Asked {
        let server = self.server;
        Asked { level, server }
    }

    pub(super) async fn count(&mut self) {
        let ((namespace, name), level) = (self.place(), self.level());
        let term = format!("{name}-0");
        let key = if self.dice.percent(50) {
            self.open(namespace, &name)
        } else {
            Key { namespace, term }
        };
        let (began, asked) = (trace::now(), self.asked(level));
        let mut request = GetCountRequest {
            term: key.term.clone(),
            namespace: namespace.to_owned(),
            consistency: level.into(),
            ..GetCountRequest::default()
        };
        if self.mutant == Some(Mutant::StaleForStrict) {
            request.set_consistency(Consistency::Stale);
            request.token = Some(api::v1::SessionToken::default());
        }
        let answer = self.client.count(request).await;
        self.note_error(answer.as_ref().err());
        let mut judge = self.judge.lock();
        match answer {
            Ok(found) => {
                let now = trace::now();
                judge.read(&key, found.count, asked, began, now);
                judge.carried(&key, found.count, &self.shown, now);
            }
            Err(_) => judge.counts.failed_reads += 1,
        }
    }

    /// Reads completions, mostly twice: what one replica has just shown, any other must show to whoever brings the token.
    pub(super) async fn top(&mut self) {
        let level = self.level();
        let namespace = self.namespace();
        let letter = self.dice.pick(&LETTERS).unwrap_or('a');
        let prefix = if self.dice.percent(30) {
            String::new()
        } else {
            letter.to_string()
        };
        self.completions(namespace, &prefix, level).await;
        // Whoever reads from one server alone would hear of the others what that one has.
        if self.diet != Diet::Reads && self.dice.percent(60) {
            let level = Consistency::Stale;
            self.completions(namespace, &prefix, level).await;
        }
    }

    async fn completions(&mut self, namespace: &'static str, prefix: &str, level: Consistency) {
        let (began, asked) = (trace::now(), self.asked(level));
        let k = self.sizes.pick(&SIZES).unwrap_or(ALL);
        let request = GetTopKRequest {
            prefix: prefix.to_owned(),
            namespace: namespace.to_owned(),
            k,
            consistency: level.into(),
            ..GetTopKRequest::default()
        };
        let answer = self.client.top_k(request).await;
        self.note_error(answer.as_ref().err());
        let mut judge = self.judge.lock();
        let Ok(found) = answer else {
            judge.counts.failed_reads += 1;
            return;
        };
        let top = Top {
            namespace,
            prefix,
            k: k as usize,
            asked,
            began,
            now: trace::now(),
        };
        let is_whole = is_whole(found.completeness.as_ref());
        let found = found.suggestions.into_iter();
        let found: Vec<(String, u64)> = found.map(|found| (found.term, found.count)).collect();
        judge.completed(&top, &found, is_whole, &mut self.shown);
    }

    /// All terms of a namespace, page by page.
    pub(super) async fn list(&mut self) {
        let namespace = self.namespace();
        let began = trace::now();
        let mut pages = self.client.list_terms(ListTermsRequest {
            namespace: namespace.to_owned(),
            page_size: 20,
            ..ListTermsRequest::default()
        });
        let mut terms = Vec::new();
        loop {
            let page = pages.next().await;
            self.note_error(page.as_ref().err());
            let mut judge = self.judge.lock();
            let now = trace::now();
            match page {
                Ok(Some(page)) => {
                    for found in page {
                        let term = found.term;
                        terms.push(term.clone());
                        let level = Consistency::Leader;
                        judge.read(&Key { namespace, term }, found.count, level, began, now);
                    }
                }
                Ok(None) => {
                    if !terms.is_sorted_by(|one, other| one < other) {
                        judge.violate(now, "a listing is not in order");
                    }
                    let level = Consistency::Leader;
                    return judge.absent((namespace, ""), &terms, level, began, now);
                }
                Err(_) => {
                    judge.counts.failed_reads += 1;
                    return;
                }
            }
        }
    }
}

fn is_whole(completeness: Option<&Completeness>) -> bool {
    completeness.is_some_and(|all| all.shards_failed == 0 && all.missing.is_empty())
}
