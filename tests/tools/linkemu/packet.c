#include "tests/tools/linkemu/packet.h"

#include <errno.h>
#include <string.h>

#define IP_SUM  10
#define IP_SRC  12
#define IP_DST  16
#define TCP_SUM 16
#define UDP_SUM 6

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)get16(p) << 16 | get16(p + 2);
}

static void put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v)
{
	put16(p, (uint16_t)(v >> 16));
	put16(p + 2, (uint16_t)v);
}

static int parse_tcp(const uint8_t *l4, size_t len, struct emu_ip *ret)
{
	size_t header = len < 20 ? 0 : (size_t)(l4[12] >> 4) * 4;
	if (header < 20 || header > len)
		return -EBADMSG;
	ret->seq = get32(l4 + 4);
	ret->ack = get32(l4 + 8);
	ret->flags = l4[13];
	ret->payload = (uint16_t)(len - header);
	return 0;
}

int emu_packet_parse(const uint8_t *data, size_t len, struct emu_ip *ret)
{
	struct emu_ip ip = {0};
	if (len < 20 || data[0] >> 4 != 4)
		return -EBADMSG;
	size_t header = (size_t)(data[0] & 15) * 4, total = get16(data + 2);
	if (header < 20 || total < header || total > len)
		return -EBADMSG;
	ip.proto = data[9];
	ip.src.ip = get32(data + IP_SRC);
	ip.dst.ip = get32(data + IP_DST);
	ip.l4 = (uint16_t)header;
	bool fragment = get16(data + 6) & 0x3fff; // more to come, or an offset
	if (!fragment && (ip.proto == EMU_TCP || ip.proto == EMU_UDP)) {
		const uint8_t *l4 = data + header;
		if (total - header < 8)
			return -EBADMSG;
		ip.src.port = get16(l4);
		ip.dst.port = get16(l4 + 2);
		if (ip.proto == EMU_TCP && parse_tcp(l4, total - header, &ip))
			return -EBADMSG;
	}
	*ret = ip;
	return 0;
}

// RFC 1624, equation 3.
static void sum_replace(uint8_t *sum, uint16_t was, uint16_t is)
{
	uint32_t v = (uint16_t)~get16(sum);
	v += (uint16_t)~was;
	v += is;
	v = (v & 0xffff) + (v >> 16);
	v = (v & 0xffff) + (v >> 16);
	put16(sum, (uint16_t)~v);
}

static uint8_t *l4_sum(uint8_t *data, const struct emu_ip *ip)
{
	uint8_t *udp = data + ip->l4 + UDP_SUM;
	if (!ip->src.port && !ip->dst.port)
		return NULL;
	if (ip->proto == EMU_TCP)
		return data + ip->l4 + TCP_SUM;
	return get16(udp) ? udp : NULL; // 0: sent without
}

static void set_end(uint8_t *data, const struct emu_ip *ip, size_t at, size_t port_at,
		    struct emu_addr to)
{
	uint8_t *sum = l4_sum(data, ip);
	for (size_t i = 0; i < 4; i += 2) {
		uint16_t was = get16(data + at + i),
			 is = (uint16_t)(to.ip >> (16 - 8 * i));
		sum_replace(data + IP_SUM, was, is);
		if (sum)
			sum_replace(sum, was, is);
	}
	put32(data + at, to.ip);
	if (!ip->src.port && !ip->dst.port)
		return;
	uint8_t *port = data + ip->l4 + port_at;
	if (sum)
		sum_replace(sum, get16(port), to.port);
	put16(port, to.port);
}

void emu_packet_set_src(uint8_t *data, struct emu_ip *ip, struct emu_addr to)
{
	set_end(data, ip, IP_SRC, 0, to);
	ip->src.ip = to.ip;
	ip->src.port = ip->src.port ? to.port : 0;
}

void emu_packet_set_dst(uint8_t *data, struct emu_ip *ip, struct emu_addr to)
{
	set_end(data, ip, IP_DST, 2, to);
	ip->dst.ip = to.ip;
	ip->dst.port = ip->dst.port ? to.port : 0;
}

static uint32_t add16(const uint8_t *p, size_t len)
{
	uint32_t sum = 0;
	for (size_t i = 0; i + 1 < len; i += 2)
		sum += get16(p + i);
	return len & 1 ? sum + (uint32_t)(p[len - 1] << 8) : sum;
}

static uint16_t fold(uint32_t sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)~sum;
}

uint16_t emu_packet_sum(const uint8_t *data, size_t len, bool ip_header)
{
	size_t header = (size_t)(data[0] & 15) * 4;
	if (ip_header)
		return fold(add16(data, header));
	return fold(add16(data + IP_SRC, 8) + data[9] + (uint32_t)(len - header) +
		    add16(data + header, len - header));
}

void emu_packet_rst(uint8_t *data, struct emu_addr src, struct emu_addr dst, uint32_t seq,
		    bool with_ack, uint32_t ack)
{
	uint8_t *tcp = data + 20;
	memset(data, 0, EMU_RST_LEN);
	data[0] = 0x45;
	put16(data + 2, EMU_RST_LEN);
	data[6] = 0x40; // do not fragment
	data[8] = 64;
	data[9] = EMU_TCP;
	put32(data + IP_SRC, src.ip);
	put32(data + IP_DST, dst.ip);
	put16(data + IP_SUM, emu_packet_sum(data, EMU_RST_LEN, true));
	put16(tcp, src.port);
	put16(tcp + 2, dst.port);
	put32(tcp + 4, seq);
	put32(tcp + 8, with_ack ? ack : 0);
	tcp[12] = 5 << 4;
	tcp[13] = (uint8_t)(EMU_RST | (with_ack ? EMU_ACK : 0));
	put16(tcp + TCP_SUM, emu_packet_sum(data, EMU_RST_LEN, false));
}
