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

#include "utils/wait_event.h"

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

#endif							/* ENVELOPE_COMPAT_H */
