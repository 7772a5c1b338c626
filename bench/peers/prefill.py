"""Prompts into a key/value cache, logits of the last position."""

import torch
import torch.nn.functional as F

import gpt


def make(config):
    layers, heads, hidden, batch, length = (
        config[k] for k in ("layers", "heads", "hidden", "batch", "promptTokens")
    )
    params = gpt.make_params(**config)
    ids = torch.randint(0, config["vocabulary"], (batch, length))
    caches = gpt.make_caches(batch, layers, heads, hidden, config["context"])

    @torch.inference_mode()
    def run():
        states = gpt.hidden_states(params, ids, layers, heads, caches)
        torch.multinomial(F.linear(states[:, -1], params["wte"]).softmax(-1), 1)
        return batch * length

    return run, f"torch {torch.__version__}"
