/*-------------------------------------------------------------------------
 *
 * audit.c
 *	  Who did what to whose keys.
 *
 * A row of envelope.audit_log is written in the transaction that does the
 * deed, so that there is one for each that was committed and for no other; a
 * trigger, ENABLE ALWAYS, refuses to change or take away rows.  What it says
 * goes to the server log as well, as one line of JSON, once the transaction
 * has committed (or is prepared: then it may still be rolled back, which the
 * line says).
 *
 * Whoever owns the table can take the trigger away.  Evidence that resists
 * them too is the server log, shipped elsewhere, and the trail of the KMS.
 *
 * Lines wait for the commit ready to be written: nothing that could fail is
 * left for then.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

#include "keys/audit.h"
#include "keys/catalog.h"
#include "keys/pending.h"
#include "keys/store.h"

PG_FUNCTION_INFO_V1(envelope_guard_audit_log);

/* Lines of the log that wait for the commit, see pending.c */
static List *pending_lines = NIL;

/* Does not throw, but for want of memory. */
static void
write_lines(const char *how)
{
	ListCell   *cell;

	foreach(cell, pending_lines)
	{
		Pending    *pending = lfirst(cell);

		ereport(LOG,
				(errmsg_internal("envelope audit%s: %s", how, pending->subject),
				 errhidestmt(true), errhidecontext(true)));
	}
	pending_lines = NIL;
}

static void
at_transaction_end(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			write_lines("");
			break;
		case XACT_EVENT_PREPARE:
			write_lines(" (prepared)");
			break;
		case XACT_EVENT_ABORT:
			pending_lines = NIL;
			break;
		default:
			break;
	}
}

static void
at_subtransaction_end(SubXactEvent event, SubTransactionId subid,
					  SubTransactionId parent_subid, void *arg)
{
	pending_at_subtransaction_end(&pending_lines, event, subid, parent_subid);
}

/* Called from _PG_init. */
void
audit_init(void)
{
	RegisterXactCallback(at_transaction_end, NULL);
	RegisterSubXactCallback(at_subtransaction_end, NULL);
}

/*
 * The role that this session logged in as, whatever it has become by SET ROLE
 * or SET SESSION AUTHORIZATION, palloc'd.
 */
const char *
audit_login(void)
{
	Oid			login = GetAuthenticatedUserId();

	/* A background worker has logged in as nobody in particular. */
	return GetUserNameFromId(OidIsValid(login) ? login : GetSessionUserId(), false);
}

/*
 * The role in effect: what SET ROLE has made of the login.  Functions run as
 * the owner of the tables when they ask, so that this is not the current user.
 */
static const char *
effective_role(void)
{
	Oid			role = GetCurrentRoleId();

	return GetUserNameFromId(OidIsValid(role) ? role : GetSessionUserId(), false);
}

/* The address of the client; NULL where it came by a socket of this machine. */
static const char *
client_address(void)
{
	LOCAL_FCINFO(fcinfo, 0);
	Datum		address;

	InitFunctionCallInfoData(*fcinfo, NULL, 0, InvalidOid, NULL, NULL);
	address = inet_client_addr(fcinfo);
	return fcinfo->isnull ? NULL :
		DatumGetCString(DirectFunctionCall1(inet_out, address));
}

static void
append_field(StringInfo line, const char *name, const char *value)
{
	if (value == NULL)
		return;
	appendStringInfo(line, "%s\"%s\":", line->len > 1 ? "," : "", name);
	escape_json(line, value);
}

/* A line of JSON that says what happened; palloc'd. */
static char *
make_line(const char *event, const char *tenant, const char *kek, int64 key_id,
		  const char *details)
{
	StringInfoData line;

	initStringInfo(&line);
	appendStringInfoChar(&line, '{');
	append_field(&line, "event", event);
	append_field(&line, "database", get_database_name(MyDatabaseId));
	append_field(&line, "tenant", tenant);
	append_field(&line, "kek", kek);
	if (key_id != NO_KEY)
		append_field(&line, "key_id", psprintf(INT64_FORMAT, key_id));
	append_field(&line, "login", audit_login());
	append_field(&line, "role", effective_role());
	append_field(&line, "client", client_address());
	append_field(&line, "application", application_name);
	if (details)
		appendStringInfo(&line, ",\"details\":%s", details);
	appendStringInfoChar(&line, '}');
	return line.data;
}

/* Insert rows, one for each tenant, between store_begin and store_end. */
static void
insert_rows(const char *event, char **tenants, int ntenants, const char *kek,
			int64 key_id, const char *details)
{
	StoreParam	params[] = {
		store_text(event),
		store_texts(tenants, ntenants),
		store_text(kek),
		{INT8OID, Int64GetDatum(key_id), key_id == NO_KEY},
		store_text(details),
		store_text(audit_login()),
		store_text(effective_role())
	};

	(void) store_execute("INSERT INTO envelope.audit_log"
						 " (event, tenant_id, kek, key_id, details, login, role,"
						 " client, application, pid)"
						 " SELECT $1, nullif(t, ''), $3, $4, $5::jsonb, $6, $7, inet_client_addr(),"
						 " current_setting('application_name'), pg_backend_pid()"
						 " FROM unnest($2) t", lengthof(params), params);
}

/*
 * Record what this transaction does, between store_begin and store_end.
 * tenant and kek may be NULL, key_id NO_KEY; details is a JSON object or NULL.
 */
void
audit_record(const char *event, const char *tenant, const char *kek,
			 int64 key_id, const char *details)
{
	char	   *tenants[] = {unconstify(char *, tenant ? tenant : "")};

	insert_rows(event, tenants, 1, kek, key_id, details);
	pending_add(&pending_lines, make_line(event, tenant, kek, key_id, details));
}

/* The same for many tenants */
void
audit_record_tenants(const char *event, char **tenants, int ntenants,
					 const char *kek)
{
	if (ntenants == 0)
		return;
	insert_rows(event, tenants, ntenants, kek, NO_KEY, NULL);
	for (int i = 0; i < ntenants; i++)
		pending_add(&pending_lines, make_line(event, tenants[i], kek, NO_KEY, NULL));
}

/*
 * Say in the server log alone what changes nothing in the tables, or could not
 * be done.
 */
void
audit_log_only(const char *event, const char *tenant, const char *details)
{
	ereport(LOG,
			(errmsg_internal("envelope audit: %s",
							 make_line(event, tenant, NULL, NO_KEY, details)),
			 errhidestmt(true), errhidecontext(true)));
}

/* Trigger on envelope.audit_log: rows are added, and that is all. */
Datum
envelope_guard_audit_log(PG_FUNCTION_ARGS)
{
	TriggerData *trigdata = (TriggerData *) fcinfo->context;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("this function can only be called as a trigger")));
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("rows of %s.%s cannot be changed or taken away", ENVELOPE_SCHEMA,
					RelationGetRelationName(trigdata->tg_relation))));
}
