// Config files by table: values, errors with line and remedy, what is printed.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/fuzz/conf_sample.h"

#define CERT "tls: {certificate: c.pem}\n"

static struct sp_conf_errors errs;

static struct sample *parse(const char *text)
{
	return sp_conf_parse(&sample_table, "w.yaml", "/etc/sp", text, strlen(text),
			     &errs);
}

static struct sample *must_parse(const char *text)
{
	struct sample *s = parse(text);
	if (!s)
		sp_conf_errors_print(&errs, stderr);
	assert_non_null(s);
	return s;
}

static void expect_error(const char *text, const char *want)
{
	assert_null(parse(text));
	assert_int_equal(errs.n, 1);
	assert_string_equal(errs.text[0], want);
}

static void what_the_file_leaves_out_has_its_default(void **state)
{
	struct sample *s = must_parse(CERT);

	(void)state;
	assert_false(s->verbose);
	assert_int_equal(s->streams, 1000);
	assert_int_equal(s->idle_ms, 600000);
	assert_int_equal(s->memory_bytes, 64 << 20);
	assert_null(s->label);
	assert_string_equal(s->certificate, "/etc/sp/c.pem");
	assert_string_equal(s->key, "/etc/sp/key.pem");
	assert_int_equal(s->admin.port, 9100);
	assert_int_equal(s->level, 1);
	assert_int_equal(s->groups.n, 2);
	assert_string_equal(s->groups.v[1], "paid");
	assert_int_equal(s->resolvers.n, 0);
	assert_int_equal(s->exits.n, 0);
	sp_conf_free(&sample_table, s);
}

static void every_type_is_read(void **state)
{
	struct sample *s =
		must_parse("verbose: true\n"
			   "limits:\n"
			   "  streams: 7\n"
			   "  idle: 25h\n"
			   "limits.memory: 3G\n"
			   "label: \"a \\\" b\"\n"
			   "tls:\n"
			   "  certificate: /c.pem\n"
			   "  key: k/k.pem\n"
			   "admin:\n"
			   "log: {level: error}\n"
			   "groups: []\n"
			   "resolvers: [\"[2001:db8::1]:53\", ns.example:5353]\n"
			   "exits:\n"
			   "- {name: a, address: \"1.2.3.4:443\"}\n"
			   "- name: b\n"
			   "  carrier: tcp\n"
			   "  address: b.example:80\n"
			   "  weight: -3\n");
	const struct sample_exit *e = s->exits.v;

	(void)state;
	assert_true(s->verbose);
	assert_int_equal(s->streams, 7);
	assert_int_equal(s->idle_ms, 25 * 3600000);
	assert_int_equal(s->memory_bytes, 3LL << 30);
	assert_string_equal(s->label, "a \" b");
	assert_string_equal(s->certificate, "/c.pem");
	assert_string_equal(s->key, "/etc/sp/k/k.pem");
	assert_int_equal(s->level, 3);
	assert_int_equal(s->groups.n, 0);
	assert_int_equal(s->resolvers.n, 2);
	assert_int_equal(s->resolvers.v[0].kind, SP_TARGET_IPV6);
	assert_string_equal(s->resolvers.v[1].name, "ns.example");
	assert_int_equal(s->exits.n, 2);
	assert_int_equal(e[0].carrier, 0);
	assert_int_equal(e[0].weight, 1);
	assert_string_equal(e[1].name, "b");
	assert_int_equal(e[1].carrier, 1);
	assert_int_equal(e[1].weight, -3);
	sp_conf_free(&sample_table, s);
}

static void an_unknown_key_is_refused_with_its_line_and_the_nearest_name(void **state)
{
	(void)state;
	expect_error(CERT "limits:\n  steams: 5\n",
		     "w.yaml:3: limits.steams: unknown key; did you mean "
		     "limits.streams?");
	expect_error(CERT "\ncertificate: x\n",
		     "w.yaml:3: certificate: unknown key; did you mean tls.certificate?");
	expect_error(CERT "quark: {a: [1, {b: 2}]}\n",
		     "w.yaml:2: quark: unknown key; remove it");
	expect_error(CERT "limit: {streams: 5}\n",
		     "w.yaml:2: limit: unknown key; did you mean limits?");
	expect_error(CERT "exits: [{name: a, address: \"h:1\", wieght: 2}]\n",
		     "w.yaml:2: exits[0].wieght: unknown key; did you mean weight?");
}

static void a_repeated_key_is_refused_with_both_lines(void **state)
{
	(void)state;
	expect_error(
		CERT "verbose: true\nverbose: true\n",
		"w.yaml:3: verbose: stands in line 2 already; remove one of the two");
	expect_error(CERT "tls.certificate: d.pem\n",
		     "w.yaml:2: tls.certificate: stands in line 1 already; remove one of "
		     "the two");
}

static void a_wrong_value_is_refused_with_what_is_expected(void **state)
{
	(void)state;
	expect_error(CERT "verbose: yes\n",
		     "w.yaml:2: verbose: \"yes\" is neither; give true or false");
	expect_error(CERT "limits: {streams: many}\n",
		     "w.yaml:2: limits.streams: \"many\" is not a number; give a whole "
		     "number from 1 to 100000");
	expect_error(CERT "limits: {streams: 5s}\n",
		     "w.yaml:2: limits.streams: \"5s\" is not a whole number; give a "
		     "whole number from 1 to 100000");
	expect_error(CERT "limits: {streams: 0}\n",
		     "w.yaml:2: limits.streams: \"0\" is too small; give a whole number "
		     "from 1 to 100000");
	expect_error(CERT "limits: {streams: 99999999999999999999}\n",
		     "w.yaml:2: limits.streams: \"99999999999999999999\" is too large; "
		     "give a whole number from 1 to 100000");
	expect_error(CERT "limits:\n  idle: 10\n",
		     "w.yaml:3: limits.idle: \"10\" has no unit; give a duration such as "
		     "500ms, 10s, 5m or 25h from 1s to 25h");
	expect_error(CERT "limits: {memory: 9999999999G}\n",
		     "w.yaml:2: limits.memory: \"9999999999G\" is too large; give a size "
		     "in bytes such as 1500, 64K or 4M");
	expect_error(CERT "limits: {memory: 5Q}\n",
		     "w.yaml:2: limits.memory: \"5Q\" has an unknown unit; give a size "
		     "in bytes such as 1500, 64K or 4M");
	expect_error(CERT "log: {level: loud}\n",
		     "w.yaml:2: log.level: \"loud\" is not known here; give one of "
		     "debug, info, warn, error");
	expect_error(CERT "admin: {listen: localhost}\n",
		     "w.yaml:2: admin.listen: \"localhost\" is not an address with a "
		     "port; give an address such as 192.0.2.1:443, [2001:db8::1]:443 or "
		     "host.example:443");
	expect_error("tls: {certificate: \"\"}\n",
		     "w.yaml:1: tls.certificate: \"\" is empty; give a path");
	expect_error(CERT "label: 123456789012345678901234567890123\n",
		     "w.yaml:2: label: \"123456789012345678901234567890123\" is too "
		     "long; give text");
	expect_error(CERT "label: \"a\\x01b\"\n",
		     "w.yaml:2: label: \"a\" is followed by a control character; give "
		     "text");
	expect_error(CERT "label: \"a\\0b\"\n",
		     "w.yaml:2: label: \"a\" is followed by a NUL byte; give text");
}

static void a_value_of_a_wrong_form_is_refused(void **state)
{
	(void)state;
	expect_error(CERT "verbose: [true]\n",
		     "w.yaml:2: verbose: a list is not what belongs here; give true or "
		     "false");
	expect_error(CERT "label: {a: b}\n",
		     "w.yaml:2: label: a group of keys is not what belongs here; give "
		     "text");
	expect_error(CERT "groups: free\n",
		     "w.yaml:2: groups: a single value is not what belongs here; give a "
		     "list of texts, [a, b]");
	expect_error(CERT "verbose:\n",
		     "w.yaml:2: verbose: has no value; give true or false, or remove the "
		     "line");
	expect_error(CERT "limits: 5\n", "w.yaml:2: limits: is a group; write its keys "
					 "below it, indented");
	expect_error(CERT "exits: [a]\n",
		     "w.yaml:2: exits: an entry of a wrong form; give a list of entries, "
		     "each with keys of its own");
	expect_error(CERT "groups: [a, [b]]\n",
		     "w.yaml:2: groups: an entry of a wrong form; give a list of texts, "
		     "[a, b]");
	expect_error(CERT "groups: [a, b, c, d, e]\n",
		     "w.yaml:2: groups: 5 entries; at most 4 are possible");
	expect_error("- a\n", "w.yaml:1: a config file consists of lines `key: value`");
	expect_error("just text", "w.yaml:1: a config file consists of lines `key: "
				  "value`");
	expect_error(CERT "[a]: b\n", "w.yaml:2: a key must be a word");
}

static void a_missing_required_key_is_named(void **state)
{
	(void)state;
	expect_error("", "w.yaml:1: tls.certificate: is missing; add it: PEM file with "
			 "the chain");
	expect_error("# nothing\n", "w.yaml:1: tls.certificate: is missing; add it: PEM "
				    "file with the chain");
	expect_error(CERT "exits:\n- {name: a, address: \"h:1\"}\n- {name: b}\n",
		     "w.yaml:4: exits[1].address: is missing; add it: where it listens");
}

static void anchors_aliases_tags_and_second_documents_are_refused(void **state)
{
	(void)state;
	expect_error(CERT "label: &x y\n",
		     "w.yaml:2: anchors (&name) are not known here; remove it, or put "
		     "the value in quotes");
	expect_error(CERT "label: *x\n", "w.yaml:2: aliases (*name) are not known here; "
					 "write the value out, or put it in quotes");
	expect_error(CERT "label: !!str 5\n",
		     "w.yaml:2: tags (!name) are not known here; remove it, or put the "
		     "value in quotes");
	expect_error(CERT "---\n" CERT, "w.yaml:2: a second document begins here; a "
					"config file is one");
}

static void broken_yaml_is_refused_with_its_line(void **state)
{
	(void)state;
	assert_null(parse(CERT "groups: [a\nverbose: true\n"));
	assert_int_equal(errs.n, 1);
	assert_memory_equal(errs.text[0], "w.yaml:3: not YAML: ", 20);
	assert_null(parse(CERT "\tverbose: true\n"));
	assert_memory_equal(errs.text[0], "w.yaml:2: not YAML: ", 20);
	assert_null(parse("label: \xff\xfe\n"));
	assert_memory_equal(errs.text[0], "w.yaml: not YAML: ", 18);
}

static void several_errors_are_told_at_once_and_the_rest_counted(void **state)
{
	char text[4096] = "verbose: 1\nlimits: {streams: 0, idle: 1}\n";

	(void)state;
	assert_null(parse(text));
	assert_int_equal(errs.n, 4); // and the certificate
	for (unsigned i = 0; i < 30; i++)
		strcat(text, "xyzzy: 1\n");
	assert_null(parse(text));
	assert_int_equal(errs.n, 34);
	char *out;
	size_t len, lines = 0;
	FILE *f = open_memstream(&out, &len);
	sp_conf_errors_print(&errs, f);
	fclose(f);
	for (char *p = out; (p = strchr(p, '\n')); p++)
		lines++;
	assert_int_equal(lines, SP_CONF_ERRORS_MAX + 1);
	assert_non_null(strstr(out, "and 14 more\n"));
	free(out);
}

static void hostile_files_end_quickly(void **state)
{
	static const char *const pieces[] = {"[",    "{",    "- ",  "? ", "a: [",
					     "{a: ", "x:\n", "&a ", "\"", "|\n "};
	size_t size = SP_CONF_FILE_MAX;
	char *text = malloc(size + 2);

	(void)state;
	alarm(60);
	for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
		size_t n = strlen(pieces[i]);
		for (size_t at = 0; at + n <= size; at += n)
			memcpy(text + at, pieces[i], n);
		assert_null(sp_conf_parse(&sample_table, "w", NULL, text, size / n * n,
					  &errs));
		assert_true(errs.n > 0);
	}
	memset(text, '#', size + 1);
	assert_null(sp_conf_parse(&sample_table, "w", NULL, text, size + 1, &errs));
	assert_string_equal(errs.text[0], "w: longer than the limit of 1048576 bytes");
	alarm(0);
	free(text);
}

static void the_check_of_the_table_has_its_say(void **state)
{
	(void)state;
	expect_error(CERT "label: impossible\n",
		     "w.yaml:2: label: \"impossible\" is not possible; choose another");
}

static const char *place(const char *text, const char *why)
{
	static char ret[200];
	char path[] = "/tmp/sp-test-conf-XXXXXX";
	int fd = mkstemp(path);
	assert_true(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
	const char *at = sp_conf_place(&sample_table, path, why, ret, sizeof(ret));
	unlink(path);
	assert_memory_equal(at, path, strlen(path));
	return at + strlen(path);
}

static void what_shows_later_is_told_with_the_line_of_its_key(void **state)
{
	(void)state;
	const char *why = "tls.certificate: c.pem: No such file";
	assert_string_equal(place("\n" CERT, why),
			    ":2: tls.certificate: c.pem: No such file");
	assert_string_equal(place("tls:\n  # here\n  certificate: c.pem\n", why),
			    ":3: tls.certificate: c.pem: No such file");
	// A default, no key, and a file that has changed meanwhile.
	assert_string_equal(place(CERT, "label: taken"), ": label: taken");
	assert_string_equal(place(CERT, "no memory"), ": no memory");
	assert_string_equal(place("tls: [\n", why),
			    ": tls.certificate: c.pem: No such file");
}

static char *printed(int (*print)(const struct sp_conf_table *, FILE *))
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);
	assert_int_equal(print(&sample_table, f), 0);
	fclose(f);
	return text;
}

static void the_default_file_loads_and_gives_the_defaults(void **state)
{
	char *text = printed(sp_conf_write_default);
	struct sample *s = must_parse(text), *plain = must_parse(CERT);
	const struct sp_conf_key *changed[2];

	(void)state;
	assert_int_equal(sp_conf_diff(&sample_table, s, plain, false, changed, 2), 1);
	assert_string_equal(changed[0]->name, "tls.certificate");
	assert_non_null(strstr(text, "  #idle: 10m\n"));
	assert_non_null(strstr(text, "#groups: [\"free\", \"paid\"]\n"));
	sp_conf_free(&sample_table, s);
	sp_conf_free(&sample_table, plain);
	free(text);
}

// Each commented key, once uncommented, must load too.
static void the_default_file_loads_with_every_line_uncommented(void **state)
{
	char *text = printed(sp_conf_write_default), *to = text;

	(void)state;
	for (const char *p = text; *p; p++)
		if (*p != '#' || p[1] == ' ')
			*to++ = *p;
	*to = '\0';
	assert_non_null(strstr(text, "\nresolvers: [\"192.0.2.53:53\"]"));
	struct sample *s = must_parse(text);
	assert_int_equal(s->exits.n, 1);
	sp_conf_free(&sample_table, s);
	free(text);
}

static char *dumped(const struct sample *s)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);
	assert_int_equal(sp_conf_dump(&sample_table, s, f), 0);
	fclose(f);
	return text;
}

static void a_dump_loads_to_the_same_config(void **state)
{
	static const char *const texts[] = {
		CERT,
		CERT "label: \"quote \\\" and \\\\ # : \xc3\xa4\"\nlimits: {idle: 90s, "
		     "memory: 1025}\n",
		CERT "exits: [{name: a, address: \"[::1]:1\"}, {name: b, weight: 0, "
		     "address: \"h:2\"}]\n"
		     "resolvers: [\"1.1.1.1:53\"]\ngroups: [\"\", x]\n",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		struct sample *s = must_parse(texts[i]);
		char *text = dumped(s);
		struct sample *again = must_parse(text);
		assert_int_equal(sp_conf_diff(&sample_table, s, again, false, NULL, 0),
				 0);
		sp_conf_free(&sample_table, s);
		sp_conf_free(&sample_table, again);
		free(text);
	}
}

static void a_diff_tells_changes_that_need_a_restart_from_the_others(void **state)
{
	struct sample *a = must_parse(CERT);
	struct sample *b = must_parse(CERT "verbose: true\nlimits: {streams: 5}\n"
					   "exits: [{name: a, address: \"h:1\"}]\n");
	struct sample *c = must_parse(CERT "exits: [{name: b, address: \"h:1\"}]\n");
	const struct sp_conf_key *k[2];

	(void)state;
	assert_int_equal(sp_conf_diff(&sample_table, a, a, false, k, 2), 0);
	assert_int_equal(sp_conf_diff(&sample_table, a, b, false, k, 2), 3);
	assert_int_equal(sp_conf_diff(&sample_table, a, b, true, k, 2), 2);
	assert_string_equal(k[0]->name, "limits.streams");
	assert_string_equal(k[1]->name, "exits");
	assert_int_equal(sp_conf_diff(&sample_table, b, c, true, k, 2), 2);
	sp_conf_free(&sample_table, a);
	sp_conf_free(&sample_table, b);
	sp_conf_free(&sample_table, c);
}

static void a_file_is_loaded_and_its_paths_count_from_its_folder(void **state)
{
	char dir[] = "/tmp/sp-test-conf-XXXXXX", path[64], want[64];

	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/w.yaml", dir);
	snprintf(want, sizeof(want), "%s/c.pem", dir);
	FILE *f = fopen(path, "w");
	fputs(CERT, f);
	fclose(f);
	struct sample *s = sp_conf_load(&sample_table, path, &errs);
	assert_non_null(s);
	assert_string_equal(s->certificate, want);
	sp_conf_free(&sample_table, s);
	unlink(path);
	rmdir(dir);
	assert_null(sp_conf_load(&sample_table, path, &errs));
	assert_int_equal(errs.n, 1);
	assert_non_null(
		strstr(errs.text[0], "No such file or directory; make it by init"));
}

static void the_reference_has_a_line_for_every_key(void **state)
{
	char *text = NULL;
	size_t len, lines = 0;

	(void)state;
	FILE *f = open_memstream(&text, &len);
	assert_int_equal(sp_conf_write_reference(&sample_table, SP_CONF_MARKDOWN, f), 0);
	fclose(f);
	for (char *p = text; (p = strchr(p, '\n')); p++)
		lines++;
	assert_int_equal(lines, 2 + sample_table.n_keys + sample_exit_table.n_keys);
	assert_non_null(strstr(text,
			       "| `limits.idle` | duration, 1s to 25h | `10m` | yes "
			       "| how long nothing may happen |\n"));
	assert_non_null(strstr(text, "| `exits[].weight` | number, -5 to 100 | `1` |"));
	free(text);
	f = open_memstream(&text, &len);
	assert_int_equal(sp_conf_write_reference(&sample_table, SP_CONF_MDOC, f), 0);
	fclose(f);
	assert_non_null(strstr(text, ".It Ic limits.streams\nstreams of a session.\n"));
	free(text);
}

static void a_wrong_table_is_found(void **state)
{
	static const struct sp_conf_key bad[] = {
		{.name = "a", .type = SP_CONF_INT, .help = "x", .def = "x"},
		{.name = "a", .type = SP_CONF_INT, .help = "x", .min = 5, .max = 2},
		{.name = "a", .type = SP_CONF_INT, .help = "ends in a full stop."},
		{.name = "a", .type = SP_CONF_ENUM, .help = "x"},
		{.name = "a", .type = SP_CONF_INT, .help = "x", .required = true},
		{.name = "a", .type = SP_CONF_TABLES, .help = "x"},
		{.name = "", .type = SP_CONF_BOOL, .help = "x"},
	};
	char why[400] = "";

	(void)state;
	assert_int_equal(sp_conf_check_table(&sample_table, why, sizeof(why)), 0);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct sp_conf_table t = {.keys = &bad[i], .n_keys = 1};
		assert_int_equal(sp_conf_check_table(&t, why, sizeof(why)), SP_E_CONFIG);
	}
	const struct sp_conf_key twice[] = {sample_keys[0], sample_keys[0]};
	struct sp_conf_table t = {.keys = twice, .n_keys = 2};
	assert_int_equal(sp_conf_check_table(&t, why, sizeof(why)), SP_E_CONFIG);
	assert_string_equal(why, "verbose: stands twice in the table");
}

int main(void)
{
#define T(f) cmocka_unit_test(f)
	static const struct CMUnitTest tests[] = {
		T(what_the_file_leaves_out_has_its_default),
		T(every_type_is_read),
		T(an_unknown_key_is_refused_with_its_line_and_the_nearest_name),
		T(a_repeated_key_is_refused_with_both_lines),
		T(a_wrong_value_is_refused_with_what_is_expected),
		T(a_value_of_a_wrong_form_is_refused),
		T(a_missing_required_key_is_named),
		T(anchors_aliases_tags_and_second_documents_are_refused),
		T(broken_yaml_is_refused_with_its_line),
		T(several_errors_are_told_at_once_and_the_rest_counted),
		T(hostile_files_end_quickly),
		T(the_check_of_the_table_has_its_say),
		T(what_shows_later_is_told_with_the_line_of_its_key),
		T(the_default_file_loads_and_gives_the_defaults),
		T(the_default_file_loads_with_every_line_uncommented),
		T(a_dump_loads_to_the_same_config),
		T(a_diff_tells_changes_that_need_a_restart_from_the_others),
		T(a_file_is_loaded_and_its_paths_count_from_its_folder),
		T(the_reference_has_a_line_for_every_key),
		T(a_wrong_table_is_found),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
