/*-------------------------------------------------------------------------
 *
 * implied.h
 *	  CHECK constraints that the seal trigger has made true already.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_IMPLIED_H
#define ENVELOPE_IMPLIED_H

#include "utils/rel.h"

#include "tables/protection.h"

extern bool *implied_checks(Relation rel, const Protection *protection);
extern void implied_install_hooks(void);

#endif							/* ENVELOPE_IMPLIED_H */
