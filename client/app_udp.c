#include "client/app_udp.h"

#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sodium.h>

#include "client/questions.h"
#include "client/socks5.h"

#define BUCKETS        4096
#define TURN_DATAGRAMS 64
#define BUF_BYTES      (1 << 20)

struct assoc;

struct app_flow {
	LIST_ENTRY(app_flow) bucket;
	LIST_ENTRY(app_flow) of_assoc;
	struct assoc *assoc;
	struct sp_flow *fl;
	struct sp_session *session; // fl's
	struct sp_target target;    // as the application named it
};
LIST_HEAD(app_flow_list, app_flow);

struct assoc {
	TAILQ_ENTRY(assoc) entry; // the one idle longest first
	struct cli_udp *t;
	int control, fd;
	bool closed;
	bool connected;                // the first datagram said whom we talk to
	struct sockaddr_storage owner; // address of the TCP peer
	struct app_flow_list flows;
	struct event control_ev, ev;
	struct sp_deferred reap;
};
TAILQ_HEAD(assoc_list, assoc);

struct cli_udp {
	struct cli_udp_options opt;
	struct cli_uplink *u;
	struct assoc_list assocs;
	struct cli_udp_counters n;
	uint8_t hash_key[crypto_shorthash_KEYBYTES];
	struct app_flow_list bucket[BUCKETS];
	struct cli_questions questions; // of app_flows
	uint8_t buf[CLI_SOCKS5_HEADER_MAX + SP_DATAGRAM_MAX + 1];
};

// ---- flows ----

static struct app_flow_list *bucket_of(struct cli_udp *t, const struct assoc *as,
				       const struct sp_target *target)
{
	uint8_t key[sizeof(as) + CLI_SOCKS5_HEADER_MAX];
	uint8_t hash[crypto_shorthash_BYTES];
	uint32_t h;
	memcpy(key, &as, sizeof(as));
	size_t len = sizeof(as) + cli_socks5_udp_header(target, key + sizeof(as));
	crypto_shorthash(hash, key, len, t->hash_key);
	memcpy(&h, hash, sizeof(h));
	return &t->bucket[h % BUCKETS];
}

static bool is_lookup(const struct app_flow *f)
{
	return f->target.port == CLI_QUESTION_PORT;
}

static void flow_forget(struct app_flow *f)
{
	if (is_lookup(f))
		cli_questions_forget(&f->assoc->t->questions, f);
	f->assoc->t->n.flows--;
	LIST_REMOVE(f, bucket);
	LIST_REMOVE(f, of_assoc);
	free(f);
}

static struct app_flow *flow_find(struct assoc *as, const struct sp_target *target)
{
	struct app_flow *f;
	LIST_FOREACH(f, bucket_of(as->t, as, target), bucket)
	if (f->assoc == as && sp_target_equal(&f->target, target))
		return f;
	return NULL;
}

// On the exit in use. May end the stalest flow of the session, perhaps one of ours.
static int flow_attach(struct app_flow *f)
{
	int err = cli_uplink_open_flow(f->assoc->t->u, &f->target, f, &f->fl);
	if (!err)
		f->session = sp_flow_session(f->fl);
	return err;
}

static struct app_flow *flow_make(struct assoc *as, const struct sp_target *target)
{
	struct app_flow *f = calloc(1, sizeof(*f));
	if (!f)
		return NULL;
	f->assoc = as;
	f->target = *target;
	if (flow_attach(f)) {
		free(f);
		return NULL;
	}
	LIST_INSERT_HEAD(bucket_of(as->t, as, target), f, bucket);
	LIST_INSERT_HEAD(&as->flows, f, of_assoc);
	as->t->n.flows++;
	return f;
}

// Whether it goes to the exit in use. A look-up depends on no address of its source and
// waits neither for an adoption nor for a relay.
static bool should_leave(const struct app_flow *f)
{
	const struct cli_uplink *u = f->assoc->t->u;
	return is_lookup(f) ? cli_uplink_should_leave(u, f->session)
			    : cli_uplink_flow_should_leave(u, f->session);
}

// False: it is gone.
static bool flow_move(struct app_flow *f)
{
	struct cli_udp *t = f->assoc->t;
	sp_flow_close(f->fl, SP_REASON_CANCELLED);
	cli_uplink_touch(t->u, f->session);
	t->n.moved++;
	if (!flow_attach(f))
		return true;
	flow_forget(f);
	return false;
}

// The flow of this destination, on an exit that works if there is one.
static struct app_flow *flow_get(struct assoc *as, const struct sp_target *target)
{
	struct app_flow *f = flow_find(as, target);
	if (!f)
		return flow_make(as, target);
	return !should_leave(f) || flow_move(f) ? f : NULL;
}

void cli_udp_rehome(struct cli_udp *t)
{
	uint64_t now_us = sp_loop_now_us(t->opt.loop);
	struct cli_question *x;
	unsigned at = 0;
	while ((x = cli_questions_next(&t->questions, &at, now_us))) {
		struct app_flow *f = (struct app_flow *)(uintptr_t)x->flow;
		if (x->home == f->session && !should_leave(f))
			continue;
		if (should_leave(f) && !flow_move(f))
			continue; // with its questions
		cli_question_done(x);
		t->n.asked_again += sp_flow_send(f->fl, x->bytes, x->len) == 0;
		cli_uplink_touch(t->u, f->session);
	}
}

// ---- the engine's calls ----

static void flow_data(void *ctx, struct sp_flow *fl, const uint8_t *buf, size_t len)
{
	struct app_flow *f = sp_flow_user(fl);
	struct cli_udp_counters *n = &f->assoc->t->n;
	uint8_t head[CLI_SOCKS5_HEADER_MAX];
	struct iovec iov[2] = {{head, cli_socks5_udp_header(&f->target, head)},
			       {(void *)(uintptr_t)buf, len}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
	(void)ctx;
	if (is_lookup(f))
		cli_questions_answered(&f->assoc->t->questions, f, buf, len);
	if (sendmsg(f->assoc->fd, &msg, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		n->dropped_to_app++;
	else
		n->to_app++;
}

static void flow_closed(void *ctx, struct sp_flow *fl, enum sp_reason reason)
{
	(void)ctx;
	(void)reason;
	flow_forget(sp_flow_user(fl));
}

void cli_udp_set_ops(struct sp_session_ops *ops)
{
	ops->flow_data = flow_data;
	ops->flow_closed = flow_closed;
}

// ---- associations ----

static void on_reap(struct sp_deferred *d)
{
	free((char *)d - offsetof(struct assoc, reap));
}

static void assoc_close(struct assoc *as)
{
	struct cli_udp *t = as->t;
	if (as->closed)
		return;
	as->closed = true;
	TAILQ_REMOVE(&t->assocs, as, entry);
	t->n.associations--;
	while (!LIST_EMPTY(&as->flows)) {
		struct app_flow *f = LIST_FIRST(&as->flows);
		sp_flow_close(f->fl, SP_REASON_CANCELLED);
		cli_uplink_touch(t->u, f->session);
		flow_forget(f);
	}
	event_del(&as->control_ev);
	event_del(&as->ev);
	close(as->control);
	close(as->fd);
	sp_loop_reap(t->opt.loop, &as->reap);
	if (t->opt.closed)
		t->opt.closed(t->opt.ctx);
}

static bool same_host(const struct sockaddr_storage *a, const struct sockaddr_storage *b)
{
	struct sp_target ta, tb;
	sp_target_from_sockaddr((const struct sockaddr *)a, &ta);
	sp_target_from_sockaddr((const struct sockaddr *)b, &tb);
	ta.port = tb.port = 0;
	return sp_target_equal(&ta, &tb);
}

// The first datagram of the owner settles from whom we hear from now on.
static bool is_owner(struct assoc *as, const struct sockaddr_storage *from, socklen_t len)
{
	if (as->connected)
		return true;
	if (!same_host(from, &as->owner))
		return false;
	as->connected = connect(as->fd, (const struct sockaddr *)from, len) == 0;
	return as->connected;
}

static void from_app(struct assoc *as, const uint8_t *buf, size_t len)
{
	struct cli_udp *t = as->t;
	struct sp_target target;
	int head = cli_socks5_udp_parse(buf, len, &target);
	if (head < 0 || target.port == 0 || len - (size_t)head > SP_DATAGRAM_MAX) {
		t->n.dropped_from_app++;
		return;
	}
	t->n.from_app++;
	struct app_flow *f = flow_get(as, &target);
	if (!f || sp_flow_send(f->fl, buf + head, len - (size_t)head)) {
		t->n.dropped_uplink++;
		return;
	}
	if (is_lookup(f))
		cli_questions_asked(&t->questions, f, f->session, buf + head,
				    len - (size_t)head, sp_loop_now_us(t->opt.loop));
	cli_uplink_touch(t->u, f->session);
}

// One turn's worth; the event is level-triggered, what is left comes next.
static void assoc_read(struct assoc *as)
{
	struct cli_udp *t = as->t;
	bool any = false;
	for (int i = 0; i < TURN_DATAGRAMS; i++) {
		struct sockaddr_storage from;
		socklen_t from_len = sizeof(from);
		ssize_t n = recvfrom(as->fd, t->buf, sizeof(t->buf), MSG_DONTWAIT,
				     (struct sockaddr *)&from, &from_len);
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			break;
		if (n < 0) // a refusal that came back, for one
			continue;
		if (!is_owner(as, &from, from_len)) {
			t->n.dropped_from_app++;
			continue;
		}
		any = true;
		from_app(as, t->buf, (size_t)n);
	}
	if (any) {
		TAILQ_REMOVE(&t->assocs, as, entry);
		TAILQ_INSERT_TAIL(&t->assocs, as, entry);
	}
}

static void on_datagram(evutil_socket_t fd, short what, void *arg)
{
	struct assoc *as = arg;
	(void)fd;
	(void)what;
	(void)sp_loop_now_us(as->t->opt.loop);
	assoc_read(as);
}

// Nothing is said on the TCP connection any more; its end is the association's.
static void on_control(evutil_socket_t fd, short what, void *arg)
{
	char waste[256];
	ssize_t n;
	(void)what;
	n = recv(fd, waste, sizeof(waste), MSG_DONTWAIT);
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
		assoc_close(arg);
}

// A socket on the address that the TCP connection came in on.
static int make_socket(int control, struct sp_target *ret_bound)
{
	struct sockaddr_storage sa;
	socklen_t len = sizeof(sa);
	int size = BUF_BYTES;
	if (getsockname(control, (struct sockaddr *)&sa, &len) < 0)
		return -errno;
	if (sa.ss_family == AF_INET)
		((struct sockaddr_in *)&sa)->sin_port = 0;
	else
		((struct sockaddr_in6 *)&sa)->sin6_port = 0;
	int fd = socket(sa.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size));
	setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
	if (bind(fd, (struct sockaddr *)&sa, len) < 0 ||
	    getsockname(fd, (struct sockaddr *)&sa, &len) < 0) {
		int err = -errno;
		close(fd);
		return err;
	}
	sp_target_from_sockaddr((const struct sockaddr *)&sa, ret_bound);
	return fd;
}

static int answer(int control, const struct sp_target *bound)
{
	uint8_t reply[CLI_SOCKS5_REPLY_MAX];
	size_t len = cli_socks5_reply(CLI_SOCKS5_OK, bound, reply);
	if (send(control, reply, len, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)len)
		return -EIO;
	return 0;
}

static void make_room(struct cli_udp *t)
{
	while (t->n.associations && t->n.associations >= t->opt.max_associations) {
		t->n.associations_evicted++;
		assoc_close(TAILQ_FIRST(&t->assocs));
	}
}

int cli_udp_add(struct cli_udp *t, int control)
{
	struct sp_target bound;
	struct sockaddr_storage owner;
	socklen_t len = sizeof(owner);
	if (getpeername(control, (struct sockaddr *)&owner, &len) < 0)
		return -errno;
	make_room(t);
	int fd = make_socket(control, &bound);
	if (fd < 0)
		return fd;
	struct assoc *as = calloc(1, sizeof(*as));
	int err = as ? answer(control, &bound) : -ENOMEM;
	if (err) {
		free(as);
		close(fd);
		return err;
	}
	as->t = t;
	as->control = control;
	as->fd = fd;
	as->owner = owner;
	as->reap.run = on_reap;
	LIST_INIT(&as->flows);
	TAILQ_INSERT_TAIL(&t->assocs, as, entry);
	t->n.associations++;
	t->n.associations_opened++;
	event_assign(&as->control_ev, sp_loop_base(t->opt.loop), control,
		     EV_READ | EV_PERSIST, on_control, as);
	event_assign(&as->ev, sp_loop_base(t->opt.loop), fd, EV_READ | EV_PERSIST,
		     on_datagram, as);
	event_add(&as->control_ev, NULL);
	event_add(&as->ev, NULL);
	return 0;
}

// ---- life ----

int cli_udp_new(const struct cli_udp_options *opt, struct cli_udp **ret)
{
	struct cli_udp *t = calloc(1, sizeof(*t));
	if (!t)
		return -ENOMEM;
	t->opt = *opt;
	TAILQ_INIT(&t->assocs);
	for (size_t i = 0; i < BUCKETS; i++)
		LIST_INIT(&t->bucket[i]);
	crypto_shorthash_keygen(t->hash_key);
	*ret = t;
	return 0;
}

void cli_udp_close_all(struct cli_udp *t)
{
	while (!TAILQ_EMPTY(&t->assocs))
		assoc_close(TAILQ_FIRST(&t->assocs));
}

void cli_udp_free(struct cli_udp *t)
{
	if (!t)
		return;
	t->opt.closed = NULL;
	cli_udp_close_all(t);
	free(t);
}

void cli_udp_set_uplink(struct cli_udp *t, struct cli_uplink *u)
{
	t->u = u;
}

const struct cli_udp_counters *cli_udp_counters(const struct cli_udp *t)
{
	return &t->n;
}
