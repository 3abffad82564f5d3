//! Completions in the shells that they are for: every command offers its own flags, all of them and
//! no others, as its help lists them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::daily::screen::Terminal;
use crate::support::{PATIENCE, pgiam, run};

async fn said(args: &[&str]) -> String {
    let mut command = Command::new(pgiam());
    protocol_tests::harness::program::clean_env(&mut command, &["AWS_", "PGIAM_"]);
    command.args(args).current_dir("/");
    let ran = run(command).await;
    assert_eq!(ran.code, Some(0), "{args:?}: {ran:?}");
    ran.stdout
}

/// The commands in a help.
fn commands(help: &str) -> BTreeSet<String> {
    let listed = help.split("Commands:\n").nth(1).unwrap_or_default();
    let lines = listed.lines().take_while(|line| !line.is_empty());
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names.map(str::to_owned).collect()
}

/// The long flags in a help: where they are explained, not where they are mentioned, and those that
/// are named only, in lines of their own.
fn flags(help: &str) -> BTreeSet<String> {
    let is_named = |line: &&str| line.split_whitespace().all(|word| word.starts_with("--"));
    let named = help
        .lines()
        .filter(is_named)
        .flat_map(str::split_whitespace);
    let named: BTreeSet<String> = named.map(str::to_owned).collect();
    explained_flags(help).into_iter().chain(named).collect()
}

fn explained_flags(help: &str) -> BTreeSet<String> {
    let lines = help.lines().map(str::trim_start);
    let own = lines.filter_map(|line| {
        let flag = line.split_once(", --").map_or(line, |(short, _)| {
            match short.len() == 2 && short.starts_with('-') {
                true => &line[4..],
                false => line,
            }
        });
        flag.strip_prefix("--")
    });
    let ends = |c: char| !(c.is_ascii_alphanumeric() || c == '-');
    own.filter_map(|flag| flag.split(ends).next())
        .filter(|flag| !flag.is_empty())
        .map(|flag| format!("--{flag}"))
        .collect()
}

/// What a shell offers at the end of each line.
async fn offered(shell: &mut Command, lines: &[String]) -> Vec<BTreeSet<String>> {
    let child = shell
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn();
    let mut child = child.expect("the shell starts");
    let mut input = child.stdin.take().expect("its input");
    let text = lines.join("\n") + "\n";
    input.write_all(text.as_bytes()).await.expect("it reads");
    drop(input);
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output());
    let output = output.await.expect("in time").expect("its output");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{output:?}");
    let parts: Vec<&str> = said.split("> pgiam ").skip(1).collect();
    assert_eq!(parts.len(), lines.len(), "{said}");
    let words = |part: &str| {
        let words = part.lines().skip(1).map(str::trim);
        words
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    };
    parts.into_iter().map(words).collect()
}

/// A shell with the program's completions, if it is there; in CI it has to be.
#[expect(clippy::print_stdout, reason = "what was left out is to be seen")]
async fn shell(name: &str, folder: &Path) -> Option<Command> {
    let found = Command::new(name).arg("--version").output().await;
    if let Err(error) = found {
        assert_ne!(
            std::env::var("CI").as_deref(),
            Ok("true"),
            "{name}: {error}"
        );
        println!("SKIPPED {name}: {error}");
        return None;
    }
    // compinit finds it by that name, in a folder.
    let script = folder.join("_pgiam");
    std::fs::write(&script, said(&["completions", name]).await).expect("a script");
    let judges = Path::new(env!("CARGO_MANIFEST_DIR")).join("protocol-tests/judges/completions");
    let (option, given) = match name {
        "bash" => ("--norc", script.as_path()),
        "fish" => ("--no-config", script.as_path()),
        _ => ("-f", folder),
    };
    let mut command = Command::new(name);
    command
        .arg(option)
        .arg(judges.join(format!("ask.{name}")))
        .arg(given)
        .env("HOME", folder)
        .env("XDG_DATA_HOME", folder)
        .env("PATH", path_with_pgiam())
        .env("LC_ALL", "C.UTF-8")
        .current_dir(folder);
    Some(command)
}

/// PATH with the program first: the scripts call it.
fn path_with_pgiam() -> std::ffi::OsString {
    let folder = pgiam().parent().expect("its folder").to_owned();
    let others = std::env::var_os("PATH").unwrap_or_default();
    let all = std::iter::once(folder).chain(std::env::split_paths(&others));
    std::env::join_paths(all).expect("paths without colons")
}

async fn every_command_completes_its_own(name: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let Some(mut shell) = shell(name, folder.path()).await else {
        return;
    };
    let help = said(&["--help"]).await;
    let mut all = commands(&help);
    let (mut lines, mut expected) = (vec!["pgiam ".to_owned()], vec![all.clone()]);
    all.remove("help");
    assert!(all.contains("serve") && all.len() > 10, "{help}");
    for command in &all {
        let help = said(&[command, "--help"]).await;
        let inner = commands(&help);
        lines.push(format!("pgiam {command} --"));
        expected.push(flags(&help));
        if inner.is_empty() {
            continue;
        }
        lines.push(format!("pgiam {command} "));
        expected.push(inner.clone());
        for inner in inner.iter().filter(|inner| *inner != "help") {
            lines.push(format!("pgiam {command} {inner} --"));
            expected.push(flags(&said(&[command, inner, "--help"]).await));
        }
    }
    // Behind a target's name, as before it.
    lines.push("pgiam check orders --".to_owned());
    expected.push(flags(&said(&["check", "--help"]).await));
    // A command on a target of the same name as a command.
    lines.push("pgiam url list --".to_owned());
    expected.push(flags(&said(&["url", "--help"]).await));
    let offered = offered(&mut shell, &lines).await;
    for ((line, expected), offered) in lines.iter().zip(&expected).zip(&offered) {
        assert!(!expected.is_empty(), "{line}");
        // Where commands stand, flags and files may be offered, too.
        match line.ends_with("--") {
            true => assert_eq!(offered, expected, "{name}: {line}"),
            false => assert!(
                offered.is_superset(expected),
                "{name}: {line} offers {offered:?}"
            ),
        }
    }
}

#[tokio::test]
async fn bash_completes_every_command() {
    every_command_completes_its_own("bash").await;
}

#[tokio::test]
async fn fish_completes_every_command() {
    every_command_completes_its_own("fish").await;
}

#[tokio::test]
async fn zsh_completes_every_command() {
    every_command_completes_its_own("zsh").await;
}

/// `pgiam` alone is `pgiam serve`, so its flags are offered without the word.
#[tokio::test]
async fn the_default_command_completes_its_flags() {
    for name in ["bash", "fish", "zsh"] {
        let folder = tempfile::tempdir().expect("a folder");
        let Some(mut shell) = shell(name, folder.path()).await else {
            continue;
        };
        let mut expected = flags(&said(&["serve", "--help"]).await);
        expected.insert("--version".to_owned());
        let offered = offered(&mut shell, &["pgiam --".to_owned()]).await;
        assert_eq!(offered, [expected], "{name}");
    }
}

/// Configuration with names that shells have to quote.
const TARGETS: &str = r#"
[targets.orders]
db = "orders-db:reader"
user = "report writer"
profile = "dev"

[targets.users]
host = "users.example"

[targets."my db"]
db = "x"

[targets."it's"]
db = "y"
"#;

/// A folder with a configuration, AWS profiles and the shell's own start file.
async fn home(name: &str) -> tempfile::TempDir {
    let home = tempfile::tempdir().expect("a folder");
    let write = |file: &str, text: &str| {
        let path = home.path().join(file);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("the folder");
        std::fs::write(path, text).expect("a file");
    };
    let script = said(&["completions", name]).await;
    let folder = home.path().display();
    let programs = pgiam().parent().expect("its folder").display();
    // Not by the environment: the shell that starts the terminal may change it.
    let path = format!("export PATH='{programs}':\"$PATH\"\n");
    write("pgiam.toml", TARGETS);
    write(
        ".aws/config",
        "[profile dev]\nregion = eu-central-1\n[profile \"my prod\"]\n",
    );
    match name {
        "bash" => {
            write("script", &script);
            let start = "PS1='> '\n. ~/script\nbind 'set show-all-if-ambiguous on'\n";
            write(".bashrc", &(path + start));
        }
        "zsh" => {
            write("_pgiam", &script);
            let start = "PROMPT='> '\nautoload -Uz compinit && compinit -u -D\n";
            write(
                ".zshrc",
                &format!("{path}fpath=('{folder}' $fpath)\n{start}"),
            );
        }
        _ => {
            let prompt = "function fish_prompt; echo -n '> '; end\nset -g fish_greeting\n";
            let path = format!("set --export PATH '{programs}' $PATH\n");
            write(".config/fish/config.fish", &(path + prompt));
            write(".config/fish/completions/pgiam.fish", &script);
        }
    }
    home
}

/// Lines before and after TAB, in a terminal.
const PRESSED: [(&str, &str); 14] = [
    ("pgiam chec", "> pgiam check"),
    ("pgiam check us", "> pgiam check users"),
    ("pgiam check my", r"> pgiam check my\ db"),
    ("pgiam check 'my", "> pgiam check 'my db'"),
    ("pgiam check it", r"> pgiam check it\'s"),
    (
        "pgiam check --profile=my",
        r"> pgiam check --profile=my\ prod",
    ),
    ("pgiam check --profile d", "> pgiam check --profile dev"),
    (
        "pgiam check --db=orders-db:r",
        "> pgiam check --db=orders-db:reader",
    ),
    (
        "pgiam check --user r",
        r"> pgiam check --user report\ writer",
    ),
    (
        "pgiam list --region eusc",
        "> pgiam list --region eusc-de-east-1",
    ),
    ("pgiam explain tunnel.ov", "> pgiam explain tunnel.overrun"),
    (
        "pgiam check --config=pgiam.t",
        "> pgiam check --config=pgiam.toml",
    ),
    ("pgiam run orders -- whoa", "> pgiam run orders -- whoami"),
    (
        "pgiam run orders -- cat pgiam.t",
        "> pgiam run orders -- cat pgiam.toml",
    ),
];

/// Times that TAB is pressed, and the time between two.
const PRESSES: usize = 5;
const AGAIN: Duration = Duration::from_secs(5);

async fn tab_completes(name: &str, description: &str) {
    let home = home(name).await;
    if shell(name, home.path()).await.is_none() {
        return;
    }
    let mut command = Command::new(name);
    command
        .arg("-i")
        .env("HOME", home.path())
        .env("XDG_CONFIG_HOME", home.path().join(".config"))
        .env("XDG_DATA_HOME", home.path())
        .env("XDG_STATE_HOME", home.path())
        .env("XDG_RUNTIME_DIR", home.path())
        .env("PATH", path_with_pgiam())
        .env("LC_ALL", "C.UTF-8")
        .current_dir(home.path());
    let Some(terminal) = Terminal::run(&command, &format!("tab-{name}")).await else {
        return;
    };
    // Without the space: a terminal does not tell it from an empty column.
    terminal.shows(">").await;
    for (typed, expected) in PRESSED {
        terminal.press(typed).await;
        // The shell has drawn what was typed before it completes it.
        terminal.shows(typed).await;
        // On a busy machine pgiam may not know the words in time: users press TAB again.
        for _ in 0..PRESSES {
            terminal.press("Tab").await;
            if terminal.shows_within(expected, AGAIN).await.is_ok() {
                break;
            }
        }
        terminal.shows(expected).await;
        // An empty line, on an empty screen. An interrupt would race with the shell's own reading.
        terminal.press("C-u").await;
        terminal.press("C-l").await;
        terminal.shows_no(typed).await;
    }
    // Several words are listed, with their descriptions where the shell shows them.
    terminal.press("pgiam check ").await;
    terminal.shows("pgiam check").await;
    terminal.press("Tab").await;
    let screen = terminal.shows("orders").await;
    assert!(
        screen.contains("users") && screen.contains("my"),
        "{screen}"
    );
    assert!(terminal.shows(description).await.contains("orders"));
}

#[tokio::test]
async fn tab_in_bash_completes_targets_profiles_and_files() {
    tab_completes("bash", "users").await;
}

#[tokio::test]
async fn tab_in_zsh_completes_targets_profiles_and_files() {
    tab_completes("zsh", "-- orders-db:reader, profile dev").await;
}

#[tokio::test]
async fn tab_in_fish_completes_targets_profiles_and_files() {
    tab_completes("fish", "(orders-db:reader, profile dev)").await;
}

/// A broken configuration, an unreadable profile file and nonsense: no error, and no wait.
#[tokio::test]
async fn faults_are_never_shown_to_a_shell() {
    let home = home("bash").await;
    let path = home.path().join("pgiam.toml");
    std::fs::write(&path, "[targets.orders]\nport = = 1\n").expect("a file");
    std::fs::write(home.path().join(".aws/config"), "[[[\n").expect("a file");
    for line in [
        "pgiam check or",
        "pgiam check --profile ",
        "pgiam check --config /no/such/file ",
        "pgiam --state-dir /dev/null stop ",
        "pgiam \"open",
        "pgiam run --",
        "",
        "pgiam nonsense --x=y z -- ",
    ] {
        let mut command = Command::new(pgiam());
        protocol_tests::harness::program::clean_env(&mut command, &["AWS_", "PGIAM_"]);
        command
            .args(["__complete", "bash", " =:", "--", line])
            .env("HOME", home.path())
            .env("PGIAM_LOG", "nonsense[")
            .current_dir(home.path());
        let ran = run(command).await;
        assert_eq!((ran.code, ran.stderr.as_str()), (Some(0), ""), "{line}");
        if line == "pgiam check or" {
            assert_eq!(ran.stdout, "values\norders\n");
        }
    }
}
