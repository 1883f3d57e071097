"""A tiny random pretrained model of each family of encoders, with a real tokenizer of its kind."""

import json
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AlbertConfig,
    AlbertTokenizer,
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    BertTokenizer,
    DebertaV2Config,
    DebertaV2Tokenizer,
    DistilBertConfig,
    ElectraConfig,
    RobertaConfig,
    RobertaTokenizer,
)

from tests.helpers import tiny

LAYERS, HIDDEN = 4, 16
_SIZES = {
    "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": 2 * HIDDEN,
    "max_position_embeddings": 64,
}  # fmt: skip
_CONFIGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "bert": (BertConfig, {}),
    # Positions begin after the padding's id, 1: of 66 there are 64.
    "roberta": (RobertaConfig, {"max_position_embeddings": 66, "type_vocab_size": 1}),
    "distilbert": (DistilBertConfig, {"dim": HIDDEN, "n_layers": LAYERS, "n_heads": 2, "hidden_dim": 2 * HIDDEN}),
    "electra": (ElectraConfig, {"embedding_size": 8}),
    "albert": (AlbertConfig, {"embedding_size": 8, "bos_token_id": 2, "eos_token_id": 3}),
    # As DeBERTa v3's: no token types, no positions but relative ones.
    "deberta-v2": (
        DebertaV2Config,
        {
            "type_vocab_size": 0, "relative_attention": True, "position_buckets": 8, "norm_rel_ebd": "layer_norm",
            "share_att_key": True, "pos_att_type": ["p2c", "c2p"], "position_biased_input": False,
        },
    ),
}  # fmt: skip
FAMILIES = tuple(_CONFIGS)
# These are tested without training: family, entries of the configuration.
MORE: dict[str, dict[str, Any]] = {
    "camembert": {"max_position_embeddings": 65},
    "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_biased_input": False,
                "type_vocab_size": 0},
    "longformer": {"max_position_embeddings": 65, "attention_window": [4, 4, 8, 8]},
    "modernbert": {"local_attention": 8, "global_attn_every_n_layers": 3},
    "mpnet": {"max_position_embeddings": 65},
    "nomic_bert": {},
    "xlm-roberta": {"max_position_embeddings": 65},
}  # fmt: skip


def tokenizer(family):
    """WordPiece, byte-level BPE or unigram, as the family's own; the last two are trained on the generated words."""
    words = [word for word in tiny.words() if not word.startswith("[")]
    if family == "roberta":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet)
        made.train_from_iterator([" ".join(words)] * 3, trainer)
        state = json.loads(made.to_str())["model"]
        return RobertaTokenizer(vocab=state["vocab"], merges=[tuple(pair) for pair in state["merges"]])
    if family in ("albert", "deberta-v2"):
        made = Tokenizer(models.Unigram())
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        lead = ["<pad>", "<unk>"] if family == "albert" else ["[PAD]", "[UNK]"]
        special = [*lead, "[CLS]", "[SEP]", "[MASK]"]
        unigram = trainers.UnigramTrainer(vocab_size=80, special_tokens=special, unk_token=lead[1])
        made.train_from_iterator(words * 3, unigram)
        pieces = [tuple(piece) for piece in json.loads(made.to_str())["model"]["vocab"]]
        return (AlbertTokenizer if family == "albert" else DebertaV2Tokenizer)(vocab=pieces)
    names = [word for word in tiny.words() if word.startswith("[")]
    return BertTokenizer(vocab={word: index for index, word in enumerate([*names, *words])})


def config(family, layers=LAYERS, vocabulary=100):
    """The configuration of a tiny model of any family, for token ids that no tokenizer makes."""
    if family in MORE:
        own = {"attention_window": [4] * layers} if family == "longformer" else {}
        sizes = {**_SIZES, "vocab_size": vocabulary, "pad_token_id": 0, **MORE[family], **own}
        return AutoConfig.for_model(family, **sizes | {"num_hidden_layers": layers})
    kind, own = _CONFIGS[family]
    depth = {"n_layers": layers} if family == "distilbert" else {"num_hidden_layers": layers}
    sizes = {} if family == "distilbert" else _SIZES
    return kind(**{**sizes, **own, "vocab_size": vocabulary, "pad_token_id": 0, **depth})


def write_classifier(folder, family, words, **more):
    """A classifier's folder of one of the `MORE` families, with random weights and a WordPiece tokenizer."""
    labels = {"id2label": dict(enumerate(words)), "label2id": {word: index for index, word in enumerate(words)}}
    sizes = {**_SIZES, "vocab_size": len(tiny.words()), "pad_token_id": 0, **labels}
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(family, **sizes | MORE[family] | more))
    with torch.no_grad():
        for value in model.parameters():
            value.add_(torch.randn_like(value) / 10)
    model.save_pretrained(folder)
    tiny.write_tokenizer(folder)
    return folder


def write_base(folder, family, seed=0, **more):
    """A pretrained model's folder: encoder and tokenizer."""
    reader = tokenizer(family)
    kind, own = _CONFIGS[family]
    # DistilBERT names its sizes itself.
    sizes = {"max_position_embeddings": 64} if family == "distilbert" else _SIZES
    config = kind(**{"vocab_size": len(reader), "pad_token_id": reader.pad_token_id, **sizes, **own, **more})
    torch.manual_seed(seed)
    AutoModel.from_config(config).save_pretrained(folder)
    reader.save_pretrained(folder)
    return folder
