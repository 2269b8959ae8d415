//! Writes a view.

use std::io::{self, Write};

use trie_core::snapshot::SnapshotError;

use super::StateView;
use super::frame::{Frames, Section};

pub(super) fn encode(view: StateView, out: &mut dyn Write) -> io::Result<()> {
    let mut frames = Frames::begin(out)?;
    frames.section(Section::State, |out| {
        out.write_all(&view.stamp_ms.to_le_bytes())
    })?;
    frames.section(Section::Repeats, |mut out| view.repeats.encode_to(&mut out))?;
    let spaces = view.spaces.len() as u64;
    for (id, space) in view.spaces {
        frames.section(Section::Namespace, |out| {
            out.write_all(&id.0.to_le_bytes())?;
            out.write_all(&space.generation.0.to_le_bytes())?;
            trie_core::snapshot::encode(space.dictionary, out)
                .map(drop)
                .map_err(into_io)
        })?;
    }
    frames.section(Section::End, |out| out.write_all(&spaces.to_le_bytes()))
}

fn into_io(error: SnapshotError) -> io::Error {
    match error {
        SnapshotError::Io(error) => error,
        other @ (SnapshotError::NotASnapshot
        | SnapshotError::Version { .. }
        | SnapshotError::Truncated { .. }
        | SnapshotError::Corrupt { .. }
        | SnapshotError::Term(_)) => io::Error::other(other),
    }
}
