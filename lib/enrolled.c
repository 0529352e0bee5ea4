#include "lib/enrolled.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/file.h"
#include "lib/fleet_json.h"
#include "lib/key.h"

#define FILE_MAX 65536

static void path_of(const char *folder, char *ret, size_t cap)
{
	snprintf(ret, cap, "%s/fleet.json", folder);
}

static void get_key(struct fleet_cursor *c, const char *place, enum sp_key_kind kind,
		    const json_t *v, uint8_t *ret)
{
	char wrong[128];
	if (!json_is_string(v))
		fleet_fail(c, SP_E_CONFIG, place, "want the text of a key");
	else if (sp_key_parse(kind, false, json_string_value(v), json_string_length(v),
			      ret, wrong, sizeof(wrong)))
		fleet_fail(c, SP_E_CONFIG, place, "%s", wrong);
}

static void get_signing(struct fleet_cursor *c, const json_t *o,
			struct sp_signed_keys *ret)
{
	json_t *v,
		*list = fleet_get_list(c, o, "signing_keys", 1, SP_SIGNED_KEYS_MAX, true);
	size_t i;
	json_array_foreach(list, i, v)
	{
		uint8_t key[32];
		get_key(c, "signing_keys", SP_KEY_SIGNING, v, key);
		if (!c->err && sp_signed_keys_add(ret, key))
			fleet_fail(c, SP_E_CONFIG, "signing_keys", "no signing key");
	}
}

static void get_controllers(struct fleet_cursor *c, const json_t *o,
			    struct sp_enrolled *e)
{
	static const char *const keys[] = {"router", "publisher", NULL};
	json_t *v,
		*list = fleet_get_list(c, o, "controllers", 1, SP_CONTROLLERS_MAX, true);
	size_t i;
	json_array_foreach(list, i, v)
	{
		struct sp_controller *to = &e->controllers[i];
		size_t mark = fleet_enter_index(c, "controllers", i);
		if (fleet_check_keys(c, v, keys)) {
			strcpy(to->router,
			       fleet_get_text(c, v, "router",
					      SP_CONTROLLER_ENDPOINT_MAX - 1, true));
			strcpy(to->publisher,
			       fleet_get_text(c, v, "publisher",
					      SP_CONTROLLER_ENDPOINT_MAX - 1, true));
		}
		fleet_leave(c, mark);
	}
	e->n_controllers = (unsigned)json_array_size(list);
}

static int parse(const void *text, size_t len, struct sp_enrolled *ret, char *why,
		 size_t cap)
{
	static const char *const keys[] = {
		"format", "name", "signing_keys", "controller_key", "controllers", NULL};
	struct fleet_cursor c = {.why = why, .cap = cap};
	json_t *o = fleet_load(&c, text, len, keys);
	if (o) {
		strcpy(ret->name,
		       fleet_get_text(&c, o, "name", SP_ENROLLED_NAME_MAX - 1, true));
		get_signing(&c, o, &ret->signing);
		if (!c.err)
			get_key(&c, "controller_key", SP_KEY_CONTROL,
				json_object_get(o, "controller_key"),
				ret->controller_key);
		get_controllers(&c, o, ret);
	}
	json_decref(o);
	return c.err;
}

int sp_enrolled_load(const char *folder, struct sp_enrolled *ret, char *why, size_t cap)
{
	struct sp_file_read opt = {.max = FILE_MAX};
	struct sp_enrolled e = {0};
	char path[4200], text[SP_FLEET_WHY_MAX];
	uint8_t *buf;
	size_t len;
	path_of(folder, path, sizeof(path));
	int err = sp_file_read(path, &opt, &buf, &len, why, cap);
	if (err == -ENOENT)
		snprintf(why, cap,
			 "%s has no fleet.json: it is not enrolled; run this program's "
			 "enroll with the token that sallyportctl enroll printed",
			 folder);
	if (err)
		return err;
	err = parse(buf, len, &e, text, sizeof(text));
	sp_file_free(buf, len);
	if (err) {
		snprintf(why, cap, "%s: %s", path, text);
		return SP_E_CONFIG;
	}
	*ret = e;
	return 0;
}

// NULL of jansson is handed on; a lack of memory shows at the end.
static json_t *to_json(const struct sp_enrolled *e)
{
	char text[SP_KEY_TEXT_MAX];
	json_t *keys = json_array(), *list = json_array();
	bool ok = true;
	for (unsigned i = 0; i < e->signing.n; i++)
		ok &= !json_array_append_new(
			keys,
			json_string(sp_key_format(SP_KEY_SIGNING, false,
						  e->signing.key[i].public_key, text)));
	for (unsigned i = 0; i < e->n_controllers; i++)
		ok &= !json_array_append_new(
			list, json_pack("{s:s,s:s}", "router", e->controllers[i].router,
					"publisher", e->controllers[i].publisher));
	sp_key_format(SP_KEY_CONTROL, false, e->controller_key, text);
	json_t *o = json_pack("{s:i,s:s,s:o,s:s,s:o}", "format", SP_FLEET_FORMAT, "name",
			      e->name, "signing_keys", keys, "controller_key", text,
			      "controllers", list);
	if (ok && o)
		return o;
	json_decref(o);
	return NULL;
}

int sp_enrolled_save(const char *folder, const struct sp_enrolled *e, char *why,
		     size_t cap)
{
	char path[4200];
	json_t *o = to_json(e);
	char *text = o ? json_dumps(o, JSON_INDENT(2)) : NULL;
	json_decref(o);
	if (!text) {
		snprintf(why, cap, "out of memory");
		return -ENOMEM;
	}
	path_of(folder, path, sizeof(path));
	int err = sp_file_create(path, text, strlen(text), 0644, why, cap);
	free(text);
	return err;
}
