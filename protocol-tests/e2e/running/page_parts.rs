//! Parts of the status page: notices, keys, roles, copying, and explanations that come late.

use nix::sys::signal::Signal;
use protocol_tests::harness::browser::Browser;
use serde_json::Value;

use super::page::{clean, open, picture, value, wait};
use super::{world, world_with};
use crate::shell::Shell;
use crate::support::{World, ordinary_config};

fn change(world: &World, text: &str) {
    let path = world.sandbox.dir().join("pgiam.toml");
    std::fs::write(path, text).expect("the file is replaced");
}

async fn notice(browser: &mut Browser, tone: &str, text: &str) {
    let all = format!("[...document.querySelectorAll('#notices .notice.{tone}')]");
    let found = format!("{all}.some((notice) => notice.innerText.includes({text:?}))");
    wait(browser, &found).await;
}

#[tokio::test]
async fn notices_come_and_go() {
    let world = world_with(&["--drain-timeout", "600"]).await;
    let mut psql = Shell::open(&world, "");
    psql.backend().await;
    let Some((mut browser, address)) = open(&world).await else {
        drop(psql);
        return world.stop().await;
    };
    let notices = "document.querySelectorAll('#notices .notice').length";
    notice(&mut browser, "plain", "AWS identity: ").await;
    notice(&mut browser, "plain", "no expiry. Chosen by: ").await;
    change(&world, "[targets.orders]\nport = \"none\"\n");
    notice(&mut browser, "bad", "Configuration not reloaded: ").await;
    picture(&mut browser, "notice").await;
    change(&world, &ordinary_config());
    wait(&mut browser, &format!("{notices} === 1")).await;
    clean(&browser, address);
    world.proxy.signal(Signal::SIGTERM).expect("pgiam runs");
    let draining = "pgiam is stopping, and waits for 1 open connection";
    notice(&mut browser, "warn", draining).await;
    drop(psql);
    browser.stop().await.expect("the browser ends");
    world.stop().await;
}

#[tokio::test]
async fn elements_have_roles_and_names_at_each_width() {
    let world = world().await;
    let mut psql = Shell::open(&world, "application_name=reporting");
    psql.backend().await;
    let Some((mut browser, address)) = open(&world).await else {
        drop(psql);
        return world.stop().await;
    };
    wait(&mut browser, "document.querySelector('#connections td')").await;
    for width in [1280, 360] {
        browser.look(width, "light").await.expect("set");
        let all = browser.accessible().await.expect("a tree");
        for expected in [
            "heading \"pgiam serve\"",
            "button \"Pause\"",
            "button \"Keys\"",
            "list \"Summary\"",
            "region \"Plots\"",
            "combobox \"Target\"",
            "combobox \"Time\"",
            "table \"Targets\"",
            "table \"Connections\"",
            "searchbox \"Filter\"",
            "status \"\"",
            "button \"Copy: psql -h localhost -p",
        ] {
            let is_there = all.iter().any(|element| element.starts_with(expected));
            assert!(is_there, "{width}: {expected}: {all:#?}");
        }
        // Rows stay rows when they look like cards.
        for (role, least) in [("row ", 2), ("cell ", 7)] {
            let count = all
                .iter()
                .filter(|element| element.starts_with(role))
                .count();
            assert!(count >= least, "{width}: {role}: {all:#?}");
        }
    }

    // The order of the rows is told, and can be changed at this width.
    let sorted = "[...document.querySelectorAll('#connections th')]\
        .filter((th) => th.ariaSort).map((th) => [th.innerText, th.ariaSort].join(' ')).join()";
    assert_eq!(value(&mut browser, sorted).await, "Throughput descending");
    for expected in ["Program ascending", "Program descending"] {
        browser
            .click("#connections th:first-child button")
            .await
            .expect("a heading");
        wait(&mut browser, &format!("({sorted}) === {expected:?}")).await;
    }
    picture(&mut browser, "sorted-360").await;
    let pause = "document.querySelector('#pause')";
    for (pressed, text) in [("true", "Go on"), ("false", "Pause")] {
        browser.click("#pause").await.expect("a button");
        let shown =
            format!("{pause}.ariaPressed === '{pressed}' && {pause}.innerText === '{text}'");
        wait(&mut browser, &shown).await;
    }
    clean(&browser, address);
    drop(psql);
    browser.stop().await.expect("the browser ends");
    world.stop().await;
}

#[tokio::test]
async fn the_keys_are_listed_in_a_window() {
    let world = world().await;
    let Some((mut browser, address)) = open(&world).await else {
        return world.stop().await;
    };
    value(&mut browser, "document.querySelector('#help').focus()").await;
    browser.press("Enter").await.expect("pressed");
    wait(&mut browser, "document.querySelector('#keys').open").await;
    let all = browser.accessible().await.expect("a tree");
    assert!(all.contains(&"dialog \"Keys\"".to_owned()), "{all:#?}");
    let listed = "[...document.querySelectorAll('#keys dt')].map((key) => key.innerText).join()";
    assert_eq!(value(&mut browser, listed).await, "/,Esc,p,← →,?");
    // The page behind the window does not react to its keys.
    browser.press("p").await.expect("pressed");
    browser.press("/").await.expect("pressed");
    let state = "[document.querySelector('#pause').ariaPressed, document.activeElement.id].join()";
    let state = value(&mut browser, state).await;
    let state = state.as_str().expect("a text");
    assert!(
        state.starts_with("false,") && !state.ends_with("filter"),
        "{state}"
    );
    picture(&mut browser, "keys").await;
    browser.press("Escape").await.expect("pressed");
    let back = "!document.querySelector('#keys').open && document.activeElement.id === 'help'";
    wait(&mut browser, back).await;
    clean(&browser, address);
    browser.stop().await.expect("the browser ends");
    world.stop().await;
}

#[tokio::test]
async fn a_copy_button_tells_the_result_and_can_be_used_again() {
    let world = world().await;
    let Some((mut browser, address)) = open(&world).await else {
        return world.stop().await;
    };
    let button = "document.querySelector('#targets .copy')";
    wait(&mut browser, button).await;
    let copies = "window.copied = []; navigator.clipboard.writeText = async (text) => { copied.push(text); }; true";
    value(&mut browser, copies).await;
    let connect = value(
        &mut browser,
        "document.querySelector('.connect code').innerText",
    )
    .await;
    for times in 1..=2 {
        browser.click("#targets .copy").await.expect("a button");
        wait(&mut browser, &format!("{button}.innerText === 'Copied'")).await;
        wait(
            &mut browser,
            "document.querySelector('#announcement').innerText === 'Copied'",
        )
        .await;
        let copied = value(&mut browser, "copied").await;
        assert_eq!(copied, Value::Array(vec![connect.clone(); times]));
        wait(&mut browser, &format!("{button}.innerText === 'Copy'")).await;
    }
    // Without the clipboard, a selection serves; without both, the page says so.
    let denied = "navigator.clipboard.writeText = async () => { throw new Error('denied'); }; \
                  document.execCommand = () => false; true";
    value(&mut browser, denied).await;
    browser.click("#targets .copy").await.expect("a button");
    wait(
        &mut browser,
        &format!("{button}.innerText === 'Not copied'"),
    )
    .await;
    let told =
        "document.querySelector('#announcement').innerText === 'The browser did not allow copying'";
    wait(&mut browser, told).await;
    assert_eq!(
        value(&mut browser, "document.querySelectorAll('textarea').length").await,
        0
    );
    clean(&browser, address);
    browser.stop().await.expect("the browser ends");
    world.stop().await;
}

/// Holds the requests for explanations until `held.shift()()` is called.
const HOLD: &str = "
    window.held = [];
    const original = window.fetch;
    window.fetch = (path, options) => path.startsWith('/explain/')
        ? new Promise((answer) => held.push(() => answer(original(path))))
        : original(path, options);
    true";

#[tokio::test]
async fn an_explanation_that_comes_late_disturbs_nothing() {
    let world = world().await;
    for (role, database) in [("nobody", "app"), ("db_user", "no_such_database")] {
        let ran = world
            .psql(&["-U", role, "-d", database, "-c", "select 1"])
            .await;
        assert_eq!(ran.code, Some(2), "{ran:?}");
    }
    let Some((mut browser, address)) = open(&world).await else {
        return world.stop().await;
    };
    wait(
        &mut browser,
        "document.querySelectorAll('.error').length === 2",
    )
    .await;
    value(&mut browser, HOLD).await;
    let ids = value(
        &mut browser,
        "[...document.querySelectorAll('.error .id')].map((button) => button.innerText)",
    )
    .await;
    let button = |nth: usize| format!("document.querySelectorAll('.error .id')[{nth}]");
    let dialog = "document.querySelector('#explanation')";
    let text = "document.querySelector('#explanation-text').innerText";

    // It comes after its window was closed.
    value(&mut browser, &format!("{}.focus()", button(0))).await;
    browser.press("Enter").await.expect("pressed");
    wait(
        &mut browser,
        &format!("{dialog}.open && {text} === 'loading'"),
    )
    .await;
    browser.press("Escape").await.expect("pressed");
    wait(&mut browser, &format!("!{dialog}.open")).await;

    // The window of another error has the text of that one, in any order of the answers.
    value(&mut browser, &format!("{}.focus()", button(1))).await;
    browser.press("Enter").await.expect("pressed");
    wait(&mut browser, &format!("{dialog}.open && held.length === 2")).await;
    value(&mut browser, "held.pop()()").await;
    let filled = "document.querySelector('#explanation-text').textContent";
    let of_second = wait(&mut browser, &format!("{filled} !== 'loading' && {filled}")).await;
    value(&mut browser, "held.pop()()").await;
    let requested = |id: &Value| {
        let id = id.as_str().expect("an id").to_owned();
        move |url: &String| url.ends_with(&format!("/explain/{id}"))
    };
    // Another reading of the status begins after the answer came.
    let clock = value(&mut browser, "document.querySelector('#updated').innerText").await;
    wait(
        &mut browser,
        &format!("document.querySelector('#updated').innerText !== {clock}"),
    )
    .await;
    assert!(browser.requests().iter().any(requested(&ids[0])));
    assert_eq!(value(&mut browser, filled).await, of_second);
    let heading = "document.querySelector('#explanation-title').innerText";
    assert_eq!(value(&mut browser, heading).await, ids[1]);
    browser.press("Escape").await.expect("pressed");
    let back = format!("!{dialog}.open && document.activeElement === {}", button(1));
    wait(&mut browser, &back).await;
    clean(&browser, address);
    browser.stop().await.expect("the browser ends");
    world.stop().await;
}
