//! Messages of faults and refusals, and the absence of secrets in them.

use crate::{FileInput, Files, Request, resolve};

fn parsed(config: &str, credentials: &str) -> Files {
    Files::parse(
        ("/h/config", FileInput::Contents(config.as_bytes())),
        (
            "/h/credentials",
            FileInput::Contents(credentials.as_bytes()),
        ),
    )
}

fn refusal(config: &str, credentials: &str) -> String {
    let request = Request {
        profile: Some("dev"),
        ..Request::default()
    };
    let result = resolve(&request, &|_| None, &parsed(config, credentials));
    result.unwrap_err().to_string()
}

#[test]
fn refusals_name_profile_file_and_line() {
    let sso =
        "[profile dev]\nsso_session = s\nsso_account_id = 1\n[sso-session s]\nsso_region = a\n";
    for (config, expected) in [
        ("", "profile \"dev\" does not exist (named by the request)"),
        (
            "[profile dev]\nregion = a\nRegion = b\n",
            "profile \"dev\" is unusable: /h/config:3: the section has the key \"region\" a second \
             time (first in line 2)",
        ),
        (
            "[profile dev]\n[profile dev]\n",
            "profile \"dev\" is unusable: /h/config:2: the section begins a second time (first in \
             line 1)",
        ),
        (
            "[profile dev]\nfoo\n",
            "profile \"dev\" is unusable: /h/config:2: the line has no \"=\" and is not a [section]",
        ),
        (
            "[profile dev]\nrole_arn = r\nsource_profile = gone\n",
            "the role of profile \"dev\" (/h/config:3): source_profile \"gone\" does not exist",
        ),
        (
            "[profile dev]\nrole_arn = r\n",
            "the role of profile \"dev\" (/h/config:2): source_profile or credential_source is \
             missing",
        ),
        (
            "[profile dev]\naws_access_key_id = X\n",
            "profile \"dev\" has aws_access_key_id, but no aws_secret_access_key in the same file \
             (/h/config:2)",
        ),
        (
            sso,
            "profile \"dev\" uses IAM Identity Center (/h/config:3), but it has no \
             sso_role_name and no sso_start_url",
        ),
        (
            "[profile dev]\ncredential_process = 'x\n",
            "credential_process of profile \"dev\" (/h/config:2): unbalanced quote or trailing \
             backslash",
        ),
        (
            "[profile dev]\nsso_session = s\n",
            "profile \"dev\" has sso_session (/h/config:2), but no complete source of credentials",
        ),
    ] {
        assert_eq!(refusal(config, ""), expected, "{config}");
    }
}

#[test]
fn secrets_are_neither_in_debug_output_nor_in_errors() {
    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    let whole = format!(
        "aws_access_key_id = X\naws_secret_access_key = {SECRET}\naws_session_token = {SECRET}\n\
         credential_process = p --password {SECRET}\n"
    );
    let faults = [
        String::new(),
        format!("{SECRET}\n"),
        format!("{SECRET}=\n{SECRET}=\n"),
        format!("= {SECRET}\n"),
        format!("s3 =\n  {SECRET}\n"),
        format!("aws_secret_access_key = {SECRET}\n"),
        "role_arn = r\n".to_owned(),
    ];
    let variable = |name: &str| match name {
        "AWS_ACCESS_KEY_ID" => Some("X".to_owned()),
        "AWS_SECRET_ACCESS_KEY" | "AWS_SESSION_TOKEN" => Some(SECRET.to_owned()),
        "AWS_CONTAINER_AUTHORIZATION_TOKEN" => Some(SECRET.to_owned()),
        _ => None,
    };
    for fault in &faults {
        for section in ["profile dev", "default"] {
            let text = format!("[{section}]\n{whole}{fault}");
            for files in [parsed(&text, ""), parsed("", &text), parsed("", &whole)] {
                let profile = Some("dev");
                for request in [
                    Request::default(),
                    Request {
                        profile,
                        ..Request::default()
                    },
                ] {
                    for variables in [&variable as crate::Variables<'_>, &|_| None] {
                        let shown = match resolve(&request, variables, &files) {
                            Ok(identity) => format!("{identity:?}"),
                            Err(error) => format!("{error:?} {error}"),
                        };
                        let problems: Vec<_> = files.problems().collect();
                        let shown = format!("{shown} {files:?} {problems:?}").to_lowercase();
                        assert!(!shown.contains(&SECRET.to_lowercase()), "{shown}");
                    }
                }
            }
        }
    }
}
