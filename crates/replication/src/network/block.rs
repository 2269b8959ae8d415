//! Requests to append whose content is compressed, as one block.
//!
//! A request is packed only on a stream on which the peer has said that it takes blocks (`super::stream`), and only if it is large enough and
//! becomes smaller by enough. The first request of a stream is never packed, so that a peer which fails to read blocks gets on all
//! the same, if slowly.
//!
//! The block holds all of the request but its envelope. To a program that knows no blocks the rest is a request without a vote, which it
//! refuses; it can never take it for one without entries, and acknowledge what it did not get. HTTP/2 has no checksum, so the block has.
//!
//! What always holds: a block is decompressed only after it has verified, to exactly the size that it declares, which is
//! at most that of a message; in one pass, which reserves no window. Sender and receiver count in bytes that are not compressed: how much of
//! the log goes into one request, how many requests wait for Raft, and what the disk has room for. Only HTTP/2 counts what is on the wire; what
//! waits there is decompressed when it is taken out.
//!
//! It is done by the task that sends or receives, never by that of Raft: a mebibyte takes a few milliseconds.
//!
//! On failure: [`BlockError`], and the request has changed nothing. What cannot be compressed is sent as it is.

use std::fmt;
use std::io;
use std::sync::OnceLock;

use api::raft::v1 as wire;
use bytes::Bytes;
use cluster::limits::RAFT_MESSAGE_BYTES_MAX;
use parking_lot::Mutex;
use prost::Message as _;
use zstd::bulk::{Compressor, Decompressor};

/// Requests from this size on are packed, in bytes. Smaller ones fill hardly more than one packet of a network either way.
const PACK_FROM_BYTES: usize = 2048;
/// The fastest of zstd, as in the log. Writes wait for it, and the third level takes off a few hundredths more.
const ZSTD_LEVEL: i32 = 1;

/// Bytes of a request to append, its envelope included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AppendSize {
    /// Before it was compressed.
    pub raw_bytes: u64,
    /// As it is sent. The same where it is not compressed.
    pub sent_bytes: u64,
}

/// Who is told how large requests are.
type Observer = Box<dyn Fn(AppendSize) + Send + Sync>;

/// A request that its block does not give.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BlockError {
    #[error("a request has a block, and beside it what belongs in there")]
    Beside,
    #[error(
        "a block of {raw_bytes} bytes, at most {} are taken",
        RAFT_MESSAGE_BYTES_MAX
    )]
    TooLarge { raw_bytes: u32 },
    #[error("a block was damaged on its way: {problem}")]
    Damaged { problem: &'static str },
    #[error("what a block holds is no request: {0}")]
    Content(#[from] prost::DecodeError),
    #[error("a block holds an envelope or a block")]
    Nested,
    #[error("zstd does not begin: {0}")]
    Zstd(#[from] io::Error),
}

/// Packs the requests of a node.
#[derive(Default)]
pub(crate) struct Packer {
    idle: Idle<Compressor<'static>>,
    observer: OnceLock<Observer>,
}

/// Unpacks the requests to a node.
#[derive(Default)]
pub(crate) struct Unpacker {
    idle: Idle<Decompressor<'static>>,
}

impl fmt::Debug for Packer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Packer")
    }
}

impl fmt::Debug for Unpacker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Unpacker")
    }
}

impl Packer {
    /// Has an observer told of every request. The first one stays.
    pub(crate) fn observe(&self, observer: Observer) {
        drop(self.observer.set(observer));
    }

    /// A request as it is to be sent: packed, if the peer takes that and it pays.
    pub(crate) fn pack(
        &self,
        mut request: wire::AppendRequest,
        is_taken: bool,
    ) -> wire::AppendRequest {
        let raw_bytes = request.encoded_len();
        let mut sent_bytes = raw_bytes;
        if is_taken && raw_bytes >= PACK_FROM_BYTES {
            let envelope = request.envelope.take();
            if let Some(block) = self.block(&request) {
                request = wire::AppendRequest {
                    block: Some(block),
                    ..wire::AppendRequest::default()
                };
            }
            request.envelope = envelope;
            sent_bytes = request.encoded_len();
        }
        if let Some(observer) = self.observer.get() {
            observer(AppendSize {
                raw_bytes: raw_bytes as u64,
                sent_bytes: sent_bytes as u64,
            });
        }
        request
    }

    fn block(&self, content: &wire::AppendRequest) -> Option<wire::Block> {
        let raw = content.encode_to_vec();
        let raw_bytes = u32::try_from(raw.len()).ok()?;
        let mut zstd = self.idle.take(|| Compressor::new(ZSTD_LEVEL)).ok()?;
        let compressed = zstd.compress(&raw);
        self.idle.put(zstd);
        let data = Bytes::from(compressed.ok()?);
        let crc = checksum(raw_bytes, &data);
        // An eighth is what unpacking should be worth.
        (data.len() + raw.len() / 8 <= raw.len()).then_some(wire::Block {
            data,
            raw_bytes,
            crc,
        })
    }
}

impl Unpacker {
    /// A request as it was before it was packed; one that was not stays what it is.
    pub(crate) fn unpack(
        &self,
        mut request: wire::AppendRequest,
    ) -> Result<wire::AppendRequest, BlockError> {
        let Some(block) = request.block.take() else {
            return Ok(request);
        };
        let envelope = request.envelope.take();
        if request != wire::AppendRequest::default() {
            return Err(BlockError::Beside);
        }
        let content = wire::AppendRequest::decode(self.open(&block)?)?;
        if content.envelope.is_some() || content.block.is_some() {
            return Err(BlockError::Nested);
        }
        Ok(wire::AppendRequest {
            envelope,
            ..content
        })
    }

    fn open(&self, block: &wire::Block) -> Result<Bytes, BlockError> {
        let raw_bytes = block.raw_bytes;
        let size = usize::try_from(raw_bytes).unwrap_or(usize::MAX);
        if size > RAFT_MESSAGE_BYTES_MAX {
            return Err(BlockError::TooLarge { raw_bytes });
        }
        let damaged = |problem| BlockError::Damaged { problem };
        if checksum(raw_bytes, &block.data) != block.crc {
            return Err(damaged("its checksum is another"));
        }
        let mut zstd = self.idle.take(Decompressor::new)?;
        let mut raw = Vec::with_capacity(size);
        let written = zstd.decompress_to_buffer(&block.data, &mut raw);
        self.idle.put(zstd);
        match written {
            Ok(written) if written == size => Ok(Bytes::from(raw)),
            Ok(_) => Err(damaged("it has another size than it says")),
            Err(_) => Err(damaged("it cannot be decompressed")),
        }
    }
}

fn checksum(raw_bytes: u32, data: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new_with_initial(raw_bytes);
    crc.update(data);
    crc.finalize()
}

/// What zstd works with, kept between uses: as many as were ever needed at once, and so at most one a thread.
struct Idle<T>(Mutex<Vec<T>>);

impl<T> Default for Idle<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Idle<T> {
    fn take(&self, make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let kept = self.0.lock().pop();
        kept.map_or_else(make, Ok)
    }

    fn put(&self, used: T) {
        self.0.lock().push(used);
    }
}

#[cfg(test)]
mod tests;
