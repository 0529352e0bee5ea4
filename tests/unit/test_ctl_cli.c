#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ctl/cli.h"
#include "ctl/verbs.h"

static int ran; // the verb's mark of the last run

static int run_first(struct ctl_call *call)
{
	(void)call;
	ran = 1;
	return 0;
}

static int run_second(struct ctl_call *call)
{
	(void)call;
	ran = 2;
	return 66;
}

static const struct ctl_option options[] = {
	{.name = "output", .letter = 'o', .arg = "FILE", .required = true, .help = "h"},
	{.name = "many", .arg = "N", .def = "7", .repeat = true, .help = "h"},
	{.name = "force", .help = "h"},
	{0},
};
static const struct ctl_verb verbs[] = {
	{"thing make", "thing mk", "A B", 1, 2, "Makes", options, run_first},
	{"show", NULL, "FILE", 1, 1, "Shows", NULL, run_second},
	{0},
};
static const struct ctl_program program = {"tool", verbs, "the end\n"};

struct world {
	struct ctl_call call;
	char *out, *err;
	size_t out_len, err_len;
	int code;
};

// Runs a command line: words apart by blanks.
static void run(struct world *w, const struct ctl_program *p, const char *line)
{
	static char text[512];
	char *argv[32] = {(char *)(uintptr_t) "tool"}, *rest = NULL;
	int argc = 1;
	snprintf(text, sizeof(text), "%s", line);
	for (char *s = strtok_r(text, " ", &rest); s; s = strtok_r(NULL, " ", &rest))
		argv[argc++] = s;
	memset(w, 0, sizeof(*w));
	ran = 0;
	w->call.program = p;
	w->call.out = open_memstream(&w->out, &w->out_len);
	w->call.err = open_memstream(&w->err, &w->err_len);
	w->code = ctl_cli_main(&w->call, argc, argv);
	fclose(w->call.out);
	fclose(w->call.err);
}

static void done(struct world *w)
{
	free(w->out);
	free(w->err);
}

static void options_and_arguments_may_be_mixed(void **state)
{
	static const char *const lines[] = {
		"thing make x -o f --many 1 y --many=2 --force",
		"thing mk --many 1 x y -of --force --many 2",
		"thing make --force --output=f --many 1 --many 2 -- x y",
	};
	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct world w;
		size_t at = 0;
		run(&w, &program, lines[i]);
		assert_int_equal(w.code, 0);
		assert_int_equal(ran, 1);
		assert_string_equal(ctl_get(&w.call, "output"), "f");
		assert_string_equal(ctl_next(&w.call, "many", &at), "1");
		assert_string_equal(ctl_next(&w.call, "many", &at), "2");
		assert_null(ctl_next(&w.call, "many", &at));
		assert_true(ctl_has(&w.call, "force"));
		assert_int_equal(w.call.n_args, 2);
		done(&w);
	}
}

static void what_is_not_given_has_its_default(void **state)
{
	struct world w;
	(void)state;
	run(&w, &program, "thing make x -o f");
	assert_int_equal(w.code, 0);
	assert_string_equal(ctl_get(&w.call, "many"), "7");
	assert_false(ctl_has(&w.call, "many"));
	done(&w);
}

static void a_dash_alone_and_what_follows_two_are_arguments(void **state)
{
	struct world w;
	(void)state;
	run(&w, &program, "thing make -o f - -- --force");
	assert_int_equal(w.code, 0);
	assert_string_equal(w.call.args[0], "-");
	assert_string_equal(w.call.args[1], "--force");
	assert_false(ctl_has(&w.call, "force"));
	done(&w);
}

static void the_exit_code_is_the_verbs(void **state)
{
	struct world w;
	(void)state;
	run(&w, &program, "show x");
	assert_int_equal(w.code, 66);
	assert_int_equal(ran, 2);
	done(&w);
}

static void what_is_wrong_is_said_and_nothing_is_run(void **state)
{
	static const char *const cases[][2] = {
		{"", "which verb?"},
		{"shwo x", "unknown verb \"shwo\"; is it show?"},
		{"thing", "thing what?"},
		{"thing mkae", "unknown verb \"thing mkae\"; is it thing make?"},
		{"other", "unknown verb \"other\"; tool --help"},
		{"thing make x", "--output FILE is missing"},
		{"thing make -o f", "A B is missing"},
		{"show a b", "\"b\" is too much"},
		{"show", "FILE is missing"},
		{"show --jsno x", "unknown option --jsno; is it --json?"},
		{"thing make x -o f --ouptut=g", "is it --output?"},
		{"thing make x -o f --wild",
		 "unknown option --wild; tool thing make --help"},
		{"thing make x -o", "--output needs a value: FILE"},
		{"thing make x -o f -o g", "--output may be given once only"},
		{"thing make x -o f --force=1", "--force takes no value"},
		{"show -z x", "unknown option -z"},
		{"--force show x", "--force stands behind a verb"},
		{"--version show", "--version stands behind a verb"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct world w;
		run(&w, &program, cases[i][0]);
		if (w.code != EX_USAGE || ran || !strstr(w.err, cases[i][1]) || w.out_len)
			fail_msg("\"%s\": code %d, ran %d, \"%s\" does not say \"%s\"",
				 cases[i][0], w.code, ran, w.err, cases[i][1]);
		done(&w);
	}
}

static void errors_are_json_on_request(void **state)
{
	static const char *const lines[] = {"--json nothing", "nothing --json",
					    "show --json"};
	(void)state;
	for (size_t i = 0; i < 3; i++) {
		struct world w;
		run(&w, &program, lines[i]);
		assert_int_equal(w.code, EX_USAGE);
		assert_int_equal(strncmp(w.err, "{\"error\":\"", 10), 0);
		assert_non_null(strstr(w.err, ",\"exit\":64}\n"));
		done(&w);
	}
}

static void help_names_every_verb_and_option(void **state)
{
	static const char *const lines[] = {"--help", "-h"};
	struct world w;
	(void)state;
	for (size_t i = 0; i < 2; i++) {
		run(&w, &program, lines[i]);
		assert_int_equal(w.code, 0);
		assert_non_null(strstr(w.out, "thing make A B"));
		assert_non_null(strstr(w.out, "show FILE"));
		assert_non_null(strstr(w.out, "the end\n"));
		done(&w);
	}
	run(&w, &program, "thing --help");
	assert_int_equal(w.code, 0);
	assert_non_null(strstr(w.out, "thing make"));
	assert_null(strstr(w.out, "show"));
	done(&w);
	run(&w, &program, "thing make --help");
	assert_int_equal(w.code, 0);
	assert_int_equal(ran, 0);
	assert_non_null(
		strstr(w.out, "usage: tool thing make --output FILE [options] A"));
	assert_non_null(strstr(w.out, "--many N..."));
	assert_non_null(strstr(w.out, "(7)"));
	assert_non_null(strstr(w.out, "--json"));
	done(&w);
}

static void the_table_of_sallyportctl_holds_together(void **state)
{
	(void)state;
	for (const struct ctl_verb *v = ctl_program.verbs; v->name; v++) {
		unsigned n = 0;
		assert_non_null(v->run);
		assert_true(v->min_args <= v->max_args);
		assert_int_equal(*v->args == '\0', v->max_args == 0);
		assert_int_not_equal(v->help[strlen(v->help) - 1], '.');
		for (const struct ctl_option *o = v->options; o && o->name; o++, n++) {
			assert_non_null(o->help);
			assert_false(o->required && o->def);
			assert_false(!o->arg && (o->required || o->def || o->repeat));
			for (const struct ctl_option *p = o + 1; p->name; p++)
				assert_string_not_equal(o->name, p->name);
		}
		assert_true(n <= CTL_OPTIONS_MAX);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(options_and_arguments_may_be_mixed),
		cmocka_unit_test(what_is_not_given_has_its_default),
		cmocka_unit_test(a_dash_alone_and_what_follows_two_are_arguments),
		cmocka_unit_test(the_exit_code_is_the_verbs),
		cmocka_unit_test(what_is_wrong_is_said_and_nothing_is_run),
		cmocka_unit_test(errors_are_json_on_request),
		cmocka_unit_test(help_names_every_verb_and_option),
		cmocka_unit_test(the_table_of_sallyportctl_holds_together),
	};
	return cmocka_run_group_tests_name("ctl_cli", tests, NULL, NULL);
}
