// The client's table of keys: sound, safe by default, and strict about where it listens.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "client/config.h"

#define REQUIRED "keys.fleet: [x]\npass: p\nexits: e\n"

static struct sp_conf_errors errs;

static struct cli_config *parse(const char *text)
{
	memset(&errs, 0, sizeof(errs));
	return sp_conf_parse(&cli_config_table, "test.yaml", "/folder", text,
			     strlen(text), &errs);
}

static void every_default_and_example_is_valid(void **state)
{
	char why[SP_CONF_ERROR_MAX] = "";
	(void)state;
	int err = sp_conf_check_table(&cli_config_table, why, sizeof(why));
	if (err)
		print_error("%s\n", why);
	assert_int_equal(err, 0);
}

static void by_default_it_listens_on_loopback_alone(void **state)
{
	(void)state;
	struct cli_config *c = parse(REQUIRED);
	assert_non_null(c);
	assert_int_equal(c->socks.listen.n, 2);
	assert_int_equal(c->socks.listen.v[0].v4[0], 127);
	assert_int_equal(c->http.listen.n, 0);
	assert_false(c->allow_remote);
	cli_config_free(c);
}

static void trusted_keys_are_files_beside_the_config_or_the_keys_themselves(void **state)
{
	(void)state;
	struct cli_config *c = parse("keys.fleet: [a.pub, /b.pub, sallyport-signing-"
				     "public:x]\npass: p\nexits: e\n");
	assert_non_null(c);
	assert_string_equal(c->keys.fleet.v[0], "/folder/a.pub");
	assert_string_equal(c->keys.fleet.v[1], "/b.pub");
	assert_string_equal(c->keys.fleet.v[2], "sallyport-signing-public:x");
	cli_config_free(c);
}

static void another_address_needs_allow_remote(void **state)
{
	static const char *const open[] = {
		"socks.listen: ['0.0.0.0:1080']\n",
		"socks.listen: ['[::]:1080']\n",
		"http.listen: ['192.0.2.1:1']\n",
		"socks.listen: ['127.0.0.1:1080', '10.0.0.1:1080']\n",
	};
	char text[256];
	(void)state;
	for (size_t i = 0; i < sizeof(open) / sizeof(open[0]); i++) {
		snprintf(text, sizeof(text), REQUIRED "%s", open[i]);
		assert_null(parse(text));
		assert_non_null(strstr(errs.text[0], "allow_remote"));
		snprintf(text, sizeof(text), REQUIRED "%sallow_remote: true\n", open[i]);
		struct cli_config *c = parse(text);
		assert_non_null(c);
		cli_config_free(c);
	}
}

static void a_name_cannot_be_listened_on(void **state)
{
	(void)state;
	assert_null(parse(REQUIRED "socks.listen: ['localhost:1080']\n"));
	assert_non_null(strstr(errs.text[0], "localhost:1080"));
}

static void nowhere_to_listen_is_an_error(void **state)
{
	(void)state;
	assert_null(parse(REQUIRED "socks.listen: []\n"));
	assert_int_equal(errs.n, 1);
}

static void the_control_socket_lies_in_the_state_folder_unless_named(void **state)
{
	char path[256];
	(void)state;
	struct cli_config *c = parse(REQUIRED "state_dir: s\n");
	assert_non_null(c);
	assert_string_equal(cli_config_control(c, path, sizeof(path)),
			    "/folder/s/control.sock");
	cli_config_free(c);
	c = parse(REQUIRED "control: /run/c\n");
	assert_non_null(c);
	assert_string_equal(cli_config_control(c, path, sizeof(path)), "/run/c");
	cli_config_free(c);
}

static void a_control_path_that_no_socket_can_have_is_an_error(void **state)
{
	char text[512];
	(void)state;
	snprintf(text, sizeof(text), REQUIRED "state_dir: /%0*d\n", 120, 7);
	assert_null(parse(text));
	assert_non_null(strstr(errs.text[0], "control"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_default_and_example_is_valid),
		cmocka_unit_test(by_default_it_listens_on_loopback_alone),
		cmocka_unit_test(
			trusted_keys_are_files_beside_the_config_or_the_keys_themselves),
		cmocka_unit_test(another_address_needs_allow_remote),
		cmocka_unit_test(a_name_cannot_be_listened_on),
		cmocka_unit_test(nowhere_to_listen_is_an_error),
		cmocka_unit_test(
			the_control_socket_lies_in_the_state_folder_unless_named),
		cmocka_unit_test(a_control_path_that_no_socket_can_have_is_an_error),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
