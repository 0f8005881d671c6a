"""A pipeline of diffusers for class-conditional models, which diffusers has none of its own for. An exported folder of
such a run has this file in it as pipeline.py; it stands on diffusers and PyTorch alone."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DiffusionPipeline, ImagePipelineOutput, UNet2DModel
from diffusers.utils.torch_utils import randn_tensor


class ClassConditionalPipeline(DiffusionPipeline):
    """DDPMPipeline with a class for each image.

    It is run where it is asked for, and by nobody else:

    DiffusionPipeline.from_pretrained(FOLDER, custom_pipeline="pipeline", trust_remote_code=True)
    ClassConditionalPipeline.from_pretrained(FOLDER)  # imported from trilemma.exchange.pipeline
    """

    model_cpu_offload_seq = "unet"

    def __init__(self, unet: UNet2DModel, scheduler: DDPMScheduler):
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)

    @torch.no_grad()
    def __call__(
        self,
        class_labels: int | list[int] | torch.Tensor,
        generator: torch.Generator | list[torch.Generator] | None = None,
        num_inference_steps: int | None = None,
        eta: float = 0.0,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> Any:
        """An image of each class in `class_labels`, numbers from 0; of a model trained with dropped labels the number
        after the last class stands for none. `num_inference_steps`: those of the training unless given. `eta`: of a
        DDIMScheduler, whose noise follows the clipped image. The rest is as DDPMPipeline has it."""
        labels = torch.as_tensor(class_labels, device=self._execution_device).reshape(-1)
        count = self.unet.config.num_class_embeds
        if not len(labels) or int(labels.min()) < 0 or int(labels.max()) >= count:
            raise ValueError(f"class_labels {labels.tolist()}: expected numbers from 0 to {count - 1}, one an image")
        size = self.unet.config.sample_size
        sides = (size, size) if isinstance(size, int) else tuple(size)
        image = randn_tensor(
            (len(labels), self.unet.config.in_channels, *sides),
            generator=generator,
            device=self._execution_device,
            dtype=self.unet.dtype,
        )
        by_ddim = isinstance(self.scheduler, DDIMScheduler)
        options = {"eta": eta, "use_clipped_model_output": True} if by_ddim else {}
        self.scheduler.set_timesteps(num_inference_steps or self.scheduler.config.num_train_timesteps)
        for t in self.progress_bar(self.scheduler.timesteps):
            output = self.unet(image, t, class_labels=labels).sample
            image = self.scheduler.step(output, t, image, generator=generator, **options).prev_sample
        image = (image / 2 + 0.5).clamp(0, 1)
        if output_type != "pt":
            image = image.cpu().permute(0, 2, 3, 1).numpy()
            image = self.numpy_to_pil(image) if output_type == "pil" else image
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=image) if return_dict else (image,)
