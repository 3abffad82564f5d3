//! Chromium judges the sandbox's sign-in pages: it shows them, presses their buttons, and follows the
//! redirect to a listener of the client.
//!
//! `./dev test` finds or installs it and names it in `PGIAM_CHROMIUM`. Without it these tests are
//! left out aloud; in CI that is a failure.

use protocol_tests::aws::events::Event;
use protocol_tests::aws::sandbox::Sandbox;
use protocol_tests::harness::browser::Browser;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// A listener of a client: answers the first request with a page, and returns its target.
async fn callback(listener: TcpListener) -> String {
    let (mut socket, _) = listener.accept().await.unwrap();
    let mut buffer = vec![0; 8192];
    let read = socket.read(&mut buffer).await.unwrap();
    let page = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 30\r\n\
                connection: close\r\n\r\n<h1>You are signed in now</h1>";
    socket.write_all(page.as_bytes()).await.unwrap();
    let text = String::from_utf8(buffer[..read].to_vec()).unwrap();
    text.split(' ').nth(1).unwrap().to_owned()
}

fn answered(sandbox: &Sandbox, page: &str, allowed: bool) -> usize {
    let wanted = Event::PageAnswered {
        page: page.to_owned(),
        allowed,
    };
    sandbox.events().count(|event| *event == wanted)
}

#[tokio::test]
async fn chromium_follows_a_code_to_the_listener() {
    let sandbox = Sandbox::builder().start().await.unwrap();
    let browser = Browser::start(sandbox.certificate_pin()).await;
    let Some(mut browser) = browser.unwrap() else {
        return;
    };
    let client = sandbox.identity_center().register_for_codes();
    for (button, parameter) in [("#allow", "?code="), ("#deny", "?error=access_denied&")] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = tokio::spawn(callback(listener));
        let url = format!(
            "{}/authorize?response_type=code&client_id={client}&redirect_uri=http%3A%2F%2F\
             127.0.0.1%3A{port}%2Foauth%2Fcallback&state=s1&code_challenge_method=S256\
             &scopes=sso%3Aaccount%3Aaccess&code_challenge={}",
            sandbox.endpoint_url(),
            "x".repeat(43)
        );
        browser.open(&url).await.unwrap();
        let page = browser.wait_text("Allow access").await.unwrap();
        assert!(
            page.contains("Allow botocore-client-test to access your data?"),
            "{page}"
        );
        let picture = browser.screenshot().await.unwrap();
        assert!(picture.starts_with(b"\x89PNG") && picture.len() > 1000);
        browser.click(button).await.unwrap();
        browser.wait_text("You are signed in now").await.unwrap();
        let local = format!("http://127.0.0.1:{port}/oauth/callback{parameter}");
        let address = browser.address().await.unwrap();
        assert!(address.starts_with(&local), "{address}");
        assert!(target.await.unwrap().ends_with("&state=s1"));
    }
    assert_eq!(answered(&sandbox, "/authorize", true), 1);
    assert_eq!(answered(&sandbox, "/authorize", false), 1);
    browser.stop().await.unwrap();
}

#[tokio::test]
async fn chromium_allows_a_device() {
    let sandbox = Sandbox::builder().start().await.unwrap();
    let browser = Browser::start(sandbox.certificate_pin()).await;
    let Some(mut browser) = browser.unwrap() else {
        return;
    };
    let code = sandbox.identity_center().start_device_code();
    let url = format!("{}/device?user_code={code}", sandbox.endpoint_url());
    browser.open(&url).await.unwrap();
    browser.wait_text(&code).await.unwrap();
    browser.click("#allow").await.unwrap();
    browser.wait_text("Request approved").await.unwrap();
    assert_eq!(answered(&sandbox, "/device", true), 1);
    browser.stop().await.unwrap();
}

#[tokio::test]
async fn chromium_trusts_no_other_certificate() {
    let sandbox = Sandbox::builder().start().await.unwrap();
    let other = Sandbox::builder().start().await.unwrap();
    let browser = Browser::start(sandbox.certificate_pin()).await;
    let Some(mut browser) = browser.unwrap() else {
        return;
    };
    let url = format!("{}/device", other.endpoint_url());
    let refused = browser.open(&url).await.unwrap_err().to_string();
    assert!(refused.contains("ERR_CERT_AUTHORITY_INVALID"), "{refused}");
    browser.stop().await.unwrap();
}
