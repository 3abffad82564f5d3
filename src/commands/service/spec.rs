//! The service to install: program, configuration and variables.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail};

use super::manager::Manager;
use crate::base::environment;
use crate::base::quote::shown;
use crate::cli::{Cli, ServeArgs, ServiceInstallArgs};
use crate::commands::reload::LoadedConfiguration;
use crate::config::{ServeSettings, SocketDir};
use crate::platform::peer;
use crate::platform::service_manager::ServiceSpec;
use crate::postgres::client::password_file;

/// Seconds without clients after which a pgiam that was started on demand ends.
const IDLE: u64 = 1800;

/// Variables of AWS and of proxies that a service needs as well. None is a secret.
const KEPT: [&str; 31] = [
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_CONFIG_FILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CA_BUNDLE",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ENDPOINT_URL",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_USE_FIPS_ENDPOINT",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_STS_REGIONAL_ENDPOINTS",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
    "AWS_EC2_METADATA_V1_DISABLED",
    "AWS_MAX_ATTEMPTS",
    "AWS_RETRY_MODE",
    "AWS_SDK_UA_APP_ID",
    "HTTPS_PROXY",
    "https_proxy",
    "HTTP_PROXY",
    "http_proxy",
    "ALL_PROXY",
    "NO_PROXY",
    "no_proxy",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];

/// Secrets, which are not written to a file of the service.
const SECRET: [&str; 4] = [
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    password_file::VARIABLE,
];

/// A service that can be installed, and remarks about it.
pub(super) struct Prepared {
    pub(super) spec: ServiceSpec,
    pub(super) args: ServeArgs,
    pub(super) configured: LoadedConfiguration,
    pub(super) notes: Vec<String>,
}

/// Prepares the service from the command line, the configuration in use and the environment.
///
/// # Errors
/// An invalid configuration, or one that cannot be served on demand.
pub(super) fn prepare(args: &ServiceInstallArgs, manager: &Manager) -> anyhow::Result<Prepared> {
    let mut words: Vec<OsString> = vec!["pgiam".into(), "serve".into()];
    if let Some(config) = &args.program.config {
        words.extend(["--config".into(), config.into()]);
    }
    words.extend(args.serve.iter().cloned());
    let serve = Cli::serve_args(words);
    let configured = LoadedConfiguration::load(&serve)?;
    configured.valid_targets()?;
    let mut notes = Vec::new();
    let program = program()?;
    notes.extend(passing(&program));
    notes.extend(of_root(peer::own_uid()));
    let mut arguments = vec!["serve".to_owned()];
    if let Some(file) = &configured.file {
        let file = std::path::absolute(file).unwrap_or_else(|_| file.clone());
        arguments.extend(["--config".to_owned(), text(file.into_os_string())?]);
    }
    for word in without_config(&args.serve) {
        arguments.push(text(word)?);
    }
    let sockets = match args.on_demand {
        true => Some(sockets(manager, &configured)?),
        false => None,
    };
    if sockets.is_some() && serve.exit_when_idle.is_none() {
        arguments.extend(["--exit-when-idle".to_owned(), IDLE.to_string()]);
    }
    let (environment, left) = variables(environment::all());
    notes.extend(about_secrets(&left));
    let directory = match args.serve.is_empty() {
        true => None,
        false => std::env::current_dir().ok().map(PathBuf::into_os_string),
    };
    let spec = ServiceSpec {
        program: text(program.into_os_string())?,
        arguments,
        environment,
        directory: directory.map(text).transpose()?,
        drain_timeout: serve.drain.drain_timeout,
        sockets,
    };
    Ok(Prepared {
        spec,
        args: serve,
        configured,
        notes,
    })
}

fn text(word: OsString) -> anyhow::Result<String> {
    word.into_string().map_err(|word| {
        anyhow!(
            "{} is not valid UTF-8, as the file of a service has to be",
            shown(Path::new(&word))
        )
    })
}

/// Returns the arguments without `--config`, which is there with an absolute path.
fn without_config(words: &[OsString]) -> Vec<OsString> {
    let mut kept = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--config" {
            words.next();
        } else if !word.to_string_lossy().starts_with("--config=") {
            kept.push(word.clone());
        }
    }
    kept
}

/// Returns the path of this program. One on the search path is preferred to the file that a link
/// there points to: package managers replace the link, and remove the file.
fn program() -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("cannot find this program")?;
    let real = std::fs::canonicalize(&own).unwrap_or_else(|_| own.clone());
    let name = own.file_name().unwrap_or_default();
    let mut candidates = environment::search_path()
        .into_iter()
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name));
    let found = candidates.find(|path| std::fs::canonicalize(path).is_ok_and(|path| path == real));
    Ok(found.unwrap_or(own))
}

/// Returns a remark about a program at a path that may vanish.
fn passing(program: &Path) -> Option<String> {
    let path = program.to_string_lossy();
    let is_build = ["/target/debug/", "/target/release/"]
        .iter()
        .any(|part| path.replace('\\', "/").contains(part));
    let is_temporary = ["/tmp", "/var/tmp", "/private/tmp", "/dev/shm"]
        .iter()
        .any(|dir| program.starts_with(dir))
        || program.starts_with(std::env::temp_dir());
    (is_build || is_temporary || path.ends_with(" (deleted)")).then(|| {
        format!(
            "the service runs {path}, which may not last; install pgiam first, for example to ~/.local/bin"
        )
    })
}

/// Returns a remark about a service of root, whose user id is 0.
fn of_root(uid: Option<u32>) -> Option<String> {
    (uid == Some(0)).then(|| {
        "the service runs as root: it uses the AWS profiles of root, and serves only clients of root; for another account, log in as that account and install it there".to_owned()
    })
}

/// Returns the variables for the service, and the names of those that are left out.
fn variables(
    all: impl Iterator<Item = (String, String)>,
) -> (BTreeMap<String, String>, Vec<String>) {
    let settings: BTreeSet<String> = Cli::variables().into_iter().collect();
    let (mut kept, mut left) = (BTreeMap::new(), BTreeSet::new());
    for (name, value) in all.filter(|(_, value)| !value.is_empty()) {
        let is_kept = KEPT.contains(&name.as_str())
            || name.starts_with("AWS_ENDPOINT_URL_")
            || (settings.contains(&name) && name != "PGIAM_CONFIG");
        let is_proxy = name.to_lowercase().ends_with("_proxy");
        // http://user:password@proxy
        let is_secret = SECRET.contains(&name.as_str()) || (is_proxy && value.contains('@'));
        if is_secret {
            left.insert(name);
        } else if is_kept && !value.contains(['\n', '\r', '\0']) {
            kept.insert(name, value);
        }
    }
    (kept, left.into_iter().collect())
}

/// Returns remarks about the variables that the service does not get.
fn about_secrets(left: &[String]) -> Vec<String> {
    let named = |prefix: &str| {
        let names: Vec<&str> = left
            .iter()
            .map(String::as_str)
            .filter(|name| name.starts_with(prefix))
            .collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    let aws = named("AWS_").map(|names| {
        format!(
            "the service does not get {names}, because no file may contain these; use a profile"
        )
    });
    let password = named("PGIAM_").map(|name| {
        format!(
            "the service does not get {name}; write the password to a file and set password_file"
        )
    });
    let proxies = left
        .iter()
        .filter(|name| name.to_lowercase().ends_with("_proxy"));
    let proxies = proxies
        .map(|name| format!("the service does not get {name}, because it contains a password"));
    aws.into_iter().chain(password).chain(proxies).collect()
}

/// Returns the addresses and paths on which the manager listens.
fn sockets(manager: &Manager, configured: &LoadedConfiguration) -> anyhow::Result<Vec<String>> {
    if !matches!(manager, Manager::Systemd { .. }) {
        bail!("--on-demand needs systemd; without it, pgiam starts at login");
    }
    let serve = &configured.serve;
    let mut ports: BTreeSet<u16> = serve.hub_port.into_iter().collect();
    for target in configured.valid_targets()? {
        match target.settings.local_port {
            0 => bail!(
                "target \"{}\" has port = 0, and --on-demand needs a fixed port\nhint: set port for this target",
                target.name
            ),
            port => ports.insert(port),
        };
    }
    if ports.contains(&0) {
        bail!("hub_port = 0, and --on-demand needs a fixed port\nhint: set hub_port");
    }
    Ok(addresses(serve, &ports, is_here))
}

/// Returns the addresses and paths for these ports. `is_here` tells whether this machine has an
/// address.
fn addresses(
    serve: &ServeSettings,
    ports: &BTreeSet<u16>,
    is_here: impl Fn(IpAddr) -> bool,
) -> Vec<String> {
    let mut all = Vec::new();
    for port in ports {
        for address in &serve.addresses {
            match address.to_canonical() {
                IpAddr::V4(address) => all.push(format!("{address}:{port}")),
                IpAddr::V6(address) if is_here(address.into()) => {
                    all.push(format!("[{address}]:{port}"));
                }
                IpAddr::V6(_) => {}
            }
        }
        match &serve.socket_dir {
            SocketDir::None => {}
            SocketDir::Default => all.push(format!("%t/pgiam/.s.PGSQL.{port}")),
            SocketDir::At(dir) => {
                let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.clone());
                all.push(format!("{}/.s.PGSQL.{port}", dir.display()));
            }
        }
    }
    all
}

/// Returns true if this machine has the address: IPv6 may be disabled.
fn is_here(address: IpAddr) -> bool {
    std::net::UdpSocket::bind((address, 0)).is_ok()
}

#[cfg(test)]
mod tests;
