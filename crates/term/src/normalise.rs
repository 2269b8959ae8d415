//! The rule itself.
//!
//! ASCII text, by far the most common, takes a path of its own that copies at most once; it gives what the long path
//! gives, which the tests check. On the long path the text may grow before the limits are looked at: by at most a factor
//! of 18 in bytes for each of two normalisations, from input that the callers bound.

use std::borrow::Cow;

use icu_casemap::CaseMapperBorrowed;
use icu_normalizer::ComposingNormalizerBorrowed;

#[cfg(test)]
mod tests;

/// What happens to spaces at the ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    /// None stays.
    Trimmed,
    /// One stays at the end, where something stands before it.
    SpaceKeptAtEnd,
}

/// Makes the key of `raw`. Borrowed where `raw` is its own key.
pub(crate) fn normalise(raw: &str, ends: Ends) -> Cow<'_, str> {
    if raw.is_ascii() {
        let mut text = tidy(Cow::Borrowed(raw), ends);
        if text.bytes().any(|b| b.is_ascii_uppercase()) {
            text.to_mut().make_ascii_lowercase();
        }
        return text;
    }
    let nfkc = ComposingNormalizerBorrowed::new_nfkc();
    let composed = nfkc.normalize(raw);
    let folded = CaseMapperBorrowed::new().fold_string(&composed);
    let key = nfkc.normalize(&folded);
    Cow::Owned(tidy(key, ends).into_owned())
}

/// Whether text is ASCII and its own key, whose ends are trimmed: what most terms that programs send are. False says nothing.
pub(crate) fn is_ascii_key(raw: &str) -> bool {
    let mut after_space = true;
    for byte in raw.bytes() {
        let is_space = byte == b' ';
        let is_kept = matches!(byte, b'!'..=b'@' | b'['..=b'~');
        if !is_kept && (!is_space || after_space) {
            return false;
        }
        after_space = is_space;
    }
    !after_space
}

/// Makes runs of white space and control characters one space, and sees to the ends. Borrowed where nothing changes.
pub(crate) fn tidy(text: Cow<'_, str>, ends: Ends) -> Cow<'_, str> {
    if is_tidy(&text, ends) {
        return text;
    }
    let mut tidied = String::with_capacity(text.len());
    let mut gap = false;
    for c in text.chars() {
        if is_gap(c) {
            gap = true;
            continue;
        }
        if gap && !tidied.is_empty() {
            tidied.push(' ');
        }
        gap = false;
        tidied.push(c);
    }
    if gap && !tidied.is_empty() && ends == Ends::SpaceKeptAtEnd {
        tidied.push(' ');
    }
    Cow::Owned(tidied)
}

fn is_tidy(text: &str, ends: Ends) -> bool {
    let mut after_gap = true;
    for c in text.chars() {
        let gap = is_gap(c);
        if gap && (after_gap || c != ' ') {
            return false;
        }
        after_gap = gap;
    }
    text.is_empty() || !after_gap || ends == Ends::SpaceKeptAtEnd
}

/// White space (Unicode property `White_Space`) and control characters (`Cc`). Written out, because the standard
/// library's tables follow another release of Unicode than this crate's.
fn is_gap(c: char) -> bool {
    matches!(
        c,
        '\u{0}'..='\u{20}'
            | '\u{7f}'..='\u{a0}'
            | '\u{1680}'
            | '\u{2000}'..='\u{200a}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{202f}'
            | '\u{205f}'
            | '\u{3000}'
    )
}
