// Enrolment against the sockets of a controller. The exchange blocks, so that one runs
// in a child.
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <sodium.h>

#include "lib/enrol.h"
#include "lib/enroltoken.h"
#include "proto/fleet.pb-c.h"

static struct sp_bus_keys controller, own;
static uint8_t signing[32];
static struct sp_bus_server *server;

static void make_keys(void)
{
	uint8_t secret[64];
	crypto_box_keypair(controller.public_key, controller.secret_key);
	crypto_box_keypair(own.public_key, own.secret_key);
	crypto_sign_keypair(signing, secret);
}

static struct sp_enroltoken sample(void)
{
	struct sp_enroltoken t = {.enrol = "tcp://127.0.0.1:1",
				  .router = "tcp://127.0.0.1:2",
				  .publisher = "tcp://127.0.0.1:3",
				  .node = "fra1/0"};
	memcpy(t.controller_key, controller.public_key, 32);
	memset(t.secret, 7, sizeof(t.secret));
	return t;
}

// ---- a controller, in a child ----

static bool nobody(void *ctx, const uint8_t *key, char *ret)
{
	(void)ctx;
	(void)key;
	(void)ret;
	return false;
}

static enum sp_bus_verdict anybody(void *ctx, const char *address)
{
	(void)ctx;
	(void)address;
	return SP_BUS_ADMIT;
}

static void on_message(void *ctx, const struct sp_bus_peer *from, const void *data,
		       size_t len)
{
	const char *reason = ctx;
	Sallyport__Fleet__ToController *m =
		sallyport__fleet__to_controller__unpack(NULL, len, data);
	Sallyport__Fleet__FromController r = SALLYPORT__FLEET__FROM_CONTROLLER__INIT;
	Sallyport__Fleet__EnrolAnswer a = SALLYPORT__FLEET__ENROL_ANSWER__INIT;
	char router_at[] = "tcp://192.0.2.1:2", publisher_at[] = "tcp://192.0.2.1:3";
	char *router = router_at, *publisher = publisher_at;
	ProtobufCBinaryData key = {32, signing};
	uint8_t route[32], buf[2048];
	struct sp_enroltoken t;
	char why[128];
	if (!m || m->body_case != SALLYPORT__FLEET__TO_CONTROLLER__BODY_ENROL ||
	    sp_enroltoken_parse(m->enrol->token, strlen(m->enrol->token), &t, why,
				sizeof(why)) ||
	    strcmp(m->enrol->node, "fra1/0") != 0 ||
	    memcmp(m->enrol->control_key.data, from->key, 32) != 0)
		_exit(3);
	memset(route, 9, sizeof(route));
	a.reason = (char *)reason;
	a.n_signing_keys = 1;
	a.signing_keys = &key;
	a.n_router = a.n_publisher = 1;
	a.router = &router;
	a.publisher = &publisher;
	a.route_key = (ProtobufCBinaryData){32, route};
	a.controller_key = (ProtobufCBinaryData){32, controller.public_key};
	r.call = m->call;
	r.body_case = SALLYPORT__FLEET__FROM_CONTROLLER__BODY_ENROL;
	r.enrol = &a;
	size_t n = sallyport__fleet__from_controller__pack(&r, buf);
	if (sp_bus_send(server, from->domain, from->route, from->route_len, buf, n))
		_exit(4);
	sallyport__fleet__to_controller__free_unpacked(m, NULL);
}

// Its pid and where it listens.
static pid_t start_controller(const char *reason, char *ret_enrol)
{
	static const struct sp_bus_server_ops ops = {nobody, anybody, on_message};
	int fds[2];
	assert_int_equal(pipe(fds), 0);
	pid_t pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		struct sp_loop *loop;
		char why[256];
		close(fds[0]);
		alarm(60);
		if (sp_loop_new(&loop))
			_exit(1);
		struct sp_bus_server_options o = {.loop = loop,
						  .keys = &controller,
						  .router = "tcp://127.0.0.1:*",
						  .publisher = "tcp://127.0.0.1:*",
						  .enrol = "tcp://127.0.0.1:*",
						  .ops = &ops,
						  .ctx = (void *)reason};
		if (sp_bus_server_new(&o, &server, why, sizeof(why)))
			_exit(2);
		const char *at = sp_bus_server_enrol(server);
		if (write(fds[1], at, strlen(at) + 1) < 0)
			_exit(2);
		_exit(sp_loop_run(loop) ? 5 : 0);
	}
	close(fds[1]);
	assert_true(read(fds[0], ret_enrol, SP_BUS_ENDPOINT_MAX) > 0);
	close(fds[0]);
	return pid;
}

static int join(const char *enrol, const uint8_t *key, uint32_t timeout_ms,
		struct sp_enrolled *ret, uint8_t *route, char *why, size_t cap)
{
	struct sp_enroltoken t = sample();
	char text[SP_ENROLTOKEN_TEXT_MAX];
	uint8_t static_key[32] = {1};
	snprintf(t.enrol, sizeof(t.enrol), "%s", enrol);
	memcpy(t.controller_key, key, 32);
	assert_int_equal(sp_enroltoken_format(&t, text), 0);
	struct sp_enrol_request req = {.token = text,
				       .program = "test",
				       .control = &own,
				       .own_public = static_key,
				       .timeout_ms = timeout_ms};
	return sp_enrol_run(&req, ret, route, why, cap);
}

static void stop(pid_t pid)
{
	int status;
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFSIGNALED(status)); // it had not given up
}

static void the_controllers_answer_is_what_is_kept(void **state)
{
	char enrol[SP_BUS_ENDPOINT_MAX], why[256], dir[] = "/tmp/sallyport-test-XXXXXX";
	struct sp_enrolled e, back;
	uint8_t route[32], nines[32];
	(void)state;
	pid_t pid = start_controller("", enrol);
	assert_int_equal(
		join(enrol, controller.public_key, 0, &e, route, why, sizeof(why)), 0);
	stop(pid);
	memset(nines, 9, sizeof(nines));
	assert_memory_equal(route, nines, 32);
	assert_string_equal(e.name, "fra1/0");
	assert_string_equal(e.controllers[0].router, "tcp://192.0.2.1:2");
	assert_memory_equal(e.signing.key[0].public_key, signing, 32);
	assert_non_null(mkdtemp(dir));
	assert_int_equal(sp_enrolled_load(dir, &back, why, sizeof(why)), -ENOENT);
	assert_non_null(strstr(why, "enroll"));
	assert_int_equal(sp_enrolled_save(dir, &e, why, sizeof(why)), 0);
	assert_int_equal(sp_enrolled_save(dir, &e, why, sizeof(why)), -EEXIST);
	assert_int_equal(sp_enrolled_load(dir, &back, why, sizeof(why)), 0);
	assert_string_equal(back.controllers[0].publisher, "tcp://192.0.2.1:3");
	char cmd[64];
	snprintf(cmd, sizeof(cmd), "%s/fleet.json", dir);
	unlink(cmd);
	rmdir(dir);
}

static void a_refusal_is_told_with_its_reason(void **state)
{
	char enrol[SP_BUS_ENDPOINT_MAX], why[256];
	struct sp_enrolled e;
	uint8_t route[32];
	(void)state;
	pid_t pid = start_controller("the token was used already", enrol);
	assert_int_equal(
		join(enrol, controller.public_key, 0, &e, route, why, sizeof(why)),
		SP_E_AUTH);
	stop(pid);
	assert_non_null(strstr(why, "used already"));
}

static void a_controller_with_another_key_gets_nothing(void **state)
{
	char enrol[SP_BUS_ENDPOINT_MAX], why[256];
	struct sp_enrolled e;
	uint8_t route[32];
	(void)state;
	pid_t pid = start_controller("", enrol);
	int err = join(enrol, own.public_key, 700, &e, route, why, sizeof(why));
	stop(pid);
	assert_true(err == SP_E_AUTH || err == -ETIMEDOUT);
}

static void nobody_there_is_said_after_the_timeout(void **state)
{
	char why[256];
	struct sp_enrolled e;
	uint8_t route[32];
	(void)state;
	assert_int_equal(join("tcp://127.0.0.1:9", controller.public_key, 300, &e, route,
			      why, sizeof(why)),
			 -ETIMEDOUT);
	assert_non_null(strstr(why, "no link"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_controllers_answer_is_what_is_kept),
		cmocka_unit_test(a_refusal_is_told_with_its_reason),
		cmocka_unit_test(a_controller_with_another_key_gets_nothing),
		cmocka_unit_test(nobody_there_is_said_after_the_timeout),
	};
	if (sodium_init() < 0)
		return 1;
	make_keys();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
