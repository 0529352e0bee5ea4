// Any text as an enrolment token: only the holder of the secret gets in, and nothing is
// to be committed for anyone else.
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "controller/enrol.h"
#include "lib/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct sp_state *make_state(const uint8_t *secret)
{
	struct sp_state *s;
	uint8_t hash[32];
	char hex[65];
	crypto_generichash(hash, sizeof(hash), secret, 32, NULL, 0);
	sp_hex_encode(hash, sizeof(hash), hex, sizeof(hex));
	json_t *o =
		json_pack("{s:s, s:i, s:s}", "hash", hex, "expires", 100, "region", "eu");
	if (sp_state_new(&s) || sp_state_put_text(s, "node/fra1/0", "{}", 2) ||
	    sp_state_put_text(s, "region/eu", "{}", 2) ||
	    sp_state_put(s, "enrol/worker/fra1/0", o) ||
	    sp_state_put(s, "enrol/vantage/vantage1", o))
		abort();
	json_decref(o);
	return s;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct sp_state *state;
	uint8_t secret[32], key[32] = {7};
	struct sp_enroltoken t = {0}, copy;
	struct sp_changes changes = {0};
	char *text = malloc(size + 1), why[160];
	memset(secret, 9, sizeof(secret)); // of the tokens in the corpus
	if (!text || sodium_init() < 0)
		abort();
	if (!state)
		state = make_state(secret);
	memcpy(text, data, size);
	text[size] = '\0';
	const struct con_enrol_claim claim = {text, key, key};
	enum con_enrol_verdict v = con_enrol_judge(state, &claim, 1, &t, &changes);
	if (!sodium_is_zero(t.secret, sizeof(t.secret)) || (v != 0) != (changes.n == 0))
		abort();
	if (v == CON_ENROL_OK &&
	    (sp_enroltoken_parse(text, strlen(text), &copy, why, sizeof(why)) ||
	     memcmp(copy.secret, secret, sizeof(secret)) != 0))
		abort();
	sp_changes_done(&changes);
	free(text);
	return 0;
}
