//! A name server on loopback whose records tests change while it runs.
//!
//! It is the authority for all names: one it does not know does not exist. Spoken here: queries of
//! class IN over UDP, and over TCP on the same port, with the records A, AAAA and CNAME (RFC 1035
//! sections 4.1 and 4.2; RFC 3596). A CNAME is followed as far as it leads, as resolvers do for their
//! clients.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{JoinHandle, JoinSet};

use crate::harness::sync::lock;

const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;
/// Query type for everything there is.
const ANY: u16 = 255;
const CLASS_IN: u16 = 1;

/// RFC 1035 section 4.1.1.
const FORMAT_ERROR: u8 = 1;
const SERVER_FAILURE: u8 = 2;
const NO_SUCH_NAME: u8 = 3;
const NOT_IMPLEMENTED: u8 = 4;

/// How many CNAMEs are followed: more are a loop.
const MAX_CHAIN: usize = 16;
const HEADER: usize = 12;
/// Ports are taken for UDP and TCP at once; somebody else may have one of the two.
const PORT_ATTEMPTS: usize = 20;

/// What a name leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Record {
    Address(Vec<IpAddr>),
    Alias(String),
}

/// How the server treats questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Manner {
    /// It answers.
    #[default]
    Well,
    /// It says that it has failed (SERVFAIL).
    Fails,
    /// It says nothing.
    Silent,
}

#[derive(Debug)]
struct State {
    names: BTreeMap<String, Record>,
    ttl: Duration,
    manner: Manner,
    questions: Vec<(String, u16)>,
}

/// A running name server on a free port of 127.0.0.1; dropping it ends it.
pub struct DnsServer {
    addr: SocketAddr,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

impl fmt::Debug for DnsServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DnsServer")
            .field("addr", &self.addr)
            .finish_non_exhaustive()
    }
}

impl DnsServer {
    /// Starts listening, knowing no name. Records live for a minute unless told otherwise.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start() -> anyhow::Result<Self> {
        let (udp, tcp) = bind().await?;
        let addr = udp.local_addr()?;
        let state = Arc::new(Mutex::new(State {
            names: BTreeMap::new(),
            ttl: Duration::from_secs(60),
            manner: Manner::Well,
            questions: Vec::new(),
        }));
        let task = tokio::spawn(serve(udp, tcp, state.clone()));
        Ok(Self { addr, state, task })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `name` is another name for `target` from now on.
    pub fn set_cname(&self, name: &str, target: &str) {
        self.set(name, Record::Alias(key(target)));
    }

    /// `name` has these addresses from now on, of both families.
    pub fn set_addresses(&self, name: &str, addresses: &[IpAddr]) {
        self.set(name, Record::Address(addresses.to_vec()));
    }

    /// `name` does not exist from now on.
    pub fn remove(&self, name: &str) {
        lock(&self.state).names.remove(&key(name));
    }

    /// How long answers may be kept, in whole seconds.
    pub fn set_ttl(&self, ttl: Duration) {
        lock(&self.state).ttl = ttl;
    }

    /// How questions are treated from now on.
    pub fn set_manner(&self, manner: Manner) {
        lock(&self.state).manner = manner;
    }

    /// Names that were asked for, in lower case, with the type (1 is A, 5 CNAME, 28 AAAA), oldest
    /// first.
    pub fn questions(&self) -> Vec<(String, u16)> {
        lock(&self.state).questions.clone()
    }

    fn set(&self, name: &str, record: Record) {
        lock(&self.state).names.insert(key(name), record);
    }
}

impl Drop for DnsServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Names are compared without case and without the dot of the root.
fn key(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

async fn bind() -> anyhow::Result<(UdpSocket, TcpListener)> {
    for _ in 0..PORT_ATTEMPTS {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        if let Ok(tcp) = TcpListener::bind(udp.local_addr()?).await {
            return Ok((udp, tcp));
        }
    }
    anyhow::bail!("no port is free for both UDP and TCP")
}

async fn serve(udp: UdpSocket, tcp: TcpListener, state: Arc<Mutex<State>>) {
    let mut open = JoinSet::new();
    let mut buffer = vec![0; 4096];
    loop {
        tokio::select! {
            received = udp.recv_from(&mut buffer) => if let Ok((n, peer)) = received
                && let Some(answer) = answer(&state, &buffer[..n])
            {
                let _ = udp.send_to(&answer, peer).await;
            },
            accepted = tcp.accept() => if let Ok((stream, _)) = accepted {
                open.spawn(serve_tcp(stream, state.clone()));
            },
            Some(_) = open.join_next() => {}
        }
    }
}

async fn serve_tcp(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let result: anyhow::Result<()> = async {
        loop {
            let length = stream.read_u16().await?;
            let mut query = vec![0; usize::from(length)];
            stream.read_exact(&mut query).await?;
            if let Some(answer) = answer(&state, &query) {
                let length = u16::try_from(answer.len()).context("answer is too long")?;
                let framed = [&length.to_be_bytes()[..], &answer].concat();
                stream.write_all(&framed).await?;
            }
        }
    }
    .await;
    if let Err(error) = result {
        tracing::debug!(%error, "DNS connection ended");
    }
}

/// The answer to a query; `None` is silence.
fn answer(state: &Mutex<State>, query: &[u8]) -> Option<Vec<u8>> {
    let mut state = lock(state);
    // A header of a query, not of an answer.
    if query.len() < HEADER || query[2] & 0x80 != 0 {
        return None;
    }
    let question = Question::parse(query);
    if let Some(question) = &question {
        let asked = (question.name.clone(), question.kind);
        state.questions.push(asked);
    }
    let code = match (state.manner, &question) {
        (Manner::Silent, _) => return None,
        (Manner::Fails, _) => SERVER_FAILURE,
        (Manner::Well, _) if query[2] & 0x78 != 0 => NOT_IMPLEMENTED,
        (Manner::Well, None) => FORMAT_ERROR,
        (Manner::Well, Some(question)) => return Some(state.reply(query, question)),
    };
    Some(reply(query, question.as_ref(), code, &[]))
}

/// The one question of a query.
struct Question {
    name: String,
    kind: u16,
    class: u16,
    /// Where it ends in the query.
    end: usize,
}

impl Question {
    fn parse(query: &[u8]) -> Option<Self> {
        if query[4..6] != [0, 1] {
            return None;
        }
        let mut labels = Vec::new();
        let mut at = HEADER;
        loop {
            let length = usize::from(*query.get(at)?);
            at += 1;
            match length {
                0 => break,
                // Nothing to point back to in a question.
                64.. => return None,
                _ => labels.push(query.get(at..at + length)?),
            }
            at += length;
        }
        let tail: [u8; 4] = query.get(at..at + 4)?.try_into().ok()?;
        let labels: Vec<_> = labels.into_iter().map(String::from_utf8_lossy).collect();
        Some(Self {
            name: key(&labels.join(".")),
            kind: u16::from_be_bytes([tail[0], tail[1]]),
            class: u16::from_be_bytes([tail[2], tail[3]]),
            end: at + 4,
        })
    }

    fn wants(&self, kind: u16) -> bool {
        self.kind == kind || self.kind == ANY
    }
}

impl State {
    fn reply(&self, query: &[u8], question: &Question) -> Vec<u8> {
        let mut records = Vec::new();
        let mut name = question.name.clone();
        let mut code = 0;
        for _ in 0..MAX_CHAIN {
            match self.names.get(&name) {
                _ if question.class != CLASS_IN => break,
                None => {
                    // Of the last name in a chain (RFC 6604 section 3).
                    code = NO_SUCH_NAME;
                    break;
                }
                Some(Record::Alias(target)) => {
                    records.push((name.clone(), CNAME, encode_name(target)));
                    if question.wants(CNAME) {
                        break;
                    }
                    name.clone_from(target);
                }
                Some(Record::Address(addresses)) => {
                    for address in addresses {
                        let (kind, data) = match address {
                            IpAddr::V4(v4) => (A, v4.octets().to_vec()),
                            IpAddr::V6(v6) => (AAAA, v6.octets().to_vec()),
                        };
                        if question.wants(kind) {
                            records.push((name.clone(), kind, data));
                        }
                    }
                    break;
                }
            }
        }
        let ttl = u32::try_from(self.ttl.as_secs()).unwrap_or(u32::MAX);
        let records: Vec<_> = records
            .into_iter()
            .map(|(name, kind, data)| encode_record(&name, kind, ttl, &data))
            .collect();
        reply(query, Some(question), code, &records)
    }
}

fn reply(query: &[u8], question: Option<&Question>, code: u8, records: &[Vec<u8>]) -> Vec<u8> {
    let mut out = query[..2].to_vec();
    // Response and authoritative, with the recursion that was asked for; recursion available.
    out.push(0x84 | (query[2] & 0x79));
    out.push(0x80 | code);
    out.extend(u16::from(question.is_some()).to_be_bytes());
    out.extend(u16::try_from(records.len()).unwrap_or(0).to_be_bytes());
    // No authorities, and nothing additional: EDNS is not spoken.
    out.extend([0; 4]);
    if let Some(question) = question {
        out.extend(&query[HEADER..question.end]);
    }
    out.extend(records.concat());
    out
}

fn encode_record(name: &str, kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut out = encode_name(name);
    out.extend(kind.to_be_bytes());
    out.extend(CLASS_IN.to_be_bytes());
    out.extend(ttl.to_be_bytes());
    out.extend(u16::try_from(data.len()).unwrap_or(0).to_be_bytes());
    out.extend(data);
    out
}

/// Labels with their lengths; what is too long for a label (63 bytes) is cut.
fn encode_name(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.').filter(|label| !label.is_empty()) {
        let label = &label.as_bytes()[..label.len().min(63)];
        out.push(u8::try_from(label.len()).unwrap_or(63));
        out.extend(label);
    }
    out.push(0);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALIAS: &str = "orders.db.example.com";
    const HOST: &str = "orders.cluster-abc.eu-central-1.rds.amazonaws.com";

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut out = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        out.extend(encode_name(name));
        out.extend([kind.to_be_bytes(), CLASS_IN.to_be_bytes()].concat());
        out
    }

    async fn ask(server: &DnsServer, query: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.send_to(query, server.addr()).await.unwrap();
        let mut buffer = vec![0; 4096];
        let limit = Duration::from_secs(10);
        let n = tokio::time::timeout(limit, socket.recv(&mut buffer)).await;
        buffer.truncate(n.unwrap().unwrap());
        assert_eq!(buffer[..2], query[..2], "id");
        assert_eq!(buffer[2] & 0x80, 0x80, "an answer");
        buffer
    }

    /// Code and records of an answer, the records as type, TTL and data.
    async fn look_up(server: &DnsServer, name: &str, kind: u16) -> (u8, Vec<(u16, u32, Vec<u8>)>) {
        let query = query(name, kind);
        let answer = ask(server, &query).await;
        let mut at = query.len();
        let mut records = Vec::new();
        for _ in 0..u16::from_be_bytes([answer[6], answer[7]]) {
            while answer[at] != 0 {
                at += 1 + usize::from(answer[at]);
            }
            at += 1;
            let number = |at: usize| u16::from_be_bytes([answer[at], answer[at + 1]]);
            let ttl = u32::from(number(at + 4)) << 16 | u32::from(number(at + 6));
            let length = usize::from(number(at + 8));
            let data = answer[at + 10..at + 10 + length].to_vec();
            records.push((number(at), ttl, data));
            at += 10 + length;
        }
        assert_eq!(at, answer.len());
        (answer[3] & 0x0f, records)
    }

    #[tokio::test]
    async fn a_cname_is_followed_and_can_be_moved() {
        let server = DnsServer::start().await.unwrap();
        server.set_cname("Orders.DB.example.com.", HOST);
        server.set_addresses(
            HOST,
            &["10.0.0.7".parse().unwrap(), "fd00::7".parse().unwrap()],
        );
        server.set_ttl(Duration::from_secs(5));
        let alias = (CNAME, 5, encode_name(HOST));
        let (code, records) = look_up(&server, "ORDERS.db.example.com", A).await;
        assert_eq!(
            (code, records),
            (0, vec![alias.clone(), (A, 5, vec![10, 0, 0, 7])])
        );
        let (_, records) = look_up(&server, ALIAS, CNAME).await;
        assert_eq!(records, [alias]);
        let (_, records) = look_up(&server, HOST, AAAA).await;
        assert_eq!(records.len(), 1);
        server.set_cname(ALIAS, "gone.example.com");
        let (code, records) = look_up(&server, ALIAS, A).await;
        assert_eq!((code, records.len()), (NO_SUCH_NAME, 1));
        server.set_cname("gone.example.com", ALIAS);
        let (code, records) = look_up(&server, ALIAS, A).await;
        assert_eq!((code, records.len()), (0, MAX_CHAIN), "a loop ends");
        server.remove(ALIAS);
        assert_eq!(look_up(&server, ALIAS, A).await, (NO_SUCH_NAME, Vec::new()));
        assert_eq!(server.questions()[0], (ALIAS.to_owned(), A));
        assert_eq!(server.questions().len(), 6);
    }

    #[tokio::test]
    async fn bad_questions_and_bad_manners() {
        let server = DnsServer::start().await.unwrap();
        let whole = query(HOST, A);
        for length in HEADER..whole.len() {
            assert_eq!(ask(&server, &whole[..length]).await[3] & 0x0f, FORMAT_ERROR);
        }
        server.set_manner(Manner::Fails);
        assert_eq!(ask(&server, &whole).await[3] & 0x0f, SERVER_FAILURE);
        server.set_manner(Manner::Silent);
        assert_eq!(answer(&server.state, &whole), None);
        for length in 0..HEADER {
            assert_eq!(answer(&server.state, &whole[..length]), None);
        }
    }

    #[tokio::test]
    async fn tcp_answers_too() {
        let server = DnsServer::start().await.unwrap();
        server.set_addresses(HOST, &["10.0.0.7".parse().unwrap()]);
        let query = query(HOST, A);
        let mut stream = TcpStream::connect(server.addr()).await.unwrap();
        let length = u16::try_from(query.len()).unwrap();
        stream.write_u16(length).await.unwrap();
        stream.write_all(&query).await.unwrap();
        let mut answer = vec![0; usize::from(stream.read_u16().await.unwrap())];
        stream.read_exact(&mut answer).await.unwrap();
        assert!(answer.ends_with(&[10, 0, 0, 7]));
    }
}
