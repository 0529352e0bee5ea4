// The link to the agent with real processes: this program itself, run again, plays agents
// of several kinds.
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "lib/log.h"
#include "worker/agent_link.h"
#include "worker/local.h"

#define LINK 3

static const char *self;

// ---- agents ----

static int answer(uint64_t call, int fd)
{
	Sallyport__Local__FromAgent m = SALLYPORT__LOCAL__FROM_AGENT__INIT;
	Sallyport__Local__ConfigOffer offer = SALLYPORT__LOCAL__CONFIG_OFFER__INIT;
	m.call = call;
	m.body_case = SALLYPORT__LOCAL__FROM_AGENT__BODY_CONFIG;
	m.config = &offer;
	return wrk_local_send(LINK, &m.base, fd);
}

// Answers each message with a memfd that lists the descriptors it has.
static int run_echo(void)
{
	static uint8_t buf[WRK_LOCAL_PACKET_MAX];
	for (;;) {
		struct pollfd p = {.fd = LINK, .events = POLLIN};
		int fd = -1, open_fds = 0;
		if (poll(&p, 1, -1) < 0)
			return 1;
		ssize_t n = wrk_local_receive(LINK, buf, &fd);
		if (n <= 0)
			return n ? 1 : 0;
		Sallyport__Local__FromExit *m =
			sallyport__local__from_exit__unpack(NULL, (size_t)n, buf);
		if (!m)
			return 1;
		for (int i = 0; i < 256; i++)
			open_fds += fcntl(i, F_GETFD) >= 0;
		int mem = wrk_local_memfd("answer", &open_fds, sizeof(open_fds));
		if (mem < 0 || answer(m->call, mem))
			return 1;
		close(mem);
		sallyport__local__from_exit__free_unpacked(m, NULL);
	}
}

static int run_agent(const char *kind)
{
	static const char garbage[] = "\xff\xff\xff";
	static char big[WRK_LOCAL_PACKET_MAX + 1];
	if (!strcmp(kind, "echo"))
		return run_echo();
	if (!strcmp(kind, "dies"))
		return 7;
	if (!strcmp(kind, "garbage")) {
		int size = 1 << 20;
		(void)setsockopt(LINK, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
		if (send(LINK, garbage, sizeof(garbage), 0) < 0 ||
		    send(LINK, big, sizeof(big), 0) < 0 || answer(1, -1))
			return 1;
		return run_echo();
	}
	struct pollfd p = {.fd = LINK, .events = 0}; // reads nothing
	while (poll(&p, 1, -1) < 0)
		;
	return 0;
}

// ---- the exit's side ----

struct world {
	struct sp_loop *loop;
	struct wrk_agent_link *link;
	const char *argv[3];
	int ups, downs, answers, open_fds;
	uint64_t call;
};

static void on_up(void *ctx)
{
	((struct world *)ctx)->ups++;
}

static void on_down(void *ctx)
{
	((struct world *)ctx)->downs++;
}

static void on_config(void *ctx, const Sallyport__Local__FromAgent *m, int fd)
{
	struct world *w = ctx;
	uint8_t *buf;
	size_t len;
	w->answers++;
	w->call = m->call;
	if (fd < 0)
		return;
	assert_int_equal(wrk_local_memfd_read(fd, 64, &buf, &len), 0);
	assert_int_equal(len, sizeof(w->open_fds));
	memcpy(&w->open_fds, buf, len);
	free(buf);
}

static void begin(struct world *w, const char *kind, uint32_t silence_ms)
{
	struct wrk_agent_options o = {
		.silence_ms = silence_ms, .up = on_up, .down = on_down, .ctx = w};
	memset(w, 0, sizeof(*w));
	assert_int_equal(sp_loop_new(&w->loop), 0);
	w->argv[0] = self;
	w->argv[1] = kind;
	o.loop = w->loop;
	o.argv = w->argv;
	assert_int_equal(wrk_agent_link_new(&o, &w->link), 0);
	wrk_agent_link_on(w->link, SALLYPORT__LOCAL__FROM_AGENT__BODY_CONFIG, on_config,
			  w);
}

static void end(struct world *w)
{
	wrk_agent_link_free(w->link);
	sp_loop_free(w->loop);
}

static int say(struct world *w, uint64_t call)
{
	Sallyport__Local__FromExit m = SALLYPORT__LOCAL__FROM_EXIT__INIT;
	Sallyport__Local__ExitState s = SALLYPORT__LOCAL__EXIT_STATE__INIT;
	m.call = call;
	m.body_case = SALLYPORT__LOCAL__FROM_EXIT__BODY_STATE;
	m.state = &s;
	return wrk_agent_link_send(w->link, &m, -1);
}

#define UNTIL(w, condition)                                                              \
	do {                                                                             \
		uint64_t until_ = sp_loop_now_us((w)->loop) + 20000000;                  \
		while (!(condition)) {                                                   \
			assert_true(sp_loop_now_us((w)->loop) < until_);                 \
			assert_int_equal(sp_loop_turn((w)->loop, true), 0);              \
		}                                                                        \
	} while (0)

static void messages_and_memfds_go_both_ways(void **state)
{
	struct world w;
	(void)state;
	begin(&w, "echo", 0);
	UNTIL(&w, w.ups == 1);
	assert_int_equal(say(&w, 42), 0);
	UNTIL(&w, w.answers == 1);
	assert_int_equal(w.call, 42);
	end(&w);
}

static void an_agent_inherits_nothing_but_its_link(void **state)
{
	struct world w;
	(void)state;
	int secret = open("/dev/null", O_RDONLY); // not close-on-exec
	begin(&w, "echo", 0);
	UNTIL(&w, w.ups == 1);
	assert_int_equal(say(&w, 1), 0);
	UNTIL(&w, w.answers == 1);
	assert_int_equal(w.open_fds, 4); // 0, 1, 2 and the link
	close(secret);
	end(&w);
}

static void a_dead_agent_is_started_again_ever_later(void **state)
{
	struct world w;
	(void)state;
	begin(&w, "dies", 0);
	uint64_t from = sp_loop_now_us(w.loop);
	UNTIL(&w, w.ups == 4);
	// 100, 200 and 400 ms
	assert_true(sp_loop_now_us(w.loop) - from >= 690000);
	assert_int_equal(wrk_agent_link_counters(w.link)->died, 3);
	assert_int_equal(w.downs, 3);
	end(&w);
}

static void a_killed_agent_costs_its_messages_and_no_more(void **state)
{
	struct world w;
	(void)state;
	begin(&w, "echo", 0);
	UNTIL(&w, w.ups == 1);
	assert_int_equal(kill(wrk_agent_link_pid(w.link), SIGKILL), 0);
	UNTIL(&w, !wrk_agent_link_is_up(w.link));
	assert_int_equal(say(&w, 1), -ENOTCONN);
	UNTIL(&w, w.ups == 2);
	assert_int_equal(say(&w, 2), 0);
	UNTIL(&w, w.answers == 1);
	assert_int_equal(w.call, 2);
	end(&w);
}

static void a_silent_agent_is_killed(void **state)
{
	struct world w;
	(void)state;
	begin(&w, "silent", 300);
	UNTIL(&w, w.ups == 2);
	assert_int_equal(wrk_agent_link_counters(w.link)->hung, 1);
	end(&w);
}

static void an_agent_that_does_not_read_blocks_nobody(void **state)
{
	struct world w;
	int err = 0;
	(void)state;
	begin(&w, "silent", 0);
	UNTIL(&w, w.ups == 1);
	for (int i = 0; i < 1000000 && !err; i++)
		err = say(&w, 1);
	assert_int_equal(err, -EAGAIN);
	end(&w);
}

static void garbage_from_an_agent_is_counted_and_skipped(void **state)
{
	struct world w;
	(void)state;
	begin(&w, "garbage", 0);
	UNTIL(&w, w.answers == 1);
	assert_int_equal(wrk_agent_link_counters(w.link)->malformed, 2);
	assert_true(wrk_agent_link_is_up(w.link));
	end(&w);
}

static void a_program_that_is_not_there_is_tried_again(void **state)
{
	struct world w;
	(void)state;
	begin(&w, "echo", 0);
	w.argv[0] = "/nonexistent/agent";
	uint64_t until = sp_loop_now_us(w.loop) + 400000;
	while (sp_loop_now_us(w.loop) < until)
		assert_int_equal(sp_loop_turn(w.loop, true), 0);
	assert_int_equal(w.ups, 0);
	w.argv[0] = self;
	UNTIL(&w, w.ups == 1);
	end(&w);
}

static void a_memfd_that_could_change_is_refused(void **state)
{
	uint8_t *buf;
	size_t len;
	(void)state;
	int fd = memfd_create("open", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	assert_int_equal(write(fd, "x", 1), 1);
	assert_int_equal(wrk_local_memfd_read(fd, 64, &buf, &len), SP_E_PROTOCOL);
	assert_int_equal(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_WRITE), 0);
	assert_int_equal(wrk_local_memfd_read(fd, 64, &buf, &len), 0);
	free(buf);
	assert_int_equal(wrk_local_memfd_read(fd, 0, &buf, &len), SP_E_LIMIT);
	close(fd);
	fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	assert_int_equal(wrk_local_memfd_read(fd, 64, &buf, &len), SP_E_PROTOCOL);
	close(fd);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(messages_and_memfds_go_both_ways),
		cmocka_unit_test(an_agent_inherits_nothing_but_its_link),
		cmocka_unit_test(a_dead_agent_is_started_again_ever_later),
		cmocka_unit_test(a_killed_agent_costs_its_messages_and_no_more),
		cmocka_unit_test(a_silent_agent_is_killed),
		cmocka_unit_test(an_agent_that_does_not_read_blocks_nobody),
		cmocka_unit_test(garbage_from_an_agent_is_counted_and_skipped),
		cmocka_unit_test(a_program_that_is_not_there_is_tried_again),
		cmocka_unit_test(a_memfd_that_could_change_is_refused),
	};
	if (argc == 2)
		return run_agent(argv[1]);
	self = "/proc/self/exe";
	sp_log_setup(SP_LOG_ERROR, SP_LOG_LOGFMT,
		     open("/dev/null", O_WRONLY | O_CLOEXEC));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
