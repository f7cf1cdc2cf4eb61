-- Protected tables: what envelope_protect makes of a table, and what its trigger
-- does with what is written.

CREATE TABLE customers (
	id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
	tenant_id text,
	email text NOT NULL,
	ssn varchar(11),
	born date,
	note text DEFAULT 'x');
SELECT envelope_protect('customers', 'tenant_id', '{email,ssn,born}', '{email}');
\d customers

-- What is stored, opened by hand: the planner opens nothing in stored form.
CREATE FUNCTION stored(OUT id integer, OUT tenant_id text, OUT email text, OUT ssn text, OUT born text, OUT carriers_null boolean)
	RETURNS SETOF record LANGUAGE sql SET envelope.stored_form = on AS $$
	SELECT id, tenant_id,
		envelope_decrypt(tenant_id, email__sealed, 'public.customers.email'),
		envelope_decrypt(tenant_id, ssn__sealed, 'public.customers.ssn'),
		envelope_decrypt(tenant_id, born__sealed, 'public.customers.born'),
		email IS NULL AND ssn IS NULL AND born IS NULL
	FROM customers ORDER BY id
$$;

SET datestyle = 'SQL, DMY';
INSERT INTO customers (tenant_id, email, ssn, born) VALUES ('t1', 'ann@example.com', '123', '03/02/2001'), ('t1', '', NULL, NULL);
SET datestyle = 'ISO, MDY';
SELECT outcome($$INSERT INTO customers (tenant_id, ssn) VALUES ('t1', '1')$$) AS not_null,
	outcome($$INSERT INTO customers (email) VALUES ('x')$$) AS no_tenant,
	outcome($$INSERT INTO customers (tenant_id, email) VALUES ('nobody', 'x')$$) AS unknown_tenant;
SELECT * FROM stored();

-- The term is that of the value; what is written again by hand goes in as it is.
SET envelope.stored_form = on;
SELECT email__term = envelope_blind_index(tenant_id, envelope_decrypt(tenant_id, email__sealed, 'public.customers.email'), 'public.customers.email') AS is_term
FROM customers;
RESET envelope.stored_form;
