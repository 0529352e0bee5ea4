// The frame codec (proto/PROTOCOL.md section 6): bytes to struct sp_frame and back. Knows
// nothing of sessions. Pure: no I/O, no clock, no malloc.
#ifndef SP_FRAME_H
#define SP_FRAME_H

#include "lib/addr.h"
#include "lib/wire.h"

enum sp_frame_type {
	SP_FRAME_PAD = 0x00,
	SP_FRAME_PING = 0x01,
	SP_FRAME_SEEN = 0x02,
	SP_FRAME_ATTACH = 0x03,
	SP_FRAME_ATTACHED = 0x04,
	SP_FRAME_RESUME = 0x05,
	SP_FRAME_OPEN = 0x08,
	SP_FRAME_OPENED = 0x09,
	SP_FRAME_DATA = 0x0a,
	SP_FRAME_DATA_FIN = 0x0b,
	SP_FRAME_WINDOW = 0x0c,
	SP_FRAME_RESET = 0x0d,
	SP_FRAME_FLOW = 0x10,
	SP_FRAME_DGRAM = 0x11,
	SP_FRAME_FLOW_CLOSE = 0x12,
	SP_FRAME_TICKET = 0x18,
	SP_FRAME_PASS = 0x19,
	SP_FRAME_GOAWAY = 0x1a,
	SP_FRAME_CLOSE = 0x1b,
	SP_FRAME_END = 0x1c,
	SP_FRAME_REKEY = 0x1d,
};

struct sp_frame_resume { // one entry of RESUME
	uint64_t id, next, taken, credit;
};

// One frame; only the fields of its type are set. Pointers point into the input.
struct sp_frame {
	enum sp_frame_type type;
	uint64_t id;                     // stream or flow
	uint64_t offset;                 // DATA
	uint64_t taken;                  // WINDOW
	uint64_t credit;                 // OPEN, OPENED, WINDOW
	uint64_t records, delay_us;      // SEEN
	uint64_t deadline_ms;            // GOAWAY
	uint64_t max_streams, max_flows; // ATTACHED
	uint64_t count;                  // RESUME: entries, in `data`
	uint64_t incarnation;            // ATTACHED
	uint32_t epoch, lifetime_s;
	uint16_t reason;
	uint8_t flags, slot, result, last;
	const uint8_t
		*data; // DATA, DGRAM, TICKET, PASS; RESUME entries; ATTACH session id
	size_t len;
	struct sp_target target; // OPEN, FLOW; OPENED: bound
};

// Reads one frame. 0; SP_E_TRUNCATED, SP_E_MALFORMED (also in r->err).
int sp_frame_get(struct sp_reader *r, struct sp_frame *ret) SP_MUST_CHECK;
// Reads the next entry of a RESUME frame's `data`; the codec has checked their count.
void sp_frame_get_resume(struct sp_reader *r, struct sp_frame_resume *ret);

// Writers; what does not fit sets w->err and the caller rolls back to where it was.
void sp_frame_put_simple(struct sp_writer *w, enum sp_frame_type type); // PING, REKEY
void sp_frame_put_seen(struct sp_writer *w, uint64_t records, uint64_t delay_us);
void sp_frame_put_attach(struct sp_writer *w, const uint8_t *session, uint32_t epoch,
			 uint8_t slot, uint8_t flags);
void sp_frame_put_attached(struct sp_writer *w, uint8_t result, uint32_t epoch,
			   uint64_t incarnation, uint64_t max_streams,
			   uint64_t max_flows);
void sp_frame_put_resume_entry(struct sp_writer *w, const struct sp_frame_resume *e);
void sp_frame_put_open(struct sp_writer *w, uint64_t id, uint64_t credit, uint8_t flags,
		       const struct sp_target *target);
void sp_frame_put_opened(struct sp_writer *w, uint64_t id, uint64_t credit,
			 const struct sp_target *bound);
// Header of DATA or DATA_FIN; `len` bytes follow it.
void sp_frame_put_data(struct sp_writer *w, bool fin, uint64_t id, uint64_t offset,
		       size_t len);
void sp_frame_put_window(struct sp_writer *w, uint64_t id, uint64_t taken,
			 uint64_t credit);
void sp_frame_put_reset(struct sp_writer *w, uint64_t id, uint16_t reason);
void sp_frame_put_flow(struct sp_writer *w, uint64_t id, const struct sp_target *target);
void sp_frame_put_dgram(struct sp_writer *w, uint64_t id, size_t len); // header
void sp_frame_put_flow_close(struct sp_writer *w, uint64_t id, uint16_t reason);
void sp_frame_put_ticket(struct sp_writer *w, uint32_t lifetime_s, const uint8_t *t,
			 size_t len);
void sp_frame_put_pass(struct sp_writer *w, const uint8_t *blob, size_t len);
void sp_frame_put_goaway(struct sp_writer *w, uint16_t reason, uint64_t deadline_ms);
void sp_frame_put_reason(struct sp_writer *w, enum sp_frame_type type, uint16_t reason);

// The longest headers of DATA and (up to 512 bytes) TICKET, and the most a RESUME entry
// takes.
#define SP_FRAME_DATA_HEADER_MAX   25
#define SP_FRAME_TICKET_HEADER_MAX 7
#define SP_FRAME_RESUME_ENTRY_MAX  32

#endif
