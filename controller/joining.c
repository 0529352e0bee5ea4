#include "controller/joining.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include <sodium.h>

#include "controller/enrol.h"
#include "lib/budget.h"

struct request { // as a stranger made it
	STAILQ_ENTRY(request) chain;
	struct con_hub_call to; // its key is the control key
	uint8_t own_key[32];
	char address[SP_BUS_ADDRESS_MAX], token[SP_ENROLTOKEN_TEXT_MAX];
};

struct commit { // on its way into the state
	LIST_ENTRY(commit) chain;
	struct con_joining *j; // NULL: it ended meanwhile
	struct con_hub_call to;
	char name[SP_ENROLTOKEN_NAME_MAX];
	bool worker;
};

struct con_joining {
	struct con_controller *c;
	struct sp_budget *strangers, *locals; // locals: whoever is on this host
	struct sp_ratelimit lines;
	STAILQ_HEAD(, request) waiting;
	LIST_HEAD(, commit) commits;
	unsigned n_waiting, n_commits;
	struct sp_deferred next;
	uint64_t results[CON_ENROL_VERDICTS], over_budget, too_many;
};

// ---- budgets ----

static bool is_local(const char *address)
{
	return strncmp(address, "127.", 4) == 0 || strcmp(address, "::1") == 0 ||
	       strncmp(address, "::ffff:127.", 11) == 0;
}

// Of handshakes and messages alike.
enum sp_bus_verdict con_joining_may_enrol(struct con_joining *j, const char *address)
{
	union {
		struct sockaddr any;
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} a = {.any = {.sa_family = AF_UNSPEC}};
	if (inet_pton(AF_INET, address, &a.v4.sin_addr) == 1)
		a.v4.sin_family = AF_INET;
	else if (inet_pton(AF_INET6, address, &a.v6.sin6_addr) == 1)
		a.v6.sin6_family = AF_INET6;
	if (sp_budget_take(is_local(address) ? j->locals : j->strangers, &a.any,
			   sp_loop_now_ms(j->c->loop)) == 0)
		return SP_BUS_ADMIT;
	j->over_budget++;
	return SP_BUS_LATER;
}

// ---- answers ----

static void answer(struct con_controller *c, const struct con_hub_call *to,
		   const char *reason, bool worker)
{
	char router[CON_ENDPOINT_MAX], publisher[CON_ENDPOINT_MAX],
		*routers[] = {router}, *publishers[] = {publisher};
	uint8_t public_key[32];
	const struct sp_signed_keys *keys = con_fleet_keys(c->fleet);
	ProtobufCBinaryData signing[SP_SIGNED_KEYS_MAX];
	Sallyport__Fleet__EnrolAnswer a = SALLYPORT__FLEET__ENROL_ANSWER__INIT;
	Sallyport__Fleet__FromController m = SALLYPORT__FLEET__FROM_CONTROLLER__INIT;
	m.body_case = SALLYPORT__FLEET__FROM_CONTROLLER__BODY_ENROL;
	m.enrol = &a;
	a.reason = (char *)(uintptr_t)reason;
	if (!*reason) {
		for (unsigned i = 0; i < keys->n; i++)
			signing[i] = (ProtobufCBinaryData){
				32, (uint8_t *)(uintptr_t)keys->key[i].public_key};
		a.signing_keys = signing;
		a.n_signing_keys = keys->n;
		if (worker)
			a.route_key = (ProtobufCBinaryData){32, c->id.route};
		memcpy(public_key, c->id.control.public_key, 32);
		a.controller_key = (ProtobufCBinaryData){32, public_key};
		con_config_endpoint(con_config_advertised(&c->cfg->advertise.router,
							  &c->cfg->bus.router),
				    router);
		con_config_endpoint(con_config_advertised(&c->cfg->advertise.publisher,
							  &c->cfg->bus.publisher),
				    publisher);
		a.router = routers;
		a.publisher = publishers;
		a.n_router = a.n_publisher = 1;
	}
	(void)!con_hub_answer(c->hub, to, &m);
}

// ---- into the state ----

static void on_committed(void *ctx, int err, const char *why,
			 const struct sp_position *at)
{
	struct commit *x = ctx;
	struct con_joining *j = x->j;
	(void)at;
	if (j) {
		LIST_REMOVE(x, chain);
		j->n_commits--;
		answer(j->c, &x->to, err ? why : "", x->worker);
		sp_loop_defer(j->c->loop, &j->next);
	}
	free(x);
}

// A token is for one: while its first holder's way into the state lasts, nobody else's
// begins.
static bool is_on_its_way(const struct con_joining *j, const struct sp_enroltoken *t)
{
	const struct commit *x;
	LIST_FOREACH(x, &j->commits, chain)
	if (strcmp(x->name, t->node) == 0)
		return true;
	return false;
}

static int begin_commit(struct con_joining *j, const struct con_hub_call *to,
			const struct sp_enroltoken *t, struct sp_changes *changes)
{
	struct commit *x = calloc(1, sizeof(*x));
	if (!x)
		return -ENOMEM;
	x->j = j;
	x->to = *to;
	x->worker = sp_enroltoken_is_worker(t);
	memcpy(x->name, t->node, sizeof(x->name));
	LIST_INSERT_HEAD(&j->commits, x, chain);
	j->n_commits++;
	int err = con_fleet_commit(j->c->fleet, changes, "enrolment", on_committed, x);
	if (err) {
		LIST_REMOVE(x, chain);
		j->n_commits--;
		free(x);
	}
	return err;
}

static void commit(struct con_joining *j, const struct con_hub_call *to,
		   const struct sp_enroltoken *t, struct sp_changes *changes)
{
	const char *reason = "this node is just joining; try again";
	if (!is_on_its_way(j, t)) {
		reason = "too many changes wait; try again";
		if (begin_commit(j, to, t, changes) == 0)
			return;
	}
	sp_changes_done(changes);
	answer(j->c, to, reason, false);
}

// ---- requests ----

static void judge(struct con_joining *j, const struct request *r)
{
	struct con_controller *c = j->c;
	struct sp_enroltoken t = {0};
	struct sp_changes changes = {0};
	const struct con_enrol_claim claim = {r->token, r->to.key, r->own_key};
	enum con_enrol_verdict v =
		con_enrol_judge(con_fleet_state(c->fleet), &claim,
				sp_loop_unix_ms(c->loop) / 1000, &t, &changes);
	j->results[v]++;
	if (con_enrol_is_refused(v)) {
		if (sp_ratelimit_ok(&j->lines, sp_loop_now_ms(c->loop)))
			con_events_add(c->events, SP_LOG_WARN, "enrolment-refused",
				       t.node, "%s, from %s", con_enrol_word(v),
				       r->address);
		answer(c, &r->to, con_enrol_reason(v), false);
	} else if (v == CON_ENROL_AGAIN) {
		answer(c, &r->to, "", sp_enroltoken_is_worker(&t));
	} else {
		commit(j, &r->to, &t, &changes);
	}
}

static void free_request(struct request *r)
{
	sodium_memzero(r->token, sizeof(r->token));
	free(r);
}

static void on_next(struct sp_deferred *d)
{
	struct con_joining *j =
		(struct con_joining *)((char *)d - offsetof(struct con_joining, next));
	struct request *r;
	while (j->n_commits < CON_JOINING_COMMITS_MAX &&
	       (r = STAILQ_FIRST(&j->waiting))) {
		STAILQ_REMOVE_HEAD(&j->waiting, chain);
		j->n_waiting--;
		judge(j, r);
		free_request(r);
	}
}

// The key it wants to join with must be the one that it proved.
static struct request *make_request(const struct con_hub_call *call, const char *address,
				    const Sallyport__Fleet__Enrol *m)
{
	size_t len = strlen(m->token), address_len = strlen(address);
	if (m->control_key.len != 32 || m->static_key.len != 32 ||
	    memcmp(m->control_key.data, call->key, 32) != 0 ||
	    len >= SP_ENROLTOKEN_TEXT_MAX || address_len >= SP_BUS_ADDRESS_MAX)
		return NULL;
	struct request *r = calloc(1, sizeof(*r));
	if (!r)
		return NULL;
	r->to = *call;
	memcpy(r->own_key, m->static_key.data, 32);
	memcpy(r->address, address, address_len + 1);
	memcpy(r->token, m->token, len + 1);
	return r;
}

void con_joining_enrol(struct con_joining *j, const struct con_hub_call *call,
		       const char *address, const Sallyport__Fleet__Enrol *m)
{
	if (con_joining_may_enrol(j, address) != SP_BUS_ADMIT)
		return;
	if (j->n_waiting == CON_JOINING_WAIT_MAX) {
		j->too_many++;
		answer(j->c, call, "too many nodes join just now; try again", false);
		return;
	}
	struct request *r = make_request(call, address, m);
	if (!r) {
		j->results[CON_ENROL_MALFORMED]++;
		answer(j->c, call, con_enrol_reason(CON_ENROL_MALFORMED), false);
		return;
	}
	STAILQ_INSERT_TAIL(&j->waiting, r, chain);
	j->n_waiting++;
	sp_loop_defer(j->c->loop, &j->next);
}

// ---- start and end ----

static int make_budgets(struct con_joining *j)
{
	struct sp_budget_options o = {.sources = CON_JOINING_SOURCES,
				      .per_minute = CON_JOINING_PER_MINUTE,
				      .burst = CON_JOINING_BURST,
				      .all_per_second = CON_JOINING_ALL_PER_SECOND,
				      .all_burst = CON_JOINING_ALL_BURST};
	int err = sp_budget_new(&o, &j->strangers);
	if (err)
		return err;
	o.sources = 8;
	o.per_minute = 60 * CON_JOINING_ALL_PER_SECOND;
	o.burst = CON_JOINING_ALL_BURST;
	return sp_budget_new(&o, &j->locals);
}

int con_joining_new(struct con_controller *c, struct con_joining **ret)
{
	struct con_joining *j = calloc(1, sizeof(*j));
	if (!j)
		return -ENOMEM;
	j->c = c;
	STAILQ_INIT(&j->waiting);
	LIST_INIT(&j->commits);
	j->next.run = on_next;
	j->lines.per_second = CON_JOINING_LINES;
	j->lines.burst = 10 * CON_JOINING_LINES;
	int err = make_budgets(j);
	if (err) {
		con_joining_free(j);
		return err;
	}
	*ret = j;
	return 0;
}

void con_joining_free(struct con_joining *j)
{
	struct request *r;
	struct commit *x;
	if (!j)
		return;
	sp_loop_defer_cancel(&j->next);
	while ((r = STAILQ_FIRST(&j->waiting))) {
		STAILQ_REMOVE_HEAD(&j->waiting, chain);
		free_request(r);
	}
	while ((x = LIST_FIRST(&j->commits))) {
		LIST_REMOVE(x, chain);
		x->j = NULL; // the fleet still has it
	}
	sp_budget_free(j->strangers);
	sp_budget_free(j->locals);
	free(j);
}

void con_joining_metrics(const struct con_joining *j, struct sp_metrics_writer *w)
{
	static const struct sp_metric asked = {
		.name = "sallyport_controller_enrolments",
		.type = SP_METRIC_COUNTER,
		.help = "Nodes that asked to join, by result",
		.labels = {"result"}};
	static const struct sp_metric waiting = {
		.name = "sallyport_controller_enrolments_waiting",
		.type = SP_METRIC_GAUGE,
		.help = "Nodes on their way into the fleet"};
	sp_metrics_family(w, &asked);
	for (int v = 0; v < CON_ENROL_VERDICTS; v++)
		sp_metrics_u64(w, j->results[v],
			       SP_LABELS(con_enrol_word((enum con_enrol_verdict)v)));
	sp_metrics_u64(w, j->over_budget, SP_LABELS("over-budget"));
	sp_metrics_u64(w, j->too_many, SP_LABELS("too-many"));
	sp_metrics_family(w, &waiting);
	sp_metrics_u64(w, j->n_waiting + j->n_commits, NULL);
}
