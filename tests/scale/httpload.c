// HTTP clients of `make scale`: many keep-alive connections from one process to a server
// on loopback. One thread, epoll; it sends ready-made requests and reads no more of an
// answer than its status, length and ETag.
//
// usage: httpload requests|wait --port PORT --path PATH [options]
//   requests  --count N            so many answers over all connections, then it ends
//   wait                           one request a connection; READY once all are sent; a
//                                  line on standard input starts the clock; ends when all
//                                  have an answer; who gets one earlier asks again
//   --connections N (64)  --expect STATUS (200)  --header "Name: value" (several)
//   --tokens FILE         line i is the bearer token of connection i, over and over
//   --devices             connection i is device i: a key of its own in Sallyport-Device
//   --etag                learn each connection's ETag first, then send If-None-Match
//   --patience-ms T (20,000): give up when nothing moved for so long
// Prints one JSON line: done, failed, early, why, seconds, bytes, min_us, p50_us, p99_us,
// max_us.
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <sodium.h>

#include "tests/bench/benchlib.h"

enum { HEAD_MAX = 8192, REQUEST_MAX = 4096, BATCH = 256 };

struct conn {
	int fd;
	bool learning, waits, done; // waits: was counted as ready
	uint32_t in_len;
	uint64_t body_left, asked_ns;
	char etag[80];
	char in[HEAD_MAX];
};

struct load {
	bool wait, etag, devices;
	uint16_t port;
	const char *path;
	uint32_t n, expect, patience_ms;
	uint64_t count;
	char headers[2048];
	char **tokens;
	uint32_t n_tokens;

	int ep;
	struct conn *conn;
	uint32_t opened, ready;
	uint64_t sent, done, failed, early, bytes;
	uint64_t began_ns, go_ns, last_ns;
	uint32_t *took_us;
	uint64_t n_took;
	char why[96];
};

static void fail(struct load *l, struct conn *c, const char *why, int detail)
{
	if (!*l->why)
		snprintf(l->why, sizeof(l->why), "%s (%d)", why, detail);
	l->failed++;
	close(c->fd);
	c->fd = -1;
	c->done = true;
}

// A public key is any 32 bytes here: nobody proves one to the config endpoint.
static int put_device(uint32_t i, char *ret, size_t cap)
{
	uint8_t key[32] = {1};
	char base64[sodium_base64_ENCODED_LEN(sizeof(key),
					      sodium_base64_VARIANT_ORIGINAL)];
	memcpy(key + 1, &i, sizeof(i));
	sodium_bin2base64(base64, sizeof(base64), key, sizeof(key),
			  sodium_base64_VARIANT_ORIGINAL);
	return snprintf(ret, cap, "Sallyport-Device: sallyport-device-public:%s\r\n",
			base64);
}

static void ask(struct load *l, struct conn *c)
{
	char text[REQUEST_MAX];
	uint32_t i = (uint32_t)(c - l->conn);
	int n = snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\n%s",
			 l->path, l->headers);
	if (l->n_tokens)
		n += snprintf(text + n, sizeof(text) - (size_t)n,
			      "Authorization: Bearer %s\r\n", l->tokens[i % l->n_tokens]);
	if (l->devices)
		n += put_device(i, text + n, sizeof(text) - (size_t)n);
	if (*c->etag)
		n += snprintf(text + n, sizeof(text) - (size_t)n, "If-None-Match: %s\r\n",
			      c->etag);
	n += snprintf(text + n, sizeof(text) - (size_t)n, "\r\n");
	c->learning = l->etag && !*c->etag;
	c->in_len = 0;
	c->body_left = 0;
	c->asked_ns = bl_now_ns();
	if (!c->learning)
		l->sent++;
	if (send(c->fd, text, (size_t)n, MSG_NOSIGNAL) != n)
		fail(l, c, "cannot send the whole request", errno);
	else if (l->wait && !c->learning && !c->waits) {
		c->waits = true;
		if (++l->ready == l->n) {
			printf("READY\n");
			fflush(stdout);
		}
	}
}

// NULL: no such header.
static const char *header(const char *head, const char *name, char *buf, size_t cap)
{
	for (const char *p = strstr(head, "\r\n"); p; p = strstr(p, "\r\n")) {
		p += 2;
		if (strncasecmp(p, name, strlen(name)) == 0 && p[strlen(name)] == ':') {
			p += strlen(name) + 1;
			p += strspn(p, " ");
			snprintf(buf, cap, "%.*s", (int)strcspn(p, "\r"), p);
			return buf;
		}
	}
	return NULL;
}

static void answered(struct load *l, struct conn *c, unsigned status)
{
	uint64_t now = bl_now_ns();
	uint64_t from = l->wait && l->go_ns ? l->go_ns : c->asked_ns;
	if (c->learning) {
		if (!*c->etag || status != 200) {
			fail(l, c, "no ETag, status", (int)status);
			return;
		}
		ask(l, c);
		return;
	}
	if (l->wait && !l->go_ns) { // a poll's time is over, or its pass was renewed
		l->early++;
		ask(l, c);
		return;
	}
	if (status != l->expect) {
		fail(l, c, "status", (int)status);
		return;
	}
	l->took_us[l->n_took++] = (uint32_t)((now - from) / 1000);
	l->done++;
	l->last_ns = now;
	if (!l->wait && l->sent < l->count)
		ask(l, c);
	else
		c->done = true;
}

// False: more is needed.
static bool parse_head(struct load *l, struct conn *c)
{
	char text[96];
	c->in[c->in_len] = '\0';
	char *end = strstr(c->in, "\r\n\r\n");
	if (!end) {
		if (c->in_len == HEAD_MAX - 1)
			fail(l, c, "an endless head", 0);
		return false;
	}
	unsigned status = (unsigned)strtoul(c->in + strcspn(c->in, " "), NULL, 10);
	end[2] = '\0';
	uint64_t body = 0;
	if (status != 304 && header(c->in, "content-length", text, sizeof(text)))
		body = strtoull(text, NULL, 10);
	if (l->etag && header(c->in, "etag", text, sizeof(text)))
		snprintf(c->etag, sizeof(c->etag), "%.*s", (int)sizeof(c->etag) - 1,
			 text);
	uint64_t have = c->in_len - (uint64_t)(end + 4 - c->in);
	l->bytes += (uint64_t)(end + 4 - c->in) + body;
	if (have >= body) {
		answered(l, c, status);
		return false;
	}
	c->body_left = body - have;
	c->in_len = status; // the head is done with
	return true;
}

static void on_readable(struct load *l, struct conn *c)
{
	static char sink[65536];
	while (c->fd >= 0) {
		bool in_body = c->body_left > 0;
		ssize_t n = in_body ? recv(c->fd, sink,
					   c->body_left < sizeof(sink) ? c->body_left
								       : sizeof(sink),
					   MSG_DONTWAIT)
				    : recv(c->fd, c->in + c->in_len,
					   HEAD_MAX - 1 - c->in_len, MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return;
		if (n <= 0) {
			if (!c->done)
				fail(l, c, n ? "recv" : "closed before the answer",
				     n ? errno : 0);
			else
				close(c->fd), c->fd = -1;
			return;
		}
		if (in_body) {
			c->body_left -= (uint64_t)n;
			if (c->body_left == 0)
				answered(l, c, c->in_len);
		} else {
			c->in_len += (uint32_t)n;
			(void)parse_head(l, c);
		}
	}
}

static void open_some(struct load *l)
{
	for (unsigned i = 0; i < BATCH && l->opened < l->n; i++) {
		struct conn *c = &l->conn[l->opened];
		c->fd = bl_connect(l->port, 0);
		if (c->fd < 0) {
			l->opened++;
			fail(l, c, "connect", -c->fd);
			continue;
		}
		struct epoll_event ev = {.events = EPOLLIN, .data.u32 = l->opened};
		if (epoll_ctl(l->ep, EPOLL_CTL_ADD, c->fd, &ev) < 0)
			bl_die("epoll_ctl");
		l->opened++;
		ask(l, c);
	}
}

static bool finished(const struct load *l)
{
	if (l->wait)
		return l->done + l->failed >= l->n;
	return l->done >= l->count || l->failed >= l->n;
}

static void run(struct load *l)
{
	struct epoll_event ev[BATCH];
	struct epoll_event in = {.events = EPOLLIN, .data.u32 = UINT32_MAX};
	if (l->wait && epoll_ctl(l->ep, EPOLL_CTL_ADD, 0, &in) < 0)
		bl_die("standard input");
	l->began_ns = bl_now_ns();
	while (!finished(l)) {
		open_some(l);
		int n = epoll_wait(l->ep, ev, BATCH,
				   l->opened < l->n ? 0 : (int)l->patience_ms);
		if (n == 0 && l->opened == l->n) {
			snprintf(l->why, sizeof(l->why), "nothing moved for %u ms",
				 l->patience_ms);
			return;
		}
		for (int i = 0; i < n; i++) {
			char line[64];
			if (ev[i].data.u32 != UINT32_MAX) {
				on_readable(l, &l->conn[ev[i].data.u32]);
			} else if (read(0, line, sizeof(line)) > 0) {
				l->go_ns = bl_now_ns();
			} else {
				snprintf(l->why, sizeof(l->why), "standard input ended");
				return;
			}
		}
	}
}

static int compare(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return x < y ? -1 : x > y;
}

static uint32_t percentile(const struct load *l, double p)
{
	return l->n_took ? l->took_us[(uint64_t)((double)(l->n_took - 1) * p)] : 0;
}

static void read_tokens(struct load *l, const char *path)
{
	char line[512];
	FILE *f = fopen(path, "re");
	if (!f)
		bl_die(path);
	while (fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\r\n")] = '\0';
		l->tokens = realloc(l->tokens, (l->n_tokens + 1) * sizeof(char *));
		if (!l->tokens || !(l->tokens[l->n_tokens++] = strdup(line)))
			bl_die("memory");
	}
	fclose(f);
}

static void parse(struct load *l, int argc, char **argv)
{
	if (argc < 2 || (strcmp(argv[1], "requests") && strcmp(argv[1], "wait"))) {
		fprintf(stderr, "usage: httpload requests|wait --port PORT --path PATH; "
				"see its source\n");
		exit(64);
	}
	l->wait = strcmp(argv[1], "wait") == 0;
	for (int i = 2; i < argc; i++) {
		const char *name = argv[i];
		if (strcmp(name, "--etag") == 0) {
			l->etag = true;
			continue;
		}
		if (strcmp(name, "--devices") == 0) {
			l->devices = true;
			continue;
		}
		const char *value = ++i < argc ? argv[i] : "";
		if (strcmp(name, "--port") == 0)
			l->port = (uint16_t)bl_number(value, UINT16_MAX, name);
		else if (strcmp(name, "--path") == 0)
			l->path = value;
		else if (strcmp(name, "--connections") == 0)
			l->n = (uint32_t)bl_number(value, 20000, name);
		else if (strcmp(name, "--count") == 0)
			l->count = bl_number(value, 100000000, name);
		else if (strcmp(name, "--expect") == 0)
			l->expect = (uint32_t)bl_number(value, 599, name);
		else if (strcmp(name, "--patience-ms") == 0)
			l->patience_ms = (uint32_t)bl_number(value, 3600000, name);
		else if (strcmp(name, "--tokens") == 0)
			read_tokens(l, value);
		else if (strcmp(name, "--header") == 0)
			snprintf(l->headers + strlen(l->headers),
				 sizeof(l->headers) - strlen(l->headers), "%s\r\n",
				 value);
		else
			bl_die(name);
	}
	if (!l->port || !l->path || !l->n)
		bl_die("--port, --path and --connections");
}

int main(int argc, char **argv)
{
	struct load l = {.n = 64, .expect = 200, .patience_ms = 20000, .count = 1};
	parse(&l, argc, argv);
	(void)bl_raise_nofile();
	l.ep = epoll_create1(EPOLL_CLOEXEC);
	l.conn = calloc(l.n, sizeof(l.conn[0]));
	l.took_us = calloc((l.wait ? l.n : l.count + l.n), sizeof(l.took_us[0]));
	if (l.ep < 0 || !l.conn || !l.took_us)
		bl_die("memory");
	run(&l);
	uint64_t from = l.go_ns ? l.go_ns : l.began_ns;
	qsort(l.took_us, l.n_took, sizeof(l.took_us[0]), compare);
	printf("{\"done\":%llu,\"failed\":%llu,\"early\":%llu,\"why\":\"%s\",\"seconds\":"
	       "%.6f,"
	       "\"bytes\":%llu,\"min_us\":%u,\"p50_us\":%u,\"p99_us\":%u,\"max_us\":%u}"
	       "\n",
	       (unsigned long long)l.done, (unsigned long long)l.failed,
	       (unsigned long long)l.early, l.why,
	       l.last_ns > from ? (double)(l.last_ns - from) / 1e9 : 0,
	       (unsigned long long)l.bytes, percentile(&l, 0), percentile(&l, 0.5),
	       percentile(&l, 0.99), percentile(&l, 1));
	bool bad = l.failed || *l.why;
	for (uint32_t i = 0; i < l.n_tokens; i++)
		free(l.tokens[i]);
	free(l.tokens);
	free(l.conn);
	free(l.took_us);
	return bad;
}
