#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "lib/reason.h"

static const struct {
	int number;
	const char *word, *text;
} reasons[] = {
#define X(n, name, word, text) {n, word, text},
	SP_REASONS(X)
#undef X
};
#define N (sizeof(reasons) / sizeof(reasons[0]))

static void the_protocol_page_lists_every_reason_with_its_number(void **state)
{
	(void)state;
	static char page[1 << 20];
	FILE *f = fopen("proto/PROTOCOL.md", "r");
	assert_non_null(f);
	size_t n = fread(page, 1, sizeof(page) - 1, f);
	assert_true(n > 0 && n < sizeof(page) - 1);
	assert_int_equal(fclose(f), 0);
	for (size_t i = 0; i < N; i++) {
		char row[200];
		snprintf(row, sizeof(row), "\n| %d | %s | %s |\n", reasons[i].number,
			 reasons[i].word, reasons[i].text);
		if (!strstr(page, row))
			fail_msg("not in section 9: %s", row);
	}
}

static void words_are_unique(void **state)
{
	(void)state;
	for (size_t i = 0; i < N; i++)
		for (size_t k = 0; k < i; k++)
			assert_string_not_equal(reasons[i].word, reasons[k].word);
}

static void a_number_that_is_not_listed_is_internal(void **state)
{
	(void)state;
	for (size_t i = 0; i < N; i++)
		if (reasons[i].number < 64)
			assert_int_equal(sp_reason_from_wire((uint16_t)reasons[i].number),
					 reasons[i].number);
	assert_int_equal(sp_reason_from_wire(11), SP_REASON_INTERNAL);
	assert_int_equal(sp_reason_from_wire(65535), SP_REASON_INTERNAL);
	assert_string_equal(sp_reason_word((enum sp_reason)11), "unknown");
}

static void numbers_from_64_on_never_travel(void **state)
{
	(void)state;
	assert_int_equal(sp_reason_from_wire(SP_REASON_TICKET), SP_REASON_INTERNAL);
	assert_int_equal(sp_reason_to_wire(SP_REASON_STALL), SP_REASON_CANCELLED);
	assert_int_equal(sp_reason_to_wire(SP_REASON_GROUP), SP_REASON_GROUP);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_protocol_page_lists_every_reason_with_its_number),
		cmocka_unit_test(words_are_unique),
		cmocka_unit_test(numbers_from_64_on_never_travel),
		cmocka_unit_test(a_number_that_is_not_listed_is_internal),
	};
	return cmocka_run_group_tests_name("reason", tests, NULL, NULL);
}
