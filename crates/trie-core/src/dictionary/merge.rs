//! Joining two dictionaries.

use super::Dictionary;
use crate::error::RecordError;

impl Dictionary {
    /// Adds all counts of `other` to this one. Where a term is in both, this one's display form stays.
    ///
    /// # Errors
    /// [`RecordError::Overflow`] if a sum does not fit 64 bits; nothing was changed then.
    pub fn merge(&mut self, other: &Self) -> Result<(), RecordError> {
        let mut cursor = other.cursor();
        while let Some((term, add, _)) = cursor.next_coded() {
            let count = self.count(term);
            if count.checked_add(add).is_none() {
                return Err(RecordError::Overflow { count, add });
            }
        }
        let mut cursor = other.cursor();
        while let Some((term, add, display)) = cursor.next_coded() {
            let form = display.map(|display| display.of(term));
            self.record(term, add, form.as_deref())?;
        }
        Ok(())
    }
}
