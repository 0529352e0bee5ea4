// The controller as a whole: makes the roles, joins them, and carries out what signals
// ask for. The struct is the one context that is passed down; engines and role modules do
// not see it. A further role is one row of the table in controller.c, with a struct of
// this form of its own. Not here: command line (main.c).
#ifndef CON_CONTROLLER_H
#define CON_CONTROLLER_H

#include "controller/api_fleet.h"
#include "controller/config.h"
#include "controller/events.h"
#include "controller/fleet.h"
#include "controller/health.h"
#include "controller/identity.h"
#include "controller/leases.h"
#include "lib/admin.h"
#include "lib/notify.h"

struct con_controller;
struct con_hub;
struct con_bus;
struct con_sessions;
struct con_config_endpoint;

// What a role is to the whole. Any function may be NULL.
struct con_role {
	const char *name;
	// 0; an error, which was logged.
	int (*start)(struct con_controller *c);
	// Also of what was not started. In the reverse order of the table.
	void (*stop)(struct con_controller *c);
	void (*metrics)(struct con_controller *c, struct sp_metrics_writer *w);
	void (*ready)(struct con_controller *c, struct sp_ready *r);
};

struct con_controller {
	const char *config_path;
	struct con_config *cfg;
	struct con_identity id;
	int lock_fd; // held: no second controller uses the state folder
	struct sp_loop *loop;
	struct con_events *events;
	struct con_fleet *fleet;
	struct con_fleet_listener fleet_listener;
	struct con_api *api;
	struct con_api_fleet api_fleet;
	struct con_leases *leases;
	struct con_hub *hub; // role_bus.c
	struct con_bus *bus;
	struct con_sessions *sessions;        // role_sessions.c
	struct con_config_endpoint *endpoint; // role_endpoint.c
	struct con_health *health;            // role_health.c
	struct con_fleet_listener health_listener;
	uint64_t vantage_passes[2]; // refused, issued
	struct sp_admin *admin;
	struct sp_watchdog watchdog;
	uint64_t started_unix_ms, boot;
	bool ending;
};

// Starts everything; takes over `cfg` and `id` (which is zeroed) in every case. 0 and
// *ret; an error, which was logged.
int con_controller_new(const char *config_path, struct con_config *cfg,
		       struct con_identity *id,
		       struct con_controller **ret) SP_MUST_CHECK;
// Until a signal ends it. 0; -EIO, -EDEADLK.
int con_controller_run(struct con_controller *c) SP_MUST_CHECK;
void con_controller_free(struct con_controller *c); // NULL is fine

// role_core.c: the roles that everything else stands on.
extern const struct con_role con_role_fleet, con_role_api;
// metrics.c
extern const struct con_role con_role_metrics;

#endif
