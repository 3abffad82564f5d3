//! `pgiam run` with programs of Windows.

use std::process::Stdio;

use protocol_tests::harness::program;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::time::timeout;

use super::{folder, written};
use crate::daily::screen::{END, Terminal};
use crate::daily::{Lab, command};
use crate::support::{PATIENCE, run};

#[tokio::test]
#[ignore = "./dev test --windows runs it"]
async fn exit_codes_are_those_of_the_command() {
    assert!(folder().is_dir());
    let lab = Lab::open().await;
    // As npm and others install them: for cmd.exe, and beside it for other shells.
    let tool = lab.sandbox.dir().join("tool");
    std::fs::write(tool.with_extension("cmd"), "@exit /b %1\r\n").expect("a script");
    std::fs::write(&tool, "#!/bin/sh\nexit 99\n").expect("a script");
    let tool = written(&tool);
    for (words, code) in [
        (&["cmd", "/c", "exit 0"][..], 0),
        (&[&tool, "8"], 8),
        (&["cmd", "/c", "exit 7"], 7),
        // More than fits into the code of a Unix program: a failure nevertheless.
        (&["cmd", "/c", "exit 1024"], 1),
        (&["no-such-command-anywhere"], 127),
    ] {
        let ran = run(command(
            &lab.sandbox,
            &[&["run", "orders", "--"], words].concat(),
        ))
        .await;
        assert_eq!(ran.code, Some(code), "{words:?}: {ran:?}");
    }
    let ran = run(command(
        &lab.sandbox,
        &["run", "ordres", "--", "cmd", "/c", "exit 0"],
    ))
    .await;
    assert_eq!(ran.code, Some(125), "{ran:?}");
    assert!(ran.stderr.contains("did you mean \"orders\"?"), "{ran:?}");
    lab.close().await;
}

#[tokio::test]
#[ignore = "./dev test --windows runs it"]
async fn the_variables_of_the_command_lead_to_the_database() {
    assert!(folder().is_dir());
    let lab = Lab::open().await;
    // The second command waits for a line of input.
    let line = "echo %PGHOST% %PGPORT% %PGUSER% %PGDATABASE% %DATABASE_URL%& set /p line=";
    let mut started = command(&lab.sandbox, &["run", "orders", "--", "cmd", "/c", line]);
    // A variable of the caller that leads elsewhere.
    started.env("PGHOSTADDR", "192.0.2.1");
    started.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = started.spawn().expect("pgiam starts");
    let mut output = BufReader::new(child.stdout.take().expect("its output")).lines();
    let told = timeout(PATIENCE, output.next_line()).await;
    let told = told.expect("in time").expect("its output").expect("a line");
    let words: Vec<&str> = told.split_whitespace().collect();
    let [host, port, user, database, url] = words[..] else {
        panic!("{told:?}");
    };
    assert_eq!((host, user, database), ("localhost", "db_user", "app"));
    assert_eq!(url, format!("postgresql://db_user@localhost:{port}/app"));
    let psql = lab.database.postgres().psql_program();
    let mut psql = program::psql(&psql, port.parse().expect("a port"));
    psql.args(["-A", "-t", "-c", "select current_user, current_database()"]);
    assert_eq!(run(psql).await.rows(), "db_user|app");
    let mut input = child.stdin.take().expect("its input");
    input.write_all(b"\r\n").await.expect("it reads");
    let ended = timeout(PATIENCE, child.wait()).await.expect("in time");
    assert_eq!(ended.expect("its end").code(), Some(0));
    lab.close().await;
}

#[tokio::test]
#[ignore = "./dev test --windows runs it"]
async fn ctrl_c_reaches_the_command_and_pgiam_waits_for_it() {
    let lab = Lab::open().await;
    let heard = written(&folder().join("heard.exe"));
    let words = ["run", "orders", "--", &heard];
    let terminal = Terminal::run(&command(&lab.sandbox, &words), "windows-run").await;
    let terminal = terminal.expect("tmux, which ./dev test installs");
    terminal.shows("ready").await;
    terminal.press("C-c").await;
    let screen = terminal.shows(END).await;
    assert!(screen.contains("heard 0"), "{screen}");
    assert!(screen.contains("[exit 40]"), "{screen}");
    lab.close().await;
}
