// A connection to Redis in the event loop, with a deadline of our own for every command:
// whatever Redis does, `done` is called in time. hiredis 0.14 has none of that, nor does
// it reconnect. Not here: what the commands are.
//
// Redis that answers nothing for CON_REDIS_SILENT_MS while something waits is taken for
// frozen: the connection is closed, and a new one is tried again and again.
#ifndef CON_REDIS_H
#define CON_REDIS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <hiredis/hiredis.h>

#include "lib/loop.h"
#include "lib/metrics.h"

#define CON_REDIS_WAITING_MAX  8192 // commands without an answer; further ones fail
#define CON_REDIS_SILENT_MS    2000
#define CON_REDIS_RETRY_MS     50 // doubles to
#define CON_REDIS_RETRY_MAX_MS 2000

struct con_redis;

struct con_redis_options {
	struct sp_loop *loop;
	const char *address;  // "unix:/path", "HOST:PORT" (address, no name); copied
	const char *password; // NULL: none; copied
	// The connection stands (and knows the password), or it does no more. Both are
	// called from the loop. `why`: of an end, or of a failed try, when it changes.
	void (*up)(void *ctx);
	void (*down)(void *ctx, const char *why);
	void *ctx;
};

struct con_redis_counters {
	uint64_t commands, answers, errors; // errors: that Redis answered
	uint64_t late, refused;             // over their deadline; no connection
	uint64_t connects, losses;
	struct sp_histogram seconds; // from sending a command to its answer
};

// Begins to connect. 0 and *ret; -ENOMEM; SP_E_MALFORMED: an address that is none.
int con_redis_new(const struct con_redis_options *opt,
		  struct con_redis **ret) SP_MUST_CHECK;
// Ends every command with NULL. Not from inside a callback of it. NULL is fine.
void con_redis_free(struct con_redis *r);
bool con_redis_is_up(const struct con_redis *r);
// Why it is not, in a clause; "": it is, or nothing was tried yet.
const char *con_redis_why(const struct con_redis *r);
// Closes the connection, since `why`, and makes a new one: no command sent on the old one
// is answered.
void con_redis_reconnect(struct con_redis *r, const char *why);

// Sends one command. `done` is called once, later: its reply is borrowed, NULL: none
// within deadline_ms, or the connection went. 0; -ENOTCONN, -EAGAIN: not sent, and `done`
// is not called.
int con_redis_command(struct con_redis *r, int argc, const char **argv,
		      const size_t *argv_len, uint32_t deadline_ms,
		      void (*done)(void *ctx, const redisReply *reply),
		      void *ctx) SP_MUST_CHECK;
const struct con_redis_counters *con_redis_counters(const struct con_redis *r);

#endif
