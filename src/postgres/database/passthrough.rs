//! Login in which the client authenticates at the database itself, and pgiam relays the messages.

use std::io;

use bytes::Bytes;
use pg_handshake::{
    MAX_REMAINDER, Negotiation, PasswordReader, SaslInitialResponse, UpstreamEvent, UpstreamStage,
    gs2_says_unsupported,
};
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

use super::login::{
    LoggedIn, LoginMessages, LoginProgress, OpenedConnection, lost, secure, server_version,
};
use crate::failure::connection::ConnectionError;
use crate::postgres::client::startup::{AuthState, LocalClient};
use crate::postgres::io::{READ, write_all};
use crate::postgres::target::PgContext;
use crate::postgres::timings::millis;

/// Relays the login until the server is ready. Server messages go to the client as they arrive,
/// because the client has to answer. The additional messages in `greeting` are sent in between, and
/// on success nothing is left in it.
///
/// The client's own channel binding cannot work: its TLS ends here, and the server's begins here
/// (RFC 5929). So the server's `SCRAM-SHA-256-PLUS` is not offered to the client. A client that
/// signals support for it gets an error with the setting to change, because the server would take
/// that for an attack (RFC 5802, 7).
pub(in crate::postgres) async fn passthrough(
    progress: LoginProgress<'_>,
    context: &PgContext,
    opened: OpenedConnection,
    client: &mut LocalClient,
    login_messages: &mut LoginMessages,
) -> Result<LoggedIn, ConnectionError> {
    let OpenedConnection {
        server,
        mut machine,
        mut stream,
        tls,
        ..
    } = opened;
    let LoginProgress { timings, waiting } = progress;
    let mut reader = PasswordReader::new(client.ahead.split().freeze());
    let mut answers = 0_usize;
    let began = Instant::now();
    let mut tls_version = tls.unwrap_or_default();
    let mut key = None;
    let (mut from_server, mut from_client) = ([0; READ], [0; READ]);
    loop {
        write_all(&mut stream, std::iter::from_fn(|| machine.poll_output()))
            .await
            .map_err(lost)?;
        let mut ready = false;
        while let Some(event) = machine.poll_event() {
            match event {
                UpstreamEvent::StartTls => {
                    waiting.for_database(UpstreamStage::TlsHandshake);
                    (stream, tls_version) =
                        secure(context, &server, stream, Negotiation::SslRequest).await?;
                    machine.tls_established();
                    timings.tls_ms = millis(began);
                }
                UpstreamEvent::Relay(frame) => {
                    if let Some(major) = server_version(&frame) {
                        server.capabilities.saw_version(major);
                    }
                    login_messages.add(&frame)?;
                }
                UpstreamEvent::BackendKey(backend_key) => key = Some(backend_key),
                UpstreamEvent::Ready => ready = true,
                UpstreamEvent::AuthRequest { .. } => client.auth_state = AuthState::Asked,
                UpstreamEvent::PasswordRequired | UpstreamEvent::CancelSent => {}
            }
        }
        client.say(login_messages.bytes.split().freeze()).await?;
        if ready {
            break;
        }
        write_all(&mut stream, std::iter::from_fn(|| machine.poll_output()))
            .await
            .map_err(lost)?;
        machine.handle_input(&[])?; // An error comes after the events before it.
        if machine.stage() == UpstreamStage::PasswordWanted {
            if let Some(answer) = reader.poll() {
                answers += 1;
                if answers == 1 && client.tls && binds_to_nothing(&answer) {
                    return Err(ConnectionError::ChannelBinding);
                }
                machine.client_message(answer)?;
                continue;
            }
            if let Some(error) = reader.error() {
                return Err(error.clone().into());
            }
        }
        waiting.for_database(machine.stage());
        tokio::select! {
            heard = stream.read(&mut from_server) => {
                // The machine keeps its first error; the loop returns it.
                _ = match heard.map_err(lost)? {
                    0 => machine.handle_eof(),
                    n => machine.handle_input(&from_server[..n]),
                };
            }
            said = client.stream.read(&mut from_client), if client.ahead.len() < MAX_REMAINDER => match said {
                // The database waits for the client's password.
                Ok(0) if machine.stage() == UpstreamStage::PasswordWanted => {
                    return Err(ConnectionError::ClientGone(io::ErrorKind::UnexpectedEof.into()));
                }
                Ok(0) => return Err(waiting.left(Some(context))),
                // Not an answer, but queries sent before the server was ready.
                Ok(n) if login_messages.authenticated => client.ahead.extend_from_slice(&from_client[..n]),
                Ok(n) => reader.handle_input(&from_client[..n])?,
                Err(error) => return Err(ConnectionError::ClientGone(error)),
            },
        }
    }
    timings.login_ms = millis(began) - timings.tls_ms;
    let after = std::mem::take(&mut client.ahead);
    client.ahead.extend_from_slice(&reader.into_remainder());
    client.ahead.extend_from_slice(&after);
    Ok(LoggedIn {
        stream,
        key,
        after: machine.into_remainder(),
        tls: tls_version,
    })
}

/// Returns whether this is the first message of a SCRAM login whose client would have bound it to
/// its TLS. Any other message is for the server to judge.
fn binds_to_nothing(answer: &Bytes) -> bool {
    SaslInitialResponse::parse(answer)
        .is_ok_and(|initial| initial.mechanism == "SCRAM-SHA-256" && gs2_says_unsupported(&initial))
}
