#include "ctl/remote.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <curl/curl.h>

#include "ctl/io.h"
#include "lib/version.h"

#define REPLY_MAX (64u << 20)

struct reply {
	char *text;
	size_t len;
};

static size_t on_data(char *data, size_t one, size_t n, void *ctx)
{
	struct reply *r = ctx;
	(void)one; // 1
	char *text = r->len + n < REPLY_MAX ? realloc(r->text, r->len + n + 1) : NULL;
	if (!text)
		return 0;
	memcpy(text + r->len, data, n);
	r->text = text;
	r->len += n;
	text[r->len] = '\0';
	return n;
}

static const char *socket_path(const struct ctl_call *call)
{
	const char *env = getenv(CTL_SOCKET_ENV);
	if (ctl_has(call, "socket") || !env || !*env)
		return ctl_get(call, "socket");
	return env;
}

char *ctl_escape(const char *text)
{
	char *escaped = curl_easy_escape(NULL, text, 0);
	char *copy = ctl_text("%s", escaped ? escaped : "");
	curl_free(escaped);
	return copy;
}

static int exit_code(long status)
{
	switch (status) {
	case 400:
	case 422:
		return EX_DATAERR;
	case 404:
	case 410:
		return EX_NOINPUT;
	case 409:
		return CTL_EX_REFUSED;
	case 503:
		return EX_TEMPFAIL;
	case 507:
		return EX_IOERR;
	default:
		return EX_SOFTWARE;
	}
}

static int read_reply(const struct ctl_call *call, long status, const struct reply *r,
		      json_t **ret)
{
	json_t *body = json_loadb(r->text ? r->text : "", r->len, 0, NULL);
	if (status == 200 && body) {
		*ret = body;
		return 0;
	}
	const char *detail = json_string_value(json_object_get(body, "detail"));
	int code =
		detail ? ctl_fail(call, exit_code(status), "%s", detail)
		       : ctl_fail(call, EX_SOFTWARE,
				  "the controller's answer makes no sense (status %ld)",
				  status);
	json_decref(body);
	return code;
}

static const char *no_answer(const char *path)
{
	if (access(path, W_OK) && errno == EACCES)
		return "this user may not ask the controller; be root, or join the group "
		       "of its api.group";
	return "no controller answers there; start it (systemctl start "
	       "sallyport-controller), or name another by --socket or " CTL_SOCKET_ENV;
}

static int failed(const struct ctl_call *call, CURLcode err)
{
	const char *path = socket_path(call);
	if (err == CURLE_COULDNT_CONNECT)
		return ctl_fail(call, EX_UNAVAILABLE, "%s: %s", path, no_answer(path));
	if (err == CURLE_OPERATION_TIMEDOUT)
		return ctl_fail(call, EX_TEMPFAIL,
				"%s: no answer within %d s; what was asked for may still "
				"happen: sallyportctl get revisions shows",
				path, CTL_REMOTE_TIME_S);
	if (err == CURLE_GOT_NOTHING || err == CURLE_RECV_ERROR)
		return ctl_fail(call, EX_TEMPFAIL,
				"%s: the controller ended before it answered; what was "
				"asked for may have happened: sallyportctl get revisions "
				"shows",
				path);
	return ctl_fail(call, EX_UNAVAILABLE, "%s: %s", path, curl_easy_strerror(err));
}

static struct curl_slist *headers(void)
{
	// Expect: 100-continue would cost a round trip.
	struct curl_slist *list = curl_slist_append(NULL, "Expect:");
	return curl_slist_append(list, "Content-Type: application/octet-stream");
}

int ctl_ask(const struct ctl_call *call, const char *method, const char *path,
	    const void *body, size_t len, json_t **ret)
{
	struct reply reply = {0};
	long status = 0;
	CURL *c = curl_easy_init();
	struct curl_slist *list = headers();
	char *url = ctl_text("http://controller%s", path);
	if (!c || !list) {
		free(url);
		curl_easy_cleanup(c);
		curl_slist_free_all(list);
		return ctl_fail(call, EX_OSERR, "out of memory");
	}
	curl_easy_setopt(c, CURLOPT_UNIX_SOCKET_PATH, socket_path(call));
	curl_easy_setopt(c, CURLOPT_URL, url);
	curl_easy_setopt(c, CURLOPT_PROXY, "");
	curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(c, CURLOPT_TIMEOUT, (long)CTL_REMOTE_TIME_S);
	curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, method);
	curl_easy_setopt(c, CURLOPT_HTTPHEADER, list);
	curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_data);
	curl_easy_setopt(c, CURLOPT_WRITEDATA, &reply);
	if (body) {
		curl_easy_setopt(c, CURLOPT_POSTFIELDS, body);
		curl_easy_setopt(c, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)len);
	}
	CURLcode err = curl_easy_perform(c);
	curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &status);
	int code = err ? failed(call, err) : read_reply(call, status, &reply, ret);
	curl_easy_cleanup(c);
	curl_slist_free_all(list);
	free(url);
	free(reply.text);
	return code;
}

int ctl_ask_json(const struct ctl_call *call, const char *method, const char *path,
		 json_t *body, json_t **ret)
{
	char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
	json_decref(body);
	if (!text)
		return ctl_fail(call, EX_OSERR, "out of memory");
	int code = ctl_ask(call, method, path, text, strlen(text), ret);
	free(text);
	return code;
}
