// Data on its way to peers: counted for each until libzmq has written it, and in memory
// once however many queues it stands in. libzmq lets go of a message in threads of its
// own, so counts are atomic.
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <sodium.h>

#include "lib/bus_internal.h"

struct sp_bus_meter {
	atomic_size_t bytes;
	atomic_uint refs;
};

struct sp_bus_blob {
	atomic_uint refs;
	size_t len;
	uint8_t data[];
};

struct load { // of one message
	struct sp_bus_blob *blob;
	struct sp_bus_meter *meter; // NULL: nobody counts
};

int sp_bus_meter_new(struct sp_bus_meter **ret)
{
	struct sp_bus_meter *m = malloc(sizeof(*m));
	if (!m)
		return -ENOMEM;
	atomic_init(&m->bytes, 0);
	atomic_init(&m->refs, 1);
	*ret = m;
	return 0;
}

void sp_bus_meter_free(struct sp_bus_meter *m)
{
	if (m && atomic_fetch_sub(&m->refs, 1) == 1)
		free(m);
}

size_t sp_bus_meter_bytes(const struct sp_bus_meter *m)
{
	return atomic_load(&m->bytes);
}

int sp_bus_blob_new(const void *data, size_t len, struct sp_bus_blob **ret)
{
	struct sp_bus_blob *b = malloc(sizeof(*b) + len);
	if (!b)
		return -ENOMEM;
	atomic_init(&b->refs, 1);
	b->len = len;
	if (len)
		memcpy(b->data, data, len);
	*ret = b;
	return 0;
}

void sp_bus_blob_free(struct sp_bus_blob *b)
{
	if (!b || atomic_fetch_sub(&b->refs, 1) != 1)
		return;
	sodium_memzero(b->data, b->len); // it may hold a key
	free(b);
}

size_t sp_bus_blob_len(const struct sp_bus_blob *b)
{
	return b->len;
}

static void on_written(void *data, void *hint) // or given up
{
	struct load *l = hint;
	(void)data;
	if (l->meter) {
		atomic_fetch_sub(&l->meter->bytes, l->blob->len);
		sp_bus_meter_free(l->meter);
	}
	sp_bus_blob_free(l->blob);
	free(l);
}

int bus_blob_message(struct sp_bus_blob *b, struct sp_bus_meter *meter, zmq_msg_t *ret)
{
	struct load *l = malloc(sizeof(*l));
	if (!l || zmq_msg_init_data(ret, b->data, b->len, on_written, l)) {
		free(l);
		return -ENOMEM;
	}
	*l = (struct load){b, meter};
	atomic_fetch_add(&b->refs, 1);
	if (meter) {
		atomic_fetch_add(&meter->bytes, b->len);
		atomic_fetch_add(&meter->refs, 1);
	}
	return 0;
}
