//! Reports about the client and its request, before any other component is involved.

use super::message::{
    CONFIGURATION, INTERNAL, LogLevel, Message, NO_SUCH_DATABASE, NOT_AUTHORIZED, NOT_NOW,
    NOT_SUPPORTED, PROTOCOL_VIOLATION, Report, WRONG_PASSWORD,
};
use super::phrases::{SLOW_CREDENTIALS, sentence, waited_for};

use std::io;
use std::path::Path;
use std::time::Duration;

use pg_handshake::{ClientError, StartupError};
use rustls::AlertDescription;

use crate::aws::calls::CREDENTIALS_STEP;
use crate::config::ResolvedTarget;
use crate::failure::connection::SessionError;
use crate::failure::route::RouteError;
use crate::tunnel::Readiness;
use pg_handshake::scram::ScramError;

pub(super) fn client(error: &ClientError) -> Message {
    let message = match error {
        ClientError::Startup(StartupError::UnsupportedProtocol(_)) => {
            return Message::new("client.protocol", NOT_SUPPORTED, error.to_string())
                .hint("Update the client: drivers have spoken version 3 since 2003.");
        }
        // These messages name the packet themselves.
        ClientError::Startup(error) => error.to_string(),
        other => format!("invalid startup: {other}"),
    };
    Message::new("client.startup", PROTOCOL_VIOLATION, message)
        .hint("This port speaks the PostgreSQL protocol, version 3.")
}

/// Reports a local TLS handshake that failed on the client's side. The client learns of it only
/// from its own TLS library.
pub(super) fn local_tls(
    error: &SessionError,
    failed: &io::Error,
    certificate: Option<&Path>,
) -> Report {
    let report = Report::silent("client.tls", error);
    let tls = failed.get_ref().and_then(|inner| inner.downcast_ref());
    let (message, causes) = match tls {
        Some(rustls::Error::AlertReceived(alert)) if refuses_certificate(*alert) => (
            format!("the client does not trust pgiam's own TLS certificate (TLS alert {alert:?})"),
            TRUST_CAUSES,
        ),
        None if failed.kind() == io::ErrorKind::UnexpectedEof => (
            "the client closed the connection during the TLS handshake".to_owned(),
            TRUST_CAUSES,
        ),
        _ => return report,
    };
    Report {
        message,
        detail: Some(causes.to_owned()),
        hint: Some(trust(certificate)),
        ..report
    }
}

/// Reports a client that closed right after the handshake. Node.js does so when it does not trust
/// the certificate.
pub(super) fn gone_after_tls(error: &SessionError, certificate: Option<&Path>) -> Report {
    Report {
        detail: Some(TRUST_CAUSES.to_owned()),
        hint: Some(trust(certificate)),
        ..Report::silent("client.gone", error)
    }
}

/// Reports a client that left before the end of its login. After a long wait it most likely has a
/// shorter timeout than pgiam, which expires before the reason is known.
pub(super) fn left(
    error: &SessionError,
    (after, waiting): (Duration, Option<&'static str>),
    target: Option<&ResolvedTarget>,
) -> Report {
    let report = Report::silent("client.gone", error);
    if after < IMPATIENT {
        return report;
    }
    let hint = match waiting {
        Some(CREDENTIALS_STEP) => SLOW_CREDENTIALS.to_owned(),
        _ => {
            let name = target.map_or("TARGET", |target| &target.name);
            format!("Try each step by itself: pgiam check {name}")
        }
    };
    Report {
        detail: Some(OWN_TIMEOUT.to_owned()),
        hint: Some(hint),
        level: LogLevel::Warn,
        ..report
    }
}

/// A client that leaves after at least this time suggests that something is slow.
const IMPATIENT: Duration = Duration::from_secs(1);

const OWN_TIMEOUT: &str = "Possible causes: a timeout of the client that is shorter than connect_timeout and login_timeout of the target, or its user has cancelled it.";

/// Accounts that are prepared for RDS have all of these settings.
const TRUST_CAUSES: &str = "Possible causes: the client verifies certificates (PGSSLMODE or sslmode is verify-ca or verify-full; ssl: true in Node.js), or it has roots that did not sign this one (~/.postgresql/root.crt, PGSSLROOTCERT, NODE_EXTRA_CA_CERTS).";

/// Returns how to make a client trust our certificate, or skip verification.
fn trust(certificate: Option<&Path>) -> String {
    const WITHOUT: &str = "On this machine connect with PGSSLMODE=disable or sslmode=disable: pgiam itself encrypts and verifies the connection to the database.";
    match certificate {
        Some(file) => format!(
            "{WITHOUT} Or verify pgiam: sslmode=verify-full sslrootcert={}",
            file.display()
        ),
        None => WITHOUT.to_owned(),
    }
}

/// Returns whether the alert refuses a certificate (RFC 8446, section 6.2).
fn refuses_certificate(alert: AlertDescription) -> bool {
    use AlertDescription as A;
    matches!(
        alert,
        A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateRevoked
            | A::CertificateExpired
            | A::CertificateUnknown
            | A::UnknownCA
    )
}

/// Reports unusable configuration that is detected when the target is set up.
pub(super) fn configured(error: &SessionError) -> Message {
    let text = error.to_string();
    let (message, hint) = text.split_once("\nhint: ").unwrap_or((&text, ""));
    // The report adds the target name itself.
    let message = match message.split_once("\": ") {
        Some((target, rest)) if target.starts_with("target \"") => rest,
        _ => message,
    };
    let said = Message::new("target.config", CONFIGURATION, message);
    match hint {
        "" => said.hint(
            "Mend the target in the configuration file; pgiam takes the change over by itself.",
        ),
        hint => said.hint(hint),
    }
}

/// Remedy for a client that is refused because of its owner.
const FOREIGN_HINT: &str = "Start one of your own, on another port. Where user ids differ although the user is the same, as in containers that share a network, its owner can set peer_check = false.";

/// Reports a client of another user.
pub(super) fn foreign(peer: u32, own: u32) -> Message {
    Message::new(
        "peer.foreign",
        NOT_AUTHORIZED,
        "this pgiam belongs to another user",
    )
    .detail(format!("The client runs with user id {peer}, pgiam with {own}; whoever it lets in is its owner to the database."))
    .hint(FOREIGN_HINT)
}

/// Reports a client of unknown owner: the system did not return a user id.
pub(super) fn unknown(error: &io::Error) -> Message {
    Message::new(
        "peer.foreign",
        NOT_AUTHORIZED,
        "this pgiam serves its own user only, and the system did not say whose this client is",
    )
    .detail(sentence(&format!(
        "cannot tell whose the client is: {error}"
    )))
    .hint(FOREIGN_HINT)
}

/// Reports a client that failed the check of the local password.
pub(super) fn local_password(error: &ScramError) -> Message {
    let violation = |id| Message::new(id, PROTOCOL_VIOLATION, error.to_string());
    match error {
        ScramError::WrongPassword => Message::new(
            "password.wrong",
            WRONG_PASSWORD,
            "password authentication failed for pgiam",
        )
        .hint("This pgiam asks for a password of its own, the one in its password_file; it is not that of the database role."),
        ScramError::Downgrade | ScramError::Binding => {
            Message::new("password.binding", NOT_AUTHORIZED, error.to_string())
                .hint("Connect without anything in between, or with channel_binding=disable.")
        }
        ScramError::Unsupported(_) => {
            Message::new("password.unsupported", NOT_SUPPORTED, error.to_string())
                .hint("pgiam asks for SCRAM-SHA-256 as RFC 5802 has it, without extensions and for no other identity. Configure the client so, or use pgiam's Unix socket.")
        }
        ScramError::Random => Message::new("password.internal", INTERNAL, error.to_string())
            .hint("The operating system gave no random numbers. Connect again."),
        ScramError::Malformed(_)
        | ScramError::Mechanism
        | ScramError::BindingMismatch
        | ScramError::BindingType
        | ScramError::Nonce
        | ScramError::OutOfOrder => violation("password.protocol")
            .hint("The client's SCRAM messages do not follow RFC 5802: update it, or use pgiam's Unix socket."),
    }
}

pub(super) fn two_passwords() -> Message {
    Message::new(
        "password.passthrough",
        NOT_SUPPORTED,
        "a target with auth = \"passthrough\" cannot be used behind a local password",
    )
    .detail("A client gives one password, and pgiam has asked for it as its own; the database needs another.")
    .hint("Connect through pgiam's Unix socket, where it asks for no password, or run a second pgiam without password_file for this target.")
}

pub(super) fn channel_binding() -> Message {
    Message::new(
        "client.channel-binding",
        NOT_SUPPORTED,
        "a SCRAM login that is bound to TLS cannot pass through pgiam",
    )
    .detail("The client binds its login to pgiam's TLS, the database to its own, which it would take for an attack.")
    .hint("Connect with channel_binding=disable, or with sslmode=disable: the way to the database is encrypted and verified all the same.")
}

/// Answers a readiness probe: the tunnel is not open.
pub(super) fn not_yet(readiness: Readiness) -> Message {
    match readiness {
        Readiness::Interrupted => Message::new(
            "tunnel.interrupted",
            NOT_NOW,
            "the tunnel was lost and is being tried again",
        ),
        Readiness::Up | Readiness::Idle | Readiness::Starting => Message::new(
            "tunnel.starting",
            NOT_NOW,
            "the connection is not ready yet",
        ),
    }
    .hint("Try again in a moment.")
}

/// Answers a readiness probe with the result of an earlier connection.
pub(super) fn failed_before(id: &'static str) -> Message {
    Message::new(
        id,
        NOT_NOW,
        "the last connection to the database could not be made",
    )
    .hint("Connect to see the reason, or look into pgiam's log.")
}

/// Reports that tunnel and token were not ready in time.
pub(super) fn timed_out(
    after: Duration,
    readiness: Readiness,
    waiting: Option<&'static str>,
) -> Message {
    let after = after.as_secs();
    match readiness {
        Readiness::Interrupted => Message::new(
            "tunnel.interrupted",
            NOT_NOW,
            "the tunnel was lost and is being tried again",
        )
        .detail(format!("This connection has waited for it for {after} s."))
        .hint("Check this machine's network. pgiam goes on trying; connect again when it is back."),
        Readiness::Up | Readiness::Idle | Readiness::Starting => {
            let text = format!("tunnel and token were not ready within {after} s");
            waited_for(Message::new("tunnel.timeout", NOT_NOW, text), waiting)
        }
    }
}

pub(super) fn route(error: &RouteError) -> Message {
    match error {
        RouteError::UnknownTarget { asked, known } => {
            let targets = known.iter();
            let targets: Vec<String> = targets
                .map(|target| format!("{} ({})", target.name, target.endpoint))
                .collect();
            let message = if asked.is_empty() {
                "several targets share this port, and the database name picks none".to_owned()
            } else {
                format!("there is no target \"{asked}\" on this port")
            };
            Message::new("target.unknown", NO_SUCH_DATABASE, message).hint(format!(
                "Give the target's name, or TARGET/DATABASE, as database name. Targets here: {}.",
                targets.join(", ")
            ))
        }
        RouteError::NoUser { target } => Message::new(
            "target.no-user",
            NOT_AUTHORIZED,
            format!("target \"{target}\": no user name"),
        )
        .hint(format!(
            "Give one (psql -U ROLE), or set user = \"ROLE\" under [targets.{target}]."
        )),
        RouteError::Replication { target } => Message::new(
            "target.replication",
            NOT_SUPPORTED,
            format!("target \"{target}\": {error}"),
        )
        .detail("Amazon RDS does not support IAM authentication for replication.")
        .hint(format!(
            "Set auth = \"passthrough\" for a target of its own ([targets.{target}-replication]) and give the role's password."
        )),
        RouteError::UserNotUtf8 => {
            Message::new("target.user-encoding", NOT_AUTHORIZED, error.to_string())
                .hint("IAM tokens are signed for user names in UTF-8.")
        }
        RouteError::Startup(_) => Message::new("target.startup", CONFIGURATION, error.to_string())
            .hint("A startup packet takes 10,000 bytes, and no zero byte within a value: shorten what the client sends, or the target's user and database."),
    }
}
