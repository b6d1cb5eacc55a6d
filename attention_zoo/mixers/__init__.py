"""One file per mixer; each reads like its paper. Importing this package registers those it names."""

from attention_zoo.mixers.cluster import Cluster
from attention_zoo.mixers.cluster_cross import ClusterCross
from attention_zoo.mixers.cross_attention import CrossAttention
from attention_zoo.mixers.dot_product import DotProduct
from attention_zoo.mixers.doubly_normalized import DoublyNormalized
from attention_zoo.mixers.global_filter import GlobalFilter
from attention_zoo.mixers.k_means import KMeans
from attention_zoo.mixers.k_means_cross import KMeansCross
from attention_zoo.mixers.performer import Performer
from attention_zoo.mixers.probabilistic import Probabilistic
from attention_zoo.mixers.vars_d import VarsD
from attention_zoo.mixers.vars_s import VarsS
from attention_zoo.mixers.vars_sd import VarsSD

__all__ = [
    "Cluster",
    "ClusterCross",
    "CrossAttention",
    "DotProduct",
    "DoublyNormalized",
    "GlobalFilter",
    "KMeans",
    "KMeansCross",
    "Performer",
    "Probabilistic",
    "VarsD",
    "VarsS",
    "VarsSD",
]
