// The cover site: what a stranger gets is what the bare site gives, byte for byte and to
// the way it closes.
#include "tests/unit/cover_world.h"

#define UNTIL(cw, condition) assert_true(world_until((cw)->w, condition))

// The site's clock may tick between two askings: blanks the values of its Date headers.
static void blank_dates(struct probe *p)
{
	static const char name[] = "\r\nDate: ";
	uint8_t *at = p->in, *end = p->in + p->in_len;
	while (p->in_len &&
	       (at = memmem(at, (size_t)(end - at), name, sizeof(name) - 1))) {
		at += sizeof(name) - 1;
		while (at < end && *at != '\r')
			*at++ = '-';
	}
}

// Both ways of asking: straight at the site (plain), and through the worker's tls port.
static void same_as_bare(struct cover_world *cw, const void *ask, size_t len,
			 size_t record, bool fin)
{
	struct probe bare, covered;

	probe_start(&bare, &cw->site_addr, false);
	probe_start(&covered, &cw->port_addr, true);
	bare.out = covered.out = ask;
	bare.out_len = covered.out_len = len;
	bare.record = covered.record = record;
	bare.fin_after = covered.fin_after = fin;
	UNTIL(cw, probe_step(&bare));
	UNTIL(cw, probe_step(&covered));
	assert_int_equal(covered.in_len, bare.in_len);
	blank_dates(&bare);
	blank_dates(&covered);
	if (bare.in_len)
		assert_memory_equal(covered.in, bare.in, bare.in_len);
	assert_int_equal(covered.end, bare.end);
	probe_done(&bare);
	probe_done(&covered);
}

static void answers_headers_and_close_are_the_bare_sites(void **state)
{
	static const char *const asks[] = {
		"GET / HTTP/1.0\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		"HEAD /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		"GET /none HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
		"Connection: close\r\n\r\nhello",
		"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.0\r\n\r\n",
		"BREW / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
		"GET /\r\n\r\n",
		"nonsense\r\n\r\n",
	};
	struct cover_world *cw = cw_new(true, true, 100);

	(void)state;
	for (size_t i = 0; i < sizeof(asks) / sizeof(asks[0]); i++) {
		same_as_bare(cw, asks[i], strlen(asks[i]), 0, false);
		same_as_bare(cw, asks[i], strlen(asks[i]), 1, true);
	}
	UNTIL(cw, wrk_cover_counters(cw->cover)->live == 0);
	assert_int_equal(wrk_cover_counters(cw->cover)->relayed, 20);
	cw_free(cw);
}

static void a_silent_client_meets_the_sites_own_timer(void **state)
{
	struct cover_world *cw = cw_new(true, true, 100);
	struct probe tls, tcp;

	(void)state;
	probe_start(&tls, &cw->port_addr, true);  // handshake, then nothing
	probe_start(&tcp, &cw->port_addr, false); // nothing at all
	tls.out_len = 0;
	SSL_do_handshake(tls.ssl);
	UNTIL(cw, probe_step(&tls) & probe_step(&tcp));
	assert_int_equal(tls.end, PROBE_FIN);
	assert_int_equal(tcp.end, PROBE_FIN);
	assert_int_equal(tls.in_len + tcp.in_len, 0);
	assert_int_equal(cw->w->silences, 2);
	probe_done(&tls);
	probe_done(&tcp);
	cw_free(cw);
}

static void strangers_of_every_length_reach_the_site_whole(void **state)
{
	struct cover_world *cw = cw_new(true, false, 100);
	uint8_t ask[17000];
	unsigned conns = 0;

	(void)state;
	randombytes_buf(ask, sizeof(ask));
	for (size_t len = 1; len < sizeof(ask); len += len < 80 ? 1 : len / 3 + 1) {
		struct probe p;
		probe_start(&p, &cw->port_addr, true);
		p.out = ask;
		p.out_len = len;
		p.fin_after = true;
		conns++;
		UNTIL(cw, (probe_step(&p), cw->site_conns == conns && cw->site.fin));
		assert_int_equal(cw->site.in_len, len);
		assert_memory_equal(cw->site.in, ask, len);
		cw_site_send(cw, "no", 2);
		cw_site_close(cw, false);
		UNTIL(cw, probe_step(&p));
		assert_int_equal(p.end, PROBE_FIN);
		assert_true(p.close_notify);
		assert_int_equal(p.in_len, 2);
		probe_done(&p);
	}
	cw_free(cw);
}

// A first flight that would be welcome in one piece.
static size_t make_flight(struct cover_world *cw, uint8_t *buf, struct sp_hs_client *hs)
{
	struct sp_hs_client_options opt = {
		.worker_public = cw->w->keys.static_public,
		.suites = sp_aead_suites(),
		.device_secret = cw->w->device_secret,
		.device_public = cw->w->device_public,
		.pass = cw->w->pass,
		.pass_len = cw->w->pass_len,
		.now_ms = sp_loop_unix_ms(cw->w->loop),
	};
	int n = sp_hs_client_start(hs, &opt, buf, SP_HS_FLIGHT_MAX);

	assert_true(n > 0);
	return (size_t)n;
}

static void a_flight_in_two_tls_records_is_a_strangers(void **state)
{
	struct cover_world *cw = cw_new(true, false, 100);
	uint8_t flight[SP_HS_FLIGHT_MAX];
	struct sp_hs_client hs;
	size_t len = make_flight(cw, flight, &hs);
	unsigned conns = 0;

	(void)state;
	for (size_t cut = 1; cut < len; cut += cut < 24 ? 1 : 61) {
		struct probe p;
		probe_start(&p, &cw->port_addr, true);
		p.out = flight;
		p.out_len = cut;
		conns++;
		UNTIL(cw, (probe_step(&p),
			   cw->site_conns == conns && cw->site.in_len == cut));
		p.out_len = len;
		p.fin_after = true;
		UNTIL(cw, (probe_step(&p), cw->site.fin));
		assert_int_equal(cw->site.in_len, len);
		assert_memory_equal(cw->site.in, flight, len);
		cw_site_close(cw, false);
		UNTIL(cw, probe_step(&p));
		assert_int_equal(p.in_len, 0);
		probe_done(&p);
	}
	assert_int_equal(cw->w->strangers, conns);
	assert_int_equal(cw->w->admits, 0);
	sp_hs_client_done(&hs);
	cw_free(cw);
}

static void a_flight_changed_in_one_byte_is_a_strangers(void **state)
{
	struct cover_world *cw = cw_new(true, false, 100);
	uint8_t flight[SP_HS_FLIGHT_MAX];
	struct sp_hs_client hs;
	size_t len = make_flight(cw, flight, &hs);
	unsigned conns = 0;

	(void)state;
	for (size_t at = 0; at < len; at += at < 24 ? 1 : 67) {
		struct probe p;
		flight[at] ^= 0x10;
		probe_start(&p, &cw->port_addr, true);
		p.out = flight;
		p.out_len = len;
		conns++;
		UNTIL(cw, (probe_step(&p),
			   cw->site_conns == conns && cw->site.in_len == len));
		assert_memory_equal(cw->site.in, flight, len);
		flight[at] ^= 0x10;
		probe_done(&p);
	}
	sp_hs_client_done(&hs);
	cw_free(cw);
}

static void a_replayed_flight_is_a_strangers(void **state)
{
	struct cover_world *cw = cw_new(true, false, 100);
	uint8_t flight[SP_HS_FLIGHT_MAX];
	struct sp_hs_client hs;
	size_t len = make_flight(cw, flight, &hs);
	struct probe p[2];

	(void)state;
	for (int i = 0; i < 2; i++) {
		probe_start(&p[i], &cw->port_addr, true);
		p[i].out = flight;
		p[i].out_len = len;
		UNTIL(cw,
		      (probe_step(&p[i]), i ? cw->site.in_len == len : p[i].in_len > 50));
	}
	assert_int_equal(cw->w->admits, 1);
	assert_int_equal(cw->w->stranger_why, SP_REASON_REPLAY);
	assert_int_equal(p[1].in_len, 0);
	probe_done(&p[0]);
	probe_done(&p[1]);
	sp_hs_client_done(&hs);
	cw_free(cw);
}

static void bytes_that_are_not_tls_go_to_the_site_as_they_are(void **state)
{
	struct cover_world *cw = cw_new(true, false, 100);
	struct probe p;
	uint8_t ask[3] = {0x15, 3, 1};

	(void)state;
	probe_start(&p, &cw->port_addr, false);
	p.out = ask;
	p.out_len = 1; // one byte decides
	UNTIL(cw, (probe_step(&p), cw->site.in_len == 1));
	p.out_len = 3;
	UNTIL(cw, (probe_step(&p), cw->site.in_len == 3));
	assert_memory_equal(cw->site.in, ask, 3);
	assert_int_equal(cw->w->stranger_why, SP_REASON_NOT_TLS);
	cw_site_send(cw, "hm", 2);
	UNTIL(cw, (probe_step(&p), p.in_len == 2));
	cw_site_close(cw, false);
	UNTIL(cw, probe_step(&p));
	assert_int_equal(p.end, PROBE_FIN);
	probe_done(&p);
	cw_free(cw);
}

static void half_closes_are_kept_both_ways(void **state)
{
	static uint8_t bulk[700000];
	struct cover_world *cw = cw_new(true, false, 100);
	struct probe p;
	size_t sent = 0;

	(void)state;
	randombytes_buf(bulk, sizeof(bulk));
	// The client ends first; the site goes on.
	probe_start(&p, &cw->port_addr, true);
	p.out = bulk;
	p.out_len = 20;
	p.fin_after = true;
	UNTIL(cw, (probe_step(&p), cw->site.fin));
	UNTIL(cw, ({
		      ssize_t n = send(cw->site.fd, bulk + sent, sizeof(bulk) - sent,
				       MSG_NOSIGNAL);
		      sent += n > 0 ? (size_t)n : 0;
		      probe_step(&p);
		      sent == sizeof(bulk) && p.in_len == sent;
	      }));
	assert_memory_equal(p.in, bulk, sizeof(bulk));
	assert_int_equal(p.end, PROBE_OPEN);
	cw_site_close(cw, false);
	UNTIL(cw, probe_step(&p));
	probe_done(&p);
	// The site ends first; the client goes on.
	cw->site_conns = 0;
	probe_start(&p, &cw->port_addr, true);
	p.out = bulk;
	p.out_len = 20;
	UNTIL(cw, (probe_step(&p), cw->site_conns && cw->site.in_len == 20));
	shutdown(cw->site.fd, SHUT_WR);
	UNTIL(cw, probe_step(&p));
	assert_int_equal(p.end, PROBE_FIN);
	p.end = PROBE_OPEN; // let it write on
	p.out_len = sizeof(bulk);
	p.fin_after = true;
	UNTIL(cw, (probe_write(&p), cw->site.fin));
	assert_int_equal(cw->site.in_len, sizeof(bulk));
	assert_memory_equal(cw->site.in, bulk, sizeof(bulk));
	probe_done(&p);
	UNTIL(cw, wrk_cover_counters(cw->cover)->live == 0);
	cw_free(cw);
}

static void a_reset_goes_through_in_both_directions(void **state)
{
	struct cover_world *cw = cw_new(true, false, 100);
	struct linger at_once = {.l_onoff = 1};
	struct probe p;

	(void)state;
	probe_start(&p, &cw->port_addr, true);
	p.out = (const uint8_t *)"hello";
	p.out_len = 5;
	UNTIL(cw, (probe_step(&p), cw->site.in_len == 5));
	cw_site_send(cw, "last words", 10);
	cw_site_close(cw, true);
	UNTIL(cw, probe_step(&p));
	assert_int_equal(p.end, PROBE_RST);
	probe_done(&p);

	cw->site_conns = 0;
	probe_start(&p, &cw->port_addr, true);
	p.out = (const uint8_t *)"hello";
	p.out_len = 5;
	UNTIL(cw, (probe_step(&p), cw->site_conns && cw->site.in_len == 5));
	setsockopt(p.fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
	probe_done(&p);
	UNTIL(cw, cw->site.rst);
	UNTIL(cw, wrk_cover_counters(cw->cover)->live == 0);
	cw_free(cw);
}

// A closed site resets whoever writes on: so must we.
static void writing_to_a_site_that_closed_is_reset(void **state)
{
	struct cover_world *cw = cw_new(true, false, 100);
	struct probe p;
	socklen_t len = sizeof(int);
	int err = 0;

	(void)state;
	probe_start(&p, &cw->port_addr, false);
	p.out = (const uint8_t *)"hello again";
	p.out_len = 5;
	UNTIL(cw, (probe_step(&p), cw->site.in_len == 5));
	cw_site_close(cw, false);
	UNTIL(cw, probe_step(&p));
	assert_int_equal(p.end, PROBE_FIN);
	assert_int_equal(send(p.fd, "again", 5, MSG_NOSIGNAL), 5);
	UNTIL(cw, !getsockopt(p.fd, SOL_SOCKET, SO_ERROR, &err, &len) && err);
	assert_true(err == EPIPE || err == ECONNRESET);
	UNTIL(cw, wrk_cover_counters(cw->cover)->live == 0);
	probe_done(&p);
	cw_free(cw);
}

static void a_site_that_is_down_resets(void **state)
{
	struct cover_world *cw = cw_new(true, false, 100);
	struct probe p;

	(void)state;
	wrk_listener_free(cw->site_port);
	cw->site_port = NULL;
	probe_start(&p, &cw->port_addr, true);
	p.out = (const uint8_t *)"hello";
	p.out_len = 5;
	UNTIL(cw, probe_step(&p));
	assert_int_equal(p.end, PROBE_RST);
	assert_true(wrk_cover_counters(cw->cover)->unreachable >= 1);
	probe_done(&p);
	cw_free(cw);
}

static void a_slow_reader_is_waited_for_with_bounded_memory(void **state)
{
	static uint8_t bulk[8 << 20];
	struct cover_world *cw = cw_new(true, false, 100);
	struct probe p;
	size_t sent = 0;
	unsigned stuck = 0;

	(void)state;
	randombytes_buf(bulk, sizeof(bulk));
	probe_start(&p, &cw->port_addr, true);
	p.out = (const uint8_t *)"hello";
	p.out_len = 5;
	UNTIL(cw, (probe_step(&p), cw->site.in_len == 5));
	// Nobody reads: the site is stopped by what the kernels take.
	UNTIL(cw, ({
		      ssize_t n = send(cw->site.fd, bulk + sent, sizeof(bulk) - sent,
				       MSG_NOSIGNAL);
		      sent += n > 0 ? (size_t)n : 0;
		      stuck = n > 0 ? 0 : stuck + 1;
		      stuck > 5 || sent == sizeof(bulk);
	      }));
	assert_true(wrk_cover_counters(cw->cover)->bytes_from_site < sizeof(bulk));
	UNTIL(cw, ({
		      ssize_t n = 0;
		      if (sent < sizeof(bulk))
			      n = send(cw->site.fd, bulk + sent, sizeof(bulk) - sent,
				       MSG_NOSIGNAL);
		      sent += n > 0 ? (size_t)n : 0;
		      probe_step(&p);
		      p.in_len == sizeof(bulk);
	      }));
	assert_memory_equal(p.in, bulk, sizeof(bulk));
	probe_done(&p);
	cw_free(cw);
}

static void over_the_limit_the_stalest_relay_goes(void **state)
{
	struct cover_world *cw = cw_new(true, true, 3);
	struct probe p[4];

	(void)state;
	for (int i = 0; i < 4; i++) {
		probe_start(&p[i], &cw->port_addr, true);
		p[i].out = (const uint8_t *)"GET /";
		p[i].out_len = 5;
		UNTIL(cw, (probe_step(&p[i]),
			   wrk_cover_counters(cw->cover)->relayed == (unsigned)i + 1));
	}
	UNTIL(cw, probe_step(&p[0]));
	for (int i = 1; i < 4; i++)
		assert_false(probe_step(&p[i]));
	assert_int_equal(wrk_cover_counters(cw->cover)->evicted, 1);
	assert_int_equal(wrk_cover_counters(cw->cover)->live, 3);
	for (int i = 0; i < 4; i++)
		probe_done(&p[i]);
	cw_free(cw);
}

// ---- one of ours, late ----

static struct sp_tls *client_tls(void)
{
	struct sp_tls_client_options opt = {.ca_file = cw_files.cert};
	struct sp_tls *tls;

	assert_int_equal(sp_tls_client_new(&opt, &tls, NULL, 0), 0);
	return tls;
}

static void a_client_of_ours_is_served_on_the_same_port(void **state)
{
	struct cover_world *cw = cw_new(true, false, 100);
	struct sp_link_dial d = world_dial(cw->w);
	struct sp_tls *tls = client_tls();

	(void)state;
	d.carrier = (struct sp_carrier_dial){.kind = SP_CARRIER_TLS,
					     .tls = tls,
					     .server_name = TLS_NAME,
					     .addr_len = sizeof(cw->port_addr)};
	memcpy(&d.carrier.addr, &cw->port_addr, sizeof(cw->port_addr));
	assert_int_equal(sp_link_dial(cw->w->client_env, &d, &cw->w->client_link), 0);
	UNTIL(cw, cw->w->ups == 1);
	world_open(cw->w, 2000000, 20000000);
	UNTIL(cw, world_done(cw->w));
	world_check_bulk(cw->w, 2000000, 20000000);
	assert_int_equal(cw->site_conns, 0);
	cw_free(cw);
	sp_tls_free(tls);
}

static void a_late_flight_is_welcome_until_the_site_speaks(void **state)
{
	uint8_t flight[SP_HS_FLIGHT_MAX];
	struct sp_hs_client hs;

	(void)state;
	for (int spoke = 0; spoke < 2; spoke++) {
		struct cover_world *cw = cw_new(true, false, 100);
		size_t len = make_flight(cw, flight, &hs);
		struct probe p;
		probe_start(&p, &cw->port_addr, true);
		UNTIL(cw, (probe_step(&p), cw->site_conns == 1));
		assert_int_equal(cw->w->silences, 1);
		if (spoke) {
			cw_site_send(cw, "408", 3);
			UNTIL(cw, (probe_step(&p), p.in_len == 3));
		}
		p.out = flight;
		p.out_len = len;
		if (spoke) {
			UNTIL(cw, (probe_step(&p), cw->site.in_len == len));
		} else {
			UNTIL(cw, (probe_step(&p), p.in_len > 50 && cw->site.fin));
			assert_int_equal(cw->w->silences_over, 1);
		}
		assert_int_equal(cw->w->admits, !spoke);
		probe_done(&p);
		sp_hs_client_done(&hs);
		cw_free(cw);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers_headers_and_close_are_the_bare_sites),
		cmocka_unit_test(a_silent_client_meets_the_sites_own_timer),
		cmocka_unit_test(strangers_of_every_length_reach_the_site_whole),
		cmocka_unit_test(a_flight_in_two_tls_records_is_a_strangers),
		cmocka_unit_test(a_flight_changed_in_one_byte_is_a_strangers),
		cmocka_unit_test(a_replayed_flight_is_a_strangers),
		cmocka_unit_test(bytes_that_are_not_tls_go_to_the_site_as_they_are),
		cmocka_unit_test(half_closes_are_kept_both_ways),
		cmocka_unit_test(a_reset_goes_through_in_both_directions),
		cmocka_unit_test(writing_to_a_site_that_closed_is_reset),
		cmocka_unit_test(a_site_that_is_down_resets),
		cmocka_unit_test(a_slow_reader_is_waited_for_with_bounded_memory),
		cmocka_unit_test(over_the_limit_the_stalest_relay_goes),
		cmocka_unit_test(a_client_of_ours_is_served_on_the_same_port),
		cmocka_unit_test(a_late_flight_is_welcome_until_the_site_speaks),
	};
	int failed;

	tls_files_make(&cw_files);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	tls_files_remove(&cw_files);
	return failed;
}
