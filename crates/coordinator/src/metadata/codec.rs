//! How numbers and texts of the metadata are written: little endian, every length before what it measures.

use cluster::Layout;
use cluster::ShardId;

/// Bytes of one text (names, addresses); longer ones are no metadata of ours.
pub(crate) const TEXT_BYTES_MAX: usize = 4096;
/// Elements of one list.
pub(crate) const LIST_MAX: usize = 1 << 20;

/// Why bytes are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("{field} ends early")]
    Short { field: &'static str },
    #[error("{field} is not UTF-8")]
    Text { field: &'static str },
    #[error("{field}: length {length} is above {limit}")]
    Length {
        field: &'static str,
        length: usize,
        limit: usize,
    },
    #[error("{field}: {problem}")]
    Value {
        field: &'static str,
        problem: String,
    },
    #[error("{bytes} bytes are left over")]
    Trailing { bytes: usize },
}

/// Appends values to a buffer.
#[derive(Debug, Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

impl Writer {
    pub(crate) fn u8(&mut self, value: u8) {
        self.0.push(value);
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(crate) fn bool(&mut self, value: bool) {
        self.u8(u8::from(value));
    }

    /// Whether there is one, and then the value; the twin of [`Reader::option`].
    pub(crate) fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.bool(value.is_some());
        if let Some(value) = value {
            write(self, value);
        }
    }

    pub(crate) fn fixed(&mut self, value: &[u8]) {
        self.0.extend_from_slice(value);
    }

    pub(crate) fn len(&mut self, length: usize) {
        self.u32(u32::try_from(length).unwrap_or(u32::MAX));
    }

    pub(crate) fn text(&mut self, value: &str) {
        self.len(value.len());
        self.fixed(value.as_bytes());
    }

    pub(crate) fn layout(&mut self, layout: &Layout) {
        self.len(layout.starts().len());
        for (start, shard) in layout.starts() {
            self.text(start);
            self.u64(shard.0);
        }
    }
}

/// Takes values from the front of a buffer.
#[derive(Debug)]
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn fixed<const N: usize>(
        &mut self,
        field: &'static str,
    ) -> Result<[u8; N], CodecError> {
        let (value, rest) = self
            .0
            .split_first_chunk::<N>()
            .ok_or(CodecError::Short { field })?;
        self.0 = rest;
        Ok(*value)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, CodecError> {
        Ok(u8::from_le_bytes(self.fixed(field)?))
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, CodecError> {
        Ok(u32::from_le_bytes(self.fixed(field)?))
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, CodecError> {
        Ok(u64::from_le_bytes(self.fixed(field)?))
    }

    pub(crate) fn i64(&mut self, field: &'static str) -> Result<i64, CodecError> {
        Ok(i64::from_le_bytes(self.fixed(field)?))
    }

    pub(crate) fn bool(&mut self, field: &'static str) -> Result<bool, CodecError> {
        match self.u8(field)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(CodecError::Value {
                field,
                problem: format!("{other} is neither 0 nor 1"),
            }),
        }
    }

    fn len(&mut self, field: &'static str, limit: usize) -> Result<usize, CodecError> {
        let length = usize::try_from(self.u32(field)?).unwrap_or(usize::MAX);
        if length > limit {
            return Err(CodecError::Length {
                field,
                length,
                limit,
            });
        }
        Ok(length)
    }

    pub(crate) fn text(&mut self, field: &'static str) -> Result<String, CodecError> {
        let length = self.len(field, TEXT_BYTES_MAX)?;
        let (value, rest) = self
            .0
            .split_at_checked(length)
            .ok_or(CodecError::Short { field })?;
        self.0 = rest;
        let value: &'a str = std::str::from_utf8(value).map_err(|_| CodecError::Text { field })?;
        Ok(value.to_owned())
    }

    /// A list of which each element is read by `read`. Nothing is reserved by the declared length alone.
    pub(crate) fn list<T>(
        &mut self,
        field: &'static str,
        mut read: impl FnMut(&mut Self) -> Result<T, CodecError>,
    ) -> Result<Vec<T>, CodecError> {
        let length = self.len(field, LIST_MAX)?;
        let mut list = Vec::new();
        for _ in 0..length {
            list.push(read(self)?);
        }
        Ok(list)
    }

    pub(crate) fn option<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(&mut Self) -> Result<T, CodecError>,
    ) -> Result<Option<T>, CodecError> {
        Ok(if self.bool(field)? {
            Some(read(self)?)
        } else {
            None
        })
    }

    pub(crate) fn layout(&mut self, field: &'static str) -> Result<Layout, CodecError> {
        let ranges = self.list(field, |reader| {
            Ok((reader.text(field)?, ShardId(reader.u64(field)?)))
        })?;
        Layout::new(ranges).map_err(|error| CodecError::Value {
            field,
            problem: error.to_string(),
        })
    }

    pub(crate) fn end(self) -> Result<(), CodecError> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err(CodecError::Trailing {
                bytes: self.0.len(),
            })
        }
    }
}
