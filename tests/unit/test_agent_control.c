// How an agent follows the fleet, with a controller and an exit that are scripts.
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <sodium.h>

#include "lib/fleet.h"
#include "lib/key.h"
#include "lib/log.h"
#include "worker/agent_control.h"

#define N 32

// The controller's side: a chain of signed revisions; then what the agent said and did.
static struct {
	char folder[64];
	uint8_t secret[64];
	struct sp_signed_keys keys;
	struct sp_state *state;
	struct sp_position at[N];
	char *text[N];
	size_t len[N], n;

	struct sp_loop *loop;
	struct agt_control *c;
	int acks, nacks, fetches, offers, leases, members, members_error;
	bool want_snapshot, drain;
	uint64_t acked, fetched, refused; // sequences
	uint64_t offered, call, until_ms;
	char reason[512], *json;
	int offer_error, send_error;
} x;

static void say(const char *key, const char *json, uint32_t epoch)
{
	struct sp_position at = x.n ? x.at[x.n - 1] : (struct sp_position){0};
	struct sp_changes c = {0};
	json_t *o = json ? json_loads(json, 0, NULL) : NULL;
	char *private;
	assert_int_equal(sp_changes_add(&c, key, o), 0);
	assert_int_equal(sp_state_apply(x.state, &c), 0);
	assert_int_equal(sp_revision_sign(&at, epoch, 1000, "test", &c, x.state, x.secret,
					  &x.text[x.n], &x.len[x.n], &private, &at),
			 0);
	x.at[x.n++] = at;
	free(private);
	sp_changes_done(&c);
	json_decref(o);
}

static void found_fleet(void)
{
	char key[SP_KEY_TEXT_MAX], json[256];
	snprintf(json, sizeof(json), "{\"pass\": [\"%s\"]}",
		 sp_key_format(SP_KEY_SIGNING, false, x.keys.key[0].public_key, key));
	say("keys", json, 1);
	say("tier/free", "{\"max_streams\": 7}", 1);
	say("node/fra1/0", "{\"region\": \"eu\"}", 1);
}

static int on_send(void *ctx, Sallyport__Fleet__ToController *m)
{
	(void)ctx;
	if (x.send_error)
		return x.send_error;
	if (m->body_case == SALLYPORT__FLEET__TO_CONTROLLER__BODY_FETCH) {
		x.fetches++;
		x.want_snapshot = m->fetch->snapshot;
		x.fetched = m->fetch->applied->sequence;
	} else if (m->body_case == SALLYPORT__FLEET__TO_CONTROLLER__BODY_ACK) {
		x.acked = m->ack->position->sequence;
		if (m->ack->refused) {
			x.nacks++;
			x.refused = m->ack->refused->sequence;
			snprintf(x.reason, sizeof(x.reason), "%s", m->ack->reason);
		} else {
			x.acks++;
			assert_int_equal(m->ack->state.len, SP_STATE_HASH_BYTES);
		}
	}
	return 0;
}

static int on_offer(void *ctx, uint64_t call, const char *json, size_t len,
		    const struct sp_position *position)
{
	(void)ctx;
	if (x.offer_error)
		return x.offer_error;
	x.offers++;
	x.call = call;
	x.offered = position->sequence;
	free(x.json);
	x.json = strndup(json, len);
	return 0;
}

static void on_lease(void *ctx, bool drain, uint64_t until_ms)
{
	(void)ctx;
	x.leases++;
	x.drain = drain;
	x.until_ms = until_ms;
}

static int on_members(void *ctx, const char *json, size_t len)
{
	(void)ctx;
	assert_int_equal(strlen(json), len);
	assert_non_null(strstr(json, "\"members\":["));
	x.members++;
	return x.members_error;
}

static const struct agt_control_ops ops = {
	.send = on_send, .offer = on_offer, .members = on_members, .lease = on_lease};

static void open_agent(void)
{
	struct agt_control_options o = {.loop = x.loop,
					.folder = x.folder,
					.worker = "fra1/0",
					.keys = x.keys,
					.ops = &ops};
	assert_int_equal(agt_control_new(&o, &x.c), 0);
	agt_control_begin(x.c);
}

static void reopen_agent(void)
{
	agt_control_free(x.c);
	x.offers = x.acks = x.nacks = x.fetches = 0;
	open_agent();
}

static int setup(void **state)
{
	uint8_t pub[32];
	(void)state;
	memset(&x, 0, sizeof(x));
	if (sodium_init() < 0)
		return -1;
	sp_log_setup(SP_LOG_ERROR, SP_LOG_LOGFMT,
		     open("/dev/null", O_WRONLY | O_CLOEXEC));
	strcpy(x.folder, "/tmp/sp-control.XXXXXX");
	assert_non_null(mkdtemp(x.folder));
	crypto_sign_keypair(pub, x.secret);
	assert_int_equal(sp_signed_keys_add(&x.keys, pub), 0);
	assert_int_equal(sp_state_new(&x.state), 0);
	assert_int_equal(sp_loop_new(&x.loop), 0);
	found_fleet();
	open_agent();
	return 0;
}

static int teardown(void **state)
{
	char path[128];
	(void)state;
	agt_control_free(x.c);
	for (size_t i = 0; i < x.n; i++)
		free(x.text[i]);
	free(x.json);
	sp_state_free(x.state);
	sp_loop_free(x.loop);
	snprintf(path, sizeof(path), "%s/snapshot", x.folder);
	unlink(path);
	snprintf(path, sizeof(path), "%s/revisions", x.folder);
	unlink(path);
	return rmdir(x.folder);
}

#define UNTIL(condition)                                                                 \
	do {                                                                             \
		uint64_t until_ = sp_loop_now_us(x.loop) + 10000000;                     \
		while (!(condition)) {                                                   \
			assert_true(sp_loop_now_us(x.loop) < until_);                    \
			assert_int_equal(sp_loop_turn(x.loop, true), 0);                 \
		}                                                                        \
	} while (0)

static void up(size_t head)
{
	Sallyport__Fleet__Position p;
	agt_control_put_position(&x.at[head], &p);
	agt_control_up(x.c, &p);
}

static void give(size_t from, size_t to)
{
	Sallyport__Fleet__Revisions m = SALLYPORT__FLEET__REVISIONS__INIT;
	ProtobufCBinaryData blobs[N];
	for (size_t i = from; i < to; i++)
		blobs[m.n_blob++] = (ProtobufCBinaryData){x.len[i], (uint8_t *)x.text[i]};
	m.blob = blobs;
	agt_control_on_revisions(x.c, &m);
}

static void publish(size_t i)
{
	agt_control_on_published(x.c, 'R', x.text[i], x.len[i]);
}

static void publish_digest(size_t i)
{
	Sallyport__Fleet__Digest d = SALLYPORT__FLEET__DIGEST__INIT;
	Sallyport__Fleet__Position p;
	uint8_t buf[256];
	agt_control_put_position(&x.at[i], &p);
	d.head = &p;
	agt_control_on_published(x.c, 'D', buf, sallyport__fleet__digest__pack(&d, buf));
}

static void give_snapshot(const struct sp_position *at)
{
	Sallyport__Fleet__Snapshot m = SALLYPORT__FLEET__SNAPSHOT__INIT;
	char *text;
	size_t len;
	assert_int_equal(sp_snapshot_sign(at, 1000, x.state, x.secret, &text, &len), 0);
	m.blob = (ProtobufCBinaryData){len, (uint8_t *)text};
	agt_control_on_snapshot(x.c, &m);
	free(text);
}

static void accept_offer(void)
{
	agt_control_result(x.c, x.call, "");
}

// As after a first contact: all of the fleet applied.
static void join(void)
{
	up(x.n - 1);
	UNTIL(x.fetches == 1);
	give(0, x.n);
	accept_offer();
	assert_int_equal(agt_control_position(x.c)->sequence, x.n);
}

// ----

static void missing_revisions_are_fetched_applied_as_one_and_acknowledged(void **state)
{
	(void)state;
	up(2);
	UNTIL(x.fetches == 1);
	assert_int_equal(x.fetched, 0);
	give(0, 3);
	assert_int_equal(x.offers, 1);
	assert_int_equal(x.offered, 3);
	assert_int_equal(x.acks, 0); // not before the exit has it
	assert_int_equal(agt_control_position(x.c)->sequence, 0);
	assert_non_null(strstr(x.json, "\"max_streams\":7"));
	accept_offer();
	assert_int_equal(x.acks, 1);
	assert_int_equal(x.acked, 3);
	assert_true(sp_position_same(agt_control_position(x.c), &x.at[2]));
}

static void a_published_revision_is_applied_without_asking(void **state)
{
	(void)state;
	join();
	say("tier/free", "{\"max_streams\": 8}", 1);
	publish(3);
	assert_int_equal(x.offers, 2);
	accept_offer();
	assert_int_equal(x.acked, 4);
	assert_int_equal(x.fetches, 1);
}

static void a_gap_is_healed_by_asking(void **state)
{
	(void)state;
	join();
	say("tier/free", "{\"max_streams\": 8}", 1);
	say("tier/free", "{\"max_streams\": 9}", 1);
	publish(4);
	assert_int_equal(x.offers, 1);
	assert_int_equal(agt_control_counters(x.c)->gaps, 1);
	UNTIL(x.fetches == 2);
	assert_int_equal(x.fetched, 3);
	give(3, 5);
	accept_offer();
	assert_int_equal(x.acked, 5);
}

static void a_digest_shows_what_was_missed(void **state)
{
	(void)state;
	join();
	publish_digest(2); // nothing new
	say("tier/free", "{\"max_streams\": 8}", 1);
	publish_digest(3);
	UNTIL(x.fetches == 2);
	assert_int_equal(x.fetched, 3);
}

static void what_comes_twice_or_late_changes_nothing(void **state)
{
	(void)state;
	join();
	publish(1);
	publish(2);
	give(0, 3);
	give_snapshot(&x.at[1]);
	assert_int_equal(x.offers, 1);
	assert_int_equal(x.nacks, 0);
	assert_int_equal(agt_control_counters(x.c)->old, 6);
	assert_int_equal(agt_control_position(x.c)->sequence, 3);
}

static void what_is_not_signed_by_the_fleet_is_refused_or_dropped(void **state)
{
	uint8_t own[64], pub[32];
	(void)state;
	join();
	memcpy(own, x.secret, sizeof(own));
	crypto_sign_keypair(pub, x.secret);
	say("tier/free", "{\"max_streams\": 99}", 1);
	publish(3); // nobody is told: whoever said it is no controller
	assert_int_equal(x.nacks, 0);
	give(3, 4);
	assert_int_equal(x.nacks, 1);
	give_snapshot(&x.at[3]);
	assert_int_equal(x.nacks, 2);
	x.text[3][x.len[3] / 2] ^= 1;
	give(3, 4);
	agt_control_on_published(x.c, 'R', "x", 1);
	agt_control_on_published(x.c, 'D', "x", 1);
	agt_control_on_published(x.c, 'Z', "x", 1);
	assert_int_equal(x.offers, 1);
	assert_int_equal(agt_control_position(x.c)->sequence, 3);
	memcpy(x.secret, own, sizeof(own));
}

static void a_refused_config_leaves_the_old_and_is_not_tried_at_once_again(void **state)
{
	(void)state;
	join();
	say("tier/free", "{\"max_streams\": 8}", 1);
	publish(3);
	agt_control_result(x.c, x.call, "policy rule 1: no");
	assert_int_equal(x.nacks, 1);
	assert_int_equal(x.refused, 4);
	assert_int_equal(x.acked, 3);
	assert_string_equal(x.reason, "policy rule 1: no");
	assert_int_equal(agt_control_position(x.c)->sequence, 3);
	int fetches = x.fetches;
	for (int i = 0; i < 5; i++) {
		publish_digest(3);
		assert_int_equal(sp_loop_turn(x.loop, false), 0);
	}
	uint64_t until = sp_loop_now_us(x.loop) + 2 * AGT_CONTROL_JITTER_MS * 1000;
	while (sp_loop_now_us(x.loop) < until)
		assert_int_equal(sp_loop_turn(x.loop, false), 0);
	assert_int_equal(x.fetches, fetches);
	// What comes after it is a new matter, and goes with it.
	say("tier/free", "{\"max_streams\": 9}", 1);
	publish(4);
	UNTIL(x.fetches == fetches + 1);
	give(3, 5);
	accept_offer();
	assert_int_equal(x.acked, 5);
}

static void what_no_worker_could_use_is_refused_before_the_exit_sees_it(void **state)
{
	(void)state;
	join();
	say("tier/free", "{\"max_streams\": -1}", 1);
	publish(3);
	assert_int_equal(x.offers, 1);
	assert_int_equal(x.nacks, 1);
	assert_non_null(strstr(x.reason, "tiers.free.max_streams"));
	say("tier/free", "{}", 1);
	say("node/fra1/0", NULL, 1);
	give(3, 6);
	assert_int_equal(x.nacks, 2);
	assert_int_equal(x.refused, 6);
	assert_non_null(strstr(x.reason, "no worker fra1/0"));
	assert_int_equal(agt_control_position(x.c)->sequence, 3);
}

static void an_exit_that_does_not_answer_is_asked_again(void **state)
{
	(void)state;
	join();
	say("tier/free", "{\"max_streams\": 8}", 1);
	x.offer_error = -EAGAIN;
	publish(3);
	assert_int_equal(x.nacks, 0);
	x.offer_error = 0;
	publish_digest(3);
	UNTIL(x.fetches == 2);
	give(3, 4);
	agt_control_result(x.c, x.call + 1, ""); // of another offer
	assert_int_equal(agt_control_position(x.c)->sequence, 3);
	accept_offer();
	agt_control_result(x.c, x.call, "late");
	assert_int_equal(x.acked, 4);
	assert_int_equal(x.nacks, 0);
}

static void revisions_during_an_offer_are_fetched_after_it(void **state)
{
	(void)state;
	join();
	say("tier/free", "{\"max_streams\": 8}", 1);
	say("tier/free", "{\"max_streams\": 9}", 1);
	publish(3);
	publish(4); // the exit is still at it
	assert_int_equal(x.offers, 2);
	accept_offer();
	UNTIL(x.fetches == 2);
	assert_int_equal(x.fetched, 4);
	give(4, 5);
	accept_offer();
	assert_int_equal(x.acked, 5);
}

static void the_last_known_good_is_offered_at_the_next_start(void **state)
{
	(void)state;
	join();
	say("tier/free", "{\"max_streams\": 8}", 1);
	publish(3);
	accept_offer();
	reopen_agent(); // no controller
	assert_int_equal(x.offers, 1);
	assert_int_equal(x.offered, 4);
	assert_non_null(strstr(x.json, "\"max_streams\":8"));
	accept_offer();
	assert_true(agt_control_has_config(x.c));
	assert_int_equal(agt_control_position(x.c)->sequence, 4);
}

static void an_older_state_is_refused_also_after_a_start(void **state)
{
	(void)state;
	join();
	reopen_agent();
	accept_offer();
	give_snapshot(&x.at[0]);
	give(0, 2);
	assert_int_equal(x.offers, 1);
	assert_int_equal(agt_control_position(x.c)->sequence, 3);
}

static void a_higher_epoch_is_taken_by_its_snapshot(void **state)
{
	(void)state;
	join();
	struct sp_position at = {.epoch = 2, .sequence = 2, .hash = {9}};
	give_snapshot(&at);
	assert_int_equal(x.offers, 2);
	accept_offer();
	assert_int_equal(agt_control_position(x.c)->epoch, 2);
	reopen_agent();
	assert_int_equal(x.offered, 2);
	accept_offer();
	give(2, 3); // of the old epoch
	assert_int_equal(x.offers, 1);
}

static void the_exit_is_told_who_the_workers_are_when_they_change(void **state)
{
	(void)state;
	join();
	assert_int_equal(x.members, 1);
	say("tier/other", "{}", 1);
	publish(x.n - 1);
	accept_offer();
	assert_int_equal(x.members, 1);
	x.members_error = -EAGAIN;
	say("node/fra9/0", "{\"carriers\":[]}", 1);
	publish(x.n - 1);
	accept_offer();
	assert_int_equal(x.members, 2);
	x.members_error = 0;
	UNTIL(x.members == 3);
	say("tier/third", "{}", 1);
	publish(x.n - 1);
	accept_offer();
	assert_int_equal(x.members, 3);
}

static void a_lease_drains_until_it_is_over(void **state)
{
	char json[128];
	uint64_t until_s = sp_loop_unix_ms(x.loop) / 1000 + 2;
	(void)state;
	join();
	assert_false(x.drain);
	snprintf(json, sizeof(json), "{\"kind\": \"drain\", \"until\": %llu}",
		 (unsigned long long)until_s);
	say("lease/fra1", json, 1);
	publish(3);
	accept_offer();
	assert_true(x.drain);
	assert_int_equal(x.until_ms, until_s * 1000);
	UNTIL(!x.drain); // by the clock alone
	snprintf(json, sizeof(json), "{\"kind\": \"cordon\", \"until\": %llu}",
		 (unsigned long long)until_s + 100);
	say("lease/fra1", json, 1);
	publish(4);
	accept_offer();
	assert_false(x.drain); // the endpoint's matter
}

static void a_lost_answer_is_asked_for_again(void **state)
{
	(void)state;
	x.send_error = -EAGAIN;
	up(2);
	uint64_t until = sp_loop_now_us(x.loop) + 2 * AGT_CONTROL_JITTER_MS * 1000;
	while (sp_loop_now_us(x.loop) < until)
		assert_int_equal(sp_loop_turn(x.loop, false), 0);
	assert_int_equal(x.fetches, 0);
	x.send_error = 0;
	publish_digest(2);
	UNTIL(x.fetches == 1);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(missing_revisions_are_fetched_applied_as_one_and_acknowledged),
		TEST(a_published_revision_is_applied_without_asking),
		TEST(a_gap_is_healed_by_asking),
		TEST(a_digest_shows_what_was_missed),
		TEST(what_comes_twice_or_late_changes_nothing),
		TEST(what_is_not_signed_by_the_fleet_is_refused_or_dropped),
		TEST(a_refused_config_leaves_the_old_and_is_not_tried_at_once_again),
		TEST(what_no_worker_could_use_is_refused_before_the_exit_sees_it),
		TEST(an_exit_that_does_not_answer_is_asked_again),
		TEST(revisions_during_an_offer_are_fetched_after_it),
		TEST(the_last_known_good_is_offered_at_the_next_start),
		TEST(an_older_state_is_refused_also_after_a_start),
		TEST(a_higher_epoch_is_taken_by_its_snapshot),
		TEST(the_exit_is_told_who_the_workers_are_when_they_change),
		TEST(a_lease_drains_until_it_is_over),
		TEST(a_lost_answer_is_asked_for_again),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
