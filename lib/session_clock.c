#include "lib/session_clock.h"

#include <errno.h>
#include <stdlib.h>

#include "lib/idmap.h"

struct sp_session_clock {
	struct sp_loop *loop;
	struct sp_idmap entries; // by the session's address
};

struct entry {
	struct sp_session_clock *clock;
	struct sp_session *session;
	struct sp_timer timer;
};

static uint64_t key_of(const struct sp_session *s)
{
	return (uint64_t)(uintptr_t)s;
}

static void on_deadline(void *arg)
{
	struct entry *e = arg;
	struct sp_session_clock *c = e->clock;
	struct sp_session *s = e->session;

	sp_session_tick(s, sp_loop_now_us(c->loop));
	sp_session_clock_touch(c, s);
}

int sp_session_clock_new(struct sp_loop *loop, struct sp_session_clock **ret)
{
	struct sp_session_clock *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->loop = loop;
	sp_idmap_init(&c->entries);
	*ret = c;
	return 0;
}

void sp_session_clock_free(struct sp_session_clock *c)
{
	if (!c)
		return;
	for (uint32_t i = 0; c->entries.slots && i <= c->entries.mask; i++) {
		struct entry *e = c->entries.slots[i].value;
		if (!e)
			continue;
		sp_timer_done(&e->timer);
		free(e);
	}
	sp_idmap_done(&c->entries);
	free(c);
}

int sp_session_clock_add(struct sp_session_clock *c, struct sp_session *s)
{
	struct entry *e = calloc(1, sizeof(*e));

	if (!e || sp_idmap_put(&c->entries, key_of(s), e)) {
		free(e);
		return -ENOMEM;
	}
	e->clock = c;
	e->session = s;
	sp_timer_init(&e->timer, c->loop, on_deadline, e);
	sp_session_clock_touch(c, s);
	return 0;
}

void sp_session_clock_remove(struct sp_session_clock *c, struct sp_session *s)
{
	struct entry *e = sp_idmap_get(&c->entries, key_of(s));

	if (!e)
		return;
	sp_idmap_remove(&c->entries, key_of(s));
	sp_timer_done(&e->timer);
	free(e);
}

void sp_session_clock_touch(struct sp_session_clock *c, struct sp_session *s)
{
	struct entry *e = sp_idmap_get(&c->entries, key_of(s));

	if (e)
		sp_timer_set(&e->timer, sp_session_deadline(s));
}
