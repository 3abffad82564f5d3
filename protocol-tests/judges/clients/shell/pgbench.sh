#!/bin/sh
# pgbench: all three ways of sending a query, connections that come and go, and its pipeline.
. "$(dirname "$0")/judge.sh"

pgbench="${PGBENCH:-pgbench}"
bench() { "$pgbench" "$@" >"$work/out" 2>&1 || fail "pgbench $*: $(tail -5 "$work/out")"; }

# 100,000 accounts, by COPY.
bench -i -s 1 -q
same "initialisation" "$(ask -c 'select count(*) from pgbench_accounts')" 100000
ok "initialisation"

for mode in simple extended prepared; do
    bench -n -c 8 -j 2 -t 50 -M "$mode"
    grep -q 'transactions actually processed: 400/400' "$work/out" || fail "$mode: $(cat "$work/out")"
    ok "8 connections, $mode"
done

bench -n -c 2 -C -t 10 -S
grep -q 'transactions actually processed: 20/20' "$work/out" || fail "-C: $(cat "$work/out")"
ok "a connection for each transaction"

cat >"$work/pipeline.sql" <<'SQL'
\set i random(1, 100000)
\startpipeline
begin;
update pgbench_accounts set abalance = abalance + 1 where aid = :i;
update pgbench_tellers set tbalance = tbalance + 1 where tid = 1 + :i % 10;
update pgbench_branches set bbalance = bbalance + 1 where bid = 1;
insert into pgbench_history (tid, bid, aid, delta, mtime) values (1 + :i % 10, 1, :i, 1, now());
commit;
\endpipeline
SQL
for mode in extended prepared; do
    bench -n -c 4 -j 2 -t 50 -M "$mode" -f "$work/pipeline.sql"
    grep -q 'transactions actually processed: 200/200' "$work/out" || fail "pipeline: $(cat "$work/out")"
    ok "pipeline, $mode"
done

# The books balance, and nothing is missing from them.
same "the books" "$(ask <<'SQL'
select count(*), sum(delta) = (select sum(abalance) from pgbench_accounts),
       sum(delta) = (select sum(tbalance) from pgbench_tellers),
       sum(delta) = (select sum(bbalance) from pgbench_branches)
from pgbench_history;
SQL
)" "1600|t|t|t"
bench -i -I d
ok "the books balance"
