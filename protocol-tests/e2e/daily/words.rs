//! Help, completions, manual pages and exit codes: what the command line says of itself.

use std::collections::BTreeSet;

use protocol_tests::aws::sandbox::Sandbox;
use tokio::process::Command;

use super::{command, write};
use crate::support::{Ran, pgiam, run};

async fn said(args: &[&str]) -> Ran {
    let mut command = Command::new(pgiam());
    protocol_tests::harness::program::clean_env(&mut command, &["AWS_", "PGIAM_"]);
    let nowhere = std::env::temp_dir().join("pgiam-no-such-folder");
    command
        .args(args)
        .env("XDG_CONFIG_HOME", nowhere)
        .current_dir("/");
    run(command).await
}

/// The commands as the help lists them.
async fn commands() -> Vec<String> {
    let help = said(&["--help"]).await;
    assert_eq!(help.code, Some(0));
    let listed = help.stdout.split("Commands:\n").nth(1).expect("a list");
    let lines = listed.lines().take_while(|line| !line.is_empty());
    // The further lines of a description stand further in.
    let names = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let names = names.filter_map(|line| line.split_whitespace().next());
    names
        .map(str::to_owned)
        .filter(|name| name != "help")
        .collect()
}

#[tokio::test]
async fn every_command_has_a_help_with_examples() {
    let commands = commands().await;
    let expected = [
        "serve",
        "run",
        "psql",
        "login",
        "logout",
        "check",
        "list",
        "init",
        "url",
        "token",
        "setup",
        "tunnel",
        "relay",
        "status",
        "wait",
        "stop",
        "explain",
        "service",
        "up",
        "down",
        "completions",
        "man",
    ];
    assert_eq!(commands, expected);
    for name in &commands {
        let help = said(&[name, "--help"]).await;
        assert_eq!(help.code, Some(0), "{name}: {help:?}");
        assert!(
            help.stdout.contains("Usage: pgiam "),
            "{name}: {}",
            help.stdout
        );
        let examples = help.stdout.split("Examples:\n").nth(1).unwrap_or_default();
        assert!(
            examples.contains(&format!("pgiam {name}")),
            "{name}: {}",
            help.stdout
        );
        assert_eq!(help.stderr, "");
    }
    // Without the word, the flags of serve are taken and not listed a second time.
    let help = said(&["--help"]).await.stdout;
    assert!(
        !help.contains("--bastion") && help.contains("Exit codes: 0 done"),
        "{help}"
    );
}

#[tokio::test]
async fn wrong_words_and_wrong_configurations_exit_with_2() {
    let sandbox = Sandbox::builder().start().await.expect("sandbox");
    let file = sandbox.dir().join("pgiam.toml");
    for (text, args, expected) in [
        (
            "",
            &["serve", "--bastoin", "i-1"][..],
            "a similar argument exists: '--bastion'",
        ),
        (
            "",
            &["chekc"],
            "did you mean this command?\n  pgiam check\n",
        ),
        ("", &["serve"], "no target is configured"),
        (
            "[targets.a]\nbastoin='i-1'\n",
            &["serve"],
            "did you mean bastion?",
        ),
        (
            "[targets.a]\nhost='a.example'\nvia='vpn'\n",
            &["serve"],
            "\"ssm\" or \"direct\"",
        ),
        (
            "[targets.a]\nhost='a.example'\n[targets.b]\nhost='b.example'\n",
            &["check"],
            "name one of them: a, b",
        ),
    ] {
        write(&file, text);
        let ran = run(command(&sandbox, args)).await;
        assert_eq!(ran.code, Some(2), "{args:?}: {ran:?}");
        assert!(ran.stderr.contains(expected), "{args:?}: {}", ran.stderr);
        assert_eq!(ran.stdout, "", "{args:?}");
    }
    sandbox.shutdown().await;
}

#[tokio::test]
async fn shells_can_read_their_completions() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let ran = said(&["completions", shell]).await;
        assert_eq!(ran.code, Some(0), "{shell}");
        let asks = matches!(shell, "bash" | "zsh" | "fish");
        let expected = if asks { "__complete" } else { "hub-port" };
        assert!(ran.stdout.contains(expected), "{shell}: {}", ran.stdout);
    }
}

#[tokio::test]
async fn there_is_a_manual_page_for_every_command() {
    let first = said(&["man"]).await;
    assert!(first.stdout.contains(".TH pgiam 1"), "{}", first.stdout);
    let dir = tempfile::tempdir().expect("a folder");
    let folder = dir.path().join("man1");
    let ran = said(&["man", &folder.display().to_string()]).await;
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), ""), "{ran:?}");
    let pages = std::fs::read_dir(&folder).expect("the folder");
    let pages: BTreeSet<String> = pages
        .map(|page| {
            page.expect("a page")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    for name in commands().await {
        assert!(
            pages.contains(&format!("pgiam-{name}.1")),
            "{name}: {pages:?}"
        );
    }
    assert!(
        pages.contains("pgiam.1") && pages.contains("pgiam-setup-sql.1"),
        "{pages:?}"
    );
}
