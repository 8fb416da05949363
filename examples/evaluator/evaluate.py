"""A program that evaluates candidates of `extract search --evaluator`: a line of JSON in, a line of JSON out.

    extract search --space tiny --evaluator 'python3 evaluate.py' --strategy local --evaluations 50 \\
        --maximize score --max-macs 600K --out found.json

Put your own measure in `evaluate`: a training in another framework, a run on a board, a simulation. Messages go to standard
error; standard output is for answers alone. The program ends when its input ends. Needs nothing but Python.
"""

import json
import re
import sys


def blocks(arch):
    """Kernel and expand ratio of each block, by stage: `r12:k3e4,k5e6/k7e3` has two stages."""
    stages = arch.split(":", 1)[1].split("/")
    return [[tuple(map(int, re.findall(r"\d+", block))) for block in stage.split(",")] for stage in stages]


def evaluate(arch, fidelity, seed):
    """The metrics of a sub-network, and of each that has one its 95 % interval. More blocks and larger kernels score higher here."""
    score = sum(kernel * expand for stage in blocks(arch) for kernel, expand in stage)
    return {"score": score}, {"score": [score - 1, score + 1]}


def main():
    for line in sys.stdin:
        request = json.loads(line)
        answer = {"arch": request["arch"]}
        try:
            metrics, intervals = evaluate(request["arch"], request["fidelity"], request["seed"])
            answer |= {"metrics": metrics, "intervals": intervals}
        except Exception as error:  # the candidate has failed; the search goes on
            answer["error"] = str(error)
        print(json.dumps(answer), flush=True)


main()
