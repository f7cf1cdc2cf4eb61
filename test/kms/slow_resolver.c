/*
 * slow_resolver.c
 *	  Preloaded into a server: looking up a name below "hang.test" takes a
 *	  minute, as where a name server does not answer.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <string.h>
#include <unistd.h>

int
getaddrinfo(const char *node, const char *service,
			const struct addrinfo *hints, struct addrinfo **res)
{
	int			(*next) (const char *, const char *, const struct addrinfo *,
						 struct addrinfo **) = dlsym(RTLD_NEXT, "getaddrinfo");

	if (node && strstr(node, "hang.test"))
	{
		sleep(60);
		return EAI_AGAIN;
	}
	return next(node, service, hints, res);
}
