// epochs: a device that attaches its session with whatever epoch it is told to, to see
// that a worker accepts only rising ones. No stream is opened.
//
//   epochs IP PORT WORKER_KEY_HEX DEVICE_KEY_FILE PASS_FILE
//
// Commands: `attach N`: a first contact with that epoch; `resume N`: with a ticket of the
// last attach that was accepted (answers "none" as the reason if there is none). Each is
// answered with {"session":HEX,"epoch":N,"accepted":BOOL,"reason":WORD}. Ends at the end
// of input.
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sodium.h>

#include "lib/arena.h"
#include "lib/key.h"
#include "lib/link.h"
#include "lib/text.h"

#define WAIT_MS 10000

static struct {
	struct sp_loop *loop;
	struct sp_session_clock *clock;
	struct sp_link_env *env;
	struct sp_arena *arena;
	struct sp_session *session;
	struct sockaddr_in worker;
	uint8_t id[SP_SESSION_ID_BYTES];
	uint8_t worker_public[32], device_secret[32], device_public[32];
	uint8_t pass[SP_HS_FLIGHT_MAX];
	size_t pass_len;
	uint8_t ticket[SP_HS_TICKET_MAX], psk[32];
	size_t ticket_len;
	struct sp_link *link;
	bool up, down;
	enum sp_reason reason;
} x;

static void die(const char *what, int err)
{
	fprintf(stderr, "epochs: %s: %s\n", what, sp_strerror(err));
	exit(1);
}

// ---- what the session and its link say ----

static void on_attached(void *ctx, unsigned slot, bool fresh)
{
	(void)ctx;
	(void)slot;
	(void)fresh;
}

static void on_ticket(void *ctx, unsigned slot, unsigned index, uint32_t lifetime_s,
		      const uint8_t *ticket, size_t len)
{
	(void)ctx;
	(void)slot;
	(void)lifetime_s;
	if (index || sp_link_ticket_psk(x.link, index, x.psk))
		return;
	memcpy(x.ticket, ticket, len);
	x.ticket_len = len;
}

static void on_stalled(void *ctx, unsigned slot)
{
	(void)ctx;
	(void)slot;
}

static void on_goaway(void *ctx, enum sp_reason reason, uint64_t deadline_ms)
{
	(void)ctx;
	(void)reason;
	(void)deadline_ms;
}

static void on_ended(void *ctx, enum sp_reason reason)
{
	(void)ctx;
	x.reason = reason;
}

static const struct sp_session_ops session_ops = {
	.attached = on_attached,
	.ticket = on_ticket,
	.stalled = on_stalled,
	.goaway = on_goaway,
	.ended = on_ended,
};

static void on_up(void *ctx, struct sp_link *l)
{
	(void)ctx;
	x.up = true;
	sp_link_close(l, SP_REASON_CANCELLED);
}

static void on_down(void *ctx, struct sp_link *l, enum sp_reason reason)
{
	(void)ctx;
	(void)l;
	x.down = true;
	x.link = NULL;
	if (!x.up)
		x.reason = reason;
}

static const struct sp_link_client_ops link_ops = {.up = on_up, .down = on_down};

// ---- attaching ----

static void new_session(uint32_t epoch)
{
	struct sp_session_options opt = {
		.role = SP_ROLE_CLIENT,
		.arena = x.arena,
		.ops = &session_ops,
		.clock_us = sp_loop_clock_us(x.loop),
	};
	int err;

	memcpy(opt.id, x.id, sizeof(opt.id));
	sp_session_limits_default(&opt.limits);
	err = sp_session_new(&opt, sp_loop_now_us(x.loop), &x.session);
	if (err || (err = sp_session_clock_add(x.clock, x.session)))
		die("session", err);
	// attaching raises it by one
	sp_arena_session(x.arena, sp_session_record(x.session))->epoch = epoch - 1;
}

static void attach(uint32_t epoch, bool resume)
{
	struct sp_link_dial d = {
		.carrier = {.kind = SP_CARRIER_TCP, .addr_len = sizeof(x.worker)},
		.worker_public = x.worker_public,
		.device_secret = x.device_secret,
		.device_public = x.device_public,
		.pass = x.pass,
		.pass_len = x.pass_len,
		.timeout_ms = WAIT_MS,
		.ops = &link_ops,
	};
	int err;

	memcpy(&d.carrier.addr, &x.worker, sizeof(x.worker));
	new_session(epoch);
	d.session = x.session;
	if (resume) {
		d.ticket = x.ticket;
		d.ticket_len = x.ticket_len;
		d.ticket_psk = x.psk;
	}
	x.up = x.down = false;
	x.reason = SP_REASON_NONE;
	err = sp_link_dial(x.env, &d, &x.link);
	while (!err && !x.down)
		err = sp_loop_turn(x.loop, true);
	if (err)
		die("dial", err);
	sp_session_clock_remove(x.clock, x.session);
	sp_session_free(x.session, SP_REASON_SHUTDOWN);
	x.session = NULL;
}

static void obey(const char *line)
{
	bool resume = strncmp(line, "resume ", 7) == 0;
	char hex[2 * SP_SESSION_ID_BYTES + 1];
	const char *reason = "none";
	uint32_t epoch = (uint32_t)strtoul(line + 7, NULL, 10);

	x.up = false;
	if (!resume || x.ticket_len) {
		attach(epoch, resume);
		reason = x.up ? "" : sp_reason_word(x.reason);
	}
	sodium_bin2hex(hex, sizeof(hex), x.id, sizeof(x.id));
	printf("{\"session\":\"%s\",\"epoch\":%u,\"accepted\":%s,\"reason\":\"%s\"}\n",
	       hex, epoch, x.up ? "true" : "false", reason);
	fflush(stdout);
}

static void load(char **argv)
{
	char why[256] = "";
	FILE *f = fopen(argv[5], "rb");

	x.worker.sin_family = AF_INET;
	x.worker.sin_port = htons((uint16_t)atoi(argv[2]));
	if (inet_pton(AF_INET, argv[1], &x.worker.sin_addr) != 1 ||
	    sp_hex_decode(argv[3], strlen(argv[3]), x.worker_public, 32))
		die("usage", -EINVAL);
	if (sp_key_load(argv[4], SP_KEY_DEVICE, true, x.device_secret, why, sizeof(why)))
		die(why, -EINVAL);
	crypto_scalarmult_base(x.device_public, x.device_secret);
	if (!f || !(x.pass_len = fread(x.pass, 1, sizeof(x.pass), f)))
		die(argv[5], -errno);
	fclose(f);
	randombytes_buf(x.id, sizeof(x.id));
}

int main(int argc, char **argv)
{
	struct sp_arena_options room = {
		.max_sessions = 4, .max_streams = 16, .memory_bytes = 1 << 20};
	struct sp_link_env_options env = {0};
	char line[64];
	int err;

	if (argc != 6 || sodium_init() < 0) {
		fputs("usage: epochs IP PORT WORKER_KEY_HEX DEVICE_KEY_FILE PASS_FILE\n",
		      stderr);
		return 2;
	}
	load(argv);
	if ((err = sp_loop_new(&x.loop)) ||
	    (err = sp_session_clock_new(x.loop, &x.clock)) ||
	    (err = sp_arena_new(&room, &x.arena)))
		die("start", err);
	env.loop = x.loop;
	env.clock = x.clock;
	if ((err = sp_link_env_new(&env, &x.env)))
		die("start", err);
	while (fgets(line, sizeof(line), stdin))
		obey(line);
	sp_link_env_free(x.env);
	sp_session_clock_free(x.clock);
	sp_arena_free(x.arena);
	sp_loop_free(x.loop);
	sodium_memzero(x.device_secret, sizeof(x.device_secret));
	return 0;
}
