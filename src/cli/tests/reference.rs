//! Generates `docs/config.md` from the definitions of the command line and of the configuration file.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command};

use crate::cli::Cli;

/// Set to write the document instead of comparing it.
const UPDATE: &str = "PGIAM_UPDATE_DOCS";

/// Returns the keys of a table in the file. The parser lists them in its error about an unknown key.
pub(super) fn keys(table: &str) -> Vec<String> {
    let text = format!("[{table}]\n\"no such key\" = 1\n");
    let error = toml::from_str::<crate::config::ConfigFile>(&text).unwrap_err();
    let named = error.message().split('`').skip(3).step_by(2);
    named.map(str::to_owned).collect()
}

fn flag_of(key: &str) -> String {
    key.replace('_', "-")
}

fn find<'a>(command: &'a Command, key: &str) -> &'a Arg {
    let flag = flag_of(key);
    let mut flags = command.get_arguments();
    flags
        .find(|arg| arg.get_long() == Some(&flag))
        .unwrap_or_else(|| panic!("the key {key} has no flag --{flag}"))
}

/// Returns the help of a flag as one paragraph.
fn words(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let help = help.replace('|', "\\|").replace('\n', " ");
    let values = arg.get_possible_values();
    let names: Vec<&str> = values
        .iter()
        .map(clap::builder::PossibleValue::get_name)
        .collect();
    if names.is_empty() || is_switch(arg) {
        return help;
    }
    format!("{help}: {}", names.join(", "))
}

/// Returns true for a switch, with or without a value.
fn is_switch(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue) || arg.is_require_equals_set()
}

fn variable(arg: &Arg) -> String {
    arg.get_env()
        .map(|name| format!("`{}`", name.to_string_lossy()))
        .unwrap_or_default()
}

fn flag(arg: &Arg) -> String {
    let value = arg.get_value_names().and_then(<[_]>::first);
    let value = value.map(|name| format!(" {name}")).unwrap_or_default();
    let value = match arg.get_action() {
        ArgAction::SetTrue | ArgAction::Count => String::new(),
        _ if is_switch(arg) => format!("[={}]", value.trim()),
        _ => value,
    };
    match (arg.get_long(), arg.get_short()) {
        (Some(long), Some(short)) => format!("`-{short}`, `--{long}{value}`"),
        (Some(long), None) => format!("`--{long}{value}`"),
        _ => format!("`{}`", value.trim()),
    }
}

fn table_of_keys(text: &mut String, command: &Command, keys: &[String]) {
    text.push_str("\n| key | flag | variable | meaning |\n|---|---|---|---|\n");
    for key in keys {
        let arg = find(command, key);
        writeln!(
            text,
            "| `{key}` | {} | {} | {} |",
            flag(arg),
            variable(arg),
            words(arg)
        )
        .unwrap();
    }
}

/// Returns the flags of a command that are not in the tables of `known` keys.
fn own_flags<'a>(command: &'a Command, known: &[String]) -> Vec<&'a Arg> {
    let own = command.get_arguments().filter(|arg| {
        let is_key = known
            .iter()
            .any(|key| arg.get_long() == Some(&flag_of(key)));
        !is_key && !arg.is_hide_set() && !["help", "version"].contains(&arg.get_id().as_str())
    });
    own.collect()
}

fn section(text: &mut String, command: &Command, name: &str, known: &[String]) {
    let about = command
        .get_about()
        .map(ToString::to_string)
        .unwrap_or_default();
    writeln!(text, "\n### pgiam {name}\n\n{about}").unwrap();
    let own = own_flags(command, known);
    if !own.is_empty() {
        text.push_str("\n| flag | variable | meaning |\n|---|---|---|\n");
    }
    for arg in own {
        writeln!(
            text,
            "| {} | {} | {} |",
            flag(arg),
            variable(arg),
            words(arg)
        )
        .unwrap();
    }
    let takes_keys = command
        .get_arguments()
        .any(|arg| arg.get_long() == Some("bastion"));
    if takes_keys && !["serve", "tunnel"].contains(&name) {
        text.push_str("\nIt also takes the flags of all target keys, above.\n");
    }
    for below in command
        .get_subcommands()
        .filter(|below| below.get_name() != "help")
    {
        section(text, below, &format!("{name} {}", below.get_name()), known);
    }
}

fn document() -> String {
    let mut cli = Cli::definition();
    cli.build();
    let serve = cli.find_subcommand("serve").unwrap();
    let (of_targets, of_serve) = (keys("defaults"), keys("serve"));
    let mut text = include_str!("reference_head.md").to_owned();
    text.push_str("\n## Keys of `[targets.NAME]` and `[defaults]`\n");
    table_of_keys(&mut text, serve, &of_targets);
    text.push_str("\n## Keys of `[serve]`\n");
    table_of_keys(&mut text, serve, &of_serve);
    text.push_str("\n## Flags of the commands\n");
    let program = ["config", "log", "log_format", "quiet", "verbose"].map(str::to_owned);
    text.push_str("\nCommon to all commands except `explain`, `completions` and `man`:\n");
    text.push_str("\n| flag | variable | meaning |\n|---|---|---|\n");
    for key in &program {
        let arg = find(serve, key);
        writeln!(
            text,
            "| {} | {} | {} |",
            flag(arg),
            variable(arg),
            words(arg)
        )
        .unwrap();
    }
    let known = [of_targets, of_serve, program.to_vec()].concat();
    let is_listed = |it: &&Command| it.get_name() != "help" && !it.is_hide_set();
    for command in cli.get_subcommands().filter(is_listed) {
        section(&mut text, command, command.get_name(), &known);
    }
    text
}

#[test]
fn the_reference_says_what_the_program_takes() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/config.md");
    let expected = document();
    if std::env::var_os(UPDATE).is_some() {
        std::fs::write(path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == expected,
        "docs/config.md is out of date; write it anew: {UPDATE}=1 cargo test -p pgiam --lib reference"
    );
}

#[test]
fn every_flag_that_has_a_variable_of_ours_has_the_one_of_its_name() {
    let mut cli = Cli::definition();
    cli.build();
    for command in cli.get_subcommands() {
        for arg in command.get_arguments() {
            if let (Some(long), Some(variable)) = (arg.get_long(), arg.get_env()) {
                let name = format!("PGIAM_{}", long.to_uppercase().replace('-', "_"));
                assert_eq!(variable.to_string_lossy(), name, "{}", command.get_name());
            }
        }
    }
}
