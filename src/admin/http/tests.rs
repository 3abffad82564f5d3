use std::future::ready;

use hyper::StatusCode;

use super::*;
use crate::admin::answer::tests::context;

/// A request of a browser to the page at 127.0.0.1.
fn request(path: &str) -> Request<()> {
    let request = Request::builder()
        .uri(path)
        .header("host", "127.0.0.1:9801");
    request.body(()).unwrap()
}

fn here() -> Arrival {
    let [ours, peer] = [9801, 40_000].map(|port| ([127, 0, 0, 1], port).into());
    Arrival::Tcp { peer, ours }
}

fn serving() -> AdminContext {
    let http = Some(([127, 0, 0, 1], 9801).into());
    AdminContext {
        http,
        ..context(Vec::new())
    }
}

#[tokio::test]
async fn owners_are_looked_up_for_private_paths_only() {
    let context = serving();
    for (path, expected) in [
        ("/startup", 200),
        ("/liveness", 200),
        ("/readiness", 503),
        ("/metrics", 200),
        ("/stop", 404),
        ("/no-such-page", 404),
    ] {
        let owner = async { panic!("looked up for {path}") };
        let answer = answer_client(&context, (here(), owner), &request(path)).await;
        assert_eq!(answer.status.as_u16(), expected, "{path}");
    }
    for path in [
        "/",
        "/status",
        "/logins",
        "/explain/aws.expired",
        "/page/main.js",
    ] {
        for (owner, expected) in [
            (Ok(true), StatusCode::OK),
            (Err(Refusal::Gone), StatusCode::FORBIDDEN),
        ] {
            let owner = ready(owner);
            let answer = answer_client(&context, (here(), owner), &request(path)).await;
            assert_eq!(answer.status, expected, "{path}");
        }
    }
}

/// A website cannot make pgiam look up owners.
#[tokio::test]
async fn the_headers_are_judged_before_the_owner() {
    let context = serving();
    for (name, value, expected) in [
        ("host", "attacker.example", 421),
        ("host", "localhost:9801", 421),
        ("sec-fetch-site", "cross-site", 403),
    ] {
        let mut request = request("/status");
        request.headers_mut().insert(name, value.parse().unwrap());
        let owner = async { panic!("looked up for {value}") };
        let answer = answer_client(&context, (here(), owner), &request).await;
        assert_eq!(answer.status.as_u16(), expected, "{value}");
    }
}
