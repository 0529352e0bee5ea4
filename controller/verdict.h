// What is concluded of each node from what vantages saw: dead, well, blocked from
// somewhere, and who is to be believed. Pure: no I/O, no clock; judging takes no memory
// (results of a vantage about a node for the first time do). Results go in as they come;
// con_verdict_cycle changes all states at once. Not here: messages, events, what clients
// are told (controller/health.h). The rules and their reasons: docs/health.md.
//
// Times are milliseconds of one monotonic clock of the caller.
#ifndef CON_VERDICT_H
#define CON_VERDICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/err.h"

#define CON_VANTAGES_MAX         32
#define CON_VERDICT_NODES_MAX    10000
#define CON_VERDICT_CARRIERS_MAX 8
#define CON_VERDICT_NAME_MAX     80
#define CON_VERDICT_WORD_MAX     24 // of a rung, of a reason
#define CON_VERDICT_STREAK_MAX   8  // bound of fall and evidence

enum con_node_state {
	CON_NODE_UNKNOWN,     // nobody has seen it yet; offered
	CON_NODE_HEALTHY,     // offered
	CON_NODE_DEGRADED,    // offered, for the cause that stands beside it
	CON_NODE_DRAINING,    // the operator's or the worker's wish; not offered
	CON_NODE_DOWN,        // not offered
	CON_NODE_QUARANTINED, // answers again, but is held down for its flaps
	CON_NODE_STATES,
};
const char *con_node_state_word(enum con_node_state state); // log word and metric label

enum con_node_cause {
	CON_CAUSE_NONE,
	CON_CAUSE_DEAD,    // a quorum of vantages could not use it
	CON_CAUSE_CARRIER, // some of its carriers fail
	CON_CAUSE_BLOCKED, // some vantages cannot reach it, the others can
	CON_CAUSE_CAPPED,  // dead, but too many of its region are, or it is the last
	CON_CAUSE_LEASE,   // drained
	CON_CAUSE_RISEN,   // usable again
	CON_CAUSES,
};
const char *con_node_cause_word(enum con_node_cause cause);

struct con_verdict_options {
	unsigned fall; // failures in a row of one vantage, 1..CON_VERDICT_STREAK_MAX
	unsigned rise; // successes in a row after that
	// Failures of all who vote, since anyone who votes last had a success; no more
	// than fall for each vantage that is known. <= CON_VERDICT_STREAK_MAX.
	unsigned evidence;
	unsigned quorum;        // votes; 0: more than half of those who vote
	uint32_t hold_ms;       // held down so long times the number of flaps,
	uint32_t hold_max_ms;   // at most so long;
	uint32_t forget_ms;     // a demotion so long ago is no flap any more
	unsigned cap_percent;   // of a region may be demoted; one node always may
	unsigned panic_percent; // fewer than so many of the fleet alive: all are offered
	uint32_t silent_ms;     // a vantage that says nothing for so long has no vote
	uint32_t old_ms;        // a result as old as this is none
	uint32_t contest_ms;    // how long a refuted vantage is not heard about a node
	uint32_t slack_ms;      // results of two vantages so close have no order
	uint32_t reset_ms;      // a node's boots and changes void results once in so long
	uint32_t fresh_ms; // after a start or a change of a node all must have seen it
	uint32_t slow_start_ms;      // a node that returns has its whole weight after it
	unsigned slow_start_percent; // and so much to begin with
	unsigned passive_min;        // attempts in a window, for a passive vote; 0: none
	unsigned passive_percent;    // of them failed
};
void con_verdict_options_default(struct con_verdict_options *ret);

struct con_verdict;
int con_verdict_new(const struct con_verdict_options *opt,
		    struct con_verdict **ret) SP_MUST_CHECK; // 0; -EINVAL; -ENOMEM
void con_verdict_free(struct con_verdict *v);                // NULL is fine
// 0; -EINVAL: a bound is not kept, nothing changed.
int con_verdict_set_options(struct con_verdict *v,
			    const struct con_verdict_options *opt) SP_MUST_CHECK;

// ---- who there is ----

// Makes it known, or changes its region. 0 and *ret (an index that stays); SP_E_LIMIT;
// -ENOMEM.
int con_verdict_add_vantage(struct con_verdict *v, const char *name, const char *region,
			    unsigned *ret) SP_MUST_CHECK;
void con_verdict_remove_vantage(struct con_verdict *v, unsigned vantage);
// Likewise; with `carriers` (0..CON_VERDICT_CARRIERS_MAX) that are probed. A node that
// changes begins anew only by con_verdict_forget.
int con_verdict_add_node(struct con_verdict *v, const char *name, const char *region,
			 unsigned carriers, uint64_t now_ms, unsigned *ret) SP_MUST_CHECK;
void con_verdict_remove_node(struct con_verdict *v, unsigned node);
// -ENOENT.
int con_verdict_find_node(const struct con_verdict *v, const char *name) SP_MUST_CHECK;
int con_verdict_find_vantage(const struct con_verdict *v, const char *name) SP_MUST_CHECK;

// ---- what is known ----

// A sign of life of a vantage, and whether it reaches what does not depend on the fleet.
void con_verdict_heard(struct con_verdict *v, unsigned vantage, bool controls_ok,
		       uint64_t now_ms);

struct con_probe_result {
	unsigned carrier;
	bool ok;
	bool answered; // the node spoke and proved who it is, however far it got
	uint64_t began_ms, ended_ms;
	uint32_t latency_us; // to a session; 0: it did not get there
	const char *rung;    // reached or fallen from; copied
	const char *reason;  // word; copied
};
// 0; SP_E_STALE: from before the node's last change, or not newer than the last one of
// this vantage and carrier: ignored; -ENOENT; -EINVAL: no such carrier; -ENOMEM.
int con_verdict_result(struct con_verdict *v, unsigned vantage, unsigned node,
		       const struct con_probe_result *r) SP_MUST_CHECK;
// The node's config or its boot is another: results of probes that began before do not
// count. Honoured once in reset_ms, so that a node that starts over and over is seen.
void con_verdict_forget(struct con_verdict *v, unsigned node, uint64_t now_ms);
void con_verdict_set_draining(struct con_verdict *v, unsigned node, bool draining);
// What real sessions met since the last call. Too many failures are one vote against the
// node for silent_ms; it is never a vote for it.
void con_verdict_passive(struct con_verdict *v, unsigned node, uint64_t good,
			 uint64_t failed, uint64_t now_ms);

// ---- judging ----

struct con_node_change {
	unsigned node;
	enum con_node_state from, to;
	enum con_node_cause cause;
	uint32_t vantages;               // mask: who saw it fail
	char rung[CON_VERDICT_WORD_MAX]; // what most of them met, "" unless it fell
	char reason[CON_VERDICT_WORD_MAX];
};
// One cycle: every node is judged by the same facts, then all states change. Writes up to
// `cap` changes and returns how many there were.
size_t con_verdict_cycle(struct con_verdict *v, uint64_t now_ms,
			 struct con_node_change *ret, size_t cap);

struct con_verdict_status { // as of the last cycle
	bool panic;         // under panic_percent of the fleet alive: all are offered
	bool blind;         // vantages have spoken, none has a vote: states stand still
	uint32_t voters;    // mask
	uint32_t silent, cut_off,
		astray; // masks of who has none: says nothing; fails its
			// controls; fails more than half of the fleet
	unsigned nodes[CON_NODE_STATES];
};
void con_verdict_status(const struct con_verdict *v, struct con_verdict_status *ret);

struct con_node_view { // as of the last cycle
	const char *name, *region;
	enum con_node_state state;
	enum con_node_cause cause;
	uint32_t failing;      // mask of vantages whose last results are failures
	uint32_t blocked;      // mask of those from which it is blocked
	uint32_t bad_carriers; // mask: fail for a quorum
	unsigned flaps;
	uint64_t since_ms; // in this state
	uint64_t held_until_ms;
	uint64_t demotions; // since it is known
};
unsigned con_verdict_nodes(const struct con_verdict *v); // indices are below it
// False: no node has this index (any more).
bool con_verdict_node(const struct con_verdict *v, unsigned node,
		      struct con_node_view *ret);
// Whether a client in `region` ("" or NULL: unknown) is told of the node, and by how many
// percent of its weight.
bool con_verdict_offered(const struct con_verdict *v, unsigned node, const char *region,
			 uint64_t now_ms, unsigned *ret_percent);
// Mean time to a session as seen from the vantages of a region, else from all. 0: none.
uint32_t con_verdict_latency_us(const struct con_verdict *v, unsigned node,
				const char *region);

// How many vantages that vote had no authentic word of the node on any carrier for for_ms
// at least, from the beginning of the first such probe, or the last word that anybody who
// votes had, to the end of the last probe. 0 while anybody who votes has one from his
// last probe: then it lives, however badly it serves. A refused connection is no word
// either, so this alone proves nothing.
unsigned con_verdict_unreached(const struct con_verdict *v, unsigned node,
			       uint32_t for_ms, uint64_t now_ms);

struct con_sight_view { // what one vantage sees of one carrier of a node
	bool ok;
	unsigned row;        // results of this kind in a row
	uint64_t since_ms;   // the first of them
	uint64_t last_ms;    // and the last
	uint32_t latency_us; // smoothed, to a session, of the best carrier; 0: none
	bool contested;      // refuted by others: it does not count for this node
	const char *rung;   // reached or fallen from, as told last; until the next result
	const char *reason; // likewise
};
// False: it has not told of it.
bool con_verdict_sight(const struct con_verdict *v, unsigned node, unsigned vantage,
		       unsigned carrier, uint64_t now_ms, struct con_sight_view *ret);
unsigned con_verdict_vantages(const struct con_verdict *v);
const char *con_verdict_vantage_name(const struct con_verdict *v,
				     unsigned vantage); // NULL: none
const char *con_verdict_vantage_region(const struct con_verdict *v,
				       unsigned vantage); // "": none

#endif
