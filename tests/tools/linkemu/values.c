#include "tests/tools/linkemu/values.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

int emu_parse_addr(const char *text, struct emu_addr *ret)
{
	struct emu_addr a = {0};
	char ip[INET_ADDRSTRLEN + 1];
	const char *colon = strchr(text, ':');
	size_t len = colon ? (size_t)(colon - text) : strlen(text);
	struct in_addr in;
	if (len >= sizeof(ip))
		return -EINVAL;
	memcpy(ip, text, len);
	ip[len] = 0;
	if (len && strcmp(ip, "*") != 0) {
		if (inet_pton(AF_INET, ip, &in) != 1)
			return -EINVAL;
		a.ip = ntohl(in.s_addr);
	}
	if (colon) {
		char *end;
		unsigned long port = strtoul(colon + 1, &end, 10);
		if (*end || end == colon + 1 || port == 0 || port > 65535)
			return -EINVAL;
		a.port = (uint16_t)port;
	}
	*ret = a;
	return 0;
}

struct unit {
	const char *name;
	double factor;
};
static const struct unit time_units[] = {{"s", 1e9}, {"ms", 1e6}, {"us", 1e3}, {NULL, 0}};
static const struct unit rate_units[] = {{"bit", 1},    {"kbit", 1e3}, {"mbit", 1e6},
					 {"gbit", 1e9}, {"", 1},       {NULL, 0}};
static const struct unit size_units[] = {{"", 1}, {"k", 1024}, {"m", 1048576}, {NULL, 0}};
static const struct unit chance_units[] = {{"%", 0.01}, {NULL, 0}};

// A number of 0 or more with one of the units; 0 needs none.
static bool number(const char *text, const struct unit *u, double max, double *ret)
{
	char *end;
	double v = strtod(text, &end);
	if (end == text || !(v >= 0) || text[0] == '-' || text[0] == '+')
		return false;
	if (v == 0 && !*end) {
		*ret = 0;
		return true;
	}
	for (; u->name; u++)
		if (strcmp(end, u->name) == 0 && v * u->factor <= max) {
			*ret = v * u->factor;
			return true;
		}
	return false;
}

static bool get_time(const char *text, uint64_t *ret)
{
	double v;
	bool ok = number(text, time_units, 3600e9, &v);
	*ret = ok ? (uint64_t)(v + 0.5) : *ret;
	return ok;
}

static bool get_chance(const char *text, uint64_t *ret)
{
	double v;
	bool ok = number(text, chance_units, 1, &v);
	*ret = ok ? (uint64_t)(v * (double)EMU_CHANCE_ALWAYS) : *ret;
	return ok;
}

static bool get_queue(const char *text, struct emu_path_settings *s)
{
	size_t len = strlen(text);
	double v;
	if (len && text[len - 1] == 'p') {
		char *end;
		unsigned long n = strtoul(text, &end, 10);
		if (end != text + len - 1 || n == 0 || n > EMU_PATH_HELD_MAX)
			return false;
		s->queue_packets = (uint32_t)n;
		return true;
	}
	if (!number(text, size_units, 1 << 30, &v))
		return false;
	s->queue_bytes = v > 0 ? (uint32_t)v : EMU_QUEUE_UNLIMITED;
	s->queue_packets = v > 0 ? s->queue_packets : EMU_QUEUE_UNLIMITED;
	return true;
}

bool emu_parse_setting(struct emu_path_settings *s, const char *key, const char *value)
{
	double v;
	if (strcmp(key, "delay") == 0)
		return get_time(value, &s->delay_ns);
	if (strcmp(key, "jitter") == 0)
		return get_time(value, &s->jitter_ns);
	if (strcmp(key, "late") == 0)
		return get_time(value, &s->late_ns);
	if (strcmp(key, "loss") == 0)
		return get_chance(value, &s->loss);
	if (strcmp(key, "duplicate") == 0)
		return get_chance(value, &s->duplicate);
	if (strcmp(key, "reorder") == 0)
		return get_chance(value, &s->reorder);
	if (strcmp(key, "queue") == 0)
		return get_queue(value, s);
	if (strcmp(key, "down") == 0 && (value[0] == '0' || value[0] == '1') &&
	    !value[1]) {
		s->down = value[0] == '1';
		return true;
	}
	if (strcmp(key, "rate") != 0 || !number(value, rate_units, 100e9, &v))
		return false;
	s->rate_bps = (uint64_t)v;
	return v == 0 || v >= 1000;
}

bool emu_parse_count(const char *text, uint64_t *ret)
{
	double v;
	if (!number(text, size_units, 1e12, &v))
		return false;
	*ret = (uint64_t)v;
	return true;
}
