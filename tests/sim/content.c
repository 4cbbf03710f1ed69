/*
 * content: see content.h. The tables are all the knowledge the simulator has.
 */
#include "content.h"

#include <stdlib.h>
#include <string.h>

#define SCHEMA_DEPTH_MAX 16
#define QUOTE_MAX        160

/* What a picture shows, by a word in the file name of its URL; data: URLs and all others show the
 * first row. */
static const struct {
    const char *word;
    const char *major;
    const char *middle;
    const char *minor;
} pictures[] = {
    {"pet", "플라스틱류", "무색페트병", "생수병"},
    {"plastic", "플라스틱류", "플라스틱용기", "세제 용기"},
    {"carton", "종이류", "종이팩", "우유팩"},
    {"paper", "종이류", "신문지", "신문"},
    {"box", "종이류", "골판지상자", "택배 상자"},
    {"glass", "유리병류", "음료병", "주스병"},
    {"can", "금속캔류", "알루미늄캔", "음료 캔"},
    {"vinyl", "비닐류", "비닐봉투", "과자 봉지"},
    {"styrofoam", "스티로폼류", "포장재", "완충재"},
    {"battery", "전지류", "건전지", "AA 건전지"},
    {"lamp", "형광등류", "형광등", "직관형 형광등"},
    {"meteorite", "기타", "운석", "철질 운석"},
};

/* What a user is told, by a word in the prompt. */
static const struct {
    const char *word;
    const char *answer;
} advice[] = {
    {"무색페트병", "내용물을 비우고 헹군 뒤 라벨을 떼어 내세요. "
                   "찌그러뜨려 뚜껑을 닫고 무색 페트병 전용 수거함에 넣어 주세요."},
    {"종이팩", "내용물을 비우고 헹구어 펼쳐 말린 뒤 종이팩 전용 수거함에 넣어 주세요."},
    {"건전지", "가까운 폐건전지 수거함에 넣어 주세요."},
    {"", "재질별로 나누어 비우고 헹군 뒤 배출해 주세요."},
};

static void vision(const struct ask *ask, struct buf *out)
{
    size_t row = 0;

    if (strncmp(ask->image_url, "data:", 5) != 0) {
        const char *slash = strrchr(ask->image_url, '/');
        const char *name = slash ? slash : ask->image_url;

        for (size_t i = sizeof pictures / sizeof pictures[0]; i-- > 0;) {
            if (strcasestr(name, pictures[i].word))
                row = i;
        }
    }
    buf_format(out,
               "{\"major\":\"%s\",\"middle\":\"%s\",\"minor\":\"%s\",\"confidence\":0.97,"
               "\"reason\":\"simulated classification\"}",
               pictures[row].major, pictures[row].middle, pictures[row].minor);
}

static void schema_instance(const json_t *schema, struct buf *out, int depth);

static const char *schema_type(const json_t *schema)
{
    json_t *type = json_object_get(schema, "type");

    if (json_is_array(type))
        type = json_array_get(type, 0);
    if (json_is_string(type))
        return json_string_value(type);
    return json_object_get(schema, "properties") ? "object" : "string";
}

static void schema_object(const json_t *schema, struct buf *out, int depth)
{
    const char *key;
    json_t *value;
    bool first = true;

    buf_text(out, "{");
    json_object_foreach (json_object_get(schema, "properties"), key, value) {
        if (!first)
            buf_text(out, ",");
        first = false;
        buf_json(out, key, strlen(key));
        buf_text(out, ":");
        schema_instance(value, out, depth + 1);
    }
    buf_text(out, "}");
}

static void schema_array(const json_t *schema, struct buf *out, int depth)
{
    json_int_t count = json_integer_value(json_object_get(schema, "minItems"));

    count = count < 1 ? 1 : count > 100 ? 100 : count;
    buf_text(out, "[");
    for (json_int_t i = 0; i < count; i++) {
        if (i > 0)
            buf_text(out, ",");
        schema_instance(json_object_get(schema, "items"), out, depth + 1);
    }
    buf_text(out, "]");
}

static void schema_string(const json_t *schema, struct buf *out)
{
    json_int_t min = json_integer_value(json_object_get(schema, "minLength"));
    json_t *max = json_object_get(schema, "maxLength");
    json_int_t length = 9;

    if (min > length)
        length = min > 10000 ? 10000 : min;
    if (json_is_integer(max) && json_integer_value(max) < length)
        length = json_integer_value(max);
    buf_text(out, "\"");
    for (json_int_t i = 0; i < length; i++)
        buf_add(out, &"simulated"[i % 9], 1);
    buf_text(out, "\"");
}

/* Writes a value that fits the usual members of a schema (type, enum, const, properties, items,
 * bounds). */
static void schema_instance(const json_t *schema, struct buf *out, int depth)
{
    json_t *given = json_object_get(schema, "const");
    const char *type = schema_type(schema);

    if (!given)
        given = json_array_get(json_object_get(schema, "enum"), 0);
    if (given) {
        char *text = json_dumps(given, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));

        buf_text(out, text ? text : "null");
        free(text);
    } else if (depth > SCHEMA_DEPTH_MAX || strcmp(type, "null") == 0) {
        buf_text(out, "null");
    } else if (strcmp(type, "object") == 0) {
        schema_object(schema, out, depth);
    } else if (strcmp(type, "array") == 0) {
        schema_array(schema, out, depth);
    } else if (strcmp(type, "boolean") == 0) {
        buf_text(out, "true");
    } else if (strcmp(type, "integer") == 0 || strcmp(type, "number") == 0) {
        json_t *minimum = json_object_get(schema, "minimum");

        buf_format(out, "%.15g", minimum ? json_number_value(minimum) : 0.0);
    } else {
        schema_string(schema, out);
    }
}

/* The prompt, cut to a bounded length at a character's border and with its line breaks kept. */
static void quote_prompt(const struct ask *ask, struct buf *out)
{
    const char *user = ask->user ? ask->user : "";

    buf_add(out, user, utf8_clip(user, strlen(user), QUOTE_MAX));
}

static void json_by_prompt(const struct ask *ask, struct buf *out)
{
    if (ask_contains(ask, "user_answer")) {
        size_t row = 0;

        while (advice[row].word[0] && !ask_contains(ask, advice[row].word))
            row++;
        buf_text(out, "{\"user_answer\":");
        buf_json(out, advice[row].answer, strlen(advice[row].answer));
        buf_text(out, ",\"insufficiencies\":[]}");
        return;
    }
    struct buf quoted = {0};
    buf_text(&quoted, "Simulated answer to: ");
    quote_prompt(ask, &quoted);
    buf_text(out, "{\"answer\":");
    buf_json(out, quoted.p, quoted.n);
    buf_text(out, ",\"confidence\":0.9}");
    buf_free(&quoted);
}

const char *content_make(const struct ask *ask, struct buf *out)
{
    if (ask->schema) {
        schema_instance(ask->schema, out, 0);
        return "schema";
    }
    if (ask->image_url) {
        vision(ask, out);
        return "vision";
    }
    if (ask->json) {
        json_by_prompt(ask, out);
        return "json";
    }
    buf_text(out, "Simulated answer to: ");
    quote_prompt(ask, out);
    return "text";
}
