// The home's side of relaying: a pipe on a trunk becomes a carrier of kind `relay`, which
// a link accepts as one from a port: its flight is judged here alone, under the budget of
// the client's address as the entry says it. Not here: the pipe (worker/trunk_mux.h), the
// link (lib/link.h).
#ifndef WRK_RELAYED_H
#define WRK_RELAYED_H

#include "lib/link.h"
#include "worker/trunk_mux.h"

// Hands the pipe to a new link, which gives it back when it ends: with GONE if not a byte
// was answered (then the flight was a stranger's). `ops` has neither `relay` nor `trunk`:
// what came over a trunk goes over no other one. NONE; NO_MEMORY: the pipe stays the
// caller's.
enum sp_reason wrk_relayed_accept(struct sp_link_env *links,
				  const struct sp_link_worker_ops *ops, void *ctx,
				  struct wrk_pipe *p,
				  const struct wrk_mux_source *source);

#endif
