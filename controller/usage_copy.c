#include "controller/usage_copy.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEADLINE_MS 2000 // nobody waits for it
#define KEY_MAX     160
#define FIELD_MAX   (CON_USAGE_WORKER_MAX + 24)
#define VALUE_MAX   48
#define CLOSED_MAX  "100000" // boots that Redis remembers

// Values are UP:DOWN in decimal: doubles of Lua are exact to 2^53 bytes, and only
// compare.
static const char lua_user[] =
	"local function sum(v)\n"
	"  local up, down = string.match(v, '^(%d+):(%d+)$')\n"
	"  return up and tonumber(up) + tonumber(down) or 0\n"
	"end\n"
	"local function all(t)\n"
	"  local n = 0\n"
	"  for i = 1, #t, 2 do if t[i] ~= 'm' then n = n + sum(t[i + 1]) end end\n"
	"  return n\n"
	"end\n"
	"if all(redis.call('HGETALL', KEYS[1])) > all(ARGV) then return 'newer' end\n"
	"redis.call('DEL', KEYS[1])\n"
	"redis.call('HSET', KEYS[1], unpack(ARGV))\n"
	"return 'ok'\n";

struct fields { // argv of a command, with what it points to
	size_t n, cap;
	const char **v;
	size_t *len;
	char (*text)[FIELD_MAX];
	bool failed;
};

static void add(struct fields *f, const char *text)
{
	if (f->n == f->cap) {
		size_t cap = f->cap ? 2 * f->cap : 32;
		char(*t)[FIELD_MAX] = realloc(f->text, cap * sizeof(*t));
		if (t)
			f->text = t;
		const char **v = realloc(f->v, cap * sizeof(*v));
		if (v)
			f->v = v;
		size_t *len = realloc(f->len, cap * sizeof(*len));
		if (len)
			f->len = len;
		if (!t || !v || !len) {
			f->failed = true;
			return;
		}
		f->cap = cap;
	}
	snprintf(f->text[f->n++], FIELD_MAX, "%s", text);
}

static void put_base(void *ctx, const char *user, const struct con_usage_sum *base,
		     uint64_t period, uint64_t mark)
{
	char text[VALUE_MAX];
	(void)user;
	add(ctx, "b");
	snprintf(text, sizeof(text), "%" PRIu64 ":%" PRIu64, base->up, base->down);
	add(ctx, text);
	add(ctx, "m");
	snprintf(text, sizeof(text), "%" PRIu64 ":%" PRIu64, period, mark);
	add(ctx, text);
}

static void put_entry(void *ctx, const char *user, const char *worker, uint64_t boot,
		      const struct con_usage_sum *sum)
{
	char text[FIELD_MAX];
	(void)user;
	snprintf(text, sizeof(text), "e%016" PRIx64 "|%s", boot, worker);
	add(ctx, text);
	snprintf(text, sizeof(text), "%" PRIu64 ":%" PRIu64, sum->up, sum->down);
	add(ctx, text);
}

// The texts of script and key are put in place of "SCRIPT" and "KEY".
static int run(const struct con_usage_copy *c, struct fields *f, const char *script,
	       const char *key, con_usage_copy_done done, void *ctx)
{
	for (size_t i = 0; !f->failed && i < f->n; i++) {
		f->v[i] = f->text[i];
		if (script && i == 1)
			f->v[i] = script;
		if (i == (script ? 3 : 1))
			f->v[i] = key;
		f->len[i] = strlen(f->v[i]);
	}
	int err = f->failed ? -ENOMEM
			    : con_redis_command(c->redis, (int)f->n, f->v, f->len,
						DEADLINE_MS, done, ctx);
	free(f->text);
	free(f->v);
	free(f->len);
	return err;
}

static void key_user(const struct con_usage_copy *c, const char *user, char *ret)
{
	snprintf(ret, KEY_MAX, "sp:{%.64s}:u:%.64s", c->fleet, user);
}

static void key_closed(const struct con_usage_copy *c, char *ret)
{
	snprintf(ret, KEY_MAX, "sp:{%.64s}:ub", c->fleet);
}

int con_usage_copy_user(const struct con_usage_copy *c, const struct con_usage *u,
			const char *user, con_usage_copy_done done, void *ctx)
{
	static const struct con_usage_visitor v = {.user = put_base, .entry = put_entry};
	char key[KEY_MAX];
	struct fields f = {0};
	key_user(c, user, key);
	add(&f, "EVAL");
	add(&f, "SCRIPT");
	add(&f, "1");
	add(&f, "KEY");
	(void)con_usage_one(u, user, &v, &f);
	return run(c, &f, lua_user, key, done, ctx);
}

int con_usage_copy_closed(const struct con_usage_copy *c, const char *worker,
			  uint64_t boot, uint64_t now_s, con_usage_copy_done done,
			  void *ctx)
{
	static const char script[] =
		"redis.call('ZADD', KEYS[1], 'NX', ARGV[1], ARGV[2])\n"
		"redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -" CLOSED_MAX " - 1)\n"
		"return 'ok'\n";
	char key[KEY_MAX], text[FIELD_MAX];
	struct fields f = {0};
	key_closed(c, key);
	add(&f, "EVAL");
	add(&f, "SCRIPT");
	add(&f, "1");
	add(&f, "KEY");
	snprintf(text, sizeof(text), "%" PRIu64, now_s);
	add(&f, text);
	snprintf(text, sizeof(text), "%016" PRIx64 "|%s", boot, worker);
	add(&f, text);
	return run(c, &f, script, key, done, ctx);
}

int con_usage_ask_user(const struct con_usage_copy *c, const char *user,
		       con_usage_copy_done done, void *ctx)
{
	char key[KEY_MAX];
	struct fields f = {0};
	key_user(c, user, key);
	add(&f, "HGETALL");
	add(&f, "KEY");
	return run(c, &f, NULL, key, done, ctx);
}

int con_usage_ask_closed(const struct con_usage_copy *c, con_usage_copy_done done,
			 void *ctx)
{
	char key[KEY_MAX];
	struct fields f = {0};
	key_closed(c, key);
	add(&f, "ZRANGE");
	add(&f, "KEY");
	add(&f, "0");
	add(&f, "-1");
	return run(c, &f, NULL, key, done, ctx);
}

// ---- answers ----

static bool is_list(const redisReply *r)
{
	if (!r || r->type != REDIS_REPLY_ARRAY)
		return false;
	for (size_t i = 0; i < r->elements; i++)
		if (r->element[i]->type != REDIS_REPLY_STRING)
			return false;
	return true;
}

static bool pair(const char *text, uint64_t *a, uint64_t *b)
{
	int end = 0;
	return sscanf(text, "%" SCNu64 ":%" SCNu64 "%n", a, b, &end) == 2 && !text[end];
}

// BOOT|WORKER.
static bool boot_of(const char *text, uint64_t *boot, const char **worker)
{
	int end = 0;
	if (sscanf(text, "%16" SCNx64 "%n", boot, &end) != 1 || end != 16 ||
	    text[16] != '|')
		return false;
	*worker = text + 17;
	return true;
}

static bool take_field(struct con_usage *u, const char *user, const char *field,
		       const char *value)
{
	struct con_usage_sum sum;
	const char *worker;
	uint64_t boot;
	if (!pair(value, &sum.up, &sum.down))
		return false;
	if (!strcmp(field, "b"))
		return con_usage_set_base(u, user, &sum) == 0;
	if (!strcmp(field, "m"))
		return con_usage_set_period(u, user, sum.up, sum.down) == 0;
	if (field[0] != 'e' || !boot_of(field + 1, &boot, &worker))
		return false;
	int err = con_usage_add(u, worker, boot, user, &sum);
	return err >= 0 || err == SP_E_CLOSED;
}

bool con_usage_take_user(struct con_usage *u, const char *user, const redisReply *r)
{
	bool good = is_list(r) && r->elements % 2 == 0;
	for (size_t i = 0; good && i < r->elements; i += 2)
		good = take_field(u, user, r->element[i]->str, r->element[i + 1]->str);
	return good;
}

bool con_usage_take_closed(struct con_usage *u, const redisReply *r)
{
	bool good = is_list(r);
	for (size_t i = 0; good && i < r->elements; i++) {
		const char *worker;
		uint64_t boot;
		good = boot_of(r->element[i]->str, &boot, &worker) &&
		       con_usage_close(u, worker, boot) >= 0;
	}
	return good;
}
