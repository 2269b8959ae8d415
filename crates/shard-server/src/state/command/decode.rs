//! Reads commands. Texts are borrowed from the command; everything is checked before anything is applied.

use std::ops::Range;

use cluster::{Generation, NamespaceId};
use repeat_table::{ClientId, ITEMS_MAX, RequestId};

use super::{FLAG_DELETE, FLAG_IDENTITY, FLAG_SAME_NAMESPACE, FLAG_SINGLE, VERSION};
use crate::state::varint::{Cursor, Malformed};
use crate::state::write::Identity;

/// Writes for which room is made before they are read: what a damaged command claims to hold costs no memory.
const WRITES_AT_FIRST: usize = 1_024;

/// The writes of one command.
#[derive(Debug)]
pub(crate) struct Writes<'a> {
    writes: Vec<WriteRef>,
    items: Vec<ItemRef<'a>>,
}

/// A write; its items are asked of [`Writes::items`].
#[derive(Debug, Clone)]
pub(crate) struct WriteRef {
    pub(crate) namespace: NamespaceId,
    pub(crate) generation: Generation,
    pub(crate) identity: Option<Identity>,
    pub(crate) is_delete: bool,
    items: Range<usize>,
}

/// An item of a record, or the term of a delete.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ItemRef<'a> {
    pub(crate) number: u32,
    pub(crate) term: &'a str,
    pub(crate) count: u64,
    pub(crate) display: Option<&'a str>,
}

impl<'a> Writes<'a> {
    pub(crate) fn decode(command: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = versioned(command)?;
        let count = cursor.length()?;
        if count > cursor.left() / 16 {
            return Err(cursor.malformed("more clients than the command holds"));
        }
        let mut clients = Vec::with_capacity(count);
        for _ in 0..count {
            clients.push((ClientId(cursor.array()?), 0));
        }
        let count = cursor.length()?;
        let room = count.min(WRITES_AT_FIRST);
        let mut decoder = Decoder {
            cursor,
            clients,
            last_namespace: None,
            last_issued_ms: 0,
            out: Self {
                writes: Vec::with_capacity(room),
                items: Vec::with_capacity(room),
            },
        };
        for _ in 0..count {
            decoder.write()?;
        }
        decoder.cursor.finish()?;
        Ok(decoder.out)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &WriteRef> {
        self.writes.iter()
    }

    /// The items of one of these writes; exactly one for a delete.
    pub(crate) fn items(&self, write: &WriteRef) -> &[ItemRef<'a>] {
        self.items.get(write.items.clone()).unwrap_or_default()
    }
}

/// Reads a command of kind [`super::KIND_CLEAR`].
pub(crate) fn clear(command: &[u8]) -> Result<(NamespaceId, Generation), Malformed> {
    let mut cursor = versioned(command)?;
    let namespace = NamespaceId(cursor.number_u32()?);
    let generation = Generation(cursor.number()?);
    cursor.finish()?;
    Ok((namespace, generation))
}

/// Reads a command of kind [`super::KIND_CONFIGURE`].
pub(crate) fn configure(command: &[u8]) -> Result<u64, Malformed> {
    let mut cursor = versioned(command)?;
    let repeat_table_bytes = cursor.number()?;
    cursor.finish()?;
    Ok(repeat_table_bytes)
}

/// A command of kind [`super::KIND_EVICT`].
#[derive(Debug)]
pub(crate) struct Eviction<'a> {
    pub(crate) namespace: NamespaceId,
    pub(crate) generation: Generation,
    pub(crate) count_max: u64,
    pub(crate) terms: Vec<&'a str>,
}

impl<'a> Eviction<'a> {
    pub(crate) fn decode(command: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = versioned(command)?;
        let namespace = NamespaceId(cursor.number_u32()?);
        let generation = Generation(cursor.number()?);
        let count_max = cursor.number()?;
        let count = cursor.length()?;
        let mut terms = Vec::new();
        for _ in 0..count {
            let len = cursor.length()?;
            terms.push(cursor.text(len)?);
        }
        cursor.finish()?;
        Ok(Self {
            namespace,
            generation,
            count_max,
            terms,
        })
    }
}

fn versioned(command: &[u8]) -> Result<Cursor<'_>, Malformed> {
    let mut cursor = Cursor::new(command);
    if cursor.byte()? != VERSION {
        return Err(cursor.malformed("a format version that this program does not know"));
    }
    Ok(cursor)
}

struct Decoder<'a> {
    cursor: Cursor<'a>,
    /// With the sequence of the write before.
    clients: Vec<(ClientId, u64)>,
    last_namespace: Option<(NamespaceId, Generation)>,
    last_issued_ms: i64,
    out: Writes<'a>,
}

impl Decoder<'_> {
    fn write(&mut self) -> Result<(), Malformed> {
        let flags = self.cursor.byte()?;
        let known = FLAG_IDENTITY | FLAG_DELETE | FLAG_SAME_NAMESPACE | FLAG_SINGLE;
        let both = FLAG_DELETE | FLAG_SINGLE;
        if flags & !known != 0 || flags & both == both {
            return Err(self.cursor.malformed("unknown flags"));
        }
        let has = |flag| flags & flag != 0;
        let (namespace, generation) = self.namespace(has(FLAG_SAME_NAMESPACE))?;
        let identity = has(FLAG_IDENTITY).then(|| self.identity()).transpose()?;
        let start = self.out.items.len();
        if has(FLAG_DELETE) {
            self.deleted_term()?;
        } else {
            self.items(has(FLAG_SINGLE))?;
        }
        self.out.writes.push(WriteRef {
            namespace,
            generation,
            identity,
            is_delete: has(FLAG_DELETE),
            items: start..self.out.items.len(),
        });
        Ok(())
    }

    fn namespace(&mut self, same: bool) -> Result<(NamespaceId, Generation), Malformed> {
        if same {
            return self
                .last_namespace
                .ok_or_else(|| self.cursor.malformed("no write before this one"));
        }
        let namespace = NamespaceId(self.cursor.number_u32()?);
        let generation = Generation(self.cursor.number()?);
        self.last_namespace = Some((namespace, generation));
        Ok((namespace, generation))
    }

    fn identity(&mut self) -> Result<Identity, Malformed> {
        let place = self.cursor.number()?;
        let delta = self.cursor.signed()?;
        let place = usize::try_from(place).unwrap_or(usize::MAX);
        let (client, sequence) = self
            .clients
            .get_mut(place)
            .ok_or_else(|| self.cursor.malformed("no such client"))?;
        *sequence = sequence.wrapping_add(delta.cast_unsigned());
        let (client, sequence) = (*client, *sequence);
        self.last_issued_ms = self.last_issued_ms.wrapping_add(self.cursor.signed()?);
        let acked_below = sequence.wrapping_sub(self.cursor.number()?);
        let fingerprint = u64::from_le_bytes(self.cursor.array()?);
        let id = RequestId {
            client,
            sequence,
            issued_at_ms: self.last_issued_ms,
            acked_below,
        };
        Ok(Identity { id, fingerprint })
    }

    fn deleted_term(&mut self) -> Result<(), Malformed> {
        let (term, has_display) = self.term()?;
        if has_display {
            return Err(self.cursor.malformed("a delete with a display form"));
        }
        self.out.items.push(ItemRef {
            number: 0,
            term,
            count: 0,
            display: None,
        });
        Ok(())
    }

    fn items(&mut self, single: bool) -> Result<(), Malformed> {
        let count = if single { 1 } else { self.cursor.length()? };
        let mut next = 0_u32;
        for _ in 0..count {
            let mut number = 0;
            if !single {
                number = next.saturating_add(self.cursor.number_u32()?);
                next = number.saturating_add(1);
            }
            if number >= ITEMS_MAX {
                return Err(self.cursor.malformed("number of an item above its limit"));
            }
            let (term, has_display) = self.term()?;
            let count = self.cursor.number()?;
            let display = has_display.then(|| self.display()).transpose()?;
            self.out.items.push(ItemRef {
                number,
                term,
                count,
                display,
            });
        }
        Ok(())
    }
}

impl<'a> Decoder<'a> {
    fn term(&mut self) -> Result<(&'a str, bool), Malformed> {
        let coded = self.cursor.number()?;
        let len = usize::try_from(coded >> 1).unwrap_or(usize::MAX);
        Ok((self.cursor.text(len)?, coded & 1 == 1))
    }

    fn display(&mut self) -> Result<&'a str, Malformed> {
        let len = self.cursor.length()?;
        self.cursor.text(len)
    }
}
