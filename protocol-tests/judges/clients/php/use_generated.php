<?php
// Every string that pgiam generates, read and used by the parser and drivers of PHP.
// See python/use_generated.py for JUDGE_STRINGS.

declare(strict_types=1);

const WHO = 'select current_user::text, current_database()::text';

if ($file = getenv('JUDGE_STRINGS')) {
    $cases = array_map(fn ($line) => explode("\t", $line), file($file, FILE_IGNORE_NEW_LINES));
    foreach (array_keys(getenv()) as $name) {
        if (str_starts_with($name, 'PG')) {
            putenv($name);
        }
    }
} else {
    $cases = [['DATABASE_URL', getenv('JUDGE_ROLE'), getenv('JUDGE_DATABASE'), getenv('DATABASE_URL'), '', '']];
}

/** By the pgsql extension. */
function by_pgsql(string $text): array
{
    $db = @pg_connect($text, PGSQL_CONNECT_FORCE_NEW) ?: throw new Exception(error_get_last()['message']);
    $found = pg_fetch_row(pg_query($db, WHO));
    pg_close($db);
    return $found;
}

/** As frameworks do, which take a URL apart for PDO. */
function by_pdo(string $text): array
{
    $url = parse_url($text);
    $dsn = "pgsql:host={$url['host']};port={$url['port']}";
    $database = rawurldecode(substr($url['path'] ?? '/', 1));
    if ($database !== '') {
        $dsn .= ";dbname='" . addcslashes($database, "'\\") . "'";
    }
    $db = new PDO($dsn, rawurldecode($url['user']));
    return $db->query(WHO)->fetch(PDO::FETCH_NUM);
}

$failed = false;
foreach ($cases as [$name, $role, $database, $url, , $dsn]) {
    $readers = ['pgsql' => fn () => by_pgsql($url), 'parse_url and PDO' => fn () => by_pdo($url)];
    // PDO takes every semicolon for the end of a setting.
    $cannot = str_contains($database, ';') ? ['parse_url and PDO'] : [];
    if ($dsn !== '') {
        $readers['pgsql, DSN'] = fn () => by_pgsql($dsn);
    }
    foreach ($readers as $reader => $use) {
        $step = "$reader, $name";
        $must_fail = in_array($reader, $cannot, true);
        try {
            $found = $use();
            $right = $found === [$role, $database] && !$must_fail;
            echo $right ? "ok $step\n" : "FAIL $step: $url is " . implode(', ', $found) . "\n";
        } catch (Throwable $error) {
            $right = $must_fail;
            echo $right ? "ok $step (it cannot)\n" : "FAIL $step: $url: {$error->getMessage()}\n";
        }
        $failed = $failed || !$right;
    }
}
exit($failed ? 1 : 0);
