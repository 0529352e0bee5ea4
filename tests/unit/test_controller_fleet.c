// The controller's chain of revisions: its journal, Redis beside it, and what happens
// when either fails, with a real redis-server that is killed, frozen and emptied.
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <sodium.h>

#include "controller/fleet.h"
#include "controller/journal.h"
#include "lib/replica.h"
#include "tests/unit/redis_world.h"

// ---- the journal ----

struct seen {
	unsigned n;
	char last[64];
};

static int see(void *ctx, const struct con_journal_record *r, char *why, size_t cap)
{
	struct seen *s = ctx;
	(void)why;
	(void)cap;
	s->n++;
	snprintf(s->last, sizeof(s->last), "%.*s|%.*s", (int)r->text_len, r->text,
		 (int)r->private_len, r->private ? r->private : "");
	return 0;
}

static struct con_journal_record record(const char *text, const char *private)
{
	return (struct con_journal_record){.kind = CON_JOURNAL_REVISION,
					   .text = text,
					   .text_len = strlen(text),
					   .private = private,
					   .private_len = private ? strlen(private) : 0};
}

static int reopen(const char *path, struct seen *s, uint64_t *cut)
{
	char why[512];
	struct con_journal *j = NULL;
	*s = (struct seen){0};
	int err = con_journal_open(path, see, s, &j, cut, why, sizeof(why));
	con_journal_close(j);
	return err;
}

static char journal_path[128];

static struct con_journal *new_journal(void)
{
	char why[512];
	uint64_t cut;
	struct seen s = {0};
	struct con_journal *j;
	snprintf(journal_path, sizeof(journal_path), "/tmp/sp-journal-%d", getpid());
	unlink(journal_path);
	assert_int_equal(
		con_journal_open(journal_path, see, &s, &j, &cut, why, sizeof(why)), 0);
	assert_int_equal(s.n + cut, 0);
	return j;
}

static void append(struct con_journal *j, const char *text, const char *private)
{
	struct con_journal_record r = record(text, private);
	assert_int_equal(con_journal_append(j, &r), 0);
}

static void a_record_that_was_cut_at_any_byte_is_dropped_and_nothing_else(void **state)
{
	struct seen s;
	uint64_t cut;
	char whole[4096];
	(void)state;
	struct con_journal *j = new_journal();
	append(j, "first", NULL);
	append(j, "second", "secret");
	uint64_t two = con_journal_bytes(j);
	append(j, "third", "more");
	uint64_t three = con_journal_bytes(j);
	con_journal_close(j);
	int fd = open(journal_path, O_RDONLY | O_CLOEXEC);
	assert_int_equal(read(fd, whole, sizeof(whole)), three);
	close(fd);
	for (uint64_t at = two; at < three; at++) {
		fd = open(journal_path, O_WRONLY | O_TRUNC | O_CLOEXEC);
		assert_int_equal(write(fd, whole, at), at);
		// the rest: never written, or blank
		assert_int_equal(ftruncate(fd, (off_t)(at % 2 ? at : three)), 0);
		close(fd);
		assert_int_equal(reopen(journal_path, &s, &cut), 0);
		assert_int_equal(s.n, 2);
		assert_string_equal(s.last, "second|secret");
		assert_int_equal(reopen(journal_path, &s, &cut), 0);
		assert_int_equal(cut, 0);
	}
	unlink(journal_path);
}

static void damage_that_is_not_at_the_end_is_an_error(void **state)
{
	struct seen s;
	uint64_t cut;
	(void)state;
	struct con_journal *j = new_journal();
	append(j, "first", NULL);
	uint64_t one = con_journal_bytes(j);
	append(j, "second", "secret");
	append(j, "third", "more");
	con_journal_close(j);
	for (uint64_t at = 0; at < one + 10; at++) {
		uint8_t byte;
		int fd = open(journal_path, O_RDWR | O_CLOEXEC);
		assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
		byte ^= 0x40;
		assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
		assert_int_equal(reopen(journal_path, &s, &cut), SP_E_MALFORMED);
		byte ^= 0x40;
		assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
		close(fd);
	}
	assert_int_equal(reopen(journal_path, &s, &cut), 0);
	assert_int_equal(s.n, 3);
	unlink(journal_path);
}

static void a_full_disk_adds_nothing_and_the_journal_goes_on(void **state)
{
	struct rlimit old, tight;
	struct seen s;
	uint64_t cut;
	(void)state;
	struct con_journal *j = new_journal();
	append(j, "first", NULL);
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	tight = old;
	tight.rlim_cur = con_journal_bytes(j) + 30;
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
	struct con_journal_record r = record("second", "secret");
	assert_int_equal(con_journal_append(j, &r), -EFBIG);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	append(j, "third", NULL);
	con_journal_close(j);
	assert_int_equal(reopen(journal_path, &s, &cut), 0);
	assert_int_equal(s.n, 2);
	assert_string_equal(s.last, "third|");
	unlink(journal_path);
}

static void what_is_undone_or_rewritten_is_gone(void **state)
{
	struct seen s;
	uint64_t cut;
	(void)state;
	struct con_journal *j = new_journal();
	append(j, "first", NULL);
	append(j, "second", NULL);
	assert_int_equal(con_journal_undo(j), 0);
	assert_int_equal(con_journal_undo(j), -EINVAL);
	append(j, "third", NULL);
	assert_int_equal(reopen(journal_path, &s, &cut), 0);
	assert_int_equal(s.n, 2);
	assert_string_equal(s.last, "third|");
	struct con_journal_record base = record("base", "all");
	base.kind = CON_JOURNAL_BASE;
	assert_int_equal(con_journal_rewrite(j, &base), 0);
	append(j, "fourth", NULL);
	con_journal_close(j);
	assert_int_equal(reopen(journal_path, &s, &cut), 0);
	assert_int_equal(s.n, 2);
	assert_string_equal(s.last, "fourth|");
	unlink(journal_path);
}

// ---- the fleet ----

struct world {
	struct sp_loop *loop;
	struct con_fleet *f;
	uint8_t secret[64];
	char journal[128];
	unsigned events[CON_FLEET_CUT + 1];
	struct con_fleet_listener listener;
	struct sp_replica replica; // follows what is published
	unsigned heard;
	// the last commit's end
	unsigned done;
	int err;
	char why[256];
};

static void on_event(void *ctx, enum con_fleet_event what, const char *text)
{
	struct world *w = ctx;
	w->events[what]++;
	if (getenv("FLEET_TRACE"))
		fprintf(stderr, "event %d: %s\n", what, text);
}

static void on_changed(void *ctx, const struct con_fleet_change *c)
{
	struct world *w = ctx;
	struct sp_staged s = {0};
	w->heard++;
	assert_int_equal(sp_replica_stage_revision(&w->replica, c->text, c->len, &s), 0);
	sp_replica_take(&w->replica, &s);
	assert_memory_equal(sp_state_hash(w->replica.state), sp_state_hash(c->after), 32);
}

static void on_done(void *ctx, int err, const char *why, const struct sp_position *at)
{
	struct world *w = ctx;
	(void)at;
	w->done++;
	w->err = err;
	snprintf(w->why, sizeof(w->why), "%s", why);
}

static void start(struct world *w)
{
	char why[512] = "", address[128];
	snprintf(address, sizeof(address), "unix:%s", redis.socket);
	struct con_fleet_options o = {.loop = w->loop,
				      .name = "t",
				      .journal = w->journal,
				      .secret = w->secret,
				      .redis = address,
				      .event = on_event,
				      .ctx = w};
	if (con_fleet_new(&o, &w->f, why, sizeof(why)))
		fail_msg("%s", why);
	sp_replica_done(&w->replica);
	w->replica.keys = *con_fleet_keys(w->f);
	const char *text;
	size_t len;
	struct sp_staged s = {0};
	if (con_fleet_head(w->f)->sequence) {
		assert_int_equal(con_fleet_snapshot(w->f, &text, &len), 0);
		assert_int_equal(sp_replica_stage_snapshot(&w->replica, text, len, &s),
				 0);
		sp_replica_take(&w->replica, &s);
	}
	w->listener = (struct con_fleet_listener){.changed = on_changed, .ctx = w};
	con_fleet_listen(w->f, &w->listener);
}

static void stop(struct world *w)
{
	con_fleet_free(w->f);
	w->f = NULL;
	sp_replica_done(&w->replica);
}

static void setup(struct world *w)
{
	static unsigned n;
	uint8_t seed[32] = {7}, public_key[32];
	*w = (struct world){0};
	crypto_sign_seed_keypair(public_key, w->secret, seed);
	assert_int_equal(sp_loop_new(&w->loop), 0);
	redis_world_new(w->loop);
	redis_disconnect();
	snprintf(w->journal, sizeof(w->journal), "%s/journal-%u", redis.dir, n++);
	start(w);
}

static void teardown(struct world *w)
{
	stop(w);
	unlink(w->journal);
	redis_world_free();
	sp_loop_free(w->loop);
}

static void commit(struct world *w, const char *key, const char *json)
{
	struct sp_changes c = {0};
	json_t *o = json ? json_loads(json, 0, NULL) : NULL;
	assert_int_equal(sp_changes_add(&c, key, o), 0);
	json_decref(o);
	w->done = 0;
	assert_int_equal(con_fleet_commit(w->f, &c, "tests", on_done, w), 0);
}

static void must_commit(struct world *w, const char *key, const char *json)
{
	commit(w, key, json);
	REDIS_UNTIL(w->done);
	if (w->err)
		fail_msg("%d %s", w->err, w->why);
}

static void redis_does(const char *command)
{
	freeReplyObject(redis_ask(command));
}

static char *redis_text(const char *command)
{
	redisReply *r = redis_ask(command);
	char *text = r->type == REDIS_REPLY_STRING ? strdup(r->str) : strdup("");
	freeReplyObject(r);
	return text;
}

static void a_change_is_in_the_journal_in_redis_and_heard_of(void **state)
{
	struct world w;
	(void)state;
	setup(&w);
	must_commit(&w, "tier/a", "{\"max_streams\":1}");
	must_commit(&w, "user/u", "{\"tier\":\"a\"}");
	assert_int_equal(w.heard, 2);
	assert_int_equal(con_fleet_head(w.f)->sequence, 2);
	assert_int_equal(redis_number("XLEN %s", "sp:{t}:journal"), 2);
	char *head = redis_text("GET sp:{t}:head");
	assert_int_equal(strncmp(head, "1:2:", 4), 0);
	free(head);
	assert_null(sp_state_get(w.replica.state, "user/u", NULL));
	// the same again is no revision
	must_commit(&w, "tier/a", "{\"max_streams\":1}");
	assert_int_equal(con_fleet_head(w.f)->sequence, 2);
	// a restart loses nothing
	struct sp_position at = *con_fleet_head(w.f);
	stop(&w);
	start(&w);
	assert_true(sp_position_same(&at, con_fleet_head(w.f)));
	assert_non_null(sp_state_get(con_fleet_state(w.f), "user/u", NULL));
	must_commit(&w, "tier/a", NULL);
	assert_int_equal(con_fleet_head(w.f)->sequence, 3);
	struct sp_state *past;
	assert_int_equal(con_fleet_state_at(w.f, 1, &past), 0);
	assert_non_null(sp_state_get(past, "tier/a", NULL));
	assert_null(sp_state_get(past, "user/u", NULL));
	sp_state_free(past);
	teardown(&w);
}

static void what_a_worker_would_refuse_is_refused(void **state)
{
	struct world w;
	(void)state;
	setup(&w);
	commit(&w, "node/a/0", "{\"region\":\"eu\"}");
	REDIS_UNTIL(w.done);
	assert_int_not_equal(w.err, 0);
	assert_non_null(strstr(w.why, "worker a/0"));
	assert_int_equal(con_fleet_head(w.f)->sequence, 0);
	must_commit(&w, "tier/a", "{}");
	teardown(&w);
}

static void an_emptied_redis_is_filled_anew_and_the_epoch_rises(void **state)
{
	struct world w;
	(void)state;
	setup(&w);
	must_commit(&w, "tier/a", "{}");
	must_commit(&w, "user/u", "{}");
	redis_does("FLUSHALL");
	REDIS_UNTIL(w.events[CON_FLEET_SEEDED] == 1);
	assert_int_equal(con_fleet_head(w.f)->epoch, 2);
	assert_int_equal(con_fleet_head(w.f)->sequence, 3);
	assert_int_equal(w.heard, 3);
	must_commit(&w, "tier/b", "{}");
	assert_int_equal(con_fleet_head(w.f)->sequence, 4);
	// a controller without a disk finds all of it there
	struct sp_position at = *con_fleet_head(w.f);
	stop(&w);
	unlink(w.journal);
	start(&w);
	sp_replica_done(&w.replica); // its snapshot was of nothing
	con_fleet_unlisten(&w.listener);
	REDIS_UNTIL(con_fleet_is_synced(w.f));
	assert_true(sp_position_same(&at, con_fleet_head(w.f)));
	assert_non_null(sp_state_get(con_fleet_state(w.f), "user/u", NULL));
	assert_non_null(sp_state_get(con_fleet_state(w.f), "tier/b", NULL));
	teardown(&w);
}

static void an_older_copy_of_redis_is_replaced(void **state)
{
	struct world w;
	(void)state;
	setup(&w);
	must_commit(&w, "tier/a", "{}");
	redis_does("SAVE");
	must_commit(&w, "tier/b", "{}");
	must_commit(&w, "tier/c", "{}");
	redis_kill(); // comes back from its file
	REDIS_UNTIL(w.events[CON_FLEET_AWAY] > 0);
	redis_start();
	REDIS_UNTIL(w.events[CON_FLEET_SEEDED] == 1);
	assert_int_equal(con_fleet_head(w.f)->epoch, 2);
	assert_non_null(sp_state_get(con_fleet_state(w.f), "tier/c", NULL));
	must_commit(&w, "tier/d", "{}");
	char dump[128];
	snprintf(dump, sizeof(dump), "%s/dump.rdb", redis.dir);
	unlink(dump);
	teardown(&w);
}

static void without_redis_a_change_fails_and_changes_nothing(void **state)
{
	struct world w;
	(void)state;
	setup(&w);
	must_commit(&w, "tier/a", "{}");
	redis_kill();
	REDIS_UNTIL(w.events[CON_FLEET_AWAY] > 0);
	commit(&w, "tier/b", "{}");
	REDIS_UNTIL(w.done);
	assert_int_equal(w.err, -ENOTCONN);
	assert_null(sp_state_get(con_fleet_state(w.f), "tier/b", NULL));
	redis_start();
	REDIS_UNTIL(con_fleet_is_synced(w.f));
	must_commit(&w, "tier/c", "{}");
	assert_null(sp_state_get(con_fleet_state(w.f), "tier/b", NULL));
	teardown(&w);
}

static void a_change_that_meets_a_frozen_redis_counts_once_when_it_thaws(void **state)
{
	struct world w;
	(void)state;
	setup(&w);
	must_commit(&w, "tier/a", "{}");
	kill(redis.pid, SIGSTOP);
	commit(&w, "tier/b", "{}");
	REDIS_UNTIL(w.done);
	assert_int_equal(w.err, -ETIMEDOUT);
	assert_int_equal(w.heard, 1); // nobody hears of what is not in Redis
	kill(redis.pid, SIGCONT);
	REDIS_UNTIL(w.heard == 2);
	assert_non_null(sp_state_get(con_fleet_state(w.f), "tier/b", NULL));
	assert_int_equal(con_fleet_head(w.f)->sequence, 2);
	assert_int_equal(con_fleet_head(w.f)->epoch, 1);
	assert_int_equal(redis_number("XLEN %s", "sp:{t}:journal"), 2);
	must_commit(&w, "tier/b", "{}"); // asked again: it is there
	assert_int_equal(con_fleet_head(w.f)->sequence, 2);
	teardown(&w);
}

static void a_crash_between_journal_and_redis_is_made_good(void **state)
{
	struct world w;
	(void)state;
	setup(&w);
	must_commit(&w, "tier/a", "{}");
	kill(redis.pid, SIGSTOP);
	commit(&w, "tier/b", "{}");
	REDIS_UNTIL(con_fleet_journal_bytes(w.f) > 0 &&
		    con_redis_counters(con_fleet_redis(w.f))->commands > 5);
	stop(&w); // as if killed: the record is in the journal, Redis has not read it
	kill(redis.pid, SIGCONT);
	start(&w);
	REDIS_UNTIL(con_fleet_is_synced(w.f));
	assert_int_equal(con_fleet_head(w.f)->sequence, 2);
	assert_int_equal(redis_number("XLEN %s", "sp:{t}:journal"), 2);
	must_commit(&w, "tier/c", "{}");
	assert_int_equal(redis_number("XLEN %s", "sp:{t}:journal"), 3);
	teardown(&w);
}

static void what_is_not_signed_for_this_fleet_is_left_alone(void **state)
{
	struct world w;
	(void)state;
	setup(&w);
	must_commit(&w, "tier/a", "{}");
	redis_does("SET sp:{t}:head 9:77:"
		   "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff");
	redis_does("XADD sp:{t}:journal 77-0 r nonsense p nonsense");
	REDIS_UNTIL(w.events[CON_FLEET_DISTRUST] == 1);
	assert_false(con_fleet_is_synced(w.f));
	assert_int_equal(con_fleet_head(w.f)->sequence, 1);
	assert_int_equal(w.heard, 1);
	redis_does("DEL sp:{t}:head"); // the operator mends it
	redis_does("DEL sp:{t}:journal");
	REDIS_UNTIL(con_fleet_is_synced(w.f));
	must_commit(&w, "tier/b", "{}");
	assert_int_equal(w.events[CON_FLEET_DISTRUST], 1);
	teardown(&w);
}

static void one_answer_each_in_order_however_many_wait(void **state)
{
	struct world w;
	struct sp_changes c = {0};
	char key[32];
	(void)state;
	setup(&w);
	for (unsigned i = 0; i < CON_FLEET_QUEUE_MAX; i++) {
		snprintf(key, sizeof(key), "tier/t%u", i);
		unsigned before = w.done;
		commit(&w, key, "{}");
		w.done = before;
	}
	assert_int_equal(sp_changes_add(&c, "tier/over", NULL), 0);
	assert_int_equal(con_fleet_commit(w.f, &c, "tests", on_done, &w), -EAGAIN);
	sp_changes_done(&c);
	REDIS_UNTIL(w.done == CON_FLEET_QUEUE_MAX);
	assert_int_equal(w.err, 0);
	assert_int_equal(con_fleet_head(w.f)->sequence, CON_FLEET_QUEUE_MAX);
	teardown(&w);
}

#define T(name) cmocka_unit_test(name)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(a_record_that_was_cut_at_any_byte_is_dropped_and_nothing_else),
		T(damage_that_is_not_at_the_end_is_an_error),
		T(a_full_disk_adds_nothing_and_the_journal_goes_on),
		T(what_is_undone_or_rewritten_is_gone),
		T(a_change_is_in_the_journal_in_redis_and_heard_of),
		T(what_a_worker_would_refuse_is_refused),
		T(an_emptied_redis_is_filled_anew_and_the_epoch_rises),
		T(an_older_copy_of_redis_is_replaced),
		T(without_redis_a_change_fails_and_changes_nothing),
		T(a_change_that_meets_a_frozen_redis_counts_once_when_it_thaws),
		T(a_crash_between_journal_and_redis_is_made_good),
		T(what_is_not_signed_for_this_fleet_is_left_alone),
		T(one_answer_each_in_order_however_many_wait),
	};
	if (sodium_init() < 0)
		return 1;
	return cmocka_run_group_tests_name("controller_fleet", tests, NULL, NULL);
}
