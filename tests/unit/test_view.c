// Which exits a client is told of: what is filtered, how load spreads, what a change
// moves.
#include "endpoint_world.h"

struct view_world {
	struct fleet_world f;
	struct con_view *view;
	const char *down;        // a worker that is not offered,
	const char *blocked_for; // or "": everywhere, else only in that region
	const char *slow;        // a worker that has only just returned
	const char *near;        // a worker with a latency of 10 ms; others have 400
	uint32_t near_us;
	unsigned asked;
};

static void judge(void *ctx, const char *worker, const char *region,
		  struct con_view_health *ret)
{
	struct view_world *w = ctx;
	w->asked++;
	*ret = (struct con_view_health){.offered = true, .percent = 100};
	if (w->down && strcmp(worker, w->down) == 0 &&
	    (!w->blocked_for || strcmp(region, w->blocked_for) == 0))
		ret->offered = false;
	if (w->slow && strcmp(worker, w->slow) == 0)
		ret->percent = 25;
	if (w->near)
		ret->latency_us = strcmp(worker, w->near) == 0 ? w->near_us : 400000;
}

static void feed(struct view_world *w)
{
	struct sp_state_entry e;
	for (size_t at = 0; sp_state_next(w->f.state, "", &at, &e);)
		assert_int_equal(con_view_set(w->view, e.key, e.json, e.json_len), 0);
	assert_true(con_view_refresh(w->view, 1000));
}

static void make(struct view_world *w, unsigned nodes)
{
	memset(w, 0, sizeof(*w));
	world_init(&w->f, nodes);
	assert_int_equal(con_view_new(judge, w, &w->view), 0);
	feed(w);
}

static void drop(struct view_world *w)
{
	con_view_free(w->view);
	world_done(&w->f);
}

static void select_for(struct view_world *w, unsigned device, unsigned region,
		       struct con_view_list *ret)
{
	uint8_t key[32];
	crypto_generichash(key, 32, (const uint8_t *)&device, sizeof(device), NULL, 0);
	struct con_view_client who = {.device = key, .region = region};
	con_view_select(w->view, &who, ret);
}

// The name of exit `i` of a list, static.
static const char *name_of(struct view_world *w, const struct con_view_list *l,
			   unsigned i)
{
	static char name[64];
	size_t len;
	const char *json = con_view_exit(w->view, l->exit[i], &len);
	json_t *o = json_loadb(json, len, 0, NULL);
	snprintf(name, sizeof(name), "%s", json_string_value(json_object_get(o, "name")));
	json_decref(o);
	return name;
}

static bool has(struct view_world *w, const struct con_view_list *l, const char *name)
{
	for (unsigned i = 0; i < l->n; i++)
		if (strcmp(name_of(w, l, i), name) == 0)
			return true;
	return false;
}

static void a_list_is_the_same_however_it_came_about(void **state)
{
	struct view_world a, b;
	struct con_view_list x, y;
	(void)state;
	make(&a, 40);
	make(&b, 4);
	// The same nodes, the last one first.
	for (int i = 39; i >= 0; i--) {
		char key[32];
		snprintf(key, sizeof(key), "identity/n%d/0", i);
		const char *json = sp_state_get(a.f.state, key, NULL);
		assert_int_equal(con_view_set(b.view, key, json, strlen(json)), 0);
		snprintf(key, sizeof(key), "node/n%d/0", i);
		json = sp_state_get(a.f.state, key, NULL);
		assert_int_equal(con_view_set(b.view, key, json, strlen(json)), 0);
	}
	con_view_refresh(b.view, 1000);
	for (unsigned d = 0; d < 50; d++) {
		select_for(&a, d, 0, &x);
		select_for(&b, d, 0, &y);
		assert_int_equal(x.n, CON_VIEW_EXITS);
		assert_int_equal(y.n, CON_VIEW_EXITS);
		assert_true(x.digest == y.digest);
		for (unsigned i = 0; i < x.n; i++) {
			char name[64];
			snprintf(name, sizeof(name), "%s", name_of(&a, &x, i));
			assert_string_equal(name, name_of(&b, &y, i));
		}
	}
	drop(&a);
	drop(&b);
}

static void clients_spread_by_weight(void **state)
{
	enum { CLIENTS = 20000 };
	struct view_world w;
	struct con_view_list l;
	unsigned first[4] = {0};
	(void)state;
	make(&w, 4);
	// 100, 300, 100, and a standby
	json_t *o = sp_state_get_object(w.f.state, "node/n1/0");
	json_object_set_new(o, "weight", json_integer(300));
	char *text = json_dumps(o, 0);
	assert_int_equal(con_view_set(w.view, "node/n1/0", text, strlen(text)), 0);
	free(text);
	json_object_set_new(o, "weight", json_integer(0));
	text = json_dumps(o, 0);
	assert_int_equal(con_view_set(w.view, "node/n3/0", text, strlen(text)), 0);
	free(text);
	json_decref(o);
	con_view_refresh(w.view, 1000);
	for (unsigned d = 0; d < CLIENTS; d++) {
		select_for(&w, d, 0, &l);
		assert_int_equal(l.n, 4);
		first[name_of(&w, &l, 0)[1] - '0']++;
		assert_string_equal(name_of(&w, &l, 3), "n3");
	}
	// 1/5, 3/5, 1/5 within 5 standard deviations
	assert_in_range(first[0], CLIENTS / 5 - 285, CLIENTS / 5 + 285);
	assert_in_range(first[1], 3 * CLIENTS / 5 - 350, 3 * CLIENTS / 5 + 350);
	assert_in_range(first[2], CLIENTS / 5 - 285, CLIENTS / 5 + 285);
	drop(&w);
}

static void a_node_that_goes_moves_only_those_who_had_it(void **state)
{
	struct view_world w;
	struct con_view_list before[200], after;
	unsigned moved = 0;
	(void)state;
	make(&w, 60);
	for (unsigned d = 0; d < 200; d++)
		select_for(&w, d, 0, &before[d]);
	w.down = "n7/0";
	assert_true(con_view_refresh(w.view, 1001));
	for (unsigned d = 0; d < 200; d++) {
		bool had = has(&w, &before[d], "n7");
		select_for(&w, d, 0, &after);
		assert_int_equal(after.n, CON_VIEW_EXITS);
		assert_false(has(&w, &after, "n7"));
		assert_int_equal(had, after.digest != before[d].digest);
		moved += had;
	}
	assert_in_range(moved, 60, 150); // 32 of 60
	w.down = NULL;
	assert_true(con_view_refresh(w.view, 1002));
	for (unsigned d = 0; d < 200; d++) {
		select_for(&w, d, 0, &after);
		assert_true(after.digest == before[d].digest);
	}
	drop(&w);
}

static void a_region_from_which_a_node_is_blocked_is_not_told_of_it(void **state)
{
	struct view_world w;
	struct con_view_list l;
	(void)state;
	make(&w, 4);
	unsigned eu = con_view_region(w.view, "eu"), us = con_view_region(w.view, "us");
	assert_true(eu && us && eu != us);
	assert_int_equal(con_view_region(w.view, "mars"), 0);
	assert_int_equal(con_view_region(w.view, "eu"), eu);
	w.down = "n0/0";
	w.blocked_for = "eu";
	con_view_refresh(w.view, 1001);
	select_for(&w, 1, eu, &l);
	assert_false(has(&w, &l, "n0"));
	select_for(&w, 1, us, &l);
	assert_true(has(&w, &l, "n0"));
	select_for(&w, 1, 0, &l);
	assert_true(has(&w, &l, "n0"));
	drop(&w);
}

static void groups_of_the_tier_filter(void **state)
{
	static const char groups[1][SP_PASS_WORD_MAX + 1] = {"fast"};
	static const char other[1][SP_PASS_WORD_MAX + 1] = {"other"};
	struct view_world w;
	struct con_view_list l;
	uint8_t key[32] = {1};
	struct con_view_client who = {.device = key, .n_groups = 1, .groups = groups};
	(void)state;
	make(&w, 8); // n0 and n4 are fast; the others are of no group and admit all
	con_view_select(w.view, &who, &l);
	assert_int_equal(l.n, 8);
	who.groups = other;
	con_view_select(w.view, &who, &l);
	assert_int_equal(l.n, 6);
	assert_false(has(&w, &l, "n0"));
	assert_false(has(&w, &l, "n4"));
	drop(&w);
}

static void leases_hide_a_node_until_they_end(void **state)
{
	static const char lease[] = "{\"kind\":\"drain\",\"until\":2000}";
	struct view_world w;
	struct con_view_list l;
	(void)state;
	make(&w, 3);
	assert_int_equal(con_view_set(w.view, "lease/n1", lease, sizeof(lease) - 1), 0);
	assert_true(con_view_refresh(w.view, 1999));
	select_for(&w, 1, 0, &l);
	assert_int_equal(l.n, 2);
	assert_false(has(&w, &l, "n1"));
	assert_true(con_view_refresh(w.view, 2000));
	select_for(&w, 1, 0, &l);
	assert_true(has(&w, &l, "n1"));
	assert_int_equal(con_view_set(w.view, "lease/n1", NULL, 0), 0);
	con_view_refresh(w.view, 1999);
	select_for(&w, 1, 0, &l);
	assert_int_equal(l.n, 3);
	drop(&w);
}

static void near_exits_come_first_for_most(void **state)
{
	struct view_world w;
	struct con_view_list l;
	unsigned first = 0;
	(void)state;
	make(&w, 4);
	w.near = "n2/0";
	w.near_us = 10000;
	con_view_refresh(w.view, 1001);
	for (unsigned d = 0; d < 1000; d++) {
		select_for(&w, d, 0, &l);
		first += strcmp(name_of(&w, &l, 0), "n2") == 0;
	}
	assert_in_range(first, 650, 800); // 8 of 11
	drop(&w);
}

static void small_changes_of_latency_wake_nobody(void **state)
{
	struct view_world w;
	(void)state;
	make(&w, 4);
	w.near = "n2/0";
	w.near_us = 49000;
	con_view_refresh(w.view, 1001);
	for (int i = 0; i < 20; i++) {
		w.near_us = i % 2 ? 49000 : 56000; // about the bound of a step
		assert_false(con_view_refresh(w.view, 1002));
	}
	w.near_us = 99000;
	assert_true(con_view_refresh(w.view, 1003));
	w.near_us = 45000;
	assert_false(con_view_refresh(w.view, 1004));
	w.near_us = 30000;
	assert_true(con_view_refresh(w.view, 1005));
	drop(&w);
}

static void a_node_that_returns_starts_with_a_part_of_its_weight(void **state)
{
	struct view_world w;
	struct con_view_list l;
	unsigned first = 0;
	(void)state;
	make(&w, 4);
	w.slow = "n2/0";
	con_view_refresh(w.view, 1001);
	for (unsigned d = 0; d < 2000; d++) {
		select_for(&w, d, 0, &l);
		first += strcmp(name_of(&w, &l, 0), "n2") == 0;
	}
	assert_in_range(first, 90, 220); // 1 of 13
	drop(&w);
}

static void who_was_not_enrolled_is_not_told_of(void **state)
{
	struct view_world w;
	struct con_view_list l;
	struct con_view_counts n;
	(void)state;
	make(&w, 3);
	assert_int_equal(con_view_set(w.view, "identity/n1/0", NULL, 0), 0);
	assert_int_equal(con_view_set(w.view, "identity/n2/0", "{\"static\":\"x\"}", 14),
			 SP_E_MALFORMED);
	con_view_refresh(w.view, 1001);
	select_for(&w, 1, 0, &l);
	assert_int_equal(l.n, 1);
	assert_string_equal(name_of(&w, &l, 0), "n0");
	con_view_count(w.view, &n);
	assert_int_equal(n.nodes, 3);
	assert_int_equal(n.enrolled, 1);
	assert_int_equal(n.offered, 1);
	drop(&w);
}

static void workers_of_one_node_are_exits_of_their_own(void **state)
{
	struct view_world w;
	struct con_view_list l;
	(void)state;
	make(&w, 2);
	const char *node = sp_state_get(w.f.state, "node/n0/0", NULL);
	world_enrol(&w.f, "n0/1");
	const char *identity = sp_state_get(w.f.state, "identity/n0/1", NULL);
	assert_int_equal(con_view_set(w.view, "node/n0/1", node, strlen(node)), 0);
	assert_int_equal(
		con_view_set(w.view, "identity/n0/1", identity, strlen(identity)), 0);
	con_view_refresh(w.view, 1001);
	select_for(&w, 1, 0, &l);
	assert_int_equal(l.n, 3);
	assert_true(has(&w, &l, "n0.1"));
	assert_true(has(&w, &l, "n0"));
	// A node of that very name: no config has it twice.
	assert_int_equal(con_view_set(w.view, "node/n0.1/0", node, strlen(node)), 0);
	assert_int_equal(
		con_view_set(w.view, "identity/n0.1/0", identity, strlen(identity)), 0);
	con_view_refresh(w.view, 1001);
	for (unsigned d = 0; d < 20; d++) {
		unsigned twice = 0;
		select_for(&w, d, 0, &l);
		for (unsigned i = 0; i < l.n; i++)
			twice += strcmp(name_of(&w, &l, i), "n0.1") == 0;
		assert_int_equal(twice, 1);
	}
	drop(&w);
}

static void clients_are_not_told_where_a_worker_is_bound(void **state)
{
	struct view_world w;
	struct con_view_list l;
	size_t len;
	(void)state;
	make(&w, 1);
	select_for(&w, 1, 0, &l);
	const char *json = con_view_exit(w.view, l.exit[0], &len);
	assert_null(strstr(json, "listen"));
	assert_non_null(strstr(json, "10.0.0.0:443"));
	drop(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_list_is_the_same_however_it_came_about),
		cmocka_unit_test(clients_spread_by_weight),
		cmocka_unit_test(a_node_that_goes_moves_only_those_who_had_it),
		cmocka_unit_test(a_region_from_which_a_node_is_blocked_is_not_told_of_it),
		cmocka_unit_test(groups_of_the_tier_filter),
		cmocka_unit_test(leases_hide_a_node_until_they_end),
		cmocka_unit_test(near_exits_come_first_for_most),
		cmocka_unit_test(small_changes_of_latency_wake_nobody),
		cmocka_unit_test(a_node_that_returns_starts_with_a_part_of_its_weight),
		cmocka_unit_test(who_was_not_enrolled_is_not_told_of),
		cmocka_unit_test(workers_of_one_node_are_exits_of_their_own),
		cmocka_unit_test(clients_are_not_told_where_a_worker_is_bound),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
