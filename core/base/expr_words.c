/* The functions of jq that expressions may use: those that end in a time bounded by their input,
 * and that cannot abort or hang jq 1.6 whatever the data is.
 *
 * Not on the list, each seen in jq 1.6: `implode` (asserts on what is no code point), `index("")`
 * (never ends; so a literal that is not empty is asked for), `gsub` (never ends on an empty match),
 * `todate`, `strftime` (abort on large numbers), `range`, `until`, `limit`, `recurse` (no bound),
 * `env`, `$ENV`, `input`, `debug`, `halt` (reach outside).
 *
 * Some that are needed go through guards, functions named mr_…, which bound what comes in:
 *
 *   x % y                   kills the process when x is -2^63 and y is -1
 *   x * y                   "x" * 1e9 takes a gigabyte
 *   x - y, contains, inside compare each with each: 7 s for two lists of 10,000
 *   x[y]                    searches x for y when both are lists, in the same way
 *   ascii_downcase          1 s a megabyte; split: a string a comma
 *   join                    jq 1.6 copies the text so far at each step: 33 s for 20,000 lines; ours
 *                           gives the same in linear time
 *   x[], map and what goes through all members
 *                           leak the key when an object is left half way, by an error or by `any`:
 *                           objects are made lists of their values first
 *   ltrimstr, rtrimstr, index, rindex, indices
 *                           leak memory when they are given no text
 *   test                    time by the square of the text; oniguruma itself ends exponential ones
 */
#include "base/expr_parts.h"
#include <string.h>

#define GUARD_TEXT_BYTES "262144"  /* ascii_downcase, split */
#define GUARD_TEST_BYTES "65536"   /* test */
#define GUARD_JSON_BYTES "1048576" /* fromjson, a value in reduce */
#define GUARD_ITEMS      "100000"  /* a value in reduce */
#define GUARD_FEW        "4000"    /* lists that are compared each with each: 1 s */

static const struct word words[] = {
    {"add", 0, WORD_GUARDED},
    {"all", 0, WORD_GUARDED},
    {"all", 1, WORD_GUARDED},
    {"all", 2, WORD_READS_ARGUMENT},
    {"any", 0, WORD_GUARDED},
    {"any", 1, WORD_GUARDED},
    {"any", 2, WORD_READS_ARGUMENT},
    {"arrays", 0, 0},
    {"ascii_downcase", 0, WORD_GUARDED},
    {"ascii_upcase", 0, WORD_GUARDED},
    {"booleans", 0, 0},
    {"ceil", 0, 0},
    {"contains", 1, WORD_GUARDED},
    {"empty", 0, WORD_READS_NOTHING},
    {"endswith", 1, 0},
    {"error", 0, 0},
    {"error", 1, WORD_READS_ARGUMENT},
    {"fabs", 0, 0},
    {"false", 0, WORD_READS_NOTHING},
    {"first", 0, 0},
    {"flatten", 0, 0},
    {"floor", 0, 0},
    {"from_entries", 0, WORD_GUARDED},
    {"fromjson", 0, WORD_GUARDED},
    {"group_by", 1, WORD_INNER | WORD_GUARDED},
    {"has", 1, 0},
    {"index", 1, WORD_LITERAL | WORD_GUARDED},
    {"indices", 1, WORD_LITERAL | WORD_GUARDED},
    {"inside", 1, WORD_GUARDED},
    {"iterables", 0, 0},
    {"join", 1, WORD_GUARDED},
    {"keys", 0, 0},
    {"last", 0, 0},
    {"length", 0, 0},
    {"ltrimstr", 1, WORD_GUARDED},
    {"map", 1, WORD_INNER | WORD_GUARDED},
    {"max", 0, 0},
    {"max_by", 1, WORD_INNER | WORD_GUARDED},
    {"min", 0, 0},
    {"min_by", 1, WORD_INNER | WORD_GUARDED},
    {"not", 0, 0},
    {"null", 0, WORD_READS_NOTHING},
    {"nulls", 0, 0},
    {"numbers", 0, 0},
    {"objects", 0, 0},
    {"reverse", 0, 0},
    {"rindex", 1, WORD_LITERAL | WORD_GUARDED},
    {"round", 0, 0},
    {"rtrimstr", 1, WORD_GUARDED},
    {"scalars", 0, 0},
    {"select", 1, 0},
    {"sort", 0, 0},
    {"sort_by", 1, WORD_INNER | WORD_GUARDED},
    {"split", 1, WORD_GUARDED},
    {"sqrt", 0, 0},
    {"startswith", 1, 0},
    {"strings", 0, 0},
    {"test", 1, WORD_LITERAL | WORD_PATTERN | WORD_GUARDED},
    {"test", 2, WORD_LITERAL | WORD_PATTERN | WORD_GUARDED},
    {"to_entries", 0, 0},
    {"tojson", 0, 0},
    {"tonumber", 0, 0},
    {"tostring", 0, 0},
    {"true", 0, WORD_READS_NOTHING},
    {"type", 0, 0},
    {"unique", 0, 0},
    {"unique_by", 1, WORD_INNER | WORD_GUARDED},
    {"utf8bytelength", 0, 0},
    {"values", 0, 0},
    {"with_entries", 1, WORD_INNER},
};
enum { WORDS = sizeof(words) / sizeof(words[0]) };

const char word_prelude[] =
    "def mr_num: if type == \"number\" then . else error(\"\\(type) where a number is needed\") "
    "end; "
    "def mr_mul: if type == \"number\" or type == \"object\" then . else "
    "error(\"\\(type) cannot be multiplied\") end; "
    "def mr_mod: if type != \"number\" then error(\"\\(type) where a number is needed\") "
    "elif . > 9007199254740992 or . < -9007199254740992 then error(\"number too large for %\") "
    "else . end; "
    "def mr_few: if type == \"array\" and length > " GUARD_FEW " then "
    "error(\"more than " GUARD_FEW " items in a difference\") else . end; "
    "def mr_key: if type == \"array\" then error(\"a list cannot be an index\") else . end; "
    "def mr_small: if type == \"string\" or ([recurse] | length) <= " GUARD_FEW " then . else "
    "error(\"more than " GUARD_FEW " values compared with each other\") end; "
    "def mr_contains(x): (x | mr_small) as $x | mr_small | contains($x); "
    "def mr_inside(x): (x | mr_small) as $x | mr_small | inside($x); "
    "def mr_text(n): if type == \"string\" and utf8bytelength > n then "
    "error(\"text of more than \\(n) bytes\") else . end; "
    "def mr_split(s): mr_text(" GUARD_TEXT_BYTES ") | split(s); "
    "def mr_ascii_downcase: mr_text(" GUARD_TEXT_BYTES ") | ascii_downcase; "
    "def mr_ascii_upcase: mr_text(" GUARD_TEXT_BYTES ") | ascii_upcase; "
    "def mr_fromjson: mr_text(" GUARD_JSON_BYTES ") | fromjson; "
    "def mr_each: if type == \"object\" then [.[]] else . end; "
    "def mr_add: mr_each | add; "
    "def mr_all: mr_each | all; "
    "def mr_any: mr_each | any; "
    "def mr_from_entries: mr_each | from_entries; "
    "def mr_map(f): mr_each | map(f); "
    "def mr_group_by(f): mr_each | group_by(f); "
    "def mr_max_by(f): mr_each | max_by(f); "
    "def mr_min_by(f): mr_each | min_by(f); "
    "def mr_sort_by(f): mr_each | sort_by(f); "
    "def mr_unique_by(f): mr_each | unique_by(f); "
    "def mr_all(f): mr_each | all(f); "
    "def mr_any(f): mr_each | any(f); "
    "def mr_ltrimstr(x): x as $x | if type == \"string\" and ($x | type) == \"string\" then "
    "ltrimstr($x) else . end; "
    "def mr_rtrimstr(x): x as $x | if type == \"string\" and ($x | type) == \"string\" then "
    "rtrimstr($x) else . end; "
    "def mr_word: if type == \"array\" then error(\"array where text is needed\") else . end; "
    "def mr_index(x): mr_word | index(x); "
    "def mr_rindex(x): mr_word | rindex(x); "
    "def mr_indices(x): mr_word | indices(x); "
    "def mr_join(s): s as $s | [.[] | $s, (if . == null then \"\" elif type == \"string\" then . "
    "else tojson end)] | .[1:] | add // \"\"; "
    "def mr_test(r): mr_text(" GUARD_TEST_BYTES ") | test(r); "
    "def mr_test(r; f): mr_text(" GUARD_TEST_BYTES ") | test(r; f); "
    "def mr_fit: if type == \"string\" then mr_text(" GUARD_JSON_BYTES ") "
    "elif (type == \"array\" or type == \"object\") and length > " GUARD_ITEMS
    " then error(\"more than " GUARD_ITEMS " items\") else . end; ";

static bool is_name(const char *name, const char *text, size_t len)
{
    return strlen(name) == len && memcmp(name, text, len) == 0;
}

const struct word *word_find(const char *name, size_t len, unsigned arity)
{
    for (size_t i = 0; i < WORDS; i++)
        if (words[i].arity == arity && is_name(words[i].name, name, len))
            return &words[i];
    return NULL;
}

bool word_is_known(const char *name, size_t len)
{
    for (size_t i = 0; i < WORDS; i++)
        if (is_name(words[i].name, name, len))
            return true;
    return false;
}

static bool is_among(const char *const *names, const char *name, size_t len)
{
    for (; *names; names++)
        if (is_name(*names, name, len))
            return true;
    return false;
}

bool word_is_format(const char *name, size_t len)
{
    static const char *const formats[] = {"@text", "@json", "@csv",    "@tsv",     "@html",
                                          "@uri",  "@sh",   "@base64", "@base64d", NULL};
    return is_among(formats, name, len);
}

bool word_is_refused(const char *name, size_t len)
{
    static const char *const keywords[] = {"def",   "foreach", "import",  "include", "label",
                                           "break", "module",  "__loc__", NULL};
    return is_among(keywords, name, len);
}

const char *word_nearest(const char *name, size_t len)
{
    const char *names[WORDS + 1] = {0};
    for (size_t i = 0; i < WORDS; i++)
        names[i] = words[i].name;
    mem_auto char *text = mem_ndup(name, len);
    return error_nearest(text, names);
}
