/* The subset of JSON Schema for inputs: checking a schema, and a value against it.
 *
 * Two recursions over one table of keywords. Their depth is bounded by json_read, which lets
 * nothing deeper than LIMIT_JSON_DEPTH in. Numbers compare as JSON Schema says (draft 2020-12,
 * section 6.1): 1.0 is an integer, and 1 equals 1.0 in `enum` and `const`. */
#include "run/pipeline_schema.h"

#include <math.h>
#include <string.h>

struct walk {
    const char *file;
    struct report *report;
    struct buf pointer;
};

static const char *const keywords[] = {
    "type",     "required",  "properties",  "additionalProperties",
    "enum",     "const",     "items",       "minItems",
    "maxItems", "minLength", "maxLength",   "minimum",
    "maximum",  "title",     "description", "default",
    "examples", "$schema",   NULL,
};
static const char *const types[] = {
    "object", "array", "string", "number", "integer", "boolean", "null", NULL,
};

static bool is_word(const char *word, const char *const *words)
{
    for (; *words != NULL; words++)
        if (strcmp(word, *words) == 0)
            return true;
    return false;
}

static struct error *fault(struct walk *walk, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static struct error *fault(struct walk *walk, const char *format, ...)
{
    char message[300];
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof(message), format, args);
    va_end(args);
    return report_add(walk->report, walk->file, buf_text(&walk->pointer), "%s", message);
}

static size_t enter(struct walk *walk, const char *token)
{
    size_t mark = walk->pointer.len;
    json_pointer_push(&walk->pointer, token);
    return mark;
}

static size_t enter_index(struct walk *walk, size_t index)
{
    size_t mark = walk->pointer.len;
    json_pointer_push_index(&walk->pointer, index);
    return mark;
}

static void leave(struct walk *walk, size_t mark)
{
    walk->pointer.len = mark;
    walk->pointer.failed = false;
    if (walk->pointer.data != NULL)
        walk->pointer.data[mark] = '\0';
}

/* The schema itself */

static void check_schema(struct walk *walk, const json_t *schema);

static void check_type_word(struct walk *walk, const json_t *type)
{
    const char *word = json_string_value(type);
    if (word == NULL || !is_word(word, types)) {
        struct error *err = fault(walk, "\"%s\" is not a type", word != NULL ? word : "?");
        const char *near = word != NULL ? error_nearest(word, types) : NULL;
        if (near != NULL)
            error_hint(err, "did you mean \"%s\"?", near);
        else
            error_hint(err, "object, array, string, number, integer, boolean or null");
    }
}

static void check_type(struct walk *walk, const json_t *type)
{
    if (!json_is_array(type)) {
        check_type_word(walk, type);
        return;
    }
    if (json_array_size(type) == 0)
        fault(walk, "must name a type");
    for (size_t i = 0; i < json_array_size(type); i++) {
        size_t mark = enter_index(walk, i);
        check_type_word(walk, json_array_get(type, i));
        leave(walk, mark);
    }
}

static void check_names(struct walk *walk, const json_t *names)
{
    if (!json_is_array(names))
        fault(walk, "must be an array of names");
    for (size_t i = 0; i < json_array_size(names); i++) {
        size_t mark = enter_index(walk, i);
        if (!json_is_string(json_array_get(names, i)))
            fault(walk, "must be a string");
        leave(walk, mark);
    }
}

static void check_properties(struct walk *walk, const json_t *properties)
{
    const char *name;
    json_t *schema;
    if (!json_is_object(properties))
        fault(walk, "must be an object of schemas by name");
    json_object_foreach ((json_t *)properties, name, schema) {
        size_t mark = enter(walk, name);
        check_schema(walk, schema);
        leave(walk, mark);
    }
}

static bool is_count_word(const char *word)
{
    return strncmp(word, "min", 3) == 0 || strncmp(word, "max", 3) == 0;
}

static void check_keyword(struct walk *walk, const char *word, const json_t *value)
{
    if (strcmp(word, "type") == 0) {
        check_type(walk, value);
    } else if (strcmp(word, "required") == 0) {
        check_names(walk, value);
    } else if (strcmp(word, "properties") == 0) {
        check_properties(walk, value);
    } else if (strcmp(word, "items") == 0) {
        check_schema(walk, value);
    } else if (strcmp(word, "additionalProperties") == 0) {
        if (!json_is_boolean(value))
            check_schema(walk, value);
    } else if (strcmp(word, "enum") == 0) {
        if (json_array_size(value) == 0)
            fault(walk, "must be an array with at least one value");
    } else if (strcmp(word, "minimum") == 0 || strcmp(word, "maximum") == 0) {
        if (!json_is_number(value))
            fault(walk, "must be a number");
    } else if (is_count_word(word)) {
        if (!json_is_integer(value) || json_integer_value(value) < 0)
            fault(walk, "must be an integer of at least 0");
    }
}

static void check_schema(struct walk *walk, const json_t *schema)
{
    const char *word;
    json_t *value;
    if (!json_is_object(schema)) {
        fault(walk, "a schema is an object");
        return;
    }
    json_object_foreach ((json_t *)schema, word, value) {
        if (strncmp(word, "//", 2) == 0)
            continue;
        size_t mark = enter(walk, word);
        if (is_word(word, keywords)) {
            check_keyword(walk, word, value);
        } else {
            struct error *err = fault(walk, "keyword \"%s\" is not known", word);
            const char *near = error_nearest(word, keywords);
            if (near != NULL)
                error_hint(err, "did you mean \"%s\"?", near);
            else
                error_hint(err, "known are type, required, properties, additionalProperties, "
                                "enum, const, items, min/maxItems, min/maxLength, minimum, "
                                "maximum");
        }
        leave(walk, mark);
    }
}

bool schema_check(const json_t *schema, const char *file, const char *pointer,
                  struct report *report)
{
    struct walk walk = {.file = file, .report = report};
    size_t before = report_errors(report);
    buf_init(&walk.pointer, 4096);
    buf_add_text(&walk.pointer, pointer);
    check_schema(&walk, schema);
    buf_done(&walk.pointer);
    return report_errors(report) == before;
}

/* A value */

static const char *type_of(const json_t *value)
{
    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return "object";
    case JSON_ARRAY:
        return "array";
    case JSON_STRING:
        return "string";
    case JSON_INTEGER:
        return "integer";
    case JSON_REAL:
        return "number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "boolean";
    case JSON_NULL:
        break;
    }
    return "null";
}

static bool is_type(const json_t *value, const char *word)
{
    if (strcmp(word, "number") == 0)
        return json_is_number(value);
    if (strcmp(word, "integer") == 0 && json_is_real(value)) {
        double real = json_real_value(value);
        return trunc(real) == real;
    }
    return strcmp(type_of(value), word) == 0;
}

static bool equal(const json_t *a, const json_t *b)
{
    if (json_is_number(a) && json_is_number(b) && json_typeof(a) != json_typeof(b))
        return json_number_value(a) == json_number_value(b);
    return json_equal(a, b);
}

static size_t characters(const json_t *string)
{
    const char *text = json_string_value(string);
    size_t count = 0;
    for (size_t i = 0; i < json_string_length(string); i++)
        count += ((unsigned char)text[i] & 0xc0) != 0x80;
    return count;
}

static bool validate_type(struct walk *walk, const json_t *type, const json_t *value)
{
    struct buf wanted;
    buf_init(&wanted, 200);
    bool fits = false;
    size_t count = json_is_array(type) ? json_array_size(type) : 1;
    for (size_t i = 0; i < count && !fits; i++) {
        const char *word = json_string_value(json_is_array(type) ? json_array_get(type, i) : type);
        fits = is_type(value, word);
        buf_format(&wanted, "%s%s", i > 0 ? " or " : "", word);
    }
    if (!fits)
        fault(walk, "must be of type %s, not %s", buf_text(&wanted), type_of(value));
    buf_done(&wanted);
    return fits;
}

static void validate(struct walk *walk, const json_t *schema, const json_t *value);

static void validate_object(struct walk *walk, const json_t *schema, const json_t *value)
{
    const json_t *required = json_object_get(schema, "required");
    const json_t *properties = json_object_get(schema, "properties");
    const json_t *others = json_object_get(schema, "additionalProperties");
    for (size_t i = 0; i < json_array_size(required); i++) {
        const char *name = json_string_value(json_array_get(required, i));
        if (json_object_get(value, name) != NULL)
            continue;
        size_t mark = enter(walk, name);
        fault(walk, "is required");
        leave(walk, mark);
    }
    const char *name;
    json_t *member;
    json_object_foreach ((json_t *)value, name, member) {
        const json_t *own = json_object_get(properties, name);
        size_t mark = enter(walk, name);
        if (own != NULL) {
            validate(walk, own, member);
        } else if (json_is_false(others)) {
            struct error *err = fault(walk, "is not known here");
            const char *known;
            json_t *ignored;
            size_t count = 0;
            const char *words[65] = {0};
            json_object_foreach ((json_t *)properties, known, ignored) {
                if (count < 64)
                    words[count++] = known;
            }
            const char *near = error_nearest(name, words);
            if (near != NULL)
                error_hint(err, "did you mean \"%s\"?", near);
        } else if (json_is_object(others)) {
            validate(walk, others, member);
        }
        leave(walk, mark);
    }
}

static void validate_count(struct walk *walk, const json_t *schema, const char *least_word,
                           const char *most_word, size_t count, const char *unit)
{
    const json_t *least = json_object_get(schema, least_word);
    const json_t *most = json_object_get(schema, most_word);
    if (least != NULL && count < (size_t)json_integer_value(least))
        fault(walk, "has %zu %s, fewer than %" JSON_INTEGER_FORMAT, count, unit,
              json_integer_value(least));
    if (most != NULL && count > (size_t)json_integer_value(most))
        fault(walk, "has %zu %s, more than %" JSON_INTEGER_FORMAT, count, unit,
              json_integer_value(most));
}

static int number_order(const json_t *a, const json_t *b)
{
    if (json_is_integer(a) && json_is_integer(b)) {
        json_int_t x = json_integer_value(a), y = json_integer_value(b);
        return (x > y) - (x < y);
    }
    double x = json_number_value(a), y = json_number_value(b);
    return (x > y) - (x < y);
}

static void validate_number(struct walk *walk, const json_t *schema, const json_t *value)
{
    const json_t *least = json_object_get(schema, "minimum");
    const json_t *most = json_object_get(schema, "maximum");
    if (least != NULL && number_order(value, least) < 0)
        fault(walk, "must be at least %g", json_number_value(least));
    if (most != NULL && number_order(value, most) > 0)
        fault(walk, "must be at most %g", json_number_value(most));
}

static void validate_choice(struct walk *walk, const json_t *schema, const json_t *value)
{
    const json_t *only = json_object_get(schema, "const");
    const json_t *choices = json_object_get(schema, "enum");
    if (only != NULL && !equal(only, value))
        fault(walk, "is not the one value that is allowed");
    if (choices == NULL)
        return;
    struct buf words;
    buf_init(&words, 160);
    for (size_t i = 0; i < json_array_size(choices); i++) {
        const json_t *choice = json_array_get(choices, i);
        if (equal(choice, value)) {
            buf_done(&words);
            return;
        }
        if (json_is_string(choice))
            buf_format(&words, "%s\"%s\"", words.len > 0 ? ", " : "", json_string_value(choice));
    }
    struct error *err = fault(walk, "is not one of the values that are allowed");
    if (words.len > 0)
        error_hint(err, "%s", buf_text(&words));
    buf_done(&words);
}

static void validate(struct walk *walk, const json_t *schema, const json_t *value)
{
    const json_t *type = json_object_get(schema, "type");
    if (type != NULL && !validate_type(walk, type, value))
        return;
    validate_choice(walk, schema, value);
    if (json_is_object(value)) {
        validate_object(walk, schema, value);
    } else if (json_is_string(value)) {
        validate_count(walk, schema, "minLength", "maxLength", characters(value), "characters");
    } else if (json_is_number(value)) {
        validate_number(walk, schema, value);
    } else if (json_is_array(value)) {
        const json_t *items = json_object_get(schema, "items");
        validate_count(walk, schema, "minItems", "maxItems", json_array_size(value), "items");
        for (size_t i = 0; items != NULL && i < json_array_size(value); i++) {
            size_t mark = enter_index(walk, i);
            validate(walk, items, json_array_get(value, i));
            leave(walk, mark);
        }
    }
}

bool schema_validate(const json_t *schema, const json_t *value, const char *pointer,
                     struct report *report)
{
    struct walk walk = {.report = report};
    size_t before = report_errors(report);
    buf_init(&walk.pointer, 4096);
    buf_add_text(&walk.pointer, pointer);
    validate(&walk, schema, value);
    buf_done(&walk.pointer);
    return report_errors(report) == before;
}
