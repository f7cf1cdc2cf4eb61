# Credentials that are not there, or are not what they should be, and the answer to
# "why is it down?": what each cause looks like to the application, in the status
# and in the log.

use strict;
use warnings;
use Envelope;
use EnvelopeKms;
use JSON::PP ();
use PostgreSQL::Test::Utils;
use Test::More;

my $fs = fault_server();
my $folder = PostgreSQL::Test::Utils::tempdir;
my $encode = sub { JSON::PP->new->encode($_[0]) };
my %aws = (hosts => [ '127.0.0.1:' . $fs->port('kms') ], endpoint => $fs->url('kms'), aws_access_key_id => 'AKIDENVELOPETEST', aws_secret_access_key => 'secret/of+the=test');
my %google = (endpoint => $fs->url('gcp', 'https'), hosts => [ map { '127.0.0.1:' . $fs->port($_, 'https') } 'gcp', 'gcptoken' ]);
my %profiles = (
	good => {%aws}, unplugged => {%aws}, region => {%aws},
	permission => { %aws, aws_access_key_id => 'AKIDLITTLE' },
	expired => { %aws, aws_access_key_id => 'ASIAEXPIRED', aws_session_token => 'expired' },
	executable => { %google, google_application_credentials => write_file("$folder/executable.json", $encode->({ type => 'external_account', audience => 'a', subject_token_type => 'b',
				token_url => $fs->url('gcptoken', 'https') . '/v1/token', credential_source => { executable => { command => '/bin/false' } } })) },
	impersonated => { %google, google_application_credentials => write_file("$folder/impersonated.json", $encode->({ type => 'impersonated_service_account' })) },
	broken => { %google, google_application_credentials => write_file("$folder/broken.json", '{"type": "service_account", "private_key": "not a key", "client_email": "x", "token_uri": "https://127.0.0.1:1/"}') },
	not_json => { %google, google_application_credentials => write_file("$folder/not_json.json", 'AKIA-secret-in-file') },
	gone => { %google, google_application_credentials => "$folder/gone.json" });
my $server = kms_server('down', ca => $fs->{ca}, profiles => \%profiles,
	env => { AWS_EC2_METADATA_SERVICE_ENDPOINT => $fs->url('imds'), AWS_ENDPOINT_URL_KMS => $fs->url('kms') },
	conf => [ "envelope.cache_ttl = '4s'", "envelope.outage_grace = '0s'" ]);
my $user = Envelope::Session->new($server);
my $worker = worker_pid($server);

# --- why is it down? ------------------------------------------------------------

$fs->control('POST', '/principal', { access_key => 'AKIDLITTLE', secret => 'secret/of+the=test', arn => 'arn:aws:iam::111122223333:user/little' });
$fs->control('POST', '/principal', { access_key => 'ASIAEXPIRED', secret => 'secret/of+the=test', token => 'expired', expires => 1700000000, arn => 'arn:aws:sts::111122223333:assumed-role/envelope/x' });
my %why;
for my $cause ('disabled', 'unplugged', 'expired', 'region', 'permission')
{
	my $profile = $cause eq 'disabled' ? 'good' : $cause eq 'expired' ? 'good' : $cause;
	my $key = $fs->kms_key;
	$user->query(qq{SELECT envelope_create_kek('$cause', 'aws-kms://$key', '{"profile": "$profile"}')});
	$user->query("SELECT envelope_create_tenant('$cause', '$cause'); CREATE TABLE ${cause}_sealed AS SELECT envelope_encrypt('$cause', 'x') AS v");
	is($user->query("SELECT envelope_evict('$cause'); SELECT envelope_decrypt('$cause', v) FROM ${cause}_sealed") =~ /x$/, 1, "$cause: opens before");
	if ($cause eq 'disabled') { $fs->kms('DisableKey', { KeyId => $key }) }
	elsif ($cause eq 'unplugged')
	{
		$profiles{unplugged}{endpoint} = 'http://127.0.0.1:9';
		$profiles{unplugged}{hosts} = ['127.0.0.1:9'];
	}
	elsif ($cause eq 'expired')
	{
		$user->query(qq{SELECT envelope_alter_kek('expired', '{"profile": "expired"}')});
	}
	elsif ($cause eq 'region')
	{
		# The key was made in another region than its users believe.
		my $elsewhere = $key =~ s/us-east-1/eu-west-1/r;
		$user->query(qq{SELECT envelope_create_kek('region2', 'aws-kms://$elsewhere', '{"profile": "region"}')});
	}
	else { $fs->control('POST', '/policy', { arn => 'arn:aws:iam::111122223333:user/little', statements => [ { Effect => 'Allow', Action => 'kms:GenerateDataKey', Resource => '*' } ] }) }
	write_profiles($server->{profiles}, \%profiles);
	$server->reload;
	my $offset = -s $server->logfile;
	my $kek = $cause eq 'region' ? 'region2' : $cause;
	my $sql = $cause eq 'region' ? "SELECT envelope_create_tenant('elsewhere', 'region2')" : "SELECT envelope_decrypt('$cause', v) FROM ${cause}_sealed";
	my $state;
	ok(eventually(sub {
				$user->query("SELECT envelope_evict('$cause')");
				$state = $user->query($sql);
				$state =~ /^VE00/;
			}), "$cause: then not");
	my $status = $user->query("SELECT outcome || ' | ' || detail FROM envelope.status WHERE kek = '$kek'");
	ok(eventually(sub { slurp_file($server->logfile, $offset) =~ /LOG:  envelope: KEK "$kek" of database \d+ is (\w+)\n.*DETAIL:  (.*)/ }), "$cause: a line in the log");
	my ($outcome, $line) = slurp_file($server->logfile, $offset) =~ /LOG:  envelope: KEK "$kek" of database \d+ is (\w+)\n.*DETAIL:  (.*)/;
	$why{$cause} = "$state | $status";
	note "$cause: $state | $status | $outcome: $line";
}
my %expected = (disabled => qr/^VE002 \| denied \| .*Disabled/, unplugged => qr/^VE003 \| unreachable \| /, expired => qr/^VE003 \| misconfigured \| .*ExpiredToken/,
	region => qr/^VE00\d \| \w+ \| .*NotFound/, permission => qr/^VE002 \| denied \| .*AccessDenied/);
like($why{$_}, $expected{$_}, "$_: told by SQLSTATE and status") for sort keys %expected;
my %distinct = reverse %why;
is(scalar(keys %distinct), 5, 'five causes, five answers');

# --- credentials that are not there ------------------------------------------------

# A metadata address that swallows packets: nothing else is slower for it.
my $key = $fs->kms_key;
$fs->listen('imds', 'blackhole');
$user->quit;
$server->stop;
$server = kms_server('nobody', conf => ['max_connections = 40'], ca => $fs->{ca}, profiles => \%profiles, env => { AWS_EC2_METADATA_SERVICE_ENDPOINT => $fs->url('imds'), AWS_ENDPOINT_URL_KMS => $fs->url('kms') });
$user = Envelope::Session->new($server);
$worker = worker_pid($server);
$user->query("SELECT envelope_create_kek('nobody', 'aws-kms://$key')");
my $start = now();
my @waiting = map { Envelope::Session->new($server)->send("SELECT envelope_create_tenant('nobody$_', 'nobody')") } 1 .. 10;
is($user->query(q{SELECT envelope_create_tenant('local', 'platform') IS NOT NULL}), 't', 'a metadata black hole holds up no other KEK');
is(join(' ', map { $_->wait } @waiting), join(' ', ('VE003') x 10), 'who has no credentials gets an answer');
cmp_ok(now() - $start, '<', 20, 'within the deadline');
my ($outcome, $detail) = check_kek($server, 'nobody');
like($detail, qr/metadata|169\.254|environment|profile/i, 'that says what was tried');
note "black hole: $outcome: $detail";
$_->quit for @waiting;
$fs->listen('imds', 'open');
ok(eventually(sub { check_kek($server, 'nobody') eq 'ok' }), 'there again, it works by itself');

# Files of Google's that cannot be used: one error, that names the reason.
my $gcp = $fs->gcp_key('platform');
my %says = (executable => qr/executable/, impersonated => qr/impersonated_service_account/, broken => qr/credential/, not_json => qr/credential/, gone => qr/No such file/, missing => qr/profile "missing"/);
for my $profile (sort keys %says)
{
	$user->query(qq{SELECT envelope_create_kek('$profile', 'gcp-kms://$gcp', '{"profile": "$profile"}')});
	my $before = $fs->calls('gcptoken');
	my ($outcome, $detail) = check_kek($server, $profile);
	is($outcome, 'misconfigured', "$profile: misconfigured");
	like($detail, $says{$profile}, "$profile: says why");
	unlike($detail, qr/secret-in-file|\Q$folder\E/, "$profile: without contents or path");
	$user->query("SELECT envelope_create_tenant('x$profile$_', '$profile')") for 1 .. 20;
	cmp_ok($fs->calls('gcptoken') - $before, '<=', 3, "$profile: and nobody is asked again and again");
}

# The file of profiles itself
my $names = 'SELECT outcome FROM envelope_check_kek(\'good\')';
$user->query(qq{SELECT envelope_create_kek('good', 'aws-kms://$key', '{"profile": "good"}')});
is(check_kek($server, 'good'), 'ok', 'a profile');
chmod 0644, $server->{profiles} or die;
$server->reload;
ok(eventually(sub { (($outcome, $detail) = check_kek($server, 'good'))[0] ne 'ok' }), 'a file that others may read is refused');
like($detail, qr/permission|mode|0600/, 'and the error says so');
chmod 0600, $server->{profiles} or die;
ok(eventually(sub { check_kek($server, 'good') eq 'ok' }), 'mended, it is taken without a reload');
write_file($server->{profiles}, '{"profiles": {');
ok(eventually(sub { (($outcome, $detail) = check_kek($server, 'good'))[0] ne 'ok' }), 'a file that is no JSON');
like($detail, qr/JSON/, 'and the error says so');
write_profiles($server->{profiles}, \%profiles);
ok(eventually(sub { check_kek($server, 'good') eq 'ok' }), 'written anew, it is taken without a reload');
is(worker_pid($server), $worker, 'the worker has borne it all');

# A setting that holds a path is not for everybody to see.
$server->safe_psql('postgres', 'CREATE ROLE anybody LOGIN');
is(sqlstate($server, 'SHOW envelope.credentials_file', extra_params => [ '-U', 'anybody' ]), '42501', 'where credentials are is not for everybody');

$user->quit;
$server->stop;
done_testing();
