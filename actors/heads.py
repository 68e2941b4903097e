"""Heads, as a session gives them: which anchors reach the threshold, and whether the numbers can be right.

Heads are float32, one row for each image; all images of a batch are looked at together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Heads = Mapping[str, Floats]
Indices = NDArray[np.intp]

#: Kept per image before NMS, best first; bounds its cost on a picture that is all noise.
MAX_CANDIDATES = 5000

#: The names of the two heads that the prepared graph makes on the device.
TOP, CHECK = "top", "check"

STRIDES = (8, 16, 32)

#: Greatest difference of the best candidate's score and the greatest score: a device may round in between.
_MAX_SCORE_OFF = 1e-3


class HeadsWrong(ArithmeticError):
    """The device computes garbage: a head holds NaN or infinity, or two heads contradict each other."""


class Picked(NamedTuple):
    """The anchors of all images that reach the threshold: image by image, best score first, then by index.

    Attributes:
        num_images: how many images the heads are of.
        image: the index of each anchor's image, intp[m].
        anchor: the index of each anchor among those of its image, intp[m].
        scores: float32[m].
        box: the numbers that the heads hold for the box, float32[m, 4].
        points: those for the landmarks, float32[m, 10].
    """

    num_images: int
    image: Indices
    anchor: Indices
    scores: Floats
    box: Floats
    points: Floats


def dead_images(heads: Heads, num_images: int) -> list[int]:
    """Indices of the images whose heads each hold one single number: the device computed nothing for them.

    No network answers so, whatever the photo shows: padding at the tensor's edges alone makes numbers differ.
    DirectML has been seen to give zeros without an error (onnxruntime#15459).

    Args:
        heads: [n, ...] each, n at least `num_images`; later rows are padding.
        num_images: how many rows are images.
    """
    if CHECK in heads:
        _, greatest, least, _ = _parts_of_check(heads[CHECK][:num_images])
        return np.flatnonzero((greatest == least).all(axis=1)).tolist()
    rows = [head[:num_images].reshape(num_images, -1) for head in heads.values()]
    alive = np.zeros(num_images, dtype=bool)
    # One number in 97 is enough for nearly every image that is alive. 97 is prime, so it seldom falls in step
    # with a regular pattern.
    for step in (97, 1):
        for row in rows:
            if not alive.any():
                alive = (row[:, ::step] != row[:, :1]).any(axis=1)
            elif (left := np.flatnonzero(~alive)).size:
                alive[left] = (row[left, ::step] != row[left, :1]).any(axis=1)
            else:
                return []
    return np.flatnonzero(~alive).tolist()


def finite_scores(heads: Heads, *names: str) -> Floats:
    """The heads of these names, joined along the anchors.

    Raises:
        HeadsWrong: one of them is not finite.
    """
    for name in names:
        finite(name, heads[name])
    return heads[names[0]] if len(names) == 1 else np.concatenate([heads[name] for name in names], axis=1)


def finite(name: str, values: NDArray[np.floating]) -> None:
    """Check numbers of the head `name`.

    Raises:
        HeadsWrong: one of them is NaN or infinity.
    """
    if not np.isfinite(values).all():
        raise HeadsWrong(f"the head {name} holds NaN, infinity or an overflow")


def of_strides(kind: str) -> list[str]:
    """The names of the heads of one kind, one for each stride."""
    return [f"{kind}_{stride}" for stride in STRIDES]


def _parts_of_check(check: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """The sum of each head, the maximum of each, the minimum of each, and the greatest score."""
    num_heads = check.shape[1] // 3
    sums, greatest, least, score = np.split(check, [num_heads, 2 * num_heads, 3 * num_heads], axis=1)
    return sums, greatest, least, score[:, 0]


def top_scores(heads: Heads) -> Floats:
    """The scores in the head `top`, float32[n, K], after `check` has shown that the heads can be right.

    Raises:
        HeadsWrong: a head was not finite, or the greatest score of an image is not among its best candidates.
    """
    finite("check", heads[CHECK])
    *_, greatest = _parts_of_check(heads[CHECK])
    # In the rows of the candidates the scores lie far apart, and several steps go over them.
    scores = np.ascontiguousarray(heads[TOP][:, :, 0])
    off = np.abs(scores.max(axis=1) - greatest)
    # NaN is not less than anything, so a score that is NaN is found here too.
    wrong = np.flatnonzero(~(off <= _MAX_SCORE_OFF))
    if wrong.size:
        image = wrong[0]
        raise HeadsWrong(
            f"the greatest score of image {image + 1} is {greatest[image]:.4f}, and its best candidate's is "
            f"{scores[image].max():.4f}"
        )
    return scores


def pick_top(heads: Heads, scores: Floats, reaches: NDArray[np.bool_], num_anchors: int) -> Picked:
    """What the head `top` holds of the candidates that reach the threshold.

    Args:
        heads: with `top`, float32[n, K, 16].
        scores: the score of each candidate, float32[n, K].
        reaches: whether it reaches the threshold, bool[n, K].
        num_anchors: how many anchors an image has.

    Raises:
        HeadsWrong: an index names no anchor of the image.
    """
    image, row = np.nonzero(reaches)
    chosen, chosen_scores = heads[TOP][image, row], scores[image, row]
    index = chosen[:, 1]
    if not ((index >= 0) & (index < num_anchors) & (index == np.floor(index))).all():
        raise HeadsWrong(f"the head top names an anchor that is none of the {num_anchors:,}")
    order = np.lexsort((index, -chosen_scores, image))
    return Picked(
        len(scores),
        image[order],
        index[order].astype(np.intp),
        chosen_scores[order],
        chosen[order, 2:6],
        chosen[order, 6:],
    )


def pick_anchors(heads: Heads, scores: Floats, reaches: NDArray[np.bool_], boxes: str, points: str) -> Picked:
    """What plain heads, one of each kind for each stride, hold of the anchors that reach the threshold.

    Args:
        heads: `boxes`_s [n, A, 4] and `points`_s [n, A, 10] for each stride s.
        scores: the score of each anchor, stride by stride, float32[n, all A].
        reaches: whether it reaches the threshold, bool[n, all A].
        boxes: the kind of the heads that hold boxes.
        points: the kind of the heads that hold landmarks.
    """
    image, anchor = best(scores, reaches)
    picked = []
    for kind, size in ((boxes, 4), (points, 10)):
        values = np.empty((len(image), size), dtype=np.float32)
        begin = 0
        # Joining the heads of all strides first would copy every anchor for the sake of a few.
        for name in of_strides(kind):
            head = heads[name]
            here = (anchor >= begin) & (anchor < begin + head.shape[1])
            values[here] = head[image[here], anchor[here] - begin]
            begin += head.shape[1]
        picked.append(values)
    return Picked(len(scores), image, anchor, scores[image, anchor], picked[0], picked[1])


def best(scores: Floats, reaches: NDArray[np.bool_]) -> tuple[Indices, Indices]:
    """Image and anchor of each score that reaches the threshold: an image's best MAX_CANDIDATES, in order.

    Args:
        scores: float32[n, A].
        reaches: bool[n, A].
    """
    image, anchor = np.nonzero(reaches)
    order = np.lexsort((-scores[image, anchor], image))
    image, anchor = image[order], anchor[order]
    rank = np.arange(len(image)) - np.searchsorted(image, image)
    kept = rank < MAX_CANDIDATES
    return image[kept], anchor[kept]
