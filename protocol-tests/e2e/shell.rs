//! psql that stays open, and waiting for what the server says about its sessions.

use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use crate::support::{PATIENCE, Ran, World};

/// A psql that takes its commands one by one, and names SQLSTATEs.
pub(crate) struct Shell {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

impl Shell {
    /// Through the proxy. `conninfo` goes to libpq as it is.
    pub(crate) fn open(world: &World, conninfo: &str) -> Self {
        Self::start(world.psql_command(&["-d", conninfo]))
    }

    /// To another port of the proxy.
    pub(crate) fn open_port(world: &World, port: u16) -> Self {
        Self::start(world.psql_command(&["-p", &port.to_string()]))
    }

    /// Past the proxy, as superuser, in the database `app`.
    pub(crate) fn admin(world: &World) -> Self {
        Self::start(admin_command(world, &[]))
    }

    fn start(mut command: Command) -> Self {
        command
            .args(["-A", "-t", "-q", "-v", "VERBOSITY=verbose"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("psql starts");
        let input = child.stdin.take().expect("psql's input");
        let output = child.stdout.take().expect("psql's output");
        Self {
            child,
            input,
            output: BufReader::new(output).lines(),
        }
    }

    /// Types a line.
    pub(crate) async fn say(&mut self, line: &str) {
        let line = format!("{line}\n");
        let written = self.input.write_all(line.as_bytes()).await;
        written.expect("psql takes input");
    }

    /// The next line of output.
    pub(crate) async fn hear(&mut self) -> String {
        let line = timeout(PATIENCE, self.output.next_line()).await;
        match line.expect("psql answers in time").expect("psql's output") {
            Some(line) => line,
            None => panic!("psql ended: {}", self.complaints().await),
        }
    }

    /// Both.
    pub(crate) async fn ask(&mut self, sql: &str) -> String {
        self.say(sql).await;
        self.hear().await
    }

    /// The process id of the server process behind it.
    pub(crate) async fn backend(&mut self) -> u32 {
        let pid = self.ask("select pg_backend_pid();").await;
        pid.parse().expect("a process id")
    }

    /// Has the running statement cancelled; psql then takes no more input.
    pub(crate) fn press_ctrl_c(&self) {
        signal(&self.child, Signal::SIGINT);
    }

    async fn complaints(&mut self) -> String {
        let mut text = String::new();
        if let Some(errors) = &mut self.child.stderr {
            let read = timeout(PATIENCE, errors.read_to_string(&mut text)).await;
            read.expect("psql ends in time").expect("psql's errors");
        }
        text
    }

    /// Ends its input and takes what it has left to say.
    pub(crate) async fn end(mut self) -> Ran {
        drop(self.input);
        let mut stdout = String::new();
        while let Ok(Ok(Some(line))) = timeout(PATIENCE, self.output.next_line()).await {
            stdout.push_str(&line);
            stdout.push('\n');
        }
        let mut stderr = String::new();
        if let Some(errors) = &mut self.child.stderr {
            let read = timeout(PATIENCE, errors.read_to_string(&mut stderr)).await;
            read.expect("psql ends in time").expect("psql's errors");
        }
        let status = timeout(PATIENCE, self.child.wait()).await;
        Ran {
            code: status.expect("psql ends in time").expect("psql").code(),
            stdout,
            stderr,
        }
    }
}

/// Sends a signal to a child that has not been waited for.
pub(crate) fn signal(child: &Child, signal: Signal) {
    let pid = child.id().expect("it runs").cast_signed();
    kill(Pid::from_raw(pid), signal).expect("the signal is sent");
}

/// psql as superuser over the server's own socket, in the database `app`.
pub(crate) fn admin_command(world: &World, args: &[&str]) -> Command {
    let postgres = world.database.postgres();
    let mut command = world.psql_command(&["-U", "postgres", "-d", "app"]);
    command
        .arg("-h")
        .arg(postgres.socket_dir())
        .args(["-p", &postgres.addr().port().to_string()])
        .args(args);
    command
}

/// psql that writes the rows of a query to a pipe which nobody reads unless the test does.
pub(crate) fn streaming(world: &World, conninfo: &str, query: &str) -> Child {
    let copy = format!("copy ({query}) to stdout");
    let mut command = world.psql_command(&["-d", conninfo, "-c", &copy]);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("psql starts")
}

/// A result of `rows` lines of 1,024 characters and a line feed.
pub(crate) fn numbered(rows: u32) -> String {
    format!("select repeat(lpad(i::text, 16, '0'), 64) from generate_series(1, {rows}) i")
}

impl World {
    /// SQL as superuser in the database `app`, past the proxy.
    pub(crate) async fn admin(&self, sql: &str) -> String {
        let postgres = self.database.postgres();
        let answer = postgres.psql_admin_in("app", sql).await;
        answer.expect("the superuser's SQL works")
    }

    /// Waits until a condition holds at the server.
    pub(crate) async fn wait_sql(&self, condition: &str) {
        self.wait_sql_steady(condition, 1).await;
    }

    /// Waits until a condition has held at so many looks in a row, 10 ms apart.
    pub(crate) async fn wait_sql_steady(&self, condition: &str, looks: u32) {
        let seconds = PATIENCE.as_secs();
        let quoted = condition.replace('\'', "''");
        self.admin(&format!(
            "do $wait$ declare held int := 0; begin
               loop
                 if ({condition}) then held := held + 1; else held := 0; end if;
                 exit when held >= {looks};
                 if clock_timestamp() > now() + interval '{seconds} s' then
                   raise 'never held: %', '{quoted}';
                 end if;
                 perform pg_sleep(0.01), pg_stat_clear_snapshot();
               end loop;
             end $wait$;"
        ))
        .await;
    }

    /// Waits until no session of a client is left at the server.
    pub(crate) async fn wait_no_backends(&self) {
        let clients = "select count(*) = 0 from pg_stat_activity where client_addr is not null";
        self.wait_sql(clients).await;
    }
}

/// Condition: this server process runs a statement that holds `text`.
pub(crate) fn running(pid: u32, text: &str) -> String {
    format!(
        "select exists (select from pg_stat_activity where pid = {pid} and state = 'active' \
         and query like '%{text}%')"
    )
}
