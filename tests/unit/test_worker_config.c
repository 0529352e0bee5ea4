#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "worker/config.h"

static const char base[] = "listen:\n  tcp: [\"127.0.0.1:7000\"]\n"
			   "keys:\n  static: s\n  route: r\n  fleet: [f]\n"
			   "config: w\n";

static struct wrk_config *parse(const char *text, struct sp_conf_errors *errs)
{
	return sp_conf_parse(&wrk_config_table, "worker.yaml", "/etc/x", text,
			     strlen(text), errs);
}

static void every_default_and_example_holds(void **state)
{
	char why[300] = "";
	(void)state;
	int err = sp_conf_check_table(&wrk_config_table, why, sizeof(why));
	assert_string_equal(why, "");
	assert_int_equal(err, 0);
}

static void the_least_file_loads_with_the_defaults(void **state)
{
	struct sp_conf_errors errs = {0};
	(void)state;
	struct wrk_config *c = parse(base, &errs);
	assert_non_null(c);
	assert_int_equal(c->limits.sessions, 4096);
	assert_int_equal(c->limits.stale_ms, 600000);
	assert_int_equal(c->limits.memory_bytes, 256 << 20);
	assert_string_equal(c->keys.secret, "/etc/x/s");
	assert_string_equal(c->keys.fleet.v[0], "/etc/x/f");
	assert_int_equal(c->listen.tcp.n, 1);
	assert_int_equal(c->listen.tcp.v[0].port, 7000);
	sp_conf_free(&wrk_config_table, c);
}

static void tls_without_certificate_or_cover_is_refused(void **state)
{
	struct sp_conf_errors errs = {0};
	char text[1024];
	(void)state;
	snprintf(text, sizeof(text), "listen:\n  tls: [\"0.0.0.0:443\"]\n%s",
		 base + strlen("listen:\n"));
	assert_null(parse(text, &errs));
	assert_non_null(strstr(errs.text[0], "tls.certificate"));
}

static void nowhere_to_listen_is_refused(void **state)
{
	struct sp_conf_errors errs = {0};
	(void)state;
	assert_null(parse(strstr(base, "keys:"), &errs));
	assert_non_null(strstr(errs.text[0], "listen"));
}

static void names_where_addresses_are_needed_are_refused_with_their_line(void **state)
{
	static const struct {
		const char *more, *want;
	} cases[] = {
		{"cover: site.example:80\n",
		 "worker.yaml:8: cover: site.example:80 is a name; want an address"},
		{"admin:\n  listen: localhost:9321\n",
		 "worker.yaml:9: admin.listen: localhost:9321 is a name; want an "
		 "address"},
	};
	struct sp_conf_errors errs = {0};
	char text[1024];
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		snprintf(text, sizeof(text), "%s%s", base, cases[i].more);
		assert_null(parse(text, &errs));
		assert_int_equal(errs.n, 1);
		assert_string_equal(errs.text[0], cases[i].want);
	}
}

static void keys_and_config_come_from_one_source(void **state)
{
	static const char listen[] = "listen:\n  tcp: [\"127.0.0.1:7000\"]\n";
	static const struct {
		const char *more, *want;
	} cases[] = {
		{"", "config or control.folder: nowhere to take a config from"},
		{"config: w\n", "config needs keys.static, keys.route and keys.fleet"},
		{"control:\n  folder: s\nconfig: w\n",
		 "config and control.folder are both set; keep one"},
		{"control:\n  folder: s\nkeys:\n  static: s\n",
		 "keys.static, keys.route and keys.fleet go with config"},
		{"control:\n  folder: s\nhome_id: \"0f1e2d3c4b5a6978\"\n",
		 "home_id goes with config"},
		{"control:\n  folder: s\n  router: [\"tcp://192.0.2.1:1\"]\n",
		 "control.router and control.publisher: as many"},
		{"config: w\nkeys:\n  static: s\n  route: r\n  fleet: [f]\n"
		 "agent:\n  listen: 127.0.0.1:1\n",
		 "agent.listen need control.folder"},
	};
	char text[1024];
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct sp_conf_errors errs = {0};
		snprintf(text, sizeof(text), "%s%s", listen, cases[i].more);
		assert_null(parse(text, &errs));
		assert_non_null(strstr(errs.text[0], cases[i].want));
	}
	struct sp_conf_errors errs = {0};
	snprintf(text, sizeof(text), "%scontrol:\n  folder: s\n", listen);
	struct wrk_config *c = parse(text, &errs);
	assert_non_null(c);
	assert_string_equal(c->control.folder, "/etc/x/s");
	sp_conf_free(&wrk_config_table, c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_default_and_example_holds),
		cmocka_unit_test(the_least_file_loads_with_the_defaults),
		cmocka_unit_test(tls_without_certificate_or_cover_is_refused),
		cmocka_unit_test(nowhere_to_listen_is_refused),
		cmocka_unit_test(
			names_where_addresses_are_needed_are_refused_with_their_line),
		cmocka_unit_test(keys_and_config_come_from_one_source),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
