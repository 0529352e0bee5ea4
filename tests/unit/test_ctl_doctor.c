// What a doctor makes of a controller's answers, and tables.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ctl/checks.h"
#include "ctl/grid.h"
#include "ctl/verbs.h"

#define NOW_MS UINT64_C(1800000000000)

static json_t *parse(const char *text)
{
	json_t *o = json_loads(text, 0, NULL);
	assert_non_null(o);
	return o;
}

static const char *member(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));
	return text ? text : "";
}

// The check of that area and thing; it must be there, once.
static const json_t *find(const struct ctl_checks *k, const char *area, const char *about)
{
	const json_t *o, *found = NULL;
	size_t i;
	json_array_foreach(k->list, i, o)
	{
		if (strcmp(member(o, "area"), area) != 0 ||
		    strcmp(member(o, "about"), about) != 0)
			continue;
		assert_null(found);
		found = o;
	}
	assert_non_null(found);
	return found;
}

static void assert_grade(const struct ctl_checks *k, const char *area, const char *about,
			 const char *grade, const char *says)
{
	const json_t *o = find(k, area, about);
	assert_string_equal(member(o, "grade"), grade);
	assert_non_null(strstr(member(o, "text"), says));
	assert_int_equal(strcmp(grade, "ok") == 0, !*member(o, "remedy"));
}

static void done(struct ctl_checks *k)
{
	json_decref(k->list);
}

// A controller that is well; `change` is merged into its members.
static json_t *controller(const char *member_name, const char *change)
{
	json_t *o = parse(
		"{\"fleet\":\"t\",\"time_ms\":1800000000000,\"started_ms\":1799999000000,"
		"\"synced\":true,\"redis\":{\"up\":true,\"address\":\"r\",\"why\":\"\","
		"\"answered_us\":900,\"time_ms\":1800000000100,\"asked_at_ms\":"
		"1800000000000,\"position\":{\"epoch\":2,\"sequence\":9,\"hash\":\"ab\"},"
		"\"stream_sequence\":9,\"stream_entries\":4,\"used_memory\":9000000,"
		"\"maxmemory\":0,\"maxmemory_policy\":\"noeviction\"},\"journal\":{"
		"\"folder\":\"/s\",\"position\":{\"epoch\":2,\"sequence\":9,\"hash\":"
		"\"ab\"},\"bytes\":100,\"errors\":0,\"disk_bytes\":100000000000,"
		"\"disk_free_bytes\":50000000000}}");
	json_t *c = parse(change);
	json_object_update(json_object_get(o, member_name), c);
	json_decref(c);
	return o;
}

static struct ctl_checks judge(const char *member_name, const char *change)
{
	struct ctl_checks k = {0};
	json_t *o = controller(member_name, change);
	ctl_check_controller(&k, o, NOW_MS);
	json_decref(o);
	return k;
}

static void a_controller_that_is_well_is_told_so(void **state)
{
	(void)state;
	struct ctl_checks k = judge("redis", "{}");
	assert_int_equal(k.n[CTL_WARN] + k.n[CTL_BAD], 0);
	assert_int_equal(k.n[CTL_GOOD], json_array_size(k.list));
	assert_grade(&k, "revisions", "", "ok", "epoch 2, sequence 9");
	done(&k);
}

static void clocks_that_are_apart_are_told(void **state)
{
	struct ctl_checks k = {0};
	json_t *o = controller("redis", "{\"time_ms\":1800000003000}");
	(void)state;
	ctl_check_controller(&k, o, NOW_MS - 40000);
	assert_grade(&k, "clock", "controller and Redis", "warn", "3.000 s");
	assert_grade(&k, "clock", "this host and the controller", "fail", "40.000 s");
	json_decref(o);
	done(&k);
}

static void a_redis_that_is_away_slow_or_elsewhere_is_told(void **state)
{
	(void)state;
	struct ctl_checks k =
		judge("redis", "{\"answered_us\":null,\"why\":\"refused\"}");
	assert_grade(&k, "redis", "r", "fail", "refused");
	done(&k);
	k = judge("redis", "{\"answered_us\":60000}");
	assert_grade(&k, "redis", "r", "warn", "60.0 ms");
	done(&k);
	k = judge("redis", "{\"position\":{\"epoch\":2,\"sequence\":7,\"hash\":\"cd\"},"
			   "\"stream_sequence\":5}");
	assert_grade(&k, "revisions", "", "fail", "sequence 9, and Redis at epoch 2");
	assert_grade(&k, "stream", "", "fail", "2 behind");
	done(&k);
	k = judge("redis", "{\"position\":{\"epoch\":2,\"sequence\":9,\"hash\":\"cd\"}}");
	assert_grade(&k, "revisions", "", "fail", "sequence 9"); // another history
	done(&k);
	k = judge("redis", "{\"position\":null}"); // emptied
	assert_grade(&k, "revisions", "", "fail", "sequence 0");
	done(&k);
}

static void a_redis_that_forgets_or_is_full_is_told(void **state)
{
	(void)state;
	struct ctl_checks k = judge("redis", "{\"maxmemory\":99000000,"
					     "\"maxmemory_policy\":\"allkeys-lru\"}");
	assert_grade(&k, "redis", "memory", "warn", "allkeys-lru");
	done(&k);
	k = judge("redis", "{\"maxmemory\":9500000}");
	assert_grade(&k, "redis", "memory", "fail", "8 of 9 MB");
	done(&k);
}

static void a_disk_that_fails_or_is_full_is_told(void **state)
{
	(void)state;
	struct ctl_checks k =
		judge("journal", "{\"errors\":3,\"disk_free_bytes\":1000000}");
	assert_grade(&k, "journal", "/s", "fail", "3 writes");
	assert_grade(&k, "disk", "/s", "fail", "0 of");
	done(&k);
	k = judge("journal", "{\"disk_free_bytes\":300000000}");
	assert_grade(&k, "disk", "/s", "warn", "286 of");
	done(&k);
}

static void nodes_that_lag_refuse_or_are_gone_are_told_with_the_reason(void **state)
{
	struct ctl_checks k = {0};
	json_t *head = parse("{\"epoch\":2,\"sequence\":9}");
	json_t *nodes = parse(
		"[{\"name\":\"good/0\",\"enrolled\":true,\"link\":\"up\",\"applied\":{"
		"\"epoch\":2,\"sequence\":9},\"health\":\"healthy\"},"
		"{\"name\":\"new/0\",\"enrolled\":false},"
		"{\"name\":\"lost/0\",\"enrolled\":true,\"link\":\"lost\",\"seen_ms\":"
		"1799999700000},"
		"{\"name\":\"never/0\",\"enrolled\":true,\"link\":\"never\"},"
		"{\"name\":\"late/0\",\"enrolled\":true,\"link\":\"up\",\"applied\":{"
		"\"epoch\":2,\"sequence\":8},\"health\":\"healthy\"},"
		"{\"name\":\"nack/0\",\"enrolled\":true,\"link\":\"up\",\"applied\":{"
		"\"epoch\":2,\"sequence\":8},\"refused\":\"tls: no certificate\"},"
		"{\"name\":\"down/0\",\"enrolled\":true,\"link\":\"up\",\"applied\":{"
		"\"epoch\":2,\"sequence\":9},\"health\":\"down\"}]");
	(void)state;
	ctl_check_nodes(&k, nodes, head, NOW_MS);
	assert_grade(&k, "node", "new/0", "warn", "has not enrolled");
	assert_grade(&k, "node", "lost/0", "warn", "heard of 5m ago");
	assert_grade(&k, "node", "never/0", "warn", "since this controller started");
	assert_grade(&k, "node", "late/0", "warn", "at 2/8, the fleet at 2/9");
	assert_grade(&k, "node", "nack/0", "fail", "tls: no certificate");
	assert_grade(&k, "node", "down/0", "fail", "down");
	assert_grade(&k, "nodes", "", "ok", "1 of 7");
	json_decref(nodes);
	json_decref(head);
	done(&k);
}

static void a_thousand_nodes_that_are_gone_are_fifty_lines(void **state)
{
	struct ctl_checks k = {0};
	json_t *head = parse("{\"epoch\":2,\"sequence\":9}"), *nodes = json_array();
	(void)state;
	for (int i = 0; i < 1000; i++)
		json_array_append_new(nodes,
				      parse("{\"name\":\"x\",\"enrolled\":false}"));
	ctl_check_nodes(&k, nodes, head, NOW_MS);
	assert_int_equal(json_array_size(k.list), 51);
	assert_grade(&k, "node", "", "warn", "950 more");
	json_decref(nodes);
	json_decref(head);
	done(&k);
}

static void vantages_without_a_vote_are_told_by_what_they_lack(void **state)
{
	struct ctl_checks k = {0};
	json_t *o = parse("{\"panic\":true,\"vantages\":[{\"name\":\"a\",\"state\":"
			  "\"votes\"},{\"name\":\"b\",\"state\":\"cut-off\"}]}");
	(void)state;
	ctl_check_vantages(&k, o);
	assert_grade(&k, "vantage", "b", "warn", "cut-off");
	assert_non_null(strstr(member(find(&k, "vantage", "b"), "remedy"), "network"));
	assert_grade(&k, "verdict", "", "fail", "panic");
	assert_grade(&k, "vantages", "", "ok", "1 of 2");
	json_decref(o);
	done(&k);
	k = (struct ctl_checks){0};
	o = parse("{\"vantages\":[{\"name\":\"b\",\"state\":\"silent\"}]}");
	ctl_check_vantages(&k, o);
	assert_grade(&k, "vantages", "", "fail", "none of 1");
	json_decref(o);
	done(&k);
	k = (struct ctl_checks){0};
	o = parse("{\"vantages\":[]}");
	ctl_check_vantages(&k, o);
	assert_grade(&k, "vantages", "", "warn", "nobody");
	json_decref(o);
	done(&k);
}

static void leases_near_their_end_are_told(void **state)
{
	struct ctl_checks k = {0};
	json_t *o = parse("[{\"node\":\"a\",\"kind\":\"drain\",\"until\":1800000060},"
			  "{\"node\":\"b\",\"kind\":\"cordon\",\"until\":1800009999}]");
	(void)state;
	ctl_check_leases(&k, o, NOW_MS / 1000);
	assert_grade(&k, "lease", "a", "warn", "drain ends in 1 min");
	assert_grade(&k, "leases", "", "ok", "1 nodes");
	json_decref(o);
	done(&k);
}

// ---- what is printed ----

struct world {
	struct ctl_call call;
	char *text;
	size_t len;
};

static void open_world(struct world *w)
{
	memset(w, 0, sizeof(*w));
	w->call.program = &ctl_program;
	w->call.now_s = NOW_MS / 1000;
	w->call.out = open_memstream(&w->text, &w->len);
}

static void the_status_is_that_of_the_worst_check(void **state)
{
	static const enum ctl_grade grades[] = {CTL_GOOD, CTL_WARN, CTL_BAD};
	(void)state;
	for (int worst = 0; worst < 3; worst++) {
		struct world w;
		struct ctl_checks k = {0};
		open_world(&w);
		for (int i = 0; i <= worst; i++)
			ctl_check_add(&k, grades[i], "area", "it", i ? "mend\nit" : NULL,
				      "text %d", i);
		assert_int_equal(ctl_checks_end(&w.call, &k), worst);
		fclose(w.call.out);
		assert_non_null(strstr(w.text, "ok    area        it: text 0\n"));
		if (worst)
			assert_non_null(strstr(w.text, "-> mend?it\n"));
		free(w.text);
	}
}

static void a_table_has_no_empty_columns_and_no_blanks_at_its_end(void **state)
{
	static const struct ctl_column columns[] = {
		{"NAME", "name", CTL_CELL_TEXT, 0},
		{"NOBODY", "none", CTL_CELL_TEXT, 0},
		{"AT", "at", CTL_CELL_POSITION, 0},
		{"AGE", "age", CTL_CELL_AGE, 0},
		{"SINCE", "since", CTL_CELL_SINCE_MS, 0},
		{"LAST", "last", CTL_CELL_FAILURES, 0},
		{0},
	};
	struct world w;
	json_t *list = parse(
		"[{\"name\":\"a\",\"at\":{\"epoch\":1,\"sequence\":12},\"age\":7300,"
		"\"since\":1799999940000,\"last\":[{\"vantage\":\"v\",\"rung\":"
		"\"handshake\",\"reason\":\"timeout\"}]},"
		"{\"name\":\"0123456789012345678901234567890123456789012345\","
		"\"age\":59,\"last\":[]}]");
	(void)state;
	open_world(&w);
	ctl_grid(&w.call, list, columns, "none");
	fclose(w.call.out);
	assert_string_equal(
		w.text,
		"NAME                                      AT    AGE  SINCE  LAST\n"
		"a                                         1/12  2h   60s    v "
		"handshake/timeout\n"
		"01234567890123456789012345678901234567..        59s\n");
	free(w.text);
	open_world(&w);
	ctl_grid(&w.call, NULL, columns, "no things");
	fclose(w.call.out);
	assert_string_equal(w.text, "no things\n");
	free(w.text);
	json_decref(list);
}

static void ages_are_short(void **state)
{
	char buf[CTL_AGE_CAP];
	(void)state;
	assert_string_equal(ctl_format_age(0, buf), "0s");
	assert_string_equal(ctl_format_age(119, buf), "119s");
	assert_string_equal(ctl_format_age(120, buf), "2m");
	assert_string_equal(ctl_format_age(7199, buf), "119m");
	assert_string_equal(ctl_format_age(7200, buf), "2h");
	assert_string_equal(ctl_format_age(172800, buf), "2d");
	assert_string_equal(ctl_format_age(UINT64_MAX, buf), "213503982334601d");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_controller_that_is_well_is_told_so),
		cmocka_unit_test(clocks_that_are_apart_are_told),
		cmocka_unit_test(a_redis_that_is_away_slow_or_elsewhere_is_told),
		cmocka_unit_test(a_redis_that_forgets_or_is_full_is_told),
		cmocka_unit_test(a_disk_that_fails_or_is_full_is_told),
		cmocka_unit_test(
			nodes_that_lag_refuse_or_are_gone_are_told_with_the_reason),
		cmocka_unit_test(a_thousand_nodes_that_are_gone_are_fifty_lines),
		cmocka_unit_test(vantages_without_a_vote_are_told_by_what_they_lack),
		cmocka_unit_test(leases_near_their_end_are_told),
		cmocka_unit_test(the_status_is_that_of_the_worst_check),
		cmocka_unit_test(a_table_has_no_empty_columns_and_no_blanks_at_its_end),
		cmocka_unit_test(ages_are_short),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
