# Random calls of every function of the extension, with arguments of right and
# wrong types; what there is to call is read from the catalog.

package Fuzz;

use strict;
use warnings;

use Exporter 'import';

our @EXPORT = qw(new_fuzz random_statement random_call pick);

# What an argument may be, by its name; else by its type.
my %BY_NAME = (
	tenant => [ map { "'$_'" } 't1', 't2', 't3', 't4', '7', '', 'nobody', 'Zürich', '00000000-0000-0000-0000-000000000001' ],
	context => [ q{''}, q{'c'}, q{'other'}, q{repeat('x', 65535)}, q{repeat('ü', 32768)} ],
	name => [ map { "'$_'" } 'platform', 'eu', 'nope', '', 'x' x 64, '../platform' ],
	kek => [ 'NULL', map { "'$_'" } 'platform', 'eu', 'nope' ],
	uri => [ map { "'$_'" } 'local://platform', 'local://eu', 'local://', 'local://../x', 'http://x', 'hcvault://127.0.0.1:1/transit/keys/x', '' ],
	options => [ map { "'$_'" } '{}', '[]', 'null', '{"token": "x"}', '{"a": {"b": 1}}', '"x"' ],
	bits => [ -1, 0, 8, 16, 17, 128, 256, 264, 2147483647 ],
	role => [ map { "'$_'" } 'app', 'operator', 'admin', 'nobody', '' ],
	level => [ map { "'$_'" } 'use', 'operate', 'admin', 'all', '' ],
	tenants => [ 'NULL', q{'{}'}, q{'{t1,t2}'}, q{'{t1,t1}'}, q{'{t1,NULL}'}, q{array['n' || (random() * 100)::int]}, q{'{{t1,t2},{t3,t4}}'} ],
	rel => [ map { "'$_'" } 'kept', 'plain', 'plain_pkey', 'opened', 'missing', 'envelope.keks', 'envelope.cache', 'pg_class', 'pg_toast.pg_toast_1255' ],
	columns => [ q{'{v}'}, q{'{a,b}'}, q{'{id}'}, q{'{tenant}'}, q{'{}'}, q{'{missing}'}, q{'{NULL}'} ],
	tenant_column => [ map { "'$_'" } 'tenant', 'id', 'missing' ]);

# SEALED is a sealed value, whole, damaged or none.
my %BY_TYPE = (
	text => [ q{'x'}, q{''}, q{'ü€😀'}, q{repeat('x', 10000)}, q{E'\n\t'}, q{'t1'}, q{'platform'} ],
	name => [ q{'t'}, q{'v'}, q{'tenant'}, q{''} ],
	bytea => [ 'SEALED', 'SEALED', 'SEALED', q{''}, q{'\xe14e56'}, q{'\x00'}, q{repeat('x', 10000)::bytea} ],
	bigint => [ 0, 1, 7, -1, '9223372036854775807', '(SELECT max(key_id) FROM envelope.tenant_keys)' ],
	integer => [ 0, 1, 16, -1, 2147483647 ],
	boolean => [ 'true', 'false' ],
	uuid => [ q{'00000000-0000-0000-0000-000000000001'}, 'gen_random_uuid()' ],
	jsonb => [ q{'{}'}, q{'{"a": 1}'} ],
	interval => [ q{'0'}, q{'1 day'}, q{'-1 day'}, q{'100 years'} ],
	'text[]' => [ q{'{}'}, q{'{t1}'} ],
	'name[]' => [ q{'{}'}, q{'{v}'} ],
	anyelement => [ 'NULL', q{'x'}, 'NULL::int', '7::bigint', 'NULL::date', 'NULL::pg_class', '1.5', 'row(1)', q{row(1, 'x')}, q{(SELECT p FROM plain p LIMIT 1)}, q{'{1}'::int[]}, q{'[1,2)'::int4range} ],
	regclass => [ q{'kept'}, q{'plain'}, '0' ]);

my @WRAPPINGS = (
	('%s') x 12,
	'BEGIN; %s; COMMIT',
	'BEGIN; SAVEPOINT s; %s; ROLLBACK TO s; %s; ROLLBACK',
	'BEGIN ISOLATION LEVEL REPEATABLE READ; %s; %s; COMMIT',
	'BEGIN ISOLATION LEVEL SERIALIZABLE; %s; COMMIT',
	'BEGIN READ ONLY; %s; COMMIT',
	'BEGIN; DECLARE c CURSOR FOR SELECT g FROM generate_series(1, 3) g; FETCH c; %s; COMMIT',
	'BEGIN; %s; PREPARE TRANSACTION \'x\'; ROLLBACK PREPARED \'x\'',
	'SET statement_timeout = 20; %s; SET statement_timeout = 2000',
	'SET envelope.tenant = \'t1\'; %s; RESET envelope.tenant',
	'SET envelope.unreadable = \'null\'; %s; RESET envelope.unreadable',
	'SET search_path = pg_catalog; %s; RESET search_path',
	'SET ROLE app; %s; RESET ROLE',
	'SET ROLE nobody; %s; RESET ROLE');

sub pick { return $_[ int rand @_ ]; }

# new_fuzz SERVER DATABASE: reads the functions.  The table "kept" has to have
# the columns i, 1 to its number of rows, and v.
sub new_fuzz
{
	my ($server, $database) = @_;
	my @functions;
	for my $line (split /\n/, $server->safe_psql($database, q{
		SELECT format('%I.%I', n.nspname, p.proname), p.prokind, p.proretset,
			(SELECT string_agg(coalesce(p.proargnames[a.n], '') || ' ' || format_type(a.type, NULL), ',' ORDER BY a.n)
				FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY a (type, n))
		FROM pg_proc p
			JOIN pg_namespace n ON n.oid = p.pronamespace
			JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
			JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND e.extname = 'envelope'
		ORDER BY p.oid::regprocedure::text COLLATE "C"}))
	{
		my ($name, $kind, $set, $arguments) = split /\|/, $line;
		push @functions, { name => $name, kind => $kind, set => $set eq 't',
			arguments => [ map { [ split / /, $_, 2 ] } split /,/, $arguments // '' ] };
	}
	return { functions => \@functions, rows => $server->safe_psql($database, 'SELECT count(*) FROM kept') };
}

# A sealed value, as it is or changed
sub sealed
{
	my ($fuzz) = @_;
	my $value = '(SELECT v FROM kept WHERE i = ' . (1 + int rand $fuzz->{rows}) . ')';
	my $at = int rand 60;
	my $to = int rand 256;
	return pick($value, $value, $value, "substring($value FOR $at)", "($value || '\\x00')", "set_byte($value, $at, $to)",
		"overlay($value PLACING '\\x$to' FROM $at)");
}

# An argument, for the most part one that might be
sub argument
{
	my ($fuzz, $name, $type) = @_;
	my $chance = rand;
	return 'NULL' if $chance < 0.06;
	my $values = $BY_TYPE{$type};
	$values = $BY_NAME{$name} if $BY_NAME{$name} && $chance < 0.85;
	my $wrong = pick(sort keys %BY_TYPE);
	return argument_of($fuzz, $wrong, $BY_TYPE{$wrong}) if $chance > 0.94;
	return $values ? argument_of($fuzz, $type, $values) : pick('NULL', q{'x'}, q{'0'});
}

sub argument_of
{
	my ($fuzz, $type, $values) = @_;
	my $value = pick(@$values);
	$value = sealed($fuzz) if $value eq 'SEALED';
	return $type ne 'anyelement' && (rand > 0.8 || $type eq 'bigint' || $type eq 'uuid') ? "$value\::$type" : $value;
}

sub random_call
{
	my ($fuzz) = @_;
	my $function = pick(@{ $fuzz->{functions} });
	my @arguments = @{ $function->{arguments} };
	pop @arguments if @arguments && rand > 0.95;
	my $call = "$function->{name}(" . join(', ', map { argument($fuzz, @$_) } @arguments) . ')';
	return "CALL $call" if $function->{kind} eq 'p';
	return "SELECT count(*) FROM $call f" if $function->{set};
	return pick("SELECT $call", "SELECT $call", "SELECT $call FROM generate_series(1, 3)", "PERFORM_IN_DO $call") =~ s/^PERFORM_IN_DO (.*)/DO \$do\$ BEGIN PERFORM $1; EXCEPTION WHEN division_by_zero THEN NULL; END \$do\$/sr;
}

sub random_statement
{
	my ($fuzz) = @_;
	return pick(@WRAPPINGS) =~ s/%s/random_call($fuzz)/ger;
}

1;
