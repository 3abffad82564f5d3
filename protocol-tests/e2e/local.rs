//! The side of the local clients: how they begin, who may connect, how many, and what those can do
//! who mean harm.

mod crowd;
mod drain;
mod hostile;
mod hub;
mod limits;
mod password;
pub(crate) mod peer;
mod prelude;
mod probe;
mod socket;
mod storm;
mod trust;

use std::net::SocketAddr;
use std::sync::Arc;

use protocol_tests::aws::events::Event;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::failures::refusals;
use crate::support::{PATIENCE, Setup, World, eventually};

const SSL_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
const GSS_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x30";
/// ALPN protocol name of PostgreSQL.
const POSTGRESQL: &[u8] = b"postgresql";
/// The ordinary parameters.
const DB_USER: &[u8] = b"user\0db_user\0database\0app\0";
/// Far longer than any test: what ends early was cancelled.
const SLEEP: &str = "select pg_sleep(600)";

/// A world whose program has further arguments.
async fn world_with(args: &[&str]) -> World {
    World::with(Setup {
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        ..Setup::default()
    })
    .await
}

/// How often the world beyond the program has been bothered: sessions, dials and tokens.
fn reached(world: &World) -> usize {
    world.sandbox.events().count(|event| {
        matches!(
            event,
            Event::StartSession { .. } | Event::Dial { .. } | Event::DbToken { .. }
        )
    })
}

/// The one refusal that the log has after its first `known` ones.
async fn told(world: &World, known: usize) -> Value {
    let line = eventually("it is logged", || refusals(world).into_iter().nth(known)).await;
    let all = refusals(world);
    assert_eq!(all.len(), known + 1, "told once: {all:?}");
    line
}

/// A startup packet of protocol 3.`minor`; the parameters' final zero byte is added.
fn startup(minor: u8, parameters: &[u8]) -> Vec<u8> {
    let length = u32::try_from(parameters.len() + 9).expect("a length");
    [&length.to_be_bytes(), &[0, 3, 0, minor], parameters, b"\0"].concat()
}

/// A CancelRequest with a key of any length.
fn cancel_request(pid: u32, key: &[u8]) -> Vec<u8> {
    let length = u32::try_from(key.len() + 12).expect("a length");
    let words = [length, 80_877_102, pid].map(u32::to_be_bytes);
    [&words.concat()[..], key].concat()
}

/// A message of the protocol.
fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a length");
    [&[kind], &length.to_be_bytes()[..], body].concat()
}

/// One field of an ErrorResponse.
fn field(body: &[u8], code: u8) -> String {
    let mut fields = body.split(|byte| *byte == 0);
    let found = fields.find(|field| field.first() == Some(&code));
    String::from_utf8_lossy(found.map_or(&[][..], |field| &field[1..])).into_owned()
}

trait Io: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// A client of the bare protocol.
struct Wire {
    stream: Box<dyn Io>,
    pid: u32,
    key: Vec<u8>,
}

impl Wire {
    fn new(stream: impl Io + 'static) -> Self {
        Self {
            stream: Box::new(stream),
            pid: 0,
            key: Vec::new(),
        }
    }

    async fn connect(world: &World) -> Self {
        Self::connect_to(([127, 0, 0, 1], world.proxy.port()).into()).await
    }

    async fn connect_to(address: SocketAddr) -> Self {
        let connected = timeout(PATIENCE, TcpStream::connect(address)).await;
        Self::new(connected.expect("in time").expect("pgiam listens"))
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("it is taken");
        self.stream.flush().await.expect("it is taken");
    }

    async fn byte(&mut self) -> u8 {
        let read = timeout(PATIENCE, self.stream.read_u8()).await;
        read.expect("an answer in time").expect("an answer")
    }

    /// TLS by the rules of this configuration from now on.
    async fn tls(self, config: ClientConfig) -> std::io::Result<Self> {
        let name = ServerName::try_from("localhost").expect("a name");
        let connecting = TlsConnector::from(Arc::new(config)).connect(name, self.stream);
        let tls = timeout(PATIENCE, connecting).await.expect("in time")?;
        Ok(Self::new(tls))
    }

    /// Messages up to and with the first of this kind.
    async fn until(&mut self, last: u8) -> Vec<(u8, Vec<u8>)> {
        let read = async {
            let mut messages = Vec::new();
            loop {
                let kind = self.stream.read_u8().await.expect("a message");
                let length = self.stream.read_u32().await.expect("its length");
                let mut body = vec![0; usize::try_from(length).expect("a length") - 4];
                self.stream.read_exact(&mut body).await.expect("its body");
                messages.push((kind, body));
                if kind == last {
                    return messages;
                }
            }
        };
        timeout(PATIENCE, read).await.expect("an answer in time")
    }

    /// Sends the startup packet and gives back what comes up to ReadyForQuery.
    async fn log_in(&mut self, packet: &[u8]) -> Vec<(u8, Vec<u8>)> {
        self.send(packet).await;
        let answers = self.until(b'Z').await;
        let key = answers.iter().find(|(kind, _)| *kind == b'K');
        let (pid, key) = key.expect("BackendKeyData").1.split_at(4);
        self.pid = u32::from_be_bytes(pid.try_into().expect("four bytes"));
        self.key = key.to_vec();
        answers
    }

    async fn query(&mut self, sql: &str) {
        self.send(&message(b'Q', &[sql.as_bytes(), b"\0"].concat()))
            .await;
    }

    /// The one value that a query gives.
    async fn value(&mut self, sql: &str) -> String {
        self.query(sql).await;
        let answers = self.until(b'Z').await;
        let row = answers.iter().find(|(kind, _)| *kind == b'D');
        let row = &row.unwrap_or_else(|| panic!("{answers:?}")).1;
        String::from_utf8_lossy(&row[6..]).into_owned()
    }

    /// SQLSTATE and message of the next ErrorResponse.
    async fn error(&mut self) -> (String, String) {
        let answers = self.until(b'E').await;
        let (_, body) = answers.last().expect("the error");
        (field(body, b'C'), field(body, b'M'))
    }

    /// All that comes until the end; a reset is an end, too.
    async fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        let read = timeout(PATIENCE, self.stream.read_to_end(&mut rest)).await;
        _ = read.expect("it closes in time");
        rest
    }

    /// Sends this session's own CancelRequest over `carrier`, up to the close that is its answer.
    async fn cancel_over(&self, mut carrier: Self) {
        carrier.send(&cancel_request(self.pid, &self.key)).await;
        assert_eq!(carrier.rest().await, b"", "a CancelRequest has no answer");
    }
}

/// Trusts the certificate that the program has made, and nothing else.
fn trusting(
    world: &World,
    alpn: &[&[u8]],
    versions: &[&'static SupportedProtocolVersion],
) -> ClientConfig {
    let file = certificate(world);
    let certificate = CertificateDer::from_pem_file(file).expect("server.crt");
    let mut roots = RootCertStore::empty();
    roots.add(certificate).expect("a certificate");
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions);
    let mut config = builder
        .expect("versions of the provider")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

/// The certificate that the program shows, where the documentation says that it is.
fn certificate(world: &World) -> std::path::PathBuf {
    world.sandbox.dir().join("state/local-tls/server.crt")
}
