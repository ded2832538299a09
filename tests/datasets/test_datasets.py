import hashlib
import io
import os
import sqlite3
import tarfile

import anndata
import numpy as np
import pandas as pd
import pytest

from distpert.datasets import build_knowledge, build_renge, gene_embeddings, renge

CELLS = {  # cells a label: every one but the controls is a gene
    "control": 1182, "ETS2": 1210, "ETV4": 779, "FOXH1": 1039, "ID1": 1545, "JARID2": 436, "LIN28A": 970,
    "MYC": 239, "MYCN": 880, "NANOG": 813, "NR5A2": 605, "PDLIM1": 566, "POU5F1": 1169, "PRDM14": 461,
    "RUNX1T1": 553, "SOX2": 340, "TRIM24": 403, "TRIM25": 324, "VENTX": 188, "ZIC2": 149, "ZIC3": 290,
    "ZNF398": 188, "ZNF649": 283, "ZNF90": 333,
}  # fmt: skip


@pytest.fixture(scope="module")
def adata():
    return renge()


def test_shapes_and_types(adata):
    assert adata.shape == (14945, 103)
    assert adata.X.format == adata.layers["counts"].format == "csr"
    assert adata.X.dtype == np.float32
    assert adata.layers["counts"].dtype == np.int32
    assert adata.obs_names.is_unique
    assert adata.var_names.is_unique


def test_labels(adata):
    assert adata.obs["perturbation"].value_counts().to_dict() == CELLS
    assert adata.obs["perturbation"].cat.categories[0] == "control"
    assert adata.obs["day"].value_counts().to_dict() == {"2": 1980, "3": 3735, "4": 4863, "5": 4367}
    assert set(CELLS) - {"control"} <= set(adata.var_names)


def test_counts(adata):
    counts = adata.layers["counts"]
    assert counts.sum() == 3_228_962
    assert counts.max() == 138
    assert counts.min() == 0
    first = dict(zip(adata.var_names, counts[0].toarray()[0], strict=True))
    assert adata.obs_names[0] == "1_AAACCTGAGGACCACA-1"
    assert (first["TARDBP"], first["HNRNPR"], first["ID3"], first["ZNF593"]) == (1, 3, 13, 0)


def test_x_is_log1p_of_the_counts(adata):
    np.testing.assert_allclose(adata.X.toarray(), np.log1p(adata.layers["counts"].toarray()), rtol=1e-6)


def test_counts_are_depth_corrected(adata):
    """What the docstring says of controls, the reason for which X is not rescaled."""
    control = adata.layers["counts"][(adata.obs["perturbation"] == "control").to_numpy()].toarray()
    total = control.sum(axis=1)
    assert total.std() / total.mean() == pytest.approx(0.12, abs=0.005)
    top = control[:, np.argsort(control.mean(axis=0))[-20:]]
    correlation = np.corrcoef(top.T)[np.triu_indices(20, k=1)]
    assert correlation.mean() == pytest.approx(0.005, abs=0.001)


def test_knock_outs_lower_their_own_gene(adata):
    frame = adata.to_df().groupby(adata.obs["perturbation"], observed=True).mean()
    for gene in ("LIN28A", "PDLIM1", "TRIM25", "ETV4", "JARID2"):
        assert frame.loc[gene, gene] < 0.75 * frame.loc["control", gene]


def test_embeddings_cover_the_genes(adata):
    embeddings = adata.uns["embeddings"]
    assert embeddings.shape == (103, 384)
    assert embeddings.index.equals(adata.var_names)
    assert (embeddings.dtypes == np.float32).all()
    # The model's sentence embeddings are unit vectors; half precision moves the length by 1e-3 at most.
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1.0, atol=1e-3)
    assert "Communications Biology 6, 1290" in adata.uns["citation"]


def test_h5ad_round_trip(adata, tmp_path):
    adata.write_h5ad(tmp_path / "renge.h5ad")
    again = anndata.read_h5ad(tmp_path / "renge.h5ad")
    pd.testing.assert_frame_equal(again.uns["embeddings"], adata.uns["embeddings"])
    pd.testing.assert_frame_equal(again.obs, adata.obs)
    assert (again.X != adata.X).nnz == 0


def test_every_call_returns_an_object_of_its_own(adata):
    other = renge()
    other.X.data[:] = 0
    assert adata.X.max() > 0


def test_package_data_stays_small():
    folder = build_renge.BUNDLE.parent
    files = [path for path in folder.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 12_000_000
    assert {"renge.npz", "LICENSE-renge.txt", "ATTRIBUTION.md"} <= {path.name for path in files}


# --- the script that makes the bundle, on a made-up release of three genes and four cells


def _screen():
    cells = ["c1", "c2", "c3", "c4"]
    counts = pd.DataFrame([[0, 3, 1], [7, 0, 0], [255, 1, 2], [4, 4, 4]], index=cells, columns=["A", "B", "C"])
    design = pd.DataFrame(0.0, index=cells, columns=["C", "B", "A", "t"])
    design.loc["c2", "C"] = design.loc["c3", "B"] = 1.0
    design["t"] = [2.0, 3.0, 5.0, 2.0]
    return counts, design


def _archive(path, frames):
    with tarfile.open(path, "w:gz") as sdist:
        for name, frame in frames.items():
            data = frame.to_csv().encode()
            member = tarfile.TarInfo(f"renge-0.0.5/examples/data/{name}_renge_d2_80.csv")
            member.size = len(data)
            sdist.addfile(member, io.BytesIO(data))


def test_build_recovers_counts_and_labels(tmp_path, monkeypatch, capsys):
    counts, design = _screen()
    sdist = tmp_path / "renge-0.0.5.tar.gz"
    _archive(sdist, {"E": np.log1p(counts), "X": design})
    monkeypatch.setattr(build_renge, "SDIST_SHA256", hashlib.sha256(sdist.read_bytes()).hexdigest())
    embeddings = np.arange(8, dtype=np.float16).reshape(4, 2)
    np.savez(tmp_path / "emb.npz", symbols=np.array(["C", "Z", "A", "B"]), emb=embeddings)

    outputs = [tmp_path / "one.npz", tmp_path / "two.npz"]
    for out in outputs:
        build_renge.main([str(sdist), str(tmp_path / "emb.npz"), "--out", str(out)])
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    assert "4 cells, 3 genes" in capsys.readouterr().out

    with np.load(outputs[0]) as bundle:
        np.testing.assert_array_equal(bundle["counts"].T, counts)
        labels = bundle["perturbations"][bundle["perturbation"]].astype(str)
        assert labels.tolist() == ["control", "C", "B", "control"]
        assert bundle["day"].tolist() == [2, 3, 5, 2]
        assert bundle["genes"].astype(str).tolist() == ["A", "B", "C"]
        assert bundle["cells"].astype(str).tolist() == ["c1", "c2", "c3", "c4"]
        np.testing.assert_array_equal(bundle["embeddings"], embeddings[[2, 3, 0]])


def test_build_refuses_another_archive(tmp_path):
    (tmp_path / "other.tar.gz").write_bytes(b"not the release")
    with pytest.raises(ValueError, match=r"other\.tar\.gz is not the sdist of renge 0\.0\.5"):
        build_renge.read_sdist(tmp_path / "other.tar.gz")


def test_build_refuses_what_it_cannot_represent():
    counts, design = _screen()
    expression = np.log1p(counts)
    for bad in (expression + 0.1, np.log1p(counts + 1), np.log1p(counts.astype(float)) - 0.9):
        with pytest.raises(ValueError, match="log1p of integers"):
            build_renge.screen_arrays(bad, design)
    with pytest.raises(ValueError, match="same cells"):
        build_renge.screen_arrays(expression, design.iloc[::-1])
    with pytest.raises(ValueError, match="more than one knock-out"):
        build_renge.screen_arrays(expression, design.assign(A=1.0))
    with pytest.raises(ValueError, match=r"not measured: \['C'\]"):
        build_renge.screen_arrays(expression[["A", "B"]], design)


def test_build_names_genes_without_embedding(tmp_path):
    np.savez(tmp_path / "emb.npz", symbols=np.array(["A"]), emb=np.zeros((1, 2), np.float16))
    with pytest.raises(KeyError, match=r"no embedding for \['B'\]"):
        build_renge.select_embeddings(tmp_path / "emb.npz", ["A", "B"])


def test_bundle_equals_a_rebuild_from_the_sdist():
    sdist = os.environ.get("DISTPERT_RENGE_SDIST")
    if not sdist:
        pytest.skip("set DISTPERT_RENGE_SDIST to the path of renge-0.0.5.tar.gz")
    with np.load(build_renge.BUNDLE) as bundle:
        rebuilt = build_renge.screen_arrays(*build_renge.read_sdist(sdist))
        assert set(bundle) == {*rebuilt, "embeddings"}
        for name, array in rebuilt.items():
            np.testing.assert_array_equal(bundle[name], array)
            assert bundle[name].dtype == array.dtype


# ---------------------------------------------------------------------------------------------- knowledge about genes


@pytest.fixture(scope="module")
def knowledge():
    return gene_embeddings()


def test_all_protein_coding_genes(knowledge):
    assert knowledge.source_names == ("text", "go", "literature", "domains")
    assert 19_000 <= len(knowledge.genes) <= 21_000
    assert knowledge.covered.any(axis=1).all()
    of_source = dict(zip(knowledge.source_names, knowledge.covered.sum(axis=0), strict=True))
    assert of_source["text"] >= 19_000
    assert of_source["go"] >= 18_000
    assert of_source["literature"] >= 17_000
    assert of_source["domains"] >= 11_000
    assert np.isfinite(knowledge.vectors).all()
    assert set(CELLS) - {"control"} <= set(knowledge.genes)


OLD = {
    "MARCH1": "MARCHF1", "MARCH5": "MARCHF5", "SEPT2": "SEPTIN2", "SEPT9": "SEPTIN9", "OCT4": "POU5F1", "CD45": "PTPRC",
    "HER2": "ERBB2", "FAM46C": "TENT5C", "KIAA1429": "VIRMA", "WDR61": "SKIC8", "TTC37": "SKIC3", "SKIV2L": "SKIC2",
    "C19orf43": "TRIR", "H2AFZ": "H2AZ1", "HIST1H1C": "H1-2", "PARK2": "PRKN", "TCEB1": "ELOC", "QARS": "QARS1",
    "WISP1": "CCN4", "CTGF": "CCN2",
}  # fmt: skip


def test_old_symbols_are_found(knowledge):
    found = {old: knowledge.has(old) for old in OLD}
    assert all(found.values()), [old for old, has in found.items() if not has]
    np.testing.assert_array_equal(knowledge.of(list(OLD)), knowledge.of(list(OLD.values())))


def test_relatives_are_near(knowledge):
    """Subunits of a complex resemble each other more than others do, in each source but that of domains."""
    pairs = [("MED12", "MED30"), ("RPL3", "RPL4"), ("PSMA1", "PSMA3"), ("EIF2B1", "EIF2B5")]
    genes = sorted({gene for pair in pairs for gene in pair})
    for name in ("text", "go", "literature"):
        vectors = knowledge.source(name).of(genes)
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        cosine = dict(zip(genes, vectors @ vectors.T, strict=True))
        for one, other in pairs:
            others = [cosine[one][i] for i, gene in enumerate(genes) if gene not in (one, other)]
            assert cosine[one][genes.index(other)] > max(others)


def test_chosen_sources_and_organism():
    one = gene_embeddings("go")
    assert one.source_names == ("go",)
    mouse = gene_embeddings(("text", "go"), organism="mouse")
    assert mouse.has("Sox2+Nanog")
    assert not mouse.has("SOX2")
    np.testing.assert_array_equal(mouse.source("go").of(["Sox2"]), one.of(["SOX2"]))
    for wrong in ([], "esm", ["go", "go"]):
        with pytest.raises(ValueError, match="sources must be some of text, go, literature, domains"):
            gene_embeddings(wrong)
    with pytest.raises(ValueError, match="organism must be 'human' or 'mouse'"):
        gene_embeddings(organism="yeast")


def test_the_bundle_is_small():
    assert build_knowledge.BUNDLE.stat().st_size < 15e6


def annotation():
    """An annotation of six genes, one of them not coding, as the two databases have it."""
    org, go = sqlite3.connect(":memory:"), sqlite3.connect(":memory:")
    genes = ["AAA", "BBB", "CCC", "DDD", "EEE", "LNC"]
    org.execute("create table genetype (_id, gene_type)")
    org.executemany(
        "insert into genetype values (?, ?)",
        [(i, "ncRNA" if g == "LNC" else "protein-coding") for i, g in enumerate(genes)],
    )
    org.execute("create table gene_info (_id, symbol, gene_name)")
    org.executemany("insert into gene_info values (?, ?, ?)", [(i, g, f"gene {g}") for i, g in enumerate(genes)])
    terms = {"mf": [(0, "GO:1"), (1, "GO:1"), (2, "GO:2"), (3, "GO:2")], "bp": [(0, "GO:3"), (4, "GO:3")], "cc": []}
    for key, rows in terms.items():
        for table in (f"go_{key}", f"go_{key}_all"):
            org.execute(f"create table {table} (_id, go_id, evidence)")
            org.executemany(f"insert into {table} values (?, ?, 'EXP')", rows)
    org.execute("create table pubmed (_id, pubmed_id)")
    org.executemany(
        "insert into pubmed values (?, ?)",
        [(0, "1"), (1, "1"), (2, "2"), (3, "2"), (4, "3"), (0, "3"), (5, "4"), *((i, "9") for i in range(200))],
    )
    for table, key in (("pfam", "pfam_id"), ("prosite", "prosite_id")):
        org.execute(f"create table {table} (_id, ipi_id, {key})")
    org.executemany("insert into pfam values (?, '', ?)", [(0, "PF1"), (1, "PF1"), (2, "PF2"), (3, "PF2"), (4, None)])
    org.executemany("insert into prosite values (?, '', ?)", [(0, "PS1"), (4, "PS1")])
    org.execute("create table alias (_id, alias_symbol)")
    org.executemany(
        "insert into alias values (?, ?)",
        [(0, "AAA"), (0, "OLDA"), (1, "SHARED"), (2, "SHARED"), (1, "BB"), (2, "BB"), (3, "EEE"), (5, "OLDLNC")],
    )
    go.execute("create table go_term (go_id, term)")
    go.executemany("insert into go_term values (?, ?)", [("GO:1", "one"), ("GO:2", "two"), ("GO:3", "three")])
    return org, go


class Letters:
    """Counts letters, in place of a sentence encoder."""

    def encode(self, sentences):
        return np.array([[text.count(letter) for letter in "abcdetABCDE:."] for text in sentences], float) + 0.01


def test_building_the_knowledge(monkeypatch):
    monkeypatch.setattr(build_knowledge, "N_DIMS", 2)
    monkeypatch.setattr(build_knowledge, "DOMAIN_DIMS", 2)
    bundle = build_knowledge.build(*annotation(), Letters())
    again = build_knowledge.build(*annotation(), Letters())
    assert all(np.array_equal(bundle[name], again[name]) for name in bundle)
    symbols = bundle["symbols"].tolist()
    assert symbols == ["AAA", "BBB", "CCC", "DDD", "EEE"]
    rows = {name: [symbols[i] for i in bundle[f"{name}_rows"]] for name in ("text", "go", "literature", "domains")}
    assert rows["text"] == rows["go"] == rows["literature"] == symbols
    for name in rows:
        assert bundle[name].dtype == np.int8
        lengths = np.linalg.norm(bundle[name] / 127.0 * np.abs(bundle[name]).max() / 127, axis=1)
        assert lengths.std() < 0.05 * lengths.mean()
    # AAA and BBB have a term, a paper and a domain in common; AAA and CCC have none.
    for name in ("go", "literature", "domains"):
        vector = dict(zip(rows[name], bundle[name].astype(float), strict=True))
        assert vector["AAA"] @ vector["BBB"] > vector["AAA"] @ vector["CCC"] + 1
    # The alias of two genes is nobody's, unless the symbol of one resembles it; and a symbol is never an alias.
    found = zip(bundle["aliases"].tolist(), bundle["alias_rows"], strict=True)
    assert {alias: symbols[row] for alias, row in found} == {"OLDA": "AAA", "BB": "BBB"}


def test_texts_of_genes():
    org, go = annotation()
    genes = {0: ("AAA", "gene AAA"), 4: ("EEE", "gene EEE")}
    assert build_knowledge.describe(org, go, genes) == {
        "AAA": "AAA, gene AAA. Molecular function: one. Biological process: three.",
        "EEE": "EEE, gene EEE. Biological process: three.",
    }


def test_papers_on_too_many_genes_do_not_count():
    org, _ = annotation()
    assert build_knowledge.papers(org) == {(0, "1"), (1, "1"), (2, "2"), (3, "2"), (4, "3"), (0, "3")}


def test_another_annotation_is_refused(tmp_path):
    path = tmp_path / "GO.sqlite"
    path.write_bytes(b"another")
    with pytest.raises(ValueError, match=r"GO\.sqlite has the SHA-256 [0-9a-f]{64}, not"):
        build_knowledge.check(path)
