use proptest::prelude::*;

use super::*;
use crate::{
    DISPLAY_BYTES_MAX, Prefix, RAW_BYTES_MAX, Surface, TERM_BYTES_MAX, Term, TermError,
    display_form,
};

fn key(raw: &str) -> String {
    normalise(raw, Ends::Trimmed).into_owned()
}

fn prefix(raw: &str) -> String {
    normalise(raw, Ends::SpaceKeptAtEnd).into_owned()
}

/// The long path, whatever the text.
fn key_by_tables(raw: &str, ends: Ends) -> String {
    let nfkc = ComposingNormalizerBorrowed::new_nfkc();
    let folded = CaseMapperBorrowed::new()
        .fold_string(&nfkc.normalize(raw))
        .into_owned();
    tidy(nfkc.normalize(&folded), ends).into_owned()
}

fn scalars() -> impl Iterator<Item = char> {
    ('\u{0}'..=char::MAX).filter(|c| !matches!(*c as u32, 0xf0000..)) // planes 15 and 16 are for private use only
}

/// What folds oddly, composes, decomposes, joins, or is a gap.
const AWKWARD: &str = "abAIisßẞſΣσςİıŉǰΐᾳᾼαωﬁﬀÅ\u{212b}ΩᲐაᎠꭰ\u{300}\u{301}\u{307}\u{308}\u{30c}\u{323}\u{331}\u{338}\
    \u{342}\u{345}\u{34f}\u{5b0}\u{64b}\u{e38}¨´\u{200b}\u{200c}\u{200d}\u{fe0f}\u{feff}\u{ad}\u{20}\t\n\u{0}\u{7f}\u{85}\
    \u{a0}\u{1680}\u{2028}\u{3000}Ａｶﾞ가각\u{1100}\u{1161}\u{11a8}ﷺ½①𝐀🤦🏽♂\u{fffd}\u{1d165}";

/// Text that comes close to the edges of the rule far more often than arbitrary text does.
fn text() -> impl Strategy<Value = String> {
    let awkward = prop::sample::select(AWKWARD.chars().collect::<Vec<_>>());
    prop_oneof![
        prop::collection::vec(prop_oneof![8 => awkward, 1 => any::<char>()], 0..24)
            .prop_map(|v| v.into_iter().collect()),
        any::<String>(),
        "[ -~\t\r\n]{0,40}",
    ]
}

#[test]
fn vectors() {
    let cases = [
        ("Paris", "paris"),
        ("  New   York ", "new york"),
        ("tab\tand\r\nline", "tab and line"),
        ("nul\u{0}in\u{7f}it", "nul in it"),
        ("NO\u{a0}BREAK", "no break"),
        ("ideographic\u{3000}space", "ideographic space"),
        ("line\u{2028}separator\u{85}next", "line separator next"),
        ("ὈΔΥΣΣΕΎΣ", "ὀδυσσεύσ"),
        ("ὀδυσσεύς", "ὀδυσσεύσ"),
        ("Straße", "strasse"),
        ("STRASSE", "strasse"),
        ("STRAẞE", "strasse"),
        ("İstanbul", "i\u{307}stanbul"),
        ("ISTANBUL", "istanbul"),
        ("ıstanbul", "ıstanbul"),
        ("Cafe\u{301}", "café"),
        ("café", "café"),
        ("q\u{323}\u{307}", "q\u{323}\u{307}"),
        ("q\u{307}\u{323}", "q\u{323}\u{307}"),
        ("J\u{30c}", "ǰ"),
        ("ǰ", "ǰ"),
        ("\u{391}\u{345}", "αι"),
        ("ᾼ", "αι"),
        ("α\u{345}\u{301}", "άι"),
        ("ﬁnance ﬄ", "finance ffl"),
        ("Ｆｕｌｌ　Ｗｉｄｔｈ", "full width"),
        ("ｶﾞｷﾞ", "ガギ"),
        ("\u{1100}\u{1161}\u{11a8}", "각"),
        ("①½㎏", "11⁄2kg"),
        ("K \u{212b} Ω", "k å ω"),
        ("Ŀ", "l·"),
        ("ŉ", "ʼn"),
        ("𝐀𝓑", "ab"),
        ("ﷺ", "صلى الله عليه وسلم"),
        ("¨", "\u{308}"),
        ("a¨", "a \u{308}"),
        ("Ა", "ა"),
        ("ꭰ", "Ꭰ"),
        ("🤦🏽\u{200d}♂\u{fe0f}", "🤦🏽\u{200d}♂\u{fe0f}"),
        (
            "👩\u{200d}👩\u{200d}👧 Family",
            "👩\u{200d}👩\u{200d}👧 family",
        ),
        ("\u{a0}\u{200b}x", "\u{200b}x"),
        ("نامه\u{200c}ای", "نامه\u{200c}ای"),
        ("क्\u{200d}ष", "क्\u{200d}ष"),
    ];
    for (raw, expected) in cases {
        assert_eq!(key(raw), expected, "key of {raw:?}");
    }
}

#[test]
fn one_trailing_space_of_a_prefix_is_significant() {
    let cases = [
        ("new ", "new "),
        ("New  \t", "new "),
        (" new", "new"),
        ("new\u{3000}", "new "),
        ("new\u{0}", "new "),
        ("é ", "é "),
        ("", ""),
        (" ", ""),
        (" \u{3000}\t\u{0}", ""),
    ];
    for (raw, expected) in cases {
        assert_eq!(prefix(raw), expected, "prefix of {raw:?}");
    }
    assert!(!key("Newark").starts_with(&prefix("new ")));
    assert!(key("New York").starts_with(&prefix("new ")));
}

#[test]
fn gaps_are_white_space_and_control_characters() {
    for c in scalars() {
        // The standard library's release of Unicode differs, but not in these two sets.
        assert_eq!(is_gap(c), c.is_whitespace() || c.is_control(), "{c:?}");
    }
}

#[test]
fn tables_are_of_the_release_that_is_recorded() {
    assert_eq!(crate::UNICODE_VERSION, "18.0.0");
    // A capital letter that release added; in tables of an earlier one it is unassigned and folds to itself.
    assert_eq!(key("\u{558}"), "\u{567}");
}

#[test]
fn every_character_is_stable_after_one_pass_alone_and_beside_marks() {
    let marks = [
        '\u{300}', '\u{301}', '\u{307}', '\u{308}', '\u{30c}', '\u{323}', '\u{327}', '\u{338}',
        '\u{342}', '\u{345}', '\u{3099}',
    ];
    let mut text = String::new();
    for c in scalars() {
        text.clear();
        text.push(c);
        let once = key(&text);
        assert_eq!(key(&once), once, "{c:?}");
        let shown = display_form(&text);
        assert_eq!(key(&shown), once, "display form of {c:?}");
        assert!(
            shown.len() <= 4 * once.len(),
            "{c:?} grows to {shown:?} from {once:?}"
        );
        if once == text && c as u32 > 0x3400 {
            continue; // what neither folds nor decomposes needs no company
        }
        for mark in marks {
            for pair in [[c, mark], [mark, c]] {
                let once = key(&String::from_iter(pair));
                assert_eq!(key(&once), once, "{pair:?}");
            }
            let triple = [c, mark, '\u{345}'];
            let once = key(&String::from_iter(triple));
            assert_eq!(key(&once), once, "{triple:?}");
        }
    }
}

#[test]
fn limits_are_exact() {
    assert_eq!(Term::new(""), Err(TermError::Empty));
    assert_eq!(Term::new("\u{3000}\t\u{0}"), Err(TermError::Empty));
    assert_eq!(
        Term::new(&"A".repeat(TERM_BYTES_MAX)).unwrap().as_str(),
        "a".repeat(TERM_BYTES_MAX)
    );
    assert_eq!(
        Term::new(&"a".repeat(257)),
        Err(TermError::TooLong {
            bytes: 257,
            limit: 256
        })
    );
    // Normalising comes first: text may shrink into the limit and grow out of it.
    assert!(Term::new(&"Ａ".repeat(TERM_BYTES_MAX)).is_ok());
    assert!(Term::new(&format!("{}a", " ".repeat(RAW_BYTES_MAX - 1))).is_ok());
    assert_eq!(
        Term::new(&"ﷺ".repeat(8)),
        Err(TermError::TooLong {
            bytes: 8 * 33,
            limit: 256
        })
    );
    let raw = " ".repeat(RAW_BYTES_MAX + 1);
    assert_eq!(
        Term::new(&raw),
        Err(TermError::RawTooLong {
            bytes: 4097,
            limit: 4096
        })
    );
    assert_eq!(
        Prefix::new(&raw),
        Err(TermError::RawTooLong {
            bytes: 4097,
            limit: 4096
        })
    );
    assert!(Prefix::new(&raw[1..]).unwrap().is_empty());
    assert_eq!(
        Prefix::new(&format!("{}  ", "a".repeat(255)))
            .unwrap()
            .as_bytes()
            .len(),
        256
    );
    assert_eq!(
        Prefix::new(&format!("{} ", "a".repeat(256))),
        Err(TermError::TooLong {
            bytes: 257,
            limit: 256
        })
    );
    assert_eq!(
        TermError::TooLong {
            bytes: 257,
            limit: 256
        }
        .to_string(),
        "has 257 bytes after normalising, more than the limit of 256"
    );
}

#[test]
fn display_is_kept_only_where_it_differs() {
    let parse = |raw: &str| {
        let (term, display) = Surface::parse(raw).unwrap().into_parts();
        (term.into_string(), display.map(String::from))
    };
    assert_eq!(parse("paris"), ("paris".into(), None));
    assert_eq!(parse("  paris\t"), ("paris".into(), None));
    assert_eq!(parse("cafe\u{301}"), ("café".into(), None));
    assert_eq!(
        parse(" São   Paulo "),
        ("são paulo".into(), Some("São Paulo".into()))
    );
    assert_eq!(
        parse("Ｔｏｋｙｏ"),
        ("tokyo".into(), Some("Ｔｏｋｙｏ".into()))
    );
    assert_eq!(parse("ﬁne"), ("fine".into(), Some("ﬁne".into())));
    let widest = "𝐀".repeat(TERM_BYTES_MAX);
    assert_eq!(
        Surface::parse(&widest).unwrap().display().unwrap().len(),
        DISPLAY_BYTES_MAX
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn idempotent(raw in text()) {
        let once = key(&raw);
        prop_assert_eq!(key(&once), once);
        let once = prefix(&raw);
        prop_assert_eq!(prefix(&once), once);
        let once = display_form(&raw);
        prop_assert_eq!(display_form(&once), once);
    }

    #[test]
    fn found_by_its_own_text_and_by_what_is_shown(raw in text()) {
        let term = key(&raw);
        let typed = prefix(&raw);
        prop_assert_eq!(typed.trim_end_matches(' '), &term);
        if !raw.ends_with(is_gap) {
            prop_assert_eq!(&typed, &term);
        }
        let shown = display_form(&raw);
        prop_assert_eq!(&key(&shown), &term);
        prop_assert_eq!(&prefix(&shown), &term);
    }

    #[test]
    fn every_start_of_a_key_is_a_prefix_as_it_stands(raw in text()) {
        let term = key(&raw);
        for (at, _) in term.char_indices() {
            prop_assert_eq!(prefix(&term[..at]), &term[..at]);
        }
    }

    #[test]
    fn keys_are_tidy(raw in text()) {
        let term = key(&raw);
        prop_assert!(!term.starts_with(' ') && !term.ends_with(' ') && !term.contains("  "));
        prop_assert!(!term.chars().any(|c| is_gap(c) && c != ' '));
    }

    #[test]
    fn both_paths_agree_on_ascii(raw in "[\\x00-\\x7f]{0,64}") {
        prop_assert_eq!(key(&raw), key_by_tables(&raw, Ends::Trimmed));
        prop_assert_eq!(prefix(&raw), key_by_tables(&raw, Ends::SpaceKeptAtEnd));
    }

    #[test]
    fn text_that_is_kept_is_its_own_key(raw in "[ -~]{0,6}|[\\x00-\\x7f]{0,64}|[a-z0-9]{250,260}") {
        prop_assert_eq!(is_ascii_key(&raw), !raw.is_empty() && key_by_tables(&raw, Ends::Trimmed) == raw);
        prop_assert_eq!(Surface::from_string(raw.clone()), Surface::parse(&raw));
    }

    #[test]
    fn what_is_kept_or_copied_is_the_same(raw in text()) {
        prop_assert_eq!(Surface::from_string(raw.clone()), Surface::parse(&raw));
    }

    #[test]
    fn case_and_width_do_not_matter(raw in "[a-zA-Z ]{1,40}") {
        let wide: String = raw.chars().map(|c| if c == ' ' { '\u{3000}' } else { char::from_u32(c as u32 + 0xfee0).unwrap() }).collect();
        prop_assert_eq!(key(&raw.to_uppercase()), key(&raw));
        prop_assert_eq!(key(&wide), key(&raw));
    }
}
