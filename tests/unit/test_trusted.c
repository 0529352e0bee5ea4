#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <sodium.h>

#include "lib/file.h"
#include "lib/key.h"
#include "lib/trusted.h"

static char text_key[SP_KEY_TEXT_MAX];
static uint8_t public_key[32];

static int load(char *a, char *b, struct sp_signed_keys *ret, char *why)
{
	char *v[] = {a, b};
	struct sp_conf_strings list = {.v = v, .n = b ? 2 : 1};
	return sp_trusted_load("keys.fleet", "the operator's", &list, ret, why,
			       SP_WHY_MAX);
}

static void an_entry_is_a_key_or_a_file_with_one(void **state)
{
	char path[] = "/tmp/sp-trusted-XXXXXX", why[SP_WHY_MAX];
	struct sp_signed_keys keys = {0};
	int fd = mkstemp(path);
	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(write(fd, text_key, strlen(text_key)), strlen(text_key));
	close(fd);
	assert_int_equal(load(text_key, path, &keys, why), 0);
	assert_int_equal(keys.n, 1); // the same key twice is fine
	assert_memory_equal(keys.key[0].public_key, public_key, 32);
	unlink(path);
}

static void what_is_wrong_is_told_with_its_place_and_the_remedy(void **state)
{
	char why[SP_WHY_MAX], worker[SP_KEY_TEXT_MAX], missing[] = "/nowhere/a.pub";
	struct sp_signed_keys keys = {0};
	(void)state;
	sp_key_format(SP_KEY_WORKER, false, public_key, worker);
	assert_int_equal(load(text_key, missing, &keys, why), SP_E_CONFIG);
	assert_non_null(strstr(why, "keys.fleet: entry 2: "));
	assert_non_null(strstr(why, missing));
	assert_non_null(strstr(why, "; want the operator's"));
	assert_int_equal(load(worker, NULL, &keys, why), SP_E_CONFIG);
	assert_non_null(strstr(why, "entry 1: "));
}

static int make_key(void **state)
{
	uint8_t secret[crypto_sign_SECRETKEYBYTES];
	(void)state;
	if (sodium_init() < 0 || crypto_sign_keypair(public_key, secret))
		return -1;
	sp_key_format(SP_KEY_SIGNING, false, public_key, text_key);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_entry_is_a_key_or_a_file_with_one),
		cmocka_unit_test(what_is_wrong_is_told_with_its_place_and_the_remedy),
	};
	return cmocka_run_group_tests(tests, make_key, NULL);
}
