//! Encoding and decoding; the format is described at the top of the crate.

use std::io::{self, Read, Write};

use crate::chunk_map::ChunkMap;
use crate::items::WORDS_MAX;
use crate::table::{Client, Entry};
use crate::{AppliedItems, ClientId, DecodeError, RepeatTable, TableView};

/// Version of the format that is written, and the only one that is read.
pub const FORMAT_VERSION: u16 = 1;

const MAGIC: [u8; 4] = *b"ACRT";

impl TableView {
    /// Writes the table in small pieces; give it a buffered writer.
    ///
    /// # Errors
    ///
    /// Those of the writer.
    pub fn encode_to(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&MAGIC)?;
        out.write_all(&FORMAT_VERSION.to_le_bytes())?;
        out.write_all(&[u8::from(self.mark_ms.is_some()), 0])?;
        out.write_all(&self.mark_ms.unwrap_or(0).to_le_bytes())?;
        out.write_all(&self.cap_bytes.to_le_bytes())?;
        out.write_all(&(self.clients.len() as u64).to_le_bytes())?;
        let mut entries = self.entries.iter();
        for (id, client) in self.clients.iter() {
            out.write_all(&id.0)?;
            out.write_all(&client.acked_below.to_le_bytes())?;
            out.write_all(&client.newest_issued_ms.to_le_bytes())?;
            out.write_all(&client.entries.to_le_bytes())?;
            // Entries are ordered by client first, and each client knows how many are its own.
            for ((_, sequence), entry) in entries.by_ref().take(client.entries as usize) {
                write_entry(out, *sequence, entry)?;
            }
        }
        Ok(())
    }

    /// Appends the encoded table.
    pub fn encode(&self, out: &mut Vec<u8>) {
        // A vector takes whatever it is given.
        let written = self.encode_to(out);
        debug_assert!(written.is_ok());
    }
}

impl RepeatTable {
    /// Appends the encoded table. Where writes should go on meanwhile, encode a [`Self::view`].
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.view().encode(out);
    }

    /// Reads a table that fills all of `bytes`.
    ///
    /// # Errors
    ///
    /// Refuses what is no table, is cut short, or has bytes behind it.
    pub fn decode(mut bytes: &[u8]) -> Result<Self, DecodeError> {
        let table = Self::decode_from(&mut bytes)?;
        if bytes.is_empty() {
            Ok(table)
        } else {
            Err(malformed("bytes behind the end", table.clients() as u64))
        }
    }

    /// Reads a table, and not a byte more. Small reads: give it a buffered reader. Takes memory only for what was read.
    ///
    /// # Errors
    ///
    /// Those of the reader; refuses what is no table or is cut short.
    pub fn decode_from(input: &mut impl Read) -> Result<Self, DecodeError> {
        let found = array(input)?;
        if found != MAGIC {
            return Err(DecodeError::BadMagic { found });
        }
        let found = u16::from_le_bytes(array(input)?);
        if found != FORMAT_VERSION {
            return Err(DecodeError::UnknownVersion {
                found,
                known: FORMAT_VERSION,
            });
        }
        let flags: [u8; 2] = array(input)?;
        let mark = i64::from_le_bytes(array(input)?);
        let cap_bytes = u64::from_le_bytes(array(input)?);
        let clients = u64::from_le_bytes(array(input)?);
        let mark_ms = match (flags, mark) {
            ([1, 0], mark) => Some(mark),
            ([0, 0], 0) => None,
            _ => return Err(malformed("the mark", clients)),
        };
        let mut state = TableView {
            cap_bytes,
            mark_ms,
            bytes: 0,
            clients: ChunkMap::default(),
            entries: ChunkMap::default(),
        };
        let mut before = None;
        for number in 0..clients {
            let id = ClientId(array(input)?);
            if before.is_some_and(|before| before >= id) {
                return Err(malformed("the order", number));
            }
            before = Some(id);
            let client = read_client(input, number, id, &mut state.entries)?;
            state.clients.insert(id, client);
        }
        state.bytes = state.count_bytes();
        if state.bytes > cap_bytes {
            return Err(malformed("more bytes than the cap allows", clients));
        }
        Ok(Self::from_state(state))
    }
}

fn write_entry(out: &mut impl Write, sequence: u64, entry: &Entry) -> io::Result<()> {
    out.write_all(&sequence.to_le_bytes())?;
    out.write_all(&entry.fingerprint.to_le_bytes())?;
    out.write_all(&entry.issued_at_ms.to_le_bytes())?;
    let words = entry.items.significant_words();
    out.write_all(&[entry.outcome, words.len() as u8])?;
    words
        .iter()
        .try_for_each(|word| out.write_all(&word.to_le_bytes()))
}

fn read_client(
    input: &mut impl Read,
    number: u64,
    id: ClientId,
    entries: &mut ChunkMap<(ClientId, u64), Entry>,
) -> Result<Client, DecodeError> {
    let acked_below = u64::from_le_bytes(array(input)?);
    let newest_issued_ms = i64::from_le_bytes(array(input)?);
    let count = u32::from_le_bytes(array(input)?);
    let mut lowest = Some(acked_below);
    for _ in 0..count {
        let sequence = u64::from_le_bytes(array(input)?);
        if lowest.is_none_or(|lowest| sequence < lowest) {
            return Err(malformed("the order of the entries", number));
        }
        lowest = sequence.checked_add(1);
        let entry = read_entry(input, number)?;
        if entry.issued_at_ms > newest_issued_ms {
            return Err(malformed("the newest time of issue", number));
        }
        entries.insert((id, sequence), entry);
    }
    Ok(Client {
        acked_below,
        newest_issued_ms,
        entries: count,
    })
}

fn read_entry(input: &mut impl Read, number: u64) -> Result<Entry, DecodeError> {
    let fingerprint = u64::from_le_bytes(array(input)?);
    let issued_at_ms = i64::from_le_bytes(array(input)?);
    let [outcome, length] = array(input)?;
    let mut words = [0; WORDS_MAX];
    let words = words
        .get_mut(..usize::from(length))
        .ok_or_else(|| malformed("the items of an entry", number))?;
    for word in words.iter_mut() {
        *word = u64::from_le_bytes(array(input)?);
    }
    let items = AppliedItems::from_significant_words(words)
        .ok_or_else(|| malformed("the items of an entry", number))?;
    Ok(Entry {
        fingerprint,
        issued_at_ms,
        items,
        outcome,
    })
}

fn array<const N: usize>(input: &mut impl Read) -> Result<[u8; N], DecodeError> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn malformed(what: &'static str, client: u64) -> DecodeError {
    DecodeError::Malformed { what, client }
}
