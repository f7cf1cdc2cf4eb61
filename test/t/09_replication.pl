# Logical replication carries ciphertext; a subscriber that has the keys opens,
# and follows suspensions.

use strict;
use warnings;
use Envelope;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $publisher = new_server('publisher', 'wal_level = logical', 'max_wal_senders = 10', 'max_replication_slots = 10');
my $subscriber = new_server('subscriber', "envelope.local_kek_directory = '$publisher->{keks}'");
$publisher->safe_psql('postgres', q{
	SELECT envelope_create_tenants(array['t1', 't2']);
	CREATE TABLE sealed (id int, tenant text, v bytea);
	ALTER TABLE sealed REPLICA IDENTITY FULL;
	INSERT INTO sealed SELECT g, 't' || (1 + g % 2), envelope_encrypt('t' || (1 + g % 2), 'canary value ' || g) FROM generate_series(1, 100) g;
	CREATE PUBLICATION everything FOR TABLE sealed, envelope.keks, envelope.tenants, envelope.tenant_keys;
	SELECT pg_create_logical_replication_slot('look', 'test_decoding');
});
# The subscriber takes the KEKs too, so it gives up its own.
$subscriber->safe_psql('postgres', q{
	SELECT envelope_drop_kek('platform'), envelope_drop_kek('probe');
	CREATE TABLE sealed (id int, tenant text, v bytea);
	CREATE INDEX by_key ON sealed (envelope_key_id(v));
});
my $connection = $publisher->connstr . ' dbname=postgres';
$subscriber->safe_psql('postgres', "CREATE SUBSCRIPTION everything CONNECTION '$connection' PUBLICATION everything");
$subscriber->wait_for_subscription_sync($publisher, 'everything');

my $all = q{SELECT count(*) FROM sealed WHERE envelope_decrypt(tenant, v) LIKE 'canary value %'};
is(sqlstate($subscriber, $all), '100', 'a subscriber with the keys opens what was copied');

$publisher->safe_psql('postgres', q{
	INSERT INTO sealed SELECT g, 't1', envelope_encrypt('t1', 'canary value ' || g) FROM generate_series(101, 150) g;
	UPDATE sealed SET v = envelope_encrypt(tenant, 'canary value changed') WHERE id <= 10;
	DELETE FROM sealed WHERE id = 50;
	SELECT envelope_create_tenant('t3');
	INSERT INTO sealed VALUES (200, 't3', envelope_encrypt('t3', 'canary value 200'))});
$publisher->wait_for_catchup('everything');
is(sqlstate($subscriber, $all), '150', 'and what was changed, of new tenants too');
unlike($publisher->safe_psql('postgres', q{SELECT data FROM pg_logical_slot_peek_changes('look', NULL, NULL)}), qr/canary value/, 'the stream holds ciphertext only');

# The apply worker fires the guards: memory of the subscriber follows.
my $session = Envelope::Session->new($subscriber);
is($session->query(q{SELECT envelope_decrypt(tenant, v) FROM sealed WHERE id = 200}), 'canary value 200', 'warm');
$publisher->safe_psql('postgres', q{SELECT envelope_suspend_tenant('t3')});
$publisher->wait_for_catchup('everything');
is($session->query(q{SELECT envelope_decrypt(tenant, v) FROM sealed WHERE id = 200}), 'VE006', 'a suspension that is applied suspends');
is($subscriber->safe_psql('postgres', q{SELECT count(*) FROM envelope.cache WHERE tenant_id = 't3'}), 0, 'and evicts');
$publisher->safe_psql('postgres', q{SELECT envelope_resume_tenant('t3')});
$publisher->wait_for_catchup('everything');
is($session->query(q{SELECT envelope_decrypt(tenant, v) FROM sealed WHERE id = 200}), 'canary value 200', 'resumed, it opens');

# The subscriber's KMS away: the stream goes on, for it needs no key.
set_faults_here('platform:denied');
$subscriber->safe_psql('postgres', 'SELECT envelope_evict_all()');
$publisher->safe_psql('postgres', q{INSERT INTO sealed VALUES (201, 't1', envelope_encrypt('t1', 'canary value 201'))});
$publisher->wait_for_catchup('everything');
is(sqlstate($subscriber, 'SELECT count(*) FROM sealed'), '151', 'rows arrive without a KMS');
is(sqlstate($subscriber, $all), 'VE002', 'and open when there is one');
set_faults_here('');
ok(eventually(sub { sqlstate($subscriber, $all) eq '151' }), 'again');

# The probe of set_faults is a KEK of the publisher's here.
sub set_faults_here { set_faults($subscriber, $_[0]); return; }

$session->quit;
$subscriber->stop;
$publisher->stop;
done_testing();
