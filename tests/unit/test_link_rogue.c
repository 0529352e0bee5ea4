// A client that has a pass and breaks the rules: it is closed, nothing else is touched.
#include "lib/frame.h"
#include "tests/unit/link_world.h"

#define UNTIL(w, condition) assert_true(world_until(w, condition))

struct rogue {
	struct link_world *w;
	struct sp_carrier *c;
	struct sp_record_tx tx;
	struct sp_record_rx rx;
	uint8_t in[40000];
	size_t in_len;
	bool ended;
	enum sp_reason reason; // of the CLOSE it got
};

static void fetch(struct rogue *r)
{
	ssize_t n;

	while ((n = sp_carrier_read(r->c, r->in + r->in_len, sizeof(r->in) - r->in_len)) >
	       0)
		r->in_len += (size_t)n;
	assert_true(n == 0 || n == -EAGAIN); // never a reset
	r->ended |= n == 0;
}

// Handshake by hand; the keys are the rogue's.
static void rogue_start(struct rogue *r, struct link_world *w)
{
	struct sp_hs_client hs;
	struct sp_hs_result res;
	struct sp_hs_client_options opt = {
		.worker_public = w->keys.static_public,
		.suites = sp_aead_suites(),
		.device_secret = w->device_secret,
		.device_public = w->device_public,
		.pass = w->pass,
		.pass_len = w->pass_len,
		.now_ms = sp_loop_unix_ms(w->loop),
	};
	uint8_t flight[SP_HS_FLIGHT_MAX];
	int n = sp_hs_client_start(&hs, &opt, flight, sizeof(flight));

	memset(r, 0, sizeof(*r));
	r->w = w;
	r->c = world_raw_client(w);
	assert_int_equal(sp_carrier_write(r->c, flight, (size_t)n), n);
	UNTIL(w, (fetch(r), r->in_len > 50));
	n = sp_hs_client_finish(&hs, r->in, r->in_len, &res);
	assert_true(n > 0);
	assert_int_equal(res.refuse, SP_REASON_NONE);
	r->in_len -= (size_t)n;
	memmove(r->in, r->in + n, r->in_len);
	assert_int_equal(sp_record_tx_init(&r->tx, res.keys.suite, res.keys.tx_key, 0),
			 0);
	assert_int_equal(sp_record_rx_init(&r->rx, res.keys.suite, res.keys.rx_key), 0);
	sp_hs_keys_wipe(&res.keys);
}

static void say(struct rogue *r, const void *plain, size_t len)
{
	struct iovec iov = {(void *)(uintptr_t)plain, len};
	uint8_t record[SP_RECORD_MAX];
	int n = sp_record_tx_seal(&r->tx, &iov, 1, record, sizeof(record));

	assert_true(n > 0);
	assert_int_equal(sp_carrier_write(r->c, record, (size_t)n), n);
}

// Reads records until the end; notes the reason of a CLOSE.
static void rogue_end(struct rogue *r)
{
	uint8_t *plain;
	size_t len, used = 0;
	struct sp_reader rd;
	struct sp_frame f;
	int n;

	UNTIL(r->w, (fetch(r), r->ended));
	while ((n = sp_record_peek(r->in + used, r->in_len - used)) > 0) {
		assert_int_equal(
			sp_record_rx_open(&r->rx, r->in + used, (size_t)n, &plain, &len),
			0);
		used += (size_t)n;
		sp_reader_init(&rd, plain, len);
		while (sp_reader_left(&rd) && !sp_frame_get(&rd, &f))
			if (f.type == SP_FRAME_CLOSE)
				r->reason = (enum sp_reason)f.reason;
	}
	assert_int_equal(used, r->in_len);
	sp_record_tx_done(&r->tx);
	sp_record_rx_done(&r->rx);
	sp_carrier_free(r->c);
}

static size_t attach_frame(uint8_t *buf, size_t cap, uint32_t epoch, uint8_t slot)
{
	struct sp_writer w;

	sp_writer_init(&w, buf, cap);
	sp_frame_put_attach(&w, (const uint8_t *)"a session of 16b", epoch, slot, 0);
	return sp_writer_len(&w);
}

static void a_first_record_without_attach_is_a_protocol_error(void **state)
{
	uint8_t attach[64], plain[100];
	size_t len = attach_frame(attach, sizeof(attach), 1, 0);

	(void)state;
	for (int kind = 0; kind < 5; kind++) {
		struct link_world *w = world_new();
		struct rogue r;
		memset(plain, 0xfe, sizeof(plain));
		rogue_start(&r, w);
		if (kind == 0)
			say(&r, "\x01", 1); // PING
		else if (kind == 1)
			say(&r, plain, sizeof(plain)); // no such frame
		else if (kind == 2)
			say(&r, attach, len - 1);
		else if (kind == 3)
			say(&r, "\0", 1); // PAD
		else
			say(&r, "\x1b\0\1", 3); // CLOSE
		rogue_end(&r);
		assert_int_equal(r.reason, SP_REASON_PROTOCOL);
		assert_null(w->worker);
		assert_int_equal(w->worker_downs, 1);
		assert_int_equal(w->worker_reason, SP_REASON_PROTOCOL);
		world_free(w);
	}
}

static void a_slot_that_is_none_and_epoch_0_are_stale(void **state)
{
	uint8_t attach[64];

	(void)state;
	for (int kind = 0; kind < 2; kind++) {
		struct link_world *w = world_new();
		struct rogue r;
		size_t len = attach_frame(attach, sizeof(attach), kind ? 1 : 0,
					  kind ? 200 : 0);
		rogue_start(&r, w);
		say(&r, attach, len);
		rogue_end(&r);
		assert_true(r.reason == SP_REASON_STALE_EPOCH ||
			    r.reason == SP_REASON_PROTOCOL);
		world_free(w);
	}
}

static void frames_out_of_place_after_attach_are_a_protocol_error(void **state)
{
	static const struct {
		const char *bytes;
		size_t len;
	} frames[] = {
		{"\x1d\x01", 2},             // something behind REKEY
		{"\x04\0\0\0\0\1\0\0", 8},   // only workers send ATTACHED
		{"\x1c\0\1", 3},             // nor END
		{"\x0a\1\x50\0\5hello", 10}, // DATA beyond what was sent
		{"\x02\x7f\xff\0", 4},       // SEEN of records that never were
		{"\xff", 1},
		{"\x0a\1", 2}, // half a frame
	};
	uint8_t plain[128];

	(void)state;
	for (size_t i = 0; i < sizeof(frames) / sizeof(frames[0]); i++) {
		struct link_world *w = world_new();
		struct rogue r;
		size_t len = attach_frame(plain, sizeof(plain), 1, 0);
		rogue_start(&r, w);
		memcpy(plain + len, "\x05\1\0", 3); // RESUME, the last, of nothing
		say(&r, plain, len + 3);
		UNTIL(w, w->worker != NULL);
		say(&r, frames[i].bytes, frames[i].len);
		if (i == 3) // an unknown stream's data is answered, not punished
			say(&r, "\xff", 1);
		rogue_end(&r);
		assert_int_equal(r.reason, SP_REASON_PROTOCOL);
		assert_int_equal(w->worker_downs, 1);
		assert_int_equal(sp_session_active_slot(w->worker), -1);
		world_free(w);
	}
}

static void records_of_impossible_length_or_wrong_tag_end_the_carrier(void **state)
{
	static const uint8_t bad[][20] = {
		{0, 0}, {0, 16}, {0xff, 0xff}, {0, 18, 1, 2, 3}};

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		struct link_world *w = world_new();
		struct rogue r;
		uint8_t attach[64];
		size_t len = attach_frame(attach, sizeof(attach), 1, 0);
		rogue_start(&r, w);
		say(&r, attach, len);
		UNTIL(w, w->worker != NULL);
		assert_int_equal(sp_carrier_write(r.c, bad[i], 20), 20);
		rogue_end(&r);
		assert_int_equal(r.reason, SP_REASON_RECORD);
		assert_int_equal(w->worker_reason, SP_REASON_RECORD);
		world_free(w);
	}
}

// It goes on sending for as long as it likes; the end is still FIN, and comes.
static void who_does_not_stop_sending_is_drained_for_a_while(void **state)
{
	struct link_world *w = world_new();
	uint8_t noise[4096] = {0};
	struct rogue r;
	bool reset = false;

	(void)state;
	rogue_start(&r, w);
	say(&r, "\x01", 1);
	UNTIL(w, (fetch(&r), r.ended));
	UNTIL(w, ({
		      ssize_t n = sp_carrier_write(r.c, noise, sizeof(noise));
		      reset |= n < 0 && n != -EAGAIN;
		      reset || sp_link_env_counters(w->worker_env)->closed == 1;
	      }));
	assert_int_equal(sp_link_env_counters(w->worker_env)->closed, 1);
	sp_record_tx_done(&r.tx);
	sp_record_rx_done(&r.rx);
	sp_carrier_free(r.c);
	world_free(w);
}

static void an_authenticated_client_that_never_attaches_times_out(void **state)
{
	struct link_world *w = world_with(200, 10);
	struct rogue r;

	(void)state;
	rogue_start(&r, w);
	rogue_end(&r);
	assert_int_equal(r.reason, SP_REASON_TIMEOUT);
	assert_int_equal(w->worker_reason, SP_REASON_TIMEOUT);
	world_free(w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_first_record_without_attach_is_a_protocol_error),
		cmocka_unit_test(a_slot_that_is_none_and_epoch_0_are_stale),
		cmocka_unit_test(frames_out_of_place_after_attach_are_a_protocol_error),
		cmocka_unit_test(
			records_of_impossible_length_or_wrong_tag_end_the_carrier),
		cmocka_unit_test(who_does_not_stop_sending_is_drained_for_a_while),
		cmocka_unit_test(an_authenticated_client_that_never_attaches_times_out),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
