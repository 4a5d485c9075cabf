"""Data engineering: from labeled reviews of any source to token ids.

Consumes `reviews`, the encoder's `tokenizer`, `run_info`, and `tokenized_before`, the newest tokens on disk, which are
reused where nothing changed. Produces `reviews_checked`, `data_profile`, `splits`, `tokenized` and
`reference_statistics`.
"""

from typing import Any

from kedro.pipeline import Node, Pipeline

from review_sentiment.pipelines.data_engineering import contract, nodes


def create_pipeline(**kwargs: Any) -> Pipeline:
    """Wire the nodes."""
    return Pipeline(
        [
            Node(
                func=contract.check_reviews,
                inputs=["reviews", "params:data"],
                outputs=["reviews_checked", "contract_counts"],
                name="check_reviews",
            ),
            Node(
                func=nodes.select_subset,
                inputs=["reviews_checked", "params:subset"],
                outputs="splits",
                name="select_subset",
            ),
            Node(
                func=nodes.tokenize,
                inputs={
                    "splits": "splits",
                    "tokenizer": "tokenizer",
                    "tokenized_before": "tokenized_before",
                    "tokenize": "params:tokenize",
                    "run_info": "run_info",
                },
                outputs="tokenized",
                name="tokenize",
            ),
            Node(
                func=nodes.profile_data,
                inputs={
                    "contract_counts": "contract_counts",
                    "reviews_checked": "reviews_checked",
                    "splits": "splits",
                    "tokenized": "tokenized",
                },
                outputs="data_profile",
                name="profile_data",
            ),
            Node(
                func=nodes.measure_reference_statistics,
                inputs=["splits", "tokenizer"],
                outputs="reference_statistics",
                name="measure_reference_statistics",
            ),
        ],
        namespace="data_engineering",
        prefix_datasets_with_namespace=False,
    )
