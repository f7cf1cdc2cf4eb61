/*-------------------------------------------------------------------------
 *
 * planner.h
 *	  Statements on protected tables are planned as what is stored.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_PLANNER_H
#define ENVELOPE_PLANNER_H

extern void planner_install_hooks(void);
extern bool planner_shows_stored_form(void);

#endif							/* ENVELOPE_PLANNER_H */
