// Redis beside the journal. Keys: sp:{FLEET}:head, a text "epoch:sequence:hash";
// :journal, a stream whose ids are sequences, each entry a revision (r, and p: private
// part) or a base (b, q); :writer, who may write: set by each new connection, so that
// what an older one left behind, in a frozen Redis perhaps, is refused when it thaws.
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "controller/fleet_internal.h"
#include "lib/text.h"

#define DEADLINE_MS 1500
#define BEAT_MS     500 // how often Redis is asked whether it still stands where we do
#define READ_MAX    "256"

// KEYS head, stream, writer; ARGV writer, head before, head after, id, r, p
static const char lua_append[] =
	"if redis.call('GET',KEYS[3])~=ARGV[1] then return 'writer' end "
	"local h=redis.call('GET',KEYS[1]) or '' "
	"if h==ARGV[3] then return 'ok' end "
	"if h~=ARGV[2] then return h end "
	"redis.call('XADD',KEYS[2],ARGV[4],'r',ARGV[5],'p',ARGV[6]) "
	"redis.call('SET',KEYS[1],ARGV[3]) return 'ok'";
// KEYS head, stream, writer; ARGV writer, head before, head after, id of the base, b, q,
// id of the revision, r
static const char lua_seed[] =
	"if redis.call('GET',KEYS[3])~=ARGV[1] then return 'writer' end "
	"local h=redis.call('GET',KEYS[1]) or '' "
	"if h==ARGV[3] then return 'ok' end "
	"if h~=ARGV[2] then return h end "
	"redis.call('DEL',KEYS[2]) "
	"redis.call('XADD',KEYS[2],ARGV[4],'b',ARGV[5],'q',ARGV[6]) "
	"redis.call('XADD',KEYS[2],ARGV[7],'r',ARGV[8],'p','') "
	"redis.call('SET',KEYS[1],ARGV[3]) return 'ok'";

// An answer that is awaited; of an older sync it counts nothing.
struct ask {
	struct con_fleet *f;
	uint32_t serial;
	void (*then)(struct con_fleet *f, const redisReply *r);
};

static void look(struct con_fleet *f);
static void claim(struct con_fleet *f);

// ---- commands ----

static void on_answer(void *ctx, const redisReply *r)
{
	struct ask *a = ctx;
	struct con_fleet *f = a->f;
	bool ours = a->serial == f->serial;
	void (*then)(struct con_fleet *, const redisReply *) = a->then;
	free(a);
	if (ours)
		then(f, r);
}

static void ask(struct con_fleet *f, int argc, const char **argv, const size_t *len,
		void (*then)(struct con_fleet *f, const redisReply *r))
{
	size_t lens[16];
	for (int i = 0; i < argc; i++)
		lens[i] = len && len[i] ? len[i] : strlen(argv[i]);
	struct ask *a = malloc(sizeof(*a));
	if (a) {
		*a = (struct ask){f, f->serial, then};
		if (con_redis_command(f->redis, argc, argv, lens, DEADLINE_MS, on_answer,
				      a) == 0)
			return;
		free(a);
	}
	// No connection: its end starts everything anew.
	f->sync = CON_SYNC_AWAY;
}

static const char *key(const struct con_fleet *f, const char *what, char *buf, size_t cap)
{
	snprintf(buf, cap, "sp:{%s}:%s", f->name, what);
	return buf;
}

struct keys {
	char head[CON_FLEET_PREFIX_MAX + 16], stream[CON_FLEET_PREFIX_MAX + 16],
		writer[CON_FLEET_PREFIX_MAX + 16];
};

static void make_keys(const struct con_fleet *f, struct keys *k)
{
	key(f, "head", k->head, sizeof(k->head));
	key(f, "journal", k->stream, sizeof(k->stream));
	key(f, "writer", k->writer, sizeof(k->writer));
}

static const char *head_text(const struct sp_position *p, char *buf)
{
	char hash[2 * SP_REVISION_HASH_BYTES + 1];
	if (p->sequence == 0)
		return strcpy(buf, "");
	snprintf(buf, CON_FLEET_HEAD_TEXT_MAX, "%u:%" PRIu64 ":%s", p->epoch, p->sequence,
		 sp_hex_encode(p->hash, sizeof(p->hash), hash, sizeof(hash)));
	return buf;
}

// False: not a head's text. Empty: zero.
static bool parse_head(const char *text, size_t len, struct sp_position *ret)
{
	char buf[CON_FLEET_HEAD_TEXT_MAX], *end;
	*ret = (struct sp_position){0};
	if (len == 0)
		return true;
	if (len >= sizeof(buf))
		return false;
	memcpy(buf, text, len);
	buf[len] = '\0';
	unsigned long epoch = strtoul(buf, &end, 10);
	if (*end != ':' || epoch == 0 || epoch > UINT32_MAX)
		return false;
	ret->epoch = (uint32_t)epoch;
	ret->sequence = strtoull(end + 1, &end, 10);
	return *end == ':' && ret->sequence &&
	       sp_hex_decode(end + 1, strlen(end + 1), ret->hash, sizeof(ret->hash)) == 0;
}

// Redis answers, and says no: it is full, or a key of ours is not what it was. Asked
// again with the next beat; told once.
static void refused(struct con_fleet *f, const char *why)
{
	char text[sizeof(f->trouble)];
	snprintf(text, sizeof(text), "Redis refuses: %s", why);
	f->serial++;
	f->sync = CON_SYNC_LOOKING;
	f->heard = f->idle = f->unclaimed = true;
	if (strcmp(text, f->trouble) == 0)
		return;
	strcpy(f->trouble, text);
	con_fleet_hurry(f);
	con_fleet_tell(f, CON_FLEET_AWAY, "%s", text);
}

// `r` is no answer to go on with. Without any, what went wrong is over at the next
// connection.
static void start_over(struct con_fleet *f, const redisReply *r)
{
	if (r && r->type == REDIS_REPLY_ERROR) {
		refused(f, r->str);
		return;
	}
	f->serial++;
	f->heard = true;
	f->sync = CON_SYNC_AWAY;
	con_redis_reconnect(f->redis,
			    r ? "it answers what was not asked" : "it does not answer");
}

// ---- appending ----

static void settle(struct con_fleet *f)
{
	bool was = f->sync == CON_SYNC_DONE;
	f->sync = CON_SYNC_DONE;
	f->heard = true;
	f->distrusted = false;
	f->trouble[0] = '\0';
	if (!was)
		con_fleet_tell(f, CON_FLEET_SYNCED, "epoch %u, sequence %" PRIu64,
			       f->head.epoch, f->head.sequence);
	con_fleet_go_on(f);
}

static bool is_word(const redisReply *r, const char *word)
{
	return r->type == REDIS_REPLY_STRING && r->len == strlen(word) &&
	       memcmp(r->str, word, r->len) == 0;
}

static void on_appended(struct con_fleet *f, const redisReply *r)
{
	if (!r || r->type == REDIS_REPLY_ERROR) {
		start_over(f, r); // perhaps it was done: the next look will tell
		return;
	}
	if (is_word(r, "ok")) {
		if (f->pending)
			con_fleet_accept_pending(f);
		settle(f);
		return;
	}
	// Redis is elsewhere, or does not know this writer any more.
	f->counters.conflicts++;
	claim(f);
}

// The last record of ours, which Redis lacks.
static void append(struct con_fleet *f, const struct con_fleet_record *r,
		   const struct sp_position *before)
{
	struct keys k;
	char from[CON_FLEET_HEAD_TEXT_MAX], to[CON_FLEET_HEAD_TEXT_MAX], id[32];
	make_keys(f, &k);
	snprintf(id, sizeof(id), "%" PRIu64 "-0", r->position.sequence);
	const char *argv[] = {"EVAL",
			      lua_append,
			      "3",
			      k.head,
			      k.stream,
			      k.writer,
			      f->writer,
			      head_text(before, from),
			      head_text(&r->position, to),
			      id,
			      r->text,
			      r->private ? r->private : ""};
	ask(f, 12, argv, NULL, on_appended);
}

void con_sync_append(struct con_fleet *f)
{
	append(f, &f->next, &f->head);
}

// ---- seeding: Redis is empty, or has an older state ----

static void on_seeded(struct con_fleet *f, const redisReply *r)
{
	if (!r || r->type == REDIS_REPLY_ERROR) {
		start_over(f, r); // the revision is in the journal: the next look goes on
		return;
	}
	if (!is_word(r, "ok")) {
		claim(f);
		return;
	}
	con_fleet_accept_pending(f);
	f->counters.seeded++;
	con_fleet_tell(f, CON_FLEET_SEEDED,
		       "filled anew from the journal; the epoch is now %u",
		       f->head.epoch);
	settle(f);
}

// Fills Redis with the state before our newest revision, and that revision.
static void send_seed(struct con_fleet *f, const struct sp_position *redis,
		      const struct sp_state *base, const struct sp_position *base_at,
		      const struct con_fleet_record *r)
{
	struct keys k;
	char from[CON_FLEET_HEAD_TEXT_MAX], to[CON_FLEET_HEAD_TEXT_MAX], id[32],
		base_id[32], *text, *private;
	size_t len, private_len;
	if (con_fleet_make_base(f, base, base_at, &text, &len, &private, &private_len)) {
		start_over(f, NULL);
		return;
	}
	make_keys(f, &k);
	snprintf(base_id, sizeof(base_id), "%" PRIu64 "-0", base_at->sequence);
	snprintf(id, sizeof(id), "%" PRIu64 "-0", r->position.sequence);
	const char *argv[] = {"EVAL",
			      lua_seed,
			      "3",
			      k.head,
			      k.stream,
			      k.writer,
			      f->writer,
			      head_text(redis, from),
			      head_text(&r->position, to),
			      base_id,
			      text,
			      private,
			      id,
			      r->text};
	ask(f, 14, argv, NULL, on_seeded);
	free(text);
	free(private);
}

// The revision that raises the epoch is a commit without changes, before all others.
static int queue_seed(struct con_fleet *f)
{
	struct con_fleet_commit *c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->until_us = SP_LOOP_NEVER;
	TAILQ_INSERT_HEAD(&f->queue, c, queue);
	f->queued++;
	return 0;
}

static void seed(struct con_fleet *f, const struct sp_position *redis)
{
	struct sp_changes none = {0};
	struct sp_state *same;
	uint32_t epoch =
		(redis->epoch > f->head.epoch ? redis->epoch : f->head.epoch) + 1;
	if (f->pending) // nobody else has it: it is signed again, in the new epoch
		con_fleet_drop_pending(f, true, -ETIMEDOUT, "Redis was replaced");
	int err = sp_state_clone(f->state, &same);
	f->idle = err != 0;
	if (err)
		return;
	err = con_fleet_sign(f, &f->head, epoch, "controller: Redis was behind", &none,
			     same, &f->next);
	if (!err)
		err = con_fleet_write(f, &f->next);
	if (!err && (err = queue_seed(f)) != 0)
		(void)!con_journal_undo(f->journal);
	if (err) { // the journal's disk is full, say: again with the next beat
		con_fleet_record_done(&f->next);
		sp_state_free(same);
		f->idle = true;
		return;
	}
	f->pending = true;
	f->next_state = same;
	send_seed(f, redis, f->state, &f->head, &f->next);
}

// ---- following: Redis has what is not here ----

static const redisReply *field(const redisReply *fields, const char *name)
{
	for (size_t i = 0; i + 1 < fields->elements; i += 2) {
		const redisReply *n = fields->element[i];
		if (n->type == REDIS_REPLY_STRING && is_word(n, name) &&
		    fields->element[i + 1]->type == REDIS_REPLY_STRING)
			return fields->element[i + 1];
	}
	return NULL;
}

static int write_base(struct con_fleet *f, const redisReply *b, const redisReply *q)
{
	struct con_journal_record r = {.kind = CON_JOURNAL_BASE,
				       .text = b->str,
				       .text_len = b->len,
				       .private = q->str,
				       .private_len = q->len};
	return con_journal_rewrite(f->journal, &r);
}

static int take_base(struct con_fleet *f, const redisReply *b, const redisReply *q)
{
	struct sp_state *state;
	struct sp_position at;
	int err = con_fleet_open_base(f, b->str, b->len, q->str, q->len, &state, &at);
	if (err)
		return err;
	if (sp_position_compare(&at, &f->head) <= 0) {
		sp_state_free(state);
		return 0; // we have it, or more
	}
	err = write_base(f, b, q);
	if (err)
		sp_state_free(state);
	else
		con_fleet_replace(f, state, &at);
	return err;
}

static int take_entry(struct con_fleet *f, const redisReply *e)
{
	struct con_fleet_record r;
	struct sp_state *state;
	if (e->type != REDIS_REPLY_ARRAY || e->elements != 2 ||
	    e->element[1]->type != REDIS_REPLY_ARRAY)
		return SP_E_MALFORMED;
	const redisReply *b = field(e->element[1], "b"), *q = field(e->element[1], "q"),
			 *t = field(e->element[1], "r"), *p = field(e->element[1], "p");
	if (b && q)
		return take_base(f, b, q);
	if (!t)
		return SP_E_MALFORMED;
	int err = con_fleet_fold(f, &f->head, f->state, t->str, t->len,
				 p && p->len ? p->str : NULL, p ? p->len : 0, &r, &state);
	if (err)
		return err;
	err = con_fleet_write(f, &r);
	if (err) {
		con_fleet_record_done(&r);
		sp_state_free(state);
		return err;
	}
	f->counters.followed++;
	con_fleet_accept(f, &r, state);
	return 0;
}

static void distrust(struct con_fleet *f, const char *what)
{
	if (!f->distrusted)
		con_fleet_tell(f, CON_FLEET_DISTRUST,
			       "%s; Redis is left alone, and changes are refused until "
			       "it is mended: does another fleet use the name \"%s\"?",
			       what, f->name);
	f->distrusted = f->heard = true;
	snprintf(f->trouble, sizeof(f->trouble), "what Redis holds cannot be used: %s",
		 what);
	con_fleet_hurry(f);
	f->idle = true; // looked at again with the next beat
}

static void on_entries(struct con_fleet *f, const redisReply *r)
{
	char what[96];
	if (!r || r->type != REDIS_REPLY_ARRAY) {
		start_over(f, r);
		return;
	}
	uint64_t before = f->head.sequence;
	for (size_t i = 0; i < r->elements; i++) {
		int err = take_entry(f, r->element[i]);
		if (err) {
			snprintf(what, sizeof(what),
				 "its revision after sequence %" PRIu64 ": %s",
				 f->head.sequence, sp_strerror(err));
			distrust(f, what);
			return;
		}
	}
	if (f->head.sequence == before) {
		distrust(f, "its head is beyond its stream");
		return;
	}
	con_fleet_tell(f, CON_FLEET_FOLLOWED,
		       "took sequence %" PRIu64 " to %" PRIu64 " from Redis", before + 1,
		       f->head.sequence);
	look(f);
}

static void read_after(struct con_fleet *f)
{
	struct keys k;
	char from[32];
	make_keys(f, &k);
	snprintf(from, sizeof(from), "%" PRIu64 "-0", f->head.sequence + 1);
	const char *argv[] = {"XRANGE", k.stream, f->head.sequence ? from : "-",
			      "+",      "COUNT",  READ_MAX};
	ask(f, 6, argv, NULL, on_entries);
}

// ---- looking ----

// What our journal ends with, pending or not.
static const struct con_fleet_record *last_record(const struct con_fleet *f)
{
	if (f->pending)
		return &f->next;
	const struct con_fleet_record *r =
		&f->window[f->head.sequence % CON_FLEET_WINDOW];
	return r->text && sp_position_same(&r->position, &f->head) ? r : NULL;
}

static bool is_just_before(const struct sp_position *redis,
			   const struct con_fleet_record *last)
{
	if (!last || last->position.sequence != redis->sequence + 1)
		return false;
	return redis->sequence == 0 ||
	       memcmp(redis->hash, last->previous, sizeof(redis->hash)) == 0;
}

static void judge(struct con_fleet *f, const struct sp_position *redis)
{
	const struct con_fleet_record *last = last_record(f);
	const struct sp_position *ours = f->pending ? &f->next.position : &f->head;
	if (sp_position_same(redis, ours)) {
		if (f->pending)
			con_fleet_accept_pending(f);
		settle(f);
	} else if (is_just_before(redis, last) &&
		   (redis->sequence || ours->sequence == 1)) {
		append(f, last, redis);
	} else if (sp_position_compare(redis, ours) > 0 ||
		   (f->pending && sp_position_compare(redis, &f->head) > 0)) {
		if (f->pending) // somebody else was first
			con_fleet_drop_pending(f, true, SP_E_STALE,
					       "the fleet changed meanwhile; try again");
		read_after(f);
	} else {
		seed(f, redis);
	}
}

static void on_head(struct con_fleet *f, const redisReply *r)
{
	struct sp_position at;
	if (!r || (r->type != REDIS_REPLY_STRING && r->type != REDIS_REPLY_NIL)) {
		start_over(f, r);
		return;
	}
	bool none = r->type == REDIS_REPLY_NIL;
	if (!parse_head(none ? "" : r->str, none ? 0 : r->len, &at)) {
		distrust(f, "its head is no position");
		return;
	}
	// Most often: nothing new, and nothing under way.
	if (f->sync == CON_SYNC_DONE && (f->pending || sp_position_same(&at, &f->head)))
		return;
	if (f->sync == CON_SYNC_DONE)
		claim(f);
	else
		judge(f, &at);
}

static void look(struct con_fleet *f)
{
	f->idle = false;
	char name[CON_FLEET_PREFIX_MAX + 16];
	const char *argv[] = {"GET", key(f, "head", name, sizeof(name))};
	ask(f, 2, argv, NULL, on_head);
}

static void on_beat(void *arg)
{
	struct con_fleet *f = arg;
	sp_timer_set(&f->beat, sp_loop_now_us(f->loop) + BEAT_MS * UINT64_C(1000));
	if (f->sync == CON_SYNC_AWAY || (f->pending && f->sync == CON_SYNC_DONE))
		return;
	if (f->idle && f->unclaimed)
		claim(f);
	else if (f->sync == CON_SYNC_DONE || f->idle)
		look(f);
}

// ---- the connection ----

static void on_writer(struct con_fleet *f, const redisReply *r)
{
	if (!r || r->type == REDIS_REPLY_ERROR)
		start_over(f, r);
	else
		look(f);
}

// From now on this connection writes, and no older one.
static void claim(struct con_fleet *f)
{
	uint8_t id[16];
	char name[CON_FLEET_PREFIX_MAX + 16];
	f->serial++;
	f->sync = CON_SYNC_LOOKING;
	f->idle = f->unclaimed = false;
	randombytes_buf(id, sizeof(id));
	sp_hex_encode(id, sizeof(id), f->writer, sizeof(f->writer));
	const char *argv[] = {"SET", key(f, "writer", name, sizeof(name)), f->writer};
	ask(f, 3, argv, NULL, on_writer);
}

static void on_up(void *ctx)
{
	claim(ctx);
}

static void on_down(void *ctx, const char *why)
{
	struct con_fleet *f = ctx;
	f->serial++;
	f->heard = true;
	f->sync = CON_SYNC_AWAY;
	f->trouble[0] = '\0';
	con_fleet_tell(f, CON_FLEET_AWAY, "%s", why);
}

int con_sync_start(struct con_fleet *f, const char *address, const char *password)
{
	struct con_redis_options o = {.loop = f->loop,
				      .address = address,
				      .password = password,
				      .up = on_up,
				      .down = on_down,
				      .ctx = f};
	sp_timer_init(&f->beat, f->loop, on_beat, f);
	sp_timer_set(&f->beat, sp_loop_now_us(f->loop) + BEAT_MS * UINT64_C(1000));
	return con_redis_new(&o, &f->redis);
}

void con_sync_stop(struct con_fleet *f)
{
	f->serial++;
	sp_timer_done(&f->beat);
	con_redis_free(f->redis);
	f->redis = NULL;
}
