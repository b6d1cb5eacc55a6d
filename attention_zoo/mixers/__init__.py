"""One file per mixer; each reads like its paper. Importing this package registers those it names."""

from attention_zoo.mixers.agent import Agent
from attention_zoo.mixers.bi_level_routing import BiLevelRouting
from attention_zoo.mixers.channel_attention import ChannelAttention
from attention_zoo.mixers.cluster import Cluster
from attention_zoo.mixers.cluster_cross import ClusterCross
from attention_zoo.mixers.crate import CRATE
from attention_zoo.mixers.cross_attention import CrossAttention
from attention_zoo.mixers.cross_covariance import CrossCovariance
from attention_zoo.mixers.differential import Differential
from attention_zoo.mixers.dot_product import DotProduct
from attention_zoo.mixers.doubly_normalized import DoublyNormalized
from attention_zoo.mixers.focal_modulation import FocalModulation
from attention_zoo.mixers.gated_conv import GatedConv
from attention_zoo.mixers.global_filter import GlobalFilter
from attention_zoo.mixers.k_means import KMeans
from attention_zoo.mixers.k_means_cross import KMeansCross
from attention_zoo.mixers.linear import Linear
from attention_zoo.mixers.neighborhood import Neighborhood
from attention_zoo.mixers.performer import Performer
from attention_zoo.mixers.probabilistic import Probabilistic
from attention_zoo.mixers.sigmoid_attention import SigmoidAttention
from attention_zoo.mixers.tost import ToST
from attention_zoo.mixers.twicing import Twicing
from attention_zoo.mixers.vars_d import VarsD
from attention_zoo.mixers.vars_s import VarsS
from attention_zoo.mixers.vars_sd import VarsSD
from attention_zoo.mixers.window import Window

__all__ = [
    "Agent",
    "BiLevelRouting",
    "CRATE",
    "ChannelAttention",
    "Cluster",
    "ClusterCross",
    "CrossAttention",
    "CrossCovariance",
    "Differential",
    "DotProduct",
    "DoublyNormalized",
    "FocalModulation",
    "GatedConv",
    "GlobalFilter",
    "KMeans",
    "KMeansCross",
    "Linear",
    "Neighborhood",
    "Performer",
    "Probabilistic",
    "SigmoidAttention",
    "ToST",
    "Twicing",
    "VarsD",
    "VarsS",
    "VarsSD",
    "Window",
]
