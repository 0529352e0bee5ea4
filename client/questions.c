#include "client/questions.h"

#include <string.h>

void cli_question_done(struct cli_question *q)
{
	q->flow = NULL;
}

void cli_questions_asked(struct cli_questions *q, const void *flow, const void *home,
			 const uint8_t *buf, size_t len, uint64_t now_us)
{
	struct cli_question *to = &q->q[q->next % CLI_QUESTIONS_MAX];
	if (len < 2 || len > sizeof(to->bytes))
		return;
	q->next++;
	to->flow = flow;
	to->home = home;
	to->asked_us = now_us;
	to->len = (uint16_t)len;
	memcpy(to->bytes, buf, len);
}

void cli_questions_answered(struct cli_questions *q, const void *flow, const uint8_t *buf,
			    size_t len)
{
	for (unsigned i = 0; len >= 2 && i < CLI_QUESTIONS_MAX; i++) {
		struct cli_question *x = &q->q[(q->next + i) % CLI_QUESTIONS_MAX];
		if (x->flow != flow || memcmp(x->bytes, buf, 2) != 0)
			continue;
		cli_question_done(x);
		return;
	}
}

void cli_questions_forget(struct cli_questions *q, const void *flow)
{
	for (unsigned i = 0; i < CLI_QUESTIONS_MAX; i++)
		if (q->q[i].flow == flow)
			cli_question_done(&q->q[i]);
}

struct cli_question *cli_questions_next(struct cli_questions *q, unsigned *at,
					uint64_t now_us)
{
	while (*at < CLI_QUESTIONS_MAX) {
		struct cli_question *x = &q->q[(q->next + (*at)++) % CLI_QUESTIONS_MAX];
		if (x->flow && now_us - x->asked_us < CLI_QUESTION_AGE_US)
			return x;
	}
	return NULL;
}
