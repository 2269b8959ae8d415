//! Bulk load.

use crate::assembler::Assembler;
use crate::bucket::common_prefix;
use crate::dictionary::Dictionary;
use crate::display::{self, Display};
use crate::error::{RecordError, check};
use crate::options::Options;

/// Builds a dictionary from terms that come in ascending order: much faster than recording them one by one,
/// and with better filled buckets.
///
/// ```
/// use trie_core::{Builder, Options};
///
/// let mut builder = Builder::new(Options::default());
/// builder.push(b"ant", 3, None)?;
/// builder.push(b"bee", 4, Some(b"Bee"))?;
/// let dict = builder.finish();
/// assert_eq!(dict.total(), 7);
/// # Ok::<(), trie_core::RecordError>(())
/// ```
pub struct Builder {
    options: Options,
    assembler: Assembler,
    len: u64,
    total: u128,
    text_bytes: u64,
    display_bytes: u64,
    /// Code of the display form of the term at hand.
    code: Vec<u8>,
}

impl std::fmt::Debug for Builder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Builder")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl Builder {
    /// Begins an empty dictionary.
    #[must_use]
    pub fn new(options: Options) -> Self {
        let options = options.in_range();
        Self {
            options,
            assembler: Assembler::full(options),
            len: 0,
            total: 0,
            text_bytes: 0,
            display_bytes: 0,
            code: Vec::new(),
        }
    }

    /// Adds a term, which must come after the one before. A display form that equals the term is not
    /// kept.
    ///
    /// # Errors
    /// [`RecordError`] except `Overflow`; nothing was added then, and the load can go on.
    pub fn push(
        &mut self,
        term: &[u8],
        count: u64,
        display: Option<&[u8]>,
    ) -> Result<(), RecordError> {
        check(term, count, display)?;
        let last = self.assembler.last();
        let shared = common_prefix(term, last);
        if term[shared..] <= last[shared..] {
            return Err(RecordError::OutOfOrder { position: self.len });
        }
        let display = display.filter(|&display| display != term);
        self.code.clear();
        if let Some(form) = display {
            display::put(&mut self.code, term, form);
        }
        let code = std::mem::take(&mut self.code);
        let coded = display.and_then(|_| Display::get(&code, &mut 0));
        self.push_coded(term, shared, count, coded);
        self.code = code;
        Ok(())
    }

    /// Adds a term that was checked, comes after the one before, and shares exactly `shared` bytes with it.
    pub(crate) fn push_coded(
        &mut self,
        term: &[u8],
        shared: usize,
        count: u64,
        display: Option<Display<'_>>,
    ) {
        self.assembler.push(term, shared, count, display);
        self.len += 1;
        self.total += u128::from(count);
        self.text_bytes += term.len() as u64;
        self.display_bytes += display.map_or(0, |form| form.len_for(term.len())) as u64;
    }

    /// The dictionary.
    #[must_use]
    pub fn finish(self) -> Dictionary {
        let (slots, mut memory) = self.assembler.finish();
        memory.text_bytes = self.text_bytes;
        memory.display_bytes = self.display_bytes;
        Dictionary::from_parts(self.options, slots, memory, (self.len, self.total))
    }
}
