//! Deletions and clears, some of them sent twice.

use api::Outcome;
use api::v1::{ClearNamespaceRequest, DeleteRequest};

use super::{CLEARED, DELETED_TERMS, Worker};
use crate::mutant::Mutant;
use crate::oracle::{Key, Scope, Wiped};
use crate::trace;

impl Worker {
    /// A term that may be deleted, mostly one that is written to.
    fn deletable(&mut self) -> Key {
        let namespace = if self.dice.percent(30) { CLEARED } else { "" };
        let name = self.name(DELETED_TERMS);
        if self.dice.percent(70) {
            return self.open(namespace, &name);
        }
        let term = format!("{name}-0");
        Key { namespace, term }
    }

    /// Deletes a term. The second time that it is sent others have written to the term again, and nothing must happen.
    pub(super) async fn delete(&mut self) {
        let key = self.deletable();
        let mut request = DeleteRequest {
            term: key.term.clone(),
            namespace: key.namespace.to_owned(),
            request_id: Some(self.own_request_id()),
        };
        let scope = Scope::Term(key.clone());
        let wipe = self.judge.lock().wipe(scope, trace::now());
        let (mut is_refused, mut is_done) = (true, false);
        for _ in 0..self.sendings() {
            let answer = self.client.delete(request.clone()).await;
            self.note_error(answer.as_ref().err());
            match answer {
                Ok(done) => {
                    (is_refused, is_done) = (false, true);
                    let existed = done.existed;
                    let ended = Wiped::Deleted { existed };
                    self.judge.lock().wiped(wipe, ended, trace::now());
                }
                Err(error) => is_refused &= self.outcome(&error) == Outcome::NotApplied,
            }
            self.wait_for_others().await;
            if self.mutant == Some(Mutant::FreshIdOnRetry) {
                request.request_id = Some(self.own_request_id());
            }
        }
        if is_refused {
            let mut judge = self.judge.lock();
            judge.wiped(wipe, Wiped::Refused, trace::now());
        }
        if is_done {
            self.shown.delete(&key);
        }
    }

    /// Clears the namespace that is there for it.
    pub(super) async fn clear(&mut self) {
        let request = ClearNamespaceRequest {
            namespace: CLEARED.to_owned(),
            request_id: Some(self.own_request_id()),
        };
        let scope = Scope::Namespace(CLEARED);
        let wipe = self.judge.lock().wipe(scope, trace::now());
        let mut is_refused = true;
        let mut generations = Vec::new();
        for _ in 0..self.sendings() {
            let answer = self.client.clear(request.clone()).await;
            self.note_error(answer.as_ref().err());
            match answer {
                Ok(done) => {
                    is_refused = false;
                    generations.push(done.generation);
                    let mut judge = self.judge.lock();
                    judge.wiped(wipe, Wiped::Cleared, trace::now());
                }
                Err(error) => is_refused &= self.outcome(&error) == Outcome::NotApplied,
            }
            self.wait_for_others().await;
        }
        let mut judge = self.judge.lock();
        if is_refused {
            judge.wiped(wipe, Wiped::Refused, trace::now());
        }
        // A repeat is answered with the generation at its time.
        if !generations.is_sorted() {
            let text = format!("one clear was answered by the generations {generations:?}");
            judge.violate(trace::now(), &text);
        }
    }

    fn sendings(&mut self) -> usize {
        if self.dice.percent(40) { 2 } else { 1 }
    }

    async fn wait_for_others(&mut self) {
        let pause = self.dice.millis(0..600);
        self.runtime.sleep(pause).await;
    }
}
