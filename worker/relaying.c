// Trunks and relays of the exit: made, and told what the config and the fleet say. Not
// here: what they do (worker/trunk.h, worker/relay.h, worker/relayed.h).
#include <errno.h>

#include "lib/log.h"
#include "worker/config_kept.h"
#include "worker/relayed.h"
#include "worker/worker.h"

#define WAIT_MS 4000   // of a client, for a trunk
#define IDLE_MS 120000 // a relayed carrier without a byte; clients ping each 25 s

static enum sp_reason on_opened(void *ctx, struct wrk_pipe *p,
				const struct wrk_mux_source *source)
{
	struct wrk_worker *w = ctx;
	return wrk_relayed_accept(w->links, &wrk_worker_relayed_ops, w, p, source);
}

static void trunk_limits(const struct wrk_config *cfg, struct wrk_trunks_limits *ret)
{
	*ret = (struct wrk_trunks_limits){
		.carriers = (uint32_t)cfg->relay.carriers,
		.opens_per_second = (uint32_t)cfg->relay.opens_per_second,
		.window_bytes = (uint32_t)cfg->relay.window_bytes,
		.memory_bytes = (uint64_t)cfg->relay.memory_bytes,
		.idle_ms = (uint32_t)cfg->relay.idle_ms,
	};
}

static void relay_limits(const struct wrk_config *cfg, struct wrk_relays_limits *ret)
{
	*ret = (struct wrk_relays_limits){
		.carriers = cfg->relay.enabled ? (uint32_t)cfg->relay.carriers : 0,
		.per_source = (uint32_t)cfg->relay.carriers_per_source,
		.wait_ms = WAIT_MS,
		.idle_ms = IDLE_MS,
	};
}

static int set_members(struct wrk_worker *w, const struct wrk_config *cfg,
		       const struct sp_fleet_members *m)
{
	static const struct sp_fleet_members none;
	uint32_t before = wrk_trunks_members(w->trunks);
	int err = wrk_trunks_set_members(w->trunks, cfg->relay.enabled && m ? m : &none);
	if (err)
		sp_error("relay", "kept the old members", "error=%s", sp_strerror(err));
	else if (before != wrk_trunks_members(w->trunks))
		sp_info("relay", "other workers", "n=%u", wrk_trunks_members(w->trunks));
	return err;
}

int wrk_relaying_open(struct wrk_worker *w)
{
	struct wrk_trunks_options t = {
		.loop = w->loop,
		.keys = &w->keys,
		.resolve = w->resolve,
		.opened = on_opened,
		.ctx = w,
	};
	struct wrk_relays_options r = {.loop = w->loop};
	trunk_limits(w->cfg, &t.limits);
	relay_limits(w->cfg, &r.limits);
	int err = wrk_trunks_new(&t, &w->trunks);
	r.trunks = w->trunks;
	if (!err)
		err = wrk_relays_new(&r, &w->relays);
	if (err)
		return err;
	if (w->cfg->control.folder && w->kept)
		wrk_members_kept(w->kept, &w->members);
	wrk_relaying_apply(w, w->cfg, w->id.fleet);
	return 0;
}

void wrk_relaying_free(struct wrk_worker *w)
{
	wrk_relays_free(w->relays);
	wrk_trunks_free(w->trunks);
	w->relays = NULL;
	w->trunks = NULL;
	sp_fleet_members_done(&w->members);
}

void wrk_relaying_apply(struct wrk_worker *w, const struct wrk_config *cfg,
			const struct sp_fleet_worker *fleet)
{
	struct wrk_trunks_limits t;
	struct wrk_relays_limits r;
	trunk_limits(cfg, &t);
	relay_limits(cfg, &r);
	wrk_trunks_set_limits(w->trunks, &t);
	wrk_relays_set_limits(w->relays, &r);
	const struct sp_fleet_members *m = fleet ? &fleet->members : NULL;
	(void)set_members(w, cfg, cfg->control.folder ? &w->members : m);
}

int wrk_relaying_take_members(struct wrk_worker *w, const void *json, size_t len,
			      char *why, size_t cap)
{
	struct sp_fleet_members m;
	int err = sp_fleet_members_parse(json, len, &m, why, cap);
	if (!err)
		err = set_members(w, w->cfg, &m);
	if (err)
		return err;
	sp_fleet_members_done(&w->members);
	w->members = m;
	err = w->kept ? wrk_members_keep(w->kept, json, len) : 0;
	if (err)
		sp_warn("relay", "after a crash the agent says who the others are",
			"error=%s", sp_strerror(err));
	return 0;
}
