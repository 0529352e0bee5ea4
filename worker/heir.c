#include "worker/heir.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#include <sodium.h>

#include "worker/keeper_upgrade.h"
#include "worker/worker.h"

#define TAKEN_MAGIC UINT64_C(0x314e454b41545353) // "SSTAKEN1"

_Static_assert(WRK_LIFE_TAKEN + sizeof(struct wrk_taken) <= WRK_LIFE_BYTES,
	       "it has room");

const double wrk_taken_bounds[WRK_TAKEN_BOUNDS] = {
	0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5};

static uint64_t clock_us(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static uint64_t boottime_us(void)
{
	return clock_us(CLOCK_BOOTTIME);
}

// A region of other sizes, if a new process is to have them.
static bool fits(const struct wrk_worker *w, const struct sp_arena_options *want)
{
	struct sp_arena_options has;
	sp_arena_sizes(w->arena, &has);
	return !wrk_trial_is(w->kept) || (has.max_sessions == want->max_sessions &&
					  has.max_streams == want->max_streams &&
					  has.max_flows == want->max_flows &&
					  has.memory_bytes == want->memory_bytes);
}

static int convert_arena(struct wrk_worker *w, const struct sp_arena_options *want,
			 uint64_t from)
{
	struct sp_arena_found found;
	uint64_t at = 0;
	int err = sp_arena_convert(w->kept->fd, from, want, &at);
	if (!err)
		err = sp_arena_adopt(w->kept->fd, at, &w->arena, &found);
	if (!err) {
		w->kept->arena_at = at;
		w->found.lost += found.lost;
		sp_info("worker",
			"made an arena of this version and size of the last one",
			"at=%" PRIu64, at);
	}
	return err;
}

static int adopt_arena(struct wrk_worker *w, const struct sp_arena_options *want)
{
	struct sp_arena_found found;
	uint64_t at = wrk_upgrade_of(w->kept->life)->arena_at;
	if (at == 0)
		at = WRK_LIFE_BYTES;
	w->kept->arena_at = at;
	int err = sp_arena_adopt(w->kept->fd, at, &w->arena, &found);
	if (err == SP_E_VERSION)
		return convert_arena(w, want, at);
	if (err)
		return err;
	w->found.lost = found.lost;
	if (fits(w, want))
		return 0;
	sp_arena_leave(w->arena);
	w->arena = NULL;
	return convert_arena(w, want, at);
}

// Whoever finds this process dead knows for which session it worked.
static void begin_marking(struct wrk_worker *w)
{
	sp_arena_set_mark(w->arena, &w->kept->life->mark);
}

// What another process of this worker left. False: nothing that can be used.
static bool inherit_arena(struct wrk_worker *w, const struct sp_arena_options *want)
{
	uint32_t has = 0;
	uint64_t began = boottime_us();
	int err = adopt_arena(w, want);
	w->adopt_us = boottime_us() - began;
	if (!err) {
		w->lasting = sp_arena_program(w->arena, &has);
		if (has == want->program_bytes) {
			begin_marking(w);
			w->quarantined = wrk_quarantine_judge(w->quarantine,
							      w->kept->life, w->arena);
			return true;
		}
		sp_arena_leave(w->arena);
		w->arena = NULL;
		err = SP_E_VERSION;
	}
	sp_error("worker", "what the last process left cannot be used", "error=%s",
		 sp_strerror(err));
	if (wrk_trial_is(w->kept))
		wrk_trial_object(w->kept,
				 err == SP_E_VERSION
					 ? "it knows no arena of the version of the "
					   "running program"
					 : "it cannot use the arena");
	return false;
}

// Said once, not by each process.
static void lock_arena(struct wrk_worker *w)
{
	int err = sp_arena_lock(w->arena);
	if (err && (!w->kept || w->kept->life->lives <= 1))
		sp_info("worker", "users' bytes may be swapped out", "error=%s remedy=%s",
			sp_strerror(err),
			"raise the limit of locked memory (LimitMEMLOCK)");
}

static int get_arena(struct wrk_worker *w)
{
	const struct wrk_config *c = w->cfg;
	uint32_t bytes =
		(uint32_t)(sizeof(*w->lasting) + sp_replay_bytes(WRK_REPLAY_KEYS));
	struct sp_arena_options a = {
		.max_sessions = (uint32_t)c->limits.sessions,
		.max_streams = (uint32_t)c->limits.streams,
		.max_flows = (uint32_t)c->limits.flows,
		.memory_bytes = (uint64_t)c->limits.memory_bytes,
		.program_bytes = bytes,
	};
	if (w->kept)
		w->quarantine = wrk_quarantine_of(w->kept->life);
	w->heir = w->kept && w->kept->heir && inherit_arena(w, &a);
	if (w->heir)
		return 0;
	if (wrk_trial_is(w->kept))
		return SP_E_VERSION;
	int err = w->kept ? sp_arena_create(w->kept->fd, WRK_LIFE_BYTES, &a, &w->arena)
			  : sp_arena_new(&a, &w->arena);
	if (err)
		return err;
	if (w->kept) {
		w->kept->arena_at = WRK_LIFE_BYTES;
		begin_marking(w);
	}
	w->lasting = sp_arena_program(w->arena, &bytes);
	randombytes_buf(w->lasting->boot_key, sizeof(w->lasting->boot_key));
	randombytes_buf(&w->lasting->boot_id, sizeof(w->lasting->boot_id));
	return 0;
}

int wrk_heir_arena(struct wrk_worker *w)
{
	int err = get_arena(w);
	if (!err)
		lock_arena(w);
	return err;
}

// From here on the next exit takes this region; the pages of an older one are given back.
static void settle_arena(struct wrk_worker *w)
{
	struct wrk_upgrade *up = wrk_upgrade_of(w->kept->life);
	uint64_t old = up->arena_at ? up->arena_at : WRK_LIFE_BYTES,
		 at = w->kept->arena_at;
	if (old == at)
		return;
	up->arena_at = at;
	if (old < at)
		(void)fallocate(w->kept->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				(off_t)old, (off_t)(at - old));
}

int wrk_heir_take(struct wrk_worker *w)
{
	uint32_t lost = w->found.lost;
	if (!w->heir)
		return 0;
	uint64_t began = boottime_us();
	wrk_sessions_adopt(w->sessions, w->kept->taken, w->kept->n_taken, &w->found);
	w->found.lost += lost;
	w->adopt_us += boottime_us() - began;
	return 0;
}

static void tell(const struct wrk_worker *w)
{
	const struct wrk_life *l = w->kept->life;
	sp_info("worker", "took over",
		"sessions=%u streams=%u flows=%u redial=%u lost=%u "
		"repaired_bytes=%" PRIu64 " orphans=%u quarantined=%u us=%" PRIu64
		" exec_us=%" PRIu64 " adopt_us=%" PRIu64 " cpu_us=%" PRIu64 " life=%u",
		w->found.sessions, w->found.streams, w->found.flows, w->found.redial,
		w->found.lost, w->found.repaired_bytes, w->orphans, w->quarantined,
		w->took_over_us, w->exec_us, w->adopt_us,
		clock_us(CLOCK_PROCESS_CPUTIME_ID), l->lives);
}

// ---- what is known of all such times ----

struct wrk_taken *wrk_taken_of(struct wrk_life *life)
{
	struct wrk_taken *t = (void *)((uint8_t *)life + WRK_LIFE_TAKEN);
	if (t->magic != TAKEN_MAGIC) {
		memset(t, 0, sizeof(*t));
		sp_arena_fence();
		t->magic = TAKEN_MAGIC;
	}
	return t;
}

static void count(struct wrk_worker *w)
{
	struct wrk_taken *t = wrk_taken_of(w->kept->life);
	int i = 0;
	while (i < WRK_TAKEN_BOUNDS &&
	       (double)w->took_over_us / 1e6 > wrk_taken_bounds[i])
		i++;
	t->seconds[i]++;
	t->sum_us += w->took_over_us;
	t->repaired_bytes += w->found.repaired_bytes;
	t->lost += w->found.lost;
	t->orphans += w->orphans;
}

void wrk_heir_settle(struct wrk_worker *w)
{
	const struct wrk_life *l = w->kept->life;
	settle_arena(w);
	w->orphans = (uint32_t)wrk_kept_sweep(w->kept);
	if (!w->heir)
		return;
	if (l->ended_ms) {
		w->took_over_us = boottime_us() - 1000 * l->ended_ms;
		w->exec_us = w->kept->began_us - 1000 * l->ended_ms;
	}
	count(w);
	tell(w);
}
