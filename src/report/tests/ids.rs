//! Tests of the causes that no other test covers, and of the completeness of the list.

use aws_profile::{FileInput, Files, Request, ResolveError};
use pg_handshake::{PasswordError, StartupError};

use super::answers::{from_server, printed};
use super::*;
use crate::aws::SharedCause;
use crate::aws::token::TokenError;
use crate::base::background::TaskStopped;
use crate::failure::route::RouteError;
use crate::tls::upstream::UpstreamTlsError;
use pg_handshake::scram::ScramError;

/// These have no reader: the client is gone, or has not begun to speak the protocol.
const SILENT: [&str; 4] = [
    "client.direct-tls",
    "client.gone",
    "client.silent",
    "client.tls",
];

fn cause() -> SharedCause {
    Arc::new(io::Error::other("dispatch failure"))
}

fn unwritable_cache() -> (&'static str, CredentialsError) {
    let reason =
        "cannot write /home/me/.aws/sso/cache/x.json: No space left on device (os error 28)";
    (
        "a cache that cannot be written",
        CredentialsError::CacheFile(reason.into()),
    )
}

#[test]
fn credentials_that_cannot_be_had() {
    let one = target("bastion='i-1'\nprofile='dev'");
    let profile = || Some("dev".to_owned());
    let arn = |name: &str| Some(format!("arn:aws:iam::123456789012:{name}"));
    let refused = |role, caller| CredentialsError::AssumeRole {
        profile: profile(),
        role,
        caller,
        code: "AccessDenied".into(),
        message: "not authorized to perform: sts:AssumeRole".into(),
    };
    let rejected = |seconds| CredentialsError::Rejected {
        profile: profile(),
        code: "SignatureDoesNotMatch".into(),
        message: "Signature expired".into(),
        clock: Some(ClockOffset { seconds }),
    };
    let cases = [
        ("a role", refused(arn("role/app"), arn("user/me"))),
        (
            "a role, asked for by who knows whom",
            refused(arn("role/app"), None),
        ),
        (
            "a role of IAM Identity Center",
            refused(Some("Developer in account 123456789012".to_owned()), None),
        ),
        ("a clock that is wrong", rejected(-960)),
        ("keys that are wrong", rejected(1)),
        (
            "no answer",
            CredentialsError::Timeout {
                after: Duration::from_secs(20),
                profile: profile(),
                process: None,
            },
        ),
        (
            "a clock that makes credentials end",
            CredentialsError::Clock {
                profile: profile(),
                clock: ClockOffset { seconds: -7200 },
            },
        ),
        (
            "an answer without end",
            CredentialsError::Answer {
                profile: profile(),
                reason: "the answer from sts.amazonaws.com is longer than 1 MiB".into(),
            },
        ),
        ("a panic", CredentialsError::Internal(TaskStopped)),
        unwritable_cache(),
        (
            "a role with MFA",
            CredentialsError::MfaRequired {
                profile: "dev".to_owned(),
                serial: "arn:aws:iam::123456789012:mfa/me".to_owned(),
                role: "arn:aws:iam::123456789012:role/app".to_owned(),
            },
        ),
        (
            "a login that has ended",
            CredentialsError::LoginSession {
                profile: "dev eu".to_owned(),
                reason: "cached Login token is expired".into(),
            },
        ),
        (
            "a profile that a variable names",
            CredentialsError::NoSuchProfile {
                profile: "dev eu".to_owned(),
                variable: Some("AWS_DEFAULT_PROFILE"),
                fault: None,
                known: vec!["dev".to_owned()],
            },
        ),
        (
            "a profile that a fault may hide",
            CredentialsError::NoSuchProfile {
                profile: String::new(),
                variable: Some("AWS_PROFILE"),
                fault: Some("/home/me/.aws/config:3: the line is not in a [section]".to_owned()),
                known: vec![],
            },
        ),
        (
            "something else",
            CredentialsError::Other {
                profile: profile(),
                source: cause(),
            },
        ),
    ];
    let texts = cases.map(|(title, error)| {
        let error = ConnectionError::Credentials(error);
        printed(title, &before_login(&error, Some(&context(&one))))
    });
    snapshot("credentials", &texts);
}

/// Returns the error for a config file and variables.
fn unresolved(config: &str, variables: &[(&str, &str)]) -> ResolveError {
    let config = FileInput::Contents(config.as_bytes());
    let files = Files::parse(("/c", config), ("/k", FileInput::Missing));
    let variable = |name: &str| {
        let mut all = variables.iter();
        let found = all.find(|(variable, _)| *variable == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let now = 1_790_000_000;
    let request = Request {
        now,
        ..Request::default()
    };
    aws_profile::resolve(&request, &variable, &files).unwrap_err()
}

#[test]
fn settings_that_lead_to_no_identity() {
    const KEYS: [(&str, &str); 2] = [
        ("AWS_ACCESS_KEY_ID", "AKID"),
        ("AWS_SECRET_ACCESS_KEY", "s"),
    ];
    const ROLE: &str = "[default]\nrole_arn = arn:aws:iam::111122223333:role/app\n";
    let one = target("bastion='i-1'");
    let expires = |at| [KEYS[0], KEYS[1], ("AWS_CREDENTIAL_EXPIRATION", at)];
    let with = |more: &str| format!("{ROLE}{more}\n");
    let cases = [
        (
            "a fault in the profile",
            unresolved("[default]\nregion\n", &[]),
        ),
        (
            "a value on another line",
            unresolved("[default]\nregion =\n  a=b\n", &[]),
        ),
        ("half of the keys", unresolved("", &KEYS[..1])),
        (
            "an end that has passed",
            unresolved("", &expires("2020-01-01T00:00:00Z")),
        ),
        ("an end that is none", unresolved("", &expires("soon"))),
        (
            "half of the keys of a profile",
            unresolved("[default]\naws_access_key_id = AKID\n", &[]),
        ),
        ("a role without a source", unresolved(ROLE, &[])),
        (
            "a role whose source is missing",
            unresolved(&with("source_profile = gone"), &[]),
        ),
        (
            "a role from an empty environment",
            unresolved(&with("credential_source = Environment"), &[]),
        ),
        (
            "a token without a role",
            unresolved("", &[("AWS_WEB_IDENTITY_TOKEN_FILE", "/t")]),
        ),
        (
            "an SSO role without its session",
            unresolved(
                "[default]\nsso_session = corp\nsso_account_id = 1\nsso_role_name = r\n",
                &[],
            ),
        ),
        (
            "a program that is none",
            unresolved("[default]\ncredential_process =\n", &[]),
        ),
        (
            "settings without credentials",
            unresolved("[default]\nsso_session = corp\n", &[]),
        ),
        (
            "a file of boto",
            unresolved("", &[("AWS_CREDENTIAL_FILE", "/b")]),
        ),
    ];
    let texts = cases.map(|(title, error)| {
        let error = CredentialsError::Unresolved(Arc::new(error));
        let error = ConnectionError::Credentials(error);
        printed(title, &before_login(&error, Some(&context(&one))))
    });
    snapshot("identity", &texts);
}

#[test]
fn what_hardly_ever_happens() {
    use ConnectionError as E;
    let one = target("bastion='i-1'");
    let session = |error: E| error;
    let tunnel = E::Tunnel;
    let cases = [
        (
            "a broken password message",
            session(PasswordError::UnexpectedType { tag: b'Q' }.into()),
        ),
        ("no random numbers", E::LocalPassword(ScramError::Random)),
        (
            "DSQL: no SNI",
            from_server("08006", "unable to accept connection, sni was not received"),
        ),
        (
            "RDS Proxy: no user",
            from_server(
                "28000",
                "A user name is missing from the connection startup packet. Provide a user name for this connection.",
            ),
        ),
        (
            "RDS Proxy: a password",
            from_server(
                "28P01",
                "The password that was provided for the role app is wrong.",
            ),
        ),
        (
            "RDS Proxy: the protocol",
            from_server(
                "0A000",
                "Feature not supported: RDS Proxy supports only version 3.0 of the PostgreSQL messaging protocol.",
            ),
        ),
        (
            "RDS Proxy: replication",
            from_server(
                "0A000",
                "Feature not supported: RDS Proxy currently doesn't support streaming replication mode.",
            ),
        ),
        (
            "no end of questions",
            session(pg_handshake::UpstreamError::TooManyAuthRequests.into()),
        ),
        (
            "an SSH server",
            session(
                pg_handshake::UpstreamError::NotPostgres(pg_handshake::OtherProtocol::Ssh).into(),
            ),
        ),
        (
            "half an answer",
            tunnel(TunnelError::IncompleteAnswer("StreamUrl")),
        ),
        (
            "a broken channel",
            tunnel(TunnelError::Protocol {
                reason: "a frame of 5 bytes".into(),
            }),
        ),
        (
            "a startup that does not fit",
            E::Route(RouteError::Startup(StartupError::TooLarge {
                length: 10_005,
            })),
        ),
        (
            "no TLS to speak of",
            E::UpstreamTls(UpstreamTlsError::Handshake(
                "received corrupt message".into(),
            )),
        ),
        (
            "nothing to sign for",
            E::Token(TokenError::BadRequest {
                what: "host",
                value: "a b".to_owned(),
            }),
        ),
        ("no signature", E::Token(TokenError::Internal(cause()))),
        ("a client that does not read", tunnel(TunnelError::Overrun)),
        (
            "a session whose start panics",
            tunnel(TunnelError::Internal(TaskStopped)),
        ),
        ("a lookup that panics", E::Internal(TaskStopped)),
    ];
    let texts = cases.map(|(title, error)| {
        let report = before_login(&error, Some(&context(&one)));
        assert!(report.reply.is_some(), "{title}");
        printed(title, &report)
    });
    snapshot("rare", &texts);
}

#[test]
fn roots_are_of_the_partition() {
    let unknown = ConnectionError::UpstreamTls(UpstreamTlsError::UnknownIssuer {
        subject: "CN=orders".into(),
        issuer: "CN=Some CA".into(),
    });
    let texts = [
        "eu-central-1",
        "us-gov-west-1",
        "cn-north-1",
        "us-iso-east-1",
    ]
    .map(|region| {
        let of_region = ResolvedTarget {
            region: Some(region.to_owned().into()),
            ..target("bastion='i-1'")
        };
        printed(region, &before_login(&unknown, Some(&context(&of_region))))
    });
    snapshot("roots", &texts);
}

/// The text of every cause is in a snapshot that reviewers see when it changes.
#[test]
fn every_identifier_has_its_snapshot() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = String::new();
    for folder in ["src/report/snapshots", "protocol-tests/e2e/snapshots"] {
        for file in std::fs::read_dir(root.join(folder)).unwrap() {
            all += &std::fs::read_to_string(file.unwrap().path()).unwrap();
        }
    }
    let is_end = |c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '.';
    let words: std::collections::BTreeSet<&str> = all.split(is_end).collect();
    for id in IDS.iter().filter(|id| !SILENT.contains(id)) {
        assert!(words.contains(id), "{id} is in no snapshot");
    }
}
