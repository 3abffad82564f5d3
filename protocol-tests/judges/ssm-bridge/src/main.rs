//! Forwards a local port through a Session Manager session, with the `aws-ssm-bridge` crate.
//!
//! `bridge-forward TARGET HOST PORT` starts a session on the managed node TARGET, prints
//! `listening ADDRESS:PORT` and forwards every connection there to HOST:PORT as the node sees it. It
//! ends when its standard input closes, on SIGTERM, or when the session is over.
//!
//! Where AWS is comes from the usual variables: `AWS_ENDPOINT_URL`, `AWS_REGION` and the credentials.
//! Whom to trust instead of the system's authorities is in `SSL_CERT_FILE`, which both TLS libraries
//! in here read.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;

use aws_ssm_bridge::documents::PortForwardingToRemoteHost;
use aws_ssm_bridge::{
    EndpointPolicy, PortForwardConfig, PortForwarder, SessionBuilder, SessionManager,
    ShutdownSignal,
};
use tokio::io::AsyncReadExt as _;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// More than any test or measurement opens at a time.
const MAX_CONNECTIONS: usize = 256;

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::WARN)
        .with_writer(io::stderr)
        .init();
    let outcome = Runtime::new().map_err(Failure::from).and_then(|runtime| {
        let outcome = runtime.block_on(run());
        // A read of standard input cannot be called off; waiting for it would never end.
        runtime.shutdown_background();
        outcome
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing can be done when even that fails.
            _ = writeln!(io::stderr(), "bridge-forward: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let (Some(target), Some(host), Some(port), None) = (
        arguments.next(),
        arguments.next(),
        arguments.next(),
        arguments.next(),
    ) else {
        return Err("usage: bridge-forward TARGET HOST PORT".into());
    };
    let document = PortForwardingToRemoteHost::new(host, port.parse()?);
    let config = aws_config::load_defaults(aws_config::BehaviorVersion::latest()).await;
    let manager = SessionManager::from_conf(&config);
    let session = SessionBuilder::new(target)
        .document(document)
        // The sandbox is no AWS host name.
        .endpoint_policy(EndpointPolicy::AllowAny)
        .start_with(&manager)
        .await?;
    session.wait_ready().await?;

    let forwarder = PortForwarder::bind(PortForwardConfig {
        max_connections: MAX_CONNECTIONS,
        ..PortForwardConfig::default()
    })
    .await?;
    let mut out = io::stdout();
    writeln!(out, "listening {}", forwarder.local_addr())?;
    out.flush()?;

    let shutdown = ShutdownSignal::new();
    tokio::spawn(stop_when_told(shutdown.clone()));
    let session = Arc::new(session);
    let forwarded = forwarder.forward(session.clone(), shutdown).await;
    // Only a session that ended by itself has a reason before it is told to go.
    let reason = session.close_reason();
    session.terminate().await?;
    forwarded?;
    match reason {
        Some(reason) => Err(format!("the session is over: {reason}").into()),
        None => Ok(()),
    }
}

/// Triggers `shutdown` at the end of standard input or on SIGTERM.
async fn stop_when_told(shutdown: ShutdownSignal) {
    let mut input = tokio::io::stdin();
    let mut ignored = [0; 256];
    let closed = async { while matches!(input.read(&mut ignored).await, Ok(1..)) {} };
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => tokio::select! {
            () = closed => {}
            _ = terminate.recv() => {}
        },
        Err(_) => closed.await,
    }
    shutdown.shutdown();
}
