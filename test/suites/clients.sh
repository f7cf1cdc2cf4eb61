# majors: 15 18
# packages: pgbouncer
# python: clients
#
# Applications' libraries work on protected tables as they are: Django,
# SQLAlchemy over psycopg and asyncpg, all of that once more through PgBouncer in
# transaction mode, and pgbench on its own tables.

set -euo pipefail
# shellcheck source=test/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"

SERVER=$TEST_FOLDER/server
POOL=$TEST_FOLDER/pool

make_local_kek "$TEST_FOLDER/keks" platform
start_cluster "$SERVER" "$TEST_TREE" \
	"shared_preload_libraries = 'envelope'" \
	"envelope.local_kek_directory = '$TEST_FOLDER/keks'"
trap 'stop_pool; stop_cluster "$SERVER" "$TEST_TREE"' EXIT
cluster_psql "$SERVER" "$TEST_TREE" -q -c 'CREATE ROLE app LOGIN'

# A database of its own for each client, in which the application owns what it
# makes, and a superuser has prepared the rest.
make_database()
{
	cluster_psql "$SERVER" "$TEST_TREE" -q -c "CREATE DATABASE $1 OWNER app"
	in_cluster "$SERVER" "$TEST_TREE" psql -X -q -o /dev/null -v ON_ERROR_STOP=1 -d "$1" <<'END'
CREATE EXTENSION envelope;
SELECT envelope_create_kek('platform', 'local://platform', is_default => true);
SELECT envelope_grant('app', 'use');
END
}

# client DATABASE SOCKET-FOLDER SCRIPT [ARG...]: its TAP lines, under the
# database's name; what it says to the log.
client()
{
	local database=$1 socket=$2 script=$3
	shift 3
	make_database "$database"
	(
		cp -R "$TEST_ROOT/test/clients" "$TEST_FOLDER/$database"
		cd "$TEST_FOLDER/$database"
		PGDATABASE=$database PGHOST=$socket SERVER_HOST=$SERVER PGPORT=5432 in_tree "$TEST_TREE" \
			"$TEST_PYTHON/python" -B "$script" "$@" 2>&1 |
			sed -E "s/^((not )?ok [0-9]+ - )/\1$database: /"
	) || true
}

start_pool()
{
	mkdir "$POOL"
	cat >"$POOL/ini" <<-END
		[databases]
		* = host=$SERVER port=5432
		[pgbouncer]
		pool_mode = transaction
		listen_addr =
		listen_port = 5432
		unix_socket_dir = $POOL
		logfile = $POOL/log
		pidfile = $POOL/pid
		auth_type = any
		ignore_startup_parameters = extra_float_digits
		default_pool_size = 2
	END
	# Any user is let in as the application's.
	sed -i 's/^\* = .*/& user=app/' "$POOL/ini"
	give_to_tester "$POOL"
	quietly "$POOL/out" as_tester "$(command -v pgbouncer || echo /usr/sbin/pgbouncer)" -d "$POOL/ini"
}

stop_pool() { [[ ! -e $POOL/pid ]] || kill "$(<"$POOL/pid")" || true; }

# pgbench's own scripts, its accounts and tellers protected: what it adds up
# agrees afterwards.
pgbench_runs()
{
	make_database pgbench
	pgbench_sql() { in_cluster "$SERVER" "$TEST_TREE" psql -X -A -t -q -v ON_ERROR_STOP=1 -d pgbench "$@"; }

	in_cluster "$SERVER" "$TEST_TREE" pgbench -q -i -s 1 pgbench 2>/dev/null
	pgbench_sql -o /dev/null <<-'END'
		SELECT envelope_create_tenant('1');
		SELECT envelope_protect('pgbench_accounts', 'bid', '{abalance,filler}');
		SELECT envelope_protect('pgbench_tellers', 'bid', '{tbalance}');
	END
	local mode
	for mode in simple extended prepared; do
		if in_cluster "$SERVER" "$TEST_TREE" pgbench -n -c 4 -t 100 -M "$mode" pgbench >"$TEST_FOLDER/bench.log" 2>&1 &&
			[[ $(pgbench_sql -c 'SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT sum(delta) FROM pgbench_history)
				AND (SELECT sum(tbalance) FROM pgbench_tellers) = (SELECT sum(bbalance) FROM pgbench_branches)') == t ]]; then
			echo "ok 1 - pgbench, $mode"
		else
			sed 's/^/# /' "$TEST_FOLDER/bench.log"
			echo "not ok 1 - pgbench, $mode"
		fi
	done
}

client django "$SERVER" django_test.py
client sqlalchemy "$SERVER" sqlalchemy_test.py
start_pool
client django_pooled "$POOL" django_test.py pooled
client sqlalchemy_pooled "$POOL" sqlalchemy_test.py pooled
pgbench_runs
# The tests themselves are right where nothing is protected.
if [[ $TEST_WHEN == all ]]; then
	export ENVELOPE_PROTECT=no
	client django_plain "$SERVER" django_test.py
	client sqlalchemy_plain "$SERVER" sqlalchemy_test.py
fi

crashes=$(cluster_crashes "$SERVER")
if [[ -z $crashes ]]; then
	echo 'ok 1 - nothing crashed or leaked'
else
	printf '%s\nnot ok 1 - nothing crashed or leaked\n' "$crashes"
fi
