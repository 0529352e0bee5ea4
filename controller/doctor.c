// GET /v1/doctor of the operator API: where the controller, its disk and Redis stand, as
// facts. Redis is asked anew, so that what it answers is of now. Not here: what is good
// or bad of it (sallyportctl doctor).
#include "controller/doctor.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#define ASK_MS 1000

struct look {
	struct con_controller *c;
	struct con_api_call *call;
	json_t *redis; // what it answered so far
	unsigned waiting;
	uint64_t asked_us;
};

static json_t *journal_facts(struct con_controller *c)
{
	struct statvfs fs;
	json_t *o =
		json_pack("{s:s, s:o, s:I, s:I}", "folder", c->cfg->state_dir, "position",
			  con_api_position(con_fleet_head(c->fleet)), "bytes",
			  (json_int_t)con_fleet_journal_bytes(c->fleet), "errors",
			  (json_int_t)con_fleet_counters(c->fleet)->journal_errors);
	if (o && statvfs(c->cfg->state_dir, &fs) == 0) {
		json_object_set_new(
			o, "disk_bytes",
			json_integer((json_int_t)(fs.f_blocks * fs.f_frsize)));
		json_object_set_new(
			o, "disk_free_bytes",
			json_integer((json_int_t)(fs.f_bavail * fs.f_frsize)));
	}
	return o;
}

static void end_look(struct look *l)
{
	if (--l->waiting)
		return;
	struct con_controller *c = l->c;
	json_object_set_new(l->redis, "up",
			    json_boolean(con_redis_is_up(con_fleet_redis(c->fleet))));
	json_object_set_new(l->redis, "why",
			    json_string(con_redis_why(con_fleet_redis(c->fleet))));
	con_api_answer(l->call, 200,
		       json_pack("{s:s, s:I, s:I, s:b, s:O, s:o}", "fleet", c->cfg->fleet,
				 "time_ms", (json_int_t)sp_loop_unix_ms(c->loop),
				 "started_ms", (json_int_t)c->started_unix_ms, "synced",
				 con_fleet_is_synced(c->fleet), "redis", l->redis,
				 "journal", journal_facts(c)));
	json_decref(l->redis);
	free(l);
}

// ---- Redis's answers ----

static void on_time(void *ctx, const redisReply *r)
{
	struct look *l = ctx;
	if (r && r->type == REDIS_REPLY_ARRAY && r->elements == 2 &&
	    r->element[0]->type == REDIS_REPLY_STRING &&
	    r->element[1]->type == REDIS_REPLY_STRING) {
		json_int_t ms = strtoll(r->element[0]->str, NULL, 10) * 1000 +
				strtoll(r->element[1]->str, NULL, 10) / 1000;
		uint64_t now = sp_loop_refresh(l->c->loop);
		json_object_set_new(l->redis, "time_ms", json_integer(ms));
		json_object_set_new(l->redis, "answered_us",
				    json_integer((json_int_t)(now - l->asked_us)));
		json_object_set_new(
			l->redis, "asked_at_ms",
			json_integer((json_int_t)sp_loop_unix_ms(l->c->loop)));
	}
	end_look(l);
}

static void on_head(void *ctx, const redisReply *r)
{
	struct look *l = ctx;
	uint64_t sequence;
	unsigned epoch;
	if (r && r->type == REDIS_REPLY_STRING &&
	    sscanf(r->str, "%u:%" SCNu64, &epoch, &sequence) == 2) {
		const char *hash = strrchr(r->str, ':') + 1;
		json_object_set_new(l->redis, "position",
				    json_pack("{s:I, s:I, s:s}", "epoch",
					      (json_int_t)epoch, "sequence",
					      (json_int_t)sequence, "hash", hash));
	}
	end_look(l);
}

// The newest entry of the stream: its id is its sequence.
static void on_last(void *ctx, const redisReply *r)
{
	struct look *l = ctx;
	if (r && r->type == REDIS_REPLY_ARRAY && r->elements == 1 &&
	    r->element[0]->type == REDIS_REPLY_ARRAY && r->element[0]->elements > 0 &&
	    r->element[0]->element[0]->type == REDIS_REPLY_STRING)
		json_object_set_new(
			l->redis, "stream_sequence",
			json_integer(strtoll(r->element[0]->element[0]->str, NULL, 10)));
	end_look(l);
}

static void on_length(void *ctx, const redisReply *r)
{
	struct look *l = ctx;
	if (r && r->type == REDIS_REPLY_INTEGER)
		json_object_set_new(l->redis, "stream_entries", json_integer(r->integer));
	end_look(l);
}

static void take_number(json_t *to, const char *info, const char *name)
{
	char line[64];
	snprintf(line, sizeof(line), "\n%s:", name);
	const char *at = strstr(info, line);
	if (at)
		json_object_set_new(to, name,
				    json_integer(strtoll(at + strlen(line), NULL, 10)));
}

static void on_memory(void *ctx, const redisReply *r)
{
	struct look *l = ctx;
	if (r && r->type == REDIS_REPLY_STRING) {
		const char *policy = strstr(r->str, "\nmaxmemory_policy:");
		take_number(l->redis, r->str, "used_memory");
		take_number(l->redis, r->str, "maxmemory");
		if (policy) {
			policy += strlen("\nmaxmemory_policy:");
			json_object_set_new(
				l->redis, "maxmemory_policy",
				json_stringn(policy, strcspn(policy, "\r\n")));
		}
	}
	end_look(l);
}

// ---- the question ----

static void ask(struct look *l, int argc, const char **argv,
		void (*done)(void *ctx, const redisReply *r))
{
	size_t len[8];
	for (int i = 0; i < argc; i++)
		len[i] = strlen(argv[i]);
	if (con_redis_command(con_fleet_redis(l->c->fleet), argc, argv, len, ASK_MS, done,
			      l) == 0)
		l->waiting++;
}

static void doctor(void *ctx, struct con_api_call *call)
{
	struct con_controller *c = ctx;
	struct look *l = calloc(1, sizeof(*l));
	char head[128], stream[128];
	if (l)
		*l = (struct look){.c = c,
				   .call = call,
				   .redis = json_object(),
				   .waiting = 1, // this function's own
				   .asked_us = sp_loop_refresh(c->loop)};
	if (!l || !l->redis) {
		free(l);
		con_api_error(call, -ENOMEM, "out of memory");
		return;
	}
	snprintf(head, sizeof(head), "sp:{%s}:head", c->cfg->fleet);
	snprintf(stream, sizeof(stream), "sp:{%s}:journal", c->cfg->fleet);
	json_object_set_new(l->redis, "address", json_string(c->cfg->redis.address));
	ask(l, 1, (const char *[]){"TIME"}, on_time);
	ask(l, 2, (const char *[]){"GET", head}, on_head);
	ask(l, 6, (const char *[]){"XREVRANGE", stream, "+", "-", "COUNT", "1"}, on_last);
	ask(l, 2, (const char *[]){"XLEN", stream}, on_length);
	ask(l, 2, (const char *[]){"INFO", "memory"}, on_memory);
	end_look(l);
}

static int start(struct con_controller *c)
{
	static const struct con_api_route routes[] = {
		{"GET", "/v1/doctor", doctor},
		{0},
	};
	return con_api_add(c->api, routes, c);
}

const struct con_role con_role_doctor = {.name = "doctor", .start = start};
