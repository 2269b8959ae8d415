//! Identities and counters, each a type of its own so that they cannot be mixed up.

use std::fmt;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(formatter)
            }
        }

        impl From<$inner> for $name {
            fn from(number: $inner) -> Self {
                Self(number)
            }
        }
    };
}

number! {
    /// A shard: the owner of ranges of terms. Numbered from 1 in the order of the template's ranges.
    ShardId(u64)
}
number! {
    /// A node: one data directory of one shard server. Issued once by the metadata group and never reused; 0 is nobody.
    NodeId(u64)
}
number! {
    /// A namespace. Numbered from 1 in the order of creation; never reused.
    NamespaceId(u32)
}
number! {
    /// How often a namespace was cleared or swapped. Starts at 1 and only rises.
    Generation(u64)
}
number! {
    /// How often a shard was begun anew after its data was given up. Starts at 1 and only rises.
    Incarnation(u64)
}
number! {
    /// The version of the shard map. Starts at 1 and only rises; 0 means "no map yet".
    Epoch(u64)
}

impl Generation {
    /// The generation of a new namespace.
    pub const FIRST: Self = Self(1);
}

impl Incarnation {
    /// The incarnation of a new shard.
    pub const FIRST: Self = Self(1);
}

/// Sixteen random bytes drawn when a cluster is first started, so that the nodes of two clusters never mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ClusterId(pub [u8; 16]);

impl fmt::Display for ClusterId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}
