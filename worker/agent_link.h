// The exit's side of its agent: starts the process, joins it by a socket, starts it again
// when it dies or hangs, and hands its messages to whoever asked for their kind. Nothing
// of it is in the path of a byte: with no agent, sends fail at once. Not here: what
// messages mean (worker/control.h, worker/directory.h), the agent itself
// (worker/agent.h).
#ifndef WRK_AGENT_LINK_H
#define WRK_AGENT_LINK_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/loop.h"
#include "proto/local.pb-c.h"

#define WRK_AGENT_SILENCE_MS 5000 // without a packet so long: it hangs, and is killed

struct wrk_agent_link;

// `fd`: a descriptor that came with it, or -1; closed after the call.
typedef void (*wrk_agent_handler)(void *ctx, const Sallyport__Local__FromAgent *m,
				  int fd);

struct wrk_agent_options {
	struct sp_loop *loop;
	// argv of the process, argv[0] its path; ends in NULL. The link is its
	// descriptor 3.
	const char *const *argv;
	uint32_t silence_ms;   // 0: WRK_AGENT_SILENCE_MS
	void (*up)(void *ctx); // a new agent; messages may be sent
	void (*down)(void *ctx);
	void *ctx;
};

struct wrk_agent_counters {
	uint64_t started, died, hung;
	uint64_t received, malformed, unknown; // messages
	uint64_t sent, unsent;                 // unsent: no agent, or it does not read
};

// Starts the agent at the end of the turn. What the options point to outlives the link. 0
// and *ret; -ENOMEM.
int wrk_agent_link_new(const struct wrk_agent_options *opt,
		       struct wrk_agent_link **ret) SP_MUST_CHECK;
// Closes the link, at which the agent ends. NULL is fine.
void wrk_agent_link_free(struct wrk_agent_link *l);

// Messages of this kind go to `handler`; one a kind, a later call replaces it.
void wrk_agent_link_on(struct wrk_agent_link *l,
		       Sallyport__Local__FromAgent__BodyCase kind,
		       wrk_agent_handler handler, void *ctx);
bool wrk_agent_link_is_up(const struct wrk_agent_link *l);
pid_t wrk_agent_link_pid(const struct wrk_agent_link *l); // 0: none
// A number for FromExit.call that no other message of this process has; never 0.
uint64_t wrk_agent_link_call(struct wrk_agent_link *l);
// Sends at once, or not at all; `fd` as for wrk_local_send. 0; -ENOTCONN: no agent;
// -EAGAIN: it does not read; SP_E_LIMIT; -errno.
int wrk_agent_link_send(struct wrk_agent_link *l, const Sallyport__Local__FromExit *m,
			int fd) SP_MUST_CHECK;
const struct wrk_agent_counters *wrk_agent_link_counters(const struct wrk_agent_link *l);

#endif
