"""Attention, products, words and recurrence."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from tests.support.probes.computed import LastWord
from tests.support.probes.layers import (
    Bag,
    Cells,
    Decoder,
    Encoder,
    Heads,
    Last,
    LongCells,
    Padded,
    SelfAttention,
    State,
    SwiGLU,
    TimeFirst,
    Twice,
    by_hand,
    rotated,
    rotated_in_pairs,
)
from tests.support.probes.probe import Probe, recurrent, token_function, tokens, words

sdpa = functional.scaled_dot_product_attention

OF_TOKENS: dict[str, Probe] = {
    # attention
    "sdpa_without_heads": token_function(lambda x: sdpa(x, x.tanh(), x)),
    "sdpa_causal": tokens(lambda: Heads(lambda q, k, v: sdpa(q, k, v, is_causal=True))),
    "sdpa_one_key_head": tokens(lambda: Heads(lambda q, k, v: sdpa(q, k, v), 1)),
    "sdpa_grouped": tokens(lambda: Heads(lambda q, k, v: sdpa(q, k, v, enable_gqa=True), 2)),
    "sdpa_grouped_causal": tokens(lambda: Heads(lambda q, k, v: sdpa(q, k, v, is_causal=True, enable_gqa=True), 2)),
    "grouped_by_expand": tokens(
        lambda: Heads(
            lambda q, k, v: sdpa(q, *(t[:, :, None].expand(-1, -1, 2, -1, -1).flatten(1, 2) for t in (k, v))), 2
        )
    ),
    "grouped_by_repeat": tokens(
        lambda: Heads(lambda q, k, v: sdpa(q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)), 2)
    ),
    "sdpa_mask_from_parameters": token_function(
        lambda x, bias: sdpa(x[:, None], x[:, None], x[:, None], attn_mask=bias)[:, 0], bias=(5, 5)
    ),
    "sdpa_mask_without_heads": token_function(lambda x, bias: sdpa(x, x, x, attn_mask=bias), bias=(1, 5, 5)),
    "sdpa_mask_from_activations": token_function(
        lambda x: sdpa(x[:, None], x[:, None], x[:, None], attn_mask=(x @ x.mT)[:, None] > 0.01)[:, 0]
    ),
    "attention_by_hand": tokens(lambda: Heads(by_hand)),
    "rotary": tokens(lambda: Heads(lambda q, k, v: sdpa(rotated(q), rotated(k), v))),
    "rotary_in_pairs": tokens(lambda: Heads(lambda q, k, v: sdpa(rotated_in_pairs(q), rotated_in_pairs(k), v))),
    "qk_norm": tokens(
        lambda: Heads(lambda q, k, v: sdpa(functional.normalize(q, dim=-1), functional.normalize(k, dim=-1), v))
    ),
    "qk_rms_norm": tokens(
        lambda: Heads(lambda q, k, v: sdpa(functional.rms_norm(q, (2,)), functional.rms_norm(k, (2,)), v))
    ),
    "encoder_time_first": recurrent(lambda: TimeFirst()),
    "self_attention": tokens(lambda: SelfAttention()),
    "decoder": tokens(lambda: Decoder()),
    "padding": words(Encoder),
    "padding_by_hand": words(
        lambda: Padded(lambda x, hidden: (x @ x.mT).masked_fill(hidden[:, None, :], -1e9).softmax(-1) @ x)
    ),
    "padding_sdpa": words(
        lambda: Padded(lambda x, hidden: sdpa(*(x[:, None],) * 3, attn_mask=~hidden[:, None, None, :])[:, 0])
    ),
    "padding_added": words(
        lambda: Padded(lambda x, hidden: sdpa(x, x, x, attn_mask=hidden[:, None, :].float() * -1e4))
    ),
    "swiglu": tokens(SwiGLU),
    "rms_norm": tokens(lambda: nn.RMSNorm(8)),
    "rms_norm_by_hand": token_function(
        lambda x, gain: gain * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5)), gain=(8,)
    ),
    # products
    "matmul_broadcast": token_function(lambda x, w: (x[:, None] @ w).transpose(1, 2).flatten(2), 24, w=(3, 8, 8)),
    "matmul_vector": token_function(lambda x, w: x * (x @ w)[..., None], w=(8,)),
    "matmul_left": token_function(lambda x, w: w @ x, w=(4, 5)),
    "einsum_heads": token_function(lambda x, w: torch.einsum("ntd,hde->nthe", x, w).flatten(2), 6, w=(2, 8, 3)),
    "einsum_outer": token_function(lambda x: torch.einsum("nti,ntj->ntij", x, x.tanh()).flatten(2), 64),
    "baddbmm": token_function(lambda x: torch.baddbmm(x, x @ x.mT, x, beta=0.5, alpha=2.0)),
    "bilinear": tokens(lambda: Twice(nn.Bilinear(8, 8, 8))),
    "outer_sum": token_function(lambda x, a, b: x * (a[:, None] + b[None, :]), a=(5,), b=(8,)),
    # words
    "bag_of_means": words(lambda: Bag("mean")),
    "bag_of_sums": words(lambda: Bag("sum")),
    "bag_of_maxima": words(lambda: Bag("max")),
    "bag_with_padding": words(lambda: Bag("mean", padding_idx=0)),
    "last_word": words(LastWord),
    # recurrence
    "rnn": tokens(lambda: nn.RNN(8, 6, batch_first=True), 6),
    "rnn_relu_layers": tokens(lambda: nn.RNN(8, 6, 2, nonlinearity="relu", batch_first=True), 6),
    "gru_both_ways": tokens(lambda: nn.GRU(8, 6, batch_first=True, bidirectional=True), 12),
    "gru_layers": recurrent(lambda: State(nn.GRU(12, 6, 2, batch_first=True), 12)),
    "gru_time_first": recurrent(lambda: Last(nn.GRU(12, 6, bias=False), 6)),
    "lstm_both_ways": recurrent(lambda: State(nn.LSTM(12, 6, 2, batch_first=True, bidirectional=True), 24)),
    "lstm_time_first": recurrent(lambda: Last(nn.LSTM(12, 6, bidirectional=True), 12)),
    "lstm_projected": tokens(lambda: nn.LSTM(8, 6, proj_size=4, batch_first=True), 4),
    "lstm_dropping": tokens(lambda: nn.LSTM(8, 6, 2, dropout=0.3, batch_first=True), 6),
    "gru_cell": recurrent(lambda: Cells(nn.GRUCell(12, 6))),
    "rnn_cell": recurrent(lambda: Cells(nn.RNNCell(12, 6))),
    "lstm_cell": recurrent(lambda: LongCells()),
}
