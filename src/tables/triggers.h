/*-------------------------------------------------------------------------
 *
 * triggers.h
 *	  Triggers of the application on protected tables.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_TRIGGERS_H
#define ENVELOPE_TRIGGERS_H

#include "tables/protect.h"

/* In the schema "envelope" */
#define CALL_TRIGGER_FUNCTION	"call_trigger"

extern Oid	triggers_function(const char *name);
extern void triggers_wrap(const ProtectPlan *plan);
extern void triggers_unwrap(const ProtectPlan *plan);
extern List *triggers_called(void);
extern void triggers_follow(List *called);

#endif							/* ENVELOPE_TRIGGERS_H */
