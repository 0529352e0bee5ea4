#include "healthcheck/config.h"

#include <stddef.h>
#include <stdio.h>

#include "healthcheck/targets.h"

#define AT(field) offsetof(struct hck_config, field)

static const char *const levels[] = {"debug", "info", "warn", "error", NULL};
static const char *const formats[] = {"logfmt", "json", NULL};

static const struct sp_conf_key keys[] = {
	{.name = "control.folder",
	 .type = SP_CONF_PATH,
	 .offset = AT(control.folder),
	 .required = true,
	 .example = "/var/lib/sallyport/healthcheck",
	 .help = "State folder; sallyport-healthcheck enroll fills it"},
	{.name = "control.router",
	 .type = SP_CONF_STRINGS,
	 .offset = AT(control.router),
	 .max = 8,
	 .example = "tcp://192.0.2.1:7201",
	 .help = "Where controllers answer; unset: as said at the enrolment"},
	{.name = "control.publisher",
	 .type = SP_CONF_STRINGS,
	 .offset = AT(control.publisher),
	 .max = 8,
	 .example = "tcp://192.0.2.1:7202",
	 .help = "Where the same controllers publish, in the same order"},

	{.name = "probe.interval",
	 .type = SP_CONF_DURATION,
	 .offset = AT(probe.interval_ms),
	 .min = 100,
	 .max = 3600000,
	 .reloadable = true,
	 .example = "5s",
	 .help = "Between probes of one carrier that is well; unset: as the fleet says, "
		 "else 5s"},
	{.name = "probe.deadline",
	 .type = SP_CONF_DURATION,
	 .offset = AT(probe.deadline_ms),
	 .min = 50,
	 .max = 60000,
	 .reloadable = true,
	 .example = "2s",
	 .help = "For a whole probe; unset: as the fleet says, else 2s"},
	{.name = "probe.recheck",
	 .type = SP_CONF_DURATION,
	 .offset = AT(probe.recheck_ms),
	 .def = "1s",
	 .min = 50,
	 .max = 60000,
	 .reloadable = true,
	 .help = "Between probes after a failure; never more than half of the interval"},
	{.name = "probe.down_interval",
	 .type = SP_CONF_DURATION,
	 .offset = AT(probe.down_interval_ms),
	 .def = "30s",
	 .min = 100,
	 .max = 3600000,
	 .reloadable = true,
	 .help = "Most between probes of what has failed for long"},
	{.name = "probe.jitter",
	 .type = SP_CONF_INT,
	 .offset = AT(probe.jitter_percent),
	 .def = "20",
	 .min = 0,
	 .max = 100,
	 .unit = "percent",
	 .reloadable = true,
	 .help = "By how much of it an interval is made shorter or longer, at random"},
	{.name = "probe.concurrency",
	 .type = SP_CONF_INT,
	 .offset = AT(probe.concurrency),
	 .def = "256",
	 .min = 1,
	 .max = 10000,
	 .unit = "probes",
	 .reloadable = true,
	 .help = "Probes at once; further ones wait"},
	{.name = "probe.ca_file",
	 .type = SP_CONF_PATH,
	 .offset = AT(probe.ca_file),
	 .reloadable = true,
	 .example = "/etc/sallyport/probe-ca.pem",
	 .help = "Authorities that external targets and controls must be certified by; "
		 "unset: the system's"},
	{.name = "controls",
	 .type = SP_CONF_STRINGS,
	 .offset = AT(controls),
	 .max = 8,
	 .reloadable = true,
	 .example = "https://www.debian.org/",
	 .help = "URLs looked at directly, which do not depend on the fleet: with none "
		 "of them in reach, this place is cut off and has no vote; unset: as "
		 "the fleet says"},
	{.name = "admin.listen",
	 .type = SP_CONF_ADDRESS,
	 .offset = AT(admin.listen),
	 .example = "127.0.0.1:9323",
	 .help = "Private address of /metrics, /livez and /readyz; unset: none"},
	{.name = "log.level",
	 .type = SP_CONF_ENUM,
	 .offset = AT(log.level),
	 .def = "info",
	 .words = levels,
	 .reloadable = true,
	 .help = "Least level that is written"},
	{.name = "log.format",
	 .type = SP_CONF_ENUM,
	 .offset = AT(log.format),
	 .def = "logfmt",
	 .words = formats,
	 .reloadable = true,
	 .help = "Form of a line"},
};

static bool check(const void *conf, char *why, size_t cap)
{
	const struct hck_config *c = conf;
	struct sp_target t;
	if (c->control.router.n != c->control.publisher.n) {
		snprintf(why, cap,
			 "control.router and control.publisher: as many of one as of the "
			 "other");
		return false;
	}
	for (size_t i = 0; i < c->controls.n; i++)
		if (hck_url_target(c->controls.v[i], &t)) {
			snprintf(why, cap, "controls: %s is no http or https URL",
				 c->controls.v[i]);
			return false;
		}
	if (c->probe.interval_ms && c->probe.deadline_ms > 10 * c->probe.interval_ms) {
		snprintf(why, cap,
			 "probe.deadline is over ten times probe.interval: probes of one "
			 "node would stand still behind one that hangs");
		return false;
	}
	return true;
}

const struct sp_conf_table hck_config_table = {
	.title = "Sallyport health checker",
	.keys = keys,
	.n_keys = sizeof(keys) / sizeof(keys[0]),
	.struct_bytes = sizeof(struct hck_config),
	.check = check,
};
