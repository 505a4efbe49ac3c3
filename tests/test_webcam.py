"""Live views and windows end when they should, whatever the source does, and keep no more than the newest frame."""

import gc
import threading
import time
import tracemalloc
from itertools import count
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from waiting import until

from fer_nb import live, window
from fer_nb.face_stream import StreamOptions
from fer_nb.images import read_image
from fer_nb.live import Live, _after_cell, at_own_speed, stop_all
from fer_nb.recognition import Recognizer
from fer_nb.video_input import read_video
from fer_nb.webcam import LiveView


@pytest.fixture(scope='module')
def recognizer() -> Recognizer:
    return Recognizer('s', detector='haar')


@pytest.fixture(scope='module')
def face(photos) -> np.ndarray:
    "A small frame with one face in it."
    return cv2.resize(read_image(photos[0])[40:440, 60:460], (160, 160), interpolation=cv2.INTER_AREA)


@pytest.fixture
def endless(face):
    "A function that makes frames without end; after five of them they may hang: one event tells, the other ends it."

    def stream(*hang: threading.Event):
        for i in count():
            if hang and i == 5:
                hang[0].set()
                hang[1].wait()
            yield i / 30, face.copy()

    return stream


def hide(view):
    view.panel._view_count = 1
    view.panel._view_count = 0


def interrupt_cell(view):
    _after_cell(SimpleNamespace(error_in_exec=KeyboardInterrupt()))


STOPS = {
    'by hand': (Live, Live.stop),
    'another view of the source': (Live, lambda view: Live(view.source, view.recognizer)),
    'end of a with block': (Live, lambda view: view.__exit__()),
    'all views': (Live, lambda view: stop_all()),
    'an interrupted cell': (Live, interrupt_cell),
    'panel closed': (LiveView, LiveView.close),
    'widget closed': (LiveView, lambda view: view.panel.close()),
    'panel out of sight': (LiveView, hide),
    'another panel of the source': (LiveView, lambda view: LiveView(view.source, view.recognizer)),
}


@pytest.mark.parametrize('kind, stop', STOPS.values(), ids=list(STOPS))
def test_stopping_ends_the_thread_and_closes_the_source(kind, stop, endless, recognizer):
    view = kind(endless(), recognizer).start()
    watch = view.watch
    until(lambda: view.count > 2)
    stop(view)
    watch.join(60)
    assert not view.running and not watch.is_alive()
    assert next(watch.video, None) is None


def test_stops_by_itself_after_its_limit(endless, recognizer):
    view = Live(endless(), recognizer, limit=0.3).start()
    watch = view.watch
    until(lambda: not view.running)
    watch.join(60)
    assert not watch.is_alive() and next(watch.video, None) is None
    assert view.message.startswith('Stopped after')


class Slow(Live):
    "Takes its time to tell the end."

    told = None

    def changed(self):
        if not self.running: time.sleep(0.3)
        self.told = self.state


@pytest.mark.parametrize('n, limit, end', [(10, 60, 'ended'), (0, 60, 'error'), (None, 0.2, 'off')])
def test_wait_returns_only_when_the_end_was_told(n, limit, end, face, endless, recognizer):
    source = endless() if n is None else [(i / 30, face) for i in range(n)]
    view = Slow(source, recognizer, realtime=False, limit=limit).start()
    until(lambda: not view.running)
    assert view.wait().told == end


def test_a_source_that_hangs_does_not_hold_up_stop(endless, recognizer):
    hangs, goes_on = threading.Event(), threading.Event()
    view = Live(endless(hangs, goes_on), recognizer, timeout=60).start()
    until(lambda: hangs.is_set() and view.count)  # a slow computer leaves frames out
    watch, start = view.watch, time.time()
    view.stop()
    assert time.time() - start < 30  # it would wait for 60
    seen = view.count
    assert (view.state, view.running) == ('off', False)
    goes_on.set()  # it goes on, but nothing listens any more
    watch.join(60)
    assert (view.state, view.count, watch.is_alive()) == ('off', seen, False)


def test_memory_does_not_grow_with_the_frames(endless, recognizer):
    def held(view, n):
        "MB that Python holds when a view has seen n frames."
        until(lambda: view.count >= n)
        gc.collect()
        return tracemalloc.get_traced_memory()[0] / 1e6

    tracemalloc.start()
    try:
        with LiveView(endless(), recognizer, realtime=False, options=StreamOptions(detect_every=0.5)) as view:
            before, after = held(view, 100), held(view, 400)
    finally: tracemalloc.stop()
    # 300 frames of this size would be 23 MB
    assert after - before < 2


def test_late_frames_are_left_out_but_not_all_of_them(monkeypatch):
    "A clock of its own, which only goes on while a frame is shown or awaited."
    shown, clock = [], SimpleNamespace(now=0.0)
    monkeypatch.setattr(live, 'perf_counter', lambda: clock.now)

    def wait(seconds): clock.now += seconds

    with read_video([(i / 10, np.full((2, 2), i, np.uint8)) for i in range(12)]) as video:
        for _, rgb in at_own_speed(video, wait):
            shown.append(int(rgb[0, 0, 0]))
            wait(0.37)
    assert shown == [0, 3, 7, 11], shown


# The window


@pytest.fixture
def screen(monkeypatch):
    "A screen that keeps what OpenCV shows. With the third image `key` is pressed, or the window is closed."
    screen = SimpleNamespace(images=[], key=-1, closes=False, windows=0)

    def third(): return len(screen.images) >= 3

    gui = {
        'namedWindow': lambda *_: setattr(screen, 'windows', 1),
        'resizeWindow': lambda *_: None,
        'imshow': lambda _, image: screen.images.append(image),
        'waitKey': lambda _: screen.key if third() else -1,
        'getWindowProperty': lambda *_: 0.0 if screen.closes and third() else 1.0,
        'destroyAllWindows': lambda: setattr(screen, 'windows', 0),
    }
    for name, function in gui.items(): monkeypatch.setattr(cv2, name, function)
    monkeypatch.setattr(window, 'check_display', lambda: None)
    monkeypatch.setattr(live, 'perf_counter', lambda: 0.0)  # so that no frame is late on a slow computer
    return screen


ENDS = {
    'q': dict(key=ord('q')),
    'Esc': dict(key=27),
    'closed': dict(closes=True),
    'another key': dict(key=ord('x')),
    'the end': {},
}


@pytest.mark.parametrize('end', ENDS)
def test_the_window_ends_when_a_person_or_the_video_ends_it(end, screen, face, recognizer):
    vars(screen).update(ENDS[end])
    shown = window.show_window([(i / 5, face) for i in range(5)], recognizer)
    assert shown == len(screen.images) == (3 if end in ('q', 'Esc', 'closed') else 5)
    assert screen.windows == 0
    assert screen.images[0].shape[0] > face.shape[0]  # the line below says how to end it


def test_a_mirrored_window_swaps_left_and_right(screen, recognizer):
    frame = np.zeros((100, 200, 3), np.uint8)
    frame[:, :100] = 255, 0, 0
    for mirror in False, True: window.show_window([(0.0, frame)], recognizer, mirror=mirror)
    plain, mirrored = (image[:100, :, ::-1] for image in screen.images)
    assert np.array_equal(plain, frame) and np.array_equal(mirrored, frame[:, ::-1])
