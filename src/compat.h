/*-------------------------------------------------------------------------
 *
 * compat.h
 *	  What differs between the servers and systems that envelope runs on.
 *
 * The only place in the tree that looks at PG_VERSION_NUM or at the
 * operating system.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_COMPAT_H
#define ENVELOPE_COMPAT_H

#include <time.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include "utils/acl.h"
#include "utils/wait_event.h"

/* PostgreSQL 16 moved the macros for varlena values to a header of their own. */
#if PG_VERSION_NUM >= 160000
#include "varatt.h"
#endif

/* PostgreSQL 18 puts it before the declaration. */
#if PG_VERSION_NUM < 180000
#define pg_noreturn __attribute__((noreturn))
#endif

/* PostgreSQL 16 made one function of those for each kind of object. */
#if PG_VERSION_NUM < 160000
#include "catalog/pg_class.h"
#include "catalog/pg_namespace.h"
#include "catalog/pg_proc.h"

static inline bool
object_ownercheck(Oid class_id, Oid object_id, Oid role)
{
	Assert(class_id == RelationRelationId);
	return pg_class_ownercheck(object_id, role);
}

static inline AclResult
object_aclcheck(Oid class_id, Oid object_id, Oid role, AclMode mode)
{
	Assert(class_id == NamespaceRelationId || class_id == ProcedureRelationId);
	return class_id == NamespaceRelationId ?
		pg_namespace_aclcheck(object_id, role, mode) :
		pg_proc_aclcheck(object_id, role, mode);
}
#endif

/*
 * PostgreSQL 17 gave extensions wait events with names of their own; before
 * it they all wait as "Extension".
 */
static inline uint32
wait_event_named(const char *name)
{
#if PG_VERSION_NUM >= 170000
	return WaitEventExtensionNew(name);
#else
	(void) name;
	return PG_WAIT_EXTENSION;
#endif
}

/*
 * Milliseconds since the machine was booted, suspended time included where
 * the system can tell: a key must not outlive its time because the machine
 * was paused.
 */
static inline int64
boottime_ms(void)
{
	struct timespec ts;

#ifdef CLOCK_BOOTTIME
	clock_gettime(CLOCK_BOOTTIME, &ts);
#else
	clock_gettime(CLOCK_MONOTONIC, &ts);
#endif
	return (int64) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/*
 * Keep the memory of this process out of core files, and out of reach of other
 * processes of the same user.
 */
static inline void
process_keep_out_of_core_files(void)
{
#ifdef __linux__
	(void) prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
#endif
}

#endif							/* ENVELOPE_COMPAT_H */
