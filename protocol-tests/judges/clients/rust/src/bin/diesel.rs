//! Diesel, on the libpq of the system, which reads the environment by itself.

use client_judges::{Outcome, TEXT, big, md5, object, report, same, skip, var};
use diesel::prelude::*;
use diesel::result::{DatabaseErrorKind, Error};
use diesel::sql_types::{Binary, Bool, Double, Integer, Nullable, Oid, Text};
use diesel::{dsl, sql_query};

diesel::table! {
    diesel_item (id) {
        id -> Integer,
        name -> Text,
        number -> BigInt,
        data -> Nullable<Binary>,
        list -> Array<Nullable<Integer>>,
    }
}

#[derive(Insertable, Queryable, Selectable, Clone, Debug, PartialEq)]
#[diesel(table_name = diesel_item, treat_none_as_default_value = false)]
struct Item {
    id: i32,
    name: String,
    number: i64,
    data: Option<Vec<u8>>,
    list: Vec<Option<i32>>,
}

fn item(id: i32) -> Item {
    Item {
        id,
        name: format!("{TEXT} {id}"),
        number: 9_007_199_254_740_993,
        data: (id % 2 == 0).then(|| (0..=255).collect()),
        list: vec![Some(id), None],
    }
}

fn one<T, ST>(db: &mut PgConnection, sql: &str) -> QueryResult<T>
where
    ST: diesel::sql_types::SqlType
        + diesel::sql_types::SingleValue
        + diesel::expression::TypedExpressionType,
    T: diesel::deserialize::FromSql<ST, diesel::pg::Pg>
        + diesel::deserialize::FromSqlRow<ST, diesel::pg::Pg>
        + 'static,
    diesel::pg::Pg: diesel::sql_types::HasSqlType<ST>,
    T: Queryable<ST, diesel::pg::Pg>,
{
    diesel::select(dsl::sql::<ST>(sql)).get_result(db)
}

fn login(db: &mut PgConnection) -> Outcome {
    let found: String = one::<_, Text>(
        db,
        "current_user || '/' || current_database() || '/' || 6 * 7",
    )?;
    let expected = format!("{}/{}/42", var("JUDGE_ROLE"), var("PGDATABASE"));
    same(found, expected, "the row")?;
    Ok(String::new())
}

fn parameters(db: &mut PgConnection) -> Outcome {
    sql_query("set client_min_messages = warning").execute(db)?;
    sql_query("drop table if exists diesel_item").execute(db)?;
    sql_query(
        "create table diesel_item (id int primary key, name text not null, number int8 not null, \
         data bytea, list int[] not null)",
    )
    .execute(db)?;
    let items: Vec<Item> = (0..1000).map(item).collect();
    let added = diesel::insert_into(diesel_item::table)
        .values(&items)
        .execute(db)?;
    same(added, 1000, "the count")?;
    let found: Vec<Item> = diesel_item::table
        .order(diesel_item::id)
        .select(Item::as_select())
        .load(db)?;
    same(found, items, "the items")?;
    let found: (f64, bool) =
        diesel::select((0.1.into_sql::<Double>(), true.into_sql::<Bool>())).get_result(db)?;
    same(found, (0.1, true), "the row")?;
    let none: Option<i32> =
        diesel::select(None::<i32>.into_sql::<Nullable<Integer>>()).get_result(db)?;
    same(none, None, "the null")?;
    let big = big();
    let found: (String, String) = diesel::select((
        dsl::sql::<Text>("md5(").bind::<Text, _>(&big).sql(")"),
        (&big).into_sql::<Text>(),
    ))
    .get_result(db)?;
    same(found, (md5(&big), big), "1 MB")?;
    let list: Vec<Option<i32>> = diesel_item::table
        .find(7)
        .select(diesel_item::list)
        .get_result::<Vec<Option<i32>>>(db)?;
    same(list, vec![Some(7), None], "the array")?;
    Ok(String::new())
}

fn prepared(db: &mut PgConnection) -> Outcome {
    let mut total = 0;
    for i in 1..=10 {
        total += diesel_item::table
            .filter(diesel_item::id.eq(i))
            .select(diesel_item::id * 7)
            .get_result::<i32>(db)?;
    }
    same(total, 55 * 7, "the sum")?;
    let known: i64 = one::<_, diesel::sql_types::BigInt>(
        db,
        "(select count(*) from pg_prepared_statements where statement like 'SELECT (\"diesel_item\".\"id\" * %')",
    )?;
    same(known, 1, "the number of statements at the server")?;
    Ok(String::new())
}

fn copy(db: &mut PgConnection) -> Outcome {
    use diesel::pg::CopyFormat;
    diesel::delete(diesel_item::table).execute(db)?;
    let items: Vec<Item> = (0..100_000)
        .map(|id| Item {
            name: format!("row {id} äöü"),
            data: (id % 2 == 0).then(|| vec![0, 255]),
            ..item(id)
        })
        .collect();
    let copied = diesel::copy_from(diesel_item::table)
        .from_insertable(&items)
        .execute(db)?;
    same(copied, 100_000, "the count")?;
    let sum: String = one::<_, Text>(
        db,
        "(select md5(string_agg(id || ':' || name, ',' order by id)) from diesel_item)",
    )?;
    let expected: Vec<String> = items
        .iter()
        .map(|item| format!("{}:{}", item.id, item.name))
        .collect();
    same(sum, md5(expected.join(",")), "the table")?;
    // From another connection: after such a COPY, Diesel 2.3 takes no more queries.
    let mut other = connect()?;
    let mut text = String::new();
    let mut out = diesel::copy_to(diesel_item::table)
        .with_format(CopyFormat::Text)
        .load_raw(&mut other)?;
    std::io::Read::read_to_string(&mut out, &mut text)?;
    drop(out);
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_by_key(|line| {
        line.split('\t')
            .next()
            .and_then(|id| id.parse::<i32>().ok())
    });
    let expected: Vec<String> = items
        .iter()
        .map(|item| {
            let data = if item.data.is_some() {
                "\\\\x00ff"
            } else {
                "\\N"
            };
            format!(
                "{}\t{}\t{}\t{data}\t{{{},NULL}}",
                item.id, item.name, item.number, item.id
            )
        })
        .collect();
    same(lines == expected, true, "what came back being the same")?;
    Ok("binary in, text out".to_owned())
}

fn listen(db: &mut PgConnection) -> Outcome {
    let mut other = connect()?;
    sql_query("listen news").execute(db)?;
    sql_query("select pg_notify('news', 'Grüße')").execute(&mut other)?;
    // It gives what has come in with the answers to queries.
    let deadline = std::time::Instant::now() + client_judges::PATIENCE;
    loop {
        sql_query("select 1").execute(db)?;
        if let Some(notice) = db.notifications_iter().next() {
            let notice = notice?;
            same(
                (notice.channel, notice.payload),
                ("news".to_owned(), "Grüße".to_owned()),
                "the notification",
            )?;
            break;
        }
        if std::time::Instant::now() > deadline {
            return Err("nothing was heard".into());
        }
    }
    sql_query("unlisten news").execute(db)?;
    Ok(String::new())
}

fn large_object(db: &mut PgConnection) -> Outcome {
    let object = object();
    let oid: u32 = diesel::select(
        dsl::sql::<Oid>("lo_from_bytea(0, ")
            .bind::<Binary, _>(&object)
            .sql(")"),
    )
    .get_result(db)?;
    let found: Vec<u8> = diesel::select(dsl::sql::<Binary>("lo_get(").bind::<Oid, _>(oid).sql(")"))
        .get_result(db)?;
    same(found, object, "the object")?;
    let gone: i32 = diesel::select(
        dsl::sql::<Integer>("lo_unlink(")
            .bind::<Oid, _>(oid)
            .sql(")"),
    )
    .get_result(db)?;
    same(gone, 1, "what unlinking says")?;
    Ok("by SQL, the driver has none".to_owned())
}

fn error(db: &mut PgConnection) -> Outcome {
    let failed = db.transaction::<(), Error, _>(|db| {
        diesel::delete(diesel_item::table).execute(db)?;
        sql_query("select 1 / 0").execute(db)?;
        Ok(())
    });
    let message = failed.err().map(|error| error.to_string());
    same(message.as_deref(), Some("division by zero"), "the outcome")?;
    let count: i64 = diesel_item::table.count().get_result(db)?;
    same(count, 100_000, "the table")?;
    db.transaction::<(), Error, _>(|db| {
        let again = diesel::insert_into(diesel_item::table).values(item(7));
        // A transaction within a transaction is a savepoint.
        match db.transaction::<usize, Error, _>(|db| again.execute(db)) {
            Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)) => {}
            other => return Err(Error::QueryBuilderError(format!("{other:?}").into())),
        }
        diesel::insert_into(diesel_item::table)
            .values(item(100_000))
            .execute(db)?;
        Ok(())
    })?;
    let count: i64 = diesel_item::table.count().get_result(db)?;
    same(count, 100_001, "the table")?;
    sql_query("drop table diesel_item").execute(db)?;
    Ok("it has no SQLSTATE, but kinds".to_owned())
}

fn connect() -> ConnectionResult<PgConnection> {
    PgConnection::establish("")
}

fn main() {
    let mut db = match connect() {
        Ok(connected) => connected,
        Err(error) => return report("connect", Err(error.into())),
    };
    report("login", login(&mut db));
    report("parameters", parameters(&mut db));
    report("prepared", prepared(&mut db));
    report("copy", copy(&mut db));
    report("listen", listen(&mut db));
    report("large object", large_object(&mut db));
    skip("cancel");
    report("error", error(&mut db));
}
