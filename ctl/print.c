// print: any file of ours, recognised by how it begins.
#include <stdlib.h>
#include <string.h>

#include "ctl/cert.h"
#include "ctl/describe.h"
#include "ctl/io.h"
#include "ctl/out.h"
#include "ctl/sealed.h"
#include "ctl/verbs.h"
#include "lib/file.h"
#include "lib/text.h"

static int print_json(struct ctl_call *call, const void *json, size_t len)
{
	struct ctl_config c = {0};
	int code = ctl_config_parse_file(call, call->args[0], 0, json, len, &c);
	if (code)
		return code;
	char *text = ctl_config_print(&c);
	code = text ? ctl_out(call, ctl_describe_config(c.kind, NULL, text, false))
		    : ctl_fail(call, EX_OSERR, "out of memory");
	free(text);
	ctl_config_done(&c);
	return code;
}

static int print_certificate(struct ctl_call *call)
{
	struct ctl_cert_info info;
	char pin[65];
	if (ctl_cert_read(call->args[0], &info))
		return ctl_fail(call, EX_DATAERR, "%s: the certificate is damaged",
				call->args[0]);
	sp_hex_encode(info.pin, sizeof(info.pin), pin, sizeof(pin));
	return ctl_out(call, json_pack("{s:s,s:s,s:s,s:I,s:I}", "type", "certificate",
				       "subject", info.subject, "pin_sha256", pin,
				       "not_before", (json_int_t)info.not_before_s,
				       "expires", (json_int_t)info.expires_s));
}

static bool begins(const uint8_t *buf, size_t len, const char *with)
{
	size_t n = strlen(with);
	return len >= n && !memcmp(buf, with, n);
}

int ctl_print(struct ctl_call *call)
{
	uint8_t *buf;
	size_t len, at = 0;
	int code = ctl_read(call, call->args[0], false, &buf, &len);
	if (code)
		return code;
	while (at < len && strchr(" \t\r\n", buf[at]) && buf[at])
		at++;
	struct sp_signed_view view;
	bool sealed = sp_signed_peek(buf, len, &view) == 0;
	const uint8_t *p = buf + at;
	size_t n = len - at;
	if (sealed || begins(p, n, "sallyport-signed ") || begins(p, n, "SPB1"))
		code = sealed && view.kind == SP_SIGNED_PASS ? ctl_pass_show(call)
							     : ctl_config_show(call);
	else if (begins(p, n, "sallyport-"))
		code = ctl_keys_show(call);
	else if (begins(p, n, "{"))
		code = print_json(call, buf, len);
	else if (begins(p, n, "-----BEGIN CERTIFICATE"))
		code = print_certificate(call);
	else
		code = ctl_fail(
			call, EX_DATAERR,
			"%s: none of our keys, passes, configs or certificates; a "
			"YAML config is shown by its program's --dump-config",
			call->args[0]);
	sp_file_free(buf, len);
	return code;
}
