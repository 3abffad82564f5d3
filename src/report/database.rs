//! Reports about the database: its certificate and its answers.

use super::context::ErrorContext;
use super::message::{
    BROKEN, CANNOT_CONNECT, CONFIGURATION, LogLevel, Message, NOT_AUTHORIZED, NOT_SUPPORTED,
    REJECTED, Report,
};
use super::phrases::{AGAIN, partition, quote_identifier, sentence, turn_iam_on};
use super::server::server;
use super::{role, token_evidence};

use pg_handshake::UpstreamError;

use crate::aws::alias::AliasError;
use crate::base::foreign_text::ForeignText;
use crate::config::Auth;
use crate::tls::upstream::UpstreamTlsError;

pub(super) fn tls(error: &UpstreamTlsError, context: Option<&ErrorContext<'_>>) -> Message {
    let ca_file = context.and_then(|context| context.target.settings.ca_file.as_ref());
    let said = |id| Message::new(id, CANNOT_CONNECT, error.to_string());
    match error {
        UpstreamTlsError::NameMismatch { expected, .. } => said("tls.name")
            .detail(nothing_sent(context))
            .hint(other_name(expected, context)),
        UpstreamTlsError::UnknownIssuer { .. } => {
            let hint = match ca_file {
                Some(path) => format!("Only the certificates in {} are trusted for this target. Without ca_file the Amazon RDS roots and the public ones are.", path.display()),
                None => no_root(context),
            };
            said("tls.issuer").detail(nothing_sent(context)).hint(hint)
        }
        UpstreamTlsError::NotValidNow { .. } => said("tls.validity")
            .detail(nothing_sent(context))
            .hint("Check this machine's clock; else rotate the database's certificate (RDS: modify-db-instance --ca-certificate-identifier, which may restart the database)."),
        UpstreamTlsError::Certificate(_) | UpstreamTlsError::Handshake(_) => {
            said("tls.handshake").detail(nothing_sent(context)).hint("Are host and port those of the database itself? It must speak TLS 1.2 or later, with a certificate of its own.")
        }
        UpstreamTlsError::Io(_) => Message::new("tls.lost", BROKEN, error.to_string()).hint(AGAIN),
    }
}

/// Returns the remedy for a certificate signed by neither the RDS roots nor the public ones. The
/// addresses are those in the RDS User Guide, "Using SSL/TLS to encrypt a connection to a DB
/// instance". The secret partitions have addresses of their own, which are not public.
fn no_root(context: Option<&ErrorContext<'_>>) -> String {
    let region = context.and_then(|context| match context.evidence {
        Some(evidence) => Some(evidence.request.region.as_str()),
        None => context.target.region.as_deref(),
    });
    let (why, bundle) = match partition(region.unwrap_or_default()) {
        "aws" => (
            "Does host lead to the database itself? If so, and it is in a new region, download",
            "https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem",
        ),
        "aws-us-gov" => (
            "GovCloud has its own: download",
            "https://truststore.pki.us-gov-west-1.rds.amazonaws.com/global/global-bundle.pem",
        ),
        "aws-cn" => (
            "China has its own: download",
            "https://rds-truststore.s3.cn-north-1.amazonaws.com.cn/global/global-bundle.pem",
        ),
        _ => (
            "This partition has its own: download",
            "the region's RDS bundle",
        ),
    };
    format!(
        "It is not among the Amazon RDS roots in this binary nor the public ones. {why} {bundle} and name the file with ca_file."
    )
}

/// Returns the remedy for a certificate that names another server than the expected one.
fn other_name(expected: &str, context: Option<&ErrorContext<'_>>) -> String {
    let configured = context.map(|context| &context.target.endpoint.host);
    match configured.filter(|host| !host.eq_ignore_ascii_case(expected)) {
        Some(alias) => format!(
            "In this machine's DNS {alias} is an alias of {expected}, and the tunnel leads elsewhere: has the alias changed, or has the VPC another? It is looked up again for the next connection; if it stays, set host to the endpoint's own name."
        ),
        None => "host must be the endpoint's own name as RDS shows it, or an alias (CNAME) of it: not an IP address, and not the name of another database.".to_owned(),
    }
}

/// Reports that no token can be signed for the name in `host`.
pub(super) fn alias(error: &AliasError) -> Message {
    const OWN: &str =
        "the endpoint's own name, as the RDS console shows it (NAME.….REGION.rds.amazonaws.com)";
    let chain = |names: &[ForeignText]| {
        let names: Vec<&str> = names.iter().map(|name| &**name).collect();
        names.join(" \u{2192} ")
    };
    match error {
        AliasError::NoAlias { host, chain: names, exists } => {
            let end = match (names.len(), exists) {
                (_, false) => "does not exist",
                (0 | 1, true) => "is no alias (CNAME)",
                (_, true) => "is no endpoint and no further alias",
            };
            Message::new("host.alias", CONFIGURATION, format!("{host} does not lead to an RDS or DSQL endpoint"))
                .detail(format!("In this machine's DNS, {} {end}. Tokens are signed for the endpoint's own name.", chain(names)))
                .hint(format!("Correct host, best to {OWN}. Where only another DNS server knows the alias, name that with dns_server."))
        }
        AliasError::Loop { host, chain: names } => {
            Message::new("host.alias", CONFIGURATION, format!("the aliases of {host} never come to an end"))
                .detail(format!("{}.", chain(names)))
                .hint(format!("Correct the CNAME records, or set host to {OWN}."))
        }
        AliasError::Dns { host, reason } => Message::new(
            "host.dns",
            CANNOT_CONNECT,
            format!("cannot find out which endpoint {host} stands for"),
        )
        .detail(sentence(reason))
        .hint(format!("Check this machine's DNS, and VPN if the name needs one, or name another server to ask with dns_server. Nobody has to be asked when host is {OWN}.")),
    }
}

pub(super) fn no_alpn(context: Option<&ErrorContext<'_>>) -> Message {
    Message::new(
        "tls.alpn",
        CANNOT_CONNECT,
        "the server began TLS, but does not say that it speaks PostgreSQL",
    )
    .detail(format!(
        "It did not agree on the protocol \"postgresql\" (ALPN). {}",
        nothing_sent(context)
    ))
    .hint("Are host and port those of a PostgreSQL database?")
}

pub(super) fn upstream(error: &UpstreamError, context: Option<&ErrorContext<'_>>) -> Report {
    let user = context.map(|context| context.user).unwrap_or_default();
    let said = match error {
        UpstreamError::Server(error) => return server(error, context),
        UpstreamError::TlsRefused => Message::new("database.no-tls", CANNOT_CONNECT, "the database does not accept TLS")
            .detail(format!("It answered N to SSLRequest. {}", nothing_sent(context)))
            .hint("IAM login needs TLS, and pgiam sends nothing without it. Is host the RDS endpoint, and not a pooler or another server?"),
        UpstreamError::UnexpectedAuth(method) => Message::new(
            "database.no-rds-iam",
            NOT_AUTHORIZED,
            match role::instead(context) {
                Some(own) => format!("role \"{user}\" is not set up for IAM login; this target logs in as \"{own}\""),
                None => format!("role \"{user}\" is not set up for IAM login"),
            },
        )
        .detail(format!(
            "The database asks for {method} instead of a clear-text password, as it does for roles that do not exist or have not been granted rds_iam. {}",
            token_sent(context)
        ))
        .hint(format!(
            "{2}As an administrator run: {0} If there is no such role, CREATE ROLE {3} LOGIN; first (names are case-sensitive). Or IAM authentication is off: {1}.",
            role::grant(user),
            turn_iam_on(),
            role::leave_empty(context),
            quote_identifier(user),
        )),
        UpstreamError::NotPostgres(other) => {
            let place = context.map_or_else(|| "host and port".to_owned(), |context| context.target.endpoint.to_string());
            Message::new("database.not-postgres", CANNOT_CONNECT, format!("{place} is not PostgreSQL: {other} answers"))
                .detail(format!("It looks so by its first bytes. {}", nothing_sent(context)))
                .hint("Correct host and port of the target: aws rds describe-db-instances shows both; PostgreSQL's usual port is 5432.")
        }
        UpstreamError::BytesBeforeTls => Message::new("database.injected", BROKEN, "received unencrypted data before TLS")
            .detail(format!("The answer to SSLRequest is one byte, and more came. {}", nothing_sent(context)))
            .hint("Possible causes: host and port are those of another server than PostgreSQL, or something between the bastion and the database adds data. Is host the database's own endpoint, with nothing in between?"),
        // libpq hides this text, too (CVE-2024-10977).
        UpstreamError::ServerBeforeTls(_) => Message::new("database.error-before-tls", REJECTED, "the database refused before TLS")
            .detail(format!("It answered SSLRequest with an error. Its words are not shown, because nothing proves yet that they are the database's. {}", nothing_sent(context)))
            .hint("A database that is out of memory or processes does so; its own log has the reason."),
        UpstreamError::UnexpectedEof { .. } => Message::new("database.closed", BROKEN, "the database closed the connection during the login")
            .detail(sentence(&error.to_string()))
            .hint("It may be restarting. If it stays, are host and port those of a PostgreSQL database?"),
        UpstreamError::PasswordNotAsked => Message::new("database.no-password", REJECTED, format!("the database lets role \"{user}\" in without asking for a token"))
            .detail("The token had been sent ahead, as the database has asked for one before; a server that has not asked takes it for a broken message.")
            .hint("Connect again: pgiam waits to be asked now."),
        UpstreamError::OnlyChannelBinding => Message::new("client.channel-binding", NOT_SUPPORTED, "the database takes only a SCRAM login that is bound to its own TLS")
            .detail("Such a login cannot pass through pgiam, where the client's TLS ends.")
            .hint("Let the database offer SCRAM-SHA-256 as well, or log in as a role that has rds_iam (its password is refused from then on), with a target without auth = \"passthrough\"."),
        UpstreamError::Password(reason) => {
            Message::new("token.unusable", NOT_AUTHORIZED, format!("the login token cannot be sent: {reason}"))
                .hint("A very long session token of the AWS credentials can be the cause: leave session tags out, or log in to AWS in another way.")
        }
        other @ (UpstreamError::PasswordAskedTwice
        | UpstreamError::UnexpectedMessage { .. }
        | UpstreamError::TooLarge { .. }
        | UpstreamError::Malformed(_)
        | UpstreamError::TooManyAuthRequests
        | UpstreamError::TooMuchUnread) => Message::new("database.protocol", BROKEN, "the server does not answer as a PostgreSQL database does")
            .detail(sentence(&other.to_string()))
            .hint("Are host and port those of a PostgreSQL database?"),
    };
    said.report(LogLevel::Warn, context.map(|context| context.target))
}

/// Describes whether the token was sent, for a database that turns out to request something else.
fn token_sent(context: Option<&ErrorContext<'_>>) -> String {
    let early = context.filter(|context| context.evidence.is_some_and(|evidence| evidence.early));
    match early.and_then(token_evidence::token) {
        Some(token) => format!(
            "A token went to it ahead, inside the verified TLS, because it took one for this role before. {token}"
        ),
        None => nothing_sent(context),
    }
}

/// Describes whether a secret was sent, for an attempt that did not send one.
fn nothing_sent(context: Option<&ErrorContext<'_>>) -> String {
    match context {
        Some(context) if context.token_sent => {
            "A token was sent in an earlier attempt of this login, inside verified TLS; none in this one."
        }
        Some(context) if context.target.settings.login.auth == Auth::Passthrough => "No password was sent.",
        _ => "No token was sent.",
    }
    .to_owned()
}
