//! Dates of section 3.4 of the recorded answers.

use super::python;
use super::random::Random;
use crate::{format_date, parse_date};

#[test]
fn dates_are_read_as_the_cli_reads_them() {
    const NEW_YEAR_2099: i64 = 4_070_908_800;
    for (text, expected) in [
        ("1970-01-01T00:00:00Z", Some(0)),
        ("2099-01-01T00:00:00Z", Some(NEW_YEAR_2099)),
        ("2099-01-01T00:00:00.123456Z", Some(NEW_YEAR_2099)),
        ("2099-01-01T00:00:00+02:00", Some(NEW_YEAR_2099 - 7200)),
        ("2099-01-01T00:00:00-0500", Some(NEW_YEAR_2099 + 18_000)),
        ("2099-01-01T00:00:00UTC", Some(NEW_YEAR_2099)),
        ("2099-01-01 00:00:00 UTC", Some(NEW_YEAR_2099)),
        ("20990101T000000Z", Some(NEW_YEAR_2099)),
        ("2099-01-01T00:00Z", Some(NEW_YEAR_2099)),
        ("Thu, 01 Jan 2099 00:00:00 GMT", Some(NEW_YEAR_2099)),
        ("Fri, 27 Nov 2026 09:12:05 GMT", Some(1_795_770_725)),
        ("2000-02-29T12:00:00Z", Some(951_825_600)),
        ("2099-01-01T00:00:00", None),
        ("2099-01-01 00:00:00", None),
        ("2099-01-01", None),
        ("4070908800", None),
        ("", None),
        ("2099-02-29T00:00:00Z", None),
        ("2099-01-01T24:00:00Z", None),
        ("2099-01-01T00:00:00+2", None),
        ("2099-1-1T00:00:00Z", None),
        ("ääää-01-01T00:00:00Z", None),
        ("Thu, 1 Foo 2099 00:00:00 GMT", None),
    ] {
        assert_eq!(parse_date(text), expected, "{text}");
    }
}

#[test]
fn dates_are_written_as_the_cli_writes_them() {
    for (seconds, text) in [
        (0, "1970-01-01T00:00:00Z"),
        (-1, "1969-12-31T23:59:59Z"),
        (951_825_600, "2000-02-29T12:00:00Z"),
        (1_795_770_725, "2026-11-27T09:12:05Z"),
        (i64::MIN, "0001-01-01T00:00:00Z"),
        (i64::MAX, "9999-12-31T23:59:59Z"),
    ] {
        assert_eq!(format_date(seconds), text);
    }
    // A step of about 40 days and an odd time, over all years.
    let mut at = -62_135_596_800;
    while at <= 253_402_300_799 {
        assert_eq!(parse_date(&format_date(at)), Some(at));
        at += 3_456_789;
    }
}

const SCRIPT: &str = r#"
import json, math, sys
from dateutil.parser import parse

def seconds(text):
    try:
        date = parse(text)
        return math.floor(date.timestamp()) if date.tzinfo else None
    except (ValueError, OverflowError):
        return None

lines = [json.loads(line) for line in sys.stdin]
for line in lines:
    print(json.dumps(seconds(line)))
"#;

/// python-dateutil guesses more forms than ours; it must agree about all that ours reads.
#[test]
fn generated_dates_are_read_as_dateutil_reads_them() {
    const SEED: u64 = 0x5EED_DA7E;
    println!("seed {SEED:#x}");
    let mut random = Random::new(SEED);
    let dates = [
        "2026-11-30",
        "2024-02-29",
        "20261130",
        "1999-12-31",
        "Mon, 30 Nov 2026",
        "2026-1-2",
        "2026-02-30",
        "2026-04-31",
        "Thu, 1 Jan 1970",
    ];
    let times = [
        "T00:00:00",
        " 23:59:59",
        "T235959",
        "T12:30",
        " 12:30:15.25",
        "T24:00:00",
        "T12:60",
    ];
    let offsets = [
        "Z", "UTC", " GMT", "+02:00", "-0500", "+05", " +0000", "", "+1:00", "-23:59",
    ];
    let text = |random: &mut Random| {
        let mut parts = [
            random.pick(&dates),
            random.pick(&times),
            random.pick(&offsets),
        ]
        .concat();
        if random.below(8) == 0 {
            let at = random.below(parts.len());
            parts.replace_range(at..=at, random.pick(&["0", ":", "-", " ", "x", "9"]));
        }
        parts
    };
    let texts: Vec<String> = (0..3_000).map(|_| text(&mut random)).collect();
    let lines: Vec<String> = texts
        .iter()
        .map(|text| serde_json::json!(text).to_string())
        .collect();
    let Some(expected) = python::run("import dateutil.parser", SCRIPT, &lines) else {
        return;
    };
    let mut read = 0;
    for (text, expected) in texts.iter().zip(&expected) {
        if let Some(ours) = parse_date(text) {
            assert_eq!(Some(ours), expected.as_i64(), "{text}");
            read += 1;
        }
    }
    println!("{read} read by both");
    assert!(read > 500, "{read}");
}
