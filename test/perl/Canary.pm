# Known secrets that are put through everything, and the search for them.
#
# Plaintexts come from functions of the schema "canary", whose source has them
# backwards: so no statement of a test holds one, and the server log,
# pg_stat_activity and pg_stat_statements can be searched whole.
#
# A new feature belongs in @FEATURES below; t/11_canaries.pl does the rest.
# Functions with an argument called plaintext, ciphertext, sealed, value, values,
# stored, options or uri are called with canaries in these by themselves.

package Canary;

use strict;
use warnings;

use Envelope;
use Exporter 'import';
use MIME::Base64 qw(encode_base64);
use PostgreSQL::Test::Utils;

our @EXPORT = qw(plant_canaries calls_in search found_in found_in_files $SITUATIONS $FEATURES $ALL_FUNCTIONS);

# What is sealed and hashed, and what opens it or hashes it again.  %s are the
# tenant, the context, and the table that the sealed values stand in.
my @SEALING = (
	q{SELECT envelope_encrypt(%s, canary.text(), %s)},
	q{SELECT envelope_encrypt(%s, canary.long(), %s)},
	q{SELECT envelope_encrypt(%s, canary.bytes(), %s)},
	q{SELECT envelope_encrypt_deterministic(%s, canary.text(), %s)},
	q{SELECT envelope_encrypt_deterministic(%s, canary.bytes(), %s)},
	q{SELECT envelope_blind_index(%s, canary.text(), %s)},
	q{SELECT envelope_blind_index(%s, canary.bytes(), %s, 256)});
my @OPENING = (
	q{SELECT envelope_decrypt(%s, t, %s) FROM %s},
	q{SELECT envelope_decrypt(%s, d, %s) FROM %s},
	q{SELECT envelope_decrypt(%s, l, %s) FROM %s},
	q{SELECT envelope_decrypt_bytea(%s, b, %s) FROM %s},
	q{SELECT envelope_blind_index_of(%s, t, %s) FROM %s},
	q{SELECT envelope_blind_index_of(%s, d, %s) FROM %s},
	q{SELECT envelope_reencrypt(%s, t, %s) FROM %s},
	q{SELECT envelope_reencrypt(%s, d, %s) FROM %s},
	q{SELECT envelope_reencrypt(%s, b, %s) FROM %s});

# Every situation: what sealing and opening end in ('' for a result), and
# optionally tenant, context, table, faults of the KEK, statements before and
# after.
our $SITUATIONS = [
	{ name => 'as it should be', seals => '', opens => '' },
	{ name => 'another tenant', tenant => q{'t2'}, seals => '', opens => 'VE004' },
	{ name => 'another context', context => q{'other'}, seals => '', opens => 'VE004' },
	{ name => 'no such tenant', tenant => q{'nobody'}, seals => 'VE001', opens => 'VE001' },
	{ name => 'no tenant', tenant => 'NULL::text', seals => '22004', opens => '22004' },
	{ name => 'no context', context => 'NULL', seals => '22004', opens => '22004' },
	{ name => 'a context that is too long', context => q{repeat('x', 65536)}, seals => '54000', opens => '54000' },
	{ name => 'damaged values', table => 'damaged', seals => '', opens => 'VE004' },
	{ name => 'values cut short', table => 'cut', seals => '', opens => 'VE004' },
	{ name => 'values of an unknown key', table => 'foreign_key', seals => '', opens => 'VE009' },
	{ name => 'bound to another tenant', seals => 'VE007', opens => 'VE007', before => q{SET envelope.tenant = 't2'} },
	{ name => 'suspended', seals => 'VE006', opens => 'VE006',
		before => q{SELECT envelope_suspend_tenant('t1')}, after => q{SELECT envelope_resume_tenant('t1')} },
	{ name => 'denied', seals => 'VE002', opens => 'VE002', faults => 'platform:denied' },
	{ name => 'unreachable', seals => 'VE003', opens => 'VE003', faults => 'platform:unreachable',
		before => q{SET envelope.kms_timeout = '100ms'} },
	{ name => 'no answer', seals => 'VE003', opens => 'VE003', faults => 'platform:stalled',
		before => q{SET envelope.kms_timeout = '100ms'} },
	{ name => 'cancelled', seals => '57014', opens => '57014', faults => 'platform:stalled',
		before => q{SET statement_timeout = '100ms'} },
	{ name => 'corrupt', seals => 'VE004', opens => 'VE004', faults => 'platform:corrupt' },
	{ name => 'in a read-only transaction', seals => '', opens => '', before => q{SET default_transaction_read_only = on} },
	{ name => 'on SERIALIZABLE', seals => '', opens => '', before => q{SET default_transaction_isolation = 'serializable'} }];

# Everything else: [ what it ends in, statement ], in one session.
our $FEATURES = [
	# the wrong kind, wrong arguments
	[ '42804', q{SELECT envelope_decrypt('t1', b, 'c') FROM kept} ],
	[ '42804', q{SELECT envelope_decrypt_bytea('t1', t, 'c') FROM kept} ],
	[ '22023', q{SELECT envelope_blind_index('t1', canary.text(), 'c', 20)} ],
	[ '22023', q{SELECT envelope_blind_index_of('t1', t, 'c', 264) FROM kept} ],
	# credentials where none belong
	[ '22023', q{SELECT envelope_create_kek('leaky', 'local://leaky', jsonb_build_object('token', canary.token()))} ],
	[ '22023', q{SELECT envelope_create_kek('leaky', 'local://leaky', jsonb_build_object('a', jsonb_build_object('Secret_Id', canary.token())))} ],
	[ '22023', q{SELECT envelope_create_kek('leaky', 'hcvault://' || canary.token() || '@localhost/transit/keys/x')} ],
	[ '22023', q{SELECT envelope_create_kek('leaky', 'local://' || canary.token() || '/x')} ],
	[ '22023', q{SELECT envelope_alter_kek('platform', jsonb_build_object('aws_secret_access_key', canary.token()))} ],
	# and where they do, in the file of profiles; nobody listens there
	[ '', q{SELECT envelope_create_kek('vault', 'hcvault://127.0.0.1:1/transit/keys/x', '{"profile": "vault"}')} ],
	[ '', q{SELECT 1 / (outcome = 'unreachable')::int FROM envelope_check_kek('vault')} ],
	[ 'VE003', q{SELECT envelope_create_tenant('t7', 'vault')} ],
	# tables, indexes, statistics
	[ '', q{CREATE TABLE customers (id int PRIMARY KEY, ssn text, sealed bytea CHECK (envelope_is_sealed(sealed)), term bytea UNIQUE);
		CREATE FUNCTION seal_row() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			NEW.sealed := envelope_encrypt('t1', NEW.ssn, 'customers.ssn');
			NEW.term := envelope_blind_index('t1', NEW.ssn, 'customers.ssn');
			NEW.ssn := NULL;
			RETURN NEW;
		END $$;
		CREATE TRIGGER seal BEFORE INSERT OR UPDATE OF ssn ON customers FOR EACH ROW EXECUTE FUNCTION seal_row();
		CREATE INDEX ON customers (envelope_key_id(sealed));
		CREATE VIEW opened AS SELECT id, envelope_decrypt('t1', sealed, 'customers.ssn') AS ssn FROM customers} ],
	[ '', q{INSERT INTO customers (id, ssn) SELECT g, canary.text() || g FROM generate_series(1, 300) g} ],
	[ '23505', q{INSERT INTO customers (id, ssn) VALUES (301, canary.text() || 1)} ],
	[ '23514', q{UPDATE customers SET sealed = 'x' WHERE id = 1} ],
	[ '', q{INSERT INTO customers (id, ssn) VALUES (1, canary.text()) ON CONFLICT (id) DO UPDATE SET ssn = canary.text()} ],
	[ '', q{ANALYZE; VACUUM customers; CREATE STATISTICS both_columns ON id, term FROM customers; ANALYZE customers; CLUSTER customers USING customers_pkey} ],
	[ '', q{SELECT count(*) FROM customers WHERE term = envelope_blind_index('t1', canary.text() || 7, 'customers.ssn')} ],
	[ '', q{SET work_mem = '64kB'; SELECT count(*) FROM (SELECT ssn || repeat('x', 1000) FROM opened ORDER BY 1 OFFSET 0) s; RESET work_mem} ],
	[ '', q{SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
		SELECT count(envelope_decrypt('t1', sealed, 'customers.ssn')) FROM customers;
		RESET parallel_setup_cost; RESET parallel_tuple_cost; RESET min_parallel_table_scan_size} ],
	[ '', q{BEGIN; DECLARE c CURSOR FOR SELECT ssn FROM opened; FETCH 10 FROM c; SAVEPOINT s; FETCH 10 FROM c; ROLLBACK TO s; COMMIT} ],
	[ '', q{PREPARE p (int) AS SELECT ssn FROM opened WHERE id = $1; EXECUTE p(1); EXECUTE p(2); EXPLAIN (ANALYZE, VERBOSE) EXECUTE p(3)} ],
	[ '', q{BEGIN; INSERT INTO customers (id, ssn) VALUES (400, canary.text() || 400); PREPARE TRANSACTION 'p'} ],
	[ '', q{COMMIT PREPARED 'p'} ],
	[ 'P0001', q{DO $$ DECLARE v text; BEGIN SELECT envelope_decrypt('t1', t, 'c') INTO v FROM kept; RAISE EXCEPTION 'stop'; END $$} ],
	[ 'VE004', q{DO $$ DECLARE v text; BEGIN SELECT envelope_decrypt('t1', t, 'c') INTO v FROM kept; v := envelope_decrypt('t1', 'x'); END $$} ],
	# protected tables
	[ '', q{CREATE TABLE people (id int PRIMARY KEY, tenant_id text NOT NULL, ssn varchar(60) NOT NULL, email text CHECK (email <> 'none'), notes text DEFAULT 'none');
		SELECT envelope_protect('people', 'tenant_id', '{ssn,email,notes}', '{email}');
		CREATE UNIQUE INDEX ON people (id, tenant_id)} ],
	[ '', q{INSERT INTO people SELECT g, 't1', canary.text(), canary.long() || g, canary.long() FROM generate_series(1, 100) g} ],
	[ '', q{UPDATE people SET ssn = 'x' || canary.text() WHERE id = 1; UPDATE people SET tenant_id = 't2' WHERE id = 2; UPDATE people SET notes = notes} ],
	[ '', q{INSERT INTO people VALUES (1, 't1', canary.text(), 'x') ON CONFLICT (id) DO UPDATE SET email = canary.text() RETURNING *} ],
	[ '', q{SELECT p, ssn, length(notes) FROM people p WHERE tenant_id = 't1' AND email = canary.text(); SELECT count(DISTINCT ssn) FROM people} ],
	[ '', q{DELETE FROM people WHERE tenant_id = 't1' AND email = canary.long() || 7 RETURNING *} ],
	[ '', q{COPY people TO '/dev/null'; COPY (SELECT * FROM people) TO '/dev/null'; ANALYZE people; VACUUM FULL people} ],
	[ '22001', q{INSERT INTO people VALUES (200, 't1', canary.text() || canary.text())} ],
	[ '23502', q{INSERT INTO people (id, tenant_id, email) VALUES (201, 't1', canary.text())} ],
	[ '23514', q{INSERT INTO people VALUES (202, 't1', canary.text(), 'none', canary.long())} ],
	[ '23505', q{INSERT INTO people VALUES (3, 't1', canary.text(), canary.text())} ],
	[ 'VE001', q{INSERT INTO people VALUES (203, 'nobody', canary.text(), canary.text())} ],
	[ 'VE007', q{SET envelope.tenant = 't2'; INSERT INTO people VALUES (204, 't1', canary.text(), canary.text()); RESET envelope.tenant} ],
	[ '', q{RESET envelope.tenant} ],
	# rotation and the end of keys
	[ '', q{CREATE TABLE sealed_by_hand (id int PRIMARY KEY, tenant_id text NOT NULL, v bytea);
		INSERT INTO sealed_by_hand SELECT g, 't1', envelope_encrypt('t1', canary.text(), 'hand') FROM generate_series(1, 50) g;
		SELECT envelope_register_column('sealed_by_hand', 'v', 'tenant_id', 'hand')} ],
	[ '', q{CALL envelope_rotate_tenant('t1')} ],
	[ '', q{SELECT * FROM envelope_verify_tenant('t1')} ],
	[ '', q{SELECT envelope_set_tenant_kek('t2', 'probe')} ],
	[ '', q{CALL envelope_rotate_kek('platform')} ],
	[ '', q{SELECT envelope_create_tenant('t8'), envelope_schedule_destroy('t8'), envelope_cancel_destroy('t8')} ],
	[ '', q{CALL envelope_run_maintenance()} ],
	# what runs the server
	[ '', q{SELECT envelope_evict('t1'), envelope_warm(array['t1', 't2']), envelope_evict_all(), envelope_warm()} ],
	[ '', q{SELECT * FROM envelope_check_kek('platform'), envelope_doctor()} ],
	[ '', q{SELECT * FROM envelope.cache, envelope.cache_stats, envelope.kms_stats, envelope.status, envelope.get_server()} ],
	[ '', q{SELECT envelope_grant('app', 'use'), envelope_revoke('app', 'use')} ],
	[ '', q{CREATE TABLE sign_ups (id text, kek text);
		CREATE TRIGGER provision BEFORE INSERT ON sign_ups FOR EACH ROW EXECUTE FUNCTION envelope_provision('id', 'kek');
		INSERT INTO sign_ups VALUES ('t9', 'platform')} ]];

# Every function of the extension that takes what may be a canary; the tenant
# is t1.  Whatever it ends in: it is called.
our $ALL_FUNCTIONS = q{
DO $$
DECLARE
	f record;
BEGIN
	FOR f IN
		SELECT p.oid::regprocedure AS name, format('%s %I.%I(%s)', CASE p.prokind WHEN 'p' THEN 'CALL' ELSE 'SELECT' END, n.nspname, p.proname,
			string_agg(CASE
				WHEN a.name IN ('plaintext', 'ciphertext', 'sealed', 'value') AND a.type IN ('text'::regtype, 'anyelement'::regtype) THEN 'canary.text()'
				WHEN a.name IN ('plaintext', 'ciphertext', 'sealed') THEN 'canary.bytes()'
				WHEN a.name = 'values' THEN 'array[canary.text()]'
				WHEN a.name = 'stored' THEN 'row(canary.text(), canary.bytes())'
				WHEN a.type = 'anyelement'::regtype THEN 'NULL::text'
				WHEN a.name = 'options' THEN 'jsonb_build_object(''token'', canary.token())'
				WHEN a.name = 'uri' THEN '''local://'' || canary.token() || ''/'''
				WHEN a.name = 'tenant' AND a.type = 'text'::regtype THEN '''t1'''
				ELSE format('NULL::%s', a.type::regtype) END, ', ' ORDER BY a.n)) AS call
		FROM pg_proc p
			JOIN pg_namespace n ON n.oid = p.pronamespace
			JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
			JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND e.extname = 'envelope',
			unnest(p.proargtypes::oid[], p.proargnames[:p.pronargs]) WITH ORDINALITY a (type, name, n)
		WHERE p.prorettype <> 'trigger'::regtype
		GROUP BY p.oid, n.nspname
		HAVING bool_or(a.name IN ('plaintext', 'ciphertext', 'sealed', 'value', 'values', 'stored', 'options', 'uri'))
	LOOP
		BEGIN
			EXECUTE f.call;
		EXCEPTION WHEN OTHERS THEN
			NULL;
		END;
	END LOOP;
END $$};

# calls_in SITUATION: [ what it ends in, statement ] of each call in it.
sub calls_in
{
	my ($situation) = @_;
	my @values = ($situation->{tenant} // q{'t1'}, $situation->{context} // q{'c'});
	return ((map { [ $situation->{seals}, sprintf($_, @values) ] } @SEALING),
		(map { [ $situation->{opens}, sprintf($_, @values, $situation->{table} // 'kept') ] } @OPENING));
}

# plant_canaries SERVER DATABASE: the schema "canary" and tables with sealed
# canaries, under 't1' and the context 'c'.  Returns the secrets by names.
sub plant_canaries
{
	my ($server, $database) = @_;
	my %secrets = (text => random_word(36), token => random_word(40), long => random_word(36), bytes => random_bytes(32));
	my $hex = unpack 'H*', $secrets{bytes};
	$server->safe_psql($database, 'CREATE SCHEMA canary;'
		  . canary_function('text', 'text', quoted($secrets{text}))
		  . canary_function('token', 'text', quoted($secrets{token}))
		  . canary_function('long', 'text', 'repeat(' . quoted($secrets{long}) . ', 200)')
		  . canary_function('bytes', 'bytea', 'decode(' . quoted($hex) . q{, 'hex')}) . q{
		CREATE TABLE kept AS SELECT envelope_encrypt('t1', canary.text(), 'c') AS t, envelope_encrypt('t1', canary.long(), 'c') AS l,
			envelope_encrypt('t1', canary.bytes(), 'c') AS b, envelope_encrypt_deterministic('t1', canary.text(), 'c') AS d;
		CREATE TABLE damaged AS SELECT set_byte(t, 40, get_byte(t, 40) # 1) AS t, set_byte(l, 40, get_byte(l, 40) # 1) AS l,
			set_byte(b, 40, get_byte(b, 40) # 1) AS b, set_byte(d, 40, get_byte(d, 40) # 1) AS d FROM kept;
		CREATE TABLE cut AS SELECT substring(t FOR length(t) - 1) AS t, substring(l FOR length(l) - 1) AS l,
			substring(b FOR length(b) - 1) AS b, substring(d FOR length(d) - 1) AS d FROM kept;
		CREATE TABLE foreign_key AS SELECT set_byte(t, 9, get_byte(t, 9) # 1) AS t, set_byte(l, 9, get_byte(l, 9) # 1) AS l,
			set_byte(b, 9, get_byte(b, 9) # 1) AS b, set_byte(d, 9, get_byte(d, 9) # 1) AS d FROM kept});
	return %secrets;
}

# A plpgsql function, which nothing folds or inlines
sub canary_function
{
	my ($name, $type, $value) = @_;
	return "CREATE FUNCTION canary.$name() RETURNS $type LANGUAGE plpgsql VOLATILE AS \$\$ BEGIN RETURN $value; END \$\$;";
}

sub quoted { return q{reverse('} . reverse($_[0]) . q{')}; }

sub random_bytes
{
	my ($length) = @_;
	open my $random, '<:raw', '/dev/urandom' or die $!;
	my $bytes;
	read $random, $bytes, $length;
	return $bytes;
}

# Letters and digits, 6 bits a byte, of which none is special anywhere
sub random_word
{
	my ($length) = @_;
	my @letters = ('a' .. 'z', 'A' .. 'Z', '0' .. '9', 'x', 'y');
	return join '', map { $letters[ $_ & 63 ] } unpack 'C*', random_bytes($length);
}

# forms SECRET: how it may be written down.  As it is it is sought in parts of
# eight bytes, which survive pglz; a part of base64 begins with any of the three
# bytes of a group.
sub forms
{
	my ($secret) = @_;
	my $hex = unpack 'H*', $secret;
	my @forms = map { substr $secret, $_, 8 } 0 .. length($secret) - 8;
	push @forms, lc $secret, uc $secret if $secret =~ /^\w+$/a;
	push @forms, $hex, uc $hex;
	for my $shift (0 .. 2)
	{
		my $base64 = substr encode_base64("\0" x $shift . $secret, ''), 4, -4;
		push @forms, $base64, $base64 =~ tr{+/}{-_}r;
	}
	return @forms;
}

# search SECRETS: what found_in seeks, for secrets by names.
sub search
{
	my (%secrets) = @_;
	my %name;
	for my $secret (sort keys %secrets)
	{
		$name{$_} = $secret for forms($secrets{$secret});
	}
	my $any = join '|', map { quotemeta } sort keys %name;
	local ${^RE_TRIE_MAXBUF} = 2**24;
	return { name => \%name, any => qr/($any)/ };
}

# found_in SEARCH BYTES...: the names of what is in there, in one string.
sub found_in
{
	my ($search, @bytes) = @_;
	my %found;
	for my $bytes (@bytes)
	{
		$found{ $search->{name}{$1} } = 1 while $bytes =~ /$search->{any}/g;
	}
	return join ', ', sort keys %found;
}

# without_padding SEGMENT DATA: a WAL segment of the data directory DATA without
# what PostgreSQL itself leaves in it of memory that was used before.  The commit
# record of a transaction that has changed catalogs has messages of 16 bytes:
#
#	what it is (1 byte), padding (3), a database (4), a hash (4), padding (4)
#
# in which the padding is never written to.  So eight bytes in a row may come from
# a plaintext that the session had in memory, if the one in between is the same.
sub without_padding
{
	my ($bytes, $data) = @_;
	my $database = join '|', map { quotemeta pack 'L', $_ } 0, map { m{/(\d+)$} } glob "$data/base/*";
	return $bytes =~ s/(?:$database)(?!\0{4}).{4}\K.{4}(.).{3}(?=$database)/\0\0\0\0$1\0\0\0/gsr;
}

# Where found_in_files has found something: file, offset, and what is around it
our @SEEN;

# found_in_files SEARCH PATH...: the same of files, and of all files below
# folders.
sub found_in_files
{
	my ($search, @paths) = @_;
	my %found;
	for my $path (@paths)
	{
		if (-d $path && !-l $path)
		{
			$found{$_} = 1 for split /, /, found_in_files($search, glob "$path/*");
		}
		elsif (-f $path)
		{
			# What is temporary may be gone by now.
			open my $file, '<:raw', $path or next;
			local $/;
			my $bytes = <$file> // '';
			$bytes = without_padding($bytes, $1)
			  if $bytes =~ /$search->{any}/ && $path =~ m{^(.*)/pg_wal/[0-9A-F]{24}$};
			$found{$_} = 1 for split /, /, found_in($search, $bytes);
			if ($bytes =~ /$search->{any}/)
			{
				my $from = $-[0] > 96 ? $-[0] - 96 : 0;
				push @SEEN, "$path, $-[0]: " . substr($bytes, $from, 224) =~ s/[^ -~]/./gr;
			}
		}
	}
	return join ', ', sort keys %found;
}

1;
