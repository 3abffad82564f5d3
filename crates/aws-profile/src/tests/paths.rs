//! Paths of the files, as Python's `posixpath` expands them.

use crate::{FileKind, file_path};

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
    file_path(kind, &variable, &homes)
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
