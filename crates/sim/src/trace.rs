//! What happened, in words and as one number.

use std::cell::Cell;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

thread_local! {
    static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Says what time it is in the world of this thread, for lines of logs.
pub(crate) fn set_now(now: Duration) {
    NOW.set(now);
}

/// The time in the world of this thread.
pub(crate) fn now() -> Duration {
    NOW.get()
}

/// What happened, in order. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Trace(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    hash: blake3::Hasher,
    prints: bool,
    lines: Vec<String>,
}

/// Lines kept for the report of a failure: the newest.
const LINES_MAX: usize = 4_000;

impl Trace {
    /// With `prints` every line goes to standard error, too.
    pub(crate) fn new(prints: bool) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            hash: blake3::Hasher::new(),
            prints,
            lines: Vec::new(),
        })))
    }

    pub(crate) fn note(&self, now: Duration, text: &str) {
        let mut inner = self.0.lock();
        let line = format!("{:>9.3} {text}", now.as_secs_f64());
        inner.hash.update(line.as_bytes());
        inner.hash.update(b"\n");
        if inner.prints {
            use std::io::Write as _;
            // A closed standard error is no reason to end.
            drop(writeln!(std::io::stderr(), "{line}"));
        }
        if inner.lines.len() >= LINES_MAX {
            inner.lines.drain(..LINES_MAX / 2);
        }
        inner.lines.push(line);
    }

    /// Depends on every line and its time.
    pub(crate) fn hash(&self) -> String {
        let hash = self.0.lock().hash.finalize();
        let mut text = String::new();
        for byte in hash.as_bytes().iter().take(16) {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        text
    }

    /// The newest lines.
    pub(crate) fn tail(&self, count: usize) -> Vec<String> {
        let inner = self.0.lock();
        let from = inner.lines.len().saturating_sub(count);
        inner.lines.get(from..).unwrap_or_default().to_vec()
    }
}
