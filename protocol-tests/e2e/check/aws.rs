//! What AWS has to say: credentials, the clock, settings, policies, nodes.

use protocol_tests::aws::events::Event;
use protocol_tests::aws::inventory::CLUSTER_RESOURCE_ID;

use super::{Lab, STEPS, clean, compare};
use crate::support::{BASTION, HOST, PATIENCE, Setup};

/// Everything that is asked for information only.
const DESCRIBES: [&str; 6] = [
    "rds:DescribeDBInstances",
    "rds:DescribeDBClusters",
    "rds:DescribeDBClusterEndpoints",
    "rds:DescribeDBProxies",
    "iam:SimulatePrincipalPolicy",
    "ssm:DescribeInstanceInformation",
];

#[tokio::test]
async fn credentials_and_clock() {
    let mut lab = Lab::start().await;
    let mut command = lab.command(&[]);
    for name in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        command.env_remove(name);
    }
    command.env("HOME", "/nonexistent");
    lab.ask(command)
        .await
        .failed("credentials", "aws.no-credentials");

    let mut command = lab.command(&[]);
    command.env("AWS_ACCESS_KEY_ID", "AKIAUNKNOWNUNKNOWN00");
    lab.ask(command).await.failed("credentials", "aws.rejected");

    let iam = lab.sandbox.iam().clone();
    iam.set_clock_ahead(90);
    let slow = lab.check(&[]).await;
    assert_eq!(slow.passed(), ["clock warning"]);
    assert_eq!(slow.json["result"], "warning");
    // AWS takes it for some minutes more, but not for long.
    iam.set_clock_ahead(7 * 60);
    lab.check(&[]).await.failed("clock", "aws.clock");
    iam.set_clock_ahead(16 * 60);
    let refused = lab.check(&[]).await;
    refused.failed("clock", "aws.clock");
    assert_eq!(refused.step("credentials")["result"], "warning");
    let ran = lab.text(&[]).await;
    assert_eq!(ran.code, Some(1));
    compare("check-clock", &clean(&ran.stdout));
    lab.stop().await;
}

#[tokio::test]
async fn settings_and_permissions() {
    let mut lab = Lab::start().await;
    let inventory = lab.sandbox.inventory().clone();
    inventory.update_cluster("orders", |cluster| cluster.iam = false);
    lab.check(&[]).await.failed("settings", "rds.iam-off");
    let ran = lab.text(&[]).await;
    compare("check-iam-off", &clean(&ran.stdout));
    inventory.update_cluster("orders", |cluster| {
        cluster.iam = true;
        cluster.status = "stopped".to_owned();
    });
    lab.check(&[]).await.failed("settings", "rds.status");
    let ran = lab.text(&[]).await;
    compare("check-stopped", &clean(&ran.stdout));
    inventory.update_cluster("orders", |cluster| {
        cluster.status = "available".to_owned();
    });

    // A simulation that says no is no reason not to try.
    let resource =
        format!("arn:aws:rds-db:eu-central-1:123456789012:dbuser:{CLUSTER_RESOURCE_ID}/db_user");
    for (kind, decision) in [
        ("", "implicitDeny"),
        ("explicit:", "explicitDeny"),
        ("scp:", "explicitDeny"),
    ] {
        let denied = [&*format!("{kind}rds-db:connect {resource}")];
        lab.forbid(&denied, true);
        let answer = lab.check(&["--no-speed"]).await;
        assert_eq!(answer.passed(), ["permission warning"]);
        assert_eq!(answer.step("permission")["decision"], decision);
        assert_eq!(answer.step("permission")["resource"], resource);
        lab.forbid(&denied, false);
    }
    lab.stop().await;
}

#[tokio::test]
async fn without_any_permission_to_look() {
    let mut lab = Lab::start().await;
    lab.forbid(&DESCRIBES, true);
    let answer = lab.check(&["--no-speed"]).await;
    let skipped = ["settings skipped", "permission skipped", "bastion skipped"];
    assert_eq!(answer.passed(), skipped);
    assert_eq!(answer.json["result"], "ok");
    let ran = lab.text(&["--no-speed"]).await;
    assert_eq!(ran.code, Some(0));
    compare("check-no-describes", &clean(&ran.stdout));
    lab.stop().await;
}

#[tokio::test]
async fn nodes_and_sessions() {
    let mut lab = Lab::start().await;
    let agent = lab.sandbox.agent(BASTION);
    agent.set_online(false);
    lab.check(&[])
        .await
        .failed("bastion", "ssm.target-not-connected");
    agent.set_online(true);
    let usual = agent.settings().version;
    agent.update(|it| it.version = "3.1.1320.0".to_owned());
    lab.check(&[]).await.failed("bastion", "ssm.agent-old");
    let ran = lab.text(&[]).await;
    compare("check-agent-old", &clean(&ran.stdout));
    agent.update(|it| it.version = usual);
    lab.forbid(&["ssm:StartSession"], true);
    lab.check(&[]).await.failed("session", "ssm.access-denied");
    lab.forbid(&["ssm:StartSession"], false);
    let answer = lab.check(&["--bastion", "i-0aaaaaaaaaaaaaaaa"]).await;
    answer.failed("bastion", "ssm.target-not-connected");
    let answer = lab.check(&["--bastion", "tag:Name=nobody"]).await;
    answer.failed("bastion", "ssm.no-bastion");
    let both = format!("i-0aaaaaaaaaaaaaaaa,{BASTION}");
    let answer = lab.check(&["--bastion", &both, "--no-speed"]).await;
    assert_eq!(answer.passed(), Vec::<String>::new());
    assert_eq!(answer.step("session")["bastion"], BASTION);
    lab.stop().await;
}

/// Nothing is written down but the database's name at RDS.
#[tokio::test]
async fn what_is_not_written_down_is_found() {
    let config = |db: &str| {
        format!("[targets.orders]\ndb = \"{db}\"\nuser = \"db_user\"\ndatabase = \"app\"\n")
    };
    let mut lab = Lab::with(Setup {
        config: Some(config("orders")),
        ..Setup::default()
    })
    .await;
    let answer = lab.check(&["--no-speed"]).await;
    assert_eq!(answer.passed(), Vec::<String>::new());
    assert_eq!(answer.step("endpoint")["host"], HOST);
    assert_eq!(answer.step("endpoint")["db"], "orders");
    assert_eq!(answer.step("bastion")["bastion"], BASTION);
    let ran = lab.text(&["--no-speed"]).await;
    compare("check-found", &clean(&ran.stdout));
    let file = lab.sandbox.dir().join("pgiam.toml");
    std::fs::write(file, config("ordres")).expect("pgiam.toml");
    let answer = lab.check(&[]).await;
    answer.failed("endpoint", "discover.no-database");
    lab.stop().await;
}

#[tokio::test]
async fn a_check_that_is_stopped_leaves_no_session() {
    let lab = Lab::start().await;
    lab.sandbox.agent(BASTION).update(|it| it.mute = true);
    let mut child = lab.command(&[]).spawn().expect("pgiam");
    let joined = |event: &Event| matches!(event, Event::GatewayConnected { .. });
    let events = lab.sandbox.events();
    let event = events.wait_for_nth(1, joined, PATIENCE).await;
    event.expect("the program joins its session");
    crate::shell::signal(&child, nix::sys::signal::Signal::SIGINT);
    let ended = tokio::time::timeout(PATIENCE, child.wait()).await;
    assert_eq!(ended.expect("in time").expect("pgiam").code(), Some(1));
    assert_eq!(lab.sandbox.open_sessions(), Vec::<String>::new());
    lab.stop().await;
}

#[tokio::test]
async fn the_first_cause_is_the_last_step() {
    let mut lab = Lab::start().await;
    lab.forbid(&["ssm:StartSession"], true);
    let ran = lab.text(&[]).await;
    assert_eq!(ran.code, Some(1));
    compare("check-no-session", &clean(&ran.stdout));
    let answer = lab.check(&[]).await;
    let steps = answer.json["steps"].as_array().expect("steps");
    assert_eq!(steps.len(), STEPS.len());
    lab.stop().await;
}
