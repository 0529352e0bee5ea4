// Simulated workers of `make scale`: their control links only, many in one process, over
// the links that real agents use (lib/bus.h: ZeroMQ, CURVE, their way to come back):
// enrol, hello, snapshot, revisions, acks, telemetry. One replica serves all of them,
// since they hold the same bytes: what it verified once is compared, not verified again
// by each, which real ones do on machines of their own.
//
// usage: fleetsim TOKENS [--telemetry MS]
//   TOKENS lines "NAME/N ENROL-TOKEN"; keys are made here
// Commands on standard input, JSON lines as answers ({"done":WORD,…}):
//   enrol            joins every worker that has a token; a line each second meanwhile
//   start N          the first N workers connect, all at once; answers when all are at
//                    the controller's head
//   wait SEQUENCE    "ready" at once; again when all are there: times from issue to apply
//   cut              all links are cut at once, as by a network that fails; answers when
//                    all are back at the head
//   herd             "ready" at once; then the controller is expected to go and to come
//                    back: answers when all have gone and are at its head again
//   at SEQUENCE      (within herd) its head is there or further
// End of input ends it.
#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <sodium.h>
#include <zmq.h>

#include "lib/bus.h"
#include "lib/enroltoken.h"
#include "lib/loop.h"
#include "lib/replica.h"
#include "lib/text.h"
#include "proto/fleet.pb-c.h"
#include "tests/bench/benchlib.h"

#define LINE_MAX_BYTES 4096
#define ENROL_AT_ONCE  64
#define ENROL_AGAIN_US UINT64_C(5000000) // without an answer
#define SEEN           64                // revisions that are remembered
#define SLICES         50                // of a period, in each of which some report
#define SIGNATURE_END  200 // bytes at both ends of a snapshot that tell it from others

struct sim;

struct worker {
	struct sim *sim;
	char name[96], token[1024];
	struct sp_bus_keys keys;
	uint64_t boot;
	struct sp_bus_client *bus, *enrol;
	struct sp_position at;
	bool joined, welcome, fetching, there;
	bool went;                    // since the herd began
	uint64_t asked_us, back_us;   // to join; when it came back
	struct worker *next_to_close; // its enrolment is over
	bool to_close;
};

struct known { // a revision that was verified
	struct sp_position at;
	uint64_t issued_ms;
	uint8_t previous[SP_REVISION_HASH_BYTES], state[SP_STATE_HASH_BYTES];
	uint8_t *bytes;
	size_t len;
};

struct sim {
	struct sp_loop *loop;
	void *zmq;
	struct event input;
	struct sp_timer telemetry;
	struct sp_deferred close;
	struct worker *to_close;
	uint32_t telemetry_ms, slice;
	struct sp_bus_address controller, enrol; // from the first token

	struct sp_replica replica;
	struct known known[SEEN];
	struct known snapshot; // the last one
	uint64_t head;         // the newest that anybody spoke of

	struct worker *w;
	unsigned n, enrolling, joined, started, there;
	uint64_t began_us, wait_for;
	enum { IDLE, ENROLLING, STARTING, WAITING, HERD } doing;
	unsigned *took_ms; // of workers, in the order of coming
	unsigned n_took;
	uint64_t refused, lost, gaps, snapshots, deltas, errors;
	char line[LINE_MAX_BYTES];
	size_t line_len;
};

static void die(const char *what, const char *why)
{
	fprintf(stderr, "fleetsim: %s: %s\n", what, why);
	exit(1);
}

static uint64_t unix_ms(void)
{
	struct timespec ts;
	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static double cpu_seconds(void)
{
	struct rusage ru;
	getrusage(RUSAGE_SELF, &ru);
	return (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) +
	       (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6;
}

static void answer(struct sim *s, const char *what)
{
	double seconds = (double)(sp_loop_refresh(s->loop) - s->began_us) / 1e6;
	printf("{\"done\":\"%s\",\"workers\":%u,\"joined\":%u,\"seconds\":%.6f,"
	       "\"sequence\":%" PRIu64 ",\"refused\":%" PRIu64 ",\"lost\":%" PRIu64
	       ",\"gaps\":%" PRIu64 ",\"snapshots\":%" PRIu64 ",\"deltas\":%" PRIu64
	       ",\"errors\":%" PRIu64 ",\"cpu\":%.6f,\"took_ms\":[",
	       what, s->there, s->joined, seconds, s->head, s->refused, s->lost, s->gaps,
	       s->snapshots, s->deltas, s->errors, cpu_seconds());
	for (unsigned i = 0; i < s->n_took; i++)
		printf("%s%u", i ? "," : "", s->took_ms[i]);
	printf("]}\n");
	fflush(stdout);
}

static void finish(struct sim *s, const char *what)
{
	answer(s, what);
	s->doing = IDLE;
	s->n_took = 0;
}

static void took(struct sim *s, uint64_t ms)
{
	if (s->n_took < s->n)
		s->took_ms[s->n_took++] = (unsigned)ms;
}

// ---- what a worker says ----

static void send_body(struct sp_bus_client *bus, Sallyport__Fleet__ToController *m,
		      struct sim *s)
{
	uint8_t buf[4096];
	m->version = 1;
	size_t len = sallyport__fleet__to_controller__get_packed_size(m);
	if (len > sizeof(buf))
		die("a message", "too long");
	sallyport__fleet__to_controller__pack(m, buf);
	s->errors += sp_bus_client_send(bus, buf, len) != 0;
}

static Sallyport__Fleet__Position position(const struct sp_position *p)
{
	Sallyport__Fleet__Position m = SALLYPORT__FLEET__POSITION__INIT;
	m.epoch = p->epoch;
	m.sequence = p->sequence;
	m.hash.data = (uint8_t *)(uintptr_t)p->hash;
	m.hash.len = p->sequence ? sizeof(p->hash) : 0;
	return m;
}

#define TO_CONTROLLER(kind_, field_, ptr_)                                               \
	(Sallyport__Fleet__ToController)                                                 \
	{                                                                                \
		PROTOBUF_C_MESSAGE_INIT(&sallyport__fleet__to_controller__descriptor),   \
			.body_case = kind_, .field_ = ptr_                               \
	}

static void send_hello(struct worker *w)
{
	char bound[] = "tcp 127.0.0.1:1", *bounds[] = {bound};
	char program[] = "sallyport-worker (simulated)";
	Sallyport__Fleet__Position at = position(&w->at);
	Sallyport__Fleet__Hello m = SALLYPORT__FLEET__HELLO__INIT;
	m.version_min = m.version_max = 1;
	m.boot = w->boot;
	m.applied = &at;
	m.program = program;
	m.bound = bounds;
	m.n_bound = 1;
	m.static_key.data = w->keys.public_key;
	m.static_key.len = sizeof(w->keys.public_key);
	m.home_id = w->boot;
	send_body(w->bus,
		  &TO_CONTROLLER(SALLYPORT__FLEET__TO_CONTROLLER__BODY_HELLO, hello, &m),
		  w->sim);
}

static void send_fetch(struct worker *w)
{
	Sallyport__Fleet__Position at = position(&w->at);
	Sallyport__Fleet__Fetch m = SALLYPORT__FLEET__FETCH__INIT;
	if (w->fetching || !w->welcome)
		return;
	w->fetching = true;
	m.applied = &at;
	send_body(w->bus,
		  &TO_CONTROLLER(SALLYPORT__FLEET__TO_CONTROLLER__BODY_FETCH, fetch, &m),
		  w->sim);
}

static void send_ack(struct worker *w, const uint8_t *state)
{
	Sallyport__Fleet__Position at = position(&w->at);
	Sallyport__Fleet__Ack m = SALLYPORT__FLEET__ACK__INIT;
	m.position = &at;
	m.state.data = (uint8_t *)(uintptr_t)state;
	m.state.len = SP_STATE_HASH_BYTES;
	send_body(w->bus,
		  &TO_CONTROLLER(SALLYPORT__FLEET__TO_CONTROLLER__BODY_ACK, ack, &m),
		  w->sim);
}

static void send_telemetry(struct worker *w)
{
	Sallyport__Fleet__Position at = position(&w->at);
	Sallyport__Fleet__Telemetry m = SALLYPORT__FLEET__TELEMETRY__INIT;
	m.boot = w->boot;
	m.applied = &at;
	m.ready = true;
	send_body(w->bus,
		  &TO_CONTROLLER(SALLYPORT__FLEET__TO_CONTROLLER__BODY_TELEMETRY,
				 telemetry, &m),
		  w->sim);
}

// ---- where the workers are ----

static void look_whether_all_are_there(struct sim *s)
{
	if (s->doing == STARTING && s->there == s->started)
		finish(s, "start");
	else if (s->doing == WAITING && s->n_took == s->started)
		finish(s, "wait");
	else if (s->doing == HERD && s->there == s->started && s->n_took == s->started)
		finish(s, "herd");
}

static void set_there(struct worker *w, bool there)
{
	w->sim->there += (unsigned)there - (unsigned)w->there;
	w->there = there;
}

static void raise_head(struct sim *s, uint64_t head)
{
	if (head <= s->head)
		return;
	s->head = head;
	for (unsigned i = 0; i < s->started; i++)
		set_there(&s->w[i], s->w[i].welcome && s->w[i].at.sequence >= head);
}

static void look_where(struct worker *w)
{
	struct sim *s = w->sim;
	set_there(w, w->welcome && w->at.sequence >= s->head);
	// Once for each: the head may rise meanwhile, and then all have to be there.
	if (w->there && s->doing == HERD && w->went && !w->back_us) {
		w->back_us = sp_loop_now_us(s->loop);
		took(s, (w->back_us - s->began_us) / 1000);
	}
	look_whether_all_are_there(s);
}

static void arrive(struct worker *w, const struct known *k)
{
	struct sim *s = w->sim;
	w->at = k->at;
	w->fetching = false;
	send_ack(w, k->state);
	if (k->issued_ms && s->doing == WAITING && k->at.sequence == s->wait_for)
		took(s, unix_ms() - k->issued_ms);
	look_where(w);
}

// ---- what a worker holds ----

static void remember(struct known *k, const void *bytes, size_t len)
{
	free(k->bytes);
	k->len = len;
	k->bytes = malloc(len);
	if (!k->bytes)
		die("memory", "none");
	memcpy(k->bytes, bytes, len);
}

// The revision after that of `at`, if it was verified and is these very bytes.
static struct known *find(struct sim *s, const struct sp_position *at, const void *text,
			  size_t len)
{
	struct known *k = &s->known[(at->sequence + 1) % SEEN];
	return k->at.sequence == at->sequence + 1 && k->len == len &&
			       memcmp(k->previous, at->hash, sizeof(at->hash)) == 0 &&
			       memcmp(k->bytes, text, len) == 0
		       ? k
		       : NULL;
}

static void verify(struct sim *s, const void *text, size_t len)
{
	struct sp_revision r;
	struct sp_staged st = {0};
	if (sp_revision_open(&s->replica.keys, text, len, &r)) {
		s->errors++;
		return;
	}
	if (r.position.sequence == s->replica.position.sequence + 1 &&
	    sp_replica_stage_revision(&s->replica, text, len, &st) == 0)
		sp_replica_take(&s->replica, &st);
	struct known *k = &s->known[r.position.sequence % SEEN];
	remember(k, text, len);
	k->at = r.position;
	k->issued_ms = r.issued_ms;
	memcpy(k->previous, r.previous, sizeof(k->previous));
	memcpy(k->state, r.state, sizeof(k->state));
	raise_head(s, r.position.sequence);
	sp_revision_done(&r);
}

// One revision for one worker. False: it does not follow what the worker has.
static bool take_revision(struct worker *w, const void *text, size_t len)
{
	struct sim *s = w->sim;
	struct known *k = find(s, &w->at, text, len);
	if (!k) {
		const struct known *at = &s->known[w->at.sequence % SEEN];
		if (at->at.sequence == w->at.sequence && at->len == len &&
		    memcmp(at->bytes, text, len) == 0)
			return true; // it has it
		verify(s, text, len);
		k = find(s, &w->at, text, len);
	}
	if (k)
		arrive(w, k);
	return k != NULL;
}

static bool is_same_snapshot(const struct known *k, const uint8_t *text, size_t len)
{
	return k->len == len && len > SIGNATURE_END &&
	       memcmp(k->bytes, text, SIGNATURE_END) == 0 &&
	       memcmp(k->bytes + len - SIGNATURE_END, text + len - SIGNATURE_END,
		      SIGNATURE_END) == 0;
}

static void take_snapshot(struct worker *w, const uint8_t *text, size_t len)
{
	struct sim *s = w->sim;
	struct sp_state *state = NULL;
	struct known *k = &s->snapshot;
	w->fetching = false;
	s->snapshots++;
	if (!is_same_snapshot(k, text, len)) {
		struct sp_staged st = {0};
		if (sp_snapshot_open(&s->replica.keys, text, len, &state, &k->at)) {
			s->errors++;
			return;
		}
		memcpy(k->state, sp_state_hash(state), sizeof(k->state));
		sp_state_free(state);
		remember(k, text, len);
		if (sp_replica_stage_snapshot(&s->replica, text, len, &st) == 0)
			sp_replica_take(&s->replica, &st);
		raise_head(s, k->at.sequence);
	}
	arrive(w, k);
}

static void take_welcome(struct worker *w, const Sallyport__Fleet__Welcome *m)
{
	w->welcome = true;
	raise_head(w->sim, m->head ? m->head->sequence : 0);
	if (w->at.sequence < w->sim->head)
		send_fetch(w);
	look_where(w);
}

static void on_message(void *ctx, const void *data, size_t len)
{
	struct worker *w = ctx;
	struct sim *s = w->sim;
	Sallyport__Fleet__FromController *m =
		sallyport__fleet__from_controller__unpack(NULL, len, data);
	if (!m) {
		s->errors++;
		return;
	}
	switch (m->body_case) {
	case SALLYPORT__FLEET__FROM_CONTROLLER__BODY_WELCOME:
		take_welcome(w, m->welcome);
		break;
	case SALLYPORT__FLEET__FROM_CONTROLLER__BODY_SNAPSHOT:
		take_snapshot(w, m->snapshot->blob.data, m->snapshot->blob.len);
		break;
	case SALLYPORT__FLEET__FROM_CONTROLLER__BODY_REVISIONS:
		w->fetching = false;
		for (size_t i = 0; i < m->revisions->n_blob; i++, s->deltas++)
			(void)take_revision(w, m->revisions->blob[i].data,
					    m->revisions->blob[i].len);
		break;
	case SALLYPORT__FLEET__FROM_CONTROLLER__BODY_REFUSED:
		w->fetching = false; // the next digest asks again
		s->refused++;
		break;
	default:
		break;
	}
	sallyport__fleet__from_controller__free_unpacked(m, NULL);
}

static void on_published(void *ctx, char topic, const void *data, size_t len)
{
	struct worker *w = ctx;
	if (!w->welcome)
		return;
	if (topic == 'R') {
		if (!take_revision(w, data, len)) {
			w->sim->gaps++;
			send_fetch(w);
		}
		return;
	}
	Sallyport__Fleet__Digest *d = sallyport__fleet__digest__unpack(NULL, len, data);
	if (!d) {
		w->sim->errors++;
		return;
	}
	if (d->head && d->head->sequence > w->at.sequence) {
		raise_head(w->sim, d->head->sequence);
		w->sim->gaps++;
		send_fetch(w);
	}
	sallyport__fleet__digest__free_unpacked(d, NULL);
}

// ---- links ----

static void on_up(void *ctx, unsigned at)
{
	(void)at;
	send_hello(ctx);
}

static void on_down(void *ctx, unsigned at, const char *why)
{
	struct worker *w = ctx;
	(void)at;
	(void)why;
	w->sim->lost += w->welcome;
	w->welcome = w->fetching = false;
	w->went = true;
	set_there(w, false);
}

static const struct sp_bus_client_ops fleet_ops = {on_up, on_down, on_message,
						   on_published};

static struct sp_bus_client *make_link(struct worker *w, const struct sp_bus_address *to,
				       const struct sp_bus_client_ops *ops)
{
	struct sp_bus_client *c;
	char why[160];
	const struct sp_bus_client_options o = {.loop = w->sim->loop,
						.keys = &w->keys,
						.servers = to,
						.n_servers = 1,
						.no_publishers = !*to->publisher,
						.zmq = w->sim->zmq,
						.ops = ops,
						.ctx = w};
	if (sp_bus_client_new(&o, &c, why, sizeof(why)))
		die(w->name, why);
	return c;
}

// ---- joining ----

static void ask_to_join(struct worker *w)
{
	char program[] = "sallyport-worker (simulated)";
	Sallyport__Fleet__Enrol m = SALLYPORT__FLEET__ENROL__INIT;
	m.token = w->token;
	m.node = w->name;
	m.control_key.data = m.static_key.data = w->keys.public_key;
	m.control_key.len = m.static_key.len = 32;
	m.program = program;
	w->asked_us = sp_loop_now_us(w->sim->loop);
	send_body(w->enrol,
		  &TO_CONTROLLER(SALLYPORT__FLEET__TO_CONTROLLER__BODY_ENROL, enrol, &m),
		  w->sim);
}

static void on_enrol_up(void *ctx, unsigned at)
{
	(void)at;
	ask_to_join(ctx);
}

static void on_enrol_down(void *ctx, unsigned at, const char *why)
{
	(void)ctx;
	(void)at;
	(void)why; // it tries again by itself
}

static void on_enrolled(void *ctx, const void *data, size_t len)
{
	struct worker *w = ctx;
	struct sim *s = w->sim;
	Sallyport__Fleet__FromController *m =
		sallyport__fleet__from_controller__unpack(NULL, len, data);
	if (!m || m->body_case != SALLYPORT__FLEET__FROM_CONTROLLER__BODY_ENROL)
		die(w->name,
		    m && m->body_case == SALLYPORT__FLEET__FROM_CONTROLLER__BODY_REFUSED
			    ? m->refused->reason
			    : "an answer that is none");
	Sallyport__Fleet__EnrolAnswer *a = m->enrol;
	if (strstr(a->reason, "try again")) { // in five seconds
		sallyport__fleet__from_controller__free_unpacked(m, NULL);
		return;
	}
	if (*a->reason)
		die(w->name, a->reason);
	for (size_t i = 0; i < a->n_signing_keys; i++)
		if (a->signing_keys[i].len == 32 &&
		    sp_signed_keys_add(&s->replica.keys, a->signing_keys[i].data))
			die(w->name, "a bad signing key");
	sallyport__fleet__from_controller__free_unpacked(m, NULL);
	s->joined += !w->joined;
	w->joined = true;
	if (!w->to_close) {
		w->to_close = true;
		w->next_to_close = s->to_close;
		s->to_close = w;
		sp_loop_defer(s->loop, &s->close);
	}
}

static void on_enrol_published(void *ctx, char topic, const void *data, size_t len)
{
	(void)ctx;
	(void)topic;
	(void)data;
	(void)len;
}

static const struct sp_bus_client_ops enrol_ops = {on_enrol_up, on_enrol_down,
						   on_enrolled, on_enrol_published};

static void enrol_some(struct sim *s)
{
	while (s->enrolling < s->n && s->enrolling < s->joined + ENROL_AT_ONCE) {
		struct worker *w = &s->w[s->enrolling++];
		randombytes_buf(w->keys.secret_key, 32);
		crypto_scalarmult_base(w->keys.public_key, w->keys.secret_key);
		w->enrol = make_link(w, &s->enrol, &enrol_ops);
	}
}

static void on_close(struct sp_deferred *d)
{
	struct sim *s = (struct sim *)((char *)d - offsetof(struct sim, close));
	while (s->to_close) {
		struct worker *w = s->to_close;
		s->to_close = w->next_to_close;
		sp_bus_client_free(w->enrol);
		w->enrol = NULL;
	}
	if (s->doing == ENROLLING && s->joined == s->n)
		finish(s, "enrol");
	else
		enrol_some(s);
}

// An answer may have been lost, or it was to be tried again.
static void enrol_again(struct sim *s)
{
	uint64_t now = sp_loop_now_us(s->loop);
	for (unsigned i = 0; i < s->enrolling; i++)
		if (s->w[i].enrol && s->w[i].asked_us &&
		    now > s->w[i].asked_us + ENROL_AGAIN_US &&
		    sp_bus_client_is_up(s->w[i].enrol))
			ask_to_join(&s->w[i]);
}

// ---- commands ----

static void connect_one(struct worker *w)
{
	randombytes_buf(&w->boot, sizeof(w->boot));
	w->welcome = w->fetching = false;
	set_there(w, false);
	w->bus = make_link(w, &w->sim->controller, &fleet_ops);
}

static void start(struct sim *s, unsigned n)
{
	s->doing = STARTING;
	for (; s->started < n && s->started < s->n; s->started++)
		connect_one(&s->w[s->started]);
	look_whether_all_are_there(s);
}

static void expect_herd(struct sim *s)
{
	s->doing = HERD;
	for (unsigned i = 0; i < s->started; i++) {
		s->w[i].went = false;
		s->w[i].back_us = 0;
	}
}

// All TCP connections of this process.
static void cut_links(void)
{
	struct rlimit most;
	struct sockaddr_in peer;
	if (getrlimit(RLIMIT_NOFILE, &most))
		die("getrlimit", strerror(errno));
	for (int fd = 3; fd < (int)most.rlim_cur; fd++) {
		socklen_t len = sizeof(peer);
		if (getpeername(fd, (struct sockaddr *)&peer, &len) == 0 &&
		    peer.sin_family == AF_INET)
			shutdown(fd, SHUT_RDWR);
	}
}

static void command(struct sim *s, const char *line)
{
	if (strncmp(line, "at ", 3) == 0) {
		raise_head(s, strtoull(line + 3, NULL, 10));
		look_whether_all_are_there(s);
		return;
	}
	s->began_us = sp_loop_refresh(s->loop);
	s->n_took = 0;
	if (strcmp(line, "enrol") == 0) {
		s->doing = ENROLLING;
		enrol_some(s);
	} else if (strncmp(line, "start ", 6) == 0) {
		start(s, (unsigned)strtoul(line + 6, NULL, 10));
	} else if (strcmp(line, "cut") == 0) {
		expect_herd(s);
		cut_links();
	} else if (strncmp(line, "wait ", 5) == 0) {
		s->wait_for = strtoull(line + 5, NULL, 10);
		answer(s, "ready");
		s->doing = WAITING;
	} else if (strcmp(line, "herd") == 0) {
		answer(s, "ready");
		expect_herd(s);
	} else {
		die("unknown command", line);
	}
}

static void on_input(evutil_socket_t fd, short what, void *arg)
{
	struct sim *s = arg;
	(void)what;
	ssize_t n = read(fd, s->line + s->line_len, sizeof(s->line) - 1 - s->line_len);
	if (n <= 0) {
		sp_loop_stop(s->loop);
		return;
	}
	s->line_len += (size_t)n;
	s->line[s->line_len] = '\0';
	char *end;
	while ((end = strchr(s->line, '\n'))) {
		*end = '\0';
		command(s, s->line);
		s->line_len -= (size_t)(end + 1 - s->line);
		memmove(s->line, end + 1, s->line_len + 1);
	}
}

// Workers do not report in step: each period is cut in slices.
static void on_telemetry(void *arg)
{
	struct sim *s = arg;
	s->slice = (s->slice + 1) % SLICES;
	for (unsigned i = s->slice; i < s->started; i += SLICES)
		if (s->w[i].welcome)
			send_telemetry(&s->w[i]);
	if (s->doing == ENROLLING && s->slice == 0) {
		enrol_again(s);
		answer(s, "enrolling");
	}
	sp_timer_set(&s->telemetry,
		     sp_loop_now_us(s->loop) + (uint64_t)s->telemetry_ms * 1000 / SLICES);
}

// ---- start ----

// Where the controller is.
static void read_token(struct sim *s, const char *token)
{
	struct sp_enroltoken t;
	char why[160];
	if (sp_enroltoken_parse(token, strlen(token), &t, why, sizeof(why)))
		die("token", why);
	snprintf(s->enrol.router, sizeof(s->enrol.router), "%s", t.enrol);
	snprintf(s->controller.router, sizeof(s->controller.router), "%s", t.router);
	snprintf(s->controller.publisher, sizeof(s->controller.publisher), "%s",
		 t.publisher);
	memcpy(s->enrol.key, t.controller_key, 32);
	memcpy(s->controller.key, t.controller_key, 32);
}

static void read_workers(struct sim *s, const char *path)
{
	char line[LINE_MAX_BYTES];
	unsigned cap = 0;
	FILE *f = fopen(path, "re");
	if (!f)
		die(path, strerror(errno));
	while (fgets(line, sizeof(line), f)) {
		if (s->n == cap) {
			cap = cap ? 2 * cap : 256;
			s->w = realloc(s->w, cap * sizeof(s->w[0]));
			if (!s->w)
				die("memory", "none");
		}
		struct worker *w = &s->w[s->n];
		*w = (struct worker){.sim = s};
		if (sscanf(line, "%95s %1023s", w->name, w->token) != 2)
			die(path, "a line without two words");
		if (s->n++ == 0)
			read_token(s, w->token);
	}
	fclose(f);
	s->took_ms = calloc(s->n ? s->n : 1, sizeof(s->took_ms[0]));
	if (!s->n || !s->took_ms)
		die(path, "no worker");
}

int main(int argc, char **argv)
{
	struct sim s = {.telemetry_ms = 1000};
	for (int i = 2; i < argc; i++) {
		if (strcmp(argv[i], "--telemetry") == 0 && i + 1 < argc)
			s.telemetry_ms = (uint32_t)bl_number(argv[++i], 3600000, "ms");
		else
			die("unknown option", argv[i]);
	}
	if (argc < 2 || sodium_init() < 0 || sp_loop_new(&s.loop))
		die("usage", "fleetsim TOKENS; see its source");
	(void)bl_raise_nofile();
	read_workers(&s, argv[1]);
	s.zmq = zmq_ctx_new();
	// A link is a DEALER, a SUB and two monitors of two sockets each; one that was
	// made anew is there twice for a while.
	if (!s.zmq || zmq_ctx_set(s.zmq, ZMQ_MAX_SOCKETS, (int)(16 * s.n + 1024)))
		die("zmq_ctx_new", zmq_strerror(errno));
	if (event_assign(&s.input, sp_loop_base(s.loop), 0, EV_READ | EV_PERSIST,
			 on_input, &s) ||
	    event_add(&s.input, NULL))
		die("standard input", "no event");
	s.close.run = on_close;
	sp_timer_init(&s.telemetry, s.loop, on_telemetry, &s);
	sp_timer_set(&s.telemetry, sp_loop_now_us(s.loop) + 1000000);
	int err = sp_loop_run(s.loop);
	_exit(err ? 1 : 0); // thousands of sockets are not worth an orderly end
}
