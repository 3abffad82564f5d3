//! Tests of the reports about the database's answers and context the local side, on the frames that a
//! client would get.

use std::time::{Duration, SystemTime};

use pg_handshake::{AuthMethod, ProtocolVersion, ServerError, Startup, UpstreamError};

use super::*;
use crate::aws::KeyState;
use crate::aws::alias::AliasError;
use crate::failure::route::RouteError;
use crate::tls::upstream::UpstreamTlsError;
use crate::tunnel::Readiness;
use pg_handshake::scram::ScramError;

const DSQL: &str = "abcdefghijklmnopqrstuvwxyz.dsql.eu-central-1.on.aws";
const RDS_PROXY: &str = "orders.proxy-abc.eu-central-1.rds.amazonaws.com";

fn frame(fields: &[(u8, &str)]) -> Bytes {
    let mut body = Vec::new();
    for (code, text) in fields {
        body.push(*code);
        body.extend(text.as_bytes());
        body.push(0);
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).unwrap();
    [&b"E"[..], &length.to_be_bytes(), &body].concat().into()
}

pub(super) fn from_server(state: &str, message: &str) -> ConnectionError {
    let frame = frame(&[(b'S', "FATAL"), (b'C', state), (b'M', message)]);
    ConnectionError::Upstream(UpstreamError::Server(ServerError::parse(frame).unwrap()))
}

fn evidence(host: &str, user: &str) -> TokenEvidence {
    TokenEvidence {
        request: TokenRequest {
            host: host.to_owned(),
            port: 5432,
            user: user.to_owned(),
            region: "eu-central-1".to_owned().into(),
        },
        expires_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_790_000_000_900),
        from_cache: false,
        early: false,
        second: false,
        clock: None,
        identity: Identity::default(),
    }
}

/// Returns the fields that a client displays.
fn fields(report: &Report) -> BTreeMap<u8, String> {
    let reply = report.reply.as_ref().expect("a reply");
    let reply = ServerError::parse(reply.clone()).unwrap();
    let text = |code| {
        reply
            .field(code)
            .map(|v| String::from_utf8_lossy(v).into_owned())
    };
    let codes = [b'C', b'M', b'D', b'H'];
    let found = codes
        .into_iter()
        .filter_map(|code| Some((code, text(code)?)));
    found.collect()
}

pub(super) fn printed(title: &str, report: &Report) -> String {
    let fields = fields(report);
    let mut text = format!(
        "# {title}\n{} {}: {}\n",
        report.id, fields[&b'C'], fields[&b'M']
    );
    for (code, name) in [(b'D', "DETAIL"), (b'H', "HINT")] {
        if let Some(words) = fields.get(&code) {
            writeln!(text, "{name}:  {words}").unwrap();
        }
    }
    text
}

fn refusal(error: &ConnectionError, context: &ErrorContext<'_>) -> Report {
    before_login(error, Some(context))
}

#[test]
fn a_refused_token_is_described() {
    let one = target("bastion='i-1'\nprofile='dev'\nuser='app'");
    let pam = from_server("28000", "PAM authentication failed for user \"app\"");
    let password = from_server("28P01", "password authentication failed for user \"app\"");
    let competing = "The IAM authentication failed because of too many competing requests.";
    let proxy = from_server(
        "28000",
        "The IAM authentication failed for the role app. Check the IAM token for this role and try again.",
    );
    let (fresh, of_alias) = (
        evidence(HOST, "app"),
        evidence("orders-2.cluster-x.eu-central-1.rds.amazonaws.com", "app"),
    );
    let cached = TokenEvidence {
        from_cache: true,
        ..evidence(HOST, "app")
    };
    let clock = |seconds| TokenEvidence {
        clock: Some(ClockOffset { seconds }),
        ..evidence(HOST, "app")
    };
    let (behind, ahead, enough) = (clock(16 * 60), clock(-400), clock(300));
    let told = |keys| TokenEvidence {
        identity: Identity {
            account: Some("123456789012".to_owned()),
            keys: Some(keys),
            arn: None,
        },
        ..evidence(HOST, "app")
    };
    let code = "InvalidClientTokenId".to_owned();
    let (good, over) = (told(KeyState::Accepted), told(KeyState::Expired));
    let unknown = told(KeyState::Rejected { code });
    let mut at_instance = evidence("orders.abc.cn-north-1.rds.amazonaws.com.cn", "app");
    at_instance.request.region = "cn-north-1".to_owned().into();
    let at_proxy = evidence(RDS_PROXY, "app");
    let (dsql, admin) = (evidence(DSQL, "app"), evidence(DSQL, "admin"));
    let denied = from_server("08006", "unable to accept connection, access denied");
    let judged = |evidence, user| ErrorContext {
        user,
        token_judged: true,
        evidence: Some(evidence),
        ..ErrorContext::target(&one)
    };
    let cases = [
        ("a fresh token", &pam, judged(&fresh, "app")),
        ("a cached token", &pam, judged(&cached, "app")),
        ("the endpoint of an alias", &pam, judged(&of_alias, "app")),
        ("a clock that is behind", &pam, judged(&behind, "app")),
        ("a clock that is ahead", &pam, judged(&ahead, "app")),
        ("keys that are good", &pam, judged(&good, "app")),
        ("keys whose time is over", &pam, judged(&over, "app")),
        ("keys that AWS does not know", &pam, judged(&unknown, "app")),
        ("an instance", &pam, judged(&at_instance, "app")),
        ("taken for a password", &password, judged(&fresh, "app")),
        ("RDS Proxy", &proxy, judged(&at_proxy, "app")),
        (
            "RDS Proxy, busy",
            &from_server("28000", competing),
            judged(&at_proxy, "app"),
        ),
        ("Aurora DSQL", &denied, judged(&dsql, "app")),
        ("Aurora DSQL as admin", &denied, judged(&admin, "admin")),
    ];
    let mut texts = Vec::new();
    for (title, error, context) in &cases {
        let report = refusal(error, context);
        let fields = fields(&report);
        let ConnectionError::Upstream(UpstreamError::Server(error)) = error else {
            unreachable!()
        };
        assert_eq!(
            fields[&b'M'],
            error.message(),
            "{title}: the server's own words"
        );
        assert_eq!(fields[&b'C'], error.sqlstate().unwrap().as_str(), "{title}");
        assert!(
            fields[&b'H']
                .trim_end_matches(']')
                .ends_with(&format!("[{}", report.id)),
            "{title}"
        );
        texts.push(printed(title, &report));
    }
    snapshot("tokens", &texts);
    // Within the tolerance, and before the token was judged, the clock is not mentioned.
    assert_eq!(
        refusal(&pam, &judged(&enough, "app")).id,
        "database.login-refused"
    );
    let unjudged = ErrorContext {
        token_judged: false,
        ..judged(&behind, "app")
    };
    assert_eq!(refusal(&pam, &unjudged).id, "database.refused");
}

/// SQLSTATEs and messages of servers, for a target with a database of its own.
const ANSWERS: &[(&str, &str, &str)] = &[
    (
        "no such database",
        "3D000",
        "database \"nosuch\" does not exist",
    ),
    ("full", "53300", "sorry, too many clients already"),
    (
        "all but reserved",
        "53300",
        "remaining connection slots are reserved for roles with the SUPERUSER attribute",
    ),
    (
        "a role's limit",
        "53300",
        "too many connections for role \"db_user\"",
    ),
    (
        "a database's limit",
        "53300",
        "too many connections for database \"app\"",
    ),
    ("starting", "57P03", "the database system is starting up"),
    (
        "stopping",
        "57P01",
        "terminating connection due to administrator command",
    ),
    (
        "no rule",
        "28000",
        "no pg_hba.conf entry for host \"10.0.0.1\", user \"db_user\", database \"app\", SSL encryption",
    ),
    (
        "no login",
        "28000",
        "role \"db_user\" is not permitted to log in",
    ),
    (
        "no CONNECT",
        "42501",
        "permission denied for database \"app\"",
    ),
    (
        "too slow",
        "57014",
        "canceling authentication due to timeout",
    ),
    (
        "an unknown parameter",
        "42704",
        "unrecognized configuration parameter \"geqo2\"",
    ),
    (
        "DSQL: a parameter",
        "0A000",
        "setting configuration parameter \"statement_timeout\" not supported",
    ),
    (
        "DSQL: full",
        "53300",
        "Unable to accept connection, too many open connections.",
    ),
    (
        "DSQL: too fast",
        "53400",
        "Unable to accept connection, rate exceeded.",
    ),
    (
        "RDS Proxy: an option",
        "0A000",
        "Feature not supported: RDS Proxy currently doesn't support the option geqo.",
    ),
    (
        "RDS Proxy: no secret",
        "28000",
        "This RDS proxy has no credentials for the role db_user. Check the credentials for this role and try again.",
    ),
    ("something else", "XX000", "cache lookup failed"),
];

#[test]
fn what_the_database_says_is_explained() {
    let one = target("bastion='i-1'\ndatabase='app'");
    let nothing = target("bastion='i-1'");
    let passthrough = target("bastion='i-1'\nauth='passthrough'");
    let with = |target| ErrorContext {
        user: "db_user",
        open_connections: 7,
        ..ErrorContext::target(target)
    };
    let (context, bare, own) = (with(&one), with(&nothing), with(&passthrough));
    let mut texts = Vec::new();
    let answers = ANSWERS.iter();
    let answers = answers.map(|(title, state, message)| (*title, *state, *message, &context));
    for (title, state, message, context) in answers.chain([
        (
            "none named",
            "3D000",
            "database \"db_user\" does not exist",
            &bare,
        ),
        (
            "a role for tokens only",
            "28000",
            "PAM authentication failed for user \"db_user\"",
            &own,
        ),
        (
            "a password of one's own",
            "28P01",
            "password authentication failed for user \"db_user\"",
            &own,
        ),
    ]) {
        let report = refusal(&from_server(state, message), context);
        assert_eq!(fields(&report)[&b'M'], message);
        assert_eq!(report.not_ready, state == "57P03", "{title}");
        texts.push(printed(title, &report));
    }
    snapshot("answers", &texts);

    let own = frame(&[
        (b'C', "3D000"),
        (b'M', "m"),
        (b'D', "Theirs."),
        (b'H', "Their hint."),
    ]);
    let error = ConnectionError::Upstream(UpstreamError::Server(ServerError::parse(own).unwrap()));
    let fields = fields(&refusal(&error, &context));
    assert_eq!(
        fields[&b'D'],
        "Theirs.\nThe target's default database is \"app\"."
    );
    assert!(
        fields[&b'H'].starts_with("Their hint.\nUse an existing database"),
        "{fields:?}"
    );
}

#[test]
fn a_login_that_goes_wrong_before_the_database_judges() {
    let one = target("bastion='i-1'");
    let early = TokenEvidence {
        early: true,
        second: false,
        ..evidence(HOST, "app")
    };
    let asked = TokenEvidence {
        early: false,
        second: false,
        ..evidence(HOST, "app")
    };
    let context = |evidence| ErrorContext {
        user: "app",
        evidence: Some(evidence),
        ..ErrorContext::target(&one)
    };
    let scram = || AuthMethod::Sasl {
        mechanisms: vec!["SCRAM-SHA-256".to_owned()],
    };
    let upstream = |error| before_login(&ConnectionError::Upstream(error), Some(&context(&asked)));
    let unexpected = ConnectionError::Upstream(UpstreamError::UnexpectedAuth(scram()));
    let told = refusal(&unexpected, &context(&early));
    assert!(!fields(&told)[&b'D'].contains("No token was sent"));
    let mut texts = vec![
        printed("no rds_iam", &refusal(&unexpected, &context(&asked))),
        printed("no rds_iam any more", &told),
        printed("let in unasked", &upstream(UpstreamError::PasswordNotAsked)),
        printed(
            "bound to TLS only",
            &upstream(UpstreamError::OnlyChannelBinding),
        ),
        printed(
            "a token that is none",
            &upstream(UpstreamError::Password("it is empty")),
        ),
        printed(
            "no ALPN",
            &refusal(&ConnectionError::NoAlpn, &context(&asked)),
        ),
    ];
    let lost = UpstreamTlsError::Io(Arc::new(io::ErrorKind::ConnectionReset.into()));
    for (title, error) in [
        ("TLS breaks", ConnectionError::UpstreamTls(lost)),
        (
            "the login breaks",
            ConnectionError::UpstreamLost(io::Error::other("connection reset by peer")),
        ),
        (
            "the login takes too long",
            ConnectionError::LoginTimeout(Duration::from_secs(15)),
        ),
    ] {
        texts.push(printed(title, &refusal(&error, &context(&asked))));
    }
    snapshot("logins", &texts);
}

#[test]
fn names_of_ones_own_are_explained() {
    let one = target("bastion='i-1'");
    let context = context(&one);
    let mut texts = Vec::new();
    let host = || "db.example.com".to_owned();
    let names = |names: &[&str]| names.iter().map(|name| (*name).into()).collect::<Vec<_>>();
    for (title, error) in [
        (
            "a name that is no alias",
            AliasError::NoAlias {
                host: host(),
                chain: names(&["db.example.com"]),
                exists: true,
            },
        ),
        (
            "a name that does not exist",
            AliasError::NoAlias {
                host: host(),
                chain: names(&["db.example.com"]),
                exists: false,
            },
        ),
        (
            "an alias of something else",
            AliasError::NoAlias {
                host: host(),
                chain: names(&["db.example.com", "a.example.net"]),
                exists: true,
            },
        ),
        (
            "aliases without an end",
            AliasError::Loop {
                host: host(),
                chain: names(&["db.example.com", "a.example.net", "db.example.com"]),
            },
        ),
        (
            "no DNS",
            AliasError::Dns {
                host: host(),
                reason: "no answer within 5 s".into(),
            },
        ),
    ] {
        texts.push(printed(
            title,
            &refusal(&ConnectionError::Alias(error), &context),
        ));
    }
    snapshot("aliases", &texts);
}

#[test]
fn a_client_that_leaves_while_it_waits_is_told_of_with_the_step() {
    let one = target("bastion='i-1'");
    let context = context(&one);
    let left = |milliseconds, waiting| ConnectionError::ClientLeft {
        after: Duration::from_millis(milliseconds),
        waiting,
    };
    let failure = |error| refusal(&error, &context).failure();
    let early = failure(left(999, Some("ssm:StartSession")));
    assert_eq!(early.id, "client.gone");
    assert!(!early.notable && early.hint.is_none(), "{early:?}");
    for (waiting, message, hint) in [
        (
            Some("ssm:StartSession"),
            "the client disconnected after 5.0 s, while pgiam was waiting for ssm:StartSession",
            "pgiam check orders",
        ),
        (
            Some("AWS credentials"),
            "the client disconnected after 5.0 s, while pgiam was waiting for AWS credentials",
            "credential_process",
        ),
        (
            None,
            "the client disconnected after 5.0 s",
            "pgiam check orders",
        ),
    ] {
        let late = failure(left(5000, waiting));
        assert_eq!((&*late.message, late.notable), (message, true));
        assert!(late.hint.unwrap().contains(hint), "{waiting:?}");
    }
}

#[test]
fn the_local_side_is_explained() {
    let one = target("bastion='i-1'");
    let context = context(&one);
    let stopped = ConnectionError::Route(RouteError::Stopped {
        target: "orders".into(),
    });
    let replication = RouteError::Replication {
        target: "orders".to_owned().into(),
    };
    let waited = |readiness| ConnectionError::ConnectTimeout {
        after: Duration::from_secs(30),
        readiness,
        waiting: (readiness == Readiness::Starting).then_some("ssm:StartSession"),
    };
    let lost = || TunnelError::ChannelLost {
        reason: "connection reset by peer".into(),
    };
    let many = |of_target| ConnectionError::TooManyConnections {
        limit: 20,
        of_target,
    };
    let cases = [
        (
            "somebody else",
            ConnectionError::ForeignPeer {
                peer: 1001.into(),
                own: 1000.into(),
            },
        ),
        (
            "who knows who",
            ConnectionError::UnknownPeer(io::Error::other("no such socket")),
        ),
        (
            "a wrong local password",
            ConnectionError::LocalPassword(ScramError::WrongPassword),
        ),
        (
            "an extension of SCRAM",
            ConnectionError::LocalPassword(ScramError::Unsupported("an extension")),
        ),
        (
            "SCRAM out of order",
            ConnectionError::LocalPassword(ScramError::OutOfOrder),
        ),
        (
            "SCRAM through another TLS",
            ConnectionError::LocalPassword(ScramError::Binding),
        ),
        ("two passwords", ConnectionError::TwoPasswords),
        ("bound to TLS", ConnectionError::ChannelBinding),
        ("replication", ConnectionError::Route(replication)),
        ("too many", many(false)),
        ("too many of the target", many(true)),
        ("too long", waited(Readiness::Starting)),
        ("too long, and interrupted", waited(Readiness::Interrupted)),
        ("not yet", ConnectionError::NoTunnelYet(Readiness::Starting)),
        (
            "interrupted",
            ConnectionError::Interrupted(Box::new(ConnectionError::Tunnel(lost()))),
        ),
        ("stopped", stopped),
        ("stopping", ConnectionError::ShuttingDown),
    ];
    let texts: Vec<String> = cases
        .iter()
        .map(|(title, error)| {
            // Before routing there is no target in the context.
            let known = Some(&context).filter(|_| !matches!(error, ConnectionError::Route(_)));
            printed(title, &before_login(error, known))
        })
        .collect();
    snapshot("local", &texts);
    // `pg_isready` must report these as "rejecting".
    for (title, error) in &cases[11..16] {
        let report = refusal(error, &context);
        assert!(report.not_ready, "{title}");
        assert_eq!(fields(&report)[&b'C'], "57P03", "{title}");
    }
}

#[test]
fn sessions_of_dsql_end_within_the_hour() {
    let mut one = target("bastion='i-1'");
    one.endpoint = format!("{DSQL}:5432").parse().unwrap();
    let end = ConnectionEnd {
        by: EndedBy::Server,
        error: Some(io::ErrorKind::ConnectionReset.into()),
        sent: 0,
        received: 0,
        at_boundary: true,
    };
    let reply = after_login(&end, &one).unwrap().reply.unwrap();
    let reply = ServerError::parse(reply).unwrap();
    assert!(
        reply.hint().unwrap().contains("after one hour"),
        "{reply:?}"
    );
}

#[test]
fn a_parameter_is_left_out_where_it_was_put_in() {
    let one = target("bastion='i-1'");
    let refused = from_server(
        "42704",
        "unrecognized configuration parameter \"Statement_Timeout\"",
    );
    let hint = |name: &str, value: &str| {
        let mut startup = Startup::new(ProtocolVersion::V3_0);
        startup.set("user", b"app").unwrap();
        startup.set(name, value.as_bytes()).unwrap();
        let context = ErrorContext {
            startup: Some(&startup),
            ..context(&one)
        };
        fields(&refusal(&refused, &context))[&b'H'].clone()
    };
    let by_name = hint("statement_timeout", "1s");
    assert!(by_name.contains("ignore_startup_parameters"), "{by_name}");
    // That setting may not name `options`, and covers only parameters sent under their own name.
    let in_options = hint("options", "-c statement_timeout=1s");
    assert!(
        !in_options.contains("ignore_startup_parameters") && in_options.contains("PGOPTIONS"),
        "{in_options}"
    );
}

#[test]
fn a_server_of_another_name() {
    let one = target("bastion='i-1'");
    let mut own_name = target("bastion='i-1'");
    own_name.endpoint = "orders.db.example.com:5432".parse().unwrap();
    let other = || {
        ConnectionError::UpstreamTls(UpstreamTlsError::NameMismatch {
            expected: HOST.to_owned(),
            presented: vec!["stock.cluster-abc.eu-central-1.rds.amazonaws.com".into()],
        })
    };
    let texts = [
        printed("another database", &refusal(&other(), &context(&one))),
        printed("an alias", &refusal(&other(), &context(&own_name))),
    ];
    assert!(!texts[0].contains("not a CNAME"), "{texts:?}");
    snapshot("names", &texts);
}

/// Collects all Rust files below `folder`, without the tests.
fn sources(folder: &std::path::Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "tests" {
            sources(&path, found);
        } else if name.ends_with(".rs") && !["tests.rs", "ids.rs"].contains(&&name[..]) {
            found.push(std::fs::read_to_string(&path).unwrap());
        }
    }
}

/// Returns the sources of the reports themselves.
fn all_own(root: &std::path::Path) -> String {
    let mut own = vec![std::fs::read_to_string(root.join("src/report.rs")).unwrap()];
    sources(&root.join("src/report"), &mut own);
    own.concat()
}

fn looks_like_an_id(literal: &str) -> bool {
    let word = |word: &str| {
        let letter = |c: char| c.is_ascii_lowercase() || c == '-';
        !word.is_empty() && word.chars().all(letter)
    };
    literal
        .split_once('.')
        .is_some_and(|(group, cause)| word(group) && word(cause))
}

#[test]
fn the_list_of_identifiers_and_the_document_agree() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    assert!(
        IDS.is_sorted() && IDS.windows(2).all(|two| two[0] != two[1]),
        "{IDS:?}"
    );
    let mut all = Vec::new();
    sources(&root.join("src"), &mut all);
    let all = all.concat();
    let own = all_own(root);
    for literal in own.split('"').filter(|literal| looks_like_an_id(literal)) {
        assert!(
            IDS.contains(&literal),
            "{literal} is in use and not in the list"
        );
    }
    for id in IDS {
        assert!(
            all.contains(&format!("\"{id}\"")),
            "{id} is in the list and not in use"
        );
    }
    let document = std::fs::read_to_string(root.join("docs/errors.md")).unwrap();
    let mut anchors: Vec<&str> = Vec::new();
    let mut lines = document.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(anchor) = line.strip_prefix("<a id=\"") else {
            continue;
        };
        let anchor = anchor.strip_suffix("\"></a>").expect(line);
        assert_eq!(
            lines.peek().copied(),
            Some(&format!("### {anchor}")[..]),
            "its heading follows"
        );
        anchors.push(anchor);
    }
    let missing: Vec<_> = IDS.iter().filter(|id| !anchors.contains(id)).collect();
    assert!(missing.is_empty(), "not in docs/errors.md: {missing:?}");
    let unknown: Vec<_> = anchors.iter().filter(|id| !IDS.contains(id)).collect();
    assert!(unknown.is_empty(), "only in docs/errors.md: {unknown:?}");
    assert_eq!(anchors.len(), IDS.len(), "each once");
}
