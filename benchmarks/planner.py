"""What the embedded planner understands: names and attributes in people's own words, and how long it takes.

python benchmarks/planner.py                     writes benchmarks/results/planner.json
python benchmarks/planner.py --split valid --errors 40      a look at what it misses, nothing is written

Real dialogues (opendialkg and redial, from $TASTEMAKER_DATA): every message up to a dialogue's last recommendation is
read by itself; what is found is compared with the names that were linked in these messages by the people who made the
data, micro-averaged over (dialogue, name). Titles and attributes are judged apart. Linked names that neither the titles
nor the columns of the catalogue hold are counted and left out; so are attributes of up to four letters that no message
has as a word (ReDial's test part links an actress Eve wherever "never" stands; this was seen only when the test part
was read, so the figure with these links stands beside). Many names that plainly stand there are not
linked, above all in OpenDialKG: precision is a lower bound. The rules were made with the valid parts; the test parts
are reported. "Every name" takes each title and value that stands in a text, the longest first, whatever the words mean.
ReDial's texts hold titles with years, as people chose them from a list; once more without the years.
Invented dialogues: phrasings the rules were made with, and others, by the same authors. One core.
"""

from __future__ import annotations

import argparse
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import polars as pl
from common import data_folder, page_table, write

from tastemaker.data.dialogues import dialogues
from tastemaker.data.sources.dialogues import SETS, read_talk
from tastemaker.data.synthetic import World
from tastemaker.language.planner import Planner
from tastemaker.language.planner.lexicon import Lexicon
from tastemaker.language.planner.reading import Reader
from tastemaker.language.planner.spelling import tokens, words
from tastemaker.language.tasks import Plan, PlanAsked

Found = tuple[set[str], set[str]]  # titles and attributes, folded
SHORT = 4  # letters of a linked name that must stand in a message as a word
YEAR = re.compile(r"\s*\(\d{4}\)")


def folded(name: str) -> str:
    return "".join(words(YEAR.sub("", name)))


def by_rules(lexicon: Lexicon) -> Callable[[str], Found]:
    reader = Reader(lexicon)

    def read(text: str) -> Found:
        found = reader.read(text)
        titles = {folded(lexicon.names[title.rows[0]]) for title in found.titles}
        values = {folded(lexicon.facets[f].values[v]) for value in found.values for f, v in value.options[:1]}
        return titles, values

    return read


def every_name(lexicon: Lexicon) -> Callable[[str], Found]:
    """Whatever stands there, the longest first."""

    def read(text: str) -> Found:
        told = [word.text for word in tokens(text) if word.is_word]
        titles: set[str] = set()
        values: set[str] = set()
        at = 0
        while at < len(told):
            for end in range(min(len(told), at + 10), at, -1):
                if number := lexicon.titles.exact(told[at:end]):
                    titles.add(folded(lexicon.names[lexicon.title_of[number[0]]]))
                elif number := lexicon.values.exact(told[at:end]):
                    f, v = lexicon.value_of[number[0]]
                    values.add(folded(lexicon.facets[f].values[v]))
                else:
                    continue
                at = end - 1
                break
            at += 1
        return titles, values

    return read


def scores(hits: int, wrong: int, missed: int) -> dict[str, float]:
    return {
        "precision": hits / max(1, hits + wrong),
        "recall": hits / max(1, hits + missed),
        "f1": 2 * hits / max(1, 2 * hits + wrong + missed),
        "n": hits + missed,
    }


def judged(
    lexicon: Lexicon, read: Callable[[str], Found], talk: pl.DataFrame, *, years: bool, show: int = 0
) -> dict[str, Any]:
    known_titles = {folded(name) for name in lexicon.names}
    known_values = {folded(value) for facet in lexicon.facets for value in facet.values}
    counts: Counter[str] = Counter()
    for texts, names in talk.select("texts", "names").iter_rows():
        told = {word for text in texts for word in words(text)}
        linked = {folded(name) for name in names}
        titles: set[str] = set()
        values: set[str] = set()
        for text in texts:
            some, more = read(text if years else YEAR.sub("", text))
            titles |= some
            values |= more
        both = linked & known_titles & known_values
        wanted_titles = (linked & known_titles - known_values) | (both & titles)
        wanted_values = (linked & known_values - known_titles) | (both - titles)
        within = {name for name in wanted_values if len(name) <= SHORT and name not in told}  # "eve" of "never"
        counts["within"] += len(within - values)
        wanted_values -= within - values
        counts["outside"] += len(linked - known_titles - known_values)
        for what, found, wanted in (("title", titles, wanted_titles), ("value", values, wanted_values)):
            counts[f"{what} hit"] += len(found & wanted)
            counts[f"{what} wrong"] += len(found - wanted)
            counts[f"{what} missed"] += len(wanted - found)
            if show > 0 and found != wanted:
                print(what, "wrong", found - wanted, "missed", wanted - found, texts[-4:])
                show -= 1
    return {
        "titles": scores(counts["title hit"], counts["title wrong"], counts["title missed"]),
        "attributes": scores(counts["value hit"], counts["value wrong"], counts["value missed"]),
        "attributes, as linked": scores(
            counts["value hit"], counts["value wrong"], counts["value missed"] + counts["within"]
        ),
        "linked elsewhere": counts["outside"],
        "linked within words": counts["within"],
        "dialogues": talk.height,
    }


def real(split: str, show: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for name in SETS:
        folder = data_folder(name)
        if folder is None:
            continue
        talk = read_talk(name, folder)
        lexicon = Lexicon(talk.catalogue, title="title")
        part = talk.dialogues.filter(pl.col("split") == split)
        for years in (True, False) if name == "redial" else (True,):
            for how, read in (("rules", by_rules(lexicon)), ("every name", every_name(lexicon))):
                found = judged(lexicon, read, part, years=years, show=show if how == "rules" else 0)
                shown = name if years else f"{name}, without years"
                rows.append({"data": shown, "split": split, "how": how, **found})
    return rows


def invented() -> list[dict[str, Any]]:
    """F1 of titles in their roles, and of values and bounds, over single sentences of invented dialogues."""
    data = World(n_users=300, n_items=600, seed=3).dataset()
    reader = Reader(Lexicon(data.items))
    rows = []
    for phrasing in ("known", "held out"):
        spoken = dialogues(data, 300, seed=7, phrasing=phrasing)  # type: ignore[arg-type]
        said = spoken.filter((pl.col("speaker") == "person") & ~pl.col("accepts"))
        counts: Counter[str] = Counter()
        for text, facts, unwanted, titles in said.select("text", "facts", "unwanted", "titles").iter_rows():
            for what, found, wanted in zip(
                ("title", "value"), understood(reader, text), meant(facts, unwanted, titles), strict=True
            ):
                counts[f"{what} hit"] += len(found & wanted)
                counts[f"{what} wrong"] += len(found - wanted)
                counts[f"{what} missed"] += len(wanted - found)
        rows.append(
            {
                "phrasings": phrasing,
                "titles": scores(counts["title hit"], counts["title wrong"], counts["title missed"]),
                "attributes": scores(counts["value hit"], counts["value wrong"], counts["value missed"]),
                "sentences": said.height,
            }
        )
    return rows


def understood(reader: Reader, text: str) -> tuple[set[str], set[str]]:
    """Titles in their roles, and values and bounds, as `data.dialogues` writes them down."""
    found, lexicon = reader.read(text), reader.lexicon
    titles = {f"{'like' if one.role == 'plain' else one.role}: {lexicon.names[one.rows[0]]}" for one in found.titles}
    facts = {f"{bound.facet} {bound.sign[0]} {bound.number:g}" for bound in found.bounds}
    for value in found.values:
        f, v = value.options[0]
        facts.add(f"{'' if value.wanted else 'not '}{lexicon.facets[f].name} = {lexicon.facets[f].values[v]}")
    return titles, facts


def meant(facts: Sequence[str], unwanted: Sequence[str], titles: Sequence[str]) -> tuple[set[str], set[str]]:
    wanted = {f"not {fact}" for fact in unwanted}
    for fact in facts:
        column, sign, value = fact.split(" ", 2)
        number = re.fullmatch(r"-?\d+(\.\d+)?", value)
        if not number:
            wanted.add(fact)
        elif sign == "=":  # a decade
            wanted |= {f"{column} > {float(value):g}", f"{column} < {float(value) + 9:g}"}
        else:
            wanted.add(f"{column} {sign[0]} {float(value):g}")
    return set(titles), wanted


def speed(n_items: int = 10_000, n: int = 600) -> dict[str, float]:
    """Milliseconds a plan takes, dialogue and all, at a catalogue's size; every text is new."""
    world = World(n_users=300, n_items=n_items, seed=1)
    data = world.dataset()
    began = time.perf_counter()
    planner = Planner(data.items)
    built = time.perf_counter() - began
    said = dialogues(data, n, seed=11, phrasing="held out").filter(pl.col("speaker") == "person")["text"].to_list()
    took = []
    for number, text in enumerate(said[:n]):
        start = time.perf_counter()
        planner.run("plan", PlanAsked(text=f"{text} ({number})", shown=tuple(planner.lexicon.names[:5])), Plan)
        took.append(1000 * (time.perf_counter() - start))
    p50, p99 = np.quantile(took[20:], [0.5, 0.99])
    return {"items": n_items, "build_s": built, "p50_ms": float(p50), "p99_ms": float(p99), "plans": len(took)}


def tables(found: dict[str, Any]) -> list[dict[str, Any]]:
    of_real = [
        {
            "dialogues": f"{one['data']}, {one['split']} ({one['dialogues']:,})",
            "how": one["how"],
            "titles, F1": f"{one['titles']['f1']:.3f}",
            "precision": f"{one['titles']['precision']:.3f}",
            "recall": f"{one['titles']['recall']:.3f}",
            "attributes, F1": f"{one['attributes']['f1']:.3f}",
            "precision ": f"{one['attributes']['precision']:.3f}",
            "recall ": f"{one['attributes']['recall']:.3f}",
            "F1 with links within words": f"{one['attributes, as linked']['f1']:.3f}",
        }
        for one in found["real"]
    ]
    of_invented = [
        {
            "phrasings": one["phrasings"],
            "sentences": one["sentences"],
            "titles in their roles, F1": f"{one['titles']['f1']:.3f}",
            "values and bounds, F1": f"{one['attributes']['f1']:.3f}",
        }
        for one in found["invented"]
    ]
    took = found["speed"]
    note = f"A plan at {took['items']:,} items: median {took['p50_ms']:.1f} ms, p99 {took['p99_ms']:.1f} ms, one core."
    return [
        page_table(
            "The embedded planner on people's dialogues",
            of_real,
            "Names linked by the data's makers; many that stand there are not linked, so precision is a lower bound.",
        ),
        page_table("The embedded planner on invented dialogues", of_invented, note),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", default="test", choices=("train", "valid", "test"))
    parser.add_argument("--errors", type=int, default=0, help="print so many misreadings; nothing is written")
    given = parser.parse_args()
    if given.errors or given.split != "test":
        for row in real(given.split, given.errors):
            print(row)
        return
    found = {"real": real(given.split, 0), "invented": invented(), "speed": speed()}
    print(write("planner", found, tables(found)))


if __name__ == "__main__":
    main()
