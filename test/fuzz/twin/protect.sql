-- Make the tenants and protect the tables of one twin.

SELECT envelope_create_tenants(array['t1', 't2', 't3', 't9', '1', '2', '3']);
SELECT envelope_grant('app', 'use'), envelope_grant('owner', 'use');
SELECT envelope_protect('customers', 'tenant_id',
	'{email,ssn,note,age,visits,balance,score,vip,born,wakes,seen,made,gap,ref,doc,raw,addr,blob,feeling,tags,span,zip,code}',
	'{email,ref,age}');
SELECT envelope_protect('orders', 'tenant_id', '{label,price,paid}');
SELECT envelope_protect('events', 'tenant_id', '{who,payload}', '{who}');
SELECT envelope_protect('vault', 'tenant_id', '{secret}', '{secret}');
SELECT envelope_protect('notes', 'tenant_id', '{body}');
