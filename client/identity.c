#include "client/identity.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <sodium.h>

#include "client/poll.h"
#include "lib/file.h"
#include "lib/held.h"
#include "lib/key.h"
#include "lib/log.h"
#include "lib/text.h"
#include "lib/trusted.h"
#include "lib/wire.h"

static int fail(char *why, size_t cap, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static int fail(char *why, size_t cap, const char *fmt, ...)
{
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(why, cap, fmt, ap);
	va_end(ap);
	return SP_E_CONFIG;
}

static int load_device(const struct cli_config *cfg, struct cli_uplink_identity *ret,
		       char *why, size_t cap)
{
	char text[SP_WHY_MAX];
	if (sp_key_load(cfg->keys.device, SP_KEY_DEVICE, true, ret->device_secret, text,
			sizeof(text)))
		return fail(why, cap, "keys.device: %s; sallyport init makes one", text);
	crypto_scalarmult_base(ret->device_public, ret->device_secret);
	return 0;
}

// The binary form, which travels, of a blob in either form. Its length, or an error.
static int to_binary(const uint8_t *buf, size_t len, uint8_t *out, size_t cap)
{
	struct sp_signed_view v;
	struct sp_writer w;
	uint8_t sig[64];
	size_t sig_len;
	int err = sp_signed_peek(buf, len, &v);
	if (err)
		return err;
	if (len >= 4 && memcmp(buf, "SPB1", 4) == 0) {
		if (len > cap)
			return SP_E_LIMIT;
		memcpy(out, buf, len);
		return (int)len;
	}
	// The text form: the signature is the last word of the first line.
	const char *text = (const char *)buf, *end = memchr(text, '\n', len);
	const char *at = end ? memrchr(text, ' ', (size_t)(end - text)) : NULL;
	if (!at ||
	    sp_base64_decode(at + 1, (size_t)(end - at - 1), sig, sizeof(sig),
			     &sig_len) ||
	    sig_len != sizeof(sig))
		return SP_E_MALFORMED;
	sp_writer_init(&w, out, cap);
	sp_put_bytes(&w, "SPB1", 4);
	sp_put_u8(&w, (uint8_t)v.kind);
	sp_put_bytes(&w, v.key_id, sizeof(v.key_id));
	sp_put_u32(&w, (uint32_t)v.body_len);
	sp_put_bytes(&w, v.body, v.body_len);
	sp_put_bytes(&w, sig, sizeof(sig));
	return w.err ? w.err : (int)sp_writer_len(&w);
}

static const char *pass_text(int err)
{
	switch (err) {
	case SP_E_KEY:
		return "it is signed by a key that is not among keys.fleet";
	case SP_E_SIGNATURE:
		return "its signature is wrong: the file was changed or damaged";
	case SP_E_VERSION:
		return "it is of a version that this program does not know";
	default:
		return "not a pass";
	}
}

static int read_pass(const struct cli_config *cfg, uint8_t *ret, size_t cap_ret,
		     char *why, size_t cap)
{
	struct sp_file_read how = {.max = SP_PASS_BLOB_MAX + SP_SIGNED_LINE_MAX};
	char text[SP_WHY_MAX];
	uint8_t *buf = NULL;
	size_t len;
	if (sp_file_read(cfg->pass, &how, &buf, &len, text, sizeof(text)))
		return fail(why, cap, "pass: %s; ask the operator for one", text);
	int n = to_binary(buf, len, ret, cap_ret);
	sp_file_free(buf, len);
	return n < 0 ? 0 : n; // what is no pass is told as such
}

// From the file, or out of the config that an endpoint gave.
static int load_pass(const struct cli_config *cfg, struct cli_identity *id, char *why,
		     size_t cap)
{
	const struct sp_fleet_client *f = id->exits->fleet;
	const char *where = cfg->pass ? cfg->pass : "of the endpoint";
	int n = 0;
	if (cfg->pass) {
		n = read_pass(cfg, id->device.pass, sizeof(id->device.pass), why, cap);
		if (n < 0)
			return n;
	} else if (f->pass_len) {
		n = (int)f->pass_len;
		memcpy(id->device.pass, f->pass, f->pass_len);
	}
	int err = sp_pass_open(&id->trusted, id->device.pass, (size_t)n, &id->pass);
	if (err)
		return fail(why, cap, "pass: %s: %s; ask the operator for a new one",
			    where, pass_text(err));
	id->device.pass_len = (size_t)n;
	if (memcmp(id->pass.device, id->device.device_public, 32) != 0)
		return fail(why, cap,
			    "pass: %s: it is for another device key than %s; give the "
			    "operator this device's public key and ask for a new pass",
			    where, cfg->keys.device);
	if (cfg->pass && sp_pass_judge_time(&id->pass, (uint64_t)time(NULL),
					    SP_PASS_SKEW_S) == SP_REASON_PASS_EXPIRED)
		return fail(why, cap,
			    "pass: %s: it has expired; ask the operator for a new one "
			    "(and look at this machine's clock)",
			    where);
	return 0;
}

static int load_exits(const struct cli_config *cfg, bool hold, struct cli_identity *id,
		      char *why, size_t cap)
{
	struct sp_fleet_revision held;
	struct cli_exits_options opt = {
		.keys = &id->trusted, .held = &held, .now_s = (uint64_t)time(NULL)};
	char path[4096], text[SP_WHY_MAX], last[4096];
	const char *exits =
		cfg->exits ? cfg->exits : cli_poll_path(cfg, last, sizeof(last));
	snprintf(path, sizeof(path), "%s/revision", cfg->state_dir);
	if (sp_held_load(path, &held, text, sizeof(text)))
		return fail(why, cap, "state_dir: %s", text);
	if (cli_exits_load(exits, &opt, &id->exits, text, sizeof(text)))
		return fail(why, cap, "exits: %s", text);
	const struct sp_fleet_revision *now = &id->exits->fleet->revision;
	if (!hold || sp_fleet_revision_compare(now, &held) == 0)
		return 0;
	if (mkdir(cfg->state_dir, 0700) < 0 && errno != EEXIST)
		return fail(why, cap, "state_dir: %s: %s", cfg->state_dir,
			    strerror(errno));
	if (sp_held_save(path, now, text, sizeof(text)))
		sp_warn("client", "the revision in force is not on the disk", "why=%s",
			text);
	return 0;
}

int cli_identity_load(const struct cli_config *cfg, bool hold, struct cli_identity *ret,
		      char *why, size_t cap)
{
	struct cli_identity id = {0};
	char last[4096];
	int err = load_device(cfg, &id.device, why, cap);
	if (!err)
		err = sp_trusted_load("keys.fleet",
				      "the operator's signing.pub, or the key itself",
				      &cfg->keys.fleet, &id.trusted, why, cap);
	// The first config comes from an endpoint, if there is none yet.
	if (!err && !cfg->exits &&
	    access(cli_poll_path(cfg, last, sizeof(last)), F_OK) < 0) {
		err = hold ? cli_poll_first(cfg, &id.trusted, id.device.device_public,
					    why, cap)
			   : -ENOENT;
		if (!hold)
			snprintf(why, cap,
				 "no endpoint was asked for a config yet; "
				 "sallyport up does");
	}
	if (!err)
		err = load_exits(cfg, hold, &id, why, cap);
	if (!err)
		err = load_pass(cfg, &id, why, cap);
	if (err)
		cli_identity_done(&id);
	else
		*ret = id;
	sodium_memzero(&id.device, sizeof(id.device));
	return err;
}

void cli_identity_done(struct cli_identity *id)
{
	cli_exits_free(id->exits);
	sodium_memzero(id, sizeof(*id));
}
