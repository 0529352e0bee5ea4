// In-memory carriers: two bounded queues, with scripted trouble. For tests.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/carrier_priv.h"

#define QUEUE_BYTES 65536

struct mem_carrier {
	struct sp_carrier c;      // first
	struct mem_carrier *peer; // NULL: closed
	struct sp_carrier_script script;
	uint8_t *queue; // what this end has not read: a ring
	size_t cap, first, fill;
	bool peer_fin, fin, broken;
	uint64_t written;
	unsigned reads, writes;
};

static struct mem_carrier *mem_of(struct sp_carrier *c)
{
	return (struct mem_carrier *)c;
}

static void tell(struct mem_carrier *m)
{
	if (m && m->c.ready)
		m->c.ready(m->c.ready_arg);
}

static void break_both(struct mem_carrier *m)
{
	m->broken = true;
	if (m->peer) {
		m->peer->broken = true;
		m->peer->fill = 0;
		tell(m->peer);
	}
	tell(m);
}

// True when the script says that this call gives -EAGAIN although it need not; the owner
// is told at once that it may try again.
static bool again(struct mem_carrier *m, unsigned *count)
{
	if (!m->script.again_each || ++*count % m->script.again_each)
		return false;
	tell(m);
	return true;
}

static int mem_handshake(struct sp_carrier *c)
{
	return mem_of(c)->broken ? carrier_fail(c, -ECONNRESET) : 0;
}

static ssize_t mem_read(struct sp_carrier *c, uint8_t *buf, size_t cap)
{
	struct mem_carrier *m = mem_of(c);

	if (m->broken)
		return carrier_fail(c, -ECONNRESET);
	if (again(m, &m->reads))
		return -EAGAIN;
	if (!m->fill)
		return m->peer_fin ? 0 : -EAGAIN;
	if (m->script.read_max && cap > m->script.read_max)
		cap = m->script.read_max;
	if (cap > m->fill)
		cap = m->fill;
	if (cap > m->cap - m->first)
		cap = m->cap - m->first;
	memcpy(buf, m->queue + m->first, cap);
	m->first = (m->first + cap) % m->cap;
	m->fill -= cap;
	tell(m->peer);
	return (ssize_t)cap;
}

static ssize_t mem_write(struct sp_carrier *c, const uint8_t *buf, size_t len)
{
	struct mem_carrier *m = mem_of(c), *to = m->peer;

	if (m->broken || m->fin)
		return carrier_fail(c, m->fin ? -EPIPE : -ECONNRESET);
	if (!to) { // nobody reads: as a kernel answers data with RST
		break_both(m);
		return (ssize_t)len;
	}
	if (again(m, &m->writes))
		return -EAGAIN;
	size_t at = (to->first + to->fill) % to->cap, room = to->cap - to->fill;
	if (m->script.write_max && len > m->script.write_max)
		len = m->script.write_max;
	if (len > room)
		len = room;
	if (len > to->cap - at)
		len = to->cap - at;
	if (m->script.cut_at && m->written + len >= m->script.cut_at)
		len = (size_t)(m->script.cut_at - m->written);
	if (!room)
		return -EAGAIN;
	memcpy(to->queue + at, buf, len);
	to->fill += len;
	m->written += len;
	if (m->script.cut_at && m->written == m->script.cut_at)
		break_both(m);
	tell(to);
	return (ssize_t)len;
}

static int mem_shutdown(struct sp_carrier *c)
{
	struct mem_carrier *m = mem_of(c);

	if (m->broken)
		return carrier_fail(c, -ECONNRESET);
	m->fin = true;
	if (m->peer) {
		m->peer->peer_fin = true;
		tell(m->peer);
	}
	return 0;
}

// As a kernel does: closing with something unread resets the other end.
static void mem_close(struct sp_carrier *c, bool reset)
{
	struct mem_carrier *m = mem_of(c), *peer = m->peer;

	if (peer) {
		peer->peer = NULL;
		peer->peer_fin = true;
		if (reset || m->fill) {
			peer->broken = true;
			peer->fill = 0;
		}
		tell(peer);
	}
	free(m->queue);
}

static const struct sp_carrier_ops mem_ops = {
	.kind = SP_CARRIER_MEM,
	.handshake = mem_handshake,
	.read = mem_read,
	.write = mem_write,
	.shutdown = mem_shutdown,
	.close = mem_close,
};

static struct mem_carrier *mem_new(const struct sp_carrier_script *script)
{
	struct mem_carrier *m = calloc(1, sizeof(*m));

	if (!m)
		return NULL;
	if (script)
		m->script = *script;
	m->cap = m->script.queue_bytes ? m->script.queue_bytes : QUEUE_BYTES;
	m->queue = malloc(m->cap);
	m->c.ops = &mem_ops;
	m->c.fd = -1;
	m->c.peer.sa.sa_family = AF_UNSPEC;
	if (m->queue)
		return m;
	free(m);
	return NULL;
}

int sp_carrier_mem_pair(const struct sp_carrier_script *first,
			const struct sp_carrier_script *second, struct sp_carrier *ret[2])
{
	struct mem_carrier *a = mem_new(first), *b = mem_new(second);

	if (!a || !b) {
		sp_carrier_free(a ? &a->c : NULL);
		sp_carrier_free(b ? &b->c : NULL);
		return -ENOMEM;
	}
	a->peer = b;
	b->peer = a;
	ret[0] = &a->c;
	ret[1] = &b->c;
	return 0;
}
