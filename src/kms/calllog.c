/*-------------------------------------------------------------------------
 *
 * calllog.c
 *	  A line in the server log for each call of a KMS, envelope.log_kms_calls.
 *
 * One JSON object a line, so that it can be joined with what the KMS itself
 * records.  A call that several sessions wait for names the first.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/json.h"
#include "utils/timestamp.h"

#include "kms/calllog.h"

static void
put_text(StringInfo line, const char *name, const char *value)
{
	if (value[0] == '\0')
		return;
	appendStringInfo(line, ", \"%s\": ", name);
	escape_json(line, value);
}

/* Log how a task ended that was sent to the KMS at asked_at. */
void
call_log(const KmsRequest *request, const KmsTask *task,
		 const KmsAnswer *answer, const instr_time *asked_at)
{
	StringInfoData line;
	instr_time	latency;

	INSTR_TIME_SET_CURRENT(latency);
	INSTR_TIME_SUBTRACT(latency, *asked_at);

	initStringInfo(&line);
	appendStringInfo(&line, "{\"time\": \"%s\"", timestamptz_to_str(GetCurrentTimestamp()));
	put_text(&line, "operation", kms_operation_name(task->operation));
	put_text(&line, "for", kms_operation_name(request->operation));
	put_text(&line, "kek", task->kek);
	put_text(&line, "uri", task->uri);
	put_text(&line, "database", request->database_name);
	put_text(&line, "role", request->role);
	if (request->operation != KMS_CHECK)
	{
		put_text(&line, "tenant", request->tenant);
		appendStringInfo(&line, ", \"key_id\": %lld", (long long) request->key_id);
	}
	put_text(&line, "outcome", kms_outcome_name(answer->outcome));
	put_text(&line, "detail", answer->detail);
	appendStringInfo(&line, ", \"latency_ms\": %.1f", INSTR_TIME_GET_MILLISEC(latency));
	put_text(&line, "request_id", answer->request_id);
	appendStringInfoChar(&line, '}');
	ereport(LOG, (errmsg_internal("envelope: kms call %s", line.data)));
	pfree(line.data);
}
