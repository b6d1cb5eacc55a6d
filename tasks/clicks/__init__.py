"""Clicks in training and evaluation: simulated annotators, evaluation protocols, curriculum, losses and results."""

from attention_zoo.clicks import number_of_clicks
from tasks.clicks.annotator import next_click
from tasks.clicks.curriculum import Curriculum
from tasks.clicks.settings import Setting

__all__ = ["Curriculum", "Setting", "next_click", "number_of_clicks"]
