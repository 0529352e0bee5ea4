// What a controller, or somebody in its place, may publish and answer to an agent:
// digests, revisions and snapshots, bodies of any bytes with a true signature, or raw.
// The agent stays where it is unless all of it holds.
#include <string.h>

#include <sodium.h>

#include "tests/fuzz/fuzz_folder.h"
#include "worker/agent_control.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int on_send(void *ctx, Sallyport__Fleet__ToController *m)
{
	(void)ctx;
	if (sallyport__fleet__to_controller__get_packed_size(m) > 4096)
		abort();
	return 0;
}

static int on_offer(void *ctx, uint64_t call, const char *json, size_t len,
		    const struct sp_position *position)
{
	(void)ctx;
	if (!call || strlen(json) != len || position->sequence == 0)
		abort();
	return -1;
}

static void on_lease(void *ctx, bool drain, uint64_t until_ms)
{
	(void)ctx;
	(void)drain;
	(void)until_ms;
}

static int on_members(void *ctx, const char *json, size_t len)
{
	(void)ctx;
	return json[len] ? -1 : 0;
}

static void feed(struct agt_control *c, const uint8_t *data, size_t size,
		 const uint8_t *secret)
{
	Sallyport__Fleet__Revisions r = SALLYPORT__FLEET__REVISIONS__INIT;
	Sallyport__Fleet__Snapshot s = SALLYPORT__FLEET__SNAPSHOT__INIT;
	size_t cap = size + SP_SIGNED_LINE_MAX;
	char *text = malloc(cap);
	ProtobufCBinaryData blobs[2] = {{size, (uint8_t *)(uintptr_t)data}};
	int n = sp_signed_seal_text(SP_SIGNED_REVISION, secret, data, size, text, cap);
	blobs[1] = (ProtobufCBinaryData){n > 0 ? (size_t)n : 0, (uint8_t *)text};
	r.n_blob = 2;
	r.blob = blobs;
	agt_control_on_published(c, 'D', data, size);
	agt_control_on_published(c, 'R', data, size);
	agt_control_on_published(c, 'R', text, blobs[1].len);
	agt_control_on_revisions(c, &r);
	s.blob = blobs[0];
	agt_control_on_snapshot(c, &s);
	n = sp_signed_seal_text(SP_SIGNED_SNAPSHOT, secret, data, size, text, cap);
	s.blob = (ProtobufCBinaryData){n > 0 ? (size_t)n : 0, (uint8_t *)text};
	agt_control_on_snapshot(c, &s);
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct agt_control_ops ops = {on_send, on_offer, on_members,
						   on_lease};
	static struct sp_loop *loop;
	struct agt_control_options o = {.worker = "a/0", .ops = &ops};
	struct agt_control *c;
	uint8_t seed[32] = {9}, public_key[32], secret[64];
	fuzz_file("snapshot", "", 0);
	fuzz_file("revisions", "", 0);
	if (sodium_init() < 0 || (!loop && sp_loop_new(&loop)))
		abort();
	fuzz_quiet();
	crypto_sign_seed_keypair(public_key, secret, seed);
	o.loop = loop;
	o.folder = fuzz_folder;
	if (sp_signed_keys_add(&o.keys, public_key) || agt_control_new(&o, &c))
		abort();
	agt_control_begin(c);
	agt_control_up(c, NULL);
	feed(c, data, size, secret);
	agt_control_result(c, 1, "no");
	if (agt_control_has_config(c))
		abort();
	agt_control_free(c);
	return 0;
}
