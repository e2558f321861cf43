"""Runs rendermill on one GPU, with random weights in the shape of Sana 1.6B: `python -m benchmarks.gpu_check`.

Prints images a second, and whether pixels stayed the same across batch sizes and orders. Random weights do for
both: same shapes, same kernels. Takes about five minutes and 12 GB of disk.
"""

import argparse
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import yaml
from diffusers import AutoencoderDC, DPMSolverMultistepScheduler, SanaPipeline, SanaTransformer2DModel
from transformers import Gemma2Config, Gemma2Model

from shapes.text import VOCABULARY_SIZE, make_tokenizer

ROOT = Path(__file__).parents[1]


def build_sana_1600m(folder: Path) -> None:
    """A pipeline in the shape of Efficient-Large-Model/Sana_1600M_1024px_BF16_diffusers, with a small vocabulary."""
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        transformer = SanaTransformer2DModel(
            in_channels=32,
            out_channels=32,
            num_attention_heads=70,
            attention_head_dim=32,
            num_layers=20,
            num_cross_attention_heads=20,
            cross_attention_head_dim=112,
            cross_attention_dim=2240,
            caption_channels=2304,
            sample_size=32,
            patch_size=1,
            mlp_ratio=2.5,
        )
        vae = AutoencoderDC(
            latent_channels=32,
            attention_head_dim=32,
            encoder_block_types=("ResBlock",) * 3 + ("EfficientViTBlock",) * 3,
            decoder_block_types=("ResBlock",) * 3 + ("EfficientViTBlock",) * 3,
            encoder_block_out_channels=(128, 256, 512, 512, 1024, 1024),
            decoder_block_out_channels=(128, 256, 512, 512, 1024, 1024),
            encoder_layers_per_block=(2, 2, 2, 3, 3, 3),
            decoder_layers_per_block=(3, 3, 3, 3, 3, 3),
            encoder_qkv_multiscales=((), (), (), (5,), (5,), (5,)),
            decoder_qkv_multiscales=((), (), (), (5,), (5,), (5,)),
            upsample_block_type="interpolate",
            downsample_block_type="Conv",
            scaling_factor=0.41407,
        )
        text_encoder = Gemma2Model(Gemma2Config(vocab_size=VOCABULARY_SIZE, pad_token_id=0, eos_token_id=2))
    torch.set_default_dtype(torch.float32)
    scheduler = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    SanaPipeline(make_tokenizer(300), text_encoder, vae, transformer, scheduler).save_pretrained(folder)


def run(folder: Path, name: str, rows: list[dict[str, Any]], **settings: Any) -> tuple[dict[str, str], float]:
    """Draw rows; returns pixel hashes by id, and images a second from the first batch's start to the last's end."""
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    job = {
        "manifest": str(folder / f"{name}.parquet"),
        "output": str(folder / name),
        "reproducibility": settings.pop("reproducibility", "strict"),
        "models": {"sana": {"checkpoint": str(folder / "sana"), "pool": {"max_actors": 1}, **settings}},
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(job))
    subprocess.run([sys.executable, "-m", "jobs.cli", "generate", folder / f"{name}.yaml"], cwd=ROOT, check=True)
    records = pq.read_table(folder / name / "metadata").to_pylist()
    starts = sorted({record["started_at"].timestamp() for record in records})
    # the first batch pays for compiling and warming up
    steady = [record for record in records if record["started_at"].timestamp() > starts[0]]
    end = max(record["started_at"].timestamp() + record["seconds"] for record in records)
    rate = len(steady) / (end - starts[1]) if steady else 0.0
    return {record["id"]: record["pixel_sha256"] for record in records}, rate


def main() -> None:
    """Print a table of settings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-images", type=int, default=48)
    num_images = parser.parse_args().num_images
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        build_sana_1600m(folder / "sana")
        torch.cuda.empty_cache()
        rows = [{"id": str(index), "prompt": f"prompt {index}"} for index in range(num_images)]
        shuffled = random.Random(0).sample(rows, len(rows))
        reference, rate = run(folder, "strict", rows)
        print(f"strict, compiled, batch auto: {rate:.2f} img/s")
        again, rate = run(folder, "shuffled", shuffled[: num_images - 3], batch=16)
        same = sum(again[item] == reference[item] for item in again)
        print(f"strict, compiled, batch 16, shuffled, 3 left out: {rate:.2f} img/s, {same} of {len(again)} the same")
        again, rate = run(folder, "eager", rows, compile=False, batch=4)
        print(f"strict, eager, batch 4: {rate:.2f} img/s")
        _, rate = run(folder, "fast", rows, reproducibility="fast", compile=False)
        print(f"fast, eager, batch auto: {rate:.2f} img/s")
        print(f"on {torch.cuda.get_device_name()}, torch {torch.__version__}")


if __name__ == "__main__":
    main()
