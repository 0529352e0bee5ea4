// What is said to the operator's socket: heads, paths, queries and bodies, against a
// small fleet whose Redis is away. Whatever comes, the API answers HTTP or closes, and
// nothing is changed, since nothing can be committed.
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <sodium.h>

#include "controller/api_access.h"
#include "controller/leases.h"
#include "lib/fleetfile.h"
#include "lib/key.h"
#include "tests/fuzz/fuzz_folder.h"
#include "tests/fuzz/fuzz_redis.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define TURNS 40 // more than any call needs that does not wait for Redis

static uint8_t secret[64];
static char base[65536]; // a journal with the fleet
static size_t base_len;

static const char fleet_yaml[] =
	"fleet: t\nregions: [{name: eu}]\ntiers: [{name: free}]\n"
	"nodes:\n"
	"- {name: n0, region: eu, carriers: [{kind: tcp, address: \"192.0.2.1:70\"}]}\n"
	"- {name: n1, region: eu, carriers: [{kind: tcp, address: \"192.0.2.2:70\"}]}\n"
	"users: [{name: eva, tier: free}]\n";

static void on_event(void *ctx, enum con_fleet_event what, const char *text)
{
	(void)ctx;
	(void)what;
	(void)text;
}

static struct con_fleet *open_fleet(struct sp_loop *loop, const char *journal)
{
	char why[512];
	struct con_fleet *f;
	struct con_fleet_options o = {.loop = loop,
				      .name = "t",
				      .journal = journal,
				      .secret = secret,
				      .redis = "unix:/none",
				      .event = on_event};
	if (con_fleet_new(&o, &f, why, sizeof(why)))
		abort();
	return f;
}

static void on_committed(void *ctx, int err, const char *why,
			 const struct sp_position *at)
{
	(void)why;
	(void)at;
	*(bool *)ctx = err == 0;
}

// With a Redis that is empty and takes everything. Once.
static void make_base(void)
{
	static const char yes[] = "+OK\r\n$-1\r\n$2\r\nok\r\n$2\r\nok\r\n";
	static uint8_t seed[32] = {1}, pub[32];
	char path[128], why[SP_FLEETFILE_WHY_MAX];
	char key[SP_KEY_TEXT_MAX];
	struct sp_loop *loop;
	struct sp_state *declared;
	struct sp_changes c = {0};
	bool done = false;
	crypto_sign_seed_keypair(pub, secret, seed);
	snprintf(path, sizeof(path), "%s", fuzz_file("file", "", 0));
	memset(&x, 0, sizeof(x));
	x.reader = redisReaderCreate();
	if (!x.reader || sp_loop_new(&loop) ||
	    redisReaderFeed(x.reader, yes, sizeof(yes) - 1))
		abort();
	json_t *keys = json_pack("{s:[s]}", "pass",
				 sp_key_format(SP_KEY_SIGNING, false, pub, key));
	struct con_fleet *f = open_fleet(loop, path);
	x.opt.up(x.opt.ctx);
	if (sp_fleetfile_parse("f", fleet_yaml, sizeof(fleet_yaml) - 1, &declared, why,
			       sizeof(why)) ||
	    sp_fleetfile_diff(con_fleet_state(f), declared, &c) ||
	    sp_changes_add(&c, "keys", keys) ||
	    con_fleet_commit(f, &c, "fuzz", on_committed, &done))
		abort();
	for (int i = 0; i < TURNS && !done; i++) {
		answer_all();
		(void)!sp_loop_turn(loop, false);
	}
	if (!done)
		abort();
	json_decref(keys);
	sp_state_free(declared);
	con_fleet_free(f);
	answer_all();
	redisReaderFree(x.reader);
	sp_loop_free(loop);
	FILE *file = fopen(path, "rb");
	base_len = file ? fread(base, 1, sizeof(base), file) : 0;
	if (!base_len || base_len == sizeof(base) || fclose(file))
		abort();
}

// What is answered up to its end, or until nothing more comes.
static void say(struct sp_loop *loop, const char *path, const uint8_t *data, size_t size)
{
	struct sockaddr_un to = {.sun_family = AF_UNIX};
	char buf[16384];
	size_t got = 0;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	snprintf(to.sun_path, sizeof(to.sun_path), "%s", path);
	if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof(to)))
		abort();
	for (int i = 0; i < TURNS; i++) {
		ssize_t n = size ? send(fd, data, size, MSG_NOSIGNAL) : 0;
		data += n > 0 ? n : 0;
		size -= n > 0 ? (size_t)n : 0;
		(void)!sp_loop_turn(loop, false);
		n = recv(fd, got < 5 ? buf + got : buf + 5,
			 sizeof(buf) - (got < 5 ? got : 5), 0);
		got += n > 0 ? (size_t)n : 0;
		if (n == 0)
			break;
	}
	assert(got < 5 || memcmp(buf, "HTTP/", 5) == 0);
	close(fd);
	(void)!sp_loop_turn(loop, false);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sp_loop *loop;
	char journal[128], path[128], why[512];
	struct con_api_fleet f = {0};
	struct con_leases *leases;
	fuzz_quiet();
	if (sodium_init() < 0)
		abort();
	if (!base_len)
		make_base();
	memset(&x, 0, sizeof(x));
	snprintf(journal, sizeof(journal), "%s", fuzz_file("file", base, base_len));
	snprintf(path, sizeof(path), "%s/snapshot", fuzz_folder);
	(void)!unlink(path);
	if (sp_loop_new(&loop) || con_events_new(loop, &f.events) ||
	    con_api_new(loop, path, NULL, &f.api, why, sizeof(why)))
		abort();
	f.loop = loop;
	f.fleet = open_fleet(loop, journal);
	f.pass_keys = *con_fleet_keys(f.fleet);
	uint64_t before = con_fleet_head(f.fleet)->sequence;
	if (before == 0 || con_api_fleet_add(&f) || con_api_list_add(&f) ||
	    con_api_access_add(&f) || con_leases_new(loop, f.fleet, f.api, &leases))
		abort();
	say(loop, path, data, size);
	assert(con_fleet_head(f.fleet)->sequence == before);
	con_fleet_free(f.fleet);
	con_leases_free(leases);
	con_api_free(f.api);
	con_events_free(f.events);
	answer_all();
	sp_loop_free(loop);
	return 0;
}
