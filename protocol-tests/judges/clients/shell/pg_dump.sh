#!/bin/sh
# pg_dump and pg_restore, with four connections at once where they have that.
. "$(dirname "$0")/judge.sh"

clean() { ask -c 'set client_min_messages = warning' -c 'drop schema if exists dumped cascade' \
    -c 'select lo_unlink(oid) from pg_largeobject_metadata where lomowner = (select oid from pg_roles where rolname = current_user)' >/dev/null; }

# One line that changes if anything in the tables, the sequence, the view or the large object does.
state() {
    ask <<'SQL'
select (select md5(string_agg(f::text, ',' order by id)) from dumped.first f),
       (select md5(string_agg(s::text, ',' order by id)) from dumped.second s),
       (select md5(string_agg(t::text, ',' order by id)) from dumped.third t),
       (select sum(n) from dumped.totals), nextval('dumped.first_id_seq'),
       (select md5(string_agg(lo_get(oid), null order by oid)) from pg_largeobject_metadata),
       (select count(*) from pg_constraint where connamespace = 'dumped'::regnamespace),
       (select count(*) from pg_indexes where schemaname = 'dumped');
SQL
}

clean
ask >/dev/null <<'SQL'
create schema dumped;
create table dumped.first (id serial primary key, t text, b bytea, at timestamptz default '2024-02-29 12:00+00');
insert into dumped.first (t, b) select repeat('Grüße 世界 ' || i, 5), decode(md5(i::text), 'hex') from generate_series(1, 10000) i;
create table dumped.second (id int primary key references dumped.first, n numeric, j jsonb, a int[]);
insert into dumped.second select i, i / 7.0, jsonb_build_object('ü', i), array[i, null] from generate_series(1, 10000) i;
create table dumped.third (id int primary key, big text);
insert into dumped.third select i, repeat('x' || i, 100000) from generate_series(1, 5) i;
create index on dumped.second using gin (j);
create view dumped.totals as select count(*) n from dumped.first;
select lo_from_bytea(0, decode(repeat('00ff10', 100000), 'hex'));
SQL
before="$(state)"
same "setup" "$(printf %s "$before" | tr -cd '|' | wc -c)" 7
ok setup

round() { # NAME, restore command ...
    name="$1"
    shift
    clean
    "$@" >"$work/said" 2>&1 || fail "$name: $(tail -5 "$work/said")"
    # The sequence goes on from where it was dumped, and has been asked once for `before`.
    same "$name" "$(state)" "$after"
    ok "$name"
}
dump() { # OPTIONS ...
    pg_dump -w --no-owner -n dumped --blobs "$@" 2>"$work/said" || fail "pg_dump $*: $(tail -5 "$work/said")"
}

dump -Fc -f "$work/custom"
# What was dumped is the state after `before` was taken: one number further.
after="$(state)"
same "the data" "$(echo "$after" | cut -d'|' -f1-4,6-)" "$(echo "$before" | cut -d'|' -f1-4,6-)"
round "custom, restored by 4" pg_restore -w -d "$PGDATABASE" --no-owner -j4 "$work/custom"
dump -Fd -j4 -f "$work/directory"
after="$(state)"
round "directory, dumped and restored by 4" pg_restore -w -d "$PGDATABASE" --no-owner -j4 "$work/directory"
dump -f "$work/plain"
after="$(state)"
round "plain, by psql" ask -f "$work/plain"
clean
