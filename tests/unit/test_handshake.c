// The first flight, both ends against each other, and every way in which a stranger
// fails.
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "lib/budget.h"
#include "lib/handshake.h"
#include "lib/replay.h"

#define NOW_S  UINT64_C(1700000000)
#define NOW_MS (NOW_S * 1000)

// A fleet of one worker and one device.
struct world {
	struct sp_hs_worker_keys keys;
	struct sp_replay *replay;
	struct sp_hs_judge judge;
	uint8_t signing_secret[64];
	uint8_t device_secret[32], device_public[32];
	struct sp_pass pass;
	uint8_t blob[SP_PASS_BLOB_MAX];
	size_t blob_len;
	uint8_t ticket[SP_TICKET_BYTES];
	struct sp_ticket_body body;
	uint8_t flight[SP_HS_FLIGHT_MAX + 64];
	size_t len;
	struct sp_hs_client client;
	struct sp_hs_worker worker;
	struct sp_hs_accept who;
};

static void sign_pass(struct world *w)
{
	int len = sp_pass_sign(&w->pass, w->signing_secret, w->blob, sizeof(w->blob));

	assert_true(len > 0);
	w->blob_len = (size_t)len;
}

static struct world *world_new(void)
{
	struct world *w = calloc(1, sizeof(*w));
	uint8_t signing_public[32];
	size_t bytes = sp_replay_bytes(16);

	assert_non_null(w);
	crypto_sign_keypair(signing_public, w->signing_secret);
	assert_int_equal(sp_signed_keys_add(&w->keys.trusted, signing_public), 0);
	randombytes_buf(w->keys.static_secret, 32);
	randombytes_buf(w->keys.route_key, 32);
	randombytes_buf(w->keys.boot_key, 32);
	w->keys.home_id = 0x1122334455667788;
	w->keys.boot_id = 0x99;
	w->keys.suites = 3;
	w->keys.ticket_lifetime_s = 3600;
	assert_int_equal(sp_hs_worker_keys_init(&w->keys), 0);
	assert_int_equal(sp_replay_format(malloc(bytes), bytes, 16, &w->replay), 0);
	randombytes_buf(w->device_secret, 32);
	crypto_scalarmult_base(w->device_public, w->device_secret);
	w->pass = (struct sp_pass){.not_before_s = NOW_S - 100,
				   .expires_s = NOW_S + 3600,
				   .user = "u",
				   .tier = "t"};
	memcpy(w->pass.device, w->device_public, 32);
	sign_pass(w);
	randombytes_buf(&w->body, sizeof(w->body));
	w->body.issued_s = NOW_S - 10;
	w->body.pass_expires_s = NOW_S + 1000;
	sp_ticket_seal(w->keys.route_key, w->keys.boot_key, w->keys.home_id, &w->body,
		       w->ticket);
	w->judge = (struct sp_hs_judge){
		.keys = &w->keys, .replay = w->replay, .now_ms = NOW_MS, .mono_ms = 5000};
	return w;
}

static void world_free(struct world *w)
{
	sp_hs_client_done(&w->client);
	sp_hs_worker_done(&w->worker);
	free(w->replay);
	free(w);
}

static struct sp_hs_client_options first_contact(const struct world *w)
{
	return (struct sp_hs_client_options){
		.worker_public = w->keys.static_public,
		.suites = 3,
		.device_secret = w->device_secret,
		.device_public = w->device_public,
		.pass = w->blob,
		.pass_len = w->blob_len,
		.now_ms = NOW_MS,
	};
}

static struct sp_hs_client_options resume(const struct world *w)
{
	return (struct sp_hs_client_options){
		.worker_public = w->keys.static_public,
		.suites = 3,
		.ticket = w->ticket,
		.ticket_len = sizeof(w->ticket),
		.ticket_psk = w->body.psk,
		.frames = (const uint8_t *)"\x03-frames",
		.frames_len = 8,
	};
}

static void start(struct world *w, const struct sp_hs_client_options *opt)
{
	int len = sp_hs_client_start(&w->client, opt, w->flight, SP_HS_FLIGHT_MAX);

	assert_true(len > 0 && len <= SP_HS_FLIGHT_MAX);
	w->len = (size_t)len;
}

static int judge(struct world *w, size_t len)
{
	// exactly as many bytes as there are, so that a sanitizer sees what is beyond
	uint8_t *exact = malloc(len + 1);
	int err;

	memcpy(exact, w->flight, len);
	err = sp_hs_worker_judge(&w->worker, &w->judge, exact, len, &w->who);
	assert_memory_equal(exact, w->flight, len); // intact for the cover site
	free(exact);
	return err;
}

static void expect_stranger(struct world *w, enum sp_reason why)
{
	assert_int_equal(judge(w, w->len), 0);
	assert_int_equal(w->worker.verdict, SP_HS_STRANGER);
	assert_int_equal(w->worker.why, why);
}

static void expect_accepted(struct world *w)
{
	assert_int_equal(judge(w, w->len), 0);
	assert_int_equal(w->worker.why, SP_REASON_NONE);
	assert_int_equal(w->worker.verdict, SP_HS_ACCEPTED);
}

// Makes mac1 right again after the flight was changed, as any holder of a config could.
static void mac_again(struct world *w)
{
	crypto_generichash(w->flight, 16, w->flight + 16, w->len - 16, w->keys.mac1_key,
			   32);
}

static void answer(struct world *w, enum sp_reason refuse, struct sp_hs_keys *ret_worker,
		   struct sp_hs_result *ret)
{
	uint8_t buf[SP_HS_ANSWER_MAX];
	int len = sp_hs_worker_answer(&w->worker, &w->keys, refuse, NOW_MS + 7, buf,
				      sizeof(buf), ret_worker);

	assert_true(len > 0);
	for (int cut = 0; cut < len; cut++)
		assert_int_equal(sp_hs_client_finish(&w->client, buf, (size_t)cut, ret),
				 SP_E_AGAIN);
	assert_int_equal(sp_hs_client_finish(&w->client, buf, (size_t)len, ret), len);
}

static void expect_same_keys(const struct sp_hs_keys *a, const struct sp_hs_keys *b)
{
	assert_memory_equal(a->tx_key, b->rx_key, 32);
	assert_memory_equal(a->rx_key, b->tx_key, 32);
	assert_memory_not_equal(a->tx_key, a->rx_key, 32);
	assert_memory_equal(a->ticket_psk, b->ticket_psk, sizeof(a->ticket_psk));
	assert_memory_not_equal(a->ticket_psk[0], a->ticket_psk[1], 32);
	assert_int_equal(a->suite, b->suite);
	assert_int_equal(a->version, 1);
	assert_int_equal(b->version, 1);
}

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

static void a_ticket_of_an_earlier_boot_or_another_home_is_gone(void **state)
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
	expect_gone(w);
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
		cmocka_unit_test(a_ticket_of_an_earlier_boot_or_another_home_is_gone),
		cmocka_unit_test(a_ticket_too_old_or_past_its_pass_is_gone),
		cmocka_unit_test(a_ticket_of_another_fleet_is_a_stranger),
		cmocka_unit_test(a_ticket_without_its_secret_is_a_stranger),
		cmocka_unit_test(
			the_budget_is_asked_after_mac1_and_before_the_key_exchange),
		cmocka_unit_test(an_answer_of_another_worker_or_changed_is_refused),
		cmocka_unit_test(a_first_contact_never_takes_ticket_gone_for_an_answer),
		cmocka_unit_test(flights_and_answers_have_no_length_of_their_own),
		cmocka_unit_test(the_largest_flight_fits_and_a_larger_one_is_refused),
		cmocka_unit_test(done_and_stranger_leave_no_key_behind),
		cmocka_unit_test(a_ticket_opens_only_with_its_keys_and_unchanged),
	};

	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
