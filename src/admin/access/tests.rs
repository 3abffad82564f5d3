use std::io;

use super::*;
use crate::admin::answer::tests::context;

const PEER: UserId = UserId::Uid(1001);
const OWN: UserId = UserId::Uid(7);
const LOOPBACK: &str = "127.0.0.1:9801";
const INTERFACE: &str = "10.0.0.7:9801";

fn arrival(ours: &str, peer: &str) -> Arrival {
    Arrival::Tcp {
        ours: ours.parse().unwrap(),
        peer: peer.parse().unwrap(),
    }
}

fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        let name = HeaderName::from_static(name);
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn meant(address: &str, host: &str) -> bool {
    let headers = headers(&[("host", host)]);
    is_meant(address.parse().ok(), &headers, &Uri::from_static("/"))
}

/// Judges a request for the page at `ours`, which is also the configured address.
fn judged(ours: &str, pairs: &[(&'static str, &str)]) -> Result<(), Denial> {
    asked_for(ours, (&Method::GET, "/"), pairs)
}

fn asked_for(
    ours: &str,
    (method, path): (&Method, &'static str),
    pairs: &[(&'static str, &str)],
) -> Result<(), Denial> {
    let (headers, uri) = (headers(pairs), Uri::from_static(path));
    let request = (method, &headers, &uri);
    judge_headers(ours.parse().ok(), arrival(ours, ours), request)
}

#[test]
fn names_of_others_are_not_answered_on_the_loopback() {
    for host in [
        "127.0.0.1:9801",
        "127.0.0.1",
        "127.8.9.10",
        "[::1]:9801",
        "[::1]",
        "[::ffff:127.0.0.1]:9801",
    ] {
        assert!(meant(LOOPBACK, host), "{host}");
        assert_eq!(judged(LOOPBACK, &[("host", host)]), Ok(()), "{host}");
    }
    for host in [
        "attacker.example:9801",
        "attacker.example",
        "localhost.attacker.example",
        "127.0.0.1.attacker.example",
        "localhost.",
        "10.0.0.1",
        "0.0.0.0:9801",
        "[::]",
        "",
        ":9801",
    ] {
        assert!(!meant(LOOPBACK, host), "{host}");
        assert!(meant(INTERFACE, host), "{host}: health is for all");
        for ours in [LOOPBACK, INTERFACE] {
            assert_eq!(
                judged(ours, &[("host", host)]),
                Err(Denial::OtherHost),
                "{host}"
            );
        }
    }
    assert_eq!(judged(LOOPBACK, &[]), Ok(()), "HTTP/1.0");
}

/// A browser takes the page of `localhost` from `::1`, if another user listens there, and sends the
/// requests of that page to 127.0.0.1 when that user closes the port: all have one origin.
#[test]
fn localhost_is_a_name_for_health_only() {
    for host in ["localhost:9801", "LOCALHOST", "localhost"] {
        assert!(meant(LOOPBACK, host), "{host}");
        for ours in [LOOPBACK, INTERFACE] {
            let denied = judged(ours, &[("host", host)]);
            assert_eq!(denied, Err(Denial::Localhost), "{host}");
        }
    }
    let remedy = Denial::Localhost.remedy("0.0.0.0:9801".parse().ok());
    assert_eq!(remedy, "Open http://127.0.0.1:9801/\n");
}

#[test]
fn the_configured_address_and_the_one_of_the_connection_are_own_names() {
    let host = [("host", INTERFACE)];
    assert_eq!(judged(INTERFACE, &host), Ok(()));
    let headers = headers(&host);
    let at = |address: &str| {
        let (ours, uri) = (
            arrival(INTERFACE, "10.0.0.7:40000"),
            Uri::from_static("/status"),
        );
        judge_headers(address.parse().ok(), ours, (&Method::GET, &headers, &uri))
    };
    assert_eq!(at("0.0.0.0:9801"), Ok(()));
    assert_eq!(judged(LOOPBACK, &host), Err(Denial::OtherHost));
}

#[test]
fn each_name_of_a_request_counts() {
    let two = [("host", "127.0.0.1:9801"), ("host", "attacker.example")];
    assert_eq!(judged(LOOPBACK, &two), Err(Denial::OtherHost));
    let one = headers(&[("host", "127.0.0.1:9801")]);
    let absolute = Uri::from_static("http://attacker.example:9801/status");
    let ours = arrival(LOOPBACK, "127.0.0.1:40000");
    assert_eq!(
        judge_headers(None, ours, (&Method::GET, &one, &absolute)),
        Err(Denial::OtherHost),
        "the form of a request to a proxy"
    );
}

#[test]
fn requests_that_another_site_caused_are_denied() {
    let host = ("host", "127.0.0.1:9801");
    for more in [
        ("sec-fetch-site", "none"),
        ("sec-fetch-site", "same-origin"),
        ("origin", "http://127.0.0.1:9801"),
    ] {
        assert_eq!(judged(LOOPBACK, &[host, more]), Ok(()), "{more:?}");
    }
    for more in [
        ("sec-fetch-site", "cross-site"),
        // Another port of the machine is the same site, but may be another user's.
        ("sec-fetch-site", "same-site"),
        ("sec-fetch-site", ""),
        ("origin", "null"),
        ("origin", "http://127.0.0.1:3000"),
        ("origin", "http://localhost:9801"),
        ("origin", "https://127.0.0.1:9801"),
        ("origin", "http://attacker.example"),
    ] {
        let denied = judged(LOOPBACK, &[host, more]);
        assert_eq!(denied, Err(Denial::OtherSite), "{more:?}");
    }
    let both = [
        host,
        ("sec-fetch-site", "none"),
        ("sec-fetch-site", "cross-site"),
    ];
    assert_eq!(judged(LOOPBACK, &both), Err(Denial::OtherSite));
    let no_host = [("origin", "http://127.0.0.1:9801")];
    assert_eq!(judged(LOOPBACK, &no_host), Err(Denial::OtherSite));
}

#[test]
fn a_link_opens_the_page_but_no_data() {
    let host = ("host", "127.0.0.1:9801");
    let mode = ("sec-fetch-mode", "navigate");
    let dest = ("sec-fetch-dest", "document");
    for site in ["cross-site", "same-site"] {
        let link = [host, ("sec-fetch-site", site), mode, dest];
        let get = |path| asked_for(LOOPBACK, (&Method::GET, path), &link);
        assert_eq!(get("/"), Ok(()));
        for path in [
            "/status",
            "/logins",
            "/page/main.js",
            "/explain/aws.expired",
        ] {
            assert_eq!(get(path), Err(Denial::OtherSite), "{path}");
        }
        let posted = asked_for(LOOPBACK, (&Method::POST, "/"), &link);
        assert_eq!(posted, Err(Denial::OtherSite));
        for other in [
            [mode, ("sec-fetch-dest", "iframe")],
            [mode, ("sec-fetch-dest", "embed")],
            [("sec-fetch-mode", "no-cors"), dest],
            [mode, mode],
            [dest, dest],
        ] {
            let pairs = [&[host, ("sec-fetch-site", site)], &other[..]].concat();
            assert_eq!(
                judged(LOOPBACK, &pairs),
                Err(Denial::OtherSite),
                "{other:?}"
            );
        }
        let posted_by = [&link[..], &[("origin", "http://attacker.example")]].concat();
        assert_eq!(judged(LOOPBACK, &posted_by), Err(Denial::OtherSite));
    }
}

/// Judges a client by its owner, with pgiam at `address`.
fn judged_by(
    (address, has_password, knows_owners): (&str, bool, bool),
    owner: Result<bool, Refusal>,
    arrival: Arrival,
) -> Result<(), Denial> {
    let context = AdminContext {
        http: address.parse().ok(),
        has_password,
        knows_owners,
        ..context(Vec::new())
    };
    judge_owner(&context, owner, arrival)
}

#[test]
fn clients_are_judged_like_those_of_databases() {
    let here = arrival(LOOPBACK, "127.0.0.1:40000");
    let elsewhere = arrival(INTERFACE, "10.0.0.9:40000");
    let judged =
        |has_password, owner, arrival| judged_by((LOOPBACK, has_password, true), owner, arrival);
    // The owner is not reported by the system, or not looked up.
    assert_eq!(judged(false, Ok(false), here), Ok(()));
    assert_eq!(judged(true, Ok(false), here), Err(Denial::Password));
    for has_password in [false, true] {
        for arrival in [here, elsewhere] {
            assert_eq!(judged(has_password, Ok(true), arrival), Ok(()));
        }
        let denied = judged(has_password, Ok(false), elsewhere);
        let peer = [10, 0, 0, 9].into();
        let forward = true;
        assert_eq!(denied, Err(Denial::Elsewhere { peer, forward }));
        for (refusal, denial) in [
            (
                Refusal::Foreign {
                    peer: PEER,
                    own: OWN,
                },
                Denial::Foreign {
                    peer: PEER,
                    own: OWN,
                },
            ),
            (
                Refusal::Unknown(io::ErrorKind::NotFound.into()),
                Denial::Unknown(
                    "cannot look up the owner of the client: entity not found".to_owned(),
                ),
            ),
        ] {
            assert_eq!(judged(has_password, Err(refusal), here), Err(denial));
        }
    }
}

/// A forwarded port leads to the page only if pgiam then sees the owner, or a loopback address.
#[test]
fn a_port_is_forwarded_only_where_that_helps() {
    for (address, has_password, knows_owners, expected) in [
        (INTERFACE, false, true, true),
        (INTERFACE, true, true, true),
        (INTERFACE, false, false, false),
        ("0.0.0.0:9801", false, false, true),
        ("[::]:9801", false, false, true),
        ("0.0.0.0:9801", true, false, false),
    ] {
        let server = (address, has_password, knows_owners);
        let denied = judged_by(server, Ok(false), arrival(INTERFACE, "10.0.0.9:40000"));
        let Err(denial @ Denial::Elsewhere { forward, .. }) = denied else {
            panic!("{server:?}: {denied:?}");
        };
        assert_eq!(forward, expected, "{server:?}");
        let remedy = denial.remedy(address.parse().ok());
        assert_eq!(remedy.contains("ssh -N -L"), expected, "{remedy}");
        let watches = remedy.contains("\n  ssh -t HOST pgiam status --watch\n");
        assert_eq!(watches, !expected, "{remedy}");
    }
}

#[test]
fn the_address_of_the_page_can_be_opened() {
    let url = |address: &str| crate::admin::page_url(address.parse().unwrap());
    assert_eq!(url("127.0.0.1:9801"), "http://127.0.0.1:9801/");
    assert_eq!(url("[::1]:9801"), "http://[::1]:9801/");
    // Not localhost: browsers try ::1 first, where another user may listen.
    assert_eq!(url("0.0.0.0:9801"), "http://127.0.0.1:9801/");
    assert_eq!(url("[::]:9801"), "http://[::1]:9801/");
}

#[test]
fn a_denial_names_reason_and_remedy() {
    let texts = |denial: Denial, address: &str| {
        format!("{denial}\n{}", denial.remedy(address.parse().ok()))
    };
    let foreign = Denial::Foreign {
        peer: PEER,
        own: OWN,
    };
    assert_eq!(
        texts(foreign, LOOPBACK),
        "the client runs as user id 1001, and pgiam as 7\n\
         Open it as the user that runs pgiam, or run as that user:\n  pgiam status --watch\n"
    );
    for unknown in [Denial::Unknown("no owner".to_owned()), Denial::Password] {
        // The client may be a program of pgiam's user already.
        let text = texts(unknown, LOOPBACK);
        assert!(text.ends_with("\nRun as the user that runs pgiam:\n  pgiam status --watch\n"));
    }
    let far = || Denial::Elsewhere {
        peer: [10, 0, 0, 9].into(),
        forward: true,
    };
    let text = texts(far(), INTERFACE);
    assert!(
        text.ends_with("\n  ssh -N -L 9801:10.0.0.7:9801 HOST\n"),
        "{text}"
    );
    let text = texts(far(), "0.0.0.0:9801");
    assert!(
        text.ends_with("\n  ssh -N -L 9801:127.0.0.1:9801 HOST\n"),
        "{text}"
    );
}
