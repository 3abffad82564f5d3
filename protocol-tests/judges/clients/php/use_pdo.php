<?php
// PDO with its PostgreSQL driver; what PDO does not have, from the pgsql extension.
// Where to connect comes from the environment, as libpq reads it.

declare(strict_types=1);

define('ROLE', getenv('JUDGE_ROLE'));
const TEXT = "Grüße, 世界 🐘 'quoted' \\ \"twice\"\ttab\nline";
const PATIENCE = 30;

function same(mixed $found, mixed $expected, string $what = 'the answer'): void
{
    if ($found !== $expected) {
        $brief = fn ($value) => substr(var_export($value, true), 0, 300);
        throw new Exception("$what is {$brief($found)}, not {$brief($expected)}");
    }
}

function connect(): PDO
{
    // Neither user nor password.
    $db = new PDO('pgsql:dbname=' . getenv('PGDATABASE'));
    $db->setAttribute(PDO::ATTR_ERRMODE, PDO::ERRMODE_EXCEPTION);
    $db->setAttribute(PDO::ATTR_DEFAULT_FETCH_MODE, PDO::FETCH_NUM);
    return $db;
}

function step(string $name, callable $step): void
{
    try {
        $remark = $step();
        echo "ok $name", $remark ? " ($remark)" : '', "\n";
    } catch (Throwable $error) {
        fwrite(STDERR, "$error\n");
        echo "FAIL $name: {$error->getMessage()}\n";
        exit(1);
    }
}

function state_of(callable $work): string
{
    try {
        $work();
    } catch (PDOException $error) {
        return $error->errorInfo[0];
    }
    throw new Exception('it went well');
}

/** The first row of a prepared statement. */
function row(PDO $db, string $sql, array $values = []): array
{
    $statement = $db->prepare($sql);
    $statement->execute($values);
    return $statement->fetch();
}

$db = connect();

step('login', function () use ($db) {
    same(row($db, 'select current_user, current_database(), 6 * 7'), [ROLE, getenv('PGDATABASE'), 42]);
    return 'PHP ' . PHP_VERSION;
});

step('parameters', function () use ($db) {
    $values = [-42, '9007199254740993', '12345678901234567890.123456789', TEXT, null,
        '2024-02-29 12:30:01.000005+00', '{1,NULL,3}', '{"ü": null}'];
    $found = row($db, 'select ?::int = -42, ?::int8::text, ?::numeric, ?::text, ?::text,
        (?::timestamptz at time zone \'UTC\')::text, ?::int[], ?::jsonb', $values);
    same($found, [true, '9007199254740993', $values[2], TEXT, null, '2024-02-29 12:30:01.000005', $values[6], $values[7]]);
    $bytes = implode('', array_map('chr', range(0, 255)));
    $statement = $db->prepare('select ?::bytea, ?::bool, ?::int');
    $statement->bindValue(1, $bytes, PDO::PARAM_LOB);
    $statement->bindValue(2, true, PDO::PARAM_BOOL);
    $statement->bindValue(3, 7, PDO::PARAM_INT);
    $statement->execute();
    [$stream, $true, $seven] = $statement->fetch();
    same([stream_get_contents($stream), $true, $seven], [$bytes, true, 7]);
    $big = str_repeat('äbcdefg🐘', 125000);
    same(row($db, 'select md5(?), ?::text', [$big, $big]), [md5($big), $big]);
});

step('prepared', function () use ($db) {
    $statement = $db->prepare('select :i::int * :i::int');
    $total = 0;
    for ($i = 1; $i <= 10; $i++) {
        $statement->execute(['i' => $i]);
        $total += $statement->fetchColumn();
    }
    same($total, 385);
    $known = $db->query("select count(*) from pg_prepared_statements where statement like '%::int * %'
        and statement not like '%pg_prepared%'");
    same($known->fetchColumn(), 1, 'statements at the server');
});

step('copy', function () use ($db) {
    $db->exec('create temp table c (id int, t text)');
    $lines = [];
    for ($i = 1; $i <= 100000; $i++) {
        $lines[] = "$i\trow $i äöü\n";
    }
    $sum = md5(implode('', $lines));
    same($db->pgsqlCopyFromArray('c', $lines), true);
    $check = "select md5(string_agg(id || E'\\t' || t || E'\\n', '' order by id)) from c";
    same($db->query($check)->fetchColumn(), $sum, 'the table');
    same(md5(implode('', $db->pgsqlCopyToArray('c'))), $sum, 'what came back');
});

step('listen', function () use ($db) {
    $other = connect();
    $db->exec('listen news');
    [$pid] = row($other, 'select pg_backend_pid()');
    $other->exec("notify news, 'Grüße'");
    $heard = $db->pgsqlGetNotify(PDO::FETCH_ASSOC, PATIENCE * 1000);
    same($heard, ['message' => 'news', 'pid' => $pid, 'payload' => 'Grüße']);
    $db->exec('unlisten news');
});

step('large object', function () use ($db) {
    $bytes = '';
    for ($i = 0; $i < 300000; $i++) {
        $bytes .= chr($i * $i % 251);
    }
    $db->beginTransaction();
    $oid = $db->pgsqlLOBCreate();
    $object = $db->pgsqlLOBOpen($oid, 'w');
    for ($at = 0; $at < strlen($bytes); $at += fwrite($object, substr($bytes, $at)));
    fclose($object);
    $object = $db->pgsqlLOBOpen($oid, 'r');
    same(md5(stream_get_contents($object)), md5($bytes), 'the object');
    fclose($object);
    same($db->pgsqlLOBUnlink($oid), true);
    $db->commit();
    return 'by function calls';
});

step('cancel', function () use ($db) {
    // PDO has no cancel; the pgsql extension has.
    $con = pg_connect('dbname=' . getenv('PGDATABASE'), PGSQL_CONNECT_FORCE_NEW);
    $pid = pg_get_pid($con);
    pg_send_query($con, 'select pg_sleep(60)');
    $deadline = microtime(true) + PATIENCE;
    $asleep = $db->prepare("select exists (select from pg_stat_activity where pid = ? and state = 'active'
        and wait_event = 'PgSleep')");
    do {
        if (microtime(true) > $deadline) {
            throw new Exception('it never slept');
        }
        usleep(10000);
        $asleep->execute([$pid]);
    } while (!$asleep->fetchColumn());
    $began = microtime(true);
    // It asks for the cancel and swallows the answer.
    same(pg_cancel_query($con), true);
    same(microtime(true) - $began < PATIENCE, true, 'being cancelled in time');
    $asleep->execute([$pid]);
    same($asleep->fetchColumn(), false, 'being asleep');
    same((int) pg_fetch_result(pg_query($con, 'select pg_backend_pid()'), 0, 0), $pid, 'the process');
    pg_close($con);
    return 'by the pgsql extension, PDO has none';
});

step('error', function () use ($db) {
    $db->exec('create temp table e (i int primary key)');
    $db->beginTransaction();
    $db->exec('insert into e values (1)');
    same(state_of(fn () => $db->exec('select 1 / 0')), '22012');
    same(state_of(fn () => row($db, 'select ?::int', [1])), '25P02');
    $db->rollBack();
    $db->beginTransaction();
    $db->exec('insert into e values (1); savepoint s');
    same(state_of(fn () => row($db, 'insert into e values (?)', [1])), '23505');
    $db->exec('rollback to s; insert into e values (2)');
    $db->commit();
    same(row($db, 'select count(*), sum(i) from e'), [2, 3]);
});
