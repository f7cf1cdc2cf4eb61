# Logical replication of a protected table carries ciphertext.  A subscriber with
# the keys and a KMS opens it; one without the KMS applies it all the same; one
# whose KMS comes back reads everything.  A physical standby opens as well.

use strict;
use warnings;
use Envelope;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $publisher = new_server('publisher', 'wal_level = logical', 'max_wal_senders = 10', 'max_replication_slots = 10');
my $subscriber = new_server('subscriber', "envelope.local_kek_directory = '$publisher->{keks}'");
my $schema = q{
	CREATE TABLE customers (
		id int PRIMARY KEY,
		tenant_id text NOT NULL,
		email text NOT NULL,
		ssn varchar(11),
		born date,
		amount int,
		UNIQUE (tenant_id, email));
	CREATE TABLE whole (id int, tenant_id text, note text);
	ALTER TABLE whole REPLICA IDENTITY FULL;
	SELECT envelope_protect('customers', 'tenant_id', '{email,ssn,born}', '{email}');
	SELECT envelope_protect('whole', 'tenant_id', '{note}')};
$publisher->safe_psql('postgres', q{SELECT envelope_create_tenants(array['t1', 't2'])});
$publisher->safe_psql('postgres', $schema);
$publisher->safe_psql('postgres', q{
	INSERT INTO customers SELECT g, 't' || (1 + g % 2), 'canary' || g || '@mail.example', 'canary ' || g, date '2001-01-01' + g, g FROM generate_series(1, 100) g;
	INSERT INTO whole SELECT g, 't1', 'canary ' || g FROM generate_series(1, 20) g;
	CREATE PUBLICATION everything FOR TABLE customers, whole, envelope.keks, envelope.tenants, envelope.tenant_keys;
	CREATE PUBLICATION few FOR TABLE customers WHERE (id <= 10);
	SELECT pg_create_logical_replication_slot('look', 'test_decoding');
});
my $connection = $publisher->connstr . ' dbname=postgres';

# The subscriber takes the KEKs too, so it gives up its own.
$subscriber->safe_psql('postgres', q{SELECT envelope_drop_kek('platform'), envelope_drop_kek('probe')});
$subscriber->safe_psql('postgres', $schema);
$subscriber->safe_psql('postgres', "CREATE SUBSCRIPTION everything CONNECTION '$connection' PUBLICATION everything");
$subscriber->wait_for_subscription_sync($publisher, 'everything');

my $open = q{SELECT count(*), md5(string_agg(c::text, ';' ORDER BY id)) FROM (SELECT id, tenant_id, email, ssn, born, amount FROM customers) c};
my $stored = q{SET envelope.stored_form = on; SELECT count(email), md5(string_agg(c::text, ';' ORDER BY id)) FROM customers c};
my $whole = q{SELECT string_agg(id || note, ';' ORDER BY id) FROM whole};

# same WHAT: the subscriber holds the same bytes and reads the same.
sub same
{
	my ($what) = @_;
	$publisher->wait_for_catchup('everything');
	is($subscriber->safe_psql('postgres', $stored), $publisher->safe_psql('postgres', $stored), "$what: the same bytes");
	is($subscriber->safe_psql('postgres', $open), $publisher->safe_psql('postgres', $open), "$what: read the same");
	is($subscriber->safe_psql('postgres', $whole), $publisher->safe_psql('postgres', $whole), "$what: under REPLICA IDENTITY FULL too");
	return;
}
same('what was copied');
like($subscriber->safe_psql('postgres', $stored), qr/^0\|/, 'carriers are empty');

$publisher->safe_psql('postgres', q{
	INSERT INTO customers SELECT g, 't1', 'canary' || g || '@mail.example', NULL, NULL, g FROM generate_series(101, 150) g;
	UPDATE customers SET ssn = 'canary new' WHERE id <= 10;
	UPDATE customers SET amount = 0 WHERE id BETWEEN 20 AND 30;
	UPDATE customers SET tenant_id = 't2' WHERE id = 102;
	DELETE FROM customers WHERE id = 50;
	UPDATE whole SET note = note || ' canary' WHERE id < 5;
	DELETE FROM whole WHERE id = 7;
	SELECT envelope_create_tenant('t3');
	INSERT INTO customers VALUES (200, 't3', 'canary200@mail.example', 'x', NULL, 1)});
same('what was changed');
is($subscriber->safe_psql('postgres', q{SELECT id FROM customers WHERE tenant_id = 't2' AND email = 'canary102@mail.example'}), 102, 'terms serve there too');
unlike($publisher->safe_psql('postgres', q{SELECT data FROM pg_logical_slot_peek_changes('look', NULL, NULL)}), qr/canary/, 'the stream holds ciphertext only');

# The subscriber's KMS away: all is applied, and opens when there is one again.
set_faults($subscriber, 'platform:denied');
$subscriber->safe_psql('postgres', 'SELECT envelope_evict_all()');
$publisher->safe_psql('postgres', q{
	INSERT INTO customers VALUES (201, 't1', 'canary201@mail.example', 'x', NULL, 1);
	UPDATE customers SET ssn = 'y' WHERE id = 200; DELETE FROM customers WHERE id = 1; UPDATE whole SET note = 'canary' WHERE id = 9});
$publisher->wait_for_catchup('everything');
is(sqlstate($subscriber, q{SELECT count(*), max(id) FROM customers}), '150|201', 'rows arrive without a KMS');
is(sqlstate($subscriber, q{SELECT email FROM customers LIMIT 1}), 'VE002', 'and do not open');
set_faults($subscriber, '');
ok(eventually(sub { sqlstate($subscriber, 'SELECT count(email) FROM customers') eq '150' }), 'until there is one');
same('the KMS is back');

# A row filter: what is copied goes through a query, and is ciphertext as well.
my $other = new_server('other');
$other->safe_psql('postgres', $schema);
$other->safe_psql('postgres', "CREATE SUBSCRIPTION few CONNECTION '$connection' PUBLICATION few");
$other->wait_for_subscription_sync($publisher, "few");
is($other->safe_psql('postgres', q{SET envelope.stored_form = on; SELECT count(*), count(email), count(email__sealed) FROM customers}), '9|0|9', 'a row filter: sealed values are copied');
is(sqlstate($other, q{SELECT email FROM customers LIMIT 1}), 'VE001', 'without the rows of tenants and keys: nothing opens');

# A physical standby
$publisher->backup('backup');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($publisher, 'backup', has_streaming => 1);
$standby->start;
$publisher->wait_for_catchup($standby, 'replay', $publisher->lsn('write'));
is($standby->safe_psql('postgres', $open), $publisher->safe_psql('postgres', $open), 'a standby reads the same');
is(sqlstate($standby, q{SELECT id FROM customers WHERE tenant_id = 't1' AND email = 'canary201@mail.example'}), 201, 'and finds');
$standby->promote;
is(sqlstate($standby, q{INSERT INTO customers VALUES (300, 't1', 'late', NULL, NULL, 1) RETURNING email}), 'late', 'promoted, it writes');

$_->stop for $standby, $other, $subscriber, $publisher;
done_testing();
