// The ZAP handler: libzmq asks it about every CURVE handshake (ZeroMQ RFC 27). With none,
// any key is let in.
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "lib/bus_internal.h"
#include "lib/text.h"

#define ENDPOINT "inproc://zeromq.zap.01"

enum { VERSION, REQUEST, DOMAIN, ADDRESS, IDENTITY, MECHANISM, KEY, N_FRAMES };

static bool is_text(zmq_msg_t *m, const char *text)
{
	return zmq_msg_size(m) == strlen(text) &&
	       memcmp(zmq_msg_data(m), text, strlen(text)) == 0;
}

static enum sp_bus_verdict judge(struct bus_zap *z, zmq_msg_t *f)
{
	char address[SP_BUS_ADDRESS_MAX];
	if (!is_text(&f[VERSION], "1.0") || !is_text(&f[MECHANISM], "CURVE") ||
	    zmq_msg_size(&f[KEY]) != SP_BUS_KEY_BYTES)
		return SP_BUS_REFUSE;
	for (int d = SP_BUS_FLEET; d <= SP_BUS_ENROL; d++) {
		if (!is_text(&f[DOMAIN], bus_domain_word(d)))
			continue;
		snprintf(address, sizeof(address), "%.*s", (int)zmq_msg_size(&f[ADDRESS]),
			 (const char *)zmq_msg_data(&f[ADDRESS]));
		return z->judge(z->owner, d, zmq_msg_data(&f[KEY]), address);
	}
	return SP_BUS_REFUSE;
}

static void answer(struct bus_zap *z, zmq_msg_t *f, enum sp_bus_verdict verdict)
{
	char user[2 * SP_BUS_KEY_BYTES + 1] = "";
	static const struct {
		const char *code, *text;
	} all[] = {
		[SP_BUS_REFUSE] = {"400", "not known here"},
		[SP_BUS_ADMIT] = {"200", "OK"},
		[SP_BUS_LATER] = {"300", "too many"},
	};
	void *sock = z->socket.zmq;
	if (verdict == SP_BUS_ADMIT)
		sp_hex_encode(zmq_msg_data(&f[KEY]), SP_BUS_KEY_BYTES, user,
			      sizeof(user));
	// inproc, one request at a time: these do not fail
	(void)zmq_send(sock, "1.0", 3, ZMQ_SNDMORE);
	(void)zmq_send(sock, zmq_msg_data(&f[REQUEST]), zmq_msg_size(&f[REQUEST]),
		       ZMQ_SNDMORE);
	(void)zmq_send(sock, all[verdict].code, 3, ZMQ_SNDMORE);
	(void)zmq_send(sock, all[verdict].text, strlen(all[verdict].text), ZMQ_SNDMORE);
	(void)zmq_send(sock, user, strlen(user), ZMQ_SNDMORE);
	(void)zmq_send(sock, "", 0, 0);
}

static bool take(void *owner)
{
	struct bus_zap *z = owner;
	zmq_msg_t f[N_FRAMES];
	int n = 0;
	bool more = true;
	while (more && n < N_FRAMES) {
		zmq_msg_init(&f[n]);
		if (zmq_msg_recv(&f[n], z->socket.zmq, ZMQ_DONTWAIT) < 0) {
			zmq_msg_close(&f[n]);
			break;
		}
		more = zmq_msg_more(&f[n]);
		n++;
	}
	if (n == 0)
		return false;
	bus_skip_frames(z->socket.zmq, more && n == N_FRAMES);
	if (n > REQUEST)
		answer(z, f, n == N_FRAMES ? judge(z, f) : SP_BUS_REFUSE);
	while (n > 0)
		zmq_msg_close(&f[--n]);
	return true;
}

int bus_zap_open(struct bus_zap *z, struct sp_loop *loop, void *zmq_ctx)
{
	int err = bus_socket_open(&z->socket, loop, zmq_ctx, ZMQ_REP, take, z);
	if (!err && zmq_bind(z->socket.zmq, ENDPOINT))
		err = -errno;
	return err ? err : bus_socket_watch(&z->socket);
}
