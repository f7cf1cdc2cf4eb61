# majors: 18
# when: all
#
# pg_regress, the isolation tests and the fuzzing of all functions with the module
# built for the address and undefined behaviour sanitizers.

set -euo pipefail
# shellcheck source=test/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"
# shellcheck source=test/lib/checked.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/checked.sh"

sanitize='-fsanitize=address,undefined'
checked_build COPT="$sanitize -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g -O1" \
	PG_LDFLAGS="$sanitize"
# The server forgets most of its memory on purpose when a process ends.
checked_server env LD_PRELOAD="$(gcc -print-file-name=libasan.so)" \
	ASAN_OPTIONS=detect_leaks=0:abort_on_error=1:quarantine_size_mb=4 \
	UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1
checked_run regress ISOLATION=
checked_run isolation REGRESS=
# What is freed stays in quarantine for a while.
FUZZ_SECONDS=120 FUZZ_GROWTH_KB=5120 checked_tap test/t/12_fuzz.pl
mapfile -t logs < <(find "$TEST_FOLDER/tap" -name '*.log')
checked_report 'report of a sanitizer' \
	"$(grep -E -A 30 'AddressSanitizer|runtime error:|was terminated by signal' "$checked_cluster/log" "${logs[@]}")"
