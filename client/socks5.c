#include "client/socks5.h"

#include <string.h>

#define VERSION 5

enum phase { PHASE_GREETING, PHASE_REQUEST, PHASE_DONE };

void cli_socks5_init(struct cli_socks5 *p)
{
	*p = (struct cli_socks5){.phase = PHASE_GREETING};
}

// Bytes of the greeting, as far as is known: VER, NMETHODS, METHODS.
static size_t greeting_len(const struct cli_socks5 *p)
{
	return p->have < 2 ? 2 : 2u + p->buf[1];
}

// Bytes of an address that begins at `at` with ATYP, port included, as far as is known; 0
// for a type that does not exist.
static size_t address_len(const uint8_t *buf, size_t have, size_t at)
{
	if (have <= at)
		return 1;
	switch (buf[at]) {
	case SP_TARGET_IPV4:
		return 1 + 4 + 2;
	case SP_TARGET_IPV6:
		return 1 + 16 + 2;
	case SP_TARGET_NAME:
		return have <= at + 1 ? 2 : 2u + buf[at + 1] + 2u;
	default:
		return 0;
	}
}

static enum cli_socks5_event refuse(struct cli_socks5 *p, enum cli_socks5_code code)
{
	p->phase = PHASE_DONE;
	p->code = (uint8_t)code;
	return CLI_SOCKS5_REFUSE;
}

static enum cli_socks5_event greeting(struct cli_socks5 *p)
{
	bool none = memchr(p->buf + 2, 0, p->buf[1]) != NULL;
	p->have = 0;
	p->phase = none ? PHASE_REQUEST : PHASE_DONE;
	return none ? CLI_SOCKS5_METHOD : CLI_SOCKS5_NO_METHOD;
}

// ATYP, address, port. A name that is the text of an address becomes that address.
static int read_address(struct sp_reader *r, struct sp_target *ret)
{
	struct sp_target t = {.kind = sp_get_u8(r)};
	const uint8_t *name = NULL;
	size_t len = 0;
	if (t.kind == SP_TARGET_NAME) {
		len = sp_get_u8(r);
		name = sp_get_bytes(r, len);
	} else if (t.kind == SP_TARGET_IPV4) {
		sp_get_copy(r, t.v4, sizeof(t.v4));
	} else if (t.kind == SP_TARGET_IPV6) {
		sp_get_copy(r, t.v6, sizeof(t.v6));
	} else if (!r->err) {
		return SP_E_MALFORMED;
	}
	t.port = sp_get_u16(r);
	if (r->err)
		return r->err;
	if (name)
		return sp_target_set_host(ret, (const char *)name, len, t.port);
	*ret = t;
	return 0;
}

static enum cli_socks5_event request(struct cli_socks5 *p)
{
	struct sp_reader r;
	p->command = p->buf[1];
	sp_reader_init(&r, p->buf + 3, p->have - 3u);
	if (p->command < CLI_SOCKS5_CONNECT || p->command > CLI_SOCKS5_UDP_ASSOCIATE)
		return refuse(p, CLI_SOCKS5_COMMAND);
	if (read_address(&r, &p->target))
		return refuse(p, CLI_SOCKS5_GENERAL);
	if (p->command == CLI_SOCKS5_CONNECT && p->target.port == 0)
		return refuse(p, CLI_SOCKS5_GENERAL);
	p->phase = PHASE_DONE;
	return CLI_SOCKS5_REQUEST;
}

size_t cli_socks5_feed(struct cli_socks5 *p, const uint8_t *buf, size_t len,
		       enum cli_socks5_event *ret_event)
{
	size_t used = 0;
	*ret_event = CLI_SOCKS5_MORE;
	while (p->phase != PHASE_DONE) {
		size_t whole = 0;
		if (p->have && p->buf[0] != VERSION) {
			p->phase = PHASE_DONE;
			*ret_event = CLI_SOCKS5_NOT_SOCKS;
			break;
		}
		if (p->phase == PHASE_GREETING) {
			whole = greeting_len(p);
		} else {
			size_t rest = address_len(p->buf, p->have, 3);
			whole = rest ? 3 + rest : p->have;
			if (!rest) {
				*ret_event = refuse(p, CLI_SOCKS5_ADDRESS_TYPE);
				break;
			}
		}
		if (p->have == whole) {
			*ret_event =
				p->phase == PHASE_GREETING ? greeting(p) : request(p);
			break;
		}
		if (used == len)
			break;
		// The version alone first, so that another protocol is seen at once.
		size_t n = p->have ? whole - p->have : 1;
		if (n > len - used)
			n = len - used;
		memcpy(p->buf + p->have, buf + used, n);
		p->have = (uint16_t)(p->have + n);
		used += n;
	}
	return used;
}

size_t cli_socks5_reply(enum cli_socks5_code code, const struct sp_target *bound,
			uint8_t *buf)
{
	static const struct sp_target none = {.kind = SP_TARGET_IPV4};
	struct sp_writer w;
	if (!bound || bound->kind == SP_TARGET_NAME)
		bound = &none;
	sp_writer_init(&w, buf, CLI_SOCKS5_REPLY_MAX);
	sp_put_u8(&w, VERSION);
	sp_put_u8(&w, (uint8_t)code);
	sp_put_u8(&w, 0);
	sp_target_put(&w, bound); // its form is that of ATYP, BND.ADDR, BND.PORT
	return sp_writer_len(&w);
}

enum cli_socks5_code cli_socks5_code(enum sp_reason reason)
{
	switch ((int)reason) {
	case SP_REASON_NONE:
		return CLI_SOCKS5_OK;
	case SP_REASON_POLICY:
	case SP_REASON_PASS_EXPIRED:
	case SP_REASON_PASS_EARLY:
	case SP_REASON_PASS_INVALID:
	case SP_REASON_REVOKED:
	case SP_REASON_QUOTA:
	case SP_REASON_GROUP:
		return CLI_SOCKS5_NOT_ALLOWED;
	case SP_REASON_UNREACHABLE:
		return CLI_SOCKS5_NETWORK_UNREACHABLE;
	case SP_REASON_RESOLVE_FAILED:
	case SP_REASON_RESOLVE_TIMEOUT:
	case SP_REASON_NO_ADDRESS:
		return CLI_SOCKS5_HOST_UNREACHABLE;
	case SP_REASON_REFUSED:
	case SP_REASON_PEER_RESET:
		return CLI_SOCKS5_REFUSED;
	case SP_REASON_TIMEOUT:
		return CLI_SOCKS5_TTL_EXPIRED;
	default:
		return CLI_SOCKS5_GENERAL;
	}
}

int cli_socks5_udp_parse(const uint8_t *buf, size_t len, struct sp_target *ret_target)
{
	struct sp_reader r;
	sp_reader_init(&r, buf, len);
	(void)sp_get_u16(&r); // RSV
	if (sp_get_u8(&r) && !r.err)
		return SP_E_PROTOCOL;
	if (r.err)
		return r.err;
	int err = read_address(&r, ret_target);
	return err ? err : (int)(r.p - buf);
}

size_t cli_socks5_udp_header(const struct sp_target *target, uint8_t *buf)
{
	struct sp_writer w;
	sp_writer_init(&w, buf, CLI_SOCKS5_HEADER_MAX);
	sp_put_u16(&w, 0);
	sp_put_u8(&w, 0);
	sp_target_put(&w, target);
	return sp_writer_len(&w);
}
