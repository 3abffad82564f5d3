//! Tests of the search for entries of `docs/errors.md`.

use crate::report::{ErrorEntry, FoundErrors, find_errors};

fn found(arguments: &[&str]) -> String {
    let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
    let ids = |entries: Vec<&'static ErrorEntry>| {
        let ids: Vec<&str> = entries.iter().map(|entry| entry.id).collect();
        ids.join(" ")
    };
    match find_errors(&arguments) {
        FoundErrors::Entries(entries) => ids(entries),
        FoundErrors::Choice(_, entries) => format!("choice: {}", ids(entries)),
        FoundErrors::Unknown(word, likely) => format!("no {word}: {}", likely.join(" ")),
        FoundErrors::ForeignState(state) => format!("foreign {state}"),
    }
}

#[test]
fn identifiers_are_found_in_what_users_paste() {
    for argument in [
        "aws.no-answer",
        "AWS.No-Answer",
        "[aws.no-answer]",
        "`aws.no-answer`.",
        "#aws.no-answer",
        "id=aws.no-answer",
        r#"{"id":"aws.no-answer","reason":"database.internal timed out"}"#,
        "HINT:  Check database.internal and config.toml. [aws.no-answer]",
        "docs/errors.md#aws.no-answer",
    ] {
        assert_eq!(found(&[argument]), "aws.no-answer", "{argument}");
    }
    let pasted = "HINT:  Ask database.internal. [tunnel.dial]";
    let typed: Vec<&str> = pasted.split_whitespace().collect();
    assert_eq!(found(&typed), "tunnel.dial");
    assert_eq!(
        found(&["tls.name", "aws.mfa", "tls.name"]),
        "tls.name aws.mfa"
    );
}

#[test]
fn misspelt_identifiers_name_similar_ones() {
    assert!(found(&["aws.no-anser"]).starts_with("no aws.no-anser: aws.no-answer"));
    assert!(found(&["aws.expird"]).starts_with("no aws.expird: aws.expired"));
    assert!(found(&["no-anwser"]).starts_with("no no-anwser: aws.no-answer"));
    assert!(found(&["aws.mfa", "tunnel.dail"]).starts_with("no tunnel.dail: tunnel.dial"));
    assert_eq!(found(&["qqqq"]), "no qqqq: ");
}

#[test]
fn states_and_topics_list_their_errors() {
    assert_eq!(found(&["F0000", "x"]).split_once(' ').unwrap().0, "choice:");
    let of_state = found(&["28000"]);
    assert!(of_state.contains(" aws.expired ") && !of_state.contains("tunnel."));
    assert!(found(&["sqlstate 3d000"]).contains("target.unknown"));
    assert!(found(&["57"]).contains("database.starting"));
    assert_eq!(found(&["42704"]), "database.parameter");
    assert_eq!(found(&["23505"]), "foreign 23505");
    let of_topic = found(&["aws"]);
    assert!(of_topic.contains("aws.mfa") && of_topic.contains("aws.clock"));
    assert_eq!(found(&["no-answer"]), "aws.no-answer");
    assert!(found(&["Session Manager"]).contains("ssm.gone"));
}

#[test]
fn messages_are_found_without_their_identifier() {
    for (text, expected) in [
        ("FATAL:  no user name", "target.no-user"),
        (
            "FATAL:  target \"orders\": found no database orders in eu-west-1",
            "discover.no-database",
        ),
        (
            "ERROR: 3D000: there is no target x on this port",
            "target.unknown",
        ),
    ] {
        assert_eq!(found(&[text]), expected, "{text}");
        let typed: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(found(&typed), expected, "{text}");
    }
    let several = found(&["FATAL: PAM authentication failed for user \"app\""]);
    for id in ["aws.expired", "aws.rejected", "database.login-refused"] {
        assert!(
            several.starts_with("choice") && several.contains(id),
            "{several}"
        );
    }
}
