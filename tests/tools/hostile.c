// A peer that means harm to a controller's bus, for tests: over real ZeroMQ and CURVE,
// with the control key that a worker enrolled with, a key that nobody knows, or none.
// Driven by lines of JSON on standard input; answers each with a line. End of input ends
// it.
//
//   hostile FOLDER [ENROL-ENDPOINT]     state folder of an enrolled worker; the key of
//                                       its control link is used and nothing else of it
//   {"do": "link", "route": TEXT, "key": "own" | "stranger", "deaf": BOOL, "enrol": BOOL}
//        a DEALER in place of the last; deaf: takes nothing in. Answers whether its
//        handshake was done: {"link": "up" | "refused" | "none"}
//   {"do": "say", "kind": KIND, "version": N, "call": N, "times": N, ...}
//        KIND: hello, fetch, ack, telemetry, put, adopt, drop, usage, probe, pass, enrol;
//        "from_head": at the head that the last welcome told, else epoch, sequence
//   {"do": "bytes", "len": N, "of": HEX, "times": N, "frames": N}     whatever it is
//   {"do": "hear", "ms": N}             what came: {"heard": [{"kind": N, "reason":
//   TEXT}]}
#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>
#include <zmq.h>

#include "lib/bus.h"
#include "lib/enrolled.h"
#include "lib/key.h"
#include "lib/text.h"
#include "proto/fleet.pb-c.h"

#define LINK_MS    3000
#define SEND_MS    3000 // without room, or a link, for a message
#define FRAMES_MAX 8

static struct {
	struct sp_enrolled at;
	uint8_t public_key[32], secret_key[32], other_public[32], other_secret[32];
	const char *enrol;
	void *zmq, *dealer, *monitor;
	unsigned monitors;
	struct { // as the last Welcome said
		uint32_t epoch;
		uint64_t sequence;
		uint8_t hash[32];
	} head;
} x;

static void die(const char *what, const char *why)
{
	fprintf(stderr, "hostile: %s: %s\n", what, why);
	exit(1);
}

static void must(int result, const char *what)
{
	if (result < 0)
		die(what, zmq_strerror(errno));
}

static void say(json_t *o)
{
	char *text = json_dumps(o, JSON_COMPACT);
	puts(text ? text : "{}");
	fflush(stdout);
	free(text);
	json_decref(o);
}

static const char *text_of(const json_t *o, const char *key, const char *other)
{
	const char *s = json_string_value(json_object_get(o, key));
	return s ? s : other;
}

static uint64_t number_of(const json_t *o, const char *key, uint64_t other)
{
	json_t *v = json_object_get(o, key);
	return v ? (uint64_t)json_integer_value(v) : other;
}

// ---- links ----

static const char *wait_for_link(void)
{
	zmq_pollitem_t item = {.socket = x.monitor, .events = ZMQ_POLLIN};
	while (zmq_poll(&item, 1, LINK_MS) > 0) {
		uint16_t event;
		uint8_t raw[6];
		char at[256];
		must(zmq_recv(x.monitor, raw, sizeof(raw), 0), "monitor");
		must(zmq_recv(x.monitor, at, sizeof(at), 0), "monitor");
		memcpy(&event, raw, sizeof(event));
		if (event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED)
			return "up";
		if (event & (ZMQ_EVENT_HANDSHAKE_FAILED_AUTH |
			     ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL |
			     ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL))
			return "refused";
	}
	return "none";
}

static void close_link(void)
{
	if (!x.dealer)
		return;
	zmq_close(x.monitor);
	zmq_close(x.dealer);
	x.dealer = x.monitor = NULL;
}

static void set(int option, const void *value, size_t len)
{
	must(zmq_setsockopt(x.dealer, option, value, len), "zmq_setsockopt");
}

static void do_link(const json_t *o)
{
	bool own = strcmp(text_of(o, "key", "own"), "own") == 0;
	const char *route = text_of(o, "route", NULL);
	char name[48];
	int none = 0, few = 1, never = -1, patience = SEND_MS;
	close_link();
	x.dealer = zmq_socket(x.zmq, ZMQ_DEALER);
	if (!x.dealer)
		die("zmq_socket", zmq_strerror(errno));
	set(ZMQ_LINGER, &none, sizeof(none));
	set(ZMQ_RECONNECT_IVL, &never, sizeof(never));
	set(ZMQ_SNDTIMEO, &patience, sizeof(patience));
	if (route)
		set(ZMQ_ROUTING_ID, route, strlen(route));
	if (json_is_true(json_object_get(o, "deaf"))) {
		set(ZMQ_RCVHWM, &few, sizeof(few));
		set(ZMQ_RCVBUF, &few, sizeof(few));
	}
	set(ZMQ_CURVE_SERVERKEY, x.at.controller_key, 32);
	set(ZMQ_CURVE_PUBLICKEY, own ? x.public_key : x.other_public, 32);
	set(ZMQ_CURVE_SECRETKEY, own ? x.secret_key : x.other_secret, 32);
	snprintf(name, sizeof(name), "inproc://monitor-%u", x.monitors++);
	must(zmq_socket_monitor(x.dealer, name, ZMQ_EVENT_ALL), "monitor");
	x.monitor = zmq_socket(x.zmq, ZMQ_PAIR);
	must(zmq_connect(x.monitor, name), "monitor");
	must(zmq_connect(x.dealer, json_is_true(json_object_get(o, "enrol"))
					   ? x.enrol
					   : x.at.controllers[0].router),
	     "zmq_connect");
	say(json_pack("{s:s}", "link", wait_for_link()));
}

// ---- words ----

static bool send_all(const void *data, size_t len, uint64_t times, uint64_t frames)
{
	for (uint64_t i = 0; i < times; i++)
		for (uint64_t f = 1; f <= frames; f++)
			if (zmq_send(x.dealer, data, len, f < frames ? ZMQ_SNDMORE : 0) <
			    0)
				return false;
	return true;
}

struct words { // what a message points to
	Sallyport__Fleet__Position at;
	Sallyport__Fleet__SessionRecord record, *records[1];
	Sallyport__Fleet__Usage usage, *usages[1];
	Sallyport__Fleet__Probe probe, *probes[1];
	ProtobufCBinaryData ids[1];
	uint8_t id[16], device[32], hash[32];
};

static void fill(const json_t *o, struct words *w)
{
	const char *id = text_of(o, "id", ""), *device = text_of(o, "device", "");
	sallyport__fleet__position__init(&w->at);
	w->at.epoch = (uint32_t)number_of(o, "epoch", 0);
	w->at.sequence = number_of(o, "sequence", 0);
	w->at.hash = (ProtobufCBinaryData){number_of(o, "hash_len", 0), w->hash};
	if (json_is_true(json_object_get(o, "from_head"))) {
		w->at.epoch = x.head.epoch;
		w->at.sequence = x.head.sequence;
		w->at.hash = (ProtobufCBinaryData){sizeof(x.head.hash), x.head.hash};
	}
	(void)!sp_hex_decode(id, strlen(id), w->id, sizeof(w->id));
	(void)!sp_hex_decode(device, strlen(device), w->device, sizeof(w->device));
	w->ids[0] = (ProtobufCBinaryData){sizeof(w->id), w->id};
	sallyport__fleet__session_record__init(&w->record);
	w->record.id = w->ids[0];
	w->record.device = (ProtobufCBinaryData){sizeof(w->device), w->device};
	w->record.user = (char *)(uintptr_t)text_of(o, "user", "");
	w->record.tier = (char *)(uintptr_t)text_of(o, "tier", "standard");
	w->record.home = (char *)(uintptr_t)text_of(o, "home", "");
	w->record.epoch = (uint32_t)number_of(o, "attach", 1);
	w->record.boot = number_of(o, "boot", 1);
	w->record.live = true;
	w->record.max_sessions = (uint32_t)number_of(o, "max_sessions", 16);
	w->records[0] = &w->record;
	sallyport__fleet__usage__init(&w->usage);
	w->usage.user = w->record.user;
	w->usage.bytes_up = number_of(o, "bytes", 1);
	w->usages[0] = &w->usage;
	sallyport__fleet__probe__init(&w->probe);
	w->probe.node = w->record.home;
	w->probes[0] = &w->probe;
}

static void say_message(const json_t *o, Sallyport__Fleet__ToController *m)
{
	m->version = (uint32_t)number_of(o, "version", 1);
	m->call = number_of(o, "call", 0);
	size_t len = sallyport__fleet__to_controller__get_packed_size(m);
	uint8_t *buf = malloc(len + 1);
	if (!buf)
		die("malloc", "out of memory");
	sallyport__fleet__to_controller__pack(m, buf);
	bool sent = send_all(buf, len, number_of(o, "times", 1), 1);
	free(buf);
	say(json_pack("{s:b}", "sent", sent));
}

#define BODY(kind_, type_, field_)                                                       \
	Sallyport__Fleet__##type_ b;                                                     \
	protobuf_c_message_init(&sallyport__fleet__##field_##__descriptor, &b);          \
	m.body_case = SALLYPORT__FLEET__TO_CONTROLLER__BODY_##kind_;                     \
	m.hello = (void *)&b // one union

static void do_say(const json_t *o)
{
	const char *kind = text_of(o, "kind", "hello");
	Sallyport__Fleet__ToController m = SALLYPORT__FLEET__TO_CONTROLLER__INIT;
	struct words w = {0};
	fill(o, &w);
	if (strcmp(kind, "hello") == 0) {
		BODY(HELLO, Hello, hello);
		b.version_min = b.version_max = 1;
		b.boot = number_of(o, "boot", 1);
		b.applied = &w.at;
		say_message(o, &m);
	} else if (strcmp(kind, "fetch") == 0) {
		BODY(FETCH, Fetch, fetch);
		b.applied = &w.at;
		b.snapshot = json_is_true(json_object_get(o, "snapshot"));
		say_message(o, &m);
	} else if (strcmp(kind, "ack") == 0) {
		BODY(ACK, Ack, ack);
		b.position = &w.at;
		say_message(o, &m);
	} else if (strcmp(kind, "telemetry") == 0) {
		BODY(TELEMETRY, Telemetry, telemetry);
		b.boot = number_of(o, "boot", 1);
		b.applied = &w.at;
		say_message(o, &m);
	} else if (strcmp(kind, "put") == 0) {
		BODY(SESSION_PUT, SessionPut, session_put);
		b.n_records = 1;
		b.records = w.records;
		say_message(o, &m);
	} else if (strcmp(kind, "drop") == 0) {
		BODY(SESSION_DROP, SessionDrop, session_drop);
		b.n_ids = 1;
		b.ids = w.ids;
		say_message(o, &m);
	} else if (strcmp(kind, "adopt") == 0) {
		BODY(SESSION_ADOPT, SessionAdopt, session_adopt);
		b.id = w.record.id;
		b.device = w.record.device;
		b.epoch = w.record.epoch;
		b.user = w.record.user;
		b.boot = w.record.boot;
		b.left = json_is_true(json_object_get(o, "left"));
		say_message(o, &m);
	} else if (strcmp(kind, "usage") == 0) {
		BODY(USAGE, UsageReport, usage_report);
		b.boot = w.record.boot;
		b.n_users = 1;
		b.users = w.usages;
		say_message(o, &m);
	} else if (strcmp(kind, "probe") == 0) {
		BODY(PROBE, ProbeReport, probe_report);
		b.boot = w.record.boot;
		b.controls_ok = true;
		b.n_probes = 1;
		b.probes = w.probes;
		say_message(o, &m);
	} else if (strcmp(kind, "pass") == 0) {
		BODY(PASS, PassRequest, pass_request);
		b.device = w.record.device;
		say_message(o, &m);
	} else {
		BODY(ENROL, Enrol, enrol);
		b.token = (char *)(uintptr_t)text_of(o, "token", "spe:none");
		b.control_key = (ProtobufCBinaryData){32, x.other_public};
		b.static_key = (ProtobufCBinaryData){32, x.other_public};
		say_message(o, &m);
	}
}

static void do_bytes(const json_t *o)
{
	size_t len = number_of(o, "len", 0);
	const char *of = text_of(o, "of", NULL);
	uint8_t *data = calloc(1, len + 1);
	if (!data)
		die("calloc", "out of memory");
	if (of && sp_hex_decode(of, strlen(of), data, len))
		die("bytes", "not so many");
	bool sent =
		send_all(data, len, number_of(o, "times", 1), number_of(o, "frames", 1));
	free(data);
	say(json_pack("{s:b}", "sent", sent));
}

static json_t *describe(const uint8_t *data, size_t len)
{
	Sallyport__Fleet__FromController *m =
		sallyport__fleet__from_controller__unpack(NULL, len, data);
	const char *reason = "";
	int result = -1;
	if (!m)
		return json_pack("{s:i}", "kind", -1);
	if (m->body_case == SALLYPORT__FLEET__FROM_CONTROLLER__BODY_REFUSED) {
		reason = m->refused->reason;
	} else if (m->body_case == SALLYPORT__FLEET__FROM_CONTROLLER__BODY_WELCOME) {
		const Sallyport__Fleet__Position *p = m->welcome->head;
		x.head.epoch = p->epoch;
		x.head.sequence = p->sequence;
		if (p->hash.len == sizeof(x.head.hash))
			memcpy(x.head.hash, p->hash.data, p->hash.len);
	} else if (m->body_case == SALLYPORT__FLEET__FROM_CONTROLLER__BODY_SESSION) {
		reason = m->session->reason;
		result = (int)m->session->result;
	} else if (m->body_case == SALLYPORT__FLEET__FROM_CONTROLLER__BODY_ENROL) {
		reason = m->enrol->reason;
	}
	json_t *o = json_pack("{s:i, s:s, s:i}", "kind", (int)m->body_case, "reason",
			      reason, "result", result);
	sallyport__fleet__from_controller__free_unpacked(m, NULL);
	return o;
}

static void do_hear(const json_t *o)
{
	zmq_pollitem_t item = {.socket = x.dealer, .events = ZMQ_POLLIN};
	json_t *list = json_array();
	while (zmq_poll(&item, 1, (long)number_of(o, "ms", 1000)) > 0) {
		zmq_msg_t m;
		zmq_msg_init(&m);
		must(zmq_msg_recv(&m, x.dealer, 0), "zmq_msg_recv");
		json_array_append_new(list, describe(zmq_msg_data(&m), zmq_msg_size(&m)));
		zmq_msg_close(&m);
		if (!json_object_get(o, "all"))
			break;
	}
	say(json_pack("{s:o}", "heard", list));
}

static void obey(const char *line)
{
	json_t *o = json_loads(line, 0, NULL);
	const char *what = text_of(o, "do", "");
	if (strcmp(what, "link") == 0)
		do_link(o);
	else if (!x.dealer)
		die(what, "there is no link");
	else if (strcmp(what, "say") == 0)
		do_say(o);
	else if (strcmp(what, "bytes") == 0)
		do_bytes(o);
	else if (strcmp(what, "hear") == 0)
		do_hear(o);
	else
		die("not understood", line);
	json_decref(o);
}

int main(int argc, char **argv)
{
	char why[256] = "", path[512], *line = NULL;
	size_t cap = 0;
	if (argc < 2 || sodium_init() < 0)
		die("usage", "hostile FOLDER [ENROL-ENDPOINT]");
	x.enrol = argc > 2 ? argv[2] : NULL;
	snprintf(path, sizeof(path), "%s/agent/control.key", argv[1]);
	if (sp_enrolled_load(argv[1], &x.at, why, sizeof(why)) ||
	    sp_key_load(path, SP_KEY_CONTROL, true, x.secret_key, why, sizeof(why)))
		die(argv[1], why);
	crypto_scalarmult_base(x.public_key, x.secret_key);
	randombytes_buf(x.other_secret, 32);
	crypto_scalarmult_base(x.other_public, x.other_secret);
	x.zmq = zmq_ctx_new();
	while (getline(&line, &cap, stdin) > 0)
		obey(line);
	free(line);
	close_link();
	zmq_ctx_term(x.zmq);
	return 0;
}
