//! Variables, the order of the sources, roles and Identity Center, against recorded answers of AWS
//! CLI 2.36.

use super::cases::{Case, Deviation};

const KEYS: &str = "AWS_ACCESS_KEY_ID=E";
const SECRET: &str = "AWS_SECRET_ACCESS_KEY=S";
const CONTAINER: &str = "AWS_CONTAINER_CREDENTIALS_FULL_URI=http://127.0.0.1/c";
/// `[default]` with the keys X, `[profile one]` with the keys X2.
const BOTH: &str = "[default]\n{K}[profile one]\n{K2}[profile two]\naws_access_key_id = X3\n\
                    aws_secret_access_key = S\n";
const ROLE: &str = "[default]\n{K}[profile dev]\nrole_arn = r\nsource_profile = default\n";

pub(super) const fn environment(
    name: &'static str,
    variables: &'static [&'static str],
    config: &'static str,
    cli: &'static str,
) -> Case {
    Case {
        name,
        config,
        credentials: "",
        profile: None,
        variables,
        cli,
    }
}

pub(super) const fn option(
    name: &'static str,
    profile: &'static str,
    variables: &'static [&'static str],
    config: &'static str,
    cli: &'static str,
) -> Case {
    Case {
        profile: Some(profile),
        ..environment(name, variables, config, cli)
    }
}

/// A case with the profile `dev` of the config file.
pub(super) const fn dev(name: &'static str, config: &'static str, cli: &'static str) -> Case {
    option(name, "dev", &[], config, cli)
}

pub(super) const fn credentials(
    name: &'static str,
    config: &'static str,
    credentials: &'static str,
    cli: &'static str,
) -> Case {
    Case {
        credentials,
        ..dev(name, config, cli)
    }
}

const ENVIRONMENT: &[Case] = &[
    environment(
        "AWS_DEFAULT_PROFILE",
        &["AWS_DEFAULT_PROFILE=two"],
        BOTH,
        "X3",
    ),
    environment(
        "both profile variables",
        &["AWS_PROFILE=one", "AWS_DEFAULT_PROFILE=two"],
        BOTH,
        "X2",
    ),
    environment(
        "empty AWS_PROFILE",
        &["AWS_PROFILE="],
        BOTH,
        "no such profile",
    ),
    environment(
        "AWS_PROFILE with a blank",
        &["AWS_PROFILE= one"],
        BOTH,
        "no such profile",
    ),
    environment(
        "missing AWS_PROFILE with keys",
        &["AWS_PROFILE=gone", KEYS, SECRET],
        BOTH,
        "no such profile",
    ),
    environment(
        "AWS_PROFILE with keys",
        &["AWS_PROFILE=one", KEYS, SECRET],
        BOTH,
        "env E",
    ),
    option("--profile with keys", "one", &[KEYS, SECRET], BOTH, "X2"),
    option(
        "--profile default with keys",
        "default",
        &[KEYS, SECRET],
        BOTH,
        "X",
    ),
    option("empty --profile", "", &["AWS_PROFILE=one"], BOTH, "X2"),
    environment("key ID only", &[KEYS], BOTH, "error"),
    environment("secret only", &[SECRET], BOTH, "X"),
    environment(
        "both keys empty",
        &["AWS_ACCESS_KEY_ID=", "AWS_SECRET_ACCESS_KEY="],
        BOTH,
        "X",
    ),
    environment(
        "both keys blank",
        &["AWS_ACCESS_KEY_ID= ", "AWS_SECRET_ACCESS_KEY= "],
        BOTH,
        "env  ",
    ),
    environment(
        "SECRET_ACCESS_KEY",
        &[KEYS, "SECRET_ACCESS_KEY=S"],
        BOTH,
        "error",
    ),
    environment(
        "AWS_SECURITY_TOKEN",
        &[KEYS, SECRET, "AWS_SECURITY_TOKEN=T"],
        BOTH,
        "env E token T",
    ),
    environment(
        "both token variables",
        &[KEYS, SECRET, "AWS_SECURITY_TOKEN=T", "AWS_SESSION_TOKEN=T2"],
        BOTH,
        "env E token T",
    ),
    environment(
        "empty AWS_SECURITY_TOKEN",
        &[KEYS, SECRET, "AWS_SECURITY_TOKEN=", "AWS_SESSION_TOKEN=T2"],
        BOTH,
        "env E token T2",
    ),
    environment(
        "token with blanks",
        &[KEYS, SECRET, "AWS_SESSION_TOKEN= T "],
        BOTH,
        "env E token  T ",
    ),
    environment(
        "expired keys",
        &[
            KEYS,
            SECRET,
            "AWS_CREDENTIAL_EXPIRATION=2020-01-01T00:00:00Z",
        ],
        BOTH,
        "error",
    ),
    environment(
        "keys with an invalid date",
        &[KEYS, SECRET, "AWS_CREDENTIAL_EXPIRATION=soon"],
        BOTH,
        "error",
    ),
    environment(
        "keys that expire later",
        &[
            KEYS,
            SECRET,
            "AWS_CREDENTIAL_EXPIRATION=2099-01-01T00:00:00-0500",
        ],
        BOTH,
        "env E",
    ),
    environment(
        "broken default with keys",
        &[KEYS, SECRET],
        "[default]\nfoo\n",
        "file error",
    ),
    environment(
        "duplicate section with keys",
        &[KEYS, SECRET],
        "[default]\n[default]\n",
        "file error",
    ),
    environment(
        "broken AWS_PROFILE with keys",
        &[KEYS, SECRET, "AWS_PROFILE=dev"],
        "[profile dev]\nfoo\n",
        "file error",
    ),
    environment(
        "AWS_REGION and AWS_DEFAULT_REGION",
        &["AWS_REGION=a", "AWS_DEFAULT_REGION=b"],
        "[default]\n{K}region = c\n",
        "X, region a",
    ),
    environment(
        "AWS_DEFAULT_REGION",
        &["AWS_DEFAULT_REGION=b"],
        "[default]\n{K}region = c\n",
        "X, region b",
    ),
    environment(
        "empty AWS_REGION",
        &["AWS_REGION=", "AWS_DEFAULT_REGION=b"],
        BOTH,
        "X, region ",
    ),
];

const WEB: &[&str] = &["AWS_WEB_IDENTITY_TOKEN_FILE=/t", "AWS_ROLE_ARN=w"];

const WEB_IDENTITY: &[Case] = &[
    environment("web identity and default keys", WEB, BOTH, "web /t > w"),
    environment(
        "web identity and AWS_PROFILE",
        &[
            "AWS_WEB_IDENTITY_TOKEN_FILE=/t",
            "AWS_ROLE_ARN=w",
            "AWS_PROFILE=one",
        ],
        BOTH,
        "web /t > w",
    ),
    option("web identity and --profile", "one", WEB, BOTH, "X2"),
    environment(
        "web identity and a role of AWS_PROFILE",
        &[
            "AWS_WEB_IDENTITY_TOKEN_FILE=/t",
            "AWS_ROLE_ARN=w",
            "AWS_PROFILE=dev",
        ],
        ROLE,
        "X > r",
    ),
    environment(
        "role of the variable, token file of the profile",
        &["AWS_ROLE_ARN=w", "AWS_ROLE_SESSION_NAME=n"],
        "[default]\nweb_identity_token_file = /p\n",
        "web /p > w n",
    ),
    environment("AWS_ROLE_ARN alone", &["AWS_ROLE_ARN=w"], BOTH, "X"),
    environment(
        "token file without role",
        &["AWS_WEB_IDENTITY_TOKEN_FILE=/t"],
        BOTH,
        "error",
    ),
    environment(
        "empty token file variable",
        &["AWS_WEB_IDENTITY_TOKEN_FILE=", "AWS_ROLE_ARN=w"],
        BOTH,
        "X",
    ),
    dev(
        "web identity of the profile",
        "[profile dev]\nrole_arn = r\nweb_identity_token_file = /p\nrole_session_name = n\n",
        "web /p > r n",
    ),
    dev(
        "web identity of the profile with source_profile",
        "[profile dev]\nrole_arn = r\nweb_identity_token_file = /p\nsource_profile = gone\n",
        "web /p > r",
    ),
    dev(
        "web identity as a source",
        "[profile dev]\nrole_arn = r\nsource_profile = web\n[profile web]\nrole_arn = w\n\
         web_identity_token_file = /p\n",
        "web /p > w > r",
    ),
    dev(
        "empty token file",
        "[profile dev]\nrole_arn = r\nweb_identity_token_file =\n",
        "no credentials",
    ),
];

const MACHINE: &[Case] = &[
    environment("container and default keys", &[CONTAINER], BOTH, "X"),
    option(
        "container and a profile with a region only",
        "dev",
        &[CONTAINER],
        "[profile dev]\nregion = a\n",
        "container full http://127.0.0.1/c, region a",
    ),
    environment(
        "relative and full address",
        &[CONTAINER, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=/x"],
        "",
        "container relative /x",
    ),
    environment(
        "empty relative address",
        &[CONTAINER, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI="],
        "",
        "container relative ",
    ),
    environment(
        "metadata disabled by 1",
        &["AWS_EC2_METADATA_DISABLED=1"],
        "",
        "instance",
    ),
    environment(
        "metadata disabled by TRUE",
        &["AWS_EC2_METADATA_DISABLED=TRUE"],
        "",
        "no credentials",
    ),
    environment(
        "AWS_CREDENTIAL_FILE",
        &["AWS_CREDENTIAL_FILE=/f"],
        "",
        "used",
    ),
    option(
        "container and a missing source_profile",
        "dev",
        &[CONTAINER],
        "[profile dev]\nrole_arn = r\nsource_profile = gone\n",
        "error",
    ),
    option(
        "container and SSO without region",
        "dev",
        &[CONTAINER],
        "[profile dev]\nsso_account_id = 1\nsso_role_name = n\nsso_start_url = u\n",
        "error",
    ),
    option(
        "container and a session without role",
        "dev",
        &[CONTAINER],
        "[sso-session s]\nsso_region = a\n[profile dev]\nsso_session = s\n",
        "container full http://127.0.0.1/c",
    ),
    option(
        "container and a secret alone",
        "dev",
        &[CONTAINER],
        "[profile dev]\naws_secret_access_key = S\n",
        "container full http://127.0.0.1/c",
    ),
    option(
        "container and source_profile without role",
        "dev",
        &[CONTAINER],
        "[profile dev]\nsource_profile = default\n",
        "container full http://127.0.0.1/c",
    ),
    environment(
        "container and keys before the first header",
        &[CONTAINER],
        "{K}",
        "file error",
    ),
    option(
        "container and an unclosed header in another section",
        "dev",
        &[CONTAINER],
        "[profile dev]\nregion = a\n[profile x]\n[profile y\n{K}",
        "file error",
    ),
    option(
        "container and a header that is not UTF-8",
        "dev",
        &[CONTAINER],
        "[profile dev]\nregion = a\n[profile b\u{fffd}]\n{K}",
        "file error",
    ),
    environment(
        "container and a broken default",
        &[CONTAINER],
        "[default]\nfoo\n",
        "file error",
    ),
];

const ORDER: &[Case] = &[
    credentials(
        "keys of the credentials file and process",
        "[profile dev]\ncredential_process = p\n",
        "[dev]\n{K}",
        "X",
    ),
    dev(
        "keys of the config file and process",
        "[profile dev]\n{K}credential_process = p\n",
        "process p",
    ),
    credentials(
        "keys of the credentials file and role",
        "[default]\n{K2}[profile dev]\nrole_arn = r\nsource_profile = default\n",
        "[dev]\n{K}",
        "X2 > r",
    ),
    credentials(
        "keys of the credentials file and SSO",
        "[profile dev]\nsso_account_id = 1\nsso_role_name = n\nsso_start_url = u\nsso_region = a\n",
        "[dev]\n{K}",
        "sso - u a 1 n",
    ),
    credentials(
        "keys of the credentials file and login",
        "[profile dev]\nlogin_session = arn\n",
        "[dev]\n{K}",
        "X",
    ),
    dev(
        "keys of the config file and login",
        "[profile dev]\n{K}login_session = arn\n",
        "login arn",
    ),
    dev(
        "login and process",
        "[profile dev]\nlogin_session = arn\ncredential_process = p\n",
        "login arn",
    ),
    dev(
        "SSO and process",
        "[profile dev]\nsso_account_id = 1\nsso_role_name = n\nsso_start_url = u\nsso_region = a\n\
         sso_account_name = x\nsso_auto_populated = true\ncredential_process = p\n",
        "sso - u a 1 n",
    ),
    dev(
        "session without role and process",
        "[sso-session s]\nsso_region = a\n[profile dev]\nsso_session = s\n\
         granted_sso_account_id = 1\ncredential_process = granted credential-process --profile dev\n",
        "process granted|credential-process|--profile|dev",
    ),
    dev(
        "session without role and keys",
        "[profile dev]\nsso_session = gone\n{K}",
        "X",
    ),
    dev(
        "empty process",
        "[profile dev]\ncredential_process =\n",
        "error",
    ),
    dev(
        "process with an open quote",
        "[profile dev]\ncredential_process = p 'a\n",
        "error",
    ),
    dev(
        "process over two lines",
        "[profile dev]\ncredential_process = p a\n  b\n",
        "process p|a|b",
    ),
    dev(
        "process with # and quotes",
        "[profile dev]\ncredential_process = \"/a b/p\" a#b #c ~ $X\n",
        "process /a b/p|a#b|#c|~|$X",
    ),
];

const ROLES: &[Case] = &[
    dev("role with source", ROLE, "X > r"),
    dev(
        "role options",
        "[default]\n{K}[profile dev]\nrole_arn = r\nsource_profile = default\nexternal_id = x\n\
         role_session_name = me\nmfa_serial = mfa\nduration_seconds =  3_600 \n",
        "X > r x me mfa 3600s",
    ),
    dev(
        "duration that is no number",
        "[default]\n{K}[profile dev]\nrole_arn = r\nsource_profile = default\nduration_seconds = 1h\n",
        "X > r",
    ),
    dev(
        "mfa_serial without role",
        "[profile dev]\n{K}mfa_serial = mfa\n",
        "X",
    ),
    dev("no source", "[profile dev]\nrole_arn = r\n{K}", "error"),
    dev(
        "both sources",
        "[default]\n{K}[profile dev]\nrole_arn = r\nsource_profile = default\n\
         credential_source = Environment\n",
        "error",
    ),
    dev("empty role_arn", "[profile dev]\nrole_arn =\n{K}", "error"),
    dev(
        "empty role_arn with source",
        "[default]\n{K}[profile dev]\nrole_arn =\nsource_profile = default\n",
        "X > ",
    ),
    dev(
        "missing source",
        "[profile dev]\nrole_arn = r\nsource_profile = gone\n",
        "error",
    ),
    dev(
        "source without credentials",
        "[profile dev]\nrole_arn = r\nsource_profile = one\n[profile one]\nregion = a\n",
        "error",
    ),
    dev(
        "empty source_profile",
        "[profile dev]\nrole_arn = r\nsource_profile =\n",
        "error",
    ),
    dev(
        "own source with keys",
        "[profile dev]\nrole_arn = r\nsource_profile = dev\n{K}",
        "X > r",
    ),
    credentials(
        "own source with keys in credentials",
        "[profile dev]\nrole_arn = r\nsource_profile = dev\n",
        "[dev]\n{K}",
        "X > r",
    ),
    dev(
        "own source without keys",
        "[profile dev]\nrole_arn = r\nsource_profile = dev\n",
        "error",
    ),
    dev(
        "own source with half a pair",
        "[profile dev]\nrole_arn = r\nsource_profile = dev\naws_access_key_id = X\n",
        "error",
    ),
    dev(
        "loop of two profiles",
        "[profile dev]\nrole_arn = r\nsource_profile = b\n[profile b]\nrole_arn = q\n\
         source_profile = dev\n",
        "error",
    ),
    dev(
        "chain of three roles",
        "[default]\n{K}[profile dev]\nrole_arn = r\nsource_profile = b\n[profile b]\nrole_arn = q\n\
         mfa_serial = m\nsource_profile = c\n[profile c]\nrole_arn = p\nsource_profile = default\n",
        "X > p > q m > r",
    ),
    dev(
        "keys in the middle of a chain",
        "[default]\n{K}[profile dev]\nrole_arn = r\nsource_profile = b\n[profile b]\nrole_arn = q\n\
         source_profile = default\n{K2}",
        "X2 > r",
    ),
    dev(
        "region of the source",
        "[profile one]\n{K}region = a\n[profile dev]\nrole_arn = r\nsource_profile = one\n",
        "X > r",
    ),
    dev(
        "process as a source",
        "[profile dev]\nrole_arn = r\nsource_profile = one\n[profile one]\ncredential_process = p\n",
        "process p > r",
    ),
    dev(
        "SSO as a source",
        "[profile dev]\nrole_arn = r\nsource_profile = one\n[profile one]\nsso_account_id = 1\n\
         sso_role_name = n\nsso_start_url = u\nsso_region = a\n",
        "sso - u a 1 n > r",
    ),
    dev(
        "login as a source",
        "[profile dev]\nrole_arn = r\nsource_profile = one\n[profile one]\nlogin_session = arn\n",
        "login arn > r",
    ),
    dev(
        "source with its own fault",
        "[profile dev]\nrole_arn = r\nsource_profile = one\n[profile one]\n{K}foo\n",
        "file error",
    ),
    option(
        "credential_source Environment with --profile",
        "dev",
        &[KEYS, SECRET],
        "[profile dev]\nrole_arn = r\ncredential_source = Environment\n",
        "env E > r",
    ),
    dev(
        "credential_source Environment without keys",
        "[profile dev]\nrole_arn = r\ncredential_source = Environment\n",
        "error",
    ),
    option(
        "credential_source EcsContainer",
        "dev",
        &["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI=/x"],
        "[profile dev]\nrole_arn = r\ncredential_source = EcsContainer\n",
        "container relative /x > r",
    ),
    dev(
        "credential_source EcsContainer without address",
        "[profile dev]\nrole_arn = r\ncredential_source = EcsContainer\n",
        "error",
    ),
    option(
        "credential_source Ec2InstanceMetadata",
        "dev",
        &["AWS_EC2_METADATA_DISABLED=false"],
        "[profile dev]\nrole_arn = r\ncredential_source = Ec2InstanceMetadata\n",
        "instance > r",
    ),
    option(
        "credential_source in lower case",
        "dev",
        &[KEYS, SECRET],
        "[profile dev]\nrole_arn = r\ncredential_source = environment\n",
        "error",
    ),
];

const SSO: &[Case] = &[
    dev(
        "session",
        "[sso-session s]\nsso_start_url = u\nsso_region = a\n[profile dev]\nsso_session = s\n\
         sso_account_id = 0012\nsso_role_name = n\n",
        "sso s u a 0012 n",
    ),
    dev(
        "session with equal keys in the profile",
        "[sso-session s]\nsso_start_url = u\nsso_region = a\n[profile dev]\nsso_session = s\n\
         sso_account_id = 1\nsso_role_name = n\nsso_start_url = u\nsso_region = a\n",
        "sso s u a 1 n",
    ),
    dev(
        "session with another region",
        "[sso-session s]\nsso_start_url = u\nsso_region = a\n[profile dev]\nsso_session = s\n\
         sso_account_id = 1\nsso_role_name = n\nsso_region = b\n",
        "error",
    ),
    dev(
        "session with other scopes",
        "[sso-session s]\nsso_start_url = u\nsso_region = a\nsso_registration_scopes = x\n\
         [profile dev]\nsso_session = s\nsso_account_id = 1\nsso_role_name = n\n\
         sso_registration_scopes = y\n",
        "error",
    ),
    dev(
        "session without region, region in the profile",
        "[sso-session s]\nsso_start_url = u\n[profile dev]\nsso_session = s\nsso_account_id = 1\n\
         sso_role_name = n\nsso_region = b\n",
        "sso s u b 1 n",
    ),
    dev(
        "session without region",
        "[sso-session s]\nsso_start_url = u\n[profile dev]\nsso_session = s\nsso_account_id = 1\n\
         sso_role_name = n\n",
        "error",
    ),
    dev(
        "role without account",
        "[sso-session s]\nsso_start_url = u\nsso_region = a\n[profile dev]\nsso_session = s\n\
         sso_role_name = n\n",
        "error",
    ),
    dev(
        "empty session name",
        "[profile dev]\nsso_session =\nsso_account_id = 1\nsso_role_name = n\nsso_start_url = u\n\
         sso_region = a\n",
        "error",
    ),
    dev(
        "session header of one quoted word",
        "[\"sso-session s\"]\nsso_start_url = u\nsso_region = a\n[profile dev]\nsso_session = s\n\
         sso_account_id = 1\nsso_role_name = n\n",
        "error",
    ),
    dev(
        "missing session",
        "[profile dev]\nsso_session = s\nsso_account_id = 1\nsso_role_name = n\n",
        "error",
    ),
    credentials(
        "session in the credentials file",
        "[profile dev]\nsso_session = s\nsso_account_id = 1\nsso_role_name = n\n",
        "[sso-session s]\nsso_start_url = u\nsso_region = a\n",
        "error",
    ),
    dev(
        "session with its own fault",
        "[sso-session s]\nsso_start_url = u\nsso_region = a\nfoo\n[profile dev]\nsso_session = s\n\
         sso_account_id = 1\nsso_role_name = n\n",
        "file error",
    ),
    dev(
        "start URL with a fragment",
        "[profile dev]\nsso_account_id = 1\nsso_role_name = n\nsso_start_url = https://d/start#/\n\
         sso_region = a\n",
        "sso - https://d/start#/ a 1 n",
    ),
];

pub(super) const DEVIATIONS: &[Deviation] = &[
    Deviation {
        case: "broken default with keys",
        ours: "env E",
        reason: "nothing named the default profile, and the keys do not need it; the fault is \
                 part of the identity",
    },
    Deviation {
        case: "duplicate section with keys",
        ours: "env E",
        reason: "nothing named the default profile, and the keys do not need it; the fault is \
                 part of the identity",
    },
    Deviation {
        case: "empty token file",
        ours: "error",
        reason: "the profile is meant to assume a role; the CLI would continue with the container \
                 or the instance",
    },
    Deviation {
        case: "AWS_CREDENTIAL_FILE",
        ours: "error",
        reason: "a format of boto 2; refused, because the next source is another identity",
    },
    Deviation {
        case: "container and a session without role",
        ours: "error",
        reason: "a profile with settings for credentials never leads to those of the machine",
    },
    Deviation {
        case: "container and a secret alone",
        ours: "error",
        reason: "a profile with settings for credentials never leads to those of the machine",
    },
    Deviation {
        case: "container and source_profile without role",
        ours: "error",
        reason: "a profile with settings for credentials never leads to those of the machine",
    },
    Deviation {
        case: "session with its own fault",
        ours: "error",
        reason: "the same refusal as an error about Identity Center, which shows profile and fault",
    },
];

pub(super) fn cases() -> Vec<Case> {
    [ENVIRONMENT, WEB_IDENTITY, MACHINE, ORDER, ROLES, SSO].concat()
}
