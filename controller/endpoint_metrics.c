// Metrics of the config endpoint. Never a user, a token or an address.
#include <stdio.h>

#include "controller/endpoint.h"

// X(name, type, label or NULL, help)
#define FAMILIES(X)                                                                      \
	X(requests, COUNTER, NULL, "HTTP requests")                                      \
	X(answers, COUNTER, "status", "Answers by HTTP status")                          \
	X(connections, GAUGE, NULL, "Connections of clients")                            \
	X(accepted, COUNTER, NULL, "Connections accepted")                               \
	X(evicted, COUNTER, NULL, "Stale connections closed for newer ones")             \
	X(refused, COUNTER, "cause", "Connections and requests that were cut short")     \
	X(waiting, GAUGE, NULL, "Long polls that wait")                                  \
	X(waited, COUNTER, NULL, "Long polls that were held back")                       \
	X(woken, COUNTER, NULL, "Of these, answered because something changed")          \
	X(configs, COUNTER, "pass", "Configs sent, with a pass or without")              \
	X(passes_refused, COUNTER, "reason",                                             \
	  "Configs sent without a pass, by the reason")                                  \
	X(strangers, COUNTER, NULL, "Requests without a good token")                     \
	X(no_exits, COUNTER, NULL, "Requests when there was no exit to offer")           \
	X(probes, COUNTER, NULL, "Nonces of probes answered")                            \
	X(clients, GAUGE, NULL, "Clients remembered")                                    \
	X(exits, GAUGE, "kind", "Workers declared, enrolled, and offered")

enum family {
#define X(name, type, label, help) F_##name,
	FAMILIES(X)
#undef X
};

static const struct sp_metric table[] = {
#define X(name_, type_, label, help_)                                                    \
	{.name = "sallyport_controller_endpoint_" #name_,                                \
	 .type = SP_METRIC_##type_,                                                      \
	 .help = help_,                                                                  \
	 .labels = {label}},
	FAMILIES(X)
#undef X
};

static void one(struct sp_metrics_writer *w, enum family f, uint64_t v)
{
	sp_metrics_family(w, &table[f]);
	sp_metrics_u64(w, v, NULL);
}

static void put(struct sp_metrics_writer *w, const char *label, uint64_t v)
{
	sp_metrics_u64(w, v, SP_LABELS(label));
}

static void put_http(struct sp_metrics_writer *w, struct con_http *http,
		     const struct con_endpoint_counters *n)
{
	const struct con_http_counters *h = con_http_counters(http);
	char status[16];
	one(w, F_requests, h->requests);
	sp_metrics_family(w, &table[F_answers]);
	for (int i = 0; i < CON_HTTP_STATUSES; i++) {
		snprintf(status, sizeof(status), "%d", con_http_status[i]);
		put(w, con_http_status[i] ? status : "other", h->answers[i]);
	}
	one(w, F_connections, con_http_connections(http));
	one(w, F_accepted, h->accepted);
	one(w, F_evicted, h->evicted);
	sp_metrics_family(w, &table[F_refused]);
	put(w, "address-rate", h->over_rate);
	put(w, "token-rate", n->over_rate);
	put(w, "slow-request", h->head_late);
	put(w, "slow-reader", h->unread);
	put(w, "tls", h->tls_failed);
	put(w, "accept", h->accept_errors);
}

void con_endpoint_metrics(struct con_endpoint *e, struct sp_metrics_writer *w)
{
	const struct con_endpoint_counters *n = con_endpoint_counters(e);
	struct con_view_counts view;
	put_http(w, con_endpoint_http(e), n);
	one(w, F_waiting, con_endpoint_waiting(e));
	one(w, F_waited, n->waited);
	one(w, F_woken, n->woken);
	sp_metrics_family(w, &table[F_configs]);
	put(w, "yes", n->refused[CON_REFUSAL_NONE]);
	put(w, "no", n->fresh - n->refused[CON_REFUSAL_NONE]);
	sp_metrics_family(w, &table[F_passes_refused]);
	for (int r = CON_REFUSAL_NONE + 1; r < CON_REFUSALS; r++)
		put(w, con_refusal_word((enum con_refusal)r), n->refused[r]);
	one(w, F_strangers, n->strangers);
	one(w, F_no_exits, n->no_exits);
	one(w, F_probes, n->probes);
	one(w, F_clients, con_clients_count(con_endpoint_clients(e)));
	con_view_count(con_clients_view(con_endpoint_clients(e)), &view);
	sp_metrics_family(w, &table[F_exits]);
	put(w, "declared", view.nodes);
	put(w, "enrolled", view.enrolled);
	put(w, "offered", view.offered);
}
