"""Tiny models with adapters as PEFT saves them, and the logits it computes (torch 2.2.2, transformers 4.44.2, peft 0.13.2).

    python make-fixtures.py DIR
"""
import torch, json, os, sys
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, GPT2ForSequenceClassification
from peft import LoraConfig, get_peft_model
torch.manual_seed(0)
out=sys.argv[1]
def go(name, model, cfg, ids):
    model.eval()
    base=f"{out}/{name}/base"; model.save_pretrained(base, safe_serialization=True)
    pm=get_peft_model(model,cfg)
    for n,p in pm.named_parameters():
        if "lora_" in n: torch.nn.init.normal_(p,std=0.1)
    pm.eval(); pm.save_pretrained(f"{out}/{name}/adapter")
    with torch.no_grad(): lg=pm(ids).logits
    json.dump({"ids":ids.tolist(),"shape":list(lg.shape),"logits":lg.flatten().tolist()},open(f"{out}/{name}/logits.json","w"))
    print(name,[ (n,tuple(p.shape)) for n,p in pm.named_parameters() if p.requires_grad][:6])
ids=torch.tensor([[3,7,4,8,5,9,2,6]])
go("gpt2",GPT2LMHeadModel(GPT2Config(vocab_size=23,n_positions=16,n_embd=8,n_layer=2,n_head=2,bos_token_id=0,eos_token_id=0,pad_token_id=1)),LoraConfig(r=2,lora_alpha=6,target_modules=["c_attn","c_fc"],fan_in_fan_out=True,task_type="CAUSAL_LM"),ids)
go("llama",LlamaForCausalLM(LlamaConfig(vocab_size=23,hidden_size=8,intermediate_size=12,num_hidden_layers=2,num_attention_heads=2,num_key_value_heads=1,max_position_embeddings=16,bos_token_id=0,eos_token_id=0,pad_token_id=1)),LoraConfig(r=2,lora_alpha=6,target_modules=["q_proj","v_proj","down_proj"],task_type="CAUSAL_LM"),ids)
go("gpt2-score",GPT2ForSequenceClassification(GPT2Config(vocab_size=23,n_positions=16,n_embd=8,n_layer=1,n_head=2,num_labels=1,bos_token_id=0,eos_token_id=0,pad_token_id=1)),LoraConfig(r=2,lora_alpha=6,target_modules=["c_attn"],fan_in_fan_out=True,task_type="SEQ_CLS"),ids)
