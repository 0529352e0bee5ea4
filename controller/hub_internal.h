// What the files of the hub share: peers and marks. For controller/hub*.c alone.
#ifndef CON_HUB_INTERNAL_H
#define CON_HUB_INTERNAL_H

#include <sys/queue.h>

#include "controller/hub.h"
#include "lib/idmap.h"
#include "lib/log.h"

#define HUB_MARKS 1024

// What is known of a revision, to judge positions by.
struct hub_mark {
	uint64_t sequence; // 0: none
	uint8_t hash[SP_REVISION_HASH_BYTES];
	bool has_state;
	uint8_t state[SP_STATE_HASH_BYTES];
	uint64_t published_us; // 0: not by this process
};

struct hub_peer {
	struct con_hub_peer pub;
	struct sp_deferred reap;
	size_t index; // in hub.all
	char name[SP_BUS_NAME_MAX];
	uint8_t key[SP_BUS_KEY_BYTES], static_key[CON_HUB_STATIC_BYTES];
	bool has_static, is_worker;
	bool joined;  // a handshake with this key was let in
	bool welcome; // said hello over `route`
	uint8_t route_len, route[SP_BUS_ROUTE_MAX];
	struct sp_bus_meter *meter;
	uint64_t other_boot; // the one that the present one took over from
	uint64_t hello_us, took_over_us, seen_us, snapshot_us;
	uint64_t refill_us;
	uint32_t tokens;
	struct sp_ratelimit
		lines[CON_HUB_EVENTS_N]; // by event, so that none hides another
	// Waits for an answer to its last Fetch.
	TAILQ_ENTRY(hub_peer) fetch;
	bool queued, whole;
	uint64_t fetch_call;
	struct sp_position from;
};
TAILQ_HEAD(hub_fetches, hub_peer);

enum hub_hello { HELLO_NEW, HELLO_AGAIN, HELLO_OTHER_BOOT, HELLO_REFUSED, HELLO_N };
enum hub_answer {
	ANSWER_CURRENT,
	ANSWER_REVISIONS,
	ANSWER_SNAPSHOT,
	ANSWER_NONE,
	ANSWER_N
};

#define HUB_NACK_WORD_MAX 24
#define HUB_NACK_WORDS    16

struct hub_counters {
	uint64_t hellos[HELLO_N], answers[ANSWER_N], events[CON_HUB_EVENTS_N];
	uint64_t fetches, fetch_bytes, snapshots_made;
	uint64_t acks, nacks, telemetry, calls, enrols;
	uint64_t malformed, flooded, no_hello, other_route, not_allowed;
	struct { // the last stands for no key, and for all that find no place
		char about[HUB_NACK_WORD_MAX];
		uint64_t n;
	} nacked[HUB_NACK_WORDS];
};

struct con_hub {
	struct sp_loop *loop;
	struct sp_bus_server *bus;
	const struct con_hub_ops *ops;
	void *ctx;
	uint8_t route_key[32];
	uint64_t boot;

	struct hub_peer **all;
	size_t n, cap;
	struct sp_idmap by_key, by_name;
	uint8_t name_key[16]; // of the hash of names

	struct sp_position head; // sequence 0: none yet
	uint8_t state[SP_STATE_HASH_BYTES];
	struct hub_mark marks[HUB_MARKS];
	struct sp_bus_blob *snapshot; // a whole FromController, call 0; of the head

	struct hub_fetches fetches;
	unsigned n_fetches;
	uint32_t fetch_rate;
	int64_t fetch_left; // bytes that may go now; below 0: owed
	uint64_t fetch_us;
	struct sp_timer digest, serve, cut;
	uint64_t cut_us;                    // when it was last done
	uint64_t enrol_links, enrol_active; // let in when it was last done there
	unsigned enrol_quiet;

	struct hub_counters n_of;
	struct sp_histogram ack_seconds;
};

// False: a position that is none.
bool hub_position_get(const Sallyport__Fleet__Position *m,
		      struct sp_position *ret) SP_MUST_CHECK;
// `ret` points into `p`.
void hub_position_put(const struct sp_position *p, Sallyport__Fleet__Position *ret);
// What is known of the revision with that sequence; NULL: nothing.
const struct hub_mark *hub_mark(struct con_hub *h, uint64_t sequence);

void hub_event(struct con_hub *h, enum con_hub_event what, struct hub_peer *p,
	       const char *text);
void hub_call_of(const struct hub_peer *p, uint64_t call, struct con_hub_call *ret);

// ---- hub_peers.c ----

struct hub_peer *hub_by_key(const struct con_hub *h, const uint8_t *key);
struct hub_peer *hub_by_name(const struct con_hub *h, const char *name);
void hub_peers_free(struct con_hub *h);

// ---- hub_fetch.c ----

void hub_fetch(struct con_hub *h, struct hub_peer *p, uint64_t call,
	       const Sallyport__Fleet__Fetch *m);
void hub_fetch_drop(struct con_hub *h, struct hub_peer *p); // queued or not
void hub_fetch_serve(void *hub);                            // of the timer
void hub_snapshot_forget(struct con_hub *h);

// ---- hub_messages.c ----

void hub_on_message(void *ctx, const struct sp_bus_peer *from, const void *data,
		    size_t len);
void hub_sweep(struct con_hub *h); // who has been silent

#endif
