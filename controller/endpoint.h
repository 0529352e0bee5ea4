// The config endpoint: what clients fetch with a bearer token and their device key, by
// ETag and long poll, and the answer to probes' nonces. Joins clients.h and the
// responder. Not here: HTTP itself (http.h), what each client is told (clients.h), who is
// healthy (the caller's judge).
//
//   GET /v1/config[?wait=SECONDS][&region=NAME]   200, 304, 404, 429, 503
//   GET /v1/probe/NONCE                           204 (lib/proof.h)
//
// Whoever shows no good token gets one and the same 404, whatever was asked and how; only
// the probe needs none. Limits and reasons: docs/endpoint.md.
#ifndef CON_ENDPOINT_H
#define CON_ENDPOINT_H

#include "controller/clients.h"
#include "controller/http.h"
#include "lib/metrics.h"

#define CON_ENDPOINT_WAIT_S 55 // longest time that an answer is held back
#define CON_ENDPOINT_SLICE  32 // waiting polls looked at in a turn of the loop

struct con_endpoint;

struct con_endpoint_options {
	struct sp_loop *loop;
	struct sp_target listen; // port 0: any
	SSL_CTX *tls;            // NULL: plain. A reference of its own is taken
	struct con_http_limits http;
	struct con_clients_options clients; // its state must be there already
};
void con_endpoint_limits_default(struct con_endpoint_options *ret); // only the limits
// Reads the state, listens. 0 and *ret; errors of con_http_new.
int con_endpoint_new(const struct con_endpoint_options *opt,
		     struct con_endpoint **ret) SP_MUST_CHECK;
void con_endpoint_free(struct con_endpoint *e); // NULL is fine

// The state has changed by these, public or private: polls whose answer did are woken.
void con_endpoint_changed(struct con_endpoint *e, const struct sp_changes *changes);
// The verdict has changed. (It is asked each second anyway.)
void con_endpoint_judge(struct con_endpoint *e);
// Something else has that the callbacks tell, such as who is over quota.
void con_endpoint_poke(struct con_endpoint *e);

struct con_endpoint_counters {
	uint64_t fresh, not_modified;   // 200 and 304
	uint64_t waited, woken;         // held back; of these, answered for a change
	uint64_t strangers;             // 404
	uint64_t over_rate;             // of a token
	uint64_t no_exits;              // 503: none to offer
	uint64_t refused[CON_REFUSALS]; // 200, but without a pass; [NONE]: with one
	uint64_t probes;
};
const struct con_endpoint_counters *con_endpoint_counters(const struct con_endpoint *e);
struct con_http *con_endpoint_http(struct con_endpoint *e);
const struct con_clients *con_endpoint_clients(const struct con_endpoint *e);
unsigned con_endpoint_waiting(const struct con_endpoint *e);
void con_endpoint_metrics(struct con_endpoint *e, struct sp_metrics_writer *w);

#endif
