//! Tests of admission, and that no other code accepts connections.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
#[cfg(target_os = "linux")]
use std::time::Duration;

#[cfg(target_os = "linux")]
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
#[cfg(target_os = "linux")]
use tokio::time::timeout;

use super::guard::judge;
use super::*;
use crate::platform::peer::{PeerOwner, own_uid};
use crate::platform::user::{UserId, own_user};

const OWN: UserId = UserId::Uid(1000);

fn judged(owner: PeerOwner, ours: &str, peer: &str) -> Result<bool, Refusal> {
    let local = is_of_this_machine(ours.parse().unwrap(), peer.parse().unwrap());
    judge(Ok(owner), OWN, local)
}

/// Pairs of addresses that only a client of this machine can have, and below them a pair of another
/// machine's client.
const HERE: [(&str, &str); 5] = [
    ("127.0.0.1:5433", "127.0.0.1:54000"),
    // A client with the address of the machine's interface at its end.
    ("127.0.0.1:5433", "192.0.2.2:54000"),
    ("192.0.2.2:5433", "127.0.0.1:54000"),
    ("[::1]:5433", "[fd00::2]:54000"),
    ("[::ffff:127.0.0.1]:5433", "[::ffff:192.0.2.2]:54000"),
];
const ELSEWHERE: (&str, &str) = ("192.0.2.2:5433", "198.51.100.7:54000");

#[test]
fn only_ones_own_are_admitted_whatever_their_address() {
    for (ours, peer) in HERE.into_iter().chain([ELSEWHERE]) {
        assert_eq!(
            judged(PeerOwner::User(OWN), ours, peer).ok(),
            Some(true),
            "{peer}"
        );
        assert_eq!(
            judged(PeerOwner::Unknown, ours, peer).ok(),
            Some(false),
            "{peer}"
        );
        // Root (0) is another user, too.
        let system = UserId::Sid("S-1-5-18".parse().unwrap());
        for other in [UserId::Uid(1001), UserId::Uid(0), system] {
            let foreign = judged(PeerOwner::User(other), ours, peer).unwrap_err();
            assert!(
                matches!(foreign, Refusal::Foreign { peer, own: OWN } if peer == other),
                "{peer}: {foreign}"
            );
        }
        let gone = judged(PeerOwner::Gone, ours, peer).unwrap_err();
        assert!(matches!(gone, Refusal::Gone), "{peer}: {gone}");
    }
}

#[test]
fn clients_that_must_be_here_and_are_not_known_are_refused() {
    for (ours, peer) in HERE {
        let unknown = judged(PeerOwner::NotListed, ours, peer).unwrap_err();
        assert!(
            matches!(unknown, Refusal::Unknown(_)),
            "{ours} {peer}: {unknown}"
        );
    }
    let (ours, peer) = ELSEWHERE;
    assert_eq!(
        judged(PeerOwner::NotListed, ours, peer).ok(),
        Some(false),
        "the password decides"
    );
    let unreadable = || Err(io::ErrorKind::PermissionDenied.into());
    assert!(matches!(
        judge(unreadable(), OWN, true),
        Err(Refusal::Unknown(_))
    ));
    assert_eq!(judge(unreadable(), OWN, false).ok(), Some(false));
}

/// Applies to any address: without descriptors the owner is unknown, and "its own user only" would
/// be false.
#[test]
#[cfg(unix)]
fn want_of_descriptors_is_its_own_refusal() {
    use rustix::io::Errno;
    for local in [true, false] {
        let refused = judge(Err(Errno::MFILE.into()), OWN, local).unwrap_err();
        assert!(
            matches!(refused, Refusal::OutOfDescriptors { limit } if limit == descriptors_limit()),
            "{refused}"
        );
        let refused = judge(Err(Errno::NFILE.into()), OWN, local).unwrap_err();
        assert!(
            matches!(refused, Refusal::OutOfDescriptors { limit: None }),
            "{refused}"
        );
    }
}

#[cfg(unix)]
fn descriptors_limit() -> Option<u64> {
    crate::platform::descriptors::limit()
}

#[test]
fn the_last_descriptors_are_for_health_and_control() {
    let arrival = Arrival::Local {
        user: own_user().unwrap(),
    };
    let refused = Guard::of_clients(true).judge(arrival, Some(1024));
    assert!(
        matches!(
            refused,
            Some(Err(Refusal::OutOfDescriptors { limit: Some(1024) }))
        ),
        "{refused:?}"
    );
    for guard in [Guard::of_control(), Guard::of_http(true)] {
        assert!(
            matches!(guard.judge(arrival, Some(1024)), Some(Ok(_))),
            "{guard:?}"
        );
    }
}

#[test]
#[cfg(unix)]
fn another_users_client_is_refused_at_a_unix_socket_whatever_is_configured_for_control() {
    let other = Arrival::Local {
        user: UserId::Uid(own_uid().unwrap().wrapping_add(1)),
    };
    for guard in [Guard::of_clients(true), Guard::of_control()] {
        let judged = guard.judge(other, None);
        assert!(
            matches!(judged, Some(Err(Refusal::Foreign { .. }))),
            "{judged:?}"
        );
    }
    for guard in [Guard::of_clients(false), Guard::of_http(false)] {
        assert!(matches!(guard.judge(other, None), Some(Ok(false))));
    }
}

fn entrance(guard: Guard) -> (Entrance<Listening>, SocketAddr) {
    let listening = super::listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = listening.local_addr().unwrap();
    (Entrance::new(listening, Arc::new(guard)), address)
}

#[tokio::test]
async fn an_own_client_comes_in_as_the_owners() {
    let (mut entrance, address) = entrance(Guard::of_clients(true));
    let client = TcpStream::connect(address).await.unwrap();
    let Verdict::Admitted(admitted) = entrance.next().await else {
        panic!("it is ours");
    };
    assert!(admitted.is_owners());
    let from = client.local_addr().unwrap();
    assert_eq!(admitted.arrival().to_string(), from.to_string());
    assert!(admitted.into_stream().nodelay().unwrap(), "it is tuned");
}

#[tokio::test]
async fn without_the_check_no_http_client_is_the_owners_and_none_is_refused() {
    let (mut entrance, address) = entrance(Guard::of_http(false));
    let _client = TcpStream::connect(address).await.unwrap();
    let Verdict::Admitted(admitted) = entrance.next().await else {
        panic!("all clients are admitted");
    };
    assert!(!admitted.is_owners());
    let judged = entrance.guard().is_owners(admitted.arrival()).await;
    assert!(matches!(judged, Ok(false)), "{judged:?}");
    assert!(admitted.arrival().is_of_this_machine());
}

/// Connects as another user: only root may change the owner of sockets.
#[cfg(target_os = "linux")]
async fn foreign(address: SocketAddr) -> TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    std::os::unix::fs::fchown(&socket, Some(12_345), None).unwrap();
    socket.connect(address).await.unwrap()
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn http_clients_are_admitted_before_their_owner_is_looked_up() {
    let (mut entrance, address) = entrance(Guard::of_http(true));
    let guard = entrance.guard();
    let mut admit = async || {
        let Verdict::Admitted(client) = entrance.next().await else {
            panic!("all clients are admitted");
        };
        assert!(!client.is_owners(), "its owner is not known yet");
        client
    };
    let _own = TcpStream::connect(address).await.unwrap();
    let own = admit().await;
    assert!(matches!(guard.is_owners(own.arrival()).await, Ok(true)));
    drop(TcpStream::connect(address).await.unwrap());
    let gone = admit().await;
    let judged = guard.is_owners(gone.arrival()).await;
    assert!(matches!(judged, Err(Refusal::Gone)), "{judged:?}");
    if own_uid() != Some(0) {
        return;
    }
    let _other = foreign(address).await;
    let other = admit().await;
    let judged = guard.is_owners(other.arrival()).await;
    assert!(
        matches!(
            judged,
            Err(Refusal::Foreign {
                peer: UserId::Uid(12_345),
                own: UserId::Uid(0)
            })
        ),
        "{judged:?}"
    );
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn refusals_beyond_the_limit_are_closed_and_do_not_hold_up_the_owner() {
    const MANY: usize = 200;
    if own_uid() != Some(0) {
        return;
    }
    let (mut entrance, address) = entrance(Guard::of_clients(true));
    let mut others = Vec::new();
    for _ in 0..MANY {
        others.push(foreign(address).await);
    }
    let _own = TcpStream::connect(address).await.unwrap();
    let mut told = Vec::new();
    while let Verdict::Refused(refused) = entrance.next().await {
        assert!(matches!(
            refused.refusal(),
            Refusal::Foreign {
                peer: UserId::Uid(12_345),
                own: UserId::Uid(0)
            }
        ));
        told.push(refused);
    }
    assert!((1..MANY).contains(&told.len()), "{}", told.len());
    let mut closed = 0;
    for mut other in others {
        let read = timeout(Duration::from_millis(1), other.read(&mut [0])).await;
        closed += usize::from(matches!(read, Ok(Ok(0) | Err(_))));
    }
    assert_eq!(closed, MANY - told.len(), "the others wait to be told");
}

#[tokio::test]
#[cfg(target_os = "linux")]
async fn clients_that_sent_and_closed_are_told_apart_and_are_all_seen() {
    const MANY: usize = 200;
    let (mut entrance, address) = entrance(Guard::of_clients(true));
    for _ in 0..MANY {
        drop(TcpStream::connect(address).await.unwrap());
        let Verdict::Refused(refused) = entrance.next().await else {
            panic!("nobody owns it any more");
        };
        assert!(matches!(refused.refusal(), Refusal::Gone), "{refused:?}");
    }
}

#[tokio::test]
async fn a_flood_of_clients_that_are_gone_is_heard_and_does_not_fill_the_log() {
    let guard = Guard::of_clients(true);
    let told: Vec<_> = (0..200)
        .map(|_| guard.tells(&Refusal::Gone, false).unwrap())
        .collect();
    let logged = told.iter().filter(|told| !told.is_quiet());
    assert_eq!(logged.count(), 64);
    // It does not count against the limit of other refusals.
    let foreign = guard.tells(&foreign_client(), false);
    assert!(!foreign.unwrap().is_quiet());
}

#[tokio::test]
async fn strangers_that_are_told_hold_a_small_share_of_the_descriptors() {
    let guard = Guard::of_clients(true).with_places(2);
    let foreign = foreign_client;
    let none = || Refusal::OutOfDescriptors { limit: None };
    assert!(guard.tells(&foreign(), true).is_none(), "not the last ones");
    let places = [(); 2].map(|()| guard.tells(&foreign(), false).unwrap());
    assert!(guard.tells(&foreign(), false).is_none(), "not beyond them");
    assert!(guard.tells(&none(), true).is_some(), "the owner hears it");
    assert!(guard.tells(&Refusal::Gone, true).is_some());
    drop(places);
    assert!(guard.tells(&foreign(), false).is_some());
}

fn foreign_client() -> Refusal {
    let (peer, own) = (UserId::Uid(1), UserId::Uid(0));
    Refusal::Foreign { peer, own }
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Returns the lines of a source file that are part of the program, with their numbers: those
/// before its tests.
fn program_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate();
    lines.take_while(|(_, line)| !line.starts_with("#[cfg(test)]"))
}

/// By construction only an entrance makes admitted connections. This test finds listeners that
/// bypass it.
#[test]
fn nothing_else_accepts_connections() {
    // The last one only takes the browser that returns from a login, and gives it no data.
    const ACCEPTS: [&str; 4] = [
        "admission/entrance.rs",
        "platform/socket/pipe.rs",
        "platform/socket/unix.rs",
        "login/callback.rs",
    ];
    const SIGNS: [&str; 6] = [
        ".accept()",
        "poll_accept",
        ".incoming()",
        "TcpListener",
        "UnixListener",
        "ListenerStream",
    ];
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > 100, "the sources are found");
    let (mut strays, mut accepting) = (Vec::new(), 0);
    for path in files {
        let name = path.strip_prefix(&src).unwrap().to_str().unwrap();
        let name = name.replace('\\', "/");
        if name.ends_with("tests.rs") || name.contains("/tests/") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let signs = program_lines(&text).filter(|(_, line)| {
            let code = !line.trim_start().starts_with("//");
            code && SIGNS.iter().any(|sign| line.contains(sign))
        });
        let signs: Vec<_> = signs
            .map(|(nth, line)| format!("{name}:{}: {line}", nth + 1))
            .collect();
        if ACCEPTS.contains(&&*name) {
            accepting += usize::from(!signs.is_empty());
        } else {
            strays.extend(signs);
        }
    }
    assert_eq!(strays, Vec::<String>::new(), "use admission::Entrance");
    assert_eq!(accepting, ACCEPTS.len(), "the list is true");
}

#[cfg(target_os = "linux")]
#[test]
fn no_owner_is_known_without_the_check() {
    assert_eq!(KnownOwners::with(true), KnownOwners::All);
    assert_eq!(KnownOwners::with(false), KnownOwners::None);
}
