//! The whole state of each replica, compared byte for byte: dictionaries, displays, generations and the table of requests.

use api::shard::v1::node_service_client::NodeServiceClient;
use api::shard::v1::{ReadSnapshotRequest, TakeSnapshotRequest};
use rpc::channel::{PoolConfig, connect};
use runtime::Runtime;
use tonic::transport::Channel;

use super::{Outcome, Places};

/// Where the header of a snapshot file ends is said at this place; see `replication::snapshot`.
const HEADER_LEN_AT: usize = 12;
/// Magic, version and length before the header, and its checksum.
const AROUND_HEADER: usize = 20;
/// Length, hash and magic behind the state.
const FOOTER: usize = 48;

/// Has every replica take a snapshot, and compares those of each shard. Says what was compared.
pub(super) async fn all_equal(runtime: &Runtime, places: &Places) -> Outcome<String> {
    let mut said = "states".to_owned();
    for (shard, addresses) in places {
        let mut first: Option<([u8; 32], u64)> = None;
        for address in addresses {
            let channel = connect(runtime, address, &PoolConfig::default());
            let channel = channel.map_err(|error| error.to_string())?;
            let found = state(channel, *shard).await;
            let found = found.map_err(|error| format!("the state of shard {shard}: {error}"))?;
            let known = *first.get_or_insert(found);
            if known != found {
                return Err(format!(
                    "the state of shard {shard} on {address} is not that of the others: {found:?}, {known:?}"
                ));
            }
        }
        if let Some((hash, index)) = first {
            said.push_str(&format!(" {shard}@{index}:{:02x}{:02x}", hash[0], hash[1]));
        }
    }
    Ok(said)
}

/// The hash of a replica's state, and the index that it is of.
async fn state(channel: Channel, shard_id: u64) -> Outcome<([u8; 32], u64)> {
    let mut node = NodeServiceClient::new(channel);
    let taken = node
        .take_snapshot(TakeSnapshotRequest { shard_id, reach: 0 })
        .await;
    taken.map_err(|error| error.to_string())?;
    let request = ReadSnapshotRequest {
        shard_id,
        offset: 0,
    };
    let read = node.read_snapshot(request).await;
    let mut chunks = read.map_err(|error| error.to_string())?.into_inner();
    let (mut bytes, mut index) = (Vec::new(), 0);
    while let Some(chunk) = chunks.message().await.map_err(|error| error.to_string())? {
        index = chunk.snapshot.map_or(index, |snapshot| snapshot.index);
        bytes.extend_from_slice(&chunk.data);
    }
    let length = bytes.get(HEADER_LEN_AT..).and_then(<[u8]>::first_chunk);
    let length = u32::from_le_bytes(*length.ok_or("a snapshot without a header")?) as usize;
    let end = bytes.len().saturating_sub(FOOTER);
    let state = bytes.get(length + AROUND_HEADER..end);
    let state = state.ok_or("a snapshot without a state")?;
    Ok((*blake3::hash(state).as_bytes(), index))
}
