#!/usr/bin/env python3
"""Renders chat templates and snippets of Jinja with Jinja itself, configured as Hugging Face's
apply_chat_template does it, and writes tests/engine/fixtures/chat_templates.json.

Needs jinja2 (made with 3.1.6), installed outside the repository.
usage: make_chat_fixtures.py [OUTPUT]
"""

import json
import os
import sys

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = os.path.dirname(os.path.abspath(__file__))
OUTPUT = os.path.join(HERE, "..", "engine", "fixtures", "chat_templates.json")

# What SmolLM2-Instruct's file carries.
SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}"
    "{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

# The formats of well-known families, written out over several lines as their files do.
CHATML = """\
{%- for message in messages %}
    {{- '<|im_start|>' ~ message.role ~ '\\n' ~ message.content | trim ~ '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

LLAMA3 = """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{#- The first message may be the system's; it is told apart and then left out. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {{- raise_exception("This model only supports single tool-calls at once!") }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

MISTRAL = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
        {{- raise_exception("conversation roles must alternate user/assistant/user/assistant") }}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token }}
    {%- else %}
        {{- raise_exception("only user and assistant roles are supported, not " ~ message["role"]) }}
    {%- endif %}
{%- endfor %}
{{- "(" ~ user_messages|length ~ ")" }}
"""

GEMMA = """\
{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '

' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '

' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '
' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}{{ item['text'] | trim }}{%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>
' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model
'}}
{%- endif -%}
"""

QWEN = """\
{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content = message.content %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is defined and message.reasoning_content is not none %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in message.content %}
                {%- set content = message.content.split('</think>')[-1].lstrip('\\n') %}
                {%- set reasoning_content = message.content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or (not loop.last and reasoning_content)) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

TEMPLATES = {"smollm2": SMOLLM2, "chatml": CHATML, "llama3": LLAMA3, "mistral": MISTRAL, "gemma": GEMMA, "qwen": QWEN}


def turns(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


CONVERSATIONS = {
    "one": turns(("user", "Hello")),
    "system": turns(("system", " Be brief. "), ("user", "Hi\n\n")),
    "turns": turns(("user", "a"), ("assistant", "  b "), ("user", "c")),
    "system_turns": turns(("system", "S"), ("user", "1"), ("assistant", "2"), ("user", "3"), ("assistant", "4")),
    "thought": turns(("user", "q"), ("assistant", "<think>\nwhy\n</think>\n\nbecause"), ("user", "and?"),
                     ("assistant", "<think>\nhm\n</think>\nso")),
    "empty": turns(("user", "")),
    "unicode": turns(("user", "Grüße, 世界 🙂\u2028\t\"quoted\" {{ not a tag }} {% nor this %}")),
    "order": turns(("assistant", "first")),
    "two_users": turns(("user", "a"), ("user", "b")),
    "strange_role": turns(("user", "a"), ("tool", "b")),
}

# Snippets, with messages, bos_token "<s>", eos_token "</s>" and `flag`, `number`, `word` as variables.
SNIPPETS = r"""
{{ 1 + 2 * 3 }} {{ (1 + 2) * 3 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 6 / 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }}
{{ 1.0 }} {{ 1.5e3 }} {{ 0.1 + 0.2 }} {{ 1e16 }} {{ 1e15 }} {{ 1e-5 }} {{ 0.0001 }} {{ -0.0 }} {{ 123456789.0 }}
{{ 1_000 }} {{ 'a' 'b' }} {{ "a\"b" }} {{ 'a\'b' }} {{ '\\n' }} {{ 'x\ny' }} {{ '\u00e9' }} {{ '\x41' }}
{{ true }} {{ True }} {{ false }} {{ none }} {{ None }} [{{ nothing }}] {{ not true }} {{ not nothing }}
{{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }} {{ 1 == 1.0 }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }} {{ 1 != 2 }} {{ true == 1 }}
{{ 1 in [1, 2] }} {{ 'b' in 'abc' }} {{ 'k' in {'k': 1} }} {{ 3 not in [1] }} {{ '' in 'a' }}
{{ 'yes' if flag else 'no' }} {{ 'yes' if nothing }} {{ (1 if 0 else 2) + 3 }} {{ nothing or 'else' }} {{ 0 or '' or 'last' }} {{ 1 and 2 }}
{{ [1, 'two', 3.0, none, true] }} {{ {'a': 1, 'b': [2]} }} {{ (1, 2) }} {{ (1,) }} {{ () }} {{ [] }} {{ {} }}
{{ 'it\'s' ~ 1 ~ none ~ 1.5 }} {{ ['it\'s', 'say "hi"', 'both \' and "'] }} {{ ['\n\t\\'] }} {{ ['é世\u200b'] }}
{{ 'abc'[0] }}{{ 'abc'[-1] }}{{ 'abcdef'[1:3] }}{{ 'abcdef'[::-1] }}{{ 'abcdef'[::2] }}{{ 'abcdef'[-2:] }}{{ 'abcdef'[5:1:-2] }}{{ 'héé'[1:] }}
{{ [1,2,3][1:] }} {{ [1,2,3][:-1] }} {{ [1,2,3][::-1] }} {{ [1,2,3][7:] }} {{ (1,2,3)[0:2] }} [{{ [1][5] }}] [{{ 'a'[9] }}]
{{ {'a': {'b': 'c'}}.a.b }} {{ {'a': 1}['a'] }} [{{ {'a': 1}.z }}] {{ {'items': 5}['items'] }} {{ {1: 'one'}[1] }}
{{ ' x '.strip() }}|{{ 'xxaxx'.strip('x') }}|{{ ' x '.lstrip() }}|{{ ' x '.rstrip() }}|{{ 'abcab'.strip('ab') }}|{{ 'éaé'.strip('é') }}
{{ 'aBc'.upper() }} {{ 'aBc'.lower() }} {{ 'hello wORLD'.title() }} {{ 'hELLO'.capitalize() }} {{ 'éa'.upper() }} {{ "they're".title() }}
{{ 'a,b,,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a,b,c'.split(',', 1) }} {{ 'a,b,c'.rsplit(',', 1) }} {{ 'a b c'.split(none, 1) }} {{ ''.split() }} {{ ''.split(',') }}
{{ 'hello'.replace('l', 'L') }} {{ 'hello'.replace('l', 'L', 1) }} {{ 'ab'.replace('', '-') }} {{ 'aaa'.replace('aa', 'b') }}
{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith(('x', 'c')) }} {{ 'abcabc'.find('c') }} {{ 'abcabc'.rfind('c') }} {{ 'abc'.find('z') }} {{ 'aXbX'.count('X') }} {{ '12'.isdigit() }} {{ ''.isdigit() }} {{ ' \t'.isspace() }}
{{ 'a-b'.removeprefix('a-') }} {{ 'a-b'.removesuffix('-b') }} {{ ', '.join(['a', 'b']) }} {{ 'a\nb\r\nc'.splitlines() }}
{{ {'a': 1, 'b': 2}.items() | list }} {{ {'a': 1}.keys() | list }} {{ {'a': 1}.values() | list }} {{ {'a': 1}.get('a') }} {{ {'a': 1}.get('z') }} {{ {'a': 1}.get('z', 9) }}
{{ ' x '|trim }}|{{ 'xax'|trim('x') }}|{{ [1,2]|length }} {{ 'héé'|length }} {{ {'a':1}|length }} {{ 'abc'|upper|lower|title|capitalize }}
{{ nothing|default('d') }} {{ ''|default('d') }}{{ ''|default('d', true) }} {{ none|default('d') }} {{ nothing|d('e') }} {{ 0|default(5, boolean=true) }}
{{ [1,2,3]|join(', ') }} {{ ['a','b']|join }} {{ [{'k':'a'},{'k':'b'}]|join('-', attribute='k') }} {{ 'abc'|join('.') }}
{{ [3,1,2]|sort }} {{ ['b','A','c']|sort }} {{ ['b','A']|sort(case_sensitive=true) }} {{ [1,2]|sort(reverse=true) }} {{ [{'n':2},{'n':1}]|sort(attribute='n') }}
{{ [1,2]|first }} {{ [1,2]|last }} {{ 'abc'|first }} [{{ []|first }}] {{ 'abc'|reverse }} {{ [1,2]|reverse|list }} {{ 'ab'|list }}
{{ '12'|int + 1 }} {{ 'x'|int }} {{ 'x'|int(7) }} {{ '1.9'|int }} {{ 1.9|int }} {{ '1.5'|float }} {{ 3|float }} {{ 'x'|float }} {{ -3|abs }} {{ 12|string + '' }} {{ ' 5 '|int }}
{{ [1,2,1]|unique|list }} {{ ['a','A']|unique|list }} {{ [1,5,3]|max }} {{ [4,2]|min }} {{ [1,2,3]|sum }} {{ [{'n':2},{'n':1}]|sum(attribute='n') }} {{ []|sum }}
{{ messages|map(attribute='role')|list }} {{ ['a','b']|map('upper')|list }} {{ messages|selectattr('role','equalto','user')|list|length }} {{ messages|rejectattr('role','eq','user')|list }} {{ [0,1,2]|select|list }} {{ [1,2,3]|select('odd')|list }} {{ [1,2,3]|reject('odd')|list }} {{ [1,2,3]|select('gt', 1)|list }}
{{ {'b':1,'a':2}|dictsort }} {{ {'b':1,'a':2}|dictsort(by='value') }} {{ {'a':1}|items|list }} {{ 1.5|round }} {{ 2.5|round }}
{{ {'a': [1, 2.5, none, true, "q\"é\n"]}|tojson }} {{ [1,{'b':2}]|tojson(indent=2) }} {{ []|tojson }} {{ 'x/y<z>'|tojson }} {{ {'b':1,'a':2}|tojson(sort_keys=true) }}
{{ 'a\nb\n\nc'|indent }}|{{ 'a\nb'|indent(2, true) }}|{{ 'a\n\nb'|indent(1, blank=true) }} {{ '<a href="x">&\'</a>'|e }}
{{ 1 is odd }} {{ 2 is even }} {{ 6 is divisibleby 3 }} {{ 6 is divisibleby(4) }} {{ 'a' is string }} {{ 1 is number }} {{ 1 is integer }} {{ 1.0 is float }} {{ true is boolean }} {{ [] is sequence }} {{ {} is mapping }} {{ 'a' is iterable }} {{ none is none }} {{ nothing is undefined }} {{ word is defined }} {{ nothing is not defined }} {{ 'a' is lower }} {{ 'A' is upper }} {{ 1 is in [1] }} {{ 3 is gt 2 }} {{ true is true }} {{ 1 is true }} {{ true is number }} {{ true is integer }}
{% for i in range(3) %}{{ i }}{% if not loop.last %}, {% endif %}{% endfor %} {{ range(5)|list }} {{ range(1, 10, 3)|list }} {{ range(5, 0, -2)|list }} {{ range(0)|list }}
{% for c in 'abc' %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.cycle('x', 'y') }}{{ loop.previtem }}{{ loop.nextitem }};{% endfor %}
{% for k, v in {'a': 1, 'b': 2}.items() %}{{ k }}={{ v }} {% endfor %}{% for a, b in [[1, 2], [3, 4]] %}{{ a }}-{{ b }} {% endfor %}{% for x in [] %}x{% else %}none{% endfor %}
{% for x in [1,2,3,4] if x is even %}{{ x }}/{{ loop.length }} {% endfor %}{% for x in [1,2,3] %}{% if x == 2 %}{% continue %}{% endif %}{{ x }}{% endfor %}{% for x in [1,2,3] %}{% if x == 2 %}{% break %}{% endif %}{{ x }}{% endfor %}
{% for x in [1,2] %}{% for y in [3,4] %}{{ loop.depth }}{{ x * y }} {% endfor %}{{ loop.index }}{% endfor %}
{% set x = 1 %}{% for i in [1,2] %}{% set x = x + i %}{{ x }}{% endfor %}{{ x }} {% set ns = namespace(n=0, s='') %}{% for i in [1,2,3] %}{% set ns.n = ns.n + i %}{% set ns.s = ns.s ~ i %}{% endfor %}{{ ns.n }}{{ ns.s }}[{{ ns.other }}]
{% set a, b = 1, 2 %}{{ a }}{{ b }} {% set block %}in {{ a }} block{% endset %}{{ block }} {% set up | upper %}loud{% endset %}{{ up }}
{% macro m(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, 3) }} {{ m(1, c='z') }} {{ m(a=5) }} {{ m() }} {% macro n(k) %}{{ k }}{% if k > 0 %}{{ n(k - 1) }}{% endif %}{% endmacro %}{{ n(5) }} {{ m(1)|length }}
{% if 0 %}a{% elif 0 %}b{% elif 1 %}c{% else %}d{% endif %} {% if [] %}x{% else %}y{% endif %} {% if 'a' == 'a' and not none %}z{% endif %}
a{#- comment -#} b {# {{ nothing.at.all }} #}c {% raw %}{{ raw }} {% if %}{% endraw %} {{ '{{' }} { { } }} %}
{{ dict(a=1, b='c') }} {{ dict({'a': 1}, b=2).b }} {{ namespace(a=1).a }} {{ 'a' * 3 }} {{ [1] * 3 }} {{ [1] + [2] }} {{ 'a' + 'b' }}
{{ messages[0]['content'] }} {{ messages[0].role }} {{ messages|length }} {{ messages[-1].role }} {{ bos_token }}{{ eos_token }} {{ flag }} {{ number }} {{ word }} {{ number + 1 }} {{ tools is none }}
{{ 'a' if true else undefined_thing.x }} {{ nothing is defined and nothing.x }} {{ (none or {}).get('a', 'fallback') }} {{ [[1, [2]], {'a': (1, 2)}] }}
""".strip("\n").split("\n")

# White space, where lines matter: several lines each.
LAYOUTS = [
    "a\n{% if true %}\nb\n{% endif %}\nc\n",
    "a\n  {% if true %}  \n  b\n  {% endif %}\nc\n\n",
    "a  {%- if true -%}  b  {%- endif -%}  c",
    "a\n  {%+ if true %}b{% endif %}\n",
    "a {% if true +%}\nb{% endif %}",
    "  {{ 1 }}\n  {{- 2 -}}\n  {{ 3 }}\n",
    "a\n{# comment #}\nb\n  {# indented #}\nc {# tail #}\nd",
    "{% for x in [1, 2] %}\n  {{ x }}\n{% endfor %}\n",
    "{% for x in [1, 2] -%}\n  {{ x }}\n{%- endfor %}\n",
    "\n\n{% set x = 1 %}\n\n{{ x }}\n\n",
    "x {% set y = 1 %} z\n\t{% set w = 1 %}\t\nv",
    "a\r\n{% if true %}\r\nb\r\n{% endif %}\r\n",
    "{{ 'x' }}{% if true %}\n\ny{% endif %}",
    "text {{ 1 }} {% if false %}no{% endif %} more\n{% if true %}line{% endif %}\nend",
    "{% raw %}\n  {{ x }}\n{% endraw %}\nafter",
    "a {%- raw -%}  b  {%- endraw -%} c",
]

# What must not render. Jinja's own message is kept for people to compare.
FAILURES = [
    "{{ raise_exception('no: ' ~ number) }}", "{{ nothing.x }}", "{{ 1 + 'a' }}", "{{ 1 / 0 }}", "{{ 1 // 0 }}",
    "{{ [1] < 1 }}", "{% for x in 5 %}{% endfor %}", "{{ 'a'|nofilter }}", "{{ 1 is notest }}", "{{ nofunction() }}",
    "{{ 'a'.nomethod() }}", "{{ range(1000000) }}", "{{ 'a'.split('') }}", "{{ [1,2].append(3) }}",
    "{{ {}.update({'a': 1}) }}", "{% set flag.x = 1 %}", "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}",
    "{{ 5 in 'abc' }}", "{{ 5|length }}", "{% set a, b = [1] %}", "{{ [3, 'a']|sort }}",
    "{% if %}x{% endif %}", "{% if 1 %}x", "{{ 1 + }}", "{{ 'a }}", "{{ (1 }}", "{% endfor %}", "{% for x %}{% endfor %}",
    "{% unknown %}", "{# open", "{{ a b }}", "{% set %}", "{{ [1, 2 }}", "{{ }}", "{{ 1 | }}", "{% for in x %}{% endfor %}",
]


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    return env


def render(name, template, conversation, add_generation_prompt, **variables):
    given = dict(messages=CONVERSATIONS[conversation], add_generation_prompt=add_generation_prompt, bos_token="<s>",
                 eos_token="</s>", tools=None, documents=None, **variables)
    case = dict(name=name, template=template, conversation=conversation, add_generation_prompt=add_generation_prompt,
                variables=variables)
    try:
        source = TEMPLATES.get(template, template)
        case["text"] = environment().from_string(source).render(**given)
    except Exception as error:  # whatever Jinja or Python raises is a refusal
        case["error"] = f"{type(error).__name__}: {error}"
    return case


def make_cases():
    cases = []
    for template in TEMPLATES:
        for conversation in CONVERSATIONS:
            for prompt in (True, False):
                cases.append(render("family", template, conversation, prompt))
    for thinking in (True, False):
        cases.append(render("family", "qwen", "one", True, enable_thinking=thinking))
    cases.append(render("family", "llama3", "one", True, date_string="01 Jan 2025"))
    variables = dict(flag=True, number=42, word="w")
    for kind, sources in (("snippet", SNIPPETS), ("layout", LAYOUTS), ("failure", FAILURES)):
        for source in sources:
            cases.append(render(kind, source, "turns", True, **variables))
    return cases


def main():
    cases = make_cases()
    for case in cases:
        if case["name"] in ("snippet", "layout") and "error" in case or case["name"] == "failure" and "text" in case:
            sys.exit(f"unexpected: {case}")
    everything = {"jinja2": jinja2.__version__, "templates": TEMPLATES, "conversations": CONVERSATIONS, "cases": cases}
    with open(sys.argv[1] if len(sys.argv) > 1 else OUTPUT, "w", encoding="utf-8") as out:
        json.dump(everything, out, ensure_ascii=False, indent=1)
        out.write("\n")


main()
