//! The reading side: a blocking thread from source to batches.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::args::{Format, OnError};
use super::batch::{Batch, Batcher};
use super::lines::Lines;
use super::source::{Meter, Opened};

/// What the reader found.
#[derive(Debug)]
pub(super) enum Found {
    Batch(Batch),
    Bad { line: u64, problem: String },
}

/// Reads to the end, to the first bad line where that stops the load, or until nobody listens.
pub(super) fn read(
    opened: Opened,
    format: Format,
    on_error: OnError,
    found: &mpsc::Sender<Found>,
) -> Result<Arc<Meter>, anyhow::Error> {
    let Opened { text, meter } = opened;
    let mut lines = Lines::new(text, format);
    let mut batcher = Batcher::default();
    while let Some(line) = lines.next()? {
        let next = match line.item {
            Ok(item) => batcher.push(line.number, item).map(Found::Batch),
            Err(problem) if on_error == OnError::Stop => {
                // Files were checked before; this is standard input.
                let rest = batcher.take().map(Found::Batch);
                let _ = rest.map(|rest| found.blocking_send(rest));
                anyhow::bail!(
                    "line {}: {problem} (the lines before it were loaded)",
                    line.number
                );
            }
            Err(problem) => Some(Found::Bad {
                line: line.number,
                problem: problem.to_string(),
            }),
        };
        let is_heard = next.is_none_or(|next| found.blocking_send(next).is_ok());
        if !is_heard {
            return Ok(meter);
        }
    }
    if let Some(rest) = batcher.take() {
        // The receiver is gone only when the load has stopped already.
        let _ = found.blocking_send(Found::Batch(rest));
    }
    Ok(meter)
}
