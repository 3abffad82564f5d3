//! `pgiam` alone at a terminal, without a configuration.

use tokio::process::Command;

use super::screen::{END, Terminal};
use super::{Lab, command};
use crate::support::run;

/// Returns `pgiam` without a file, as at home.
fn bare(lab: &Lab) -> Command {
    let mut bare = command(&lab.sandbox, &[]);
    let path = std::env::var("PATH").unwrap_or_default();
    // psql of the server's version comes first.
    let psql = lab.psql();
    let dir = psql.trim_end_matches("/psql");
    bare.env("CI", "")
        .env("LC_ALL", "C")
        .env("PATH", format!("{dir}:{path}"));
    bare
}

async fn without_file() -> Lab {
    let lab = Lab::open().await;
    std::fs::remove_file(lab.sandbox.dir().join("pgiam.toml")).expect("the file");
    lab
}

impl Terminal {
    /// Types a text and Enter.
    async fn enter(&self, text: &str) {
        if !text.is_empty() {
            self.press(text).await;
        }
        self.press("Enter").await;
    }

    /// Selects the cluster, and names the role.
    async fn selects_orders(&self) {
        self.shows("Database in eu-central-1 (type to filter)")
            .await;
        self.enter("orders").await;
        self.shows("Database role").await;
        self.enter("db_user").await;
        self.shows("Action (type to filter)").await;
    }
}

#[tokio::test]
async fn a_database_is_selected_and_opened() {
    let lab = without_file().await;
    let Some(terminal) = Terminal::run(&bare(&lab), "guide").await else {
        return;
    };
    terminal
        .shows("pgiam has no configuration yet. Select a database:")
        .await;
    terminal.selects_orders().await;
    terminal.enter("").await;
    let line = "  pgiam psql --db orders --user db_user --region eu-central-1\n";
    let screen = terminal.shows("=>").await;
    assert!(
        screen.contains(&format!("Next time, type:\n{line}")),
        "{screen}"
    );
    terminal.enter("select current_user || 1 \\g").await;
    terminal.shows(" db_user1\n").await;
    terminal.enter("\\q").await;
    let screen = terminal.shows(END).await;
    assert!(screen.contains("[exit 0]"), "{screen}");
    // The terminal belongs to psql.
    let logged = ["found the bastion", "opened a session"];
    assert!(!logged.iter().any(|line| screen.contains(line)), "{screen}");
    lab.close().await;
}

#[tokio::test]
async fn the_role_is_explained_and_other_profiles_are_offered_if_there_are_some() {
    let lab = without_file().await;
    let Some(terminal) = Terminal::run(&bare(&lab), "guide-role").await else {
        return;
    };
    let screen = terminal.shows("Database in").await;
    assert!(!screen.contains("another profile"), "{screen}");
    terminal.press("orders").await;
    terminal.press("Enter").await;
    let screen = terminal.shows("Database role").await;
    assert!(!screen.contains("[root]"), "{screen}");
    terminal.enter("?").await;
    terminal
        .shows("  pgiam setup sql --db orders --user ROLE\n")
        .await;
    terminal.press("C-c").await;
    terminal.shows("[exit 130]").await;
    lab.close().await;
}

#[tokio::test]
async fn a_database_is_selected_and_served_or_written() {
    let lab = without_file().await;
    let Some(terminal) = Terminal::run(&bare(&lab), "guide-serve").await else {
        return;
    };
    terminal.selects_orders().await;
    terminal.enter("serve").await;
    terminal
        .shows("  pgiam serve --db orders --user db_user")
        .await;
    terminal.shows("psql -h localhost -p ").await;
    terminal.press("C-c").await;
    terminal.shows("[exit 0]").await;
    drop(terminal);
    let terminal = Terminal::run(&bare(&lab), "guide-init")
        .await
        .expect("tmux");
    terminal.selects_orders().await;
    terminal.enter("write").await;
    let screen = terminal.shows(END).await;
    assert!(
        screen.contains("  pgiam init --user db_user --region eu-central-1\n"),
        "{screen}"
    );
    assert!(
        screen.contains("wrote pgiam.toml") && screen.contains("[exit 0]"),
        "{screen}"
    );
    assert!(lab.sandbox.dir().join("pgiam.toml").exists());
    lab.close().await;
}

#[tokio::test]
async fn each_prompt_can_be_cancelled() {
    let lab = without_file().await;
    for keys in [
        &["Escape"][..],
        &["C-c"],
        &["orders", "Enter", "C-c"],
        &["orders", "Enter", "db_user", "Enter", "Escape"],
    ] {
        let Some(terminal) = Terminal::run(&bare(&lab), "guide-end").await else {
            return;
        };
        let prompts = ["Database in", "Database role", "Action"];
        let mut waited = 0;
        for key in keys {
            if *key != "orders" || waited == 0 {
                terminal.shows(prompts[waited]).await;
            }
            terminal.press(key).await;
            waited += usize::from(*key == "Enter");
        }
        let screen = terminal.shows(END).await;
        assert!(
            screen.contains("pgiam: cancelled\n[exit 130]"),
            "{keys:?}: {screen}"
        );
    }
    lab.close().await;
}

#[tokio::test]
async fn a_profile_is_selected_and_one_that_fails_leads_back() {
    let lab = without_file().await;
    let user = lab.sandbox.user();
    let file = lab.sandbox.dir().join("profiles");
    let text = format!(
        "[profile broken]\nregion = eu-central-1\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = wrong\n[profile dev]\naws_access_key_id = {}\naws_secret_access_key = {}\n",
        user.access_key_id, user.secret_access_key
    );
    std::fs::write(&file, text).expect("the file");
    let mut command = bare(&lab);
    for name in [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
    ] {
        command.env_remove(name);
    }
    command
        .env("AWS_CONFIG_FILE", &file)
        .env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null");
    let Some(terminal) = Terminal::run(&command, "guide-profile").await else {
        return;
    };
    terminal.shows("AWS profile (type to filter)").await;
    terminal.enter("broken").await;
    terminal.shows("pgiam: ").await;
    // The list comes again, below the error.
    terminal.enter("dev").await;
    terminal.shows("AWS region").await;
    terminal.enter("eu-central-1").await;
    terminal.selects_orders().await;
    terminal.press("Escape").await;
    let screen = terminal.shows(END).await;
    assert!(screen.contains("[exit 130]"), "{screen}");
    lab.close().await;
}

#[tokio::test]
async fn a_program_is_not_asked() {
    let lab = without_file().await;
    let piped = run(bare(&lab)).await;
    assert_eq!(
        (piped.code, piped.stdout.as_str()),
        (Some(2), ""),
        "{piped:?}"
    );
    assert!(
        piped.stderr.contains("no target is configured"),
        "{piped:?}"
    );
    let mut in_ci = bare(&lab);
    in_ci.env("CI", "true");
    let Some(terminal) = Terminal::run(&in_ci, "guide-ci").await else {
        return;
    };
    let screen = terminal.shows(END).await;
    assert!(
        screen.contains("no target is configured") && screen.contains("[exit 2]"),
        "{screen}"
    );
    drop(terminal);
    // A file, and flags, are what they were.
    std::fs::write(lab.sandbox.dir().join("pgiam.toml"), "[defaults]\n").expect("a file");
    let terminal = Terminal::run(&bare(&lab), "guide-file")
        .await
        .expect("tmux");
    let screen = terminal.shows(END).await;
    assert!(screen.contains("[exit 2]"), "{screen}");
    lab.close().await;
}
