// In the place of the connection to Redis (controller/redis.h), which is then not linked:
// commands wait until they are answered by what a reader of hiredis has, or by NULL.
#ifndef FUZZ_REDIS_H
#define FUZZ_REDIS_H

#include <assert.h>
#include <errno.h>

#include "controller/redis.h"

#define ASKED_MAX 64

static struct {
	redisReader *reader;
	struct con_redis_options opt;
	struct con_redis_counters n;
	struct {
		void (*done)(void *ctx, const redisReply *reply);
		void *ctx;
	} asked[ASKED_MAX];
	unsigned n_asked, answered;
} x;

int con_redis_new(const struct con_redis_options *opt, struct con_redis **ret)
{
	x.opt = *opt;
	*ret = (struct con_redis *)&x;
	return 0;
}

void con_redis_free(struct con_redis *r)
{
	(void)r;
}

bool con_redis_is_up(const struct con_redis *r)
{
	(void)r;
	return true;
}

const char *con_redis_why(const struct con_redis *r)
{
	(void)r;
	return "";
}

void con_redis_reconnect(struct con_redis *r, const char *why)
{
	(void)r;
	assert(*why);
}

int con_redis_command(struct con_redis *r, int argc, const char **argv,
		      const size_t *argv_len, uint32_t deadline_ms,
		      void (*done)(void *ctx, const redisReply *reply), void *ctx)
{
	(void)r;
	(void)argv;
	(void)argv_len;
	assert(argc > 0 && deadline_ms > 0);
	if (x.n_asked == ASKED_MAX)
		return -EAGAIN;
	x.asked[x.n_asked].done = done;
	x.asked[x.n_asked++].ctx = ctx;
	return 0;
}

const struct con_redis_counters *con_redis_counters(const struct con_redis *r)
{
	(void)r;
	return &x.n;
}

// The next answer, which the reader allocated. NULL: there is none.
static inline redisReply *next_reply(void)
{
	void *reply = NULL;
	if (!x.reader || redisReaderGetReply(x.reader, &reply) != REDIS_OK)
		return NULL;
	return reply;
}

// Every command gets an answer, the last ones that the connection went.
static inline void answer_all(void)
{
	while (x.answered < x.n_asked) {
		redisReply *r = next_reply();
		x.asked[x.answered].done(x.asked[x.answered].ctx, r);
		x.answered++;
		freeReplyObject(r);
	}
}

#endif
