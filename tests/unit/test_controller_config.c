#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "controller/config.h"

static const char base[] = "fleet: demo\nstate_dir: s\n"
			   "keys:\n  signing: a\n  control: b\n  route: c\n";

static struct con_config *parse(const char *more, struct sp_conf_errors *errs)
{
	char text[2048];
	snprintf(text, sizeof(text), "%s%s", base, more);
	return sp_conf_parse(&con_config_table, "controller.yaml", "/etc/x", text,
			     strlen(text), errs);
}

static void every_default_and_example_holds(void **state)
{
	char why[300] = "";
	(void)state;
	int err = sp_conf_check_table(&con_config_table, why, sizeof(why));
	assert_string_equal(why, "");
	assert_int_equal(err, 0);
}

static void the_least_file_loads_with_the_defaults(void **state)
{
	struct sp_conf_errors errs = {0};
	char buf[CON_ENDPOINT_MAX];
	(void)state;
	struct con_config *c = parse("", &errs);
	assert_non_null(c);
	assert_string_equal(c->keys.signing, "/etc/x/a");
	assert_string_equal(c->api.socket, "/run/sallyport/controller.sock");
	assert_string_equal(con_config_endpoint(&c->bus.router, buf),
			    "tcp://0.0.0.0:7201");
	sp_conf_free(&con_config_table, c);
}

static void what_could_never_work_is_refused_with_its_key(void **state)
{
	static const struct {
		const char *more, *want;
	} cases[] = {
		{"bus: {enrol: \"0.0.0.0:7203\"}\n", "advertise.router"},
		{"bus: {router: \"name.example:1\"}\n", "bus.router"},
		{"endpoint: {listen: \"0.0.0.0:8443\"}\n", "endpoint.certificate"},
		{"endpoint: {listen: \"127.0.0.1:8443\", key: k}\n", "endpoint.key"},
		{"endpoint: {certificate: c, key: k}\n", "endpoint.listen"},
		{"redis: {address: \"unix:redis.sock\"}\n", "redis.address"},
		{"colour: red\n", "colour"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct sp_conf_errors errs = {0};
		assert_null(parse(cases[i].more, &errs));
		assert_int_equal(errs.n, 1);
		if (!strstr(errs.text[0], cases[i].want))
			fail_msg("%s: %s", cases[i].want, errs.text[0]);
	}
}

static void an_advertised_address_stands_for_a_bound_one(void **state)
{
	struct sp_conf_errors errs = {0};
	char buf[CON_ENDPOINT_MAX];
	(void)state;
	struct con_config *c = parse("bus: {enrol: \"0.0.0.0:7203\"}\n"
				     "advertise: {router: \"192.0.2.1:1\", publisher: "
				     "\"con.example:2\", enrol: \"[2001:db8::1]:3\"}\n",
				     &errs);
	assert_non_null(c);
	con_config_endpoint(con_config_advertised(&c->advertise.enrol, &c->bus.enrol),
			    buf);
	assert_string_equal(buf, "tcp://[2001:db8::1]:3");
	sp_conf_free(&con_config_table, c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_default_and_example_holds),
		cmocka_unit_test(the_least_file_loads_with_the_defaults),
		cmocka_unit_test(what_could_never_work_is_refused_with_its_key),
		cmocka_unit_test(an_advertised_address_stands_for_a_bound_one),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
