//! tokio-postgres, with the TLS of postgres-native-tls.

use std::pin::pin;

use client_judges::{
    COPY_CHECK, Outcome, PATIENCE, SLEEP, TEXT, asleep, big, lines, md5, object, report, same, tls,
    var,
};
use futures_util::future::{join_all, poll_fn, try_join_all};
use futures_util::{SinkExt as _, StreamExt as _, TryStreamExt as _};
use postgres_native_tls::MakeTlsConnector;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::config::SslMode;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, Config, Error, Notification};

/// TLS that verifies nothing, as `sslmode=require` has it in libpq.
fn connector() -> Result<MakeTlsConnector, native_tls::Error> {
    let mut builder = native_tls::TlsConnector::builder();
    builder.danger_accept_invalid_certs(true);
    builder.danger_accept_invalid_hostnames(true);
    Ok(MakeTlsConnector::new(builder.build()?))
}

type Connected = (Client, UnboundedReceiver<Notification>);

async fn connect() -> Result<Connected, Box<dyn std::error::Error + Send + Sync>> {
    let mut config = Config::new();
    config
        .host(var("PGHOST"))
        .port(var("PGPORT").parse()?)
        .user(var("PGUSER"))
        .dbname(var("PGDATABASE"))
        .ssl_mode(if tls() {
            SslMode::Require
        } else {
            SslMode::Disable
        });
    let (client, mut connection) = config.connect(connector()?).await?;
    let (sender, receiver) = unbounded_channel();
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
            if let AsyncMessage::Notification(notification) = message {
                let _ = sender.send(notification);
            }
        }
    });
    Ok((client, receiver))
}

fn state(result: Result<impl Sized, Error>) -> Result<SqlState, String> {
    match result {
        Ok(_) => Err("it went well".to_owned()),
        Err(error) => match error.code() {
            Some(code) => Ok(code.clone()),
            None => Err(format!("no SQLSTATE: {error:?}")),
        },
    }
}

async fn login(db: &Client) -> Outcome {
    let row = db
        .query_one(
            "select current_user::text, current_database()::text, 6 * 7",
            &[],
        )
        .await?;
    let found: (String, String, i32) = (row.get(0), row.get(1), row.get(2));
    same(found, (var("JUDGE_ROLE"), var("PGDATABASE"), 42), "the row")?;
    Ok(String::new())
}

async fn parameters(db: &Client) -> Outcome {
    let bytes: Vec<u8> = (0..=255).collect();
    let array = vec![Some(1), None, Some(3)];
    let none: Option<String> = None;
    let row = db
        .query_one(
            "select $1::int, $2::int8, $3::float8, $4::bool, $5::text, $6::text, $7::int[], $8::bytea",
            &[&-42, &9_007_199_254_740_993_i64, &0.1, &true, &TEXT, &none, &array, &bytes],
        )
        .await?;
    same(row.get::<_, i32>(0), -42, "the int")?;
    same(
        row.get::<_, i64>(1),
        9_007_199_254_740_993,
        "the long number",
    )?;
    same(row.get::<_, f64>(2), 0.1, "the float")?;
    same(row.get::<_, bool>(3), true, "the bool")?;
    same(row.get::<_, &str>(4), TEXT, "the text")?;
    same(row.get::<_, Option<String>>(5), none, "the null")?;
    same(row.get::<_, Vec<Option<i32>>>(6), array, "the array")?;
    same(row.get::<_, Vec<u8>>(7), bytes, "the bytes")?;
    let big = big();
    let row = db.query_one("select md5($1), $1::text", &[&big]).await?;
    same(row.get::<_, String>(0), md5(&big), "the sum of 1 MB")?;
    same(row.get::<_, String>(1), big, "1 MB")?;
    Ok(String::new())
}

async fn prepared(db: &Client) -> Outcome {
    let statement = db.prepare("select $1::int * 7 * $1::int").await?;
    let mut total = 0;
    for i in 1..=10_i32 {
        total += db.query_one(&statement, &[&i]).await?.get::<_, i32>(0);
    }
    same(total, 385 * 7, "the sum")?;
    let known = "select count(*) from pg_prepared_statements where statement = 'select $1::int * 7 * $1::int'";
    same(
        db.query_one(known, &[]).await?.get::<_, i64>(0),
        1,
        "the number of statements at the server",
    )?;
    Ok(String::new())
}

async fn pipeline(db: &Client) -> Outcome {
    let statement = db.prepare("select $1::int + 1").await?;
    let numbers: Vec<i32> = (0..200).collect();
    // All are sent before the first answer is there.
    let asked = numbers.iter().map(async |i| {
        let row = db.query_one(&statement, &[i]).await?;
        Ok::<i32, Error>(row.get(0))
    });
    let answers = try_join_all(asked).await?;
    same(answers, (1..=200).collect(), "the answers")?;
    let mixed = ["select 1", "select 1 / 0", "select 2"].map(|sql| db.simple_query(sql));
    let mixed: Vec<bool> = join_all(mixed).await.iter().map(Result::is_ok).collect();
    same(mixed, vec![true, false, true], "what went well")?;
    Ok(String::new())
}

async fn copy(db: &Client) -> Outcome {
    let lines = lines();
    let sum = md5(&lines);
    db.batch_execute("create temp table c (id int, t text)")
        .await?;
    let mut into = pin!(db.copy_in("copy c from stdin").await?);
    for part in lines.as_bytes().chunks(100_000) {
        into.send(bytes::Bytes::copy_from_slice(part)).await?;
    }
    same(into.as_mut().finish().await?, 100_000, "the count")?;
    let row = db.query_one(COPY_CHECK, &[]).await?;
    same(row.get::<_, String>(0), sum.clone(), "the table")?;
    let out = db
        .copy_out("copy (select * from c order by id) to stdout")
        .await?;
    let parts: Vec<bytes::Bytes> = out.try_collect().await?;
    same(md5(parts.concat()), sum, "what came back")?;
    // One that is given up half way leaves nothing.
    let mut into = Box::pin(db.copy_in::<_, bytes::Bytes>("copy c from stdin").await?);
    into.send(lines.as_bytes()[..1000].to_vec().into()).await?;
    drop(into);
    let count = db.query_one("select count(*) from c", &[]).await?;
    same(count.get::<_, i64>(0), 100_000, "the table")?;
    Ok(String::new())
}

async fn listen(db: &Client, heard: &mut UnboundedReceiver<Notification>) -> Outcome {
    let (other, _) = connect().await?;
    db.batch_execute("listen news").await?;
    other
        .execute("select pg_notify('news', 'Grüße')", &[])
        .await?;
    let notice = timeout(PATIENCE, heard.recv()).await?;
    let notice = notice.ok_or("the connection ended")?;
    same(
        (notice.channel(), notice.payload()),
        ("news", "Grüße"),
        "the notification",
    )?;
    db.batch_execute("unlisten news").await?;
    Ok(String::new())
}

async fn large_object(db: &Client) -> Outcome {
    let object = object();
    let row = db
        .query_one("select lo_from_bytea(0, $1)", &[&object])
        .await?;
    let oid: u32 = row.get(0);
    let row = db.query_one("select lo_get($1)", &[&oid]).await?;
    same(row.get::<_, Vec<u8>>(0), object, "the object")?;
    let row = db.query_one("select lo_unlink($1)", &[&oid]).await?;
    same(row.get::<_, i32>(0), 1, "what unlinking says")?;
    Ok("by SQL, the driver has none".to_owned())
}

async fn cancel(db: &Client) -> Outcome {
    let pid = db.query_one("select pg_backend_pid()", &[]).await?;
    let pid: i32 = pid.get(0);
    let token = db.cancel_token();
    let (other, _) = connect().await?;
    let sleeps = asleep(pid);
    let press = async {
        let deadline = Instant::now() + PATIENCE;
        while !other.query_one(&sleeps, &[]).await?.get::<_, bool>(0) {
            if Instant::now() > deadline {
                return Err("it never slept".into());
            }
            sleep(std::time::Duration::from_millis(10)).await;
        }
        token.cancel_query(connector()?).await?;
        Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
    };
    let (slept, pressed) = tokio::join!(timeout(PATIENCE, db.batch_execute(SLEEP)), press);
    pressed?;
    same(state(slept?)?, SqlState::QUERY_CANCELED, "the outcome")?;
    let row = db.query_one("select pg_backend_pid()", &[]).await?;
    same(row.get::<_, i32>(0), pid, "the process")?;
    Ok(String::new())
}

async fn error(db: &mut Client) -> Outcome {
    db.batch_execute("create temp table e (i int primary key)")
        .await?;
    let work = db.transaction().await?;
    work.execute("insert into e values (1)", &[]).await?;
    let failed = state(work.execute("select 1 / 0", &[]).await)?;
    same(failed, SqlState::DIVISION_BY_ZERO, "the SQLSTATE")?;
    let failed = state(work.execute("select 1", &[]).await)?;
    same(failed, SqlState::IN_FAILED_SQL_TRANSACTION, "the SQLSTATE")?;
    work.rollback().await?;
    let mut work = db.transaction().await?;
    work.execute("insert into e values (1)", &[]).await?;
    let inner = work.transaction().await?;
    let failed = state(inner.execute("insert into e values (1)", &[]).await)?;
    same(failed, SqlState::UNIQUE_VIOLATION, "the SQLSTATE")?;
    inner.rollback().await?;
    work.execute("insert into e values (2)", &[]).await?;
    work.commit().await?;
    let row = db.query_one("select count(*), sum(i) from e", &[]).await?;
    same((row.get(0), row.get(1)), (2_i64, 3_i64), "the table")?;
    Ok(String::new())
}

async fn cursor(db: &mut Client) -> Outcome {
    let work = db.transaction().await?;
    let portal = work.bind("select generate_series(1, 1000)", &[]).await?;
    let mut total = 0;
    loop {
        let rows = work.query_portal_raw(&portal, 100).await?;
        let mut rows = pin!(rows);
        let mut any = false;
        while let Some(row) = rows.next().await {
            total += row?.get::<_, i32>(0);
            any = true;
        }
        if !any {
            break;
        }
    }
    work.commit().await?;
    same(total, 500_500, "the sum")?;
    Ok(String::new())
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let (mut db, mut heard) = match connect().await {
        Ok(connected) => connected,
        Err(error) => return report("connect", Err(error)),
    };
    report("login", login(&db).await);
    report("parameters", parameters(&db).await);
    report("prepared", prepared(&db).await);
    report("pipeline", pipeline(&db).await);
    report("copy", copy(&db).await);
    report("portal", cursor(&mut db).await);
    report("listen", listen(&db, &mut heard).await);
    report("large object", large_object(&db).await);
    report("cancel", cancel(&db).await);
    report("error", error(&mut db).await);
}
