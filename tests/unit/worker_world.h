// A whole worker, made from files in a fresh folder, in this process, and client engines
// that dial it through real links. One loop drives all.
#ifndef TESTS_UNIT_WORKER_WORLD_H
#define TESTS_UNIT_WORKER_WORLD_H

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
	uint8_t attach_flags;
};

static struct worker_world {
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

static struct { // of every world of this process
	bool set;
	uint8_t pub[32], secret[64];
} signer;

// ---- files ----

static inline char *at(const char *name)
{
	static char path[256];
	snprintf(path, sizeof(path), "%s/%s", x.dir, name);
	return path;
}

static inline void put(const char *name, const char *text, size_t len)
{
	char why[SP_WHY_MAX];
	assert_int_equal(sp_file_write(at(name), text, len, 0600, why, sizeof(why)), 0);
}

static inline void sign_tiers(unsigned sequence, const char *tiers, const char *more)
{
	char key[SP_KEY_TEXT_MAX], json[2048], out[4096];
	sp_key_format(SP_KEY_SIGNING, false, x.sign_pub, key);
	int n = snprintf(json, sizeof(json),
			 "{\"format\": 1, \"revision\": {\"epoch\": 1, \"sequence\": "
			 "%u},\n\"tiers\": %s,\n\"pass_keys\": "
			 "[\"%s\"]%s}\n",
			 sequence, tiers, key, more);
	int len = sp_signed_seal_text(SP_SIGNED_WORKER_CONFIG, x.sign_secret, json,
				      (size_t)n, out, sizeof(out));
	assert_true(len > 0);
	put("worker.signed", out, (size_t)len);
}

static inline void sign_config(unsigned sequence, const char *more)
{
	sign_tiers(sequence, "{\"standard\": {}}", more);
}

static inline void write_yaml(const char *more)
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

static inline uint16_t free_port(void)
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

static inline void make_files(const char *limits)
{
	uint8_t secret[32], route[32];
	char why[SP_WHY_MAX];
	strcpy(x.dir, "/tmp/sallyport-test-XXXXXX");
	assert_non_null(mkdtemp(x.dir));
	if (!signer.set) {
		crypto_sign_keypair(signer.pub, signer.secret);
		signer.set = true;
	}
	memcpy(x.sign_pub, signer.pub, sizeof(x.sign_pub));
	memcpy(x.sign_secret, signer.secret, sizeof(x.sign_secret));
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

static inline void c_opened(void *ctx, struct sp_stream *st,
			    const struct sp_target *bound)
{
	(void)st;
	(void)bound;
	((struct device *)ctx)->opened++;
}

static inline size_t c_sink(void *ctx, struct sp_stream *st, const uint8_t *buf,
			    size_t len)
{
	(void)st;
	(void)buf;
	((struct device *)ctx)->got += len;
	return len;
}

static inline void c_fin(void *ctx, struct sp_stream *st)
{
	(void)st;
	((struct device *)ctx)->fin = true;
}

static inline void c_ready(void *ctx, struct sp_stream *st)
{
	(void)ctx;
	(void)st;
}

static inline void c_closed(void *ctx, struct sp_stream *st, enum sp_reason why)
{
	struct device *d = ctx;
	(void)st;
	d->closed++;
	d->close_why = why;
}

static inline void c_attached(void *ctx, unsigned slot, bool fresh)
{
	(void)slot;
	((struct device *)ctx)->fresh = fresh;
}

static inline void c_ticket(void *ctx, unsigned slot, unsigned index, uint32_t lifetime_s,
			    const uint8_t *ticket, size_t len)
{
	struct device *d = ctx;
	(void)slot;
	assert_true(lifetime_s > 0);
	memcpy(d->ticket, ticket, len);
	d->ticket_len = len;
	assert_int_equal(sp_link_ticket_psk(d->link, index, d->psk), 0);
}

static inline void c_stalled(void *ctx, unsigned slot)
{
	(void)ctx;
	(void)slot;
}

static inline void c_goaway(void *ctx, enum sp_reason why, uint64_t deadline_ms)
{
	(void)deadline_ms;
	((struct device *)ctx)->goaway = why;
}

static inline void c_ended(void *ctx, enum sp_reason why)
{
	struct device *d = ctx;
	d->ended++;
	d->end_why = why;
}

static inline void c_flow_data(void *ctx, struct sp_flow *fl, const uint8_t *buf,
			       size_t len)
{
	(void)ctx;
	(void)fl;
	(void)buf;
	(void)len;
}

static inline void c_flow_closed(void *ctx, struct sp_flow *fl, enum sp_reason why)
{
	(void)ctx;
	(void)fl;
	(void)why;
}

static const struct sp_session_ops client_ops = {
	.stream_opened = c_opened,
	.stream_sink = c_sink,
	.stream_sink_fin = c_fin,
	.stream_source_ready = c_ready,
	.stream_closed = c_closed,
	.flow_data = c_flow_data,
	.flow_closed = c_flow_closed,
	.attached = c_attached,
	.ticket = c_ticket,
	.stalled = c_stalled,
	.goaway = c_goaway,
	.ended = c_ended,
};

static inline void l_up(void *ctx, struct sp_link *l)
{
	(void)l;
	((struct device *)ctx)->ups++;
}

static inline void l_down(void *ctx, struct sp_link *l, enum sp_reason why)
{
	struct device *d = ctx;
	if (d->link == l)
		d->link = NULL;
	d->downs++;
	d->down_why = why;
}

static const struct sp_link_client_ops link_ops = {l_up, l_down};

static inline void make_pass(struct device *d, const char *user, uint64_t lifetime_s)
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

static inline void make_device(struct device *d, const char *user, uint64_t lifetime_s)
{
	struct sp_arena_options ao = {
		.max_sessions = 4, .max_streams = 256, .memory_bytes = 8 << 20};
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

static inline void dial(struct device *d, bool resume)
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
		.attach_flags = d->attach_flags,
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

static inline int start(const char *limits)
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
	assert_int_equal(wrk_worker_new(x.yaml, cfg, &id, NULL, &x.w), 0);
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

static inline int setup(void **state)
{
	(void)state;
	return start("");
}

static inline int setup_small(void **state)
{
	(void)state;
	return start("limits:\n  sessions: 1\n  sessions_per_user: 1\n"
		     "  stale_timeout: 1s\n  opens_per_second: 1\n");
}

static inline int teardown(void **state)
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

static inline enum wrk_reload reload(void)
{
	char why[SP_WHY_MAX];
	return wrk_worker_reload(x.w, false, false, why, sizeof(why));
}

static inline const struct wrk_sessions_counters *sessions(void)
{
	return wrk_sessions_counters(x.w->sessions);
}

static inline struct sp_stream *open_stream(struct device *d)
{
	struct sp_stream *st;
	assert_int_equal(sp_session_open(d->session, &x.target, NULL, &st), 0);
	return st;
}

static inline int join_stream(struct device *d, struct sp_stream **ret)
{
	int before = d->opened, fd;
	*ret = open_stream(d);
	UNTIL(d->opened > before);
	UNTIL((fd = accept4(x.listener, NULL, NULL, SOCK_NONBLOCK)) >= 0);
	return fd;
}

static inline void up(struct device *d, const char *user)
{
	make_device(d, user, 3600);
	dial(d, false);
	UNTIL(d->ups == 1);
}

static inline void free_device(struct device *d)
{
	if (d->session) {
		sp_session_clock_remove(x.clock, d->session);
		sp_session_free(d->session, SP_REASON_SHUTDOWN);
	}
	sp_arena_free(d->arena);
	memset(d, 0, sizeof(*d));
}

#endif
