// The link emulator in virtual time: paths, chances by seed, rules, freezes, RSTs,
// translation, commands.
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/tools/linkemu/command.h"

#define MS        UINT64_C(1000000)
#define CLIENT_IP 0x0a4d0001
#define EXIT_IP   0x0a4d0002
#define OTHER_IP  0x0a4d0003

// ---- a path alone ----

static struct emu_packet *packet(struct emu_pool *pool, uint32_t number, uint32_t len)
{
	struct emu_packet *k = emu_pool_get(pool);
	assert_non_null(k);
	k->len = len;
	memset(k->data, 0, len);
	memcpy(k->data, &number, sizeof(number));
	return k;
}

static uint32_t number_of(const struct emu_packet *k)
{
	uint32_t n;
	memcpy(&n, k->data, sizeof(n));
	return n;
}

struct line {
	struct emu_pool pool;
	struct emu_path *path;
	struct emu_path_settings set;
};

static void line_make(struct line *l, uint64_t seed)
{
	memset(l, 0, sizeof(*l));
	assert_int_equal(emu_path_new(&l->pool, seed, &l->path), 0);
	emu_path_settings_default(&l->set);
}

static void line_done(struct line *l)
{
	emu_path_free(l->path);
	emu_pool_done(&l->pool);
}

// Takes the next packet at the time it is due, by following the deadlines.
static struct emu_packet *wait_for(struct line *l, uint64_t *now)
{
	for (int i = 0; i < 100000; i++) {
		struct emu_packet *k = emu_path_get(l->path, *now);
		if (k)
			return k;
		uint64_t due = emu_path_due(l->path, *now);
		if (due == EMU_NEVER)
			return NULL;
		assert_true(due > *now);
		*now = due;
	}
	fail();
	return NULL;
}

static void a_packet_arrives_after_its_time_on_the_line_and_the_delay(void **state)
{
	struct line l;
	uint64_t now = 0;
	(void)state;
	line_make(&l, 1);
	l.set.delay_ns = 25 * MS;
	l.set.rate_bps = 12000000; // 1500 bytes take 1 ms
	emu_path_set(l.path, &l.set, 0);
	for (uint32_t i = 0; i < 3; i++)
		emu_path_put(l.path, packet(&l.pool, i, 1500), 0);
	for (uint32_t i = 0; i < 3; i++) {
		struct emu_packet *k = wait_for(&l, &now);
		assert_non_null(k);
		assert_int_equal(number_of(k), i);
		assert_int_equal(now, (25 + i + 1) * MS);
		emu_pool_put(&l.pool, k);
	}
	assert_null(wait_for(&l, &now));
	line_done(&l);
}

static void a_line_kept_full_carries_exactly_its_rate(void **state)
{
	struct line l;
	uint64_t bytes = 0;
	(void)state;
	line_make(&l, 1);
	l.set.rate_bps = 7 * 1000000;
	l.set.queue_bytes = 20000;
	emu_path_set(l.path, &l.set, 0);
	for (uint64_t now = 0; now <= 10000 * MS; now += MS / 4) {
		struct emu_packet *k;
		emu_path_put(l.path, packet(&l.pool, 0, 1500), now);
		while ((k = emu_path_get(l.path, now))) {
			bytes += k->len;
			emu_pool_put(&l.pool, k);
		}
	}
	assert_in_range(bytes * 8, 69970000, 70000000);
	line_done(&l);
}

static void a_full_queue_drops_what_comes_and_keeps_what_it_has(void **state)
{
	struct line l;
	uint64_t now = 0;
	(void)state;
	line_make(&l, 1);
	l.set.rate_bps = 12000000;
	l.set.queue_bytes = 4500;
	emu_path_set(l.path, &l.set, 0);
	for (uint32_t i = 0; i < 5; i++)
		emu_path_put(l.path, packet(&l.pool, i, 1500), 0);
	assert_int_equal(emu_path_counters(l.path)->tail, 2);
	assert_int_equal(emu_path_counters(l.path)->queue_max_bytes, 4500);
	for (uint32_t i = 0; i < 3; i++) {
		struct emu_packet *k = wait_for(&l, &now);
		assert_int_equal(number_of(k), i);
		emu_pool_put(&l.pool, k);
	}
	l.set.queue_bytes = EMU_QUEUE_UNLIMITED;
	l.set.queue_packets = 2;
	emu_path_set(l.path, &l.set, now);
	for (uint32_t i = 0; i < 5; i++)
		emu_path_put(l.path, packet(&l.pool, i, 40), now);
	assert_int_equal(emu_path_counters(l.path)->tail, 2 + 3);
	line_done(&l);
}

static void jitter_varies_the_delay_and_keeps_the_order(void **state)
{
	struct line l;
	uint64_t now = 0, least = UINT64_MAX, most = 0;
	(void)state;
	line_make(&l, 7);
	l.set.delay_ns = 20 * MS;
	l.set.jitter_ns = 5 * MS;
	emu_path_set(l.path, &l.set, 0);
	for (uint32_t i = 0; i < 1000; i++)
		emu_path_put(l.path, packet(&l.pool, i, 100), i * MS);
	for (uint32_t i = 0; i < 1000; i++) {
		struct emu_packet *k = wait_for(&l, &now);
		assert_int_equal(number_of(k), i);
		uint64_t took = now - i * MS;
		least = took < least ? took : least;
		most = took > most ? took : most;
		emu_pool_put(&l.pool, k);
	}
	assert_in_range(least, 15 * MS, 18 * MS);
	assert_in_range(most, 24 * MS, 25 * MS);
	line_done(&l);
}

static void a_reordered_packet_comes_late_and_holds_nobody_up(void **state)
{
	struct line l;
	uint64_t now = 0;
	uint32_t overtaken = 0, late = 0, last = 0;
	(void)state;
	line_make(&l, 3);
	l.set.delay_ns = 10 * MS;
	l.set.reorder = EMU_CHANCE_ALWAYS / 10;
	l.set.late_ns = 5 * MS;
	emu_path_set(l.path, &l.set, 0);
	for (uint32_t i = 1; i <= 1000; i++)
		emu_path_put(l.path, packet(&l.pool, i, 100), i * MS);
	for (uint32_t i = 0; i < 1000; i++) {
		struct emu_packet *k = wait_for(&l, &now);
		uint64_t took = now - number_of(k) * MS;
		assert_true(took == 10 * MS || took == 15 * MS);
		late += took == 15 * MS;
		overtaken += number_of(k) < last;
		last = number_of(k) > last ? number_of(k) : last;
		emu_pool_put(&l.pool, k);
	}
	assert_int_equal(late, emu_path_counters(l.path)->reordered);
	assert_in_range(overtaken, late - 5, late); // but the last ones
	assert_in_range(overtaken, 70, 130);
	line_done(&l);
}

// Which of 2,000 packets arrive, and how often.
static void fates(uint64_t seed, uint8_t fate[2000])
{
	struct line l;
	struct emu_packet *k;
	line_make(&l, seed);
	l.set.loss = EMU_CHANCE_ALWAYS / 100;
	l.set.duplicate = EMU_CHANCE_ALWAYS / 50;
	emu_path_set(l.path, &l.set, 0);
	memset(fate, 0, 2000);
	for (uint32_t i = 0; i < 2000; i++)
		emu_path_put(l.path, packet(&l.pool, i, 100), i);
	while ((k = emu_path_get(l.path, 2000))) {
		fate[number_of(k)]++;
		emu_pool_put(&l.pool, k);
	}
	line_done(&l);
}

static void loss_and_duplicates_are_as_frequent_as_set_and_follow_the_seed(void **state)
{
	uint8_t one[2000], same[2000];
	unsigned differing = 0;
	(void)state;
	for (uint64_t seed = 1; seed <= 100; seed++) {
		unsigned lost = 0, twice = 0;
		fates(seed, one);
		fates(seed, same);
		assert_memory_equal(one, same, sizeof(one));
		fates(seed + 1000, same);
		differing += memcmp(one, same, sizeof(one)) != 0;
		for (int i = 0; i < 2000; i++) {
			lost += one[i] == 0;
			twice += one[i] == 2;
		}
		assert_in_range(lost, 4, 42);
		assert_in_range(twice, 15, 70);
	}
	assert_int_equal(differing, 100);
}

static void
a_link_that_goes_down_loses_what_is_on_its_way_and_all_that_comes(void **state)
{
	struct line l;
	uint64_t now = 0;
	(void)state;
	line_make(&l, 1);
	l.set.delay_ns = 10 * MS;
	emu_path_set(l.path, &l.set, 0);
	emu_path_put(l.path, packet(&l.pool, 1, 100), 0);
	l.set.down = true;
	emu_path_set(l.path, &l.set, 1);
	emu_path_put(l.path, packet(&l.pool, 2, 100), 2);
	assert_null(wait_for(&l, &now));
	assert_int_equal(emu_path_counters(l.path)->down, 2);
	l.set.down = false;
	emu_path_set(l.path, &l.set, 3);
	emu_path_put(l.path, packet(&l.pool, 3, 100), 4);
	struct emu_packet *k = wait_for(&l, &now);
	assert_int_equal(number_of(k), 3);
	emu_pool_put(&l.pool, k);
	line_done(&l);
}

static void a_new_rate_holds_for_those_that_wait(void **state)
{
	struct line l;
	uint64_t now = 0;
	(void)state;
	line_make(&l, 1);
	l.set.rate_bps = 12000; // a second each
	emu_path_set(l.path, &l.set, 0);
	for (uint32_t i = 0; i < 10; i++)
		emu_path_put(l.path, packet(&l.pool, i, 1500), 0);
	l.set.rate_bps = 12000000;
	emu_path_set(l.path, &l.set, 5 * MS);
	for (uint32_t i = 0; i < 10; i++)
		emu_pool_put(&l.pool, wait_for(&l, &now));
	assert_int_equal(now, 15 * MS);
	line_done(&l);
}

static void a_path_holds_no_more_than_its_limit(void **state)
{
	struct line l;
	(void)state;
	line_make(&l, 1);
	l.set.delay_ns = 1000 * MS;
	emu_path_set(l.path, &l.set, 0);
	for (uint32_t i = 0; i < EMU_PATH_HELD_MAX + 10; i++)
		emu_path_put(l.path, packet(&l.pool, i, 40), 0);
	assert_int_equal(emu_path_held(l.path), EMU_PATH_HELD_MAX);
	assert_int_equal(emu_path_counters(l.path)->tail, 10);
	line_done(&l);
}

// ---- a world of three ends ----

#define GOT_MAX 4096

struct got {
	int end;
	uint32_t len;
	struct emu_ip ip;
};

struct net {
	struct emu_world w;
	int client, exit, other;
	struct got got[GOT_MAX];
	unsigned n;
	uint64_t now;
	char answer[EMU_LINE_MAX];
};

static void take(void *ctx, int end, const uint8_t *data, size_t len)
{
	struct net *t = ctx;
	struct got *g = &t->got[t->n++ % GOT_MAX];
	g->end = end;
	g->len = (uint32_t)len;
	assert_int_equal(emu_packet_parse(data, len, &g->ip), 0);
	assert_int_equal(emu_packet_sum(data, len, true), 0);
	assert_int_equal(emu_packet_sum(data, len, false), 0);
}

static int net_make(void **state)
{
	struct net *t = calloc(1, sizeof(*t));
	assert_non_null(t);
	assert_int_equal(emu_world_init(&t->w, 42, take, t), 0);
	t->client = emu_world_add(&t->w, "client", CLIENT_IP);
	t->exit = emu_world_add(&t->w, "exit", EXIT_IP);
	t->other = emu_world_add(&t->w, "other", OTHER_IP);
	assert_true(t->client == 0 && t->exit == 1 && t->other == 2);
	*state = t;
	return 0;
}

static int net_free(void **state)
{
	struct net *t = *state;
	emu_world_done(&t->w);
	free(t);
	return 0;
}

static const char *command(struct net *t, const char *line)
{
	char copy[EMU_LINE_MAX];
	snprintf(copy, sizeof(copy), "%s", line);
	assert_true(emu_command(&t->w, copy, t->now, t->answer));
	return t->answer;
}

#define assert_ok(t, line)      assert_memory_equal(command(t, line), "ok at=", 6)
#define assert_refused(t, line) assert_memory_equal(command(t, line), "error ", 6)

// A TCP packet from src to dst with `payload` bytes; made of an RST, whose sums are
// right.
static void send_tcp(struct net *t, int end, struct emu_addr src, struct emu_addr dst,
		     uint8_t flags, uint32_t seq, uint32_t ack, uint16_t payload)
{
	struct emu_packet *k = emu_pool_get(&t->w.pool);
	assert_non_null(k);
	memset(k->data, 0, sizeof(k->data));
	emu_packet_rst(k->data, src, dst, seq, true, ack);
	k->len = EMU_RST_LEN + (uint32_t)payload;
	k->data[2] = (uint8_t)(k->len >> 8);
	k->data[3] = (uint8_t)k->len;
	k->data[20 + 13] = flags;
	for (int sum = 0; sum < 2; sum++) {
		uint8_t *at = k->data + (sum ? 10 : 20 + 16);
		at[0] = at[1] = 0;
		uint16_t v = emu_packet_sum(k->data, k->len, sum);
		at[0] = (uint8_t)(v >> 8);
		at[1] = (uint8_t)v;
	}
	emu_world_put(&t->w, end, k, t->now);
	emu_world_run(&t->w, t->now);
}

static const struct emu_addr client_a = {CLIENT_IP, 4001}, client_b = {CLIENT_IP, 4002};
static const struct emu_addr server = {EXIT_IP, 443}, elsewhere = {OTHER_IP, 443};

static void up(struct net *t, struct emu_addr from, uint32_t seq, uint16_t payload)
{
	send_tcp(t, t->client, from, server, EMU_ACK, seq, 1, payload);
}

static void down(struct net *t, struct emu_addr to, uint32_t seq, uint16_t payload)
{
	send_tcp(t, t->exit, server, to, EMU_ACK, seq, 1, payload);
}

static void packets_go_to_the_end_that_has_the_address_and_strays_nowhere(void **state)
{
	struct net *t = *state;
	up(t, client_a, 1, 10);
	send_tcp(t, t->client, client_a, elsewhere, EMU_ACK, 1, 1, 10);
	send_tcp(t, t->client, client_a, (struct emu_addr){0x08080808, 53}, EMU_ACK, 1, 1,
		 10);
	assert_int_equal(t->n, 2);
	assert_int_equal(t->got[0].end, t->exit);
	assert_int_equal(t->got[1].end, t->other);
	assert_int_equal(t->w.end[t->client].strays, 1);
}

static void each_direction_has_its_own_settings(void **state)
{
	struct net *t = *state;
	assert_ok(t, "path client exit delay=10ms");
	assert_ok(t, "path exit client delay=30ms");
	up(t, client_a, 1, 10);
	down(t, client_a, 1, 10);
	assert_int_equal(t->n, 0);
	assert_int_equal(emu_world_run(&t->w, 0), 10 * MS);
	assert_int_equal(emu_world_run(&t->w, 10 * MS), 30 * MS);
	assert_int_equal(t->n, 1);
	assert_int_equal(emu_world_run(&t->w, 30 * MS), EMU_NEVER);
	assert_int_equal(t->n, 2);
}

static void a_block_drops_what_matches_in_its_direction_only(void **state)
{
	struct net *t = *state;
	assert_ok(t, "block client exit proto=tcp src=:4001");
	up(t, client_a, 1, 10);
	assert_int_equal(t->n, 0);
	up(t, client_b, 1, 10);
	down(t, client_a, 1, 10);
	assert_int_equal(t->n, 2);
	assert_ok(t, "unblock 1");
	up(t, client_a, 1, 10);
	assert_int_equal(t->n, 3);
	assert_refused(t, "unblock 1");
}

static void a_cut_by_address_leaves_other_ends_alone(void **state)
{
	struct net *t = *state;
	assert_ok(t, "cut client * dst=10.77.0.2");
	up(t, client_a, 1, 10);
	down(t, client_a, 1, 10);
	assert_int_equal(t->n, 0);
	send_tcp(t, t->client, client_a, elsewhere, EMU_ACK, 1, 1, 10);
	send_tcp(t, t->other, elsewhere, client_a, EMU_ACK, 1, 1, 10);
	assert_int_equal(t->n, 2);
	assert_ok(t, "unblock all");
	up(t, client_a, 1, 10);
	assert_int_equal(t->n, 3);
}

static void a_connection_freezes_both_ways_at_its_byte_limit(void **state)
{
	struct net *t = *state;
	assert_ok(t, "freeze exit client bytes=16k");
	for (uint32_t i = 0; i < 20; i++)
		down(t, client_a, 1 + i * 1000, 1000);
	assert_int_equal(t->n, 16); // 16,000 of 16,384 bytes
	up(t, client_a, 1, 10);
	down(t, client_a, 1, 0);
	assert_int_equal(t->n, 16);
	up(t, client_b, 1, 10); // another connection is not touched
	down(t, client_b, 1, 1000);
	assert_int_equal(t->n, 18);
	for (uint32_t i = 0; i < 100; i++) // nor does the other direction count
		up(t, client_b, 1 + i * 1000, 1000);
	assert_int_equal(t->n, 118);
	assert_ok(t, "unfreeze all"); // what is frozen stays frozen
	up(t, client_a, 1, 10);
	assert_int_equal(t->n, 118);
}

static void a_one_way_freeze_lets_the_other_way_pass(void **state)
{
	struct net *t = *state;
	assert_ok(t, "freeze exit client bytes=1000 oneway dst=:4001");
	down(t, client_a, 1, 1000);
	down(t, client_a, 1001, 1);
	assert_int_equal(t->n, 1);
	up(t, client_a, 1, 10);
	assert_int_equal(t->n, 2);
	down(t, client_b, 1, 1400);
	assert_int_equal(t->n, 3);
}

static void a_port_that_is_used_again_is_a_new_connection(void **state)
{
	struct net *t = *state;
	assert_ok(t, "freeze exit client bytes=1000");
	down(t, client_a, 1, 1000);
	down(t, client_a, 1001, 1);
	assert_int_equal(t->n, 1);
	send_tcp(t, t->client, client_a, server, EMU_SYN, 9, 0, 0);
	assert_int_equal(t->n, 2);
	down(t, client_a, 1, 1000);
	assert_int_equal(t->n, 3);
}

static void an_rst_carries_the_number_that_each_side_waits_for(void **state)
{
	struct net *t = *state;
	send_tcp(t, t->client, client_a, server, EMU_SYN, 99, 0, 0);
	send_tcp(t, t->exit, server, client_a, EMU_SYN | EMU_ACK, 499, 100, 0);
	up(t, client_b, 7, 10);
	up(t, client_a, 100, 50);
	send_tcp(t, t->exit, server, client_a, EMU_ACK, 500, 150, 200);
	send_tcp(t, t->client, client_a, server, EMU_ACK, 150, 700, 0);
	t->n = 0;
	assert_ok(t, "rst client exit src=:4001");
	assert_non_null(strstr(t->answer, " flows=1"));
	assert_int_equal(t->n, 2);
	for (unsigned i = 0; i < t->n; i++) {
		const struct got *g = &t->got[i];
		assert_true(g->ip.flags & EMU_RST);
		assert_int_equal(g->ip.seq, g->end == t->client ? 700 : 150);
		assert_int_equal(g->end == t->client ? g->ip.dst.port : g->ip.src.port,
				 4001);
	}
	assert_int_not_equal(t->got[0].end, t->got[1].end);
}

static void an_rst_after_a_lost_packet_also_carries_what_was_acknowledged(void **state)
{
	struct net *t = *state;
	bool exact = false;
	down(t, client_a, 1, 100);
	assert_ok(t, "block exit client");
	down(t, client_a, 101, 100);
	assert_ok(t, "unblock all");
	down(t, client_a, 201, 100);
	send_tcp(t, t->client, client_a, server, EMU_ACK, 1, 101, 0);
	t->n = 0;
	assert_ok(t, "rst * * to=client dst=:4001");
	for (unsigned i = 0; i < t->n; i++) {
		assert_int_equal(t->got[i].end, t->client);
		exact |= t->got[i].ip.seq == 101;
	}
	assert_true(exact);
}

static void a_rebind_changes_the_source_port_and_forgets_the_old_one(void **state)
{
	struct net *t = *state;
	assert_ok(t, "nat client");
	up(t, client_a, 1, 10);
	uint16_t first = t->got[0].ip.src.port;
	assert_int_not_equal(first, 4001);
	down(t, (struct emu_addr){CLIENT_IP, first}, 1, 10);
	assert_int_equal(t->got[1].ip.dst.port, 4001);
	up(t, client_a, 11, 10);
	assert_int_equal(t->got[2].ip.src.port, first);
	assert_ok(t, "rebind client");
	assert_non_null(strstr(t->answer, " mappings=1"));
	down(t, (struct emu_addr){CLIENT_IP, first}, 11, 10);
	assert_int_equal(t->n, 3);
	up(t, client_a, 21, 10);
	assert_int_not_equal(t->got[3].ip.src.port, first);
	down(t, (struct emu_addr){CLIENT_IP, t->got[3].ip.src.port}, 11, 10);
	assert_int_equal(t->got[4].ip.dst.port, 4001);
}

static void a_nat_may_show_another_address(void **state)
{
	struct net *t = *state;
	assert_refused(t, "nat client address=10.77.0.2");
	assert_ok(t, "nat client address=10.77.0.200");
	up(t, client_a, 1, 10);
	assert_int_equal(t->got[0].ip.src.ip, 0x0a4d00c8);
	down(t, t->got[0].ip.src, 1, 10);
	assert_int_equal(t->got[1].end, t->client);
	assert_int_equal(t->got[1].ip.dst.ip, CLIENT_IP);
	assert_ok(t, "rst client exit to=client");
	assert_true(t->n > 2);
	for (unsigned i = 2; i < t->n; i++) {
		assert_int_equal(t->got[i].end, t->client);
		assert_int_equal(t->got[i].ip.dst.port, 4001);
	}
}

static void a_nat_gives_every_flow_its_own_port_and_makes_room_for_new_ones(void **state)
{
	struct net *t = *state;
	assert_ok(t, "nat client");
	for (uint32_t i = 0; i < EMU_NAT_MAX + 100; i++)
		up(t, (struct emu_addr){CLIENT_IP, (uint16_t)(1000 + i)}, 1, 0);
	assert_int_equal(t->n, EMU_NAT_MAX + 100);
	for (unsigned i = 0; i < t->n; i++)
		for (unsigned j = 0; j < i; j++)
			assert_int_not_equal(t->got[i].ip.src.port,
					     t->got[j].ip.src.port);
}

static void connections_beyond_the_table_make_room_by_forgetting_the_stalest(void **state)
{
	struct net *t = *state;
	for (uint32_t i = 0; i < 3 * EMU_FLOWS_MAX; i++) {
		up(t, (struct emu_addr){CLIENT_IP, (uint16_t)(1000 + i)}, i, 1);
		down(t, client_a, i, 1); // in use all the time
	}
	uint64_t carried = 0;
	for (int i = 0; i < EMU_FLOWS_MAX; i++) {
		const struct emu_flow *f = &t->w.flows->flow[i];
		for (int s = 0; s < 2; s++)
			if (f->used && f->side[!s].port == 4001 && f->side[s].port == 443)
				carried = f->half[s].payload;
	}
	assert_int_equal(carried, 3 * EMU_FLOWS_MAX);
}

static void commands_say_what_is_wrong_and_change_nothing(void **state)
{
	static const char *const bad[] = {
		"",
		"fly",
		"link client",
		"link client nobody delay=1ms",
		"link client client delay=1ms",
		"link client exit delay=1",
		"link client exit delay=-1ms",
		"link client exit delay=nanms",
		"link client exit delay=1ms loss=101%",
		"link client exit delay=1ms loss=0.1",
		"link client exit rate=1bit",
		"link client exit rate=20mbits",
		"link client exit queue=0p",
		"link client exit queue=1t",
		"link client exit down=2",
		"link client exit delay=1ms =",
		"path * exit delay=1ms",
		"block client",
		"block client exit proto=sctp",
		"block client exit dst=10.77.0",
		"block client exit dst=10.77.0.2:0",
		"block client exit dst=10.77.0.2:65536",
		"block client exit to=client",
		"freeze client exit",
		"freeze client exit bytes=x",
		"unblock",
		"unblock 0",
		"unblock 65",
		"rst client exit to=*",
		"nat client address=0",
		"rebind client",
		"rebind",
		"stats client client",
		"link client exit a a a a a a a a a a a a a a a a a a a a a a a a a a a "
		"a a a a",
	};
	struct net *t = *state;
	struct emu_path_settings fresh;
	emu_path_settings_default(&fresh);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_refused(t, bad[i]);
	assert_memory_equal(emu_path_settings(t->w.path[0][1]), &fresh, sizeof(fresh));
	for (int i = 0; i < EMU_RULES_MAX; i++)
		assert_int_equal(t->w.rule[i].kind, EMU_RULE_NONE);
	for (int i = 0; i < EMU_RULES_MAX; i++)
		assert_ok(t, "block client exit");
	assert_refused(t, "block client exit");
}

static void settings_are_read_with_their_units(void **state)
{
	struct net *t = *state;
	assert_ok(t, "link client exit delay=1.5s jitter=250us rate=2.5mbit queue=64k "
		     "loss=25% "
		     "duplicate=0 reorder=100% late=3ms");
	for (int i = 0; i < 2; i++) {
		const struct emu_path_settings *s = emu_path_settings(t->w.path[i][!i]);
		assert_int_equal(s->delay_ns, 1500 * MS);
		assert_int_equal(s->jitter_ns, MS / 4);
		assert_int_equal(s->rate_bps, 2500000);
		assert_int_equal(s->queue_bytes, 65536);
		assert_int_equal(s->loss, EMU_CHANCE_ALWAYS / 4);
		assert_int_equal(s->reorder, EMU_CHANCE_ALWAYS);
		assert_int_equal(s->late_ns, 3 * MS);
	}
	assert_ok(t, "path client exit reset queue=10p");
	assert_int_equal(emu_path_settings(t->w.path[0][1])->delay_ns, 0);
	assert_int_equal(emu_path_settings(t->w.path[0][1])->queue_packets, 10);
	assert_int_equal(emu_path_settings(t->w.path[1][0])->delay_ns, 1500 * MS);
	t->now = 1234567890123;
	assert_string_equal(command(t, "unblock all"), "ok at=1234.567890 rules=0");
}

static void the_flows_are_told_newest_first_and_never_over_the_line(void **state)
{
	struct net *t = *state;
	for (uint32_t i = 0; i < 500; i++)
		up(t, (struct emu_addr){CLIENT_IP, (uint16_t)(1000 + i)}, 1, 5);
	assert_ok(t, "flows");
	assert_non_null(
		strstr(t->answer, " 10.77.0.1:1499>10.77.0.2:443/5/0 10.77.0.1:1498>"));
	assert_true(strlen(t->answer) < EMU_LINE_MAX);
	assert_ok(t, "stats client exit");
	assert_non_null(strstr(t->answer, " in=500 out=500 out_bytes=22500 "));
}

static void count(void *ctx, int end, const uint8_t *data, size_t len)
{
	struct net *t = ctx;
	assert_true(end >= 0 && data && len <= EMU_PACKET_MAX);
	t->n++;
}

static void a_mangled_packet_is_delivered_or_counted_as_a_stray(void **state)
{
	struct net *t = *state;
	uint64_t random = 1;
	t->w.deliver = count;
	assert_ok(t, "nat client");
	for (unsigned i = 0; i < 50000; i++) {
		struct emu_packet *k = emu_pool_get(&t->w.pool);
		assert_non_null(k);
		k->len = EMU_RST_LEN - (i % 8 ? 0 : i / 8 % EMU_RST_LEN);
		emu_packet_rst(k->data, client_a, server, 1, false, 0);
		for (uint32_t b = 0; b < i % 5; b++) {
			random = random * UINT64_C(6364136223846793005) +
				 1442695040888963407;
			k->data[(random >> 33) % EMU_RST_LEN] = (uint8_t)(random >> 56);
		}
		emu_world_put(&t->w, t->client, k, i);
		emu_world_run(&t->w, i);
	}
	assert_true(t->n > 10000);
	assert_int_equal(t->n + t->w.end[0].strays + t->w.end[1].strays +
				 t->w.end[2].strays,
			 50000);
}

#define in_net(f) cmocka_unit_test_setup_teardown(f, net_make, net_free)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			a_packet_arrives_after_its_time_on_the_line_and_the_delay),
		cmocka_unit_test(a_line_kept_full_carries_exactly_its_rate),
		cmocka_unit_test(a_full_queue_drops_what_comes_and_keeps_what_it_has),
		cmocka_unit_test(jitter_varies_the_delay_and_keeps_the_order),
		cmocka_unit_test(a_reordered_packet_comes_late_and_holds_nobody_up),
		cmocka_unit_test(
			loss_and_duplicates_are_as_frequent_as_set_and_follow_the_seed),
		cmocka_unit_test(
			a_link_that_goes_down_loses_what_is_on_its_way_and_all_that_comes),
		cmocka_unit_test(a_new_rate_holds_for_those_that_wait),
		cmocka_unit_test(a_path_holds_no_more_than_its_limit),
		in_net(packets_go_to_the_end_that_has_the_address_and_strays_nowhere),
		in_net(each_direction_has_its_own_settings),
		in_net(a_block_drops_what_matches_in_its_direction_only),
		in_net(a_cut_by_address_leaves_other_ends_alone),
		in_net(a_connection_freezes_both_ways_at_its_byte_limit),
		in_net(a_one_way_freeze_lets_the_other_way_pass),
		in_net(a_port_that_is_used_again_is_a_new_connection),
		in_net(an_rst_carries_the_number_that_each_side_waits_for),
		in_net(an_rst_after_a_lost_packet_also_carries_what_was_acknowledged),
		in_net(a_rebind_changes_the_source_port_and_forgets_the_old_one),
		in_net(a_nat_may_show_another_address),
		in_net(a_nat_gives_every_flow_its_own_port_and_makes_room_for_new_ones),
		in_net(connections_beyond_the_table_make_room_by_forgetting_the_stalest),
		in_net(commands_say_what_is_wrong_and_change_nothing),
		in_net(settings_are_read_with_their_units),
		in_net(the_flows_are_told_newest_first_and_never_over_the_line),
		in_net(a_mangled_packet_is_delivered_or_counted_as_a_stray),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
