//! Reports about the database: its certificate and its answers.

use super::context::ErrorContext;
use super::hint::Hint;
use super::message::{
    BROKEN, CANNOT_CONNECT, CONFIGURATION, LogLevel, Message, NOT_AUTHORIZED, NOT_SUPPORTED,
    REJECTED, Report,
};
use super::phrases::{CHECK_ENDPOINT, CONNECT_AGAIN, partition, sentence};
use super::server::server_error;
use super::{role, token_evidence};

use pg_handshake::UpstreamError;

use crate::aws::alias::AliasError;
use crate::base::foreign_text::ForeignText;
use crate::config::Auth;
use crate::tls::upstream::UpstreamTlsError;

pub(super) fn tls(error: &UpstreamTlsError, context: Option<&ErrorContext<'_>>) -> Message {
    let ca_file = context.and_then(|context| context.target.settings.ca_file.as_ref());
    let message = |id| Message::new(id, CANNOT_CONNECT, error.to_string());
    match error {
        UpstreamTlsError::NameMismatch { expected, .. } => message("tls.name")
            .detail(describe_sent_secret(context))
            .hint(name_mismatch_hint(expected, context)),
        UpstreamTlsError::UnknownIssuer { .. } => {
            let hint = match ca_file {
                Some(path) => format!("Add the issuer to {}, or remove ca_file. With ca_file, pgiam trusts only the certificates in this file; without it, the Amazon RDS roots and the public roots.", path.display()),
                None => untrusted_issuer_hint(context),
            };
            message("tls.issuer").detail(describe_sent_secret(context)).hint(hint)
        }
        UpstreamTlsError::NotValidNow { .. } => message("tls.validity")
            .detail(describe_sent_secret(context))
            .hint("Check this machine's clock. If it is right, rotate the database's certificate, which can restart the database: `aws rds modify-db-instance --db-instance-identifier NAME --ca-certificate-identifier CA`"),
        UpstreamTlsError::Certificate(_) | UpstreamTlsError::Handshake(_) => {
            message("tls.handshake").detail(describe_sent_secret(context)).hint("Check that host and port are those of the database itself. It must support TLS 1.2 or later and have its own certificate.")
        }
        UpstreamTlsError::Io(_) => Message::new("tls.lost", BROKEN, error.to_string()).hint(CONNECT_AGAIN),
    }
}

/// Returns the remedy for a certificate signed by neither the RDS roots nor the public ones. The
/// addresses are those in the RDS User Guide, "Using SSL/TLS to encrypt a connection to a DB
/// instance". The secret partitions have addresses of their own, which are not public.
fn untrusted_issuer_hint(context: Option<&ErrorContext<'_>>) -> String {
    let region = context.and_then(|context| match context.evidence {
        Some(evidence) => Some(evidence.request.region.as_str()),
        None => context.target.region.as_deref(),
    });
    let (why, bundle) = match partition(region.unwrap_or_default()) {
        "aws" => (
            "Check that host is the endpoint of the database itself. For a database in a new region, download",
            "https://truststore.pki.rds.amazonaws.com/global/global-bundle.pem",
        ),
        "aws-us-gov" => (
            "GovCloud has its own roots: download",
            "https://truststore.pki.us-gov-west-1.rds.amazonaws.com/global/global-bundle.pem",
        ),
        "aws-cn" => (
            "China has its own roots: download",
            "https://rds-truststore.s3.cn-north-1.amazonaws.com.cn/global/global-bundle.pem",
        ),
        _ => (
            "This partition has its own roots: download",
            "the region's RDS bundle",
        ),
    };
    format!(
        "{why} {bundle} and set ca_file to the file. The issuer is neither an Amazon RDS root in this binary nor a public root."
    )
}

/// Returns the remedy for a certificate that names another server than the expected one.
fn name_mismatch_hint(expected: &str, context: Option<&ErrorContext<'_>>) -> String {
    let configured = context.map(|context| &context.target.endpoint.host);
    match configured.filter(|host| !host.eq_ignore_ascii_case(expected)) {
        Some(alias) => format!(
            "Connect again: pgiam resolves {alias} again for the next connection. If the error persists, set host to the endpoint's own name. In this machine's DNS, {alias} is a CNAME for {expected}. Possible causes: the CNAME has changed; the VPC's DNS has a different one."
        ),
        None => "Set host to the endpoint's own name as RDS shows it, or to a CNAME for it. An IP address or the name of another database does not match the certificate.".to_owned(),
    }
}

/// Reports that no token can be signed for the name in `host`.
pub(super) fn alias(error: &AliasError) -> Message {
    const ENDPOINT_NAME: &str =
        "the endpoint's own name, as the RDS console shows it (NAME.….REGION.rds.amazonaws.com)";
    let chain = |names: &[ForeignText]| {
        let names: Vec<&str> = names.iter().map(|name| &**name).collect();
        names.join(" \u{2192} ")
    };
    match error {
        AliasError::NoAlias { host, chain: names, exists } => {
            let end = match (names.len(), exists) {
                (_, false) => "does not exist",
                (0 | 1, true) => "has no CNAME record",
                (_, true) => "is not an endpoint and has no CNAME record",
            };
            Message::new("host.alias", CONFIGURATION, format!("{host} is not an RDS or DSQL endpoint or a CNAME for one"))
                .detail(format!("In this machine's DNS, {} {end}. Tokens are signed for the endpoint's own name.", chain(names)))
                .hint(format!("Set host to {ENDPOINT_NAME}. If only another DNS server resolves the name, set dns_server to it."))
        }
        AliasError::Loop { host, chain: names } => {
            Message::new("host.alias", CONFIGURATION, format!("CNAME loop at {host}, or too many CNAMEs"))
                .detail(format!("{}.", chain(names)))
                .hint(format!("Correct the CNAME records, or set host to {ENDPOINT_NAME}."))
        }
        AliasError::Dns { host, reason } => Message::new(
            "host.dns",
            CANNOT_CONNECT,
            format!("cannot resolve the CNAME {host}"),
        )
        .detail(sentence(reason))
        .hint(format!("Check this machine's DNS, and the VPN if the name needs one, or set dns_server to another server. To avoid the lookup, set host to {ENDPOINT_NAME}.")),
    }
}

pub(super) fn no_alpn(context: Option<&ErrorContext<'_>>) -> Message {
    Message::new(
        "tls.alpn",
        CANNOT_CONNECT,
        "the server accepted TLS without confirming the protocol (ALPN)",
    )
    .detail(format!(
        "The server did not select the protocol \"postgresql\". {}",
        describe_sent_secret(context)
    ))
    .hint(CHECK_ENDPOINT)
}

pub(super) fn upstream(error: &UpstreamError, context: Option<&ErrorContext<'_>>) -> Report {
    let user = context.map(|context| context.user).unwrap_or_default();
    let message = match error {
        UpstreamError::Server(error) => return server_error(error, context),
        UpstreamError::TlsRefused => Message::new("database.no-tls", CANNOT_CONNECT, "the database does not accept TLS")
            .detail(format!("The server answered N to SSLRequest. {}", describe_sent_secret(context)))
            .hint("Check that host is the RDS endpoint, not a pooler or another server. IAM login needs TLS, and pgiam sends nothing without it."),
        UpstreamError::UnexpectedAuth(method) => Message::new(
            "database.no-rds-iam",
            NOT_AUTHORIZED,
            match role::other_target_role(context) {
                Some(own) => format!("role \"{user}\" is not set up for IAM login; this target logs in as \"{own}\""),
                None => format!("role \"{user}\" is not set up for IAM login"),
            },
        )
        .detail(format!(
            "The database requests {method} instead of a clear-text password, as it does for roles that do not exist or do not have rds_iam. {}",
            describe_early_token(context)
        ))
        .hint(
            Hint::from(role::role_hint(context))
                .and(role::grant_hint(user, false))
                .and(role::enable_iam_hint(context)),
        ),
        UpstreamError::NotPostgres(other) => {
            let place = context.map_or_else(|| "host and port".to_owned(), |context| context.target.endpoint.to_string());
            Message::new("database.not-postgres", CANNOT_CONNECT, format!("{place} is not PostgreSQL: {other} answers"))
                .detail(format!("The first bytes of the answer show this. {}", describe_sent_secret(context)))
                .hint("Correct host and port of the target (PostgreSQL's default port is 5432). To see the endpoint of the database, run: `aws rds describe-db-instances`")
        }
        UpstreamError::BytesBeforeTls => Message::new("database.injected", BROKEN, "received unencrypted data before TLS")
            .detail(format!("The server sent more than the one byte that answers SSLRequest. {}", describe_sent_secret(context)))
            .hint("Check that host is the database's own endpoint. Possible causes: host and port are those of another server than PostgreSQL; a device between the bastion and the database adds data."),
        // libpq hides this text, too (CVE-2024-10977).
        UpstreamError::ServerBeforeTls(_) => Message::new("database.error-before-tls", REJECTED, "the database refused the connection before TLS")
            .detail(format!("The server answered SSLRequest with an error. pgiam does not show its text, because the server is not verified before TLS. {}", describe_sent_secret(context)))
            .hint("Check the database's log for the reason. Possible cause: the database is out of memory or processes."),
        UpstreamError::UnexpectedEof { .. } => Message::new("database.closed", BROKEN, "the database closed the connection during the login")
            .detail(sentence(&error.to_string()))
            .hint("Connect again. Possible causes: the database is restarting; host and port are not those of a PostgreSQL database."),
        UpstreamError::PasswordNotAsked => Message::new("database.no-password", REJECTED, format!("the database accepts role \"{user}\" without a token"))
            .detail("pgiam sent a token early, because the database requested one before. A server that requests no token rejects it as an invalid message.")
            .hint("Connect again: pgiam now waits for the server's request."),
        UpstreamError::OnlyChannelBinding => Message::new("client.channel-binding", NOT_SUPPORTED, "the database accepts only SCRAM with channel binding")
            .detail("SCRAM with channel binding is not possible through pgiam, because the client's TLS connection ends at pgiam.")
            .hint("Configure the database to offer SCRAM-SHA-256 as well. Or use a target without auth = \"passthrough\" and a role that has rds_iam (the database then refuses its password)."),
        UpstreamError::Password(reason) => {
            Message::new("token.unusable", NOT_AUTHORIZED, format!("the login token cannot be sent: {reason}"))
                .hint("Possible cause: a very long session token of the AWS credentials. Remove session tags, or use other AWS credentials.")
        }
        other @ (UpstreamError::PasswordAskedTwice
        | UpstreamError::UnexpectedMessage { .. }
        | UpstreamError::TooLarge { .. }
        | UpstreamError::Malformed(_)
        | UpstreamError::TooManyAuthRequests
        | UpstreamError::TooMuchUnread) => Message::new("database.protocol", BROKEN, "the server violated the PostgreSQL protocol")
            .detail(sentence(&other.to_string()))
            .hint(CHECK_ENDPOINT),
    };
    message.report(LogLevel::Warn, context.map(|context| context.target))
}

/// Describes whether the token was sent, for a database that turns out to request something else.
fn describe_early_token(context: Option<&ErrorContext<'_>>) -> String {
    let early = context.filter(|context| context.evidence.is_some_and(|evidence| evidence.early));
    match early.and_then(token_evidence::describe_token) {
        Some(token) => format!(
            "pgiam sent a token early, over verified TLS, because the server accepted one for this role before. {token}"
        ),
        None => describe_sent_secret(context),
    }
}

/// Describes whether a secret was sent, for an attempt that did not send one.
fn describe_sent_secret(context: Option<&ErrorContext<'_>>) -> String {
    match context {
        Some(context) if context.token_sent => {
            "pgiam sent a token in an earlier attempt of this login, over verified TLS, but none in this attempt."
        }
        Some(context) if context.target.settings.login.auth == Auth::Passthrough => "No password was sent.",
        _ => "No token was sent.",
    }
    .to_owned()
}
