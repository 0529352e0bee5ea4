// Inside health: what its files share. Not for other modules.
#ifndef CON_HEALTH_INTERNAL_H
#define CON_HEALTH_INTERNAL_H

#include "controller/health.h"
#include "lib/addr.h"
#include "lib/derive.h"

#define HEALTH_REASONS     64 // pairs of rung and reason that are told apart
#define HEALTH_RUNGS_MAX   9
#define HEALTH_DETAIL_MAX  64
#define HEALTH_CARRIER_MAX (SP_TARGET_TEXT_MAX + 8)

// The last probe of one carrier by one vantage, as it was told; for operators alone.
struct health_probe {
	uint32_t rung_us[HEALTH_RUNGS_MAX]; // of each rung climbed
	unsigned rungs;
	uint32_t took_ms;
	char detail[HEALTH_DETAIL_MAX]; // printable ASCII, cut
};

struct health_node { // by the index of the verdict
	bool used;
	char node[SP_FLEET_NAME_MAX + 1]; // without the worker's number
	uint64_t sequence;                // of its last change
	uint64_t boot;
	bool draining;              // it says so
	uint64_t streams, failures; // last told, for what real sessions meet
	unsigned n_carriers;
	char carrier[CON_VERDICT_CARRIERS_MAX][HEALTH_CARRIER_MAX];
	uint64_t last_ended_ms[CON_VANTAGES_MAX][CON_VERDICT_CARRIERS_MAX]; // Unix
	struct health_probe *probe[CON_VANTAGES_MAX]; // one for each carrier; NULL: none
};

struct health_vantage {
	uint64_t boot, sequence; // of its report
	bool spoke;
};

struct con_health {
	struct con_health_options opt;
	struct con_verdict *verdict;
	struct sp_state *state; // what of it matters here
	struct health_node **node;
	unsigned n_nodes, hint;
	struct health_vantage vantage[CON_VANTAGES_MAX];
	uint32_t cycle_ms;
	struct sp_timer cycle;
	struct con_verdict_status was;
	LIST_HEAD(, con_health_listener) listeners;
	// counters
	uint64_t reports, results, stale, unknown, cycles;
	uint64_t
		reached[HEALTH_RUNGS_MAX + 2]; // by rung that was fallen from; top; other
	struct {
		char rung[CON_VERDICT_WORD_MAX], reason[CON_VERDICT_WORD_MAX];
		uint64_t n;
	} demotions[HEALTH_REASONS];
};

// Index of a worker in the verdict; -ENOENT.
int health_find(struct con_health *h, const char *worker);
// Keeps a probe to be shown; without memory, nothing. `p` has a carrier of the node.
void health_keep_probe(struct health_node *n, unsigned vantage, unsigned carrier,
		       const Sallyport__Fleet__Probe *p);
// By the rung that it reached.
void health_count_probe(struct con_health *h, const Sallyport__Fleet__Probe *p);
void health_write_rungs(const struct con_health *h, struct sp_metrics_writer *w);
void health_drop_probes(struct health_node *n);
// What each vantage sees of each carrier of a node: new reference.
json_t *health_views(const struct con_health *h, unsigned node);
// Names of the vantages in a mask, with commas. Returns buf.
char *health_names(const struct con_health *h, uint32_t mask, char *buf, size_t cap);

#endif
