/*-------------------------------------------------------------------------
 *
 * death.h
 *	  The end of data keys that nothing needs any more.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_DEATH_H
#define ENVELOPE_DEATH_H

extern int	death_of_retired_keys(char **tenants, int ntenants,
								  int retention_min, bool throw);

#endif							/* ENVELOPE_DEATH_H */
