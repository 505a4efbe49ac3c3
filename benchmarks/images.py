"""What is shown to the recognizers: two portraits in the public domain, and scenes made of them.

Heavy imports are in the functions: `run.py` measures cold processes before it loads anything large itself."""
from pathlib import Path

FRAMES = 300  # of the video


def photos() -> list[Path]:
    "Grace Hopper (US Navy) and Eileen Collins (NASA), as installed packages bring them along."
    import matplotlib
    import skimage

    return [
        Path(matplotlib.get_data_path(), 'sample_data/grace_hopper.jpg'),
        Path(skimage.__file__).with_name('data') / 'astronaut.png',
    ]


def one_face():
    "A photo: RGB (480, 640, 3)."
    import cv2

    from fer_nb.images import read_image

    return cv2.resize(read_image(photos()[1])[:384], (640, 480), interpolation=cv2.INTER_CUBIC)


def two_faces():
    "A video that pans over two faces: yields times in seconds and RGB frames (720, 1280, 3)."
    import cv2
    import numpy as np

    from fer_nb.images import read_image
    from fer_nb.video_basics import panning_video

    hopper, astronaut = map(read_image, photos())
    halves = [
        cv2.resize(image[:512], (760, 760), interpolation=cv2.INTER_CUBIC)[:, 20:740] for image in (astronaut, hopper)
    ]
    return panning_video(np.hstack(halves), FRAMES, size=(1280, 720), fps=30, view=.95, travel=.02, zoom=.03)


def framed(width: int, height: int, faces: int = 1):
    "One or two faces that fill an image's height, with mirrored edges: RGB (height, width, 3)."
    import cv2

    from fer_nb.images import read_image

    side = height if faces == 1 else width // 2
    portrait = cv2.resize(read_image(photos()[1]), (side, side), interpolation=cv2.INTER_AREA)
    image = cv2.hconcat([portrait] * faces)[:height]
    left = (width - image.shape[1]) // 2
    right = width - image.shape[1] - left
    return cv2.copyMakeBorder(image, 0, 0, left, right, cv2.BORDER_REFLECT)
