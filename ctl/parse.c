#include "ctl/parse.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define DAY_S        86400u
#define DURATION_MAX (3650u * (uint64_t)DAY_S)
#define TIME_MAX_S   253402300799u // the end of the year 9999

// Digits at *p, which goes on behind them. False: none, or more than `max`.
static bool digits(const char **p, uint64_t max, uint64_t *ret)
{
	uint64_t v = 0;
	const char *start = *p;
	for (; **p >= '0' && **p <= '9'; (*p)++) {
		uint64_t d = (uint64_t)(**p - '0');
		if (v > (max - d) / 10 || d > max)
			return false;
		v = v * 10 + d;
	}
	*ret = v;
	return *p > start;
}

int ctl_parse_duration(const char *text, uint64_t *ret_s)
{
	static const char units[] = "smhdw";
	static const unsigned seconds[] = {1, 60, 3600, DAY_S, 7 * DAY_S};
	uint64_t v;
	if (!digits(&text, DURATION_MAX, &v) || !*text || text[1])
		return SP_E_MALFORMED;
	const char *unit = strchr(units, *text);
	if (!unit || v == 0 || v > DURATION_MAX / seconds[unit - units])
		return SP_E_MALFORMED;
	*ret_s = v * seconds[unit - units];
	return 0;
}

int ctl_parse_time(const char *text, uint64_t *ret_s)
{
	struct tm tm = {0}, back;
	const char *p = text;
	uint64_t v;
	int end = 0;
	if (digits(&p, TIME_MAX_S, &v) && !*p) {
		*ret_s = v;
		return 0;
	}
	if (strlen(text) != 20 ||
	    sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2dZ%n", &tm.tm_year, &tm.tm_mon,
		   &tm.tm_mday, &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &end) != 6 ||
	    end != 20 || strpbrk(text, "+ \t\n"))
		return SP_E_MALFORMED;
	tm.tm_year -= 1900;
	tm.tm_mon -= 1;
	struct tm given = tm;
	time_t t = timegm(&tm);
	// timegm takes the 31st of February too; what comes back differs then.
	if (t < 0 || !gmtime_r(&t, &back) || back.tm_year != given.tm_year ||
	    back.tm_mon != given.tm_mon || back.tm_mday != given.tm_mday ||
	    back.tm_hour != given.tm_hour || back.tm_min != given.tm_min ||
	    back.tm_sec != given.tm_sec)
		return SP_E_MALFORMED;
	*ret_s = (uint64_t)t;
	return 0;
}

int ctl_parse_number(const char *text, uint64_t max, bool units, uint64_t *ret)
{
	uint64_t v, factor = 1;
	if (!digits(&text, max, &v))
		return SP_E_MALFORMED;
	const char *unit = units && *text ? strchr("KMG", *text) : NULL;
	if (unit) {
		factor = *unit == 'K' ? 1u << 10 : *unit == 'M' ? 1u << 20 : 1u << 30;
		text++;
	}
	if (*text || v > max / factor)
		return SP_E_MALFORMED;
	*ret = v * factor;
	return 0;
}

char *ctl_format_time(uint64_t time_s, char *buf)
{
	struct tm tm;
	time_t t = (time_t)time_s;
	if (time_s > TIME_MAX_S || !gmtime_r(&t, &tm) ||
	    !strftime(buf, CTL_TIME_CAP, "%Y-%m-%dT%H:%M:%SZ", &tm))
		snprintf(buf, CTL_TIME_CAP, "%" PRIu64, time_s);
	return buf;
}

char *ctl_format_distance(uint64_t time_s, uint64_t now_s, char *buf)
{
	bool past = time_s < now_s;
	uint64_t d = past ? now_s - time_s : time_s - now_s;
	char text[32];
	if (d < 60)
		snprintf(text, sizeof(text), "%" PRIu64 " s", d);
	else if (d < 3600)
		snprintf(text, sizeof(text), "%" PRIu64 " min", d / 60);
	else if (d < 2 * DAY_S)
		snprintf(text, sizeof(text), "%" PRIu64 " h %" PRIu64 " min", d / 3600,
			 d / 60 % 60);
	else
		snprintf(text, sizeof(text), "%" PRIu64 " days", d / DAY_S);
	snprintf(buf, CTL_TIME_CAP, past ? "%s ago" : "in %s", text);
	return buf;
}

bool ctl_parse_item(char **at, char **ret_key, char **ret_value)
{
	char *p = *at;
	if (!p || !*p)
		return false;
	char *comma = strchr(p, ',');
	*at = comma ? comma + 1 : NULL;
	if (comma)
		*comma = '\0';
	char *equals = strchr(p, '=');
	if (equals)
		*equals = '\0';
	*ret_key = equals ? p : NULL;
	*ret_value = equals ? equals + 1 : p;
	return true;
}
