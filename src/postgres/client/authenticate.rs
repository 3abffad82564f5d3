//! Check of the local password (SCRAM-SHA-256, RFC 5802 and 7677; PostgreSQL docs, "SASL
//! Authentication").

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use pg_handshake::{
    PasswordReader, SaslInitialResponse, authentication_sasl, authentication_sasl_continue,
    authentication_sasl_final, sasl_response,
};
use tokio::io::AsyncReadExt;

use crate::failure::connection::ConnectionError;
use crate::postgres::client::startup::{AuthState, LocalClient};
use crate::postgres::io::READ;
use pg_handshake::scram::{ScramError, ScramExchange, ScramVerifier};

/// Delay of the reply to a wrong password, which slows down guessing.
const WRONG_PASSWORD_PAUSE: Duration = Duration::from_secs(1);

/// Runs the exchange up to AuthenticationSASLFinal; AuthenticationOk follows from the database.
/// `binding` is the hash of our certificate, for clients on TLS.
pub(in crate::postgres) async fn authenticate(
    client: &mut LocalClient,
    verifier: Arc<ScramVerifier>,
    binding: Option<&Bytes>,
) -> Result<(), ConnectionError> {
    let binding = binding.filter(|_| client.tls).cloned();
    let mut exchange = ScramExchange::new(verifier, binding);
    let mut reader = PasswordReader::new(client.ahead.split().freeze());
    client.auth_state = AuthState::Asked;
    client
        .say(authentication_sasl(exchange.mechanisms()))
        .await?;

    let frame = answer(client, &mut reader).await?;
    let SaslInitialResponse { mechanism, data } = SaslInitialResponse::parse(&frame)?;
    let data = match data {
        Some(data) => data,
        // "If the client didn't include a response, ask for it" (PostgreSQL, CheckSASLAuth).
        None => {
            client.say(authentication_sasl_continue(&[])).await?;
            sasl_response(&answer(client, &mut reader).await?)?
        }
    };
    let first = exchange.first(&mechanism, &data, random()?)?;
    client.say(authentication_sasl_continue(&first)).await?;

    let last = sasl_response(&answer(client, &mut reader).await?)?;
    match exchange.last(&last) {
        Ok(proof) => client.say(authentication_sasl_final(&proof)).await?,
        Err(error) => {
            if matches!(error, ScramError::WrongPassword) {
                tokio::time::sleep(WRONG_PASSWORD_PAUSE).await;
            }
            return Err(error.into());
        }
    }
    client.ahead.extend_from_slice(&reader.into_remainder());
    Ok(())
}

/// Returns random bytes from the system.
///
/// # Errors
/// [`ScramError::Random`].
pub(crate) fn random<const LENGTH: usize>() -> Result<[u8; LENGTH], ScramError> {
    let mut bytes = [0; LENGTH];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| ScramError::Random)?;
    Ok(bytes)
}

/// Reads the client's next message.
async fn answer(
    client: &mut LocalClient,
    reader: &mut PasswordReader,
) -> Result<Bytes, ConnectionError> {
    let mut buffer = [0; READ];
    loop {
        if let Some(frame) = reader.poll() {
            return Ok(frame);
        }
        if let Some(error) = reader.error() {
            return Err(error.clone().into());
        }
        match client.stream.read(&mut buffer).await {
            // Without a password psql disconnects here and prompts for one.
            Ok(0) => {
                return Err(ConnectionError::ClientGone(
                    io::ErrorKind::UnexpectedEof.into(),
                ));
            }
            Ok(n) => reader.handle_input(&buffer[..n])?,
            Err(error) => return Err(ConnectionError::ClientGone(error)),
        }
    }
}
