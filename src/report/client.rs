//! Reports about the client and its request, before any other component is involved.

use super::hint::Hint;
use super::message::{
    CONFIGURATION, INTERNAL, LogLevel, Message, NO_SUCH_DATABASE, NOT_AUTHORIZED, NOT_NOW,
    NOT_SUPPORTED, PROTOCOL_VIOLATION, Report, WRONG_PASSWORD,
};
use super::phrases::{SLOW_CREDENTIALS, sentence, stopped, test_each_step, with_pending_step};

use std::io;
use std::path::Path;
use std::time::Duration;

use pg_handshake::{ClientError, StartupError};
use rustls::AlertDescription;

use crate::aws::calls::CREDENTIALS_STEP;
use crate::config::ResolvedTarget;
use crate::failure::connection::ConnectionError;
use crate::failure::route::RouteError;
use crate::platform::user::UserId;
use crate::tunnel::Readiness;
use pg_handshake::scram::ScramError;

pub(super) fn client(error: &ClientError) -> Message {
    let message = match error {
        ClientError::Startup(StartupError::UnsupportedProtocol(_)) => {
            return Message::new("client.protocol", NOT_SUPPORTED, error.to_string())
                .hint("Update the client: PostgreSQL 7.4 introduced protocol version 3 in 2003.");
        }
        // These messages name the packet themselves.
        ClientError::Startup(error) => error.to_string(),
        other => format!("invalid startup: {other}"),
    };
    Message::new("client.startup", PROTOCOL_VIOLATION, message)
        .hint("Connect with a PostgreSQL client: this port accepts only the PostgreSQL protocol, version 3.")
}

/// Reports a local TLS handshake that failed on the client's side. The client learns of it only
/// from its own TLS library.
pub(super) fn local_tls(
    error: &ConnectionError,
    failed: &io::Error,
    certificate: Option<&Path>,
) -> Report {
    let report = Report::log_only("client.tls", error);
    let tls = failed.get_ref().and_then(|inner| inner.downcast_ref());
    let (message, causes) = match tls {
        Some(rustls::Error::AlertReceived(alert)) if refuses_certificate(*alert) => (
            format!("the client does not trust pgiam's own TLS certificate (TLS alert {alert:?})"),
            UNTRUSTED_CERTIFICATE_CAUSES,
        ),
        None if failed.kind() == io::ErrorKind::UnexpectedEof => (
            "the client closed the connection during the TLS handshake".to_owned(),
            UNTRUSTED_CERTIFICATE_CAUSES,
        ),
        _ => return report,
    };
    Report {
        message,
        detail: Some(causes.to_owned()),
        hint: Some(trust_hint(certificate)),
        ..report
    }
}

/// Reports a client that closed right after the handshake. Node.js does so when it does not trust
/// the certificate.
pub(super) fn closed_after_tls(error: &ConnectionError, certificate: Option<&Path>) -> Report {
    Report {
        detail: Some(UNTRUSTED_CERTIFICATE_CAUSES.to_owned()),
        hint: Some(trust_hint(certificate)),
        ..Report::log_only("client.gone", error)
    }
}

/// Reports a client that left before the end of its login. After a long wait it most likely has a
/// shorter timeout than pgiam, which expires before the reason is known.
pub(super) fn left_while_waiting(
    error: &ConnectionError,
    (after, waiting): (Duration, Option<&'static str>),
    target: Option<&ResolvedTarget>,
) -> Report {
    let report = Report::log_only("client.gone", error);
    if after < LONG_WAIT {
        return report;
    }
    let hint = match waiting {
        Some(CREDENTIALS_STEP) => SLOW_CREDENTIALS.into(),
        _ => test_each_step(target),
    };
    Report {
        detail: Some(CLIENT_TIMEOUT_CAUSES.to_owned()),
        hint: Some(String::from(hint)),
        level: LogLevel::Warn,
        ..report
    }
}

/// A client that leaves after at least this time suggests that something is slow.
const LONG_WAIT: Duration = Duration::from_secs(1);

const CLIENT_TIMEOUT_CAUSES: &str = "Possible causes: the client's timeout is shorter than the target's connect_timeout and login_timeout; the user cancelled the connection.";

/// Accounts that are prepared for RDS have all of these settings.
const UNTRUSTED_CERTIFICATE_CAUSES: &str = "Possible causes: the client verifies certificates (PGSSLMODE or sslmode is verify-ca or verify-full; ssl: true in Node.js); the client has other root certificates (~/.postgresql/root.crt, PGSSLROOTCERT, NODE_EXTRA_CA_CERTS).";

/// Returns how to make a client trust our certificate, or skip verification.
fn trust_hint(certificate: Option<&Path>) -> String {
    let hint = Hint::from(
        "On this machine, connect with PGSSLMODE=disable or sslmode=disable: pgiam encrypts and verifies the connection to the database.",
    );
    let hint = match certificate {
        Some(file) => hint
            .and("To verify pgiam's certificate, connect with:")
            .run(format!(
                "sslmode=verify-full sslrootcert={}",
                file.display()
            )),
        None => hint,
    };
    hint.text()
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
pub(super) fn invalid_target(error: &ConnectionError) -> Message {
    let text = error.to_string();
    let (message, hint) = text.split_once("\nhint: ").unwrap_or((&text, ""));
    // The report adds the target name itself.
    let message = match message.split_once("\": ") {
        Some((target, rest)) if target.starts_with("target \"") => rest,
        _ => message,
    };
    let message = Message::new("target.config", CONFIGURATION, message);
    match hint {
        "" => message.hint(
            "Correct the target in the configuration file; pgiam reloads the file when it changes.",
        ),
        hint => message.hint(Hint::from_lines(hint)),
    }
}

/// Remedy for a client that is refused because of its owner.
const FOREIGN_HINT: &str = "Start your own pgiam on another port. If the user ids differ for the same user, as in containers that share a network, the owner of this pgiam can set peer_check = false, which lets all users of the machine connect.";

/// Reports a client of another user.
pub(super) fn foreign_client(peer: UserId, own: UserId) -> Message {
    Message::new(
        "peer.foreign",
        NOT_AUTHORIZED,
        "this pgiam belongs to another user",
    )
    .detail(format!("The client runs as user id {peer}, pgiam as {own}. The database sees every client as the user that runs pgiam."))
    .hint(FOREIGN_HINT)
}

/// Reports a client of unknown owner: the system did not return a user id.
pub(super) fn unknown_client(error: &io::Error) -> Message {
    Message::new(
        "peer.foreign",
        NOT_AUTHORIZED,
        "cannot determine the owner of this client, and this pgiam serves only its own user",
    )
    .detail(sentence(&format!(
        "cannot look up the owner of the client: {error}"
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
        .hint("Use the password in pgiam's password_file, not the password of the database role."),
        ScramError::Downgrade | ScramError::Binding => {
            Message::new("password.binding", NOT_AUTHORIZED, error.to_string())
                .hint("Connect without a proxy between client and pgiam, or with channel_binding=disable.")
        }
        ScramError::Unsupported(_) => {
            Message::new("password.unsupported", NOT_SUPPORTED, error.to_string())
                .hint("Configure the client for SCRAM-SHA-256 (RFC 5802) without extensions and without an authorization identity, or use pgiam's Unix socket.")
        }
        ScramError::Random => Message::new("password.internal", INTERNAL, error.to_string())
            .hint("Connect again."),
        ScramError::Malformed(_)
        | ScramError::Mechanism
        | ScramError::BindingMismatch
        | ScramError::BindingType
        | ScramError::Nonce
        | ScramError::OutOfOrder => violation("password.protocol")
            .hint("Update the client (its SCRAM messages violate RFC 5802), or use pgiam's Unix socket."),
    }
}

pub(super) fn two_passwords() -> Message {
    Message::new(
        "password.passthrough",
        NOT_SUPPORTED,
        "a target with auth = \"passthrough\" cannot be used with a local password",
    )
    .detail("A client sends only one password. pgiam compares this password with the local password, and the database needs the password of the role.")
    .hint("Connect through pgiam's Unix socket, which needs no local password, or run a second pgiam without password_file for this target.")
}

pub(super) fn channel_binding() -> Message {
    Message::new(
        "client.channel-binding",
        NOT_SUPPORTED,
        "SCRAM with channel binding is not possible through pgiam",
    )
    .detail("Channel binding ties the login to one TLS connection. The client's TLS connection ends at pgiam, so the database would reject the login.")
    .hint("Connect with channel_binding=disable or sslmode=disable. The connection to the database is encrypted and verified in both cases.")
}

/// Answers a readiness probe: the tunnel is not open.
pub(super) fn not_ready(readiness: Readiness) -> Message {
    match readiness {
        Readiness::Interrupted => Message::new(
            "tunnel.interrupted",
            NOT_NOW,
            "the tunnel was lost, and pgiam is reconnecting",
        ),
        Readiness::Up | Readiness::Idle | Readiness::Starting => {
            Message::new("tunnel.starting", NOT_NOW, "the tunnel is not ready yet")
        }
    }
    .hint("Try again in a moment.")
}

/// Answers a readiness probe with the result of an earlier connection.
pub(super) fn last_connection_failed(id: &'static str) -> Message {
    Message::new(id, NOT_NOW, "the last connection to the database failed")
        .hint("Connect with a client to see the reason, or check pgiam's log.")
}

/// Reports that tunnel and token were not ready in time.
pub(super) fn connect_timeout(
    after: Duration,
    readiness: Readiness,
    waiting: Option<&'static str>,
    target: Option<&ResolvedTarget>,
) -> Message {
    let after = after.as_secs();
    match readiness {
        Readiness::Interrupted => Message::new(
            "tunnel.interrupted",
            NOT_NOW,
            "the tunnel was lost, and pgiam is reconnecting",
        )
        .detail(format!("This connection has waited for {after} s."))
        .hint("Check this machine's network, then connect again. pgiam keeps trying."),
        Readiness::Up | Readiness::Idle | Readiness::Starting => {
            let text = format!("tunnel and token were not ready within {after} s");
            with_pending_step(
                Message::new("tunnel.timeout", NOT_NOW, text),
                waiting,
                target,
            )
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
                "no target selected: several targets share this port".to_owned()
            } else {
                format!("there is no target \"{asked}\" on this port")
            };
            let hint = match targets.is_empty() {
                true => "All targets on this port are stopped.".to_owned(),
                false => format!(
                    "Use TARGET or TARGET/DATABASE as the database name. Targets on this port: {}.",
                    targets.join(", ")
                ),
            };
            Message::new("target.unknown", NO_SUCH_DATABASE, message).hint(hint)
        }
        RouteError::Stopped { target } => {
            stopped(NOT_NOW, format!("target \"{target}\" is stopped"))
        }
        RouteError::NoUser { target } => Message::new(
            "target.no-user",
            NOT_AUTHORIZED,
            format!("target \"{target}\": no user name"),
        )
        .hint(format!(
            "Set a user name in the client (psql -U ROLE), or set user = \"ROLE\" under [targets.{target}]."
        )),
        RouteError::Replication { target } => Message::new(
            "target.replication",
            NOT_SUPPORTED,
            format!("target \"{target}\": {error}"),
        )
        .detail("Amazon RDS does not support IAM authentication for replication.")
        .hint(format!(
            "Add a separate target with auth = \"passthrough\" ([targets.{target}-replication]), and connect to it with the role's password."
        )),
        RouteError::UserNotUtf8 => {
            Message::new("target.user-encoding", NOT_AUTHORIZED, error.to_string())
                .hint("Send the user name in UTF-8: IAM tokens can be signed only for UTF-8 names.")
        }
        RouteError::Startup(_) => Message::new("target.startup", CONFIGURATION, error.to_string())
            .hint("Shorten the client's startup parameters, or the target's user and database. A startup packet can have at most 10,000 bytes, and no zero byte in a value."),
    }
}
