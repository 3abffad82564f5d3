//! What the Rust programs of the matrix share: where to connect, the values, and how a step is
//! reported.
//!
//! Where to connect comes from PGHOST, PGPORT, PGUSER, PGDATABASE and PGSSLMODE; JUDGE_ROLE is the
//! role that the server must have logged in. There is no password anywhere.

use std::env;
use std::fmt::Debug;
use std::process::exit;
use std::time::Duration;

use md5::{Digest as _, Md5};

/// How a step ends: with a remark, or with what went wrong.
pub type Outcome = Result<String, Box<dyn std::error::Error + Send + Sync>>;

/// How long anything may take to happen that another connection has to see.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// What sleeps this long and ends early was cancelled.
pub const SLEEP: &str = "select pg_sleep(60)";
/// Everything that quoting and encodings may stumble over.
pub const TEXT: &str = "Grüße, 世界 🐘 'quoted' \\ \"twice\"\ttab\nline";
/// The sum of what [`lines`] copied into table `c`, at the server.
pub const COPY_CHECK: &str =
    "select md5(string_agg(id || E'\\t' || t || E'\\n', '' order by id)) from c";

/// A variable that must be there.
pub fn var(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| {
        println!("FAIL start: {name} is not set");
        exit(1)
    })
}

/// Whether TLS is asked for.
pub fn tls() -> bool {
    var("PGSSLMODE") != "disable"
}

/// The sum PostgreSQL's `md5` gives.
pub fn md5(bytes: impl AsRef<[u8]>) -> String {
    let sum = Md5::digest(bytes);
    sum.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A million characters.
pub fn big() -> String {
    "äbcdefg🐘".repeat(125_000)
}

/// 100,000 rows as COPY takes them.
pub fn lines() -> String {
    (1..=100_000)
        .map(|i| format!("{i}\trow {i} äöü\n"))
        .collect()
}

/// 300,000 bytes.
pub fn object() -> Vec<u8> {
    (0..300_000_u64).map(|i| (i * i % 251) as u8).collect()
}

/// SQL that is true when this server process sleeps.
pub fn asleep(pid: i32) -> String {
    format!(
        "select exists (select from pg_stat_activity where pid = {pid} and state = 'active' \
         and wait_event = 'PgSleep')"
    )
}

/// Fails unless both are the same.
pub fn same<T: PartialEq + Debug>(found: T, expected: T, what: &str) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    let brief = |value: T| format!("{value:?}").chars().take(300).collect::<String>();
    Err(format!(
        "{what} is {}, not {}",
        brief(found),
        brief(expected)
    ))
}

/// Says how a step ended; a failure ends the program.
pub fn report(name: &str, outcome: Outcome) {
    match outcome {
        Ok(remark) if remark.is_empty() => println!("ok {name}"),
        Ok(remark) => println!("ok {name} ({remark})"),
        Err(error) => {
            println!("FAIL {name}: {error:?}");
            exit(1)
        }
    }
}

/// Says that the client has no such thing.
pub fn skip(name: &str) {
    println!("skip {name} (has no such thing)");
}
