//! What a public request means, once it is known to be sound.
//!
//! Coordinators and shard servers both turn public requests into these types, by `try_from`, before anything else happens;
//! a request that passes breaks no limit of [`cluster::limits`]. Text is normalised here and nowhere behind. Nothing is
//! trimmed or clamped, `k` apart. The error names the field and the limit, and for a write says that nothing was
//! applied.

mod batch;
mod fields;
mod page;
mod read;
mod write;

pub use batch::RecordBatch;
pub use fields::{normalised_prefix, normalised_term};
pub use page::{ListTerms, PageToken};
pub use read::{GetCount, GetTopK};
pub use write::{ClearNamespace, Delete, Item, Record};

#[cfg(test)]
mod tests;
