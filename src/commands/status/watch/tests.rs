use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::style::Modifier;

use super::draw::draw;
use super::keys::{Action, press};
use super::model::{Model, Pane, Request};
use super::rows::TargetRef;
use super::theme::Theme;
use crate::admin::document::{
    ConnectionDocument, ErrorDocument, FailureDocument, IdentityDocument, LoginsDocument,
    ProcessDocument, SessionDocument, TargetDocument,
};

fn target(name: &str, port: u16) -> TargetDocument {
    TargetDocument {
        name: name.to_owned(),
        port,
        endpoint: format!("{name}.cluster-abcdefghijkl.eu-central-1.rds.amazonaws.com:5432"),
        via: "ssm".to_owned(),
        bastion: Some("i-0123456789abcdef0".to_owned()),
        auth: "iam".to_owned(),
        user: Some("db_user".to_owned()),
        state: "ready".to_owned(),
        ready: true,
        max_sessions: Some(5),
        ..TargetDocument::default()
    }
}

fn session(round_trip: f64) -> SessionDocument {
    SessionDocument {
        id: Some("dev-0123456789abcdef0123456789".to_owned()),
        bastion: Some("i-0123456789abcdef0".to_owned()),
        state: "up".to_owned(),
        streams: 2,
        ready: 1,
        busy: 1,
        bytes_up: 5_300,
        bytes_down: 184_000_000,
        age_seconds: 4_000.0,
        round_trip_seconds: Some(round_trip),
        ..SessionDocument::default()
    }
}

fn client(id: u64, program: &str, user: &str, database: &str) -> ConnectionDocument {
    ConnectionDocument {
        id,
        state: "open".to_owned(),
        program: program.to_owned(),
        user: user.to_owned(),
        database: database.to_owned(),
        peer: format!("127.0.0.1:{}", 50_000 + id),
        bytes_up: 1_200 * id,
        bytes_down: 90_000 * id,
        #[expect(clippy::cast_precision_loss, reason = "small")]
        age_seconds: 61.0 * id as f64,
    }
}

fn failure(id: &str, message: &str, hint: &str) -> FailureDocument {
    FailureDocument {
        id: id.to_owned(),
        sqlstate: Some("28000".to_owned()),
        message: message.to_owned(),
        hint: Some(hint.to_owned()),
        at: "2026-11-30T12:00:00Z".to_owned(),
        age_seconds: 4.0,
        count: 3,
        ..FailureDocument::default()
    }
}

/// The bytes of a rate after `uptime` seconds.
fn moved(uptime: f64, bytes_per_second: u64) -> u64 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "whole seconds"
    )]
    let seconds = uptime as u64;
    bytes_per_second * seconds
}

fn clients(uptime: f64) -> Vec<ConnectionDocument> {
    let names = [
        ("psql", "db_user", "app"),
        (
            "DBeaver 25.1.2 - SQLEditor <Script-12.sql>",
            "db_user",
            "app",
        ),
        ("pg_dump", "backup", "app"),
        ("集計バッチ", "レポート", "月次"),
        ("تقرير", "reader", "app"),
        ("", "db_user", "app"),
        ("metabase", "reader", "warehouse_of_all_regions"),
        ("a\u{1b}[2Jb", "db_user", "app"),
    ];
    let mut clients: Vec<ConnectionDocument> = (1..)
        .zip(names)
        .map(|(id, (program, user, database))| client(id, program, user, database))
        .collect();
    clients[2].bytes_down = moved(uptime, 4_200_000);
    clients[1].bytes_up = moved(uptime, 12_000);
    clients[5].state = "login".to_owned();
    clients
}

/// A server with three targets, eight connections and two errors, after `uptime` seconds.
fn busy(uptime: f64) -> ProcessDocument {
    let identity = Some(IdentityDocument {
        source: "profile dev (SSO session corp)".to_owned(),
        reason: "the configuration of pgiam sets profile dev; sso_role_name in ~/.aws/config:12"
            .to_owned(),
        expires_at: Some("2026-11-30T12:40:00Z".to_owned()),
        expires_in_seconds: Some(2_500.0),
    });
    let orders = TargetDocument {
        identity: identity.clone(),
        connection_limit: Some(20),
        round_trip_seconds: Some(0.0123),
        bytes_up: moved(uptime, 12_000),
        bytes_down: moved(uptime, 4_200_000),
        logins: LoginsDocument {
            count: 412,
            recent: 40,
            p50_seconds: Some(0.31),
            p99_seconds: Some(0.89),
        },
        sessions: vec![session(0.0123), session(0.0201)],
        connections: clients(uptime),
        ..target("orders", 5433)
    };
    let reports = TargetDocument {
        state: "failing".to_owned(),
        ready: false,
        failing: Some("database.no-rds-iam".to_owned()),
        ..target("quarterly-reports-of-all-regions", 5434)
    };
    let stock = TargetDocument {
        via: "direct".to_owned(),
        bastion: None,
        max_sessions: None,
        state: "idle".to_owned(),
        ..target("在庫", 5435)
    };
    let no_iam = failure(
        "database.no-rds-iam",
        "target \"quarterly-reports-of-all-regions\": role \"db_user\" cannot log in with IAM",
        "Grant it as an administrator:\n  GRANT rds_iam TO db_user;",
    );
    let expired = FailureDocument {
        age_seconds: 3_700.0,
        count: 1,
        ..failure(
            "aws.expired",
            "target \"orders\": the AWS credentials have expired",
            "Log in to AWS again: pgiam login dev. The next connection uses the new credentials.",
        )
    };
    let error = |target: &str, failure: FailureDocument| ErrorDocument {
        target: Some(target.to_owned()),
        failure,
    };
    ProcessDocument {
        pid: 4711,
        version: "0.1.0".to_owned(),
        kind: "serve".to_owned(),
        state: "serving".to_owned(),
        started: "2026-11-30T09:00:00Z".to_owned(),
        uptime_seconds: uptime,
        config: Some("/etc/pgiam/config.toml".into()),
        http: Some("127.0.0.1:9801".to_owned()),
        open_connections: 8,
        max_connections: 400,
        targets: vec![orders, reports, stock],
        recent_errors: vec![
            error("quarterly-reports-of-all-regions", no_iam),
            error("orders", expired),
        ],
        ..ProcessDocument::default()
    }
}

/// A model that has watched a process for a minute.
fn model() -> Model {
    let mut model = Model::default();
    for second in 0_u32..60 {
        let mut process = busy(7_200.0 + f64::from(second));
        // A wave, so that the bars differ.
        let wave: u64 = (0..second)
            .map(|second| u64::from(second % 10) * 900_000)
            .sum();
        process.targets[0].bytes_down += wave;
        model.read(vec![process], Vec::new());
    }
    model
}

fn terminal(model: &mut Model, (width, height): (u16, u16)) -> Terminal<TestBackend> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let theme = Theme { colours: true };
    terminal
        .draw(|frame| draw(frame, model, theme, false))
        .unwrap();
    terminal
}

/// Returns the screen as text, without blanks at the ends of lines.
fn shown(model: &mut Model, size: (u16, u16)) -> String {
    let terminal = terminal(model, size);
    let buffer = terminal.backend().buffer();
    let width = usize::from(size.0);
    let mut text = String::new();
    for row in buffer.content.chunks(width) {
        let mut skip = 0;
        let mut line = String::new();
        for cell in row {
            if skip > 0 {
                skip -= 1;
                continue;
            }
            skip = console::measure_text_width(cell.symbol()).saturating_sub(1);
            line.push_str(cell.symbol());
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn keys(model: &mut Model, typed: &str) -> Action {
    let mut last = Action::None;
    for c in typed.chars() {
        let code = match c {
            '\n' => KeyCode::Enter,
            '\t' => KeyCode::Tab,
            '\u{1b}' => KeyCode::Esc,
            '\u{7f}' => KeyCode::Backspace,
            c => KeyCode::Char(c),
        };
        last = press(model, KeyEvent::new(code, KeyModifiers::NONE));
    }
    last
}

fn control(model: &mut Model, c: char) -> Action {
    press(
        model,
        KeyEvent::new(KeyCode::Char(c), KeyModifiers::CONTROL),
    )
}

#[test]
fn the_screen_at_every_size() {
    for (name, size) in [
        ("60x15", (60, 15)),
        ("80x24", (80, 24)),
        ("120x40", (120, 40)),
        ("200x60", (200, 60)),
    ] {
        insta::assert_snapshot!(name, shown(&mut model(), size));
    }
}

#[test]
fn a_narrow_screen_cuts_no_number() {
    let mut model = Model::default();
    for uptime in [7_200.0, 7_201.0] {
        let mut other = ProcessDocument {
            pid: 4_194_303,
            ..busy(uptime)
        };
        let own = ProcessDocument {
            pid: 4_194_304,
            ..busy(uptime)
        };
        other.targets[0].connection_limit = Some(200);
        other.targets[0].connections = (1..=120)
            .map(|id| client(id, "psql", "db_user", "app"))
            .collect();
        model.read(vec![own, other], Vec::new());
    }
    let text = shown(&mut model, (60, 15));
    assert!(text.contains(" 120/200"), "{text}");
    insta::assert_snapshot!("two-processes-60x15", text);
}

#[test]
fn end_reaches_the_end_of_a_wrapped_text() {
    let mut model = model();
    model.open("Text", vec![format!("{} end", "word ".repeat(400))]);
    keys(&mut model, "GG");
    assert!(shown(&mut model, (60, 15)).contains("word end"));
    keys(&mut model, "jg");
    assert!(!shown(&mut model, (60, 15)).contains("word end"));
}

#[test]
fn the_end_of_a_long_filter_is_shown() {
    let mut model = model();
    keys(&mut model, &format!("/{}last", "w".repeat(80)));
    let text = shown(&mut model, (60, 15));
    assert!(text.contains("wwlast "), "{text}");
}

#[test]
fn no_size_panics_and_nothing_is_wider() {
    let mut model = model();
    for width in (1..=200).step_by(23) {
        for height in (1..=31).step_by(3) {
            for window in ["", "?", "\u{1b}", "\n", "\u{1b}s"] {
                keys(&mut model, window);
                shown(&mut model, (width, height));
            }
            keys(&mut model, "n");
        }
    }
    let small = shown(&mut model, (40, 10));
    assert!(small.contains("pgiam status --watch needs 60"), "{small}");
}

#[test]
fn a_short_screen_says_how_much_is_hidden() {
    let mut model = model();
    let text = shown(&mut model, (80, 15));
    assert!(
        text.contains("+1 more") || text.contains("+2 more"),
        "{text}"
    );
    // The last row of every table can be reached.
    for (pane, last) in [(0, "›在庫"), (1, "›psql"), (2, "aws.expired")] {
        model.pane = Pane::ALL[pane];
        press(&mut model, KeyEvent::new(KeyCode::End, KeyModifiers::NONE));
        let text = shown(&mut model, (80, 15));
        assert!(text.contains(last), "{last} in {text}");
    }
    press(&mut model, KeyEvent::new(KeyCode::Home, KeyModifiers::NONE));
    model.pane = Pane::Connections;
    assert!(shown(&mut model, (80, 15)).contains(" above"));
    press(&mut model, KeyEvent::new(KeyCode::Home, KeyModifiers::NONE));
    let text = shown(&mut model, (80, 15));
    assert!(
        !text.contains(" above") && text.contains("›pg_dump"),
        "{text}"
    );
}

#[test]
fn connections_are_sorted_by_rate_and_the_selection_follows() {
    let mut model = model();
    let programs = |model: &Model| -> Vec<String> {
        let rows = model.rows(Pane::Connections, 80).rows;
        rows.iter().map(|row| row.cells[0].0.clone()).collect()
    };
    assert_eq!(
        programs(&model)[..2],
        ["pg_dump", "DBeaver 25.1.2 - SQLEditor <Script-12.sql>"]
    );
    model.pane = Pane::Connections;
    keys(&mut model, "j");
    let selected = |model: &mut Model| model.selected().unwrap().cells[0].0.clone();
    assert!(selected(&mut model).starts_with("DBeaver"));
    // It becomes the busiest.
    let mut next = busy(7_260.0);
    next.targets[0].connections[1].bytes_up += 900_000_000;
    model.read(vec![next], Vec::new());
    assert!(programs(&model)[0].starts_with("DBeaver"));
    assert!(selected(&mut model).starts_with("DBeaver"));
    // It ends: its neighbour is selected.
    let mut next = busy(7_261.0);
    next.targets[0].connections.remove(1);
    model.read(vec![next], Vec::new());
    assert_eq!(selected(&mut model), "pg_dump");
}

#[test]
fn the_filter_applies_to_all_tables_and_says_so() {
    let mut model = model();
    keys(&mut model, "/DBeaver app");
    assert!(model.editing);
    let text = shown(&mut model, (80, 24));
    assert!(
        text.contains("/DBeaver app") && text.contains("Esc removes"),
        "{text}"
    );
    keys(&mut model, "\n");
    let text = shown(&mut model, (80, 24));
    assert!(
        text.contains("DBeaver") && !text.contains("pg_dump"),
        "{text}"
    );
    assert!(text.contains("3 hidden by the filter"), "{text}");
    assert!(text.contains("2 hidden by the filter"), "{text}");
    // Keys of commands are letters again.
    keys(&mut model, "/q\u{7f}\u{7f}");
    keys(&mut model, "\u{1b}");
    assert_eq!(model.filter, "");
    assert!(shown(&mut model, (80, 24)).contains("pg_dump"));
    keys(&mut model, "/x");
    control(&mut model, 'u');
    assert!(model.editing && model.filter.is_empty());
}

#[test]
fn keys_act_on_the_selected_target() {
    let mut model = model();
    let run = |words: &[&str]| Action::Run(words.iter().map(ToString::to_string).collect());
    let file = "/etc/pgiam/config.toml";
    assert_eq!(
        keys(&mut model, "c"),
        run(&["check", "--config", file, "--", "orders"])
    );
    assert_eq!(
        keys(&mut model, "l"),
        run(&["login", "--config", file, "--", "orders"])
    );
    let reports = "quarterly-reports-of-all-regions";
    keys(&mut model, "j");
    assert_eq!(
        keys(&mut model, "c"),
        run(&["check", "--config", file, "--", reports])
    );
    assert_eq!(keys(&mut model, "s"), Action::None);
    let text = shown(&mut model, (80, 24));
    assert!(text.contains(&format!("Stop {reports}?")), "{text}");
    assert_eq!(keys(&mut model, "\n"), Action::None, "only y is a yes");
    assert!(model.window.is_none());
    let own = TargetRef {
        pid: 4711,
        name: reports.to_owned(),
    };
    assert_eq!(
        keys(&mut model, "sy"),
        Action::Send(Request::StopTarget(own.clone()))
    );
    // Stopped, it is served again by a reload.
    let mut next = busy(7_260.0);
    next.targets[1].state = "stopped".to_owned();
    model.read(vec![next.clone()], Vec::new());
    assert_eq!(keys(&mut model, "sy"), Action::Send(Request::Reload(4711)));
    // While connections are open, once more ends them.
    next.targets[1].connections = vec![client(99, "psql", "x", "y")];
    model.read(vec![next], Vec::new());
    assert_eq!(
        keys(&mut model, "sy"),
        Action::Send(Request::CloseConnections(own))
    );
    assert_eq!(keys(&mut model, "q"), Action::Quit);
    assert_eq!(control(&mut model, 'c'), Action::Quit);
    assert_eq!(control(&mut model, 'l'), Action::Redraw);
    assert_eq!(control(&mut model, 'z'), Action::Suspend);
}

#[test]
fn a_target_without_a_file_is_checked_by_its_running_settings() {
    let mut model = Model::default();
    let mut served = busy(9.0);
    served.config = None;
    model.read(vec![served], Vec::new());
    let words = ["check", "--config", "/dev/null", "--", "orders"];
    let check = Action::Run(words.map(str::to_owned).into());
    assert_eq!(keys(&mut model, "c"), check);
}

#[test]
fn a_process_with_one_target_is_not_stopped_by_halves() {
    let mut model = Model::default();
    let mut tunnel = busy(9.0);
    tunnel.kind = "tunnel".to_owned();
    tunnel.config = None;
    model.read(vec![tunnel], Vec::new());
    assert_eq!(keys(&mut model, "s"), Action::None);
    let text = shown(&mut model, (80, 24));
    assert!(text.contains("pgiam stop --pid 4711"), "{text}");
    assert_eq!(keys(&mut model, "c"), Action::None);
    let text = shown(&mut model, (80, 24));
    assert!(
        text.contains("orders is in no configuration file"),
        "{text}"
    );
    assert_eq!(keys(&mut model, "l"), Action::Run(vec!["login".to_owned()]));
}

#[test]
fn processes_that_end_hang_or_start_are_told_apart() {
    let mut model = model();
    let mut run = busy(5.0);
    (run.pid, run.kind) = (99, "run".to_owned());
    run.targets.truncate(1);
    model.read(vec![busy(7_260.0), run], Vec::new());
    let text = shown(&mut model, (100, 24));
    assert!(
        text.contains("PID") && text.contains("pgiam run 99"),
        "{text}"
    );
    // One hangs: its last status stays.
    model.read(
        vec![busy(7_261.0)],
        vec![(99, "does not answer".to_owned())],
    );
    let text = shown(&mut model, (100, 24));
    assert!(text.contains("pgiam run 99   does not answer"), "{text}");
    assert!(text.contains("pgiam serve 4711   serving for 2h"), "{text}");
    model.read(Vec::new(), Vec::new());
    let text = shown(&mut model, (100, 24));
    assert!(text.contains("this screen waits for it to start"), "{text}");
    assert!(
        text.contains("ended: pgiam run 99, pgiam serve 4711"),
        "{text}"
    );
    assert!(
        text.contains("no targets") && text.contains("no errors"),
        "{text}"
    );
    model.read(vec![busy(1.0)], Vec::new());
    assert!(shown(&mut model, (100, 24)).contains("serving for 1s"));
    // One that has never answered.
    model.read(vec![busy(2.0)], vec![(5, "does not answer".to_owned())]);
    assert!(shown(&mut model, (100, 24)).contains("process 5: does not answer"));
}

#[test]
fn an_identity_that_ends_soon_is_a_warning() {
    let mut model = Model::default();
    let line = |model: &mut Model, left: Option<f64>, failing: Option<&str>| {
        let mut process = busy(9.0);
        if let Some(identity) = &mut process.targets[0].identity {
            identity.expires_in_seconds = left;
        }
        process.targets[0].failing = failing.map(str::to_owned);
        model.read(vec![process], Vec::new());
        let text = shown(model, (80, 24));
        let mut lines = text.lines().filter(|line| line.starts_with("AWS: "));
        lines.next().map(str::to_owned).unwrap()
    };
    let source = "AWS: profile dev (SSO session corp)";
    assert_eq!(line(&mut model, None, None), source);
    assert_eq!(
        line(&mut model, Some(2_500.0), None),
        format!("{source}, 41m left")
    );
    assert_eq!(
        line(&mut model, Some(200.0), None),
        format!("{source}, 3m left; l logs in")
    );
    assert_eq!(
        line(&mut model, Some(0.0), None),
        format!("{source}, expired; l logs in")
    );
    assert_eq!(
        line(&mut model, Some(2_500.0), Some("aws.expired")),
        format!("{source}, cannot be used; l logs in")
    );
    // Of targets with one identity, the earliest expiry counts, as on the status page.
    let mut process = busy(9.0);
    let mut later = process.targets[0].clone();
    for (target, left) in [(&mut later, 2_500.0), (&mut process.targets[0], 200.0)] {
        let identity = target.identity.as_mut().unwrap();
        identity.expires_in_seconds = Some(left);
    }
    process.targets.insert(0, later);
    model.read(vec![process], Vec::new());
    let text = shown(&mut model, (80, 24));
    let expected = format!("{source}, 3m left; l logs in");
    assert!(text.contains(&expected), "{text}");
}

#[test]
fn foreign_text_moves_no_cursor() {
    let mut model = model();
    let mut process = busy(7_260.0);
    let hostile = "x\u{1b}[2J\u{202e}\r\ny\u{7f}";
    process.targets[0].name = hostile.to_owned();
    process.targets[0].identity.as_mut().unwrap().source = hostile.to_owned();
    process.recent_errors[0].failure.message = hostile.to_owned();
    process.recent_errors[0].failure.hint = Some(hostile.to_owned());
    process.left_out = vec![hostile.to_owned()];
    process.change_unused = Some(hostile.to_owned());
    process.kind = hostile.to_owned();
    model.read(vec![process], vec![(1, hostile.to_owned())]);
    for window in ["", "\n", "\u{1b}s"] {
        keys(&mut model, window);
        let text = shown(&mut model, (120, 40));
        let moves = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
        assert!(!text.contains(moves), "{text:?}");
        assert!(text.contains("x\\u{1b}[2J\\u{202e}"), "{text}");
    }
}

#[test]
fn without_colours_attributes_say_the_same() {
    let mut model = model();
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    let theme = Theme { colours: false };
    terminal
        .draw(|frame| draw(frame, &mut model, theme, false))
        .unwrap();
    let buffer = terminal.backend().buffer();
    let colours = buffer
        .content
        .iter()
        .filter(|cell| cell.fg != ratatui::style::Color::Reset);
    assert_eq!(colours.count(), 0);
    let reversed = |y: u16| buffer[(0, y)].modifier.contains(Modifier::REVERSED);
    let rows: Vec<u16> = (0..24).filter(|y| reversed(*y)).collect();
    assert_eq!(
        rows.len(),
        2,
        "the heading with the keys, and the selected row"
    );
    assert_eq!(buffer[(0, rows[1])].symbol(), "›");
}

#[test]
fn the_last_picture_has_neither_keys_nor_a_selection() {
    let mut model = model();
    keys(&mut model, "j?");
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    let theme = Theme { colours: true };
    terminal
        .draw(|frame| draw(frame, &mut model, theme, true))
        .unwrap();
    let text = terminal.backend().to_string();
    assert!(
        text.contains("orders") && text.contains("pg_dump"),
        "{text}"
    );
    for part in ["explain", "›", "Keys"] {
        assert!(!text.contains(part), "{part} in {text}");
    }
}

#[test]
fn windows_scroll_and_say_how() {
    let mut model = model();
    keys(&mut model, "?");
    insta::assert_snapshot!("help-60x15", shown(&mut model, (60, 15)));
    keys(&mut model, "G");
    let text = shown(&mut model, (60, 15));
    assert!(
        text.contains("sorted by rate") && text.contains("Esc closes"),
        "{text}"
    );
    keys(&mut model, "\u{1b}\n");
    insta::assert_snapshot!("details-80x24", shown(&mut model, (80, 24)));
}
