-- Values of many megabytes.
SELECT length(envelope_decrypt('t1', envelope_encrypt('t1', repeat('x', 20000000)))) AS twenty_million;
SELECT message($$SELECT envelope_encrypt('t1', repeat(repeat('x', 100), 10737418))$$) AS too_large;
