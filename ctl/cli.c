#include "ctl/cli.h"

#include <assert.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "lib/text.h"
#include "lib/version.h"

const struct ctl_option ctl_common_options[] = {
	{.name = "json", .help = "Print JSON; errors too, on standard error"},
	{.name = "help", .letter = 'h', .help = "Print this help"},
	{0},
};

int ctl_fail(const struct ctl_call *call, int code, const char *fmt, ...)
{
	char text[1400];
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	json_t *o =
		call->json ? json_pack("{s:s,s:i}", "error", text, "exit", code) : NULL;
	char *json = o ? json_dumps(o, JSON_COMPACT) : NULL;
	if (json)
		fprintf(call->err, "%s\n", json);
	else
		fprintf(call->err, "%s: %s\n", call->program->name, text);
	free(json);
	json_decref(o);
	return code;
}

// ---- looking things up ----

static const struct ctl_option *in_list(const struct ctl_option *list, const char *name,
					size_t len, char letter)
{
	for (; list && list->name; list++)
		if (letter ? list->letter == letter
			   : strlen(list->name) == len && !memcmp(list->name, name, len))
			return list;
	return NULL;
}

static const struct ctl_option *find_option(const struct ctl_verb *verb, const char *name,
					    size_t len, char letter)
{
	const struct ctl_option *o = in_list(verb->options, name, len, letter);
	return o ? o : in_list(ctl_common_options, name, len, letter);
}

static bool is_name(const char *name, const char *first, const char *second)
{
	size_t n = strlen(first);
	if (!name || strncmp(name, first, n))
		return false;
	return second ? name[n] == ' ' && !strcmp(name + n + 1, second) : !name[n];
}

bool ctl_has_option(const struct ctl_verb *verb, const char *name)
{
	return find_option(verb, name, strlen(name), 0);
}

// The verb that the first words name; *ret_words: how many of them.
static const struct ctl_verb *find_verb(const struct ctl_program *p, int n, char **words,
					int *ret_words)
{
	for (int used = n > 1 ? 2 : 1; used > 0; used--) {
		const char *second = used == 2 ? words[1] : NULL;
		for (const struct ctl_verb *v = p->verbs; v->name; v++) {
			if (is_name(v->name, words[0], second) ||
			    is_name(v->alias, words[0], second)) {
				*ret_words = used;
				return v;
			}
		}
	}
	return NULL;
}

// Verbs "GROUP something".
static bool in_group(const struct ctl_verb *v, const char *group)
{
	size_t n = strlen(group);
	return !strncmp(v->name, group, n) && v->name[n] == ' ';
}

static bool is_group(const struct ctl_program *p, const char *word)
{
	for (const struct ctl_verb *v = p->verbs; v->name; v++)
		if (in_group(v, word))
			return true;
	return false;
}

// ---- help ----

static void print_option(const struct ctl_option *o, FILE *out)
{
	char left[64];
	snprintf(left, sizeof(left), "%c%c%s --%s%s%s%s", o->letter ? '-' : ' ',
		 o->letter ? o->letter : ' ', o->letter ? "," : " ", o->name,
		 o->arg ? " " : "", o->arg ? o->arg : "", o->repeat ? "..." : "");
	fprintf(out, "  %-27s %s", left, o->help);
	if (o->def)
		fprintf(out, " (%s)", o->def);
	fputs("\n", out);
}

static void print_verb_help(const struct ctl_program *p, const struct ctl_verb *v,
			    FILE *out)
{
	fprintf(out, "usage: %s %s", p->name, v->name);
	for (const struct ctl_option *o = v->options; o && o->name; o++)
		if (o->required)
			fprintf(out, " --%s %s", o->name, o->arg);
	fprintf(out, " [options]%s%s\n\n%s.\n\noptions:\n", *v->args ? " " : "", v->args,
		v->help);
	for (const struct ctl_option *o = v->options; o && o->name; o++)
		print_option(o, out);
	for (const struct ctl_option *o = ctl_common_options; o->name; o++)
		print_option(o, out);
}

static void print_help(const struct ctl_program *p, const char *group, FILE *out)
{
	fprintf(out, "usage: %s VERB [options] [arguments]\n\nverbs:\n", p->name);
	for (const struct ctl_verb *v = p->verbs; v->name; v++) {
		char left[64];
		if (group && !in_group(v, group))
			continue;
		snprintf(left, sizeof(left), "%s%s%s", v->name, *v->args ? " " : "",
			 v->args);
		fprintf(out, "  %-28s %s\n", left, v->help);
	}
	fprintf(out, "\n%s VERB --help: its options\n%s", p->name,
		group ? "" : p->epilogue);
}

// ---- parsing ----

static int unknown_verb(struct ctl_call *call, int n, char **words)
{
	const struct ctl_program *p = call->program;
	if (n == 0)
		return ctl_fail(call, EX_USAGE, "which verb? %s --help lists them",
				p->name);
	bool group = is_group(p, words[0]);
	for (const struct ctl_verb *v = p->verbs; v->name; v++) {
		char word[64];
		snprintf(word, sizeof(word), "%s%s%s", words[0],
			 group && n > 1 ? " " : "", group && n > 1 ? words[1] : "");
		if (sp_text_distance(word, v->name) <= 2)
			return ctl_fail(call, EX_USAGE, "unknown verb \"%s\"; is it %s?",
					word, v->name);
	}
	if (group)
		return ctl_fail(call, EX_USAGE,
				"%s what? %s %s --help lists what there is", words[0],
				p->name, words[0]);
	return ctl_fail(call, EX_USAGE, "unknown verb \"%s\"; %s --help lists them",
			words[0], p->name);
}

static int unknown_option(struct ctl_call *call, const char *text)
{
	size_t len = strcspn(text, "=");
	char word[64];
	snprintf(word, sizeof(word), "%.*s", (int)(len < 63 ? len : 63), text);
	const struct ctl_option *lists[] = {call->verb->options, ctl_common_options};
	for (size_t i = 0; i < 2; i++)
		for (const struct ctl_option *o = lists[i]; o && o->name; o++)
			if (sp_text_distance(word + 2, o->name) <= 2)
				return ctl_fail(call, EX_USAGE,
						"unknown option %s; is it --%s?", word,
						o->name);
	return ctl_fail(call, EX_USAGE, "unknown option %s; %s %s --help lists them",
			word, call->program->name, call->verb->name);
}

static int add_value(struct ctl_call *call, const struct ctl_option *o, const char *value)
{
	if (!strcmp(o->name, "json"))
		call->json = true;
	if (!strcmp(o->name, "help"))
		call->help = true;
	if (!o->repeat && ctl_has(call, o->name))
		return ctl_fail(call, EX_USAGE, "--%s may be given once only", o->name);
	if (call->n_values == CTL_VALUES_MAX)
		return ctl_fail(call, EX_USAGE, "more than %d options", CTL_VALUES_MAX);
	call->values[call->n_values].option = o;
	call->values[call->n_values++].value = value;
	return 0;
}

// One option at argv[*at], which goes on to its value if that stands apart.
static int parse_option(struct ctl_call *call, int argc, char **argv, int *at)
{
	const char *text = argv[*at], *value = NULL;
	const struct ctl_option *o;
	if (text[1] == '-') {
		size_t len = strcspn(text + 2, "=");
		o = find_option(call->verb, text + 2, len, 0);
		if (o && text[2 + len])
			value = text + 2 + len + 1;
	} else {
		o = find_option(call->verb, NULL, 0, text[1]);
		if (o && text[2])
			value = text + 2;
	}
	if (!o)
		return unknown_option(call, text);
	if (!o->arg && value)
		return ctl_fail(call, EX_USAGE, "--%s takes no value", o->name);
	if (o->arg && !value && ++*at == argc)
		return ctl_fail(call, EX_USAGE, "--%s needs a value: %s", o->name,
				o->arg);
	return add_value(call, o, o->arg && !value ? argv[*at] : value);
}

static int check_complete(struct ctl_call *call)
{
	const struct ctl_verb *v = call->verb;
	for (const struct ctl_option *o = v->options; o && o->name; o++)
		if (o->required && !ctl_has(call, o->name))
			return ctl_fail(call, EX_USAGE,
					"--%s %s is missing; %s %s --help", o->name,
					o->arg, call->program->name, v->name);
	if (call->n_args < v->min_args)
		return ctl_fail(call, EX_USAGE, "%s is missing; %s %s --help", v->args,
				call->program->name, v->name);
	if (call->n_args > v->max_args)
		return ctl_fail(call, EX_USAGE, "\"%s\" is too much; %s %s --help",
				call->args[v->max_args], call->program->name, v->name);
	return 0;
}

int ctl_cli_parse(struct ctl_call *call, int argc, char **argv)
{
	bool only_args = false;
	int at = 1, words = 0;
	for (int i = 1; i < argc; i++) // so that every error is told as asked for
		call->json |= !strcmp(argv[i], "--json");
	for (; at < argc && argv[at][0] == '-'; at++) {
		if (strcmp(argv[at], "--help") && strcmp(argv[at], "-h") &&
		    strcmp(argv[at], "--json"))
			return ctl_fail(call, EX_USAGE,
					"%s stands behind a verb, if at all", argv[at]);
		call->help |= argv[at][1] == 'h' || argv[at][2] == 'h';
	}
	int n = 0;
	while (at + n < argc && n < 2 && argv[at + n][0] != '-')
		n++;
	call->verb = n ? find_verb(call->program, n, argv + at, &words) : NULL;
	if (!call->verb) {
		for (int i = at; i < argc; i++)
			call->help |=
				!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h");
		if (!call->help || (n && !is_group(call->program, argv[at])))
			return unknown_verb(call, n, argv + at);
		print_help(call->program, n ? argv[at] : NULL, call->out);
		return 0;
	}
	call->args = argv + at; // positional arguments are moved to here
	for (at += words; at < argc; at++) {
		if (only_args || argv[at][0] != '-' || !argv[at][1]) {
			call->args[call->n_args++] = argv[at];
		} else if (!strcmp(argv[at], "--")) {
			only_args = true;
		} else {
			int code = parse_option(call, argc, argv, &at);
			if (code)
				return code;
		}
	}
	return call->help ? 0 : check_complete(call);
}

int ctl_cli_main(struct ctl_call *call, int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "--version")) {
		fprintf(call->out, "%s %s\n", call->program->name, sp_version());
		return EX_OK;
	}
	int code = ctl_cli_parse(call, argc, argv);
	if (code || !call->verb)
		return code;
	if (call->help)
		print_verb_help(call->program, call->verb, call->out);
	else
		code = call->verb->run(call);
	if (fflush(call->out) && !code)
		code = ctl_fail(call, EX_IOERR, "standard output: cannot write");
	return code;
}

// ---- values ----

const char *ctl_next(const struct ctl_call *call, const char *name, size_t *at)
{
	while (*at < call->n_values) {
		size_t i = (*at)++;
		if (!strcmp(call->values[i].option->name, name))
			return call->values[i].value ? call->values[i].value : "";
	}
	return NULL;
}

bool ctl_has(const struct ctl_call *call, const char *name)
{
	size_t at = 0;
	return ctl_next(call, name, &at);
}

const char *ctl_get(const struct ctl_call *call, const char *name)
{
	size_t at = 0;
	const struct ctl_option *o = find_option(call->verb, name, strlen(name), 0);
	assert(o);
	const char *value = ctl_next(call, name, &at);
	return value ? value : o->def;
}

// ---- completion ----

static void complete_words(const struct ctl_option *o, FILE *out)
{
	for (; o && o->name; o++)
		fprintf(out, " --%s", o->name);
}

void ctl_cli_completion(const struct ctl_program *p, FILE *out)
{
	fprintf(out,
		"# bash completion of %s; written by: %s completion\n"
		"_%s() {\n"
		"\tlocal cur=${COMP_WORDS[COMP_CWORD]} words=\n"
		"\tcase \"${COMP_WORDS[1]} ${COMP_WORDS[2]}\" in\n",
		p->name, p->name, p->name);
	for (const struct ctl_verb *v = p->verbs; v->name; v++) {
		fprintf(out, "\t'%s%s'*) words='", v->name,
			strchr(v->name, ' ') ? "" : " ");
		complete_words(v->options, out);
		complete_words(ctl_common_options, out);
		fputs("' ;;\n", out);
	}
	fputs("\tesac\n\tif ((COMP_CWORD == 1)); then\n\t\twords='--help --version", out);
	const char *last = "";
	for (const struct ctl_verb *v = p->verbs; v->name; v++) {
		size_t n = strcspn(v->name, " ");
		if (strncmp(v->name, last, n) || (last[n] && last[n] != ' '))
			fprintf(out, " %.*s", (int)n, v->name);
		last = v->name;
	}
	fputs("'\n\telif ((COMP_CWORD == 2)); then\n\t\tcase ${COMP_WORDS[1]} in\n", out);
	for (const struct ctl_verb *v = p->verbs; v->name; v++) {
		size_t n = strcspn(v->name, " ");
		if (!v->name[n] || (v > p->verbs && !strncmp(v[-1].name, v->name, n + 1)))
			continue;
		fprintf(out, "\t\t%.*s) words='--help", (int)n, v->name);
		for (const struct ctl_verb *w = v; w->name; w++)
			if (!strncmp(w->name, v->name, n + 1))
				fprintf(out, " %s", w->name + n + 1);
		fputs("' ;;\n", out);
	}
	fprintf(out,
		"\t\tesac\n\tfi\n"
		"\tif [[ $cur == -* ]] || ((COMP_CWORD == 1)); then\n"
		"\t\tmapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n"
		"\telse\n"
		"\t\tmapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\"; compgen "
		"-f -- "
		"\"$cur\")\n"
		"\tfi\n"
		"}\n"
		"complete -o filenames -F _%s %s\n",
		p->name, p->name);
}
