#include "lib/reason.h"

const char *sp_reason_word(enum sp_reason reason)
{
	switch (reason) {
#define X(n, name, word, text)                                                           \
	case SP_REASON_##name:                                                           \
		return word;
		SP_REASONS(X)
#undef X
	}
	return "unknown";
}

const char *sp_reason_text(enum sp_reason reason)
{
	switch (reason) {
#define X(n, name, word, text)                                                           \
	case SP_REASON_##name:                                                           \
		return text;
		SP_REASONS(X)
#undef X
	}
	return "unknown";
}

enum sp_reason sp_reason_from_wire(uint16_t number)
{
	if (number >= SP_REASON_LOCAL)
		return SP_REASON_INTERNAL;
	switch (number) {
#define X(n, name, word, text)                                                           \
	case n:                                                                          \
		return SP_REASON_##name;
		SP_REASONS(X)
#undef X
	default:
		return SP_REASON_INTERNAL;
	}
}

uint16_t sp_reason_to_wire(enum sp_reason reason)
{
	return (uint16_t)(reason < SP_REASON_LOCAL ? reason : SP_REASON_CANCELLED);
}
