#include "tests/chaos/content.h"

#include <string.h>

#define FIRST  0x9e3779b97f4a7c15ull // odd, so each product can be undone
#define SECOND 0xbf58476d1ce4e5b9ull

// (stream 24 bits, direction 1, offset / 8 39 bits) to eight bytes.
static uint64_t word_of(uint32_t id, int dir, uint64_t index)
{
	uint64_t x =
		(uint64_t)id << 40 | (uint64_t)dir << 39 | (index & ((1ull << 39) - 1));

	x *= FIRST;
	x ^= x >> 32;
	x *= SECOND;
	return x ^ x >> 32;
}

static uint64_t inverse(uint64_t odd)
{
	uint64_t x = odd;

	for (int i = 0; i < 5; i++) // Newton: each step doubles the bits that are right
		x *= 2 - odd * x;
	return x;
}

static uint64_t undo(uint64_t x)
{
	x ^= x >> 32;
	x *= inverse(SECOND);
	x ^= x >> 32;
	return x * inverse(FIRST);
}

void content_fill(uint32_t id, int dir, uint64_t offset, uint8_t *buf, size_t len)
{
	uint64_t index = offset / 8, word;
	size_t skip = offset % 8, n;

	for (; len; index++, skip = 0) {
		word = word_of(id, dir, index);
		n = 8 - skip < len ? 8 - skip : len;
		if (n == 8)
			memcpy(buf, &word, 8);
		else
			memcpy(buf, (const uint8_t *)&word + skip, n);
		buf += n;
		len -= n;
	}
}

// How many of the bytes are those at `offset`.
static size_t same(const struct content_run *of, const uint8_t *buf, size_t len)
{
	uint64_t index = of->to / 8, word;
	size_t skip = of->to % 8, done = 0, n;

	if (of->id < 0)
		return 0;
	for (; done < len; index++, skip = 0) {
		word = word_of((uint32_t)of->id, of->dir, index);
		if (!skip && len - done >= 8) {
			uint64_t came;
			memcpy(&came, buf + done, 8);
			if (came == word) {
				done += 8;
				continue;
			}
		}
		n = 8 - skip < len - done ? 8 - skip : len - done;
		if (memcmp(buf + done, (const uint8_t *)&word + skip, n)) {
			for (size_t i = 0; i < n; i++, done++)
				if (buf[done] != ((const uint8_t *)&word)[skip + i])
					return done;
		}
		done += n;
	}
	return done;
}

// Where the bytes belong, by two words in a row; how many in front of them it skipped.
static bool place(const uint8_t *buf, size_t len, struct content_run *ret,
		  size_t *ret_skip)
{
	uint64_t a, b;

	for (size_t i = 0; i + 16 <= len; i++) {
		memcpy(&a, buf + i, 8);
		memcpy(&b, buf + i + 8, 8);
		a = undo(a);
		b = undo(b);
		if (b != a + 1)
			continue;
		ret->id = (int64_t)(a >> 40);
		ret->dir = a >> 39 & 1;
		ret->from = (a & ((1ull << 39) - 1)) * 8;
		*ret_skip = i;
		// the bytes of the word before
		for (; *ret_skip && ret->from; (*ret_skip)--, ret->from--) {
			uint64_t before =
				word_of((uint32_t)ret->id, ret->dir, (ret->from - 1) / 8);
			if (buf[*ret_skip - 1] !=
			    ((const uint8_t *)&before)[(ret->from - 1) % 8])
				break;
		}
		ret->to = ret->from;
		return true;
	}
	return false;
}

void content_track_init(struct content_track *t, uint32_t id, int dir)
{
	memset(t, 0, sizeof(*t));
	t->id = id;
	t->dir = dir;
	t->n_runs = 1;
	t->runs[0] = (struct content_run){id, dir, 0, 0};
}

static struct content_run *last_run(struct content_track *t)
{
	unsigned n = t->n_runs < CONTENT_RUNS ? t->n_runs : CONTENT_RUNS;

	return &t->runs[n - 1];
}

static struct content_run *next_run(struct content_track *t, struct content_run r)
{
	t->n_runs++;
	*last_run(t) = r; // the last place is used again and again
	return last_run(t);
}

bool content_track_take(struct content_track *t, const uint8_t *buf, size_t len)
{
	struct content_run *r = last_run(t), found;
	bool good = true;
	size_t n, skip;

	while (len) {
		n = same(r, buf, len);
		r->to += n;
		t->bytes += n;
		buf += n;
		len -= n;
		if (!len)
			break;
		good = false;
		if (!place(buf, len, &found, &skip))
			skip = len; // nothing in sight
		if (skip) {
			if (r->id >= 0)
				r = next_run(t, (struct content_run){CONTENT_FOREIGN_NONE,
								     0, 0, 0});
			r->to += skip;
			t->bytes += skip;
			buf += skip;
			len -= skip;
		}
		if (len)
			r = next_run(t, found);
	}
	return good;
}

bool content_track_good(const struct content_track *t)
{
	return t->n_runs == 1 && t->runs[0].id == t->id && t->runs[0].dir == t->dir &&
	       t->runs[0].from == 0 && t->runs[0].to == t->bytes;
}
