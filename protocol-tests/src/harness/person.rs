//! A user in front of a browser, without the browser: opens the address that a program hands to
//! `BROWSER`, presses a button on the page of the sandbox, and follows the redirect.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use http::{Method, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use super::pki::Pki;

/// Redirects that are followed.
const REDIRECTS: usize = 5;
/// Time for one request.
const DEADLINE: Duration = Duration::from_secs(20);
/// Time between two looks at the file of addresses.
const LOOK: Duration = Duration::from_millis(10);

/// A button of the sandbox's sign-in pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Button {
    /// "Allow access".
    Allow,
    /// "Deny access".
    Deny,
}

/// A page as it was answered, after redirects.
#[derive(Debug)]
pub struct Page {
    /// Its address.
    pub url: String,
    /// HTTP status.
    pub status: u16,
    /// Its HTML.
    pub text: String,
}

/// The user, with a program of their own for the variable `BROWSER`.
pub struct Person {
    tls: TlsConnector,
    program: PathBuf,
    addresses: PathBuf,
}

impl Person {
    /// A user who trusts the sandbox's authority. The program is written into `dir`.
    ///
    /// # Errors
    /// When the program cannot be written.
    pub fn new(pki: &Pki, dir: &Path) -> anyhow::Result<Self> {
        let mut roots = RootCertStore::empty();
        roots.add(pki.ca_der().clone())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let program = dir.join("browser");
        let addresses = dir.join("browser.addresses");
        let script = format!(
            "#!/bin/sh\nprintf '%s\\n' \"$1\" >> '{}'\n",
            addresses.display()
        );
        std::fs::write(&program, script).context("writing the program for BROWSER")?;
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
        Ok(Self {
            tls: TlsConnector::from(Arc::new(config)),
            program,
            addresses,
        })
    }

    /// The value of `BROWSER`: a program that takes an address and remembers it.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// All addresses that the program was given so far.
    pub fn addresses(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.addresses).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits for the `nth` address, counted from 1.
    ///
    /// # Errors
    /// When it does not come within `limit`.
    pub async fn address(&self, nth: usize, limit: Duration) -> anyhow::Result<String> {
        let wait = async {
            loop {
                if let Some(address) = self.addresses().get(nth - 1) {
                    return address.clone();
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let waited = tokio::time::timeout(limit, wait).await;
        waited.with_context(|| format!("no address {nth} for the browser"))
    }

    /// Opens an address and presses a button there. Returns the last page, which is that of the
    /// program's own listener after a redirect.
    ///
    /// # Errors
    /// When a server does not answer, or the page has no buttons.
    pub async fn sign_in(&self, address: &str, button: Button) -> anyhow::Result<Page> {
        let page = self.get(address).await?;
        let form = Form::of(&page.text).with_context(|| format!("no buttons: {page:?}"))?;
        let url = Url::parse(&page.url)?.join(&form.action)?;
        let decision = match button {
            Button::Allow => "allow",
            Button::Deny => "deny",
        };
        let body = url::form_urlencoded::Serializer::new(String::new())
            .append_pair(&form.name, &form.value)
            .append_pair("decision", decision)
            .finish();
        self.follow(Method::POST, url, body).await
    }

    /// Opens an address.
    ///
    /// # Errors
    /// When a server does not answer.
    pub async fn get(&self, address: &str) -> anyhow::Result<Page> {
        self.follow(Method::GET, Url::parse(address)?, String::new())
            .await
    }

    async fn follow(&self, method: Method, url: Url, body: String) -> anyhow::Result<Page> {
        let (mut method, mut url, mut body) = (method, url, body);
        for _ in 0..REDIRECTS {
            let request = self.request(&method, &url, body);
            let answer = tokio::time::timeout(DEADLINE, request).await;
            let (parts, text) = answer.with_context(|| format!("{url} does not answer"))??;
            let target = parts.headers.get(header::LOCATION);
            match target {
                Some(target) if parts.status.is_redirection() => {
                    url = url.join(target.to_str()?)?;
                    (method, body) = (Method::GET, String::new());
                }
                _ => {
                    return Ok(Page {
                        url: url.to_string(),
                        status: parts.status.as_u16(),
                        text,
                    });
                }
            }
        }
        bail!("more than {REDIRECTS} redirects: {url}")
    }

    async fn request(
        &self,
        method: &Method,
        url: &Url,
        body: String,
    ) -> anyhow::Result<(http::response::Parts, String)> {
        let host = url.host_str().context("an address without a host")?;
        let port = url.port_or_known_default().context("no port")?;
        let socket = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
        let request = http::Request::builder()
            .method(method)
            .uri(&url[url::Position::BeforePath..url::Position::AfterQuery])
            .header(
                header::HOST,
                &url[url::Position::BeforeHost..url::Position::AfterPort],
            )
            .header(header::CONNECTION, "close")
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(Full::new(Bytes::from(body)))?;
        match url.scheme() {
            "https" => {
                let name = ServerName::try_from(host.to_owned())?;
                exchange(self.tls.connect(name, socket).await?, request).await
            }
            _ => exchange(socket, request).await,
        }
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: http::Request<Full<Bytes>>,
) -> anyhow::Result<(http::response::Parts, String)> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let (parts, body) = sender.send_request(request).await?.into_parts();
    let text = match parts.status {
        StatusCode::SEE_OTHER => String::new(),
        _ => String::from_utf8(body.collect().await?.to_bytes().to_vec())?,
    };
    connection.abort();
    Ok((parts, text))
}

/// The form of a page with buttons, and its one hidden field.
struct Form {
    action: String,
    name: String,
    value: String,
}

impl Form {
    fn of(html: &str) -> Option<Self> {
        let (_, form) = html.split_once("<form ")?;
        let (_, hidden) = form.split_once("type=\"hidden\"")?;
        Some(Self {
            action: attribute(form, "action")?,
            name: attribute(hidden, "name")?,
            value: attribute(hidden, "value")?,
        })
    }
}

/// The first value of an attribute. The sandbox's own pages have no entities in them.
fn attribute(html: &str, name: &str) -> Option<String> {
    let (_, rest) = html.split_once(&format!("{name}=\""))?;
    rest.split('"').next().map(str::to_owned)
}
