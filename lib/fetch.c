#include "lib/fetch.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/queue.h>

#include <curl/curl.h>

struct watch { // of a socket of curl's
	struct sp_fetch_env *env;
	struct event ev;
	curl_socket_t fd;
};

struct sp_fetch_env {
	struct sp_loop *loop;
	CURLM *multi;
	struct sp_timer timer;
	TAILQ_HEAD(, sp_fetch) all;
};

struct text { // grows up to a limit
	char *v;
	size_t len, max;
};

struct sp_fetch {
	TAILQ_ENTRY(sp_fetch) entry;
	struct sp_fetch_env *env;
	CURL *easy;
	struct curl_slist *headers;
	struct text head, body;
	char error[CURL_ERROR_SIZE];
	uint64_t began_us;
	struct sp_deferred reap;
	void (*done)(void *ctx, const struct sp_fetch_result *res);
	void *ctx;
};

// ---- bytes that come ----

static bool text_add(struct text *t, const char *bytes, size_t len)
{
	if (len > t->max - t->len)
		return false;
	char *more = realloc(t->v, t->len + len + 1);
	if (!more)
		return false;
	memcpy(more + t->len, bytes, len);
	t->v = more;
	t->len += len;
	t->v[t->len] = '\0';
	return true;
}

static size_t on_body(char *bytes, size_t size, size_t n, void *arg)
{
	struct sp_fetch *f = arg;
	return text_add(&f->body, bytes, size * n) ? size * n : 0;
}

static size_t on_header(char *bytes, size_t size, size_t n, void *arg)
{
	struct sp_fetch *f = arg;
	return text_add(&f->head, bytes, size * n) ? size * n : 0;
}

bool sp_fetch_header(const struct sp_fetch_result *res, const char *name, char *buf,
		     size_t cap)
{
	size_t len = strlen(name);
	for (const char *line = res->head; line && *line;) {
		const char *end = line + strcspn(line, "\r\n");
		if (strncasecmp(line, name, len) == 0 && line[len] == ':') {
			const char *v = line + len + 1;
			v += strspn(v, " \t");
			snprintf(buf, cap, "%.*s", end > v ? (int)(end - v) : 0, v);
			return true;
		}
		line = end + strspn(end, "\r\n");
	}
	return false;
}

// ---- the end of one ----

static void on_reap(struct sp_deferred *d)
{
	struct sp_fetch *f =
		(struct sp_fetch *)((char *)d - offsetof(struct sp_fetch, reap));
	curl_slist_free_all(f->headers);
	free(f->head.v);
	free(f->body.v);
	free(f);
}

static void retire(struct sp_fetch *f)
{
	TAILQ_REMOVE(&f->env->all, f, entry);
	curl_multi_remove_handle(f->env->multi, f->easy);
	curl_easy_cleanup(f->easy);
	sp_loop_reap(f->env->loop, &f->reap);
}

static int err_of(CURLcode code, long os_error)
{
	switch (code) {
	case CURLE_OK:
		return 0;
	case CURLE_OPERATION_TIMEDOUT:
		return -ETIMEDOUT;
	case CURLE_COULDNT_RESOLVE_HOST:
		return -ENOENT;
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_ISSUER_ERROR:
		return SP_E_AUTH;
	case CURLE_WRITE_ERROR:
		return SP_E_LIMIT;
	case CURLE_URL_MALFORMAT:
	case CURLE_UNSUPPORTED_PROTOCOL:
		return SP_E_MALFORMED;
	case CURLE_OUT_OF_MEMORY:
		return -ENOMEM;
	case CURLE_COULDNT_CONNECT:
		return os_error > 0 ? -(int)os_error : -ECONNREFUSED;
	case CURLE_GOT_NOTHING:
	case CURLE_PARTIAL_FILE:
		return SP_E_CLOSED;
	case CURLE_WEIRD_SERVER_REPLY:
	case CURLE_SSL_CONNECT_ERROR:
		return SP_E_PROTOCOL;
	default:
		return -EIO;
	}
}

static void finish(struct sp_fetch *f, CURLcode code)
{
	struct sp_fetch_result res = {0};
	long status = 0, os_error = 0;
	curl_easy_getinfo(f->easy, CURLINFO_RESPONSE_CODE, &status);
	curl_easy_getinfo(f->easy, CURLINFO_OS_ERRNO, &os_error);
	res.err = err_of(code, os_error);
	res.status = (unsigned)status;
	res.head = f->head.v ? f->head.v : "";
	res.took_us = sp_loop_refresh(f->env->loop) - f->began_us;
	if (res.err)
		snprintf(res.detail, sizeof(res.detail), "%s",
			 *f->error ? f->error : curl_easy_strerror(code));
	else
		res.body = f->body.v ? f->body.v : "";
	res.len = res.err ? 0 : f->body.len;
	retire(f);
	f->done(f->ctx, &res);
}

static void look_at_messages(struct sp_fetch_env *env)
{
	CURLMsg *m;
	int left;
	while ((m = curl_multi_info_read(env->multi, &left)))
		if (m->msg == CURLMSG_DONE) {
			struct sp_fetch *f;
			CURLcode code = m->data.result;
			curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&f);
			finish(f, code);
		}
}

// ---- the loop ----

static void on_event(evutil_socket_t fd, short what, void *arg)
{
	struct sp_fetch_env *env = ((struct watch *)arg)->env;
	int running, mask = (what & EV_READ ? CURL_CSELECT_IN : 0) |
			    (what & EV_WRITE ? CURL_CSELECT_OUT : 0);
	(void)sp_loop_now_us(env->loop);
	curl_multi_socket_action(env->multi, fd, mask, &running);
	look_at_messages(env);
}

static void on_timer(void *arg)
{
	struct sp_fetch_env *env = arg;
	int running;
	curl_multi_socket_action(env->multi, CURL_SOCKET_TIMEOUT, 0, &running);
	look_at_messages(env);
}

static int set_timer(CURLM *multi, long ms, void *arg)
{
	struct sp_fetch_env *env = arg;
	(void)multi;
	sp_timer_set(&env->timer,
		     ms < 0 ? SP_LOOP_NEVER
			    : sp_loop_refresh(env->loop) + (uint64_t)ms * 1000);
	return 0;
}

static int set_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
	struct sp_fetch_env *env = arg;
	struct watch *w = socket_arg;
	(void)easy;
	if (what == CURL_POLL_REMOVE) {
		if (w) {
			event_del(&w->ev);
			curl_multi_assign(env->multi, fd, NULL);
			free(w);
		}
		return 0;
	}
	if (!w) {
		w = calloc(1, sizeof(*w));
		if (!w)
			return -1;
		w->env = env;
		w->fd = fd;
		curl_multi_assign(env->multi, fd, w);
	} else {
		event_del(&w->ev);
	}
	event_assign(&w->ev, sp_loop_base(env->loop), fd,
		     (short)(EV_PERSIST | (what & CURL_POLL_IN ? EV_READ : 0) |
			     (what & CURL_POLL_OUT ? EV_WRITE : 0)),
		     on_event, w);
	return event_add(&w->ev, NULL);
}

int sp_fetch_env_new(struct sp_loop *loop, struct sp_fetch_env **ret)
{
	struct sp_fetch_env *env = calloc(1, sizeof(*env));
	if (!env || curl_global_init(CURL_GLOBAL_DEFAULT)) {
		free(env);
		return -ENOMEM;
	}
	env->loop = loop;
	TAILQ_INIT(&env->all);
	sp_timer_init(&env->timer, loop, on_timer, env);
	env->multi = curl_multi_init();
	if (!env->multi) {
		sp_fetch_env_free(env);
		return -ENOMEM;
	}
	curl_multi_setopt(env->multi, CURLMOPT_SOCKETFUNCTION, set_socket);
	curl_multi_setopt(env->multi, CURLMOPT_SOCKETDATA, env);
	curl_multi_setopt(env->multi, CURLMOPT_TIMERFUNCTION, set_timer);
	curl_multi_setopt(env->multi, CURLMOPT_TIMERDATA, env);
	*ret = env;
	return 0;
}

void sp_fetch_env_free(struct sp_fetch_env *env)
{
	struct sp_fetch *f;
	if (!env)
		return;
	while ((f = TAILQ_FIRST(&env->all)))
		retire(f);
	if (env->multi)
		curl_multi_cleanup(env->multi);
	sp_timer_done(&env->timer);
	curl_global_cleanup();
	free(env);
}

// ---- one ----

static bool set_headers(struct sp_fetch *f, const char *const *headers)
{
	for (; headers && *headers; headers++) {
		struct curl_slist *more = curl_slist_append(f->headers, *headers);
		if (!more)
			return false;
		f->headers = more;
	}
	return !curl_easy_setopt(f->easy, CURLOPT_HTTPHEADER, f->headers);
}

static bool set_options(struct sp_fetch *f, const struct sp_fetch_options *opt)
{
	CURL *c = f->easy;
	return !curl_easy_setopt(c, CURLOPT_URL, opt->url) &&
	       !curl_easy_setopt(c, CURLOPT_PRIVATE, f) &&
	       !curl_easy_setopt(c, CURLOPT_ERRORBUFFER, f->error) &&
	       !curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https") &&
	       !curl_easy_setopt(c, CURLOPT_HTTP_VERSION, CURL_HTTP_VERSION_1_1) &&
	       !curl_easy_setopt(c, CURLOPT_PROXY, "") &&
	       !curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L) &&
	       !curl_easy_setopt(c, CURLOPT_FRESH_CONNECT, 1L) &&
	       !curl_easy_setopt(c, CURLOPT_FORBID_REUSE, 1L) &&
	       !curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, (long)opt->timeout_ms) &&
	       !curl_easy_setopt(c, CURLOPT_USERAGENT, opt->user_agent) &&
	       !curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body) &&
	       !curl_easy_setopt(c, CURLOPT_WRITEDATA, f) &&
	       !curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header) &&
	       !curl_easy_setopt(c, CURLOPT_HEADERDATA, f) &&
	       (!opt->ca_file || !curl_easy_setopt(c, CURLOPT_CAINFO, opt->ca_file)) &&
	       set_headers(f, opt->headers) &&
	       (!opt->by_way_of ||
		!curl_easy_setopt(c, CURLOPT_ABSTRACT_UNIX_SOCKET, opt->by_way_of));
}

int sp_fetch_start(struct sp_fetch_env *env, const struct sp_fetch_options *opt,
		   struct sp_fetch **ret)
{
	struct sp_fetch *f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	f->env = env;
	f->head.max = SP_FETCH_HEADERS_MAX;
	f->body.max = opt->max_bytes;
	f->done = opt->done;
	f->ctx = opt->ctx;
	f->reap.run = on_reap;
	f->began_us = sp_loop_refresh(env->loop);
	f->easy = curl_easy_init();
	if (!f->easy || !set_options(f, opt) ||
	    curl_multi_add_handle(env->multi, f->easy)) {
		curl_easy_cleanup(f->easy);
		on_reap(&f->reap);
		return -ENOMEM;
	}
	TAILQ_INSERT_TAIL(&env->all, f, entry);
	*ret = f;
	return 0;
}

void sp_fetch_cancel(struct sp_fetch *f)
{
	if (f)
		retire(f);
}
