// init and enroll: what is done with files and one exchange, before there is a vantage.
// Not here: running.
#ifndef HCK_JOIN_H
#define HCK_JOIN_H

// Writes a commented config file. Exit status; complains itself.
int hck_init(const char *config);
// Makes keys in control.folder of the config and joins with the token: the text, or "-":
// from standard input. Exit status; says what it did.
int hck_enroll(const char *config, const char *token);

#endif
