#include "tests/tools/linkemu/path.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct emu_path {
	struct emu_path_settings set;
	struct emu_path_counters count;
	struct emu_pool *pool;
	uint64_t random;
	// the queue, its head being sent
	struct emu_packet *head, **tail;
	uint32_t queued, queued_bytes;
	uint64_t free_at_ns; // when the line has sent all before the head
	// the delay: a heap by (due, order)
	struct emu_packet **heap;
	uint32_t n, cap;
	uint64_t order;
	uint64_t last_due_ns; // of those that keep their order
};

// ---- the pool ----

struct emu_packet *emu_pool_get(struct emu_pool *p)
{
	struct emu_packet *k = p->free;
	if (!k)
		return malloc(sizeof(*k));
	p->free = k->next;
	return k;
}

void emu_pool_put(struct emu_pool *p, struct emu_packet *k)
{
	k->next = p->free;
	p->free = k;
}

void emu_pool_done(struct emu_pool *p)
{
	while (p->free) {
		struct emu_packet *k = p->free;
		p->free = k->next;
		free(k);
	}
}

// ---- life ----

void emu_path_settings_default(struct emu_path_settings *ret)
{
	*ret = (struct emu_path_settings){
		.queue_bytes = EMU_QUEUE_UNLIMITED,
		.queue_packets = EMU_QUEUE_UNLIMITED,
		.late_ns = 10000000,
	};
}

int emu_path_new(struct emu_pool *pool, uint64_t seed, struct emu_path **ret)
{
	struct emu_path *p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	emu_path_settings_default(&p->set);
	p->pool = pool;
	p->random = seed;
	p->tail = &p->head;
	*ret = p;
	return 0;
}

static void throw_all(struct emu_path *p)
{
	while (p->head) {
		struct emu_packet *k = p->head;
		p->head = k->next;
		emu_pool_put(p->pool, k);
	}
	p->tail = &p->head;
	p->queued = p->queued_bytes = 0;
	while (p->n)
		emu_pool_put(p->pool, p->heap[--p->n]);
}

void emu_path_free(struct emu_path *p)
{
	if (!p)
		return;
	throw_all(p);
	free(p->heap);
	free(p);
}

const struct emu_path_settings *emu_path_settings(const struct emu_path *p)
{
	return &p->set;
}

const struct emu_path_counters *emu_path_counters(const struct emu_path *p)
{
	return &p->count;
}

uint32_t emu_path_held(const struct emu_path *p)
{
	return p->queued + p->n;
}

// ---- chances: splitmix64 ----

static uint64_t next_random(struct emu_path *p)
{
	uint64_t z = p->random += UINT64_C(0x9e3779b97f4a7c15);
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static bool happens(struct emu_path *p, uint64_t chance)
{
	return chance && next_random(p) >> 32 < chance;
}

// ---- the delay ----

static bool before(const struct emu_packet *a, const struct emu_packet *b)
{
	return a->due_ns < b->due_ns || (a->due_ns == b->due_ns && a->order < b->order);
}

static bool heap_push(struct emu_path *p, struct emu_packet *k)
{
	if (p->n == p->cap) {
		uint32_t cap = p->cap ? p->cap * 2 : 256;
		struct emu_packet **heap = realloc(p->heap, cap * sizeof(*heap));
		if (!heap)
			return false;
		p->heap = heap;
		p->cap = cap;
	}
	uint32_t i = p->n++;
	for (; i && before(k, p->heap[(i - 1) / 2]); i = (i - 1) / 2)
		p->heap[i] = p->heap[(i - 1) / 2];
	p->heap[i] = k;
	return true;
}

static struct emu_packet *heap_pop(struct emu_path *p)
{
	struct emu_packet *top = p->heap[0], *last = p->heap[--p->n];
	uint32_t i = 0;
	for (uint32_t c = 1; c < p->n; c = 2 * i + 1) {
		if (c + 1 < p->n && before(p->heap[c + 1], p->heap[c]))
			c++;
		if (before(last, p->heap[c]))
			break;
		p->heap[i] = p->heap[c];
		i = c;
	}
	p->heap[i] = last;
	return top;
}

// The line has sent it: when does it arrive?
static void begin_delay(struct emu_path *p, struct emu_packet *k, uint64_t sent_ns)
{
	const struct emu_path_settings *s = &p->set;
	uint64_t due = sent_ns + s->delay_ns;
	if (s->jitter_ns) {
		uint64_t add = next_random(p) % (2 * s->jitter_ns + 1);
		due = due + add > sent_ns + s->jitter_ns ? due + add - s->jitter_ns
							 : sent_ns;
	}
	if (happens(p, s->reorder)) {
		p->count.reordered++;
		due += s->late_ns;
	} else {
		if (due < p->last_due_ns)
			due = p->last_due_ns;
		p->last_due_ns = due;
	}
	k->due_ns = due;
	k->order = p->order++;
	if (!heap_push(p, k)) {
		p->count.tail++;
		emu_pool_put(p->pool, k);
	}
}

// ---- the queue ----

static uint64_t sent_at(const struct emu_path *p, const struct emu_packet *k)
{
	uint64_t start = k->arrived_ns > p->free_at_ns ? k->arrived_ns : p->free_at_ns;
	if (!p->set.rate_bps)
		return start;
	return start + k->len * UINT64_C(8000000000) / p->set.rate_bps;
}

static void serve(struct emu_path *p, uint64_t now_ns)
{
	while (p->head) {
		struct emu_packet *k = p->head;
		uint64_t sent = sent_at(p, k);
		if (sent > now_ns)
			return;
		p->free_at_ns = sent;
		p->head = k->next;
		if (!p->head)
			p->tail = &p->head;
		p->queued--;
		p->queued_bytes -= k->len;
		begin_delay(p, k, sent);
	}
}

static void enqueue(struct emu_path *p, struct emu_packet *k, uint64_t now_ns)
{
	const struct emu_path_settings *s = &p->set;
	bool full = p->queued && (p->queued_bytes + k->len > s->queue_bytes ||
				  p->queued >= s->queue_packets);
	if (full || emu_path_held(p) >= EMU_PATH_HELD_MAX) {
		p->count.tail++;
		emu_pool_put(p->pool, k);
		return;
	}
	k->arrived_ns = now_ns;
	k->next = NULL;
	*p->tail = k;
	p->tail = &k->next;
	p->queued++;
	p->queued_bytes += k->len;
	if (p->queued_bytes > p->count.queue_max_bytes)
		p->count.queue_max_bytes = p->queued_bytes;
}

void emu_path_put(struct emu_path *p, struct emu_packet *k, uint64_t now_ns)
{
	struct emu_packet *copy = NULL;
	p->count.in++;
	serve(p, now_ns);
	if (p->set.down || happens(p, p->set.loss)) {
		*(p->set.down ? &p->count.down : &p->count.lost) += 1;
		emu_pool_put(p->pool, k);
		return;
	}
	if (happens(p, p->set.duplicate))
		copy = emu_pool_get(p->pool);
	if (copy) {
		p->count.duplicated++;
		copy->len = k->len;
		memcpy(copy->data, k->data, k->len);
	}
	enqueue(p, k, now_ns);
	if (copy)
		enqueue(p, copy, now_ns);
	serve(p, now_ns);
}

struct emu_packet *emu_path_get(struct emu_path *p, uint64_t now_ns)
{
	serve(p, now_ns);
	if (!p->n || p->heap[0]->due_ns > now_ns)
		return NULL;
	struct emu_packet *k = heap_pop(p);
	p->count.out++;
	p->count.out_bytes += k->len;
	return k;
}

uint64_t emu_path_due(struct emu_path *p, uint64_t now_ns)
{
	const struct emu_path_settings *t = &p->set;
	serve(p, now_ns);
	uint64_t due = p->n ? p->heap[0]->due_ns : EMU_NEVER;
	if (!p->head)
		return due;
	uint64_t head = sent_at(p, p->head);
	head += t->delay_ns > t->jitter_ns ? t->delay_ns - t->jitter_ns : 0;
	return head < due ? head : due;
}

void emu_path_set(struct emu_path *p, const struct emu_path_settings *to, uint64_t now_ns)
{
	serve(p, now_ns);
	p->set = *to;
	if (to->down) {
		p->count.down += emu_path_held(p);
		throw_all(p);
	}
	if (p->free_at_ns < now_ns)
		p->free_at_ns = now_ns;
}
