# majors: 15
# packages: spin
#
# The protocol of rotation and destruction, checked in every order of events by
# Spin; and without each of its rules, shown to fail.

set -euo pipefail
# shellcheck source=test/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"

NUMBER=0

# check EXPECTED WHAT DEFINE...: have Spin search all states; EXPECTED is "holds"
# or "fails".
check()
{
	local expected=$1 what=$2 folder found=unknown
	shift 2
	NUMBER=$((NUMBER + 1))
	folder=$TEST_FOLDER/$NUMBER
	mkdir "$folder"
	(
		cd "$folder"
		spin -a "$@" "$TEST_ROOT/test/model/rotation.pml"
		gcc -O2 -DSAFETY -DCOLLAPSE -DMEMLIM=4000 -o pan pan.c
		./pan -m100000 -w24
	) >"$folder/log" 2>&1
	# A search that was cut short proves nothing.
	if ! grep -qE 'max search depth too small|out of memory' "$folder/log"; then
		case $(grep -oE 'errors: [0-9]+' "$folder/log") in
			'errors: 0') found=holds ;;
			'errors: '*) ! grep -q 'assertion violated' "$folder/log" || found=fails ;;
		esac
	fi
	if [[ $found == "$expected" ]]; then
		echo "ok $NUMBER - $what: $(grep -oE '[0-9.e+]+ states, stored' "$folder/log")"
	else
		echo "not ok $NUMBER - $what"
		tail -n 20 "$folder/log" | sed 's/^/# /'
	fi
	rm -f "$folder/pan" "$folder"/pan.*
}

check holds 'the protocol'
check holds 'the protocol, while clients keep bytes' -DKEEP
if [[ $TEST_WHEN == all ]]; then
	check holds 'the protocol, with more transactions' -DFIRST=2 -DCRASHES=0
	check holds 'the same, while clients keep bytes' -DFIRST=2 -DCRASHES=0 -DKEEP
fi
check fails 'without a wait' -DNO_WAIT
check fails 'with a wait before the re-encryption only' -DWAIT_EARLY
check fails 'without waiting for prepared transactions' -DNO_PREPARED
check fails 'with each row looked at under its own snapshot' -DROW_BY_ROW -DFIRST=2 -DCRASHES=0
check fails 'death without the guard' -DNO_GUARD -DKEEP
check fails 'death without the first wait' -DNO_FIRST -DKEEP
check fails 'death without the second wait' -DNO_SECOND -DKEEP -DFIRST=2 -DCRASHES=0
check fails 'death that takes a wait for done after a crash' -DWAIT_KEPT -DKEEP
echo "1..$NUMBER"
