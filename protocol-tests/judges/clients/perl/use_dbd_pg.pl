#!/usr/bin/perl
# DBD::Pg, on the libpq of the system.
# Where to connect comes from the environment, as libpq reads it.

use strict;
use warnings;
use utf8;
use open qw(:std :encoding(UTF-8));

use DBD::Pg qw(:async);
use DBI;
use Digest::MD5 qw(md5_hex);
use Encode qw(encode_utf8);
use Time::HiRes qw(sleep time);

my $PATIENCE = 30;
my $TEXT     = "Grüße, 世界 🐘 'quoted' \\ \"twice\"\ttab\nline";
$| = 1;

sub same {
    my ($found, $expected, $what) = @_;
    my @texts = map { join '|', map { defined $_ ? $_ : 'NULL' } ref $_ ? @$_ : ($_) } $found, $expected;
    return if $texts[0] eq $texts[1];
    die sprintf "%s is %.300s, not %.300s\n", $what // 'the answer', @texts;
}

sub step {
    my ($name, $step) = @_;
    my $remark = eval { $step->() // '' };
    if (my $error = $@) {
        chomp $error;
        print "FAIL $name: $error\n";
        exit 1;
    }
    print "ok $name", ($remark =~ /^by |^libpq/ ? " ($remark)" : ''), "\n";
}

sub connection {
    # Neither user nor password.
    return DBI->connect("dbi:Pg:dbname=$ENV{PGDATABASE}", undef, undef,
        { RaiseError => 1, PrintError => 0, AutoCommit => 1 });
}

sub state_of {
    my ($db, $work) = @_;
    eval { $work->(); 1 } and die "it went well\n";
    return $db->state;
}

my $db = connection();

step 'login', sub {
    same [ $db->selectrow_array('select current_user, current_database(), 6 * 7') ],
        [ $ENV{JUDGE_ROLE}, $ENV{PGDATABASE}, 42 ];
    return "libpq $db->{pg_lib_version}";
};

step 'parameters', sub {
    my @values = (-42, '9007199254740993', '12345678901234567890.123456789', 0.1, $TEXT, undef, '{"ü": null}');
    my $sql = 'select ?::int, ?::int8, ?::numeric, ?::float8, ?::text, ?::text, ?::jsonb';
    same [ $db->selectrow_array($sql, undef, @values) ], \@values;
    same $db->selectrow_array('select ?::int[]', undef, [ 1, undef, 3 ]), [ 1, undef, 3 ];
    my $bytes = join '', map { chr } 0 .. 255;
    my $statement = $db->prepare('select ?::bytea');
    $statement->bind_param(1, $bytes, { pg_type => DBD::Pg::PG_BYTEA });
    $statement->execute;
    same md5_hex($statement->fetchrow_array), md5_hex($bytes);
    my $big = 'äbcdefg🐘' x 125_000;
    same [ $db->selectrow_array('select md5(?), ?::text', undef, $big, $big) ], [ md5_hex(encode_utf8($big)), $big ];
};

step 'prepared', sub {
    my $statement = $db->prepare('select ?::int * 7 * ?::int');
    my $total     = 0;
    for my $i (1 .. 10) {
        $statement->execute($i, $i);
        $total += $statement->fetchrow_array;
    }
    same $total, 385 * 7;
    same $db->selectrow_array("select count(*) from pg_prepared_statements where statement like '%* 7 *%'"), 1,
        'the number of statements at the server';
};

step 'batch', sub {
    $db->do('create temp table b (i int primary key)');
    my $statement = $db->prepare('insert into b values (?)');
    same scalar($statement->execute_array({}, [ 0 .. 299 ])), 300;
    same [ $db->selectrow_array('select count(*), sum(i) from b') ], [ 300, 44850 ];
};

step 'copy', sub {
    $db->do('create temp table c (id int, t text)');
    my $lines = join '', map { "$_\trow $_ äöü\n" } 1 .. 100_000;
    my $sum   = md5_hex(encode_utf8($lines));
    $db->do('copy c from stdin');
    $db->pg_putcopydata($lines);
    $db->pg_putcopyend;
    same $db->selectrow_array(q{select md5(string_agg(id || E'\t' || t || E'\n', '' order by id)) from c}), $sum,
        'the table';
    $db->do('copy (select * from c order by id) to stdout');
    my ($md5, $line) = (Digest::MD5->new, '');
    $md5->add(encode_utf8($line)) while $db->pg_getcopydata($line) >= 0;
    same $md5->hexdigest, $sum, 'what came back';
};

step 'listen', sub {
    my $other = connection();
    $db->do('listen news');
    my ($pid) = $other->selectrow_array("select pg_backend_pid(), pg_notify('news', 'Grüße')");
    my $deadline = time + $PATIENCE;
    my $heard;
    until ($heard = $db->pg_notifies) {
        die "nothing was heard\n" if time > $deadline;
        sleep 0.01;
    }
    same $heard, [ 'news', $pid, 'Grüße' ];
    $db->do('unlisten news');
    $other->disconnect;
};

step 'large object', sub {
    my $bytes = join '', map { chr($_ * $_ % 251) } 0 .. 299_999;
    $db->begin_work;
    my $oid = $db->pg_lo_creat($db->{pg_INV_WRITE} | $db->{pg_INV_READ});
    my $object = $db->pg_lo_open($oid, $db->{pg_INV_WRITE} | $db->{pg_INV_READ});
    same $db->pg_lo_write($object, $bytes, length $bytes), length $bytes;
    same $db->pg_lo_lseek($object, 0, 0), 0;
    my $found = '';
    same $db->pg_lo_read($object, $found, length $bytes), length $bytes;
    same md5_hex($found), md5_hex($bytes), 'the object';
    $db->pg_lo_close($object);
    $db->pg_lo_unlink($oid);
    $db->commit;
    return 'by function calls';
};

step 'cancel', sub {
    my $pid = $db->{pg_pid};
    $db->do('select pg_sleep(60)', { pg_async => PG_ASYNC });
    my $other    = connection();
    my $deadline = time + $PATIENCE;
    my $asleep   = "select count(*) from pg_stat_activity where pid = $pid and state = 'active' and wait_event = 'PgSleep'";
    until ($other->selectrow_array($asleep)) {
        die "it never slept\n" if time > $deadline;
        sleep 0.01;
    }
    same !!$db->pg_cancel, !!1, 'the outcome';
    same $other->selectrow_array($asleep), 0, 'being asleep';
    same $db->selectrow_array('select pg_backend_pid()'), $pid, 'the process';
    $other->disconnect;
};

step 'error', sub {
    $db->do('create temp table e (i int primary key)');
    $db->begin_work;
    $db->do('insert into e values (1)');
    same state_of($db, sub { $db->do('select 1 / 0') }), '22012';
    same state_of($db, sub { $db->selectrow_array('select ?::int', undef, 1) }), '25P02';
    $db->rollback;
    $db->begin_work;
    $db->do('insert into e values (1)');
    $db->pg_savepoint('s');
    same state_of($db, sub { $db->do('insert into e values (?)', undef, 1) }), '23505';
    $db->pg_rollback_to('s');
    $db->do('insert into e values (2)');
    $db->commit;
    same [ $db->selectrow_array('select count(*), sum(i) from e') ], [ 2, 3 ];
};

$db->disconnect;
