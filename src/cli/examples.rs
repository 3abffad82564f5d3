//! What stands below the flags in the help of each command.

pub(super) const PGIAM: &str = "\
Examples:
  pgiam list                the databases and bastions that you can see
  pgiam init                a configuration file with them
  pgiam serve --db orders   one database, without any file
  pgiam check orders        what is wrong, and what to do about it
Then, without a password:
  psql -h localhost -p 5433

The flags of serve may be given without the word. Flags come before PGIAM_*
variables, these before the file.

Exit codes: 0 done; 1 failed; 2 wrong words or configuration; 3 no running
pgiam, or not in time; 4 serve --test: a target failed the connection test.
pgiam run ends with the command's own code: 125 when pgiam failed before it,
126 when it cannot be run, 127 when it is not found, 128 and the number when a
signal ended it.";

pub(super) const SERVE: &str = "\
Examples:
  pgiam serve               every target of the file
  pgiam serve orders        one of them
  pgiam serve --db orders --user db_user
  pgiam serve --host db.abc.eu-central-1.rds.amazonaws.com --bastion i-0abc
  pgiam serve --test        with a login at each target; 4 if one fails
Then, without a password:
  psql -h localhost -p 5433

A changed file, and SIGHUP, are taken over without dropping a connection.
SIGTERM and Ctrl-C end it in order. Without AWS credentials or a network it
stays, tells clients the reason, and tries again.";

pub(super) const RUN: &str = "\
Examples:
  pgiam run orders -- psql
  pgiam run orders -- pg_dump -Fc -f orders.dump
  pgiam run --db orders --user migrator -- ./manage.py migrate
The command finds PGHOST, PGPORT, PGUSER, PGDATABASE, PGSSLMODE and
DATABASE_URL in its environment. It is started when a first login has worked;
it gets the signals, and its exit code is that of pgiam.";

pub(super) const CHECK: &str = "\
Examples:
  pgiam check orders
  pgiam check --db orders --user db_user
  pgiam check orders --json | jq '.steps[] | select(.result != \"ok\")'
It stops at the first cause, says what to do, and exits with 1.";

pub(super) const LIST: &str = "\
Examples:
  pgiam list
  pgiam list --profile dev --region eu-central-1
  pgiam list --json | jq -r '.databases[] | select(.iam) | .identifier'
A database is named by what stands in the first column: --db orders, or db =
\"orders\" in the file. What the credentials may not see is named, and left out;
it fails only when nothing can be seen.

--json writes one object: region, profile, databases, bastions, missing. Of
databases: kind (instance, cluster, proxy, endpoint), identifier, host,
reader_host, port, region, resource_id, arn, iam, status, engine,
engine_version, database, vpc, security_groups, subnets, ca. Of bastions: id,
name, online, ping, last_ping, agent, platform, vpc, marked (tag
pgiam:bastion). Of missing: action, denied, reason. What is not known is null.";

pub(super) const INIT: &str = "\
Examples:
  pgiam init                                ./pgiam.toml
  pgiam init ~/.config/pgiam/config.toml --user db_user
  pgiam init - --db orders                  on standard output";

pub(super) const URL: &str = "\
Examples:
  pgiam url orders
  pgiam url orders --format jdbc
  eval \"$(pgiam url orders --format env)\"   PGHOST and so on for this shell";

pub(super) const TOKEN: &str = "\
Examples:
  PGPASSWORD=\"$(pgiam token orders)\" psql \"host=… sslmode=verify-full …\"
  pgiam token orders --json
The token is a password for 15 minutes. pgiam itself needs no such command:
its clients give none.";

pub(super) const SETUP: &str = "\
Examples:
  pgiam setup policy orders       for whoever gives out IAM permissions
  pgiam setup sql orders          for whoever owns the database
  pgiam setup bastion orders > bastion.yaml
Nothing is changed at AWS: these print what to review and apply.";

pub(super) const TUNNEL: &str = "\
Examples:
  pgiam tunnel mysql.internal:3306 --bastion i-0123456789abcdef0
      mysql -h 127.0.0.1 -P 3306
  pgiam tunnel cache.internal:6379 --target orders --listen 6380
      redis-cli -p 6380; the way is that of the target \"orders\" in the file
  pgiam tunnel 10.0.3.7:80 --bastion tag:Name=bastion --listen 127.0.0.1:8080
      curl http://127.0.0.1:8080/

Bytes pass as they are: nothing is logged in, encrypted or verified. TLS
clients that compare the server's name need the real one (curl --connect-to),
or check its authority alone (mysql --ssl-mode=VERIFY_CA).";

pub(super) const STATUS: &str = "\
Examples:
  pgiam status
  pgiam status --watch
  pgiam status --json | jq '.[].targets[].name'
Exits with 3 when no pgiam of this user runs.";

pub(super) const WAIT: &str = "\
Examples:
  pgiam serve & pgiam wait && psql -h localhost -p 5433
  pgiam wait orders --timeout 60
A target is ready when a login would work, as far as is known: its database was
found, there are AWS credentials, and the last connection did not fail for a
reason that the next one would meet. Exits with 3 when it is not ready in time.";

pub(super) const STOP: &str = "\
Examples:
  pgiam stop                every pgiam serve of yours
  pgiam stop orders         jobs for this target, and a serve without another
  pgiam stop --all          jobs of run and tunnel, too
  pgiam stop --pid 4711
Exits with 3 when there is nothing to stop, or it is not over in time. Open
connections get the drain timeout of the one that is stopped.";

pub(super) const COMPLETIONS: &str = "\
Examples:
  source <(pgiam completions bash)      in ~/.bashrc
  pgiam completions zsh > \"${fpath[1]}/_pgiam\"
  pgiam completions fish > ~/.config/fish/completions/pgiam.fish";

pub(super) const MAN: &str = "\
Examples:
  pgiam man | man -l -
  pgiam man ~/.local/share/man/man1 && man -M ~/.local/share/man pgiam";
