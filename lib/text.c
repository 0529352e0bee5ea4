#include "lib/text.h"

#include <assert.h>
#include <ctype.h>
#include <string.h>

#include <sodium.h>

#define WORD_MAX 63

char *sp_base64_encode(const void *bytes, size_t len, char *buf, size_t cap)
{
	assert(cap >= SP_BASE64_CAP(len));
	return sodium_bin2base64(buf, cap, bytes, len, sodium_base64_VARIANT_ORIGINAL);
}

// libsodium 1.0.18 takes digits with their high bit set; no other byte above 127 may
// come.
static bool is_ascii(const char *text, size_t len)
{
	uint8_t all = 0;
	for (size_t i = 0; i < len; i++)
		all |= (uint8_t)text[i];
	return all < 0x80;
}

int sp_base64_decode(const char *text, size_t text_len, void *ret, size_t cap,
		     size_t *ret_len)
{
	size_t len, want = text_len / 4 * 3;
	const char *end;

	if (text_len % 4 || !is_ascii(text, text_len))
		return SP_E_MALFORMED;
	for (size_t i = 1; i <= 2 && i < text_len && text[text_len - i] == '='; i++)
		want--;
	if (want > cap)
		return SP_E_LIMIT;
	if (sodium_base642bin(ret, cap, text, text_len, NULL, &len, &end,
			      sodium_base64_VARIANT_ORIGINAL) ||
	    end != text + text_len || len != want)
		return SP_E_MALFORMED;
	*ret_len = len;
	return 0;
}

char *sp_hex_encode(const void *bytes, size_t len, char *buf, size_t cap)
{
	assert(cap > 2 * len);
	return sodium_bin2hex(buf, cap, bytes, len);
}

int sp_hex_decode(const char *text, size_t text_len, void *ret, size_t len)
{
	size_t got;

	if (text_len != 2 * len || !is_ascii(text, text_len) ||
	    sodium_hex2bin(ret, len, text, text_len, NULL, &got, NULL) || got != len)
		return SP_E_MALFORMED;
	return 0;
}

static unsigned least(unsigned a, unsigned b)
{
	return a < b ? a : b;
}

unsigned sp_text_distance(const char *a, const char *b)
{
	unsigned rows[3][WORD_MAX + 1], *before = rows[0], *last = rows[1],
					*row = rows[2];
	size_t na = strlen(a), nb = strlen(b);

	if (na > WORD_MAX || nb > WORD_MAX)
		return strcmp(a, b) ? WORD_MAX + 1 : 0;
	for (unsigned j = 0; j <= nb; j++)
		last[j] = j;
	for (size_t i = 1; i <= na; i++) {
		row[0] = (unsigned)i;
		for (size_t j = 1; j <= nb; j++) {
			row[j] = least(least(last[j], row[j - 1]) + 1,
				       last[j - 1] + (a[i - 1] != b[j - 1]));
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] &&
			    a[i - 2] == b[j - 1])
				row[j] = least(row[j], before[j - 2] + 1);
		}
		unsigned *spare = before;
		before = last;
		last = row;
		row = spare;
	}
	return last[nb];
}
