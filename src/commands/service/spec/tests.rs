//! Choices for the service.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;
use crate::config::ServeLayer;

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[test]
fn settings_are_kept_and_secrets_are_named() {
    let all = [
        pair("AWS_PROFILE", "dev"),
        pair("AWS_ENDPOINT_URL_STS", "http://localhost:1"),
        pair("AWS_SECRET_ACCESS_KEY", "x"),
        pair("AWS_SESSION_TOKEN", "x"),
        pair("AWS_REGION", ""),
        pair("AWS_PAGER", "less"),
        pair("PGIAM_HTTP_PORT", "9801"),
        pair("PGIAM_CONFIG", "/c"),
        pair("PGIAM_LOCAL_PASSWORD", "x"),
        pair("PGIAM_SERVICE_HOST", "10.0.0.1"),
        pair("HTTPS_PROXY", "http://me:secret@proxy:3128"),
        pair("NO_PROXY", "localhost"),
        pair("HOME", "/root"),
        pair("AWS_CONFIG_FILE", "/a\nExecStart=/evil"),
    ];
    let (kept, left) = variables(all.into_iter());
    let kept: Vec<&str> = kept.keys().map(String::as_str).collect();
    assert_eq!(
        kept,
        [
            "AWS_ENDPOINT_URL_STS",
            "AWS_PROFILE",
            "NO_PROXY",
            "PGIAM_HTTP_PORT"
        ]
    );
    assert_eq!(
        left,
        [
            "AWS_SECRET_ACCESS_KEY",
            "AWS_SESSION_TOKEN",
            "HTTPS_PROXY",
            "PGIAM_LOCAL_PASSWORD"
        ]
    );
}

#[test]
fn sockets_are_where_pgiam_would_listen() {
    let ports = BTreeSet::from([5433, 5434]);
    let serve = |socket_dir, addresses: Vec<IpAddr>| ServeSettings {
        addresses,
        socket_dir,
        ..ServeSettings::from_layer(ServeLayer::default()).unwrap()
    };
    let loopback = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    assert_eq!(
        addresses(&serve(SocketDir::Default, loopback.clone()), &ports, |_| {
            true
        }),
        [
            "127.0.0.1:5433",
            "[::1]:5433",
            "%t/pgiam/.s.PGSQL.5433",
            "127.0.0.1:5434",
            "[::1]:5434",
            "%t/pgiam/.s.PGSQL.5434"
        ]
    );
    let ports = BTreeSet::from([5433]);
    let at = SocketDir::At("/run/p".into());
    assert_eq!(
        addresses(&serve(at, loopback.clone()), &ports, |_| false),
        ["127.0.0.1:5433", "/run/p/.s.PGSQL.5433"]
    );
    let mapped = Ipv4Addr::new(10, 0, 0, 7).to_ipv6_mapped();
    assert_eq!(
        addresses(&serve(SocketDir::None, vec![mapped.into()]), &ports, |_| {
            true
        }),
        ["10.0.0.7:5433"]
    );
}

#[test]
fn programs_of_a_build_and_of_temporary_folders_are_remarked() {
    for path in [
        "/home/me/pgiam/target/debug/pgiam",
        "/tmp/pgiam",
        "/usr/bin/pgiam (deleted)",
    ] {
        assert!(passing(Path::new(path)).is_some(), "{path}");
    }
    for path in [
        "/usr/bin/pgiam",
        "/home/me/.cargo/bin/pgiam",
        "/tmpfs/pgiam",
    ] {
        assert_eq!(passing(Path::new(path)), None);
    }
}

#[test]
fn the_file_is_named_once() {
    let words = ["orders", "--config", "a", "--port=1", "--config=b"].map(OsString::from);
    assert_eq!(without_config(&words), ["orders", "--port=1"]);
}
