use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
use std::os::fd::AsFd;

use socket2::{Domain, Socket, Type};

use super::table::{find, owners};
use super::*;
use crate::platform::user::own_user;

const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

fn pair(local: &str, remote: &str) -> SocketPair {
    SocketPair {
        local: local.parse().unwrap(),
        remote: remote.parse().unwrap(),
    }
}

fn look(table: &str, local: &str, remote: &str) -> Option<PeerOwner> {
    read(table.as_bytes(), pair(local, remote)).unwrap()
}

fn read(table: &[u8], pair: SocketPair) -> io::Result<Option<PeerOwner>> {
    let mut found = [None];
    find(table, &[pair], &mut found)?;
    Ok(found[0])
}

/// The listener, pgiam's end of a connection, and the client's end, as this kernel prints them.
#[cfg(target_endian = "little")]
const V4: &str = "\
   0: 0100007F:1539 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 24576 1 0000000000000000 100 0 0 10 0
   1: 0100007F:1539 0100007F:D2F0 01 00000000:00000000 00:00000000 00000000  1000        0 24578 1 0000000000000000 20 4 30 10 -1
   2: 0100007F:D2F0 0100007F:1539 01 00000000:00000000 00:00000000 00000000  1001        0 24577 1 0000000000000000 20 4 30 10 -1
   3: 0100007F:D2F1 0100007F:1539 05 00000000:00000000 00:00000000 00000000     0        0 0 1 0000000000000000 20 4 30 10 -1
";

#[test]
#[cfg(target_endian = "little")]
fn the_client_side_of_a_v4_connection_is_found() {
    let table = format!("{HEAD}{V4}");
    assert_eq!(
        look(&table, "127.0.0.1:54000", "127.0.0.1:5433"),
        Some(PeerOwner::User(UserId::Uid(1001))),
        "and not our own side, which is user 1000's"
    );
    assert_eq!(look(&table, "127.0.0.1:54002", "127.0.0.1:5433"), None);
    assert_eq!(look(&table, "127.0.0.1:54000", "127.0.0.2:5433"), None);
    assert_eq!(look(&table, "127.0.0.1:54000", "127.0.0.1:5434"), None);
    // A listener for both families shows the peer in this form.
    assert_eq!(
        look(
            &table,
            "[::ffff:127.0.0.1]:54000",
            "[::ffff:127.0.0.1]:5433"
        ),
        Some(PeerOwner::User(UserId::Uid(1001)))
    );
}

#[test]
#[cfg(target_endian = "little")]
fn a_closed_client_is_gone_and_not_root() {
    let table = format!("{HEAD}{V4}");
    assert_eq!(
        look(&table, "127.0.0.1:54001", "127.0.0.1:5433"),
        Some(PeerOwner::Gone)
    );
    // A live socket with the same ends takes precedence.
    let table = format!("{V4}{}", V4.replace("D2F0", "D2F1"));
    assert_eq!(
        look(&table, "127.0.0.1:54001", "127.0.0.1:5433"),
        Some(PeerOwner::User(UserId::Uid(1001)))
    );
}

/// By `net.ipv4.tcp_tw_reuse` or a reset a port can be reused while its last connection is still
/// open at the other side.
#[test]
#[cfg(target_endian = "little")]
fn only_a_connected_socket_tells_its_owner() {
    let line = V4.lines().nth(2).unwrap();
    let found = |state: &str, inode: &str| {
        let line = line.replace(" 01 ", &format!(" {state} "));
        let table = line.replace("24577", inode) + "\n";
        look(&table, "127.0.0.1:54000", "127.0.0.1:5433")
    };
    for state in ["01", "04", "05", "08", "09", "0B"] {
        assert_eq!(
            found(state, "24577"),
            Some(PeerOwner::User(UserId::Uid(1001))),
            "{state}"
        );
        assert_eq!(found(state, "0"), Some(PeerOwner::Gone), "{state}");
    }
    for state in ["02", "03", "07", "0A", "0C", "0D", "??"] {
        assert_eq!(found(state, "24577"), None, "{state}");
    }
    assert_eq!(found("06", "0"), Some(PeerOwner::Gone));
}

#[test]
#[cfg(target_endian = "little")]
fn v6_and_mapped_clients_are_found_among_v6_sockets() {
    let table = "\
   5: 00000000000000000000000001000000:D2F0 00000000000000000000000001000000:1539 01 00000000:00000000 00:00000000 00000000  1002        0 31 1 0 20 4 30 10 -1
   6: 0000000000000000FFFF00000100007F:D2F0 0000000000000000FFFF00000100007F:1539 01 00000000:00000000 00:00000000 00000000  1003        0 32 1 0 20 4 30 10 -1
   7: B80D0120341200007856000001EFCDAB:D2F0 00000000000000000000000001000000:1539 01 00000000:00000000 00:00000000 00000000  1004        0 33 1 0 20 4 30 10 -1
";
    assert_eq!(
        look(table, "[::1]:54000", "[::1]:5433"),
        Some(PeerOwner::User(UserId::Uid(1002)))
    );
    assert_eq!(
        look(table, "127.0.0.1:54000", "127.0.0.1:5433"),
        Some(PeerOwner::User(UserId::Uid(1003)))
    );
    assert_eq!(
        look(
            table,
            "[2001:db8:0:1234:0:5678:abcd:ef01]:54000",
            "[::1]:5433"
        ),
        Some(PeerOwner::User(UserId::Uid(1004)))
    );
}

#[test]
#[cfg(target_endian = "little")]
fn odd_tables_do_no_harm() {
    let (local, remote) = ("127.0.0.1:54000", "127.0.0.1:5433");
    let wanted = pair(local, remote);
    for harmless in ["", "\n\n", " ", "0: ", HEAD, "\u{fffd}\0\0"] {
        assert_eq!(look(harmless, local, remote), None);
    }
    // Long lines are skipped in pieces; the lines after them are found.
    let table = format!("{}\n{V4}", "x".repeat(10_000));
    assert_eq!(
        look(&table, local, remote),
        Some(PeerOwner::User(UserId::Uid(1001)))
    );
    // A matching line without the required columns has no owner.
    let line = V4.lines().nth(2).unwrap();
    for end in 0..line.find("24577").unwrap() {
        assert!(!matches!(
            read(&line.as_bytes()[..end], wanted),
            Ok(Some(_))
        ));
    }
    let negative = line.replace("1001", "-1");
    let error = read(negative.as_bytes(), wanted).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
}

struct Connected {
    client: TcpStream,
    accepted: TcpStream,
}

impl Connected {
    /// Returns the owner by both methods, which must agree.
    fn owner(&self) -> PeerOwner {
        owner(
            self.accepted.local_addr().unwrap(),
            self.accepted.peer_addr().unwrap(),
        )
    }
}

/// Returns the owner of the socket at `peer` by the tables; and by sock_diag, if the kernel
/// supports it and has an answer, which must be the same.
fn owner(ours: SocketAddr, peer: SocketAddr) -> PeerOwner {
    let pair = SocketPair {
        local: peer,
        remote: ours,
    };
    let listed = owners(&[pair]).unwrap()[0];
    if let Some(at_once) = OwnerLookup::open().at_once(ours, peer) {
        assert_eq!(at_once, listed, "{ours} {peer}");
    }
    listed
}

/// Returns `true` if this kernel supports sock_diag; otherwise prints a note.
fn has_diag() -> bool {
    let has = super::diag::SocketDiag::open().is_ok();
    if !has {
        println!("skipped: this kernel has no sock_diag");
    }
    has
}

fn connect(listener: &TcpListener, client: Socket, to: SocketAddr) -> Connected {
    client.connect(&to.into()).unwrap();
    Connected {
        client: client.into(),
        accepted: listener.accept().unwrap().0,
    }
}

fn me() -> PeerOwner {
    PeerOwner::User(own_user().unwrap())
}

#[test]
fn real_connections_are_ours() {
    for ip in [
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ] {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let to = listener.local_addr().unwrap();
        let client = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
        assert_eq!(connect(&listener, client, to).owner(), me(), "{ip}");
    }
}

#[test]
fn a_v6_socket_that_connects_to_v4_is_ours() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mapped = SocketAddr::new(
        Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(),
        listener.local_addr().unwrap().port(),
    );
    let client = Socket::new(Domain::IPV6, Type::STREAM, None).unwrap();
    assert_eq!(connect(&listener, client, mapped).owner(), me());
}

#[test]
fn a_client_that_sent_and_closed_is_gone() {
    use std::io::Write;

    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to = listener.local_addr().unwrap();
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let Connected {
        mut client,
        accepted,
    } = connect(&listener, client, to);
    client.write_all(b"bye").unwrap();
    let peer = accepted.peer_addr().unwrap();
    drop(client);
    assert_eq!(owner(to, peer), PeerOwner::Gone);
}

#[test]
fn a_socket_that_is_not_here_is_not_listed() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to = listener.local_addr().unwrap();
    // No client connects from the port of a listener.
    assert_eq!(owner(to, to), PeerOwner::NotListed);
    let elsewhere = "198.51.100.7:54000".parse().unwrap();
    assert_eq!(owner(to, elsewhere), PeerOwner::NotListed);
}

/// A socket belongs to the user that created it, unless root changes its owner.
#[test]
fn a_socket_of_another_user_is_theirs() {
    if own_uid() != Some(0) {
        return;
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to = listener.local_addr().unwrap();
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let connected = connect(&listener, client, to);
    std::os::unix::fs::fchown(connected.client.as_fd(), Some(12_345), None).unwrap();
    assert_eq!(connected.owner(), PeerOwner::User(UserId::Uid(12_345)));
}

#[test]
fn loopback_in_both_families() {
    for yes in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
        assert!(is_loopback(yes.parse().unwrap()), "{yes}");
    }
    for no in ["0.0.0.0", "10.0.0.1", "::", "::ffff:10.0.0.1", "fe80::1"] {
        assert!(!is_loopback(no.parse().unwrap()), "{no}");
    }
}

/// Common cases must not need the tables.
#[test]
fn sock_diag_finds_what_the_tables_list() {
    if !has_diag() {
        return;
    }
    let lookup = OwnerLookup::open();
    let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).unwrap();
    let [v4_at, v6_at] = [&v4, &v6].map(|listener| listener.local_addr().unwrap());
    let mapped = SocketAddr::new(Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(), v4_at.port());
    for (listener, domain, to) in [
        (&v4, Domain::IPV4, v4_at),
        (&v4, Domain::IPV6, mapped),
        (&v6, Domain::IPV6, v6_at),
    ] {
        let client = Socket::new(domain, Type::STREAM, None).unwrap();
        let Connected { client, accepted } = connect(listener, client, to);
        let ends = (
            accepted.local_addr().unwrap(),
            accepted.peer_addr().unwrap(),
        );
        assert_eq!(lookup.at_once(ends.0, ends.1), Some(me()), "{to}");
        // A listener for both families shows its IPv4 clients with mapped addresses.
        let as_mapped = |end: SocketAddr| match end.ip() {
            IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), end.port()),
            IpAddr::V6(_) => end,
        };
        assert_eq!(
            lookup.at_once(as_mapped(ends.0), as_mapped(ends.1)),
            Some(me()),
            "{to}"
        );
        drop(client);
        assert_eq!(
            lookup.at_once(ends.0, ends.1),
            Some(PeerOwner::Gone),
            "{to}"
        );
        // Both sides closed: TIME_WAIT, or no entry at all.
        drop(accepted);
        let after = lookup.at_once(ends.0, ends.1);
        assert!(
            matches!(after, None | Some(PeerOwner::Gone)),
            "{to}: {after:?}"
        );
    }
}

/// After a client was reset, a listener can take its port at once: the kernel returns that one.
#[test]
fn a_listener_at_the_clients_address_says_nothing() {
    if !has_diag() {
        return;
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to = listener.local_addr().unwrap();
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    client.set_reuse_address(true).unwrap();
    client
        .bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())
        .unwrap();
    let Connected { client, accepted } = connect(&listener, client, to);
    let peer = accepted.peer_addr().unwrap();
    socket2::SockRef::from(&client)
        .set_linger(Some(std::time::Duration::ZERO))
        .unwrap();
    drop(client);
    let next = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    next.set_reuse_address(true).unwrap();
    next.bind(&peer.into()).unwrap();
    next.listen(1).unwrap();
    assert_eq!(OwnerLookup::open().at_once(to, peer), None);
    assert_eq!(owner(to, peer), PeerOwner::NotListed);
}

#[test]
fn a_client_that_is_bound_to_an_interface_is_found() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to = listener.local_addr().unwrap();
    let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    if client.bind_device(Some(b"lo")).is_err() {
        println!("skipped: this user may not bind sockets to interfaces");
        return;
    }
    let connected = connect(&listener, client, to);
    assert_eq!(connected.owner(), me());
    if has_diag() {
        let ends = (to, connected.accepted.peer_addr().unwrap());
        assert_eq!(OwnerLookup::open().at_once(ends.0, ends.1), Some(me()));
    }
}

/// The kernel's answer for a socket without an owner: user 0, and no inode.
#[test]
fn an_answer_without_an_inode_is_not_roots() {
    use netlink_packet_sock_diag::inet::{InetResponseHeader, SocketId};

    let wanted = pair("127.0.0.1:54000", "127.0.0.1:5433");
    let header = |state: u8, uid: u32, inode: u32| InetResponseHeader {
        family: 2,
        state,
        timer: None,
        socket_id: SocketId {
            source_port: 54_000,
            destination_port: 5433,
            source_address: Ipv4Addr::LOCALHOST.into(),
            destination_address: Ipv4Addr::LOCALHOST.into(),
            interface_id: 0,
            cookie: [0; 8],
        },
        recv_queue: 0,
        send_queue: 0,
        uid,
        inode,
    };
    let said = |header| super::diag::owner_in(&header, wanted);
    for state in [1, 4, 5, 8, 9, 11] {
        assert_eq!(
            said(header(state, 0, 7)),
            Some(PeerOwner::User(UserId::Uid(0))),
            "{state}"
        );
        assert_eq!(
            said(header(state, 1001, 7)),
            Some(PeerOwner::User(UserId::Uid(1001))),
            "{state}"
        );
        assert_eq!(said(header(state, 0, 0)), Some(PeerOwner::Gone), "{state}");
    }
    assert_eq!(said(header(6, 0, 0)), Some(PeerOwner::Gone), "TIME_WAIT");
    // SYN_SENT, SYN_RECV, CLOSE, LISTEN, NEW_SYN_RECV, and future states.
    for state in [0, 2, 3, 7, 10, 12, 13, 255] {
        assert_eq!(said(header(state, 0, 7)), None, "{state}");
    }
    let mut other = header(1, 0, 7);
    other.socket_id.source_port += 1;
    assert_eq!(said(other), None, "the answer is about another socket");
}

/// Many concurrent lookups get the same answers, from one thread.
#[tokio::test]
async fn the_tables_are_read_for_all_who_wait() {
    const MANY: usize = 64;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let to = listener.local_addr().unwrap();
    let connected: Vec<Connected> = (0..MANY)
        .map(|_| {
            let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            connect(&listener, client, to)
        })
        .collect();
    let lookup = OwnerLookup::default();
    let peers = connected.iter().map(|it| it.accepted.peer_addr().unwrap());
    let looks: Vec<_> = peers.map(|peer| lookup.in_tables(to, peer)).collect();
    for found in futures_util::future::join_all(looks).await {
        assert_eq!(found.unwrap(), me());
    }
    let elsewhere = "198.51.100.7:54000".parse().unwrap();
    assert_eq!(
        lookup.in_tables(to, elsewhere).await.unwrap(),
        PeerOwner::NotListed
    );
}
