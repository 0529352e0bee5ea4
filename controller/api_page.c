// Pages of the operator API's lists.
#include <stdlib.h>
#include <string.h>

#include "controller/api_fleet.h"

bool con_api_page_begin(struct con_api_call *call, struct con_api_page *p)
{
	*p = (struct con_api_page){.call = call, .after = con_api_query(call, "after")};
	if (!con_api_number(call, "limit", CON_PAGE_DEFAULT, CON_PAGE_MAX, &p->limit))
		return false;
	if (p->limit == 0) {
		con_api_problem(call, 400, "query", "limit: want 1 to %d", CON_PAGE_MAX);
		return false;
	}
	p->list = json_array();
	p->failed = !p->list;
	return true;
}

bool con_api_page_wants(const struct con_api_page *p, const char *name)
{
	return !p->after || strcmp(name, p->after) > 0;
}

bool con_api_page_fits(const struct con_api_page *p, const json_t *object,
		       const char *parameter, const char *key)
{
	const char *want = con_api_query(p->call, parameter);
	const char *have = json_string_value(json_object_get(object, key));
	return !want || (have && strcmp(want, have) == 0);
}

bool con_api_page_add(struct con_api_page *p, const char *name, json_t *object)
{
	if (object && json_array_size(p->list) == p->limit) {
		json_decref(object);
		p->more = true;
		return false;
	}
	free(p->last);
	p->last = strdup(name);
	p->failed = p->failed || !p->last || json_array_append_new(p->list, object);
	return !p->failed;
}

void con_api_page_answer(struct con_api_page *p, const char *list, size_t total)
{
	json_t *o = p->failed ? NULL
			      : json_pack("{s:O, s:I}", list, p->list, "total",
					  (json_int_t)total);
	if (o && p->more && json_object_set_new(o, "next", json_string(p->last))) {
		json_decref(o);
		o = NULL;
	}
	json_decref(p->list);
	free(p->last);
	con_api_answer(p->call, 200, o);
}
