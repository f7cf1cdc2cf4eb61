# shellcheck shell=bash
#
# What test/run, test/demo and bench/run share: source this file and get
#
#   this file     talking, the unprivileged user, the work folder, its processes
#   packages.sh   installing what is missing
#   trees.sh      a private PostgreSQL of any version, the module built into it
#   cluster.sh    throwaway servers
#
# A script that wants a server of its own reads, in full:
#
#   source test/lib/common.sh
#   ensure_packages
#   work_folder demo
#   tree=$WORK/pg
#   tree_for 15 "$tree"
#   copy_sources "$WORK/src"
#   build_into "$tree" "$WORK/src"
#   make_local_kek "$WORK/keks" platform
#   start_cluster "$WORK/server" "$tree" \
#       "shared_preload_libraries = 'envelope'" \
#       "envelope.local_kek_directory = '$WORK/keks'"
#   cluster_psql "$WORK/server" "$tree" -c 'CREATE EXTENSION envelope'
#
# and leaves nothing behind: when it exits, whatever way, its processes are
# ended and its work folder is removed.
#
# PostgreSQL refuses to run as root.  Root's scripts may call all of these
# functions: those that start a server's programs do so as an unprivileged
# user (as_tester), to whom the work folder belongs.

ENVELOPE_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# The major versions that are supported, oldest first.
# shellcheck disable=SC2034  # for the scripts that source this file
SUPPORTED_MAJORS=(15 16 17 18)

# How long to wait for processes to end when asked, in tenths of a second.
END_PATIENCE=100

# --- talking -----------------------------------------------------------------

say() { printf '%s\n' "$*"; }

note() { printf '# %s\n' "$*" >&2; }

die()
{
	printf 'error: %s\n' "$*" >&2
	exit 1
}

# quietly LOG COMMAND...: run it with its output kept in LOG, which is shown
# only when the command fails.  Returns the command's status.
quietly()
{
	local log=$1 status=0
	shift
	"$@" >"$log" 2>&1 || status=$?
	if ((status != 0)); then
		note "failed with status $status: $*"
		show_tail "$log" 40
	fi
	return "$status"
}

# show_tail FILE LINES: the end of a file on stderr, set off from what is ours.
show_tail()
{
	[[ -s $1 ]] || return 0
	printf '# --- the last lines of %s\n' "$1" >&2
	tail -n "$2" "$1" | sed 's/^/    /' >&2
}

# --- users -------------------------------------------------------------------

is_root() { [[ $(id -u) == 0 ]]; }

# as_root COMMAND...: for installing packages, and for nothing else.
as_root()
{
	if is_root; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		die "installing packages needs root or sudo (wanted: $*)"
	fi
}

# The user that runs servers and tests: the caller, unless that is root.
tester()
{
	if ! is_root; then
		id -un
	elif id postgres >/dev/null 2>&1; then
		echo postgres
	else
		echo nobody
	fi
}

# as_tester COMMAND...: run it as the user that runs servers.  setpriv
# replaces itself by the command, so that a background job's pid is the
# command's.
as_tester()
{
	if is_root; then
		HOME=${WORK:-/nonexistent} setpriv --reuid="$(tester)" \
			--regid="$(id -g "$(tester)")" --init-groups -- "$@"
	else
		"$@"
	fi
}

# give_to_tester PATH...: hand files made by root to the user of the tests.
give_to_tester()
{
	! is_root || chown -R -h "$(tester):" "$@"
}

# --- the work folder ---------------------------------------------------------

# work_folder NAME: make a folder of this run's own and export it as WORK, see
# to its removal and to the end of every process started from here on.  With
# KEEP_WORK set the folder stays, but no process does.  The path is short
# because sockets live below it, and those may have 107 bytes.
work_folder()
{
	# World-searchable, for the server's user must reach its own folders
	# whatever root's umask is.
	umask 022
	WORK=$(realpath "$(mktemp -d "${TMPDIR:-/tmp}/envelope-$1.XXXXXX")")
	chmod 755 "$WORK"
	export WORK
	mkdir "$WORK/tmp"
	export TMPDIR=$WORK/tmp
	give_to_tester "$WORK"
	# Programs complain where the tests' user, who runs them, may not be.
	[[ -z ${ENVELOPE_TEST_CACHE:-} ]] ||
		ENVELOPE_TEST_CACHE=$(realpath -m "$ENVELOPE_TEST_CACHE")
	cd "$WORK"
	forget_caller
	trap leave EXIT
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 143' TERM
}

# The caller's own PostgreSQL and compiler settings must not reach the tests.
forget_caller()
{
	local name
	for name in "${!PG@}" MAKEFLAGS MAKELEVEL MFLAGS CC CFLAGS COPT CPPFLAGS \
		LDFLAGS LANGUAGE LD_PRELOAD LD_LIBRARY_PATH PERL5LIB; do
		unset "$name"
	done
	export LC_ALL=C TZ=UTC
	# Root's own folders are closed to the tests' user.
	! is_root || export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
}

leave()
{
	local status=$?
	trap - EXIT
	trap '' HUP INT TERM
	end_processes "$WORK"
	if [[ -z ${KEEP_WORK:-} ]]; then
		# From inside, a removed folder is a trap for whoever is still in it.
		cd /
		rm -rf "$WORK"
	fi
	exit "$status"
}

# processes_of FOLDER: the pids of the processes that belong to the run whose
# work folder this is.  A server's working folder is its data directory; what
# else was started has WORK in its environment.  (This shell has not: what
# the kernel shows is the environment it was started with.)
processes_of()
{
	local proc pid
	for proc in /proc/[0-9]*; do
		pid=${proc#/proc/}
		[[ $pid != "$$" && $pid != "$BASHPID" ]] || continue
		if [[ $(readlink "$proc/cwd" 2>/dev/null) == "$1"/* ]] ||
			tr '\0' '\n' 2>/dev/null <"$proc/environ" | grep -qxF "WORK=$1"; then
			echo "$pid"
		fi
	done 2>/dev/null
}

# Postmasters first, by a fast shutdown, so that no child is mourned as a
# crash and no shared memory stays; then the rest, politely, then not.
end_processes()
{
	local signal pids
	for signal in INT TERM KILL; do
		if [[ $signal == INT ]]; then
			pids=$(postmasters_of "$1")
		else
			pids=$(processes_of "$1")
		fi
		[[ -n $pids ]] || continue
		# shellcheck disable=SC2086  # a list of numbers
		kill -"$signal" $pids 2>/dev/null || true
		# shellcheck disable=SC2086
		await have_ended $pids
	done
}

# A file may outlive its postmaster, whose number may be somebody else's now.
postmasters_of()
{
	local file pid
	while IFS= read -r file; do
		pid=$(head -n 1 "$file" 2>/dev/null) || continue
		[[ $(readlink "/proc/$pid/cwd") != "$1"/* ]] || echo "$pid"
	done < <(find "$1" -name postmaster.pid 2>/dev/null)
}

have_ended()
{
	local pid
	for pid in "$@"; do
		[[ ! -e /proc/$pid ]] || return 1
	done
}

# await CONDITION...: wait for it to become true, but not for ever.
await()
{
	local tries=0
	until "$@" || ((tries++ >= END_PATIENCE)); do
		sleep 0.1
	done
}

# --- sources -----------------------------------------------------------------

# copy_sources FOLDER: the working tree as git sees it (tracked files with
# their changes, and new ones), without what an earlier make left in it.  The
# tests build and run in copies: the checkout may be unreadable to the
# server's user, and four versions cannot share one set of object files.
copy_sources()
{
	local path
	mkdir -p "$1"
	if [[ -e $ENVELOPE_ROOT/.git ]]; then
		# What is deleted but not yet committed is still listed.
		git -c safe.directory='*' -C "$ENVELOPE_ROOT" \
			ls-files -z --cached --others --exclude-standard |
			while IFS= read -r -d '' path; do
				[[ ! -e $ENVELOPE_ROOT/$path ]] || printf '%s\0' "$path"
			done |
			tar -C "$ENVELOPE_ROOT" --null -T - -cf - | tar -C "$1" --no-same-owner -xf -
	else
		tar -C "$ENVELOPE_ROOT" -cf - . | tar -C "$1" --no-same-owner -xf -
	fi
	give_to_tester "$1"
}

# shellcheck source=test/lib/packages.sh
source "$ENVELOPE_ROOT/test/lib/packages.sh"
# shellcheck source=test/lib/trees.sh
source "$ENVELOPE_ROOT/test/lib/trees.sh"
# shellcheck source=test/lib/cluster.sh
source "$ENVELOPE_ROOT/test/lib/cluster.sh"
# shellcheck source=test/lib/source.sh
source "$ENVELOPE_ROOT/test/lib/source.sh"

# in_new_shell FUNCTION [ARG...]: call a function of these files in a process
# of its own, where the first command that fails ends it.  (In this shell that
# would depend on how the caller was called: "f || g" makes f go on.)
in_new_shell() { bash "$ENVELOPE_ROOT/test/lib/common.sh" "$@"; }

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
	set -euo pipefail
	"$@"
fi
