"""What the flags of the published scripts do, and the settings that do the same; docs/explanation/published-code.md."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Flag:
    """One flag of the published scripts.

    Attributes:
        name: the flag.
        scripts: where it exists: I, L, G and ILG for the four scripts, memory for `train_memory.py`.
        here: the setting or command of fsd_tune that does the same; empty if there is none.
        meaning: what the flag really does.
    """

    name: str
    scripts: str
    here: str
    meaning: str


# fmt: off
FLAGS = (
    Flag("--alpha", "I L G ILG", "space.alpha",
         "weight of the task loss; default 0.5, in ILG 0.0"),
    Flag("--temperature", "I L G ILG", "space.temperature",
         "of the soft targets; default 5, in ILG 3"),
    Flag("--beta", "I L", "space.beta",
         "weight of the CKA term; default 30"),
    Flag("--beta", "G", "space.beta",
         "weight of L_G; default 30"),
    Flag("--beta", "ILG", "space.gamma_m",
         "weight of the distances in L_G, not of the terms; default 5, so that the cosines get the weight -4; "
         "loss.weights.beta accepts 0 to 1"),
    Flag("--gamma", "G", "space.gamma_m",
         "weight of the distances in L_G; default 0.5"),
    Flag("--gamma", "ILG", "loss.weights.gamma",
         "share of L_I among L_I and L_L; default 0"),
    Flag("--sigma", "ILG", "loss.weights.sigma",
         "share of L_G; the others get half of 1 - sigma; default 5, which gives them a negative weight; 0 is "
         "FSD_IL"),
    Flag("--epsilon", "ILG", "loss.weights.epsilon",
         "weight of the three terms together; default 0.1"),
    Flag("--gamma_m", "-", "space.gamma_m",
         "in the commands of their README only, the scripts refuse it: --gamma in G, --beta in ILG"),
    Flag("--gamma_i, --gamma_l, --gamma_g", "-", "space.gamma_i, space.gamma_l, space.gamma_g",
         "in the commands of their README only, the scripts refuse them; the paper's weights"),
    Flag("--internal", "I L G", "method: fsd_i",
         "in I: L_I instead of L_L; G accepts it, and its loss does not read it"),
    Flag("--do_layerwise", "I ILG", "loss.layers: all",
         "five layer pairs: 2, 4, 6, 8, 10 with 1 to 5"),
    Flag("--copy_teacher", "I L G ILG", "student.start: copy",
         "starts from --model_name_or_path_for_copy, which their commands set to bert-base-uncased, and not "
         "from the teacher; without it I, L and G fail and ILG starts at random"),
    Flag("--model_name_or_path_for_copy", "I L G ILG", "student.model",
         "the pretrained model of --copy_teacher"),
    Flag("--model_name_or_path", "all", "--teacher",
         "the fine-tuned teacher"),
    Flag("--student_model_name_or_path", "I L G ILG", "",
         "where a checkpoint of the student is looked for"),
    Flag("--num_centroid", "G ILG memory", "memory.centroids",
         "default 100 in G and ILG, which must be told 300 for mnli and qqp; here 300 is their default"),
    Flag("--teacher_memory_path", "G ILG", "--memory",
         "the file of train_memory.py; here a folder, built when it is needed"),
    Flag("--memory_num_train_epochs", "memory", "memory.algorithm: published",
         "3 assigns and averages once, as here; more than 3 repeat that, which is not available"),
    Flag("--memory_learning_rate", "memory", "",
         "required, and only used by code that is never called"),
    Flag("--per_gpu_memory_train_batch_size", "memory", "memory.algorithm: published",
         "1, as here; a larger one changes which examples count"),
    Flag("--task_name, --data_dir, --output_dir", "all", "--task, --data, --output",
         "the same"),
    Flag("--max_seq_length", "all", "data.max_length",
         "default 128; every example is padded to it"),
    Flag("--per_gpu_train_batch_size", "all", "space.batch_size",
         "default 8; their commands set 32"),
    Flag("--gradient_accumulation_steps", "all", "space.gradient_accumulation",
         "gradients are added up in I, L and G and averaged in ILG; the batches that an epoch has left over "
         "count for the next one (optimizer.accumulation)"),
    Flag("--learning_rate", "all", "space.learning_rate",
         "default 5e-5"),
    Flag("--num_train_epochs", "all", "space.epochs",
         "default 3"),
    Flag("--max_steps", "all", "",
         "sets the number of steps; here epochs do"),
    Flag("--warmup_steps", "all", "space.warmup_ratio",
         "default 0; a ratio here"),
    Flag("--weight_decay", "all", "space.weight_decay",
         "default 0; decays the student memory, too"),
    Flag("--adam_epsilon", "all", "optimizer.epsilon: published",
         "1e-8, added before the bias correction"),
    Flag("--max_grad_norm", "all", "optimizer.clipping: together",
         "1, of student and student memory together"),
    Flag("--seed", "all", "search.seed",
         "default 42"),
    Flag("--fp16", "all", "precision: bf16",
         "needs apex, and then trains on the task loss alone, because that is what it scales"),
    Flag("--evaluate_during_training, --logging_steps, --save_steps", "I L G", "asha.reports",
         "evaluations and checkpoints by steps; here equal parts of a run"),
    Flag("--permutation, --validation, --do_normalize, --do_hyper, --do_mapping", "ILG", "",
         "for other experiments; no part of the training reads them"),
    Flag("--do_tsne", "G", "fsd-tune analyze",
         "t-SNE of features and centroids"),
    Flag("--run_file", "I L G", "wandb.mode",
         "TensorBoard files there, Weights & Biases here"),
)
# fmt: on
