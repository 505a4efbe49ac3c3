"""What nbdev_clean does not look at: `python tools/check_notebooks.py [NOTEBOOK ...]` prints what is wrong."""
import ast
import json
import re
import sys
from pathlib import Path

SIZE, LINES = 400_000, 31  # bytes of a notebook, lines of an exported cell
HERE = re.compile(r'(?<![\w.:/])/(?:home|root|Users|tmp|work|opt|usr|var|mnt|private)/\w|[A-Z]:\\\\?Users')
DATA_URI = re.compile(r'data:[\w/+.-]+;base64,[\w+/=\s]+')


def source(cell: dict) -> str: return ''.join(cell['source'])


def texts(output: dict):
    "Every text in an output; pictures left out."
    yield ''.join(output.get('text', ''))
    for kind, value in output.get('data', {}).items():
        if kind.startswith('text/'): yield DATA_URI.sub('', ''.join(value))


def of_output(output: dict):
    "What is wrong with one output."
    if output['output_type'] == 'error': yield f"an error in the output: {output['ename']}"
    if output.get('name') == 'stderr': yield 'stderr in the output'
    if any('widget' in kind for kind in output.get('data', {})): yield "a widget's state in the output"
    for text in texts(output):
        if found := HERE.search(text): yield f'an absolute path in the output: {text[found.start():][:40]!r}'


def of_cell(cell: dict):
    "What is wrong with one code cell."
    text = source(cell)
    if 'parameters' in cell['metadata'].get('tags', []):
        for line in text.splitlines():
            if line.count('=') != 1: yield f'papermill reads no parameter in {line!r} (its comment may hold no =)'
    if re.search(r'^[%!]\w', text, re.M): yield 'a magic'
    if re.search(r'^#\|\s*export', text, re.M):
        if len(text.splitlines()) > LINES: yield f'an exported cell over {LINES} lines'
        if re.search(r'^\s*[%!]\w', text, re.M): yield 'a magic in an exported cell'
    for output in cell.get('outputs', []): yield from of_output(output)


def assigned(node) -> set:
    "Names that a cell's top level assigns."
    inner = ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store): return {node.id}
    return set().union(*(assigned(n) for n in ast.iter_child_nodes(node) if not isinstance(n, inner)))


def read(cell: str) -> set:
    "Names that a cell reads."
    return {n.id for n in ast.walk(ast.parse(cell)) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def of_parameters(cells: list):
    "A parameter keeps the value that papermill, or a person, gave it, and is read."
    code = [(i, c) for i, c in enumerate(cells) if c['cell_type'] == 'code']
    try: code = [(i, assigned(ast.parse(source(c))), 'parameters' in c['metadata'].get('tags', [])) for i, c in code]
    except SyntaxError as e:
        yield f"a cell that is not Python: {e.msg}: {(e.text or '').strip()}"
        return
    given = set().union(*(names for _, names, tagged in code if tagged))
    for i, names, tagged in code:
        if not tagged: yield from (f'cell {i}: it assigns the parameter {name}' for name in sorted(names & given))
    unread = given.difference(*(read(source(cells[i])) for i, _, tagged in code if not tagged))
    yield from (f'no cell reads the parameter {name}' for name in sorted(unread))


def of_titles(name: str, cells: list):
    "The first cells name the notebook, say it in one line, and tell the module where there is one."
    prose = '\n'.join(source(c) for c in cells if c['cell_type'] == 'markdown')
    prose = re.sub(r'^```.*?^```', '', prose, flags=re.M | re.S)
    if not re.match(r'# .+\n+> .+', source(cells[0])): yield 'the first cell is not "# Title" and "> one line"'
    if (titles := len(re.findall(r'^# ', prose, re.M))) != 1: yield f'{titles} first-level titles instead of one'
    if number := re.match(r'\d+[a-z]?_(\w+)$', name):
        text = '\n'.join(map(source, cells))
        modules = re.findall(r'^#\|\s*default_exp (\S+)', text, re.M)
        exports = re.search(r'^#\|\s*exporti?\b', text, re.M)
        if (modules or exports) and modules != [number[1]]: yield f'its module should be {number[1]!r}, not {modules}'


def problems(path: Path):
    "What is wrong with one notebook."
    if path.stat().st_size > SIZE: yield f'{path.stat().st_size} bytes, more than {SIZE}'
    nb = json.loads(path.read_text(encoding='utf-8'))
    cells = nb['cells']
    if nb['metadata'].get('kernelspec', {}).get('name') != 'python3': yield 'its kernel is not python3'
    if 'widgets' in nb['metadata']: yield 'saved widget state, which may hold uploaded photos'
    yield from of_titles(path.stem, cells)
    yield from of_parameters(cells)
    if sum('parameters' in c['metadata'].get('tags', []) for c in cells) > 1: yield 'more than one parameters cell'
    if len({c.get('id') for c in cells}) < len(cells): yield 'cells without an id of their own'
    if 'nbdev_export(' in source(cells[-1]): yield 'it exports itself, which papermill would run'
    for i, cell in enumerate(cells):
        if cell['cell_type'] == 'code': yield from (f'cell {i}: {p}' for p in of_cell(cell))


def import_order(lib: Path):
    "A module imports only modules whose notebook has a lower number."
    text = {p.stem: p.read_text(encoding='utf-8') for p in lib.glob('*.py') if not p.stem.startswith('_')}
    number = {m: n[1] for m, t in text.items() if (n := re.search(r'File to edit: \S*/(\d\d[a-z]?)_', t))}
    for module in sorted(number):
        for used in re.findall(rf'^\s*(?:from \.|from {lib.name}\.|import {lib.name}\.)(\w+)', text[module], re.M):
            if number.get(used, '99') >= number[module]: yield f'{module} imports {used}, which does not come before it'


FOUNDATION = {'numpy', 'cv2', 'PIL', 'platformdirs', *sys.stdlib_module_names}  # what notebooks 00 to 19 may import


def imports(text: str, lib: str):
    "Every module that Python text imports, at any depth, with dots; those of the library itself begin with its name."
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import): yield from (name.name for name in node.names)
        if isinstance(node, ast.ImportFrom):
            module = '.'.join(filter(None, [lib * (node.level > 0), node.module]))
            yield from (f'{lib}.{name.name}' for name in node.names) if module == lib else [module]


def lane(number: int) -> str:
    "What the number of a notebook says of its module."
    return 'foundation' if number < 20 else 'lab' if number < 40 else 'runtime' if number < 60 else 'application'


def lanes(lib: Path):
    "Lab and runtime do not import each other; the foundation imports hardly anything."
    text = {p.stem: p.read_text(encoding='utf-8') for p in lib.glob('*.py')}
    number = {m: int(n[1]) for m, t in text.items() if (n := re.search(r'File to edit: \S*/(\d\d)[a-z]?_', t))}
    for module, own in sorted((m, lane(n)) for m, n in number.items()):
        for used in sorted(set(imports(text[module], lib.name))):
            package, _, part = used.partition('.')
            other = lane(number[part.split('.')[0]]) if package == lib.name and part.split('.')[0] in number else ''
            if {own, other} == {'lab', 'runtime'}: yield f'{module} ({own}) imports {used} ({other})'
            if own == 'foundation' and (package not in {lib.name, *FOUNDATION} or other not in ('', 'foundation')):
                yield f'{module} (foundation) imports {used}'


NAMES, MODULE = 80, 350  # public names of the library, lines of a module


def interface(lib: Path):
    "Few public names, each with one meaning; every public function says what it returns; no long modules."
    homes: dict[str, list] = {}
    for path in sorted(p for p in lib.glob('*.py') if not p.stem.startswith('_')):
        text = path.read_text(encoding='utf-8')
        body = ast.parse(text).body
        if (lines := len(text.splitlines())) > MODULE: yield f'{path}: {lines} lines, more than {MODULE}'
        assigned = (n for n in body if isinstance(n, ast.Assign) and getattr(n.targets[0], 'id', '') == '__all__')
        public = next((ast.literal_eval(n.value) for n in assigned), [])
        for name in public: homes.setdefault(name, []).append(path.stem)
        for node in body:
            if isinstance(node, ast.FunctionDef) and node.name in public and node.returns is None:
                yield f'{path}: {node.name} does not say what it returns'
    if len(homes) > NAMES: yield f'{len(homes)} public names, more than {NAMES}'
    yield from (f'{name} is public in {" and ".join(where)}' for name, where in homes.items() if len(where) > 1)


if __name__ == '__main__':
    notebooks = [Path(p) for p in sys.argv[1:]] or sorted(Path('nbs').rglob('[!.]*.ipynb'))
    wrong = [f'{p}: {what}' for p in notebooks for what in problems(p)]
    wrong += [what for check in (import_order, lanes, interface) for what in check(Path('fer_nb'))]
    sys.exit('\n'.join(wrong) or None)
