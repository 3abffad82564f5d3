//! Connections to the database that are kept ready for the next login.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::*;

const WHO: [(&str, &str); 2] = [("user", "db_user"), ("database", "app")];
const PROXY: &str = "orders.proxy-abc.eu-central-1.rds.amazonaws.com";

/// A world whose program keeps this many connections ready; `None`: as many as by default.
fn keeping(ready: Option<usize>) -> Setup {
    Setup {
        env: vec![("PGIAM_READY", ready.map(|ready| ready.to_string()))],
        ..Setup::default()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic under the lock")
}

/// How often the log has this message.
fn told(world: &World, message: &str) -> usize {
    let message = format!("\"message\":\"{message}\"");
    let log = world.proxy.log_text();
    log.lines().filter(|line| line.contains(&message)).count()
}

const READY: &str = "a connection is ready for the next client";
const ENDED: &str = "connections that were kept ready have ended";
const SILENT: &str = "the connection that was kept ready gave no answer; opening another";

/// Waits until so many connections have become ready.
async fn ready(world: &World, count: usize) {
    eventually("a ready connection", || {
        (told(world, READY) >= count).then_some(())
    })
    .await;
}

async fn log_in(world: &World) -> Raw {
    Raw::log_in(world.proxy.port(), &WHO).await
}

/// Logs in and leaves.
async fn visit(world: &World) {
    log_in(world).await.leave().await;
}

/// The flights of a ready connection, before and after a login in it, and after a query.
async fn trips_in(world: &World, index: usize) -> [u32; 3] {
    ready(world, index).await;
    let down = || flights(world)[index].down;
    let before = down();
    let mut client = log_in(world).await;
    let after = down();
    assert!(client.query("select 1").await.contains(&b'D'));
    let queried = down();
    client.leave().await;
    [before, after, queried]
}

#[tokio::test]
async fn the_next_login_needs_one_round_trip() {
    let counting = || Some(LineOptions::counting());
    let later = Setup {
        line: counting(),
        ..keeping(None)
    };
    let direct = Setup {
        env: keeping(None).env,
        ..instance(true, Some(eighteen().bindir()))
    };
    // SSLRequest and TLS; with direct TLS only that. Then the login, and the query.
    for (setup, expected) in [(later, [2, 3, 4]), (direct, [1, 2, 3])] {
        let world = World::with(setup).await;
        visit(&world).await;
        for index in 1..=3 {
            assert_eq!(trips_in(&world, index).await, expected);
        }
        assert_eq!(tokens(&world), [true; 4]);
        world.stop().await;
    }
}

#[tokio::test]
async fn a_hundred_logins_in_turn() {
    let world = World::with(keeping(None)).await;
    for _ in 0..100 {
        visit(&world).await;
    }
    assert_eq!(tokens(&world), [true; 100]);
    // Each login has a connection of its own, and one is left.
    assert!((100..=101).contains(&dials(&world)), "{}", dials(&world));
    let log = world.proxy.log_text();
    let logins = log.lines().filter(|line| line.contains("connection ready"));
    let without_tls = logins
        .filter(|line| line.contains("\"tls_ms\":0.0"))
        .count();
    assert!(without_tls >= 50, "{without_tls} of 100");
    world.stop().await;
}

/// What happens to a connection on its way to the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It goes on.
    Passes,
    /// It ends now.
    Cut,
    /// It ends when the client sends something.
    CutOnNext,
    /// Nothing of what the client sends arrives.
    Hole,
    /// The client gets a byte that no server sends.
    Garbage,
}

/// One connection on its way to the database.
struct Tapped {
    up: Mutex<Vec<u8>>,
    fate: watch::Sender<Fate>,
    open: AtomicBool,
}

impl Tapped {
    /// The number of encrypted records that the client has sent: TLS 1.3 encrypts the end of its
    /// handshake, which is one, and then the startup packet and the token.
    fn records(&self) -> usize {
        let bytes = lock(&self.up).clone();
        let mut rest = bytes
            .strip_prefix(b"\0\0\0\x08\x04\xd2\x16\x2f")
            .unwrap_or(&bytes);
        let mut count = 0;
        while let Some((head, after)) = rest.split_first_chunk::<5>() {
            count += usize::from(head[0] == 23);
            let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
            rest = after.get(length..).unwrap_or_default();
        }
        count
    }

    fn now(&self) -> Fate {
        *self.fate.borrow()
    }

    async fn carry(&self, mut near: TcpStream, database: SocketAddr) {
        let mut far = TcpStream::connect(database).await.expect("the database");
        let mut fate = self.fate.subscribe();
        let (mut up, mut down) = (vec![0; 65_536], vec![0; 65_536]);
        loop {
            tokio::select! {
                read = near.read(&mut up) => {
                    let now = self.now();
                    match read {
                        Ok(n) if n > 0 && now != Fate::CutOnNext => {
                            if now == Fate::Hole {
                                continue;
                            }
                            lock(&self.up).extend_from_slice(&up[..n]);
                            if far.write_all(&up[..n]).await.is_err() {
                                return;
                            }
                        }
                        _ => return,
                    }
                }
                read = far.read(&mut down) => match read {
                    Ok(n) if n > 0 => if near.write_all(&down[..n]).await.is_err() {
                        return;
                    },
                    _ => return,
                },
                _ = fate.changed() => match self.now() {
                    Fate::Cut => return,
                    Fate::Garbage => _ = near.try_write(b"E"),
                    Fate::Passes | Fate::CutOnNext | Fate::Hole => {}
                },
            }
        }
    }
}

/// The way from the bastion to the database, which can break.
struct Wire {
    connections: Arc<Mutex<Vec<Arc<Tapped>>>>,
    task: JoinHandle<()>,
}

impl Wire {
    /// Leads all connections from now on over this wire.
    async fn lay(world: &World) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let here = listener.local_addr().expect("its address");
        let database = world.database.addr();
        let connections: Arc<Mutex<Vec<Arc<Tapped>>>> = Arc::default();
        let all = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let tapped = Arc::new(Tapped {
                    up: Mutex::default(),
                    fate: watch::Sender::new(Fate::Passes),
                    open: AtomicBool::new(true),
                });
                lock(&all).push(Arc::clone(&tapped));
                tokio::spawn(async move {
                    tapped.carry(near, database).await;
                    tapped.open.store(false, Ordering::Release);
                });
            }
        });
        world.sandbox.vpc().open(HOST, crate::support::PORT, here);
        Self { connections, task }
    }

    /// The connections so far.
    fn all(&self) -> Vec<Arc<Tapped>> {
        lock(&self.connections).clone()
    }

    /// The last one, which nobody uses yet.
    fn last(&self) -> Arc<Tapped> {
        self.all().pop().expect("a connection")
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Waits for the end of a connection.
async fn closed(connection: &Tapped) {
    eventually("the end of a ready connection", || {
        (!connection.open.load(Ordering::Acquire)).then_some(())
    })
    .await;
}

/// Waits for the last record of the handshake, which may be under way when the client has finished.
async fn handshake_ends(connection: &Tapped) {
    eventually("the end of the handshake", || {
        (connection.records() == 1).then_some(())
    })
    .await;
}

/// Changes the settings of the target, and so ends the one with the old settings.
fn change(world: &World) {
    let file = world.sandbox.dir().join("pgiam.toml");
    let text = std::fs::read_to_string(&file).expect("pgiam.toml");
    std::fs::write(&file, format!("{text}login_timeout = 29\n")).expect("pgiam.toml");
    world.proxy.signal(Signal::SIGHUP).expect("pgiam runs");
}

#[tokio::test]
async fn nothing_of_a_login_is_in_one_before_its_client_comes() {
    let world = World::with(keeping(Some(2))).await;
    let wire = Wire::lay(&world).await;
    let first = log_in(&world).await;
    ready(&world, 2).await;
    let all = wire.all();
    assert_eq!(all.len(), 3);
    assert!(all[0].records() > 1);
    for waiting in &all[1..] {
        handshake_ends(waiting).await;
    }
    assert_eq!(tokens(&world).len(), 1);
    let second = log_in(&world).await;
    let records: Vec<usize> = all[1..].iter().map(|it| it.records()).collect();
    assert!(
        records.contains(&1) && records.iter().any(|count| *count > 1),
        "{records:?}"
    );
    first.leave().await;
    second.leave().await;
    world.stop().await;
}

#[tokio::test]
async fn a_dead_one_costs_the_client_nothing_but_an_ordinary_login() {
    for (fate, sign) in [
        (Fate::Cut, ENDED),
        (Fate::Garbage, ENDED),
        (Fate::CutOnNext, SILENT),
        (Fate::Hole, SILENT),
    ] {
        let world = World::with(keeping(None)).await;
        let wire = Wire::lay(&world).await;
        visit(&world).await;
        ready(&world, 1).await;
        let kept = wire.last();
        handshake_ends(&kept).await;
        kept.fate.send_replace(fate);
        if sign == ENDED {
            eventually("its end is seen", || (told(&world, sign) > 0).then_some(())).await;
        }
        assert_eq!(world.query("select 1").await, "1", "{fate:?}");
        // The log may come after the answer.
        eventually("its sign", || (told(&world, sign) > 0).then_some(())).await;
        assert_eq!(refusals(&world), Vec::<Value>::new());
        world.stop().await;
    }
}

#[tokio::test]
async fn one_whose_session_ends_goes_with_it() {
    let world = World::with(keeping(None)).await;
    visit(&world).await;
    ready(&world, 1).await;
    for session in world.sandbox.open_sessions() {
        assert!(world.sandbox.terminate_session(&session));
    }
    assert_eq!(world.query("select 1").await, "1");
    assert_eq!(refusals(&world), Vec::<Value>::new());
    ready(&world, 2).await;
    world.stop().await;
}

#[tokio::test]
async fn a_target_that_has_changed_closes_its_own() {
    let world = World::with(keeping(None)).await;
    let wire = Wire::lay(&world).await;
    let client = log_in(&world).await;
    ready(&world, 1).await;
    let kept = wire.last();
    change(&world);
    closed(&kept).await;
    assert!(
        wire.all()[0].open.load(Ordering::Acquire),
        "the client's stays"
    );
    client.leave().await;
    assert_eq!(world.query("select 1").await, "1");
    world.stop().await;
}

#[tokio::test]
async fn a_session_with_nothing_else_is_closed_as_idle() {
    let world = World::with(Setup {
        config: Some(config(HOST, "idle_timeout = 1")),
        ..keeping(None)
    })
    .await;
    let wire = Wire::lay(&world).await;
    visit(&world).await;
    ready(&world, 1).await;
    let kept = wire.last();
    assert_eq!(world.sandbox.open_sessions().len(), 1);
    closed(&kept).await;
    eventually("the end of the session", || {
        world.sandbox.open_sessions().is_empty().then_some(())
    })
    .await;
    assert_eq!(world.query("select 1").await, "1");
    world.stop().await;
}

#[tokio::test]
async fn a_server_with_little_patience_has_nothing_to_complain_about() {
    let world = World::with(Setup {
        settings: vec![("authentication_timeout", "1s"), ("log_connections", "on")],
        ..keeping(None)
    })
    .await;
    let wire = Wire::lay(&world).await;
    visit(&world).await;
    ready(&world, 1).await;
    eventually("the server ends it", || {
        (told(&world, ENDED) == 1).then_some(())
    })
    .await;
    // There is no other before the next login.
    visit(&world).await;
    ready(&world, 2).await;
    assert_eq!(told(&world, READY), 2);
    assert_eq!(refusals(&world), Vec::<Value>::new());
    // One that pgiam closes, because its target changes while a client is connected.
    let client = log_in(&world).await;
    ready(&world, 3).await;
    let kept = wire.last();
    change(&world);
    closed(&kept).await;
    let log = world.database.postgres().log_tail();
    let is_about_it = |line: &&str| {
        ["SSL error", "could not", "timeout", "unexpected", "invalid"]
            .iter()
            .any(|word| line.contains(word))
    };
    let complaints: Vec<&str> = log.lines().filter(is_about_it).collect();
    assert_eq!(complaints, Vec::<&str>::new(), "{log}");
    let received = log
        .lines()
        .filter(|line| line.contains("connection received"));
    assert!(received.count() >= 4, "{log}");
    client.leave().await;
    world.stop().await;
}

#[tokio::test]
async fn they_take_no_connection_from_others_and_stay_away_from_a_full_server() {
    let world = World::with(Setup {
        settings: vec![
            ("max_connections", "6"),
            ("superuser_reserved_connections", "1"),
        ],
        ..keeping(Some(4))
    })
    .await;
    let mut clients = Vec::new();
    for count in 1..=5 {
        clients.push(log_in(&world).await);
        // Four stand by at all times.
        ready(&world, 3 + count).await;
    }
    let refused = Raw::with_version(
        ([127, 0, 0, 1], world.proxy.port()).into(),
        version(0),
        &WHO,
    )
    .await;
    let (kind, body) = refused.greeting.last().expect("an answer");
    let text = String::from_utf8_lossy(body);
    assert!(*kind == b'E' && text.contains("53300"), "{text}");
    let full = "the server has no connection left; keeping none ready";
    eventually("the news of it", || (told(&world, full) > 0).then_some(())).await;
    let known = dials(&world);
    for client in clients.drain(..) {
        client.leave().await;
    }
    // The server may need a moment for their end.
    let own = "select count(*) from pg_stat_activity where usename = 'db_user'";
    while world.admin(own).await != "0" {}
    visit(&world).await;
    visit(&world).await;
    assert_eq!(dials(&world), known + 2, "no others");
    world.stop().await;
}

#[tokio::test]
async fn there_are_none_to_rds_proxy() {
    let world = World::with(Setup {
        endpoint: (PROXY, crate::support::PORT),
        config: Some(config(PROXY, "")),
        engine: Engine::front(FrontKind::RdsProxy),
        ..keeping(Some(8))
    })
    .await;
    for count in 1..=5 {
        visit(&world).await;
        assert_eq!(dials(&world), count);
    }
    assert_eq!(told(&world, READY), 0);
    world.stop().await;
}
