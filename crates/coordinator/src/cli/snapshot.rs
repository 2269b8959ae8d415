//! `coordinator snapshot`

use std::io::Write as _;

use api::admin::v1::{
    ListSnapshotsRequest, PullSnapshotRequest, PushSnapshotRequest, SnapshotInfo,
};

use super::Done;
use super::connection::Connect;
use super::status::{hex, mebibytes, new_table, right};

/// What to do with snapshots.
#[derive(Debug, clap::Subcommand)]
pub(super) enum Snapshot {
    /// Have a shard take a snapshot now, and fetch it
    Pull {
        /// Number of the shard
        #[arg(value_name = "SHARD")]
        shard: u64,
    },
    /// Send the newest held snapshot to the node of a shard that does not serve
    Push {
        /// Number of the shard
        #[arg(value_name = "SHARD")]
        shard: u64,
    },
    /// Show what is held
    List,
}

impl Snapshot {
    pub(super) async fn run(self, connect: &impl Connect) -> Done {
        let mut connection = connect.connect()?;
        let held: Vec<SnapshotInfo> = match self {
            Self::Pull { shard } => {
                let request = PullSnapshotRequest { shard_id: shard };
                let pulled = connection
                    .call(request, |mut admin, request| async move {
                        admin.pull_snapshot(request).await
                    })
                    .await?;
                pulled.snapshot.into_iter().collect()
            }
            Self::Push { shard } => {
                let request = PushSnapshotRequest { shard_id: shard };
                let pushed = connection
                    .call(request, |mut admin, request| async move {
                        admin.push_snapshot(request).await
                    })
                    .await?;
                writeln!(std::io::stdout(), "sent to node {}", pushed.node_id)?;
                pushed.snapshot.into_iter().collect()
            }
            Self::List => {
                let listed = connection
                    .read(ListSnapshotsRequest {}, |mut admin, request| async move {
                        admin.list_snapshots(request).await
                    })
                    .await?;
                listed.snapshots
            }
        };
        let mut table = new_table(&["shard", "life", "index", "size", "taken", "BLAKE3"]);
        for at in &held {
            let since_epoch = u64::try_from(at.taken_at_ms).unwrap_or_default();
            let taken = std::time::Duration::from_millis(since_epoch);
            let moment = std::time::UNIX_EPOCH.checked_add(taken);
            table.add_row(vec![
                at.shard_id.to_string(),
                at.incarnation.to_string(),
                at.index.to_string(),
                mebibytes(at.bytes),
                moment.map_or_else(String::new, |at| {
                    humantime::format_rfc3339_seconds(at).to_string()
                }),
                hex(&at.hash).chars().take(16).collect(),
            ]);
        }
        right(&mut table, &[0, 1, 2, 3]);
        writeln!(std::io::stdout(), "{table}")?;
        Ok(())
    }
}
