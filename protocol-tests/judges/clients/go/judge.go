// What the Go programs of the matrix share: the values, and how a step is reported.
//
// Where to connect comes from PGHOST, PGPORT, PGUSER, PGDATABASE and PGSSLMODE, which both drivers
// read; JUDGE_ROLE is the role that the server must have logged in. There is no password anywhere.
package main

import (
	"crypto/md5"
	"fmt"
	"os"
	"strings"
	"time"
)

const (
	text     = "Grüße, 世界 🐘 'quoted' \\ \"twice\"\ttab\nline"
	copyRows = 100_000
	patience = 30 * time.Second
	sleep    = "select pg_sleep(60)"
	// The sum over a copied table, at the server.
	copyCheck = `select md5(string_agg(id || E'\t' || t || E'\n', '' order by id)) from c`
	asleep    = `select exists (select from pg_stat_activity
		where pid = $1 and state = 'active' and wait_event = 'PgSleep')`
)

var (
	role     = os.Getenv("JUDGE_ROLE")
	database = os.Getenv("PGDATABASE")
	tls      = os.Getenv("PGSSLMODE") != "disable"
	big      = strings.Repeat("äbcdefg🐘", 125_000)
)

func sum(text string) string { return fmt.Sprintf("%x", md5.Sum([]byte(text))) }

// The text in row i of a copied table.
func cell(i int) string { return fmt.Sprintf("row %d äöü", i) }

func lines() string {
	var all strings.Builder
	for i := 1; i <= copyRows; i++ {
		fmt.Fprintf(&all, "%d\t%s\n", i, cell(i))
	}
	return all.String()
}

func bytes() []byte {
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	return all
}

// Ends the step: with the error, if there is one.
func check(err error) {
	if err != nil {
		panic(err)
	}
}

func same(found, expected any) {
	if a, b := fmt.Sprint(found), fmt.Sprint(expected); a != b {
		panic(fmt.Errorf("%.300s instead of %.300s", a, b))
	}
}

func waitUntil(look func() bool) {
	for deadline := time.Now().Add(patience); !look(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			panic("did not come true in time")
		}
	}
}

// What comes through the channel, if it does so in time.
func soon[T any](answers <-chan T) T {
	select {
	case answer := <-answers:
		return answer
	case <-time.After(patience):
		panic("the answer did not come in time")
	}
}

func step(name string, work func()) {
	defer func() {
		if why := recover(); why != nil {
			fmt.Printf("FAIL %s: %v\n", name, why)
			os.Exit(1)
		}
	}()
	work()
	fmt.Printf("ok %s\n", name)
}

func skip(name, why string) { fmt.Printf("skip %s (%s)\n", name, why) }
