// The controller's end of the bus: publishes revisions and digests, answers hellos and
// fetches, takes acks, nacks and telemetry, keeps the table of peers, and hands the rest
// to whoever serves it. A peer is its control key, and its name what we wrote beside that
// key; nothing that it says of itself counts. Not here: the sockets (lib/bus.h), the
// state (controller/fleet.h), enrolment (controller/enrol.h), what calls mean.
//
// A herd of peers that all fetch waits in a queue that is served at a stated rate, a
// snapshot being one copy for all of them; what is published goes before them. Peers
// whose key is removed are cut off with the others' links, which come back by themselves.
#ifndef CON_HUB_H
#define CON_HUB_H

#include "lib/bus.h"
#include "lib/metrics.h"
#include "lib/revision.h"
#include "proto/fleet.pb-c.h"

#define CON_HUB_VERSION         1            // of proto/fleet.proto
#define CON_HUB_DIGEST_MS       1000         // between digests
#define CON_HUB_SILENCE_MS      6000         // without a word: the link is lost
#define CON_HUB_DELTAS_MAX      (1u << 20)   // bytes of one answer of revisions
#define CON_HUB_FETCH_RATE      (100u << 20) // bytes a second of answers to fetches
#define CON_HUB_RENEW_MS        60000        // least time between two cuts
#define CON_HUB_PER_SECOND      2000 // messages of one peer; further ones: dropped
#define CON_HUB_BURST           10000
#define CON_HUB_ENROL_LINKS     512  // of strangers, until all of them are cut
#define CON_HUB_ENROL_BYTES_MAX 8192 // of a message of theirs
#define CON_HUB_TEXT_MAX        64
#define CON_HUB_REASON_MAX      256
#define CON_HUB_STATIC_BYTES    32

struct con_hub;

// Where an answer goes; copy it to keep it.
struct con_hub_call {
	enum sp_bus_domain domain;
	char name[SP_BUS_NAME_MAX]; // of the peer: "worker:fra1/0"; "": a stranger
	uint8_t key[SP_BUS_KEY_BYTES];
	uint64_t call; // as the peer numbered it
	uint8_t route_len, route[SP_BUS_ROUTE_MAX];
};

// X(NAME, "word", level): of a peer, unless it says else
#define CON_HUB_EVENTS(X)                                                                \
	X(UP, "peer-up", INFO)                                                           \
	X(LOST, "peer-lost", WARN)                                                       \
	X(DUPLICATE, "peer-duplicate", ERROR)   /* two live ones have its key */         \
	X(NO_VERSION, "peer-version", WARN)     /* none in common */                     \
	X(STATIC_KEY, "peer-static-key", ERROR) /* not the one it enrolled with */       \
	X(NACK, "peer-nack", ERROR)                                                      \
	X(AHEAD, "peer-ahead", ERROR) /* of the head here */                             \
	X(FORK, "peer-fork", ERROR)   /* in a history that is not ours */                \
	X(STATE, "peer-state", ERROR) /* at our place with another state */              \
	X(MALFORMED, "peer-malformed", WARN)                                             \
	X(FLOOD, "peer-flood", WARN)                                                     \
	X(SNAPSHOT, "snapshot-failed", ERROR) /* of nobody: there is none */             \
	X(CUT, "links-cut", INFO)             /* of nobody: a key was removed */
enum con_hub_event {
#define X(name, word, level) CON_HUB_##name,
	CON_HUB_EVENTS(X)
#undef X
		CON_HUB_EVENTS_N
};
const char *con_hub_event_word(enum con_hub_event e);

// Of a worker or vantage; texts are printable ASCII.
struct con_hub_peer {
	const char *name;        // "worker:fra1/0", "vantage:ams"
	bool connected;          // heard of within CON_HUB_SILENCE_MS
	uint64_t boot;           // 0: never here since this controller started
	uint64_t up_ms, seen_ms; // Unix: of the link, of the last word
	uint32_t version;
	struct sp_position applied, nacked;
	char program[CON_HUB_TEXT_MAX], address[SP_BUS_ADDRESS_MAX];
	char bound[CON_HUB_REASON_MAX];  // "tls 0.0.0.0:443, tcp 0.0.0.0:444"
	char reason[CON_HUB_REASON_MAX]; // of the nack at `nacked`
	// The last, without pointers; boot 0: none yet.
	Sallyport__Fleet__Telemetry telemetry;
};

struct con_hub_ops {
	// The signed revision with that sequence; borrowed. NULL: not at hand any more.
	const char *(*revision)(void *ctx, uint64_t sequence, size_t *ret_len);
	// The signed snapshot of the head; borrowed. 0, or an error.
	int (*snapshot)(void *ctx, const char **ret, size_t *ret_len);
	// Usage, sessions, probes, passes. Answered by con_hub_answer, now or later.
	void (*call)(void *ctx, const struct con_hub_call *call,
		     const Sallyport__Fleet__ToController *m);
	// Each may be NULL:
	void (*enrol)(void *ctx, const struct con_hub_call *call, const char *address,
		      const Sallyport__Fleet__Enrol *m);
	enum sp_bus_verdict (*may_enrol)(void *ctx, const char *address);
	void (*link)(void *ctx, const struct con_hub_peer *peer); // up, lost, other boot
	void (*telemetry)(void *ctx, const struct con_hub_peer *peer);
	// A peer holds something newer than the head here.
	void (*ahead)(void *ctx, const char *name, const struct sp_position *position);
	void (*event)(void *ctx, enum con_hub_event what, const char *name,
		      const char *text);
};

struct con_hub_options {
	struct sp_loop *loop;
	const struct sp_bus_keys *keys;         // copied
	const char *router, *publisher, *enrol; // as in lib/bus.h; enrol may be NULL
	const uint8_t *route_key;               // 32 bytes, for workers; copied
	uint64_t boot;                          // random per start
	uint32_t fetch_rate;                    // bytes a second; 0: CON_HUB_FETCH_RATE
	const struct con_hub_ops *ops;
	void *ctx;
};

// Listens. 0 and *ret; as sp_bus_server_new.
int con_hub_new(const struct con_hub_options *opt, struct con_hub **ret, char *why,
		size_t cap) SP_MUST_CHECK;
void con_hub_free(struct con_hub *h); // NULL is fine

// `name` may join with this key; it replaces one that it had. `static_key`: of a worker,
// 32 bytes; else NULL. 0; -EEXIST: the key is another's; -EINVAL; -ENOMEM.
int con_hub_allow(struct con_hub *h, const char *name, const uint8_t *key,
		  const uint8_t *static_key) SP_MUST_CHECK;
// It may no more: its messages count no more at once, its links are cut soon.
void con_hub_forbid(struct con_hub *h, const char *name); // not there: nothing
bool con_hub_knows(const struct con_hub *h, const uint8_t *key);

// Where the fleet stands, at the start or after it was seeded anew. Digests begin,
// fetches are answered. `state`: its hash.
void con_hub_set_head(struct con_hub *h, const struct sp_position *position,
		      const uint8_t *state);
// A new head: to everyone, at once, with a digest behind it.
void con_hub_publish(struct con_hub *h, const struct sp_position *position,
		     const uint8_t *state, const void *text, size_t len);

// Sets version and call of `m` and sends it. 0; -EHOSTUNREACH: it is gone; -EAGAIN,
// -ENOMEM.
int con_hub_answer(struct con_hub *h, const struct con_hub_call *to,
		   Sallyport__Fleet__FromController *m);
// The same with a Refused. `retry_ms` 0: it need not try again.
void con_hub_refuse(struct con_hub *h, const struct con_hub_call *to, const char *reason,
		    uint32_t retry_ms);

// Borrowed until the next call of this module. NULL: nobody is allowed by that name.
const struct con_hub_peer *con_hub_find(struct con_hub *h, const char *name);
// All, in no stated order. `at` is 0 to begin with. NULL: no more.
const struct con_hub_peer *con_hub_next(struct con_hub *h, size_t *at);
const char *con_hub_link_word(const struct con_hub_peer *p); // "up", "lost", "never"
unsigned con_hub_connected(const struct con_hub *h, const char *kind); // "worker:"

const char *con_hub_router(const struct con_hub *h); // where it listens
const char *con_hub_publisher(const struct con_hub *h);
const char *con_hub_enrol(const struct con_hub *h);
// Its families of metrics.
void con_hub_metrics(const struct con_hub *h, struct sp_metrics_writer *w);

#endif
