# majors: 15 16 17 18
# python: clients
#
# A protected table answers as its plaintext twin does, whatever it is asked:
# statements from a random seed, on both (test/fuzz/twin/twin.py says how one
# that had two answers is had again).

set -euo pipefail
# shellcheck source=test/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"

make_local_kek "$TEST_FOLDER/keks" platform
start_cluster "$TEST_FOLDER/server" "$TEST_TREE" \
	"shared_preload_libraries = 'envelope'" \
	"envelope.local_kek_directory = '$TEST_FOLDER/keks'" \
	"max_parallel_workers_per_gather = 2" "min_parallel_table_scan_size = 0"
trap 'stop_cluster "$TEST_FOLDER/server" "$TEST_TREE"' EXIT

# What two sessions of one server tell each other needs no seed of its own; many
# short runs see more different tables than a long one.
runs=1 count=500
[[ $TEST_WHEN != all ]] || runs=20 count=1000

fuzz()
{
	in_cluster "$TEST_FOLDER/server" "$TEST_TREE" "$TEST_PYTHON/python" -B \
		"$TEST_ROOT/test/fuzz/twin/twin.py" "$@"
}

for ((run = 1; run <= runs; run++)); do
	# Every fourth of many mostly searches.
	searches=()
	((run % 4)) || searches=(--search)
	if fuzz --protect --count "$count" "${searches[@]}"; then
		echo "ok $run - the twins gave the same answers"
	else
		echo "not ok $run - the twins gave the same answers"
	fi
done

crashes=$(cluster_crashes "$TEST_FOLDER/server")
if [[ -z $crashes ]]; then
	echo "ok $run - nothing crashed or leaked"
else
	echo "$crashes"
	echo "not ok $run - nothing crashed or leaked"
fi
