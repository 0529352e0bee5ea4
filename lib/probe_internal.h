// Inside probes: what probe.c and probe_bridge.c share. Not for other modules.
#ifndef SP_PROBE_INTERNAL_H
#define SP_PROBE_INTERNAL_H

#include <sys/queue.h>

#include "lib/arena.h"
#include "lib/link.h"
#include "lib/lookup.h"
#include "lib/probe.h"
#include "lib/session_clock.h"

struct sp_probe_env {
	struct sp_loop *loop;
	struct sp_arena *arena;
	struct sp_session_clock *clock;
	struct sp_link_env *links;
	TAILQ_HEAD(, sp_probe) probes;
};

struct sp_probe_seat {
	struct sp_probe_env *env;
	struct sp_session *session;
	struct sp_probe *probe; // whose turn it is; NULL: nobody's
	bool stale;             // a new session is needed
};

// A stream made to look like a server: who connects has it.
#define BRIDGE_NAME_MAX 16 // with its NUL
struct bridge;
// Listens on an abstract Unix socket, whose name goes to ret_name (BRIDGE_NAME_MAX). 0
// and *ret; -errno.
int bridge_new(struct sp_loop *loop, struct sp_stream *st, struct bridge **ret,
	       char *ret_name) SP_MUST_CHECK;
// The engine's calls, for the stream.
size_t bridge_sink(struct bridge *b, const uint8_t *buf, size_t len);
void bridge_sink_fin(struct bridge *b);
void bridge_source_ready(struct bridge *b);
// The stream is over, or is to be: closes, and frees at the end of the turn. NULL is
// fine.
void bridge_free(struct bridge *b);

#define PROBE_STREAMS 2

struct sp_probe {
	TAILQ_ENTRY(sp_probe) entry;
	struct sp_probe_env *env;
	struct sp_probe_seat *seat; // NULL: it had its turn
	struct sp_probe_options opt;
	struct sp_target target;
	uint8_t worker_public[32];
	char server_name[SP_NAME_MAX + 1];
	struct sp_probe_result res;
	struct sp_lookup *lookup;
	struct sp_carrier *carrier;
	struct sp_link *link;
	struct sp_carrier_dial dial;
	struct event ev;
	bool has_event;
	bool over;                     // at the top or fallen
	bool told;                     // done was called, or is not to be
	bool lingers;                  // what is left is to be sent
	uint64_t rung_us, deadline_us; // when the rung was begun; SP_LOOP_NEVER: none
	struct sp_timer timeout, answer, end;
	struct sp_deferred tell, reap;
	struct probe_stream {
		struct sp_stream *st;
		struct bridge *bridge; // NULL: the built-in request
	} stream[PROBE_STREAMS];
	size_t line_len;
	char line[64]; // first line of the answer
};

#endif
