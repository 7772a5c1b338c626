"""One PPO iteration of TRL's trainer (policy, reference, reward and value model of their own).

Its own loop runs in a thread and is held at the end of every iteration until the harness says "go" again.
"""

import os
import tempfile
import threading
import warnings

os.environ.setdefault("WANDB_DISABLED", "true")
os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
warnings.filterwarnings("ignore")

import datasets
import tokenizers
import torch
import transformers
import trl
from trl.experimental.ppo import PPOConfig, PPOTrainer

MANY = 100_000


class Turns(transformers.TrainerCallback):
    """Lets the training loop go on for one iteration at a time."""

    def __init__(self):
        self.go, self.done = threading.Semaphore(0), threading.Semaphore(0)
        self.error = None

    def on_train_begin(self, args, state, control, **kwargs):
        self.go.acquire()

    def on_step_end(self, args, state, control, **kwargs):
        self.done.release()
        self.go.acquire()


def make(config):
    vocabulary, batch, minibatch = (config[k] for k in ("vocabulary", "batch", "minibatch"))
    spec = transformers.GPT2Config(
        n_layer=config["layers"],
        n_embd=config["hidden"],
        n_head=config["heads"],
        vocab_size=vocabulary,
        n_positions=config["context"],
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=1,
        num_labels=1,
    )
    words = tokenizers.models.WordLevel({f"w{i}": i for i in range(vocabulary)}, unk_token="w2")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer(words), eos_token="w0", pad_token="w1", padding_side="left"
    )
    prompts = torch.randint(2, vocabulary, (batch, config["promptTokens"])).tolist()
    causal = lambda: transformers.AutoModelForCausalLM.from_config(spec)
    scalar = lambda: transformers.AutoModelForSequenceClassification.from_config(spec)
    policy, reward = causal(), scalar()
    reference, value = causal(), scalar()
    reference.load_state_dict(policy.state_dict())
    value.load_state_dict(reward.state_dict())
    turns = Turns()
    trainer = PPOTrainer(
        args=PPOConfig(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=1,
            num_mini_batches=batch // minibatch,
            num_ppo_epochs=1,
            local_rollout_forward_batch_size=batch,
            response_length=config["responseTokens"],
            temperature=1.0,
            kl_coef=0.05,
            learning_rate=1e-5,
            total_episodes=MANY * batch,
            num_sample_generations=0,
            save_strategy="no",
            eval_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            logging_steps=MANY,
        ),
        processing_class=tokenizer,
        model=policy,
        ref_model=reference,
        reward_model=reward,
        value_model=value,
        train_dataset=datasets.Dataset.from_dict({"input_ids": prompts}),
        eval_dataset=datasets.Dataset.from_dict({"input_ids": prompts}),
        callbacks=[turns],
    )
    trainer.remove_callback(transformers.PrinterCallback)

    def train():
        try:
            trainer.train()
        except BaseException as error:  # told to whoever waits for the turn
            turns.error = error
            turns.done.release()

    threading.Thread(target=train, daemon=True).start()

    def run():
        turns.go.release()
        turns.done.acquire()
        if turns.error is not None:
            raise turns.error
        return 1

    return run, f"trl {trl.__version__} PPOTrainer, transformers {transformers.__version__}, torch {torch.__version__}"
