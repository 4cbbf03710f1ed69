"""Pipelines that tests write into their rigs."""


def ask(**stage):
    """One call of the model; what is said is the input's `say`."""
    return {
        "stages": [{
            "name": "ask", "plugin": "llm",
            "retry": {"attempts": 3, "backoff": "50ms", "max_backoff": "200ms"},
            "options": {"endpoint": "openai", "model": "m", "messages": [{"role": "user", "content": "{{ .input.say }}"}]},
            **stage,
        }],
        "result": "{{ .ask.text }}",
    }


def model(name, text, **options):
    """A stage that calls the model."""
    stage = {
        "name": name, "plugin": "llm", "retry": {"attempts": 3, "backoff": "50ms", "max_backoff": "200ms"},
        "options": {"endpoint": "openai", "model": "m", "messages": [{"role": "user", "content": text}]},
    }
    for key, value in options.items():
        if key in ("queue", "needs", "timeout", "when", "else", "on_failure", "retry"):
            stage[key] = value
        else:
            stage["options"][key] = value
    return stage


ECHO = {"stages": [{"name": "say", "plugin": "echo"}], "result": "{{ .say }}"}
STRICT = {
    "input": {
        "required": ["name"],
        "properties": {
            "name": {"type": "string", "minLength": 1},
            "count": {"type": "integer", "minimum": 1},
        },
    },
    "stages": [{"name": "say", "plugin": "echo"}],
    "result": "{{ .say }}",
}
NAP = {"stages": [{"name": "nap", "plugin": "sleep", "timeout": "1h", "options": {"for": "10m"}}]}
# Model, lookup-free transform, model, collect: the shape of most pipelines, all in one queue.
CHAIN = {
    "stages": [
        model("first", "first of {{ .input.n }}"),
        {"name": "middle", "plugin": "transform", "options": {"output": {"n": "{{ .input.n }}", "first": "{{ .first.text }}"}}},
        model("second", "second of {{ .input.n }}: {{ .middle.first }}"),
        {"name": "collect", "plugin": "transform",
         "options": {"output": {"n": "{{ .middle.n }}", "second": "{{ .second.text }}"}}},
    ],
    "result": "{{ .collect }}",
}
# The same with every second stage in a queue of its own: a lane a stage.
CHAIN_TWO_QUEUES = {
    "stages": [
        model("first", "first of {{ .input.n }}", queue="models"),
        {"name": "middle", "plugin": "transform", "options": {"output": {"n": "{{ .input.n }}"}}},
        model("second", "second of {{ .input.n }}", queue="models"),
        {"name": "collect", "plugin": "transform", "options": {"output": {"n": "{{ .middle.n }}"}}},
    ],
    "result": "{{ .collect }}",
}
