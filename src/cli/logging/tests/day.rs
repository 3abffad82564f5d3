//! A day of a running pgiam, as people see it.

use super::*;

/// Starts the span of a connection.
fn connection(program: &str, target: &str, user: &str, database: &str) -> Span {
    info_span!(
        "conn",
        peer = "127.0.0.1:40123",
        program,
        target,
        user,
        database
    )
}

fn ready(total_ms: f64) {
    info!(
        startup_ms = 1.2,
        token_ms = 4.0,
        tunnel_ms = 0.3,
        tls_ms = 20.0,
        login_ms = 31.0,
        total_ms,
        tls = "TLSv1.3",
        "connection ready"
    );
}

fn day() {
    let session = ("i-0123456789abcdef0", "dev-0a1b2c3d4e5f");
    info!(
        variables = "PGIAM_FOO, PGIAM_BAR",
        "ignored unknown variables"
    );
    info!(
        target = "orders",
        endpoint = "orders.cluster-abc.eu-central-1.rds.amazonaws.com:5432",
        "found RDS cluster orders"
    );
    info!(
        bastion = session.0,
        session_id = session.1,
        start_ms = 1234.5,
        "SSM session established"
    );
    connection("psql", "orders", "db_user", "app").in_scope(|| ready(312.4));
    connection("DBeaver 24.1.0 - Main", "orders", "db_user", "app").in_scope(|| ready(41.0));
    connection("pgAdmin 4 - CONN:1234567", "billing", "admin", "postgres")
        .in_scope(|| ready(1234.0));
    connection("", "orders", "db_user", "app").in_scope(|| {
        ready(9.0);
        info!(
            by = "client",
            reason = "",
            sent = 120_u64,
            received = 45_678_u64,
            seconds = 12_u64,
            "connection ended"
        );
        debug!(
            from = 1024,
            to = 4096,
            "raised the limit of file descriptors"
        );
    });
    connection("psql", "orders", "app", "app").in_scope(|| {
        warn!(
            id = "database.no-rds-iam",
            sqlstate = "28000",
            reason = "target \"orders\": role \"app\" is not set up for IAM login",
            detail = "The database requests SASL (SCRAM-SHA-256) instead of a clear-text password, as it does for roles that do not exist or do not have rds_iam. No token was sent.",
            hint = "As an administrator, run: GRANT rds_iam TO \"app\"; The role can then log in only with tokens, not with its password. Never run this for the master user; use a separate role (pgiam setup sql --user ROLE prints the SQL).",
            "connection failed"
        );
    });
    warn!(
        bastion = session.0,
        session_id = session.1,
        reason = "the connection was closed",
        "connection to the SSM service lost; resuming the session"
    );
    info!(
        bastion = session.0,
        session_id = session.1,
        after_ms = 2500,
        "SSM session resumed"
    );
    info!(
        id = "ssm.ended",
        bastion = session.0,
        session_id = session.1,
        reason = "the agent ended the session",
        "SSM session ended"
    );
    connection("DBeaver 24.1.0 - Main", "orders", "db_user", "app").in_scope(|| {
        warn!(
            id = "session.lost",
            by = "server",
            reason = "the SSM session ended",
            hint = "Connect again: pgiam opens a new session.",
            sent = 12_u64,
            received = 999_u64,
            seconds = 3725_u64,
            "connection ended"
        );
    });
    evening();
}

/// The second half of the day.
fn evening() {
    info!(
        file = "/home/ana/pgiam.toml",
        "the configuration has changed; reloading it"
    );
    error!(
        reason = "/home/ana/pgiam.toml is not a valid configuration:\nline 3: unknown key hots\nhint: did you mean host?",
        "cannot reload the configuration; keeping the running configuration"
    );
    info!(targets = 2, kept = 1, "reloaded the configuration");
    warn!(
        name = "orders",
        id = "aws.expired",
        reason = "target \"orders\": the AWS credentials have expired",
        hint = "AWS reports that the credentials of profile dev have expired. Run: pgiam login dev (or renew the profile's keys). No restart is needed.",
        "the target is not ready; retrying"
    );
    info!(session = "corp", at = "17:30", "the SSO session ends soon");
    info!(session = "corp", until = "23:59", "logged in to AWS");
    info!(name = "orders", "the target is ready again");
    info_span!("conn", peer = "127.0.0.1:40124").in_scope(|| {
        info!(
            id = "client.gone",
            sqlstate = "",
            reason = "the client closed the connection during startup",
            "connection failed"
        );
        info!(pid = 4711, "delivered a cancel request");
    });
    info!(signal = "SIGTERM", "stopping");
    info!(connections = 1, grace_s = 5, "waiting for open connections");
    info!("stopped");
}

#[test]
fn a_day_at_60_columns() {
    insta::assert_snapshot!(for_people(at_terminal(60), false, day));
}

#[test]
fn a_day_at_80_columns() {
    insta::assert_snapshot!(for_people(at_terminal(80), false, day));
}

#[test]
fn a_day_at_120_columns() {
    insta::assert_snapshot!(for_people(at_terminal(120), false, day));
}

#[test]
fn a_day_at_200_columns_with_each_step() {
    insta::assert_snapshot!(for_people(at_terminal(200), true, day));
}

#[test]
fn a_day_in_a_file() {
    insta::assert_snapshot!(for_people(IN_A_FILE, false, day));
}

#[test]
fn a_day_on_a_simple_terminal() {
    let simple = Look {
        unicode: false,
        ..at_terminal(80)
    };
    let text = for_people(simple, false, || {
        connection("psql", "orders", "db_user", "app").in_scope(|| ready(312.4));
        warn!(
            name = "orders",
            reason = "no answer",
            hint = "Wait.",
            "the target is not ready; retrying"
        );
        info!("stopped");
    });
    assert_eq!(
        text,
        "14:03:21 + orders  psql as db_user to app  312 ms\n\
         14:03:21 x orders  not ready; retrying: no answer\n           -> Wait.\n\
         14:03:21 - stopped\n"
    );
}

#[test]
fn lines_fit_the_terminal_and_commands_stay_whole() {
    for width in [40, 60, 61, 79, 80, 100, 120, 200] {
        let text = for_people(at_terminal(width), false, day);
        for line in text.lines() {
            let is_command = line.contains("GRANT rds_iam") || line.contains("pgiam login dev");
            // A short command in a sentence stays in one piece.
            let is_word = !line.trim().contains(' ') || line.contains("(pgiam setup sql");
            assert!(
                terminal::columns(line) <= width || is_command || is_word,
                "{width}: {line:?}"
            );
        }
        for command in ["  GRANT rds_iam TO \"app\";", "  pgiam login dev"] {
            assert!(text.lines().any(|line| line.ends_with(command)), "{text}");
        }
    }
}

#[test]
fn colours_change_nothing_else() {
    let coloured = Look {
        colours: true,
        ..at_terminal(80)
    };
    let text = for_people(coloured, false, day);
    let plain = anstream::adapter::strip_str(&text).to_string();
    assert_eq!(plain, for_people(at_terminal(80), false, day));
    assert!(text.contains("\u{1b}[32m✓"), "{text}");
}
