// The verb doctor: what is checked, in which order, and who is asked.
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "ctl/checks.h"
#include "ctl/remote.h"
#include "ctl/verbs.h"

static const char *const defaults[] = {
	"/etc/sallyport/controller.yaml",  "/etc/sallyport/worker.yaml",
	"/etc/sallyport/healthcheck.yaml", "/etc/sallyport/client.yaml",
	"/etc/sallyport/sallyport.yaml",
};

static uint64_t now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

// How many configs were looked at: those that are named, else those that are there.
static unsigned check_configs(const struct ctl_call *call, struct ctl_checks *k)
{
	const char *path;
	unsigned n = 0;
	for (size_t at = 0; (path = ctl_next(call, "config", &at)); n++)
		ctl_check_config(call, k, path);
	if (n)
		return n;
	for (size_t i = 0; i < sizeof(defaults) / sizeof(defaults[0]); i++)
		if (access(defaults[i], F_OK) == 0) {
			ctl_check_config(call, k, defaults[i]);
			n++;
		}
	return n;
}

// A question whose failure is a finding, not an end. NULL: it was added.
static json_t *ask(const struct ctl_call *call, struct ctl_checks *k, const char *path)
{
	char *said = NULL;
	size_t len = 0;
	json_t *reply = NULL;
	struct ctl_call *quiet = malloc(sizeof(*quiet));
	FILE *f = open_memstream(&said, &len);
	if (!quiet || !f)
		abort();
	*quiet = *call;
	quiet->err = f;
	quiet->json = false;
	int code = ctl_ask(quiet, "GET", path, NULL, 0, &reply);
	fclose(f);
	free(quiet);
	if (code) {
		const char *what = said ? strstr(said, ": ") : NULL;
		if (said)
			said[strcspn(said, "\n")] = '\0';
		ctl_check_add(k, CTL_BAD, "controller", "",
			      "systemctl start sallyport-controller, and journalctl -u "
			      "sallyport-controller; elsewhere: --local, or --socket",
			      "%s", what ? what + 2 : "no answer");
		reply = NULL;
	}
	free(said);
	return reply;
}

static void check_fleet(const struct ctl_call *call, struct ctl_checks *k)
{
	json_t *doctor = ask(call, k, "/v1/doctor"), *o;
	if (!doctor)
		return;
	ctl_check_controller(k, doctor, now_ms());
	if ((o = ask(call, k, "/v1/nodes?limit=20000"))) {
		ctl_check_nodes(
			k, json_object_get(o, "nodes"),
			json_object_get(json_object_get(doctor, "journal"), "position"),
			now_ms());
		json_decref(o);
	}
	if ((o = ask(call, k, "/v1/vantages"))) {
		ctl_check_vantages(k, o);
		json_decref(o);
	}
	if ((o = ask(call, k, "/v1/leases"))) {
		ctl_check_leases(k, json_object_get(o, "leases"), now_ms() / 1000);
		json_decref(o);
	}
	json_decref(doctor);
}

// Whether there should be a controller: one is named, or lives here.
static bool is_fleet_wanted(const struct ctl_call *call)
{
	const char *env = getenv(CTL_SOCKET_ENV);
	if (ctl_has(call, "local"))
		return false;
	return ctl_has(call, "socket") || (env && *env) ||
	       access(CTL_SOCKET_DEFAULT, F_OK) == 0 || access(defaults[0], F_OK) == 0;
}

int ctl_doctor(struct ctl_call *call)
{
	struct ctl_checks k = {0};
	unsigned configs = check_configs(call, &k);
	bool fleet = is_fleet_wanted(call);
	if (fleet)
		check_fleet(call, &k);
	if (!configs && !fleet)
		return ctl_fail(call, EX_USAGE,
				"nothing to look at: no config in /etc/sallyport and no "
				"controller here; name one by --config or --socket");
	return ctl_checks_end(call, &k);
}
