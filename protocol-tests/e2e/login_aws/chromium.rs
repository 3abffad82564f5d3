//! `pgiam login` with a real browser.

use std::path::Path;

use protocol_tests::harness::browser::Browser;

use super::{Home, config, ended};
use crate::support::{PATIENCE, REGION};

/// Opens the address that pgiam opened, presses a button, and returns what the last page shows.
async fn press(browser: &mut Browser, address: &str, button: &str, last: &str) -> String {
    browser.open(address).await.expect("a page");
    browser
        .wait_text("Allow access")
        .await
        .expect("the question");
    browser.click(button).await.expect("a button");
    browser.wait_text(last).await.expect("pgiam's page")
}

#[tokio::test]
async fn chromium_follows_a_login_to_its_end() {
    let sandbox = protocol_tests::aws::sandbox::Sandbox::builder().region(REGION);
    let sandbox = sandbox.start().await.expect("sandbox");
    let home = Home::new(&sandbox, &config(&sandbox));
    let browser = Browser::start(sandbox.certificate_pin()).await;
    let Some(mut browser) = browser.expect("a browser") else {
        return;
    };
    let login = home.start(&sandbox, &["login", "dev"]);
    let address = home.person.address(1, PATIENCE).await.expect("an address");
    let page = press(&mut browser, &address, "#allow", "You are logged in").await;
    assert!(!page.contains("error"), "{page}");
    let local = browser.address().await.expect("an address");
    assert!(local.starts_with("http://127.0.0.1:"), "{local}");
    let picture = browser.screenshot().await.expect("a picture");
    // Left in target/tmp, to look at.
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("logged-in.png");
    std::fs::write(file, picture).expect("a file");
    assert_eq!(ended(login).await.code, Some(0));

    let login = home.start(&sandbox, &["login", "dev"]);
    let address = home.person.address(2, PATIENCE).await.expect("an address");
    press(&mut browser, &address, "#deny", "The login failed").await;
    assert_eq!(ended(login).await.code, Some(1));

    let login = home.start(&sandbox, &["login", "dev", "--device-code"]);
    let address = home.person.address(3, PATIENCE).await.expect("an address");
    press(&mut browser, &address, "#allow", "Request approved").await;
    assert_eq!(ended(login).await.code, Some(0));
    browser.stop().await.expect("the browser ends");
    sandbox.shutdown().await;
}
