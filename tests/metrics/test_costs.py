"""Multiply-adds, by hand."""

from __future__ import annotations

import torch
from torch.nn import functional

from trilemma.metrics import multiply_adds


def test_attention_and_its_gradient() -> None:
    """Two products forwards; backwards the scores again, and a product each for scores, values, keys and queries."""
    q, k, v = (torch.randn(2, 3, n, 8, requires_grad=True) for n in (5, 7, 7))
    product = 2 * 3 * 5 * 7 * 8
    assert multiply_adds(lambda: functional.scaled_dot_product_attention(q, k, v)) == 2 * product

    def there_and_back() -> None:
        torch.autograd.grad(functional.scaled_dot_product_attention(q * 1, k * 1, v * 1).sum(), q)

    assert multiply_adds(there_and_back) == 7 * product
