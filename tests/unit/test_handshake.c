// The first flight: what both ends have when it succeeds, bytes damaged or missing on the
// way.
#include "tests/unit/handshake_world.h"

static void a_first_contact_gives_both_ends_the_same_keys(void **state)
{
	struct world *w = world_new();
	struct sp_hs_client_options opt = first_contact(w);
	struct sp_hs_keys worker;
	struct sp_hs_result res;

	(void)state;
	start(w, &opt);
	expect_accepted(w);
	assert_int_equal(w->worker.consumed, w->len);
	assert_int_equal(w->worker.refuse, SP_REASON_NONE);
	assert_int_equal(w->who.kind, SP_HS_FIRST_CONTACT);
	assert_memory_equal(w->who.device, w->device_public, 32);
	assert_memory_equal(&w->who.pass, &w->pass, sizeof(w->pass));
	assert_int_equal(w->worker.pass_blob_len, w->blob_len);
	assert_memory_equal(w->worker.pass_blob, w->blob, w->blob_len);
	answer(w, SP_REASON_NONE, &worker, &res);
	assert_int_equal(res.refuse, SP_REASON_NONE);
	assert_int_equal(res.boot_id, w->keys.boot_id);
	assert_int_equal(res.home_id, w->keys.home_id);
	assert_int_equal(res.time_ms, NOW_MS + 7);
	assert_int_equal(worker.suite, SP_SUITE_AES256GCM);
	expect_same_keys(&worker, &res.keys);
	world_free(w);
}

static void a_resume_gives_keys_session_and_frames(void **state)
{
	struct world *w = world_new();
	struct sp_hs_client_options opt = resume(w);
	struct sp_hs_keys worker;
	struct sp_hs_result res;

	(void)state;
	start(w, &opt);
	expect_accepted(w);
	assert_int_equal(w->who.kind, SP_HS_RESUME);
	assert_memory_equal(w->who.session, w->body.session, 16);
	assert_memory_equal(w->who.device, w->body.device, 32);
	assert_int_equal(w->who.pass_expires_s, w->body.pass_expires_s);
	assert_int_equal(w->worker.frames_len, 8);
	assert_memory_equal(w->worker.frames, opt.frames, 8);
	answer(w, SP_REASON_NONE, &worker, &res);
	expect_same_keys(&worker, &res.keys);
	world_free(w);
}

static void the_suite_is_aes_only_where_both_have_it(void **state)
{
	static const unsigned masks[][3] = {{3, 3, 1}, {2, 3, 2}, {3, 2, 2}, {2, 2, 2}};

	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		struct world *w = world_new();
		struct sp_hs_client_options opt = first_contact(w);
		struct sp_hs_keys worker;
		struct sp_hs_result res;

		opt.suites = masks[i][0];
		w->keys.suites = masks[i][1];
		start(w, &opt);
		expect_accepted(w);
		answer(w, SP_REASON_NONE, &worker, &res);
		assert_int_equal(res.keys.suite, masks[i][2]);
		assert_int_equal(worker.suite, masks[i][2]);
		world_free(w);
	}
}

static void a_flight_that_is_not_whole_asks_for_more(void **state)
{
	struct world *w = world_new();
	struct sp_hs_client_options opt = first_contact(w);

	(void)state;
	start(w, &opt);
	for (size_t cut = 0; cut < w->len; cut++)
		assert_int_equal(judge(w, cut), SP_E_AGAIN);
	expect_accepted(w);
	world_free(w);
}

static void bytes_behind_the_flight_are_not_consumed(void **state)
{
	struct world *w = world_new();
	struct sp_hs_client_options opt = resume(w);

	(void)state;
	start(w, &opt);
	memset(w->flight + w->len, 0xee, 30);
	assert_int_equal(judge(w, w->len + 30), 0);
	assert_int_equal(w->worker.verdict, SP_HS_ACCEPTED);
	assert_int_equal(w->worker.consumed, w->len);
	world_free(w);
}

static void a_changed_byte_fails_at_mac1(void **state)
{
	struct world *w = world_new();
	struct sp_hs_client_options opt[2] = {first_contact(w), resume(w)};

	(void)state;
	for (int k = 0; k < 2; k++) {
		start(w, &opt[k]);
		for (size_t at = 0; at < w->len; at++) {
			if (at == 16 || at == 17)
				continue; // the length: the next test
			w->flight[at] ^= 4;
			expect_stranger(w, SP_REASON_MAC);
			w->flight[at] ^= 4;
		}
		expect_accepted(w);
	}
	world_free(w);
}

static void a_changed_length_is_more_to_come_or_a_stranger(void **state)
{
	struct world *w = world_new();
	struct sp_hs_client_options opt = first_contact(w);
	size_t body;

	(void)state;
	start(w, &opt);
	body = w->len - 18;
	for (size_t len = 0; len <= 0xffff; len++) {
		w->flight[16] = (uint8_t)(len >> 8);
		w->flight[17] = (uint8_t)len;
		if (len == body)
			expect_accepted(w);
		else if (len < body)
			expect_stranger(w, SP_REASON_MAC);
		else if (len + 18 > SP_HS_FLIGHT_MAX)
			expect_stranger(w, SP_REASON_MALFORMED);
		else
			assert_int_equal(judge(w, w->len), SP_E_AGAIN);
	}
	world_free(w);
}

static void with_the_mac_made_right_a_changed_byte_still_fails(void **state)
{
	struct world *w = world_new();
	struct sp_hs_client_options opt[2] = {first_contact(w), resume(w)};

	(void)state;
	for (int k = 0; k < 2; k++) {
		start(w, &opt[k]);
		for (size_t at = 18; at < w->len; at++) {
			w->flight[at] ^= 0x80;
			mac_again(w);
			assert_int_equal(judge(w, w->len), 0);
			if (w->worker.verdict != SP_HS_TICKET_GONE) {
				assert_int_equal(w->worker.verdict, SP_HS_STRANGER);
				assert_int_not_equal(w->worker.why, SP_REASON_MAC);
				assert_int_not_equal(w->worker.why, SP_REASON_NONE);
			} else {
				// only the body of the ticket may say this
				assert_true(k == 1 && at >= 23 + 56 && at < 23 + 192);
			}
			w->flight[at] ^= 0x80;
		}
		mac_again(w);
		expect_accepted(w);
	}
	world_free(w);
}

static void flights_of_few_bytes_with_a_right_mac_are_malformed(void **state)
{
	struct world *w = world_new();

	(void)state;
	for (uint8_t kind = 0; kind < 3; kind++) {
		for (size_t len = 0; len < 34; len++) {
			w->len = 18 + len;
			memset(w->flight, 0, w->len + 5);
			w->flight[17] = (uint8_t)len;
			w->flight[18] = w->flight[19] = 1;
			w->flight[20] = kind;
			mac_again(w);
			expect_stranger(w, SP_REASON_MALFORMED);
		}
	}
	world_free(w);
}

static void an_answer_of_another_worker_or_changed_is_refused(void **state)
{
	struct world *w = world_new();
	struct sp_hs_client_options opt = first_contact(w);
	uint8_t buf[SP_HS_ANSWER_MAX];
	struct sp_hs_client client;
	struct sp_hs_keys keys;
	struct sp_hs_result res;
	int len, err;

	(void)state;
	start(w, &opt);
	expect_accepted(w);
	len = sp_hs_worker_answer(&w->worker, &w->keys, SP_REASON_NONE, NOW_MS, buf,
				  sizeof(buf), &keys);
	for (int at = 2; at < len; at++) {
		client = w->client;
		buf[at] ^= 1;
		err = sp_hs_client_finish(&client, buf, (size_t)len, &res);
		assert_int_equal(err, at == 2 ? SP_E_MALFORMED : SP_E_AUTH);
		buf[at] ^= 1;
	}
	for (unsigned n = 0; n < 0x10000;
	     n++) { // any length, with all the bytes it may want
		static uint8_t big[0x10002];

		memcpy(big, buf, sizeof(buf));
		big[0] = (uint8_t)(n >> 8);
		big[1] = (uint8_t)n;
		if (n == (unsigned)len - 2)
			continue;
		client = w->client;
		err = sp_hs_client_finish(&client, big, sizeof(big), &res);
		assert_true(err == SP_E_AUTH || err == SP_E_MALFORMED);
	}
	assert_int_equal(sp_hs_client_finish(&w->client, buf, (size_t)len, &res), len);
	world_free(w);
}

static void a_first_contact_never_takes_ticket_gone_for_an_answer(void **state)
{
	struct world *w = world_new();
	struct sp_hs_client_options opt = first_contact(w);
	uint8_t buf[SP_HS_ANSWER_MAX];
	struct sp_hs_result res;
	int len = sp_hs_worker_ticket_gone(buf, sizeof(buf));

	(void)state;
	start(w, &opt);
	assert_int_equal(sp_hs_client_finish(&w->client, buf, (size_t)len, &res),
			 SP_E_MALFORMED);
	world_free(w);
}

static void what_an_entry_says_of_its_own_is_told_from_the_word_of_the_home(void **state)
{
	struct world *w = world_new();
	struct sp_hs_client_options opt = resume(w);
	uint8_t buf[SP_HS_ANSWER_MAX];
	struct sp_hs_result res;
	int len = sp_hs_entry_refuses(SP_REASON_RATE_LIMIT, buf, sizeof(buf));

	(void)state;
	start(w, &opt);
	assert_int_equal(sp_hs_client_finish(&w->client, buf, (size_t)len, &res), len);
	assert_true(res.entry);
	assert_int_equal(res.refuse, SP_REASON_RATE_LIMIT);
	// It cannot say that the ticket is void, nor that all is well.
	for (int i = 0; i < 2; i++) {
		len = sp_hs_entry_refuses(i ? SP_REASON_TICKET : SP_REASON_NONE, buf,
					  sizeof(buf));
		start(w, &opt);
		assert_int_equal(sp_hs_client_finish(&w->client, buf, (size_t)len, &res),
				 len);
		assert_true(res.refuse != SP_REASON_NONE &&
			    res.refuse != SP_REASON_TICKET);
	}
	len = sp_hs_worker_ticket_gone(buf, sizeof(buf));
	start(w, &opt);
	assert_int_equal(sp_hs_client_finish(&w->client, buf, (size_t)len, &res), len);
	assert_false(res.entry);
	opt = first_contact(w);
	start(w, &opt);
	len = sp_hs_entry_refuses(SP_REASON_UNREACHABLE, buf, sizeof(buf));
	assert_int_equal(sp_hs_client_finish(&w->client, buf, (size_t)len, &res),
			 SP_E_MALFORMED);
	world_free(w);
}

static void flights_and_answers_have_no_length_of_their_own(void **state)
{
	struct world *w = world_new();
	struct sp_hs_client_options opt = resume(w);
	uint8_t buf[SP_HS_ANSWER_MAX];
	size_t least = SIZE_MAX, most = 0;
	int gone_least = 10000, gone_most = 0, len;

	(void)state;
	for (int i = 0; i < 400; i++) {
		start(w, &opt);
		least = w->len < least ? w->len : least;
		most = w->len > most ? w->len : most;
		len = sp_hs_worker_ticket_gone(buf, sizeof(buf));
		gone_least = len < gone_least ? len : gone_least;
		gone_most = len > gone_most ? len : gone_most;
	}
	assert_true(most - least > 600 && most - least < 768);
	assert_true(gone_most - gone_least > 400 && gone_most - gone_least < 512);
	world_free(w);
}

static void the_largest_flight_fits_and_a_larger_one_is_refused(void **state)
{
	struct world *w = world_new();
	struct sp_hs_client_options opt = resume(w);
	uint8_t *frames = calloc(1, SP_HS_FRAMES_MAX + 1), *blob = calloc(1, 9000);

	(void)state;
	opt.frames = frames;
	opt.frames_len = SP_HS_FRAMES_MAX;
	start(w, &opt);
	expect_accepted(w);
	assert_int_equal(w->worker.frames_len, SP_HS_FRAMES_MAX);
	opt.frames_len++;
	assert_int_equal(
		sp_hs_client_start(&w->client, &opt, w->flight, SP_HS_FLIGHT_MAX),
		SP_E_LIMIT);
	opt = first_contact(w);
	opt.pass = blob;
	for (opt.pass_len = 7900; opt.pass_len < 9000; opt.pass_len++) {
		int len =
			sp_hs_client_start(&w->client, &opt, w->flight, SP_HS_FLIGHT_MAX);

		// 21 before Noise, 96 of Noise, 11 before the pass
		if (opt.pass_len <= SP_HS_FLIGHT_MAX - 21 - 96 - 11)
			assert_in_range(len, opt.pass_len, SP_HS_FLIGHT_MAX);
		else
			assert_int_equal(len, SP_E_LIMIT);
	}
	free(frames);
	free(blob);
	world_free(w);
}

static void done_and_stranger_leave_no_key_behind(void **state)
{
	struct world *w = world_new();
	struct sp_hs_client_options opt = resume(w);

	(void)state;
	start(w, &opt);
	expect_accepted(w);
	sp_hs_worker_done(&w->worker);
	assert_true(sodium_is_zero(w->worker.plain, sizeof(w->worker.plain)));
	assert_true(sodium_is_zero(w->worker.noise.psk, 32));
	w->flight[w->len - 1] ^= 1;
	mac_again(w);
	expect_stranger(w, SP_REASON_HANDSHAKE);
	assert_true(sodium_is_zero(w->worker.noise.psk, 32));
	sp_hs_client_done(&w->client);
	assert_true(sodium_is_zero(w->client.noise.psk, 32));
	world_free(w);
}

static void a_ticket_opens_only_with_its_keys_and_unchanged(void **state)
{
	struct world *w = world_new();
	struct sp_ticket_hint hint;
	struct sp_ticket_body body;
	int hint_err, body_err;

	(void)state;
	assert_int_equal(sp_ticket_open_hint(w->keys.route_key, w->ticket, 192, &hint),
			 0);
	assert_int_equal(hint.home_id, w->keys.home_id);
	assert_int_equal(hint.issued_s, w->body.issued_s);
	assert_int_equal(sp_ticket_open_body(w->keys.boot_key, w->ticket, 192, &body), 0);
	assert_memory_equal(&body, &w->body, sizeof(body));
	for (unsigned at = 0; at < 192; at++) {
		w->ticket[at] ^= 2;
		hint_err = sp_ticket_open_hint(w->keys.route_key, w->ticket, 192, &hint);
		body_err = sp_ticket_open_body(w->keys.boot_key, w->ticket, 192, &body);
		assert_int_equal(hint_err, at < 56 ? SP_E_AUTH : 0);
		assert_int_equal(body_err, SP_E_AUTH); // the hint is bound to the body
		w->ticket[at] ^= 2;
	}
	assert_int_equal(sp_ticket_open_hint(w->keys.route_key, w->ticket, 191, &hint),
			 SP_E_MALFORMED);
	assert_int_equal(sp_ticket_open_body(w->keys.boot_key, w->ticket, 193, &body),
			 SP_E_MALFORMED);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_first_contact_gives_both_ends_the_same_keys),
		cmocka_unit_test(a_resume_gives_keys_session_and_frames),
		cmocka_unit_test(the_suite_is_aes_only_where_both_have_it),
		cmocka_unit_test(a_flight_that_is_not_whole_asks_for_more),
		cmocka_unit_test(bytes_behind_the_flight_are_not_consumed),
		cmocka_unit_test(a_changed_byte_fails_at_mac1),
		cmocka_unit_test(a_changed_length_is_more_to_come_or_a_stranger),
		cmocka_unit_test(with_the_mac_made_right_a_changed_byte_still_fails),
		cmocka_unit_test(flights_of_few_bytes_with_a_right_mac_are_malformed),
		cmocka_unit_test(an_answer_of_another_worker_or_changed_is_refused),
		cmocka_unit_test(a_first_contact_never_takes_ticket_gone_for_an_answer),
		cmocka_unit_test(
			what_an_entry_says_of_its_own_is_told_from_the_word_of_the_home),
		cmocka_unit_test(flights_and_answers_have_no_length_of_their_own),
		cmocka_unit_test(the_largest_flight_fits_and_a_larger_one_is_refused),
		cmocka_unit_test(done_and_stranger_leave_no_key_behind),
		cmocka_unit_test(a_ticket_opens_only_with_its_keys_and_unchanged),
	};

	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
