//! Files and variables as the AWS CLI, its documentation, other programs, editors and shells write
//! them. The outcomes follow from the recorded answers of AWS CLI 2.36; botocore judges them, too.

use super::cases::{Case, Deviation};
use super::chain::{credentials, dev, environment, option};

/// The AWS CLI and its documentation.
const CLI: &[Case] = &[
    option(
        "aws configure sso",
        "Dev-111122223333",
        &[],
        "[profile Dev-111122223333]\nsso_session = corp\nsso_account_id = 111122223333\n\
         sso_role_name = Dev\nregion = eu-west-1\noutput = json\n[sso-session corp]\n\
         sso_start_url = https://d-1.awsapps.com/start\nsso_region = eu-west-1\n\
         sso_registration_scopes = sso:account:access\n",
        "sso corp https://d-1.awsapps.com/start eu-west-1 111122223333 Dev, region eu-west-1",
    ),
    environment(
        "aws login",
        &[],
        "[default]\nlogin_session = arn:aws:iam::111122223333:user/Admin\nregion = eu-west-1\n",
        "login arn:aws:iam::111122223333:user/Admin, region eu-west-1",
    ),
    Case {
        credentials: "[ops eu]\n{K}",
        ..option(
            "aws configure",
            "ops eu",
            &[],
            "[profile 'ops eu']\nregion = a\n",
            "X, region a",
        )
    },
    credentials(
        "aws configure with a nested setting",
        "[profile dev]\nregion = a\ns3 =\n  max_concurrent_requests = 20\n  a = b\noutput = json\n",
        "[dev]\n{K}",
        "X, region a",
    ),
    dev(
        "aws configure sso without session",
        "[profile dev]\nsso_start_url = https://d-1.awsapps.com/start\nsso_region = eu-west-1\n\
         sso_account_id = 111122223333\nsso_role_name = Dev\nregion = eu-west-1\noutput = json\n",
        "sso - https://d-1.awsapps.com/start eu-west-1 111122223333 Dev, region eu-west-1",
    ),
    option(
        "aws login to a profile with a blank",
        "ops eu",
        &[],
        "[profile ops eu]\nlogin_session = arn\n",
        "no such profile",
    ),
    credentials(
        "aws configure mfa-login",
        "[profile base]\nmfa_serial = arn:aws:iam::111122223333:mfa/me\n",
        "[base]\n{K2}[dev]\naws_access_key_id = X\naws_secret_access_key = S\n\
         aws_session_token = T\n",
        "X token T",
    ),
    dev(
        "aws configure export-credentials",
        "[profile dev]\ncredential_process = aws configure export-credentials --profile base \
         --format process\n",
        "process aws|configure|export-credentials|--profile|base|--format|process",
    ),
    dev(
        "documentation of services",
        "[profile dev]\n{K}services = local\nendpoint_url = http://localhost:4566\n\
         [services local]\n\
         dynamodb =\n  endpoint_url = http://localhost:8000\n",
        "X",
    ),
    dev(
        "documentation of roles across accounts",
        "[profile dev]\nrole_arn = arn:aws:iam::123456789012:role/dev\nsource_profile = user1\n\
         role_session_name = session_user1\nexternal_id = 123456\n\
         mfa_serial = arn:aws:iam::123456789012:mfa/me\nregion = us-east-1\noutput = json\n\
         [profile user1]\n{K}region = us-west-2\n",
        "X > arn:aws:iam::123456789012:role/dev 123456 session_user1 \
         arn:aws:iam::123456789012:mfa/me, \
         region us-east-1",
    ),
    dev(
        "documentation of web identity",
        "[profile dev]\nrole_arn=arn:aws:iam::123456789012:role/w\n\
         web_identity_token_file=/path/to/a/token\nrole_session_name=s3-access\n",
        "web /path/to/a/token > arn:aws:iam::123456789012:role/w s3-access",
    ),
    environment(
        "pod with an identity",
        &[
            "AWS_CONTAINER_CREDENTIALS_FULL_URI=http://169.254.170.23/v1/credentials",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=/var/run/secrets/token",
            "AWS_DEFAULT_REGION=a",
            "AWS_REGION=a",
        ],
        "",
        "container full http://169.254.170.23/v1/credentials, region a",
    ),
    environment(
        "CloudShell",
        &[
            "AWS_CONTAINER_CREDENTIALS_FULL_URI=http://localhost:1338/latest/meta-data/container",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN=T",
            "AWS_DEFAULT_REGION=a",
        ],
        "",
        "container full http://localhost:1338/latest/meta-data/container, region a",
    ),
    dev(
        "process with a variable and a tilde",
        "[profile dev]\ncredential_process = ~/bin/p $HOME/x\n",
        "process ~/bin/p|$HOME/x",
    ),
    dev(
        "process with a pipe",
        "[profile dev]\ncredential_process = cat x | jq .\n",
        "process cat|x|||jq|.",
    ),
    dev(
        "process with an assignment",
        "[profile dev]\ncredential_process = A=1 p && q\n",
        "process A=1|p|&&|q",
    ),
    environment(
        "blank key ID",
        &["AWS_ACCESS_KEY_ID= ", "AWS_SECRET_ACCESS_KEY=S"],
        "[default]\n{K}",
        "env  ",
    ),
    environment(
        "variables of another program",
        &[
            "AWS_SDK_LOAD_CONFIG=0",
            "AWS_ACCESS_KEY=E",
            "AWS_SECRET_KEY=S",
        ],
        "[default]\n{K}",
        "X",
    ),
];

/// Programs that write profiles, keys or variables.
const PROGRAMS: &[Case] = &[
    credentials(
        "aws-vault",
        "[profile dev]\ncredential_process = aws-vault exec --json dev\nmfa_process = x\n\
         include_profile = y\n",
        "",
        "process aws-vault|exec|--json|dev",
    ),
    credentials(
        "saml2aws",
        "",
        "[dev]\naws_access_key_id        = X\naws_secret_access_key    = S\n\
         aws_session_token        = T\n\
         aws_security_token       = T\nx_principal_arn          = arn\n\
         x_security_token_expires = 2020-01-01T00:00:00+01:00\nregion                   = a\n",
        "X token T, region a",
    ),
    dev(
        "granted, generated",
        "[profile dev]\ngranted_sso_start_url = https://d-1.awsapps.com/start\n\
         granted_sso_region = eu-west-1\ngranted_sso_account_id = 111122223333\n\
         granted_sso_role_name = Dev\ncommon_fate_generated_from = aws-sso\n\
         credential_process = granted credential-process --profile dev\n",
        "process granted|credential-process|--profile|dev",
    ),
    dev(
        "aws-sso",
        "# BEGIN_AWS_SSO_CLI\n\n[profile dev]\n\
         credential_process = /usr/bin/aws-sso -u -S \"Default\" process --arn \
         arn:aws:iam::1:role/D\n\
         region = a\n\n# END_AWS_SSO_CLI\n",
        "process /usr/bin/aws-sso|-u|-S|Default|process|--arn|arn:aws:iam::1:role/D, region a",
    ),
    environment(
        "aws-vault exec",
        &[
            "AWS_VAULT=dev",
            "AWS_ACCESS_KEY_ID=E",
            "AWS_SECRET_ACCESS_KEY=S",
            "AWS_SESSION_TOKEN=T",
            "AWS_SECURITY_TOKEN=T",
            "AWS_REGION=a",
            "AWS_DEFAULT_REGION=a",
            "AWS_CREDENTIAL_EXPIRATION=2099-01-01T00:00:00Z",
        ],
        "[default]\n{K}region = b\n",
        "env E token T, region a",
    ),
    Case {
        credentials: "[default]\naws_access_key_id=X\naws_secret_access_key=S\n\
        aws_session_token=T\n",
        ..environment("Leapp", &[], "[default]\nregion=a\n", "X token T, region a")
    },
    dev(
        "aws-vault without session",
        "[profile dev]\ncredential_process = aws-vault exec --no-session --json dev\n",
        "process aws-vault|exec|--no-session|--json|dev",
    ),
    dev(
        "aws-vault export",
        "[profile dev]\ncredential_process = aws-vault export --format=json dev\n",
        "process aws-vault|export|--format=json|dev",
    ),
    dev(
        "aws-vault, keys of its own",
        "[profile base]\ncredential_process = aws-vault export --format=json base\n\
         [profile dev]\nsource_profile = base\ninclude_profile = base\nparent_profile = base\n\
         role_arn = r\nmfa_process = pass otp aws\nsession_tags = team=db,cost=1\n\
         transitive_session_tags = team\nsource_identity = me\n",
        "process aws-vault|export|--format=json|base > r",
    ),
    dev(
        "aws-vault, keys in the keyring",
        "[profile base]\nregion = a\n[profile dev]\nsource_profile = base\nrole_arn = r\n",
        "error",
    ),
    environment(
        "aws-vault with a server",
        &[
            "AWS_VAULT=dev",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI=http://127.0.0.1:41237",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN=T",
            "AWS_REGION=a",
            "AWS_DEFAULT_REGION=a",
        ],
        "[profile dev]\nregion = b\n",
        "container full http://127.0.0.1:41237, region a",
    ),
    dev(
        "granted, session only",
        "[sso-session corp]\nsso_start_url = https://d-1.awsapps.com/start\n\
         sso_region = eu-west-1\n\
         sso_registration_scopes = sso:account:access\n[profile dev]\nsso_session = corp\n\
         granted_sso_account_id = 111122223333\ngranted_sso_role_name = Dev\n\
         common_fate_generated_from = aws-sso\n\
         credential_process = granted credential-process --profile dev\n",
        "process granted|credential-process|--profile|dev",
    ),
    environment(
        "granted, assume",
        &[
            "AWS_ACCESS_KEY_ID=E",
            "AWS_SECRET_ACCESS_KEY=S",
            "AWS_SESSION_TOKEN=T",
            "AWS_PROFILE=dev",
            "AWS_REGION=a",
            "AWS_DEFAULT_REGION=a",
            "AWS_SESSION_EXPIRATION=2020-01-01T00:00:00Z",
            "AWS_CREDENTIAL_EXPIRATION=2099-01-01T00:00:00Z",
            "GRANTED_SSO=true",
        ],
        "[profile dev]\nsso_account_id = 1\nsso_role_name = n\nsso_start_url = u\nsso_region = a\n",
        "env E token T, region a",
    ),
    environment(
        "granted, assume with a profile that is not in the files",
        &[
            "AWS_ACCESS_KEY_ID=E",
            "AWS_SECRET_ACCESS_KEY=S",
            "AWS_PROFILE=dev",
        ],
        "",
        "no such profile",
    ),
    dev(
        "aws-sso-util",
        "[profile dev]\nsso_start_url = https://d-1.awsapps.com/start\nsso_region = eu-west-1\n\
         sso_account_name = Production\nsso_account_id = 111122223333\nsso_role_name = Dev\n\
         region = eu-west-1\ncredential_process = aws-sso-util credential-process --profile dev\n\
         sso_auto_populated = true\n",
        "sso - https://d-1.awsapps.com/start eu-west-1 111122223333 Dev, region eu-west-1",
    ),
    Case {
        credentials: "[saml]\naws_access_key_id        = X\naws_secret_access_key    = S\n\
                      aws_session_token        = T\naws_security_token       = T\n\
                      x_principal_arn          = arn\n\
                      x_security_token_expires = 2020-01-01T00:00:00+01:00\n",
        ..option(
            "saml2aws, default name",
            "saml",
            &[],
            "[default]\nregion = a\n",
            "X token T",
        )
    },
    Case {
        credentials: "[saml]\n{K}aws_session_token = T\n",
        ..option(
            "saml2aws as a source",
            "dev",
            &[],
            "[profile dev]\nrole_arn = r\nsource_profile = saml\n",
            "X token T > r",
        )
    },
    credentials(
        "Leapp with a profile",
        "[profile dev]\nregion=a\n",
        "[dev]\naws_access_key_id=X\naws_secret_access_key=S\naws_session_token=T\nregion=a\n",
        "X token T, region a",
    ),
    dev(
        "Leapp with a process",
        "[profile dev]\ncredential_process=leapp session generate 0b7a-11\nregion=a\n",
        "process leapp|session|generate|0b7a-11, region a",
    ),
    environment(
        "Leapp after the end of a session",
        &[],
        "[default]\nregion=a\n",
        "no credentials",
    ),
    dev(
        "aws2-wrap with a process",
        "[profile dev]\ncredential_process = aws2-wrap --process --profile sso\n",
        "process aws2-wrap|--process|--profile|sso",
    ),
    credentials(
        "aws2-wrap --generate",
        "[profile dev]\nsso_session = corp\n",
        "[dev]\naws_access_key_id = X\naws_secret_access_key = S\naws_session_token = T\n\
         expiration = 2020-01-01T00:00:00+0000\n",
        "X token T",
    ),
    environment(
        "aws2-wrap --exec",
        &[
            "AWS_ACCESS_KEY_ID=E",
            "AWS_SECRET_ACCESS_KEY=S",
            "AWS_SESSION_TOKEN=T",
            "AWS_DEFAULT_REGION=a",
        ],
        "[default]\n{K}",
        "env E token T, region a",
    ),
    dev(
        "aws-sso with blanks in a name",
        "[profile dev]\ncredential_process = \"/opt/aws sso/aws-sso\" -u -S \"My Org\" process \
         --arn r\n",
        "process /opt/aws sso/aws-sso|-u|-S|My Org|process|--arn|r",
    ),
];

/// Editors, shells, and text that was copied from a web page.
const EDITORS: &[Case] = &[
    dev(
        "PowerShell, > of version 5",
        "{UTF-16}[profile dev]\r\n{K}",
        "file error",
    ),
    credentials(
        "PowerShell, > of version 5, keys in the other file",
        "{UTF-16}[default]\r\nregion = a\r\n",
        "[dev]\n{K}",
        "file error",
    ),
    dev(
        "PowerShell, Out-File -Encoding utf8 of version 5",
        "\u{feff}[profile dev]\r\naws_access_key_id = X\r\naws_secret_access_key = S\r\n",
        "file error",
    ),
    dev(
        "PowerShell, Out-File of version 7",
        "[profile dev]\r\naws_access_key_id = X\r\naws_secret_access_key = S\r\n\r\n",
        "X",
    ),
    credentials(
        "Notepad with a byte order mark in credentials",
        "[profile dev]\n{K2}",
        "\u{feff}[dev]\r\n{K}",
        "file error",
    ),
    dev(
        "empty file with a byte order mark",
        "\u{feff}",
        "file error",
    ),
    dev(
        "mixed line ends",
        "[profile dev]\r\naws_access_key_id = X\naws_secret_access_key = S\rregion = a\r\n",
        "X, region a",
    ),
    dev(
        "end-of-file mark of DOS",
        "[profile dev]\n{K}\u{1a}",
        "file error",
    ),
    dev(
        "smart quotes around a value",
        "[profile dev]\naws_access_key_id = “X”\naws_secret_access_key = S\n",
        "“X”",
    ),
    dev(
        "smart quotes around a name",
        "[profile “dev”]\n{K}",
        "no such profile",
    ),
    option(
        "name in smart quotes",
        "“dev”",
        &[],
        "[profile “dev”]\n{K}",
        "X",
    ),
    dev(
        "NBSP before a name",
        "[profile\u{a0}dev]\n{K}",
        "no such profile",
    ),
    dev(
        "NBSP around the delimiter",
        "[profile dev]\naws_access_key_id\u{a0}=\u{a0}X\naws_secret_access_key = S\u{a0}\n",
        "X",
    ),
    dev(
        "NBSP in a command",
        "[profile dev]\ncredential_process = p\u{a0}a b\n",
        "process p\u{a0}a|b",
    ),
    dev(
        "zero-width space before a key",
        "[profile dev]\n\u{200b}aws_access_key_id = X\naws_secret_access_key = S\n",
        "no credentials",
    ),
    dev(
        "zero-width space behind a name",
        "[profile dev\u{200b}]\n{K}",
        "no such profile",
    ),
    dev(
        "keys indented by tabs",
        "[profile dev]\n\taws_access_key_id = X\n\taws_secret_access_key = S\n\tregion\t=\ta\t\n",
        "X, region a",
    ),
    dev(
        "tab below blanks",
        "[profile dev]\n  aws_access_key_id = X\n\taws_secret_access_key = S\n",
        "X",
    ),
    dev(
        "blanks below a tab",
        "[profile dev]\n\taws_access_key_id = X\n    region = a\naws_secret_access_key = S\n",
        "X\nregion = a",
    ),
    dev(
        "lines of blanks",
        "   \n[profile dev]\n\t\naws_access_key_id = X\n    \naws_secret_access_key = S\n \n",
        "X",
    ),
    dev(
        "indented comment with a key in a value",
        "[profile dev]\naws_access_key_id = X\n    # region = b\naws_secret_access_key = S\n",
        "X",
    ),
    dev(
        "export statement",
        "[profile dev]\n{K}export AWS_REGION=a\n",
        "X",
    ),
    dev(
        "fence of Markdown",
        "```ini\n[profile dev]\n{K}```\n",
        "file error",
    ),
    dev(
        "dashes of an e-mail",
        "[profile dev]\n{K}-- \nme\n",
        "file error",
    ),
    dev(
        "merge conflict",
        "<<<<<<< HEAD\n[profile dev]\n{K}=======\n>>>>>>> b\n",
        "file error",
    ),
    dev("JSON", "{\"profile\": \"dev\"}\n", "file error"),
    dev("YAML", "profile:\n  dev:\n    region: a\n", "file error"),
    dev(
        "trailing semicolon",
        "[profile dev];\n{K}region = a;\n",
        "X, region a;",
    ),
    dev("comment with //", "[profile dev]\n// team: db\n{K}", "X"),
    dev(
        "header without name",
        "[profile]\n{K2}[profile dev]\n{K}",
        "X",
    ),
    dev(
        "header with a blank name",
        "[profile ]\n{K2}[profile dev]\n{K}",
        "X",
    ),
    dev("blank behind the name", "[profile dev ]\n{K}", "X"),
    dev(
        "prefix without blank",
        "[profile=dev]\n{K}",
        "no such profile",
    ),
    dev(
        "nested line without delimiter",
        "[profile dev]\n{K}[profile x]\ns3 =\n  path\n",
        "file error",
    ),
    dev(
        "; comment behind source_profile",
        "[profile dev]\nrole_arn = r\nsource_profile = one ; base\n[profile one]\n{K}",
        "error",
    ),
];

pub(super) const DEVIATIONS: &[Deviation] = &[
    Deviation {
        case: "empty file with a byte order mark",
        ours: "no such profile",
        reason: "the mark belongs to no section; the message also shows the fault",
    },
    Deviation {
        case: "zero-width space before a key",
        ours: "error",
        reason: "the profile is meant to have keys; the CLI would continue with the container or \
                 the instance, another identity",
    },
    Deviation {
        case: "JSON",
        ours: "no such profile",
        reason: "the line belongs to no section; the message also shows the fault",
    },
    Deviation {
        case: "YAML",
        ours: "no such profile",
        reason: "the lines belong to no section; the message also shows the fault",
    },
    Deviation {
        case: "nested line without delimiter",
        ours: "X",
        reason: "a fault makes only its section unusable",
    },
];

pub(super) fn cases() -> Vec<Case> {
    [CLI, PROGRAMS, EDITORS].concat()
}
