use std::io::BufReader;

use proptest::prelude::*;

use super::*;

fn all(text: &[u8], format: Format) -> Vec<Line> {
    // A tiny buffer, so that lines lie across its borders.
    let mut lines = Lines::new(BufReader::with_capacity(7, text), format);
    let mut found = Vec::new();
    while let Some(line) = lines.next().unwrap() {
        found.push(line);
    }
    found
}

fn good(number: u64, term: &str, count: u64) -> Line {
    let term = term.to_owned();
    Line {
        number,
        item: Ok(RecordItem { term, count }),
    }
}

fn reasons(text: &[u8], format: Format) -> Vec<(u64, String)> {
    all(text, format)
        .into_iter()
        .filter_map(|line| Some((line.number, line.item.err()?.to_string())))
        .collect()
}

#[test]
fn both_forms_are_read_and_empty_lines_counted_but_not_taken() {
    let text = "\u{feff}New York\t12\n\nplain line\r\nlast\t1000000000000".as_bytes();
    assert_eq!(
        all(text, Format::Auto),
        [
            good(1, "New York", 12),
            good(3, "plain line", 1),
            good(4, "last", 1_000_000_000_000),
        ]
    );
}

#[test]
fn the_format_can_be_fixed() {
    assert_eq!(all(b"a\tb", Format::Lines), [good(1, "a\tb", 1)]);
    let found = reasons(b"a\nb\t1\n", Format::Tsv);
    assert_eq!(
        found,
        [(1, "has no count (expected term<TAB>count)".to_owned())]
    );
}

#[test]
fn a_third_column_is_the_spelling_to_record() {
    let text = "berlin\t5\tBerlin\nbonn\t3\t\nkoeln\t2\tK\u{f6}ln\n".as_bytes();
    let found = all(text, Format::Auto);
    assert_eq!(found[0], good(1, "Berlin", 5));
    assert_eq!(found[1], good(2, "bonn", 3));
    assert_eq!(found[2].item, Err(BadLine::OtherDisplay));
}

#[test]
fn every_bad_line_says_what_is_wrong_and_the_next_is_read() {
    let mut text = Vec::new();
    for line in [
        "x\t0",
        "x\t-1",
        "x\t1000000000001",
        "x\t",
        "x\t1\tx\tx",
        " \t1",
        "ok\t1",
    ] {
        text.extend_from_slice(line.as_bytes());
        text.push(b'\n');
    }
    text.extend_from_slice(b"\xff\t1\n");
    text.extend_from_slice("y".repeat(300).as_bytes());
    text.push(b'\n');
    text.extend_from_slice("z".repeat(LINE_BYTES_MAX + 1).as_bytes());
    text.extend_from_slice(b"\nok\n");
    let found = reasons(&text, Format::Auto);
    let starts: Vec<_> = found
        .iter()
        .map(|(number, reason)| (*number, reason.as_str()))
        .collect();
    assert_eq!(
        starts,
        [
            (1, "has \"0\" as count, expected 1 to 1000000000000"),
            (2, "has \"-1\" as count, expected 1 to 1000000000000"),
            (
                3,
                "has \"1000000000001\" as count, expected 1 to 1000000000000"
            ),
            (4, "has \"\" as count, expected 1 to 1000000000000"),
            (5, "has more than three columns"),
            (
                6,
                "its term must not be empty, nor consist of white space and control characters only"
            ),
            (8, "is not UTF-8"),
            (
                9,
                "its term has 300 bytes after normalising, more than the limit of 256"
            ),
            (10, "has more than 8256 bytes"),
        ]
    );
    assert_eq!(all(&text, Format::Auto).last(), Some(&good(11, "ok", 1)));
}

proptest! {
    #[test]
    fn any_bytes_are_read_to_their_end(text in prop::collection::vec(prop::sample::select(b"ab\t1\n\r\xff \xc3\xa9".to_vec()), 0..200)) {
        let lines = all(&text, Format::Auto);
        prop_assert!(lines.windows(2).all(|pair| pair[0].number < pair[1].number));
        let last = text.split(|&byte| byte == b'\n').count() as u64;
        prop_assert!(lines.iter().all(|line| line.number <= last));
    }
}
