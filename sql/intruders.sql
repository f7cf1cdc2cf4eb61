-- What those try who may do something, to do or see more than they may.

\set VERBOSITY terse
SELECT envelope_create_tenant('intruded') > 0 AS made;
CREATE ROLE regress_intruder;
CREATE SCHEMA intruder AUTHORIZATION regress_intruder;
SET ROLE regress_intruder;
CREATE FUNCTION intruder.look(text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	RAISE NOTICE '% sees %', current_user, $1;
	RETURN true;
END $$;
RESET ROLE;

-- An expression over the row is nobody's but the table owner's, who gets it
-- evaluated in parts when it is parsed.
SELECT envelope_grant('regress_intruder', 'admin');
SET ROLE regress_intruder;
CREATE DOMAIN intruder.checked AS text CHECK (intruder.look(VALUE));
CREATE TABLE intruder.docs (tenant_id text, body bytea);
SELECT envelope_register_column('intruder.docs', 'body', 'tenant_id', context_expression => $$('{docs}'::intruder.checked[])[1]$$);
RESET ROLE;
SELECT envelope_register_column('intruder.docs', 'body', 'tenant_id', context_expression => $$('{docs}'::intruder.checked[])[1]$$);
SELECT envelope_unregister_column('intruder.docs', 'body');
SELECT envelope_register_column('intruder.docs', 'body', 'tenant_id', context_expression => $$('{docs}'::intruder.checked[])[1]$$);
SELECT envelope_unregister_column('intruder.docs', 'body');
SELECT envelope_revoke('regress_intruder', 'admin');

-- Nor is an index that is moved to terms.
SELECT envelope_grant('regress_intruder', 'admin');
SET ROLE regress_intruder;
CREATE TABLE intruder.seen (who name, session name);
CREATE OR REPLACE FUNCTION intruder.look(text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	IF current_setting('application_name') NOT LIKE 'pg_regress%' THEN
		BEGIN
			SET ROLE NONE;
		EXCEPTION WHEN OTHERS THEN
			NULL;
		END;
	END IF;
	INSERT INTO intruder.seen VALUES (current_user, session_user);
	RETURN true;
END $$;
CREATE TABLE intruder.indexed (tenant_id text, email text, note text);
CREATE UNIQUE INDEX by_intruder ON intruder.indexed (tenant_id, email, (('{indexed}'::intruder.checked[])[1] || note));
TRUNCATE intruder.seen;
RESET ROLE;
CALL envelope_protect_live('intruder.indexed', 'tenant_id', '{email}');
SELECT count(*) > 0 AS looked, count(*) FILTER (WHERE who <> 'regress_intruder') AS as_others FROM intruder.seen;
DROP TABLE intruder.indexed;
SET ROLE regress_intruder;
CREATE OR REPLACE FUNCTION intruder.look(text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	RAISE NOTICE '% sees %', current_user, $1;
	RETURN true;
END $$;
RESET ROLE;
SELECT envelope_revoke('regress_intruder', 'admin');

-- Who owns a protected table has its trigger, and can put it on another table
-- whose constraint shows what it is given.
CREATE TABLE victims (tenant_id text, secret text, n integer, CONSTRAINT with_number CHECK (secret <> '' OR n > 0));
SELECT envelope_protect('victims', 'tenant_id', '{secret}');
INSERT INTO victims VALUES ('intruded', 'their secret', 1);
SET ROLE regress_intruder;
CREATE TABLE intruder.honest (tenant_id text, x text);
RESET ROLE;
SELECT envelope_protect('intruder.honest', 'tenant_id', '{x}');
GRANT SELECT, UPDATE, INSERT ON victims TO regress_intruder;
SET ROLE regress_intruder;
SELECT outcome($$SELECT secret FROM victims$$) AS reads;
CREATE TABLE intruder.shows (tenant_id text, secret text, secret__sealed bytea, n integer, CHECK (intruder.look(secret) OR n IS NULL OR true));
CREATE TRIGGER zzz_envelope_seal BEFORE INSERT OR UPDATE ON intruder.shows FOR EACH ROW
	EXECUTE FUNCTION envelope.seal('tenant_id', 'secret', 'secret__sealed', '', 'public.victims.secret');
RESET ROLE;
SET envelope.stored_form = on;
INSERT INTO intruder.shows (tenant_id, secret__sealed) SELECT tenant_id, secret__sealed FROM victims;
RESET envelope.stored_form;
SET ROLE regress_intruder;
SELECT outcome($$UPDATE intruder.shows SET n = 1 RETURNING n$$) AS sees;
-- so it is for honest constraints
SELECT outcome($$UPDATE victims SET n = 2 RETURNING n$$) AS changes,
	outcome($$UPDATE victims SET secret = 'of mine', n = 3 RETURNING n$$) AS gives_both,
	outcome($$INSERT INTO victims VALUES ('intruded', 'new', 4) RETURNING n$$) AS inserts,
	outcome($$UPDATE victims SET tenant_id = 'intruded' WHERE n = 3 RETURNING n$$) AS keeps;
-- nor do the bytes that are stored tell that a guess was right
CREATE TABLE intruder.guesses (tenant_id text, secret text, secret__sealed bytea);
CREATE TRIGGER zzz_envelope_seal BEFORE INSERT OR UPDATE ON intruder.guesses FOR EACH ROW
	EXECUTE FUNCTION envelope.seal('tenant_id', 'secret', 'secret__sealed', '', 'public.victims.secret');
RESET ROLE;
SET envelope.stored_form = on;
INSERT INTO intruder.guesses (tenant_id, secret__sealed) SELECT tenant_id, secret__sealed FROM victims LIMIT 1;
SELECT md5(secret__sealed) AS before, envelope_decrypt(tenant_id, secret__sealed, 'public.victims.secret') AS guess FROM intruder.guesses \gset
RESET envelope.stored_form;
SET ROLE regress_intruder;
UPDATE intruder.guesses SET secret = :'guess';
RESET ROLE;
SET envelope.stored_form = on;
SELECT md5(secret__sealed) = :'before' AS tells FROM intruder.guesses;
RESET envelope.stored_form;
DROP TABLE intruder.guesses;
-- and no domain sees the parts of what is sealed anew for another tenant
CREATE TABLE arrays (tenant_id text, secrets text[]);
SELECT envelope_protect('arrays', 'tenant_id', '{secrets}');
INSERT INTO arrays VALUES ('intruded', '{a,b}');
SET ROLE regress_intruder;
CREATE TABLE intruder.parts (tenant_id text, secrets intruder.checked[], secrets__sealed bytea);
CREATE TRIGGER zzz_envelope_seal BEFORE INSERT OR UPDATE ON intruder.parts FOR EACH ROW
	EXECUTE FUNCTION envelope.seal('tenant_id', 'secrets', 'secrets__sealed', '', 'public.arrays.secrets');
RESET ROLE;
SET envelope.stored_form = on;
INSERT INTO intruder.parts (tenant_id, secrets__sealed) SELECT tenant_id, secrets__sealed FROM arrays;
RESET envelope.stored_form;
SET ROLE regress_intruder;
SELECT outcome($$UPDATE intruder.parts SET tenant_id = 't1' RETURNING tenant_id$$) AS moves;
RESET ROLE;
DROP TABLE arrays, intruder.parts;
SELECT envelope_grant('regress_intruder', 'use');
SET ROLE regress_intruder;
UPDATE intruder.shows SET n = 1;
UPDATE victims SET n = 2;
RESET ROLE;
SELECT envelope_revoke('regress_intruder', 'use');

-- What does not fit its table holds up nobody else, and is told.
SET ROLE regress_intruder;
CREATE TABLE intruder.junk (tenant_id text, body bytea);
CREATE TRIGGER zzz_envelope_seal BEFORE INSERT ON intruder.junk FOR EACH ROW EXECUTE FUNCTION envelope.seal('nothing');
CREATE TRIGGER zzz_envelope_guard_0 BEFORE INSERT ON intruder.junk FOR EACH ROW EXECUTE FUNCTION envelope.seal_guard('0');
RESET ROLE;
CALL envelope_rotate_tenant('intruded');
SELECT table_name, "values", failures FROM envelope_verify_tenant('intruded') ORDER BY 1;
SELECT * FROM envelope_doctor() WHERE subject LIKE '%intruder.junk';
SELECT message($$SELECT * FROM intruder.junk$$);
-- and its owner can mend it
SET ROLE regress_intruder;
DROP TRIGGER zzz_envelope_seal ON intruder.junk;
RESET ROLE;
SELECT * FROM intruder.junk;

\set VERBOSITY default
SET client_min_messages = warning;
DROP SCHEMA intruder CASCADE;
RESET client_min_messages;
DROP TABLE victims;
REVOKE ALL ON FUNCTION envelope.seal(), envelope.seal_guard(), envelope.call_trigger() FROM regress_intruder;
REVOKE ALL ON SCHEMA envelope FROM regress_intruder;
DROP ROLE regress_intruder;
