// Every string that pgiam generates, read and used by the parser and drivers of Go.
// See python/use_generated.py for JUDGE_STRINGS.
package main

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v4"
	_ "github.com/lib/pq"
)

const who = "select current_user::text, current_database()::text"

func byPq(text string) (role, database string, err error) {
	db, err := sql.Open("postgres", text)
	if err != nil {
		return
	}
	defer db.Close()
	err = db.QueryRow(who).Scan(&role, &database)
	return
}

func connect(config *pgx.ConnConfig) (role, database string, err error) {
	ctx := context.Background()
	db, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return
	}
	defer db.Close(ctx)
	err = db.QueryRow(ctx, who).Scan(&role, &database)
	return
}

func byPgx(text string) (role, database string, err error) {
	config, err := pgx.ParseConfig(text)
	if err != nil {
		return
	}
	return connect(config)
}

// As programs do that take a URL apart by themselves.
func byNetURL(text string) (role, database string, err error) {
	at, err := url.Parse(text)
	if err != nil {
		return
	}
	config, err := pgx.ParseConfig("")
	if err != nil {
		return
	}
	port, err := strconv.ParseUint(at.Port(), 10, 16)
	if err != nil {
		return
	}
	config.Host, config.Port, config.User = at.Hostname(), uint16(port), at.User.Username()
	config.Database, config.TLSConfig, config.Fallbacks = strings.TrimPrefix(at.Path, "/"), nil, nil
	return connect(config)
}

func cases() [][]string {
	file := os.Getenv("JUDGE_STRINGS")
	if file == "" {
		return [][]string{{"DATABASE_URL", os.Getenv("JUDGE_ROLE"), os.Getenv("JUDGE_DATABASE"), os.Getenv("DATABASE_URL"), "", ""}}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		panic(err)
	}
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "PG") {
			os.Unsetenv(name)
		}
	}
	var cases [][]string
	for _, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		cases = append(cases, strings.Split(line, "\t"))
	}
	return cases
}

func main() {
	failed := false
	judge := func(step, text string, use func(string) (string, string, error), role, database string) {
		foundRole, foundDatabase, err := use(text)
		switch {
		case err != nil:
			fmt.Printf("FAIL %s: %s: %v\n", step, text, err)
		case foundRole != role || foundDatabase != database:
			fmt.Printf("FAIL %s: %s is %s, %s\n", step, text, foundRole, foundDatabase)
		default:
			fmt.Printf("ok %s\n", step)
			return
		}
		failed = true
	}
	for _, one := range cases() {
		name, role, database, text, dsn := one[0], one[1], one[2], one[3], one[5]
		judge("lib/pq, "+name, text, byPq, role, database)
		judge("pgx, "+name, text, byPgx, role, database)
		judge("net/url, "+name, text, byNetURL, role, database)
		if dsn != "" {
			judge("lib/pq, "+name+", DSN", dsn, byPq, role, database)
			judge("pgx, "+name+", DSN", dsn, byPgx, role, database)
		}
	}
	if failed {
		os.Exit(1)
	}
}
