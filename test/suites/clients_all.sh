# majors: 15 18
# when: all
# packages: ruby-activerecord ruby-pg default-jdk-headless nodejs
# node: clients
# maven: clients
#
# More libraries of applications on protected tables: ActiveRecord, Hibernate over
# pgjdbc, TypeORM over node-postgres.  Each makes its tables; then a superuser has
# them protected, or not; and what the application does and gets is the same.

set -euo pipefail
# shellcheck source=test/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"

SERVER=$TEST_FOLDER/server
CLIENTS=$TEST_ROOT/test/clients
NODE=$(node_env_path clients)
JARS=$(maven_env_path clients)

make_local_kek "$TEST_FOLDER/keks" platform
start_cluster "$SERVER" "$TEST_TREE" \
	"shared_preload_libraries = 'envelope'" \
	"envelope.local_kek_directory = '$TEST_FOLDER/keks'"
trap 'stop_cluster "$SERVER" "$TEST_TREE"' EXIT
cluster_psql "$SERVER" "$TEST_TREE" -q -c 'CREATE ROLE app LOGIN'

superuser() { in_cluster "$SERVER" "$TEST_TREE" psql -X -A -t -q -v ON_ERROR_STOP=1 -d "$@"; }

make_database()
{
	superuser postgres -c "CREATE DATABASE $1 OWNER app"
	superuser "$1" -o /dev/null <<-'END'
		CREATE EXTENSION envelope;
		SELECT envelope_create_kek('platform', 'local://platform', is_default => true);
		SELECT envelope_grant('app', 'use');
	END
}

# protect DATABASE COLUMNS: the table "customers", and keys for those who sign up.
protect()
{
	superuser "$1" -o /dev/null -c "SELECT envelope_protect('customers', 'tenant_id', '{$2}', '{email}')" \
		-c "CREATE TRIGGER provision AFTER INSERT ON tenants FOR EACH ROW EXECUTE FUNCTION envelope_provision('id')"
}

# phase DATABASE PHASE COMMAND...: what the client does in it; its TAP.
phase()
{
	local database=$1 phase=$2
	shift 2
	PGDATABASE=$database PGHOST=$SERVER PGPORT=5432 in_tree "$TEST_TREE" "$@" "$phase" 2>"$TEST_FOLDER/$database.err" ||
		sed 's/^/# /' "$TEST_FOLDER/$database.err"
}

# report NUMBER WHAT COMMAND...: did it succeed?
report()
{
	local number=$1 what=$2
	shift 2
	if "$@"; then
		echo "ok $number - $what"
	else
		echo "not ok $number - $what"
	fi
}

# same FILE FILE: what differs is shown.
same() { diff "$@" >"$TEST_FOLDER/diff" || ! head -n 40 "$TEST_FOLDER/diff" | sed 's/^/# /'; }

# client NAME COLUMNS COMMAND...: all that a client does, on an ordinary table and
# on a protected one.
client()
{
	local name=$1 columns=$2 database
	shift 2
	for database in "${name}_plain" "$name"; do
		make_database "$database"
		phase "$database" migrate "$@"
		[[ $database != "$name" ]] || protect "$database" "$columns"
		phase "$database" work "$@" >"$TEST_FOLDER/$database.out"
		sed -E -n "s/^((not )?ok [0-9]+ - |#   )/\1$database: /p" "$TEST_FOLDER/$database.out"
	done
	report 1001 "$name: got what it gets of an ordinary table" same "$TEST_FOLDER/${name}_plain.out" "$TEST_FOLDER/$name.out"
	phase "$name" look "$@" | sed -E "s/^((not )?ok [0-9]+ - )/\1$name: /"
	report 1002 "$name: no plaintext is stored" test "$(superuser "$name" -c 'SET envelope.stored_form = on' \
		-c 'SELECT count(email), count(born), count(balance), count(profile), count(email__sealed) > 0 FROM customers')" = '0|0|0|0|t'
}

client activerecord email,ssn,born,balance,profile,labels,active,seen ruby "$CLIENTS/activerecord/activerecord_test.rb"
client typeorm email,ssn,born,balance,profile,labels,mood,token,seen,scan,active \
	env NODE_PATH="$NODE/node_modules" node "$CLIENTS/typeorm/typeorm_test.js"

if quietly "$TEST_FOLDER/javac.log" javac -encoding UTF-8 -cp "$JARS/*" -d "$TEST_FOLDER/classes" "$CLIENTS"/hibernate/*.java; then
	client hibernate email,ssn,born,balance,profile,labels,mood,token,seen,scan,active \
		java -Djava.io.tmpdir="$TMPDIR" -Dfile.encoding=UTF-8 -cp "$TEST_FOLDER/classes:$JARS/*" HibernateTest
else
	echo 'not ok 1000 - hibernate: compiled'
fi

report 1003 'nothing crashed or leaked' test -z "$(cluster_crashes "$SERVER")"
