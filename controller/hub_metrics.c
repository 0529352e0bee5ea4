// The hub's families of metrics.
#include <stddef.h>
#include <string.h>

#include "controller/hub_internal.h"

// X(name, type, label or NULL, second label or NULL, help)
#define FAMILIES(X)                                                                      \
	X(bus_handshakes, COUNTER, "domain", "result", "Handshakes on the bus")          \
	X(bus_messages, COUNTER, "result", NULL, "Messages from peers")                  \
	X(bus_sent, COUNTER, "result", NULL, "Messages to peers")                        \
	X(bus_published, COUNTER, NULL, NULL, "Messages to all subscribers")             \
	X(bus_renewed, COUNTER, NULL, NULL, "Times that all links of a kind were cut")   \
	X(peers, GAUGE, "kind", "state", "Workers and vantages that may join")           \
	X(peers_current, GAUGE, "kind", NULL, "Connected peers that are at the head")    \
	X(peer_events, COUNTER, "event", NULL, "What happened with peers")               \
	X(hellos, COUNTER, "result", NULL, "Hellos of peers")                            \
	X(fetches, COUNTER, "answer", NULL, "Answers to fetches")                        \
	X(fetch_bytes, COUNTER, NULL, NULL, "Bytes of answers to fetches")               \
	X(fetches_waiting, GAUGE, NULL, NULL,                                            \
	  "Peers that wait for an answer to a fetch")                                    \
	X(snapshots_made, COUNTER, NULL, NULL, "Snapshots encoded, each for all")        \
	X(acks, COUNTER, "result", NULL, "Revisions that peers applied or refused")      \
	X(nacks, COUNTER, "about", NULL, "Revisions that peers refused, by the key")     \
	X(config_propagation_seconds, HISTOGRAM, NULL, NULL,                             \
	  "From publishing a revision to a peer's ack")

enum family {
#define X(name, type, a, b, help) F_##name,
	FAMILIES(X)
#undef X
};

static const struct sp_metric families[] = {
#define X(name, type, a, b, help)                                                        \
	[F_##name] = {"sallyport_controller_" #name, SP_METRIC_##type, help, {a, b}},
	FAMILIES(X)
#undef X
};

static void sample(struct sp_metrics_writer *w, uint64_t v, const char *label)
{
	sp_metrics_u64(w, v, SP_LABELS(label));
}

static void one(struct sp_metrics_writer *w, enum family f, uint64_t v)
{
	sp_metrics_family(w, &families[f]);
	sp_metrics_u64(w, v, NULL);
}

static void put_bus(const struct con_hub *h, struct sp_metrics_writer *w)
{
	const struct sp_bus_server_counters *b = sp_bus_server_counters(h->bus);
	uint64_t refused = b->handshakes_refused - b->handshakes_later;
	sp_metrics_family(w, &families[F_bus_handshakes]);
	sp_metrics_u64(w, b->handshakes_ok - b->enrol_ok, SP_LABELS("fleet", "ok"));
	sp_metrics_u64(w, refused - (b->enrol_refused - b->enrol_later),
		       SP_LABELS("fleet", "refused"));
	sp_metrics_u64(w, b->handshakes_later - b->enrol_later,
		       SP_LABELS("fleet", "later"));
	sp_metrics_u64(w, b->enrol_ok, SP_LABELS("enrol", "ok"));
	sp_metrics_u64(w, b->enrol_refused - b->enrol_later,
		       SP_LABELS("enrol", "refused"));
	sp_metrics_u64(w, b->enrol_later, SP_LABELS("enrol", "later"));
	sp_metrics_family(w, &families[F_bus_messages]);
	sample(w, b->messages, "taken");
	sample(w, b->messages_refused, "no-key");
	sample(w, b->malformed + h->n_of.malformed, "malformed");
	sample(w, h->n_of.flooded, "flood");
	sample(w, h->n_of.no_hello, "no-hello");
	sample(w, h->n_of.other_route, "other-link");
	sample(w, h->n_of.not_allowed, "not-allowed");
	sp_metrics_family(w, &families[F_bus_sent]);
	sample(w, b->sent, "ok");
	sample(w, b->send_failed, "failed");
	sample(w, b->not_read, "not-read");
	one(w, F_bus_published, b->published);
	one(w, F_bus_renewed, b->renewed);
}

static void put_peers(const struct con_hub *h, struct sp_metrics_writer *w)
{
	static const char *const kinds[] = {"vantage", "worker"};
	enum { CONNECTED, LOST, NEVER };
	uint64_t n[2][3] = {{0}}, current[2] = {0};
	for (size_t i = 0; i < h->n; i++) {
		const struct hub_peer *p = h->all[i];
		n[p->is_worker][p->pub.connected ? CONNECTED
				: p->pub.boot    ? LOST
						 : NEVER]++;
		current[p->is_worker] +=
			p->pub.connected && sp_position_same(&p->pub.applied, &h->head);
	}
	sp_metrics_family(w, &families[F_peers]);
	for (int k = 0; k < 2; k++) {
		sp_metrics_u64(w, n[k][CONNECTED], SP_LABELS(kinds[k], "connected"));
		sp_metrics_u64(w, n[k][LOST], SP_LABELS(kinds[k], "lost"));
		sp_metrics_u64(w, n[k][NEVER], SP_LABELS(kinds[k], "never"));
	}
	sp_metrics_family(w, &families[F_peers_current]);
	for (int k = 0; k < 2; k++)
		sample(w, current[k], kinds[k]);
	sp_metrics_family(w, &families[F_peer_events]);
	for (int e = 0; e < CON_HUB_EVENTS_N; e++)
		sample(w, h->n_of.events[e], con_hub_event_word((enum con_hub_event)e));
}

void con_hub_metrics(const struct con_hub *h, struct sp_metrics_writer *w)
{
	static const char *const hellos[HELLO_N] = {[HELLO_NEW] = "new",
						    [HELLO_AGAIN] = "again",
						    [HELLO_OTHER_BOOT] = "other-boot",
						    [HELLO_REFUSED] = "refused"};
	static const char *const answers[ANSWER_N] = {[ANSWER_CURRENT] = "current",
						      [ANSWER_REVISIONS] = "revisions",
						      [ANSWER_SNAPSHOT] = "snapshot",
						      [ANSWER_NONE] = "refused"};
	put_bus(h, w);
	put_peers(h, w);
	sp_metrics_family(w, &families[F_hellos]);
	for (int i = 0; i < HELLO_N; i++)
		sample(w, h->n_of.hellos[i], hellos[i]);
	sp_metrics_family(w, &families[F_fetches]);
	for (int i = 0; i < ANSWER_N; i++)
		sample(w, h->n_of.answers[i], answers[i]);
	one(w, F_fetch_bytes, h->n_of.fetch_bytes);
	one(w, F_fetches_waiting, h->n_fetches);
	one(w, F_snapshots_made, h->n_of.snapshots_made);
	sp_metrics_family(w, &families[F_acks]);
	sample(w, h->n_of.acks, "ack");
	sample(w, h->n_of.nacks, "nack");
	sp_metrics_family(w, &families[F_nacks]);
	for (int i = 0; i < HUB_NACK_WORDS - 1 && h->n_of.nacked[i].n; i++)
		sample(w, h->n_of.nacked[i].n, h->n_of.nacked[i].about);
	sample(w, h->n_of.nacked[HUB_NACK_WORDS - 1].n, "-");
	sp_metrics_family(w, &families[F_config_propagation_seconds]);
	sp_metrics_histogram(w, &h->ack_seconds, NULL);
}
