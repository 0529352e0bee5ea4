// The first flight of kind 2: whose trunk is let in; and what an entry does to a flight.
#include "tests/unit/handshake_world.h"

static uint8_t member_key[32];

static bool is_member(void *ctx, const uint8_t *key)
{
	(*(unsigned *)ctx)++;
	return !memcmp(key, member_key, 32);
}

static unsigned asked;

static struct world *trunk_world(void)
{
	struct world *w = world_new();
	asked = 0;
	memcpy(member_key, w->device_public, 32);
	w->judge.is_member = is_member;
	w->judge.member_ctx = &asked;
	return w;
}

// The "device" of that world is the other worker.
static struct sp_hs_client_options hello(const struct world *w)
{
	struct sp_hs_client_options o = first_contact(w);
	o.trunk = true;
	o.pass = NULL;
	o.pass_len = 0;
	return o;
}

static void a_member_is_let_in_and_both_ends_have_the_same_keys(void **state)
{
	struct world *w = trunk_world();
	struct sp_hs_client_options opt = hello(w);
	struct sp_hs_keys worker;
	struct sp_hs_result res;
	(void)state;
	start(w, &opt);
	expect_accepted(w);
	assert_int_equal(w->who.kind, SP_HS_TRUNK);
	assert_memory_equal(w->who.device, w->device_public, 32);
	assert_int_equal(asked, 1);
	answer(w, SP_REASON_NONE, &worker, &res);
	assert_int_equal(res.home_id, w->keys.home_id);
	expect_same_keys(&worker, &res.keys);
	world_free(w);
}

static void a_hello_of_nobody_in_the_fleet_is_a_strangers(void **state)
{
	struct world *w = trunk_world();
	struct sp_hs_client_options opt = hello(w);
	(void)state;
	member_key[0] ^= 1;
	start(w, &opt);
	expect_stranger(w, SP_REASON_MEMBER);
	w->judge.is_member = NULL;
	start(w, &opt);
	expect_stranger(w, SP_REASON_MEMBER);
	world_free(w);
}

static void a_replayed_hello_is_a_strangers(void **state)
{
	struct world *w = trunk_world();
	struct sp_hs_client_options opt = hello(w);
	(void)state;
	start(w, &opt);
	expect_accepted(w);
	sp_hs_worker_done(&w->worker);
	expect_stranger(w, SP_REASON_REPLAY);
	world_free(w);
}

static void a_hello_of_another_time_is_a_strangers(void **state)
{
	struct world *w = trunk_world();
	struct sp_hs_client_options opt = hello(w);
	(void)state;
	opt.now_ms = NOW_MS - SP_HS_CLOCK_MS - 1;
	start(w, &opt);
	expect_stranger(w, SP_REASON_CLOCK);
	opt.now_ms = NOW_MS + SP_HS_CLOCK_MS + 1;
	start(w, &opt);
	expect_stranger(w, SP_REASON_CLOCK);
	world_free(w);
}

// Another worker's public key made it; or one bit of it is another.
static void a_hello_for_another_worker_or_damaged_is_a_strangers(void **state)
{
	struct world *w = trunk_world();
	struct sp_hs_client_options opt = hello(w);
	uint8_t other[32];
	(void)state;
	crypto_scalarmult_base(other, w->keys.boot_key);
	opt.worker_public = other;
	start(w, &opt);
	expect_stranger(w, SP_REASON_MAC);
	sp_hs_flight_readdress(w->keys.static_public, w->flight, w->len);
	expect_stranger(w, SP_REASON_HANDSHAKE);
	opt.worker_public = w->keys.static_public;
	start(w, &opt);
	w->flight[w->len - 1] ^= 1;
	expect_stranger(w, SP_REASON_MAC);
	sp_hs_flight_readdress(w->keys.static_public, w->flight, w->len);
	expect_stranger(w, SP_REASON_HANDSHAKE);
	assert_int_equal(asked, 0);
	world_free(w);
}

// A first contact whose kind byte was changed: the prologue binds it.
static void a_first_contact_is_no_hello(void **state)
{
	struct world *w = trunk_world();
	struct sp_hs_client_options opt = first_contact(w);
	(void)state;
	start(w, &opt);
	w->flight[20] = SP_HS_TRUNK;
	sp_hs_flight_readdress(w->keys.static_public, w->flight, w->len);
	expect_stranger(w, SP_REASON_HANDSHAKE);
	world_free(w);
}

static void a_hello_is_as_long_as_a_first_contact(void **state)
{
	struct world *w = trunk_world();
	struct sp_hs_client_options opt = hello(w), first = first_contact(w);
	size_t least = SIZE_MAX, most = 0, least_first = SIZE_MAX;
	(void)state;
	for (int i = 0; i < 3000; i++) {
		start(w, &opt);
		least = w->len < least ? w->len : least;
		most = w->len > most ? w->len : most;
		start(w, &first);
		least_first = w->len < least_first ? w->len : least_first;
	}
	assert_true(most - least > 700);
	// Users' names and groups make passes differ by more than this.
	assert_true(least < least_first + 128 && least_first < least + 128);
	world_free(w);
}

static void a_flight_for_another_home_is_that_homes_once_readdressed(void **state)
{
	struct world *w = world_new(), *home = world_new();
	struct sp_hs_client_options opt = resume(w);
	uint8_t ticket[SP_TICKET_BYTES];
	(void)state;
	// Of one fleet: the route key is shared, nothing else is.
	memcpy(home->keys.route_key, w->keys.route_key, 32);
	home->keys.home_id = 77;
	sp_ticket_seal(home->keys.route_key, home->keys.boot_key, 77, &home->body,
		       ticket);
	opt.ticket = ticket;
	opt.ticket_psk = home->body.psk;
	start(w, &opt);
	assert_int_equal(judge(w, w->len), 0);
	assert_int_equal(w->worker.verdict, SP_HS_RELAY);
	assert_int_equal(w->worker.hint.home_id, 77);
	memcpy(home->flight, w->flight, w->len);
	home->len = w->len;
	expect_stranger(home, SP_REASON_MAC);
	sp_hs_flight_readdress(home->keys.static_public, home->flight, home->len);
	expect_accepted(home);
	assert_memory_equal(home->who.session, home->body.session, 16);
	world_free(w);
	world_free(home);
}

static void a_forged_or_old_hint_is_not_relayed(void **state)
{
	struct world *w = world_new();
	struct sp_hs_client_options opt = resume(w);
	uint8_t ticket[SP_TICKET_BYTES], key[32] = {1};
	(void)state;
	opt.ticket = ticket;
	sp_ticket_seal(key, key, 77, &w->body, ticket); // of another fleet
	start(w, &opt);
	expect_stranger(w, SP_REASON_TICKET);
	w->body.issued_s = NOW_S - w->keys.ticket_lifetime_s - 1;
	sp_ticket_seal(w->keys.route_key, key, 77, &w->body, ticket);
	start(w, &opt);
	assert_int_equal(judge(w, w->len), 0);
	assert_int_equal(w->worker.verdict, SP_HS_TICKET_GONE);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_member_is_let_in_and_both_ends_have_the_same_keys),
		cmocka_unit_test(a_hello_of_nobody_in_the_fleet_is_a_strangers),
		cmocka_unit_test(a_replayed_hello_is_a_strangers),
		cmocka_unit_test(a_hello_of_another_time_is_a_strangers),
		cmocka_unit_test(a_hello_for_another_worker_or_damaged_is_a_strangers),
		cmocka_unit_test(a_first_contact_is_no_hello),
		cmocka_unit_test(a_hello_is_as_long_as_a_first_contact),
		cmocka_unit_test(
			a_flight_for_another_home_is_that_homes_once_readdressed),
		cmocka_unit_test(a_forged_or_old_hint_is_not_relayed),
	};
	return sodium_init() < 0 ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
