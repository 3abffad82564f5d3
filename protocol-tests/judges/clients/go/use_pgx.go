// pgx and its pool.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgx/v4"
	"github.com/jackc/pgx/v4/pgxpool"
)

var ctx = context.Background()

func connect(text string) *pgx.Conn {
	db, err := pgx.Connect(ctx, text)
	check(err)
	return db
}

func state(err error) string {
	var failure *pgconn.PgError
	if !errors.As(err, &failure) {
		return ""
	}
	return failure.Code
}

func login(db *pgx.Conn) {
	var who, where string
	var n int
	check(db.QueryRow(ctx, "select current_user::text, current_database()::text, 6 * 7").Scan(&who, &where, &n))
	same([]any{who, where, n}, []any{role, database, 42})
	same(db.Config().TLSConfig != nil, tls)
	other := connect(fmt.Sprintf("postgres://%s:%s/%s", os.Getenv("PGHOST"), os.Getenv("PGPORT"), database))
	defer other.Close(ctx)
	check(other.QueryRow(ctx, "select current_user::text").Scan(&who))
	same(who, role)
}

func parameters(db *pgx.Conn) {
	var i int64
	var f float64
	var yes bool
	var found string
	var none *string
	var data []byte
	var numbers []int64
	var seen time.Time
	when := time.Date(2024, 2, 29, 12, 30, 1, 5000, time.UTC)
	row := db.QueryRow(ctx, "select $1::int8, $2::float8, $3::bool, $4::text, $5::text, $6::bytea, $7::int8[], $8::timestamptz",
		int64(9007199254740993), 0.1, true, text, nil, bytes(), []int64{1, 2, 3}, when)
	check(row.Scan(&i, &f, &yes, &found, &none, &data, &numbers, &seen))
	same([]any{i, f, yes, found, none == nil, data, numbers, seen.Equal(when)},
		[]any{int64(9007199254740993), 0.1, true, text, true, bytes(), []int64{1, 2, 3}, true})
	var hash string
	check(db.QueryRow(ctx, "select md5($1), $1::text", big).Scan(&hash, &found))
	same([]any{hash, found == big}, []any{sum(big), true})
}

func prepared(db *pgx.Conn) {
	_, err := db.Prepare(ctx, "square", "select $1::int * $1::int")
	check(err)
	total, square, known := 0, 0, 0
	for i := 1; i <= 10; i++ {
		check(db.QueryRow(ctx, "square", i).Scan(&square))
		total += square
	}
	same(total, 385)
	check(db.QueryRow(ctx, "select count(*)::int from pg_prepared_statements where name = 'square'").Scan(&known))
	same(known, 1)
}

func batch(db *pgx.Conn) {
	var asked pgx.Batch
	for i := 0; i < 200; i++ {
		asked.Queue("select $1::int + 1", i)
	}
	answers := db.SendBatch(ctx, &asked)
	total, n := 0, 0
	for i := 0; i < 200; i++ {
		check(answers.QueryRow().Scan(&n))
		total += n
	}
	check(answers.Close())
	same(total, 20100)
}

func pool() {
	config, err := pgxpool.ParseConfig("")
	check(err)
	config.MaxConns = 8
	db, err := pgxpool.ConnectConfig(ctx, config)
	check(err)
	defer db.Close()
	var all sync.WaitGroup
	squares := make([]int, 40)
	for i := range squares {
		all.Add(1)
		go func(i int) {
			defer all.Done()
			_ = db.QueryRow(ctx, "select $1::int * $1::int", i+1).Scan(&squares[i])
		}(i)
	}
	all.Wait()
	total := 0
	for _, square := range squares {
		total += square
	}
	same(total, 22140)
}

func copyBoth(db *pgx.Conn) {
	_, err := db.Exec(ctx, "create temp table c (id int, t text)")
	check(err)
	whole := func() {
		var hash string
		check(db.QueryRow(ctx, copyCheck).Scan(&hash))
		same(hash, sum(lines()))
	}
	// In binary.
	rows := pgx.CopyFromSlice(copyRows, func(i int) ([]any, error) { return []any{i + 1, cell(i + 1)}, nil })
	_, err = db.CopyFrom(ctx, pgx.Identifier{"c"}, []string{"id", "t"}, rows)
	check(err)
	whole()
	_, err = db.Exec(ctx, "truncate c")
	check(err)
	_, err = db.PgConn().CopyFrom(ctx, strings.NewReader(lines()), "copy c from stdin")
	check(err)
	whole()
	var out strings.Builder
	_, err = db.PgConn().CopyTo(ctx, &out, "copy (select * from c order by id) to stdout")
	check(err)
	same(sum(out.String()), sum(lines()))
}

func listen(db *pgx.Conn) {
	other := connect("")
	defer other.Close(ctx)
	_, err := db.Exec(ctx, "listen news")
	check(err)
	_, err = other.Exec(ctx, "select pg_notify('news', $1)", "Grüße")
	check(err)
	limited, stop := context.WithTimeout(ctx, patience)
	defer stop()
	heard, err := db.WaitForNotification(limited)
	check(err)
	same([]any{heard.Channel, heard.Payload, heard.PID}, []any{"news", "Grüße", other.PgConn().PID()})
	_, err = db.Exec(ctx, "unlisten news")
	check(err)
}

func largeObject(db *pgx.Conn) {
	tx, err := db.Begin(ctx)
	check(err)
	defer tx.Rollback(ctx)
	objects := tx.LargeObjects()
	oid, err := objects.Create(ctx, 0)
	check(err)
	object, err := objects.Open(ctx, oid, pgx.LargeObjectModeRead|pgx.LargeObjectModeWrite)
	check(err)
	written := []byte(big[:300_000])
	_, err = object.Write(written)
	check(err)
	_, err = object.Seek(0, 0)
	check(err)
	read := make([]byte, len(written))
	n, err := object.Read(read)
	check(err)
	same([]any{n, sum(string(read))}, []any{len(written), sum(string(written))})
	check(objects.Unlink(ctx, oid))
}

func cancel(db *pgx.Conn) {
	other := connect("")
	defer other.Close(ctx)
	ended := make(chan error, 1)
	pid := db.PgConn().PID()
	go func() {
		_, err := db.Exec(ctx, sleep)
		ended <- err
	}()
	waitUntil(func() bool {
		var sleeping bool
		check(other.QueryRow(ctx, asleep, pid).Scan(&sleeping))
		return sleeping
	})
	check(db.PgConn().CancelRequest(ctx))
	same(state(soon(ended)), "57014")
	var after uint32
	check(db.QueryRow(ctx, "select pg_backend_pid()").Scan(&after))
	same(after, pid)
}

func failures(db *pgx.Conn) {
	tx, err := db.Begin(ctx)
	check(err)
	_, err = tx.Exec(ctx, "create temp table e (i int primary key); insert into e values (1)")
	check(err)
	nested, err := tx.Begin(ctx)
	check(err)
	_, err = nested.Exec(ctx, "insert into e values ($1)", 1)
	var failure *pgconn.PgError
	same(errors.As(err, &failure), true)
	same([]any{failure.Code, failure.ConstraintName}, []any{"23505", "e_pkey"})
	_, err = nested.Exec(ctx, "select 1")
	same(state(err), "25P02")
	check(nested.Rollback(ctx))
	_, err = tx.Exec(ctx, "insert into e values (2)")
	check(err)
	check(tx.Commit(ctx))
	var n, total int
	check(db.QueryRow(ctx, "select count(*)::int, sum(i)::int from e").Scan(&n, &total))
	same([]any{n, total}, []any{2, 3})
	_, err = db.Exec(ctx, "select 1 / 0")
	same(state(err), "22012")
}

func main() {
	db := connect("")
	defer db.Close(ctx)
	step("login", func() { login(db) })
	step("parameters", func() { parameters(db) })
	step("prepared", func() { prepared(db) })
	step("batch", func() { batch(db) })
	step("pool", pool)
	step("copy", func() { copyBoth(db) })
	step("listen", func() { listen(db) })
	step("large object", func() { largeObject(db) })
	step("cancel", func() { cancel(db) })
	step("error", func() { failures(db) })
}
