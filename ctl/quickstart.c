// quickstart: a whole small fleet in one folder, a subfolder per machine.
#include "ctl/quickstart.h"

#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "ctl/cert.h"
#include "ctl/describe.h"
#include "ctl/io.h"
#include "ctl/keys.h"
#include "ctl/out.h"
#include "ctl/parse.h"
#include "ctl/pass.h"
#include "ctl/seal.h"
#include "ctl/template.h"
#include "ctl/verbs.h"
#include "lib/fleet.h"

#define CERT_DAYS 365

// ---- what --worker says ----

static int bad_worker(const struct ctl_call *call, const char *spec, const char *what)
{
	return ctl_fail(call, EX_USAGE,
			"--worker %s: %s; write for example 192.0.2.1:443,name=a or "
			"tls=192.0.2.1:443@0.0.0.0:8443",
			spec, what);
}

static bool set_name(char *ret, const char *value)
{
	if (!sp_fleet_name_is_valid(value))
		return false;
	strcpy(ret, value);
	return true;
}

// Where a worker listens unless it is said: the same address on loopback, else every
// address of the family.
static void default_listen(const struct sp_target *dial, struct sp_target *ret)
{
	static const uint8_t one[16] = {[15] = 1};
	*ret = *dial;
	if (dial->kind == SP_TARGET_IPV4 && dial->v4[0] == 127)
		return;
	if (dial->kind == SP_TARGET_IPV6) {
		if (memcmp(dial->v6, one, 16))
			memset(ret->v6, 0, 16);
		return;
	}
	*ret = (struct sp_target){.kind = SP_TARGET_IPV4, .port = dial->port};
}

// DIAL[@LISTEN]
static bool add_carrier(struct ctl_quick_worker *w, enum sp_carrier_kind kind,
			char *value)
{
	struct ctl_quick_carrier *c = &w->carriers[w->n_carriers];
	char *listen = strchr(value, '@');
	if (w->n_carriers == CTL_QUICK_CARRIERS_MAX)
		return false;
	if (listen)
		*listen++ = '\0';
	c->kind = kind;
	if (sp_target_parse(value, &c->dial) || !c->dial.port)
		return false;
	if (!listen)
		default_listen(&c->dial, &c->listen);
	else if (sp_target_parse(listen, &c->listen) || !c->listen.port)
		return false;
	w->n_carriers++;
	return true;
}

static bool take_item(struct ctl_quick_worker *w, enum sp_carrier_kind kind,
		      const char *key, char *value)
{
	if (!key || !strcmp(key, "tls") || !strcmp(key, "tcp")) {
		if (key)
			kind = key[1] == 'l' ? SP_CARRIER_TLS : SP_CARRIER_TCP;
		return add_carrier(w, kind, value);
	}
	if (!strcmp(key, "name"))
		return set_name(w->name, value);
	if (!strcmp(key, "region"))
		return set_name(w->region, value);
	if (!strcmp(key, "admin"))
		return !sp_target_parse(value, &w->admin) && w->admin.port;
	return false;
}

static int parse_worker(const struct ctl_call *call, const char *spec,
			enum sp_carrier_kind kind, size_t index,
			struct ctl_quick_worker *w)
{
	char *copy = ctl_text("%s", spec), *at = copy, *key, *value;
	const char *wrong = NULL;
	char item[64];
	snprintf(w->name, sizeof(w->name), "w%zu", index + 1);
	while (!wrong && ctl_parse_item(&at, &key, &value)) {
		snprintf(item, sizeof(item), "\"%.50s\" is wrong", key ? key : value);
		if (!take_item(w, kind, key, value))
			wrong = item;
	}
	free(copy);
	if (!wrong && !w->n_carriers)
		wrong = "no address to dial";
	return wrong ? bad_worker(call, spec, wrong) : 0;
}

int ctl_quick_workers(const struct ctl_call *call, struct ctl_quick *q)
{
	const char *word = ctl_get(call, "carrier");
	enum sp_carrier_kind kind;
	size_t at = 0;
	if (sp_carrier_kind_parse(word, &kind))
		return ctl_fail(call, EX_USAGE, "--carrier %s: want tls or tcp", word);
	for (const char *spec; (spec = ctl_next(call, "worker", &at));) {
		if (q->n_workers == CTL_QUICK_WORKERS_MAX)
			return ctl_fail(call, EX_USAGE, "--worker: at most %d",
					CTL_QUICK_WORKERS_MAX);
		struct ctl_quick_worker *w = &q->workers[q->n_workers];
		int code = parse_worker(call, spec, kind, q->n_workers, w);
		for (size_t i = 0; !code && i < q->n_workers; i++)
			if (!strcmp(q->workers[i].name, w->name))
				code = bad_worker(call, spec, "a name stands twice");
		if (code)
			return code;
		q->n_workers++;
	}
	return 0;
}

// ---- files ----

static int write_text(const struct ctl_quick *q, const char *folder, const char *name,
		      const char *text, mode_t mode)
{
	char *path = ctl_text("%s/%s/%s", q->dir, folder, name);
	int code = ctl_write(q->call, path, text, strlen(text), mode, false);
	free(path);
	return code;
}

static int make_folder(const struct ctl_quick *q, const char *folder)
{
	char *path = ctl_text("%s/%s", q->dir, folder);
	int code = ctl_make_folder(q->call, path, 0700);
	free(path);
	return code;
}

static int write_keys(const struct ctl_quick *q, const char *folder, const char *name,
		      const struct ctl_keypair *k)
{
	char *path = ctl_text("%s/%s/%s", q->dir, folder, name);
	int code = ctl_keypair_write(q->call, k, path, false);
	free(path);
	return code;
}

// Signs a text to a file of a folder.
static int seal(const struct ctl_quick *q, const char *folder, const char *name,
		enum sp_signed_kind kind, const char *text)
{
	char *path = ctl_text("%s/%s/%s", q->dir, folder, name);
	int code = ctl_seal(q->call, kind, q->signing.secret, text, strlen(text), path,
			    false);
	free(path);
	return code;
}

// ---- the worker's folder ----

static bool has_tls(const struct ctl_quick_worker *w)
{
	for (size_t i = 0; i < w->n_carriers; i++)
		if (w->carriers[i].kind == SP_CARRIER_TLS)
			return true;
	return false;
}

// The certificate is for the name that clients say, else for the address they dial.
static int write_certificate(const struct ctl_quick *q, struct ctl_quick_worker *w)
{
	char host[SP_TARGET_TEXT_MAX], *cert, *key;
	char *folder = ctl_text("%s/tls", w->folder);
	const char *name = ctl_get(q->call, "server-name");
	size_t i = 0;
	while (w->carriers[i].kind != SP_CARRIER_TLS)
		i++;
	sp_target_format(&w->carriers[i].dial, host, sizeof(host));
	*strrchr(host, ':') = '\0';
	if (!name)
		name = host[0] == '[' ? strtok(host, "[]") : host;
	int code = make_folder(q, folder);
	if (!code && ctl_cert_make(name, q->call->now_s, CERT_DAYS, &cert, &key))
		code = ctl_fail(q->call, EX_SOFTWARE,
				"no certificate could be made for \"%s\"", name);
	else if (!code) {
		char *path = ctl_text("%s/%s/fullchain.pem", q->dir, folder);
		code = write_text(q, folder, "fullchain.pem", cert, 0644);
		if (!code)
			code = write_text(q, folder, "privkey.pem", key, 0600);
		if (!code)
			code = ctl_template_pin(q->call, path, &w->pin);
		free(path);
		free(cert);
		sodium_memzero(key, strlen(key));
		free(key);
	}
	free(folder);
	return code;
}

static int write_worker(const struct ctl_quick *q, struct ctl_quick_worker *w)
{
	int code = make_folder(q, w->folder);
	if (!code)
		code = write_keys(q, w->folder, "worker.key", &w->key);
	if (!code)
		code = write_keys(q, w->folder, "route.key", &q->route);
	if (!code && has_tls(w))
		code = write_certificate(q, w);
	return code;
}

static int write_worker_config(const struct ctl_quick *q,
			       const struct ctl_quick_worker *w)
{
	int code = seal(q, w->folder, "worker.signed", SP_SIGNED_WORKER_CONFIG,
			q->worker_json);
	if (code)
		return code;
	char *yaml = ctl_quick_worker_yaml(q, w);
	code = write_text(q, w->folder, "worker.yaml", yaml, 0644);
	free(yaml);
	return code;
}

// ---- operator and client ----

static json_t *describe_exit(const struct ctl_quick *q, const struct ctl_quick_worker *w)
{
	char text[SP_TARGET_TEXT_MAX], key[SP_KEY_TEXT_MAX];
	const char *name = ctl_get(q->call, "server-name");
	json_t *carriers = json_array();
	for (size_t i = 0; i < w->n_carriers; i++) {
		const struct ctl_quick_carrier *c = &w->carriers[i];
		sp_target_format(&c->dial, text, sizeof(text));
		json_t *o = json_pack("{s:s,s:s}", "kind", sp_carrier_kind_word(c->kind),
				      "address", text);
		if (c->kind == SP_CARRIER_TLS) {
			json_object_set_new(o, "pin_sha256", json_string(w->pin));
			if (name)
				json_object_set_new(o, "server_name", json_string(name));
		}
		json_array_append_new(carriers, o);
	}
	json_t *o = json_pack("{s:s,s:s,s:o}", "name", w->name, "public_key",
			      sp_key_format(SP_KEY_WORKER, false, w->key.public_key, key),
			      "carriers", carriers);
	if (*w->region)
		json_object_set_new(o, "region", json_string(w->region));
	return o;
}

// Everything that the command line may have wrong, before a folder is made.
static int prepare(struct ctl_quick *q)
{
	char text[SP_KEY_TEXT_MAX], *tier = ctl_first_tier(q->call);
	sp_key_format(SP_KEY_SIGNING, false, q->signing.public_key, text);
	int code = ctl_quick_workers(q->call, q);
	if (!code)
		code = ctl_quick_check(q);
	if (!code)
		code = ctl_template_worker(q->call, json_pack("[s]", text), NULL,
					   &q->worker_json);
	if (!code)
		code = ctl_pass_fill(q->call, tier, q->device.public_key, &q->pass);
	free(tier);
	return code;
}

static int write_operator(struct ctl_quick *q)
{
	int code = make_folder(q, "operator");
	if (!code)
		code = write_keys(q, "operator", "signing.key", &q->signing);
	if (!code)
		code = write_keys(q, "operator", "route.key", &q->route);
	return code;
}

static json_t *describe_exits(const struct ctl_quick *q)
{
	json_t *exits = json_array();
	for (size_t i = 0; i < q->n_workers; i++)
		json_array_append_new(exits, describe_exit(q, &q->workers[i]));
	return exits;
}

// Now that every worker has its keys and certificate, each is told of the others.
static int write_worker_configs(struct ctl_quick *q)
{
	char text[SP_KEY_TEXT_MAX];
	int code = 0;
	if (q->n_workers > 1) {
		sp_key_format(SP_KEY_SIGNING, false, q->signing.public_key, text);
		free(q->worker_json);
		q->worker_json = NULL;
		code = ctl_template_worker(q->call, json_pack("[s]", text),
					   describe_exits(q), &q->worker_json);
	}
	if (!code)
		code = write_text(q, "operator", "worker.json", q->worker_json, 0644);
	for (size_t i = 0; !code && i < q->n_workers; i++)
		code = write_worker_config(q, &q->workers[i]);
	return code;
}

static int write_client(struct ctl_quick *q)
{
	int code = ctl_template_client(q->call, describe_exits(q), &q->exits_json);
	if (!code)
		code = write_text(q, "operator", "exits.json", q->exits_json, 0644);
	if (!code)
		code = make_folder(q, "client");
	if (!code)
		code = write_keys(q, "client", "device.key", &q->device);
	if (!code)
		code = seal(q, "client", "exits.signed", SP_SIGNED_CLIENT_CONFIG,
			    q->exits_json);
	if (code)
		return code;
	char *path = ctl_text("%s/client/device.pass", q->dir);
	code = ctl_pass_write(q->call, &q->pass, q->signing.secret, path, false);
	free(path);
	char *yaml = code ? NULL : ctl_quick_client_yaml(q);
	if (yaml)
		code = write_text(q, "client", "client.yaml", yaml, 0644);
	free(yaml);
	return code;
}

static int report(const struct ctl_quick *q)
{
	json_t *workers = json_array();
	for (size_t i = 0; i < q->n_workers; i++) {
		const struct ctl_quick_worker *w = &q->workers[i];
		char home[17], *run = ctl_text("sallyport-worker -c %s/%s/worker.yaml",
					       q->dir, w->folder);
		snprintf(home, sizeof(home), "%016llx",
			 (unsigned long long)sp_fleet_home_id(w->key.public_key));
		json_array_append_new(workers, json_pack("{s:s,s:s,s:s}", "name", w->name,
							 "home_id", home, "run", run));
		free(run);
	}
	char *run = ctl_text("sallyport -c %s/client/client.yaml up", q->dir);
	json_t *o =
		json_pack("{s:s,s:o,s:{s:s,s:s}}", "folder", q->dir, "workers", workers,
			  "client", "run", run, "socks", ctl_get(q->call, "socks"));
	free(run);
	return ctl_out(q->call, o);
}

static void quick_done(struct ctl_quick *q)
{
	for (size_t i = 0; i < q->n_workers; i++) {
		free(q->workers[i].folder);
		free(q->workers[i].pin);
	}
	free(q->worker_json);
	free(q->exits_json);
	sodium_memzero(q, sizeof(*q));
	free(q);
}

int ctl_quickstart(struct ctl_call *call)
{
	struct ctl_quick *q = calloc(1, sizeof(*q));
	if (!q)
		return ctl_fail(call, EX_OSERR, "out of memory");
	q->call = call;
	q->dir = call->args[0];
	ctl_keypair_make(SP_KEY_SIGNING, &q->signing);
	ctl_keypair_make(SP_KEY_ROUTE, &q->route);
	ctl_keypair_make(SP_KEY_DEVICE, &q->device);
	int code = prepare(q);
	if (!code)
		code = ctl_make_folder(call, q->dir, 0700);
	if (!code)
		code = write_operator(q);
	for (size_t i = 0; !code && i < q->n_workers; i++) {
		struct ctl_quick_worker *w = &q->workers[i];
		w->folder = ctl_text("worker-%s", w->name);
		ctl_keypair_make(SP_KEY_WORKER, &w->key);
		code = write_worker(q, w);
	}
	if (!code)
		code = write_worker_configs(q);
	if (!code)
		code = write_client(q);
	if (!code)
		code = report(q);
	quick_done(q);
	return code;
}
