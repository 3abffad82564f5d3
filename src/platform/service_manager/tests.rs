//! The texts of the files, and the seal.

use super::*;

fn spec() -> ServiceSpec {
    let variables = [
        ("AWS_PROFILE", "dev"),
        ("AWS_CONFIG_FILE", "/home/o'neil/my \"aws\"/100%"),
    ];
    ServiceSpec {
        program: "/opt/my tools/pgiam".to_owned(),
        arguments: [
            "serve",
            "--config",
            "/home/o'neil/$HOME/c.toml",
            "--user",
            "a\\b%h",
        ]
        .map(str::to_owned)
        .to_vec(),
        environment: variables
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        directory: Some("/home/o'neil/100%".to_owned()),
        drain_timeout: 60,
        sockets: None,
    }
}

/// Returns all files of an installation, for a snapshot.
fn files(plan: &InstallPlan) -> String {
    let each = plan
        .files
        .iter()
        .map(|file| format!("== {}\n{}", file.path.display(), file.text));
    let commands = plan
        .before
        .iter()
        .map(|line| format!("before: {}", line.join(" ")));
    let commands = commands.chain(
        plan.after
            .iter()
            .map(|line| format!("after: {}", line.join(" "))),
    );
    let obsolete = plan
        .obsolete
        .iter()
        .map(|path| format!("obsolete: {}", path.display()));
    let all: Vec<String> = each.chain(obsolete).chain(commands).collect();
    // The sum changes with every letter.
    let text = all.join("\n");
    let at = text.find(MARK).unwrap() + MARK.len();
    assert_ne!(&text[at..at + EMPTY.len()], EMPTY);
    text.lines()
        .map(|line| match line.split_once(MARK) {
            Some((before, rest)) => format!("{before}{MARK}{}", &rest[EMPTY.len()..]),
            None => line.to_owned(),
        })
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn a_user_unit() {
    insta::assert_snapshot!(files(&systemd::plan(&spec(), Path::new("/units"))));
}

#[test]
fn units_for_a_start_on_demand() {
    let sockets = [
        "127.0.0.1:5433",
        "[::1]:5433",
        "%t/pgiam/.s.PGSQL.5433",
        "/run/100%/.s.PGSQL.5433",
    ];
    let spec = ServiceSpec {
        sockets: Some(sockets.map(str::to_owned).to_vec()),
        ..spec()
    };
    insta::assert_snapshot!(files(&systemd::plan(&spec, Path::new("/units"))));
}

#[test]
fn an_agent() {
    insta::assert_snapshot!(files(&launchd::plan(&spec(), Path::new("/Users/a&b"), 501)));
}

#[test]
fn the_state_of_an_agent() {
    // Cut from what launchctl prints on macOS 14 for an agent of Homebrew.
    let text = "gui/501/pgiam = {\n\tactive count = 1\n\tpath = /Users/me/Library/LaunchAgents/pgiam.plist\n\ttype = LaunchAgent\n\tstate = running\n\n\tprogram = /usr/local/bin/pgiam\n\targuments = {\n\t\tstate = no\n\t}\n\n\tdomain = gui/501 [100005]\n\tminimum runtime = 10\n\texit timeout = 20\n\truns = 3\n\tpid = 1094\n\tlast exit code = 1\n\n\tspawn type = interactive (4)\n\tendpoints = {\n\t\t\"x\" = {\n\t\t\tpid = 7\n\t\t}\n\t}\n}\n";
    let state = launchd::AgentState::parse(text);
    assert!(state.is_running());
    assert_eq!((state.pid, state.runs), (Some(1094), Some(3)));
    assert_eq!(state.last_exit.as_deref(), Some("1"));
    let ended = launchd::AgentState::parse("\tstate = not running\n\tpid = ?\n");
    assert!(!ended.is_running());
    assert_eq!(ended.pid, None);
    assert_eq!(
        launchd::AgentState::parse(""),
        launchd::AgentState::default()
    );
}

#[test]
fn arguments_of_a_task_are_those_of_the_program() {
    let mut spec = spec();
    spec.environment.clear();
    spec.directory = None;
    spec.arguments = ["serve", "", "a b", r"C:\dir with blank\", "it's \"x\""]
        .map(str::to_owned)
        .to_vec();
    let plan = tasks::plan(&spec, Path::new(r"C:\s"), "me");
    let text = &plan.files[0].text;
    // Each layer of quotes: of the command line, of PowerShell, of its own command line, and of XML.
    let expected = r#"-ArgumentList 'serve \&quot;\&quot; \&quot;a b\&quot; \&quot;C:\dir with blank\\\\\&quot; \&quot;it''s \\\&quot;x\\\&quot;\&quot;'"#;
    assert!(text.contains(expected), "{text}");
}

#[test]
fn a_task_at_logon() {
    let mut spec = spec();
    spec.program = r"C:\Program Files\pgiam\pgiam.exe".to_owned();
    let plan = tasks::plan(&spec, Path::new(r"C:\Users\o'neil"), r"CORP\o'neil");
    insta::assert_snapshot!(files(&plan));
}

#[test]
fn every_part_of_the_templates_is_found() {
    for (template, parts) in [
        (
            include_str!("../../../deploy/systemd/pgiam.service"),
            &[
                "# User unit",
                "[Unit]\n",
                "ExecStart=",
                "TimeoutStopSec=",
                "# Restart without",
                "Sec=0\n",
                "\n[Install]",
            ][..],
        ),
        (
            include_str!("../../../deploy/launchd/pgiam.plist"),
            &[
                "<!-- To install",
                "<key>ProgramArguments</key>",
                "<key>EnvironmentVariables</key>",
                "<key>ExitTimeOut</key>",
                "@HOME@",
            ],
        ),
        (
            include_str!("../../../deploy/windows/pgiam.xml"),
            &["<!-- To install", "@USER@", "@COMMAND@"],
        ),
    ] {
        for part in parts {
            assert!(template.contains(part), "{part}");
        }
    }
}

#[test]
fn a_changed_file_is_told_from_ours_and_from_others() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path().join("new");
    for is_utf16 in [false, true] {
        let file = PlannedFile {
            path: dir.join(format!("file-{is_utf16}")),
            text: seal(&format!("<!-- {} -->\nö and more\n", mark())),
            is_utf16,
        };
        assert_eq!(origin(&file.path).unwrap().0, FileOrigin::Missing);
        file.write().unwrap();
        assert_eq!(
            origin(&file.path).unwrap(),
            (FileOrigin::Ours, file.text.clone())
        );
        let changed = PlannedFile {
            text: file.text.replace("more", "mare"),
            ..file.clone()
        };
        changed.write().unwrap();
        assert_eq!(origin(&file.path).unwrap().0, FileOrigin::Changed);
        std::fs::write(&file.path, "[Unit]\n").unwrap();
        assert_eq!(origin(&file.path).unwrap().0, FileOrigin::Foreign);
        file.write().unwrap();
        #[cfg(unix)]
        {
            let link = dir.join("link");
            _ = std::fs::remove_file(&link);
            std::os::unix::fs::symlink(&file.path, &link).unwrap();
            assert_eq!(origin(&link).unwrap().0, FileOrigin::Foreign, "a link");
        }
    }
    // Nothing is left of the temporary names.
    assert!(std::fs::read_dir(&dir).unwrap().count() <= 3);
    for cut in [MARK, "Written by pgiam service install, checksum 1234"] {
        assert_eq!(origin_of(cut), FileOrigin::Changed, "{cut}");
    }
}
