/* What a shared object exports, for the message about a missing symbol. */
#pragma once

/* Names of the symbols that the file at `path` defines for others ("a, b, c"), malloc'ed, at most
 * 400 bytes; NULL when there is none or the file is no ELF object of this machine. */
char *plugin_symbols(const char *path);
