//! The status page in a real browser.

use std::net::SocketAddr;
use std::path::Path;

use nix::sys::signal::Signal;
use protocol_tests::harness::browser::Browser;
use serde_json::{Value, json};

use super::{http, world};
use crate::shell::Shell;
use crate::support::{PATIENCE, Setup, World, launch};

/// A program's name that would do harm as markup.
const HOSTILE: &str = "<img src=x onerror=alert(1)>";

/// Opens the page of a world; `None` without a browser.
pub(super) async fn open(world: &World) -> Option<(Browser, SocketAddr)> {
    let address = http(world).await;
    let browser = Browser::start(world.sandbox.certificate_pin()).await;
    let mut browser = browser.expect("a browser")?;
    browser.record().await.expect("recorded");
    let url = format!("http://127.0.0.1:{}/", address.port());
    browser.open(&url).await.expect("a page");
    wait(
        &mut browser,
        "document.querySelector('#state').textContent === 'serving'",
    )
    .await;
    Some((browser, address))
}

pub(super) async fn wait(browser: &mut Browser, script: &str) -> Value {
    browser.wait_for(script).await.expect("it becomes true")
}

pub(super) async fn value(browser: &mut Browser, script: &str) -> Value {
    browser.evaluate(script).await.expect("a value")
}

/// Cells without a visible heading, above their column or in the cell.
const UNNAMED: &str = r##"
    (() => {
        const shown = (element) => element.checkVisibility() && element.getClientRects().length > 0;
        const label = (cell) => getComputedStyle(cell, "::before").content;
        const named = (cell) => {
            const table = cell.closest("table");
            const heading = table.querySelectorAll("th")[cell.cellIndex];
            const above = shown(heading) && heading.getBoundingClientRect().bottom
                <= cell.getBoundingClientRect().top + 1
                && Math.abs(heading.getBoundingClientRect().left - cell.getBoundingClientRect().left) < 1;
            return above || label(cell) === JSON.stringify(cell.dataset.label);
        };
        // The name of a target heads its card.
        const cells = [...document.querySelectorAll("main td")].filter(shown);
        return cells.filter((cell) => !named(cell) && !cell.matches("#targets td.target"))
            .map((cell) => cell.className);
    })()
"##;

/// Leaves a picture in target/tmp, to look at.
pub(super) async fn picture(browser: &mut Browser, name: &str) {
    let picture = browser.screenshot().await.expect("a picture");
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("page-{name}.png"));
    std::fs::write(file, picture).expect("a file");
}

/// No error on the console, and no request to another server.
pub(super) fn clean(browser: &Browser, address: SocketAddr) {
    assert_eq!(browser.faults(), Vec::<String>::new());
    let own = format!("http://127.0.0.1:{}/", address.port());
    let requests = browser.requests();
    let foreign: Vec<_> = requests
        .iter()
        .filter(|url| !url.starts_with(&own))
        .collect();
    assert_eq!(foreign, Vec::<&String>::new());
    assert!(requests.iter().any(|url| url.ends_with("/status")));
}

#[tokio::test]
async fn the_page_is_live_and_harmless() {
    let world = world().await;
    let Some((mut browser, address)) = open(&world).await else {
        return world.stop().await;
    };
    wait(
        &mut browser,
        "document.querySelector('#targets').innerText.includes('○ idle')",
    )
    .await;
    let name = format!("application_name='{HOSTILE}'");
    let mut psql = Shell::open(&world, &name);
    psql.backend().await;
    wait(
        &mut browser,
        "document.querySelector('#targets').innerText.includes('✓ ready')",
    )
    .await;
    let cell = "document.querySelector('#connections td.program')?.textContent";
    wait(&mut browser, &format!("{cell} === {}", json!(HOSTILE))).await;
    assert_eq!(
        value(&mut browser, "document.querySelectorAll('img').length").await,
        0
    );

    // The line of the throughput grows and rises, and each login is a dot.
    let line = "document.querySelector('path.series0').getAttribute('d')";
    wait(&mut browser, &format!("{line}.split('L').length > 2")).await;
    wait(
        &mut browser,
        "document.querySelectorAll('circle.dot').length === 1",
    )
    .await;
    let rate = "document.querySelector('#tiles li:nth-child(3) strong').textContent";
    wait(&mut browser, &format!("{rate} === '0 B/s'")).await;
    psql.say("select repeat('x', 3000000);").await;
    assert_eq!(psql.hear().await.len(), 3_000_000);
    let tops =
        format!("[...{line}.matchAll(/[ML][^ ]+ ([^LMh]+)/g)].map(found => Number(found[1]))");
    wait(&mut browser, &format!("Math.min(...{tops}) < 100")).await;
    wait(
        &mut browser,
        "document.querySelector('#connections td.down').textContent === '3.0 MB'",
    )
    .await;
    world.query("select 1").await;
    wait(
        &mut browser,
        "document.querySelectorAll('circle.dot').length === 2",
    )
    .await;
    let ticks = "[...document.querySelectorAll('svg text.left')].map(tick => tick.textContent)";
    let ticks = value(&mut browser, ticks).await.to_string();
    assert!(ticks.contains("B/s") && ticks.contains("ms"), "{ticks}");

    for (width, scheme, paper) in [
        (1280, "light", "rgb(255, 255, 255)"),
        (800, "dark", "rgb(20, 24, 30)"),
        (360, "light", "rgb(255, 255, 255)"),
    ] {
        browser.look(width, scheme).await.expect("set");
        let background = "getComputedStyle(document.body).backgroundColor";
        wait(&mut browser, &format!("{background} === '{paper}'")).await;
        wait(
            &mut browser,
            "document.querySelector('svg').clientWidth <= innerWidth",
        )
        .await;
        let wide = "document.documentElement.scrollWidth > innerWidth";
        assert_eq!(value(&mut browser, wide).await, false, "{width}");
        assert_eq!(value(&mut browser, UNNAMED).await, json!([]), "{width}");
        picture(&mut browser, &format!("{width}-{scheme}")).await;
    }
    clean(&browser, address);
    drop(psql);
    wait(
        &mut browser,
        "document.querySelector('#connections').innerText.includes('No open connections')",
    )
    .await;
    browser.stop().await.expect("the browser ends");
    world.stop().await;
}

#[tokio::test]
async fn the_page_works_by_keyboard() {
    let world = world().await;
    let mut shells = Vec::new();
    for program in ["reporting", "importer", "dbeaver"] {
        let mut psql = Shell::open(&world, &format!("application_name={program}"));
        psql.backend().await;
        shells.push(psql);
    }
    let Some((mut browser, address)) = open(&world).await else {
        drop(shells);
        return world.stop().await;
    };
    let rows = "document.querySelectorAll('#connections tbody tr').length";
    wait(&mut browser, &format!("{rows} === 3")).await;
    browser.press("/").await.expect("pressed");
    for key in ["p", "o", "r", "t"] {
        browser.press(key).await.expect("pressed");
    }
    wait(&mut browser, &format!("{rows} === 2")).await;
    let shown = value(
        &mut browser,
        "document.querySelector('#filtered').textContent",
    )
    .await;
    assert_eq!(shown, "2 of 3");
    browser.press("x").await.expect("pressed");
    wait(
        &mut browser,
        "document.querySelector('#connections').innerText.includes('No connection matches')",
    )
    .await;
    browser.press("Escape").await.expect("pressed");
    wait(&mut browser, &format!("{rows} === 3")).await;

    // The readout of a plot.
    wait(
        &mut browser,
        "document.querySelectorAll('circle.dot').length === 3",
    )
    .await;
    value(
        &mut browser,
        "document.querySelectorAll('.frame')[1].focus()",
    )
    .await;
    browser.press("End").await.expect("pressed");
    let readout = "document.querySelectorAll('.readout')[1]";
    let times = format!("{readout}.querySelector('time')?.textContent");
    let last = wait(&mut browser, &times).await;
    assert_eq!(
        value(
            &mut browser,
            &format!("{readout}.getAttribute('aria-live')")
        )
        .await,
        "polite"
    );
    assert!(last.as_str().is_some_and(|time| time.len() == 8), "{last}");
    assert_eq!(
        value(
            &mut browser,
            "document.querySelectorAll('circle.mark').length"
        )
        .await,
        1
    );
    browser.press("Escape").await.expect("pressed");
    wait(
        &mut browser,
        &format!("{readout}.querySelector('time') === null"),
    )
    .await;

    // Focus is visible, in the order of the page.
    value(&mut browser, "document.activeElement.blur()").await;
    browser.press("?").await.expect("pressed");
    wait(&mut browser, "document.querySelector('#keys').open").await;
    browser.press("Escape").await.expect("pressed");
    wait(&mut browser, "!document.querySelector('#keys').open").await;
    browser.press("p").await.expect("pressed");
    wait(
        &mut browser,
        "document.querySelector('#updated').textContent.startsWith('paused')",
    )
    .await;
    browser.press("p").await.expect("pressed");
    wait(
        &mut browser,
        "!document.querySelector('#updated').textContent.startsWith('paused')",
    )
    .await;
    value(&mut browser, "document.querySelector('#pause').focus()").await;
    let mut order = Vec::new();
    for _ in 0..4 {
        browser.press("Tab").await.expect("pressed");
        let focused = "document.activeElement.id || document.activeElement.className";
        order.push(value(&mut browser, focused).await);
    }
    assert_eq!(order, ["help", "plot-target", "plot-span", "frame"]);
    let outline = "getComputedStyle(document.activeElement).outlineStyle";
    assert_eq!(value(&mut browser, outline).await, "solid");
    clean(&browser, address);
    drop(shells);
    browser.stop().await.expect("the browser ends");
    world.stop().await;
}

#[tokio::test]
async fn errors_have_their_remedy() {
    let world = world().await;
    let role = "<b>nobody</b>";
    let ran = world.psql(&["-U", role, "-c", "select 1"]).await;
    assert_eq!(ran.code, Some(2), "{ran:?}");
    let Some((mut browser, address)) = open(&world).await else {
        return world.stop().await;
    };
    let shown = wait(&mut browser, "document.querySelector('.error')?.innerText").await;
    let shown = shown.as_str().expect("a text");
    for part in ["database.no-rds-iam", "orders", role, "SQLSTATE 28000"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert_eq!(
        value(&mut browser, "document.querySelectorAll('b').length").await,
        0
    );
    // The button copies, with or without the browser's clipboard.
    let buttons = "document.querySelectorAll('.error .command .copy').length > 0";
    assert_eq!(value(&mut browser, buttons).await, true);
    browser
        .click(".error .command .copy")
        .await
        .expect("a button");
    let announced = "document.querySelector('#announcement').textContent === 'Copied'";
    wait(&mut browser, announced).await;

    value(&mut browser, "document.querySelector('.error .id').focus()").await;
    browser.press("Enter").await.expect("pressed");
    let explained = "document.querySelector('#explanation[open]')?.innerText ?? ''";
    let text = wait(
        &mut browser,
        &format!("({explained}).includes('rds_iam') && ({explained})"),
    )
    .await;
    let text = text.as_str().expect("a text");
    assert!(text.contains("database.no-rds-iam"), "{text}");
    assert!(!text.contains("**") && !text.contains("```"), "{text}");
    browser.press("Escape").await.expect("pressed");
    let back = "document.activeElement.className === 'id'";
    wait(&mut browser, back).await;
    picture(&mut browser, "error").await;
    clean(&browser, address);
    browser.stop().await.expect("the browser ends");
    world.stop().await;
}

#[tokio::test]
async fn the_page_notices_the_end_and_the_next_start() {
    let mut world = world().await;
    let Some((mut browser, address)) = open(&world).await else {
        return world.stop().await;
    };
    clean(&browser, address);
    let state = "document.querySelector('#state').textContent";
    for answer in ["{}", r#"{"pid":1}"#, "<html>"] {
        let script = format!(
            "window.original ??= fetch; window.fetch = async () => new Response({}); true",
            json!(answer)
        );
        value(&mut browser, &script).await;
        wait(&mut browser, &format!("{state} === 'not pgiam'")).await;
        value(&mut browser, "window.fetch = window.original; true").await;
        wait(&mut browser, &format!("{state} === 'serving'")).await;
    }
    world.proxy.signal(Signal::SIGTERM).expect("pgiam runs");
    world.proxy.wait_end(PATIENCE).await.expect("pgiam ends");
    wait(&mut browser, &format!("{state} === 'not running'")).await;
    let notice = value(&mut browser, "document.querySelector('#lost').innerText").await;
    let notice = notice.as_str().expect("a text");
    assert!(notice.starts_with("pgiam has ended"), "{notice}");
    assert!(notice.contains("Next try in"), "{notice}");
    // Another process, at the same address.
    let port = address.port().to_string();
    let mut second = launch(
        &world.sandbox,
        &Setup {
            args: vec!["--http-port".to_owned(), port],
            ..Setup::default()
        },
    );
    second.wait_ready(PATIENCE).await.expect("it starts");
    wait(&mut browser, &format!("{state} === 'serving'")).await;
    let pid = second.pid().expect("it runs");
    let facts = format!("document.querySelector('#facts').textContent.includes('process {pid} ')");
    wait(&mut browser, &facts).await;
    wait(&mut browser, "document.querySelector('#lost') === null").await;
    browser.stop().await.expect("the browser ends");
    second.stop().await.expect("pgiam ends");
    world.stop().await;
}

/// Results of the functions of the scripts.
const RESULTS: &str = r#"
        (async () => {
            const dom = await import("/page/dom.js");
            const words = await import("/page/words.js");
            const plot = await import("/page/plot.js");
            const model = await import("/page/model.js");
            const at = (seconds, value, joined = true) =>
                ({ at: seconds * 1000, joined, values: value === null ? null : [value] });
            const history = new model.History();
            const add = (pid, uptime, bytes, time) => {
                const target = { name: "a", bytes_up: 0, bytes_down: bytes, connections: [] };
                const process = { pid, started: String(pid), uptime_seconds: uptime, targets: [target] };
                return history.add(process, time * 1000).rates.targets.get("a")?.down ?? null;
            };
            const same = (number) => number;
            const points = [at(0, 1), at(1, 2), at(2, null), at(9, 3, false), at(30, 4, false)];
            return {
                bytes: [0, 999, 1000, 99949, 99950, 1e6, 2.5e12].map(words.bytes),
                took: [0, 0.0042, 0.084, 1.2345, 12.34, null].map(words.took),
                age: [3, 61, 7200, 500000].map(words.age),
                shell: ["orders", "two words", "it's"].map(words.shell),
                pieces: [
                    "Log in:\n  pgiam login dev\nThen connect.",
                    "As an administrator, run: ALTER ROLE \"a\" LOGIN; Or log in as another role (psql -U ROLE).",
                    "To test the name, run: nslookup HOST. Then set host.",
                    "Add this statement to your IAM policy: {\"Effect\": {\"a\": 1}} or ask.",
                    "Check two things: the port, and the name.",
                ].map((text) => words.pieces(text).map((piece) => (piece.command ? "$ " : "") + piece.text)),
                ticks: [1, 1000, 5.9e6, 0.1].map((most) => plot.ticks(most).at(-1)),
                path: plot.path(points, 0, same, same),
                gaps: plot.gaps(points, 0, 60000, 5000),
                rates: [
                    add(1, 10, 0, 100), add(1, 12, 4000, 102), add(1, 40, 4000, 130),
                    add(1, 41, 5000, 131), add(2, 1, 0, 132), add(2, 2, 100, 133), add(2, 3, 300, 50),
                ],
                joined: history.throughput("a").map((point) => point.joined),
                logins: (() => {
                    // The second reading is 7 ms late, and has one more login.
                    const first = model.loginsOf([{ name: "a", logins: [[5, 0.25]] }], 100000, []);
                    const list = [{ name: "a", logins: [[5.993, 0.25], [0.5, 0.125]] }];
                    return model.loginsOf(list, 101000, first).map((login) => login.at);
                })(),
                dots: (() => {
                    const many = Array.from({ length: 150000 }, (_, nth) => at(nth, nth === 777 ? 9 : 1));
                    const kept = plot.thinned(many, plot.MOST_DOTS);
                    return [kept.length, kept[10].at, plot.thinned(points.slice(0, 2), 2).length];
                })(),
                rows: (() => {
                    const list = document.createElement("ul");
                    const update = (items) => dom.reconcile(list, items, {
                        key: (item) => item,
                        create: (item) => dom.make("li", {}, dom.make("button", { text: item })),
                    });
                    document.body.append(list);
                    update(["same", "same", "other"]);
                    update(["same", "same", "other"]);
                    list.lastChild.firstChild.focus();
                    update(["other", "same", "same"]);
                    const found = [...list.children].map((child) => child.textContent);
                    found.push(document.activeElement.textContent);
                    list.remove();
                    return found;
                })(),
                percentile: [50, 99].map((percent) => model.percentile([3, 1, 2], percent)),
            };
        })()
    "#;

/// The functions of the scripts, in the browser that runs them.
#[tokio::test]
async fn numbers_and_gaps_are_right() {
    let world = world().await;
    let Some((mut browser, address)) = open(&world).await else {
        return world.stop().await;
    };
    let found = value(&mut browser, RESULTS).await;
    let expected = json!({
        "bytes": ["0 B", "999 B", "1.0 kB", "99.9 kB", "100 kB", "1.0 MB", "2.5 TB"],
        "took": ["0 ms", "4.2 ms", "84 ms", "1.23 s", "12.3 s", "–"],
        "age": ["3 s", "1 min", "2 h", "5 d"],
        "shell": ["orders", "'two words'", "'it'\\''s'"],
        "pieces": [
            ["Log in:", "$ pgiam login dev", "Then connect."],
            [
                "As an administrator, run:",
                "$ ALTER ROLE \"a\" LOGIN;",
                "Or log in as another role (psql -U ROLE).",
            ],
            ["To test the name, run:", "$ nslookup HOST", "Then set host."],
            [
                "Add this statement to your IAM policy:",
                "$ {\"Effect\": {\"a\": 1}}",
                "or ask.",
            ],
            ["Check two things: the port, and the name."],
        ],
        "ticks": [1, 1000, 6_000_000, 0.1],
        "path": "M0.0 1.0L1000.0 2.0M9000.0 3.0h1M30000.0 4.0h1",
        "gaps": [[1000, 9000], [9000, 30000], [30000, 60000]],
        // The first document has no rate, nor has the first of another process.
        "rates": [null, 2000, 0, 1000, null, 100, 200],
        // The clock went back before the last one, which begins anew.
        "joined": [false],
        "logins": [95_000, 100_500],
        // 75 neighbours each; the 11th group contains the slowest.
        "dots": [2000, 777_000, 2],
        "rows": ["other", "same", "same", "other"],
        "percentile": [2, 3],
    });
    for (name, expected) in expected.as_object().expect("an object") {
        assert_eq!(&found[name], expected, "{name}");
    }
    clean(&browser, address);
    browser.stop().await.expect("the browser ends");
    world.stop().await;
}
