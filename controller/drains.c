#include "controller/drains.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/derive.h"

#define WORKER "worker:"

struct con_drains {
	struct con_controller *c;
	json_t *told; // node -> end of the lease for which it was told to be empty
};

bool con_drain_is_heard(const struct con_hub_peer *p)
{
	return p && p->connected && p->telemetry.boot && p->telemetry.boot == p->boot;
}

void con_drain_add(struct con_drain_view *v, const struct con_hub_peer *p)
{
	v->workers++;
	if (!con_drain_is_heard(p)) {
		v->unheard++;
	} else {
		v->starting += !p->telemetry.draining;
		v->streams += p->telemetry.streams;
		v->flows += p->telemetry.flows;
		v->sessions += p->telemetry.sessions;
	}
	v->empty = (v->workers == 1 || v->empty) && con_drain_is_heard(p) &&
		   p->telemetry.empty;
}

static const struct con_hub_peer *peer_of(struct con_drains *d, const char *worker)
{
	char peer[SP_BUS_NAME_MAX];
	snprintf(peer, sizeof(peer), WORKER "%s", worker);
	return con_hub_find(d->c->hub, peer);
}

// When the lease by which the node drains ends; 0: it does not drain.
static uint64_t drains_until(struct con_drains *d, const char *node)
{
	char key[SP_STATE_KEY_MAX + 1];
	snprintf(key, sizeof(key), "lease/%s", node);
	json_t *o = sp_state_get_object(con_fleet_state(d->c->fleet), key);
	const char *kind = json_string_value(json_object_get(o, "kind"));
	json_int_t until = json_integer_value(json_object_get(o, "until"));
	bool drains = kind && strcmp(kind, "drain") == 0 && until > 0 &&
		      (uint64_t)until > sp_loop_unix_ms(d->c->loop) / 1000;
	json_decref(o);
	return drains ? (uint64_t)until : 0;
}

// `each` is called for all workers of the node that enrolled.
static void look(struct con_drains *d, const char *node, struct con_drain_view *ret,
		 json_t *workers)
{
	const struct sp_state *s = con_fleet_state(d->c->fleet);
	char prefix[SP_STATE_KEY_MAX + 1], key[SP_STATE_KEY_MAX + 1];
	struct sp_state_entry e;
	*ret = (struct con_drain_view){0};
	snprintf(prefix, sizeof(prefix), "node/%s/", node);
	for (size_t at = 0; sp_state_next(s, prefix, &at, &e);) {
		const char *worker = e.key + strlen("node/");
		snprintf(key, sizeof(key), "identity/%s", worker);
		if (!sp_state_get(s, key, NULL))
			continue;
		con_drain_add(ret, peer_of(d, worker));
		if (workers) {
			json_t *o = json_pack("{s:s}", "name", worker);
			con_drains_fill_worker(d, worker, o);
			json_array_append_new(workers, o);
		}
	}
}

// ---- the event ----

static bool was_told(const struct con_drains *d, const char *node, uint64_t until_s)
{
	return json_integer_value(json_object_get(d->told, node)) == (json_int_t)until_s;
}

// Entries of leases that ended go, so that there are never more than nodes.
static void forget_ended(struct con_drains *d)
{
	const char *node;
	json_t *until;
	void *next;
	json_object_foreach_safe(d->told, next, node, until)
	{
		if (drains_until(d, node) != (uint64_t)json_integer_value(until))
			json_object_del(d->told, node);
	}
}

void con_drains_peer(struct con_drains *d, const struct con_hub_peer *peer)
{
	char node[SP_FLEET_NAME_MAX + 1];
	struct con_drain_view v;
	if (strncmp(peer->name, WORKER, strlen(WORKER)) != 0 || !peer->telemetry.empty)
		return;
	sp_worker_node(peer->name + strlen(WORKER), node);
	uint64_t until = drains_until(d, node), now = sp_loop_unix_ms(d->c->loop) / 1000;
	if (!until || was_told(d, node, until))
		return;
	look(d, node, &v, NULL);
	if (!v.empty)
		return;
	forget_ended(d);
	if (json_object_set_new(d->told, node, json_integer((json_int_t)until)))
		return; // no memory: at the next word
	con_events_add(d->c->events, SP_LOG_INFO, "node-empty", node,
		       "no stream and no flow is left; %" PRIu64
		       " sessions are remembered; its lease ends in %" PRIu64 " s",
		       v.sessions, until - now);
}

// ---- what is told ----

void con_drains_fill_worker(struct con_drains *d, const char *worker, json_t *into)
{
	char node[SP_FLEET_NAME_MAX + 1];
	const struct con_hub_peer *p = peer_of(d, worker);
	sp_worker_node(worker, node);
	if (!drains_until(d, node))
		return;
	bool heard = con_drain_is_heard(p);
	json_object_set_new(into, "heard", json_boolean(heard));
	if (!heard)
		return;
	json_object_set_new(into, "empty", json_boolean(p->telemetry.empty));
	json_object_set_new(into, "streams", json_integer(p->telemetry.streams));
	json_object_set_new(into, "flows", json_integer(p->telemetry.flows));
}

static void fill_node(void *ctx, const char *worker, json_t *into)
{
	con_drains_fill_worker(ctx, worker, into);
}

static void fill_lease(void *ctx, const char *node, json_t *into)
{
	struct con_drains *d = ctx;
	struct con_drain_view v;
	json_t *workers = json_array();
	if (!drains_until(d, node)) {
		json_decref(workers);
		return;
	}
	look(d, node, &v, workers);
	json_object_set_new(into, "empty", json_boolean(v.empty));
	json_object_set_new(into, "unheard", json_integer(v.unheard));
	json_object_set_new(into, "starting", json_integer(v.starting));
	json_object_set_new(into, "streams", json_integer((json_int_t)v.streams));
	json_object_set_new(into, "flows", json_integer((json_int_t)v.flows));
	json_object_set_new(into, "sessions", json_integer((json_int_t)v.sessions));
	json_object_set_new(into, "workers", workers);
}

void con_drains_metrics(struct con_drains *d, struct sp_metrics_writer *w)
{
	static const struct sp_metric draining = {
		"sallyport_controller_draining_nodes",
		SP_METRIC_GAUGE,
		"Nodes that drain by a lease; unheard: a worker of it is not linked here",
		{"state"}};
	const struct sp_state *s = con_fleet_state(d->c->fleet);
	unsigned busy = 0, empty = 0, unheard = 0;
	struct sp_state_entry e;
	for (size_t at = 0; sp_state_next(s, "lease/", &at, &e);) {
		const char *node = e.key + strlen("lease/");
		struct con_drain_view v;
		if (!drains_until(d, node))
			continue;
		look(d, node, &v, NULL);
		empty += v.empty;
		unheard += !v.empty && v.unheard;
		busy += !v.empty && !v.unheard;
	}
	sp_metrics_family(w, &draining);
	sp_metrics_u64(w, busy, SP_LABELS("busy"));
	sp_metrics_u64(w, empty, SP_LABELS("empty"));
	sp_metrics_u64(w, unheard, SP_LABELS("unheard"));
}

// ---- life ----

int con_drains_new(struct con_controller *c, struct con_drains **ret)
{
	struct con_drains *d = calloc(1, sizeof(*d));
	if (!d)
		return -ENOMEM;
	d->c = c;
	d->told = json_object();
	int err = d->told ? con_api_add_detail(c->api, "node", fill_node, d) : -ENOMEM;
	if (!err)
		err = con_api_add_detail(c->api, "lease", fill_lease, d);
	if (err) {
		con_drains_free(d);
		return err;
	}
	*ret = d;
	return 0;
}

void con_drains_free(struct con_drains *d)
{
	if (!d)
		return;
	json_decref(d->told);
	free(d);
}
