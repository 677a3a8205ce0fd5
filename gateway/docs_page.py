"""The API's description as one page of HTML: no script, nothing loaded from anywhere."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from html import escape
from textwrap import dedent
from typing import Any

Document = Mapping[str, Any]

_STYLE = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#5b6675;--line:#dfe4ea;--paper:#fff;
--side:#f6f8fa;--code:#f2f5f8;--get:#0b6e4f;--post:#9a4b00;--link:#0a58a6}
@media(prefers-color-scheme:dark){:root{--ink:#dde4ec;--soft:#94a1b2;--line:#2b3440;--paper:#12171d;
--side:#171d25;--code:#1b222b;--get:#5cc79f;--post:#f0a35e;--link:#7db7f2}}
*{box-sizing:border-box}html{scroll-padding-top:1rem}
body{margin:0;font:16px/1.55 system-ui,sans-serif;color:var(--ink);background:var(--paper)}
a{color:var(--link);text-decoration:none}a:hover{text-decoration:underline}
.page{display:grid;grid-template-columns:17rem minmax(0,1fr);max-width:78rem;margin:0 auto}
nav{position:sticky;top:0;height:100vh;overflow:auto;padding:1.5rem 1rem;background:var(--side);
border-right:1px solid var(--line);font-size:.875rem}
nav b{display:block;margin:1.1rem 0 .3rem}summary b{display:inline}
nav a{display:block;padding:.15rem 0;color:var(--ink);
overflow-wrap:anywhere}
main{padding:1.5rem 2rem 5rem;min-width:0}h1{margin:.2rem 0 .6rem}
h2{margin:3rem 0 .5rem;padding-bottom:.3rem;border-bottom:1px solid var(--line)}
h3{margin:2.2rem 0 .4rem;font-size:1.05rem;overflow-wrap:anywhere}h4{margin:1rem 0 .3rem}
code,pre{font:.875em/1.5 ui-monospace,monospace;background:var(--code);border-radius:4px}
code{padding:.1em .3em;overflow-wrap:anywhere}pre{padding:.8rem 1rem;overflow:auto}
pre code{padding:0;overflow-wrap:normal}
.verb{font:700 .75rem ui-monospace,monospace;margin-right:.5rem;color:var(--post)}
.get{color:var(--get)}.soft{color:var(--soft)}.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.875rem}
th,td{text-align:left;vertical-align:top;padding:.4rem .6rem .4rem 0;
border-bottom:1px solid var(--line)}
th{color:var(--soft);font-weight:600}td:first-child{white-space:nowrap}
details{margin:.4rem 0}summary{cursor:pointer}
@media(max-width:52rem){.page{display:block}nav{position:static;height:auto;max-height:45vh;
border:0;border-bottom:1px solid var(--line)}
main{padding:1rem}td:first-child{white-space:normal}}
"""
_VERBS = ("get", "post", "put", "patch", "delete")


def policy() -> str:
    """The Content-Security-Policy of the page: its own style and nothing else."""
    mark = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
    return (
        f"default-src 'none'; style-src 'sha256-{mark}'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


def render(document: Document) -> bytes:
    """The page, as UTF-8."""
    title = escape(document["info"]["title"])
    groups = list(_groups(document))
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{title}</title><style>{_STYLE}</style></head>"
        f'<body><div class="page"><nav aria-label="Routes"><a href="#top"><b>{title}</b></a>'
        f"{''.join(_menu(name, found) for name, found in groups)}"
        "<details><summary><b>Schemas</b></summary>"
        f"{''.join(_schema_link(name) for name in document['components']['schemas'])}"
        "</details></nav>"
        f'<main id="top"><h1>{title}</h1>'
        f'<p class="soft">Version {escape(document["info"]["version"])} &middot; '
        '<a href="/openapi.json">OpenAPI 3.1</a></p>'
        f"{_prose(document['info']['description'])}"
        f"{''.join(_group(document, name, found) for name, found in groups)}"
        f"<h2>Schemas</h2>{''.join(_schemas(document))}</main></div></body></html>"
    )
    return page.encode()


_Operation = tuple[str, str, Mapping[str, Any]]


def _groups(document: Document) -> Iterator[tuple[str, list[_Operation]]]:
    """Operations by tag, in the order in which the tags appear."""
    found: dict[str, list[_Operation]] = {tag["name"]: [] for tag in document["tags"]}
    for path, item in document["paths"].items():
        for verb in _VERBS:
            if verb in item:
                found.setdefault(item[verb]["tags"][0], []).append((verb, path, item[verb]))
    return iter(found.items())


def _menu(name: str, operations: list[_Operation]) -> str:
    links = "".join(
        f'<a href="#{_anchor(verb, path)}">{_verb(verb)}{escape(path)}</a>'
        for verb, path, _ in operations
    )
    return f"<b>{escape(name)}</b>{links}"


def _schema_link(name: str) -> str:
    return f'<a href="#schema-{escape(name)}">{escape(name)}</a>'


def _group(document: Document, name: str, operations: list[_Operation]) -> str:
    text = next((tag.get("description", "") for tag in document["tags"] if tag["name"] == name), "")
    body = "".join(_operation(*each) for each in operations)
    return f"<h2>{escape(name)}</h2>{_prose(text)}{body}"


def _operation(verb: str, path: str, operation: Mapping[str, Any]) -> str:
    parts = [
        f'<h3 id="{_anchor(verb, path)}">{_verb(verb)}{escape(path)}</h3>',
        _prose(operation.get("description") or operation.get("summary", "")),
        _scopes(operation),
        _parameters(operation.get("parameters", [])),
    ]
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        parts.append(f"<h4>Body</h4>{_shape(schema)}")
    rows = "".join(_answer(code, each) for code, each in operation["responses"].items())
    parts.append(
        '<h4>Answers</h4><div class="wide"><table><tr><th>Status</th><th>Content</th>'
        f"<th>Meaning</th></tr>{rows}</table></div>"
    )
    if path.startswith("/v1/"):
        parts.append(
            f"<details><summary>curl</summary><pre><code>{_curl(verb, path, operation)}"
            "</code></pre></details>"
        )
    return "".join(parts)


def _scopes(operation: Mapping[str, Any]) -> str:
    security = operation.get("security", [])
    if not security:
        return '<p class="soft">Open to everybody.</p>'
    names = [f"<code>{escape(scope)}</code>" for each in security for scope in each["apiKey"]]
    if not names:
        return '<p class="soft">Any valid key.</p>'
    return f'<p class="soft">Scope: {" or ".join(names)}</p>'


def _parameters(parameters: list[Mapping[str, Any]]) -> str:
    if not parameters:
        return ""
    rows = "".join(
        f"<tr><td><code>{escape(each['name'])}</code></td><td>{each['in']}</td>"
        f"<td>{_kind(each['schema'])}</td><td>{_line(each.get('description', ''))}</td></tr>"
        for each in parameters
    )
    return (
        '<h4>Parameters</h4><div class="wide"><table><tr><th>Name</th><th>In</th><th>Type</th>'
        f"<th>Meaning</th></tr>{rows}</table></div>"
    )


def _answer(code: str, answer: Mapping[str, Any]) -> str:
    shown = []
    for kind, content in answer.get("content", {}).items():
        events = content.get("x-events")
        if events:
            shown += [f"<code>{escape(name)}</code> {_kind(each)}" for name, each in events.items()]
        elif "$ref" in content.get("schema", {}):
            shown.append(_kind(content["schema"]))
        else:
            shown.append(escape(kind))
    text = _line(answer.get("description", ""))
    return f"<tr><td>{code}</td><td>{'<br>'.join(shown)}</td><td>{text}</td></tr>"


def _schemas(document: Document) -> Iterator[str]:
    for name, schema in document["components"]["schemas"].items():
        yield f'<h3 id="schema-{escape(name)}">{escape(name)}</h3>'
        yield _prose(schema.get("description", ""))
        yield _shape(schema)


def _shape(schema: Mapping[str, Any]) -> str:
    properties = schema.get("properties")
    if not properties:
        return f"<p>{_kind(schema)}</p>"
    required = set(schema.get("required", ()))
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{_kind(each)}</td>"
        f"<td>{'always' if name in required else ''}</td>"
        f"<td>{_line(each.get('description', ''))}</td></tr>"
        for name, each in properties.items()
    )
    return (
        '<div class="wide"><table><tr><th>Field</th><th>Type</th><th>Present</th><th>Meaning</th>'
        f"</tr>{rows}</table></div>"
    )


def _kind(schema: Mapping[str, Any]) -> str:
    """A few words for a type."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#schema-{escape(name)}">{escape(name)}</a>'
    if "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"])
    if "enum" in schema:
        return " ".join(f"<code>{escape(str(word))}</code>" for word in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_kind(schema['additionalProperties'])}"
    kind = schema.get("type", "any JSON")
    words = " or ".join(kind) if isinstance(kind, list) else str(kind)
    limits = [
        f"{sign} {schema[key]:g}"
        for key, sign in (("minimum", "&ge;"), ("maximum", "&le;"), ("exclusiveMinimum", "&gt;"))
        if key in schema
    ]
    if "maxLength" in schema:
        limits.append(f"at most {schema['maxLength']} characters")
    if schema.get("format") == "date-time":
        limits.append("RFC 3339 time")
    return escape(words) + (f' <span class="soft">{", ".join(limits)}</span>' if limits else "")


def _curl(verb: str, path: str, operation: Mapping[str, Any]) -> str:
    lines = ["curl -sS" if verb == "get" else f"curl -sS -X {verb.upper()}"]
    if "text/event-stream" in operation["responses"].get("200", {}).get("content", {}):
        lines = ["curl -sSN"]  # unbuffered: events show as they come
    if operation.get("security"):
        lines.append('-H "Authorization: Bearer $JUNGLE_GRID_API_KEY"')
    if "requestBody" in operation:
        lines.append("-H 'Content-Type: application/json'")
        body = operation["requestBody"]["content"]["application/json"].get("example", {})
        lines.append(f"-d '{json.dumps(body)}'")
    lines.append(f'"$JUNGLE_GRID_API{path}"')
    return escape(" \\\n  ".join(lines))


def _prose(text: str) -> str:
    blocks = []
    for block in text.split("\n\n"):
        if block.startswith("   "):
            blocks.append(f"<pre><code>{escape(dedent(block))}</code></pre>")
        elif block:
            blocks.append(f"<p>{_line(block)}</p>")
    return "".join(blocks)


def _line(text: str) -> str:
    """Escaped text with its `code` marked."""
    parts = escape(text).split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return "".join(f"<code>{each}</code>" if at % 2 else each for at, each in enumerate(parts))


def _verb(verb: str) -> str:
    return f'<span class="verb {verb}">{verb.upper()}</span>'


def _anchor(verb: str, path: str) -> str:
    return escape(f"{verb}-{path.strip('/').replace('/', '-').replace('{', '').replace('}', '')}")
