// Who may join: one-time tokens with an expiry, for a worker or a vantage, and what the
// holder of one brings with it becomes a part of the state. The state keeps only the
// BLAKE2b-256 of a token's secret, under enrol/worker/NAME/N or enrol/vantage/NAME. Pure
// but for randomness. Not here: links, answers (role_bus.c), the token's text
// (lib/enroltoken.h).
#ifndef CON_ENROL_H
#define CON_ENROL_H

#include "lib/enroltoken.h"
#include "lib/state.h"

enum con_enrol_verdict {
	CON_ENROL_OK,
	CON_ENROL_AGAIN,     // the same holder: the answer was lost; nothing to commit
	CON_ENROL_MALFORMED, // no token, or not the keys that are wanted
	CON_ENROL_UNKNOWN,   // nobody's token: never made, or another one was made since
	CON_ENROL_USED,
	CON_ENROL_EXPIRED,
	CON_ENROL_KEY,  // a key that another node has
	CON_ENROL_GONE, // the fleet file has no such worker or region any more
	CON_ENROL_VERDICTS,
};
static inline bool con_enrol_is_refused(enum con_enrol_verdict v)
{
	return v > CON_ENROL_AGAIN;
}
const char *con_enrol_word(enum con_enrol_verdict v);   // for logs and metrics
const char *con_enrol_reason(enum con_enrol_verdict v); // for who asked, with the remedy

// Fills t->node and t->secret; the addresses in it are the caller's. The new entry goes
// to `changes`. `region`: of a vantage, NULL: a worker. 0; SP_E_MALFORMED: not a name;
// -ENOENT: the fleet file has no such worker or region; -EEXIST: it is enrolled and
// `again` is false; -ENOMEM.
int con_enrol_make(const struct sp_state *state, const char *node, const char *region,
		   uint64_t expires_s, bool again, struct sp_enroltoken *t,
		   struct sp_changes *changes) SP_MUST_CHECK;

struct con_enrol_claim {
	const char *token;          // text
	const uint8_t *control_key; // 32 bytes each: proved by the link
	const uint8_t *own_key;     // static key of a worker, device key of a vantage
};
// Judges, at now_s. OK: what to commit is in `changes`. *ret says for whom, its secret
// wiped; empty, if it is no token.
enum con_enrol_verdict con_enrol_judge(const struct sp_state *state,
				       const struct con_enrol_claim *claim,
				       uint64_t now_s, struct sp_enroltoken *ret,
				       struct sp_changes *changes) SP_MUST_CHECK;

#endif
