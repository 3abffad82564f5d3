//! Every string that pgiam generates, read and used by tokio-postgres and sqlx. See
//! `python/use_generated.py` for `JUDGE_STRINGS`.

use std::fs;
use std::process::exit;

use client_judges::var;
use sqlx::{Connection as _, Row as _};
use tokio_postgres::NoTls;

type Found = Result<(String, String), Box<dyn std::error::Error + Send + Sync>>;

const WHO: &str = "select current_user::text, current_database()::text";

async fn by_tokio_postgres(text: &str) -> Found {
    let (client, connection) = tokio_postgres::connect(text, NoTls).await?;
    let connection = tokio::spawn(connection);
    let row = client.query_one(WHO, &[]).await?;
    drop(client);
    connection.await??;
    Ok((row.get(0), row.get(1)))
}

async fn by_sqlx(text: &str) -> Found {
    let mut db = sqlx::PgConnection::connect(text).await?;
    let row = sqlx::query(WHO).fetch_one(&mut db).await?;
    db.close().await?;
    Ok((row.get(0), row.get(1)))
}

fn cases() -> Vec<Vec<String>> {
    let Ok(file) = std::env::var("JUDGE_STRINGS") else {
        let names = ["JUDGE_ROLE", "JUDGE_DATABASE", "DATABASE_URL"].map(var);
        let name = ["DATABASE_URL".to_owned()].into_iter();
        let rest = [String::new(), String::new()];
        return vec![name.chain(names).chain(rest).collect()];
    };
    let text = fs::read_to_string(file).unwrap_or_default();
    let fields = |line: &str| line.split('\t').map(str::to_owned).collect();
    text.lines().map(fields).collect()
}

#[tokio::main]
async fn main() {
    let mut failed = false;
    let mut judge = |step: String, text: &str, case: &[String], found: Found| match found {
        Ok((role, database)) if role == case[1] && database == case[2] => println!("ok {step}"),
        Ok(found) => {
            failed = true;
            println!("FAIL {step}: {text} is {found:?}");
        }
        Err(error) => {
            failed = true;
            println!("FAIL {step}: {text}: {error:?}");
        }
    };
    for case in cases() {
        let [name, _, _, url, _, dsn] = &case[..] else {
            println!("FAIL start: {case:?} is no case");
            exit(1);
        };
        let found = by_tokio_postgres(url).await;
        judge(format!("tokio-postgres, {name}"), url, &case, found);
        let found = by_sqlx(url).await;
        judge(format!("sqlx, {name}"), url, &case, found);
        if !dsn.is_empty() {
            let found = by_tokio_postgres(dsn).await;
            judge(format!("tokio-postgres, {name}, DSN"), dsn, &case, found);
        }
    }
    exit(i32::from(failed));
}
