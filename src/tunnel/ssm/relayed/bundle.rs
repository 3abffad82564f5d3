//! One bundle of a target, and its streams with the tunnel's errors.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use stripe::BundleId;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;
use tokio::time::timeout;
use uuid::Uuid;

use super::super::start::SessionStarter;
use super::super::stream::SsmStream;
use crate::base::foreign_text::ForeignText;
use crate::base::names::NodeId;
use crate::base::stream::Stream;
use crate::config::Endpoint;
use crate::striping::{
    BundleState, Carrier, Refusal, RefusalKind, StripedBundle, StripedStream, StripingError,
};
use crate::tunnel::{RelayRefusal, TunnelError};

/// A bundle on one bastion.
pub(super) struct RelayBundle {
    striped: StripedBundle,
    bastion: NodeId,
    dial_timeout: Duration,
    /// The relay has answered.
    confirmed: watch::Sender<bool>,
    /// Error of all streams, once the bundle is over.
    error: OnceLock<TunnelError>,
}

/// Reason why a stream was not opened.
pub(super) enum NotOpened {
    /// The bundle is over; another one may work.
    Over(TunnelError),
    /// The relay does not allow the destination.
    NotAllowed(ForeignText),
    Other(TunnelError),
}

impl RelayBundle {
    pub(super) fn new(
        bastion: NodeId,
        dial_timeout: Duration,
        starter: &SessionStarter,
    ) -> Arc<Self> {
        let id = BundleId::new(Uuid::new_v4().into_bytes());
        Arc::new(Self {
            striped: StripedBundle::client(id, &starter.tasks, &starter.stop),
            bastion,
            dial_timeout,
            confirmed: watch::Sender::new(false),
            error: OnceLock::new(),
        })
    }

    pub(super) fn bastion(&self) -> &NodeId {
        &self.bastion
    }

    /// Returns the state, and its changes.
    pub(super) fn state(&self) -> watch::Receiver<BundleState> {
        self.striped.state()
    }

    /// Returns the number of carriers that the relay has accepted.
    pub(super) fn ready(&self) -> usize {
        self.striped.state().borrow().ready
    }

    pub(super) fn is_over(&self) -> bool {
        self.error.get().is_some() || self.striped.state().borrow().over.is_some()
    }

    /// Adds a carrier.
    ///
    /// # Errors
    /// The bundle is over.
    pub(super) fn attach(
        &self,
        index: u8,
        generation: u16,
        stream: SsmStream,
    ) -> Result<Carrier, TunnelError> {
        let attached = self.striped.attach(index, generation, Box::new(stream));
        attached.map_err(|error| self.lost(&error.to_string()))
    }

    pub(super) fn detach(&self, index: u8, generation: u16) {
        self.striped.detach(index, generation);
    }

    /// Notes the relay's answer.
    pub(super) fn confirm(&self) {
        self.confirmed.send_replace(true);
    }

    /// Waits for the relay's answer. `false`: the bundle has ended before. Cancel-safe.
    pub(super) async fn is_confirmed(&self) -> bool {
        let mut confirmed = self.confirmed.subscribe();
        let mut state = self.striped.state();
        tokio::select! {
            biased;
            answered = confirmed.wait_for(|confirmed| *confirmed) => answered.is_ok(),
            _ = state.wait_for(|state| state.over.is_some()) => false,
        }
    }

    /// Ends the bundle; its streams fail with `error`. Only the first one counts.
    pub(super) async fn end(&self, error: TunnelError) {
        let text = error.to_string();
        _ = self.error.set(error);
        self.striped.shutdown(&text).await;
    }

    /// Opens a stream to `endpoint` and writes `hello`. Then waits for the first bytes, or without
    /// `hello` only for the relay's answer. Cancel-safe.
    pub(super) async fn dial(
        self: &Arc<Self>,
        endpoint: &Endpoint,
        hello: &Bytes,
    ) -> Result<Stream, NotOpened> {
        if hello.is_empty() && !self.is_confirmed().await {
            return Err(NotOpened::Over(self.over("no answer")));
        }
        let opened = self.striped.open(&endpoint.to_string());
        let mut stream = opened.map_err(|error| NotOpened::Over(self.over(&error.to_string())))?;
        if !hello.is_empty() {
            let answered = async {
                stream.write_all(hello).await?;
                stream.readable().await
            };
            match timeout(self.dial_timeout, answered).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(self.not_opened(&error, endpoint)),
                Err(_) => {
                    return Err(NotOpened::Other(TunnelError::DialTimeout {
                        bastion: self.bastion.to_string(),
                        endpoint: endpoint.clone(),
                        after: self.dial_timeout,
                    }));
                }
            }
        }
        Ok(Box::new(RelayedStream {
            inner: stream,
            bundle: Arc::clone(self),
            endpoint: endpoint.clone(),
        }))
    }

    fn not_opened(&self, error: &io::Error, endpoint: &Endpoint) -> NotOpened {
        match StripingError::of(error) {
            Some(StripingError::Reset(refusal)) if refusal.kind == RefusalKind::NotAllowed => {
                NotOpened::NotAllowed(ForeignText::new(&refusal.words))
            }
            Some(StripingError::Reset(Refusal { kind, words })) => {
                NotOpened::Other(self.refused(endpoint, *kind, ForeignText::new(words)))
            }
            _ => NotOpened::Over(self.over(&error.to_string())),
        }
    }

    /// Returns the error for a destination that the relay does not allow.
    pub(super) fn not_allowed(&self, endpoint: &Endpoint, words: ForeignText) -> TunnelError {
        self.refused(endpoint, RefusalKind::NotAllowed, words)
    }

    fn refused(&self, endpoint: &Endpoint, kind: RefusalKind, words: ForeignText) -> TunnelError {
        TunnelError::Relay(Box::new(RelayRefusal {
            bastion: self.bastion.clone(),
            endpoint: endpoint.clone(),
            kind,
            words,
        }))
    }

    /// Returns the error of all streams.
    fn over(&self, reason: &str) -> TunnelError {
        let known = self.error.get().cloned();
        known.unwrap_or_else(|| self.lost(reason))
    }

    fn lost(&self, reason: &str) -> TunnelError {
        TunnelError::RelayLost {
            bastion: self.bastion.to_string(),
            reason: ForeignText::new(reason),
        }
    }
}

/// A stream of the bundle, with the errors of a tunnel.
struct RelayedStream {
    inner: StripedStream,
    bundle: Arc<RelayBundle>,
    endpoint: Endpoint,
}

impl RelayedStream {
    fn converted(&self, error: io::Error) -> io::Error {
        match StripingError::of(&error) {
            // The connection to the database broke: that is no failure of the tunnel.
            Some(StripingError::Reset(refusal)) if refusal.kind == RefusalKind::Lost => {
                let words = ForeignText::new(&refusal.words).to_string();
                io::Error::new(io::ErrorKind::ConnectionReset, words)
            }
            Some(StripingError::Reset(Refusal { kind, words })) => {
                let words = ForeignText::new(words);
                self.bundle.refused(&self.endpoint, *kind, words).into_io()
            }
            Some(StripingError::Ended(reason)) => self.bundle.over(reason).into_io(),
            _ => error,
        }
    }
}

impl AsyncRead for RelayedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.inner).poll_read(cx, buffer);
        read.map_err(|error| self.converted(error))
    }
}

impl AsyncWrite for RelayedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, buffer);
        written.map_err(|error| self.converted(error))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.inner).poll_flush(cx);
        flushed.map_err(|error| self.converted(error))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.inner).poll_shutdown(cx);
        shut.map_err(|error| self.converted(error))
    }
}
