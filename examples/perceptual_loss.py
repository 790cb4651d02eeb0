"""The three lines that a perceptual loss adds to a training loop: here of a small network that removes noise."""

import torch
from torch import nn

from vggfeat import PerceptualLoss  # 1

torch.manual_seed(0)
clean = torch.rand(4, 3, 8, 8).repeat_interleave(8, 2).repeat_interleave(8, 3)  # (4, 3, 64, 64), RGB in [0, 1]
model = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 3, padding=1), nn.Sigmoid())
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
perceptual = PerceptualLoss(["relu2_2"])  # 2

for step in range(41):
    prediction = model((clean + 0.2 * torch.randn_like(clean)).clamp(0, 1))
    loss = nn.functional.l1_loss(prediction, clean)
    loss = loss + 0.01 * perceptual(prediction, clean)  # 3
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 10 == 0:
        print(f"step {step}: loss {loss.item():.4f}")
