// Look-ups that wait for their answer: small datagrams to a name server's port, kept so
// that each can be asked once more when its flow goes to another exit. Pure but for its
// memory; a fixed number, the oldest gives way. Not here: when that is
// (client/app_udp.h).
#ifndef CLI_QUESTIONS_H
#define CLI_QUESTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CLI_QUESTIONS_MAX   256
#define CLI_QUESTION_BYTES  512 // a longer one is not kept
#define CLI_QUESTION_PORT   53
#define CLI_QUESTION_AGE_US 5000000 // an older one is not asked again

struct cli_question {
	const void *flow; // NULL: free
	const void *home; // whom it was asked through
	uint64_t asked_us;
	uint16_t len;
	uint8_t bytes[CLI_QUESTION_BYTES];
};
struct cli_questions { // zeroed at first
	unsigned next; // to be used
	struct cli_question q[CLI_QUESTIONS_MAX];
};

// `flow` asked through `home`. Less than the two bytes of an id, or too long: nothing.
void cli_questions_asked(struct cli_questions *q, const void *flow, const void *home,
			 const uint8_t *buf, size_t len, uint64_t now_us);
// Something came back on `flow`: the oldest question with its id (RFC 1035 section 4.1.1)
// is done.
void cli_questions_answered(struct cli_questions *q, const void *flow, const uint8_t *buf,
			    size_t len);
void cli_questions_forget(struct cli_questions *q, const void *flow); // it is gone
// The next question that waits, from *at (0 at first), which is moved behind it; NULL: no
// more. Drop it with cli_question_done, or it is told again.
struct cli_question *cli_questions_next(struct cli_questions *q, unsigned *at,
					uint64_t now_us);
void cli_question_done(struct cli_question *q);

#endif
