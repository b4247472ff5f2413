"""Makes the two files beside, in an environment with torch (2.13 wrote them): python tests/checkpoints/torch/make.py.

They are committed, as the tests run without torch; `tests/checkpoints/test_torch_files.py` says what is in them.
"""

from collections import OrderedDict
from pathlib import Path

import torch

base = torch.arange(48, dtype=torch.float32).reshape(6, 8) / 4 - 3  # in all types without rounding
state = OrderedDict(
    plain=base,
    transposed=base.t(),
    strided=base[1:5, 2:7:2],
    channels_last=torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last),
    half=base.half(),
    bfloat16=base.bfloat16().t(),
    double=base.double()[0],
    expanded=torch.tensor([1.0, 2.0, 3.0]).expand(2, 3),
    scalar=torch.tensor(1.25),
    whole=torch.tensor(7),
    empty=torch.empty(0, 3),
    parameter=torch.nn.Parameter(torch.tensor([float("inf"), -0.0])),
)
state = OrderedDict((f"module.{name}", tensor) for name, tensor in state.items())
state._metadata = OrderedDict({"": {"version": 1}})  # as torch.nn.Module.state_dict leaves it
net = torch.nn.Linear(2, 1)
optimizer = torch.optim.Adam(net.parameters())
net(torch.ones(1, 2)).backward()
optimizer.step()
whole = {"epoch": 3, "state_dict": state, "loss": torch.tensor(1.5), "optimizer": optimizer.state_dict()}
torch.save(whole, Path(__file__).parent / "zip.pth.tar")
torch.save(whole, Path(__file__).parent / "row.pth.tar", _use_new_zipfile_serialization=False)
