/*-------------------------------------------------------------------------
 *
 * kms_stub.c
 *	  A KMS that answers AWS KMS's calls after a fixed time, to be measured
 *	  against: fast enough not to be what is measured.
 *
 *		kms_stub DELAY_MS
 *
 * prints its port, serves on 127.0.0.1 until its standard input ends, and then
 * prints how many calls it has answered, and how many at most at once.  It wraps
 * nothing: the wrapped key is the key.
 *
 *-------------------------------------------------------------------------
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CLIENTS_MAX		4096
#define REQUEST_MAX		16384
#define BLOB_CHARS		44		/* 32 bytes in base64 */

typedef struct Client
{
	int			len;
	char		request[REQUEST_MAX];
	bool		busy;			/* a reply is due */
	long long	due;			/* microseconds */
} Client;

static Client clients[CLIENTS_MAX];
static int	queue[CLIENTS_MAX];	/* of those that are busy, oldest first */
static int	nqueue = 0;
static long answered = 0;
static int	most = 0;

static long long
now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000LL + ts.tv_nsec / 1000;
}

static void
random_base64(char *out)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	unsigned char bytes[32];
	int			n = 0;

	if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
		exit(1);
	for (int i = 0; i < 32; i += 3)
	{
		unsigned	group = bytes[i] << 16 | (i + 1 < 32 ? bytes[i + 1] << 8 : 0) |
			(i + 2 < 32 ? bytes[i + 2] : 0);

		out[n++] = digits[group >> 18];
		out[n++] = digits[group >> 12 & 63];
		out[n++] = i + 1 < 32 ? digits[group >> 6 & 63] : '=';
		out[n++] = i + 2 < 32 ? digits[group & 63] : '=';
	}
	out[n] = '\0';
}

/* The value of a member that is a string, cut to the length of a blob */
static void
member(const char *body, const char *name, char *value)
{
	const char *at = strstr(body, name);

	value[0] = '\0';
	if (at == NULL)
		return;
	at += strlen(name);
	at += strspn(at, "\": ");
	snprintf(value, BLOB_CHARS + 1, "%.*s", (int) strcspn(at, "\""), at);
}

static void
reply_to(int fd)
{
	Client	   *client = &clients[fd];
	const char *body = strstr(client->request, "\r\n\r\n") + 4;
	char		key[BLOB_CHARS + 1];
	char		reply[1024];
	char		json[512];
	int			len;

	if (strstr(client->request, "TrentService.GenerateDataKey"))
		random_base64(key);
	else if (strstr(client->request, "TrentService.Encrypt"))
		member(body, "Plaintext", key);
	else
		member(body, "CiphertextBlob", key);
	len = snprintf(json, sizeof(json),
				   "{\"KeyId\":\"arn:aws:kms:eu-central-1:111122223333:key/bench\","
				   "\"Plaintext\":\"%s\",\"CiphertextBlob\":\"%s\"}", key, key);
	len = snprintf(reply, sizeof(reply),
				   "HTTP/1.1 200 OK\r\nContent-Type: application/x-amz-json-1.1\r\n"
				   "x-amzn-RequestId: %ld\r\nContent-Length: %d\r\n\r\n%s", answered, len, json);
	client->busy = false;
	client->len = 0;
	answered++;
	if (write(fd, reply, len) != len)
		close(fd);
}

/* Read what there is; note the reply as due where the request is whole. */
static void
read_from(int fd, int delay_us)
{
	Client	   *client = &clients[fd];
	int			n = read(fd, client->request + client->len, REQUEST_MAX - 1 - client->len);
	const char *end;
	const char *length;

	if (n <= 0)
	{
		close(fd);
		client->len = 0;
		return;
	}
	client->len += n;
	client->request[client->len] = '\0';
	end = strstr(client->request, "\r\n\r\n");
	length = end ? strcasestr(client->request, "\r\nContent-Length:") : NULL;
	if (length == NULL || client->busy ||
		client->len < end + 4 - client->request + atoi(length + strlen("\r\nContent-Length:")))
		return;
	client->busy = true;
	client->due = now_us() + delay_us;
	queue[nqueue++] = fd;
	if (nqueue > most)
		most = nqueue;
}

static void
answer_due(void)
{
	int			n = 0;

	while (n < nqueue && clients[queue[n]].due <= now_us())
		reply_to(queue[n++]);
	nqueue -= n;
	memmove(queue, queue + n, nqueue * sizeof(queue[0]));
}

int
main(int argc, char **argv)
{
	int			delay_us = argc > 1 ? (int) (atof(argv[1]) * 1000) : 0;
	int			listener = socket(AF_INET, SOCK_STREAM, 0);
	int			epoll = epoll_create1(0);
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t	len = sizeof(address);
	struct epoll_event event = {.events = EPOLLIN};

	if (listener < 0 || bind(listener, (struct sockaddr *) &address, len) != 0 ||
		listen(listener, 512) != 0 ||
		getsockname(listener, (struct sockaddr *) &address, &len) != 0)
		return 1;
	event.data.fd = listener;
	epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
	event.data.fd = STDIN_FILENO;
	epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &event);
	printf("%d\n", ntohs(address.sin_port));
	fflush(stdout);

	for (;;)
	{
		struct epoll_event events[256];
		long long	wait = nqueue > 0 ? clients[queue[0]].due - now_us() : 1000000;
		struct timespec timeout = {.tv_sec = wait / 1000000, .tv_nsec = wait % 1000000 * 1000};
		int			n;

		/* To the microsecond: a part of a millisecond more would be measured. */
		if (wait < 0)
			timeout.tv_sec = timeout.tv_nsec = 0;
		n = epoll_pwait2(epoll, events, 256, &timeout, NULL);

		for (int i = 0; i < n; i++)
		{
			int			fd = events[i].data.fd;
			char		unused[64];

			if (fd == STDIN_FILENO)
			{
				if (read(fd, unused, sizeof(unused)) > 0)
					continue;
				printf("%ld %d\n", answered, most);
				return 0;
			}
			if (fd == listener)
			{
				int			one = 1;
				int			client = accept(listener, NULL, NULL);

				if (client < 0 || client >= CLIENTS_MAX)
					continue;
				setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
				clients[client].len = 0;
				clients[client].busy = false;
				event.data.fd = client;
				epoll_ctl(epoll, EPOLL_CTL_ADD, client, &event);
			}
			else
				read_from(fd, delay_us);
		}
		answer_due();
	}
}
