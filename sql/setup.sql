-- Installs the extension for the tests that follow, and shows what it is made
-- of: every object has a comment, and the tables are dumped with their rows.

CREATE EXTENSION envelope;

SELECT pg_describe_object(d.classid, d.objid, 0) AS without_comment
FROM pg_depend d
JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
WHERE e.extname = 'envelope' AND d.deptype = 'e'
	AND d.classid <> 'pg_type'::regclass
	AND obj_description(d.objid, d.classid::regclass::text) IS NULL
	AND NOT EXISTS (SELECT FROM pg_class c
		WHERE d.classid = 'pg_class'::regclass AND c.oid = d.objid AND c.relkind NOT IN ('r', 'v'))
ORDER BY 1;

SELECT c.oid::regclass AS dumped
FROM pg_extension e, unnest(e.extconfig) t (oid) JOIN pg_class c ON c.oid = t.oid
WHERE e.extname = 'envelope' ORDER BY c.relname COLLATE "C";

SELECT count(*) AS tables FROM pg_class c
WHERE c.relnamespace = 'envelope'::regnamespace AND c.relkind = 'r';

-- What queries may rely on: only those that seal anew are volatile, those that
-- indexes may hold are immutable, and all of them run in parallel workers.  None
-- is strict but those that look at the header.
SELECT CASE p.provolatile WHEN 'i' THEN 'immutable' WHEN 's' THEN 'stable' ELSE 'volatile' END AS volatility,
	CASE p.proparallel WHEN 's' THEN 'safe' WHEN 'r' THEN 'restricted' ELSE 'unsafe' END AS parallel,
	p.proisstrict AS strict, p.proname AS function, count(*) AS forms
FROM pg_proc p WHERE p.proname ~ '^envelope_(encrypt|decrypt|blind|reencrypt|is_sealed|key_id)'
GROUP BY 1, 2, 3, 4 ORDER BY p.proname COLLATE "C";

-- Whatever runs as its owner has a search_path of its own.
SELECT p.oid::regprocedure AS security_definer, p.proconfig
FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid
WHERE e.extname = 'envelope' AND p.prosecdef ORDER BY p.oid::regprocedure::text COLLATE "C";

-- What the tests share.

-- The SQLSTATE of a statement, or what its first column returns as text.
CREATE FUNCTION outcome(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	result text;
BEGIN
	EXECUTE statement INTO result;
	RETURN coalesce(result, 'NULL');
EXCEPTION WHEN OTHERS THEN
	RETURN SQLSTATE;
END
$$;

-- The same with the message, for errors whose words are part of the promise.
CREATE FUNCTION message(statement text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	EXECUTE statement;
	RETURN 'no error';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(' | ', SQLSTATE, SQLERRM, nullif(detail, ''), nullif(hint, ''));
END
$$;

-- How many calls of an operation the KMS has had from this database.
CREATE FUNCTION calls(op text) RETURNS bigint LANGUAGE sql AS $$
	SELECT coalesce(sum(calls), 0)::bigint FROM envelope.kms_stats WHERE operation = op
$$;

SELECT envelope_create_kek('platform', 'local://platform', is_default => true);
SELECT ok, outcome, detail FROM envelope_check_kek('platform');
SELECT envelope_create_tenants(array['t1', 't2', '42', '00000000-0000-0000-0000-00000000002a']);
SELECT tenant_id, kek, state FROM envelope.tenants ORDER BY 1;
SELECT tenant_id, purpose, kek, kek_version, state, length(wrapped_dek) AS wrapped
FROM envelope.tenant_keys ORDER BY 1, 2;
