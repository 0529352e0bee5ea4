#include <assert.h>
#include <errno.h>
#include <string.h>

#include <sodium.h>

#include "lib/budget.h"
#include "lib/handshake.h"
#include "lib/handshake_priv.h"
#include "lib/replay.h"

#define GONE_MIN  77 // a status 1 is as long as a status 0 may be
#define EPHEMERAL 32 // a Noise message begins with the ephemeral key

int sp_hs_worker_keys_init(struct sp_hs_worker_keys *keys)
{
	if (!(keys->suites & SP_SUITE_CHACHA20POLY1305) ||
	    crypto_scalarmult_base(keys->static_public, keys->static_secret))
		return -EINVAL;
	sp_hs_mac_key(keys->static_public, keys->mac1_key);
	return 0;
}

void sp_hs_worker_keys_done(struct sp_hs_worker_keys *keys)
{
	sodium_memzero(keys, sizeof(*keys));
}

// The fields of a flight outside Noise; pointers into the input.
struct flight {
	uint8_t ver_min, ver_max, kind;
	const uint8_t *ticket; // NULL in a first contact
	size_t ticket_len;
	const uint8_t *message; // Noise message 1
	size_t message_len;
};

static enum sp_reason parse_flight(const uint8_t *buf, size_t len, struct flight *ret)
{
	struct sp_reader r;

	sp_reader_init(&r, buf, len);
	ret->ver_min = sp_get_u8(&r);
	ret->ver_max = sp_get_u8(&r);
	ret->kind = sp_get_u8(&r);
	ret->ticket = NULL;
	ret->ticket_len = 0;
	if (r.err || ret->ver_min > ret->ver_max)
		return SP_REASON_MALFORMED;
	if (ret->ver_min > SP_HS_VERSION_MAX || ret->ver_max < SP_HS_VERSION_MIN)
		return SP_REASON_VERSION;
	if (ret->kind == SP_HS_RESUME) {
		ret->ticket_len = sp_get_u16(&r);
		ret->ticket = sp_get_bytes(&r, ret->ticket_len);
		if (r.err || ret->ticket_len > SP_HS_TICKET_MAX)
			return SP_REASON_MALFORMED;
	} else if (ret->kind != SP_HS_FIRST_CONTACT && ret->kind != SP_HS_TRUNK) {
		return SP_REASON_MALFORMED;
	}
	ret->message_len = sp_reader_left(&r);
	ret->message = sp_get_bytes(&r, ret->message_len);
	return ret->message_len < EPHEMERAL ? SP_REASON_MALFORMED : SP_REASON_NONE;
}

// Decrypts message 1 into w->plain and begins to read it.
static enum sp_reason read_message(struct sp_hs_worker *w,
				   const struct sp_hs_worker_keys *keys,
				   const struct flight *f, const uint8_t *psk,
				   struct sp_reader *ret_r)
{
	uint8_t prologue[SP_HS_PROLOGUE_MAX];
	struct sp_noise_keys nk = {
		.static_secret = keys->static_secret,
		.static_public = keys->static_public,
		.psk = psk,
	};
	size_t len = sp_hs_prologue(prologue, f->ver_min, f->ver_max, f->kind, f->ticket,
				    f->ticket_len);
	int got;

	if (sp_noise_init(&w->noise, psk ? SP_NOISE_NNPSK0 : SP_NOISE_IK,
			  SP_NOISE_RESPONDER, prologue, len, &nk))
		return SP_REASON_INTERNAL;
	got = sp_noise_read(&w->noise, f->message, f->message_len, w->plain,
			    sizeof(w->plain));
	if (got < 0)
		return SP_REASON_HANDSHAKE;
	sp_reader_init(ret_r, w->plain, (size_t)got);
	return SP_REASON_NONE;
}

static enum sp_reason judge_pass(struct sp_hs_worker *w, const struct sp_hs_judge *in,
				 struct sp_hs_accept *who)
{
	const uint8_t *device = sp_noise_remote_static(&w->noise);
	int err;

	if (sp_pass_open(&in->keys->trusted, w->pass_blob, w->pass_blob_len, &who->pass))
		return SP_REASON_PASS_INVALID;
	if (sodium_memcmp(who->pass.device, device, sizeof(who->pass.device)))
		return SP_REASON_DEVICE;
	err = sp_replay_add(in->replay, sp_noise_remote_ephemeral(&w->noise), in->now_ms);
	if (err)
		return err == SP_E_REPLAY ? SP_REASON_REPLAY : SP_REASON_BUDGET;
	w->refuse = sp_pass_judge_time(&who->pass, in->now_ms / 1000, SP_PASS_SKEW_S);
	memcpy(who->device, device, sizeof(who->device));
	who->pass_expires_s = who->pass.expires_s;
	return SP_REASON_NONE;
}

static bool is_clock_off(uint64_t time_ms, uint64_t now_ms)
{
	return (time_ms > now_ms ? time_ms - now_ms : now_ms - time_ms) > SP_HS_CLOCK_MS;
}

static enum sp_reason judge_first_contact(struct sp_hs_worker *w,
					  const struct sp_hs_judge *in,
					  const struct flight *f,
					  struct sp_hs_accept *who)
{
	enum sp_reason why;
	struct sp_reader r;
	uint64_t time_ms;

	if (sp_replay_seen(in->replay, f->message, in->now_ms))
		return SP_REASON_REPLAY;
	why = read_message(w, in->keys, f, NULL, &r);
	if (why)
		return why;
	time_ms = sp_get_u64(&r);
	w->suite = sp_aead_pick(in->keys->suites, sp_get_u8(&r));
	w->pass_blob_len = sp_get_u16(&r);
	w->pass_blob = sp_get_bytes(&r, w->pass_blob_len);
	if (r.err || !w->suite)
		return SP_REASON_MALFORMED;
	if (is_clock_off(time_ms, in->now_ms))
		return SP_REASON_CLOCK;
	return judge_pass(w, in, who);
}

// A worker of the fleet: its static key is the proof, and all that there is to judge.
static enum sp_reason judge_trunk(struct sp_hs_worker *w, const struct sp_hs_judge *in,
				  const struct flight *f, struct sp_hs_accept *who)
{
	const uint8_t *key;
	enum sp_reason why;
	struct sp_reader r;
	uint64_t time_ms;
	int err;

	if (!in->is_member)
		return SP_REASON_MEMBER;
	if (sp_replay_seen(in->replay, f->message, in->now_ms))
		return SP_REASON_REPLAY;
	why = read_message(w, in->keys, f, NULL, &r);
	if (why)
		return why;
	time_ms = sp_get_u64(&r);
	w->suite = sp_aead_pick(in->keys->suites, sp_get_u8(&r));
	if (r.err || !w->suite)
		return SP_REASON_MALFORMED;
	if (is_clock_off(time_ms, in->now_ms))
		return SP_REASON_CLOCK;
	key = sp_noise_remote_static(&w->noise);
	if (!in->is_member(in->member_ctx, key))
		return SP_REASON_MEMBER;
	err = sp_replay_add(in->replay, sp_noise_remote_ephemeral(&w->noise), in->now_ms);
	if (err)
		return err == SP_E_REPLAY ? SP_REASON_REPLAY : SP_REASON_BUDGET;
	memcpy(who->device, key, sizeof(who->device));
	return SP_REASON_NONE;
}

// True if a ticket of that age is past its life.
static bool is_old(const struct sp_hs_judge *in, uint64_t issued_s)
{
	uint64_t now_s = in->now_ms / 1000;

	return now_s > issued_s && now_s - issued_s > in->keys->ticket_lifetime_s;
}

// True if a ticket that opened may be used now.
static bool is_current(const struct sp_hs_judge *in, const struct sp_ticket_body *body)
{
	uint64_t now_s = in->now_ms / 1000;

	if (is_old(in, body->issued_s))
		return false;
	return now_s < body->pass_expires_s ||
	       now_s - body->pass_expires_s < SP_PASS_SKEW_S;
}

static enum sp_reason judge_resume(struct sp_hs_worker *w, const struct sp_hs_judge *in,
				   const struct flight *f, struct sp_hs_accept *who)
{
	struct sp_ticket_body body;
	enum sp_reason why;
	struct sp_reader r;

	if (sp_ticket_open_hint(in->keys->route_key, f->ticket, f->ticket_len, &w->hint))
		return SP_REASON_TICKET;
	if (w->hint.home_id != in->keys->home_id) {
		w->verdict =
			is_old(in, w->hint.issued_s) ? SP_HS_TICKET_GONE : SP_HS_RELAY;
		return SP_REASON_NONE;
	}
	if (sp_ticket_open_body(in->keys->boot_key, f->ticket, f->ticket_len, &body)) {
		w->verdict = SP_HS_TICKET_GONE;
		return SP_REASON_NONE;
	}
	if (!is_current(in, &body)) {
		w->verdict = SP_HS_TICKET_GONE;
		sodium_memzero(&body, sizeof(body));
		return SP_REASON_NONE;
	}
	why = read_message(w, in->keys, f, body.psk, &r);
	memcpy(who->device, body.device, sizeof(who->device));
	memcpy(who->session, body.session, sizeof(who->session));
	who->pass_expires_s = body.pass_expires_s;
	who->ticket_issued_s = body.issued_s;
	sodium_memzero(&body, sizeof(body));
	if (why)
		return why;
	w->suite = sp_aead_pick(in->keys->suites, sp_get_u8(&r));
	w->frames_len = sp_get_u16(&r);
	w->frames = sp_get_bytes(&r, w->frames_len);
	if (r.err || !w->suite || !w->frames_len)
		return SP_REASON_MALFORMED;
	return SP_REASON_NONE;
}

static enum sp_reason judge(struct sp_hs_worker *w, const struct sp_hs_judge *in,
			    const uint8_t *buf, struct sp_hs_accept *who)
{
	uint8_t mac[SP_HS_MAC_BYTES];
	enum sp_reason why;
	struct flight f;

	sp_hs_mac(in->keys->mac1_key, buf + SP_HS_MAC_BYTES,
		  w->consumed - SP_HS_MAC_BYTES, mac);
	if (sodium_memcmp(mac, buf, sizeof(mac)))
		return SP_REASON_MAC;
	why = parse_flight(buf + SP_HS_HEAD_BYTES, w->consumed - SP_HS_HEAD_BYTES, &f);
	if (why)
		return why;
	if (in->budget && sp_budget_take(in->budget, in->source, in->mono_ms))
		return SP_REASON_BUDGET;
	w->version = f.ver_max < SP_HS_VERSION_MAX ? f.ver_max : SP_HS_VERSION_MAX;
	who->kind = f.kind;
	w->verdict = SP_HS_ACCEPTED; // unless it says otherwise
	if (f.kind == SP_HS_RESUME)
		return judge_resume(w, in, &f, who);
	if (f.kind == SP_HS_TRUNK)
		return judge_trunk(w, in, &f, who);
	return judge_first_contact(w, in, &f, who);
}

// All but the large `plain`, which is written before it is read.
static void reset(struct sp_hs_worker *w)
{
	memset(w, 0, offsetof(struct sp_hs_worker, plain));
}

int sp_hs_worker_judge(struct sp_hs_worker *w, const struct sp_hs_judge *in,
		       const uint8_t *buf, size_t len, struct sp_hs_accept *ret_who)
{
	struct sp_hs_accept who = {0};
	size_t body;

	reset(w);
	if (len < SP_HS_HEAD_BYTES)
		return SP_E_AGAIN;
	body = (size_t)buf[SP_HS_MAC_BYTES] << 8 | buf[SP_HS_MAC_BYTES + 1];
	if (SP_HS_HEAD_BYTES + body > SP_HS_FLIGHT_MAX) {
		w->why = SP_REASON_MALFORMED;
		return 0;
	}
	if (len < SP_HS_HEAD_BYTES + body)
		return SP_E_AGAIN;
	w->consumed = SP_HS_HEAD_BYTES + body;
	w->why = judge(w, in, buf, &who);
	if (w->why) {
		enum sp_reason why = w->why;

		sp_hs_worker_done(w);
		w->why = why;
	} else if (w->verdict == SP_HS_ACCEPTED) {
		*ret_who = who;
	}
	sp_hs_accept_wipe(&who);
	return 0;
}

int sp_hs_worker_answer(struct sp_hs_worker *w, const struct sp_hs_worker_keys *keys,
			enum sp_reason refuse, uint64_t now_ms, uint8_t *buf, size_t cap,
			struct sp_hs_keys *ret_keys)
{
	uint8_t payload[SP_HS_ANSWER_PAD + 64];
	struct sp_writer p;
	int len;

	assert(w->verdict == SP_HS_ACCEPTED);
	if (cap < SP_HS_ANSWER_MAX)
		return SP_E_LIMIT;
	if (!refuse)
		refuse = w->refuse;
	sp_writer_init(&p, payload, sizeof(payload));
	sp_put_u8(&p, w->version);
	sp_put_u8(&p, (uint8_t)w->suite);
	sp_put_u16(&p, sp_reason_to_wire(refuse));
	sp_put_u64(&p, now_ms);
	sp_put_u64(&p, keys->boot_id);
	sp_put_u64(&p, keys->home_id);
	sp_hs_pad(&p, SP_HS_ANSWER_PAD);
	len = sp_noise_write(&w->noise, payload, sp_writer_len(&p), buf + 3, cap - 3);
	if (len < 0)
		return len;
	buf[0] = (uint8_t)((len + 1) >> 8);
	buf[1] = (uint8_t)(len + 1);
	buf[2] = SP_HS_STATUS_ANSWER;
	if (!refuse)
		sp_hs_take_keys(&w->noise, false, w->suite, w->version, ret_keys);
	sp_noise_done(&w->noise);
	return 3 + len;
}

int sp_hs_worker_ticket_gone(uint8_t *buf, size_t cap)
{
	size_t len = GONE_MIN + randombytes_uniform(SP_HS_ANSWER_PAD);

	if (cap < SP_HS_ANSWER_MAX)
		return SP_E_LIMIT;
	buf[0] = (uint8_t)(len >> 8);
	buf[1] = (uint8_t)len;
	buf[2] = SP_HS_STATUS_TICKET_GONE;
	randombytes_buf(buf + 3, len - 1);
	return (int)(2 + len);
}

int sp_hs_entry_refuses(enum sp_reason why, uint8_t *buf, size_t cap)
{
	uint16_t wire = sp_reason_to_wire(why);
	int n = sp_hs_worker_ticket_gone(buf, cap);

	if (n < 0)
		return n;
	buf[2] = SP_HS_STATUS_ENTRY;
	buf[3] = (uint8_t)(wire >> 8);
	buf[4] = (uint8_t)wire;
	return n;
}

void sp_hs_worker_done(struct sp_hs_worker *w)
{
	sodium_memzero(w, sizeof(*w));
}

void sp_hs_accept_wipe(struct sp_hs_accept *who)
{
	sodium_memzero(who, sizeof(*who));
}
