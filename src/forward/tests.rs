use super::*;
use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::base::stream::{BoxFuture, Stream};
use crate::config::{ConfigFile, TargetLayer, WrittenBastion};
use crate::tunnel::Readiness;

fn target(port: u16) -> ResolvedTarget {
    let flags = TargetLayer {
        bastion: Some(WrittenBastion::Text("i-1".to_owned())),
        connect_timeout: Some(5),
        dial_timeout: Some(5),
        ..TargetLayer::default()
    };
    let to = format!("127.0.0.1:{port}").parse().unwrap();
    ConfigFile::default().forward(to, None, &flags).unwrap()
}

/// Returns a forwarder on a free port, and that port.
fn start(transport: Arc<dyn Transport>, limit: usize) -> (Forwarder, u16) {
    let bound = bind(&[Listen::Localhost(0)]).unwrap();
    let Listen::Localhost(port) = bound[0].address() else {
        panic!("asked for localhost");
    };
    assert_ne!(port, 0, "the port that was given is shown");
    (
        Forwarder::start(
            target(1),
            transport,
            bound,
            Arc::new(Guard::of_clients(true)),
            Arc::new(Observed::new(limit)),
        ),
        port,
    )
}

async fn connect(port: u16) -> TcpStream {
    TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        .await
        .unwrap()
}

/// Echoes every connection until it ends.
async fn echo_server() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut input, mut output) = stream.split();
                _ = tokio::io::copy(&mut input, &mut output).await;
            });
        }
    });
    port
}

fn direct(port: u16) -> Arc<dyn Transport> {
    let target = target(port);
    Arc::new(DirectTransport::new(
        target.endpoint,
        target.settings.connect_timeout,
    ))
}

/// Refuses every stream.
struct Refuses;

impl Transport for Refuses {
    fn open(&self, _: Bytes) -> BoxFuture<'_, Result<Stream, TunnelError>> {
        Box::pin(async { Err(TunnelError::NoRegion) })
    }

    fn readiness(&self) -> Readiness {
        Readiness::Idle
    }
    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Never answers.
struct Hangs;

impl Transport for Hangs {
    fn open(&self, _: Bytes) -> BoxFuture<'_, Result<Stream, TunnelError>> {
        Box::pin(std::future::pending())
    }

    fn readiness(&self) -> Readiness {
        Readiness::Idle
    }
    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

async fn reset_by_us(client: &mut TcpStream) -> bool {
    let read = client.read(&mut [0]).await;
    read.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

#[tokio::test]
async fn bytes_pass_as_they_are() {
    let (forwarder, port) = start(direct(echo_server().await), 10);
    let mut client = connect(port).await;
    client.write_all(b"\0\xff anything").await.unwrap();
    let mut answer = [0; 11];
    client.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"\0\xff anything");
    drop(client);
    forwarder
        .drain(Duration::from_secs(30), std::future::pending())
        .await;
    assert!(
        TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .is_err()
    );
}

#[tokio::test]
async fn a_failure_is_a_reset_not_an_empty_answer() {
    let (_forwarder, port) = start(Arc::new(Refuses), 10);
    assert!(reset_by_us(&mut connect(port).await).await);
}

#[tokio::test]
async fn over_the_limit_connections_are_reset() {
    let (_forwarder, port) = start(direct(echo_server().await), 1);
    let mut first = connect(port).await;
    first.write_all(b"a").await.unwrap();
    first.read_exact(&mut [0]).await.unwrap();
    assert!(reset_by_us(&mut connect(port).await).await);
    first.write_all(b"b").await.unwrap();
    first.read_exact(&mut [0]).await.unwrap();
}

#[tokio::test]
async fn a_stop_resets_what_is_open_when_it_is_in_a_hurry() {
    for transport in [direct(echo_server().await), Arc::new(Hangs)] {
        let (forwarder, port) = start(transport, 10);
        let mut client = connect(port).await;
        while forwarder.connections.is_empty() {
            tokio::task::yield_now().await;
        }
        forwarder
            .drain(Duration::from_secs(3600), std::future::ready(()))
            .await;
        assert!(reset_by_us(&mut client).await);
    }
}

#[tokio::test]
async fn the_deadline_for_the_tunnel_is_the_targets() {
    let bound = bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let Listen::Address(address) = bound[0].address() else {
        panic!("asked for an address");
    };
    let mut target = target(1);
    target.settings.connect_timeout = Duration::from_millis(1);
    let guard = Arc::new(Guard::of_clients(true));
    let observed = Arc::new(Observed::new(9));
    let _forwarder = Forwarder::start(target, Arc::new(Hangs), bound, guard, observed);
    assert!(reset_by_us(&mut TcpStream::connect(address).await.unwrap()).await);
}

#[tokio::test]
async fn a_port_in_use_is_refused_with_another() {
    let taken = bind(&["127.0.0.1:0".parse().unwrap()]).unwrap();
    let address = taken[0].address();
    let Some(error) = bind(&[address]).err() else {
        panic!("{address} was bound twice");
    };
    let said = error.to_string();
    assert!(
        said.starts_with(&format!(
            "cannot listen on {address}: the port is in use\nhint: choose another port: --listen "
        )),
        "{said}"
    );
}

#[test]
fn other_ports_are_suggested() {
    let elsewhere = |port| suggested_port(&SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    assert_eq!(
        [80, 443, 3306, u16::MAX].map(elsewhere),
        [8080, 8443, 3307, 8000]
    );
    let refused = ListenError::NotAllowed {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 80)),
    };
    assert!(refused.to_string().ends_with("--listen 8080"), "{refused}");
}
