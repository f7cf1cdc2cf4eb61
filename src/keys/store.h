/*-------------------------------------------------------------------------
 *
 * store.h
 *	  Writing the tables of keks, tenants and keys.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_STORE_H
#define ENVELOPE_STORE_H

#include "crypto/format.h"
#include "kms/kms.h"

/* What has to be put back when the owner's work is done */
typedef struct OwnerScope
{
	Oid			user;
	int			sec_context;
	int			guc_level;
} OwnerScope;

/* A parameter of a statement */
typedef struct StoreParam
{
	Oid			type;
	Datum		value;
	bool		isnull;
} StoreParam;

/* A key that the KMS has generated */
typedef struct NewKey
{
	int64		key_id;
	const char *tenant;
	KeyPurpose	purpose;
	char	   *kek_version;
	uint8	   *wrapped;
	int			wrapped_len;
	uint8		key_check[KEY_CHECK_BYTES];
} NewKey;

extern List *store_lockers_of_kek(const char *name);
extern Oid	relation_owner(Oid relid);
extern void store_begin(OwnerScope *scope);
extern void store_begin_as(OwnerScope *scope, Oid owner, int sec_flags);
extern void store_end(OwnerScope *scope);
extern void store_lock_privileges(void);
extern uint64 store_execute(const char *statement, int nparams,
							const StoreParam *params);
extern StoreParam store_text(const char *value);
extern StoreParam store_texts(char **values, int n);
extern StoreParam store_int8s(const int64 *values, int n);
extern StoreParam store_byteas(bytea **values, int n);
extern void store_refuse_serializable(const char *what);

extern char *store_default_kek(void);
extern bool store_lock_kek(const char *name);
extern int	store_insert_tenants(char **tenants, int ntenants, const char *kek,
								 bool *inserted);
extern void store_insert_keys(const NewKey *keys, int nkeys, const char *kek);

#endif							/* ENVELOPE_STORE_H */
