#include "healthcheck/vantage.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/file.h"
#include "lib/key.h"
#include "lib/log.h"
#include "lib/pass.h"
#include "lib/version.h"

#define PROTOCOL          1
#define INTERVAL_MS       5000
#define DEADLINE_MS       2000
#define RISE              2
#define PASS_RETRY_MS     5000
#define PASS_RENEW_MS     3600000
#define CONTROLS_LEAST_MS 1000

// ---- to a controller ----

static int send_controller(void *ctx, Sallyport__Fleet__ToController *m)
{
	struct hck_vantage *v = ctx;
	m->version = PROTOCOL;
	m->call = ++v->calls;
	size_t len = sallyport__fleet__to_controller__get_packed_size(m);
	uint8_t *buf = malloc(len ? len : 1);
	if (!buf)
		return -ENOMEM;
	sallyport__fleet__to_controller__pack(m, buf);
	int err = sp_bus_client_send(v->bus, buf, len);
	free(buf);
	return err;
}

static int send_if_linked(void *ctx, Sallyport__Fleet__ToController *m)
{
	struct hck_vantage *v = ctx;
	return v->linked ? send_controller(v, m) : -EAGAIN;
}

static void send_hello(struct hck_vantage *v)
{
	Sallyport__Fleet__ToController m = SALLYPORT__FLEET__TO_CONTROLLER__INIT;
	Sallyport__Fleet__Hello h = SALLYPORT__FLEET__HELLO__INIT;
	Sallyport__Fleet__Position at;
	char program[96];
	snprintf(program, sizeof(program), "sallyport-healthcheck %s", sp_version());
	hck_position_put(hck_follow_position(v->follow), &at);
	h.version_min = h.version_max = PROTOCOL;
	h.boot = v->boot;
	h.applied = &at;
	h.program = program;
	m.body_case = SALLYPORT__FLEET__TO_CONTROLLER__BODY_HELLO;
	m.hello = &h;
	if (send_controller(v, &m))
		sp_warn("vantage", "hello was not sent", "");
}

// ---- the pass ----

static void pass_path(const struct hck_vantage *v, char *ret, size_t cap)
{
	snprintf(ret, cap, "%s/pass", v->cfg->control.folder);
}

// Who may sign passes, and answers to probes: those of the enrolment, and what the fleet
// says.
static void set_keys(struct hck_vantage *v)
{
	const struct sp_state *state = hck_follow_state(v->follow);
	json_t *o = state ? sp_state_get_object(state, "keys") : NULL, *k;
	size_t i;
	v->keys = v->id.enrolled.signing;
	json_array_foreach(json_object_get(o, "pass"), i, k)
	{
		const char *text = json_string_value(k);
		uint8_t key[32];
		char why[128];
		if (text &&
		    !sp_key_parse(SP_KEY_SIGNING, false, text, strlen(text), key, why,
				  sizeof(why)) &&
		    sp_signed_keys_add(&v->keys, key))
			break; // as many as fit
	}
	json_decref(o);
	hck_prober_set_keys(v->prober, &v->keys);
}

// Takes a pass that is signed, ours and not over. 0; else why not.
static int take_pass(struct hck_vantage *v, const uint8_t *blob, size_t len)
{
	struct sp_probe_who who = {.pass_len = len};
	struct sp_pass pass;
	if (len > sizeof(who.pass))
		return SP_E_LIMIT;
	int err = sp_pass_open(&v->keys, blob, len, &pass);
	if (!err && memcmp(pass.device, v->id.device_public, 32) != 0)
		err = SP_E_AUTH;
	if (!err && pass.expires_s <= sp_loop_unix_ms(v->loop) / 1000)
		err = SP_E_EXPIRED;
	if (err)
		return err;
	memcpy(who.pass, blob, len);
	memcpy(who.device_secret, v->id.device_secret, 32);
	memcpy(who.device_public, v->id.device_public, 32);
	v->pass_expires_s = pass.expires_s;
	hck_prober_set_who(v->prober, &who);
	sodium_memzero(&who, sizeof(who));
	return 0;
}

static void load_pass(struct hck_vantage *v)
{
	struct sp_file_read how = {.max = SP_PASS_BLOB_MAX, .secret = true};
	char path[4200], why[SP_WHY_MAX];
	uint8_t *buf;
	size_t len;
	pass_path(v, path, sizeof(path));
	if (sp_file_read(path, &how, &buf, &len, why, sizeof(why)))
		return;
	int err = take_pass(v, buf, len);
	if (err)
		sp_debug("vantage", "the pass on disk is of no use", "why=%s",
			 sp_strerror(err));
	sp_file_free(buf, len);
}

static void on_pass(struct hck_vantage *v, const Sallyport__Fleet__PassAnswer *a)
{
	char path[4200], why[SP_WHY_MAX];
	int err = *a->reason ? SP_E_AUTH : take_pass(v, a->pass.data, a->pass.len);
	if (err) {
		sp_warn("vantage", "no pass", "why=%s",
			*a->reason ? a->reason : sp_strerror(err));
		return;
	}
	pass_path(v, path, sizeof(path));
	if (sp_file_write(path, a->pass.data, a->pass.len, 0600, why, sizeof(why)))
		sp_warn("vantage", "the pass is not on disk", "why=%s", why);
	sp_timer_set(&v->pass, sp_loop_now_us(v->loop) + 1000ull * PASS_RENEW_MS);
}

static void ask_for_pass(void *ctx)
{
	struct hck_vantage *v = ctx;
	Sallyport__Fleet__ToController m = SALLYPORT__FLEET__TO_CONTROLLER__INIT;
	Sallyport__Fleet__PassRequest r = SALLYPORT__FLEET__PASS_REQUEST__INIT;
	if (v->pass_expires_s && v->pass_expires_s <= sp_loop_unix_ms(v->loop) / 1000) {
		sp_error("vantage",
			 "the pass expired and no controller gives another; "
			 "probes stop",
			 "");
		v->pass_expires_s = 0;
		hck_prober_set_who(v->prober, NULL);
	}
	r.device = (ProtobufCBinaryData){32, v->id.device_public};
	m.body_case = SALLYPORT__FLEET__TO_CONTROLLER__BODY_PASS;
	m.pass = &r;
	(void)!send_if_linked(v, &m); // asked again soon
	sp_timer_set(&v->pass, sp_loop_now_us(v->loop) + 1000ull * PASS_RETRY_MS);
}

// ---- what is probed, and how ----

static void set_plan(struct hck_vantage *v)
{
	const struct hck_config *c = v->cfg;
	uint32_t interval = c->probe.interval_ms  ? (uint32_t)c->probe.interval_ms
			    : v->plan.interval_ms ? v->plan.interval_ms
						  : INTERVAL_MS;
	uint32_t deadline = c->probe.deadline_ms  ? (uint32_t)c->probe.deadline_ms
			    : v->plan.deadline_ms ? v->plan.deadline_ms
						  : DEADLINE_MS;
	struct hck_prober_plan p = {
		.schedule = {.interval_ms = interval,
			     .recheck_ms = (uint32_t)c->probe.recheck_ms,
			     .down_interval_ms = (uint32_t)c->probe.down_interval_ms,
			     .jitter_percent = (unsigned)c->probe.jitter_percent,
			     .rise = RISE},
		.deadline_ms = deadline,
		.concurrency = (unsigned)c->probe.concurrency,
		.ca_file = c->probe.ca_file,
	};
	if (hck_prober_set_plan(v->prober, &p))
		sp_error("vantage", "out of memory", "");
	char own[HCK_URLS_MAX][HCK_URL_MAX];
	unsigned n = 0;
	for (; n < c->controls.n && n < HCK_URLS_MAX; n++)
		snprintf(own[n], HCK_URL_MAX, "%s", c->controls.v[n]);
	uint32_t look = interval < CONTROLS_LEAST_MS ? CONTROLS_LEAST_MS : interval;
	hck_controls_set(v->controls, n ? own : v->plan.controls,
			 n ? n : v->plan.n_controls, c->probe.ca_file, look, deadline);
}

static void on_state(void *ctx)
{
	struct hck_vantage *v = ctx;
	const struct sp_state *state = hck_follow_state(v->follow);
	const struct sp_position *at = hck_follow_position(v->follow);
	struct hck_targets t;
	if (!state || hck_targets_read(state, &t))
		return;
	v->plan = t.plan;
	v->targets = (unsigned)t.n;
	v->skipped = t.skipped;
	sp_info("vantage", "state taken",
		"epoch=%" PRIu32 " sequence=%" PRIu64 " carriers=%zu", at->epoch,
		at->sequence, t.n);
	set_keys(v);
	hck_report_keep(v->report, &t);
	set_plan(v);
	if (hck_prober_set_targets(v->prober, &t))
		sp_error("vantage", "out of memory; nothing is probed", "");
}

static void on_result(void *ctx, unsigned target, const struct hck_result *r)
{
	struct hck_vantage *v = ctx;
	struct hck_probed p;
	if (!hck_prober_get(v->prober, target, &p))
		return;
	if (!r->ok && p.failures_in_a_row <= 3)
		sp_info("vantage", "a probe fell",
			"node=%s carrier=%s rung=%s reason=%s detail=%s in_a_row=%u",
			p.target->node, p.target->carrier_text, sp_rung_word(r->reached),
			sp_reason_word(r->reason), r->detail, p.failures_in_a_row);
	if (!r->ok)
		hck_controls_look(v->controls);
	if (hck_report_add(v->report, p.target, r))
		sp_error("vantage", "out of memory; a result is not told", "");
}

static void on_controls(void *ctx, bool ok)
{
	struct hck_vantage *v = ctx;
	if (ok)
		hck_prober_refresh(v->prober);
	hck_report_now(v->report);
}

static bool controls_ok(void *ctx)
{
	struct hck_vantage *v = ctx;
	return hck_controls_ok(v->controls);
}

static const struct sp_position *position(void *ctx)
{
	struct hck_vantage *v = ctx;
	return hck_follow_position(v->follow);
}

// ---- from a controller ----

static void on_welcome(struct hck_vantage *v, const Sallyport__Fleet__Welcome *w)
{
	if (w->version != PROTOCOL) {
		sp_error("vantage", "no version in common with the controller",
			 "chosen=%u", w->version);
		return;
	}
	v->linked = true;
	v->links++;
	sp_info("vantage", "linked to a controller", "server=%u",
		sp_bus_client_at(v->bus));
	hck_follow_up(v->follow, w->head);
	ask_for_pass(v);
	hck_report_up(v->report, true);
}

static void on_message(void *ctx, const void *data, size_t len)
{
	struct hck_vantage *v = ctx;
	Sallyport__Fleet__FromController *m =
		sallyport__fleet__from_controller__unpack(NULL, len, data);
	if (!m) {
		v->malformed++;
		return;
	}
	switch (m->body_case) {
	case SALLYPORT__FLEET__FROM_CONTROLLER__BODY_WELCOME:
		on_welcome(v, m->welcome);
		break;
	case SALLYPORT__FLEET__FROM_CONTROLLER__BODY_SNAPSHOT:
		hck_follow_snapshot(v->follow, m->snapshot);
		break;
	case SALLYPORT__FLEET__FROM_CONTROLLER__BODY_REVISIONS:
		hck_follow_revisions(v->follow, m->revisions);
		break;
	case SALLYPORT__FLEET__FROM_CONTROLLER__BODY_PASS:
		on_pass(v, m->pass);
		break;
	case SALLYPORT__FLEET__FROM_CONTROLLER__BODY_REFUSED:
		v->refused++;
		sp_warn("vantage", "a controller refused", "reason=%s",
			m->refused->reason);
		break;
	case SALLYPORT__FLEET__FROM_CONTROLLER__BODY_USAGE: // a worker's
	case SALLYPORT__FLEET__FROM_CONTROLLER__BODY_SESSION:
	case SALLYPORT__FLEET__FROM_CONTROLLER__BODY_ENROL:
	case SALLYPORT__FLEET__FROM_CONTROLLER__BODY__NOT_SET:
	case _SALLYPORT__FLEET__FROM_CONTROLLER__BODY__CASE_IS_INT_SIZE:
		break; // something newer than we are
	}
	sallyport__fleet__from_controller__free_unpacked(m, NULL);
}

static void on_bus_up(void *ctx, unsigned at)
{
	(void)at;
	send_hello(ctx);
}

static void on_bus_down(void *ctx, unsigned at, const char *why)
{
	struct hck_vantage *v = ctx;
	v->linked = false;
	sp_warn("vantage", "no controller; probing goes on, results are kept",
		"server=%u why=%s", at, why);
	hck_follow_down(v->follow);
	hck_report_up(v->report, false);
}

static void on_published(void *ctx, char topic, const void *data, size_t len)
{
	struct hck_vantage *v = ctx;
	hck_follow_published(v->follow, topic, data, len);
}

static const struct sp_bus_client_ops bus_ops = {.up = on_bus_up,
						 .down = on_bus_down,
						 .message = on_message,
						 .published = on_published};

// ---- signals ----

static void reload(struct hck_vantage *v)
{
	struct sp_conf_errors errs = {0};
	const struct sp_conf_key *fixed[8];
	sp_notify_reloading();
	struct hck_config *cfg = sp_conf_load(&hck_config_table, v->config_path, &errs);
	if (!cfg) {
		v->reloads_failed++;
		sp_error("vantage", "config not reloaded, the old one holds", "why=%s",
			 errs.text[0]);
	} else if (sp_conf_diff(&hck_config_table, v->cfg, cfg, true, fixed, 8)) {
		v->reloads_failed++;
		sp_error("vantage",
			 "config not reloaded: a key holds only after a restart",
			 "key=%s", fixed[0]->name);
		sp_conf_free(&hck_config_table, cfg);
	} else {
		v->reloads++;
		sp_conf_free(&hck_config_table, v->cfg);
		v->cfg = cfg;
		sp_log_setup((enum sp_log_level)cfg->log.level,
			     (enum sp_log_format)cfg->log.format, 2);
		set_plan(v);
		sp_info("vantage", "config reloaded", "");
	}
	sp_notify_ready("running");
}

static void on_signal(void *ctx, int signo)
{
	struct hck_vantage *v = ctx;
	if (signo == SIGHUP) {
		reload(v);
		return;
	}
	sp_info("vantage", "stopping", "");
	sp_notify_stopping("stopping");
	sp_loop_stop(v->loop);
}

// ---- life ----

static int make_parts(struct hck_vantage *v)
{
	struct hck_prober_options prober = {
		.loop = v->loop, .result = on_result, .ctx = v};
	struct hck_controls_options controls = {
		.loop = v->loop, .changed = on_controls, .ctx = v};
	struct hck_report_options report = {.loop = v->loop,
					    .boot = v->boot,
					    .send = send_if_linked,
					    .position = position,
					    .controls_ok = controls_ok,
					    .ctx = v};
	struct hck_follow_options follow = {.loop = v->loop,
					    .folder = v->cfg->control.folder,
					    .keys = v->id.enrolled.signing,
					    .send = send_if_linked,
					    .changed = on_state,
					    .ctx = v};
	int err = sp_fetch_env_new(v->loop, &v->fetch);
	prober.fetch = controls.fetch = v->fetch;
	if (!err)
		err = hck_prober_new(&prober, &v->prober);
	if (!err)
		err = hck_controls_new(&controls, &v->controls);
	if (!err)
		err = hck_report_new(&report, &v->report);
	if (!err)
		err = hck_follow_new(&follow, &v->follow);
	return err;
}

static int make_bus(struct hck_vantage *v)
{
	const struct sp_enrolled *e = &v->id.enrolled;
	const struct hck_config *c = v->cfg;
	struct sp_bus_address to[SP_BUS_SERVERS_MAX] = {0};
	char why[SP_WHY_MAX] = "";
	bool own = c->control.router.n > 0;
	unsigned n = own ? (unsigned)c->control.router.n : e->n_controllers;
	for (unsigned i = 0; i < n && i < SP_BUS_SERVERS_MAX; i++) {
		snprintf(to[i].router, sizeof(to[i].router), "%s",
			 own ? c->control.router.v[i] : e->controllers[i].router);
		snprintf(to[i].publisher, sizeof(to[i].publisher), "%s",
			 own ? c->control.publisher.v[i] : e->controllers[i].publisher);
		memcpy(to[i].key, e->controller_key, SP_BUS_KEY_BYTES);
	}
	struct sp_bus_client_options o = {.loop = v->loop,
					  .keys = &v->id.control,
					  .servers = to,
					  .n_servers = n,
					  .ops = &bus_ops,
					  .ctx = v};
	int err = sp_bus_client_new(&o, &v->bus, why, sizeof(why));
	if (err)
		sp_error("vantage", "no link to controllers", "why=%s", why);
	return err;
}

static int make_admin(struct hck_vantage *v)
{
	char text[SP_TARGET_TEXT_MAX], why[2 * SP_WHY_MAX];
	struct sp_target at;
	if (!v->cfg->admin.listen.kind)
		return 0;
	int err = sp_admin_new(v->loop, &v->cfg->admin.listen, &hck_admin_ops, v,
			       &v->admin);
	if (err) {
		sp_error("vantage", "cannot listen", "why=%s",
			 sp_conf_place_listen(&hck_config_table, v->config_path,
					      "admin.listen", &v->cfg->admin.listen, err,
					      why, sizeof(why)));
		return err;
	}
	sp_admin_address(v->admin, &at);
	sp_info("vantage", "metrics", "address=%s",
		sp_target_format(&at, text, sizeof(text)));
	return 0;
}

static int build(struct hck_vantage *v)
{
	int err = sp_loop_new(&v->loop);
	if (err)
		return err;
	sp_timer_init(&v->pass, v->loop, ask_for_pass, v);
	err = make_parts(v);
	if (err)
		return err;
	set_keys(v);
	on_state(v); // what the disk had
	load_pass(v);
	err = make_bus(v);
	if (!err)
		err = make_admin(v);
	if (!err)
		err = sp_loop_signals(v->loop, on_signal, v);
	return err;
}

int hck_vantage_new(const char *config_path, struct hck_config *cfg,
		    const struct hck_identity *id, struct hck_vantage **ret)
{
	struct hck_vantage *v = calloc(1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	v->config_path = config_path;
	v->cfg = cfg;
	v->id = *id;
	randombytes_buf(&v->boot, sizeof(v->boot));
	int err = build(v);
	if (err) {
		sp_error("vantage", "not started", "why=%s", sp_strerror(err));
		v->cfg = NULL; // stays the caller's
		hck_vantage_free(v);
		return err;
	}
	sp_timer_set(&v->pass, sp_loop_now_us(v->loop) + 1000ull * PASS_RETRY_MS);
	sp_watchdog_init(&v->watchdog, v->loop);
	*ret = v;
	return 0;
}

int hck_vantage_run(struct hck_vantage *v)
{
	sp_info("vantage", "running", "version=%s name=%s", sp_version(),
		v->id.enrolled.name);
	sp_notify_ready("running");
	return sp_loop_run(v->loop);
}

void hck_vantage_free(struct hck_vantage *v)
{
	if (!v)
		return;
	sp_watchdog_done(&v->watchdog);
	sp_admin_free(v->admin);
	sp_bus_client_free(v->bus);
	hck_prober_free(v->prober);
	hck_controls_free(v->controls);
	hck_report_free(v->report);
	hck_follow_free(v->follow);
	sp_fetch_env_free(v->fetch);
	if (v->loop)
		sp_timer_done(&v->pass);
	sp_loop_free(v->loop);
	hck_identity_done(&v->id);
	sp_conf_free(&hck_config_table, v->cfg);
	free(v);
}
