"""The command `fer_nb` as it is installed, and the whole chain from data to a checked model card."""
import contextlib
import io
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

TINY = [o for field in ('network=xs', 'crop=32', 'batch_size=32', 'ferplus=false') for o in ('--set', field)]
FEW = ['--data', 'few.csv']


@pytest.fixture(scope='module')
def folder(tmp_path_factory, photos):
    "A folder with a portrait, and with synthetic faces as FER2013 has them and in class folders."
    import cv2

    from fer_nb.fer2013 import write_fer2013
    from fer_nb.synthetic import synthetic_faces

    path = tmp_path_factory.mktemp('cli')
    (path / 'portrait.jpg').write_bytes(photos[0].read_bytes())
    faces = synthetic_faces(n=105, seed=3)
    write_fer2013(faces, path / 'few.csv')
    for i, (image, label) in enumerate(zip(faces.images, faces.labels)):
        if (name := faces.classes[label]) in ('happy', 'surprise', 'fear'):
            (path / 'own' / name).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path / 'own' / name / f'{i:03}.png'), image)
    (path / 'about.yaml').write_text('license: to be tried out only\n')
    return path


@pytest.fixture(scope='module')
def fer_nb(run, folder):
    "The installed command in that folder."
    return lambda *words: run('fer_nb', *words, cwd=folder)


@pytest.fixture(scope='module')
def call(folder):
    "The same without a process of its own, where TensorFlow would be loaded again: exit code, stdout, stderr."
    from fer_nb.cli import main

    def called(*words):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.chdir(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(words)
        return code, out.getvalue(), err.getvalue()

    return called


def last(text: str) -> str: return text.strip().splitlines()[-1]


# --- without training


def test_version_and_help(fer_nb, run):
    import fer_nb as package

    assert fer_nb('version').stdout.split()[:2] == ['fer_nb', package.__version__]
    helped = fer_nb('--help')
    assert helped.returncode == 0 and helped.stdout.startswith('usage: fer_nb ')
    assert run('python', '-m', 'fer_nb', '--help').stdout == helped.stdout
    for command in ('predict', 'video', 'webcam', 'download-yunet', 'batch', 'describe', 'train', 'soft-labels',
                    'experiment', 'export', 'calibrate-crop', 'fine-tune', 'evaluate', 'model-card', 'version'):
        assert f'    {command} ' in helped.stdout or f'    {command}\n' in helped.stdout, command


def test_every_command_shows_examples(capsys):
    from fer_nb.cli import main
    from fer_nb.commands import COMMANDS

    assert len(COMMANDS) == 15
    for name in COMMANDS:
        with pytest.raises(SystemExit, match='0'): main([name, '--help'])
        assert f'examples:\n  fer_nb {name}' in capsys.readouterr().out


@pytest.mark.parametrize('words', [[], ['nonsense'], ['predict'], ['predict', 'a.jpg', '--min-confidence', '2']])
def test_wrong_options(fer_nb, words):
    "argparse ends with 2 and says why in its last line."
    done = fer_nb(*words)
    assert (done.returncode, done.stdout) == (2, '')
    assert last(done.stderr).startswith('fer_nb') and ' error: ' in last(done.stderr)


@pytest.mark.parametrize('words, said', [
    (['predict', 'portrait.jpg', '--model', 'nothing'], 'fer_nb predict: nothing: neither a model file'),
    (['describe', 'nowhere'], 'fer_nb describe: '),
    (['evaluate', 'about.yaml'], 'about.yaml: not a model file of fer_nb'),
    (['train', '--data', 'few.csv', '--set', 'epochs=many'], "'many' is not of type int"),
    (['download-yunet', '--url', 'http://127.0.0.1:9/none.onnx'], 'fer_nb download-yunet: '),
])
def test_what_cannot_start(fer_nb, words, said):
    "Exit code 2 and one line, not a traceback."
    done = fer_nb(*words)
    assert (done.returncode, done.stdout) == (2, '')
    assert said in done.stderr and 'Traceback' not in done.stderr
    assert sum(line.startswith('fer_nb ') for line in done.stderr.splitlines()) == 1


def test_predict(fer_nb, folder):
    "One JSON object for each input, a table, a marked picture; a missing file makes the exit code 1."
    done = fer_nb('predict', 'portrait.jpg', 'missing.jpg', '--json', '--csv', 'out/faces.csv', '--annotate', 'out')
    found, missing = map(json.loads, done.stdout.splitlines())
    face, = found['faces']
    assert (done.returncode, found['status'], missing['status']) == (1, 'ok', 'unreadable')
    assert face['label'] == max(face['probabilities'], key=face['probabilities'].get)
    assert abs(sum(face['probabilities'].values()) - 1) < 1e-6
    assert sorted(p.name for p in (folder / 'out').iterdir()) == ['faces.csv', 'portrait.png']
    assert last(done.stderr) == 'done: 1, skipped: 0, failed: 1, faces: 1'


def test_describe(fer_nb):
    done = fer_nb('describe', 'few.csv', '--json')
    assert (done.returncode, json.loads(done.stdout)['faces']) == (0, 105)


def test_describe_synthetic(call):
    "The word for synthetic faces, where a data set is asked for."
    code, out, _ = call('describe', 'synthetic')
    assert code == 0 and '700 faces' in out


def test_predict_imports_nothing_heavy(run, folder):
    heavy = "print([m for m in ('tensorflow', 'keras', 'pandas', 'matplotlib', 'yaml') if m in sys.modules])"
    code = f"import sys; from fer_nb.cli import main; main(['predict', 'portrait.jpg']); {heavy}"
    done = run('python', '-c', code, cwd=folder)
    assert (done.returncode, last(done.stdout)) == (0, '[]'), done.stderr


@pytest.mark.parametrize('what, code, said', [
    (lambda p: p.stdout.close(), 141, ''),
    pytest.param(
        lambda p: (p.send_signal(signal.SIGINT), p.stdout.read()), 130, 'fer_nb predict: stopped\n',
        marks=pytest.mark.skipif(sys.platform == 'win32', reason='no such signal'),
    ),
], ids=['reader gone', 'Ctrl-C'])
def test_stopped(what, code, said):
    "With more to say than a pipe holds: silent when its reader goes away, counts and one line after Ctrl-C."
    p = subprocess.Popen(
        [Path(sys.executable).with_name('fer_nb'), 'predict', '--detector', 'haar', *['missing.jpg'] * 5000],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    p.stdout.readline()
    what(p)
    assert p.wait(300) == code
    *counts, stopped = p.stderr.read().splitlines(keepends=True) or ['']
    assert stopped == said and [line[:7] for line in counts] == ['done: 0'] * bool(said)


# --- with a network that was trained for a moment


@pytest.fixture(scope='module')
def trained(fer_nb, folder):
    "The folder after `fer_nb train`."
    done = fer_nb('train', *FEW, '--out', 'run', '--quiet', '--set', 'epochs=2', *TINY)
    assert done.returncode == 0, done.stderr
    assert '2 epochs' in done.stdout
    assert len((folder / 'run' / 'history.csv').read_text().splitlines()) == 1 + 2
    return folder


@pytest.fixture(scope='module')
def exported(call, trained):
    "The folder after `fer_nb export` with vector scaling."
    code, out, err = call(
        'export', 'run/model.keras', *FEW, '--out', 'exported', '--name', 'tiny', '--formats', 'fp32',
        '--about', 'about.yaml', '--vector', '--default-prior', 'everyday',
    )
    assert code == 0, err
    assert out.startswith('tiny.fp32.tflite ')
    assert sorted(p.name for p in (trained / 'exported').iterdir()) == ['tiny.fp32.tflite', 'tiny.keras']
    return trained


def test_exported_model_predicts(fer_nb, exported):
    done = fer_nb('predict', 'portrait.jpg', '--model', 'exported/tiny.fp32.tflite', '--json')
    assert (done.returncode, json.loads(done.stdout)['status']) == (0, 'ok')


@pytest.mark.parametrize('words, expected', [
    ((), 'everyday'), (('--prior', 'trained'), 'trained'), (('--prior', 'balanced'), 'balanced'),
], ids=['none asked for', 'as trained', 'another one'])
def test_export_default_prior(exported, call, words, expected):
    "The prior that `fer_nb export` is told is the one of the answers, unless another one is asked for."
    code, out, err = call('predict', 'portrait.jpg', '--model', 'exported/tiny.fp32.tflite', '--json', *words)
    assert (code, json.loads(out)['prior']) == (0, expected), err


def test_export_refuses_an_unknown_default_prior(exported, call):
    with pytest.raises(SystemExit, match='2'):
        call('export', 'run/model.keras', *FEW, '--out', 'other', '--default-prior', 'weekday')
    assert not (exported / 'other').exists()


def test_files_of_data_without_votes_have_one_head(exported):
    from fer_nb.model_files import read_model
    from fer_nb.model_runners import litert_runner

    about, content = read_model(exported / 'exported/tiny.fp32.tflite')
    assert 'votes' not in about and (about['default_prior'], len(about['prior'])) == ('everyday', 7)
    assert litert_runner(content)(np.zeros((2, 48, 48), np.uint8)).shape == (2, 7)


def test_export_writes_the_scaling_into_the_network(exported):
    from fer_nb.keras_files import load_network

    before, after = [
        load_network(exported / o).get_layer('expression').get_weights()[1]
        for o in ('run/model.keras', 'exported/tiny.keras')
    ]
    assert not np.allclose(before, after)  # the offsets are in the last layer


@pytest.fixture(scope='module')
def experiment(call, exported):
    "The folder after `fer_nb soft-labels` and an experiment with two variants, one distilled; and what both print."
    (exported / 'experiment.yaml').write_text(
        'config: {network: xs, epochs: 1, crop: 32, batch_size: 32}\n'
        'variants: {labels: {}, distilled: {teachers: soft_labels.npz}}\n'
    )
    labels = call('soft-labels', 'run/model.keras', *FEW, '--views', '2', '--out', 'soft_labels.npz', '--quiet')
    done = call(
        'experiment', 'experiment.yaml', *FEW, '--out', 'runs', '--report', 'experiment.json', '--tta', 'none',
        '--quiet',
    )
    assert (labels[0], done[0]) == (0, 0), labels[2] + done[2]
    return exported, labels[1] + done[1]


def test_soft_labels_and_experiment(experiment):
    folder, printed = experiment
    assert '1 teachers' in printed and '| distilled |' in printed
    with np.load(folder / 'soft_labels.npz') as labels: assert labels.files
    report = json.loads((folder / 'experiment.json').read_text())
    assert len(report['runs']) == 2 and {run['variant'] for run in report['runs']} == {'labels', 'distilled'}


@pytest.fixture(scope='module')
def evaluated(call, experiment):
    "The folder after `fer_nb evaluate` of two files with and without augmentation, with a card; and what it printed."
    code, out, err = call(
        'evaluate', 'exported/tiny.keras', 'exported/tiny.fp32.tflite', *FEW, '--tta', 'none', 'flip', '--robustness',
        '--out', 'exported/report', '--card', '--seeds', 'experiment.json', '--reason', 'trying out',
    )
    assert code == 0, err
    return experiment[0], out


def test_evaluate(evaluated):
    "A heading, a line for each of models x test-time augmentation x (full, deduplicated), and one for each corruption."
    folder, printed = evaluated
    assert len(printed.splitlines()) == 1 + 2*2*2 + 10
    card = (folder / 'exported/report/MODEL_CARD.md').read_text()
    for part in ('to be tried out only', 'One corruption at a time', '**Other seeds**',
                 '| low_brightness | half as bright |', '| PrivateTest | trying out |',
                 "Recognizer('tiny.fp32.tflite')"):
        assert part in card, part


def test_check_reproduces_and_is_not_logged(evaluated, call):
    folder, _ = evaluated
    code, out, _ = call('evaluate', '--check', 'exported/report/evaluation.json', *FEW, '--tta', 'flip')
    assert (code, out) == (0, 'exported/report/evaluation.json: every figure is reproduced\n')
    assert [o['evaluation'] for o in json.loads((folder / 'exported/report/test_log.json').read_text())] == [1]


def test_check_catches_a_wrong_figure(evaluated, call):
    "Two figures claim a little more than was measured, one of them of changed faces; all others are reproduced."
    folder, _ = evaluated
    report = json.loads((folder / 'exported/report/evaluation.json').read_text())
    report['results'][0]['accuracy'] += .002
    report['robustness'][3]['accuracy_drop'] -= .002
    (folder / 'exported/wrong.json').write_text(json.dumps(report))
    code, out, _ = call('evaluate', '--check', 'exported/wrong.json', *FEW, '--split', 'PrivateTest')
    assert (code, len(out.splitlines())) == (1, 2), out


def test_card(evaluated, call):
    "Written again it is the same, with the seeds only if they are given again."
    folder, _ = evaluated
    path = folder / 'exported/report/MODEL_CARD.md'
    text, words = path.read_text(), ['model-card', 'exported/tiny.keras', *FEW, '--out', 'exported/report']
    assert call(*words)[0] == 0 and 'Other seeds' not in path.read_text()
    assert call(*words, '--seeds', 'experiment.json')[0] == 0 and path.read_text() == text
    code, _, err = call(*words, '--seeds', 'about.yaml')
    assert (code, last(err)) == (2, 'fer_nb model-card: about.yaml: not the report of an experiment')


def test_calibrate_crop_needs_a_litert_file(exported, call):
    code, _, err = call('calibrate-crop', 'exported/tiny.keras', *FEW)
    assert code == 2 and last(err).startswith('fer_nb calibrate-crop: ')


def test_fine_tune(exported, call):
    "Three class folders, one renamed, one dropped; the new model is used like the shipped one."
    from fer_nb.model_files import read_model
    from fer_nb.model_runners import litert_runner

    code, out, err = call(
        'fine-tune', 'own', '--out', 'tuned', '--map', 'happy=grin', '--map', 'fear=',
        '--backbone', 'exported/tiny.keras', '--mode', 'head', '--set', 'epochs=1', '--quiet',
    )
    assert (code, err, 'FineTuneResult(grin, surprise' in out) == (0, '', True), err
    assert out.endswith('see tuned\n')
    code, out, err = call('predict', 'own/happy', '--no-detect', '--json', '--model', 'tuned/own.int8.tflite')
    found = json.loads(out.splitlines()[0])
    assert (code, list(found['faces'][0]['probabilities']), found['prior']) == (0, ['grin', 'surprise'], 'trained')
    about, file = read_model(exported / 'tuned/own.int8.tflite')
    assert not {'votes', 'default_prior'} & set(about)
    assert litert_runner(file)(np.zeros((2, 48, 48), np.uint8)).shape == (2, 2)


@pytest.mark.parametrize('words, said', [
    (['nowhere'], 'nowhere'),
    (['own', '--map', 'happy'], '--map happy: OLD=NEW is needed'),
    (['own', '--map', 'glad=grin'], 'no class glad'),
    (['own', '--backbone', 'nothing'], "backbone 'nothing' is neither"),
    (['own', '--set', 'epoch=3'], 'unknown field epoch'),
    (['own', '--set', 'epochs=many'], "epochs = 'many' is not of type int"),
    (['own', '--set', 'epochs'], '--set epochs: NAME=VALUE is needed'),
    (['own/happy'], ''),
])
def test_fine_tune_refuses(call, words, said):
    "Before anything is trained."
    code, out, err = call('fine-tune', *words, '--quiet')
    assert (code, out) == (2, '')
    assert last(err).startswith('fer_nb fine-tune: ') and said in last(err)
