// Carriers: over real loopback sockets, plain and with TLS, and in memory.
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>
#include <sodium.h>

#include "lib/carrier.h"
#include "tests/unit/tls_files.h"

static struct tls_files files;

struct pair {
	struct sp_tls *server_tls, *client_tls;
	struct sp_carrier *client, *server;
};

static int listen_loopback(struct sockaddr_in *ret)
{
	socklen_t len = sizeof(*ret);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	*ret = (struct sockaddr_in){.sin_family = AF_INET,
				    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	assert_int_equal(bind(fd, (struct sockaddr *)ret, sizeof(*ret)), 0);
	assert_int_equal(listen(fd, 8), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)ret, &len), 0);
	return fd;
}

static void wait_fd(int a, int b)
{
	struct pollfd p[2] = {{.fd = a, .events = POLLIN}, {.fd = b, .events = POLLIN}};

	(void)poll(p, 2, 20);
}

// Both ends connected, handshake not begun.
static void connect_pair(struct pair *p, const char *name)
{
	struct sp_carrier_dial d = {
		.kind = p->client_tls ? SP_CARRIER_TLS : SP_CARRIER_TCP,
		.tls = p->client_tls,
		.server_name = name,
		.addr_len = sizeof(struct sockaddr_in),
	};
	struct sockaddr_in peer;
	socklen_t len = sizeof(peer);
	int listener = listen_loopback((struct sockaddr_in *)&d.addr), fd;

	assert_int_equal(sp_carrier_connect(&d, &p->client), 0);
	fd = accept4(listener, (struct sockaddr *)&peer, &len,
		     SOCK_NONBLOCK | SOCK_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(sp_carrier_accepted(fd, (struct sockaddr *)&peer, p->server_tls,
					     &p->server),
			 0);
	close(listener);
}

static void server_tls(struct pair *p)
{
	char why[200];

	assert_int_equal(sp_tls_server_new(files.cert, files.key, &p->server_tls, why,
					   sizeof(why)),
			 0);
}

static void client_tls(struct pair *p, const char *ca_file, const uint8_t *pin)
{
	struct sp_tls_client_options opt = {.ca_file = ca_file, .pin = pin};
	char why[200];

	assert_int_equal(sp_tls_client_new(&opt, &p->client_tls, why, sizeof(why)), 0);
}

// Runs both handshakes to their ends.
static void handshake(struct pair *p, int *ret_client, int *ret_server)
{
	int c = -EAGAIN, s = -EAGAIN;

	for (int i = 0; i < 500 && (c == -EAGAIN || s == -EAGAIN); i++) {
		if (c == -EAGAIN)
			c = sp_carrier_handshake(p->client);
		if (s == -EAGAIN)
			s = sp_carrier_handshake(p->server);
		if (c && c != -EAGAIN)
			(void)!sp_carrier_shutdown(p->client);
		if (c == -EAGAIN || s == -EAGAIN)
			wait_fd(sp_carrier_fd(p->client), sp_carrier_fd(p->server));
	}
	*ret_client = c;
	*ret_server = s;
}

static void tls_pair(struct pair *p)
{
	int c, s;

	*p = (struct pair){0};
	server_tls(p);
	client_tls(p, files.cert, NULL);
	connect_pair(p, TLS_NAME);
	handshake(p, &c, &s);
	assert_int_equal(c, 0);
	assert_int_equal(s, 0);
}

static void free_pair(struct pair *p)
{
	sp_carrier_free(p->client);
	sp_carrier_free(p->server);
	sp_tls_free(p->client_tls);
	sp_tls_free(p->server_tls);
}

// Sends `len` bytes while reading at the other end; they must be the same.
static void pump_bytes(struct sp_carrier *from, struct sp_carrier *to, size_t len)
{
	uint8_t *out = malloc(len), *in = malloc(len);
	size_t sent = 0, got = 0;

	randombytes_buf(out, len);
	for (int idle = 0; got < len && idle < 500;) {
		ssize_t n = -EAGAIN, m;
		if (sent < len) {
			n = sp_carrier_write(from, out + sent, len - sent);
			assert_true(n > 0 || n == -EAGAIN);
			sent += n > 0 ? (size_t)n : 0;
		}
		m = sp_carrier_read(to, in + got, len - got);
		assert_true(m > 0 || m == -EAGAIN);
		got += m > 0 ? (size_t)m : 0;
		idle = n > 0 || m > 0 ? 0 : idle + 1;
		if (idle)
			wait_fd(sp_carrier_fd(to), -1);
	}
	assert_int_equal(got, len);
	assert_memory_equal(in, out, len);
	free(in);
	free(out);
}

static ssize_t read_wait(struct sp_carrier *c, uint8_t *buf, size_t cap)
{
	ssize_t n = -EAGAIN;

	for (int i = 0; i < 500 && n == -EAGAIN; i++) {
		n = sp_carrier_read(c, buf, cap);
		if (n == -EAGAIN)
			wait_fd(sp_carrier_fd(c), -1);
	}
	return n;
}

static void check_half_close(struct pair *p)
{
	uint8_t buf[16];

	assert_int_equal(sp_carrier_write(p->client, (const uint8_t *)"bye", 3), 3);
	assert_int_equal(sp_carrier_shutdown(p->client), 0);
	assert_int_equal(read_wait(p->server, buf, sizeof(buf)), 3);
	assert_int_equal(read_wait(p->server, buf, sizeof(buf)), 0);
	assert_int_equal(read_wait(p->server, buf, sizeof(buf)), 0); // and again
	pump_bytes(p->server, p->client, 300000);
	assert_int_equal(sp_carrier_shutdown(p->server), 0);
	assert_int_equal(read_wait(p->client, buf, sizeof(buf)), 0);
}

static void tcp_carries_bytes_and_half_close(void **state)
{
	struct pair p = {0};
	int c, s;

	(void)state;
	connect_pair(&p, NULL);
	handshake(&p, &c, &s);
	assert_int_equal(c, 0);
	assert_int_equal(s, 0);
	pump_bytes(p.client, p.server, 3000000);
	pump_bytes(p.server, p.client, 3000000);
	check_half_close(&p);
	free_pair(&p);
}

static void tls_carries_bytes_and_half_close(void **state)
{
	struct pair p;

	(void)state;
	tls_pair(&p);
	pump_bytes(p.client, p.server, 3000000);
	pump_bytes(p.server, p.client, 3000000);
	check_half_close(&p);
	free_pair(&p);
}

static void tls_carriers_outlive_their_context(void **state)
{
	struct pair p;

	(void)state;
	tls_pair(&p);
	sp_tls_free(p.client_tls);
	sp_tls_free(p.server_tls);
	p.client_tls = p.server_tls = NULL;
	pump_bytes(p.client, p.server, 100000);
	free_pair(&p);
}

static void tls_keeps_the_bounds_of_records(void **state)
{
	struct pair p;
	uint8_t out[16384], in[40000];
	size_t sizes[] = {1, 16384, 100, 8192};

	(void)state;
	memset(out, 7, sizeof(out));
	tls_pair(&p);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(sp_carrier_write(p.client, out, sizes[i]), sizes[i]);
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(read_wait(p.server, in, sizeof(in)), sizes[i]);
	// A write never spans two records.
	assert_int_equal(sp_carrier_write(p.client, in, 20000), 16384);
	free_pair(&p);
}

static void a_certificate_of_no_known_authority_is_refused(void **state)
{
	struct pair p = {0};
	int c, s;

	(void)state;
	server_tls(&p);
	client_tls(&p, NULL, NULL);
	connect_pair(&p, TLS_NAME);
	handshake(&p, &c, &s);
	assert_int_equal(c, SP_E_AUTH);
	assert_non_null(strstr(sp_carrier_error(p.client), "self-signed"));
	free_pair(&p);
}

static void a_certificate_for_another_name_is_refused(void **state)
{
	const char *names[] = {"other.example.net", "127.0.0.2", NULL};

	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct pair p = {0};
		int c, s;
		server_tls(&p);
		client_tls(&p, files.cert, NULL);
		connect_pair(&p, names[i]);
		handshake(&p, &c, &s);
		// NULL: the address dialled, which the certificate names.
		assert_int_equal(c, names[i] ? SP_E_AUTH : 0);
		if (names[i])
			assert_non_null(strstr(sp_carrier_error(p.client), "mismatch"));
		free_pair(&p);
	}
}

static void a_pin_stands_for_authority_and_name(void **state)
{
	uint8_t pin[32];

	(void)state;
	assert_int_equal(sp_tls_pin_of_file(files.cert, pin), 0);
	assert_int_equal(sp_tls_pin_of_file(files.key, pin), SP_E_CONFIG);
	for (int wrong = 0; wrong < 2; wrong++) {
		struct pair p = {0};
		int c, s;
		pin[5] ^= (uint8_t)wrong;
		server_tls(&p);
		client_tls(&p, NULL, pin);
		connect_pair(&p, "whatever.example.com");
		handshake(&p, &c, &s);
		assert_int_equal(c, wrong ? SP_E_AUTH : 0);
		free_pair(&p);
	}
}

static void bad_certificate_files_are_named(void **state)
{
	struct sp_tls_client_options opt = {.ca_file = "/nonexistent/ca.pem"};
	struct sp_tls *tls;
	char why[200];

	(void)state;
	assert_int_equal(sp_tls_server_new("/nonexistent/cert.pem", files.key, &tls, why,
					   sizeof(why)),
			 SP_E_CONFIG);
	assert_string_equal(
		why, "certificate /nonexistent/cert.pem: No such file or directory");
	assert_int_equal(
		sp_tls_server_new(files.cert, files.cert, &tls, why, sizeof(why)),
		SP_E_CONFIG);
	assert_non_null(strstr(why, "key"));
	assert_int_equal(sp_tls_client_new(&opt, &tls, why, sizeof(why)), SP_E_CONFIG);
	assert_string_equal(why,
			    "authorities /nonexistent/ca.pem: No such file or directory");
}

// A client of OpenSSL's own against our server: what it was offered.
static int plain_client(struct pair *p, const char *alpn, int max_version, SSL **ret)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	SSL *ssl;
	int c = -1, s = -EAGAIN;

	SSL_CTX_set_max_proto_version(ctx, max_version);
	ssl = SSL_new(ctx);
	SSL_CTX_free(ctx);
	server_tls(p);
	connect_pair(p, NULL);
	SSL_set_fd(ssl, sp_carrier_fd(p->client));
	if (alpn)
		SSL_set_alpn_protos(ssl, (const uint8_t *)alpn, (unsigned)strlen(alpn));
	for (int i = 0; i < 500; i++) {
		c = SSL_connect(ssl);
		if (s == -EAGAIN)
			s = sp_carrier_handshake(p->server);
		if (c == 1 || SSL_get_error(ssl, c) != SSL_ERROR_WANT_READ)
			break;
		wait_fd(sp_carrier_fd(p->client), sp_carrier_fd(p->server));
	}
	*ret = ssl;
	return c;
}

static void the_server_speaks_http11_and_tls13_alone(void **state)
{
	struct pair p = {0};
	const unsigned char *alpn;
	unsigned alpn_len;
	SSL *ssl;

	(void)state;
	assert_int_equal(plain_client(&p, "\x02h2\x08http/1.1", TLS1_3_VERSION, &ssl), 1);
	SSL_get0_alpn_selected(ssl, &alpn, &alpn_len);
	assert_int_equal(alpn_len, 8);
	assert_memory_equal(alpn, "http/1.1", 8);
	assert_int_equal(SSL_version(ssl), TLS1_3_VERSION);
	SSL_free(ssl);
	free_pair(&p);
	p = (struct pair){0};
	assert_int_equal(plain_client(&p, NULL, TLS1_3_VERSION, &ssl), 1);
	SSL_free(ssl);
	free_pair(&p);
	p = (struct pair){0};
	assert_int_not_equal(plain_client(&p, "\x02h2", TLS1_3_VERSION, &ssl), 1);
	SSL_free(ssl);
	free_pair(&p);
	p = (struct pair){0};
	assert_int_not_equal(plain_client(&p, NULL, TLS1_2_VERSION, &ssl), 1);
	SSL_free(ssl);
	free_pair(&p);
	ERR_clear_error();
}

static void bytes_that_are_not_tls_are_all_left_to_read(void **state)
{
	struct pair p = {0};
	uint8_t buf[64];
	int s = -EAGAIN;

	(void)state;
	server_tls(&p);
	connect_pair(&p, NULL);
	for (int i = 0; i < 3; i++)
		assert_int_equal(sp_carrier_handshake(p.server), -EAGAIN);
	assert_int_equal(sp_carrier_handshake(p.client), 0);
	assert_int_equal(sp_carrier_write(p.client, (const uint8_t *)"GET / ", 6), 6);
	for (int i = 0; i < 100 && s == -EAGAIN; i++) {
		wait_fd(sp_carrier_fd(p.server), -1);
		s = sp_carrier_handshake(p.server);
	}
	assert_int_equal(s, 0);
	assert_int_equal(sp_carrier_kind(p.server), SP_CARRIER_TCP);
	assert_int_equal(read_wait(p.server, buf, sizeof(buf)), 6);
	assert_memory_equal(buf, "GET / ", 6);
	free_pair(&p);
}

static void a_full_socket_gives_again_and_loses_nothing(void **state)
{
	(void)state;
	for (int tls = 0; tls < 2; tls++) {
		struct pair p = {0};
		uint8_t buf[65536], in[16384];
		size_t sent = 0, got = 0;
		ssize_t n;
		int c, s;
		if (tls)
			tls_pair(&p);
		else
			connect_pair(&p, NULL);
		handshake(&p, &c, &s);
		sp_carrier_tune(p.client);
		for (size_t i = 0; i < sizeof(buf); i++)
			buf[i] = (uint8_t)(i / 251);
		while ((n = sp_carrier_write(p.client, buf + sent % 65536,
					     65536 - sent % 65536)) > 0)
			sent += (size_t)n;
		assert_int_equal(n, -EAGAIN);
		assert_true(sent > 16384);
		while (got < sent && (n = read_wait(p.server, in, sizeof(in))) > 0)
			for (ssize_t i = 0; i < n; i++, got++)
				assert_int_equal(in[i], (uint8_t)(got % 65536 / 251));
		assert_true(got >= sent);
		free_pair(&p);
	}
}

static void a_refused_connection_says_so(void **state)
{
	struct sp_carrier_dial d = {.kind = SP_CARRIER_TCP,
				    .addr_len = sizeof(struct sockaddr_in)};
	struct sp_carrier *c = NULL;
	int err;

	(void)state;
	close(listen_loopback((struct sockaddr_in *)&d.addr));
	err = sp_carrier_connect(&d, &c);
	for (int i = 0; i < 100 && !err; i++) {
		err = sp_carrier_handshake(c);
		if (err == -EAGAIN) {
			wait_fd(sp_carrier_fd(c), -1);
			err = 0;
		}
	}
	assert_int_equal(err, -ECONNREFUSED);
	if (c) // and it stays so
		assert_int_equal(sp_carrier_handshake(c), -ECONNREFUSED);
	sp_carrier_free(c);
}

static void writing_to_a_reset_carrier_is_an_error_and_no_signal(void **state)
{
	(void)state;
	for (int tls = 0; tls < 2; tls++) {
		struct pair p = {0};
		ssize_t n = 0;
		if (tls)
			tls_pair(&p);
		else
			connect_pair(&p, NULL);
		sp_carrier_reset(p.server);
		p.server = NULL;
		for (int i = 0; i < 100 && (n >= 0 || n == -EAGAIN); i++) {
			n = sp_carrier_write(p.client, (const uint8_t *)"x", 1);
			wait_fd(sp_carrier_fd(p.client), -1);
		}
		assert_true(n == -ECONNRESET || n == -EPIPE);
		free_pair(&p);
	}
}

static void a_dialled_socket_has_its_options(void **state)
{
	struct pair p = {0};
	socklen_t len = sizeof(int);
	int v = 0, fd;

	(void)state;
	connect_pair(&p, NULL);
	fd = sp_carrier_fd(p.client);
	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	sp_carrier_tune(p.client);
	getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &v, &len);
	assert_int_equal(v, 1);
	getsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &v, &len);
	assert_int_equal(v, 16384);
	getsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &v, &len);
	assert_int_equal(v, 30000);
	getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &v, &len);
	assert_int_equal(v, 1);
	// An accepted one shows nothing of it.
	getsockopt(sp_carrier_fd(p.server), SOL_SOCKET, SO_KEEPALIVE, &v, &len);
	assert_int_equal(v, 0);
	free_pair(&p);
}

static void memory_carriers_follow_their_script(void **state)
{
	struct sp_carrier_script script = {
		.read_max = 3, .write_max = 5, .cut_at = 1000, .again_each = 4};
	struct sp_carrier *c[2];
	uint8_t buf[64];
	uint64_t sent = 0, got = 0;
	ssize_t n = 0, m = 0;

	(void)state;
	assert_int_equal(sp_carrier_mem_pair(&script, &script, c), 0);
	memset(buf, 1, sizeof(buf));
	while (n >= 0 || n == -EAGAIN) {
		n = sp_carrier_write(c[0], buf, sizeof(buf));
		assert_true(n <= 5);
		sent += n > 0 ? (uint64_t)n : 0;
		for (int i = 0; i < 2; i++) {
			m = sp_carrier_read(c[1], buf, sizeof(buf));
			assert_true(m <= 3);
			got += m > 0 ? (uint64_t)m : 0;
		}
	}
	assert_int_equal(n, -ECONNRESET);
	assert_int_equal(sent, 1000);
	assert_true(got < sent);
	assert_int_equal(sp_carrier_read(c[1], buf, sizeof(buf)), -ECONNRESET);
	sp_carrier_free(c[0]);
	sp_carrier_free(c[1]);
}

static void closing_a_memory_carrier_with_unread_bytes_resets(void **state)
{
	struct sp_carrier *c[2];
	uint8_t buf[8];

	(void)state;
	for (int unread = 0; unread < 2; unread++) {
		assert_int_equal(sp_carrier_mem_pair(NULL, NULL, c), 0);
		if (unread)
			assert_int_equal(sp_carrier_write(c[0], buf, 8), 8);
		sp_carrier_free(c[1]);
		assert_int_equal(sp_carrier_read(c[0], buf, 8), unread ? -ECONNRESET : 0);
		sp_carrier_free(c[0]);
	}
}

static void kinds_have_words(void **state)
{
	enum sp_carrier_kind kind;

	(void)state;
	assert_int_equal(sp_carrier_kind_parse("tls", &kind), 0);
	assert_int_equal(kind, SP_CARRIER_TLS);
	assert_int_equal(sp_carrier_kind_parse("tcp", &kind), 0);
	assert_int_equal(kind, SP_CARRIER_TCP);
	assert_int_equal(sp_carrier_kind_parse("memory", &kind), SP_E_MALFORMED);
	assert_string_equal(sp_carrier_kind_word(SP_CARRIER_TLS), "tls");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tcp_carries_bytes_and_half_close),
		cmocka_unit_test(tls_carries_bytes_and_half_close),
		cmocka_unit_test(tls_carriers_outlive_their_context),
		cmocka_unit_test(tls_keeps_the_bounds_of_records),
		cmocka_unit_test(a_certificate_of_no_known_authority_is_refused),
		cmocka_unit_test(a_certificate_for_another_name_is_refused),
		cmocka_unit_test(a_pin_stands_for_authority_and_name),
		cmocka_unit_test(bad_certificate_files_are_named),
		cmocka_unit_test(the_server_speaks_http11_and_tls13_alone),
		cmocka_unit_test(bytes_that_are_not_tls_are_all_left_to_read),
		cmocka_unit_test(a_full_socket_gives_again_and_loses_nothing),
		cmocka_unit_test(a_refused_connection_says_so),
		cmocka_unit_test(writing_to_a_reset_carrier_is_an_error_and_no_signal),
		cmocka_unit_test(a_dialled_socket_has_its_options),
		cmocka_unit_test(memory_carriers_follow_their_script),
		cmocka_unit_test(closing_a_memory_carrier_with_unread_bytes_resets),
		cmocka_unit_test(kinds_have_words),
	};
	int failed;

	if (sodium_init() < 0)
		return 1;
	tls_files_make(&files);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	tls_files_remove(&files);
	return failed;
}
