//! What is behind the tunnel: the port, the certificate, the login.

use protocol_tests::database::front::{Fault, FrontKind};
use protocol_tests::database::rds::{Engine, ServerCertificate};
use protocol_tests::network::vpc::Endpoint;

use super::{Lab, clean, compare};
use crate::support::{HOST, PORT, Setup, ordinary_config};

#[tokio::test]
async fn the_port() {
    let mut lab = Lab::start().await;
    let vpc = lab.sandbox.vpc().clone();
    vpc.add(HOST, PORT, Endpoint::Refused);
    lab.check(&[]).await.failed("port", "tunnel.dial");
    let ran = lab.text(&[]).await;
    compare("check-refused-port", &clean(&ran.stdout));
    vpc.add(HOST, PORT, Endpoint::Blackhole);
    let answer = lab.check(&["--dial-timeout", "1"]).await;
    answer.failed("port", "tunnel.dial-timeout");
    // The agent ends the session over it, before or just after check has seen that open.
    vpc.forget(HOST);
    lab.check(&[]).await.failed("port", "tunnel.name");
    // Nothing of the VPC is known here.
    let answer = lab.check(&["--via", "direct"]).await;
    answer.failed("port", "direct.connect");
    let steps = answer.json["steps"].as_array().expect("steps");
    let tunnel = |name: &str| ["bastion", "session"].contains(&name);
    let mut names = steps.iter().filter_map(|step| step["name"].as_str());
    assert!(!names.any(tunnel));
    lab.stop().await;
}

#[tokio::test]
async fn certificates_that_are_refused() {
    for (certificate, id) in [
        (ServerCertificate::OtherName, "tls.name"),
        (ServerCertificate::Expired, "tls.validity"),
        (ServerCertificate::UnknownAuthority, "tls.issuer"),
        (ServerCertificate::NoTls, "database.no-tls"),
    ] {
        let mut lab = Lab::with(Setup {
            certificate,
            ..Setup::default()
        })
        .await;
        lab.check(&[]).await.failed("tls", id);
        if certificate == ServerCertificate::OtherName {
            let ran = lab.text(&[]).await;
            compare("check-other-name", &clean(&ran.stdout));
        }
        lab.stop().await;
    }
}

#[tokio::test]
async fn logins_that_are_refused() {
    let mut lab = Lab::start().await;
    let key = &lab.sandbox.user().access_key_id.clone();
    let iam = lab.sandbox.iam().clone();
    iam.update(key, |user| user.db_users = vec!["somebody".to_owned()]);
    let answer = lab.check(&[]).await;
    answer.failed("login", "database.login-refused");
    assert_eq!(answer.step("permission")["decision"], "implicitDeny");
    let ran = lab.text(&[]).await;
    compare("check-login-refused", &clean(&ran.stdout));
    iam.update(key, |user| user.db_users = vec!["*".to_owned()]);

    let answer = lab.check(&["--user", "scram_only"]).await;
    answer.failed("login", "database.no-rds-iam");
    assert_eq!(answer.json["cause"]["sqlstate"], "28000");
    let answer = lab.check(&["--database", "nosuch"]).await;
    answer.failed("login", "database.no-database");
    assert_eq!(answer.json["cause"]["sqlstate"], "3D000");
    lab.stop().await;
}

#[tokio::test]
async fn a_server_that_falls_silent() {
    let mut lab = Lab::with(Setup {
        engine: Engine::front(FrontKind::Instance),
        ..Setup::default()
    })
    .await;
    let answer = lab.check(&["--no-speed"]).await;
    assert_eq!(answer.passed(), Vec::<String>::new());
    assert_eq!(answer.step("tls")["alpn"], true);
    let front = lab.database.front().expect("a front");
    front.arm(Fault::SilentAfterStartup, 1);
    let answer = lab.check(&["--login-timeout", "2"]).await;
    answer.failed("login", "database.timeout");
    lab.stop().await;
}

#[tokio::test]
async fn a_client_that_logs_in_by_itself() {
    let mut lab = Lab::with(Setup {
        config: Some(ordinary_config() + "auth = \"passthrough\"\n"),
        ..Setup::default()
    })
    .await;
    lab.sandbox
        .inventory()
        .update_cluster("orders", |cluster| cluster.iam = false);
    let answer = lab.check(&["--user", "scram_only"]).await;
    let skipped = ["login skipped", "rds_iam skipped", "speed skipped"];
    assert_eq!(answer.passed(), skipped);
    lab.stop().await;
}

#[tokio::test]
async fn a_role_that_is_let_in_without_a_token() {
    let mut lab = Lab::with(Setup {
        hba: Some("hostssl all all 127.0.0.1/32 trust".to_owned()),
        ..Setup::default()
    })
    .await;
    let answer = lab.check(&["--user", "scram_only", "--no-speed"]).await;
    let odd = ["login warning", "rds_iam warning"];
    assert_eq!(answer.passed(), odd);
    lab.stop().await;
}

#[tokio::test]
async fn endpoints_of_other_kinds() {
    for (host, kind, skipped) in [
        (
            "abc.dsql.eu-central-1.on.aws",
            FrontKind::Dsql,
            &["settings skipped", "rds_iam skipped"][..],
        ),
        (
            "orders.proxy-abc.eu-central-1.rds.amazonaws.com",
            FrontKind::RdsProxy,
            &[],
        ),
    ] {
        let mut lab = Lab::with(Setup {
            endpoint: (host, PORT),
            config: Some(ordinary_config().replace(HOST, host)),
            engine: Engine::front(kind),
            ..Setup::default()
        })
        .await;
        let answer = lab.check(&[]).await;
        assert_eq!(answer.passed(), skipped, "{host}");
        lab.stop().await;
    }
}
