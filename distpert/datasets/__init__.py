"""Data that are part of the package: a small published screen, and what is known of all human genes."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from anndata import AnnData

    from distpert.embeddings.vectors import Embeddings

__all__ = ["gene_embeddings", "renge"]

SOURCES = ("text", "go", "literature", "domains")

_RENGE_CITATION = (
    "Ishikawa M, Sugino S, Masuda Y, et al. RENGE infers gene regulatory networks using time-series "
    "single-cell RNA-seq data with CRISPR perturbations. Communications Biology 6, 1290 (2023). "
    "https://doi.org/10.1038/s42003-023-05594-4"
)


def renge() -> AnnData:
    """Knock-outs of 23 transcription factors in human induced pluripotent stem cells, days 2 to 5.

    The screen of Ishikawa et al. [1]_: 14,945 cells, of which 1,182 are controls, and 103 genes, among them all
    knocked-out ones. Days also differ without a knock-out. Pass ``context_key="day"`` to compare cells with the
    controls of their day.

    Returns
    -------
    AnnData, shape (14945, 103)
        ``X``
            log1p of the counts; CSR, float32. The counts are *not* rescaled, see Notes.
        ``layers["counts"]``
            the integer counts; CSR, int32.
        ``obs["perturbation"]``
            the gene knocked out, or ``"control"`` (category).
        ``obs["day"]``
            days after transduction, ``"2"`` to ``"5"`` (category).
        ``uns["embeddings"]``
            DataFrame (103 genes, 384), float32: all-MiniLM-L6-v2 sentence embeddings of each gene's name
            and Gene Ontology terms, for all genes of ``var_names``.
        ``uns["citation"]``
            how to cite the screen.

    Notes
    -----
    The source publishes log1p of integers and calls them normalized. It has no UMI totals of the cells over the whole
    transcriptome. The integers behave like depth-corrected counts: the totals over the 103 genes vary by 12 % between
    control cells, and the 20 most expressed genes are uncorrelated (mean correlation 0.005). Raw counts vary by half
    and correlate at about 0.3. Another division, by the total over these 103 genes, would couple the genes, because
    POU5F1 is an eighth of this total. ``X`` is therefore the matrix of the source. Its values are log1p of small
    integers, and a third of the bins of 15-bin histograms are empty for this reason.

    Licenses: counts MIT (from the sdist of ``renge`` 0.0.5), Gene Ontology terms CC BY 4.0, all-MiniLM-L6-v2
    Apache-2.0. The texts of the licenses are in the folder of this module.

    References
    ----------
    .. [1] Ishikawa M. et al. (2023). RENGE infers gene regulatory networks using time-series single-cell
       RNA-seq data with CRISPR perturbations. Communications Biology 6:1290.
       https://doi.org/10.1038/s42003-023-05594-4

    See Also
    --------
    distpert.fit, distpert.simulate

    Examples
    --------
    >>> adata = distpert.datasets.renge()  # doctest: +SKIP
    >>> fit = distpert.fit(adata, "embeddings", context_key="day")  # doctest: +SKIP
    """
    import pandas as pd
    from anndata import AnnData
    from scipy.sparse import csr_matrix

    with files(__name__).joinpath("renge.npz").open("rb") as stream, np.load(stream) as archive:
        bundle = dict(archive)
    genes = pd.Index(bundle["genes"].astype(str).astype(object))
    categories = bundle["perturbations"].astype(str).astype(object)
    obs = pd.DataFrame(
        {
            "perturbation": pd.Categorical.from_codes(bundle["perturbation"], categories),
            "day": pd.Categorical(bundle["day"].astype(str).astype(object)),
        },
        index=pd.Index(bundle["cells"].astype(str).astype(object)),
    )
    counts = csr_matrix(bundle["counts"].T.astype(np.int32))
    log_counts = counts.astype(np.float32).log1p()
    # AnnData stores a table only if its column names are text.
    columns = [str(dim) for dim in range(bundle["embeddings"].shape[1])]
    embeddings = pd.DataFrame(bundle["embeddings"].astype(np.float32), index=genes, columns=columns)
    return AnnData(
        log_counts,
        obs=obs,
        var=pd.DataFrame(index=genes),
        layers={"counts": counts},
        uns={"embeddings": embeddings, "citation": _RENGE_CITATION},
    )


def gene_embeddings(
    sources: str | Sequence[str] = SOURCES, *, organism: Literal["human", "mouse"] = "human"
) -> Embeddings:
    """Return what is known of all protein-coding genes, as sources of embeddings.

    Parameters
    ----------
    sources : str or sequence of str
        Which sources to take:

        ``"text"``
            The gene's name and the names of its Gene Ontology terms, as a sentence of all-MiniLM-L6-v2.
        ``"go"``
            Its Gene Ontology terms, with their ancestors.
        ``"literature"``
            The papers that name it, of those that name 2 to 100 genes. Genes that are much studied have more of them.
        ``"domains"``
            Domains and sites of its proteins, by Pfam and PROSITE.
    organism : {"human", "mouse"}
        Whose symbols to use. Mouse genes have the vectors of the human gene with the same symbol in capitals.

    Returns
    -------
    Embeddings
        About 19,000 genes. Other names and previous symbols of genes are found too: ``MARCH1`` is ``MARCHF1``.

    Raises
    ------
    ValueError
        If there is no such source or organism.

    See Also
    --------
    distpert.fit, distpert.Fit.relevance

    Notes
    -----
    Vectors of the last three sources are the first 256 (128 for domains) singular vectors of tables of genes and
    features, weighted by tf-idf; those of texts are 256 principal components. All are stored with 8 bits. The folder of
    this module has the script that makes them, and the licenses: Gene Ontology CC BY 4.0, gene2pubmed and gene names
    public domain (NCBI), Pfam CC0, PROSITE by UniProt CC BY 4.0, all-MiniLM-L6-v2 Apache-2.0.

    Examples
    --------
    >>> embeddings = gene_embeddings()
    >>> embeddings.has("MARCH1"), embeddings.source_names
    (True, ('text', 'go', 'literature', 'domains'))
    >>> distpert.fit(adata, embeddings)  # doctest: +SKIP
    """
    from distpert.embeddings.sources import as_embeddings
    from distpert.embeddings.vectors import Embeddings

    wanted = [sources] if isinstance(sources, str) else list(sources)
    if not wanted or not set(wanted) <= set(SOURCES) or len(set(wanted)) < len(wanted):
        raise ValueError(f"sources must be some of {', '.join(SOURCES)}, each once, not {sources!r}")
    if organism not in ("human", "mouse"):
        raise ValueError(f"organism must be 'human' or 'mouse', not {organism!r}")
    names = ["symbols", "aliases", "alias_rows", *wanted, *(f"{name}_rows" for name in wanted)]
    with files(__name__).joinpath("knowledge.npz").open("rb") as stream, np.load(stream) as archive:
        bundle = {name: archive[name] for name in names}

    def spell(symbols: Sequence[str]) -> list[str]:
        return [symbol.capitalize() for symbol in symbols] if organism == "mouse" else list(symbols)

    symbols = spell(bundle["symbols"].tolist())
    aliases = dict(zip(spell(bundle["aliases"].tolist()), (symbols[i] for i in bundle["alias_rows"]), strict=True))
    parts = {}
    for name in wanted:
        genes = tuple(symbols[row] for row in bundle[f"{name}_rows"])
        parts[name] = Embeddings(genes, bundle[name].astype(np.float32), (bundle[name].shape[1],), aliases=aliases)
    return as_embeddings(parts)
