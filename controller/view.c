#include "controller/view.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/fleet.h"
#include "lib/key.h"

#define WORKER_MAX   (SP_FLEET_NAME_MAX + 5) // "NAME/N" with its NUL
#define LATENCY_MS   50                      // up to it all are equally near
#define LATENCY_STEP 6                       // steps; each is twice as far
#define STANDBY      1e-9                    // weight of what has none

_Static_assert(crypto_shorthash_KEYBYTES == 16, "a node's hash is the key of its scores");

// A worker. It is offered once it has been enrolled.
struct node {
	char worker[WORKER_MAX];
	char name[SP_FLEET_NAME_MAX + 1]; // of the exit
	char group[SP_FLEET_NAME_MAX + 1];
	bool declared, enrolled, leased;
	uint32_t weight;
	json_t *carriers, *region; // of the declaration
	char home_id[17],
		public_key[SP_KEY_TEXT_MAX]; // of the enrolment; home_id "": none
	char *json;                          // NULL: one of both is missing
	size_t json_len;
	uint64_t digest;                // of json
	uint8_t key[16];                // of its scores
	float weighs[CON_VIEW_REGIONS]; // < 0: not offered
	uint8_t step[CON_VIEW_REGIONS]; // of latency
};

struct lease {
	char node[SP_FLEET_NAME_MAX + 1];
	uint64_t until_s;
};

struct con_view {
	con_view_judge *judge;
	void *ctx;
	struct node **node; // in no order; indices are those of lists
	uint32_t n, cap;
	json_t *by_worker; // worker -> index
	struct lease *lease;
	unsigned n_leases, cap_leases;
	json_t *declared; // names of regions
	char region[CON_VIEW_REGIONS][SP_FLEET_NAME_MAX + 1];
	unsigned n_regions;
	bool changed; // since the last refresh
};

int con_view_new(con_view_judge *judge, void *ctx, struct con_view **ret)
{
	struct con_view *v = calloc(1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	v->judge = judge;
	v->ctx = ctx;
	v->by_worker = json_object();
	v->declared = json_object();
	v->n_regions = 1; // ""
	if (!v->by_worker || !v->declared) {
		con_view_free(v);
		return -ENOMEM;
	}
	*ret = v;
	return 0;
}

static void node_free(struct node *n)
{
	json_decref(n->carriers);
	json_decref(n->region);
	free(n->json);
	free(n);
}

void con_view_free(struct con_view *v)
{
	if (!v)
		return;
	for (uint32_t i = 0; i < v->n; i++)
		node_free(v->node[i]);
	free(v->node);
	free(v->lease);
	json_decref(v->by_worker);
	json_decref(v->declared);
	free(v);
}

// ---- what the state says ----

static struct node *find(const struct con_view *v, const char *worker)
{
	json_t *i = json_object_get(v->by_worker, worker);
	return i ? v->node[json_integer_value(i)] : NULL;
}

// The name of the exit: the node's, and for its further workers "NAME.N". Names that
// would be two exits' at once are told apart by a hash.
static void name_exit(const struct con_view *v, struct node *n)
{
	const char *slash = strchr(n->worker, '/');
	int len = (int)(slash - n->worker);
	char other[WORKER_MAX + 8];
	if (strcmp(slash, "/0") == 0) {
		snprintf(n->name, sizeof(n->name), "%.*s", len, n->worker);
		return;
	}
	snprintf(other, sizeof(other), "%.*s.%s/0", len, n->worker, slash + 1);
	if (strlen(other) - 2 <= SP_FLEET_NAME_MAX && !find(v, other))
		snprintf(n->name, sizeof(n->name), "%.*s", (int)strlen(other) - 2, other);
	else
		snprintf(n->name, sizeof(n->name), "worker-%02x%02x%02x%02x%02x%02x",
			 n->key[0], n->key[1], n->key[2], n->key[3], n->key[4],
			 n->key[5]);
}

static int node_get(struct con_view *v, const char *worker, struct node **ret)
{
	if ((*ret = find(v, worker)))
		return 0;
	if (strlen(worker) >= WORKER_MAX || !strchr(worker, '/'))
		return SP_E_MALFORMED;
	if (v->n == CON_VIEW_NODES_MAX)
		return SP_E_LIMIT;
	if (v->n == v->cap) {
		uint32_t cap = v->cap ? 2 * v->cap : 16;
		struct node **more = realloc(v->node, cap * sizeof(struct node *));
		if (!more)
			return -ENOMEM;
		v->node = more;
		v->cap = cap;
	}
	struct node *n = calloc(1, sizeof(*n));
	if (!n || json_object_set_new(v->by_worker, worker, json_integer(v->n))) {
		free(n);
		return -ENOMEM;
	}
	strcpy(n->worker, worker);
	crypto_generichash(n->key, sizeof(n->key), (const uint8_t *)worker,
			   strlen(worker), NULL, 0);
	for (unsigned r = 0; r < CON_VIEW_REGIONS; r++)
		n->weighs[r] = -1;
	v->node[v->n++] = n;
	*ret = n;
	return 0;
}

static void node_drop(struct con_view *v, struct node *n)
{
	uint32_t i =
		(uint32_t)json_integer_value(json_object_get(v->by_worker, n->worker));
	struct node *last = v->node[--v->n];
	v->node[i] = last;
	if (last != n)
		json_integer_set(json_object_get(v->by_worker, last->worker), i);
	json_object_del(v->by_worker, n->worker);
	node_free(n);
}

// A carrier as clients see it: not where it is bound.
static json_t *client_carriers(const json_t *carriers)
{
	static const char *const keys[] = {"kind",       "address", "server_name",
					   "pin_sha256", "ca_file", NULL};
	json_t *from, *list = json_array();
	size_t i;
	json_array_foreach(carriers, i, from)
	{
		json_t *to = json_object();
		for (const char *const *k = keys; *k; k++)
			if (json_object_get(from, *k))
				json_object_set(to, *k, json_object_get(from, *k));
		json_array_append_new(list, to);
	}
	return list;
}

// Makes what clients are told of it.
static int node_print(struct con_view *v, struct node *n)
{
	uint8_t hash[8];
	free(n->json);
	n->json = NULL;
	v->changed = true;
	if (!n->declared || !n->enrolled)
		return 0;
	name_exit(v, n);
	json_t *o = json_pack("{s:s, s:I, s:s, s:o}", "name", n->name, "weight",
			      (json_int_t)n->weight, "public_key", n->public_key,
			      "carriers", client_carriers(n->carriers));
	int bad = !o;
	if (o && n->region)
		bad |= json_object_set(o, "region", n->region);
	if (o && *n->home_id)
		bad |= json_object_set_new(o, "home_id", json_string(n->home_id));
	n->json = bad ? NULL : json_dumps(o, JSON_COMPACT | JSON_SORT_KEYS);
	json_decref(o);
	if (!n->json)
		return -ENOMEM;
	n->json_len = strlen(n->json);
	crypto_generichash(hash, sizeof(hash), (uint8_t *)n->json, n->json_len, NULL, 0);
	memcpy(&n->digest, hash, sizeof(n->digest));
	return 0;
}

static int set_node(struct con_view *v, struct node *n, json_t *o)
{
	const char *group = json_string_value(json_object_get(o, "group"));
	json_t *carriers = json_object_get(o, "carriers");
	json_int_t weight = json_integer_value(json_object_get(o, "weight"));
	n->declared = false;
	if (o && (!json_array_size(carriers) || weight < 0 || weight > 10000 ||
		  (group && strlen(group) > SP_FLEET_NAME_MAX))) {
		(void)!node_print(v, n);
		return SP_E_MALFORMED;
	}
	json_decref(n->carriers);
	json_decref(n->region);
	n->carriers = json_incref(carriers);
	n->region = json_incref(json_object_get(o, "region"));
	n->weight = (uint32_t)weight;
	snprintf(n->group, sizeof(n->group), "%s", group ? group : "");
	n->declared = o != NULL;
	return node_print(v, n);
}

static int set_identity(struct con_view *v, struct node *n, json_t *o)
{
	const char *key = json_string_value(json_object_get(o, "static"));
	json_t *home = json_object_get(o, "home_id");
	uint8_t bytes[32];
	n->enrolled = key && sp_key_parse(SP_KEY_WORKER, false, key, strlen(key), bytes,
					  NULL, 0) == 0;
	if (n->enrolled)
		sp_key_format(SP_KEY_WORKER, false, bytes, n->public_key);
	n->home_id[0] = '\0';
	if (json_is_integer(home))
		snprintf(n->home_id, sizeof(n->home_id), "%016llx",
			 (unsigned long long)json_integer_value(home));
	else if (json_is_string(home))
		snprintf(n->home_id, sizeof(n->home_id), "%s", json_string_value(home));
	int err = node_print(v, n);
	return err ? err : o && !n->enrolled ? SP_E_MALFORMED : 0;
}

static int set_lease(struct con_view *v, const char *node, const json_t *o)
{
	unsigned i = 0;
	if (strlen(node) > SP_FLEET_NAME_MAX)
		return SP_E_MALFORMED;
	v->changed = true;
	while (i < v->n_leases && strcmp(v->lease[i].node, node) != 0)
		i++;
	if (!o) {
		if (i < v->n_leases)
			v->lease[i] = v->lease[--v->n_leases];
		return 0;
	}
	if (i == v->cap_leases) {
		unsigned cap = v->cap_leases ? 2 * v->cap_leases : 8;
		struct lease *more = realloc(v->lease, cap * sizeof(*more));
		if (!more)
			return -ENOMEM;
		v->lease = more;
		v->cap_leases = cap;
	}
	v->n_leases += i == v->n_leases;
	strcpy(v->lease[i].node, node);
	v->lease[i].until_s = (uint64_t)json_integer_value(json_object_get(o, "until"));
	return 0;
}

static int set_worker(struct con_view *v, const char *key, json_t *o)
{
	bool is_node = strncmp(key, "node/", 5) == 0;
	const char *worker = strchr(key, '/') + 1;
	struct node *n = find(v, worker);
	if (!n && !o)
		return 0;
	int err = n ? 0 : node_get(v, worker, &n);
	if (err)
		return err;
	err = is_node ? set_node(v, n, o) : set_identity(v, n, o);
	if (!n->declared && !n->enrolled)
		node_drop(v, n);
	return err;
}

int con_view_set(struct con_view *v, const char *key, const char *json, size_t len)
{
	bool worker = strncmp(key, "node/", 5) == 0 || strncmp(key, "identity/", 9) == 0;
	bool lease = strncmp(key, "lease/", 6) == 0;
	if (strncmp(key, "region/", 7) == 0) {
		if (!json)
			json_object_del(v->declared, key + 7);
		return json && json_object_set_new(v->declared, key + 7, json_true())
			       ? -ENOMEM
			       : 0;
	}
	if (!worker && !lease)
		return 0;
	json_t *o = json ? json_loadb(json, len, 0, NULL) : NULL;
	int err = json && !o ? SP_E_MALFORMED
		  : lease    ? set_lease(v, key + 6, o)
			     : set_worker(v, key, o);
	json_decref(o);
	return err;
}

// ---- health ----

// Steps of doubling distance; a step is left only when the latency is a quarter beyond
// its bounds.
static uint8_t latency_step(uint32_t us, uint8_t before)
{
	double ms = us / 1000.0;
	uint8_t step = 0;
	while (step < LATENCY_STEP && ms > LATENCY_MS * (double)(1 << step))
		step++;
	if (step == before + 1 && ms < 1.25 * LATENCY_MS * (double)(1 << before))
		return before;
	if (before == step + 1 && ms > 0.75 * LATENCY_MS * (double)(1 << step))
		return before;
	return step;
}

// Down to a quarter, a half, three quarters, all.
static unsigned percent_step(unsigned percent)
{
	return percent >= 100 ? 100 : percent >= 75 ? 75 : percent >= 50 ? 50 : 25;
}

static bool is_leased(const struct con_view *v, const struct node *n, uint64_t now_s)
{
	for (unsigned i = 0; i < v->n_leases; i++) {
		size_t len = strlen(v->lease[i].node);
		if (strncmp(n->worker, v->lease[i].node, len) == 0 &&
		    n->worker[len] == '/')
			return v->lease[i].until_s > now_s;
	}
	return false;
}

static float weigh(const struct con_view *v, struct node *n, unsigned region)
{
	struct con_view_health h = {.offered = true, .percent = 100};
	if (!n->json || n->leased)
		return -1;
	if (v->judge)
		v->judge(v->ctx, n->worker, v->region[region], &h);
	if (!h.offered)
		return -1;
	if (h.latency_us)
		n->step[region] = latency_step(h.latency_us, n->step[region]);
	return (float)((double)n->weight * percent_step(h.percent) / 100 /
		       (double)(1 << n->step[region]));
}

bool con_view_refresh(struct con_view *v, uint64_t now_s)
{
	bool changed = v->changed;
	for (uint32_t i = 0; i < v->n; i++) {
		struct node *n = v->node[i];
		n->leased = v->n_leases && is_leased(v, n, now_s);
		for (unsigned r = 0; r < v->n_regions; r++) {
			float w = weigh(v, n, r);
			if (w < n->weighs[r] || w > n->weighs[r]) {
				n->weighs[r] = w;
				changed = true;
			}
		}
	}
	v->changed = false;
	return changed;
}

unsigned con_view_region(struct con_view *v, const char *name)
{
	if (!*name || !json_object_get(v->declared, name))
		return 0;
	for (unsigned r = 1; r < v->n_regions; r++)
		if (strcmp(v->region[r], name) == 0)
			return r;
	if (v->n_regions == CON_VIEW_REGIONS)
		return 0;
	unsigned r = v->n_regions++;
	snprintf(v->region[r], sizeof(v->region[r]), "%s", name);
	for (uint32_t i = 0; i < v->n; i++) {
		v->node[i]->weighs[r] = v->node[i]->weighs[0];
		v->node[i]->step[r] = v->node[i]->step[0];
	}
	return r;
}

// ---- one client ----

struct scored {
	double score; // the least is the best
	uint32_t exit;
};

// Weighted rendezvous: each node draws from the exponential distribution of its weight,
// by a hash of both; the least draw wins, with a chance proportional to the weight
// (Schindelhauer and Schomaker, 2005, logarithmic method).
static double score(const struct node *n, const uint8_t *device, float weight)
{
	uint8_t hash[crypto_shorthash_BYTES];
	uint64_t h = 0;
	crypto_shorthash(hash, device, SP_PASS_DEVICE_BYTES, n->key);
	for (size_t i = 0; i < sizeof(hash); i++)
		h = h << 8 | hash[i];
	double u = ((double)(h >> 11) + 0.5) / (double)(UINT64_C(1) << 53);
	return -log(u) / (weight > 0 ? (double)weight : STANDBY);
}

static bool allows(const struct con_view_client *who, const struct node *n)
{
	if (!who->n_groups || !*n->group)
		return true;
	for (unsigned i = 0; i < who->n_groups; i++)
		if (strcmp(who->groups[i], n->group) == 0)
			return true;
	return false;
}

static int by_score(const void *a, const void *b)
{
	const struct scored *x = a, *y = b;
	return x->score < y->score ? -1 : x->score > y->score;
}

// Puts s into the heap of the best so far, whose worst is on top.
static void keep_best(struct scored *heap, unsigned *n, struct scored s)
{
	unsigned i, child;
	if (*n < CON_VIEW_EXITS) {
		for (i = (*n)++; i && heap[(i - 1) / 2].score < s.score; i = (i - 1) / 2)
			heap[i] = heap[(i - 1) / 2];
		heap[i] = s;
		return;
	}
	if (s.score >= heap[0].score)
		return;
	for (i = 0; (child = 2 * i + 1) < *n; i = child) {
		child += child + 1 < *n && heap[child + 1].score > heap[child].score;
		if (heap[child].score <= s.score)
			break;
		heap[i] = heap[child];
	}
	heap[i] = s;
}

// A client refuses a config in which two exits have one name, and a node "a.1" may be
// declared behind worker 1 of node "a".
static bool is_named_twice(const struct con_view *v, const struct con_view_list *l,
			   uint32_t exit)
{
	const char *name = v->node[exit]->name;
	for (unsigned i = 0; strchr(name, '.') && i < l->n; i++)
		if (strcmp(v->node[l->exit[i]]->name, name) == 0)
			return true;
	return false;
}

void con_view_select(const struct con_view *v, const struct con_view_client *who,
		     struct con_view_list *ret)
{
	struct scored heap[CON_VIEW_EXITS];
	unsigned region = who->region < v->n_regions ? who->region : 0, n = 0;
	for (uint32_t i = 0; i < v->n; i++) {
		const struct node *node = v->node[i];
		if (node->weighs[region] >= 0 && node->json && allows(who, node))
			keep_best(heap, &n,
				  (struct scored){
					  score(node, who->device, node->weighs[region]),
					  i});
	}
	qsort(heap, n, sizeof(heap[0]), by_score);
	ret->n = 0;
	ret->digest = 0;
	for (unsigned i = 0; i < n; i++) {
		if (is_named_twice(v, ret, heap[i].exit))
			continue;
		ret->exit[ret->n++] = heap[i].exit;
		ret->digest = (ret->digest ^ v->node[heap[i].exit]->digest) *
			      UINT64_C(0x9e3779b97f4a7c15);
		ret->digest ^= ret->digest >> 29;
	}
}

const char *con_view_exit(const struct con_view *v, uint32_t exit, size_t *ret_len)
{
	*ret_len = v->node[exit]->json_len;
	return v->node[exit]->json;
}

void con_view_count(const struct con_view *v, struct con_view_counts *ret)
{
	*ret = (struct con_view_counts){0};
	for (uint32_t i = 0; i < v->n; i++) {
		ret->nodes += v->node[i]->declared;
		ret->enrolled += v->node[i]->json != NULL;
		ret->offered += v->node[i]->json && v->node[i]->weighs[0] >= 0;
	}
}
