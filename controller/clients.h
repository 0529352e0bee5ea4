// Who asks the config endpoint, and what each is to be told: from token, device key and
// region to user, pass, exits and the ETag of all that, remembered until something
// changes. No sockets; the clock is a parameter. Not here: HTTP, waiting (endpoint.h).
//
// An ETag covers what the client acts on: exits and their order, the pass, the endpoints;
// not the time of the answer, nor revisions that change nothing for this client. All
// controllers come to the same one.
#ifndef CON_CLIENTS_H
#define CON_CLIENTS_H

#include "controller/devices.h"
#include "controller/passes.h"
#include "controller/view.h"
#include "lib/log.h"
#include "lib/revision.h"

#define CON_CLIENTS_MAX     65536 // remembered; the stalest makes room
#define CON_CLIENT_ETAG_MAX 36    // quotes, 32 hexadecimal digits, NUL

struct con_clients;
struct con_client;

struct con_clients_options {
	unsigned token_rate, token_burst;           // requests a second of one token
	const uint8_t *secret;                      // 64 bytes; borrowed
	struct con_devices *devices;                // borrowed
	const struct sp_state *(*state)(void *ctx); // as it is now
	const struct sp_position *(*head)(void *ctx);
	bool (*over_quota)(void *ctx, const char *user); // NULL: never
	con_view_judge *judge;                           // NULL: all is well
	void *ctx;
};
// Reads the state. 0 and *ret; -ENOMEM.
int con_clients_new(const struct con_clients_options *opt, uint64_t now_s,
		    struct con_clients **ret) SP_MUST_CHECK;
void con_clients_free(struct con_clients *cs); // NULL is fine

// The state has changed by these. True: so may answers have.
bool con_clients_changed(struct con_clients *cs, const struct sp_changes *changes,
			 uint64_t now_s);
bool con_clients_judge(struct con_clients *cs, uint64_t now_s); // likewise, by health
void con_clients_poke(struct con_clients *cs); // likewise, by what else there is

struct con_client_key { // texts as they came; NULL: absent
	const char *token, *device, *region;
};
// NULL: a stranger. Valid until the next call, or while it is held. Every kind of
// stranger takes the same path.
struct con_client *con_clients_find(struct con_clients *cs,
				    const struct con_client_key *key, uint64_t now_s);
// Held clients stay; counted.
void con_client_hold(struct con_client *c);
void con_client_release(struct con_client *c);

// Takes a request from what its token may ask. False: too many.
bool con_client_may_ask(const struct con_clients *cs, struct con_client *c,
			uint64_t now_ms);
// Brings it up to date. False: it is a stranger by now.
bool con_client_refresh(struct con_clients *cs, struct con_client *c, uint64_t now_s);

// As of the last refresh:
const char *con_client_etag(const struct con_client *c);
uint64_t con_client_until(const struct con_client *c); // Unix s; it changes then at last
bool con_client_has_exits(const struct con_client *c);
enum con_refusal con_client_refusal(const struct con_client *c);
// The signed config, right after a refresh. 0, *ret (malloc'd) and *ret_len; -ENOMEM;
// SP_E_LIMIT.
int con_client_config(struct con_clients *cs, struct con_client *c, uint64_t now_s,
		      char **ret, size_t *ret_len) SP_MUST_CHECK;

const struct con_view *con_clients_view(const struct con_clients *cs);
size_t con_clients_count(const struct con_clients *cs);

#endif
