//! Whole outputs as snapshots; assertions check the properties independent of wording.

use super::*;
use crate::config::{ConfigFile, TargetLayer};

const CLUSTER: &str = "orders.cluster-abc.eu-central-1.rds.amazonaws.com";

/// Returns the facts of a target with this configuration, as far as they are known without AWS.
fn facts(lines: &str) -> SetupFacts {
    let file: ConfigFile = toml::from_str(&format!("[targets.orders]\n{lines}\n")).unwrap();
    let config = file.target(None, &TargetLayer::default()).unwrap();
    SetupFacts::of(&config)
}

/// Adds the facts from AWS.
fn known(lines: &str, resource_id: &str) -> SetupFacts {
    SetupFacts {
        account: Some("111122223333".to_owned()),
        principal: Principal::of("arn:aws:sts::111122223333:assumed-role/dev/ana"),
        resource_id: Some(resource_id.to_owned()),
        vpc: Some("vpc-0a1b2c3d".to_owned()),
        subnets: vec!["subnet-0a".to_owned(), "subnet-0b".to_owned()],
        security_groups: vec!["sg-0d1e2f".to_owned(), "sg-0f".to_owned()],
        ..facts(lines)
    }
}

fn aurora() -> SetupFacts {
    known(
        &format!(
            "host = '{CLUSTER}'\nuser = 'db_user'\ndatabase = 'app'\nbastion = 'i-0123456789abcdef0'\nprofile = 'dev'"
        ),
        "cluster-ABCDEFGHIJKL",
    )
}

fn looked_up() -> SetupFacts {
    SetupFacts {
        region: Some("eu-central-1".to_owned().into()),
        endpoint: Some(
            "billing.abc.eu-central-1.rds.amazonaws.com:5433"
                .parse()
                .unwrap(),
        ),
        arn: Some("arn:aws:rds:eu-central-1:111122223333:db:billing".to_owned()),
        ..known(
            "db = 'billing'\nuser = 'db_user'\ndatabase = 'app'\nbastion = { tag = 'Name=bastion' }",
            "db-ABCDEFGHIJKL",
        )
    }
}

fn proxy() -> SetupFacts {
    known(
        "host = 'orders.proxy-abc.us-east-1.rds.amazonaws.com'\nuser = 'db_user'\ndatabase = 'app'\nbastion = ['i-1', 'mi-2', 'ecs:my_apps_0123456789abcdef0123456789abcdef_rt-1']\ndocument = 'Our-Forward'",
        "prx-ABCDEFGHIJKL",
    )
}

fn dsql(user: &str) -> SetupFacts {
    let lines = format!(
        "host = 'abcdefghijklmnopqrst123456.dsql.us-east-1.on.aws'\nuser = '{user}'\nvia = 'direct'"
    );
    SetupFacts {
        principal: Principal::of("arn:aws:iam::111122223333:user/ana"),
        resource_id: None,
        vpc: None,
        subnets: Vec::new(),
        security_groups: Vec::new(),
        ..known(&lines, "")
    }
}

fn govcloud() -> SetupFacts {
    SetupFacts {
        kms_key: Some("arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab".to_owned()),
        ..known(
            "host = 'db.abc123.us-gov-west-1.rds.amazonaws.com'\nuser = 'db_user'\nbastion = 'auto'",
            "db-ABCDEFGHIJKL",
        )
    }
}

fn china() -> SetupFacts {
    SetupFacts {
        kms_key: Some("alias/sessions".to_owned()),
        principal: Principal::of("arn:aws-cn:iam::111122223333:user/ana"),
        ..known(
            "host = 'db.abc123.rds.cn-north-1.amazonaws.com.cn'\nuser = 'db_user'\nbastion = 'i-0123456789abcdef0'\ndocument = 'AWS-StartPortForwardingSessionToRemoteHost'",
            "db-ABCDEFGHIJKL",
        )
    }
}

fn unknown() -> SetupFacts {
    facts("db = 'orders'")
}

fn cases() -> [(&'static str, SetupFacts); 8] {
    [
        ("aurora", aurora()),
        ("looked-up", looked_up()),
        ("proxy", proxy()),
        ("dsql", dsql("app_user")),
        ("dsql-admin", dsql("admin")),
        ("govcloud", govcloud()),
        ("china", china()),
        ("unknown", unknown()),
    ]
}

/// Returns standard output, followed by standard error.
fn shown(artefact: &Artefact) -> String {
    let notes: Vec<String> = artefact
        .notes
        .iter()
        .map(|note| format!("2> {note}"))
        .collect();
    format!("{}{}\n", artefact.text, notes.join("\n"))
}

#[test]
fn setup_policies() {
    for (name, facts) in cases() {
        insta::assert_snapshot!(format!("policy-{name}"), shown(&policy::policy(&facts)));
    }
}

#[test]
fn setup_sql() {
    for (name, facts) in cases() {
        insta::assert_snapshot!(format!("sql-{name}"), shown(&sql::sql(&facts)));
    }
}

#[test]
fn setup_bastions() {
    for (name, facts) in [("aurora", aurora()), ("unknown", unknown())] {
        for (form, made) in [
            (
                "cloudformation",
                cloudformation::cloudformation(&facts, false),
            ),
            ("terraform", terraform::terraform(&facts, true)),
        ] {
            insta::assert_snapshot!(format!("{form}-{name}"), shown(&made));
        }
    }
    // The others differ in the values filled in.
    let others = cases().map(|(name, facts)| {
        let head = |artefact: &Artefact| {
            let lines = artefact.text.lines().take_while(|line| !line.is_empty());
            let notes = artefact.notes.iter().map(|note| format!("2> {note}\n"));
            lines
                .map(|line| format!("{line}\n"))
                .chain(notes)
                .collect::<String>()
        };
        let (yaml, tf) = (
            cloudformation::cloudformation(&facts, true),
            terraform::terraform(&facts, false),
        );
        format!("## {name}\n{}\n{}", head(&yaml), head(&tf))
    });
    insta::assert_snapshot!("bastion-heads", others.join("\n"));
}

fn with_relay(relay: &str) -> SetupFacts {
    let lines = format!(
        "host = '{CLUSTER}'\nuser = 'db_user'\nbastion = 'i-0123456789abcdef0'\nrelay = {relay}"
    );
    known(&lines, "cluster-ABCDEFGHIJKL")
}

#[test]
fn setup_with_a_relay() {
    let facts = with_relay("5440");
    insta::assert_snapshot!("policy-relay", shown(&policy::policy(&facts)));
    for (form, made) in [
        (
            "cloudformation",
            cloudformation::cloudformation(&facts, true),
        ),
        ("terraform", terraform::terraform(&facts, false)),
    ] {
        assert!(!made.text.contains("@relay"), "{}", made.text);
        insta::assert_snapshot!(format!("{form}-relay"), shown(&made));
    }
    let auto = cloudformation::cloudformation(&with_relay("'auto'"), false);
    assert!(
        auto.notes
            .iter()
            .any(|note| note.contains("relay = \"auto\"")),
        "{:?}",
        auto.notes
    );
}

#[test]
fn setup_leaves_no_mark_of_a_template_open() {
    for (name, facts) in cases() {
        for endpoints in [false, true] {
            for made in [
                cloudformation::cloudformation(&facts, endpoints),
                terraform::terraform(&facts, endpoints),
            ] {
                let open = made.text.lines().find(|line| line.contains('@'));
                assert_eq!(open, None, "{name}");
            }
        }
    }
}

#[test]
fn setup_principals() {
    let role = |name: &str| Principal::Role {
        name: name.to_owned(),
    };
    for (arn, principal) in [
        (
            "arn:aws:sts::111122223333:assumed-role/AWSReservedSSO_dev_0123/ana@example.com",
            role("AWSReservedSSO_dev_0123"),
        ),
        (
            "arn:aws-cn:sts::111122223333:assumed-role/dev/i-1",
            role("dev"),
        ),
        (
            "arn:aws:sts::111122223333:federated-user/ana",
            Principal::Unknown,
        ),
        ("arn:aws:iam::111122223333:root", Principal::Unknown),
        ("", Principal::Unknown),
    ] {
        assert_eq!(Principal::of(arn), principal, "{arn}");
    }
    let arn = "arn:aws:iam::111122223333:user/people/ana".to_owned();
    assert_eq!(Principal::of(&arn), Principal::User { arn });
}

/// Names with a special meaning in the generated languages.
#[test]
fn setup_takes_names_literally() {
    let mut odd = aurora();
    odd.user = Some("we\"ird $* Name\n'\\".to_owned());
    odd.database = Some("a\"b".to_owned());
    odd.target = "it's ${a} \"b\"\u{2028}c".to_owned();
    let text = policy::policy(&odd).text;
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    let resource = json["Statement"][0]["Resource"][0].as_str().unwrap();
    assert!(
        resource.ends_with("/we\"ird ${$}${*} Name\n'\\"),
        "{resource}"
    );
    // No comment ends before its line does: the rest would be run.
    let text = sql::sql(&odd).text;
    assert!(
        text.contains("GRANT rds_iam TO \"we\"\"ird $* Name\n'\\\";"),
        "{text}"
    );
    for made in [
        cloudformation::cloudformation(&odd, true),
        terraform::terraform(&odd, true),
    ] {
        assert!(
            made.text
                .starts_with("# Bastion for the pgiam target it's ${a} \"b\"\u{fffd}c.")
        );
    }
    odd.user = Some("a$pgiam$b$_pgiam$".to_owned());
    let text = sql::sql(&odd).text;
    assert!(text.contains("DO $__pgiam$\n"), "{text}");
}
