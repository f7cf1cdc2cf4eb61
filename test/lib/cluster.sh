# shellcheck shell=bash
#
# Throwaway servers.  A server is a folder: data in FOLDER/data, its log in
# FOLDER/log, its socket in FOLDER itself; it listens on no network address.
# So any number of them run side by side, and none meets the system's own.

# make_local_kek FOLDER NAME: a local KEK, version 1, in a folder for
# envelope.local_kek_directory, with the permissions the module asks for.
make_local_kek()
{
	mkdir -p "$1"
	chmod 700 "$1"
	head -c 32 /dev/urandom >"$1/$2.1.key"
	chmod 600 "$1/$2.1.key"
	give_to_tester "$1"
}

# start_cluster FOLDER TREE [LINE...]: make and start a server with the
# programs of TREE and these lines in its configuration.  Returns when it
# accepts connections; its superuser is postgres, and asks for no password.
start_cluster()
{
	local folder=$1 tree=$2
	shift 2
	mkdir -p "$folder"
	give_to_tester "$folder"
	quietly "$folder/initdb.log" in_tree "$tree" as_tester initdb -D "$folder/data" \
		-U postgres -A trust --no-locale --encoding UTF8 --no-sync ||
		return
	# fsync: the server's life is shorter than any power failure.
	printf '%s\n' "listen_addresses = ''" "unix_socket_directories = '$folder'" \
		"port = 5432" "fsync = off" "$@" >>"$folder/data/postgresql.conf"
	restart_cluster "$folder" "$tree"
}

# restart_cluster FOLDER TREE: start a server, stopping it first if it runs.
restart_cluster()
{
	stop_cluster "$1" "$2"
	in_tree "$2" as_tester pg_ctl -D "$1/data" -l "$1/log" -w -s start && return
	show_tail "$1/log" 20
	return 1
}

# stop_cluster FOLDER TREE: does nothing when the server does not run.
stop_cluster()
{
	[[ ! -e $1/data/postmaster.pid ]] ||
		in_tree "$2" as_tester pg_ctl -D "$1/data" -m fast -w -s stop
}

# in_cluster FOLDER TREE COMMAND...: run a client of that server.
in_cluster()
{
	local folder=$1 tree=$2
	shift 2
	PGHOST=$folder PGPORT=5432 PGUSER=postgres in_tree "$tree" as_tester "$@"
}

# cluster_psql FOLDER TREE [ARG...]: psql on that server, that stops at errors.
cluster_psql()
{
	local folder=$1 tree=$2
	shift 2
	in_cluster "$folder" "$tree" psql -X -v ON_ERROR_STOP=1 -d postgres "$@"
}

# cluster_crashes FOLDER: the lines of a server's log that no test may cause.
cluster_crashes()
{
	grep -E 'PANIC:|TRAP:|was terminated by signal|WARNING:.*(leak|still referenced|refcount|still active)' \
		"$1/log" || true
}
