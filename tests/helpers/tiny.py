"""Tiny random BERTs with a real tokenizer, for tests that need models but not what they have learnt."""

import json
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification, BertModel, BertTokenizer

from tests.helpers import glue_folders

HIDDEN = 16


def words():
    """Every word of the generated GLUE sentences and some punctuation."""
    texts = [*glue_folders._CUES, *glue_folders._SUBJECTS, *glue_folders._VERBS, *glue_folders._OBJECTS]
    found = {word for text in texts for word in text.lower().split()}
    return ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(found), ".", ",", "'", '"', "?", "and", "says"]


def write_tokenizer(folder):
    vocab = Path(folder) / "vocab.txt"
    vocab.write_text("\n".join(words()), encoding="utf-8")
    BertTokenizer(str(vocab)).save_pretrained(folder)


def config(layers=4, hidden=HIDDEN, **more):
    return BertConfig(
        vocab_size=len(words()),
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * hidden,
        max_position_embeddings=64,
        **more,
    )


def write_base(folder, layers=4, seed=0, hidden=HIDDEN):
    """A pretrained model's folder: encoder and tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    BertModel(config(layers, hidden)).save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def write_teacher(folder, base, num_labels=2, layers=4, seed=1, **more):
    """A teacher's folder with random weights that are large enough for its predictions to differ."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = BertForSequenceClassification(config(layers, num_labels=num_labels, **more))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.mul_(4)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    if base is not None:
        (folder / "fsd_tune.json").write_text(json.dumps({"base": str(base)}), encoding="utf-8")
    return folder
