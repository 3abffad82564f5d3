//! Reads the command line and the `PGIAM_*` variables into one set of matches.
//!
//! clap can read variables, but treats an empty one as a value, does not recognise those of an
//! orchestrator, and reports an invalid one as an error of the flag. So pgiam parses a definition
//! without variables, and adds each variable as the flag `--NAME=VALUE`, unless the flag is given.

use std::ffi::OsString;

use clap::builder::Resettable;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

use super::{psql_flags, switches};
use crate::base::environment::VariableError;

/// Parsed command line and variables.
pub(super) struct ParsedArguments {
    pub(super) matches: ArgMatches,
    /// Names of the variables in use.
    pub(super) variables: Vec<String>,
}

/// Parses `words`, and the variables that `read` returns.
///
/// # Errors
/// The error of clap. It names the variable if a variable is invalid.
pub(super) fn parse(
    definition: &Command,
    words: impl IntoIterator<Item = OsString>,
    read: impl Fn(&str) -> Result<Option<String>, VariableError>,
) -> Result<ParsedArguments, clap::Error> {
    let bare = without_variables(definition.clone());
    let words = psql_flags::behind_dashes(&bare, words.into_iter().collect());
    let mut words = switches::join_values(&bare, words);
    let matches = bare.clone().try_get_matches_from(&words)?;
    let (mut command, mut deepest, mut place) = (definition, &matches, 1);
    while let Some((name, below)) = deepest.subcommand()
        && let Some(subcommand) = command.find_subcommand(name)
    {
        (command, deepest, place) = (subcommand, below, place + 1);
    }
    let (mut added, mut variables) = (Vec::new(), Vec::new());
    for arg in command.get_arguments() {
        let (Some(name), Some(flag)) = (arg.get_env(), arg.get_long()) else {
            continue;
        };
        let is_given = |id: &str| deepest.value_source(id) == Some(ValueSource::CommandLine);
        let others = command.get_arg_conflicts_with(arg);
        if is_given(arg.get_id().as_str())
            || others.iter().any(|arg| is_given(arg.get_id().as_str()))
        {
            continue;
        }
        let name = name.to_string_lossy().into_owned();
        let value = read(&name)
            .map_err(|error| clap::Error::raw(ErrorKind::ValueValidation, format!("{error}\n")))?;
        let Some(value) = value else { continue };
        let word = OsString::from(format!("--{flag}={value}"));
        validate_alone(arg, &word, &name)?;
        added.push(word);
        variables.push(name);
    }
    if added.is_empty() {
        return Ok(ParsedArguments { matches, variables });
    }
    words.splice(place..place, added);
    let matches = bare.clone().try_get_matches_from(words)?;
    Ok(ParsedArguments { matches, variables })
}

/// Parses one flag alone, so that an error names the variable `name`.
fn validate_alone(arg: &Arg, word: &OsString, name: &str) -> Result<(), clap::Error> {
    let alone = Command::new("pgiam")
        .no_binary_name(true)
        .arg(arg.clone().env(Resettable::Reset).required(false));
    alone.try_get_matches_from([word]).map_err(|mut error| {
        let name = ContextValue::String(name.to_owned());
        error.insert(ContextKind::InvalidArg, name);
        error
    })?;
    Ok(())
}

/// Returns the definition with the variables in the help texts only.
fn without_variables(command: Command) -> Command {
    let command = command.mut_args(|arg| {
        let Some(name) = arg
            .get_env()
            .map(|name| name.to_string_lossy().into_owned())
        else {
            return arg;
        };
        let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
        // On a separate line, so that it is not wrapped.
        arg.env(Resettable::Reset)
            .help(format!("{help}\n[env: {name}]"))
    });
    command.mut_subcommands(without_variables)
}

/// Returns the names of all variables in the definition.
pub(super) fn names(command: &Command) -> Vec<String> {
    let own = command.get_arguments().filter_map(Arg::get_env);
    let own = own.map(|name| name.to_string_lossy().into_owned());
    let below = command.get_subcommands().flat_map(names);
    let mut all: Vec<String> = own.chain(below).collect();
    all.sort();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{Cli, Command as Typed, ServeArgs};
    use clap::FromArgMatches;

    type Variable = (&'static str, &'static str);

    fn given(words: &[&str], variables: &[Variable]) -> Result<Typed, clap::Error> {
        let read = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            Ok(found.map(|(_, value)| (*value).to_owned()))
        };
        let words = ["pgiam"].iter().chain(words).map(OsString::from);
        let given = parse(&Cli::definition(), words, read)?;
        Cli::from_arg_matches(&given.matches).map(Cli::into_command)
    }

    fn serve(words: &[&str], variables: &[Variable]) -> ServeArgs {
        match given(words, variables).unwrap() {
            Typed::Serve(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn clap_reads_no_variable() {
        fn look(command: &Command) {
            for arg in command.get_arguments() {
                assert_eq!(arg.get_env(), None, "{}", arg.get_id());
            }
            command.get_subcommands().for_each(look);
        }
        look(&without_variables(Cli::definition()));
        assert!(names(&Cli::definition()).contains(&"PGIAM_STATE_DIR".to_owned()));
    }

    #[test]
    fn help_names_the_variables() {
        let error = given(&["serve", "--help"], &[("PGIAM_PORT", "pg")]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DisplayHelp);
        let text = error.to_string();
        assert!(text.contains("[env: PGIAM_PORT]"), "{text}");
        assert!(!text.contains("pg]"), "{text}");
    }

    #[test]
    fn flags_win_over_variables_and_variables_over_defaults() {
        let port: Variable = ("PGIAM_PORT", "6000");
        for words in [&["serve"][..], &[], &["serve", "orders"], &["--warm"]] {
            assert_eq!(serve(words, &[port]).port.port, Some(6000), "{words:?}");
        }
        for words in [&["serve", "-p", "7000"][..], &["--port=7000"]] {
            assert_eq!(serve(words, &[port]).port.port, Some(7000), "{words:?}");
        }
        let args = serve(&["serve"], &[("PGIAM_DRAIN_TIMEOUT", "60")]);
        assert_eq!(args.drain.drain_timeout, 60);
        let args = serve(
            &["serve", "--address", "::1"],
            &[("PGIAM_ADDRESS", "127.0.0.2,127.0.0.3")],
        );
        assert_eq!(args.listen.address, Some(vec!["::1".to_owned()]));
        // A value that looks like a flag is a value.
        let args = serve(&["serve"], &[("PGIAM_USER", "--warm")]);
        assert_eq!(args.layer().user.as_deref(), Some("--warm"));
        assert_eq!(args.layer().warm, None);
        let Typed::Setup(_) = given(&["setup", "sql", "orders"], &[("PGIAM_USER", "app")]).unwrap()
        else {
            panic!("it is setup");
        };
    }

    #[test]
    fn a_fault_of_a_variable_names_the_variable() {
        for (name, value, expected) in [
            ("PGIAM_PORT", "pg", "'pg' for 'PGIAM_PORT'"),
            ("PGIAM_WARM", "perhaps", "'perhaps' for 'PGIAM_WARM'"),
            ("PGIAM_LOG_FORMAT", "xml", "'xml' for 'PGIAM_LOG_FORMAT'"),
            (
                "PGIAM_HTTP_ADDRESS",
                "here",
                "'here' for 'PGIAM_HTTP_ADDRESS'",
            ),
        ] {
            let error = given(&["serve"], &[(name, value)]).unwrap_err();
            let said = error.to_string();
            assert!(
                said.contains(expected) && !said.contains("--port"),
                "{said}"
            );
            assert_eq!(error.exit_code(), 2);
        }
        // The variable has no effect on commands without the flag.
        given(&["completions", "bash"], &[("PGIAM_PORT", "pg")]).unwrap();
        given(&["check", "orders"], &[("PGIAM_HTTP_PORT", "x")]).unwrap();
        let unreadable = |name: &str| {
            Err(VariableError {
                name: name.to_owned(),
                reason: "is not UTF-8 text",
            })
        };
        let words = ["pgiam", "serve"].map(OsString::from);
        let Err(error) = parse(&Cli::definition(), words, unreadable) else {
            panic!("it cannot be read");
        };
        assert!(error.to_string().contains("the variable PGIAM_"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
}
