/*-------------------------------------------------------------------------
 *
 * ddl.h
 *	  What changes the definition of a protected table, among its parts.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_DDL_H
#define ENVELOPE_DDL_H

#include "nodes/parsenodes.h"

#include "compat.h"
#include "tables/protect.h"
#include "tables/utility.h"

/* ddl_plan.c */
pg_noreturn extern void ddl_refuse(const ProtectPlan *plan, const char *what,
								   const char *column);
pg_noreturn extern void ddl_refuse_live(const ProtectPlan *plan);
pg_noreturn extern void ddl_refuse_foreign(const char *as, const char *table);
extern ProtectPlan *ddl_plan_for(RangeVar *relation, bool owned);
extern ProtectPlan *ddl_plan_of(RangeVar *relation);
extern ProtectColumn *ddl_column_called(const ProtectPlan *plan, const char *name);
extern bool ddl_is_fixed(const ProtectPlan *plan, const char *name);
extern bool ddl_mentions_carrier(Node *node, void *context);
extern bool ddl_names_carrier(const ProtectPlan *plan, List *names);
extern bool ddl_names_fixed(const ProtectPlan *plan, List *names);
extern bool ddl_constrains_carrier(const ProtectPlan *plan, const Constraint *constraint);
extern bool ddl_is_own_constraint(const ProtectPlan *plan, const char *name);

/* ddl_alter.c */
extern void ddl_alter_table_before(AlterTableStmt *stmt, DdlChange *change);
extern void ddl_rename_before(RenameStmt *stmt, DdlChange *change);

/* ddl_beside.c */
extern void ddl_index_before(IndexStmt *stmt);
extern void ddl_trigger_before(CreateTrigStmt *stmt, DdlChange *change);
extern void ddl_statistics_before(CreateStatsStmt *stmt);
extern void ddl_publication_before(List *objects);
extern void ddl_drop_before(DropStmt *stmt);

/* ddl_create.c */
extern void ddl_create_before(CreateStmt *stmt, DdlChange *change);

#endif							/* ENVELOPE_DDL_H */
