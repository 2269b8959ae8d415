//! What the build script made of `proto/`: messages, servers and clients, one module a package.
//!
//! Nothing here is written by hand, and nothing else may live here: the lints that hold for our own code are off.

/// Includes the messages and servers of a package, and the clients beside them.
macro_rules! package {
    ($name:literal) => {
        include!(concat!(env!("OUT_DIR"), "/server/", $name, ".rs"));
        include!(concat!(env!("OUT_DIR"), "/client/", $name, ".rs"));
    };
}

/// Every file of `proto/` with its comments, encoded, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/autocomplete_descriptor.bin"));

/// `autocomplete.v1`: the public interface.
pub mod v1 {
    package!("autocomplete.v1");
}

/// Coordinator to shard server.
pub mod shard {
    /// `autocomplete.shard.v1`.
    pub mod v1 {
        package!("autocomplete.shard.v1");
    }
}

/// Replica to replica.
pub mod raft {
    /// `autocomplete.raft.v1`.
    pub mod v1 {
        package!("autocomplete.raft.v1");
    }
}

/// Operators and the watchdog to the coordinator.
pub mod admin {
    /// `autocomplete.admin.v1`.
    pub mod v1 {
        package!("autocomplete.admin.v1");
    }
}

/// Shard server to coordinator.
pub mod registry {
    /// `autocomplete.registry.v1`.
    pub mod v1 {
        package!("autocomplete.registry.v1");
    }
}

/// Coordinator to coordinator.
pub mod meta {
    /// `autocomplete.meta.v1`.
    pub mod v1 {
        package!("autocomplete.meta.v1");
    }
}
