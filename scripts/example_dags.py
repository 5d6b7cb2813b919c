"""Writes dsl_examples/*_dag.yaml, the FATE 2.2 form of each conf/dsl pair there; a test compares them with the translation."""

from __future__ import annotations

import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TOP), str(TOP / "backend")]

HEADER = """\
# FATE 2.2: flow job submit -c dsl_examples/{name}_dag.yaml
# The same job as {name}_conf.json with {name}_dsl.json.
"""


def main() -> None:
    """Writes one file for each pair."""
    import yaml

    from he_nn.translate import read_job, to_dag

    class Plain(yaml.SafeDumper):
        def ignore_aliases(self, data: object) -> bool:
            return True

    for conf in sorted((TOP / "dsl_examples").glob("*_conf.json")):
        name = conf.name[: -len("_conf.json")]
        dag = to_dag(read_job(str(conf), str(conf.with_name(f"{name}_dsl.json"))))
        text = yaml.dump(dag, Dumper=Plain, sort_keys=False, width=120)
        conf.with_name(f"{name}_dag.yaml").write_text(HEADER.format(name=name) + text, encoding="utf-8")


if __name__ == "__main__":
    main()
