# A rotation as who looks after it sees it: how far it is, whom it waits for, what
# it holds, and how it ends and goes on when it is cancelled or its session ended.

use strict;
use warnings;
use Envelope;
use Rotation;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $server = new_server('watched', 'max_prepared_transactions = 5', 'autovacuum = off');
make_tables($server, 2000);
my $psql = sub { return $server->safe_psql('postgres', @_) };
my $waits_for = sub { my ($tenant, $phase) = @_; return $psql->("SELECT coalesce(waits_for, '') FROM envelope.rotation_progress WHERE tenant_id = '$tenant' AND phase = '$phase'") };

# Under way: every column of the view, and locks that keep no reader out.  A row
# that is locked keeps it from ending meanwhile.
my $rotator = Envelope::Session->new($server);
my $holder = Envelope::Session->new($server);
my $hold = q{BEGIN; SELECT count(*) FROM (SELECT FROM parts WHERE tenant_id = 't1' LIMIT 1 FOR UPDATE) l};
$holder->query($hold);
$rotator->send(q{CALL envelope_rotate_tenant('t1', 10, '10 ms')});
my $shown;
eventually(sub { ($shown = $psql->(q{SELECT kind, tenant_id, phase, relation LIKE 'public.%', rows_seen > 0, rows_reencrypted > 100, rows_estimated >= rows_seen, rows_per_second > 0, started_at < now(), eta > started_at, pid, running FROM envelope.rotation_progress})) =~ /^dek\|t1\|reencrypt\|t\|t\|t\|t\|t\|t\|t/ });
is($shown, "dek|t1|reencrypt|t|t|t|t|t|t|t|$rotator->{pid}|t", 'the view tells which, what of it, where, how much, how fast, since when, until when, and who');
my %modes;
for (1 .. 50)
{
	$modes{$_}++ for split /\n/, $psql->("SELECT DISTINCT mode FROM pg_locks WHERE pid = $rotator->{pid} AND locktype = 'relation' AND relation >= 16384");
}
is(join(' ', grep { !/^(?:AccessShareLock|RowShareLock|RowExclusiveLock)$/ } sort keys %modes), '', 'it holds no lock on a table that keeps a reader or writer out');
is($psql->(q{SET lock_timeout = '5s'; SELECT count(*) FILTER (WHERE opened IS DISTINCT FROM plain) FROM everything}), 0, 'and all can be read');

# Another on the same tenant says so; one on another finishes beside it; and both
# finish that are under way together.
is(sqlstate($server, q{CALL envelope_rotate_tenant('t1')}), '55006', 'a second one on the same tenant says that there is one');
is(sqlstate($server, q{CALL envelope_destroy_retired_keys('t1')}), '55006', 'so does the destruction of its keys');
my $second = Envelope::Session->new($server);
$second->send(q{CALL envelope_rotate_tenant('t2', 10, '5 ms')});
ok(eventually(sub { $psql->(q{SELECT count(*) FROM envelope.rotation_progress WHERE running}) eq '2' }), 'two are under way on two tenants');

# Cancelled, and ended: as far as it came it stays, and the next call goes on.
$psql->("SELECT pg_cancel_backend($rotator->{pid})");
is($rotator->wait, '57014', 'cancelled it ends');
$holder->query('ROLLBACK');
is($second->wait, '', 'the other one finishes');
my $done = $psql->(q{SELECT rows_reencrypted FROM envelope.rotation_progress WHERE tenant_id = 't1'});
cmp_ok($done, '>', 100, 'what was done is done');
is(wrong_values($server), 0, 'everything opens');
$holder->query($hold);
$rotator->send(q{CALL envelope_rotate_tenant('t1', 10, '10 ms')});
ok(eventually(sub { $psql->(q{SELECT count(*) FROM envelope.rotation_progress WHERE running AND tenant_id = 't1'}) }), 'called again it is under way');
$psql->("SELECT pg_terminate_backend($rotator->{pid})");
like($rotator->wait, qr/^57P01|connection lost$/, 'ended by SIGTERM');
$rotator->quit;
ok(eventually(sub { $psql->(q{SELECT running FROM envelope.rotation_progress}) eq 'f' }), 'it is not forgotten');
is($psql->(q{SELECT finding FROM envelope_doctor() WHERE subject = 'tenant t1'}), 'a rotation of its key was not finished', 'as doctor says too');
is($psql->(q{SELECT count(*) FROM envelope.tenant_keys WHERE tenant_id = 't1' AND purpose = 'data'}), 2, 'there is one new key');
$holder->query('ROLLBACK');
is(sqlstate($server, q{CALL envelope_rotate_tenant('t1')}), '', 'and the next call finishes');
is($psql->(q{SELECT count(*) FROM envelope.tenant_keys WHERE tenant_id = 't1' AND purpose = 'data'}), 2, 'without another');
is(rows_under($server, 't1') + rows_under($server, 't2'), 0, 'no value is under an old key');

# Whom it waits for, while it re-encrypts and when it has: a process, and when that
# has prepared its transaction, the prepared transaction.
$rotator = Envelope::Session->new($server);
$holder->query(q{BEGIN; UPDATE docs SET plain = plain WHERE id = 1});
my $tenant = $psql->(q{SELECT tenant_id FROM docs WHERE id = 1});
$rotator->send("CALL envelope_rotate_tenant('$tenant')");
ok(eventually(sub { $waits_for->($tenant, 'reencrypt') eq "process $holder->{pid}" }), 'it names the process that has a row locked');
$holder->query(q{PREPARE TRANSACTION 'locks a row'});
ok(eventually(sub { $waits_for->($tenant, 'reencrypt') eq q{prepared transaction 'locks a row'} }), 'and the prepared transaction');
$holder->query(q{BEGIN; SELECT 1});
$psql->(q{COMMIT PREPARED 'locks a row'});
ok(eventually(sub { $waits_for->($tenant, 'wait') eq "process $holder->{pid}" }), 'then the process whose transaction began before');
$holder->query(q{PREPARE TRANSACTION 'began before'});
ok(eventually(sub { $waits_for->($tenant, 'wait') eq q{prepared transaction 'began before'} }), 'which it names when it is prepared');
$psql->(q{ROLLBACK PREPARED 'began before'});
is($rotator->wait, '', 'rolled back, it keeps nobody waiting');
is(rows_under($server, $tenant), 0, 'it is done');

$holder->query(q{BEGIN; INSERT INTO docs (tenant_id, body, plain) VALUES ('t2', envelope_encrypt('t2', 'late', 'docs.body'), 'late'); PREPARE TRANSACTION 'wrote before'});
my $log = -s $server->logfile;
$rotator->send(q{SET log_min_messages = notice; CALL envelope_rotate_tenant('t2')});
ok(eventually(sub { $waits_for->('t2', 'wait') eq q{prepared transaction 'wrote before'} }), 'the prepared transaction that has written');
$psql->(q{COMMIT PREPARED 'wrote before'});
is($rotator->wait, '', 'committed, what it wrote is found and re-encrypted');
is(rows_under($server, 't2'), 0, 'and it is done');
my $said = slurp_file($server->logfile, $log);
like($said, qr/NOTICE:  waiting for prepared transaction 'wrote before' to end its transaction/, 'told by a NOTICE');
like($said, qr/NOTICE:  1 values under retired keys were written meanwhile; once more/, 'as is that it goes on');

# Tables that are rewritten while it goes on: rows are elsewhere then, and none is
# missed.
$rotator->send(q{CALL envelope_rotate_tenant('t1', 20, '10 ms')});
eventually(sub { $psql->(q{SELECT count(*) FROM envelope.rotation_progress WHERE running}) });
$psql->($_) for 'VACUUM FULL docs', 'CLUSTER customers USING customers_pkey', 'VACUUM FULL parts', 'VACUUM FULL orders';
is($rotator->wait, '', 'a rotation of tables that are rewritten meanwhile ends');
is(rows_under($server, 't1'), 0, 'with no value under the old key');
is(wrong_values($server), 0, 'and every value open');
$_->quit for $holder, $rotator, $second;

is(finish_suite($server), 0, 'evicted and restarted, every value opens');
$server->stop;
done_testing();
