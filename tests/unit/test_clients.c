// What each client of the config endpoint is told, and the ETag of that.
#include "endpoint_world.h"

#define T0 UINT64_C(1800000000)

struct clients_world {
	struct fleet_world f;
	struct con_devices *devices;
	struct con_clients *cs;
	char token[CON_TOKEN_TEXT_MAX], device[SP_KEY_TEXT_MAX];
	bool over;
	const char *down;
};

// The fleet world is the first member, so that both callbacks have one context.
static bool over_quota(void *ctx, const char *user)
{
	return ((struct clients_world *)ctx)->over && strcmp(user, "ann") == 0;
}

static void judge(void *ctx, const char *worker, const char *region,
		  struct con_view_health *ret)
{
	const char *down = ((struct clients_world *)ctx)->down;
	(void)region;
	*ret = (struct con_view_health){
		.offered = !down || (strcmp(down, "*") && strcmp(worker, down)),
		.percent = 100};
}

static void make(struct clients_world *w)
{
	memset(w, 0, sizeof(*w));
	world_init(&w->f, 8);
	world_token(&w->f, "ann", 0, w->token);
	world_device(1, w->device);
	assert_int_equal(con_devices_new(NULL, NULL, &w->devices), 0);
	struct con_clients_options o = {.token_rate = 1,
					.token_burst = 2,
					.secret = w->f.secret,
					.devices = w->devices,
					.state = world_state,
					.head = world_head,
					.over_quota = over_quota,
					.judge = judge,
					.ctx = w};
	assert_int_equal(con_clients_new(&o, T0, &w->cs), 0);
}

static void drop(struct clients_world *w)
{
	con_clients_free(w->cs);
	con_devices_free(w->devices);
	world_done(&w->f);
}

static struct con_client *find(struct clients_world *w, const char *device)
{
	struct con_client_key key = {.token = w->token, .device = device};
	return con_clients_find(w->cs, &key, T0);
}

// Sets an entry, and tells the clients of it.
static bool change(struct clients_world *w, const char *key, const char *json)
{
	struct sp_changes c = {0};
	json_t *o = json ? json_loads(json, 0, NULL) : NULL;
	assert_int_equal(sp_changes_add(&c, key, o), 0);
	json_decref(o);
	assert_int_equal(sp_state_apply(w->f.state, &c), 0);
	w->f.head.sequence++;
	bool changed = con_clients_changed(w->cs, &c, T0);
	sp_changes_done(&c);
	return changed;
}

static struct sp_fleet_client *config(struct clients_world *w, struct con_client *c,
				      uint64_t now_s)
{
	char *text;
	size_t len;
	assert_true(con_client_refresh(w->cs, c, now_s));
	assert_int_equal(con_client_config(w->cs, c, now_s, &text, &len), 0);
	struct sp_fleet_client *f = world_open(&w->f, text, len);
	free(text);
	return f;
}

static char *etag(struct clients_world *w, struct con_client *c, char *buf)
{
	assert_true(con_client_refresh(w->cs, c, T0));
	return strcpy(buf, con_client_etag(c));
}

static void a_good_token_gets_exits_pass_and_time(void **state)
{
	struct clients_world w;
	struct sp_pass p;
	(void)state;
	make(&w);
	struct sp_fleet_client *f = config(&w, find(&w, w.device), T0);
	assert_int_equal(f->revision.epoch, 1);
	assert_int_equal(f->revision.sequence, w.f.head.sequence);
	assert_int_equal(f->server_time_s, T0);
	assert_int_equal(f->issued_s, T0);
	assert_int_equal(f->refresh_s, 90);
	assert_int_equal(f->n_endpoints, 2);
	assert_string_equal(f->endpoints[1], "https://b.example/v1/config");
	assert_int_equal(f->n_exits, 8);
	assert_int_equal(f->exits[0].weight, 100);
	assert_string_equal(f->pass_refused, "");
	assert_int_equal(sp_pass_open(&w.f.keys, f->pass, f->pass_len, &p), 0);
	assert_string_equal(p.user, "ann");
	assert_int_equal(sp_pass_judge_time(&p, T0, 0), SP_REASON_NONE);
	sp_fleet_client_free(f);
	drop(&w);
}

static void strangers_are_nobody(void **state)
{
	struct clients_world w;
	char expired[CON_TOKEN_TEXT_MAX], bad[CON_TOKEN_TEXT_MAX];
	(void)state;
	make(&w);
	world_token(&w.f, "ann", T0, expired);
	strcpy(bad, w.token);
	bad[20] ^= 1;
	const char *const tokens[] = {NULL, "", "spt_", "x", bad, expired};
	for (size_t i = 0; i < sizeof(tokens) / sizeof(tokens[0]); i++) {
		struct con_client_key key = {.token = tokens[i], .device = w.device};
		assert_null(con_clients_find(w.cs, &key, T0));
	}
	assert_int_equal(con_clients_count(w.cs), 0);
	drop(&w);
}

static void an_etag_does_not_depend_on_time_token_or_unrelated_changes(void **state)
{
	struct clients_world w;
	char before[CON_CLIENT_ETAG_MAX], after[CON_CLIENT_ETAG_MAX];
	(void)state;
	make(&w);
	struct con_client *c = find(&w, w.device);
	etag(&w, c, before);
	uint64_t until = con_client_until(c);
	assert_true(con_client_refresh(w.cs, c, until - 1));
	assert_string_equal(con_client_etag(c), before);
	assert_true(change(&w, "user/zoe", "{\"tier\":\"free\"}"));
	assert_string_equal(etag(&w, c, after), before);
	assert_true(change(&w, "tier/paid", "{\"max_streams\":5}"));
	assert_string_equal(etag(&w, c, after), before);
	assert_false(change(&w, "policy", "{\"rules\":[]}"));
	// Another token of the same user, at another controller.
	struct con_client *old = c;
	char token[CON_TOKEN_TEXT_MAX];
	world_token(&w.f, "ann", 0, token);
	struct con_client_key key = {.token = token, .device = w.device};
	assert_non_null(c = con_clients_find(w.cs, &key, T0));
	assert_ptr_not_equal(c, old);
	assert_string_equal(etag(&w, c, after), before);
	drop(&w);
}

static void an_etag_changes_with_what_the_client_acts_on(void **state)
{
	struct clients_world w;
	char tag[6][CON_CLIENT_ETAG_MAX];
	(void)state;
	make(&w);
	struct con_client *c = find(&w, w.device);
	etag(&w, c, tag[0]);
	w.down = "n3/0";
	assert_true(con_clients_judge(w.cs, T0));
	etag(&w, c, tag[1]);
	w.down = NULL;
	assert_true(con_clients_judge(w.cs, T0));
	assert_false(con_clients_judge(w.cs, T0));
	assert_string_equal(etag(&w, c, tag[2]), tag[0]);
	assert_true(change(&w, "tier/free", "{\"max_streams\":7}"));
	etag(&w, c, tag[2]);
	assert_true(change(&w, "fleet", "{\"endpoints\":[\"https://c.example/x\"]}"));
	etag(&w, c, tag[3]);
	w.over = true;
	con_clients_poke(w.cs);
	etag(&w, c, tag[4]);
	assert_int_equal(con_client_refusal(c), CON_REFUSAL_QUOTA);
	w.over = false;
	con_clients_poke(w.cs);
	assert_true(con_client_refresh(w.cs, c, con_client_until(c)));
	strcpy(tag[5], con_client_etag(c)); // an hour on
	for (int i = 0; i < 6; i++)
		for (int k = 0; k < i; k++)
			assert_string_not_equal(tag[i], tag[k]);
	drop(&w);
}

static void the_hour_of_a_pass_ends_exactly(void **state)
{
	struct clients_world w;
	char before[CON_CLIENT_ETAG_MAX];
	struct sp_pass p, q;
	(void)state;
	make(&w);
	struct con_client *c = find(&w, w.device);
	etag(&w, c, before);
	uint64_t until = con_client_until(c);
	assert_in_range(until, T0 + 1, T0 + CON_PASS_SLOT_S);
	struct sp_fleet_client *f = config(&w, c, until - 1);
	assert_string_equal(con_client_etag(c), before);
	assert_int_equal(sp_pass_open(&w.f.keys, f->pass, f->pass_len, &p), 0);
	sp_fleet_client_free(f);
	f = config(&w, c, until);
	assert_string_not_equal(con_client_etag(c), before);
	assert_int_equal(sp_pass_open(&w.f.keys, f->pass, f->pass_len, &q), 0);
	sp_fleet_client_free(f);
	assert_int_equal(q.not_before_s, p.not_before_s + CON_PASS_SLOT_S);
	assert_int_equal(q.expires_s, q.not_before_s + CON_PASS_VALID_S);
	drop(&w);
}

static void who_gets_no_pass_is_told_why_and_still_gets_exits(void **state)
{
	struct clients_world w;
	char second[SP_KEY_TEXT_MAX], third[SP_KEY_TEXT_MAX];
	(void)state;
	make(&w);
	struct con_client *c = find(&w, w.device);
	assert_true(change(&w, "user/ann",
			   "{\"tier\":\"free\",\"max_devices\":2,"
			   "\"disabled\":true}"));
	struct sp_fleet_client *f = config(&w, c, T0);
	assert_string_equal(f->pass_refused, "disabled");
	assert_int_equal(f->pass_len, 0);
	assert_int_equal(f->n_exits, 8);
	sp_fleet_client_free(f);
	assert_true(change(&w, "user/ann", "{\"tier\":\"free\",\"max_devices\":2}"));
	f = config(&w, find(&w, NULL), T0);
	assert_string_equal(f->pass_refused, "device");
	sp_fleet_client_free(f);
	f = config(&w, find(&w, world_device(2, second)), T0);
	assert_string_equal(f->pass_refused, "");
	sp_fleet_client_free(f);
	f = config(&w, find(&w, world_device(3, third)), T0);
	assert_string_equal(f->pass_refused, "devices");
	sp_fleet_client_free(f);
	drop(&w);
}

static void a_token_or_user_that_goes_makes_a_stranger(void **state)
{
	struct clients_world w;
	struct sp_state_entry e;
	char key[SP_STATE_KEY_MAX + 1];
	size_t at = 0;
	(void)state;
	make(&w);
	struct con_client *c = find(&w, w.device);
	con_client_hold(c);
	assert_true(sp_state_next(w.f.state, "token/", &at, &e));
	strcpy(key, e.key);
	assert_true(change(&w, key, NULL));
	assert_false(con_client_refresh(w.cs, c, T0));
	assert_null(find(&w, w.device));
	con_client_release(c);
	world_token(&w.f, "ann", 0, w.token);
	assert_non_null(find(&w, w.device));
	assert_true(change(&w, "user/ann", NULL));
	assert_null(find(&w, w.device));
	drop(&w);
}

static void a_token_ends_in_its_second(void **state)
{
	struct clients_world w;
	(void)state;
	make(&w);
	world_token(&w.f, "ann", T0 + 5, w.token);
	struct con_client *c = find(&w, w.device);
	assert_non_null(c);
	assert_int_equal(con_client_until(c), T0 + 5);
	assert_true(con_client_refresh(w.cs, c, T0 + 4));
	assert_false(con_client_refresh(w.cs, c, T0 + 5));
	drop(&w);
}

static void one_token_may_ask_so_often(void **state)
{
	struct clients_world w;
	char second[SP_KEY_TEXT_MAX];
	(void)state;
	make(&w);
	struct con_client *c = find(&w, w.device);
	struct con_client *d = find(&w, world_device(2, second));
	assert_true(con_client_may_ask(w.cs, c, 1000));
	assert_true(con_client_may_ask(w.cs, d, 1000));
	assert_false(con_client_may_ask(w.cs, c, 1000));
	assert_true(con_client_may_ask(w.cs, d, 2000));
	assert_false(con_client_may_ask(w.cs, c, 2000));
	drop(&w);
}

static void without_any_exit_there_is_none(void **state)
{
	struct clients_world w;
	(void)state;
	make(&w);
	w.down = "*";
	con_clients_judge(w.cs, T0);
	assert_false(con_client_has_exits(find(&w, w.device)));
	drop(&w);
}

static void the_stalest_clients_make_room(void **state)
{
	struct clients_world w;
	char device[SP_KEY_TEXT_MAX];
	(void)state;
	make(&w);
	struct con_client *held = find(&w, w.device);
	con_client_hold(held);
	for (unsigned i = 10; i < CON_CLIENTS_MAX + 200; i++)
		assert_non_null(find(&w, world_device(i, device)));
	assert_int_equal(con_clients_count(w.cs), CON_CLIENTS_MAX);
	assert_ptr_equal(find(&w, w.device), held);
	con_client_release(held);
	drop(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_good_token_gets_exits_pass_and_time),
		cmocka_unit_test(strangers_are_nobody),
		cmocka_unit_test(
			an_etag_does_not_depend_on_time_token_or_unrelated_changes),
		cmocka_unit_test(an_etag_changes_with_what_the_client_acts_on),
		cmocka_unit_test(the_hour_of_a_pass_ends_exactly),
		cmocka_unit_test(who_gets_no_pass_is_told_why_and_still_gets_exits),
		cmocka_unit_test(a_token_or_user_that_goes_makes_a_stranger),
		cmocka_unit_test(a_token_ends_in_its_second),
		cmocka_unit_test(one_token_may_ask_so_often),
		cmocka_unit_test(without_any_exit_there_is_none),
		cmocka_unit_test(the_stalest_clients_make_room),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
