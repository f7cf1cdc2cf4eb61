/*-------------------------------------------------------------------------
 *
 * progress.h
 *	  Rows of envelope.rotations that tell of work under way.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_PROGRESS_H
#define ENVELOPE_PROGRESS_H

extern int64 progress_insert(const char *kind, const char *tenant,
							 const char *kek, const char *new_kek, const char *phase);
extern void progress_phase(int64 id, const char *phase, int64 estimated);
extern void progress_tell(int64 id, int64 seen, int64 done, const char *relation,
						  const char *waits_for);
extern void progress_finish(int64 id, const char *phase, const char *proof,
							const char *error);

#endif							/* ENVELOPE_PROGRESS_H */
