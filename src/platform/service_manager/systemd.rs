//! systemd: user units, and sockets for a start on demand.

use std::fmt::Write;
use std::path::Path;

use super::{InstallPlan, PlannedFile, ServiceSpec, mark, replaced, seal, words};

/// Name of the unit.
pub const SERVICE: &str = "pgiam.service";
/// Name of the socket unit.
pub const SOCKET: &str = "pgiam.socket";

/// Unit of the Debian package.
const TEMPLATE: &str = include_str!("../../../deploy/systemd/pgiam.service");
/// Seconds beyond the drain timeout before systemd kills the process.
const MARGIN: u64 = 15;

/// Returns the installation in `dir`, the directory of the user's units.
#[must_use]
pub fn plan(spec: &ServiceSpec, dir: &Path) -> InstallPlan {
    let file = |name: &str, text: &str| PlannedFile {
        path: dir.join(name),
        text: seal(text),
        is_utf16: false,
    };
    let mut plan = InstallPlan {
        files: vec![file(SERVICE, &service(spec))],
        ..InstallPlan::default()
    };
    match &spec.sockets {
        Some(sockets) => {
            plan.files.push(file(SOCKET, &socket(sockets)));
            // A socket unit cannot start while its service has the ports.
            plan.before = vec![
                words("systemctl --user disable --now pgiam.service"),
                words("systemctl --user stop pgiam.socket"),
            ];
            plan.after = vec![
                words("systemctl --user daemon-reload"),
                words("systemctl --user enable --now pgiam.socket"),
            ];
        }
        None => {
            plan.obsolete = vec![dir.join(SOCKET)];
            plan.before = vec![words("systemctl --user disable --now pgiam.socket")];
            plan.after = vec![
                words("systemctl --user daemon-reload"),
                words("systemctl --user enable pgiam.service"),
                words("systemctl --user restart pgiam.service"),
            ];
        }
    }
    plan
}

/// Returns the unit of the service.
fn service(spec: &ServiceSpec) -> String {
    let mut header = format!("# {}\n", mark());
    header.push_str(
        "#\n# pgiam service uninstall removes this file, and a new installation replaces it. Put settings\n# of your own into a drop-in: systemctl --user edit pgiam\n\n[Unit]\n",
    );
    let mut text = replaced(TEMPLATE, "# User unit", "[Unit]\n", &header);
    let mut start = String::from("ExecStart=");
    start.push_str(&quoted(&spec.program, false));
    for argument in &spec.arguments {
        start.push(' ');
        start.push_str(&quoted(argument, true));
    }
    start.push('\n');
    for (name, value) in &spec.environment {
        // Writing to a String cannot fail.
        _ = writeln!(
            start,
            "Environment={}",
            quoted(&format!("{name}={value}"), false)
        );
    }
    if let Some(directory) = &spec.directory {
        _ = writeln!(start, "WorkingDirectory={}", directory.replace('%', "%%"));
    }
    text = replaced(&text, "ExecStart=", "\n", &start);
    let stop = format!("TimeoutStopSec={}\n", spec.drain_timeout + MARGIN);
    text = replaced(&text, "TimeoutStopSec=", "\n", &stop);
    if spec.sockets.is_some() {
        // With a limit: a client that waits would restart an invalid configuration forever.
        let without = "Requires=pgiam.socket\nAfter=pgiam.socket\n";
        text = replaced(&text, "# Restart without", "Sec=0\n", without);
        text = replaced(&text, "\n[Install]", "target\n", "");
    }
    text
}

/// Returns the unit of the sockets.
fn socket(sockets: &[String]) -> String {
    let mut listen = String::new();
    for socket in sockets {
        let socket = match socket.strip_prefix("%t/") {
            Some(rest) => format!("%t/{}", rest.replace('%', "%%")),
            None => socket.replace('%', "%%"),
        };
        _ = writeln!(listen, "ListenStream={socket}");
    }
    format!(
        "# {mark}
#
# The first client of one of these sockets starts pgiam.service.

[Unit]
Description=Sockets of the local PostgreSQL proxy with AWS IAM login
Documentation=man:pgiam(1)

[Socket]
{listen}BindIPv6Only=ipv6-only
Backlog=1024
SocketMode=0600
DirectoryMode=0700
RemoveOnStop=yes

[Install]
WantedBy=sockets.target
",
        mark = mark()
    )
}

/// Quotes a word for a unit (systemd.syntax(7), systemd.service(5) "Command lines"). `expands`: the
/// place expands variables.
fn quoted(word: &str, expands: bool) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/-_.:=+,@~".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    let mut text = String::from('"');
    for c in word.chars() {
        match c {
            '"' | '\\' => {
                text.push('\\');
                text.push(c);
            }
            '%' => text.push_str("%%"),
            '$' if expands => text.push_str("$$"),
            '\n' => text.push_str("\\n"),
            '\t' => text.push_str("\\t"),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}
