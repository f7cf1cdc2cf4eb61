/*
 * How a data key is rotated and destroyed: who does it, clients that seal, copy,
 * move and delete rows, prepare transactions and keep bytes, and crashes at any
 * point.  src/lifecycle/rotation.c and death.c say in words what this says.
 *
 * What must hold, whatever happens when:
 *
 *  - no committed row is ever under a destroyed key, and no running transaction's
 *    snapshot shows one;
 *  - what the scan says was true at one moment for all rows;
 *  - once the proof is given no transaction stores a value that it has sealed under
 *    the old key, nor one that it has read before the re-encryption ended.
 *
 * A row can come to be under the old key after the proof all the same: copied by a
 * transaction that began later, from a row that has gone since, or brought back by
 * a client that kept its bytes between transactions (KEEP).  As long as the key is
 * only retired such a row opens.
 *
 * A rule of the protocol is taken away by defining one of:
 *
 *	NO_WAIT		nobody is waited for before the scan
 *	WAIT_EARLY	running transactions are waited for before the re-encryption only
 *	NO_PREPARED	prepared transactions are not waited for
 *	NO_GUARD	the trigger lets values under a scheduled key pass
 *	NO_FIRST	death does not wait before it looks
 *	NO_SECOND	death does not wait after it has looked
 *	ROW_BY_ROW	each row is looked at under a snapshot of its own
 *	WAIT_KEPT	after a crash a wait is taken for done
 */

#define CLIENTS 2
#define ROWS 2

/* How many transactions each client begins */
#ifndef FIRST
#define FIRST 1
#endif
#ifndef SECOND
#define SECOND 1
#endif
#ifndef CRASHES
#define CRASHES 1
#endif

/* What a row is sealed under */
#define NONE 0
#define OLD 1
#define NEW 2

mtype = { ACTIVE, RETIRED, SCHEDULED, DESTROYED };

/* Committed */
byte row[ROWS];				/* OLD and none to begin with */
mtype old_key = ACTIVE;
bool reencrypted = false;		/* step 2 has ended */
bool proven = false;

/* Whose uncommitted change a row has; 0: nobody's */
byte lock[ROWS] = 0;

/* Transactions */
bool running[CLIENTS] = false;
bool prepared[CLIENTS] = false;
byte number[CLIENTS] = 0;		/* of the transaction */

/* What a transaction has */
typedef Transaction
{
	bool has_snapshot;
	byte shown[ROWS];			/* by its snapshot */
	mtype known;				/* the old key's state, when it began */
	byte bytes;					/* sealed, or read */
	bool early;					/* it began before the re-encryption ended */
	bool sealed;				/* it sealed the bytes itself */
	byte pending[ROWS];
};
Transaction tx[CLIENTS];

byte kept[CLIENTS];			/* bytes that a client keeps between transactions */
byte crashes = 0;
bool crashed = false;			/* the rotator has to begin anew */

/* The rotator's list of whom to wait for; 0: nobody */
byte listed[CLIENTS] = 0;

/* How far it came, as the tables tell after a crash */
bool dying = false;

inline forget(i)
{
	tx[i].has_snapshot = false;
	tx[i].shown[0] = NONE;
	tx[i].shown[1] = NONE;
	tx[i].bytes = NONE;
	tx[i].pending[0] = NONE;
	tx[i].pending[1] = NONE;
	tx[i].known = ACTIVE;
	tx[i].early = false;
	tx[i].sealed = false;
	if
	:: lock[0] == i + 1 -> lock[0] = 0
	:: else
	fi;
	if
	:: lock[1] == i + 1 -> lock[1] = 0
	:: else
	fi;
	running[i] = false;
	prepared[i] = false
}

inline commit_row(i, r)
{
	if
	:: lock[r] == i + 1 ->
		row[r] = tx[i].pending[r];
		assert(!(row[r] == OLD && old_key == DESTROYED));
		assert(!(row[r] == OLD && proven && (tx[i].early || tx[i].sealed)));
	:: else
	fi
}

/*
 * Write a row, as an UPDATE, INSERT or DELETE does: the trigger looks first, and
 * lets pass what the row had before.
 */
inline write_row(i, r, value)
{
	if
#ifndef NO_GUARD
	:: value == OLD && row[r] != OLD && (tx[i].known == SCHEDULED || tx[i].known == DESTROYED) -> skip
#endif
	:: else ->
		lock[r] = i + 1;
		tx[i].pending[r] = value
	fi
}

proctype Client(byte i; byte transactions)
{
	byte begun = 0;

	do
	/* A transaction that begins knows what has been committed. */
	:: atomic { !running[i] && begun < transactions ->
		begun++;
		number[i]++;
		running[i] = true;
		tx[i].known = old_key;
		tx[i].early = !reencrypted }

	/* One that began before may learn of it later, or never. */
	:: atomic { running[i] && !prepared[i] && tx[i].known != old_key -> tx[i].known = old_key }

	:: atomic { running[i] && !prepared[i] && !tx[i].has_snapshot ->
		tx[i].has_snapshot = true;
		tx[i].shown[0] = row[0];
		tx[i].shown[1] = row[1] }

	/* Seal a value, or read one. */
	:: atomic { running[i] && !prepared[i] && tx[i].bytes == NONE ->
		tx[i].sealed = true;
		tx[i].bytes = (tx[i].known == ACTIVE -> OLD : NEW) }
	:: atomic { running[i] && !prepared[i] && tx[i].bytes == NONE && tx[i].has_snapshot && tx[i].shown[0] != NONE ->
		tx[i].bytes = tx[i].shown[0] }
	:: atomic { running[i] && !prepared[i] && tx[i].bytes == NONE && tx[i].has_snapshot && tx[i].shown[1] != NONE ->
		tx[i].bytes = tx[i].shown[1] }
#ifdef KEEP
	:: atomic { running[i] && !prepared[i] && tx[i].bytes == NONE && kept[i] != NONE ->
		tx[i].bytes = kept[i] }
	:: atomic { running[i] && tx[i].bytes != NONE && kept[i] == NONE -> kept[i] = tx[i].bytes }
#endif

	:: atomic { running[i] && !prepared[i] && tx[i].bytes != NONE && lock[0] == 0 -> write_row(i, 0, tx[i].bytes) }
	:: atomic { running[i] && !prepared[i] && tx[i].bytes != NONE && lock[1] == 0 -> write_row(i, 1, tx[i].bytes) }
	:: atomic { running[i] && !prepared[i] && lock[0] == 0 && row[0] != NONE -> write_row(i, 0, NONE) }
	:: atomic { running[i] && !prepared[i] && lock[1] == 0 && row[1] != NONE -> write_row(i, 1, NONE) }

	:: atomic { running[i] && !prepared[i] && (lock[0] == i + 1 || lock[1] == i + 1) ->
		prepared[i] = true;
		tx[i].has_snapshot = false;
		tx[i].shown[0] = NONE;
		tx[i].shown[1] = NONE }
	:: atomic { running[i] ->
		commit_row(i, 0);
		commit_row(i, 1);
		forget(i) }
	:: atomic { running[i] -> forget(i) }
	:: atomic { !running[i] && begun == transactions -> break }
	od
}

inline list_running()
{
	atomic {
		listed[0] = (running[0] -> number[0] : 0);
		listed[1] = (running[1] -> number[1] : 0);
#ifdef NO_PREPARED
		listed[0] = (prepared[0] -> 0 : listed[0]);
		listed[1] = (prepared[1] -> 0 : listed[1]);
#endif
	}
}

#ifdef NO_PREPARED
#define GONE(i) (listed[i] == 0 || !running[i] || prepared[i] || number[i] != listed[i])
#else
#define GONE(i) (listed[i] == 0 || !running[i] || number[i] != listed[i])
#endif

inline await()
{
	list_running();
	atomic { GONE(0) && GONE(1) -> listed[0] = 0; listed[1] = 0 }
}

/* Is a row under the old key?  Into found. */
inline scan()
{
#ifdef ROW_BY_ROW
	found = (row[1] == OLD);
	atomic {
		found = (found || row[0] == OLD);
		assert(found || (row[0] != OLD && row[1] != OLD))
	}
#else
	atomic { found = (row[0] == OLD || row[1] == OLD) }
#endif
}

/*
 * Rotates, then destroys; ended by a crash it is begun anew, and goes by what the
 * tables say.
 */
proctype Rotator()
{
	bool found;

begin:
	{
	if
	:: atomic { old_key == ACTIVE -> old_key = RETIRED }
	:: else
	fi;
	if
	:: dying -> goto death
	:: else
	fi;

reencrypt:
#ifdef WAIT_EARLY
	await();
#endif
	atomic {
		reencrypted = false;
		tx[0].early = running[0];
		tx[1].early = running[1]
	};
	/* Rows that are locked are left out, and come back to. */
	do
	:: atomic { row[0] == OLD && lock[0] == 0 -> row[0] = NEW }
	:: atomic { row[1] == OLD && lock[1] == 0 -> row[1] = NEW }
	:: atomic { row[0] != OLD && row[1] != OLD -> reencrypted = true; break }
	od;
#if !defined(NO_WAIT) && !defined(WAIT_EARLY)
	await();
#endif
	scan();
	if
	:: found -> goto reencrypt
	:: else
	fi;
	atomic { proven = true; dying = true };

death:
#ifdef WAIT_KEPT
	if
	:: old_key == SCHEDULED -> goto look
	:: else
	fi;
#endif
	atomic { old_key = SCHEDULED };
#ifndef NO_FIRST
	await();
#endif
look:
	scan();
	if
	:: found -> old_key = RETIRED; goto done
	:: else
	fi;
#ifndef NO_SECOND
	await();
#endif
	atomic {
		old_key == SCHEDULED;
		old_key = DESTROYED;
		assert(row[0] != OLD && row[1] != OLD);
		assert(!(running[0] && tx[0].has_snapshot && (tx[0].shown[0] == OLD || tx[0].shown[1] == OLD)));
		assert(!(running[1] && tx[1].has_snapshot && (tx[1].shown[0] == OLD || tx[1].shown[1] == OLD)))
	};
done:
	skip
	}
	unless { atomic { crashed -> crashed = false; found = false; listed[0] = 0; listed[1] = 0; goto begin } }
}

/* Transactions that run are rolled back, but for those that are prepared. */
proctype Crash()
{
	do
	:: atomic { crashes < CRASHES ->
		crashes++;
		crashed = true;
		if
		:: running[0] && !prepared[0] -> forget(0)
		:: else
		fi;
		if
		:: running[1] && !prepared[1] -> forget(1)
		:: else
		fi }
	:: break
	od
}

init
{
	atomic {
		row[0] = OLD;
#ifdef KEEP
		kept[0] = OLD;
#endif
		run Client(0, FIRST);
		run Client(1, SECOND);
		run Rotator();
		run Crash()
	}
}
