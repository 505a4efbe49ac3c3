"""Logits of real networks, predictions that are refused, reports and logs that are never half written."""
import json
from pathlib import Path

import numpy as np
import pytest
import yaml

from fer_nb.core import FerError
from fer_nb.evaluation import TTA, _views, evaluate, predict_logits
from fer_nb.metrics import check_probabilities
from fer_nb.model_card import model_card
from fer_nb.reports import append_test_log, read_test_log, save_report

THIRD = np.full((2, 3), 1 / 3)


@pytest.fixture(scope='module')
def two_heads():
    "A Keras network with two heads and a free input size."
    from keras import Input, Model, layers

    x = Input((None, None, 1))
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(layers.Rescaling(1 / 255)(x)))
    return Model(x, {'expression': layers.Dense(7)(pooled), 'ferplus': layers.Dense(8)(pooled)})


@pytest.fixture(scope='module')
def fixed():
    "A Keras network with a single output and a fixed input size."
    from keras import Input, Model, layers

    x = Input((48, 48, 1))
    return Model(x, layers.Dense(7)(layers.Flatten()(layers.Rescaling(1 / 255)(x))))


def test_ten_crop_of_a_network_with_two_heads(two_heads, faces):
    some = faces.images[:5]
    ten = predict_logits(two_heads, some, batch_size=2, tta='ten-crop')
    assert {head: o.shape for head, o in ten.items()} == {'expression': (5, 7), 'ferplus': (5, 8)}
    views = _views(some[..., None], 'ten-crop')
    by_hand = np.mean([np.asarray(two_heads(v)['ferplus']) for v in views], axis=0)
    np.testing.assert_allclose(ten['ferplus'], by_hand, atol=1e-4)


def test_a_fixed_input_gets_enlarged_crops(fixed, faces):
    import cv2

    some = faces.images[:5]
    np.testing.assert_allclose(predict_logits(fixed, some), np.asarray(fixed(some[..., None])), atol=1e-4)
    views = _views(some[..., None], 'ten-crop')
    large = [np.stack([cv2.resize(o, (48, 48)) for o in np.ascontiguousarray(v)])[..., None] for v in views]
    by_hand = np.mean([np.asarray(fixed(v)) for v in large], axis=0)
    np.testing.assert_allclose(predict_logits(fixed, some, tta='ten-crop'), by_hand, atol=1e-4)


@pytest.mark.parametrize(
    ('labels', 'predictions', 'reason'),
    [
        ([0], THIRD, 'do not fit'),
        ([0, 1], [THIRD], 'do not fit'),
        ([], np.zeros((0, 3)), '0 samples'),
        ([0, 3], THIRD, 'from 0 to 2'),
        ([0, -1], THIRD, 'from -1'),
        ([0.0, 1.0], THIRD, 'not whole'),
        ([0, 1], THIRD * np.array([[1], [np.nan]]), 'row 1'),
        ([0, 1], [[3.0, -1, 0], [0.2, 0.3, 0.5]], 'no distribution'),
        ([0, 1], [[1, 0, 0], [5.0, 1, 0]], 'need `softmax`'),
    ],
)
def test_predictions_that_are_refused(labels, predictions, reason):
    with pytest.raises(FerError, match=reason): check_probabilities(labels, predictions)


@pytest.mark.parametrize(
    ('model', 'images', 'reason'),
    [
        ('halves', np.full((1, 48, 48), np.nan), 'not finite'),
        ('halves', np.zeros((0, 48, 48), np.uint8), 'N >= 1'),
        ('halves', np.full((3, 48, 48), 200 / 255), r'0\.\.255 is needed'),
        ('halves', np.zeros((2, 48, 48, 3)), 'is needed'),
        ('one row', np.zeros((3, 48, 48), np.uint8), '3 images'),
    ],
)
def test_images_and_outputs_that_are_refused(model, images, reason):
    models = {'halves': lambda x: x.mean((2, 3)), 'one row': lambda x: np.zeros((1, 7))}
    with pytest.raises(FerError, match=reason): predict_logits(models[model], images)


def test_a_mirrored_view_is_a_plain_array():
    images = np.zeros((3, 48, 48), np.uint8)
    said = predict_logits(lambda x: np.full((len(x), 2), float(x.flags.c_contiguous)), images, tta='flip')
    np.testing.assert_array_equal(said, np.ones((3, 2)))  # the mean of both views


def blind(images):
    "Logits of a model that knows nothing, from two heads."
    return {'expression': np.zeros((len(images), 7)), 'ferplus': np.ones((len(images), 8))}


def test_every_kind_of_tta_and_samples_has_a_record(faces):
    results = evaluate(blind, faces, tta=TTA)['results']
    found = {(o['tta'], o['samples']) for o in results}
    assert found == {(tta, samples) for tta in TTA for samples in ('full', 'deduplicated')}
    assert len(results) == len(found)


@pytest.mark.parametrize(
    ('options', 'reason'), [({'tta': ['eleven']}, 'eleven'), ({'split': 'nowhere'}, 'nowhere')]
)
def test_unknown_tta_and_splits_are_refused(faces, options, reason):
    with pytest.raises(ValueError, match=reason): evaluate(blind, faces, **options)


def test_a_model_without_the_expression_head_is_refused(faces):
    with pytest.raises(FerError, match="no output 'expression'"):
        evaluate(lambda x: {'face': np.ones((len(x), 7))}, faces)


@pytest.mark.parametrize(
    'scaling', [['factors'], {'factors': [1, 2]}, {'factors': [0] * 7, 'offsets': [0] * 7}], ids=['list', 'short', '0']
)
def test_a_scaling_that_does_not_fit_is_refused(faces, scaling):
    with pytest.raises(FerError, match='one factor above 0'): evaluate(blind, faces, scaling=scaling)


def test_the_temperature_is_in_the_figures(faces):
    "Divided by 3, the logits are those of the model before; the uncalibrated figures know nothing of it."
    part = faces.subset('val')
    guess = np.random.default_rng(0).normal(size=(len(part), 7)) + np.eye(7)[part.labels]
    plain, loud, calm = (
        evaluate(lambda _, k=k: k * guess, faces, temperature=t, batch_size=len(part))['results'][0]
        for k, t in ((1, 1), (3, 1), (3, 3))
    )
    for k in ('nll', 'brier', 'ece'):
        assert calm[k] == pytest.approx(plain[k], rel=1e-4) and loud[k] > calm[k] + 0.1
        assert calm['uncalibrated'][k] == pytest.approx(loud[k], rel=1e-4)
    assert (calm['temperature'], calm['accuracy']) == (3, plain['accuracy'])


def test_a_report_is_whole_or_not_there(tmp_path):
    save_report(tmp_path, {'accuracy': 0.5})
    before = (tmp_path / 'evaluation.json').read_bytes()
    with pytest.raises(ValueError): save_report(tmp_path, {'accuracy': float('nan')})
    assert (tmp_path / 'evaluation.json').read_bytes() == before
    with pytest.raises(FerError, match='is a file, not a folder'): save_report(tmp_path / 'evaluation.json', {})
    assert [o.name for o in tmp_path.iterdir()] == ['evaluation.json']


def test_evaluations_on_the_test_set_are_logged(faces, tmp_path):
    assert append_test_log(tmp_path, faces, ['val', 'train']) == []
    assert read_test_log(tmp_path / 'test_log.json') is None
    for reason in ('the finished model', ''): log = append_test_log(tmp_path, faces, ['val', 'test'], reason=reason)
    assert log == read_test_log(tmp_path / 'test_log.json') == json.loads((tmp_path / 'test_log.json').read_text())
    seen = [(o['evaluation'], o['split'], o['reason']) for o in log]
    assert seen == [(1, 'test', 'the finished model'), (2, 'test', 'not given')]
    with pytest.raises(ValueError, match='tset'): append_test_log(tmp_path, faces, ['tset'])
    (tmp_path / 'test_log.json').write_text('{}')
    with pytest.raises(FerError, match=r'test_log\.json: not a test-set log'):
        append_test_log(tmp_path, faces, ['test'])


def test_a_card_needs_results(faces):
    about = {'name': 'm', 'classes': faces.classes, 'data': 'synthetic faces', 'license': 'Apache-2.0'}
    with pytest.raises(FerError, match='no results'): model_card(about, {})


# --- batches: what is measured is on disk, what fails costs only itself


@pytest.fixture(scope='module')
def small(faces, tmp_path_factory):
    "A folder with a small dataset, a model and a damaged one."
    import shutil

    from fer_nb.fer2013 import write_fer2013
    from fer_nb.model_files import find_model

    folder = tmp_path_factory.mktemp('evaluate')
    write_fer2013(faces[:140], folder / 'few.csv')
    shutil.copy(find_model('s'), folder / 's.int8.tflite')
    (folder / 'bad.tflite').write_bytes(b'no model')
    return folder


def evaluate_command(capsys, monkeypatch, folder, *argv):
    "`fer_nb evaluate` in a folder: exit code, stderr."
    from fer_nb.cli import main

    monkeypatch.chdir(folder)
    code = main(['evaluate', *argv, '--data', 'few.csv'])
    return code, capsys.readouterr().err


def test_a_model_that_fails_costs_itself_and_resume_skips_the_rest(small, capsys, monkeypatch):
    models = 's.int8.tflite', 'bad.tflite', 'none.tflite'
    code, err = evaluate_command(capsys, monkeypatch, small, *models, '--split', 'val', 'test', '--out', 'report')
    assert (code, err.splitlines()[-1]) == (1, '2 evaluations done, 0 skipped, 4 failed')
    assert 'bad.tflite: ' in err and 'none.tflite: ' in err
    before = (small / 'report/evaluation.json').read_bytes()
    assert len(json.loads(before)['measured']) == 2 and len(read_test_log(small / 'report/test_log.json')) == 1
    again = [models[0], '--split', 'val', 'test', '--out', 'report', '--resume']
    code, err = evaluate_command(capsys, monkeypatch, small, *again)
    assert (code, err.splitlines()[-1]) == (0, '0 evaluations done, 2 skipped, 0 failed')
    assert len(read_test_log(small / 'report/test_log.json')) == 1  # nothing was evaluated
    assert (small / 'report/evaluation.json').read_bytes() == before
    code, err = evaluate_command(capsys, monkeypatch, small, *again, '--tta', 'flip')
    assert (code, err.splitlines()[-1]) == (0, '2 evaluations done, 0 skipped, 0 failed')
    assert len(read_test_log(small / 'report/test_log.json')) == 2


@pytest.mark.parametrize(
    ('options', 'reason'),
    [
        (['s', '--out', 'few.csv'], 'few.csv'),
        (['s', '--tta', 'eleven'], 'eleven'),
        (['s', '--resume'], '--resume needs --out'),
        (['--check', 'few.csv'], 'few.csv: not JSON'),
        (['--check', 'list.json'], 'list.json: not a report of an evaluation (it is not an object)'),
        (['bad.tflite'], 'bad.tflite: '),
    ],
)
def test_what_cannot_end_well_is_said_before_the_data_are_read(small, capsys, monkeypatch, options, reason):
    (small / 'list.json').write_text('[1, 2]')
    code, err = evaluate_command(capsys, monkeypatch, small, *options)
    assert code == 2 and reason in err and 'Traceback' not in err


ODD = {'list': [1], 'text': 'words', 'nothing': None, 'nested': {'a': [{'b': 'c'}]}, 'number': 3.5}


@pytest.mark.parametrize('field', ['data', 'license', 'selection', 'pretraining', 'test_log', 'command', 'crop', 'odd'])
@pytest.mark.parametrize('value', ['<img src=x onerror=alert(1)>\n# Heading\n\n| a |', 'x' * 100_000, ODD, 7])
def test_what_metadata_say_reaches_a_card_without_markup(faces, root, field, value):
    report = json.loads((root / 'models/s/evaluation.json').read_text())
    about = {'name': 'm', 'classes': faces.classes, 'data': 'faces', 'license': 'Apache-2.0', field: value}
    usual = model_card(about | {field: 'usual'}, report)
    card = model_card(about, report)
    if field != 'command':  # which is a block of code
        headings = [[o for o in text.splitlines() if o.startswith('#')] for text in (card, usual)]
        assert headings[0] == headings[1] and '<img' not in card
    assert len(card) < len(usual) + 20_000


SHIPPED = sorted(Path('models').glob('*/MODEL_CARD.md'))


def parts_of(card):
    "The front matter of a card, read, and its headings."
    _, front, text = card.split('---\n', 2)
    return yaml.safe_load(front), [o for o in text.splitlines() if o.startswith('#')]


@pytest.mark.parametrize('file', SHIPPED, ids=lambda path: path.parent.name)
def test_the_cards_of_the_shipped_models(file):
    "Short, by Hugging Face's headings, with results that a hub reads, each of them a figure of the report."
    text, report = file.read_text(encoding='utf-8'), json.loads((file.parent / 'evaluation.json').read_text())
    front, headings = parts_of(text)
    assert len(text.splitlines()) < 150
    assert {k: front[k] for k in ('license', 'library_name', 'pipeline_tag', 'datasets')} == {
        'license': 'apache-2.0', 'library_name': 'keras', 'pipeline_tag': 'image-classification',
        'datasets': ['fer2013']}
    assert headings == [
        f'# Model card: {file.parent.name}', '## Model details', '## Uses', '### Direct use', '### Downstream use',
        '### Out-of-scope use', '## Bias, risks, and limitations', '### Groups that were not evaluated',
        '### Label noise and the leak between training and test images', '## How to get started',
        '## Training details', '### Training data', '### Training procedure', '## Evaluation',
        '### Testing data, factors, and metrics', '### Results', '## Technical specifications', '## Citation',
        '## License', '## How to reproduce it']
    index, = front['model-index']
    assert index['name'] == file.parent.name and len(index['results']) == 4
    int8 = [o for o in report['results'] if o['format'] == 'int8']
    for result in index['results']:
        assert result['task']['type'] == 'image-classification' and set(result['dataset']) == {'type', 'name', 'split'}
        for metric in result['metrics']:
            assert set(metric) == {'type', 'value', 'name'} and metric['type'] in front['metrics']
            found = [o['per_class']['disgust']['recall'] if metric['type'] == 'recall' else o.get(metric['type'])
                     for o in int8 if o['split'] == result['dataset']['split']
                     and metric['name'].endswith(f"prior {o['prior']}")]
            assert metric['value'] in [round(o, 4) for o in found if o is not None]


@pytest.mark.parametrize('file', SHIPPED, ids=lambda path: path.parent.name)
def test_what_a_shipped_card_owes_its_reader(file):
    "The first table is that of the yardsticks; what was not evaluated, rights, leak and every look at the test set."
    from fer_nb.yardsticks import YARDSTICKS

    text = file.read_text(encoding='utf-8')
    tables = [o.splitlines() for o in text.split('\n\n') if o.startswith('| ')]
    assert [o.split(' | ')[0].removeprefix('| ') for o in tables[0][2:]] == [o.title for o in YARDSTICKS]
    assert tables[0][0] == '| measure, % | split | n | trained | balanced | everyday |'
    for part in ('Article 5(1)(f)', 'No metric per group exists', 'no license for its images', 'not settled law',
                 'pixel for pixel among the training images', '*TTA* is test-time', '*deduplicated* ones leave out',
                 '95 % interval', 'Barrett', '[evaluation.json](evaluation.json)', 'FER+ taggers', 'published results'):
        assert part.lower() in text.lower(), part
    log, = [o for o in tables if o[0].startswith('| evaluation |')]
    shown = [n for line in log[2:] for n in line.strip('| ').split(' | ')[0].split(', ')]
    entries = read_test_log(file.parent / 'test_log.json')
    assert shown[:len(entries)] == [str(o['evaluation']) for o in entries]
    assert shown == [str(i) for i in range(1, len(shown) + 1)]


def test_the_card_of_a_model_without_fer2013_or_photographs(faces, tmp_path):
    "Own data have their own names: no yardsticks, no rights of FER2013, and its figures first."
    report = evaluate(blind, faces, name='own')
    about = {'name': 'own', 'classes': faces.classes, 'data': 'faces of ours', 'license': 'MIT', 'pretraining': 'none'}
    card = model_card(about, report | {'edition': 'class folders', 'model': 'own.int8.tflite'})
    front, headings = parts_of(card)
    assert 'datasets' not in front and front['license'] == 'mit' and 'FER2013' not in card and 'measure, %' not in card
    first, = front['model-index']
    assert {o['dataset']['type'] for o in first['results']} == {'class-folders'}
    record = report['results'][0]
    assert {m['type']: m['value'] for m in first['results'][0]['metrics']}['accuracy'] == round(record['accuracy'], 4)
    assert f'| **{record["accuracy"]:.2%}'.rstrip('%') in card.split('## ')[0]
    assert "Recognizer('own.int8.tflite')" in card and 'photographs' not in card.lower() and '## License' in headings
    from_it = model_card(about | {'pretraining': 'm, trained on FER2013'}, report | {'edition': 'class folders'})
    assert parts_of(from_it)[0]['datasets'] == ['fer2013'] and 'no license for its images' in from_it


NAMES = ['a: b', '- x', "it's \"that\"", '{a', '#', '---\nlicense: mit', '&amp', '\u2028', '1', 'yes']


@pytest.mark.parametrize('name', NAMES)
def test_no_name_breaks_the_front_matter(faces, root, name):
    report = json.loads((root / 'models/s/evaluation.json').read_text())
    about = {'name': name, 'classes': faces.classes, 'data': 'FER2013', 'license': f'Apache-2.0 {name}'}
    for edition in ('FER2013 fer2013.csv', name):
        front, _ = parts_of(model_card(about, report | {'edition': edition}))
        assert front['license'] == 'apache-2.0' and isinstance(front['model-index'][0]['name'], str)
        assert all(o['metrics'] for o in front['model-index'][0]['results'])


def test_a_report_that_lacks_something_is_named(faces):
    about = {'name': 'm', 'classes': faces.classes, 'data': 'faces', 'license': ' '}
    for results in ([{}], [{'split': 'a'}], ['text'], 'text'):
        with pytest.raises(FerError, match='the report: not a report'): model_card(about, {'results': results})


@pytest.fixture(scope='module')
def photographs(tmp_path_factory):
    "A model file with its training prior, a small FER2013 and everyday photographs, in one folder."
    import zipfile

    import cv2

    from fer_nb.fer2013 import write_fer2013
    from fer_nb.model_files import find_model, read_metadata, with_metadata
    from fer_nb.synthetic import synthetic_faces

    folder, model = tmp_path_factory.mktemp('yardsticks'), find_model('s')
    meta = read_metadata(model) | {'prior': [.1, .05, .1, .3, .25, .1, .1]}
    (folder / 's.int8.tflite').write_bytes(with_metadata(model.read_bytes(), meta, folder / 's.int8.tflite'))
    write_fer2013(synthetic_faces(70, seed=3), folder / 'few.csv')
    faces, lines = synthetic_faces(42, subjects=14), ['file,label,person']
    with zipfile.ZipFile(folder / 'faces.zip', 'w') as z:
        for i, (face, label, person) in enumerate(zip(faces.images, faces.labels, faces.subjects)):
            z.writestr(f'{i}.png', cv2.imencode('.png', face)[1].tobytes())
            lines.append(f'{i}.png,{faces.classes[label]},{person}')
    (folder / 'labels.csv').write_text('\n'.join(lines))
    return folder


def test_all_yardsticks_in_one_report(photographs, capsys, monkeypatch):
    options = '--everyday', '.', '--priors', 'everyday', 'balanced'
    argv = 's.int8.tflite', '--split', 'test', 'val', *options, '--out', 'm', '--card', '--reason', 'once'
    code, err = evaluate_command(capsys, monkeypatch, photographs, *argv)
    assert code == 0, err
    report = json.loads((photographs / 'm/evaluation.json').read_text())
    found = {(o['split'], o['prior']) for o in report['results']}
    splits = 'PrivateTest', 'PublicTest', 'report', 'select'
    assert found == {(split, prior) for split in splits for prior in ('trained', 'everyday', 'balanced')}
    assert [o['split'] for o in read_test_log(photographs / 'm/test_log.json')] == ['PrivateTest', 'report']
    card = (photographs / 'm/MODEL_CARD.md').read_text()
    assert '| everyday photographs: accuracy | report |' in card and '| not measured |' in card   # no votes here
    check = '--check', 'm/evaluation.json'
    assert evaluate_command(capsys, monkeypatch, photographs, *check, '--everyday', '.')[0] == 0
    code, err = evaluate_command(capsys, monkeypatch, photographs, *check)
    assert code == 0 and 'report, select not checked' in err


def test_attempts_take_the_samples_for_choosing(photographs, capsys, monkeypatch):
    import pandas as pd

    argv = 's.int8.tflite', '--everyday', '.', '--attempts', 'attempts.csv', '--reason'
    for remark in ('first', 'second'):
        assert evaluate_command(capsys, monkeypatch, photographs, *argv, remark)[0] == 0
    table = pd.read_csv(photographs / 'attempts.csv')
    assert table.remark.tolist() == ['first', 'second'] and table['everyday everyday'].notna().all()
    assert table['clear_balanced trained'].isna().all()   # no votes


def test_a_prior_needs_the_training_prior_of_the_model(photographs, capsys, monkeypatch):
    from fer_nb.model_files import read_metadata, with_metadata

    known, unknown = photographs / 's.int8.tflite', photographs / 'unknown.int8.tflite'
    meta = {k: v for k, v in read_metadata(known).items() if k not in ('prior', 'default_prior')}
    unknown.write_bytes(with_metadata(known.read_bytes(), meta, unknown))
    code, err = evaluate_command(capsys, monkeypatch, photographs, unknown.name, '--priors', 'balanced')
    assert code != 0 and 'how often each class occurred in training' in err
