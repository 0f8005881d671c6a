"""The sections of recipes of GANs, VAEs, autoencoders and DDGAN as small as can be, for the tests' tiny images."""

from __future__ import annotations

from typing import Any

_SMALL = {"channels": 4, "downs": 1, "blocks": 0}
_GENERATOR = {"name": "sngan", "latent": 3, "channels": 4, "ups": 1}
_CODEC = {"base_channels": 4, "multipliers": [1, 2], "blocks": 1, "latent_channels": 2, "middle_attention": False}

SECTIONS: dict[str, dict[str, Any]] = {
    "gan": {
        "learner": {
            **{"name": "gan", "discriminator": {"name": "sngan_discriminator", **_SMALL}, "discriminator_steps": 2},
            **{"generator_samples": 2, "r1": 0.1, "r1_every": 3},
        },
        "network": _GENERATOR,
        "schedule": None,
    },
    "vae": {
        "learner": {"name": "vae", "encoder": {"name": "resnet_encoder", **_SMALL}},
        "network": _GENERATOR,
        "schedule": None,
    },
    "autoencoder": {
        "learner": {
            **{"name": "autoencoder", "beta": 1e-2, "alpha": 2.0, "adversarial_from": 2},
            "discriminator": {"name": "patch_discriminator", "base_channels": 4, "layers": 1},
        },
        "network": {"name": "autoencoder", **_CODEC},
        "schedule": None,
    },
    "ddgan": {
        "learner": {
            "name": "ddgan",
            "discriminator": {
                "name": "ddgan_discriminator",
                "base_channels": 4,
                "multipliers": [1, 2],
                "time_width": 4,
            },
            "r1_every": 2,
        },
        "network": {
            **{"name": "unet", "base_channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": []},
            **{"middle_attention": False, "dropout": 0.1, "latent": 3, "latent_width": 4, "tanh": True},
        },
        "schedule": {"name": "ddgan", "steps": 2},
    },
}
"""By learner."""
