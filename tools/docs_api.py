"""The reference of the documentation, from the code: public names with their docments, commands with their options."""
import ast
import inspect
import re
from argparse import SUPPRESS
from collections.abc import Iterator
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any

from check_notebooks import lane
from fastcore.docments import docments

LIB = Path('fer_nb')
# A page for notebooks with numbers below the first entry: its file, its title.
THEMES = {
    20: ('data', 'Images and data'), 30: ('training', 'Training'), 40: ('evaluation', 'Evaluation'),
    46: ('recognition', 'Recognition'), 60: ('video', 'Video'), 64: ('panels', 'Panels and cameras'),
    69: ('batch', 'Many machines'), 80: ('models', 'Model files and your own classes'), 100: ('shell', 'Commands'),
}


def notebooks() -> dict[str, str]:
    "The notebook that each module is written from, {module: notebook}."
    text = {p.stem: p.read_text(encoding='utf-8') for p in sorted(LIB.glob('*.py'))}
    return {m: n[1] for m, t in text.items() if (n := re.search(r'File to edit: \S*/(\d\d[a-z]?_\w+)\.ipynb', t))}


def public_names() -> dict[str, list[str]]:
    "What each module offers, {module: names}, in the order of the notebooks."
    from fer_nb import _OFFERED

    found: dict[str, list[str]] = {}
    for module, _ in sorted(notebooks().items(), key=lambda item: item[1]):
        body = ast.parse((LIB / f'{module}.py').read_text(encoding='utf-8')).body
        for node in body:
            if isinstance(node, ast.Assign) and getattr(node.targets[0], 'id', '') == '__all__':
                names = ast.literal_eval(node.value)
                found[module] = sorted(names, key=lambda name: name not in _OFFERED.get(module, []))
    return {module: names for module, names in found.items() if names}


def of_type(annotation: Any) -> str:
    "A type without the modules of its names."
    if annotation in (inspect.Parameter.empty, None): return ''
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r'\b(?:\w+\.)+(?=\w)', '', text).strip("'")


def code(text: str) -> str:
    "Code in a cell of a Markdown table."
    return f'<code>{escape(text, quote=False).replace("|", "&#124;")}</code>' if text else ''


def prose(text: str) -> str:
    "A comment in a cell of a Markdown table: names in backticks are code, everything else is text."
    parts = re.split(r'`([^`]+)`', re.sub(r'\s+', ' ', text))
    return ''.join(code(o) if i % 2 else re.sub(r'([\\*_\[\]<|{}])', r'\\\1', o) for i, o in enumerate(parts))


def default_of(value: Any) -> str:
    "A default value as one writes it."
    if value is inspect.Parameter.empty: return ''
    text = repr(value)
    return text if len(text) < 40 and ' at 0x' not in text else '...'


def fields(thing: Any) -> dict[str, dict]:
    "The parameters of a function or class with type, default and comment; what it returns is the last one."
    found = docments(thing, full=True, eval_str=False)
    found = {k: v for k, v in found.items() if k not in ('self', 'cls')}
    if list(found)[:2] == ['args', 'kwargs']: return {}  # of an error, or inherited
    gives = found.pop('return', None)
    if gives and not inspect.isclass(thing) and (gives['docment'] or of_type(gives['anno']) not in ('', 'None')):
        found['returns'] = gives
    return found


def table(thing: Any) -> str:
    "The parameters as a table."
    rows = [
        f"| {'*returns*' if name == 'returns' else code(name)} | {code(of_type(o['anno']))} "
        f"| {code(default_of(o['default']))} | {prose(o['docment'] or '')} |"
        for name, o in fields(thing).items()
    ]
    return '\n'.join(['| parameter | type | default | meaning |', '|---|---|---|---|', *rows]) if rows else ''


def signature(thing: Any, name: str) -> str:
    "How it is called, without types: those are in the table."
    try: parameters = list(inspect.signature(thing).parameters.values())
    except (TypeError, ValueError): return ''
    if [o.name for o in parameters] == ['args', 'kwargs']: return ''
    words, starred = [], False
    for o in parameters:
        if o.name in ('self', 'cls'): continue
        if o.kind is o.KEYWORD_ONLY and not starred: words.append('*')
        starred = starred or o.kind in (o.KEYWORD_ONLY, o.VAR_POSITIONAL)
        shown = {o.VAR_POSITIONAL: f'*{o.name}', o.VAR_KEYWORD: f'**{o.name}'}.get(o.kind, o.name)
        words.append(shown + (f'={default_of(o.default)}' if o.default is not o.empty else ''))
    one = f'{name}({", ".join(words)})'
    if len(one) <= 88: return one
    return f'{name}(\n' + ''.join(f'    {word},\n' for word in words).replace('*,\n    ', '*, ') + ')'


def members(thing: type) -> Iterator[tuple[str, Any]]:
    "The public methods and properties of a class, those of this library only."
    for name, member in inspect.getmembers_static(thing):
        member = getattr(member, '__func__', member)
        where = getattr(getattr(member, 'fget', member), '__module__', '') or ''
        if name == '__call__' or not name.startswith('_'):
            if where.startswith('fer_nb') and (callable(member) or isinstance(member, property)): yield name, member


def docstring(thing: Any) -> str:
    "What it says of itself, if that was written for it; a line of dashes or an indent there is no markup."
    text = thing.__doc__ or ''
    return '' if re.match(r'\w+\([^\n]*\)( -> None)?$', text.strip()) else inspect.cleandoc(text)


def of_member(name: str, member: Any) -> str:
    "A method, or what a property gives."
    if isinstance(member, property):
        gives = of_type(inspect.signature(member.fget).return_annotation) if member.fget else ''
        return f'**`{name}`** {code(gives)}\n\n{docstring(member)}'
    called = signature(member, 'object' if name == '__call__' else f'object.{name}')
    return '\n\n'.join(filter(None, [f'```python\n{called}\n```', docstring(member), table(member)]))


def constants(module: str) -> dict[str, str]:
    "The comments `#: ...` of a module's constants."
    text = (LIB / f'{module}.py').read_text(encoding='utf-8')
    before = {n: c for c, n in re.findall(r'^#: ?(.*)\n(\w+)\b.*=', text, re.M)}
    return before | dict(re.findall(r'^(\w+)\b[^\n#]*= [^\n]*?#:? ?(.*)$', text, re.M))


def of_name(module: str, name: str, shorter: bool) -> str:
    "One public name: how it is imported and called, what it does, what each parameter means."
    thing = getattr(import_module(f'fer_nb.{module}'), name)
    head = f'## {name} {{ #{name} }}\n\n```python\nfrom fer_nb{"" if shorter else f".{module}"} import {name}\n'
    if not (inspect.isclass(thing) or inspect.isroutine(thing)):
        return f'{head}```\n\n{constants(module).get(name, "")}\n\n```\n{shortened(thing)}\n```'
    called = signature(thing, name)
    parts = [f'{head}\n{called}\n```' if called else f'{head}```', docstring(thing), table(thing)]
    if inspect.isclass(thing):
        for member, what in members(thing):
            title = 'Call' if member == '__call__' else member
            parts.append(f'### {title} {{ #{name}.{member} }}\n\n{of_member(member, what)}')
    return '\n\n'.join(filter(None, parts))


def shortened(value: Any) -> str:
    "A constant in a few lines."
    if isinstance(value, dict):
        plain = {k: v if isinstance(v, (str, int, float, tuple, list)) else '...' for k, v in value.items()}
        return '{\n' + ''.join(f'    {k!r}: {v!r},\n' for k, v in plain.items()) + '}'
    return repr(value)


def theme(notebook: str) -> tuple[str, str]:
    "The page that a notebook's names are on: its file and its title."
    return next(page for below, page in THEMES.items() if int(notebook[:2]) < below)


def themes() -> list[tuple[str, str]]:
    "The pages that have a name to show."
    where = notebooks()
    return list(dict.fromkeys(theme(where[module]) for module in public_names()))


def python_pages() -> dict[str, str]:
    "The Markdown of the reference of Python, {page: text}; `index` names all."
    from fer_nb import __all__ as offered

    where, pages, listed = notebooks(), {}, {}
    for module, names in public_names().items():
        page, title = theme(where[module])
        text = pages.setdefault(page, f'# {title}\n')
        source = f'Notebook: [{where[module]}](../notebooks/{where[module]}.md), {lane(int(where[module][:2]))}.'
        for name in names: text += f'\n{of_name(module, name, name in offered)}\n\n{source}\n'
        pages[page] = text
        listed.setdefault((page, title), []).extend((module, name) for name in names)
    return {'index': overview(listed), **pages}


def overview(listed: dict[tuple[str, str], list[tuple[str, str]]]) -> str:
    "The page that names everything: what most people need first."
    from fer_nb import __all__ as offered

    def row(page: str, module: str, name: str) -> str:
        thing = getattr(import_module(f'fer_nb.{module}'), name)
        said = docstring(thing) if inspect.isclass(thing) or inspect.isroutine(thing) else ''
        said = said or constants(module).get(name, '')
        first = re.split(r'(?<=[.!?])(?<!et al\.)\s(?=[A-Z`])', ' '.join(said.split('\n\n')[0].split()))[0]
        home = 'fer_nb' if name in offered else f'fer_nb.{module}'
        return f'| [`{name}`]({page}.md#{name}) | {code(home)} | {prose(first)} |'

    text = '# Python\n\nAll public names. `from fer_nb import Recognizer` loads only what that name needs.\n'
    for (page, title), names in listed.items():
        rows = '\n'.join(row(page, *item) for item in names)
        text += f'\n## [{title}]({page}.md)\n\n| name | import from | what it is |\n|---|---|---|\n{rows}\n'
    return text


def option_rows(sub: Any) -> Iterator[str]:
    "The options of a command as rows of a table."
    formatter = sub._get_formatter()
    for action in sub._actions:
        if action.dest == 'help' or action.help is SUPPRESS: continue
        metavar = formatter._get_default_metavar_for_optional(action)
        value = '' if action.nargs == 0 else formatter._format_args(action, metavar)
        names = ' '.join([', '.join(action.option_strings), value]).strip() if action.option_strings \
            else formatter._format_action_invocation(action)
        yield f'| {code(names)} | {prose(formatter._expand_help(action) if action.help else "")} |'


def command_page() -> str:
    "The Markdown of the reference of the command line."
    import fer_nb.cli  # noqa: F401  registers the commands
    from fer_nb.commands import COMMANDS, parser

    commands = next(a for a in parser()._actions if a.dest == 'command').choices
    text = '# Command line\n\n`fer_nb COMMAND --help` shows the same in a terminal.\n'
    for name, sub in commands.items():
        rows = '\n'.join(option_rows(sub))
        examples = '\n'.join(f'fer_nb {name} {o}'.rstrip() for o in COMMANDS[name].examples.split('\n'))
        text += f'\n## fer_nb {name} {{ #{name} }}\n\n{sub.description}\n\n```sh\n{examples}\n```\n'
        if rows: text += f'\n| option | meaning |\n|---|---|\n{rows}\n'
    return text
