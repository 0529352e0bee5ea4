// A fleet of one worker and one device, for the tests of the first flight.
#ifndef SP_TEST_HANDSHAKE_WORLD_H
#define SP_TEST_HANDSHAKE_WORLD_H

#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <sodium.h>

#include "lib/budget.h"
#include "lib/handshake.h"
#include "lib/replay.h"

#define NOW_S  UINT64_C(1700000000)
#define NOW_MS (NOW_S * 1000)

// A fleet of one worker and one device.
struct world {
	struct sp_hs_worker_keys keys;
	struct sp_replay *replay;
	struct sp_hs_judge judge;
	uint8_t signing_secret[64];
	uint8_t device_secret[32], device_public[32];
	struct sp_pass pass;
	uint8_t blob[SP_PASS_BLOB_MAX];
	size_t blob_len;
	uint8_t ticket[SP_TICKET_BYTES];
	struct sp_ticket_body body;
	uint8_t flight[SP_HS_FLIGHT_MAX + 64];
	size_t len;
	struct sp_hs_client client;
	struct sp_hs_worker worker;
	struct sp_hs_accept who;
};

static inline void sign_pass(struct world *w)
{
	int len = sp_pass_sign(&w->pass, w->signing_secret, w->blob, sizeof(w->blob));

	assert_true(len > 0);
	w->blob_len = (size_t)len;
}

static inline struct world *world_new(void)
{
	struct world *w = calloc(1, sizeof(*w));
	uint8_t signing_public[32];
	size_t bytes = sp_replay_bytes(16);

	assert_non_null(w);
	crypto_sign_keypair(signing_public, w->signing_secret);
	assert_int_equal(sp_signed_keys_add(&w->keys.trusted, signing_public), 0);
	randombytes_buf(w->keys.static_secret, 32);
	randombytes_buf(w->keys.route_key, 32);
	randombytes_buf(w->keys.boot_key, 32);
	w->keys.home_id = 0x1122334455667788;
	w->keys.boot_id = 0x99;
	w->keys.suites = 3;
	w->keys.ticket_lifetime_s = 3600;
	assert_int_equal(sp_hs_worker_keys_init(&w->keys), 0);
	assert_int_equal(sp_replay_format(malloc(bytes), bytes, 16, &w->replay), 0);
	randombytes_buf(w->device_secret, 32);
	crypto_scalarmult_base(w->device_public, w->device_secret);
	w->pass = (struct sp_pass){.not_before_s = NOW_S - 100,
				   .expires_s = NOW_S + 3600,
				   .user = "u",
				   .tier = "t"};
	memcpy(w->pass.device, w->device_public, 32);
	sign_pass(w);
	randombytes_buf(&w->body, sizeof(w->body));
	w->body.issued_s = NOW_S - 10;
	w->body.pass_expires_s = NOW_S + 1000;
	sp_ticket_seal(w->keys.route_key, w->keys.boot_key, w->keys.home_id, &w->body,
		       w->ticket);
	w->judge = (struct sp_hs_judge){
		.keys = &w->keys, .replay = w->replay, .now_ms = NOW_MS, .mono_ms = 5000};
	return w;
}

static inline void world_free(struct world *w)
{
	sp_hs_client_done(&w->client);
	sp_hs_worker_done(&w->worker);
	free(w->replay);
	free(w);
}

static inline struct sp_hs_client_options first_contact(const struct world *w)
{
	return (struct sp_hs_client_options){
		.worker_public = w->keys.static_public,
		.suites = 3,
		.device_secret = w->device_secret,
		.device_public = w->device_public,
		.pass = w->blob,
		.pass_len = w->blob_len,
		.now_ms = NOW_MS,
	};
}

static inline struct sp_hs_client_options resume(const struct world *w)
{
	return (struct sp_hs_client_options){
		.worker_public = w->keys.static_public,
		.suites = 3,
		.ticket = w->ticket,
		.ticket_len = sizeof(w->ticket),
		.ticket_psk = w->body.psk,
		.frames = (const uint8_t *)"\x03-frames",
		.frames_len = 8,
	};
}

static inline void start(struct world *w, const struct sp_hs_client_options *opt)
{
	int len = sp_hs_client_start(&w->client, opt, w->flight, SP_HS_FLIGHT_MAX);

	assert_true(len > 0 && len <= SP_HS_FLIGHT_MAX);
	w->len = (size_t)len;
}

static inline int judge(struct world *w, size_t len)
{
	// exactly as many bytes as there are, so that a sanitizer sees what is beyond
	uint8_t *exact = malloc(len + 1);
	int err;

	memcpy(exact, w->flight, len);
	err = sp_hs_worker_judge(&w->worker, &w->judge, exact, len, &w->who);
	assert_memory_equal(exact, w->flight, len); // intact for the cover site
	free(exact);
	return err;
}

static inline void expect_stranger(struct world *w, enum sp_reason why)
{
	assert_int_equal(judge(w, w->len), 0);
	assert_int_equal(w->worker.verdict, SP_HS_STRANGER);
	assert_int_equal(w->worker.why, why);
}

static inline void expect_accepted(struct world *w)
{
	assert_int_equal(judge(w, w->len), 0);
	assert_int_equal(w->worker.why, SP_REASON_NONE);
	assert_int_equal(w->worker.verdict, SP_HS_ACCEPTED);
}

// Makes mac1 right again after the flight was changed, as any holder of a config could.
static inline void mac_again(struct world *w)
{
	crypto_generichash(w->flight, 16, w->flight + 16, w->len - 16, w->keys.mac1_key,
			   32);
}

static inline void answer(struct world *w, enum sp_reason refuse,
			  struct sp_hs_keys *ret_worker, struct sp_hs_result *ret)
{
	uint8_t buf[SP_HS_ANSWER_MAX];
	int len = sp_hs_worker_answer(&w->worker, &w->keys, refuse, NOW_MS + 7, buf,
				      sizeof(buf), ret_worker);

	assert_true(len > 0);
	for (int cut = 0; cut < len; cut++)
		assert_int_equal(sp_hs_client_finish(&w->client, buf, (size_t)cut, ret),
				 SP_E_AGAIN);
	assert_int_equal(sp_hs_client_finish(&w->client, buf, (size_t)len, ret), len);
}

static inline void expect_same_keys(const struct sp_hs_keys *a,
				    const struct sp_hs_keys *b)
{
	assert_memory_equal(a->tx_key, b->rx_key, 32);
	assert_memory_equal(a->rx_key, b->tx_key, 32);
	assert_memory_not_equal(a->tx_key, a->rx_key, 32);
	assert_memory_equal(a->ticket_psk, b->ticket_psk, sizeof(a->ticket_psk));
	assert_memory_not_equal(a->ticket_psk[0], a->ticket_psk[1], 32);
	assert_int_equal(a->suite, b->suite);
	assert_int_equal(a->version, 1);
	assert_int_equal(b->version, 1);
}

#endif
