// The lists of what holds no more in a worker's config: sorted when they are read, looked
// up by halves.
#include <stdlib.h>
#include <string.h>

#include "lib/fleet_json.h"
#include "lib/text.h"

static int compare_serial(const void *a, const void *b)
{
	return memcmp(a, b, SP_PASS_SERIAL_BYTES);
}

static int compare_device(const void *a, const void *b)
{
	return memcmp(a, b, SP_PASS_DEVICE_BYTES);
}

static int compare_user(const void *a, const void *b)
{
	return strcmp(((const struct sp_fleet_revoked_user *)a)->name,
		      ((const struct sp_fleet_revoked_user *)b)->name);
}

// Sorts `n` entries of `size` bytes; of equal ones the first stays. Returns how many are
// left.
static size_t sort_once(uint8_t *v, size_t n, size_t size,
			int (*compare)(const void *, const void *))
{
	size_t left = 0;
	if (n)
		qsort(v, n, size, compare);
	for (size_t i = 0; i < n; i++)
		if (!left || compare(v + (left - 1) * size, v + i * size))
			memmove(v + left++ * size, v + i * size, size);
	return left;
}

// A list of hexadecimal texts of `size` bytes each; malloc'd, NULL: absent or an error.
static uint8_t *get_hex_list(struct fleet_cursor *c, const json_t *o, const char *key,
			     size_t size, const char *what, size_t *ret_n)
{
	json_t *v, *list = fleet_get_list(c, o, key, 0, SP_FLEET_REVOKED_MAX, false);
	size_t i;
	uint8_t *bytes = list ? fleet_alloc(c, json_array_size(list), size) : NULL;
	if (!bytes)
		return NULL;
	json_array_foreach(list, i, v)
	{
		if (json_is_string(v) &&
		    !sp_hex_decode(json_string_value(v), json_string_length(v),
				   bytes + i * size, size))
			continue;
		size_t mark = fleet_enter_index(c, key, i);
		fleet_fail(c, SP_E_CONFIG, NULL, "want %s, %zu hexadecimal digits", what,
			   2 * size);
		fleet_leave(c, mark);
		break;
	}
	*ret_n = i;
	return bytes;
}

static void get_user(struct fleet_cursor *c, const json_t *v,
		     struct sp_fleet_revoked_user *ret)
{
	static const char *const keys[] = {"name", "before", NULL};
	if (!fleet_check_keys(c, v, keys))
		return;
	strcpy(ret->name, fleet_get_text(c, v, "name", SP_PASS_USER_MAX, true));
	ret->before_s = fleet_get_uint(c, v, "before", INT64_MAX, true);
}

// Of a user that stands there twice the later time holds.
static int compare_user_late(const void *a, const void *b)
{
	const struct sp_fleet_revoked_user *x = a, *y = b;
	int d = strcmp(x->name, y->name);
	return d ? d : (x->before_s < y->before_s) - (x->before_s > y->before_s);
}

static void get_users(struct fleet_cursor *c, const json_t *o, struct sp_fleet_worker *f)
{
	json_t *v, *list = fleet_get_list(c, o, "revoked_users", 0, SP_FLEET_REVOKED_MAX,
					  false);
	size_t i, n = json_array_size(list), left = 0;
	if (!list || !(f->revoked_users = fleet_alloc(c, n, sizeof(*f->revoked_users))))
		return;
	json_array_foreach(list, i, v)
	{
		size_t mark = fleet_enter_index(c, "revoked_users", i);
		get_user(c, v, &f->revoked_users[i]);
		fleet_leave(c, mark);
	}
	if (n)
		qsort(f->revoked_users, n, sizeof(*f->revoked_users), compare_user_late);
	for (i = 0; i < n; i++)
		if (!left ||
		    compare_user(&f->revoked_users[left - 1], &f->revoked_users[i]))
			f->revoked_users[left++] = f->revoked_users[i];
	f->n_revoked_users = left;
}

void fleet_get_revoked(struct fleet_cursor *c, const json_t *o, struct sp_fleet_worker *f)
{
	f->revoked = (void *)get_hex_list(c, o, "revoked", SP_PASS_SERIAL_BYTES,
					  "the serial of a pass", &f->n_revoked);
	f->n_revoked = sort_once((uint8_t *)f->revoked, f->n_revoked,
				 SP_PASS_SERIAL_BYTES, compare_serial);
	f->revoked_devices =
		(void *)get_hex_list(c, o, "revoked_devices", SP_PASS_DEVICE_BYTES,
				     "the public key of a device", &f->n_revoked_devices);
	f->n_revoked_devices =
		sort_once((uint8_t *)f->revoked_devices, f->n_revoked_devices,
			  SP_PASS_DEVICE_BYTES, compare_device);
	get_users(c, o, f);
}

bool sp_fleet_is_revoked(const struct sp_fleet_worker *f,
			 const struct sp_fleet_holder *who)
{
	struct sp_fleet_revoked_user key, *u;
	if (f->n_revoked && bsearch(who->serial, f->revoked, f->n_revoked,
				    sizeof(*f->revoked), compare_serial))
		return true;
	if (f->n_revoked_devices &&
	    bsearch(who->device, f->revoked_devices, f->n_revoked_devices,
		    sizeof(*f->revoked_devices), compare_device))
		return true;
	if (!f->n_revoked_users || strlen(who->user) >= sizeof(key.name))
		return false;
	strcpy(key.name, who->user);
	u = bsearch(&key, f->revoked_users, f->n_revoked_users, sizeof(key),
		    compare_user);
	return u && who->not_before_s < u->before_s;
}
