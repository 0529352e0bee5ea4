#include "worker/dial.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>
#include <unistd.h>

#include <event2/event.h>
#include <event2/event_struct.h>

enum { V6, V4, FAMILIES };

struct attempt {
	struct wrk_dial *dial;
	struct event ev;
	uint64_t since_ms;
	int fd; // -1: the place is free
};

struct candidates { // allowed addresses of one family
	uint8_t addr[WRK_DNS_ADDRS_MAX][16];
	unsigned n, next;
};

struct wrk_dial {
	LIST_ENTRY(wrk_dial) link;
	struct wrk_dialer *d;
	const struct wrk_dial_ops *ops;
	void *ctx;
	struct wrk_lookup *lookup; // NULL: all answers are there
	struct event timer;
	uint64_t deadline_ms;
	uint64_t next_ms; // no attempt is started before
	struct candidates found[FAMILIES];
	struct attempt attempt[WRK_DIAL_PLACES];
	enum sp_reason name_reason;    // worst of the look-ups
	enum sp_reason attempt_reason; // the one of the attempts that says most
	int type;                      // SOCK_STREAM, SOCK_DGRAM
	uint16_t port;
	uint8_t attempts;
	uint8_t turn; // family that is next, if it has a candidate
	bool refused; // the policy refused an address
};

struct wrk_dialer {
	struct wrk_dialer_options opt;
	struct wrk_dialer_stats stats;
	LIST_HEAD(, wrk_dial) dials;
	uint64_t slice_ms; // when it began
	uint64_t spent_us; // in connect() since
};

void wrk_dialer_options_default(struct wrk_dialer_options *ret)
{
	*ret = (struct wrk_dialer_options){
		.socket = {.cloexec = true},
		.deadline_ms = 10000,
		.attempt_delay_ms = 250,
		.resolution_delay_ms = 50,
		.attempt_min_ms = 2500,
		.max_attempts = 8,
		.max_dials = 8192,
		.connect_us = 20000,
	};
}

static uint64_t now_ms(const struct wrk_dial *l)
{
	return wrk_resolve_now_ms(l->d->opt.resolve);
}

// ---- reasons ----

static enum sp_reason reason_of_errno(int err)
{
	switch (err) {
	case ECONNREFUSED:
		return SP_REASON_REFUSED;
	case ECONNRESET:
		return SP_REASON_PEER_RESET;
	case ETIMEDOUT:
		return SP_REASON_TIMEOUT;
	case ENETUNREACH:
	case EHOSTUNREACH:
	case ENETDOWN:
	case EHOSTDOWN:
	case ENONET:
	case EADDRNOTAVAIL: // no source address towards it
	case EAFNOSUPPORT:
	case EACCES: // a local firewall
	case EPERM:
	case EPROTO: // odd ICMP answers
	case ENOPROTOOPT:
	case EOPNOTSUPP:
	case EINVAL: // an address that cannot be connected to
		return SP_REASON_UNREACHABLE;
	case EMFILE:
	case ENFILE:
		return SP_REASON_NO_DESCRIPTORS;
	case ENOMEM:
	case ENOBUFS:
		return SP_REASON_NO_MEMORY;
	case EAGAIN: // no source port is free
		return SP_REASON_BUSY;
	default:
		return SP_REASON_INTERNAL;
	}
}

// This host is at fault: another address would not fare better now.
static bool is_local(enum sp_reason r)
{
	return r == SP_REASON_NO_DESCRIPTORS || r == SP_REASON_NO_MEMORY ||
	       r == SP_REASON_BUSY;
}

// How much a reason says about the destination; the higher wins.
static int weight(enum sp_reason r)
{
	static const enum sp_reason rising[] = {
		SP_REASON_NONE,       SP_REASON_INTERNAL,        SP_REASON_UNREACHABLE,
		SP_REASON_TIMEOUT,    SP_REASON_PEER_RESET,      SP_REASON_REFUSED,
		SP_REASON_NO_ADDRESS, SP_REASON_RESOLVE_TIMEOUT, SP_REASON_RESOLVE_FAILED,
		SP_REASON_BUSY,       SP_REASON_NO_MEMORY,       SP_REASON_NO_DESCRIPTORS,
	};
	for (int i = 0; i < (int)(sizeof(rising) / sizeof(rising[0])); i++)
		if (rising[i] == r)
			return i;
	return 0;
}

static void note(enum sp_reason *best, enum sp_reason r)
{
	if (weight(r) > weight(*best))
		*best = r;
}

// Why a dial failed that has nothing left to try.
static enum sp_reason failure(const struct wrk_dial *l)
{
	if (l->attempt_reason != SP_REASON_NONE)
		return l->attempt_reason;
	if (l->refused)
		return SP_REASON_POLICY;
	return l->name_reason != SP_REASON_NONE ? l->name_reason : SP_REASON_NO_ADDRESS;
}

// ---- places ----

static void journal(struct wrk_dial *l, unsigned place, int fd)
{
	if (l->ops->journal)
		l->ops->journal(l->ctx, place, fd);
}

static void vacate(struct wrk_dial *l, unsigned place)
{
	struct attempt *at = &l->attempt[place];
	if (at->fd < 0)
		return;
	if (event_initialized(&at->ev))
		event_del(&at->ev);
	journal(l, place, -1);
	close(at->fd);
	at->fd = -1;
}

static unsigned pending(const struct wrk_dial *l)
{
	unsigned n = 0;
	for (unsigned i = 0; i < WRK_DIAL_PLACES; i++)
		n += l->attempt[i].fd >= 0;
	return n;
}

// Unlinks and frees; a descriptor that is to survive was taken out before.
static void dial_free(struct wrk_dial *l)
{
	for (unsigned i = 0; i < WRK_DIAL_PLACES; i++)
		vacate(l, i);
	wrk_resolve_cancel(l->lookup);
	event_del(&l->timer);
	LIST_REMOVE(l, link);
	l->d->stats.dials--;
	free(l);
}

// The one call of `done`.
static void finish(struct wrk_dial *l, int fd, enum sp_reason reason,
		   const struct sp_target *bound)
{
	const struct wrk_dial_ops *ops = l->ops;
	void *ctx = l->ctx;
	l->d->stats.ended[reason]++;
	dial_free(l);
	ops->done(ctx, fd, reason, bound);
}

static void succeed(struct wrk_dial *l, unsigned place, const struct sp_target *bound)
{
	struct attempt *at = &l->attempt[place];
	int fd = at->fd;
	if (event_initialized(&at->ev))
		event_del(&at->ev);
	at->fd = -1;
	for (unsigned i = 0; i < WRK_DIAL_PLACES; i++)
		vacate(l, i);
	if (place != 0) {
		journal(l, 0, fd);
		journal(l, place, -1);
	}
	finish(l, fd, SP_REASON_NONE, bound);
}

// ---- attempts ----

static void dial_step(struct wrk_dial *l);

static void on_attempt(evutil_socket_t fd, short what, void *arg);

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	(void)fd, (void)what;
	dial_step(arg);
}

static bool is_same(const struct sp_target *a, const struct sockaddr *peer)
{
	struct sp_target b;
	sp_target_from_sockaddr(peer, &b);
	return sp_target_equal(a, &b);
}

// A connected socket: its own address, or a reason not to use it. On loopback a socket
// may connect to itself when its port happens to be the one that is dialled; nobody is
// there.
static enum sp_reason inspect(const struct wrk_dial *l, int fd, struct sp_target *ret)
{
	struct sockaddr_storage own, peer;
	socklen_t own_len = sizeof(own), peer_len = sizeof(peer);
	if (getsockname(fd, (struct sockaddr *)&own, &own_len))
		return SP_REASON_INTERNAL;
	if (getpeername(fd, (struct sockaddr *)&peer, &peer_len))
		return errno == ENOTCONN ? SP_REASON_PEER_RESET : SP_REASON_INTERNAL;
	sp_target_from_sockaddr((struct sockaddr *)&own, ret);
	if (l->type == SOCK_STREAM && is_same(ret, (struct sockaddr *)&peer))
		return SP_REASON_REFUSED;
	return SP_REASON_NONE;
}

static int peek_family(const struct wrk_dial *l)
{
	const struct candidates *c = &l->found[l->turn];
	if (c->next < c->n)
		return l->turn;
	c = &l->found[!l->turn];
	return c->next < c->n ? !l->turn : -1;
}

static bool has_candidate(const struct wrk_dial *l)
{
	return l->attempts < l->d->opt.max_attempts && peek_family(l) >= 0;
}

static socklen_t make_sockaddr(int f, const uint8_t *addr, uint16_t port,
			       struct sockaddr_storage *ret)
{
	memset(ret, 0, sizeof(*ret));
	if (f == V4) {
		struct sockaddr_in *in = (struct sockaddr_in *)ret;
		in->sin_family = AF_INET;
		in->sin_port = htons(port);
		memcpy(&in->sin_addr, addr, 4);
		return sizeof(*in);
	}
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ret;
	in6->sin6_family = AF_INET6;
	in6->sin6_port = htons(port);
	memcpy(&in6->sin6_addr, addr, 16);
	return sizeof(*in6);
}

static uint64_t real_us(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

// 0: attempts may start; else when, of this clock.
static uint64_t wait_for_slice(struct wrk_dialer *d, uint64_t now)
{
	if (now - d->slice_ms >= WRK_DIAL_SLICE_MS) {
		d->slice_ms = now;
		d->spent_us = 0;
	}
	return d->spent_us < d->opt.connect_us ? 0 : d->slice_ms + WRK_DIAL_SLICE_MS;
}

static int timed_connect(struct wrk_dialer *d, int fd, const struct sockaddr *sa,
			 socklen_t len)
{
	uint64_t since = real_us();
	int err = connect(fd, sa, len) ? errno : 0;
	d->spent_us += real_us() - since + 1;
	return err;
}

static enum sp_reason connect_attempt(struct attempt *at, const struct sockaddr *sa,
				      socklen_t len)
{
	struct wrk_dial *l = at->dial;
	enum sp_reason r = SP_REASON_NO_MEMORY;
	if (event_assign(&at->ev, l->d->opt.base, at->fd, EV_WRITE, on_attempt, at) ==
	    0) {
		int err = timed_connect(l->d, at->fd, sa, len);
		if (!err) {
			event_active(&at->ev, EV_WRITE, 0);
			return SP_REASON_NONE;
		}
		if (err != EINPROGRESS)
			r = reason_of_errno(err);
		else if (event_add(&at->ev, NULL) == 0)
			return SP_REASON_NONE;
	}
	vacate(l, (unsigned)(at - l->attempt));
	return r;
}

// Connects to the next candidate from `place`, which is free. NONE: it is under way, or
// connected, which its event will tell. Else it failed and the place is free; for a fault
// of this host the candidate is kept.
static enum sp_reason start_attempt(struct wrk_dial *l, unsigned place)
{
	struct attempt *at = &l->attempt[place];
	struct sockaddr_storage ss;
	int f = peek_family(l);
	struct candidates *c = &l->found[f];
	socklen_t len = make_sockaddr(f, c->addr[c->next], l->port, &ss);
	int fd = wrk_socket_new(&l->d->opt.socket, ss.ss_family, l->type);
	if (fd < 0) {
		enum sp_reason r = reason_of_errno(-fd);
		if (!is_local(r))
			c->next++;
		return r;
	}
	at->fd = fd;
	at->since_ms = now_ms(l);
	journal(l, place, fd);
	l->d->stats.attempts++;
	l->attempts++;
	c->next++;
	l->turn = !f;
	return connect_attempt(at, (struct sockaddr *)&ss, len);
}

static void on_attempt(evutil_socket_t fd, short what, void *arg)
{
	struct attempt *at = arg;
	struct wrk_dial *l = at->dial;
	unsigned place = (unsigned)(at - l->attempt);
	struct sp_target bound;
	int err = 0;
	socklen_t len = sizeof(err);
	enum sp_reason reason;
	(void)what;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len))
		err = errno;
	reason = err ? reason_of_errno(err) : inspect(l, fd, &bound);
	if (reason == SP_REASON_NONE) {
		succeed(l, place, &bound);
		return;
	}
	note(&l->attempt_reason, reason);
	vacate(l, place);
	l->next_ms = 0; // RFC 8305 section 5: a failure lets the next one start
	dial_step(l);
}

// A free place; if there is none, that of the older attempt if it had its time. -1: none.
static int find_place(struct wrk_dial *l)
{
	unsigned oldest = 0;
	for (unsigned i = 0; i < WRK_DIAL_PLACES; i++) {
		if (l->attempt[i].fd < 0)
			return (int)i;
		if (l->attempt[i].since_ms < l->attempt[oldest].since_ms)
			oldest = i;
	}
	if (now_ms(l) - l->attempt[oldest].since_ms < l->d->opt.attempt_min_ms)
		return -1;
	note(&l->attempt_reason, SP_REASON_TIMEOUT);
	vacate(l, oldest);
	return (int)oldest;
}

// Starts what may start now. Returns a fault of this host that leaves nothing under way,
// or NONE.
static enum sp_reason start_due(struct wrk_dial *l)
{
	while (has_candidate(l) && now_ms(l) >= l->next_ms) {
		uint64_t later = wait_for_slice(l->d, now_ms(l));
		if (later) {
			l->next_ms = later;
			return SP_REASON_NONE;
		}
		int place = find_place(l);
		if (place < 0)
			return SP_REASON_NONE;
		enum sp_reason r = start_attempt(l, (unsigned)place);
		if (r == SP_REASON_NONE) {
			l->next_ms = now_ms(l) + l->d->opt.attempt_delay_ms;
		} else if (!is_local(r)) {
			note(&l->attempt_reason, r);
		} else if (pending(l)) {
			l->next_ms = now_ms(l) + l->d->opt.attempt_delay_ms;
		} else {
			return r;
		}
	}
	return SP_REASON_NONE;
}

// When dial_step has to look again.
static uint64_t next_step(const struct wrk_dial *l)
{
	uint64_t due = l->deadline_ms, at = l->next_ms;
	if (!has_candidate(l))
		return due;
	if (pending(l) == WRK_DIAL_PLACES) {
		uint64_t oldest = UINT64_MAX;
		for (unsigned i = 0; i < WRK_DIAL_PLACES; i++)
			if (l->attempt[i].since_ms < oldest)
				oldest = l->attempt[i].since_ms;
		if (oldest + l->d->opt.attempt_min_ms > at)
			at = oldest + l->d->opt.attempt_min_ms;
	}
	return at < due ? at : due;
}

// Moves the dial on; may end it.
static void dial_step(struct wrk_dial *l)
{
	uint64_t now = now_ms(l);
	if (now >= l->deadline_ms) {
		if (l->attempts || has_candidate(l))
			note(&l->attempt_reason, SP_REASON_TIMEOUT);
		else if (l->lookup)
			note(&l->name_reason, SP_REASON_RESOLVE_TIMEOUT);
		finish(l, -1, failure(l), NULL);
		return;
	}
	enum sp_reason fault = start_due(l);
	if (fault != SP_REASON_NONE) {
		finish(l, -1, fault, NULL);
		return;
	}
	if (!pending(l) && !has_candidate(l) && !l->lookup) {
		finish(l, -1, failure(l), NULL);
		return;
	}
	uint64_t due = next_step(l), ms;
	now = now_ms(l);
	ms = due > now ? due - now : 1;
	struct timeval tv = {.tv_sec = (time_t)(ms / 1000),
			     .tv_usec = (suseconds_t)(ms % 1000 * 1000)};
	(void)event_add(&l->timer, &tv);
}

// ---- addresses ----

// Takes an address into the list if the policy allows it.
static void offer(struct wrk_dial *l, int f, const uint8_t *addr)
{
	struct candidates *c = &l->found[f];
	struct sockaddr_storage ss;
	if (f == V6 &&
	    IN6_IS_ADDR_V4MAPPED((const struct in6_addr *)(const void *)addr)) {
		f = V4;
		addr += 12;
		c = &l->found[f];
	}
	make_sockaddr(f, addr, l->port, &ss);
	enum sp_policy_verdict v = sp_policy_check(
		l->d->opt.policy, l->type == SOCK_STREAM ? SP_PROTO_TCP : SP_PROTO_UDP,
		(struct sockaddr *)&ss);
	l->d->stats.policy[v]++;
	if (v != SP_POLICY_ALLOWED)
		l->refused = true;
	else if (c->n < WRK_DNS_ADDRS_MAX)
		memcpy(c->addr[c->n++], addr, f == V4 ? 4 : 16);
}

static void on_answer(void *ctx, const struct wrk_dnsanswer *a, bool last)
{
	struct wrk_dial *l = ctx;
	int f = a->family == AF_INET ? V4 : V6;
	if (last)
		l->lookup = NULL;
	note(&l->name_reason, a->status);
	for (unsigned i = 0; i < a->n; i++)
		offer(l, f, a->addr[i]);
	if (l->attempts == 0)
		l->next_ms =
			f == V4 && !last ? now_ms(l) + l->d->opt.resolution_delay_ms : 0;
	dial_step(l);
}

static const struct wrk_resolve_ops resolve_ops = {.answer = on_answer};

// ---- start and end ----

static int begin(struct wrk_dial *l, const struct sp_target *target)
{
	if (target->kind == SP_TARGET_NAME)
		return wrk_resolve_start(l->d->opt.resolve, target->name, &resolve_ops, l,
					 &l->lookup);
	if (target->kind != SP_TARGET_IPV4 && target->kind != SP_TARGET_IPV6)
		return SP_E_MALFORMED;
	int f = target->kind == SP_TARGET_IPV4 ? V4 : V6;
	offer(l, f, f == V4 ? target->v4 : target->v6);
	event_active(&l->timer, EV_TIMEOUT, 0);
	return 0;
}

static int dial(struct wrk_dialer *d, int type, const struct sp_target *target,
		const struct wrk_dial_ops *ops, void *ctx, struct wrk_dial **ret)
{
	if (d->stats.dials >= d->opt.max_dials) {
		d->stats.refused++;
		return SP_E_LIMIT;
	}
	struct wrk_dial *l = calloc(1, sizeof(*l));
	if (!l)
		return -ENOMEM;
	l->d = d;
	l->ops = ops;
	l->ctx = ctx;
	l->type = type;
	l->port = target->port;
	l->deadline_ms = now_ms(l) + d->opt.deadline_ms;
	for (unsigned i = 0; i < WRK_DIAL_PLACES; i++) {
		l->attempt[i].dial = l;
		l->attempt[i].fd = -1;
	}
	LIST_INSERT_HEAD(&d->dials, l, link);
	d->stats.dials++;
	int err = event_assign(&l->timer, d->opt.base, -1, 0, on_timer, l) ? -ENOMEM : 0;
	if (!err)
		err = begin(l, target);
	if (err) {
		d->stats.refused += err == SP_E_LIMIT;
		dial_free(l);
		return err;
	}
	d->stats.started++;
	if (l->lookup) {
		struct timeval tv = {
			.tv_sec = (time_t)(d->opt.deadline_ms / 1000),
			.tv_usec = (suseconds_t)(d->opt.deadline_ms % 1000 * 1000)};
		(void)event_add(&l->timer, &tv);
	}
	*ret = l;
	return 0;
}

int wrk_dial_tcp(struct wrk_dialer *d, const struct sp_target *target,
		 const struct wrk_dial_ops *ops, void *ctx, struct wrk_dial **ret)
{
	return dial(d, SOCK_STREAM, target, ops, ctx, ret);
}

int wrk_dial_udp(struct wrk_dialer *d, const struct sp_target *target,
		 const struct wrk_dial_ops *ops, void *ctx, struct wrk_dial **ret)
{
	return dial(d, SOCK_DGRAM, target, ops, ctx, ret);
}

void wrk_dial_cancel(struct wrk_dial *l)
{
	if (!l)
		return;
	l->d->stats.ended[SP_REASON_CANCELLED]++;
	dial_free(l);
}

const struct wrk_dialer_stats *wrk_dialer_stats(const struct wrk_dialer *d)
{
	return &d->stats;
}

void wrk_dialer_set_policy(struct wrk_dialer *d, const struct sp_policy *policy)
{
	d->opt.policy = policy;
}

int wrk_dialer_new(const struct wrk_dialer_options *opt, struct wrk_dialer **ret)
{
	if (!opt->base || !opt->resolve || !opt->policy || !opt->deadline_ms ||
	    !opt->attempt_delay_ms || !opt->attempt_min_ms || !opt->max_attempts ||
	    opt->max_attempts > UINT8_MAX || !opt->max_dials || !opt->connect_us)
		return -EINVAL;
	struct wrk_dialer *d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	d->opt = *opt;
	LIST_INIT(&d->dials);
	*ret = d;
	return 0;
}

void wrk_dialer_free(struct wrk_dialer *d)
{
	if (!d)
		return;
	while (!LIST_EMPTY(&d->dials))
		wrk_dial_cancel(LIST_FIRST(&d->dials));
	free(d);
}
