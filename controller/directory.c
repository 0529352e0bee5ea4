#include "controller/directory.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include <sodium.h>

#include "controller/directory_lua.h"
#include "lib/reason.h"
#include "lib/text.h"

#define ID_BYTES     16
#define DEVICE_BYTES 32
#define KEY_MAX      256
#define USER_MAX     64
#define WORKER_MAX   80
#define ARGS_MAX     20
#define LEASE_MAX    128 // bytes of a line: name, boot, age

enum kind { PUT, DROP, ADOPT };

// A message of a worker, until it is answered.
struct call {
	LIST_ENTRY(call) entry;
	struct con_directory *d;
	con_directory_answer done;
	void *ctx;
	enum kind kind;
	char worker[WORKER_MAX + 1];
	Sallyport__Fleet__SessionAnswer answer;
	unsigned waiting; // commands
	bool unavailable;
	// put
	ProtobufCBinaryData refused[CON_DIRECTORY_RECORDS_MAX];
	ProtobufCBinaryData over[CON_DIRECTORY_RECORDS_MAX];
	// adopt
	uint8_t id[ID_BYTES], device[DEVICE_BYTES];
	char user[USER_MAX + 1];
	uint32_t epoch;
	uint64_t boot;
	bool left, again, ours;
	enum con_directory_home evidence;
	Sallyport__Fleet__SessionRecord *record;
};

struct command { // one record of a call
	struct call *call;
	uint8_t id[ID_BYTES];
	char user[USER_MAX + 1];
};

struct con_directory {
	struct con_directory_options opt;
	char prefix[80];
	struct con_directory_counters n;
	LIST_HEAD(, call) calls;
};

// ---- commands ----

struct args {
	int n;
	const char *v[ARGS_MAX];
	size_t len[ARGS_MAX];
	char text[ARGS_MAX][24];
};

static void arg(struct args *a, const void *p, size_t len)
{
	a->v[a->n] = p;
	a->len[a->n++] = len;
}

static void arg_text(struct args *a, const char *text)
{
	arg(a, text, strlen(text));
}

static void arg_number(struct args *a, uint64_t n)
{
	snprintf(a->text[a->n], sizeof(a->text[0]), "%" PRIu64, n);
	arg_text(a, a->text[a->n]);
}

static void key_session(const struct con_directory *d, const uint8_t *id, char *ret)
{
	char hex[2 * ID_BYTES + 1];
	sp_hex_encode(id, ID_BYTES, hex, sizeof(hex));
	snprintf(ret, KEY_MAX, "%ss:%s", d->prefix, hex);
}

static void key_leases(const struct con_directory *d, char *ret)
{
	snprintf(ret, KEY_MAX, "%sw", d->prefix);
}

static void call_end(struct call *c)
{
	struct con_directory *d = c->d;
	if (c->unavailable)
		c->answer.result = SALLYPORT__FLEET__SESSION_RESULT__SESSION_UNAVAILABLE;
	LIST_REMOVE(c, entry);
	d->n.calls--;
	c->done(c->ctx, &c->answer);
	for (size_t i = 0; i < c->answer.n_refused; i++)
		free(c->refused[i].data);
	for (size_t i = 0; i < c->answer.n_over; i++)
		free(c->over[i].data);
	sallyport__fleet__session_record__free_unpacked(c->record, NULL);
	free(c);
}

static int send_command(struct con_directory *d, struct args *a,
			void (*done)(void *ctx, const redisReply *r), void *ctx)
{
	int err = con_redis_command(d->opt.redis, a->n, a->v, a->len,
				    CON_DIRECTORY_DEADLINE_MS, done, ctx);
	d->n.unavailable += err != 0;
	return err;
}

// A word of a script; "" if there is no usable reply.
static const char *word(struct con_directory *d, const redisReply *r)
{
	if (r && (r->type == REDIS_REPLY_STATUS || r->type == REDIS_REPLY_STRING))
		return r->str;
	d->n.unavailable++;
	return "";
}

// ---- calls ----

static bool is_text(const char *s, size_t max)
{
	return s && s[0] && strlen(s) <= max;
}

// NULL: answered already.
static struct call *call_new(struct con_directory *d, const char *worker, enum kind kind,
			     con_directory_answer done, void *ctx)
{
	struct call *c = NULL;
	if (d->n.calls < CON_DIRECTORY_CALLS_MAX && is_text(worker, WORKER_MAX))
		c = calloc(1, sizeof(*c));
	if (!c) {
		Sallyport__Fleet__SessionAnswer a =
			SALLYPORT__FLEET__SESSION_ANSWER__INIT;
		d->n.unavailable++;
		done(ctx, &a); // unavailable
		return NULL;
	}
	sallyport__fleet__session_answer__init(&c->answer);
	c->answer.result = SALLYPORT__FLEET__SESSION_RESULT__SESSION_STORED;
	c->d = d;
	c->kind = kind;
	c->done = done;
	c->ctx = ctx;
	strcpy(c->worker, worker);
	LIST_INSERT_HEAD(&d->calls, c, entry);
	d->n.calls++;
	return c;
}

static void call_went_on(struct call *c)
{
	if (--c->waiting == 0)
		call_end(c);
}

static void list_id(ProtobufCBinaryData *list, size_t *n, const uint8_t *id)
{
	list[*n].data = malloc(ID_BYTES);
	if (!list[*n].data)
		return; // it is refused at the next put
	memcpy(list[*n].data, id, ID_BYTES);
	list[*n].len = ID_BYTES;
	(*n)++;
}

static void event(struct call *c, enum con_directory_event what, const char *home,
		  const char *user, const uint8_t *id)
{
	struct con_directory *d = c->d;
	d->opt.ops->event(d->opt.ctx, what, c->worker, home, user, id);
}

// ---- put ----

static void on_put(void *ctx, const redisReply *r)
{
	struct command *cmd = ctx;
	struct call *c = cmd->call;
	struct con_directory_counters *n = &c->d->n;
	const char *w = word(c->d, r);
	if (!strcmp(w, "ok")) {
		n->stored++;
	} else if (!strcmp(w, "old")) {
		n->old++;
	} else if (!strcmp(w, "over")) {
		n->over++;
		list_id(c->over, &c->answer.n_over, cmd->id);
	} else if (!strcmp(w, "home")) {
		n->refused_home++;
		list_id(c->refused, &c->answer.n_refused, cmd->id);
	} else if (!strcmp(w, "device")) {
		n->refused_device++;
		list_id(c->refused, &c->answer.n_refused, cmd->id);
		event(c, CON_DIRECTORY_OTHER_DEVICE, "", cmd->user, cmd->id);
	} else {
		c->unavailable = true;
	}
	free(cmd);
	call_went_on(c);
}

static bool is_record(const Sallyport__Fleet__SessionRecord *r)
{
	return r->id.len == ID_BYTES && r->device.len == DEVICE_BYTES &&
	       is_text(r->user, USER_MAX) && is_text(r->tier, USER_MAX) && r->epoch &&
	       sallyport__fleet__session_record__get_packed_size(r) <=
		       CON_DIRECTORY_RECORD_MAX;
}

static void put_one(struct call *c, const Sallyport__Fleet__SessionRecord *r)
{
	struct con_directory *d = c->d;
	struct command *cmd = calloc(1, sizeof(*cmd));
	uint8_t body[CON_DIRECTORY_RECORD_MAX], member[2 * ID_BYTES];
	char key[KEY_MAX], live[KEY_MAX];
	struct args a = {0};
	d->n.puts++;
	if (!cmd) {
		c->unavailable = true;
		return;
	}
	cmd->call = c;
	memcpy(cmd->id, r->id.data, ID_BYTES);
	strcpy(cmd->user, r->user);
	key_session(d, r->id.data, key);
	snprintf(live, sizeof(live), "%sl:%s", d->prefix, r->user);
	memcpy(member, r->device.data, ID_BYTES);
	memcpy(member + ID_BYTES, r->id.data, ID_BYTES);
	arg_text(&a, "EVAL");
	arg_text(&a, con_directory_lua_put);
	arg_text(&a, "2");
	arg_text(&a, key);
	arg_text(&a, live);
	arg(&a, r->device.data, DEVICE_BYTES);
	arg_text(&a, r->user);
	arg_number(&a, r->epoch);
	arg_text(&a, c->worker);
	arg_number(&a, r->boot);
	arg(&a, body, sallyport__fleet__session_record__pack(r, body));
	arg_number(&a, CON_DIRECTORY_TTL_S);
	arg_number(&a, sp_loop_unix_ms(d->opt.loop) / 1000);
	arg_number(&a, r->live ? CON_DIRECTORY_LIVE_S : 0);
	arg_number(&a, r->max_sessions ? r->max_sessions : UINT32_MAX);
	arg(&a, member, sizeof(member));
	c->waiting++;
	if (send_command(d, &a, on_put, cmd)) {
		c->waiting--;
		c->unavailable = true;
		free(cmd);
	}
}

void con_directory_put(struct con_directory *d, const char *worker,
		       const Sallyport__Fleet__SessionPut *m, con_directory_answer done,
		       void *ctx)
{
	struct call *c = call_new(d, worker, PUT, done, ctx);
	if (!c)
		return;
	c->answer.refused = c->refused;
	c->answer.over = c->over;
	c->waiting = 1;
	for (size_t i = 0; i < m->n_records && i < CON_DIRECTORY_RECORDS_MAX; i++) {
		if (is_record(m->records[i]))
			put_one(c, m->records[i]);
		else
			d->n.malformed++;
	}
	call_went_on(c);
}

// ---- drop ----

static void on_drop(void *ctx, const redisReply *r)
{
	struct call *c = ctx;
	const char *w = word(c->d, r);
	c->d->n.dropped += !strcmp(w, "ok");
	c->unavailable |= !*w;
	call_went_on(c);
}

void con_directory_drop(struct con_directory *d, const char *worker,
			const Sallyport__Fleet__SessionDrop *m, con_directory_answer done,
			void *ctx)
{
	struct call *c = call_new(d, worker, DROP, done, ctx);
	char live[KEY_MAX];
	if (!c)
		return;
	snprintf(live, sizeof(live), "%sl:", d->prefix);
	c->waiting = 1;
	for (size_t i = 0; i < m->n_ids && i < CON_DIRECTORY_RECORDS_MAX; i++) {
		struct args a = {0};
		char key[KEY_MAX];
		if (m->ids[i].len != ID_BYTES) {
			d->n.malformed++;
			continue;
		}
		d->n.drops++;
		key_session(d, m->ids[i].data, key);
		arg_text(&a, "EVAL");
		arg_text(&a, con_directory_lua_drop);
		arg_text(&a, "1");
		arg_text(&a, key);
		arg_text(&a, c->worker);
		arg_text(&a, live);
		arg(&a, m->ids[i].data, ID_BYTES);
		c->waiting++;
		if (send_command(d, &a, on_drop, c)) {
			c->waiting--;
			c->unavailable = true;
		}
	}
	call_went_on(c);
}

// ---- adopt: read, judge, compare and set ----

static void adopt_end(struct call *c, Sallyport__Fleet__SessionResult result,
		      enum sp_reason why)
{
	c->answer.result = result;
	if (why)
		c->answer.reason = (char *)(uintptr_t)sp_reason_word(why);
	call_went_on(c);
}

static void adopt_refuse(struct call *c, enum sp_reason why)
{
	adopt_end(c, SALLYPORT__FLEET__SESSION_RESULT__SESSION_REFUSED, why);
}

static void adopt_unavailable(struct call *c)
{
	c->unavailable = true;
	call_went_on(c);
}

static bool is_bytes(const redisReply *r)
{
	return r && r->type == REDIS_REPLY_STRING;
}

static bool number(const redisReply *r, uint64_t *ret)
{
	char *end;
	if (!is_bytes(r) || !r->len)
		return false;
	errno = 0;
	*ret = strtoull(r->str, &end, 10);
	return !errno && !*end;
}

static void adopt_read(struct call *c);

static void on_adopted(void *ctx, const redisReply *r)
{
	struct call *c = ctx;
	struct con_directory *d = c->d;
	const char *w = word(d, r);
	int64_t left = 0;
	if (!strcmp(w, "changed") && !c->again) {
		d->n.conflicts++;
		c->again = true;
		adopt_read(c);
		return;
	}
	if (strcmp(w, "ok") != 0) {
		adopt_unavailable(c);
		return;
	}
	d->n.adopted++;
	d->n.evidence[c->evidence]++;
	event(c, CON_DIRECTORY_ADOPTED, c->record->home, c->user, c->id);
	c->record->quota_limited = d->opt.ops->quota(d->opt.ctx, c->user, &left);
	c->record->quota_left = c->record->quota_limited ? left : 0;
	c->answer.record = c->record;
	adopt_end(c, SALLYPORT__FLEET__SESSION_RESULT__SESSION_ADOPTED, SP_REASON_NONE);
}

static void adopt_take(struct call *c, const redisReply *f)
{
	struct con_directory *d = c->d;
	struct args a = {0};
	char key[KEY_MAX];
	key_session(d, c->id, key);
	arg_text(&a, "EVAL");
	arg_text(&a, con_directory_lua_adopt);
	arg_text(&a, "1");
	arg_text(&a, key);
	for (size_t i = 0; i < 4; i++)
		arg(&a, f->element[i]->str, f->element[i]->len);
	arg_text(&a, c->worker);
	arg_number(&a, c->boot);
	arg_number(&a, c->epoch);
	arg_number(&a, CON_DIRECTORY_TTL_S);
	if (send_command(d, &a, on_adopted, c))
		adopt_unavailable(c);
}

// The record as it was put, with what the hash says of it now.
static bool adopt_unpack(struct call *c, const redisReply *f, uint64_t boot,
			 uint64_t epoch)
{
	sallyport__fleet__session_record__free_unpacked(c->record, NULL);
	c->record = sallyport__fleet__session_record__unpack(
		NULL, f->element[5]->len, (const uint8_t *)f->element[5]->str);
	if (!c->record || !is_record(c->record))
		return false;
	char *home = strdup(f->element[1]->str);
	if (!home)
		return false;
	if (c->record->home != protobuf_c_empty_string)
		free(c->record->home);
	c->record->home = home;
	c->record->boot = boot;
	c->record->epoch = (uint32_t)epoch;
	return memcmp(c->record->device.data, c->device, DEVICE_BYTES) == 0;
}

const char *con_directory_home_word(enum con_directory_home h)
{
	static const char *const words[CON_HOME__N] = {"left", "unknown", "silent",
						       "restarted", "removed"};
	return h < CON_HOME__N ? words[h] : "unknown";
}

static struct con_directory_lease lease_of(const redisReply *r)
{
	struct con_directory_lease l = {0};
	l.known = r->elements == 8 && number(r->element[6], &l.boot) &&
		  number(r->element[7], &l.age_ms);
	return l;
}

// What lets the record be given away; ALIVE: the client left, or it is the asker's own.
static enum con_directory_home judge_home(const struct call *c, const char *home,
					  uint64_t boot, const redisReply *r)
{
	const struct con_directory *d = c->d;
	struct con_directory_lease lease = lease_of(r);
	if (c->ours || c->left)
		return CON_HOME_ALIVE;
	return d->opt.ops->home(d->opt.ctx, home, boot, &lease);
}

// Fields: d h b e u r, and the home's lease.
static void on_read(void *ctx, const redisReply *r)
{
	struct call *c = ctx;
	struct con_directory *d = c->d;
	uint64_t boot, epoch;
	if (!r || r->type != REDIS_REPLY_ARRAY ||
	    (r->elements != 6 && r->elements != 8)) {
		d->n.unavailable++;
		adopt_unavailable(c);
		return;
	}
	if (!is_bytes(r->element[0])) {
		d->n.fresh++;
		adopt_end(c, SALLYPORT__FLEET__SESSION_RESULT__SESSION_FRESH,
			  SP_REASON_NONE);
		return;
	}
	if (!is_bytes(r->element[1]) || !number(r->element[2], &boot) ||
	    !number(r->element[3], &epoch) || !is_bytes(r->element[4]) ||
	    !is_bytes(r->element[5])) {
		d->n.malformed++;
		adopt_unavailable(c);
		return;
	}
	const char *home = r->element[1]->str;
	bool device = r->element[0]->len == DEVICE_BYTES &&
		      sodium_memcmp(r->element[0]->str, c->device, DEVICE_BYTES) == 0;
	c->ours = !strcmp(home, c->worker) && boot == c->boot;
	if (!device || strcmp(r->element[4]->str, c->user) != 0) {
		d->n.not_yours++;
		event(c, device ? CON_DIRECTORY_OTHER_USER : CON_DIRECTORY_OTHER_DEVICE,
		      home, c->user, c->id);
		adopt_refuse(c, SP_REASON_NOT_YOURS);
	} else if (epoch >= c->epoch && !(c->ours && epoch == c->epoch)) {
		d->n.stale++;
		adopt_refuse(c, SP_REASON_STALE_EPOCH);
	} else if (c->evidence = judge_home(c, home, boot, r),
		   !c->ours && !c->left && !con_directory_is_dead(c->evidence)) {
		d->n.alive++;
		adopt_refuse(c, SP_REASON_NOT_ADOPTED);
	} else if (!adopt_unpack(c, r, boot, epoch)) {
		d->n.malformed++;
		adopt_unavailable(c);
	} else {
		adopt_take(c, r);
	}
}

static void adopt_read(struct call *c)
{
	struct args a = {0};
	char key[KEY_MAX], leases[KEY_MAX];
	key_session(c->d, c->id, key);
	key_leases(c->d, leases);
	arg_text(&a, "EVAL");
	arg_text(&a, con_directory_lua_read);
	arg_text(&a, "2");
	arg_text(&a, key);
	arg_text(&a, leases);
	if (send_command(c->d, &a, on_read, c))
		adopt_unavailable(c);
}

void con_directory_adopt(struct con_directory *d, const char *worker,
			 const Sallyport__Fleet__SessionAdopt *m,
			 con_directory_answer done, void *ctx)
{
	struct call *c = call_new(d, worker, ADOPT, done, ctx);
	if (!c)
		return;
	d->n.adopts++;
	c->waiting = 1;
	if (m->id.len != ID_BYTES || m->device.len != DEVICE_BYTES || !m->epoch ||
	    !is_text(m->user, USER_MAX)) {
		d->n.malformed++;
		adopt_unavailable(c);
		return;
	}
	memcpy(c->id, m->id.data, ID_BYTES);
	memcpy(c->device, m->device.data, DEVICE_BYTES);
	strcpy(c->user, m->user);
	c->epoch = m->epoch;
	c->boot = m->boot;
	c->left = m->left;
	adopt_read(c);
}

// ---- leases ----

static void on_leases(void *ctx, const redisReply *r)
{
	(void)word(ctx, r);
}

void con_directory_leases(struct con_directory *d, const struct con_directory_heard *list,
			  size_t n)
{
	char text[CON_DIRECTORY_LEASES_MAX * LEASE_MAX], key[KEY_MAX];
	struct args a = {0};
	size_t len = 0;
	for (size_t i = 0; i < n && i < CON_DIRECTORY_LEASES_MAX; i++) {
		if (!is_text(list[i].worker, WORKER_MAX))
			continue;
		len += (size_t)snprintf(text + len, sizeof(text) - len,
					"%s %" PRIu64 " %" PRIu64 "\n", list[i].worker,
					list[i].boot, list[i].age_ms);
		d->n.leases++;
	}
	if (!len)
		return;
	key_leases(d, key);
	arg_text(&a, "EVAL");
	arg_text(&a, con_directory_lua_leases);
	arg_text(&a, "1");
	arg_text(&a, key);
	arg(&a, text, len);
	d->n.lease_writes++;
	(void)send_command(d, &a, on_leases, d);
}

// ---- life ----

int con_directory_new(const struct con_directory_options *opt, struct con_directory **ret)
{
	struct con_directory *d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	d->opt = *opt;
	snprintf(d->prefix, sizeof(d->prefix), "sp:{%.64s}:", opt->fleet);
	d->opt.fleet = NULL;
	LIST_INIT(&d->calls);
	*ret = d;
	return 0;
}

void con_directory_free(struct con_directory *d)
{
	assert(!d || LIST_EMPTY(&d->calls));
	free(d);
}

const struct con_directory_counters *con_directory_counters(const struct con_directory *d)
{
	return &d->n;
}
