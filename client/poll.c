#include "client/poll.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <sodium.h>

#include "client/exits.h"
#include "lib/file.h"
#include "lib/held.h"
#include "lib/key.h"
#include "lib/log.h"
#include "lib/version.h"

#define URLS_MAX    (2 * SP_FLEET_ENDPOINTS_MAX)
#define TOKEN_MAX   512
#define FIRST_MS    10000 // for an answer that nobody holds back
#define PAUSE_MS    200   // from an answer to the next question, with jitter
#define RETRY_WORDS 60    // the longest Retry-After that is heeded, in seconds

struct cli_poll {
	struct cli_poll_options opt;
	uint8_t device_public[32];
	struct sp_fetch_env *env;
	struct sp_fetch *fetch;
	struct sp_timer next;
	char *urls[URLS_MAX]; // those of the last config, then those of the local one
	unsigned n_urls, at;
	char authorization[TOKEN_MAX + 32], device[SP_KEY_TEXT_MAX + 32], etag[160];
	uint32_t retry_ms, refresh_s;
	bool waited; // the question under way may be held back
	int memory;  // descriptor of the config that the disk did not take; 0: it did
	struct cli_poll_info info;
};

static void ask(void *ctx);

const char *cli_poll_path(const struct cli_config *cfg, char *buf, size_t cap)
{
	if (cfg->last)
		snprintf(buf, cap, "%s", cfg->last);
	else
		snprintf(buf, cap, "%s/config.signed", cfg->state_dir);
	return buf;
}

// ---- when to ask ----

static void ask_in(struct cli_poll *p, uint32_t ms)
{
	uint64_t at_ms = sp_loop_now_ms(p->opt.loop) + ms / 2 +
			 randombytes_uniform(ms + 1); // half to one and a half of it
	p->info.next_ms = at_ms;
	sp_timer_set(&p->next, at_ms * 1000);
}

static void failed(struct cli_poll *p, uint32_t retry_after_s, const char *why)
{
	bool news = !p->info.failed || strcmp(why, p->info.why) != 0;
	p->info.failures++;
	p->info.failed = true;
	snprintf(p->info.why, sizeof(p->info.why), "%s", why);
	if (news)
		sp_warn("poll", "no config from this endpoint, the one held goes on",
			"endpoint=%s why=%s", p->urls[p->at], why);
	p->at = (p->at + 1) % p->n_urls;
	uint32_t ms = p->retry_ms;
	p->retry_ms = 2 * ms < CLI_POLL_RETRY_MAX_MS ? 2 * ms : CLI_POLL_RETRY_MAX_MS;
	if (retry_after_s && retry_after_s <= RETRY_WORDS && retry_after_s * 1000 > ms)
		ms = retry_after_s * 1000;
	ask_in(p, ms);
}

static void answered(struct cli_poll *p)
{
	if (p->info.failed)
		sp_info("poll", "the endpoint answers again", "endpoint=%s",
			p->urls[p->at]);
	p->info.failed = false;
	p->info.good_ms = sp_loop_now_ms(p->opt.loop);
	p->retry_ms = CLI_POLL_RETRY_MS;
	// An endpoint that holds no answers back is asked as often as it says.
	bool quick = p->waited && sp_loop_now_ms(p->opt.loop) < p->info.next_ms + 1000;
	ask_in(p, quick && p->info.not_modified ? p->refresh_s * 1000 : PAUSE_MS);
}

// ---- what comes ----

// What an answer says, if it holds. NULL, and `why`.
static struct sp_fleet_client *
verify(struct cli_poll *p, const struct sp_fetch_result *res, char *why, size_t cap)
{
	struct sp_signed_view view;
	struct sp_fleet_client *f = NULL;
	struct sp_fleet_revision held;
	struct sp_pass pass;
	char path[4096], text[SP_FLEET_WHY_MAX] = "";
	int err = sp_signed_open_text(p->opt.keys, SP_SIGNED_CLIENT_CONFIG, res->body,
				      res->len, &view);
	if (err) {
		snprintf(why, cap, "its answer is not signed by a key of keys.fleet: %s",
			 sp_strerror(err));
		return NULL;
	}
	if (sp_fleet_client_parse(view.body, view.body_len, &f, text, sizeof(text))) {
		snprintf(why, cap, "its answer: %s", text);
		return NULL;
	}
	snprintf(path, sizeof(path), "%s/revision", p->opt.cfg->state_dir);
	if (!f->pass_len)
		snprintf(why, cap, "its answer has no pass for this device: %s",
			 *f->pass_refused ? f->pass_refused : "it does not say why");
	else if (sp_pass_open(p->opt.keys, f->pass, f->pass_len, &pass) ||
		 memcmp(pass.device, p->device_public, sizeof(pass.device)) != 0)
		snprintf(why, cap, "the pass in its answer is not for this device");
	else if (sp_held_load(path, &held, text, sizeof(text)))
		snprintf(why, cap, "%s", text);
	else if (sp_fleet_revision_compare(&f->revision, &held) < 0)
		snprintf(why, cap,
			 "its revision %u.%" PRIu64 " is older than %u.%" PRIu64,
			 f->revision.epoch, f->revision.sequence, held.epoch,
			 held.sequence);
	else
		return f;
	p->info.refused++;
	sp_fleet_client_free(f);
	return NULL;
}

static void take_urls(struct cli_poll *p, const struct sp_fleet_client *f)
{
	const struct sp_conf_strings *local = &p->opt.cfg->endpoints;
	char *now = p->n_urls ? strdup(p->urls[p->at]) : NULL;
	for (unsigned i = 0; i < p->n_urls; i++)
		free(p->urls[i]);
	p->n_urls = p->at = 0;
	for (size_t i = 0; f && i < f->n_endpoints; i++)
		p->urls[p->n_urls++] = strdup(f->endpoints[i]);
	for (size_t i = 0; i < local->n && p->n_urls < URLS_MAX; i++)
		p->urls[p->n_urls++] = strdup(local->v[i]);
	for (unsigned i = 0; now && i < p->n_urls; i++)
		if (p->urls[i] && strcmp(p->urls[i], now) == 0)
			p->at = i; // go on with the one that answers
	free(now);
}

// A file in memory with the config in it, for as long as it is open. -errno.
static int to_memory(const struct sp_fetch_result *res)
{
	int fd = memfd_create("config", MFD_CLOEXEC);
	if (fd < 0)
		return -errno;
	for (size_t done = 0; done < res->len;) {
		ssize_t n = write(fd, res->body + done, res->len - done);
		if (n <= 0) {
			int err = n < 0 ? -errno : -EIO;
			close(fd);
			return err;
		}
		done += (size_t)n;
	}
	return fd;
}

// The disk did not take it: exits must be left and passes renewed all the same.
static int keep_in_memory(struct cli_poll *p, const struct sp_fetch_result *res,
			  char *why, size_t cap)
{
	char path[32];
	int fd = to_memory(res);
	if (fd < 0)
		return fd;
	if (!p->memory)
		sp_warn("poll", "the new config is held in memory only", "why=%s", why);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	int err = p->opt.fresh(p->opt.ctx, path, why, cap);
	int old = err ? fd : p->memory;
	if (!err)
		p->memory = fd;
	if (old > 0)
		close(old);
	return err;
}

// The file is replaced, and put back if the config cannot be used after all.
static int keep(struct cli_poll *p, const struct sp_fetch_result *res, char *why,
		size_t cap)
{
	struct sp_file_read how = {.max = SP_SIGNED_BODY_MAX + SP_SIGNED_LINE_MAX};
	char path[4096], ignored[SP_WHY_MAX];
	uint8_t *old = NULL;
	size_t old_len = 0;
	snprintf(path, sizeof(path), "%s/config.signed", p->opt.cfg->state_dir);
	(void)!sp_file_read(path, &how, &old, &old_len, ignored, sizeof(ignored));
	int err = sp_file_write(path, res->body, res->len, 0600, why, cap);
	if (err) {
		sp_file_free(old, old_len);
		return keep_in_memory(p, res, why, cap);
	}
	err = p->opt.fresh(p->opt.ctx, NULL, why, cap);
	if (err && old)
		(void)!sp_file_write(path, old, old_len, 0600, ignored, sizeof(ignored));
	sp_file_free(old, old_len);
	if (!err && p->memory) {
		sp_info("poll", "the config is on the disk again", "path=%s", path);
		close(p->memory);
		p->memory = 0;
	}
	return err;
}

static void take(struct cli_poll *p, const struct sp_fetch_result *res)
{
	char why[SP_WHY_MAX] = "";
	struct sp_fleet_client *f = verify(p, res, why, sizeof(why));
	if (!f || keep(p, res, why, sizeof(why))) {
		sp_fleet_client_free(f);
		failed(p, 0, why);
		return;
	}
	if (!sp_fetch_header(res, "etag", p->etag, sizeof(p->etag)))
		p->etag[0] = '\0';
	if (f->server_time_s)
		p->info.skew_s = (int64_t)f->server_time_s - (int64_t)time(NULL);
	p->refresh_s = f->refresh_s ? f->refresh_s : 60;
	take_urls(p, f);
	p->info.fresh++;
	sp_info("poll", "new config", "epoch=%u sequence=%" PRIu64 " exits=%zu",
		f->revision.epoch, f->revision.sequence, f->n_exits);
	sp_fleet_client_free(f);
	answered(p);
}

static void done(void *ctx, const struct sp_fetch_result *res)
{
	struct cli_poll *p = ctx;
	char why[300], after[32];
	p->fetch = NULL;
	p->info.asking = false;
	if (res->err) {
		failed(p, 0, res->detail);
	} else if (res->status == 304) {
		p->info.not_modified++;
		answered(p);
	} else if (res->status == 200) {
		take(p, res);
	} else {
		unsigned s = 0;
		if (sp_fetch_header(res, "retry-after", after, sizeof(after)))
			s = (unsigned)strtoul(after, NULL, 10);
		snprintf(why, sizeof(why),
			 res->status == 404 ? "HTTP 404: is the URL right, and the token "
					      "still good?"
					    : "HTTP %u",
			 res->status);
		failed(p, s, why);
	}
}

static void ask(void *ctx)
{
	struct cli_poll *p = ctx;
	char url[SP_FLEET_URL_MAX + 32], match[200];
	const char *headers[] = {p->authorization, p->device, NULL, NULL};
	// After a failure the first answer is wanted at once: it says that all is well
	// again.
	p->waited = p->etag[0] && !p->info.failed;
	snprintf(url, sizeof(url), "%s", p->urls[p->at]);
	if (p->waited)
		snprintf(url, sizeof(url), "%s%cwait=%d", p->urls[p->at],
			 strchr(p->urls[p->at], '?') ? '&' : '?', CLI_POLL_WAIT_S);
	if (p->etag[0]) {
		snprintf(match, sizeof(match), "If-None-Match: %s", p->etag);
		headers[2] = match;
	}
	struct sp_fetch_options o = {.url = url,
				     .headers = headers,
				     .ca_file = p->opt.cfg->endpoint_ca,
				     .timeout_ms = p->waited ? CLI_POLL_WAIT_S * 1000 +
								       CLI_POLL_MARGIN_MS
							     : FIRST_MS,
				     .max_bytes = SP_SIGNED_BODY_MAX + SP_SIGNED_LINE_MAX,
				     .done = done,
				     .ctx = p};
	p->info.polls++;
	p->info.asking = true;
	p->info.next_ms = sp_loop_now_ms(p->opt.loop); // when it was asked, meanwhile
	int err = sp_fetch_start(p->env, &o, &p->fetch);
	if (err) {
		p->info.asking = false;
		failed(p, 0, sp_strerror(err));
	}
}

// ---- start and end ----

static int load_token(struct cli_poll *p, char *why, size_t cap)
{
	struct sp_file_read how = {.max = TOKEN_MAX, .secret = true};
	char text[SP_WHY_MAX];
	uint8_t *buf;
	size_t len;
	if (sp_file_read(p->opt.cfg->token, &how, &buf, &len, text, sizeof(text))) {
		snprintf(why, cap,
			 "token: %s; the operator makes one by sallyportctl token", text);
		return SP_E_CONFIG;
	}
	while (len && strchr(" \t\r\n", buf[len - 1]))
		len--;
	bool plain = len > 0;
	for (size_t i = 0; i < len; i++)
		plain &= buf[i] > 0x20 && buf[i] < 0x7f;
	if (plain)
		snprintf(p->authorization, sizeof(p->authorization),
			 "Authorization: Bearer %.*s", (int)len, (char *)buf);
	else
		snprintf(why, cap, "token: %s: not a token; want one line of text",
			 p->opt.cfg->token);
	sp_file_free(buf, how.max);
	return plain ? 0 : SP_E_CONFIG;
}

int cli_poll_new(const struct cli_poll_options *opt, struct cli_poll **ret, char *why,
		 size_t cap)
{
	char key[SP_KEY_TEXT_MAX];
	struct cli_poll *p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->opt = *opt;
	memcpy(p->device_public, opt->device_public, sizeof(p->device_public));
	p->retry_ms = CLI_POLL_RETRY_MS;
	p->refresh_s = 60;
	snprintf(p->device, sizeof(p->device), "Sallyport-Device: %s",
		 sp_key_format(SP_KEY_DEVICE, false, opt->device_public, key));
	sp_timer_init(&p->next, opt->loop, ask, p);
	take_urls(p, NULL);
	int err = load_token(p, why, cap);
	if (!err)
		err = sp_fetch_env_new(opt->loop, &p->env);
	if (err) {
		cli_poll_free(p);
		return err;
	}
	ask_in(p, 0);
	*ret = p;
	return 0;
}

void cli_poll_free(struct cli_poll *p)
{
	if (!p)
		return;
	sp_fetch_cancel(p->fetch);
	sp_fetch_env_free(p->env);
	sp_timer_done(&p->next);
	if (p->memory)
		close(p->memory);
	for (unsigned i = 0; i < p->n_urls; i++)
		free(p->urls[i]);
	sodium_memzero(p->authorization, sizeof(p->authorization));
	free(p);
}

void cli_poll_now(struct cli_poll *p)
{
	p->retry_ms = CLI_POLL_RETRY_MS;
	if (!p->info.asking)
		ask_in(p, PAUSE_MS);
}

void cli_poll_info(const struct cli_poll *p, struct cli_poll_info *ret)
{
	*ret = p->info;
	ret->endpoint = p->urls[p->at];
	if (ret->asking)
		ret->next_ms = 0;
}

// ---- the first config ----

struct first {
	struct sp_loop *loop;
	bool done, interrupted;
};

static int on_first(void *ctx, const char *path, char *why, size_t cap)
{
	struct first *f = ctx;
	if (path) { // it would be gone with us; `why` says what the disk said
		(void)why;
		(void)cap;
		return SP_E_CONFIG;
	}
	f->done = true;
	sp_loop_stop(f->loop);
	return 0;
}

static void on_signal(void *ctx, int signo)
{
	struct first *f = ctx;
	if (signo == SIGHUP)
		return;
	f->interrupted = true;
	sp_loop_stop(f->loop);
}

int cli_poll_first(const struct cli_config *cfg, const struct sp_signed_keys *keys,
		   const uint8_t *device_public, char *why, size_t cap)
{
	struct first f = {0};
	struct cli_poll *p = NULL;
	if (mkdir(cfg->state_dir, 0700) < 0 && errno != EEXIST) {
		snprintf(why, cap, "state_dir: %s: %s", cfg->state_dir, strerror(errno));
		return SP_E_CONFIG;
	}
	int err = sp_loop_new(&f.loop);
	struct cli_poll_options o = {.loop = f.loop,
				     .cfg = cfg,
				     .keys = keys,
				     .device_public = device_public,
				     .fresh = on_first,
				     .ctx = &f};
	if (!err)
		err = sp_loop_signals(f.loop, on_signal, &f);
	if (!err)
		err = cli_poll_new(&o, &p, why, cap);
	if (!err) {
		sp_info("poll", "asking for the first config", "endpoint=%s",
			p->urls[p->at]);
		err = sp_loop_run(f.loop);
	}
	cli_poll_free(p);
	sp_loop_free(f.loop);
	if (!err && !f.done)
		err = -EINTR;
	if (err == -EINTR)
		snprintf(why, cap,
			 "interrupted before an endpoint told the first config");
	else if (err && err != SP_E_CONFIG) // cli_poll_new says what is wrong with those
		snprintf(why, cap, "endpoints: %s", sp_strerror(err));
	return err;
}
