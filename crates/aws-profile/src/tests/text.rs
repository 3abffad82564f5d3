//! Splitting into words and lines, numbers, and what a section keeps.

use crate::python::{file_lines, integer};
use crate::{FileInput, Files, Reason, UnbalancedQuote, split_posix, split_windows};

#[test]
fn posix_words_are_those_of_shlex() {
    let words: &[(&str, &[&str])] = &[
        ("", &[]),
        ("a b\tc\rd\ne", &["a", "b", "c", "d", "e"]),
        ("a\u{a0}b\u{b}c", &["a\u{a0}b\u{b}c"]),
        ("a\\ b", &["a b"]),
        ("a\\\nb", &["a\nb"]),
        ("'a\\b'", &["a\\b"]),
        ("\"a\\\"b\\\\c\\d\"", &["a\"b\\c\\d"]),
        ("a\"b c\"d", &["ab cd"]),
        ("\"\" ''", &["", ""]),
        ("a #b", &["a", "#b"]),
    ];
    for (text, expected) in words {
        assert_eq!(split_posix(text).unwrap(), *expected, "{text:?}");
    }
    for text in ["'a", "\"a", "a\\", "\"a\\"] {
        assert_eq!(split_posix(text), Err(UnbalancedQuote), "{text:?}");
    }
}

#[test]
fn windows_words_are_those_of_the_c_runtime() {
    let words: &[(&str, &[&str])] = &[
        ("a  b\tc", &["a", "b", "c"]),
        (
            r#""C:\Program Files\p.exe" 'x y'"#,
            &[r"C:\Program Files\p.exe", "'x", "y'"],
        ),
        (r"a\b \\c", &[r"a\b", r"\\c"]),
        (r#"a\"b a\\"b c""#, &["a\"b", r"a\b c"]),
        (r#""" x"#, &["", "x"]),
        (r"x \", &["x", r"\"]),
    ];
    for (text, expected) in words {
        assert_eq!(split_windows(text).unwrap(), *expected, "{text:?}");
    }
    assert_eq!(split_windows("\"a"), Err(UnbalancedQuote));
}

#[test]
fn integers_are_those_of_python() {
    for (text, expected) in [
        ("3600", Some(3600)),
        (" 3_600 ", Some(3600)),
        ("+5", Some(5)),
        ("-5", Some(-5)),
        ("007", Some(7)),
        ("99999999999999999999", Some(i64::MAX)),
        ("1h", None),
        ("", None),
        ("_1", None),
        ("1__0", None),
        ("1.0", None),
        ("- 5", None),
    ] {
        assert_eq!(integer(text), expected, "{text:?}");
    }
}

#[test]
fn lines_end_with_lf_crlf_or_cr() {
    let lines: Vec<&[u8]> = file_lines(b"a\nb\r\nc\rd\n\ne\x0bf").collect();
    let expected: [&[u8]; 6] = [b"a", b"b", b"c", b"d", b"", b"e\x0bf"];
    assert_eq!(lines, expected);
}

#[test]
fn a_whole_file_can_be_unusable() {
    let large = vec![b'#'; crate::MAX_FILE_BYTES + 1];
    for (input, expected) in [
        (FileInput::Contents(b"\xff\xfe[\0"), Reason::Utf16),
        (FileInput::Contents(&large), Reason::TooLarge),
        (
            FileInput::Unreadable("permission denied"),
            Reason::Unreadable("permission denied".to_owned()),
        ),
    ] {
        let files = Files::parse(("c", input), ("s", FileInput::Contents(b"[dev]\na = b\n")));
        let problem = files.profile("dev").unwrap_err();
        assert_eq!(problem.reason, expected);
        assert_eq!(problem.section, None);
    }
    // Row 71: a directory is missing, and the other file counts.
    let credentials = FileInput::Contents(b"[dev]\na = b\n");
    let files = Files::parse(("c", FileInput::Missing), ("s", credentials));
    assert!(files.profile("dev").unwrap().is_some());
}

#[test]
fn values_keep_their_file_and_line() {
    let config =
        "[DEFAULT]\noutput = text\n\n[profile dev]\n# x\ns3 =\n  a = 1\n\n  B=2\nregion=a\n";
    let files = Files::parse(
        ("/c", FileInput::Contents(config.as_bytes())),
        ("/s", FileInput::Contents(b"[dev]\nregion = b\n[x]\n")),
    );
    assert_eq!(files.profile_names(), ["dev", "x"]);
    let profile = files.profile("dev").unwrap().unwrap();
    let line = |key: &str| profile.setting(key).unwrap().unwrap().origin.to_string();
    assert_eq!(line("region"), "/s:2");
    assert_eq!(line("output"), "/c:2");
    assert_eq!(profile.nested("s3"), [("a", "1"), ("B", "2")]);
    assert_eq!(
        profile.setting("s3").unwrap_err().to_string(),
        "s3 of profile \"dev\" has its value on another line (/c:6)"
    );
    let headers: Vec<String> = profile
        .locations()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(headers, ["/c:4", "/s:1"]);
}

#[test]
fn each_faulty_line_is_reported_once() {
    let config = b"a\n# \xfc\n[x]\n[y\nfoo\n[z\xfc]\na\n[DEFAULT]\nb\n";
    let files = Files::parse(
        ("c", FileInput::Contents(config)),
        ("s", FileInput::Contents(b"[x\n")),
    );
    let problems = files.problems();
    let shown: Vec<String> = problems
        .map(|problem| problem.location.to_string())
        .collect();
    assert_eq!(shown, ["c:1", "c:2", "c:4", "c:6", "c:9", "s:1"]);
}
