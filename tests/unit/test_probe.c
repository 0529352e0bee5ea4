// Probes against a whole worker in this process, and HTTP through their streams.
#include <sys/un.h>
#include <sys/wait.h>

#include <event2/buffer.h>
#include <event2/http.h>

#include "lib/fetch.h"
#include "lib/probe.h"
#include "tests/unit/worker_world.h"

static struct {
	struct sp_probe_env *env;
	struct sp_fetch_env *fetch;
	struct sp_probe_seat *seat;
	struct sp_probe_who who;
	struct sp_fleet_carrier carrier;
	struct sp_target site;
	struct evhttp *http;
	struct sp_probe_result res;
	struct sp_probe *probe;
	unsigned done, streams, fetched;
	size_t got;
	bool stranger;
	char stranger_read;
} y;

static void on_request(struct evhttp_request *req, void *arg)
{
	const char *path = evhttp_request_get_uri(req);
	struct evbuffer *body = evhttp_request_get_output_buffer(req);
	(void)arg;
	if (strcmp(path, "/204") == 0) {
		evhttp_add_header(evhttp_request_get_output_headers(req), "X-Seen",
				  "yes");
		evhttp_send_reply(req, 204, "No Content", NULL);
		return;
	}
	for (unsigned i = 0; i < 25000; i++)
		evbuffer_add(body, "0123456789abcdef", 16);
	evhttp_send_reply(req, 200, "OK", NULL);
}

static int begin(void **state)
{
	struct sp_probe_env_options o = {.max_seats = 300};
	assert_int_equal(setup(state), 0);
	memset(&y, 0, sizeof(y));
	make_device(&x.d[0], "prober", 3600);
	memcpy(y.who.device_public, x.d[0].pub, 32);
	memcpy(y.who.device_secret, x.d[0].secret, 32);
	memcpy(y.who.pass, x.d[0].pass, x.d[0].pass_len);
	y.who.pass_len = x.d[0].pass_len;
	o.loop = x.w->loop;
	assert_int_equal(sp_probe_env_new(&o, &y.env), 0);
	assert_int_equal(sp_probe_seat_new(y.env, &y.seat), 0);
	assert_int_equal(sp_fetch_env_new(x.w->loop, &y.fetch), 0);
	y.carrier.kind = SP_CARRIER_TCP;
	y.carrier.address = (struct sp_target){
		.kind = SP_TARGET_IPV4, .v4 = {127, 0, 0, 1}, .port = x.port};
	y.http = evhttp_new(sp_loop_base(x.w->loop));
	y.site = y.carrier.address;
	y.site.port = free_port();
	assert_int_equal(evhttp_bind_socket(y.http, "127.0.0.1", y.site.port), 0);
	evhttp_set_gencb(y.http, on_request, NULL);
	return 0;
}

static int end(void **state)
{
	sp_probe_seat_free(y.seat);
	sp_probe_env_free(y.env);
	sp_fetch_env_free(y.fetch);
	evhttp_free(y.http);
	return teardown(state);
}

static void on_done(void *ctx, const struct sp_probe_result *res)
{
	(void)ctx;
	y.res = *res;
	y.probe = NULL;
	y.done++;
}

static struct sp_probe_options options(void)
{
	return (struct sp_probe_options){.carrier = &y.carrier,
					 .worker_public = x.worker_pub,
					 .who = &y.who,
					 .target = &y.site,
					 .top = SP_RUNG_EGRESS,
					 .path = "/204",
					 .expect = 204,
					 .deadline_ms = 3000,
					 .done = on_done};
}

static void run(const struct sp_probe_options *o)
{
	unsigned before = y.done;
	assert_int_equal(sp_probe_start(y.seat, o, &y.probe), 0);
	UNTIL(y.done > before);
}

static void a_probe_climbs_to_the_top_and_times_each_rung(void **state)
{
	struct sp_probe_options o = options();
	(void)state;
	o.fine = true;
	run(&o);
	assert_int_equal(y.res.reason, SP_REASON_NONE);
	assert_int_equal(y.res.reached, SP_RUNG_EGRESS);
	assert_int_equal(y.res.http_status, 204);
	assert_true(y.res.us[SP_RUNG_HANDSHAKE] > 0 && y.res.us[SP_RUNG_HTTP] > 0);
	assert_true(y.res.boot_id != 0);
	assert_int_equal(y.res.exit.port, x.port);
	assert_string_equal(sp_rung_word(SP_RUNG_EXTERNAL), "external");
	assert_string_equal(sp_rung_word(SP_RUNGS), "top");
}

static void it_names_the_rung_and_the_reason_of_its_fall(void **state)
{
	struct sp_probe_options o = options();
	uint8_t other[32], secret[32];
	(void)state;
	crypto_box_keypair(other, secret);
	o.expect = 200;
	run(&o);
	assert_int_equal(y.res.reached, SP_RUNG_HTTP);
	assert_int_equal(y.res.reason, SP_REASON_REFUSED);

	o = options();
	y.site.port = free_port();
	run(&o);
	assert_int_equal(y.res.reached, SP_RUNG_STREAM);
	assert_int_equal(y.res.reason, SP_REASON_REFUSED);

	o.deadline_ms = 200; // a wrong key: the worker is silent, as to a stranger
	o.worker_public = other;
	run(&o);
	assert_int_equal(y.res.reached, SP_RUNG_HANDSHAKE);
	assert_int_equal(y.res.reason, SP_REASON_TIMEOUT);

	o.worker_public = x.worker_pub; // and so is it to a pass of another fleet
	y.who.pass[20] ^= 1;
	run(&o);
	assert_int_equal(y.res.reached, SP_RUNG_HANDSHAKE);
	assert_int_equal(y.res.reason, SP_REASON_TIMEOUT);
	y.who.pass[20] ^= 1;

	o = options();
	y.carrier.address.port = free_port();
	run(&o);
	assert_int_equal(y.res.reached, SP_RUNG_CONNECT);
	assert_int_equal(y.res.reason, SP_REASON_REFUSED);

	assert_int_equal(sp_target_set_host(&y.carrier.address, "no.such.invalid", 15, 1),
			 0);
	run(&o);
	assert_int_equal(y.res.reached, SP_RUNG_RESOLVE);
	assert_true(y.res.reason == SP_REASON_RESOLVE_FAILED ||
		    y.res.reason == SP_REASON_RESOLVE_TIMEOUT ||
		    y.res.reason == SP_REASON_TIMEOUT);
}

static void probes_of_one_seat_find_their_session_again(void **state)
{
	struct sp_probe_options o = options();
	(void)state;
	for (unsigned i = 0; i < 20; i++) {
		run(&o);
		assert_int_equal(y.res.reason, SP_REASON_NONE);
	}
	assert_int_equal(sessions()->made, 1);
	UNTIL(sessions()->attached == 0);
}

static void a_seat_has_one_probe_at_a_time_and_a_cancelled_one_is_silent(void **state)
{
	struct sp_probe_options o = options();
	struct sp_probe *p;
	(void)state;
	assert_int_equal(sp_probe_start(y.seat, &o, &y.probe), 0);
	assert_int_equal(sp_probe_start(y.seat, &o, &p), -EBUSY);
	sp_probe_cancel(y.probe);
	assert_int_equal(y.done, 0);
	run(&o);
	assert_int_equal(y.done, 1);
	assert_int_equal(y.res.reason, SP_REASON_NONE);
}

static void two_hundred_at_once_have_each_their_own_deadline(void **state)
{
	struct sp_probe_seat *seat[200];
	struct sp_fleet_carrier hole = y.carrier;
	struct sp_probe *p;
	(void)state;
	hole.address = x.target; // listens, and nobody accepts
	uint64_t began = sp_loop_refresh(x.w->loop);
	for (unsigned i = 0; i < 200; i++) {
		struct sp_probe_options o = options();
		o.carrier = i < 4 ? &y.carrier : &hole;
		o.deadline_ms = i < 4 ? 8000 : 300 + i;
		assert_int_equal(sp_probe_seat_new(y.env, &seat[i]), 0);
		assert_int_equal(sp_probe_start(seat[i], &o, &p), 0);
	}
	UNTIL(y.done == 200);
	assert_true(sp_loop_refresh(x.w->loop) - began < 5000000);
	assert_int_equal(sessions()->made, 4);
	for (unsigned i = 0; i < 200; i++)
		sp_probe_seat_free(seat[i]);
}

// ---- HTTP through the stream ----

static void on_fetched(void *ctx, const struct sp_fetch_result *res)
{
	char seen[8] = "";
	(void)ctx;
	y.fetched++;
	if (!y.probe)
		return;
	if (res->err) {
		sp_probe_fall(y.probe, SP_REASON_PROTOCOL, res->detail);
		return;
	}
	y.got = res->len;
	if (sp_probe_rung(y.probe) == SP_RUNG_HTTP) {
		assert_int_equal(res->status, 204);
		assert_true(sp_fetch_header(res, "x-seen", seen, sizeof(seen)));
		assert_string_equal(seen, "yes");
		assert_false(sp_fetch_header(res, "X-See", seen, sizeof(seen)));
		sp_probe_climb(y.probe);
		sp_probe_climb(y.probe);
		sp_probe_open(y.probe, &y.site);
	} else {
		sp_probe_climb(y.probe);
	}
}

static void knock_as_a_stranger(const char *name)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int status;
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		int fd = socket(AF_UNIX, SOCK_STREAM, 0);
		strcpy(un.sun_path + 1, name);
		socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 +
					    strlen(name));
		_exit(connect(fd, (struct sockaddr *)&un, len) == 0 ? 0 : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void on_stream(void *ctx, struct sp_probe *p, const char *name)
{
	char url[64];
	struct sp_fetch *f;
	bool first = sp_probe_rung(p) == SP_RUNG_HTTP;
	struct sp_fetch_options o = {.url = url,
				     .by_way_of = name,
				     .timeout_ms = 5000,
				     .max_bytes = 1 << 20,
				     .done = on_fetched};
	(void)ctx;
	y.streams++;
	if (y.stranger)
		knock_as_a_stranger(name);
	snprintf(url, sizeof(url), "http://site.example/%s", first ? "204" : "long");
	assert_int_equal(sp_fetch_start(y.fetch, &o, &f), 0);
}

static void http_goes_through_streams_one_after_another(void **state)
{
	struct sp_probe_options o = options();
	(void)state;
	o.stream = on_stream;
	o.top = SP_RUNGS;
	run(&o);
	assert_string_equal(y.res.detail, "");
	assert_int_equal(y.res.reason, SP_REASON_NONE);
	assert_int_equal(y.res.reached, SP_RUNGS);
	assert_int_equal(y.streams, 2);
	assert_int_equal(y.got, 400000);
}

static void another_process_cannot_take_the_stream(void **state)
{
	struct sp_probe_options o = options();
	(void)state;
	y.stranger = true;
	o.stream = on_stream;
	o.top = SP_RUNGS;
	run(&o);
	assert_int_equal(y.res.reason, SP_REASON_NONE);
	assert_int_equal(y.fetched, 2);
}

static void a_probe_that_ends_first_leaves_the_request_with_an_error(void **state)
{
	struct sp_probe_options o = options();
	(void)state;
	o.stream = on_stream;
	o.top = SP_RUNGS;
	assert_int_equal(sp_probe_start(y.seat, &o, &y.probe), 0);
	UNTIL(y.streams == 1);
	sp_probe_cancel(y.probe);
	y.probe = NULL;
	UNTIL(y.fetched == 1);
	assert_int_equal(y.done, 0);
}

// ---- fetches of their own ----

static struct sp_fetch_result last;
static char last_body[64];

static void keep(void *ctx, const struct sp_fetch_result *res)
{
	(void)ctx;
	last = *res;
	last.body = last.head = NULL;
	snprintf(last_body, sizeof(last_body), "%.16s", res->body ? res->body : "");
	y.fetched++;
}

static void fetch(const char *path, uint16_t port, size_t max, uint32_t timeout_ms)
{
	char url[64];
	struct sp_fetch *f;
	unsigned before = y.fetched;
	struct sp_fetch_options o = {
		.url = url, .timeout_ms = timeout_ms, .max_bytes = max, .done = keep};
	snprintf(url, sizeof(url), "http://127.0.0.1:%u%s", port, path);
	assert_int_equal(sp_fetch_start(y.fetch, &o, &f), 0);
	UNTIL(y.fetched > before);
}

static void a_fetch_says_what_came_or_why_nothing_did(void **state)
{
	struct sp_fetch_options o = {
		.url = "gopher://x/", .timeout_ms = 100, .max_bytes = 1, .done = keep};
	struct sp_fetch *f;
	(void)state;
	fetch("/long", y.site.port, 1 << 20, 5000);
	assert_int_equal(last.err, 0);
	assert_int_equal(last.len, 400000);
	assert_string_equal(last_body, "0123456789abcdef");
	fetch("/long", y.site.port, 399999, 5000);
	assert_int_equal(last.err, SP_E_LIMIT);
	assert_int_equal(last.len, 0);
	fetch("/", free_port(), 1, 5000);
	assert_int_equal(last.err, -ECONNREFUSED);
	fetch("/", x.target.port, 1, 150); // listens, and nobody answers
	assert_int_equal(last.err, -ETIMEDOUT);
	assert_true(*last.detail);
	if (sp_fetch_start(y.fetch, &o, &f) == 0) {
		UNTIL(y.fetched == 5);
		assert_int_equal(last.err, SP_E_MALFORMED);
	}
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, begin, end)
	const struct CMUnitTest tests[] = {
		TEST(a_probe_climbs_to_the_top_and_times_each_rung),
		TEST(it_names_the_rung_and_the_reason_of_its_fall),
		TEST(probes_of_one_seat_find_their_session_again),
		TEST(a_seat_has_one_probe_at_a_time_and_a_cancelled_one_is_silent),
		TEST(two_hundred_at_once_have_each_their_own_deadline),
		TEST(http_goes_through_streams_one_after_another),
		TEST(another_process_cannot_take_the_stream),
		TEST(a_probe_that_ends_first_leaves_the_request_with_an_error),
		TEST(a_fetch_says_what_came_or_why_nothing_did),
	};
	if (sodium_init() < 0)
		return 1;
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
