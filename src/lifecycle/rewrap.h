/*-------------------------------------------------------------------------
 *
 * rewrap.h
 *	  Moving wrapped data keys from one KEK to another.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_REWRAP_H
#define ENVELOPE_REWRAP_H

#include "kms/ask.h"

/* A key on its way */
typedef struct Moving
{
	int64		key_id;
	char	   *tenant;			/* UTF-8 */
	bytea	   *before;			/* its wrapping */
	bytea	   *after;
	char	   *version;
	KmsOutcome	outcome;
	char	   *why;			/* it failed */
} Moving;

typedef struct Rewrap
{
	const char *kek;			/* NULL: whatever wraps them */
	const KmsRequest *target;	/* what a request says of the new KEK */
	MemoryContext context;
	Moving	   *keys;
	int			nkeys;
	bool		again;			/* only those that were unreachable */
} Rewrap;

/* rewrap.c */
extern int	rewrap_tenant(const char *tenant, const char *kek);
extern const KmsRequest *rewrap_lock_kek(const char *kek);
extern void rewrap_keys(Rewrap *rewrap, uint64 nkeys);
extern bool rewrap_fill(int item, KmsRequest *request, void *arg);
extern void rewrap_take(int item, const KmsReply *reply, void *arg);
extern int	rewrap_store(const Rewrap *rewrap);

/* rewrap_kek.c */
extern bool rewrap_kek(const char *kek, const char *target);

#endif							/* ENVELOPE_REWRAP_H */
