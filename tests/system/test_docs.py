"""The documentation against the programs and the sources: what a page says is run, loaded, compiled or compared."""

import json
import os
import re
import shutil
import subprocess

import pytest

import rig as rigs

DOCS = rigs.ROOT / "docs"
PAGES = [rigs.ROOT / "README.md", rigs.ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))]
PLUGINS = ("echo", "llm", "reward", "rule", "sleep", "sql", "template", "transform")
# What single stages on the pages read, and what else is there when they are checked.
STUBS = {
    "vision": {"name": "vision", "plugin": "echo", "needs": [], "options": {"output": {"middle": "glass"}}},
}


def page(name):
    return (DOCS / name).read_text()


def blocks(text, language):
    """The code blocks of a language, with the number of their first line."""
    found, start, kind = [], None, None
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start, kind = number + 1, line[3:].strip()
            continue
        if kind == language:
            found.append((start + 1, "".join(lines[start:number])))
        start = None
    assert start is None, "a code block without end"
    return found


def all_json(holds=lambda document: True):
    for path in PAGES:
        for line, text in blocks(path.read_text(), "json"):
            if holds(json.loads(text)):
                yield pytest.param(path, text, id=f"{path.name}:{line}")


def is_runnable(document):
    """A whole pipeline, or one stage; a job's `stages` are an object."""
    return isinstance(document.get("stages"), list) or "plugin" in document


def run(*argv, cwd=None, check=True, env=None):
    done = subprocess.run([str(a) for a in argv], cwd=cwd, capture_output=True, text=True, timeout=rigs.PATIENCE * 2,
                          stdin=subprocess.DEVNULL, check=False, env={**rigs.marked(cwd or rigs.ROOT), **(env or {})})
    assert not check or done.returncode == 0, (argv, done.returncode, done.stdout, done.stderr)
    return done


def millrace(*argv, **more):
    return run(rigs.BUILD / "bin" / "millrace", *argv, **more)


@pytest.fixture()
def config(tmp_path):
    """A configuration with what the pages take for granted: an endpoint, and the pipelines that ship."""
    path = tmp_path / "millrace.json"
    path.write_text(json.dumps({
        "pipelines": [str(rigs.ROOT / "pipelines")],
        "plugins": [str(rigs.BUILD / "plugins"), str(tmp_path)],
        "endpoints": {"openai": {"base_url": "http://127.0.0.1:1/v1", "api_key": "sk-docs"}},
    }))
    return path


def table_rows(text):
    """The rows of all tables, as lists of cells; a `\\|` is no end of a cell."""
    for line in text.splitlines():
        if line.startswith("|") and not re.match(r"^\|[-|: ]+\|$", line):
            yield [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip()[1:-1])]


def names_of(cell):
    return re.findall(r"`([^`]+)`", cell)


def section(text, title):
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    assert found, f"no section {title}"
    return found.group(1)


# ---- examples ----


@pytest.mark.parametrize("path, text", all_json())
def test_json_on_the_pages_parses(path, text):
    def unique(pairs):
        assert len({key for key, _ in pairs}) == len(pairs), pairs
        return dict(pairs)

    json.loads(text, object_pairs_hook=unique)


@pytest.mark.parametrize("path, text", all_json(is_runnable))
def test_pipelines_and_stages_on_the_pages_pass_check(path, text, config, tmp_path):
    document = json.loads(text)
    if "plugin" in document:  # one stage: gets a pipeline around it
        stubs = [stage for name, stage in STUBS.items() if f".{name}" in text]
        document = {"stages": [*stubs, document]}
        if "shout" in text:
            compile_shout(tmp_path)
    file = tmp_path / (document.get("name", "example") + ".json")
    file.write_text(json.dumps(document))
    done = millrace("check", file, "-c", config)
    assert "warning" not in done.stderr, done.stderr


def test_configurations_on_the_pages_load(tmp_path):
    (tmp_path / "pipelines").mkdir()
    seen = 0
    for path in PAGES:
        for line, text in blocks(path.read_text(), "json"):
            document = json.loads(text)
            if not isinstance(document.get("endpoints"), dict):
                continue
            seen += 1
            file = tmp_path / "millrace.json"
            file.write_text(text)
            done = millrace("check", "-c", file, check=False, env={"OPENAI_API_KEY": "sk-docs"})
            assert done.returncode == 0, (path, line, done.stderr)
    assert seen >= 2


def test_the_configuration_that_ships_passes_check():
    env = {"MILLRACE_PLUGINS": str(rigs.BUILD / "plugins")}  # in the file: those of build/
    file = rigs.ROOT / "conf" / "millrace.json"
    millrace("check", "-c", file, env=env)
    run(rigs.BUILD / "bin" / "millrace-fcgi", "-t", "-c", file, env=env)


def test_first_steps_run_as_the_page_says(tmp_path):
    text = page("first-steps.md")
    pipeline = blocks(text, "json")[0][1]
    (tmp_path / "hello.json").write_text(pipeline)
    commands = [line for _, block in blocks(text, "sh") for line in block.splitlines() if "hello.json" in line]
    assert len(commands) >= 2, commands
    for command in commands:
        done = run("sh", "-ec", command.replace("build/bin", str(rigs.BUILD / "bin")), cwd=tmp_path)
    said = blocks(text, "")[0][1]
    assert json.loads(done.stdout) == json.loads(said)


def compile_shout(folder):
    """Builds the plugin of writing-a-plugin.md by the command that stands there, into `folder`."""
    text = page("writing-a-plugin.md")
    (folder / "shout.c").write_text(blocks(text, "c")[0][1])
    command = next(line for line in blocks(text, "sh")[0][1].splitlines() if line.startswith("cc "))
    assert "-Icore/include" in command and "-o build/plugins/shout.so" in command, command
    command = command.replace("core/include", str(rigs.ROOT / "core" / "include")).replace("build/plugins/", "./")
    run("sh", "-ec", command + " -Wall -Wextra -Werror", cwd=folder)
    (folder / "shout.so").chmod(0o755)


def test_the_plugin_of_the_page_compiles_loads_and_runs(config, tmp_path):
    compile_shout(tmp_path)
    assert "How many exclamation marks." in millrace("plugins", "shout", "-c", config).stdout
    stage = json.loads(blocks(page("writing-a-plugin.md"), "json")[0][1])
    (tmp_path / "louder.json").write_text(json.dumps({"stages": [stage], "result": "{{ .loud }}"}))
    done = millrace("run", tmp_path / "louder.json", "-i", '{"who": "anybody there"}', "-c", config)
    assert json.loads(done.stdout) == "ANYBODY THERE!!!"
    done = millrace("run", tmp_path / "louder.json", "-i", json.dumps({"who": "x" * 1001}), "-c", config, check=False)
    assert done.returncode == 1 and "at most 1000" in done.stderr + done.stdout, done


def test_python_of_the_ids_page_computes_what_millrace_prints():
    (_, code), (_, child) = blocks(page("ids.md"), "python")
    space = {}
    exec(code, space)
    for value in ({}, {"b": 1, "a": [True, None, 1.5, 'é"\\\n']}, {"n": 2**63 - 1}, {"ключ": {"z": "значение"}}):
        printed = millrace("id", "prompt", "-i", json.dumps(value)).stdout.strip()
        assert space["job_id"]("prompt", value) == printed, value
    assert space["job_id"]("prompt", key="order-1") == millrace("id", "prompt", "--key", "order-1").stdout.strip()
    expression, _, said = child.strip().partition("#")
    computed = str(eval(expression, {"uuid": __import__("uuid")}))
    assert computed == said.strip() == millrace("id", "--name", "ownership:u1:c1").stdout.strip()


# ---- links ----


def anchors(path):
    """The anchors of a page's headings, as GitHub makes them."""
    found = set()
    for title in re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S), re.M):
        plain = re.sub(r"[^\w\- ]", "", title.replace("`", "").lower())
        found.add(plain.replace(" ", "-"))
    return found


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_links_between_pages_exist(path):
    text = re.sub(r"^```.*?^```$", "", path.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        other = (path.parent / file).resolve() if file else path
        assert other.exists(), f"{path.name}: {target} is not there"
        assert not anchor or anchor in anchors(other), f"{path.name}: {target}: no such heading"


@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_files_that_pages_name_exist(path):
    for name in re.findall(r"`((?:core|conf|docs|fcgi|pipelines|plugins|tests)/[\w./-]+\.[a-z]+)`", path.read_text()):
        assert (rigs.ROOT / name).exists(), f"{path.name}: {name}"


# ---- tables ----


def described(rows, before=""):
    for row in rows:
        yield before + row["name"], row
        yield from described(row.get("rows", []), before + row["name"] + "[].")


@pytest.mark.parametrize("plugin", PLUGINS)
def test_option_tables_match_the_plugins(plugin, config):
    about = json.loads(millrace("plugins", plugin, "--json", "-c", config).stdout)
    there = dict(described(about["options"]))
    text = section(page("plugins.md"), plugin)
    said = {names_of(cells[0])[0]: cells for cells in table_rows(text) if names_of(cells[0])}
    assert list(said) == list(there)
    for name, row in there.items():
        _, kind, default, *_ = said[name]
        assert kind == row["type"], (name, kind, row["type"])
        assert (default == "required") == row["required"], name
        if "default" in row and not row.get("secret"):
            words = names_of(default)
            assert words, (name, "has the default", row["default"])
            value = words[0] if row["type"] in ("duration", "choice", "text", "size") else json.loads(words[0])
            assert value == row["default"], (name, value, row["default"])


def test_every_plugin_has_its_section(config):
    listed = json.loads(millrace("plugins", "--json", "-c", config).stdout)
    assert sorted(each["name"] for each in listed) == sorted(PLUGINS)


def source_rows(path):
    """Option rows of a C source: {table: {name: default}}, the default as a page would show it."""
    found = {}
    text = (rigs.ROOT / path).read_text()
    for table, body in re.findall(r"static const struct mr_option (\w+)\[\] = \{(.*?)\n\};", text, re.S):
        rows = found.setdefault(table, {})
        for kind, name, rest in re.findall(r"MR_OPT_(\w+)\(\s*[\w ]+,\s*\w+,\s*\"(\w+)\",\s*(.*?)\),?\n(?=\s+MR_OPT|\Z|$)", body + "\n", re.S):
            default = None
            if kind != "LIST":
                text_of = re.match(r'"((?:[^"\\]|\\.)*)"', rest)
                default = text_of.group(1).replace('\\"', '"') if text_of else None
            rows[name] = default
    return found


def test_configuration_page_has_every_key_and_its_default():
    tables = source_rows("core/app/config_rows.c")
    text = page("configuration.md")
    said = {}
    for cells in table_rows(text):
        for name in names_of(cells[0]):
            said[name] = cells[2]
    where = {"top": "", "redis": "redis.", "endpoint": "endpoints.NAME.", "queue": "queues.NAME.", "retention": "retention.",
             "dead": "dead.", "limits": "limits.", "logs": "log.", "tasks": "tasks.", "token": "auth.tokens[].",
             "auth": "auth.", "cors": "cors.", "webhooks": "webhooks."}
    known = {"queues.serve", "limits.address_allow"}
    for table, before in where.items():
        assert table in tables and tables[table], table
        for name, default in tables[table].items():
            key = before + name
            known.add(key)
            if any(each.startswith(key + ".") for each in said):
                known.discard(key)  # a section
                continue
            assert key in said, f"{key} is not on the page"
            if default not in (None, ""):
                assert f"`{default}`" in said[key] or f'`"{default}"`' in said[key], (key, default, said[key])
    assert set(said) <= known, set(said) - known


def test_pipelines_page_has_every_member_and_its_default():
    tables = source_rows("core/run/pipeline.c")
    text = page("pipelines.md")
    for title, table in (("The file", "pipeline_options"), ("A stage", "stage_options")):
        said = {}
        for cells in table_rows(section(text, title)):
            for name in names_of(cells[0]):
                said[name] = cells[1]
        assert set(said) == set(tables[table]), title
        for name, default in tables[table].items():
            assert default is None or f"`{default}`" in said[name], (name, default, said[name])
    retry = next(cells[2] for cells in table_rows(section(text, "A stage")) if "`retry`" in cells[0])
    for name, default in tables["retry_options"].items():
        assert f"`{name}`" in retry and default in retry, (name, retry)


def test_pipelines_page_lists_the_functions_that_are_allowed():
    source = (rigs.ROOT / "core" / "base" / "expr_words.c").read_text()
    rows = re.search(r"struct word words\[\] = \{(.*?)\n\};", source, re.S).group(1)
    allowed = sorted(set(re.findall(r'\{"(\w+)"', rows)))
    listed = re.search(r"<!-- functions.*?-->\n```\n(.*?)```", page("pipelines.md"), re.S).group(1).split()
    assert listed == allowed


def test_pipelines_page_lists_the_schema_keywords():
    source = (rigs.ROOT / "core" / "run" / "pipeline_schema.c").read_text()
    keywords = re.findall(r'"([$\w]+)"', re.search(r"keywords\[\] = \{(.*?)NULL", source, re.S).group(1))
    text = section(page("pipelines.md"), "The input")
    assert [word for word in keywords if f"`{word}`" not in text] == []


def test_http_page_has_every_route_and_code():
    text = page("http-api.md")
    routes = re.findall(r'X\((\w+), "([^"]+)"', (rigs.ROOT / "fcgi" / "routes.h").read_text())
    assert routes
    for method, path in routes:
        last = path.rsplit("/", 1)[-1]
        assert f"{method} {path}" in text or f"`{path}`" in text or f"/{last}`" in text, (method, path)
    header = (rigs.ROOT / "core" / "include" / "millrace" / "plugin.h").read_text()
    stored = header[header.index("#define MR_ERRORS"): header.index("Never stored in a job")]
    codes = re.findall(r'X\(\w+, -\d+, "(\w+)"', stored)
    assert codes and [code for code in codes if not re.search(rf"\b{code}\b", text)] == []


# ---- man pages ----


def test_man_pages_name_every_verb_and_key():
    man = (DOCS / "man" / "millrace.1").read_text()
    verbs = re.findall(r"^  ([a-z]+)\b", millrace("--help").stdout.partition("Options of every verb")[0], re.M)
    assert {"check", "run", "plugins", "id", "submit", "status", "watch"} <= set(verbs), verbs
    named = set(re.findall(r"\bIc ([a-z]+)", man))
    assert set(verbs) <= named and named <= set(verbs), named ^ set(verbs)
    words = set()
    for line in (DOCS / "man" / "millrace.json.5").read_text().splitlines():
        if re.match(r"^\.(It )?Cm ", line):
            words |= set(re.findall(r"[a-z_0-9]+", line))
    missing = [
        name for table, rows in source_rows("core/app/config_rows.c").items() if table != "price"
        for name in rows if name not in words
    ]
    assert missing == []


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
@pytest.mark.parametrize("name", ["millrace.1", "millrace-fcgi.8", "millrace.json.5"])
def test_man_pages_are_formatted_without_complaint(name):
    done = run("groff", "-mandoc", "-Tutf8", "-P-cbou", "-ww", DOCS / "man" / name)
    assert done.stderr == "" and "NAME" in done.stdout


# ---- the schema for editors ----


KINDS = {
    "object": lambda v: isinstance(v, dict), "array": lambda v: isinstance(v, list), "string": lambda v: isinstance(v, str),
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool), "boolean": lambda v: isinstance(v, bool),
    "number": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool), "null": lambda v: v is None,
}
NOTES = {"$schema", "$id", "$defs", "$comment", "title", "description", "default", "examples"}


class Schema:
    """As much of JSON Schema 2020-12 as docs/pipeline.schema.json uses; anything else in it is an error."""

    def __init__(self, root):
        self.root = root

    def faults(self, schema, value, at=""):
        if isinstance(schema, bool):
            return [] if schema else [f"{at}: nothing is allowed here"]
        found = []
        for word, rule in schema.items():
            if word not in NOTES and word not in ("then", "else"):
                method = getattr(self, "check_" + word.lstrip("$").lower(), None)
                assert method, f"the keyword {word} is not known to this test"
                found += method(rule, value, at, schema)
        return found

    def check_ref(self, rule, value, at, schema):
        target = self.root
        assert rule.startswith("#")
        for part in rule[1:].split("/")[1:]:
            target = target[part.replace("~1", "/").replace("~0", "~")]
        return self.faults(target, value, at)

    def check_type(self, rule, value, at, schema):
        kinds = rule if isinstance(rule, list) else [rule]
        return [] if any(KINDS[kind](value) for kind in kinds) else [f"{at}: not of type {rule}"]

    def check_enum(self, rule, value, at, schema):
        return [] if value in rule else [f"{at}: not one of {rule}"]

    def check_const(self, rule, value, at, schema):
        return [] if value == rule else [f"{at}: not {rule}"]

    def check_pattern(self, rule, value, at, schema):
        return [] if not isinstance(value, str) or re.search(rule, value) else [f"{at}: does not match {rule}"]

    def check_required(self, rule, value, at, schema):
        return [f"{at}: lacks {name}" for name in rule if isinstance(value, dict) and name not in value]

    def check_properties(self, rule, value, at, schema):
        if not isinstance(value, dict):
            return []
        return [f for name, part in value.items() if name in rule for f in self.faults(rule[name], part, f"{at}/{name}")]

    def check_patternproperties(self, rule, value, at, schema):
        if not isinstance(value, dict):
            return []
        return [f for pattern, inner in rule.items() for name, part in value.items() if re.search(pattern, name)
                for f in self.faults(inner, part, f"{at}/{name}")]

    def check_additionalproperties(self, rule, value, at, schema):
        if not isinstance(value, dict):
            return []
        others = [name for name in value if name not in schema.get("properties", {})
                  and not any(re.search(pattern, name) for pattern in schema.get("patternProperties", {}))]
        return [f for name in others for f in self.faults(rule, value[name], f"{at}/{name}")]

    def check_propertynames(self, rule, value, at, schema):
        return [f for name in value for f in self.faults(rule, name, f"{at}/{name}")] if isinstance(value, dict) else []

    def check_items(self, rule, value, at, schema):
        if not isinstance(value, list):
            return []
        return [f for i, part in enumerate(value) for f in self.faults(rule, part, f"{at}/{i}")]

    def check_minitems(self, rule, value, at, schema):
        return [f"{at}: too few"] if isinstance(value, list) and len(value) < rule else []

    def check_maxitems(self, rule, value, at, schema):
        return [f"{at}: too many"] if isinstance(value, list) and len(value) > rule else []

    def check_uniqueitems(self, rule, value, at, schema):
        twice = isinstance(value, list) and len({json.dumps(v, sort_keys=True) for v in value}) < len(value)
        return [f"{at}: something twice"] if rule and twice else []

    def check_minlength(self, rule, value, at, schema):
        return [f"{at}: too short"] if isinstance(value, str) and len(value) < rule else []

    def check_maxlength(self, rule, value, at, schema):
        return [f"{at}: too long"] if isinstance(value, str) and len(value) > rule else []

    def check_minimum(self, rule, value, at, schema):
        return [f"{at}: too small"] if KINDS["number"](value) and value < rule else []

    def check_maximum(self, rule, value, at, schema):
        return [f"{at}: too large"] if KINDS["number"](value) and value > rule else []

    def check_anyof(self, rule, value, at, schema):
        every = [self.faults(inner, value, at) for inner in rule]
        return [] if any(not each for each in every) else [f"{at}: none of {every}"]

    def check_oneof(self, rule, value, at, schema):
        fits = sum(not self.faults(inner, value, at) for inner in rule)
        return [] if fits == 1 else [f"{at}: {fits} of oneOf fit"]

    def check_allof(self, rule, value, at, schema):
        return [f for inner in rule for f in self.faults(inner, value, at)]

    def check_not(self, rule, value, at, schema):
        return [] if self.faults(rule, value, at) else [f"{at}: is what it must not be"]

    def check_if(self, rule, value, at, schema):
        branch = "else" if self.faults(rule, value, at) else "then"
        return self.faults(schema[branch], value, at) if branch in schema else []


def pipelines_that_ship():
    return [path for path in sorted((rigs.ROOT / "pipelines").glob("*.json")) if re.fullmatch(r"[a-z0-9-]+\.json", path.name)]


def test_the_schema_accepts_what_ships_and_what_pages_show():
    schema = json.loads((DOCS / "pipeline.schema.json").read_text())
    checker = Schema(schema)
    shipped = pipelines_that_ship()
    assert len(shipped) >= 6
    documents = [(path.name, json.loads(path.read_text())) for path in shipped]
    for path in PAGES:
        for line, text in blocks(path.read_text(), "json"):
            document = json.loads(text)
            if isinstance(document.get("stages"), list):
                documents.append((f"{path.name}:{line}", document))
    assert {name: faults for name, document in documents if (faults := checker.faults(schema, document))} == {}


def test_the_schema_refuses_what_is_wrong():
    schema = json.loads((DOCS / "pipeline.schema.json").read_text())
    checker = Schema(schema)
    stage = {"name": "a", "plugin": "echo"}
    assert checker.faults(schema, {"stages": [stage]}) == []
    for wrong in (
        {}, {"stages": []}, {"stages": [{"name": "a"}]}, {"stages": [stage], "stage": 1}, {"stages": [{**stage, "timeout": 5}]},
        {"stages": [{**stage, "name": "A b"}]}, {"stages": [{**stage, "need": []}]}, {"stages": [{**stage, "retry": {"tries": 3}}]},
        {"stages": [stage], "deadline": "soon"},
    ):
        assert checker.faults(schema, wrong), wrong


def test_the_schema_has_every_member():
    text = (DOCS / "pipeline.schema.json").read_text()
    tables = source_rows("core/run/pipeline.c")
    found = []

    def walk(value):
        if isinstance(value, dict):
            if isinstance(value.get("properties"), dict):
                found.append(set(value["properties"]))
            for part in value.values():
                walk(part)
        elif isinstance(value, list):
            for part in value:
                walk(part)

    walk(json.loads(text))
    for table in ("pipeline_options", "stage_options", "retry_options", "retention_options"):
        assert any(set(tables[table]) <= names for names in found), (table, tables[table])
