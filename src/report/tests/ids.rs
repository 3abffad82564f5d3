//! Tests of the causes that no other test covers, and of the completeness of the list.

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
