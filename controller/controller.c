#include "controller/controller.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <sodium.h>

#include "controller/doctor.h"
#include "controller/role_bus.h"
#include "controller/role_endpoint.h"
#include "controller/role_health.h"
#include "controller/role_sessions.h"
#include "lib/version.h"

// Every role, callees first. A new one stands behind what it uses.
static const struct con_role *const roles[] = {
	&con_role_fleet,    &con_role_api,      &con_role_health, &con_role_bus,
	&con_role_sessions, &con_role_endpoint, &con_role_doctor, &con_role_metrics,
};
#define N_ROLES (sizeof(roles) / sizeof(roles[0]))

// ---- the private listener ----

static void on_metrics(void *ctx, struct sp_metrics_writer *w)
{
	for (size_t i = 0; i < N_ROLES; i++)
		if (roles[i]->metrics)
			roles[i]->metrics(ctx, w);
}

static void on_ready(void *ctx, struct sp_ready *r)
{
	struct con_controller *c = ctx;
	sp_ready_check(r, "running", !c->ending, "it is about to end");
	for (size_t i = 0; i < N_ROLES; i++)
		if (roles[i]->ready)
			roles[i]->ready(c, r);
}

static int serve_admin(struct con_controller *c)
{
	static const struct sp_admin_ops ops = {.metrics = on_metrics, .ready = on_ready};
	char why[512];
	if (!c->cfg->admin.listen.kind)
		return 0;
	int err = sp_admin_new(c->loop, &c->cfg->admin.listen, &ops, c, &c->admin);
	if (err)
		sp_error("controller", "cannot listen", "error=%s",
			 sp_conf_place_listen(&con_config_table, c->config_path,
					      "admin.listen", &c->cfg->admin.listen, err,
					      why, sizeof(why)));
	return err;
}

// ---- signals ----

static void on_signal(void *ctx, int signo)
{
	struct con_controller *c = ctx;
	if (signo == SIGHUP) {
		sp_warn("controller",
			"nothing is read again; restart, which drops nobody", "file=%s",
			c->config_path);
		return;
	}
	c->ending = true;
	sp_notify_stopping("ending");
	sp_loop_stop(c->loop);
}

// ---- start and end ----

// Makes the state folder, and sees that nobody else uses it.
static int take_folder(struct con_controller *c)
{
	int err = mkdir(c->cfg->state_dir, 0700) && errno != EEXIST ? -errno : 0;
	char *path = con_config_state_path(c->cfg, "lock");
	if (!path)
		return -ENOMEM;
	if (!err) {
		c->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		if (c->lock_fd < 0 || flock(c->lock_fd, LOCK_EX | LOCK_NB))
			err = -errno;
	}
	if (err)
		sp_error("controller", "no state folder",
			 "key=state_dir path=%s error=%s", c->cfg->state_dir,
			 err == -EWOULDBLOCK ? "another controller runs on it"
					     : sp_strerror(err));
	free(path);
	return err;
}

static int start(struct con_controller *c)
{
	int err = sp_loop_new(&c->loop);
	if (err)
		return err;
	c->started_unix_ms = sp_loop_unix_ms(c->loop);
	randombytes_buf(&c->boot, sizeof(c->boot));
	err = take_folder(c);
	if (!err)
		err = con_events_new(c->loop, &c->events);
	for (size_t i = 0; i < N_ROLES && !err; i++)
		if (roles[i]->start)
			err = roles[i]->start(c);
	if (!err)
		err = serve_admin(c);
	if (!err)
		err = sp_loop_signals(c->loop, on_signal, c);
	if (!err)
		sp_watchdog_init(&c->watchdog, c->loop);
	return err;
}

int con_controller_new(const char *config_path, struct con_config *cfg,
		       struct con_identity *id, struct con_controller **ret)
{
	struct con_controller *c = calloc(1, sizeof(*c));
	if (!c) {
		sp_conf_free(&con_config_table, cfg);
		con_identity_done(id);
		return -ENOMEM;
	}
	c->lock_fd = -1;
	c->config_path = config_path;
	c->cfg = cfg;
	c->id = *id;
	sodium_memzero(id, sizeof(*id));
	int err = start(c);
	if (err) {
		sp_error("controller", "cannot start", "error=%s", sp_strerror(err));
		con_controller_free(c);
		return err;
	}
	*ret = c;
	return 0;
}

int con_controller_run(struct con_controller *c)
{
	const struct sp_position *head = con_fleet_head(c->fleet);
	sp_info("controller", "ready",
		"version=%s fleet=%s epoch=%u sequence=%" PRIu64 " api=%s", sp_version(),
		c->cfg->fleet, head->epoch, head->sequence, c->cfg->api.socket);
	sp_notify_ready("serving");
	int err = sp_loop_run(c->loop);
	sp_info("controller", "stopped", "");
	return err;
}

void con_controller_free(struct con_controller *c)
{
	if (!c)
		return;
	sp_admin_free(c->admin);
	for (size_t i = N_ROLES; i-- > 0;)
		if (roles[i]->stop)
			roles[i]->stop(c);
	con_events_free(c->events);
	sp_watchdog_done(&c->watchdog);
	sp_loop_free(c->loop);
	if (c->lock_fd >= 0)
		close(c->lock_fd);
	con_identity_done(&c->id);
	sp_conf_free(&con_config_table, c->cfg);
	free(c);
}
