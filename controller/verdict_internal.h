// Inside the verdict: its records. Not for other modules. Pure.
#ifndef CON_VERDICT_INTERNAL_H
#define CON_VERDICT_INTERNAL_H

#include <sodium.h>

#include "controller/verdict.h"
#include "lib/idmap.h"

// Results of one kind in a row, of one carrier as seen by one vantage.
struct con_track {
	bool ok;
	unsigned n;        // length of the row; 0: nothing is known
	uint64_t began_ms; // its first result
	// No authentic word of the node: from the beginning of the first such probe to
	// the end of the last; 0: the last one had one.
	uint64_t mute_from_ms, mute_to_ms;
	uint64_t spoke_ms;                   // when the last one that had one ended
	uint64_t at[CON_VERDICT_STREAK_MAX]; // its last results, as a ring: number i
					     // (from 0) at i % CON_VERDICT_STREAK_MAX
	char rung[CON_VERDICT_WORD_MAX], reason[CON_VERDICT_WORD_MAX];
};

struct con_sight { // what one vantage knows of one node
	uint32_t latency_us;
	uint64_t contested_until_ms;
	struct con_track track[]; // one for each carrier
};

struct con_vantage {
	char name[CON_VERDICT_NAME_MAX + 1]; // "": free
	char region[CON_VERDICT_NAME_MAX + 1];
	bool heard, controls_ok;
	uint64_t heard_ms;
	// of the cycle
	bool present; // speaks and reaches its controls
	bool votes;
	uint64_t voting_since_ms;
};

struct con_node {
	char name[CON_VERDICT_NAME_MAX + 1]; // "": free
	unsigned index;
	unsigned region;
	unsigned carriers;
	bool draining;
	uint64_t added_ms;
	uint64_t since_result_ms; // probes that began before do not count
	bool was_reset;
	uint64_t reset_ms;
	bool passive_bad;
	uint64_t passive_until_ms, passive_good, passive_failed, passive_began_ms;
	struct con_sight *sight[CON_VANTAGES_MAX]; // NULL: never seen

	enum con_node_state state;
	enum con_node_cause cause;
	uint64_t since_ms, fell_ms, held_until_ms, returned_ms;
	bool returned; // weight grows from returned_ms
	unsigned flaps;
	uint64_t demotions;

	// of the cycle
	struct con_opinion {
		bool dead, alive, raw_dead;
		uint32_t failing, blocked, bad_carriers;
		uint64_t last_ok_ms;
	} op;
	enum con_node_state next;
	enum con_node_cause next_cause;
};

struct con_region {
	char name[CON_VERDICT_NAME_MAX + 1];
	unsigned size, demoted, healthy; // of the cycle
};

struct con_verdict {
	struct con_verdict_options opt;
	struct con_vantage vantage[CON_VANTAGES_MAX];
	struct con_node **node; // NULL: free
	unsigned n_nodes;
	struct sp_idmap by_name; // by hash_name
	uint8_t name_key[crypto_shorthash_KEYBYTES];
	struct con_region *region;
	unsigned n_regions;
	struct con_verdict_status status;
	bool well;
	uint64_t well_since_ms;
	uint64_t began_ms; // the first cycle; 0: none yet
};

// Who votes, who is not believed (verdict_view.c).
void con_verdict_weigh_vantages(struct con_verdict *v, uint64_t now_ms);
// Fills node->op from what vantages know.
void con_verdict_form_opinion(struct con_verdict *v, struct con_node *n, uint64_t now_ms);
// What most of the vantages in `mask` fell from.
void con_verdict_main_failure(const struct con_verdict *v, const struct con_node *n,
			      uint32_t mask, struct con_node_change *ret);

#endif
