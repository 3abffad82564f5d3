//! A configuration that changes while connections are open.

use nix::sys::signal::Signal;
use protocol_tests::aws::events::Event;
use protocol_tests::aws::inventory::DbCluster;
use protocol_tests::harness::ports::free_ports;
use protocol_tests::harness::program;

use super::{command, write};
use crate::shell::Shell;
use crate::support::{BASTION, HOST, PATIENCE, PORT, Setup, World, eventually, run};

fn config(targets: &[(&str, u16, &str)]) -> String {
    let mut text = format!("[defaults]\nhost = \"{HOST}\"\nbastion = \"{BASTION}\"\n");
    for (name, port, database) in targets {
        text.push_str(&format!(
            "[targets.{name}]\nport = {port}\nuser = \"db_user\"\ndatabase = \"{database}\"\n"
        ));
    }
    text
}

async fn world(config: String) -> World {
    World::with(Setup {
        config: Some(config),
        ..Setup::default()
    })
    .await
}

fn change(world: &World, text: &str) {
    // As editors do it: another file in its place.
    let path = world.sandbox.dir().join("pgiam.toml");
    let beside = path.with_extension("new");
    write(&beside, text);
    std::fs::rename(beside, path).expect("the file takes its place");
}

/// Has a changed file read at once. Windows has no SIGHUP; there the program looks every two seconds.
fn hang_up(world: &World) {
    if program::windows().is_none() {
        world.proxy.signal(Signal::SIGHUP).expect("pgiam runs");
    }
}

async fn taken_over(world: &World, times: usize) {
    eventually("the configuration is taken over", || {
        let log = world.proxy.log_text();
        (log.matches("\"reloaded the configuration\"").count() >= times).then_some(())
    })
    .await;
}

async fn answers(world: &World, port: u16) -> bool {
    let port = port.to_string();
    let ran = run(world.psql_command(&["-p", &port, "-A", "-t", "-c", "select 1"])).await;
    ran.code == Some(0)
}

/// Ids of the sessions that were started, oldest first.
fn sessions(world: &World) -> Vec<String> {
    let events = world.sandbox.events().all().into_iter();
    let started = events.filter_map(|event| match event {
        Event::StartSession { session_id, .. } => Some(session_id),
        _ => None,
    });
    started.collect()
}

#[tokio::test]
async fn a_changed_file_is_taken_over_and_nobody_is_disturbed() {
    let [stays, goes, comes] = free_ports();
    let world = world(config(&[("stays", stays, "app"), ("goes", goes, "app")])).await;
    // One after the other: so their sessions are in this order.
    let mut on_stays = Shell::open_port(&world, stays);
    assert_eq!(on_stays.ask("select 1;").await, "1");
    let mut on_goes = Shell::open_port(&world, goes);
    assert_eq!(on_goes.ask("select 2;").await, "2");
    let [of_stays, of_goes] = &sessions(&world)[..] else {
        panic!("a session each");
    };

    change(
        &world,
        &config(&[("comes", comes, "postgres"), ("stays", stays, "app")]),
    );
    taken_over(&world, 1).await;
    let port = comes.to_string();
    let ran =
        run(world.psql_command(&["-p", &port, "-A", "-t", "-c", "select current_database()"]));
    assert_eq!(ran.await.rows(), "postgres");
    assert!(!answers(&world, goes).await, "its port is closed");
    // What was open goes on, through the tunnel that it had; what stays has kept its own.
    assert_eq!(on_goes.ask("select 3;").await, "3");
    assert_eq!(on_stays.ask("select 4;").await, "4");
    assert!(answers(&world, stays).await);
    let open = world.sandbox.open_sessions();
    assert!(
        open.contains(of_stays) && open.contains(of_goes),
        "{open:?}"
    );

    // With its last connection the tunnel of a target that is gone ends.
    assert_eq!(on_goes.end().await.code, Some(0));
    eventually("its session has ended", || {
        let open = world.sandbox.open_sessions();
        (!open.contains(of_goes)).then_some(())
    })
    .await;
    assert!(world.sandbox.open_sessions().contains(of_stays));
    assert_eq!(on_stays.end().await.code, Some(0));
    world.stop().await;
}

#[tokio::test]
async fn sighup_is_taken_over_at_once_and_a_broken_file_changes_nothing() {
    let [port, other] = free_ports();
    let world = world(config(&[("orders", port, "app")])).await;
    assert!(answers(&world, port).await);
    let as_it_was = "cannot reload the configuration; keeping the running configuration";
    for (broken, complaint, reason) in [
        (
            "[targets.orders]\nbastoin = 'x'\n",
            as_it_was,
            "did you mean bastion?",
        ),
        ("", as_it_was, "no target is configured"),
        ("[targets.orders]\nvia = 'vpn'\n", as_it_was, "has no host"),
    ] {
        change(&world, broken);
        hang_up(&world);
        eventually("a complaint about it", || {
            let log = world.proxy.log_text();
            let complained = log.contains(&format!("\"message\":\"{complaint}\""));
            (complained && log.contains(reason)).then_some(())
        })
        .await;
    }
    assert!(answers(&world, port).await);

    // One that cannot be meant does not keep the others from it.
    let mut text = config(&[("orders", port, "postgres"), ("second", other, "app")]);
    text.push_str("[targets.third]\nvia = 'vpn'\n");
    change(&world, &text);
    hang_up(&world);
    taken_over(&world, 1).await;
    eventually("what is left out is named", || {
        let log = world.proxy.log_text();
        log.lines()
            .any(|line| line.contains("ignored an invalid target") && line.contains("third"))
            .then_some(())
    })
    .await;
    assert_eq!(world.query("select current_database()").await, "postgres");
    assert!(answers(&world, other).await);
    world.stop().await;
}

#[tokio::test]
async fn a_cancel_finds_its_statement_after_the_target_was_changed() {
    let [port] = free_ports();
    let world = world(config(&[("orders", port, "app")])).await;
    let mut psql = Shell::open_port(&world, port);
    let pid = psql.backend().await;
    psql.say("select pg_sleep(600);").await;
    world
        .wait_sql(&crate::shell::running(pid, "pg_sleep"))
        .await;
    change(&world, &config(&[("orders", port, "postgres")]));
    taken_over(&world, 1).await;
    psql.press_ctrl_c();
    let ran = psql.end().await;
    assert!(
        ran.stderr
            .contains("canceling statement due to user request"),
        "{ran:?}"
    );
    world.stop().await;
}

#[tokio::test]
async fn a_port_that_cannot_be_had_does_not_keep_the_others_from_it() {
    let [free] = free_ports();
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let busy = taken.local_addr().expect("its address").port();
    let world = world(config(&[("busy", busy, "app"), ("free", free, "app")])).await;
    assert_eq!(world.proxy.port(), free);
    let left_out = "ignored an invalid target; serving the others";
    let reason = world
        .proxy
        .wait_log(left_out, PATIENCE)
        .await
        .expect("a reason")["reason"]
        .to_string();
    assert!(
        reason.contains(&format!("127.0.0.1:{busy}")) && reason.contains("in use"),
        "{reason}"
    );
    assert!(answers(&world, free).await);
    // When it is free, a reload has it.
    drop(taken);
    world.proxy.signal(Signal::SIGHUP).expect("pgiam runs");
    taken_over(&world, 1).await;
    assert!(answers(&world, busy).await);
    world.stop().await;
}

#[tokio::test]
async fn what_works_is_not_given_up_for_what_does_not() {
    let [works] = free_ports();
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let busy = taken.local_addr().expect("its address").port();
    let world = world(config(&[("orders", works, "app")])).await;
    change(&world, &config(&[("orders", busy, "app")]));
    hang_up(&world);
    let as_it_was = "cannot reload the configuration; keeping the running configuration";
    let log = world.proxy.wait_log(as_it_was, PATIENCE).await;
    let reason = log.expect("a reason")["reason"].to_string();
    assert!(reason.contains("in use"), "{reason}");
    assert!(answers(&world, works).await);
    let status = run(command(&world.sandbox, &["status"])).await;
    assert!(
        status.stdout.contains("configuration not reloaded"),
        "{status:?}"
    );
    // A port may pass from one target to another.
    change(&world, &config(&[("other", works, "postgres")]));
    taken_over(&world, 1).await;
    let who = world.query("select current_database()").await;
    assert_eq!(who, "postgres");
    let status = run(command(&world.sandbox, &["status"])).await;
    assert!(!status.stdout.contains("not used"), "{status:?}");
    world.stop().await;
}

#[tokio::test]
async fn a_database_is_looked_for_until_it_is_found() {
    let world =
        world("[targets.later]\ndb = \"later\"\nuser = \"db_user\"\nport = 0\n".to_owned()).await;
    let line = world.proxy.ready_line();
    assert!(line.starts_with("not ready  later  "), "{line}");
    assert!(line.contains("→ RDS later as db_user"), "{line}");
    assert!(line.ends_with("[discover.no-database]; retrying"), "{line}");
    let ran = run(world.psql_command(&["-c", "select 1"])).await;
    assert!(ran.stderr.contains("[discover.no-database]"), "{ran:?}");
    let not_ready = run(command(&world.sandbox, &["wait", "--timeout", "0"])).await;
    assert_eq!(not_ready.code, Some(3), "{not_ready:?}");
    let mut later = DbCluster::new("later", HOST, PORT).member("later-1", true);
    later.database = Some("app".to_owned());
    world.sandbox.inventory().add_cluster(later);
    // Nobody has to come for it.
    let ready = run(command(&world.sandbox, &["wait", "--timeout", "60"])).await;
    assert_eq!(ready.code, Some(0), "{ready:?}");
    assert_eq!(world.query("select current_database()").await, "app");
    world.stop().await;
}
