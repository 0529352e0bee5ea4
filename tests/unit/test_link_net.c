// Links over real loopback sockets, tcp and tls: bulk, carriers that are reset in the
// middle, a port nobody listens on, a certificate that is not trusted.
#include "tests/unit/cover_world.h"
#include "tests/unit/link_world.h"

#define UNTIL(cw, condition) assert_true(world_until((cw)->w, condition))

static struct sp_tls *trust(const char *ca_file)
{
	struct sp_tls_client_options opt = {.ca_file = ca_file};
	struct sp_tls *tls;

	assert_int_equal(sp_tls_client_new(&opt, &tls, NULL, 0), 0);
	return tls;
}

static void dial(struct cover_world *cw, struct sp_tls *tls)
{
	struct sp_link_dial d = world_redial(cw->w);

	d.carrier =
		(struct sp_carrier_dial){.kind = tls ? SP_CARRIER_TLS : SP_CARRIER_TCP,
					 .tls = tls,
					 .server_name = TLS_NAME,
					 .addr_len = sizeof(cw->port_addr)};
	memcpy(&d.carrier.addr, &cw->port_addr, sizeof(cw->port_addr));
	assert_int_equal(sp_link_dial(cw->w->client_env, &d, &cw->w->client_link), 0);
}

static void bulk_with_resets(bool tls, uint64_t up, uint64_t down, unsigned resets)
{
	struct cover_world *cw = cw_new(tls, false, 100);
	struct link_world *w = cw->w;
	struct sp_tls *ctx = tls ? trust(cw_files.cert) : NULL;
	unsigned done = 0;

	dial(cw, ctx);
	UNTIL(cw, w->ups == 1);
	world_open(w, up, down);
	UNTIL(cw, ({
		      uint64_t moved = w->client_bulk.got + w->worker_bulk.got;
		      if (done < resets && w->client_link && w->ups > done &&
			  moved > (up + down) / (resets + 1) * (done + 1)) {
			      struct linger at_once = {.l_onoff = 1};
			      int fd = sp_carrier_fd(sp_link_carrier(w->client_link));
			      // RST to the worker, ECONNRESET here
			      setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once,
					 sizeof(at_once));
			      struct sockaddr none = {.sa_family = AF_UNSPEC};
			      connect(fd, &none, sizeof(none));
			      done++;
		      }
		      if (!w->client_link)
			      dial(cw, ctx);
		      world_done(w);
	      }));
	world_check_bulk(w, up, down);
	assert_int_equal(done, resets);
	assert_int_equal(w->client_downs, resets);
	assert_int_equal(cw->w->strangers, 0);
	cw_free(cw);
	sp_tls_free(ctx);
}

static void tcp_carries_bulk_both_ways(void **state)
{
	(void)state;
	bulk_with_resets(false, 30000000, 30000000, 0);
}

static void tls_carries_bulk_both_ways(void **state)
{
	(void)state;
	bulk_with_resets(true, 30000000, 30000000, 0);
}

static void streams_survive_resets_of_a_tcp_carrier(void **state)
{
	(void)state;
	bulk_with_resets(false, 20000000, 20000000, 10);
}

static void streams_survive_resets_of_a_tls_carrier(void **state)
{
	(void)state;
	bulk_with_resets(true, 20000000, 20000000, 10);
}

static void a_port_nobody_listens_on_is_refused(void **state)
{
	struct cover_world *cw = cw_new(false, false, 100);
	struct sp_link_dial d = world_dial(cw->w);
	int err;

	(void)state;
	wrk_listener_free(cw->port);
	cw->port = NULL;
	d.carrier = (struct sp_carrier_dial){.kind = SP_CARRIER_TCP,
					     .addr_len = sizeof(cw->port_addr)};
	memcpy(&d.carrier.addr, &cw->port_addr, sizeof(cw->port_addr));
	err = sp_link_dial(cw->w->client_env, &d, &cw->w->client_link);
	if (!err) {
		UNTIL(cw, cw->w->client_downs == 1);
		assert_int_equal(cw->w->client_reason, SP_REASON_REFUSED);
	} else {
		assert_int_equal(err, -ECONNREFUSED);
	}
	cw_free(cw);
}

static void a_certificate_that_is_not_trusted_ends_the_dial(void **state)
{
	struct cover_world *cw = cw_new(true, false, 100);
	struct sp_tls *ctx = trust(NULL);

	(void)state;
	dial(cw, ctx);
	UNTIL(cw, cw->w->client_downs == 1);
	assert_int_equal(cw->w->client_reason, SP_REASON_TLS);
	assert_int_equal(cw->w->strangers, 0);
	UNTIL(cw, cw->w->worker_downs == 1);
	assert_int_equal(cw->w->worker_reason, SP_REASON_TLS);
	cw_free(cw);
	sp_tls_free(ctx);
}

// FIN from whoever closes; nobody sees a reset though both were sending.
static void a_close_in_full_flow_is_no_reset(void **state)
{
	(void)state;
	for (int tls = 0; tls < 2; tls++)
		for (int who = 0; who < 2; who++) {
			struct cover_world *cw = cw_new(tls, false, 100);
			struct sp_tls *ctx = tls ? trust(cw_files.cert) : NULL;
			dial(cw, ctx);
			UNTIL(cw, cw->w->ups == 1);
			world_open(cw->w, 50000000, 50000000);
			UNTIL(cw, cw->w->client_bulk.got > 3000000);
			sp_link_close(who ? cw->w->client_link : cw->w->worker_link,
				      SP_REASON_IDLE);
			UNTIL(cw, cw->w->client_downs == 1 && cw->w->worker_downs == 1);
			assert_int_equal(cw->w->client_reason, SP_REASON_IDLE);
			assert_int_equal(cw->w->worker_reason, SP_REASON_IDLE);
			UNTIL(cw, !sp_link_env_counters(cw->w->client_env)->lingering &&
					  !sp_link_env_counters(cw->w->worker_env)
						   ->lingering);
			cw_free(cw);
			sp_tls_free(ctx);
		}
}

static void count_turn(void *ctx)
{
	(void)ctx;
}

// Edges, not levels: what is open but silent wakes nobody. Links and a relay.
static void idle_carriers_cost_no_turns(void **state)
{
	struct cover_world *cw = cw_new(true, false, 100);
	struct sp_tls *ctx = trust(cw_files.cert);
	struct sp_timer end;
	struct probe p;
	uint64_t until;
	unsigned turns = 0;

	(void)state;
	probe_start(&p, &cw->port_addr, true);
	p.out = (const uint8_t *)"hello";
	p.out_len = 5;
	dial(cw, ctx);
	UNTIL(cw, (probe_step(&p), cw->w->ups == 1 && cw->site.in_len == 5));
	sp_timer_init(&end, cw->w->loop, count_turn, NULL);
	until = sp_loop_refresh(cw->w->loop) + 400000;
	sp_timer_set(&end, until);
	for (; sp_loop_refresh(cw->w->loop) < until; turns++)
		assert_int_equal(sp_loop_turn(cw->w->loop, true), 0);
	assert_true(turns < 20); // a few reports
	sp_timer_done(&end);
	probe_done(&p);
	cw_free(cw);
	sp_tls_free(ctx);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tcp_carries_bulk_both_ways),
		cmocka_unit_test(tls_carries_bulk_both_ways),
		cmocka_unit_test(streams_survive_resets_of_a_tcp_carrier),
		cmocka_unit_test(streams_survive_resets_of_a_tls_carrier),
		cmocka_unit_test(a_port_nobody_listens_on_is_refused),
		cmocka_unit_test(a_certificate_that_is_not_trusted_ends_the_dial),
		cmocka_unit_test(idle_carriers_cost_no_turns),
		cmocka_unit_test(a_close_in_full_flow_is_no_reset),
	};
	int failed;

	tls_files_make(&cw_files);
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	tls_files_remove(&cw_files);
	return failed;
}
