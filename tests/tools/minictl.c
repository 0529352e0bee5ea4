// A controller for tests of agents: the bus, enrolment, a chain of signed revisions, and
// usage, all in memory, driven by lines of JSON on standard input. It writes a line of
// JSON for each message that it gets and for each command. End of input ends it.
//
//   {"put": {KEY: OBJECT | null, ...}}  a revision; published unless muted
//   {"mute": BOOL}                      revisions are not published, only digests
//   {"deaf": BOOL}                      messages are read and not answered
//   {"token": "NAME/N"}                 a token of one use
//   {"quota": {USER: BYTES}}            what each may use in all
//   {"stored": BOOL}                    whether usage is said to be stored
//   {"publish": TEXT}                   this as a revision, whatever it is
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sodium.h>

#include "lib/bus.h"
#include "lib/enroltoken.h"
#include "lib/key.h"
#include "lib/loop.h"
#include "lib/replica.h"
#include "lib/text.h"
#include "proto/fleet.pb-c.h"

#define REVISIONS_MAX 4096
#define PEERS_MAX     16
#define LINE_BYTES    (1 << 20)

struct revision {
	char *text;
	size_t len;
};

static struct {
	struct sp_loop *loop;
	struct sp_bus_server *bus;
	struct sp_bus_keys keys;
	uint8_t sign_pub[32], sign_secret[64], route[32];
	struct sp_state *state;
	struct sp_position head;
	struct revision rev[REVISIONS_MAX];
	size_t n_rev;
	struct {
		uint8_t key[32];
		char name[SP_ENROLTOKEN_NAME_MAX];
	} peers[PEERS_MAX];
	unsigned n_peers;
	json_t *tokens; // secret in hex -> name
	json_t *usage;  // user -> boot -> {up, down}
	json_t *quota;
	bool mute, deaf, unstored;
	struct sp_timer tick;
	struct event input;
	char line[LINE_BYTES];
	size_t line_len;
} x;

static void die(const char *what)
{
	fprintf(stderr, "minictl: %s\n", what);
	exit(1);
}

static void say(json_t *o)
{
	json_dumpf(o, stdout, JSON_COMPACT);
	fputc('\n', stdout);
	fflush(stdout);
	json_decref(o);
}

// ---- sending ----

static void put_head(Sallyport__Fleet__Position *p)
{
	sallyport__fleet__position__init(p);
	p->epoch = x.head.epoch;
	p->sequence = x.head.sequence;
	p->hash = (ProtobufCBinaryData){sizeof(x.head.hash), x.head.hash};
}

static void reply(const struct sp_bus_peer *to, uint64_t call,
		  Sallyport__Fleet__FromController *m)
{
	m->version = 1;
	m->call = call;
	size_t len = sallyport__fleet__from_controller__get_packed_size(m);
	uint8_t *buf = malloc(len);
	sallyport__fleet__from_controller__pack(m, buf);
	if (!x.deaf)
		(void)sp_bus_send(x.bus, to->domain, to->route, to->route_len, buf, len);
	free(buf);
}

static void publish_digest(void)
{
	Sallyport__Fleet__Digest d = SALLYPORT__FLEET__DIGEST__INIT;
	Sallyport__Fleet__Position p;
	uint8_t buf[256];
	put_head(&p);
	d.version = 1;
	d.head = &p;
	d.state = (ProtobufCBinaryData){SP_STATE_HASH_BYTES,
					(uint8_t *)(uintptr_t)sp_state_hash(x.state)};
	d.time_ms = sp_loop_unix_ms(x.loop);
	sp_bus_publish(x.bus, 'D', buf, sallyport__fleet__digest__pack(&d, buf));
}

static void on_tick(void *ctx)
{
	(void)ctx;
	publish_digest();
	sp_timer_set(&x.tick, sp_loop_now_us(x.loop) + 200000);
}

static void on_put(const json_t *entries)
{
	struct sp_changes c = {0};
	const char *key;
	json_t *v;
	char *private = NULL;
	struct revision *r = &x.rev[x.n_rev];
	json_object_foreach((json_t *)(uintptr_t)entries, key, v)
	{
		if (sp_changes_add(&c, key, json_is_null(v) ? NULL : v))
			die(key);
	}
	if (x.n_rev == REVISIONS_MAX || sp_state_apply(x.state, &c) ||
	    sp_revision_sign(&x.head, 1, sp_loop_unix_ms(x.loop), "test", &c, x.state,
			     x.sign_secret, &r->text, &r->len, &private, &x.head))
		die("cannot sign");
	x.n_rev++;
	sp_changes_done(&c);
	free(private);
	if (!x.mute)
		sp_bus_publish(x.bus, 'R', r->text, r->len);
	publish_digest();
	say(json_pack("{s:I}", "sequence", (json_int_t)x.head.sequence));
}

// ---- messages ----

static void on_fetch(const struct sp_bus_peer *from, uint64_t call,
		     const Sallyport__Fleet__Fetch *f)
{
	Sallyport__Fleet__FromController m = SALLYPORT__FLEET__FROM_CONTROLLER__INIT;
	Sallyport__Fleet__Revisions list = SALLYPORT__FLEET__REVISIONS__INIT;
	Sallyport__Fleet__Snapshot whole = SALLYPORT__FLEET__SNAPSHOT__INIT;
	ProtobufCBinaryData blobs[64];
	char *text = NULL;
	size_t len, at = f->applied ? (size_t)f->applied->sequence : 0;
	if (f->snapshot || at > x.n_rev) {
		if (sp_snapshot_sign(&x.head, sp_loop_unix_ms(x.loop), x.state,
				     x.sign_secret, &text, &len))
			die("cannot sign");
		whole.blob = (ProtobufCBinaryData){len, (uint8_t *)text};
		m.body_case = SALLYPORT__FLEET__FROM_CONTROLLER__BODY_SNAPSHOT;
		m.snapshot = &whole;
	} else {
		for (; at < x.n_rev && list.n_blob < 64; at++)
			blobs[list.n_blob++] = (ProtobufCBinaryData){
				x.rev[at].len, (uint8_t *)x.rev[at].text};
		list.blob = blobs;
		m.body_case = SALLYPORT__FLEET__FROM_CONTROLLER__BODY_REVISIONS;
		m.revisions = &list;
	}
	say(json_pack("{s:s,s:b}", "event", "fetch", "snapshot", f->snapshot));
	reply(from, call, &m);
	free(text);
}

static json_int_t used(const char *user)
{
	json_int_t sum = 0;
	const char *boot;
	json_t *v;
	json_object_foreach(json_object_get(x.usage, user), boot, v) sum +=
		json_integer_value(json_object_get(v, "up")) +
		json_integer_value(json_object_get(v, "down"));
	return sum;
}

static void count(uint64_t boot, const Sallyport__Fleet__Usage *u)
{
	char key[32];
	json_t *boots = json_object_get(x.usage, u->user);
	snprintf(key, sizeof(key), "%016llx", (unsigned long long)boot);
	if (!boots)
		json_object_set_new(x.usage, u->user, boots = json_object());
	json_t *old = json_object_get(boots, key);
	if (json_integer_value(json_object_get(old, "up")) > (json_int_t)u->bytes_up ||
	    json_integer_value(json_object_get(old, "down")) > (json_int_t)u->bytes_down)
		return;
	json_object_set_new(boots, key,
			    json_pack("{s:I,s:I}", "up", (json_int_t)u->bytes_up, "down",
				      (json_int_t)u->bytes_down));
}

static void on_usage(const struct sp_bus_peer *from, uint64_t call,
		     const Sallyport__Fleet__UsageReport *r)
{
	Sallyport__Fleet__FromController m = SALLYPORT__FLEET__FROM_CONTROLLER__INIT;
	Sallyport__Fleet__UsageAnswer a = SALLYPORT__FLEET__USAGE_ANSWER__INIT;
	Sallyport__Fleet__QuotaLeft left[512], *list[512];
	for (size_t i = 0; i < r->n_users && i < 512; i++) {
		json_t *quota = json_object_get(x.quota, r->users[i]->user);
		count(r->boot, r->users[i]);
		sallyport__fleet__quota_left__init(&left[i]);
		left[i].user = r->users[i]->user;
		left[i].limited = quota != NULL;
		left[i].bytes = json_integer_value(quota) - used(left[i].user);
		list[a.n_users++] = &left[i];
	}
	a.boot = r->boot;
	a.stored = !x.unstored;
	a.users = list;
	m.body_case = SALLYPORT__FLEET__FROM_CONTROLLER__BODY_USAGE;
	m.usage = &a;
	char boot[32];
	snprintf(boot, sizeof(boot), "%016llx", (unsigned long long)r->boot);
	say(json_pack("{s:s,s:s,s:b,s:O}", "event", "usage", "boot", boot, "final",
		      r->final, "totals", x.usage));
	reply(from, call, &m);
}

static void on_hello(const struct sp_bus_peer *from, const Sallyport__Fleet__Hello *h)
{
	Sallyport__Fleet__FromController m = SALLYPORT__FLEET__FROM_CONTROLLER__INIT;
	Sallyport__Fleet__Welcome w = SALLYPORT__FLEET__WELCOME__INIT;
	Sallyport__Fleet__Position p;
	put_head(&p);
	w.version = 1;
	w.time_ms = sp_loop_unix_ms(x.loop);
	w.head = &p;
	w.route_key = (ProtobufCBinaryData){32, x.route};
	m.body_case = SALLYPORT__FLEET__FROM_CONTROLLER__BODY_WELCOME;
	m.welcome = &w;
	say(json_pack("{s:s,s:s,s:s,s:I,s:i,s:s}", "event", "hello", "peer", from->name,
		      "program", h->program, "applied",
		      (json_int_t)(h->applied ? h->applied->sequence : 0), "bound",
		      (int)h->n_bound, "first", h->n_bound ? h->bound[0] : ""));
	reply(from, 0, &m);
}

static void on_ack(const Sallyport__Fleet__Ack *a)
{
	if (a->refused)
		say(json_pack("{s:s,s:I,s:I,s:s}", "event", "nack", "applied",
			      (json_int_t)a->position->sequence, "refused",
			      (json_int_t)a->refused->sequence, "reason", a->reason));
	else
		say(json_pack("{s:s,s:I,s:b}", "event", "ack", "applied",
			      (json_int_t)a->position->sequence, "same",
			      a->state.len == SP_STATE_HASH_BYTES &&
				      !memcmp(a->state.data, sp_state_hash(x.state),
					      SP_STATE_HASH_BYTES)));
}

static void on_telemetry(const Sallyport__Fleet__Telemetry *t)
{
	say(json_pack("{s:s,s:i,s:i,s:b,s:b,s:I,s:I}", "event", "telemetry", "sessions",
		      (int)t->sessions, "streams", (int)t->streams, "draining",
		      t->draining, "ready", t->ready, "bytes_down",
		      (json_int_t)t->bytes_down, "disk_errors",
		      (json_int_t)t->disk_errors));
}

// A token is good once, also for the same keys.
static const char *judge(const Sallyport__Fleet__Enrol *e, struct sp_enroltoken *t)
{
	char hex[2 * SP_ENROLTOKEN_SECRET_BYTES + 1], why[256];
	if (sp_enroltoken_parse(e->token, strlen(e->token), t, why, sizeof(why)))
		return "not a token of this fleet";
	sp_hex_encode(t->secret, sizeof(t->secret), hex, sizeof(hex));
	const char *name = json_string_value(json_object_get(x.tokens, hex));
	if (!name || strcmp(name, e->node) || x.n_peers == PEERS_MAX)
		return "the token is unknown, used or expired";
	json_object_del(x.tokens, hex);
	return "";
}

static void on_enrol(const struct sp_bus_peer *from, uint64_t call,
		     const Sallyport__Fleet__Enrol *e)
{
	Sallyport__Fleet__FromController m = SALLYPORT__FLEET__FROM_CONTROLLER__INIT;
	Sallyport__Fleet__EnrolAnswer a = SALLYPORT__FLEET__ENROL_ANSWER__INIT;
	Sallyport__Fleet__Position p;
	ProtobufCBinaryData signing = {32, x.sign_pub};
	struct sp_enroltoken t = {0};
	char *router = (char *)(uintptr_t)sp_bus_server_router(x.bus);
	char *publisher = (char *)(uintptr_t)sp_bus_server_publisher(x.bus);
	a.reason = (char *)(uintptr_t)judge(e, &t);
	if (!*a.reason) {
		memcpy(x.peers[x.n_peers].key, e->control_key.data, 32);
		snprintf(x.peers[x.n_peers++].name, sizeof(x.peers[0].name), "worker:%s",
			 e->node);
		put_head(&p);
		a.n_signing_keys = 1;
		a.signing_keys = &signing;
		a.route_key = (ProtobufCBinaryData){32, x.route};
		a.head = &p;
		a.n_router = a.n_publisher = 1;
		a.router = &router;
		a.publisher = &publisher;
		a.controller_key = (ProtobufCBinaryData){32, x.keys.public_key};
	}
	m.body_case = SALLYPORT__FLEET__FROM_CONTROLLER__BODY_ENROL;
	m.enrol = &a;
	say(json_pack("{s:s,s:s,s:s}", "event", "enrol", "node", e->node, "reason",
		      a.reason));
	reply(from, call, &m);
}

// A directory that has never heard of any session.
static void on_directory(const struct sp_bus_peer *from, uint64_t call, const char *what,
			 Sallyport__Fleet__SessionResult result)
{
	Sallyport__Fleet__FromController m = SALLYPORT__FLEET__FROM_CONTROLLER__INIT;
	Sallyport__Fleet__SessionAnswer a = SALLYPORT__FLEET__SESSION_ANSWER__INIT;
	a.result = result;
	m.body_case = SALLYPORT__FLEET__FROM_CONTROLLER__BODY_SESSION;
	m.session = &a;
	say(json_pack("{s:s}", "event", what));
	if (call)
		reply(from, call, &m);
}

static void on_message(void *ctx, const struct sp_bus_peer *from, const void *data,
		       size_t len)
{
	Sallyport__Fleet__ToController *m =
		sallyport__fleet__to_controller__unpack(NULL, len, data);
	(void)ctx;
	if (!m)
		die("malformed message");
	if (from->domain == SP_BUS_ENROL) {
		if (m->body_case == SALLYPORT__FLEET__TO_CONTROLLER__BODY_ENROL)
			on_enrol(from, m->call, m->enrol);
	} else if (m->body_case == SALLYPORT__FLEET__TO_CONTROLLER__BODY_HELLO) {
		on_hello(from, m->hello);
	} else if (m->body_case == SALLYPORT__FLEET__TO_CONTROLLER__BODY_FETCH) {
		on_fetch(from, m->call, m->fetch);
	} else if (m->body_case == SALLYPORT__FLEET__TO_CONTROLLER__BODY_ACK) {
		on_ack(m->ack);
	} else if (m->body_case == SALLYPORT__FLEET__TO_CONTROLLER__BODY_TELEMETRY) {
		on_telemetry(m->telemetry);
	} else if (m->body_case == SALLYPORT__FLEET__TO_CONTROLLER__BODY_USAGE) {
		on_usage(from, m->call, m->usage);
	} else if (m->body_case == SALLYPORT__FLEET__TO_CONTROLLER__BODY_SESSION_PUT) {
		on_directory(from, m->call, "put",
			     SALLYPORT__FLEET__SESSION_RESULT__SESSION_STORED);
	} else if (m->body_case == SALLYPORT__FLEET__TO_CONTROLLER__BODY_SESSION_ADOPT) {
		on_directory(from, m->call, "adopt",
			     SALLYPORT__FLEET__SESSION_RESULT__SESSION_FRESH);
	} else if (m->body_case == SALLYPORT__FLEET__TO_CONTROLLER__BODY_SESSION_DROP) {
		on_directory(from, 0, "drop",
			     SALLYPORT__FLEET__SESSION_RESULT__SESSION_STORED);
	}
	sallyport__fleet__to_controller__free_unpacked(m, NULL);
}

static bool identify(void *ctx, const uint8_t *key, char *ret)
{
	(void)ctx;
	for (unsigned i = 0; i < x.n_peers; i++)
		if (!memcmp(key, x.peers[i].key, 32)) {
			strcpy(ret, x.peers[i].name);
			return true;
		}
	return false;
}

static enum sp_bus_verdict may_enrol(void *ctx, const char *address)
{
	(void)ctx;
	(void)address;
	return SP_BUS_ADMIT;
}

// ---- commands ----

static void on_token(const char *name)
{
	struct sp_enroltoken t = {0};
	char text[SP_ENROLTOKEN_TEXT_MAX], hex[2 * SP_ENROLTOKEN_SECRET_BYTES + 1];
	snprintf(t.node, sizeof(t.node), "%s", name);
	snprintf(t.enrol, sizeof(t.enrol), "%s", sp_bus_server_enrol(x.bus));
	snprintf(t.router, sizeof(t.router), "%s", sp_bus_server_router(x.bus));
	snprintf(t.publisher, sizeof(t.publisher), "%s", sp_bus_server_publisher(x.bus));
	memcpy(t.controller_key, x.keys.public_key, 32);
	randombytes_buf(t.secret, sizeof(t.secret));
	sp_hex_encode(t.secret, sizeof(t.secret), hex, sizeof(hex));
	json_object_set_new(x.tokens, hex, json_string(name));
	if (sp_enroltoken_format(&t, text))
		die("cannot write a token");
	say(json_pack("{s:s}", "token", text));
}

static void on_line(const char *line)
{
	json_t *o = json_loads(line, 0, NULL), *v;
	if (!o)
		die("not JSON");
	if ((v = json_object_get(o, "put"))) {
		on_put(v);
	} else if ((v = json_object_get(o, "token"))) {
		on_token(json_string_value(v));
	} else if ((v = json_object_get(o, "publish"))) {
		sp_bus_publish(x.bus, 'R', json_string_value(v), json_string_length(v));
		say(json_object());
	} else {
		if ((v = json_object_get(o, "mute")))
			x.mute = json_is_true(v);
		if ((v = json_object_get(o, "deaf")))
			x.deaf = json_is_true(v);
		if ((v = json_object_get(o, "stored")))
			x.unstored = !json_is_true(v);
		if ((v = json_object_get(o, "quota")))
			json_object_update(x.quota, v);
		say(json_object());
	}
	json_decref(o);
}

static void on_input(evutil_socket_t fd, short what, void *arg)
{
	(void)what;
	(void)arg;
	ssize_t n = read(fd, x.line + x.line_len, sizeof(x.line) - 1 - x.line_len);
	if (n <= 0)
		exit(0);
	x.line_len += (size_t)n;
	char *end;
	while ((end = memchr(x.line, '\n', x.line_len))) {
		*end = '\0';
		on_line(x.line);
		x.line_len -= (size_t)(end + 1 - x.line);
		memmove(x.line, end + 1, x.line_len);
	}
}

int main(void)
{
	static const struct sp_bus_server_ops ops = {identify, may_enrol, on_message};
	struct sp_bus_server_options o = {.keys = &x.keys,
					  .router = "tcp://127.0.0.1:*",
					  .publisher = "tcp://127.0.0.1:*",
					  .enrol = "tcp://127.0.0.1:*",
					  .ops = &ops};
	char why[256], key[SP_KEY_TEXT_MAX];
	if (sodium_init() < 0 || sp_loop_new(&x.loop) || sp_state_new(&x.state))
		die("cannot begin");
	crypto_box_keypair(x.keys.public_key, x.keys.secret_key);
	crypto_sign_keypair(x.sign_pub, x.sign_secret);
	randombytes_buf(x.route, sizeof(x.route));
	x.tokens = json_object();
	x.usage = json_object();
	x.quota = json_object();
	o.loop = x.loop;
	if (sp_bus_server_new(&o, &x.bus, why, sizeof(why)))
		die(why);
	sp_timer_init(&x.tick, x.loop, on_tick, NULL);
	sp_timer_set(&x.tick, sp_loop_now_us(x.loop));
	event_assign(&x.input, sp_loop_base(x.loop), 0, EV_READ | EV_PERSIST, on_input,
		     NULL);
	event_add(&x.input, NULL);
	say(json_pack("{s:s}", "signing",
		      sp_key_format(SP_KEY_SIGNING, false, x.sign_pub, key)));
	return sp_loop_run(x.loop) ? 1 : 0;
}
