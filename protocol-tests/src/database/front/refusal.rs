//! What each kind of front refuses, and in which words.

use super::FrontKind;
use crate::aws::iam::TokenRefusal;

/// An ErrorResponse as the front sends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerError {
    /// Five characters of SQLSTATE.
    pub code: String,
    /// Primary message.
    pub message: String,
    /// Suggestion, when there is one.
    pub hint: Option<String>,
    /// File, line and function of the server's source that the fields F, L and R name.
    place: Option<(&'static str, u16, &'static str)>,
}

impl ServerError {
    /// A fatal error without a hint.
    pub fn new(code: &str, message: impl Into<String>) -> Self {
        Self {
            code: code.to_owned(),
            message: message.into(),
            hint: None,
            place: None,
        }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    fn place(mut self, file: &'static str, line: u16, function: &'static str) -> Self {
        self.place = Some((file, line, function));
        self
    }

    /// 57P03 of a server that recovers or is on its way up.
    pub fn starting_up() -> Self {
        Self::new("57P03", "the database system is starting up").place(
            "backend_startup.c",
            343,
            "BackendInitialize",
        )
    }

    /// 53300 of a server whose `max_connections` are taken.
    pub fn too_many_clients() -> Self {
        Self::new("53300", "sorry, too many clients already").place("proc.c", 363, "InitProcess")
    }

    /// 28000 in the words of an RDS instance: it checks tokens by way of PAM.
    pub fn pam(user: &str) -> Self {
        let text = format!("PAM authentication failed for user \"{user}\"");
        Self::new("28000", text).place("auth.c", 331, "auth_failed")
    }

    /// The message on the wire (PostgreSQL manual, "Error and Notice Message Fields").
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut fields = vec![
            (b'S', "FATAL".to_owned()),
            (b'V', "FATAL".to_owned()),
            (b'C', self.code.clone()),
            (b'M', self.message.clone()),
        ];
        fields.extend(self.hint.clone().map(|hint| (b'H', hint)));
        if let Some((file, line, function)) = self.place {
            fields.push((b'F', file.to_owned()));
            fields.push((b'L', line.to_string()));
            fields.push((b'R', function.to_owned()));
        }
        let mut body = Vec::new();
        for (field, text) in fields {
            body.push(field);
            body.extend(text.as_bytes());
            body.push(0);
        }
        body.push(0);
        let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
        [&b"E"[..], &length.to_be_bytes(), &body].concat()
    }
}

/// What a front looks at before it asks for a password.
pub(super) struct Login<'a> {
    pub(super) version: (u16, u16),
    pub(super) parameters: &'a [(String, String)],
    pub(super) tls: bool,
    /// The name in the ClientHello.
    pub(super) server_name: Option<&'a str>,
}

impl Login<'_> {
    /// The last value counts, as in the server.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let mut all = self.parameters.iter().rev();
        all.find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn user(&self) -> &str {
        self.get("user").unwrap_or_default()
    }

    fn replication(&self) -> bool {
        let value = self.get("replication").unwrap_or("false");
        !["false", "off", "no", "0"].contains(&value)
    }

    /// Names of settings that come inside of `options`.
    fn option_names(&self) -> Vec<String> {
        let mut words = self.get("options").unwrap_or_default().split_whitespace();
        let mut names = Vec::new();
        while let Some(word) = words.next() {
            let setting = match word {
                "-c" => words.next(),
                _ => word.strip_prefix("--").or(word.strip_prefix("-c")),
            };
            let name = setting.and_then(|s| s.split('=').next());
            names.extend(name.map(|name| name.replace('-', "_")));
        }
        names
    }
}

/// Why this login goes no further, before anybody has proved who they are.
pub(super) fn before_password(kind: FrontKind, login: &Login<'_>) -> Option<ServerError> {
    if login.version.0 != 3 {
        let (major, minor) = login.version;
        let text =
            format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2");
        return Some(ServerError::new("0A000", text));
    }
    match kind {
        FrontKind::Instance => instance(login),
        FrontKind::RdsProxy => rds_proxy(login),
        FrontKind::Dsql => dsql(login),
    }
}

/// `rds.force_ssl`: an instance has no rule for connections without TLS.
fn instance(login: &Login<'_>) -> Option<ServerError> {
    if login.user().is_empty() {
        return Some(ServerError::new(
            "28000",
            "no PostgreSQL user name specified in startup packet",
        ));
    }
    if login.tls {
        return None;
    }
    let text = format!(
        "no pg_hba.conf entry for host \"127.0.0.1\", user \"{}\", database \"{}\", no encryption",
        login.user(),
        login.get("database").unwrap_or(login.user()),
    );
    Some(ServerError::new("28000", text).place("auth.c", 534, "ClientAuthentication"))
}

/// Settings RDS Proxy keeps track of, so that it takes them from a startup packet.
const PROXY_OPTIONS: [&str; 9] = [
    "user",
    "database",
    "replication",
    "application_name",
    "client_encoding",
    "datestyle",
    "extra_float_digits",
    "intervalstyle",
    "timezone",
];

/// The texts are those of the chapter "Troubleshooting for RDS Proxy" of the RDS User Guide, with the
/// apostrophe that users have quoted from real answers. It names no SQLSTATE; 0A000 for "Feature not
/// supported" was seen, 28000 is a guess.
fn rds_proxy(login: &Login<'_>) -> Option<ServerError> {
    let unsupported =
        |what: &str| ServerError::new("0A000", format!("Feature not supported: RDS Proxy {what}"));
    if login.version.1 > 0 {
        return Some(unsupported(
            "supports only version 3.0 of the PostgreSQL messaging protocol.",
        ));
    }
    if !login.tls {
        return Some(ServerError::new(
            "28000",
            "This RDS Proxy requires TLS connections.",
        ));
    }
    if login.user().is_empty() {
        return Some(ServerError::new(
            "28000",
            "A user name is missing from the connection startup packet. Provide a user name for \
             this connection.",
        ));
    }
    if login.replication() {
        return Some(unsupported(
            "currently doesn\u{2019}t support streaming replication mode.",
        ));
    }
    let (name, _) = login
        .parameters
        .iter()
        .find(|(name, _)| !PROXY_OPTIONS.contains(&name.to_ascii_lowercase().as_str()))?;
    Some(match name.as_str() {
        "options" => unsupported("currently doesn\u{2019}t support command-line options."),
        _ => unsupported(&format!(
            "currently doesn\u{2019}t support the option {name}."
        )),
    })
}

/// "Supported session parameters" in the chapter "Accessing Aurora DSQL" of its user guide, as far
/// as the server behind the front knows them, and what is no setting.
const DSQL_OPTIONS: [&str; 19] = [
    "user",
    "database",
    "options",
    "application_name",
    "client_encoding",
    "datestyle",
    "extra_float_digits",
    "intervalstyle",
    "timezone",
    "search_path",
    "enable_bitmapscan",
    "enable_hashjoin",
    "enable_indexonlyscan",
    "enable_indexscan",
    "enable_material",
    "enable_mergejoin",
    "enable_nestloop",
    "enable_seqscan",
    "disable_sync_create_index",
];

/// The name that Aurora DSQL tells its clusters by has to come in the ClientHello; a connection
/// without TLS has none (chapter "Troubleshooting" of its user guide).
fn dsql(login: &Login<'_>) -> Option<ServerError> {
    if login.server_name.is_none() {
        return Some(ServerError::new(
            "08006",
            "unable to accept connection, sni was not received",
        ));
    }
    let direct = login.parameters.iter().map(|(name, _)| name.clone());
    let name = direct.chain(login.option_names()).find(|name| {
        !name.starts_with("_pq_.") && !DSQL_OPTIONS.contains(&name.to_ascii_lowercase().as_str())
    })?;
    let text = format!("setting configuration parameter \"{name}\" not supported");
    Some(ServerError::new("0A000", text))
}

/// A token that did not open the door. Only Aurora DSQL tells why, in a hint.
pub(super) fn wrong_token(kind: FrontKind, user: &str, refusal: &TokenRefusal) -> ServerError {
    match kind {
        FrontKind::Instance => ServerError::pam(user),
        FrontKind::RdsProxy => ServerError::new(
            "28000",
            format!(
                "The IAM authentication failed for the role {user}. Check the IAM token for this \
                 role and try again."
            ),
        ),
        FrontKind::Dsql => dsql_denied(user, refusal),
    }
}

/// The codes and the beginnings of the hints were seen in answers of real clusters: 08006 with a hint
/// when IAM says no, 28000 without one when the role is not associated with the signer.
fn dsql_denied(user: &str, refusal: &TokenRefusal) -> ServerError {
    let text = "unable to accept connection, access denied";
    let hint = match refusal {
        TokenRefusal::NotAssociated { .. } => return ServerError::new("28000", text),
        TokenRefusal::Expired(late) => format!("Signature expired: {late} s ago"),
        TokenRefusal::CredentialsExpired => {
            "The security token included in the request is expired".to_owned()
        }
        TokenRefusal::WrongAction { signed, .. } => {
            format!("Wrong user to action mapping. user: {user}, action: {signed}")
        }
        TokenRefusal::NotAuthorized { arn, action, .. } => {
            format!("User: {arn} is not authorized to perform: {action}")
        }
        TokenRefusal::UnknownKey(_)
        | TokenRefusal::SessionTokenMissing
        | TokenRefusal::SessionTokenWrong => {
            "The security token included in the request is invalid.".to_owned()
        }
        _ => "The request signature we calculated does not match the signature you provided."
            .to_owned(),
    };
    ServerError::new("08006", text).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(kind: FrontKind, minor: u16, tls: bool, given: &[(&str, &str)]) -> Option<String> {
        let parameters: Vec<_> = given
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let login = Login {
            version: (3, minor),
            parameters: &parameters,
            tls,
            server_name: tls.then_some("db.example"),
        };
        before_password(kind, &login).map(|e| format!("{} {}", e.code, e.message))
    }

    #[test]
    fn rds_proxy_takes_little() {
        let judge = |minor, tls, given: &[_]| refusal(FrontKind::RdsProxy, minor, tls, given);
        let me = ("user", "me");
        let jdbc = [
            me,
            ("database", "app"),
            ("client_encoding", "UTF8"),
            ("DateStyle", "ISO"),
            ("TimeZone", "UTC"),
            ("extra_float_digits", "2"),
        ];
        assert_eq!(judge(0, true, &jdbc), None);
        for (minor, tls, given, expected) in [
            (
                2,
                true,
                vec![me],
                "0A000 Feature not supported: RDS Proxy supports only version 3.0",
            ),
            (
                0,
                false,
                vec![me],
                "28000 This RDS Proxy requires TLS connections.",
            ),
            (0, true, vec![], "28000 A user name is missing"),
            (
                0,
                true,
                vec![me, ("replication", "database")],
                "streaming replication mode.",
            ),
            (
                0,
                true,
                vec![me, ("options", "-c a=b")],
                "command-line options.",
            ),
            (0, true, vec![me, ("_pq_.x", "1")], "the option _pq_.x."),
            (
                0,
                true,
                vec![me, ("ssl_renegotiation_limit", "0")],
                "limit.",
            ),
        ] {
            let said = judge(minor, tls, &given).unwrap();
            assert!(said.contains(expected), "{said}");
        }
        assert_eq!(judge(0, true, &[me, ("replication", "false")]), None);
    }

    #[test]
    fn dsql_takes_the_settings_of_its_list_and_names_the_others() {
        let judge = |given: &[_]| refusal(FrontKind::Dsql, 0, true, given);
        let listed = [
            ("user", "admin"),
            (
                "options",
                "-c search_path=a -cextra_float_digits=3 --enable-seqscan=off",
            ),
        ];
        assert_eq!(judge(&listed), None);
        for (name, value, unknown) in [
            ("statement_timeout", "1", "statement_timeout"),
            (
                "options",
                "-c default_transaction_read_only=on",
                "default_transaction_read_only",
            ),
            ("options", "--work-mem=1MB", "work_mem"),
            ("replication", "database", "replication"),
        ] {
            assert_eq!(
                judge(&[("user", "admin"), (name, value)]).unwrap(),
                format!("0A000 setting configuration parameter \"{unknown}\" not supported")
            );
        }
        let plain = refusal(FrontKind::Dsql, 0, false, &[("user", "admin")]).unwrap();
        assert!(plain.ends_with("sni was not received"), "{plain}");
    }

    #[test]
    fn an_instance_wants_tls_and_a_user() {
        let judge = |tls, given: &[_]| refusal(FrontKind::Instance, 2, tls, given);
        assert_eq!(judge(true, &[("user", "me"), ("anything", "goes")]), None);
        let said = judge(false, &[("user", "me")]).unwrap();
        assert!(
            said.ends_with("user \"me\", database \"me\", no encryption"),
            "{said}"
        );
        assert!(
            judge(true, &[])
                .unwrap()
                .starts_with("28000 no PostgreSQL user name")
        );
    }

    #[test]
    fn errors_have_the_fields_of_a_server() {
        let raw = ServerError::pam("u").encode();
        let text = String::from_utf8_lossy(&raw[5..]).replace('\0', "|");
        assert_eq!(
            text,
            "SFATAL|VFATAL|C28000|MPAM authentication failed for user \"u\"|Fauth.c|L331|\
             Rauth_failed||"
        );
        assert_eq!(usize::from(raw[4]), raw.len() - 1);
    }
}
