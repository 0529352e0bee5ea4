#include "worker/dnsmsg.h"

#include <string.h>

#include "lib/wire.h"

// RFC 1035 sections 3.2.2 and 4.1.1, RFC 3596 section 2.1
#define TYPE_A         1
#define TYPE_CNAME     5
#define TYPE_SOA       6
#define TYPE_AAAA      28
#define CLASS_IN       1
#define FLAG_RESPONSE  0x8000
#define RCODE_MASK     0x000f
#define RCODE_NOERROR  0
#define RCODE_NXDOMAIN 3

#define TTL_MAX 0x7fffffffu

bool wrk_dnsname_fold(const char *name, char *ret)
{
	size_t len = strlen(name);
	if (len && name[len - 1] == '.')
		len--;
	if (len == 0 || len > SP_NAME_MAX)
		return false;
	for (size_t i = 0; i < len; i++)
		ret[i] = name[i] >= 'A' && name[i] <= 'Z' ? (char)(name[i] + 'a' - 'A')
							  : name[i];
	ret[len] = '\0';
	return true;
}

struct record {
	uint16_t type, class;
	uint32_t ttl;
	struct sp_reader data;
};

// Steps over a name (RFC 1035 section 4.1.4); what it says does not matter here.
static void skip_name(struct sp_reader *r)
{
	for (;;) {
		uint8_t len = sp_get_u8(r);
		if (r->err || len == 0)
			return;
		if ((len & 0xc0) == 0xc0) { // a pointer ends it
			(void)sp_get_u8(r);
			return;
		}
		if (len & 0xc0) {
			r->err = SP_E_MALFORMED;
			return;
		}
		(void)sp_get_bytes(r, len);
	}
}

static void get_record(struct sp_reader *r, struct record *ret)
{
	skip_name(r);
	ret->type = sp_get_u16(r);
	ret->class = sp_get_u16(r);
	ret->ttl = sp_get_u32(r);
	if (ret->ttl > TTL_MAX)
		ret->ttl = 0;
	size_t len = sp_get_u16(r);
	const uint8_t *data = sp_get_bytes(r, len);
	sp_reader_init(&ret->data, data, data ? len : 0);
}

static void least(uint32_t *ttl, uint32_t other)
{
	if (other < *ttl)
		*ttl = other;
}

static void get_answers(struct sp_reader *r, unsigned count, struct wrk_dnsanswer *a)
{
	uint16_t wanted = a->family == AF_INET ? TYPE_A : TYPE_AAAA;
	size_t size = a->family == AF_INET ? 4 : 16;
	a->ttl_s = TTL_MAX;
	for (; count && !r->err; count--) {
		struct record rec;
		get_record(r, &rec);
		if (r->err || rec.class != CLASS_IN)
			continue;
		if (rec.type == TYPE_CNAME)
			least(&a->ttl_s, rec.ttl);
		if (rec.type != wanted)
			continue;
		if (sp_reader_left(&rec.data) != size) {
			r->err = SP_E_MALFORMED;
			return;
		}
		if (a->n == WRK_DNS_ADDRS_MAX)
			continue;
		least(&a->ttl_s, rec.ttl);
		sp_get_copy(&rec.data, a->addr[a->n++], size);
	}
}

// How long the absence may be remembered: RFC 2308 section 5.
static uint32_t get_negative_ttl(struct sp_reader *r, unsigned count)
{
	for (; count && !r->err; count--) {
		struct record rec;
		get_record(r, &rec);
		if (r->err || rec.class != CLASS_IN || rec.type != TYPE_SOA)
			continue;
		uint32_t ttl = rec.ttl;
		skip_name(&rec.data);              // MNAME
		skip_name(&rec.data);              // RNAME
		(void)sp_get_bytes(&rec.data, 16); // SERIAL, REFRESH, RETRY, EXPIRE
		least(&ttl, sp_get_u32(&rec.data));
		if (rec.data.err)
			r->err = SP_E_MALFORMED;
		return ttl;
	}
	return 0;
}

int wrk_dnsmsg_parse(const uint8_t *msg, size_t len, int family,
		     struct wrk_dnsanswer *ret)
{
	struct wrk_dnsanswer a = {.family = family};
	struct sp_reader r;
	sp_reader_init(&r, msg, len);
	(void)sp_get_u16(&r); // id
	uint16_t flags = sp_get_u16(&r);
	unsigned questions = sp_get_u16(&r), answers = sp_get_u16(&r);
	unsigned authorities = sp_get_u16(&r);
	(void)sp_get_u16(&r); // additional records
	if (!r.err && !(flags & FLAG_RESPONSE))
		r.err = SP_E_MALFORMED;
	for (; questions && !r.err; questions--) {
		skip_name(&r);
		(void)sp_get_u32(&r); // type, class
	}
	uint16_t rcode = flags & RCODE_MASK;
	if (!r.err && rcode != RCODE_NOERROR && rcode != RCODE_NXDOMAIN) {
		a.status = SP_REASON_RESOLVE_FAILED;
		*ret = a;
		return 0;
	}
	get_answers(&r, answers, &a);
	if (rcode == RCODE_NXDOMAIN || a.n == 0) {
		a.status = rcode == RCODE_NXDOMAIN ? SP_REASON_RESOLVE_FAILED
						   : SP_REASON_NO_ADDRESS;
		a.n = 0;
		a.ttl_s = get_negative_ttl(&r, authorities);
	}
	if (r.err)
		return r.err;
	*ret = a;
	return 0;
}
