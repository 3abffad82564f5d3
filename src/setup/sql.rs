//! SQL that lets a database role log in with IAM. It can be run any number of times.

use super::{Artefact, Principal, SetupFacts};
use crate::base::quote::{comment, identifier, literal};
use crate::config::{Auth, EndpointKind};
use crate::setup::placeholders::{PREFIX, Placeholders};

/// The only database of every DSQL cluster.
const DSQL_DATABASE: &str = "postgres";
/// The administrator role of every DSQL cluster.
const DSQL_ADMIN: &str = "admin";

/// Returns the SQL.
#[must_use]
pub fn sql(facts: &SetupFacts) -> Artefact {
    let mut gaps = Placeholders::default();
    let role = facts.role(&mut gaps);
    let (text, mut notes) = match facts.kind() {
        Some(EndpointKind::Dsql) if role == DSQL_ADMIN => (dsql_admin(facts), Vec::new()),
        Some(EndpointKind::Dsql) => dsql(facts, &role, &mut gaps),
        Some(EndpointKind::Proxy) => proxy(facts, &role, &mut gaps),
        _ => rds(facts, &role, &mut gaps),
    };
    if facts.auth == Auth::Passthrough {
        notes.push("The target has auth = \"passthrough\": its clients log in with passwords, which does not work for roles that have rds_iam.".to_owned());
    }
    notes.push(format!("Then test the result: {}", facts.check()));
    notes.extend(gaps.notes());
    let text = inert(&text, facts.user.is_none());
    Artefact { text, notes }
}

/// Comments out the statements with a placeholder, so that none is run with it; or `all`
/// statements, if the role's name is a placeholder.
fn inert(text: &str, all: bool) -> String {
    let lines = text.lines().map(|line| match line {
        "" => "\n".to_owned(),
        line if line.starts_with("--") => format!("{line}\n"),
        line if all || line.contains(PREFIX) => format!("-- {line}\n"),
        line => format!("{line}\n"),
    });
    lines.collect()
}

fn rds(facts: &SetupFacts, role: &str, gaps: &mut Placeholders) -> (String, Vec<String>) {
    let (name, database) = (identifier(role), database(facts, gaps));
    let text = format!(
        "\
-- Allows the role {shown} to log in with IAM, for the pgiam target {target}.
-- Run it as the master user or another role with rds_superuser; on a cluster, at the writer.
-- It is safe to run more than once.
--
-- Do not run it for the master user. A role with rds_iam can log in only with tokens: the server
-- rejects its password. Such a role cannot start replication.

{create}
GRANT rds_iam TO {name};
GRANT CONNECT ON DATABASE {database} TO {name};

{reading}",
        shown = comment(&name),
        target = comment(&facts.target),
        create = create(role),
        reading = reading(&name),
    );
    let mut notes = vec![
        "Run it with psql or another client, in the database of the target, as the master user or another role with rds_superuser. The master user needs its password; with auth = \"passthrough\" it can log in through the same tunnel.".to_owned(),
    ];
    if facts.iam != Some(true) {
        notes.push("IAM authentication must be on: aws rds modify-db-cluster or modify-db-instance, with --enable-iam-database-authentication.".to_owned());
    }
    (text, notes)
}

fn proxy(facts: &SetupFacts, role: &str, gaps: &mut Placeholders) -> (String, Vec<String>) {
    let (name, database) = (identifier(role), database(facts, gaps));
    let text = format!(
        "\
-- Creates the role {shown} for the pgiam target {target}, which is an RDS Proxy.
-- Run it at the database behind the proxy, as the master user or another role with rds_superuser.
-- It is safe to run more than once.

{create}
GRANT CONNECT ON DATABASE {database} TO {name};

-- Clients log in to the proxy with IAM. To show how the proxy logs in to the database:
--
--   aws rds describe-db-proxies --query \"DBProxies[].[DBProxyName, DefaultAuthScheme]\"
--
-- With a secret of Secrets Manager (listed in Auth of the proxy): set the role's password to that of
-- the secret, with \\password in psql. The role must not have rds_iam: the database would reject the
-- proxy's password.
--
-- With IAM (DefaultAuthScheme is IAM_AUTH, end-to-end IAM authentication): the role needs rds_iam,
-- and the IAM role of the proxy needs rds-db:connect on the database.
--
-- GRANT rds_iam TO {shown};

{reading}",
        shown = comment(&name),
        target = comment(&facts.target),
        create = create(role),
        reading = reading(&name),
    );
    let notes = vec![
        "The proxy must require IAM for this role: IAMAuth must be REQUIRED in its Auth, or DefaultAuthScheme must be IAM_AUTH.".to_owned(),
    ];
    (text, notes)
}

/// Creates the role unless it exists. `CREATE USER` itself has no IF NOT EXISTS.
fn create(role: &str) -> String {
    let (name, text) = (identifier(role), literal(role));
    let body = format!(
        "
BEGIN
  IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = {text}) THEN
    CREATE USER {name};
  ELSIF NOT (SELECT rolcanlogin FROM pg_catalog.pg_roles WHERE rolname = {text}) THEN
    ALTER ROLE {name} LOGIN;
  END IF;
END
"
    );
    // A name may contain the tag that ends the body.
    let mut mark = "$pgiam$".to_owned();
    while body.contains(&mark) {
        mark.insert(1, '_');
    }
    format!("DO {mark}{body}{mark};")
}

fn database(facts: &SetupFacts, gaps: &mut Placeholders) -> String {
    let database = gaps.fill(facts.database.as_deref(), "DATABASE", || {
        "the database to connect to; set database for the target, or --database; psql -l lists the databases".to_owned()
    });
    identifier(&database)
}

/// Returns the grants of a read-only role, commented out.
fn reading(name: &str) -> String {
    let name = comment(name);
    format!(
        "\
-- Grant the role the privileges that it needs. For example, to read all tables of the schema public,
-- including those that the current role creates later:
--
-- GRANT USAGE ON SCHEMA public TO {name};
-- GRANT SELECT ON ALL TABLES IN SCHEMA public TO {name};
-- ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO {name};
"
    )
}

fn dsql_admin(facts: &SetupFacts) -> String {
    format!(
        "\
-- Nothing to run for the pgiam target {target}: every Aurora DSQL cluster has the role admin, and
-- dsql:DbConnectAdmin (pgiam setup policy) allows an IAM identity to log in as admin.
",
        target = comment(&facts.target)
    )
}

fn dsql(facts: &SetupFacts, role: &str, gaps: &mut Placeholders) -> (String, Vec<String>) {
    let name = identifier(role);
    let arn = match &facts.principal {
        Principal::User { arn } => arn.clone(),
        Principal::Role { name } => gaps.open(
            "IAM_ARN",
            format!(
                "aws iam get-role{} --role-name {} --query Role.Arn --output text",
                facts.options(),
                crate::base::quote::shell(name)
            ),
        ),
        Principal::Unknown => gaps.open(
            "IAM_ARN",
            "use the ARN of the IAM user or role that logs in: aws iam get-user, or aws iam get-role --role-name NAME, with --query \"[User, Role][].Arn\"".to_owned(),
        ),
    };
    let text = format!(
        "\
-- Allows an IAM identity to log in as {shown}, for the pgiam target {target}, an Aurora DSQL cluster.
-- Run it as admin, in the database {DSQL_DATABASE}.
--
-- DSQL has no DO blocks: if the role exists, CREATE ROLE fails, and psql without ON_ERROR_STOP
-- continues with the lines after it.

CREATE ROLE {name} WITH LOGIN;
AWS IAM GRANT {name} TO {arn};
GRANT USAGE ON SCHEMA public TO {name};

-- To list the mappings:     SELECT * FROM sys.iam_pg_role_mappings;
-- To revoke the mapping:    AWS IAM REVOKE {shown} FROM {arn_shown};
-- To read all tables:       GRANT SELECT ON ALL TABLES IN SCHEMA public TO {shown};
",
        shown = comment(&name),
        target = comment(&facts.target),
        arn = literal(&arn),
        arn_shown = comment(&literal(&arn)),
    );
    let notes = vec![format!(
        "Run it as admin: through a target with user = \"admin\" and a policy that allows dsql:DbConnectAdmin. To allow other IAM users or roles to log in as {}, run AWS IAM GRANT once with the ARN of each.",
        comment(&name)
    )];
    (text, notes)
}
