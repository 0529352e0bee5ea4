// Bearer tokens: what a user's client shows to fetch its config. The state keeps only
// BLAKE2b-256 of one, under token/ID, ID being the first 8 bytes of that, so that a
// look-up is one step and tells nothing by its time. Pure but for randomness. Not here:
// HTTP, users' limits, passes.
#ifndef CON_TOKENS_H
#define CON_TOKENS_H

#include "lib/pass.h"
#include "lib/state.h"

#define CON_TOKEN_TEXT_MAX 56 // "spt_" and 43 characters, with the NUL
#define CON_TOKEN_ID_MAX   17 // 16 hexadecimal digits, with the NUL

// A new token for `user`, `expires_s` 0: never. 0, its entry added to `changes`, the
// token to ret_text (CON_TOKEN_TEXT_MAX; wipe it) and its id (CON_TOKEN_ID_MAX);
// SP_E_MALFORMED: not a user's name; -ENOMEM.
int con_token_make(const char *user, uint64_t created_s, uint64_t expires_s,
		   struct sp_changes *changes, char *ret_text,
		   char *ret_id) SP_MUST_CHECK;
// Whose token this is: the name to ret_user (SP_PASS_USER_MAX + 1), the id to ret_id (may
// be NULL). False: nobody's, or it has expired.
bool con_token_find(const struct sp_state *state, const char *text, uint64_t now_s,
		    char *ret_user, char *ret_id);

#endif
