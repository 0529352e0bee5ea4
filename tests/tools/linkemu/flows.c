#include "tests/tools/linkemu/flows.h"

#include <string.h>

#define NAT_PORT_FIRST 20000 // outside the range that kernels give
#define NAT_PORT_LAST  31999

static bool addr_is(const struct emu_addr *want, const struct emu_addr *is)
{
	return (!want->ip || want->ip == is->ip) &&
	       (!want->port || want->port == is->port);
}

bool emu_match_packet(const struct emu_match *m, const struct emu_ip *ip)
{
	return (!m->proto || m->proto == ip->proto) && addr_is(&m->src, &ip->src) &&
	       addr_is(&m->dst, &ip->dst);
}

// ---- connections ----

static bool same(const struct emu_addr *a, const struct emu_addr *b)
{
	return a->ip == b->ip && a->port == b->port;
}

// Both directions of a connection fall into one set.
static struct emu_flow *set_of(struct emu_flows *f, const struct emu_ip *ip)
{
	uint64_t a = (uint64_t)ip->src.ip << 16 | ip->src.port;
	uint64_t b = (uint64_t)ip->dst.ip << 16 | ip->dst.port;
	uint64_t h = (a + b) * UINT64_C(0x9e3779b97f4a7c15);
	return &f->flow[(h >> 32) % (EMU_FLOWS_MAX / EMU_FLOWS_WAYS) * EMU_FLOWS_WAYS];
}

static struct emu_flow *find(struct emu_flows *f, const struct emu_ip *ip, unsigned *side)
{
	struct emu_flow *set = set_of(f, ip);
	for (struct emu_flow *w = set; w < set + EMU_FLOWS_WAYS; w++)
		for (unsigned s = 0; s < 2; s++)
			if (w->used && same(&w->side[s], &ip->src) &&
			    same(&w->side[!s], &ip->dst)) {
				*side = s;
				return w;
			}
	return NULL;
}

static struct emu_flow *stalest(struct emu_flow *set)
{
	struct emu_flow *old = set;
	for (struct emu_flow *w = set; w < set + EMU_FLOWS_WAYS; w++)
		if (w->used < old->used)
			old = w;
	return old;
}

struct emu_flow *emu_flows_of(struct emu_flows *f, const struct emu_ip *ip,
			      unsigned *ret_side)
{
	struct emu_flow *w = find(f, ip, ret_side);
	bool opens = (ip->flags & (EMU_SYN | EMU_ACK)) == EMU_SYN;
	// A SYN sent again does not begin anew: nothing has come back yet.
	if (!w || (opens && w->half[!*ret_side].arrived)) {
		if (!w)
			w = stalest(set_of(f, ip));
		*w = (struct emu_flow){.side = {ip->src, ip->dst}};
		*ret_side = 0;
	}
	w->used = ++f->clock;
	if (ip->flags & EMU_ACK) {
		w->half[*ret_side].ack = ip->ack;
		w->half[*ret_side].said_ack = true;
	}
	return w;
}

void emu_flows_arrived(struct emu_flows *f, const struct emu_ip *ip)
{
	unsigned side;
	struct emu_flow *w = find(f, ip, &side);
	if (!w)
		return;
	struct emu_half *h = &w->half[side];
	uint32_t flags = ip->flags;
	uint32_t next = ip->seq + ip->payload + !!(flags & EMU_SYN) + !!(flags & EMU_FIN);
	if (!h->arrived || (int32_t)(next - h->next) > 0)
		h->next = next;
	h->arrived = true;
}

// ---- address translation ----

void emu_nat_start(struct emu_nat *n, uint32_t address)
{
	if (!n->on)
		n->last_port = NAT_PORT_FIRST;
	n->on = true;
	n->address = address;
}

static bool port_is_taken(const struct emu_nat *n, uint8_t proto, uint16_t port)
{
	for (unsigned i = 0; i < EMU_NAT_MAX; i++)
		if (n->map[i].used && n->map[i].proto == proto &&
		    n->map[i].outside == port)
			return true;
	return false;
}

// Ports go round, so that one that was given up is not given again soon.
static uint16_t next_port(struct emu_nat *n, uint8_t proto)
{
	do {
		n->last_port = n->last_port >= NAT_PORT_LAST
				       ? NAT_PORT_FIRST
				       : (uint16_t)(n->last_port + 1);
	} while (port_is_taken(n, proto, n->last_port));
	return n->last_port;
}

void emu_nat_out(struct emu_nat *n, uint8_t *data, struct emu_ip *ip)
{
	struct emu_mapping *m = NULL, *old = &n->map[0];
	if (!n->on || !ip->src.port)
		return;
	for (unsigned i = 0; i < EMU_NAT_MAX && !m; i++) {
		struct emu_mapping *c = &n->map[i];
		if (c->used && c->proto == ip->proto && c->inside == ip->src.port)
			m = c;
		if (c->used < old->used)
			old = c;
	}
	if (!m) {
		m = old;
		*m = (struct emu_mapping){.proto = ip->proto,
					  .inside = ip->src.port,
					  .address = n->address};
		m->outside = next_port(n, ip->proto);
	}
	m->used = ++n->clock;
	emu_packet_set_src(data, ip, (struct emu_addr){m->address, m->outside});
}

bool emu_nat_in(struct emu_nat *n, uint8_t *data, struct emu_ip *ip, uint32_t inside)
{
	if (!n->on || (ip->proto != EMU_TCP && ip->proto != EMU_UDP))
		return true;
	for (unsigned i = 0; i < EMU_NAT_MAX; i++) {
		struct emu_mapping *m = &n->map[i];
		if (!m->used || m->proto != ip->proto || m->outside != ip->dst.port ||
		    m->address != ip->dst.ip)
			continue;
		m->used = ++n->clock;
		emu_packet_set_dst(data, ip, (struct emu_addr){inside, m->inside});
		return true;
	}
	return false;
}

unsigned emu_nat_rebind(struct emu_nat *n, uint8_t proto, uint16_t inside)
{
	unsigned done = 0;
	for (unsigned i = 0; i < EMU_NAT_MAX; i++) {
		struct emu_mapping *m = &n->map[i];
		if (!m->used || (proto && m->proto != proto) ||
		    (inside && m->inside != inside))
			continue;
		m->used = 0;
		done++;
	}
	return done;
}
