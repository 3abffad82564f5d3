// lib/pq, by database/sql.
package main

import (
	"context"
	"database/sql"
	"errors"
	"net"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/lib/pq"
)

var ctx = context.Background()

func open(text string) *sql.DB {
	db, err := sql.Open("postgres", text)
	check(err)
	return db
}

func state(err error) string {
	var failure *pq.Error
	if !errors.As(err, &failure) {
		return ""
	}
	return string(failure.Code)
}

func login(db *sql.DB) {
	var who, where string
	var n int
	check(db.QueryRow("select current_user, current_database(), 6 * 7").Scan(&who, &where, &n))
	same([]any{who, where, n}, []any{role, database, 42})
	// Without sslmode it takes TLS and does not verify the certificate.
	os.Unsetenv("PGSSLMODE")
	defer os.Setenv("PGSSLMODE", map[bool]string{true: "require", false: "disable"}[tls])
	at := url.URL{Scheme: "postgres", Path: database}
	at.Host = net.JoinHostPort(os.Getenv("PGHOST"), os.Getenv("PGPORT"))
	byURL := open(at.String())
	defer byURL.Close()
	check(byURL.QueryRow("select current_user").Scan(&who))
	same(who, role)
}

func parameters(db *sql.DB) {
	var i int64
	var f float64
	var yes bool
	var found string
	var none sql.NullString
	var data []byte
	var numbers []int64
	when := time.Date(2024, 2, 29, 12, 30, 1, 5000, time.UTC)
	var seen time.Time
	row := db.QueryRow("select $1::int8, $2::float8, $3::bool, $4::text, $5::text, $6::bytea, $7::int8[], $8::timestamptz",
		int64(9007199254740993), 0.1, true, text, nil, bytes(), pq.Array([]int64{1, 2, 3}), when)
	check(row.Scan(&i, &f, &yes, &found, &none, &data, pq.Array(&numbers), &seen))
	same([]any{i, f, yes, found, none.Valid, data, numbers, seen.Equal(when)},
		[]any{int64(9007199254740993), 0.1, true, text, false, bytes(), []int64{1, 2, 3}, true})
	var hash string
	check(db.QueryRow("select md5($1), $1::text", big).Scan(&hash, &found))
	same([]any{hash, found == big}, []any{sum(big), true})
}

func prepared(db *sql.DB) {
	statement, err := db.Prepare("select $1::int * $1::int")
	check(err)
	defer statement.Close()
	total := 0
	for i := 1; i <= 10; i++ {
		var square int
		check(statement.QueryRow(i).Scan(&square))
		total += square
	}
	same(total, 385)
}

func pool() {
	db := open("")
	db.SetMaxOpenConns(8)
	defer db.Close()
	var all sync.WaitGroup
	squares := make(chan int, 40)
	for i := 1; i <= 40; i++ {
		all.Add(1)
		go func(i int) {
			defer all.Done()
			square := -1
			_ = db.QueryRow("select $1::int * $1::int", i).Scan(&square)
			squares <- square
		}(i)
	}
	all.Wait()
	close(squares)
	total := 0
	for square := range squares {
		total += square
	}
	same(total, 22140)
}

func copyIn(db *sql.DB) {
	tx, err := db.Begin()
	check(err)
	defer tx.Rollback()
	_, err = tx.Exec("create temp table c (id int, t text) on commit drop")
	check(err)
	into, err := tx.Prepare(pq.CopyIn("c", "id", "t"))
	check(err)
	for i := 1; i <= copyRows; i++ {
		_, err = into.Exec(i, cell(i))
		check(err)
	}
	_, err = into.Exec()
	check(err)
	check(into.Close())
	var hash string
	check(tx.QueryRow(copyCheck).Scan(&hash))
	same(hash, sum(lines()))
}

func listen(db *sql.DB) {
	ears := pq.NewListener("", time.Second, time.Second, nil)
	defer ears.Close()
	check(ears.Listen("news"))
	_, err := db.Exec("select pg_notify('news', $1)", "Grüße")
	check(err)
	heard := soon(ears.Notify)
	same([]any{heard.Channel, heard.Extra}, []any{"news", "Grüße"})
}

func cancel(db *sql.DB) {
	con, err := db.Conn(ctx)
	check(err)
	defer con.Close()
	var pid, after int
	check(con.QueryRowContext(ctx, "select pg_backend_pid()").Scan(&pid))
	limited, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() {
		_, err := con.ExecContext(limited, sleep)
		ended <- err
	}()
	waitUntil(func() bool {
		var sleeping bool
		check(db.QueryRow(asleep, pid).Scan(&sleeping))
		return sleeping
	})
	// The driver sends a CancelRequest on a connection of its own.
	stop()
	same(state(soon(ended)), "57014")
	// It does not use such a connection again.
	check(db.QueryRow("select pg_backend_pid()").Scan(&after))
	same(after == pid, false)
}

func failures(db *sql.DB) {
	tx, err := db.Begin()
	check(err)
	_, err = tx.Exec("create temp table e (i int primary key) on commit drop")
	check(err)
	_, err = tx.Exec("insert into e values (1)")
	check(err)
	_, err = tx.Exec("savepoint s")
	check(err)
	_, err = tx.Exec("insert into e values ($1)", 1)
	var failure *pq.Error
	same(errors.As(err, &failure), true)
	same([]any{failure.Code, failure.Constraint}, []any{"23505", "e_pkey"})
	_, err = tx.Exec("select 1")
	same(state(err), "25P02")
	_, err = tx.Exec("rollback to s")
	check(err)
	_, err = tx.Exec("select 1 / 0")
	same(state(err), "22012")
	check(tx.Rollback())
	same(state(db.QueryRow("select * from e").Err()), "42P01")
}

func main() {
	// It refuses to start with this variable of libpq.
	os.Unsetenv("PGSERVICEFILE")
	db := open("")
	db.SetMaxOpenConns(4)
	defer db.Close()
	step("login", func() { login(db) })
	step("parameters", func() { parameters(db) })
	step("prepared", func() { prepared(db) })
	step("pool", pool)
	step("copy", func() { copyIn(db) })
	skip("copy out", "the driver has none")
	step("listen", func() { listen(db) })
	step("cancel", func() { cancel(db) })
	step("error", func() { failures(db) })
}
