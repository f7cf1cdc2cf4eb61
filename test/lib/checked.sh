# shellcheck shell=bash
#
# pg_regress and the isolation tests on a server whose programs a checker
# watches; for scripts in test/suites, which read
#
#   checked_build [VAR=VALUE...]
#   checked_server COMMAND...
#   checked_run NAME [VAR=VALUE...]
#   checked_tap FILE
#   checked_report "what there must be none of" LINES
#
# All is in $TEST_FOLDER; TAP is printed.

checked_tree=$TEST_FOLDER/pg
checked_sources=$TEST_FOLDER/src
checked_cluster=$TEST_FOLDER/server
checked_number=0

# checked_build [VAR=VALUE...]: build the module anew, with these for make,
# into a copy of the tree.
checked_build()
{
	mkdir -p "$checked_tree" "$checked_sources"
	cp -R "$TEST_TREE/." "$checked_tree"
	tar -C "$TEST_ROOT" -cf - Makefile envelope.control src sql expected test |
		tar -C "$checked_sources" -xf -
	find "$checked_sources/src" -name '*.o' -delete
	build_into "$checked_tree" "$checked_sources" "$@"
}

# checked_server COMMAND...: start a server whose every process COMMAND runs.
# The program steps aside for a script, as pg_ctl and make know its name.  What
# initdb runs is PostgreSQL alone, and would take minutes.  Tests take so long that
# autovacuum would come and change their plans.
checked_server()
{
	local program=$checked_tree/bin/postgres
	mv "$program" "$program-bare"
	cat >"$program" <<-END
		#!/bin/sh
		case \$1 in
			-V | --version | --check | --boot | --single) exec "$program-bare" "\$@" ;;
		esac
		exec $* "$program-bare" "\$@"
	END
	chmod 755 "$program"
	make_local_kek "$TEST_FOLDER/keks" platform
	start_cluster "$checked_cluster" "$checked_tree" \
		"shared_preload_libraries = 'envelope'" \
		"envelope.local_kek_directory = '$TEST_FOLDER/keks'" \
		"max_prepared_transactions = 10" \
		"autovacuum = off"
	trap 'stop_cluster "$checked_cluster" "$checked_tree"' EXIT
}

# checked_run NAME [VAR=VALUE...]: make installcheck, whose TAP passes through.
checked_run()
{
	local name=$1 log=$TEST_FOLDER/$1.log status=0
	shift
	in_cluster "$checked_cluster" "$checked_tree" \
		make -s -k --no-print-directory -C "$checked_sources" installcheck with_llvm=no \
		PG_CONFIG="$checked_tree/bin/pg_config" "$@" >"$log" 2>&1 || status=$?
	grep -E '^(not )?ok ' "$log" || true
	checked_number=$((checked_number + 1))
	if ((status == 0)); then
		echo "ok $checked_number - $name has run"
	else
		echo "not ok $checked_number - $name has run"
		find "$checked_sources" -name regression.diffs -exec tail -n 80 {} + | sed 's/^/# /'
		tail -n 20 "$log" | sed 's/^/# /'
	fi
}

# checked_tap FILE: a TAP test, whose servers are watched in the same way.
checked_tap()
{
	local data=$TEST_FOLDER/tap
	mkdir -p "$data/log"
	(
		cd "$checked_sources"
		TESTDIR=$data TESTDATADIR=$data TESTLOGDIR=$data/log PG_TEST_PORT_DIR=$data \
			PG_REGRESS=$(dirname "$("$checked_tree/bin/pg_config" --pgxs)")/../test/regress/pg_regress \
			in_tree "$checked_tree" prove --verbose \
			-I "/usr/lib/postgresql/$(system_major)/lib/pgxs/src/test/perl" -I test/perl "$1" 2>&1
	) || echo "not ok - $1 has run"
}

# checked_report WHAT LINES: LINES, what the checker found, must be empty.
checked_report()
{
	checked_number=$((checked_number + 1))
	if [[ -z $2 ]]; then
		echo "ok $checked_number - no $1"
	else
		echo "not ok $checked_number - no $1"
		head -n 100 <<<"$2" | sed 's/^/# /'
	fi
}
