/*-------------------------------------------------------------------------
 *
 * worker.h
 *	  The background worker that calls the KMS.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_WORKER_H
#define ENVELOPE_WORKER_H

#include "postgres.h"

extern void worker_register(void);
extern PGDLLEXPORT void envelope_worker_main(Datum arg);

#endif							/* ENVELOPE_WORKER_H */
