//! `coordinator snapshot`

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use api::admin::v1::{
    ListSnapshotsRequest, PullSnapshotRequest, PushSnapshotRequest, SnapshotInfo,
};
use comfy_table::Table;

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
        writeln!(std::io::stdout(), "{}", table_of(&held))?;
        Ok(())
    }
}

/// What is held.
pub(crate) fn table_of(held: &[SnapshotInfo]) -> Table {
    let mut table = new_table(&["shard", "life", "index", "size", "taken", "BLAKE3"]);
    for at in held {
        table.add_row(vec![
            at.shard_id.to_string(),
            at.incarnation.to_string(),
            at.index.to_string(),
            mebibytes(at.bytes),
            moment(at.taken_at_ms),
            hex(&at.hash).chars().take(16).collect(),
        ]);
    }
    right(&mut table, &[0, 1, 2, 3]);
    table
}

/// A moment of a wall clock. One before 1970 or after 9999, which no clock that goes right has said, is shown as the number that it is.
fn moment(wall_ms: i64) -> String {
    let written = || {
        let since_epoch = Duration::from_millis(u64::try_from(wall_ms).ok()?);
        let moment = UNIX_EPOCH.checked_add(since_epoch)?;
        let mut text = String::new();
        // Not `to_string`, which panics where the year has more than four digits.
        write!(text, "{}", humantime::format_rfc3339_seconds(moment)).ok()?;
        Some(text)
    };
    written().unwrap_or_else(|| format!("{wall_ms} ms"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first millisecond of the year 10000.
    const YEAR_10000_MS: i64 = 253_402_300_800_000;

    #[test]
    fn a_snapshot_is_listed_whenever_its_node_says_it_was_taken() {
        for (taken_at_ms, shown) in [
            (0, "1970-01-01T00:00:00Z"),
            (1_700_000_000_999, "2023-11-14T22:13:20Z"),
            (YEAR_10000_MS - 1, "9999-12-31T23:59:59Z"),
            (YEAR_10000_MS, "253402300800000 ms"),
            // What an unsigned number at its end is read as.
            (u64::MAX.cast_signed(), "-1 ms"),
            (i64::MAX, "9223372036854775807 ms"),
            (i64::MIN, "-9223372036854775808 ms"),
        ] {
            let held = SnapshotInfo {
                taken_at_ms,
                ..SnapshotInfo::default()
            };
            let text = table_of(&[held]).to_string();
            assert!(text.contains(shown), "{taken_at_ms}: {text}");
        }
    }
}
