// Why something was closed, reset, refused or failed: one enumeration for the wire, the
// log and the metrics. Numbers are wire format (proto/PROTOCOL.md section 9): never
// renumber.
#ifndef SP_REASON_H
#define SP_REASON_H

#include <stdint.h>

// X(number, NAME, "word", "what it means")
#define SP_REASONS(X)                                                                    \
	X(0, NONE, "none", "no reason")                                                  \
	X(1, CLOSED, "closed", "the other side ended it in order")                       \
	X(2, SHUTDOWN, "shutdown", "this program is stopping")                           \
	X(3, PROTOCOL, "protocol", "the peer broke the protocol")                        \
	X(4, RECORD, "record", "a record did not authenticate")                          \
	X(5, INTERNAL, "internal", "a fault of this program")                            \
	X(6, NO_MEMORY, "no-memory", "memory for it is exhausted")                       \
	X(7, NO_DESCRIPTORS, "no-descriptors", "file descriptors are exhausted")         \
	X(8, IDLE, "idle", "nothing happened for too long")                              \
	X(9, CANCELLED, "cancelled", "whoever wanted it does so no more")                \
	X(10, GONE, "gone", "no such stream or flow any more")                           \
	X(16, RESOLVE_FAILED, "resolve-failed", "the name does not resolve")             \
	X(17, RESOLVE_TIMEOUT, "resolve-timeout", "no name server answered in time")     \
	X(18, NO_ADDRESS, "no-address", "the name has no usable address")                \
	X(19, POLICY, "policy", "the exit policy refuses the destination")               \
	X(20, REFUSED, "refused", "the destination refused the connection")              \
	X(21, UNREACHABLE, "unreachable", "no route to the destination")                 \
	X(22, TIMEOUT, "timeout", "the destination did not answer in time")              \
	X(23, PEER_RESET, "peer-reset", "the destination reset the connection")          \
	X(24, APP_RESET, "app-reset", "the application reset the connection")            \
	X(25, BUSY, "busy", "too many look-ups or dials under way")                      \
	X(32, STREAM_LIMIT, "stream-limit", "too many streams in the session")           \
	X(33, FLOW_LIMIT, "flow-limit", "too many datagram flows; the stalest went")     \
	X(34, SESSION_LIMIT, "session-limit", "too many sessions")                       \
	X(35, RATE_LIMIT, "rate-limit", "too many in too short a time")                  \
	X(36, STALE, "stale", "detached for too long")                                   \
	X(37, PRESSURE, "pressure", "memory ran short; the stalest went")                \
	X(48, PASS_EXPIRED, "pass-expired", "the pass is past its end")                  \
	X(49, PASS_EARLY, "pass-early", "the pass is not valid yet")                     \
	X(50, REVOKED, "revoked", "the pass was revoked")                                \
	X(51, STALE_EPOCH, "stale-epoch", "an attach whose epoch does not rise")         \
	X(52, NOT_YOURS, "not-yours", "the session belongs to another device")           \
	X(53, DRAINING, "draining", "the worker takes no new sessions")                  \
	X(54, SUPERSEDED, "superseded", "a newer carrier took its slot")                 \
	X(55, HOME_LOST, "home-lost", "the session's home has no memory of it")          \
	X(56, NO_CONFIG, "no-config", "the worker has no valid config")                  \
	X(57, QUOTA, "quota", "the user's quota is used up")                             \
	X(58, GROUP, "group", "the pass does not allow this exit")                       \
	X(59, NOT_ADOPTED, "not-adopted",                                                \
	  "the session stays where it was: its home may live")                           \
	X(60, QUARANTINED, "quarantined", "the session crashed its worker again")        \
	X(64, MAC, "mac", "first flight without a valid mac1")                           \
	X(65, MALFORMED, "malformed", "first flight that does not parse")                \
	X(66, VERSION, "version", "no version in common")                                \
	X(67, HANDSHAKE, "handshake", "the key exchange failed")                         \
	X(68, REPLAY, "replay", "a first flight seen before")                            \
	X(69, CLOCK, "clock", "the peer's clock is too far off")                         \
	X(70, PASS_INVALID, "pass-invalid", "the pass is not signed by this fleet")      \
	X(71, DEVICE, "device", "the pass belongs to another device key")                \
	X(72, TICKET, "ticket", "the ticket cannot be used")                             \
	X(73, BUDGET, "budget", "too many handshakes from one source")                   \
	X(74, STALL, "stall", "silence while an answer was due")                         \
	X(75, TLS, "tls", "the TLS handshake failed")                                    \
	X(76, CARRIER_RESET, "carrier-reset", "the carrier was reset")                   \
	X(77, NOT_TLS, "not-tls", "bytes that are not TLS on a tls port")                \
	X(78, MEMBER, "member", "a trunk of nobody in this fleet")

enum sp_reason {
#define X(n, name, word, text) SP_REASON_##name = n,
	SP_REASONS(X)
#undef X
		SP_REASON__LAST = 78,
};

// Log word and metric label, e.g. "pass-expired"; "unknown" for a number not listed.
// Static.
const char *sp_reason_word(enum sp_reason reason);
// One clause for people. Static.
const char *sp_reason_text(enum sp_reason reason);
// Those below this number may travel; the others are what an end counts for itself.
#define SP_REASON_LOCAL SP_REASON_MAC
// A number from the wire; one not listed, or one that never travels, becomes
// SP_REASON_INTERNAL.
enum sp_reason sp_reason_from_wire(uint16_t number);
// What is said to a peer: a reason that never travels becomes SP_REASON_CANCELLED.
uint16_t sp_reason_to_wire(enum sp_reason reason);

#endif
