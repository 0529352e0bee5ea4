// The config endpoint over real sockets: what strangers see, long polls, hostile HTTP,
// thousands of polls woken. Clients are plain sockets in the same process.
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "endpoint_world.h"
#include "lib/proof.h"
#include "tls_files.h"

struct http_world {
	struct fleet_world f; // first: the context of its callbacks
	struct sp_loop *loop;
	struct con_devices *devices;
	struct con_endpoint_options opt;
	struct con_endpoint *e;
	char token[CON_TOKEN_TEXT_MAX], device[SP_KEY_TEXT_MAX];
	const char *down;
	char got[262144];
};

static void judge(void *ctx, const char *worker, const char *region,
		  struct con_view_health *ret)
{
	const char *down = ((struct http_world *)ctx)->down;
	(void)region;
	*ret = (struct con_view_health){
		.offered = !down || (strcmp(down, "*") && strcmp(worker, down)),
		.percent = 100};
}

static void prepare(struct http_world *w)
{
	memset(w, 0, sizeof(*w));
	world_init(&w->f, 8);
	world_token(&w->f, "ann", 0, w->token);
	world_device(1, w->device);
	assert_int_equal(sp_loop_new(&w->loop), 0);
	assert_int_equal(con_devices_new(NULL, NULL, &w->devices), 0);
	w->opt.loop = w->loop;
	assert_int_equal(sp_target_parse("127.0.0.1:0", &w->opt.listen), 0);
	con_endpoint_limits_default(&w->opt);
	w->opt.clients.secret = w->f.secret;
	w->opt.clients.devices = w->devices;
	w->opt.clients.state = world_state;
	w->opt.clients.head = world_head;
	w->opt.clients.judge = judge;
	w->opt.clients.ctx = w;
}

static void begin(struct http_world *w)
{
	assert_int_equal(con_endpoint_new(&w->opt, &w->e), 0);
}

static void make(struct http_world *w)
{
	prepare(w);
	begin(w);
}

static void drop(struct http_world *w)
{
	con_endpoint_free(w->e);
	con_devices_free(w->devices);
	sp_loop_free(w->loop);
	world_done(&w->f);
}

// ---- a client ----

static void dial_with(struct http_world *w, int fd)
{
	struct sockaddr_storage ss;
	struct sp_target t;
	socklen_t len;
	int one = 1;
	con_http_address(con_endpoint_http(w->e), &t);
	assert_int_equal(sp_target_to_sockaddr(&t, &ss, &len), 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&ss, len), 0);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static int dial(struct http_world *w)
{
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	dial_with(w, fd);
	return fd;
}

static void put(int fd, const char *text)
{
	assert_int_equal(send(fd, text, strlen(text), MSG_NOSIGNAL), strlen(text));
}

static void turn(struct http_world *w)
{
	assert_int_equal(sp_loop_turn(w->loop, false), 0);
}

// Until `n` bytes are there or the connection ends; `n` 0: one whole answer. False: it
// ended, or nothing came for some seconds.
static bool take(struct http_world *w, int fd)
{
	uint64_t deadline = sp_loop_refresh(w->loop) + 10000000;
	size_t len = 0;
	w->got[0] = '\0';
	while (sp_loop_now_us(w->loop) < deadline) {
		turn(w);
		ssize_t n =
			recv(fd, w->got + len, sizeof(w->got) - 1 - len, MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN))
			return false;
		len += n > 0 ? (size_t)n : 0;
		w->got[len] = '\0';
		char *end = strstr(w->got, "\r\n\r\n");
		char *size = strstr(w->got, "Content-Length: ");
		size_t body = end && size && size < end ? (size_t)atoi(size + 16) : 0;
		if (end && len >= (size_t)(end + 4 - w->got) + body)
			return true;
	}
	return false;
}

// Until the server ends the connection; what it sent is in w->got.
static bool ends(struct http_world *w, int fd)
{
	uint64_t deadline = sp_loop_refresh(w->loop) + 10000000;
	size_t len = 0;
	while (sp_loop_now_us(w->loop) < deadline) {
		turn(w);
		ssize_t n =
			recv(fd, w->got + len, sizeof(w->got) - 1 - len, MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN)) {
			w->got[len] = '\0';
			return true;
		}
		len += n > 0 ? (size_t)n : 0;
	}
	return false;
}

static int status(const struct http_world *w)
{
	int s = 0;
	(void)!sscanf(w->got, "HTTP/1.1 %d ", &s);
	return s;
}

static const char *body(const struct http_world *w)
{
	const char *p = strstr(w->got, "\r\n\r\n");
	return p ? p + 4 : "";
}

static const char *header(const struct http_world *w, const char *name)
{
	static char value[256];
	const char *p = strstr(w->got, name);
	value[0] = '\0';
	if (p && p < body(w))
		(void)!sscanf(p + strlen(name), ": %255[^\r]", value);
	return value;
}

// A request as clients make it; `etag` and `query` may be "".
static const char *request(const struct http_world *w, const char *path,
			   const char *token, const char *etag)
{
	static char text[2048];
	snprintf(text, sizeof(text),
		 "GET %s HTTP/1.1\r\nHost: a\r\n%s%s%sSallyport-Device: %s\r\n%s%s%s\r\n",
		 path, token ? "Authorization: Bearer " : "", token ? token : "",
		 token ? "\r\n" : "", w->device, *etag ? "If-None-Match: " : "", etag,
		 *etag ? "\r\n" : "");
	return text;
}

static int ask(struct http_world *w, const char *text)
{
	int fd = dial(w);
	put(fd, text);
	take(w, fd);
	close(fd);
	return status(w);
}

static char *learn_etag(struct http_world *w, char *etag)
{
	assert_int_equal(ask(w, request(w, "/v1/config", w->token, "")), 200);
	return strcpy(etag, header(w, "ETag"));
}

static void turn_until_waiting(struct http_world *w, unsigned n)
{
	uint64_t deadline = sp_loop_refresh(w->loop) + 10000000;
	while (con_endpoint_waiting(w->e) != n && sp_loop_now_us(w->loop) < deadline)
		turn(w);
	assert_int_equal(con_endpoint_waiting(w->e), n);
}

// ---- in order ----

static void a_config_comes_with_an_etag_and_then_304(void **state)
{
	struct http_world w;
	char etag[64];
	(void)state;
	make(&w);
	learn_etag(&w, etag);
	struct sp_fleet_client *f = world_open(&w.f, body(&w), strlen(body(&w)));
	assert_int_equal(f->n_exits, 8);
	assert_true(f->pass_len > 0);
	sp_fleet_client_free(f);
	assert_int_equal(ask(&w, request(&w, "/v1/config", w.token, etag)), 304);
	assert_string_equal(body(&w), "");
	assert_string_equal(header(&w, "ETag"), etag);
	char weak[80];
	snprintf(weak, sizeof(weak), "\"x\", W/%s", etag);
	assert_int_equal(ask(&w, request(&w, "/v1/config", w.token, weak)), 304);
	assert_int_equal(ask(&w, request(&w, "/v1/config", w.token, "\"x\"")), 200);
	drop(&w);
}

static void one_connection_serves_many_requests(void **state)
{
	struct http_world w;
	char etag[64], text[4096];
	(void)state;
	make(&w);
	learn_etag(&w, etag);
	int fd = dial(&w);
	for (int i = 0; i < 20; i++) {
		put(fd, request(&w, "/v1/config", w.token, etag));
		assert_true(take(&w, fd));
		assert_int_equal(status(&w), 304);
	}
	// Several at once, and a last one.
	snprintf(text, sizeof(text), "\r\n%s", request(&w, "/v1/config", w.token, etag));
	put(fd, text);
	put(fd, text);
	put(fd, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /");
	assert_true(ends(&w, fd));
	const char *second = strstr(w.got + 1, "HTTP/1.1 304");
	assert_non_null(second);
	const char *third = strstr(w.got + 1, "HTTP/1.1 404");
	assert_true(third > second);
	assert_null(strstr(third + 1, "HTTP/1.1"));
	close(fd);
	drop(&w);
}

static void a_long_poll_is_woken_by_its_own_change_only(void **state)
{
	struct http_world w;
	char etag[64];
	(void)state;
	make(&w);
	learn_etag(&w, etag);
	int fd = dial(&w);
	put(fd, request(&w, "/v1/config?wait=50", w.token, etag));
	turn_until_waiting(&w, 1);
	// Somebody else's change.
	struct sp_changes c = {0};
	json_t *o = json_pack("{s:s}", "tier", "free");
	assert_int_equal(sp_changes_add(&c, "user/zoe", o), 0);
	json_decref(o);
	assert_int_equal(sp_state_apply(w.f.state, &c), 0);
	con_endpoint_changed(w.e, &c);
	sp_changes_done(&c);
	for (int i = 0; i < 5; i++)
		turn(&w);
	assert_int_equal(con_endpoint_waiting(w.e), 1);
	assert_int_equal(con_endpoint_counters(w.e)->woken, 0);
	// And its own.
	w.down = "n2/0";
	con_endpoint_judge(w.e);
	assert_true(take(&w, fd));
	assert_int_equal(status(&w), 200);
	assert_string_not_equal(header(&w, "ETag"), etag);
	struct sp_fleet_client *f = world_open(&w.f, body(&w), strlen(body(&w)));
	assert_int_equal(f->n_exits, 7);
	sp_fleet_client_free(f);
	assert_int_equal(con_endpoint_waiting(w.e), 0);
	// The connection goes on.
	put(fd, request(&w, "/v1/config", w.token, ""));
	assert_true(take(&w, fd));
	assert_int_equal(status(&w), 200);
	close(fd);
	drop(&w);
}

static void a_long_poll_ends_in_time(void **state)
{
	struct http_world w;
	char etag[64];
	(void)state;
	make(&w);
	learn_etag(&w, etag);
	uint64_t before = sp_loop_refresh(w.loop);
	assert_int_equal(ask(&w, request(&w, "/v1/config?wait=1", w.token, etag)), 304);
	uint64_t took = sp_loop_refresh(w.loop) - before;
	assert_in_range(took, 900000, 5000000);
	assert_string_equal(header(&w, "ETag"), etag);
	drop(&w);
}

static void a_revoked_token_ends_its_long_poll(void **state)
{
	struct http_world w;
	struct sp_state_entry entry;
	struct sp_changes c = {0};
	char etag[64];
	size_t at = 0;
	(void)state;
	make(&w);
	learn_etag(&w, etag);
	int fd = dial(&w);
	put(fd, request(&w, "/v1/config?wait=50", w.token, etag));
	turn_until_waiting(&w, 1);
	assert_true(sp_state_next(w.f.state, "token/", &at, &entry));
	assert_int_equal(sp_changes_add(&c, entry.key, NULL), 0);
	assert_int_equal(sp_state_apply(w.f.state, &c), 0);
	con_endpoint_changed(w.e, &c);
	sp_changes_done(&c);
	assert_true(take(&w, fd));
	assert_int_equal(status(&w), 404);
	close(fd);
	drop(&w);
}

static void a_client_that_leaves_while_it_waits_is_seen(void **state)
{
	struct http_world w;
	char etag[64];
	(void)state;
	make(&w);
	learn_etag(&w, etag);
	int fd = dial(&w), other = dial(&w);
	put(fd, request(&w, "/v1/config?wait=50", w.token, etag));
	put(other, request(&w, "/v1/config?wait=50", w.token, etag));
	turn_until_waiting(&w, 2);
	close(fd);
	turn_until_waiting(&w, 1);
	assert_int_equal(con_http_held(con_endpoint_http(w.e)), 1);
	struct linger now = {1, 0};
	setsockopt(other, SOL_SOCKET, SO_LINGER, &now, sizeof(now));
	close(other);
	turn_until_waiting(&w, 0);
	drop(&w);
}

static void without_an_exit_to_offer_the_client_is_told_to_come_back(void **state)
{
	struct http_world w;
	(void)state;
	make(&w);
	w.down = "*";
	con_endpoint_judge(w.e);
	assert_int_equal(ask(&w, request(&w, "/v1/config", w.token, "")), 503);
	assert_string_equal(header(&w, "Retry-After"), "5");
	drop(&w);
}

static void a_nonce_is_answered_with_proof_and_address(void **state)
{
	static const char nonce[] = "00112233445566778899aabbccddeeff";
	struct http_world w;
	char proof[SP_PROOF_TEXT_MAX];
	(void)state;
	make(&w);
	assert_int_equal(ask(&w, "GET /v1/probe/00112233445566778899aabbccddeeff "
				 "HTTP/1.1\r\nHost: a\r\n\r\n"),
			 204);
	assert_string_equal(header(&w, SP_PROOF_PEER), "127.0.0.1");
	snprintf(proof, sizeof(proof), "%s", header(&w, SP_PROOF_HEADER));
	assert_int_equal(sp_proof_check(&w.f.keys, nonce, "127.0.0.1", proof), 0);
	assert_int_equal(ask(&w, "GET /v1/probe/0011 HTTP/1.1\r\nHost: a\r\n\r\n"), 404);
	drop(&w);
}

// ---- strangers ----

// What can be told apart of an answer: all but the date.
static char *fingerprint(struct http_world *w, const char *text, char *buf, size_t cap)
{
	ask(w, text);
	char *date = strstr(w->got, "Date: ");
	assert_non_null(date);
	memset(date, '-', strcspn(date, "\r"));
	assert_true(strlen(w->got) < cap);
	return strcpy(buf, w->got);
}

static void strangers_cannot_tell_a_good_path_from_a_bad_one(void **state)
{
	struct http_world w;
	char want[2048], got[2048], expired[CON_TOKEN_TEXT_MAX], text[2100];
	(void)state;
	prepare(&w);
	world_token(&w.f, "ann", 1, expired);
	begin(&w);
	fingerprint(&w, "GET / HTTP/1.1\r\nHost: a\r\n\r\n", want, sizeof(want));
	assert_int_equal(status(&w), 404);
	const char *const tokens[] = {NULL, "", "spt_x", expired,
				      "spt_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"};
	const char *const paths[] = {"/v1/config", "/v1/config?wait=50", "/v1/probe/x",
				     "/v1/",       "/robots.txt",        "*"};
	for (size_t t = 0; t < sizeof(tokens) / sizeof(tokens[0]); t++)
		for (size_t p = 0; p < sizeof(paths) / sizeof(paths[0]); p++)
			assert_string_equal(
				fingerprint(&w, request(&w, paths[p], tokens[t], "\"x\""),
					    got, sizeof(got)),
				want);
	// Path tricks do not open a door to the good token either, nor do other methods.
	const char *const tricks[] = {
		"//v1/config",        "/v1/config/",         "/v1/./config",
		"/v1/x/../config",    "/v1/config;",         "/v1/%63onfig",
		"/V1/config",         "/v1/config%00",       "/v1\\config",
		"http://a/v1/config", "/v1/config/../config"};
	for (size_t i = 0; i < sizeof(tricks) / sizeof(tricks[0]); i++)
		assert_string_equal(fingerprint(&w, request(&w, tricks[i], w.token, ""),
						got, sizeof(got)),
				    want);
	snprintf(text, sizeof(text), "DELETE%s",
		 request(&w, "/v1/config", w.token, "") + 3);
	assert_string_equal(fingerprint(&w, text, got, sizeof(got)), want);
	assert_int_equal(con_endpoint_counters(w.e)->fresh, 0);
	drop(&w);
}

static void scheme_names_are_taken_in_any_case_and_two_tokens_are_none(void **state)
{
	struct http_world w;
	char text[1024];
	(void)state;
	make(&w);
	snprintf(text, sizeof(text),
		 "GET /v1/config HTTP/1.1\r\nHost: a\r\nauthorization: bearer %s\r\n\r\n",
		 w.token);
	assert_int_equal(ask(&w, text), 200);
	snprintf(text, sizeof(text),
		 "GET /v1/config HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer %s\r\n"
		 "Authorization: Bearer x\r\n\r\n",
		 w.token);
	assert_int_equal(ask(&w, text), 404);
	drop(&w);
}

// ---- hostile ----

// Somebody with a good token is served at once, whatever else goes on.
static void check_served(struct http_world *w)
{
	assert_int_equal(ask(w, request(w, "/v1/config", w->token, "")), 200);
}

static void huge_heads_and_nonsense_are_refused(void **state)
{
	struct http_world w;
	static char huge[3 * CON_HTTP_HEAD_BYTES];
	(void)state;
	make(&w);
	memset(huge, 'a', sizeof(huge) - 1);
	memcpy(huge, "GET / HTTP/1.1\r\nX: ", 19);
	int fd = dial(&w);
	(void)!send(fd, huge, sizeof(huge) - 1, MSG_NOSIGNAL);
	assert_true(ends(&w, fd));
	assert_int_equal(status(&w), 431);
	close(fd);
	const char *const bad[] = {"\x16\x03\x01\x02\r\n\r\n", "GET\r\n\r\n",
				   "PRI * HTTP/2.0\r\n\r\n",
				   "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n"};
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		fd = dial(&w);
		put(fd, bad[i]);
		assert_true(ends(&w, fd));
		assert_true(status(&w) == 400 || status(&w) == 505);
		close(fd);
	}
	check_served(&w);
	drop(&w);
}

static void a_body_is_not_waited_for(void **state)
{
	struct http_world w;
	(void)state;
	make(&w);
	int fd = dial(&w);
	put(fd, "POST /v1/config HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
	assert_true(take(&w, fd));
	assert_int_equal(status(&w), 404);
	put(fd, "some of it");
	assert_true(ends(&w, fd));
	close(fd);
	check_served(&w);
	drop(&w);
}

static void slow_heads_are_cut_off_and_counted(void **state)
{
	struct http_world w;
	(void)state;
	prepare(&w);
	w.opt.http.head_ms = 300;
	begin(&w);
	int fd = dial(&w);
	uint64_t began = sp_loop_refresh(w.loop), last = 0;
	ssize_t n = 1;
	char c;
	while (n && sp_loop_now_us(w.loop) < began + 5000000) {
		if (sp_loop_now_us(w.loop) > last + 20000) { // a drop now and then
			(void)!send(fd, "G", 1, MSG_NOSIGNAL);
			last = sp_loop_now_us(w.loop);
		}
		turn(&w);
		n = recv(fd, &c, 1, MSG_DONTWAIT);
		if (n < 0 && errno != EAGAIN)
			n = 0;
	}
	assert_in_range(sp_loop_now_us(w.loop) - began, 280000, 2000000);
	assert_int_equal(con_http_counters(con_endpoint_http(w.e))->head_late, 1);
	close(fd);
	check_served(&w);
	drop(&w);
}

static void idle_connections_make_room_for_new_ones(void **state)
{
	enum { MANY = 300, CAP = 100 };
	struct http_world w;
	char etag[64];
	int fd[MANY];
	(void)state;
	prepare(&w);
	w.opt.http.connections = CAP;
	begin(&w);
	learn_etag(&w, etag);
	int poll = dial(&w);
	put(poll, request(&w, "/v1/config?wait=50", w.token, etag));
	turn_until_waiting(&w, 1);
	for (int i = 0; i < MANY; i++) {
		fd[i] = dial(&w);
		turn(&w);
		assert_true(con_http_connections(con_endpoint_http(w.e)) <= CAP);
	}
	check_served(&w);
	assert_true(con_http_counters(con_endpoint_http(w.e))->evicted >= MANY - CAP);
	// Who waits with a good token was not touched.
	assert_int_equal(con_endpoint_waiting(w.e), 1);
	w.down = "n1/0";
	con_endpoint_judge(w.e);
	assert_true(take(&w, poll));
	assert_int_equal(status(&w), 200);
	for (int i = 0; i < MANY; i++)
		close(fd[i]);
	close(poll);
	drop(&w);
}

static void at_the_limit_the_stalest_waiting_poll_gets_its_answer(void **state)
{
	struct http_world w;
	char etag[64];
	int fd[5];
	(void)state;
	prepare(&w);
	w.opt.http.connections = 4;
	begin(&w);
	learn_etag(&w, etag);
	for (int i = 0; i < 4; i++) {
		fd[i] = dial(&w);
		put(fd[i], request(&w, "/v1/config?wait=50", w.token, etag));
		turn_until_waiting(&w, (unsigned)i + 1);
	}
	fd[4] = dial(&w);
	assert_true(take(&w, fd[0]));
	assert_int_equal(status(&w), 304);
	put(fd[4], request(&w, "/v1/config", w.token, ""));
	assert_true(take(&w, fd[4]));
	assert_int_equal(status(&w), 200);
	assert_int_equal(con_endpoint_waiting(w.e), 3);
	for (int i = 0; i < 5; i++)
		close(fd[i]);
	drop(&w);
}

static void one_address_has_so_many_connections_and_requests(void **state)
{
	struct http_world w;
	int fd[20];
	unsigned ok = 0;
	(void)state;
	prepare(&w);
	w.opt.http.loopback = true;
	w.opt.http.per_address = 5;
	w.opt.http.rate = 1;
	w.opt.http.burst = 40;
	begin(&w);
	for (int i = 0; i < 20; i++) {
		fd[i] = dial(&w);
		turn(&w);
		turn(&w);
		assert_true(con_http_connections(con_endpoint_http(w.e)) <= 5);
	}
	for (int i = 0; i < 20; i++)
		close(fd[i]);
	int s;
	while ((s = ask(&w, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")) == 404)
		assert_true(ok++ < 20);
	assert_int_equal(s, 429);
	assert_string_not_equal(header(&w, "Retry-After"), "");
	// With the good token too: the answer says nothing of it.
	s = ask(&w, request(&w, "/v1/config", w.token, ""));
	assert_int_equal(s, 429);
	// Who goes on regardless is not answered any more.
	while ((s = ask(&w, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")) == 429)
		assert_true(ok++ < 60);
	assert_int_equal(s, 0);
	assert_true(con_http_counters(con_endpoint_http(w.e))->over_rate > 0);
	drop(&w);
}

static void one_token_asks_so_often_and_is_told_when_to_come_back(void **state)
{
	struct http_world w;
	char other[CON_TOKEN_TEXT_MAX];
	(void)state;
	prepare(&w);
	world_token(&w.f, "bob", 0, other);
	w.opt.clients.token_rate = 1;
	w.opt.clients.token_burst = 3;
	begin(&w);
	for (int i = 0; i < 3; i++)
		check_served(&w);
	assert_int_equal(ask(&w, request(&w, "/v1/config", w.token, "")), 429);
	assert_string_equal(header(&w, "Retry-After"), "10");
	assert_int_equal(ask(&w, request(&w, "/v1/config", other, "")), 200);
	drop(&w);
}

static void answers_nobody_reads_are_bounded(void **state)
{
	struct http_world w;
	enum { READERS = 10, REQUESTS = 400 };
	int fd[READERS], small = 2048;
	uint64_t busy = 0;
	(void)state;
	prepare(&w);
	w.opt.http.out_bytes = 6000;
	w.opt.http.write_ms = 300;
	w.opt.clients.token_rate = 0;
	begin(&w);
	const struct con_http_counters *n = con_http_counters(con_endpoint_http(w.e));
	const char *text = request(&w, "/v1/config", w.token, "");
	for (int i = 0; i < READERS; i++) {
		fd[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
		setsockopt(fd[i], SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
		dial_with(&w, fd[i]);
		for (int k = 0; k < REQUESTS; k++) {
			(void)!send(fd[i], text, strlen(text),
				    MSG_NOSIGNAL | MSG_DONTWAIT);
			turn(&w);
		}
	}
	uint64_t deadline = sp_loop_refresh(w.loop) + 10000000;
	while (con_http_connections(con_endpoint_http(w.e)) &&
	       sp_loop_now_us(w.loop) < deadline)
		turn(&w);
	// Those whose answers were not taken in time are gone, and there were few bytes.
	assert_int_equal(con_http_connections(con_endpoint_http(w.e)), 0);
	for (int i = 0; i < CON_HTTP_STATUSES; i++)
		busy += con_http_status[i] == 503 ? n->answers[i] : 0;
	assert_int_equal(n->accepted, READERS);
	assert_true(n->unread > 0);
	assert_true(busy > 0);
	for (int i = 0; i < READERS; i++)
		close(fd[i]);
	drop(&w);
}

// ---- many ----

static void thousands_of_waiting_polls_are_woken_at_once(void **state)
{
	enum { MANY = 5000 };
	struct http_world w;
	struct rlimit r;
	char etag[64], token[CON_TOKEN_TEXT_MAX];
	(void)state;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &r), 0);
	r.rlim_cur = r.rlim_max < 16384 ? r.rlim_max : 16384;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &r), 0);
	unsigned many = r.rlim_cur >= 2 * MANY + 600 ? MANY : (unsigned)r.rlim_cur / 3;
	int *fd = calloc(many, sizeof(*fd));
	prepare(&w);
	w.opt.clients.token_rate = 0;
	begin(&w);
	for (unsigned i = 0; i < many; i++) {
		if (i % 50 == 0) {
			world_token(&w.f, i % 100 ? "ann" : "bob", 0, token);
			int s = ask(&w, request(&w, "/v1/config", token, ""));
			assert_int_equal(s, 200);
			strcpy(etag, header(&w, "ETag"));
		}
		fd[i] = dial(&w);
		put(fd[i], request(&w, "/v1/config?wait=55", token, etag));
		turn(&w);
	}
	turn_until_waiting(&w, many);
	uint64_t began = sp_loop_refresh(w.loop), longest = 0;
	w.down = "n0/0";
	con_endpoint_judge(w.e);
	while (con_endpoint_waiting(w.e)) {
		uint64_t before = sp_loop_refresh(w.loop);
		turn(&w);
		uint64_t took = sp_loop_refresh(w.loop) - before;
		longest = took > longest ? took : longest;
	}
	printf("# %u polls woken in %llu ms, the longest turn %llu us\n", many,
	       (unsigned long long)(sp_loop_now_us(w.loop) - began) / 1000,
	       (unsigned long long)longest);
	assert_int_equal(con_endpoint_counters(w.e)->woken, many);
	for (unsigned i = 0; i < many; i++) {
		assert_true(take(&w, fd[i]));
		assert_int_equal(status(&w), 200);
		close(fd[i]);
	}
	free(fd);
	drop(&w);
}

// ---- TLS ----

static void tls_serves_the_same(void **state)
{
	struct http_world w;
	struct tls_files files;
	char why[300];
	SSL_CTX *server;
	(void)state;
	prepare(&w);
	tls_files_make(&files);
	assert_int_equal(
		con_http_tls_new("/nowhere", files.key, &server, why, sizeof(why)),
		SP_E_CONFIG);
	assert_non_null(strstr(why, "certificate /nowhere"));
	assert_int_equal(
		con_http_tls_new(files.cert, files.key, &server, why, sizeof(why)), 0);
	w.opt.tls = server;
	begin(&w);
	SSL_CTX_free(server);
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	SSL *ssl = SSL_new(ctx);
	int fd = dial(&w), n = 0;
	assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
	SSL_set_fd(ssl, fd);
	while ((n = SSL_connect(ssl)) != 1) {
		assert_true(SSL_get_error(ssl, n) == SSL_ERROR_WANT_READ);
		turn(&w);
	}
	for (int i = 0; i < 3; i++) {
		const char *text = request(&w, "/v1/config", w.token, "");
		assert_int_equal(SSL_write(ssl, text, (int)strlen(text)), strlen(text));
		size_t len = 0;
		w.got[0] = '\0';
		while (!strstr(w.got, "]}\n")) {
			n = SSL_read(ssl, w.got + len, (int)(sizeof(w.got) - 1 - len));
			if (n <= 0)
				assert_int_equal(SSL_get_error(ssl, n),
						 SSL_ERROR_WANT_READ);
			len += n > 0 ? (size_t)n : 0;
			w.got[len] = '\0';
			turn(&w);
		}
		assert_int_equal(status(&w), 200);
		sp_fleet_client_free(world_open(&w.f, body(&w), strlen(body(&w))));
	}
	SSL_free(ssl);
	SSL_CTX_free(ctx);
	close(fd);
	// Plain HTTP on the same port is not.
	fd = dial(&w);
	put(fd, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
	assert_true(ends(&w, fd));
	assert_null(strstr(w.got, "HTTP/1.1"));
	assert_int_equal(con_http_counters(con_endpoint_http(w.e))->tls_failed, 1);
	close(fd);
	tls_files_remove(&files);
	drop(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_config_comes_with_an_etag_and_then_304),
		cmocka_unit_test(one_connection_serves_many_requests),
		cmocka_unit_test(a_long_poll_is_woken_by_its_own_change_only),
		cmocka_unit_test(a_long_poll_ends_in_time),
		cmocka_unit_test(a_revoked_token_ends_its_long_poll),
		cmocka_unit_test(a_client_that_leaves_while_it_waits_is_seen),
		cmocka_unit_test(
			without_an_exit_to_offer_the_client_is_told_to_come_back),
		cmocka_unit_test(a_nonce_is_answered_with_proof_and_address),
		cmocka_unit_test(strangers_cannot_tell_a_good_path_from_a_bad_one),
		cmocka_unit_test(
			scheme_names_are_taken_in_any_case_and_two_tokens_are_none),
		cmocka_unit_test(huge_heads_and_nonsense_are_refused),
		cmocka_unit_test(a_body_is_not_waited_for),
		cmocka_unit_test(slow_heads_are_cut_off_and_counted),
		cmocka_unit_test(idle_connections_make_room_for_new_ones),
		cmocka_unit_test(at_the_limit_the_stalest_waiting_poll_gets_its_answer),
		cmocka_unit_test(one_address_has_so_many_connections_and_requests),
		cmocka_unit_test(one_token_asks_so_often_and_is_told_when_to_come_back),
		cmocka_unit_test(answers_nobody_reads_are_bounded),
		cmocka_unit_test(thousands_of_waiting_polls_are_woken_at_once),
		cmocka_unit_test(tls_serves_the_same),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
