// Bearer tokens of any text: only the one that was made is somebody's.
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "controller/tokens.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct sp_state *state;
	static char good[CON_TOKEN_TEXT_MAX];
	char id[CON_TOKEN_ID_MAX], user[SP_PASS_USER_MAX + 1] = "",
							   *text = malloc(size + 1);
	struct sp_changes c = {0};
	if (!text || sodium_init() < 0)
		abort();
	if (!state &&
	    (sp_state_new(&state) || con_token_make("ann", 1, 100, &c, good, id) ||
	     sp_state_apply(state, &c)))
		abort();
	sp_changes_done(&c);
	memcpy(text, data, size);
	text[size] = '\0';
	if (con_token_find(state, text, 50, user, id) && strcmp(text, good) != 0)
		abort();
	if (size && text[0] == 'g') { // the good one, with one byte changed
		strcpy(user, "");
		char bent[CON_TOKEN_TEXT_MAX];
		memcpy(bent, good, sizeof(bent));
		bent[data[size - 1] % (CON_TOKEN_TEXT_MAX - 1)] ^= (char)data[size / 2];
		if (con_token_find(state, bent, 50, user, id) != !strcmp(bent, good))
			abort();
	}
	free(text);
	return 0;
}
