"""The network: pretrained encoders with their heads, and how texts become batches for them."""
