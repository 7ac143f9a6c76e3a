"""What was done to scans and how they were staged, as a text that a paper can take, with its sources."""

from __future__ import annotations

from importlib.metadata import version

from brainstage.core.schema import define_stages, short_names
from brainstage.inference.performance import model_performance
from brainstage.inference.predictor import Predictor
from brainstage.scans.extraction import Skull

REFERENCES = {
    "Dalal and Triggs 2005": "Dalal N, Triggs B. Histograms of oriented gradients for human detection. CVPR 2005.",
    "Fonov et al. 2011": "Fonov V, et al. Unbiased average age-appropriate atlases for pediatric studies. "
    "NeuroImage 2011; 54: 313–327.",
    "Guo et al. 2017": "Guo C, et al. On calibration of modern neural networks. ICML 2017.",
    "Marcus et al. 2007": "Marcus DS, et al. Open Access Series of Imaging Studies (OASIS). J Cogn Neurosci 2007; "
    "19: 1498–1507.",
    "McCullagh 1980": "McCullagh P. Regression models for ordinal data. J R Stat Soc B 1980; 42: 109–142.",
    "Morris 1993": "Morris JC. The Clinical Dementia Rating (CDR): current version and scoring rules. Neurology "
    "1993; 43: 2412–2414.",
    "Sadinle et al. 2019": "Sadinle M, Lei J, Wasserman L. Least ambiguous set-valued classifiers with bounded "
    "error levels. JASA 2019; 114: 223–234.",
    "Tustison et al. 2010": "Tustison NJ, et al. N4ITK: improved N3 bias correction. IEEE Trans Med Imaging 2010; "
    "29: 1310–1320.",
}
"""Sources, by the words with which a text cites them."""
_TAKEN_OFF = (
    "bias field was corrected (N4, Tustison et al. 2010) and the brain taken out within the outline of the "
    "template, as in the training data (Marcus et al. 2007)."
)
_SKULL = {
    "auto": f"Where a scan showed a head with its skull, the {_TAKEN_OFF}",
    "strip": f"The {_TAKEN_OFF}",
    "stripped": "The scans came without their skull.",
}
_REGISTERED = (
    "Each brain was registered by an affine map to a template in MNI152 space (ICBM 152 nonlinear symmetric 2009a, "
    "Fonov et al. 2011); scans that did not look like a T1-weighted brain were refused. Axial slices were cut at "
    "the levels of the training data."
)
_PATIENT_MODEL = (
    "The model predicts a scan from all of its slices together: ridge regression on histograms of edge directions "
    "(after Dalal and Triggs 2005) and of grey values, then proportional odds (McCullagh 1980)."
)
_NETWORK = "The model predicts each slice by a network and averages the probabilities of a scan's slices."


def methods(predictor: Predictor, skull: Skull) -> str:
    """Return what was done to the scans of a dataset and how they were staged, with its sources cited.

    Args:
        predictor: The model.
        skull: What was done to skulls.
    """
    about = predictor.about
    stages = ", ".join(short_names(predictor.classes))
    defined = define_stages(predictor.classes)
    sentences = [
        f"T1-weighted scans were staged with brainstage {version('brainstage')}.",
        _SKULL[skull],
        _REGISTERED,
        f"The stage ({stages}) was predicted by the model {about.get('recipe', 'of unknown recipe')} (weights "
        f"{predictor.hash[:12]}).",
        f"{defined.removesuffix('.')} (Morris 1993)." if defined else "",
        _NETWORK if predictor.by_slice else _PATIENT_MODEL,
        _calibration(predictor),
        "Scans that did not look like those of the training data were refused." if predictor.refuses else "",
        model_performance(about),
    ]
    return " ".join(filter(None, sentences))


def cited(text: str) -> list[str]:
    """Return the sources that a text cites, in the order of their authors."""
    return [source for citation, source in REFERENCES.items() if citation in text.replace("\n", " ")]


def _calibration(predictor: Predictor) -> str:
    if not predictor.calibrated:
        return "Its scores were not calibrated on people outside the training set."
    by_temperature = " by a temperature (Guo et al. 2017)" if predictor.by_slice else ""
    return (
        f"Probabilities were calibrated on people outside the training set{by_temperature}; sets of stages hold "
        "the true one for nine of ten people like those of the training data (Sadinle et al. 2019)."
    )
