"""Run the protocol of Jung et al. (2023): every system searched, trained on six seeds and compared as in the paper."""
