// What is made of Redis' answers: the input is what Redis says, answer by answer, in the
// place of the connection (controller/redis.h), which is not linked. First byte: who
// asks: the directory, the totals of users, the chain of revisions.
#include <string.h>

#include <sodium.h>

#include "controller/directory.h"
#include "controller/fleet.h"
#include "controller/usage_copy.h"
#include "tests/fuzz/fuzz_folder.h"
#include "tests/fuzz/fuzz_redis.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

// ---- who asks ----

static enum con_directory_home home(void *ctx, const char *worker, uint64_t boot,
				    const struct con_directory_lease *lease)
{
	(void)ctx;
	(void)boot;
	assert(worker && lease);
	return CON_HOME_SILENT;
}

static bool quota(void *ctx, const char *user, int64_t *ret_left)
{
	(void)ctx;
	(void)user;
	*ret_left = 1;
	return true;
}

static void on_event(void *ctx, enum con_directory_event what, const char *worker,
		     const char *from, const char *user, const uint8_t *id)
{
	(void)ctx;
	(void)what;
	assert(worker && from && user && id);
}

static void on_answer(void *ctx, const Sallyport__Fleet__SessionAnswer *m)
{
	if (m->result == SALLYPORT__FLEET__SESSION_RESULT__SESSION_ADOPTED)
		assert(m->record && m->record->device.len == 32 &&
		       m->record->epoch < UINT32_MAX);
	(*(unsigned *)ctx)++;
}

static void ask_directory(struct sp_loop *loop, bool put)
{
	static const struct con_directory_ops ops = {home, quota, on_event};
	struct con_directory_options o = {
		.loop = loop, .fleet = "t", .redis = (struct con_redis *)&x, .ops = &ops};
	Sallyport__Fleet__SessionAdopt a = SALLYPORT__FLEET__SESSION_ADOPT__INIT;
	Sallyport__Fleet__SessionPut p = SALLYPORT__FLEET__SESSION_PUT__INIT;
	Sallyport__Fleet__SessionRecord rec = SALLYPORT__FLEET__SESSION_RECORD__INIT,
					*list = &rec;
	struct con_directory *d;
	static uint8_t id[16] = "0123456789abcdef",
		       key[32] = "a device's key, 32 bytes.......";
	char user[] = "eva", tier[] = "t", worker[] = "ams/0";
	unsigned answers = 0;
	if (con_directory_new(&o, &d))
		abort();
	a.id = rec.id = (ProtobufCBinaryData){sizeof(id), id};
	a.device = rec.device = (ProtobufCBinaryData){sizeof(key), key};
	a.user = rec.user = user;
	a.epoch = rec.epoch = UINT32_MAX;
	rec.tier = tier;
	rec.home = worker;
	a.boot = rec.boot = 7;
	p.n_records = 1;
	p.records = &list;
	if (put)
		con_directory_put(d, worker, &p, on_answer, &answers);
	else
		con_directory_adopt(d, worker, &a, on_answer, &answers);
	answer_all();
	assert(answers == 1);
	con_directory_free(d);
}

static void take_usage(bool closed)
{
	struct con_usage *u;
	redisReply *r = next_reply();
	if (con_usage_new(100, &u))
		abort();
	bool good =
		closed ? con_usage_take_closed(u, r) : con_usage_take_user(u, "eva", r);
	assert(!good || r);
	con_usage_free(u);
	freeReplyObject(r);
}

static void on_fleet_event(void *ctx, enum con_fleet_event what, const char *text)
{
	(void)ctx;
	(void)what;
	assert(*text);
}

// Nobody can sign but we: whatever is said, the fleet stays as it was.
static void follow(struct sp_loop *loop)
{
	static uint8_t seed[32] = {1}, pub[32], secret[64];
	char why[512], path[128];
	struct con_fleet *f;
	snprintf(path, sizeof(path), "%s", fuzz_file("file", "", 0));
	crypto_sign_seed_keypair(pub, secret, seed);
	struct con_fleet_options o = {.loop = loop,
				      .name = "t",
				      .journal = path,
				      .secret = secret,
				      .redis = "unix:/none",
				      .event = on_fleet_event};
	if (con_fleet_new(&o, &f, why, sizeof(why)))
		abort();
	x.opt.up(x.opt.ctx);
	answer_all();
	assert(con_fleet_head(f)->sequence == 0);
	con_fleet_free(f);
	answer_all();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sp_loop *loop;
	fuzz_quiet();
	if (!size || sodium_init() < 0 || sp_loop_new(&loop))
		return 0;
	memset(&x, 0, sizeof(x));
	x.reader = redisReaderCreate();
	if (!x.reader)
		abort();
	redisReaderFeed(x.reader, (const char *)data + 1, size - 1);
	switch (data[0] % 5) {
	case 0:
	case 1:
		ask_directory(loop, data[0] % 5);
		break;
	case 2:
	case 3:
		take_usage(data[0] % 5 == 3);
		break;
	default:
		follow(loop);
	}
	redisReaderFree(x.reader);
	sp_loop_free(loop);
	return 0;
}
