#!/usr/bin/env bash
#
# The suites on one version of PostgreSQL, as the user that runs servers.
# Started by test/run:
#
#   major.sh VERSION TREE all|default [SUITE...]
#
# from a copy of the sources that it may write in.  Prints a line for each
# suite, and below it what failed; appends "PASSED FAILED" to $RESULTS.

set -euo pipefail
# shellcheck source=test/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

VERSION=$1
TREE=$2
WHEN=$3
shift 3
SUITES=("$@")

# The longest that one file of tests, and one suite, may take: a hung test
# must not hide what the others have to say.
FILE_LIMIT=900
SUITE_LIMIT=1500
[[ $WHEN != all ]] || SUITE_LIMIT=7200

HERE=$WORK/$VERSION
SRC=$HERE/src
SERVER=$HERE/server
KEKS=$HERE/keks

# Set by every suite.
PASSED=0
FAILED=0

# wanted SUITE: was it asked for?  All are, when none is named.
wanted()
{
	((${#SUITES[@]} > 0)) || return 0
	[[ " ${SUITES[*]} " == *" $1 "* ]]
}

# suite NAME FUNCTION [ARG...]: run one suite and report it.  FUNCTION sets
# PASSED and FAILED and prints, to the log it is given first, what a reader
# needs to see of a failure.
suite()
{
	local name=$1 function=$2 start=$SECONDS details=$HERE/details-$1
	shift 2
	PASSED=0 FAILED=0
	: >"$details"
	"$function" "$details" "$@"
	((PASSED + FAILED > 0)) || return 0
	printf 'PostgreSQL %-9s %-14s %5d passed %4d failed %5d s\n' \
		"$VERSION" "$name" "$PASSED" "$FAILED" $((SECONDS - start))
	if ((FAILED > 0)); then
		sed "s/^/    [$VERSION $name] /" "$details"
	fi
	echo "$PASSED $FAILED" >>"$RESULTS"
}

# attach FILE TITLE LINES: for the details of a failure, the end of a file.
attach()
{
	[[ -s $1 ]] || return 0
	echo "--- $2"
	tail -n "$3" "$1"
}

# makefile_words VAR: the words of a variable of the module's Makefile.
makefile_words()
{
	# shellcheck disable=SC2016  # it is make that expands
	printf 'include Makefile\nenvelope-print: ; @echo $(%s)\n' "$1" |
		in_make "$TREE" "$SRC" -f - envelope-print
}

# --- build -------------------------------------------------------------------

# PostgreSQL's headers are another house's: as system headers they may be as
# they are, while every warning about ours is an error.
strict_flags()
{
	echo "-Wall -Wextra -Werror -isystem $("$TREE/bin/pg_config" --includedir-server)"
}

# PostgreSQL's flags and attributes are gcc's, some of which clang does not
# know.
CLANG_FLAGS='-Wno-unknown-warning-option -Wno-ignored-optimization-argument -Wno-ignored-attributes'

build_one()
{
	local details=$1 name=$2 folder=$3
	shift 3
	copy_sources "$folder"
	if in_make "$TREE" "$folder" -j2 "$@" >"$folder/make.log" 2>&1; then
		PASSED=$((PASSED + 1))
	else
		FAILED=$((FAILED + 1))
		attach "$folder/make.log" "$name" 40 >>"$details"
	fi
}

suite_build()
{
	build_one "$1" gcc "$SRC" install CC=gcc COPT="$(strict_flags)"
	build_one "$1" clang "$HERE/src-clang" all CC="$(clang_command)" \
		COPT="$(strict_flags) $CLANG_FLAGS"
	rm -rf "$HERE/src-clang"
}

# The other suites need the module, whoever asked for its build.
build_for_suites()
{
	copy_sources "$SRC"
	if ! in_make "$TREE" "$SRC" -j2 install CC=gcc COPT=-Wall >"$SRC/make.log" 2>&1; then
		FAILED=$((FAILED + 1))
		attach "$SRC/make.log" gcc 40 >>"$1"
	fi
}

# --- regress and isolation ---------------------------------------------------

# Both are run as a user would run them, by installcheck.  Version 15 writes
# "test NAME ... ok", later ones TAP.
PASSED_LINE='^(ok +[0-9]+ |(test)? +[A-Za-z0-9_-]+ +\.\.\. ok)'
FAILED_LINE='^(not ok +[0-9]+ |(test)? +[A-Za-z0-9_-]+ +\.\.\. FAILED)'

# installcheck DETAILS SERVER DIFFS ARG...: make installcheck against a
# server, counted; a server that crashed or leaked on the way is a failure of
# its own.
installcheck()
{
	local details=$1 server=$2 diffs=$3 status=0 failed crashes log=$HERE/installcheck.log
	shift 3
	rm -f "$diffs"
	# What the suite before this one is to blame for has been told.
	: >"$server/log"
	in_cluster "$server" "$TREE" timeout -k 10 "$SUITE_LIMIT" \
		make -s --no-print-directory -C "$SRC" installcheck with_llvm=no \
		PG_CONFIG="$TREE/bin/pg_config" "$@" >"$log" 2>&1 || status=$?
	PASSED=$((PASSED + $(grep -cE "$PASSED_LINE" "$log" || true)))
	failed=$(grep -cE "$FAILED_LINE" "$log" || true)
	((status == 0 || failed > 0)) || failed=1
	crashes=$(cluster_crashes "$server")
	[[ -z $crashes ]] || failed=$((failed + 1))
	((failed > 0)) || return 0
	FAILED=$((FAILED + failed))
	{
		grep -E "$FAILED_LINE" "$log" || true
		[[ -z $crashes ]] || printf -- '--- in the server log\n%s\n' "$crashes"
		if [[ -s $diffs && -z $crashes ]]; then
			attach "$diffs" "regression.diffs" 120
		else
			attach "$log" "what make installcheck said" 40
			attach "$server/log" "the server log" 40
		fi
	} >>"$details"
}

# expect_something FOLDER TESTS: pg_regress breaks off where a test has no
# expected output, which is how every new test begins; an empty file shows
# its output as a difference, and lets the others run.
expect_something()
{
	local name
	mkdir -p "$1"
	for name in $2; do
		compgen -G "$1/${name}*.out" >/dev/null || : >"$1/$name.out"
	done
}

preloading_server()
{
	[[ ! -e $SERVER ]] || return 0
	make_local_kek "$KEKS" platform
	start_cluster "$SERVER" "$TREE" \
		"shared_preload_libraries = 'envelope'" \
		"envelope.local_kek_directory = '$KEKS'" \
		"max_prepared_transactions = 10"
}

suite_regress()
{
	local tests
	tests=$(makefile_words REGRESS)
	if [[ -n $tests ]]; then
		expect_something "$SRC/expected" "$tests"
		with_server "$1" preloading_server "$SERVER" "$SRC/regression.diffs" \
			REGRESS="$tests" ISOLATION=
	fi
	tests=$(makefile_words REGRESS_NOPRELOAD)
	if [[ -n $tests ]]; then
		expect_something "$SRC/expected" "$tests"
		with_server "$1" plain_server "$HERE/plain" "$SRC/regression.diffs" \
			REGRESS="$tests" ISOLATION=
		stop_cluster "$HERE/plain" "$TREE"
	fi
}

plain_server() { start_cluster "$HERE/plain" "$TREE"; }

suite_isolation()
{
	local tests
	tests=$(makefile_words ISOLATION)
	[[ -n $tests ]] || return 0
	expect_something "$SRC/test/isolation/expected" "$tests"
	with_server "$1" preloading_server "$SERVER" "$SRC/output_iso/regression.diffs" \
		REGRESS= ISOLATION="$tests"
}

# with_server DETAILS START SERVER ARG...: installcheck on a server that START
# starts; not to start is one failure.
with_server()
{
	local details=$1 start=$2
	shift 2
	if "$start" >>"$details" 2>&1; then
		installcheck "$details" "$@"
	else
		FAILED=$((FAILED + 1))
	fi
}

# --- TAP ---------------------------------------------------------------------

# Which files: all of them on the oldest and the newest version, where what
# differs between versions shows; a smoke test on those between.  A file that
# says "# when: all" is for --all only.
tap_files()
{
	local file
	cd "$SRC"
	case $VERSION in
		15 | 18) find test/t -name '*.pl' ;;
		16 | 17) find test/t -name '0*_smoke*.pl' ;;
	esac 2>/dev/null | sort |
		while IFS= read -r file; do
			[[ $(script_says "$file" when) == all && $WHEN != all ]] || echo "$file"
		done
}

# One file of tests with its output in its log.  PostgreSQL's Perl modules
# want to know where they may write and which pg_regress prepares a server
# for them; one set of modules serves all versions.
tap_file()
{
	local modules
	modules=/usr/lib/postgresql/$(system_major)/lib/pgxs/src/test/perl
	TESTDIR=$SRC TESTDATADIR=$SRC/tmp_check TESTLOGDIR=$SRC/tmp_check/log \
		PG_REGRESS=$TREE/$(pgxs_programs)/test/regress/pg_regress \
		PG_TEST_PORT_DIR=$WORK/portlock \
		TEST_WHEN=$WHEN TEST_ROOT=$SRC TEST_PYTHON=$(script_python "$1") \
		in_tree "$TREE" timeout -k 10 "$FILE_LIMIT" \
		prove --verbose -I "$modules" -I test/perl "$1" \
		>"$HERE/tap/$(basename "$1").log" 2>&1 || echo "$1" >>"$HERE/tap/failed"
}

# Where the tree keeps the programs that test: beside its pgxs.mk.
pgxs_programs()
{
	realpath --relative-to "$TREE" "$(dirname "$("$TREE/bin/pg_config" --pgxs)")/.."
}

suite_tap()
{
	local file
	mkdir -p "$HERE/tap" "$SRC/tmp_check/log" "$WORK/portlock"
	cd "$SRC"
	# Two at a time: many tests wait rather than work.
	for file in $(tap_files); do
		while (($(jobs -rp | wc -l) >= 2)); do
			wait -n || true
		done
		tap_file "$file" &
	done
	wait
	for file in $(tap_files); do
		count_tap "$1" "$file" "$HERE/tap/$(basename "$file").log"
	done
}

# count_tap DETAILS NAME LOG: add up one script's assertions; one that died
# without a failed assertion has failed all the same.
count_tap()
{
	local details=$1 name=$2 log=$3 failed
	PASSED=$((PASSED + $(grep -cE '^ok [0-9]+' "$log" || true)))
	failed=$(grep -E '^not ok [0-9]+' "$log" | grep -cv '# TODO' || true)
	if ((failed == 0)) && grep -qxF "$name" "$HERE/tap/failed" 2>/dev/null; then
		failed=1
	fi
	((failed > 0)) || return 0
	FAILED=$((FAILED + failed))
	{
		echo "--- $name"
		grep -E '^not ok [0-9]+' "$log" || true
		grep -vE '^ok [0-9]+' "$log" | tail -n 40
	} >>"$details"
}

# --- the scripts in test/suites ----------------------------------------------

# Besides what it needs (script_needs) a script says "# majors: 15 18", and
# "# when: all" if it is for --all only.  It is run with the tree's programs
# in PATH and PG_CONFIG, and finds in its environment
#   MAJOR        the version
#   TEST_WHEN    all or default: how much there is time for
#   TEST_ROOT    the sources, built; its working folder
#   TEST_TREE    the tree, with the module installed
#   TEST_FOLDER  an empty folder for what it writes
#   TEST_PYTHON  the programs of the virtual environment it asked for
# It prints TAP: "ok N - what" and "not ok N - what".

script_applies()
{
	local when
	[[ " $(script_says "$1" majors) " == *" $VERSION "* ]] || return 1
	when=$(script_says "$1" when)
	[[ ${when:-always} == always || $WHEN == all ]]
}

suite_script()
{
	local details=$1 script=$2 name status=0 log
	name=$(basename "$script" .sh)
	log=$HERE/$name.log
	mkdir -p "$HERE/$name" "$HERE/tap"
	(
		cd "$SRC"
		MAJOR=$VERSION TEST_WHEN=$WHEN TEST_ROOT=$SRC TEST_TREE=$TREE TEST_FOLDER=$HERE/$name \
			TEST_PYTHON=$(script_python "$script") \
			in_tree "$TREE" timeout -k 10 "$SUITE_LIMIT" bash "$script"
	) >"$log" 2>&1 || status=$?
	((status == 0)) || echo "$name" >>"$HERE/tap/failed"
	count_tap "$details" "$name" "$log"
}

# --- all of them -------------------------------------------------------------

main()
{
	local script
	mkdir -p "$HERE"
	if wanted build; then
		suite build suite_build
	else
		suite build build_for_suites
	fi
	if [[ ! -e $("$TREE/bin/pg_config" --pkglibdir)/envelope.so ]]; then
		return 0
	fi
	! wanted regress || suite regress suite_regress
	! wanted isolation || suite isolation suite_isolation
	[[ ! -e $SERVER ]] || stop_cluster "$SERVER" "$TREE"
	! wanted tap || suite tap suite_tap
	for script in "$SRC"/test/suites/*.sh; do
		if [[ ! -e $script ]] || ! script_applies "$script"; then
			continue
		fi
		! wanted "$(basename "$script" .sh)" ||
			suite "$(basename "$script" .sh)" suite_script "$script"
	done
}

main
