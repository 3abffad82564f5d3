#!/bin/sh
# Logical replication, with a password of the role's own: psql's replication commands and
# pg_recvlogical.
. "$(dirname "$0")/judge.sh"

# What it reads is from PGPASSWORD; the password must not be bound to the TLS of the one in the middle.
PGCHANNELBINDING=disable
export PGCHANNELBINDING
slot="changes_$$"

same login "$(ask -c 'select current_user')" "$JUDGE_ROLE"
PGOPTIONS='-c client_min_messages=warning' ask -c 'drop table if exists replicated'
ask -c 'create table replicated (id int primary key, t text)'
ok login

# The plain commands, on a connection that takes SQL too.
walsender() { ask -d "replication=database" "$@"; }
same "commands" "$(walsender -c IDENTIFY_SYSTEM | cut -d'|' -f4)" "$PGDATABASE"
same "commands" "$(walsender -c 'SHOW wal_level')" logical
same "commands" "$(walsender -c 'select 6 * 7')" 42
walsender -c "CREATE_REPLICATION_SLOT ${slot}_short TEMPORARY LOGICAL test_decoding" >/dev/null
ok commands

recv() { pg_recvlogical -w -d "dbname=$PGDATABASE" --slot "$slot" --no-loop "$@"; }
recv --create-slot -P test_decoding
same slot "$(ask -c "select plugin, database from pg_replication_slots where slot_name = '$slot'")" \
    "test_decoding|$PGDATABASE"
ok slot

ask <<'SQL'
insert into replicated select i, 'row ' || i || ' äöü' from generate_series(1, 10000) i;
update replicated set t = repeat('äbcdefg🐘', 125000) where id = 1;
delete from replicated where id = 2;
SQL
end="$(ask -c 'select pg_current_wal_insert_lsn()')"
# It ends at the first change behind that place.
ask -c "insert into replicated values (0, 'the end')"
recv --start -f "$work/changes" --endpos "$end"
same changes "$(grep -c '^table public.replicated: INSERT:' "$work/changes")" 10000
same changes "$(sed -n "s/^table public.replicated: INSERT: id\[integer\]:\([0-9]*\) t\[text\]:'row \([0-9]*\) äöü'\$/\1 \2/p" \
    "$work/changes" | awk '$1 == $2 { s += $1 } END { printf "%.0f\n", s }')" 50005000
same "1 MB" "$(sed -n "s/^table public.replicated: UPDATE: id\[integer\]:1 t\[text\]:'\(.*\)'\$/\1/p" "$work/changes" |
    tr -d '\n' | sum)" "$(awk 'BEGIN { for (i = 0; i < 125000; i++) printf "äbcdefg🐘" }' | sum)"
same changes "$(grep -c '^table public.replicated: DELETE: id\[integer\]:2$' "$work/changes")" 1
ok changes

# Changes that come while it waits for them, until it is told to stop.
# Not by the function: that would be a shell of its own, which does not pass signals on.
pg_recvlogical -w -d "dbname=$PGDATABASE" --slot "$slot" --no-loop --start -f "$work/later" --status-interval 1 &
receiver=$!
wait_until "select active from pg_replication_slots where slot_name = '$slot'"
ask -c "insert into replicated values (-1, 'later')"
left=600
until grep -q "t\[text\]:'later'" "$work/later" 2>/dev/null; do
    left=$((left - 1))
    [ "$left" -gt 0 ] || fail "later: it never came: $(cat "$work/later")"
    sleep 0.05
done
kill -INT "$receiver"
wait "$receiver" || fail "later: pg_recvlogical ended with $?"
wait_until "select not active from pg_replication_slots where slot_name = '$slot'"
ok later

recv --drop-slot
same "the slots left" "$(ask -c "select count(*) from pg_replication_slots where slot_name like '$slot%'")" 0
ask -c 'drop table replicated'
ok "dropped slot"
