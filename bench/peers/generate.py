"""The same answers from transformers' generate()."""

import torch
import transformers


def make(config):
    spec = transformers.GPT2Config(
        n_layer=config["layers"],
        n_embd=config["hidden"],
        n_head=config["heads"],
        vocab_size=config["vocabulary"],
        n_positions=config["context"],
        bos_token_id=0,
        eos_token_id=0,
    )
    model = transformers.GPT2LMHeadModel(spec).eval()
    batch, prompt, response = (config[k] for k in ("batch", "promptTokens", "responseTokens"))
    ids = torch.randint(1, config["vocabulary"], (batch, prompt))

    @torch.inference_mode()
    def run():
        out = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            top_k=0,
            min_new_tokens=response,
            max_new_tokens=response,
            pad_token_id=0,
        )
        return batch * (out.shape[1] - prompt)

    return run, f"transformers {transformers.__version__} generate, torch {torch.__version__}"
