#include <stdlib.h>
#include <string.h>

#include "lib/fleet.h"
#include "lib/fleet_json.h"

static void free_carriers(struct sp_fleet_carrier *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(v[i].ca_file);
}

void sp_fleet_members_done(struct sp_fleet_members *m)
{
	for (size_t i = 0; i < m->n; i++) {
		free_carriers(m->v[i].carriers, m->v[i].n_carriers);
		free(m->v[i].carriers);
	}
	free(m->v);
	*m = (struct sp_fleet_members){0};
}

// Of what a client is told of it, as much as another worker needs.
static void get_member(struct fleet_cursor *c, const json_t *o, struct sp_fleet_exit *x,
		       struct sp_fleet_member *ret)
{
	memset(x, 0, sizeof(*x));
	fleet_get_exit(c, o, x);
	ret->carriers =
		c->err ? NULL : fleet_alloc(c, x->n_carriers, sizeof(*ret->carriers));
	if (!ret->carriers) {
		free_carriers(x->carriers, x->n_carriers);
		return;
	}
	strcpy(ret->name, x->name);
	ret->home_id = x->home_id;
	memcpy(ret->public_key, x->public_key, sizeof(ret->public_key));
	memcpy(ret->carriers, x->carriers, x->n_carriers * sizeof(*ret->carriers));
	ret->n_carriers = x->n_carriers;
}

static int compare(const void *a, const void *b)
{
	const struct sp_fleet_member *x = a, *y = b;
	return x->home_id < y->home_id ? -1 : x->home_id > y->home_id;
}

static void sort(struct fleet_cursor *c, struct sp_fleet_members *m)
{
	if (m->n)
		qsort(m->v, m->n, sizeof(*m->v), compare);
	for (size_t i = 1; i < m->n && !c->err; i++)
		if (m->v[i].home_id == m->v[i - 1].home_id)
			fleet_fail(c, SP_E_CONFIG, "members",
				   "found %s and %s with one home_id; want one of its "
				   "own each",
				   m->v[i - 1].name, m->v[i].name);
}

void fleet_get_members(struct fleet_cursor *c, const json_t *o, bool required,
		       struct sp_fleet_members *ret)
{
	json_t *v, *list = fleet_get_list(c, o, "members", 0, SP_FLEET_MEMBERS_MAX,
					  required);
	struct sp_fleet_exit *x = fleet_alloc(c, 1, sizeof(*x));
	size_t i;
	if (list && x)
		ret->v = fleet_alloc(c, json_array_size(list), sizeof(*ret->v));
	json_array_foreach(list, i, v)
	{
		size_t mark = fleet_enter_index(c, "members", i);
		if (!c->err)
			get_member(c, v, x, &ret->v[ret->n++]);
		fleet_leave(c, mark);
	}
	free(x);
	sort(c, ret);
}

int sp_fleet_members_parse(const void *json, size_t len, struct sp_fleet_members *ret,
			   char *why, size_t cap)
{
	static const char *const keys[] = {"format", "members", NULL};
	struct fleet_cursor c = {.why = why, .cap = cap};
	struct sp_fleet_members m = {0};
	json_t *o = fleet_load_within(&c, json, len, SP_FLEET_MEMBERS_BYTES, keys);
	if (o)
		fleet_get_members(&c, o, true, &m);
	json_decref(o);
	if (c.err) {
		sp_fleet_members_done(&m);
		return c.err;
	}
	*ret = m;
	return 0;
}
