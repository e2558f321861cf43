"""Parts that families share: exact batches and their proofs, prompts, noise, frames, loading."""
