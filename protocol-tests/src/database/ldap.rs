//! The smallest LDAP server that lets PostgreSQL ask "is this password right?".
//!
//! PostgreSQL's `ldap` method in simple bind mode (section 21.10 of its manual) asks the client for a
//! clear-text password, as RDS does for IAM logins, and hands it on unshortened: the only built-in
//! method that carries tokens of several kilobytes. Spoken here: BindRequest with simple
//! authentication and UnbindRequest of RFC 4511.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// `ldapprefix` of the `pg_hba.conf` line that points here.
pub const DN_PREFIX: &str = "cn=";
/// `ldapsuffix` of the `pg_hba.conf` line that points here.
pub const DN_SUFFIX: &str = ",dc=rds";

/// Bytes a message may have: the longest password PostgreSQL takes is 65,535 bytes.
const MAX_MESSAGE: usize = 128 * 1024;

/// RFC 4511 section 4.1.9.
const SUCCESS: u8 = 0;
const PROTOCOL_ERROR: u8 = 2;
const INVALID_CREDENTIALS: u8 = 49;

/// RFC 4511 section 4.2 and 4.3: the tags of the operations and of simple authentication.
const BIND_REQUEST: u8 = 0x60;
const BIND_RESPONSE: u8 = 0x61;
const UNBIND_REQUEST: u8 = 0x42;
const SIMPLE: u8 = 0x80;
/// X.690: universal tags.
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const ENUMERATED: u8 = 0x0a;
const SEQUENCE: u8 = 0x30;

/// Says whether a user (first) may come in with a password (second).
pub type Verifier = dyn Fn(&str, &str) -> bool + Send + Sync;

/// A running server on a free port of 127.0.0.1; dropping it closes everything.
pub struct LdapServer {
    addr: SocketAddr,
    task: JoinHandle<()>,
}

impl fmt::Debug for LdapServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LdapServer")
            .field("addr", &self.addr)
            .finish_non_exhaustive()
    }
}

impl LdapServer {
    /// Starts listening. `verifier` runs on the server's task, so it must be quick.
    pub async fn start(verifier: Arc<Verifier>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("listening for LDAP")?;
        let addr = listener.local_addr()?;
        let task = tokio::spawn(async move {
            // Dropping the set with the task ends the connections too.
            let mut open = JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                        open.spawn(serve(stream, Arc::clone(&verifier)));
                    },
                    Some(_) = open.join_next() => {}
                }
            }
        });
        Ok(Self { addr, task })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Drop for LdapServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, verifier: Arc<Verifier>) {
    if let Err(error) = converse(&mut stream, &*verifier).await {
        tracing::debug!(%error, "LDAP connection ended");
    }
}

async fn converse(stream: &mut TcpStream, verifier: &Verifier) -> anyhow::Result<()> {
    while let Some(message) = read_message(stream).await? {
        let mut body = Reader(&message);
        let id = body.take(INTEGER)?.to_vec();
        let (operation, content) = body.next()?;
        match operation {
            BIND_REQUEST => {
                let code = match Bind::parse(content) {
                    Ok(bind) => bind.judge(verifier),
                    Err(_) => PROTOCOL_ERROR,
                };
                stream.write_all(&bind_response(&id, code)).await?;
            }
            UNBIND_REQUEST => return Ok(()),
            other => bail!("operation {other:#04x} is not spoken here"),
        }
    }
    Ok(())
}

/// A BindRequest with simple authentication.
struct Bind<'a> {
    dn: &'a [u8],
    password: &'a [u8],
}

impl<'a> Bind<'a> {
    fn parse(content: &'a [u8]) -> anyhow::Result<Self> {
        let mut body = Reader(content);
        ensure!(body.take(INTEGER)? == [3], "LDAP version is not 3");
        Ok(Self {
            dn: body.take(OCTET_STRING)?,
            password: body.take(SIMPLE)?,
        })
    }

    fn judge(&self, verifier: &Verifier) -> u8 {
        let user = std::str::from_utf8(self.dn).ok().and_then(user_of_dn);
        match (user, std::str::from_utf8(self.password)) {
            // RFC 4513 section 5.1.2: a name with an empty password proves nothing.
            (_, Ok("")) => INVALID_CREDENTIALS,
            (Some(user), Ok(password)) if verifier(user, password) => SUCCESS,
            _ => INVALID_CREDENTIALS,
        }
    }
}

/// The role name in a bind DN. PostgreSQL writes prefix, name and suffix one after the other and
/// escapes nothing, so a name with a comma or an equals sign comes as it is.
fn user_of_dn(dn: &str) -> Option<&str> {
    dn.strip_prefix(DN_PREFIX)?.strip_suffix(DN_SUFFIX)
}

/// Reads one LDAPMessage and returns what is inside its SEQUENCE; `None` at the end of the stream.
async fn read_message(stream: &mut (impl AsyncRead + Unpin)) -> anyhow::Result<Option<Vec<u8>>> {
    let mut tag = [0];
    if stream.read(&mut tag).await? == 0 {
        return Ok(None);
    }
    ensure!(tag == [SEQUENCE], "not an LDAP message");
    let first = stream.read_u8().await?;
    let length = if first < 0x80 {
        usize::from(first)
    } else {
        let count = usize::from(first & 0x7f);
        ensure!((1..=4).contains(&count), "length of length {count}");
        let mut digits = [0; 4];
        stream.read_exact(&mut digits[4 - count..]).await?;
        usize::try_from(u32::from_be_bytes(digits))?
    };
    ensure!(
        length <= MAX_MESSAGE,
        "message of {length} bytes is too long"
    );
    let mut message = vec![0; length];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}

/// Walks over tag-length-value triples (X.690, definite lengths).
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn next(&mut self) -> anyhow::Result<(u8, &'a [u8])> {
        let [tag, first, rest @ ..] = self.0 else {
            bail!("value cut off");
        };
        let (length, rest) = if *first < 0x80 {
            (usize::from(*first), rest)
        } else {
            let count = usize::from(first & 0x7f);
            ensure!(
                (1..=4).contains(&count) && rest.len() >= count,
                "length cut off"
            );
            let (digits, rest) = rest.split_at(count);
            let length = digits.iter().fold(0, |sum, &d| sum << 8 | usize::from(d));
            (length, rest)
        };
        ensure!(rest.len() >= length, "value cut off");
        let (value, rest) = rest.split_at(length);
        self.0 = rest;
        Ok((*tag, value))
    }

    fn take(&mut self, wanted: u8) -> anyhow::Result<&'a [u8]> {
        let (tag, value) = self.next()?;
        ensure!(tag == wanted, "tag {tag:#04x} instead of {wanted:#04x}");
        Ok(value)
    }
}

/// BindResponse with a result code, no matched DN and no diagnostic text.
fn bind_response(id: &[u8], code: u8) -> Vec<u8> {
    let mut response = vec![ENUMERATED, 1, code, OCTET_STRING, 0, OCTET_STRING, 0];
    response = triple(BIND_RESPONSE, &response);
    let mut message = triple(INTEGER, id);
    message.extend(response);
    triple(SEQUENCE, &message)
}

/// Tag, length and value. Everything sent from here is shorter than 128 bytes; an id is echoed, and
/// RFC 4511 bounds it to four bytes.
fn triple(tag: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![tag, u8::try_from(value.len()).unwrap_or(0x7f).min(0x7f)];
    out.extend(value.iter().take(0x7f));
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn long_triple(tag: u8, value: &[u8]) -> Vec<u8> {
        let mut out = vec![tag, 0x83];
        out.extend(&u32::try_from(value.len()).unwrap().to_be_bytes()[1..]);
        out.extend(value);
        out
    }

    fn bind(id: u8, dn: &str, password: &[u8]) -> Vec<u8> {
        let mut request = triple(INTEGER, &[3]);
        request.extend(long_triple(OCTET_STRING, dn.as_bytes()));
        request.extend(long_triple(SIMPLE, password));
        let mut message = triple(INTEGER, &[id]);
        message.extend(long_triple(BIND_REQUEST, &request));
        long_triple(SEQUENCE, &message)
    }

    async fn answer(stream: &mut TcpStream) -> Vec<u8> {
        let mut bytes = vec![0; 14];
        stream.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    #[tokio::test]
    async fn binds_reach_the_verifier_whole() {
        let seen: Arc<Mutex<Vec<(String, usize)>>> = Arc::default();
        let log = Arc::clone(&seen);
        let server = LdapServer::start(Arc::new(move |user: &str, password: &str| {
            log.lock().unwrap().push((user.to_owned(), password.len()));
            password.starts_with("good")
        }))
        .await
        .unwrap();
        let mut stream = TcpStream::connect(server.addr()).await.unwrap();
        let long = "good".repeat(16_383);
        for (id, dn, password, code) in [
            (1, "cn=db_user,dc=rds", "good", SUCCESS),
            (2, "cn=db_user,dc=rds", "bad", INVALID_CREDENTIALS),
            (3, "cn=odd user@x,dc=rds", &*long, SUCCESS),
            (4, "cn=a,cn=b,dc=rds,dc=rds", "good", SUCCESS),
            (5, "uid=db_user,dc=rds", "good", INVALID_CREDENTIALS),
            (6, "cn=db_user,dc=rds", "", INVALID_CREDENTIALS),
        ] {
            stream
                .write_all(&bind(id, dn, password.as_bytes()))
                .await
                .unwrap();
            assert_eq!(
                answer(&mut stream).await,
                bind_response(&[id], code),
                "{dn}"
            );
        }
        let expected = [
            ("db_user", 4),
            ("db_user", 3),
            ("odd user@x", 65_532),
            ("a,cn=b,dc=rds", 4),
        ];
        let expected: Vec<_> = expected.map(|(u, n)| (u.to_owned(), n)).into();
        assert_eq!(*seen.lock().unwrap(), expected);
    }

    #[tokio::test]
    async fn unbind_and_nonsense_end_the_connection() {
        let server = LdapServer::start(Arc::new(|_: &str, _: &str| true))
            .await
            .unwrap();
        for bytes in [
            vec![SEQUENCE, 5, INTEGER, 1, 1, UNBIND_REQUEST, 0],
            vec![SEQUENCE, 5, INTEGER, 1, 1, 0x63, 0],
            vec![SEQUENCE, 0x84, 0xff, 0xff, 0xff, 0xff],
            vec![SEQUENCE, 0x80],
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        ] {
            let mut stream = TcpStream::connect(server.addr()).await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            let mut rest = Vec::new();
            // Bytes the server did not read turn its close into a reset: both mean "ended".
            let _ = stream.read_to_end(&mut rest).await;
            assert!(rest.is_empty(), "{bytes:?} got {rest:?}");
        }
    }

    #[test]
    fn truncated_binds_are_refused() {
        let whole = bind(1, "cn=a,dc=rds", b"good");
        // Tag and four length bytes come off in read_message.
        let message = &whole[5 - 1..];
        let parse = |bytes: &[u8]| -> anyhow::Result<()> {
            let mut body = Reader(bytes);
            body.take(INTEGER)?;
            Bind::parse(body.take(BIND_REQUEST)?).map(|_| ())
        };
        parse(&message[1..]).unwrap();
        for length in 0..message.len() - 1 {
            assert!(parse(&message[1..][..length]).is_err(), "{length} bytes");
        }
    }

    #[tokio::test]
    async fn dropping_the_server_frees_the_port() {
        let server = LdapServer::start(Arc::new(|_: &str, _: &str| true))
            .await
            .unwrap();
        let addr = server.addr();
        let mut open = TcpStream::connect(addr).await.unwrap();
        open.write_all(&bind(1, "cn=a,dc=rds", b"x")).await.unwrap();
        answer(&mut open).await;
        drop(server);
        assert_eq!(open.read(&mut [0]).await.unwrap_or(0), 0);
    }
}
