-- Every type that can be protected: what is written under some settings of a
-- session is read under others as from a table in plaintext, to the last digit.

SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS citext;
CREATE SCHEMA kinds;
SET search_path = kinds, public;
CREATE TYPE mood AS ENUM ('sad', 'ok', 'so happy');
CREATE DOMAIN us_zip AS text CHECK (value ~ '^\d{5}$');
CREATE DOMAIN small_array AS integer[] CHECK (cardinality(value) < 4);
CREATE DOMAIN zip_of_zip AS us_zip;

CREATE FUNCTION settings(date_style text, zone text, intervals text, digits text, bytes text) RETURNS void LANGUAGE sql AS $$
	SELECT set_config('DateStyle', date_style, true), set_config('TimeZone', zone, true), set_config('IntervalStyle', intervals, true),
		set_config('extra_float_digits', digits, true), set_config('bytea_output', bytes, true)
$$;

-- Make twins with a column of a type, write literals into both under some
-- settings, and tell under others in how many rows they differ; and whether
-- writing a value that was read keeps its bytes.
CREATE FUNCTION try(type text, literals text[], OUT rows bigint, OUT differ bigint, OUT typed bigint, OUT other_bytes bigint) LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE format('CREATE TABLE plain (n integer PRIMARY KEY, tenant text, v %s)', type);
	CREATE TABLE sealed (LIKE plain INCLUDING ALL);
	PERFORM envelope_protect('sealed', 'tenant', '{v}');
	PERFORM settings('SQL, DMY', 'Asia/Kolkata', 'sql_standard', '-7', 'escape');
	EXECUTE format('INSERT INTO plain SELECT n, ''t1'', l::%s FROM unnest($1) WITH ORDINALITY u (l, n)', type) USING literals;
	EXECUTE format('INSERT INTO sealed SELECT n, ''t1'', l::%s FROM unnest($1) WITH ORDINALITY u (l, n)', type) USING literals;
	EXECUTE 'INSERT INTO sealed (n, tenant, v) SELECT n + 100, ''t2'', v FROM sealed';
	EXECUTE 'INSERT INTO plain (n, tenant, v) SELECT n + 100, ''t2'', v FROM plain';
	PERFORM settings('German, YMD', 'America/St_Johns', 'iso_8601', '3', 'hex');
	EXECUTE 'SELECT count(*), count(*) FILTER (WHERE p.v::text IS DISTINCT FROM s.v::text OR (p.v IS NULL) <> (s.v IS NULL)),
			count(*) FILTER (WHERE pg_typeof(p.v) = pg_typeof(s.v))
		FROM plain p FULL JOIN sealed s USING (n)' INTO rows, differ, typed;
	PERFORM set_config('envelope.stored_form', 'on', true);
	EXECUTE 'CREATE TEMP TABLE bytes ON COMMIT DROP AS SELECT n, v__sealed AS b FROM sealed';
	PERFORM set_config('envelope.stored_form', 'off', true);
	EXECUTE 'UPDATE sealed SET v = v';
	PERFORM set_config('envelope.stored_form', 'on', true);
	EXECUTE 'SELECT count(*) FROM bytes JOIN sealed USING (n) WHERE b IS DISTINCT FROM v__sealed' INTO other_bytes;
	PERFORM set_config('envelope.stored_form', 'off', true);
	DROP TABLE plain, sealed, bytes;
END
$$;

CREATE TABLE types (n integer GENERATED ALWAYS AS IDENTITY, type text, literals text[]);
INSERT INTO types (type, literals) VALUES
	('text', '{a,"",Zoë 😀,NULL}'), ('varchar(5)', '{abcde,"  ",NULL}'), ('char(3)', '{abc,a,"",NULL}'), ('name', '{a_name}'), ('"char"', '{x}'),
	('citext', '{Ann,ANN,NULL}'), ('smallint', '{-32768,32767,NULL}'), ('integer', '{-2147483648,0,NULL}'), ('bigint', '{9223372036854775807}'),
	('numeric', '{1.50,1.5,-0.000000000000000000000000001,NaN,1e40,NULL}'), ('numeric(6,2)', '{1234.567,-0.005}'),
	('real', '{0.1,3.4028235e38,1e-45,NaN,-Infinity,-0}'), ('double precision', '{0.1,0.30000000000000004,1.7976931348623157e308,5e-324,NaN,-0}'),
	('boolean', '{true,false,NULL}'), ('date', '{2001-02-03,0044-03-15 BC,infinity,NULL}'),
	('time', '{04:05:06.789012,24:00}'), ('time(1)', '{04:05:06.789012}'), ('time with time zone', '{04:05:06.7+05:30,00:00-12}'),
	('timestamp', '{2001-02-03 04:05:06.789012,-infinity,0044-03-15 00:00 BC}'), ('timestamp(0)', '{2001-02-03 04:05:06.789012}'),
	('timestamp with time zone', '{2001-02-03 04:05:06.789012+01,2024-03-31 02:30:00 Europe/Berlin,infinity}'),
	('interval', '{1 year -2 mons +3 days -04:05:06.7,-1 day,00:00,1 mon -1 day}'), ('interval hour to minute', '{04:05:06}'), ('interval(1)', '{04:05:06.789}'),
	('uuid', '{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}'), ('json', '{"{\"b\" : 1, \"a\":[1.0, null], \"b\": 2}",null}'), ('jsonb', '{"{\"b\" : 1, \"a\":[1.0, null], \"b\": 2}",null,NULL}'),
	('inet', '{10.0.0.1,192.168.0.5/24,::1}'), ('cidr', '{10.0.0.0/8}'), ('macaddr', '{08:00:2b:01:02:03}'), ('macaddr8', '{08:00:2b:01:02:03:04:05}'),
	('bytea', '{\\x,\\x00ff27,\\xe14e5601}'), ('bit(3)', '{101}'), ('bit varying', '{"",10101}'), ('oid', '{4294967295}'), ('pg_lsn', '{16/B374D848}'),
	('mood', '{sad,"so happy",NULL}'), ('mood[]', '{"{sad,NULL,\"so happy\"}"}'), ('us_zip', '{12345,NULL}'), ('zip_of_zip', '{12345}'), ('small_array', '{"{1,2,NULL}"}'),
	('integer[]', '{"{}","{1,NULL,3}","[0:1]={7,8}","{{1,2},{3,4}}"}'), ('text[]', '{"{\"a b\",\"NULL\",NULL,\"\",\"\\\\\\\"\"}"}'),
	('date[]', '{"{2001-02-03,infinity}"}'), ('timestamp with time zone[]', '{"{2001-02-03 04:05:06+00}"}'), ('interval[]', '{"{1 day,-04:05:06}"}'), ('double precision[]', '{"{0.1,NaN}"}'),
	('int4range', '{"[1,5)",empty,"(,3]"}'), ('tstzrange', '{"[2001-02-03 04:05:06+00,infinity)"}'), ('daterange', '{"[2001-02-03,2001-03-02]"}'), ('nummultirange', '{"{[1.0,2.50),[3,4]}"}'),
	('point', '{"(0.1,-0)"}'), ('tsvector', '{"a:1 b:2,3A"}'), ('regclass', '{types}'), ('regtype', '{mood,integer}');
SELECT type, (try(type, literals)).* FROM types ORDER BY n;

-- What a type or typmod refuses is refused with the same SQLSTATE.
CREATE TABLE plain (v varchar(5), c char(3), n numeric(6,2), s smallint, b bit(3), z us_zip, m mood, a small_array, i integer);
CREATE TABLE sealed (tenant text DEFAULT 't1', LIKE plain);
SELECT envelope_protect('sealed', 'tenant', '{v,c,n,s,b,z,m,a,i}');
SELECT assignment, outcome(format('INSERT INTO plain (%1$s) VALUES (%2$s)', split_part(assignment, ' = ', 1), split_part(assignment, ' = ', 2))) AS plain,
	outcome(format('INSERT INTO sealed (%1$s) VALUES (%2$s)', split_part(assignment, ' = ', 1), split_part(assignment, ' = ', 2))) AS sealed
FROM unnest(array['v = ''abcdef''', 'v = ''abcde   ''::text', 'c = ''abcd''', 'n = 12345.1', 's = 40000', 'b = ''1111''', 'z = ''x''', 'm = ''angry''', 'a = ''{1,2,3,4}''', 'i = ''x''', 'i = 1.5']) a (assignment);
SELECT i, v FROM sealed WHERE num_nonnulls(v, i) > 0 EXCEPT SELECT i, v FROM plain;
-- Types and typmods are what a client was told before.
SELECT v, c, n, s, b, z, m, a, i FROM sealed LIMIT 0
\gdesc
DROP SCHEMA kinds CASCADE;
