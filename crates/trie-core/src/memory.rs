//! What a dictionary weighs.

use std::ops::AddAssign;

/// Bytes a dictionary holds, counted and not measured: the same calls give the same numbers on
/// every machine. The allocator's own rounding is not in them; see the `memory` bench for what the
/// process grows by.
///
/// `text_bytes` and `display_bytes` follow from the content alone, whatever the history: two
/// replicas with the same terms agree on them, so a quota that must be decided alike everywhere may use
/// them. The others depend on how the dictionary was built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryUsage {
    /// Lengths of all terms added up, as if nothing were shared.
    pub text_bytes: u64,
    /// Lengths of all display forms that are kept, added up.
    pub display_bytes: u64,
    /// Leaf buckets: suffixes, counts, coded display forms and room to grow.
    pub bucket_bytes: u64,
    /// Inner nodes: labels, child tables, the counts of terms that end there.
    pub node_bytes: u64,
    /// The lists that inner nodes keep ready.
    pub cached_list_bytes: u64,
}

impl AddAssign for MemoryUsage {
    fn add_assign(&mut self, other: Self) {
        self.text_bytes += other.text_bytes;
        self.display_bytes += other.display_bytes;
        self.bucket_bytes += other.bucket_bytes;
        self.node_bytes += other.node_bytes;
        self.cached_list_bytes += other.cached_list_bytes;
    }
}

impl MemoryUsage {
    /// Everything allocated: buckets, nodes and cached lists. The text and the display forms are
    /// inside these.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.bucket_bytes + self.node_bytes + self.cached_list_bytes
    }
}
