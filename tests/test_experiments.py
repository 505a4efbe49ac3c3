"""An experiment trains every pair once, evaluates again where more is asked, and notices exchanged networks."""
import json
from dataclasses import replace

import numpy as np
import pytest

from fer_nb.checkpoints import file_fingerprint
from fer_nb.core import FerError
from fer_nb.evaluation import TTA
from fer_nb.experiments import read_experiment, run_experiment
from fer_nb.synthetic import synthetic_faces

RECIPE = {
    'network': 'baseline', 'ferplus': False, 'epochs': 1, 'crop': 48, 'batch_size': 32, 'optimizer': 'adam',
    'learning_rate': 0.001,
}
SMALL = {'config': RECIPE, 'variants': {'as it is': {}, 'a lower rate': {'learning_rate': 0.0001}}, 'seeds': [0, 1]}
FEW = synthetic_faces(n=140, seed=5)


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    "Two variants with two seeds, trained for one epoch: (the report, the folder of the runs)."
    folder = tmp_path_factory.mktemp('experiment')
    return run_experiment(SMALL, FEW, out=folder, progress=False), folder


@pytest.fixture(scope='module')
def second(runs):
    "A run that goes on from the one of the first variant with its seed: (the experiment, its report, its folder)."
    _, folder = runs
    parts = {'config': RECIPE | {'init_from': f'{folder}/as-it-is-{{seed}}/model.keras'}, 'seeds': [1]}
    return parts, run_experiment(parts, FEW, out=folder / 'second', progress=False), folder / 'second'


@pytest.mark.parametrize(
    ('fields', 'reason'),
    [
        ({'configs': {}}, 'holds configs; config, stages, variants, seeds are known'),
        ([], r'holds a list, \[\]; fields are needed'),
        ({'variants': ['a']}, 'variants are names with changed fields'),
        ({'variants': {'a': {'epoch': 3}}}, 'unknown field epoch'),
        ({'seeds': ['one']}, r"seeds \['one'\] are not"),
        ({'seeds': [0, 0]}, 'each once'),
        ({'seeds': [-1]}, 'seed = -1 is not from 0'),
        ({'variants': {'a b': {}, 'a/b': {}}}, 'a b, a/b are the same as folders'),
        ({'variants': {'..': {}}}, "name of a variant '..-0' begins or ends with a dot"),
        ({'stages': {'epochs': 2}}, 'stages are a list of changed fields'),
        ({'stages': [{'epoch': 2}, {}]}, 'unknown field epoch'),
        ({'stages': [{'init_from': '{previous}/model.keras'}]}, 'before the first stage there is none'),
        ({'config': {'epochs': 'many'}}, "epochs = 'many' is not of type int"),
    ],
)
def test_experiments_that_are_refused(tmp_path, fields, reason):
    (file := tmp_path / 'experiment.yaml').write_text(json.dumps(fields))
    with pytest.raises(ValueError, match=f'experiment.yaml: .*{reason}'): read_experiment(file)


def test_a_variant_that_fails_costs_itself(runs):
    "It is named in the report, the others are there, and differences are those to the first variant, or none."
    found, folder = runs
    broken = {'config': RECIPE, 'variants': {'broken': {'init_from': 'gone.keras'}, 'as it is': {}}, 'seeds': [0]}
    with pytest.warns(UserWarning, match='broken-0: this run failed: gone.keras: cannot start baseline'):
        report = run_experiment(broken, FEW, out=folder, report=folder / 'broken.json', progress=False)
    assert [o['variant'] for o in report['runs']] == ['as it is']
    assert [(o['variant'], o['error'][:21]) for o in report['failed']] == [('broken', 'FerError: gone.keras:')]
    assert {o['difference'] for o in report['summary']} == {None}
    assert report == json.loads((folder / 'broken.json').read_text())
    broken['variants'].pop('as it is')
    with pytest.warns(UserWarning), pytest.raises(FerError, match='gone.keras: cannot start baseline'):
        run_experiment(broken, FEW, out=folder, report=folder / 'broken.json', progress=False)


def test_a_report_does_not_replace_another_file(runs, tmp_path):
    (file := tmp_path / 'notes.json').write_text('{"mine": 1}')
    with pytest.raises(FerError, match='notes.json: is there, and no report'):
        run_experiment(SMALL, FEW, out=runs[1], report=file, progress=False)
    assert file.read_text() == '{"mine": 1}'


@pytest.mark.parametrize('content', ['', '{"config": 1}', '[' * 9999, '{"config": 1, "evaluated": [], "results": [1]}'])
def test_a_changed_result_is_named(runs, tmp_path, content):
    (place := tmp_path / 'as-it-is-0').mkdir()
    (place / 'metrics.json').write_text(content)
    with pytest.warns(UserWarning), pytest.raises(FerError, match='metrics.json: not the result of a run'):
        run_experiment(SMALL | {'seeds': [0], 'variants': {}}, FEW, out=tmp_path, progress=False)


@pytest.mark.parametrize('options', [{'tta': ['tencrop']}, {'splits': ['tset']}], ids=['tta', 'split'])
def test_wrong_tta_or_a_wrong_split_is_found_before_the_training(tmp_path, options):
    with pytest.raises(ValueError, match='tencrop|tset'): run_experiment(SMALL, FEW, out=tmp_path / 'none', **options)
    assert not (tmp_path / 'none').exists()


def test_the_summary_is_the_mean_over_the_seeds(runs):
    found, _ = runs
    assert [(o['variant'], o['seed']) for o in found['runs']] == [(v, s) for s in (0, 1) for v in SMALL['variants']]
    where = ('split', 'samples', 'tta', 'protocol')
    accuracies = {}
    for run in found['runs']:
        for r in run['results']:
            accuracies.setdefault((run['variant'], *(r[k] for k in where)), []).append(r['accuracy'])
    # variants, full and deduplicated samples, without and with flip
    assert len(found['summary']) == len(accuracies) == 2 * 2 * 2
    for line in found['summary']:
        which = tuple(line[k] for k in where)
        of_seeds, base = accuracies[line['variant'], *which], accuracies['as it is', *which]
        assert line['seeds'] == len(of_seeds) == 2
        got = [line['accuracy'], line['sd'], line['difference']]
        wanted = [np.mean(of_seeds), np.std(of_seeds, ddof=1), np.mean(of_seeds) - np.mean(base)]
        np.testing.assert_allclose(got, wanted, atol=1e-12)


def test_complete_runs_are_not_trained_again(runs):
    found, folder = runs
    before = {p: p.stat().st_mtime_ns for p in folder.rglob('as-it-is-*/model.keras')}
    assert len(before) == 2
    fewer = SMALL | {'variants': {'as it is': {}}}
    again = run_experiment(fewer, FEW, out=folder, report=folder / 'again.json', progress=False)
    assert before == {p: p.stat().st_mtime_ns for p in folder.rglob('as-it-is-*/model.keras')}
    assert again['runs'] == [o for o in found['runs'] if o['variant'] == 'as it is']
    assert found == json.loads((folder / 'experiment.json').read_text())


def test_more_tta_and_splits_are_evaluated_without_a_training(runs):
    _, folder = runs
    first = SMALL | {'seeds': [0]}
    histories = {p: p.read_text() for p in folder.glob('*-0/history.csv')}  # with the seconds of each epoch
    assert len(histories) == 2
    more = run_experiment(first, FEW, out=folder, report=folder / 'more.json', tta=TTA, progress=False)
    assert {o['tta'] for o in more['summary']} == set(TTA) and more['test_log'] == []
    tested = run_experiment(
        first, FEW, out=folder, report=folder / 'more.json', splits=['val', 'test'], tta=['none'], progress=False
    )
    assert {o['split'] for o in tested['summary']} == {'val', 'test'}
    log = [(o['split'], o['reason']) for o in tested['test_log']]
    assert log == [('test', f'run {o}-0 of the experiment {folder.name}') for o in ('as-it-is', 'a-lower-rate')]
    assert {p: p.read_text() for p in histories} == histories


def test_a_run_goes_on_from_the_network_with_its_seed(runs, second):
    (_, folder), (_, found, out) = runs, second
    start = f'{folder}/as-it-is-1/model.keras'
    assert json.loads((out / 'as-it-is-1' / 'config.json').read_text())['init_from'] == start
    assert '{seed}' in found['config']['init_from']
    # what it began with, as the checkpoint knows it
    other = file_fingerprint(folder / 'as-it-is-0/model.keras')
    assert found['runs'][0]['files'] == {start: file_fingerprint(start)} != {start: other}


def test_a_network_that_was_exchanged_is_noticed(runs, second):
    (_, folder), (parts, _, out) = runs, second
    start, other = (folder / f'as-it-is-{s}' / 'model.keras' for s in (1, 0))
    was = start.read_bytes()
    start.write_bytes(other.read_bytes())
    try:
        with pytest.warns(UserWarning), pytest.raises(ValueError, match='held something else'):
            run_experiment(parts, FEW, out=out, progress=False)
    finally: start.write_bytes(was)


def test_a_run_in_two_parts_is_one_experiment(tmp_path):
    "The second part begins where the first one ended; what is complete is not trained again."
    parts = [{'learning_rate': 0.01}, {'init_from': '{previous}/model.keras'}]
    more = FEW[np.flatnonzero(FEW.split == 'train')[:20]]
    staged = {'config': RECIPE, 'stages': parts, 'seeds': [3]}
    found = run_experiment(staged, FEW, out=tmp_path, extra=replace(more, split=None, votes=None), progress=False)
    start = str(tmp_path / 'as-it-is-3.part1' / 'model.keras')
    assert [o['files'] for o in found['runs']] == [{start: file_fingerprint(start)}]
    assert found['stages'] == parts and len(found['runs'][0]['parts']) == 2 and len(found['summary']) > 0
    assert json.loads((tmp_path / 'as-it-is-3.part1' / 'metrics.json').read_text())['results'] == []
    written = {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*.keras')}
    again = run_experiment(staged, FEW, out=tmp_path, extra=replace(more, split=None, votes=None), progress=False)
    assert again == found and written == {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*.keras')}
