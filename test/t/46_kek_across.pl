# packages: curl
# python: kms
#
# All keys move from a local KEK to Vault's, to AWS's and back.  Each move is
# killed in the midst, and finishes when it is called again.  A key that does not
# unwrap is named and left alone; one that another session moves or makes
# meanwhile keeps what that has given it.

use strict;
use warnings;
use Envelope;
use EnvelopeKms;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $fs = fault_server();
my $bao = start_bao();
my $folder = PostgreSQL::Test::Utils::tempdir;
my $host = "127.0.0.1:$bao->{port}";
bao($bao, 'POST', 'transit/keys/all', { derived => \1 });
my %env = (AWS_ENDPOINT_URL_KMS => $fs->url('kms', 'https'), AWS_ACCESS_KEY_ID => 'AKIDENVELOPETEST', AWS_SECRET_ACCESS_KEY => 'secret/of+the=test');
my $server = kms_server('across', ca => $fs->{ca}, env => \%env,
	profiles => { vault => { hosts => [$host], endpoint => $bao->{url}, token => 'root' } },
	conf => [ 'restart_after_crash = on', 'autovacuum = off', 'wal_keep_size = 1GB' ]);
%ENV = (%ENV, %env);	# for later starts
my $aws = $fs->kms_key(region => 'eu-west-1');
make_kek($server->{keks}, 'third');
$server->safe_psql('postgres', qq{
	SELECT envelope_create_kek('vault', 'hcvault://$host/transit/keys/all', '{"profile": "vault"}'),
		envelope_create_kek('aws', 'aws-kms://$aws'), envelope_create_kek('third', 'local://third');
	SELECT envelope_create_tenants(array(SELECT 'tenant ' || g FROM generate_series(1, 1000) g), 'platform');
	SELECT rotate_tenant_dek('tenant ' || g, false) FROM generate_series(1, 10) g;
	CREATE TABLE docs AS SELECT 'tenant ' || g AS tenant, envelope_encrypt('tenant ' || g, 'value ' || g) AS body, 'value ' || g AS plain FROM generate_series(1, 1000) g});
my $keys = $server->safe_psql('postgres', q{SELECT count(*) FROM envelope.tenant_keys WHERE kek = 'platform'});
is($keys, 2010, 'keys under the local KEK, some of them retired');

# What is sealed is not written to: no row version, and no WAL about the table.
$server->safe_psql('postgres', 'VACUUM (FREEZE) docs; CHECKPOINT');
my $rows = q{SELECT md5(string_agg(xmin::text || ctid::text || body::text, ' ' ORDER BY tenant)) FROM docs};
my $rows_before = $server->safe_psql('postgres', $rows);
my $begin = $server->lsn('flush');

my $versions = q{SELECT string_agg(kek || ' ' || n, ', ' ORDER BY kek COLLATE "C") FROM (
	SELECT kek, sum(v::int) AS n FROM envelope.status, jsonb_each_text(keys_by_version) e (k, v) GROUP BY 1) s WHERE n > 0};
my $wrong = q{SELECT count(*) FILTER (WHERE envelope_decrypt(tenant, body) IS DISTINCT FROM plain) FROM docs};

# interrupt FROM TO HOW: call, and end it when some keys have moved; how many had.
sub interrupt
{
	my ($from, $to, $how) = @_;
	my $session = Envelope::Session->new($server);
	my $pid = $session->{pid};
	my $moved = 0;
	$session->send("CALL envelope_rotate_kek('$from', '$to')");
	eventually(sub { ($moved = $server->safe_psql('postgres', q{SELECT coalesce(max(rows_reencrypted), 0) FROM envelope.rotation_progress WHERE kind = 'kek' AND running})) > 0 });
	$how->($pid);
	comes_back($server);
	eval { $session->quit };
	return $moved;
}
sub kill_server
{
	$server->kill9;
	# Its processes are gone in a moment, and the memory that they share with them.
	ok(eventually(sub { return 1 if $server->start(fail_ok => 1); undef $server->{_pid}; return 0; }), 'the server starts again');
	return;
}
sub still_under { return $server->safe_psql('postgres', "SELECT count(*) FROM envelope.tenant_keys WHERE kek = '$_[0]'"); }

# The first of the keys is damaged.
my ($bad, $whose, $whole) = split /\|/, $server->safe_psql('postgres', q{
	SELECT key_id, tenant_id, wrapped_dek FROM envelope.tenant_keys WHERE tenant_id > 'tenant 11' ORDER BY key_id LIMIT 1});
$server->safe_psql('postgres', qq{
	UPDATE envelope.tenant_keys SET wrapped_dek = set_byte(wrapped_dek, 20, 1 + get_byte(wrapped_dek, 20) % 255)
	WHERE key_id = $bad});
my $damaged = $server->safe_psql('postgres', "SELECT wrapped_dek FROM envelope.tenant_keys WHERE key_id = $bad");

# Local to Vault; the backend is killed.
is($server->safe_psql('postgres', $versions), "platform $keys", 'before: how many keys each KEK has wrapped');
cmp_ok(interrupt('platform', 'vault', sub { kill 'KILL', $_[0] }), '>', 0, 'local to Vault: a backend is killed when some keys have moved');
cmp_ok(still_under('platform'), '>', 1, 'others have not');
is($server->safe_psql('postgres', q{SELECT phase || ' ' || running FROM envelope.rotation_progress WHERE kind = 'kek'}), 'rewrap false', 'the rotation is not forgotten');
is($server->safe_psql('postgres', q{SELECT count(*) FROM envelope.tenants WHERE kek = 'platform'}), 0, 'new keys are made under the new KEK already');
my (undef, undef, $err) = $server->psql('postgres', q{CALL envelope_rotate_kek('platform', 'vault')});
like($err, qr/WARNING:  the rotation is not complete: 1 keys are still wrapped as they were\nDETAIL:  key $bad of tenant "$whose" is corrupt/, 'called again it goes on to the end, and names the key that is damaged');
is($server->safe_psql('postgres', $versions), 'platform 1, vault ' . ($keys - 1), 'which alone is left');
is($server->safe_psql('postgres', "SELECT wrapped_dek FROM envelope.tenant_keys WHERE key_id = $bad"), $damaged, 'as it was');
is($server->safe_psql('postgres', q{SELECT string_agg(phase, ' ') FROM envelope.rotations WHERE kind = 'kek'}), 'incomplete', 'one rotation is on record');
$server->safe_psql('postgres', "UPDATE envelope.tenant_keys SET wrapped_dek = '$whole' WHERE key_id = $bad");
(undef, undef, $err) = $server->psql('postgres', q{CALL envelope_rotate_kek('platform', 'vault')});
is($err, '', 'mended it moves as well');
is($server->safe_psql('postgres', $versions), "vault $keys", 'all are under Vault\'s');
$server->safe_psql('postgres', 'SELECT envelope_evict_all()');
is($server->safe_psql('postgres', $wrong), 0, 'and open every value');

# Vault to AWS; the server is killed.
cmp_ok(interrupt('vault', 'aws', \&kill_server), '>', 0, 'Vault to AWS: the server is killed when some keys have moved');
is($server->safe_psql('postgres', $wrong), 0, 'keys under both open');
is(sqlstate($server, q{CALL envelope_rotate_kek('vault', 'aws')}), '', 'called again it goes on');
is($server->safe_psql('postgres', $versions), "aws $keys", 'to the end');

# AWS and back; somebody ends the session, and then the KMS is away.
cmp_ok(interrupt('aws', 'platform', sub { $server->safe_psql('postgres', "SELECT pg_terminate_backend($_[0])") }), '>', 0, 'AWS to local: the session is ended when some keys have moved');
my $left = still_under('aws');
$fs->fault('kms', 'unavailable');
is(sqlstate($server, q{SET envelope.kms_timeout = '1s'; CALL envelope_rotate_kek('aws', 'platform')}), 'VE003', 'a KMS that is away ends the call');
is(still_under('aws'), $left, 'and changes nothing');
$fs->well;
ok(eventually(sub { my (undef, undef, $err) = $server->psql('postgres', q{CALL envelope_rotate_kek('aws', 'platform')}); $err eq '' }), 'called when it is there it goes on');
is($server->safe_psql('postgres', $versions), "platform $keys", 'and all are back');
is($server->safe_psql('postgres', q{SELECT string_agg(DISTINCT phase, ' ') FROM envelope.rotations WHERE kek = 'aws'}), 'done', 'in one rotation that is complete');

# A key that another session moves, or makes, meanwhile: one of those that the
# rotation comes to last
my $moved = $server->safe_psql('postgres', q{SELECT tenant_id FROM envelope.tenant_keys GROUP BY 1 ORDER BY min(key_id) DESC LIMIT 1});
set_faults($server, 'platform:delay=500');
my $mover = Envelope::Session->new($server);
my $rotator = Envelope::Session->new($server);
$_->query(q{SET envelope.kms_timeout = '60s'}) for $mover, $rotator;
$rotator->send(q{CALL envelope_rotate_kek('platform', 'aws')});
ok(eventually(sub { $server->safe_psql('postgres', q{SELECT count(*) FROM envelope.rotation_progress WHERE kind = 'kek' AND running}) }), 'a rotation is under way');
like($mover->query("BEGIN; SELECT envelope_set_tenant_kek('$moved', 'third')"), qr/^[23]$/, 'a session moves a tenant, and does not commit');
ok(eventually(sub { $server->safe_psql('postgres', "SELECT count(*) FROM pg_locks WHERE pid = $rotator->{pid} AND NOT granted") }), 'the rotation waits for it');
like(sqlstate($server, q{SET envelope.kms_timeout = '60s'; SELECT envelope_create_tenant('late', 'platform')}), qr/^\d+$/, 'another tenant is made');
my $maker = Envelope::Session->new($server);
like($maker->query(q{SET envelope.kms_timeout = '60s'; BEGIN; SELECT envelope_create_tenant('last', 'platform')}), qr/^\d+$/, 'one more is, and not committed');
$mover->query('COMMIT');
set_faults($server, '');
my $waits_for_maker = sub { $server->safe_psql('postgres', q{SELECT waits_for FROM envelope.rotation_progress WHERE kind = 'kek' AND running ORDER BY rotation_id DESC LIMIT 1}) eq "process $maker->{pid}" };
ok(eventually($waits_for_maker), 'the rotation waits for it, and says so');
$maker->query('COMMIT');
is($rotator->wait, '', 'then it ends');
$_->quit for $mover, $rotator;
is($server->safe_psql('postgres', "SELECT string_agg(DISTINCT kek, ' ') FROM envelope.tenant_keys WHERE tenant_id = '$moved'"), 'third', 'the tenant is where it was moved');
is($server->safe_psql('postgres', "SELECT kek FROM envelope.tenants WHERE tenant_id = '$moved'"), 'third', 'so are its keys to come');
my $tells = q{SELECT phase || ' ' || (SELECT count(*) FROM envelope.tenant_keys WHERE kek = 'platform') FROM envelope.rotations WHERE kind = 'kek' ORDER BY rotation_id DESC LIMIT 1};
like($server->safe_psql('postgres', $tells), qr/^incomplete [2-4]$/, 'and says that keys were left');
is($server->safe_psql('postgres', q{SELECT envelope_decrypt('late', envelope_encrypt('late', 'x'))}), 'x', 'the tenant that was made has its keys');

# One that was begun before the rotation is waited for, and its key moves too.
is(sqlstate($server, q{CALL envelope_rotate_kek('platform', 'aws')}), '', 'called again it moves what was left');
is($server->safe_psql('postgres', $tells), 'done 0', 'all of it');
$rotator = Envelope::Session->new($server);
like($maker->query(q{BEGIN; SELECT envelope_create_tenant('later', 'platform')}), qr/^\d+$/, 'a tenant is made, and not committed');
$rotator->send(q{CALL envelope_rotate_kek('platform', 'aws')});
ok(eventually($waits_for_maker), 'a rotation waits for it');
my $newcomer = Envelope::Session->new($server);
$newcomer->query(q{BEGIN; SELECT envelope_create_tenant('newcomer', 'third')});
$maker->query('COMMIT');
is($rotator->wait, '', 'and ends');
is($server->safe_psql('postgres', $tells), 'done 0', 'with all keys moved');
is($server->safe_psql('postgres', q{SELECT kek FROM envelope.tenants WHERE tenant_id = 'later'}), 'aws', 'as are keys to come');
$newcomer->query('COMMIT');

# A KEK that is gone when the wait is over gets no keys.
make_kek($server->{keks}, $_) for 'from', 'to';
$server->safe_psql('postgres', q{SELECT envelope_create_kek('from', 'local://from'), envelope_create_kek('to', 'local://to')});
like($maker->query(q{BEGIN; SAVEPOINT a; SELECT envelope_create_tenant('left', 'from'); RELEASE a}), qr/^\d+$/, 'a tenant is made under a KEK');
$rotator->send(q{CALL envelope_rotate_kek('from', 'to')});
ok(eventually(sub { $server->safe_psql('postgres', q{SELECT waits_for FROM envelope.rotation_progress WHERE kind = 'kek' AND running}) eq 'a transaction that makes keys' }), 'a rotation waits for it, a savepoint or not');
$server->safe_psql('postgres', q{SELECT envelope_drop_kek('to')});
$maker->query('COMMIT');
is($rotator->wait, '42704', 'the KEK to go to has been dropped');
is(still_under('from'), 2, 'and no key has moved');

# So it is where the KEK has a newer version.
like($maker->query(q{BEGIN; SELECT envelope_create_tenant('older', 'platform')}), qr/^\d+$/, 'a tenant is made under the first version of a KEK');
link make_kek("$folder/next", 'platform'), "$server->{keks}/platform.2.key" or die $!;
$rotator->send(q{CALL envelope_rotate_kek('platform')});
ok(eventually($waits_for_maker), 'a rotation to the newest waits for it');
$maker->query('COMMIT');
is($rotator->wait, '', 'and ends');
is($server->safe_psql('postgres', q{SELECT string_agg(k, ' ') FROM envelope.status, jsonb_object_keys(keys_by_version) k WHERE kek = 'platform'}), '2', 'no key is left under the first');
$_->quit for $maker, $rotator, $newcomer;

is($server->safe_psql('postgres', $rows), $rows_before, 'no row of data has another version');
my $end = $server->lsn('flush');

# wal_about TABLE: whether any record since the beginning is about it
sub wal_about
{
	my ($relation) = $server->safe_psql('postgres', "SELECT '1663/' || (SELECT oid FROM pg_database WHERE datname = current_database()) || '/' || pg_relation_filenode('$_[0]')");
	my ($records) = run_command([ 'pg_waldump', '-p', $server->data_dir . '/pg_wal', '-s', $begin, '-e', $end, '-R', $relation ]);
	return $records =~ /^rmgr/m;
}
ok(!wal_about('docs'), 'and no WAL is about one');
ok(wal_about('envelope.tenant_keys'), 'as there is about the keys');

$server->safe_psql('postgres', 'SELECT envelope_evict_all()');
$server->restart;
is($server->safe_psql('postgres', $wrong), 0, 'evicted and restarted, every value opens');
$server->stop;
done_testing();
