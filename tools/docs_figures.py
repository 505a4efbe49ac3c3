"""What pages take from files that commands wrote: `<!-- made: NAME -->` becomes a table or a picture."""
import json
import re
from functools import cache
from html import escape
from pathlib import Path

from docs_notebooks import LANES, all_notebooks, lane_of

MODELS = Path('models')
CARD = MODELS / 'm/MODEL_CARD.md'


@cache
def read(name: str) -> dict:
    "A JSON file of the folder with the models."
    return json.loads((MODELS / name).read_text(encoding='utf-8'))


def names() -> list[str]:
    "The shipped models, the default one first."
    return [o.parent.name for o in sorted(MODELS.glob('*/evaluation.json'))]


def rows(lines: list[dict]) -> str:
    from fer_nb.report_tables import markdown_table

    return markdown_table(lines)


def figures(model: str, test: bool = True) -> dict:
    "The yardsticks of a model in 8 bits: {yardstick: {prior: figure}}."
    from fer_nb.yardsticks import YARDSTICKS, find_figures

    records = read(f'{model}/evaluation.json')['results']
    return {o.key: find_figures(records, o, test=test, format='int8') for o in YARDSTICKS}


def share(x: float) -> str: return f'{x:.0%}'


def percent(figure) -> str: return f'{figure.value:.1%} ({figure.interval[0]:.1%} to {figure.interval[1]:.1%})'


def models() -> str:
    "The shipped models side by side."
    from fer_nb.model_files import read_metadata

    lines, facts = [], {m: figures(m) for m in names()}
    about = {m: read_metadata(MODELS / f'{m}.int8.tflite') for m in names()}
    lines.append({'': 'parameters', **{m: f'{o["parameters"]:,}' for m, o in about.items()}})
    lines.append({'': 'file, MB', **{m: f'{(MODELS / f"{m}.int8.tflite").stat().st_size / 1e6:.2f}' for m in about}})
    for machine, report in read('bench.json').items():
        took = {m: f'{report["figures"][f"{m}.int8.tflite, ms"]:.2f}' for m in about}
        lines.append({'': f'one face on one thread, ms ({machine})', **took})
    wanted = (
        ('fer2013', 'trained', 'FER2013, all test samples: accuracy'),
        ('fer2013_deduplicated', 'trained', 'FER2013, deduplicated: accuracy'),
        ('clear_balanced', 'balanced', 'clear expressions: balanced accuracy'),
        ('everyday', 'everyday', 'everyday photographs: accuracy'),
        ('everyday_negative', 'everyday', 'everyday photographs: neutral faces given a negative expression'),
    )
    for key, prior, title in wanted:
        name = f'{title} (prior {prior})'
        lines.append({'': name, **{m: percent(o[key][prior]) for m, o in facts.items()}})
    return rows(lines)


def priors() -> str:
    "The yardsticks of each model under each prior."
    from fer_nb.yardsticks import yardstick_table

    tables = {m: yardstick_table(read(f'{m}/evaluation.json')['results'], test=True, format='int8') for m in names()}
    return '\n\n'.join(f'Model `{m}`, in %, with 95 % intervals:\n\n{table}' for m, table in tables.items())


def formats() -> str:
    "The files of the default model, and how fast they answer."
    from fer_nb.report_tables import format_table

    model = names()[0]
    records = read(f'{model}/evaluation.json')['results']
    return format_table(records, records[0])


def detectors() -> str:
    "The two detectors on annotated photographs, in speed, and what they cost in accuracy."
    [first, *_], lines = read('bench.json').values(), []
    crops = read(f'{names()[0]}/crop_calibration.json')['detectors']
    for key, name in {'haar': 'Haar', 'yunet': 'YuNet'}.items():
        found = first['detection'][key]['annotated photos, IoU 0.5']
        line = {
            'detector': name, 'precision': f'{found["precision"]:.2f}', 'recall': f'{found["recall"]:.2f}',
            'accuracy lost by detection and crop, percentage points': f'{crops[key]["accuracy_drop"]:.1f}',
            'the same, faces rotated by 20 degrees': f'{crops[key]["rotated"]["accuracy_drop"]:.1f}',
            'of those faces found': f'{crops[key]["rotated"]["found"]:.0%}',
        }
        for machine, report in read('bench.json').items():
            speed = report['figures'][f'photo 640x480 with one face, {name}, frames/s']
            line[f'photos a second, 640 x 480 ({machine})'] = f'{speed:.0f}'
        lines.append(line)
    photos = first['detection']['haar']['annotated photos, IoU 0.5']
    told = f'Precision and recall on {photos["photos"]} annotated photographs with {photos["faces"]} faces; '
    told += f'accuracy on {read(f"{names()[0]}/crop_calibration.json")["samples"]}, pasted into scenes. '
    return f'{told}Both also served to choose the settings.\n\n{rows(lines)}'


def thresholds() -> str:
    "From which confidence on an answer is given, and what that costs."
    lines = []
    for m in names():
        report = read(f'{m}/crop_calibration.json')
        chosen = report['uncertain']
        more = [min(report['coverage'], key=lambda o: abs(o['threshold'] - least)) for least in (.7, .8, .9)]
        for o in (chosen, *more):
            at = share(o['threshold']) + ', what `auto` takes' * (o is chosen)
            shown = {'answers': share(o['coverage']), 'of these correct': share(o['accuracy'])}
            lines.append({'model': m, 'at least': at, **shown})
    return f'On {read(f"{names()[0]}/crop_calibration.json")["samples"]}, as trained:\n\n{rows(lines)}'


def peers() -> str:
    "The package fer on the same samples and machines."
    peer, model = read('peer.json'), names()[0]
    known = {
        ('PrivateTest', 'full'): ('fer2013', 'FER2013'),
        ('PrivateTest', 'deduplicated'): ('fer2013_deduplicated', 'FER2013, deduplicated'),
        ('report', 'full'): ('everyday', 'everyday photographs'),
    }
    lines = []
    for o in peer['results']:
        key, title = known.get((o['split'], o['samples']), ('', ''))
        if o['protocol'] != 'labels' or not key: continue
        ours, [low, high] = figures(model)[key], o['accuracy_95']
        line = {'accuracy on': f'{title}, n = {o["n"]:,}'}
        line[f'`{peer["package"]}`'] = f'{o["accuracy"]:.1%} ({low:.1%} to {high:.1%})'
        lines.append(line | {f'`{model}`, prior {p}': percent(ours[p]) for p in ('trained', 'everyday')})
    return rows(lines)


def speeds() -> str:
    "Speed beside the package fer."
    lines = []
    for what in ('photo 640x480 with one face', 'video 1280x720 with two faces'):
        for machine, report in read('bench.json').items():
            speed = {who: f'{report["figures"][f"{what}, {who}, frames/s"]:.0f}' for who in ('Haar', 'YuNet', 'fer')}
            lines.append({'images a second': f'{what} ({machine})', **speed})
    cores = ' and '.join({str(o['machine']['cores']) for o in read('bench.json').values()})
    told = f'On {cores} cores without a GPU. Videos are decoded and tracked by `fer_nb`; `fer` searches every frame.'
    return f'{told}\n\n{rows(lines)}'


def robustness() -> str:
    "What the default model loses on worse images."
    from fer_nb.robustness import _SEVERITY

    found = [o for o in read(f'{names()[0]}/evaluation.json')['robustness'] if o['corruption'] != 'none']
    found.sort(key=lambda o: -o['accuracy_drop'])
    lines = []
    for o in found:
        lost, low, high = (100 * x for x in (o['accuracy_drop'], *o['accuracy_drop_95']))
        line = {'corruption': o['corruption'].replace('_', ' '), 'how much': _SEVERITY.get(o['corruption'], '')}
        drop = f'{lost:.1f} ({low:.1f} to {high:.1f})'
        lines.append(line | {'accuracy': f'{o["accuracy"]:.1%}', 'percentage points lost': drop})
    return rows(lines)


def recalls() -> str:
    "How often each expression is recognized."
    from fer_nb.yardsticks import recall_table

    report = read(f'{names()[0]}/evaluation.json')
    return recall_table(report['results'], report['results'][0]['classes'], test=True, format='int8')


def section(title: str) -> str:
    "A section of the default model's card, without its heading."
    found = re.search(rf'^##+ {re.escape(title)}\n(.*?)(?=^##|\Z)', CARD.read_text(encoding='utf-8'), re.M | re.S)
    if not found: raise KeyError(f'{CARD} has no section {title!r}')
    return found[1].strip()


BOXES = {  # lane: (x, y, width), the lines in it
    'application': (10, 10, 540, ['panels and camera · web app · many machines', 'your own classes · command line']),
    'lab': (10, 170, 250, ['networks · training', 'evaluation · model cards']),
    'runtime': (300, 170, 250, ['model files · detection', 'recognition · video']),
    'foundation': (10, 330, 540, ['labels · images · datasets', 'synthetic faces · safe readers']),
}
ARROWS = ((135, 125), (425, 125), (135, 285), (425, 285))  # x, top: who uses whom


def box(lane: str, count: int) -> str:
    "One lane: its title, what is in it, how many notebooks."
    (x, y, width, inside), title = BOXES[lane], LANES[lane][0].replace(' to ', '–')
    lines = [('title', 30, title), ('', 56, inside[0]), ('', 79, inside[1]), ('count', 103, f'{count} notebooks')]
    texts = (f'<text class="{kind}" x="{x + 14}" y="{y + down}">{escape(o)}</text>' for kind, down, o in lines)
    return f'<rect class="{lane}" x="{x}" y="{y}" width="{width}" height="115" rx="8"/>{"".join(texts)}'


def lanes() -> str:
    "The lanes and who imports whom, as a picture in the page's own colors."
    boxes = [box(lane, sum(lane_of(o) == lane for o in all_notebooks())) for lane in BOXES]
    arrows = [f'<path d="M{x} {top}v42m-6 -8l6 8l6 -8"/>' for x, top in ARROWS]
    no = '<path class="no" d="M260 228h40"/><text class="no" x="280" y="216">✕</text>'
    told = 'Applications use lab and runtime, both use the foundation; lab and runtime do not import each other.'
    drawn = f'<svg viewBox="0 0 560 455" role="img" aria-label="{told}">{"".join([*boxes, *arrows, no])}</svg>'
    return f'<figure class="lanes">{drawn}<figcaption>{told}</figcaption></figure>'


TABLES = models, priors, formats, detectors, thresholds, peers, speeds, robustness, recalls
MADE = {o.__name__: o for o in (*TABLES, section, lanes)}


def fill(markdown: str) -> str:
    "A page with all that is made for it; an unknown name is an error."
    def made(m: re.Match) -> str:
        name, _, argument = m[1].partition(' ')
        return MADE[name](argument) if argument else MADE[name]()
    return re.sub(r'<!-- made: (.+?) -->', made, markdown)
