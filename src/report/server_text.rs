//! Server errors that can be recognised only by their text: those of RDS Proxy and Aurora DSQL,
//! which have few SQLSTATEs, and those of PostgreSQL that share one.
//!
//! Sources: RDS User Guide, "Troubleshooting for RDS Proxy"; Aurora DSQL User Guide,
//! "Troubleshooting" and "Cluster quotas and database limits"; PostgreSQL's `auth.c`, `miscinit.c`,
//! `postinit.c` and `guc.c`. Texts are recognised by their distinctive words, because versions
//! differ in the others.

use super::message::checked_id;

/// Remedy for a recognised error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// This text.
    Hint(&'static str),
    /// The facts known about the token, and the permission that it needs.
    Token,
    /// Remove this startup parameter.
    RemoveParameter(String),
}

/// One text to recognise, with its cause and remedy.
struct ErrorText {
    /// Words that must all occur, in any case.
    words: &'static [&'static str],
    id: &'static str,
    remedy: RemedyRule,
}

enum RemedyRule {
    Hint(&'static str),
    Token,
    /// The parameter follows these words, with or without quotes around it.
    ParameterAfter(&'static str),
}

use RemedyRule::{Hint, ParameterAfter, Token};

const TEXTS: &[ErrorText] = &[
    // RDS Proxy.
    ErrorText {
        words: &["iam authentication", "only with ssl"],
        id: "rds-proxy.tls",
        remedy: Hint(TLS_TERMINATED),
    },
    ErrorText {
        words: &["rds proxy requires tls"],
        id: "rds-proxy.tls",
        remedy: Hint(TLS_TERMINATED),
    },
    ErrorText {
        words: &["iam authentication failed", "too many competing requests"],
        id: "rds-proxy.competing",
        remedy: Hint(
            "Connect again in a moment, and keep connections open in a pool: too many logins compete for IAM.",
        ),
    },
    ErrorText {
        words: &["iam authentication failed for the role"],
        id: "rds-proxy.login-refused",
        remedy: Token,
    },
    ErrorText {
        words: &["rds proxy has no credentials for the role"],
        id: "rds-proxy.no-credentials",
        remedy: Hint(
            "Add the role's secret to the proxy, which logs in to the database with it: `aws rds modify-db-proxy --db-proxy-name NAME --auth …` The list replaces the current one; include all entries. Or let the proxy log in with IAM (--default-auth-scheme IAM_AUTH). Role names are case-sensitive.",
        ),
    },
    ErrorText {
        words: &["password that was provided for the role", "wrong"],
        id: "rds-proxy.password",
        remedy: Hint(
            "If the target has auth = \"passthrough\", use the password in the role's secret. Otherwise set IAMAuth to REQUIRED for this secret, because the proxy requests a password instead of a token: `aws rds modify-db-proxy --db-proxy-name NAME --auth …` The list replaces the current one; include all entries.",
        ),
    },
    ErrorText {
        words: &["supports only iam, md5"],
        id: "rds-proxy.method",
        remedy: Hint(
            "The proxy does not support its configured authentication method. Check IAMAuth and ClientPasswordAuthType: `aws rds describe-db-proxies`",
        ),
    },
    ErrorText {
        words: &["user name is missing from the connection startup packet"],
        id: "rds-proxy.no-user",
        remedy: Hint(
            "Set a user name in the client (psql -U ROLE), or set user = \"ROLE\" for the target.",
        ),
    },
    ErrorText {
        words: &["supports only version 3.0", "protocol"],
        id: "rds-proxy.protocol",
        remedy: Hint(
            "Set host to the proxy's own name (….proxy-….rds.amazonaws.com), for which pgiam lowers the protocol version, or set max_protocol_version=3.0 in the client.",
        ),
    },
    ErrorText {
        words: &["support streaming replication mode"],
        id: "rds-proxy.replication",
        remedy: Hint(
            "Replicate from the instance or cluster itself: add a separate target with its endpoint as host and auth = \"passthrough\".",
        ),
    },
    ErrorText {
        words: &["rds proxy", "support command-line options"],
        id: "rds-proxy.option",
        remedy: Hint(
            "Remove options from the client (PGOPTIONS, or options= in the connection string), and SET the parameters after the login.",
        ),
    },
    ErrorText {
        words: &["rds proxy", "support the option"],
        id: "rds-proxy.option",
        remedy: ParameterAfter("support the option "),
    },
    ErrorText {
        words: &["maximum number of client connections", "proxy"],
        id: "rds-proxy.max-connections",
        remedy: Hint(
            "Close unused connections, or use a connection pool. The proxy's limit depends on the size of the database; the CloudWatch metric ClientConnections shows the connections.",
        ),
    },
    ErrorText {
        words: &["rate of connection", "proxy", "exceeded"],
        id: "rds-proxy.rate",
        remedy: Hint("Connect again in a moment, and keep connections open in a pool."),
    },
    ErrorText {
        words: &["waiting to acquire", "database connection"],
        id: "rds-proxy.no-connection",
        remedy: Hint(
            "Possible causes: the database does not answer the proxy; all connections of the proxy to the database are in use (raise MaxConnectionsPercent or ConnectionBorrowTimeout of its target group, or end long transactions). To see the state of the proxy's targets, run: `aws rds describe-db-proxy-targets --db-proxy-name NAME`",
        ),
    },
    // Aurora DSQL.
    ErrorText {
        words: &["unable to accept connection", "access denied"],
        id: "dsql.access-denied",
        remedy: Token,
    },
    ErrorText {
        words: &["unable to accept connection", "sni was not received"],
        id: "dsql.sni",
        remedy: Hint(
            "Set host to the cluster's own name, ID.dsql.REGION.on.aws: Aurora DSQL selects the cluster by this name.",
        ),
    },
    ErrorText {
        words: &["unable to accept connection", "rate exceeded"],
        id: "dsql.rate",
        remedy: Hint(
            "Connect again in a moment, and keep connections open in a pool (each lasts one hour at most). A cluster accepts 100 new connections a second.",
        ),
    },
    ErrorText {
        words: &["unable to accept connection", "too many open connections"],
        id: "dsql.max-connections",
        remedy: Hint(
            "Close unused connections, or use a connection pool. A cluster accepts 10,000 connections unless its quota was raised.",
        ),
    },
    ErrorText {
        words: &["setting configuration parameter", "not supported"],
        id: "dsql.parameter",
        remedy: ParameterAfter("setting configuration parameter "),
    },
    // PostgreSQL.
    ErrorText {
        words: &["unrecognized configuration parameter"],
        id: "database.parameter",
        remedy: ParameterAfter("unrecognized configuration parameter "),
    },
    ErrorText {
        words: &["unsupported startup parameter"],
        id: "database.parameter",
        remedy: ParameterAfter("unsupported startup parameter: "),
    },
    ErrorText {
        words: &["no pg_hba.conf entry for"],
        id: "database.no-pg-hba",
        remedy: Hint(NO_PG_HBA_RULE),
    },
    ErrorText {
        words: &["pg_hba.conf rejects"],
        id: "database.no-pg-hba",
        remedy: Hint(NO_PG_HBA_RULE),
    },
    ErrorText {
        words: &["role", "is not permitted to log in"],
        id: "database.no-login",
        remedy: Hint(
            "As an administrator, run: `ALTER ROLE … LOGIN;` Or log in as another role (psql -U ROLE).",
        ),
    },
    ErrorText {
        words: &["permission denied for database"],
        id: "database.no-connect",
        remedy: Hint(
            "As an administrator, run: `GRANT CONNECT ON DATABASE … TO …;` Or use another database (psql -d NAME).",
        ),
    },
    ErrorText {
        words: &["canceling authentication due to timeout"],
        id: "database.auth-timeout",
        remedy: Hint(
            "Connect again in a moment. Possible causes: the database is short of memory (IAM authentication needs 300 to 1000 MiB); more than about 200 new logins a second.",
        ),
    },
];

const TLS_TERMINATED: &str = "Set host to the proxy's own endpoint. Possible cause: a device between pgiam and the proxy that terminates TLS.";

const NO_PG_HBA_RULE: &str = "Possible causes on RDS (its pg_hba.conf accepts all addresses over TLS): a replication connection; host is not an RDS endpoint. On your own server, add a hostssl line for this user and database to pg_hba.conf, with the address of the bastion.";

/// Returns the cause of an error with this text, and its remedy. `None` if the text needs no
/// explanation, or if its SQLSTATE explains it.
pub(super) fn recognise(message: &str) -> Option<(&'static str, Remedy)> {
    // Published error texts contain either apostrophe.
    let message = message.replace('\u{2019}', "'");
    let text = message.to_ascii_lowercase();
    let matches = |known: &&ErrorText| known.words.iter().all(|word| text.contains(word));
    let found = TEXTS.iter().find(matches)?;
    let remedy = match found.remedy {
        Hint(hint) => Remedy::Hint(hint),
        Token => Remedy::Token,
        ParameterAfter(words) => Remedy::RemoveParameter(parameter(&message, &text, words)?),
    };
    Some((checked_id(found.id), remedy))
}

/// Returns the name in `message` that follows `words`, without quotes and without the final full
/// stop. `text` is `message` in lower case.
fn parameter(message: &str, text: &str, words: &str) -> Option<String> {
    let at = text.find(words)? + words.len();
    let name = message.get(at..)?.split_whitespace().next()?;
    let name = name.trim_matches(|c: char| !c.is_alphanumeric() && c != '_');
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_is_recognised_by_its_own_row() {
        for (message, id) in [
            (
                "IAM authentication is allowed only with SSL connections.",
                "rds-proxy.tls",
            ),
            ("This RDS Proxy requires TLS connections.", "rds-proxy.tls"),
            (
                "The IAM authentication failed because of too many competing requests.",
                "rds-proxy.competing",
            ),
            (
                "The IAM authentication failed for the role app. Check the IAM token for this role and try again.",
                "rds-proxy.login-refused",
            ),
            (
                "This RDS proxy has no credentials for the role app. Check the credentials for this role and try again.",
                "rds-proxy.no-credentials",
            ),
            (
                "The password that was provided for the role app is wrong.",
                "rds-proxy.password",
            ),
            (
                "RDS supports only IAM, MD5, or SCRAM authentication.",
                "rds-proxy.method",
            ),
            (
                "A user name is missing from the connection startup packet. Provide a user name for this connection.",
                "rds-proxy.no-user",
            ),
            (
                "Feature not supported: RDS Proxy supports only version 3.0 of the PostgreSQL messaging protocol.",
                "rds-proxy.protocol",
            ),
            (
                "Feature not supported: RDS Proxy currently doesn\u{2019}t support streaming replication mode.",
                "rds-proxy.replication",
            ),
            (
                "The maximum number of client connections to the proxy exceeded.",
                "rds-proxy.max-connections",
            ),
            ("Rate of connection to proxy exceeded.", "rds-proxy.rate"),
            (
                "Timed-out waiting to acquire database connection.",
                "rds-proxy.no-connection",
            ),
            (
                "unable to accept connection, access denied",
                "dsql.access-denied",
            ),
            (
                "unable to accept connection, sni was not received",
                "dsql.sni",
            ),
            ("Unable to accept connection, rate exceeded.", "dsql.rate"),
            (
                "Unable to accept connection, too many open connections.",
                "dsql.max-connections",
            ),
            (
                "no pg_hba.conf entry for host \"10.0.0.1\", user \"u\", database \"d\", no encryption",
                "database.no-pg-hba",
            ),
            (
                "pg_hba.conf rejects connection for host \"10.0.0.1\", user \"u\", database \"d\", SSL off",
                "database.no-pg-hba",
            ),
            ("role \"u\" is not permitted to log in", "database.no-login"),
            (
                "permission denied for database \"app\"",
                "database.no-connect",
            ),
            (
                "canceling authentication due to timeout",
                "database.auth-timeout",
            ),
        ] {
            assert_eq!(recognise(message).map(|(id, _)| id), Some(id), "{message}");
        }
        for message in [
            "",
            "password authentication failed for user \"role\"",
            "database \"the proxy\" does not exist",
        ] {
            assert_eq!(recognise(message), None, "{message}");
        }
    }

    #[test]
    fn the_parameter_to_leave_out_is_named() {
        for (message, name) in [
            (
                "Feature not supported: RDS Proxy currently doesn't support the option geqo.",
                "geqo",
            ),
            (
                "setting configuration parameter \"statement_timeout\" not supported",
                "statement_timeout",
            ),
            ("unrecognized configuration parameter \"My.own\"", "My.own"),
            ("unsupported startup parameter: search_path", "search_path"),
        ] {
            let (_, remedy) = recognise(message).unwrap();
            assert_eq!(
                remedy,
                Remedy::RemoveParameter(name.to_owned()),
                "{message}"
            );
        }
    }
}
