"""One PPO minibatch: clipped policy loss on the actor, clipped value loss on the critic, both with clip and AdamW."""

import torch
import torch.nn.functional as F

import gpt


def make(config):
    layers, heads, batch = (config[k] for k in ("layers", "heads", "batch"))
    prompt, response = config["promptTokens"], config["responseTokens"]
    actor, critic = gpt.make_params(**config), gpt.make_params(**config, scalar_head=True)
    optimizers = []
    for model in (actor, critic):
        for value in model.values():
            value.requires_grad_()
        optimizers.append(torch.optim.AdamW(model.values(), lr=1e-4, weight_decay=0.01, fused=True))
    ids = torch.randint(0, config["vocabulary"], (batch, prompt + response))
    old_logprobs = torch.full((batch, response), -8.0)
    advantages = torch.randn(batch, response)
    old_values, returns = torch.randn(batch, response) * 0.1, torch.randn(batch, response)
    # The states before each response token; only these go through a head.
    states = slice(prompt - 1, prompt + response - 1)

    def step():
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        hidden = gpt.hidden_states(actor, ids, layers, heads)[:, states]
        logits = F.linear(hidden, actor["wte"])
        logprobs = torch.log_softmax(logits, -1).gather(-1, ids[:, prompt:, None])[..., 0]
        ratio = (logprobs - old_logprobs).exp()
        policy = torch.maximum(-advantages * ratio, -advantages * ratio.clamp(0.8, 1.2)).mean()
        policy.backward()
        values = F.linear(gpt.hidden_states(critic, ids, layers, heads)[:, states], critic["score"])[..., 0]
        clipped = old_values + (values - old_values).clamp(-0.2, 0.2)
        value = 0.5 * torch.maximum((values - returns) ** 2, (clipped - returns) ** 2).mean()
        value.backward()
        for model, optimizer in zip((actor, critic), optimizers):
            torch.nn.utils.clip_grad_norm_(model.values(), 1.0)
            optimizer.step()
        return 1

    return step, f"torch {torch.__version__}"
