# shellcheck shell=sh
# What the shell programs of the matrix share. Where to connect comes from PGHOST, PGPORT, PGUSER,
# PGDATABASE and PGSSLMODE; JUDGE_ROLE is the role that the server must have logged in. There is no
# password anywhere.
set -eu
: "${PGHOST:?}" "${PGPORT:?}" "${PGUSER:?}" "${PGDATABASE:?}" "${PGSSLMODE:?}" "${JUDGE_ROLE:?}"

work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT

ok() { printf 'ok %s\n' "$1"; }
skip() { printf 'skip %s (%s)\n' "$1" "$2"; }
fail() {
    printf 'FAIL %s\n' "$1"
    exit 1
}

# same WHAT FOUND EXPECTED
same() {
    [ "$2" = "$3" ] || fail "$1: is '$(printf %s "$2" | head -c 300)', not '$(printf %s "$3" | head -c 300)'"
}

# psql that ends at the first error and says only what it was asked.
ask() { psql -X -w -A -t -q -v ON_ERROR_STOP=1 "$@"; }

# Waits until a query answers t; at most 30 s.
wait_until() {
    left=600
    until [ "$(ask -c "$1")" = t ]; do
        left=$((left - 1))
        [ "$left" -gt 0 ] || fail "never came true: $1"
        sleep 0.05
    done
}

copy_rows=100000
# The rows that every client copies: a number, a tab, some text.
rows() { awk -v n="$copy_rows" 'BEGIN { for (i = 1; i <= n; i++) printf "%d\trow %d äöü\n", i, i }'; }
copy_check() { printf "select md5(string_agg(id || E'\\\\t' || t || E'\\\\n', '' order by id)) from %s" "$1"; }
sum() { md5sum | cut -d' ' -f1; }
