// The exit with real sockets on loopback: a client engine and a worker engine joined in
// memory, the worker's ends being worker/exit.h. The dialer is a double of this file, so
// that a test says when a dial ends and how.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "worker/exit.h"

// ---- doubles ----

struct wrk_dial {
	const struct wrk_dial_ops *ops;
	void *ctx;
	bool udp;
	int fd;
	struct sp_target target;
	struct wrk_dial *next;
};

static struct {
	struct wrk_dial *pending;
	int hold; // dials wait
	int fail; // so many next ones end with `reason`
	enum sp_reason reason;
	int dials, cancelled;
	int journaled; // last descriptor on record
} dialer;

static int dial(const struct sp_target *t, const struct wrk_dial_ops *ops, void *ctx,
		bool udp, struct wrk_dial **ret)
{
	struct wrk_dial *d = calloc(1, sizeof(*d));
	*d = (struct wrk_dial){ops, ctx, udp, -1, *t, dialer.pending};
	dialer.pending = d;
	dialer.dials++;
	*ret = d;
	return 0;
}

int wrk_dial_tcp(struct wrk_dialer *d, const struct sp_target *t,
		 const struct wrk_dial_ops *ops, void *ctx, struct wrk_dial **ret)
{
	(void)d;
	return dial(t, ops, ctx, false, ret);
}

int wrk_dial_udp(struct wrk_dialer *d, const struct sp_target *t,
		 const struct wrk_dial_ops *ops, void *ctx, struct wrk_dial **ret)
{
	(void)d;
	return dial(t, ops, ctx, true, ret);
}

void wrk_dial_cancel(struct wrk_dial *d)
{
	struct wrk_dial **p = &dialer.pending;
	while (*p && *p != d)
		p = &(*p)->next;
	assert_non_null(*p);
	*p = d->next;
	dialer.cancelled++;
	free(d);
}

void sp_session_clock_touch(struct sp_session_clock *c, struct sp_session *s)
{
	(void)c;
	(void)s;
}

static void finish_dial(struct wrk_dial *d)
{
	struct sockaddr_storage sa;
	socklen_t len;
	struct sp_target bound = {.kind = SP_TARGET_IPV4, .v4 = {127, 0, 0, 1}};
	if (dialer.fail) {
		dialer.fail--;
		d->ops->done(d->ctx, -1, dialer.reason, NULL);
		free(d);
		return;
	}
	assert_int_equal(sp_target_to_sockaddr(&d->target, &sa, &len), 0);
	int fd = socket(AF_INET, d->udp ? SOCK_DGRAM : SOCK_STREAM, 0);
	if (d->ops->journal)
		d->ops->journal(d->ctx, 0, fd);
	assert_int_equal(connect(fd, (struct sockaddr *)&sa, len), 0);
	fcntl(fd, F_SETFL, O_NONBLOCK);
	d->ops->done(d->ctx, fd, SP_REASON_NONE, &bound);
	free(d);
}

// ---- the world ----

static struct {
	struct sp_loop *loop;
	struct sp_arena *arena[2];
	struct sp_session *s[2]; // client, worker
	bool wake[2];
	struct wrk_exit *exit;
	struct wrk_exit_session es;
	struct wrk_tally tally;
	// what the application saw
	uint8_t *got;
	size_t n_got, got_cap;
	bool app_blocked, opened, fin;
	int closed;
	enum sp_reason why;
	int dgrams, flows_closed;
	enum sp_reason flow_why;
	char dgram[64];
} w;
static struct sp_gather gather;

static void worker_open(void *ctx, struct sp_stream *st, const struct sp_target *t)
{
	(void)ctx;
	wrk_exit_stream_open(&w.es, st, t);
}

static size_t worker_sink(void *ctx, struct sp_stream *st, const uint8_t *b, size_t n)
{
	(void)ctx;
	return wrk_exit_stream_sink(st, b, n);
}

static void worker_fin(void *ctx, struct sp_stream *st)
{
	(void)ctx;
	wrk_exit_stream_sink_fin(st);
}

static void worker_ready(void *ctx, struct sp_stream *st)
{
	(void)ctx;
	wrk_exit_stream_source_ready(st);
}

static void worker_closed(void *ctx, struct sp_stream *st, enum sp_reason why)
{
	(void)ctx;
	wrk_exit_stream_closed(st, why);
}

static void worker_flow_open(void *ctx, struct sp_flow *fl, const struct sp_target *t)
{
	(void)ctx;
	wrk_exit_flow_open(&w.es, fl, t);
}

static void worker_flow_data(void *ctx, struct sp_flow *fl, const uint8_t *b, size_t n)
{
	(void)ctx;
	wrk_exit_flow_data(fl, b, n);
}

static void worker_flow_closed(void *ctx, struct sp_flow *fl, enum sp_reason why)
{
	(void)ctx;
	wrk_exit_flow_closed(fl, why);
}

static const struct sp_session_ops worker_ops = {
	.stream_open = worker_open,
	.stream_sink = worker_sink,
	.stream_sink_fin = worker_fin,
	.stream_source_ready = worker_ready,
	.stream_closed = worker_closed,
	.flow_open = worker_flow_open,
	.flow_data = worker_flow_data,
	.flow_closed = worker_flow_closed,
};

static void app_opened(void *ctx, struct sp_stream *st, const struct sp_target *bound)
{
	(void)ctx;
	(void)st;
	(void)bound;
	w.opened = true;
}

static size_t app_sink(void *ctx, struct sp_stream *st, const uint8_t *b, size_t n)
{
	(void)ctx;
	(void)st;
	if (w.app_blocked)
		return 0;
	if (w.n_got + n > w.got_cap) {
		w.got_cap = 2 * (w.n_got + n);
		w.got = realloc(w.got, w.got_cap);
	}
	memcpy(w.got + w.n_got, b, n);
	w.n_got += n;
	return n;
}

static void app_fin(void *ctx, struct sp_stream *st)
{
	(void)ctx;
	(void)st;
	w.fin = true;
}

static void app_ready(void *ctx, struct sp_stream *st)
{
	(void)ctx;
	(void)st;
}

static void app_closed(void *ctx, struct sp_stream *st, enum sp_reason why)
{
	(void)ctx;
	(void)st;
	w.closed++;
	w.why = why;
}

static void app_dgram(void *ctx, struct sp_flow *fl, const uint8_t *b, size_t n)
{
	(void)ctx;
	(void)fl;
	w.dgrams++;
	memset(w.dgram, 0, sizeof(w.dgram));
	memcpy(w.dgram, b, n < sizeof(w.dgram) ? n : sizeof(w.dgram) - 1);
}

static void app_flow_closed(void *ctx, struct sp_flow *fl, enum sp_reason why)
{
	(void)ctx;
	(void)fl;
	w.flows_closed++;
	w.flow_why = why;
}

static void app_attached(void *ctx, unsigned slot, bool fresh)
{
	(void)ctx;
	(void)slot;
	(void)fresh;
}

static const struct sp_session_ops app_ops = {
	.stream_opened = app_opened,
	.stream_sink = app_sink,
	.stream_sink_fin = app_fin,
	.stream_source_ready = app_ready,
	.stream_closed = app_closed,
	.flow_data = app_dgram,
	.flow_closed = app_flow_closed,
	.attached = app_attached,
};

static void on_wake(void *link)
{
	*(bool *)link = true;
}

static void on_close(void *link, enum sp_reason why)
{
	(void)link;
	(void)why;
}

static const struct sp_slot_ops slot_ops = {on_wake, on_close};

// Moves one record from side `i`; false: there was none.
static bool carry(int i)
{
	static uint8_t plain[SP_RECORD_PLAIN_MAX];
	uint64_t now = sp_loop_refresh(w.loop);
	size_t n = 0, off = 0;
	bool rekey;
	enum sp_reason why;
	if (!sp_session_output(w.s[i], 0, SP_RECORD_PLAIN_MAX, &gather, now))
		return false;
	for (int k = 0; k < gather.n; k++) {
		memcpy(plain + n, gather.iov[k].iov_base, gather.iov[k].iov_len);
		n += gather.iov[k].iov_len;
	}
	if (i == 0 && sp_session_epoch(w.s[1]) == 0) {
		struct sp_attach at;
		int used = sp_attach_parse(plain, n, &at);
		assert_true(used > 0);
		assert_int_equal(sp_session_attach_worker(w.s[1], &at, true, &slot_ops,
							  &w.wake[1], now),
				 0);
		off = (size_t)used;
	}
	assert_int_equal(
		sp_session_input(w.s[1 - i], 0, plain + off, n - off, now, &rekey, &why),
		0);
	return true;
}

static void turn(void)
{
	while (dialer.pending && !dialer.hold) {
		struct wrk_dial *d = dialer.pending;
		dialer.pending = d->next;
		finish_dial(d);
	}
	for (int i = 0; i < 2; i++) {
		sp_session_tick(w.s[i], sp_loop_refresh(w.loop));
		while (carry(i))
			;
	}
	struct timeval ms = {.tv_usec = 1000};
	event_base_loopexit(sp_loop_base(w.loop), &ms);
	assert_int_equal(sp_loop_turn(w.loop, false), 0);
}

#define UNTIL(cond)                                                                      \
	do {                                                                             \
		uint64_t end_ = sp_loop_refresh(w.loop) + 10000000;                      \
		while (!(cond)) {                                                        \
			turn();                                                          \
			if (sp_loop_refresh(w.loop) > end_)                              \
				fail_msg("never: %s", #cond);                            \
		}                                                                        \
	} while (0)

static int setup(void **state)
{
	(void)state;
	memset(&w, 0, sizeof(w));
	memset(&dialer, 0, sizeof(dialer));
	assert_int_equal(sp_loop_new(&w.loop), 0);
	for (int i = 0; i < 2; i++) {
		struct sp_arena_options ao = {
			.max_sessions = 4, .max_streams = 256, .memory_bytes = 32 << 20};
		struct sp_session_options so = {
			.role = i ? SP_ROLE_WORKER : SP_ROLE_CLIENT,
			.id = {1, 2, 3},
			.ops = i ? &worker_ops : &app_ops,
			.clock_us = sp_loop_clock_us(w.loop),
		};
		sp_session_limits_default(&so.limits);
		assert_int_equal(sp_arena_new(&ao, &w.arena[i]), 0);
		so.arena = w.arena[i];
		assert_int_equal(sp_session_new(&so, sp_loop_now_us(w.loop), &w.s[i]), 0);
	}
	struct wrk_exit_options eo = {
		.loop = w.loop,
		.arena = w.arena[1],
		.max_flows = 8,
		.max_sockets = 100,
		.stream_idle_ms = 60000,
		.flow_dns_ms = 60,
	};
	assert_int_equal(wrk_exit_new(&eo, &w.exit), 0);
	wrk_exit_session_init(&w.es, w.exit, &w.tally);
	sp_session_attach_client(w.s[0], 0, &slot_ops, &w.wake[0],
				 sp_loop_now_us(w.loop));
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (int i = 0; i < 2; i++)
		sp_session_free(w.s[i], SP_REASON_SHUTDOWN);
	assert_int_equal(wrk_exit_counters(w.exit)->streams, 0);
	assert_int_equal(wrk_exit_counters(w.exit)->flows, 0);
	assert_int_equal(wrk_exit_counters(w.exit)->sockets, 0);
	assert_null(dialer.pending);
	wrk_exit_free(w.exit);
	for (int i = 0; i < 2; i++)
		sp_arena_free(w.arena[i]);
	sp_loop_free(w.loop);
	free(w.got);
	return 0;
}

// ---- destinations ----

static int listening(struct sp_target *ret, int type)
{
	struct sockaddr_in sa = {.sin_family = AF_INET,
				 .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(sa);
	int fd = socket(AF_INET, type, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, len), 0);
	if (type == SOCK_STREAM)
		assert_int_equal(listen(fd, 64), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
	sp_target_from_sockaddr((struct sockaddr *)&sa, ret);
	return fd;
}

static struct sp_stream *open_to(const struct sp_target *t)
{
	struct sp_stream *st;
	assert_int_equal(sp_session_open(w.s[0], t, NULL, &st), 0);
	return st;
}

// A stream to a destination socket, which is returned.
static int joined(struct sp_stream **ret)
{
	struct sp_target t;
	int l = listening(&t, SOCK_STREAM);
	w.opened = false;
	*ret = open_to(&t);
	UNTIL(w.opened);
	int fd = accept4(l, NULL, NULL, SOCK_NONBLOCK);
	assert_true(fd >= 0);
	close(l);
	return fd;
}

// The application writes what fits; returns how much.
static size_t app_write(struct sp_stream *st, const uint8_t *buf, size_t len)
{
	struct iovec iov[16];
	size_t done = 0;
	int n;
	while (done < len && (n = sp_stream_reserve(st, len - done, iov, 16)) > 0) {
		size_t put = 0;
		for (int i = 0; i < n; i++) {
			memcpy(iov[i].iov_base, buf + done + put, iov[i].iov_len);
			put += iov[i].iov_len;
		}
		sp_stream_commit(st, put);
		done += put;
	}
	return done;
}

static uint8_t pattern(size_t i)
{
	return (uint8_t)(i * 31 + (i >> 8) * 7 + (i >> 16));
}

static void write_pattern(int fd, size_t n, size_t *sent)
{
	uint8_t buf[8192];
	while (*sent < n) {
		size_t k = n - *sent < sizeof(buf) ? n - *sent : sizeof(buf);
		for (size_t i = 0; i < k; i++)
			buf[i] = pattern(*sent + i);
		ssize_t r = send(fd, buf, k, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (r < 0)
			return;
		*sent += (size_t)r;
	}
}

static void reset_socket(int fd)
{
	struct linger now = {.l_onoff = 1};
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(fd);
}

// ---- claims: streams ----

static void bytes_and_ends_pass_both_ways(void **state)
{
	struct sp_stream *st;
	char buf[16];
	(void)state;
	int fd = joined(&st);
	assert_int_equal(app_write(st, (const uint8_t *)"hello", 5), 5);
	sp_stream_source_fin(st);
	ssize_t n = -1;
	UNTIL((n = recv(fd, buf, sizeof(buf), 0)) >= 0);
	assert_int_equal(n, 5);
	assert_memory_equal(buf, "hello", 5);
	UNTIL((n = recv(fd, buf, sizeof(buf), 0)) >= 0);
	assert_int_equal(n, 0);
	assert_int_equal(w.closed, 0); // the other direction lives
	assert_int_equal(send(fd, "world!", 6, 0), 6);
	UNTIL(w.n_got == 6);
	assert_false(w.fin);
	close(fd);
	UNTIL(w.fin && w.closed);
	assert_int_equal(w.why, SP_REASON_CLOSED);
	UNTIL(wrk_exit_counters(w.exit)->streams == 0);
	assert_int_equal(wrk_exit_counters(w.exit)->streams_ended[SP_REASON_CLOSED], 1);
	assert_int_equal(w.tally.bytes_from_client, 5);
	assert_int_equal(w.tally.bytes_to_client, 6);
}

static void
bulk_arrives_intact_and_an_application_that_stops_holds_the_source(void **state)
{
	struct sp_stream *st;
	size_t total = 24 << 20, sent = 0;
	(void)state;
	int fd = joined(&st);
	w.app_blocked = true;
	for (int i = 0; i < 300; i++) {
		write_pattern(fd, total, &sent);
		turn();
	}
	assert_true(sent < total); // credit ran out
	w.app_blocked = false;
	sp_stream_sink_ready(st);
	while (w.n_got < total) {
		write_pattern(fd, total, &sent);
		turn();
	}
	for (size_t i = 0; i < total; i++)
		if (w.got[i] != pattern(i))
			fail_msg("byte %zu", i);
	close(fd);
	sp_stream_source_fin(st);
	UNTIL(w.closed);
}

static void a_destination_that_does_not_read_gets_all_once_it_does(void **state)
{
	struct sp_stream *st;
	enum { TOTAL = 12 << 20 };
	uint8_t *data = malloc(TOTAL), buf[65536];
	size_t put = 0, got = 0;
	(void)state;
	for (size_t i = 0; i < TOTAL; i++)
		data[i] = pattern(i);
	int fd = joined(&st);
	for (int i = 0; i < 200; i++) {
		put += app_write(st, data + put, TOTAL - put);
		turn();
	}
	assert_true(put < TOTAL);
	while (got < TOTAL) {
		ssize_t n = recv(fd, buf, sizeof(buf), 0);
		if (n > 0) {
			assert_memory_equal(buf, data + got, (size_t)n);
			got += (size_t)n;
		}
		put += app_write(st, data + put, TOTAL - put);
		turn();
	}
	sp_stream_source_fin(st);
	close(fd);
	UNTIL(w.closed);
	free(data);
}

static void what_a_destination_sent_before_its_reset_is_delivered(void **state)
{
	struct sp_stream *st;
	size_t sent = 0;
	(void)state;
	int fd = joined(&st);
	w.app_blocked = true;
	write_pattern(fd, 50000, &sent);
	assert_int_equal(sent, 50000);
	int unsent;
	UNTIL(ioctl(fd, SIOCOUTQ, &unsent) == 0 && unsent == 0);
	reset_socket(fd);
	UNTIL(wrk_exit_counters(w.exit)->draining == 1);
	assert_int_equal(w.closed, 0);
	w.app_blocked = false;
	sp_stream_sink_ready(st);
	UNTIL(w.closed);
	assert_int_equal(w.n_got, 50000);
	assert_int_equal(w.why, SP_REASON_PEER_RESET);
	assert_false(w.fin);
}

static void a_reset_that_a_write_meets_first_is_told_all_the_same(void **state)
{
	struct sp_stream *st;
	(void)state;
	int fd = joined(&st);
	reset_socket(fd);
	for (int i = 0; i < 50 && !w.closed; i++) {
		app_write(st, (const uint8_t *)"x", 1);
		while (carry(0)) // before the loop sees the reset
			;
		turn();
	}
	UNTIL(w.closed);
	assert_int_equal(w.why, SP_REASON_PEER_RESET);
}

static void a_reset_by_the_client_is_a_reset_at_the_destination(void **state)
{
	struct sp_stream *st;
	char c;
	(void)state;
	int fd = joined(&st);
	sp_stream_reset(st, SP_REASON_APP_RESET);
	ssize_t n;
	UNTIL((n = recv(fd, &c, 1, 0)) >= 0 || errno != EAGAIN);
	assert_int_equal(n, -1);
	assert_int_equal(errno, ECONNRESET);
	close(fd);
	assert_int_equal(wrk_exit_counters(w.exit)->streams_ended[SP_REASON_APP_RESET],
			 1);
}

static void urgent_data_does_not_stop_a_stream(void **state)
{
	struct sp_stream *st;
	(void)state;
	int fd = joined(&st), on = 1;
	// the dialer of the program sets it, the double does not
	int dest = sp_arena_stream(w.arena[1], 0)->fd[0];
	setsockopt(dest, SOL_SOCKET, SO_OOBINLINE, &on, sizeof(on));
	assert_int_equal(send(fd, "abc", 3, MSG_OOB), 3);
	assert_int_equal(send(fd, "defg", 4, 0), 4);
	UNTIL(w.n_got == 7);
	assert_memory_equal(w.got, "abcdefg", 7);
	reset_socket(fd);
	UNTIL(w.closed);
}

static void early_data_waits_for_the_dial(void **state)
{
	struct sp_target t;
	char buf[8];
	(void)state;
	int l = listening(&t, SOCK_STREAM);
	dialer.hold = 1;
	struct sp_stream *st = open_to(&t);
	assert_int_equal(app_write(st, (const uint8_t *)"early", 5), 5);
	for (int i = 0; i < 10; i++)
		turn();
	dialer.hold = 0;
	UNTIL(w.opened);
	int fd = accept4(l, NULL, NULL, SOCK_NONBLOCK);
	ssize_t n;
	UNTIL((n = recv(fd, buf, sizeof(buf), 0)) > 0);
	assert_int_equal(n, 5);
	close(fd);
	close(l);
}

static void a_failed_dial_is_told_with_its_reason(void **state)
{
	struct sp_target t = {.kind = SP_TARGET_IPV4, .port = 9};
	(void)state;
	dialer.fail = 1;
	dialer.reason = SP_REASON_REFUSED;
	open_to(&t);
	UNTIL(w.closed);
	assert_int_equal(w.why, SP_REASON_REFUSED);
}

static void a_dial_under_way_is_cancelled_with_its_stream(void **state)
{
	struct sp_target t = {.kind = SP_TARGET_IPV4, .port = 9};
	(void)state;
	dialer.hold = 1;
	struct sp_stream *st = open_to(&t);
	UNTIL(dialer.dials == 1);
	sp_stream_reset(st, SP_REASON_APP_RESET);
	UNTIL(dialer.cancelled == 1);
}

static void an_idle_stream_is_reset_after_its_time(void **state)
{
	struct sp_stream *st;
	(void)state;
	int fd = joined(&st);
	wrk_exit_set_limits(w.exit, 8, 50);
	UNTIL(w.closed);
	assert_int_equal(w.why, SP_REASON_IDLE);
	close(fd);
}

static void a_paced_session_gets_its_rate_each_way_and_every_byte(void **state)
{
	struct sp_stream *st;
	enum { TOTAL = 600000, RATE = 1000000 };
	uint8_t *data = calloc(1, TOTAL), buf[65536];
	size_t sent = 0, put = 0, up = 0;
	(void)state;
	wrk_exit_session_set_rate(&w.es, RATE);
	int fd = joined(&st);
	uint64_t start = sp_loop_refresh(w.loop);
	while (w.n_got < TOTAL || up < TOTAL) {
		ssize_t n = recv(fd, buf, sizeof(buf), 0);
		up += n > 0 ? (size_t)n : 0;
		write_pattern(fd, TOTAL, &sent);
		put += app_write(st, data + put, TOTAL - put);
		turn();
	}
	uint64_t us = sp_loop_refresh(w.loop) - start;
	// less the burst of 100,000 and what one turn may go over
	assert_in_range(us, 400000, 1500000);
	assert_int_equal(w.n_got, TOTAL);
	assert_int_equal(up, TOTAL);
	for (size_t i = 0; i < TOTAL; i++)
		if (w.got[i] != pattern(i))
			fail_msg("byte %zu", i);
	reset_socket(fd);
	UNTIL(w.closed);
	free(data);
}

// ---- claims: flows ----

static struct sp_flow *flow_to(const struct sp_target *t)
{
	struct sp_flow *fl;
	assert_int_equal(sp_session_open_flow(w.s[0], t, NULL, &fl), 0);
	return fl;
}

static void ask(struct sp_flow *fl, int server, const char *text)
{
	struct sockaddr_in peer;
	socklen_t len = sizeof(peer);
	char buf[64];
	int before = w.dgrams;
	ssize_t n;
	assert_int_equal(sp_flow_send(fl, (const uint8_t *)text, strlen(text)), 0);
	UNTIL((n = recvfrom(server, buf, sizeof(buf), MSG_DONTWAIT,
			    (struct sockaddr *)&peer, &len)) >= 0);
	assert_int_equal(sendto(server, buf, (size_t)n, 0, (struct sockaddr *)&peer, len),
			 n);
	UNTIL(w.dgrams == before + 1);
	assert_string_equal(w.dgram, text);
}

static void datagrams_go_and_come(void **state)
{
	struct sp_target t;
	(void)state;
	int server = listening(&t, SOCK_DGRAM);
	struct sp_flow *fl = flow_to(&t);
	ask(fl, server, "one");
	ask(fl, server, "two");
	assert_int_equal(w.tally.dgrams_from_client, 2);
	assert_int_equal(w.tally.dgrams_to_client, 2);
	assert_int_equal(w.tally.dgram_bytes_to_client, 6);
	close(server);
}

static void eight_datagrams_wait_for_a_name_and_no_more(void **state)
{
	struct sp_target t;
	char buf[8];
	int n = 0;
	(void)state;
	int server = listening(&t, SOCK_DGRAM);
	dialer.hold = 1;
	struct sp_flow *fl = flow_to(&t);
	for (int i = 0; i < 12; i++) {
		assert_int_equal(sp_flow_send(fl, (const uint8_t *)"d", 1), 0);
		turn();
	}
	dialer.hold = 0;
	UNTIL(recv(server, buf, sizeof(buf), MSG_DONTWAIT) == 1 && ++n == 8);
	for (int i = 0; i < 20; i++)
		turn();
	assert_int_equal(recv(server, buf, sizeof(buf), MSG_DONTWAIT), -1);
	assert_int_equal(wrk_exit_counters(w.exit)->dgrams_dropped, 4);
	close(server);
}

static void the_stalest_flow_makes_room_and_the_newest_works(void **state)
{
	struct sp_target t;
	(void)state;
	int server = listening(&t, SOCK_DGRAM);
	struct sp_flow *first = flow_to(&t);
	ask(first, server, "first");
	struct sp_flow *second = flow_to(&t);
	ask(second, server, "second");
	ask(first, server, "again"); // now the second is the stalest
	for (int i = 0; i < 7; i++)
		ask(flow_to(&t), server, "more");
	assert_int_equal(w.flows_closed, 1);
	assert_int_equal(w.flow_why, SP_REASON_FLOW_LIMIT);
	ask(first, server, "still here");
	assert_int_equal(wrk_exit_counters(w.exit)->flows_evicted, 1);
	close(server);
}

static void without_descriptors_a_stale_flow_pays_for_a_stream(void **state)
{
	struct sp_target t, to;
	(void)state;
	int server = listening(&t, SOCK_DGRAM), l = listening(&to, SOCK_STREAM);
	ask(flow_to(&t), server, "idle then");
	dialer.fail = 1;
	dialer.reason = SP_REASON_NO_DESCRIPTORS;
	open_to(&to);
	UNTIL(w.opened);
	UNTIL(w.flows_closed == 1);
	assert_int_equal(wrk_exit_counters(w.exit)->no_descriptors, 1);
	// nothing to give up: it is told
	dialer.fail = 1;
	open_to(&to);
	UNTIL(w.closed);
	assert_int_equal(w.why, SP_REASON_NO_DESCRIPTORS);
	close(server);
	close(l);
}

static void a_dns_flow_ends_soon_after_its_answer_and_not_before(void **state)
{
	struct sp_target t;
	(void)state;
	int server = listening(&t, SOCK_DGRAM);
	uint16_t port = t.port;
	t.port = 53;
	dialer.hold = 1;
	struct sp_flow *fl = flow_to(&t);
	assert_int_equal(sp_flow_send(fl, (const uint8_t *)"q", 1), 0);
	UNTIL(dialer.pending);
	dialer.pending->target.port = port; // nobody may bind 53 here
	dialer.hold = 0;
	struct sockaddr_in peer;
	socklen_t len = sizeof(peer);
	char c;
	UNTIL(recvfrom(server, &c, 1, MSG_DONTWAIT, (struct sockaddr *)&peer, &len) == 1);
	uint64_t wait = sp_loop_refresh(w.loop) + 150000;
	UNTIL(sp_loop_refresh(w.loop) > wait);
	assert_int_equal(w.flows_closed, 0);
	assert_int_equal(sendto(server, "a", 1, 0, (struct sockaddr *)&peer, len), 1);
	UNTIL(w.dgrams == 1);
	UNTIL(w.flows_closed == 1);
	assert_int_equal(w.flow_why, SP_REASON_IDLE);
	close(server);
}

static void icmp_errors_are_counted_and_end_nothing(void **state)
{
	struct sp_target t;
	(void)state;
	int server = listening(&t, SOCK_DGRAM);
	struct sp_flow *fl = flow_to(&t);
	ask(fl, server, "x");
	close(server);
	assert_int_equal(sp_flow_send(fl, (const uint8_t *)"y", 1), 0);
	UNTIL(wrk_exit_counters(w.exit)->icmp_errors >= 1);
	assert_int_equal(w.flows_closed, 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(bytes_and_ends_pass_both_ways),
		T(bulk_arrives_intact_and_an_application_that_stops_holds_the_source),
		T(a_destination_that_does_not_read_gets_all_once_it_does),
		T(what_a_destination_sent_before_its_reset_is_delivered),
		T(a_reset_that_a_write_meets_first_is_told_all_the_same),
		T(a_reset_by_the_client_is_a_reset_at_the_destination),
		T(urgent_data_does_not_stop_a_stream),
		T(early_data_waits_for_the_dial),
		T(a_failed_dial_is_told_with_its_reason),
		T(a_dial_under_way_is_cancelled_with_its_stream),
		T(an_idle_stream_is_reset_after_its_time),
		T(a_paced_session_gets_its_rate_each_way_and_every_byte),
		T(datagrams_go_and_come),
		T(eight_datagrams_wait_for_a_name_and_no_more),
		T(the_stalest_flow_makes_room_and_the_newest_works),
		T(without_descriptors_a_stale_flow_pays_for_a_stream),
		T(a_dns_flow_ends_soon_after_its_answer_and_not_before),
		T(icmp_errors_are_counted_and_end_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
