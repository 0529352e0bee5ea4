// Calls of a controller's operator API: HTTP over its unix socket, by libcurl. Not here:
// what is asked (fleet.c, access.c), how it is printed (grid.h).
#ifndef CTL_REMOTE_H
#define CTL_REMOTE_H

#include <jansson.h>

#include "ctl/cli.h"

#define CTL_SOCKET_DEFAULT "/run/sallyport/controller.sock"
#define CTL_SOCKET_ENV     "SALLYPORT_SOCKET"
#define CTL_REMOTE_TIME_S  20

// Exit code for what the controller refused by a rule (a cap, an empty fleet, a change
// meanwhile); the text says what lifts it.
#define CTL_EX_REFUSED 2

// One call. `path` with its query; `body` NULL: none. 0 and *ret (json_decref); or an
// exit code, and said: 69 no controller there, 65 what was sent does not hold, 66 no such
// thing, CTL_EX_REFUSED, 75 not now, 74 its disk, 70 others.
int ctl_ask(const struct ctl_call *call, const char *method, const char *path,
	    const void *body, size_t len, json_t **ret) SP_MUST_CHECK;
// The same with an object as the body, which is taken.
int ctl_ask_json(const struct ctl_call *call, const char *method, const char *path,
		 json_t *body, json_t **ret) SP_MUST_CHECK;
// Escaped for a path or a query, malloc'd; ends the program if there is no memory.
char *ctl_escape(const char *text);

#endif
