//! sqlx, with its pool.

use client_judges::{
    COPY_CHECK, Outcome, PATIENCE, TEXT, big, lines, md5, object, report, same, skip, tls, var,
};
use futures_util::TryStreamExt as _;
use futures_util::future::try_join_all;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{Connection as _, PgConnection, Row as _};
use tokio::time::timeout;

fn options() -> PgConnectOptions {
    // It takes the rest from the environment, as libpq does.
    PgConnectOptions::new().ssl_mode(if tls() {
        PgSslMode::Require
    } else {
        PgSslMode::Disable
    })
}

fn state<T>(result: Result<T, sqlx::Error>) -> Result<String, String> {
    match result {
        Ok(_) => Err("it went well".to_owned()),
        Err(error) => match error.as_database_error().and_then(|e| e.code()) {
            Some(code) => Ok(code.into_owned()),
            None => Err(format!("no SQLSTATE: {error:?}")),
        },
    }
}

async fn login(db: &mut PgConnection) -> Outcome {
    let sql = "select current_user::text, current_database()::text, 6 * 7";
    let found: (String, String, i32) = sqlx::query_as(sql).fetch_one(db).await?;
    same(found, (var("JUDGE_ROLE"), var("PGDATABASE"), 42), "the row")?;
    Ok(String::new())
}

async fn parameters(db: &mut PgConnection) -> Outcome {
    let bytes: Vec<u8> = (0..=255).collect();
    let array = vec![Some(1), None, Some(3)];
    let sql =
        "select $1::int, $2::int8, $3::float8, $4::bool, $5::text, $6::text, $7::int[], $8::bytea";
    let row = sqlx::query(sql)
        .bind(-42)
        .bind(9_007_199_254_740_993_i64)
        .bind(0.1)
        .bind(true)
        .bind(TEXT)
        .bind(None::<String>)
        .bind(&array)
        .bind(&bytes)
        .fetch_one(&mut *db)
        .await?;
    same(row.try_get::<i32, _>(0)?, -42, "the int")?;
    same(
        row.try_get::<i64, _>(1)?,
        9_007_199_254_740_993,
        "the long number",
    )?;
    same(row.try_get::<f64, _>(2)?, 0.1, "the float")?;
    same(row.try_get::<bool, _>(3)?, true, "the bool")?;
    same(row.try_get::<&str, _>(4)?, TEXT, "the text")?;
    same(row.try_get::<Option<String>, _>(5)?, None, "the null")?;
    same(row.try_get::<Vec<Option<i32>>, _>(6)?, array, "the array")?;
    same(row.try_get::<Vec<u8>, _>(7)?, bytes, "the bytes")?;
    let big = big();
    let sql = "select md5($1), $1::text";
    let found: (String, String) = sqlx::query_as(sql).bind(&big).fetch_one(db).await?;
    same(found, (md5(&big), big), "1 MB")?;
    Ok(String::new())
}

async fn prepared(db: &mut PgConnection) -> Outcome {
    let mut total = 0;
    for i in 1..=10_i32 {
        let square = sqlx::query_scalar::<_, i32>("select $1::int * 7 * $1::int");
        total += square.bind(i).fetch_one(&mut *db).await?;
    }
    same(total, 385 * 7, "the sum")?;
    let known = "select count(*) from pg_prepared_statements where statement = 'select $1::int * 7 * $1::int'";
    let count: i64 = sqlx::query_scalar(known).fetch_one(db).await?;
    same(count, 1, "the number of statements at the server")?;
    Ok(String::new())
}

async fn pool() -> Outcome {
    let pool: PgPool = PgPoolOptions::new()
        .max_connections(8)
        .connect_with(options())
        .await?;
    let asked = (1..=40_i32).map(|i| {
        sqlx::query_scalar::<_, i32>("select $1 * $1")
            .bind(i)
            .fetch_one(&pool)
    });
    let total: i32 = try_join_all(asked).await?.iter().sum();
    same(total, 22_140, "the sum")?;
    pool.close().await;
    Ok("of 8".to_owned())
}

async fn copy(db: &mut PgConnection) -> Outcome {
    let lines = lines();
    let sum = md5(&lines);
    sqlx::query("create temp table c (id int, t text)")
        .execute(&mut *db)
        .await?;
    let mut into = db.copy_in_raw("copy c from stdin").await?;
    into.send(lines.as_bytes()).await?;
    same(into.finish().await?, 100_000, "the count")?;
    let found: String = sqlx::query_scalar(COPY_CHECK).fetch_one(&mut *db).await?;
    same(found, sum.clone(), "the table")?;
    let out = db
        .copy_out_raw("copy (select * from c order by id) to stdout")
        .await?;
    let parts: Vec<bytes::Bytes> = out.try_collect().await?;
    same(md5(parts.concat()), sum, "what came back")?;
    Ok(String::new())
}

async fn stream(db: &mut PgConnection) -> Outcome {
    let mut rows = sqlx::query_scalar::<_, i32>("select generate_series(1, 1000)").fetch(db);
    let mut total = 0;
    while let Some(number) = rows.try_next().await? {
        total += number;
    }
    same(total, 500_500, "the sum")?;
    Ok(String::new())
}

async fn listen(db: &mut PgConnection) -> Outcome {
    let pool = PgPoolOptions::new()
        .max_connections(1)
        .connect_with(options())
        .await?;
    let mut ears = PgListener::connect_with(&pool).await?;
    ears.listen("news").await?;
    sqlx::query("select pg_notify('news', $1)")
        .bind("Grüße")
        .execute(db)
        .await?;
    let notice = timeout(PATIENCE, ears.recv()).await??;
    same(
        (notice.channel(), notice.payload()),
        ("news", "Grüße"),
        "the notification",
    )?;
    drop(ears);
    pool.close().await;
    Ok(String::new())
}

async fn large_object(db: &mut PgConnection) -> Outcome {
    let object = object();
    let oid: sqlx::postgres::types::Oid = sqlx::query_scalar("select lo_from_bytea(0, $1)")
        .bind(&object)
        .fetch_one(&mut *db)
        .await?;
    let found: Vec<u8> = sqlx::query_scalar("select lo_get($1)")
        .bind(oid)
        .fetch_one(&mut *db)
        .await?;
    same(found, object, "the object")?;
    let gone: i32 = sqlx::query_scalar("select lo_unlink($1)")
        .bind(oid)
        .fetch_one(db)
        .await?;
    same(gone, 1, "what unlinking says")?;
    Ok("by SQL, the driver has none".to_owned())
}

async fn error(db: &mut PgConnection) -> Outcome {
    sqlx::query("create temp table e (i int primary key)")
        .execute(&mut *db)
        .await?;
    let mut work = db.begin().await?;
    sqlx::query("insert into e values (1)")
        .execute(&mut *work)
        .await?;
    let failed = sqlx::query("select 1 / 0").execute(&mut *work).await;
    same(state(failed)?, "22012".to_owned(), "the SQLSTATE")?;
    let failed = sqlx::query("select 1").execute(&mut *work).await;
    same(state(failed)?, "25P02".to_owned(), "the SQLSTATE")?;
    work.rollback().await?;
    let mut work = db.begin().await?;
    let insert = "insert into e values ($1)";
    sqlx::query(insert).bind(1).execute(&mut *work).await?;
    let mut inner = work.begin().await?;
    let failed = sqlx::query(insert).bind(1).execute(&mut *inner).await;
    same(state(failed)?, "23505".to_owned(), "the SQLSTATE")?;
    inner.rollback().await?;
    sqlx::query(insert).bind(2).execute(&mut *work).await?;
    work.commit().await?;
    let found: (i64, i64) = sqlx::query_as("select count(*), sum(i) from e")
        .fetch_one(db)
        .await?;
    same(found, (2, 3), "the table")?;
    Ok(String::new())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut db = match PgConnection::connect_with(&options()).await {
        Ok(connected) => connected,
        Err(error) => return report("connect", Err(error.into())),
    };
    report("login", login(&mut db).await);
    report("parameters", parameters(&mut db).await);
    report("prepared", prepared(&mut db).await);
    report("pool", pool().await);
    report("copy", copy(&mut db).await);
    report("stream", stream(&mut db).await);
    report("listen", listen(&mut db).await);
    report("large object", large_object(&mut db).await);
    skip("cancel");
    report("error", error(&mut db).await);
    report(
        "close",
        db.close().await.map(|()| String::new()).map_err(Into::into),
    );
}
