/*-------------------------------------------------------------------------
 *
 * request.c
 *	  What is known of a request to a KMS without sending it.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "kms/http.h"

/*
 * The host of a URL with its port, if it names one, in lower case; false where
 * it does not fit or there is none.
 */
bool
url_host(const char *url, char *host, size_t size)
{
	const char *start = strstr(url, "://");
	size_t		len;

	if (start == NULL)
		return false;
	start += 3;
	len = strcspn(start, "/?#");
	if (len == 0 || len >= size || memchr(start, '@', len) != NULL)
		return false;
	memset(host, 0, size);
	for (size_t i = 0; i < len; i++)
		host[i] = pg_tolower((unsigned char) start[i]);
	return true;
}

/* Does a host, with or without a port, consist of a name and that alone? */
static bool
host_is(const char *host, const char *name)
{
	size_t		len = strlen(name);

	return strncmp(host, name, len) == 0 &&
		(host[len] == '\0' ||
		 (host[len] == ':' && strspn(host + len + 1, "0123456789") == strlen(host + len + 1)));
}

/* Is it this machine, by an address or name that nobody can point elsewhere? */
bool
host_is_loopback(const char *host)
{
	return host_is(host, "127.0.0.1") || host_is(host, "[::1]") ||
		host_is(host, "localhost");
}

/*
 * May a URL be asked?  https may, http to loopback; and, by who asks the
 * machine's own metadata services, http to these.
 */
bool
url_is_allowed(const char *url, bool metadata)
{
	static const char *const services[] = {
		"169.254.169.254", "[fd00:ec2::254]",	/* EC2, Google */
		"metadata.google.internal",
		"169.254.170.2", "169.254.170.23", "[fd00:ec2::23]" /* containers */
	};
	char		host[300];

	if (!url_host(url, host, sizeof(host)))
		return false;
	for (const char *at = url; *at; at++)
	{
		if (*at <= ' ' || *at > '~')
			return false;
	}
	if (strncmp(url, "https://", 8) == 0)
		return true;
	if (strncmp(url, "http://", 7) != 0)
		return false;
	if (host_is_loopback(host))
		return true;
	for (int i = 0; metadata && i < lengthof(services); i++)
	{
		if (host_is(host, services[i]))
			return true;
	}
	return false;
}

/* Add a header; one whose value could not stand in a line fails the request. */
void
http_header(HttpRequest *request, const char *name, const char *value)
{
	for (const char *at = value; *at; at++)
	{
		if ((unsigned char) *at < ' ' || *at == 0x7f)
		{
			buffer_reset(&request->headers);
			request->headers.failed = true;
			return;
		}
	}
	buffer_printf(&request->headers, "%s: %s\n", name, value);
}

/* Add the header that shows a bearer token. */
void
http_bearer(HttpRequest *request, const char *token)
{
	SecretBuffer value = {0};

	buffer_printf(&value, "Bearer %s", token);
	http_header(request, "Authorization", buffer_text(&value));
	buffer_reset(&value);
}

/* Did any part of a request run out of memory, or could not be written? */
bool
http_request_failed(const HttpRequest *request)
{
	return request->url.failed || request->headers.failed || request->body.failed ||
		request->sigv4.failed || request->access_key.failed ||
		request->secret_key.failed || request->ca_file.failed ||
		request->client_cert.failed || request->client_key.failed;
}

void
http_request_reset(HttpRequest *request)
{
	buffer_reset(&request->url);
	buffer_reset(&request->headers);
	buffer_reset(&request->body);
	buffer_reset(&request->sigv4);
	buffer_reset(&request->access_key);
	buffer_reset(&request->secret_key);
	buffer_reset(&request->ca_file);
	buffer_reset(&request->client_cert);
	buffer_reset(&request->client_key);
	memset(request, 0, sizeof(*request));
}
