"""Forward, backward, global-norm clip and AdamW on next-token prediction over every position."""

import torch
import torch.nn.functional as F

import gpt


def make(config):
    layers, heads, batch, length = (config[k] for k in ("layers", "heads", "batch", "length"))
    params = {name: value.requires_grad_() for name, value in gpt.make_params(**config).items()}
    optimizer = torch.optim.AdamW(params.values(), lr=1e-4, weight_decay=0.01, fused=True)
    ids = torch.randint(0, config["vocabulary"], (batch, length))
    lengths = config.get("lengths")
    rows = [ids] if lengths is None else [torch.randint(0, config["vocabulary"], (1, n)) for n in lengths]

    def step():
        optimizer.zero_grad(set_to_none=True)
        for part in rows:
            hidden = gpt.hidden_states(params, part[:, :-1], layers, heads)
            logits = F.linear(hidden, params["wte"])
            F.cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten()).backward()
        torch.nn.utils.clip_grad_norm_(params.values(), 1.0)
        optimizer.step()
        return 1

    return step, f"torch {torch.__version__}"
