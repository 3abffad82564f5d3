//! Free ports for programs that are started later.

use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// Ports that the system does not choose by itself: Linux takes its own from 32768 on
/// (`net.ipv4.ip_local_port_range`), macOS and Windows from 49152 on. A port that the system chose
/// may be taken again by any connection or listener before the program under test listens on it.
const FIRST: u32 = 20_000;
const COUNT: u32 = 12_000;
/// Distance between the first ports of two consecutive processes: nextest runs each test in a
/// process of its own.
const STRIDE: u32 = 67;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Returns a port on which no program listens, another one for each call.
///
/// # Panics
/// When every port is in use.
#[must_use]
pub fn free_port() -> u16 {
    let start = process::id().wrapping_mul(STRIDE);
    for _ in 0..COUNT {
        let nth = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        match u16::try_from(FIRST + nth % COUNT) {
            Ok(port) if is_free(port) => return port,
            _ => {}
        }
    }
    panic!("no free port from {FIRST} on");
}

/// Returns several free ports.
#[must_use]
pub fn free_ports<const N: usize>() -> [u16; N] {
    [(); N].map(|()| free_port())
}

fn is_free(port: u16) -> bool {
    // A machine without IPv6 has other errors than "in use".
    let v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, port));
    let taken = v6.is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse);
    !taken && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_in_use_are_left_out() {
        let [first, second] = free_ports();
        assert_ne!(first, second);
        assert!((FIRST..FIRST + COUNT).contains(&first.into()));
        let _held = TcpListener::bind((Ipv4Addr::LOCALHOST, second)).expect("it is free");
        assert!(!is_free(second));
    }
}
