// A table with every type, shared by the unit test and the fuzz target of lib/conf.
#ifndef CONF_SAMPLE_H
#define CONF_SAMPLE_H

#include <stddef.h>
#include <string.h>

#include "lib/conf.h"

struct sample_exit {
	char *name;
	int carrier;
	struct sp_target address;
	int64_t weight;
};
struct sample {
	bool verbose;
	int64_t streams;
	int64_t idle_ms;
	int64_t memory_bytes;
	char *label;
	char *certificate;
	char *key;
	struct sp_target admin;
	int level;
	struct sp_conf_strings groups;
	struct sp_conf_addresses resolvers;
	struct sp_conf_tables exits; // struct sample_exit
};

static const char *const sample_carriers[] = {"tls", "tcp", NULL};
static const char *const sample_levels[] = {"debug", "info", "warn", "error", NULL};

#define E(field) offsetof(struct sample_exit, field)
static const struct sp_conf_key sample_exit_keys[] = {
	{.name = "name",
	 .type = SP_CONF_STRING,
	 .offset = E(name),
	 .required = true,
	 .example = "a",
	 .min = 1,
	 .max = 20,
	 .help = "what it is called"},
	{.name = "carrier",
	 .type = SP_CONF_ENUM,
	 .offset = E(carrier),
	 .def = "tls",
	 .words = sample_carriers,
	 .help = "how it is reached"},
	{.name = "address",
	 .type = SP_CONF_ADDRESS,
	 .offset = E(address),
	 .required = true,
	 .example = "192.0.2.1:443",
	 .help = "where it listens"},
	{.name = "weight",
	 .type = SP_CONF_INT,
	 .offset = E(weight),
	 .def = "1",
	 .min = -5,
	 .max = 100,
	 .help = "share of new sessions"},
};
#undef E

static const struct sp_conf_table sample_exit_table = {
	.title = "an exit",
	.keys = sample_exit_keys,
	.n_keys = sizeof(sample_exit_keys) / sizeof(sample_exit_keys[0]),
	.struct_bytes = sizeof(struct sample_exit),
};

#define S(field) offsetof(struct sample, field)
static const struct sp_conf_key sample_keys[] = {
	{.name = "verbose",
	 .type = SP_CONF_BOOL,
	 .offset = S(verbose),
	 .def = "false",
	 .reloadable = true,
	 .help = "say more"},
	{.name = "limits.streams",
	 .type = SP_CONF_INT,
	 .offset = S(streams),
	 .def = "1000",
	 .min = 1,
	 .max = 100000,
	 .unit = "streams",
	 .help = "streams of a session"},
	{.name = "limits.idle",
	 .type = SP_CONF_DURATION,
	 .offset = S(idle_ms),
	 .def = "10m",
	 .min = 1000,
	 .max = 90000000,
	 .reloadable = true,
	 .help = "how long nothing may happen"},
	{.name = "limits.memory",
	 .type = SP_CONF_SIZE,
	 .offset = S(memory_bytes),
	 .def = "64M",
	 .help = "memory for streams"},
	{.name = "label",
	 .type = SP_CONF_STRING,
	 .offset = S(label),
	 .max = 32,
	 .reloadable = true,
	 .help = "free text"},
	{.name = "tls.certificate",
	 .type = SP_CONF_PATH,
	 .offset = S(certificate),
	 .required = true,
	 .example = "/etc/sallyport/cert.pem",
	 .help = "PEM file with the chain"},
	{.name = "tls.key",
	 .type = SP_CONF_PATH,
	 .offset = S(key),
	 .def = "key.pem",
	 .help = "PEM file with its key"},
	{.name = "admin.listen",
	 .type = SP_CONF_ADDRESS,
	 .offset = S(admin),
	 .def = "127.0.0.1:9100",
	 .help = "private listener"},
	{.name = "log.level",
	 .type = SP_CONF_ENUM,
	 .offset = S(level),
	 .def = "info",
	 .words = sample_levels,
	 .reloadable = true,
	 .help = "least level that is logged"},
	{.name = "groups",
	 .type = SP_CONF_STRINGS,
	 .offset = S(groups),
	 .def = "free, paid",
	 .max = 4,
	 .help = "groups that may use it"},
	{.name = "resolvers",
	 .type = SP_CONF_ADDRESSES,
	 .offset = S(resolvers),
	 .def = "",
	 .example = "192.0.2.53:53",
	 .help = "name servers"},
	{.name = "exits",
	 .type = SP_CONF_TABLES,
	 .offset = S(exits),
	 .items = &sample_exit_table,
	 .max = 3,
	 .help = "chain of exits"},
};
#undef S

static bool sample_check(const void *conf, char *why, size_t cap)
{
	const struct sample *s = conf;
	if (!s->label || strcmp(s->label, "impossible"))
		return true;
	snprintf(why, cap, "label: \"impossible\" is not possible; choose another");
	return false;
}

static const struct sp_conf_table sample_table = {
	.title = "Sample",
	.keys = sample_keys,
	.n_keys = sizeof(sample_keys) / sizeof(sample_keys[0]),
	.struct_bytes = sizeof(struct sample),
	.check = sample_check,
};

#endif
