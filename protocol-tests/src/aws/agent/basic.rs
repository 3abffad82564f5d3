//! Port sessions without a multiplexer, as agents before 3.0.196 and clients before 1.1.70 have
//! them: one connection at a time, its bytes as they are.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::mux::Destination;
use super::{AgentControl, pump};
use crate::aws::agent::outgoing::Outgoing;
use crate::aws::cloud::Cloud;
use crate::aws::session::Session;

/// Inputs waiting for the connection.
const PIPE: usize = 8;

/// What the client sends.
pub(super) enum Input {
    /// Bytes for the port.
    Bytes(Bytes),
    /// The flag that closes the connection; the next bytes open another one.
    Disconnect,
}

/// What such a session is made from.
pub(super) struct Basic {
    pub(super) cloud: Arc<Cloud>,
    pub(super) session: Arc<Session>,
    pub(super) control: AgentControl,
    pub(super) outgoing: Arc<Outgoing>,
    pub(super) destination: Destination,
}

impl Basic {
    /// Starts all its parts; the sender takes what the client sends.
    pub(super) fn start(self, tasks: &mut JoinSet<()>) -> mpsc::Sender<Input> {
        let (input, inputs) = mpsc::channel(PIPE);
        let (bytes, bytes_out) = mpsc::channel(PIPE);
        tasks.spawn(pump::send_payloads(
            self.outgoing.clone(),
            self.control.clone(),
            bytes_out,
        ));
        tasks.spawn(self.serve(inputs, bytes));
        input
    }

    /// Dials at once, and again for the first bytes after a connection has ended.
    async fn serve(self, mut inputs: mpsc::Receiver<Input>, bytes: mpsc::Sender<Bytes>) {
        let mut first = None;
        loop {
            let socket = match self.destination.dial(&self.cloud, &self.session, 0).await {
                Ok(socket) => socket,
                Err(error) => {
                    let text = format!("Unable to connect to specified port: {error}");
                    return self.session.end(&text);
                }
            };
            exchange(socket, first.take(), &mut inputs, &bytes).await;
            first = loop {
                match inputs.recv().await {
                    Some(Input::Bytes(bytes)) => break Some(bytes),
                    Some(Input::Disconnect) => {}
                    None => return,
                }
            };
        }
    }
}

/// Copies both ways until either side has had enough.
async fn exchange(
    mut socket: TcpStream,
    first: Option<Bytes>,
    inputs: &mut mpsc::Receiver<Input>,
    bytes: &mpsc::Sender<Bytes>,
) {
    let (mut reader, mut writer) = socket.split();
    let to_port = async {
        let mut next = first;
        loop {
            if let Some(bytes) = next.take()
                && writer.write_all(&bytes).await.is_err()
            {
                return;
            }
            match inputs.recv().await {
                Some(Input::Bytes(bytes)) => next = Some(bytes),
                Some(Input::Disconnect) | None => return,
            }
        }
    };
    let from_port = async {
        let mut buffer = BytesMut::new();
        loop {
            buffer.reserve(8192);
            let Ok(1..) = reader.read_buf(&mut buffer).await else {
                return;
            };
            if bytes.send(buffer.split().freeze()).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = to_port => {}
        () = from_port => {}
    }
}
