# Logical replication carries a rotation: values under the new key arrive at a
# subscriber, which opens them if it has the keys and a KMS, and says what it
# lacks if not.

use strict;
use warnings;
use Envelope;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $publisher = new_server('publisher', 'wal_level = logical', 'max_wal_senders = 10', 'max_replication_slots = 10');
my $subscriber = new_server('subscriber', "envelope.local_kek_directory = '$publisher->{keks}'");
my $other = new_server('other');
my $schema = q{
	CREATE TABLE customers (id int PRIMARY KEY, tenant_id text NOT NULL, email text, plain text, UNIQUE (tenant_id, email));
	SELECT envelope_protect('customers', 'tenant_id', '{email}', '{email}');
	CREATE TABLE docs (id int PRIMARY KEY, tenant_id text NOT NULL, body bytea, plain text);
	SELECT envelope_register_column('docs', 'body', 'tenant_id', 'docs');
	CREATE VIEW everything AS SELECT id, tenant_id, email AS opened, plain FROM customers
		UNION ALL SELECT id, tenant_id, envelope_decrypt(tenant_id, body, 'docs'), plain FROM docs};
$publisher->safe_psql('postgres', q{SELECT envelope_create_tenants(array['t1', 't2'])});
$publisher->safe_psql('postgres', $schema);
$publisher->safe_psql('postgres', q{
	INSERT INTO customers SELECT g, 't' || (1 + g % 2), 'c' || g, 'c' || g FROM generate_series(1, 500) g;
	INSERT INTO docs SELECT g, 't' || (1 + g % 2), envelope_encrypt('t' || (1 + g % 2), 'd' || g, 'docs'), 'd' || g FROM generate_series(1, 500) g;
	CREATE PUBLICATION everything FOR TABLE customers, docs, envelope.keks, envelope.tenants, envelope.tenant_keys;
	CREATE PUBLICATION data FOR TABLE customers, docs;
	CREATE TABLE unnamed (tenant_id text, body bytea);
	CREATE PUBLICATION unnamed FOR TABLE unnamed});

# What is published and could not be updated is not registered.
is(sqlstate($publisher, q{SELECT envelope_register_column('unnamed', 'body', 'tenant_id')}), '55000', 'a published table without a replica identity is refused');
$publisher->safe_psql('postgres', 'ALTER TABLE unnamed REPLICA IDENTITY FULL');
is(sqlstate($publisher, q{SELECT envelope_register_column('unnamed', 'body', 'tenant_id')}), '', 'with one it is not');

# One subscriber takes the keys too, so it gives up its own KEKs; the other has
# tenants of the same names and keys of its own.
my $connection = $publisher->connstr . ' dbname=postgres';
$subscriber->safe_psql('postgres', q{SELECT envelope_drop_kek('platform'), envelope_drop_kek('probe')});
$other->safe_psql('postgres', q{SELECT envelope_create_tenant('t1')});
$_->safe_psql('postgres', $schema) for $subscriber, $other;
$subscriber->safe_psql('postgres', "CREATE SUBSCRIPTION everything CONNECTION '$connection' PUBLICATION everything");
$other->safe_psql('postgres', "CREATE SUBSCRIPTION data CONNECTION '$connection' PUBLICATION data");
$subscriber->wait_for_subscription_sync($publisher, 'everything');
$other->wait_for_subscription_sync($publisher, 'data');

my $wrong = q{SELECT count(*) FILTER (WHERE opened IS DISTINCT FROM plain), count(*) FROM everything};
my $stored = q{SET envelope.stored_form = on;
	SELECT md5((SELECT string_agg(c::text, ';' ORDER BY id) FROM customers c) || (SELECT string_agg(d::text, ';' ORDER BY id) FROM docs d))};
my $under_old = q{SET envelope.stored_form = on;
	SELECT count(*) FROM (SELECT email__sealed AS v FROM customers UNION ALL SELECT body FROM docs) s
	JOIN envelope.tenant_keys k ON k.key_id = envelope_key_id(v) WHERE k.state <> 'active'};
sub catch_up { $publisher->wait_for_catchup($_) for 'everything', 'data'; return; }

is(sqlstate($subscriber, $wrong), '0|1000', 'a subscriber with the keys opens what was copied');
my $before = $subscriber->safe_psql('postgres', $stored);
my $writer = Envelope::Session->new($publisher);
$writer->send(q{DO $$ BEGIN FOR i IN 1 .. 200 LOOP
	UPDATE customers SET email = 'new ' || i, plain = 'new ' || i WHERE id = 1 + i % 50;
	UPDATE docs SET plain = 'n' || i, body = envelope_encrypt(tenant_id, 'n' || i, 'docs') WHERE id = 1 + i % 50;
	COMMIT; END LOOP; END $$});
is(sqlstate($publisher, q{CALL envelope_rotate_tenant('t1', 50, '1 ms')}), '', 'a key is rotated while rows are written');
is($writer->wait, '', 'which are written');
$writer->quit;
catch_up();
isnt($subscriber->safe_psql('postgres', $stored), $before, 'the new values arrive');
is($subscriber->safe_psql('postgres', $stored), $publisher->safe_psql('postgres', $stored), 'byte for byte');
is($subscriber->safe_psql('postgres', $under_old), '0', 'none is under the old key');
is(sqlstate($subscriber, $wrong), '0|1000', 'and all open there');
is($subscriber->safe_psql('postgres', q{SELECT sum("values"), sum(failures), count(*) FILTER (WHERE key_state <> 'active') FROM envelope_verify_tenant('t1')}), '500|0|0', 'as verify says there');
is($subscriber->safe_psql('postgres', q{SELECT id FROM customers WHERE tenant_id = 't1' AND email = 'c200'}), 200, 'terms are as they were');

# The death of the old key arrives as well.
is(sqlstate($publisher, q{CALL envelope_destroy_retired_keys('t1')}), '', 'the old key dies');
catch_up();
is($subscriber->safe_psql('postgres', q{SELECT string_agg(state || ' ' || (wrapped_dek IS NULL), ', ' ORDER BY state) FROM envelope.tenant_keys WHERE tenant_id = 't1' AND purpose = 'data'}), 'active false, destroyed true', 'on the subscriber as well');
is(sqlstate($subscriber, $wrong), '0|1000', 'where all opens all the same');

# One in a transaction, and a KEK
like(sqlstate($publisher, q{SELECT rotate_tenant_dek('t2')}), qr/^\d+$/, 'a rotation in one transaction');
is(sqlstate($publisher, q{CALL envelope_rotate_kek('platform', 'probe')}), '', 'and one of the KEK');
catch_up();
is($subscriber->safe_psql('postgres', $under_old), '0', 'arrive');
$subscriber->safe_psql('postgres', 'SELECT envelope_evict_all()');
is(sqlstate($subscriber, $wrong), '0|1000', 'and all opens under the new KEK');
is($subscriber->safe_psql('postgres', q{SELECT string_agg(DISTINCT kek, ' ') FROM envelope.tenant_keys WHERE state <> 'destroyed'}), 'probe', 'which wraps all keys there');

# Without the keys, or the KMS
is($other->safe_psql('postgres', $stored), $publisher->safe_psql('postgres', $stored), 'a subscriber without the keys has the same bytes');
is(sqlstate($other, q{SELECT email FROM customers WHERE tenant_id = 't1' LIMIT 1}), 'VE009', 'of a tenant whose keys are others there it says that the key is not there');
is(sqlstate($other, q{SELECT email FROM customers WHERE tenant_id = 't2' LIMIT 1}), 'VE001', 'of a tenant that is not there, that');
rename "$publisher->{keks}/probe.1.key", "$publisher->{keks}/away" or die;
$subscriber->safe_psql('postgres', 'SELECT envelope_evict_all()');
is(sqlstate($subscriber, q{SELECT email FROM customers LIMIT 1}), 'VE002', 'a subscriber without its KEK opens nothing');
$publisher->safe_psql('postgres', q{UPDATE customers SET email = 'meanwhile', plain = 'meanwhile' WHERE id = 3});
catch_up();
rename "$publisher->{keks}/away", "$publisher->{keks}/probe.1.key" or die;
$subscriber->safe_psql('postgres', q{SELECT * FROM envelope_check_kek('probe')});
for my $node ($publisher, $subscriber)
{
	$node->safe_psql('postgres', 'SELECT envelope_evict_all()');
	$node->restart;
	is(sqlstate($node, $wrong), '0|1000', $node->name . ': evicted and restarted with it, everything opens');
}
is($subscriber->safe_psql('postgres', q{SELECT email FROM customers WHERE id = 3}), 'meanwhile', 'what came meanwhile too');

$_->stop for $other, $subscriber, $publisher;
done_testing();
