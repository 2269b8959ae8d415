//! Panics of simulated programs: executors swallow them, a seed must not.

use std::cell::{Cell, RefCell};
use std::sync::Once;

thread_local! {
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    static SEEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

static HOOK: Once = Once::new();

/// Notes every panic of this thread from now on, instead of printing it.
pub(crate) fn watch() {
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if WATCHED.get() {
                SEEN.with_borrow_mut(|seen| seen.push(format!("panic: {panic}")));
            } else {
                usual(panic);
            }
        }));
    });
    WATCHED.set(true);
}

/// The panics of this thread so far.
pub(crate) fn taken() -> Vec<String> {
    SEEN.take()
}
