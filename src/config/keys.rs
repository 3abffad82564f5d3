//! The list of configuration keys. Flags, `PGIAM_*` variables, the keys of the file, their layering
//! and `docs/config.md` come from it.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};

use super::{SocketDir, WrittenBastion, WrittenRelay, forms};
use crate::base::names::Region;

/// Defines a table of the configuration file, and the flags for its keys.
///
/// Each key is written once: its help, its flag, its name and type, and its default if that is a
/// constant.
///
/// ```ignore
/// keys! {
///     /// One layer of the table.
///     pub struct Layer, defaults in Defaults;
///
///     /// Flags that some commands take.
///     pub struct GroupFlags in "Heading in --help" {
///         /// Help of the flag, and meaning of the key in `docs/config.md`.
///         #[arg(env = "PGIAM_SOME_KEY", value_name = "SECONDS")]
///         some_key: u64 = 30,
///     }
/// }
/// ```
///
/// - `Layer` has a field `some_key: Option<u64>`, which serde reads from the file; other keys are an
///   error. `Layer::or` merges two layers.
/// - `GroupFlags` are the flags of one group for clap, here `--some-key`; a command takes a group by
///   `#[command(flatten)]`. `GroupFlags::layer` converts the flags to a layer, and
///   `GroupFlags::KEYS` has their names.
/// - `Defaults::some_key()` returns the default.
///
/// The type decides about the notations of a value: see [`forms`] for the file, and
/// `with_value_forms` in `cli.rs` for flags and variables. `Flag as Key` is a key whose flag has
/// another type.
macro_rules! keys {
    (
        $(#[$layer_doc:meta])*
        pub struct $layer:ident, defaults in $defaults:ident;
        $(
            $(#[doc = $group_doc:literal])+
            pub struct $group:ident in $heading:literal {
                $(
                    $(#[doc = $help:literal])+
                    #[arg($($arg:tt)+)]
                    $key:ident: $flag:ty $(as $value:ty)? $(= $default:expr)?,
                )+
            }
        )+
    ) => {
        $(#[$layer_doc])*
        #[derive(Clone, Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $layer {
            $($(
                $(#[doc = $help])+
                #[serde(
                    default,
                    deserialize_with = "forms::read",
                    skip_serializing_if = "Option::is_none"
                )]
                pub $key: Option<keys!(@value $flag $(, $value)?)>,
            )+)+
        }

        impl $layer {
            /// Returns the settings of this layer, and those of `below` for the keys that it leaves
            /// out.
            #[must_use]
            pub fn or(self, below: Self) -> Self {
                Self { $($($key: self.$key.or(below.$key),)+)+ }
            }

            /// Returns the settings of `keys`.
            #[must_use]
            pub fn only(self, keys: &[&str]) -> Self {
                Self { $($($key: self.$key.filter(|_| keys.contains(&stringify!($key))),)+)+ }
            }

            /// Returns the first of `keys` that has a value.
            #[must_use]
            pub fn first_set(&self, keys: &[&str]) -> Option<&'static str> {
                let set = [$($((stringify!($key), self.$key.is_some()),)+)+];
                let mut set = set.into_iter().filter(|(key, is_set)| *is_set && keys.contains(key));
                set.next().map(|(key, _)| key)
            }

            /// Makes the paths relative to `dir`, the directory of the file.
            pub(super) fn resolve_paths(&mut self, dir: &Path) {
                $($(if let Some(value) = &mut self.$key {
                    forms::FileValue::resolve_path(value, dir);
                })+)+
            }
        }

        /// Default values, in the notation of the file.
        #[derive(Debug)]
        pub struct $defaults;

        impl $defaults {
            $($($(
                #[doc = concat!("Returns the default of `", stringify!($key), "`.")]
                #[must_use]
                pub const fn $key() -> $flag {
                    $default
                }
            )?)+)+

            /// Returns all defaults as text.
            #[cfg(test)]
            pub(crate) fn all() -> Vec<(&'static str, String)> {
                [$($($(Some((stringify!($key), <$flag>::to_string(&$default))),)?)+)+]
                    .into_iter()
                    .flatten()
                    .collect()
            }
        }

        $(
            $(#[doc = $group_doc])+
            #[derive(Clone, Debug, Default, Args)]
            pub struct $group {
                $(
                    $(#[doc = $help])+
                    #[arg(long, help_heading = $heading, $($arg)+)]
                    pub $key: Option<$flag>,
                )+
            }

            impl $group {
                /// Names of the keys.
                pub const KEYS: &[&str] = &[$(stringify!($key)),+];

                /// Returns the flags that are set as a layer above the file.
                #[must_use]
                pub fn layer(&self) -> $layer {
                    $layer {
                        $($key: self.$key.clone().map(Into::into),)+
                        ..$layer::default()
                    }
                }
            }
        )+
    };
    (@value $flag:ty) => { $flag };
    (@value $flag:ty, $value:ty) => { $value };
}

keys! {
    /// One layer of the settings of a target, as written: `[targets.NAME]`, `[defaults]`, or flags.
    #[derive(Serialize)]
    pub struct TargetLayer, defaults in TargetDefaults;

    /// Flags for the database.
    pub struct DatabaseFlags in "Database" {
        /// Database endpoint, or a CNAME for it: NAME or NAME:PORT.
        #[arg(env = "PGIAM_HOST", value_name = "HOST")]
        host: String,

        /// Identifier of an RDS instance, Aurora cluster or RDS Proxy, instead of --host; pgiam looks
        /// up its endpoint. NAME:reader selects the reader endpoint of a cluster.
        #[arg(env = "PGIAM_DB", value_name = "NAME")]
        db: String,

        /// Database role for clients that send only their operating-system user name.
        #[arg(env = "PGIAM_USER", value_name = "ROLE")]
        user: String,

        /// Database for clients that name neither role nor database, and for roles without a
        /// database of the same name.
        #[arg(env = "PGIAM_DATABASE", value_name = "NAME")]
        database: String,

        /// PEM file with the only CA certificates to trust for the database, instead of the built-in
        /// Amazon RDS and public roots.
        #[arg(env = "PGIAM_CA_FILE", value_name = "FILE")]
        ca_file: PathBuf,
    }

    /// Flag for the local port.
    pub struct PortFlags in "Listening" {
        /// Local port; 0 lets the system choose. Default: 5433.
        // One above PostgreSQL's own, so that a local server can keep 5432.
        #[arg(short, env = "PGIAM_PORT", value_name = "PORT")]
        port: u16 = 5433,
    }

    /// Flag for the route to the database.
    pub struct RouteFlags in "Tunnel and AWS" {
        /// Route to the database: ssm or direct. Default: ssm.
        #[arg(env = "PGIAM_VIA", value_name = "ROUTE")]
        via: String,
    }

    /// Flags for the tunnel. A target with a direct route must not set them.
    pub struct TunnelFlags in "Tunnel and AWS" {
        /// Managed node that carries the tunnel: i-…, mi-… or ecs:CLUSTER_TASK_RUNTIME (several,
        /// comma-separated or repeated, are tried in order); tag:KEY=VALUE; or auto, which finds one.
        /// Default: auto.
        #[arg(env = "PGIAM_BASTION", value_name = "ID")]
        bastion: Vec<String> as WrittenBastion,

        /// Session Manager document. Default: AWS-StartPortForwardingSessionToRemoteHost.
        #[arg(env = "PGIAM_DOCUMENT", value_name = "NAME")]
        document: String,

        /// Port of `pgiam relay` on the bastion, over which one connection uses several sessions;
        /// auto, which uses a relay on port 5439 if there is one; or false. --relay alone is auto.
        /// Default: false.
        #[arg(
            env = "PGIAM_RELAY",
            value_name = "PORT",
            num_args = 0..=1,
            require_equals = true,
            default_missing_value = "auto"
        )]
        relay: String as WrittenRelay,

        /// Maximum concurrent Session Manager sessions, 1 to 32; each carries about 0.7 MB/s.
        /// Default: 4, through a relay 16.
        // Measured from the database to the client; a limit that pgiam cannot raise.
        #[arg(env = "PGIAM_SESSIONS", value_name = "N")]
        sessions: u64 = 4,

        /// Seconds until a session without connections is closed. Default: 300.
        #[arg(env = "PGIAM_IDLE_TIMEOUT", value_name = "SECONDS")]
        idle_timeout: u64 = 300,

        /// Open the first session at startup instead of with the first connection.
        #[arg(env = "PGIAM_WARM")]
        warm: bool,

        /// Keep idle sessions open past the account's idle timeout (check your organisation's policy
        /// first).
        #[arg(env = "PGIAM_KEEP_ALIVE")]
        keep_alive: bool,
    }

    /// Flags for AWS, and for the time that it may take.
    pub struct AwsFlags in "Tunnel and AWS" {
        /// AWS profile. Default: that of the AWS SDK (AWS_PROFILE, else "default").
        #[arg(env = "PGIAM_PROFILE", value_name = "NAME")]
        profile: String,

        /// AWS region, if the host name does not contain it.
        #[arg(env = "PGIAM_REGION", value_name = "REGION")]
        region: Region,

        /// Seconds a client waits for tunnel and token before pgiam reports an error. Default: 30.
        #[arg(env = "PGIAM_CONNECT_TIMEOUT", value_name = "SECONDS")]
        connect_timeout: u64 = 30,
    }

    /// Flag for the last part of a tunnel to a database. A target with a direct route must not set
    /// it.
    pub struct DialFlags in "Tunnel and AWS" {
        /// Seconds the bastion may take to connect to the database. Default: 10; never longer than
        /// the connect timeout.
        #[arg(env = "PGIAM_DIAL_TIMEOUT", value_name = "SECONDS")]
        dial_timeout: u64 = 10,
    }

    /// Flags for the login of connections.
    pub struct LoginFlags in "Login" {
        /// Login method: iam (pgiam logs in with a token) or passthrough (the client logs in with
        /// its own password, for roles without rds_iam and for replication). Default: iam.
        #[arg(env = "PGIAM_AUTH", value_name = "METHOD")]
        auth: String,

        /// Seconds that TLS and login at the database may take. Default: 30.
        // Below the server's own authentication_timeout (60 s), so that pgiam reports the reason.
        #[arg(env = "PGIAM_LOGIN_TIMEOUT", value_name = "SECONDS")]
        login_timeout: u64 = 30,

        /// Maximum concurrent connections per target. Default: no limit other than
        /// --max-connections.
        #[arg(env = "PGIAM_CONNECTION_LIMIT", value_name = "N")]
        connection_limit: u64,

        /// Connections to keep ready for the next clients of a target in use, 0 to 8: open, with
        /// verified TLS, without a login. A login then takes one round trip. Default: 1 through a
        /// tunnel, 0 with a direct route.
        // Each is a process at the server, which counts none of them against max_connections.
        #[arg(env = "PGIAM_READY", value_name = "N")]
        ready: u64,

        /// Startup parameters that pgiam does not forward, for servers that reject them;
        /// comma-separated.
        #[arg(env = "PGIAM_IGNORE_STARTUP_PARAMETERS", value_name = "NAMES", value_delimiter = ',')]
        ignore_startup_parameters: Vec<String>,

        /// DNS server that resolves a CNAME given as `host`. Default: the system's.
        #[arg(env = "PGIAM_DNS_SERVER", value_name = "ADDRESS")]
        dns_server: String,
    }
}

keys! {
    /// One layer of the settings of `pgiam serve`, as written: `[serve]`, or flags.
    pub struct ServeLayer, defaults in ServeDefaults;

    /// Flags for the listeners.
    pub struct ListenFlags in "Listening" {
        /// Addresses to listen on, comma-separated. Addresses other than loopback require a password
        /// (--password-file). Default: 127.0.0.1,::1
        #[arg(env = "PGIAM_ADDRESS", value_name = "IP", value_delimiter = ',')]
        address: Vec<String>,

        /// Extra port for all targets; the database name selects one: TARGET or TARGET/DATABASE.
        #[arg(env = "PGIAM_HUB_PORT", value_name = "PORT")]
        hub_port: u16,

        /// Directory of the Unix sockets, or "none". Default: $XDG_RUNTIME_DIR/pgiam, else run in
        /// the state directory.
        #[arg(env = "PGIAM_SOCKET_DIR", value_name = "DIR")]
        socket_dir: PathBuf as SocketDir,
    }

    /// Flag for the check of client owners, of every command that listens.
    pub struct PeerFlags in "Listening" {
        /// Serve only clients of the user that runs pgiam, where the system reports the owner of a
        /// connection. Use --peer-check=false for containers that share a network. Default: true.
        #[arg(env = "PGIAM_PEER_CHECK")]
        peer_check: bool = true,
    }

    /// Flags for clients.
    pub struct ClientFlags in "Listening" {
        /// File with the password that TCP clients must send (SCRAM-SHA-256). Alternatively, set
        /// PGIAM_LOCAL_PASSWORD to the password.
        #[arg(env = "PGIAM_PASSWORD_FILE", value_name = "FILE")]
        password_file: PathBuf,

        /// Maximum concurrent connections. Default: 400.
        // Far above the number that RDS instances accept per role, and below the usual limit of
        // 1,024 descriptors, of which a connection takes one or two.
        #[arg(env = "PGIAM_MAX_CONNECTIONS", value_name = "N")]
        max_connections: u64 = 400,

        /// Seconds a client may take to complete startup (TLS, password, startup packet). Default:
        /// 30.
        #[arg(env = "PGIAM_STARTUP_TIMEOUT", value_name = "SECONDS")]
        startup_timeout: u64 = 30,
    }

    /// Flag for logins to AWS.
    pub struct BrowserFlags in "Tunnel and AWS" {
        /// When the SSO session of a profile has ended: off, or browser, which lets the first client
        /// of your own user open your browser for a login, and waits for it. It requires peer_check,
        /// a display, and a client whose owner the system reports. Also shows a desktop notification
        /// 5 minutes before a session ends that cannot be renewed. Default: off.
        // Off, because any program of the user that connects could otherwise open windows.
        #[arg(env = "PGIAM_LOGIN", value_name = "METHOD")]
        login: String,
    }

    /// Flags for the status page, health endpoints and metrics.
    pub struct HttpFlags in "Health and metrics" {
        /// Port of the status page, health endpoints and metrics. The paths are /, /startup,
        /// /readiness, /liveness and /metrics. Default: none.
        #[arg(env = "PGIAM_HTTP_PORT", value_name = "PORT")]
        http_port: u16,

        /// Address of this port. Clients need no password, and can read target names and usage;
        /// programs of other users and machines do not get the status page. Default: 127.0.0.1.
        #[arg(env = "PGIAM_HTTP_ADDRESS", value_name = "IP")]
        http_address: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST),
    }
}

impl TargetLayer {
    /// Merges two layers; these settings take precedence over those `below`. `host` and `db` are
    /// alternatives, so either of them overrides both.
    #[must_use]
    pub(super) fn over(self, mut below: Self) -> Self {
        if self.host.is_some() || self.db.is_some() {
            (below.host, below.db) = (None, None);
        }
        self.or(below)
    }
}
