//! Steps at the database: connection to its port, certificate, login and role.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::X509Name;

use super::query::{QueryClient, SqlQueryError};
use super::{APPLICATION, CheckRun, ConnectionProgress, StepOutcome};
use crate::config::{EndpointKind, Via};
use crate::failure::connection::ConnectionError;
use crate::postgres::database::login_steps;
use crate::postgres::database::login_steps::LoginCheck;
use crate::postgres::target::PgContext;
use crate::report;

/// Timeout for a short query.
const PATIENCE: Duration = Duration::from_secs(10);
/// Remaining days of validity below which a certificate deserves a warning. RDS renews its own in
/// time (RDS User Guide, "Rotating your SSL/TLS certificate"), so fewer days are a sign of trouble.
const SOON: i64 = 30;
const DAY: i64 = 24 * 3600;

/// Query for the session's role and database, and details of the role.
const WHO: &str = "select current_user, current_database()";
const MEMBERSHIPS: &str = "select \
    (select pg_has_role(current_user, oid, 'member') from pg_roles where rolname = 'rds_iam'), \
    (select pg_has_role(current_user, oid, 'member') from pg_roles where rolname = 'rds_superuser'), \
    (select rolsuper from pg_roles where rolname = current_user)";

impl CheckRun {
    /// Returns the login of this check; the first call sets its role.
    pub(super) fn login_check(
        &mut self,
        context: &Arc<PgContext>,
    ) -> Result<&mut LoginCheck, ConnectionError> {
        let login_check = match self.login_check.take() {
            Some(login_check) => login_check,
            None => {
                let endpoint = self.endpoint.clone();
                let endpoint = endpoint.unwrap_or_else(|| context.target.endpoint.clone());
                LoginCheck::new(Arc::clone(context), endpoint, APPLICATION)?
            }
        };
        Ok(self.login_check.insert(login_check))
    }

    /// Runs the port step: the connection through the bastion or directly.
    pub(super) async fn port(&mut self, context: &Arc<PgContext>) -> StepOutcome {
        let login_check = match self.login_check(context) {
            Ok(login_check) => login_check,
            Err(error) => return StepOutcome::failed(context.explain(&error)),
        };
        let dialled = login_check.dial().await;
        match dialled {
            Ok(dialled) => self.progress = ConnectionProgress::Dialled(dialled),
            Err(error) => return StepOutcome::failed(login_check.explain(&error)),
        }
        let endpoint = &context.target.endpoint;
        StepOutcome::ok(match context.target.settings.via {
            Via::Ssm(_) => {
                format!("the bastion connected to {endpoint}, and the database answered")
            }
            Via::Direct => format!("connected to {endpoint}"),
        })
    }

    /// Runs the certificate step.
    pub(super) async fn tls(&mut self) -> StepOutcome {
        let (Some(login_check), ConnectionProgress::Dialled(dialled)) =
            (&self.login_check, std::mem::take(&mut self.progress))
        else {
            return StepOutcome::skipped("no connection");
        };
        let secured = match login_check.secure(dialled).await {
            Ok(secured) => secured,
            Err(error) => return StepOutcome::failed(login_check.explain(&error)),
        };
        let host = self.endpoint.as_ref().map(|it| it.host.clone());
        let tls = VerifiedConnection {
            host: host.unwrap_or_default(),
            version: secured.version.clone(),
            alpn: secured.alpn,
        };
        let outcome = certificate(&tls, &secured.certificates, SystemTime::now());
        self.progress = ConnectionProgress::Secured(secured);
        outcome
    }

    /// Runs the login step.
    pub(super) async fn login(&mut self) -> StepOutcome {
        let (Some(login_check), ConnectionProgress::Secured(secured)) =
            (&mut self.login_check, std::mem::take(&mut self.progress))
        else {
            return StepOutcome::skipped("no connection");
        };
        login_check.iam_login = self.database.as_ref().and_then(|database| database.iam);
        let session = match login_check.login(secured).await {
            Ok(login_steps::LoginOutcome::In(session)) => session,
            Ok(login_steps::LoginOutcome::Asked(method)) => {
                return StepOutcome::skipped(format!(
                    "the database requests {method}, which only your client can answer (auth = \"passthrough\")"
                ));
            }
            Err(error) => {
                let explanation = login_check.explain(&error);
                return StepOutcome::failed(explanation).fact("user", login_check.user());
            }
        };
        let (user, database) = (
            login_check.user(),
            login_check.database().unwrap_or(login_check.user()),
        );
        let version = session.server_version.clone();
        let shown = version.as_deref().map(short).unwrap_or_default();
        let said = format!("{user} in {database}, PostgreSQL {shown}");
        let outcome = match session.unasked {
            false => StepOutcome::ok(said.trim_end()),
            true => StepOutcome::warning(said.trim_end())
                .detail("The database accepted the login without requesting a token."),
        };
        let outcome = outcome
            .fact("user", user)
            .fact("database", database)
            .fact("server_version", version);
        let mut questions = QueryClient::new(session);
        let who = questions.rows(WHO, PATIENCE).await;
        let usable = matches!(who, Ok(_) | Err(SqlQueryError::Server(_)));
        if usable {
            self.progress = ConnectionProgress::In(questions);
        }
        match who.as_deref() {
            Ok([row]) => match &row[..] {
                [Some(user), ..] => outcome.fact("current_user", user.clone()),
                _ => outcome,
            },
            Ok(_) => outcome,
            Err(error) => StepOutcome {
                verdict: super::StepVerdict::Warning,
                ..outcome.detail(format!("A test query failed: {error}."))
            },
        }
    }

    /// Runs the step for the membership that lets a role log in with tokens.
    pub(super) async fn rds_iam(&mut self) -> StepOutcome {
        let ConnectionProgress::In(questions) = &mut self.progress else {
            return StepOutcome::skipped("not logged in");
        };
        if self.endpoint.as_ref().map(|it| it.kind()) == Some(EndpointKind::Dsql) {
            return StepOutcome::skipped("Aurora DSQL does not use this role");
        }
        let rows = match questions.rows(MEMBERSHIPS, PATIENCE).await {
            Ok(rows) => rows,
            Err(error @ SqlQueryError::Server(_)) => {
                return StepOutcome::skipped(error.to_string());
            }
            Err(error) => {
                self.progress = ConnectionProgress::Begun; // No further query is possible.
                return StepOutcome::warning(error.to_string());
            }
        };
        let user = self
            .login_check
            .as_ref()
            .map(LoginCheck::user)
            .unwrap_or_default();
        match rows.first().map(Vec::as_slice) {
            Some([iam, superuser, postgres]) => {
                let is = |flag: &Option<String>| flag.as_deref().map(|flag| flag == "t");
                memberships(
                    user,
                    is(iam),
                    is(superuser) == Some(true) || is(postgres) == Some(true),
                )
            }
            _ => StepOutcome::skipped("the database did not report its roles"),
        }
    }
}

fn memberships(user: &str, rds_iam: Option<bool>, superuser: bool) -> StepOutcome {
    let outcome = match rds_iam {
        Some(true) => StepOutcome::ok(format!("{user} has rds_iam")),
        Some(false) => StepOutcome::warning(format!(
            "{user} does not have rds_iam, but the login succeeded"
        ))
        .remedy(report::allow_only_tokens(user)),
        None => StepOutcome::skipped("the role rds_iam does not exist in this database"),
    };
    let outcome = match superuser {
        true => outcome
            .detail("The role is also an administrator (rds_superuser). For daily work, use a role with fewer privileges."),
        false => outcome,
    };
    outcome
        .fact("rds_iam", rds_iam)
        .fact("superuser", superuser)
}

/// Returns `15.18` of `15.18 (Debian 15.18-0+deb12u1)`.
fn short(version: &str) -> &str {
    version.split_whitespace().next().unwrap_or_default()
}

/// A verified connection.
struct VerifiedConnection {
    host: String,
    version: String,
    alpn: bool,
}

fn certificate(
    tls: &VerifiedConnection,
    chain: &[CertificateDer<'_>],
    now: SystemTime,
) -> StepOutcome {
    let version = tls.version.replace("TLSv", "TLS ");
    let parsed = chain
        .iter()
        .filter_map(|der| X509Certificate::from_der(der).ok());
    let parsed: Vec<X509Certificate<'_>> = parsed.map(|(_, certificate)| certificate).collect();
    let (Some(leaf), Some(last)) = (parsed.first(), parsed.last()) else {
        return StepOutcome::warning(format!(
            "{version}, verified; the certificate cannot be parsed"
        ));
    };
    let (issuer, root) = (name(leaf.issuer()), name(last.issuer()));
    // The chain expires with its earliest certificate.
    let ends = parsed.iter().map(|it| it.validity().not_after.timestamp());
    let ends = ends.min().unwrap_or_default();
    let now = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let days = (ends - i64::try_from(now.as_secs()).unwrap_or(i64::MAX)) / DAY;
    let said = format!(
        "{version}, verified for the endpoint's name, signed by {issuer}, {days} days left"
    );
    let outcome = match days < SOON {
        true => StepOutcome::warning(said).remedy(
            "Rotate the database's certificate (RDS: modify-db-instance --ca-certificate-identifier, which may restart the database).",
        ),
        false => StepOutcome::ok(said),
    };
    outcome
        .fact("verified_for", tls.host.clone())
        .fact("version", version)
        .fact("alpn", tls.alpn)
        .fact("subject", name(leaf.subject()))
        .fact("issuer", issuer)
        .fact("root", root)
        .fact("days_left", days)
}

/// Returns the common name, or the whole name if it has none.
fn name(of: &X509Name<'_>) -> String {
    let common = of.iter_common_name().next();
    let common = common.and_then(|name| name.as_str().ok());
    common.map_or_else(|| of.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::super::StepVerdict;
    use super::*;
    use crate::tls::roots::rds_roots;

    #[test]
    fn a_certificate_that_ends_soon_is_a_warning() {
        let root = &rds_roots()[0];
        let (_, parsed) = X509Certificate::from_der(root).unwrap();
        let ends = u64::try_from(parsed.validity().not_after.timestamp()).unwrap();
        let before = |days: u64| {
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(ends - days * 24 * 3600);
            let tls = VerifiedConnection {
                host: "orders".to_owned(),
                version: "TLSv1.3".to_owned(),
                alpn: true,
            };
            certificate(&tls, std::slice::from_ref(root), now)
        };
        let good = before(30);
        assert_eq!(good.verdict, StepVerdict::Ok);
        assert_eq!(good.facts["days_left"], 30);
        assert!(good.said.starts_with("TLS 1.3, verified"), "{}", good.said);
        assert!(good.said.ends_with("G1, 30 days left"), "{}", good.said);
        assert_eq!(before(29).verdict, StepVerdict::Warning);
    }

    #[test]
    fn memberships_are_told_apart() {
        for (rds_iam, superuser, verdict) in [
            (Some(true), false, StepVerdict::Ok),
            (Some(true), true, StepVerdict::Ok),
            (Some(false), false, StepVerdict::Warning),
            (None, false, StepVerdict::Skipped),
        ] {
            let outcome = memberships("me", rds_iam, superuser);
            assert_eq!(outcome.verdict, verdict);
            assert_eq!(outcome.detail.is_some(), superuser);
        }
    }
}
