/*-------------------------------------------------------------------------
 *
 * rewrap.h
 *	  Moving wrapped data keys from one KEK to another.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_REWRAP_H
#define ENVELOPE_REWRAP_H

extern int	rewrap_tenant(const char *tenant, const char *kek);
extern bool rewrap_kek(const char *kek, const char *target);

#endif							/* ENVELOPE_REWRAP_H */
