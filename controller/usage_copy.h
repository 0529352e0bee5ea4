// Users' totals to and from Redis: one hash per user, one sorted set of boots that ended.
// Commands only; what they are for is in controller/usage_store.h.
#ifndef CON_USAGE_COPY_H
#define CON_USAGE_COPY_H

#include "controller/redis.h"
#include "controller/usage.h"

struct con_usage_copy {
	struct con_redis *redis;
	const char *fleet;
};

typedef void (*con_usage_copy_done)(void *ctx, const redisReply *r);

// Replaces the user's hash, unless Redis knows of more: "ok", "newer". 0; -ENOMEM, or the
// connection's error: `done` is not called.
int con_usage_copy_user(const struct con_usage_copy *c, const struct con_usage *u,
			const char *user, con_usage_copy_done done,
			void *ctx) SP_MUST_CHECK;
int con_usage_copy_closed(const struct con_usage_copy *c, const char *worker,
			  uint64_t boot, uint64_t now_s, con_usage_copy_done done,
			  void *ctx) SP_MUST_CHECK;
int con_usage_ask_user(const struct con_usage_copy *c, const char *user,
		       con_usage_copy_done done, void *ctx) SP_MUST_CHECK;
int con_usage_ask_closed(const struct con_usage_copy *c, con_usage_copy_done done,
			 void *ctx) SP_MUST_CHECK;
// What the two ask for, into `u`. False: not an answer; some of it may be taken.
bool con_usage_take_user(struct con_usage *u, const char *user, const redisReply *r);
bool con_usage_take_closed(struct con_usage *u, const redisReply *r);

#endif
