// The bodies of the two signed configs, JSON: what a worker enforces and what a client
// dials. Parsed into structs, checked, printed; every error names the JSON path, what was
// found and what is wanted. The formats: docs/man/sallyport-fleet.5. No I/O, no clock.
// Not here: signatures (lib/signed.h), what rules of the exit policy mean (lib/policy.h).
#ifndef SP_FLEET_H
#define SP_FLEET_H

#include "lib/addr.h"
#include "lib/carrier.h"
#include "lib/pass.h"
#include "lib/signed.h"

#define SP_FLEET_FORMAT        1
#define SP_FLEET_NAME_MAX      32 // bytes of a tier, group, exit or region name
#define SP_FLEET_TIERS_MAX     64
#define SP_FLEET_RULES_MAX     1024
#define SP_FLEET_RULE_MAX      100   // bytes of one rule
#define SP_FLEET_REVOKED_MAX   16384 // of each kind; of serials, what fits a signed blob
#define SP_FLEET_EXITS_MAX     256
#define SP_FLEET_CARRIERS_MAX  8
#define SP_FLEET_PATH_MAX      1024 // bytes of a file name
#define SP_FLEET_ENDPOINTS_MAX 16
#define SP_FLEET_URL_MAX       1024
#define SP_FLEET_MEMBERS_MAX   16384
#define SP_FLEET_MEMBERS_BYTES (8u << 20) // of a document of members
#define SP_FLEET_WHY_MAX       320        // fits any error text with its NUL

struct sp_fleet_revision {
	uint32_t epoch;
	uint64_t sequence;
};
// < 0: a is older than b; 0: the same; > 0: newer.
int sp_fleet_revision_compare(const struct sp_fleet_revision *a,
			      const struct sp_fleet_revision *b);
// 1 to SP_FLEET_NAME_MAX letters, digits, '.', '_', '-': fit for logs and labels.
bool sp_fleet_name_is_valid(const char *name);
// The id of a worker that was given none: the first 8 bytes, big endian, of BLAKE2b-256
// of its 32-byte static public key; never 0.
uint64_t sp_fleet_home_id(const uint8_t *public_key);

// ---- kind 2: worker config ----

struct sp_fleet_tier { // 0: no limit but the worker's own
	char name[SP_FLEET_NAME_MAX + 1];
	uint32_t max_sessions; // of one user
	uint32_t max_streams;  // of one session
	uint32_t max_flows;
	uint64_t rate_bps; // bytes a second
	unsigned n_groups; // of exits that the tier may use; 0: all
	char groups[SP_PASS_GROUPS_MAX][SP_FLEET_NAME_MAX + 1];
};

struct sp_fleet_revoked_user {
	char name[SP_PASS_USER_MAX + 1]; // printable ASCII
	uint64_t before_s;               // passes with an earlier not_before are void
};

struct sp_fleet_carrier {
	enum sp_carrier_kind kind;
	struct sp_target address;
	char server_name[SP_NAME_MAX + 1]; // tls: SNI; "": none
	bool pinned;
	uint8_t pin[32]; // tls: SHA-256 of the certificate, if pinned
	char *ca_file;   // tls: or NULL: the system's authorities
};

// How a worker reaches the others, to relay to them and to know who may dial it.
struct sp_fleet_member {
	char name[SP_FLEET_NAME_MAX + 1];
	uint64_t home_id;
	uint8_t public_key[32];
	struct sp_fleet_carrier *carriers; // in order of preference
	size_t n_carriers;
};
struct sp_fleet_members { // sorted by home id, none twice; its reader may be one of them
	struct sp_fleet_member *v;
	size_t n;
};

struct sp_fleet_worker {
	struct sp_fleet_revision revision;
	uint64_t issued_s, expires_s;      // Unix; expires 0: never
	char group[SP_FLEET_NAME_MAX + 1]; // "" : every pass is admitted
	struct sp_fleet_tier *tiers;
	size_t n_tiers;
	char **rules; // exit policy in order, texts such as "deny 10.0.0.0/8"; valid
	size_t n_rules;
	struct sp_signed_keys pass_keys; // may sign passes
	struct sp_target cover; // address of the web site for strangers; kind 0: local
	// What holds no more; each list sorted, none twice.
	uint8_t (*revoked)[SP_PASS_SERIAL_BYTES]; // passes
	size_t n_revoked;
	uint8_t (*revoked_devices)[SP_PASS_DEVICE_BYTES];
	size_t n_revoked_devices;
	struct sp_fleet_revoked_user *revoked_users;
	size_t n_revoked_users;
	struct sp_fleet_members members; // of a fleet without controllers; else empty
};

// What revocations look at.
struct sp_fleet_holder {
	const uint8_t *serial; // SP_PASS_SERIAL_BYTES
	const uint8_t *device; // SP_PASS_DEVICE_BYTES
	const char *user;
	uint64_t not_before_s; // of the pass
};

// 0 and *ret; SP_E_CONFIG, SP_E_LIMIT, SP_E_VERSION, -ENOMEM with a text in `why`
// (SP_FLEET_WHY_MAX; cap 0: none).
int sp_fleet_worker_parse(const void *json, size_t len, struct sp_fleet_worker **ret,
			  char *why, size_t cap) SP_MUST_CHECK;
void sp_fleet_worker_free(struct sp_fleet_worker *f); // NULL is fine
// Canonical JSON: parses to the same, whose print is this text again. Indented, with a
// final line feed, malloc'd, free(); NULL: no memory.
char *sp_fleet_worker_print(const struct sp_fleet_worker *f) SP_MUST_CHECK;
const struct sp_fleet_tier *sp_fleet_find_tier(const struct sp_fleet_worker *f,
					       const char *name); // NULL: no such
// True if the pass, its device, or its user at the time of the pass was revoked.
bool sp_fleet_is_revoked(const struct sp_fleet_worker *f,
			 const struct sp_fleet_holder *who);
// The worker has no group, or it is among the pass's groups and among those of the
// pass's tier, as far as either names any.
bool sp_fleet_admits(const struct sp_fleet_worker *f, const struct sp_pass *pass);

// ---- kind 3: client config ----

struct sp_fleet_exit {
	char name[SP_FLEET_NAME_MAX + 1];
	char region[SP_FLEET_NAME_MAX + 1]; // or ""
	uint32_t weight;  // as the operator set it, up to 10,000; for people
	uint64_t home_id; // sp_fleet_home_id unless the config says another
	uint8_t public_key[32];
	struct sp_fleet_carrier carriers[SP_FLEET_CARRIERS_MAX]; // in order of preference
	size_t n_carriers;
};

struct sp_fleet_client {
	struct sp_fleet_revision revision;
	uint64_t issued_s, expires_s;
	struct sp_fleet_exit *exits; // in order of preference
	size_t n_exits;
	// What a config endpoint adds for one client.
	uint64_t server_time_s; // Unix, when it was made; 0: not told
	uint32_t refresh_s;     // ask again after; 0: not told
	char **endpoints;       // URLs to ask, in order
	size_t n_endpoints;
	uint8_t *pass; // signed blob, SP_PASS_BLOB_MAX at most
	size_t pass_len;
	char pass_refused[SP_FLEET_NAME_MAX + 1]; // why there is none; "": not told
};

// As sp_fleet_worker_parse, _free and _print.
int sp_fleet_client_parse(const void *json, size_t len, struct sp_fleet_client **ret,
			  char *why, size_t cap) SP_MUST_CHECK;
void sp_fleet_client_free(struct sp_fleet_client *f);
char *sp_fleet_client_print(const struct sp_fleet_client *f) SP_MUST_CHECK;

// ---- members ----

// {"format": 1, "members": [...]}, entries as exits of a client config: what an enrolled
// worker's agent derives of the fleet's state (lib/derive.h). As sp_fleet_worker_parse.
int sp_fleet_members_parse(const void *json, size_t len, struct sp_fleet_members *ret,
			   char *why, size_t cap) SP_MUST_CHECK;
void sp_fleet_members_done(struct sp_fleet_members *m); // a zeroed struct is fine

#endif
