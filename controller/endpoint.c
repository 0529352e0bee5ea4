#include "controller/endpoint.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>

#include "lib/proof.h"

#define CONFIG_PATH "/v1/config"
#define PROBE_PATH  "/v1/probe/"
#define BEARER      "Bearer "
#define JUDGE_US    1000000
#define BUSY        "Retry-After: 5\r\n"

// A poll whose answer is held back until it would be another.
struct waiter {
	TAILQ_ENTRY(waiter) link;
	struct con_http_call *call;
	struct con_client *client;
	uint64_t until_us; // wanted
	char etag[CON_CLIENT_ETAG_MAX];
};

struct con_endpoint {
	struct con_endpoint_options opt;
	struct con_http *http;
	struct con_clients *clients;
	TAILQ_HEAD(, waiter) waiters;
	unsigned n_waiters;
	unsigned to_look_at; // waiters, from the first on, since something changed
	struct sp_deferred look;
	struct sp_timer judge;
	struct con_endpoint_counters counters;
};

static uint64_t now_s(struct con_endpoint *e)
{
	return sp_loop_unix_ms(e->opt.loop) / 1000;
}

// ---- answers ----

static void answer_stranger(struct con_endpoint *e, struct con_http_call *call)
{
	static const char page[] =
		"<html>\r\n<head><title>404 Not Found</title></head>\r\n<body>\r\n"
		"<center><h1>404 Not Found</h1></center>\r\n</body>\r\n</html>\r\n";
	static const struct con_http_answer answer = {.status = 404,
						      .type = "text/html",
						      .body = page,
						      .len = sizeof(page) - 1};
	e->counters.strangers++;
	con_http_answer(call, &answer);
}

static void answer_status(struct con_http_call *call, int status, const char *fields)
{
	con_http_answer(call,
			&(struct con_http_answer){.status = status, .fields = fields});
}

static const char *etag_field(const char *etag, char *buf, size_t cap)
{
	snprintf(buf, cap, "ETag: %s\r\nCache-Control: private, no-cache\r\n", etag);
	return buf;
}

static void answer_same(struct con_endpoint *e, struct con_http_call *call,
			const char *etag)
{
	char fields[128];
	e->counters.not_modified++;
	answer_status(call, 304, etag_field(etag, fields, sizeof(fields)));
}

// `c` was refreshed just now.
static void answer_config(struct con_endpoint *e, struct con_http_call *call,
			  struct con_client *c)
{
	char fields[128], *text;
	size_t len;
	if (!con_client_has_exits(c)) {
		e->counters.no_exits++;
		answer_status(call, 503, BUSY);
		return;
	}
	int err = con_client_config(e->clients, c, now_s(e), &text, &len);
	if (err) {
		sp_warn("endpoint", "cannot make a config", "error=%s", sp_strerror(err));
		answer_status(call, 503, BUSY);
		return;
	}
	e->counters.fresh++;
	e->counters.refused[con_client_refusal(c)]++;
	con_http_answer(call, &(struct con_http_answer){
				      .status = 200,
				      .fields = etag_field(con_client_etag(c), fields,
							   sizeof(fields)),
				      .type = "text/plain; charset=utf-8",
				      .body = text,
				      .len = len});
	free(text);
}

// ---- waiting ----

// As soon as the poll's time is over, or the answer changes by the clock.
static void hold(struct con_endpoint *e, struct waiter *w)
{
	uint64_t s = now_s(e), until_s = con_client_until(w->client);
	uint64_t change_us =
		until_s < s + CON_ENDPOINT_WAIT_S
			? sp_loop_now_us(e->opt.loop) + (until_s - s) * 1000000
			: SP_LOOP_NEVER;
	con_http_hold(w->call, change_us < w->until_us ? change_us : w->until_us);
}

static void waiter_add(struct con_endpoint *e, struct con_http_call *call,
		       struct con_client *c, unsigned wait_s)
{
	struct waiter *w = malloc(sizeof(*w));
	if (!w) {
		answer_same(e, call, con_client_etag(c));
		return;
	}
	w->call = call;
	w->client = c;
	w->until_us = sp_loop_now_us(e->opt.loop) + (uint64_t)wait_s * 1000000;
	strcpy(w->etag, con_client_etag(c));
	TAILQ_INSERT_TAIL(&e->waiters, w, link);
	e->n_waiters++;
	e->counters.waited++;
	con_client_hold(c);
	con_http_set_data(call, w);
	hold(e, w);
}

static void waiter_free(struct con_endpoint *e, struct waiter *w)
{
	TAILQ_REMOVE(&e->waiters, w, link);
	e->n_waiters--;
	con_client_release(w->client);
	free(w);
}

// True: what it waits for has changed, and it was answered.
static bool look_at(struct con_endpoint *e, struct waiter *w)
{
	struct con_client *c = w->client;
	struct con_http_call *call = w->call;
	bool good = con_client_refresh(e->clients, c, now_s(e));
	if (good && strcmp(con_client_etag(c), w->etag) == 0)
		return false;
	e->counters.woken++;
	waiter_free(e, w);
	if (good)
		answer_config(e, call, c);
	else
		answer_stranger(e, call);
	return true;
}

static void on_look(struct sp_deferred *d)
{
	struct con_endpoint *e =
		(struct con_endpoint *)(void *)((char *)d -
						offsetof(struct con_endpoint, look));
	struct waiter *w;
	for (int i = 0; i < CON_ENDPOINT_SLICE && e->to_look_at; i++) {
		if (!(w = TAILQ_FIRST(&e->waiters)))
			break;
		e->to_look_at--;
		TAILQ_REMOVE(&e->waiters, w, link);
		TAILQ_INSERT_TAIL(&e->waiters, w, link);
		if (!look_at(e, w))
			hold(e, w);
	}
	if (e->to_look_at && !TAILQ_EMPTY(&e->waiters))
		sp_loop_defer(e->opt.loop, &e->look);
}

static void look_at_all(struct con_endpoint *e)
{
	e->to_look_at = e->n_waiters;
	if (e->to_look_at)
		sp_loop_defer(e->opt.loop, &e->look);
}

static void on_gone(void *ctx, struct con_http_call *call)
{
	waiter_free(ctx, con_http_data(call));
}

// Its time is over, or its connection is needed.
static void on_expired(void *ctx, struct con_http_call *call)
{
	struct con_endpoint *e = ctx;
	struct waiter *w = con_http_data(call);
	char etag[CON_CLIENT_ETAG_MAX];
	if (look_at(e, w))
		return;
	strcpy(etag, w->etag);
	waiter_free(e, w);
	answer_same(e, call, etag);
}

// ---- requests ----

static const char *bearer(const struct con_http_head *head)
{
	const char *v = con_http_field(head, "authorization");
	if (!v || strncasecmp(v, BEARER, strlen(BEARER)) != 0)
		return NULL;
	return v + strlen(BEARER);
}

static unsigned wait_of(const struct con_http_head *head)
{
	char text[4];
	if (!con_http_parameter(head, "wait", text, sizeof(text)) ||
	    text[strspn(text, "0123456789")])
		return 0;
	unsigned s = (unsigned)atoi(text);
	return s < CON_ENDPOINT_WAIT_S ? s : CON_ENDPOINT_WAIT_S;
}

// A list of ETags, weak ones too, or several (RFC 9110 section 13.1.2).
static bool matches(const struct con_http_head *head, const char *etag)
{
	const char *v = con_http_field(head, "if-none-match");
	return v && strstr(v, etag);
}

static void on_config(struct con_endpoint *e, struct con_http_call *call,
		      const struct con_http_head *head, struct con_client *c)
{
	unsigned wait_s = wait_of(head);
	if (!con_client_may_ask(e->clients, c, sp_loop_now_ms(e->opt.loop))) {
		e->counters.over_rate++;
		answer_status(call, 429, "Retry-After: 10\r\n");
	} else if (!con_client_has_exits(c) || !matches(head, con_client_etag(c))) {
		answer_config(e, call, c);
	} else if (wait_s) {
		waiter_add(e, call, c, wait_s);
	} else {
		answer_same(e, call, con_client_etag(c));
	}
}

static void on_probe(struct con_endpoint *e, struct con_http_call *call,
		     const char *nonce)
{
	char peer[SP_TARGET_TEXT_MAX], proof[SP_PROOF_TEXT_MAX], fields[320];
	struct sp_target t = *con_http_peer(call);
	t.port = 0;
	sp_target_format(&t, peer, sizeof(peer));
	*strrchr(peer, ':') = '\0'; // the port
	char *host = peer;
	if (*host == '[') {
		host++;
		*strrchr(host, ']') = '\0';
	}
	e->counters.probes++;
	snprintf(fields, sizeof(fields),
		 SP_PROOF_HEADER ": %s\r\n" SP_PROOF_PEER
				 ": %.64s\r\nCache-Control: no-store\r\n",
		 sp_proof_make(e->opt.clients.secret, nonce, host, proof), host);
	answer_status(call, 204, fields);
}

// Who asks is found before what is asked: a stranger learns nothing by the time either.
static void on_request(void *ctx, struct con_http_call *call,
		       const struct con_http_head *head)
{
	struct con_endpoint *e = ctx;
	char region[SP_PASS_WORD_MAX + 1];
	bool has_region = con_http_parameter(head, "region", region, sizeof(region));
	struct con_client_key key = {.token = bearer(head),
				     .device = con_http_field(head, "sallyport-device"),
				     .region = has_region ? region : NULL};
	struct con_client *c = con_clients_find(e->clients, &key, now_s(e));
	bool reads = head->method != CON_HTTP_OTHER && !head->has_body;
	if (reads && strncmp(head->path, PROBE_PATH, strlen(PROBE_PATH)) == 0 &&
	    sp_proof_is_nonce(head->path + strlen(PROBE_PATH)))
		on_probe(e, call, head->path + strlen(PROBE_PATH));
	else if (reads && c && strcmp(head->path, CONFIG_PATH) == 0)
		on_config(e, call, head, c);
	else
		answer_stranger(e, call);
}

// ---- what changes ----

void con_endpoint_changed(struct con_endpoint *e, const struct sp_changes *changes)
{
	if (con_clients_changed(e->clients, changes, now_s(e)))
		look_at_all(e);
}

void con_endpoint_judge(struct con_endpoint *e)
{
	if (con_clients_judge(e->clients, now_s(e)))
		look_at_all(e);
}

void con_endpoint_poke(struct con_endpoint *e)
{
	con_clients_poke(e->clients);
	look_at_all(e);
}

static void on_judge(void *ctx)
{
	struct con_endpoint *e = ctx;
	con_endpoint_judge(e);
	sp_timer_set(&e->judge, sp_loop_now_us(e->opt.loop) + JUDGE_US);
}

// ---- life ----

void con_endpoint_limits_default(struct con_endpoint_options *ret)
{
	con_http_limits_default(&ret->http);
	ret->clients.token_rate = 2;
	ret->clients.token_burst = 60;
}

int con_endpoint_new(const struct con_endpoint_options *opt, struct con_endpoint **ret)
{
	static const struct con_http_ops ops = {
		.request = on_request, .expired = on_expired, .gone = on_gone};
	struct con_endpoint *e = calloc(1, sizeof(*e));
	if (!e)
		return -ENOMEM;
	e->opt = *opt;
	e->look.run = on_look;
	TAILQ_INIT(&e->waiters);
	sp_timer_init(&e->judge, opt->loop, on_judge, e);
	struct con_http_options http = {.loop = opt->loop,
					.listen = opt->listen,
					.tls = opt->tls,
					.limits = opt->http,
					.ops = &ops,
					.ctx = e};
	int err = con_clients_new(&opt->clients, now_s(e), &e->clients);
	if (!err)
		err = con_http_new(&http, &e->http);
	if (err) {
		con_endpoint_free(e);
		return err;
	}
	sp_timer_set(&e->judge, sp_loop_now_us(opt->loop) + JUDGE_US);
	*ret = e;
	return 0;
}

void con_endpoint_free(struct con_endpoint *e)
{
	if (!e)
		return;
	con_http_free(e->http); // `gone` for what waits
	con_clients_free(e->clients);
	sp_timer_done(&e->judge);
	sp_loop_defer_cancel(&e->look);
	free(e);
}

const struct con_endpoint_counters *con_endpoint_counters(const struct con_endpoint *e)
{
	return &e->counters;
}

struct con_http *con_endpoint_http(struct con_endpoint *e)
{
	return e->http;
}

const struct con_clients *con_endpoint_clients(const struct con_endpoint *e)
{
	return e->clients;
}

unsigned con_endpoint_waiting(const struct con_endpoint *e)
{
	return e->n_waiters;
}
