// The whole worker, made from files in a fresh folder, in this process; a client engine
// dials it through real links. One loop drives both.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <sodium.h>

#include "lib/file.h"
#include "lib/key.h"
#include "worker/worker.h"

struct device {
	uint8_t pub[32], secret[32];
	uint8_t serial[16];
	uint8_t pass[SP_PASS_BLOB_MAX];
	size_t pass_len;
	struct sp_session *session;
	struct sp_link *link;
	struct sp_arena *arena;
	uint8_t ticket[512], psk[32];
	size_t ticket_len;
	int ups, downs, closed, opened, ended;
	enum sp_reason down_why, close_why, end_why, goaway;
	size_t got;
	bool fin, fresh;
	unsigned slot;
};

static struct {
	char dir[64], yaml[128];
	uint8_t sign_pub[32], sign_secret[64], worker_pub[32];
	uint16_t port;
	struct wrk_worker *w;
	struct sp_session_clock *clock;
	struct sp_link_env *env;
	struct device d[2];
	int listener;
	struct sp_target target;
} x;

// ---- files ----

static char *at(const char *name)
{
	static char path[256];
	snprintf(path, sizeof(path), "%s/%s", x.dir, name);
	return path;
}

static void put(const char *name, const char *text, size_t len)
{
	char why[SP_WHY_MAX];
	assert_int_equal(sp_file_write(at(name), text, len, 0600, why, sizeof(why)), 0);
}

static void sign_config(unsigned sequence, const char *more)
{
	char key[SP_KEY_TEXT_MAX], json[2048], out[4096];
	sp_key_format(SP_KEY_SIGNING, false, x.sign_pub, key);
	int n = snprintf(json, sizeof(json),
			 "{\"format\": 1, \"revision\": {\"epoch\": 1, \"sequence\": "
			 "%u},\n\"tiers\": {\"standard\": {}},\n\"pass_keys\": "
			 "[\"%s\"]%s}\n",
			 sequence, key, more);
	int len = sp_signed_seal_text(SP_SIGNED_WORKER_CONFIG, x.sign_secret, json,
				      (size_t)n, out, sizeof(out));
	assert_true(len > 0);
	put("worker.signed", out, (size_t)len);
}

static void write_yaml(const char *more)
{
	char key[SP_KEY_TEXT_MAX], text[2048];
	sp_key_format(SP_KEY_SIGNING, false, x.sign_pub, key);
	int n = snprintf(text, sizeof(text),
			 "listen:\n  tcp: [\"127.0.0.1:%u\"]\nkeys:\n  static: "
			 "node.key\n  route: route.key\n  fleet: [\"%s\"]\nconfig: "
			 "worker.signed\ndns:\n  servers: [\"127.0.0.1:9\"]\nlog:\n  "
			 "level: error\n%s",
			 x.port, key, more);
	put("worker.yaml", text, (size_t)n);
}

static uint16_t free_port(void)
{
	struct sockaddr_in sa = {.sin_family = AF_INET,
				 .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(sa);
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&sa, len), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&sa, &len), 0);
	close(fd);
	return ntohs(sa.sin_port);
}

static void make_files(const char *limits)
{
	uint8_t secret[32], route[32];
	char why[SP_WHY_MAX];
	strcpy(x.dir, "/tmp/sallyport-test-XXXXXX");
	assert_non_null(mkdtemp(x.dir));
	crypto_sign_keypair(x.sign_pub, x.sign_secret);
	crypto_box_keypair(x.worker_pub, secret);
	randombytes_buf(route, sizeof(route));
	assert_int_equal(sp_key_save(at("node.key"), SP_KEY_WORKER, true, secret, why,
				     sizeof(why)),
			 0);
	assert_int_equal(
		sp_key_save(at("route.key"), SP_KEY_ROUTE, true, route, why, sizeof(why)),
		0);
	sign_config(1, ", \"exit_policy\": [\"allow 127.0.0.0/8\"]");
	x.port = free_port();
	write_yaml(limits);
	strcpy(x.yaml, at("worker.yaml"));
}

// ---- the client ----

static void c_opened(void *ctx, struct sp_stream *st, const struct sp_target *bound)
{
	(void)st;
	(void)bound;
	((struct device *)ctx)->opened++;
}

static size_t c_sink(void *ctx, struct sp_stream *st, const uint8_t *buf, size_t len)
{
	(void)st;
	(void)buf;
	((struct device *)ctx)->got += len;
	return len;
}

static void c_fin(void *ctx, struct sp_stream *st)
{
	(void)st;
	((struct device *)ctx)->fin = true;
}

static void c_ready(void *ctx, struct sp_stream *st)
{
	(void)ctx;
	(void)st;
}

static void c_closed(void *ctx, struct sp_stream *st, enum sp_reason why)
{
	struct device *d = ctx;
	(void)st;
	d->closed++;
	d->close_why = why;
}

static void c_attached(void *ctx, unsigned slot, bool fresh)
{
	(void)slot;
	((struct device *)ctx)->fresh = fresh;
}

static void c_ticket(void *ctx, unsigned slot, unsigned index, uint32_t lifetime_s,
		     const uint8_t *ticket, size_t len)
{
	struct device *d = ctx;
	(void)slot;
	assert_true(lifetime_s > 0);
	memcpy(d->ticket, ticket, len);
	d->ticket_len = len;
	assert_int_equal(sp_link_ticket_psk(d->link, index, d->psk), 0);
}

static void c_stalled(void *ctx, unsigned slot)
{
	(void)ctx;
	(void)slot;
}

static void c_goaway(void *ctx, enum sp_reason why, uint64_t deadline_ms)
{
	(void)deadline_ms;
	((struct device *)ctx)->goaway = why;
}

static void c_ended(void *ctx, enum sp_reason why)
{
	struct device *d = ctx;
	d->ended++;
	d->end_why = why;
}

static const struct sp_session_ops client_ops = {
	.stream_opened = c_opened,
	.stream_sink = c_sink,
	.stream_sink_fin = c_fin,
	.stream_source_ready = c_ready,
	.stream_closed = c_closed,
	.attached = c_attached,
	.ticket = c_ticket,
	.stalled = c_stalled,
	.goaway = c_goaway,
	.ended = c_ended,
};

static void l_up(void *ctx, struct sp_link *l)
{
	(void)l;
	((struct device *)ctx)->ups++;
}

static void l_down(void *ctx, struct sp_link *l, enum sp_reason why)
{
	struct device *d = ctx;
	if (d->link == l)
		d->link = NULL;
	d->downs++;
	d->down_why = why;
}

static const struct sp_link_client_ops link_ops = {l_up, l_down};

static void make_pass(struct device *d, const char *user, uint64_t lifetime_s)
{
	struct sp_pass pass = {
		.not_before_s = sp_loop_unix_ms(x.w->loop) / 1000 - 3600,
		.max_sessions = 4,
		.max_streams = 100,
		.max_flows = 100,
		.tier = "standard",
	};
	pass.expires_s = sp_loop_unix_ms(x.w->loop) / 1000 + lifetime_s;
	strcpy(pass.user, user);
	randombytes_buf(d->serial, sizeof(d->serial));
	memcpy(pass.serial, d->serial, sizeof(pass.serial));
	memcpy(pass.device, d->pub, sizeof(pass.device));
	int n = sp_pass_sign(&pass, x.sign_secret, d->pass, sizeof(d->pass));
	assert_true(n > 0);
	d->pass_len = (size_t)n;
}

static void make_device(struct device *d, const char *user, uint64_t lifetime_s)
{
	struct sp_arena_options ao = {4, 256, 8 << 20};
	struct sp_session_options so = {
		.role = SP_ROLE_CLIENT,
		.ops = &client_ops,
		.ctx = d,
		.clock_us = sp_loop_clock_us(x.w->loop),
	};
	memset(d, 0, sizeof(*d));
	crypto_box_keypair(d->pub, d->secret);
	make_pass(d, user, lifetime_s);
	assert_int_equal(sp_arena_new(&ao, &d->arena), 0);
	so.arena = d->arena;
	randombytes_buf(so.id, sizeof(so.id));
	sp_session_limits_default(&so.limits);
	assert_int_equal(sp_session_new(&so, sp_loop_now_us(x.w->loop), &d->session), 0);
	assert_int_equal(sp_session_clock_add(x.clock, d->session), 0);
}

static void dial(struct device *d, bool resume)
{
	struct sp_link_dial o = {
		.carrier.kind = SP_CARRIER_TCP,
		.worker_public = x.worker_pub,
		.device_secret = d->secret,
		.device_public = d->pub,
		.pass = d->pass,
		.pass_len = d->pass_len,
		.timeout_ms = 5000,
		.session = d->session,
		.slot = d->slot,
		.ops = &link_ops,
		.ctx = d,
	};
	struct sp_target t = {
		.kind = SP_TARGET_IPV4, .port = x.port, .v4 = {127, 0, 0, 1}};
	if (resume) {
		o.ticket = d->ticket;
		o.ticket_len = d->ticket_len;
		o.ticket_psk = d->psk;
	}
	assert_int_equal(sp_target_to_sockaddr(&t, &o.carrier.addr, &o.carrier.addr_len),
			 0);
	assert_int_equal(sp_link_dial(x.env, &o, &d->link), 0);
}

#define UNTIL(cond)                                                                      \
	do {                                                                             \
		uint64_t end_ = sp_loop_refresh(x.w->loop) + 10000000;                   \
		while (!(cond)) {                                                        \
			struct timeval ms_ = {.tv_usec = 1000};                          \
			event_base_loopexit(sp_loop_base(x.w->loop), &ms_);              \
			assert_int_equal(sp_loop_turn(x.w->loop, false), 0);             \
			if (sp_loop_refresh(x.w->loop) > end_)                           \
				fail_msg("never: %s", #cond);                            \
		}                                                                        \
	} while (0)

// ---- the world ----

static int start(const char *limits)
{
	struct sp_conf_errors errs = {0};
	struct wrk_identity id = {0};
	char why[SP_WHY_MAX];
	memset(&x, 0, sizeof(x));
	make_files(limits);
	struct wrk_config *cfg = sp_conf_load(&wrk_config_table, x.yaml, &errs);
	if (!cfg)
		fail_msg("%s", errs.text[0]);
	if (wrk_identity_load(cfg, &id, why, sizeof(why)))
		fail_msg("%s", why);
	sp_log_setup(SP_LOG_ERROR, SP_LOG_LOGFMT, 2);
	assert_int_equal(wrk_worker_new(x.yaml, cfg, &id, &x.w), 0);
	struct sp_link_env_options o = {.loop = x.w->loop, .handshake_ms = 5000};
	assert_int_equal(sp_session_clock_new(x.w->loop, &x.clock), 0);
	o.clock = x.clock;
	assert_int_equal(sp_link_env_new(&o, &x.env), 0);
	struct sockaddr_in sa = {.sin_family = AF_INET,
				 .sin_addr = {htonl(INADDR_LOOPBACK)}};
	socklen_t len = sizeof(sa);
	x.listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(x.listener, (struct sockaddr *)&sa, len), 0);
	assert_int_equal(listen(x.listener, 64), 0);
	assert_int_equal(getsockname(x.listener, (struct sockaddr *)&sa, &len), 0);
	sp_target_from_sockaddr((struct sockaddr *)&sa, &x.target);
	return 0;
}

static int setup(void **state)
{
	(void)state;
	return start("");
}

static int setup_small(void **state)
{
	(void)state;
	return start("limits:\n  sessions: 1\n  sessions_per_user: 1\n"
		     "  stale_timeout: 1s\n  opens_per_second: 1\n");
}

static int teardown(void **state)
{
	(void)state;
	sp_link_env_free(x.env);
	for (int i = 0; i < 2; i++) {
		if (x.d[i].session) {
			sp_session_clock_remove(x.clock, x.d[i].session);
			sp_session_free(x.d[i].session, SP_REASON_SHUTDOWN);
		}
		sp_arena_free(x.d[i].arena);
	}
	sp_session_clock_free(x.clock);
	wrk_worker_free(x.w);
	close(x.listener);
	for (const char *const *f =
		     (const char *const[]){"node.key", "route.key", "worker.signed",
					   "worker.yaml", NULL};
	     *f; f++)
		unlink(at(*f));
	rmdir(x.dir);
	return 0;
}

static const struct wrk_sessions_counters *sessions(void)
{
	return wrk_sessions_counters(x.w->sessions);
}

static struct sp_stream *open_stream(struct device *d)
{
	struct sp_stream *st;
	assert_int_equal(sp_session_open(d->session, &x.target, NULL, &st), 0);
	return st;
}

static int join_stream(struct device *d, struct sp_stream **ret)
{
	int before = d->opened, fd;
	*ret = open_stream(d);
	UNTIL(d->opened > before);
	UNTIL((fd = accept4(x.listener, NULL, NULL, SOCK_NONBLOCK)) >= 0);
	return fd;
}

static void up(struct device *d, const char *user)
{
	make_device(d, user, 3600);
	dial(d, false);
	UNTIL(d->ups == 1);
}

// ---- claims ----

static void a_client_gets_a_session_and_a_stream(void **state)
{
	struct device *d = &x.d[0];
	struct sp_stream *st;
	(void)state;
	up(d, "alice");
	assert_true(d->fresh);
	int fd = join_stream(d, &st);
	assert_int_equal(send(fd, "hello", 5, 0), 5);
	UNTIL(d->got == 5);
	close(fd);
	UNTIL(d->fin);
	sp_stream_source_fin(st);
	UNTIL(d->closed);
	assert_int_equal(d->close_why, SP_REASON_CLOSED);
	assert_int_equal(sessions()->made, 1);
}

static void a_stream_survives_its_carrier_by_a_ticket(void **state)
{
	struct device *d = &x.d[0];
	struct sp_stream *st;
	(void)state;
	up(d, "alice");
	UNTIL(d->ticket_len);
	int fd = join_stream(d, &st);
	sp_link_close(d->link, SP_REASON_CANCELLED);
	UNTIL(d->downs == 1);
	UNTIL(sessions()->detached == 1);
	assert_int_equal(send(fd, "meanwhile", 9, 0), 9);
	d->slot = 1;
	dial(d, true);
	UNTIL(d->ups == 2);
	assert_false(d->fresh);
	UNTIL(d->got == 9);
	assert_int_equal(sessions()->resumed, 1);
	assert_int_equal(sessions()->made, 1);
	close(fd);
}

static void another_device_cannot_take_a_session_over(void **state)
{
	struct device *d = &x.d[0], *thief = &x.d[1];
	(void)state;
	up(d, "alice");
	make_device(thief, "alice", 3600);
	// the thief knows the session's id and says a higher epoch
	struct sp_arena_options ao = {4, 16, 1 << 20};
	struct sp_session_options so = {
		.role = SP_ROLE_CLIENT,
		.ops = &client_ops,
		.ctx = thief,
		.clock_us = sp_loop_clock_us(x.w->loop),
	};
	sp_session_clock_remove(x.clock, thief->session);
	sp_session_free(thief->session, SP_REASON_NONE);
	sp_arena_free(thief->arena);
	assert_int_equal(sp_arena_new(&ao, &thief->arena), 0);
	so.arena = thief->arena;
	memcpy(so.id, sp_session_id(d->session), sizeof(so.id));
	sp_session_limits_default(&so.limits);
	assert_int_equal(sp_session_new(&so, 0, &thief->session), 0);
	assert_int_equal(sp_session_clock_add(x.clock, thief->session), 0);
	for (int i = 0; i < 3; i++) { // epochs 1, 2, 3
		dial(thief, false);
		UNTIL(thief->downs == i + 1);
		assert_int_equal(thief->down_why, SP_REASON_NOT_YOURS);
	}
	assert_int_equal(thief->ups, 0);
	assert_int_equal(d->downs, 0);
	assert_int_equal(sessions()->refused[SP_REASON_NOT_YOURS], 3);
}

static void an_expired_or_revoked_pass_is_refused(void **state)
{
	struct device *d = &x.d[0];
	(void)state;
	make_device(d, "alice", 3600);
	struct sp_pass old = {.not_before_s = 1000,
			      .expires_s = 2000,
			      .user = "alice",
			      .tier = "standard",
			      .max_sessions = 1};
	memcpy(old.device, d->pub, sizeof(old.device));
	int n = sp_pass_sign(&old, x.sign_secret, d->pass, sizeof(d->pass));
	d->pass_len = (size_t)n;
	dial(d, false);
	UNTIL(d->downs == 1);
	assert_int_equal(d->down_why, SP_REASON_PASS_EXPIRED);
	make_pass(d, "alice", 3600);
	char more[128], hex[33];
	sodium_bin2hex(hex, sizeof(hex), d->serial, sizeof(d->serial));
	snprintf(more, sizeof(more), ", \"revoked\": [\"%s\"]", hex);
	sign_config(2, more);
	wrk_worker_reload(x.w);
	assert_int_equal(x.w->reloads_ok, 1);
	dial(d, false);
	UNTIL(d->downs == 2);
	assert_int_equal(d->down_why, SP_REASON_REVOKED);
	assert_int_equal(sessions()->made, 0);
}

static void a_revoked_pass_ends_its_live_session(void **state)
{
	struct device *d = &x.d[0];
	struct sp_stream *st;
	char more[128], hex[33], c;
	(void)state;
	up(d, "alice");
	int fd = join_stream(d, &st);
	sodium_bin2hex(hex, sizeof(hex), d->serial, sizeof(d->serial));
	snprintf(more, sizeof(more), ", \"revoked\": [\"%s\"]", hex);
	sign_config(2, more);
	wrk_worker_reload(x.w);
	UNTIL(d->ended == 1);
	assert_int_equal(d->end_why, SP_REASON_REVOKED);
	UNTIL(sessions()->ended[SP_REASON_REVOKED] == 1);
	UNTIL(recv(fd, &c, 1, 0) <= 0 && errno != EAGAIN);
	assert_int_equal(sessions()->attached + sessions()->ending, 0);
	close(fd);
}

static void a_session_ends_with_its_pass(void **state)
{
	struct device *d = &x.d[0];
	(void)state;
	make_device(d, "alice", 3600);
	struct sp_pass p = {.not_before_s = 1,
			    .user = "alice",
			    .tier = "standard",
			    .max_sessions = 1,
			    .max_streams = 1,
			    .max_flows = 1};
	// two more seconds within the tolerance of clocks
	p.expires_s = sp_loop_unix_ms(x.w->loop) / 1000 - SP_PASS_SKEW_S + 2;
	memcpy(p.device, d->pub, sizeof(p.device));
	d->pass_len = (size_t)sp_pass_sign(&p, x.sign_secret, d->pass, sizeof(d->pass));
	dial(d, false);
	UNTIL(d->ups == 1);
	UNTIL(d->ended == 1);
	assert_int_equal(d->end_why, SP_REASON_PASS_EXPIRED);
}

static void a_renewed_pass_counts_and_a_stolen_one_does_not(void **state)
{
	struct device *d = &x.d[0], other;
	(void)state;
	up(d, "alice");
	make_pass(d, "alice", 7200);
	assert_int_equal(sp_session_send_pass(d->session, d->pass, d->pass_len), 0);
	UNTIL(sessions()->passes_renewed == 1);
	memset(&other, 0, sizeof(other));
	crypto_box_keypair(other.pub, other.secret);
	make_pass(&other, "alice", 7200); // of another device
	assert_int_equal(sp_session_send_pass(d->session, other.pass, other.pass_len), 0);
	UNTIL(sessions()->passes_rejected == 1);
	make_pass(d, "mallory", 7200); // of another user
	assert_int_equal(sp_session_send_pass(d->session, d->pass, d->pass_len), 0);
	UNTIL(sessions()->passes_rejected == 2);
	assert_int_equal(d->downs, 0);
}

static void an_attached_session_is_never_given_up_for_a_new_one(void **state)
{
	struct device *a = &x.d[0], *b = &x.d[1];
	(void)state;
	up(a, "alice");
	make_device(b, "bob", 3600);
	dial(b, false);
	UNTIL(b->downs == 1);
	assert_int_equal(b->down_why, SP_REASON_SESSION_LIMIT);
	assert_int_equal(a->downs, 0);
}

static void a_detached_session_makes_room(void **state)
{
	struct device *a = &x.d[0], *b = &x.d[1];
	(void)state;
	up(a, "alice");
	sp_link_close(a->link, SP_REASON_CANCELLED);
	UNTIL(sessions()->detached == 1);
	up(b, "bob");
	assert_int_equal(sessions()->evicted, 1);
	assert_int_equal(sessions()->ended[SP_REASON_SESSION_LIMIT], 1);
	assert_int_equal(wrk_sessions_users(x.w->sessions), 1);
}

static void a_stale_sessions_streams_go_and_it_stays(void **state)
{
	struct device *d = &x.d[0];
	struct sp_stream *st;
	char c;
	(void)state;
	up(d, "alice");
	UNTIL(d->ticket_len);
	int fd = join_stream(d, &st);
	sp_link_close(d->link, SP_REASON_CANCELLED);
	UNTIL(recv(fd, &c, 1, 0) <= 0 && errno != EAGAIN);
	assert_int_equal(sessions()->detached, 1);
	dial(d, true);
	UNTIL(d->ups == 2);
	assert_false(d->fresh);
	UNTIL(d->closed == 1);
	assert_int_equal(d->close_why, SP_REASON_STALE);
	close(fd);
}

static void opens_beyond_the_users_rate_are_refused(void **state)
{
	struct device *d = &x.d[0];
	(void)state;
	up(d, "alice");
	for (int i = 0; i < 7; i++) // five seconds' worth of burst, and two
		open_stream(d);
	UNTIL(d->opened + d->closed == 7);
	assert_int_equal(d->opened, 5);
	assert_int_equal(d->close_why, SP_REASON_RATE_LIMIT);
	assert_int_equal(sessions()->streams_rate_limited, 2);
}

static void the_exit_policy_of_the_signed_config_holds(void **state)
{
	struct device *d = &x.d[0];
	(void)state;
	up(d, "alice");
	sign_config(2, "");
	wrk_worker_reload(x.w);
	open_stream(d);
	UNTIL(d->closed == 1);
	assert_int_equal(d->close_why, SP_REASON_POLICY);
}

static void a_bad_reload_changes_nothing(void **state)
{
	(void)state;
	sp_log_setup(SP_LOG_ERROR, SP_LOG_LOGFMT, open("/dev/null", O_WRONLY));
	struct wrk_config *before = x.w->cfg;
	write_yaml("limits:\n  sessions: lots\n");
	wrk_worker_reload(x.w);
	write_yaml("");
	sign_config(0, ""); // older
	wrk_worker_reload(x.w);
	put("worker.signed", "nonsense", 8);
	wrk_worker_reload(x.w);
	assert_ptr_equal(x.w->cfg, before);
	assert_int_equal(x.w->id.fleet->revision.sequence, 1);
	assert_int_equal(x.w->reloads_failed, 3);
	sign_config(7, "");
	wrk_worker_reload(x.w);
	assert_int_equal(x.w->reloads_ok, 1);
	assert_int_equal(x.w->id.fleet->revision.sequence, 7);
	sp_log_setup(SP_LOG_ERROR, SP_LOG_LOGFMT, 2);
}

static void a_draining_worker_serves_its_sessions_and_takes_no_new_ones(void **state)
{
	struct device *a = &x.d[0], *b = &x.d[1];
	struct sp_stream *st;
	char why[64];
	(void)state;
	up(a, "alice");
	UNTIL(a->ticket_len);
	int fd = join_stream(a, &st);
	assert_true(wrk_worker_ready(x.w, why, sizeof(why)));
	raise(SIGTERM);
	UNTIL(a->goaway == SP_REASON_DRAINING);
	assert_false(wrk_worker_ready(x.w, why, sizeof(why)));
	assert_string_equal(why, "draining");
	make_device(b, "bob", 3600);
	dial(b, false);
	UNTIL(b->downs == 1);
	assert_int_equal(b->down_why, SP_REASON_DRAINING);
	sp_link_close(a->link, SP_REASON_CANCELLED);
	UNTIL(sessions()->detached == 1);
	dial(a, true);
	UNTIL(a->ups == 2);
	assert_int_equal(send(fd, "rest", 4, 0), 4);
	UNTIL(a->got == 4);
	close(fd);
}

#define T(f)     cmocka_unit_test_setup_teardown(f, setup, teardown)
#define SMALL(f) cmocka_unit_test_setup_teardown(f, setup_small, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_client_gets_a_session_and_a_stream),
		T(a_stream_survives_its_carrier_by_a_ticket),
		T(another_device_cannot_take_a_session_over),
		T(an_expired_or_revoked_pass_is_refused),
		T(a_revoked_pass_ends_its_live_session),
		T(a_session_ends_with_its_pass),
		T(a_renewed_pass_counts_and_a_stolen_one_does_not),
		SMALL(an_attached_session_is_never_given_up_for_a_new_one),
		SMALL(a_detached_session_makes_room),
		SMALL(a_stale_sessions_streams_go_and_it_stays),
		SMALL(opens_beyond_the_users_rate_are_refused),
		T(the_exit_policy_of_the_signed_config_holds),
		T(a_bad_reload_changes_nothing),
		T(a_draining_worker_serves_its_sessions_and_takes_no_new_ones),
	};
	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
