"""Writes test/fixtures/models: tiny random models saved by Hugging Face transformers, with the logits it computes.

    pip install torch "transformers==5.24.0" safetensors
    python scripts/make-model-fixtures.py test/fixtures/models [NAME ...]

With NAMEs it writes those folders only. expected.json says which version of transformers wrote a folder.
With --check DIR it instead loads a model directory and prints its logits for the fixture rows as JSON.
With --compare DIR it loads DIR/NAME, each written by `troupe export --model test/fixtures/models/NAME --format hf --out
DIR/NAME`, and compares its logits with the fixture's; run it with transformers 4.46 and 5.
With --gradients [ROOT] it writes the gradients.json of folders that are there already.
Each folder tests one more thing: dtype, sharding, grouped queries, biases, tied and untied heads, scalar heads, norms
that come last, projected embeddings.
"""
import json
import pathlib
import shutil
import sys

import torch
import transformers as hf

ROWS = [[3, 17, 5, 44, 9, 9, 23, 31, 2, 40], [7, 1, 46, 12, 30, 8, 21]]
COMMON = dict(vocab_size=48, bos_token_id=0, eos_token_id=1, pad_token_id=2)
LLAMA = dict(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, intermediate_size=24,
    max_position_embeddings=32, **COMMON)
LLAMA3_ROPE = dict(
    rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=16)
OPT = dict(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=4, ffn_dim=24, max_position_embeddings=32, dropout=0.0,
    **COMMON)
OPT_350M = dict(do_layer_norm_before=False, word_embed_proj_dim=12, **OPT)
GPT2 = dict(n_embd=16, n_layer=2, n_head=4, n_positions=24, resid_pdrop=0, embd_pdrop=0, attn_pdrop=0, **COMMON)

# Made when asked for: older versions of transformers, which --check runs on as well, lack some of the classes.
MODELS = {
    "gpt2": lambda: (hf.GPT2LMHeadModel, hf.GPT2Config(**GPT2), torch.float32, "1GB"),
    "gpt2-scalar": lambda: (hf.GPT2ForSequenceClassification, hf.GPT2Config(num_labels=1, **GPT2), torch.float32, "1GB"),
    "gpt2-untied": lambda: (hf.GPT2LMHeadModel, hf.GPT2Config(tie_word_embeddings=False, **GPT2), torch.bfloat16, "1GB"),
    "opt-f16": lambda: (hf.OPTForCausalLM, hf.OPTConfig(word_embed_proj_dim=16, **OPT), torch.float16, "1GB"),
    "opt-untied": lambda: (hf.OPTForCausalLM, hf.OPTConfig(tie_word_embeddings=False, **OPT), torch.float16, "1GB"),
    "opt-350m": lambda: (hf.OPTForCausalLM, hf.OPTConfig(**OPT_350M), torch.float32, "1GB"),
    "opt-350m-scalar": lambda: (
        hf.OPTForSequenceClassification, hf.OPTConfig(num_labels=1, **OPT_350M), torch.float16, "1GB"),
    "llama-sharded": lambda: (hf.LlamaForCausalLM, hf.LlamaConfig(
        tie_word_embeddings=False, rope_theta=100.0, rope_scaling=LLAMA3_ROPE, **LLAMA), torch.float32, "10KB"),
    "llama-scalar": lambda: (hf.LlamaForSequenceClassification, hf.LlamaConfig(
        num_labels=1, attention_bias=True, mlp_bias=True, rope_theta=100.0, **LLAMA), torch.float32, "1GB"),
    "mistral": lambda: (hf.MistralForCausalLM, hf.MistralConfig(tie_word_embeddings=False, sliding_window=None, **LLAMA),
                torch.float32, "1GB"),
    "qwen2-bf16": lambda: (hf.Qwen2ForCausalLM, hf.Qwen2Config(tie_word_embeddings=True, **LLAMA), torch.bfloat16, "1GB"),
    "qwen2-scalar": lambda: (hf.Qwen2ForSequenceClassification, hf.Qwen2Config(num_labels=1, **LLAMA), torch.bfloat16, "1GB"),
    "qwen3": lambda: (hf.Qwen3ForCausalLM, hf.Qwen3Config(tie_word_embeddings=True, head_dim=6, **LLAMA), torch.float32, "1GB"),
}


def outputs(model):
    """Per row: logits [T, V] of a language model, scores [T] of a scalar head at every position."""
    rows = []
    for row in ROWS:
        ids = torch.tensor([row])
        with torch.no_grad():
            if hasattr(model, "score"):
                rows.append(model.score(model.base_model(ids).last_hidden_state)[0, :, 0].tolist())
            else:
                rows.append(model(ids).logits[0].tolist())
    return rows


def rounded(value):
    return [rounded(item) for item in value] if isinstance(value, list) else float(f"{value:.6g}")


def gradients(folder):
    """The loss that our programs have, and of every parameter's gradient g: its norm, and sum g[i] * cos(i).

    Language model: mean cross-entropy of the tokens after each row's first. Scalar head: half the mean squared error of
    the value before each of them against 0.1 * its index.
    """
    kind = json.loads((folder / "config.json").read_text())["architectures"][0]
    model = getattr(hf, kind).from_pretrained(folder, torch_dtype=torch.float32).eval()
    model.get_input_embeddings().padding_idx = None  # torch leaves that row out of the gradient
    losses = []
    for row in ROWS:
        ids = torch.tensor([row])
        if hasattr(model, "score"):
            values = model.score(model.base_model(ids).last_hidden_state)[0, :-1, 0]
            losses.append((values - 0.1 * torch.arange(1, len(row))) ** 2 / 2)
        else:
            losses.append(torch.nn.functional.cross_entropy(model(ids).logits[0, :-1], ids[0, 1:], reduction="none"))
    loss = torch.cat(losses).mean()
    loss.backward()
    tensors = {}
    for name, parameter in model.named_parameters():
        gradient = parameter.grad.flatten().double()
        projection = (gradient * torch.cos(torch.arange(len(gradient), dtype=torch.float64))).sum()
        tensors[name] = rounded([gradient.norm().item(), projection.item()])
    facts = {"transformers": hf.__version__, "loss": rounded(loss.item()), "tensors": tensors}
    (folder / "gradients.json").write_text(json.dumps(facts) + "\n")


def write(root, name, model_class, config, dtype, shard_size):
    torch.manual_seed(sum(map(ord, name)))
    model = model_class(config).eval()
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.25)  # biases and norms too: none stays at 0 or 1
    folder = root / name
    shutil.rmtree(folder, ignore_errors=True)
    model.to(dtype).save_pretrained(folder, max_shard_size=shard_size)
    # Loaded again, so that only parameters were rounded to dtype and not the rotary tables.
    loaded = model_class.from_pretrained(folder, torch_dtype=torch.float32).eval()
    expected = {"transformers": hf.__version__, "rows": ROWS, "outputs": rounded(outputs(loaded))}
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")
    gradients(folder)


def check(folder):
    """Outputs of a model directory, loaded as it says it wants to be; None for a class that this version lacks."""
    kind = json.loads((folder / "config.json").read_text())["architectures"][0]
    if not hasattr(hf, kind):
        return None
    loaded, info = getattr(hf, kind).from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"], info
    assert loaded.dtype == torch.float32, loaded.dtype
    return outputs(loaded.eval())


def compare(folder):
    found = check(folder)
    if found is None:
        print(f"{folder.name}: transformers {hf.__version__} has no such model")
        return
    expected = json.loads((pathlib.Path("test/fixtures/models") / folder.name / "expected.json").read_text())["outputs"]
    largest = max((torch.tensor(a) - torch.tensor(b)).abs().max().item() for a, b in zip(found, expected))
    print(f"{folder.name}: largest difference {largest:.1e}")
    assert largest < 1e-4


if __name__ == "__main__":
    arguments = sys.argv[1:]
    if arguments[:1] == ["--check"]:
        print(json.dumps(rounded(check(pathlib.Path(arguments[1])))))
    elif arguments[:1] == ["--compare"]:
        for model_folder in sorted(pathlib.Path(arguments[1]).iterdir()):
            compare(model_folder)
    elif arguments[:1] == ["--gradients"]:
        for model_name in MODELS:
            gradients(pathlib.Path(arguments[1] if arguments[1:] else "test/fixtures/models") / model_name)
    else:
        target = pathlib.Path(arguments[0] if arguments else "test/fixtures/models")
        for model_name in arguments[1:] or MODELS:
            write(target, model_name, *MODELS[model_name]())
