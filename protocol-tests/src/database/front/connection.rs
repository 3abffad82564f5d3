//! One connection to a front, from the first byte to the splice.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::refusal::{Login, before_password, wrong_token};
use super::startup::{CANCEL_REQUEST, GSSENC_REQUEST, Message, Packet, SSL_REQUEST};
use super::wire::{LoggedIn, Wire, has_unread, splice};
use super::{ALPN, Fault, ServerError, Shared};
use crate::aws::events::Event;

/// `authentication_timeout`: how long a client may take to be logged in.
const LOGIN_DEADLINE: Duration = Duration::from_secs(60);
/// How long a password that will not be read is waited for.
const UNREAD_DEADLINE: Duration = Duration::from_secs(1);
/// First byte of a TLS record that carries a handshake (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 0x16;
const PASSWORD_MESSAGE: u8 = b'p';
/// AuthenticationCleartextPassword.
const ASK_FOR_PASSWORD: [u8; 9] = [b'R', 0, 0, 0, 8, 0, 0, 0, 3];

pub(super) struct Connection {
    number: u64,
    shared: Arc<Shared>,
}

/// What matters of a TLS handshake later on.
struct Tls {
    /// The name the client asked for.
    server_name: Option<String>,
}

impl Connection {
    pub(super) fn new(number: u64, shared: Arc<Shared>) -> Self {
        Self { number, shared }
    }

    /// Serves the client until either side is gone. An error is for the log: the client has been
    /// told what it is to be told.
    pub(super) async fn serve(self, mut socket: TcpStream) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let deadline = timeout(LOGIN_DEADLINE, self.open(&mut socket)).await;
        let Some((opened, packet)) = deadline.map_err(|_| io::ErrorKind::TimedOut)?? else {
            return Ok(());
        };
        match opened {
            Opened::Plain => self.converse(socket, packet, None).await,
            Opened::Tls { config, direct } => {
                let accepted = timeout(LOGIN_DEADLINE, TlsAcceptor::from(config).accept(socket));
                let stream = accepted.await.map_err(|_| io::ErrorKind::TimedOut)??;
                let tls = self.note_tls(&stream, direct);
                if direct && stream.get_ref().1.alpn_protocol() != Some(ALPN) {
                    // The server says so in its log only.
                    return Ok(());
                }
                self.converse(stream, None, Some(tls)).await
            }
        }
    }

    /// Answers what may come before the startup. `None` when there is nothing to go on with.
    async fn open(&self, socket: &mut TcpStream) -> io::Result<Option<(Opened, Option<Packet>)>> {
        let (mut ssl_done, mut gss_done) = (false, false);
        loop {
            let mut first = [0];
            if socket.peek(&mut first).await? == 0 {
                return Ok(None);
            }
            if first == [TLS_HANDSHAKE] && !ssl_done && !gss_done {
                if self.ignores_client_hello(socket).await? {
                    return Ok(None);
                }
                let Some(config) = self.shared.direct.clone() else {
                    // To an older server this is the length of an impossible startup packet.
                    self.note_refusal("08P01", "invalid length of startup packet");
                    return Ok(None);
                };
                let direct = true;
                return Ok(Some((Opened::Tls { config, direct }, None)));
            }
            let Some(packet) = Packet::read(socket).await? else {
                return Ok(None);
            };
            match packet.code {
                SSL_REQUEST if !ssl_done => {
                    ssl_done = true;
                    if let Some(config) = self.answer_ssl_request(socket).await? {
                        let direct = false;
                        return Ok(Some((Opened::Tls { config, direct }, None)));
                    }
                }
                GSSENC_REQUEST if !gss_done => {
                    gss_done = true;
                    socket.write_all(b"N").await?;
                }
                _ => return Ok(Some((Opened::Plain, Some(packet)))),
            }
        }
    }

    /// A fault in the place of an answer to direct TLS.
    async fn ignores_client_hello(&self, socket: &mut TcpStream) -> io::Result<bool> {
        let ignores =
            |fault: &Fault| matches!(fault, Fault::SwallowClientHello | Fault::CloseAtClientHello);
        let fault = self.shared.fault(ignores);
        if fault == Some(Fault::SwallowClientHello) {
            // Until the client gives up.
            tokio::io::copy(socket, &mut tokio::io::sink()).await?;
        }
        Ok(fault.is_some())
    }

    /// The configuration to go on with, or `None` after an `N`.
    async fn answer_ssl_request(
        &self,
        socket: &mut TcpStream,
    ) -> io::Result<Option<Arc<ServerConfig>>> {
        let refused = self.shared.fault(|f| matches!(f, Fault::RefuseTls));
        let Some(config) = self.shared.tls.clone().filter(|_| refused.is_none()) else {
            socket.write_all(b"N").await?;
            return Ok(None);
        };
        if has_unread(socket).await {
            // CVE-2021-23214; the server gives up in the same place.
            let text = "received unencrypted data after SSL request";
            let error = ServerError::new("08P01", text);
            self.note_refusal(&error.code, text);
            socket.write_all(&error.encode()).await?;
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let mut answer = b"S".to_vec();
        let inject = self.shared.fault(|f| matches!(f, Fault::InjectAfterS(_)));
        if let Some(Fault::InjectAfterS(bytes)) = inject {
            answer.extend(bytes);
        }
        socket.write_all(&answer).await?;
        Ok(Some(config))
    }

    /// The startup and all that follows it.
    async fn converse<W: Wire>(
        &self,
        mut client: W,
        packet: Option<Packet>,
        tls: Option<Tls>,
    ) -> io::Result<()> {
        let login = async {
            let packet = match packet {
                Some(packet) => Some(packet),
                None => Packet::read(&mut client).await?,
            };
            match packet {
                None => Ok(None),
                Some(packet) if packet.code == CANCEL_REQUEST => {
                    self.pass_cancel(&packet, tls.is_some()).await?;
                    Ok(None)
                }
                Some(packet) => self.log_in(client, packet, tls).await,
            }
        };
        let logged_in = timeout(LOGIN_DEADLINE, login);
        match logged_in.await.map_err(|_| io::ErrorKind::TimedOut)?? {
            Some(logged_in) => splice(logged_in).await,
            None => Ok(()),
        }
    }

    /// `None` when the client has been told why not.
    async fn log_in<W: Wire>(
        &self,
        mut client: W,
        packet: Packet,
        tls: Option<Tls>,
    ) -> io::Result<Option<LoggedIn<W>>> {
        let Some(parameters) = packet.parameters() else {
            let text = "invalid startup packet layout: expected terminator as last byte";
            self.refuse(&mut client, &ServerError::new("08P01", text))
                .await?;
            return Ok(None);
        };
        let version = packet.version();
        self.note(Event::FrontStartup {
            connection: self.number,
            tls: tls.is_some(),
            protocol: version,
            parameters: parameters.clone(),
        });
        let Some(mut client) = self.fail_at_startup(client).await? else {
            return Ok(None);
        };
        let login = Login {
            version,
            parameters: &parameters,
            tls: tls.is_some(),
            server_name: tls.as_ref().and_then(|tls| tls.server_name.as_deref()),
        };
        if let Some(error) = before_password(self.shared.kind, &login) {
            self.refuse(&mut client, &error).await?;
            return Ok(None);
        }
        let mut backend = TcpStream::connect(self.shared.backend).await?;
        backend.set_nodelay(true)?;
        backend.write_all(&packet.raw).await?;
        let Some(first) = self
            .authenticate(&mut client, &mut backend, login.user())
            .await?
        else {
            return Ok(None);
        };
        Ok(Some(LoggedIn {
            client,
            backend,
            first,
        }))
    }

    /// Lets an armed fault happen; the client comes back when there is none.
    async fn fail_at_startup<W: Wire>(&self, mut client: W) -> io::Result<Option<W>> {
        let fault = self.shared.fault(|fault| {
            matches!(
                fault,
                Fault::AtStartup(_)
                    | Fault::AtStartupWithReset(_)
                    | Fault::CloseAfterStartup
                    | Fault::SilentAfterStartup
            )
        });
        match fault {
            Some(Fault::AtStartup(error)) => self.refuse(&mut client, &error).await?,
            Some(Fault::AtStartupWithReset(error)) => {
                self.note_refusal(&error.code, &error.message);
                client.write_all(&error.encode()).await?;
                client.flush().await?;
                // A backend that exits does not wait, but the reset is meant to hit a client that
                // has sent something. What TLS has taken in already does not show here.
                let mut byte = [0];
                let _ = timeout(UNREAD_DEADLINE, client.tcp().peek(&mut byte)).await;
                client.tcp().set_zero_linger()?;
            }
            Some(Fault::SilentAfterStartup) => {
                // Until the client has enough.
                while client.read(&mut [0; 1024]).await? > 0 {}
            }
            Some(_) => {}
            None => return Ok(Some(client)),
        }
        Ok(None)
    }

    /// Hands the server's words through up to its verdict. The bytes that the client is to get
    /// next, or `None` when it has been told why not.
    async fn authenticate<W: Wire>(
        &self,
        client: &mut W,
        backend: &mut TcpStream,
        user: &str,
    ) -> io::Result<Option<Vec<u8>>> {
        loop {
            let message = Message::read(backend).await?;
            match message.authentication() {
                // In like a local user: that is what members of rds_iam are to this server.
                Some(0) => {
                    let granted = self.ask_for_token(client, user).await?;
                    return Ok(granted.then_some(message.raw));
                }
                Some(request) => {
                    self.note_auth(request);
                    return Ok(Some(message.raw));
                }
                None => {
                    client.write_all(&message.raw).await?;
                    client.flush().await?;
                }
            }
            if message.kind == b'E' {
                client.shutdown().await?;
                return Ok(None);
            }
        }
    }

    async fn ask_for_token<W: Wire>(&self, client: &mut W, user: &str) -> io::Result<bool> {
        self.note_auth(3);
        client.write_all(&ASK_FOR_PASSWORD).await?;
        client.flush().await?;
        let answer = Message::read(client).await?;
        if answer.kind != PASSWORD_MESSAGE {
            let text = format!(
                "expected password response, got message type {}",
                answer.kind
            );
            self.refuse(client, &ServerError::new("08P01", text))
                .await?;
            return Ok(false);
        }
        let token = answer.body().strip_suffix(&[0]).unwrap_or_default();
        let verdict = self.shared.judge(user, &String::from_utf8_lossy(token));
        self.note(crate::database::rds::token_event(user, &verdict));
        let fault = self.shared.fault(|f| matches!(f, Fault::AtToken(_)));
        let error = match (fault, verdict) {
            (Some(Fault::AtToken(error)), _) => error,
            (_, Ok(_)) => return Ok(true),
            (_, Err(refusal)) => wrong_token(self.shared.kind, user, &refusal),
        };
        self.refuse(client, &error).await?;
        Ok(false)
    }

    /// The server finds the backend by the key alone, so the request needs no login.
    async fn pass_cancel(&self, packet: &Packet, tls: bool) -> io::Result<()> {
        self.note(Event::FrontCancel {
            connection: self.number,
            tls,
            // Length, code and process id come before it.
            key_length: packet.raw.len().saturating_sub(12),
        });
        let mut backend = TcpStream::connect(self.shared.backend).await?;
        backend.write_all(&packet.raw).await?;
        // The server closes when it has done it, and so do we then.
        let _ = backend.read(&mut [0; 1]).await;
        Ok(())
    }

    async fn refuse<W: Wire>(&self, client: &mut W, error: &ServerError) -> io::Result<()> {
        self.note_refusal(&error.code, &error.message);
        client.write_all(&error.encode()).await?;
        client.shutdown().await
    }

    fn note(&self, event: Event) {
        self.shared.events.push(event);
    }

    fn note_refusal(&self, code: &str, message: &str) {
        self.note(Event::FrontRefused {
            connection: self.number,
            code: code.to_owned(),
            message: message.to_owned(),
        });
    }

    fn note_auth(&self, request: u32) {
        self.note(Event::FrontAuthRequest {
            connection: self.number,
            request,
        });
    }

    /// Records the handshake.
    fn note_tls(&self, stream: &TlsStream<TcpStream>, direct: bool) -> Tls {
        let session = stream.get_ref().1;
        let name = session.server_name().map(str::to_owned);
        let alpn = session.alpn_protocol();
        self.note(Event::FrontTls {
            connection: self.number,
            direct,
            alpn: alpn.map(|name| String::from_utf8_lossy(name).into_owned()),
            server_name: name.clone(),
            version: match session.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
                Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
                _ => "unknown",
            },
        });
        Tls { server_name: name }
    }
}

/// How a connection goes on.
enum Opened {
    Plain,
    Tls {
        config: Arc<ServerConfig>,
        direct: bool,
    },
}
