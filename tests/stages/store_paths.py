"""Runs every command in this process with every path in an object store; prints what came out.

    python -m tests.stages.store_paths URI

At the URI there are `train.parquet`, `config.toml`, `vectors.txt` and `in/`.
"""

import json
import sys

import distlstm
from distlstm.stages.run.session import Resources, shared_ray


def main(uri: str) -> None:
    settings = {"search.num_trials": 2, "search.space": {"model.hidden_dim": {"choice": [8, 12]}}}
    with shared_ray(Resources()):
        trained = distlstm.train(
            f"{uri}/train.parquet", output=f"{uri}/model", config=f"{uri}/config.toml", workers=2
        )
        again = distlstm.train(
            f"{uri}/train.parquet", output=f"{uri}/model", config=f"{uri}/config.toml", workers=1
        )
        predicted = distlstm.batch_predict(f"{uri}/in", model=f"{uri}/model", output=f"{uri}/out")
        evaluated = distlstm.evaluate(
            f"{uri}/train.parquet", model=f"{uri}/model", output=f"{uri}/evaluation"
        )
        tuned = distlstm.tune(
            f"{uri}/train.parquet",
            output=f"{uri}/study",
            config={"training.max_epochs": 2, "model.embedding_dim": 12, **settings},
        )
        grown = distlstm.train(
            f"{uri}/train.parquet",
            output=f"{uri}/grown",
            init=f"{uri}/model",
            config=f"{uri}/config.toml",
            workers=1,
        )
    sys.stdout.write(
        json.dumps(
            {
                "epochs": trained.epochs,
                "resumed": again.resumed,
                "rows": predicted.rows_out,
                "accuracy": evaluated.accuracy,
                "trials": [trial["state"] for trial in tuned.trials],
                "grown": grown.model,
                "faults": distlstm.verify(f"{uri}/out").faults,
                "labels": distlstm.load_model(f"{uri}/study/best").predict(["goal team"]).labels,
                "reports": [
                    distlstm.write_report(f"{uri}/{name}")
                    for name in ("model", "out", "evaluation", "study")
                ],
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1])
