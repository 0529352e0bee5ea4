// What is good and bad of a fleet, judged by what its controller answered. Pure.
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/checks.h"
#include "ctl/grid.h"
#include "ctl/parse.h"

#define CLOCK_WARN_MS 2000
#define CLOCK_BAD_MS  30000 // passes tolerate 90 s in all
#define REDIS_SLOW_US 50000
#define ROOM_WARN     (UINT64_C(512) << 20)
#define ROOM_BAD      (UINT64_C(64) << 20)
#define LEASE_NEAR_S  600
#define NODES_SHOWN   50 // of those with something to tell
#define LAG_GRACE_MS  2000

static json_int_t number(const json_t *o, const char *key)
{
	return json_integer_value(json_object_get(o, key));
}

static const char *text(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));
	return s ? s : "";
}

// ---- clocks ----

static void check_clock(struct ctl_checks *k, const char *about, int64_t apart_ms)
{
	uint64_t d = (uint64_t)(apart_ms < 0 ? -apart_ms : apart_ms);
	ctl_check_add(k,
		      d < CLOCK_WARN_MS  ? CTL_GOOD
		      : d < CLOCK_BAD_MS ? CTL_WARN
					 : CTL_BAD,
		      "clock", about,
		      d < CLOCK_WARN_MS ? NULL
					: "let NTP set both clocks (timedatectl "
					  "set-ntp true); passes hold by the clock",
		      "%" PRId64 ".%03" PRId64 " s apart", (int64_t)(d / 1000),
		      (int64_t)(d % 1000));
}

// ---- Redis and the disk ----

static bool same_position(const json_t *a, const json_t *b)
{
	return number(a, "epoch") == number(b, "epoch") &&
	       number(a, "sequence") == number(b, "sequence") &&
	       !strcmp(text(a, "hash"), text(b, "hash"));
}

static void check_positions(struct ctl_checks *k, const json_t *disk, const json_t *redis)
{
	const json_t *at = json_object_get(redis, "position");
	json_int_t d = number(disk, "sequence"), r = number(at, "sequence");
	static const char remedy[] =
		"wait some seconds: the controller fills Redis anew from its disk; if it "
		"stays, sallyportctl get events --kind redis-distrusted says why";
	if (same_position(disk, at) || (!at && d == 0))
		ctl_check_add(k, CTL_GOOD, "revisions", "", NULL,
			      "disk and Redis are both at epoch %lld, sequence %lld",
			      (long long)number(disk, "epoch"), (long long)d);
	else
		ctl_check_add(k, CTL_BAD, "revisions", "", remedy,
			      "the disk is at epoch %lld, sequence %lld, and Redis at "
			      "epoch %lld, sequence %lld",
			      (long long)number(disk, "epoch"), (long long)d,
			      (long long)number(at, "epoch"), (long long)r);
	json_t *last = json_object_get(redis, "stream_sequence");
	if (!at)
		return;
	if (json_is_integer(last) && json_integer_value(last) == r)
		ctl_check_add(k, CTL_GOOD, "stream", "", NULL,
			      "%lld entries, up to the disk's sequence %lld",
			      (long long)number(redis, "stream_entries"), (long long)r);
	else
		ctl_check_add(k, CTL_BAD, "stream", "",
			      "delete the fleet's keys in Redis (sp:{NAME}:head, "
			      ":journal): the controller fills it anew from its disk",
			      "it ends at sequence %lld, %lld behind what Redis claims",
			      (long long)json_integer_value(last),
			      (long long)(r - json_integer_value(last)));
}

static void check_memory(struct ctl_checks *k, const json_t *redis)
{
	uint64_t used = (uint64_t)number(redis, "used_memory"),
		 most = (uint64_t)number(redis, "maxmemory");
	const char *policy = text(redis, "maxmemory_policy");
	if (!used)
		return;
	if (most && strcmp(policy, "noeviction") != 0)
		ctl_check_add(k, CTL_WARN, "redis", "memory",
			      "redis-cli CONFIG SET maxmemory-policy noeviction",
			      "its policy is %s: when memory is short it drops sessions",
			      policy);
	else if (most && used > most / 10 * 9)
		ctl_check_add(k, CTL_BAD, "redis", "memory",
			      "raise maxmemory: writes are refused at it",
			      "%llu of %llu MB are used",
			      (unsigned long long)(used >> 20),
			      (unsigned long long)(most >> 20));
	else
		ctl_check_add(k, CTL_GOOD, "redis", "memory", NULL, "%llu MB used",
			      (unsigned long long)(used >> 20));
}

static void check_redis(struct ctl_checks *k, const json_t *doctor)
{
	const json_t *redis = json_object_get(doctor, "redis");
	json_t *us = json_object_get(redis, "answered_us");
	const char *address = text(redis, "address");
	if (!json_is_integer(us)) {
		const char *why = text(redis, "why");
		ctl_check_add(k, CTL_BAD, "redis", address,
			      "start it (systemctl start redis-server); until then users "
			      "are served, and no change can be made",
			      "it does not answer%s%s", *why ? ": " : "", why);
		return;
	}
	json_int_t took = json_integer_value(us);
	ctl_check_add(k, took < REDIS_SLOW_US ? CTL_GOOD : CTL_WARN, "redis", address,
		      took < REDIS_SLOW_US
			      ? NULL
			      : "look at redis-cli --latency and SLOWLOG; the directory "
				"gives up after 80 ms",
		      "answers in %.1f ms", (double)took / 1000);
	check_clock(k, "controller and Redis",
		    number(redis, "time_ms") - number(redis, "asked_at_ms"));
	check_positions(k,
			json_object_get(json_object_get(doctor, "journal"), "position"),
			redis);
	check_memory(k, redis);
}

void ctl_check_room(struct ctl_checks *k, const char *area, const char *about,
		    uint64_t free_bytes, uint64_t all_bytes)
{
	bool bad = free_bytes < ROOM_BAD;
	bool near = free_bytes < ROOM_WARN || free_bytes < all_bytes / 50;
	ctl_check_add(k,
		      bad    ? CTL_BAD
		      : near ? CTL_WARN
			     : CTL_GOOD,
		      area, about,
		      bad || near ? "make room: df -h, journalctl --vacuum-size=200M; "
				    "nothing new can be kept on a full disk"
				  : NULL,
		      "%llu of %llu MB are free", (unsigned long long)(free_bytes >> 20),
		      (unsigned long long)(all_bytes >> 20));
}

static void check_journal(struct ctl_checks *k, const json_t *journal)
{
	json_int_t errors = number(journal, "errors");
	if (errors)
		ctl_check_add(k, CTL_BAD, "journal", text(journal, "folder"),
			      "sallyportctl get events --kind journal-error says why; "
			      "look at the disk (dmesg, df -h)",
			      "%lld writes have failed since the start",
			      (long long)errors);
	else
		ctl_check_add(k, CTL_GOOD, "journal", text(journal, "folder"), NULL,
			      "%lld bytes, no write has failed",
			      (long long)number(journal, "bytes"));
	if (json_object_get(journal, "disk_bytes"))
		ctl_check_room(k, "disk", text(journal, "folder"),
			       (uint64_t)number(journal, "disk_free_bytes"),
			       (uint64_t)number(journal, "disk_bytes"));
}

void ctl_check_controller(struct ctl_checks *k, const json_t *doctor, uint64_t now_ms)
{
	char age[CTL_AGE_CAP];
	json_int_t up = number(doctor, "time_ms") - number(doctor, "started_ms");
	ctl_check_add(k, CTL_GOOD, "controller", text(doctor, "fleet"), NULL,
		      "answers; runs for %s",
		      ctl_format_age(up > 0 ? (uint64_t)up / 1000 : 0, age));
	check_clock(k, "this host and the controller",
		    (int64_t)now_ms - number(doctor, "time_ms"));
	check_redis(k, doctor);
	check_journal(k, json_object_get(doctor, "journal"));
}

// ---- nodes ----

static bool is_word(const json_t *o, const char *key, const char *word)
{
	return strcmp(text(o, key), word) == 0;
}

// True: there was something to tell.
static bool check_node(struct ctl_checks *k, const json_t *n, const json_t *head,
		       uint64_t now_ms)
{
	const char *name = text(n, "name");
	char age[CTL_AGE_CAP];
	const json_t *at = json_object_get(n, "applied");
	json_int_t lag = number(head, "sequence") - number(at, "sequence");
	uint64_t seen = (uint64_t)number(n, "seen_ms");
	if (!json_is_true(json_object_get(n, "enrolled")))
		ctl_check_add(k, CTL_WARN, "node", name,
			      "sallyportctl enroll --node it, then sallyport-worker "
			      "enroll on its host; or take it out of the fleet file",
			      "has not enrolled");
	else if (!is_word(n, "link", "up"))
		ctl_check_add(
			k, CTL_WARN, "node", name,
			"on its host: systemctl status sallyport-worker; it "
			"serves on with its last config meanwhile",
			"no control link%s%s%s", seen ? ", heard of " : "",
			seen ? ctl_format_age(now_ms > seen ? (now_ms - seen) / 1000 : 0,
					      age)
			     : " since this controller started",
			seen ? " ago" : "");
	else if (*text(n, "refused"))
		ctl_check_add(k, CTL_BAD, "node", name,
			      "mend what it names and apply, or sallyportctl rollback; "
			      "it stays on its old config",
			      "refuses the config: %s", text(n, "refused"));
	else if (lag > 0 || number(at, "epoch") != number(head, "epoch"))
		ctl_check_add(k, CTL_WARN, "node", name,
			      "look again in a second; then sallyportctl get events "
			      "--node it, and its log",
			      "lags: it is at %lld/%lld, the fleet at %lld/%lld",
			      (long long)number(at, "epoch"),
			      (long long)number(at, "sequence"),
			      (long long)number(head, "epoch"),
			      (long long)number(head, "sequence"));
	else if (is_word(n, "health", "down"))
		ctl_check_add(k, CTL_BAD, "node", name,
			      "sallyportctl health NODE says which rung fails and why",
			      "down: clients are not sent there");
	else if (is_word(n, "health", "degraded") || is_word(n, "health", "quarantined"))
		ctl_check_add(k, CTL_WARN, "node", name,
			      "sallyportctl health NODE says what vantages see",
			      "%s, cause %s", text(n, "health"), text(n, "cause"));
	else
		return false;
	return true;
}

void ctl_check_nodes(struct ctl_checks *k, const json_t *nodes, const json_t *head,
		     uint64_t now_ms)
{
	const json_t *n;
	size_t i, told = 0, all = json_array_size(nodes), good = 0;
	json_array_foreach((json_t *)(uintptr_t)nodes, i, n)
	{
		struct ctl_checks none = {0};
		bool show = told < NODES_SHOWN;
		bool bad = check_node(show ? k : &none, n, head, now_ms);
		json_decref(none.list);
		told += bad;
		good += !bad;
	}
	if (told > NODES_SHOWN)
		ctl_check_add(k, CTL_WARN, "node", "", "sallyportctl get nodes",
			      "and %zu more", told - NODES_SHOWN);
	if (all == 0)
		ctl_check_add(k, CTL_WARN, "nodes", "",
			      "sallyportctl apply -f FLEET.yaml", "the fleet has none");
	else if (good)
		ctl_check_add(k, CTL_GOOD, "nodes", "", NULL,
			      "%zu of %zu are linked and at %lld/%lld", good, all,
			      (long long)number(head, "epoch"),
			      (long long)number(head, "sequence"));
}

// ---- vantages and leases ----

static const char *vantage_remedy(const char *state)
{
	if (!strcmp(state, "cut-off"))
		return "it reaches none of its own controls: look at its network";
	if (!strcmp(state, "astray"))
		return "it fails most of the fleet, which others do not: look at its "
		       "network, and sallyportctl health";
	return "on its host: systemctl status sallyport-healthcheck";
}

void ctl_check_vantages(struct ctl_checks *k, const json_t *reply)
{
	const json_t *list = json_object_get(reply, "vantages"), *v;
	size_t i, votes = 0, all = json_array_size(list);
	json_array_foreach((json_t *)(uintptr_t)list, i, v)
	{
		const char *state = text(v, "state");
		votes += !strcmp(state, "votes");
		if (strcmp(state, "votes") != 0)
			ctl_check_add(k, CTL_WARN, "vantage", text(v, "name"),
				      vantage_remedy(state), "%s: it has no vote", state);
	}
	if (json_is_true(json_object_get(reply, "panic")))
		ctl_check_add(k, CTL_BAD, "verdict", "",
			      "sallyportctl health; it ends by itself when enough "
			      "of the fleet answers",
			      "panic: too little of the fleet answers, all nodes are "
			      "offered");
	if (all == 0)
		ctl_check_add(k, CTL_WARN, "vantages", "",
			      "sallyportctl enroll --vantage NAME --region REGION, and "
			      "sallyport-healthcheck there; three are the least",
			      "nobody looks after the nodes: dead ones stay offered");
	else if (votes == 0)
		ctl_check_add(k, CTL_BAD, "vantages", "",
			      "start one: verdicts stand still until then",
			      "none of %zu has a vote", all);
	else
		ctl_check_add(k, CTL_GOOD, "vantages", "", NULL, "%zu of %zu vote", votes,
			      all);
}

void ctl_check_leases(struct ctl_checks *k, const json_t *leases, uint64_t now_s)
{
	const json_t *l;
	size_t i, far = 0;
	json_array_foreach((json_t *)(uintptr_t)leases, i, l)
	{
		uint64_t until = (uint64_t)number(l, "until");
		char when[CTL_TIME_CAP];
		if (until >= now_s + LEASE_NEAR_S) {
			far++;
			continue;
		}
		ctl_check_add(
			k, CTL_WARN, "lease", text(l, "node"),
			"make it longer by the same verb with --deadline, or undrain it "
			"now",
			"its %s ends %s; then clients are sent there again",
			text(l, "kind"), ctl_format_distance(until, now_s, when));
	}
	ctl_check_add(k, CTL_GOOD, "leases", "", NULL,
		      "%zu nodes are out on purpose for more than %d min", far,
		      LEASE_NEAR_S / 60);
}
