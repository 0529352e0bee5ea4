#include "lib/log.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static struct {
	enum sp_log_level level;
	enum sp_log_format format;
	int fd;
	bool journal;
	uint64_t lost;
} sink = {.level = SP_LOG_INFO, .format = SP_LOG_LOGFMT, .fd = 2};

static const char *const level_words[] = {"debug", "info", "warn", "error"};

// A line under construction. Once a piece does not fit, `full` is set and the piece is
// taken back.
struct line {
	char *buf;
	size_t len, cap;
	bool full;
	enum sp_log_format format;
};

// JOURNAL_STREAM is "device:inode" of the stream (systemd.exec(5)).
static bool is_journal(int fd)
{
	const char *env = getenv("JOURNAL_STREAM");
	unsigned long long dev, ino;
	struct stat st;

	return env && sscanf(env, "%llu:%llu", &dev, &ino) == 2 && fstat(fd, &st) == 0 &&
	       st.st_dev == (dev_t)dev && st.st_ino == (ino_t)ino;
}

void sp_log_setup(enum sp_log_level level, enum sp_log_format format, int fd)
{
	sink.level = level;
	sink.format = format;
	sink.fd = fd;
	sink.journal = is_journal(fd);
}

int sp_log_level_parse(const char *word, enum sp_log_level *ret)
{
	for (unsigned i = 0; i < 4; i++) {
		if (strcmp(word, level_words[i]) == 0) {
			*ret = (enum sp_log_level)i;
			return 0;
		}
	}
	return SP_E_MALFORMED;
}

bool sp_log_on(enum sp_log_level level)
{
	return level >= sink.level;
}

uint64_t sp_log_lost(void)
{
	return sink.lost;
}

static void put(struct line *l, const char *s, size_t len)
{
	if (l->full || l->cap - l->len <= len) {
		l->full = true;
		return;
	}
	memcpy(l->buf + l->len, s, len);
	l->len += len;
}

static void put_text(struct line *l, const char *s)
{
	put(l, s, strlen(s));
}

// logfmt: \xNN for a byte that is not printable ASCII. JSON: \u00NN, so a reader gets the
// byte's value as a code point.
static void put_escaped(struct line *l, const char *s, size_t len)
{
	static const char hex[] = "0123456789abcdef";
	for (size_t i = 0; i < len; i++) {
		uint8_t c = (uint8_t)s[i];
		if (c == '"' || c == '\\') {
			put(l, (char[]){'\\', (char)c}, 2);
		} else if (c == '\n') {
			put(l, "\\n", 2);
		} else if (c >= 0x20 && c < 0x7f) {
			put(l, &s[i], 1);
		} else {
			put_text(l, l->format == SP_LOG_JSON ? "\\u00" : "\\x");
			put(l, (char[]){hex[c >> 4], hex[c & 15]}, 2);
		}
	}
}

static bool is_bare(const char *s, size_t len)
{
	for (size_t i = 0; i < len; i++)
		if (s[i] <= 0x20 || s[i] >= 0x7f || strchr("\"=\\", s[i]))
			return false;
	return len > 0;
}

static void put_field(struct line *l, const char *key, size_t key_len, const char *value,
		      size_t len, bool number)
{
	size_t start = l->len;
	bool json = l->format == SP_LOG_JSON;

	if (start > (json ? 1 : 0))
		put(l, json ? "," : " ", 1);
	if (json)
		put(l, "\"", 1);
	put(l, key, key_len);
	put_text(l, json ? "\":" : "=");
	if (json ? number : is_bare(value, len)) {
		put(l, value, len);
	} else {
		put(l, "\"", 1);
		put_escaped(l, value, len);
		put(l, "\"", 1);
	}
	if (l->full)
		l->len = start;
	l->full = false;
}

// The value of one field, put together from literal text and conversions.
struct value {
	char text[SP_LOG_VALUE_MAX];
	size_t len;
	unsigned numbers, others; // what it is made of
};

static void value_put(struct value *v, const char *s, size_t len)
{
	size_t room = sizeof(v->text) - v->len;
	if (len > room)
		len = room;
	memcpy(v->text + v->len, s, len);
	v->len += len;
}

struct conversion {
	int precision; // -1: none
	char size;     // 0, 'h', 'H' (hh), 'l', 'L' (ll), 'z', 'j'
	char type;
};

// Reads the conversion behind a '%'. Returns what follows it.
static const char *conversion_parse(const char *p, va_list *ap, struct conversion *c)
{
	*c = (struct conversion){.precision = -1};
	if (*p == '.' && p[1] == '*') {
		c->precision = va_arg(*ap, int);
		p += 2;
	} else if (*p == '.') {
		c->precision = (int)strtol(p + 1, (char **)&p, 10);
	}
	if (*p && strchr("hlzj", *p)) {
		c->size = *p++;
		if (*p == c->size) {
			c->size = *p == 'h' ? 'H' : 'L';
			p++;
		}
	}
	c->type = *p;
	return *p ? p + 1 : p;
}

static intmax_t signed_arg(char size, va_list *ap)
{
	switch (size) {
	case 'l':
		return va_arg(*ap, long);
	case 'L':
		return va_arg(*ap, long long);
	case 'z':
		return va_arg(*ap, ssize_t);
	case 'j':
		return va_arg(*ap, intmax_t);
	default:
		return va_arg(*ap, int);
	}
}

static uintmax_t unsigned_arg(char size, va_list *ap)
{
	switch (size) {
	case 'l':
		return va_arg(*ap, unsigned long);
	case 'L':
		return va_arg(*ap, unsigned long long);
	case 'z':
		return va_arg(*ap, size_t);
	case 'j':
		return va_arg(*ap, uintmax_t);
	case 'h':
		return (unsigned short)va_arg(*ap, unsigned);
	case 'H':
		return (unsigned char)va_arg(*ap, unsigned);
	default:
		return va_arg(*ap, unsigned);
	}
}

// JSON has no word for infinity and NaN: they become strings.
static size_t put_double(char *buf, size_t cap, int precision, double d, struct value *v)
{
	int n = snprintf(buf, cap, "%.*f", precision < 0 || precision > 9 ? 6 : precision,
			 d);
	if (n < 0 || (size_t)n >= cap) // beyond any number worth its digits
		n = snprintf(buf, cap, "%.9g", d);
	if (isfinite(d))
		v->numbers++;
	else
		v->others++;
	return (size_t)n;
}

static void value_convert(struct value *v, const struct conversion *c, va_list *ap)
{
	char num[64];
	const char *s = num;
	size_t len = 0;

	switch (c->type) {
	case 's':
		s = va_arg(*ap, const char *);
		if (!s)
			s = "(null)";
		len = c->precision < 0 ? strlen(s) : strnlen(s, (size_t)c->precision);
		v->others++;
		break;
	case 'c':
		num[0] = (char)va_arg(*ap, int);
		len = 1;
		v->others++;
		break;
	case 'd':
	case 'i':
		len = (size_t)snprintf(num, sizeof(num), "%jd", signed_arg(c->size, ap));
		v->numbers++;
		break;
	case 'u':
		len = (size_t)snprintf(num, sizeof(num), "%ju",
				       unsigned_arg(c->size, ap));
		v->numbers++;
		break;
	case 'x':
		len = (size_t)snprintf(num, sizeof(num), "%jx",
				       unsigned_arg(c->size, ap));
		v->others++;
		break;
	case 'f':
		len = put_double(num, sizeof(num), c->precision, va_arg(*ap, double), v);
		break;
	case '%':
		s = "%";
		len = 1;
		v->others++;
		break;
	default:
		abort(); // a conversion that the header does not list
	}
	value_put(v, s, len);
}

// Puts the value of `p` up to the next space together. Returns what follows it.
static const char *value_parse(const char *p, va_list *ap, struct value *v)
{
	v->len = 0;
	v->numbers = v->others = 0;
	while (*p && *p != ' ') {
		if (*p == '%') {
			struct conversion c;
			p = conversion_parse(p + 1, ap, &c);
			value_convert(v, &c, ap);
		} else {
			value_put(v, p++, 1);
			v->others++;
		}
	}
	return p;
}

static void put_fields(struct line *l, const char *p, va_list *ap)
{
	struct value v;
	while (*p) {
		const char *key = p;
		p = strchr(p, '=');
		if (!p)
			abort(); // not "key=value"
		size_t key_len = (size_t)(p - key);
		p = value_parse(p + 1, ap, &v);
		bool number = v.numbers == 1 && v.others == 0;
		put_field(l, key, key_len, v.text, v.len, number);
		if (*p == ' ')
			p++;
	}
}

static void put_time(struct line *l, uint64_t unix_ms)
{
	char text[40];
	time_t s = (time_t)(unix_ms / 1000);
	struct tm tm;

	gmtime_r(&s, &tm);
	size_t len = strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S", &tm);
	len += (size_t)snprintf(text + len, sizeof(text) - len, ".%03uZ",
				(unsigned)(unix_ms % 1000));
	put_field(l, "time", 4, text, len, false);
}

static size_t format_line(char *buf, size_t cap, enum sp_log_format format,
			  uint64_t unix_ms, enum sp_log_level level, const char *comp,
			  const char *fmt, va_list *ap)
{
	struct line l = {.buf = buf, .cap = cap - 2, .format = format};
	size_t msg_len = strcspn(fmt, "\n");

	if (format == SP_LOG_JSON)
		put(&l, "{", 1);
	put_time(&l, unix_ms);
	put_field(&l, "level", 5, level_words[level], strlen(level_words[level]), false);
	put_field(&l, "comp", 4, comp, strlen(comp), false);
	put_field(&l, "msg", 3, fmt, msg_len, false);
	put_fields(&l, fmt + msg_len + (fmt[msg_len] == '\n'), ap);
	if (format == SP_LOG_JSON)
		buf[l.len++] = '}';
	buf[l.len] = '\0';
	return l.len;
}

size_t sp_log_format_line(char *buf, size_t cap, enum sp_log_format format,
			  uint64_t unix_ms, enum sp_log_level level, const char *comp,
			  const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	size_t len = format_line(buf, cap, format, unix_ms, level, comp, fmt, &ap);
	va_end(ap);
	return len;
}

void sp_log_write(enum sp_log_level level, const char *comp, const char *fmt, ...)
{
	static const char *const priorities[] = {"<7>", "<6>", "<4>", "<3>"};
	char buf[SP_LOG_LINE_MAX];
	struct timespec ts;
	size_t len = 0;
	va_list ap;

	clock_gettime(CLOCK_REALTIME, &ts);
	if (sink.journal) {
		memcpy(buf, priorities[level], 3);
		len = 3;
	}
	va_start(ap, fmt);
	len += format_line(buf + len, sizeof(buf) - len, sink.format,
			   (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000,
			   level, comp, fmt, &ap);
	va_end(ap);
	buf[len++] = '\n';
	ssize_t n;
	do
		n = write(sink.fd, buf, len);
	while (n < 0 && errno == EINTR);
	if (n != (ssize_t)len)
		sink.lost++;
}

bool sp_ratelimit_ok(struct sp_ratelimit *rl, uint64_t now_ms)
{
	uint64_t full = (uint64_t)rl->burst * 1000;

	if (!rl->used) {
		rl->used = true;
		rl->milli = full;
		rl->last_ms = now_ms;
	} else if (now_ms > rl->last_ms) {
		uint64_t gone = now_ms - rl->last_ms;
		uint64_t to_full = (full - rl->milli) / rl->per_second + 1;
		rl->milli = gone >= to_full ? full : rl->milli + gone * rl->per_second;
		rl->last_ms = now_ms;
	}
	if (rl->milli < 1000) {
		rl->suppressed++;
		return false;
	}
	rl->milli -= 1000;
	return true;
}

uint64_t sp_ratelimit_take_suppressed(struct sp_ratelimit *rl)
{
	uint64_t n = rl->suppressed;
	rl->suppressed = 0;
	return n;
}
