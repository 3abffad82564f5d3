//! `pgiam check`: one thing after the other is wrong, and the step that is about it says so.

mod aws;
mod database;

use std::path::PathBuf;

use protocol_tests::aws::events::Event;
use protocol_tests::aws::sandbox::Sandbox;
use protocol_tests::database::front::FrontKind;
use protocol_tests::database::rds::{Engine, RdsDatabase};
use protocol_tests::harness::program;
use serde_json::Value;
use tokio::process::Command;

use crate::failures::hide;
use crate::support::{HOST, PORT, Ran, Setup, behind, ordinary_config, pgiam, run};

/// The steps of an ordinary target.
const STEPS: [&str; 12] = [
    "credentials",
    "clock",
    "endpoint",
    "settings",
    "permission",
    "bastion",
    "session",
    "port",
    "tls",
    "login",
    "rds_iam",
    "speed",
];

/// AWS and a database, for a program that is started once for every look.
struct Lab {
    database: RdsDatabase,
    sandbox: Sandbox,
    /// Whom to trust for the database.
    authority: PathBuf,
    /// Everything that was ever printed.
    heard: String,
}

/// What a check has answered.
struct Answer {
    code: Option<i32>,
    json: Value,
}

impl Answer {
    fn step(&self, name: &str) -> &Value {
        let steps = self.json["steps"].as_array().expect("steps");
        let found = steps.iter().find(|step| step["name"] == name);
        found.unwrap_or_else(|| panic!("no step {name}: {:#}", self.json))
    }

    /// It failed at this step for this reason, and tried nothing behind it.
    #[track_caller]
    fn failed(&self, step: &str, id: &str) {
        let json = &self.json;
        assert_eq!(self.code, Some(1), "{json:#}");
        assert_eq!(json["result"], "failed", "{json:#}");
        let cause = &json["cause"];
        assert_eq!(
            (&cause["step"], &cause["id"]),
            (&step.into(), &id.into()),
            "{json:#}"
        );
        assert_eq!(self.step(step)["result"], "failed", "{json:#}");
        assert!(self.step(step)["remedy"].is_string(), "{json:#}");
        let steps = json["steps"].as_array().expect("steps");
        let mut behind = steps.iter().skip_while(|it| it["name"] != step).skip(1);
        assert!(behind.all(|it| it["result"] == "not tried"), "{json:#}");
    }

    /// Nothing failed; the steps that are not in order, each as `NAME RESULT`.
    #[track_caller]
    fn passed(&self) -> Vec<String> {
        assert_eq!(self.code, Some(0), "{:#}", self.json);
        assert_eq!(self.json["cause"], Value::Null, "{:#}", self.json);
        let steps = self.json["steps"].as_array().expect("steps").iter();
        let odd = steps.filter(|step| step["result"] != "ok");
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        odd.map(|step| format!("{} {}", word(&step["name"]), word(&step["result"])))
            .collect()
    }
}

impl Lab {
    async fn start() -> Self {
        Self::with(Setup::default()).await
    }

    async fn with(setup: Setup) -> Self {
        let (sandbox, database) = behind(&setup).await;
        let pki = sandbox.pki();
        let authority = match setup.engine {
            // AWS Certificate Manager signs for these.
            Engine::Front {
                kind: FrontKind::RdsProxy | FrontKind::Dsql,
                ..
            } => pki.public_ca_pem_path(),
            _ => pki.ca_pem_path(),
        };
        let authority = authority.to_owned();
        let config = setup.config.unwrap_or_else(ordinary_config);
        std::fs::write(sandbox.dir().join("pgiam.toml"), config).expect("pgiam.toml");
        Self {
            database,
            sandbox,
            authority,
            heard: String::new(),
        }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(pgiam());
        program::clean_env(&mut command, &["AWS_", "PGIAM_"]);
        command
            .arg("check")
            .arg("--config")
            .arg(self.sandbox.dir().join("pgiam.toml"))
            .arg("--ca-file")
            .arg(&self.authority)
            .args(args)
            .envs(self.sandbox.env())
            .env("NO_PROXY", "localhost,127.0.0.1")
            .kill_on_drop(true);
        command
    }

    /// In a pipe, where nothing is wrapped.
    async fn text(&mut self, args: &[&str]) -> Ran {
        let ran = run(self.command(args)).await;
        self.heard += &format!("{}{}", ran.stdout, ran.stderr);
        ran
    }

    async fn check(&mut self, args: &[&str]) -> Answer {
        let command = self.command(args);
        self.ask(command).await
    }

    async fn ask(&mut self, mut command: Command) -> Answer {
        command.arg("--json");
        let ran = run(command).await;
        self.heard += &format!("{}{}", ran.stdout, ran.stderr);
        let json = serde_json::from_str(&ran.stdout);
        let json = json.unwrap_or_else(|error| panic!("{error}: {ran:?}"));
        assert_eq!(self.sandbox.open_sessions(), Vec::<String>::new());
        Answer {
            code: ran.code,
            json,
        }
    }

    /// Lets a policy forbid something to the user, or allow it again.
    fn forbid(&self, actions: &[&str], forbidden: bool) {
        let key = &self.sandbox.user().access_key_id;
        self.sandbox.iam().update(key, |user| {
            for action in actions {
                match forbidden {
                    true => _ = user.deny.insert((*action).to_owned()),
                    false => _ = user.deny.remove(*action),
                }
            }
        });
    }

    /// Ends it; nothing secret may have been printed, and the agent would not have stumbled.
    async fn stop(self) {
        let user = self.sandbox.user();
        let mut secrets = self.sandbox.token_values();
        secrets.push(user.secret_access_key.clone());
        secrets.push("X-Amz-Signature".to_owned());
        for secret in secrets {
            assert!(!self.heard.contains(&secret), "{secret:?} was printed");
        }
        let mut events = self.sandbox.events().all();
        events.retain(|event| matches!(event, Event::Violation { .. }));
        assert_eq!(events, []);
        self.database.stop().await.expect("the server stops");
        self.sandbox.shutdown().await;
    }
}

/// The text without what differs from run to run.
fn clean(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        let is_time = |line: &str| {
            let (rest, unit) = line.rsplit_once(' ')?;
            let (rest, number) = rest.rsplit_once(' ')?;
            let is = ["ms", "s"].contains(&unit) && number.parse::<f64>().is_ok();
            is.then(|| rest.trim_end().len())
        };
        let end = is_time(line).filter(|end| !line[..*end].ends_with("in"));
        out += &line[..end.unwrap_or(line.len())];
        out.push('\n');
    }
    for (begin, end, name) in [
        ("speed        ", " ms round trip", "N"),
        ("round trip, ", " MB/s download", "N"),
        // One more where the clock has not moved on since it was made.
        ("PostgreSQL ", "\n", "VERSION"),
        ("sandbox CA, ", " days left", "N"),
        ("(request id ", ")", "UUID"),
        ("(request id\n  ", ")", "UUID"),
        ("last ping ", ")", "TIME"),
        ("last ping ", ",", "TIME"),
        ("valid until ", " UTC", "TIME"),
    ] {
        out = hide(&out, begin, end, name);
    }
    out
}

/// Compares with the kept file.
fn compare(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, text.trim_end()));
}

#[tokio::test]
async fn everything_is_in_order() {
    let mut lab = Lab::start().await;
    let ran = lab.text(&[]).await;
    assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{ran:?}");
    compare("check-in-order", &clean(&ran.stdout));

    let answer = lab.check(&["orders"]).await;
    assert_eq!(answer.passed(), Vec::<String>::new());
    let json = &answer.json;
    assert_eq!(json["result"], "ok");
    assert_eq!(json["target"], "orders");
    assert_eq!(json["endpoint"], format!("{HOST}:{PORT}"));
    let steps = json["steps"].as_array().expect("steps").iter();
    let names: Vec<&str> = steps.filter_map(|step| step["name"].as_str()).collect();
    assert_eq!(names, STEPS);
    for (step, fact, value) in [
        ("credentials", "account", "123456789012"),
        ("credentials", "source", "the environment"),
        ("endpoint", "kind", "cluster"),
        ("settings", "status", "available"),
        ("permission", "decision", "allowed"),
        ("bastion", "ping", "Online"),
        ("session", "bastion", crate::support::BASTION),
        ("tls", "verified_for", HOST),
        ("login", "current_user", "db_user"),
    ] {
        assert_eq!(answer.step(step)[fact], value, "{step} {fact}: {json:#}");
    }
    assert_eq!(answer.step("rds_iam")["rds_iam"], true);
    assert!(answer.step("speed")["megabytes_per_second"].is_number());
    let quick = lab.check(&["--no-speed"]).await;
    assert_eq!(quick.passed(), Vec::<String>::new());
    let steps = quick.json["steps"].as_array().expect("steps");
    assert!(steps.iter().all(|step| step["name"] != "speed"));
    lab.stop().await;
}

#[tokio::test]
async fn a_target_that_is_not_there_is_a_fault_of_the_configuration() {
    let mut lab = Lab::start().await;
    let ran = lab.text(&["stock"]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{ran:?}");
    lab.stop().await;
}
