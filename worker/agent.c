#include "worker/agent.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sysexits.h>
#include <unistd.h>

#include <sodium.h>

#include "lib/file.h"
#include "lib/key.h"

#define PROTOCOL   1
#define BATCH      64
#define KIND_USAGE 1 // the lowest bits of a call say whose it is
#define KIND_ASKED 2
#define KINDS      4

static const Sallyport__Local__ExitHello *hello_of(const struct agt_agent *a)
{
	return a->hello->hello;
}

// ---- to a controller ----

static int send_controller(void *ctx, Sallyport__Fleet__ToController *m)
{
	struct agt_agent *a = ctx;
	m->version = PROTOCOL;
	size_t len = sallyport__fleet__to_controller__get_packed_size(m);
	uint8_t *buf = malloc(len ? len : 1);
	if (!buf)
		return -ENOMEM;
	sallyport__fleet__to_controller__pack(m, buf);
	int err = sp_bus_client_send(a->bus, buf, len);
	free(buf);
	return err;
}

static void send_hello(struct agt_agent *a)
{
	const Sallyport__Local__ExitHello *from = hello_of(a);
	Sallyport__Fleet__ToController m = SALLYPORT__FLEET__TO_CONTROLLER__INIT;
	Sallyport__Fleet__Hello h = SALLYPORT__FLEET__HELLO__INIT;
	Sallyport__Fleet__Position at;
	agt_control_put_position(agt_control_position(a->control), &at);
	h.version_min = h.version_max = PROTOCOL;
	h.boot = from->boot;
	h.applied = &at;
	h.program = from->program;
	h.n_bound = from->n_bound;
	h.bound = from->bound;
	h.static_key = from->static_key;
	h.home_id = from->home_id;
	m.body_case = SALLYPORT__FLEET__TO_CONTROLLER__BODY_HELLO;
	m.hello = &h;
	if (send_controller(a, &m))
		sp_warn("agent", "hello was not sent", "");
}

static void send_telemetry(struct agt_agent *a)
{
	Sallyport__Fleet__ToController m = SALLYPORT__FLEET__TO_CONTROLLER__INIT;
	Sallyport__Fleet__Telemetry t = SALLYPORT__FLEET__TELEMETRY__INIT;
	Sallyport__Fleet__Position at;
	struct wrk_counters_reader *r = agt_usage_current(a->usage);
	if (!r || !a->version)
		return;
	agt_control_put_position(agt_control_position(a->control), &at);
	t.boot = hello_of(a)->boot;
	t.applied = &at;
	t.sessions = (uint32_t)r->gauge[WRK_GAUGE_SESSIONS];
	t.streams = (uint32_t)r->gauge[WRK_GAUGE_STREAMS];
	t.flows = (uint32_t)r->gauge[WRK_GAUGE_FLOWS];
	t.draining = a->exit_draining;
	// Of one writing: that it drains may be newer than what is counted.
	t.empty = t.draining && r->gauge[WRK_GAUGE_DRAINING] && !t.streams && !t.flows;
	t.ready = a->exit_ready && agt_beat_age_ms(a) <= AGT_HUNG_MS;
	t.sessions_made = r->gauge[WRK_GAUGE_SESSIONS_MADE];
	t.sessions_refused = r->gauge[WRK_GAUGE_SESSIONS_REFUSED];
	t.sessions_adopted = r->gauge[WRK_GAUGE_SESSIONS_ADOPTED];
	t.streams_opened = r->gauge[WRK_GAUGE_STREAMS_OPENED];
	t.dial_failures = r->gauge[WRK_GAUGE_DIAL_FAILURES];
	t.bytes_up = r->gauge[WRK_GAUGE_BYTES_UP];
	t.bytes_down = r->gauge[WRK_GAUGE_BYTES_DOWN];
	t.disk_errors = agt_control_disk_errors(a->control);
	m.body_case = SALLYPORT__FLEET__TO_CONTROLLER__BODY_TELEMETRY;
	m.telemetry = &t;
	(void)send_controller(a, &m);
}

// ---- to the exit ----

static int send_exit(struct agt_agent *a, Sallyport__Local__FromAgent *m, int fd)
{
	return a->sock < 0 ? -ENOTCONN : wrk_local_send(a->sock, &m->base, fd);
}

static int offer(void *ctx, uint64_t call, const char *json, size_t len,
		 const struct sp_position *position)
{
	struct agt_agent *a = ctx;
	Sallyport__Local__FromAgent m = SALLYPORT__LOCAL__FROM_AGENT__INIT;
	Sallyport__Local__ConfigOffer o = SALLYPORT__LOCAL__CONFIG_OFFER__INIT;
	Sallyport__Fleet__Position at;
	int fd = wrk_local_memfd("config", json, len);
	if (fd < 0)
		return fd;
	agt_control_put_position(position, &at);
	o.position = &at;
	m.call = call;
	m.body_case = SALLYPORT__LOCAL__FROM_AGENT__BODY_CONFIG;
	m.config = &o;
	int err = send_exit(a, &m, fd);
	close(fd);
	return err;
}

static int members(void *ctx, const char *json, size_t len)
{
	Sallyport__Local__FromAgent m = SALLYPORT__LOCAL__FROM_AGENT__INIT;
	Sallyport__Local__Members list = SALLYPORT__LOCAL__MEMBERS__INIT;
	int fd = wrk_local_memfd("members", json, len);
	if (fd < 0)
		return fd;
	m.body_case = SALLYPORT__LOCAL__FROM_AGENT__BODY_MEMBERS;
	m.members = &list;
	int err = send_exit(ctx, &m, fd);
	close(fd);
	return err;
}

static void lease(void *ctx, bool drain, uint64_t until_ms)
{
	struct agt_agent *a = ctx;
	Sallyport__Local__FromAgent m = SALLYPORT__LOCAL__FROM_AGENT__INIT;
	Sallyport__Local__Drain d = SALLYPORT__LOCAL__DRAIN__INIT;
	if (drain == a->drain_told && until_ms == a->drain_until_ms)
		return;
	d.on = drain;
	d.deadline_ms = until_ms;
	m.body_case = SALLYPORT__LOCAL__FROM_AGENT__BODY_DRAIN;
	m.drain = &d;
	if (send_exit(a, &m, -1))
		return; // the exit is stuck; at the next look
	a->drain_told = drain;
	a->drain_until_ms = until_ms;
}

static void send_ping(struct agt_agent *a)
{
	Sallyport__Local__FromAgent m = SALLYPORT__LOCAL__FROM_AGENT__INIT;
	Sallyport__Local__Ping p = SALLYPORT__LOCAL__PING__INIT;
	m.body_case = SALLYPORT__LOCAL__FROM_AGENT__BODY_PING;
	m.ping = &p;
	(void)send_exit(a, &m, -1);
}

static const struct agt_control_ops control_ops = {
	.send = send_controller, .offer = offer, .members = members, .lease = lease};

// ---- usage ----

static int report(void *ctx, uint64_t call, Sallyport__Fleet__UsageReport *r)
{
	Sallyport__Fleet__ToController m = SALLYPORT__FLEET__TO_CONTROLLER__INIT;
	m.call = call * KINDS + KIND_USAGE;
	m.body_case = SALLYPORT__FLEET__TO_CONTROLLER__BODY_USAGE;
	m.usage = r;
	return send_controller(ctx, &m);
}

static void quota(void *ctx, Sallyport__Local__Quota *q)
{
	Sallyport__Local__FromAgent m = SALLYPORT__LOCAL__FROM_AGENT__INIT;
	m.body_case = SALLYPORT__LOCAL__FROM_AGENT__BODY_QUOTA;
	m.quota = q;
	(void)send_exit(ctx, &m, -1);
}

static void final_is_known(void *ctx, uint64_t boot)
{
	struct agt_agent *a = ctx;
	Sallyport__Local__FromAgent m = SALLYPORT__LOCAL__FROM_AGENT__INIT;
	Sallyport__Local__SegmentDone d = SALLYPORT__LOCAL__SEGMENT_DONE__INIT;
	d.boot = boot;
	m.body_case = SALLYPORT__LOCAL__FROM_AGENT__BODY_SEGMENT_DONE;
	m.segment_done = &d;
	(void)send_exit(a, &m, -1); // the exit is gone: its next start tells us again
	if (a->ending && agt_usage_waiting(a->usage) <= 1)
		sp_loop_stop(a->loop);
}

static const struct agt_usage_ops usage_ops = {
	.report = report, .quota = quota, .done = final_is_known};

// ---- the directory: calls of the exit, answers of a controller ----

static void answer_session(struct agt_agent *a, uint64_t exit_call,
			   Sallyport__Fleet__SessionAnswer *s)
{
	Sallyport__Local__FromAgent m = SALLYPORT__LOCAL__FROM_AGENT__INIT;
	m.call = exit_call;
	m.body_case = SALLYPORT__LOCAL__FROM_AGENT__BODY_SESSION;
	m.session = s;
	(void)send_exit(a, &m, -1);
}

static void answer_unavailable(struct agt_agent *a, uint64_t exit_call)
{
	Sallyport__Fleet__SessionAnswer s = SALLYPORT__FLEET__SESSION_ANSWER__INIT;
	s.result = SALLYPORT__FLEET__SESSION_RESULT__SESSION_UNAVAILABLE;
	a->n.directory_unanswered++;
	if (exit_call)
		answer_session(a, exit_call, &s);
}

static void ask(struct agt_agent *a, uint64_t exit_call,
		Sallyport__Fleet__ToController *m)
{
	if (exit_call) {
		uint64_t call = ++a->calls;
		a->asked[call % AGT_ASKED_MAX] = (struct agt_asked){call, exit_call};
		m->call = call * KINDS + KIND_ASKED;
	}
	if (!a->version || send_controller(a, m))
		answer_unavailable(a, exit_call);
	else
		a->n.directory_calls++;
}

// The exit's call that this answers; 0: none, or answered already.
static uint64_t take_asked(struct agt_agent *a, uint64_t call)
{
	struct agt_asked *q = &a->asked[call / KINDS % AGT_ASKED_MAX];
	if (call % KINDS != KIND_ASKED || q->call != call / KINDS)
		return 0;
	uint64_t exit_call = q->exit_call;
	*q = (struct agt_asked){0};
	return exit_call;
}

// ---- from a controller ----

static void on_welcome(struct agt_agent *a, const Sallyport__Fleet__Welcome *w)
{
	if (w->version != PROTOCOL) {
		sp_error("agent", "no version in common with the controller", "chosen=%u",
			 w->version);
		return;
	}
	a->version = w->version;
	a->n.links++;
	sp_info("agent", "linked to a controller", "server=%u", sp_bus_client_at(a->bus));
	agt_control_up(a->control, w->head);
	agt_usage_set_up(a->usage, true);
	send_telemetry(a);
}

static void on_refused(struct agt_agent *a, uint64_t call,
		       const Sallyport__Fleet__Refused *r)
{
	uint64_t exit_call = take_asked(a, call);
	a->n.refused++;
	sp_warn_limited(&a->refused_log, sp_loop_now_ms(a->loop), "agent",
			"a controller refused", "reason=%s", r->reason);
	if (exit_call)
		answer_unavailable(a, exit_call);
}

static void on_message(void *ctx, const void *data, size_t len)
{
	struct agt_agent *a = ctx;
	Sallyport__Fleet__FromController *m =
		sallyport__fleet__from_controller__unpack(NULL, len, data);
	if (!m) {
		a->n.malformed++;
		return;
	}
	uint64_t exit_call;
	switch (m->body_case) {
	case SALLYPORT__FLEET__FROM_CONTROLLER__BODY_WELCOME:
		on_welcome(a, m->welcome);
		break;
	case SALLYPORT__FLEET__FROM_CONTROLLER__BODY_SNAPSHOT:
		agt_control_on_snapshot(a->control, m->snapshot);
		break;
	case SALLYPORT__FLEET__FROM_CONTROLLER__BODY_REVISIONS:
		agt_control_on_revisions(a->control, m->revisions);
		break;
	case SALLYPORT__FLEET__FROM_CONTROLLER__BODY_USAGE:
		if (m->call % KINDS == KIND_USAGE)
			agt_usage_on_answer(a->usage, m->call / KINDS, m->usage);
		break;
	case SALLYPORT__FLEET__FROM_CONTROLLER__BODY_SESSION:
		exit_call = take_asked(a, m->call);
		if (exit_call)
			answer_session(a, exit_call, m->session);
		break;
	case SALLYPORT__FLEET__FROM_CONTROLLER__BODY_REFUSED:
		on_refused(a, m->call, m->refused);
		break;
	case SALLYPORT__FLEET__FROM_CONTROLLER__BODY_PASS: // a vantage's
	case SALLYPORT__FLEET__FROM_CONTROLLER__BODY_ENROL:
	case SALLYPORT__FLEET__FROM_CONTROLLER__BODY__NOT_SET:
	case _SALLYPORT__FLEET__FROM_CONTROLLER__BODY__CASE_IS_INT_SIZE:
		break; // something newer than we are
	}
	sallyport__fleet__from_controller__free_unpacked(m, NULL);
}

static void on_bus_up(void *ctx, unsigned at)
{
	(void)at;
	send_hello(ctx);
}

static void on_bus_down(void *ctx, unsigned at, const char *why)
{
	struct agt_agent *a = ctx;
	if (a->version)
		a->n.links_lost++;
	a->version = 0;
	sp_warn("agent", "no controller; the config in force goes on", "server=%u why=%s",
		at, why);
	agt_control_down(a->control);
	agt_usage_set_up(a->usage, false);
	if (a->ending)
		sp_loop_stop(a->loop);
}

static void on_published(void *ctx, char topic, const void *data, size_t len)
{
	struct agt_agent *a = ctx;
	agt_control_on_published(a->control, topic, data, len);
}

static const struct sp_bus_client_ops bus_ops = {.up = on_bus_up,
						 .down = on_bus_down,
						 .message = on_message,
						 .published = on_published};

// ---- beginning: all that the exit's hello says ----

static int load_keys(struct agt_agent *a, struct sp_bus_keys *ret)
{
	char path[4200], why[SP_WHY_MAX];
	snprintf(path, sizeof(path), "%s/control.key", hello_of(a)->folder);
	if (sp_key_load(path, SP_KEY_CONTROL, true, ret->secret_key, why, sizeof(why))) {
		sp_error("agent", "no control key", "why=%s", why);
		return SP_E_CONFIG;
	}
	return crypto_scalarmult_base(ret->public_key, ret->secret_key) ? SP_E_CRYPTO : 0;
}

static int start_bus(struct agt_agent *a)
{
	const Sallyport__Local__ExitHello *h = hello_of(a);
	struct sp_bus_address to[SP_BUS_SERVERS_MAX] = {0};
	struct sp_bus_keys keys;
	char why[SP_WHY_MAX];
	unsigned n = 0;
	if (h->n_publisher != h->n_router || h->controller_key.len != SP_BUS_KEY_BYTES)
		return SP_E_PROTOCOL;
	for (; n < h->n_router && n < SP_BUS_SERVERS_MAX; n++) {
		snprintf(to[n].router, sizeof(to[n].router), "%s", h->router[n]);
		snprintf(to[n].publisher, sizeof(to[n].publisher), "%s", h->publisher[n]);
		memcpy(to[n].key, h->controller_key.data, SP_BUS_KEY_BYTES);
	}
	int err = load_keys(a, &keys);
	if (err)
		return err;
	struct sp_bus_client_options o = {.loop = a->loop,
					  .keys = &keys,
					  .servers = to,
					  .n_servers = n,
					  .ops = &bus_ops,
					  .ctx = a};
	err = sp_bus_client_new(&o, &a->bus, why, sizeof(why));
	sodium_memzero(&keys, sizeof(keys));
	if (err)
		sp_error("agent", "no link to controllers", "why=%s error=%s", why,
			 sp_strerror(err));
	return err;
}

static int start_control(struct agt_agent *a)
{
	const Sallyport__Local__ExitHello *h = hello_of(a);
	struct agt_control_options o = {.loop = a->loop,
					.folder = h->folder,
					.worker = h->name,
					.ops = &control_ops,
					.ctx = a};
	for (size_t i = 0; i < h->n_signing_keys; i++)
		if (h->signing_keys[i].len != SP_SIGNED_PUBLIC_BYTES ||
		    sp_signed_keys_add(&o.keys, h->signing_keys[i].data))
			return SP_E_PROTOCOL;
	return agt_control_new(&o, &a->control);
}

static void on_ping(void *ctx)
{
	struct agt_agent *a = ctx;
	send_ping(a);
	send_telemetry(a);
	sp_timer_set(&a->ping, sp_loop_now_us(a->loop) + UINT64_C(1000) * AGT_PING_MS);
}

static int begin(struct agt_agent *a)
{
	const Sallyport__Local__ExitHello *h = hello_of(a);
	sp_log_setup(h->log_level <= SP_LOG_ERROR ? (enum sp_log_level)h->log_level
						  : SP_LOG_INFO,
		     h->log_format == SP_LOG_JSON ? SP_LOG_JSON : SP_LOG_LOGFMT, 2);
	int err = agt_usage_new(a->loop, &usage_ops, a, &a->usage);
	if (!err)
		err = start_control(a);
	if (err)
		return err;
	// First what needs nobody.
	agt_control_begin(a->control);
	agt_metrics_serve(a);
	err = start_bus(a);
	if (err)
		return err;
	sp_timer_set(&a->ping, sp_loop_now_us(a->loop));
	return 0;
}

// ---- from the exit ----

static void on_directory(struct agt_agent *a, const Sallyport__Local__FromExit *m)
{
	Sallyport__Fleet__ToController to = SALLYPORT__FLEET__TO_CONTROLLER__INIT;
	if (m->body_case == SALLYPORT__LOCAL__FROM_EXIT__BODY_SESSION_PUT) {
		to.body_case = SALLYPORT__FLEET__TO_CONTROLLER__BODY_SESSION_PUT;
		to.session_put = m->session_put;
	} else if (m->body_case == SALLYPORT__LOCAL__FROM_EXIT__BODY_SESSION_ADOPT) {
		to.body_case = SALLYPORT__FLEET__TO_CONTROLLER__BODY_SESSION_ADOPT;
		to.session_adopt = m->session_adopt;
	} else {
		to.body_case = SALLYPORT__FLEET__TO_CONTROLLER__BODY_SESSION_DROP;
		to.session_drop = m->session_drop;
	}
	ask(a, m->call, &to);
}

// `*fd` is -1 if it was kept.
static void on_packet(struct agt_agent *a, const Sallyport__Local__FromExit *m, int *fd)
{
	switch (m->body_case) {
	case SALLYPORT__LOCAL__FROM_EXIT__BODY_CONFIG:
		agt_control_result(a->control, m->call, m->config->reason);
		break;
	case SALLYPORT__LOCAL__FROM_EXIT__BODY_SESSION_PUT:
	case SALLYPORT__LOCAL__FROM_EXIT__BODY_SESSION_ADOPT:
	case SALLYPORT__LOCAL__FROM_EXIT__BODY_SESSION_DROP:
		on_directory(a, m);
		break;
	case SALLYPORT__LOCAL__FROM_EXIT__BODY_STATE:
		a->exit_ready = m->state->ready;
		a->exit_draining = m->state->draining;
		break;
	case SALLYPORT__LOCAL__FROM_EXIT__BODY_SEGMENT:
		if (*fd >= 0)
			agt_usage_add(a->usage, m->segment->boot, m->segment->ended, *fd);
		*fd = -1;
		break;
	case SALLYPORT__LOCAL__FROM_EXIT__BODY_HELLO: // a second one
	case SALLYPORT__LOCAL__FROM_EXIT__BODY__NOT_SET:
	case _SALLYPORT__LOCAL__FROM_EXIT__BODY__CASE_IS_INT_SIZE:
		a->n.malformed++;
		break;
	}
}

static void on_end(void *ctx)
{
	struct agt_agent *a = ctx;
	sp_loop_stop(a->loop);
}

// The exit is gone. Its totals are final; a controller should have them.
static void end(struct agt_agent *a)
{
	event_del(&a->readable);
	close(a->sock);
	a->sock = -1;
	a->ending = true;
	sp_admin_free(a->admin); // the next agent listens there
	a->admin = NULL;
	if (!a->hello || !a->version) {
		sp_loop_stop(a->loop);
		return;
	}
	sp_timer_done(&a->ping);
	sp_timer_set(&a->end, sp_loop_now_us(a->loop) + UINT64_C(1000) * AGT_END_MS);
	agt_usage_end(a->usage);
	if (!agt_usage_waiting(a->usage))
		sp_loop_stop(a->loop);
}

static void take_packet(struct agt_agent *a, size_t len, int fd)
{
	Sallyport__Local__FromExit *m =
		sallyport__local__from_exit__unpack(NULL, len, a->buf);
	if (!m) {
		a->n.malformed++;
	} else if (a->hello) {
		on_packet(a, m, &fd);
	} else if (m->body_case == SALLYPORT__LOCAL__FROM_EXIT__BODY_HELLO) {
		a->hello = m;
		m = NULL;
		if (begin(a))
			sp_loop_stop(a->loop);
	}
	if (m)
		sallyport__local__from_exit__free_unpacked(m, NULL);
	if (fd >= 0)
		close(fd);
}

static void on_readable(evutil_socket_t sock, short what, void *arg)
{
	struct agt_agent *a = arg;
	(void)sock;
	(void)what;
	(void)sp_loop_now_us(a->loop);
	for (int i = 0; i < BATCH; i++) {
		int fd = -1;
		ssize_t n = wrk_local_receive(a->sock, a->buf, &fd);
		if (n == -EAGAIN)
			return;
		if (n == SP_E_LIMIT) {
			a->n.malformed++;
			continue;
		}
		if (n <= 0) {
			end(a);
			return;
		}
		take_packet(a, (size_t)n, fd);
	}
}

// ---- the process ----

// False: it could not become that user; it must not go on as root.
static bool become(const char *user)
{
	if (!user || geteuid() != 0)
		return true;
	struct passwd *pw = getpwnam(user);
	if (!pw || initgroups(user, pw->pw_gid) || setgid(pw->pw_gid) ||
	    setuid(pw->pw_uid) || (pw->pw_uid && setuid(0) == 0)) {
		sp_error("agent", "cannot become its user", "key=agent.user user=%s",
			 user);
		return false;
	}
	return true;
}

// Signals are the exit's: it goes on for a while after TERM, and so do we. If it is gone
// while we are stopped, we go on, see its end, and end.
static void prepare(void)
{
	static const int ignored[] = {SIGTERM, SIGINT, SIGHUP, SIGPIPE};
	struct rlimit none = {0};
	for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
		signal(ignored[i], SIG_IGN);
	(void)setrlimit(RLIMIT_CORE, &none);
	(void)prctl(PR_SET_DUMPABLE, 0);
	(void)prctl(PR_SET_PDEATHSIG, SIGCONT);
	(void)prctl(PR_SET_NAME, "sallyport-agent");
}

static void agent_free(struct agt_agent *a)
{
	sp_bus_client_free(a->bus);
	sp_admin_free(a->admin);
	agt_control_free(a->control);
	agt_usage_free(a->usage);
	sp_timer_done(&a->ping);
	sp_timer_done(&a->end);
	if (a->sock >= 0) {
		event_del(&a->readable);
		close(a->sock);
	}
	if (a->hello)
		sallyport__local__from_exit__free_unpacked(a->hello, NULL);
	sp_loop_free(a->loop);
	free(a);
}

int agt_main(int argc, char **argv)
{
	static const struct option options[] = {{"user", required_argument, NULL, 'u'},
						{0}};
	const char *user = NULL;
	int c;
	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		if (c != 'u')
			return EX_USAGE;
		user = optarg;
	}
	if (fcntl(AGT_LINK_FD, F_SETFD, FD_CLOEXEC)) {
		fputs("sallyport-worker agent: only the worker starts it\n", stderr);
		return EX_USAGE;
	}
	if (!become(user))
		return EX_NOPERM;
	prepare();
	struct agt_agent *a = calloc(1, sizeof(*a));
	if (!a || sp_loop_new(&a->loop)) {
		free(a);
		return EX_OSERR;
	}
	a->sock = AGT_LINK_FD;
	a->refused_log = (struct sp_ratelimit){.per_second = 1, .burst = 5};
	sp_timer_init(&a->ping, a->loop, on_ping, a);
	sp_timer_init(&a->end, a->loop, on_end, a);
	event_assign(&a->readable, sp_loop_base(a->loop), a->sock, EV_READ | EV_PERSIST,
		     on_readable, a);
	int err = event_add(&a->readable, NULL) ? -ENOMEM : sp_loop_run(a->loop);
	bool good = !err && a->ending;
	agent_free(a);
	return good ? EX_OK : EX_SOFTWARE;
}
