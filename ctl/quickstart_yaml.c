#include <stdlib.h>
#include <string.h>

#include "ctl/io.h"
#include "ctl/quickstart.h"

// ---- checks ----

static int check_address(const struct ctl_call *call, const char *option)
{
	struct sp_target t;
	size_t at = 0;
	const char *value = ctl_next(call, option, &at);
	for (; value; value = ctl_next(call, option, &at))
		if (sp_target_parse(value, &t) || !t.port)
			return ctl_fail(call, EX_USAGE,
					"--%s %s: want HOST:PORT or [IPV6]:PORT", option,
					value);
	return 0;
}

// KEY=VALUE with a key such as limits.streams and a value of one line.
static int check_setting(const struct ctl_call *call, const char *option)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789_.";
	size_t at = 0;
	for (const char *s; (s = ctl_next(call, option, &at));) {
		size_t n = strspn(s, letters);
		bool plain = n && s[n] == '=' && s[n + 1];
		for (const char *p = s; plain && *p; p++)
			plain = (unsigned char)*p >= 0x20 && *p != 0x7f;
		if (!plain)
			return ctl_fail(
				call, EX_USAGE,
				"--%s %s: want KEY=VALUE, such as log.level=debug",
				option, s);
	}
	return 0;
}

int ctl_quick_check(const struct ctl_quick *q)
{
	static const char *const addresses[] = {"cover", "socks", "http", "dns"};
	static const char *const settings[] = {"worker-set", "client-set"};
	const char *name = ctl_get(q->call, "server-name");
	int code = 0;
	for (size_t i = 0; !code && i < 4; i++)
		code = check_address(q->call, addresses[i]);
	for (size_t i = 0; !code && i < 2; i++)
		code = check_setting(q->call, settings[i]);
	if (!code && name && !sp_name_is_valid(name, strlen(name)))
		code = ctl_fail(q->call, EX_USAGE, "--server-name %s: want a host name",
				name);
	return code;
}

// ---- YAML ----

static void put_listens(FILE *f, const struct ctl_quick_worker *w,
			enum sp_carrier_kind kind)
{
	char text[SP_TARGET_TEXT_MAX];
	const char *before = NULL;
	for (size_t i = 0; i < w->n_carriers; i++) {
		if (w->carriers[i].kind != kind)
			continue;
		if (!before)
			fprintf(f, "  %s: ", sp_carrier_kind_word(kind));
		fprintf(f, "%s\"%s\"", before ? before : "[",
			sp_target_format(&w->carriers[i].listen, text, sizeof(text)));
		before = ", ";
	}
	if (before)
		fputs("]\n", f);
}

static void put_settings(FILE *f, const struct ctl_call *call, const char *option)
{
	size_t at = 0;
	for (const char *s; (s = ctl_next(call, option, &at));) {
		size_t n = strcspn(s, "=");
		fprintf(f, "%.*s: %s\n", (int)n, s, s + n + 1);
	}
}

static void put_fleet_key(FILE *f, const struct ctl_quick *q)
{
	char text[SP_KEY_TEXT_MAX];
	fprintf(f, "  fleet: [\"%s\"]\n",
		sp_key_format(SP_KEY_SIGNING, false, q->signing.public_key, text));
}

static char *finish(FILE *f, char **text)
{
	if (!fclose(f) && *text)
		return *text;
	fputs("sallyportctl: out of memory\n", stderr);
	exit(EX_OSERR);
}

static FILE *begin(char **text, size_t *len, const char *program)
{
	FILE *f = open_memstream(text, len);
	if (!f)
		exit(EX_OSERR);
	fprintf(f, "# Written by sallyportctl quickstart. All keys: %s --help\n",
		program);
	return f;
}

char *ctl_quick_worker_yaml(const struct ctl_quick *q, const struct ctl_quick_worker *w)
{
	char *text, address[SP_TARGET_TEXT_MAX];
	size_t len, at = 0;
	FILE *f = begin(&text, &len, "sallyport-worker");
	fprintf(f, "node: \"%s\"\nlisten:\n", w->name);
	put_listens(f, w, SP_CARRIER_TLS);
	put_listens(f, w, SP_CARRIER_TCP);
	if (w->pin)
		fprintf(f,
			"tls:\n  certificate: \"tls/fullchain.pem\"\n"
			"  key: \"tls/privkey.pem\"\n"
			"# the web site that strangers see\ncover: \"%s\"\n",
			ctl_get(q->call, "cover"));
	fputs("keys:\n  static: \"worker.key\"\n  route: \"route.key\"\n", f);
	put_fleet_key(f, q);
	fputs("config: \"worker.signed\"\n", f);
	if (w->admin.kind)
		fprintf(f, "admin:\n  listen: \"%s\"\n",
			sp_target_format(&w->admin, address, sizeof(address)));
	if (ctl_has(q->call, "dns")) {
		const char *server = ctl_next(q->call, "dns", &at);
		fprintf(f, "dns:\n  servers: [\"%s\"", server);
		while ((server = ctl_next(q->call, "dns", &at)))
			fprintf(f, ", \"%s\"", server);
		fputs("]\n", f);
	}
	put_settings(f, q->call, "worker-set");
	return finish(f, &text);
}

char *ctl_quick_client_yaml(const struct ctl_quick *q)
{
	char *text;
	size_t len;
	FILE *f = begin(&text, &len, "sallyport");
	fprintf(f, "socks:\n  listen: [\"%s\"]\n", ctl_get(q->call, "socks"));
	if (ctl_has(q->call, "http"))
		fprintf(f, "http:\n  listen: [\"%s\"]\n", ctl_get(q->call, "http"));
	fputs("keys:\n  device: \"device.key\"\n", f);
	put_fleet_key(f, q);
	fputs("pass: \"device.pass\"\nexits: \"exits.signed\"\n", f);
	put_settings(f, q->call, "client-set");
	return finish(f, &text);
}
