//! Tests of parsing command lines.

mod documents;
mod reference;

use super::*;
use crate::config::{Bastion, Listen, ServeDefaults, TargetDefaults};

fn parse(words: &[&str]) -> Result<Command, clap::Error> {
    let matches = Cli::definition().try_get_matches_from([&["pgiam"], words].concat())?;
    Cli::from_arg_matches(&matches).map(Cli::into_command)
}

fn serve(words: &[&str]) -> ServeArgs {
    match parse(words).unwrap() {
        Command::Serve(args) => *args,
        other => panic!("{other:?}"),
    }
}

fn tunnel(words: &[&str]) -> TunnelArgs {
    match parse(&[&["tunnel"], words].concat()).unwrap() {
        Command::Tunnel(args) => *args,
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_help_is_wider_than_an_ordinary_terminal() {
    fn look(command: &clap::Command) {
        let examples = command.get_after_help().map(ToString::to_string);
        for line in examples.unwrap_or_default().lines() {
            assert!(line.chars().count() < 80, "{}: {line}", command.get_name());
        }
        command.get_subcommands().for_each(look);
    }
    look(&Cli::definition());
}

#[test]
fn the_definition_is_consistent() {
    Cli::definition().debug_assert();
}

#[test]
fn serve_is_the_default() {
    for line in [
        &["--port", "6000"][..],
        &["serve", "--port", "6000"],
        &["--warm", "--port", "6000"],
    ] {
        assert_eq!(serve(line).port.port, Some(6000));
    }
    assert_eq!(serve(&["serve", "orders"]).targets, ["orders"]);
}

#[test]
fn switches_stand_alone_or_have_a_value() {
    let layer = |words: &[&str]| serve(&[&["serve"], words].concat()).layer();
    assert_eq!(layer(&["--warm"]).warm, Some(true));
    assert_eq!(layer(&["--warm=false"]).warm, Some(false));
    assert_eq!(layer(&["--keep-alive=on"]).keep_alive, Some(true));
    assert_eq!(layer(&[]).warm, None);
    let args = serve(&["serve", "--warm", "orders"]);
    assert_eq!(
        (args.layer().warm, &args.targets[..]),
        (Some(true), &["orders".to_owned()][..])
    );
    assert!(parse(&["serve", "--warm=perhaps"]).is_err());
}

#[test]
fn every_flag_of_the_tunnel_arrives() {
    let words = [
        "--bastion",
        "i-1,i-2",
        "--document",
        "Our-Forward",
        "--sessions",
        "3",
        "--idle-timeout",
        "60",
        "--warm",
        "--keep-alive",
        "--profile",
        "dev",
        "--region",
        "eu-central-1",
        "--connect-timeout",
        "20",
    ];
    let of_serve = serve(&[&["serve", "--dial-timeout", "7"], &words[..]].concat()).layer();
    let of_tunnel = tunnel(&[&["db:1"], &words[..]].concat()).layer();
    for layer in [&of_serve, &of_tunnel] {
        let bastion = layer.bastion.as_ref().unwrap().parse().unwrap();
        assert_eq!(bastion, Bastion::Nodes(vec!["i-1".into(), "i-2".into()]));
        assert_eq!(layer.document.as_deref(), Some("Our-Forward"));
        assert_eq!(
            (layer.sessions, layer.idle_timeout, layer.connect_timeout),
            (Some(3), Some(60), Some(20))
        );
        assert_eq!((layer.warm, layer.keep_alive), (Some(true), Some(true)));
        assert_eq!(layer.profile.as_deref(), Some("dev"));
        assert_eq!(layer.region.as_deref(), Some("eu-central-1"));
    }
    assert_eq!(
        (of_serve.dial_timeout, of_tunnel.dial_timeout),
        (Some(7), None)
    );
}

#[test]
fn a_leading_tilde_is_the_home_directory() {
    let home = std::env::home_dir().unwrap();
    let args = serve(&[
        "serve",
        "--ca-file=~/ca.pem",
        "--password-file=~/password",
        "--socket-dir=~/run",
        "--state-dir=~/state",
        "--config=~/pgiam.toml",
    ]);
    assert_eq!(args.database.database.ca_file, Some(home.join("ca.pem")));
    assert_eq!(args.client.password_file, Some(home.join("password")));
    assert_eq!(args.listen.socket_dir, Some(home.join("run")));
    assert_eq!(args.state.state_dir, Some(home.join("state")));
    assert_eq!(args.program.config, Some(home.join("pgiam.toml")));
}

#[test]
fn a_tunnel_listens_where_it_leads_unless_told() {
    assert_eq!(
        tunnel(&["db.internal:3306"]).listen(),
        [Listen::Localhost(3306)]
    );
    let args = tunnel(&[
        "db.internal:3306",
        "--listen",
        "3307",
        "--listen",
        "[::1]:3308",
    ]);
    let also = Listen::Address("[::1]:3308".parse().unwrap());
    assert_eq!(args.listen(), [Listen::Localhost(3307), also]);
    let args = tunnel(&["db.internal:3306", "--listen", "3307,[::1]:3308"]);
    assert_eq!(args.listen(), [Listen::Localhost(3307), also]);
}

#[test]
fn a_tunnel_is_refused_with_the_remedy() {
    for (words, expected) in [
        (&["tunnel"][..], "<HOST:PORT>"),
        (
            &["tunnel", "db.internal"],
            "the port is missing; expected HOST:PORT",
        ),
        (
            &["tunnel", "db:1", "--listen", "0.0.0.0:1"],
            "without a password",
        ),
        (
            &["tunnel", "db:1", "--via", "direct"],
            "unexpected argument '--via'",
        ),
        (
            &["tunnel", "db:1", "--drain-timeout", "x"],
            "invalid value 'x'",
        ),
    ] {
        let said = parse(words).unwrap_err().to_string();
        assert!(said.contains(expected), "{words:?}\n→ {said}");
    }
}

#[test]
fn the_configuration_knows_the_commands() {
    let definition = Cli::definition();
    let commands: Vec<&str> = definition
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
        .map(clap::Command::get_name)
        .collect();
    assert_eq!(commands, crate::config::COMMANDS);
}

#[test]
fn help_names_the_defaults() {
    let mut cli = Cli::definition();
    cli.build();
    let serve = cli.find_subcommand("serve").unwrap();
    let defaults = [TargetDefaults::all(), ServeDefaults::all()].concat();
    assert!(defaults.len() > 8, "{defaults:?}");
    for (key, value) in defaults {
        let flag = key.replace('_', "-");
        let mut flags = serve.get_arguments();
        let arg = flags.find(|arg| arg.get_long() == Some(&flag)).unwrap();
        let help = arg.get_help().unwrap().to_string();
        assert!(help.contains(&format!("Default: {value}")), "{key}: {help}");
    }
}
