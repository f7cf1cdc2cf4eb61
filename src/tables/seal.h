/*-------------------------------------------------------------------------
 *
 * seal.h
 *	  The trigger that seals what is written to a protected table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_SEAL_H
#define ENVELOPE_SEAL_H

#include "fmgr.h"
#include "utils/rel.h"

#include "keys/keyring.h"
#include "tables/protection.h"
#include "tables/value.h"

/* A protected column, ready to be sealed */
typedef struct SealColumn
{
	const ProtectedColumn *at;
	ValueType	vt;
	const char *context;		/* UTF-8 */
	size_t		context_len;
} SealColumn;

/* A protected table, ready to be sealed; kept from statement to statement */
typedef struct SealTable
{
	Oid			relid;			/* the hash key */
	MemoryContext context;		/* what it points to; NULL where there is none */
	bool		valid;
	bool		has_checks;		/* CHECK constraints were moved to the trigger */
	bool	   *implied;		/* as implied_checks says */
	const Protection *protection;
	SealColumn *columns;
} SealTable;

/* The row that the trigger is called for */
typedef struct SealRow
{
	Relation	rel;
	const SealTable *table;
	Datum	   *values;			/* of the new row; what is changed goes here */
	bool	   *nulls;
	Datum	   *old_values;		/* NULL for INSERT */
	bool	   *old_nulls;
	const char *tenant;			/* UTF-8; NULL until somebody asks */
	bool		tenant_moved;
	bool		changed;
} SealRow;

/* seal.c */
extern void seal_init(void);
extern const bool *seal_implied_checks(Relation rel);
extern void seal_stored_row(Relation rel, Datum *values, bool *nulls);
extern void seal_open_row(Relation rel, Datum *values, bool *nulls);
extern void seal_report_nulls(const SealRow *row);
extern ValueLabel seal_label(SealRow *row, const SealColumn *column);
extern bool seal_same(const SealRow *row, AttrNumber attnum);
extern Datum seal_open(const ValueLabel *label, const SealColumn *column, Datum sealed);

/* seal_check.c */
extern Node *seal_moved_check(Node *expression);
extern bool seal_has_checks(Relation rel, const Protection *protection);
extern void seal_check_row(FunctionCallInfo fcinfo, SealRow *row,
						   const Datum *given, const bool *given_nulls);

#endif							/* ENVELOPE_SEAL_H */
