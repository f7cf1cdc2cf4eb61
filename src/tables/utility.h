/*-------------------------------------------------------------------------
 *
 * utility.h
 *	  Statements other than queries on protected tables.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_UTILITY_H
#define ENVELOPE_UTILITY_H

#include "nodes/parsenodes.h"

#include "tables/protect.h"

/* What is left to do when a statement has been executed */
typedef struct DdlChange
{
	ProtectPlan *plan;			/* NULL where there is nothing */
	bool		make_trigger;	/* it was dropped */
	bool		enable_trigger; /* it may have been made an ordinary one */
	bool		wrap_triggers;	/* there may be a new one of the application */
	bool		more_tables;	/* a partition has come, with triggers of its
								 * own */
	bool		new_owner;		/* who has to be allowed what the old one was */
	char	   *renamed;		/* a column, or NULL */
	char	   *new_name;
	List	   *called;			/* what triggers call by names that may change */
	RangeVar   *created;		/* a table LIKE a protected one, which gets
								 * its trigger; or NULL */
	RangeVar   *detached;		/* a partition that keeps it; or NULL */
} DdlChange;

extern void utility_install_hooks(void);
extern bool utility_set_ours(bool value);

/* copy.c */
extern void copy_adapt(CopyStmt *stmt);
extern void copy_hide_line(void);

/* ddl.c */
extern void ddl_before(Node *stmt, DdlChange *change);
extern void ddl_after(DdlChange *change);

/* ddl_copies.c */
extern void ddl_refuse_copy(Node *stmt);

#endif							/* ENVELOPE_UTILITY_H */
