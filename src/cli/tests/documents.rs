//! Tests that every example in the documents and every documented form of a key, a flag and a variable
//! parse.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::FromArgMatches as _;

use super::reference::keys;
use crate::cli::{Cli, variables};
use crate::config::{ConfigFile, ServeSettings};

/// Parses a command line with the variables in `set`.
fn typed(words: &[String], set: &[(String, String)]) -> Result<Cli, String> {
    let read = |name: &str| {
        let found = set.iter().find(|(known, _)| known == name);
        Ok(found.map(|(_, value)| value.clone()))
    };
    let words = words.iter().map(OsString::from);
    let given = variables::parse(&Cli::definition(), words, read);
    given
        .and_then(|given| Cli::from_arg_matches(&given.matches))
        .map_err(|error| error.to_string())
}

/// Runs all checks of a configuration file that need no other file.
fn meant(text: &str) -> Result<(), String> {
    let file: ConfigFile = toml::from_str(text).map_err(|error| error.to_string())?;
    ServeSettings::from_layer(file.serve.clone()).map_err(|error| error.to_string())?;
    if file.targets.is_empty() {
        return Ok(());
    }
    let configs = file.targets(&[], &crate::config::TargetLayer::default());
    for config in configs.map_err(|error| error.to_string())? {
        config.map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// A key, with several forms of its values in the file and on the command line.
struct Sample {
    key: &'static str,
    file: &'static [&'static str],
    typed: &'static [&'static str],
}

const SWITCH: (&[&str], &[&str]) = (
    &[
        "true", "false", "1", "0", "'on'", "'off'", "'yes'", "'no'", "'true'", "'False'", "'1'",
    ],
    &["true", "false", "1", "0", "on", "off", "yes", "no", "TRUE"],
);

const fn sample(
    key: &'static str,
    file: &'static [&'static str],
    typed: &'static [&'static str],
) -> Sample {
    Sample { key, file, typed }
}

const fn switch(key: &'static str) -> Sample {
    sample(key, SWITCH.0, SWITCH.1)
}

const HOST: &str = "orders.cluster-abc.eu-central-1.rds.amazonaws.com";

const SAMPLES: [Sample; 34] = [
    sample("login", &["'off'", "'browser'"], &["off", "browser"]),
    sample(
        "host",
        &["'orders.cluster-abc.eu-central-1.rds.amazonaws.com:5432'"],
        &[HOST],
    ),
    sample(
        "db",
        &["'orders'", "'orders:reader'"],
        &["orders", "orders:reader"],
    ),
    sample("user", &["'app'"], &["app"]),
    sample("database", &["'app'"], &["app"]),
    sample("port", &["5433", "0"], &["5433", "0"]),
    sample(
        "bastion",
        &[
            "'i-1'",
            "'i-1,mi-2'",
            "'i-1, mi-2'",
            "['i-1', 'mi-2']",
            "['i-1']",
            "'auto'",
            "['auto']",
            "{ tag = 'Name=bastion' }",
            "'tag:Name=bastion'",
            "['tag:Name=bastion']",
        ],
        &["i-1", "i-1,mi-2", "i-1, mi-2", "auto", "tag:Name=a,b"],
    ),
    sample("document", &["'Our-Forward'"], &["Our-Forward"]),
    sample(
        "relay",
        &["5439", "'5439'", "'auto'", "false", "'off'", "true"],
        &["5439", "auto", "false", "off", "on"],
    ),
    sample("sessions", &["4"], &["4"]),
    sample("idle_timeout", &["300"], &["300"]),
    switch("warm"),
    switch("keep_alive"),
    sample("dial_timeout", &["10"], &["10"]),
    sample("via", &["'ssm'", "'direct'"], &["ssm", "direct"]),
    sample("profile", &["'dev'"], &["dev"]),
    sample("region", &["'eu-central-1'"], &["eu-central-1"]),
    sample("ca_file", &["'ca.pem'"], &["ca.pem"]),
    sample("connect_timeout", &["30"], &["30"]),
    sample("login_timeout", &["30"], &["30"]),
    sample("auth", &["'iam'", "'passthrough'"], &["iam", "passthrough"]),
    sample("connection_limit", &["20"], &["20"]),
    sample("ready", &["0", "8"], &["0", "8"]),
    sample(
        "ignore_startup_parameters",
        &["'a'", "'a,b'", "'a, b'", "['a', 'b']", "[]", "''"],
        &["a", "a,b", "a, b"],
    ),
    sample(
        "dns_server",
        &["'10.0.0.2'", "'10.0.0.2:53'"],
        &["10.0.0.2", "[fd00::2]:53"],
    ),
    sample(
        "address",
        &[
            "'127.0.0.1'",
            "'127.0.0.1,::1'",
            "'127.0.0.1, ::1'",
            "['127.0.0.1', '::1']",
        ],
        &["127.0.0.1", "127.0.0.1,::1", "127.0.0.1, ::1"],
    ),
    sample("socket_dir", &["'run'", "'none'"], &["run", "none"]),
    switch("peer_check"),
    sample("password_file", &["'password'"], &["password"]),
    sample("hub_port", &["5500"], &["5500"]),
    sample("max_connections", &["400"], &["400"]),
    sample("startup_timeout", &["30"], &["30"]),
    sample("http_port", &["9801"], &["9801"]),
    sample("http_address", &["'127.0.0.1'"], &["127.0.0.1"]),
];

fn words(line: &str) -> Vec<String> {
    line.split(' ').map(str::to_owned).collect()
}

/// Returns the settings of a command line.
fn settings(cli: Cli) -> (String, String) {
    let crate::cli::Command::Serve(args) = cli.into_command() else {
        panic!("it is serve");
    };
    let serve = ServeSettings::from_layer(args.serve_layer()).expect("it can be meant");
    (format!("{:?}", args.layer()), format!("{serve:?}"))
}

#[test]
fn every_key_is_taken_in_every_form() {
    for table in ["defaults", "serve"] {
        for key in keys(table) {
            let found = SAMPLES.iter().find(|sample| sample.key == key);
            let sample = found.unwrap_or_else(|| panic!("write a sample for {key}"));
            let rest = match (table, &*key) {
                ("serve", "http_address") => "http_port = 1\n".to_owned(),
                ("serve", _) => String::new(),
                (_, "host" | "db") => "[targets.a]\n".to_owned(),
                _ => format!("[targets.a]\nhost = \"{HOST}\"\n"),
            };
            for value in sample.file {
                let text = format!("[{table}]\n{key} = {value}\n{rest}");
                meant(&text).unwrap_or_else(|error| panic!("{text}\n→ {error}"));
            }
            every_form_is_typed(sample);
        }
    }
}

fn every_form_is_typed(sample: &Sample) {
    let flag = format!("--{}", sample.key.replace('_', "-"));
    let variable = format!("PGIAM_{}", sample.key.to_uppercase());
    let mut rest = words("pgiam serve");
    if sample.key == "http_address" {
        rest.push("--http-port=1".to_owned());
    }
    for value in sample.typed {
        let by_variable = typed(&rest, &[(variable.clone(), (*value).to_owned())]);
        let forms = [
            [&rest[..], &[flag.clone(), (*value).to_owned()]].concat(),
            [&rest[..], &[format!("{flag}={value}")]].concat(),
        ];
        let mut all = vec![settings(by_variable.unwrap())];
        for form in forms {
            let cli = typed(&form, &[]).unwrap_or_else(|error| panic!("{form:?}\n→ {error}"));
            all.push(settings(cli));
        }
        assert!(all.windows(2).all(|two| two[0] == two[1]), "{flag} {value}");
    }
    let is_switch = sample.typed.len() == SWITCH.1.len();
    if is_switch {
        let alone =
            settings(typed(&[&rest[..], std::slice::from_ref(&flag)].concat(), &[]).unwrap());
        let said = settings(typed(&[&rest[..], &[format!("{flag}=true")]].concat(), &[]).unwrap());
        assert_eq!(alone, said);
    }
    // A list may be given by several flags.
    if sample.file.iter().any(|value| value.starts_with('[')) {
        let (one, other) = match sample.key {
            "bastion" => ("i-1", "i-2"),
            "address" => ("127.0.0.1", "::1"),
            _ => ("a", "b"),
        };
        let several = format!("pgiam serve {flag} {one} {flag} {other}");
        typed(&words(&several), &[]).unwrap_or_else(|error| panic!("{several}\n→ {error}"));
    }
}

/// Returns the documents: path and text.
fn documents() -> Vec<(PathBuf, String)> {
    fn collect(path: &Path, all: &mut Vec<(PathBuf, String)>) {
        if path.is_dir() {
            let entries = std::fs::read_dir(path).unwrap();
            entries.for_each(|entry| collect(&entry.unwrap().path(), all));
        } else if let Ok(text) = std::fs::read_to_string(path) {
            all.push((path.to_owned(), text));
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    for part in [
        "README.md",
        "SECURITY.md",
        "docs",
        "deploy",
        "Dockerfile",
        "docker-compose.yml",
    ] {
        collect(&root.join(part), &mut all);
    }
    // Scripts are not documents: the template of a bastion, packaging and checks.
    all.retain(|(path, _)| path.extension().is_none_or(|end| end != "py"));
    assert!(all.len() > 15, "the documents are found");
    all
}

/// Returns the fenced blocks of a Markdown text, with the language after the fence.
fn blocks(text: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        let fence = line.trim_start().strip_prefix("```");
        match (&mut open, fence) {
            (None, Some(language)) => open = Some((language.trim().to_owned(), String::new())),
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some((_, body)), None) => {
                body.push_str(line);
                body.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

/// Returns the code spans of a Markdown text, without fenced blocks.
fn spans(text: &str) -> Vec<String> {
    let mut outside = true;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            outside = !outside;
        } else if outside {
            lines.push(line);
        }
    }
    let text = lines.join("\n").replace("\\|", "|");
    let spans = text.split('`').skip(1).step_by(2);
    spans.map(|span| span.replace('\n', " ")).collect()
}

#[test]
fn every_configuration_that_is_shown_can_be_meant() {
    let mut count = 0;
    for (path, text) in documents() {
        let in_yaml = text.split_once("pgiam.toml: |\n").map(|(_, rest)| {
            let lines = rest
                .lines()
                .take_while(|line| line.starts_with("    ") || line.is_empty());
            lines
                .map(|line| line.trim_start().to_owned() + "\n")
                .collect::<String>()
        });
        let shown = blocks(&text)
            .into_iter()
            .filter(|(language, _)| language == "toml");
        for toml in shown.map(|(_, body)| body).chain(in_yaml) {
            let tables = ["", "[defaults]\n", "[serve]\n"];
            let all = tables.map(|table| meant(&format!("{table}{toml}")));
            assert!(
                all.iter().any(Result::is_ok),
                "{}:\n{toml}\n{all:?}",
                path.display()
            );
            count += 1;
        }
    }
    assert!(count >= 3, "{count}");
}

#[test]
fn every_key_that_a_text_sets_can_be_meant() {
    let (of_targets, of_serve) = (keys("defaults"), keys("serve"));
    let mut count = 0;
    for (path, text) in documents() {
        for span in spans(&text) {
            let Some((key, value)) = span.split_once('=') else {
                continue;
            };
            let key = key.trim();
            let is_of_targets = of_targets.iter().any(|known| known == key);
            let is_known = is_of_targets || of_serve.iter().any(|known| known == key);
            // `host=DIR` is of libpq, and `…` is a placeholder.
            if !is_known || !span.contains(" = ") || value.contains('…') {
                continue;
            }
            let table = if is_of_targets { "defaults" } else { "serve" };
            meant(&format!("[{table}]\n{span}\n"))
                .unwrap_or_else(|error| panic!("{}: `{span}`\n→ {error}", path.display()));
            count += 1;
        }
    }
    assert!(count > 10, "{count}");
}

/// Splits a line into shell words up to the first operator or comment. `None` for a line with `…`, or
/// one that needs a shell.
fn shell_words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for c in line.chars() {
        match (quote, c) {
            (_, '…' | '$') => return None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), c) if c == open => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '|' | ';' | '&' | '>' | '<' | ')') => break,
            (None, '#') if word.is_none() => break,
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    Some(words)
}

/// Replaces placeholders for numbers and other formats with valid values; other placeholders are text.
fn filled_in(words: Vec<String>) -> Vec<String> {
    let value = |word: &str| {
        Some(match word {
            "PORT" => "5433",
            "N" | "SECONDS" => "5",
            "HOST:PORT" => "db.internal:3306",
            "SHELL" => "bash",
            "BOOL" => "true",
            "FORM" => "uri",
            "PID" => "4711",
            "IP" => "127.0.0.1",
            "ADDR:PORT" => "127.0.0.1:3306",
            _ => return None,
        })
    };
    let fill = |word: String| match word.split_once('=') {
        Some((flag, word)) => match value(word) {
            Some(value) => format!("{flag}={value}"),
            None => format!("{flag}={word}"),
        },
        None => value(&word).map_or(word, str::to_owned),
    };
    words.into_iter().map(fill).collect()
}

/// Returns true if words that begin with `pgiam` are a command line: a command or a flag follows, or
/// nothing. (In "pgiam on localhost", pgiam is a name.)
fn is_command(words: &[String]) -> bool {
    let definition = Cli::definition();
    match words.get(1) {
        None => words.len() == 1,
        Some(second) if second.starts_with('-') => true,
        Some(second) => definition.find_subcommand(second).is_some() || second == "help",
    }
}

/// Expands `a|b` in a line to one line per alternative.
fn alternatives(line: &str) -> Vec<String> {
    let Some(at) = line
        .split(' ')
        .position(|word| word.contains('|') && word.len() > 1)
    else {
        return vec![line.to_owned()];
    };
    let words: Vec<&str> = line.split(' ').collect();
    let each = words[at].split('|').map(|one| {
        let mut words = words.clone();
        words[at] = one;
        words.join(" ")
    });
    each.collect()
}

#[test]
fn every_command_that_is_shown_is_taken() {
    let mut count = 0;
    for (path, text) in documents() {
        let is_markdown = path.extension().is_some_and(|end| end == "md");
        let mut lines: Vec<String> = Vec::new();
        if is_markdown {
            lines.extend(spans(&text).iter().flat_map(|span| alternatives(span)));
            let blocks = blocks(&text).into_iter().map(|(_, body)| body);
            lines.extend(blocks.flat_map(|body| {
                let joined = body.replace("\\\n", " ");
                joined.lines().map(str::to_owned).collect::<Vec<_>>()
            }));
        } else {
            let exec = text
                .lines()
                .filter_map(|line| line.strip_prefix("ExecStart=/usr/bin/"));
            lines.extend(exec.map(str::to_owned));
        }
        for line in lines {
            let line = line.trim().trim_start_matches("$ ");
            if !(line == "pgiam" || line.starts_with("pgiam ")) {
                continue;
            }
            let Some(words) = shell_words(line).filter(|words| is_command(words)) else {
                continue;
            };
            if words.get(1).is_some_and(|word| word == "help") {
                continue;
            }
            match typed(&filled_in(words), &[]) {
                Ok(_) => count += 1,
                // `--help` and `--version` are not errors; a command without arguments is a name.
                Err(error) if error.contains("Usage:") && !error.starts_with("error:") => {}
                Err(error) if error.starts_with("pgiam ") => {}
                Err(error)
                    if error.contains("required arguments were not provided")
                        && line.split(' ').count() == 2 => {}
                Err(error) => panic!("{}: {line}\n→ {error}", path.display()),
            }
        }
    }
    assert!(count > 60, "{count}");
}

#[test]
fn every_variable_that_is_shown_is_known_and_its_value_taken() {
    let known = Cli::variables();
    let mut count = 0;
    for (path, text) in documents() {
        for (at, _) in text.match_indices("PGIAM_") {
            let rest = &text[at..];
            let end =
                rest.find(|c: char| !(c.is_ascii_uppercase() || c == '_' || c.is_ascii_digit()));
            let name = &rest[..end.unwrap_or(rest.len())];
            // `PGIAM_*`, and variables of an orchestrator.
            let is_open =
                name.ends_with('_') || name.contains("_SERVICE_") || name.contains("_TCP");
            if is_open {
                continue;
            }
            assert!(
                known.iter().any(|known| known == name),
                "{}: {name} is no variable of pgiam",
                path.display()
            );
            let rest = &rest[name.len()..];
            let signs = ["=", ": ", "\", \"value\": \""];
            let Some(value) = signs.iter().find_map(|sign| rest.strip_prefix(sign)) else {
                continue;
            };
            let value = value.trim_start_matches('"');
            let end = value.find(|c: char| c.is_whitespace() || "\"`,;)".contains(c));
            let value = &value[..end.unwrap_or(value.len())];
            let is_for_another = value.is_empty()
                || value.contains(['%', '…', '$'])
                || value.starts_with("...")
                || value.starts_with("tcp:")
                || name == crate::postgres::client::password_file::VARIABLE;
            if is_for_another {
                continue;
            }
            let value = filled_in(vec![value.to_owned()]).concat();
            let set = [(name.to_owned(), value)];
            typed(&words("pgiam serve"), &set)
                .unwrap_or_else(|error| panic!("{}: {set:?}\n→ {error}", path.display()));
            count += 1;
        }
    }
    assert!(count > 8, "{count}");
}

#[test]
fn every_list_of_arguments_in_deploy_is_taken() {
    let mut count = 0;
    for (path, text) in documents() {
        let mut all: Vec<Vec<String>> = Vec::new();
        // Kubernetes: a list with one argument per line.
        if let Some((_, rest)) = text.split_once("          args:\n") {
            let lines = rest.lines().map(str::trim);
            let lines = lines.take_while(|line| line.starts_with("- ") || line.starts_with('#'));
            let words = lines.filter_map(|line| line.strip_prefix("- "));
            all.push(
                words
                    .map(|word| word.replace("$(POD_IP)", "10.0.0.7"))
                    .collect(),
            );
        }
        // Docker and ECS: a list in JSON.
        for line in text.lines() {
            let line = line.trim();
            let list = line.strip_prefix("\"command\": ").or_else(|| {
                line.split_once("CMD [")
                    .map(|(_, list)| &line[line.len() - list.len() - 1..])
            });
            let Some(list) = list else { continue };
            let list = list.trim_end_matches([',', ' ']);
            let Ok(words) = serde_json::from_str::<Vec<String>>(list) else {
                continue;
            };
            let words: Vec<String> = words
                .into_iter()
                .filter(|word| word != "CMD" && word != "pgiam")
                .collect();
            all.push(words);
        }
        // launchd.
        if path.extension().is_some_and(|end| end == "plist") {
            let list = text
                .split_once("ProgramArguments")
                .map_or("", |(_, rest)| rest);
            let list = list.split_once("</array>").map_or("", |(list, _)| list);
            let words = list
                .split("<string>")
                .skip(1)
                .filter_map(|word| word.split_once('<'));
            all.push(words.skip(1).map(|(word, _)| word.to_owned()).collect());
        }
        for list in all.into_iter().filter(|list| !list.is_empty()) {
            let line = [words("pgiam"), list].concat();
            typed(&line, &[])
                .unwrap_or_else(|error| panic!("{}: {line:?}\n→ {error}", path.display()));
            count += 1;
        }
    }
    assert!(count >= 5, "{count}");
}
