// Passes of the fleet's users, and their devices: who gets one, for how long, when it is
// made anew.
#include "endpoint_world.h"

#define HOUR 3600
#define T0   UINT64_C(1800000000)

static struct fleet_world w;
static const uint8_t device[32] = {7, 7};

static int setup(void **state)
{
	(void)state;
	world_init(&w, 4);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	world_done(&w);
	return 0;
}

static struct con_grant grant(const char *user)
{
	struct con_grant g;
	assert_int_equal(con_grant_read(w.state, user, &g), 0);
	return g;
}

static enum con_refusal judge(const char *user)
{
	struct con_grant g = grant(user);
	return con_grant_judge(&g, w.state, device, false, T0);
}

static void a_pass_says_what_the_tier_allows(void **state)
{
	uint8_t blob[SP_PASS_BLOB_MAX];
	struct sp_pass p, q;
	(void)state;
	struct con_grant g = grant("ann");
	con_pass_fill(&g, w.state, device, T0, &p);
	int n = sp_pass_sign(&p, w.secret, blob, sizeof(blob));
	assert_true(n > 0);
	assert_int_equal(sp_pass_open(&w.keys, blob, (size_t)n, &q), 0);
	assert_string_equal(q.user, "ann");
	assert_string_equal(q.tier, "free");
	assert_int_equal(q.max_sessions, 2);
	assert_int_equal(q.rate_bps, 1 << 20);
	assert_true(q.max_streams >= 65536); // no limit of the tier's is no limit
	assert_int_equal(q.groups_n, 0);
	assert_memory_equal(q.device, device, 32);
	g = grant("bob");
	assert_int_equal(g.pass.groups_n, 1);
	assert_string_equal(g.pass.groups[0], "fast");
}

static void a_pass_holds_25_hours_and_is_new_each_hour(void **state)
{
	struct sp_pass p, q;
	(void)state;
	struct con_grant g = grant("ann");
	uint64_t slot = con_pass_slot(device, T0);
	assert_true(slot <= T0 && slot + HOUR > T0);
	assert_int_equal(con_pass_slot(device, slot), slot);
	assert_int_equal(con_pass_slot(device, slot + HOUR - 1), slot);
	assert_int_equal(con_pass_slot(device, slot + HOUR), slot + HOUR);
	con_pass_fill(&g, w.state, device, slot, &p);
	assert_int_equal(p.not_before_s, slot);
	assert_int_equal(p.expires_s, slot + 25 * HOUR);
	con_pass_fill(&g, w.state, device, slot, &q);
	assert_memory_equal(p.serial, q.serial, sizeof(p.serial));
	con_pass_fill(&g, w.state, device, slot + HOUR, &q);
	assert_memory_not_equal(p.serial, q.serial, sizeof(p.serial));
}

static void devices_renew_at_different_times_of_the_hour(void **state)
{
	unsigned quarter[4] = {0};
	(void)state;
	for (unsigned i = 0; i < 4000; i++) {
		uint8_t d[32];
		memset(d, 0, sizeof(d));
		memcpy(d, &i, sizeof(i));
		uint64_t slot = con_pass_slot(d, T0);
		quarter[(T0 - slot) / (HOUR / 4)]++;
	}
	for (int i = 0; i < 4; i++)
		assert_in_range(quarter[i], 860, 1140);
}

static void a_pass_ends_with_its_user(void **state)
{
	struct sp_pass p;
	(void)state;
	world_set(&w, "user/eve", "{\"tier\":\"free\",\"expires\":1800000100}");
	assert_int_equal(judge("eve"), CON_REFUSAL_NONE);
	struct con_grant g = grant("eve");
	con_pass_fill(&g, w.state, device, con_pass_slot(device, T0), &p);
	assert_int_equal(p.expires_s, T0 + 100);
	assert_int_equal(con_grant_judge(&g, w.state, device, false, T0 + 100),
			 CON_REFUSAL_EXPIRED);
}

static void refusals_name_their_cause(void **state)
{
	struct con_grant g;
	(void)state;
	assert_int_equal(con_grant_read(w.state, "nobody", &g), -ENOENT);
	assert_int_equal(con_grant_read(w.state, "../x", &g), -ENOENT);
	assert_int_equal(judge("ann"), CON_REFUSAL_NONE);
	g = grant("ann");
	assert_int_equal(con_grant_judge(&g, w.state, device, true, T0),
			 CON_REFUSAL_QUOTA);
	world_set(&w, "user/off", "{\"tier\":\"free\",\"disabled\":true}");
	assert_int_equal(judge("off"), CON_REFUSAL_DISABLED);
	world_set(&w, "user/lost", "{\"tier\":\"gone\"}");
	assert_int_equal(judge("lost"), CON_REFUSAL_TIER);
	world_set(&w,
		  "revoked/device/"
		  "0707000000000000000000000000000000000000000000000000000000000000",
		  "{\"before\":1}");
	assert_int_equal(judge("ann"), CON_REFUSAL_REVOKED);
	world_set(&w,
		  "revoked/device/"
		  "0707000000000000000000000000000000000000000000000000000000000000",
		  NULL);
}

static void a_pass_after_a_revocation_is_not_one_of_before(void **state)
{
	struct sp_pass p, q;
	char key[80], json[80], hex[40];
	(void)state;
	struct con_grant g = grant("ann");
	uint64_t slot = con_pass_slot(device, T0);
	con_pass_fill(&g, w.state, device, slot, &p);
	snprintf(json, sizeof(json), "{\"before\":%llu}", (unsigned long long)slot + 60);
	world_set(&w, "revoked/user/ann", json);
	g = grant("ann");
	con_pass_fill(&g, w.state, device, slot, &q);
	assert_int_equal(q.not_before_s, slot + 60);
	assert_memory_not_equal(p.serial, q.serial, sizeof(p.serial));
	world_set(&w, "revoked/user/ann", NULL);
	g = grant("ann");
	sodium_bin2hex(hex, sizeof(hex), p.serial, sizeof(p.serial));
	snprintf(key, sizeof(key), "revoked/serial/%s", hex);
	world_set(&w, key, "{\"before\":1}");
	con_pass_fill(&g, w.state, device, slot, &q);
	assert_memory_not_equal(p.serial, q.serial, sizeof(p.serial));
	world_set(&w, key, NULL);
}

// ---- devices ----

struct mirror {
	unsigned seen, gone;
};

static void on_seen(void *ctx, const char *user, const uint8_t *key, uint64_t now)
{
	(void)user, (void)key, (void)now;
	((struct mirror *)ctx)->seen++;
}

static void on_gone(void *ctx, const char *user, const uint8_t *key)
{
	(void)user, (void)key;
	((struct mirror *)ctx)->gone++;
}

static void users_have_so_many_devices_and_no_more(void **state)
{
	static const struct con_devices_mirror ops = {on_seen, on_gone};
	struct mirror m = {0};
	struct con_devices *d;
	uint8_t a[32] = {1}, b[32] = {2}, c[32] = {3};
	(void)state;
	assert_int_equal(con_devices_new(&ops, &m, &d), 0);
	assert_int_equal(con_devices_admit(d, "ann", a, 2, T0), 0);
	assert_int_equal(con_devices_admit(d, "ann", b, 2, T0 + 10), 0);
	assert_int_equal(con_devices_admit(d, "ann", c, 2, T0 + 20), SP_E_LIMIT);
	assert_int_equal(con_devices_admit(d, "ann", a, 2, T0 + 30), 0);
	assert_int_equal(con_devices_admit(d, "bob", c, 2, T0 + 20), 0);
	assert_int_equal(m.seen, 3);
	assert_int_equal(con_devices_admit(d, "ann", a, 2, T0 + CON_DEVICE_TELL_S), 0);
	assert_int_equal(m.seen, 4);
	assert_int_equal(con_devices_count(d, "ann"), 2);
	assert_true(con_devices_remove(d, "ann", a));
	assert_false(con_devices_remove(d, "ann", a));
	assert_int_equal(con_devices_admit(d, "ann", c, 2, T0 + 40), 0);
	assert_int_equal(con_devices_count(d, NULL), 3);
	con_devices_free(d);
}

static void a_device_that_was_not_seen_for_a_month_makes_room(void **state)
{
	static const struct con_devices_mirror ops = {on_seen, on_gone};
	struct mirror m = {0};
	struct con_devices *d;
	uint8_t a[32] = {1}, b[32] = {2}, c[32] = {3};
	(void)state;
	assert_int_equal(con_devices_new(&ops, &m, &d), 0);
	assert_int_equal(con_devices_set(d, "ann", a, T0), 0);
	assert_int_equal(con_devices_set(d, "ann", b, T0 + 10), 0);
	assert_int_equal(m.seen, 0); // it comes from there
	assert_int_equal(con_devices_admit(d, "ann", c, 2, T0 + CON_DEVICE_KEEP_S - 1),
			 SP_E_LIMIT);
	assert_int_equal(con_devices_admit(d, "ann", c, 2, T0 + CON_DEVICE_KEEP_S), 0);
	assert_int_equal(m.gone, 1);
	assert_int_equal(con_devices_admit(d, "ann", a, 2, T0 + CON_DEVICE_KEEP_S),
			 SP_E_LIMIT);
	con_devices_free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_pass_says_what_the_tier_allows),
		cmocka_unit_test(a_pass_holds_25_hours_and_is_new_each_hour),
		cmocka_unit_test(devices_renew_at_different_times_of_the_hour),
		cmocka_unit_test(a_pass_ends_with_its_user),
		cmocka_unit_test(refusals_name_their_cause),
		cmocka_unit_test(a_pass_after_a_revocation_is_not_one_of_before),
		cmocka_unit_test(users_have_so_many_devices_and_no_more),
		cmocka_unit_test(a_device_that_was_not_seen_for_a_month_makes_room),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
