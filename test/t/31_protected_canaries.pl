# Known plaintexts that stood in a table before it was protected, and that come
# into it afterwards by every statement there is, are sought in files, WAL, log,
# statistics and dumps.  At last one is leaked on purpose, to show that it would
# have been found.

use strict;
use warnings;
use Canary;
use Envelope;
use PostgreSQL::Test::Utils;
use Test::More;

my $server = new_server('protected', "shared_preload_libraries = 'pg_stat_statements, envelope'",
	'pg_stat_statements.track = all', 'log_min_messages = debug2', 'log_error_verbosity = verbose',
	'log_min_duration_statement = 0', 'log_parameter_max_length_on_error = -1', 'wal_keep_size = 1GB',
	'max_prepared_transactions = 10', 'autovacuum = off');
$server->safe_psql('postgres', q{
	CREATE EXTENSION pg_stat_statements;
	SELECT envelope_create_tenants(array['t1', 't2'])});
my %secrets = plant_canaries($server, 'postgres');
my $search = search(%secrets);
my $folder = PostgreSQL::Test::Utils::tempdir;

# in_files: what is found in all files but WAL; wal_since SEGMENT: in WAL after it.
sub in_files
{
	$server->safe_psql('postgres', 'CHECKPOINT');
	return found_in_files($search, grep { !m{/pg_wal$} } glob $server->data_dir . '/*');
}

sub wal_since
{
	my ($segment) = @_;
	return found_in_files($search, grep { m{/[0-9A-F]{24}$} && substr($_, -24) gt $segment } glob $server->data_dir . '/pg_wal/*');
}

sub next_segment { return $server->safe_psql('postgres', 'SELECT pg_walfile_name(pg_switch_wal())'); }

# A table full of them, with statistics of every kind.
$server->safe_psql('postgres', q{
	CREATE TABLE canary.tables AS SELECT * FROM pg_class;
	CREATE TABLE customers (
		id int PRIMARY KEY,
		tenant_id text NOT NULL,
		email text,
		note text NOT NULL,
		scan bytea,
		doc jsonb,
		amount int CHECK (amount < 1000000) NOT NULL DEFAULT 0,
		UNIQUE (tenant_id, email));
	INSERT INTO customers SELECT g, 't1', canary.text() || g, CASE WHEN g = 1 THEN canary.long() ELSE canary.text() END, canary.bytes(),
		jsonb_build_object('k', canary.text()) FROM generate_series(1, 500) g;
	UPDATE customers SET amount = 1 WHERE id < 100;
	CREATE STATISTICS of_both ON email, note FROM customers;
	CREATE STATISTICS of_tables ON relname, relnamespace FROM canary.tables;
	ANALYZE customers, canary.tables;
	UPDATE customers SET doc = doc;
	ANALYZE customers});
my $others = q{SELECT md5(string_agg(s::text, ',' ORDER BY tablename, attname)) FROM pg_stats s WHERE tablename <> 'customers'};
my $others_were = $server->safe_psql('postgres', $others);
my $all_names = join ', ', sort grep { $_ ne 'token' } keys %secrets;
is(in_files(), $all_names, 'before, everything is in the files');
isnt($server->safe_psql('postgres', q{SELECT count(*) FROM pg_statistic WHERE stavalues1::text LIKE '%' || canary.text() || '%'}), 0, 'and in statistics');
$server->safe_psql('postgres', q{DROP STATISTICS of_both});

$server->safe_psql('postgres', q{SELECT envelope_protect('customers', 'tenant_id', '{email,note,scan,doc}', '{email}')});
is($server->safe_psql('postgres', $others), $others_were, 'the statistics of others are there');
is($server->safe_psql('postgres', q{SELECT count(*) FROM pg_stats_ext WHERE statistics_name = 'of_tables' AND most_common_vals IS NOT NULL}), 1, 'the extended ones too');
for my $view ('pg_stats', 'pg_stats_ext')
{
	is(found_in($search, $server->safe_psql('postgres', "COPY (SELECT * FROM $view) TO STDOUT")), '', "once it is protected, nothing is in $view");
}
is($server->safe_psql('postgres', q{SELECT count(*) FROM envelope_doctor() WHERE subject NOT LIKE 'setting%'}), 0, 'and doctor asks for nothing');
is(in_files(), '', 'nothing is in the files, TOAST and statistics included');
my $since = next_segment();

# Every statement.  [ what it ends in, SQL ]
my @statements = (
	[ '', q{INSERT INTO customers (id, tenant_id, email, note) VALUES (1001, 't1', canary.text() || 1001, canary.long())} ],
	[ '', q{INSERT INTO customers (id, tenant_id, email, note, scan, doc) SELECT id + 2000, tenant_id, email || 'x', note, scan, doc FROM customers} ],
	[ '', q{UPDATE customers SET note = note || canary.text(), scan = canary.bytes() WHERE id < 50} ],
	[ '', q{UPDATE customers SET tenant_id = 't2' WHERE id BETWEEN 50 AND 60} ],
	[ '', q{UPDATE customers c SET doc = to_jsonb(o.email) FROM customers o WHERE o.id = c.id + 1} ],
	[ '', q{INSERT INTO customers (id, tenant_id, email, note) VALUES (1, 't1', canary.text(), 'x') ON CONFLICT (id) DO UPDATE SET note = EXCLUDED.email || customers.note} ],
	[ '', q{INSERT INTO customers (id, tenant_id, email, note) VALUES (1, 't1', canary.text() || 77, canary.text()) ON CONFLICT (tenant_id, email) DO UPDATE SET note = EXCLUDED.note || 'again'} ],
	[ '', q{MERGE INTO customers c USING (SELECT id + 5 AS id, email, note FROM customers WHERE id > 490 AND id <= 500) s ON c.id = s.id
		WHEN MATCHED THEN UPDATE SET note = s.note WHEN NOT MATCHED THEN INSERT (id, tenant_id, email, note) VALUES (s.id, 't2', s.email, s.note)} ],
	[ '', q{WITH gone AS (DELETE FROM customers WHERE id = 60 RETURNING *) INSERT INTO customers (id, tenant_id, email, note) SELECT 9001, tenant_id, email, note FROM gone} ],
	[ '', q{SELECT count(*) FROM customers WHERE tenant_id = 't1' AND email = canary.text() || 7} ],
	[ '', q{SELECT count(*) FROM customers a JOIN customers b USING (tenant_id, email) WHERE a.note LIKE '%' || b.email || '%'} ],
	[ '', q{BEGIN; DECLARE c CURSOR FOR SELECT email, note FROM customers ORDER BY id; FETCH 10 FROM c; COMMIT} ],
	[ '', q{PREPARE p (int) AS SELECT email FROM customers WHERE id = $1; EXECUTE p(1)} ],
	[ '', q{BEGIN; INSERT INTO customers (id, tenant_id, email, note) VALUES (4001, 't1', canary.text() || 4001, canary.text()); PREPARE TRANSACTION 'p'} ],
	[ '', q{COMMIT PREPARED 'p'} ],
	[ '', q{ANALYZE customers; VACUUM customers; REINDEX TABLE customers} ],
	# errors, of ours and of PostgreSQL's
	[ '23505', q{INSERT INTO customers (id, tenant_id, email, note) VALUES (5001, 't1', canary.text() || 77, canary.text())} ],
	[ '23505', q{INSERT INTO customers (id, tenant_id, email, note) VALUES (1, 't1', canary.text() || 'new', canary.text())} ],
	[ '23502', q{INSERT INTO customers (id, tenant_id, email) VALUES (5002, 't1', canary.text() || 5002)} ],
	[ '23502', q{INSERT INTO customers (id, tenant_id, email, note, amount) VALUES (5003, 't1', canary.text() || 5003, canary.text(), NULL)} ],
	[ '23502', q{INSERT INTO customers (tenant_id, email, note) VALUES ('t1', canary.text() || 5004, canary.text())} ],
	[ '23514', q{INSERT INTO customers (id, tenant_id, email, note, amount) VALUES (5005, 't1', canary.text() || 5005, canary.text(), 2000000)} ],
	[ '23514', q{UPDATE customers SET amount = 2000000, note = canary.text() WHERE id = 1} ],
	[ 'VE001', q{INSERT INTO customers (id, tenant_id, email, note) VALUES (5006, 'nobody', canary.text() || 5006, canary.text())} ],
	[ 'VE007', q{SET envelope.tenant = 't2'; INSERT INTO customers (id, tenant_id, email, note) VALUES (5007, 't1', canary.text() || 5007, canary.text())} ],
	[ '', q{RESET envelope.tenant} ]);
my $session = Envelope::Session->new($server);
for my $statement (@statements)
{
	my ($expected, $sql) = @$statement;
	my $result = $session->query($sql);
	my $state = $result =~ /^(?:[0-9A-Z]{5}|connection lost)$/ ? $result : '';
	is($state, $expected, $sql =~ s/\s+/ /gr);
}

# COPY, in and out
my $rows = join '', map { "$_\tt1\t$secrets{text}$_\t$secrets{text}\n" } 6001 .. 6100;
$server->safe_psql('postgres', "COPY customers (id, tenant_id, email, note) FROM STDIN;\n$rows\\.\n");
is($server->safe_psql('postgres', q{SELECT count(*) FROM customers WHERE note = canary.text() AND id BETWEEN 6001 AND 6100}), 100, 'COPY FROM');
like($server->safe_psql('postgres', q{COPY customers (email) TO STDOUT}), qr/\Q$secrets{text}\E6001/, 'COPY TO');

is(wal_since($since), '', 'nothing is in WAL');
is(in_files(), '', 'nothing is in the files');
command_ok([ 'pg_dump', '-f', "$folder/dump", $server->connstr('postgres') ], 'pg_dump');
is(found_in_files($search, "$folder/dump"), '', 'nothing is in a dump');
is(found_in_files($search, $server->logfile), '', 'nothing is in the log');
for my $table ('pg_statistic', 'pg_statistic_ext_data', 'pg_stat_statements', 'pg_trigger')
{
	is(found_in($search, $server->safe_psql('postgres', "COPY (SELECT * FROM $table) TO STDOUT")), '', "nothing is in $table");
}

# The same live.  Dead rows and old statistics hold plaintext until they are
# rewritten, for which doctor asks until it is done.
$server->safe_psql('postgres', q{
	CREATE TABLE people (id int PRIMARY KEY, tenant_id text NOT NULL, email text, note text NOT NULL, scan bytea, doc jsonb, UNIQUE (tenant_id, email));
	CREATE INDEX ON people USING hash (email);
	INSERT INTO people SELECT g, 't1', canary.text() || g, CASE WHEN g = 1 THEN canary.long() ELSE canary.text() END, canary.bytes(),
		jsonb_build_object('k', canary.text()) FROM generate_series(1, 500) g;
	ANALYZE people});
my $to_rewrite = q{SELECT count(*) FROM envelope_doctor() WHERE subject = 'table public.people' AND finding LIKE '%dead rows%' OR hint LIKE '%pg_statistic%'};
is(sqlstate($server, q{CALL envelope_protect_live('people', 'tenant_id', '{email,note,scan,doc}', '{email}', 100)}), '', 'a table is protected live');
is(in_files(), $all_names, 'dead rows are in its files');
cmp_ok($server->safe_psql('postgres', $to_rewrite), '>', 0, 'of which doctor knows');
$server->safe_psql('postgres', "VACUUM FULL $_") for 'people', 'pg_statistic', 'pg_statistic_ext_data';
is($server->safe_psql('postgres', $to_rewrite), 0, 'until they are rewritten');
is(in_files(), '', 'then nothing is in the files, TOAST, indexes and statistics included');
is(found_in($search, $server->safe_psql('postgres', 'COPY (SELECT * FROM pg_stats) TO STDOUT')), '', 'nor in pg_stats');
is(found_in_files($search, $server->logfile), '', 'nor in the log');
$since = next_segment();
is($session->query(q{INSERT INTO people VALUES (1, 't1', canary.text() || 1, canary.long()) ON CONFLICT (tenant_id, email) DO UPDATE SET note = EXCLUDED.note || people.email RETURNING id}), 1, 'it is written');
is(wal_since($since), '', 'and nothing is in WAL from then on');

# The leak
$since = next_segment();
$server->safe_psql('postgres', q{CREATE TABLE leak AS SELECT canary.text() AS t, canary.bytes() AS b, canary.long() AS l});
isnt(wal_since($since), '', 'what is leaked is found in WAL');
is(in_files(), $all_names, 'and in the files');

$session->quit;
$server->stop;
done_testing();
