//! Paths of the files, as Python's `posixpath` expands them.

use super::python;
use super::random::Random;
use crate::path::with_variables;
use crate::{FileKind, Platform, file_path};

fn path(kind: FileKind, variables: &[(&str, &str)]) -> String {
    let variable = |name: &str| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let homes = |user: Option<&str>| match user {
        None => Some("/passwd".to_owned()),
        Some("eva") => Some("/home/eva/".to_owned()),
        Some(_) => None,
    };
    file_path(kind, Platform::Posix, &variable, &homes)
}

#[test]
fn paths_are_those_of_the_cli() {
    let home = ("HOME", "/h");
    assert_eq!(path(FileKind::Config, &[home]), "/h/.aws/config");
    assert_eq!(path(FileKind::Credentials, &[]), "/passwd/.aws/credentials");
    for (value, expected) in [
        ("", ""),
        ("$HOME/x", "/h/x"),
        ("${HOME}/x", "/h/x"),
        ("$HOMEX/x", "$HOMEX/x"),
        ("a$", "a$"),
        ("$/x", "$/x"),
        ("${HOME", "${HOME"),
        ("${}x", "${}x"),
        ("$LOOP", "$LOOP"),
        ("$TILDE/x", "/h/x"),
        ("~/x", "/h/x"),
        ("~", "/h"),
        ("~eva/x", "/home/eva/x"),
        ("~bob/x", "~bob/x"),
        ("x/~", "x/~"),
        ("relative", "relative"),
        ("a$HOME$HOME", "a/h/h"),
    ] {
        let variables = [
            home,
            ("LOOP", "$LOOP"),
            ("TILDE", "~"),
            ("AWS_CONFIG_FILE", value),
        ];
        assert_eq!(path(FileKind::Config, &variables), expected, "{value}");
    }
    assert_eq!(
        path(FileKind::Config, &[("HOME", "/"), ("AWS_CONFIG_FILE", "~")]),
        "/"
    );
}

#[test]
fn home_on_windows_is_the_user_profile() {
    let path = |variables: &[(&str, &str)]| {
        let variable = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        file_path(FileKind::Config, Platform::Windows, &variable, &|_| None)
    };
    let drive = [("HOMEDRIVE", "C:"), ("HOMEPATH", r"\Users\me")];
    assert_eq!(path(&[("HOME", "/h")]), "~/.aws/config");
    assert_eq!(path(&drive), r"C:\Users\me/.aws/config");
    let profile = ("USERPROFILE", r"D:\me");
    assert_eq!(path(&[drive[0], drive[1], profile]), r"D:\me/.aws/config");
    let file = ("AWS_CONFIG_FILE", r"~\%X%");
    assert_eq!(path(&[profile, file, ("X", "x")]), r"D:\me\x");
}

const SCRIPT: &str = r#"
import json, ntpath, os, posixpath, sys
os.environ.clear()
os.environ.update({'A': '1', 'B-C': '$A', 'D_': 'd'})
lines = [json.loads(line) for line in sys.stdin]
for line in lines:
    print(json.dumps([posixpath.expandvars(line), ntpath.expandvars(line)]))
"#;

#[test]
fn variables_are_expanded_as_python_expands_them() {
    const SEED: u64 = 0x5EED_0A7A;
    println!("seed {SEED:#x}");
    let mut random = Random::new(SEED);
    let pieces = [
        "$", "%", "{", "}", "'", "A", "B-C", "D_", "E", "$A", "${A}", "%A%", "ä", "/", "-", " ",
    ];
    let path = |random: &mut Random| -> String {
        let count = random.below(9);
        (0..count).map(|_| random.pick(&pieces)).collect()
    };
    let paths: Vec<String> = (0..5_000).map(|_| path(&mut random)).collect();
    let lines: Vec<String> = paths
        .iter()
        .map(|path| serde_json::json!(path).to_string())
        .collect();
    let Some(expected) = python::run("import ntpath", SCRIPT, &lines) else {
        return;
    };
    let variable = |name: &str| match name {
        "A" => Some("1".to_owned()),
        "B-C" => Some("$A".to_owned()),
        "D_" => Some("d".to_owned()),
        _ => None,
    };
    for (path, expected) in paths.iter().zip(&expected) {
        let platforms = [Platform::Posix, Platform::Windows];
        let ours = platforms.map(|platform| with_variables(path, platform, &variable));
        assert_eq!(&serde_json::json!(ours), expected, "{path:?}");
    }
}
