// Simulated workers of `make scale`: their control links only, many in one process, with
// the real protocol, real ZeroMQ and CURVE: enrol, hello, snapshot, revisions, acks,
// telemetry. One replica serves all of them, since they hold the same bytes: each worker
// compares what it got with what the replica verified (--verify each: every worker
// verifies for itself, which real ones do on machines of their own).
//
// usage: fleetsim TOKENS [--verify each] [--telemetry MS]
//   TOKENS lines "NAME/N ENROL-TOKEN"; keys are made here
// Commands on standard input, one JSON line of answer each:
//   enrol                      joins every worker that has a token
//   start N                    the first N workers connect, all at once; answers when all
//                              are at the controller's head
//   wait SEQUENCE              answers when all are there: times from issue to apply
//   reconnect                  all links are cut and come back at once; answers as start
//   cpu                        CPU seconds of this process
// End of input ends it.
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include <sodium.h>
#include <zmq.h>

#include "lib/enroltoken.h"
#include "lib/loop.h"
#include "lib/replica.h"
#include "lib/text.h"
#include "proto/fleet.pb-c.h"
#include "tests/bench/benchlib.h"

enum { ENROL_AT_ONCE = 64, TURN_MAX = 64, HEARTBEAT_MS = 5000, LINE_MAX_BYTES = 4096 };

struct sim;

struct worker {
	struct sim *sim;
	unsigned index;
	char name[96], token[1024];
	uint8_t public_key[32], secret_key[32];
	bool has_key, started, there;
	uint64_t boot;
	struct sp_position at;
	void *sub, *dealer, *enrol;
	struct event ev_sub, ev_dealer, ev_enrol;
	bool welcome, fetching;
};

struct sim {
	struct sp_loop *loop;
	void *zmq;
	struct event input;
	struct sp_timer telemetry;
	uint32_t telemetry_ms;
	bool verify_each;

	// of the controller, from the first token
	char router[SP_BUS_ENDPOINT_MAX], publisher[SP_BUS_ENDPOINT_MAX],
		enrol[SP_BUS_ENDPOINT_MAX];
	uint8_t controller_key[32];

	struct sp_replica replica;
	struct blob { // what the replica verified, by sequence
		uint64_t sequence, issued_ms;
		uint8_t *bytes;
		size_t len;
	} seen[64];
	uint64_t head;

	struct worker *w;
	unsigned n, enrolling, joined, started, there;
	uint64_t began_us, wait_for;
	enum { IDLE, ENROLLING, STARTING, WAITING } doing;
	double *apply_ms;
	unsigned n_apply;
	uint64_t refused, gaps, snapshots, deltas, errors;
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

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return x < y ? -1 : x > y;
}

static double percentile(struct sim *s, double p)
{
	qsort(s->apply_ms, s->n_apply, sizeof(double), compare);
	return s->n_apply ? s->apply_ms[(unsigned)((s->n_apply - 1) * p)] : 0;
}

static void answer(struct sim *s, const char *what)
{
	double seconds = (double)(sp_loop_refresh(s->loop) - s->began_us) / 1e6;
	printf("{\"done\":\"%s\",\"workers\":%u,\"seconds\":%.6f,\"sequence\":%" PRIu64
	       ",\"apply_p50_ms\":%.3f,\"apply_p99_ms\":%.3f,\"apply_max_ms\":%.3f,"
	       "\"refused\":%" PRIu64 ",\"gaps\":%" PRIu64 ",\"snapshots\":%" PRIu64
	       ",\"deltas\":%" PRIu64 ",\"errors\":%" PRIu64 "}\n",
	       what, s->there, seconds, s->head, percentile(s, 0.5), percentile(s, 0.99),
	       percentile(s, 1), s->refused, s->gaps, s->snapshots, s->deltas, s->errors);
	fflush(stdout);
	s->doing = IDLE;
	s->n_apply = 0;
}

// ---- sockets ----

static void *make_socket(struct sim *s, int type, const struct worker *w,
			 const char *endpoint)
{
	int zero = 0, hwm = 10000, beat = HEARTBEAT_MS;
	void *sock = zmq_socket(s->zmq, type);
	if (!sock)
		die("zmq_socket", zmq_strerror(errno));
	if (zmq_setsockopt(sock, ZMQ_LINGER, &zero, sizeof(zero)) ||
	    zmq_setsockopt(sock, ZMQ_SNDHWM, &hwm, sizeof(hwm)) ||
	    zmq_setsockopt(sock, ZMQ_RCVHWM, &hwm, sizeof(hwm)) ||
	    zmq_setsockopt(sock, ZMQ_HEARTBEAT_IVL, &beat, sizeof(beat)) ||
	    zmq_setsockopt(sock, ZMQ_CURVE_SERVERKEY, s->controller_key, 32) ||
	    zmq_setsockopt(sock, ZMQ_CURVE_PUBLICKEY, w->public_key, 32) ||
	    zmq_setsockopt(sock, ZMQ_CURVE_SECRETKEY, w->secret_key, 32))
		die("zmq_setsockopt", zmq_strerror(errno));
	if (type == ZMQ_SUB && (zmq_setsockopt(sock, ZMQ_SUBSCRIBE, "R", 1) ||
				zmq_setsockopt(sock, ZMQ_SUBSCRIBE, "D", 1)))
		die("subscribe", zmq_strerror(errno));
	if (zmq_connect(sock, endpoint))
		die(endpoint, zmq_strerror(errno));
	return sock;
}

static void watch(struct worker *w, void *sock, struct event *ev, event_callback_fn fn)
{
	int fd;
	size_t len = sizeof(fd);
	if (zmq_getsockopt(sock, ZMQ_FD, &fd, &len) ||
	    event_assign(ev, sp_loop_base(w->sim->loop), fd, EV_READ | EV_PERSIST, fn,
			 w) ||
	    event_add(ev, NULL))
		die("watch", zmq_strerror(errno));
	event_active(ev, EV_READ, 0); // the descriptor tells changes only
}

static void close_socket(void **sock, struct event *ev)
{
	if (!*sock)
		return;
	event_del(ev);
	zmq_close(*sock);
	*sock = NULL;
}

static void send_body(struct worker *w, void *sock, Sallyport__Fleet__ToController *m)
{
	m->version = 1;
	size_t len = sallyport__fleet__to_controller__get_packed_size(m);
	zmq_msg_t msg;
	if (zmq_msg_init_size(&msg, len))
		die("zmq_msg_init_size", zmq_strerror(errno));
	sallyport__fleet__to_controller__pack(m, zmq_msg_data(&msg));
	if (zmq_msg_send(&msg, sock, ZMQ_DONTWAIT) < 0) {
		w->sim->errors++;
		zmq_msg_close(&msg);
	}
	// A send may have taken the edge of what came meanwhile.
	if (sock == w->dealer)
		event_active(&w->ev_dealer, EV_READ, 0);
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
	m.static_key.data = w->public_key;
	m.static_key.len = sizeof(w->public_key);
	m.home_id = w->boot;
	send_body(w, w->dealer,
		  &TO_CONTROLLER(SALLYPORT__FLEET__TO_CONTROLLER__BODY_HELLO, hello, &m));
}

static void send_fetch(struct worker *w)
{
	Sallyport__Fleet__Position at = position(&w->at);
	Sallyport__Fleet__Fetch m = SALLYPORT__FLEET__FETCH__INIT;
	if (w->fetching)
		return;
	w->fetching = true;
	m.applied = &at;
	send_body(w, w->dealer,
		  &TO_CONTROLLER(SALLYPORT__FLEET__TO_CONTROLLER__BODY_FETCH, fetch, &m));
}

static void send_ack(struct worker *w)
{
	Sallyport__Fleet__Position at = position(&w->at);
	Sallyport__Fleet__Ack m = SALLYPORT__FLEET__ACK__INIT;
	m.position = &at;
	m.state.data = (uint8_t *)(uintptr_t)sp_state_hash(w->sim->replica.state);
	m.state.len = SP_STATE_HASH_BYTES;
	send_body(w, w->dealer,
		  &TO_CONTROLLER(SALLYPORT__FLEET__TO_CONTROLLER__BODY_ACK, ack, &m));
}

static void send_telemetry(struct worker *w)
{
	Sallyport__Fleet__Position at = position(&w->at);
	Sallyport__Fleet__Telemetry m = SALLYPORT__FLEET__TELEMETRY__INIT;
	m.boot = w->boot;
	m.applied = &at;
	m.ready = true;
	send_body(w, w->dealer,
		  &TO_CONTROLLER(SALLYPORT__FLEET__TO_CONTROLLER__BODY_TELEMETRY,
				 telemetry, &m));
}

// ---- what a worker holds ----

static struct blob *seen(struct sim *s, uint64_t sequence)
{
	struct blob *b = &s->seen[sequence % 64];
	return b->sequence == sequence ? b : NULL;
}

// Once a process: verified, chained and folded.
static int into_replica(struct sim *s, const void *text, size_t len, bool snapshot)
{
	struct sp_staged st = {0};
	int err = snapshot ? sp_replica_stage_snapshot(&s->replica, text, len, &st)
			   : sp_replica_stage_revision(&s->replica, text, len, &st);
	if (err)
		return err;
	sp_replica_take(&s->replica, &st);
	s->head = s->replica.position.sequence;
	return 0;
}

static void arrive(struct worker *w, const struct sp_position *at, uint64_t issued_ms)
{
	struct sim *s = w->sim;
	w->at = *at;
	w->fetching = false;
	send_ack(w);
	if (issued_ms && s->doing == WAITING && at->sequence == s->wait_for &&
	    s->n_apply < s->n)
		s->apply_ms[s->n_apply++] = (double)(unix_ms() - issued_ms);
	bool there = at->sequence >= s->head;
	if (there && !w->there)
		s->there++;
	w->there = there;
	if (s->doing == STARTING && s->there == s->started)
		answer(s, "start");
	if (s->doing == WAITING && s->n_apply == s->started)
		answer(s, "wait");
}

// One revision for one worker. False: it does not follow what the worker has.
static bool take_revision(struct worker *w, const void *text, size_t len)
{
	struct sim *s = w->sim;
	struct sp_revision r;
	struct blob *b = seen(s, w->at.sequence + 1);
	bool known = b && b->len == len && memcmp(b->bytes, text, len) == 0;
	if (known && !s->verify_each) {
		struct sp_position at = s->replica.position;
		if (b->sequence != at.sequence)
			return false; // others are further on: fetch
		arrive(w, &at, b->issued_ms);
		return true;
	}
	if (sp_revision_open(&s->replica.keys, text, len, &r)) {
		s->errors++;
		return false;
	}
	struct sp_position at = r.position;
	uint64_t issued = r.issued_ms;
	bool next = at.sequence == w->at.sequence + 1 &&
		    memcmp(r.previous, w->at.hash, sizeof(w->at.hash)) == 0;
	sp_revision_done(&r);
	if (at.sequence <= w->at.sequence)
		return true;
	if (!known && into_replica(s, text, len, false) == 0) {
		b = &s->seen[at.sequence % 64];
		free(b->bytes);
		*b = (struct blob){at.sequence, issued, malloc(len), len};
		if (!b->bytes)
			die("memory", "none");
		memcpy(b->bytes, text, len);
		for (unsigned i = 0; i < s->n; i++)
			s->w[i].there = false;
		s->there = 0;
	}
	if (!next || at.sequence != s->head)
		return false;
	arrive(w, &at, issued);
	return true;
}

static void take_snapshot(struct worker *w, const void *text, size_t len)
{
	struct sim *s = w->sim;
	struct sp_state *state = NULL;
	struct sp_position at;
	w->fetching = false;
	s->snapshots++;
	if (s->verify_each || !s->replica.state) {
		if (sp_snapshot_open(&s->replica.keys, text, len, &state, &at)) {
			s->errors++;
			return;
		}
		sp_state_free(state);
		(void)into_replica(s, text, len, true);
	}
	// Shared: the newest that anybody here has.
	arrive(w, &s->replica.position, 0);
}

static void on_message(struct worker *w, const void *data, size_t len)
{
	struct sim *s = w->sim;
	Sallyport__Fleet__FromController *m =
		sallyport__fleet__from_controller__unpack(NULL, len, data);
	if (!m) {
		s->errors++;
		return;
	}
	switch (m->body_case) {
	case SALLYPORT__FLEET__FROM_CONTROLLER__BODY_WELCOME:
		w->welcome = true;
		if (m->welcome->head && m->welcome->head->sequence > w->at.sequence)
			send_fetch(w);
		else
			arrive(w, &w->at, 0);
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
		s->refused++;
		break;
	default:
		break;
	}
	sallyport__fleet__from_controller__free_unpacked(m, NULL);
}

// ---- sockets' events ----

// Up to TURN_MAX messages; the last frame of each goes to `take`, with the first.
static void drain(struct worker *w, void **sock, struct event *ev,
		  void (*take)(struct worker *w, const char *topic, const void *data,
			       size_t len))
{
	for (int i = 0; i < TURN_MAX && *sock; i++) {
		zmq_msg_t part, last;
		char topic = 0;
		bool more = true, first = true;
		zmq_msg_init(&last);
		while (more) {
			zmq_msg_init(&part);
			if (zmq_msg_recv(&part, *sock, ZMQ_DONTWAIT) < 0) {
				zmq_msg_close(&part);
				zmq_msg_close(&last);
				return;
			}
			if (first && zmq_msg_size(&part) == 1)
				topic = *(const char *)zmq_msg_data(&part);
			first = false;
			more = zmq_msg_more(&part);
			zmq_msg_move(&last, &part);
			zmq_msg_close(&part);
		}
		take(w, &topic, zmq_msg_data(&last), zmq_msg_size(&last));
		zmq_msg_close(&last);
	}
	if (*sock)
		event_active(ev, EV_READ, 0);
}

static void take_published(struct worker *w, const char *topic, const void *data,
			   size_t len)
{
	if (*topic == 'R') {
		if (w->welcome && !take_revision(w, data, len)) {
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
	if (w->welcome && d->head && d->head->sequence > w->at.sequence) {
		w->sim->gaps++;
		send_fetch(w);
	}
	sallyport__fleet__digest__free_unpacked(d, NULL);
}

static void take_answer(struct worker *w, const char *topic, const void *data, size_t len)
{
	(void)topic;
	on_message(w, data, len);
}

static void on_sub(evutil_socket_t fd, short what, void *arg)
{
	struct worker *w = arg;
	(void)fd;
	(void)what;
	drain(w, &w->sub, &w->ev_sub, take_published);
}

static void on_dealer(evutil_socket_t fd, short what, void *arg)
{
	struct worker *w = arg;
	(void)fd;
	(void)what;
	drain(w, &w->dealer, &w->ev_dealer, take_answer);
}

// ---- joining ----

static void enrol(struct worker *w);

// Each is a change of the fleet, of which so many may wait.
static void enrol_some(struct sim *s)
{
	while (s->enrolling < s->n && s->enrolling < s->joined + ENROL_AT_ONCE)
		enrol(&s->w[s->enrolling++]);
}

static void take_enrolled(struct worker *w, const char *topic, const void *data,
			  size_t len)
{
	struct sim *s = w->sim;
	Sallyport__Fleet__FromController *m =
		sallyport__fleet__from_controller__unpack(NULL, len, data);
	(void)topic;
	if (!m || m->body_case != SALLYPORT__FLEET__FROM_CONTROLLER__BODY_ENROL)
		die(w->name,
		    m && m->body_case == SALLYPORT__FLEET__FROM_CONTROLLER__BODY_REFUSED
			    ? m->refused->reason
			    : "an answer that is none");
	Sallyport__Fleet__EnrolAnswer *a = m->enrol;
	if (*a->reason)
		die(w->name, a->reason);
	for (size_t i = 0; i < a->n_signing_keys; i++)
		if (a->signing_keys[i].len == 32 &&
		    sp_signed_keys_add(&s->replica.keys, a->signing_keys[i].data))
			die(w->name, "a bad signing key");
	sallyport__fleet__from_controller__free_unpacked(m, NULL);
	w->has_key = true;
	close_socket(&w->enrol, &w->ev_enrol);
	if (++s->joined == s->n)
		answer(s, "enrol");
	else
		enrol_some(s);
}

static void on_enrol(evutil_socket_t fd, short what, void *arg)
{
	struct worker *w = arg;
	(void)fd;
	(void)what;
	drain(w, &w->enrol, &w->ev_enrol, take_enrolled);
}

static void enrol(struct worker *w)
{
	struct sim *s = w->sim;
	char program[] = "sallyport-worker (simulated)";
	Sallyport__Fleet__Enrol m = SALLYPORT__FLEET__ENROL__INIT;
	randombytes_buf(w->secret_key, 32);
	crypto_scalarmult_base(w->public_key, w->secret_key);
	w->enrol = make_socket(s, ZMQ_DEALER, w, s->enrol);
	watch(w, w->enrol, &w->ev_enrol, on_enrol);
	m.token = w->token;
	m.node = w->name;
	m.control_key.data = m.static_key.data = w->public_key;
	m.control_key.len = m.static_key.len = 32;
	m.program = program;
	send_body(w, w->enrol,
		  &TO_CONTROLLER(SALLYPORT__FLEET__TO_CONTROLLER__BODY_ENROL, enrol, &m));
}

// ---- commands ----

static void connect_one(struct worker *w)
{
	struct sim *s = w->sim;
	randombytes_buf(&w->boot, sizeof(w->boot));
	w->welcome = w->fetching = w->there = false;
	w->started = true;
	w->sub = make_socket(s, ZMQ_SUB, w, s->publisher);
	w->dealer = make_socket(s, ZMQ_DEALER, w, s->router);
	watch(w, w->sub, &w->ev_sub, on_sub);
	watch(w, w->dealer, &w->ev_dealer, on_dealer);
	send_hello(w);
}

static void start(struct sim *s, unsigned n)
{
	s->doing = STARTING;
	for (; s->started < n && s->started < s->n; s->started++)
		connect_one(&s->w[s->started]);
}

static void reconnect(struct sim *s)
{
	unsigned n = s->started;
	for (unsigned i = 0; i < n; i++) {
		close_socket(&s->w[i].sub, &s->w[i].ev_sub);
		close_socket(&s->w[i].dealer, &s->w[i].ev_dealer);
	}
	s->started = s->there = 0;
	start(s, n);
}

static void enrol_all(struct sim *s)
{
	s->doing = ENROLLING;
	enrol_some(s);
}

static void command(struct sim *s, const char *line)
{
	s->began_us = sp_loop_refresh(s->loop);
	s->n_apply = 0;
	if (strcmp(line, "enrol") == 0) {
		enrol_all(s);
	} else if (strncmp(line, "start ", 6) == 0) {
		start(s, (unsigned)strtoul(line + 6, NULL, 10));
	} else if (strcmp(line, "reconnect") == 0) {
		reconnect(s);
	} else if (strncmp(line, "wait ", 5) == 0) {
		s->doing = WAITING;
		s->wait_for = strtoull(line + 5, NULL, 10);
		printf("{\"done\":\"ready\"}\n");
		fflush(stdout);
	} else if (strcmp(line, "cpu") == 0) {
		struct rusage ru;
		getrusage(RUSAGE_SELF, &ru);
		printf("{\"done\":\"cpu\",\"seconds\":%.6f}\n",
		       (double)(ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) +
			       (double)(ru.ru_utime.tv_usec + ru.ru_stime.tv_usec) / 1e6);
		fflush(stdout);
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

static void on_telemetry(void *arg)
{
	struct sim *s = arg;
	for (unsigned i = 0; i < s->started; i++)
		if (s->w[i].welcome)
			send_telemetry(&s->w[i]);
	sp_timer_set(&s->telemetry,
		     sp_loop_now_us(s->loop) + (uint64_t)s->telemetry_ms * 1000);
}

// ---- start ----

// Where the controller is.
static void read_token(struct sim *s, const char *token)
{
	struct sp_enroltoken t;
	char why[160];
	if (sp_enroltoken_parse(token, strlen(token), &t, why, sizeof(why)))
		die("token", why);
	snprintf(s->enrol, sizeof(s->enrol), "%s", t.enrol);
	snprintf(s->router, sizeof(s->router), "%s", t.router);
	snprintf(s->publisher, sizeof(s->publisher), "%s", t.publisher);
	memcpy(s->controller_key, t.controller_key, 32);
}

static void read_keys(struct sim *s, const char *path)
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
		*w = (struct worker){.sim = s, .index = s->n};
		if (sscanf(line, "%95s %1023s", w->name, w->token) != 2)
			die(path, "a line without two words");
		if (s->n++ == 0)
			read_token(s, w->token);
	}
	fclose(f);
	s->apply_ms = calloc(s->n ? s->n : 1, sizeof(double));
	if (!s->n || !s->apply_ms)
		die(path, "no worker");
}

int main(int argc, char **argv)
{
	struct sim s = {.telemetry_ms = 1000};
	for (int i = 2; i < argc; i++) {
		if (strcmp(argv[i], "--verify") == 0 && i + 1 < argc)
			s.verify_each = strcmp(argv[++i], "each") == 0;
		else if (strcmp(argv[i], "--telemetry") == 0 && i + 1 < argc)
			s.telemetry_ms = (uint32_t)bl_number(argv[++i], 3600000, "ms");
		else
			die("unknown option", argv[i]);
	}
	if (argc < 2 || sodium_init() < 0 || sp_loop_new(&s.loop))
		die("usage", "fleetsim KEYS; see its source");
	(void)bl_raise_nofile();
	read_keys(&s, argv[1]);
	s.zmq = zmq_ctx_new();
	if (!s.zmq || zmq_ctx_set(s.zmq, ZMQ_MAX_SOCKETS, (int)(8 * s.n + 64)))
		die("zmq_ctx_new", zmq_strerror(errno));
	if (event_assign(&s.input, sp_loop_base(s.loop), 0, EV_READ | EV_PERSIST,
			 on_input, &s) ||
	    event_add(&s.input, NULL))
		die("standard input", "no event");
	sp_timer_init(&s.telemetry, s.loop, on_telemetry, &s);
	if (s.telemetry_ms)
		sp_timer_set(&s.telemetry, sp_loop_now_us(s.loop) + 1000000);
	int err = sp_loop_run(s.loop);
	_exit(err ? 1 : 0); // thousands of sockets are not worth an orderly end
}
