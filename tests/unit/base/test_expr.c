/* expr.h: what expressions and templates give, what is refused, and that what is evaluated without
 * jq gives what jq gives. */
#include "base/expr.h"
#include "base/limits.h"
#include "base/mem.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Last: its macro fail() would break plugin.h. */
#include <cmocka.h>

static const char input[] =
    "{\"a\":{\"b\":[10,20,{\"c\":\"deep\"}],\"key with space\":\"spaced\"},\"s\":\"text\","
    "\"empty\":\"\",\"n\":null,\"t\":true,\"f\":false,\"i\":3,\"r\":1.50,\"neg\":-0.0,"
    "\"colon\":\"a:b\",\"list\":[3,1,2],\"none\":[],\"obj\":{},"
    "\"people\":[{\"name\":\"Ann\",\"age\":30},{\"name\":\"Bob\",\"age\":25}],"
    "\"braces\":\"{{ .input.s }}\",\"uni\":\"é😀\"}";

static const char big[] = "{\"id\":12345678901234567,\"q\":\"x\"}";

static struct doc *make_doc(void)
{
    struct doc *doc = doc_new();
    doc_set_text(doc, "input", input, strlen(input));
    doc_set_text(doc, "big", big, strlen(big));
    doc_set_text(doc, "rule", "null", 4);
    return doc;
}

/* Evaluates one expression over the document above; text of the value, or "CODE message". The text
 * is the caller's. */
static char *eval_in(struct doc *doc, const char *text)
{
    struct expr_set *set = expr_set_new();
    struct report report;
    struct error err = {0};
    json_t *value = NULL;
    char *result;
    report_init(&report);
    const mr_expr *expr = expr_add(set, text, &report, "p.json", "/x");
    bool ok = expr && expr_set_compile(set, &report, "p.json");
    if (!ok) {
        assert_true(report.count > 0);
        result = mem_format("refused %s", report.items[0].message);
    } else if (expr_eval(expr, doc, &value, &err) != MR_OK) {
        assert_string_equal(err.where, "p.json: /x");
        result = mem_format("%s %s", error_name(err.code), err.message);
    } else {
        result = json_print(value, 1 << 20, NULL, NULL);
        assert_non_null(result);
    }
    json_decref(value);
    report_done(&report);
    expr_set_free(set);
    return result;
}

static void assert_gives(const char *text, const char *wanted)
{
    struct doc *doc = make_doc();
    mem_auto char *got = eval_in(doc, text);
    if (strcmp(got, wanted) != 0)
        fail_msg("%s\n  gave   %s\n  wanted %s", text, got, wanted);
    doc_free(doc);
}

/* The same for a refusal or an error, by a part of its message. */
static void assert_says(const char *text, const char *part)
{
    struct doc *doc = make_doc();
    mem_auto char *got = eval_in(doc, text);
    if (!strstr(got, part))
        fail_msg("%s\n  gave   %s\n  wanted something with %s", text, got, part);
    doc_free(doc);
}

static void walks_plain_paths(void **state)
{
    (void)state;
    assert_gives(".input.a.b[0]", "10");
    assert_gives(".input.a.b[-1].c", "\"deep\"");
    assert_gives(".input.a.b[7]", "null");
    assert_gives(".input.a.b[-7]", "null");
    assert_gives(".input.a[\"key with space\"]", "\"spaced\"");
    assert_gives(".[\"input\"].s", "\"text\"");
    assert_gives(".input.\"s\"", "\"text\"");
    assert_gives(" .input . s ",
                 "refused expression \".input . s\": character 8: unexpected \".\"");
    assert_gives(".input.nobody.there", "null");
    assert_gives(".nobody[3].x", "null");
    assert_gives(".input.n.x.y", "null");
    assert_gives(".big.id", "12345678901234567");
    assert_gives(".input.s.x", "schema expression \".input.s.x\": a string has no member \"x\"");
    assert_gives(".input[0]", "schema expression \".input[0]\": an object has no element 0");
    assert_gives(".[0]", "schema expression \".[0]\": an object has no element 0");
    assert_says(".", "\"big\":{\"id\":12345678901234567");
}

static void takes_defaults_and_comparisons(void **state)
{
    (void)state;
    assert_gives(".input.s // \"d\"", "\"text\"");
    assert_gives(".input.n // .input.f // \"d\"", "\"d\"");
    assert_gives(".input.empty // \"d\"", "\"\"");
    assert_gives(".input.n // []", "[]");
    assert_gives(".input.n // null", "null");
    assert_gives(".rule != null", "false");
    assert_gives(".rule == null and .input.s == \"text\"", "true");
    assert_gives(".rule != null or .input.i == 3", "true");
    assert_gives(".big.id == 12345678901234567",
                 "refused expression \".big.id == 12345678901234567\": "
                 "character 12: the number 12345678901234567 is too "
                 "large for jq");
    assert_gives("\"{{\"", "\"{{\"");
    assert_gives("-5", "-5");
}

static void uses_jq_for_the_rest(void **state)
{
    (void)state;
    assert_gives(".input.people | map(.name) | join(\", \")", "\"Ann, Bob\"");
    assert_gives("[.input.people[] | select(.age > 26) | .name]", "[\"Ann\"]");
    assert_gives("{q: .input.s, \"n\": (.input.i + 1), i: .input.list[0]}",
                 "{\"q\":\"text\",\"n\":4,\"i\":3}");
    assert_gives("\"a\\(.input.i)b\\(\"x\\(1+1)\")\"", "\"a3bx2\"");
    assert_gives("if .input.t then \"y\" elif .input.f then 1 else \"n\" end", "\"y\"");
    assert_gives(".input.people as $p | $p[1].name", "\"Bob\"");
    assert_gives("reduce .input.people[] as $p (0; . + $p.age)", "55");
    assert_gives("try error(\"x\") catch .", "\"x\"");
    assert_gives(".input.s.x? // 5", "5");
    assert_gives("(.input.list | length) == 3 and (.input.none | length) == 0", "true");
    assert_gives("[.input.list[1:], .input.s[:2], .input.list[-1:]]", "[[1,2],\"te\",[2]]");
    assert_gives("@base64 \"x\\(.input.s)\"", "\"xdGV4dA==\"");
    assert_gives(".input.s | @json", "\"\\\"text\\\"\"");
    assert_gives(".input.uni | length", "2");
    assert_gives(".input.r * 2, 1 | select(. == 3)", "3");
    assert_gives("10 / 4 - 1 % 3 * 2", "0.5");
    assert_gives(".input.list - [1]", "[3,2]");
    assert_gives("-.input.i * 2 + 1", "-5");
    assert_gives("2 * 3 - 1 - .input.i", "2");
    assert_gives("7 % 4 * .input.i / 3 - .5", "2.5");
    assert_gives("[1, 2] | .[0] - .[1] - 1", "-2");
    assert_gives("{a: 1} * {b: 2}", "{\"a\":1,\"b\":2}");
    assert_gives(".input.s | test(\"^T\"; \"i\")", "true");
    assert_gives("\"a,b,,c\" | split(\",\")", "[\"a\",\"b\",\"\",\"c\"]");
    assert_gives("[1, null, \"x\", true, [2]] | join(\"-\")", "\"1--x-true-[2]\"");
    assert_gives("[] | join(\"-\")", "\"\"");
    assert_gives("\"foobar\" | contains(\"oba\")", "true");
    assert_gives("[1, [2]] | inside([1, [2], 3])", "true");
    assert_gives("[.input.people | to_entries[] | .key]", "[0,1]");
    assert_gives(".input.obj | with_entries(.value += 1)",
                 "refused expression \".input.obj | "
                 "with_entries(.value += 1)\": character 34: `+=` is not allowed");
    assert_gives("{\"a b\": 1, (\"k\" + \"x\"): 2, \"s\\(3)\": 3}",
                 "{\"a b\":1,\"kx\":2,\"s3\":3}");
    assert_gives("[true, false | not]", "[false,true]");
    assert_gives("1e3", "1000");
    assert_gives(".input.r", "1.5");
    assert_gives("[.input.r, 0.1, 1e300]", "[1.5,0.1,1e+300]");
    assert_gives("\"\\u0000\" | length", "1");
}

static void wants_one_result(void **state)
{
    (void)state;
    assert_gives("empty", "schema expression \"empty\" gives no result, not one");
    assert_gives(".input.list[]",
                 "schema expression \".input.list[]\" gives several results, not one");
    assert_gives(".input.s + 1", "schema expression \".input.s + 1\": string (\"text\") and number "
                                 "(1) cannot be added");
    assert_gives("1, error(\"late\")", "schema expression \"1, error(\"late\")\": late");
    assert_gives("error({a: 1})", "schema expression \"error({a: 1})\": {\"a\":1}");
    assert_gives("error(null)", "schema expression \"error(null)\" gives no result, not one");
    assert_gives("1e308 * 10",
                 "schema expression \"1e308 * 10\" gives a number that is not finite");
}

/* After an error the next evaluation of the same program works: jq 1.6 aborts when it is asked on.
 */
static void goes_on_after_an_error(void **state)
{
    (void)state;
    struct expr_set *set = expr_set_new();
    struct report report;
    struct doc *doc = make_doc();
    report_init(&report);
    const mr_expr *bad = expr_add(set, "[.input.s, 1] | add", &report, NULL, "/1");
    const mr_expr *good = expr_add(set, ".input.i + 1", &report, NULL, "/2");
    const mr_expr *many = expr_add(set, ".input.list[]", &report, NULL, "/3");
    assert_true(expr_set_compile(set, &report, NULL));
    for (int i = 0; i < 1000; i++) {
        json_t *value = NULL;
        struct error err = {0};
        assert_int_equal(expr_eval(bad, doc, &value, &err), MR_E_SCHEMA);
        assert_int_equal(expr_eval(many, doc, &value, NULL), MR_E_SCHEMA);
        assert_int_equal(expr_eval(good, doc, &value, &err), MR_OK);
        assert_int_equal(json_integer_value(value), 4);
        json_decref(value);
    }
    report_done(&report);
    doc_free(doc);
    expr_set_free(set);
}

static void refuses_what_is_not_on_the_list(void **state)
{
    (void)state;
    static const char *const refused[] = {
        "env",
        "$ENV",
        "$ENV.HOME",
        "env.HOME",
        "input",
        "inputs",
        "debug",
        "halt",
        "halt_error",
        "range(5)",
        "range(.input.i)",
        "[limit(3; .input.list[])]",
        "until(. > 3; . + 1)",
        "while(. < 3; . + 1)",
        "repeat(1)",
        "recurse",
        "recurse(.a)",
        "..",
        ".input | ..",
        "first(.input.list[])",
        "def f: 1; f",
        "import \"a\" as a; 1",
        "include \"a\"; 1",
        "foreach .input.list[] as $x (0; . + $x)",
        "label $out | 1",
        "break $out",
        ".input.a |= 1",
        ".input.a = 1",
        ".input.i += 1",
        "del(.input.a)",
        "paths",
        "path(.input)",
        "gsub(\"a\"; \"b\")",
        "sub(\"a\"; \"b\")",
        "now",
        "todate",
        "strftime(\"%Y\")",
        "mktime",
        "implode",
        "getpath([\"a\"])",
        "setpath([\"a\"]; 1)",
        "input_line_number",
        "$__loc__",
        "$__prog_args",
        "builtins",
        "modulemeta",
        "get_search_list",
        "splits(\"a\")",
        "ascii",
        "@nobody",
        "infinite",
        "nan",
        "walk(.)",
        "env::x",
        "limit(1; 2)",
        "input_filename",
        "tojson # comment",
        "ltrimstr",
        "map",
        "length(1)",
        "flatten(2)",
        ".input.s | index(\"\")",
        ".input.s | index(.input.s)",
        ".input.s | test(.input.s)",
        ".input.s | test(\"a\\(1)\")",
        "reduce range(5) as $x (0; .)",
        "reduce 1 as $x (0; .)",
        "reduce .input.list[] as $x (0; reduce .input.list[] as $y (0; . + $y))",
        ". as [$a] | $a",
        ". as {a: $a} | $a",
        "1 as $x ?// [$x] | $x",
        "mr_num",
        "mr_0",
        "$i",
        "__loc__",
        ".input.a?//1",
        "9007199254740993",
        "",
        " ",
        "1 +",
        "(1",
        "[1",
        "{a:",
        "1)",
        "\"open",
        "\"bad \\q\"",
        "{{ .a }}",
        "'a'",
        ".input.é",
        "if 1 then 2",
        "1 | | 2",
        "if 1 then 2 end",
        "\"a\nb\"",
    };
    for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
        assert_says(refused[i], "refused ");
    assert_gives("keyz", "refused expression \"keyz\": character 1: \"keyz\" is not on the list of "
                         "allowed jq functions");
}

/* What the parser lets through, but jq does not: reported with jq's words at the place. */
static void reports_what_jq_refuses(void **state)
{
    (void)state;
    struct expr_set *set = expr_set_new();
    struct report report;
    report_init(&report);
    assert_non_null(expr_add(set, ".input.list | length", &report, "p.json", "/fine"));
    assert_non_null(expr_add(set, "(1 as $x | 2) | $x", &report, "p.json", "/stages/1/when"));
    assert_non_null(expr_add(set, "1 as $x | 2 | \"a\" | test(\"(\")", &report, "p.json", "/re"));
    assert_false(expr_set_compile(set, &report, "p.json"));
    assert_int_equal(report.count, 1);
    assert_string_equal(report.items[0].where, "p.json: /stages/1/when");
    assert_string_equal(report.items[0].message,
                        "expression \"(1 as $x | 2) | $x\": $x is not defined");
    report_done(&report);
    expr_set_free(set);

    assert_says("\"a\" | test(\"(\")", "Regex failure: end pattern with unmatched parenthesis");
}

static void bounds_what_data_could_do(void **state)
{
    (void)state;
    /* Each of these kills, hangs or fills jq 1.6 when it gets there. */
    assert_says(".input.s * 1000000000", "string cannot be multiplied");
    assert_says("1000000000 * .input.s", "string cannot be multiplied");
    assert_says("[-1e19, -1] | .[0] % .[1]", "number too large for %");
    assert_says("5 % .input.none", "array where a number is needed");
    assert_says("5 % 0", "cannot be divided");
    assert_says(".input.s / \"\"", "string where a number is needed");
    assert_says(".input.list[.input.list]", "a list cannot be an index");
    assert_says("reduce .input.list[] as $x (\"aaaaaaaaaaaaaaaa\"; [., ., ., ., ., .] | tojson)",
                "\\\\");
    struct doc *doc = doc_new();
    struct buf text;
    buf_init(&text, 4 << 20);
    buf_add_char(&text, '[');
    for (int i = 0; i < 5000; i++)
        buf_format(&text, "%s%d", i ? "," : "", i);
    buf_add_char(&text, ']');
    doc_set_text(doc, "input", text.data, text.len);
    buf_clear(&text);
    buf_add_char(&text, '"');
    for (int i = 0; i < 300000; i++)
        buf_add_char(&text, ',');
    buf_add_char(&text, '"');
    doc_set_text(doc, "s", text.data, text.len);
    static const char *const bounded[][2] = {
        {".input - .input", "more than 4000 items"},
        {"[] + .input - []", "more than 4000 items"},
        {".input | contains([1])", "more than 4000 values"},
        {"[1] | inside(.)", "true"},
        {".s | split(\",\")", "text of more than 262144 bytes"},
        {".s | ascii_downcase", "text of more than 262144 bytes"},
        {".s | test(\",\")", "text of more than 65536 bytes"},
        {"reduce .input[] as $x (\"a\"; . + .)", "text of more than 1048576 bytes"},
        {"reduce .input[] as $x ([1]; . + .)", "more than 100000 items"},
        {".s | length", "300000"},
        {".input | map(.) | add", "12497500"},
        {".input | map(tostring) | join(\",\") | length", "23889"},
        {"[.input[], .input[]] | map([., .]) | map([., ., .]) | length", "10000"},
        {"[.input[], .input[]] | map([., .]) | map([., ., .])", "more values than"},
    };
    for (size_t i = 0; i < sizeof(bounded) / sizeof(bounded[0]); i++) {
        mem_auto char *got = eval_in(doc, bounded[i][0]);
        if (!strstr(got, bounded[i][1]))
            fail_msg("%s\n  gave   %s\n  wanted something with %s", bounded[i][0], got,
                     bounded[i][1]);
    }
    buf_done(&text);
    doc_free(doc);
}

static void never_gives_big_integers_to_jq(void **state)
{
    (void)state;
    assert_gives(".big.q | length",
                 "schema expression \".big.q | length\" needs jq, and .big.id is "
                 "12345678901234567, which jq cannot hold exactly");
    assert_gives(".input.s | length", "4"); /* another member has it */
    assert_says("keys", "needs jq, and .big.id is");
    struct doc *doc = doc_new();
    static const char deep[] = "{\"a\":[1,{\"b\":[9007199254740992,-9007199254740993]}]}";
    doc_set_text(doc, "input", deep, strlen(deep));
    mem_auto char *got = eval_in(doc, ".input.a | length");
    assert_non_null(strstr(got, "and .input.a[1].b[1] is -9007199254740993,"));
    static const char edge[] = "[9007199254740992,-9007199254740992]";
    doc_set_text(doc, "input", edge, strlen(edge));
    mem_auto char *kept = eval_in(doc, "[.input[]]");
    assert_string_equal(kept, edge);
    doc_free(doc);
}

static void collect(void *arg, const char *name)
{
    strcat(strcat(arg, name), " ");
}

static void assert_reads(const char *text, const char *wanted)
{
    struct expr_set *set = expr_set_new();
    struct report report;
    report_init(&report);
    const mr_expr *expr = expr_add(set, text, &report, NULL, NULL);
    if (!expr)
        fail_msg("%s: %s", text, report.items[0].message);
    char got[256] = "";
    expr_names(expr, collect, got);
    if (strcmp(got, wanted) != 0)
        fail_msg("%s\n  reads  %s\n  wanted %s", text, got, wanted);
    report_done(&report);
    expr_set_free(set);
}

static void knows_what_is_read(void **state)
{
    (void)state;
    assert_reads(".vision.major", "vision ");
    assert_reads(".a.b == .c or .a != null", "a c ");
    assert_reads(".a | .b", "a ");
    assert_reads(".a | map(.b) | add", "a ");
    assert_reads(".a[.b].c", "a b ");
    assert_reads(".a as $x | .b | $x", "a b ");
    assert_reads("reduce .a[] as $x (.b; . + $x.c)", "a b ");
    assert_reads("{a, b: .c, \"d\": .e | .f, \"g\"}", "a c e g ");
    assert_reads("if .a then .b else .c end", "a b c ");
    assert_reads("\"x\\(.a)y\\(.b | .c)\"", "a b ");
    assert_reads(".[\"with space\"].x", "with space ");
    assert_reads(".\"q\"", "q ");
    assert_reads("any(.a[]; .b)", "a ");
    assert_reads("[.a[] | select(.b == 1)]", "a ");
    assert_reads("select(.a)", "a * ");
    assert_reads(".", "* ");
    assert_reads(".[.a]", "* a ");
    assert_reads(".[]", "* ");
    assert_reads("keys", "* ");
    assert_reads("@json", "* ");
    assert_reads("1 + 2", "");
    assert_reads("error(.a)", "a ");
    assert_reads("try .a catch .b", "a ");
    assert_reads("true", "");
}

/* Templates */

/* Renders a template given as JSON text; "LENIENT" and so on are flags. Like eval_in. */
static char *render_in(struct doc *doc, const char *json, uint32_t flags)
{
    struct expr_set *set = expr_set_new();
    struct report report;
    struct error err = {0};
    json_t *value = NULL;
    char *result;
    report_init(&report);
    json_hold json_t *source = json_read(json, strlen(json), 0, &err);
    if (!source)
        fail_msg("%s: %s", json, err.message);
    const mr_template *tpl = expr_add_template(set, source, flags, &report, "p.json", "/o");
    if (!tpl || !expr_set_compile(set, &report, "p.json"))
        result = mem_format("refused at %s: %s", report.items[0].where, report.items[0].message);
    else if (expr_render(tpl, doc, &value, &err) != MR_OK)
        result = mem_format("%s at %s: %s", error_name(err.code), err.where, err.message);
    else
        result = json_print(value, 1 << 20, NULL, NULL);
    json_decref(value);
    report_done(&report);
    expr_set_free(set);
    return result;
}

static void assert_renders(const char *json, uint32_t flags, const char *wanted)
{
    struct doc *doc = make_doc();
    mem_auto char *got = render_in(doc, json, flags);
    if (strcmp(got, wanted) != 0)
        fail_msg("%s\n  gave   %s\n  wanted %s", json, got, wanted);
    doc_free(doc);
}

static void renders_templates(void **state)
{
    (void)state;
    /* A template alone keeps its type. */
    assert_renders("\"{{ .input.i }}\"", 0, "3");
    assert_renders("\"{{.input.list}}\"", 0, "[3,1,2]");
    assert_renders("\"{{ .input.n }}\"", 0, "null");
    assert_renders("\"{{ .input.nobody }}\"", 0, "null");
    assert_renders("\"{{ .big.id }}\"", 0, "12345678901234567");
    assert_renders("\" {{ .input.i }}\"", 0, "\" 3\"");
    /* In longer text. */
    assert_renders("\"{{ .input.i }}{{ .input.s }}\"", 0, "\"3text\"");
    assert_renders("\"<{{ .input.list }}|{{ .input.t }}|{{ .input.f }}|{{ .input.obj }}>\"", 0,
                   "\"<[3,1,2]|true|false|{}>\"");
    assert_renders("\"id {{ .big.id }}\"", 0, "\"id 12345678901234567\"");
    assert_renders("\"r={{ .input.r }} n={{ .input.neg }}\"", 0, "\"r=1.50 n=-0.0\"");
    assert_renders("\"r={{ .input.r + 1 }}\"", 0, "\"r=2.5\"");
    assert_renders("\"{{ .input.uni }}!\"", 0, "\"é😀!\"");
    assert_renders("\"{{ .input.people | map(.name) | join(\\\" and \\\") }}.\"", 0,
                   "\"Ann and Bob.\"");
    /* Values are not rendered again, keys are no templates, quotes need no care. */
    assert_renders("\"{{ .input.braces }}\"", 0, "\"{{ .input.s }}\"");
    assert_renders("\"x{{ .input.braces }}\"", 0, "\"x{{ .input.s }}\"");
    assert_renders("{\"{{ .input.s }}\":[\"{{ .input.s }}\",1,null,{\"a\":\"-{{ .input.i }}\"}]}",
                   0, "{\"{{ .input.s }}\":[\"text\",1,null,{\"a\":\"-3\"}]}");
    assert_renders("\"{{ \\\"a\\\\\\\"b\\\" }}\"", 0, "\"a\\\"b\"");
    /* Braces. */
    assert_renders("\"{{ \\\"{{\\\" }} x }}\"", 0, "\"{{ x }}\"");
    assert_renders("\"{{ \\\"{{\\\" }}\"", 0, "\"{{\"");
    assert_renders("\"a }} b } { c\"", 0, "\"a }} b } { c\"");
    assert_renders("\"{{ {a:{b:1}} }}\"", 0, "{\"a\":{\"b\":1}}");
    assert_renders("\"{{ {a:1}}}\"", 0, "{\"a\":1}");
    assert_renders("\"{{ \\\"}}\\\" }}{{ \\\"\\\\(.input.s + \\\"}}\\\")\\\" }}\"", 0,
                   "\"}}text}}\"");
    assert_renders("{\"a\":[1,\"{{ 1 }}\",\"x{{ \\\"y\\\" }}\"]}", 0, "{\"a\":[1,1,\"xy\"]}");
}

static void refuses_broken_templates(void **state)
{
    (void)state;
    assert_renders(
        "[\"ok\",\"ab {{ .input.s\"]", 0,
        "refused at p.json: /o/1: the {{ at character 4 has no }} that ends it outside of "
        "strings and brackets");
    assert_renders("\"{{ }}\"", 0, "refused at p.json: /o: an expression is empty");
    assert_renders("\"{{ (1 }}\"", 0,
                   "refused at p.json: /o: the {{ at character 1 has no }} that ends it outside of "
                   "strings and brackets");
    assert_renders(
        "{\"a/b\":\"{{ .x | env }}\"}", 0,
        "refused at p.json: /o/a~1b: expression \".x | env\": character 6: \"env\" is not "
        "on the list of allowed jq functions");
}

static void misses_nothing_in_text(void **state)
{
    (void)state;
    static const char around[] = ", but text stands around it";
    mem_auto char *null =
        mem_format("schema at p.json: /o: expression \".input.n\" gives null%s", around);
    mem_auto char *empty = mem_format(
        "schema at p.json: /o: expression \".input.empty\" gives an empty text%s", around);
    assert_renders("\"x {{ .input.n }}\"", 0, null);
    assert_renders("\"x {{ .input.empty }}\"", 0, empty);
    assert_renders("\"x {{ .input.n // \\\"d\\\" }}\"", 0, "\"x d\"");
    assert_renders("\"x {{ .input.n // \\\"\\\" }}\"", 0, "\"x \"");
    assert_renders("\"x {{ .input.empty // \\\"d\\\" }}\"", 0, "\"x \"");
    assert_renders("\"{{ empty }}\"", 0,
                   "schema at p.json: /o: expression \"empty\" gives no result");
    assert_renders(
        "\"{{ .input.list[] }}\"", 0,
        "schema at p.json: /o: expression \".input.list[]\" gives several results, not one");
    assert_renders(
        "{\"a\":[\"{{ .input.s.x }}\"]}", 0,
        "schema at p.json: /o/a/0: expression \".input.s.x\": a string has no member \"x\"");
    /* Lookup keys. */
    assert_renders("[\"a_{{ .input.n }}\",\"b_{{ .input.s }}\",\"{{ .input.empty }}_\"]",
                   MR_LENIENT, "[null,\"b_text\",null]");
    assert_renders("\"{{ empty }}\"", MR_LENIENT, "null");
    /* Ids, addresses, parameters. */
    assert_renders("\"{{ .input.empty }}\"", 0, "\"\"");
    assert_renders("\"{{ .input.empty }}\"", MR_NOT_EMPTY,
                   "schema at p.json: /o: expression \".input.empty\" gives an empty text");
    assert_renders("\"{{ .input.n }}\"", MR_NOT_EMPTY,
                   "schema at p.json: /o: expression \".input.n\" gives null");
    assert_renders(
        "\"x{{ .input.n // \\\"\\\" }}\"", MR_NOT_EMPTY,
        "schema at p.json: /o: expression \".input.n // \"\"\" gives an empty text, but text "
        "stands around it");
    assert_renders("\"own:{{ .input.s }}:{{ .input.i }}\"", MR_NOT_EMPTY | MR_NO_COLON,
                   "\"own:text:3\"");
    assert_renders(
        "\"own:{{ .input.colon }}\"", MR_NOT_EMPTY | MR_NO_COLON,
        "schema at p.json: /o: expression \".input.colon\" gives text with a colon, which "
        "ids are made with");
}

static void keeps_constants_apart(void **state)
{
    (void)state;
    struct expr_set *set = expr_set_new();
    struct report report;
    struct doc *doc = make_doc();
    report_init(&report);
    json_t *source = json_pack("{s:[i,{s:s}],s:s}", "a", 1, "b", "c", "t", "{{ \"{{\" }}");
    const mr_template *tpl = expr_add_template(set, source, 0, &report, NULL, "");
    json_decref(source); /* the template keeps what it needs */
    assert_true(expr_template_is_constant(tpl));
    assert_true(expr_set_compile(set, &report, NULL));
    for (int i = 0; i < 2; i++) {
        json_t *value = NULL;
        assert_int_equal(expr_render(tpl, doc, &value, NULL), MR_OK);
        assert_int_equal(json_array_size(json_object_get(value, "a")), 2);
        assert_string_equal(json_string_value(json_object_get(value, "t")), "{{");
        json_array_clear(json_object_get(value, "a")); /* its owner may */
        json_decref(value);
    }
    json_hold json_t *other = json_string("x {{ .vision.a }} {{ .input | .x }} {{ .vision.b }}");
    tpl = expr_add_template(set, other, 0, &report, NULL, "");
    assert_false(expr_template_is_constant(tpl));
    char names[64] = "";
    expr_template_names(tpl, collect, names);
    assert_string_equal(names, "vision input ");
    report_done(&report);
    doc_free(doc);
    expr_set_free(set);
}

static void tests_conditions(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int truth; /* -1: an error */
    } conditions[] = {
        {".rule != null", 0},
        {".input.i", 1},
        {".input.n", 0},
        {".input.f", 0},
        {".input.empty", 1},
        {".input.none", 1},
        {"0", 1},
        {".input.list | length > 2", 1},
        {".input.list[] | . > 9", -1},
        {"empty", -1},
        {".input.s.x", -1},
    };
    struct doc *doc = make_doc();
    for (size_t i = 0; i < sizeof(conditions) / sizeof(conditions[0]); i++) {
        struct expr_set *set = expr_set_new();
        struct report report;
        report_init(&report);
        const mr_expr *expr = expr_add(set, conditions[i].text, &report, NULL, NULL);
        assert_non_null(expr);
        assert_true(expr_set_compile(set, &report, NULL));
        bool truth = false;
        struct error err = {0};
        int rc = expr_test(expr, doc, &truth, &err);
        assert_int_equal(rc, conditions[i].truth < 0 ? MR_E_SCHEMA : MR_OK);
        assert_int_equal(truth, conditions[i].truth == 1);
        report_done(&report);
        expr_set_free(set);
    }
    doc_free(doc);
}

static void gets_by_path(void **state)
{
    (void)state;
    struct doc *doc = make_doc();
    assert_int_equal(json_integer_value(expr_get(doc, ".input.a.b[1]")), 20);
    assert_string_equal(json_string_value(expr_get(doc, ".input[\"s\"]")), "text");
    assert_null(expr_get(doc, ".input.n"));
    assert_null(expr_get(doc, ".input.s.x"));
    assert_null(expr_get(doc, ".input.s // 1"));
    assert_null(expr_get(doc, "nonsense("));
    assert_null(expr_get(doc, "."));
    doc_free(doc);
}

/* HOME/.jq would go before jq's builtins. */
static void ignores_a_library_in_home(void **state)
{
    (void)state;
    char dir[] = "/tmp/mr-home-XXXXXX";
    assert_non_null(mkdtemp(dir));
    mem_auto char *path = mem_format("%s/.jq", dir);
    mem_auto char *home = mem_dup(getenv("HOME") ? getenv("HOME") : "/");
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs("def length: $ENV.HOME;\n", file);
    fclose(file);
    setenv("HOME", dir, 1);
    assert_gives(".input.list | length", "3");
    assert_string_equal(getenv("HOME"), dir);
    setenv("HOME", home, 1);
    remove(path);
    remove(dir);
}

static unsigned trampolines;

static void count_and_run(void (*fn)(void *arg), void *arg)
{
    trampolines++;
    fn(arg);
}

static void runs_jq_where_it_is_told(void **state)
{
    (void)state;
    trampolines = 0;
    expr_set_trampoline(count_and_run);
    assert_gives(".input.list", "[3,1,2]");
    assert_int_equal(trampolines, 0); /* a path needs no jq */
    assert_gives(".input.list | length", "3");
    assert_int_equal(trampolines, 2);
    expr_set_trampoline(NULL);
}

/* Property: whatever native evaluation gives, jq gives for the same expression in brackets (which
 * is not of a native form). Expressions and documents are made from a generator with a fixed seed.
 */

static uint32_t seed = 12345;

static uint32_t choose(uint32_t below)
{
    seed = seed * 1664525u + 1013904223u;
    return (seed >> 10) % below;
}

static void make_path(struct buf *buf)
{
    static const char *const steps[] = {".a",   ".b",  ".c",      "[0]",
                                        "[-1]", "[1]", "[\"a\"]", ".\"b\""};
    static const char *const roots[] = {".a", ".b", ".c", ".[\"a\"]", ".\"c\"", "."};
    buf_add_text(buf, roots[choose(6)]);
    if (buf->data[buf->len - 1] == '.')
        return;
    for (uint32_t i = choose(4); i > 0; i--)
        buf_add_text(buf, steps[choose(8)]);
}

static void make_literal(struct buf *buf, bool scalar)
{
    static const char *const literals[] = {"null", "true", "false", "\"x\"", "\"\"", "1",
                                           "0",    "-1",   "2",     "[]",    "{}"};
    buf_add_text(buf, literals[choose(scalar ? 9 : 11)]);
}

static void make_expression(struct buf *buf)
{
    uint32_t count = 1 + choose(3);
    bool defaults = choose(2) == 0;
    for (uint32_t i = 0; i < count; i++) {
        if (i > 0)
            buf_add_text(buf, defaults ? " // " : choose(2) ? " and " : " or ");
        if (defaults && choose(3) == 0)
            make_literal(buf, false);
        else
            make_path(buf);
        if (!defaults && choose(2) == 0) {
            buf_add_text(buf, choose(2) ? " == " : " != ");
            make_literal(buf, true);
        }
    }
}

static void make_value(struct buf *buf, unsigned depth)
{
    static const char *const scalars[] = {"null", "true", "false", "\"x\"", "\"\"",
                                          "1",    "0",    "-1",    "1.0",   "2.5"};
    uint32_t kind = choose(depth > 3 ? 6 : 12);
    if (kind < 6) {
        buf_add_text(buf, scalars[choose(10)]);
        return;
    }
    bool object = kind < 9;
    buf_add_char(buf, object ? '{' : '[');
    uint32_t count = choose(4);
    for (uint32_t i = 0; i < count; i++) {
        if (i)
            buf_add_char(buf, ',');
        if (object)
            buf_format(buf, "\"%c\":", (char)('a' + i));
        make_value(buf, depth + 1);
    }
    buf_add_char(buf, object ? '}' : ']');
}

/* Equal but for 1 and 1.0, which are the same to jq. */
static bool same(const json_t *a, const json_t *b)
{
    if (json_is_number(a) && json_is_number(b))
        return json_number_value(a) == json_number_value(b);
    if (json_is_array(a) && json_is_array(b) && json_array_size(a) == json_array_size(b)) {
        for (size_t i = 0; i < json_array_size(a); i++)
            if (!same(json_array_get(a, i), json_array_get(b, i)))
                return false;
        return true;
    }
    if (json_is_object(a) && json_is_object(b) && json_object_size(a) == json_object_size(b)) {
        const char *key;
        json_t *value;
        json_object_foreach ((json_t *)(uintptr_t)a, key, value) {
            const json_t *other = json_object_get(b, key);
            if (!other || !same(value, other))
                return false;
        }
        return true;
    }
    return json_equal(a, b);
}

static void native_gives_what_jq_gives(void **state)
{
    (void)state;
    enum { EXPRESSIONS = 400, DOCUMENTS = 60 };
    struct expr_set *set = expr_set_new();
    struct report report;
    report_init(&report);
    static const mr_expr *native[EXPRESSIONS], *jq[EXPRESSIONS];
    static char *texts[EXPRESSIONS];
    for (size_t i = 0; i < EXPRESSIONS; i++) {
        struct buf text;
        buf_init(&text, 4096);
        make_expression(&text);
        texts[i] = buf_take(&text);
        mem_auto char *bracketed = mem_format("(%s)", texts[i]);
        native[i] = expr_add(set, texts[i], &report, NULL, texts[i]);
        jq[i] = expr_add(set, bracketed, &report, NULL, texts[i]);
        if (!native[i] || !jq[i])
            fail_msg("%s: %s", texts[i], report.items[0].message);
    }
    /* Not compiled yet: what needs jq says so, which tells the two kinds apart. */
    struct doc *none = doc_new();
    for (size_t i = 0; i < EXPRESSIONS; i++) {
        json_t *value = NULL;
        if (expr_eval(native[i], none, &value, NULL) == MR_E_INTERNAL)
            fail_msg("%s is not native", texts[i]);
        json_decref(value);
        value = NULL;
        assert_int_equal(expr_eval(jq[i], none, &value, NULL), MR_E_INTERNAL);
    }
    doc_free(none);
    if (!expr_set_compile(set, &report, NULL))
        fail_msg("%s", report.items[0].message);
    size_t values = 0, errors = 0;
    for (size_t d = 0; d < DOCUMENTS; d++) {
        struct doc *doc = doc_new();
        for (char name = 'a'; name <= 'c'; name++) {
            struct buf text;
            buf_init(&text, 1 << 20);
            make_value(&text, 0);
            doc_set_text(doc, (char[]){name, 0}, text.data, text.len);
            buf_done(&text);
        }
        for (size_t i = 0; i < EXPRESSIONS; i++) {
            json_hold json_t *a = NULL;
            json_hold json_t *b = NULL;
            struct error err = {0};
            int rc_native = expr_eval(native[i], doc, &a, &err),
                rc_jq = expr_eval(jq[i], doc, &b, &err);
            if (rc_native != rc_jq || (rc_jq == MR_OK && !same(a, b)))
                fail_msg("%s: native %d, jq %d %s; a=%s b=%s c=%s", texts[i], rc_native, rc_jq,
                         err.message, doc_text(doc, "a", NULL), doc_text(doc, "b", NULL),
                         doc_text(doc, "c", NULL));
            *(rc_jq == MR_OK ? &values : &errors) += 1;
        }
        doc_free(doc);
    }
    assert_true(values > 1000 && errors > 1000); /* both kinds were seen */
    for (size_t i = 0; i < EXPRESSIONS; i++)
        free(texts[i]);
    report_done(&report);
    expr_set_free(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(walks_plain_paths),
        cmocka_unit_test(takes_defaults_and_comparisons),
        cmocka_unit_test(uses_jq_for_the_rest),
        cmocka_unit_test(wants_one_result),
        cmocka_unit_test(goes_on_after_an_error),
        cmocka_unit_test(refuses_what_is_not_on_the_list),
        cmocka_unit_test(reports_what_jq_refuses),
        cmocka_unit_test(bounds_what_data_could_do),
        cmocka_unit_test(never_gives_big_integers_to_jq),
        cmocka_unit_test(knows_what_is_read),
        cmocka_unit_test(renders_templates),
        cmocka_unit_test(refuses_broken_templates),
        cmocka_unit_test(misses_nothing_in_text),
        cmocka_unit_test(keeps_constants_apart),
        cmocka_unit_test(tests_conditions),
        cmocka_unit_test(gets_by_path),
        cmocka_unit_test(ignores_a_library_in_home),
        cmocka_unit_test(runs_jq_where_it_is_told),
        cmocka_unit_test(native_gives_what_jq_gives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
