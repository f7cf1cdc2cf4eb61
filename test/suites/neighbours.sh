# majors: 15 16 17
# packages: postgresql-MAJOR-pgaudit postgresql-MAJOR-cron postgresql-MAJOR-repack postgresql-MAJOR-hypopg
#
# Protected tables work beside other modules, preloaded before and behind
# envelope, and those show no plaintext: pg_stat_statements, auto_explain, pgaudit,
# pg_cron, hypopg; pg_repack rewrites them.

set -euo pipefail
# shellcheck source=test/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"

# They come from the system's packages, so for the system's version.
if [[ $MAJOR != "$(system_major)" ]]; then
	echo "ok 1 # SKIP there are no packages for this version"
	exit
fi

OTHERS='pg_stat_statements, auto_explain, pgaudit, pg_cron'
CANARY=canary@mail.example
number=0

# check WHAT COMMAND...: does it succeed?
check()
{
	local what=$1
	shift
	number=$((number + 1))
	if "$@"; then
		echo "ok $number - $what"
	else
		echo "not ok $number - $what"
	fi
}

sql() { cluster_psql "$SERVER" "$TEST_TREE" -q -A -t "$@"; }

# equal WHAT GOT EXPECTED
equal()
{
	[[ $2 == "$3" ]] || printf '# got:      %s\n# expected: %s\n' "$2" "$3"
	check "$1" test "$2" = "$3"
}

# logged PATTERN; hidden: the canary is in no file of the data directory.  (What a
# client sends, auto_explain may write into the log.)
logged() { grep -q -- "$1" "$SERVER/log"; }
hidden() { ! grep -raqF -- "$CANARY" "$SERVER/data"; }
like() { [[ $1 == *"$2"* ]]; }

beside()
{
	local libraries=$1 order=$2
	SERVER=$TEST_FOLDER/$order
	make_local_kek "$TEST_FOLDER/keks" platform
	start_cluster "$SERVER" "$TEST_TREE" "shared_preload_libraries = '$libraries'" \
		"envelope.local_kek_directory = '$TEST_FOLDER/keks'" "cron.database_name = 'postgres'" \
		"cron.host = '$SERVER'" "auto_explain.log_min_duration = 0" "auto_explain.log_verbose = on" \
		"auto_explain.log_analyze = on" "auto_explain.log_nested_statements = on" \
		"pgaudit.log = 'all'" "pgaudit.log_relation = on" "log_min_error_statement = panic"
	sql -o /dev/null <<-'END'
		CREATE EXTENSION envelope;
		CREATE EXTENSION pg_stat_statements;
		CREATE EXTENSION pgaudit;
		CREATE EXTENSION pg_cron;
		CREATE EXTENSION hypopg;
		CREATE EXTENSION pg_repack;
		SELECT envelope_create_kek('platform', 'local://platform', is_default => true);
		SELECT envelope_create_tenants(array['t1', 't2']);
		CREATE TABLE customers (id int PRIMARY KEY, tenant_id text NOT NULL, email text, note text, visits int DEFAULT 0,
			UNIQUE (tenant_id, email));
		SELECT envelope_protect('customers', 'tenant_id', '{email,note}', '{email}');
		SELECT pg_stat_statements_reset();
	END
	# What is sent as a parameter stands in no statement.
	sql -o /dev/null <<-END
		INSERT INTO customers SELECT g, 't' || (1 + g % 2), 'user' || g || '@mail' || '.example', 'a note' FROM generate_series(1, 2000) g;
		ANALYZE customers;
	END
	printf '%s\n' 'INSERT INTO customers (id, tenant_id, email, note) VALUES (:id, :t, :e, :e) ON CONFLICT (tenant_id, email) DO UPDATE SET visits = customers.visits + 1;' \
		'SELECT email, note FROM customers WHERE tenant_id = :t AND email = :e;' \
		"UPDATE customers SET note = :e || '!' WHERE id = :id;" >"$TEST_FOLDER/script"
	check "$order: upserts, reads, updates" quietly "$TEST_FOLDER/pgbench" in_cluster "$SERVER" "$TEST_TREE" \
		pgbench -n -M prepared -t 10 -f "$TEST_FOLDER/script" -D id=5000 -D t=t1 -D "e=$CANARY" postgres
	equal "$order: and gives what it should" "$(sql -c "SELECT email, note, visits FROM customers WHERE id = 5000")" "$CANARY|$CANARY!|9"
	equal "$order: pg_stat_statements counts statements as they were sent" \
		"$(sql -c "SELECT calls FROM pg_stat_statements WHERE query LIKE 'SELECT email, note FROM customers WHERE tenant_id = \$1%'")" 10
	check "$order: auto_explain logs the plan" logged 'Index Scan using'
	check "$order: pgaudit logs reads of the table" logged 'AUDIT: SESSION,.*READ,SELECT,TABLE,public.customers'
	check "$order: and writes" logged 'AUDIT: SESSION,.*WRITE,INSERT,TABLE,public.customers'
	check "$order: nothing open is in the files" hidden
	imagined_index "$order"
	cron "$order"
	repack "$order"
	equal "$order: nothing crashed or leaked" "$(cluster_crashes "$SERVER")" ''
	stop_cluster "$SERVER" "$TEST_TREE"
}

imagined_index()
{
	check "$1: hypopg's indexes are considered" like "$(sql -c "SELECT hypopg_create_index('CREATE INDEX ON customers (visits)')" \
		-c "EXPLAIN (COSTS OFF) SELECT email FROM customers WHERE visits = 77")" btree_customers_visits
}

# A job of pg_cron writes and reads as any session.
cron()
{
	local tries=0 got=
	sql -o /dev/null -c "SELECT cron.schedule('job', '1 seconds', \$\$UPDATE customers SET note = upper(email) || id WHERE id = 7\$\$)" 2>/dev/null ||
		sql -o /dev/null -c "SELECT cron.schedule('job', '* * * * *', \$\$UPDATE customers SET note = upper(email) || id WHERE id = 7\$\$)"
	until [[ $got == USER7@* ]] || ((tries++ > 700)); do
		got=$(sql -c 'SELECT note FROM customers WHERE id = 7')
		sleep 0.1
	done
	equal "$1: a job of pg_cron writes" "$got" USER7@MAIL.EXAMPLE7
	sql -o /dev/null -c "SELECT cron.unschedule('job')"
}

# pg_repack copies rows as they are stored, if it is told to.
repack()
{
	local before stored="SET envelope.stored_form = on; SELECT md5(string_agg(c::text, ';' ORDER BY id)) FROM customers c"
	before=$(sql -c "$stored")
	if PGOPTIONS='-c envelope.stored_form=on' in_cluster "$SERVER" "$TEST_TREE" pg_repack -d postgres -t customers >"$TEST_FOLDER/repack" 2>&1; then
		equal "$1: pg_repack keeps the bytes" "$(sql -c "$stored")" "$before"
	else
		sed 's/^/# /' "$TEST_FOLDER/repack"
		equal "$1: pg_repack" failed done
	fi
	equal "$1: and what they hold" "$(sql -c "SELECT id, note FROM customers WHERE tenant_id = 't2' AND email = 'user9@mail.example'")" '9|a note'
	check "$1: nothing open is in the files after it" hidden
}

trap 'stop_cluster "$SERVER" "$TEST_TREE"' EXIT
beside "$OTHERS, envelope" last
beside "envelope, $OTHERS" first
