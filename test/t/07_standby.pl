# A hot standby opens with a KMS of its own, follows what the primary decides,
# and loses nothing when it is promoted.

use strict;
use warnings;
use Envelope;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_server('primary');
$primary->safe_psql('postgres', q{
	SELECT envelope_create_tenants(array['t1', 't2']);
	CREATE TABLE sealed AS SELECT g, 't' || (1 + g % 2) AS tenant, envelope_encrypt('t' || (1 + g % 2), 'value ' || g) AS v FROM generate_series(1, 1000) g;
});
$primary->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->{keks} = $primary->{keks};
$standby->init_from_backup($primary, 'backup', has_streaming => 1);
$standby->start;

my $all = 'SELECT count(envelope_decrypt(tenant, v)) FROM sealed';
is(sqlstate($standby, $all), '1000', 'a standby opens what was sealed');
is(calls($standby, 'unwrap'), 2, 'by calls of its own');
is(sqlstate($standby, q{SELECT envelope_decrypt('t1', envelope_encrypt('t1', 'sealed here'))}), 'sealed here', 'it seals in a query');
is(sqlstate($standby, 'SELECT envelope_evict_all()'), '2', 'evicts');
is(sqlstate($standby, 'SELECT envelope_warm()'), '4', 'warms');
is(sqlstate($standby, q{SELECT envelope_create_tenant('x')}), '25006', 'makes no tenant');

# A copy that goes its own way
my $copy = PostgreSQL::Test::Cluster->new('copy');
$copy->init_from_backup($primary, 'backup');
$copy->start;
is(sqlstate($copy, $all), '1000', 'a backup that is started alone opens');
is(sqlstate($copy, q{SELECT envelope_create_tenant('of the copy') > 0}), 't', 'and makes tenants');
$copy->stop;

# What the primary does reaches statements under way on the standby.
$primary->safe_psql('postgres', q{SELECT envelope_create_tenant('t3')});
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('write'));
is(sqlstate($standby, q{SELECT envelope_decrypt('t3', envelope_encrypt('t3', 'new'))}), 'new', 'a new tenant is there');
for my $level ('READ COMMITTED', 'REPEATABLE READ')
{
	my $session = Envelope::Session->new($standby);
	$session->query("BEGIN ISOLATION LEVEL $level");
	$session->send(q{SELECT count(envelope_decrypt(tenant, v) || pg_sleep(0.02)) FROM sealed WHERE tenant = 't1'});
	eventually(sub { $standby->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE pid = $session->{pid} AND wait_event = 'PgSleep'") });
	$primary->safe_psql('postgres', q{SELECT envelope_suspend_tenant('t1')});
	my $start = now();
	is($session->wait, 'VE006', "$level: a suspension on the primary reaches a statement on the standby");
	cmp_ok(now() - $start, '<', 6, "$level: within a second or so of its replay");
	$session->quit;
	$primary->safe_psql('postgres', q{SELECT envelope_resume_tenant('t1')});
	$primary->wait_for_catchup($standby, 'replay', $primary->lsn('write'));
	is(sqlstate($standby, $all), '1000', "$level: and its end too");
}

# The KMS out of reach of the standby alone
set_faults($standby, 'platform:unreachable');
$standby->safe_psql('postgres', 'SELECT envelope_evict_all()');
is(sqlstate($standby, "SET envelope.kms_timeout = '300ms'; $all"), 'VE003', 'a standby without a KMS says so');
is(sqlstate($primary, $all), '1000', 'the primary has its own');
set_faults($standby, '');

# Promoted
$primary->safe_psql('postgres', q{SELECT envelope_create_tenant('last'); INSERT INTO sealed SELECT 0, 'last', envelope_encrypt('last', 'value 0')});
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('write'));
$primary->stop;
$standby->promote;
is(sqlstate($standby, $all), '1001', 'promoted it has lost nothing');
is(sqlstate($standby, q{SELECT envelope_create_tenant('after') > 0}), 't', 'and makes tenants');
is(sqlstate($standby, q{INSERT INTO sealed SELECT -1, 'after', envelope_encrypt('after', 'x') RETURNING envelope_decrypt(tenant, v)}), 'x', 'and seals');
$standby->safe_psql('postgres', 'SELECT envelope_evict_all()');
$standby->restart;
is(sqlstate($standby, $all), '1002', 'all opens after a restart');
is($standby->safe_psql('postgres', q{SELECT count(*) FROM envelope_doctor() WHERE subject NOT LIKE 'setting%'}), 0, 'doctor is content');

$standby->stop;
done_testing();
