//! The client's first words, and whether it is one of ours.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::timeout;

use super::greet::{Greeted, Local, Standing, greet};
use super::probe::turned_away;
use super::{Arrival, Entry, Proxy, SessionError, local_login};
use crate::tunnel::Stream;

/// How long somebody else's client may take for its startup packet, to which the refusal is the answer.
/// Silent ones would otherwise keep the owner's clients waiting for as long as those may take.
const STRANGERS_TIME: Duration = Duration::from_secs(1);

/// What the client wants, if it is one of ours. `our_turn` is set while the client has said what it
/// wants and waits to hear whether it may: many at once are not looked up in a moment.
pub(super) async fn welcome(
    proxy: &Proxy,
    entry: &Entry,
    stream: Stream,
    arrival: &Arrival,
    our_turn: &AtomicBool,
) -> Result<Greeted, (SessionError, Option<Local>)> {
    // As PostgreSQL: TLS on a Unix socket would only cost time.
    let acceptor = arrival.is_tcp().then_some(&proxy.acceptor);
    let mut greeting = pin!(greet(acceptor, stream));
    let mut check = pin!(arrival.check(proxy.uid));
    let (greeted, allowed) = tokio::select! {
        greeted = &mut greeting => {
            our_turn.store(true, Ordering::Release);
            let allowed = check.await;
            our_turn.store(false, Ordering::Release);
            (greeted, allowed)
        }
        allowed = &mut check => match allowed {
            Ok(()) => (greeting.await, Ok(())),
            Err(error) => match timeout(STRANGERS_TIME, greeting).await {
                Ok(greeted) => (greeted, Err(error)),
                Err(_) => return Err((error, None)),
            },
        },
    };
    let greeted = greeted?;
    let allowed = match (&greeted, allowed) {
        (Greeted::Startup { startup, .. }, Ok(())) => turned_away(proxy, entry, startup, arrival),
        // Clients close as soon as they have sent it, and then own nothing any more. As with the
        // server, the key is what tells whether they may.
        (Greeted::Cancel { .. }, Err(error))
            if !matches!(error, SessionError::ForeignPeer { .. }) =>
        {
            Ok(())
        }
        (_, allowed) => allowed,
    };
    match (greeted, allowed) {
        (
            Greeted::Startup {
                mut client,
                startup,
            },
            Ok(()),
        ) => {
            if let Some(verifier) = &proxy.verifier
                && proxy.asks_password(arrival)
            {
                let (verifier, binding) = (Arc::clone(verifier), proxy.binding.as_ref());
                let outcome = local_login::authenticate(&mut client, verifier, binding);
                if let Err(error) = outcome.await {
                    return Err((error, Some(client)));
                }
            }
            client.standing = Standing::Admitted;
            Ok(Greeted::Startup { client, startup })
        }
        (Greeted::Startup { client, .. }, Err(error)) => Err((error, Some(client))),
        (cancel @ Greeted::Cancel { .. }, Ok(())) => Ok(cancel),
        // Nobody reads an answer to it.
        (Greeted::Cancel { .. }, Err(error)) => Err((error, None)),
    }
}
