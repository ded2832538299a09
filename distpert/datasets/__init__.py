"""Small published screens that are part of the package, ready for :func:`distpert.fit`."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from anndata import AnnData

__all__ = ["renge"]

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
