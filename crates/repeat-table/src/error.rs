//! What can go wrong.

/// Why a request was not remembered. The table is as it was. All of these are mistakes of the caller: `check` says no before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RememberError {
    /// An item's number is not below [`crate::ITEMS_MAX`].
    #[error("item {item} is not below {limit}")]
    ItemOutOfRange {
        /// The item's number in the whole batch.
        item: u32,
        /// The first number that is not allowed.
        limit: u32,
    },
    /// The id is known with another fingerprint.
    #[error("the id is known with another payload")]
    OtherPayload,
    /// The id is expired.
    #[error("the id is expired")]
    Expired,
}

/// Why bytes are not a table.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The source failed or ended early.
    #[error("reading the repeat table")]
    Read(#[from] std::io::Error),
    /// It does not start as a table does.
    #[error("not a repeat table: it starts with {found:02x?}")]
    BadMagic {
        /// The first four bytes.
        found: [u8; 4],
    },
    /// The version is not known here.
    #[error("repeat table of version {found}, this program reads {known}")]
    UnknownVersion {
        /// The version found.
        found: u16,
        /// The version that is read.
        known: u16,
    },
    /// A value that no table has.
    #[error("damaged repeat table: {what} of client number {client}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
        /// Which client, counted from 0; the number of clients if it is not about one.
        client: u64,
    },
}
