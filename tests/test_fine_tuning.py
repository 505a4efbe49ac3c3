"""Fine-tuning to one's own faces: from the files to the report, on a network of 1,000 weights."""
import json
import re
import tracemalloc
from dataclasses import replace

import cv2
import numpy as np
import pytest

from fer_nb.audit import describe_dataset
from fer_nb.core import FerError
from fer_nb.cross_validation import FineTuner, cross_dataset, leave_one_subject_out, random_folds
from fer_nb.fine_tune_config import FineTuneConfig, make_config
from fer_nb.fine_tuning import fine_tune, split_dataset, train_network
from fer_nb.initial_networks import initial_network, load_for_transfer, shipped_keras_file
from fer_nb.labels import EXPRESSIONS
from fer_nb.own_faces import load_faces
from fer_nb.synthetic import synthetic_faces

QUICK = {'epochs': 2, 'unfreeze_every': .5}
HEAD = {'mode': 'head', 'epochs': 1}
FAST = {'mode': 'quick'}


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


def test_its_own_classes_have_a_prior(mine):
    "Classes were weighed, so training saw all of them equally often; a share for each can be given."
    recognize = mine.recognizer()
    assert recognize.classifier.about['prior'] == [1 / 8] * 8 and recognize.prior == 'trained'
    never = recognize.with_prior(dict.fromkeys(mine.classes, 1) | {'wink': 0})
    faces = [r.faces[0] for r in never.recognize_crops(synthetic_faces(16, seed=7, classes=mine.classes).images)]
    assert {o.probabilities['wink'] for o in faces} == {0}
    with pytest.raises(FerError, match='knows the seven expressions, not wink'): recognize.with_prior('everyday')


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
    (56, {'config': {'mode': 'half'}}, "mode = 'half' is not one of full, head, quick"),
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


# --- quick: a logistic regression as the last layer


@pytest.fixture(scope='module')
def even_faces():
    "Four subjects; each shows the seven expressions twice."
    faces = synthetic_faces(56, subjects=4, seed=4)
    return replace(faces, split=np.full(len(faces), 'all'))


@pytest.fixture(scope='module')
def with_means(even_faces, tiny, tmp_path_factory):
    "What `fine_tune` makes of them, to be used with a person's baseline."
    return fine_tune(even_faces, tmp_path_factory.mktemp('means'), backbone=tiny, formats=['fp16'],
                     subject_baseline=True, progress=False)


def test_quick_changes_the_last_layer_only(winks, tiny, tmp_path):
    "The same call gives the same network; its files are those of a run, without epochs."
    before, *_ = load_for_transfer(tiny)
    made = [fine_tune(winks, tmp_path, backbone=tiny, formats=['fp16'], config=FAST, progress=False) for _ in '12']
    assert made[0].history == [] and made[0].report['accuracy'] == made[1].report['accuracy']
    assert made[0].subject_mean is None and 'subject_baseline' not in made[0].report
    for a, b, old in zip(*(o.model.get_weights() for o in made), before.get_weights()[:-2] + [None, None]):
        np.testing.assert_array_equal(a, b)
        if old is not None: np.testing.assert_array_equal(a, old)
    assert {o.name for o in tmp_path.glob('*.*') if not o.name.startswith('.')} >= {
        'config.json', 'model.keras', 'own.keras', 'own.fp16.tflite', 'evaluation.json', 'MODEL_CARD.md'}


@pytest.mark.parametrize('config', [QUICK, FAST | {'class_weights': False}, FAST | {'subject_baseline': True}])
def test_a_quick_run_keeps_its_folder(winks, tiny, tmp_path, config):
    "Another configuration is refused there, and writes nothing."
    train_network(split_dataset(winks), tmp_path, backbone=tiny, config=FAST, progress=False)
    before = {o.name: o.read_bytes() for o in tmp_path.iterdir()}
    with pytest.raises(FerError, match='another configuration'):
        train_network(split_dataset(winks), tmp_path, backbone=tiny, config=config, progress=False)
    assert {o.name: o.read_bytes() for o in tmp_path.iterdir()} == before


def test_two_classes_and_a_class_that_only_validation_has(winks, tiny, tmp_path):
    "Two classes have two logits; a class without training samples is never the answer."
    two = winks[winks.labels < 2]
    run = train_network(split_dataset(replace(two, classes=('a', 'b'))), tmp_path, backbone=tiny, config=FAST,
                        progress=False)
    assert run.network.output_shape == (None, 2)
    lost = replace(winks, split=np.where(winks.labels == 7, 'val', 'train'))
    run = train_network(lost, tmp_path / 'lost', backbone=tiny, config=FAST, progress=False)
    assert (run.network.predict(winks.images[..., None], verbose=0).argmax(1) < 7).all()


def test_figures_with_subject_means_are_marked(with_means):
    "In the report, its file, the text and the card, beside the figure without."
    rows = with_means.report['subject_baseline']
    assert [o['images'] for o in rows] == [3, 7, 'all'] and all(o['transductive'] for o in rows)
    without = f'{with_means.report["accuracy"]:.1%}'
    for text in (repr(with_means), (with_means.folder / 'MODEL_CARD.md').read_text(encoding='utf-8')):
        assert '3 / 7 / all unlabeled images (transductive)' in text and without in text
    assert json.loads((with_means.folder / 'evaluation.json').read_text())['subject_baseline'] == rows


def test_the_exported_file_with_a_baseline_does_what_was_measured(with_means, even_faces):
    "Image by image: features without their subject's mean, and the file with the mean's logits."
    from fer_nb.baselines import make_baseline
    from fer_nb.classification import Classifier, scaled_logits
    from fer_nb.core import softmax
    from fer_nb.linear_heads import head_features
    from fer_nb.priors import choose_prior
    from fer_nb.subject_means import subtract_subject_means

    person = even_faces[even_faces.subjects == 'P02']
    train = split_dataset(even_faces).subset('train')
    centre = head_features(with_means.model, train.images).mean(axis=0)
    features = head_features(with_means.model, person.images)
    kernel, bias = with_means.model.get_layer('expression').get_weights()
    moved = subtract_subject_means(features, person.subjects, centre)
    measured = softmax((moved @ kernel + bias) / with_means.temperature)
    np.testing.assert_allclose(with_means.probabilities(person.images, person.subjects), measured, atol=1e-3)

    classifier = Classifier(with_means.files['fp16'])
    logits = scaled_logits(classifier, person.images)
    baseline = make_baseline(logits, classifier.about, prior=choose_prior(classifier.about))
    np.testing.assert_allclose(softmax(logits - np.array(baseline.offset)), measured, atol=2e-3)
    assert (off := np.abs(softmax(logits) - measured).max()) > .01, off
    found = with_means.recognizer().recognize_crops(person.images, baseline=baseline)
    np.testing.assert_allclose([list(r.faces[0].probabilities.values()) for r in found], measured, atol=2e-3)


@pytest.mark.parametrize('change, message', [
    (lambda o: replace(o, subjects=None), 'the subjects are not known'),
    (lambda o: o[o.subjects == 'P01'], 'the only subject is P01'),
    (lambda o: replace(o, subjects=np.arange(len(o)).astype(str)), 'every subject has one image'),
])
def test_subject_means_need_subjects(even_faces, tiny, tmp_path, change, message):
    with pytest.raises(FerError, match=message):
        fine_tune(change(even_faces), tmp_path, backbone=tiny, subject_baseline=True, progress=False)
    with pytest.raises(FerError, match=message):
        leave_one_subject_out(change(even_faces), backbone=tiny, subject_baseline=True, progress=False)


@pytest.mark.parametrize('config', [{'mode': 'full'}, {'mode': 'head'}, FineTuneConfig()])
def test_subject_means_are_for_the_quick_mode(tmp_path, config):
    with pytest.raises(FerError, match="subject_baseline needs mode = 'quick'"):
        fine_tune(tmp_path / 'nowhere', tmp_path / 'new', config=config, subject_baseline=True)
    assert not list(tmp_path.iterdir())


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


def test_subjects_left_out_with_their_means(even_faces, tmp_path):
    "A learner that mistakes the face for the expression is right once each subject's mean is subtracted."
    who = {o.tobytes(): (int(s[1:]), k) for o, s, k in zip(even_faces.images, even_faces.subjects, even_faces.labels)}

    def biased(faces, folder):
        def predict(images):
            subject, label = np.array([who[o.tobytes()] for o in images]).T
            logits = 2. * np.eye(7)[label] + 3. * np.eye(7)[subject]
            return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        return predict

    found = leave_one_subject_out(even_faces, tmp_path, learner=biased, subject_baseline=True, progress=False)
    rows = found.report['subject_baseline']
    assert found.report['accuracy'] < .5 and rows[-1]['accuracy'] == 1 and rows[0]['accuracy'] < 1
    assert '(transductive)' in repr(found) and [o['subjects'] for o in rows] == [4, 4, 4]
    again = leave_one_subject_out(even_faces, tmp_path, learner=biased, subject_baseline=True, progress=False)
    assert again.report == found.report
    assert 'subject_baseline' not in leave_one_subject_out(even_faces, learner=biased, progress=False).report


def test_a_class_of_one_subject_is_named(winks):
    "It cannot be learned where that subject is left out; all faces are predicted all the same."
    few = winks[(winks.labels != 1) | (winks.subjects == 'P01')]
    with pytest.warns(UserWarning, match='class disgust is known from P01 only'):
        found = leave_one_subject_out(few, learner=even, progress=False)
    assert found.report['n'] == len(few)


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
