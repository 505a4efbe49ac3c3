"""The documentation: everything public is in the reference, pages and links exist, nothing comes from another site."""
import argparse
import ast
import inspect
import io
import json
import re
import shlex
import shutil
import tokenize
from importlib import import_module
from pathlib import Path

import docs_api
import docs_figures
import docs_notebooks
import docs_site
import pytest
import yaml

DOCS = sorted(Path('docs').glob('*.md'))
CONFIG = yaml.safe_load(Path('mkdocs.yml').read_text(encoding='utf-8'))
PUBLIC = [(module, name) for module, names in docs_api.public_names().items() for name in names]


@pytest.fixture(scope='module')
def site() -> docs_site.Site:
    return docs_site.Site()


@pytest.fixture(scope='module')
def pages(site) -> dict[str, str]:
    "Every page of the site as Markdown, {place: text}."
    texts = {place: text for place, text in docs_site.made()}
    texts |= {place: page.markdown for place, page in site.notebooks.items()}
    for path, place in site.targets.items():
        if place.endswith('.md') and place not in texts: texts[place] = Path(path).read_text(encoding='utf-8')
    return {place: site.markdown(place, text) for place, text in texts.items()}


def entry(name: str, module: str, pages: dict[str, str]) -> str:
    "What the reference says of a public name."
    page, _ = docs_api.theme(docs_api.notebooks()[module])
    found = re.search(rf'^## {name} {{ #{name} }}\n(.*?)(?=^## |\Z)', pages[f'api/{page}.md'], re.M | re.S)
    return found[1] if found else ''


def comments(thing) -> list[str]:
    "The comments behind the parameters of a function, read by another way than the reference does."
    source = inspect.cleandoc('\n' + inspect.getsource(thing))
    told, depth = [], 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.OP: depth += token.string in '([{' and 1 or -(token.string in ')]}')
        if token.type == tokenize.OP and token.string == ':' and depth == 0: break
        if token.type == tokenize.COMMENT and depth: told.append(token.string.lstrip('# '))
    return told


@pytest.mark.parametrize('module, name', PUBLIC, ids=[name for _, name in PUBLIC])
def test_reference(module, name, pages):
    "A public name is there with its signature, its docstring, and each parameter with the comment behind it."
    thing, text = getattr(import_module(f'fer_nb.{module}'), name), entry(name, module, pages)
    assert f'import {name}\n' in text
    assert f'[`{name}`]' in pages['api/index.md']
    if not (inspect.isclass(thing) or inspect.isroutine(thing)): return
    doc = docs_api.docstring(thing)
    assert doc and doc.splitlines()[0] in text
    for parameter in docs_api.fields(thing):
        assert f'| <code>{parameter}</code> |' in text or parameter == 'returns', parameter
    if inspect.isroutine(thing):
        assert {'returns', *docs_api.fields(thing)} >= set(inspect.signature(thing).parameters)
        for comment in comments(thing): assert docs_api.prose(comment) in text, comment


def test_reference_is_complete():
    "What `import fer_nb` offers is among the names of the reference."
    import fer_nb

    assert set(fer_nb.__all__) <= {name for _, name in PUBLIC}


def commands() -> dict[str, argparse.ArgumentParser]:
    import fer_nb.cli  # noqa: F401  registers the commands
    from fer_nb.commands import parser

    return next(a for a in parser()._actions if a.dest == 'command').choices


def test_command_line(pages):
    "Every command is there with every option and the examples of its help."
    parts = re.split(r'^## fer_nb ([\w-]+) .*$', pages['commands.md'], flags=re.M)
    told = dict(zip(parts[1::2], parts[2::2]))
    assert list(told) == list(commands())
    for name, sub in commands().items():
        for action in sub._actions:
            for option in action.option_strings: assert option in told[name] or action.dest == 'help', option
        for line in (sub.epilog or '').splitlines()[1:]: assert line.strip() in told[name]


def sh_lines() -> list:
    "Each command in the guides, as an argument of a test."
    blocks = {p: re.findall(r'^```sh\n(.*?)^```', p.read_text(encoding='utf-8'), re.M | re.S) for p in DOCS}
    lines = [(p.stem, line) for p, found in blocks.items() for line in '\n'.join(found).splitlines()]
    return [pytest.param(line, id=f'{page}: {line}') for page, line in lines if line.startswith('fer_nb ')]


@pytest.mark.parametrize('line', sh_lines())
def test_commands_of_guides(line):
    "What a guide tells to type is understood."
    from fer_nb.commands import parser

    assert commands() and parser().parse_args(shlex.split(re.sub(r'\s+[<|].*', '', line), comments=True)[1:])


def draw_clip(path: Path) -> None:
    "A second of video with two drawn people."
    from fer_nb.synthetic import synthetic_scene
    from fer_nb.video_output import VideoWriter

    scene, _, _ = synthetic_scene(2, seed=11, size=(480, 270))
    with VideoWriter(str(path), (480, 270)) as video:
        for i in range(10): video.add(i / 10, scene)


@pytest.mark.parametrize('guide', ['start', 'photo', 'video'])
def test_code_of_guides(guide, tmp_path, photos, monkeypatch):
    "The Python of a guide runs as it stands."
    text = Path(f'docs/{guide}.md').read_text(encoding='utf-8')
    shutil.copy(photos[0], tmp_path / 'photo.jpg')
    draw_clip(tmp_path / 'clip.mp4')
    monkeypatch.chdir(tmp_path)
    code = '\n'.join(re.findall(r'^```python\n(.*?)^```', text, re.M | re.S))
    names: dict = {}
    exec(compile(code, guide, 'exec'), names)
    assert names['face'].label and (guide == 'video' or names['result'].faces)


@pytest.mark.parametrize('guide', DOCS, ids=lambda p: p.stem)
def test_calls_of_guides(guide):
    "What the Python of a guide imports is there, and takes the options that it is given."
    text = guide.read_text(encoding='utf-8')
    tree = ast.parse('\n'.join(re.findall(r'^```python\n(.*?)^```', text, re.M | re.S)))
    imports = [o for o in ast.walk(tree) if isinstance(o, ast.ImportFrom) and (o.module or '').startswith('fer_nb')]
    known = {a.name: getattr(import_module(str(o.module)), a.name) for o in imports for a in o.names}
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in known:
            options = {o.arg: None for o in call.keywords if o.arg}
            inspect.signature(known[call.func.id]).bind(*call.args, **options)


def test_navigation(pages):
    "Each page of the navigation exists, and each page is in it."
    named = list(docs_site.pages_of(docs_site.expand(CONFIG['nav'])))
    assert sorted(named) == sorted(pages)
    # the theme shows an index as the page of its section, so any other would be missing from the list
    assert [o for o in named if o.endswith('index.md')] == ['index.md', 'api/index.md']


def links(text: str) -> list[str]:
    found: list[str] = []
    def look(part: str) -> str:
        found.extend(m[2] for m in docs_site.LINK.finditer(re.sub(r'`[^`\n]*`', '', part)))
        return part
    docs_site.outside_code(text, look)
    return found


def test_links(site, pages):
    "Every link between pages leads to one, and to a heading of it where it names one in the reference."
    places = {*pages, *site.targets.values()}
    for place, page in site.notebooks.items(): places |= {f'{Path(place).parent.as_posix()}/{o}' for o in page.pictures}
    broken = []
    for place, text in pages.items():
        for link in links(text):
            path, _, anchor = link.partition('#')
            target = docs_site.posixpath.normpath(f'{docs_site.posixpath.dirname(place)}/{path}').lstrip('/')
            if target not in places: broken.append(f'{place}: {link}')
            elif anchor and target.startswith(('api/', 'commands')) and f'{{ #{anchor} }}' not in pages[target]:
                broken.append(f'{place}: {link}, no such heading')
    assert not broken, '\n'.join(broken)


@pytest.mark.parametrize(
    'link, gives',
    [
        ('../nbs/44_recognition.ipynb', 'notebooks/44_recognition.md'),
        ('../nbs/44_recognition.ipynb#the-recognizer', 'notebooks/44_recognition.md#the-recognizer'),
        ('../models/m/MODEL_CARD.md', 'models/m/card.md'),
        ('../README.md', 'index.md'),
        ('../LICENSE', 'https://github.com/fer-nb/fer_nb/blob/main/LICENSE'),
        ('https://example.org/x', 'https://example.org/x'),
        ('photo.md', 'photo.md'),
        ('nowhere.md', 'nowhere.md'),
    ],
    ids=lambda o: o[-20:],
)
def test_relinked(site, link, gives):
    "Links as they work in the repository become links of the site."
    assert site.markdown('start.md', f'[text]({link})') == f'[text]({gives})'


def test_code_is_left_alone(site):
    "Neither links nor figures nor lists inside a block of code are changed."
    text = '```text\nsome\n- [a](../nbs/44_recognition.ipynb) $x$\n```\n'
    assert site.markdown('start.md', text) == text


def test_markdown(site):
    "A list directly below a line is one."
    assert site.markdown('start.md', 'These:\n- one\n- two') == 'These:\n\n- one\n- two'


def test_notebook_page(tmp_path):
    "Hidden cells are left out, exported ones marked, pictures become files, and HTML is not touched by Markdown."
    png = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=='
    def code(source, *outputs): return dict(cell_type='code', source=source, outputs=list(outputs), metadata={})
    def shows(**data): return dict(output_type='display_data', data=data)
    cells = [
        dict(cell_type='markdown', source='# Title\n> one line'),
        code('#| default_exp title'), code('#| hide\nsecret = 1'),
        code('#| export\ndef f(): ...'), code('#| echo: false\nunseen()', shows(**{'text/markdown': '*told*'})),
        code('plot()', shows(**{'image/png': png, 'text/plain': 'Figure'})),
        code('table', shows(**{'text/html': '<style scoped>x</style><table border="1"><td>*1*</table>'})),
        code('print()', dict(output_type='stream', name='stdout', text='\x1b[31mred\x1b[0m')),
    ]
    path = tmp_path / '12_title.ipynb'
    path.write_text(json.dumps(dict(cells=cells, metadata={})))
    page = docs_notebooks.Page(path)
    for text in ('secret', 'unseen', 'default_exp', '#|', '\x1b'): assert text not in page.markdown, text
    assert '``` { .python .exported }\ndef f(): ...\n```' in page.markdown and '*told*' in page.markdown
    assert 'blob/main/' in page.markdown.splitlines()[3] and '`fer_nb.title`' in page.markdown.splitlines()[3]
    assert list(page.pictures) == ['12_title/5-0.png'] and page.pictures['12_title/5-0.png'][:4] == b'\x89PNG'
    assert page.insert_html('<p>html-output-0</p>') == '<div class="output"><table><td>*1*</table></div>'


@pytest.mark.parametrize('page', DOCS, ids=lambda p: p.stem)
def test_figures(page):
    "What is to be made for a page is made, with figures in it."
    text = page.read_text(encoding='utf-8')
    for name in re.findall(r'<!-- made: (.+?) -->', text):
        assert len(docs_figures.fill(f'<!-- made: {name} -->')) > 200, name
    assert '<!-- made:' not in docs_figures.fill(text)


def test_figures_are_those_of_the_files():
    "A figure of a table is the one that a command wrote."
    report = docs_figures.read('m/evaluation.json')['results']
    [record] = [
        o for o in report if (o['split'], o['samples'], o['protocol'], o['tta'], o['format'], o.get('prior')) ==
        ('PrivateTest', 'deduplicated', 'labels', 'none', 'int8', 'trained')
    ]
    assert f'{record["accuracy"]:.1%}' in docs_figures.models()
    with pytest.raises(KeyError): docs_figures.fill('<!-- made: nonsense -->')
    with pytest.raises(KeyError): docs_figures.fill('<!-- made: section No such heading -->')


def test_lanes_picture():
    "The picture counts every notebook."
    counted = sum(int(n) for n in re.findall(r'>(\d+) notebooks<', docs_figures.lanes()))
    assert counted == len([p for p in docs_notebooks.all_notebooks() if docs_notebooks.lane_of(p) != 'tutorial'])


def test_nothing_from_elsewhere():
    "The site brings its own fonts, scripts and styles: those of the theme and of docs/."
    theme = CONFIG['theme']
    assert theme['font'] is False and CONFIG['plugins'] == ['search'] and 'repo_url' not in CONFIG
    assert 'extra_javascript' not in CONFIG and not re.search('https?:', json.dumps([theme, CONFIG['extra_css']]))
    for path in CONFIG['extra_css']: assert not re.search(r'@import|url\(', (Path('docs') / path).read_text())
    assert any('prefers-color-scheme: dark' in o.get('media', '') for o in theme['palette'])


def test_pages_fetch_nothing(site, pages):
    "No image, script or style of another site is in a page; badges become words."
    assert site.markdown('start.md', '[![Colab](https://x.org/a.svg)](https://x.org)') == '[Colab](https://x.org)'
    fetched = re.compile(r'!\[[^\]]*\]\(https?:|<[^>]+(?:src|srcset)="(?:https?:)?//|<link|url\(["\']?http|@import')
    def clean(text: str) -> str:
        assert not fetched.search(re.sub(r'`[^`\n]*`', '', text)), fetched.search(text)
        return text
    for text in pages.values(): docs_site.outside_code(text, clean)
    for page in site.notebooks.values():
        for html in page.html: clean(html)


def test_lock():
    "The lock file of the documentation pins what settings.ini declares, with hashes."
    declared = re.search(r'^docs_requirements = (.+)$', Path('settings.ini').read_text(), re.M)[1]
    pinned = Path('.github/requirements-docs.txt').read_text()
    for name in re.findall(r'(?:^| )([\w-]+)', declared):
        assert re.search(rf'^{name}==\S+ \\\n    --hash=sha256:', pinned, re.M), name
