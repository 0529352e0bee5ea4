// A redis-server of the test's own, on a unix socket in a fresh folder, and the
// controller's connection to it in the test's loop. Skipping is no choice: without the
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

#include "controller/redis.h"
#include "lib/loop.h"

static struct {
	char dir[64], socket[96];
	pid_t pid;
	struct sp_loop *loop;
	struct con_redis *r;
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
	signal(SIGPIPE,
	       SIG_IGN); // as the programs do: a server that is killed may be written to
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

static inline void redis_changed(void *ctx)
{
	(void)ctx;
}

static inline void redis_went(void *ctx, const char *why)
{
	(void)ctx;
	(void)why;
}

static inline void redis_connect(void)
{
	char address[128];
	struct con_redis_options o = {.loop = redis.loop,
				      .address = address,
				      .up = redis_changed,
				      .down = redis_went};
	snprintf(address, sizeof(address), "unix:%s", redis.socket);
	assert_int_equal(con_redis_new(&o, &redis.r), 0);
	REDIS_UNTIL(con_redis_is_up(redis.r));
}

static inline void redis_disconnect(void)
{
	con_redis_free(redis.r);
	redis.r = NULL;
}

static inline void redis_world_new(struct sp_loop *loop)
{
	memset(&redis, 0, sizeof(redis));
	strcpy(redis.dir, "/tmp/sp-redis-XXXXXX");
	assert_non_null(mkdtemp(redis.dir));
	snprintf(redis.socket, sizeof(redis.socket), "%s/redis.sock", redis.dir);
	redis.loop = loop;
	redis_start();
	redis_connect();
}

static inline void redis_world_free(void)
{
	redis_disconnect();
	redis_kill();
	unlink(redis.socket);
	rmdir(redis.dir);
}

#endif
