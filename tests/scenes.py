"""Clips whose motion is known exactly: a smooth picture under a homography for each frame."""

import torch

from vggfeat.pictures.video.flow import Frame


def paint(places):
    """A smooth picture at `places` (H, W, 2) as (x, y): (1, 3, H, W) in [0, 1]."""
    x, y = places.unbind(-1)
    waves = [torch.sin(x / 5 + 1) * torch.sin(y / 6), torch.sin((x + y) / 7), torch.cos((x - 2 * y) / 11)]
    return torch.stack([0.5 + 0.4 * wave for wave in waves])[None]


def grid(height, width):
    y, x = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    return torch.stack([x, y], dim=-1)


def apply(matrix, places):
    moved = torch.cat([places, torch.ones_like(places[..., :1])], dim=-1) @ matrix.T
    return moved[..., :2] / moved[..., 2:]


def homography(number, height=48, width=64):
    """Shift, zoom, turn and tilt more from frame to frame, about the middle."""
    t = number - 1.0
    angle, zoom = torch.tensor(0.02 * t), 1.01**t
    middle = torch.tensor([[1.0, 0, width / 2], [0, 1, height / 2], [0, 0, 1]])
    turn = torch.tensor([[zoom, 0, 1.3 * t], [0, zoom, -0.7 * t], [2e-4 * t, 0, 1]])
    turn[:2, :2] = zoom * torch.stack(
        [torch.cos(angle), -torch.sin(angle), torch.sin(angle), torch.cos(angle)]
    ).reshape(2, 2)
    return middle @ turn @ torch.linalg.inv(middle)


def clip(frames=4, height=48, width=64):
    """(T, 3, H, W): frame t shows at each place what the picture has at the homography of the place."""
    return torch.cat([paint(apply(homography(t), grid(height, width))) for t in range(1, frames + 1)])


def flow(first, second):
    """The exact flow from one frame to another."""
    height, width = first.picture.shape[2:]
    places = grid(height, width)
    there = apply(torch.linalg.inv(homography(second.number)) @ homography(first.number), places)
    return (there - places).permute(2, 0, 1)[None]


def pairs(clip):
    """The last two frames of a list of frames, to find the flow from the last one and the flow to it."""
    now, then = (Frame(len(clip) - i, clip[len(clip) - 1 - i]) for i in (0, 1))
    return (now, then), (then, now)
