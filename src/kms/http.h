/*-------------------------------------------------------------------------
 *
 * http.h
 *	  HTTP requests of the worker, many at once.
 *
 *-------------------------------------------------------------------------
 */
#ifndef ENVELOPE_HTTP_H
#define ENVELOPE_HTTP_H

#include "kms/buffer.h"

#define HTTP_HEADER_MAX		128
#define HTTP_PROBLEM_MAX	192

/* What to send.  Zero sends nothing. */
typedef struct HttpRequest
{
	const char *method;			/* NULL: nothing is sent */
	int			delay_ms;		/* then the answer waits; -1 for ever */
	SecretBuffer url;
	SecretBuffer headers;		/* "Name: value" and a line feed, each */
	SecretBuffer body;			/* of POST and PUT */
	bool		metadata;		/* to a service of the machine itself */

	/* Signed by AWS Signature Version 4, if sigv4 is not empty */
	SecretBuffer sigv4;			/* aws:amz:REGION:SERVICE */
	SecretBuffer access_key;
	SecretBuffer secret_key;

	/* TLS */
	SecretBuffer ca_file;		/* else envelope.ca_file, else what the system
								 * trusts */
	SecretBuffer client_cert;	/* files */
	SecretBuffer client_key;
} HttpRequest;

/* What came back */
typedef struct HttpReply
{
	bool		answered;		/* a whole reply was read */
	bool		timed_out;
	char		problem[HTTP_PROBLEM_MAX];	/* why not; no secret */
	long		status;
	SecretBuffer body;
	char		content_type[HTTP_HEADER_MAX];
	char		request_id[HTTP_HEADER_MAX];
	char		error_type[HTTP_HEADER_MAX];
	int64		date;			/* the server's clock, epoch; 0 unknown */
} HttpReply;

/* One at a time; zero is ready to be used */
typedef struct HttpExchange
{
	HttpRequest request;
	HttpReply	reply;
	bool		done;			/* the reply is there */
	void	   *handle;			/* of curl; NULL while nothing is under way */
	void	   *header_list;
} HttpExchange;

extern int	http_start(int wanted);
extern int	http_wait_fd(void);
extern int64 http_next_due(void);
extern void http_drive(void);
extern void http_run(HttpExchange *exchange, int connect_ms, int attempt_ms);
extern void http_reset(HttpExchange *exchange);

/* kms/request.c */
extern void http_request_reset(HttpRequest *request);
extern bool http_request_failed(const HttpRequest *request);
extern void http_header(HttpRequest *request, const char *name, const char *value);
extern void http_bearer(HttpRequest *request, const char *token);
extern bool url_is_allowed(const char *url, bool metadata);
extern bool url_host(const char *url, char *host, size_t size);
extern bool host_is_loopback(const char *host);

#endif							/* ENVELOPE_HTTP_H */
