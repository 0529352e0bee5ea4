// The role that is the controller's end of the bus: who may join, what is published, and
// whose calls go where.
#include "controller/role_bus.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "controller/drains.h"
#include "controller/enrol.h"
#include "controller/joining.h"
#include "controller/role_health.h"
#include "controller/role_sessions.h"
#include "lib/file.h"
#include "lib/key.h"
#include "lib/text.h"

#define ENROL_VALID_S 3600
#define ENROL_MAX_S   (30 * 86400)

struct con_bus {
	struct con_controller *c;
	struct con_fleet_listener listener;
	struct con_joining *joining;
	struct con_drains *drains;
};

// ---- who may join ----

static bool get_key(const json_t *o, const char *member, enum sp_key_kind kind,
		    uint8_t *ret)
{
	char why[160];
	const char *text = json_string_value(json_object_get(o, member));
	return text &&
	       sp_key_parse(kind, false, text, strlen(text), ret, why, sizeof(why)) == 0;
}

// identity/NAME/N or vantage/NAME: its peer is "worker:NAME/N" or "vantage:NAME".
static bool peer_name(const char *key, char *ret, bool *ret_worker)
{
	*ret_worker = strncmp(key, "identity/", 9) == 0;
	if (!*ret_worker && strncmp(key, "vantage/", 8) != 0)
		return false;
	snprintf(ret, SP_BUS_NAME_MAX, "%s:%s", *ret_worker ? "worker" : "vantage",
		 strchr(key, '/') + 1);
	return true;
}

// A worker that the fleet file does not have any more may not join either.
static bool may_join(const struct sp_state *state, const char *key, bool worker)
{
	char node[SP_STATE_KEY_MAX + 1];
	snprintf(node, sizeof(node), "node/%s", strchr(key, '/') + 1);
	return !worker || sp_state_get(state, node, NULL);
}

static void take_identity(struct con_controller *c, const struct sp_state *state,
			  const char *key)
{
	char name[SP_BUS_NAME_MAX];
	uint8_t control[32], own[32];
	bool worker;
	if (!peer_name(key, name, &worker))
		return;
	json_t *o = sp_state_get_object(state, key);
	if (!o || !may_join(state, key, worker)) {
		con_hub_forbid(c->hub, name);
	} else if (!get_key(o, "control", SP_KEY_CONTROL, control) ||
		   (worker && !get_key(o, "static", SP_KEY_WORKER, own)) ||
		   con_hub_allow(c->hub, name, control, worker ? own : NULL)) {
		sp_error("bus", "an identity that cannot be used", "name=%s", name);
	}
	json_decref(o);
}

// node/NAME/N came or went: what was enrolled under it may join or not.
static void take_change(struct con_controller *c, const struct sp_state *state,
			const struct sp_change *ch)
{
	char key[SP_STATE_KEY_MAX + 1];
	if (strncmp(ch->key, "node/", 5) == 0) {
		snprintf(key, sizeof(key), "identity/%s", ch->key + 5);
		take_identity(c, state, key);
	} else {
		take_identity(c, state, ch->key);
	}
}

static void on_changed(void *ctx, const struct con_fleet_change *f)
{
	struct con_bus *b = ctx;
	struct con_controller *c = b->c;
	for (size_t i = 0; i < f->revision->changes.n; i++)
		take_change(c, f->after, &f->revision->changes.v[i]);
	for (size_t i = 0; i < f->private->n; i++)
		take_change(c, f->after, &f->private->v[i]);
	con_hub_publish(c->hub, &f->revision->position, sp_state_hash(f->after), f->text,
			f->len);
}

// ---- what the hub asks ----

static const char *on_revision(void *ctx, uint64_t sequence, size_t *ret_len)
{
	struct con_bus *b = ctx;
	return con_fleet_revision(b->c->fleet, sequence, ret_len);
}

static int on_snapshot(void *ctx, const char **ret, size_t *ret_len)
{
	struct con_bus *b = ctx;
	return con_fleet_snapshot(b->c->fleet, ret, ret_len);
}

static void on_call(void *ctx, const struct con_hub_call *call,
		    const Sallyport__Fleet__ToController *m)
{
	struct con_bus *b = ctx;
	if (con_sessions_call(b->c, call, m) || con_health_call(b->c, call, m))
		return;
	con_hub_refuse(b->c->hub, call, "this controller does not serve such calls", 0);
}

static void on_peer(void *ctx, const struct con_hub_peer *peer)
{
	struct con_bus *b = ctx;
	con_health_peer(b->c, peer);
	con_drains_peer(b->drains, peer);
}

static void on_hub_event(void *ctx, enum con_hub_event what, const char *name,
			 const char *text)
{
	static const enum sp_log_level levels[] = {
#define X(name_, word_, level_) [CON_HUB_##name_] = SP_LOG_##level_,
		CON_HUB_EVENTS(X)
#undef X
	};
	struct con_bus *b = ctx;
	con_events_add(b->c->events, levels[what], con_hub_event_word(what), name, "%s",
		       text);
}

// ---- enrolment ----

static enum sp_bus_verdict may_enrol(void *ctx, const char *address)
{
	struct con_bus *b = ctx;
	return con_joining_may_enrol(b->joining, address);
}

static void on_enrol(void *ctx, const struct con_hub_call *call, const char *address,
		     const Sallyport__Fleet__Enrol *m)
{
	struct con_bus *b = ctx;
	con_joining_enrol(b->joining, call, address, m);
}

// ---- POST /v1/enrol ----

struct making {
	struct con_api_call *call;
	char text[SP_ENROLTOKEN_TEXT_MAX], node[SP_ENROLTOKEN_NAME_MAX];
	uint64_t expires_s;
};

static void on_made(void *ctx, int err, const char *why, const struct sp_position *at)
{
	struct making *m = ctx;
	(void)at;
	if (err)
		con_api_error(m->call, err, why);
	else
		con_api_answer(m->call, 200,
			       json_pack("{s:s, s:s, s:I}", "node", m->node, "token",
					 m->text, "expires", (json_int_t)m->expires_s));
	sodium_memzero(m, sizeof(*m));
	free(m);
}

static void refuse_token(struct con_api_call *call, int err, const char *node,
			 const char *region)
{
	if (err == -ENOENT)
		con_api_problem(call, 404, region ? "no-such-region" : "no-such-node",
				"the fleet file has no %s \"%s\"",
				region ? "region" : "worker", region ? region : node);
	else if (err == -EEXIST)
		con_api_problem(call, 409, "enrolled",
				"%s is enrolled already; --force makes a token that "
				"replaces its keys",
				node);
	else if (err == SP_E_MALFORMED)
		con_api_problem(call, 422, "bad-name", "\"%s\" is not a name", node);
	else
		con_api_error(call, err, sp_strerror(err));
}

static void fill_addresses(const struct con_controller *c, struct sp_enroltoken *t)
{
	const struct con_config *cfg = c->cfg;
	con_config_endpoint(con_config_advertised(&cfg->advertise.enrol, &cfg->bus.enrol),
			    t->enrol);
	con_config_endpoint(
		con_config_advertised(&cfg->advertise.router, &cfg->bus.router),
		t->router);
	con_config_endpoint(
		con_config_advertised(&cfg->advertise.publisher, &cfg->bus.publisher),
		t->publisher);
	memcpy(t->controller_key, c->id.control.public_key, sizeof(t->controller_key));
}

static void make_token(void *ctx, struct con_api_call *call)
{
	struct con_bus *b = ctx;
	struct con_controller *c = b->c;
	struct sp_enroltoken t = {0};
	struct sp_changes changes = {0};
	json_t *body = con_api_object(call);
	if (!body)
		return;
	const char *vantage = con_api_member(call, "vantage", false);
	const char *node = vantage ? vantage : con_api_member(call, "node", true);
	const char *region = vantage ? con_api_member(call, "region", true) : NULL;
	json_int_t valid = json_integer_value(json_object_get(body, "valid_s"));
	if (!node || (vantage && !region))
		return;
	if (!con_hub_enrol(c->hub) || !*con_hub_enrol(c->hub)) {
		con_api_problem(call, 409, "no-enrolment",
				"bus.enrol is not set in the controller's config");
		return;
	}
	if (valid < 0 || valid > ENROL_MAX_S) {
		con_api_problem(call, 422, "bad-time", "valid_s: want 1 to %d",
				ENROL_MAX_S);
		return;
	}
	struct making *m = calloc(1, sizeof(*m));
	if (!m) {
		con_api_error(call, -ENOMEM, "out of memory");
		return;
	}
	m->call = call;
	m->expires_s = sp_loop_unix_ms(c->loop) / 1000 +
		       (uint64_t)(valid ? valid : ENROL_VALID_S);
	int err = con_enrol_make(con_fleet_state(c->fleet), node, region, m->expires_s,
				 con_api_flag(call, "force"), &t, &changes);
	if (!err) {
		fill_addresses(c, &t);
		snprintf(m->node, sizeof(m->node), "%s", t.node);
		err = sp_enroltoken_format(&t, m->text);
	}
	sodium_memzero(&t, sizeof(t));
	if (!err)
		err = con_fleet_commit(c->fleet, &changes, con_api_author(call), on_made,
				       m);
	if (!err)
		return;
	sp_changes_done(&changes);
	free(m);
	refuse_token(call, err, node, region);
}

// ---- what lists show ----

static void fill_node(void *ctx, const char *name, json_t *into)
{
	struct con_bus *b = ctx;
	char peer[SP_BUS_NAME_MAX];
	snprintf(peer, sizeof(peer), "worker:%s", name);
	const struct con_hub_peer *p = con_hub_find(b->c->hub, peer);
	if (!p)
		return;
	json_object_set_new(into, "link", json_string(con_hub_link_word(p)));
	json_object_set_new(into, "applied", con_api_position(&p->applied));
	json_object_set_new(into, "program", json_string(p->program));
	json_object_set_new(into, "address", json_string(p->address));
	json_object_set_new(into, "bound", json_string(p->bound));
	json_object_set_new(into, "seen_ms", json_integer((json_int_t)p->seen_ms));
	if (p->telemetry.boot) {
		json_object_set_new(into, "sessions",
				    json_integer(p->telemetry.sessions));
		json_object_set_new(into, "streams", json_integer(p->telemetry.streams));
		json_object_set_new(into, "flows", json_integer(p->telemetry.flows));
		json_object_set_new(into, "draining",
				    json_boolean(p->telemetry.draining));
		json_object_set_new(into, "ready", json_boolean(p->telemetry.ready));
	}
	// What it refused is over once it has applied something newer.
	if (*p->reason && sp_position_compare(&p->nacked, &p->applied) > 0)
		json_object_set_new(into, "refused", json_string(p->reason));
}

static void fill_status(void *ctx, const char *name, json_t *into)
{
	struct con_bus *b = ctx;
	(void)name;
	json_object_set_new(into, "workers_linked",
			    json_integer(con_hub_connected(b->c->hub, "worker:")));
	json_object_set_new(into, "vantages_linked",
			    json_integer(con_hub_connected(b->c->hub, "vantage:")));
}

static const struct con_api_route routes[] = {
	{"POST", "/v1/enrol", make_token},
	{0},
};

// ---- the role ----

static const struct con_hub_ops hub_ops = {
	.revision = on_revision,
	.snapshot = on_snapshot,
	.call = on_call,
	.enrol = on_enrol,
	.may_enrol = may_enrol,
	.link = on_peer,
	.telemetry = on_peer,
	.event = on_hub_event,
};

static void take_all(struct con_controller *c)
{
	const struct sp_state *state = con_fleet_state(c->fleet);
	const struct sp_position *head = con_fleet_head(c->fleet);
	struct sp_state_entry e;
	for (size_t at = 0; sp_state_next(state, "identity/", &at, &e);)
		take_identity(c, state, e.key);
	for (size_t at = 0; sp_state_next(state, "vantage/", &at, &e);)
		take_identity(c, state, e.key);
	if (head->sequence)
		con_hub_set_head(c->hub, head, sp_state_hash(state));
}

static int start(struct con_controller *c)
{
	char why[SP_WHY_MAX] = "", router[CON_ENDPOINT_MAX], publisher[CON_ENDPOINT_MAX],
	     enrol[CON_ENDPOINT_MAX];
	struct con_bus *b = c->bus = calloc(1, sizeof(*b));
	if (!b)
		return -ENOMEM;
	b->c = c;
	b->listener = (struct con_fleet_listener){.changed = on_changed, .ctx = b};
	struct con_hub_options o = {
		.loop = c->loop,
		.keys = &c->id.control,
		.router = con_config_endpoint(&c->cfg->bus.router, router),
		.publisher = con_config_endpoint(&c->cfg->bus.publisher, publisher),
		.enrol = c->cfg->bus.enrol.kind
				 ? con_config_endpoint(&c->cfg->bus.enrol, enrol)
				 : NULL,
		.route_key = c->id.route,
		.boot = c->boot,
		.ops = &hub_ops,
		.ctx = b};
	int err = con_joining_new(c, &b->joining);
	if (!err)
		err = con_drains_new(c, &b->drains);
	if (!err)
		err = con_hub_new(&o, &c->hub, why, sizeof(why));
	if (err) {
		sp_error("controller", "no bus", "error=%s", why);
		return err;
	}
	take_all(c);
	con_fleet_listen(c->fleet, &b->listener);
	err = con_api_add(c->api, routes, b);
	if (!err)
		err = con_api_add_detail(c->api, "node", fill_node, b);
	return err ? err : con_api_add_detail(c->api, "status", fill_status, b);
}

static void stop(struct con_controller *c)
{
	if (c->bus && c->fleet)
		con_fleet_unlisten(&c->bus->listener);
	if (c->bus)
		con_joining_free(c->bus->joining);
	con_hub_free(c->hub);
	if (c->bus)
		con_drains_free(c->bus->drains);
	c->hub = NULL;
	free(c->bus);
	c->bus = NULL;
}

static void metrics(struct con_controller *c, struct sp_metrics_writer *w)
{
	con_hub_metrics(c->hub, w);
	con_joining_metrics(c->bus->joining, w);
	con_drains_metrics(c->bus->drains, w);
}

void con_bus_fill_drain(struct con_controller *c, const char *worker, json_t *into)
{
	con_drains_fill_worker(c->bus->drains, worker, into);
}

const struct con_role con_role_bus = {
	.name = "bus", .start = start, .stop = stop, .metrics = metrics};
