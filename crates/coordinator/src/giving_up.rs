//! What a coordinator does whose metadata on disk are damaged: it becomes a new one, where the others go on without it.
//!
//! Votes and entries that the damaged log had are forgotten, so nothing of it may take part in anything again. The coordinator asks
//! for the place of its own directory under a new instance, as one does whose disk was lost ([`crate::arrival`]). Whoever leads gives it,
//! which needs a majority without this one. Only then the data are moved aside, and the next start joins with nothing.
//!
//! What always holds: data are moved only after a majority of the coordinators has agreed to go on without them, and
//! never deleted. An identity that has voted is never used with another log.
//!
//! On failure: without a majority nothing is touched; the coordinator goes on asking, serves nothing and says why. A crash after the
//! place was given leaves a directory that asks again.

use std::path::Path;
use std::sync::Arc;

use runtime::CancellationToken;
use vfs::{Vfs, aside};

use crate::Error;
use crate::arrival::{Arrival, Myself};
use crate::identity::{self, Identity};

/// Of a data directory, what belongs to the identity in it.
const PARTS: [&str; 3] = [identity::NAME, "wal", "snapshots"];

/// Sees through what was begun before a crash.
pub(crate) fn finish(vfs: &dyn Vfs, dir: &Path) -> Result<(), Error> {
    if vfs.exists(dir)?
        && let Some(moved_to) = aside::finish(vfs, dir, &PARTS)?
    {
        tracing::warn!(moved_to, "damaged metadata are aside");
    }
    Ok(())
}

/// Replaces this coordinator by a new one in the same directory, if its data are damaged and there are others. Returns the error to
/// end with.
pub(crate) async fn heed(
    error: Error,
    arrival: &Arrival,
    myself: &Myself,
    dir: &Path,
    stop: &CancellationToken,
) -> Error {
    let membership = myself.identity().membership;
    let (true, Some(membership)) = (error.is_damage(), membership) else {
        return error;
    };
    if arrival.others.is_empty() {
        return error;
    }
    let identity = Identity {
        instance: arrival.runtime.random_id(),
        membership: None,
        begun: false,
        ..myself.identity()
    };
    tracing::error!(
        %error,
        "the metadata of this coordinator are damaged; it asks the others for its place as a new one"
    );
    let admitted = tokio::select! {
        biased;
        () = stop.cancelled() => return error,
        admitted = arrival.until_admitted(&identity, membership.cluster) => admitted,
    };
    tracing::warn!(by = %admitted, "the others go on without the damaged metadata");
    match move_aside(arrival, dir, identity).await {
        Ok(moved_to) => Error::GaveUpData {
            moved_to,
            damage: error.to_string(),
        },
        Err(failed) => failed,
    }
}

async fn move_aside(arrival: &Arrival, dir: &Path, identity: Identity) -> Result<String, Error> {
    let (vfs, dir) = (Arc::clone(&arrival.vfs), dir.to_owned());
    let wall_ms = arrival.runtime.wall_ms();
    let work = move || {
        let moved_to = aside::give_up(vfs.as_ref(), &dir, &PARTS, wall_ms)?;
        identity::store(vfs.as_ref(), &dir, &identity)?;
        Ok::<_, Error>(moved_to)
    };
    arrival.runtime.spawn_blocking("give-up", work).await?
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use cluster::{ClusterId, NodeId};
    use runtime::Runtime;
    use vfs::sim::every_mishap_twice;
    use vfs::{SimDisk, durable};

    use super::*;
    use crate::identity::Membership;

    const LOG: &str = "wal/1.wal";

    fn dir() -> &'static Path {
        Path::new("/data")
    }

    fn member(runtime: &Runtime, disk: &SimDisk) -> Identity {
        let found = identity::open(disk, runtime, dir(), NodeId(2)).unwrap();
        let membership = Membership {
            cluster: ClusterId([9; 16]),
            members: [(NodeId(2), found.instance)].into(),
        };
        let member = Identity {
            membership: Some(membership),
            begun: true,
            ..found
        };
        identity::store(disk, dir(), &member).unwrap();
        for part in [LOG, "held-snapshots/1"] {
            let path = dir().join(part);
            durable::create_dir(disk, path.parent().unwrap()).unwrap();
            durable::replace(disk, &path, part.as_bytes()).unwrap();
        }
        member
    }

    /// Who comes after it in the directory.
    fn successor(old: &Identity) -> Identity {
        Identity {
            instance: [7; 16],
            membership: None,
            begun: false,
            ..old.clone()
        }
    }

    /// What others rely on.
    #[derive(Clone, Default)]
    struct Promised {
        /// The old identity takes part in nothing any more.
        is_over: bool,
        /// Who the directory was said to belong to.
        told: Option<Identity>,
    }

    fn give_up(disk: &SimDisk, new: &Identity, promised: &mut Promised) -> Result<(), Error> {
        aside::give_up(disk, dir(), &PARTS, 5)?;
        promised.is_over = true;
        identity::store(disk, dir(), new)?;
        promised.told = Some(new.clone());
        Ok(())
    }

    fn start(disk: &SimDisk, promised: &mut Promised) -> Result<(), Error> {
        finish(disk, dir())?;
        let found = identity::open(disk, &Runtime::real(), dir(), NodeId(2))?;
        promised.is_over |= found.membership.is_none();
        promised.told = Some(found);
        Ok(())
    }

    /// The next start has all of the old data under the old identity, or none of it, and the one after it the same.
    fn judge(image: &SimDisk, old: &Identity, promised: &Promised, what: &dyn Debug) {
        let mut now = Promised::default();
        start(image, &mut now).unwrap_or_else(|error| panic!("{what:?}: {error}"));
        let found = now.told.clone().unwrap();
        assert!(found == *old || found.membership.is_none(), "{what:?}");
        assert!(found != *old || !promised.is_over, "{what:?}");
        if let Some(told) = &promised.told {
            assert_eq!(found, *told, "{what:?}");
        }
        let home = match found == *old {
            true => dir().to_owned(),
            false => dir().join("given-up-5"),
        };
        let after = image.crash_losing_all();
        start(&after, &mut now).unwrap();
        assert_eq!(now.told, Some(found), "{what:?}");
        for image in [image, &after] {
            assert_eq!(image.contents(&home.join(LOG)).unwrap(), LOG.as_bytes());
            assert!(image.exists(&dir().join("held-snapshots/1")).unwrap());
        }
        give_up(&after, &successor(old), &mut now).unwrap();
    }

    /// A crash at every operation, and many ways in which it may leave the disk.
    #[test]
    fn power_lost_while_metadata_are_given_up_needs_no_human() {
        let runtime = Runtime::real();
        let mut halts = 0;
        for halt in 0.. {
            let disk = SimDisk::new();
            let old = member(&runtime, &disk);
            disk.halt_after(Some(halt));
            let mut promised = Promised::default();
            let gave_up = give_up(&disk, &successor(&old), &mut promised);
            for seed in 0..40 {
                judge(&disk.crash_seeded(seed), &old, &promised, &(halt, seed));
            }
            if gave_up.is_ok() {
                break;
            }
            halts += 1;
        }
        assert!(halts > 8, "{halts} halts");
    }

    #[test]
    fn whatever_goes_wrong_while_metadata_are_given_up_and_at_the_start_after_it_needs_no_human() {
        let before = SimDisk::new();
        let old = member(&Runtime::real(), &before);
        let runs = every_mishap_twice(
            &before,
            &Promised::default(),
            |disk: &SimDisk, promised: &mut Promised| give_up(disk, &successor(&old), promised),
            start,
            |image, promised, what| judge(image, &old, promised, what),
        );
        assert!(runs > 1000, "{runs} runs");
    }
}
