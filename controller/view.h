// Which exits a client is told of, and in which order. Fed with the fleet's state and the
// verdict of health; ordered per device by weighted rendezvous hashing, so that load
// spreads by weight and a change of one node moves only those who had it or now get it.
// Pure: no I/O, no clock. Not here: passes, signing, HTTP.
//
// The weight that counts: the operator's, times the verdict's percentage (a node that
// returns starts slowly), times a factor that falls with the latency measured from the
// client's region. Both are taken in steps, so that small changes wake nobody. A weight
// of 0 is a standby: listed behind all others.
#ifndef CON_VIEW_H
#define CON_VIEW_H

#include "lib/pass.h"
#include "lib/state.h"

#define CON_VIEW_EXITS     32 // most that one client is told of
#define CON_VIEW_NODES_MAX 20000
#define CON_VIEW_REGIONS   64 // told apart at once; clients of others count as of none

// What is known of a worker.
struct con_view_health {
	bool offered;
	unsigned percent;    // of its weight, 1 to 100
	uint32_t latency_us; // 0: not known
};
// `worker`: "NAME/N". `region`: of the client, "" unknown. Called by con_view_refresh
// only.
typedef void con_view_judge(void *ctx, const char *worker, const char *region,
			    struct con_view_health *ret);

struct con_view;
// `judge` NULL: everything is well. 0 and *ret; -ENOMEM.
int con_view_new(con_view_judge *judge, void *ctx, struct con_view **ret) SP_MUST_CHECK;
void con_view_free(struct con_view *v); // NULL is fine

// Entries of the state: node/, identity/, lease/ and region/; others are ignored. `json`
// NULL: it is gone. 0; SP_E_LIMIT; -ENOMEM; SP_E_MALFORMED: not what it should be, the
// node is not offered.
int con_view_set(struct con_view *v, const char *key, const char *json,
		 size_t len) SP_MUST_CHECK;
// Judges everything anew; leases end by `now_s` (Unix). After con_view_set and from time
// to time. True: what some clients are told has changed.
bool con_view_refresh(struct con_view *v, uint64_t now_s);

// The index of a client's region, to be given below; 0: unknown. Becomes known here, and
// counts from the next con_view_refresh on; until then it is as unknown.
unsigned con_view_region(struct con_view *v, const char *name);

struct con_view_client {
	const uint8_t *device; // SP_PASS_DEVICE_BYTES
	unsigned region;       // of con_view_region
	unsigned n_groups;     // of its tier; 0: all
	const char (*groups)[SP_PASS_WORD_MAX + 1];
};
struct con_view_list { // valid until the view changes
	unsigned n;
	uint32_t exit[CON_VIEW_EXITS]; // the best first
	uint64_t digest; // of what they are and their order; the same at every controller
};
void con_view_select(const struct con_view *v, const struct con_view_client *who,
		     struct con_view_list *ret);
// An exit as in a client config (lib/fleet.h, kind 3): a JSON object, borrowed.
const char *con_view_exit(const struct con_view *v, uint32_t exit, size_t *ret_len);

struct con_view_counts {
	unsigned nodes, enrolled, offered; // offered: to clients of unknown region
};
void con_view_count(const struct con_view *v, struct con_view_counts *ret);

#endif
