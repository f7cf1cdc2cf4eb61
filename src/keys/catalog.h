/*-------------------------------------------------------------------------
 *
 * catalog.h
 *	  Reading the tables of keks, tenants and keys as they are now.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_CATALOG_H
#define ENVELOPE_CATALOG_H

#include "crypto/format.h"
#include "kms/kms.h"

#define ENVELOPE_SCHEMA		"envelope"

/* The attributes of envelope.tenants */
#define Anum_tenants_tenant_id			1
#define Anum_tenants_kek				2
#define Anum_tenants_state				3

/* The attributes of envelope.tenant_keys */
#define Anum_tenant_keys_key_id			1
#define Anum_tenant_keys_tenant_id		2
#define Anum_tenant_keys_purpose		3
#define Anum_tenant_keys_kek			4
#define Anum_tenant_keys_kek_version	5
#define Anum_tenant_keys_wrapped_dek	6
#define Anum_tenant_keys_key_check		7
#define Anum_tenant_keys_state			8

/* The attributes of envelope.keks */
#define Anum_keks_name					1
#define Anum_keks_uri					2
#define Anum_keks_options				3

/* No key has this id */
#define NO_KEY			INT64CONST(0)

typedef enum TenantState
{
	TENANT_ACTIVE,
	TENANT_SUSPENDED,
	TENANT_SCHEDULED,			/* to be destroyed */
	TENANT_DESTROYED
} TenantState;

typedef enum KeyState
{
	KEY_ACTIVE,					/* seals and opens */
	KEY_RETIRED,				/* opens */
	KEY_SCHEDULED,				/* opens, but nothing new is stored under it */
	KEY_DESTROYED
} KeyState;

typedef struct TenantRow
{
	TenantState state;
	int64		active_keys[KEY_PURPOSES];	/* NO_KEY where there is none */
} TenantRow;

typedef struct KeyRow
{
	char		tenant[TENANT_MAX_BYTES + 1];	/* UTF-8 */
	KeyPurpose	purpose;
	KeyState	state;
} KeyRow;

extern Oid	catalog_relation(const char *name);
extern Oid	catalog_relation_if_any(const char *name);
extern bool catalog_read_tenant(const char *tenant, TenantRow *row);
extern bool catalog_read_key(int64 key_id, KeyRow *row);
extern bool catalog_kek_is_used(const char *name);
extern bool catalog_read_kek(const char *name, KmsRequest *request);
extern bool catalog_read_wrapped(int64 key_id, KeyRow *row, KmsRequest *request);

extern TenantState tenant_state_parse(const char *name);
extern KeyState key_state_parse(const char *name);

#endif							/* ENVELOPE_CATALOG_H */
