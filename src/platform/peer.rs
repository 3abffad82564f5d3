//! Who is at the other end of a local TCP connection: "only the user who runs the proxy may use it".
//!
//! A Unix socket tells its peer's user by itself ([`super::socket::peer_uid`]). A TCP connection
//! does not; on Linux the kernel's socket tables do, as long as both ends are in one network
//! namespace.

use std::io;
use std::net::{IpAddr, SocketAddr};

/// Who owns the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// The socket belongs to this user id, as seen from our user namespace.
    User(u32),
    /// Nobody owns it any more: the client has closed its socket, although what it sent may still
    /// be unread here.
    Gone,
    /// The kernel lists no such socket: it is another machine's or in another network namespace, the
    /// addresses were translated on the way, or the client has reset the connection.
    NotListed,
    /// This operating system does not tell.
    Unknown,
}

/// The effective user id of this process; `None` where there is no such thing (Windows).
#[must_use]
pub fn own_uid() -> Option<u32> {
    #[cfg(unix)]
    {
        Some(rustix::process::geteuid().as_raw())
    }
    #[cfg(not(unix))]
    {
        None
    }
}

/// Whether `addr` is of this machine only. `::ffff:127.0.0.1`, which is how a socket for both
/// families shows an IPv4 peer, counts.
#[must_use]
pub fn is_loopback(addr: IpAddr) -> bool {
    addr.to_canonical().is_loopback()
}

/// Finds the owner of the socket at the other end of a connection that we accepted at `ours` from
/// `peer` (`TcpStream::local_addr`, `TcpStream::peer_addr`).
///
/// Linux only, untested elsewhere: other systems answer [`Owner::Unknown`]. Reads the kernel's
/// tables of all TCP sockets (proc(5), `/proc/net/tcp`) and so blocks: for about 2 ms, in which the
/// kernel walks its hash table, and for 7 µs more with every socket of the machine (measured with
/// 20,000 on a busy machine), and twice as long if the peer is not found. Call it where blocking is
/// allowed.
///
/// # Errors
/// When the tables cannot be read or understood. Then nothing is known about the peer.
pub fn tcp_owner(ours: SocketAddr, peer: SocketAddr) -> io::Result<Owner> {
    #[cfg(target_os = "linux")]
    {
        table::owner(ours, peer)
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (ours, peer);
        Ok(Owner::Unknown)
    }
}

#[cfg(target_os = "linux")]
mod table {
    use std::fs::File;
    use std::io::{self, BufRead, BufReader, Read};
    use std::net::{IpAddr, SocketAddr};

    use super::Owner;

    const V4: &str = "/proc/net/tcp";
    const V6: &str = "/proc/net/tcp6";
    /// Lines are 150 (IPv4) to about 200 (IPv6) bytes long. A longer one is read in parts; none of
    /// them would look like the line that is sought.
    const LONGEST_LINE: u64 = 1024;
    /// The kernel hands the table out in pieces and finds its place again by counting, so that a
    /// socket can be missed when one before it ends in between. Twice in a row is no accident.
    const READS: usize = 2;

    /// The states of a connection that stands or is being closed, and of one that both sides have
    /// closed, as the tables write them (`include/net/tcp_states.h`): `ESTABLISHED`, `FIN_WAIT1`,
    /// `FIN_WAIT2`, `CLOSE_WAIT`, `LAST_ACK`, `CLOSING`.
    const CONNECTED: [&[u8]; 6] = [b"01", b"04", b"05", b"08", b"09", b"0B"];
    const TIME_WAIT: &[u8] = b"06";

    /// The two ends of a connection as the client's socket sees them.
    #[derive(Clone, Copy)]
    pub(super) struct Pair {
        pub(super) local: SocketAddr,
        pub(super) remote: SocketAddr,
    }

    pub(super) fn owner(ours: SocketAddr, peer: SocketAddr) -> io::Result<Owner> {
        let pair = Pair {
            local: peer,
            remote: ours,
        };
        for _ in 0..READS {
            if let Some(owner) = look(pair)? {
                return Ok(owner);
            }
        }
        Ok(Owner::NotListed)
    }

    /// One look into both tables. A client with an `AF_INET6` socket that connects to an IPv4
    /// address, as Java's do, is listed among IPv6 sockets.
    fn look(pair: Pair) -> io::Result<Option<Owner>> {
        let mut seen = None;
        if pair.remote.ip().to_canonical().is_ipv4() {
            seen = find(open(V4)?, pair)?;
        }
        if !matches!(seen, Some(Owner::User(_))) {
            match open(V6) {
                Ok(table) => seen = find(table, pair)?.or(seen),
                // A kernel without IPv6.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(seen)
    }

    fn open(path: &str) -> io::Result<BufReader<File>> {
        match File::open(path) {
            Ok(file) => Ok(BufReader::with_capacity(32 * 1024, file)),
            Err(error) => Err(io::Error::new(error.kind(), format!("{path}: {error}"))),
        }
    }

    /// Searches one table for the socket with the ends of `pair`.
    ///
    /// An entry tells the owner only if it has an inode: a socket that its process has closed is
    /// listed with inode 0, and by many kernels with user 0 as well (`sock_i_uid` in
    /// `net/core/sock.c`), which must not pass for root. And only if it is connected: one that is
    /// about to connect (`SYN_SENT`) may have the ends of a connection that its peer has not
    /// closed yet, and another owner.
    pub(super) fn find(mut table: impl BufRead, pair: Pair) -> io::Result<Option<Owner>> {
        let wanted = [
            (hex(pair.local, false), hex(pair.remote, false)),
            (hex(pair.local, true), hex(pair.remote, true)),
        ];
        let mut orphaned = false;
        let mut line = Vec::with_capacity(256);
        loop {
            line.clear();
            if table
                .by_ref()
                .take(LONGEST_LINE)
                .read_until(b'\n', &mut line)?
                == 0
            {
                return Ok(orphaned.then_some(Owner::Gone));
            }
            let mut fields = line
                .split(u8::is_ascii_whitespace)
                .filter(|field| !field.is_empty());
            let (Some(_number), Some(local), Some(remote)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let is_wanted = wanted
                .iter()
                .any(|(l, r)| l.as_bytes() == local && r.as_bytes() == remote);
            if !is_wanted {
                continue;
            }
            // st, tx_queue:rx_queue, tr:tm->when, retrnsmt, uid, timeout, inode.
            let state = fields.next().unwrap_or_default();
            let uid = number(fields.nth(3))?;
            let inode = number(fields.nth(1))?;
            match (CONNECTED.contains(&state), inode) {
                (true, 1..) => {
                    let uid = u32::try_from(uid).map_err(|_| not_understood())?;
                    return Ok(Some(Owner::User(uid)));
                }
                (true, 0) => orphaned = true,
                (false, _) => orphaned |= state == TIME_WAIT,
            }
        }
    }

    fn number(field: Option<&[u8]>) -> io::Result<u64> {
        field
            .and_then(|digits| str::from_utf8(digits).ok()?.parse().ok())
            .ok_or_else(not_understood)
    }

    fn not_understood() -> io::Error {
        io::Error::new(
            io::ErrorKind::InvalidData,
            "the kernel's table of TCP sockets has an unknown form",
        )
    }

    /// An address as the tables write it: the words of 32 bits in the machine's byte order, the
    /// port in ordinary hexadecimal (`get_tcp4_sock` in `net/ipv4/tcp_ipv4.c`, `get_tcp6_sock` in
    /// `net/ipv6/tcp_ipv6.c`).
    fn hex(addr: SocketAddr, as_v6: bool) -> String {
        use std::fmt::Write;

        let mut text = String::with_capacity(40);
        let mut word = |bytes: [u8; 4]| {
            // Writing to a String cannot fail.
            let _ = write!(text, "{:08X}", u32::from_ne_bytes(bytes));
        };
        match addr.ip().to_canonical() {
            IpAddr::V4(ip) if !as_v6 => word(ip.octets()),
            ip => {
                let ip = match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped(),
                    IpAddr::V6(ip) => ip,
                };
                ip.octets().as_chunks().0.iter().copied().for_each(word);
            }
        }
        let _ = write!(text, ":{:04X}", addr.port());
        text
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream};
    use std::os::fd::AsFd;

    use socket2::{Domain, Socket, Type};

    use super::table::{Pair, find};
    use super::*;

    const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn pair(local: &str, remote: &str) -> Pair {
        Pair {
            local: local.parse().unwrap(),
            remote: remote.parse().unwrap(),
        }
    }

    fn look(table: &str, local: &str, remote: &str) -> Option<Owner> {
        find(table.as_bytes(), pair(local, remote)).unwrap()
    }

    /// Our listener, our side of a connection, and the client's side, as this kernel prints them.
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
            Some(Owner::User(1001)),
            "and not our own side, which is user 1000's"
        );
        assert_eq!(look(&table, "127.0.0.1:54002", "127.0.0.1:5433"), None);
        assert_eq!(look(&table, "127.0.0.1:54000", "127.0.0.2:5433"), None);
        assert_eq!(look(&table, "127.0.0.1:54000", "127.0.0.1:5434"), None);
        // Our listener shows the peer like this when it serves both families.
        assert_eq!(
            look(
                &table,
                "[::ffff:127.0.0.1]:54000",
                "[::ffff:127.0.0.1]:5433"
            ),
            Some(Owner::User(1001))
        );
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_closed_client_is_gone_and_not_root() {
        let table = format!("{HEAD}{V4}");
        assert_eq!(
            look(&table, "127.0.0.1:54001", "127.0.0.1:5433"),
            Some(Owner::Gone)
        );
        // Should a live socket have the same ends, it decides.
        let table = format!("{V4}{}", V4.replace("D2F0", "D2F1"));
        assert_eq!(
            look(&table, "127.0.0.1:54001", "127.0.0.1:5433"),
            Some(Owner::User(1001))
        );
    }

    /// By `net.ipv4.tcp_tw_reuse` or a reset a port can be had again while its last connection
    /// still stands at the other side.
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
            assert_eq!(found(state, "24577"), Some(Owner::User(1001)), "{state}");
            assert_eq!(found(state, "0"), Some(Owner::Gone), "{state}");
        }
        for state in ["02", "03", "07", "0A", "0C", "0D", "??"] {
            assert_eq!(found(state, "24577"), None, "{state}");
        }
        assert_eq!(found("06", "0"), Some(Owner::Gone));
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
            Some(Owner::User(1002))
        );
        assert_eq!(
            look(table, "127.0.0.1:54000", "127.0.0.1:5433"),
            Some(Owner::User(1003))
        );
        assert_eq!(
            look(
                table,
                "[2001:db8:0:1234:0:5678:abcd:ef01]:54000",
                "[::1]:5433"
            ),
            Some(Owner::User(1004))
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
        // Long lines are skipped in pieces; what follows them is found.
        let table = format!("{}\n{V4}", "x".repeat(10_000));
        assert_eq!(look(&table, local, remote), Some(Owner::User(1001)));
        // A matching line without the columns we need says nothing about the owner.
        let line = V4.lines().nth(2).unwrap();
        for end in 0..line.find("24577").unwrap() {
            assert!(!matches!(
                find(&line.as_bytes()[..end], wanted),
                Ok(Some(_))
            ));
        }
        let negative = line.replace("1001", "-1");
        let error = find(negative.as_bytes(), wanted).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }

    struct Connected {
        client: TcpStream,
        accepted: TcpStream,
    }

    impl Connected {
        fn owner(&self) -> Owner {
            tcp_owner(
                self.accepted.local_addr().unwrap(),
                self.accepted.peer_addr().unwrap(),
            )
            .unwrap()
        }
    }

    fn connect(listener: &TcpListener, client: Socket, to: SocketAddr) -> Connected {
        client.connect(&to.into()).unwrap();
        Connected {
            client: client.into(),
            accepted: listener.accept().unwrap().0,
        }
    }

    fn me() -> Owner {
        Owner::User(own_uid().unwrap())
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
        assert_eq!(tcp_owner(to, peer).unwrap(), Owner::Gone);
    }

    #[test]
    fn a_socket_that_is_not_here_is_not_listed() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = listener.local_addr().unwrap();
        // Nobody connects from the port of a listener.
        assert_eq!(tcp_owner(to, to).unwrap(), Owner::NotListed);
        let elsewhere = "198.51.100.7:54000".parse().unwrap();
        assert_eq!(tcp_owner(to, elsewhere).unwrap(), Owner::NotListed);
    }

    /// The owner of a socket is who made it, unless it is given away, which root may do.
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
        assert_eq!(connected.owner(), Owner::User(12_345));
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
}
