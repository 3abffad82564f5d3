//! Owner of the other end of a local TCP connection, for the rule that only pgiam's user may
//! connect.
//!
//! A Unix socket reports its peer's user by itself (`socket::peer_uid`). A TCP connection
//! does not; the system's table of TCP sockets does, as long as both ends are in one network
//! namespace. On Windows the table has processes, and their users are looked up.

use std::io;
use std::net::{IpAddr, SocketAddr};
#[cfg(target_os = "linux")]
use std::sync::PoisonError;

use super::user::UserId;

/// This operating system reports the owners of TCP connections.
pub const KNOWS_TCP_OWNERS: bool = cfg!(any(target_os = "linux", target_os = "macos", windows));

/// Owner of the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerOwner {
    /// The socket belongs to this user, as seen from pgiam's user namespace.
    User(UserId),
    /// The socket has no owner any more: the client has closed it, although its data may still be
    /// unread here.
    Gone,
    /// The kernel lists no such socket: it is on another machine or in another network namespace,
    /// the addresses were translated on the path, or the client has reset the connection.
    NotListed,
    /// This operating system does not report this owner.
    Unknown,
}

/// The two ends of a connection from the view of the client's socket.
#[cfg(any(target_os = "linux", target_os = "macos", windows))]
#[derive(Clone, Copy, Debug)]
struct SocketPair {
    local: SocketAddr,
    remote: SocketAddr,
}

/// Returns the effective user id of this process; `None` on systems without user ids (Windows).
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

/// Returns `true` for a loopback address. `::ffff:127.0.0.1`, the form of an IPv4 peer on a socket
/// for both families, counts.
#[must_use]
pub fn is_loopback(addr: IpAddr) -> bool {
    addr.to_canonical().is_loopback()
}

/// Looks up owners of the sockets at the other ends of TCP connections.
///
/// Linux, Windows and macOS; other systems return [`PeerOwner::Unknown`]. So do Windows and macOS
/// for a socket that they do not list. (macOS: untested.)
#[derive(Debug, Default)]
pub struct OwnerLookup {
    #[cfg(target_os = "linux")]
    diag: std::sync::OnceLock<Option<std::sync::Mutex<diag::SocketDiag>>>,
    #[cfg(any(target_os = "linux", target_os = "macos", windows))]
    tables: std::sync::OnceLock<reader::TableReader>,
}

impl OwnerLookup {
    /// Opens the socket for lookups, so that they work when no further descriptors are available.
    #[must_use]
    pub fn open() -> Self {
        let lookup = Self::default();
        #[cfg(target_os = "linux")]
        lookup.diag();
        lookup
    }

    /// Finds the owner of the socket at the other end of a connection accepted at `ours` from
    /// `peer` (`TcpStream::local_addr`, `TcpStream::peer_addr`), within microseconds. `None`: only
    /// [`OwnerLookup::in_tables`] can find it.
    #[must_use]
    pub fn at_once(&self, ours: SocketAddr, peer: SocketAddr) -> Option<PeerOwner> {
        #[cfg(target_os = "linux")]
        {
            let pair = SocketPair {
                local: peer,
                remote: ours,
            };
            // The worst that a panic can leave is a request without an answer, which the next one
            // skips.
            let mut diag = self.diag()?.lock().unwrap_or_else(PoisonError::into_inner);
            match diag.owner(pair) {
                Ok(owner) => owner,
                Err(error) => {
                    tracing::debug!(%error, "sock_diag lookup failed");
                    None
                }
            }
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = (ours, peer);
            (!KNOWS_TCP_OWNERS).then_some(PeerOwner::Unknown)
        }
    }

    /// Finds the owner in the system's tables of all TCP sockets (on Linux proc(5),
    /// `/proc/net/tcp`), for systems without [`OwnerLookup::at_once`] and for sockets that it does
    /// not find.
    ///
    /// A thread reads the tables for all lookups that wait at that moment. On Linux a reading takes
    /// about 2 ms, in which the kernel walks its hash table, and 7 µs more for every socket of the
    /// machine (measured with 20,000 on a busy machine). Must be called inside a Tokio runtime.
    /// Cancel-safe.
    ///
    /// # Errors
    /// When the tables cannot be read or parsed. Then the owner is unknown.
    pub async fn in_tables(&self, ours: SocketAddr, peer: SocketAddr) -> io::Result<PeerOwner> {
        #[cfg(any(target_os = "linux", target_os = "macos", windows))]
        {
            let reader = self.tables.get_or_init(reader::TableReader::start);
            reader
                .owner(SocketPair {
                    local: peer,
                    remote: ours,
                })
                .await
        }
        #[cfg(not(any(target_os = "linux", target_os = "macos", windows)))]
        {
            let _ = (ours, peer);
            Ok(PeerOwner::Unknown)
        }
    }

    #[cfg(target_os = "linux")]
    fn diag(&self) -> Option<&std::sync::Mutex<diag::SocketDiag>> {
        let open = || match diag::SocketDiag::open() {
            Ok(diag) => Some(std::sync::Mutex::new(diag)),
            Err(error) => {
                tracing::debug!(%error, "sock_diag is not available; looking up owners of connections in /proc/net/tcp");
                None
            }
        };
        self.diag.get_or_init(open).as_ref()
    }
}

#[cfg(target_os = "linux")]
mod diag;
#[cfg(any(target_os = "macos", test))]
mod pcblist;
#[cfg(any(target_os = "linux", target_os = "macos", windows))]
mod reader;
#[cfg(target_os = "macos")]
mod sysctl_table;
#[cfg(target_os = "macos")]
use sysctl_table as table;
#[cfg(windows)]
mod process_table;
#[cfg(windows)]
use process_table as table;
#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests;

#[cfg(target_os = "linux")]
mod table {
    use std::collections::HashMap;
    use std::fs::File;
    use std::io::{self, BufRead, BufReader, Read};
    use std::net::{IpAddr, SocketAddr};

    use super::{PeerOwner, SocketPair};
    use crate::platform::descriptors;
    use crate::platform::user::UserId;

    const V4: &str = "/proc/net/tcp";
    const V6: &str = "/proc/net/tcp6";
    /// Maximum length of a line. Lines are 150 (IPv4) to about 200 (IPv6) bytes long. A longer one
    /// is read in parts, none of which looks like a matching line.
    const LONGEST_LINE: u64 = 1024;
    /// Number of readings before a socket counts as missing. The kernel returns the table in pieces
    /// and finds its position again by counting, so a socket can be missed when one before it ends
    /// in between; twice in a row is no accident.
    const READS: usize = 2;

    /// States of a connection that is open or being closed, and of one that both sides have closed,
    /// as the tables write them (`include/net/tcp_states.h`): `ESTABLISHED`, `FIN_WAIT1`,
    /// `FIN_WAIT2`, `CLOSE_WAIT`, `LAST_ACK`, `CLOSING`.
    const CONNECTED: [&[u8]; 6] = [b"01", b"04", b"05", b"08", b"09", b"0B"];
    const TIME_WAIT: &[u8] = b"06";

    /// Returns the owners of the sockets with the ends of `pairs`, in their order. Blocks.
    pub(super) fn owners(pairs: &[SocketPair]) -> io::Result<Vec<PeerOwner>> {
        let mut found = vec![None; pairs.len()];
        for _ in 0..READS {
            look(pairs, &mut found)?;
            if found.iter().all(Option::is_some) {
                break;
            }
        }
        let owners = found.into_iter();
        Ok(owners
            .map(|owner| owner.unwrap_or(PeerOwner::NotListed))
            .collect())
    }

    /// Reads both tables once. A client with an `AF_INET6` socket that connects to an IPv4 address,
    /// as Java's do, is listed among IPv6 sockets.
    fn look(pairs: &[SocketPair], found: &mut [Option<PeerOwner>]) -> io::Result<()> {
        if pairs
            .iter()
            .any(|pair| pair.remote.ip().to_canonical().is_ipv4())
        {
            find(open(V4)?, pairs, found)?;
        }
        if !all_users(found) {
            match open(V6) {
                Ok(table) => find(table, pairs, found)?,
                // A kernel without IPv6.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn all_users(found: &[Option<PeerOwner>]) -> bool {
        found
            .iter()
            .all(|owner| matches!(owner, Some(PeerOwner::User(_))))
    }

    fn open(path: &str) -> io::Result<BufReader<File>> {
        match File::open(path) {
            Ok(file) => Ok(BufReader::with_capacity(32 * 1024, file)),
            Err(error) if descriptors::are_exhausted(&error) => Err(error),
            Err(error) => Err(io::Error::new(error.kind(), format!("{path}: {error}"))),
        }
    }

    /// Searches one table for the sockets with the ends of `pairs`, and stores the owners in
    /// `found`.
    ///
    /// An entry has an owner only with an inode: a socket that its process has closed is listed
    /// with inode 0, and by many kernels with user 0 as well (`sock_i_uid` in `net/core/sock.c`),
    /// which must not count as root. And only if it is connected: a socket that is about to connect
    /// (`SYN_SENT`) may have the ends of a connection that its peer has not closed yet, and another
    /// owner.
    pub(super) fn find(
        mut table: impl BufRead,
        pairs: &[SocketPair],
        found: &mut [Option<PeerOwner>],
    ) -> io::Result<()> {
        let wanted = WantedPairs::of(pairs);
        let mut line = Vec::with_capacity(256);
        while !all_users(found) {
            line.clear();
            if table
                .by_ref()
                .take(LONGEST_LINE)
                .read_until(b'\n', &mut line)?
                == 0
            {
                break;
            }
            let mut fields = line
                .split(u8::is_ascii_whitespace)
                .filter(|field| !field.is_empty());
            let (Some(_number), Some(local), Some(remote)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let mut places = wanted.places(local, remote).peekable();
            if places.peek().is_none() {
                continue;
            }
            // st, tx_queue:rx_queue, tr:tm->when, retrnsmt, uid, timeout, inode.
            let state = fields.next().unwrap_or_default();
            let uid = number(fields.nth(3))?;
            let inode = number(fields.nth(1))?;
            let owner = match (CONNECTED.contains(&state), inode) {
                (true, 1..) => {
                    let uid = u32::try_from(uid).map_err(|_| not_understood())?;
                    PeerOwner::User(UserId::Uid(uid))
                }
                (true, 0) => PeerOwner::Gone,
                (false, _) if state == TIME_WAIT => PeerOwner::Gone,
                (false, _) => continue,
            };
            for place in places {
                // A live socket decides, whatever the order.
                match &mut found[place] {
                    Some(PeerOwner::User(_)) => {}
                    other => *other = Some(owner),
                }
            }
        }
        Ok(())
    }

    /// The pairs to find, keyed by the client's end in the notation of the tables.
    struct WantedPairs(HashMap<Vec<u8>, Vec<(Vec<u8>, usize)>>);

    impl WantedPairs {
        fn of(pairs: &[SocketPair]) -> Self {
            let mut wanted: HashMap<_, Vec<_>> = HashMap::with_capacity(pairs.len() * 2);
            for (place, pair) in pairs.iter().enumerate() {
                for as_v6 in [false, true] {
                    let [local, remote] =
                        [pair.local, pair.remote].map(|end| hex(end, as_v6).into_bytes());
                    let ends = wanted.entry(local).or_default();
                    if !ends.contains(&(remote.clone(), place)) {
                        ends.push((remote, place));
                    }
                }
            }
            Self(wanted)
        }

        /// Returns the indexes of the pairs that have these ends.
        fn places(&self, local: &[u8], remote: &[u8]) -> impl Iterator<Item = usize> {
            let ends = self.0.get(local).into_iter().flatten();
            let ends = ends.filter(move |(end, _)| end == remote);
            ends.map(|(_, place)| *place)
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
            "the kernel's table of TCP sockets has an unknown format",
        )
    }

    /// Formats an address in the notation of the tables: the words of 32 bits in the machine's byte
    /// order, the port in ordinary hexadecimal (`get_tcp4_sock` in `net/ipv4/tcp_ipv4.c`,
    /// `get_tcp6_sock` in `net/ipv6/tcp_ipv6.c`).
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
