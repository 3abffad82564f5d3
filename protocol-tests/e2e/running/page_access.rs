//! Access to the status page and `/status` at the port, and its other answers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde_json::Value;
use tokio::process::Command;

use super::{Answer, get, http, raw, request, world, world_with};
use crate::local::peer::{by_nobody, interface_address, two_users};
use crate::support::{Setup, World, run};

/// Paths of the page that its owner alone gets.
const PRIVATE: [&str; 5] = ["/", "/status", "/logins", "/page/main.js", "/page/page.css"];

async fn status_with(address: SocketAddr, path: &str, lines: &str) -> u16 {
    let answer = raw(address, &format!("GET {path} HTTP/1.1\r\n{lines}")).await;
    if answer.status != 200 {
        assert!(!answer.body.contains("orders"), "{answer:?}");
    }
    answer.status
}

#[tokio::test]
async fn the_owner_gets_the_page_and_the_status() {
    let world = world().await;
    let address = http(&world).await;
    for path in PRIVATE {
        let answer = get(address, path).await;
        assert_eq!(answer.status, 200, "{path}");
        for header in [
            "cache-control: no-store",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cross-origin-opener-policy: same-origin",
            "cross-origin-resource-policy: same-origin",
            "content-security-policy: default-src 'none'; ",
            "frame-ancestors 'none'",
        ] {
            assert!(answer.head.contains(header), "{path}: {header}");
        }
        assert!(!answer.head.contains("access-control-"), "{path}");
        let head = request(address, "HEAD", path).await;
        assert_eq!((head.status, &*head.body), (200, ""), "{path}");
        for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"] {
            let answer = request(address, method, path).await;
            assert_eq!(answer.status, 405, "{method} {path}");
            assert!(answer.head.contains("allow: get, head"), "{answer:?}");
        }
    }
    let document: Value = serde_json::from_str(&get(address, "/status").await.body).expect("JSON");
    assert_eq!(document["pid"], world.proxy.pid().expect("pgiam runs"));
    assert_eq!(document["targets"][0]["name"], "orders");
    for path in [
        "/page",
        "/page/",
        "/page/../status",
        "/status/",
        "/favicon.ico",
    ] {
        assert_eq!(get(address, path).await.status, 404, "{path}");
    }
    assert!(
        world.sandbox.events().all().is_empty(),
        "reading costs nothing"
    );
    world.stop().await;
}

#[tokio::test]
async fn requests_of_websites_are_refused() {
    let world = world().await;
    let address = http(&world).await;
    let port = address.port();
    let own = format!("Host: 127.0.0.1:{port}\r\n");
    for path in PRIVATE {
        for (status, lines) in [
            (200, own.clone()),
            (200, format!("{own}Sec-Fetch-Site: none\r\n")),
            (200, format!("{own}Sec-Fetch-Site: same-origin\r\n")),
            (403, format!("{own}Sec-Fetch-Site: cross-site\r\n")),
            (403, format!("{own}Sec-Fetch-Site: same-site\r\n")),
            (403, format!("{own}Origin: https://attacker.example\r\n")),
            (403, format!("{own}Origin: null\r\n")),
            (421, format!("Host: localhost:{port}\r\n")),
            // DNS rebinding.
            (421, format!("Host: attacker.example:{port}\r\n")),
            (421, format!("{own}Host: attacker.example\r\n")),
        ] {
            assert_eq!(
                status_with(address, path, &lines).await,
                status,
                "{path} {lines}"
            );
        }
    }
    // The proxy form of a request names another host.
    let line = format!("GET http://attacker.example/status HTTP/1.1\r\n{own}");
    assert_eq!(raw(address, &line).await.status, 421);
    let answer = raw(
        address,
        &format!("GET / HTTP/1.1\r\nHost: localhost:{port}\r\n"),
    )
    .await;
    let expected = format!(
        "pgiam answers requests to its own address only: \
         the request is addressed to localhost, where another program may answer as well\n\
         Open http://127.0.0.1:{port}/\n"
    );
    assert!(answer.body.starts_with(&expected), "{answer:?}");
    // Prometheus and kubelets send no such headers, and are not asked for them.
    for path in ["/liveness", "/metrics"] {
        for host in ["127.0.0.1", "localhost"] {
            let lines = format!("Host: {host}:{port}\r\nSec-Fetch-Site: cross-site\r\n");
            assert_eq!(status_with(address, path, &lines).await, 200, "{path}");
        }
    }
    world.stop().await;
}

/// Browsers send the cookies of all servers of a host.
#[tokio::test]
async fn heads_have_a_limit_above_the_cookies_of_other_servers() {
    let world = world().await;
    let address = http(&world).await;
    for (status, size) in [(200, 16 * 1024), (431, 64 * 1024)] {
        let cookie = format!("Host: {address}\r\nCookie: x={}\r\n", "y".repeat(size));
        assert_eq!(
            status_with(address, "/status", &cookie).await,
            status,
            "{size}"
        );
    }
    assert_eq!(get(address, "/status").await.status, 200);
    world.stop().await;
}

/// The answer to another user's process.
async fn as_nobody(address: SocketAddr, path: &str) -> Answer {
    let script = format!(
        "exec 3<>/dev/tcp/{}/{}; printf 'GET {path} HTTP/1.1\\r\\nHost: {address}\\r\\n\\r\\n' >&3; cat <&3",
        address.ip(),
        address.port()
    );
    let mut bash = Command::new("/bin/bash");
    bash.args(["-c", &script]);
    let ran = run(by_nobody(&bash)).await;
    assert_eq!(ran.code, Some(0), "{ran:?}");
    Answer::of(&ran.stdout)
}

#[tokio::test]
async fn another_users_process_gets_health_and_metrics_only() {
    if !two_users() {
        return;
    }
    let world = world().await;
    let address = http(&world).await;
    for path in PRIVATE {
        let answer = as_nobody(address, path).await;
        assert_eq!(answer.status, 403, "{path}");
        let expected = "pgiam shows its status to its own user only: \
                        the client runs as user id 65534, and pgiam as 0\n\
                        Open it as the user that runs pgiam, or run as that user:\n  \
                        pgiam status --watch\n";
        assert!(answer.body.starts_with(expected), "{answer:?}");
        assert!(!answer.body.contains("orders"), "{answer:?}");
    }
    for path in ["/startup", "/liveness", "/readiness", "/metrics"] {
        assert_eq!(as_nobody(address, path).await.status, 200, "{path}");
    }
    for path in ["/stop", "/reload"] {
        assert_eq!(as_nobody(address, path).await.status, 404, "{path}");
    }
    assert_eq!(get(address, "/status").await.status, 200);
    world.stop().await;
}

/// As for clients of databases: every local user is served, and with a password those that give it.
#[tokio::test]
async fn without_the_check_all_local_users_get_the_page_unless_there_is_a_password() {
    if !two_users() {
        return;
    }
    let open = world_with(&["--peer-check=false"]).await;
    let address = http(&open).await;
    assert_eq!(as_nobody(address, "/status").await.status, 200);
    open.stop().await;
    if let Some(own) = interface_address(IpAddr::V4(Ipv4Addr::LOCALHOST)) {
        // There is no owner to see, and a forwarded port would lead to the same answer.
        let world = world_with(&["--peer-check=false", "--http-address", &own.to_string()]).await;
        let answer = get(http(&world).await, "/").await;
        assert_eq!(answer.status, 403, "{answer:?}");
        let remedy = "\nRun this command, with the machine of pgiam as HOST:\n  \
                      ssh -t HOST pgiam status --watch\n";
        assert!(answer.body.contains(remedy), "{answer:?}");
        world.stop().await;
    }
    let args = ["--http-port", "0", "--peer-check=false"];
    let world = World::with(Setup {
        args: args.map(str::to_owned).into(),
        env: vec![("PGIAM_LOCAL_PASSWORD", Some("a local secret".to_owned()))],
        ..Setup::default()
    })
    .await;
    let address = http(&world).await;
    for answer in [as_nobody(address, "/status").await, get(address, "/").await] {
        assert_eq!(answer.status, 403, "{answer:?}");
        assert!(answer.body.contains("need a password"), "{answer:?}");
    }
    assert_eq!(get(address, "/liveness").await.status, 200);
    world.stop().await;
}

#[tokio::test]
async fn at_an_address_for_other_machines_the_owner_gets_the_page() {
    let Some(own) = interface_address(IpAddr::V4(Ipv4Addr::LOCALHOST)) else {
        println!("skipped: this machine has the loopback address only");
        return;
    };
    let world = world_with(&["--http-address", "0.0.0.0"]).await;
    let port = http(&world).await.port();
    let address = SocketAddr::new(own, port);
    for path in PRIVATE {
        assert_eq!(get(address, path).await.status, 200, "{path}");
        let lines = format!("Host: attacker.example:{port}\r\n");
        assert_eq!(status_with(address, path, &lines).await, 421, "{path}");
    }
    let lines = format!("Host: pgiam.example:{port}\r\n");
    assert_eq!(status_with(address, "/liveness", &lines).await, 200);
    if two_users() {
        assert_eq!(as_nobody(address, "/status").await.status, 403);
        assert_eq!(as_nobody(address, "/metrics").await.status, 200);
    }
    world.stop().await;
}
