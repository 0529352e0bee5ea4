#include "lib/pass.h"

#include <string.h>

#include "lib/wire.h"

#define VERSION 1

_Static_assert(SP_PASS_BODY_MAX == 1 + SP_PASS_SERIAL_BYTES + SP_PASS_DEVICE_BYTES + 8 +
					   8 + (1 + SP_PASS_USER_MAX) +
					   (1 + SP_PASS_WORD_MAX) + 2 + 4 + 4 + 8 + 1 +
					   SP_PASS_GROUPS_MAX * (1 + SP_PASS_WORD_MAX),
	       "the largest body");

static bool is_text(const void *text, size_t len, size_t max)
{
	const uint8_t *p = text;

	if (len < 1 || len > max)
		return false;
	for (size_t i = 0; i < len; i++)
		if (p[i] < 0x20 || p[i] > 0x7e)
			return false;
	return true;
}

static bool is_valid(const struct sp_pass *pass)
{
	if (!is_text(pass->user, strnlen(pass->user, sizeof(pass->user)),
		     SP_PASS_USER_MAX) ||
	    !is_text(pass->tier, strnlen(pass->tier, sizeof(pass->tier)),
		     SP_PASS_WORD_MAX) ||
	    pass->groups_n > SP_PASS_GROUPS_MAX || pass->expires_s <= pass->not_before_s)
		return false;
	for (unsigned i = 0; i < pass->groups_n; i++)
		if (!is_text(pass->groups[i],
			     strnlen(pass->groups[i], sizeof(pass->groups[i])),
			     SP_PASS_WORD_MAX))
			return false;
	return true;
}

static void put_text(struct sp_writer *w, const char *text)
{
	size_t len = strlen(text);

	sp_put_u8(w, (uint8_t)len);
	sp_put_bytes(w, text, len);
}

int sp_pass_encode(const struct sp_pass *pass, uint8_t *out, size_t cap)
{
	struct sp_writer w;

	if (!is_valid(pass))
		return SP_E_MALFORMED;
	sp_writer_init(&w, out, cap);
	sp_put_u8(&w, VERSION);
	sp_put_bytes(&w, pass->serial, sizeof(pass->serial));
	sp_put_bytes(&w, pass->device, sizeof(pass->device));
	sp_put_u64(&w, pass->not_before_s);
	sp_put_u64(&w, pass->expires_s);
	put_text(&w, pass->user);
	put_text(&w, pass->tier);
	sp_put_u16(&w, pass->max_sessions);
	sp_put_u32(&w, pass->max_streams);
	sp_put_u32(&w, pass->max_flows);
	sp_put_u64(&w, pass->rate_bps);
	sp_put_u8(&w, (uint8_t)pass->groups_n);
	for (unsigned i = 0; i < pass->groups_n; i++)
		put_text(&w, pass->groups[i]);
	return w.err ? w.err : (int)sp_writer_len(&w);
}

// `ret` has room for max + 1 bytes and is zeroed. An error makes the reader's error
// sticky by itself, or is the result.
static bool get_text(struct sp_reader *r, size_t max, char *ret)
{
	size_t len = sp_get_u8(r);
	const uint8_t *p = sp_get_bytes(r, len);

	if (r->err)
		return true; // the reader's error says it
	if (!is_text(p, len, max))
		return false;
	memcpy(ret, p, len);
	return true;
}

int sp_pass_parse(const void *body, size_t len, struct sp_pass *ret)
{
	struct sp_pass pass = {0};
	struct sp_reader r;
	bool good;
	int err;

	sp_reader_init(&r, body, len);
	if (sp_get_u8(&r) != VERSION)
		return r.err ? r.err : SP_E_VERSION;
	sp_get_copy(&r, pass.serial, sizeof(pass.serial));
	sp_get_copy(&r, pass.device, sizeof(pass.device));
	pass.not_before_s = sp_get_u64(&r);
	pass.expires_s = sp_get_u64(&r);
	good = get_text(&r, SP_PASS_USER_MAX, pass.user) &&
	       get_text(&r, SP_PASS_WORD_MAX, pass.tier);
	pass.max_sessions = sp_get_u16(&r);
	pass.max_streams = sp_get_u32(&r);
	pass.max_flows = sp_get_u32(&r);
	pass.rate_bps = sp_get_u64(&r);
	pass.groups_n = sp_get_u8(&r);
	if (!good || pass.groups_n > SP_PASS_GROUPS_MAX)
		return SP_E_MALFORMED;
	for (unsigned i = 0; i < pass.groups_n; i++)
		if (!get_text(&r, SP_PASS_WORD_MAX, pass.groups[i]))
			return SP_E_MALFORMED;
	err = sp_reader_finish(&r);
	if (!err && pass.expires_s <= pass.not_before_s)
		err = SP_E_MALFORMED;
	if (!err)
		*ret = pass;
	return err;
}

int sp_pass_sign(const struct sp_pass *pass, const uint8_t *secret, uint8_t *out,
		 size_t cap)
{
	uint8_t body[SP_PASS_BODY_MAX];
	int len = sp_pass_encode(pass, body, sizeof(body));

	if (len < 0)
		return len;
	return sp_signed_seal(SP_SIGNED_PASS, secret, body, (size_t)len, out, cap);
}

int sp_pass_open(const struct sp_signed_keys *keys, const void *blob, size_t len,
		 struct sp_pass *ret)
{
	struct sp_signed_view view;
	int err = sp_signed_open(keys, SP_SIGNED_PASS, blob, len, &view);

	return err ? err : sp_pass_parse(view.body, view.body_len, ret);
}

enum sp_reason sp_pass_judge_time(const struct sp_pass *pass, uint64_t now_s,
				  uint32_t skew_s)
{
	if (pass->not_before_s > now_s && pass->not_before_s - now_s > skew_s)
		return SP_REASON_PASS_EARLY;
	if (now_s >= pass->expires_s && now_s - pass->expires_s >= skew_s)
		return SP_REASON_PASS_EXPIRED;
	return SP_REASON_NONE;
}

bool sp_pass_has_group(const struct sp_pass *pass, const char *group)
{
	for (unsigned i = 0; i < pass->groups_n; i++)
		if (!strcmp(pass->groups[i], group))
			return true;
	return false;
}
