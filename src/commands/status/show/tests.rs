use super::*;

/// Returns a process with content in every table.
fn busy() -> ProcessDocument {
    let session = SessionDocument {
        id: Some("dev-0123456789abcdef0123456789".to_owned()),
        bastion: Some("i-0123456789abcdef0".to_owned()),
        state: "up".to_owned(),
        to_relay: false,
        streams: 2,
        ready: 1,
        busy: 1,
        bytes_up: 5_300,
        bytes_down: 184_000_000,
        age_seconds: 4_000.0,
        resumes: 2,
        retransmissions: 9,
        round_trip_seconds: Some(0.0123),
    };
    let client = ConnectionDocument {
        id: 7,
        state: "open".to_owned(),
        program: "DBeaver 25.1.2 - SQLEditor <Script-12.sql>".to_owned(),
        user: "db_user".to_owned(),
        database: "app".to_owned(),
        peer: "127.0.0.1:50123".to_owned(),
        bytes_up: 12,
        bytes_down: 1_234_567,
        age_seconds: 61.0,
    };
    let login = ConnectionDocument {
        id: 8,
        state: "login".to_owned(),
        program: String::new(),
        age_seconds: 0.2,
        ..client.clone()
    };
    let orders = TargetDocument {
        name: "orders".to_owned(),
        port: 5433,
        endpoint: "orders.cluster-abcdefghijkl.eu-central-1.rds.amazonaws.com:5432".to_owned(),
        via: "ssm".to_owned(),
        bastion: Some("i-0123456789abcdef0".to_owned()),
        state: "ready".to_owned(),
        ready: true,
        identity: Some(IdentityDocument {
            source: "profile dev (SSO session corp)".to_owned(),
            reason: "AWS_PROFILE sets profile dev; sso_role_name in /home/me/.aws/config:12"
                .to_owned(),
            expires_at: Some("2026-11-30T12:00:00Z".to_owned()),
            expires_in_seconds: Some(2_500.0),
        }),
        sessions: vec![
            session,
            SessionDocument {
                state: "starting".to_owned(),
                ..SessionDocument::default()
            },
        ],
        connections: vec![client, login],
        ..TargetDocument::default()
    };
    let reports = TargetDocument {
        name: "reports".to_owned(),
        port: 5434,
        endpoint: "reports.abcdefghijkl.eu-central-1.rds.amazonaws.com:5432".to_owned(),
        via: "direct".to_owned(),
        state: "failing".to_owned(),
        connection_limit: Some(20),
        last_error: Some(FailureDocument {
            id: "aws.expired".to_owned(),
            message: "target \"reports\": the AWS credentials have expired".to_owned(),
            hint: Some("Log in to AWS again: pgiam login dev. The next connection uses the new credentials.".to_owned()),
            age_seconds: 4.0,
            count: 3,
            ..FailureDocument::default()
        }),
        ..TargetDocument::default()
    };
    ProcessDocument {
        pid: 4711,
        version: "0.1.0".to_owned(),
        kind: "serve".to_owned(),
        state: "serving".to_owned(),
        uptime_seconds: 200_000.0,
        config: Some("/etc/pgiam/config.toml".into()),
        http: Some("127.0.0.1:9801".to_owned()),
        open_connections: 2,
        max_connections: 400,
        targets: vec![orders, reports],
        ..ProcessDocument::default()
    }
}

fn shown(width: usize, rates: Option<&RateMeter>) -> String {
    let text = all(&[busy()], width, rates);
    anstream::adapter::strip_str(&text).to_string()
}

#[test]
fn everything_is_shown() {
    insta::assert_snapshot!(shown(usize::MAX, None));
}

#[test]
fn it_does_not_wrap_in_an_ordinary_terminal() {
    let mut rates = RateMeter::default();
    let mut before = busy();
    before.uptime_seconds -= 1.0;
    before.targets[0].connections[0].bytes_down -= 734_000;
    rates.read(&[before]);
    rates.read(&[busy()]);
    let text = shown(80, Some(&rates));
    for line in text.lines() {
        assert!(console::measure_text_width(line) <= 80, "{line}");
    }
    insta::assert_snapshot!(text);
    for width in [20, 40, 60, 100, 200] {
        let text = shown(width, Some(&rates));
        let is_copied = |line: &&str| line.starts_with("  ENDPOINT: ");
        let lines = text.lines().filter(|line| !is_copied(line));
        let widest = lines.map(console::measure_text_width).max();
        for whole in ["dev-0123456789abcdef0123456789", "i-0123456789abcdef0"] {
            assert!(width < 60 || text.contains(whole), "{text}");
        }
        assert!(!text.contains("rds.amaz…"), "{text}");
        assert!(
            width < 60 || widest.is_some_and(|widest| widest <= width),
            "{text}"
        );
    }
}

#[test]
fn numbers_have_three_digits_and_a_unit() {
    for (count, expected) in [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 kB"),
        (99_940, "99.9 kB"),
        (99_960, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.0 MB"),
        (1_234_567_890, "1.2 GB"),
        (5_000_000_000_000, "5.0 TB"),
    ] {
        assert_eq!(bytes(count), expected);
    }
    for (seconds, expected) in [
        (0.2, "0s"),
        (59.0, "59s"),
        (61.0, "1m"),
        (3_700.0, "1h"),
        (100_000.0, "27h"),
        (200_000.0, "2d"),
    ] {
        assert_eq!(age(seconds), expected);
    }
}

#[test]
fn a_stopped_target_has_no_old_error() {
    let mut process = busy();
    let target = &mut process.targets[0];
    target.state = "stopped".to_owned();
    target.ready = false;
    target.stopped_seconds = Some(90.0);
    target.last_error = Some(FailureDocument {
        id: "database.no-rds-iam".to_owned(),
        message: "role \"x\" is not set up".to_owned(),
        hint: Some("an old remedy".to_owned()),
        ..FailureDocument::default()
    });
    let (name, pid) = (target.name.clone(), process.pid);
    process.targets.truncate(1);
    let text = anstream::adapter::strip_str(&one(&process, 80, None)).to_string();
    assert!(
        text.contains(&format!("target \"{name}\" was stopped on request at ")),
        "{text}"
    );
    assert!(
        text.contains(&format!("\n  {}\n", reload_command(pid))),
        "{text}"
    );
    assert!(
        !text.contains("old remedy") && !text.contains("no-rds-iam"),
        "{text}"
    );
}
