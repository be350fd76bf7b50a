"""Token models as `transformers` builds them from a configuration, small: nothing is downloaded."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Logits(nn.Module):
    """The logits alone of a model that returns more."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """[N, ...] -> [N, classes]."""
        return self.model(x).logits  # type: ignore[no-any-return]  # untyped


def vit() -> nn.Module:
    """[N, 3, 32, 32] -> [N, 10]."""
    from transformers import ViTConfig, ViTForImageClassification

    return Logits(
        ViTForImageClassification(
            ViTConfig(
                hidden_size=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                intermediate_size=48,
                image_size=32,
                patch_size=8,
                num_labels=10,
            )
        )
    )


def bert() -> nn.Module:
    """[N, 12] of tokens -> [N, 4], with dropout everywhere."""
    from transformers import BertConfig, BertForSequenceClassification

    return Logits(
        BertForSequenceClassification(
            BertConfig(
                vocab_size=50,
                hidden_size=24,
                num_hidden_layers=2,
                num_attention_heads=3,
                intermediate_size=40,
                max_position_embeddings=16,
                num_labels=4,
            )
        )
    )
