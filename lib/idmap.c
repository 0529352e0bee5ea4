#include "lib/idmap.h"

#include <errno.h>
#include <stdlib.h>

#include <sodium.h>

// Two rounds of multiply and fold around secret numbers.
static uint32_t home(const struct sp_idmap *m, uint64_t id)
{
	uint64_t h = (id ^ m->key[0]) * UINT64_C(0x9e3779b97f4a7c15);
	h = (h ^ h >> 32 ^ m->key[1]) * UINT64_C(0xd6e8feb86659fd93);
	return (uint32_t)(h >> 32) & m->mask;
}

void sp_idmap_init(struct sp_idmap *m)
{
	*m = (struct sp_idmap){0};
	randombytes_buf(m->key, sizeof(m->key));
}

void sp_idmap_done(struct sp_idmap *m)
{
	free(m->slots);
	*m = (struct sp_idmap){0};
}

void *sp_idmap_get(const struct sp_idmap *m, uint64_t id)
{
	if (!m->slots)
		return NULL;
	for (uint32_t i = home(m, id); m->slots[i].value; i = (i + 1) & m->mask)
		if (m->slots[i].id == id)
			return m->slots[i].value;
	return NULL;
}

static void place(struct sp_idmap *m, uint64_t id, void *value)
{
	uint32_t i = home(m, id);
	while (m->slots[i].value)
		i = (i + 1) & m->mask;
	m->slots[i] = (struct sp_idmap_slot){id, value};
}

static int grow(struct sp_idmap *m)
{
	uint32_t cap = m->slots ? (m->mask + 1) * 2 : 8;
	struct sp_idmap bigger = *m;
	bigger.slots = calloc(cap, sizeof(*m->slots));
	bigger.mask = cap - 1;
	if (!bigger.slots)
		return -ENOMEM;
	for (uint32_t i = 0; m->slots && i <= m->mask; i++)
		if (m->slots[i].value)
			place(&bigger, m->slots[i].id, m->slots[i].value);
	free(m->slots);
	*m = bigger;
	return 0;
}

int sp_idmap_put(struct sp_idmap *m, uint64_t id, void *value)
{
	if (!m->slots || (m->n + 1) * 4 > (m->mask + 1) * 3) {
		int err = grow(m);
		if (err)
			return err;
	}
	place(m, id, value);
	m->n++;
	return 0;
}

void sp_idmap_remove(struct sp_idmap *m, uint64_t id)
{
	if (!m->slots)
		return;
	uint32_t i = home(m, id);
	while (m->slots[i].value && m->slots[i].id != id)
		i = (i + 1) & m->mask;
	if (!m->slots[i].value)
		return;
	m->n--;
	// Close the gap: move back every entry that the gap would cut off from its home.
	for (uint32_t j = (i + 1) & m->mask; m->slots[j].value; j = (j + 1) & m->mask) {
		uint32_t h = home(m, m->slots[j].id);
		if (((j - h) & m->mask) >= ((j - i) & m->mask)) {
			m->slots[i] = m->slots[j];
			i = j;
		}
	}
	m->slots[i].value = NULL;
}
