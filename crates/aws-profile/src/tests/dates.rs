//! Dates of section 3.4 of the recorded answers.

use crate::parse_date;

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
