// The file of users' totals as a disk may give it back: raw if the first byte is even,
// else lines whose checksums are made true. What is read can be written and read again.
#include <string.h>

#include <sodium.h>

#include "controller/usage_spool.h"
#include "lib/text.h"
#include "tests/fuzz/fuzz_folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static size_t with_sums(const uint8_t *data, size_t size, char *to)
{
	size_t n = (size_t)sprintf(to, "sallyport-usage 1\n");
	while (size) {
		uint8_t h[8];
		const uint8_t *end = memchr(data, '\n', size);
		size_t len = end ? (size_t)(end - data) : size;
		crypto_generichash(h, sizeof(h), data, len, NULL, 0);
		memcpy(to + n, data, len);
		n += len;
		to[n++] = ' ';
		sp_hex_encode(h, sizeof(h), to + n, 17);
		n += 16;
		to[n++] = '\n';
		data += len + (end != NULL);
		size -= len + (end != NULL);
	}
	return n;
}

static void user(void *ctx, const char *name, const struct con_usage_sum *base,
		 uint64_t period, uint64_t mark)
{
	(void)base;
	(void)period;
	(void)mark;
	if (!*name || strlen(name) > CON_USAGE_USER_MAX)
		abort();
	con_usage_spool_all_of(ctx, name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct con_usage_visitor visitor = {.user = user};
	struct con_usage *u[2] = {0};
	struct con_usage_spool *s;
	char why[512], *text = malloc(19 * size + 64);
	bool fresh, odd = size && *data % 2;
	if (!text || sodium_init() < 0 || con_usage_new(100, &u[0]) ||
	    con_usage_new(100, &u[1]))
		abort();
	size_t n = odd ? with_sums(data + 1, size - 1, text) : size;
	const char *path = fuzz_file("file", odd ? (const void *)text : data, n);
	if (con_usage_spool_open(u[0], path, 1 << 20, &s, &fresh, why, sizeof(why)) ==
	    0) {
		con_usage_each(u[0], &visitor, s);
		if (con_usage_spool_sync(s))
			abort();
		con_usage_spool_close(s);
		if (con_usage_spool_open(u[1], path, 1 << 20, &s, &fresh, why,
					 sizeof(why)) ||
		    con_usage_users(u[0]) != con_usage_users(u[1]))
			abort();
		con_usage_spool_close(s);
	}
	con_usage_free(u[0]);
	con_usage_free(u[1]);
	free(text);
	return 0;
}
