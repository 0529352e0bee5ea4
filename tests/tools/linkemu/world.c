#include "tests/tools/linkemu/world.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int emu_world_init(struct emu_world *w, uint64_t seed,
		   void (*deliver)(void *ctx, int end, const uint8_t *data, size_t len),
		   void *ctx)
{
	memset(w, 0, sizeof(*w));
	w->seed = seed;
	w->deliver = deliver;
	w->ctx = ctx;
	w->flows = calloc(1, sizeof(*w->flows));
	return w->flows ? 0 : -ENOMEM;
}

void emu_world_done(struct emu_world *w)
{
	for (int a = 0; a < w->n; a++) {
		for (int b = 0; b < w->n; b++)
			emu_path_free(w->path[a][b]);
		free(w->end[a].nat);
	}
	free(w->flows);
	emu_pool_done(&w->pool);
	memset(w, 0, sizeof(*w));
}

int emu_world_find(const struct emu_world *w, const char *name)
{
	for (int e = 0; e < w->n; e++)
		if (strcmp(w->end[e].name, name) == 0)
			return e;
	return -1;
}

int emu_world_end_of(const struct emu_world *w, uint32_t address)
{
	for (int e = 0; e < w->n; e++)
		if (w->end[e].address == address)
			return e;
	for (int e = 0; e < w->n; e++) {
		const struct emu_nat *n = w->end[e].nat;
		if (n->on && n->address == address)
			return e;
		for (unsigned i = 0; n->on && i < EMU_NAT_MAX; i++)
			if (n->map[i].used && n->map[i].address == address)
				return e;
	}
	return -1;
}

static int make_paths(struct emu_world *w, int e)
{
	for (int o = 0; o < e; o++) {
		uint64_t one = w->seed * 1000003 + (uint64_t)(e * EMU_ENDS_MAX + o);
		uint64_t two = w->seed * 1000003 + (uint64_t)(o * EMU_ENDS_MAX + e);
		if (emu_path_new(&w->pool, one, &w->path[e][o]) ||
		    emu_path_new(&w->pool, two, &w->path[o][e]))
			return -ENOMEM;
	}
	return 0;
}

static bool name_is_good(const char *name)
{
	size_t len = strlen(name);
	if (len == 0 || len >= EMU_NAME_MAX)
		return false;
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)name[i]))
			return false;
	return true;
}

int emu_world_add(struct emu_world *w, const char *name, uint32_t address)
{
	if (w->n == EMU_ENDS_MAX)
		return -ENOSPC;
	if (!name_is_good(name) || !address || emu_world_find(w, name) >= 0 ||
	    emu_world_end_of(w, address) >= 0)
		return -EINVAL;
	struct emu_end *e = &w->end[w->n];
	memset(e, 0, sizeof(*e));
	memcpy(e->name, name, strlen(name) + 1);
	e->address = address;
	e->nat = calloc(1, sizeof(*e->nat));
	if (!e->nat)
		return -ENOMEM;
	w->n++; // from now on emu_world_done frees what there is
	return make_paths(w, w->n - 1) ? -ENOMEM : w->n - 1;
}

// ---- rules ----

int emu_world_rule(struct emu_world *w, const struct emu_rule *rule)
{
	for (int i = 0; i < EMU_RULES_MAX; i++)
		if (w->rule[i].kind == EMU_RULE_NONE) {
			w->rule[i] = *rule;
			w->rule[i].hits = 0;
			return i + 1;
		}
	return -ENOSPC;
}

unsigned emu_world_unrule(struct emu_world *w, enum emu_rule_kind kind, unsigned number)
{
	unsigned done = 0;
	for (unsigned i = 0; i < EMU_RULES_MAX; i++) {
		if (w->rule[i].kind != kind || (number && number != i + 1))
			continue;
		w->rule[i].kind = EMU_RULE_NONE;
		done++;
	}
	return done;
}

static bool concerns(const struct emu_rule *r, int from, int to, const struct emu_ip *ip)
{
	return (r->from < 0 || r->from == from) && (r->to < 0 || r->to == to) &&
	       emu_match_packet(&r->match, ip);
}

static void freeze(struct emu_flow *f, unsigned side, struct emu_rule *r)
{
	if (!f->frozen[side])
		r->hits++;
	f->frozen[side] = true;
	if (!r->one_way)
		f->frozen[!side] = true;
}

// Whether the packet may go on.
static bool passes(struct emu_world *w, int from, int to, const struct emu_ip *ip)
{
	struct emu_flow *f = NULL;
	unsigned side = 0;
	if (ip->proto == EMU_TCP && ip->src.port)
		f = emu_flows_of(w->flows, ip, &side);
	for (unsigned i = 0; i < EMU_RULES_MAX; i++) {
		struct emu_rule *r = &w->rule[i];
		if (r->kind == EMU_RULE_NONE || !concerns(r, from, to, ip))
			continue;
		if (r->kind == EMU_RULE_BLOCK) {
			r->hits++;
			w->blocked++;
			return false;
		}
		if (f && f->half[side].payload + ip->payload > r->bytes)
			freeze(f, side, r);
	}
	if (!f)
		return true;
	if (f->frozen[side]) {
		w->frozen++;
		return false;
	}
	f->half[side].payload += ip->payload;
	return true;
}

// ---- packets ----

void emu_world_put(struct emu_world *w, int end, struct emu_packet *k, uint64_t now_ns)
{
	struct emu_end *e = &w->end[end];
	struct emu_ip ip;
	int to = -1;
	if (emu_packet_parse(k->data, k->len, &ip) == 0) {
		emu_nat_out(e->nat, k->data, &ip);
		to = emu_world_end_of(w, ip.dst.ip);
	}
	if (to < 0 || to == end) {
		e->strays++;
		emu_pool_put(&w->pool, k);
	} else if (passes(w, end, to, &ip)) {
		emu_path_put(w->path[end][to], k, now_ns);
	} else {
		emu_pool_put(&w->pool, k);
	}
}

static void hand_over(struct emu_world *w, int to, uint8_t *data, size_t len)
{
	struct emu_ip ip;
	if (emu_packet_parse(data, len, &ip) ||
	    !emu_nat_in(w->end[to].nat, data, &ip, w->end[to].address)) {
		w->end[to].strays++;
		return;
	}
	w->deliver(w->ctx, to, data, len);
}

static void arrive(struct emu_world *w, int to, struct emu_packet *k)
{
	struct emu_ip ip;
	if (emu_packet_parse(k->data, k->len, &ip) == 0 && ip.proto == EMU_TCP)
		emu_flows_arrived(w->flows, &ip);
	hand_over(w, to, k->data, k->len);
	emu_pool_put(&w->pool, k);
}

uint64_t emu_world_run(struct emu_world *w, uint64_t now_ns)
{
	uint64_t next = EMU_NEVER;
	for (int a = 0; a < w->n; a++)
		for (int b = 0; b < w->n; b++) {
			struct emu_packet *k;
			if (a == b)
				continue;
			while ((k = emu_path_get(w->path[a][b], now_ns)))
				arrive(w, b, k);
			uint64_t due = emu_path_due(w->path[a][b], now_ns);
			if (due < next)
				next = due;
		}
	return next;
}

// ---- RST ----

// As if side `s` had sent it. A receiver takes only the very number it waits for (RFC
// 5961): that is what arrived last if nothing is missing, and what it acknowledged last
// if something is.
static void rst_towards(struct emu_world *w, const struct emu_flow *f, unsigned s)
{
	const struct emu_half *from = &f->half[s], *to = &f->half[!s];
	int end = emu_world_end_of(w, f->side[!s].ip);
	uint8_t data[EMU_RST_LEN];
	if (end < 0)
		return;
	if (from->arrived) {
		emu_packet_rst(data, f->side[s], f->side[!s], from->next, from->said_ack,
			       from->ack);
		hand_over(w, end, data, sizeof(data));
	}
	if (to->said_ack && (!from->arrived || to->ack != from->next)) {
		emu_packet_rst(data, f->side[s], f->side[!s], to->ack, from->said_ack,
			       from->ack);
		hand_over(w, end, data, sizeof(data));
	}
}

unsigned emu_world_rst(struct emu_world *w, int a, int b, const struct emu_match *m,
		       int only)
{
	unsigned done = 0;
	for (unsigned i = 0; i < EMU_FLOWS_MAX; i++) {
		struct emu_flow *f = &w->flows->flow[i];
		struct emu_ip one = {
			.proto = EMU_TCP, .src = f->side[0], .dst = f->side[1]};
		struct emu_ip two = {
			.proto = EMU_TCP, .src = f->side[1], .dst = f->side[0]};
		int x = emu_world_end_of(w, one.src.ip),
		    y = emu_world_end_of(w, one.dst.ip);
		bool there = (a < 0 || a == x) && (b < 0 || b == y);
		bool back = (a < 0 || a == y) && (b < 0 || b == x);
		if (!f->used || !((there && emu_match_packet(m, &one)) ||
				  (back && emu_match_packet(m, &two))))
			continue;
		if (only < 0 || only == y)
			rst_towards(w, f, 0);
		if (only < 0 || only == x)
			rst_towards(w, f, 1);
		f->used = 0;
		done++;
	}
	return done;
}
