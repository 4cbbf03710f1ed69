/* Fuzzes expressions and templates. The first byte of an input chooses:
 *
 *   0  the rest is a template string: cut, parsed and, as far as no jq is needed, rendered
 *   1  the rest is one or two lines of JSON: data for a fixed program that uses every allowed
 *      function, which is the way in which a job's data could abort or hang jq
 *   2  the rest is an expression: what the parser accepts must compile in jq or be refused by it,
 *      and run; slow, since jq compiles its builtins each time
 *
 * Nothing may crash, hang or leak, and errors have their codes. */
#include "base/expr.h"
#include "base/mem.h"
#include <string.h>

enum { EXPRESSION_MAX = 96 }; /* longer ones can multiply what they make until memory ends */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const program[] = {
    ".x | add",
    ".x | all",
    ".x | any",
    ".x | all(. == 1)",
    "any(.x[]; . == .)",
    ".x | arrays, booleans, iterables, nulls, numbers, objects, scalars, strings, values",
    ".x | ascii_downcase",
    ".x | ascii_upcase",
    "[.x | ceil, floor, round, sqrt, fabs]",
    ".x | contains(.)",
    ".x as $x | .y | contains($x)",
    ".x as $x | .y | inside($x)",
    ".x as $x | .y | endswith($x)",
    ".x as $x | .y | startswith($x)",
    ".x as $x | .y | ltrimstr($x)",
    ".x as $x | .y | rtrimstr($x)",
    ".x as $x | .y | split($x)",
    ".x as $x | .y | join($x)",
    ".x as $x | .y | has($x)",
    ".x | error",
    ".x | first, last",
    ".x | flatten",
    ".x | from_entries",
    ".x | fromjson",
    ".x | tojson | fromjson",
    ".x | group_by(.a)",
    ".x | index(\"a\"), rindex(\"a\"), indices(\"ab\")",
    ".x | keys",
    ".x | length",
    ".x | utf8bytelength",
    ".x | map(.)",
    ".x | max, min",
    ".x | max_by(.a), min_by(.a)",
    ".x | not",
    ".x | reverse",
    ".x | select(.a)",
    ".x | sort",
    ".x | sort_by(.a, .b)",
    ".x | test(\"(a|b)*c?\"; \"ix\")",
    ".x | to_entries",
    ".x | with_entries(.)",
    ".x | tonumber",
    ".x | tostring",
    ".x | type",
    ".x | unique",
    ".x | unique_by(.a)",
    ".x + .y",
    ".x - .y",
    ".x * .y",
    ".x / .y",
    ".x % .y",
    "-.x",
    ".x == .y, .x < .y, .x >= .y",
    ".x[.y]",
    ".x[.y:]",
    ".x[:.y]",
    ".x[.y:.y]",
    ".x[.x[0]:.x[1]]",
    ".x[1:-1]",
    ".x[]",
    ".x[]?",
    ".x.a.b?",
    "\"<\\(.x)>\"",
    ".x | @text, @json",
    ".x | @csv",
    ".x | @tsv",
    ".x | @html",
    ".x | @uri",
    ".x | @sh",
    ".x | @base64",
    ".x | @base64d",
    "@uri \"a\\(.x)b\\(.y)\"",
    "reduce .x[] as $i (null; . + $i)",
    "reduce .x[] as $i ([]; [., $i])",
    "reduce .x[]? as $i (\"\"; . + \"\\($i)\" + .)",
    "try .x[.y] catch length",
    "{a: .x, \"b\": .y, (.x | tostring): 1}",
    "{(.x): .y}",
    "if .x then .y elif .y then .x else empty end",
    ".x // .y",
    ".x and .y or (.x | not)",
    "[.x, .y] | tojson",
    "[.x[]? as $a | .y[]? as $b | [$a, $b]] | length",
    ".",
};
enum { EXPRESSIONS = sizeof(program) / sizeof(program[0]) };

static void must(bool truth)
{
    if (!truth)
        __builtin_trap();
}

static void check_outcome(int rc, json_t *value, const struct error *err)
{
    must(rc == MR_OK || rc == MR_E_SCHEMA);
    must((rc == MR_OK) == (value != NULL));
    must(rc == MR_OK || err->message[0]);
    json_decref(value);
}

static struct doc *make_doc(void)
{
    static const char x[] =
        "{\"a\":[1,2.50,\"t\",{\"b\":null}],\"s\":\"a:b\",\"big\":9007199254740993}";
    static const char y[] = "[3,\"\",false,[1]]";
    struct doc *doc = doc_new();
    doc_set_text(doc, "x", x, strlen(x));
    doc_set_text(doc, "y", y, strlen(y));
    return doc;
}

static void fuzz_template(const char *text, size_t len)
{
    static const uint32_t flags[] = {0, MR_LENIENT, MR_NOT_EMPTY | MR_NO_COLON};
    json_t *source = json_stringn(text, len);
    struct doc *doc = source ? make_doc() : NULL;
    for (size_t i = 0; i < 3 && source; i++) {
        struct report report;
        report_init(&report);
        struct expr_set *own = expr_set_new();
        const mr_template *tpl = expr_add_template(own, source, flags[i], &report, "f", "/o");
        must((tpl == NULL) == (report.count > 0));
        if (tpl) {
            struct error err = {0};
            json_t *value = NULL;
            int rc = expr_render(tpl, doc, &value, &err);
            must(rc == MR_OK || rc == MR_E_SCHEMA || rc == MR_E_INTERNAL /* needs jq */);
            must(!memmem(text, len, "{{", 2) ? json_equal(value, source) : true);
            json_decref(value);
        }
        report_done(&report);
        expr_set_free(own);
    }
    doc_free(doc);
    json_decref(source);
}

static struct expr_set *set; /* the program above */

/* jq keeps a pointer to the end of its stack only, which leak checkers do not see. */
static void free_set(void)
{
    expr_set_free(set);
}

static void fuzz_data(const char *text, size_t len)
{
    static const mr_expr *exprs[EXPRESSIONS];
    if (!set) {
        struct report report;
        report_init(&report);
        set = expr_set_new();
        atexit(free_set);
        for (size_t i = 0; i < EXPRESSIONS; i++)
            must((exprs[i] = expr_add(set, program[i], &report, "f", program[i])) != NULL);
        must(expr_set_compile(set, &report, "f"));
        report_done(&report);
    }
    const char *line = memchr(text, '\n', len);
    size_t first = line ? (size_t)(line - text) : len;
    json_t *x = json_read(text, first, 0, NULL);
    json_t *y = line ? json_read(line + 1, len - first - 1, 0, NULL) : NULL;
    struct doc *doc = x ? doc_new() : NULL;
    if (x) {
        doc_steal_value(doc, "x", x);
        doc_steal_value(doc, "y", y ? y : json_integer(1));
        y = NULL;
    }
    for (size_t i = 0; i < EXPRESSIONS && x; i++) {
        struct error err = {0};
        json_t *value = NULL;
        int rc = expr_eval(exprs[i], doc, &value, &err);
        check_outcome(rc, value, &err);
    }
    json_decref(y);
    doc_free(doc);
}

static void fuzz_expression(const char *text, size_t len)
{
    if (len > EXPRESSION_MAX)
        return;
    mem_auto char *copy = mem_ndup(text, len);
    struct report report;
    report_init(&report);
    struct expr_set *own = expr_set_new();
    const mr_expr *expr = expr_add(own, copy, &report, "f", "/x");
    must((expr == NULL) == (report.count > 0));
    if (expr && expr_set_compile(own, &report, "f")) {
        struct doc *doc = make_doc();
        struct error err = {0};
        json_t *value = NULL;
        int rc = expr_eval(expr, doc, &value, &err);
        check_outcome(rc, value, &err);
        doc_free(doc);
    } else {
        must(report.count > 0);
    }
    report_done(&report);
    expr_set_free(own);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    const char *text = (const char *)data + 1;
    switch (data[0] % 3) { /* '0', '1', '2' */
    case 0:
        fuzz_template(text, size - 1);
        break;
    case 1:
        fuzz_data(text, size - 1);
        break;
    default:
        fuzz_expression(text, size - 1);
        break;
    }
    return 0;
}
