#include "client/untouched.h"

#include <stdlib.h>
#include <string.h>

#include "lib/wire.h"

#define RECORD_HANDSHAKE 22
#define CLIENT_HELLO     1
#define EXT_EARLY_DATA   42
#define RANDOM_BYTES     32
#define SESSION_ID_MAX   32

// A length of two bytes, of all that follows.
static bool is_rest(struct sp_reader *r)
{
	size_t n = sp_get_u16(r);
	return n == sp_reader_left(r);
}

static bool has_early_data(struct sp_reader *r)
{
	bool early = false;
	while (!r->err && sp_reader_left(r)) {
		early |= sp_get_u16(r) == EXT_EARLY_DATA;
		(void)sp_get_bytes(r, sp_get_u16(r));
	}
	return early;
}

bool cli_untouched_is_hello(const uint8_t *buf, size_t len)
{
	struct sp_reader r;
	sp_reader_init(&r, buf, len);
	if (sp_get_u8(&r) != RECORD_HANDSHAKE || sp_get_u8(&r) != 3 ||
	    sp_get_u8(&r) < 1 || !is_rest(&r))
		return false;
	if (sp_get_u8(&r) != CLIENT_HELLO || sp_get_u8(&r) != 0 || !is_rest(&r) ||
	    sp_get_u8(&r) != 3)
		return false;
	(void)sp_get_u8(&r);
	(void)sp_get_bytes(&r, RANDOM_BYTES);
	size_t n = sp_get_u8(&r);
	if (n > SESSION_ID_MAX)
		return false;
	(void)sp_get_bytes(&r, n);
	n = sp_get_u16(&r); // cipher suites
	if (n < 2 || n % 2)
		return false;
	(void)sp_get_bytes(&r, n);
	n = sp_get_u8(&r); // compression methods
	(void)sp_get_bytes(&r, n);
	if (!n || r.err)
		return false;
	if (!sp_reader_left(&r)) // of TLS 1.2 and before
		return true;
	return is_rest(&r) && !has_early_data(&r) && !r.err;
}

static bool keep(struct cli_untouched *k, struct cli_untouched_budget *budget, size_t n)
{
	if (k->len + n > CLI_UNTOUCHED_MAX)
		return false;
	if (budget->bytes + n > budget->max) {
		budget->refused++;
		return false;
	}
	uint8_t *more = realloc(k->bytes, k->len + n);
	if (!more)
		return false;
	k->bytes = more;
	budget->bytes += n;
	return true;
}

void cli_untouched_write(struct cli_untouched *k, struct cli_untouched_budget *budget,
			 const struct iovec *iov, size_t n)
{
	if (k->touched || !n)
		return;
	if ((!k->len && *(const uint8_t *)iov[0].iov_base != RECORD_HANDSHAKE) ||
	    !keep(k, budget, n)) {
		cli_untouched_touch(k, budget);
		return;
	}
	for (; n; iov++) {
		size_t part = n < iov->iov_len ? n : iov->iov_len;
		memcpy(k->bytes + k->len, iov->iov_base, part);
		k->len += (uint32_t)part;
		n -= part;
	}
}

void cli_untouched_touch(struct cli_untouched *k, struct cli_untouched_budget *budget)
{
	k->touched = true;
	budget->bytes -= k->len;
	free(k->bytes);
	k->bytes = NULL;
	k->len = 0;
}

bool cli_untouched_may_redo(const struct cli_untouched *k)
{
	return !k->touched && (!k->len || cli_untouched_is_hello(k->bytes, k->len));
}
