//! The commands that ask a cluster one thing and print the answer.

mod count;
mod delete;
mod export;
mod record;
pub(crate) mod top;

pub(crate) use count::{CountArgs, count};
pub(crate) use delete::{DeleteArgs, delete};
pub(crate) use export::{ExportArgs, export};
pub(crate) use record::{RecordArgs, record};
pub(crate) use top::{TopArgs, shown, top};
