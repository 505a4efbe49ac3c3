"""The notebooks as pages of the documentation: as they were saved, without hidden cells; pictures become files."""
import base64
import json
import re
from collections.abc import Callable
from configparser import ConfigParser
from pathlib import Path

from check_notebooks import lane

NBS = Path('nbs')
LANES = {
    'tutorial': ('Tutorials', 'Short ways through the library.'),
    'foundation': ('Foundation, 00 to 19', 'Labels, images and data; numpy, OpenCV and Pillow only.'),
    'lab': ('Lab, 20 to 39', 'Networks, training and evaluation, with Keras.'),
    'runtime': ('Runtime, 40 to 59', 'Recognition in images and video, with LiteRT and without TensorFlow.'),
    'application': ('Applications, 60 to 89', 'Panels, cameras, batches, your own classes and the command line.'),
}
ANSI = re.compile(r'\x1b\[[0-9;]*m')


def git_url() -> str:
    "Where the repository is."
    ini = ConfigParser(delimiters=['='])
    ini.read('settings.ini', encoding='utf-8')
    return ini['DEFAULT']['git_url']


def all_notebooks() -> list[Path]:
    "Every notebook but the front page, in the order of reading."
    return [*sorted(NBS.glob('tutorials/*.ipynb')), *sorted(NBS.glob('[0-9]*.ipynb'))]


def lane_of(path: Path) -> str:
    return 'tutorial' if path.parent != NBS else lane(int(path.stem[:2]))


def page_name(path: Path) -> str:
    "Where a notebook is in the documentation."
    return f'notebooks/{path.relative_to(NBS).with_suffix(".md").as_posix()}'


def text_of(cell: dict) -> str: return ''.join(cell['source'])


def headline(path: Path) -> tuple[str, str]:
    "The title of a notebook and its one line."
    first = text_of(json.loads(path.read_text(encoding='utf-8'))['cells'][0])
    title, line = [o.lstrip('#> ').strip() for o in first.split('\n') if o.strip()][:2]
    return title, line if line[-1] in '.?!' else f'{line}.'


def index_page() -> str:
    "All notebooks by lane, each with its title and its one line."
    text = '# Notebooks\n\nThe notebooks are the source: [nbdev](https://nbdev.fast.ai) writes the library from them. '
    text += 'Each runs on its own, on synthetic faces. The number says the lane: see [architecture](architecture.md).\n'
    for name, (title, about) in LANES.items():
        rows = [
            f'| [{path.stem}]({page_name(path)}) | **{headline(path)[0]}.** {headline(path)[1]} |'
            for path in all_notebooks() if lane_of(path) == name
        ]
        table = '\n'.join(['| notebook | what it is about |', '|---|---|', *rows, ''])
        if rows: text += f'\n## {title}\n\n{about}\n\n{table}'
    return text


def fenced(text: str, language: str) -> str:
    "A block of code or of plain text, with a fence that does not occur in it."
    fence = '`' * max(3, 1 + max(map(len, re.findall('`+', text)), default=0))
    return f'{fence} {language}\n{text.rstrip()}\n{fence}'


class Page:
    "One notebook as Markdown. HTML outputs are kept apart, so that Markdown does not change them."

    def __init__(self, path: Path):
        self.path, self.pictures, self.html, self.heading = path, {}, [], headline(path)[0]
        nb = json.loads(path.read_text(encoding='utf-8'))
        self.parts = [o for i, cell in enumerate(nb['cells']) for o in self.of_cell(i, cell)]
        self.markdown = '\n\n'.join(filter(None, self.parts)) + '\n'

    def of_cell(self, number: int, cell: dict):
        "What the reader sees of a cell."
        text = text_of(cell)
        if cell['cell_type'] == 'markdown':
            self.heading = (re.findall(r'^#+ (.+)$', text, re.M) or [self.heading])[-1]
            yield text + (self.about() if number == 0 else '')
        if cell['cell_type'] != 'code' or re.match(r'#\|\s*(hide|default_exp)\b', text): return
        if not re.search(r'^#\|\s*echo:\s*false', text, re.M):
            exported = ' .exported' if re.search(r'^#\|\s*exporti?\b', text, re.M) else ''
            shown = re.sub(r'^#\|.*\n?', '', text, flags=re.M).strip()
            if shown: yield fenced(shown, f'{{ .python{exported} }}')
        for i, output in enumerate(cell['outputs']): yield self.of_output(f'{number}-{i}', output)

    def about(self) -> str:
        "Under the title: which module this is, and where the notebook is."
        link = f'[This notebook]({git_url()}/blob/main/{self.path.as_posix()})'
        code = self.path.read_text(encoding='utf-8')
        if not re.search(r'#\| export', code): return f'\n\n{link}{{ .source }}'
        module = re.sub(r'^\d+[a-z]?_', '', self.path.stem)
        told = f'is the module `fer_nb.{module}`: cells with a bar are exported to it, the others try it out.'
        return f'\n\n{link}{{ .source }} {told}'

    def of_output(self, name: str, output: dict) -> str:
        "An output in the richest form that is there."
        data = {k: ''.join(v) for k, v in output.get('data', {}).items() if k.split('/')[0] in ('text', 'image')}
        for kind, suffix in (('image/svg+xml', 'svg'), ('image/png', 'png'), ('image/jpeg', 'jpg')):
            if kind in data:
                content = data[kind].encode() if suffix == 'svg' else base64.b64decode(data[kind])
                self.pictures[file := f'{self.path.stem}/{name}.{suffix}'] = content
                return f'![Output under the heading “{re.sub(r"[`*]", "", self.heading)}”]({file})'
        if 'text/html' in data:
            self.html.append(readable(data['text/html']))
            return f'<p>html-output-{len(self.html) - 1}</p>'
        if 'text/markdown' in data: return data['text/markdown']
        return fenced(ANSI.sub('', data.get('text/plain') or ''.join(output.get('text', ''))), '{ .text .output }')

    def insert_html(self, content: str) -> str:
        "The page with its HTML outputs."
        put: Callable[[re.Match], str] = lambda m: f'<div class="output">{self.html[int(m[1])]}</div>'
        return re.sub(r'<p>html-output-(\d+)</p>', put, content)


def readable(html: str) -> str:
    "A table of pandas without its own looks, colored cells with dark letters, and what scrolls can be reached by keys."
    html = re.sub(r'<style scoped>.*?</style>', '', html, flags=re.S).replace(' border="1"', '')
    html = re.sub(r'style="text-align: right;"', '', html)
    return re.sub(r'(background-color: #\w+;)', r'\1 color: #111;', html) if '<table id="T_' in html else html
