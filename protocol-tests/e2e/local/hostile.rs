//! Clients that do not play by the rules, by the hundred.

use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _};
use rustls::version::TLS13;
use tokio::io::AsyncWriteExt as _;

use super::{DB_USER, POSTGRESQL, SSL_REQUEST, Wire, cancel_request, message, startup, trusting};
use crate::load::{descriptors, resident};
use crate::support::{Setup, World, eventually, ordinary_config};

/// How many at a time.
const AT_ONCE: usize = 40;
/// What the allocator may keep for the next time, in KiB.
const GROWTH: u64 = 12 * 1024;
const BOUND: Duration = Duration::from_secs(40);

/// Something that changes from number to number and needs no source of chance.
fn noise(seed: usize, length: usize) -> Vec<u8> {
    let mut state = u64::try_from(seed).expect("it is small") | 1;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

/// One hostile connection, up to its end by whichever side. Writing may fail: the program may have
/// had enough.
async fn attack(world: &World, nth: usize) {
    let mut wire = Wire::connect(world).await;
    let login = startup(0, DB_USER);
    match nth % 12 {
        0 => _ = wire.stream.write_all(&login[..login.len() - 3]).await,
        1 => _ = wire.stream.write_all(b"\x7f\xff\xff\xff\0\x03\0\0").await,
        // One byte at a time; the deadline is for all of them.
        2 => {
            for byte in &login[..login.len() - 1] {
                if wire.stream.write_all(&[*byte]).await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        // Half closed in the middle of the packet.
        3 => {
            _ = wire.stream.write_all(&login[..10]).await;
            _ = wire.stream.shutdown().await;
        }
        // TLS, and then silence.
        4 => {
            let config = trusting(world, &[POSTGRESQL], &[&TLS13]);
            if let Ok(tls) = wire.tls(config).await {
                Box::pin(quiet(tls)).await;
            }
            return;
        }
        5 => _ = wire.stream.write_all(&noise(nth, 3_000)).await,
        // A ClientHello that goes nowhere.
        6 => {
            let hello = [&[0x16, 3, 1, 0x3f, 0xff][..], &noise(nth, 2_000)].concat();
            _ = wire.stream.write_all(&hello).await;
        }
        7 => {
            _ = wire.stream.write_all(SSL_REQUEST).await;
            _ = wire.stream.write_all(&noise(nth, 500)).await;
        }
        // A second startup packet while the login runs; the database judges it.
        8 => {
            _ = wire.stream.write_all(&login).await;
            _ = wire.stream.write_all(&login).await;
        }
        // Passwords nobody has asked for, many times what is kept for later.
        9 => {
            _ = wire.stream.write_all(&login).await;
            let flood = message(b'p', &[b'x'; 1_000]).repeat(300);
            _ = tokio::time::timeout(Duration::from_secs(3), wire.stream.write_all(&flood)).await;
        }
        10 => {
            _ = wire
                .stream
                .write_all(&cancel_request(7, &noise(nth, 256)))
                .await
        }
        // Leaves in the middle of its own login.
        _ => {
            _ = wire.stream.write_all(&login).await;
            return;
        }
    }
    quiet(wire).await;
}

/// Says no more, and waits a moment for the end: who is not closed in time goes by itself.
async fn quiet(mut wire: Wire) {
    let end = wire.rest();
    _ = tokio::time::timeout(Duration::from_millis(1_500), end).await;
}

async fn attacks(world: &World, numbers: std::ops::Range<usize>) {
    let all = stream::iter(numbers).map(|nth| attack(world, nth));
    all.buffer_unordered(AT_ONCE).collect::<Vec<()>>().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_hostile_connections_leave_nothing_behind() {
    let world = World::with(Setup {
        config: Some(ordinary_config() + "login_timeout = 5\n"),
        args: ["--startup-timeout", "1", "--log", "info"]
            .map(str::to_owned)
            .into(),
        ..Setup::default()
    })
    .await;
    assert_eq!(world.query("select 1").await, "1");
    let calm = descriptors(&world);
    // Three further sessions may have been opened for the load, and stay: each is a socket and the
    // note of its id.
    let settled = || (descriptors(&world) <= calm + 7).then_some(());
    // The allocator and the tunnel get to know the load first.
    attacks(&world, 0..200).await;
    world.wait_no_backends().await;
    eventually("the descriptors are back", settled).await;
    let (before, begun) = (resident(&world), Instant::now());

    let during = async {
        for nth in 0..5 {
            let sql = format!("select 'during {nth}'");
            assert_eq!(world.query(&sql).await, format!("during {nth}"));
        }
    };
    tokio::join!(attacks(&world, 200..1_200), during);
    let took = begun.elapsed();
    assert_eq!(world.query("select 'after'").await, "after");
    world.wait_no_backends().await;
    eventually("the descriptors are back", settled).await;
    let after = resident(&world);
    println!("VmRSS: {before} → {after} KiB in {took:?}");
    assert!(took < BOUND, "{took:?}");
    assert!(after < before + GROWTH, "{before} → {after} KiB");
    assert!(!world.proxy.log_text().contains("panicked"));
    world.stop().await;
}
