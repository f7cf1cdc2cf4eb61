/*-------------------------------------------------------------------------
 *
 * http.c
 *	  HTTP requests of the worker, many at once, by libcurl.
 *
 * The only user of libcurl.  All transfers run in one multi handle, whose
 * sockets are gathered in an epoll descriptor of our own: the worker waits for
 * that, its latch and the next timer in one call, then has http_drive take up
 * what has happened.  An exchange that has ended is marked done; nobody is
 * called back.
 *
 * TLS is always verified.  Plain HTTP goes to loopback and to the machine's
 * metadata services and nowhere else; the latter never go through a proxy.
 * Redirects are not followed: no KMS sends one, and whoever else does must not
 * get what was meant for it.
 *
 * Secrets: bodies and headers are wiped when an exchange is reset.  What curl
 * copies for itself stays in this process, whose memory is never dumped.
 *
 * Handles are made once and reset to curl's defaults after each transfer, so
 * that nothing of one is left for the next, which may be shown to another host.
 *
 * curl calls us back while it runs: such functions return codes and do not
 * throw.  Its resolver starts threads, which inherit the mask of signals, so
 * that all are blocked around every call that may start one, or end one (adding
 * a transfer does neither): a signal of the postmaster must be taken by the main
 * thread.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <ctype.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>

#include <curl/curl.h>

#include "utils/memutils.h"

#include "compat.h"
#include "crypto/secret.h"
#include "kms/http.h"
#include "settings.h"

/* No reply of a KMS comes near this. */
#define REPLY_MAX			(64 * 1024)
/* Connections end at these ages, so that changes of DNS are seen. */
#define IDLE_S				50L
#define LIFETIME_S			300L

/*
 * The descriptors that a transfer may need: its connection, another one that is
 * kept for later, and while a name is looked up a pair of the resolver's and
 * what that asks by.
 */
#define FDS_PER_TRANSFER	5
/* Those of the process itself, and of fetches of credentials */
#define FDS_OTHER			64

static CURLM *multi = NULL;
static int	epoll_fd = -1;
static int64 timer_due = PG_INT64_MAX;	/* boottime_ms() */

/* Handles that are not in use */
static CURL **spare = NULL;
static int	nspare = 0;
static int	spare_max = 0;

static void
block_signals(sigset_t *before)
{
	sigset_t	all;

	sigfillset(&all);
	(void) pthread_sigmask(SIG_BLOCK, &all, before);
}

static void
unblock_signals(const sigset_t *before)
{
	(void) pthread_sigmask(SIG_SETMASK, before, NULL);
}

/*
 * CURLMOPT_SOCKETFUNCTION: what curl wants to know of a socket has changed.  Of
 * one that is watched already curl gives the mark back.
 */
static int
watch_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
	struct epoll_event event = {0};
	static int	mark;

	event.data.fd = fd;
	if (what == CURL_POLL_REMOVE)
	{
		(void) epoll_ctl(epoll_fd, EPOLL_CTL_DEL, fd, &event);
		return 0;
	}
	if (what & CURL_POLL_IN)
		event.events |= EPOLLIN;
	if (what & CURL_POLL_OUT)
		event.events |= EPOLLOUT;
	if (known)
		return epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &event);
	if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event) != 0 &&
		epoll_ctl(epoll_fd, EPOLL_CTL_MOD, fd, &event) != 0)
		return -1;
	(void) curl_multi_assign(multi, fd, &mark);
	return 0;
}

/* CURLMOPT_TIMERFUNCTION */
static int
set_timer(CURLM *handle, long timeout_ms, void *arg)
{
	timer_due = timeout_ms < 0 ? PG_INT64_MAX : boottime_ms() + timeout_ms;
	return 0;
}

/*
 * How many of so many transfers can run at once, as far as the limit of open
 * files goes: one that ran into it would look as if the KMS had failed.
 */
static int
transfers_possible(int wanted)
{
	struct rlimit limit;
	int			possible = wanted;

	if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
		limit.rlim_cur < FDS_OTHER + (rlim_t) FDS_PER_TRANSFER * wanted)
	{
		possible = Max(1, ((int) limit.rlim_cur - FDS_OTHER) / FDS_PER_TRANSFER);
		ereport(LOG,
				(errmsg("envelope: %d instead of %d KMS calls can run at once, since the worker may have only %d files open",
						possible, wanted, (int) limit.rlim_cur),
				 errhint("Raise the limit on open files, or lower envelope.kms_connections.")));
	}
	return possible;
}

/*
 * Called once in the life of the process; ERROR where the system lacks what it
 * takes.  Returns how many of so many transfers may run at once.
 */
int
http_start(int wanted)
{
	sigset_t	before;
	bool		ok;
	int			possible = transfers_possible(wanted);

	spare = MemoryContextAlloc(TopMemoryContext, possible * sizeof(CURL *));
	spare_max = possible;

	epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (epoll_fd < 0)
		elog(ERROR, "could not make an epoll descriptor: %m");

	block_signals(&before);
	ok = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK &&
		(multi = curl_multi_init()) != NULL;
	if (ok)
	{
		(void) curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, watch_socket);
		(void) curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, set_timer);
		(void) curl_multi_setopt(multi, CURLMOPT_PIPELINING, (long) CURLPIPE_NOTHING);
		(void) curl_multi_setopt(multi, CURLMOPT_MAXCONNECTS, (long) possible);
	}
	unblock_signals(&before);
	if (!ok)
		elog(ERROR, "could not start libcurl");
	return possible;
}

/* What to wait for: readable when there is something to drive */
int
http_wait_fd(void)
{
	return epoll_fd;
}

/* When to drive at the latest, boottime_ms() */
int64
http_next_due(void)
{
	return timer_due;
}

/* CURLOPT_WRITEFUNCTION */
static size_t
take_body(char *bytes, size_t size, size_t n, void *arg)
{
	HttpExchange *exchange = arg;

	if (exchange->reply.body.len + size * n > REPLY_MAX)
		return 0;
	buffer_append(&exchange->reply.body, bytes, size * n);
	return exchange->reply.body.failed ? 0 : size * n;
}

/* Take a header's value if it has this name. */
static void
take_value(const char *line, size_t len, const char *name, char *value)
{
	size_t		name_len = strlen(name);

	if (len <= name_len || line[name_len] != ':' ||
		pg_strncasecmp(line, name, name_len) != 0)
		return;
	line += name_len + 1;
	len -= name_len + 1;
	while (len > 0 && (*line == ' ' || *line == '\t'))
	{
		line++;
		len--;
	}
	while (len > 0 && isspace((unsigned char) line[len - 1]))
		len--;
	if (len >= HTTP_HEADER_MAX)
		len = HTTP_HEADER_MAX - 1;
	memcpy(value, line, len);
	value[len] = '\0';
}

/* CURLOPT_HEADERFUNCTION */
static size_t
take_header(char *line, size_t size, size_t n, void *arg)
{
	HttpReply  *reply = &((HttpExchange *) arg)->reply;
	size_t		len = size * n;
	char		date[HTTP_HEADER_MAX] = "";

	take_value(line, len, "content-type", reply->content_type);
	take_value(line, len, "x-amzn-requestid", reply->request_id);
	take_value(line, len, "x-amzn-errortype", reply->error_type);
	take_value(line, len, "date", date);
	if (date[0] != '\0')
		reply->date = Max(0, (int64) curl_getdate(date, NULL));
	return len;
}

/* Say in the reply that there is none. */
static void
no_reply(HttpExchange *exchange, const char *why)
{
	char		host[256];

	if (!url_host(buffer_text(&exchange->request.url), host, sizeof(host)))
		strlcpy(host, "?", sizeof(host));
	exchange->reply.answered = false;
	snprintf(exchange->reply.problem, sizeof(exchange->reply.problem),
			 "%.100s: %s", host, why);
	exchange->done = true;
}

/* Make the list of headers as curl wants them; false where memory ran out. */
static bool
make_header_list(HttpExchange *exchange)
{
	struct curl_slist *list = NULL;
	char	   *line = exchange->request.headers.data;
	char	   *end;

	while (line && (end = strchr(line, '\n')) != NULL)
	{
		struct curl_slist *longer;

		*end = '\0';
		longer = curl_slist_append(list, line);
		*end = '\n';
		if (longer == NULL)
			return false;
		exchange->header_list = list = longer;
		line = end + 1;
	}
	return true;
}

/* How a handle speaks TLS, and through what */
static void
set_transport(CURL *easy, HttpRequest *request)
{
	const char *url = buffer_text(&request->url);
	const char *ca_file = request->ca_file.len > 0 ? request->ca_file.data : envelope_ca_file;
	char		host[256];

	(void) curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
	(void) curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
	(void) curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);
	if (ca_file && ca_file[0] != '\0')
	{
		/* Instead of what the system trusts, of which libcurl has two. */
		(void) curl_easy_setopt(easy, CURLOPT_CAINFO, ca_file);
		(void) curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
	}
	if (request->client_cert.len > 0)
	{
		(void) curl_easy_setopt(easy, CURLOPT_SSLCERT, request->client_cert.data);
		(void) curl_easy_setopt(easy, CURLOPT_SSLKEY, buffer_text(&request->client_key));
	}
	/* What a proxy says of itself is not said by whom we ask. */
	(void) curl_easy_setopt(easy, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
	if (request->metadata ||
		(url_host(url, host, sizeof(host)) && host_is_loopback(host)))
		(void) curl_easy_setopt(easy, CURLOPT_PROXY, "");
}

/* Everything a handle has to know */
static bool
set_options(CURL *easy, HttpExchange *exchange, int connect_ms, int attempt_ms)
{
	HttpRequest *request = &exchange->request;
	bool		with_body = strcmp(request->method, "GET") != 0;

	(void) curl_easy_setopt(easy, CURLOPT_PRIVATE, exchange);
	(void) curl_easy_setopt(easy, CURLOPT_USERAGENT, "envelope");
	(void) curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
	(void) curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L);
	(void) curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
	(void) curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);
	(void) curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "https,http");
	(void) curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long) connect_ms);
	(void) curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long) attempt_ms);
	(void) curl_easy_setopt(easy, CURLOPT_MAXAGE_CONN, IDLE_S);
	(void) curl_easy_setopt(easy, CURLOPT_MAXLIFETIME_CONN, LIFETIME_S);
	(void) curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_body);
	(void) curl_easy_setopt(easy, CURLOPT_WRITEDATA, exchange);
	(void) curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, take_header);
	(void) curl_easy_setopt(easy, CURLOPT_HEADERDATA, exchange);
	set_transport(easy, request);

	if (with_body)
	{
		(void) curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE, (long) request->body.len);
		if (curl_easy_setopt(easy, CURLOPT_COPYPOSTFIELDS,
							 buffer_text(&request->body)) != CURLE_OK)
			return false;
		if (strcmp(request->method, "POST") != 0)
			(void) curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method);
	}
	if (request->sigv4.len > 0 &&
		(curl_easy_setopt(easy, CURLOPT_AWS_SIGV4, request->sigv4.data) != CURLE_OK ||
		 curl_easy_setopt(easy, CURLOPT_USERNAME, buffer_text(&request->access_key)) != CURLE_OK ||
		 curl_easy_setopt(easy, CURLOPT_PASSWORD, buffer_text(&request->secret_key)) != CURLE_OK))
		return false;
	return curl_easy_setopt(easy, CURLOPT_HTTPHEADER, exchange->header_list) == CURLE_OK &&
		curl_easy_setopt(easy, CURLOPT_URL, request->url.data) == CURLE_OK;
}

static CURL *
take_handle(void)
{
	return nspare > 0 ? spare[--nspare] : curl_easy_init();
}

/* Forget everything that a handle was told, and keep it. */
static void
give_back_handle(CURL *easy)
{
	(void) curl_multi_remove_handle(multi, easy);
	if (nspare == spare_max)
	{
		curl_easy_cleanup(easy);
		return;
	}
	curl_easy_reset(easy);
	spare[nspare++] = easy;
}

/* End the transfer of an exchange; what was read stays. */
static void
end_transfer(HttpExchange *exchange)
{
	if (exchange->handle)
		give_back_handle(exchange->handle);
	if (exchange->header_list)
	{
		for (struct curl_slist *line = exchange->header_list; line; line = line->next)
			secret_wipe(line->data, strlen(line->data));
		curl_slist_free_all(exchange->header_list);
	}
	exchange->handle = NULL;
	exchange->header_list = NULL;
}

/*
 * Send exchange->request.  exchange->done tells when it has ended, at once
 * where it could not be sent.
 */
void
http_run(HttpExchange *exchange, int connect_ms, int attempt_ms)
{
	bool		sent;

	Assert(exchange->handle == NULL && !exchange->done);
	if (http_request_failed(&exchange->request) ||
		!url_is_allowed(buffer_text(&exchange->request.url), exchange->request.metadata))
	{
		no_reply(exchange, http_request_failed(&exchange->request) ?
				 "the request could not be put together" :
				 "not asked: it is neither https nor this machine");
		return;
	}

	exchange->handle = take_handle();
	sent = exchange->handle && make_header_list(exchange) &&
		set_options(exchange->handle, exchange, connect_ms, attempt_ms) &&
		curl_multi_add_handle(multi, exchange->handle) == CURLM_OK;
	if (!sent)
	{
		end_transfer(exchange);
		no_reply(exchange, "the request could not be sent");
	}
}

/* Take note of how a transfer ended. */
static void
take_result(HttpExchange *exchange, CURLcode code)
{
	HttpReply  *reply = &exchange->reply;

	if (code == CURLE_OK)
	{
		(void) curl_easy_getinfo(exchange->handle, CURLINFO_RESPONSE_CODE, &reply->status);
		reply->answered = true;
		exchange->done = true;
	}
	else
	{
		reply->timed_out = code == CURLE_OPERATION_TIMEDOUT;
		no_reply(exchange, code == CURLE_WRITE_ERROR ? "the reply is too long" :
				 curl_easy_strerror(code));
	}
	end_transfer(exchange);
}

/*
 * Take up what has happened on the sockets, and to the clock.
 */
void
http_drive(void)
{
	struct epoll_event events[64];
	sigset_t	before;
	CURLMsg    *message;
	int			nevents = epoll_wait(epoll_fd, events, lengthof(events), 0);
	int			left;
	int			running;

	block_signals(&before);
	for (int i = 0; i < nevents; i++)
	{
		int			what = 0;

		if (events[i].events & (EPOLLIN | EPOLLHUP))
			what |= CURL_CSELECT_IN;
		if (events[i].events & EPOLLOUT)
			what |= CURL_CSELECT_OUT;
		if (events[i].events & EPOLLERR)
			what |= CURL_CSELECT_ERR;
		(void) curl_multi_socket_action(multi, events[i].data.fd, what, &running);
	}
	if (boottime_ms() >= timer_due)
	{
		timer_due = PG_INT64_MAX;
		(void) curl_multi_socket_action(multi, CURL_SOCKET_TIMEOUT, 0, &running);
	}
	while ((message = curl_multi_info_read(multi, &left)) != NULL)
	{
		HttpExchange *exchange = NULL;
		CURLcode	code = message->data.result;

		if (message->msg != CURLMSG_DONE)
			continue;
		(void) curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE,
								 (char **) &exchange);
		take_result(exchange, code);
	}
	unblock_signals(&before);
}

/*
 * End what is under way, wipe what was sent and received, and be ready for the
 * next.
 */
void
http_reset(HttpExchange *exchange)
{
	sigset_t	before;

	if (exchange->handle)
	{
		block_signals(&before);
		end_transfer(exchange);
		unblock_signals(&before);
	}
	http_request_reset(&exchange->request);
	buffer_reset(&exchange->reply.body);
	memset(exchange, 0, sizeof(*exchange));
}
