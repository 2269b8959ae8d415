//! Reads a view back into a state.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};

use cluster::{Generation, NamespaceId};
use repeat_table::RepeatTable;
use replication::RestoreError;
use trie_core::Options;

use super::frame::{FrameReader, Section, SectionReader, damaged};
use crate::state::{Inner, Space};

pub(in crate::state) fn decode(
    input: &mut dyn Read,
    index: u64,
    options: Options,
) -> Result<Inner, RestoreError> {
    let mut frames = FrameReader::begin(input)?;
    let stamp_ms = {
        let mut section = expect(&mut frames, Section::State)?;
        let stamp_ms = i64::from_le_bytes(section.array()?);
        section.finish()?;
        stamp_ms
    };
    let repeats = {
        let mut section = expect(&mut frames, Section::Repeats)?;
        // The table reads in small steps. What the buffer takes ahead is of this section only.
        let mut buffered = BufReader::new(&mut section);
        let table = RepeatTable::decode_from(&mut buffered)
            .map_err(|error| malformed(format!("repeat table: {error}")))?;
        if buffered.read(&mut [0])? != 0 {
            return Err(malformed("bytes behind the repeat table".to_owned()));
        }
        table
    };
    let mut spaces = BTreeMap::new();
    loop {
        let mut section = frames.next()?;
        match section.section() {
            Section::Namespace => {
                let (id, space) = namespace(&mut section, options)?;
                section.finish()?;
                if spaces.last_key_value().is_some_and(|(last, _)| *last >= id) {
                    return Err(malformed(format!("namespace {id} is out of order")));
                }
                spaces.insert(id, space);
            }
            Section::End => {
                let count = u64::from_le_bytes(section.array()?);
                section.finish()?;
                if count != spaces.len() as u64 {
                    return Err(malformed(format!("{count} namespaces were expected")));
                }
                return Ok(Inner {
                    spaces,
                    repeats,
                    stamp_ms,
                    index,
                });
            }
            Section::State | Section::Repeats => {
                return Err(damaged("a section stands twice").into());
            }
        }
    }
}

fn expect<'a, 'b>(
    frames: &'a mut FrameReader<'b>,
    wanted: Section,
) -> Result<SectionReader<'a, 'b>, RestoreError> {
    let section = frames.next()?;
    if section.section() == wanted {
        return Ok(section);
    }
    Err(damaged("a section is missing").into())
}

fn namespace(
    section: &mut SectionReader<'_, '_>,
    options: Options,
) -> Result<(NamespaceId, Space), RestoreError> {
    let id = NamespaceId(u32::from_le_bytes(section.array()?));
    let generation = Generation(u64::from_le_bytes(section.array()?));
    let dictionary = trie_core::snapshot::decode(section, options)
        .map_err(|error| malformed(format!("dictionary of namespace {id}: {error}")))?;
    let space = Space {
        generation,
        dictionary,
    };
    Ok((id, space))
}

fn malformed(problem: String) -> RestoreError {
    RestoreError::Malformed { problem }
}
