/*-------------------------------------------------------------------------
 *
 * statistics.h
 *	  What the planner is told of the values of protected columns.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_STATISTICS_H
#define ENVELOPE_STATISTICS_H

extern void statistics_install_hooks(void);

#endif							/* ENVELOPE_STATISTICS_H */
