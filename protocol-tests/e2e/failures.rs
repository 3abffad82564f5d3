//! Every failure before the login, brought about for real: the exact words psql prints, and how the
//! log names the cause.
//!
//! The files under `snapshots/` are what users get to read, one case after the other. Read them as
//! somebody who only wants to work: what is wrong, and what to type?

mod alias;
mod answers;
pub(crate) mod aws;
mod config;
mod database;
mod foreign;
mod keys;
mod local;
mod login;
mod rds;
mod startup;
mod tunnel;

use std::fmt::Write as _;

use protocol_tests::aws::events::Event;
use protocol_tests::aws::iam::User;
use serde_json::Value;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{HOST, PORT, Ran, World, eventually};

/// What users of one part of the program get to read when it fails.
pub(crate) struct Record {
    name: &'static str,
    text: String,
    /// Everything psql has said, unfiltered.
    heard: String,
    secrets: Vec<String>,
}

impl Record {
    pub(crate) fn new(name: &'static str) -> Self {
        Self {
            name,
            text: String::new(),
            heard: String::new(),
            // What only a login token or a signed header holds.
            secrets: ["X-Amz-Signature=", "X-Amz-Security-Token="]
                .map(str::to_owned)
                .into(),
        }
    }

    /// Nothing of this user's keys may be seen anywhere.
    pub(crate) fn keep_secret(&mut self, user: &User) {
        self.secrets.push(user.secret_access_key.clone());
        self.secrets.extend(user.session_token.clone());
    }

    /// One login that must fail, with one report at the client and one in the log.
    pub(crate) async fn refused(&mut self, world: &World, title: &str, args: &[&str]) {
        let known = refusals(world).len();
        let mut all = args.to_vec();
        all.extend(["-c", "select 1"]);
        let ran = world.psql(&all).await;
        let reports = ran.stderr.matches("failed: FATAL:").count();
        assert_eq!(reports, 1, "{title}: {ran:?}");
        let shown = args.join(" ");
        let command = ["psql", &shown].join(" ");
        self.note(world, title, command.trim_end(), &ran, known)
            .await;
    }

    /// Writes down what a program got to see and what the log says after its first `known` refusals.
    pub(crate) async fn note(
        &mut self,
        world: &World,
        title: &str,
        command: &str,
        ran: &Ran,
        known: usize,
    ) {
        let log = eventually(title, || refusals(world).into_iter().nth(known)).await;
        let after = refusals(world);
        assert_eq!(after.len(), known + 1, "{title}: told once: {after:?}");
        if ran.code.is_some() {
            // What psql shows as the cause, the log has as well.
            let shown = ran.stderr.contains("DETAIL:");
            assert_eq!(log["detail"].is_string(), shown, "{title}: {log}");
        }
        self.heard += &format!("{}{}", ran.stdout, ran.stderr);
        let said = clean(&format!("{}{}", ran.stdout, ran.stderr), world);
        let code = ran.code.map(|code| format!("exit code {code}; "));
        let word = |name: &str| log[name].as_str().unwrap_or_default().to_owned();
        let (level, id, sqlstate) = (word("level"), word("id"), word("sqlstate"));
        let log = format!("{level} {id} {sqlstate}");
        // Writing to a String cannot fail.
        let _ = writeln!(
            self.text,
            "# {title}\n$ {command}\n{}\n({}log: {})\n",
            said.trim_end(),
            code.unwrap_or_default(),
            log.trim_end()
        );
    }

    /// Ends a world of this record; nothing secret may have come out of it.
    pub(crate) async fn leave(&mut self, world: World) {
        self.keep_secret(world.sandbox.user());
        self.secrets.extend(world.sandbox.token_values());
        let log = world.proxy.log_text();
        for secret in &self.secrets {
            let line = log.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "the log holds {secret:?}");
            assert!(!self.heard.contains(secret), "psql shows {secret:?}");
        }
        world.stop().await;
    }

    /// Adds a case that is not about psql.
    pub(crate) fn add(&mut self, title: &str, said: &str) {
        let _ = writeln!(self.text, "# {title}\n{}\n", said.trim_end());
    }

    /// Compares with the kept file.
    pub(crate) fn compare(self) {
        let mut settings = insta::Settings::clone_current();
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| insta::assert_snapshot!(self.name, self.text.trim_end()));
    }
}

/// A database that agrees to TLS and says nothing more.
pub(crate) struct SilentDatabase(TcpListener);

/// Puts one into the place of the database.
pub(crate) async fn silent_database(world: &World) -> SilentDatabase {
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let addr = silent.local_addr().expect("its address");
    world.sandbox.vpc().open(HOST, PORT, addr);
    SilentDatabase(silent)
}

impl SilentDatabase {
    /// Has AWS end all sessions with these `words` in the middle of a login's TLS. The login stands
    /// still as long as what comes back is held.
    pub(crate) async fn end_sessions(
        &self,
        world: &World,
        words: impl Fn(&str) -> String,
    ) -> TcpStream {
        let (mut held, _) = self.0.accept().await.expect("the agent dials");
        held.write_all(b"S").await.expect("it agrees");
        let mut hello = [0; 9];
        held.read_exact(&mut hello).await.expect("SSLRequest, TLS");
        for id in world.sandbox.open_sessions() {
            assert!(world.sandbox.end_session(&id, &words(&id)));
        }
        held
    }
}

/// The log lines about connections that did not become sessions.
pub(crate) fn refusals(world: &World) -> Vec<Value> {
    let log = world.proxy.log_text();
    log.lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &Value| line["message"] == "connection failed")
        .collect()
}

/// How many tokens the database has seen.
pub(crate) fn tokens_seen(world: &World) -> usize {
    let events = world.sandbox.events();
    events.count(|event| matches!(event, Event::DbToken { .. }))
}

/// Puts names in place of what differs from run to run.
fn clean(text: &str, world: &World) -> String {
    let sandbox = &world.sandbox;
    let mut text = text
        .replace(&sandbox.dir().display().to_string(), "DIR")
        .replace(&format!(" {} ", world.proxy.port()), " PORT ")
        .replace(&format!(" {}?", world.proxy.port()), " PORT?")
        // Which of the two answers depends on whether this machine has IPv6.
        .replace("(::1)", "(ADDRESS)")
        .replace("(127.0.0.1)", "(ADDRESS)");
    for (begin, end, name) in [
        ("(request id ", ")", "UUID"),
        ("valid from ", " to ", "BEGIN"),
        ("valid from BEGIN to ", "\n", "END"),
        ("Session: dev-", " timed out", "ID"),
        ("last ping ", ",", "TIME"),
        ("is valid until ", " UTC", "TIME"),
        // The numbers differ between systems, the words do not.
        ("(os error ", ")", "N"),
    ] {
        text = hide(&text, begin, end, name);
    }
    text
}

/// Writes `name` for whatever stands between `begin` and `end`.
pub(crate) fn hide(text: &str, begin: &str, end: &str, name: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(begin) {
        let Some(at) = after.find(end) else { break };
        out += &[before, begin, name].concat();
        rest = &after[at..];
    }
    out + rest
}
