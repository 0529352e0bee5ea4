// Frames of a trunk: any bytes, in records of a length that the first byte of each says.
// One pipe of ours is open; what the peer opens is read, answered and closed in turn.
#include <stdlib.h>

#include "worker/trunk_mux.h"

static uint64_t clock_us;
static struct wrk_pipe *theirs[8];
static unsigned n_theirs;

static enum sp_reason on_opened(void *ctx, struct wrk_pipe *p,
				const struct wrk_mux_source *source)
{
	(void)ctx;
	if (n_theirs == 8 || source->family == 9)
		return SP_REASON_PRESSURE;
	wrk_pipe_attach(p, NULL, NULL);
	theirs[n_theirs++] = p;
	return SP_REASON_NONE;
}

static void on_wake(void *ctx)
{
	(void)ctx;
}

static void use(struct wrk_pipe *p, uint8_t how)
{
	uint8_t buf[3000] = {0};
	if (how & 1)
		(void)!wrk_pipe_read(p, buf, sizeof(buf));
	if (how & 2)
		(void)!wrk_pipe_write(p, buf, sizeof(buf));
	if (how & 4)
		(void)!wrk_pipe_end(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct wrk_mux_ops ops = {on_opened, on_wake};
	static const struct wrk_mux_source source = {4, {1}};
	struct wrk_mux_pool pool = {.limit = 1 << 20};
	static struct wrk_mux_counters counters;
	struct wrk_mux_options o = {.dialled = true,
				    .clock_us = &clock_us,
				    .pool = &pool,
				    .counters = &counters,
				    .max_pipes = 10,
				    .window_max = 65536,
				    .opens_per_second = 5,
				    .ops = &ops};
	struct wrk_mux *m;
	struct wrk_pipe *ours;
	uint8_t out[16366];
	bool rekey;
	if (wrk_mux_new(&o, &m))
		abort();
	if (wrk_pipe_open(m, &source, (const uint8_t *)"x", 1, &ours))
		abort();
	n_theirs = 0;
	while (size && !wrk_mux_input(m, data, 0, &rekey)) {
		size_t n = data[0] < size ? data[0] : size - 1;
		if (wrk_mux_input(m, data + 1, n, &rekey))
			break;
		use(n_theirs ? theirs[data[0] % n_theirs] : ours, data[0]);
		if (n_theirs && !(data[0] & 0x18))
			wrk_pipe_close(theirs[--n_theirs], SP_REASON_CLOSED);
		while (wrk_mux_output(m, out, sizeof(out)))
			;
		clock_us += 10000;
		data += n + 1;
		size -= n + 1;
	}
	wrk_mux_free(m);
	wrk_pipe_close(ours, SP_REASON_CLOSED);
	while (n_theirs)
		wrk_pipe_close(theirs[--n_theirs], SP_REASON_CLOSED);
	if (pool.used)
		abort();
	return 0;
}
