# A tenant goes by request, approvals of distinct people and time; what will be
# lost is shown and recorded; and the audit log says who did what, when, from
# where: what was committed, and nothing else.

use strict;
use warnings;
use Envelope;
use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $server = new_server('offboarding', "listen_addresses = '127.0.0.1'", 'envelope.destroy_approvals = 2');
$server->append_conf('pg_hba.conf', "host all all 127.0.0.1/32 trust\n");
$server->reload;
$server->safe_psql('postgres', q{
	CREATE ROLE ann LOGIN; CREATE ROLE bob LOGIN; CREATE ROLE cid LOGIN; CREATE ROLE dan LOGIN; CREATE ROLE team;
	GRANT team TO ann, bob, cid, dan;
	SELECT envelope_grant('team', 'admin'); SELECT envelope_grant('team', 'operate'); SELECT envelope_grant('dan', 'use');
	SELECT envelope_create_tenants(array['acme', 'other']);
	CREATE TABLE customers (id int PRIMARY KEY, tenant_id text NOT NULL, email text, ssn text);
	SELECT envelope_protect('customers', 'tenant_id', '{email,ssn}', '{email}');
	CREATE TABLE docs (id int, tenant_id text, body bytea) PARTITION BY LIST (id);
	CREATE TABLE docs_1 PARTITION OF docs FOR VALUES IN (1);
	SELECT envelope_register_column('docs', 'body', 'tenant_id', 'docs');
	INSERT INTO customers SELECT g, CASE WHEN g <= 7 THEN 'acme' ELSE 'other' END, 'c' || g, CASE WHEN g % 2 = 0 THEN 's' || g END FROM generate_series(1, 20) g;
	INSERT INTO docs SELECT 1, 'acme', envelope_encrypt('acme', 'd', 'docs') FROM generate_series(1, 3);
	GRANT SELECT ON customers TO dan});

# by LOGIN SQL: its output, or the SQLSTATE, over TCP.
sub by
{
	my ($login, $sql) = @_;
	my ($out, $err) = ('', '');
	IPC::Run::run([ 'psql', '-XAtq', '-v', 'VERBOSITY=sqlstate', '-d', 'dbname=postgres application_name=console host=127.0.0.1 port=' . $server->port . " user=$login", '-c', $sql ],
		'<', '/dev/null', '>', \$out, '2>', \$err);
	chomp $out;
	return $err =~ /(?:ERROR|FATAL):\s+(\w{5})\b/ ? $1 : $out;
}
my $state = q{SELECT state FROM envelope.tenants WHERE tenant_id = 'acme'};
my $due = sub { $server->safe_psql('postgres', q{UPDATE envelope.destroy_requests SET destroy_after = now() WHERE ended_at IS NULL; CALL envelope_run_maintenance()}) };

# The request shows what will be lost, and keeps it.
my $log_begin = -s $server->logfile;
is(by('dan', q{SELECT count(email) FROM customers WHERE tenant_id = 'acme'}), 7, 'a tenant in use');
my $loss = "public.customers|email__sealed|7\npublic.customers|ssn__sealed|3\npublic.docs_1|body|3";
is(join("\n", sort split /\n/, by('ann', q{SELECT * FROM envelope_schedule_destroy('acme', '30 days')})), $loss, 'who asks for its end is shown what will be lost');
is($server->safe_psql('postgres', q{SELECT string_agg(format('%s|%s|%s', l->>'table', l->>'column', l->>'values'), E'\n' ORDER BY l->>'table', l->>'column') FROM envelope.destroy_requests, jsonb_array_elements(loss) l}), $loss, 'which is on record');
is($server->safe_psql('postgres', q{SELECT details->'loss' = (SELECT loss FROM envelope.destroy_requests) FROM envelope.audit_log WHERE event = 'destroy.request'}), 't', 'in the audit log too');
is(by('dan', q{SELECT email FROM customers WHERE tenant_id = 'acme'}), 'VE006', 'the tenant cannot be used from then on');
is(by('dan', q{SELECT count(email) FROM customers WHERE tenant_id = 'other'}), 13, 'others can');

# Approvals of distinct logins, whatever role they take
is(by('ann', q{SELECT envelope_approve_destroy('acme')}), '42501', 'who asked does not approve');
is(by('ann', q{SET ROLE team; SELECT envelope_approve_destroy('acme')}), '42501', 'nor as a role that others are members of too');
is(by('bob', q{SET ROLE team; SELECT envelope_approve_destroy('acme')}), 1, 'another does; one more is wanted');
is(by('bob', q{SELECT envelope_approve_destroy('acme')}), '42501', 'the same person does not count twice');
is(by('dan', q{SELECT envelope_approve_destroy('nobody')}), '55000', 'nothing to approve');
$due->();
is($server->safe_psql('postgres', $state), 'scheduled', 'with one approval of two it is not destroyed, though its time has come');

# Any admin cancels it until the end; approvals are for one request.
is(by('cid', q{SELECT envelope_cancel_destroy('acme')}), '', 'anybody of them cancels it');
is(by('dan', q{SELECT count(email) FROM customers WHERE tenant_id = 'acme'}), 7, 'nothing is lost');
by('bob', q{SELECT count(*) FROM envelope_schedule_destroy('acme', '7 days')});
$due->();
is($server->safe_psql('postgres', $state), 'scheduled', 'approvals of another request do not count');
is(by('ann', q{SELECT envelope_approve_destroy('acme')}), 1, 'one');
is(by('cid', q{SET ROLE team; SELECT envelope_approve_destroy('acme')}), 0, 'two');
$server->safe_psql('postgres', q{UPDATE envelope.destroy_requests SET destroy_after = requested_at + '7 days' WHERE ended_at IS NULL; CALL envelope_run_maintenance()});
is($server->safe_psql('postgres', $state), 'scheduled', 'approved, it has its time');
$due->();
is($server->safe_psql('postgres', $state), 'destroyed', 'with the approvals, when the time has come, it is destroyed');
is(by('dan', q{SELECT email FROM customers WHERE tenant_id = 'acme'}), 'VE005', 'nothing of it opens');
is(by('cid', q{SELECT envelope_cancel_destroy('acme')}), '55000', 'nor can it be cancelled');
is(by('dan', q{SELECT count(email) FROM customers WHERE tenant_id = 'other'}), 13, 'the others are as before');

# Who, as what, from where, when
is($server->safe_psql('postgres', q{SELECT string_agg(format('%s %s/%s %s %s', event, login, role, client, application), E'\n' ORDER BY audit_id) FROM envelope.audit_log WHERE event LIKE 'destroy.%' AND event <> 'destroy.done'}),
	join("\n", 'destroy.request ann/ann 127.0.0.1 console', 'destroy.approve bob/team 127.0.0.1 console', 'destroy.cancel cid/cid 127.0.0.1 console',
		'destroy.request bob/bob 127.0.0.1 console', 'destroy.approve ann/ann 127.0.0.1 console', 'destroy.approve cid/team 127.0.0.1 console'), 'the audit log tells who did what, as which role, from where');
is($server->safe_psql('postgres', q{SELECT bool_and(at BETWEEN now() - interval '10 min' AND now() AND pid > 0), bool_and(at >= lag) FROM (SELECT *, lag(at) OVER (ORDER BY audit_id) FROM envelope.audit_log) a}), 't|t', 'and when');

# One row for each deed that was committed, and a line in the server log for each;
# none for one that was not, in part or whole.
my $user = $server->safe_psql('postgres', 'SELECT current_user');
by('ann', q{BEGIN; SELECT envelope_suspend_tenant('other'); ROLLBACK});
by('ann', q{BEGIN; SAVEPOINT s; SELECT envelope_suspend_tenant('other'); ROLLBACK TO s; SELECT envelope_create_tenant('third'); COMMIT});
by('ann', q{SELECT envelope_create_kek('eu', 'local://platform'); SELECT envelope_set_tenant_kek('third', 'eu'); SELECT envelope_alter_kek('eu', '{}'); SELECT rotate_tenant_dek('third'); SELECT envelope_set_rotation_interval('third', '90 days')});
by('ann', q{CALL envelope_rotate_kek('eu', 'platform')});
by('ann', q{CALL envelope_rotate_tenant('third')});
by('ann', q{CALL envelope_destroy_retired_keys('third')});
by('ann', q{SELECT envelope_suspend_tenant('third'); SELECT envelope_resume_tenant('third'); SELECT envelope_drop_kek('eu')});
is($server->safe_psql('postgres', q{SELECT string_agg(event, ' ' ORDER BY audit_id) FROM envelope.audit_log WHERE login = 'ann' AND audit_id > (SELECT max(audit_id) FROM envelope.audit_log WHERE event = 'destroy.done')}),
	'tenant.create kek.create tenant.set_kek kek.alter rotation.begin interval.set kek.rotate kek.rotated'
	  . ' rotation.begin rotation.reencrypt rotation.wait rotation.scan rotation.proven key.schedule key.schedule key.destroy key.destroy tenant.suspend tenant.resume kek.drop',
	'each deed that was committed has a row, and nothing else has');
my @lines = map { JSON::PP::decode_json($_) } slurp_file($server->logfile, $log_begin) =~ /LOG:  envelope audit: (\{.*\})$/mg;
is(join(' ', map { $_->{event} } @lines), $server->safe_psql('postgres', q{SELECT string_agg(event, ' ' ORDER BY audit_id) FROM envelope.audit_log WHERE audit_id >= (SELECT min(audit_id) FROM envelope.audit_log WHERE event = 'destroy.request')}), 'and a line in the server log');
my ($approval) = grep { $_->{event} eq 'destroy.approve' } @lines;
is(join(' ', map { "$_=$approval->{$_}" } sort keys %$approval), 'application=console client=127.0.0.1 database=postgres event=destroy.approve login=bob role=team tenant=acme', 'which says the same');

# What changes nothing, or could not be done, is in the server log alone.
my $rows = $server->safe_psql('postgres', 'SELECT count(*) FROM envelope.audit_log');
my $log = -s $server->logfile;
by('ann', q{SELECT envelope_evict('other')});
by('ann', q{SELECT envelope_evict_all()});
by('ann', q{SELECT envelope_approve_destroy('other')});
set_faults($server, 'platform:denied');
is(by('dan', q{SELECT count(email) FROM customers WHERE tenant_id = 'other'}), 'VE002', 'a denial');
set_faults($server, '');
my $said = slurp_file($server->logfile, $log);
like($said, qr/envelope audit: \{"event":"tenant\.evict","database":"postgres","tenant":"other","login":"ann"/, 'an eviction is in the server log');
like($said, qr/envelope audit: \{"event":"tenant\.evict_all".*"login":"ann"/, 'that of everything too');
like($said, qr/ERROR:  tenant "other" is not scheduled to be destroyed/, 'and a failure');
like($said, qr/ERROR:  the KMS denied the key of tenant "other"/, 'and a denial');
is($server->safe_psql('postgres', 'SELECT count(*) FROM envelope.audit_log'), $rows, 'and no row has come');

$server->safe_psql('postgres', 'SELECT envelope_evict_all()');
$server->restart;
is(by('dan', q{SELECT count(email) FROM customers WHERE tenant_id = 'other'}), 13, 'evicted and restarted, what was not destroyed opens');
is(by('dan', q{SELECT email FROM customers WHERE tenant_id = 'acme'}), 'VE005', 'and what was does not');
$server->stop;
done_testing();
