//! One connection over several sessions, through `pgiam relay` on the bastion.

use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use protocol_tests::aws::events::Event;
use protocol_tests::database::rds::Engine;
use protocol_tests::harness::ports::free_port;
use protocol_tests::harness::program::{Launch, Proxy};
use protocol_tests::network::vpc::Vpc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::shell::{Shell, admin_command, numbered, streaming};
use crate::support::{BASTION, HOST, PATIENCE, Setup, World, behind, eventually, launch, pgiam};

/// Starts `pgiam relay` for connections to `allow`, on the loopback interface of the bastion. The
/// database is on this machine.
async fn relay(vpc: &Vpc, port: u16, allow: &str) -> Proxy {
    let resolve = format!("{HOST}=127.0.0.1");
    let port_text = port.to_string();
    let args = [
        "relay",
        "--port",
        &port_text,
        "--allow",
        allow,
        "--resolve",
        &resolve,
    ];
    let mut relay = Proxy::start(Launch {
        pgiam: pgiam(),
        args: args.map(Into::into).into(),
        env: Vec::new(),
        collect_log: true,
    })
    .expect("the relay starts");
    relay.wait_ready(PATIENCE).await.expect("the relay listens");
    vpc.open("localhost", port, ([127, 0, 0, 1], relay.port()).into());
    relay
}

/// A world with a relay, whose database needs no password.
struct Relayed {
    world: World,
    relay: Option<Proxy>,
    port: u16,
}

/// What a test begins with.
struct Begin {
    /// Lines of the target.
    target: String,
    /// There is a relay, which allows this, or the database if empty.
    allows: Option<String>,
    paced: bool,
}

impl Default for Begin {
    fn default() -> Self {
        Self {
            target: String::new(),
            allows: Some(String::new()),
            paced: false,
        }
    }
}

impl Relayed {
    async fn start(begin: Begin) -> Self {
        let setup = Setup {
            endpoint: (HOST, 0),
            engine: Engine::Passwords { bindir: None },
            hba: Some("hostssl all all 127.0.0.1/32 trust".to_owned()),
            ..Setup::default()
        };
        let (sandbox, database) = behind(&setup).await;
        let agent = sandbox.agent(BASTION);
        agent.set_pacing(begin.paced);
        let address = database.addr();
        let host = format!("{HOST}:{}", address.port());
        sandbox.vpc().open(HOST, address.port(), address);
        let port = free_port();
        let relay = match begin.allows.as_deref() {
            Some("") => Some(relay(sandbox.vpc(), port, &host).await),
            Some(allow) => Some(relay(sandbox.vpc(), port, allow).await),
            None => None,
        };
        let relay_key = match begin.target.contains("relay") {
            true => String::new(),
            false => format!("relay = {port}\n"),
        };
        let config = format!(
            "[targets.orders]\nhost = \"{host}\"\nuser = \"postgres\"\ndatabase = \"app\"\nport = 0\n\
             bastion = \"{BASTION}\"\nauth = \"passthrough\"\nregion = \"eu-central-1\"\n{relay_key}{}\n",
            begin.target.replace("RELAY", &port.to_string())
        );
        let setup = Setup {
            config: Some(config),
            ..setup
        };
        let mut proxy = launch(&sandbox, &setup);
        proxy.wait_ready(PATIENCE).await.expect("pgiam is ready");
        let world = World {
            proxy,
            database,
            sandbox,
        };
        Self { world, relay, port }
    }

    async fn usual() -> Self {
        Self::start(Begin::default()).await
    }

    async fn paced(sessions: usize) -> Self {
        Self::start(Begin {
            target: format!("sessions = {sessions}"),
            paced: true,
            ..Begin::default()
        })
        .await
    }

    /// Ids of the sessions to the relay, and of those to the database.
    fn started(&self) -> (Vec<String>, Vec<String>) {
        let all = self.world.sandbox.events().all().into_iter();
        let ids = all.filter_map(|event| match event {
            Event::StartSession {
                session_id, port, ..
            } => Some((session_id, port == self.port)),
            _ => None,
        });
        let (to_relay, to_host): (Vec<_>, Vec<_>) = ids.partition(|(_, to_relay)| *to_relay);
        let bare = |ids: Vec<(String, bool)>| ids.into_iter().map(|(id, _)| id).collect();
        (bare(to_relay), bare(to_host))
    }

    async fn stop(self) {
        self.world.stop().await;
        if let Some(relay) = self.relay {
            relay.stop().await.expect("the relay ends on its signal");
        }
    }
}

/// Runs `COPY (query) TO STDOUT` through the proxy; returns the bytes.
async fn copied(world: &World, query: &str) -> Vec<u8> {
    let mut copy = streaming(world, "", query);
    let mut pipe = copy.stdout.take().expect("psql's output");
    let mut received = Vec::new();
    let read = timeout(2 * PATIENCE, pipe.read_to_end(&mut received)).await;
    read.expect("in time").expect("the rows");
    let ended = timeout(PATIENCE, copy.wait_with_output()).await;
    let ended = ended.expect("psql ends").expect("psql");
    assert!(ended.status.success(), "{ended:?}");
    received
}

/// The same past the proxy.
async fn expected(world: &World, query: &str) -> Vec<u8> {
    let copy = format!("copy ({query}) to stdout");
    let output = admin_command(world, &["-c", &copy]).output().await;
    let output = output.expect("psql");
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

/// Lines that differ and that no part of the way can guess.
fn random(rows: u32) -> String {
    format!(
        "select i, (select string_agg(md5(i::text || j), '') from generate_series(1, 31) j) \
         from generate_series(1, {rows}) i"
    )
}

#[tokio::test]
async fn connections_go_through_the_relay() {
    let relayed = Relayed::usual().await;
    let world = &relayed.world;
    for _ in 0..3 {
        let ran = world.psql(&["-Atc", "select 'through'"]).await;
        assert_eq!(
            ran.stdout,
            "through\n",
            "{ran:?}\n{}",
            world.proxy.log_text()
        );
    }
    let (to_relay, to_host) = relayed.started();
    assert_eq!((to_relay.len(), to_host.len()), (1, 0));
    let log = world.proxy.log_text();
    assert!(
        log.contains("connections use the relay of the bastion"),
        "{log}"
    );
    relayed.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_out_is_spread_over_eight_and_sixteen_sessions() {
    for sessions in [8, 16] {
        let relayed = Relayed::paced(sessions).await;
        let world = &relayed.world;
        let query = random(12_000);
        let expected = expected(world, &query).await;
        let length = expected.len();
        let begun = Instant::now();
        let copied = copied(world, &query).await;
        let rate = length as f64 / begun.elapsed().as_secs_f64() / 1e6;
        println!("{sessions} sessions: {length} bytes, {rate:.2} MB/s");
        assert!(copied == expected, "other bytes");
        let (to_relay, to_host) = relayed.started();
        assert_eq!((to_relay.len(), to_host.len()), (sessions, 0));
        // One session carries 0.7 MB/s.
        assert!(rate > 1.5, "{rate}");
        relayed.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_in_arrives_as_it_is() {
    let relayed = Relayed::paced(8).await;
    let world = &relayed.world;
    world.admin("create table taken (i int, text text)").await;
    let mut rows = admin_command(
        world,
        &["-c", &format!("copy ({}) to stdout", random(20_000))],
    );
    let rows = rows.output().await.expect("psql").stdout;
    let mut copy = world.psql_command(&["-c", "copy taken from stdin"]);
    copy.stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut copy = copy.spawn().expect("psql");
    let mut input = copy.stdin.take().expect("its input");
    input.write_all(&rows).await.expect("psql reads");
    drop(input);
    let ended = timeout(2 * PATIENCE, copy.wait_with_output()).await;
    let ended = ended.expect("in time").expect("psql");
    assert_eq!(
        String::from_utf8_lossy(&ended.stdout),
        "COPY 20000\n",
        "{ended:?}"
    );
    let query = "select * from taken order by i";
    assert!(expected(world, query).await == rows, "other rows");
    relayed.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_killed_sessions_cost_a_copy_nothing() {
    let relayed = Relayed::paced(8).await;
    let world = &relayed.world;
    let query = random(40_000);
    let expected = expected(world, &query).await;
    let (done, mut is_done) = tokio::sync::watch::channel(false);
    let copying = async {
        let copied = copied(world, &query).await;
        done.send_replace(true);
        copied
    };
    let killing = async {
        let (mut killed, mut turn) = (0_usize, 7_usize);
        while killed < 20 {
            let dialled = super::dialled(world);
            let mut open = world.sandbox.open_sessions();
            open.retain(|id| dialled.contains(id));
            // Never the last one: that is another test.
            if open.len() >= 2 {
                turn = turn.wrapping_mul(1_103_515_245).wrapping_add(12_345);
                let victim = &open[(turn >> 16) % open.len()];
                killed += usize::from(world.sandbox.end_session(victim, "killed by the test"));
            }
            let pause = Duration::from_millis(60);
            if timeout(pause, is_done.wait_for(|done| *done)).await.is_ok() {
                break;
            }
        }
        killed
    };
    let (copied, killed) = tokio::join!(copying, killing);
    assert_eq!(killed, 20, "while the copy lasted");
    assert!(copied == expected, "other bytes");
    assert!(relayed.started().1.is_empty(), "no session to the database");
    relayed.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_session_is_replaced_as_well() {
    let relayed = Relayed::start(Begin {
        target: "sessions = 1".to_owned(),
        paced: true,
        ..Begin::default()
    })
    .await;
    let world = &relayed.world;
    let query = random(3_000);
    let expected = expected(world, &query).await;
    let copying = copied(world, &query);
    let killing = async {
        for _ in 0..3 {
            let first = eventually("a session that carries bytes", || {
                let open = world.sandbox.open_sessions();
                let dialled = super::dialled(world);
                open.into_iter().find(|id| dialled.contains(id))
            })
            .await;
            tokio::time::sleep(Duration::from_millis(400)).await;
            world.sandbox.end_session(&first, "killed by the test");
        }
    };
    let (copied, ()) = tokio::join!(copying, killing);
    assert!(copied == expected, "other bytes");
    relayed.stop().await;
}

#[tokio::test]
async fn without_a_relay_sessions_lead_to_the_database() {
    for (key, message) in [
        ("relay = RELAY", "cannot use the relay"),
        ("relay = 'auto'", "found no relay"),
    ] {
        let relayed = Relayed::start(Begin {
            target: key.to_owned(),
            allows: None,
            ..Begin::default()
        })
        .await;
        let world = &relayed.world;
        for _ in 0..3 {
            assert_eq!(world.query("select 'without'").await, "without");
        }
        assert_eq!(super::started(world).len(), 2, "one to look, one to use");
        let log = world.proxy.log_text();
        assert_eq!(log.matches(message).count(), 1, "told once: {log}");
        assert!(log.contains("nothing listens on port"), "{log}");
        relayed.stop().await;
    }
}

/// A port that belongs to another program, which answers in its own way.
#[tokio::test]
async fn another_program_on_the_port_is_no_relay() {
    for answer in [
        &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
        b"pgSR\x09\x00\x00\x00",
        b"",
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let relayed = Relayed::start(Begin {
            target: format!("relay = {}", address.port()),
            allows: None,
            ..Begin::default()
        })
        .await;
        let world = &relayed.world;
        world
            .sandbox
            .vpc()
            .open("localhost", address.port(), address);
        let other = tokio::spawn(async move {
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut begin = [0; 27];
                _ = socket.read_exact(&mut begin).await;
                _ = socket.write_all(answer).await;
            }
        });
        assert_eq!(world.query("select 'without'").await, "without");
        let log = world.proxy.log_text();
        assert_eq!(log.matches("cannot use the relay").count(), 1, "{log}");
        relayed.stop().await;
        other.abort();
    }
}

#[tokio::test]
async fn a_restarted_relay_ends_its_connections_and_takes_new_ones() {
    let mut relayed = Relayed::usual().await;
    let mut open = Shell::open(&relayed.world, "");
    open.backend().await;
    let before = relayed.relay.take().expect("it runs");
    before.signal(Signal::SIGKILL).expect("it runs");
    drop(before);
    open.say("select 1;").await;
    let ran = open.end().await;
    assert_ne!(ran.code, Some(0), "{ran:?}");
    assert!(
        ran.stderr
            .contains("the connection to the database was lost"),
        "{ran:?}"
    );
    let allow = format!("{HOST}:{}", relayed.world.database.addr().port());
    let vpc = relayed.world.sandbox.vpc();
    relayed.relay = Some(relay(vpc, relayed.port, &allow).await);
    assert_eq!(relayed.world.query("select 'again'").await, "again");
    let (to_relay, to_host) = relayed.started();
    assert!(to_host.is_empty(), "{to_host:?}");
    assert!(!to_relay.is_empty());
    relayed.stop().await;
}

#[tokio::test]
async fn a_destination_that_the_relay_does_not_allow_is_refused_with_words() {
    let relayed = Relayed::start(Begin {
        allows: Some("other.example.com:5432".to_owned()),
        ..Begin::default()
    })
    .await;
    let ran = relayed.world.psql(&["-c", "select 1"]).await;
    assert_ne!(ran.code, Some(0));
    assert!(
        ran.stderr.contains("does not allow connections to orders."),
        "{ran:?}"
    );
    assert!(ran.stderr.contains("--allow orders."), "{ran:?}");
    assert!(ran.stderr.contains("[relay.not-allowed]"), "{ran:?}");
    assert!(relayed.started().1.is_empty());
    relayed.stop().await;
}

#[tokio::test]
async fn a_cancel_request_takes_the_same_road() {
    let relayed = Relayed::usual().await;
    let world = &relayed.world;
    let sleeping = world
        .psql_command(&["-c", "select pg_sleep(600)"])
        .stderr(Stdio::piped())
        .spawn();
    let sleeping = sleeping.expect("psql");
    world
        .wait_sql("select exists (select from pg_stat_activity where wait_event = 'PgSleep')")
        .await;
    crate::shell::signal(&sleeping, Signal::SIGINT);
    let ended = timeout(PATIENCE, sleeping.wait_with_output()).await;
    let ended = ended.expect("it ends").expect("psql");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(
        said.contains("canceling statement due to user request"),
        "{said}"
    );
    assert!(relayed.started().1.is_empty());
    relayed.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_copies_share_and_a_small_query_overtakes_them() {
    let relayed = Relayed::paced(4).await;
    let world = &relayed.world;
    let query = numbered(6_000);
    let timed = async || {
        let begun = Instant::now();
        assert_eq!(copied(world, &query).await.len(), 6_000 * 1_025);
        begun.elapsed()
    };
    let asking = async {
        let mut psql = Shell::open(world, "");
        psql.backend().await;
        // Until both are under way.
        world
            .wait_sql("select count(*) = 2 from pg_stat_activity where query like 'copy%' and state = 'active'")
            .await;
        let mut times = Vec::new();
        for _ in 0..20 {
            let asked = Instant::now();
            assert_eq!(psql.ask("select 1;").await, "1");
            times.push(asked.elapsed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        times.sort();
        times
    };
    let (first, second, times) = tokio::join!(timed(), timed(), asking);
    println!("copies {first:?} {second:?}, queries {times:?}");
    let (short, long) = (
        first.min(second).as_secs_f64(),
        first.max(second).as_secs_f64(),
    );
    assert!(long < 1.5 * short, "{first:?} {second:?}");
    assert!(times[10] < Duration::from_millis(300), "{times:?}");
    relayed.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unused_sessions_end_the_last_one_later() {
    let relayed = Relayed::start(Begin {
        target: "sessions = 4\nidle_timeout = 1".to_owned(),
        paced: true,
        ..Begin::default()
    })
    .await;
    let world = &relayed.world;
    copied(world, &numbered(3_000)).await;
    assert!(world.sandbox.open_sessions().len() > 1);
    for left in [1, 0] {
        eventually("the sessions end", || {
            (world.sandbox.open_sessions().len() <= left).then_some(())
        })
        .await;
    }
    assert_eq!(world.query("select 'again'").await, "again");
    relayed.stop().await;
}

#[tokio::test]
async fn denied_documents_are_both_named() {
    let relayed = Relayed::start(Begin {
        target: "relay = RELAY".to_owned(),
        allows: None,
        ..Begin::default()
    })
    .await;
    let world = &relayed.world;
    let document = "arn:aws:ssm:eu-central-1::document/AWS-StartPortForwardingSessionToRemoteHost";
    world
        .sandbox
        .iam()
        .update(&world.sandbox.user().access_key_id, |user| {
            user.deny
                .insert(format!("ssm:StartSession:document {document}"));
        });
    let ran = world.psql(&["-c", "select 1"]).await;
    assert!(
        ran.stderr
            .contains("no relay, and no session to the database"),
        "{ran:?}"
    );
    assert!(ran.stderr.contains("nothing listens on port"), "{ran:?}");
    assert!(
        ran.stderr.contains("start pgiam relay on the bastion"),
        "{ran:?}"
    );
    relayed.stop().await;
}
