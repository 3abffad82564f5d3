//! The same questions to moto, an AWS that somebody else has built.
//!
//! `./dev test` installs it and names its Python in `PGIAM_MOTO`. Without it these tests are left out
//! aloud; in CI that is a failure.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use pgiam::aws::query::Query;
use pgiam::aws::{AwsContext, AwsOptions};
use protocol_tests::harness::program;
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::words;
use crate::support::{PATIENCE, pgiam, run};

/// An account at moto, which is there as long as this is.
struct Moto {
    url: String,
    dir: TempDir,
    _server: Child,
}

impl Moto {
    /// `None`, and a word about it, where it is not installed.
    #[expect(clippy::print_stdout, reason = "what was left out is to be seen")]
    async fn start() -> Option<Self> {
        let python = match std::env::var_os("PGIAM_MOTO").map(PathBuf::from) {
            Some(python) if python.exists() => python,
            given => {
                let reason =
                    format!("PGIAM_MOTO is {given:?}: run ./dev test, or see ./dev judges");
                let strict = std::env::var_os("CI").is_some_and(|ci| ci == "true");
                assert!(!strict, "a judge is missing, and this is CI: {reason}");
                println!("SKIPPED moto: {reason}");
                return None;
            }
        };
        let script = Path::new(env!("CARGO_MANIFEST_DIR"));
        let script = script.join("protocol-tests/judges/moto/account.py");
        let mut command = Command::new(python);
        program::clean_env(&mut command, &["AWS_", "MOTO_"]);
        let mut server = command
            .arg(script)
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .env("NO_PROXY", "localhost,127.0.0.1")
            // It ends with its standard input.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("moto starts");
        let mut lines = BufReader::new(server.stdout.take().expect("its output")).lines();
        let url = timeout(PATIENCE, lines.next_line())
            .await
            .expect("moto is ready in time");
        let url = url.expect("its output").expect("its address");
        let dir = tempfile::tempdir().expect("a folder");
        let config = format!(
            "[profile moto]\nregion = eu-central-1\nendpoint_url = {url}\n\
             aws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = of-no-worth\n"
        );
        std::fs::write(dir.path().join("config"), config).expect("the AWS file");
        std::fs::write(dir.path().join("credentials"), "").expect("the other one");
        Some(Self {
            url,
            dir,
            _server: server,
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

#[tokio::test]
async fn moto_is_understood() {
    let Some(moto) = Moto::start().await else {
        return;
    };
    assert!(moto.url.starts_with("http://"), "{}", moto.url);
    list(&moto).await;
    single_calls(&moto).await;
}

/// Databases are listed, and it is said that moto knows nothing about managed nodes.
async fn list(moto: &Moto) {
    let mut command = Command::new(pgiam());
    program::clean_env(&mut command, &["AWS_", "PGIAM_"]);
    command
        .args(["list", "--json", "--profile", "moto"])
        .env("AWS_CONFIG_FILE", moto.file("config"))
        .env("AWS_SHARED_CREDENTIALS_FILE", moto.file("credentials"))
        .env("PGIAM_STATE_DIR", moto.file("state"))
        .env("NO_PROXY", "localhost,127.0.0.1")
        .kill_on_drop(true);
    let ran = run(command).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let json: Value = serde_json::from_str(&ran.stdout).expect("JSON");
    assert_eq!(
        words(&json, "databases", "identifier"),
        ["billing", "front", "orders"]
    );
    assert_eq!(
        words(&json, "databases", "kind"),
        ["instance", "proxy", "cluster"]
    );
    let [billing, front, orders] = [0, 1, 2].map(|n| &json["databases"][n]);
    assert_eq!(
        (&billing["port"], &billing["iam"]),
        (&5433.into(), &true.into()),
        "{json:#}"
    );
    assert_eq!(front["iam"], true, "{json:#}");
    assert_eq!(
        (&orders["engine"], &orders["iam"]),
        (&"aurora-postgresql".into(), &false.into())
    );
    assert!(
        billing["vpc"]
            .as_str()
            .is_some_and(|vpc| vpc.starts_with("vpc-")),
        "{json:#}"
    );
    for one in [billing, front, orders] {
        assert!(
            one["host"].is_string() && one["resource_id"].is_string(),
            "{one:#}"
        );
    }
    let missing = words(&json, "missing", "action");
    assert!(
        missing.contains(&"ssm:DescribeInstanceInformation"),
        "{missing:?}"
    );
    assert_eq!(json["missing"][0]["denied"], false);
}

/// EC2 and IAM take the calls that no SDK has made.
async fn single_calls(moto: &Moto) {
    let aws = AwsContext::new(AwsOptions {
        profile: Some("moto".to_owned()),
        config_file: Some(moto.file("config")),
        credentials_file: Some(moto.file("credentials")),
        ..AwsOptions::default()
    });
    let region = "eu-central-1".into();
    let call = |service, version, action, params: &[(&str, &str)]| {
        let own = |&(name, value): &(&str, &str)| (name.to_owned(), value.to_owned());
        aws.query(Query {
            service,
            name: action,
            version,
            action,
            params: params.iter().map(own).collect(),
            region: &region,
        })
    };
    let filter = [
        ("Filter.1.Name", "tag:Name"),
        ("Filter.1.Value.1", "my & bastion"),
    ];
    let machines = call("ec2", "2016-11-15", "DescribeInstances", &filter)
        .await
        .expect("an answer");
    assert!(
        machines.contains("<value>my &amp; bastion</value>"),
        "{machines}"
    );
    let none = [
        ("Filter.1.Name", "tag:Name"),
        ("Filter.1.Value.1", "nobody"),
    ];
    let nothing = call("ec2", "2016-11-15", "DescribeInstances", &none)
        .await
        .expect("an answer");
    assert!(!nothing.contains("<instanceId>"), "{nothing}");
    let users = call("iam", "2010-05-08", "ListUsers", &[])
        .await
        .expect("an answer");
    assert!(users.contains("<UserName>somebody</UserName>"), "{users}");
    let refused = call(
        "ec2",
        "2016-11-15",
        "DescribeInstances",
        &[("InstanceId.1", "i-0")],
    )
    .await;
    let refused = refused.expect_err("there is none").to_string();
    assert!(
        refused.starts_with("AWS refused ec2:DescribeInstances: InvalidInstanceID"),
        "{refused}"
    );
    let refused = call("iam", "2010-05-08", "GetUser", &[("UserName", "nobody")]).await;
    let refused = refused.expect_err("there is none").to_string();
    assert!(
        refused.starts_with("AWS refused iam:GetUser: NoSuchEntity"),
        "{refused}"
    );
}
