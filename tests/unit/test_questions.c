// Look-ups that wait for their answer: which are told again, and how many are kept.
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/questions.h"

static struct cli_questions q;
static const char flow_a, flow_b;

static void ask(const void *flow, uint16_t id, uint64_t now_us)
{
	uint8_t buf[40] = {(uint8_t)(id >> 8), (uint8_t)id, 1};
	cli_questions_asked(&q, flow, &q, buf, sizeof(buf), now_us);
}

static void answer(const void *flow, uint16_t id)
{
	uint8_t buf[60] = {(uint8_t)(id >> 8), (uint8_t)id, 0x81};
	cli_questions_answered(&q, flow, buf, sizeof(buf));
}

static unsigned waiting(uint64_t now_us)
{
	unsigned at = 0, n = 0;
	while (cli_questions_next(&q, &at, now_us))
		n++;
	return n;
}

static void what_is_not_answered_waits_in_the_order_it_was_asked(void **state)
{
	unsigned at = 0;
	(void)state;
	memset(&q, 0, sizeof(q));
	for (uint16_t i = 0; i < 5; i++)
		ask(&flow_a, i, 100);
	ask(&flow_b, 3, 100);
	answer(&flow_a, 3);
	answer(&flow_a, 77);
	answer(&flow_a, 0);
	assert_int_equal(waiting(200), 4);
	static const uint8_t ids[] = {1, 2, 4, 3};
	for (unsigned i = 0; i < 4; i++) {
		struct cli_question *x = cli_questions_next(&q, &at, 200);
		assert_non_null(x);
		assert_int_equal(x->bytes[1], ids[i]);
		assert_int_equal(x->len, 40);
		assert_ptr_equal(x->home, &q);
		assert_ptr_equal(x->flow, i < 3 ? &flow_a : &flow_b);
		cli_question_done(x);
	}
	assert_int_equal(waiting(200), 0);
}

static void an_old_one_or_one_whose_flow_is_gone_is_not_asked_again(void **state)
{
	(void)state;
	memset(&q, 0, sizeof(q));
	ask(&flow_a, 1, 100);
	ask(&flow_b, 2, 3000000);
	assert_int_equal(waiting(CLI_QUESTION_AGE_US + 99), 2);
	assert_int_equal(waiting(CLI_QUESTION_AGE_US + 100), 1);
	cli_questions_forget(&q, &flow_b);
	assert_int_equal(waiting(CLI_QUESTION_AGE_US + 100), 0);
}

static void of_too_many_the_newest_are_kept_and_none_that_is_no_question(void **state)
{
	uint8_t big[CLI_QUESTION_BYTES + 1] = {0};
	unsigned at = 0;
	(void)state;
	memset(&q, 0, sizeof(q));
	cli_questions_asked(&q, &flow_a, &q, big, sizeof(big), 5);
	cli_questions_asked(&q, &flow_a, &q, big, 1, 5);
	cli_questions_answered(&q, &flow_a, big, 1);
	assert_int_equal(waiting(5), 0);
	for (uint16_t i = 0; i < CLI_QUESTIONS_MAX + 10; i++)
		ask(&flow_a, i, 5);
	assert_int_equal(waiting(5), CLI_QUESTIONS_MAX);
	assert_int_equal(cli_questions_next(&q, &at, 5)->bytes[1], 10);
	cli_questions_asked(&q, &flow_a, &q, big, CLI_QUESTION_BYTES, 5);
	assert_int_equal(waiting(5), CLI_QUESTIONS_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_not_answered_waits_in_the_order_it_was_asked),
		cmocka_unit_test(an_old_one_or_one_whose_flow_is_gone_is_not_asked_again),
		cmocka_unit_test(
			of_too_many_the_newest_are_kept_and_none_that_is_no_question),
	};
	return cmocka_run_group_tests_name("questions", tests, NULL, NULL);
}
