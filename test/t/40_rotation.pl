# A tenant's key is rotated while sessions write, copy, delete and read: every
# value always opens to what it should, and in the end nothing is under the old
# key, which then dies.

use strict;
use warnings;
use Envelope;
use Rotation;
use PostgreSQL::Test::Utils;
use Test::More;

my $server = new_server('rotation', 'max_prepared_transactions = 5', 'wal_level = logical');
make_tables($server, 50_000);
is(wrong_values($server), 0, '200,000 rows in four tables');

my @load = start_load($server);
for my $tenant ('t1', '7', 't2')
{
	is(sqlstate($server, "CALL envelope_rotate_tenant('$tenant', 2000)"), '', "tenant $tenant is rotated while others write and read");
	is(rows_under($server, $tenant), 0, 'no value is under an old key');
}
is(stop_load($server, @load), '', 'and nobody saw an error or a wrong value');
is(wrong_values($server), 0, 'every value is what was written last');

# The proof says which columns were looked at, and how many rows.
is($server->safe_psql('postgres', q{
		SELECT string_agg(DISTINCT (c->>'table') || '.' || (c->>'column'), ' ' ORDER BY (c->>'table') || '.' || (c->>'column'))
		FROM envelope.rotations r, jsonb_array_elements(r.proof->'columns') c WHERE r.phase = 'proven' AND (c->>'guarded')::bool}),
	'public.customers.email__sealed public.customers.ssn__sealed public.docs.body public.orders.note__sealed public.parts0.body public.parts1.body',
	'the proof names every column');
is($server->safe_psql('postgres', q{
		SELECT count(*) FROM envelope.rotations r WHERE phase = 'proven' AND proof->'keys' = (
			SELECT jsonb_agg(k.key_id::text) FROM envelope.tenant_keys k WHERE k.tenant_id = r.tenant_id AND k.state = 'retired')}), 3, 'and the key');
is($server->safe_psql('postgres', q{SELECT sum(failures) || ' ' || count(*) FILTER (WHERE key_state <> 'active') FROM envelope_verify_tenant('t1')}),
	'0 0', 'verify opens everything, under the active key alone');

# Death: values elsewhere keep the key alive, and are named.
$server->safe_psql('postgres', q{CREATE TABLE elsewhere (v bytea)});
my $old = $server->safe_psql('postgres', q{SELECT key_id FROM envelope.tenant_keys WHERE tenant_id = 't1' AND state = 'retired'});
$server->safe_psql('postgres', qq{
	INSERT INTO elsewhere VALUES ('\\xe14e5601'::bytea || int8send($old) || decode(repeat('00', 40), 'hex'))});
my ($rc, $out, $err) = $server->psql('postgres', q{CALL envelope_destroy_retired_keys('t1')});
like($err, qr/WARNING:  key $old of tenant "t1" is still needed by 1 values.*public\.elsewhere\.v/s, 'a value in a column that nobody registered is found');
is($server->safe_psql('postgres', "SELECT state FROM envelope.tenant_keys WHERE key_id = $old"), 'retired', 'and the key lives');
$server->safe_psql('postgres', q{DELETE FROM elsewhere});
is(sqlstate($server, q{CALL envelope_destroy_retired_keys('t1')}), '', 'without it');
is($server->safe_psql('postgres', "SELECT state || ' ' || (wrapped_dek IS NULL) FROM envelope.tenant_keys WHERE key_id = $old"), 'destroyed true', 'the key dies');

is($server->safe_psql('postgres', q{SELECT string_agg(event, ' ' ORDER BY audit_id) FROM envelope.audit_log WHERE tenant_id = 't1' AND event LIKE 'key.%'}),
	'key.schedule key.destroy', 'the audit log has it');
like(slurp_file($server->logfile), qr/envelope audit: \{"event":"key.destroy","database":"postgres","tenant":"t1","key_id":"$old","login":/, 'and so has the server log');

is(finish_suite($server), 0, 'evicted and restarted, every value opens');
$server->stop;
done_testing();
