/*-------------------------------------------------------------------------
 *
 * protect_progress.h
 *	  How far the tables are that are being protected live.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_PROTECT_PROGRESS_H
#define ENVELOPE_PROTECT_PROGRESS_H

extern void protect_progress_phase(Oid relid, const char *phase, int64 estimated);
extern void protect_progress_tell(Oid relid, int64 done, const char *waits_for);
extern void protect_progress_tell_lock(Oid relid);
extern void protect_progress_tell_index(Oid relid, int builder);
extern void protect_progress_end(Oid relid);
extern void protect_progress_fail(Oid relid, int sqlerrcode, const char *message);
extern void protect_progress_built(Oid relid);
extern bool protect_progress_outcome(Oid relid, int *sqlerrcode, char **message);

#endif							/* ENVELOPE_PROTECT_PROGRESS_H */
