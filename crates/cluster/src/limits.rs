//! The limits of the contract. Each is the default of a configuration where one exists, and the ceiling elsewhere.

use std::time::Duration;

/// Bytes of a term after normalisation.
pub const TERM_BYTES_MAX: usize = term::TERM_BYTES_MAX;
/// Bytes of a prefix after normalisation.
pub const PREFIX_BYTES_MAX: usize = term::PREFIX_BYTES_MAX;
/// Bytes of a term or prefix before normalisation.
pub const RAW_BYTES_MAX: usize = term::RAW_BYTES_MAX;
/// The k of a request that leaves it 0.
pub const K_DEFAULT: u32 = 10;
/// The largest k that is served; a larger one is cut to it.
pub const K_MAX: u32 = 1_000;
/// Entries of the lists that are cached at trie nodes.
pub const CACHED_K: usize = 10;
/// The largest count of one Record.
pub const RECORD_COUNT_MAX: u64 = 1_000_000_000_000;
/// Items of one batch.
pub const BATCH_ITEMS_MAX: usize = 1_000;
/// Bytes of a message from a client.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of an answer to a client. Clients of other languages take 4 MiB unless told otherwise.
pub const ANSWER_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Bytes of a message between replicas.
pub const RAFT_MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of one chunk of a streamed snapshot.
pub const SNAPSHOT_CHUNK_BYTES: usize = 512 * 1024;
/// How fast a snapshot is sent to a replica, in bytes a second: it leaves the network and both disks to requests, and is no more urgent.
pub const SNAPSHOT_BYTES_PER_SECOND: u64 = 32 * 1024 * 1024;
/// Namespaces of a cluster.
pub const NAMESPACES_MAX: usize = 10_000;
/// Terms of a page of ListTerms, when the request leaves it 0 and at most.
pub const PAGE_TERMS_DEFAULT: u32 = 1_000;
/// See [`PAGE_TERMS_DEFAULT`].
pub const PAGE_TERMS_MAX: u32 = 10_000;
/// Bytes of terms and display forms at which a page ends.
pub const PAGE_BYTES_MAX: usize = 512 * 1024;
/// Bytes of a shard's repeat table.
pub const REPEAT_TABLE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of a watchdog's name, and of why it asks for the turn at a recovery.
pub const TURN_TEXT_BYTES_MAX: usize = 255;
/// How far a request id's `issued_at_ms` may lie ahead of the leader's stamp.
pub const ISSUED_AHEAD_MAX: Duration = Duration::from_secs(5 * 60);
/// The deadline of a call that sets none.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(2);
/// The longest deadline of a unary call; a longer one is cut to it.
pub const DEADLINE_MAX: Duration = Duration::from_secs(10);
/// Shards of a cluster.
pub const SHARDS_MAX: usize = 1_024;
/// Positions of a session token.
pub const TOKEN_POSITIONS_MAX: usize = SHARDS_MAX;

/// Actions that a shard server or a watchdog tells the coordinators of: the last ones.
pub const ACTIONS_TOLD_MAX: usize = 16;
/// Bytes of what is said of an action, and of why it failed.
pub const ACTION_TEXT_BYTES_MAX: usize = 256;

const _: () = assert!(K_DEFAULT <= K_MAX);
const _: () = assert!(CACHED_K <= K_MAX as usize);
// The longest answer, of terms and display forms that are all as long as can be, fits.
const _: () =
    assert!(K_MAX as usize * (TERM_BYTES_MAX + term::DISPLAY_BYTES_MAX + 32) <= ANSWER_BYTES_MAX);
const _: () = assert!(PAGE_TERMS_DEFAULT <= PAGE_TERMS_MAX);
const _: () = assert!(PAGE_BYTES_MAX * 3 / 2 <= ANSWER_BYTES_MAX);
const _: () = assert!(MESSAGE_BYTES_MAX <= RAFT_MESSAGE_BYTES_MAX);
const _: () = assert!(SNAPSHOT_CHUNK_BYTES <= MESSAGE_BYTES_MAX / 2);
const _: () = assert!(DEADLINE_DEFAULT.as_millis() <= DEADLINE_MAX.as_millis());
