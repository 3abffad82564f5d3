//! Reports about the database: its certificate, its answers.

use std::borrow::Cow;

use pg_handshake::{ServerError, UpstreamError};

use super::aws::partition;
use super::{
    About, BROKEN, CANNOT_CONNECT, Level, NOT_AUTHORIZED, REJECTED, Report, Said, sentence,
};
use crate::tls::upstream::UpstreamTlsError;

pub(super) fn tls(error: &UpstreamTlsError, about: Option<&About<'_>>) -> Said {
    let ca_file = about.and_then(|about| about.target.ca_file.as_ref());
    let said = |id| Said::new(id, CANNOT_CONNECT, error.to_string());
    match error {
        UpstreamTlsError::NameMismatch { .. } => said("tls.name")
            .detail("No token was sent.")
            .hint("host must be the endpoint's own name as RDS shows it: not a CNAME, an IP address or another cluster."),
        UpstreamTlsError::UnknownIssuer { .. } => {
            let hint = match ca_file {
                Some(path) => format!("Only the certificates in {} are trusted for this target. Without ca_file the Amazon RDS roots and the public ones are.", path.display()),
                None => "It is not among the Amazon RDS roots in this binary nor the public ones. For GovCloud, China or a new region download the region's RDS bundle and name it with ca_file.".to_owned(),
            };
            said("tls.issuer").detail("No token was sent.").hint(hint)
        }
        UpstreamTlsError::NotValidNow { .. } => said("tls.validity")
            .detail("No token was sent.")
            .hint("Check this machine's clock; else rotate the database's certificate (RDS: modify-db-instance --ca-certificate-identifier)."),
        UpstreamTlsError::Certificate(_) | UpstreamTlsError::Handshake(_) => {
            said("tls.handshake").detail("No token was sent.")
        }
        UpstreamTlsError::Io(_) => Said::new("tls.lost", BROKEN, error.to_string()),
    }
}

pub(super) fn upstream(error: &UpstreamError, about: Option<&About<'_>>) -> Report {
    let user = about.map(|about| about.user).unwrap_or_default();
    let said = match error {
        UpstreamError::Server(error) => return server(error, about),
        UpstreamError::TlsRefused => Said::new("database.no-tls", CANNOT_CONNECT, "the database does not accept TLS")
            .detail("It answered N to SSLRequest. No token was sent.")
            .hint("IAM login needs TLS, and pgiam sends nothing without it. Is host the RDS endpoint, and not a pooler or another server?"),
        UpstreamError::UnexpectedAuth(method) => Said::new(
            "database.no-rds-iam",
            NOT_AUTHORIZED,
            format!("role \"{user}\" is not set up for IAM login"),
        )
        .detail(format!(
            "The database asks for {method} instead of a clear-text password, as it does for roles that do not exist or have not been granted rds_iam. No token was sent."
        ))
        .hint(format!(
            "As an administrator run: GRANT rds_iam TO {0}; (if there is no such role, CREATE ROLE {0} LOGIN; first; names are case-sensitive). IAM authentication must be on for the instance.",
            quote_identifier(user)
        )),
        UpstreamError::BytesBeforeTls => Said::new("database.injected", BROKEN, error.to_string())
            .detail("Someone between the bastion and the database may be adding data. No token was sent.")
            .hint("Is host the database's own endpoint, with nothing in between?"),
        // libpq keeps quiet about the words, too (CVE-2024-10977).
        UpstreamError::ServerBeforeTls(_) => Said::new("database.error-before-tls", REJECTED, "the database refused before TLS")
            .detail("It answered SSLRequest with an error. Its words are not shown, because nothing proves yet that they are the database's. No token was sent.")
            .hint("A database that is out of memory or processes does so; its own log has the reason."),
        UpstreamError::UnexpectedEof { .. } => Said::new("database.closed", BROKEN, "the database closed the connection during the login")
            .detail(sentence(&error.to_string()))
            .hint("It may be restarting. If it stays, are host and port those of a PostgreSQL database?"),
        UpstreamError::Password(reason) => {
            Said::new("token.unusable", NOT_AUTHORIZED, format!("the login token cannot be sent: {reason}"))
        }
        other @ (UpstreamError::PasswordAskedTwice
        | UpstreamError::UnexpectedMessage { .. }
        | UpstreamError::TooLarge { .. }
        | UpstreamError::Malformed(_)
        | UpstreamError::TooMuchUnread) => Said::new("database.protocol", BROKEN, "the server does not answer as a PostgreSQL database does")
            .detail(sentence(&other.to_string()))
            .hint("Are host and port those of a PostgreSQL database?"),
    };
    said.report(Level::Warn, about.map(|about| about.target))
}

/// The server's own words, and what we know that it does not say.
fn server(error: &ServerError, about: Option<&About<'_>>) -> Report {
    let state = error
        .sqlstate()
        .map(|state| state.as_str().to_owned())
        .unwrap_or_default();
    let (id, detail, hint) = match (state.as_str(), about) {
        ("28000" | "28P01", Some(about)) if about.token_judged => {
            let (detail, hint) = login_refused(about);
            ("database.login-refused", Some(detail), Some(hint))
        }
        _ => ("database.refused", None, None),
    };
    Report {
        id,
        reply: Some(error.with_appended(detail.as_deref(), hint.as_deref())),
        sqlstate: state,
        message: error.message().into_owned(),
        detail: error.detail().map(Cow::into_owned).or(detail),
        level: Level::Warn,
    }
}

fn login_refused(about: &About<'_>) -> (String, String) {
    let About { target, user, .. } = about;
    let region = target.region.as_deref().unwrap_or("the default region");
    let detail = format!(
        "pgiam sent an IAM token signed for {}, user \"{user}\", region {region}.",
        target.endpoint
    );
    let partition = partition(region);
    let profile = match &target.profile {
        Some(profile) => format!(" --profile {profile}"),
        None => String::new(),
    };
    let hint = format!(
        "Does your identity have rds-db:connect on arn:{partition}:rds-db:{}:ACCOUNT:dbuser:RESOURCE-ID/{user}? (RESOURCE-ID is the db-… or cluster-… id, not the instance's name.) Are the credentials still valid (aws sts get-caller-identity{profile}), and is this machine's clock right? The database's iam-db-auth-error log has the reason.",
        target.region.as_deref().unwrap_or("REGION")
    );
    (detail, hint)
}

/// A role name as SQL takes it (PostgreSQL docs, "Identifiers and Key Words").
fn quote_identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
