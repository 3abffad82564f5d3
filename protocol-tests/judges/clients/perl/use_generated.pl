#!/usr/bin/perl
# Every string that pgiam generates, used by DBD::Pg, which passes it on to libpq.
# See python/use_generated.py for JUDGE_STRINGS.

use strict;
use warnings;
use utf8;
use open qw(:std :encoding(UTF-8));

use DBI;
use Encode qw(decode_utf8 encode_utf8);

$| = 1;
my @cases;
if (my $file = $ENV{JUDGE_STRINGS}) {
    open my $lines, '<:encoding(UTF-8)', $file or die "$file: $!";
    while (my $line = <$lines>) {
        chomp $line;
        push @cases, [ split /\t/, $line, -1 ];
    }
    delete @ENV{ grep { /^PG/ } keys %ENV };
}
else {
    my @said = map { decode_utf8($ENV{$_}) } qw(JUDGE_ROLE JUDGE_DATABASE DATABASE_URL);
    @cases = ([ 'DATABASE_URL', @said, '', '' ]);
}

my $failed = 0;
for my $case (@cases) {
    my ($name, $role, $database, $url, undef, $dsn) = @$case;
    # It takes a semicolon for the end of a setting.
    my %texts = ("DBD::Pg, $name" => $url);
    $texts{"DBD::Pg, $name, DSN"} = $dsn if $dsn ne '' && $dsn !~ /;/;
    for my $step (sort keys %texts) {
        my $found = eval {
            my $db = DBI->connect(encode_utf8("dbi:Pg:$texts{$step}"), undef, undef, { RaiseError => 1, PrintError => 0 });
            my $row = $db->selectrow_arrayref('select current_user::text, current_database()::text');
            $db->disconnect;
            join "\t", @$row;
        };
        if (defined $found && $found eq "$role\t$database") {
            print "ok $step\n";
            next;
        }
        $failed = 1;
        my $instead = defined $found ? "is $found" : $@;
        print "FAIL $step: $texts{$step}: $instead\n";
    }
}
exit $failed;
