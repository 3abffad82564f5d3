use std::time::Duration;

use super::*;

const HOST: &str = "orders.cluster-abc.eu-central-1.rds.amazonaws.com";
const TASK: &str = "0123456789abcdef0123456789abcdef";

fn parse(
    text: &str,
    selected: &[&str],
    flags: &TargetLayer,
) -> Result<Vec<ResolvedTarget>, ConfigError> {
    let file: ConfigFile = toml::from_str(text).unwrap();
    let selected: Vec<String> = selected.iter().map(|&name| name.to_owned()).collect();
    file.resolved_targets(&selected, flags)
}

/// Parses a file with one target with these additional lines.
fn target(lines: &str) -> Result<ResolvedTarget, ConfigError> {
    let text = format!("[targets.a]\nhost='{HOST}'\n{lines}\n");
    parse(&text, &[], &TargetLayer::default()).map(|mut targets| targets.remove(0))
}

/// Returns the tunnel of a target with these additional lines.
fn ssm(lines: &str) -> SsmSettings {
    match target(lines).unwrap().settings.via {
        Via::Ssm(settings) => settings,
        Via::Direct => panic!("{lines}: direct"),
    }
}

fn refusal(lines: &str) -> String {
    target(lines).unwrap_err().to_string()
}

fn written(bastion: &str) -> Option<WrittenBastion> {
    Some(WrittenBastion::Text(bastion.to_owned()))
}

fn nodes(ids: &[&str]) -> Bastion {
    Bastion::Nodes(ids.iter().map(|&id| id.into()).collect())
}

fn tag(key: &str, value: &str) -> Bastion {
    Bastion::Tag {
        key: key.to_owned(),
        value: value.to_owned(),
    }
}

#[test]
fn a_target_has_a_name_that_clients_can_ask_for() {
    for (name, said) in [
        ("\"\"", "invalid target name [targets.\"\"]: it is empty"),
        (
            "'a/b'",
            "invalid target name [targets.\"a/b\"]: it contains a slash",
        ),
        (
            "\"a\\nb\"",
            "invalid target name [targets.\"a\\nb\"]: it contains a control character",
        ),
    ] {
        let text = format!("[targets.{name}]\nhost='{HOST}'\nvia='direct'\n");
        let refused = parse(&text, &[], &TargetLayer::default()).unwrap_err();
        let refused = refused.to_string();
        assert!(refused.starts_with(said), "{refused}");
        assert!(refused.contains("NAME or NAME/DATABASE"), "{refused}");
    }
    let flags = TargetLayer {
        db: Some("\u{1b}[31mx\n".to_owned()),
        ..TargetLayer::default()
    };
    let refused = parse("", &[], &flags).unwrap_err().to_string();
    let said = "invalid db \"\\u{1b}[31mx\\n\": it contains a control character";
    assert!(refused.starts_with(said), "{refused}");
    let text = format!("[targets.'größe 2.x']\nhost='{HOST}'\nvia='direct'\n");
    let targets = parse(&text, &[], &TargetLayer::default()).unwrap();
    assert_eq!(targets[0].name, "größe 2.x");
}

#[test]
fn flags_beat_the_target_which_beats_the_defaults() {
    let text = format!(
        "[defaults]\nprofile='dev'\nuser='everyone'\nbastion='i-1'\nsessions=2\nwarm=true\n\
         [targets.orders]\nhost='{HOST}'\nuser='db_user'\nsessions=3\n"
    );
    let flags = TargetLayer {
        profile: Some("prod".into()),
        warm: Some(false),
        ..TargetLayer::default()
    };
    let target = &parse(&text, &[], &flags).unwrap()[0];
    assert_eq!(target.settings.profile.as_deref(), Some("prod"));
    assert_eq!(target.settings.user.as_deref(), Some("db_user"));
    let expected = SsmSettings {
        sessions: 3,
        ..SsmSettings::new(nodes(&["i-1"]))
    };
    assert_eq!(target.settings.via, Via::Ssm(expected));
    assert_eq!(target.endpoint.to_string(), format!("{HOST}:5432"));
    assert_eq!(target.region.as_deref(), Some("eu-central-1"));
    assert_eq!(
        (target.settings.local_port, target.settings.connect_timeout),
        (5433, Duration::from_secs(30))
    );
}

#[test]
fn flags_alone_make_a_target() {
    let flags = TargetLayer {
        host: Some(format!("{}:5444", HOST.to_uppercase())),
        via: Some("direct".into()),
        ..TargetLayer::default()
    };
    let target = &parse("", &[], &flags).unwrap()[0];
    assert_eq!(
        (target.name.as_str(), target.endpoint.port),
        ("default", 5444)
    );
    assert_eq!(target.endpoint.host, HOST);
}

#[test]
fn refusals_name_the_key_and_the_remedy() {
    let no_flags = TargetLayer::default();
    for (lines, expected) in [
        ("via='vpn'", "\"ssm\" or \"direct\""),
        (
            "via='direct'\nregion='us-east-1'",
            "the host is in eu-central-1; remove region",
        ),
        (
            "via='direct'\nuser=''",
            "invalid user \"\": expected a name",
        ),
        (
            "via='direct'\nconnect_timeout=0",
            "invalid connect_timeout 0: expected whole seconds, 1 or more",
        ),
    ] {
        let said = refusal(lines);
        assert!(said.contains(expected), "{lines}\n→ {said}");
    }
    for (text, expected) in [
        (
            "[targets.a]\nbastion='i-1'\n".to_owned(),
            "target \"a\" has no host",
        ),
        (
            "[targets.a]\nhost='10.0.0.7'\nvia='direct'\n".to_owned(),
            "DNS name",
        ),
        (
            format!("[targets.a]\nhost='{HOST}:0'\nvia='direct'\n"),
            "is not a port",
        ),
        (String::new(), "no target is configured"),
    ] {
        let error = parse(&text, &[], &no_flags).unwrap_err().to_string();
        assert!(error.contains(expected), "{text}\n→ {error}");
    }
    let two = format!(
        "[defaults]\nvia='direct'\n[targets.a]\nhost='{HOST}'\n[targets.b]\nhost='{HOST}'\n"
    );
    let error = parse(&two, &["c"], &no_flags).unwrap_err().to_string();
    assert!(
        error.contains("no target \"c\"") && error.contains("a, b"),
        "{error}"
    );
    let flags = TargetLayer {
        port: Some(1),
        ..TargetLayer::default()
    };
    assert!(
        parse(&two, &[], &flags)
            .unwrap_err()
            .to_string()
            .contains("--port applies to one target")
    );
    assert_eq!(parse(&two, &["b"], &flags).unwrap().len(), 1);
}

#[test]
fn unknown_keys_are_refused() {
    let error = toml::from_str::<ConfigFile>("[targets.a]\nhots='x'\n")
        .unwrap_err()
        .to_string();
    assert!(error.contains("unknown field `hots`"), "{error}");
}

#[test]
fn bastions_are_ids_lists_or_tags() {
    let task = format!("ecs:my_apps_{TASK}_{TASK}-0527074092");
    let cases = [
        (
            "'i-0123456789abcdef0'".to_owned(),
            nodes(&["i-0123456789abcdef0"]),
        ),
        ("'mi-1'".to_owned(), nodes(&["mi-1"])),
        ("'i-1, i-2'".to_owned(), nodes(&["i-1", "i-2"])),
        (format!("['i-2', 'mi-1', '{task}']"), {
            nodes(&["i-2", "mi-1", &task])
        }),
        ("['i-1', 'i-2', 'i-1']".to_owned(), nodes(&["i-1", "i-2"])),
        (
            "{ tag = 'Name=bastion' }".to_owned(),
            tag("Name", "bastion"),
        ),
        ("{ tag = 'role=a=b, c' }".to_owned(), tag("role", "a=b, c")),
        ("'tag:Name=a,b'".to_owned(), tag("Name", "a,b")),
    ];
    for (written, expected) in cases {
        assert_eq!(
            ssm(&format!("bastion={written}")).bastion,
            expected,
            "{written}"
        );
    }
}

#[test]
fn bastions_that_are_none_are_refused_with_the_form() {
    let short = format!("ecs:apps_{}_x", &TASK[1..]);
    let cases = [
        (
            "'bastion-1'",
            "invalid bastion \"bastion-1\": \"bastion-1\" is not a managed node ID; expected the ID of a managed node (i-…, mi-… or ecs:CLUSTER_TASK_RUNTIME), a list of IDs, a tag, or auto",
        ),
        ("''", "contains an empty ID"),
        ("'i-'", "\"i-\" is not a managed node ID"),
        (
            "'i-0ABC'",
            "only digits and lower-case letters may follow i-",
        ),
        ("'mi-a.b'", "may follow mi-"),
        ("'i-1,'", "contains an empty ID"),
        ("[]", "invalid bastion []: the list is empty"),
        (
            "['i-1', 'tag:Name=x']",
            "invalid bastion [\"i-1\", \"tag:Name=x\"]: a tag cannot be combined with IDs",
        ),
        (
            "{ tag = 'bastion' }",
            "invalid bastion { tag = \"bastion\" }: expected a tag KEY=VALUE",
        ),
        ("{ tag = '=bastion' }", "neither part may be empty"),
        ("'tag:Name='", "neither part may be empty"),
        ("'ecs:apps'", "expected ecs:CLUSTER_TASK_RUNTIME"),
        (
            &format!("'{short}'"),
            "--query \"tasks[].containers[].runtimeId\"",
        ),
        (&format!("'ecs:_{TASK}_x'"), "is not an ECS target"),
        (&format!("'ecs:apps_{TASK}_'"), "is not an ECS target"),
    ];
    for (written, expected) in cases {
        let said = refusal(&format!("bastion={written}"));
        assert!(said.contains(expected), "{written}\n→ {said}");
    }
    for (written, expected) in [
        ("7", "expected the ID of a node, a list of IDs such as"),
        ("['i-1', 2]", "invalid type: integer `2`, expected a string"),
        ("{ tags = 'x' }", "unknown field `tags`, expected `tag`"),
        ("{}", "missing field `tag`"),
    ] {
        let said = toml::from_str::<ConfigFile>(&format!("[targets.a]\nbastion={written}\n"))
            .unwrap_err()
            .to_string();
        assert!(said.contains(expected), "{written}\n→ {said}");
    }
}

#[test]
fn every_setting_of_the_tunnel_has_a_key() {
    let settings = ssm(
        "bastion='i-1'\ndocument='Our-Forward'\nsessions=20\nrelay=6000\nidle_timeout=1\nwarm=true\nkeep_alive=true\ndial_timeout=30",
    );
    let expected = SsmSettings {
        bastion: nodes(&["i-1"]),
        document: Some("Our-Forward".to_owned()),
        relay: Some(RelaySettings {
            port: 6000,
            is_explicit: true,
            sessions: 20,
        }),
        sessions: 20,
        idle_timeout: Duration::from_secs(1),
        warm: true,
        keep_alive: true,
        dial_timeout: Duration::from_secs(30),
    };
    assert_eq!(settings, expected);
    assert_eq!(
        ssm("bastion='i-1'\ndocument='arn:aws:ssm:eu-central-1:123456789012:document/Our-Forward'")
            .document
            .as_deref(),
        Some("arn:aws:ssm:eu-central-1:123456789012:document/Our-Forward")
    );
    for (line, expected) in [
        ("sessions=0", "invalid sessions 0: expected 1 to 32"),
        ("sessions=33", "invalid sessions 33:"),
        (
            "idle_timeout=0",
            "invalid idle_timeout 0: expected whole seconds, 1 or more",
        ),
        (
            "dial_timeout=0",
            "invalid dial_timeout 0: expected whole seconds, 1 or more",
        ),
        (
            "document=''",
            "invalid document \"\": expected the name or ARN",
        ),
        (
            "document='our document'",
            "invalid document \"our document\":",
        ),
    ] {
        let said = refusal(&format!("bastion='i-1'\n{line}"));
        assert!(said.contains(expected), "{line}\n→ {said}");
    }
}

#[test]
fn a_relay_has_a_port_or_is_looked_for() {
    let relay = |lines: &str| {
        let settings = ssm(&format!("bastion='i-1'\n{lines}"));
        let relay = settings.relay.map(|r| (r.port, r.is_explicit, r.sessions));
        (relay, settings.sessions)
    };
    for (lines, expected) in [
        ("", (None, 4)),
        ("relay=false", (None, 4)),
        ("relay='auto'", (Some((5439, false, 16)), 4)),
        ("relay=true", (Some((5439, false, 16)), 4)),
        ("relay=5439", (Some((5439, true, 16)), 4)),
        ("relay='6000'\nsessions=8", (Some((6000, true, 8)), 8)),
    ] {
        assert_eq!(relay(lines), expected, "{lines}");
    }
    for line in ["relay=0", "relay=65536", "relay='yes please'", "relay=''"] {
        let said = refusal(&format!("bastion='i-1'\n{line}"));
        assert!(
            said.contains("invalid relay") && said.contains("expected the port of the relay"),
            "{line}\n→ {said}"
        );
    }
    // Another process of pgiam reads the settings from this layer.
    for lines in ["", "relay='auto'", "relay=6000", "relay='auto'\nsessions=9"] {
        let text = format!("[targets.a]\nhost='{HOST}'\nbastion='i-1'\n{lines}\n");
        let target = &parse(&text, &[], &TargetLayer::default()).unwrap()[0];
        let layer = toml::to_string(&target.settings.layer()).unwrap();
        let text = format!("[targets.a]\nhost='{HOST}'\n{layer}");
        let again = &parse(&text, &[], &TargetLayer::default()).unwrap()[0];
        assert_eq!(again.settings, target.settings, "{lines}\n→ {layer}");
    }
}

#[test]
fn a_dial_is_part_of_the_connecting() {
    let settings = ssm("bastion='i-1'\nconnect_timeout=5");
    assert_eq!(settings.dial_timeout, Duration::from_secs(5));
    let settings = ssm("bastion='i-1'\nconnect_timeout=5\ndial_timeout=5");
    assert_eq!(settings.dial_timeout, Duration::from_secs(5));
    let said = refusal("bastion='i-1'\nconnect_timeout=5\ndial_timeout=6");
    assert!(
        said.contains("invalid dial_timeout 6: it is longer than connect_timeout, 5")
            && said.contains(
                "lower dial_timeout to at most 5, or raise connect_timeout to at least 6"
            ),
        "{said}"
    );
}

#[test]
fn a_target_without_a_tunnel_does_not_describe_one() {
    for key in [
        "bastion='i-1'",
        "document='Our-Forward'",
        "relay='auto'",
        "sessions=1",
        "idle_timeout=1",
        "warm=false",
        "keep_alive=true",
        "dial_timeout=1",
    ] {
        let said = refusal(&format!("via='direct'\n{key}"));
        let name = key.split('=').next().unwrap();
        assert!(
            said.contains(&format!("sets {name}, but via"))
                && said.contains("remove one of the two"),
            "{said}"
        );
    }
    // Settings for several targets at a time need not fit each of them.
    let text =
        format!("[defaults]\nbastion='i-1'\nwarm=true\n[targets.a]\nhost='{HOST}'\nvia='direct'\n");
    let flags = TargetLayer {
        bastion: written("i-2"),
        sessions: Some(2),
        ..TargetLayer::default()
    };
    assert_eq!(
        parse(&text, &[], &flags).unwrap()[0].settings.via,
        Via::Direct
    );
    // Nor does a flag, which is for one run.
    let text = format!("[targets.a]\nhost='{HOST}'\nbastion='i-1'\n");
    let flags = TargetLayer {
        via: Some("direct".to_owned()),
        ..TargetLayer::default()
    };
    assert_eq!(
        parse(&text, &[], &flags).unwrap()[0].settings.via,
        Via::Direct
    );
    // But a bastion must not be bypassed because of a setting elsewhere.
    let text = format!("[defaults]\nvia='direct'\n[targets.a]\nhost='{HOST}'\nbastion='i-1'\n");
    let said = parse(&text, &[], &TargetLayer::default())
        .unwrap_err()
        .to_string();
    assert!(said.contains("via comes from [defaults]"), "{said}");
    let text = text.replace("bastion=", "via='ssm'\nbastion=");
    assert_eq!(
        parse(&text, &[], &TargetLayer::default()).unwrap()[0]
            .settings
            .via
            .to_string(),
        "ssm i-1"
    );
}

#[test]
fn ways_read_well() {
    let shown = |bastion: &str| {
        let bastion = written(bastion).unwrap().parse().unwrap();
        Via::Ssm(SsmSettings::new(bastion)).to_string()
    };
    assert_eq!(shown("i-1,mi-2"), "ssm i-1, mi-2");
    assert_eq!(shown("tag:Name=bastion"), "ssm tag Name=bastion");
}

#[test]
fn regions_of_endpoint_names() {
    let region = |host: &str| {
        host.parse::<Endpoint>()
            .unwrap()
            .region()
            .map(str::to_owned)
    };
    for (host, expected) in [
        ("db.abc.us-gov-west-1.rds.amazonaws.com", "us-gov-west-1"),
        ("db.abc.rds.us-gov-east-1.amazonaws.com", "us-gov-east-1"),
        ("p.proxy-abc.cn-north-1.rds.amazonaws.com.cn", "cn-north-1"),
        (
            "db.abc.rds.cn-northwest-1.amazonaws.com.cn",
            "cn-northwest-1",
        ),
        ("db.abc.us-iso-east-1.rds.c2s.ic.gov", "us-iso-east-1"),
        ("db.abc.us-isob-east-1.rds.sc2s.sgov.gov", "us-isob-east-1"),
        ("db.abc.eu-isoe-west-1.rds.cloud.adc-e.uk", "eu-isoe-west-1"),
        (
            "db.abc.us-isof-south-1.rds.csp.hci.ic.gov",
            "us-isof-south-1",
        ),
        ("db.abc.eusc-de-east-1.rds.amazonaws.eu", "eusc-de-east-1"),
    ] {
        assert_eq!(region(host).as_deref(), Some(expected), "{host}");
    }
    for other in [
        "db.example.com",
        "rds.amazonaws.com",
        "i-1.eu-central-1.compute.amazonaws.com",
        "db.abc.eu-central-1.rds.amazonaws.com.example.org",
        "db.abc.eu-central-1.rds.evilamazonaws.com",
    ] {
        assert_eq!(region(other), None, "{other}");
    }
}

#[test]
fn destinations_are_what_the_bastion_sees() {
    for (written, shown) in [
        ("db.internal:3306", "db.internal:3306"),
        ("Redis:6379", "redis:6379"),
        ("my_db.svc:80", "my_db.svc:80"),
        ("10.0.0.7:80", "10.0.0.7:80"),
        ("[FD00:0::7]:443", "[fd00::7]:443"),
    ] {
        let Destination(endpoint) = written.parse().unwrap();
        assert_eq!(endpoint.to_string(), shown);
    }
    let Destination(endpoint) = "[fd00::7]:443".parse().unwrap();
    assert_eq!(endpoint.host, "fd00::7", "as the agent takes it");
    for (written, expected) in [
        ("db.internal", "the port is missing; expected HOST:PORT"),
        ("db.internal:0", "\"0\" is not a port"),
        ("db.internal:mysql", "\"mysql\" is not a port"),
        ("fd00::7:443", "must be in brackets"),
        ("[db]:443", "\"db\" is not an IPv6 address"),
        ("https://db.internal:443", "it is a URL"),
        (":443", "\"\" is not a host name"),
        ("db internal:443", "is not a host name"),
    ] {
        let said = written.parse::<Destination>().unwrap_err();
        assert!(said.contains(expected), "{written}\n→ {said}");
    }
}

#[test]
fn raw_tunnels_listen_on_the_loopback_only() {
    assert_eq!("3307".parse(), Ok(Listen::Localhost(3307)));
    assert_eq!("localhost:3307".parse(), Ok(Listen::Localhost(3307)));
    for written in ["127.0.0.1:3307", "127.0.0.2:0", "[::1]:3307"] {
        let listen: Listen = written.parse().unwrap();
        assert!(matches!(listen, Listen::Address(_)), "{written}");
        assert_eq!(listen.to_string(), written);
    }
    for (written, expected) in [
        ("0.0.0.0:3307", "without a password; listen on 127.0.0.1"),
        ("[::]:3307", "without a password"),
        ("192.168.1.7:3307", "ssh -L"),
        (
            "example.org:3307",
            "expected PORT, 127.0.0.1:PORT or [::1]:PORT",
        ),
        ("70000", "expected PORT"),
        ("", "expected PORT"),
    ] {
        let said = written.parse::<Listen>().unwrap_err();
        assert!(said.contains(expected), "{written}\n→ {said}");
    }
}

fn forward(
    file: &str,
    to: &str,
    like: Option<&str>,
    flags: &TargetLayer,
) -> Result<ResolvedTarget, ConfigError> {
    let file: ConfigFile = toml::from_str(file).unwrap();
    file.forward(to.parse().unwrap(), like, flags)
}

#[test]
fn a_raw_tunnel_takes_the_way_of_a_target() {
    let file = format!(
        "[defaults]\nprofile='dev'\nbastion='i-1'\nvia='direct'\nsessions=2\n\
         [targets.orders]\nhost='{HOST}'\nuser='db_user'\nport=6000\nbastion='i-2'\nprofile='prod'\nca_file='x.pem'\n\
         [targets.near]\nhost='{HOST}'\nvia='direct'\n"
    );
    let none = TargetLayer::default();
    let plain = forward(&file, "db.internal:3306", None, &none).unwrap();
    assert_eq!(
        (plain.name.as_str(), plain.settings.via.to_string().as_str()),
        ("db.internal:3306", "ssm i-1")
    );
    assert_eq!(
        (plain.settings.profile.as_deref(), plain.region.as_deref()),
        (Some("dev"), None)
    );
    let like = forward(&file, "db.internal:3306", Some("orders"), &none).unwrap();
    assert_eq!(like.settings.via.to_string(), "ssm i-2");
    assert_eq!(
        (like.settings.profile.as_deref(), like.region.as_deref()),
        (Some("prod"), Some("eu-central-1"))
    );
    assert_eq!(
        (
            like.settings.user,
            like.settings.ca_file,
            like.settings.local_port
        ),
        (None, None, 3306)
    );
    let near = forward(&file, "db.internal:3306", Some("near"), &none).unwrap();
    assert_eq!(near.settings.via.to_string(), "ssm i-1");
    let flags = TargetLayer {
        bastion: written("tag:Name=bastion"),
        region: Some("us-east-1".into()),
        warm: Some(true),
        ..TargetLayer::default()
    };
    let flagged = forward(&file, "db.internal:3306", Some("orders"), &flags).unwrap();
    assert_eq!(flagged.region.as_deref(), Some("us-east-1"));
    let expected = SsmSettings {
        sessions: 2,
        warm: true,
        ..SsmSettings::new(tag("Name", "bastion"))
    };
    assert_eq!(flagged.settings.via, Via::Ssm(expected));
}

#[test]
fn the_region_of_a_raw_tunnel_may_come_from_where_it_leads() {
    let flags = TargetLayer {
        bastion: written("i-1"),
        ..TargetLayer::default()
    };
    let to = "my.cluster-abc.us-west-2.rds.amazonaws.com:3306";
    let tunnel = forward("", to, None, &flags).unwrap();
    assert_eq!(tunnel.region.as_deref(), Some("us-west-2"));
}

#[test]
fn a_raw_tunnel_says_what_it_lacks() {
    let none = TargetLayer::default();
    let said = |file: &str, like: Option<&str>, flags: &TargetLayer| {
        forward(file, "db.internal:3306", like, flags)
            .unwrap_err()
            .to_string()
    };
    let missing = said("", None, &none);
    assert!(
        missing.contains("target \"db.internal:3306\" has no bastion")
            && missing.contains("--target NAME"),
        "{missing}"
    );
    let unknown = said(&format!("[targets.a]\nhost='{HOST}'\n"), Some("b"), &none);
    assert!(
        unknown.contains("no target \"b\"") && unknown.contains("targets: a"),
        "{unknown}"
    );
    let flags = TargetLayer {
        bastion: written("i-1"),
        sessions: Some(50),
        ..TargetLayer::default()
    };
    let bad = said("", None, &flags);
    assert!(bad.contains("invalid sessions 50:"), "{bad}");
}

#[test]
fn without_a_bastion_one_is_looked_for() {
    for lines in ["", "bastion='auto'"] {
        assert_eq!(ssm(lines).bastion, Bastion::Auto, "{lines}");
    }
    // Not for a tunnel to another destination.
    let to = "db.internal:3306".parse::<Destination>().unwrap();
    let error = ConfigFile::default().forward(to.clone(), None, &TargetLayer::default());
    assert!(error.unwrap_err().to_string().contains("--bastion auto"));
    let flags = TargetLayer {
        bastion: written("auto"),
        ..TargetLayer::default()
    };
    let target = ConfigFile::default().forward(to, None, &flags).unwrap();
    assert_eq!(target.settings.via.to_string(), "ssm auto");
}

fn configs(text: &str, flags: &TargetLayer) -> Vec<Result<TargetConfig, ConfigError>> {
    let file: ConfigFile = toml::from_str(text).unwrap();
    file.targets(&[], flags).unwrap()
}

#[test]
fn a_database_may_be_named_by_its_identifier() {
    let mut all = configs(
        "[targets.a]\ndb='Orders'\n[targets.b]\ndb='orders:reader'\n",
        &TargetLayer::default(),
    );
    for (config, shown, reader) in [
        (all.remove(0), "orders", false),
        (all.remove(0), "orders:reader", true),
    ] {
        let config = config.unwrap();
        let db = config.rds_identifier().unwrap();
        assert_eq!((db.to_string().as_str(), db.reader), (shown, reader));
        assert!(config.resolved().is_none());
        let target = config.resolve(HOST.parse().unwrap()).unwrap();
        assert_eq!(target.region.as_deref(), Some("eu-central-1"));
    }
    for (written, expected) in [
        (HOST, "set host = "),
        ("", "as shown by pgiam list"),
        ("1orders", "as shown by pgiam list"),
        ("or ders", "as shown by pgiam list"),
        (":reader", "as shown by pgiam list"),
    ] {
        let config = configs(
            &format!("[targets.a]\ndb='{written}'\n"),
            &TargetLayer::default(),
        )
        .remove(0);
        let said = config.unwrap_err().to_string();
        assert!(said.contains(expected), "{written}\n→ {said}");
    }
}

#[test]
fn host_and_db_say_the_same_and_the_nearer_one_counts() {
    let both = format!("[targets.a]\nhost='{HOST}'\ndb='orders'\n");
    let said = configs(&both, &TargetLayer::default())
        .remove(0)
        .unwrap_err();
    assert!(
        said.to_string().contains("cannot be used together"),
        "{said}"
    );
    let flags = TargetLayer {
        db: Some("other".to_owned()),
        ..TargetLayer::default()
    };
    let one = format!("[targets.a]\nhost='{HOST}'\n");
    let config = configs(&one, &flags).remove(0).unwrap();
    assert_eq!(config.rds_identifier().unwrap().identifier, "other");
    let below = format!("[defaults]\ndb='orders'\n[targets.a]\nhost='{HOST}'\n");
    let config = configs(&below, &TargetLayer::default()).remove(0).unwrap();
    assert!(config.resolved().is_some());
}

#[test]
fn a_target_that_cannot_be_meant_does_not_keep_the_others_from_it() {
    let text = format!("[targets.a]\nvia='vpn'\nhost='{HOST}'\n[targets.b]\nhost='{HOST}'\n");
    let all = configs(&text, &TargetLayer::default());
    assert_eq!(
        all.iter().map(Result::is_ok).collect::<Vec<_>>(),
        [false, true]
    );
}

#[test]
fn a_command_about_one_target_finds_it() {
    let config = |text: &str, name: Option<&str>, flags: &TargetLayer| {
        let file: ConfigFile = toml::from_str(text).unwrap();
        file.target(name, flags)
    };
    let one = format!("[targets.a]\nhost='{HOST}'\n");
    let two = format!("{one}[targets.bb]\nhost='{HOST}'\n");
    let nothing = TargetLayer::default();
    assert_eq!(config(&one, None, &nothing).unwrap().name, "a");
    assert_eq!(config(&two, Some("bb"), &nothing).unwrap().name, "bb");
    let which = config(&two, None, &nothing).unwrap_err().to_string();
    assert!(which.contains("name one of them: a, bb"), "{which}");
    // Flags describe a target of their own, whatever the file contains.
    let flags = TargetLayer {
        db: Some("Orders".to_owned()),
        ..TargetLayer::default()
    };
    let described = config(&two, None, &flags).unwrap();
    assert_eq!(
        (
            described.name.as_str(),
            described.rds_identifier().is_some()
        ),
        ("orders", true)
    );
    assert!(matches!(
        config("", None, &nothing),
        Err(ConfigError::NoTarget { .. })
    ));
}

#[test]
fn what_was_mistyped_is_named() {
    let text = format!("[targets.orders]\nhost='{HOST}'\n[targets.users]\nhost='{HOST}'\n");
    for (asked, expected) in [
        (
            "ordres",
            "hint: did you mean \"orders\"? configured targets: orders, users",
        ),
        (
            "stauts",
            "hint: did you mean the command pgiam status? configured",
        ),
        ("kafka", "hint: configured targets: orders, users"),
        (
            "x\nERROR forged",
            "there is no target \"x\\nERROR forged\".",
        ),
    ] {
        let said = parse(&text, &[asked], &TargetLayer::default())
            .unwrap_err()
            .to_string();
        assert!(said.contains(expected), "{asked}\n→ {said}");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pgiam.toml");
    for (line, expected) in [
        ("bastoin='i-1'", "hint: did you mean bastion?"),
        ("idle_timout=3", "hint: did you mean idle_timeout?"),
        ("kafka=1", "unknown key \"kafka\""),
    ] {
        std::fs::write(&path, format!("[targets.a]\n{line}\n")).unwrap();
        let said = ConfigFile::load(Some(&path)).unwrap_err().to_string();
        assert!(said.contains(expected), "{line}\n→ {said}");
    }
    let long = format!("[targets.a]\nhost = {}\n", "[".repeat(100_000));
    std::fs::write(&path, long).unwrap();
    let said = ConfigFile::load(Some(&path)).unwrap_err().to_string();
    assert!(said.contains("line 2") && said.len() < 1000, "{said:.1000}");
    assert!(said.contains("nested too deeply"), "{said}");
}

#[test]
fn health_endpoints_need_a_port() {
    let parsed = |text: &str| ServeSettings::from_layer(toml::from_str(text).unwrap());
    assert_eq!(parsed("").unwrap().http, None);
    let at = parsed("http_port=9090").unwrap().http.unwrap();
    assert_eq!(at.to_string(), "127.0.0.1:9090");
    let at = parsed("http_port=9090\nhttp_address='0.0.0.0'")
        .unwrap()
        .http;
    assert_eq!(at.unwrap().to_string(), "0.0.0.0:9090");
    let said = parsed("http_address='0.0.0.0'").unwrap_err().to_string();
    assert!(said.contains("no effect without http_port"), "{said}");
}

#[test]
fn clients_open_the_browser_only_if_told() {
    let parsed = |text: &str| ServeSettings::from_layer(toml::from_str(text).unwrap());
    for (text, expected) in [
        ("", false),
        ("login='off'", false),
        ("login='browser'", true),
    ] {
        assert_eq!(parsed(text).unwrap().browser_login, expected, "{text}");
    }
    let said = parsed("login='Browser'").unwrap_err().to_string();
    assert!(said.contains("expected \"off\" or \"browser\""), "{said}");
}

#[test]
fn a_tilde_in_the_file_is_the_home_directory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("pgiam.toml");
    let text = format!(
        "[serve]\npassword_file='~/password'\nsocket_dir='~/run'\n\
         [defaults]\nca_file='~/ca.pem'\n[targets.orders]\nhost='{HOST}'\nca_file='own.pem'\n"
    );
    std::fs::write(&path, text).unwrap();
    let file = ConfigFile::load(Some(&path)).unwrap();
    let home = std::env::home_dir().unwrap();
    assert_eq!(file.serve.password_file, Some(home.join("password")));
    assert_eq!(file.serve.socket_dir, Some(SocketDir::At(home.join("run"))));
    assert_eq!(file.defaults.ca_file, Some(home.join("ca.pem")));
    // Other paths are relative to the file.
    let own = file.targets["orders"].ca_file.clone();
    assert_eq!(own, Some(dir.path().join("own.pem")));
}

#[test]
fn connections_are_kept_ready_where_a_login_gains_from_it() {
    for (lines, expected) in [
        ("", 1),
        ("ready=0", 0),
        ("ready=8", 8),
        ("via='direct'", 0),
        ("via='direct'\nready=2", 2),
        ("auth='passthrough'", 0),
        ("auth='passthrough'\nready=2", 0),
    ] {
        let ready = target(lines).unwrap().settings.login.ready;
        assert_eq!(ready, expected, "{lines}");
    }
    let said = refusal("ready=9");
    assert!(said.contains("invalid ready 9: expected 0 to 8"), "{said}");
}
