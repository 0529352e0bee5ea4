// The first flight: every way in which a stranger fails, and clients that are refused.
#include "tests/unit/handshake_world.h"

static void versions_without_a_common_one_are_a_stranger(void **state)
{
	static const struct {
		uint8_t min, max;
		enum sp_reason why;
	} cases[] = {
		{2, 9, SP_REASON_VERSION},
		{0, 0, SP_REASON_VERSION},
		{3, 1, SP_REASON_MALFORMED},
		{1, 2, SP_REASON_HANDSHAKE}, // changed on the way: the prologue tells
	};
	struct world *w = world_new();
	struct sp_hs_client_options opt = first_contact(w);

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		start(w, &opt);
		w->flight[18] = cases[i].min;
		w->flight[19] = cases[i].max;
		mac_again(w);
		expect_stranger(w, cases[i].why);
	}
	world_free(w);
}

static void a_flight_for_another_worker_is_a_stranger(void **state)
{
	struct world *w = world_new(), *other = world_new();
	struct sp_hs_client_options opt = first_contact(w);

	(void)state;
	opt.worker_public = other->keys.static_public;
	start(w, &opt);
	expect_stranger(w, SP_REASON_MAC);
	mac_again(w); // someone who knows both workers' keys
	expect_stranger(w, SP_REASON_HANDSHAKE);
	world_free(w);
	world_free(other);
}

static void a_replayed_first_contact_is_a_stranger(void **state)
{
	struct world *w = world_new();
	struct sp_hs_client_options opt = first_contact(w);

	(void)state;
	start(w, &opt);
	expect_accepted(w);
	expect_stranger(w, SP_REASON_REPLAY);
	w->judge.now_ms += 89000;
	expect_stranger(w, SP_REASON_REPLAY);
	w->judge.now_ms += 200000; // forgotten, but then the clock tells
	expect_stranger(w, SP_REASON_CLOCK);
	world_free(w);
}

static void a_failed_first_contact_does_not_fill_the_replay_set(void **state)
{
	struct world *w = world_new();
	struct sp_hs_client_options opt = first_contact(w);

	(void)state;
	start(w, &opt);
	w->judge.now_ms += 100000;
	expect_stranger(w, SP_REASON_CLOCK);
	assert_int_equal(sp_replay_count(w->replay), 0);
	world_free(w);
}

static void a_full_replay_set_refuses(void **state)
{
	struct world *w = world_new();
	struct sp_hs_client_options opt = first_contact(w);

	(void)state;
	for (int i = 0; i < 16; i++) {
		start(w, &opt);
		expect_accepted(w);
	}
	start(w, &opt);
	expect_stranger(w, SP_REASON_BUDGET);
	w->judge.now_ms += 180001; // and is of use again when its keys have aged
	opt.now_ms = w->judge.now_ms;
	start(w, &opt);
	expect_accepted(w);
	world_free(w);
}

static void a_clock_is_accepted_within_ninety_seconds(void **state)
{
	static const int64_t off[] = {-90000, 90000, -90001, 90001};
	struct world *w = world_new();
	struct sp_hs_client_options opt = first_contact(w);

	(void)state;
	for (int i = 0; i < 4; i++) {
		opt.now_ms = (uint64_t)((int64_t)NOW_MS + off[i]);
		start(w, &opt);
		if (i < 2)
			expect_accepted(w);
		else
			expect_stranger(w, SP_REASON_CLOCK);
	}
	opt.now_ms = UINT64_MAX;
	start(w, &opt);
	expect_stranger(w, SP_REASON_CLOCK);
	world_free(w);
}

static void a_pass_of_another_fleet_or_damaged_is_a_stranger(void **state)
{
	struct world *w = world_new(), *other = world_new();
	struct sp_hs_client_options opt = first_contact(w);

	(void)state;
	memcpy(other->pass.device, w->device_public, 32);
	sign_pass(other);
	opt.pass = other->blob;
	opt.pass_len = other->blob_len;
	start(w, &opt);
	expect_stranger(w, SP_REASON_PASS_INVALID);

	opt = first_contact(w);
	w->blob[40] ^= 1;
	start(w, &opt);
	expect_stranger(w, SP_REASON_PASS_INVALID);

	opt.pass_len = 0;
	start(w, &opt);
	expect_stranger(w, SP_REASON_PASS_INVALID);
	world_free(w);
	world_free(other);
}

static void a_stolen_pass_is_a_stranger(void **state)
{
	struct world *w = world_new();
	struct sp_hs_client_options opt = first_contact(w);
	uint8_t secret[32], public_key[32];

	(void)state;
	randombytes_buf(secret, 32);
	crypto_scalarmult_base(public_key, secret);
	opt.device_secret = secret;
	opt.device_public = public_key;
	start(w, &opt);
	expect_stranger(w, SP_REASON_DEVICE);

	// and claiming the device's public key without its secret does not work either
	opt.device_public = w->device_public;
	start(w, &opt);
	expect_stranger(w, SP_REASON_HANDSHAKE);
	world_free(w);
}

static void an_expired_or_early_pass_is_refused_with_its_reason(void **state)
{
	static const struct {
		int64_t from, to;
		enum sp_reason want;
	} cases[] = {{-5000, -100, SP_REASON_PASS_EXPIRED},
		     {100, 500, SP_REASON_PASS_EARLY}};

	(void)state;
	for (int i = 0; i < 2; i++) {
		struct world *w = world_new();
		struct sp_hs_client_options opt;
		struct sp_hs_keys none = {0}, keys = {0};
		struct sp_hs_result res;

		w->pass.not_before_s = (uint64_t)((int64_t)NOW_S + cases[i].from);
		w->pass.expires_s = (uint64_t)((int64_t)NOW_S + cases[i].to);
		sign_pass(w);
		opt = first_contact(w);
		start(w, &opt);
		expect_accepted(w);
		assert_int_equal(w->worker.refuse, cases[i].want);
		answer(w, SP_REASON_NONE, &keys, &res);
		assert_int_equal(res.refuse, cases[i].want);
		assert_int_equal(res.time_ms, NOW_MS + 7);
		assert_memory_equal(&keys, &none, sizeof(keys)); // nobody has keys
		assert_memory_equal(&res.keys, &none, sizeof(keys));
		world_free(w);
	}
}

static void a_refusal_of_the_program_reaches_the_client(void **state)
{
	struct world *w = world_new();
	struct sp_hs_client_options opt = resume(w);
	struct sp_hs_keys keys;
	struct sp_hs_result res;

	(void)state;
	start(w, &opt);
	expect_accepted(w);
	answer(w, SP_REASON_DRAINING, &keys, &res);
	assert_int_equal(res.refuse, SP_REASON_DRAINING);
	world_free(w);
}

static void expect_gone(struct world *w)
{
	uint8_t buf[SP_HS_ANSWER_MAX];
	struct sp_hs_result res;
	int len;

	assert_int_equal(judge(w, w->len), 0);
	assert_int_equal(w->worker.verdict, SP_HS_TICKET_GONE);
	len = sp_hs_worker_ticket_gone(buf, sizeof(buf));
	assert_true(len > 0);
	assert_int_equal(sp_hs_client_finish(&w->client, buf, (size_t)len, &res), len);
	assert_int_equal(res.refuse, SP_REASON_TICKET);
}

static void expect_relay(struct world *w)
{
	uint8_t buf[SP_HS_ANSWER_MAX];
	struct sp_hs_result res;
	int len;

	assert_int_equal(judge(w, w->len), 0);
	assert_int_equal(w->worker.verdict, SP_HS_RELAY);
	assert_int_equal(w->worker.consumed, w->len);
	len = sp_hs_entry_refuses(SP_REASON_UNREACHABLE, buf, sizeof(buf));
	assert_true(len > 0);
	assert_int_equal(sp_hs_client_finish(&w->client, buf, (size_t)len, &res), len);
	assert_true(res.entry);
	assert_int_equal(res.refuse, SP_REASON_UNREACHABLE);
}

static void
a_ticket_of_an_earlier_boot_is_gone_and_one_of_another_home_relayed(void **state)
{
	struct world *w = world_new();
	struct sp_hs_client_options opt = resume(w);

	(void)state;
	start(w, &opt);
	w->keys.boot_key[0] ^= 1;
	expect_gone(w);
	w->keys.boot_key[0] ^= 1;
	start(w, &opt);
	w->keys.home_id++;
	expect_relay(w);
	assert_int_equal(w->worker.hint.home_id, w->keys.home_id - 1);
	world_free(w);
}

static void a_ticket_too_old_or_past_its_pass_is_gone(void **state)
{
	struct world *w = world_new();
	struct sp_hs_client_options opt = resume(w);

	(void)state;
	w->judge.now_ms = (w->body.issued_s + 3600) * 1000;
	w->body.pass_expires_s = NOW_S + 10000;
	sp_ticket_seal(w->keys.route_key, w->keys.boot_key, w->keys.home_id, &w->body,
		       w->ticket);
	start(w, &opt);
	expect_accepted(w);
	w->judge.now_ms += 1000;
	expect_gone(w);

	w->judge.now_ms = NOW_MS;
	w->body.pass_expires_s = NOW_S - 89;
	sp_ticket_seal(w->keys.route_key, w->keys.boot_key, w->keys.home_id, &w->body,
		       w->ticket);
	start(w, &opt);
	expect_accepted(w);
	w->judge.now_ms += 1000;
	expect_gone(w);
	world_free(w);
}

static void a_ticket_of_another_fleet_is_a_stranger(void **state)
{
	struct world *w = world_new();
	struct sp_hs_client_options opt = resume(w);

	(void)state;
	w->keys.route_key[5] ^= 1;
	start(w, &opt);
	expect_stranger(w, SP_REASON_TICKET);
	w->keys.route_key[5] ^= 1;
	opt.ticket_len--;
	start(w, &opt);
	expect_stranger(w, SP_REASON_TICKET);
	world_free(w);
}

static void a_ticket_without_its_secret_is_a_stranger(void **state)
{
	struct world *w = world_new();
	struct sp_hs_client_options opt = resume(w);
	uint8_t guess[32] = {0};

	(void)state;
	opt.ticket_psk = guess;
	start(w, &opt);
	expect_stranger(w, SP_REASON_HANDSHAKE);
	world_free(w);
}

static void the_budget_is_asked_after_mac1_and_before_the_key_exchange(void **state)
{
	struct world *w = world_new();
	struct sp_hs_client_options opt = first_contact(w);
	struct sockaddr_in from = {.sin_family = AF_INET};
	struct sp_budget_options bo;

	(void)state;
	sp_budget_options_default(&bo);
	bo.burst = 2;
	assert_int_equal(sp_budget_new(&bo, &w->judge.budget), 0);
	w->judge.source = (const struct sockaddr *)&from;
	start(w, &opt);
	w->flight[0] ^= 1;
	for (int i = 0; i < 10; i++) // without the mac nothing is taken
		expect_stranger(w, SP_REASON_MAC);
	w->flight[0] ^= 1;
	expect_accepted(w);
	start(w, &opt);
	w->flight[100] ^= 1; // a failed exchange costs as much as a good one
	mac_again(w);
	expect_stranger(w, SP_REASON_HANDSHAKE);
	expect_stranger(w, SP_REASON_BUDGET);
	w->judge.mono_ms += 1000;
	expect_stranger(w, SP_REASON_HANDSHAKE);
	sp_budget_free(w->judge.budget);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(versions_without_a_common_one_are_a_stranger),
		cmocka_unit_test(a_flight_for_another_worker_is_a_stranger),
		cmocka_unit_test(a_replayed_first_contact_is_a_stranger),
		cmocka_unit_test(a_failed_first_contact_does_not_fill_the_replay_set),
		cmocka_unit_test(a_full_replay_set_refuses),
		cmocka_unit_test(a_clock_is_accepted_within_ninety_seconds),
		cmocka_unit_test(a_pass_of_another_fleet_or_damaged_is_a_stranger),
		cmocka_unit_test(a_stolen_pass_is_a_stranger),
		cmocka_unit_test(an_expired_or_early_pass_is_refused_with_its_reason),
		cmocka_unit_test(a_refusal_of_the_program_reaches_the_client),
		cmocka_unit_test(
			a_ticket_of_an_earlier_boot_is_gone_and_one_of_another_home_relayed),
		cmocka_unit_test(a_ticket_too_old_or_past_its_pass_is_gone),
		cmocka_unit_test(a_ticket_of_another_fleet_is_a_stranger),
		cmocka_unit_test(a_ticket_without_its_secret_is_a_stranger),
		cmocka_unit_test(
			the_budget_is_asked_after_mac1_and_before_the_key_exchange),
	};

	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
