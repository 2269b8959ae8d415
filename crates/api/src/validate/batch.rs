//! Batches of records.

use cluster::limits;
use term::NamespaceName;

use super::{Item, fields};
use crate::{ApiError, Reason, RequestId, v1};

/// A sound RecordBatch: 0 to [`limits::BATCH_ITEMS_MAX`] items, every one of them sound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordBatch {
    /// Where to.
    pub namespace: NamespaceName,
    /// What, in the caller's order; the same term may stand there more than once.
    pub items: Vec<Item>,
    /// The caller's own id, if it has one.
    pub request_id: Option<RequestId>,
}

impl TryFrom<v1::RecordBatchRequest> for RecordBatch {
    type Error = ApiError;

    /// # Errors
    /// Refuses the whole when there are too many items or one of them is not sound, which the error names `items[i]`.
    fn try_from(wire: v1::RecordBatchRequest) -> Result<Self, ApiError> {
        let parse = || {
            let namespace = fields::namespace(&wire.namespace)?;
            let request_id = fields::request_id(wire.request_id.as_ref())?;
            if wire.items.len() > limits::BATCH_ITEMS_MAX {
                return Err(ApiError::field(
                    Reason::BatchTooLarge,
                    "items",
                    format_args!(
                        "{} items, more than the limit of {}: items[{}] is the first too many",
                        wire.items.len(),
                        limits::BATCH_ITEMS_MAX,
                        limits::BATCH_ITEMS_MAX,
                    ),
                ));
            }
            let items = wire.items.into_iter().enumerate().map(|(place, item)| {
                Item::parse(item.term, item.count)
                    .map_err(|error| error.inside(&format!("items[{place}]")))
            });
            Ok(Self {
                namespace,
                items: items.collect::<Result<_, _>>()?,
                request_id,
            })
        };
        parse().map_err(ApiError::for_write)
    }
}
