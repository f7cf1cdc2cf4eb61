# Rotations, re-wraps and destructions that are killed at any point lose nothing,
# and go on when they are called again.

use strict;
use warnings;
use Envelope;
use Rotation;
use PostgreSQL::Test::Utils;
use Test::More;

my $server = new_server('kills', 'restart_after_crash = on');
make_tables($server, 1500);
my ($wrong, $hit) = kill_rounds($server, 10);
is(join("\n", @$wrong), '', 'whatever is killed, every value opens, and calling again finishes');
note("$_: $hit->{$_}") for sort keys %$hit;
is(scalar(keys %$hit), 7, 'every phase was hit');
is($server->safe_psql('postgres', q{SELECT count(*) FROM envelope.rotations WHERE kind = 'dek' AND finished_at IS NULL}), 0, 'no rotation is left unfinished');
is(finish_suite($server), 0, 'evicted and restarted, every value opens');
$server->stop;
done_testing();
