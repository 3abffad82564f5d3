//! Tests of all tunnel failures as the reader gets them. The snapshots hold the text; the
//! assertions hold the rules that every text must meet.

mod answers;
mod discovery;
mod errors;
mod ids;
mod relay;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::message::*;
use super::phrases::*;
use super::*;
use crate::admission::Refusal;
use crate::aws::CredentialsError;
use crate::aws::api_error::ApiAnswer;
use crate::aws::token::TokenRequest;
use crate::aws::{ClockOffset, Identity};
use crate::config::{ConfigFile, TargetLayer};
use crate::config::{Endpoint, ResolvedTarget, Via};
use crate::failure::connection::ConnectionError;
use crate::failure::connection_end::{ConnectionEnd, EndedBy};
use crate::failure::forward::ForwardError;
use crate::tls::upstream::UpstreamTlsError;
use crate::tunnel::TunnelError;
use crate::tunnel::{ApiRefusal, DirectFailure, EndCause};
use after_login::forward;

const HOST: &str = "orders.cluster-abc.eu-central-1.rds.amazonaws.com";
const TASK: &str =
    "ecs:my_apps_0123456789abcdef0123456789abcdef_0123456789abcdef0123456789abcdef-0527074092";

fn target(lines: &str) -> ResolvedTarget {
    let text = format!("[targets.orders]\nhost='{HOST}'\n{lines}\n");
    let file: ConfigFile = toml::from_str(&text).unwrap();
    let mut targets = file.resolved_targets(&[], &TargetLayer::default()).unwrap();
    targets.remove(0)
}

fn context(target: &ResolvedTarget) -> ErrorContext<'_> {
    ErrorContext {
        user: "db_user",
        ..ErrorContext::target(target)
    }
}

fn message(error: &TunnelError, target: &ResolvedTarget) -> Message {
    tunnel::tunnel(error, Some(&context(target)))
}

/// Formats it as psql and the log show it.
fn shown(title: &str, message: &Message) -> String {
    let mut text = format!(
        "# {title}\n{} {}: {}\n",
        message.id,
        message.sqlstate.as_str(),
        message.message
    );
    let hint = message.hint.clone().map(String::from);
    for (name, words) in [("DETAIL", &message.detail), ("HINT", &hint)] {
        if let Some(words) = words {
            writeln!(text, "{name}:  {words}").unwrap();
        }
    }
    text
}

fn endpoint() -> Endpoint {
    format!("{HOST}:5432").parse().unwrap()
}

fn api(
    operation: &'static str,
    kind: ApiRefusal,
    bastion: &str,
    answer: (&str, &str),
) -> TunnelError {
    let (code, message) = answer;
    TunnelError::Api {
        operation,
        kind,
        answer: ApiAnswer {
            code: code.into(),
            message: message.into(),
            request_id: Some("11111111-2222".into()),
            clock: None,
        },
        bastion: bastion.to_owned(),
        region: "eu-central-1".into(),
    }
}

fn offline(bastion: &str) -> TunnelError {
    let message = format!("{bastion} is not connected.");
    api(
        "StartSession",
        ApiRefusal::TargetNotConnected,
        bastion,
        ("TargetNotConnected", &message),
    )
}

fn denied(operation: &'static str, bastion: &str) -> TunnelError {
    let message = format!(
        "User: arn:aws:iam::123456789012:user/dev is not authorized to perform: ssm:{operation}"
    );
    api(
        operation,
        ApiRefusal::AccessDenied,
        bastion,
        ("AccessDeniedException", &message),
    )
}

fn ended(cause: EndCause, reason: &str) -> TunnelError {
    TunnelError::SessionEnded {
        cause,
        // As the driver derives it from the agent's text.
        reason: reason
            .trim_start_matches("\n----------ERROR-------\n")
            .into(),
    }
}

fn refused_dial(bastion: &str) -> TunnelError {
    TunnelError::DialRefused {
        bastion: bastion.to_owned(),
        endpoint: endpoint(),
    }
}

fn all_bastions(tried: Vec<(&str, TunnelError)>) -> TunnelError {
    let tried = tried.into_iter().map(|(id, error)| (id.into(), error));
    TunnelError::AllBastions(tried.collect(), 0)
}

fn snapshot(name: &str, texts: &[String]) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let own = format!("-HUP {}", std::process::id());
    let text = texts.join("\n").replace(&own, "-HUP PID");
    settings.bind(|| insta::assert_snapshot!(name, text.trim_end()));
}

#[test]
fn choosing_a_bastion() {
    let one = target("bastion='i-1'");
    let two = target("bastion=['i-1', 'i-2']");
    let tagged = target("bastion={ tag = 'Name=my bastion' }");
    let wanted = match &tagged.settings.via {
        Via::Ssm(settings) => settings.bastion.to_string(),
        Via::Direct => panic!("a tunnel"),
    };
    let nobody = TunnelError::NoBastion {
        wanted,
        region: "eu-central-1".into(),
    };
    let any = target("bastion='auto'");
    let nobody_at_all = TunnelError::NoBastion {
        wanted: "auto".to_owned(),
        region: "eu-central-1".into(),
    };
    let both_off = all_bastions(vec![("i-1", offline("i-1")), ("i-2", offline("i-2"))]);
    let off_and_denied = all_bastions(vec![
        ("i-1", offline("i-1")),
        ("i-2", denied("StartSession", "i-2")),
    ]);
    let too_many = TunnelError::AllBastions(
        [("i-1", offline("i-1")), ("i-2", offline("i-2"))]
            .map(|(id, error)| (id.into(), error))
            .into(),
        9_990,
    );
    let timed_out = TunnelError::HandshakeTimeout {
        bastion: "i-1".to_owned(),
        after: Duration::from_secs(15),
    };
    let dead_and_off = all_bastions(vec![("i-1", timed_out), ("i-2", offline("i-2"))]);
    snapshot(
        "bastions",
        &[
            shown("nobody has the tag", &message(&nobody, &tagged)),
            shown("there is nobody", &message(&nobody_at_all, &any)),
            shown("one is off", &message(&offline("i-1"), &one)),
            shown("a task is gone", &message(&offline(TASK), &one)),
            shown("both are off", &message(&both_off, &two)),
            shown("a tag that matches many", &message(&too_many, &tagged)),
            shown(
                "one is off, the other forbidden",
                &message(&off_and_denied, &two),
            ),
            shown(
                "one does not answer, the other is off",
                &message(&dead_and_off, &two),
            ),
        ],
    );
    assert_eq!(message(&both_off, &two).sqlstate, CANNOT_CONNECT);
    let telling = message(&off_and_denied, &two);
    assert_eq!(telling.sqlstate, REJECTED, "the one that is no accident");
    let hint = message(&denied("StartSession", "i-2"), &two).hint.unwrap();
    let hint = format!("For i-2: {}", hint.text());
    assert_eq!(telling.hint.unwrap().text(), hint);
}

#[test]
fn calls_that_aws_refuses() {
    let one = target("bastion='i-1'");
    let own = target("bastion='i-1'\ndocument='Our-Forward'");
    let shared = target(
        "bastion='i-1'\ndocument='arn:aws:ssm:eu-central-1:210987654321:document/Our-Forward'",
    );
    let unknown = api(
        "StartSession",
        ApiRefusal::InvalidDocument,
        "i-1",
        (
            "InvalidDocument",
            "Document with name Our-Forward does not exist.",
        ),
    );
    let scp = |operation| {
        let message =
            "User: dev is not authorized with an explicit deny in a service control policy";
        api(
            operation,
            ApiRefusal::DeniedByOrganisation,
            "i-1",
            ("AccessDeniedException", message),
        )
    };
    let throttled = api(
        "ResumeSession",
        ApiRefusal::Throttled,
        "i-1",
        ("ThrottlingException", "Rate exceeded"),
    );
    let other = api(
        "DescribeInstanceInformation",
        ApiRefusal::Other,
        "tag Name=x",
        ("InternalServerError", ""),
    );
    snapshot(
        "api",
        &[
            shown(
                "StartSession",
                &message(&denied("StartSession", "i-1"), &one),
            ),
            shown(
                "StartSession on another machine",
                &message(&denied("StartSession", "mi-1"), &one),
            ),
            shown(
                "StartSession on a task",
                &message(&denied("StartSession", TASK), &one),
            ),
            shown(
                "StartSession with a document of one's own",
                &message(&denied("StartSession", "i-1"), &own),
            ),
            shown(
                "StartSession with a shared document",
                &message(&denied("StartSession", "i-1"), &shared),
            ),
            shown(
                "ResumeSession",
                &message(&denied("ResumeSession", "i-1"), &one),
            ),
            shown(
                "DescribeInstanceInformation",
                &message(&denied("DescribeInstanceInformation", "tag Name=x"), &one),
            ),
            shown(
                "an organisation's policy",
                &message(&scp("ResumeSession"), &one),
            ),
            shown("too many calls", &message(&throttled, &one)),
            shown("AWS's own trouble", &message(&other, &one)),
            shown("no such document", &message(&unknown, &own)),
            shown("not even AWS's document", &message(&unknown, &one)),
        ],
    );
}

#[test]
fn signatures_that_aws_refuses() {
    let one = target("bastion='i-1'");
    let signature = |seconds| {
        let message = "Signature expired: 20260921T141320Z is now earlier than 20260921T142420Z";
        let mut error = api(
            "StartSession",
            ApiRefusal::CredentialsRejected,
            "i-1",
            ("InvalidSignatureException", message),
        );
        if let TunnelError::Api { answer, .. } = &mut error {
            answer.clock = Some(ClockOffset { seconds });
        }
        error
    };
    let channel = |skew| TunnelError::ChannelRefused {
        host: "ssmmessages.eu-central-1.amazonaws.com".to_owned(),
        region: "eu-central-1".into(),
        status: 403,
        skew,
    };
    for error in [signature(960), channel(Some(-960))] {
        let message = message(&error, &one);
        assert_eq!(
            (message.id, message.sqlstate),
            ("aws.clock", NOT_AUTHORIZED)
        );
    }
    snapshot(
        "signatures",
        &[
            shown("a clock that is wrong", &message(&signature(960), &one)),
            shown("a clock that is right", &message(&signature(2), &one)),
            shown(
                "a wrong clock at the channel",
                &message(&channel(Some(-960)), &one),
            ),
            shown("the channel is forbidden", &message(&channel(None), &one)),
        ],
    );
}

#[test]
fn joining_a_session() {
    let one = target("bastion='i-1'");
    let key = "arn:aws:kms:eu-central-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    let data_key = |denied, reason: &str| TunnelError::DataKey {
        key: key.into(),
        denied,
        reason: reason.into(),
    };
    let old = |bastion: &str| TunnelError::NoMultiplexing {
        bastion: bastion.to_owned(),
        version: "2.3.50.0".to_owned(),
    };
    let lost = TunnelError::ChannelConnect {
        host: "ssmmessages.eu-central-1.amazonaws.com".to_owned(),
        port: 8443,
        reason: "no answer within 10 s".into(),
    };
    let unreachable = TunnelError::ApiUnreachable {
        region: "cn-north-1".into(),
        host: None,
        reason: "dispatch failure".into(),
    };
    let proxy = TunnelError::Proxy {
        proxy: "proxy.corp:3128".to_owned(),
        host: "ssmmessages.eu-central-1.amazonaws.com:443".to_owned(),
        reason: "it answered 403 Forbidden".into(),
    };
    let foreign = TunnelError::ForeignStreamUrl {
        host: "example.org".to_owned(),
    };
    let unknown = TunnelError::UnsupportedAction {
        action: "Dance".into(),
    };
    let errors = [
        (
            "the policy of the key",
            data_key(
                true,
                "AccessDeniedException: not authorized to perform: kms:GenerateDataKey",
            ),
        ),
        (
            "the key is disabled",
            data_key(false, "DisabledException: the key is disabled"),
        ),
        ("an agent that cannot multiplex", old("i-1")),
        ("the same in a container", old(TASK)),
        ("an HTTP proxy", proxy),
        ("the API is out of reach", unreachable),
        ("the data channel is out of reach", lost),
        ("a stream URL that is not AWS's", foreign),
        ("an action from the future", unknown),
    ];
    let texts = errors.map(|(title, error)| shown(title, &message(&error, &one)));
    snapshot("joining", &texts);
}

#[test]
fn dials() {
    let one = target("bastion='i-1'");
    let slow = TunnelError::DialTimeout {
        bastion: "i-1".to_owned(),
        endpoint: endpoint(),
        after: Duration::from_secs(10),
    };
    let unknown = TunnelError::NameNotResolved {
        bastion: "i-1".to_owned(),
        endpoint: endpoint(),
        reason: "lookup orders.example on 10.0.0.2:53: no such host".into(),
    };
    let silent = |bastion: &str| TunnelError::AgentSilent {
        bastion: bastion.to_owned(),
        after: Duration::from_secs(5),
    };
    let delayed = TunnelError::Delayed {
        bastion: "i-1".to_owned(),
        after: Duration::from_secs(12),
    };
    let here = target("via='direct'");
    let direct = |failure, words: &str| TunnelError::Direct {
        endpoint: endpoint(),
        failure,
        source: Arc::new(io::Error::other(words.to_owned())),
    };
    use DirectFailure as D;
    let directly = [
        (
            "directly: no answer",
            direct(D::Timeout, "no answer within 10 s"),
        ),
        (
            "directly: refused",
            direct(D::Refused, "Connection refused (os error 111)"),
        ),
        (
            "directly: an unknown name",
            direct(
                D::UnknownName,
                "failed to lookup address information: Name or service not known",
            ),
        ),
        (
            "directly: no route",
            direct(D::Other, "Network is unreachable (os error 101)"),
        ),
    ];
    let mut texts = vec![
        shown("refused", &message(&refused_dial("i-1"), &one)),
        shown("no answer", &message(&slow, &one)),
        shown("an unknown name", &message(&unknown, &one)),
        shown("a silent agent", &message(&silent("i-1"), &one)),
        shown("a silent container", &message(&silent("ecs:a_b_c"), &one)),
        shown("missing messages", &message(&delayed, &one)),
    ];
    texts.extend(directly.map(|(title, error)| shown(title, &message(&error, &here))));
    snapshot("dials", &texts);
}

/// Returns all causes of endings, with the service's own text.
fn endings() -> [(EndCause, &'static str); 6] {
    [
        (
            EndCause::IdleTimeout,
            "Session: dev-0123456789abcdef0 timed out due to inactivity.",
        ),
        (
            EndCause::MaximumDuration,
            "Session: dev-0123456789abcdef0 has reached its maximum duration.",
        ),
        (EndCause::Terminated, "Session terminated."),
        (EndCause::Gone, ""),
        (
            EndCause::Agent,
            "\n----------ERROR-------\nAgent is shutting down.",
        ),
        (EndCause::Other, "Something else."),
    ]
}

#[test]
fn endings_are_told_apart() {
    let two = target("bastion=['i-1', 'i-2']");
    let awake = target("bastion='i-1'\nkeep_alive=true");
    let idle = message(&ended(EndCause::IdleTimeout, ""), &awake);
    assert!(
        !idle.hint.unwrap().text().contains("keep_alive"),
        "it is set"
    );
    let mut ids = BTreeMap::new();
    let mut texts = Vec::new();
    for (cause, words) in endings() {
        let message = message(&ended(cause, words), &two);
        assert_eq!(message.sqlstate, BROKEN);
        let detail = message.detail.clone().unwrap_or_default();
        assert_eq!(
            detail.is_empty(),
            words.is_empty(),
            "{cause:?}: the service's own words, if it has any"
        );
        let shown_words = crate::base::foreign_text::visible(words);
        assert!(shown_words.ends_with(&detail), "{cause:?}: {detail}");
        texts.push(shown(&format!("{cause:?}"), &message));
        assert_eq!(
            ids.insert(message.id, cause),
            None,
            "{cause:?}: an id of its own"
        );
    }
    let at_start = message(&ended(EndCause::AtStart, "Something else."), &two);
    assert!(
        !at_start
            .hint
            .clone()
            .unwrap()
            .text()
            .contains("dle timeout")
    );
    texts.push(shown("AtStart", &at_start));
    for words in [
        "----------ERROR-------\nEncountered error while initiating handshake. Handshake timed out. Please ensure that you have the latest version of the session manager plugin.",
        "----------ERROR-------\nEncountered error while initiating handshake. KMSEncryption failed on agent with status 2 error: AccessDeniedException",
        "Forwarding to IP address 169.254.169.254 is forbidden.",
    ] {
        texts.push(shown(
            "Other, in known words",
            &message(&ended(EndCause::Other, words), &two),
        ));
    }
    snapshot("endings", &texts);
}

#[test]
fn a_client_that_was_logged_in_gets_the_reason_and_the_remedy() {
    let one = target("bastion='i-1'");
    for (cause, words) in endings() {
        let error = ended(cause, words);
        let expected = message(&error, &one);
        let end = ConnectionEnd {
            by: EndedBy::Server,
            error: Some(error.into_io()),
            sent: 0,
            received: 0,
            at_boundary: true,
        };
        let ending = after_login(&end, &one).unwrap();
        assert_eq!(ending.id, "session.lost");
        let reply = String::from_utf8_lossy(&ending.reply.unwrap()).into_owned();
        assert!(reply.contains("C08006\0"), "{reply}");
        assert!(
            reply.contains("Mtarget \"orders\": the connection to the database was lost\0"),
            "{reply}"
        );
        let message = &expected.message[1..]; // A Detail begins with a capital letter.
        assert!(reply.contains(message), "{cause:?}: {reply}");
        let detail = expected.detail.unwrap_or_default();
        assert!(reply.contains(&detail), "{cause:?}: {reply}");
        assert!(
            reply.contains(&format!(
                "H{} [session.lost]\0",
                expected.hint.unwrap().text()
            )),
            "{cause:?}: {reply}"
        );
    }
    let end = ConnectionEnd {
        by: EndedBy::Server,
        error: Some(io::ErrorKind::ConnectionReset.into()),
        sent: 0,
        received: 0,
        at_boundary: true,
    };
    let ending = after_login(&end, &one).unwrap();
    let reply = String::from_utf8_lossy(&ending.reply.unwrap()).into_owned();
    let hint = format!("H{RECONNECT} [session.lost]\0");
    assert!(reply.contains(&hint), "{reply}");
    // In the middle of a message the client gets no error, and the log still has it.
    let end = ConnectionEnd {
        at_boundary: false,
        ..end
    };
    let ending = after_login(&end, &one).unwrap();
    assert_eq!((ending.id, ending.reply), ("session.lost", None));
}

#[test]
fn states_are_what_pools_expect() {
    let one = target("bastion='i-1'");
    let no_credentials = TunnelError::Credentials(Arc::new(CredentialsError::Expired {
        at: None,
        profile: None,
    }));
    let kms = |denied| TunnelError::DataKey {
        key: "arn:aws:kms:eu-central-1:1:key/1".into(),
        denied,
        reason: "x".into(),
    };
    for (error, state) in [
        (no_credentials, NOT_AUTHORIZED),
        (TunnelError::NoRegion, CONFIGURATION),
        (offline("i-1"), CANNOT_CONNECT),
        (denied("StartSession", "i-1"), REJECTED),
        (kms(true), REJECTED),
        (kms(false), CANNOT_CONNECT),
        (refused_dial("i-1"), CANNOT_CONNECT),
        (TunnelError::ChannelLost { reason: "x".into() }, BROKEN),
        (TunnelError::Overrun, BROKEN),
        (TunnelError::ShuttingDown, SHUTDOWN),
    ] {
        let Message { id, sqlstate, .. } = message(&error, &one);
        assert_eq!(sqlstate.as_str(), state.as_str(), "{id}");
    }
}

#[test]
fn policies_are_of_the_partition() {
    let region = |region: &str| {
        let TunnelError::Api {
            operation,
            kind,
            answer,
            bastion,
            ..
        } = denied("StartSession", "i-1")
        else {
            unreachable!()
        };
        let region = region.to_owned();
        let error = TunnelError::Api {
            operation,
            kind,
            answer,
            bastion,
            region: region.into(),
        };
        tunnel::tunnel(&error, None).hint.unwrap().text()
    };
    for (name, partition) in [
        ("eu-central-1", "aws"),
        ("cn-north-1", "aws-cn"),
        ("us-gov-west-1", "aws-us-gov"),
        ("us-iso-east-1", "aws-iso"),
        ("us-isob-east-1", "aws-iso-b"),
        ("eu-isoe-west-1", "aws-iso-e"),
        ("us-isof-south-1", "aws-iso-f"),
        ("eusc-de-east-1", "aws-eusc"),
    ] {
        let hint = region(name);
        let node = format!("\"arn:{partition}:ec2:{name}:*:instance/i-1\"");
        assert!(hint.contains(&node), "{name}: {hint}");
        // The part to paste is JSON.
        let statement = hint
            .strip_prefix("Add this statement to your IAM policy:\n  ")
            .unwrap();
        let statement: serde_json::Value = serde_json::from_str(statement).unwrap();
        assert_eq!(statement["Action"], "ssm:StartSession", "{name}");
    }
}

#[test]
fn a_refused_channel_is_of_the_partition_that_was_used() {
    // An alias contains no region, and neither does the target.
    let alias = ResolvedTarget {
        endpoint: "orders.db.example.com:5432".parse().unwrap(),
        region: None,
        ..target("bastion='i-1'")
    };
    for (region, partition) in [("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")] {
        let refused = TunnelError::ChannelRefused {
            host: format!("ssmmessages.{region}.amazonaws.com"),
            region: region.into(),
            status: 403,
            skew: None,
        };
        let hint = message(&refused, &alias).hint.unwrap().text();
        assert!(hint.contains(&format!("arn:{partition}:ssm:")), "{hint}");
    }
}

#[test]
fn raw_tunnels_say_the_same_without_a_database_client() {
    let one = target("bastion='i-1'");
    let of = |error: ForwardError| forward(&error, &one);
    let dial = of(ForwardError::Tunnel(refused_dial("i-1")));
    assert_eq!(
        shown("", &dial),
        shown("", &message(&refused_dial("i-1"), &one))
    );
    let texts = [
        shown(
            "too late",
            &of(ForwardError::Timeout {
                after: Duration::from_secs(30),
                waiting: Some("AWS credentials"),
            }),
        ),
        shown(
            "too many",
            &of(ForwardError::TooManyConnections { limit: 400 }),
        ),
        shown(
            "broken",
            &of(ForwardError::Lost(io::Error::other(
                "connection reset by peer",
            ))),
        ),
        shown("stopping", &of(ForwardError::ShuttingDown)),
        shown(
            "another user's",
            &of(ForwardError::Refused(Refusal::Foreign {
                peer: 1001.into(),
                own: 1000.into(),
            })),
        ),
        shown(
            "nobody knows whose",
            &of(ForwardError::Refused(Refusal::Unknown(io::Error::other(
                "the kernel lists no such socket",
            )))),
        ),
        shown("gone", &of(ForwardError::Refused(Refusal::Gone))),
    ];
    snapshot("forward", &texts);
}

#[test]
fn a_client_that_names_another_role_than_the_target_is_told_so_first() {
    let one = target("bastion='i-1'\nuser='db_user'");
    let context = |user, sent| ErrorContext {
        user,
        token_sent: sent,
        ..ErrorContext::target(&one)
    };
    let wants_scram = ConnectionError::Upstream(pg_handshake::UpstreamError::UnexpectedAuth(
        pg_handshake::AuthMethod::Md5,
    ));
    let report = before_login(&wants_scram, Some(&context("postgres", false)));
    assert!(
        report
            .message
            .ends_with("this target logs in as \"db_user\""),
        "{}",
        report.message
    );
    let hint = report.hint.unwrap();
    assert!(
        hint.starts_with(
            "Leave the user empty in the client, or use \"db_user\", the role of this target"
        ),
        "{hint}"
    );
    // The statement always comes with its side effect.
    let (before, after) = hint.split_once("GRANT rds_iam TO \"postgres\";").unwrap();
    assert!(before.contains("To let \"postgres\" log in"), "{hint}");
    assert!(
        before.contains("\n  CREATE ROLE \"postgres\" LOGIN;\n"),
        "{hint}"
    );
    assert!(after.contains("log in only with tokens"), "{hint}");
    assert!(
        after.contains("Do not run it for the master user"),
        "{hint}"
    );
    assert!(
        after.contains("modify-db-cluster --db-cluster-identifier orders"),
        "{hint}"
    );
    // RDS has reported that it is on.
    let known = ErrorContext {
        iam_login: Some(true),
        ..context("postgres", false)
    };
    let hint = before_login(&wants_scram, Some(&known)).hint.unwrap();
    assert!(!hint.contains("aws rds"), "{hint}");
    let own = before_login(&wants_scram, Some(&context("db_user", false)));
    assert!(!own.message.contains("logs in as"), "{}", own.message);
    assert!(!own.hint.unwrap().contains("Leave the user empty"));
}

#[test]
fn no_token_was_sent_only_where_none_was() {
    let one = target("bastion='i-1'");
    let passthrough = target("bastion='i-1'\nauth='passthrough'");
    let refused = ConnectionError::Upstream(pg_handshake::UpstreamError::TlsRefused);
    for (target, token_sent, words) in [
        (&one, false, "No token was sent."),
        (&one, true, "pgiam sent a token in an earlier attempt"),
        (&passthrough, false, "No password was sent."),
    ] {
        let context = ErrorContext {
            token_sent,
            ..ErrorContext::target(target)
        };
        let detail = before_login(&refused, Some(&context)).detail.unwrap();
        assert!(detail.contains(words), "{detail}");
    }
}

#[test]
fn a_way_that_clients_find_by_themselves_is_no_failure() {
    let one = target("bastion='i-1'\nauth='passthrough'");
    let report = before_login(
        &ConnectionError::ChannelBinding,
        Some(&ErrorContext::target(&one)),
    );
    let failure = report.failure();
    assert!(!failure.notable && failure.expected, "{failure:?}");
    assert!(
        report.reply.is_some(),
        "who insists on TLS is told what to do"
    );
}

#[test]
fn what_others_say_is_safe_in_every_field() {
    const HOSTILE: &str =
        "\u{1b}]0;x\u{7}\r\nINFO forged\u{9b}\u{202e} X-Amz-Security-Token=S3CR3T";
    let mut one = target("bastion='i-1'");
    one.name = HOSTILE.into();
    one.settings.user = Some(HOSTILE.to_owned());
    let server = pg_handshake::ServerError::parse(Bytes::from_static(
        b"E\0\0\0\x33C28000\0Mno \x1b[2J\r\npassword=S3CR3T\0D\x1b]0;x\x07 more\0\0",
    ));
    let mut errors: Vec<ConnectionError> = vec![
        ConnectionError::UpstreamTls(UpstreamTlsError::UnknownIssuer {
            subject: HOSTILE.into(),
            issuer: HOSTILE.into(),
        }),
        ConnectionError::Tunnel(ended(EndCause::Agent, HOSTILE)),
        ConnectionError::Tunnel(TunnelError::ChannelLost {
            reason: HOSTILE.into(),
        }),
        ConnectionError::Tunnel(api(
            "StartSession",
            ApiRefusal::AccessDenied,
            "i-1",
            (HOSTILE, HOSTILE),
        )),
        ConnectionError::Tunnel(TunnelError::Proxy {
            proxy: HOSTILE.to_owned(),
            host: HOSTILE.to_owned(),
            reason: HOSTILE.into(),
        }),
    ];
    if let Ok(server) = server {
        errors.push(pg_handshake::UpstreamError::Server(server).into());
    }
    assert_eq!(errors.len(), 6, "the server's error is one");
    let context = ErrorContext {
        user: HOSTILE,
        ..ErrorContext::target(&one)
    };
    for error in &errors {
        let report = before_login(error, Some(&context));
        let failure = report.failure();
        for text in [Some(failure.message), failure.detail, failure.hint]
            .into_iter()
            .flatten()
        {
            // A remedy has lines of its own, which no name begins.
            let acts = |c: char| crate::base::foreign_text::is_invisible(c) && c != '\n';
            assert!(!text.contains(acts), "{text:?}");
            let forged = |line: &str| line.trim_start().starts_with("INFO forged");
            assert!(!text.lines().any(forged), "{text:?}");
        }
        let own = !matches!(error, ConnectionError::Upstream(_));
        let reply = String::from_utf8_lossy(report.reply.as_ref().unwrap()).into_owned();
        let acts =
            |c: char| crate::base::foreign_text::is_invisible(c) && !matches!(c, '\0' | '\n');
        // The length word of the frame is no text.
        assert!(!own || !reply[5..].contains(acts), "{reply:?}");
    }
}

/// On accept, on a dial, and in a library error that was kept as text.
#[test]
#[cfg(unix)]
fn running_out_of_descriptors_is_told_as_such() {
    use rustix::io::Errno;

    let limit = crate::platform::descriptors::limit().unwrap();
    let direct = |source: io::Error| TunnelError::Direct {
        endpoint: endpoint(),
        failure: DirectFailure::Other,
        source: Arc::new(source),
    };
    let one = target("bastion='i-1'");
    let wrapped = || io::Error::other("dispatch failure: Too many open files (os error 24)");
    for error in [
        ConnectionError::OutOfDescriptors(Some(limit)),
        ConnectionError::Tunnel(direct(Errno::MFILE.into())),
        ConnectionError::Tunnel(direct(wrapped())),
        ConnectionError::UpstreamLost(Errno::MFILE.into()),
    ] {
        let report = before_login(&error, Some(&ErrorContext::target(&one)));
        assert_eq!(
            (report.id, &*report.sqlstate),
            ("limit.descriptors", "53300"),
            "{error}"
        );
        let message = format!("has run out of file descriptors: its limit is {limit}");
        assert!(report.message.contains(&message), "{}", report.message);
    }
    let refused = Refusal::OutOfDescriptors { limit: Some(limit) };
    let raw = forward(&ForwardError::Refused(refused), &one);
    assert_eq!(raw.id, "limit.descriptors");
    let raw = forward(&ForwardError::Tunnel(direct(Errno::MFILE.into())), &one);
    assert_eq!(raw.id, "limit.descriptors");
    // A similar text is not recognised.
    let other = ConnectionError::Tunnel(direct(io::Error::other(
        "too many open files on the server",
    )));
    assert_ne!(before_login(&other, None).id, "limit.descriptors");
    let texts = [
        shown("this process", &descriptors::exhausted(Some(1024))),
        shown(
            "the system",
            &descriptors::find_exhaustion(&ConnectionError::Tunnel(direct(Errno::NFILE.into())))
                .unwrap(),
        ),
    ];
    snapshot("descriptors", &texts);
}
