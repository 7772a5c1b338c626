"""A GPT-2 decoder in plain PyTorch, as one would write it by hand for speed: fused attention, no dropout, tied head."""

import math

import torch
import torch.nn.functional as F


def make_params(layers, hidden, vocabulary, context, scalar_head=False, **_):
    generator = torch.Generator().manual_seed(1)

    def normal(*shape):
        return torch.randn(*shape, generator=generator) * 0.02

    params = {"wte": normal(vocabulary, hidden), "wpe": normal(context, hidden)}
    params["lnf.g"], params["lnf.b"] = torch.ones(hidden), torch.zeros(hidden)
    for layer in range(layers):
        for name, rows, columns in (
            ("qkv", 3 * hidden, hidden),
            ("out", hidden, hidden),
            ("fc", 4 * hidden, hidden),
            ("proj", hidden, 4 * hidden),
        ):
            params[f"{layer}.{name}.w"] = normal(rows, columns)
            params[f"{layer}.{name}.b"] = torch.zeros(rows)
        for name in ("ln1", "ln2"):
            params[f"{layer}.{name}.g"] = torch.ones(hidden)
            params[f"{layer}.{name}.b"] = torch.zeros(hidden)
    if scalar_head:
        params["score"] = normal(1, hidden)
    return params


def block(params, layer, x, attend):
    def linear(value, name):
        return F.linear(value, params[f"{layer}.{name}.w"], params[f"{layer}.{name}.b"])

    def norm(value, name):
        return F.layer_norm(value, value.shape[-1:], params[f"{layer}.{name}.g"], params[f"{layer}.{name}.b"])

    x = x + linear(attend(linear(norm(x, "ln1"), "qkv")), "out")
    return x + linear(F.gelu(linear(norm(x, "ln2"), "fc"), approximate="tanh"), "proj")


def split_heads(qkv, heads):
    batch, length, width = qkv.shape
    return qkv.view(batch, length, 3, heads, width // 3 // heads).permute(2, 0, 3, 1, 4).unbind(0)


def merge_heads(x):
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


def hidden_states(params, ids, layers, heads, caches=None):
    """[B, T] -> [B, T, D]; keeps keys and values in `caches` ([B, H, S, E] per layer) when given."""
    length = ids.shape[1]
    x = params["wte"][ids] + params["wpe"][:length]

    def attend(layer):
        def attention(qkv):
            q, k, v = split_heads(qkv, heads)
            if caches is not None:
                caches[layer][0][:, :, :length] = k
                caches[layer][1][:, :, :length] = v
            return merge_heads(F.scaled_dot_product_attention(q, k, v, is_causal=True))

        return attention

    for layer in range(layers):
        x = block(params, layer, x, attend(layer))
    return F.layer_norm(x, x.shape[-1:], params["lnf.g"], params["lnf.b"])


def decode_hidden(params, ids, position, layers, heads, caches):
    """[B] at one position, against the caches -> [B, D]."""
    x = (params["wte"][ids] + params["wpe"][position]).unsqueeze(1)

    def attend(layer):
        def attention(qkv):
            q, k, v = split_heads(qkv, heads)
            keys, values = caches[layer]
            keys[:, :, position : position + 1] = k
            values[:, :, position : position + 1] = v
            seen = slice(0, position + 1)
            scores = (q @ keys[:, :, seen].transpose(-1, -2)) * (1 / math.sqrt(q.shape[-1]))
            return merge_heads(scores.softmax(-1) @ values[:, :, seen])

        return attention

    for layer in range(layers):
        x = block(params, layer, x, attend(layer))
    return F.layer_norm(x, x.shape[-1:], params["lnf.g"], params["lnf.b"])[:, 0]


def make_caches(batch, layers, heads, hidden, slots):
    shape = (batch, heads, slots, hidden // heads)
    return [(torch.zeros(shape), torch.zeros(shape)) for _ in range(layers)]
