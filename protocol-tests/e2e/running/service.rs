//! What systemd is told.

use nix::sys::signal::Signal;
use tokio::net::UnixDatagram;
use tokio::time::timeout;

use crate::support::{PATIENCE, Setup, World};

async fn told(manager: &UnixDatagram) -> String {
    let mut buffer = [0; 4096];
    let received = timeout(PATIENCE, manager.recv(&mut buffer)).await;
    let length = received.expect("in time").expect("a message");
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

#[tokio::test]
async fn the_service_manager_hears_of_the_beginning_and_of_the_end() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("notify");
    let manager = UnixDatagram::bind(&path).expect("a socket");
    let mut world = World::with(Setup {
        env: vec![("NOTIFY_SOCKET", Some(path.display().to_string()))],
        ..Setup::default()
    })
    .await;
    let first = told(&manager).await;
    assert!(first.starts_with("READY=1\nSTATUS="), "{first}");
    world.proxy.signal(Signal::SIGHUP).expect("pgiam runs");
    let again = told(&manager).await;
    assert!(again.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{again}");
    assert_eq!(told(&manager).await, first);
    world.proxy.signal(Signal::SIGTERM).expect("pgiam runs");
    assert_eq!(told(&manager).await, "STOPPING=1\n");
    world.proxy.wait_end(PATIENCE).await.expect("pgiam ends");
    world.stop().await;
}
