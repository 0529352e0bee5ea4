#include <errno.h>
#include <string.h>

#include <sodium.h>

#include "lib/handshake.h"
#include "lib/handshake_priv.h"

static int client_noise(struct sp_hs_client *c, const struct sp_hs_client_options *opt)
{
	uint8_t prologue[SP_HS_PROLOGUE_MAX];
	struct sp_noise_keys keys = {
		.static_secret = opt->device_secret,
		.static_public = opt->device_public,
		.remote_static = opt->worker_public,
		.psk = opt->ticket_psk,
	};
	size_t len = sp_hs_prologue(prologue, SP_HS_VERSION_MIN, SP_HS_VERSION_MAX,
				    c->kind, opt->ticket, opt->ticket_len);

	return sp_noise_init(&c->noise,
			     c->kind == SP_HS_RESUME ? SP_NOISE_NNPSK0 : SP_NOISE_IK,
			     SP_NOISE_INITIATOR, prologue, len, &keys);
}

static void put_client_payload(struct sp_writer *w,
			       const struct sp_hs_client_options *opt)
{
	if (opt->ticket) {
		sp_put_u8(w, (uint8_t)opt->suites);
		sp_put_u16(w, (uint16_t)opt->frames_len);
		sp_put_bytes(w, opt->frames, opt->frames_len);
	} else {
		sp_put_u64(w, opt->now_ms);
		sp_put_u8(w, (uint8_t)opt->suites);
		if (opt->trunk) {
			static const uint8_t zeros[SP_HS_TRUNK_PAD];
			sp_put_bytes(w, zeros, sizeof(zeros));
			return;
		}
		sp_put_u16(w, (uint16_t)opt->pass_len);
		sp_put_bytes(w, opt->pass, opt->pass_len);
	}
}

// Everything behind mac1; `w` covers the whole flight.
static int put_client_flight(struct sp_hs_client *c,
			     const struct sp_hs_client_options *opt, struct sp_writer *w)
{
	uint8_t payload[SP_HS_FLIGHT_MAX];
	struct sp_writer pw;
	size_t overhead = sp_noise_overhead(&c->noise), room;
	int len;

	sp_put_u16(w, 0); // len, below
	sp_put_u8(w, SP_HS_VERSION_MIN);
	sp_put_u8(w, SP_HS_VERSION_MAX);
	sp_put_u8(w, c->kind);
	if (opt->ticket) {
		sp_put_u16(w, (uint16_t)opt->ticket_len);
		sp_put_bytes(w, opt->ticket, opt->ticket_len);
	}
	room = sp_writer_room(w);
	if (room < overhead)
		return SP_E_LIMIT;
	sp_writer_init(&pw, payload, room - overhead);
	put_client_payload(&pw, opt);
	sp_hs_pad(&pw, SP_HS_FLIGHT_PAD);
	if (pw.err)
		return SP_E_LIMIT;
	len = sp_noise_write(&c->noise, payload, sp_writer_len(&pw), w->p, room);
	sodium_memzero(payload, sizeof(payload));
	if (len > 0)
		w->p += len;
	return len < 0 ? len : 0;
}

int sp_hs_client_start(struct sp_hs_client *c, const struct sp_hs_client_options *opt,
		       uint8_t *buf, size_t cap)
{
	uint8_t mac_key[32];
	struct sp_writer w;
	size_t len;
	int err;

	if (!opt->worker_public || !(opt->suites & SP_SUITE_CHACHA20POLY1305))
		return -EINVAL;
	if (opt->ticket_len > SP_HS_TICKET_MAX || opt->frames_len > SP_HS_FRAMES_MAX ||
	    opt->pass_len > SP_HS_FLIGHT_MAX || cap < SP_HS_OUTER_BYTES)
		return SP_E_LIMIT;
	*c = (struct sp_hs_client){.suites = opt->suites,
				   .kind = opt->ticket  ? SP_HS_RESUME
					   : opt->trunk ? SP_HS_TRUNK
							: SP_HS_FIRST_CONTACT};
	err = client_noise(c, opt);
	if (err)
		return err;
	sp_writer_init(&w, buf, cap < SP_HS_FLIGHT_MAX ? cap : SP_HS_FLIGHT_MAX);
	sp_put_bytes(&w, (uint8_t[SP_HS_MAC_BYTES]){0}, SP_HS_MAC_BYTES);
	err = put_client_flight(c, opt, &w);
	if (err) {
		sp_hs_client_done(c);
		return err;
	}
	len = sp_writer_len(&w);
	buf[SP_HS_MAC_BYTES] = (uint8_t)((len - SP_HS_HEAD_BYTES) >> 8);
	buf[SP_HS_MAC_BYTES + 1] = (uint8_t)(len - SP_HS_HEAD_BYTES);
	sp_hs_mac_key(opt->worker_public, mac_key);
	sp_hs_mac(mac_key, buf + SP_HS_MAC_BYTES, len - SP_HS_MAC_BYTES, buf);
	return (int)len;
}

static int read_answer(struct sp_hs_client *c, const uint8_t *msg, size_t len,
		       struct sp_hs_result *ret)
{
	uint8_t plain[SP_HS_FLIGHT_MAX];
	struct sp_reader r;
	uint8_t version, suite;
	int got;

	got = sp_noise_read(&c->noise, msg, len, plain, sizeof(plain));
	if (got < 0)
		return got == SP_E_TRUNCATED ? SP_E_MALFORMED : got;
	sp_reader_init(&r, plain, (size_t)got);
	version = sp_get_u8(&r);
	suite = sp_get_u8(&r);
	ret->refuse = sp_reason_from_wire(sp_get_u16(&r));
	ret->time_ms = sp_get_u64(&r);
	ret->boot_id = sp_get_u64(&r);
	ret->home_id = sp_get_u64(&r);
	if (r.err)
		return SP_E_MALFORMED;
	if (version < SP_HS_VERSION_MIN || version > SP_HS_VERSION_MAX)
		return SP_E_VERSION;
	if (ret->refuse != SP_REASON_NONE)
		return 0;
	if ((suite != SP_SUITE_AES256GCM && suite != SP_SUITE_CHACHA20POLY1305) ||
	    !(suite & c->suites))
		return SP_E_MALFORMED;
	sp_hs_take_keys(&c->noise, true, suite, version, &ret->keys);
	return 0;
}

int sp_hs_client_finish(struct sp_hs_client *c, const uint8_t *in, size_t len,
			struct sp_hs_result *ret)
{
	struct sp_hs_result res = {0};
	size_t body;
	int err;

	if (len < 2)
		return SP_E_AGAIN;
	body = (size_t)in[0] << 8 | in[1];
	if (body < 1 || 2 + body > SP_HS_FLIGHT_MAX)
		return SP_E_MALFORMED;
	if (len < 2 + body)
		return SP_E_AGAIN;
	if (in[2] == SP_HS_STATUS_ANSWER) {
		err = read_answer(c, in + 3, body - 1, &res);
	} else if (in[2] == SP_HS_STATUS_TICKET_GONE && c->kind == SP_HS_RESUME) {
		res.refuse = SP_REASON_TICKET;
		err = 0;
	} else if (in[2] == SP_HS_STATUS_ENTRY && c->kind == SP_HS_RESUME && body >= 3) {
		res.entry = true;
		res.refuse = sp_reason_from_wire((uint16_t)(in[3] << 8 | in[4]));
		if (res.refuse == SP_REASON_NONE)
			res.refuse = SP_REASON_UNREACHABLE;
		err = 0;
	} else {
		err = SP_E_MALFORMED;
	}
	sp_hs_client_done(c);
	if (!err)
		*ret = res;
	sp_hs_keys_wipe(&res.keys);
	return err ? err : (int)(2 + body);
}

void sp_hs_client_done(struct sp_hs_client *c)
{
	sp_noise_done(&c->noise);
}
