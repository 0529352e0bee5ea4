#include "ctl/keys.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sodium.h>

#include "ctl/describe.h"
#include "ctl/io.h"
#include "ctl/out.h"
#include "ctl/verbs.h"
#include "lib/file.h"

#define N_KINDS (SP_KEY_CONTROL + 1)

void ctl_public_of(enum sp_key_kind kind, const uint8_t *secret, uint8_t *ret)
{
	switch (kind) {
	case SP_KEY_SIGNING:
		crypto_sign_ed25519_sk_to_pk(ret, secret);
		return;
	case SP_KEY_WORKER:
	case SP_KEY_DEVICE:
	case SP_KEY_CONTROL:
		crypto_scalarmult_base(ret, secret);
		return;
	case SP_KEY_ROUTE:
		memcpy(ret, secret, 32);
		return;
	}
}

void ctl_keypair_make(enum sp_key_kind kind, struct ctl_keypair *ret)
{
	ret->kind = kind;
	if (kind == SP_KEY_SIGNING)
		crypto_sign_keypair(ret->public_key, ret->secret);
	else
		randombytes_buf(ret->secret, sp_key_bytes(kind, true));
	ctl_public_of(kind, ret->secret, ret->public_key);
}

char *ctl_public_path(const char *path)
{
	size_t n = strlen(path);
	if (n > 4 && !strcmp(path + n - 4, ".key"))
		n -= 4;
	return ctl_text("%.*s.pub", (int)n, path);
}

static int write_key(const struct ctl_call *call, const char *path, enum sp_key_kind kind,
		     bool secret, const uint8_t *key, bool replace)
{
	char text[SP_KEY_TEXT_MAX];
	sp_key_format(kind, secret, key, text);
	size_t len = strlen(text);
	text[len++] = '\n';
	int code = ctl_write(call, path, text, len, secret ? 0600 : 0644, replace);
	sodium_memzero(text, sizeof(text));
	return code;
}

int ctl_keypair_write(const struct ctl_call *call, const struct ctl_keypair *k,
		      const char *path, bool replace)
{
	bool has_public = sp_key_bytes(k->kind, false) > 0;
	char *public_path = ctl_public_path(path);
	int code = 0;
	if (has_public && !replace && access(public_path, F_OK) == 0)
		code = ctl_fail(
			call, EX_CANTCREAT,
			"%s exists already; choose another name, or replace it by "
			"--force",
			public_path);
	if (!code)
		code = write_key(call, path, k->kind, true, k->secret, replace);
	if (!code && has_public)
		code = write_key(call, public_path, k->kind, false, k->public_key,
				 replace);
	free(public_path);
	return code;
}

int ctl_keys_make(struct ctl_call *call)
{
	const char *word = strchr(call->verb->name, ' ') + 1,
		   *path = ctl_get(call, "output");
	struct ctl_keypair k;
	enum sp_key_kind kind = SP_KEY_SIGNING;
	while (strcmp(sp_key_kind_word(kind), word))
		kind++;
	ctl_keypair_make(kind, &k);
	int code = ctl_keypair_write(call, &k, path, ctl_has(call, "force"));
	json_t *o = code ? NULL : ctl_describe_key(kind, true, k.public_key);
	sodium_memzero(&k, sizeof(k));
	if (code)
		return code;
	json_object_set_new(o, "secret_file", json_string(path));
	if (sp_key_bytes(kind, false)) {
		char *public_path = ctl_public_path(path);
		json_object_set_new(o, "public_file", json_string(public_path));
		free(public_path);
	}
	return ctl_out(call, o);
}

// Which key a text is. False: none.
static bool recognise(const char *text, size_t len, struct ctl_keypair *ret,
		      bool *ret_secret)
{
	uint8_t key[SP_KEY_BYTES_MAX];
	bool found = false;
	for (int k = 0; k < N_KINDS && !found; k++) {
		for (int secret = 0; secret < 2 && !found; secret++) {
			if (sp_key_parse((enum sp_key_kind)k, secret, text, len, key,
					 NULL, 0))
				continue;
			ret->kind = (enum sp_key_kind)k;
			*ret_secret = secret;
			if (secret)
				ctl_public_of(ret->kind, key, ret->public_key);
			else
				memcpy(ret->public_key, key, 32);
			found = true;
		}
	}
	sodium_memzero(key, sizeof(key));
	return found;
}

static int print_public(struct ctl_call *call, const struct ctl_keypair *k)
{
	char text[SP_KEY_TEXT_MAX];
	if (!sp_key_bytes(k->kind, false))
		return ctl_fail(call, EX_DATAERR, "%s: a %s key has no public half",
				call->args[0], sp_key_kind_word(k->kind));
	fprintf(call->out, "%s\n", sp_key_format(k->kind, false, k->public_key, text));
	return EX_OK;
}

int ctl_keys_show(struct ctl_call *call)
{
	struct ctl_keypair k = {0};
	bool secret;
	uint8_t *buf;
	size_t len;
	int code = ctl_read(call, call->args[0], false, &buf, &len);
	if (code)
		return code;
	bool found = recognise((const char *)buf, len, &k, &secret);
	sp_file_free(buf, len);
	if (!found)
		return ctl_fail(call, EX_DATAERR,
				"%s: not a key, or a damaged one; want one line such as "
				"sallyport-signing-public:...",
				call->args[0]);
	if (secret) { // once more, so that one that others may read is refused
		code = ctl_read(call, call->args[0], true, &buf, &len);
		if (code)
			return code;
		sp_file_free(buf, len);
	}
	if (ctl_has(call, "public")) {
		code = print_public(call, &k);
		sodium_memzero(&k, sizeof(k));
		return code;
	}
	json_t *o = ctl_describe_key(k.kind, secret, k.public_key);
	sodium_memzero(&k, sizeof(k));
	return ctl_out(call, o);
}
