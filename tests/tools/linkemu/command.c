#include "tests/tools/linkemu/command.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/tools/linkemu/values.h"

#define WORDS_MAX 24

const char emu_command_help[] =
	"Commands, one a line; END is the name of an end or * for all. The answer is "
	"one\n"
	"line, \"ok at=SECONDS ...\" (monotonic clock) or \"error WHY\".\n"
	"  link A B KEY=VALUE...    set both directions between two ends\n"
	"  path A B KEY=VALUE...    set the direction from A to B:\n"
	"      delay=25ms jitter=2ms rate=20mbit|0 queue=64k|100p|0 loss=1% "
	"duplicate=1%\n"
	"      reorder=1% late=10ms down=0|1; reset: as at the start, then the rest\n"
	"  block A B [MATCH...]     drop what matches from A to B; answers rule=N\n"
	"  cut A B [MATCH...]       the same both ways: two rules\n"
	"  unblock N|all            take a rule away\n"
	"  freeze A B bytes=N [oneway] [MATCH...]\n"
	"      a TCP connection that would carry more than N bytes from A to B is "
	"dropped\n"
	"      from then on without a word, both ways or only that way; answers rule=N\n"
	"  unfreeze N|all           take the rule away; frozen connections stay so\n"
	"  rst A B [to=END] [MATCH...]   reset connections, at both sides or one\n"
	"  nat A [address=ADDR]     what A sends has another source from now on\n"
	"  rebind A [proto=P] [port=INSIDE]   forget A's translations: new source ports\n"
	"  stats [A B]              counters of the direction from A to B, or of the "
	"whole\n"
	"  flows                    TCP connections, newest first, as the network sees "
	"them\n"
	"  quit\n"
	"MATCH: proto=tcp|udp|icmp src=ADDR[:PORT]|:PORT dst=ADDR[:PORT]|:PORT, for "
	"what\n"
	"goes from A to B, with addresses as seen outside of a NAT.\n";

struct job {
	struct emu_world *w;
	uint64_t now_ns;
	char *out;
	size_t len;
	int words;
	char *word[WORDS_MAX];
	bool bad; // the answer is an error
	bool quit;
};

__attribute__((format(printf, 2, 3))) static void say(struct job *j, const char *format,
						      ...)
{
	va_list ap;
	va_start(ap, format);
	int n = vsnprintf(j->out + j->len, EMU_LINE_MAX - j->len, format, ap);
	va_end(ap);
	if (n > 0)
		j->len += (size_t)n;
	if (j->len >= EMU_LINE_MAX)
		j->len = EMU_LINE_MAX - 1;
}

__attribute__((format(printf, 2, 3))) static int refuse(struct job *j, const char *format,
							...)
{
	va_list ap;
	va_start(ap, format);
	vsnprintf(j->out, EMU_LINE_MAX, format, ap);
	va_end(ap);
	j->bad = true;
	return -EINVAL;
}

// ---- words ----

static char *value_of(char *word, const char *key)
{
	size_t len = strlen(key);
	return strncmp(word, key, len) == 0 && word[len] == '=' ? word + len + 1 : NULL;
}

static int get_end(struct job *j, const char *name, bool any, int *ret)
{
	*ret = any && strcmp(name, "*") == 0 ? -1 : emu_world_find(j->w, name);
	if (*ret >= 0 || (any && strcmp(name, "*") == 0))
		return 0;
	return refuse(j, "no end has the name %s", name);
}

static int get_ends(struct job *j, bool any, int *a, int *b)
{
	if (j->words < 3)
		return refuse(j, "two ends are missing");
	if (get_end(j, j->word[1], any, a) || get_end(j, j->word[2], any, b))
		return -EINVAL;
	return *a == *b && *a >= 0 ? refuse(j, "one end twice") : 0;
}

// Takes the word if it is part of a MATCH. 1: it is not.
static int get_match(struct job *j, char *word, struct emu_match *m)
{
	char *v = value_of(word, "proto");
	if (v) {
		m->proto = strcmp(v, "tcp") == 0    ? EMU_TCP
			   : strcmp(v, "udp") == 0  ? EMU_UDP
			   : strcmp(v, "icmp") == 0 ? EMU_ICMP
						    : 0;
		return m->proto ? 0 : refuse(j, "proto is tcp, udp or icmp");
	}
	struct emu_addr *a = &m->src;
	v = value_of(word, "src");
	if (!v) {
		a = &m->dst;
		v = value_of(word, "dst");
	}
	if (!v)
		return 1;
	return emu_parse_addr(v, a) ? refuse(j, "not ADDR[:PORT]: %s", v) : 0;
}

// All words from the i-th on are a MATCH.
static int get_matches(struct job *j, int i, struct emu_match *m)
{
	for (; i < j->words; i++) {
		int r = get_match(j, j->word[i], m);
		if (r)
			return r > 0 ? refuse(j, "not known: %s", j->word[i]) : r;
	}
	return 0;
}

// ---- commands ----

static int settings(struct job *j, struct emu_path_settings *s)
{
	for (int i = 3; i < j->words; i++) {
		char *value = strchr(j->word[i], '=');
		if (strcmp(j->word[i], "reset") == 0) {
			emu_path_settings_default(s);
			continue;
		}
		if (!value)
			return refuse(j, "not KEY=VALUE: %s", j->word[i]);
		*value++ = 0;
		bool ok = emu_parse_setting(s, j->word[i], value);
		value[-1] = '='; // the other direction reads it too
		if (!ok)
			return refuse(j, "not known or out of range: %s", j->word[i]);
	}
	return 0;
}

static int do_path(struct job *j)
{
	int directions = strcmp(j->word[0], "link") == 0 ? 2 : 1;
	struct emu_path_settings s[2];
	int a, b;
	if (get_ends(j, false, &a, &b))
		return -EINVAL;
	struct emu_path *path[2] = {j->w->path[a][b], j->w->path[b][a]};
	for (int i = 0; i < directions; i++) {
		s[i] = *emu_path_settings(path[i]);
		if (settings(j, &s[i]))
			return -EINVAL;
	}
	for (int i = 0; i < directions; i++)
		emu_path_set(path[i], &s[i], j->now_ns);
	return 0;
}

static int add_rule(struct job *j, const struct emu_rule *r)
{
	int n = emu_world_rule(j->w, r);
	if (n < 0)
		return refuse(j, "no room for more than %d rules", EMU_RULES_MAX);
	say(j, " rule=%d", n);
	return 0;
}

static int do_block(struct job *j)
{
	struct emu_rule r = {.kind = EMU_RULE_BLOCK};
	if (get_ends(j, true, &r.from, &r.to) || get_matches(j, 3, &r.match) ||
	    add_rule(j, &r))
		return -EINVAL;
	if (strcmp(j->word[0], "cut") != 0)
		return 0;
	struct emu_rule back = {.kind = EMU_RULE_BLOCK,
				.from = r.to,
				.to = r.from,
				.match = {r.match.proto, r.match.dst, r.match.src}};
	return add_rule(j, &back);
}

static int do_unrule(struct job *j)
{
	enum emu_rule_kind kind =
		strcmp(j->word[0], "unblock") == 0 ? EMU_RULE_BLOCK : EMU_RULE_FREEZE;
	uint64_t n = 0;
	if (j->words != 2 ||
	    (strcmp(j->word[1], "all") != 0 &&
	     (!emu_parse_count(j->word[1], &n) || !n || n > EMU_RULES_MAX)))
		return refuse(j, "a rule's number or all is missing");
	unsigned done = emu_world_unrule(j->w, kind, (unsigned)n);
	if (n && !done)
		return refuse(j, "no such rule");
	say(j, " rules=%u", done);
	return 0;
}

static int do_freeze(struct job *j)
{
	struct emu_rule r = {.kind = EMU_RULE_FREEZE};
	bool counted = false;
	if (get_ends(j, true, &r.from, &r.to))
		return -EINVAL;
	for (int i = 3; i < j->words; i++) {
		char *v = value_of(j->word[i], "bytes");
		if (v) {
			counted = emu_parse_count(v, &r.bytes);
			if (!counted)
				return refuse(j, "not a number of bytes: %s", v);
		} else if (strcmp(j->word[i], "oneway") == 0) {
			r.one_way = true;
		} else {
			int m = get_match(j, j->word[i], &r.match);
			if (m)
				return m > 0 ? refuse(j, "not known: %s", j->word[i]) : m;
		}
	}
	return counted ? add_rule(j, &r) : refuse(j, "bytes=N is missing");
}

static int do_rst(struct job *j)
{
	struct emu_match m = {0};
	int a, b, only = -1, first = 3;
	if (get_ends(j, true, &a, &b))
		return -EINVAL;
	char *to = j->words > 3 ? value_of(j->word[3], "to") : NULL;
	if (to) {
		first = 4;
		if (get_end(j, to, false, &only))
			return -EINVAL;
	}
	if (get_matches(j, first, &m))
		return -EINVAL;
	say(j, " flows=%u", emu_world_rst(j->w, a, b, &m, only));
	return 0;
}

static int do_nat(struct job *j)
{
	struct emu_addr a = {0};
	int e;
	if (j->words < 2 || j->words > 3)
		return refuse(j, "nat A [address=ADDR]");
	if (get_end(j, j->word[1], false, &e))
		return -EINVAL;
	char *v = j->words == 3 ? value_of(j->word[2], "address") : NULL;
	a.ip = j->w->end[e].address;
	if (j->words == 3 && (!v || emu_parse_addr(v, &a) || !a.ip || a.port))
		return refuse(j, "not an address: %s", j->word[2]);
	int owner = emu_world_end_of(j->w, a.ip);
	if (owner >= 0 && owner != e)
		return refuse(j, "another end has this address");
	emu_nat_start(j->w->end[e].nat, a.ip);
	return 0;
}

static int do_rebind(struct job *j)
{
	struct emu_match m = {0};
	uint64_t port = 0;
	int e;
	if (j->words < 2)
		return refuse(j, "an end is missing");
	if (get_end(j, j->word[1], false, &e))
		return -EINVAL;
	for (int i = 2; i < j->words; i++) {
		char *v = value_of(j->word[i], "port");
		if (v && emu_parse_count(v, &port) && port && port < 65536)
			continue;
		if (!value_of(j->word[i], "proto"))
			return refuse(j, "not known: %s", j->word[i]);
		if (get_match(j, j->word[i], &m))
			return -EINVAL;
	}
	if (!j->w->end[e].nat->on)
		return refuse(j, "%s is behind no NAT", j->word[1]);
	say(j, " mappings=%u", emu_nat_rebind(j->w->end[e].nat, m.proto, (uint16_t)port));
	return 0;
}

static void say_path(struct job *j, const struct emu_path *p)
{
	const struct emu_path_counters *c = emu_path_counters(p);
	say(j,
	    " in=%" PRIu64 " out=%" PRIu64 " out_bytes=%" PRIu64 " held=%" PRIu32
	    " lost=%" PRIu64 " tail=%" PRIu64 " down=%" PRIu64 " duplicated=%" PRIu64
	    " reordered=%" PRIu64 " queue_max=%" PRIu64,
	    c->in, c->out, c->out_bytes, emu_path_held(p), c->lost, c->tail, c->down,
	    c->duplicated, c->reordered, c->queue_max_bytes);
}

static int do_stats(struct job *j)
{
	int a, b;
	if (j->words > 1) {
		if (get_ends(j, false, &a, &b))
			return -EINVAL;
		say_path(j, j->w->path[a][b]);
		return 0;
	}
	uint64_t strays = 0, held = 0, frozen = 0;
	for (a = 0; a < j->w->n; a++) {
		strays += j->w->end[a].strays;
		for (b = 0; b < j->w->n; b++)
			held += a == b ? 0 : emu_path_held(j->w->path[a][b]);
	}
	for (int i = 0; i < EMU_RULES_MAX; i++)
		if (j->w->rule[i].kind == EMU_RULE_FREEZE)
			frozen += j->w->rule[i].hits;
	say(j,
	    " ends=%d held=%" PRIu64 " blocked=%" PRIu64 " frozen=%" PRIu64
	    " flows_frozen=%" PRIu64 " strays=%" PRIu64,
	    j->w->n, held, j->w->blocked, j->w->frozen, frozen, strays);
	return 0;
}

static void say_addr(struct job *j, const struct emu_addr *a)
{
	say(j, "%u.%u.%u.%u:%u", a->ip >> 24, a->ip >> 16 & 255, a->ip >> 8 & 255,
	    a->ip & 255, a->port);
}

static int do_flows(struct job *j)
{
	uint64_t below = UINT64_MAX;
	while (j->len < EMU_LINE_MAX - 160) {
		const struct emu_flow *f = NULL;
		for (int i = 0; i < EMU_FLOWS_MAX; i++) {
			const struct emu_flow *c = &j->w->flows->flow[i];
			if (c->used && c->used < below && (!f || c->used > f->used))
				f = c;
		}
		if (!f)
			break;
		below = f->used;
		say(j, " ");
		say_addr(j, &f->side[0]);
		say(j, ">");
		say_addr(j, &f->side[1]);
		say(j, "/%" PRIu64 "/%" PRIu64 "%s", f->half[0].payload,
		    f->half[1].payload, f->frozen[0] || f->frozen[1] ? "/frozen" : "");
	}
	return 0;
}

static int do_quit(struct job *j)
{
	j->quit = true;
	return 0;
}

static const struct {
	const char *name;
	int (*run)(struct job *j);
} commands[] = {
	{"link", do_path},       {"path", do_path},      {"block", do_block},
	{"cut", do_block},       {"unblock", do_unrule}, {"freeze", do_freeze},
	{"unfreeze", do_unrule}, {"rst", do_rst},        {"nat", do_nat},
	{"rebind", do_rebind},   {"stats", do_stats},    {"flows", do_flows},
	{"quit", do_quit},
};

bool emu_command(struct emu_world *w, char *line, uint64_t now_ns, char *answer)
{
	struct job j = {.w = w, .now_ns = now_ns, .out = answer};
	char why[EMU_LINE_MAX], *rest = NULL;
	for (char *t = strtok_r(line, " \t\r\n", &rest); t && j.words < WORDS_MAX;
	     t = strtok_r(NULL, " \t\r\n", &rest))
		j.word[j.words++] = t;
	say(&j, "ok at=%" PRIu64 ".%06u", now_ns / 1000000000,
	    (unsigned)(now_ns / 1000 % 1000000));
	int err = j.words == WORDS_MAX ? refuse(&j, "too many words") : -ENOENT;
	for (size_t i = 0;
	     err == -ENOENT && j.words && i < sizeof(commands) / sizeof(*commands); i++)
		if (strcmp(commands[i].name, j.word[0]) == 0)
			err = commands[i].run(&j);
	if (err == -ENOENT)
		refuse(&j, "no such command");
	if (j.bad) {
		snprintf(why, sizeof(why), "%s", answer);
		snprintf(answer, EMU_LINE_MAX, "error %.4000s", why);
	}
	return !j.quit;
}
