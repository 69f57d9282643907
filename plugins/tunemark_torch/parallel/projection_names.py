"""Names of transformers' projections, by which tensor parallelism divides a block. No torch: the parent reads them."""

# Sharded by columns: a block's first ones. A fused one holds several side by side.
COLUMN_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj", "fc1", "c_fc", "dense_h_to_4h", "w1", "w3")
FUSED_PROJECTIONS = ("c_attn", "qkv_proj", "gate_up_proj")
ROW_PROJECTIONS = ("o_proj", "out_proj", "down_proj", "fc2", "c_proj", "dense", "dense_4h_to_h", "w2")
# Norms of queries and keys, as wide as one head or as the whole projection.
HEAD_NORMS = ("q_norm", "k_norm", "q_layernorm", "k_layernorm")
# A block is a module of a layer that holds one of the first two kinds; all that it holds must then have a known name.
BLOCK_NAMES = (*COLUMN_PROJECTIONS, *FUSED_PROJECTIONS, *ROW_PROJECTIONS, *HEAD_NORMS)
