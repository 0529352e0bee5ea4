#include "controller/events.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct entry {
	uint64_t unix_ms, sequence;
	uint32_t epoch;
	enum sp_log_level level;
	char kind[CON_EVENT_WORD_MAX], about[CON_EVENT_ABOUT_MAX],
		text[CON_EVENT_TEXT_MAX];
};

struct con_events {
	struct sp_loop *loop;
	const struct sp_position *head;
	uint64_t last; // number of the newest; number N is at N % CON_EVENTS_MAX
	struct entry ring[CON_EVENTS_MAX];
};

int con_events_new(struct sp_loop *loop, struct con_events **ret)
{
	struct con_events *e = calloc(1, sizeof(*e));
	if (!e)
		return -ENOMEM;
	e->loop = loop;
	*ret = e;
	return 0;
}

void con_events_free(struct con_events *e)
{
	free(e);
}

void con_events_set_head(struct con_events *e, const struct sp_position *head)
{
	e->head = head;
}

// JSON and terminals want UTF-8 without control characters; a text may be a peer's.
static void clean(char *text)
{
	for (unsigned char *p = (unsigned char *)text; *p; p++)
		if (*p < 0x20 || *p >= 0x7f)
			*p = '?';
}

void con_events_add(struct con_events *e, enum sp_log_level level, const char *kind,
		    const char *about, const char *fmt, ...)
{
	struct entry *v = &e->ring[++e->last % CON_EVENTS_MAX];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(v->text, sizeof(v->text), fmt, ap);
	va_end(ap);
	snprintf(v->kind, sizeof(v->kind), "%s", kind);
	snprintf(v->about, sizeof(v->about), "%s", about);
	clean(v->text);
	clean(v->kind);
	clean(v->about);
	v->level = level;
	v->unix_ms = sp_loop_unix_ms(e->loop);
	v->epoch = e->head ? e->head->epoch : 0;
	v->sequence = e->head ? e->head->sequence : 0;
	SP_LOG(level, "event", "event",
	       "event=%s about=%s text=%s epoch=%u sequence=%" PRIu64 " number=%" PRIu64,
	       v->kind, v->about, v->text, v->epoch, v->sequence, e->last);
}

uint64_t con_events_last(const struct con_events *e)
{
	return e->last;
}

static const char *level_word(enum sp_log_level level)
{
	switch (level) {
	case SP_LOG_DEBUG:
		return "debug";
	case SP_LOG_INFO:
		return "info";
	case SP_LOG_WARN:
		return "warn";
	case SP_LOG_ERROR:
		return "error";
	}
	return "info";
}

static json_t *describe(const struct entry *v, uint64_t number)
{
	return json_pack("{s:I, s:I, s:s, s:s, s:s, s:s, s:I, s:I}", "number",
			 (json_int_t)number, "time_ms", (json_int_t)v->unix_ms, "level",
			 level_word(v->level), "kind", v->kind, "about", v->about, "text",
			 v->text, "epoch", (json_int_t)v->epoch, "sequence",
			 (json_int_t)v->sequence);
}

// "fra1" is also "fra1/0" and "worker:fra1/0".
static bool is_about(const char *about, const char *thing)
{
	const char *colon = strchr(about, ':');
	size_t n = strlen(thing);
	if (strcmp(about, thing) == 0)
		return true;
	if (colon)
		about = colon + 1;
	else if (strncmp(about, "worker/", 7) == 0) // of an enrolment
		about += 7;
	else if (strncmp(about, "vantage/", 8) == 0)
		about += 8;
	return strncmp(about, thing, n) == 0 && (!about[n] || about[n] == '/');
}

static bool is_wanted(const struct entry *v, const struct con_events_filter *want)
{
	return !want || ((!want->kind || strcmp(v->kind, want->kind) == 0) &&
			 (!want->about || is_about(v->about, want->about)) &&
			 v->unix_ms >= want->since_ms);
}

// The number from which the last `limit` wanted ones begin.
static uint64_t begin_of_latest(const struct con_events *e, uint64_t first, size_t limit,
				const struct con_events_filter *want)
{
	uint64_t n = e->last + 1;
	while (n > first && limit)
		limit -= is_wanted(&e->ring[--n % CON_EVENTS_MAX], want);
	return n;
}

json_t *con_events_list(const struct con_events *e, uint64_t after, size_t limit,
			bool latest, const struct con_events_filter *want)
{
	uint64_t oldest = e->last >= CON_EVENTS_MAX ? e->last - CON_EVENTS_MAX + 1 : 1;
	uint64_t n = after >= e->last ? e->last + 1 : after + 1;
	json_t *list = json_array();
	if (n < oldest)
		n = oldest;
	if (latest)
		n = begin_of_latest(e, n, limit, want);
	for (; list && n <= e->last && json_array_size(list) < limit; n++) {
		const struct entry *v = &e->ring[n % CON_EVENTS_MAX];
		if (is_wanted(v, want) && json_array_append_new(list, describe(v, n))) {
			json_decref(list);
			return NULL;
		}
	}
	return list;
}
