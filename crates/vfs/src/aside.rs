//! Moves the data of a directory aside, so that the next start begins with nothing.
//!
//! *Invariant `begun_is_finished`*: once a directory `giving-up-…` is durable, the data beside it is given up. It is seen through before
//! anybody looks at the data, at the next start if not before; then the directory is called `given-up-…`. A crash in between
//! so needs no human, and half of a data directory is never taken for a whole one.
//!
//! What is moved is renamed and never read, so that a disk with unreadable places does not stand in the way.

use std::path::Path;

use crate::{Error, Vfs, durable};

const BEGUN: &str = "giving-up-";
const DONE: &str = "given-up-";

/// Gives up the entries `parts` of a directory, or goes on with what was begun. `number` tells one time from another, such as a
/// wall clock. Returns the name of the directory inside that has the data now.
///
/// # Errors
/// Of the disk. [`finish`] goes on.
pub fn give_up(vfs: &dyn Vfs, dir: &Path, parts: &[&str], number: i64) -> Result<String, Error> {
    if let Some(done) = finish(vfs, dir, parts)? {
        return Ok(done);
    }
    // A wall clock may show the same again.
    let mut number = number;
    while vfs.exists(&dir.join(format!("{DONE}{number}")))? {
        number += 1;
    }
    let name = format!("{BEGUN}{number}");
    durable::create_dir(vfs, &dir.join(&name))?;
    see_through(vfs, dir, parts, &name)
}

/// Sees through what was begun, if anything was, and returns the name of the directory that has the data now.
///
/// # Errors
/// Of the disk. Another call goes on.
pub fn finish(vfs: &dyn Vfs, dir: &Path, parts: &[&str]) -> Result<Option<String>, Error> {
    let entries = vfs.list_dir(dir)?.into_iter();
    let mut names = entries.filter_map(|entry| entry.name.into_string().ok());
    match names.find(|name| name.starts_with(BEGUN)) {
        Some(begun) => see_through(vfs, dir, parts, &begun).map(Some),
        None => Ok(None),
    }
}

fn see_through(vfs: &dyn Vfs, dir: &Path, parts: &[&str], begun: &str) -> Result<String, Error> {
    let aside = dir.join(begun);
    // What was moved before may be in the page cache only, and so may the directory that it was moved to.
    vfs.sync_dir(dir)?;
    vfs.sync_dir(&aside)?;
    for part in parts {
        let from = dir.join(part);
        if vfs.exists(&from)? {
            vfs.rename(&from, &aside.join(part))?;
            vfs.sync_dir(&aside)?;
            vfs.sync_dir(dir)?;
        }
    }
    let done = begun.replacen(BEGUN, DONE, 1);
    vfs.rename(&aside, &dir.join(&done))?;
    vfs.sync_dir(dir)?;
    Ok(done)
}
