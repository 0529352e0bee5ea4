#include "lib/addr.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool is_name_byte(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       (c >= '0' && c <= '9') || c == '-' || c == '_';
}

bool sp_name_is_valid(const char *name, size_t len)
{
	size_t label = 0;
	if (len && name[len - 1] == '.')
		len--;
	if (len == 0 || len > SP_NAME_MAX)
		return false;
	for (size_t i = 0; i < len; i++) {
		if (name[i] == '.') {
			if (label == 0)
				return false;
			label = 0;
		} else if (!is_name_byte(name[i]) || ++label > 63) {
			return false;
		}
	}
	return label > 0;
}

int sp_target_set_host(struct sp_target *ret, const char *host, size_t len, uint16_t port)
{
	struct sp_target t = {.port = port};
	char text[SP_NAME_MAX + 2];
	if (len >= sizeof(text) || memchr(host, '\0', len))
		return SP_E_MALFORMED;
	memcpy(text, host, len);
	text[len] = '\0';
	if (inet_pton(AF_INET, text, t.v4) == 1) {
		t.kind = SP_TARGET_IPV4;
	} else if (inet_pton(AF_INET6, text, t.v6) == 1) {
		t.kind = SP_TARGET_IPV6;
	} else {
		if (!sp_name_is_valid(text, len))
			return SP_E_MALFORMED;
		if (text[len - 1] == '.')
			text[--len] = '\0';
		// All digits and dots is an address with a mistake, not a name.
		if (strspn(text, "0123456789.") == len)
			return SP_E_MALFORMED;
		t.kind = SP_TARGET_NAME;
		memcpy(t.name, text, len + 1);
	}
	*ret = t;
	return 0;
}

static void get_name(struct sp_reader *r, struct sp_target *t)
{
	size_t len = sp_get_u8(r);
	const char *p = (const char *)sp_get_bytes(r, len);

	if (p && (sp_target_set_host(t, p, len, 0) || t->kind != SP_TARGET_NAME))
		r->err = SP_E_MALFORMED;
}

void sp_target_get(struct sp_reader *r, struct sp_target *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->kind = sp_get_u8(r);
	switch (ret->kind) {
	case SP_TARGET_IPV4:
		sp_get_copy(r, ret->v4, 4);
		break;
	case SP_TARGET_IPV6:
		sp_get_copy(r, ret->v6, 16);
		break;
	case SP_TARGET_NAME:
		get_name(r, ret);
		break;
	default:
		if (!r->err)
			r->err = SP_E_MALFORMED;
	}
	ret->port = sp_get_u16(r);
}

void sp_target_put(struct sp_writer *w, const struct sp_target *t)
{
	sp_put_u8(w, t->kind);
	if (t->kind == SP_TARGET_IPV4) {
		sp_put_bytes(w, t->v4, 4);
	} else if (t->kind == SP_TARGET_IPV6) {
		sp_put_bytes(w, t->v6, 16);
	} else {
		size_t len = strlen(t->name);
		sp_put_u8(w, (uint8_t)len);
		sp_put_bytes(w, t->name, len);
	}
	sp_put_u16(w, t->port);
}

int sp_target_parse(const char *text, struct sp_target *ret)
{
	const char *host = text, *colon = strrchr(text, ':');
	if (!colon)
		return SP_E_MALFORMED;
	size_t len = (size_t)(colon - text);
	bool bracketed = len >= 2 && host[0] == '[' && host[len - 1] == ']';
	if (bracketed) {
		host++;
		len -= 2;
	}
	size_t digits = strspn(colon + 1, "0123456789");
	if (digits == 0 || digits > 5 || colon[1 + digits] != '\0')
		return SP_E_MALFORMED;
	unsigned long port = strtoul(colon + 1, NULL, 10);
	struct sp_target t;
	if (port > 65535 || sp_target_set_host(&t, host, len, (uint16_t)port))
		return SP_E_MALFORMED;
	if (bracketed != (t.kind == SP_TARGET_IPV6))
		return SP_E_MALFORMED;
	*ret = t;
	return 0;
}

char *sp_target_format(const struct sp_target *t, char *buf, size_t cap)
{
	char ip[INET6_ADDRSTRLEN];
	if (t->kind == SP_TARGET_IPV4)
		snprintf(buf, cap, "%s:%u", inet_ntop(AF_INET, t->v4, ip, sizeof(ip)),
			 t->port);
	else if (t->kind == SP_TARGET_IPV6)
		snprintf(buf, cap, "[%s]:%u", inet_ntop(AF_INET6, t->v6, ip, sizeof(ip)),
			 t->port);
	else
		snprintf(buf, cap, "%s:%u", t->name, t->port);
	return buf;
}

int sp_target_to_sockaddr(const struct sp_target *t, struct sockaddr_storage *ret,
			  socklen_t *ret_len)
{
	struct sockaddr_storage ss = {0};
	if (t->kind == SP_TARGET_IPV4) {
		struct sockaddr_in *in = (struct sockaddr_in *)&ss;
		in->sin_family = AF_INET;
		in->sin_port = htons(t->port);
		memcpy(&in->sin_addr, t->v4, 4);
		*ret_len = sizeof(*in);
	} else if (t->kind == SP_TARGET_IPV6) {
		struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&ss;
		in6->sin6_family = AF_INET6;
		in6->sin6_port = htons(t->port);
		memcpy(&in6->sin6_addr, t->v6, 16);
		*ret_len = sizeof(*in6);
	} else {
		return SP_E_MALFORMED;
	}
	*ret = ss;
	return 0;
}

void sp_target_from_sockaddr(const struct sockaddr *sa, struct sp_target *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->kind = SP_TARGET_IPV4;
	if (sa->sa_family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)sa;
		memcpy(ret->v4, &in->sin_addr, 4);
		ret->port = ntohs(in->sin_port);
	} else if (sa->sa_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)sa;
		ret->port = ntohs(in6->sin6_port);
		if (IN6_IS_ADDR_V4MAPPED(&in6->sin6_addr)) {
			memcpy(ret->v4, in6->sin6_addr.s6_addr + 12, 4);
		} else {
			ret->kind = SP_TARGET_IPV6;
			memcpy(ret->v6, &in6->sin6_addr, 16);
		}
	}
}

bool sp_target_equal(const struct sp_target *a, const struct sp_target *b)
{
	if (a->kind != b->kind || a->port != b->port)
		return false;
	if (a->kind == SP_TARGET_IPV4)
		return memcmp(a->v4, b->v4, 4) == 0;
	if (a->kind == SP_TARGET_IPV6)
		return memcmp(a->v6, b->v6, 16) == 0;
	return strcmp(a->name, b->name) == 0;
}
