#include "ctl/template.h"

#include <stdlib.h>
#include <string.h>

#include "ctl/describe.h"
#include "ctl/io.h"
#include "ctl/parse.h"
#include "ctl/sealed.h"
#include "ctl/verbs.h"
#include "lib/carrier.h"
#include "lib/text.h"

// What all configs begin with; --config-valid gives the end.
static int add_head(const struct ctl_call *call, json_t *o)
{
	const char *valid = ctl_has_option(call->verb, "config-valid")
				    ? ctl_get(call, "config-valid")
				    : NULL;
	uint64_t s;
	json_object_set_new(o, "format", json_integer(SP_FLEET_FORMAT));
	json_object_set_new(o, "revision",
			    json_pack("{s:i,s:i}", "epoch", 1, "sequence", 1));
	json_object_set_new(o, "issued", json_integer((json_int_t)call->now_s));
	if (!valid)
		return 0;
	if (ctl_parse_duration(valid, &s))
		return ctl_fail(call, EX_USAGE,
				"--config-valid %s: want a duration such as 25h or 30d",
				valid);
	json_object_set_new(o, "expires", json_integer((json_int_t)(call->now_s + s)));
	return 0;
}

// Takes `o`. Parsed and printed, so that what is given away is valid and canonical.
static int finish(const struct ctl_call *call, enum sp_signed_kind kind, json_t *o,
		  char **ret)
{
	struct ctl_config c = {0};
	char *text = json_dumps(o, 0);
	json_decref(o);
	if (!text)
		return ctl_fail(call, EX_OSERR, "out of memory");
	int code = ctl_config_parse(call, sp_signed_kind_word(kind), kind, text,
				    strlen(text), &c);
	free(text);
	if (code)
		return code;
	*ret = ctl_config_print(&c);
	ctl_config_done(&c);
	return *ret ? 0 : ctl_fail(call, EX_OSERR, "out of memory");
}

// ---- worker ----

static json_t *words(char *text)
{
	json_t *list = json_array();
	char *rest = NULL;
	for (char *w = strtok_r(text, "+", &rest); w; w = strtok_r(NULL, "+", &rest))
		json_array_append_new(list, json_string(w));
	return list;
}

// NAME[,LIMIT=N][,groups=A+B]
static int add_tier(const struct ctl_call *call, json_t *tiers, const char *spec)
{
	char *copy = ctl_text("%s", spec), *at = copy, *key, *value;
	json_t *tier = json_object();
	int code = 0;
	if (!ctl_parse_item(&at, &key, &value) || key)
		code = ctl_fail(call, EX_USAGE,
				"--tier %s: the tier's name stands first: "
				"NAME,max_streams=100",
				spec);
	const char *name = value;
	while (!code && ctl_parse_item(&at, &key, &value)) {
		uint64_t n;
		if (key && !strcmp(key, "groups"))
			json_object_set_new(tier, key, words(value));
		else if (key && !ctl_parse_number(value, INT64_MAX, true, &n))
			json_object_set_new(tier, key, json_integer((json_int_t)n));
		else
			code = ctl_fail(
				call, EX_USAGE,
				"--tier %s: want max_sessions=, max_streams=, "
				"max_flows=, rate_bps= with a number, or groups=A+B",
				spec);
	}
	if (!code && json_object_get(tiers, name))
		code = ctl_fail(call, EX_USAGE, "--tier %s: the tier %s is there already",
				spec, name);
	if (!code)
		json_object_set_new(tiers, name, tier);
	else
		json_decref(tier);
	free(copy);
	return code;
}

static void add_rules(const struct ctl_call *call, const char *word, json_t *rules)
{
	size_t at = 0;
	for (const char *rule; (rule = ctl_next(call, word, &at));) {
		char *text = ctl_text("%s %s", word, rule);
		json_array_append_new(rules, json_string(text));
		free(text);
	}
}

int ctl_template_worker(const struct ctl_call *call, json_t *pass_keys, json_t *members,
			char **ret)
{
	json_t *o = json_object(), *tiers = json_object(), *rules = json_array();
	size_t at = 0;
	int code = add_head(call, o);
	const char *group =
		ctl_has_option(call->verb, "group") ? ctl_get(call, "group") : NULL;
	if (group)
		json_object_set_new(o, "group", json_string(group));
	for (const char *spec; !code && (spec = ctl_next(call, "tier", &at));)
		code = add_tier(call, tiers, spec);
	if (!code && !json_object_size(tiers))
		code = add_tier(call, tiers, ctl_get(call, "tier"));
	add_rules(call, "deny", rules);
	add_rules(call, "allow", rules);
	json_object_set_new(o, "tiers", tiers);
	json_object_set_new(o, "exit_policy", rules);
	json_object_set_new(o, "pass_keys", pass_keys);
	if (members)
		json_object_set_new(o, "members", members);
	if (!code)
		return finish(call, SP_SIGNED_WORKER_CONFIG, o, ret);
	json_decref(o);
	return code;
}

char *ctl_first_tier(const struct ctl_call *call)
{
	size_t at = 0;
	const char *spec = ctl_next(call, "tier", &at);
	if (!spec)
		spec = ctl_get(call, "tier");
	return ctl_text("%.*s", (int)strcspn(spec, ","), spec);
}

// ---- client ----

int ctl_template_pin(const struct ctl_call *call, const char *value, char **ret)
{
	uint8_t pin[32];
	char text[65];
	if (sp_hex_decode(value, strlen(value), pin, sizeof(pin)) &&
	    sp_tls_pin_of_file(value, pin))
		return ctl_fail(
			call, EX_DATAERR,
			"pin=%s: neither 64 hexadecimal digits nor a PEM file with a "
			"certificate",
			value);
	*ret = ctl_text("%s", sp_hex_encode(pin, sizeof(pin), text, sizeof(text)));
	return 0;
}

static int add_public_key(const struct ctl_call *call, json_t *exit, const char *value)
{
	uint8_t key[32];
	char text[SP_KEY_TEXT_MAX];
	int code = ctl_public_key(call, "--exit: key", value, SP_KEY_WORKER, key);
	if (!code)
		json_object_set_new(
			exit, "public_key",
			json_string(sp_key_format(SP_KEY_WORKER, false, key, text)));
	return code;
}

// tls= or tcp= begins a carrier; server_name=, pin= and ca_file= are of the last one.
static int add_exit_item(const struct ctl_call *call, json_t *exit, const char *key,
			 const char *value)
{
	json_t *carriers = json_object_get(exit, "carriers");
	json_t *last = json_array_get(carriers, json_array_size(carriers) - 1);
	if (!strcmp(key, "key"))
		return add_public_key(call, exit, value);
	if (!strcmp(key, "name") || !strcmp(key, "region") || !strcmp(key, "home_id")) {
		json_object_set_new(exit, key, json_string(value));
		return 0;
	}
	if (!strcmp(key, "tls") || !strcmp(key, "tcp")) {
		json_array_append_new(
			carriers, json_pack("{s:s,s:s}", "kind", key, "address", value));
		return 0;
	}
	bool pin = !strcmp(key, "pin");
	if (!pin && strcmp(key, "server_name") && strcmp(key, "ca_file"))
		return ctl_fail(call, EX_USAGE,
				"--exit: unknown %s=; known are name=, key=, region=, "
				"home_id=, tls=, tcp=, server_name=, pin=, ca_file=",
				key);
	if (!last)
		return ctl_fail(call, EX_USAGE,
				"--exit: %s= stands behind the tls= that it is for", key);
	char *text = NULL;
	int code = pin ? ctl_template_pin(call, value, &text) : 0;
	if (!code)
		json_object_set_new(last, pin ? "pin_sha256" : key,
				    json_string(pin ? text : value));
	free(text);
	return code;
}

static int add_exit(const struct ctl_call *call, json_t *exits, const char *spec)
{
	char *copy = ctl_text("%s", spec), *at = copy, *key, *value;
	json_t *exit = json_pack("{s:[]}", "carriers");
	int code = 0;
	while (!code && ctl_parse_item(&at, &key, &value))
		code = key ? add_exit_item(call, exit, key, value)
			   : ctl_fail(call, EX_USAGE,
				      "--exit %s: \"%s\" is no KEY=VALUE; write for "
				      "example "
				      "name=a,key=worker.pub,tls=192.0.2.1:443,pin=cert."
				      "pem",
				      spec, value);
	json_array_append_new(exits, exit);
	free(copy);
	return code;
}

int ctl_template_client(const struct ctl_call *call, json_t *exits, char **ret)
{
	json_t *o = json_object();
	int code = add_head(call, o);
	json_object_set_new(o, "exits", exits);
	if (!code)
		return finish(call, SP_SIGNED_CLIENT_CONFIG, o, ret);
	json_decref(o);
	return code;
}

// ---- config init ----

// The --exit options; *ret is the caller's in every case.
static int add_exits(const struct ctl_call *call, json_t **ret)
{
	size_t at = 0;
	int code = 0;
	*ret = json_array();
	for (const char *spec; !code && (spec = ctl_next(call, "exit", &at));)
		code = add_exit(call, *ret, spec);
	return code;
}

static int add_pass_keys(const struct ctl_call *call, json_t **ret)
{
	size_t at = 0;
	int code = 0;
	*ret = json_array();
	for (const char *value; !code && (value = ctl_next(call, "pass-key", &at));) {
		uint8_t key[32];
		char text[SP_KEY_TEXT_MAX];
		code = ctl_public_key(call, "--pass-key", value, SP_KEY_SIGNING, key);
		if (!code)
			json_array_append_new(
				*ret, json_string(sp_key_format(SP_KEY_SIGNING, false,
								key, text)));
	}
	if (code || json_array_size(*ret))
		return code;
	return ctl_fail(call, EX_USAGE,
			"--pass-key FILE is missing: whose signature on passes holds");
}

static int init_worker(const struct ctl_call *call, char **ret)
{
	json_t *keys, *members = NULL;
	int code = add_pass_keys(call, &keys);
	if (!code)
		code = add_exits(call, &members);
	if (!code && json_array_size(members))
		return ctl_template_worker(call, keys, members, ret);
	json_decref(members);
	if (!code)
		return ctl_template_worker(call, keys, NULL, ret);
	json_decref(keys);
	return code;
}

static int init_client(const struct ctl_call *call, char **ret)
{
	json_t *exits;
	int code = add_exits(call, &exits);
	if (!code && !json_array_size(exits))
		code = ctl_fail(call, EX_USAGE,
				"--exit is missing: name=a,key=worker.pub,"
				"tls=192.0.2.1:443,pin=cert.pem");
	if (!code)
		return ctl_template_client(call, exits, ret);
	json_decref(exits);
	return code;
}

int ctl_config_init(struct ctl_call *call)
{
	const char *kind = call->args[0], *path = ctl_get(call, "output");
	char *text = NULL;
	int code;
	if (!strcmp(kind, "worker"))
		code = init_worker(call, &text);
	else if (!strcmp(kind, "client"))
		code = init_client(call, &text);
	else
		code = ctl_fail(call, EX_USAGE, "config init %s: want worker or client",
				kind);
	if (!code && path)
		code = ctl_write(call, path, text, strlen(text), 0644,
				 ctl_has(call, "force"));
	else if (!code)
		fputs(text, call->out);
	free(text);
	return code;
}
