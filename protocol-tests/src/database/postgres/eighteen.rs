//! PostgreSQL 18 beside the installed one: a server that takes direct TLS and protocol 3.2, and the
//! client library that speaks them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};

/// Names the directory that has `bin` and `lib` of PostgreSQL 18.
const VARIABLE: &str = "PGIAM_POSTGRES_18";

/// An installation of PostgreSQL 18.
#[derive(Debug, Clone)]
pub struct Postgres18 {
    dir: PathBuf,
}

impl Postgres18 {
    /// Directory with `postgres` and `initdb`, for
    /// [`PostgresOptions::bindir`](super::PostgresOptions::bindir).
    pub fn bindir(&self) -> PathBuf {
        self.dir.join("bin")
    }

    /// Directory with `libpq.so.5` of this version. With `LD_LIBRARY_PATH` set to it, the installed
    /// `psql` knows `sslnegotiation=direct` and `min_protocol_version`.
    pub fn libdir(&self) -> PathBuf {
        self.dir.join("lib")
    }
}

/// PostgreSQL 18 where `./dev test` has put it, which `PGIAM_POSTGRES_18` names.
///
/// # Errors
/// When it is not there; the text says what to run.
pub fn postgres18() -> anyhow::Result<Postgres18> {
    let dir = std::env::var_os(VARIABLE).map(PathBuf::from).context(
        "this test needs PostgreSQL 18: ./dev test installs it (on x86-64 Linux with Node.js and npm) \
         and tells the tests where it is in PGIAM_POSTGRES_18; once installed, export that \
         variable with the full path of target/postgres-18/native to run the tests without ./dev",
    )?;
    check(&dir)?;
    Ok(Postgres18 { dir })
}

fn check(dir: &Path) -> anyhow::Result<()> {
    let server = dir.join("bin/postgres");
    ensure!(
        server.is_file(),
        "{VARIABLE} is {}, but there is no {}: run ./dev test, which installs it",
        dir.display(),
        server.display()
    );
    Ok(())
}
