//! A first login through pgiam's own port. Its success proves that the whole connection works; its
//! error is the one a client would get.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::{Buf, Bytes, BytesMut};
use pg_handshake::{ProtocolVersion, ServerError, Startup};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Size of a message's type and length (PostgreSQL docs, "Message Formats").
const HEADER: usize = 5;
/// Longest message of a login; an error with its hint is the longest.
const LONGEST_MESSAGE: usize = 1024 * 1024;
/// SQLSTATE for an unknown database (PostgreSQL docs, "PostgreSQL Error Codes").
const NO_DATABASE: &str = "3D000";
/// Terminate (PostgreSQL docs, "Message Formats").
const TERMINATE: [u8; 5] = *b"X\0\0\0\x04";

/// Result of a first login.
#[derive(Debug)]
pub(super) enum FirstLogin {
    /// The login succeeded.
    Ready,
    /// The database requests a password that only the user's client has: the connection works.
    Asked,
    /// The error, as a client gets it.
    Refused(ServerError),
}

/// Logs in once at a local port, to a database or to the default one, and terminates. Not
/// cancel-safe, but a dropped call leaves nothing open. The caller sets the deadline.
///
/// # Errors
/// The port does not follow the protocol to the end of the login.
pub(super) async fn login(
    port: u16,
    user: &str,
    database: Option<&str>,
) -> anyhow::Result<FirstLogin> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect(address).await?;
    let mut startup = Startup::new(ProtocolVersion::V3_0);
    startup.set("user", user.as_bytes())?;
    if let Some(database) = database {
        startup.set("database", database.as_bytes())?;
    }
    startup.set("application_name", b"pgiam")?;
    stream.write_all(&startup.encode()).await?;
    let mut received = BytesMut::new();
    let first = loop {
        if let Some(frame) = next_frame(&mut received)? {
            match (frame[0], frame.get(HEADER..HEADER + 4)) {
                (b'E', _) => break refused(ServerError::parse(frame)?, database),
                (b'R', Some([0, 0, 0, 0])) => {}
                (b'R', _) => break FirstLogin::Asked,
                (b'Z', _) => break FirstLogin::Ready,
                _ => {}
            }
        } else if stream.read_buf(&mut received).await? == 0 {
            anyhow::bail!("pgiam closed the test connection to its port {port} during the login");
        }
    };
    // A failed write does not matter.
    _ = stream.write_all(&TERMINATE).await;
    Ok(first)
}

/// Classifies an error. If the default database does not exist, a login without a database still
/// succeeded: the server reports it after it has accepted the role.
fn refused(error: ServerError, database: Option<&str>) -> FirstLogin {
    let none = error
        .sqlstate()
        .is_some_and(|state| state.as_str() == NO_DATABASE);
    match database {
        None if none => FirstLogin::Ready,
        _ => FirstLogin::Refused(error),
    }
}

/// Cuts off the next whole message.
fn next_frame(received: &mut BytesMut) -> anyhow::Result<Option<Bytes>> {
    let Some(mut length) = received.get(1..HEADER) else {
        return Ok(None);
    };
    let length = usize::try_from(length.get_u32())?;
    anyhow::ensure!(
        (4..=LONGEST_MESSAGE).contains(&length),
        "invalid message length during the login: {length} bytes"
    );
    let whole = 1 + length;
    Ok((received.len() >= whole).then(|| received.split_to(whole).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_where_they_end() {
        let bytes = b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I";
        for cut in 0..bytes.len() {
            let mut received = BytesMut::from(&bytes[..cut]);
            let first = next_frame(&mut received).unwrap();
            assert_eq!(first.is_some(), cut >= 9, "{cut}");
            assert!(next_frame(&mut received).unwrap().is_none(), "{cut}");
        }
        let mut received = BytesMut::from(&bytes[..]);
        assert_eq!(
            &next_frame(&mut received).unwrap().unwrap()[..],
            &bytes[..9]
        );
        assert_eq!(
            &next_frame(&mut received).unwrap().unwrap()[..],
            &bytes[9..]
        );
        for broken in [&b"E\0\0\0\x03"[..], b"E\xff\xff\xff\xff"] {
            assert!(next_frame(&mut BytesMut::from(broken)).is_err());
        }
    }
}
