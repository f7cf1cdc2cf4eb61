# majors: 18 18-assert
# when: all
# source: 18
#
# PostgreSQL's own isolation tests of what happens to a row that others change
# meanwhile (EvalPlanQual, ON CONFLICT, MERGE, moves between partitions), on
# protected tables: they print what they print on ordinary ones.

set -euo pipefail
# shellcheck source=test/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"

SERVER=$TEST_FOLDER/server
core=$(pg_source_dir 18)/src/test/isolation
built=$("$TEST_TREE/bin/pg_config" --pkglibdir)/pgxs/src/test/isolation

make_local_kek "$TEST_FOLDER/keks" platform
start_cluster "$SERVER" "$TEST_TREE" \
	"shared_preload_libraries = 'envelope'" \
	"envelope.local_kek_directory = '$TEST_FOLDER/keks'"
trap 'stop_cluster "$SERVER" "$TEST_TREE"' EXIT
# A tenant for each value that is a key there.
in_cluster "$SERVER" "$TEST_TREE" psql -X -q -o /dev/null -v ON_ERROR_STOP=1 -d postgres <<'END'
CREATE DATABASE isolation TEMPLATE template0;
\c isolation
CREATE EXTENSION envelope;
SELECT envelope_create_kek('platform', 'local://platform', is_default => true);
SELECT envelope_create_tenants(array(SELECT g::text FROM generate_series(-5, 200) g)
	|| '{checking,savings,cds,key-a,key-b,key-c,k1,k2,FooFoo,FOOFOO}'::text[]);
END

# known_differences FILE: a row as text shows the sidecars, empty, and makes its column
# wider; of plans, only how they join is the same.
known_differences()
{
	sed -E -e '/^(QUERY PLAN|explain_filter) *$/,/^\([0-9]+ rows?\)/{/-> .*( Join|Nested Loop)/!d; s/.*->  //; s/ +$//}' \
		-e 's/,+\)/)/g' -e 's/ *\| */|/g' -e 's/-+/-/g' "$1"
}

number=0
mkdir "$TEST_FOLDER/specs"
for name in $(/usr/bin/python3 "$TEST_ROOT/test/isolation/core.py" "$core/specs" "$TEST_FOLDER/specs"); do
	number=$((number + 1))
	got=$TEST_FOLDER/$name.out
	PGAPPNAME=isolation/$name in_cluster "$SERVER" "$TEST_TREE" "$built/isolationtester" dbname=isolation \
		<"$TEST_FOLDER/specs/$name.spec" >"$got" 2>&1 || true
	passed=
	for expected in "$core/expected/$name".out "$core/expected/$name"_?.out; do
		[[ -e $expected ]] || continue
		! diff <(known_differences "$expected") <(known_differences "$got") >"$TEST_FOLDER/$name.diff" || passed=yes
	done
	if [[ -n $passed ]]; then
		echo "ok $number - $name"
	else
		head -n 200 "$TEST_FOLDER/$name.diff" | sed 's/^/# /'
		echo "not ok $number - $name"
	fi
done

number=$((number + 1))
crashes=$(cluster_crashes "$SERVER")
if [[ -z $crashes ]]; then
	echo "ok $number - nothing crashed or leaked"
else
	printf '%s\nnot ok %s - nothing crashed or leaked\n' "$crashes" "$number"
fi
