#include "worker/directory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/log.h"
#include "lib/wire.h"

#define SOON_US     1000000 // a change is put within
#define AGAIN_US    2000000 // what failed is put again after
#define ANSWER_US   3000000 // a put without an answer has failed
#define TOUCH_US    (WRK_DIRECTORY_TOUCH_S * UINT64_C(1000000))
#define ASK_US      (WRK_DIRECTORY_ASK_MS * UINT64_C(1000))
#define REST_US     (60 * TOUCH_US) // a session without a carrier
#define BATCH_BYTES 40000           // of a message; a packet takes 64 KB
#define BATCH_MAX   64
#define BATCHES     16 // without an answer yet
#define TARGET_MAX  260

enum { NOWHERE, DUE, QUIET };

struct batch { // a put that was sent
	uint64_t call, sent_us;
	unsigned n;
	uint8_t id[BATCH_MAX][SP_SESSION_ID_BYTES];
};

struct asking {
	TAILQ_ENTRY(asking) entry; // by time
	struct sp_link *link;      // NULL: nobody waits
	uint8_t id[SP_SESSION_ID_BYTES];
	uint64_t call, until_us,
		hold_us; // until_us of an answer, or of the next question
	bool answered, resting;
	uint8_t device[32];
	char user[SP_PASS_USER_MAX + 1];
	uint32_t epoch;
	bool left;
	struct wrk_directory_answer answer;
	Sallyport__Fleet__SessionRecord *record; // of the answer
};

struct packed { // one record with all it points to
	Sallyport__Fleet__SessionRecord rec;
	Sallyport__Fleet__FlowRecord flow[WRK_DIRECTORY_FLOWS];
	Sallyport__Fleet__FlowRecord *flows[WRK_DIRECTORY_FLOWS];
	uint8_t target[WRK_DIRECTORY_FLOWS][TARGET_MAX];
	unsigned skip; // the flows idle longest
};

TAILQ_HEAD(session_list, wrk_directory_session);

struct wrk_directory {
	struct wrk_directory_options opt;
	struct wrk_directory_counters n;
	struct session_list due, quiet;
	TAILQ_HEAD(, asking) asking;
	unsigned n_asking;
	Sallyport__Fleet__SessionRecord *given; // by the last wrk_directory_ask
	struct packed packed;
	struct batch batch[BATCHES]; // call 0: free
	struct sp_timer timer;
	struct sp_deferred soon;
	uint64_t not_before_us; // the agent did not take the last message
};

static uint64_t now_us(const struct wrk_directory *d)
{
	return sp_loop_now_us(d->opt.loop);
}

static void set_timer(struct wrk_directory *d);

// ---- lists: `due` by due_us as far as it matters, `quiet` by the time of the touch ----

static void unlist(struct wrk_directory *d, struct wrk_directory_session *ds)
{
	if (ds->where != NOWHERE)
		TAILQ_REMOVE(ds->where == DUE ? &d->due : &d->quiet, ds, entry);
	ds->where = NOWHERE;
}

static void list_due(struct wrk_directory *d, struct wrk_directory_session *ds,
		     uint64_t at_us)
{
	if (ds->where == DUE && ds->due_us <= at_us)
		return;
	unlist(d, ds);
	ds->where = DUE;
	ds->due_us = at_us;
	if (!TAILQ_EMPTY(&d->due) && at_us < TAILQ_FIRST(&d->due)->due_us)
		TAILQ_INSERT_HEAD(&d->due, ds, entry);
	else
		TAILQ_INSERT_TAIL(&d->due, ds, entry);
	set_timer(d);
}

static void list_quiet(struct wrk_directory *d, struct wrk_directory_session *ds)
{
	unlist(d, ds);
	ds->where = QUIET;
	ds->due_us = now_us(d) + TOUCH_US;
	TAILQ_INSERT_TAIL(&d->quiet, ds, entry);
}

void wrk_directory_add(struct wrk_directory *d, struct wrk_directory_session *ds)
{
	list_due(d, ds, now_us(d));
	sp_loop_defer(d->opt.loop, &d->soon);
}

void wrk_directory_touch(struct wrk_directory *d, struct wrk_directory_session *ds)
{
	struct wrk_directory_facts f;
	if (ds->where != QUIET)
		return;
	d->opt.ops->describe(d->opt.ctx, ds, &f);
	if (ds->epoch != sp_session_epoch(f.engine) || ds->live != f.live ||
	    ds->flow_changes != sp_session_flow_changes(f.engine))
		list_due(d, ds, now_us(d) + SOON_US);
}

// ---- saying ----

static int send_message(struct wrk_directory *d, Sallyport__Local__FromExit *m)
{
	int err = d->opt.transport.send(d->opt.transport.link, m);
	if (err)
		d->not_before_us = now_us(d) + AGAIN_US;
	return err;
}

void wrk_directory_remove(struct wrk_directory *d, struct wrk_directory_session *ds,
			  const uint8_t *id)
{
	Sallyport__Local__FromExit m = SALLYPORT__LOCAL__FROM_EXIT__INIT;
	Sallyport__Fleet__SessionDrop drop = SALLYPORT__FLEET__SESSION_DROP__INIT;
	ProtobufCBinaryData ids = {SP_SESSION_ID_BYTES, (uint8_t *)(uintptr_t)id};
	if (ds->where == NOWHERE)
		return;
	unlist(d, ds);
	if (!id)
		return;
	drop.n_ids = 1;
	drop.ids = &ids;
	m.body_case = SALLYPORT__LOCAL__FROM_EXIT__BODY_SESSION_DROP;
	m.session_drop = &drop;
	d->n.drops += send_message(d, &m) == 0; // else its record ends by itself
}

static void pack_flow(void *ctx, const struct sp_flow *fl)
{
	struct packed *p = ctx;
	size_t i = p->rec.n_flows;
	struct sp_writer w;
	if (p->skip) {
		p->skip--;
		return;
	}
	sp_writer_init(&w, p->target[i], TARGET_MAX);
	sp_target_put(&w, sp_flow_target(fl));
	if (w.err || sp_flow_id(fl) > UINT32_MAX)
		return;
	sallyport__fleet__flow_record__init(&p->flow[i]);
	p->flow[i].id = (uint32_t)sp_flow_id(fl);
	p->flow[i].target = (ProtobufCBinaryData){sp_writer_len(&w), p->target[i]};
	p->flows[i] = &p->flow[i];
	p->rec.n_flows++;
}

static void pack(struct wrk_directory *d, struct wrk_directory_session *ds,
		 struct packed *p)
{
	struct wrk_directory_facts f;
	struct sp_session_stats st;
	d->opt.ops->describe(d->opt.ctx, ds, &f);
	sp_session_stats(f.engine, &st);
	sallyport__fleet__session_record__init(&p->rec);
	p->rec.id = (ProtobufCBinaryData){SP_SESSION_ID_BYTES,
					  (uint8_t *)(uintptr_t)sp_session_id(f.engine)};
	p->rec.device = (ProtobufCBinaryData){32, (uint8_t *)(uintptr_t)f.device};
	p->rec.serial = (ProtobufCBinaryData){16, (uint8_t *)(uintptr_t)f.serial};
	p->rec.user = (char *)(uintptr_t)f.user;
	p->rec.tier = (char *)(uintptr_t)f.tier;
	p->rec.epoch = sp_session_epoch(f.engine);
	p->rec.boot = d->opt.boot;
	p->rec.max_sessions = f.max_sessions;
	p->rec.max_streams = f.max_streams;
	p->rec.max_flows = f.max_flows;
	p->rec.rate_bps = f.rate_bps;
	p->rec.expires_s = f.expires_s;
	p->rec.live = f.live;
	p->skip = st.flows > WRK_DIRECTORY_FLOWS ? st.flows - WRK_DIRECTORY_FLOWS : 0;
	p->rec.flows = p->flows;
	sp_session_each_flow(f.engine, pack_flow, p);
	ds->epoch = p->rec.epoch;
	ds->live = f.live;
	ds->flow_changes = sp_session_flow_changes(f.engine);
}

static struct batch *free_batch(struct wrk_directory *d)
{
	for (unsigned i = 0; i < BATCHES; i++)
		if (!d->batch[i].call)
			return &d->batch[i];
	return NULL;
}

static void put_again(struct wrk_directory *d, struct batch *b)
{
	for (unsigned i = 0; i < b->n; i++) {
		struct wrk_directory_session *ds = d->opt.ops->find(d->opt.ctx, b->id[i]);
		if (ds && ds->where == QUIET)
			list_due(d, ds, now_us(d) + AGAIN_US);
	}
	d->n.put_failures += b->n;
	b->call = 0;
}

// As many as are due and fit. False: nothing more can be sent now.
static bool put_some(struct wrk_directory *d)
{
	struct packed *packed = &d->packed;
	Sallyport__Local__FromExit m = SALLYPORT__LOCAL__FROM_EXIT__INIT;
	Sallyport__Fleet__SessionPut put = SALLYPORT__FLEET__SESSION_PUT__INIT;
	Sallyport__Fleet__SessionRecord *recs[BATCH_MAX];
	struct wrk_directory_session *ds;
	struct batch *b = free_batch(d);
	size_t bytes = 0;
	bool sent;
	if (!b || now_us(d) < d->not_before_us)
		return false;
	*b = (struct batch){.sent_us = now_us(d)};
	while ((ds = TAILQ_FIRST(&d->due)) && ds->due_us <= now_us(d) &&
	       b->n < BATCH_MAX && bytes < BATCH_BYTES) {
		pack(d, ds, packed);
		size_t len =
			sallyport__fleet__session_record__get_packed_size(&packed->rec);
		uint8_t *buf = malloc(len);
		if (!buf)
			break;
		sallyport__fleet__session_record__pack(&packed->rec, buf);
		recs[b->n] = sallyport__fleet__session_record__unpack(NULL, len, buf);
		free(buf);
		if (!recs[b->n])
			break;
		memcpy(b->id[b->n++], packed->rec.id.data, SP_SESSION_ID_BYTES);
		bytes += len;
		ds->put_us = now_us(d);
		list_quiet(d, ds);
	}
	if (!b->n)
		return false;
	put.n_records = b->n;
	put.records = recs;
	m.call = d->opt.transport.call(d->opt.transport.link);
	m.body_case = SALLYPORT__LOCAL__FROM_EXIT__BODY_SESSION_PUT;
	m.session_put = &put;
	sent = send_message(d, &m) == 0;
	for (unsigned i = 0; i < b->n; i++)
		sallyport__fleet__session_record__free_unpacked(recs[i], NULL);
	d->n.puts += sent ? b->n : 0;
	if (sent)
		b->call = m.call;
	else
		put_again(d, b);
	return sent;
}

// ---- time ----

static void asking_free(struct wrk_directory *d, struct asking *a)
{
	TAILQ_REMOVE(&d->asking, a, entry);
	d->n_asking--;
	sallyport__fleet__session_record__free_unpacked(a->record, NULL);
	free(a);
}

static void tell(struct wrk_directory *d, struct asking *a,
		 enum wrk_directory_verdict verdict, enum sp_reason why)
{
	if (a->answered)
		return;
	a->answered = true;
	a->answer = (struct wrk_directory_answer){.verdict = verdict, .why = why};
	if (a->link) {
		sp_link_attach_again(a->link);
		return;
	}
	struct wrk_directory_session *ds = d->opt.ops->find(d->opt.ctx, a->id);
	if (ds && ds->where == QUIET && verdict != WRK_DIRECTORY_REFUSED)
		list_due(d, ds, now_us(d)); // ours again
	asking_free(d, a);
}

static bool send_question(struct wrk_directory *d, struct asking *a)
{
	Sallyport__Local__FromExit m = SALLYPORT__LOCAL__FROM_EXIT__INIT;
	Sallyport__Fleet__SessionAdopt ask = SALLYPORT__FLEET__SESSION_ADOPT__INIT;
	ask.id = (ProtobufCBinaryData){sizeof(a->id), a->id};
	ask.device = (ProtobufCBinaryData){sizeof(a->device), a->device};
	ask.epoch = a->epoch;
	ask.user = a->user;
	ask.boot = d->opt.boot;
	ask.left = a->left;
	a->call = d->opt.transport.call(d->opt.transport.link);
	m.call = a->call;
	m.body_case = SALLYPORT__LOCAL__FROM_EXIT__BODY_SESSION_ADOPT;
	m.session_adopt = &ask;
	return d->opt.transport.send(d->opt.transport.link, &m) == 0;
}

// All wait equally long, so that the list stays in order.
static void wait_again(struct wrk_directory *d, struct asking *a, bool resting)
{
	a->resting = resting;
	a->until_us = now_us(d) + ASK_US;
	TAILQ_REMOVE(&d->asking, a, entry);
	TAILQ_INSERT_TAIL(&d->asking, a, entry);
}

static void ask_again(struct wrk_directory *d, struct asking *a)
{
	if (send_question(d, a)) {
		d->n.asked_again++;
		wait_again(d, a, false);
	} else {
		tell(d, a, WRK_DIRECTORY_REFUSED, SP_REASON_NOT_ADOPTED);
	}
}

// Refused, but it may not be for long: its home is not known to be dead, yet.
static bool hold(struct wrk_directory *d, struct asking *a)
{
	if (!a->link || a->left || now_us(d) + ASK_US > a->hold_us)
		return false;
	wait_again(d, a, true);
	return true;
}

static void expire(struct wrk_directory *d)
{
	struct wrk_directory_session *ds;
	struct asking *a, *next;
	for (a = TAILQ_FIRST(&d->asking); a && a->until_us <= now_us(d); a = next) {
		next = TAILQ_NEXT(a, entry);
		if (a->resting && !a->answered) {
			ask_again(d, a);
			continue;
		}
		if (!a->answered)
			d->n.unavailable++;
		tell(d, a, WRK_DIRECTORY_UNAVAILABLE, SP_REASON_NONE);
	}
	for (unsigned i = 0; i < BATCHES; i++)
		if (d->batch[i].call && d->batch[i].sent_us + ANSWER_US <= now_us(d))
			put_again(d, &d->batch[i]);
	while ((ds = TAILQ_FIRST(&d->quiet)) && ds->due_us <= now_us(d)) {
		struct wrk_directory_facts f;
		d->opt.ops->describe(d->opt.ctx, ds, &f);
		if (f.live || ds->live || ds->put_us + REST_US <= now_us(d))
			list_due(d, ds, now_us(d));
		else
			list_quiet(d, ds); // looked at, not said
	}
}

static void set_timer(struct wrk_directory *d)
{
	const struct wrk_directory_session *ds = TAILQ_FIRST(&d->due);
	const struct asking *a;
	uint64_t at = now_us(d) + SOON_US;
	if (ds && ds->due_us < at)
		at = ds->due_us;
	if (at < d->not_before_us)
		at = d->not_before_us;
	TAILQ_FOREACH(a, &d->asking, entry)
	{
		if (a->answered)
			continue;
		if (a->until_us < at)
			at = a->until_us;
		break;
	}
	sp_timer_set(&d->timer, at);
}

static void work(struct wrk_directory *d)
{
	expire(d);
	while (put_some(d))
		;
	set_timer(d);
}

static void on_timer(void *ctx)
{
	work(ctx);
}

static void on_soon(struct sp_deferred *x)
{
	work((struct wrk_directory *)((char *)x - offsetof(struct wrk_directory, soon)));
}

void wrk_directory_up(struct wrk_directory *d)
{
	struct wrk_directory_session *ds;
	d->not_before_us = 0;
	for (unsigned i = 0; i < BATCHES; i++)
		d->batch[i].call = 0;
	while ((ds = TAILQ_FIRST(&d->quiet)))
		list_due(d, ds, now_us(d));
	sp_loop_defer(d->opt.loop, &d->soon);
}

// ---- asking ----

static struct asking *asking_of(const struct wrk_directory *d, const struct sp_link *l)
{
	struct asking *a;
	TAILQ_FOREACH(a, &d->asking, entry)
	if (a->link == l)
		return a;
	return NULL;
}

static bool ask(struct wrk_directory *d, struct sp_link *l,
		const struct wrk_directory_question *q)
{
	struct asking *a;
	if (d->n_asking >= WRK_DIRECTORY_ASKING || strlen(q->user) > SP_PASS_USER_MAX ||
	    !(a = calloc(1, sizeof(*a))))
		return false;
	a->link = l;
	memcpy(a->id, q->id, sizeof(a->id));
	memcpy(a->device, q->device, sizeof(a->device));
	strcpy(a->user, q->user);
	a->epoch = q->epoch;
	a->left = q->left;
	a->hold_us = now_us(d) + WRK_DIRECTORY_HOLD_MS * UINT64_C(1000);
	a->until_us = now_us(d) + ASK_US;
	if (!send_question(d, a)) {
		free(a);
		return false;
	}
	TAILQ_INSERT_TAIL(&d->asking, a, entry);
	d->n_asking++;
	d->n.asked++;
	set_timer(d);
	return true;
}

void wrk_directory_ask(struct wrk_directory *d, struct sp_link *l,
		       const struct wrk_directory_question *q,
		       struct wrk_directory_answer *ret)
{
	struct asking *a = asking_of(d, l);
	sallyport__fleet__session_record__free_unpacked(d->given, NULL);
	d->given = NULL;
	if (!a && ask(d, l, q)) {
		*ret = (struct wrk_directory_answer){.verdict = WRK_DIRECTORY_WAIT};
		return;
	}
	if (!a) {
		d->n.unavailable++;
		*ret = (struct wrk_directory_answer){.verdict =
							     WRK_DIRECTORY_UNAVAILABLE};
		return;
	}
	*ret = a->answer;
	if (!a->answered) {
		ret->verdict = WRK_DIRECTORY_WAIT;
		return;
	}
	d->given = a->record;
	a->record = NULL;
	ret->record = d->given;
	asking_free(d, a);
}

void wrk_directory_reclaim(struct wrk_directory *d, struct wrk_directory_session *ds)
{
	struct wrk_directory_facts f;
	struct wrk_directory_question q = {.left = true};
	d->opt.ops->describe(d->opt.ctx, ds, &f);
	q.id = sp_session_id(f.engine);
	q.device = f.device;
	q.user = f.user;
	q.epoch = sp_session_epoch(f.engine);
	(void)ask(d, NULL, &q); // or the next touch is refused again
}

void wrk_directory_forget(struct wrk_directory *d, const struct sp_link *l)
{
	struct asking *a = asking_of(d, l);
	if (a)
		asking_free(d, a);
}

// ---- answers ----

static enum sp_reason refusal(const char *word)
{
	static const enum sp_reason known[] = {SP_REASON_NOT_YOURS,
					       SP_REASON_STALE_EPOCH};
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
		if (!strcmp(word, sp_reason_word(known[i])))
			return known[i];
	return SP_REASON_NOT_ADOPTED;
}

// A copy of the record, if it can be one.
static Sallyport__Fleet__SessionRecord *copy(const Sallyport__Fleet__SessionRecord *r)
{
	size_t len = r ? sallyport__fleet__session_record__get_packed_size(r) : 0;
	uint8_t *buf = len ? malloc(len) : NULL;
	Sallyport__Fleet__SessionRecord *c = NULL;
	if (buf) {
		sallyport__fleet__session_record__pack(r, buf);
		c = sallyport__fleet__session_record__unpack(NULL, len, buf);
	}
	free(buf);
	if (c && (c->id.len != SP_SESSION_ID_BYTES || c->device.len != 32)) {
		sallyport__fleet__session_record__free_unpacked(c, NULL);
		return NULL;
	}
	return c;
}

static void on_adopt_answer(struct wrk_directory *d, struct asking *a,
			    const Sallyport__Fleet__SessionAnswer *m)
{
	if (a->answered || a->resting)
		return;
	switch ((int)m->result) {
	case SALLYPORT__FLEET__SESSION_RESULT__SESSION_ADOPTED:
		a->record = copy(m->record);
		if (!a->record) {
			d->n.answers_malformed++;
			tell(d, a, WRK_DIRECTORY_UNAVAILABLE, SP_REASON_NONE);
			return;
		}
		d->n.adopted++;
		tell(d, a, WRK_DIRECTORY_ADOPTED, SP_REASON_NONE);
		return;
	case SALLYPORT__FLEET__SESSION_RESULT__SESSION_FRESH:
		d->n.fresh++;
		tell(d, a, WRK_DIRECTORY_FRESH, SP_REASON_NONE);
		return;
	case SALLYPORT__FLEET__SESSION_RESULT__SESSION_REFUSED:
		if (refusal(m->reason) == SP_REASON_NOT_ADOPTED && hold(d, a))
			return;
		d->n.refused++;
		tell(d, a, WRK_DIRECTORY_REFUSED, refusal(m->reason));
		return;
	case SALLYPORT__FLEET__SESSION_RESULT__SESSION_LIMIT:
		d->n.over++;
		tell(d, a, WRK_DIRECTORY_REFUSED, SP_REASON_SESSION_LIMIT);
		return;
	default:
		d->n.unavailable++;
		tell(d, a, WRK_DIRECTORY_UNAVAILABLE, SP_REASON_NONE);
	}
}

static void tell_refused(struct wrk_directory *d, const ProtobufCBinaryData *id,
			 enum sp_reason why)
{
	struct wrk_directory_session *ds =
		id->len == SP_SESSION_ID_BYTES ? d->opt.ops->find(d->opt.ctx, id->data)
					       : NULL;
	if (ds)
		d->opt.ops->refused(d->opt.ctx, ds, why);
}

static void on_put_answer(struct wrk_directory *d, struct batch *b,
			  const Sallyport__Fleet__SessionAnswer *m)
{
	if (m->result == SALLYPORT__FLEET__SESSION_RESULT__SESSION_UNAVAILABLE) {
		put_again(d, b);
		return;
	}
	b->call = 0;
	d->n.lost += m->n_refused;
	d->n.over += m->n_over;
	for (size_t i = 0; i < m->n_refused; i++)
		tell_refused(d, &m->refused[i], SP_REASON_HOME_LOST);
	for (size_t i = 0; i < m->n_over; i++)
		tell_refused(d, &m->over[i], SP_REASON_SESSION_LIMIT);
}

void wrk_directory_on_answer(struct wrk_directory *d, uint64_t call,
			     const Sallyport__Fleet__SessionAnswer *m)
{
	struct asking *a;
	for (unsigned i = 0; call && i < BATCHES; i++)
		if (d->batch[i].call == call) {
			on_put_answer(d, &d->batch[i], m);
			return;
		}
	TAILQ_FOREACH(a, &d->asking, entry)
	if (a->call == call) {
		on_adopt_answer(d, a, m);
		return;
	}
	d->n.answers_unknown++; // too late
}

// ---- life ----

int wrk_directory_new(const struct wrk_directory_options *opt, struct wrk_directory **ret)
{
	struct wrk_directory *d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	d->opt = *opt;
	TAILQ_INIT(&d->due);
	TAILQ_INIT(&d->quiet);
	TAILQ_INIT(&d->asking);
	d->soon.run = on_soon;
	sp_timer_init(&d->timer, opt->loop, on_timer, d);
	*ret = d;
	return 0;
}

void wrk_directory_free(struct wrk_directory *d)
{
	if (!d)
		return;
	while (!TAILQ_EMPTY(&d->asking))
		asking_free(d, TAILQ_FIRST(&d->asking));
	sallyport__fleet__session_record__free_unpacked(d->given, NULL);
	sp_timer_done(&d->timer);
	sp_loop_defer_cancel(&d->soon);
	free(d);
}

const struct wrk_directory_counters *wrk_directory_counters(const struct wrk_directory *d)
{
	return &d->n;
}
