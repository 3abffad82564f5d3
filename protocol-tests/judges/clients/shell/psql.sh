#!/bin/sh
# psql. With LIBPQ, a folder with a newer libpq, on that one.
. "$(dirname "$0")/judge.sh"
if [ -n "${LIBPQ:-}" ]; then
    LD_LIBRARY_PATH="$LIBPQ"
    export LD_LIBRARY_PATH
fi

same login "$(ask -c "select current_user, current_database(), 6 * 7")" "$JUDGE_ROLE|$PGDATABASE|42"
case "$PGSSLMODE:$(ask -c '\conninfo')" in
    disable:*"SSL connection"*) fail "login: TLS that nobody asked for" ;;
    disable:*) ;;
    *"SSL connection"*) ;;
    *) fail "login: no TLS" ;;
esac
PGOPTIONS='-c client_min_messages=warning' ask -c 'drop table if exists psql_c, psql_e'
ok login

# A connection string, and no environment at all but the file names that keep it from finding more.
uri="postgresql://localhost:$PGPORT/$PGDATABASE?sslmode=$PGSSLMODE"
same "connection string" "$(env -i PATH="$PATH" LD_LIBRARY_PATH="${LD_LIBRARY_PATH:-}" PGPASSFILE=/nonexistent \
    psql -X -w -A -t -c 'select current_user' "$uri")" "$JUDGE_ROLE"
ok "connection string"

same parameters "$(ask -v text="it's 世界 🐘 \\ \"two\"" <<'SQL'
prepare p (int, bigint, numeric, bool, text, text, bytea, date, int[]) as
  select $1 = -42, $2 = 9007199254740993, $3 = 12345678901234567890.123456789, $4, $5, $6 is null,
         md5($7), $8 + 1, $9;
execute p (-42, 9007199254740993, 12345678901234567890.123456789, true, :'text', null, '\x0001ff',
           '2024-02-28', '{1,NULL,3}');
SQL
)" "t|t|t|t|it's 世界 🐘 \\ \"two\"|t|$(printf '\000\001\377' | sum)|2024-02-29|{1,NULL,3}"
# A command line takes 128 KiB, a variable more.
awk 'BEGIN { for (i = 0; i < 125000; i++) printf "äbcdefg🐘" }' >"$work/big"
same "1 MB text" "$(ask -v file="$work/big" <<'SQL'
\set big `cat :file`
select md5(:'big'), length(:'big');
SQL
)" "$(sum <"$work/big")|1000000"
same "1 MB text" "$(ask -c "select string_agg('äbcdefg🐘', '') from generate_series(1, 125000)" | tr -d '\n' | sum)" \
    "$(sum <"$work/big")"
ok parameters

same prepared "$(
    {
        # shellcheck disable=SC2016 # Its parameters are the server's.
        echo 'prepare square (int) as select $1 * $1;'
        for i in 1 2 3 4 5 6 7 8 9 10; do echo "execute square ($i);"; done
    } | ask | awk '{ s += $1 } END { printf "%.0f\n", s }'
)" 385
ok prepared

same batch "$(echo 'select 1\; select 2\; select 3;' | ask | tr '\n' ' ')" '1 2 3 '
ok batch

rows >"$work/rows"
ask <<SQL
create table psql_c (id int, t text);
\\copy psql_c from '$work/rows'
\\copy (select * from psql_c order by id) to '$work/copied'
SQL
same copy "$(ask -c "$(copy_check psql_c)")" "$(sum <"$work/rows")"
same copy "$(sum <"$work/copied")" "$(sum <"$work/rows")"
same copy "$(ask -c 'copy (select * from psql_c order by id) to stdout' | sum)" "$(sum <"$work/rows")"
same cursor "$(ask -v FETCH_COUNT=100 -c 'select id from psql_c' | awk '{ s += $1 } END { printf "%.0f\n", s }')" 5000050000
ask -c 'drop table psql_c'
ok copy

# The listener asks on until the notice is there.
mkfifo "$work/listener"
psql -X -w -A -t -q <"$work/listener" >"$work/heard" &
listener=$!
exec 3>"$work/listener"
printf '%s\n' 'listen news; \echo listening' >&3
left=600
until grep -q listening "$work/heard"; do
    left=$((left - 1))
    [ "$left" -gt 0 ] || fail "listen: never listened"
    sleep 0.05
done
ask -c "select pg_notify('news', 'Grüße')" >/dev/null
left=600
until grep -q 'Asynchronous notification "news" with payload "Grüße" received' "$work/heard"; do
    left=$((left - 1))
    [ "$left" -gt 0 ] || fail "listen: nothing heard: $(cat "$work/heard")"
    printf '%s\n' 'select 1;' >&3
    sleep 0.05
done
exec 3>&-
wait "$listener"
ok listen

# lo_import and lo_export are made of function calls, a part of the protocol of their own.
head -c 300000 "$work/big" >"$work/object"
ask <<SQL
\\lo_import '$work/object'
\\set object :LASTOID
\\lo_export :object '$work/exported'
select md5(lo_get(:object)) \\g '$work/md5'
\\lo_unlink :object
SQL
cmp "$work/object" "$work/exported" || fail "large object: came back different"
same "large object" "$(cat "$work/md5")" "$(sum <"$work/object")"
ok "large object"

# Ctrl-C. After it psql goes on with the next command, on the same connection; it prints no more
# tables, but still copies.
pid="copy (select pg_backend_pid()) to stdout"
PGAPPNAME=sleeping-psql psql -X -w -A -t -q -c "$pid" -c 'select pg_sleep(60)' -c "$pid" \
    >"$work/pids" 2>"$work/cancelled" &
sleeper=$!
wait_until "select exists (select from pg_stat_activity where application_name = 'sleeping-psql'
    and state = 'active' and wait_event = 'PgSleep')"
kill -INT "$sleeper"
# What it ends with is that of the cancelled one.
wait "$sleeper" || true
grep -q 'canceling statement due to user request' "$work/cancelled" || fail "cancel: $(cat "$work/cancelled")"
same cancel "$(sort -u "$work/pids" | wc -l) $(wc -l <"$work/pids")" "1 2"
ok cancel

ask -c 'create table psql_e (i int primary key)'
same error "$(psql -X -w -A -t -q 2>/dev/null <<'SQL'
begin;
insert into psql_e values (1);
select 1 / 0;
\echo :SQLSTATE
select 1;
\echo :SQLSTATE
rollback;
begin;
insert into psql_e values (1);
savepoint s;
insert into psql_e values (1);
\echo :SQLSTATE
rollback to s;
insert into psql_e values (2);
commit;
select count(*), sum(i) from psql_e;
SQL
)" "22012
25P02
23505
2|3"
ask -c 'drop table psql_e'
ok error

if [ -z "${LIBPQ:-}" ]; then
    skip "direct TLS" "needs libpq 17"
elif [ "$PGSSLMODE" = disable ]; then
    skip "direct TLS" "needs TLS"
else
    same "direct TLS" "$(ask -d "sslnegotiation=direct" -c 'select current_user')" "$JUDGE_ROLE"
    ok "direct TLS"
fi
if [ -n "${LIBPQ:-}" ] && [ "${JUDGE_PROTOCOL:-3.0}" = 3.2 ]; then
    same "protocol 3.2" "$(ask -d "min_protocol_version=3.2" -c 'select current_user')" "$JUDGE_ROLE"
    ok "protocol 3.2"
else
    skip "protocol 3.2" "needs libpq 18 and a server that speaks it"
fi
