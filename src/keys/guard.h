/*-------------------------------------------------------------------------
 *
 * guard.h
 *	  What keeps the key tables sound and memory true to them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_GUARD_H
#define ENVELOPE_GUARD_H

extern void guard_install_hooks(void);

#endif							/* ENVELOPE_GUARD_H */
