/*-------------------------------------------------------------------------
 *
 * hide.h
 *	  What clients see of the columns that hold sealed values.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_HIDE_H
#define ENVELOPE_HIDE_H

extern void hide_install_hooks(void);

#endif							/* ENVELOPE_HIDE_H */
