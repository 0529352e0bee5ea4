#include "controller/redis.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include <hiredis/adapters/libevent.h>
#include <hiredis/async.h>

#include "lib/addr.h"

struct request {
	TAILQ_ENTRY(request) waiting; // by deadline
	struct con_redis *r;          // NULL: told already, its answer is dropped
	uint64_t sent_us, deadline_us;
	void (*done)(void *ctx, const redisReply *reply);
	void *ctx;
};
TAILQ_HEAD(requests, request);

struct con_redis {
	struct sp_loop *loop;
	char *address, *password;
	void (*on_up)(void *ctx);
	void (*on_down)(void *ctx, const char *why);
	void *ctx;
	redisAsyncContext *ac; // NULL: none
	bool up, freeing;
	unsigned n; // requests that wait, told or not
	struct requests requests;
	struct sp_timer deadline, retry;
	uint32_t retry_ms;
	uint64_t heard_us; // the last answer, or when the first request began to wait
	char why[128];     // told last
	struct con_redis_counters counters;
};

static const double second_bounds[] = {0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02,
				       0.05,   0.1,    0.2,   0.5,   1,     2};

static void start_connect(struct con_redis *r);

// ---- requests ----

static void arm_deadline(struct con_redis *r)
{
	struct request *q = TAILQ_FIRST(&r->requests);
	uint64_t at = q ? q->deadline_us : SP_LOOP_NEVER;
	if (r->n && r->ac) {
		uint64_t silent = r->heard_us + CON_REDIS_SILENT_MS * UINT64_C(1000);
		at = silent < at ? silent : at;
	}
	sp_timer_set(&r->deadline, at);
}

// The answer of a request goes out, once.
static void tell(struct request *q, const redisReply *reply)
{
	struct con_redis *r = q->r;
	if (!r)
		return;
	TAILQ_REMOVE(&r->requests, q, waiting);
	q->r = NULL;
	q->done(q->ctx, reply);
}

static void on_reply(redisAsyncContext *ac, void *reply, void *arg)
{
	struct con_redis *r = ac->data;
	struct request *q = arg;
	const redisReply *m = reply;
	r->n--;
	if (m) {
		r->heard_us = sp_loop_now_us(r->loop);
		r->counters.answers++;
		r->counters.errors += m->type == REDIS_REPLY_ERROR;
		sp_histogram_observe(&r->counters.seconds,
				     (double)(r->heard_us - q->sent_us) / 1e6);
	}
	tell(q, m);
	free(q);
	if (!r->freeing)
		arm_deadline(r);
}

static void set_down(struct con_redis *r, const char *why)
{
	bool was_up = r->up;
	r->up = false;
	if (!was_up && strcmp(why, r->why) == 0)
		return;
	snprintf(r->why, sizeof(r->why), "%s", why);
	if (r->on_down && !r->freeing)
		r->on_down(r->ctx, r->why);
}

static void retry_later(struct con_redis *r)
{
	sp_timer_set(&r->retry, sp_loop_now_us(r->loop) + r->retry_ms * UINT64_C(1000));
	r->retry_ms = 2 * r->retry_ms < CON_REDIS_RETRY_MAX_MS ? 2 * r->retry_ms
							       : CON_REDIS_RETRY_MAX_MS;
}

// Ends the connection; every request on it is told NULL.
static void drop(struct con_redis *r, const char *why)
{
	redisAsyncContext *ac = r->ac;
	char text[sizeof(r->why)];
	snprintf(text, sizeof(text), "%s", why);
	r->ac = NULL;
	if (ac) {
		r->counters.losses += r->up;
		redisAsyncFree(ac); // calls on_reply with NULL for each, not on_closed
	}
	set_down(r, text);
	if (!r->freeing)
		retry_later(r);
	arm_deadline(r);
}

static void on_deadline(void *arg)
{
	struct con_redis *r = arg;
	uint64_t now = sp_loop_now_us(r->loop);
	struct request *q;
	while ((q = TAILQ_FIRST(&r->requests)) && q->deadline_us <= now) {
		r->counters.late++;
		tell(q, NULL);
	}
	if (r->ac && r->n && now >= r->heard_us + CON_REDIS_SILENT_MS * UINT64_C(1000))
		drop(r, "it answers nothing");
	else
		arm_deadline(r);
}

static int send_request(struct con_redis *r, int argc, const char **argv,
			const size_t *len, uint32_t deadline_ms,
			void (*done)(void *ctx, const redisReply *reply), void *ctx)
{
	struct request *q = calloc(1, sizeof(*q)), *at;
	if (!q)
		return -ENOMEM;
	uint64_t now = sp_loop_now_us(r->loop);
	q->r = r;
	q->done = done;
	q->ctx = ctx;
	q->sent_us = now;
	q->deadline_us = now + deadline_ms * UINT64_C(1000);
	if (redisAsyncCommandArgv(r->ac, on_reply, q, argc, argv, len) != REDIS_OK) {
		free(q);
		return -ENOTCONN;
	}
	TAILQ_FOREACH_REVERSE(at, &r->requests, requests, waiting)
	if (at->deadline_us <= q->deadline_us)
		break;
	if (at)
		TAILQ_INSERT_AFTER(&r->requests, at, q, waiting);
	else
		TAILQ_INSERT_HEAD(&r->requests, q, waiting);
	if (r->n++ == 0)
		r->heard_us = now;
	r->counters.commands++;
	arm_deadline(r);
	return 0;
}

int con_redis_command(struct con_redis *r, int argc, const char **argv,
		      const size_t *argv_len, uint32_t deadline_ms,
		      void (*done)(void *ctx, const redisReply *reply), void *ctx)
{
	int err = !r->up || r->freeing            ? -ENOTCONN
		  : r->n >= CON_REDIS_WAITING_MAX ? -EAGAIN
						  : 0;
	if (!err)
		err = send_request(r, argc, argv, argv_len, deadline_ms, done, ctx);
	r->counters.refused += err != 0;
	return err;
}

// ---- the connection ----

static void stand(struct con_redis *r)
{
	r->up = true;
	r->why[0] = '\0';
	r->retry_ms = CON_REDIS_RETRY_MS;
	r->counters.connects++;
	if (r->on_up)
		r->on_up(r->ctx);
}

// The first command's answer: that of AUTH, or of PING.
static void on_first(void *ctx, const redisReply *reply)
{
	struct con_redis *r = ctx;
	if (r->freeing)
		return;
	if (reply && reply->type != REDIS_REPLY_ERROR)
		stand(r);
	else if (reply)
		set_down(r, reply->str); // it stays: a restart of Redis comes later
	else
		set_down(r, "it does not answer");
}

static void on_connected(const redisAsyncContext *ac, int status)
{
	struct con_redis *r = ac->data;
	if (status != REDIS_OK) { // hiredis frees it
		r->ac = NULL;
		set_down(r, ac->errstr);
		if (!r->freeing)
			retry_later(r);
		return;
	}
	const char *argv[2] = {r->password ? "AUTH" : "PING", r->password};
	size_t len[2] = {4, r->password ? strlen(r->password) : 0};
	(void)!send_request(r, r->password ? 2 : 1, argv, len, CON_REDIS_SILENT_MS,
			    on_first, r);
}

static void on_closed(const redisAsyncContext *ac, int status)
{
	struct con_redis *r = ac->data;
	if (r->ac != ac)
		return;
	r->ac = NULL;
	r->counters.losses += r->up;
	set_down(r, status == REDIS_OK ? "closed" : ac->errstr);
	if (!r->freeing)
		retry_later(r);
}

static redisAsyncContext *dial(struct con_redis *r)
{
	struct sp_target t;
	char host[INET6_ADDRSTRLEN];
	if (strncmp(r->address, "unix:", 5) == 0)
		return redisAsyncConnectUnix(r->address + 5);
	if (sp_target_parse(r->address, &t))
		return NULL;
	inet_ntop(t.kind == SP_TARGET_IPV4 ? AF_INET : AF_INET6, t.v4, host,
		  sizeof(host));
	return redisAsyncConnect(host, t.port);
}

static void start_connect(struct con_redis *r)
{
	redisAsyncContext *ac = dial(r);
	if (!ac || ac->err) {
		set_down(r, ac ? ac->errstr : "out of memory");
		if (ac)
			redisAsyncFree(ac);
		retry_later(r);
		return;
	}
	ac->data = r;
	r->ac = ac;
	if (redisLibeventAttach(ac, sp_loop_base(r->loop)) != REDIS_OK ||
	    redisAsyncSetConnectCallback(ac, on_connected) != REDIS_OK ||
	    redisAsyncSetDisconnectCallback(ac, on_closed) != REDIS_OK)
		drop(r, "out of memory");
}

static void on_retry(void *arg)
{
	struct con_redis *r = arg;
	if (!r->ac)
		start_connect(r);
}

void con_redis_reconnect(struct con_redis *r, const char *why)
{
	r->retry_ms = CON_REDIS_RETRY_MS;
	drop(r, why);
}

// ---- start and end ----

static bool is_address(const char *text)
{
	struct sp_target t;
	if (strncmp(text, "unix:", 5) == 0)
		return text[5] == '/';
	return sp_target_parse(text, &t) == 0 && t.kind != SP_TARGET_NAME && t.port;
}

int con_redis_new(const struct con_redis_options *opt, struct con_redis **ret)
{
	if (!is_address(opt->address))
		return SP_E_MALFORMED;
	struct con_redis *r = calloc(1, sizeof(*r));
	if (!r)
		return -ENOMEM;
	r->loop = opt->loop;
	r->address = strdup(opt->address);
	r->password = opt->password ? strdup(opt->password) : NULL;
	r->on_up = opt->up;
	r->on_down = opt->down;
	r->ctx = opt->ctx;
	r->retry_ms = CON_REDIS_RETRY_MS;
	sp_histogram_init(&r->counters.seconds, second_bounds,
			  sizeof(second_bounds) / sizeof(second_bounds[0]));
	TAILQ_INIT(&r->requests);
	sp_timer_init(&r->deadline, r->loop, on_deadline, r);
	sp_timer_init(&r->retry, r->loop, on_retry, r);
	if (!r->address || (opt->password && !r->password)) {
		con_redis_free(r);
		return -ENOMEM;
	}
	sp_timer_set(&r->retry, sp_loop_now_us(r->loop));
	*ret = r;
	return 0;
}

void con_redis_free(struct con_redis *r)
{
	if (!r)
		return;
	r->freeing = true;
	if (r->ac)
		drop(r, "closed");
	sp_timer_done(&r->deadline);
	sp_timer_done(&r->retry);
	if (r->password)
		explicit_bzero(r->password, strlen(r->password));
	free(r->password);
	free(r->address);
	free(r);
}

const char *con_redis_why(const struct con_redis *r)
{
	return r->why;
}

bool con_redis_is_up(const struct con_redis *r)
{
	return r->up;
}

const struct con_redis_counters *con_redis_counters(const struct con_redis *r)
{
	return &r->counters;
}
