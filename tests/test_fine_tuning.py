"""Fine-tuning to one's own faces: from the files to the report, on a network of 1,000 weights."""
import re
import tracemalloc
from dataclasses import replace

import cv2
import numpy as np
import pytest

from fer_nb.audit import describe_dataset
from fer_nb.core import FerError
from fer_nb.cross_validation import FineTuner, cross_dataset, leave_one_subject_out, random_folds
from fer_nb.fine_tuning import FineTuneConfig, fine_tune, make_config, split_dataset, train_network
from fer_nb.initial_networks import initial_network, load_for_transfer, shipped_keras_file
from fer_nb.labels import EXPRESSIONS
from fer_nb.own_faces import load_faces
from fer_nb.synthetic import synthetic_faces

QUICK = {'epochs': 2, 'unfreeze_every': .5}
HEAD = {'mode': 'head', 'epochs': 1}


@pytest.fixture(scope='module')
def tiny(tmp_path_factory):
    "The .keras file of a network with batch norm and a head for the seven expressions."
    import keras

    keras.utils.set_random_seed(0)
    L = keras.layers
    network = keras.Sequential([
        keras.Input((None, None, 1)), L.Rescaling(1 / 255), L.Conv2D(8, 3, strides=4), L.BatchNormalization(), L.ReLU(),
        L.Conv2D(8, 3, strides=2), L.ReLU(), L.GlobalAveragePooling2D(), L.Dense(7, name='expression'),
    ])
    network.save(path := tmp_path_factory.mktemp('tiny') / 'tiny.keras')
    return path


@pytest.fixture(scope='module')
def winks():
    "An eighth class beside the seven expressions; four subjects, 14 faces of each, no splits."
    faces = synthetic_faces(56, subjects=4, classes=(*EXPRESSIONS, 'wink'), seed=3)
    return replace(faces, split=np.full(len(faces), 'all'))


@pytest.fixture(scope='module')
def out(tmp_path_factory): return tmp_path_factory.mktemp('wink')


@pytest.fixture(scope='module')
def mine(winks, tiny, out):
    "What `fine_tune` makes of them."
    return fine_tune(winks, out, backbone=tiny, name='wink', formats=['fp16'], config=QUICK, progress=False)


# --- the network to begin with


def test_new_head_keeps_what_was_known():
    "With an eighth class the logits of the seven are those of the shipped model."
    from fer_nb.evaluation import predict_logits

    images = synthetic_faces(14).images
    network, origin = initial_network('s', 'pretrained', classes=(*EXPRESSIONS, 'wink'))
    before, *_ = load_for_transfer(shipped_keras_file('s'))
    logits = predict_logits(before, images)
    np.testing.assert_allclose(
        predict_logits(network, images)[:, :7], logits['expression'] if isinstance(logits, dict) else logits, atol=1e-3
    )
    assert origin.startswith('s: ')


@pytest.mark.parametrize('backbone, weights, message', [
    ('xs', 'pretrained', "model 'xs' is not shipped"),
    ('resnet', 'pretrained', "backbone 'resnet' is neither"),
    ('resnet', None, 'resnet: only'),
    ('vgg16', 'text.keras', 'text.keras'),
    ('mobilenet', 'none.h5', 'none.h5'),
    ('color.keras', 'pretrained', r'takes \(None, 48, 48, 3\); gray faces'),
    ('headless.keras', 'pretrained', 'has no dense layer called `expression`'),
    ('text.keras', 'pretrained', 'text.keras: not a Keras model'),
    ('none.keras', 'pretrained', 'none.keras: no such model file'),
])
def test_unusable_beginnings(backbone, weights, message, tmp_path, monkeypatch):
    "One line that names what does not fit."
    import keras

    monkeypatch.chdir(tmp_path)
    (tmp_path / 'text.keras').write_text('no model')
    for name, channels, head in (('color', 3, 'expression'), ('headless', 1, 'another')):
        if backbone == f'{name}.keras':
            layers = [keras.layers.Flatten(), keras.layers.Dense(7, name=head)]
            keras.Sequential([keras.Input((48, 48, channels)), *layers]).save(backbone)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        initial_network(backbone, weights, classes=['a', 'b'])


# --- fine_tune


def test_files_and_classes(mine):
    assert (mine.classes[-1], set(mine.files), len(mine.history)) == ('wink', {'fp16', 'keras'}, 2)
    written = {o.name for o in mine.folder.iterdir() if o.suffix in ('.md', '.keras', '.tflite', '.json', '.csv')}
    assert written == {'MODEL_CARD.md', 'evaluation.json', 'history.csv', 'model.keras', 'config.json',
                       'wink.fp16.tflite', 'wink.keras'}
    assert (mine.report['split'], mine.report['disjoint_subjects']) == ('validation', True)


def test_no_subject_is_on_both_sides(winks):
    sides = split_dataset(winks)
    train, val = (set(sides.subset(o).subjects) for o in ('train', 'val'))
    assert train and val and not train & val


def test_recognizer_gives_the_same_probabilities(mine):
    images = synthetic_faces(8, seed=77, classes=mine.classes).images
    recognize = mine.recognizer()
    assert recognize.classes == mine.classes
    probabilities = [list(r.faces[0].probabilities.values()) for r in recognize.recognize_crops(images)]
    np.testing.assert_allclose(probabilities, mine.probabilities(images), atol=.02)


def test_batch_norm_is_left_alone_and_layers_join_from_the_top(mine, tiny):
    "After two epochs the upper convolution has learned, the lower one has not begun."
    before, *_ = load_for_transfer(tiny)
    pairs = zip(before.layers, mine.model.layers[-len(before.layers):])
    layers = [(type(a).__name__, a.get_weights(), b.get_weights()) for a, b in pairs]
    for kind, old, new in layers:
        if kind == 'BatchNormalization':
            for a, b in zip(old, new): np.testing.assert_array_equal(a, b)
    (_, lower, lower_now), (_, upper, upper_now) = (o for o in layers if o[0] == 'Conv2D')
    np.testing.assert_allclose(lower_now[0], lower[0], rtol=1e-4)
    assert not np.allclose(upper_now[0], upper[0], rtol=1e-4)


def test_only_the_head_learns(winks, tiny, tmp_path):
    before, *_ = load_for_transfer(tiny)
    network = train_network(split_dataset(winks), tmp_path, backbone=tiny, config=HEAD, progress=False).network
    for a, b in zip(before.get_weights()[:-2], network.get_weights()[:-2]): np.testing.assert_array_equal(a, b)


def test_the_same_configuration_gives_the_same_network(mine, winks, tiny, tmp_path):
    "The new head's first weights included."
    network, history, *_ = train_network(split_dataset(winks), tmp_path, backbone=tiny, config=QUICK, progress=False)
    same = ('loss', 'val_loss', 'accuracy', 'val_accuracy')
    assert [[o[k] for k in same] for o in history] == [[o[k] for k in same] for o in mine.history]
    for a, b in zip(network.get_weights(), mine.model.get_weights()): np.testing.assert_array_equal(a, b)


def test_finished_run_is_only_reported(mine, winks, tiny, out, capsys):
    "The checkpoint is not written again. What is in the data is printed first."
    written = (out / 'checkpoint.npz').stat().st_mtime_ns
    again = fine_tune(winks, out, backbone=tiny, name='wink', formats=['fp16'], config=QUICK)
    assert f'{describe_dataset(split_dataset(winks))}'.strip() in capsys.readouterr().out
    assert again.report['accuracy'] == mine.report['accuracy']
    assert (out / 'checkpoint.npz').stat().st_mtime_ns == written


@pytest.mark.parametrize('samples, options, message', [
    (56, {'config': QUICK | {'epochs': 3}}, r'another configuration \(epochs'),
    (40, {}, 'was begun with other faces, labels or classes'),
    (56, {'config': {'epoch': 3}}, 'unknown field epoch;'),
    (56, {'config': {'mode': 'half'}}, "neither 'full' nor 'head'"),
    (56, {'weights': None, 'config': HEAD}, "mode = 'head' needs pretrained weights"),
])
def test_another_experiment_in_the_same_folder_is_refused(mine, winks, tiny, out, samples, options, message):
    with pytest.raises(FerError, match=message):
        fine_tune(winks[:samples], out, **{'backbone': tiny, 'config': QUICK, 'progress': False} | options)


@pytest.mark.parametrize('options, message', [
    ({'name': 'a/b'}, "the name 'a/b' has / in it"), ({'name': '..'}, 'with a dot'), ({'name': ''}, 'is empty'),
    ({'name': 'Model'}, "the name 'model' is that of"), ({'name': 101 * 'x'}, 'longer than 100'),
    ({'formats': ['fp17']}, 'fp17 is not one of fp32, fp16, int8, onnx'), ({'about': ['license']}, 'has no fields'),
    ({'config': {'epochs': 'abc'}}, "epochs = 'abc' is not of type"), ({'config': {'epochs': True}}, 'not of type int'),
    ({'config': {'learning_rate': float('nan')}}, 'learning_rate = nan is not from'), ({'config': [1]}, 'holds list'),
    ({'config': {'layer_groups': 0}}, 'layer_groups = 0 is not'), ({'config': {'crop': None}}, 'not of type int'),
    ({'config': {'epoch': 3}}, 'did you mean epochs?'), ({'out': 'file'}, 'a file is in its place'),
])
def test_a_wrong_request_is_refused_before_anything_is_read(tmp_path, options, message):
    (tmp_path / 'file').touch()
    out = tmp_path / options.pop('out', 'new')
    with pytest.raises(FerError, match=re.escape(message)): fine_tune(tmp_path / 'nowhere', out, **options)
    assert [p.name for p in tmp_path.iterdir()] == ['file']


def test_a_whole_configuration_or_some_of_its_fields():
    "A `FineTuneConfig` is taken as it is; fields are changes of the defaults, which differ without pretrained weights."
    assert make_config('s', 'pretrained', {'epochs': 7}) == FineTuneConfig(epochs=7)
    assert make_config('xs', None, FineTuneConfig(epochs=7)) == FineTuneConfig(network='xs', epochs=7)
    assert make_config('xs', None, {'epochs': 7}).learning_rate > FineTuneConfig().learning_rate


# --- evaluation in folds, and across data sets


def test_subjects_left_out(winks, tiny, tmp_path):
    "Each subject is predicted once, by a network that trained on the others; a finished fold is not trained again."
    learn, seen = FineTuner(tiny, config=HEAD), []

    def recording(faces, folder):
        seen.append(set(faces.subjects))
        return learn(faces, folder)

    recording.key = learn.key
    result = leave_one_subject_out(winks, tmp_path, folds=2, learner=recording, progress=False)
    assert (result.report['n'], len(result.folds), len(seen)) == (len(winks), 2, 2)
    assert not seen[0] & seen[1] and seen[0] | seen[1] == set(winks.subjects)
    again = leave_one_subject_out(winks, tmp_path, folds=2, learner=recording, progress=False)
    assert len(seen) == 2
    np.testing.assert_array_equal(again.probabilities, result.probabilities)


def even(faces, folder): return lambda images: np.full((len(images), 8), 1 / 8)


def test_a_fold_that_fails_costs_itself(winks, tmp_path):
    "The next call trains that fold alone."
    calls = []

    def failing(faces, folder):
        calls.append(len(faces))
        if len(calls) == 2: raise OSError(28, 'No space left on device')
        return even(faces, folder)

    with pytest.warns(UserWarning, match='fold P01 failed: .*No space left'):
        part = leave_one_subject_out(winks, tmp_path, learner=failing, progress=False)
    lost = winks.subjects == 'P01'
    assert (part.report['n'], len(part.folds), len(part.accuracies)) == ((~lost).sum(), 4, 3)
    np.testing.assert_array_equal(np.isnan(part.probabilities).any(axis=1), lost)
    assert '3 folds, 1 failed' in repr(part)
    whole = leave_one_subject_out(winks, tmp_path, learner=failing, progress=False)
    assert len(calls) == 5 and whole.report['n'] == 56
    with pytest.warns(UserWarning), pytest.raises(FerError, match='every fold failed; the first: ZeroDivisionError'):
        leave_one_subject_out(winks, learner=lambda faces, folder: 1 / 0, progress=False)


@pytest.mark.parametrize('change', ['key', 'bytes', 'numbers'])
def test_predictions_of_something_else_are_named(winks, tmp_path, change):
    "Of other faces or another configuration, damaged, or no probabilities: not counted, and not replaced either."
    leave_one_subject_out(winks, tmp_path, folds=2, learner=even, progress=False)
    file = tmp_path / '000' / 'predictions.npz'
    with np.load(file) as z: arrays = dict(z)
    if change == 'bytes': file.write_bytes(file.read_bytes()[:300])
    else: np.savez(file, **arrays | ({'key': 'other'} if change == 'key' else {'p': arrays['p'] * np.nan}))
    before = file.read_bytes()
    with pytest.warns(UserWarning, match='predictions.npz: (is from other faces|not the predictions)'):
        part = leave_one_subject_out(winks, tmp_path, folds=2, learner=even, progress=False)
    assert file.read_bytes() == before and part.report['n'] < 56


def test_random_folds_forget_subjects(winks, tiny):
    seen = []

    def learn(faces, folder):
        seen.append(faces)
        return lambda images: np.full((len(images), 8), 1 / 8)

    result = random_folds(winks, folds=2, learner=learn, progress=False)
    assert (result.report['n'], len(seen)) == (len(winks), 2)
    assert all(o.subjects is None for o in seen)


def test_from_scratch(winks, tmp_path):
    "Random weights: everything learns at once, batch norm too."
    run = train_network(
        split_dataset(winks), tmp_path, backbone='xs', weights=None, config={'epochs': 1}, progress=False
    )
    assert (run.origin, len(run.history)) == ('none, random initialization', 1)
    assert (run.config.freeze_bn, run.config.unfreeze_every) == (False, 0.)
    means = [o.get_weights()[2] for o in run.network.layers if type(o).__name__ == 'BatchNormalization']
    assert means and all(np.abs(o).max() > 0 for o in means)


def test_train_on_one_set_test_on_another(winks, tiny, tmp_path):
    "Classes are merged, renamed and dropped on either side; every face of the other set is predicted."
    others = synthetic_faces(35, seed=8)
    mood = dict.fromkeys(('angry', 'disgust', 'fear', 'sad'), 'bad') | dict(happy='good', surprise='good', wink=None)
    report = cross_dataset(
        winks, others, mapping=mood, out=tmp_path, backbone=tiny, config=HEAD, progress=False
    )
    assert (report['classes'], report['n'], report['left_out']) == (['bad', 'good', 'neutral'], 35, {})
    assert report['tested_on'] == others.edition
    with pytest.raises(FerError, match='no class tired in either set'):
        cross_dataset(winks, others, mapping={'tired': None})


def test_fine_tuning_beats_no_training(tmp_path):
    "The whole shipped model, evaluated on subjects that were not in the training."
    from fer_nb.cross_validation import evaluate_dataset

    ours, others = (synthetic_faces(105, subjects=10, studio=True, seed=seed) for seed in (8, 9))
    ours = replace(ours, split=np.full(len(ours), 'all'))
    report = cross_dataset(ours, others, out=tmp_path, config={'epochs': 6}, progress=False)
    assert report['accuracy'] > evaluate_dataset(others, 's')['accuracy'] + .1


# --- memory


def test_a_folder_is_read_one_file_at_a_time(tmp_path):
    "200 images of 480 x 480 are 46 MB; beside the faces that stay, a tenth of that is enough."
    images = synthetic_faces(10).images
    for i in range(200):
        path = tmp_path / ('asleep', 'awake')[i % 2] / f'{i}.jpg'
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), cv2.resize(images[i % 10], (480, 480)))
    tracemalloc.start()
    try:
        loaded = load_faces(tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally: tracemalloc.stop()
    assert len(loaded) == 200
    assert peak - loaded.images.nbytes < 1e7
