// The worker's side of the fleet's directory of sessions: says what sessions are here,
// and asks for the record of one whose home was elsewhere. Everything goes through the
// agent to a controller and is never waited for by a byte: with no answer within
// WRK_DIRECTORY_ASK_MS a session is made without its record.
//
// Put: a new session at once, a changed one within a second, a living one each
// WRK_DIRECTORY_TOUCH_S. What could not be said is said again when an agent is there.
// Limits: WRK_DIRECTORY_ASKING links may wait for an answer, a further one goes on
// without; a record holds the WRK_DIRECTORY_FLOWS flows used last.
//
// Not here: the sessions (worker/sessions.h), the socket (worker/agent_link.h).
#ifndef WRK_DIRECTORY_H
#define WRK_DIRECTORY_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "lib/link.h"
#include "lib/loop.h"
#include "lib/session.h"
#include "proto/local.pb-c.h"

#define WRK_DIRECTORY_ASK_MS 250
#define WRK_DIRECTORY_HOLD_MS                                                            \
	1000 // a link whose session's home is not known to be dead
	     // waits so long; asked anew each ASK_MS
#define WRK_DIRECTORY_TOUCH_S 60
#define WRK_DIRECTORY_ASKING  1024
#define WRK_DIRECTORY_FLOWS   256

struct wrk_directory;

// What is said of a session. Texts and bytes are borrowed.
struct wrk_directory_facts {
	const struct sp_session *engine;
	const uint8_t *device, *serial; // 32, 16 bytes
	const char *user, *tier;
	uint64_t expires_s, rate_bps;
	uint32_t max_sessions, max_streams, max_flows;
	bool live; // a carrier is attached
};

// A session's place here; embedded in the session's object, zeroed.
struct wrk_directory_session {
	TAILQ_ENTRY(wrk_directory_session) entry;
	uint8_t where; // which list
	uint64_t due_us, put_us;
	uint64_t flow_changes; // as it was put last
	uint32_t epoch;
	bool live;
};

struct wrk_directory_ops {
	void (*describe)(void *ctx, struct wrk_directory_session *ds,
			 struct wrk_directory_facts *ret);
	struct wrk_directory_session *(*find)(void *ctx, const uint8_t *id); // or NULL
	// The record of a session that is here belongs to another home (HOME_LOST), or
	// its user has too many (SESSION_LIMIT).
	void (*refused)(void *ctx, struct wrk_directory_session *ds, enum sp_reason why);
};

// How messages leave; wrk_agent_link's functions of these names.
struct wrk_directory_transport {
	int (*send)(void *link, const Sallyport__Local__FromExit *m); // 0, or an error
	uint64_t (*call)(void *link);                                 // a new number
	void *link;
};

struct wrk_directory_options {
	struct sp_loop *loop;
	uint64_t boot;
	struct wrk_directory_transport transport;
	const struct wrk_directory_ops *ops;
	void *ctx;
};

struct wrk_directory_counters {
	uint64_t puts, put_failures; // records; not sent, or refused for want of Redis
	uint64_t drops;
	uint64_t asked, adopted, fresh, refused, over, unavailable; // answers
	uint64_t asked_again; // while a link was held
	uint64_t lost;        // sessions whose record is another home's by now
	uint64_t answers_unknown, answers_malformed;
};

// 0 and *ret; -ENOMEM.
int wrk_directory_new(const struct wrk_directory_options *opt,
		      struct wrk_directory **ret) SP_MUST_CHECK;
void wrk_directory_free(struct wrk_directory *d); // NULL is fine

// A session is here: put at the end of the turn.
void wrk_directory_add(struct wrk_directory *d, struct wrk_directory_session *ds);
// Something of it may have changed. Cheap.
void wrk_directory_touch(struct wrk_directory *d, struct wrk_directory_session *ds);
// It is gone from here: the record of `id` is dropped; NULL: stays. Not added: nothing.
void wrk_directory_remove(struct wrk_directory *d, struct wrk_directory_session *ds,
			  const uint8_t *id);

enum wrk_directory_verdict {
	WRK_DIRECTORY_WAIT, // sp_link_attach_again is called when the answer is here
	WRK_DIRECTORY_ADOPTED,
	WRK_DIRECTORY_FRESH,       // there is no record
	WRK_DIRECTORY_UNAVAILABLE, // nobody knows
	WRK_DIRECTORY_REFUSED,
};
struct wrk_directory_answer {
	enum wrk_directory_verdict verdict;
	enum sp_reason why; // REFUSED: NOT_YOURS, NOT_ADOPTED, STALE_EPOCH, SESSION_LIMIT
	// ADOPTED: borrowed until the next call of this module.
	const Sallyport__Fleet__SessionRecord *record;
};
struct wrk_directory_question {
	const uint8_t *id, *device; // 16, 32 bytes
	const char *user;
	uint32_t epoch;
	bool left; // nothing waits at the old home
};
// For the session that an ATTACH on `l` names; the first call asks, further ones say what
// came.
void wrk_directory_ask(struct wrk_directory *d, struct sp_link *l,
		       const struct wrk_directory_question *q,
		       struct wrk_directory_answer *ret);
// A client is attached here to a session whose record is another home's: asks for it.
void wrk_directory_reclaim(struct wrk_directory *d, struct wrk_directory_session *ds);
void wrk_directory_forget(struct wrk_directory *d, const struct sp_link *l);

// An answer came from the agent (kind session).
void wrk_directory_on_answer(struct wrk_directory *d, uint64_t call,
			     const Sallyport__Fleet__SessionAnswer *m);
// An agent is there (again): everything is said anew. The boot id of what counts here.
void wrk_directory_up(struct wrk_directory *d);
const struct wrk_directory_counters *
wrk_directory_counters(const struct wrk_directory *d);

#endif
