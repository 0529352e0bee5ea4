// A worker judges flights and a client reads answers. Byte 0: 0 the flight as it is; 1
// with its mac1 made right; 2, 3, 5 the rest is the payload of a first contact, of a
// resume or of a trunk's hello that is otherwise true; 4 and others an answer for the
// client.
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/handshake.h"
#include "lib/replay.h"

static struct sp_hs_worker_keys keys = {
	.home_id = 1, .suites = 3, .ticket_lifetime_s = 3600};
static uint64_t set_memory[512];
static uint8_t flight[SP_HS_FLIGHT_MAX];

static size_t make_flight(uint8_t kind, const uint8_t *data, size_t size)
{
	static const uint8_t psk[32] = {7};
	struct sp_ticket_body body = {.issued_s = 1000, .pass_expires_s = 2000};
	struct sp_noise_keys nk = {keys.static_secret, keys.static_public,
				   keys.static_public, psk};
	uint8_t prologue[14 + 2 + SP_TICKET_BYTES] = "sallyport/1\1\1";
	size_t at = 21, prologue_len = 14;
	struct sp_noise ns;

	memcpy(flight + 18, "\1\1", 2);
	flight[20] = prologue[13] = kind;
	if (kind == 1) {
		memcpy(body.psk, psk, 32);
		memcpy(flight + 21, "\0\xc0", 2);
		sp_ticket_seal(keys.route_key, keys.boot_key, 1, &body, flight + 23);
		memcpy(prologue + 14, flight + 21, 2 + SP_TICKET_BYTES);
		at += 2 + SP_TICKET_BYTES;
		prologue_len = sizeof(prologue);
	}
	if (sp_noise_init(&ns, kind == 1 ? SP_NOISE_NNPSK0 : SP_NOISE_IK,
			  SP_NOISE_INITIATOR, prologue, prologue_len, &nk))
		abort();
	sp_noise_set_ephemeral(&ns, psk);
	at += (size_t)sp_noise_write(&ns, data, size, flight + at, sizeof(flight) - at);
	flight[16] = (uint8_t)((at - 18) >> 8);
	flight[17] = (uint8_t)(at - 18);
	return at;
}

static bool is_member(void *ctx, const uint8_t *key)
{
	(void)ctx;
	return !sodium_memcmp(key, keys.static_public, 32);
}

static void judge(size_t len)
{
	static struct sp_hs_worker w;
	struct sp_hs_judge in = {
		.keys = &keys, .now_ms = 1500000, .is_member = is_member};
	struct sp_hs_accept who;
	uint8_t buf[SP_HS_ANSWER_MAX];
	struct sp_hs_keys k;

	if (sp_replay_format(set_memory, sizeof(set_memory), 32, &in.replay) ||
	    sp_hs_worker_judge(&w, &in, flight, len, &who))
		return;
	if (w.verdict == SP_HS_ACCEPTED &&
	    sp_hs_worker_answer(&w, &keys, SP_REASON_NONE, 1, buf, sizeof(buf), &k) < 0)
		abort();
	sp_hs_worker_done(&w);
}

static void finish(const uint8_t *data, size_t size)
{
	struct sp_hs_client_options opt = {.worker_public = keys.static_public,
					   .suites = 3};
	struct sp_hs_client c;
	struct sp_hs_result res;
	uint8_t ticket[SP_TICKET_BYTES] = {0};

	opt.ticket = ticket;
	opt.ticket_len = sizeof(ticket);
	opt.ticket_psk = opt.frames = ticket;
	opt.frames_len = 1;
	if (sp_hs_client_start(&c, &opt, flight, sizeof(flight)) < 0)
		abort();
	if (sp_hs_client_finish(&c, data, size, &res) > (int)size)
		abort();
	sp_hs_client_done(&c);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t seed[32] = {9}, public_key[32], secret[64];
	size_t len = size - 1;

	if (size < 1 || size > 4096 || sodium_init() < 0)
		return 0;
	if (!keys.trusted.n) {
		crypto_sign_seed_keypair(public_key, secret, seed);
		keys.static_secret[0] = 5;
		if (sp_hs_worker_keys_init(&keys) ||
		    sp_signed_keys_add(&keys.trusted, public_key))
			abort();
	}
	memset(flight, 0, sizeof(flight));
	if (data[0] > 3 && data[0] != 5) {
		finish(data + 1, len);
		return 0;
	}
	if (data[0] < 2)
		memcpy(flight, data + 1, len);
	else
		len = make_flight(data[0] == 5 ? SP_HS_TRUNK : data[0] - 2, data + 1,
				  len);
	if (data[0] && len > 16)
		crypto_generichash(flight, 16, flight + 16, len - 16, keys.mac1_key, 32);
	judge(len);
	return 0;
}
