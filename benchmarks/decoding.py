"""Reading a large photo, beside OpenCV's decoder."""
from timing import call_time, in_turns


def photo() -> bytes:
    "A JPEG of 4000 x 3000 pixels, with the noise of a camera."
    import cv2
    import numpy as np
    from images import framed

    noise = np.random.default_rng(0).integers(-12, 13, (3000, 4000, 3))
    image = np.clip(framed(4000, 3000) + noise, 0, 255).astype(np.uint8)
    return cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def decoding() -> dict[str, float]:
    "From the bytes of a file to an array; milliseconds."
    import cv2
    import numpy as np

    from fer_nb.images import read_image

    data = photo()
    array = np.frombuffer(data, np.uint8)
    return in_turns({
        'read a JPEG of 12 megapixels, ms': lambda: call_time(lambda: read_image(data)),
        'cv2.imdecode of the same JPEG, ms': lambda: call_time(lambda: cv2.imdecode(array, cv2.IMREAD_COLOR)),
    })


PARTS = dict(decoding=decoding)
