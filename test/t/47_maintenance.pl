# What envelope_run_maintenance() does, and when: tenants that are due, in one
# pass; KEKs whose interval is over; retired keys whose retention is; no faster
# than a standby follows, and on a primary alone.

use strict;
use warnings;
use Envelope;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $server = new_server('maintained', 'autovacuum = off');
my $psql = sub { return $server->safe_psql('postgres', @_) };
$psql->(q{
	SELECT envelope_create_tenants(array(SELECT 'tenant ' || g FROM generate_series(1, 20) g));
	CREATE TABLE docs (id int PRIMARY KEY, tenant_id text, body bytea, plain text);
	SELECT envelope_register_column('docs', 'body', 'tenant_id', 'docs');
	INSERT INTO docs SELECT g, 'tenant ' || 1 + g % 20, envelope_encrypt('tenant ' || 1 + g % 20, 'd' || g, 'docs'), 'd' || g FROM generate_series(1, 2000) g});
my $wrong = q{SELECT count(*) FILTER (WHERE envelope_decrypt(tenant_id, body, 'docs') IS DISTINCT FROM plain) FROM docs};
my $keys = q{SELECT count(*) FROM envelope.tenant_keys WHERE purpose = 'data'};
# By somebody who may operate, as a timer would call it
$psql->(q{CREATE ROLE timer LOGIN; SELECT envelope_grant('timer', 'operate')});
sub maintain { my (undef, undef, $err) = $server->psql('postgres', 'CALL envelope_run_maintenance()', extra_params => [ '-U', 'timer' ]); return $err =~ s/^psql:<stdin>:\d+: //gmr; }

# Without a schedule nothing is due.
unlike(maintain(), qr/WARNING|ERROR/, 'without a schedule');
is($psql->("$keys"), 20, 'nothing is rotated');

# A default, a tenant with an interval of its own, and a pass that takes all
$psql->(q{SELECT envelope_set_rotation_interval(NULL, '90 days'), envelope_set_rotation_interval('tenant 1', '30 days'), envelope_set_rotation_interval('tenant 2', '365 days')});
sub age_keys { $psql->("UPDATE envelope.tenant_keys SET created_at = created_at - interval '$_[0]'"); return; }
age_keys('29 days');
maintain();
is($psql->($keys), 20, 'after 29 days nobody is due');
age_keys('2 days');
maintain();
is($psql->(q{SELECT string_agg(tenant_id, ', ') FROM envelope.rotations WHERE phase = 'proven'}), 'tenant 1', 'after 31 the one with 30');
age_keys('60 days');
maintain();
is($psql->(q{SELECT count(*), count(DISTINCT tenant_id), count(DISTINCT pass), bool_or(tenant_id = 'tenant 2') FROM envelope.rotations WHERE kind = 'dek' AND phase = 'proven' AND rotation_id > 1}), '19|19|1|f', 'after 91 all others but the one with 365, in one pass');
is($psql->($wrong), 0, 'of which every value opens');
is($psql->(q{SELECT bool_and(state = 'active') FROM docs JOIN envelope.tenant_keys k ON k.key_id = envelope_key_id(body) WHERE k.tenant_id <> 'tenant 2'}), 't', 'under the new keys');
$psql->(q{SELECT envelope_set_rotation_interval(t, NULL) FROM unnest(array[NULL, 'tenant 1', 'tenant 2']) t});

# A rotation that was begun is finished, whether anybody is due or not.
$psql->(q{SELECT rotate_tenant_dek('tenant 3', false)});
maintain();
is($psql->(q{SELECT phase FROM envelope.rotations WHERE tenant_id = 'tenant 3' ORDER BY rotation_id DESC LIMIT 1}), 'proven', 'what was begun is finished');

# All tenants at once, as after a leak: a new key for each now, the rest in one pass.
my ($begun) = $psql->('SELECT max(rotation_id) FROM envelope.rotations');
$psql->(q{SELECT format('SELECT rotate_tenant_dek(%L, false)', tenant_id) FROM envelope.tenants WHERE state = 'active' \gexec});
maintain();
is($psql->("SELECT count(*), count(DISTINCT tenant_id), count(DISTINCT pass), string_agg(DISTINCT phase, ' ') FROM envelope.rotations WHERE rotation_id > $begun"), '20|20|1|proven', 'all tenants are given new keys, and rotated in one pass');

# Retired keys: only where a retention says so, only if they were proven not to be
# needed, and only so long ago.
my $retired = q{SELECT count(*) FILTER (WHERE state = 'retired'), count(*) FILTER (WHERE state = 'destroyed') FROM envelope.tenant_keys WHERE purpose = 'data'};
my $all = $psql->(q{SELECT count(*) FROM envelope.tenant_keys WHERE state = 'retired'});
maintain();
is($psql->($retired), "$all|0", 'by default no retired key dies');
$server->append_conf('postgresql.conf', "envelope.retired_key_retention = '1 d'\n");
$server->reload;
maintain();
is($psql->($retired), "$all|0", 'before its retention is over none does');
$psql->(q{SELECT rotate_tenant_dek('tenant 4'); UPDATE envelope.rotations SET finished_at = finished_at - interval '23 hours'});
maintain();
is($psql->($retired), ($all + 1) . '|0', 'nor an hour before');
# Of tenant 5 a value under the old key is somewhere else.
$psql->(q{CREATE TABLE elsewhere AS SELECT '\xe14e5601'::bytea || int8send(key_id) || decode(repeat('00', 40), 'hex') AS v FROM envelope.tenant_keys WHERE tenant_id = 'tenant 5' AND state = 'retired' LIMIT 1;
	UPDATE envelope.rotations SET finished_at = finished_at - interval '2 hours'});
my $said = maintain();
like($said, qr/NOTICE:  \d+ retired keys were destroyed/, 'after it they do');
like($said, qr/WARNING:  key \d+ of tenant "tenant 5" is still needed by 1 values/, 'but for one that is needed');
is($psql->($retired), '2|' . ($all - 1), 'and one whose rotation gave no proof');
is($psql->(q{SELECT string_agg(tenant_id, ', ' ORDER BY tenant_id) FROM envelope.tenant_keys WHERE state = 'retired'}), 'tenant 4, tenant 5', 'which are these');
is($psql->($wrong), 0, 'every value opens');
$psql->('DROP TABLE elsewhere');

# KEKs
$psql->(q{SELECT envelope_set_kek_rotation_interval('platform', '365 days')});
my $kek_rotations = q{SELECT string_agg(phase, ' ' ORDER BY rotation_id) FROM envelope.rotations WHERE kind = 'kek' AND kek = 'platform'};
maintain();
is($psql->($kek_rotations), '', 'a KEK that is not a year old is left alone');
$psql->(q{UPDATE envelope.keks SET created_at = created_at - interval '366 days'});
open my $key, '>:raw', "$server->{keks}/platform.2.key" or die $!;
print $key join('', map { chr(int(rand 256)) } 1 .. 32);
close $key;
chmod 0600, "$server->{keks}/platform.2.key";
my $versions = q{SELECT keys_by_version FROM envelope.status WHERE kek = 'platform'};
is($psql->($versions), '{"1": ' . $psql->(q{SELECT count(*) FROM envelope.tenant_keys WHERE state <> 'destroyed'}) . '}', 'a second version of one that is');
maintain();
is($psql->($kek_rotations), 'done', 'it is rotated');
is($psql->($versions), '{"2": ' . $psql->(q{SELECT count(*) FROM envelope.tenant_keys WHERE state <> 'destroyed'}) . '}', 'and all keys are under the second');
maintain();
is($psql->($kek_rotations), 'done', 'once');
$psql->(q{UPDATE envelope.rotations SET started_at = started_at - interval '366 days' WHERE kind = 'kek'});
set_faults($server, 'platform:unreachable');
$psql->(q{SELECT envelope_set_rotation_interval('tenant 6', '1 ms'); SELECT envelope_evict_all()});
(undef, undef, $said) = $server->psql('postgres', q{SET envelope.kms_timeout = '1s'; CALL envelope_run_maintenance()});
like($said, qr/WARNING:  rotation of a KEK failed: the KMS could not be reached/, 'a KMS that is away is a warning');
like($said, qr/WARNING:  tenant "tenant 6" could not be given a new key/, 'for tenants too');
is($psql->(q{SELECT count(*) FILTER (WHERE kind = 'kek' AND finished_at IS NULL), count(*) FILTER (WHERE kind = 'dek' AND phase = 'failed') FROM envelope.rotations WHERE error IS NOT NULL}), '1|1', 'and on record');
set_faults($server, '');
ok(eventually(sub { maintain(); $psql->(q{SELECT count(*) FROM envelope.rotations WHERE finished_at IS NULL}) eq '0' }), 'the next run when it is there finishes both');
is($psql->($kek_rotations), 'done done', 'the KEK');
is($psql->(q{SELECT phase FROM envelope.rotations WHERE tenant_id = 'tenant 6' ORDER BY rotation_id DESC LIMIT 1}), 'proven', 'and the tenant');
$psql->(q{SELECT envelope_set_rotation_interval('tenant 6', NULL)});

# No faster than the standby that lags: replay is paused there.
$server->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('behind');
$standby->init_from_backup($server, 'backup', has_streaming => 1);
$standby->start;
is(sqlstate($standby, 'CALL envelope_run_maintenance()'), '25006', 'a standby maintains nothing');
$server->wait_for_catchup($standby);
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
ok(eventually(sub { $standby->safe_psql('postgres', 'SELECT pg_get_wal_replay_pause_state()') eq 'paused' }), 'replay is paused');
$psql->(q{CREATE TABLE ballast AS SELECT repeat('x', 1000) FROM generate_series(1, 1000)});
for my $call ([ q{CALL envelope_rotate_tenant('tenant 7', 100)}, 'tenant 7' ], [ q{CALL envelope_run_maintenance(100)}, 'tenant 8' ])
{
	my ($sql, $tenant) = @$call;
	$psql->(q{SELECT envelope_set_rotation_interval('tenant 8', '1 ms')}) if $tenant eq 'tenant 8';
	my $session = Envelope::Session->new($server);
	$session->query(q{SET envelope.maintenance_max_lag = '64 kB'});
	$session->send($sql);
	ok(eventually(sub { $psql->("SELECT waits_for FROM envelope.rotation_progress WHERE tenant_id = '$tenant'") eq q{standby 'behind'} }), "$sql: waits for the standby, and says so");
	is($psql->("SELECT phase, rows_reencrypted, running FROM envelope.rotation_progress WHERE tenant_id = '$tenant'"), 'reencrypt|0|t', "$sql: and does nothing meanwhile");
	is(sqlstate($server, 'CALL envelope_run_maintenance()'), '55006', "$sql: another run says that there is one") if $tenant eq 'tenant 8';
	$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
	is($session->wait, '', "$sql: when the standby has caught up it goes on");
	$session->quit;
	is($psql->("SELECT phase FROM envelope.rotations WHERE tenant_id = '$tenant' ORDER BY rotation_id DESC LIMIT 1"), 'proven', "$sql: to the end");
	$psql->(q{SELECT envelope_set_rotation_interval('tenant 8', NULL)}) if $tenant eq 'tenant 8';
	$server->wait_for_catchup($standby);
	$standby->safe_psql('postgres', 'SELECT pg_wal_replay_pause()');
	eventually(sub { $standby->safe_psql('postgres', 'SELECT pg_get_wal_replay_pause_state()') eq 'paused' });
	$psql->(q{INSERT INTO ballast SELECT repeat('x', 1000) FROM generate_series(1, 1000)});
}
is(sqlstate($server, q{CALL envelope_rotate_tenant('tenant 9')}), '', 'without a limit nobody waits for a standby');
$standby->safe_psql('postgres', 'SELECT pg_wal_replay_resume()');
$server->wait_for_catchup($standby);
is($standby->safe_psql('postgres', $wrong), 0, 'which reads everything');
$standby->stop;

$psql->('SELECT envelope_evict_all()');
$server->restart;
is($psql->($wrong), 0, 'evicted and restarted, every value opens');
$server->stop;
done_testing();
