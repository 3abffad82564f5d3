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
        notes.push("The target has auth = \"passthrough\": its clients log in with passwords, and a role that has rds_iam cannot.".to_owned());
    }
    notes.push(format!(
        "Then this says whether all is in place: {}",
        facts.check()
    ));
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
-- Lets the role {shown} log in with IAM: for the target {target} of pgiam.
-- Run it as the master user, or as another role with rds_superuser; on a cluster, at the writer.
-- It can be run any number of times.
--
-- rds_iam takes precedence: from then on this role logs in with tokens only, and its password is
-- refused. Do not run this for the master user. Roles with rds_iam cannot start replication.

{create}
GRANT rds_iam TO {name};
GRANT CONNECT ON DATABASE {database} TO {name};

{reading}",
        shown = comment(&name),
        target = comment(&facts.target),
        create = create(role),
        reading = reading(&name),
    );
    let notes = vec![
        "Run it with psql or any other client, in the database of the target, as the master user or another role with rds_superuser; a first login as master needs a password, which passes through the same tunnel with auth = \"passthrough\".".to_owned(),
        "IAM authentication must be switched on: aws rds modify-db-cluster or modify-db-instance, with --enable-iam-database-authentication.".to_owned(),
    ];
    (text, notes)
}

fn proxy(facts: &SetupFacts, role: &str, gaps: &mut Placeholders) -> (String, Vec<String>) {
    let (name, database) = (identifier(role), database(facts, gaps));
    let text = format!(
        "\
-- The role {shown} for the target {target} of pgiam, which is an RDS Proxy.
-- Run it at the database behind the proxy, as the master user or another role with rds_superuser.
-- It can be run any number of times.

{create}
GRANT CONNECT ON DATABASE {database} TO {name};

-- You log in to the proxy with IAM. How the proxy then logs in to the database, it says itself:
--
--   aws rds describe-db-proxies --query \"DBProxies[].[DBProxyName, DefaultAuthScheme]\"
--
-- With a secret of Secrets Manager (Auth of the proxy names it): give the role the password that is
-- in the secret, with \\password in psql. It must not have rds_iam, which takes precedence over
-- passwords and would keep the proxy out.
--
-- With IAM (DefaultAuthScheme is IAM_AUTH, end-to-end IAM authentication): the role needs rds_iam,
-- and the proxy's own IAM role rds-db:connect on the database.
--
-- GRANT rds_iam TO {shown};

{reading}",
        shown = comment(&name),
        target = comment(&facts.target),
        create = create(role),
        reading = reading(&name),
    );
    let notes = vec![
        "The proxy must require IAM for this role: IAMAuth is REQUIRED in its Auth, or DefaultAuthScheme is IAM_AUTH.".to_owned(),
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
        "the database to open: database of the target, or --database; psql -l lists them".to_owned()
    });
    identifier(&database)
}

/// Returns the grants of a read-only role, commented out.
fn reading(name: &str) -> String {
    let name = comment(name);
    format!(
        "\
-- What the role may do there is up to you. To read all tables of the schema public, also those that
-- the role which runs this will make later:
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
-- Nothing to run for the target {target} of pgiam: every Aurora DSQL cluster has the role admin, and
-- whoever is allowed dsql:DbConnectAdmin (pgiam setup policy) may log in as admin.
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
            "the ARN of the IAM user or role that logs in: aws iam get-user, or aws iam get-role --role-name NAME, with --query \"[User, Role][].Arn\"".to_owned(),
        ),
    };
    let text = format!(
        "\
-- Lets an IAM identity log in as {shown}: for the target {target} of pgiam, an Aurora DSQL cluster.
-- Run it as admin, in the database {DSQL_DATABASE}.
--
-- DSQL has no DO blocks. When it is run again, CREATE ROLE fails because the role is there, and the
-- lines after it are run all the same (psql without ON_ERROR_STOP).

CREATE ROLE {name} WITH LOGIN;
AWS IAM GRANT {name} TO {arn};
GRANT USAGE ON SCHEMA public TO {name};

-- Who is allowed what:      SELECT * FROM sys.iam_pg_role_mappings;
-- To take it back:          AWS IAM REVOKE {shown} FROM {arn_shown};
-- To read all tables:       GRANT SELECT ON ALL TABLES IN SCHEMA public TO {shown};
",
        shown = comment(&name),
        target = comment(&facts.target),
        arn = literal(&arn),
        arn_shown = comment(&literal(&arn)),
    );
    let notes = vec![format!(
        "Run it as admin: a target with user = \"admin\", whose policy allows dsql:DbConnectAdmin, and pgiam. Others than yourself: AWS IAM GRANT takes the ARN of any IAM user or role, once for each; role {}.",
        comment(&name)
    )];
    (text, notes)
}
