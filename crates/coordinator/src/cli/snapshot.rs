//! `coordinator snapshot`

use std::fmt::Write as _;
use std::io::Write as _;
use std::time::{Duration, UNIX_EPOCH};

use api::admin::v1::{
    ListSnapshotsRequest, PullSnapshotRequest, PushSnapshotRequest, SnapshotInfo,
};

use super::Done;
use super::connection::{Connect, Connection, Said};
use super::table::{Table, hex, mebibytes};

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
    /// Show what is held, by each of the coordinators that are named
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
            Self::List => return list(&connection).await,
        };
        writeln!(std::io::stdout(), "{}", table_of(&held))?;
        Ok(())
    }
}

/// What each coordinator holds, or why it did not say so.
pub(super) async fn held_by_each(connection: &Connection) -> Said<Vec<SnapshotInfo>> {
    let said = connection
        .each(&ListSnapshotsRequest {}, |mut admin, request| async move {
            admin.list_snapshots(request).await
        })
        .await;
    let held = said.into_iter();
    held.map(|(address, said)| (address, said.map(|listed| listed.snapshots)))
        .collect()
}

/// Shows what each coordinator holds. Fails where none says it.
async fn list(connection: &Connection) -> Done {
    let mut held = Vec::new();
    let mut silent = Vec::new();
    for (address, said) in held_by_each(connection).await {
        match said {
            Ok(snapshots) => held.push((address, snapshots)),
            Err(error) => silent.push((address, error)),
        }
    }
    let table = match (held.as_slice(), silent.as_slice()) {
        ([(_, held)], []) => table_of(held),
        _ => table_by_coordinator(&held),
    };
    if held.is_empty()
        && let Some((_, error)) = silent.pop()
    {
        return Err(error.into());
    }
    writeln!(std::io::stdout(), "{table}")?;
    for (address, error) in silent {
        writeln!(
            std::io::stderr(),
            "{address} does not say what it holds: {error}"
        )?;
    }
    Ok(())
}

const HEADER: [&str; 6] = ["shard", "life", "index", "size", "taken", "BLAKE3"];
const NUMBERS: [usize; 4] = [0, 1, 2, 3];

/// What is held.
pub(crate) fn table_of(held: &[SnapshotInfo]) -> Table {
    let mut table = Table::new(&HEADER);
    for at in held {
        table.add_row(cells_of(at));
    }
    table.right(&NUMBERS);
    table
}

/// What is held, and by whom.
fn table_by_coordinator(held: &[(String, Vec<SnapshotInfo>)]) -> Table {
    let header: Vec<&str> = HEADER.into_iter().chain(["coordinator"]).collect();
    let mut table = Table::new(&header);
    for (address, snapshots) in held {
        for at in snapshots {
            let mut cells = cells_of(at);
            cells.push(address.clone());
            table.add_row(cells);
        }
    }
    table.right(&NUMBERS);
    table
}

fn cells_of(at: &SnapshotInfo) -> Vec<String> {
    vec![
        at.shard_id.to_string(),
        at.incarnation.to_string(),
        at.index.to_string(),
        mebibytes(at.bytes),
        moment(at.taken_at_ms),
        hex(&at.hash).chars().take(16).collect(),
    ]
}

/// A moment of a wall clock. One before 1970 or after 9999, which no clock that goes right has said, is shown as the number that it is.
pub(super) fn moment(wall_ms: i64) -> String {
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

    #[test]
    fn of_several_coordinators_it_is_told_which_holds_what() {
        let held = |index| SnapshotInfo {
            index,
            ..SnapshotInfo::default()
        };
        let held = [
            ("one:1".to_owned(), vec![held(4_711)]),
            ("two:1".to_owned(), Vec::new()),
            ("three:1".to_owned(), vec![held(4_710), held(4_709)]),
        ];
        let text = table_by_coordinator(&held).to_string();
        let holder = |index: &str| {
            let line = text.lines().find(|line| line.contains(index));
            line.and_then(|line| line.split_whitespace().nth_back(1))
        };
        let holders = ["coordinator", "4711", "4710", "4709"].map(holder);
        let expected = ["coordinator", "one:1", "three:1", "three:1"].map(Some);
        assert_eq!(holders, expected, "{text}");
    }
}
