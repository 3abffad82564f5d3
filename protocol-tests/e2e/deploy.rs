//! The files for operations ask the program for nothing that it does not have.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use pgiam::platform::service_manager::{InstallPlan, ServiceSpec, launchd, systemd, tasks};

use crate::support;

#[test]
fn deploy_files_name_real_commands_flags_and_variables() {
    let check = Path::new(env!("CARGO_MANIFEST_DIR")).join("protocol-tests/judges/deploy/check.py");
    let run = Command::new("python3")
        .arg(check)
        .arg(support::pgiam())
        .output();
    match run {
        Ok(run) => assert!(
            run.status.success(),
            "{}",
            String::from_utf8_lossy(&run.stderr)
        ),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("SKIPPED: there is no python3");
        }
        Err(error) => panic!("python3: {error}"),
    }
}

/// A service with words that each format has to quote.
fn hostile() -> ServiceSpec {
    let words = ["serve", "--user", "a \"b\" 'c' $HOME %h <d> & \\e;"];
    ServiceSpec {
        program: "/bin/true".to_owned(),
        arguments: words.map(str::to_owned).to_vec(),
        environment: [("AWS_PROFILE".to_owned(), "x \"y\" 100% <z> & \\".to_owned())].into(),
        directory: Some("/tmp".to_owned()),
        drain_timeout: 5,
        sockets: None,
    }
}

/// Runs a Python program on the first file of an installation; `None` without Python.
fn python(program: &str, plan: &InstallPlan) -> Option<String> {
    let run = Command::new("python3")
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut run = run.ok()?;
    let mut input = run.stdin.take().expect("a pipe");
    input
        .write_all(plan.files[0].text.as_bytes())
        .expect("it reads");
    drop(input);
    let output = run.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{output:?}");
    Some(String::from_utf8(output.stdout).expect("text"))
}

#[test]
fn systemd_accepts_the_units_of_the_service() {
    let dir = tempfile::tempdir().expect("a directory");
    for sockets in [
        None,
        Some(vec![
            "127.0.0.1:5433".to_owned(),
            "%t/pgiam/.s.PGSQL.5433".to_owned(),
        ]),
    ] {
        let spec = ServiceSpec {
            sockets,
            ..hostile()
        };
        let plan = systemd::plan(&spec, dir.path());
        for file in &plan.files {
            file.write().expect("a unit");
        }
        let units = plan.files.iter().map(|file| &file.path);
        let run = Command::new("systemd-analyze")
            .args(["--user", "--man=no", "verify"])
            .args(units)
            .env("XDG_RUNTIME_DIR", dir.path())
            .output();
        let Ok(run) = run else {
            println!("SKIPPED: there is no systemd-analyze");
            return;
        };
        let said = String::from_utf8_lossy(&run.stderr);
        let about_ours: Vec<&str> = said.lines().filter(|line| line.contains("pgiam")).collect();
        assert!(about_ours.is_empty() && run.status.success(), "{run:?}");
    }
}

#[test]
fn a_property_list_has_the_words_as_they_are() {
    let spec = hostile();
    let plan = launchd::plan(&spec, Path::new("/Users/a & b"), 501);
    let program = "import json, plistlib, sys; d = plistlib.loads(sys.stdin.buffer.read()); print(json.dumps([d['ProgramArguments'], d['EnvironmentVariables']['AWS_PROFILE'], d['StandardErrorPath'], d['WorkingDirectory']]))";
    let Some(read) = python(program, &plan) else {
        println!("SKIPPED: there is no python3");
        return;
    };
    let read: serde_json::Value = serde_json::from_str(&read).expect("JSON");
    let mut words = vec![spec.program.clone()];
    words.extend(spec.arguments.clone());
    let expected = serde_json::json!([
        words,
        spec.environment["AWS_PROFILE"],
        "/Users/a & b/Library/Logs/pgiam.log",
        "/tmp"
    ]);
    assert_eq!(read, expected);
}

#[test]
fn a_task_is_xml_with_one_command() {
    let plan = tasks::plan(&hostile(), Path::new(r"C:\Users\me"), r"CORP\me & you");
    assert!(plan.files[0].is_utf16);
    let program = "import re, sys, xml.etree.ElementTree as E\ntext = sys.stdin.buffer.read().decode()\nroot = E.fromstring(re.sub(' encoding=\"UTF-16\"', '', text, count=1))\nfor name in ['UserId', 'Arguments']:\n    print(next(root.iter('{http://schemas.microsoft.com/windows/2004/02/mit/task}' + name)).text)";
    let Some(read) = python(program, &plan) else {
        println!("SKIPPED: there is no python3");
        return;
    };
    insta::assert_snapshot!("task", read);
}
