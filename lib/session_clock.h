// Binds session engines to the loop: one event per session at the engine's next deadline,
// which calls sp_session_tick. Links touch it after each batch of records; a program
// touches it after it called the engine on its own (sp_stream_sink_ready,
// sp_session_open_flow ...).
#ifndef SP_SESSION_CLOCK_H
#define SP_SESSION_CLOCK_H

#include "lib/loop.h"
#include "lib/session.h"

struct sp_session_clock; // for all sessions of a loop

// 0 and *ret; -ENOMEM.
int sp_session_clock_new(struct sp_loop *loop,
			 struct sp_session_clock **ret) SP_MUST_CHECK;
void sp_session_clock_free(struct sp_session_clock *c); // NULL is fine
// From now on `s` is ticked. 0; -ENOMEM.
int sp_session_clock_add(struct sp_session_clock *c, struct sp_session *s) SP_MUST_CHECK;
// Call before sp_session_free. Not added: nothing.
void sp_session_clock_remove(struct sp_session_clock *c, struct sp_session *s);
// The deadline may have changed. Cheap; not added: nothing.
void sp_session_clock_touch(struct sp_session_clock *c, struct sp_session *s);

#endif
