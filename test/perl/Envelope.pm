# What the TAP tests of envelope share: a server with a local KEK, sessions that
# run beside each other, and patience.

package Envelope;

use strict;
use warnings;

use Carp;
use Digest::SHA qw(hmac_sha256);
use Exporter 'import';
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Time::HiRes qw(sleep time);

our @EXPORT = qw(new_server make_kek set_faults eventually comes_back sqlstate calls worker_pid now
  secrets_of);

# How long something that has to happen may take, in seconds.
our $PATIENCE = 60;

sub now { return time; }

# eventually CODE: until CODE returns true; its last value.
sub eventually
{
	my ($code) = @_;
	my $until = time + $PATIENCE;
	my $value;
	until ($value = $code->())
	{
		return $value if time > $until;
		sleep 0.05;
	}
	return $value;
}

# comes_back SERVER: wait until it answers again, after a crash.  Nothing is written
# to psql, which may be gone by then: that would end the test.
sub comes_back
{
	my ($server) = @_;
	return eventually(sub {
		return IPC::Run::run([ 'psql', '-X', '-q', '-d', $server->connstr('postgres'), '-c', 'SELECT 1' ],
			'<', '/dev/null', '>', \my $out, '2>', \my $err);
	});
}

# make_kek FOLDER NAME: the file of a local KEK.
sub make_kek
{
	my ($folder, $name) = @_;
	mkdir $folder, 0700 unless -d $folder;
	open my $random, '<:raw', '/dev/urandom' or croak $!;
	read $random, my $key, 32;
	open my $file, '>:raw', "$folder/$name.1.key" or croak $!;
	print $file $key;
	close $file;
	chmod 0600, "$folder/$name.1.key" or croak $!;
	return "$folder/$name.1.key";
}

# new_server NAME CONF...: a running server that preloads the module, with the
# extension and the default KEK "platform" in database postgres.  Its KEK files
# are in $server->{keks}.
sub new_server
{
	my ($name, @conf) = @_;
	my $server = PostgreSQL::Test::Cluster->new($name);
	my $keks = PostgreSQL::Test::Utils::tempdir;
	chmod 0700, $keks;
	make_kek($keks, $_) for 'platform', 'probe';
	$server->{keks} = $keks;
	$server->init(allows_streaming => 1);
	$server->append_conf('postgresql.conf', join("\n",
			"shared_preload_libraries = 'envelope'",
			"envelope.local_kek_directory = '$keks'", @conf) . "\n");
	$server->start;
	$server->safe_psql('postgres', q{
		CREATE EXTENSION envelope;
		SELECT envelope_create_kek('platform', 'local://platform', is_default => true);
		SELECT envelope_create_kek('probe', 'local://probe');
	});
	return $server;
}

# set_faults SERVER FAULTS: have local KEKs misbehave, from now on.  That the
# worker has read its configuration shows in a KEK that misbehaves, or not, for
# this alone.
sub set_faults
{
	my ($server, $faults) = @_;
	my $probe = $server->{probe} = $server->{probe} ? 0 : 1;
	$server->append_conf('postgresql.conf', "envelope.local_kek_faults = '"
		  . join(';', grep { $_ ne '' } $faults, $probe ? 'probe:corrupt' : '') . "'\n");
	$server->reload;
	eventually(sub {
			$server->safe_psql('postgres', q{SELECT outcome FROM envelope_check_kek('probe')}) eq
			  ($probe ? 'corrupt' : 'ok');
		}) or croak 'the worker did not reload';
	return;
}

# worker_pid SERVER: of the KMS worker.
sub worker_pid
{
	my ($server) = @_;
	return $server->safe_psql('postgres', 'SELECT worker_pid FROM envelope.get_server()');
}

# sqlstate SERVER SQL [OPTIONS...]: the SQLSTATE that SQL ends in, or its output.
sub sqlstate
{
	my ($server, $sql, %options) = @_;
	my ($rc, $out, $err) = $server->psql('postgres', "\\set VERBOSITY sqlstate\n$sql", on_error_stop => 1, %options);
	return $1 if $err =~ /(?:ERROR|FATAL):\s+(\w{5})\b/;
	return $rc == 0 ? $out : "connection lost: $err";
}

# calls SERVER OPERATION [DATABASE]: how many calls of it the KMS has had.
sub calls
{
	my ($server, $operation) = @_;
	return $server->safe_psql('postgres',
		"SELECT coalesce(sum(calls), 0) FROM envelope.kms_stats WHERE operation = '$operation'");
}

# secrets_of SERVER TENANT: every key that there is for the first version of the
# KEK "platform" and a tenant of it, in database postgres, by names.  A tag is
# not needed to decrypt.
sub secrets_of
{
	my ($server, $tenant) = @_;
	my %secrets = (kek => PostgreSQL::Test::Utils::slurp_file("$server->{keks}/platform.1.key"));
	for my $purpose ('data', 'index')
	{
		my $wrapped = $server->safe_psql('postgres',
			"SELECT encode(wrapped_dek, 'hex') FROM envelope.tenant_keys WHERE tenant_id = '$tenant' AND purpose = '$purpose'");
		my ($iv, $body) = $wrapped =~ /^0100000001(.{24})(.{64})/ or croak "wrapped otherwise: $wrapped";
		my $dek = '';
		IPC::Run::run([ 'openssl', 'enc', '-d', '-aes-256-ctr', '-K', unpack('H*', $secrets{kek}), '-iv', "${iv}00000002" ],
			'<', \pack('H*', $body), '>', \$dek) or croak 'openssl failed';
		my $seed = hmac_sha256($dek, "\0" x 32);
		my $derive = sub { return hmac_sha256("$_[1]envelope/1/$_[0]" . chr($_[2]), $seed) };
		$secrets{"$purpose dek"} = $dek;
		if ($purpose eq 'data')
		{
			$secrets{gcm} = $derive->('gcm', '', 1);
		}
		else
		{
			my $first = $derive->('siv', '', 1);
			$secrets{siv} = $first . $derive->('siv', $first, 2);
			$secrets{index} = $derive->('index', '', 1);
		}
	}
	return %secrets;
}

# A session that goes on while the test does something else.
package Envelope::Session;

use Carp;
use Time::HiRes qw(time);

# new SERVER [DATABASE]
sub new
{
	my ($class, $server, $database) = @_;
	my $self = bless { in => '', out => '', err => '', sent => 0,
		timer => IPC::Run::timeout($Envelope::PATIENCE * 2) }, $class;
	$self->{run} = IPC::Run::start(
		[ 'psql', '-XAtq', '-v', 'VERBOSITY=sqlstate', '-d', $server->connstr($database // 'postgres') ],
		'<', \$self->{in}, '>', \$self->{out}, '2>', \$self->{err},
		$self->{timer});
	$self->{pid} = $self->query('SELECT pg_backend_pid()');
	return $self;
}

# send SQL: begin to execute it.
sub send
{
	my ($self, $sql) = @_;
	$self->{sent}++;
	$self->{timer}->start;
	$self->{out} = $self->{err} = '';
	$self->{in} .= "$sql;\n\\echo done $self->{sent}\n";
	$self->{run}->pump_nb;
	return $self;
}

# wait: the output of what was sent, with the SQLSTATE of an error.
sub wait
{
	my ($self) = @_;
	until ($self->{out} =~ s/^done $self->{sent}\n//m)
	{
		last unless $self->{run}->pumpable;
		$self->{run}->pump;
	}
	chomp(my $out = $self->{out});
	return $1 if $self->{err} =~ /(?:ERROR|FATAL):\s+(\w{5})\b/;
	return "connection lost" if $self->{err} =~ /connection to server was lost|terminating connection/;
	return $out;
}

# query SQL: send and wait.
sub query
{
	my ($self, $sql) = @_;
	return $self->send($sql)->wait;
}

sub quit
{
	my ($self) = @_;
	$self->{in} .= "\\q\n";
	eval { $self->{run}->finish };
	return;
}

1;
