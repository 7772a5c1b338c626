"""Sampled answers with their log-probabilities: prefill, then one token per sequence and step against a cache."""

import torch
import torch.nn.functional as F

import gpt


def make(config):
    layers, heads, hidden, batch, prompt, response = (
        config[k] for k in ("layers", "heads", "hidden", "batch", "promptTokens", "responseTokens")
    )
    params = gpt.make_params(**config)
    ids = torch.randint(0, config["vocabulary"], (batch, prompt))
    caches = gpt.make_caches(batch, layers, heads, hidden, prompt + response)

    def draw(states):
        logprobs = F.log_softmax(F.linear(states, params["wte"]), -1)
        token = torch.multinomial(logprobs.exp(), 1)
        return token[:, 0], logprobs.gather(-1, token)[:, 0]

    @torch.inference_mode()
    def run():
        token, logprob = draw(gpt.hidden_states(params, ids, layers, heads, caches)[:, -1])
        tokens, logprobs = [token], [logprob]
        for position in range(prompt, prompt + response - 1):
            token, logprob = draw(gpt.decode_hidden(params, token, position, layers, heads, caches))
            tokens.append(token)
            logprobs.append(logprob)
        return batch * len(tokens)

    return run, f"torch {torch.__version__}, hand-written"
