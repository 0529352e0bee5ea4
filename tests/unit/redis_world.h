// A redis-server of the test's own, on a unix socket in a fresh folder, and a connection
// to it in the test's loop that keeps deadlines. Skipping is no choice: without the
// program the test fails.
#ifndef TESTS_UNIT_REDIS_WORLD_H
#define TESTS_UNIT_REDIS_WORLD_H

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <hiredis/adapters/libevent.h>
#include <hiredis/async.h>

#include "lib/loop.h"

struct redis_command {
	struct redis_command *next;
	void (*done)(void *ctx, const redisReply *r);
	void *ctx;
	uint64_t until_us;
	bool over; // the deadline passed: its answer is nobody's
};

static struct {
	char dir[64], socket[96];
	pid_t pid;
	struct sp_loop *loop;
	redisAsyncContext *ac;
	bool connected;
	struct redis_command *list;
	struct sp_timer timer;
} redis;

#define REDIS_UNTIL(cond)                                                                \
	do {                                                                             \
		uint64_t end_ = sp_loop_refresh(redis.loop) + 10000000;                  \
		while (!(cond)) {                                                        \
			struct timeval ms_ = {.tv_usec = 1000};                          \
			event_base_loopexit(sp_loop_base(redis.loop), &ms_);             \
			assert_int_equal(sp_loop_turn(redis.loop, false), 0);            \
			if (sp_loop_refresh(redis.loop) > end_)                          \
				fail_msg("never: %s", #cond);                            \
		}                                                                        \
	} while (0)

// ---- the server ----

static inline void redis_start(void)
{
	redis.pid = fork();
	assert_true(redis.pid >= 0);
	if (redis.pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		execlp("redis-server", "redis-server", "--port", "0", "--unixsocket",
		       redis.socket, "--dir", redis.dir, "--save", "", "--appendonly",
		       "no", "--logfile", "/dev/null", "--daemonize", "no", NULL);
		_exit(127);
	}
	for (int i = 0;; i++) { // it answers, on a connection of its own
		int status;
		redisContext *c = redisConnectUnix(redis.socket);
		redisReply *r = c && !c->err ? redisCommand(c, "PING") : NULL;
		bool good = r && r->type == REDIS_REPLY_STATUS;
		freeReplyObject(r);
		if (c)
			redisFree(c);
		if (good)
			return;
		if (waitpid(redis.pid, &status, WNOHANG) == redis.pid || i > 10000)
			fail_msg("redis-server does not start");
		usleep(1000);
	}
}

static inline void redis_kill(void)
{
	if (redis.pid <= 0)
		return;
	kill(redis.pid, SIGKILL);
	kill(redis.pid, SIGCONT);
	waitpid(redis.pid, NULL, 0);
	redis.pid = 0;
}

// Asks on a connection of its own and waits; the reply is the caller's.
static inline redisReply *redis_ask(const char *format, ...)
{
	redisContext *c = redisConnectUnix(redis.socket);
	va_list ap;
	assert_true(c && !c->err);
	va_start(ap, format);
	redisReply *r = redisvCommand(c, format, ap);
	va_end(ap);
	assert_non_null(r);
	redisFree(c);
	return r;
}

static inline long long redis_number(const char *format, const char *key)
{
	redisReply *r = redis_ask(format, key);
	long long n = r->integer;
	assert_int_equal(r->type, REDIS_REPLY_INTEGER);
	freeReplyObject(r);
	return n;
}

// ---- the connection ----

static inline void redis_set_timer(void)
{
	uint64_t at = SP_LOOP_NEVER;
	for (struct redis_command *c = redis.list; c; c = c->next)
		if (!c->over && c->until_us < at)
			at = c->until_us;
	sp_timer_set(&redis.timer, at);
}

static inline void redis_on_timer(void *ctx)
{
	uint64_t now = sp_loop_now_us(redis.loop);
	(void)ctx;
	for (struct redis_command *c = redis.list; c; c = c->next)
		if (!c->over && c->until_us <= now) {
			c->over = true;
			c->done(c->ctx, NULL);
		}
	redis_set_timer();
}

static inline void redis_on_reply(redisAsyncContext *ac, void *reply, void *ctx)
{
	struct redis_command *c = ctx, **p = &redis.list;
	(void)ac;
	while (*p != c)
		p = &(*p)->next;
	*p = c->next;
	if (!c->over)
		c->done(c->ctx, reply);
	free(c);
	redis_set_timer();
}

static inline int redis_command(void *ctx, int argc, const char **argv,
				const size_t *argv_len, uint32_t deadline_ms,
				void (*done)(void *ctx, const redisReply *r),
				void *done_ctx)
{
	(void)ctx;
	if (!redis.connected)
		return -ENOTCONN;
	struct redis_command *c = calloc(1, sizeof(*c));
	assert_non_null(c);
	*c = (struct redis_command){redis.list, done, done_ctx,
				    sp_loop_now_us(redis.loop) + deadline_ms * 1000ull,
				    false};
	if (redisAsyncCommandArgv(redis.ac, redis_on_reply, c, argc, argv, argv_len)) {
		free(c);
		return -ENOTCONN;
	}
	redis.list = c;
	redis_set_timer();
	return 0;
}

static inline void redis_on_connect(const redisAsyncContext *ac, int status)
{
	(void)ac;
	redis.connected = status == REDIS_OK;
}

static inline void redis_on_disconnect(const redisAsyncContext *ac, int status)
{
	(void)ac;
	(void)status;
	redis.connected = false;
	redis.ac = NULL;
}

static inline void redis_connect(void)
{
	redis.ac = redisAsyncConnectUnix(redis.socket);
	assert_true(redis.ac && !redis.ac->err);
	redisLibeventAttach(redis.ac, sp_loop_base(redis.loop));
	redisAsyncSetConnectCallback(redis.ac, redis_on_connect);
	redisAsyncSetDisconnectCallback(redis.ac, redis_on_disconnect);
	REDIS_UNTIL(redis.connected);
}

static inline void redis_disconnect(void)
{
	if (redis.ac)
		redisAsyncFree(redis.ac);
	redis.ac = NULL;
	redis.connected = false;
	assert_null(redis.list);
}

static inline void redis_world_new(struct sp_loop *loop)
{
	memset(&redis, 0, sizeof(redis));
	strcpy(redis.dir, "/tmp/sp-redis-XXXXXX");
	assert_non_null(mkdtemp(redis.dir));
	snprintf(redis.socket, sizeof(redis.socket), "%s/redis.sock", redis.dir);
	redis.loop = loop;
	sp_timer_init(&redis.timer, loop, redis_on_timer, NULL);
	redis_start();
	redis_connect();
}

static inline void redis_world_free(void)
{
	redis_disconnect();
	redis_kill();
	sp_timer_done(&redis.timer);
	unlink(redis.socket);
	rmdir(redis.dir);
}

#endif
