# majors: 18
# when: all
# release: 15
#
# pg_upgrade from 15 to this version takes protected tables along, into a cluster
# that does not preload the library yet: their bytes are the same, what they hold
# opens when it does, and in between nothing open is read or written.

set -euo pipefail
# shellcheck source=test/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"

OLD_TREE=$TEST_FOLDER/pg15
OLD=$TEST_FOLDER/old
NEW=$TEST_FOLDER/new
number=0

old_sql() { cluster_psql "$OLD" "$OLD_TREE" -q -A -t "$@"; }
new_sql() { cluster_psql "$NEW" "$TEST_TREE" -q -A -t "$@"; }

# same WHAT GOT EXPECTED
same()
{
	number=$((number + 1))
	if [[ $2 == "$3" ]]; then
		echo "ok $number - $1"
	else
		printf '# got:      %s\n# expected: %s\nnot ok %s - %s\n' "$2" "$3" "$number" "$1"
	fi
}

# The SQLSTATE that SQL ends in on the new server
state()
{
	new_sql -v VERBOSITY=sqlstate -c "$1" 2>&1 >/dev/null | sed -n 's/^ERROR: *//p'
}

trap 'stop_cluster "$OLD" "$OLD_TREE"; stop_cluster "$NEW" "$TEST_TREE"' EXIT
# Releases of about the same day: what a later one keeps in its catalogs pg_upgrade of
# an earlier one does not know.
release_for 15 "$OLD_TREE"
copy_sources "$TEST_FOLDER/src"
make -s -C "$TEST_FOLDER/src" clean PG_CONFIG="$OLD_TREE/bin/pg_config" with_llvm=no
build_into "$OLD_TREE" "$TEST_FOLDER/src"
make_local_kek "$TEST_FOLDER/keks" platform
conf=("shared_preload_libraries = 'envelope'" "envelope.local_kek_directory = '$TEST_FOLDER/keks'")
start_cluster "$OLD" "$OLD_TREE" "${conf[@]}"
old_sql -o /dev/null <<'END'
CREATE EXTENSION envelope;
SELECT envelope_create_kek('platform', 'local://platform', is_default => true);
SELECT envelope_create_tenants(array['t1', 't2']);
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TABLE customers (id int PRIMARY KEY, tenant_id text NOT NULL, email text, born date, feeling mood, n numeric,
	UNIQUE (tenant_id, email));
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.n := length(NEW.email); RETURN NEW; END';
CREATE TRIGGER stamp BEFORE UPDATE ON customers FOR EACH ROW EXECUTE FUNCTION stamp();
CREATE TABLE events (id int, kind text, tenant_id text NOT NULL, who text) PARTITION BY LIST (kind);
CREATE TABLE events_a PARTITION OF events FOR VALUES IN ('a');
SELECT envelope_protect('customers', 'tenant_id', '{email,born,feeling,n}', '{email}');
SELECT envelope_protect('events', 'tenant_id', '{who}');
INSERT INTO customers SELECT g, 't' || (1 + g % 2), 'user' || g, date '2001-01-01' + g, 'happy', g / 3.0 FROM generate_series(1, 100) g;
INSERT INTO events SELECT g, 'a', 't1', 'who' || g FROM generate_series(1, 100) g;
END

open_rows="SELECT md5(string_agg(c::text, ';')) FROM (SELECT id, tenant_id, email, born, feeling, n FROM customers ORDER BY id) c"
open_events="SELECT md5(string_agg(who, ';' ORDER BY id)) FROM events"
stored="SELECT md5(string_agg(id || email__sealed::text || email__term::text || n__sealed::text, ';' ORDER BY id)) FROM customers"
before=$(old_sql -c "$open_rows" -c "$open_events")
bytes=$(old_sql -c "SET envelope.stored_form = on" -c "$stored")
stop_cluster "$OLD" "$OLD_TREE"

# A cluster of the new version that does not preload the library
start_cluster "$NEW" "$TEST_TREE"
stop_cluster "$NEW" "$TEST_TREE"
mkdir "$TEST_FOLDER/work"
give_to_tester "$TEST_FOLDER/work"
# From version 18 on clusters have checksums unless told otherwise.
in_tree "$TEST_TREE" as_tester pg_controldata "$NEW/data" | grep -q 'checksum version: *0' ||
	in_tree "$TEST_TREE" as_tester pg_checksums --disable -D "$NEW/data" >/dev/null
cd "$TEST_FOLDER/work"
if quietly "$TEST_FOLDER/upgrade.log" in_tree "$TEST_TREE" as_tester pg_upgrade -U postgres --no-sync \
	-b "$OLD_TREE/bin" -B "$TEST_TREE/bin" -d "$OLD/data" -D "$NEW/data" -s "$TEST_FOLDER/work"; then
	same 'pg_upgrade into a cluster that does not preload the library' done done
else
	same 'pg_upgrade into a cluster that does not preload the library' failed done
	exit
fi

restart_cluster "$NEW" "$TEST_TREE"
same 'the same bytes' "$(new_sql -c "$stored")" "$bytes"
same 'columns read as NULL' "$(new_sql -c 'SELECT count(*), count(email), count(born) FROM customers')" '100|0|0'
same 'an INSERT is refused' "$(state "INSERT INTO customers VALUES (200, 't1', 'canary')")" VE008
same 'an UPDATE too' "$(state "UPDATE customers SET email = 'canary' WHERE id = 1")" VE008

printf '%s\n' "${conf[@]}" >>"$NEW/data/postgresql.conf"
restart_cluster "$NEW" "$TEST_TREE"
same 'preloaded, it reads everything' "$(new_sql -c "$open_rows" -c "$open_events")" "$before"
same 'the same bytes still' "$(new_sql -c 'SET envelope.stored_form = on' -c "$stored")" "$bytes"
same 'it finds' "$(new_sql -c "SELECT id FROM customers WHERE tenant_id = 't1' AND email = 'user10'")" 10
same 'it writes' "$(new_sql -c "INSERT INTO customers VALUES (200, 't1', 'new') RETURNING email" -c "UPDATE customers SET email = 'newer' WHERE id = 200 RETURNING n")" $'new\n5'
same 'triggers are ALWAYS' "$(new_sql -c "SELECT count(*) FROM pg_trigger WHERE tgfoid = 'envelope.seal'::regproc AND tgenabled = 'A'")" 3
same 'doctor is content' "$(new_sql -c "SELECT count(*) FROM envelope_doctor() WHERE severity = 'error'")" 0
