//! Servers that are clients of pgiam: a pooler, and a PostgreSQL server with `postgres_fdw`,
//! `dblink` or a subscription.
//!
//! Tests that run as root start these servers as another user, as systems do. So does each pgiam
//! here serve other users, except where a test is about that.

use nix::unistd::geteuid;
use protocol_tests::database::postgres::{Postgres, PostgresOptions};
use protocol_tests::database::rds::Engine;
use tokio::process::Command;

use crate::clients::{Client, Kit, group};
use crate::support::{BASTION, HOST, Setup, World, ordinary_config};

/// What every client must send with [`guarded`].
const PASSWORD: &str = "the local password";

/// Serves other users of the machine.
fn open_to_others() -> Setup {
    let config = format!("[serve]\npeer_check = false\n{}", ordinary_config());
    Setup {
        config: Some(config),
        ..Setup::default()
    }
}

/// Serves other users that know the password.
fn guarded() -> Setup {
    Setup {
        env: vec![("PGIAM_LOCAL_PASSWORD", Some(PASSWORD.to_owned()))],
        ..open_to_others()
    }
}

/// A PostgreSQL server of this machine with `postgres_fdw` and `dblink`, and a role that is no
/// superuser.
struct Local(Postgres);

impl Local {
    async fn start(world: &World) -> Self {
        let options = PostgresOptions::new(world.sandbox.dir());
        let local = Self(Postgres::start(options).await.expect("a second server"));
        local
            .ask("create extension postgres_fdw; create extension dblink; create role reader")
            .await;
        local
    }

    async fn try_ask(&self, sql: &str) -> Result<String, String> {
        let answer = self.0.psql_admin(sql).await;
        answer.map_err(|error| format!("{error:#}"))
    }

    async fn ask(&self, sql: &str) -> String {
        self.try_ask(sql).await.expect(sql)
    }

    /// The error that a statement ends with.
    async fn refusal(&self, sql: &str) -> String {
        self.try_ask(sql).await.expect_err(sql)
    }

    /// Runs the statement and returns its SQLSTATE.
    async fn state(&self, sql: &str) -> String {
        let sql = sql.replace('\'', "''");
        let block = format!(
            "create temp table if not exists ended (state text);
             do $state$ begin execute '{sql}'; insert into ended values ('00000');
             exception when others then insert into ended values (sqlstate); end $state$;
             select state from ended; drop table ended"
        );
        self.ask(&block).await
    }

    /// Makes pgiam the foreign server `orders`, with a mapping for each user. There is no `sslmode`:
    /// libpq prefers TLS.
    async fn foreign(&self, world: &World, mappings: &[(&str, &str)]) {
        let port = world.proxy.port();
        self.ask(&format!(
            "create server orders foreign data wrapper postgres_fdw
             options (host 'localhost', port '{port}', dbname 'app');
             grant usage on foreign server orders to reader"
        ))
        .await;
        for (user, options) in mappings {
            self.ask(&format!(
                "create user mapping for {user} server orders options (user 'db_user'{options})"
            ))
            .await;
        }
    }
}

/// A table of 100,000 rows, one of them with a megabyte, at the database behind pgiam.
async fn fill(world: &World) {
    let sql = "set role db_user;
         create table items (id int primary key, name text not null, price numeric(12, 2));
         insert into items select i, 'row ' || i || ' äöü', i / 100.0 from generate_series(1, 100000) i;
         update items set name = repeat('äbcdefg🐘', 125000) where id = 1";
    world.admin(sql).await;
}

fn pgbouncer(kit: &Kit) -> Result<Command, String> {
    let program = kit.installed("pgbouncer/usr/sbin/pgbouncer")?;
    let mut command = kit.python("use_pgbouncer.py")?;
    command
        .env("PGBOUNCER", program)
        .env("LD_LIBRARY_PATH", kit.installed("pgbouncer/libraries")?);
    Ok(command)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pooler_in_front() {
    let clients: &[Client] = &[("PgBouncer", pgbouncer)];
    group(World::with(open_to_others()).await, clients).await;
}

/// Reads, writes and rolls back on the far side, for a superuser and for an ordinary role.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_tables_with_the_local_password() {
    let world = World::with(guarded()).await;
    fill(&world).await;
    let local = Local::start(&world).await;
    let password = format!(", password '{PASSWORD}'");
    let mappings = [("postgres", &*password), ("reader", &*password)];
    local.foreign(&world, &mappings).await;
    local
        .ask(
            "create schema far; import foreign schema public from server orders into far;
             grant usage on schema far to reader; grant select on all tables in schema far to reader",
        )
        .await;

    for role in ["postgres", "reader"] {
        let sum =
            "select count(*), sum(id), max(length(name)), max(octet_length(name)) from far.items";
        let answer = local.ask(&format!("set role {role}; {sum}")).await;
        assert_eq!(answer, "100000|5000050000|1000000|1500000", "{role}");
    }
    // Fetched row by row, not computed there.
    let fetched = "select count(*), md5(string_agg(name, '' order by id)) = md5((select
             string_agg('row ' || i || ' äöü', '' order by i) from generate_series(2, 100000) i))
         from (select * from far.items where id > 1 offset 0) rows";
    assert_eq!(local.ask(fetched).await, "99999|t");

    let written = "begin; insert into far.items values (0, 'Grüße, 世界 🐘', 1.5);
         savepoint s; delete from far.items; rollback to s;
         update far.items set price = price + 1 where id = 0; commit;
         select name, price from far.items where id = 0;
         begin; delete from far.items; rollback; select count(*) from far.items";
    let answer = local.ask(written).await;
    assert_eq!(answer, "Grüße, 世界 🐘|2.50\n100001");
    assert_eq!(world.admin("select count(*) from items").await, "100001");

    let twice = "insert into far.items values (0, 'again', 1)";
    assert_eq!(local.state(twice).await, "23505");
    let divided = "select 1 / (id - 7) from far.items";
    assert_eq!(local.state(divided).await, "22012");
    let denied = "set role reader; delete from far.items";
    assert!(local.refusal(denied).await.contains("permission denied"));
    stop(world, local).await;
}

/// A statement that ends early here must end there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn far_queries_end_with_their_caller() {
    let world = World::with(guarded()).await;
    let local = Local::start(&world).await;
    let password = format!(", password '{PASSWORD}'");
    let mappings = [("postgres", &*password), ("reader", &*password)];
    local.foreign(&world, &mappings).await;

    let who = "select * from dblink('orders', 'select current_user, current_database()')
         as t(u text, d text)";
    for role in ["postgres", "reader"] {
        let answer = local.ask(&format!("set role {role}; {who}")).await;
        assert_eq!(answer, "db_user|app", "{role}");
    }
    let seen = "select exists (select from pg_stat_activity where wait_event = ''PgSleep'')";
    let cancelled = format!(
        "select dblink_connect('c', 'orders');
         select dblink_send_query('c', 'select pg_sleep(600)');
         do $wait$ begin
           while not (select b from dblink('orders', '{seen}') as t(b bool)) loop
             if clock_timestamp() > now() + interval '30 s' then raise 'it never slept'; end if;
             perform pg_sleep(0.01);
           end loop;
         end $wait$;
         select dblink_is_busy('c'), dblink_cancel_query('c');
         select * from dblink_get_result('c', false) as t(n text);
         select dblink_error_message('c')"
    );
    let answer = local.ask(&cancelled).await;
    assert_eq!(
        answer,
        "OK\n1\n1|OK\nERROR:  canceling statement due to user request"
    );
    world
        .admin("create view slow as select 1 as n, pg_sleep(600)::text as s; grant select on slow to db_user")
        .await;
    let late = "create foreign table slow (n int, s text) server orders;
         set statement_timeout = '1s'; select * from slow";
    let refusal = local.refusal(late).await;
    assert!(refusal.contains("statement timeout"), "{refusal}");
    let left = "not exists (select from pg_stat_activity where wait_event = 'PgSleep')";
    world.wait_sql(left).await;
    stop(world, local).await;
}

/// A superuser's mapping needs no password, one of another role does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_server_without_a_password() {
    let world = World::with(open_to_others()).await;
    let local = Local::start(&world).await;
    let mappings = [("postgres", ""), ("reader", "")];
    local.foreign(&world, &mappings).await;
    let who = "select * from dblink('orders', 'select current_user') as t(u text)";
    assert_eq!(local.ask(who).await, "db_user");
    local
        .ask(
            "create foreign table one (n int) server orders options (table_name 'one');
             grant select on one to reader",
        )
        .await;
    world.query("create table one as select 1 as n").await;
    assert_eq!(local.ask("select n from one").await, "1");

    let as_reader = "set role reader; select n from one";
    let refusal = local.refusal(as_reader).await;
    let advice = "Non-superusers must provide a password in the user mapping.";
    assert!(refusal.contains(advice), "{refusal}");
    local
        .ask("alter user mapping for reader server orders options (add password 'any')")
        .await;
    let refusal = local.refusal(as_reader).await;
    let advice = "Non-superuser cannot connect if the server does not request a password.";
    assert!(refusal.contains(advice), "{refusal}");
    // Only a superuser may say so.
    local
        .ask("alter user mapping for reader server orders options (add password_required 'false')")
        .await;
    assert_eq!(local.ask(as_reader).await, "1");

    let port = world.proxy.port();
    let subscription = format!(
        "create subscription s connection 'host=localhost port={port} user=db_user dbname=app' publication p"
    );
    let refusal = local.refusal(&subscription).await;
    for text in [
        "replication connections cannot log in with IAM",
        "auth = \"passthrough\"",
    ] {
        assert!(refusal.contains(text), "{refusal}");
    }
    stop(world, local).await;
}

/// A server of another user, as those of packages are, meets the check of the owner.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_server_of_another_user_is_refused() {
    if !geteuid().is_root() {
        // The servers of this test run as the same user as pgiam.
        return;
    }
    let world = World::start().await;
    let local = Local::start(&world).await;
    local.foreign(&world, &[("postgres", "")]).await;
    let refusal = local
        .refusal("select * from dblink('orders', 'select 1') as t(n int)")
        .await;
    assert!(
        refusal.contains("this pgiam belongs to another user"),
        "{refusal}"
    );
    stop(world, local).await;
}

/// A subscription with a password of the role's own, by `auth = "passthrough"`: the first copy, what
/// comes later, and the slot at the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscription_with_the_password_of_a_role() {
    let config = format!(
        "[serve]\npeer_check = false\n[targets.orders]\nhost = \"{HOST}\"\nport = 0\n\
         bastion = \"{BASTION}\"\nauth = \"passthrough\"\n"
    );
    let world = World::with(Setup {
        config: Some(config),
        engine: Engine::Passwords { bindir: None },
        hba: Some("hostssl all,replication all 127.0.0.1/32 scram-sha-256".to_owned()),
        settings: vec![("wal_level", "logical")],
        ..Setup::default()
    })
    .await;
    let local = Local::start(&world).await;
    let table = "create table items (id int primary key, name text)";
    local.ask(table).await;
    world.admin(table).await;
    world
        .admin(
            "create role copier login replication password 'copies all';
             grant select on items to copier;
             insert into items select i, 'row ' || i || ' äöü' from generate_series(1, 10000) i;
             create publication all_items for table items",
        )
        .await;
    let port = world.proxy.port();
    local
        .ask(&format!(
            "create subscription items connection 'host=localhost port={port} dbname=app
             user=copier password=''copies all'' sslmode=disable' publication all_items"
        ))
        .await;
    let copied = async |count: &str| {
        local
            .ask(&format!(
                "do $wait$ begin
                   while (select count(*) from items) <> {count} loop
                     if clock_timestamp() > now() + interval '60 s' then
                       raise '% rows came', (select count(*) from items);
                     end if;
                     perform pg_sleep(0.02);
                   end loop;
                 end $wait$"
            ))
            .await
    };
    copied("10000").await;
    world
        .admin("insert into items values (0, 'later 🐘'); delete from items where id > 9000")
        .await;
    copied("9001").await;
    let later = local.ask("select name from items where id = 0").await;
    assert_eq!(later, "later 🐘");
    local.ask("drop subscription items").await;
    world
        .wait_sql("not exists (select from pg_replication_slots)")
        .await;
    stop(world, local).await;
}

async fn stop(world: World, local: Local) {
    // Its connections first: pgiam waits for clients that are within a transaction.
    local.0.stop().await.expect("the second server stops");
    world.stop().await;
}
