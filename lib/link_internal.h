// What the files of the link share (link*.c); nobody else includes this.
//
// A link does its work in one place, link_work, at the end of a turn of the loop: events,
// wakes of the engine and calls of the program only note something and defer it. So
// nothing is re-entered, and a link sends once per turn however often it was woken.
//
//   CARRIER --> FLIGHT --> ATTACH --> RUN     each of them, when ended --> FLUSH -->
//   DRAIN
//                  `-> DISCARD (worker, tcp: a stranger)  ------------------^
#ifndef SP_LINK_INTERNAL_H
#define SP_LINK_INTERNAL_H

#include <sys/queue.h>

#include <event2/event.h>
#include <event2/event_struct.h>

#include "lib/link.h"
#include "lib/record.h"

#define LINK_IN_BYTES      (256 << 10)
#define LINK_TURN_BYTES    (1 << 20) // read, and again written, by a link in one turn
// The first bytes of a carrier go in records that fit one packet of 1,400 bytes, also
// inside of TLS.
#define LINK_OPENING_BYTES (24 << 10)
#define LINK_OPENING_PLAIN 1280
#define LINK_BATCH_MIN     (16 << 10)
#define LINK_BATCH_MAX     (128 << 10)
#define LINK_SILENT_US     1000000 // tls: then the cover site is connected to
#define LINK_LINGER_US     2000000 // flush and drain after the end

enum link_state {
	LINK_CARRIER, // connect, TLS
	LINK_FLIGHT,  // worker: until the first flight is whole; client: until the answer
	LINK_ATTACH,  // keys; worker: until ATTACH, client: until ATTACHED
	LINK_RUN,
	LINK_DISCARD, // a stranger on tcp
	LINK_FLUSH,   // over: send what is left, then FIN
	LINK_DRAIN,   // read until the peer's FIN
};

struct link_buf { // bytes off..len of an allocation
	uint8_t *p;
	uint32_t off, len, cap;
};

// A client's copy of what it was told; gone once the link is in use.
struct link_dial {
	uint8_t worker_public[32], device_secret[32], device_public[32];
	uint8_t ticket[SP_HS_TICKET_MAX], ticket_psk[32];
	size_t ticket_len, pass_len;
	int64_t skew_ms;
	struct sp_hs_client hs;
	uint8_t pass[];
};

struct link_accept { // a worker's: until ATTACH
	struct sp_hs_accept who;
	uint8_t ticket_psk[SP_HS_TICKETS][32];
};

TAILQ_HEAD(link_list, sp_link);

struct sp_link {
	struct sp_link_env *env;
	struct sp_carrier *carrier;
	const struct sp_link_client_ops *client; // one of the two
	const struct sp_link_worker_ops *worker;
	void *ctx;
	struct event ev; // of the carrier's descriptor
	struct sp_deferred work, reap;
	uint8_t state; // enum link_state
	uint8_t slot;
	uint8_t kind;         // enum sp_carrier_kind, as accepted
	uint8_t attach_flags; // client
	bool has_event;
	bool can_read, can_write;
	bool ready;       // in-memory: both, from the next link_work on
	bool want_output; // the engine has something
	bool attached;    // the engine knows this link
	bool keyed;       // tx and rx hold
	bool working;     // in link_work, which will see to output
	bool ended;       // no way back; `reason` says why
	bool finished;    // the program was told
	bool failed;      // the carrier can carry nothing any more
	bool peer_closed; // CLOSE came
	bool peer_fin;
	bool sent_fin;
	bool ticket_used; // client: by the home, perhaps
	bool estranged;
	bool stranger; // the program was told so: no `down`
	enum sp_reason reason;
	uint32_t opening; // plaintext sent in records of LINK_OPENING_PLAIN
	uint32_t batch;
	struct sp_carrier_rate rate;
	struct link_buf rbuf, wbuf; // an incomplete record; what the socket did not take
	struct link_buf held;       // worker: the first record, while `attach` waits
	bool again;                 // worker: `attach` is to be asked again
	struct sp_record_tx tx;
	struct sp_record_rx rx;
	struct sp_session *session;
	struct link_dial *dial;
	struct link_accept *accept;
	void *waiting; // from worker->silent
	uint64_t since_us, deadline_us;
	struct link_list *list;
	TAILQ_ENTRY(sp_link) entry, all;
	// client: from the answer
	uint8_t (*ticket_psk)[32];
	int64_t skew_ms;
	uint64_t boot_id, home_id;
};

struct sp_link_env {
	struct sp_link_env_options opt;
	struct sp_link_counters n;
	struct link_list all;
	bool closing; // being freed
	// Half-open. All but `dials` are ordered by time.
	struct link_list fresh;     // tls with a cover site, younger than LINK_SILENT_US
	struct link_list patient;   // the same, older: the cover site's timers hold
	struct link_list timed;     // must go on by deadline_us
	struct link_list dials;     // client
	struct link_list lingering; // ended
	struct sp_timer timer;
	struct sp_hs_worker hs;
	struct sp_gather gather;
	uint8_t in[LINK_IN_BYTES];
	uint8_t out[LINK_BATCH_MAX + SP_RECORD_MAX];
};

// link.c
int link_new(struct sp_link_env *env, struct sp_carrier *c, void *ctx,
	     struct sp_link **ret)
	SP_MUST_CHECK; // the carrier stays the caller's on errors
void link_start(struct sp_link *l);
// Moves the link to a list of the env (NULL: none) and sets the env's timer.
void link_enlist(struct sp_link *l, struct link_list *list, uint64_t deadline_us);
void link_defer(struct sp_link *l);
// Notes the end; link_work does the rest. The first reason counts.
void link_end(struct sp_link *l, enum sp_reason reason);
void link_fail(struct sp_link *l, int err); // the carrier gave `err`
void link_release_event(struct sp_link *l);
void link_bury(struct sp_link *l); // frees, at the end of the turn
void link_established(struct sp_link *l);
extern const struct sp_slot_ops link_slot_ops;

// link_io.c
int link_queue(struct sp_link *l, const uint8_t *buf, size_t len) SP_MUST_CHECK;
void link_queue_close(struct sp_link *l);
bool link_flush(struct sp_link *l); // what is queued; true: nothing is left
void link_flush_output(struct sp_link *l);
void link_read(struct sp_link *l);
int link_set_keys(struct sp_link *l, const struct sp_hs_keys *keys) SP_MUST_CHECK;
void link_buf_free(struct link_buf *b);
int link_buf_append(struct link_buf *b, const uint8_t *data, size_t len) SP_MUST_CHECK;

// link_client.c, link_worker.c: what comes after the carrier's handshake, and what to do
// with bytes before LINK_RUN. They return how many of `len` bytes are used up, or end the
// link.
void link_client_carrier_up(struct sp_link *l);
size_t link_client_answer(struct sp_link *l, const uint8_t *buf, size_t len);
bool link_client_sees_attached(const uint8_t *plain, size_t len);
void link_client_done(struct sp_link *l);
void link_worker_carrier_up(struct sp_link *l);
size_t link_worker_flight(struct sp_link *l, const uint8_t *buf, size_t len);
void link_worker_first_record(struct sp_link *l, const uint8_t *plain, size_t len);
void link_worker_attach_again(struct sp_link *l); // with what is held
// Gives the carrier away (tls) or begins to discard (tcp).
void link_worker_stranger(struct sp_link *l, enum sp_reason why, const uint8_t *buf,
			  size_t len);

#endif
