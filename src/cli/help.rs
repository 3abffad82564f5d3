//! Help of a command on one screen: `-h` has the common flags, `--help` has all flags and examples.
//!
//! clap's own layout takes three lines or more for each flag, and some commands have forty. The
//! complete texts are in `docs/config.md` and in the manual pages.

use std::ffi::OsString;
use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command};
use console::measure_text_width;

use super::args::PROGRAM;
use super::terminal::{CODE, HEADING, styled};
use crate::base::markdown::{Line, wrapped};

/// Widest column of flags and commands; wider ones push their text to the right.
const LABELS: usize = 30;

/// Lines of a help that fit on a screen. In a longer one, each flag has one line.
const MOST: usize = 60;

/// Flags that few users need. `--help` names them only.
const SELDOM: &[&str] = &[
    "address",
    "hub-port",
    "socket-dir",
    "peer-check",
    "max-connections",
    "startup-timeout",
    "ca-file",
    "document",
    "sessions",
    "idle-timeout",
    "keep-alive",
    "connect-timeout",
    "dial-timeout",
    "auth",
    "login-timeout",
    "connection-limit",
    "ready",
    "ignore-startup-parameters",
    "dns-server",
    "http-address",
    "state-dir",
    "drain-timeout",
];

/// Texts of `-h`, and of a `--help` that is longer than a screen, for flags whose first sentence is
/// long.
const SHORT: &[(&str, &str)] = &[
    ("bastion", "Bastion: a managed node, or auto. Default: auto"),
    ("config", "Configuration file"),
    ("database", "Default database"),
    ("db", "RDS instance, Aurora cluster or RDS Proxy"),
    ("exit-when-idle", "Stop after this time without clients"),
    ("force", "Overwrite an existing file"),
    ("format", "Connection format. Default: uri"),
    ("host", "Database endpoint, or a CNAME for it"),
    ("http-port", "Port of the status page, health and metrics"),
    ("listen", "Local address and port"),
    ("login", "Log in to AWS: off, or browser. Default: off"),
    ("password-file", "File with the password of TCP clients"),
    ("profile", "AWS profile"),
    ("region", "AWS region"),
    ("test", "Log in to each target once, then serve"),
    ("user", "Database role"),
    ("warm", "Open the first session at startup"),
];

/// Extent of a help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HelpForm {
    /// `-h`.
    Short,
    /// `--help`, or `pgiam help COMMAND`.
    Long,
}

/// Returns the help that a command line asks for, in at most `width` columns.
pub(super) fn text(definition: &Command, words: &[OsString], width: usize) -> String {
    let mut root = definition.clone();
    root.build();
    let words: Vec<&str> = words.iter().filter_map(|word| word.to_str()).collect();
    let (mut command, mut form) = (&root, HelpForm::Long);
    for word in words.iter().skip(1).take_while(|word| **word != "--") {
        match *word {
            "help" => {}
            "--help" => break,
            short if is_short_help(short) => {
                form = HelpForm::Short;
                break;
            }
            word => {
                if let Some(below) = command.find_subcommand(word) {
                    command = below;
                }
            }
        }
    }
    let mut page = HelpPage {
        command,
        form,
        width,
        is_compact: form == HelpForm::Short,
    };
    let full = page.render();
    if full.lines().count() <= MOST {
        return full;
    }
    page.is_compact = true;
    page.render()
}

/// Returns true for `-h`, alone or among other short flags.
fn is_short_help(word: &str) -> bool {
    let flags = word.strip_prefix('-').unwrap_or_default();
    !flags.starts_with('-') && flags.contains('h')
}

struct HelpPage<'a> {
    command: &'a Command,
    form: HelpForm,
    width: usize,
    /// Each flag has one line.
    is_compact: bool,
}

impl HelpPage<'_> {
    fn render(&self) -> String {
        let mut page = String::new();
        let about = self.command.get_about().map(ToString::to_string);
        for line in wrapped(&about.unwrap_or_default(), "", self.width) {
            page.push_str(&line.plain());
            page.push('\n');
        }
        let usage = self.command.clone().render_usage();
        // Writing to a String cannot fail.
        _ = writeln!(page, "\n{}", usage.ansi().to_string().trim_end());
        self.push_rows(&mut page, "Arguments", &self.positionals());
        self.push_rows(&mut page, "Commands", &self.subcommands());
        let (common, seldom) = self.flags();
        let mut headings: Vec<&str> = Vec::new();
        for arg in &common {
            let heading = heading(arg);
            if !headings.contains(&heading) {
                headings.push(heading);
            }
        }
        for heading_of_rows in headings {
            let of_heading = common.iter().filter(|arg| heading(arg) == heading_of_rows);
            let rows: Vec<Row> = of_heading.map(|arg| self.flag_row(arg)).collect();
            self.push_rows(&mut page, heading_of_rows, &rows);
        }
        match self.form {
            HelpForm::Short => {
                let name = self.command.get_bin_name().unwrap_or("pgiam");
                let more = styled(CODE, format!("{name} --help"));
                _ = writeln!(page, "\nAll flags and examples: {more}");
            }
            HelpForm::Long => {
                self.push_seldom(&mut page, &seldom);
                if let Some(after) = self.command.get_after_help() {
                    let after = reflowed(after.to_string().trim_end(), self.width);
                    _ = writeln!(page, "\n{}", with_heading(&after));
                }
            }
        }
        page
    }

    fn positionals(&self) -> Vec<Row> {
        let all = self
            .command
            .get_positionals()
            .filter(|arg| !arg.is_hide_set());
        let row = |arg: &Arg| Row {
            label: arg.to_string(),
            text: self.text_of(arg),
            default: default_of(arg),
        };
        all.map(row).collect()
    }

    /// Returns the text of an argument.
    fn text_of(&self, arg: &Arg) -> String {
        let long = arg.get_long().unwrap_or_default();
        let short = SHORT.iter().find(|(flag, _)| *flag == long);
        match (self.form, short) {
            (_, Some((_, text))) if self.is_compact => (*text).to_owned(),
            _ => text_of(arg),
        }
    }

    fn subcommands(&self) -> Vec<Row> {
        let all = self.command.get_subcommands();
        let all = all.filter(|command| !command.is_hide_set());
        let row = |command: &Command| Row {
            label: command.get_name().to_owned(),
            text: command
                .get_about()
                .map(ToString::to_string)
                .unwrap_or_default(),
            default: None,
        };
        all.map(row).collect()
    }

    /// Returns the flags to describe, and those to name only.
    fn flags(&self) -> (Vec<&Arg>, Vec<&Arg>) {
        let all = self.command.get_arguments();
        let all = all.filter(|arg| !arg.is_positional() && !arg.is_hide_set());
        let is_seldom = |arg: &&Arg| arg.get_long().is_some_and(|long| SELDOM.contains(&long));
        let (seldom, mut common): (Vec<&Arg>, Vec<&Arg>) = all.partition(is_seldom);
        if self.form == HelpForm::Short {
            common.retain(|arg| heading(arg) != PROGRAM);
        }
        (common, seldom)
    }

    fn flag_row(&self, arg: &Arg) -> Row {
        // Long flags are below each other.
        let indent = if arg.get_short().is_some() {
            ""
        } else {
            "    "
        };
        let short = arg.get_short().map(|short| format!("-{short}, "));
        let label = match (arg.get_long(), short) {
            (Some(long), short) => {
                let value = arg.to_string();
                let value = value.find([' ', '[', '=']).map_or("", |at| &value[at..]);
                format!("{indent}{}--{long}{value}", short.unwrap_or_default())
            }
            (None, _) => arg.to_string(),
        };
        let text = self.text_of(arg);
        let default = default_of(arg).filter(|_| !text.contains(". Default: "));
        Row {
            label,
            text,
            default,
        }
    }

    fn push_rows(&self, page: &mut String, heading: &str, rows: &[Row]) {
        let widest = rows.iter().map(|row| measure_text_width(&row.label)).max();
        let Some(widest) = widest else { return };
        let column = widest.min(LABELS) + 4;
        _ = writeln!(page, "\n{}:", styled(HEADING, heading));
        for row in rows {
            let label = measure_text_width(&row.label);
            let gap = (column.saturating_sub(label + 2)).max(2);
            let first = self.width.saturating_sub(2 + label + gap);
            let label = styled(CODE, &row.label);
            _ = write!(page, "  {label}{}", " ".repeat(gap));
            let may_cut = self.is_compact && self.form == HelpForm::Long;
            if let Some(line) = row.one_line(first, may_cut) {
                _ = writeln!(page, "{line}");
                continue;
            }
            let lines = wrapped(&row.full(), &" ".repeat(column), self.width);
            let mut lines = lines.iter().map(Line::plain);
            let is_beside = 2 + measure_text_width(&row.label) + gap <= column;
            match lines.next() {
                Some(line) if is_beside => _ = writeln!(page, "{}", line.trim_start()),
                Some(line) => _ = writeln!(page, "\n{line}"),
                None => page.push('\n'),
            }
            for line in lines {
                _ = writeln!(page, "{line}");
            }
        }
    }

    /// Names the flags that few users need, several on a line.
    fn push_seldom(&self, page: &mut String, seldom: &[&Arg]) {
        if seldom.is_empty() {
            return;
        }
        let heading = styled(HEADING, "Further flags");
        _ = writeln!(page, "\n{heading} (docs/config.md, {}):", self.manual());
        let names = seldom.iter().filter_map(|arg| arg.get_long());
        let names: Vec<String> = names.map(|long| format!("--{long}")).collect();
        for line in wrapped(&names.join(" "), "  ", self.width) {
            _ = writeln!(page, "{}", styled(CODE, line.plain()));
        }
    }

    /// Returns the command that shows the manual page.
    fn manual(&self) -> String {
        let name = self.command.get_bin_name().unwrap_or("pgiam");
        format!("man {}", name.replace(' ', "-"))
    }
}

/// A flag or a command, and its text.
struct Row {
    label: String,
    text: String,
    default: Option<String>,
}

impl Row {
    fn full(&self) -> String {
        match &self.default {
            Some(default) => format!("{}. Default: {default}", self.text),
            None => self.text.clone(),
        }
    }

    /// Returns the text in one line, if it fits. `may_cut`: it may end with a clause. The default
    /// stays if there is room for it.
    fn one_line(&self, room: usize, may_cut: bool) -> Option<String> {
        let full = self.full();
        if measure_text_width(&full) <= room || !may_cut {
            return Some(full).filter(|full| measure_text_width(full) <= room);
        }
        let default = measure_text_width(&full) - measure_text_width(&self.text);
        let beside = room.checked_sub(default).filter(|left| *left >= room / 2);
        let beside = beside.and_then(|left| whole_clause(&self.text, left));
        match beside {
            Some(text) => Some(text + &full[self.text.len()..]),
            None => whole_clause(&self.text, room),
        }
    }
}

/// Returns the first sentence of a help, with the possible values.
fn text_of(arg: &Arg) -> String {
    if matches!(
        arg.get_action(),
        ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong
    ) {
        return "Print the common flags (-h), or all flags and examples (--help)".to_owned();
    }
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let mut text = help.split(". ").next().unwrap_or_default().to_owned();
    if arg.get_action().takes_values() && !arg.is_require_equals_set() {
        let values = arg.get_possible_values();
        let shown = values.iter().filter(|value| !value.is_hide_set());
        let names: Vec<&str> = shown.map(|value| value.get_name()).collect();
        if !names.is_empty() {
            _ = write!(text, ": {}", names.join(", "));
        }
    }
    text.trim_end_matches('.').to_owned()
}

/// Returns the default that the help names, or that the parser has.
fn default_of(arg: &Arg) -> Option<String> {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let named = help.rsplit_once(". Default: ");
    let named = named.map(|(_, value)| value.trim_end_matches('.').to_owned());
    named.or_else(|| {
        let of_parser = arg.get_default_values().first()?;
        let takes_value = arg.get_action().takes_values();
        takes_value.then(|| of_parser.to_string_lossy().into_owned())
    })
}

fn heading(arg: &Arg) -> &str {
    arg.get_help_heading().unwrap_or("Options")
}

/// Styles the first line, which is a heading.
fn with_heading(after: &str) -> String {
    match after.split_once('\n') {
        Some((first, rest)) if first.ends_with(':') => {
            format!("{}:\n{rest}", styled(HEADING, first.trim_end_matches(':')))
        }
        _ => after.to_owned(),
    }
}

/// Returns a text of one line, cut at the end of a clause if it is too long.
pub(crate) fn clause(text: &str, room: usize) -> String {
    let cut = || console::truncate_str(text, room, "…").into_owned();
    whole_clause(text, room).unwrap_or_else(cut)
}

/// Returns the clauses of a text that fit in one line; `None` if the first one does not.
fn whole_clause(text: &str, room: usize) -> Option<String> {
    if measure_text_width(text) <= room {
        return Some(text.to_owned());
    }
    let fitting = |ends: &[&str]| {
        let cuts = ends
            .iter()
            .flat_map(|end| text.match_indices(end).map(|(at, _)| at));
        cuts.filter(|at| measure_text_width(&text[..*at]) <= room)
            .max()
    };
    // A part of a second sentence would be no sense.
    let end = fitting(&[". ", "; "]).or_else(|| fitting(&[": ", " (", ", "]))?;
    Some(text[..end].to_owned())
}

/// Wraps the text below the flags, which is written for 80 columns. Commands stay whole.
fn reflowed(text: &str, width: usize) -> String {
    if text.lines().all(|line| measure_text_width(line) <= width) {
        return text.to_owned();
    }
    let (mut lines, mut sentences) = (Vec::new(), String::new());
    for line in text.lines() {
        let is_prose = !line.is_empty() && !line.starts_with(' ');
        if is_prose {
            sentences = format!("{sentences} {line}");
        }
        if !sentences.is_empty() && (!is_prose || line.ends_with([':', '.'])) {
            let wrapped = wrapped(sentences.trim(), "", width);
            lines.extend(wrapped.iter().map(Line::plain));
            sentences.clear();
        }
        if !is_prose {
            lines.extend(example(line, width));
        }
    }
    lines.extend(wrapped(sentences.trim(), "", width).iter().map(Line::plain));
    lines.join("\n").trim_end().to_owned()
}

/// Returns a line with a command. A description that does not fit stands below it.
fn example(line: &str, width: usize) -> Vec<String> {
    let command = line.trim_start();
    match command.split_once("  ") {
        Some((command, text)) if measure_text_width(line) > width => {
            let mut lines = vec![format!("  {command}")];
            let text = wrapped(text.trim(), "      ", width);
            lines.extend(text.iter().map(Line::plain));
            lines
        }
        // The second line of a description.
        None if measure_text_width(line) > width && line.len() - command.len() > 2 => {
            let text = wrapped(command, "      ", width);
            text.iter().map(Line::plain).collect()
        }
        _ => vec![line.to_owned()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;

    /// Terminal of the bound.
    const WIDTH: usize = 100;
    fn page(words: &str) -> String {
        page_in(words, WIDTH)
    }

    fn page_in(words: &str, width: usize) -> String {
        let words: Vec<OsString> = words.split(' ').map(OsString::from).collect();
        let text = text(&Cli::definition(), &words, width);
        anstream::adapter::strip_str(&text).to_string()
    }

    #[test]
    fn no_text_is_cut_at_any_width() {
        for command in all_commands() {
            for width in [60, 80, WIDTH] {
                for form in ["-h", "--help"] {
                    let page = page_in(&format!("{command} {form}"), width);
                    for line in page.lines() {
                        // Commands to copy stay whole.
                        let is_example = line.starts_with("  ") && line.contains("pgiam ");
                        let fits = measure_text_width(line) <= width;
                        assert!(fits || is_example, "{command} {form} at {width}: {line}");
                        // `i-…` is a value.
                        let is_cut = !is_example && (line.ends_with('…') || line.contains("…. "));
                        assert!(!is_cut, "{command} {form} at {width}: {line}");
                    }
                    let is_short = form == "-h";
                    assert!(
                        !is_short || !page.contains('…'),
                        "{command} at {width}:\n{page}"
                    );
                }
            }
        }
    }

    /// Returns the command lines of all commands, with `pgiam` itself.
    fn all_commands() -> Vec<String> {
        fn collect(command: &Command, line: &str, all: &mut Vec<String>) {
            all.push(line.to_owned());
            let below = command
                .get_subcommands()
                .filter(|below| !below.is_hide_set());
            for below in below.filter(|below| below.get_name() != "help") {
                collect(below, &format!("{line} {}", below.get_name()), all);
            }
        }
        let mut all = Vec::new();
        collect(&Cli::definition(), "pgiam", &mut all);
        all
    }

    #[test]
    fn every_help_fits_on_a_screen_and_the_short_one_is_shorter() {
        for command in all_commands() {
            let (short, long) = (
                page(&format!("{command} -h")),
                page(&format!("{command} --help")),
            );
            let lines = (short.lines().count(), long.lines().count());
            assert!(
                lines.1 <= MOST,
                "{command} --help: {} lines\n{long}",
                lines.1
            );
            assert!(lines.0 < lines.1, "{command}: {lines:?}\n{short}");
            for line in short.lines().chain(long.lines()) {
                assert!(measure_text_width(line) <= WIDTH, "{command}: {line}");
                assert_eq!(line, line.trim_end(), "{command}");
            }
        }
    }

    #[test]
    fn every_flag_is_in_the_long_help() {
        for command in all_commands() {
            let long = page(&format!("{command} --help"));
            let mut of = &Cli::definition();
            let definition = of.clone();
            of = &definition;
            for word in command.split(' ').skip(1) {
                of = of.find_subcommand(word).unwrap();
            }
            for arg in of.get_arguments().filter(|arg| !arg.is_hide_set()) {
                let Some(flag) = arg.get_long() else { continue };
                assert!(
                    long.contains(&format!("--{flag}")),
                    "{command}: {flag}\n{long}"
                );
            }
        }
        for flag in SELDOM {
            let serve = page("pgiam serve --help");
            assert!(serve.contains(&format!("--{flag}")), "{flag} is no flag");
        }
    }

    #[test]
    fn forms_are_told_apart() {
        assert_eq!(page("pgiam help serve"), page("pgiam serve --help"));
        assert_eq!(page("pgiam serve -p 1 -h"), page("pgiam serve -h"));
        assert_eq!(page("pgiam setup"), page("pgiam setup --help"));
        assert_eq!(page("pgiam help setup sql"), page("pgiam setup sql --help"));
        assert_ne!(page("pgiam serve -h"), page("pgiam serve --help"));
    }

    #[test]
    fn helps_as_users_see_them() {
        insta::assert_snapshot!("serve-short", page("pgiam serve -h"));
    }

    #[test]
    fn long_texts_end_with_a_clause() {
        assert_eq!(
            clause("Local port; 0 lets the system choose", 20),
            "Local port"
        );
        assert_eq!(clause("Local port", 20), "Local port");
        assert_eq!(clause("Log in; if it fails, end", 20), "Log in");
        assert_eq!(clause("Unbreakable text", 10), "Unbreakab…");
    }
}
