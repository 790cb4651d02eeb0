"""Pictures as spectra of decorrelated colours, in which gradient ascent finds shapes instead of noise.

Olah, Mordvintsev & Schubert, "Feature Visualization" (Distill, 2017).
"""

import torch
from torch import Tensor, nn

# The square root of the covariance of the colours of ImageNet's pixels, as published with the article's code (lucid).
_COLOURS = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))


class Spectrum(nn.Module):
    """`count` pictures of noise, as the Fourier coefficients of three uncorrelated colour channels.

    Its parameter is the spectrum, scaled so that a step changes all frequencies alike. Calling it paints the pictures:
    (count, 3, height, width) in [0, 1].

    >>> Spectrum(2, 16, 24, seed=0)().shape
    torch.Size([2, 3, 16, 24])
    """

    scale: Tensor
    colours: Tensor

    def __init__(self, count: int, height: int, width: int, *, seed: int, deviation: float = 0.01) -> None:
        super().__init__()
        self.size = height, width
        down, across = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)
        frequency = (down**2 + across**2).sqrt().clamp_min(1 / max(height, width))
        self.register_buffer("scale", (height * width) ** 0.5 / frequency / 4, persistent=False)
        colours = torch.tensor(_COLOURS)
        self.register_buffer("colours", colours / colours.norm(dim=0).max(), persistent=False)
        shape = (count, 3, *frequency.shape, 2)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
        self.coefficients = nn.Parameter(noise * deviation)

    def forward(self) -> Tensor:
        """Paint the pictures."""
        waves = torch.view_as_complex(self.coefficients) * self.scale
        channels = torch.fft.irfft2(waves, s=self.size)
        return torch.einsum("ij,njhw->nihw", self.colours, channels).sigmoid()
