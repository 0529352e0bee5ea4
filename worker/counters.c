#include "worker/counters.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/queue.h>
#include <time.h>
#include <unistd.h>

#include <sodium.h>

#include "lib/log.h"

struct account {
	struct wrk_account a; // first
	LIST_ENTRY(account) chain;
	struct wrk_counters_user *slot;
};

struct segment {
	struct wrk_counters_head *head;
	size_t bytes;
	int fd; // read-only
	char *path;
	uint64_t boot;
};

struct wrk_counters {
	struct wrk_counters_options opt;
	struct segment seg;
	uint8_t key[crypto_shorthash_KEYBYTES];
	size_t mask;
	LIST_HEAD(chain, account) * chains;
};

_Static_assert(sizeof(struct wrk_counters_head) <= WRK_COUNTERS_HEAD_BYTES, "");
_Static_assert(sizeof(struct wrk_counters_user) == 96, "");
_Static_assert(WRK_GAUGES <= 64, "");

size_t wrk_counters_text_at(enum wrk_text which)
{
	return WRK_COUNTERS_HEAD_BYTES + (size_t)which * WRK_COUNTERS_TEXT_BYTES;
}

size_t wrk_counters_user_at(uint32_t i)
{
	return wrk_counters_text_at(WRK_TEXTS) + i * sizeof(struct wrk_counters_user);
}

size_t wrk_counters_bytes(uint32_t users_max)
{
	return wrk_counters_user_at(users_max);
}

// ---- segments ----

// Room is taken now, since a page that finds none later is a SIGBUS.
static int make_file(const char *folder, uint64_t boot, size_t bytes, char **ret_path)
{
	char *path;
	if (asprintf(&path, "%s/counters.%016llx", folder, (unsigned long long)boot) < 0)
		return -ENOMEM;
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	int err = fd < 0 ? -errno : -posix_fallocate(fd, 0, (off_t)bytes);
	if (!err) {
		*ret_path = path;
		return fd;
	}
	if (fd >= 0) {
		unlink(path);
		close(fd);
	}
	free(path);
	return err;
}

static int make_memfd(size_t bytes)
{
	int fd = memfd_create("counters", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return -errno;
	if (ftruncate(fd, (off_t)bytes) == 0 &&
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0)
		return fd;
	int err = -errno;
	close(fd);
	return err;
}

static int reopen(int fd)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	int ro = open(path, O_RDONLY | O_CLOEXEC);
	return ro < 0 ? -errno : ro;
}

static void segment_done(struct segment *s)
{
	if (s->head)
		munmap(s->head, s->bytes);
	if (s->fd >= 0)
		close(s->fd);
	free(s->path);
	*s = (struct segment){.fd = -1};
}

static uint64_t unix_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static int segment_make(const struct wrk_counters_options *opt, uint64_t boot,
			struct segment *ret)
{
	struct segment s = {.bytes = wrk_counters_bytes(opt->users), .fd = -1};
	s.boot = boot;
	int err = 0, fd = opt->folder ? make_file(opt->folder, boot, s.bytes, &s.path)
				      : make_memfd(s.bytes);
	if (fd < 0 && opt->folder) {
		sp_warn("counters", "kept in memory: the disk takes no file",
			"folder=%s error=%s", opt->folder, sp_strerror(fd));
		fd = make_memfd(s.bytes);
	}
	if (fd < 0)
		return fd;
	s.fd = reopen(fd);
	void *p = mmap(NULL, s.bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p != MAP_FAILED)
		s.head = p;
	if (s.fd < 0 || !s.head)
		err = s.fd < 0 ? s.fd : -ENOMEM;
	close(fd);
	if (err) {
		if (s.path)
			unlink(s.path);
		segment_done(&s);
		return err;
	}
	s.head->version = WRK_COUNTERS_VERSION;
	s.head->users_max = opt->users;
	s.head->boot = boot;
	s.head->made_ms = unix_ms();
	s.head->gauges = WRK_GAUGES;
	s.head->magic = WRK_COUNTERS_MAGIC;
	*ret = s;
	return 0;
}

// ---- accounts ----

// Keyed, so that nobody aims names at one chain.
static struct chain *chain_of(struct wrk_counters *c, const char *name)
{
	uint64_t h;
	crypto_shorthash((uint8_t *)&h, (const uint8_t *)name, strlen(name), c->key);
	return &c->chains[(size_t)h & c->mask];
}

static struct account *find(struct wrk_counters *c, const char *name)
{
	struct account *a;
	LIST_FOREACH(a, chain_of(c, name), chain)
	if (!strcmp(a->slot->name, name))
		return a;
	return NULL;
}

// The slot counts from the moment that the number of slots says so.
static struct wrk_counters_user *take_slot(struct segment *s, const char *name)
{
	uint32_t n = atomic_load_explicit(&s->head->users, memory_order_relaxed);
	if (n >= s->head->users_max)
		return NULL;
	struct wrk_counters_user *u =
		(struct wrk_counters_user *)((char *)s->head + wrk_counters_user_at(n));
	memset(u, 0, sizeof(*u));
	strncpy(u->name, name, SP_PASS_USER_MAX);
	atomic_store_explicit(&s->head->users, n + 1, memory_order_release);
	return u;
}

static uint64_t total(const struct wrk_usage *u)
{
	return u->up + u->down;
}

static void move_account(struct account *a, struct segment *to)
{
	struct wrk_counters_user *old = a->slot, *new = take_slot(to, old->name);
	assert(new); // the new one has as many slots as the old
	new->live = old->live;
	if (a->a.limited)
		a->a.quota =
			wrk_account_is_over(&a->a) ? 0 : a->a.quota - total(&old->usage);
	a->slot = new;
	a->a.usage = &new->usage;
}

static uint32_t count_live(const struct wrk_counters *c)
{
	struct account *a;
	uint32_t n = 0;
	for (size_t i = 0; i <= c->mask; i++)
		LIST_FOREACH(a, &c->chains[i], chain)
	n += a->slot->live > 0;
	return n;
}

// With more than half of the slots in use, the next segment has twice as many: else it
// would be full again at once.
static uint32_t slots_for(const struct wrk_counters *c, uint32_t live)
{
	uint32_t n = c->opt.users;
	if (live > n / 2)
		n = n > WRK_COUNTERS_USERS_MAX / 2 ? WRK_COUNTERS_USERS_MAX : 2 * n;
	return n;
}

static int begin_new(struct wrk_counters *c)
{
	struct segment new;
	uint64_t boot;
	uint32_t live = count_live(c);
	c->opt.users = slots_for(c, live);
	if (live >= c->opt.users)
		return SP_E_LIMIT;
	randombytes_buf(&boot, sizeof(boot));
	int err = segment_make(&c->opt, boot, &new);
	if (err)
		return err;
	for (size_t i = 0; i <= c->mask; i++) {
		struct account *next, *a = LIST_FIRST(&c->chains[i]);
		for (; a; a = next) {
			next = LIST_NEXT(a, chain);
			if (a->slot->live) {
				move_account(a, &new);
				continue;
			}
			LIST_REMOVE(a, chain);
			free(a);
		}
	}
	memcpy(new.head->gauge, c->seg.head->gauge, sizeof(new.head->gauge));
	struct segment old = c->seg;
	c->seg = new;
	sp_info("counters", "a new segment begins", "boot=%" PRIx64, boot);
	munmap(old.head, old.bytes);
	if (c->opt.ended) {
		c->opt.ended(c->opt.ctx, old.boot, old.fd, old.path);
	} else {
		close(old.fd);
		free(old.path);
	}
	return 0;
}

struct wrk_account *wrk_counters_find(struct wrk_counters *c, const char *user)
{
	struct account *a = find(c, user);
	return a ? &a->a : NULL;
}

struct wrk_account *wrk_counters_account(struct wrk_counters *c, const char *user)
{
	struct account *a = find(c, user);
	if (a)
		return &a->a;
	a = calloc(1, sizeof(*a));
	if (!a)
		return NULL;
	a->slot = take_slot(&c->seg, user);
	if (!a->slot && begin_new(c) == 0)
		a->slot = take_slot(&c->seg, user);
	if (!a->slot) {
		free(a);
		return NULL;
	}
	a->a.usage = &a->slot->usage;
	LIST_INSERT_HEAD(chain_of(c, a->slot->name), a, chain);
	return &a->a;
}

void wrk_counters_session(struct wrk_counters *c, struct wrk_account *a, int by)
{
	struct account *account = (struct account *)a;
	(void)c;
	account->slot->live += (uint32_t)by;
}

bool wrk_account_is_over(const struct wrk_account *a)
{
	return a->limited && total(a->usage) >= a->quota;
}

// ---- the writer ----

int wrk_counters_new(const struct wrk_counters_options *opt, struct wrk_counters **ret)
{
	struct wrk_counters *c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	assert(opt->users && opt->users <= WRK_COUNTERS_USERS_MAX);
	c->opt = *opt;
	c->seg.fd = -1;
	crypto_shorthash_keygen(c->key);
	size_t size = 64;
	while (size < opt->users)
		size *= 2;
	c->mask = size - 1;
	c->chains = calloc(size, sizeof(*c->chains));
	int err = c->chains ? segment_make(opt, opt->boot, &c->seg) : -ENOMEM;
	if (err) {
		wrk_counters_free(c);
		return err;
	}
	*ret = c;
	return 0;
}

void wrk_counters_free(struct wrk_counters *c)
{
	if (!c)
		return;
	for (size_t i = 0; c->chains && i <= c->mask; i++) {
		struct account *a;
		while ((a = LIST_FIRST(&c->chains[i]))) {
			LIST_REMOVE(a, chain);
			free(a);
		}
	}
	free(c->chains);
	segment_done(&c->seg);
	free(c);
}

uint64_t wrk_counters_boot(const struct wrk_counters *c)
{
	return c->seg.boot;
}

int wrk_counters_fd(const struct wrk_counters *c)
{
	return c->seg.fd;
}

const char *wrk_counters_path(const struct wrk_counters *c)
{
	return c->seg.path;
}

void wrk_counters_set(struct wrk_counters *c, enum wrk_gauge gauge, uint64_t v)
{
	c->seg.head->gauge[gauge] = v;
}

int wrk_counters_set_text(struct wrk_counters *c, enum wrk_text which, const void *text,
			  size_t len)
{
	struct wrk_counters_head *h = c->seg.head;
	if (len > WRK_COUNTERS_TEXT_BYTES)
		return SP_E_LIMIT;
	atomic_fetch_or_explicit(&h->text[which].turn, 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_release);
	memcpy((char *)h + wrk_counters_text_at(which), text, len);
	h->text[which].len = (uint32_t)len;
	atomic_thread_fence(memory_order_release);
	atomic_fetch_add_explicit(&h->text[which].turn, 1, memory_order_relaxed);
	return 0;
}
