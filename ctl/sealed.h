// Signed files and the fleet configs in them: read, verified, judged. Not here: making
// them (ctl/config.c, ctl/pass.c).
#ifndef CTL_SEALED_H
#define CTL_SEALED_H

#include "ctl/cli.h"
#include "lib/fleet.h"
#include "lib/signed.h"

struct ctl_sealed {
	const char *path;
	uint8_t *buf;
	size_t len;
	struct sp_signed_view view; // points into buf
};
// Reads a signed file of either form without verifying it. 0 and *ret (ctl_sealed_done),
// or an exit code and said.
int ctl_sealed_read(const struct ctl_call *call, const char *path,
		    struct ctl_sealed *ret) SP_MUST_CHECK;
void ctl_sealed_done(struct ctl_sealed *s); // a zeroed one is fine
// 0: signed by one of --fleet-key; else an exit code and said.
int ctl_sealed_verify(const struct ctl_call *call,
		      const struct ctl_sealed *s) SP_MUST_CHECK;

// A config of either kind.
struct ctl_config {
	enum sp_signed_kind kind;
	struct sp_fleet_worker *worker; // the one of the kind, the other is NULL
	struct sp_fleet_client *client;
};
// Parses the body of a config; `path` stands for it in errors. 0 and *ret
// (ctl_config_done), or an exit code and said.
int ctl_config_parse(const struct ctl_call *call, const char *path,
		     enum sp_signed_kind kind, const void *json, size_t len,
		     struct ctl_config *ret) SP_MUST_CHECK;
// The same of a file of JSON that people edit: `path` and the line stand before what is
// wrong. `kind` 0: what it is by its members.
int ctl_config_parse_file(const struct ctl_call *call, const char *path,
			  enum sp_signed_kind kind, const void *json, size_t len,
			  struct ctl_config *ret) SP_MUST_CHECK;
void ctl_config_done(struct ctl_config *c);
struct sp_fleet_revision *ctl_config_revision(const struct ctl_config *c);
uint64_t *ctl_config_issued(const struct ctl_config *c);
uint64_t ctl_config_expires(const struct ctl_config *c);
// Canonical JSON, free(); NULL: no memory.
char *ctl_config_print(const struct ctl_config *c);

// --at TIME where the verb has it and it is given, else the clock. 0, or an exit code and
// said.
int ctl_time_of(const struct ctl_call *call, uint64_t *ret_s) SP_MUST_CHECK;

#endif
