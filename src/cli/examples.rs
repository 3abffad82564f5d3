//! Examples and notes below the flags in the help of each command.

pub(super) const PGIAM: &str = "\
Examples:
  pgiam login               log in to AWS
  pgiam list                list databases and bastions
  pgiam init                write a configuration file with the databases
  pgiam serve --db orders --user db_user   serve without a configuration file
  pgiam psql orders         open psql in a target
  pgiam check orders        find out why a connection fails
Then, without a password:
  psql -h localhost -p 5433

The command serve may be omitted before its flags. Flags override PGIAM_*
variables, and variables override the configuration file.

Exit codes: 0 done; 1 failed; 2 usage or configuration error; 3 pgiam is not
running, or timed out; 4 serve --test: a target failed the connection test.
pgiam run and pgiam psql return the command's exit code; 125 if pgiam failed
before starting it; 126 if it cannot be executed; 127 if it was not found; 128
plus the number of the signal that ended it.";

pub(super) const SERVE: &str = "\
Examples:
  pgiam serve               serve all targets of the configuration file
  pgiam serve orders        serve one target
  pgiam serve --db orders --user db_user
  pgiam serve --host db.abc.eu-central-1.rds.amazonaws.com --bastion i-0abc
  pgiam serve --test        log in to each target first; exit with 4 on failure
Then, without a password:
  psql -h localhost -p 5433
pgiam reloads the file when it changes, or on SIGHUP, without dropping
connections. SIGTERM and Ctrl-C stop it gracefully.";

pub(super) const RUN: &str = "\
Examples:
  pgiam run orders -- psql
  pgiam run orders -- pg_dump -Fc -f orders.dump
  pgiam run --db orders --user migrator -- ./manage.py migrate
pgiam starts the command after a first successful login, with PGHOST, PGPORT,
PGUSER, PGDATABASE, PGSSLMODE and DATABASE_URL in its environment. pgiam
forwards signals to the command and returns its exit code.";

pub(super) const PSQL: &str = "\
Examples:
  pgiam psql orders
  pgiam psql orders -c 'select 1'
  pgiam psql --db orders --user db_user
  pgiam psql orders --psql pgcli
Without TARGET: the only one, or a selection at a terminal. pgiam uses the port
of a running pgiam that serves the target, else a tunnel of its own, as
pgiam run TARGET -- psql does. The exit code is that of psql; 125, 126 and 127
as for pgiam run.";

pub(super) const LOGIN: &str = "\
Examples:
  pgiam login                     log in with the profile in effect
  pgiam login dev
  pgiam login dev --device-code   on a machine without a browser
  pgiam login --sso-session corp
  echo 123456 | pgiam login dev --mfa-code -
pgiam keeps logins where the AWS CLI does (~/.aws/sso/cache, ~/.aws/cli/cache):
each finds the logins of the other. A running pgiam uses a new login for its
next connection. A profile with access keys, credential_process or the
credentials of a machine needs no login; pgiam login then exits with 1.";

pub(super) const LOGOUT: &str = "\
Examples:
  pgiam logout dev
  pgiam logout --all
pgiam ends the session at AWS, and removes its token, the keys of its roles and
the keys that were obtained with an MFA code. Open connections stay open. A
running pgiam keeps the keys that it has loaded until they end.";

pub(super) const CHECK: &str = "\
Examples:
  pgiam check orders
  pgiam check --db orders --user db_user
  pgiam check orders --json | jq '.steps[] | select(.result != \"ok\")'
The check stops at the first failure, prints the remedy, and exits with 1.";

pub(super) const LIST: &str = "\
Examples:
  pgiam list
  pgiam list --profile dev --region eu-central-1
  pgiam list --json | jq -r '.databases[] | select(.iam) | .identifier'
The first column is the identifier for --db, or for db in the configuration
file. pgiam reports missing permissions and lists the rest; it fails only if it
cannot list anything.

--json writes one object: region, profile, databases, bastions, missing. Each
database has kind (instance, cluster, proxy, endpoint), identifier, host,
reader_host, port, region, resource_id, arn, iam, status, engine,
engine_version, database, vpc, security_groups, subnets, ca. Each bastion has
id, name, online, ping, last_ping, agent, platform, vpc, marked (tag
pgiam:bastion). Each entry of missing has action, denied, reason. Unknown
values are null.";

pub(super) const INIT: &str = "\
Examples:
  pgiam init                                write ./pgiam.toml
  pgiam init ~/.config/pgiam/config.toml --user db_user
  pgiam init - --db orders                  print to standard output";

pub(super) const URL: &str = "\
Examples:
  pgiam url orders
  pgiam url orders --format jdbc
  eval \"$(pgiam url orders --format env)\"   set PGHOST etc. in this shell";

pub(super) const TOKEN: &str = "\
Examples:
  PGPASSWORD=\"$(pgiam token orders)\" psql \"host=… sslmode=verify-full …\"
  pgiam token orders --json
The token is a password that is valid for 15 minutes. Clients of pgiam need no
token: pgiam logs in for them.";

pub(super) const SETUP: &str = "\
Examples:
  pgiam setup policy orders       for the IAM administrator
  pgiam setup sql orders          for the database administrator
  pgiam setup bastion orders > bastion.yaml
These commands change nothing in AWS. Review the output and apply it.";

pub(super) const TUNNEL: &str = "\
Examples:
  pgiam tunnel mysql.internal:3306 --bastion i-0123456789abcdef0
      mysql -h 127.0.0.1 -P 3306
  pgiam tunnel cache.internal:6379 --target orders --listen 6380
      redis-cli -p 6380; uses the tunnel settings of the target \"orders\"
  pgiam tunnel 10.0.3.7:80 --bastion tag:Name=bastion --listen 127.0.0.1:8080
      curl http://127.0.0.1:8080/

pgiam forwards bytes unchanged: it does not log in, encrypt or verify. TLS
clients that verify the server's name need the real name (curl --connect-to),
or must verify the certificate authority only (mysql --ssl-mode=VERIFY_CA).";

pub(super) const RELAY: &str = "\
Examples:
  pgiam relay                                 allow RDS and DSQL endpoints
  pgiam relay --allow '*.abc123.eu-central-1.rds.amazonaws.com'
  pgiam relay --allow rds --allow pg.internal:5432
Run it on the bastion; docs/relay.md has a systemd unit. Clients use it with
relay = \"auto\", in sessions to its port: one connection is then as fast as all
its sessions together. It needs no credentials and no configuration file.";

pub(super) const STATUS: &str = "\
Examples:
  pgiam status
  pgiam status --watch
  pgiam status --json | jq '.[].targets[].name'
Exits with 3 if no pgiam of this user is running.";

pub(super) const WAIT: &str = "\
Examples:
  pgiam serve & pgiam wait && psql -h localhost -p 5433
  pgiam wait orders --timeout 60
A target is ready when pgiam has found its database and AWS credentials, and
knows no reason why the next connection would fail. Exits with 3 if a target is
not ready in time.";

pub(super) const STOP: &str = "\
Examples:
  pgiam stop                stop every pgiam serve of this user
  pgiam stop orders         stop processes that serve only orders
  pgiam stop --all          also stop run and tunnel
  pgiam stop --pid 4711
Exits with 3 if there is nothing to stop, or if a process does not end in time.
A process waits up to its drain timeout for open connections to end.";

pub(super) const EXPLAIN: &str = "\
Examples:
  pgiam explain aws.no-credentials
  pgiam explain 28000             list the errors with this SQLSTATE
  pgiam explain 'FATAL:  …'       find an error by its message
An error of pgiam ends with its identifier in brackets. Exits with 2 if no
error matches.";
pub(super) const SERVICE: &str = "\
Examples:
  pgiam service install     start at every login; shows the plan, then asks
  pgiam service status
  pgiam service logs -f
  pgiam service uninstall
The service is a user unit of systemd, a launchd agent or a task at logon.";

pub(super) const SERVICE_INSTALL: &str = "\
Examples:
  pgiam service install
  pgiam service install --on-demand      the first client starts pgiam
  pgiam service install --dry-run
  pgiam service install --yes -- orders --drain-timeout 60
The service uses this program, the configuration file in use, and the AWS_* and
PGIAM_* variables of this shell that are not secret. Install again after a
change of these, or to update the files after an upgrade.";

pub(super) const UP: &str = "\
Examples:
  pgiam up                  serve all targets of the configuration file
  pgiam up orders           serve one target
  pgiam up --db orders --user db_user
  pgiam down                stop it
pgiam up takes the flags of pgiam serve. It starts the server without a
terminal, waits until it is ready, and prints the ports and the log file. It
exits with 3 if a target is not ready yet; the server then keeps trying. To
start pgiam at every login instead: pgiam service install";

pub(super) const DOWN: &str = "\
Examples:
  pgiam down                stop all servers that pgiam up started
  pgiam down orders         stop the one that serves only orders
Exits with 3 if there is nothing to stop, or if a process does not end in time.
A process waits up to its drain timeout for open connections to end.";

pub(super) const COMPLETIONS: &str = "\
Examples:
  source <(pgiam completions bash)      in ~/.bashrc
  pgiam completions zsh > \"${fpath[1]}/_pgiam\"
  pgiam completions fish > ~/.config/fish/completions/pgiam.fish
bash, zsh and fish also offer targets, AWS profiles, regions, databases and
bastions: those of the configuration, and those that pgiam list has shown.";

pub(super) const MAN: &str = "\
Examples:
  pgiam man | man -l -
  pgiam man ~/.local/share/man/man1 && man -M ~/.local/share/man pgiam";
