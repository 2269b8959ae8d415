//! Writes from the wire: checked, not changed. Whether a term is normalised is the sender's business; coordinators and this server's
//! own public interface send nothing else.

use api::shard::v1 as wire;
use api::shard::v1::write::Operation as WireOperation;
use api::{ApiError, Reason};
use cluster::{Generation, NamespaceId, limits};
use repeat_table::ClientId;

use super::route::Routed;
use crate::node::Node;
use crate::state::{Identity, Item, Operation, Write};

/// Checks the writes of one request.
pub(super) fn decode(
    node: &Node,
    routed: &Routed,
    writes: Vec<wire::Write>,
) -> Result<Vec<Write>, ApiError> {
    let writes = checked(writes)?;
    writes
        .iter()
        .try_for_each(|write| check_owned(node, routed, write))?;
    Ok(writes)
}

/// Checks what can be checked without knowing who owns what. A record of nothing counts as an item: it takes its place, too.
pub(crate) fn checked(writes: Vec<wire::Write>) -> Result<Vec<Write>, ApiError> {
    let mut items = 0;
    let mut decoded = Vec::with_capacity(writes.len().min(limits::BATCH_ITEMS_MAX));
    for (place, write) in writes.into_iter().enumerate() {
        let write = one(write).map_err(|error| error.inside(&format!("writes[{place}]")))?;
        items += write.items().max(1);
        if items > limits::BATCH_ITEMS_MAX {
            let problem = format!("more than the limit of {} items", limits::BATCH_ITEMS_MAX);
            return Err(ApiError::field(Reason::BatchTooLarge, "writes", problem));
        }
        decoded.push(write);
    }
    Ok(decoded)
}

fn check_owned(node: &Node, routed: &Routed, write: &Write) -> Result<(), ApiError> {
    match &write.operation {
        Operation::Record(items) => items
            .iter()
            .try_for_each(|item| routed.check_term(node, write.namespace, &item.term)),
        Operation::Delete { term } => routed.check_term(node, write.namespace, term),
    }
}

fn one(write: wire::Write) -> Result<Write, ApiError> {
    let missing = |field| ApiError::field(Reason::BadArgument, field, "must be set");
    if write.namespace_id == 0 {
        return Err(missing("namespace_id"));
    }
    if write.generation == 0 {
        return Err(missing("generation"));
    }
    let identity = write
        .request_id
        .as_ref()
        .map(|id| api::RequestId::try_from(id).map(|id| identity(&id, write.fingerprint)));
    let operation = match write.operation {
        Some(WireOperation::Record(record)) => Operation::Record(record_items(record)?),
        Some(WireOperation::Delete(delete)) => {
            check_term(&delete.term).map_err(|error| error.inside("delete"))?;
            Operation::Delete { term: delete.term }
        }
        None => return Err(missing("operation")),
    };
    Ok(Write {
        namespace: NamespaceId(write.namespace_id),
        generation: Generation(write.generation),
        identity: identity.transpose()?,
        operation,
    })
}

/// A request id as the repeat table knows it.
pub(super) fn identity(id: &api::RequestId, fingerprint: u64) -> Identity {
    Identity {
        id: repeat_table::RequestId {
            client: ClientId(id.client),
            sequence: id.sequence,
            issued_at_ms: id.issued_at_ms,
            acked_below: id.acked_below,
        },
        fingerprint,
    }
}

fn record_items(record: wire::RecordItems) -> Result<Vec<Item>, ApiError> {
    let mut next = 0;
    let mut items = Vec::with_capacity(record.items.len().min(limits::BATCH_ITEMS_MAX));
    for (place, item) in record.items.into_iter().enumerate() {
        let item = record_item(item, next)
            .map_err(|error| error.inside(&format!("record.items[{place}]")))?;
        next = item.number + 1;
        items.push(item);
    }
    Ok(items)
}

fn record_item(item: wire::NumberedItem, lowest: u32) -> Result<Item, ApiError> {
    if !(lowest..repeat_table::ITEMS_MAX).contains(&item.number) {
        let problem = format!(
            "{} does not follow the item before, or is not below {}",
            item.number,
            repeat_table::ITEMS_MAX
        );
        return Err(ApiError::field(Reason::BadArgument, "number", problem));
    }
    check_term(&item.term)?;
    if !(1..=limits::RECORD_COUNT_MAX).contains(&item.count) {
        let problem = format!("{} is not 1 to {}", item.count, limits::RECORD_COUNT_MAX);
        return Err(ApiError::field(Reason::BadCount, "count", problem));
    }
    if item.display.len() > term::DISPLAY_BYTES_MAX {
        let problem = format!(
            "{} bytes, more than the limit of {}",
            item.display.len(),
            term::DISPLAY_BYTES_MAX
        );
        return Err(ApiError::field(Reason::BadTerm, "display", problem));
    }
    Ok(Item {
        number: item.number,
        term: item.term,
        count: item.count,
        display: Some(item.display).filter(|display| !display.is_empty()),
    })
}

/// Checks the length of a normalised term.
pub(crate) fn check_term(term: &str) -> Result<(), ApiError> {
    if (1..=limits::TERM_BYTES_MAX).contains(&term.len()) {
        return Ok(());
    }
    let problem = format!(
        "{} bytes, allowed are 1 to {}",
        term.len(),
        limits::TERM_BYTES_MAX
    );
    Err(ApiError::field(Reason::BadTerm, "term", problem))
}

/// Checks the length of a normalised prefix.
pub(super) fn check_prefix(prefix: &str) -> Result<(), ApiError> {
    if prefix.len() <= limits::PREFIX_BYTES_MAX {
        return Ok(());
    }
    let problem = format!(
        "{} bytes, allowed are {}",
        prefix.len(),
        limits::PREFIX_BYTES_MAX
    );
    Err(ApiError::field(Reason::BadPrefix, "prefix", problem))
}

/// Checks the length of the term that a list goes on behind, empty for its start.
pub(super) fn check_after(after: &str) -> Result<(), ApiError> {
    if after.len() <= limits::TERM_BYTES_MAX {
        return Ok(());
    }
    let problem = format!(
        "{} bytes, allowed are {}",
        after.len(),
        limits::TERM_BYTES_MAX
    );
    Err(ApiError::field(Reason::BadTerm, "after", problem))
}
