//! The end of one target, as `pgiam status --watch` requests it, while the others are served.

use protocol_tests::harness::ports::free_ports;
use serde_json::Value;
use tokio::time::timeout;

use super::{ask, post, status, until};
use crate::shell::Shell;
use crate::support::{BASTION, HOST, PATIENCE, Setup, World, run};

/// Three targets at one database: `orders` has a port of its own, the others share one, and there
/// is a hub.
struct Lab {
    world: World,
    own: u16,
    shared: u16,
    hub: u16,
}

impl Lab {
    async fn open(drain_timeout: &str) -> Self {
        let [own, shared, hub] = free_ports();
        let mut config = format!(
            "[serve]\nhub_port = {hub}\n[defaults]\nhost = \"{HOST}\"\nbastion = \"{BASTION}\"\nuser = \"db_user\"\ndatabase = \"app\"\n"
        );
        for (name, port) in [("orders", own), ("reports", shared), ("stock", shared)] {
            config.push_str(&format!("[targets.{name}]\nport = {port}\n"));
        }
        let args = ["--drain-timeout", drain_timeout].map(str::to_owned);
        let world = World::with(Setup {
            config: Some(config),
            args: args.into(),
            ..Setup::default()
        });
        Self {
            world: world.await,
            own,
            shared,
            hub,
        }
    }

    async fn stop(&self, name: &str) -> (u16, String) {
        post(&self.world, &format!("/stop-target?name={name}")).await
    }

    /// Stops it, and closes its connections at once.
    async fn stop_now(&self, name: &str) -> (u16, String) {
        self.stop(&format!("{name}&now=1")).await
    }

    fn at(&self, port: u16, database: &str) -> Shell {
        Shell::open(&self.world, &format!("port={port} dbname={database}"))
    }

    async fn refusal(&self, port: u16, database: &str) -> String {
        let conninfo = format!("port={port} dbname={database}");
        let ran = run(self
            .world
            .psql_command(&["-d", &conninfo, "-c", "select 1"]))
        .await;
        assert_eq!(ran.code, Some(2), "{ran:?}");
        ran.stderr
    }

    async fn target(&self, name: &str) -> Value {
        let process = status(&self.world).await;
        let targets = process["targets"].as_array().expect("targets").iter();
        let mut own = targets.filter(|target| target["name"] == name);
        own.next().expect("it is listed").clone()
    }

    /// Waits until the target has neither connections nor sessions.
    async fn until_gone(&self, name: &str) {
        let gone = async {
            loop {
                let target = self.target(name).await;
                let is_empty = |key: &str| target[key].as_array().is_some_and(Vec::is_empty);
                if is_empty("connections") && is_empty("sessions") {
                    return;
                }
            }
        };
        timeout(PATIENCE, gone).await.expect("it ends");
    }
}

#[tokio::test]
async fn a_target_is_stopped_and_the_others_are_not_touched() {
    let lab = Lab::open("0").await;
    let mut on_orders = lab.at(lab.own, "app");
    assert_eq!(on_orders.ask("select 1;").await, "1");
    let mut by_hub = lab.at(lab.hub, "orders/app");
    assert_eq!(by_hub.ask("select 2;").await, "2");
    let mut on_reports = lab.at(lab.shared, "reports");
    assert_eq!(on_reports.ask("select 3;").await, "3");
    assert!(lab.world.sandbox.open_sessions().len() > 1);

    // psql reads the reason only while it waits for an answer.
    on_orders.say("select pg_sleep(600);").await;
    by_hub.say("select pg_sleep(600);").await;
    assert_eq!(lab.stop("orders").await.0, 202);
    for psql in [on_orders, by_hub] {
        let ran = psql.end().await;
        let said = "FATAL:  57P01: target \"orders\": terminating connection because the target was stopped";
        assert!(ran.stderr.contains(said), "{ran:?}");
    }
    lab.until_gone("orders").await;
    let orders = lab.target("orders").await;
    assert_eq!(
        (&orders["state"], &orders["ready"]),
        (&"stopped".into(), &false.into())
    );
    assert_eq!(orders["port"], lab.own);
    for (port, database) in [(lab.own, "app"), (lab.hub, "orders")] {
        let said = lab.refusal(port, database).await;
        assert!(said.contains("target \"orders\" is stopped"), "{said}");
        assert!(said.contains("[target.stopped]"), "{said}");
        let pid = lab.world.proxy.pid().expect("it runs");
        assert!(said.contains(&format!("kill -HUP {pid}")), "{said}");
    }
    let shown = ask(&lab.world, &["status"]).await;
    let remark = "target \"orders\" was stopped on request at ";
    assert!(shown.stdout.contains(remark), "{shown:?}");
    assert!(
        !shown.stdout.contains("terminating connection"),
        "{shown:?}"
    );
    let waited = ask(&lab.world, &["wait", "orders", "--timeout", "0"]).await;
    assert!(
        waited.stderr.contains("target \"orders\" is stopped"),
        "{waited:?}"
    );
    assert_eq!(
        lab.world.sandbox.open_sessions().len(),
        1,
        "its session has ended"
    );

    assert_eq!(on_reports.ask("select 4;").await, "4");
    assert_eq!(lab.at(lab.hub, "stock").ask("select 5;").await, "5");

    // A reload serves it again, at the same port.
    assert_eq!(post(&lab.world, "/reload").await.0, 202);
    let waited = ask(&lab.world, &["wait", "orders", "--timeout", "60"]).await;
    assert_eq!(waited.code, Some(0), "{waited:?}");
    assert_eq!(lab.at(lab.own, "app").ask("select 6;").await, "6");
    assert_eq!(lab.at(lab.hub, "orders").ask("select 7;").await, "7");
    assert_eq!(on_reports.ask("select 8;").await, "8");
    lab.world.stop().await;
}

#[tokio::test]
async fn of_targets_that_share_a_port_the_other_is_still_selected_by_name() {
    let lab = Lab::open("0").await;
    assert_eq!(lab.at(lab.shared, "reports").ask("select 1;").await, "1");
    assert_eq!(lab.stop("reports").await.0, 202);
    lab.until_gone("reports").await;
    // With one target left, the name of the other must not become a database of it.
    let said = lab.refusal(lab.shared, "reports").await;
    assert!(said.contains("[target.stopped]"), "{said}");
    let said = lab.refusal(lab.shared, "nothing").await;
    assert!(said.contains("[target.unknown]"), "{said}");
    assert_eq!(lab.at(lab.shared, "stock").ask("select 2;").await, "2");
    assert_eq!(lab.stop("stock").await.0, 202);
    lab.until_gone("stock").await;
    let said = lab.refusal(lab.shared, "stock").await;
    assert!(said.contains("[target.stopped]"), "{said}");
    let said = lab.refusal(lab.shared, "nothing").await;
    assert!(
        said.contains("All targets on this port are stopped"),
        "{said}"
    );
    assert_eq!(lab.stop("orders").await.0, 202);
    lab.until_gone("orders").await;
    // All of them are stopped, and pgiam still answers and serves them again.
    assert_eq!(post(&lab.world, "/reload").await.0, 202);
    let waited = ask(&lab.world, &["wait", "--timeout", "60"]).await;
    assert_eq!(waited.code, Some(0), "{waited:?}");
    assert_eq!(lab.at(lab.shared, "reports").ask("select 3;").await, "3");
    lab.world.stop().await;
}

#[tokio::test]
async fn open_connections_have_time_until_they_are_closed_on_request() {
    let lab = Lab::open("600").await;
    let mut psql = lab.at(lab.own, "app");
    assert_eq!(psql.ask("select 1;").await, "1");
    let mut other = lab.at(lab.own, "app");
    assert_eq!(other.ask("select 1;").await, "1");
    assert_eq!(lab.stop("orders").await.0, 202);
    let stopped = until(&lab.world, "it is stopped", |target| {
        target["state"] == "stopped"
    })
    .await;
    assert_eq!(stopped["connections"].as_array().map(Vec::len), Some(2));
    assert_ne!(stopped["sessions"].as_array().map(Vec::len), Some(0));
    let said = lab.refusal(lab.own, "app").await;
    assert!(said.contains("[target.stopped]"), "{said}");
    assert_eq!(lab.stop("orders").await.0, 202, "it is stopped already");
    assert_eq!(psql.ask("select 'in peace';").await, "in peace");
    // A cancel request finds its statement at the port of the stopped target.
    let pid = psql.backend().await;
    psql.say("select pg_sleep(600);").await;
    let running = crate::shell::running(pid, "pg_sleep");
    lab.world.wait_sql(&running).await;
    psql.press_ctrl_c();
    let ran = psql.end().await;
    let cancelled = "canceling statement due to user request";
    assert!(ran.stderr.contains(cancelled), "{ran:?}");
    assert_eq!(other.ask("select 2;").await, "2");
    // Sent while the client waits for the answer to a query that takes long.
    other.say("select pg_sleep(600);").await;
    assert_eq!(lab.stop_now("orders").await.0, 202);
    let ran = other.end().await;
    assert!(
        ran.stderr.contains(
            "57P01: target \"orders\": terminating connection because the target was stopped"
        ),
        "{ran:?}"
    );
    lab.until_gone("orders").await;
    assert_eq!(
        lab.stop_now("orders").await.0,
        202,
        "once more does no harm"
    );
    lab.world.stop().await;
}

#[tokio::test]
async fn a_reload_leaves_the_connections_of_a_stopped_target_open() {
    let lab = Lab::open("2").await;
    let mut psql = lab.at(lab.own, "app");
    assert_eq!(psql.ask("select 1;").await, "1");
    assert_eq!(lab.stop("orders").await.0, 202);
    until(&lab.world, "it is stopped", |target| {
        target["state"] == "stopped"
    })
    .await;
    assert_eq!(post(&lab.world, "/reload").await.0, 202);
    let waited = ask(&lab.world, &["wait", "orders", "--timeout", "60"]).await;
    assert_eq!(waited.code, Some(0), "{waited:?}");
    // Longer than the time that its connections had.
    assert_eq!(psql.ask("select 2 from pg_sleep(3);").await, "2");
    assert_eq!(psql.end().await.code, Some(0));
    lab.world.stop().await;
}

#[tokio::test]
async fn what_cannot_be_stopped_is_refused() {
    let lab = Lab::open("0").await;
    let (code, said) = lab.stop("ord%1Bers").await;
    assert_eq!(
        (code, &*said),
        (404, "there is no target \"ord\\u{1b}ers\"\n")
    );
    assert_eq!(post(&lab.world, "/stop-target").await.0, 400);
    assert_eq!(post(&lab.world, "/stop-target?name=").await.0, 400);
    assert_eq!(lab.target("orders").await["ready"], true);
    lab.world.stop().await;
}
