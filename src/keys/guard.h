/*-------------------------------------------------------------------------
 *
 * guard.h
 *	  What keeps the key tables sound and memory true to them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_GUARD_H
#define ENVELOPE_GUARD_H

#include "nodes/parsenodes.h"

extern bool guard_enables_triggers(const AlterTableStmt *stmt);
extern void guard_install_hooks(void);

#endif							/* ENVELOPE_GUARD_H */
