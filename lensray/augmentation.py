"""Images seen from other sides: the symmetries of the square, random sub-crops, shifts, rotations and zooms.

A galaxy has no preferred orientation, so a training image may be turned and mirrored in eight ways (Pourrahmani 2019,
section 2.2). Every function takes a batch of shape (batch, bands, height, width) of any type, treats all bands
of an image alike, draws one choice an image from the generator given, and leaves its input as it is.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

SYMMETRIES = 8


def symmetry(images_BCHW: Tensor, element: int) -> Tensor:
    """Apply one element of the symmetry group of the square, 0 (identity) to 7.

    Bit 0 of `element` mirrors left and right, bit 1 top and bottom, bit 2 then swaps rows and columns.
    """
    if not 0 <= element < SYMMETRIES:
        raise ValueError(f"a symmetry of the square is a number from 0 to 7; got {element}")
    if element & 1:
        images_BCHW = images_BCHW.flip(-1)
    if element & 2:
        images_BCHW = images_BCHW.flip(-2)
    if element & 4:
        images_BCHW = images_BCHW.transpose(-1, -2)
    return images_BCHW


def all_symmetries(images_BCHW: Tensor) -> Tensor:
    """The eight versions of each square image, shape (8 × batch, …); the first batch is the images themselves."""
    _check_square(images_BCHW)
    return torch.cat([symmetry(images_BCHW, element) for element in range(SYMMETRIES)])


def random_symmetries(images_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Each square image in one of its eight versions."""
    _check_square(images_BCHW)
    elements = _draw(SYMMETRIES, len(images_BCHW), images_BCHW.device, generator)
    turned = torch.empty_like(images_BCHW)
    for element in range(SYMMETRIES):
        chosen = elements == element
        turned[chosen] = symmetry(images_BCHW[chosen], element)
    return turned


def random_crops(images_BCHW: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """A random ``size × size`` part of each image, rescaled (bilinear) to the image's own size, in float32.

    LensFlow takes 90×90 of 100×100 pixels (thesis, section 2.2).
    """
    batch, _, height, width = images_BCHW.shape
    if not 0 < size <= min(height, width):
        raise ValueError(f"a crop of {size} pixels does not fit into an image of {height}×{width}")
    device = images_BCHW.device
    top = _draw(height - size + 1, batch, device, generator)
    left = _draw(width - size + 1, batch, device, generator)
    steps = torch.arange(size, device=device)
    parts = _take(images_BCHW, top[:, None] + steps, left[:, None] + steps)
    return F.interpolate(parts.float(), size=(height, width), mode="bilinear", align_corners=False)


def random_shifts(images_BCHW: Tensor, max_shift: int, generator: torch.Generator) -> Tensor:
    """Each image moved by up to `max_shift` whole pixels along both axes; the gap is filled by reflection."""
    batch, _, height, width = images_BCHW.shape
    if not 0 <= max_shift < min(height, width):
        raise ValueError(f"a shift of {max_shift} pixels does not fit into an image of {height}×{width}")
    device = images_BCHW.device
    down = _draw(2 * max_shift + 1, batch, device, generator) - max_shift
    right = _draw(2 * max_shift + 1, batch, device, generator) - max_shift
    return _take(images_BCHW, _reflected(down, height), _reflected(right, width))


def random_rotations(images_BCHW: Tensor, max_zoom: float, generator: torch.Generator) -> Tensor:
    """Each image turned by any angle and magnified by 1/`max_zoom` to `max_zoom` (uniform in its logarithm).

    Every pixel is that of the image which lies nearest: interpolation would smooth the noise, which gives a training
    image away. What comes from outside the image is filled by reflection.
    """
    batch, _, height, width = images_BCHW.shape
    if max_zoom < 1:
        raise ValueError(f"the largest zoom must be at least 1; got {max_zoom}")
    _check_square(images_BCHW)
    uniforms = torch.rand((2, batch), generator=generator, device=generator.device).to(images_BCHW.device)
    angle, zoom = 2 * torch.pi * uniforms[0], max_zoom ** (2 * uniforms[1] - 1)
    cosine, sine = angle.cos() / zoom, angle.sin() / zoom
    matrices = torch.zeros(batch, 2, 3, device=images_BCHW.device)
    matrices[:, 0, 0], matrices[:, 0, 1] = cosine, -sine
    matrices[:, 1, 0], matrices[:, 1, 1] = sine, cosine
    grid = F.affine_grid(matrices, [batch, 1, height, width], align_corners=False)
    turned = F.grid_sample(
        images_BCHW.float(), grid, "nearest", padding_mode="reflection", align_corners=False
    )
    return turned.to(images_BCHW.dtype)


def _check_square(images_BCHW: Tensor) -> None:
    height, width = images_BCHW.shape[-2:]
    if height != width:
        raise ValueError(f"only square images have all eight symmetries; got {height}×{width}")


def _draw(below: int, count: int, device: torch.device, generator: torch.Generator) -> Tensor:
    return torch.randint(below, (count,), generator=generator, device=generator.device).to(device)


def _reflected(shift_B: Tensor, length: int) -> Tensor:
    """Source pixel of each target pixel when an axis moves by `shift_B`, shape (batch, length)."""
    source = (torch.arange(length, device=shift_B.device) - shift_B[:, None]).abs()
    return torch.where(source >= length, 2 * (length - 1) - source, source)


def _take(images_BCHW: Tensor, rows_BR: Tensor, columns_BS: Tensor) -> Tensor:
    """Rows and columns of each image, by their indices; shape (batch, bands, R, S)."""
    batch = torch.arange(len(images_BCHW), device=images_BCHW.device)[:, None, None]
    picked_BRSC = images_BCHW.permute(0, 2, 3, 1)[batch, rows_BR[:, :, None], columns_BS[:, None, :]]
    return picked_BRSC.permute(0, 3, 1, 2).contiguous()
