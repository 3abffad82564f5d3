//! A corporate HTTP proxy on a local port: `CONNECT` for TLS, and nothing else unless told so.
//!
//! Names of services lead where the test says, so a program can be run against the real AWS names
//! with nothing but `HTTPS_PROXY` set.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::harness::sync::{Tasks, lock};

/// Longest request head that is read.
const HEAD_LIMIT: usize = 16 * 1024;

/// What the proxy does with a request it may serve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ProxyMood {
    /// Serves it.
    #[default]
    Serving,
    /// Answers 403, as a proxy with a list of allowed names does.
    Refusing,
    /// Reads it and never answers.
    Hanging,
}

/// One request that reached the proxy, served or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyRequest {
    /// `CONNECT` or the method of a plain request.
    pub method: String,
    /// `host:port`, or the absolute URL of a plain request.
    pub target: String,
    /// Status of the answer; 0 for none.
    pub status: u16,
}

/// A running proxy; dropping it stops it.
pub struct HttpProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    /// The value of `Proxy-Authorization` that is asked for.
    authorization: Option<String>,
    state: Mutex<State>,
    count: watch::Sender<usize>,
    tasks: Tasks,
}

#[derive(Default)]
struct State {
    mood: ProxyMood,
    routes: HashMap<String, SocketAddr>,
    plain_http: bool,
    log: Vec<ProxyRequest>,
}

impl Drop for HttpProxy {
    fn drop(&mut self) {
        self.shared.tasks.stop();
    }
}

impl HttpProxy {
    /// Starts on a free port of 127.0.0.1. With `login` (user and password) it answers 407 to
    /// whoever does not give them.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(login: Option<(&str, &str)>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("binding the proxy's port")?;
        let authorization = login.map(|(user, password)| {
            format!("Basic {}", BASE64.encode(format!("{user}:{password}")))
        });
        let shared = Arc::new(Shared {
            authorization,
            state: Mutex::default(),
            count: watch::Sender::new(0),
            tasks: Tasks::new(),
        });
        let address = listener.local_addr()?;
        let inner = shared.clone();
        shared.tasks.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let work = inner.clone().serve(socket);
                inner.tasks.spawn(work);
            }
        });
        Ok(Self { address, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`, for `HTTPS_PROXY`; a login belongs in front of the host.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets a host name lead to a local listener, whatever the port. A name that begins with `*.`
    /// stands for everything that ends in the rest. Names without a route are answered with 502;
    /// addresses of this machine need none.
    pub fn route(&self, host: &str, to: SocketAddr) {
        let mut state = lock(&self.shared.state);
        state.routes.insert(host.to_ascii_lowercase(), to);
    }

    /// Changes what requests meet from now on; open connections go on.
    pub fn set_mood(&self, mood: ProxyMood) {
        lock(&self.shared.state).mood = mood;
    }

    /// Forwards plain requests in absolute form (`GET http://…`) too, instead of refusing them.
    pub fn allow_plain_http(&self, allow: bool) {
        lock(&self.shared.state).plain_http = allow;
    }

    /// All requests so far, oldest first.
    pub fn log(&self) -> Vec<ProxyRequest> {
        lock(&self.shared.state).log.clone()
    }

    /// Targets of the `CONNECT` requests that were served.
    pub fn connected(&self) -> Vec<String> {
        let log = self.log().into_iter();
        log.filter(|r| r.method == "CONNECT" && r.status == 200)
            .map(|r| r.target)
            .collect()
    }

    /// Waits until a request, past or future, satisfies `wanted`; false when `limit` passes first.
    pub async fn wait_for(&self, wanted: impl Fn(&ProxyRequest) -> bool, limit: Duration) -> bool {
        let mut count = self.shared.count.subscribe();
        let search = async {
            loop {
                let seen = *count.borrow_and_update();
                if self.log().iter().any(&wanted) {
                    return;
                }
                let _ = count.wait_for(|n| *n > seen).await;
            }
        };
        tokio::time::timeout(limit, search).await.is_ok()
    }

    /// Stops and waits until every connection through it is closed.
    pub async fn shutdown(self) {
        self.shared.tasks.shutdown().await;
    }
}

/// The head of a request, and what came behind it.
struct Head {
    method: String,
    target: String,
    /// As received, without the request line and without the empty line.
    headers: Vec<(String, String)>,
    rest: Vec<u8>,
}

impl Shared {
    async fn serve(self: Arc<Self>, mut socket: TcpStream) {
        let _ = socket.set_nodelay(true);
        let Some(head) = read_head(&mut socket).await else {
            return;
        };
        let (status, upstream) = self.judge(&head).await;
        self.note(&head, status);
        match (status, upstream) {
            (0, _) => std::future::pending().await,
            (200, Some(upstream)) => relay(socket, upstream, head).await,
            (status, _) => refuse(socket, status).await,
        }
    }

    fn note(&self, head: &Head, status: u16) {
        let mut state = lock(&self.state);
        state.log.push(ProxyRequest {
            method: head.method.clone(),
            target: head.target.clone(),
            status,
        });
        let length = state.log.len();
        drop(state);
        self.count.send_replace(length);
    }

    async fn judge(&self, head: &Head) -> (u16, Option<TcpStream>) {
        let given = head.headers.iter();
        let mut given = given.filter(|(n, _)| n.eq_ignore_ascii_case("proxy-authorization"));
        if let Some(wanted) = &self.authorization
            && given.next().is_none_or(|(_, value)| value != wanted)
        {
            return (407, None);
        }
        let (mood, plain_http) = {
            let state = lock(&self.state);
            (state.mood, state.plain_http)
        };
        match mood {
            ProxyMood::Hanging => return (0, None),
            ProxyMood::Refusing => return (403, None),
            ProxyMood::Serving => {}
        }
        let authority = match head.target.strip_prefix("http://") {
            None if head.method == "CONNECT" => head.target.as_str(),
            Some(rest) if plain_http => rest.split('/').next().unwrap_or_default(),
            Some(_) => return (403, None),
            None => return (400, None),
        };
        let Some(address) = self.find(authority) else {
            return (502, None);
        };
        match TcpStream::connect(address).await {
            Ok(upstream) => (200, Some(upstream)),
            Err(_) => (502, None),
        }
    }

    fn find(&self, authority: &str) -> Option<SocketAddr> {
        let (host, port) = authority.rsplit_once(':').unwrap_or((authority, "80"));
        let port: u16 = port.parse().ok()?;
        let host = host.trim_matches(['[', ']']).to_ascii_lowercase();
        if let Ok(address) = host.parse::<std::net::IpAddr>() {
            return address.is_loopback().then_some((address, port).into());
        }
        let state = lock(&self.state);
        let wildcard = |(name, _): &(&String, &SocketAddr)| {
            name.strip_prefix('*')
                .is_some_and(|end| host.ends_with(end))
        };
        let found = state.routes.get(&host).copied();
        let found = found.or_else(|| state.routes.iter().find(wildcard).map(|(_, to)| *to));
        found.or_else(|| (host == "localhost").then_some((Ipv4Addr::LOCALHOST, port).into()))
    }
}

async fn read_head(socket: &mut TcpStream) -> Option<Head> {
    let mut raw = Vec::new();
    let end = loop {
        if let Some(end) = raw.windows(4).position(|w| w == b"\r\n\r\n") {
            break end;
        }
        if raw.len() > HEAD_LIMIT || socket.read_buf(&mut raw).await.ok()? == 0 {
            return None;
        }
    };
    let rest = raw.split_off(end + 4);
    let text = std::str::from_utf8(&raw[..end]).ok()?;
    let mut lines = text.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let (method, target) = (first.next()?.to_owned(), first.next()?.to_owned());
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_owned(), value.trim().to_owned()))
    });
    Some(Head {
        method,
        target,
        headers: headers.collect::<Option<_>>()?,
        rest,
    })
}

/// Moves bytes until both ends are done.
async fn relay(mut client: TcpStream, mut upstream: TcpStream, head: Head) {
    let _ = upstream.set_nodelay(true);
    let begun = if head.method == "CONNECT" {
        client
            .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
            .await
    } else {
        upstream.write_all(origin_form(&head).as_bytes()).await
    };
    if begun.is_ok() && upstream.write_all(&head.rest).await.is_ok() {
        let _ = tokio::io::copy_bidirectional(&mut client, &mut upstream).await;
    }
}

/// The head as the server is to get it: a path instead of a URL, nothing for the proxy, and one
/// request per connection.
fn origin_form(head: &Head) -> String {
    let rest = head.target.strip_prefix("http://").unwrap_or_default();
    let path = rest.find('/').map_or("/", |at| &rest[at..]);
    let mut out = format!("{} {path} HTTP/1.1\r\n", head.method);
    for (name, value) in &head.headers {
        let name_here = name.to_ascii_lowercase();
        if !name_here.starts_with("proxy-") && name_here != "connection" {
            out += &format!("{name}: {value}\r\n");
        }
    }
    out + "connection: close\r\n\r\n"
}

async fn refuse(mut client: TcpStream, status: u16) {
    let (text, extra) = match status {
        407 => (
            "Proxy Authentication Required",
            "proxy-authenticate: Basic realm=\"proxy\"\r\n",
        ),
        403 => ("Forbidden", ""),
        502 => ("Bad Gateway", ""),
        _ => ("Bad Request", ""),
    };
    let head = format!(
        "HTTP/1.1 {status} {text}\r\n{extra}content-length: 0\r\nconnection: close\r\n\r\n"
    );
    let _ = client.write_all(head.as_bytes()).await;
    let _ = client.shutdown().await;
}
