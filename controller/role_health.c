// The role of health: what goes in, and who is answered.
#include "controller/role_health.h"

#include <stdio.h>
#include <string.h>

#include "controller/role_bus.h"
#include "controller/vantagepass.h"

#define VANTAGE "vantage:"
#define WORKER  "worker:"

static void take(struct con_health *h, const struct sp_changes *c, uint64_t sequence)
{
	for (size_t i = 0; i < c->n; i++)
		con_health_set(h, c->v[i].key, c->v[i].json,
			       c->v[i].json ? strlen(c->v[i].json) : 0, sequence);
}

static void on_changed(void *ctx, const struct con_fleet_change *f)
{
	struct con_controller *c = ctx;
	uint64_t sequence = f->revision->position.sequence;
	take(c->health, &f->revision->changes, sequence);
	take(c->health, f->private, sequence);
	con_health_settle(c->health);
}

// The verdict, and of nodes that drain what they still carry.
static json_t *health_json(struct con_controller *c, const char *node)
{
	json_t *all = con_health_json(c->health, node), *o;
	size_t i;
	json_array_foreach(json_object_get(all, "nodes"), i, o)
		con_bus_fill_drain(c, json_string_value(json_object_get(o, "name")), o);
	return all;
}

static void get_health(void *ctx, struct con_api_call *call)
{
	struct con_controller *c = ctx;
	con_api_answer(call, 200, health_json(c, NULL));
}

static void get_health_of(void *ctx, struct con_api_call *call)
{
	struct con_controller *c = ctx;
	const char *node = con_api_tail(call);
	json_t *o = health_json(c, node);
	if (o && json_array_size(json_object_get(o, "nodes"))) {
		con_api_answer(call, 200, o);
		return;
	}
	json_decref(o);
	con_api_problem(call, 404, "no-such-node",
			"no node \"%s\" that enrolled; sallyportctl get nodes lists them",
			node);
}

// What the verdict knows of vantages, with their links.
static void get_vantages(void *ctx, struct con_api_call *call)
{
	struct con_controller *c = ctx;
	json_t *list = con_health_vantages(c->health), *o;
	size_t i;
	char peer[SP_BUS_NAME_MAX];
	json_array_foreach(list, i, o)
	{
		snprintf(peer, sizeof(peer), VANTAGE "%s",
			 json_string_value(json_object_get(o, "name")));
		const struct con_hub_peer *p = con_hub_find(c->hub, peer);
		if (!p)
			continue;
		json_object_set_new(o, "link", json_string(con_hub_link_word(p)));
		json_object_set_new(o, "seen_ms", json_integer((json_int_t)p->seen_ms));
		json_object_set_new(o, "program", json_string(p->program));
		json_object_set_new(o, "address", json_string(p->address));
		json_object_set_new(o, "applied", con_api_position(&p->applied));
	}
	struct con_verdict_status st;
	con_health_status(c->health, &st);
	con_api_answer(call, 200,
		       json_pack("{s:o, s:b, s:b}", "vantages", list, "panic", st.panic,
				 "blind", st.blind));
}

static void fill_node(void *ctx, const char *name, json_t *into)
{
	struct con_controller *c = ctx;
	con_health_fill(c->health, name, into);
}

// ---- the bus ----

static void give_pass(struct con_controller *c, const struct con_hub_call *call,
		      const Sallyport__Fleet__PassRequest *r)
{
	Sallyport__Fleet__FromController m = SALLYPORT__FLEET__FROM_CONTROLLER__INIT;
	Sallyport__Fleet__PassAnswer a = SALLYPORT__FLEET__PASS_ANSWER__INIT;
	char none[] = "this vantage enrolled with another device key, or not at all";
	uint8_t blob[SP_PASS_BLOB_MAX];
	int n = r->device.len != SP_PASS_DEVICE_BYTES
			? SP_E_MALFORMED
			: con_vantage_pass(con_fleet_state(c->fleet),
					   call->name + strlen(VANTAGE), r->device.data,
					   c->id.signing, sp_loop_unix_ms(c->loop) / 1000,
					   blob);
	c->vantage_passes[n > 0]++;
	if (n > 0)
		a.pass = (ProtobufCBinaryData){(size_t)n, blob};
	else
		a.reason = none;
	m.body_case = SALLYPORT__FLEET__FROM_CONTROLLER__BODY_PASS;
	m.pass = &a;
	(void)!con_hub_answer(c->hub, call, &m);
}

bool con_health_call(struct con_controller *c, const struct con_hub_call *call,
		     const Sallyport__Fleet__ToController *m)
{
	bool probe = m->body_case == SALLYPORT__FLEET__TO_CONTROLLER__BODY_PROBE;
	if (!probe && m->body_case != SALLYPORT__FLEET__TO_CONTROLLER__BODY_PASS)
		return false;
	if (strncmp(call->name, VANTAGE, strlen(VANTAGE)) != 0)
		con_hub_refuse(c->hub, call, "only vantages probe", 0);
	else if (probe)
		con_health_report(c->health, call->name + strlen(VANTAGE), m->probe);
	else
		give_pass(c, call, m->pass);
	return true;
}

void con_health_peer(struct con_controller *c, const struct con_hub_peer *peer)
{
	const Sallyport__Fleet__Telemetry *t = &peer->telemetry;
	if (strncmp(peer->name, WORKER, strlen(WORKER)) == 0)
		con_health_worker(c->health, peer->name + strlen(WORKER), peer->boot,
				  t->boot && t->boot == peer->boot ? t : NULL);
}

// ---- the role ----

static int start_health(struct con_controller *c)
{
	static const struct con_api_route routes[] = {
		{"GET", "/v1/health", get_health},
		{"GET", "/v1/health/*", get_health_of},
		{"GET", "/v1/vantages", get_vantages},
		{0},
	};
	struct con_health_options o = {.loop = c->loop, .events = c->events};
	int err = con_health_new(&o, &c->health);
	if (err)
		return err;
	con_health_set_state(c->health, con_fleet_state(c->fleet),
			     con_fleet_head(c->fleet)->sequence);
	c->health_listener.changed = on_changed;
	c->health_listener.ctx = c;
	con_fleet_listen(c->fleet, &c->health_listener);
	err = con_api_add(c->api, routes, c);
	if (!err)
		err = con_api_add_detail(c->api, "node", fill_node, c);
	return err;
}

static void stop_health(struct con_controller *c)
{
	if (c->health)
		con_fleet_unlisten(&c->health_listener);
	con_health_free(c->health);
	c->health = NULL;
}

static void write_metrics(struct con_controller *c, struct sp_metrics_writer *w)
{
	static const struct sp_metric passes = {"sallyport_controller_vantage_passes",
						SP_METRIC_COUNTER,
						"Vantages that asked for a pass",
						{"result"}};
	con_health_metrics(c->health, w);
	sp_metrics_family(w, &passes);
	sp_metrics_u64(w, c->vantage_passes[1], SP_LABELS("issued"));
	sp_metrics_u64(w, c->vantage_passes[0], SP_LABELS("refused"));
}

const struct con_role con_role_health = {.name = "health",
					 .start = start_health,
					 .stop = stop_health,
					 .metrics = write_metrics};
