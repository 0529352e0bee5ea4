// Commits on behalf of calls, in parts if a whole fleet is too much for one revision.
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "controller/api_fleet.h"
#include "lib/text.h"

#define PART_BYTES 400000 // of keys and values in one revision; a signed one has 1 MiB

struct job {
	struct con_fleet *fleet;
	struct con_api_call *call;
	struct sp_changes changes; // what is still to be done
	size_t at;
	struct sp_position before;
	json_t *extra;
};

json_t *con_api_position(const struct sp_position *at)
{
	char hash[2 * SP_REVISION_HASH_BYTES + 1];
	sp_hex_encode(at->hash, sizeof(at->hash), hash, sizeof(hash));
	return json_pack("{s:I, s:I, s:s}", "epoch", (json_int_t)at->epoch, "sequence",
			 (json_int_t)at->sequence, "hash", hash);
}

static void end_job(struct job *j)
{
	sp_changes_done(&j->changes);
	json_decref(j->extra);
	free(j);
}

static void succeed(struct job *j, const struct sp_position *at)
{
	json_t *body = j->extra ? json_incref(j->extra) : json_object();
	bool changed = !sp_position_same(&j->before, at);
	if (!body || json_object_set_new(body, "changed", json_boolean(changed)) ||
	    json_object_set_new(body, "position", con_api_position(at))) {
		json_decref(body);
		body = NULL;
	}
	con_api_answer(j->call, 200, body);
	end_job(j);
}

static void next_part(struct job *j, const struct sp_position *at);

static void on_committed(void *ctx, int err, const char *why,
			 const struct sp_position *at)
{
	struct job *j = ctx;
	if (!err) {
		next_part(j, at);
		return;
	}
	con_api_error(j->call, err, why);
	end_job(j);
}

// Takes the next changes out of the job.
static struct sp_changes take_part(struct job *j)
{
	struct sp_changes part = {0};
	size_t bytes = 0, n = 0, left = j->changes.n - j->at;
	struct sp_change *from = j->changes.v + j->at;
	while (n < left && (n == 0 || bytes < PART_BYTES)) {
		bytes += strlen(from[n].key) + (from[n].json ? strlen(from[n].json) : 0) +
			 32;
		n++;
	}
	part.v = calloc(n ? n : 1, sizeof(*part.v));
	if (!part.v)
		return part;
	memcpy(part.v, from, n * sizeof(*part.v));
	memset(from, 0, n * sizeof(*from));
	part.n = part.cap = n;
	j->at += n;
	return part;
}

static void next_part(struct job *j, const struct sp_position *at)
{
	if (j->at == j->changes.n) {
		succeed(j, at);
		return;
	}
	struct sp_changes part = take_part(j);
	int err = part.v ? con_fleet_commit(j->fleet, &part, con_api_author(j->call),
					    on_committed, j)
			 : -ENOMEM;
	if (err) {
		sp_changes_done(&part);
		con_api_error(j->call, err, "");
		end_job(j);
	}
}

void con_api_commit(struct con_fleet *fleet, struct con_api_call *call,
		    struct sp_changes *changes, json_t *extra)
{
	struct job *j = calloc(1, sizeof(*j));
	if (!j) {
		sp_changes_done(changes);
		json_decref(extra);
		con_api_error(call, -ENOMEM, "");
		return;
	}
	*j = (struct job){.fleet = fleet,
			  .call = call,
			  .changes = *changes,
			  .before = *con_fleet_head(fleet),
			  .extra = extra};
	*changes = (struct sp_changes){0};
	next_part(j, con_fleet_head(fleet));
}
