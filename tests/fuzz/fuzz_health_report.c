// What a vantage may report, and a worker tell: any bytes that parse. However it lies, it
// is one vantage of one region: the node of the other region stays offered there.
#include <stdlib.h>
#include <string.h>

#include "controller/health.h"
#include "lib/log.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put(struct con_health *h, const char *key, const char *json)
{
	con_health_set(h, key, json, strlen(json), 1);
}

static struct con_health *make(struct sp_loop **loop)
{
	struct con_health *h;
	struct con_health_options o = {0};
	sp_log_setup(SP_LOG_ERROR, SP_LOG_LOGFMT, 2);
	if (sp_loop_new(loop) || con_events_new(*loop, &o.events))
		abort();
	o.loop = *loop;
	if (con_health_new(&o, &h))
		abort();
	put(h, "fleet", "{\"name\":\"t\",\"health\":{\"cycle_ms\":20}}");
	put(h, "node/a/0",
	    "{\"region\":\"eu\",\"carriers\":[{\"kind\":\"tcp\",\"address\":\"192.0.2.1:"
	    "1\"}]}");
	put(h, "identity/a/0", "{}");
	put(h, "vantage/v", "{\"region\":\"eu\"}");
	con_health_settle(h);
	return h;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct con_health *h;
	static struct sp_loop *loop;
	unsigned percent;
	if (!h)
		h = make(&loop);
	Sallyport__Fleet__ProbeReport *r =
		sallyport__fleet__probe_report__unpack(NULL, size, data);
	if (r) {
		con_health_report(h, "v", r);
		con_health_report(h, "nobody", r);
		sallyport__fleet__probe_report__free_unpacked(r, NULL);
	}
	Sallyport__Fleet__Telemetry *t =
		sallyport__fleet__telemetry__unpack(NULL, size, data);
	if (t) {
		t->draining = false; // then it is not offered, and rightly
		con_health_worker(h, "a/0", t->boot, t);
		sallyport__fleet__telemetry__free_unpacked(t, NULL);
	}
	json_t *o = con_health_json(h, "a");
	if (!o || !con_health_offered(h, "a/0", "", &percent)) // never the last node
		abort();
	json_decref(o);
	return 0;
}
