/*-------------------------------------------------------------------------
 *
 * pass.h
 *	  Tenants that are rotated together, and what is recorded of them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_PASS_H
#define ENVELOPE_PASS_H

#include "compat.h"
#include "lifecycle/rotation.h"
#include "lifecycle/sweep.h"

/* A tenant in a pass */
typedef struct Rotation
{
	int64		id;
	char	   *tenant;			/* server encoding */
	int64		new_key;
	bool		resumed;
	int64		rows;			/* re-encrypted by this call */
} Rotation;

typedef struct Pass
{
	MemoryContext context;		/* outlives the transactions */
	Rotation   *rotations;
	int			nrotations;
	const RotationPace *pace;
	Sweep	   *sweep;
	const char *table;			/* under way */
	TimestampTz told_at;
} Pass;

extern void pass_lock(Pass *pass, char **tenants, int ntenants, RotationTrouble trouble);
extern void pass_begin(Pass *pass, RotationTrouble trouble);
extern void pass_gather_keys(Pass *pass);
extern void pass_enter_phase(Pass *pass, const char *phase);
extern void pass_tell(Pass *pass, const char *waits_for);
pg_noreturn extern void pass_report_trouble(const Pass *pass);
extern void pass_leave_out_trouble(Pass *pass);
extern void pass_record_proof(Pass *pass);

/* For one tenant, without a pass */
extern char *pass_kek_of(const char *tenant);
extern int64 pass_record(const char *tenant, int64 new_key, const char *phase,
						 bool finished, const char *error);
extern void pass_audit_begin(const char *tenant, const char *kek, int64 key_id);

#endif							/* ENVELOPE_PASS_H */
