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

extern void store_begin(OwnerScope *scope);
extern void store_end(OwnerScope *scope);
extern uint64 store_execute(const char *statement, int nparams,
							const StoreParam *params);
extern StoreParam store_text(const char *value);
extern void store_refuse_serializable(const char *what);

extern char *store_default_kek(void);
extern bool store_insert_tenant(const char *tenant, const char *kek);
extern void store_insert_key(int64 key_id, const char *tenant, KeyPurpose purpose,
							 const char *kek, const KmsReply *reply);

#endif							/* ENVELOPE_STORE_H */
