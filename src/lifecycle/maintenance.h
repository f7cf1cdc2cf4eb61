/*-------------------------------------------------------------------------
 *
 * maintenance.h
 *	  Doing what is due.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_MAINTENANCE_H
#define ENVELOPE_MAINTENANCE_H

#include "lifecycle/rotation.h"
#include "utils/timestamp.h"

extern void maintenance_run(const RotationPace *pace);
extern void maintenance_set_interval(const char *kind, const char *subject,
									 const Interval *every);

#endif							/* ENVELOPE_MAINTENANCE_H */
