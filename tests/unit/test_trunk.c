// Workers' trunks, entries and homes, several in one loop, over loopback. Flights come
// from raw sockets; what a session does with a relayed carrier is tested with real
// programs.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <sodium.h>

#include "lib/link.h"
#include "lib/log.h"
#include "lib/record.h"
#include "lib/replay.h"
#include "worker/listener.h"
#include "worker/relay.h"
#include "worker/relayed.h"

#define WORKERS 3

struct node {
	struct sp_hs_worker_keys keys;
	struct sp_replay *replay;
	struct wrk_listener *listener;
	struct wrk_trunks *trunks;
	struct wrk_relays *relays;
	struct sp_link_env *links;
	uint16_t port;
	bool mute; // takes connections and says nothing
	int muted[8], n_muted;
	unsigned admitted;
};

static struct {
	struct sp_loop *loop;
	struct sp_session_clock *clock;
	struct node node[WORKERS];
	struct sp_fleet_carrier carrier[WORKERS];
	struct sp_fleet_member member[WORKERS];
} x;

// ---- what links ask; no session is ever made here ----

static enum sp_reason on_admit(void *ctx, struct sp_link *l,
			       const struct sp_hs_accept *who)
{
	(void)l;
	(void)who;
	((struct node *)ctx)->admitted++;
	return SP_REASON_TICKET;
}

static enum sp_reason on_attach(void *ctx, struct sp_link *l,
				const struct sp_hs_accept *who,
				const struct sp_attach *at, struct sp_session **ret,
				bool *ret_fresh)
{
	(void)ctx;
	(void)l;
	(void)who;
	(void)at;
	(void)ret;
	(void)ret_fresh;
	return SP_REASON_GONE;
}

static void on_stranger(void *ctx, struct sp_carrier *c, enum sp_reason why,
			const uint8_t *buf, size_t len, void *waiting)
{
	(void)ctx;
	(void)c;
	(void)why;
	(void)buf;
	(void)len;
	(void)waiting;
}

static void on_relay(void *ctx, struct sp_carrier *c, uint64_t home_id,
		     const uint8_t *flight, size_t len)
{
	wrk_relays_take(((struct node *)ctx)->relays, c, home_id, flight, len);
}

static void on_trunk(void *ctx, struct sp_carrier *c, const uint8_t *member,
		     const struct sp_hs_keys *keys, const uint8_t *answer, size_t len)
{
	wrk_trunks_accept(((struct node *)ctx)->trunks, c, member, keys, answer, len);
}

static void on_down(void *ctx, struct sp_link *l, enum sp_reason reason)
{
	(void)ctx;
	(void)l;
	(void)reason;
}

static const struct sp_link_worker_ops port_ops = {
	.admit = on_admit,
	.attach = on_attach,
	.stranger = on_stranger,
	.relay = on_relay,
	.trunk = on_trunk,
	.down = on_down,
};
static const struct sp_link_worker_ops relayed_ops = {
	.admit = on_admit,
	.attach = on_attach,
	.stranger = on_stranger,
	.down = on_down,
};

static enum sp_reason on_opened(void *ctx, struct wrk_pipe *p,
				const struct wrk_mux_source *source)
{
	struct node *n = ctx;
	return wrk_relayed_accept(n->links, &relayed_ops, n, p, source);
}

static void on_accepted(void *ctx, int fd, const struct sockaddr *peer)
{
	struct node *n = ctx;
	struct sp_carrier *c;
	struct sp_link *l;
	if (n->mute) {
		assert_true(n->n_muted < 8);
		n->muted[n->n_muted++] = fd;
		return;
	}
	assert_int_equal(sp_carrier_accepted(fd, peer, NULL, &c), 0);
	assert_int_equal(sp_link_accept(n->links, c, &port_ops, n, &l), 0);
}

// ---- a fleet ----

static void listen_somewhere(struct node *n)
{
	struct sockaddr_in in = {.sin_family = AF_INET,
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	struct sockaddr_storage sa;
	struct wrk_listener_options o = {
		.loop = x.loop, .accepted = on_accepted, .ctx = n};
	socklen_t len;
	int fd = wrk_listener_bind((struct sockaddr *)&in, sizeof(in), 16);
	assert_true(fd >= 0);
	assert_int_equal(wrk_listener_new(fd, &o, &n->listener), 0);
	assert_int_equal(wrk_listener_address(n->listener, &sa, &len), 0);
	n->port = ntohs(((struct sockaddr_in *)&sa)->sin_port);
}

static void make_member(unsigned i)
{
	struct sp_fleet_carrier *c = &x.carrier[i];
	char text[32];
	c->kind = SP_CARRIER_TCP;
	snprintf(text, sizeof(text), "127.0.0.1:%u", x.node[i].port);
	assert_int_equal(sp_target_parse(text, &c->address), 0);
	x.member[i] = (struct sp_fleet_member){
		.home_id = i + 1, .carriers = c, .n_carriers = 1};
	snprintf(x.member[i].name, sizeof(x.member[i].name), "w%u", i);
	memcpy(x.member[i].public_key, x.node[i].keys.static_public, 32);
}

static void introduce(unsigned i, size_t from, size_t n)
{
	struct sp_fleet_members m = {x.member + from, n};
	assert_int_equal(wrk_trunks_set_members(x.node[i].trunks, &m), 0);
}

static void node_new(unsigned i, const uint8_t *route_key)
{
	struct node *n = &x.node[i];
	size_t bytes = sp_replay_bytes(64);
	randombytes_buf(n->keys.static_secret, 32);
	randombytes_buf(n->keys.boot_key, 32);
	memcpy(n->keys.route_key, route_key, 32);
	n->keys.home_id = i + 1;
	n->keys.suites = 3;
	n->keys.ticket_lifetime_s = 3600;
	assert_int_equal(sp_hs_worker_keys_init(&n->keys), 0);
	assert_int_equal(sp_replay_format(malloc(bytes), bytes, 64, &n->replay), 0);
	struct wrk_trunks_options t = {
		.loop = x.loop,
		.keys = &n->keys,
		.limits = {16, 1000, 1 << 20, 16 << 20, 600000},
		.opened = on_opened,
		.ctx = n,
	};
	assert_int_equal(wrk_trunks_new(&t, &n->trunks), 0);
	struct wrk_relays_options r = {
		.loop = x.loop,
		.trunks = n->trunks,
		.limits = {8, 4, 4000, 60000},
	};
	assert_int_equal(wrk_relays_new(&r, &n->relays), 0);
	struct sp_link_env_options l = {
		.loop = x.loop,
		.clock = x.clock,
		.max_half_open = 64,
		.handshake_ms = 10000,
		.worker_keys = &n->keys,
		.replay = n->replay,
		.is_member = wrk_trunks_is_member,
		.member_ctx = n->trunks,
	};
	assert_int_equal(sp_link_env_new(&l, &n->links), 0);
	listen_somewhere(n);
	make_member(i);
}

static int setup(void **state)
{
	uint8_t route_key[32];
	(void)state;
	memset(&x, 0, sizeof(x));
	randombytes_buf(route_key, sizeof(route_key));
	assert_int_equal(sp_loop_new(&x.loop), 0);
	assert_int_equal(sp_session_clock_new(x.loop, &x.clock), 0);
	for (unsigned i = 0; i < WORKERS; i++)
		node_new(i, route_key);
	for (unsigned i = 0; i < WORKERS; i++)
		introduce(i, 0, WORKERS);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (unsigned i = 0; i < WORKERS; i++) {
		struct node *n = &x.node[i];
		wrk_listener_free(n->listener);
		sp_link_env_free(n->links);
		wrk_relays_free(n->relays);
		wrk_trunks_free(n->trunks);
		free(n->replay);
		while (n->n_muted)
			close(n->muted[--n->n_muted]);
	}
	sp_session_clock_free(x.clock);
	sp_loop_free(x.loop);
	return 0;
}

static const struct wrk_trunks_counters *count(unsigned i)
{
	return wrk_trunks_counters(x.node[i].trunks);
}

#define UNTIL(condition)                                                                 \
	do {                                                                             \
		uint64_t until_ = sp_loop_now_us(x.loop) + 20000000;                     \
		struct sp_timer tick_;                                                   \
		sp_timer_init(&tick_, x.loop, on_nothing, NULL);                         \
		while (!(condition)) {                                                   \
			assert_true(sp_loop_now_us(x.loop) < until_);                    \
			sp_timer_set(&tick_, sp_loop_now_us(x.loop) + 5000);             \
			assert_int_equal(sp_loop_turn(x.loop, true), 0);                 \
		}                                                                        \
		sp_timer_done(&tick_);                                                   \
	} while (0)

static void on_nothing(void *ctx)
{
	(void)ctx;
}

// ---- trunks ----

struct asker {
	struct wrk_trunk_call call;
	struct wrk_mux *mux;
	enum sp_reason why;
	bool told;
};

static void on_told(void *ctx, struct wrk_mux *mux, enum sp_reason why)
{
	struct asker *a = ctx;
	assert_false(a->told);
	a->told = true;
	a->mux = mux;
	a->why = why;
}

static void ask(struct asker *a, unsigned from, uint64_t home)
{
	struct wrk_mux *mux;
	*a = (struct asker){.call = {.done = on_told, .ctx = a}};
	enum sp_reason why = wrk_trunks_find(x.node[from].trunks, home, &a->call, &mux);
	if (mux || why != SP_REASON_NONE)
		on_told(a, mux, why);
}

static void a_trunk_is_dialled_when_it_is_wanted_and_shared(void **state)
{
	struct asker a, b, back;
	(void)state;
	ask(&a, 0, 2);
	ask(&b, 0, 2);
	UNTIL(a.told && b.told && count(1)->up);
	assert_non_null(a.mux);
	assert_ptr_equal(a.mux, b.mux);
	assert_int_equal(count(0)->dials, 1);
	ask(&back, 1, 1); // the same one, the other way
	assert_true(back.told && back.mux);
	assert_int_equal(count(1)->dials, 0);
}

static void dials_from_both_ends_at_once_end_in_one_trunk(void **state)
{
	struct asker a, b, again;
	(void)state;
	ask(&a, 0, 2);
	ask(&b, 1, 1);
	UNTIL(a.told && b.told);
	assert_true(a.mux && b.mux);
	// The one that the lower home id dialled stays.
	UNTIL(count(0)->dialled == 1 && count(1)->dialled == 1);
	UNTIL(count(0)->up == 1 && count(1)->up == 1);
	ask(&again, 0, 2);
	assert_true(again.told && again.mux);
	assert_int_equal(count(0)->dials + count(1)->dials, 2);
	introduce(0, 1, 1); // it is still known: nothing happens
	assert_int_equal(count(0)->up, 1);
}

static void nobody_else_gets_a_trunk(void **state)
{
	struct asker a;
	(void)state;
	introduce(1, 1, 2); // it does not know the first any more
	ask(&a, 0, 2);
	UNTIL(a.told);
	assert_null(a.mux);
	assert_int_equal(count(1)->accepted, 0);
	assert_int_equal(
		sp_link_env_counters(x.node[1].links)->strangers[SP_REASON_MEMBER], 1);
	ask(&a, 0, 99);
	assert_int_equal(a.why, SP_REASON_GONE);
}

static void a_worker_that_says_nothing_is_given_up_and_not_dialled_at_once(void **state)
{
	struct asker a;
	(void)state;
	x.node[1].mute = true;
	ask(&a, 0, 2);
	UNTIL(a.told);
	assert_int_equal(a.why, SP_REASON_TIMEOUT);
	ask(&a, 0, 2);
	assert_true(a.told); // without a dial
	assert_int_equal(count(0)->dials, 1);
	x.node[1].mute = false;
	UNTIL((ask(&a, 0, 2), !a.told || a.mux));
	UNTIL(a.told);
	assert_non_null(a.mux);
}

static void the_next_carrier_of_a_worker_is_dialled_if_the_first_fails(void **state)
{
	struct sp_fleet_carrier two[2];
	struct asker a;
	(void)state;
	two[0] = two[1] = x.carrier[1];
	two[0].address.port = 1; // nobody listens
	x.member[1].carriers = two;
	x.member[1].n_carriers = 2;
	introduce(0, 0, WORKERS);
	ask(&a, 0, 2);
	UNTIL(a.told);
	assert_non_null(a.mux);
	assert_int_equal(count(0)->dials_failed[SP_REASON_REFUSED], 1);
}

static void who_leaves_the_fleet_loses_its_trunk_and_those_who_wait_are_told(void **state)
{
	struct asker a, b;
	(void)state;
	ask(&a, 0, 2);
	UNTIL(a.told);
	x.node[2].mute = true;
	ask(&b, 0, 3);
	assert_false(b.told);
	introduce(0, 0, 1);
	assert_true(b.told);
	assert_null(b.mux);
	assert_int_equal(count(0)->up, 0);
	assert_int_equal(count(0)->dialling, 0);
	UNTIL(count(1)->up == 0);
}

static void an_idle_trunk_closes(void **state)
{
	struct wrk_trunks_limits soon = {16, 1000, 1 << 20, 16 << 20, 300};
	struct asker a;
	(void)state;
	wrk_trunks_set_limits(x.node[0].trunks, &soon);
	ask(&a, 0, 2);
	UNTIL(a.told && count(1)->up);
	UNTIL(!count(0)->up && !count(1)->up);
	assert_int_equal(count(0)->ended[SP_REASON_IDLE], 1);
}

// ---- relays ----

struct flight {
	uint8_t bytes[SP_HS_FLIGHT_MAX];
	size_t len;
	struct sp_hs_client hs;
};

// A resume at node `home`, said to node `to`; `boot_key` NULL: the home's.
static void make_flight(struct flight *f, unsigned to, unsigned home,
			const uint8_t *boot_key, const uint8_t *psk)
{
	uint8_t ticket[SP_TICKET_BYTES];
	struct sp_ticket_body body = {.issued_s = sp_loop_unix_ms(x.loop) / 1000};
	struct sp_hs_client_options o = {
		.worker_public = x.node[to].keys.static_public,
		.suites = 3,
		.ticket = ticket,
		.ticket_len = sizeof(ticket),
		.ticket_psk = psk ? psk : body.psk,
		.frames = (const uint8_t *)"frames",
		.frames_len = 6,
	};
	body.pass_expires_s = body.issued_s + 1000;
	sp_ticket_seal(x.node[home].keys.route_key,
		       boot_key ? boot_key : x.node[home].keys.boot_key, home + 1, &body,
		       ticket);
	int n = sp_hs_client_start(&f->hs, &o, f->bytes, sizeof(f->bytes));
	assert_true(n > 0);
	f->len = (size_t)n;
}

static int dial(unsigned to)
{
	struct sockaddr_in in = {.sin_family = AF_INET,
				 .sin_port = htons(x.node[to].port),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof(in)), 0);
	assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	return fd;
}

// What the client hears to its flight; the connection must end in order behind it.
static struct sp_hs_result answer_to(struct flight *f, unsigned to)
{
	struct sp_hs_result res = {0};
	uint8_t buf[2048];
	size_t len = 0;
	ssize_t n = -1;
	int fd = dial(to);
	assert_int_equal(send(fd, f->bytes, f->len, MSG_NOSIGNAL), f->len);
	UNTIL((n = recv(fd, buf + len, sizeof(buf) - len, 0),
	       len += n > 0 ? (size_t)n : 0, n == 0 || (n < 0 && errno != EAGAIN)));
	assert_int_equal(n, 0);
	assert_int_equal(sp_hs_client_finish(&f->hs, buf, len, &res), len);
	close(fd);
	return res;
}

static void a_resume_is_judged_by_its_home_through_the_entry(void **state)
{
	struct flight f;
	(void)state;
	make_flight(&f, 0, 1, NULL, NULL);
	struct sp_hs_result res = answer_to(&f, 0);
	// The home knows the ticket and says what its `admit` says: the session is gone.
	assert_int_equal(x.node[1].admitted, 1);
	assert_int_equal(x.node[0].admitted, 0);
	assert_int_equal(res.refuse, SP_REASON_TICKET);
	assert_false(res.entry);
	const struct wrk_relays_counters *n = wrk_relays_counters(x.node[0].relays);
	assert_int_equal(n->relayed, 1);
	UNTIL(n->live == 0);
	UNTIL(count(0)->memory == 0 && count(1)->memory == 0);
}

static void a_ticket_of_an_earlier_life_of_its_home_is_gone(void **state)
{
	static const uint8_t old[32] = {3};
	struct flight f;
	(void)state;
	make_flight(&f, 0, 1, old, NULL);
	struct sp_hs_result res = answer_to(&f, 0);
	assert_int_equal(res.refuse, SP_REASON_TICKET);
	assert_int_equal(x.node[1].admitted, 0);
}

static void a_stranger_with_a_stolen_ticket_hears_what_everybody_might(void **state)
{
	static const uint8_t wrong[32] = {9};
	struct flight f;
	(void)state;
	make_flight(&f, 0, 1, NULL, wrong); // without its secret
	struct sp_hs_result res = answer_to(&f, 0);
	assert_int_equal(res.refuse, SP_REASON_TICKET);
	assert_false(res.entry);
	const struct sp_link_counters *at_home = sp_link_env_counters(x.node[1].links);
	assert_int_equal(at_home->strangers[SP_REASON_HANDSHAKE], 1);
}

static void an_entry_without_a_way_to_the_home_says_so(void **state)
{
	struct flight f;
	struct sp_hs_result res;
	(void)state;
	introduce(0, 0, 1);
	make_flight(&f, 0, 1, NULL, NULL);
	res = answer_to(&f, 0);
	assert_true(res.entry);
	assert_int_equal(res.refuse, SP_REASON_UNREACHABLE);
	introduce(0, 0, WORKERS);
	wrk_listener_free(x.node[1].listener);
	x.node[1].listener = NULL;
	make_flight(&f, 0, 1, NULL, NULL);
	res = answer_to(&f, 0);
	assert_true(res.entry);
	assert_int_equal(res.refuse, SP_REASON_REFUSED);
}

// The second worker is told, over a trunk, a flight for the third.
static void what_came_over_a_trunk_is_not_relayed_on(void **state)
{
	static const struct wrk_mux_source source = {4, {127, 0, 0, 1}};
	struct sp_hs_result res;
	struct wrk_pipe *p;
	struct flight f;
	struct asker a;
	uint8_t buf[2048];
	ssize_t n = -1;
	(void)state;
	ask(&a, 0, 2);
	UNTIL(a.told);
	make_flight(&f, 1, 2, NULL, NULL);
	assert_int_equal(wrk_pipe_open(a.mux, &source, f.bytes, f.len, &p), 0);
	wrk_pipe_attach(p, on_nothing, NULL);
	UNTIL((n = wrk_pipe_read(p, buf, sizeof(buf))) != -EAGAIN);
	assert_int_equal(sp_hs_client_finish(&f.hs, buf, (size_t)n, &res), n);
	assert_true(res.entry);
	assert_int_equal(res.refuse, SP_REASON_UNREACHABLE);
	assert_int_equal(count(1)->dials, 0);
	assert_int_equal(wrk_relays_counters(x.node[1].relays)->taken, 0);
	wrk_pipe_close(p, SP_REASON_CLOSED);
}

static void a_trunk_in_a_trunk_is_a_strangers(void **state)
{
	static const struct wrk_mux_source source = {4, {127, 0, 0, 1}};
	struct wrk_pipe *p;
	struct flight f;
	struct asker a;
	uint8_t buf[16];
	(void)state;
	ask(&a, 0, 2);
	UNTIL(a.told);
	struct sp_hs_client_options o = {
		.worker_public = x.node[1].keys.static_public,
		.suites = 3,
		.device_secret = x.node[2].keys.static_secret,
		.device_public = x.node[2].keys.static_public,
		.now_ms = sp_loop_unix_ms(x.loop),
		.trunk = true,
	};
	int n = sp_hs_client_start(&f.hs, &o, f.bytes, sizeof(f.bytes));
	assert_true(n > 0);
	assert_int_equal(wrk_pipe_open(a.mux, &source, f.bytes, (size_t)n, &p), 0);
	wrk_pipe_attach(p, on_nothing, NULL);
	UNTIL(wrk_pipe_reason(p));
	assert_int_equal(wrk_pipe_reason(p), SP_REASON_GONE);
	assert_int_equal(wrk_pipe_read(p, buf, sizeof(buf)), -ECONNRESET);
	assert_int_equal(count(1)->accepted, 1);
	wrk_pipe_close(p, SP_REASON_CLOSED);
	sp_hs_client_done(&f.hs);
}

// ---- flights of trunks, said again ----

// What the first worker says to the second for a trunk.
static void make_hello(struct flight *f)
{
	struct sp_hs_client_options o = {
		.worker_public = x.node[1].keys.static_public,
		.suites = 3,
		.device_secret = x.node[0].keys.static_secret,
		.device_public = x.node[0].keys.static_public,
		.now_ms = sp_loop_unix_ms(x.loop),
		.trunk = true,
	};
	int n = sp_hs_client_start(&f->hs, &o, f->bytes, sizeof(f->bytes));
	assert_true(n > 0);
	f->len = (size_t)n;
}

// To the second worker, which has just begun and remembers no flight.
static int say_hello(const struct flight *f)
{
	struct node *n = &x.node[1];
	size_t bytes = sp_replay_bytes(64);
	int fd = dial(1);
	assert_int_equal(sp_replay_format(n->replay, bytes, 64, &n->replay), 0);
	assert_int_equal(send(fd, f->bytes, f->len, MSG_NOSIGNAL), f->len);
	return fd;
}

static void a_flight_said_again_harms_no_trunk_and_waits_in_bounds(void **state)
{
	static const struct wrk_mux_source source = {4, {127, 0, 0, 1}};
	static const uint8_t junk[200] = {0, 100};
	const struct wrk_trunks_counters *n = count(1);
	struct asker a, back, again;
	struct wrk_pipe *p;
	struct flight f;
	int fd[6];
	(void)state;
	ask(&a, 0, 2);
	UNTIL(a.told && n->up == 1);
	ask(&back, 1, 1);
	assert_int_equal(wrk_pipe_open(a.mux, &source, (uint8_t *)"x", 1, &p), 0);
	wrk_pipe_attach(p, on_nothing, NULL);
	make_hello(&f);
	for (unsigned i = 0; i < 6; i++) {
		fd[i] = say_hello(&f);
		UNTIL(n->proving + n->unproved[SP_REASON_PRESSURE] == i + 1);
		assert_true(n->proving <= 4);
	}
	assert_int_equal(n->unproved[SP_REASON_PRESSURE], 2);
	// Records of another time are none of its keys.
	assert_int_equal(send(fd[5], junk, sizeof(junk), MSG_NOSIGNAL), sizeof(junk));
	UNTIL(n->unproved[SP_REASON_RECORD] == 1);
	ask(&again, 1, 1);
	assert_ptr_equal(again.mux, back.mux);
	UNTIL(n->proving == 0);
	assert_int_equal(n->unproved[SP_REASON_TIMEOUT], 3);
	assert_int_equal(n->accepted, 1);
	assert_int_equal(n->up, 1);
	assert_int_equal(n->ended[SP_REASON_SUPERSEDED], 0);
	assert_int_equal(count(0)->up, 1);
	assert_int_equal(wrk_pipe_reason(p), SP_REASON_NONE);
	wrk_pipe_close(p, SP_REASON_CLOSED);
	for (int i = 0; i < 6; i++)
		close(fd[i]);
	sp_hs_client_done(&f.hs);
}

static void a_member_leaves_with_what_it_did_not_prove(void **state)
{
	struct flight f;
	(void)state;
	make_hello(&f);
	int fd = say_hello(&f);
	UNTIL(count(1)->proving == 1);
	introduce(1, 1, 2);
	assert_int_equal(count(1)->proving, 0);
	assert_int_equal(count(1)->unproved[SP_REASON_MEMBER], 1);
	close(fd);
	sp_hs_client_done(&f.hs);
}

// Only who made the flight has its keys.
static void a_record_proves_a_trunk_and_ends_the_one_before(void **state)
{
	struct iovec ping = {(uint8_t[]){0x01}, 1};
	struct sp_hs_result res = {0};
	struct sp_record_tx tx;
	struct flight f;
	struct asker a;
	uint8_t buf[2048];
	size_t len = 0;
	ssize_t n;
	(void)state;
	ask(&a, 0, 2);
	UNTIL(a.told && count(1)->up == 1);
	make_hello(&f);
	int fd = say_hello(&f), size = SP_E_AGAIN;
	UNTIL((n = recv(fd, buf + len, sizeof(buf) - len, 0),
	       len += n > 0 ? (size_t)n : 0,
	       (size = sp_hs_client_finish(&f.hs, buf, len, &res)) != SP_E_AGAIN));
	assert_int_equal(size, len);
	assert_int_equal(count(1)->ended[SP_REASON_SUPERSEDED], 0);
	assert_int_equal(sp_record_tx_init(&tx, res.keys.suite, res.keys.tx_key,
					   sp_loop_now_ms(x.loop)),
			 0);
	size = sp_record_tx_seal(&tx, &ping, 1, buf, sizeof(buf));
	assert_true(size > 0);
	assert_int_equal(send(fd, buf, (size_t)size, MSG_NOSIGNAL), size);
	UNTIL(count(1)->ended[SP_REASON_SUPERSEDED] == 1);
	assert_int_equal(count(1)->up, 1);
	assert_int_equal(count(1)->accepted, 2);
	assert_int_equal(count(1)->proving, 0);
	UNTIL(count(0)->up == 0);
	sp_record_tx_done(&tx);
	sp_hs_keys_wipe(&res.keys);
	close(fd);
}

static void carriers_of_one_source_are_limited(void **state)
{
	const struct wrk_relays_counters *n = wrk_relays_counters(x.node[0].relays);
	struct flight f;
	int fd[6];
	(void)state;
	x.node[1].mute = true; // so that they wait
	for (int i = 0; i < 6; i++) {
		make_flight(&f, 0, 1, NULL, NULL);
		fd[i] = dial(0);
		assert_int_equal(send(fd[i], f.bytes, f.len, MSG_NOSIGNAL), f.len);
		UNTIL(n->taken == (unsigned)i + 1);
		sp_hs_client_done(&f.hs);
	}
	assert_int_equal(n->waiting, 4);
	assert_int_equal(n->refused[SP_REASON_RATE_LIMIT], 2);
	UNTIL(n->waiting == 0);
	assert_int_equal(n->refused[SP_REASON_TIMEOUT], 4);
	for (int i = 0; i < 6; i++)
		close(fd[i]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_trunk_is_dialled_when_it_is_wanted_and_shared),
		TEST(dials_from_both_ends_at_once_end_in_one_trunk),
		TEST(nobody_else_gets_a_trunk),
		TEST(a_worker_that_says_nothing_is_given_up_and_not_dialled_at_once),
		TEST(the_next_carrier_of_a_worker_is_dialled_if_the_first_fails),
		TEST(who_leaves_the_fleet_loses_its_trunk_and_those_who_wait_are_told),
		TEST(an_idle_trunk_closes),
		TEST(a_resume_is_judged_by_its_home_through_the_entry),
		TEST(a_ticket_of_an_earlier_life_of_its_home_is_gone),
		TEST(a_stranger_with_a_stolen_ticket_hears_what_everybody_might),
		TEST(an_entry_without_a_way_to_the_home_says_so),
		TEST(what_came_over_a_trunk_is_not_relayed_on),
		TEST(a_trunk_in_a_trunk_is_a_strangers),
		TEST(a_flight_said_again_harms_no_trunk_and_waits_in_bounds),
		TEST(a_member_leaves_with_what_it_did_not_prove),
		TEST(a_record_proves_a_trunk_and_ends_the_one_before),
		TEST(carriers_of_one_source_are_limited),
	};
	if (sodium_init() < 0)
		return 1;
	sp_log_setup(SP_LOG_ERROR, SP_LOG_LOGFMT,
		     open("/dev/null", O_WRONLY | O_CLOEXEC));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
