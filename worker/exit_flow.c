// Datagram flows: one connected UDP socket each, so that the kernel lets in only what
// comes from the destination. Datagrams that do not fit anywhere are dropped and counted.
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "worker/exit_internal.h"

#define DGRAM_ROOM (SP_DATAGRAM_MAX + 1) // a longer one is seen as such

struct exit_batch {
	struct mmsghdr msgs[EXIT_FLOW_BATCH];
	struct iovec iov[EXIT_FLOW_BATCH];
	uint8_t buf[EXIT_FLOW_BATCH][DGRAM_ROOM];
};

struct exit_batch *exit_batch_new(void)
{
	struct exit_batch *b = calloc(1, sizeof(*b));
	for (int i = 0; b && i < EXIT_FLOW_BATCH; i++) {
		b->iov[i] = (struct iovec){b->buf[i], DGRAM_ROOM};
		b->msgs[i].msg_hdr.msg_iov = &b->iov[i];
		b->msgs[i].msg_hdr.msg_iovlen = 1;
	}
	return b;
}

static void touch(struct exit_flow *f)
{
	struct wrk_exit *x = f->x;
	f->last_us = exit_now(x);
	if (TAILQ_NEXT(f, lru) == NULL)
		return;
	TAILQ_REMOVE(&x->lru, f, lru);
	TAILQ_INSERT_TAIL(&x->lru, f, lru);
}

static void drop_packets(struct exit_flow *f)
{
	struct exit_packet *p;
	while ((p = STAILQ_FIRST(&f->packets))) {
		STAILQ_REMOVE_HEAD(&f->packets, next);
		free(p);
	}
	f->npackets = 0;
}

static void set_answered(struct exit_flow *f, bool answered)
{
	if (!f->dns)
		return;
	if (f->answered)
		TAILQ_REMOVE(&f->x->answered, f, dns_link);
	f->answered = answered;
	if (answered)
		TAILQ_INSERT_TAIL(&f->x->answered, f, dns_link);
}

// Forgets the flow; the engine has done so or does so now.
static void flow_free(struct exit_flow *f, enum sp_reason reason)
{
	struct wrk_exit *x = f->x;
	if (f->dial)
		wrk_dial_cancel(f->dial);
	if (f->record != SP_ARENA_NONE)
		sp_arena_flow_release(x->opt.arena, f->record);
	if (f->fd >= 0) {
		if (event_initialized(&f->ev))
			event_del(&f->ev);
		close(f->fd);
	}
	x->n.dgrams_dropped += f->npackets;
	drop_packets(f);
	set_answered(f, false);
	TAILQ_REMOVE(&x->lru, f, lru);
	x->n.flows--;
	x->n.sockets--;
	x->n.flows_ended[reason <= SP_REASON__LAST ? reason : SP_REASON_INTERNAL]++;
	free(f);
}

static uint64_t work_for(const struct exit_flow *f)
{
	return sp_arena_work_for(f->x->opt.arena,
				 sp_session_record(sp_flow_session(f->fl)));
}

static void flow_fail(struct exit_flow *f, enum sp_reason reason)
{
	struct sp_flow *fl = f->fl;
	struct sp_arena *a = f->x->opt.arena;
	uint64_t before = work_for(f);
	flow_free(f, reason);
	sp_flow_close(fl, reason);
	sp_arena_work_was(a, before);
}

// The stalest idle one goes, never `keep`, which is the newest.
static bool evict(struct wrk_exit *x, const struct exit_flow *keep)
{
	struct exit_flow *f = TAILQ_FIRST(&x->lru);
	while (f && (f == keep || f->fd < 0))
		f = TAILQ_NEXT(f, lru);
	if (!f)
		return false;
	x->n.flows_evicted++;
	flow_fail(f, SP_REASON_FLOW_LIMIT);
	return true;
}

bool wrk_exit_evict_flow(struct wrk_exit *x)
{
	return evict(x, NULL);
}

// ---- from the destination ----

static void deliver(struct exit_flow *f, const struct mmsghdr *m, const uint8_t *buf)
{
	if (m->msg_len > SP_DATAGRAM_MAX ||
	    !exit_pace_dgram(&f->session->down, m->msg_len, exit_now(f->x)) ||
	    sp_flow_send(f->fl, buf, m->msg_len)) {
		f->x->n.dgrams_dropped++;
		return;
	}
	f->session->tally->dgrams_to_client++;
	f->session->tally->dgram_bytes_to_client += m->msg_len;
	(*f->session->usage)->down += m->msg_len;
}

// Level-triggered: what is not read in this turn is read in the next.
static void on_readable(evutil_socket_t fd, short what, void *arg)
{
	struct exit_flow *f = arg;
	struct wrk_exit *x = f->x;
	struct exit_batch *b = x->batch;
	bool any = false;
	uint64_t before = work_for(f);
	(void)what;
	exit_now(x);
	for (int turn = 0; turn < EXIT_FLOW_BATCHES; turn++) {
		int n = recvmmsg(fd, b->msgs, EXIT_FLOW_BATCH, MSG_DONTWAIT, NULL);
		if (n < 0) {
			if (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)
				x->n.icmp_errors++; // it is cleared by being told
			break;
		}
		for (int i = 0; i < n; i++)
			deliver(f, &b->msgs[i], b->buf[i]);
		any = any || n > 0;
		if (n < EXIT_FLOW_BATCH)
			break;
	}
	if (any) {
		touch(f);
		set_answered(f, true);
	}
	sp_arena_work_was(x->opt.arena, before);
}

// ---- to the destination ----

static void send_out(struct exit_flow *f, const uint8_t *buf, size_t len)
{
	struct wrk_exit *x = f->x;
	if (!exit_pace_dgram(&f->session->up, len, exit_now(x))) {
		x->n.dgrams_dropped++;
		return;
	}
	for (int tries = 0; tries < 2; tries++) {
		if (send(f->fd, buf, len, MSG_NOSIGNAL | MSG_DONTWAIT) >= 0) {
			f->session->tally->dgrams_from_client++;
			f->session->tally->dgram_bytes_from_client += len;
			(*f->session->usage)->up += len;
			return;
		}
		if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EMSGSIZE ||
		    errno == ENOBUFS)
			break;
		x->n.icmp_errors++; // of an earlier datagram; this one was not sent yet
	}
	x->n.dgrams_dropped++;
}

static void queue_packet(struct exit_flow *f, const uint8_t *buf, size_t len)
{
	struct exit_packet *p = NULL;
	if (f->npackets < EXIT_FLOW_QUEUE)
		p = malloc(sizeof(*p) + len);
	if (!p) {
		f->x->n.dgrams_dropped++;
		return;
	}
	p->len = len;
	memcpy(p->data, buf, len);
	STAILQ_INSERT_TAIL(&f->packets, p, next);
	f->npackets++;
}

void wrk_exit_flow_data(struct sp_flow *fl, const uint8_t *buf, size_t len)
{
	struct exit_flow *f = sp_flow_user(fl);
	if (!f)
		return;
	touch(f);
	set_answered(f, false);
	if (f->fd >= 0)
		send_out(f, buf, len);
	else
		queue_packet(f, buf, len);
}

// ---- life ----

void wrk_exit_flow_closed(struct sp_flow *fl, enum sp_reason reason)
{
	struct exit_flow *f = sp_flow_user(fl);
	if (!f)
		return;
	sp_flow_set_user(fl, NULL);
	flow_free(f, reason);
}

static void opened(void *ctx, int fd, enum sp_reason reason,
		   const struct sp_target *bound);

static const struct wrk_dial_ops open_ops = {.done = opened};

static int open_socket(struct exit_flow *f)
{
	return wrk_dial_udp(f->x->opt.dialer, sp_flow_target(f->fl), &open_ops, f,
			    &f->dial);
}

// Descriptors ran out: the stalest flow goes, never this one, and this has one more try.
static bool open_again(struct exit_flow *f)
{
	struct wrk_exit *x = f->x;
	bool second = f->reopened;
	x->n.no_descriptors++;
	f->reopened = true;
	return !second && evict(x, f) && open_socket(f) == 0;
}

static void open_ended(struct exit_flow *f, int fd, enum sp_reason reason)
{
	struct wrk_exit *x = f->x;
	f->dial = NULL;
	if (fd < 0) {
		if (reason != SP_REASON_NO_DESCRIPTORS || !open_again(f))
			flow_fail(f, reason);
		return;
	}
	f->fd = fd;
	if (f->record != SP_ARENA_NONE)
		sp_arena_flow(x->opt.arena, f->record)->fd = fd;
	x->n.flows_opened++;
	if (event_assign(&f->ev, sp_loop_base(x->opt.loop), fd, EV_READ | EV_PERSIST,
			 on_readable, f) ||
	    event_add(&f->ev, NULL)) {
		flow_fail(f, SP_REASON_NO_MEMORY);
		return;
	}
	struct exit_packet *p;
	STAILQ_FOREACH(p, &f->packets, next)
	send_out(f, p->data, p->len);
	drop_packets(f);
}

static void opened(void *ctx, int fd, enum sp_reason reason,
		   const struct sp_target *bound)
{
	struct exit_flow *f = ctx;
	struct sp_arena *a = f->x->opt.arena;
	uint64_t before = work_for(f);
	(void)bound;
	open_ended(f, fd, reason); // may free `f`
	sp_arena_work_was(a, before);
}

// Without a record for it the flow does not outlive the process, that is all.
static uint32_t make_record(struct wrk_exit_session *es, const struct sp_flow *fl)
{
	struct sp_arena *a = es->x->opt.arena;
	uint32_t i = sp_arena_flow_alloc(a);
	if (i == SP_ARENA_NONE)
		return i;
	struct sp_flow_rec *r = sp_arena_flow(a, i);
	r->session = sp_session_record(sp_flow_session(fl));
	r->id = sp_flow_id(fl);
	r->target = *sp_flow_target(fl);
	sp_arena_live(&r->rec_state);
	return i;
}

void wrk_exit_flow_open(struct wrk_exit_session *es, struct sp_flow *fl,
			const struct sp_target *target)
{
	struct wrk_exit *x = es->x;
	x->n.flows_asked++;
	if (x->n.flows >= x->opt.max_flows)
		evict(x, NULL);
	bool old = es->adopting != SP_ARENA_NONE;
	struct exit_flow *f = old || exit_has_memory() ? calloc(1, sizeof(*f)) : NULL;
	if (!f) {
		x->n.flows_ended[SP_REASON_NO_MEMORY]++;
		sp_flow_close(fl, SP_REASON_NO_MEMORY);
		return;
	}
	f->fl = fl;
	f->x = x;
	f->session = es;
	f->fd = -1;
	f->dns = target->port == 53;
	f->last_us = exit_now(x);
	STAILQ_INIT(&f->packets);
	x->n.flows++;
	TAILQ_INSERT_TAIL(&x->lru, f, lru);
	sp_flow_set_user(fl, f);
	int fd = -1;
	f->record = es->adopting;
	es->adopting = SP_ARENA_NONE;
	if (f->record != SP_ARENA_NONE)
		fd = sp_arena_flow(x->opt.arena, f->record)->fd;
	else
		f->record = make_record(es, fl);
	if (fd >= 0) {
		x->n.sockets++;
		opened(f, fd, SP_REASON_NONE, NULL);
		return;
	}
	bool room = exit_make_room(x);
	x->n.sockets++;
	int err = room ? open_socket(f) : -EMFILE;
	if (err)
		flow_fail(f, err == SP_E_LIMIT ? SP_REASON_BUSY
			     : err == -EMFILE  ? SP_REASON_NO_DESCRIPTORS
					       : SP_REASON_NO_MEMORY);
}

void exit_flow_sweep(struct wrk_exit *x)
{
	uint64_t now = exit_now(x), keep = 1000ull * x->opt.flow_dns_ms;
	struct exit_flow *f;
	while ((f = TAILQ_FIRST(&x->answered)) && now - f->last_us >= keep)
		flow_fail(f, SP_REASON_IDLE);
}
