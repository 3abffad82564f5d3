//! The grammar, the names and the merging of both files, against recorded answers of AWS CLI 2.36.

use std::collections::BTreeSet;

use super::cases::{Case, Deviation};

const DEV: Option<&str> = Some("dev");

/// A case of the config file alone, with the profile `dev`.
const fn config(name: &'static str, config: &'static str, cli: &'static str) -> Case {
    files(name, config, "", cli)
}

/// A case with the profile `dev`.
const fn files(
    name: &'static str,
    config: &'static str,
    credentials: &'static str,
    cli: &'static str,
) -> Case {
    of(name, DEV, config, credentials, cli)
}

const fn of(
    name: &'static str,
    profile: Option<&'static str>,
    config: &'static str,
    credentials: &'static str,
    cli: &'static str,
) -> Case {
    Case {
        name,
        config,
        credentials,
        profile,
        variables: &[],
        cli,
    }
}

const LINES: &[Case] = &[
    config(
        "1 colon",
        "[profile dev]\naws_access_key_id: X\naws_secret_access_key: S\n",
        "X",
    ),
    config(
        "2 colon, then = in the value",
        "[profile dev]\naws_access_key_id:X=y\naws_secret_access_key=S\n",
        "X=y",
    ),
    config(
        "3 key in mixed case",
        "[profile dev]\nAWS_Access_Key_ID = X\nAWS_SECRET_ACCESS_KEY = S\n",
        "X",
    ),
    config(
        "4 # comment behind a value",
        "[profile dev]\naws_access_key_id = X # mine\naws_secret_access_key = S\n",
        "X # mine",
    ),
    config(
        "4 ; comment behind a value",
        "[profile dev]\naws_access_key_id = X ; mine\naws_secret_access_key = S\n",
        "X ; mine",
    ),
    config(
        "5 # inside a value",
        "[profile dev]\naws_access_key_id = X#y\naws_secret_access_key = S\n",
        "X#y",
    ),
    config(
        "6 comment behind a region",
        "[profile dev]\n{K}region = eu-west-1 # note\n",
        "X, region eu-west-1 # note",
    ),
    config(
        "7 comment behind source_profile",
        "[profile dev]\nrole_arn = r\nsource_profile=one # base\n[profile one]\n{K}",
        "error",
    ),
    config("comments only", "# a\n; b\n", "no such profile"),
    config(
        "tabs around the delimiter",
        "[profile dev]\naws_access_key_id\t=\tX\naws_secret_access_key\t=\tS\n",
        "X",
    ),
    config(
        "quotes belong to the value",
        "[profile dev]\naws_access_key_id = \"X\"\naws_secret_access_key = S\n",
        "\"X\"",
    ),
    config(
        "no interpolation",
        "[profile dev]\n{K}region = %(x)s\n",
        "X, region %(x)s",
    ),
    config(
        "value that ends in ==",
        "[profile dev]\naws_access_key_id = X==\naws_secret_access_key = S\n",
        "X==",
    ),
    config("empty region", "[profile dev]\n{K}region =\n", "X, region "),
    config(
        "form feed behind a value",
        "[profile dev]\n{K}region = eu-west-1\u{c}\n",
        "X, region eu-west-1",
    ),
    config(
        "NUL in a value",
        "[profile dev]\naws_access_key_id = X\0y\naws_secret_access_key = S\n",
        "X\0y",
    ),
    config(
        "no final newline",
        "[profile dev]\naws_access_key_id = X\naws_secret_access_key = S",
        "X",
    ),
    config(
        "31 line without delimiter",
        "[profile dev]\n{K}foo\n",
        "file error",
    ),
    config(
        "31 batch comment",
        "[profile dev]\nREM x\n{K}",
        "file error",
    ),
    config(
        "31 line without delimiter in another profile",
        "[profile dev]\n{K}[profile other]\nfoo\n",
        "file error",
    ),
    config("32 no key", "[profile dev]\n{K}= c\n", "file error"),
    config(
        "33 key before the first header",
        "a = b\n[profile dev]\n{K}",
        "file error",
    ),
    config(
        "45 empty token",
        "[profile dev]\n{K}aws_session_token=\n",
        "X token ",
    ),
    files(
        "46 empty keys in the credentials file",
        "",
        "[dev]\naws_access_key_id=\naws_secret_access_key=\n",
        "",
    ),
    config(
        "47 empty keys and a process",
        "[profile dev]\naws_access_key_id=\naws_secret_access_key=\ncredential_process = p a\n",
        "process p|a",
    ),
    config(
        "48 byte order mark",
        "\u{feff}[profile dev]\n{K}",
        "file error",
    ),
    config(
        "48 byte order mark before another profile",
        "\u{feff}[default]\nregion = a\n[profile dev]\n{K}",
        "file error",
    ),
    config(
        "49 CRLF",
        "[profile dev]\r\naws_access_key_id = X\r\naws_secret_access_key = S \r\n",
        "X",
    ),
    config(
        "50 lone CR",
        "[profile dev]\raws_access_key_id = X\raws_secret_access_key = S\r",
        "X",
    ),
    files(
        "51 Latin-1 in a comment",
        "[profile dev]\n# b\u{fffd}ro\nregion = a\n",
        "[dev]\n{K}",
        "file error",
    ),
    config(
        "51 Latin-1 in a value of another profile",
        "[profile dev]\n{K}[profile other]\nnote = b\u{fffd}ro\n",
        "file error",
    ),
    config(
        "51 Latin-1 in a value of the profile",
        "[profile dev]\n{K}note = b\u{fffd}ro\n",
        "file error",
    ),
    config(
        "57 NBSP before the first key",
        "[profile dev]\n\u{a0}aws_access_key_id = X\n\u{a0}aws_secret_access_key = S\n",
        "X",
    ),
    config("58 key with a blank", "[profile dev]\n{K}a b = c\n", "X"),
];

const HEADERS: &[Case] = &[
    config(
        "8 comment behind a header",
        "[profile dev] # team\n{K}",
        "X",
    ),
    config("9 text behind a header", "[profile dev] junk\n{K}", "X"),
    config(
        "10 brackets behind a header",
        "[profile dev] # see [wiki]\n{K}",
        "no such profile",
    ),
    config("11 indented header", "  [profile dev]\n{K}", "X"),
    config(
        "13 blanks inside the brackets",
        "[ profile dev ]\n{K}",
        "no such profile",
    ),
    config("14 two blanks", "[profile  dev]\n{K}", "X"),
    config("14 tab", "[profile\tdev]\n{K}", "X"),
    config("15 double quotes", "[profile \"dev\"]\n{K}", "X"),
    config("15 single quotes", "[profile 'dev']\n{K}", "X"),
    of(
        "16 quoted name with a blank",
        Some("ops eu"),
        "[profile \"ops eu\"]\n{K}",
        "",
        "X",
    ),
    of(
        "16 escaped blank",
        Some("ops eu"),
        "[profile ops\\ eu]\n{K}",
        "",
        "X",
    ),
    of(
        "17 name of two words",
        Some("ops eu"),
        "[profile ops eu]\n{K}",
        "",
        "no such profile",
    ),
    config(
        "18 no prefix in the config file",
        "[dev]\n{K}",
        "no such profile",
    ),
    files(
        "19 no prefix, keys in credentials",
        "[dev]\na = b\n",
        "[dev]\n{K}",
        "X",
    ),
    config("20 profiles", "[profiles dev]\n{K}", "X"),
    config("21 Profile", "[Profile dev]\n{K}", "no such profile"),
    config(
        "21 name in another case",
        "[profile Dev]\n{K}",
        "no such profile",
    ),
    of(
        "22 [profile default], then [default]",
        None,
        "[profile default]\n{K}[default]\n{K2}",
        "",
        "X2",
    ),
    of(
        "23 [default], then [profile default]",
        None,
        "[default]\n{K}[profile default]\n{K2}",
        "",
        "X2",
    ),
    config(
        "26 header twice",
        "[profile dev]\n{K}[profile dev]\na = b\n",
        "file error",
    ),
    config(
        "26 header of another profile twice",
        "[profile dev]\n{K}[profile other]\n[profile other]\n",
        "file error",
    ),
    config(
        "27 key twice",
        "[profile dev]\n{K}region = a\nregion = b\n",
        "file error",
    ),
    config(
        "27 key twice in another profile",
        "[profile dev]\n{K}[profile other]\nregion = a\nregion = b\n",
        "file error",
    ),
    config(
        "28 key twice in different case",
        "[profile dev]\n{K}AWS_ACCESS_KEY_ID = Y\n",
        "file error",
    ),
    config(
        "29 two spellings, blanks",
        "[profile dev]\n{K}[profile  dev]\n{K2}",
        "X2",
    ),
    config(
        "30 two spellings, quotes",
        "[profile dev]\n{K}[profile \"dev\"]\n{K2}",
        "X2",
    ),
    config(
        "two spellings, fault in the first",
        "[profile dev]\n{K}foo\n[profile 'dev']\n{K2}",
        "file error",
    ),
    config(
        "two spellings, fault in the second",
        "[profile dev]\n{K}[profile 'dev']\n{K2}foo\n",
        "file error",
    ),
    config(
        "34 unclosed header",
        "[profile other]\n[profile dev\n{K}",
        "file error",
    ),
    config(
        "34 unclosed header in the profile",
        "[profile dev]\n{K}[profile x\n",
        "file error",
    ),
    config("35 empty header", "[profile dev]\n{K}[]\n", "file error"),
    of(
        "52 name that is not ASCII",
        Some("büro"),
        "[profile büro]\n{K}",
        "",
        "X",
    ),
    of(
        "53 punctuation",
        Some("a/b@c.d+e%:f"),
        "[profile a/b@c.d+e%:f]\n{K}",
        "",
        "X",
    ),
    of(
        "54 parentheses",
        Some("dev(eu)"),
        "[profile dev(eu)]\n{K}",
        "",
        "X",
    ),
    of(
        "54 bracket in the name",
        Some("a]b"),
        "[profile a]b]\n{K}",
        "",
        "X",
    ),
    of(
        "55 # in the name",
        Some("dev#1"),
        "[profile dev#1]\n{K}",
        "",
        "X",
    ),
    of(
        "56 unbalanced quote",
        Some("o'brien"),
        "[profile o'brien]\n{K}",
        "",
        "no such profile",
    ),
    files(
        "59 prefix in credentials",
        "",
        "[profile dev]\n{K}",
        "no such profile",
    ),
    of(
        "60 prefix as part of the name",
        Some("profile dev"),
        "",
        "[profile dev]\n{K}",
        "X",
    ),
    of(
        "61 blank in credentials",
        Some("ops eu"),
        "",
        "[ops eu]\n{K}",
        "X",
    ),
    of(
        "61 quotes in credentials",
        Some("\"ops eu\""),
        "",
        "[\"ops eu\"]\n{K}",
        "X",
    ),
    config(
        "75 services",
        "[services x]\n[plugins]\n[preview]\n[profile dev]\n{K}",
        "X",
    ),
    config("78 profile-old", "[profile-old dev]\n{K}", "X"),
    of(
        "78 quotes inside a word",
        Some("abc"),
        "[profile a'b'c]\n{K}",
        "",
        "X",
    ),
    of(
        "empty name",
        None,
        "[profile \"\"]\n{K}",
        "",
        "no credentials",
    ),
];

const INDENTATION: &[Case] = &[
    config(
        "12 indented file",
        "    [profile dev]\n    aws_access_key_id = X\n    aws_secret_access_key = S\n",
        "X",
    ),
    config(
        "36 indented key behind the header",
        "[profile dev]\n  aws_access_key_id = X\naws_secret_access_key = S\n",
        "X",
    ),
    config(
        "37 indented second key",
        "[profile dev]\naws_access_key_id = X\n  region = a\naws_secret_access_key = S\n",
        "X\nregion = a",
    ),
    config(
        "38 indented comment behind the header",
        "[profile dev]\n  # a\n{K}",
        "X",
    ),
    config(
        "39 indented comment in a block",
        "[profile dev]\ns3 =\n  # a\n  b = c\n{K}",
        "X",
    ),
    config(
        "40 comment in a block",
        "[profile dev]\ns3 =\n# a\n  b = c\n{K}",
        "X",
    ),
    config(
        "41 blank line in a block",
        "[profile dev]\ns3 =\n  a = b\n\n  c = d\n{K}",
        "X",
    ),
    config(
        "42 colon in a block",
        "[profile dev]\n{K}s3 =\n  addressing_style: path\n",
        "file error",
    ),
    config(
        "42 colon in a block of another profile",
        "[profile dev]\n{K}[profile other]\ns3 =\n  addressing_style: path\n",
        "file error",
    ),
    config(
        "43 indented header below an open key",
        "[profile one]\n{K}  [profile dev]\n  a = b\n",
        "no such profile",
    ),
    config(
        "44 value on the next line",
        "[profile dev]\naws_access_key_id =\n  X\naws_secret_access_key = S\n",
        "file error",
    ),
    config(
        "block instead of a key ID",
        "[profile dev]\naws_access_key_id =\n  X = y\naws_secret_access_key = S\n",
        "error",
    ),
    config(
        "79 first key indented by 4, second by 2",
        "[profile dev]\n    aws_access_key_id = X\n  aws_secret_access_key = S\n",
        "X",
    ),
    config(
        "80 header indented by 4, keys by 2 and 0",
        "    [profile dev]\n  aws_access_key_id = X\naws_secret_access_key = S\n",
        "X",
    ),
    config(
        "blank line, then an indented key",
        "[profile dev]\naws_access_key_id = X\n\n  a = b\naws_secret_access_key = S\n",
        "X\n\na = b",
    ),
];

const MERGING: &[Case] = &[
    config(
        "24 [DEFAULT] with the secret",
        "[DEFAULT]\naws_secret_access_key = S\n[profile dev]\naws_access_key_id = X\n",
        "X",
    ),
    files(
        "25 [DEFAULT] with the keys in credentials",
        "",
        "[DEFAULT]\n{K}[dev]\nregion = a\n",
        "X, region a",
    ),
    config(
        "81 [DEFAULT] twice",
        "[DEFAULT]\naws_secret_access_key = S\n[profile dev]\na = b\n[DEFAULT]\naws_access_key_id = X\n",
        "X",
    ),
    config(
        "key twice in [DEFAULT]",
        "[DEFAULT]\na = b\n[profile dev]\n{K}[DEFAULT]\na = c\n",
        "file error",
    ),
    config(
        "82 region of [default]",
        "[default]\nregion = a\n[profile dev]\n{K}",
        "X",
    ),
    files(
        "62 keys in both files",
        "[profile dev]\n{K2}",
        "[dev]\n{K}",
        "X",
    ),
    files(
        "63 key ID in credentials, secret in config",
        "[profile dev]\naws_secret_access_key = S\n",
        "[dev]\naws_access_key_id = X\n",
        "error",
    ),
    files(
        "63 key ID in config, secret in credentials",
        "[profile dev]\naws_access_key_id = X\n",
        "[dev]\naws_secret_access_key = S\n",
        "error",
    ),
    files(
        "64 token in the other file",
        "[profile dev]\naws_session_token = T\n",
        "[dev]\n{K}",
        "X",
    ),
    files(
        "65 old token name",
        "",
        "[dev]\n{K}aws_security_token = T\n",
        "X token T",
    ),
    files(
        "66 both token names",
        "",
        "[dev]\n{K}aws_session_token = T2\naws_security_token = T\n",
        "X token T",
    ),
    files(
        "67 key ID alone",
        "",
        "[dev]\naws_access_key_id = X\n",
        "error",
    ),
    files(
        "68 secret alone",
        "",
        "[dev]\naws_secret_access_key = S\n",
        "no credentials",
    ),
    files(
        "69 credentials broken",
        "[profile dev]\n{K}",
        "[dev]\nfoo\n",
        "file error",
    ),
    files(
        "69 config broken",
        "[profile dev]\nfoo\n",
        "[dev]\n{K}",
        "file error",
    ),
    files(
        "69 credentials broken in another profile",
        "[profile dev]\n{K}",
        "[other]\nfoo\n",
        "file error",
    ),
    files(
        "70 header twice in credentials",
        "",
        "[dev]\n{K}[dev]\n{K2}",
        "file error",
    ),
    of(
        "73 no default, nothing named",
        None,
        "[profile dev]\n{K}",
        "",
        "no credentials",
    ),
    of(
        "74 no default, default named",
        Some("default"),
        "[profile dev]\n{K}",
        "",
        "no such profile",
    ),
    config(
        "76 quoted session",
        "[sso-session \"corp\"]\nsso_start_url = u\nsso_region = r\n[profile dev]\nsso_session=corp\n\
         sso_account_id = 1\nsso_role_name = n\n",
        "sso corp u r 1 n",
    ),
    config(
        "77 session that is not ASCII",
        "[sso-session bü]\nsso_start_url = u\nsso_region = r\n[profile dev]\nsso_session=bü\n\
         sso_account_id = 1\nsso_role_name = n\n",
        "sso bü u r 1 n",
    ),
    files(
        "83 process in both files",
        "[profile dev]\ncredential_process = p\n",
        "[dev]\ncredential_process = q\n",
        "process q",
    ),
    files(
        "region in both files",
        "[profile dev]\nregion = a\n",
        "[dev]\n{K}region = b\n",
        "X, region b",
    ),
    files(
        "role in the credentials file",
        "[profile one]\n{K}",
        "[dev]\nrole_arn = r\nsource_profile = one\n",
        "X > r",
    ),
];

pub(super) const DEVIATIONS: &[Deviation] = &[
    Deviation {
        case: "31 line without delimiter in another profile",
        ours: "X",
        reason: "a fault makes only its section unusable",
    },
    Deviation {
        case: "33 key before the first header",
        ours: "X",
        reason: "a line outside of all sections belongs to no profile; it only stops the search \
                 before container and instance",
    },
    Deviation {
        case: "48 byte order mark before another profile",
        ours: "X",
        reason: "the mark makes only the section on its line unusable",
    },
    Deviation {
        case: "51 Latin-1 in a comment",
        ours: "X, region a",
        reason: "no text of a comment has an effect; the problem is still reported",
    },
    Deviation {
        case: "51 Latin-1 in a value of another profile",
        ours: "X",
        reason: "a fault makes only its section unusable",
    },
    Deviation {
        case: "26 header of another profile twice",
        ours: "X",
        reason: "a fault makes only its section unusable",
    },
    Deviation {
        case: "27 key twice in another profile",
        ours: "X",
        reason: "a fault makes only its section unusable",
    },
    Deviation {
        case: "34 unclosed header",
        ours: "no such profile",
        reason: "the lines below an unclosed header belong to the section above it, which is \
                 unusable; the message also shows the fault",
    },
    Deviation {
        case: "42 colon in a block of another profile",
        ours: "X",
        reason: "a fault makes only its section unusable",
    },
    Deviation {
        case: "68 secret alone",
        ours: "error",
        reason: "the profile is meant to have keys; the CLI would continue with the container or \
                 the instance, another identity",
    },
    Deviation {
        case: "69 credentials broken in another profile",
        ours: "X",
        reason: "a fault makes only its section unusable",
    },
];

pub(super) fn cases() -> Vec<Case> {
    [LINES, HEADERS, INDENTATION, MERGING].concat()
}

/// Returns the number of the row in the table of recorded answers.
fn row(name: &str) -> Option<usize> {
    name.split(' ').next()?.parse().ok()
}

#[test]
fn each_recorded_row_has_a_case() {
    let cases = cases();
    let rows: BTreeSet<usize> = cases.iter().filter_map(|case| row(case.name)).collect();
    let missing: Vec<usize> = (1..=83).filter(|row| !rows.contains(row)).collect();
    // These two are about paths: see the tests of paths and of unusable files.
    assert_eq!(missing, [71, 72]);
}
