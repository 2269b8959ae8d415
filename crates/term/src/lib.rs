//! Normalisation of terms, prefixes and namespace names.
//!
//! This is the one place that decides when two pieces of text are the same term. The edges of the system (client,
//! coordinator, shard server) call it on what they are given; the replicated state only ever sees its results, so that a
//! change of Unicode data cannot make replicas differ.
//!
//! # The rule
//!
//! 1. NFKC, full Unicode case fold, NFKC again;
//! 2. runs of white space and of control characters become one space;
//! 3. spaces at both ends are removed. A [`Prefix`] keeps one space at its end, which is significant: `"new "` does
//!    not match `newark`. A prefix of nothing but spaces is empty.
//!
//! White space is the Unicode property `White_Space`, control characters are the general category `Cc`. Format characters
//! (`Cf`) stay, among them the joiners that hold an emoji together and those that scripts of India and Iran need.
//!
//! # What always holds
//!
//! - *Idempotent*: a key is its own key. One pass is enough; the tests try every scalar value, alone and beside
//!   the marks that compose.
//! - *Found by its own text*: for text that does not end in white space, the prefix made of it equals the term made of it.
//! - *Closed under cutting*: every start of a key that ends between two characters is a prefix as it stands, so whatever
//!   part of a key is typed is found.
//! - The key of a term's display form is the term.
//!
//! # Versions
//!
//! A namespace records [`NORMALISER_VERSION`] and [`UNICODE_VERSION`] when it is made. Both Unicode tables in use (normal forms
//! and case fold) come from one release of the data; white space and control characters are listed here and belong to the
//! normaliser's version. Characters that Unicode assigns later may change their key with newer data, nothing else may: that is
//! promised by the standard's stability policy. A change of the rule raises the version.
//!
//! # On failure
//!
//! Nothing is trimmed to fit. Text that breaks a limit is refused with an error that names the limit; the caller puts
//! the name of the field in front.

#![forbid(unsafe_code)]

mod error;
mod namespace;
mod normalise;
mod prefix;
mod surface;
mod value;

pub use error::{NamespaceError, TermError};
pub use namespace::{DEFAULT_NAMESPACE, NAMESPACE_BYTES_MAX, NamespaceName};
pub use prefix::Prefix;
pub use surface::{Surface, display_form};
pub use value::Term;

/// Most bytes of text that is looked at, before normalising. Longer input is refused unread.
pub const RAW_BYTES_MAX: usize = 4096;

/// Most bytes in the key of a term.
pub const TERM_BYTES_MAX: usize = 256;

/// Most bytes in a prefix, its significant space included.
pub const PREFIX_BYTES_MAX: usize = 256;

/// Most bytes in a display form. Four times a key: no character of a display form is longer than four bytes, and each
/// leaves at least one byte in the key.
pub const DISPLAY_BYTES_MAX: usize = 4 * TERM_BYTES_MAX;

/// Version of the rule in this crate; stored with each namespace.
pub const NORMALISER_VERSION: u32 = 1;

/// Release of the Unicode data in use; stored with each namespace.
pub const UNICODE_VERSION: &str = "18.0.0";

const _: () = assert!(
    TERM_BYTES_MAX <= PREFIX_BYTES_MAX,
    "a whole term can be typed"
);
const _: () = assert!(
    DISPLAY_BYTES_MAX <= RAW_BYTES_MAX,
    "a display form can be sent back"
);
