//! HTTP listener on 127.0.0.1 for the browser that returns from AWS's login page.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::{self, AbortHandle, JoinSet};
use tokio::time::timeout;
use tracing::debug;

use super::LoginError;
use crate::base::foreign_text::ForeignText;
use crate::base::redacted::{Redacted, remember};

/// Path of the redirect.
pub(super) const REDIRECT_PATH: &str = "/oauth/callback";
/// Maximum number of concurrent connections. A browser opens a few; when more come, the oldest is
/// closed.
const MOST: usize = 16;
/// Timeout for the head of a request.
const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// Timeout of a connection, to the last byte of its answer. The answer waits for AWS's token.
const DEADLINE: Duration = Duration::from_secs(60);
/// Maximum bytes of a request's head. (The minimum that the library accepts.)
const HEAD: usize = 8 * 1024;
/// Time to send the last page.
const FAREWELL: Duration = Duration::from_secs(2);
/// Pause after an error of `accept`, such as too many open files.
const PAUSE: Duration = Duration::from_millis(100);

/// The result that the page brings.
#[derive(Debug)]
pub(super) enum CallbackQuery {
    /// The user has logged in.
    Code { code: Redacted<String> },
    /// The login failed.
    Error {
        code: ForeignText,
        description: Option<ForeignText>,
    },
}

/// A request to the listener.
#[derive(Debug)]
enum BrowserRequest {
    /// The browser has returned from the page of this login.
    Returned(CallbackQuery),
    /// It has returned from the page of another login.
    OtherLogin,
    /// Not an answer of a login page, as that for `/favicon.ico`.
    Unrelated,
}

impl BrowserRequest {
    /// Parses the path and the query of a request. An answer has the state of the login; only an
    /// error at the path of the redirect may have none.
    fn parse(path: &str, query: &str, own: &str) -> Self {
        let (mut code, mut state, mut error, mut description) = (None, None, None, None);
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let place = match &*name {
                "code" => &mut code,
                "state" => &mut state,
                "error" => &mut error,
                "error_description" => &mut description,
                _ => continue,
            };
            *place = Some(value.into_owned());
        }
        let is_own = match &state {
            Some(state) => state == own,
            None => error.is_some() && path == REDIRECT_PATH,
        };
        match (error, code) {
            (None, None) => Self::Unrelated,
            _ if !is_own => Self::OtherLogin,
            (Some(error), _) => Self::Returned(CallbackQuery::Error {
                code: error.into(),
                description: description.map(ForeignText::from),
            }),
            (None, Some(code)) => {
                remember(&code);
                Self::Returned(CallbackQuery::Code { code: code.into() })
            }
        }
    }
}

/// A browser that has returned and waits for the last page.
#[derive(Debug)]
pub(super) struct Callback {
    pub(super) query: CallbackQuery,
    answer: oneshot::Sender<Page>,
    /// Task of its connection.
    task: task::Id,
    served: Served,
}

impl Callback {
    /// Shows the result of the login in the browser. Takes at most 2 s.
    pub(super) async fn show(self, failure: Option<&LoginError>) {
        let page = match failure {
            None => Page::logged_in(),
            Some(error) => Page::failed(&error.to_string()),
        };
        let Self {
            answer,
            task,
            mut served,
            ..
        } = self;
        if answer.send(page).is_ok() {
            // Without its last page the login is complete as well.
            _ = timeout(FAREWELL, served.end_of(task)).await;
        }
    }
}

/// Open connections, oldest first.
#[derive(Debug, Default)]
struct Served {
    connections: JoinSet<()>,
    handles: VecDeque<AbortHandle>,
}

impl Served {
    /// Serves a connection. Silent ones do not keep others out.
    fn add(&mut self, stream: TcpStream, expected: Expected) {
        while self.connections.try_join_next().is_some() {}
        self.handles.retain(|handle| !handle.is_finished());
        while self.handles.len() >= MOST {
            if let Some(oldest) = self.handles.pop_front() {
                oldest.abort();
            }
        }
        self.handles
            .push_back(self.connections.spawn(serve(stream, expected)));
    }

    /// Waits for the end of a connection.
    async fn end_of(&mut self, task: task::Id) {
        while let Some(ended) = self.connections.join_next_with_id().await {
            let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
            if id == task {
                return;
            }
        }
    }
}

type Found = (CallbackQuery, oneshot::Sender<Page>, task::Id);

/// The login that the listener waits for.
#[derive(Clone)]
struct Expected {
    state: Arc<str>,
    found: mpsc::Sender<Found>,
}

/// The listener. Dropping it closes the port.
#[derive(Debug)]
pub(super) struct CallbackListener {
    listener: TcpListener,
    pub(super) port: u16,
}

impl CallbackListener {
    /// Listens on 127.0.0.1, on a free port unless one is given.
    ///
    /// # Errors
    /// [`LoginError::Listener`].
    pub(super) async fn bind(port: Option<u16>) -> Result<Self, LoginError> {
        let port = port.unwrap_or_default();
        let failed = |error: std::io::Error| LoginError::Listener {
            port,
            reason: error.to_string(),
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        let listener = listener.map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        Ok(Self { listener, port })
    }

    /// Waits for the browser to return with this state, and stops listening. Answers for other
    /// logins get a page, and the wait goes on. The caller sets the deadline. Cancel-safe: dropping
    /// it closes the port.
    pub(super) async fn returned(self, state: &str) -> Callback {
        let (found, mut receiver) = mpsc::channel(1);
        let expected = Expected {
            state: state.into(),
            found,
        };
        let mut served = Served::default();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, _)) => served.add(stream, expected.clone()),
                    Err(error) => {
                        debug!(%error, "cannot accept a connection of the browser");
                        tokio::time::sleep(PAUSE).await;
                    }
                },
                Some((query, answer, task)) = receiver.recv() => {
                    return Callback { query, answer, task, served };
                }
            }
        }
    }
}

/// Answers one request.
async fn serve(stream: TcpStream, expected: Expected) {
    let service = service_fn(|request: Request<Incoming>| {
        let expected = expected.clone();
        async move { Ok::<_, Infallible>(page(&request, expected).await.into_response()) }
    });
    let mut server = http1::Builder::new();
    server
        .keep_alive(false)
        .max_buf_size(HEAD)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE);
    let conversation = server.serve_connection(TokioIo::new(stream), service);
    match timeout(DEADLINE, conversation).await {
        Ok(Ok(())) => {}
        // The error of the parser may quote the request, which has the code.
        Ok(Err(_)) => debug!("a connection of the browser broke off"),
        Err(_) => debug!("a connection of the browser timed out"),
    }
}

async fn page(request: &Request<Incoming>, expected: Expected) -> Page {
    if request.method() != Method::GET {
        return Page::only_get();
    }
    let (path, query) = (request.uri().path(), request.uri().query());
    let query = match BrowserRequest::parse(path, query.unwrap_or_default(), &expected.state) {
        BrowserRequest::Returned(query) => query,
        BrowserRequest::OtherLogin => return Page::other_login(),
        BrowserRequest::Unrelated => return Page::waiting(),
    };
    let (answer, answered) = oneshot::channel();
    match expected.found.send((query, answer, task::id())).await {
        Ok(()) => answered.await.unwrap_or_else(|_| Page::ended()),
        Err(_) => Page::ended(),
    }
}

/// A page for the browser.
#[derive(Debug)]
struct Page {
    status: StatusCode,
    title: &'static str,
    text: String,
}

impl Page {
    fn logged_in() -> Self {
        Self {
            status: StatusCode::OK,
            title: "You are logged in",
            text: "pgiam has received the login. You can close this tab.".to_owned(),
        }
    }

    fn failed(reason: &str) -> Self {
        Self {
            status: StatusCode::OK,
            title: "The login failed",
            text: format!("Reason: {reason}. You can close this tab and try again."),
        }
    }

    fn waiting() -> Self {
        Self {
            status: StatusCode::OK,
            title: "pgiam is waiting for the login",
            text: "Complete the login on AWS's page.".to_owned(),
        }
    }

    fn other_login() -> Self {
        Self {
            status: StatusCode::OK,
            title: "This page belongs to another login",
            text: "pgiam still waits for its own login. Close this tab, and complete the newest \
                   login page."
                .to_owned(),
        }
    }

    fn ended() -> Self {
        Self {
            status: StatusCode::OK,
            title: "This login has ended",
            text: "pgiam no longer waits for it. You can close this tab.".to_owned(),
        }
    }

    fn only_get() -> Self {
        Self {
            status: StatusCode::METHOD_NOT_ALLOWED,
            title: "Method not allowed",
            text: "This address only accepts the redirect of a login.".to_owned(),
        }
    }

    fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(self.html())));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        for (name, value) in [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CACHE_CONTROL, "no-store"),
            // The address of the page has the code.
            (header::REFERRER_POLICY, "no-referrer"),
            (
                header::CONTENT_SECURITY_POLICY,
                "default-src 'none'; style-src 'unsafe-inline'; img-src data:",
            ),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            headers.insert(header::ALLOW, HeaderValue::from_static("GET"));
        }
        response
    }

    fn html(&self) -> String {
        let (title, text) = (escaped(self.title), escaped(&self.text));
        format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n\
             <link rel=\"icon\" href=\"data:,\">\n<title>{title}</title>\n\
             <style>body {{ font: 1.1em/1.5 system-ui, sans-serif; margin: 20vh auto; \
             max-width: 32em; padding: 0 1em; color-scheme: light dark }}</style>\n</head>\n\
             <body>\n<h1>{title}</h1>\n<p>{text}</p>\n</body>\n</html>\n"
        )
    }
}

/// Escapes a text for HTML.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn send(port: u16, request: &str) -> String {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        _ = stream.read_to_end(&mut answer).await;
        String::from_utf8(answer).unwrap()
    }

    async fn get(port: u16, path: &str) -> String {
        send(port, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await
    }

    #[test]
    fn queries_of_the_page_are_told_from_others() {
        let parse = |query| BrowserRequest::parse("/", query, "a b");
        for query in ["", "x=1", "state=1", "codes=1&state=a%20b"] {
            let parsed = parse(query);
            assert!(matches!(parsed, BrowserRequest::Unrelated), "{query}");
        }
        for query in ["code=1", "code=1&state=2", "error=x", "error=x&state=2"] {
            let parsed = parse(query);
            assert!(matches!(parsed, BrowserRequest::OtherLogin), "{query}");
        }
        for (query, is_own) in [
            ("error=x", true),
            ("error=x&state=2", false),
            ("code=1", false),
        ] {
            let parsed = BrowserRequest::parse(REDIRECT_PATH, query, "a b");
            let parsed = matches!(parsed, BrowserRequest::Returned(_));
            assert_eq!(parsed, is_own, "{query}");
        }
        match parse("state=a%20b&code=c%2B1") {
            BrowserRequest::Returned(CallbackQuery::Code { code }) => {
                assert_eq!(code.expose().as_str(), "c+1");
            }
            other => panic!("{other:?}"),
        }
        match parse("error=access_denied&error_description=no+way&code=1&state=a+b") {
            BrowserRequest::Returned(CallbackQuery::Error { code, description }) => {
                assert_eq!(code.as_str(), "access_denied");
                assert_eq!(description.unwrap().as_str(), "no way");
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn other_requests_keep_it_waiting() {
        let listener = CallbackListener::bind(None).await.unwrap();
        let port = listener.port;
        let returned = tokio::spawn(async move { listener.returned("s1").await });
        // A connection that sends nothing.
        let _silent = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .unwrap();
        let icon = get(port, "/favicon.ico").await;
        assert!(icon.starts_with("HTTP/1.1 200 OK\r\n"), "{icon}");
        assert!(icon.contains("pgiam is waiting for the login"), "{icon}");
        let post =
            "POST /oauth/callback?code=1&state=2 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n";
        let posted = send(port, post).await;
        assert!(posted.starts_with("HTTP/1.1 405 "), "{posted}");
        let large = format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(64 * 1024));
        assert!(!send(port, &large).await.contains("200 OK"));
        for path in ["/oauth/callback?code=c0&state=s0", "/?error=access_denied"] {
            let other = get(port, path).await;
            assert!(
                other.contains("<h1>This page belongs to another login</h1>"),
                "{other}"
            );
        }
        let browser = tokio::spawn(async move { get(port, "/any/path?code=c1&state=s1").await });
        let callback = returned.await.unwrap();
        assert!(
            matches!(&callback.query, CallbackQuery::Code { code } if code.expose().as_str() == "c1")
        );
        callback.show(None).await;
        let page = browser.await.unwrap();
        assert!(page.contains("<h1>You are logged in</h1>"), "{page}");
        assert!(
            TcpStream::connect((Ipv4Addr::LOCALHOST, port))
                .await
                .is_err()
        );
    }

    #[tokio::test]
    async fn many_silent_connections_keep_nothing_out() {
        let listener = CallbackListener::bind(None).await.unwrap();
        let port = listener.port;
        let returned = tokio::spawn(async move { listener.returned("s").await });
        let mut silent = Vec::new();
        for _ in 0..3 * MOST {
            let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await;
            silent.push(stream.unwrap());
        }
        let browser = tokio::spawn(async move { get(port, "/?error=x&state=s").await });
        let callback = returned.await.unwrap();
        let error = LoginError::Page {
            code: "x".into(),
            description: Some("<script>alert('&')</script>".into()),
        };
        callback.show(Some(&error)).await;
        let page = browser.await.unwrap();
        assert!(
            page.contains("&lt;script&gt;alert(&#39;&amp;&#39;)&lt;/script&gt;"),
            "{page}"
        );
        assert!(page.contains("<h1>The login failed</h1>"), "{page}");
    }

    #[tokio::test]
    async fn a_port_in_use_is_named() {
        let first = CallbackListener::bind(None).await.unwrap();
        let error = CallbackListener::bind(Some(first.port)).await.unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with(&format!("cannot listen on 127.0.0.1:{}", first.port)));
    }
}
