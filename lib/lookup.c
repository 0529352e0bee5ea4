#include "lib/lookup.h"

#include <errno.h>
#include <netdb.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <event2/dns.h>
#include <event2/util.h>

struct sp_lookup {
	struct sp_loop *loop;
	struct evdns_base *dns; // of its own, so that settings are read anew each time
	struct evdns_getaddrinfo_request *request;
	struct sp_deferred end, reap;
	sp_lookup_done *done; // NULL: cancelled
	void *ctx;
	struct sp_lookup_result res;
};

static void on_reap(struct sp_deferred *d)
{
	struct sp_lookup *l =
		(struct sp_lookup *)((char *)d - offsetof(struct sp_lookup, reap));
	if (l->dns)
		evdns_base_free(l->dns, 0);
	free(l);
}

static void on_end(struct sp_deferred *d)
{
	struct sp_lookup *l =
		(struct sp_lookup *)((char *)d - offsetof(struct sp_lookup, end));
	sp_loop_reap(l->loop, &l->reap);
	if (l->done)
		l->done(l->ctx, &l->res);
}

static int err_of(int result)
{
	switch (result) {
	case 0:
		return 0;
	case EVUTIL_EAI_NONAME:
	case EVUTIL_EAI_NODATA:
		return -ENOENT;
	case EVUTIL_EAI_AGAIN:
		return -ETIMEDOUT;
	default:
		return -EIO;
	}
}

static void on_answer(int result, struct evutil_addrinfo *res, void *arg)
{
	struct sp_lookup *l = arg;
	l->request = NULL;
	l->res.err = err_of(result);
	for (struct evutil_addrinfo *a = res; a && l->res.n < SP_LOOKUP_MAX;
	     a = a->ai_next) {
		if (a->ai_addrlen > sizeof(l->res.addr[0]))
			continue;
		memcpy(&l->res.addr[l->res.n], a->ai_addr, a->ai_addrlen);
		l->res.addr_len[l->res.n++] = a->ai_addrlen;
	}
	if (res)
		evutil_freeaddrinfo(res);
	if (!l->res.err && !l->res.n)
		l->res.err = -ENOENT;
	sp_loop_defer(l->loop, &l->end);
}

static void ask(struct sp_lookup *l, const struct sp_target *target)
{
	struct evutil_addrinfo hints = {.ai_family = AF_UNSPEC,
					.ai_socktype = SOCK_STREAM,
					.ai_protocol = IPPROTO_TCP,
					.ai_flags = EVUTIL_AI_ADDRCONFIG};
	char port[6];
	snprintf(port, sizeof(port), "%u", target->port);
	l->dns = evdns_base_new(sp_loop_base(l->loop),
				EVDNS_BASE_INITIALIZE_NAMESERVERS |
					EVDNS_BASE_DISABLE_WHEN_INACTIVE);
	if (!l->dns) { // no name server is configured, for one
		l->res.err = -EIO;
		sp_loop_defer(l->loop, &l->end);
		return;
	}
	evdns_base_set_option(l->dns, "timeout", "2");
	l->request = evdns_getaddrinfo(l->dns, target->name, port, &hints, on_answer, l);
}

int sp_lookup_start(struct sp_loop *loop, const struct sp_target *target,
		    sp_lookup_done *done, void *ctx, struct sp_lookup **ret)
{
	struct sp_lookup *l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	l->loop = loop;
	l->done = done;
	l->ctx = ctx;
	l->end.run = on_end;
	l->reap.run = on_reap;
	*ret = l;
	if (sp_target_to_sockaddr(target, &l->res.addr[0], &l->res.addr_len[0]) == 0) {
		l->res.n = 1;
		sp_loop_defer(loop, &l->end);
	} else {
		ask(l, target);
	}
	return 0;
}

void sp_lookup_cancel(struct sp_lookup *l)
{
	if (!l)
		return;
	l->done = NULL;
	if (l->request)
		evdns_getaddrinfo_cancel(l->request); // calls on_answer, from the loop
}
